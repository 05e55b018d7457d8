//! The types of SQL as calls see them.

use crate::types::{BPCHAR, JSONB, NUMERIC, UUID, sql_type_name};
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion_common::ScalarValue;
use std::fmt;
use std::sync::Arc;

/// A type, or a family of them in a signature. Lengths, precisions and scales do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    /// A quoted constant, or NULL.
    Unknown,
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// `text` and `varchar`.
    Text,
    Bpchar,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    /// `jsonb` and `json`.
    Jsonb,
    /// What signatures do not name: rows.
    Other,
    /// Parameters only: takes each argument as it is.
    Any,
    /// All of these are of one type.
    AnyElement,
    AnyArray,
    AnyNonArray,
    /// All of these are brought to one type.
    AnyCompatible,
    AnyCompatibleArray,
}

/// A type or an array of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Type {
    pub scalar: Scalar,
    pub array: bool,
}

/// Families of types, in each of which values may stand for each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Unknown,
    Bool,
    Number,
    Text,
    Moment,
    Span,
    Array,
    Other,
    Pseudo,
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub(crate) struct Arg {
    pub data_type: DataType,
    pub type_: Type,
    /// What a quoted constant says.
    quoted: Option<String>,
}

impl Arg {
    /// An argument of a type; `constant` is its value, if it is written as a constant.
    pub(crate) fn new(data_type: &DataType, constant: Option<&ScalarValue>) -> Arg {
        let quoted = matches!(constant, Some(ScalarValue::Utf8(_)));
        let type_ = if quoted || *data_type == DataType::Null {
            Type::scalar(Scalar::Unknown)
        } else {
            match constant {
                // Bound as `bigint`, it will be an `integer`.
                Some(ScalarValue::Int64(Some(v))) if i32::try_from(*v).is_ok() => {
                    Type::scalar(Scalar::Int4)
                }
                _ => Type::of(data_type),
            }
        };
        Arg {
            data_type: data_type.clone(),
            type_,
            quoted: match constant {
                Some(ScalarValue::Utf8(text)) => text.clone(),
                _ => None,
            },
        }
    }

    /// Whether a quoted constant would have another value, or other digits, as this type.
    pub(super) fn is_rounded_by(&self, to: &DataType) -> bool {
        let (Some(text), DataType::Decimal128(precision, scale)) = (&self.quoted, to) else {
            return false;
        };
        let text = text.trim().trim_start_matches(['+', '-']);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        let whole = whole.trim_start_matches('0');
        !plain(whole)
            || !plain(fraction)
            || i8::try_from(fraction.len()) != Ok(*scale)
            || whole.len() + fraction.len() > usize::from(*precision)
    }

    /// A `bigint` as an integer, an array of them as one of integers.
    pub(crate) fn narrowed(&self) -> Arg {
        let integer = DataType::Int32;
        match (self.type_.scalar, self.type_.array) {
            (Scalar::Int8, false) => Arg::new(&integer, None),
            (Scalar::Int8, true) => Arg::new(&DataType::new_list(integer, true), None),
            _ => self.clone(),
        }
    }

    /// Whether it is a row, or of a type that signatures do not name.
    pub(crate) fn is_record(&self) -> bool {
        self.type_.scalar == Scalar::Other
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.type_.scalar == Scalar::Unknown
    }
}

impl Type {
    pub(super) const fn scalar(scalar: Scalar) -> Type {
        Type {
            scalar,
            array: false,
        }
    }

    /// The type of values that Arrow has as `data_type`.
    pub(crate) fn of(data_type: &DataType) -> Type {
        if let DataType::List(item) | DataType::LargeList(item) = data_type {
            let item = Type::of(item.data_type());
            return Type {
                scalar: if item.array {
                    Scalar::Other
                } else {
                    item.scalar
                },
                array: true,
            };
        }
        Type::scalar(match data_type {
            DataType::Null => Scalar::Unknown,
            DataType::Boolean => Scalar::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Scalar::Int2,
            DataType::Int32 | DataType::UInt16 => Scalar::Int4,
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Scalar::Int8,
            DataType::Float16 | DataType::Float32 => Scalar::Float4,
            DataType::Float64 => Scalar::Float8,
            DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => Scalar::Numeric,
            t if *t == NUMERIC => Scalar::Numeric,
            t if *t == JSONB => Scalar::Jsonb,
            t if *t == BPCHAR => Scalar::Bpchar,
            t if *t == UUID => Scalar::Uuid,
            DataType::Utf8 | DataType::Utf8View => Scalar::Text,
            DataType::Binary => Scalar::Bytea,
            DataType::Date32 | DataType::Date64 => Scalar::Date,
            DataType::Time32(_) | DataType::Time64(_) => Scalar::Time,
            DataType::Timestamp(_, None) => Scalar::Timestamp,
            DataType::Timestamp(_, Some(_)) => Scalar::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => Scalar::Interval,
            _ => Scalar::Other,
        })
    }

