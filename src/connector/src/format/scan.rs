//! The low-level JSON scanner: a cursor over one record's text.
//!
//! Law: the scanner accepts exactly the texts of RFC 8259 (strict numbers, no raw control
//! characters, no lone surrogates) that nest at most [`DEPTH_MAX`] deep, whether a value is read or
//! skipped; so whether a record is well formed does not depend on the columns that a job wants.
//! Nothing recurses: no text, however deep, can exhaust the stack.
//! UTF-8 is validated once by the caller, and every slice that leaves the scanner is cut at ASCII
//! bytes.
//!
//! Cost: strings are searched 16 bytes at a time for the quote, the backslash and control
//! characters; integers are read 8 digits at a time in one machine word (the SWAR reduction of
//! simdjson); everything else is a byte at a time.

use tidemark_common::SqlState;

/// Containers may nest this deep, the outermost one included: deeper than PostgreSQL takes with
/// its defaults, whose parser recurses until its stack is full (12,000 arrays or objects pass
/// there, 16,000 do not).
pub(super) const DEPTH_MAX: u32 = tidemark_values::jsonb::DEPTH_MAX as u32;

/// A text is too deep to be taken in.
const TOO_COMPLEX: SqlState = SqlState("54001");

/// Why a record cannot be read. One pointer, so that results stay in registers; made on cold paths
/// only.
#[derive(Debug)]
pub(super) struct Fault(Box<Detail>);

#[derive(Debug)]
pub(super) struct Detail {
    /// The column at fault, by position among the wanted ones.
    pub column: Option<usize>,
    /// Why it is refused, as PostgreSQL's code.
    pub state: SqlState,
    /// Lower case, without full stop.
    pub message: String,
    /// The text itself is broken: no column is to blame.
    syntax: bool,
}

impl Fault {
    /// Whether the text itself is broken.
    pub fn is_syntax(&self) -> bool {
        self.0.syntax
    }

    /// The text is not JSON: `what` was expected or met at byte `at`.
    #[cold]
    #[inline(never)]
    pub fn syntax(at: usize, what: &str) -> Fault {
        Fault(Box::new(Detail {
            column: None,
            state: SqlState::INVALID_TEXT,
            message: format!("malformed JSON at byte {at}: {what}"),
            syntax: true,
        }))
    }

    /// The text nests more than [`DEPTH_MAX`] containers at byte `at`.
    #[cold]
    #[inline(never)]
    pub fn too_deep(at: usize) -> Fault {
        Fault(Box::new(Detail {
            column: None,
            state: TOO_COMPLEX,
            message: format!("JSON nests more than {DEPTH_MAX} levels deep at byte {at}"),
            syntax: true,
        }))
    }

    /// The text is JSON, but the value does not fit.
    #[cold]
    #[inline(never)]
    pub fn value(message: impl Into<String>) -> Fault {
        Fault(Box::new(Detail {
            column: None,
            state: SqlState::INVALID_TEXT,
            message: message.into(),
            syntax: false,
        }))
    }

    /// Another code than that of invalid text.
    #[cold]
    #[inline(never)]
    pub fn with_state(mut self, state: SqlState) -> Fault {
        self.0.state = state;
        self
    }

    /// Names the column, unless the text itself is broken or a column is named already.
    #[cold]
    #[inline(never)]
    pub fn of_column(mut self, column: usize) -> Fault {
        if self.0.column.is_none() && !self.0.syntax {
            self.0.column = Some(column);
        }
        self
    }

    /// Names the member inside a column's value, unless the text itself is broken.
    #[cold]
    #[inline(never)]
    pub fn of_field(mut self, name: &str) -> Fault {
        if !self.0.syntax {
            self.0.message = format!("field \"{name}\": {}", self.0.message);
        }
        self
    }

    /// Column, code and message.
    pub fn into_detail(self) -> Detail {
        *self.0
    }
}

/// The text between two quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// As written, escapes checked but not resolved.
    pub raw: &'a str,
    /// Whether there is any backslash.
    pub escaped: bool,
}

impl<'a> Text<'a> {
    /// The characters meant, in `scratch` if there are escapes.
    #[inline]
    pub fn resolve<'s>(self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        unescape(self.raw, scratch);
        scratch
    }
}

/// Which of the open containers are objects: one bit a level, the innermost lowest.
#[derive(Default)]
struct Levels {
    bits: u128,
    open: u32,
    /// The bits of whole words further out; empty, and without memory, up to 128 levels.
    outer: Vec<u128>,
}

