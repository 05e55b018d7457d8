//! Record keys: from a source's record key to the key columns, and from rows to a sink's record
//! key.
//!
//! A key is a JSON object with the key's columns, by name, or, for one column, the bare value: any
//! JSON value that is not an object, else the text itself (so `42`, `"a"` and `a` all work). Kafka
//! Connect's envelope `{"schema": ..., "payload": ...}` around either is taken off, and its schema
//! says how to read what is inside ([`super::connect`]). The option
//! `key.encode` fixes the form: `json` allows no plain text, `text` and `bytes` take the key as it
//! is.

use super::NOT_IN_ENCODING;
use super::connect::{self, PlanId, Plans};
use super::connect_encode;
use super::form::{self, Form};
use super::json_decode::{ObjectReader, Rows, Wanted};
use super::json_encode::{BoundRows, JsonEncoder, Style};
use super::scan::{Fault, Scanner};
use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Column, ConnectorSpec};

/// `KEY ENCODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyForm {
    /// Not said.
    Any,
    Json,
    Text,
}

impl KeyForm {
    fn of(spec: &ConnectorSpec) -> Result<KeyForm> {
        let option = ["key.encode", "key_encode"].iter().find_map(|name| {
            spec.encode_options
                .get(*name)
                .or_else(|| spec.options.get(*name))
        });
        match option.map(|value| value.to_ascii_lowercase()).as_deref() {
            None => Ok(KeyForm::Any),
            Some("json") => Ok(KeyForm::Json),
            Some("text" | "bytes") => Ok(KeyForm::Text),
            Some(other) => Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("unknown key encoding \"{other}\""),
            )
            .with_hint("Use JSON, TEXT or BYTES.")),
        }
    }
}

/// Fills the key columns from the record key.
#[derive(Debug)]
pub(super) struct KeyReader {
    form: KeyForm,
    /// The key's columns among the wanted ones.
    columns: Arc<[Wanted]>,
    /// Whether the relation's key has exactly one column, so that a bare value will do.
    single: bool,
    plans: Plans<KeyPlan>,
}

/// How keys of one schema are read.
#[derive(Debug)]
struct KeyPlan {
    object: ObjectReader,
    /// The form of a bare value.
    bare: Form,
}

impl KeyPlan {
    fn new(columns: Arc<[Wanted]>, schema: &Form) -> KeyPlan {
        let bare = columns.first().map(|wanted| {
            let schema = match schema {
                Form::Struct(_) => &Form::Declared,
                schema => schema,
            };
            wanted.declarations.bind(schema, &wanted.column)
        });
        KeyPlan {
            object: ObjectReader::new(columns, schema),
            bare: bare.unwrap_or(Form::Declared),
        }
    }
}

