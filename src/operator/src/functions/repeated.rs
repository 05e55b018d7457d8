//! `repeat` and `replace`: texts that are many times as long as what they are made of. Each tells
//! the length before it makes a text, and looks on the way whether anybody still waits.

use super::arguments::{Takes, Texts, Values, taken, texts};
use super::bounded::check_bytes;
use super::definition::*;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::cell::Cell;

use Takes::{Int8, Text};

/// Bytes that are read or written before it is looked again whether anybody waits.
const STRETCH: usize = 1 << 20;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "repeat",
            aliases: &[],
            takes: |t| taken(t, 2, &[Text, Int8]),
            returns: |_| DataType::Utf8,
            evaluate: repeat,
        },
        Definition {
            name: "replace",
            aliases: &[],
            takes: |t| taken(t, 3, &[Text, Text, Text]),
            returns: |_| DataType::Utf8,
            evaluate: replace,
        },
    ]
}

fn repeat(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, times) = (Texts::of(args, 0)?, Values::<Int64Type>::of(args, 1)?);
    let made = Cell::new(0u64);
    texts(args, |row, out| {
        let Some((text, times)) = given.get(row).zip(times.get(row)) else {
            return Ok(false);
        };
        let times = u64::try_from(times).unwrap_or(0);
        let bytes = (text.len() as u64).saturating_mul(times);
        made.set(made.get().saturating_add(bytes));
        check_bytes(made.get())?;
        append(text, bytes as usize, out)?;
        Ok(true)
    })
}

/// Appends `bytes` bytes of a text that begins anew whenever it ends.
fn append(text: &str, bytes: usize, out: &mut String) -> Result<()> {
    out.reserve_exact(bytes);
    let end = out.len() + bytes;
    // As many at once as make a stretch.
    let several = text.repeat(
        (STRETCH / text.len().max(1))
            .min(bytes / text.len().max(1))
            .max(1),
    );
    while end - out.len() >= several.len() && !several.is_empty() {
        wanted()?;
        out.push_str(&several);
    }
    out.push_str(&several[..end - out.len()]);
    Ok(())
}

fn replace(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, from, to) = (
        Texts::of(args, 0)?,
        Texts::of(args, 1)?,
        Texts::of(args, 2)?,
    );
    let made = Cell::new(0u64);
    texts(args, |row, out| {
        let (Some(text), Some(from), Some(to)) = (given.get(row), from.get(row), to.get(row))
        else {
            return Ok(false);
        };
        let mut places = 0u64;
        places_of(text, from, |_| {
            places += 1;
            Ok(())
        })?;
        let more = (to.len() as u64).saturating_mul(places);
        let bytes = (text.len() as u64 - from.len() as u64 * places).saturating_add(more);
        made.set(made.get().saturating_add(bytes));
        check_bytes(made.get())?;
        out.reserve_exact(bytes as usize);
        let (mut copied, mut looked) = (0, 0);
        places_of(text, from, |at| {
            out.push_str(&text[copied..at]);
            out.push_str(to);
            copied = at + from.len();
            if out.len() - looked >= STRETCH {
                looked = out.len();
                wanted()?;
            }
            Ok(())
        })?;
        out.push_str(&text[copied..]);
        Ok(true)
    })
}

