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
use super::json_decode::{ObjectReader, Rows};
use super::scan::{Fault, Scanner};
use serde_json::Value;

/// Schemas kept; a new one takes the place of one that was not used lately.
const SCHEMAS_MAX: usize = 32;
/// Bytes of a schema that is kept.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// What follows from the schemas seen.
#[derive(Debug)]
pub(super) struct Plans<P> {
    /// Of values without a schema.
    bare: P,
    /// Of schemas by their bytes, the last used first.
    known: Vec<(Box<str>, P)>,
}

/// Which plan, until the next schema is passed: none of a value without one.
pub(super) type PlanId = Option<usize>;

impl<P> Plans<P> {
    /// With the plan of values that have no schema.
    pub fn new(bare: P) -> Plans<P> {
        Plans {
            bare,
            known: Vec::new(),
        }
    }

    /// The plan `id`.
    #[inline]
    pub fn get(&mut self, id: PlanId) -> &mut P {
        match id {
            Some(at) => &mut self.known[at].1,
            None => &mut self.bare,
        }
    }

    /// Passes the schema at the cursor, an object, and says what its plan is; `plan` makes one.
    #[inline]
    pub fn pass(
        &mut self,
        scanner: &mut Scanner<'_>,
        plan: impl FnOnce(&Form) -> P,
    ) -> Result<PlanId, Fault> {
        match self.recall(scanner) {
            Some(at) => Ok(Some(at)),
            None => self.learn(scanner, plan),
        }
    }

    /// Passes the object at the cursor, if it is an envelope: its plan, and a cursor at its
    /// payload. The cursor stays where it is none.
    pub fn envelope<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        plan: impl FnOnce(&Form) -> P,
    ) -> Result<Option<(PlanId, Scanner<'a>)>, Fault> {
        let mut walk = scanner.copy();
        let (mut id, mut described, mut unknown, mut payload) = (None, false, None, None);
        let mut first = true;
        while let Some(name) = walk.next_member(first)? {
            first = false;
            match (name.raw, walk.peek()) {
                ("schema", b'{') => {
                    described = true;
                    id = self.recall(&mut walk);
                    if id.is_none() {
                        unknown = Some(walk.copy());
                        walk.skip(1)?;
                    }
                }
                ("schema", b'n') => {
                    described = true;
                    walk.literal("null")?;
                }
                ("payload", _) => {
                    payload = Some(walk.copy());
                    walk.skip(1)?;
                }
                _ => return Ok(None),
            }
        }
        let Some(payload) = payload.filter(|_| described) else {
            return Ok(None);
        };
        if let Some(mut schema) = unknown {
            id = self.learn(&mut schema, plan)?;
        }
        *scanner = walk;
        Ok(Some((id, payload)))
    }

    /// Passes the schema at the cursor if its bytes are known.
    #[inline]
    fn recall(&mut self, scanner: &mut Scanner<'_>) -> PlanId {
        // A schema that is the beginning of the text is all of it: both end where their first brace
        // closes.
        let rest = scanner.rest();
        let is_next = |(schema, _): &(Box<str>, P)| rest.starts_with(schema.as_bytes());
        let at = self.known.iter().position(is_next)?;
        scanner.advance(self.known[at].0.len());
        if at > 0 {
            self.known.swap(0, at);
        }
        Some(0)
    }

    #[cold]
    #[inline(never)]
    fn learn(
        &mut self,
        scanner: &mut Scanner<'_>,
        plan: impl FnOnce(&Form) -> P,
    ) -> Result<PlanId, Fault> {
        let text = scanner.raw(1)?;
        if text.len() > SCHEMA_BYTES_MAX {
            return Ok(None);
        }
        let Ok(schema) = serde_json::from_str::<Value>(text) else {
            return Ok(None);
        };
        self.known.truncate(SCHEMAS_MAX - 1);
        self.known
            .insert(0, (Box::from(text), plan(&form_of(&schema))));
        Ok(Some(0))
    }
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
    pub fn read(&mut self, scanner: &mut Scanner<'_>, rows: &mut Rows) -> Result<Row, Fault> {
        if self.enveloped && may_be_envelope(scanner) {
            return self.read_enveloped(scanner, rows);
        }
        self.plans.get(None).read(scanner, rows, 0)?;
        Ok(Row::Read)
    }

    #[inline(never)]
    fn read_enveloped(&mut self, scanner: &mut Scanner<'_>, rows: &mut Rows) -> Result<Row, Fault> {
        let targets = self.plans.get(None).targets();
        let plan = |form: &Form| ObjectReader::new(targets, form);
        let Some((id, mut payload)) = self.plans.envelope(scanner, plan)? else {
            self.plans.get(None).read(scanner, rows, 0)?;
            return Ok(Row::Read);
        };
        if payload.peek() == b'n' {
            return Ok(Row::Null);
        }
        self.plans.get(id).read(&mut payload, rows, 1)?;
        Ok(Row::Read)
    }
}
