//! The text form of arrays, `{1,NULL,"a b"}`: PostgreSQL's `array_in` and `array_out`.
//!
//! Arrays have one dimension and begin at 1. What PostgreSQL reads as an array of another shape is
//! refused (0A000); what it does not read is malformed (22P02), with its words for why.

use tidemark_common::{Error, Result, SqlState};

/// Dimensions that PostgreSQL counts.
const DIMENSIONS_MAX: usize = 6;

/// White space around elements.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// `0A000`: what is an array of arrays.
pub fn several_dimensions() -> Error {
    Error::unsupported("arrays of several dimensions are not supported")
}

/// `0A000`: an array with a first element that is not its element 1.
pub fn other_subscripts() -> Error {
    Error::unsupported("arrays whose subscripts do not begin at 1 are not supported")
}

/// What was read last.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// Nothing yet.
    Start,
    /// `{`.
    Open,
    /// A piece of an element.
    Bare,
    /// An element in quotes, as far as its end.
    Quoted,
    /// `}`.
    Close,
    /// A comma behind an element.
    Comma,
    /// A comma behind an inner array.
    OuterComma,
}

/// Reads the text form of an array: hands on its elements in order, `None` for NULL.
///
/// Errors: `22P02` for a text that is no array; `0A000` for one with other dimensions; `54000` and
/// `2202E` for dimensions that PostgreSQL refuses.
pub fn read(text: &str, mut put: impl FnMut(Option<&str>)) -> Result<()> {
    let bad = |detail: &str| {
        let message = format!("malformed array literal: \"{text}\"");
        Error::user(SqlState::INVALID_TEXT, message).with_detail(detail)
    };
    let (length, body) = dimensions(text, &bad)?;
    let mut reader = Reader {
        rest: body.as_bytes(),
        last: Last::Start,
        depth: 0,
        deepest: 0,
        counts: [1; DIMENSIONS_MAX],
        wanted: [0; DIMENSIONS_MAX],
        element: Vec::new(),
        kept: 0,
        escaped: false,
    };
    let mut count = 0;
    reader.read(&bad, |element| {
        count += 1;
        put(element);
    })?;
    if reader.deepest > 1 {
        return Err(several_dimensions());
    }
    match length {
        Some(length) if length != count => Err(bad(
            "Specified array dimensions do not match array contents.",
        )),
        _ => Ok(()),
    }
}