impl Levels {
    #[inline]
    fn enter(&mut self, object: bool) {
        if self.open > 0 && self.open.is_multiple_of(u128::BITS) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u128::from(object);
        self.open += 1;
    }

    #[inline]
    fn leave(&mut self) {
        self.open -= 1;
        self.bits >>= 1;
        if self.open > 0 && self.open.is_multiple_of(u128::BITS) {
            self.bits = self.outer.pop().expect("a word was put down on the way in");
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

/// A cursor over one JSON text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Scanner<'a> {
    /// At the beginning of `text`.
    #[inline]
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, pos: 0 }
    }

    /// Another cursor at the same place.
    #[inline]
    pub fn copy(&self) -> Scanner<'a> {
        Scanner {
            text: self.text,
            pos: self.pos,
        }
    }

    /// Byte position of the cursor.
    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Puts the cursor back to where it was.
    #[cold]
    pub fn rewind(&mut self, pos: usize) {
        debug_assert!(pos <= self.pos, "a cursor is put back, not ahead");
        self.pos = pos;
    }

    /// The bytes from the cursor on.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.pos..]
    }

    /// What was passed since `start`; both ends are ASCII boundaries.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.pos]
    }

    /// Passes `count` bytes that the caller has compared.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.pos += count;
    }

    /// The next byte; 0 at the end, which is no part of any JSON text.
    #[inline]
    pub fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.pos).copied().unwrap_or(0)
    }

    /// Passes blanks.
    #[inline]
    pub fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.pos += 1;
        }
    }

    /// Passes `byte`, or says that `what` is missing.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.peek() != byte {
            return Err(self.missing(what));
        }
        self.pos += 1;
        Ok(())
    }

    /// The fault "`what` expected here".
    #[cold]
    #[inline(never)]
    pub fn missing(&self, what: &str) -> Fault {
        let end = if self.pos >= self.text.len() {
            ", but the text ends"
        } else {
            ""
        };
        Fault::syntax(self.pos, &format!("{what} expected{end}"))
    }

    /// Nothing but blanks may follow.
    #[inline]
    pub fn end(&mut self) -> Result<(), Fault> {
        if self.pos < self.text.len() {
            self.blanks();
            if self.pos < self.text.len() {
                return Err(self.missing("end of the record"));
            }
        }
        Ok(())
    }

    /// Passes `null`, `true` or `false`.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.missing("value"));
        }
        self.pos += word.len();
        Ok(())
    }

    /// Passes a string; the cursor is at its opening quote.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>, Fault> {
        debug_assert_eq!(self.peek(), b'"');
        let start = self.pos + 1;
        let end = special(self.text.as_bytes(), start);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(Text {
                raw: &self.text[start..end],
                escaped: false,
            });
        }
        self.string_with_escapes(start, end)
    }

    /// The rest of a string, from the first byte that is neither quote nor plain.
    #[inline(never)]
    fn string_with_escapes(&mut self, start: usize, mut at: usize) -> Result<Text<'a>, Fault> {
        let bytes = self.text.as_bytes();
        loop {
            self.pos = at;
            match bytes.get(at) {
                Some(b'"') => {
                    self.pos = at + 1;
                    return Ok(Text {
                        raw: &self.text[start..at],
                        escaped: true,
                    });
                }
                Some(b'\\') => at = special(bytes, at + self.escape_len(at)?),
                Some(_) => return Err(Fault::syntax(at, "control character in a string")),
                None => return Err(self.missing("closing quote")),
            }
        }
    }

    /// Length of the escape sequence at `at`, a surrogate pair counting as one.
    fn escape_len(&self, at: usize) -> Result<usize, Fault> {
        let bytes = self.text.as_bytes();
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') => match hex4(bytes, at + 2) {
                Some(0xD800..=0xDBFF)
                    if bytes.get(at + 6) == Some(&b'\\')
                        && bytes.get(at + 7) == Some(&b'u')
                        && matches!(hex4(bytes, at + 8), Some(0xDC00..=0xDFFF)) =>
                {
                    Ok(12)
                }
                Some(0xD800..=0xDFFF) => Err(Fault::syntax(at, "half of a surrogate pair")),
                Some(_) => Ok(6),
                None => Err(Fault::syntax(at, "invalid \\u escape")),
            },
            Some(_) => Err(Fault::syntax(at, "invalid escape")),
            None => Err(Fault::syntax(at, "the text ends in a string")),
        }
    }

    /// Passes a number and returns its text.
    #[inline]
    pub fn number(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.pos;
        let mut at = start + usize::from(self.peek() == b'-');
        let integer = digits(bytes, at);
        if integer == at || (bytes[at] == b'0' && integer > at + 1) {
            return Err(Fault::syntax(at, "invalid number"));
        }
        at = integer;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(bytes, at + 1);
            if fraction == at + 1 {
                return Err(Fault::syntax(at, "invalid number"));
            }
            at = fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(bytes, at);
            if exponent == at {
                return Err(Fault::syntax(at, "invalid number"));
            }
            at = exponent;
        }
        self.pos = at;
        Ok(&self.text[start..at])
    }

    /// Passes a number without fraction or exponent that fits 64 bits; `None`, with the cursor
    /// where it was, for any other text.
    #[inline]
    pub fn integer(&mut self) -> Option<i64> {
        let bytes = self.text.as_bytes();
        let negative = self.peek() == b'-';
        let start = self.pos + usize::from(negative);
        let mut at = start;
        let mut value = 0u64;
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let (run, digits) = leading_digits(u64::from_le_bytes(*chunk));
            if at > start + 8 {
                break;
            }
            value = value * POWERS_OF_TEN[run] + digits;
            at += run;
            if run < 8 {
                return self.finish_integer(start, at, negative, value);
            }
        }
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            value = value
                .checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))?;
            at += 1;
        }
        self.finish_integer(start, at, negative, value)
    }

    #[inline]
    fn finish_integer(
        &mut self,
        start: usize,
        at: usize,
        negative: bool,
        value: u64,
    ) -> Option<i64> {
        let bytes = self.text.as_bytes();
        if at == start
            || (bytes[start] == b'0' && at > start + 1)
            || matches!(bytes.get(at), Some(b'.' | b'e' | b'E'))
        {
            return None;
        }
        let signed = if negative {
            0i64.checked_sub_unsigned(value)?
        } else {
            i64::try_from(value).ok()?
        };
        self.pos = at;
        Some(signed)
    }

    /// Passes any value, checking it; `depth` containers are open around it.
    #[inline]
    pub fn skip(&mut self, depth: u32) -> Result<(), Fault> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_container(depth),
            _ => self.skip_plain(),
        }
    }

    /// Passes any value, checking it, and returns its text.
    #[inline]
    pub fn raw(&mut self, depth: u32) -> Result<&'a str, Fault> {
        let start = self.pos;
        self.skip(depth)?;
        Ok(self.since(start))
    }

    /// Passes a number, `true`, `false` or `null`.
    #[inline]
    fn skip_plain(&mut self) -> Result<(), Fault> {
        match self.peek() {
            b'-' | b'0'..=b'9' if self.integer().is_some() => Ok(()),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => Err(self.missing("value")),
        }
    }

    /// Passes an object or array without recursion.
    fn skip_container(&mut self, base: u32) -> Result<(), Fault> {
        let mut levels = Levels::default();
        loop {
            let open = self.peek();
            match open {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    if base + levels.open >= DEPTH_MAX {
                        return Err(Fault::too_deep(self.pos));
                    }
                    let object = open == b'{';
                    levels.enter(object);
                    self.pos += 1;
                    self.blanks();
                    if self.peek() != if object { b'}' } else { b']' } {
                        if object {
                            self.member()?;
                        }
                        continue;
                    }
                    self.pos += 1;
                    levels.leave();
                }
                _ => self.skip_plain()?,
            }
            // A value is complete: close what ends here, until another one follows.
            loop {
                if levels.open == 0 {
                    return Ok(());
                }
                let object = levels.in_object();
                self.blanks();
                match self.peek() {
                    b',' => {
                        self.pos += 1;
                        self.blanks();
                        if object {
                            self.member()?;
                        }
                        break;
                    }
                    b'}' if object => self.pos += 1,
                    b']' if !object => self.pos += 1,
                    _ => {
                        return Err(self.missing(if object {
                            "comma or closing brace"
                        } else {
                            "comma or closing bracket"
                        }));
                    }
                }
                levels.leave();
            }
        }
    }

    /// Passes a member's name, the colon and the blanks around it; the cursor ends at the value.
    #[inline]
    pub fn member(&mut self) -> Result<Text<'a>, Fault> {
        if self.peek() != b'"' {
            return Err(self.missing("member name"));
        }
        let name = self.string()?;
        self.blanks();
        self.expect(b':', "colon")?;
        self.blanks();
        Ok(name)
    }

    /// Walks over an object's members: passes the opening brace or the comma, whichever is next,
    /// and the following name, or the closing brace. `first` says that the cursor is at the opening
    /// brace.
    #[inline]
    pub fn next_member(&mut self, first: bool) -> Result<Option<Text<'a>>, Fault> {
        self.blanks();
        if first {
            self.expect(b'{', "object")?;
            self.blanks();
            if self.peek() == b'}' {
                self.pos += 1;
                return Ok(None);
            }
        } else {
            if self.peek() == b'}' {
                self.pos += 1;
                return Ok(None);
            }
            self.expect(b',', "comma or closing brace")?;
            self.blanks();
        }
        self.member().map(Some)
    }

    /// Walks over an array's elements: passes the opening bracket or the comma, whichever is next,
    /// and says that a value follows; or passes the closing bracket. `first` says that the cursor
    /// is at the opening bracket.
    #[inline]
    pub fn next_item(&mut self, first: bool) -> Result<bool, Fault> {
        self.blanks();
        if first {
            self.expect(b'[', "array")?;
            self.blanks();
            if self.peek() == b']' {
                self.pos += 1;
                return Ok(false);
            }
            return Ok(true);
        }
        if self.peek() == b']' {
            self.pos += 1;
            return Ok(false);
        }
        self.expect(b',', "comma or closing bracket")?;
        self.blanks();
        Ok(true)
    }
}

