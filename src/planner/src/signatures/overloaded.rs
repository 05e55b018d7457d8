//! A function while its call is bound: it takes what PostgreSQL's signatures say, and has their
//! result's type. A rule (`coerce::resolve`) puts the function itself, with arguments of the
//! declared types, in its place.
//!
//! While names are bound, integer constants and what is computed of them are `bigint`s still; so a
//! `bigint` may stand for an `integer` here where no signature takes it otherwise. Types are final
//! when the rule looks again.

use super::argument::call_text;
use super::bind::{Call, unmatched};
use super::choose::{Mismatch, choose, choose_operator, no_operator};
use super::table::{Signature, signatures};
use super::types::{Arg, Scalar, Type, type_text};
use crate::error::external;
use crate::types::BPCHAR;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature as Accepts,
};
use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemark_common::{Error, SqlState, check_interrupt};

/// A function as its calls are bound: by PostgreSQL's signatures, if it has some.
pub fn bound(name: &str, function: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match signatures(name) {
        [] => function.clone(),
        known => Arc::new(Overloaded::new(name, function.clone(), known.into())),
    }
}

/// The function under one of its names.
#[derive(Debug)]
pub(crate) struct Overloaded {
    name: String,
    /// What evaluates it.
    pub(crate) inner: Arc<ScalarUDF>,
    signatures: Cow<'static, [Signature]>,
    accepts: Accepts,
}

impl Overloaded {
    pub(super) fn new(
        name: &str,
        inner: Arc<ScalarUDF>,
        signatures: Cow<'static, [Signature]>,
    ) -> ScalarUDF {
        let volatility = inner.signature().volatility;
        ScalarUDF::from(Overloaded {
            name: name.to_string(),
            inner,
            signatures,
            accepts: Accepts::user_defined(volatility),
        })
    }

    /// What a call of these arguments means.
    pub(crate) fn resolve(&self, args: &[Arg]) -> Result<Call> {
        let compared = quantified(&self.name).is_some_and(|symbol| !symbol.contains('~'));
        let args = match args {
            // `char = text` compares texts.
            [value, array] if compared && value.data_type == BPCHAR && is_texts(array) => {
                &[Arg::new(&DataType::Utf8, None), array.clone()]
            }
            args => args,
        };
        self.chosen(args)
            .map_err(|mismatch| self.error(mismatch, args))
    }

    /// `nullif(a, b)` is `a` as `a = b` takes it; all others are called by their signatures.
    fn chosen(&self, args: &[Arg]) -> Result<Call, Mismatch> {
        if self.name != "nullif" || args.len() != 2 {
            return choose(&self.signatures, args);
        }
        let equal = choose_operator(signatures("="), args)?;
        Ok(Call {
            result: equal.args[0].clone(),
            ..equal
        })
    }

    /// The same while integers are not settled.
    fn resolve_early(&self, args: &[Arg]) -> Result<Call> {
        self.chosen(args).or_else(|mismatch| {
            let narrowed: Vec<Arg> = args.iter().map(Arg::narrowed).collect();
            self.chosen(&narrowed)
                .map_err(|_| self.error(mismatch, args))
        })
    }

