//! PostgreSQL's functions of byte strings, on [`tidemark_values::bytea`].

use super::arguments::{Byteas, Takes, Texts, Values, byteas, taken, texts, values};
use super::definition::*;
use super::quantified::Compare;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, StringArray, StringBuilder,
};
use arrow::compute::kernels::comparison;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_values::bytea::{self, Encoding};

use Takes::{Bytea, Int4, Int8, Text};

type Kernel = fn(&ScalarFunctionArgs) -> Result<ColumnarValue>;

fn function(
    name: &'static str,
    takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    returns: fn(&[DataType]) -> DataType,
    evaluate: Kernel,
) -> Definition {
    Definition {
        name,
        aliases: &[],
        takes,
        returns,
        evaluate,
    }
}

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all = bytes_and_bits();
    all.extend(as_texts());
    all.extend(lengths());
    all.extend(matches());
    all.extend([
        function(
            "bytealike",
            |t| taken(t, 2, &[Bytea, Bytea]),
            |_| DataType::Boolean,
            |a| like(a, true),
        ),
        function(
            "byteanlike",
            |t| taken(t, 2, &[Bytea, Bytea]),
            |_| DataType::Boolean,
            |a| like(a, false),
        ),
    ]);
    all
}

/// What LIKE and its like are called as functions.
fn matches() -> Vec<Definition> {
    fn either(types: &[DataType]) -> Option<Vec<DataType>> {
        taken(types, 2, &[Text, Text]).or_else(|| taken(types, 2, &[Bytea, Bytea]))
    }
    let matching = |name, alias: &'static [&'static str], evaluate| Definition {
        aliases: alias,
        ..function(name, either, |_| DataType::Boolean, evaluate)
    };
    vec![
        matching("like", &["textlike"], |a| match is_bytea(a) {
            true => like(a, true),
            false => text_like(a, comparison::like, false),
        }),
        matching("notlike", &["textnlike"], |a| match is_bytea(a) {
            true => like(a, false),
            false => text_like(a, comparison::nlike, false),
        }),
        matching("texticlike", &[], |a| text_like(a, comparison::ilike, true)),
        matching("texticnlike", &[], |a| {
            text_like(a, comparison::nilike, true)
        }),
    ]
}

fn text_like(args: &ScalarFunctionArgs, compare: Compare, any_case: bool) -> Result<ColumnarValue> {
    let (texts, patterns) = (column(args, 0)?, column(args, 1)?);
    let matches = compare(&texts, &patterns)?;
    for row in (0..matches.len()).filter(|row| matches.is_valid(*row)) {
        check_escape(&texts, &patterns, row, any_case)?;
    }
    result(args, Arc::new(matches))
}

/// `22025` where matching comes to an escape at the end of a pattern: Arrow takes it for itself,
/// PostgreSQL fails once it has come that far.
pub(super) fn check_escape(
    texts: &ArrayRef,
    patterns: &ArrayRef,
    row: usize,
    any_case: bool,
) -> Result<()> {
    let (text, pattern) = (text_at(texts, row), text_at(patterns, row));
    if !ends_in_escape(pattern) {
        return Ok(());
    }
    let letters = |text: &str| -> Vec<char> {
        if any_case {
            text.to_lowercase().chars().collect()
        } else {
            text.chars().collect()
        }
    };
    bytea::like(&letters(text), &letters(pattern)).map_err(external)?;
    Ok(())
}

fn text_at(texts: &ArrayRef, row: usize) -> &str {
    match texts.data_type() {
        DataType::LargeUtf8 => texts.as_string::<i64>().value(row),
        _ => texts.as_string::<i32>().value(row),
    }
}

/// Whether a pattern ends with a backslash that stands for nothing.
fn ends_in_escape(pattern: &str) -> bool {
    let kept = pattern.trim_end_matches('\\').len();
    (pattern.len() - kept) % 2 == 1
}

