//! Regular expressions: `~` and its like, and PostgreSQL's functions of them, on
//! [`tidemark_values::regex`]. A pattern is compiled once per thread, not once per row or batch.

use super::arguments::{Takes, Texts, Values, taken};
use super::bounded::{check_bytes, check_size};
use super::chars::BPCHAR;
use super::definition::*;
use arrow::array::{
    AsArray, BooleanArray, BooleanBuilder, Datum, Int32Builder, ListBuilder, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::error::ArrowError;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::regex::{Extents, Flags, Regex, Replacement, from_similar};

use Takes::{Int4, Text};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all = matching();
    all.extend(lists());
    all.extend(positions());
    all.push(Definition {
        name: "regexp_replace",
        aliases: &[],
        takes: |t| {
            taken(t, 3, &[Text, Text, Text, Text])
                .filter(|_| t.len() < 4 || is_text(&t[3]))
                .or_else(|| taken(t, 4, &[Text, Text, Text, Int4, Int4, Text]))
        },
        returns: |_| DataType::Utf8,
        evaluate: replace,
    });
    all.push(Definition {
        name: "similar_to_escape",
        aliases: &["similar_escape"],
        takes: |t| taken(t, 1, &[Text, Text]),
        returns: |_| DataType::Utf8,
        evaluate: similar,
    });
    all
}

/// The operators, and `regexp_like`.
fn matching() -> Vec<Definition> {
    let operator = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: |t| taken(t, 2, &[Text, Text]),
        returns: |_| DataType::Boolean,
        evaluate,
    };
    vec![
        operator("textregexeq", |a| matches(a, Flags::default(), true)),
        operator("textregexne", |a| matches(a, Flags::default(), false)),
        operator("texticregexeq", |a| {
            matches(a, Flags::ignoring_case(), true)
        }),
        operator("texticregexne", |a| {
            matches(a, Flags::ignoring_case(), false)
        }),
        Definition {
            name: "regexp_like",
            aliases: &[],
            takes: |t| taken(t, 2, &[Text, Text, Text]),
            returns: |_| DataType::Boolean,
            evaluate: like,
        },
    ]
}

fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// What gives arrays.
fn lists() -> Vec<Definition> {
    let function = |name, evaluate| Definition {
        name,
        aliases: &[],
        // The blanks of a `char(n)` are no part of its text.
        takes: |t| {
            let mut types = taken(t, 2, &[Text, Text, Text])?;
            if t[0] == BPCHAR {
                types[0] = BPCHAR;
            }
            Some(types)
        },
        returns: |_| texts(),
        evaluate,
    };
    vec![
        function("regexp_match", first_match),
        function("regexp_split_to_array", |a| {
            split(a, "regexp_split_to_array()")
        }),
        // The rows of regexp_split_to_table, which the planner unnests.
        function("regexp_split_rows", |a| split(a, "regexp_split_to_table()")),
        Definition {
            returns: |_| DataType::List(Arc::new(Field::new_list_field(texts(), true))),
            // The rows of regexp_matches.
            ..function("regexp_match_rows", all_matches)
        },
    ]
}

/// What is told by the number of a match.
fn positions() -> Vec<Definition> {
    vec![
        Definition {
            name: "regexp_count",
            aliases: &[],
            takes: |t| taken(t, 2, &[Text, Text, Int4, Text]),
            returns: |_| DataType::Int32,
            evaluate: count,
        },
        Definition {
            name: "regexp_instr",
            aliases: &[],
            takes: |t| taken(t, 2, &[Text, Text, Int4, Int4, Int4, Text, Int4]),
            returns: |_| DataType::Int32,
            evaluate: place,
        },
        Definition {
            name: "regexp_substr",
            aliases: &[],
            takes: |t| taken(t, 2, &[Text, Text, Int4, Int4, Text, Int4]),
            returns: |_| DataType::Utf8,
            evaluate: part,
        },
    ]
}

/// Compiled expressions that a thread remembers.
const COMPILED_MAX: usize = 64;

