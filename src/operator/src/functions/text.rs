//! Values as PostgreSQL prints them: floats in their shortest form with an exponent where
//! PostgreSQL uses one, moments as [`super::moment`] does. Everything else as Arrow prints it.

use arrow::array::*;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use std::fmt::Write;
use std::sync::Arc;
use tidemark_values::moment::Zone;

/// A column as text.
pub fn to_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    fn each<T: ArrowPrimitiveType>(
        column: &ArrayRef,
        mut put: impl FnMut(&mut String, T::Native),
    ) -> ArrayRef {
        let values = column.as_primitive::<T>();
        let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 20);
        let mut text = String::new();
        for value in values {
            match value {
                Some(v) => {
                    text.clear();
                    put(&mut text, v);
                    builder.append_value(&text);
                }
                None => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }
    Ok(match column.data_type() {
        DataType::Float64 => each::<Float64Type>(column, |t, v| float(t, v, &format!("{v:e}"), 15)),
        DataType::Float32 => {
            each::<Float32Type>(column, |t, v| float(t, f64::from(v), &format!("{v:e}"), 6))
        }
        _ => match super::moment::cast_array(column, &DataType::Utf8, &Zone::UTC) {
            Ok(Some(texts)) => texts,
            Ok(None) => arrow::compute::cast(column, &DataType::Utf8)?,
            Err(error) => return Err(ArrowError::ExternalError(Box::new(error))),
        },
    })
}

/// `scientific` is the shortest form with an exponent; `digits` the exponent from which on
/// PostgreSQL prints one.
fn float(text: &mut String, value: f64, scientific: &str, digits: i32) {
    if value.is_nan() {
        return text.push_str("NaN");
    }
    if value.is_infinite() {
        return text.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..digits).contains(&exponent) {
        plain(text, mantissa, exponent);
    } else {
        let _ = write!(
            text,
            "{mantissa}e{}{:02}",
            if exponent < 0 { '-' } else { '+' },
            exponent.abs()
        );
    }
}

/// `mantissa * 10^exponent` without exponent.
fn plain(text: &mut String, mantissa: &str, exponent: i32) {
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |m| ("-", m));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    text.push_str(sign);
    if exponent < 0 {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        text.push_str(&digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            text.push_str(&digits);
            text.extend(std::iter::repeat_n('0', whole - digits.len()));
        } else {
            text.push_str(&digits[..whole]);
            text.push('.');
            text.push_str(&digits[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(column: ArrayRef) -> Vec<String> {
        to_text(&column)
            .unwrap()
            .as_string::<i32>()
            .iter()
            .map(|v| v.unwrap().to_string())
            .collect()
    }

    #[test]
    fn floats_print_as_postgresql_does() {
        let values = vec![
            0.0,
            -0.0,
            1.0,
            0.1,
            123456789012345.0,
            1e15,
            1.5e-5,
            0.0001,
            -2.5,
            1e100,
            f64::NAN,
            f64::NEG_INFINITY,
        ];
        let want = [
            "0",
            "-0",
            "1",
            "0.1",
            "123456789012345",
            "1e+15",
            "1.5e-05",
            "0.0001",
            "-2.5",
            "1e+100",
            "NaN",
            "-Infinity",
        ];
        assert_eq!(texts(Arc::new(Float64Array::from(values))), want);
        assert_eq!(
            texts(Arc::new(Float32Array::from(vec![123456.0, 1234567.0, 0.1]))),
            ["123456", "1.234567e+06", "0.1"]
        );
    }
}
