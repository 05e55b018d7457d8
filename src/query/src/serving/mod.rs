//! Ad-hoc queries: DataFusion over the relations' rows at one pinned epoch.
//!
//! A statement is planned against one catalog snapshot and one [`Snapshot`] of the data, so that
//! every relation in it is seen at the same epoch. Plain views are expanded in place; materialized
//! relations are scanned partition by partition, or looked up by key; an append-only source is read
//! from its connector. The functions are the streaming evaluator's own, and [`semantics`] makes
//! operators and casts answer as there.

pub mod aggregates;
pub mod array_functions;
pub mod collect;
pub mod functions;
mod lazy;
mod memory;
mod missing;
pub mod names;
mod order;
mod passing;
pub mod planning;
pub(crate) mod plans;
pub mod point;
pub mod position;
mod privileges;
pub mod provider;
pub mod query;
pub mod reads;
mod rewrite;
pub mod semantics;
pub mod series;
mod session_functions;
pub(crate) mod sight;
mod sizes;
pub(crate) mod slots;
pub mod system;
pub mod system_arrays;
pub mod system_columns;
pub mod table_provider;
pub mod threads;
mod watched;
mod windows;

use crate::commons::Commons;
use crate::error::{from_datafusion, from_planning};
use crate::snapshot::Snapshot;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::config::ConfigOptions;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_operator::functions::within;
use tidemark_planner::Decorrelated;

/// Bytes of a constant that is computed while a statement is planned; a larger one is computed
/// when the query runs, where it is counted and not copied from rule to rule.
const FOLDED_BYTES_MAX: u64 = 1 << 16;

/// What all sessions share: configuration, functions, memory.
pub struct Serving {
    base: SessionState,
    /// What queries may use.
    memory: Arc<memory::QueryMemory>,
    /// Where queries run.
    pub threads: threads::Threads,
    /// Where statements are planned.
    pub planning: planning::Planning,
}

impl Serving {
    /// Sets DataFusion up, with memory of so many bytes for all queries.
    pub fn new(memory_bytes: u64) -> Result<Serving> {
        let memory = memory::QueryMemory::new(memory_bytes);
        let runtime: Arc<RuntimeEnv> = RuntimeEnvBuilder::new()
            .with_memory_pool(memory.of_one(None))
            .build_arc()
            .map_err(from_datafusion)?;
        let mut options = ConfigOptions::new();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
        options.execution.time_zone = Some("UTC".into());
        options.execution.target_partitions = num_cpus::get().max(1);
        options.execution.collect_statistics = false;
        // It compares metadata too, in which constants differ.
        options.execution.skip_physical_aggregate_schema_check = true;
        options.catalog.create_default_catalog_and_schema = false;
        let mut builder = SessionStateBuilder::new()
            .with_config(SessionConfig::from(options))
            .with_runtime_env(runtime)
            .with_default_features();
        let scalar = builder.scalar_functions().get_or_insert_default();
        let evaluated = tidemark_operator::functions::all();
        let known: HashSet<String> = evaluated
            .iter()
            .flat_map(|f| std::iter::once(f.name().to_string()).chain(f.aliases().iter().cloned()))
            .collect();
        // A built-in function that ours replace must go altogether: a session's state is built from
        // the values of this one in no order, and an alias would bring it back.
        scalar.retain(|f| !known.contains(f.name()));
        scalar.extend(evaluated);
        scalar.extend(
            functions::shared()
                .into_iter()
                .filter(|f| f.name() == "version" || !known.contains(f.name())),
        );
        // In place of the built-in ones, for the same reason: `mean` would bring back the built-in
        // average.
        *builder.aggregate_functions() = Some(aggregates::all());
        // DataFusion's physical filter pushdown finds a join's columns by name: a filter over both
        // sides of a self join ended up at one of them. Filters are pushed down in the logical plan
        // already. Its projection pushdown computes below a filter what is there for the rows that
        // the filter keeps: `SELECT 1 / q FROM t WHERE q <> 0` failed.
        let left_out =
            |name: &str| name.starts_with("FilterPushdown") || name == "ProjectionPushdown";
        let own = PhysicalOptimizer::new().rules.into_iter();
        let own = own.filter(|rule| !left_out(rule.name()));
        let first = Arc::new(order::KnownOrders);
        let physical = std::iter::once(first as _).chain(own).collect();
        // The planner's rules of types, so that an expression has one type in a view and here; then
        // our semantics of operators.
        let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> =
            vec![Arc::new(ResolveGroupingFunction::new())];
        let functions = tidemark_planner::Functions {
            scalar: tidemark_operator::functions::all(),
        };
        rules.extend(functions.analyzer_rules(table_provider::key_of));
        rules.push(Arc::new(missing::MissingRows));
        rules.push(Arc::new(semantics::PostgresSemantics));
        let mut optimizer_rules = tidemark_planner::ad_hoc_rules();
        optimizer_rules.push(Arc::new(lazy::LazyCalls));
        optimizer_rules.push(Arc::new(windows::OwnWindows));
        let mut expr_planners = functions.expr_planners();
        expr_planners.extend(builder.expr_planners().take().unwrap_or_default());
        let builder = builder
            .with_analyzer_rules(rules)
            .with_type_planner(Arc::new(names::TypeNames))
            .with_expr_planners(expr_planners)
            .with_relation_planners(functions.relation_planners())
            .with_optimizer_rules(optimizer_rules)
            .with_physical_optimizer_rules(physical);
        Ok(Serving {
            base: builder.build(),
            memory,
            threads: threads::Threads::new()?,
            planning: planning::Planning::new()?,
        })
    }