fn bytes_and_bits() -> Vec<Definition> {
    let int4 = |_: &[DataType]| DataType::Int32;
    let binary = |_: &[DataType]| DataType::Binary;
    vec![
        function("get_byte", |t| taken(t, 2, &[Bytea, Int4]), int4, get_byte),
        function("get_bit", |t| taken(t, 2, &[Bytea, Int8]), int4, get_bit),
        function(
            "set_byte",
            |t| taken(t, 3, &[Bytea, Int4, Int4]),
            binary,
            set_byte,
        ),
        function(
            "set_bit",
            |t| taken(t, 3, &[Bytea, Int8, Int4]),
            binary,
            set_bit,
        ),
        function(
            "bit_count",
            |t| taken(t, 1, &[Bytea]),
            |_| DataType::Int64,
            bit_count,
        ),
    ]
}

fn as_texts() -> Vec<Definition> {
    let text = |_: &[DataType]| DataType::Utf8;
    let binary = |_: &[DataType]| DataType::Binary;
    vec![
        function("encode", |t| taken(t, 2, &[Bytea, Text]), text, encode),
        function("decode", |t| taken(t, 2, &[Text, Text]), binary, decode),
        function(
            "convert_from",
            |t| taken(t, 2, &[Bytea, Text]),
            text,
            convert_from,
        ),
        function(
            "convert_to",
            |t| taken(t, 2, &[Text, Text]),
            binary,
            convert_to,
        ),
    ]
}

/// Functions of texts and of bytes: those of bytes are here, the others are DataFusion's.
fn lengths() -> Vec<Definition> {
    let int4 = |_: &[DataType]| DataType::Int32;
    let trims = |types: &[DataType]| {
        taken(types, 1, &[Text, Text]).or_else(|| taken(types, 2, &[Bytea, Bytea]))
    };
    let one = |types: &[DataType]| taken(types, 1, &[Text]).or_else(|| taken(types, 1, &[Bytea]));
    let positions = |types: &[DataType]| {
        taken(types, 2, &[Text, Text]).or_else(|| taken(types, 2, &[Bytea, Bytea]))
    };
    let like_first = |types: &[DataType]| types[0].clone();
    vec![
        Definition {
            aliases: &["char_length", "character_length"],
            ..function("length", one, int4, |a| size(a, 1, true))
        },
        function("octet_length", one, int4, |a| size(a, 1, false)),
        function("bit_length", one, int4, |a| size(a, 8, false)),
        function("ltrim", trims, like_first, |a| trim(a, true, false)),
        function("rtrim", trims, like_first, |a| trim(a, false, true)),
        Definition {
            aliases: &["trim"],
            ..function("btrim", trims, like_first, |a| trim(a, true, true))
        },
        function("strpos", positions, int4, position),
        function("position", positions, int4, position),
    ]
}

fn get_byte(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, at) = (Byteas::of(args, 0)?, Values::<Int32Type>::of(args, 1)?);
    values::<Int32Type>(args, |row| {
        let found = given.get(row).zip(at.get(row));
        found
            .map(|(b, at)| bytea::get_byte(b, at))
            .transpose()
            .map_err(external)
    })
}

fn get_bit(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, at) = (Byteas::of(args, 0)?, Values::<Int64Type>::of(args, 1)?);
    values::<Int32Type>(args, |row| {
        let found = given.get(row).zip(at.get(row));
        found
            .map(|(b, at)| bytea::get_bit(b, at))
            .transpose()
            .map_err(external)
    })
}

fn set_byte(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, at) = (Byteas::of(args, 0)?, Values::<Int32Type>::of(args, 1)?);
    let new = Values::<Int32Type>::of(args, 2)?;
    byteas(args, |row, out| {
        let (Some(bytes), Some(at), Some(new)) = (given.get(row), at.get(row), new.get(row)) else {
            return Ok(false);
        };
        out.extend_from_slice(bytes);
        bytea::set_byte(out, at, new).map_err(external)?;
        Ok(true)
    })
}

