//! Functions of byte strings, and their text form.

use crate::text::{Part, part};
use tidemark_common::{Error, Result, SqlState};

fn bad_index(index: i64, length: i64) -> Error {
    Error::user(
        SqlState("2202E"),
        format!("index {index} out of valid range, 0..{}", length - 1),
    )
}

fn invalid(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}

/// Byte `index` of a string, in bounds.
fn index_of(bytes: &[u8], index: i64) -> Result<usize> {
    let length = bytes.len() as i64;
    match usize::try_from(index) {
        Ok(at) if at < bytes.len() => Ok(at),
        _ => Err(bad_index(index, length)),
    }
}

/// The byte of a bit, and the bit's place in it.
fn bit_of(bytes: &[u8], index: i64) -> Result<(usize, u32)> {
    let length = bytes.len() as i64 * 8;
    if !(0..length).contains(&index) {
        return Err(bad_index(index, length));
    }
    Ok(((index / 8) as usize, (index % 8) as u32))
}

/// `get_byte`. Errors: `2202E`.
pub fn get_byte(bytes: &[u8], index: i32) -> Result<i32> {
    Ok(i32::from(bytes[index_of(bytes, index.into())?]))
}

/// `set_byte`. Errors: `2202E`.
pub fn set_byte(bytes: &mut [u8], index: i32, value: i32) -> Result<()> {
    let at = index_of(bytes, index.into())?;
    bytes[at] = value as u8;
    Ok(())
}

/// `get_bit`; the first bit is a byte's lowest. Errors: `2202E`.
pub fn get_bit(bytes: &[u8], index: i64) -> Result<i32> {
    let (at, bit) = bit_of(bytes, index)?;
    Ok(i32::from(bytes[at] >> bit & 1))
}

/// `set_bit`. Errors: `2202E`, `22023` for another value than 0 and 1.
pub fn set_bit(bytes: &mut [u8], index: i64, value: i32) -> Result<()> {
    let (at, bit) = bit_of(bytes, index)?;
    match value {
        0 => bytes[at] &= !(1 << bit),
        1 => bytes[at] |= 1 << bit,
        _ => return Err(invalid("new bit must be 0 or 1")),
    }
    Ok(())
}

/// `substring`. Errors: `22011` for a negative length.
pub fn substring(bytes: &[u8], start: i32, length: Option<i32>) -> Result<&[u8]> {
    let Part { skip, take } = part(start, length)?;
    let from = skip.min(bytes.len());
    Ok(&bytes[from..take.map_or(bytes.len(), |n| (from + n).min(bytes.len()))])
}

/// `overlay`, into `out`. Errors: `22011` for a start before the first byte, `22003`.
pub fn overlay(
    bytes: &[u8],
    new: &[u8],
    start: i32,
    length: Option<i32>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let length = length.unwrap_or(new.len() as i32);
    let end = crate::text::overlay_end(start, length)?;
    out.extend_from_slice(substring(bytes, 1, Some(start - 1))?);
    out.extend_from_slice(new);
    out.extend_from_slice(substring(bytes, end, None)?);
    Ok(())
}

/// Where `wanted` begins, from 1; 0 if nowhere.
pub fn position(bytes: &[u8], wanted: &[u8]) -> i32 {
    if wanted.is_empty() {
        return 1;
    }
    let at = bytes.windows(wanted.len()).position(|w| w == wanted);
    at.map_or(0, |at| at as i32 + 1)
}

/// Without the bytes of a set at the start, the end, or both.
pub fn trim<'a>(bytes: &'a [u8], set: &[u8], start: bool, end: bool) -> &'a [u8] {
    let kept = |b: &u8| !set.contains(b);
    let from = if start {
        bytes.iter().position(kept).unwrap_or(bytes.len())
    } else {
        0
    };
    let bytes = &bytes[from..];
    let to = if end {
        bytes.iter().rposition(kept).map_or(0, |at| at + 1)
    } else {
        bytes.len()
    };
    &bytes[..to]
}

