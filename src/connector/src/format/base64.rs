//! Base64, as Kafka Connect writes bytes into JSON.
//!
//! Law: what is read is RFC 4648, in its standard alphabet or the one for URLs, with its padding;
//! no line breaks, no bits that are left over. So one text is at most one value.

/// Which characters stand for 62 and 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// `+` and `/`.
    Standard,
    /// `-` and `_`.
    Url,
}

const NONE: u8 = 0xFF;

const fn table(alphabet: Alphabet) -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut i = 0u8;
    while i < 26 {
        table[(b'A' + i) as usize] = i;
        table[(b'a' + i) as usize] = 26 + i;
        i += 1;
    }
    let mut i = 0u8;
    while i < 10 {
        table[(b'0' + i) as usize] = 52 + i;
        i += 1;
    }
    let (plus, slash) = match alphabet {
        Alphabet::Standard => (b'+', b'/'),
        Alphabet::Url => (b'-', b'_'),
    };
    table[plus as usize] = 62;
    table[slash as usize] = 63;
    table
}

static STANDARD: [u8; 256] = table(Alphabet::Standard);
static URL: [u8; 256] = table(Alphabet::Url);

/// Appends the bytes that `text` stands for; `None`, with `out` undefined, if it is no base64.
pub(super) fn decode(text: &[u8], alphabet: Alphabet, out: &mut Vec<u8>) -> Option<()> {
    let table = match alphabet {
        Alphabet::Standard => &STANDARD,
        Alphabet::Url => &URL,
    };
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|b| **b == b'=')
        .count();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = &text[..text.len() - padding];
    out.reserve(digits.len() / 4 * 3 + 2);
    let (quads, tail) = digits.as_chunks::<4>();
    for quad in quads {
        let [a, b, c, d] = quad.map(|byte| table[usize::from(byte)]);
        if (a | b | c | d) & 0xC0 != 0 {
            return None;
        }
        out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    let digit = |i: usize| Some(table[usize::from(tail[i])]).filter(|value| *value != NONE);
    match tail.len() {
        0 => {}
        2 => {
            let (a, b) = (digit(0)?, digit(1)?);
            if b & 0x0F != 0 {
                return None;
            }
            out.push(a << 2 | b >> 4);
        }
        3 => {
            let (a, b, c) = (digit(0)?, digit(1)?, digit(2)?);
            if c & 0x03 != 0 {
                return None;
            }
            out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
        }
        _ => return None,
    }
    Some(())
}

/// Appends `bytes` in the standard alphabet with padding.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u8| DIGITS[usize::from(value & 63)];
    for chunk in bytes.chunks(3) {
        let at = |i: usize| chunk.get(i).copied().unwrap_or(0);
        let (a, b, c) = (at(0), at(1), at(2));
        let four = [
            digit(a >> 2),
            digit(a << 4 | b >> 4),
            if chunk.len() > 1 {
                digit(b << 2 | c >> 6)
            } else {
                b'='
            },
            if chunk.len() > 2 { digit(c) } else { b'=' },
        ];
        out.extend_from_slice(&four);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("AA==", b"\0"),
            ("BNI=", b"\x04\xd2"),
            ("+/+/", b"\xfb\xff\xbf"),
            ("Zm9vYmFy", b"foobar"),
        ] {
            let mut out = Vec::new();
            decode(text.as_bytes(), Alphabet::Standard, &mut out).unwrap();
            assert_eq!(out, bytes);
            let mut back = Vec::new();
            encode(bytes, &mut back);
            assert_eq!(back, text.as_bytes());
        }
        let mut out = Vec::new();
        decode(b"-_-_BNI=", Alphabet::Url, &mut out).unwrap();
        assert_eq!(out, b"\xfb\xff\xbf\x04\xd2");
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            "A", "AAAAA", "AB==", "AAB=", "A===", "====", "AA=A", "BNI", "BNI\n", "12.5", "-_-_",
        ] {
            let read = decode(text.as_bytes(), Alphabet::Standard, &mut Vec::new());
            assert!(read.is_none(), "{text}");
        }
    }
}