fn set_bit(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, at) = (Byteas::of(args, 0)?, Values::<Int64Type>::of(args, 1)?);
    let new = Values::<Int32Type>::of(args, 2)?;
    byteas(args, |row, out| {
        let (Some(bytes), Some(at), Some(new)) = (given.get(row), at.get(row), new.get(row)) else {
            return Ok(false);
        };
        out.extend_from_slice(bytes);
        bytea::set_bit(out, at, new).map_err(external)?;
        Ok(true)
    })
}

fn bit_count(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = Byteas::of(args, 0)?;
    let count = |bytes: &[u8]| bytes.iter().map(|b| i64::from(b.count_ones())).sum();
    values::<Int64Type>(args, |row| Ok(given.get(row).map(count)))
}

fn encode(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, names) = (Byteas::of(args, 0)?, Texts::of(args, 1)?);
    texts(args, |row, out| {
        let Some((bytes, name)) = given.get(row).zip(names.get(row)) else {
            return Ok(false);
        };
        Encoding::named(name).map_err(external)?.encode(bytes, out);
        Ok(true)
    })
}

fn decode(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, names) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    byteas(args, |row, out| {
        let Some((text, name)) = given.get(row).zip(names.get(row)) else {
            return Ok(false);
        };
        let encoding = Encoding::named(name).map_err(external)?;
        encoding.decode(text, out).map_err(external)?;
        Ok(true)
    })
}

fn convert_from(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, names) = (Byteas::of(args, 0)?, Texts::of(args, 1)?);
    texts(args, |row, out| {
        let Some((bytes, name)) = given.get(row).zip(names.get(row)) else {
            return Ok(false);
        };
        bytea::check_encoding(name, "source").map_err(external)?;
        out.push_str(bytea::to_text(bytes).map_err(external)?);
        Ok(true)
    })
}

fn convert_to(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, names) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    byteas(args, |row, out| {
        let Some((text, name)) = given.get(row).zip(names.get(row)) else {
            return Ok(false);
        };
        bytea::check_encoding(name, "destination").map_err(external)?;
        out.extend_from_slice(text.as_bytes());
        Ok(true)
    })
}

fn is_bytea(args: &ScalarFunctionArgs) -> bool {
    args.args[0].data_type() == DataType::Binary
}

/// A length in characters or bytes, of so many units.
fn size(args: &ScalarFunctionArgs, units: i64, characters: bool) -> Result<ColumnarValue> {
    let fits = |n: usize| {
        i32::try_from(n as i64 * units).map_err(|_| {
            failure(
                tidemark_common::SqlState::NUMERIC_OUT_OF_RANGE,
                "integer out of range",
            )
        })
    };
    if is_bytea(args) {
        let given = Byteas::of(args, 0)?;
        return values::<Int32Type>(args, |row| {
            given.get(row).map(|b| fits(b.len())).transpose()
        });
    }
    let given = Texts::of(args, 0)?;
    let count = |t: &str| {
        if characters {
            t.chars().count()
        } else {
            t.len()
        }
    };
    values::<Int32Type>(args, |row| {
        given.get(row).map(|t| fits(count(t))).transpose()
    })
}

/// `substring` by numbers.
pub(super) fn substring(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = Byteas::of(args, 0)?;
    let starts = Values::<Int32Type>::of(args, 1)?;
    let lengths = Values::<Int32Type>::optional(args, 2)?;
    byteas(args, |row, out| {
        let length = lengths.as_ref().map(|l| l.get(row));
        let (Some(bytes), Some(start), false) =
            (given.get(row), starts.get(row), length == Some(None))
        else {
            return Ok(false);
        };
        let part = bytea::substring(bytes, start, length.flatten()).map_err(external)?;
        out.extend_from_slice(part);
        Ok(true)
    })
}

