//! Forms: how a JSON value that does not say it itself is to be read.
//!
//! A number may be days, milliseconds or microseconds, a string may be text, base64 or JSON. Which
//! it is, the message's own schema says ([`super::connect`]); where there is none, the source's
//! declarations do, in Debezium's own words:
//!
//! * `decimal.handling.mode`: `precise`, `double`, `string`;
//! * `time.precision.mode`: `adaptive`, `adaptive_time_microseconds`, `connect`, `isostring`,
//!   `microseconds`, `nanoseconds`;
//! * `binary.handling.mode`: `bytes`, `base64`, `base64-url-safe`, `hex`.
//!
//! Not said, a number is for TIME microseconds and for TIMESTAMP milliseconds below 10^14 and
//! microseconds from there on; in DEBEZIUM the declared precision counts (`TIMESTAMP(3)` and less:
//! milliseconds, more: microseconds). A string for NUMERIC is a decimal text; in DEBEZIUM it may as
//! well be the base64 of Debezium's `precise`: it is read as what it can be, and is an error where
//! it can be both. A string for BYTEA is PostgreSQL's text or its own bytes, in DEBEZIUM base64.
//!
//! Law: a form never guesses; a value that its form does not cover is read as one without a form
//! (a timestamp's text is a timestamp whatever unit its numbers have).

use super::base64::Alphabet;
use arrow::datatypes::DataType;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::maps::map_parts;
use tidemark_plan::{Column, ConnectorSpec, Format};

/// How a value is to be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// As its column's type has it.
    Declared,
    /// A string that is text and nothing else, or a value of a schema's plain type.
    Text,
    /// A number is a moment, or a length of time.
    Moment(Moment),
    /// A number is a year, and no days.
    Year,
    /// A text with a zone; Debezium's limits of time stand for infinity.
    Zoned,
    /// A string is bytes in base64.
    Bytes(Alphabet),
    /// A string is bytes in hexadecimal digits.
    Hex,
    /// A string is the base64 of bits, the lowest byte first; their number, if known.
    Bits(Option<u32>),
    /// A string is the base64 of an unscaled number; its scale, if known. An object has both, as
    /// members `scale` and `value`.
    Decimal(Option<i32>),
    /// The same, but a string may as well be a decimal text.
    DecimalOrText(Option<i32>),
    /// A string is the text of JSON, whose value is to be read.
    Embedded(Box<Form>),
    /// The form of an array's elements.
    Array(Box<Form>),
    /// The form of an object's values, by name.
    Struct(Vec<(String, Form)>),
    /// The form of an object's values.
    Map(Box<Form>),
    /// The same object as Kafka Connect writes it where keys are no texts: pairs of both.
    Pairs(Box<(Form, Form)>),
    /// A column of maps: the form of the values of the object.
    Entries(Box<Form>),
    /// A composite column's fields: name in the message, position in the column, form.
    Fields(Vec<(String, usize, Form)>),
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Days since 1970-01-01.
    Date,
    /// Since midnight.
    Time(Unit),
    /// Since 1970-01-01.
    Timestamp(Unit),
    /// A length of time.
    Duration(Unit),
}

/// What a moment is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// Microseconds of `count` of these, halves to the even one; `None` beyond 64 bits.
    #[inline]
    pub fn micros(self, count: i64) -> Option<i64> {
        match self {
            Unit::Millis => count.checked_mul(1_000),
            Unit::Micros => Some(count),
            Unit::Nanos => {
                let (whole, rest) = (count.div_euclid(1_000), count.rem_euclid(1_000));
                let up = rest > 500 || rest == 500 && whole % 2 != 0;
                Some(whole + i64::from(up))
            }
        }
    }
}

impl Form {
    /// Whether nothing in it differs from plain JSON.
    pub fn is_plain(&self) -> bool {
        match self {
            Form::Declared | Form::Text | Form::Year | Form::Zoned => true,
            Form::Array(form) | Form::Map(form) => form.is_plain(),
            Form::Struct(fields) => fields.iter().all(|(_, form)| form.is_plain()),
            Form::Pairs(pair) => pair.0.is_plain() && pair.1.is_plain(),
            _ => false,
        }
    }