type Compiled = HashMap<(String, Flags), Rc<Regex>>;

thread_local! {
    static COMPILED: RefCell<Compiled> = RefCell::default();
}

fn compile(pattern: &str, flags: Flags) -> tidemark_common::Result<Rc<Regex>> {
    COMPILED.with_borrow_mut(|known| {
        let key = (pattern.to_string(), flags);
        if let Some(regex) = known.get(&key) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(Regex::new(pattern, flags)?);
        if known.len() >= COMPILED_MAX {
            known.clear();
        }
        known.insert(key, regex.clone());
        Ok(regex)
    })
}

/// The patterns of a call's rows; the last one stays at hand.
struct Patterns {
    patterns: Texts,
    flags: Option<Texts>,
    last: Option<(String, String, Rc<Regex>, bool)>,
}

impl Patterns {
    /// The pattern is the second argument, its flags argument `flags` if there is one.
    fn of(args: &ScalarFunctionArgs, flags: usize) -> Result<Patterns> {
        Ok(Patterns {
            patterns: Texts::of(args, 1)?,
            flags: Texts::optional(args, flags)?,
            last: None,
        })
    }

    /// A row's expression, and whether its flags ask for all matches; `None` for NULL.
    fn get(&mut self, row: usize) -> Result<Option<(Rc<Regex>, bool)>> {
        self.checked(row, |_| Ok(()))
    }

    /// The same; the flags are held to `check` before the pattern is compiled.
    fn checked(
        &mut self,
        row: usize,
        check: impl Fn(bool) -> tidemark_common::Result<()>,
    ) -> Result<Option<(Rc<Regex>, bool)>> {
        let Some(pattern) = self.patterns.get(row) else {
            return Ok(None);
        };
        let letters = match &self.flags {
            None => "",
            Some(flags) => match flags.get(row) {
                Some(letters) => letters,
                None => return Ok(None),
            },
        };
        if let Some((p, l, regex, global)) = &self.last
            && p == pattern
            && l == letters
        {
            return Ok(Some((regex.clone(), *global)));
        }
        let (flags, global) = Flags::read(letters).map_err(external)?;
        check(global).map_err(external)?;
        let regex = compile(pattern, flags).map_err(external)?;
        self.last = Some((pattern.into(), letters.into(), regex.clone(), global));
        Ok(Some((regex, global)))
    }

    /// A row's expression, for a function that has no use for `g`.
    fn single(&mut self, row: usize, function: &str) -> Result<Option<Rc<Regex>>> {
        let found = self.checked(row, |global| {
            if !global {
                return Ok(());
            }
            let message = format!("{function} does not support the \"global\" option");
            let error = Error::user(SqlState::INVALID_PARAMETER, message);
            Err(if function == "regexp_match()" {
                error.with_hint("Use the regexp_matches function instead.")
            } else {
                error
            })
        })?;
        Ok(found.map(|(regex, _)| regex))
    }
}

/// `text ~ pattern` and its like.
fn matches(args: &ScalarFunctionArgs, flags: Flags, wanted: bool) -> Result<ColumnarValue> {
    let (texts, patterns) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let pairs = (0..rows(args)).map(|row| (texts.get(row), patterns.get(row)));
    let found = matched(pairs, flags, wanted).map_err(external)?;
    result(args, Arc::new(found))
}