/// `bytes LIKE pattern`, and the same of characters.
///
/// Errors: `22025` for a pattern that ends with its escape, where it is compared that far.
pub fn like<T: Copy + PartialEq + From<u8>>(bytes: &[T], pattern: &[T]) -> Result<bool> {
    let is = |c: &T, byte: u8| *c == T::from(byte);
    let (mut at, mut p) = (0, 0);
    // Where the last `%` stands, and from where its rest was tried last.
    let mut back: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(c) if is(c, b'%') => {
                p += 1;
                back = Some((p, at));
                continue;
            }
            Some(c) if is(c, b'_') && at < bytes.len() => {
                (p, at) = (p + 1, at + 1);
                continue;
            }
            None if at == bytes.len() => return Ok(true),
            Some(c) if !is(c, b'_') && at < bytes.len() => {
                let escaped = is(c, b'\\');
                let literal = if escaped { pattern.get(p + 1) } else { Some(c) };
                let Some(literal) = literal else {
                    return Err(Error::user(
                        SqlState("22025"),
                        "LIKE pattern must not end with escape character",
                    ));
                };
                if bytes.get(at) == Some(literal) {
                    (p, at) = (p + 1 + usize::from(escaped), at + 1);
                    continue;
                }
            }
            _ => {}
        }
        match &mut back {
            Some((after, from)) if *from < bytes.len() => {
                *from += 1;
                (p, at) = (*after, *from);
            }
            _ => return Ok(false),
        }
    }
}

/// A pattern of LIKE with another escape, or none, as one with the backslash, into `out`.
///
/// Errors: `22025` for an escape of more than one byte.
pub fn like_escape(pattern: &[u8], escape: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if escape.len() > 1 {
        return Err(Error::user(SqlState("22025"), "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let escape = escape.first();
    if escape == Some(&b'\\') {
        out.extend_from_slice(pattern);
        return Ok(());
    }
    let mut escaped = false;
    for b in pattern {
        if Some(b) == escape && !escaped {
            out.push(b'\\');
            escaped = true;
            continue;
        }
        if *b == b'\\' && !escaped {
            out.push(b'\\');
        }
        out.push(*b);
        escaped = false;
    }
    Ok(())
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Two digits of base 16 for each.
    Hex,
    /// In lines of 76 characters.
    Base64,
    /// Bytes beyond ASCII as `\nnn`.
    Escape,
}

impl Encoding {
    /// By its name. Errors: `22023`.
    pub fn named(name: &str) -> Result<Encoding> {
        [
            ("hex", Encoding::Hex),
            ("base64", Encoding::Base64),
            ("escape", Encoding::Escape),
        ]
        .into_iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, encoding)| encoding)
        .ok_or_else(|| invalid(format!("unrecognized encoding: \"{name}\"")))
    }

    /// Appends bytes as text.
    pub fn encode(self, bytes: &[u8], out: &mut String) {
        match self {
            Encoding::Hex => encode_hex(bytes, out),
            Encoding::Base64 => encode_base64(bytes, out),
            Encoding::Escape => encode_escape(bytes, out),
        }
    }

    /// Appends a text's bytes. Errors: `22023`, `22P02`.
    pub fn decode(self, text: &str, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Encoding::Hex => decode_hex(text, out),
            Encoding::Base64 => decode_base64(text, out),
            Encoding::Escape => decode_escape(text, out),
        }
    }
}

fn encode_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes that a line of 76 characters holds.
const LINE_BYTES: usize = 57;

fn encode_base64(bytes: &[u8], out: &mut String) {
    let digit = |group: u32, shift: u32| char::from(BASE64[(group >> shift & 63) as usize]);
    for line in bytes.chunks(LINE_BYTES) {
        for three in line.chunks(3) {
            let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
            let group = byte(0) << 16 | byte(1) << 8 | byte(2);
            out.push(digit(group, 18));
            out.push(digit(group, 12));
            out.push(if three.len() > 1 {
                digit(group, 6)
            } else {
                '='
            });
            out.push(if three.len() > 2 {
                digit(group, 0)
            } else {
                '='
            });
        }
        // A full line is broken also where nothing follows.
        if line.len() == LINE_BYTES {
            out.push('\n');
        }
    }
}

fn encode_escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            0 | 0x80.. => {
                out.push('\\');
                for shift in [6, 3, 0] {
                    out.push(char::from(b'0' + (byte >> shift & 7)));
                }
            }
            b'\\' => out.push_str("\\\\"),
            byte => out.push(char::from(*byte)),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\t' | '\r')
}

