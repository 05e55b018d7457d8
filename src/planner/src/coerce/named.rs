//! Casts to types that Arrow's types do not tell apart: `varchar(3)[]` is a list of texts, whose
//! cast's field carries the name. What is done to the values is a call; the cast stays around it,
//! as what knows the name.

use super::calls::Calls;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::{Cast, Expr, ExprSchemable};
use std::sync::Arc;
use tidemark_plan::SQL_TYPE;

/// Whether a cast between these may do more than Arrow's types say.
pub(super) fn is_named(from: &DataType, to: &DataType) -> bool {
    matches!(to, DataType::List(_)) && matches!(from, DataType::Utf8 | DataType::List(_))
}

/// Whether the expression's field names its type.
pub(super) fn has_name(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema)
        .is_ok_and(|(_, field)| field.metadata().contains_key(SQL_TYPE))
}

impl Calls {
    /// A cast whose field names the type. It is idempotent.
    pub(super) fn named_cast(
        &self,
        expr: Expr,
        from: &DataType,
        to: FieldRef,
    ) -> Result<Transformed<Expr>> {
        let name = to.metadata().get(SQL_TYPE).cloned().unwrap_or_default();
        let cast = match to.data_type() {
            DataType::List(element) => {
                let name = name.trim_end_matches("[]").to_string();
                let element = Field::new_list_field(element.data_type().clone(), true)
                    .with_metadata([(SQL_TYPE.to_string(), name)].into());
                let named = DataType::List(Arc::new(element));
                (*from != named).then(|| self.cast(expr.clone(), &named))
            }
            _ => None,
        };
        Ok(match cast.transpose()? {
            Some(cast) => Transformed::yes(Expr::Cast(Cast::new_from_field(Box::new(cast), to))),
            None => Transformed::no(Expr::Cast(Cast::new_from_field(Box::new(expr), to))),
        })
    }
}