/// Which of the texts match the pattern beside them; `wanted`: what a match is told as.
pub(super) fn are_matched(
    texts: &dyn Datum,
    patterns: &dyn Datum,
    any_case: bool,
    wanted: bool,
) -> std::result::Result<BooleanArray, ArrowError> {
    let (Some(texts), Some(patterns)) = (
        texts.get().0.as_string_opt::<i32>(),
        patterns.get().0.as_string_opt::<i32>(),
    ) else {
        let message = "a pattern is matched with what is no text".to_string();
        return Err(ArrowError::InvalidArgumentError(message));
    };
    let flags = if any_case {
        Flags::ignoring_case()
    } else {
        Flags::default()
    };
    matched(texts.iter().zip(patterns), flags, wanted)
        .map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

/// The same of pairs of a text and a pattern; a pattern is compiled when it changes.
fn matched<'a>(
    pairs: impl ExactSizeIterator<Item = (Option<&'a str>, Option<&'a str>)>,
    flags: Flags,
    wanted: bool,
) -> std::result::Result<BooleanArray, Error> {
    let mut found = BooleanBuilder::with_capacity(pairs.len());
    let mut last: Option<(&str, Rc<Regex>)> = None;
    for pair in pairs {
        tidemark_common::check_interrupt()?;
        let (Some(text), Some(pattern)) = pair else {
            found.append_null();
            continue;
        };
        let regex = match &last {
            Some((known, regex)) if *known == pattern => regex,
            _ => &last.insert((pattern, compile(pattern, flags)?)).1,
        };
        found.append_value(regex.is_match(text)? == wanted);
    }
    Ok(found.finish())
}

/// `regexp_like(text, pattern [, flags])`.
fn like(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, 2)?);
    let rows = rows(args);
    let mut found = BooleanBuilder::with_capacity(rows);
    for row in 0..rows {
        wanted()?;
        let Some(text) = texts.get(row) else {
            found.append_null();
            continue;
        };
        match patterns.single(row, "regexp_like()")? {
            Some(regex) => found.append_value(regex.is_match(text).map_err(external)?),
            None => found.append_null(),
        }
    }
    result(args, Arc::new(found.finish()))
}

/// Appends a match's groups, or the match if there are none, as an array.
fn append_groups(
    list: &mut ListBuilder<StringBuilder>,
    text: &str,
    groups: usize,
    extents: &Extents,
) {
    for group in groups.min(1)..=groups {
        let part = extents.get(group).map(|(from, to)| &text[from..to]);
        list.values().append_option(part);
    }
    list.append(true);
}

/// Holds what lists of texts have come to against the limit.
fn check_list(texts: &StringBuilder) -> Result<()> {
    let bytes = texts.values_slice().len() + size_of_val(texts.offsets_slice());
    check_bytes(bytes as u64)
}

/// `regexp_match(text, pattern [, flags])`.
fn first_match(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, 2)?);
    let mut list = ListBuilder::new(StringBuilder::new());
    let mut extents = Extents::new(true);
    for row in 0..rows(args) {
        wanted()?;
        let regex = match texts.get(row) {
            Some(_) => patterns.single(row, "regexp_match()")?,
            None => None,
        };
        match (texts.get(row), regex) {
            (Some(text), Some(regex))
                if regex.find_at(text, 0, &mut extents).map_err(external)? =>
            {
                append_groups(&mut list, text, regex.groups(), &extents);
            }
            _ => list.append(false),
        }
    }
    result(args, Arc::new(list.finish()))
}

/// All rows of `regexp_matches(text, pattern [, flags])`.
fn all_matches(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of_any(args, 0, false)?, Patterns::of(args, 2)?);
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    let mut extents = Extents::new(true);
    for row in 0..rows(args) {
        wanted()?;
        let Some(text) = texts.get(row) else {
            lists.append(false);
            continue;
        };
        let Some((regex, global)) = patterns.get(row)? else {
            lists.append(false);
            continue;
        };
        let mut from = 0;
        while regex.find_at(text, from, &mut extents).map_err(external)? {
            append_groups(lists.values(), text, regex.groups(), &extents);
            check_list(lists.values().values())?;
            from = extents.next(text);
            if !global {
                break;
            }
        }
        lists.append(true);
    }
    result(args, Arc::new(lists.finish()))
}

