//! Names to things while SQL is planned: relations by the search path, plain views expanded, the
//! virtual tables of `pg_catalog`, `information_schema` and `tidemark`, and the session's
//! functions.

use super::table_provider::RelationTable;
use crate::catalog_tables;
use crate::snapshot::Snapshot;
use arrow::datatypes::DataType;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast;
use std::cell::Cell;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_plan::{Relation, RelationKind};
use tidemark_planner::statement::StatementKind;

/// Views within views at most.
const DEPTH_MAX: usize = 100;
/// Relations of a statement, those of its views included: a view that is named twice counts twice.
const RELATIONS_MAX: usize = 10_000;

/// Resolves the names of one statement.
pub struct Provider<'a> {
    /// Functions and options.
    pub state: &'a SessionState,
    /// Relations and rows.
    pub snapshot: &'a Snapshot,
    /// How many views are being expanded.
    pub depth: usize,
    /// The innermost of them.
    pub within: Option<&'a Relation>,
    /// Relations named so far.
    pub relations: &'a Cell<usize>,
}

fn ours(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

impl Provider<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Result<Arc<dyn TableSource>> {
        if schema.is_none()
            && let Some(own) = self.snapshot.overrides.iter().find(|o| o.name == name)
        {
            return Ok(provider_as_source(own.table.clone()));
        }
        let virtual_table =
            |schema: &str| catalog_tables::table(self.snapshot, schema, name).map_err(ours);
        if let Some(schema @ ("pg_catalog" | "information_schema" | "tidemark")) = schema
            && let Some(table) = virtual_table(schema)?
        {
            return Ok(provider_as_source(table));
        }
        if let Some(known) = self.snapshot.catalog.known(schema, name) {
            self.check_read(&known)?;
            return self.table(&known);
        }
        if let Some(relation) = self.snapshot.find(schema, name) {
            self.check_read(relation)?;
            return match self.within {
                Some(view) => self.table(&relation.known_by(view)),
                None => self.table(relation),
            };
        }
        if schema.is_none()
            && let Some(table) = virtual_table("pg_catalog")?
        {
            return Ok(provider_as_source(table));
        }
        let full = schema.map_or_else(|| name.to_string(), |s| format!("{s}.{name}"));
        Err(ours(Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{full}\" does not exist"),
        )))
    }

    /// What views read, their owners may.
    fn check_read(&self, relation: &Relation) -> Result<()> {
        let allowed = self.depth > 0 || self.snapshot.readable.lock().contains(&relation.id);
        match allowed {
            true => Ok(()),
            false => self.snapshot.check_read(relation).map_err(ours),
        }
    }

    fn table(&self, relation: &Arc<Relation>) -> Result<Arc<dyn TableSource>> {
        match relation.kind {
            RelationKind::View => Ok(provider_as_source(Arc::new(ViewTable::new(
                self.view_plan(relation)?,
                None,
            )))),
            RelationKind::Sink => Err(ours(
                Error::user(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is a sink and cannot be read", relation.name),
                )
                .with_hint("Read the relation that the sink is made from."),
            )),
            // Only a transaction block pins an epoch and names a relation later; its rows at that
            // epoch were never kept.
            _ if relation.created_at > Some(self.snapshot.pin.epoch()) => Err(ours(
                Error::user(
                    SqlState("40001"),
                    format!(
                        "relation \"{}\" was created after this transaction began",
                        relation.name
                    ),
                )
                .with_hint("Run the transaction again."),
            )),
            RelationKind::Index => Err(ours(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is an index", relation.name),
            ))),
            _ => Ok(provider_as_source(Arc::new(RelationTable::new(
                self.snapshot.clone(),
                relation.clone(),
            )))),
        }
    }

    /// A view's query as a plan with the view's column names.
    fn view_plan(&self, relation: &Relation) -> Result<LogicalPlan> {
        if self.depth >= DEPTH_MAX {
            return Err(ours(Error::unsupported(format!(
                "views are nested deeper than {DEPTH_MAX} levels"
            ))));
        }
        let statements = tidemark_planner::parse_stored(&relation.query).map_err(ours)?;
        let query = statements.into_iter().find_map(|s| match s.kind {
            StatementKind::Sql(sql) if matches!(*sql, ast::Statement::Query(_)) => Some(*sql),
            _ => None,
        });
        let query = query.ok_or_else(|| {
            ours(Error::internal(format!(
                "the text of view \"{}\" is not a query",
                relation.name
            )))
        })?;
        super::rewrite::limited(self.snapshot, &query).map_err(ours)?;
        let query = super::names::prepare(query, false);
        let snapshot = Snapshot {
            search_path: vec![relation.schema_name.clone(), "public".into()],
            ..self.snapshot.clone()
        };
        let inner = Provider {
            state: self.state,
            snapshot: &snapshot,
            depth: self.depth + 1,
            within: Some(relation),
            relations: self.relations,
        };
        let plan = SqlToRel::new_with_options(&inner, super::parser_options())
            .sql_statement_to_plan(query)?;
        let plan = tidemark_planner::without_marks(plan)?;
        let columns = plan.schema().columns();
        let renamed: Vec<Expr> = columns
            .into_iter()
            .zip(&relation.columns)
            .map(|(c, to)| Expr::Column(c).alias(to.name.clone()))
            .collect();
        datafusion::logical_expr::LogicalPlanBuilder::from(plan)
            .project(renamed)?
            .build()
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        if let Some(catalog) = name.catalog()
            && !catalog.eq_ignore_ascii_case("dev")
        {
            return Err(ours(Error::unsupported(format!(
                "cross-database references are not implemented: \"{name}\""
            ))));
        }
        tidemark_common::check_interrupt().map_err(ours)?;
        self.relations.set(self.relations.get() + 1);
        if self.relations.get() > RELATIONS_MAX {
            return Err(ours(Error::user(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("statement too complex: more than {RELATIONS_MAX} relations"),
            )));
        }
        self.relation(name.schema(), name.table())
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        if let Some(table) = catalog_tables::table_function(name).map_err(ours)? {
            return Ok(provider_as_source(table));
        }
        if name == "generate_series" {
            return super::series::source(self.state, args);
        }
        if let Some(function) = self.get_function_meta(name) {
            return super::series::value(function, args);
        }
        let function = self.state.table_functions().get(name).ok_or_else(|| {
            ours(Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name} does not exist"),
            ))
        })?;
        let args: Vec<Expr> = args
            .into_iter()
            .map(|a| super::functions::fold_argument(self.state, a))
            .collect::<Result<_>>()?;
        super::functions::check_series(self.state, name, &args)?;
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(
            function.create_table_provider_with_args(arguments)?,
        ))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: arrow::datatypes::SchemaRef,
    ) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(
            datafusion::catalog::cte_worktable::CteWorkTable::new(name, schema),
        )))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }
    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }
    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(super::names::TypeNames))
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // Whoever asks for the function of a plan that nobody waits for is not told why.
        tidemark_common::check_interrupt().ok()?;
        super::functions::of_snapshot(self.snapshot, name).or_else(|| {
            let function = self.state.scalar_functions().get(name);
            let bound = function.map(|function| tidemark_planner::bound(name, function));
            bound.or_else(|| tidemark_planner::mark(name))
        })
    }
    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }
    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }
    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        let known = self.state.window_functions().get(name).cloned();
        known.or_else(|| tidemark_planner::session_function(name))
    }
    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }
    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        self.state
            .higher_order_functions()
            .keys()
            .cloned()
            .collect()
    }
    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }
    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