impl KeyReader {
    /// `columns`: the wanted key columns; `width`: columns of the whole key.
    pub fn new(spec: &ConnectorSpec, columns: Arc<[Wanted]>, width: usize) -> Result<KeyReader> {
        let form = KeyForm::of(spec)?;
        if form == KeyForm::Text && width != 1 {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "a key of several columns cannot be encoded as text",
            )
            .with_hint("Use KEY ENCODE JSON."));
        }
        Ok(KeyReader {
            form,
            single: width == 1,
            plans: Plans::new(KeyPlan::new(columns.clone(), &Form::Declared)),
            columns,
        })
    }

    /// Reads `key` into the current row.
    pub fn read(&mut self, key: Option<&[u8]>, rows: &mut Rows) -> Result<(), Fault> {
        let key = key.ok_or_else(|| Fault::value("the record has no key"))?;
        if self.form == KeyForm::Text {
            return self.read_text(key, rows);
        }
        if self.single && self.form == KeyForm::Any && !is_json(key) {
            return self.read_text(key, rows);
        }
        let text = std::str::from_utf8(key).map_err(|_| {
            Fault::value("the record key is not valid UTF-8").with_state(NOT_IN_ENCODING)
        })?;
        let mut scanner = Scanner::new(text);
        scanner.blanks();
        self.read_json(&mut scanner, rows)?;
        scanner.end()?;
        self.check(rows)
    }

    /// Reads the object or bare value at the cursor, or the one in the envelope there.
    fn read_json(&mut self, scanner: &mut Scanner<'_>, rows: &mut Rows) -> Result<(), Fault> {
        if connect::may_be_envelope(scanner) {
            let columns = self.columns.clone();
            let plan = |form: &Form| KeyPlan::new(columns, form);
            if let Some((plan, mut payload)) = self.plans.envelope(scanner, plan)? {
                return self.read_value(&mut payload, rows, plan, 1);
            }
        }
        self.read_value(scanner, rows, None, 0)
    }

    fn read_value(
        &mut self,
        scanner: &mut Scanner<'_>,
        rows: &mut Rows,
        plan: PlanId,
        depth: u32,
    ) -> Result<(), Fault> {
        let plan = self.plans.get(plan);
        if scanner.peek() == b'{' {
            return plan.object.read(scanner, rows, depth);
        }
        if !self.single {
            return Err(Fault::value(
                "the record key is not a JSON object with the columns of the key",
            ));
        }
        let Some(wanted) = self.columns.first() else {
            return scanner.skip(depth);
        };
        let Rows {
            columns,
            rows: row,
            context,
            ..
        } = rows;
        columns[wanted.at]
            .read_as(&plan.bare, scanner, *row, depth, context)
            .map_err(|fault| fault.of_column(wanted.at))?;
        rows.count();
        Ok(())
    }

    fn read_text(&mut self, key: &[u8], rows: &mut Rows) -> Result<(), Fault> {
        if let Some(column) = self.columns.first().map(|wanted| wanted.at) {
            let Rows {
                columns,
                rows: row,
                context,
                ..
            } = rows;
            columns[column]
                .push_key_text(*row, key, context)
                .map_err(|fault| fault.of_column(column))?;
            rows.count();
        }
        Ok(())
    }

    fn check(&self, rows: &Rows) -> Result<(), Fault> {
        let mut columns = self.columns.iter().map(|wanted| wanted.at);
        match columns.find(|column| !rows.has(*column)) {
            None => Ok(()),
            Some(column) => Err(Fault::value(format!(
                "the record key has no value for column \"{}\"",
                rows.columns[column].name
            ))
            .of_column(column)),
        }
    }
}

/// Whether `key` is one well-formed JSON value.
fn is_json(key: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(key) else {
        return false;
    };
    let mut scanner = Scanner::new(text);
    scanner.blanks();
    scanner.skip(0).and_then(|()| scanner.end()).is_ok()
}

/// The topic of a source or sink, for the names of its schemas.
pub(crate) fn topic_of(spec: &ConnectorSpec) -> &str {
    spec.options.get("topic").map_or("tidemark", String::as_str)
}

/// Writes record keys of a sink: a JSON object of the key columns, or with `key.encode = 'text'`
/// the bare text of the only one.
#[derive(Debug)]
pub struct KeyEncoder {
    encoder: JsonEncoder,
    bare: bool,
    /// What stands before a key with a schema; empty for others.
    opening: Vec<u8>,
}

/// A batch whose record keys can be written.
pub struct BoundKeys<'a> {
    rows: BoundRows<'a>,
    bare: bool,
    opening: &'a [u8],
}

impl KeyEncoder {
    /// For the columns at `spec.key` of a batch with `columns`. `22023` for an unknown
    /// `key.encode`, or text with several columns.
    pub fn new(spec: &ConnectorSpec, columns: &[Column]) -> Result<KeyEncoder> {
        let bare = KeyForm::of(spec)? == KeyForm::Text;
        if bare && spec.key.len() != 1 {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "a key of several columns cannot be encoded as text",
            )
            .with_hint("Use KEY ENCODE JSON."));
        }
        let schemas = form::sink_schemas(spec)?.filter(|_| !bare);
        let (style, opening) = match schemas {
            Some(unit) => {
                let name = format!("{}.Key", topic_of(spec));
                let opening = connect_encode::opening(columns, &spec.key, unit, &name);
                (Style::Connect(unit), opening)
            }
            None => (Style::Plain, Vec::new()),
        };
        Ok(KeyEncoder {
            encoder: JsonEncoder::with_style(columns, &spec.key, style)?,
            bare,
            opening,
        })
    }

    /// Prepares a batch.
    pub fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<BoundKeys<'a>> {
        Ok(BoundKeys {
            rows: self.encoder.bind(rows)?,
            bare: self.bare,
            opening: &self.opening,
        })
    }
}

impl BoundKeys<'_> {
    /// Appends the key of row `row` to `out`.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.bare {
            return self.rows.write_bare(row, out);
        }
        out.extend_from_slice(self.opening);
        self.rows.write(row, out);
        if !self.opening.is_empty() {
            out.push(b'}');
        }
    }
}
