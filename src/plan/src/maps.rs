//! The type of maps, `MAP(k, v)`: Arrow's map of entries that are sorted by key.

use arrow_schema::{DataType, Field, FieldRef};
use std::sync::Arc;

/// The names of the two parts of an entry, as `map_entries` shows them.
const PARTS: [&str; 2] = ["key", "value"];

/// The type of the entries of a map: rows of key and value.
pub fn entry_type(key: DataType, value: DataType) -> DataType {
    let [key_name, value_name] = PARTS;
    let key = Field::new(key_name, key, false);
    let value = Field::new(value_name, value, true);
    DataType::Struct(vec![key, value].into())
}

/// The type of maps from keys to values.
pub fn map_type(key: DataType, value: DataType) -> DataType {
    let entries = Field::new("entries", entry_type(key, value), false);
    DataType::Map(Arc::new(entries), true)
}

/// The fields of the key and the value of a map type; `None` of other types.
pub fn map_parts(data_type: &DataType) -> Option<(&FieldRef, &FieldRef)> {
    let DataType::Map(entries, _) = data_type else {
        return None;
    };
    match entries.data_type() {
        DataType::Struct(parts) => match parts.as_ref() {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a map may have keys of this type: texts and integers, whose equality is that of their
/// bytes.
pub fn is_map_key(data_type: &DataType) -> bool {
    use DataType::{Int16, Int32, Int64, Utf8};
    matches!(data_type, Utf8 | Int16 | Int32 | Int64)
}