    /// The type that Arrow has for it; `None` of what only signatures say.
    pub(crate) fn arrow(self) -> Option<DataType> {
        let scalar = match self.scalar {
            Scalar::Bool => DataType::Boolean,
            Scalar::Int2 => DataType::Int16,
            Scalar::Int4 => DataType::Int32,
            Scalar::Int8 => DataType::Int64,
            Scalar::Float4 => DataType::Float32,
            Scalar::Float8 => DataType::Float64,
            Scalar::Numeric => NUMERIC,
            Scalar::Text => DataType::Utf8,
            Scalar::Bpchar => BPCHAR,
            Scalar::Bytea => DataType::Binary,
            Scalar::Date => DataType::Date32,
            Scalar::Time => DataType::Time64(TimeUnit::Microsecond),
            Scalar::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Scalar::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Scalar::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Scalar::Uuid => UUID,
            Scalar::Jsonb => JSONB,
            _ => return None,
        };
        Some(if self.array { list_of(scalar) } else { scalar })
    }

    pub(super) fn category(self) -> Category {
        if self.array {
            return Category::Array;
        }
        match self.scalar {
            Scalar::Unknown => Category::Unknown,
            Scalar::Bool => Category::Bool,
            Scalar::Int2
            | Scalar::Int4
            | Scalar::Int8
            | Scalar::Float4
            | Scalar::Float8
            | Scalar::Numeric => Category::Number,
            Scalar::Text | Scalar::Bpchar => Category::Text,
            Scalar::Date | Scalar::Timestamp | Scalar::Timestamptz | Scalar::Time => {
                Category::Moment
            }
            Scalar::Interval => Category::Span,
            Scalar::Bytea | Scalar::Uuid | Scalar::Jsonb | Scalar::Other => Category::Other,
            _ => Category::Pseudo,
        }
    }

    /// Whether it is the one of its category that is taken when nothing else decides.
    pub(super) fn is_preferred(self) -> bool {
        let preferred = matches!(
            self.scalar,
            Scalar::Bool | Scalar::Float8 | Scalar::Text | Scalar::Timestamptz | Scalar::Interval
        );
        preferred && !self.array
    }

    /// Whether a value stands for one of type `to` without a cast that is written.
    pub(super) fn stands_for(self, to: Type) -> bool {
        use Scalar::*;
        if self == to || self.scalar == Unknown {
            return true;
        }
        if self.array && to.array {
            let item = |t: Type| Type { array: false, ..t };
            return item(self).stands_for(item(to));
        }
        if self.array || to.array {
            return false;
        }
        matches!(
            (self.scalar, to.scalar),
            (Int2, Int4 | Int8 | Float4 | Float8 | Numeric)
                | (Int4, Int8 | Float4 | Float8 | Numeric)
                | (Int8, Float4 | Float8 | Numeric)
                | (Numeric, Float4 | Float8)
                | (Float4, Float8)
                | (Date, Timestamp | Timestamptz)
                | (Timestamp, Timestamptz)
                | (Time, Interval)
                | (Text, Bpchar)
                | (Bpchar, Text)
        )
    }
}

/// Whether a value can be assigned to a type, as PostgreSQL's casts of assignment do it.
pub(crate) fn assigns(is: &Arg, to: &DataType) -> bool {
    use Category::{Moment, Number, Text};
    let to_type = Type::of(to);
    if is.is_unknown() || is.type_.stands_for(to_type) || is.data_type == *to {
        return true;
    }
    let (from, to) = (is.type_, to_type);
    if from.array != to.array {
        return to.category() == Text && from.scalar != Scalar::Other;
    }
    let item = |t: Type| Type { array: false, ..t };
    match (item(from).category(), item(to).category()) {
        (Number, Number) | (Text, Text) => true,
        (_, Text) => from.scalar != Scalar::Other,
        (Moment, Moment) => match (from.scalar, to.scalar) {
            (Scalar::Time, to) => to == Scalar::Time,
            (Scalar::Date, to) => to != Scalar::Time,
            _ => true,
        },
        _ => from == to || from.scalar == Scalar::Interval && to.scalar == Scalar::Time,
    }
}

/// An array of these.
pub(super) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// How messages call an argument's type.
pub(crate) fn type_text(arg: &Arg) -> String {
    if arg.is_unknown() {
        return "unknown".into();
    }
    if arg.type_.scalar == Scalar::Other {
        return sql_type_name(&arg.data_type);
    }
    arg.type_.to_string()
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.scalar {
            Scalar::Unknown => "unknown",
            Scalar::Bool => "boolean",
            Scalar::Int2 => "smallint",
            Scalar::Int4 => "integer",
            Scalar::Int8 => "bigint",
            Scalar::Float4 => "real",
            Scalar::Float8 => "double precision",
            Scalar::Numeric => "numeric",
            Scalar::Text => "text",
            Scalar::Bpchar => "character",
            Scalar::Bytea => "bytea",
            Scalar::Date => "date",
            Scalar::Time => "time without time zone",
            Scalar::Timestamp => "timestamp without time zone",
            Scalar::Timestamptz => "timestamp with time zone",
            Scalar::Interval => "interval",
            Scalar::Uuid => "uuid",
            Scalar::Jsonb => "jsonb",
            Scalar::Other => "record",
            Scalar::Any => "\"any\"",
            Scalar::AnyElement => "anyelement",
            Scalar::AnyArray => "anyarray",
            Scalar::AnyNonArray => "anynonarray",
            Scalar::AnyCompatible => "anycompatible",
            Scalar::AnyCompatibleArray => "anycompatiblearray",
        };
        write!(f, "{name}{}", if self.array { "[]" } else { "" })
    }
}
