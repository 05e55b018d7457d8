//! SQL text to stream plan, in the order of the work: [`parse`] (text to statements), `bind` (names
//! to relations and functions), `coerce` (PostgreSQL's types), `optimise` (rules that are sound for
//! streams, by an allow-list), `lower` (logical plan to operators, exchanges and state tables), and
//! the statements that put them together: `create` (sources and tables) and `query` (views and
//! sinks). They stand on what knows of none of them: `statement`, `names` and `error`; `types`,
//! `signatures` and `aggregates`; `limits`.
//!
//! The law: for every input I and epoch e, the job of a query Q keeps `V(e) = Q(I(e))`. So a shape
//! is either lowered to operators of which that is proven, or refused with `0A000` and its name.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod aggregates;
mod alter;
mod bind;
mod changelog;
mod coerce;
mod create;
mod defaults;
mod define;
mod error;
mod excluded;
mod explain;
mod fold;
pub mod functions;
mod generators;
mod interval;
mod into;
mod likeness;
mod limits;
mod lineage;
mod lower;
mod marks;
mod names;
mod now;
mod optimise;
mod options;
pub mod parse;
mod query;
mod refusals;
mod sessions;
mod signatures;
pub mod statement;
pub mod subscription;
mod timed;
mod types;

use bind::{Expander, Registry, Scopes};
use datafusion_expr::planner::{ExprPlanner, RelationPlanner};
use datafusion_expr::{LogicalPlan, ScalarUDF};
use datafusion_optimizer::AnalyzerRule;
use datafusion_sql::sqlparser::ast::Query;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{Catalog, Relation};

pub use aggregates::aggregates;
pub use bind::{UNNAMED, check_collation, output_names};
pub use coerce::{Decorrelated, KeyOf, SessionZone, rewrite_up, type_of};
pub use datafusion_sql::sqlparser;
pub use error::{from_datafusion, from_planning};
pub use excluded::excluded;
pub use limits::check as check_limits;
pub use lower::to_expr;
pub use optimise::{ad_hoc_rules, may_fail};
pub use parse::{parse, parse_stored};
pub use sessions::function as session_function;
pub use signatures::bound;
pub use statement::{Statement, StatementKind};
pub use types::{
    BPCHAR, JSONB, NUMERIC, UUID, declared_digits, is_numeric_bytes, sql_type_name,
    sql_type_to_arrow,
};

/// The function that stands for a mark of ours in a query's text, by its name: of a join by time,
/// of a changelog, of what a window's frame excludes, of an argument of a function that a statement
/// made.
pub fn mark(name: &str) -> Option<Arc<ScalarUDF>> {
    let by_time = timed::mark(name).or_else(|| changelog::mark(name));
    let of_window = by_time.or_else(|| excluded::mark(name));
    of_window.or_else(|| signatures::argument(name))
}

/// Takes our marks out of a bound query that is only read.
///
/// Errors: `0A000` for what it cannot be.
pub fn without_marks(plan: LogicalPlan) -> datafusion_common::Result<LogicalPlan> {
    changelog::ad_hoc(timed::ad_hoc(plan)?)
}

/// A relation is named by a query: by the one that is asked, or by that of a view, whose owner is
/// then who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// The view.
    pub within: Option<RelationId>,
    /// The relation.
    pub relation: RelationId,
}

/// A query in which views are their queries.
pub struct Expanded {
    /// The query.
    pub query: Query,
    /// The relations that it and its views name.
    pub reads: BTreeSet<Read>,
    /// These, and those that its views read.
    pub read: BTreeSet<RelationId>,
}

/// The functions that queries may call; handed in, so that planning and evaluation use one list.
pub struct Functions {
    /// Scalar functions, found by name and alias.
    pub scalar: Vec<Arc<ScalarUDF>>,
}

impl Functions {
    /// The rules of types for ad-hoc queries: the planner's own, so that an expression has one type
    /// everywhere. `key_of` tells the keys of the tables that such queries read.
    pub fn analyzer_rules(&self, key_of: KeyOf) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
        coerce::analyzer_rules(&coerce::Calls::new(self), key_of, true)
    }

    /// What binds operators over our own types; to come before DataFusion's.
    pub fn expr_planners(&self) -> Vec<Arc<dyn ExprPlanner>> {
        coerce::expr_planners(&coerce::Calls::new(self))
    }

    /// What plans relations in FROM.
    pub fn relation_planners(&self) -> Vec<Arc<dyn RelationPlanner>> {
        bind::relation_planners()
    }
}

/// A planned CREATE.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The catalog entry, complete but for `created_at`.
    pub relation: Relation,
    /// Notices for the person, as sentences without full stop.
    pub notices: Vec<String>,
    /// What it and the views below it name.
    pub reads: BTreeSet<Read>,
}

