//! `uuid`: 16 bytes, whose order is PostgreSQL's, and their text form.

use tidemark_common::{Error, Result, SqlState};

/// Bytes of a UUID.
pub const BYTES: usize = 16;

/// Characters of its text, all of them ASCII.
pub const TEXT_BYTES: usize = 36;

/// The text of a UUID's bytes.
pub fn text(bytes: &[u8]) -> [u8; TEXT_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; TEXT_BYTES];
    for (i, byte) in bytes.iter().take(BYTES).enumerate() {
        let hyphens = (2..6).filter(|group| i >= 2 * group).count();
        text[2 * i + hyphens] = DIGITS[usize::from(byte >> 4)];
        text[2 * i + hyphens + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The bytes of a UUID: 32 hexadecimal digits, with a hyphen after any four of them, in braces or
/// not.
///
/// Errors: `22P02`.
pub fn read(text: &str) -> Result<[u8; BYTES]> {
    digits(text).ok_or_else(|| {
        Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type uuid: \"{text}\""),
        )
    })
}

fn digits(text: &str) -> Option<[u8; BYTES]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0; BYTES];
    let mut rest = inner.as_bytes();
    for (i, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        rest = after;
        if i % 2 == 1 && i < BYTES - 1 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_postgresql() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for spelling in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            let written = super::text(&read(spelling).unwrap());
            assert_eq!(written, text.as_bytes(), "{spelling}");
        }
        for wrong in [
            "",
            "a",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
