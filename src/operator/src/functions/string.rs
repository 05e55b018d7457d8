//! Text: `regexp_extract`.

use super::definition::*;
use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use hashbrown::HashMap;
use regex::Regex;
use std::cell::RefCell;
use std::sync::Arc;
use tidemark_common::SqlState;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![Definition {
        name: "regexp_extract",
        aliases: &[],
        takes: |types| match types {
            [text, pattern] if is_text(text) && is_text(pattern) => Some(vec![DataType::Utf8; 2]),
            [text, pattern, group] if is_text(text) && is_text(pattern) && is_int(group) => {
                Some(vec![DataType::Utf8, DataType::Utf8, DataType::Int64])
            }
            _ => None,
        },
        returns: |_| DataType::Utf8,
        evaluate: regexp_extract,
    }]
}

/// Compiled expressions that a thread remembers.
const REGEX_MAX: usize = 64;

thread_local! {
    static REGEXES: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// The compiled form of a pattern, remembered per thread: the pattern of a job is compiled once,
/// not once per batch.
pub(super) fn regex(pattern: &str) -> Result<Regex> {
    REGEXES.with_borrow_mut(|known| {
        if let Some(regex) = known.get(pattern) {
            return Ok(regex.clone());
        }
        let compiled = Regex::new(pattern).map_err(|e| {
            failure(
                SqlState("2201B"),
                format!("invalid regular expression: {e}"),
            )
        })?;
        if known.len() >= REGEX_MAX {
            known.clear();
        }
        known.insert(pattern.to_string(), compiled.clone());
        Ok(compiled)
    })
}

/// A capture group (the first by default) of a pattern's first match; NULL without match.
fn regexp_extract(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let texts = array(args, 0)?;
    let texts = texts.as_string::<i32>();
    let group = if args.args.len() == 3 {
        constant_int(args, 2)
    } else {
        Some(Some(1))
    };
    let extracted = match (constant_text(args, 1), group) {
        (Some(None), _) | (_, Some(None)) => return null(&DataType::Utf8),
        (Some(Some(pattern)), Some(Some(group))) => extract(texts, &regex(pattern)?, group),
        _ => {
            let (patterns, groups) = (
                array(args, 1)?,
                if args.args.len() == 3 {
                    array(args, 2)?
                } else {
                    Arc::new(Int64Array::from(vec![1; texts.len()])) as ArrayRef
                },
            );
            let mut extracted = StringBuilder::new();
            for ((text, pattern), group) in texts
                .iter()
                .zip(patterns.as_string::<i32>())
                .zip(groups.as_primitive::<Int64Type>())
            {
                match (text, pattern, group) {
                    (Some(text), Some(pattern), Some(group)) => {
                        let captures = regex(pattern)?;
                        extracted.append_option(
                            captures
                                .captures(text)
                                .and_then(|c| c.get(group as usize))
                                .map(|m| m.as_str()),
                        );
                    }
                    _ => extracted.append_null(),
                }
            }
            extracted.finish()
        }
    };
    result(args, Arc::new(extracted))
}

fn extract(texts: &StringArray, regex: &Regex, group: i64) -> StringArray {
    let mut extracted = StringBuilder::with_capacity(texts.len(), texts.value_data().len() / 4);
    let mut places = regex.capture_locations();
    for text in texts {
        let found = text.and_then(|text| {
            regex
                .captures_read(&mut places, text)
                .and_then(|_| places.get(group as usize))
                .map(|(start, end)| &text[start..end])
        });
        extracted.append_option(found);
    }
    extracted.finish()
}
