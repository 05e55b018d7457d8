//! The form of records in a simulation, which those who check it read and write as easily as the
//! connectors do.
//!
//! A source's value is a line `a|b|c` of the relation's columns (without those of INCLUDE), NULL as
//! `\N`. Its key is the text of the key's columns, in the same form. Of an upsert source an empty
//! value, or none, deletes. A sink's value is `+|a|b|c` or `-|a|b|c`: the change of one row, so
//! that the sum of all records is the sink's content. No text has `|` in it.
//!
//! Lines are read by the product's own decoder, as the JSON objects that say the same: what cannot
//! be read, columns that are not wanted, NOT NULL and what INCLUDE adds are as in the product.

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{Column, ConnectorSpec, Format, Include};

/// NULL.
const NULL: &str = "\\N";

/// Says in JSON what a source's lines say.
pub struct Translator {
    /// Names of the columns of a value, as JSON strings.
    columns: Vec<String>,
    /// Those of a key; none where keys are left as they are.
    key: Option<Vec<String>>,
    deletes: bool,
}

impl Translator {
    /// For lines of this source, whose relation has these columns.
    pub fn new(spec: &ConnectorSpec, columns: &[Column]) -> Translator {
        let included = |at: usize| spec.includes.iter().any(|(column, _)| *column == at);
        let name = |at: usize| quoted(&columns[at].name);
        let plain = (0..columns.len()).filter(|at| !included(*at));
        let key_included = spec.includes.iter().any(|(_, i)| *i == Include::Key);
        let keyed = spec.format != Format::Plain && !key_included;
        let key = spec.key.iter().filter(|at| !included(**at));
        Translator {
            columns: plain.map(name).collect(),
            key: keyed.then(|| key.map(|at| name(*at)).collect()),
            deletes: spec.format != Format::Plain,
        }
    }

    /// A record's key.
    pub fn key(&self, key: Option<&[u8]>) -> Option<Vec<u8>> {
        let key = key?;
        let object = self.key.as_ref().and_then(|names| object(names, key));
        Some(object.unwrap_or_else(|| key.to_vec()))
    }

    /// A record's value; one that is no such line stays what it is, which is no JSON either.
    pub fn value(&self, value: Option<&[u8]>) -> Option<Vec<u8>> {
        let value = value.filter(|value| !(self.deletes && value.is_empty()))?;
        let object = object(&self.columns, value);
        Some(object.unwrap_or_else(|| [b"no line: ", value].concat()))
    }
}

fn object(names: &[String], line: &[u8]) -> Option<Vec<u8>> {
    let line = std::str::from_utf8(line).ok()?;
    let values: Vec<&str> = line.split('|').collect();
    if values.len() != names.len() {
        return None;
    }
    let members = names.iter().zip(values).map(|(name, value)| match value {
        NULL => format!("{name}:null"),
        value => format!("{name}:{}", quoted(value)),
    });
    let members: Vec<String> = members.collect();
    Some(format!("{{{}}}", members.join(",")).into_bytes())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A line of these fields.
pub fn line<'a>(fields: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let fields: Vec<&str> = fields.into_iter().map(|f| f.unwrap_or(NULL)).collect();
    fields.join("|")
}

/// The fields of a line.
pub fn fields(line: &[u8]) -> Vec<Option<String>> {
    let text = String::from_utf8_lossy(line);
    let field = |field: &str| (field != NULL).then(|| field.to_string());
    text.split('|').map(field).collect()
}

/// Calls `emit` with key and value of each record of these changes, in their order; a change of
/// weight n is n records. `key`: the columns of the key.
pub fn write_changes(
    changes: &ChangeBatch,
    key: &[usize],
    emit: &mut dyn FnMut(Option<String>, String) -> Result<()>,
) -> Result<()> {
    let options = FormatOptions::new().with_null(NULL);
    let formats = changes.rows().columns().iter();
    let formats =
        formats.map(|column| ArrayFormatter::try_new(column.as_ref() as &dyn Array, &options));
    let formats = formats.collect::<Result<Vec<_>, _>>();
    let formats = formats.map_err(|e| Error::internal(format!("a row has no text: {e}")))?;
    for row in 0..changes.num_rows() {
        let texts: Vec<String> = formats.iter().map(|f| f.value(row).to_string()).collect();
        let key = (!key.is_empty()).then(|| {
            let key: Vec<&str> = key.iter().map(|at| texts[*at].as_str()).collect();
            key.join("|")
        });
        let weight = changes.weight(row);
        let op = if weight < 0 { '-' } else { '+' };
        let value = format!("{op}|{}", texts.join("|"));
        for _ in 0..weight.unsigned_abs() {
            emit(key.clone(), value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{columns, spec};
    use super::*;

    #[test]
    fn a_line_says_the_same_as_an_object() {
        let mut spec = spec("t");
        (spec.format, spec.key) = (Format::Upsert, vec![0]);
        let translator = Translator::new(&spec, &columns());
        let value = |text: &str| {
            let value = translator.value(Some(text.as_bytes()))?;
            Some(String::from_utf8(value).unwrap())
        };
        assert_eq!(value("1|a\"b").unwrap(), r#"{"id":"1","name":"a\"b"}"#);
        assert_eq!(value("1|\\N").unwrap(), r#"{"id":"1","name":null}"#);
        assert_eq!(value("1|2|3").unwrap(), "no line: 1|2|3");
        assert_eq!(value(""), None);
        let key = translator.key(Some(b"5")).unwrap();
        assert_eq!(key, br#"{"id":"5"}"#);
        assert_eq!(line([Some("1"), None]), "1|\\N");
        assert_eq!(
            fields(b"1|\\N|"),
            [Some("1".into()), None, Some(String::new())]
        );
    }
}