/// `regexp_split_to_array(text, pattern [, flags])`: an empty match at the end of the text or of
/// the last match divides nothing.
fn split(args: &ScalarFunctionArgs, function: &str) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of_any(args, 0, false)?, Patterns::of(args, 2)?);
    let mut list = ListBuilder::new(StringBuilder::new());
    let mut extents = Extents::new(false);
    for row in 0..rows(args) {
        wanted()?;
        let Some(text) = texts.get(row) else {
            list.append(false);
            continue;
        };
        let Some(regex) = patterns.single(row, function)? else {
            list.append(false);
            continue;
        };
        let (mut from, mut start, mut last_end) = (0, 0, 0);
        while regex.find_at(text, from, &mut extents).map_err(external)? {
            let (begin, end) = extents.whole();
            if begin < text.len() && end > last_end {
                list.values().append_value(&text[start..begin]);
                start = end;
            }
            check_list(list.values())?;
            last_end = end;
            from = extents.next(text);
        }
        list.values().append_value(&text[start..]);
        list.append(true);
    }
    result(args, Arc::new(list.finish()))
}

fn invalid(parameter: &str, value: i32) -> datafusion_common::DataFusionError {
    failure(
        SqlState::INVALID_PARAMETER,
        format!("invalid value for parameter \"{parameter}\": {value}"),
    )
}

/// A number of a call, by its name, what it is if it is not given, and the least it may be.
struct Number {
    values: Option<Values<Int32Type>>,
    name: &'static str,
    default: i32,
    least: i32,
}

impl Number {
    fn of(
        args: &ScalarFunctionArgs,
        i: usize,
        name: &'static str,
        default: i32,
        least: i32,
    ) -> Result<Number> {
        Ok(Number {
            values: Values::optional(args, i)?,
            name,
            default,
            least,
        })
    }

    fn get(&self, row: usize) -> Option<i32> {
        match &self.values {
            None => Some(self.default),
            Some(values) => values.get(row),
        }
    }

    fn check(&self, value: i32) -> Result<usize> {
        if value < self.least {
            return Err(invalid(self.name, value));
        }
        Ok(value as usize)
    }
}

/// Where a character begins, counted from 1; beyond the text, what is beyond its bytes.
fn offset(text: &str, start: usize) -> usize {
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    places.nth(start - 1).unwrap_or(text.len() + 1)
}

/// `regexp_count(text, pattern [, start [, flags]])`.
fn count(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, 3)?);
    let start = Number::of(args, 2, "start", 1, 1)?;
    let mut counts = Int32Builder::with_capacity(rows(args));
    let mut extents = Extents::new(false);
    for row in 0..rows(args) {
        wanted()?;
        let (Some(text), Some(from), true) =
            (texts.get(row), start.get(row), patterns.is_given(row))
        else {
            counts.append_null();
            continue;
        };
        let from = start.check(from)?;
        let Some(regex) = patterns.single(row, "regexp_count()")? else {
            counts.append_null();
            continue;
        };
        let (mut from, mut count) = (offset(text, from), 0);
        while regex.find_at(text, from, &mut extents).map_err(external)? {
            wanted()?;
            count += 1;
            from = extents.next(text);
        }
        counts.append_value(count);
    }
    result(args, Arc::new(counts.finish()))
}

impl Patterns {
    /// Whether neither pattern nor flags are NULL.
    fn is_given(&self, row: usize) -> bool {
        let flags = self.flags.as_ref().is_none_or(|f| f.get(row).is_some());
        flags && self.patterns.get(row).is_some()
    }
}

/// Finds match number `nth` from byte `from`.
fn find_nth(
    regex: &Regex,
    text: &str,
    mut from: usize,
    nth: usize,
    extents: &mut Extents,
) -> Result<bool> {
    for _ in 0..nth {
        wanted()?;
        if !regex.find_at(text, from, extents).map_err(external)? {
            return Ok(false);
        }
        from = extents.next(text);
    }
    Ok(true)
}

/// The group of a match that is asked for; 0 is the match, and so is 1 where there are no groups.
fn group_of(regex: &Regex, extents: &Extents, group: usize) -> Option<(usize, usize)> {
    match (regex.groups(), group) {
        (0, 0 | 1) => extents.get(0),
        (groups, group) if group <= groups => extents.get(group),
        _ => None,
    }
}

