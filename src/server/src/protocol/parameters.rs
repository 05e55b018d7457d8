//! Parameters of the extended protocol: bytes of a Bind message to values whose literals take the
//! places of a statement's `$n` ([`bind`]). Text stays an untyped literal, everything else becomes
//! a cast of its number or text.
//!
//! [`bind`]: tidemark_query::parameters::bind

use pgwire::api::Type;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::sqlparser::ast::{self, Expr, Value};
use tidemark_query::parameters::{Parameter, cast, data_type, null, parse_bool};
use tidemark_query::types;
use tidemark_values::array;
use tidemark_values::numeric::Numeric;

/// The value of one parameter. `binary`: the format of `bytes`.
pub fn value(bytes: Option<&[u8]>, t: &Type, binary: bool) -> Result<Parameter> {
    let Some(bytes) = bytes else {
        return Ok(null(Some(t)).into());
    };
    if !binary {
        let text = std::str::from_utf8(bytes);
        return of_text(text.map_err(|_| bad("parameter is not valid UTF-8"))?, t);
    }
    match *t {
        Type::INT4 => Ok(Parameter::Integer(
            i32::from_be_bytes(take(bytes)?).into(),
            Type::INT4,
        )),
        Type::INT8 => Ok(Parameter::Integer(
            i64::from_be_bytes(take(bytes)?),
            Type::INT8,
        )),
        _ => of_text(&text_of_binary(bytes, t)?, t),
    }
}

fn of_text(text: &str, t: &Type) -> Result<Parameter> {
    let invalid = |t: &str| {
        Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type {t}: \"{text}\""),
        )
    };
    let literal = match *t {
        // The name of an object, for `$1::regclass`.
        Type::OID if text.trim().parse::<i64>().is_err() => string(text),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => {
            let number = text.trim().parse();
            let number = number.map_err(|_| invalid(types::display_name(t)))?;
            return Ok(Parameter::Integer(number, t.clone()));
        }
        Type::BOOL => {
            Expr::Value(Value::Boolean(parse_bool(text).ok_or_else(|| invalid("boolean"))?).into())
        }
        Type::BYTEA => Expr::Value(
            Value::HexStringLiteral(
                text.strip_prefix("\\x")
                    .map_or_else(|| hex(text.as_bytes()), str::to_string),
            )
            .into(),
        ),
        Type::RECORD | Type::RECORD_ARRAY => string(text),
        ref t if let Some(element) = types::element_of(t) => {
            let array = ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(
                Box::new(data_type(&element)),
                None,
            ));
            Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(string(text)),
                data_type: array,
                array: false,
                format: None,
            }
        }
        Type::UNKNOWN | Type::TEXT | Type::VARCHAR | Type::NAME | Type::CHAR => string(text),
        ref t => cast(string(text), t),
    };
    Ok(literal.into())
}

fn string(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).into())
}

fn bad(message: &str) -> Error {
    Error::user(SqlState("22P03"), message)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Of exactly this length.
fn take<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    let exact = bytes.try_into();
    exact.map_err(|_| bad("incorrect binary data format"))
}

/// The text form of a value in binary format.
fn text_of_binary(bytes: &[u8], t: &Type) -> Result<String> {
    let short = || bad("incorrect binary data format");
    Ok(match *t {
        Type::BOOL => (if bytes == [0] { "f" } else { "t" }).into(),
        Type::INT2 => i16::from_be_bytes(take(bytes)?).to_string(),
        Type::INT4 => i32::from_be_bytes(take(bytes)?).to_string(),
        Type::OID => u32::from_be_bytes(take(bytes)?).to_string(),
        Type::INT8 => i64::from_be_bytes(take(bytes)?).to_string(),
        Type::FLOAT4 => f32::from_be_bytes(take(bytes)?).to_string(),
        Type::FLOAT8 => f64::from_be_bytes(take(bytes)?).to_string(),
        Type::NUMERIC => Numeric::read_wire(bytes)?.to_string(),
        Type::BYTEA => format!("\\x{}", hex(bytes)),
        Type::UUID => {
            let h = hex(&take::<16>(bytes)?);
            format!(
                "{}-{}-{}-{}-{}",
                &h[..8],
                &h[8..12],
                &h[12..16],
                &h[16..20],
                &h[20..]
            )
        }
        Type::JSONB => std::str::from_utf8(bytes.get(1..).ok_or_else(short)?)
            .map_err(|_| short())?
            .into(),
        Type::DATE => print(arrow::array::Date32Array::from(vec![days_of_wire(
            i32::from_be_bytes(take(bytes)?),
        )]))?,
        Type::TIME => print(arrow::array::Time64MicrosecondArray::from(vec![
            i64::from_be_bytes(take(bytes)?),
        ]))?,
        Type::TIMESTAMP => print(arrow::array::TimestampMicrosecondArray::from(vec![
            micros_of_wire(i64::from_be_bytes(take(bytes)?)),
        ]))?,
        Type::TIMESTAMPTZ => print(
            arrow::array::TimestampMicrosecondArray::from(vec![micros_of_wire(
                i64::from_be_bytes(take(bytes)?),
            )])
            .with_timezone("UTC"),
        )?,
        Type::INTERVAL => {
            let b: [u8; 16] = take(bytes)?;
            let micros = i64::from_be_bytes(take(&b[..8])?);
            let v = arrow::datatypes::IntervalMonthDayNano::new(
                i32::from_be_bytes(take(&b[12..])?),
                i32::from_be_bytes(take(&b[8..12])?),
                micros.saturating_mul(1000),
            );
            print(arrow::array::IntervalMonthDayNanoArray::from(vec![v]))?
        }
        Type::RECORD | Type::RECORD_ARRAY => {
            let message = "rows as parameters in binary format are not supported";
            return Err(Error::unsupported(message).with_hint("Send them in text format."));
        }
        ref t if let Some(element) = types::element_of(t) => array_text(bytes, &element)?,
        _ => std::str::from_utf8(bytes)
            .map_err(|_| bad("parameter is not valid UTF-8"))?
            .into(),
    })
}

