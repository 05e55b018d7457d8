//! Questions about what is in a value: `?`, `?|`, `?&` and `@>`.
//!
//! `@>` may ask the same question of every element of an array for every element of another, at
//! every level: its time is bounded by the product of the two sizes. Nesting is a stack on the
//! heap.

use tidemark_common::error::Result;

use super::TextArray;
use super::format;
use super::value::{Elements, Kind, Pairs, Value};

/// `jsonb ? text`: whether the string is a key of the object, an element of the array, or the
/// scalar itself.
pub fn exists(value: Value<'_>, key: &str) -> Result<bool> {
    match value.kind()? {
        Kind::Object => Ok(value.get(key)?.is_some()),
        Kind::Array => {
            for element in value.elements()? {
                if element?.as_str()? == Some(key) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(value.as_str()? == Some(key)),
    }
}

/// `jsonb ?| text[]`: whether any of the strings exists. NULLs are passed over.
pub fn exists_any(value: Value<'_>, keys: &TextArray<'_>) -> Result<bool> {
    for key in keys.iter().flatten() {
        if exists(value, key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `jsonb ?& text[]`: whether all of the strings exist. NULLs are passed over.
pub fn exists_all(value: Value<'_>, keys: &TextArray<'_>) -> Result<bool> {
    for key in keys.iter().flatten() {
        if !exists(value, key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A comparison of two containers of the same kind that has begun.
enum Question<'a> {
    /// Every pair of the one must be in `within`.
    Object {
        within: Value<'a>,
        sought: Pairs<'a>,
    },
    /// Every element must be in `within`; `element` is sought among `candidates`.
    Array {
        within: Value<'a>,
        sought: Elements<'a>,
        element: Option<Value<'a>>,
        candidates: Elements<'a>,
    },
}

/// What a question does next.
enum Step<'a> {
    Answer(bool),
    /// Whether the first contains the second, two containers.
    Ask(Value<'a>, Value<'a>),
}

/// `a @> b`: whether `b` is in `a`. `b <@ a` is the same.
pub fn contains(a: Value<'_>, b: Value<'_>) -> Result<bool> {
    let (a_kind, b_kind) = (a.kind()?, b.kind()?);
    match (a_kind, b_kind) {
        (Kind::Array, b_kind) if b_kind.is_scalar() => return has_element(a, b),
        _ if a_kind.is_scalar() && b_kind.is_scalar() => return same(a, b),
        _ if a_kind.is_scalar() || b_kind.is_scalar() => return Ok(false),
        _ => {}
    }
    let mut open = Vec::new();
    let mut step = ask(&mut open, a, b)?;
    loop {
        let answer = match step {
            Some(answer) => answer,
            None => match open.last_mut() {
                Some(question) => match question.next(None)? {
                    Step::Answer(answer) => {
                        open.pop();
                        answer
                    }
                    Step::Ask(a, b) => {
                        step = ask(&mut open, a, b)?;
                        continue;
                    }
                },
                None => return Ok(true),
            },
        };
        let Some(question) = open.last_mut() else {
            return Ok(answer);
        };
        step = match question.next(Some(answer))? {
            Step::Answer(answer) => {
                open.pop();
                Some(answer)
            }
            Step::Ask(a, b) => ask(&mut open, a, b)?,
        };
    }
}

/// Begins a question about two containers, or answers it at once.
fn ask<'a>(open: &mut Vec<Question<'a>>, a: Value<'a>, b: Value<'a>) -> Result<Option<bool>> {
    let question = match (a.kind()?, b.kind()?) {
        (Kind::Object, Kind::Object) => {
            let sought = b.pairs()?;
            if a.pairs()?.remaining() < sought.remaining() {
                return Ok(Some(false));
            }
            Question::Object { within: a, sought }
        }
        (Kind::Array, Kind::Array) => {
            let (sought, candidates) = (b.elements()?, a.elements()?);
            Question::Array {
                within: a,
                sought,
                element: None,
                candidates,
            }
        }
        _ => return Ok(Some(false)),
    };
    open.push(question);
    Ok(None)
}

impl<'a> Question<'a> {
    /// Goes on, with the answer to what it asked last.
    fn next(&mut self, answer: Option<bool>) -> Result<Step<'a>> {
        match self {
            Question::Object { within, sought } => {
                if answer == Some(false) {
                    return Ok(Step::Answer(false));
                }
                for pair in sought {
                    let (key, value) = pair?;
                    match within.get(key)? {
                        Some(found) if found.kind()? != value.kind()? => {}
                        Some(found) if !value.kind()?.is_scalar() => {
                            return Ok(Step::Ask(found, value));
                        }
                        Some(found) if same(found, value)? => continue,
                        _ => {}
                    }
                    return Ok(Step::Answer(false));
                }
                Ok(Step::Answer(true))
            }
            Question::Array {
                within,
                sought,
                element,
                candidates,
            } => loop {
                if answer == Some(true) {
                    *element = None;
                }
                let sought_now = match *element {
                    Some(element) => element,
                    None => match sought.next() {
                        None => return Ok(Step::Answer(true)),
                        Some(next) => {
                            let next = next?;
                            if next.kind()?.is_scalar() {
                                if has_element(*within, next)? {
                                    continue;
                                }
                                return Ok(Step::Answer(false));
                            }
                            *element = Some(next);
                            *candidates = within.elements()?;
                            next
                        }
                    },
                };
                let kind = sought_now.kind()?;
                for candidate in candidates {
                    let candidate = candidate?;
                    if candidate.kind()? == kind {
                        return Ok(Step::Ask(candidate, sought_now));
                    }
                }
                return Ok(Step::Answer(false));
            },
        }
    }
}

/// Whether an element of an array is the scalar.
fn has_element(array: Value<'_>, scalar: Value<'_>) -> Result<bool> {
    let tag = scalar.tag()?;
    let span = scalar.span()?;
    for element in array.elements()? {
        let element = element?;
        if element.tag()? == tag && element.span()? == span {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two scalars are equal.
fn same(a: Value<'_>, b: Value<'_>) -> Result<bool> {
    debug_assert!(!matches!(a.tag()?, format::ARRAY | format::OBJECT));
    Ok(a.span()? == b.span()?)
}