/// Where in a text another one is, from the left and not within each other; an empty one is
/// nowhere.
fn places_of(text: &str, part: &str, mut found: impl FnMut(usize) -> Result<()>) -> Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    let mut from = 0;
    while from + part.len() <= text.len() {
        wanted()?;
        // A stretch, and as much more as a place that begins in it may need.
        let last = text.ceil_char_boundary(from + STRETCH);
        let end = text.ceil_char_boundary(last + part.len() - 1);
        let mut next = last;
        for (at, _) in text[from..end].match_indices(part) {
            let at = from + at;
            if at >= last {
                break;
            }
            found(at)?;
            next = next.max(at + part.len());
        }
        from = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use datafusion_common::ScalarValue;
    use datafusion_common::config::ConfigOptions;
    use std::sync::Arc;

    fn places(text: &str, part: &str) -> Vec<usize> {
        let mut all = Vec::new();
        places_of(text, part, |at| {
            all.push(at);
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn places_are_found_across_stretches() {
        let cases = [
            ("ab".repeat(STRETCH), "ab"),
            ("aaa".repeat(STRETCH), "aaaa"),
            (
                format!("{}äöä{}", "x".repeat(STRETCH - 3), "ä".repeat(STRETCH)),
                "öä",
            ),
            (format!("x{}", "äö".repeat(STRETCH)), "öä"),
            ("x".repeat(3 * STRETCH), "y"),
            (format!("{}y", "x".repeat(STRETCH)), &"x".repeat(STRETCH)),
            ("abc".into(), "abcd"),
            (String::new(), "a"),
        ];
        for (text, part) in cases {
            let expected: Vec<usize> = text.match_indices(part).map(|(at, _)| at).collect();
            assert_eq!(
                places(&text, part),
                expected,
                "{} of {part:.20}",
                text.len()
            );
        }
        assert_eq!(places("abc", ""), Vec::<usize>::new());
    }

    fn call(name: &str, values: Vec<ScalarValue>, rows: usize) -> Result<String> {
        let args: Vec<ColumnarValue> = values.into_iter().map(ColumnarValue::Scalar).collect();
        let fields = args.iter();
        let fields = fields.map(|a| Arc::new(Field::new("a", a.data_type(), true)));
        let call = ScalarFunctionArgs {
            arg_fields: fields.collect(),
            args,
            number_rows: rows,
            return_field: Arc::new(Field::new("r", DataType::Utf8, true)),
            config_options: Arc::new(ConfigOptions::new()),
        };
        let made = crate::functions::lookup(name).unwrap();
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))) = made.invoke_with_args(call)?
        else {
            panic!("a text is made of texts");
        };
        Ok(text)
    }

    fn text(text: impl Into<String>) -> ScalarValue {
        ScalarValue::Utf8(Some(text.into()))
    }

    fn number(n: i64) -> ScalarValue {
        ScalarValue::Int64(Some(n))
    }

    #[test]
    fn texts_are_repeated_and_replaced() {
        let repeated = |t: &str, n| call("repeat", vec![text(t), number(n)], 1).unwrap();
        assert_eq!(repeated("äb", 3), "äbäbäb");
        assert_eq!(repeated("äb", -3), "");
        assert_eq!(repeated("", i64::MAX), "");
        let n = STRETCH + 7;
        assert_eq!(repeated("abc", n as i64), "abc".repeat(n));
        let replaced =
            |t: &str, a: &str, b: &str| call("replace", vec![text(t), text(a), text(b)], 1);
        assert_eq!(replaced("aXbXX", "X", "--").unwrap(), "a--b----");
        assert_eq!(replaced("abc", "", "x").unwrap(), "abc");
        assert_eq!(replaced("", "a", "x").unwrap(), "");
        let long = "ab".repeat(STRETCH);
        assert_eq!(replaced(&long, "ba", "").unwrap(), "ab");
    }

    #[test]
    fn sizes_are_told_before_anything_is_made() {
        let huge = "x".repeat(1 << 20);
        let refused = |name, values| {
            let e = call(name, values, 1).unwrap_err();
            assert!(crate::functions::is_too_large(&e), "{e}");
        };
        refused("repeat", vec![text(&huge), number(1025)]);
        refused("repeat", vec![text(&huge), number(i64::MAX)]);
        refused("replace", vec![text(&huge), text("x"), text(&huge)]);
        let found = call("replace", vec![text(&huge), text("y"), text(&huge)], 1);
        assert_eq!(found.unwrap(), huge);
    }
}