/// Takes the dimensions off: `[1:2]={..}`. Answers the length that they tell, and what follows.
fn dimensions<'a>(text: &'a str, bad: &impl Fn(&str) -> Error) -> Result<(Option<usize>, &'a str)> {
    let trim = |t: &'a str| t.trim_start_matches(|c: char| u8::try_from(c).is_ok_and(is_space));
    let (mut rest, mut bounds) = (trim(text), Vec::new());
    while let Some(inner) = rest.strip_prefix('[') {
        let (inside, after) = inner
            .split_once(']')
            .ok_or_else(|| bad("Missing \"]\" after array dimensions."))?;
        let bound = |digits: &str| {
            digits
                .parse::<i32>()
                .map_err(|_| bad("\"[\" must introduce explicitly-specified array dimensions."))
        };
        bounds.push(match inside.split_once(':') {
            Some((lower, upper)) => (bound(lower)?, bound(upper)?),
            None => (1, bound(inside)?),
        });
        rest = trim(after);
    }
    let Some(first) = bounds.first() else {
        if rest.starts_with('{') {
            return Ok((None, rest));
        }
        return Err(bad(
            "Array value must start with \"{\" or dimension information.",
        ));
    };
    let rest = rest
        .strip_prefix('=')
        .ok_or_else(|| bad("Missing \"=\" after array dimensions."))?;
    let rest = trim(rest);
    if !rest.starts_with('{') {
        return Err(bad("Array contents must start with \"{\"."));
    }
    if bounds.iter().any(|(lower, upper)| upper < lower) {
        return Err(Error::user(
            SqlState("2202E"),
            "upper bound cannot be less than lower bound",
        ));
    }
    match *first {
        (1, upper) if bounds.len() == 1 => Ok((Some(upper as usize), rest)),
        _ if bounds.len() == 1 => Err(other_subscripts()),
        _ => Err(several_dimensions()),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    last: Last,
    depth: usize,
    deepest: usize,
    /// Members of the open array at each depth, and of the one before it; 0 if there was none.
    counts: [usize; DIMENSIONS_MAX],
    wanted: [usize; DIMENSIONS_MAX],
    /// The element so far, how much of it no trailing space is, and whether something in it was
    /// escaped.
    element: Vec<u8>,
    kept: usize,
    escaped: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn read(
        &mut self,
        bad: &impl Fn(&str) -> Error,
        mut put: impl FnMut(Option<&str>),
    ) -> Result<()> {
        let ended = || bad("Unexpected end of input.");
        let unexpected = |c: char| bad(&format!("Unexpected \"{c}\" character."));
        let element = || bad("Unexpected array element.");
        loop {
            match (self.next().ok_or_else(ended)?, self.last) {
                (b'"', Last::Open | Last::Comma) => {
                    self.quoted().ok_or_else(ended)?;
                    self.last = Last::Quoted;
                }
                (b'"', _) => return Err(element()),
                (b'\\', Last::Open | Last::Comma | Last::Bare) => {
                    let next = self.next().ok_or_else(ended)?;
                    self.push(next);
                    self.escaped = true;
                }
                (b'\\', _) => return Err(unexpected('\\')),
                (b'{', Last::Start | Last::Open | Last::OuterComma) => self.open()?,
                (b'{', _) => return Err(unexpected('{')),
                (b'}', Last::Bare | Last::Quoted | Last::Close) => {
                    self.finish(&mut put);
                    if !self.close() {
                        return Err(bad(
                            "Multidimensional arrays must have sub-arrays with matching \
                             dimensions.",
                        ));
                    }
                }
                (b'}', Last::Open) if self.depth == 1 => {
                    self.close();
                }
                (b'}', _) => return Err(unexpected('}')),
                (b',', Last::Bare | Last::Quoted | Last::Close) => {
                    self.counts[self.depth - 1] += 1;
                    let inner = self.last == Last::Close;
                    self.finish(&mut put);
                    self.last = if inner { Last::OuterComma } else { Last::Comma };
                }
                (b',', _) => return Err(unexpected(',')),
                (space, Last::Bare) if is_space(space) => self.element.push(space),
                (space, _) if is_space(space) => {}
                (byte, Last::Open | Last::Comma | Last::Bare) => self.push(byte),
                _ => return Err(element()),
            }
            if self.depth == 0 {
                break;
            }
        }
        if self.rest.iter().all(|b| is_space(*b)) {
            Ok(())
        } else {
            Err(bad("Junk after closing right brace."))
        }
    }

    /// A byte of an element that is not in quotes.
    fn push(&mut self, byte: u8) {
        self.element.push(byte);
        self.kept = self.element.len();
        self.last = Last::Bare;
    }

    /// The rest of an element in quotes; nothing if it has no end.
    fn quoted(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    let next = self.next()?;
                    self.element.push(next);
                }
                byte => self.element.push(byte),
            }
        }
        self.kept = self.element.len();
        self.escaped = true;
        Some(())
    }

    fn open(&mut self) -> Result<()> {
        if self.depth == DIMENSIONS_MAX {
            return Err(Error::user(
                SqlState("54000"),
                format!(
                    "number of array dimensions ({}) exceeds the maximum allowed \
                     ({DIMENSIONS_MAX})",
                    DIMENSIONS_MAX + 1
                ),
            ));
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.last = Last::Open;
        Ok(())
    }

    /// Whether an inner array has as many members as the one before it.
    fn close(&mut self) -> bool {
        self.depth -= 1;
        let count = std::mem::replace(&mut self.counts[self.depth], 1);
        let wanted = std::mem::replace(&mut self.wanted[self.depth], count);
        self.last = Last::Close;
        wanted == 0 || wanted == count
    }

    /// Hands on the element that has ended, if there is one.
    fn finish(&mut self, put: &mut impl FnMut(Option<&str>)) {
        if self.last == Last::Close {
            return;
        }
        self.element.truncate(self.kept);
        // Only ASCII was taken out of a text.
        let element = std::str::from_utf8(&self.element).unwrap_or_default();
        let null = !self.escaped && element.eq_ignore_ascii_case("null");
        put((!null).then_some(element));
        self.element.clear();
        self.kept = 0;
        self.escaped = false;
    }
}