fn decode_hex(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut characters = text.chars();
    let digit = |c: char| {
        c.to_digit(16)
            .map(|d| d as u8)
            .ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))
    };
    while let Some(c) = characters.next() {
        if is_space(c) {
            continue;
        }
        let high = digit(c)?;
        let Some(low) = characters.next() else {
            return Err(invalid("invalid hexadecimal data: odd number of digits"));
        };
        out.push(high << 4 | digit(low)?);
    }
    Ok(())
}

fn decode_base64(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let (mut group, mut digits, mut padding) = (0u32, 0, 0);
    for c in text.chars().filter(|c| !is_space(*c)) {
        let value = if c == '=' {
            if padding == 0 {
                padding = match digits {
                    2 => 1,
                    3 => 2,
                    _ => return Err(invalid("unexpected \"=\" while decoding base64 sequence")),
                };
            }
            0
        } else {
            let at = BASE64.iter().position(|b| char::from(*b) == c);
            at.ok_or_else(|| {
                invalid(format!(
                    "invalid symbol \"{c}\" found while decoding base64 sequence"
                ))
            })? as u32
        };
        group = group << 6 | value;
        digits += 1;
        if digits == 4 {
            out.push((group >> 16) as u8);
            if padding != 1 {
                out.push((group >> 8) as u8);
            }
            if padding == 0 {
                out.push(group as u8);
            }
            (group, digits) = (0, 0);
        }
    }
    if digits != 0 {
        return Err(invalid("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(())
}

fn decode_escape(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                out.push(b'\\');
                rest = after;
            }
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                return Err(Error::user(
                    SqlState::INVALID_TEXT,
                    "invalid input syntax for type bytea",
                ));
            }
        }
    }
    Ok(())
}

/// Appends the text form, `\x` and digits of base 16.
pub fn write(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    encode_hex(bytes, out);
}

/// Appends the bytes of a text form, of either kind.
///
/// Errors: `22023`, `22P02`.
pub fn read(text: &str, out: &mut Vec<u8>) -> Result<()> {
    match text.strip_prefix("\\x") {
        Some(digits) => decode_hex(digits, out),
        None => decode_escape(text, out),
    }
}

/// PostgreSQL's names of encodings, without what does not tell them apart.
const ENCODINGS: [&str; 74] = [
    "abc",
    "alt",
    "big5",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "gb18030",
    "gbk",
    "iso88591",
    "iso885910",
    "iso885913",
    "iso885914",
    "iso885915",
    "iso885916",
    "iso88592",
    "iso88593",
    "iso88594",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso88599",
    "johab",
    "koi8",
    "koi8r",
    "koi8u",
    "latin1",
    "latin10",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "mskanji",
    "muleinternal",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "sqlascii",
    "tcvn",
    "tcvn5712",
    "uhc",
    "unicode",
    "utf8",
    "vscii",
    "win",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows1250",
    "windows1251",
    "windows1252",
    "windows1253",
    "windows1254",
    "windows1255",
    "windows1256",
    "windows1257",
];

/// Refuses every encoding but UTF8; `side` is `source` or `destination`.
///
/// Errors: `22023` for an unknown name, `0A000` for another encoding.
pub fn check_encoding(name: &str, side: &str) -> Result<()> {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    match plain.as_str() {
        "utf8" | "unicode" => Ok(()),
        known if ENCODINGS.contains(&known) || known.starts_with("windows") => Err(
            Error::unsupported(format!("encoding \"{name}\" is not supported"))
                .with_hint("UTF8 is supported."),
        ),
        _ => Err(invalid(format!("invalid {side} encoding name \"{name}\""))),
    }
}

/// Bytes as text. Errors: `22021` for what is no UTF-8.
pub fn to_text(bytes: &[u8]) -> Result<&str> {
    let bad = |at: usize| {
        // As many bytes as the first one asks for.
        let length = match bytes[at] {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        let shown: Vec<String> = bytes[at..]
            .iter()
            .take(length)
            .map(|b| format!("0x{b:02x}"))
            .collect();
        Error::user(
            SqlState("22021"),
            format!(
                "invalid byte sequence for encoding \"UTF8\": {}",
                shown.join(" ")
            ),
        )
    };
    let zero = bytes.iter().position(|b| *b == 0);
    match std::str::from_utf8(bytes) {
        Ok(_) if zero.is_some() => Err(bad(zero.unwrap_or(0))),
        Ok(text) => Ok(text),
        Err(e) => Err(bad(zero.map_or(e.valid_up_to(), |z| z.min(e.valid_up_to())))),
    }
}
