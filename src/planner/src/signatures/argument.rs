//! An argument of a function that a statement made. Where the function's body stands in place of
//! its call (`bind::inlined`), each argument is the argument of a call of ours, which takes what
//! PostgreSQL lets stand for the declared type and has that type; the rule that resolves calls
//! leaves the argument itself, brought to it. The name of that call says all that there is to say
//! of it, so that no registry has to know it.

use super::overloaded::Overloaded;
use super::table::Signature;
use super::types::{Scalar, Type};
use arrow_schema::DataType;
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature as Accepts, Volatility,
};
use std::sync::Arc;

/// What the names of such calls begin with; no function that a statement makes has such a name.
const MARK: &str = "\u{1}argument ";

/// Between the parts of the name.
const NEXT: char = '\u{1}';

const SCALARS: [Scalar; 17] = [
    Scalar::Bool,
    Scalar::Int2,
    Scalar::Int4,
    Scalar::Int8,
    Scalar::Float4,
    Scalar::Float8,
    Scalar::Numeric,
    Scalar::Text,
    Scalar::Bpchar,
    Scalar::Bytea,
    Scalar::Date,
    Scalar::Time,
    Scalar::Timestamp,
    Scalar::Timestamptz,
    Scalar::Interval,
    Scalar::Uuid,
    Scalar::Jsonb,
];

/// The name of the call for the parameter at a place of these, of a function. `None` if its type is
/// none of those that signatures name.
pub(crate) fn argument_name(function: &str, types: &[DataType], place: usize) -> Option<String> {
    let names = types.iter().map(|t| Type::of(t).to_string());
    let names: Vec<String> = names.collect();
    named(names.get(place)?)?;
    let names = names.join(",");
    Some(format!("{MARK}{place}{NEXT}{function}{NEXT}{names}"))
}

/// The type of this name.
fn named(name: &str) -> Option<Type> {
    let types = SCALARS.iter().flat_map(|scalar| {
        [false, true].map(|array| Type {
            scalar: *scalar,
            array,
        })
    });
    types.into_iter().find(|t| t.to_string() == name)
}

/// Whether a call is such a one, by its name.
pub(crate) fn is_argument(name: &str) -> bool {
    name.starts_with(MARK)
}

/// The parts of the name of such a call: the place, the function, the types.
fn parts(name: &str) -> Option<(usize, &str, Vec<&str>)> {
    let mut parts = name.strip_prefix(MARK)?.split(NEXT);
    let place = parts.next()?.parse().ok()?;
    let function = parts.next()?;
    Some((place, function, parts.next()?.split(',').collect()))
}

/// The function of such a name.
pub(crate) fn argument(name: &str) -> Option<Arc<ScalarUDF>> {
    let (place, _, types) = parts(name)?;
    let type_ = named(types.get(place)?)?;
    let signature = Signature {
        params: vec![type_],
        variadic: false,
        optional: 0,
        result: type_,
    };
    let inner = Arc::new(ScalarUDF::from(Itself(Accepts::any(
        1,
        Volatility::Immutable,
    ))));
    Some(Arc::new(Overloaded::new(
        name,
        inner,
        vec![signature].into(),
    )))
}

/// How an error writes the call that the argument is of: with the type that it has there, the
/// others as they are declared.
pub(super) fn call_text(name: &str, given: &str) -> Option<String> {
    let (place, function, mut types) = parts(name)?;
    *types.get_mut(place)? = given;
    Some(format!("function {function}({})", types.join(", ")))
}

/// The argument as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Itself(Accepts);

impl ScalarUDFImpl for Itself {
    fn name(&self) -> &str {
        "argument"
    }
    fn signature(&self) -> &Accepts {
        &self.0
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let null = ColumnarValue::Scalar(datafusion_common::ScalarValue::Null);
        Ok(args.args.into_iter().next().unwrap_or(null))
    }
}
