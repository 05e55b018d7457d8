//! Lines of text and CSV, whose bytes come in parts that end anywhere, and what is refused.

use super::*;

fn some(s: &str) -> Option<String> {
    Some(s.to_string())
}

fn text() -> LineFormat {
    LineFormat {
        csv: false,
        delimiter: b'\t',
        quote: b'"',
        escape: b'"',
        null: "\\N".into(),
        force_null: Vec::new(),
        force_not_null: Vec::new(),
    }
}

fn csv() -> LineFormat {
    LineFormat {
        csv: true,
        delimiter: b',',
        null: String::new(),
        ..text()
    }
}

fn fields(lines: &Lines) -> Vec<Vec<Option<String>>> {
    let of = |line| lines.line(line).into_iter().map(|f| f.map(String::from));
    (0..lines.len()).map(|line| of(line).collect()).collect()
}

/// The lines of data that comes in parts of some bytes, with no more than a few held.
fn split(data: &[u8], format: &LineFormat, bytes: usize) -> Vec<Vec<Option<String>>> {
    let mut splitter = Splitter::new(format.clone());
    splitter.wanted = 0;
    let mut rows = Vec::new();
    for part in data.chunks(bytes) {
        rows.extend(fields(&splitter.add(part).unwrap()));
        splitter.wanted = 0;
    }
    rows.extend(fields(&splitter.finish().unwrap()));
    rows
}

fn error(data: &[u8], format: LineFormat) -> (&'static str, String) {
    let mut splitter = Splitter::new(format);
    splitter.wanted = 0;
    let split = splitter.add(data).map(drop);
    let error = split
        .and_then(|()| splitter.finish().map(drop))
        .unwrap_err();
    (error.state().0, error.message().to_string())
}

#[test]
fn text_and_csv_lines_split_wherever_their_parts_end() {
    for bytes in 1..30 {
        assert_eq!(
            split(b"1\ta\\tb\n2\t\\N\n\\.\n3\tx\n", &text(), bytes),
            [vec![some("1"), some("a\tb")], vec![some("2"), None]]
        );
        let text = "1,\"x,\"\"y\n\"\r\n2,\n3,\"\"\n4,\u{e4}";
        assert_eq!(
            split(text.as_bytes(), &csv(), bytes),
            [
                vec![some("1"), some("x,\"y\n")],
                vec![some("2"), None],
                vec![some("3"), some("")],
                vec![some("4"), some("\u{e4}")]
            ]
        );
        assert_eq!(
            split(b"1,a\n\\.\n2,b\n", &csv(), bytes),
            [vec![some("1"), some("a")]]
        );
    }
}

#[test]
fn escapes_and_forced_columns_are_read_wherever_their_parts_end() {
    for bytes in 1..12 {
        let lines = "a\\\nb\tc\\x41\\101\\xc3\\xa4\\q\r\n\\\\\t\\\\N\n";
        assert_eq!(
            split(lines.as_bytes(), &text(), bytes),
            [
                vec![some("a\nb"), some("cAA\u{e4}q")],
                vec![some("\\"), some("\\N")]
            ]
        );
        let format = LineFormat {
            escape: b'\\',
            force_null: vec![true, false],
            force_not_null: vec![false, true],
            ..csv()
        };
        assert_eq!(
            split(b"\"\",\n\"a\\\"\nb\",\"\\\\\"\n", &format, bytes),
            [vec![None, some("")], vec![some("a\"\nb"), some("\\")]]
        );
    }
}

#[test]
fn what_is_no_line_is_refused() {
    for data in [&b"\\xff\n"[..], b"\\0\n", b"a\xff\n", b"a\xc3"] {
        assert_eq!(error(data, text()).0, "22021", "{data:?}");
    }
    // Neither of two fields is text, though their bytes together would be.
    assert_eq!(error(b"\\xc3\t\\xa4\n", text()).0, "22021");
    let message = |data: &[u8]| error(data, csv());
    assert_eq!(
        message(b"\"a\n"),
        ("22P04", "unterminated CSV quoted field".into())
    );
    assert_eq!(
        message(b"a\rb\n"),
        ("22P04", "unquoted carriage return found in data".into())
    );
}

#[test]
fn columns_are_those_of_all_lines() {
    let mut splitter = Splitter::new(text());
    splitter.wanted = 0;
    let mut lines = splitter.add(b"a\tb\n1\t\\N\n2\tx\\ty\n3").unwrap();
    lines.drop_first();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines.column(0), StringArray::from(vec!["1", "2"]));
    let second = StringArray::from(vec![None, Some("x\ty")]);
    assert_eq!(lines.column(1), second);
    assert_eq!(lines.other_than(2), None);
    assert_eq!(lines.other_than(1), Some((0, 2)));
    assert_eq!(splitter.held_bytes(), 1);
    let rest = splitter.finish().unwrap();
    assert_eq!(rest.other_than(2), Some((0, 1)));
}

#[test]
fn no_more_than_a_part_is_held_as_fields() {
    let mut splitter = Splitter::new(text());
    let lines = "1\n".repeat(PART_BYTES / 4);
    assert_eq!(splitter.add(lines.as_bytes()).unwrap().len(), 0);
    let split = splitter.add(lines.as_bytes()).unwrap();
    assert_eq!(split.len(), PART_BYTES / 2);
    assert_eq!(splitter.held_bytes(), 0);
    // A long line is not looked at again with every message.
    let long = "x".repeat(PART_BYTES);
    assert!(splitter.add(long.as_bytes()).unwrap().is_empty());
    assert_eq!(splitter.wanted, 2 * PART_BYTES);
}
