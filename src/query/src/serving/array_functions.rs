//! `_pg_expandarray` of the information schema, over arrays that the catalog's tables have.

use super::functions::no_function;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
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
