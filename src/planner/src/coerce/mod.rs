//! PostgreSQL's rules of types around DataFusion's coercion, as analyzer rules in the order of [`analyzer_rules`]:
//!
//! 1. [`literals`]: integer constants are `integer` when they fit, numeric ones have no negative scale;
//! 2. [`operands`]: a quoted constant takes the type of the other operand; text and numbers do not compare; floats and numerics meet as `double precision`;
//! 3. DataFusion's coercion;
//! 4. [`division`]: quotients of numerics have sixteen digits after the point.
//!
//! Ad-hoc queries use the same list, so that an expression has one type everywhere.

mod division;
mod literals;
mod operands;

use datafusion_optimizer::AnalyzerRule;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use std::sync::Arc;

/// The analyzer rules of a bound query, DataFusion's type coercion included.
pub fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![Arc::new(literals::Literals), Arc::new(operands::Operands), Arc::new(TypeCoercion::new()), Arc::new(division::Division)]
}
