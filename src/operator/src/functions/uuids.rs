//! `uuid`: 16 bytes, a `FixedSizeBinary(16)` to Arrow, whose order is PostgreSQL's.

use super::definition::*;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray,
    StringBuilder,
};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use std::sync::Arc;
use tidemark_values::uuid::{self, BYTES};

/// `uuid` to Arrow.
pub(super) const UUID: DataType = DataType::FixedSizeBinary(BYTES as i32);

/// A column as, or from, UUIDs; `None` if neither type is one that is cast here.
///
/// Errors: `22P02` for a text that is none.
pub(super) fn cast_array(array: &ArrayRef, to: &DataType) -> Result<Option<ArrayRef>> {
    Ok(match (array.data_type(), to) {
        (DataType::Utf8, to) if *to == UUID => Some(read(array.as_string())?),
        (from, DataType::Utf8) if *from == UUID => {
            Some(Arc::new(written(array.as_fixed_size_binary())))
        }
        _ => None,
    })
}

pub(super) fn read(texts: &StringArray) -> Result<ArrayRef> {
    let mut uuids = FixedSizeBinaryBuilder::with_capacity(texts.len(), BYTES as i32);
    for text in texts {
        match text {
            Some(text) => uuids.append_value(uuid::read(text).map_err(external)?)?,
            None => uuids.append_null(),
        }
    }
    Ok(Arc::new(uuids.finish()))
}

fn written(uuids: &FixedSizeBinaryArray) -> StringArray {
    let mut texts = StringBuilder::with_capacity(uuids.len(), uuids.len() * uuid::TEXT_BYTES);
    for uuid in uuids {
        match uuid {
            Some(bytes) => {
                let text = uuid::text(bytes);
                texts.append_value(std::str::from_utf8(&text).expect("digits are ASCII"));
            }
            None => texts.append_null(),
        }
    }
    texts.finish()
}
