//! Arithmetic of floats with PostgreSQL's errors: a result that is infinite where no operand was,
//! one that is zero where none was, and division by zero. A batch is computed as a whole; only if
//! some result is conspicuous the rows are looked at.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::{DataFusionError, Result};
use tidemark_values::float::{division_by_zero, overflow, underflow};

/// What is wrong with a result of operands, if anything is.
type Check = fn(left: f64, right: f64, result: f64) -> Option<tidemark_common::Error>;

pub(super) fn add(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    checked(args, numeric::add(&args[0], &args[1])?, sum)
}

pub(super) fn subtract(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    checked(args, numeric::sub(&args[0], &args[1])?, sum)
}

pub(super) fn multiply(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    checked(args, numeric::mul(&args[0], &args[1])?, product)
}

pub(super) fn divide(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    checked(args, numeric::div(&args[0], &args[1])?, quotient)
}

pub(super) fn modulo(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    checked(args, numeric::rem(&args[0], &args[1])?, |_, right, _| {
        (right == 0.0).then(division_by_zero)
    })
}

fn sum(left: f64, right: f64, result: f64) -> Option<tidemark_common::Error> {
    let finite = !left.is_infinite() && !right.is_infinite();
    (result.is_infinite() && finite).then(overflow)
}

fn product(left: f64, right: f64, result: f64) -> Option<tidemark_common::Error> {
    if result == 0.0 && left != 0.0 && right != 0.0 {
        return Some(underflow());
    }
    sum(left, right, result)
}

fn quotient(left: f64, right: f64, result: f64) -> Option<tidemark_common::Error> {
    if right == 0.0 && !left.is_nan() {
        Some(division_by_zero())
    } else if result.is_infinite() && !left.is_infinite() {
        Some(overflow())
    } else {
        (result == 0.0 && left != 0.0 && !right.is_infinite()).then(underflow)
    }
}

fn checked(args: &[ArrayRef], results: ArrayRef, check: Check) -> Result<ArrayRef> {
    match results.data_type() {
        DataType::Float32 => rows::<Float32Type>(args, &results, check)?,
        _ => rows::<Float64Type>(args, &results, check)?,
    }
    Ok(results)
}

fn rows<T>(args: &[ArrayRef], results: &ArrayRef, check: Check) -> Result<()>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64>,
{
    let plain = |v: &T::Native| {
        let v: f64 = (*v).into();
        v.is_finite() && v != 0.0
    };
    let results = results.as_primitive::<T>();
    if results.values().iter().all(plain) {
        return Ok(());
    }
    let (left, right) = (args[0].as_primitive::<T>(), args[1].as_primitive::<T>());
    for row in (0..results.len()).filter(|row| results.is_valid(*row)) {
        let value = results.value(row);
        if plain(&value) {
            continue;
        }
        let (left, right) = (left.value(row).into(), right.value(row).into());
        if let Some(error) = check(left, right, value.into()) {
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    Ok(())
}
