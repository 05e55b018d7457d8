//! Aggregates with PostgreSQL's result types: `sum(bigint)` and `avg` of integers are numeric. They are the planner's, so that an ad-hoc query and a view
//! have one type and one answer.

use datafusion::logical_expr::AggregateUDF;
use std::sync::Arc;

/// The aggregates that take the place of DataFusion's.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    tidemark_planner::aggregates()
}
