//! A calculator of regular expressions for comparisons with PostgreSQL: a question a line, fields
//! between tabs with `\n`, `\t` and `\\` as COPY writes them, the answer after it.

use tidemark_values::regex::{Extents, Flags, Regex, Replacement, from_similar};

/// The answer to a question, or `!SQLSTATE message`.
pub fn shown(operation: &str, arguments: &[String]) -> String {
    answer(operation, arguments).unwrap_or_else(|e| format!("!{} {}", e.state().0, e.message()))
}

fn answer(operation: &str, arguments: &[String]) -> tidemark_common::Result<String> {
    let [flags, pattern, text, rest @ ..] = arguments else {
        return Ok("too few arguments".into());
    };
    if operation == "similar" {
        let regex = Regex::new(&from_similar(pattern, flags)?, Flags::default())?;
        let mut extents = Extents::new(true);
        let found = regex.find_at(text, 0, &mut extents)?;
        let group = usize::from(regex.groups() > 0);
        let shown = extents.get(group).filter(|_| found);
        return Ok(format!(
            "{} {}",
            if regex.is_match(text)? { "t" } else { "f" },
            shown.map_or("-", |(a, b)| &text[a..b]),
        ));
    }
    let (flags, _) = Flags::read(flags)?;
    let regex = Regex::new(pattern, flags)?;
    match operation {
        "match" => {
            let mut extents = Extents::new(true);
            let (mut shown, mut from) = (Vec::new(), 0);
            while regex.find_at(text, from, &mut extents)? {
                let first = usize::from(regex.groups() > 0);
                let group = |g: usize| match extents.get(g) {
                    Some((a, b)) => format!("<{}>", &text[a..b]),
                    None => "-".into(),
                };
                let groups = (first..regex.groups().max(first) + 1).map(group);
                let start = text[..extents.whole().0].chars().count() + 1;
                shown.push(format!("{start}{}", groups.collect::<String>()));
                from = extents.next(text);
            }
            assert_eq!(regex.is_match(text)?, !shown.is_empty(), "{pattern} {text}");
            Ok(shown.join(" "))
        }
        "replace" => {
            let mut out = String::new();
            let replacement = Replacement::new(&rest[0]);
            let nth = rest[1].parse().unwrap_or(0);
            regex.replace(text, &replacement, 0, nth, |_| Ok(()), &mut out)?;
            Ok(out)
        }
        other => Ok(format!("no operation {other}")),
    }
}

/// Fields of a line.
pub fn fields(line: &str) -> Vec<String> {
    let field = |f: &str| {
        let (mut out, mut characters) = (String::new(), f.chars());
        while let Some(c) = characters.next() {
            match c {
                '\\' => match characters.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some('b') => out.push('\x08'),
                    Some('f') => out.push('\x0c'),
                    Some('v') => out.push('\x0b'),
                    Some(c) => out.push(c),
                    None => {}
                },
                c => out.push(c),
            }
        }
        out
    };
    line.split('\t').map(field).collect()
}

#[allow(dead_code)]
fn main() {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut fields = fields(&line);
        let expected = fields.pop().unwrap_or_default();
        let answer = shown(&fields[0], &fields[1..]);
        if answer != expected {
            println!("{line}\n  ours       {answer:?}\n  PostgreSQL {expected:?}");
        }
    }
}
