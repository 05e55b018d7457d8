//! Kafka Connect's envelope: `{"schema": ..., "payload": ...}` around a value, and what its schema
//! says of the values inside.
//!
//! Law: the envelope is an object with exactly these two members, in either order. The schema
//! decides units and encodings of what it names: `io.debezium.time.*` and the logical types of
//! Kafka Connect, `bytes` in base64, structs, arrays and maps of them. What it does not name, or
//! says in words that are not known, is read as without a schema.
//!
//! Cost: a topic has few schemas and writes one with every record, so a schema is parsed once, and
//! known again by its bytes: one comparison of memory a record. What follows from it (a *plan*, by
//! default an [`ObjectReader`] of its own) is kept with them, so records with different schemas may
//! alternate.

use super::base64::Alphabet;
use super::form::{Form, Moment, Unit};
use super::json_decode::ObjectReader;
use super::scan::{Fault, Scanner};
use serde_json::Value;

/// Schemas kept; a new one takes the place of the oldest.
const SCHEMAS_MAX: usize = 32;
/// Bytes of a schema that is kept.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// What follows from the schemas seen.
#[derive(Debug)]
pub(super) struct Plans<P> {
    /// Of values without a schema.
    bare: P,
    known: Vec<(Box<str>, P)>,
    /// Place of the next schema once all places are taken.
    oldest: usize,
}

/// Which plan: none of a value without a schema.
pub(super) type PlanId = Option<usize>;

impl<P> Plans<P> {
    /// With the plan of values that have no schema.
    pub fn new(bare: P) -> Plans<P> {
        Plans {
            bare,
            known: Vec::new(),
            oldest: 0,
        }
    }

    /// The plan `id`, until the next call of `pass`.
    #[inline]
    pub fn get(&mut self, id: PlanId) -> &mut P {
        match id {
            Some(at) => &mut self.known[at].1,
            None => &mut self.bare,
        }
    }

    /// Passes the schema at the cursor, and says what its plan is; `plan` makes one. `depth`
    /// containers are open around it.
    #[inline]
    pub fn pass(
        &mut self,
        scanner: &mut Scanner<'_>,
        depth: u32,
        plan: impl FnOnce(&Form) -> P,
    ) -> Result<PlanId, Fault> {
        let rest = scanner.rest();
        // A schema that is the beginning of the text is all of it: both end where their first brace
        // closes.
        for (at, (schema, _)) in self.known.iter().enumerate() {
            if rest.starts_with(schema.as_bytes()) {
                scanner.advance(schema.len());
                return Ok(Some(at));
            }
        }
        self.learn(scanner, depth, plan)
    }

    #[cold]
    #[inline(never)]
    fn learn(
        &mut self,
        scanner: &mut Scanner<'_>,
        depth: u32,
        plan: impl FnOnce(&Form) -> P,
    ) -> Result<PlanId, Fault> {
        let is_object = scanner.peek() == b'{';
        let text = scanner.raw(depth)?;
        if !is_object || text.len() > SCHEMA_BYTES_MAX {
            return Ok(None);
        }
        let Ok(schema) = serde_json::from_str::<Value>(text) else {
            return Ok(None);
        };
        let entry = (Box::from(text), plan(&form_of(&schema)));
        if self.known.len() < SCHEMAS_MAX {
            self.known.push(entry);
            return Ok(Some(self.known.len() - 1));
        }
        let at = self.oldest;
        self.known[at] = entry;
        self.oldest = (at + 1) % SCHEMAS_MAX;
        Ok(Some(at))
    }
}

/// The members of an envelope, each at its value.
pub(super) struct Envelope<'a> {
    pub schema: Scanner<'a>,
    pub payload: Scanner<'a>,
}

/// Whether an object may be an envelope, by its first member.
#[inline]
pub(super) fn may_be_envelope(scanner: &Scanner<'_>) -> bool {
    let rest = match scanner.rest() {
        [b'{', rest @ ..] => rest,
        _ => return false,
    };
    match rest {
        [b'"', b's' | b'p', ..] | [b' ' | b'\t' | b'\n' | b'\r', ..] => {
            let rest = rest.trim_ascii_start();
            rest.starts_with(b"\"schema\"") || rest.starts_with(b"\"payload\"")
        }
        _ => false,
    }
}