    /// Whether a column of type `data_type` reads every value in this form as it does without one.
    pub fn is_default_of(&self, data_type: &DataType) -> bool {
        use DataType as D;
        let is_time = matches!(
            data_type,
            D::Date32 | D::Time64(_) | D::Timestamp(..) | D::Interval(_)
        );
        match (self, data_type) {
            (
                Form::Array(_) | Form::Fields(_) | Form::Entries(_),
                D::List(_) | D::Struct(_) | D::Map(..),
            ) => false,
            (Form::Declared | Form::Text, _) => true,
            (Form::Year, _) => !is_time,
            (Form::Zoned, _) => !matches!(data_type, D::Timestamp(..)),
            (Form::Moment(Moment::Date), D::Date32)
            | (Form::Moment(Moment::Time(Unit::Micros)), D::Time64(_))
            | (Form::Moment(Moment::Duration(Unit::Micros)), D::Interval(_)) => true,
            (Form::Moment(_), _) => {
                !is_time && !matches!(data_type, D::Utf8 | D::LargeUtf8 | D::BinaryView)
            }
            (Form::Embedded(_), D::Utf8 | D::LargeUtf8) => true,
            (Form::Array(_) | Form::Struct(_) | Form::Map(_) | Form::Pairs(_), D::BinaryView) => {
                self.is_plain()
            }
            (Form::Array(_) | Form::Struct(_) | Form::Map(_) | Form::Pairs(_), _) => true,
            _ => false,
        }
    }
}