/// Appends the characters that `raw` means; its escapes have been checked by the scanner.
pub(super) fn unescape(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let bytes = rest.as_bytes();
        let mut used = 2;
        out.push(match bytes.get(at + 1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                used = 6;
                let mut code = hex4(bytes, at + 2).unwrap_or(0xFFFD);
                if (0xD800..0xDC00).contains(&code) {
                    used = 12;
                    code = 0x10000
                        + ((code - 0xD800) << 10)
                        + (hex4(bytes, at + 8).unwrap_or(0xDC00) - 0xDC00);
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(other) => char::from(*other),
            None => break,
        });
        rest = &rest[at + used..];
    }
    out.push_str(rest);
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    four.iter().try_fold(0, |code, byte| {
        Some(code << 4 | char::from(*byte).to_digit(16)?)
    })
}

/// End of the run of digits that begins at `at`.
#[inline]
fn digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    at
}

const POWERS_OF_TEN: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// How many of the 8 bytes (first byte lowest) are digits before any other byte, and the number
/// that they write.
#[inline]
pub(super) fn leading_digits(word: u64) -> (usize, u64) {
    let values = word ^ 0x3030_3030_3030_3030;
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let run = (others.trailing_zeros() / 8) as usize;
    if run == 0 {
        return (0, 0);
    }
    let pairs = values << (64 - 8 * run);
    let pairs = pairs.wrapping_mul(10).wrapping_add(pairs >> 8) & 0x00FF_00FF_00FF_00FF;
    let low = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    (run, low.wrapping_add(high) >> 32)
}

