//! Integers: common divisors and multiples, bits and shifts, as PostgreSQL computes them in each
//! type's own width.

use super::arguments::{Takes, Values, taken, texts, values};
use super::definition::*;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int16Type, Int32Type, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::fmt::Write;
use std::sync::Arc;
use tidemark_common::SqlState;

use Takes::{Int4, Int8};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let function = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |types: &[DataType]| types[0].clone(),
        evaluate,
    };
    vec![
        function("gcd", wider, |a| match a.return_field.data_type() {
            DataType::Int32 => pairs::<Int32Type>(a, "integer", gcd),
            _ => pairs::<Int64Type>(a, "bigint", gcd),
        }),
        function("lcm", wider, |a| match a.return_field.data_type() {
            DataType::Int32 => pairs::<Int32Type>(a, "integer", lcm),
            _ => pairs::<Int64Type>(a, "bigint", lcm),
        }),
        function("shift_left", shifted, |a| shift(a, true)),
        function("shift_right", shifted, |a| shift(a, false)),
        function(
            "bit_not",
            |t| (t.len() == 1 && t[0].is_integer()).then(|| t.to_vec()),
            not,
        ),
        function("int_xor", same, exclusive_or),
        Definition {
            returns: |_| DataType::Utf8,
            ..function("to_hex", one, to_hex)
        },
    ]
}

/// Two integers as `integer`, or as `bigint` if one is.
fn wider(types: &[DataType]) -> Option<Vec<DataType>> {
    if types.contains(&DataType::Int64) {
        taken(types, 2, &[Int8, Int8])
    } else {
        taken(types, 2, &[Int4, Int4])
    }
}

/// Two integers in the wider one's type.
fn same(types: &[DataType]) -> Option<Vec<DataType>> {
    let widest = [DataType::Int64, DataType::Int32, DataType::Int16]
        .into_iter()
        .find(|t| types.contains(t))?;
    let integers = |t: &DataType| t.is_integer() || t.is_null();
    (types.len() == 2 && types.iter().all(integers)).then(|| vec![widest; 2])
}

fn one(types: &[DataType]) -> Option<Vec<DataType>> {
    if types.contains(&DataType::Int64) {
        taken(types, 1, &[Int8])
    } else {
        taken(types, 1, &[Int4])
    }
}

/// An integer of its own width, and by how many bits.
fn shifted(types: &[DataType]) -> Option<Vec<DataType>> {
    let all = match types.first()? {
        DataType::Int64 => taken(types, 2, &[Int8, Int4]),
        _ => taken(types, 2, &[Int4, Int4]),
    }?;
    Some(match types[0] {
        DataType::Int16 => vec![DataType::Int16, DataType::Int32],
        _ => all,
    })
}

fn pairs<T: ArrowPrimitiveType>(
    args: &ScalarFunctionArgs,
    name: &str,
    f: fn(i128, i128) -> i128,
) -> Result<ColumnarValue>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    let (left, right) = (Values::<T>::of(args, 0)?, Values::<T>::of(args, 1)?);
    values::<T>(args, |row| {
        let Some((l, r)) = left.get(row).zip(right.get(row)) else {
            return Ok(None);
        };
        let value = T::Native::try_from(f(l.into(), r.into()));
        value.map(Some).map_err(|_| {
            failure(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("{name} out of range"),
            )
        })
    })
}

/// The greatest common divisor; of two zeros, 0.
fn gcd(left: i128, right: i128) -> i128 {
    let (mut a, mut b) = (left.abs(), right.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple; 0 if one is 0.
fn lcm(left: i128, right: i128) -> i128 {
    if left == 0 || right == 0 {
        return 0;
    }
    (left / gcd(left, right) * right).abs()
}

/// By the lowest bits of the count, as the processor takes them: a `smallint` is shifted as an
/// `integer` and cut off then.
fn shift(args: &ScalarFunctionArgs, left: bool) -> Result<ColumnarValue> {
    let by = Values::<Int32Type>::of(args, 1)?;
    match args.return_field.data_type() {
        DataType::Int16 => {
            let given = Values::<Int16Type>::of(args, 0)?;
            values::<Int16Type>(args, |row| {
                let pair = given.get(row).zip(by.get(row));
                Ok(pair.map(|(v, by)| shift4(v.into(), by, left) as i16))
            })
        }
        DataType::Int32 => {
            let given = Values::<Int32Type>::of(args, 0)?;
            values::<Int32Type>(args, |row| {
                let pair = given.get(row).zip(by.get(row));
                Ok(pair.map(|(v, by)| shift4(v, by, left)))
            })
        }
        _ => {
            let given = Values::<Int64Type>::of(args, 0)?;
            values::<Int64Type>(args, |row| {
                let pair = given.get(row).zip(by.get(row));
                Ok(pair.map(|(v, by)| {
                    if left {
                        v.wrapping_shl(by as u32)
                    } else {
                        v.wrapping_shr(by as u32)
                    }
                }))
            })
        }
    }
}

/// All bits inverted.
fn not(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = column(args, 0)?;
    let inverted: ArrayRef = match given.data_type() {
        DataType::Int16 => Arc::new(
            given
                .as_primitive::<Int16Type>()
                .unary::<_, Int16Type>(|v| !v),
        ),
        DataType::Int32 => Arc::new(
            given
                .as_primitive::<Int32Type>()
                .unary::<_, Int32Type>(|v| !v),
        ),
        _ => Arc::new(
            given
                .as_primitive::<Int64Type>()
                .unary::<_, Int64Type>(|v| !v),
        ),
    };
    result(args, inverted)
}

fn shift4(value: i32, by: i32, left: bool) -> i32 {
    if left {
        value.wrapping_shl(by as u32)
    } else {
        value.wrapping_shr(by as u32)
    }
}

/// The digits of base 16, of a negative number those of its bits.
fn to_hex(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let wide = args.args[0].data_type() == DataType::Int64;
    if wide {
        let given = Values::<Int64Type>::of(args, 0)?;
        return texts(args, |row, out| {
            Ok(given.get(row).is_some_and(|v| write!(out, "{v:x}").is_ok()))
        });
    }
    let given = Values::<Int32Type>::of(args, 0)?;
    texts(args, |row, out| {
        Ok(given.get(row).is_some_and(|v| write!(out, "{v:x}").is_ok()))
    })
}

/// `a # b`.
fn exclusive_or(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    fn of<T: ArrowPrimitiveType>(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef>
    where
        T::Native: std::ops::BitXor<Output = T::Native>,
    {
        let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
        Ok(Arc::new(arrow::compute::binary::<_, _, _, T>(
            left,
            right,
            |a, b| a ^ b,
        )?))
    }
    let (left, right) = (column(args, 0)?, column(args, 1)?);
    let bits = match args.return_field.data_type() {
        DataType::Int16 => of::<Int16Type>(&left, &right),
        DataType::Int32 => of::<Int32Type>(&left, &right),
        _ => of::<Int64Type>(&left, &right),
    };
    result(args, bits?)
}
