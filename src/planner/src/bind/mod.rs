//! Names to objects: the catalog, the scalar functions handed in, PostgreSQL's aggregates, as
//! DataFusion's planner asks for them.

mod array_queries;
mod branches;
mod collation;
mod constants;
mod expand;
mod fields;
mod frames;
mod hypothetical;
mod inner_order;
mod json_paths;
mod keys;
mod lateral_values;
mod misplaced;
mod moments;
mod named_windows;
mod names;
mod operators;
mod outer_aggregates;
mod quantified;
mod records;
mod recursive;
mod rows;
mod same_names;
mod scopes;
mod time_windows;
mod truths;
mod unnest;
mod windows;

use crate::Functions;
use crate::aggregates;
use crate::coerce::Calls;
use crate::error::external;
use crate::names::{name_of, similar};
use crate::signatures::{bound, signatures};
use crate::types::Types;
use arrow_schema::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Constraint, Constraints, Result as DataFusionResult, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion_sql::sqlparser::ast::ObjectName;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemark_common::{Error, SqlState, check_interrupt};
use tidemark_plan::{Catalog, Relation, RelationKind};

pub use collation::check_collation;
pub(crate) use expand::{Expander, collects_parameters};
pub(crate) use keys::without_keys;
pub use names::{UNNAMED, output_names};
pub(crate) use recursive::WorkingTable;
pub(crate) use scopes::Scopes;

/// A relation as DataFusion sees it.
pub(crate) struct Table {
    /// The catalog's entry.
    pub relation: Arc<Relation>,
    /// Position in it of each column that can be named.
    positions: Vec<usize>,
    schema: SchemaRef,
    constraints: Constraints,
}

impl Table {
    pub(crate) fn new(relation: Arc<Relation>) -> Table {
        // Only a key that is enforced lets `GROUP BY key` stand for the whole row.
        let key = visible_key(&relation);
        let constraints = key.into_iter().map(Constraint::PrimaryKey).collect();
        Table {
            schema: relation.visible_schema(),
            positions: relation.visible_positions(),
            constraints: Constraints::new_unverified(constraints),
            relation,
        }
    }

    /// The positions in the relation of columns of the schema, or of all of them.
    pub(crate) fn positions(&self, columns: Option<&[usize]>) -> Vec<usize> {
        match columns {
            Some(columns) => columns.iter().map(|c| self.positions[*c]).collect(),
            None => self.positions.clone(),
        }
    }
}

/// The enforced key of a relation, by places among the columns that can be named.
fn visible_key(relation: &Relation) -> Option<Vec<usize>> {
    let key = relation.enforced_key()?.iter();
    key.map(|at| relation.visible_place(*at)).collect()
}

impl TableSource for Table {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }
}

/// The key of a table that a maintained query reads.
pub(crate) fn table_key(source: &dyn TableSource) -> Option<Vec<usize>> {
    let table = source.downcast_ref::<Table>()?;
    visible_key(&table.relation)
}

/// What plans relations in FROM.
pub(crate) fn relation_planners() -> Vec<Arc<dyn RelationPlanner>> {
    vec![Arc::new(keys::Unkeyed)]
}

/// The names of functions, shared by all statements of a planner.
pub(crate) struct Registry {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    window: BTreeMap<String, Arc<WindowUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    options: ConfigOptions,
    calls: Calls,
}

impl Registry {
    pub(crate) fn new(functions: &Functions) -> Registry {
        let mut scalar = HashMap::new();
        for function in &functions.scalar {
            for name in function
                .aliases()
                .iter()
                .map(String::as_str)
                .chain([function.name()])
            {
                scalar.insert(name.to_string(), bound(name, function));
            }
        }
        let mut aggregate = BTreeMap::new();
        for function in aggregates::for_planning() {
            for name in function
                .aliases()
                .iter()
                .map(String::as_str)
                .chain([function.name()])
            {
                aggregate.insert(name.to_string(), function.clone());
            }
        }
        let window = datafusion_functions_window::all_default_window_functions()
            .into_iter()
            .map(|f| (f.name().to_string(), f))
            .collect();
        let mut options = ConfigOptions::default();
        options.execution.time_zone = Some("UTC".into());
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        options
            .optimizer
            .enable_physical_uncorrelated_scalar_subquery = false;
        options.optimizer.filter_null_join_keys = false;
        options.optimizer.skip_failed_rules = false;
        let calls = Calls::new(functions);
        let mut expr_planners = crate::coerce::expr_planners(&calls);
        let built_in: [Arc<dyn ExprPlanner>; 5] = [
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
            Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
        ];
        expr_planners.extend(built_in);
        Registry {
            calls,
            scalar,
            aggregate,
            window,
            expr_planners,
            relation_planners: relation_planners(),
            options,
        }
    }