/// `overlay`.
pub(super) fn overlay(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, new) = (Byteas::of(args, 0)?, Byteas::of(args, 1)?);
    let starts = Values::<Int32Type>::of(args, 2)?;
    let lengths = Values::<Int32Type>::optional(args, 3)?;
    byteas(args, |row, out| {
        let length = lengths.as_ref().map(|l| l.get(row));
        let (Some(bytes), Some(new), Some(start), false) = (
            given.get(row),
            new.get(row),
            starts.get(row),
            length == Some(None),
        ) else {
            return Ok(false);
        };
        bytea::overlay(bytes, new, start, length.flatten(), out).map_err(external)?;
        Ok(true)
    })
}

/// `ltrim`, `rtrim`, `btrim`; of texts, blanks if no set is given.
fn trim(args: &ScalarFunctionArgs, start: bool, end: bool) -> Result<ColumnarValue> {
    if is_bytea(args) {
        let (given, sets) = (Byteas::of(args, 0)?, Byteas::of(args, 1)?);
        return byteas(args, |row, out| {
            let Some((bytes, set)) = given.get(row).zip(sets.get(row)) else {
                return Ok(false);
            };
            out.extend_from_slice(bytea::trim(bytes, set, start, end));
            Ok(true)
        });
    }
    let (given, sets) = (Texts::of(args, 0)?, Texts::optional(args, 1)?);
    texts(args, |row, out| {
        let set = sets.as_ref().map_or(Some(" "), |s| s.get(row));
        let Some((mut text, set)) = given.get(row).zip(set) else {
            return Ok(false);
        };
        if start {
            text = text.trim_start_matches(|c| set.contains(c));
        }
        if end {
            text = text.trim_end_matches(|c| set.contains(c));
        }
        out.push_str(text);
        Ok(true)
    })
}

/// `strpos` and `position`.
fn position(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if is_bytea(args) {
        let (given, wanted) = (Byteas::of(args, 0)?, Byteas::of(args, 1)?);
        return values::<Int32Type>(args, |row| {
            let found = given.get(row).zip(wanted.get(row));
            Ok(found.map(|(bytes, wanted)| bytea::position(bytes, wanted)))
        });
    }
    let (given, wanted) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    values::<Int32Type>(args, |row| {
        Ok(given.get(row).zip(wanted.get(row)).map(|(text, wanted)| {
            text.find(wanted)
                .map_or(0, |at| text[..at].chars().count() as i32 + 1)
        }))
    })
}

fn like(args: &ScalarFunctionArgs, wanted: bool) -> Result<ColumnarValue> {
    let (given, patterns) = (Byteas::of(args, 0)?, Byteas::of(args, 1)?);
    let found = (0..rows(args))
        .map(|row| {
            let pair = given.get(row).zip(patterns.get(row));
            pair.map(|(bytes, pattern)| Ok(bytea::like(bytes, pattern)? == wanted))
                .transpose()
                .map_err(external)
        })
        .collect::<Result<BooleanArray>>()?;
    result(args, Arc::new(found))
}

/// Byte strings in their text form.
pub(super) fn to_texts(bytes: &BinaryArray) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(bytes.len(), 2 * bytes.values().len() + bytes.len());
    let mut text = String::new();
    for bytes in bytes {
        text.clear();
        bytes.iter().for_each(|b| bytea::write(b, &mut text));
        out.append_option(bytes.map(|_| text.as_str()));
    }
    Arc::new(out.finish())
}

/// Byte strings of their text forms.
pub(super) fn of_texts(texts: &StringArray) -> Result<ArrayRef> {
    let mut out = BinaryBuilder::with_capacity(texts.len(), texts.values().len() / 2);
    let mut bytes = Vec::new();
    for text in texts {
        bytes.clear();
        if let Some(text) = text {
            bytea::read(text, &mut bytes).map_err(external)?;
        }
        out.append_option(text.map(|_| bytes.as_slice()));
    }
    Ok(Arc::new(out.finish()))
}