    /// The type of a numeric result that has one scale, as the function itself tells.
    fn fixed(&self, call: &Call, constants: &[Option<&ScalarValue>]) -> Option<DataType> {
        let field = |t: &DataType| Arc::new(Field::new("", t.clone(), true)) as FieldRef;
        let fields: Vec<FieldRef> = call.args.iter().map(field).collect();
        let fields = fields_with_udf(&fields, self.inner.as_ref()).ok()?;
        let returned = self.inner.return_field_from_args(ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: constants,
        });
        let data_type = returned.ok()?.data_type().clone();
        (Type::of(&data_type) == Type::of(&call.result)).then_some(data_type)
    }

    fn error(&self, mismatch: Mismatch, args: &[Arg]) -> DataFusionError {
        let types: Vec<String> = args.iter().map(type_text).collect();
        if let (Some(symbol), [value, array]) = (quantified(&self.name), args) {
            return no_comparison(symbol, value, array);
        }
        if let ("nullif", [left, right]) = (self.name.as_str(), args) {
            return no_operator("=", [left, right], mismatch);
        }
        if matches!(self.name.as_str(), "coalesce" | "greatest" | "least") {
            return unmatched(&self.name.to_uppercase(), args);
        }
        // What EXTRACT becomes.
        let name = match self.name.as_str() {
            "extract_whole" | "extract_micros" => "pg_catalog.extract",
            "overlaps" => "pg_catalog.overlaps",
            "width_bucket_of" => "width_bucket",
            "jsonb_path_rows" => "jsonb_path_query",
            name => name,
        };
        let of_argument = types.first().and_then(|given| call_text(name, given));
        let call = of_argument.unwrap_or_else(|| format!("function {name}({})", types.join(", ")));
        external(match mismatch {
            Mismatch::None => Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("{call} does not exist"),
            )
            .with_hint(
                "No function matches the given name and argument types. You might need to add \
                 explicit type casts.",
            ),
            Mismatch::Several => Error::user(SqlState("42725"), format!("{call} is not unique"))
                .with_hint(
                    "Could not choose a best candidate function. You might need to add explicit \
                     type casts.",
                ),
            Mismatch::Untyped => Error::user(
                SqlState::DATATYPE_MISMATCH,
                "could not determine polymorphic type because input has type unknown",
            ),
        })
    }
}

/// Whether an argument is known to be an array of texts.
fn is_texts(arg: &Arg) -> bool {
    let texts =
        matches!(&arg.data_type, DataType::List(item) if *item.data_type() == DataType::Utf8);
    texts && !arg.is_unknown()
}

/// The operator of a comparison with ANY or ALL of an array.
fn quantified(name: &str) -> Option<&'static str> {
    let op = name.strip_prefix("any_").or(name.strip_prefix("all_"))?;
    Some(match op {
        "eq" => "=",
        "ne" => "<>",
        "lt" => "<",
        "le" => "<=",
        "gt" => ">",
        "ge" => ">=",
        "like" => "~~",
        "nlike" => "!~~",
        "ilike" => "~~*",
        "nilike" => "!~~*",
        "regex" => "~",
        "nregex" => "!~",
        "iregex" => "~*",
        "niregex" => "!~*",
        _ => return None,
    })
}

/// `integer = ANY (text[])`.
fn no_comparison(symbol: &str, value: &Arg, array: &Arg) -> DataFusionError {
    if !array.type_.array {
        let message = "op ANY/ALL (array) requires array on right side";
        return external(Error::user(SqlState::WRONG_OBJECT_TYPE, message));
    }
    let element = Type {
        array: false,
        ..array.type_
    };
    let message = format!(
        "operator does not exist: {} {symbol} {element}",
        type_text(value)
    );
    external(
        Error::user(SqlState::UNDEFINED_FUNCTION, message).with_hint(
            "No operator matches the given name and argument types. You might need to add explicit \
         type casts.",
        ),
    )
}

impl PartialEq for Overloaded {
    fn eq(&self, other: &Overloaded) -> bool {
        self.name == other.name && self.inner == other.inner
    }
}
impl Eq for Overloaded {}
impl Hash for Overloaded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Overloaded {
    fn name(&self) -> &str {
        &self.name
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let evaluated = self.inner.schema_name(args)?;
        let inside = evaluated.strip_prefix(self.inner.name());
        Ok(format!("{}{}", self.name, inside.unwrap_or(&evaluated)))
    }
    fn signature(&self) -> &Accepts {
        &self.accepts
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let args: Vec<Arg> = types.iter().map(|t| Arg::new(t, None)).collect();
        Ok(self.resolve_early(&args)?.result)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        check_interrupt().map_err(external)?;
        let constants: &[Option<&ScalarValue>] = args.scalar_arguments;
        let args: Vec<Arg> = args
            .arg_fields
            .iter()
            .zip(constants)
            .map(|(field, constant)| Arg::new(field.data_type(), *constant))
            .collect();
        let call = self.resolve_early(&args)?;
        let result = match Type::of(&call.result).scalar {
            Scalar::Numeric => self.fixed(&call, constants).unwrap_or(call.result),
            _ => call.result,
        };
        Ok(Arc::new(Field::new(&self.name, result, true)))
    }
    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("the call of {} was not resolved", self.name)
    }
}
