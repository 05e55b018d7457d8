//! Texts that nest deep: as deep as the limit, deeper, and broken anywhere in between.

use super::random::Random;
use crate::format::scan::{DEPTH_MAX, Scanner};

fn is_json(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.blanks();
    scanner.skip(0).and_then(|()| scanner.end()).is_ok()
}

/// Random deep texts, whole and with a byte changed, against a checker that keeps a plain stack.
/// They run on a small stack: a recursion anywhere would end the process.
#[test]
fn deep_texts_are_read_as_a_plain_stack_reads_them() {
    let run = || {
        let mut random = Random::new(7);
        for round in 0..300 {
            let depth = 1 + random.below(if round % 10 == 0 { 40_000 } else { 300 });
            let kinds: Vec<bool> = (0..depth).map(|_| random.below(2) == 0).collect();
            let open = |object: &bool| if *object { "{\"a\":" } else { "[" };
            let close = |object: &bool| if *object { '}' } else { ']' };
            let mut text: Vec<u8> = kinds.iter().map(open).collect::<String>().into();
            text.push(b'1');
            text.extend(kinds.iter().rev().map(close).collect::<String>().bytes());
            if random.below(3) == 0 {
                let at = random.below(text.len() as u64) as usize;
                text[at] = *random.of(b"[]{}1,");
            }
            let text = String::from_utf8(text).unwrap();
            let expected = is_json_of_containers(&text) && depth_of(&text) <= DEPTH_MAX;
            assert_eq!(is_json(&text), expected, "round {round}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(128 * 1024);
    thread.spawn(run).unwrap().join().unwrap();
}

/// How deep the brackets of a text nest.
fn depth_of(text: &str) -> u32 {
    let (mut depth, mut deepest) = (0, 0);
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest as u32
}

/// What may stand next in a JSON text.
enum Next {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    CommaOrEnd,
}

/// Whether a text without blanks, escapes, signs and words is JSON, by a stack of its brackets.
fn is_json_of_containers(text: &str) -> bool {
    let (mut open, mut next, mut rest) = (Vec::new(), Next::Value, text);
    while let Some(first) = rest.chars().next() {
        let name = || Some(&rest[rest[1..].find('"')? + 2..]);
        (next, rest) = match (next, first) {
            (Next::Value | Next::ValueOrEnd, '[') => {
                open.push(']');
                (Next::ValueOrEnd, &rest[1..])
            }
            (Next::Value | Next::ValueOrEnd, '{') => {
                open.push('}');
                (Next::NameOrEnd, &rest[1..])
            }
            (Next::Value | Next::ValueOrEnd, '1') => {
                (Next::CommaOrEnd, rest.trim_start_matches('1'))
            }
            (Next::Value | Next::ValueOrEnd, '"') => match name() {
                Some(rest) => (Next::CommaOrEnd, rest),
                None => return false,
            },
            (Next::Name | Next::NameOrEnd, '"') => {
                match name().and_then(|rest| rest.strip_prefix(':')) {
                    Some(rest) => (Next::Value, rest),
                    None => return false,
                }
            }
            (Next::CommaOrEnd, ',') => match open.last() {
                Some('}') => (Next::Name, &rest[1..]),
                Some(_) => (Next::Value, &rest[1..]),
                None => return false,
            },
            (Next::ValueOrEnd | Next::NameOrEnd | Next::CommaOrEnd, end)
                if open.pop() == Some(end) =>
            {
                (Next::CommaOrEnd, &rest[1..])
            }
            _ => return false,
        };
    }
    open.is_empty() && matches!(next, Next::CommaOrEnd)
}