/// Whether an element stands in quotes: it could be read as something else.
pub fn is_quoted(element: &[u8]) -> bool {
    let special = |b: &u8| is_space(*b) || matches!(b, b'"' | b'\\' | b'{' | b'}' | b',');
    element.is_empty() || element.eq_ignore_ascii_case(b"null") || element.iter().any(special)
}

/// Writes an element, in quotes where it needs them.
pub fn write_element(element: &str, text: &mut String) {
    if !is_quoted(element.as_bytes()) {
        return text.push_str(element);
    }
    text.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

/// Writes a part of a row, in quotes where it needs them.
pub fn write_part(part: &str, text: &mut String) {
    let special = |b: u8| is_space(b) || matches!(b, b'"' | b'\\' | b'(' | b')' | b',');
    if !part.is_empty() && !part.bytes().any(special) {
        return text.push_str(part);
    }
    text.push('"');
    for c in part.chars() {
        if matches!(c, '"' | '\\') {
            text.push(c);
        }
        text.push(c);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        read(text, |e| all.push(e.map(str::to_string)))?;
        Ok(all)
    }

    #[test]
    fn elements_are_read_as_in_postgresql() {
        let cases: [(&str, &[Option<&str>]); 12] = [
            ("{}", &[]),
            (" { } ", &[]),
            ("{1,2}", &[Some("1"), Some("2")]),
            ("{ a b , c }", &[Some("a b"), Some("c")]),
            ("{null,NULL,Null}", &[None, None, None]),
            (r#"{"null",n\ull}"#, &[Some("null"), Some("null")]),
            (r#"{"",a}"#, &[Some(""), Some("a")]),
            (r#"{"a\"b\\c", "d,e" }"#, &[Some("a\"b\\c"), Some("d,e")]),
            (r"{a\ }", &[Some("a ")]),
            (r"{\{,\}}", &[Some("{"), Some("}")]),
            ("{ä,日本}", &[Some("ä"), Some("日本")]),
            ("[1:2]={1,2}", &[Some("1"), Some("2")]),
        ];
        for (text, wanted) in cases {
            let read = elements(text).unwrap();
            let read: Vec<Option<&str>> = read.iter().map(Option::as_deref).collect();
            assert_eq!(read, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let malformed = [
            "",
            "a",
            "{",
            "}",
            "{1",
            "{1,}",
            "{,1}",
            "{,}",
            "{1,2}}",
            "{1}2",
            "{{1},2}",
            "{1,{2}}",
            "{{1},{2,3}}",
            "{{},{}}",
            r#"{"a"b}"#,
            r#"{a"b"}"#,
            r#"{"a}"#,
            r"{a\",
            "{{1,2}",
            "[1:2]{1,2}",
            "[1:3]={1,2}",
            "[a]={1}",
            "[1={1}",
            "[1:1]={}",
        ];
        for text in malformed {
            let state = elements(text).unwrap_err().state();
            assert_eq!(state, SqlState::INVALID_TEXT, "{text}");
        }
        for text in ["{{1,2}}", "{{1},{2}}", "[0:1]={1,2}", "[1:1][1:1]={{1}}"] {
            let state = elements(text).unwrap_err().state();
            assert_eq!(state, SqlState::FEATURE_NOT_SUPPORTED, "{text}");
        }
        assert_eq!(elements("[2:1]={}").unwrap_err().state().0, "2202E");
        assert_eq!(elements("{{{{{{{1}}}}}}}").unwrap_err().state().0, "54000");
    }

    #[test]
    fn elements_are_written_so_that_they_are_read_back() {
        for element in [
            "", "a", "a b", "\x0b", "null", "{", "}", ",", "\"", "\\", "ä",
        ] {
            let mut text = String::from("{");
            write_element(element, &mut text);
            text.push('}');
            assert_eq!(elements(&text).unwrap(), [Some(element.to_string())]);
        }
    }
}
