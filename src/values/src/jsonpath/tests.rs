//! Paths over documents of which the answers are known, damaged paths, and limits. PostgreSQL's own
//! answers are in `sql-tests/jsonpath.slt`.

use super::*;
use crate::jsonb;
use tidemark_common::random::Random;

fn found(text: &str, path: &str) -> Result<String> {
    let document = jsonb::parse(text)?;
    let found = Path::parse(path)?.query_array(Asked {
        document: Value::new(&document),
        variables: None,
        silent: false,
    })?;
    Ok(Value::new(&found).to_string())
}

#[test]
fn numbers_lose_no_digit() {
    let digits = "12345678901234567890.1234567890123456789";
    assert_eq!(
        found(&format!("[{digits}]"), "$[*]").unwrap(),
        format!("[{digits}]")
    );
    assert_eq!(found("[0.1, 0.2]", "$[0] + $[1]").unwrap(), "[0.3]");
}

#[test]
fn lax_paths_take_arrays_apart_and_strict_ones_do_not() {
    assert_eq!(found(r#"[{"a": 1}, {"a": 2}]"#, "$.a").unwrap(), "[1, 2]");
    assert!(found(r#"[{"a": 1}]"#, "strict $.a").is_err());
    assert_eq!(found("{}", "$.a").unwrap(), "[]");
}

#[test]
fn what_nests_too_deep_is_refused_and_needs_no_stack() {
    for (open, close) in [("(", ")"), ("$[", "]"), ("- ", ""), ("$ ? (exists(", "))")] {
        let path = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let error = Path::parse(&path).map(|_| ()).unwrap_err();
        assert!(["54001", "42601"].contains(&error.state().0), "{error}");
    }
    let error = Path::parse(&format!("${}", ".a".repeat(100_000)));
    assert_eq!(error.map(|_| ()).unwrap_err().state().0, "54001");
}

#[test]
fn damaged_paths_are_errors() {
    let words = [
        "$",
        ".",
        "a",
        "[",
        "]",
        "*",
        "**",
        "{",
        "}",
        "?",
        "(",
        ")",
        "@",
        "==",
        "1",
        "last",
        "to",
        "\"",
        "exists",
        "like_regex",
        "flag",
        "size()",
        "-",
        "&&",
        "strict",
        "$x",
        ",",
        "1.5e400",
    ];
    let mut random = Random(7);
    for _ in 0..20_000 {
        let count = 1 + random.below(9);
        let path: Vec<&str> = (0..count).map(|_| *random.pick(&words)).collect();
        // Whatever comes of it, it comes to an end.
        let _ = found(r#"{"a": [1, {"a": "x"}]}"#, &path.join(" "));
        if let Ok(path) = Path::parse(&path.join(" ")) {
            assert_reads_as_printed(&path);
        }
    }
}

fn assert_reads_as_printed(path: &Path) {
    let text = path.to_string();
    let again = Path::parse(&text).map(|path| path.to_string());
    assert_eq!(again.as_deref().ok(), Some(text.as_str()), "{text}");
}

#[test]
fn the_normal_form_reads_as_the_path() {
    for (path, text) in [
        ("$.a [ 0 , 1 to last ]", r#"$."a"[0,1 to last]"#),
        ("- $.a * (1 + 2)", r#"(-$."a" * (1 + 2))"#),
        ("$ ?(@.b==1&&!(@>2))", r#"$?(@."b" == 1 && !(@ > 2))"#),
        ("(1).abs()", "(1).abs()"),
        ("(- $).abs()", "(-$).abs()"),
        ("(exists($)).type()", "(exists ($)).type()"),
        ("(!($ == 1))[*]", "(!($ == 1))[*]"),
        ("(($ == 1) is unknown).a", r#"(($ == 1) is unknown)."a""#),
    ] {
        let path = Path::parse(path).unwrap();
        assert_eq!(path.to_string(), text);
        assert_reads_as_printed(&path);
    }
}

#[test]
fn objects_are_told_apart_by_where_postgresql_has_them() {
    let text = r#"[{"a": 1, "n": 123456.789}, {"b": {"c": "x"}}, {"d": [1e80, 0.00]}, {"e": 0}]"#;
    let ids = |path: &str| found(text, path).unwrap();
    assert_eq!(ids("$[*].keyvalue().id"), "[20, 20, 64, 96, 140]");
    assert_eq!(ids("$.b.keyvalue().id"), "[80]");
}
