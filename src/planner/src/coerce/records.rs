//! Rows: what is asked of them and done to them where their types are those of structs.
//!
//! * `row IS NULL` asks for the fields ([`Nulls`], the first of the rules: what rules after it ask
//!   is whether a value is there, which is another question);
//! * `(row).name` is the call `record_field(row, NULL::struct, 'name')`, whose struct has this
//!   field alone;
//! * rows that are compared, or become one, get one type, field by field ([`united`]); a row that
//!   is not named takes the names of the other. Comparison itself goes by keys ([`super::keyed`]);
//! * casts go field by field, in order, and are ours. DataFusion's go by names, and fill up what
//!   has none: a plan that comes to hold one is refused ([`Casts`]).

use super::calls::Calls;
use super::typing::Typed;
use crate::error::external;
use crate::types::{sql_type_name, united};
use arrow_schema::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Cast, Expr, LogicalPlan, lit};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::{Error, SqlState};

pub(super) fn is_record(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(_))
}

/// Whether a value is a row or a map, which are compared and cast as wholes.
pub(super) fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(_) | DataType::Map(..))
}

/// Whether a value is a row or a map, or holds one.
pub(super) fn holds_record(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => holds_record(element.data_type()),
        other => is_whole(other),
    }
}

/// The rule of `IS [NOT] NULL`.
#[derive(Debug)]
pub(super) struct Nulls(pub Calls);

impl AnalyzerRule for Nulls {
    fn name(&self) -> &str {
        "record_nulls"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |expr, schema| {
            let (name, inner) = match &expr {
                Expr::IsNull(inner) => ("record_is_null", inner),
                Expr::IsNotNull(inner) => ("record_is_not_null", inner),
                _ => return Ok(Transformed::no(expr)),
            };
            if !inner.get_type(schema).is_ok_and(|t| is_record(&t)) {
                return Ok(Transformed::no(expr));
            }
            let call = self.0.call(name, vec![inner.as_ref().clone()])?;
            Ok(Transformed::yes(call))
        })
    }
}

/// The rule that refuses DataFusion's casts of rows; it comes after the coercion that writes them.
#[derive(Debug)]
pub(super) struct Casts;

impl AnalyzerRule for Casts {
    fn name(&self) -> &str {
        "record_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    if let Expr::Cast(Cast { expr, field }) = e
                        && holds_record(field.data_type())
                        && let Ok(from) = expr.get_type(&schema)
                        && holds_record(&from)
                        && from != *field.data_type()
                    {
                        return Err(mismatch(&from, field.data_type()));
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

fn mismatch(a: &DataType, b: &DataType) -> datafusion_common::DataFusionError {
    let message = format!(
        "types {} and {} cannot be matched",
        sql_type_name(a),
        sql_type_name(b)
    );
    external(Error::user(SqlState::DATATYPE_MISMATCH, message))
}

impl Calls {
    /// A field of a row.
    ///
    /// Errors: `42703` for one that it does not have, `42809` for a value that is no row.
    pub(super) fn field(&self, value: Expr, is: &DataType, name: &str) -> Result<Expr> {
        let DataType::Struct(fields) = is else {
            let message = format!(
                "column notation .{name} applied to type {}, which is not a composite type",
                sql_type_name(is)
            );
            return Err(external(Error::user(SqlState::WRONG_OBJECT_TYPE, message)));
        };
        if !fields.iter().any(|field| field.name() == name) {
            let message = format!(
                "column \"{name}\" not found in data type {}",
                sql_type_name(is)
            );
            return Err(external(Error::user(SqlState::UNDEFINED_COLUMN, message)));
        }
        // That of the row of a table is the column.
        if let Expr::ScalarFunction(call) = &value
            && call.func.name() == "named_record"
            && let Some(at) = fields.iter().position(|field| field.name() == name)
        {
            return Ok(call.args[at].clone());
        }
        // The text tells two fields apart where plans name what they compute.
        let of = DataType::Struct(vec![Field::new(name, DataType::Null, true)].into());
        let of = lit(ScalarValue::try_from(&of)?);
        self.call("record_field", vec![value, of, lit(name)])
    }

    /// Brings values, one of which is a row or an array of rows, to one type.
    ///
    /// Errors: `42804` for values that have none.
    pub(super) fn one_record(&self, values: &mut [&mut Expr], types: &[DataType]) -> Result<bool> {
        let untyped = |value: &Expr, t: &DataType| super::arrays::is_untyped(value, t);
        let mut wanted = DataType::Null;
        for (value, is) in values.iter().zip(types) {
            if !untyped(value, is) {
                wanted = united(&wanted, is).ok_or_else(|| mismatch(&wanted, is))?;
            }
        }
        let mut changed = false;
        for (value, is) in values.iter_mut().zip(types) {
            if *is != wanted && *is != DataType::Null {
                **value = self.cast(std::mem::take(*value), &wanted)?;
                changed = true;
            }
        }
        Ok(changed)
    }
}
