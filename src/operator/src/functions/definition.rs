//! How our scalar functions are declared: a name, the types that arguments are turned into, the
//! type of the result and one vectorised kernel.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use hashbrown::DefaultHashBuilder;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};
use tidemark_common::{Error, SqlState};

/// The key under which a field keeps what Arrow's type does not say of its SQL type.
pub(super) const SQL_TYPE: &str = "sql_type";

/// A scalar function that depends on nothing but its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// The types that arguments of these types are cast to; `None` if the function does not take
    /// them.
    pub takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    /// The result's type for arguments of (taken) types.
    pub returns: fn(&[DataType]) -> DataType,
    /// The values; an array has one per row, a scalar stands for all rows.
    pub evaluate: fn(&ScalarFunctionArgs) -> Result<ColumnarValue>,
}

impl Definition {
    pub fn function(self) -> ScalarUDF {
        let aliases = self.aliases.iter().map(ToString::to_string).collect();
        ScalarUDF::new_from_impl(Function {
            definition: self,
            aliases,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}

#[derive(Debug)]
struct Function {
    definition: Definition,
    aliases: Vec<String>,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.definition.name == other.definition.name
    }
}
impl Eq for Function {}
impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(call_name(self.definition.name, args))
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let taken = (self.definition.takes)(types);
        Ok((self.definition.returns)(taken.as_deref().unwrap_or(types)))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        wanted()?;
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let field = Field::new(self.name(), self.return_type(&types)?, true);
        Ok(Arc::new(
            match super::array::sql_type(self.name(), args.arg_fields) {
                Some(name) => field.with_metadata([(SQL_TYPE.to_string(), name)].into()),
                None => field,
            },
        ))
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.definition.takes)(types) {
            // DataFusion knows no cast from decimals to numerics: the planner writes ours.
            Some(taken) => Ok(types
                .iter()
                .zip(taken)
                .map(|(from, to)| if widens(from, &to) { from.clone() } else { to })
                .collect()),
            None => plan_err!(
                "function {}({}) does not exist",
                self.name(),
                types
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        super::bounded::begin_call(&args)?;
        (self.definition.evaluate)(&args)
    }
}

/// An error when nobody waits any more for what is planned or computed on this thread. It is looked
/// at where a type is asked for, since through calls within calls DataFusion asks from each one
/// down to the innermost; and where values are computed.
pub fn wanted() -> Result<()> {
    tidemark_common::check_interrupt().map_err(|e| DataFusionError::External(Box::new(e)))
}

/// Calls within calls from which on a column is not named after all that it computes. Whenever an
/// expression's type is asked for, DataFusion makes the names of all its parts, each of which
/// repeats those inside of it: of n calls within calls that is n * n * n letters.
const NAMED_DEPTH_MAX: usize = 16;

/// What a column that a call computes is called in a plan.
pub fn call_name(function: &str, args: &[Expr]) -> String {
    if args.iter().any(|arg| is_deep(arg, NAMED_DEPTH_MAX)) {
        static DIGEST: LazyLock<DefaultHashBuilder> = LazyLock::new(Default::default);
        return format!("{function}(#{:016x})", DIGEST.hash_one(args));
    }
    let names = args.iter().map(|arg| arg.schema_name().to_string());
    format!("{function}({})", names.collect::<Vec<_>>().join(","))
}

/// Whether there are more than so many expressions within each other.
fn is_deep(expr: &Expr, depth: usize) -> bool {
    let mut deep = depth == 0;
    if !deep {
        let children = expr.apply_children(|child| {
            deep = is_deep(child, depth - 1);
            Ok(if deep {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        });
        debug_assert!(children.is_ok());
    }
    deep
}

/// Whether decimals become numerics, alone or as elements.
fn widens(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => widens(from.data_type(), to.data_type()),
        (from, to) => from.is_decimal() && *to == DataType::LargeBinary,
    }
}

/// A row's own error, with its SQLSTATE.
pub(super) fn failure(state: SqlState, message: impl Into<String>) -> DataFusionError {
    external(Error::user(state, message))
}

/// An error of ours as DataFusion's.
pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Rows to compute: one where every argument is a constant.
pub(super) fn rows(args: &ScalarFunctionArgs) -> usize {
    let constant = |a: &ColumnarValue| matches!(a, ColumnarValue::Scalar(_));
    if args.args.iter().all(constant) {
        1
    } else {
        args.number_rows
    }
}

/// Argument `i` with as many rows as are computed.
pub(super) fn column(args: &ScalarFunctionArgs, i: usize) -> Result<ArrayRef> {
    args.args[i].to_array(rows(args))
}

/// Argument `i` as an array.
pub(super) fn array(args: &ScalarFunctionArgs, i: usize) -> Result<ArrayRef> {
    args.args[i].to_array(args.number_rows)
}

/// Argument `i` as text, if it is a constant: the text, or `None` for NULL.
pub(super) fn constant_text(args: &ScalarFunctionArgs, i: usize) -> Option<Option<&str>> {
    match &args.args[i] {
        ColumnarValue::Scalar(ScalarValue::Utf8(text)) => Some(text.as_deref()),
        ColumnarValue::Scalar(ScalarValue::Null) => Some(None),
        _ => None,
    }
}

/// Argument `i` as an integer, if it is a constant.
pub(super) fn constant_int(args: &ScalarFunctionArgs, i: usize) -> Option<Option<i64>> {
    match &args.args[i] {
        ColumnarValue::Scalar(ScalarValue::Int64(value)) => Some(*value),
        ColumnarValue::Scalar(ScalarValue::Null) => Some(None),
        _ => None,
    }
}

/// What arguments of a moment's type become: a timestamp of microseconds, with time zone if it had
/// one.
pub(super) fn moment(from: &DataType) -> Option<DataType> {
    match from {
        DataType::Timestamp(_, zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        DataType::Date32 | DataType::Date64 | DataType::Null => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        _ => None,
    }
}

/// Whether a value of this type may stand for text.
pub(super) fn is_text(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null
    )
}

/// Whether a value of this type may stand for a BIGINT.
pub(super) fn is_int(from: &DataType) -> bool {
    from.is_integer() || *from == DataType::Null
}

/// NULL for all rows.
pub(super) fn null(data_type: &DataType) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Scalar(ScalarValue::try_from(data_type)?))
}

/// An array as the function's result; of constant arguments, a scalar.
pub(super) fn result(args: &ScalarFunctionArgs, values: ArrayRef) -> Result<ColumnarValue> {
    let constant = values.len() == 1
        && args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
    if constant {
        Ok(ColumnarValue::Scalar(scalar(&values)?))
    } else {
        Ok(ColumnarValue::Array(values))
    }
}

/// The one value of an array. A list keeps what its field says of the elements' SQL type.
pub(super) fn scalar(values: &ArrayRef) -> Result<ScalarValue> {
    match values.as_list_opt::<i32>() {
        Some(list) => Ok(ScalarValue::List(Arc::new(list.clone()))),
        None => ScalarValue::try_from_array(values, 0),
    }
}
