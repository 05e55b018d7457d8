//! PostgreSQL's functions over arrays that DataFusion lacks: `_pg_expandarray`,
//! `generate_subscripts`, `array_lower`, `array_upper`. Arrays begin at 1.

use super::functions::no_function;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// `42883` where the first argument is not an array.
fn check_list(name: &str, arguments: &[DataType]) -> Result<()> {
    match arguments.first() {
        Some(DataType::List(_)) => Ok(()),
        _ => Err(no_function(name, arguments)),
    }
}

/// `information_schema._pg_expandarray`: each element with its position, as a list of (x, n).
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ExpandArray(Signature);

impl ExpandArray {
    pub fn new() -> ExpandArray {
        ExpandArray(Signature::any(1, Volatility::Immutable))
    }
    fn element(list: &DataType) -> DataType {
        let x = match list {
            DataType::List(f) => f.data_type().clone(),
            other => other.clone(),
        };
        DataType::Struct(
            vec![
                arrow::datatypes::Field::new("x", x, true),
                arrow::datatypes::Field::new("n", DataType::Int32, true),
            ]
            .into(),
        )
    }
}

impl ScalarUDFImpl for ExpandArray {
    fn name(&self) -> &str {
        "_pg_expandarray"
    }
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        check_list(self.name(), args)?;
        Ok(DataType::List(Arc::new(
            arrow::datatypes::Field::new_list_field(ExpandArray::element(&args[0]), true),
        )))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let list = args.args[0].clone().into_array(args.number_rows)?;
        let list = list.as_list::<i32>();
        let lengths: Vec<usize> = (0..list.len())
            .map(|i| list.value_length(i) as usize)
            .collect();
        let numbers: arrow::array::Int32Array = lengths
            .iter()
            .flat_map(|n| (1..=*n as i32).map(Some))
            .collect();
        let parts: Vec<ArrayRef> = (0..list.len()).map(|i| list.value(i)).collect();
        let borrowed: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
        let values = if borrowed.is_empty() {
            list.values().slice(0, 0)
        } else {
            arrow::compute::concat(&borrowed)?
        };
        let element = ExpandArray::element(list.data_type());
        let DataType::Struct(fields) = &element else {
            return Err(DataFusionError::Internal("a struct is expected".into()));
        };
        let pairs = arrow::array::StructArray::try_new(
            fields.clone(),
            vec![values, Arc::new(numbers)],
            None,
        )?;
        let field = Arc::new(arrow::datatypes::Field::new_list_field(element, true));
        Ok(ColumnarValue::Array(Arc::new(
            arrow::array::ListArray::try_new(
                field,
                arrow::buffer::OffsetBuffer::from_lengths(lengths),
                Arc::new(pairs),
                None,
            )?,
        )))
    }
}

/// `generate_subscripts(array, 1)` as a list.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Subscripts(pub Signature);

impl ScalarUDFImpl for Subscripts {
    fn name(&self) -> &str {
        "generate_subscripts"
    }
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        check_list(self.name(), args)?;
        Ok(DataType::List(Arc::new(
            arrow::datatypes::Field::new_list_field(DataType::Int32, true),
        )))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let list = args.args[0].clone().into_array(args.number_rows)?;
        let list = list.as_list::<i32>();
        let numbers = (0..list.len()).map(|i| {
            list.is_valid(i)
                .then(|| (1..=list.value_length(i)).map(Some))
        });
        Ok(ColumnarValue::Array(Arc::new(
            arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(
                numbers,
            ),
        )))
    }
}

/// `array_lower(array, dimension)` and `array_upper(array, dimension)`: the bounds of a dimension
/// of an array (1 is the outermost), NULL where the array is NULL, has no such dimension or is
/// empty there.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ArrayBound {
    name: &'static str,
    signature: Signature,
}

impl ArrayBound {
    pub fn lower() -> ArrayBound {
        ArrayBound::named("array_lower")
    }
    pub fn upper() -> ArrayBound {
        ArrayBound::named("array_upper")
    }
    fn named(name: &'static str) -> ArrayBound {
        let signature = Signature::any(2, Volatility::Immutable);
        ArrayBound { name, signature }
    }
}

impl ScalarUDFImpl for ArrayBound {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        check_list(self.name, arguments)?;
        Ok(DataType::Int32)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args[0].to_array(args.number_rows)?;
        let dimensions = args.args[1].to_array(args.number_rows)?;
        let dimensions = arrow::compute::cast(&dimensions, &DataType::Int64)?;
        let dimensions = dimensions.as_primitive::<Int64Type>();
        let is_lower = self.name == "array_lower";
        let bounds = arrays.as_list::<i32>().iter().zip(dimensions);
        let bounds = bounds.map(|(array, dimension)| {
            let length = length(array?, dimension?)?;
            Some(if is_lower { 1 } else { length })
        });
        Ok(ColumnarValue::Array(Arc::new(
            bounds.collect::<Int32Array>(),
        )))
    }
}

/// The length of an array in a dimension; nothing if it is empty there or has no such dimension.
fn length(mut array: ArrayRef, dimension: i64) -> Option<i32> {
    for _ in 1..dimension.min(8) {
        let inner = array
            .as_list_opt::<i32>()
            .filter(|l| !l.is_empty())?
            .value(0);
        array = inner;
    }
    let has_dimension = (1..=7).contains(&dimension);
    (has_dimension && !array.is_empty()).then(|| array.len() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::ListArray;
    use arrow::datatypes::Int32Type;

    #[test]
    fn bounds_of_dimensions() {
        let inner = |numbers: Vec<i32>| Arc::new(Int32Array::from(numbers)) as ArrayRef;
        let nested = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            Some(vec![Some(3), Some(4)]),
            Some(vec![Some(5), Some(6)]),
        ]);
        assert_eq!(length(inner(vec![7, 8]), 1), Some(2));
        assert_eq!(length(inner(vec![7, 8]), 2), None);
        assert_eq!(length(inner(Vec::new()), 1), None);
        assert_eq!(length(Arc::new(nested.clone()), 1), Some(3));
        assert_eq!(length(Arc::new(nested.clone()), 2), Some(2));
        for none in [0, -1, 3, 9, i64::MAX, i64::MIN] {
            assert_eq!(length(Arc::new(nested.clone()), none), None);
        }
    }
}
