//! The planner as the server uses it: one set of functions, planners over the current catalog.

use datafusion::sql::sqlparser::ast::Query;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::Catalog;
use tidemark_planner::{Expanded, Functions, Planner};

/// Plans with the functions of the streaming evaluator.
pub struct Sql {
    base: Planner,
}

impl Default for Sql {
    fn default() -> Sql {
        Sql::new()
    }
}

impl Sql {
    /// Collects the functions once.
    pub fn new() -> Sql {
        let functions = Functions {
            scalar: tidemark_operator::functions::all(),
        };
        Sql {
            base: Planner::new(
                Arc::new(Catalog::default()),
                &functions,
                &["public".to_string()],
            ),
        }
    }

    /// A planner over a catalog.
    pub fn planner(&self, catalog: Arc<Catalog>, search_path: &[String]) -> Planner {
        self.base.with(catalog, search_path)
    }

    /// TUMBLE, HOP and plain views of a query expanded, as views are.
    pub fn expand(
        &self,
        catalog: &Arc<Catalog>,
        search_path: &[String],
        query: Query,
    ) -> Result<Expanded> {
        self.planner(catalog.clone(), search_path).expand(query)
    }
}