/// Plans statements against one version of the catalog.
pub struct Planner {
    catalog: Arc<Catalog>,
    registry: Arc<Registry>,
    search_path: Vec<String>,
    /// The time zone of what is planned.
    zone: String,
    /// Whose text is planned again: its names mean what they meant.
    reader: Option<Arc<Relation>>,
}

impl Planner {
    /// A planner over `catalog`; unqualified names are looked up in `search_path` in order, and
    /// created in its first schema.
    pub fn new(catalog: Arc<Catalog>, functions: &Functions, search_path: &[String]) -> Planner {
        Planner {
            catalog,
            registry: Arc::new(Registry::new(functions)),
            search_path: search_path.to_vec(),
            zone: "UTC".into(),
            reader: None,
        }
    }

    /// What it plans over.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The same planner over another catalog or search path; cheap, because the functions are
    /// shared.
    pub fn with(&self, catalog: Arc<Catalog>, search_path: &[String]) -> Planner {
        Planner {
            catalog,
            registry: self.registry.clone(),
            search_path: search_path.to_vec(),
            zone: self.zone.clone(),
            reader: self.reader.clone(),
        }
    }

    /// The same planner in a session's time zone: what it plans keeps that zone.
    pub fn in_zone(mut self, zone: &str) -> Planner {
        self.zone = zone.to_string();
        self
    }

    /// The same planner for the text of a relation that there is, which names relations as they
    /// were called when it was written.
    pub fn for_text_of(mut self, reader: Relation) -> Planner {
        self.reader = Some(Arc::new(reader));
        self
    }

    /// Plans CREATE SOURCE, TABLE, VIEW, MATERIALIZED VIEW or SINK: the whole catalog entry,
    /// including the job. Whether the name is taken is for the caller to see (`IF NOT EXISTS`, `OR
    /// REPLACE`).
    ///
    /// Errors: PostgreSQL's codes for names, types and syntax; `0A000` for what is not maintained;
    /// `42P17` for sinks whose key is not proven.
    pub fn plan_create(
        &self,
        id: RelationId,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        let planned = match &statement.kind {
            StatementKind::CreateSource(create) => self.source(id, create, statement, owner),
            StatementKind::CreateTable(create) => self.table(id, create, statement, owner),
            StatementKind::CreateMaterializedView(view) => {
                self.materialized_view(id, view, statement, owner)
            }
            StatementKind::CreateView(view) => self.view(id, view, statement, owner),
            StatementKind::CreateSink(sink) => self.sink(id, sink, statement, owner),
            StatementKind::CreateSubscription(create) => {
                self.subscription(id, create, statement, owner)
            }
            _ => Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                "this statement creates no relation",
            )),
        };
        let mut planned = planned?;
        planned.relation.altered.seen = self.altered_so_far(&planned.relation);
        Ok(planned)
    }

    /// How often the relations that a relation reads were altered.
    pub(crate) fn altered_so_far(&self, relation: &Relation) -> BTreeMap<RelationId, u32> {
        let read = relation.depends_on.iter();
        let times =
            read.filter_map(|id| Some((*id, self.catalog.relations.get(id)?.altered.times)));
        times.filter(|(_, times)| *times > 0).collect()
    }

    /// Rewrites a query into what DataFusion's planner understands: views by their queries, TUMBLE
    /// and HOP, PostgreSQL's spellings. Shared with ad-hoc queries.
    pub fn expand(&self, mut query: Query) -> Result<Expanded> {
        limits::settle(&mut query)?;
        let provider = self.provider();
        let positions = Default::default();
        let mut expander = Expander::new(&provider, &positions);
        expander.query(&mut query)?;
        let (reads, read) = (expander.reads, expander.relations);
        Scopes::new(&provider, &positions).rewrite(&mut query)?;
        limits::check(&query, &|relation| provider.columns_of(relation))?;
        Ok(Expanded { query, reads, read })
    }

    /// The same with error positions in the text of `statement`, and with the relations that the
    /// query names.
    pub fn expand_in(
        &self,
        statement: &Statement,
        mut query: Query,
    ) -> Result<(Query, Vec<RelationId>)> {
        let provider = self.provider();
        limits::settle(&mut query)?;
        let mut expander = Expander::new(&provider, &statement.positions);
        expander.query(&mut query)?;
        Scopes::new(&provider, &statement.positions).rewrite(&mut query)?;
        limits::check(&query, &|relation| provider.columns_of(relation))?;
        Ok((query, expander.relations.into_iter().collect()))
    }

    /// Readable text of a relation's fragments, exchanges and state tables.
    pub fn explain(&self, relation: &Relation) -> Vec<String> {
        explain::explain(&self.catalog, relation)
    }
}