/// Days since 1970 of a date that is counted from 2000; the infinities stay what they are.
fn days_of_wire(days: i32) -> i32 {
    match days {
        i32::MIN | i32::MAX => days,
        days => days.saturating_add(10_957),
    }
}

/// The same of microseconds.
fn micros_of_wire(micros: i64) -> i64 {
    match micros {
        i64::MIN | i64::MAX => micros,
        micros => micros.saturating_add(946_684_800_000_000),
    }
}

fn print(array: impl arrow::array::Array) -> Result<String> {
    let field = arrow::datatypes::Field::new("p", array.data_type().clone(), true);
    Ok(super::encode::text(&array, &field.into(), 0)?.unwrap_or_default())
}

fn array_text(bytes: &[u8], element: &Type) -> Result<String> {
    let short = || bad("incorrect binary data format");
    let int = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(i32::from_be_bytes)
            .ok_or_else(short)
    };
    match int(0)? {
        0 => return Ok("{}".into()),
        1 if int(16)? == 1 => {}
        1 => return Err(array::other_subscripts()),
        _ => return Err(array::several_dimensions()),
    }
    let count = int(12)?;
    let (mut at, mut parts) = (20, Vec::new());
    for _ in 0..count {
        let length = int(at)?;
        at += 4;
        if length < 0 {
            parts.push("NULL".to_string());
            continue;
        }
        let value = bytes.get(at..at + length as usize).ok_or_else(short)?;
        at += length as usize;
        let mut part = String::new();
        array::write_element(&text_of_binary(value, element)?, &mut part);
        parts.push(part);
    }
    Ok(format!("{{{}}}", parts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_read_as_text() {
        let numeric: Vec<u8> = [3i16, 1, 0, 2, 12, 3456, 7800]
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect();
        assert_eq!(
            text_of_binary(&numeric, &Type::NUMERIC).unwrap(),
            "123456.78"
        );
        let small: Vec<u8> = [1i16, -1, 0x4000, 2, 500]
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect();
        assert_eq!(text_of_binary(&small, &Type::NUMERIC).unwrap(), "-0.05");
        assert_eq!(
            text_of_binary(&0i64.to_be_bytes(), &Type::TIMESTAMPTZ).unwrap(),
            "2000-01-01 00:00:00+00"
        );
    }

    #[test]
    fn a_malformed_numeric_is_refused() {
        let numeric = |words: &[u16]| {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            text_of_binary(&bytes, &Type::NUMERIC).map_err(|e| e.state())
        };
        assert_eq!(numeric(&[0, 0, 0, 3]), Ok("0.000".into()));
        assert_eq!(numeric(&[0, 0, 0xC000, 0]), Ok("NaN".into()));
        let refused = [
            ("scale below zero", vec![0, 0, 0, 0xFFFF]),
            ("scale too large", vec![0, 0, 0, 0x4000]),
            ("count below zero", vec![0xFFFF, 0, 0, 0]),
            ("fewer digits than counted", vec![2, 0, 0, 0, 1]),
            ("more digits than counted", vec![1, 0, 0, 0, 1, 2]),
            ("digit too large", vec![1, 0, 0, 0, 10_000]),
            ("digit below zero", vec![1, 0, 0, 0, 0xFFFF]),
            ("unknown sign", vec![0, 0, 1, 0]),
            ("no header", vec![0, 0, 0]),
        ];
        for (what, words) in refused {
            let state = numeric(&words).expect_err(what);
            assert!(["22P03", "08P01"].contains(&state.0), "{what}: {}", state.0);
        }
    }
}
