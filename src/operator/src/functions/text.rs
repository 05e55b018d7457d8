//! Values as PostgreSQL prints them: floats in their shortest form with an exponent where
//! PostgreSQL uses one, moments as [`super::moment`] does. Everything else as Arrow prints it.

use arrow::array::*;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use std::sync::Arc;
use tidemark_values::float_text;
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
        // Writing to a String cannot fail.
        DataType::Float64 => each::<Float64Type>(column, |text, v| {
            let _ = float_text::write_double(v, text);
        }),
        DataType::Float32 => each::<Float32Type>(column, |text, v| {
            let _ = float_text::write_real(v, text);
        }),
        _ => match super::moment::cast_array(column, &DataType::Utf8, &Zone::UTC) {
            Ok(Some(texts)) => texts,
            Ok(None) => arrow::compute::cast(column, &DataType::Utf8)?,
            Err(error) => return Err(ArrowError::ExternalError(Box::new(error))),
        },
    })
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