/// What the source says of values without a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Declarations {
    debezium: bool,
    decimals: Decimals,
    times: Times,
    binaries: Binaries,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decimals {
    Unsaid,
    Precise,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Unsaid,
    Adaptive,
    AdaptiveTimeMicroseconds,
    One(Unit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binaries {
    Unsaid,
    Base64(Alphabet),
    Hex,
}

/// The options of ENCODE JSON that declare forms.
pub(crate) const OPTIONS: [&str; 3] = [
    "decimal.handling.mode",
    "time.precision.mode",
    "binary.handling.mode",
];

impl Declarations {
    /// Those of `spec`; `22023` for values that Debezium does not have.
    pub fn of(spec: &ConnectorSpec) -> Result<Declarations> {
        let [decimals, times, binaries] = OPTIONS;
        Ok(Declarations {
            debezium: spec.format == Format::Debezium,
            decimals: choice(
                spec,
                decimals,
                Decimals::Unsaid,
                &[
                    ("precise", Decimals::Precise),
                    ("double", Decimals::Text),
                    ("string", Decimals::Text),
                ],
            )?,
            times: choice(
                spec,
                times,
                Times::Unsaid,
                &[
                    ("adaptive", Times::Adaptive),
                    (
                        "adaptive_time_microseconds",
                        Times::AdaptiveTimeMicroseconds,
                    ),
                    ("connect", Times::One(Unit::Millis)),
                    ("isostring", Times::Unsaid),
                    ("microseconds", Times::One(Unit::Micros)),
                    ("nanoseconds", Times::One(Unit::Nanos)),
                ],
            )?,
            binaries: choice(
                spec,
                binaries,
                Binaries::Unsaid,
                &[
                    ("bytes", Binaries::Base64(Alphabet::Standard)),
                    ("base64", Binaries::Base64(Alphabet::Standard)),
                    ("base64-url-safe", Binaries::Base64(Alphabet::Url)),
                    ("hex", Binaries::Hex),
                ],
            )?,
        })
    }

    /// How `column` reads a value of whose form `schema` says all that is known.
    pub fn bind(&self, schema: &Form, column: &Column) -> Form {
        self.bind_type(schema, &column.data_type, &column.sql_type)
    }

    fn bind_type(&self, schema: &Form, data_type: &DataType, sql_type: &str) -> Form {
        match (data_type, schema) {
            (
                DataType::List(_) | DataType::Struct(_) | DataType::Map(..),
                Form::Embedded(inner),
            ) => Form::Embedded(Box::new(self.bind_type(inner, data_type, sql_type))),
            (DataType::List(item), _) => {
                let schema = match schema {
                    Form::Array(form) => form,
                    _ => schema,
                };
                let item_type = sql_type.trim_end_matches("[]");
                let items = self.bind_type(schema, item.data_type(), item_type);
                self.embedded(schema, Form::Array(Box::new(items)))
            }
            (DataType::Map(..), _) if let Some((_, value)) = map_parts(data_type) => {
                let form = match schema {
                    Form::Map(form) => form,
                    _ => &Form::Declared,
                };
                let values = self.bind_type(form, value.data_type(), "");
                self.embedded(schema, Form::Entries(Box::new(values)))
            }
            (DataType::Struct(children), _) => {
                let child = |name: &str| {
                    let exact = children.iter().position(|child| child.name() == name);
                    exact.or_else(|| {
                        let same = |a: &str| a.to_lowercase() == name.to_lowercase();
                        children.iter().position(|child| same(child.name()))
                    })
                };
                let bound = |name: &str, at: usize, form: &Form| {
                    let form = self.bind_type(form, children[at].data_type(), "");
                    (name.to_owned(), at, form)
                };
                let fields = match schema {
                    Form::Struct(fields) => fields
                        .iter()
                        .filter_map(|(name, form)| Some(bound(name, child(name)?, form)))
                        .collect(),
                    _ => (children.iter().enumerate())
                        .map(|(at, child)| bound(child.name(), at, &Form::Declared))
                        .collect(),
                };
                self.embedded(schema, Form::Fields(fields))
            }
            (DataType::Binary, Form::Text) => match self.binaries {
                Binaries::Unsaid => Form::Text,
                _ => self.declared(data_type, sql_type),
            },
            (_, Form::Declared) => self.declared(data_type, sql_type),
            _ => schema.clone(),
        }
    }

    /// Without a schema Debezium's JSON columns are strings.
    fn embedded(&self, schema: &Form, form: Form) -> Form {
        if self.debezium && *schema == Form::Declared {
            Form::Embedded(Box::new(form))
        } else {
            form
        }
    }

    /// The form of a value without a schema.
    fn declared(&self, data_type: &DataType, sql_type: &str) -> Form {
        match data_type {
            DataType::BinaryView => self.embedded(&Form::Declared, Form::Declared),
            DataType::Binary => match self.binaries {
                Binaries::Base64(alphabet) => Form::Bytes(alphabet),
                Binaries::Hex => Form::Hex,
                Binaries::Unsaid if self.debezium => Form::Bytes(Alphabet::Standard),
                Binaries::Unsaid => Form::Declared,
            },
            DataType::Decimal128(_, scale) => self.decimal(Some(i32::from(*scale))),
            DataType::LargeBinary => self.decimal(None),
            DataType::Time64(_) => self
                .unit(sql_type, true)
                .map_or(Form::Declared, |unit| Form::Moment(Moment::Time(unit))),
            DataType::Timestamp(..) => self
                .unit(sql_type, false)
                .map_or(Form::Declared, |unit| Form::Moment(Moment::Timestamp(unit))),
            _ => Form::Declared,
        }
    }

    fn decimal(&self, scale: Option<i32>) -> Form {
        match self.decimals {
            Decimals::Precise => Form::Decimal(scale),
            Decimals::Unsaid if self.debezium => Form::DecimalOrText(scale),
            _ => Form::Declared,
        }
    }

    /// What the numbers of a type count, if that is said.
    fn unit(&self, sql_type: &str, time: bool) -> Option<Unit> {
        let digits = fraction_digits(sql_type);
        let by_digits = |digits| match digits {
            0..=3 => Unit::Millis,
            _ => Unit::Micros,
        };
        match self.times {
            Times::One(unit) => Some(unit),
            Times::AdaptiveTimeMicroseconds if time => Some(Unit::Micros),
            Times::Adaptive | Times::AdaptiveTimeMicroseconds => {
                Some(by_digits(digits.unwrap_or(6)))
            }
            Times::Unsaid if self.debezium => digits.map(by_digits),
            Times::Unsaid => None,
        }
    }
}

/// The n of `timestamp(n)`, `time(n)` and `interval(n)`.
pub(super) fn fraction_digits(sql_type: &str) -> Option<u32> {
    let (name, rest) = sql_type.split_once('(')?;
    let digits = rest.split_once(')')?.0.trim();
    let name = name.to_ascii_lowercase();
    let counts = name.starts_with("time") || name.starts_with("interval");
    counts.then(|| digits.parse().ok())?
}

/// The options of ENCODE JSON of a sink that make schemas.
pub(crate) const SINK_OPTIONS: [&str; 2] = ["schemas.enable", "time.precision.mode"];

/// The unit of times in a sink's schemas; `None` without schemas. `22023` for other values than
/// those that there are.
pub(crate) fn sink_schemas(spec: &ConnectorSpec) -> Result<Option<Unit>> {
    let [enable, mode] = SINK_OPTIONS;
    let enabled = choice(spec, enable, false, &[("true", true), ("false", false)])?;
    let units = [("microseconds", Unit::Micros), ("connect", Unit::Millis)];
    let unit = choice(spec, mode, Unit::Micros, &units)?;
    if !enabled && spec.encode_options.contains_key(mode) {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"{mode}\" of a sink needs {enable} = 'true'"),
        ));
    }
    Ok(enabled.then_some(unit))
}

/// The value of an option of ENCODE, in any case.
pub(super) fn choice<T: Copy>(
    spec: &ConnectorSpec,
    name: &str,
    unsaid: T,
    choices: &[(&str, T)],
) -> Result<T> {
    let Some(text) = spec.encode_options.get(name) else {
        return Ok(unsaid);
    };
    let found = choices
        .iter()
        .find(|(choice, _)| choice.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"{name}\" cannot be '{text}'"),
        )
        .with_hint(format!("Use one of: {}.", names.join(", ")))
    })
}