    pub(crate) fn options(&self) -> &ConfigOptions {
        &self.options
    }

    pub(crate) fn is_aggregate(&self, name: &str) -> bool {
        self.aggregate.contains_key(name)
    }

    /// Whether a function of this name is built in.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.scalar.contains_key(name)
            || self.is_aggregate(name)
            || self.window.contains_key(name)
            || unnest::is_set(name)
            || ["tumble", "hop", "session", "values"].contains(&name)
            || !signatures(name).is_empty()
    }

    /// Whether a function is another each time that it is called.
    pub(crate) fn is_volatile(&self, name: &ObjectName) -> bool {
        let function = self.scalar.get(&name.to_string().to_lowercase());
        function.is_some_and(|f| f.signature().volatility == Volatility::Volatile)
    }

    /// The functions that rules write into plans.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }
}

/// What DataFusion's planner asks for.
pub(crate) struct Provider<'a> {
    pub catalog: &'a Catalog,
    pub registry: &'a Registry,
    pub search_path: &'a [String],
}

impl Provider<'_> {
    /// Finds a relation by an optionally qualified name.
    pub(crate) fn find(&self, schema: Option<&str>, name: &str) -> Result<Arc<Relation>, Error> {
        if let Some(known) = self.catalog.known(schema, name) {
            return Ok(known);
        }
        let found = match schema {
            Some(schema) => self.catalog.find(schema, name),
            None => self
                .search_path
                .iter()
                .find_map(|schema| self.catalog.find(schema, name)),
        };
        found.cloned().ok_or_else(|| {
            if let Some(schema @ ("pg_catalog" | "information_schema")) = schema {
                let message = format!("reading {schema}.{name} is supported in SELECT only");
                return Error::unsupported(message);
            }
            let full = schema.map_or(name.to_string(), |s| format!("{s}.{name}"));
            let error = Error::user(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{full}\" does not exist"),
            );
            match similar(
                name,
                self.catalog.relations.values().map(|r| r.name.as_str()),
            ) {
                Some(close) => error.with_hint(format!("Perhaps you meant \"{close}\".")),
                None => error,
            }
        })
    }
}

impl Provider<'_> {
    /// The relation that the text of `reader` means by a name.
    pub(crate) fn meant(
        &self,
        reader: Option<&Relation>,
        schema: Option<&str>,
        name: &str,
    ) -> Option<&Arc<Relation>> {
        let meant = reader?.means(schema, name);
        let mut meant = meant.filter_map(|id| self.catalog.relations.get(&id));
        meant.find(|r| r.kind != RelationKind::Function)
    }

    /// How many columns a relation has; 0 of an unknown one.
    pub(crate) fn columns_of(&self, relation: &ObjectName) -> usize {
        let found = name_of(relation, 0).and_then(|n| self.find(n.schema.as_deref(), &n.name));
        found.map_or(0, |relation| relation.visible().count())
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> DataFusionResult<Arc<dyn TableSource>> {
        check_interrupt().map_err(external)?;
        let relation = self.find(name.schema(), name.table()).map_err(external)?;
        if matches!(relation.kind, RelationKind::Sink | RelationKind::Index) {
            return Err(external(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "\"{}\" is a {} and cannot be read",
                    relation.name,
                    relation.kind.name()
                ),
            )));
        }
        Ok(Arc::new(Table::new(relation)))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> DataFusionResult<Arc<dyn TableSource>> {
        Ok(Arc::new(WorkingTable::new(name, schema)))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.registry.expr_planners
    }
    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.registry.relation_planners
    }
    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // Whoever asks for the function of a plan that nobody waits for is not told why.
        let wanted = check_interrupt().is_ok();
        let known = self.registry.scalar.get(name).cloned();
        known.or_else(|| crate::mark(name)).filter(|_| wanted)
    }
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.registry.aggregate.get(name).cloned()
    }
    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.registry
            .window
            .get(name)
            .cloned()
            .or_else(|| crate::sessions::function(name))
    }
    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.registry.options
    }
    fn udf_names(&self) -> Vec<String> {
        self.registry.scalar.keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        self.registry.aggregate.keys().cloned().collect()
    }
    fn udwf_names(&self) -> Vec<String> {
        self.registry.window.keys().cloned().collect()
    }
}