/// `regexp_instr(text, pattern [, start [, n [, endoption [, flags [, subexpr]]]]])`.
fn place(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, 5)?);
    let start = Number::of(args, 2, "start", 1, 1)?;
    let nth = Number::of(args, 3, "n", 1, 1)?;
    let ends = Number::of(args, 4, "endoption", 0, 0)?;
    let group = Number::of(args, 6, "subexpr", 0, 0)?;
    let mut places = Int32Builder::with_capacity(rows(args));
    for row in 0..rows(args) {
        wanted()?;
        let (Some(text), Some(s), Some(n), Some(e), Some(g), true) = (
            texts.get(row),
            start.get(row),
            nth.get(row),
            ends.get(row),
            group.get(row),
            patterns.is_given(row),
        ) else {
            places.append_null();
            continue;
        };
        let (s, n) = (start.check(s)?, nth.check(n)?);
        if !(0..=1).contains(&e) {
            return Err(invalid("endoption", e));
        }
        let g = group.check(g)?;
        let Some(regex) = patterns.single(row, "regexp_instr()")? else {
            places.append_null();
            continue;
        };
        let mut extents = Extents::new(g > 0);
        let found = find_nth(&regex, text, offset(text, s), n, &mut extents)?;
        let extent = group_of(&regex, &extents, g).filter(|_| found);
        places.append_value(extent.map_or(0, |(from, to)| {
            let at = if e == 1 { to } else { from };
            text[..at].chars().count() as i32 + 1
        }));
    }
    result(args, Arc::new(places.finish()))
}

/// `regexp_substr(text, pattern [, start [, n [, flags [, subexpr]]]])`.
fn part(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, 4)?);
    let start = Number::of(args, 2, "start", 1, 1)?;
    let nth = Number::of(args, 3, "n", 1, 1)?;
    let group = Number::of(args, 5, "subexpr", 0, 0)?;
    let mut parts = StringBuilder::new();
    for row in 0..rows(args) {
        wanted()?;
        let (Some(text), Some(s), Some(n), Some(g), true) = (
            texts.get(row),
            start.get(row),
            nth.get(row),
            group.get(row),
            patterns.is_given(row),
        ) else {
            parts.append_null();
            continue;
        };
        let (s, n, g) = (start.check(s)?, nth.check(n)?, group.check(g)?);
        let Some(regex) = patterns.single(row, "regexp_substr()")? else {
            parts.append_null();
            continue;
        };
        let mut extents = Extents::new(g > 0);
        let found = find_nth(&regex, text, offset(text, s), n, &mut extents)?;
        let extent = group_of(&regex, &extents, g).filter(|_| found);
        parts.append_option(extent.map(|(from, to)| &text[from..to]));
    }
    result(args, Arc::new(parts.finish()))
}

/// `substring(text SIMILAR pattern ESCAPE escape)`.
pub(super) fn substring_similar(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, patterns) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let escapes = Texts::of(args, 2)?;
    let mut last: Option<(&str, &str, Rc<Regex>)> = None;
    let mut extents = Extents::new(true);
    super::arguments::texts(args, |row, out| {
        let (Some(text), Some(pattern), Some(escape)) =
            (texts.get(row), patterns.get(row), escapes.get(row))
        else {
            return Ok(false);
        };
        let regex = match &last {
            Some((p, e, regex)) if (*p, *e) == (pattern, escape) => regex,
            _ => {
                let expression = from_similar(pattern, escape).map_err(external)?;
                let regex = compile(&expression, Flags::default()).map_err(external)?;
                &last.insert((pattern, escape, regex)).2
            }
        };
        let found = regex.find_at(text, 0, &mut extents).map_err(external)?;
        let extent = extents.get(regex.groups().min(1)).filter(|_| found);
        if let Some((from, to)) = extent {
            out.push_str(&text[from..to]);
        }
        Ok(extent.is_some())
    })
}