/// Position of the first quote, backslash or control character at or after `from`; the length if
/// there is none.
#[inline]
fn special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let mask = special_mask(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += 16;
    }
    special_in_tail(bytes, at)
}

/// The same for fewer than 16 bytes: looks at the last 16 again where the text is that long.
#[inline]
fn special_in_tail(bytes: &[u8], at: usize) -> usize {
    if let Some(chunk) = bytes.last_chunk::<16>() {
        let mask = special_mask(chunk) >> (at.min(bytes.len()) + 16 - bytes.len());
        return if mask != 0 {
            at + mask.trailing_zeros() as usize
        } else {
            bytes.len()
        };
    }
    (at..bytes.len())
        .find(|i| matches!(bytes[*i], b'"' | b'\\' | 0..0x20))
        .unwrap_or(bytes.len())
}

/// One bit a byte: quote, backslash or control character.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn special_mask(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 belongs to every x86-64 target; the load reads the 16 bytes that `chunk` borrows
    // and needs no alignment.
    unsafe {
        let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
        let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, backslashes), controls)) as u32
    }
}

/// One bit a byte: quote, backslash or control character.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn special_mask(chunk: &[u8; 16]) -> u32 {
    chunk.iter().enumerate().fold(0, |mask, (i, byte)| {
        mask | u32::from(matches!(byte, b'"' | b'\\' | 0..0x20)) << i
    })
}