    /// Bytes that queries hold.
    pub fn memory_used(&self) -> u64 {
        self.memory.used()
    }

    /// What queries have together.
    pub fn memory(&self) -> Arc<dyn tidemark_node::Others> {
        self.memory.clone()
    }

    /// Bytes that one query may have, unless it is given more.
    pub fn memory_of_one(&self) -> u64 {
        self.memory.share()
    }

    /// Starts a physical plan with memory of its own, of `limit` bytes; `sight`: what a plan sees
    /// that runs more than once.
    pub fn run(
        &self,
        state: &SessionState,
        physical: Arc<dyn ExecutionPlan>,
        taker: threads::Taker,
        limit: Option<u64>,
        sight: Option<Arc<sight::Sight>>,
    ) -> Result<threads::Running> {
        let step = self.memory.step().min(watched::STEP_BYTES);
        let memory = self.memory.of_one(limit);
        let runtime = RuntimeEnv {
            memory_pool: memory.clone(),
            ..state.runtime_env().as_ref().clone()
        };
        let mut config = state.config().clone();
        if let Some(sight) = sight {
            config.set_extension(sight);
        }
        let task = TaskContext::new(
            None,
            String::new(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::new(runtime),
        );
        let running = self
            .threads
            .run(physical, Arc::new(task), memory, taker, step);
        running.map_err(from_datafusion)
    }

    /// A state of its own for a session: its functions know who asks.
    pub fn session_state(&self, pid: i32, commons: &Arc<Commons>) -> SessionState {
        let mut builder = SessionStateBuilder::new_from_existing(self.base.clone());
        builder
            .scalar_functions()
            .get_or_insert_default()
            .extend(functions::of_session(pid, commons));
        builder.build()
    }
}

/// How SQL becomes a logical plan, everywhere.
pub fn parser_options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(false)
}

/// Plans a query against a snapshot.
pub fn plan(
    state: &SessionState,
    snapshot: &Snapshot,
    statement: ast::Statement,
) -> Result<LogicalPlan> {
    let provider = provider::Provider {
        state,
        snapshot,
        depth: 0,
        within: None,
        relations: &Cell::new(0),
    };
    SqlToRel::new_with_options(&provider, parser_options())
        .sql_statement_to_plan(statement)
        .and_then(tidemark_planner::without_marks)
        .map_err(from_planning)
}

/// Optimises and plans how to run, on a planning thread.
pub fn physical_plan(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let physical = |state: &SessionState| physical_of(state, &optimized_of(state, plan)?);
    or_decorrelated(state, plan, physical)
}

/// What is made of a plan, if need be with all of its subqueries as joins.
fn or_decorrelated<T>(
    state: &SessionState,
    plan: &LogicalPlan,
    make: impl Fn(&SessionState) -> Result<T>,
) -> Result<T> {
    make(state).or_else(|first| {
        if !Decorrelated::may_help(plan) {
            return Err(first);
        }
        tidemark_common::check_interrupt()?;
        let mut state = state.clone();
        let options = state.config_mut().options_mut();
        options.extensions.insert(Decorrelated);
        make(&state).map_err(|_| first)
    })
}

/// Plans how to run what is optimised, on a planning thread.
fn physical_of(state: &SessionState, optimized: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let planned = state.query_planner().create_physical_plan(optimized, state);
    within(FOLDED_BYTES_MAX, || planning::wait(planned)).map_err(from_planning)
}

/// The plan with what is constant in it computed, as far as that is small.
pub fn optimized(state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan> {
    or_decorrelated(state, plan, |state| optimized_of(state, plan))
}

fn optimized_of(state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan> {
    within(FOLDED_BYTES_MAX, || state.optimize(plan)).map_err(from_planning)
}

/// Columns of a result at most, as in PostgreSQL: messages count them in 16 bits.
pub const COLUMNS_MAX: usize = 1664;

/// `54011` for more columns than a result can have.
pub fn check_columns(columns: usize) -> Result<()> {
    if columns <= COLUMNS_MAX {
        return Ok(());
    }
    Err(Error::user(
        SqlState("54011"),
        format!("target lists can have at most {COLUMNS_MAX} entries"),
    ))
}

/// The result's fields under the names that PostgreSQL gives them, with the types that really come.
pub fn named(logical: &Schema, physical: &Schema, names: Option<Vec<String>>) -> Result<SchemaRef> {
    check_columns(logical.fields().len())?;
    let field = |(i, f): (usize, &Arc<Field>)| {
        let data_type = physical
            .fields()
            .get(i)
            .map_or(f.data_type(), |p| p.data_type())
            .clone();
        let name = names
            .as_ref()
            .and_then(|n| n.get(i))
            .unwrap_or_else(|| f.name());
        let mut metadata = f.metadata().clone();
        // asyncpg's introspection reads this column before it knows any array type but oid[] and
        // text[].
        if name == "attrtypoids" {
            metadata.insert(crate::types::SQL_TYPE.into(), "oid[]".into());
        }
        Field::new(name, data_type, f.is_nullable()).with_metadata(metadata)
    };
    Ok(Arc::new(Schema::new(
        logical
            .fields()
            .iter()
            .enumerate()
            .map(field)
            .collect::<Vec<_>>(),
    )))
}