/// `substring(text FROM pattern)`: the first group, or the match if there is none.
pub(super) fn substring(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, mut patterns) = (Texts::of(args, 0)?, Patterns::of(args, usize::MAX)?);
    let mut parts = StringBuilder::new();
    let mut extents = Extents::new(true);
    for row in 0..rows(args) {
        wanted()?;
        let Some(text) = texts.get(row) else {
            parts.append_null();
            continue;
        };
        let extent = match patterns.get(row)? {
            Some((regex, _)) if regex.find_at(text, 0, &mut extents).map_err(external)? => {
                extents.get(regex.groups().min(1))
            }
            _ => None,
        };
        parts.append_option(extent.map(|(from, to)| &text[from..to]));
    }
    result(args, Arc::new(parts.finish()))
}

/// `regexp_replace(text, pattern, replacement [, flags])` and `(text, pattern, replacement, start
/// [, n [, flags]])`.
fn replace(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let by_flags = args.args.len() == 4 && args.args[3].data_type() == DataType::Utf8;
    let flags = if by_flags { 3 } else { 5 };
    let (texts, replacements) = (Texts::of(args, 0)?, Texts::of(args, 2)?);
    let mut patterns = Patterns::of(args, flags)?;
    let given = |i: usize| if by_flags { usize::MAX } else { i };
    let start = Number::of(args, given(3), "start", 1, 1)?;
    let nth = Number::of(args, given(4), "n", 1, 0)?;
    let mut out = StringBuilder::new();
    let mut read: Option<(&str, Replacement)> = None;
    let mut text_out = String::new();
    for row in 0..rows(args) {
        wanted()?;
        let (Some(text), Some(replacement), Some(s), Some(n), true) = (
            texts.get(row),
            replacements.get(row),
            start.get(row),
            nth.get(row),
            patterns.is_given(row),
        ) else {
            out.append_null();
            continue;
        };
        let (s, n) = (start.check(s)?, nth.check(n)?);
        if by_flags {
            check_no_number(patterns.flags.as_ref().and_then(|f| f.get(row)))?;
        }
        let Some((regex, global)) = patterns.get(row)? else {
            out.append_null();
            continue;
        };
        let n = if args.args.len() <= 4 && global { 0 } else { n };
        let replacement = match &read {
            Some((known, read)) if *known == replacement => read,
            _ => &read.insert((replacement, Replacement::new(replacement))).1,
        };
        text_out.clear();
        let made = out.values_slice().len();
        let check = |bytes: usize| check_size(made.saturating_add(bytes) as u64);
        let from = offset(text, s);
        regex
            .replace(text, replacement, from, n as u64, check, &mut text_out)
            .map_err(external)?;
        out.append_value(&text_out);
    }
    result(args, Arc::new(out.finish()))
}

/// Flags that begin with a digit were meant as a start.
fn check_no_number(flags: Option<&str>) -> Result<()> {
    match flags {
        Some(flags) if flags.starts_with(|c: char| c.is_ascii_digit()) => {
            let letter = &flags[..1];
            Err(external(
                Error::user(
                    SqlState::INVALID_PARAMETER,
                    format!("invalid regular expression option: \"{letter}\""),
                )
                .with_hint(
                    "If you meant to use regexp_replace() with a start parameter, cast the fourth \
                     argument to integer explicitly.",
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// `similar_to_escape(pattern [, escape])`: the expression of a pattern of SIMILAR TO.
fn similar(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (patterns, escapes) = (Texts::of(args, 0)?, Texts::optional(args, 1)?);
    let mut expressions = StringBuilder::with_capacity(rows(args), patterns.bytes() + 8);
    for row in 0..rows(args) {
        wanted()?;
        let escape = match &escapes {
            None => Some("\\"),
            Some(escapes) => escapes.get(row),
        };
        match patterns.get(row).zip(escape) {
            Some((pattern, escape)) => {
                expressions.append_value(from_similar(pattern, escape).map_err(external)?);
            }
            None => expressions.append_null(),
        }
    }
    result(args, Arc::new(expressions.finish()))
}
