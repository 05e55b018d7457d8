//! `uuid`: 16 bytes, a `FixedSizeBinary(16)` to Arrow, whose order is PostgreSQL's.

use super::definition::*;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray,
    StringBuilder,
};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

const BYTES: usize = 16;

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

fn read(texts: &StringArray) -> Result<ArrayRef> {
    let mut uuids = FixedSizeBinaryBuilder::with_capacity(texts.len(), BYTES as i32);
    for text in texts {
        match text {
            Some(text) => uuids.append_value(parse_uuid(text).map_err(external)?)?,
            None => uuids.append_null(),
        }
    }
    Ok(Arc::new(uuids.finish()))
}

fn written(uuids: &FixedSizeBinaryArray) -> StringArray {
    let mut texts = StringBuilder::with_capacity(uuids.len(), uuids.len() * 36);
    let mut text = String::with_capacity(36);
    for uuid in uuids {
        match uuid {
            Some(bytes) => {
                text.clear();
                write_uuid(bytes, &mut text);
                texts.append_value(&text);
            }
            None => texts.append_null(),
        }
    }
    texts.finish()
}

/// Appends the text of a UUID's bytes.
pub fn write_uuid(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}

/// The bytes of a UUID: 32 hexadecimal digits, with a hyphen after any four of them, in braces or
/// not.
///
/// Errors: `22P02`.
pub fn parse_uuid(text: &str) -> tidemark_common::Result<[u8; BYTES]> {
    digits(text).ok_or_else(|| {
        Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type uuid: \"{text}\""),
        )
    })
}

fn digits(text: &str) -> Option<[u8; BYTES]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0; BYTES];
    let mut rest = inner.as_bytes();
    for (i, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        rest = after;
        if i % 2 == 1 && i < BYTES - 1 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_postgresql() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for spelling in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            let mut written = String::new();
            write_uuid(&parse_uuid(spelling).unwrap(), &mut written);
            assert_eq!(written, text, "{spelling}");
        }
        for wrong in [
            "",
            "a",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert!(parse_uuid(wrong).is_err(), "{wrong}");
        }
    }
}
