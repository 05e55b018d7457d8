//! Which plans may run again, and those of a session that do: of a small query, planning takes
//! several times as long as running it, and dashboards and drivers send the same ones again and
//! again.
//!
//! A plan is kept by the text of its query and the values of the parameters, but for those that
//! have slots in it ([`super::slots`]), and runs again as long as a planning would give the same:
//! the catalog, which has the relations, their indexes, who may read them and which jobs stand
//! still, is the same one, and the settings are equal. What else a planning may depend on is kept
//! out by a list of what such a query may say ([`relations_of`]): functions whose value is their
//! arguments' alone, no moments by words (`'now'`), no system tables and plain views, no locks.
//! What a plan itself looks up while it is made (rows by key) is not kept either ([`runs_again`]).
//! The rows are those of each run ([`super::sight`]).

use crate::identifiers::fold;
use crate::settings::Settings;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArguments, ObjectName, Query, TableFactor, ValueWithSpan, Visit, Visitor,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::RelationId;
use tidemark_plan::{Catalog, Relation, RelationKind};

/// Plans that a session keeps.
const PLANS_MAX: usize = 16;

/// Bytes of a query's text, and of its parameters as text, if its plan is kept.
pub(crate) const BYTES_MAX: usize = 2048;

/// Functions that a query with a kept plan may call: aggregates, and those whose value is that of
/// their arguments.
const FUNCTIONS: [&str; 32] = [
    "abs",
    "avg",
    "bool_and",
    "bool_or",
    "ceil",
    "ceiling",
    "coalesce",
    "count",
    "date_part",
    "date_trunc",
    "every",
    "floor",
    "greatest",
    "least",
    "length",
    "lower",
    "max",
    "min",
    "mod",
    "nullif",
    "round",
    "sign",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "trunc",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
];

/// Steps that begin anew when they are run again.
const STEPS: [&str; 15] = [
    "AggregateExec",
    "CoalescePartitionsExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "InOrder",
    "LocalLimitExec",
    "NothingKnown",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortExec(TopK)",
    "SortPreservingMergeExec",
    "StreamingTableExec",
];

/// A plan, and for what it was made.
pub(crate) struct Plan {
    /// The relations then.
    pub catalog: Arc<Catalog>,
    /// The session's settings then.
    pub settings: Arc<Settings>,
    /// What it reads.
    pub relations: Vec<Arc<Relation>>,
    /// In how many shares each relation is.
    pub shares: Vec<usize>,
    /// How it runs.
    pub physical: Arc<dyn ExecutionPlan>,
    /// The columns of the result.
    pub schema: SchemaRef,
}

impl Plan {
    /// Whether it is made for this catalog and these settings.
    pub fn is_of(&self, catalog: &Arc<Catalog>, settings: &Settings) -> bool {
        Arc::ptr_eq(&self.catalog, catalog) && self.settings.equals(settings)
    }
}

/// The plans of a session.
#[derive(Default)]
pub(crate) struct Plans {
    /// By the text, then by the values of parameters.
    plans: HashMap<String, Vec<(Vec<Expr>, Arc<Plan>)>>,
    count: usize,
}

impl Plans {
    /// The plan for a text and values.
    pub fn get(&self, text: &str, parameters: &[Expr]) -> Option<&Arc<Plan>> {
        let mut of_text = self.plans.get(text)?.iter();
        of_text.find_map(|(p, plan)| (p == parameters).then_some(plan))
    }

    /// Keeps a plan; when there are too many, all others go.
    pub fn put(&mut self, text: &str, parameters: &[Expr], plan: Arc<Plan>) {
        if self.count >= PLANS_MAX {
            *self = Plans::default();
        }
        let of_text = self.plans.entry(text.into()).or_default();
        let before = of_text.len();
        of_text.retain(|(p, _)| p != parameters);
        self.count -= before - of_text.len();
        of_text.push((parameters.to_vec(), plan));
        self.count += 1;
    }
}

/// Whether a plan gives the same as another planning would, whenever it runs.
pub(crate) fn runs_again(plan: &Arc<dyn ExecutionPlan>) -> bool {
    STEPS.contains(&plan.name()) && plan.children().into_iter().all(runs_again)
}

/// The relations that a query reads, if the plan of the query may be kept.
pub(crate) fn relations_of(
    sql: &ast::Statement,
    catalog: &Catalog,
    search_path: &[String],
) -> Option<Vec<Arc<Relation>>> {
    let mut reader = Reader {
        catalog,
        search_path,
        named: BTreeSet::new(),
        relations: BTreeMap::new(),
    };
    match Visit::visit(sql, &mut reader) {
        ControlFlow::Continue(()) if !reader.relations.is_empty() => {
            Some(reader.relations.into_values().collect())
        }
        _ => None,
    }
}

/// Reads a query until it says what none with a kept plan may.
struct Reader<'a> {
    catalog: &'a Catalog,
    search_path: &'a [String],
    /// What WITH names.
    named: BTreeSet<String>,
    relations: BTreeMap<RelationId, Arc<Relation>>,
}

impl Reader<'_> {
    fn relation(&mut self, name: &ObjectName) -> Option<()> {
        let parts = name.0.iter().map(|part| Some(fold(part.as_ident()?)));
        let parts = parts.collect::<Option<Vec<_>>>()?;
        let (schemas, name) = match parts.as_slice() {
            [schema, name] => (std::slice::from_ref(schema), name),
            [name] => (self.search_path, name),
            _ => return None,
        };
        let catalog = self.catalog;
        let Some(relation) = schemas.iter().find_map(|s| catalog.find(s, name)) else {
            return self.named.contains(name).then_some(());
        };
        let kept = matches!(
            relation.kind,
            RelationKind::Table | RelationKind::Source | RelationKind::MaterializedView
        );
        let runs = !catalog.stopped.contains_key(&relation.id);
        (kept && runs && relation.is_materialized()).then(|| {
            self.relations.insert(relation.id, relation.clone());
        })
    }
}

fn go_on(may: bool) -> ControlFlow<()> {
    match may {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    }
}

impl Visitor for Reader<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            let names = with.cte_tables.iter().map(|cte| fold(&cte.alias.name));
            self.named.extend(names);
        }
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        go_on(query.locks.is_empty() && !recursive)
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        go_on(self.relation(name).is_some())
    }

    // What a function of a statement reads is not named here.
    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let TableFactor::Function { name, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let last = name.0.last().and_then(|part| part.as_ident()).map(fold);
        let mut all = self.catalog.relations.values();
        go_on(!all.any(|r| r.kind == RelationKind::Function && Some(&r.name) == last.as_ref()))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        go_on(match expr {
            Expr::Function(call) => {
                let name = call
                    .name
                    .0
                    .first()
                    .and_then(|part| part.as_ident())
                    .map(fold);
                let is_known = name.is_some_and(|name| FUNCTIONS.contains(&name.as_str()));
                let is_plain = matches!(call.args, FunctionArguments::List(_));
                is_known && is_plain && call.name.0.len() == 1
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => false,
            _ => true,
        })
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        go_on(!depends_on_clock(&value.to_string()))
    }
}

/// Whether a text may be a moment that is another one tomorrow.
pub(crate) fn depends_on_clock(text: &str) -> bool {
    let text = text.to_lowercase();
    let words = ["now", "today", "tomorrow", "yesterday"];
    words.iter().any(|word| text.contains(word))
}