/// Passes the object at the cursor, if it is an envelope; the cursor stays where it is not.
pub(super) fn envelope<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Envelope<'a>>, Fault> {
    let mut walk = scanner.copy();
    let (mut schema, mut payload) = (None, None);
    let mut first = true;
    while let Some(name) = walk.next_member(first)? {
        first = false;
        let place = match name.raw {
            "schema" if matches!(walk.peek(), b'{' | b'n') => &mut schema,
            "payload" => &mut payload,
            _ => return Ok(None),
        };
        *place = Some(walk.copy());
        walk.skip(1)?;
    }
    let (Some(schema), Some(payload)) = (schema, payload) else {
        return Ok(None);
    };
    *scanner = walk;
    Ok(Some(Envelope { schema, payload }))
}

/// The form that a schema gives its values.
fn form_of(schema: &Value) -> Form {
    if let Some(form) = schema["name"].as_str().and_then(|n| logical(n, schema)) {
        return form;
    }
    match schema["type"].as_str() {
        Some("bytes") => Form::Bytes(Alphabet::Standard),
        Some("string") => Form::Text,
        Some("array") => Form::Array(Box::new(form_of(&schema["items"]))),
        Some("struct") => Form::Struct(
            schema["fields"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|field| Some((field["field"].as_str()?.to_owned(), form_of(field))))
                .collect(),
        ),
        Some("map") => {
            let (keys, values) = (&schema["keys"], form_of(&schema["values"]));
            if keys["type"] == "string" {
                Form::Map(Box::new(values))
            } else {
                Form::Pairs(Box::new((form_of(keys), values)))
            }
        }
        _ => Form::Declared,
    }
}

/// The form of a logical type that changes how its values are read.
fn logical(name: &str, schema: &Value) -> Option<Form> {
    use Moment::*;
    use Unit::*;
    let parameter =
        |name: &str| -> Option<i32> { schema["parameters"][name].as_str()?.trim().parse().ok() };
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Form::Moment(Date),
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
            Form::Moment(Time(Millis))
        }
        "io.debezium.time.MicroTime" => Form::Moment(Time(Micros)),
        "io.debezium.time.NanoTime" => Form::Moment(Time(Nanos)),
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
            Form::Moment(Timestamp(Millis))
        }
        "io.debezium.time.MicroTimestamp" => Form::Moment(Timestamp(Micros)),
        "io.debezium.time.NanoTimestamp" => Form::Moment(Timestamp(Nanos)),
        "io.debezium.time.MicroDuration" => Form::Moment(Duration(Micros)),
        "io.debezium.time.NanoDuration" => Form::Moment(Duration(Nanos)),
        "io.debezium.time.ZonedTimestamp" => Form::Zoned,
        "io.debezium.time.Year" => Form::Year,
        "org.apache.kafka.connect.data.Decimal" => Form::Decimal(parameter("scale")),
        "io.debezium.data.VariableScaleDecimal" => Form::Decimal(None),
        "io.debezium.data.Json" => Form::Embedded(Box::new(Form::Declared)),
        "io.debezium.data.Bits" => {
            Form::Bits(parameter("length").and_then(|length| u32::try_from(length).ok()))
        }
        _ => return None,
    })
}

/// Reads the rows of plain values and of those in an envelope.
#[derive(Debug)]
pub(super) struct RowReader {
    plans: Plans<ObjectReader>,
    /// Whether the relation may have rows in envelopes: not if its own columns are their members.
    enveloped: bool,
}

/// What a value was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A row.
    Read,
    /// `null`, in an envelope.
    Null,
}

impl RowReader {
    /// A reader that fills what `bare` fills.
    pub fn new(bare: ObjectReader, enveloped: bool) -> RowReader {
        RowReader {
            plans: Plans::new(bare),
            enveloped,
        }
    }

    /// Reads the value at the cursor, which must be the object of a row, into the current row.
    #[inline]
    pub fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        rows: &mut super::json_decode::Rows,
    ) -> Result<Row, Fault> {
        if self.enveloped && may_be_envelope(scanner) {
            return self.read_enveloped(scanner, rows);
        }
        self.plans.get(None).read(scanner, rows, 0)?;
        Ok(Row::Read)
    }

    #[inline(never)]
    fn read_enveloped(
        &mut self,
        scanner: &mut Scanner<'_>,
        rows: &mut super::json_decode::Rows,
    ) -> Result<Row, Fault> {
        let Some(Envelope {
            mut schema,
            mut payload,
        }) = envelope(scanner)?
        else {
            self.plans.get(None).read(scanner, rows, 0)?;
            return Ok(Row::Read);
        };
        let Plans { bare, .. } = &self.plans;
        let targets = bare.targets();
        let id = self
            .plans
            .pass(&mut schema, 1, |form| ObjectReader::new(targets, form))?;
        if payload.peek() == b'n' {
            return Ok(Row::Null);
        }
        self.plans.get(id).read(&mut payload, rows, 1)?;
        Ok(Row::Read)
    }
}
