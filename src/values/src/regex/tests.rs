//! What the comparisons with PostgreSQL do not ask: limits, and that nothing runs for ever.

use super::*;

fn matches(pattern: &str, text: &str) -> Result<bool> {
    Regex::new(pattern, Flags::default())?.is_match(text)
}

fn message(result: Result<bool>) -> String {
    result.map_or_else(|e| e.message().to_string(), |found| found.to_string())
}

#[test]
fn patterns_too_large_are_refused() {
    let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
    let complex = "invalid regular expression: regular expression is too complex";
    assert_eq!(message(matches(&deep, "a")), complex);
    assert_eq!(message(matches("((a{255}){255}){255}", "a")), complex);
    assert_eq!(
        message(matches("((){255}){255}{255}", "a")),
        "invalid regular expression: quantifier operand invalid"
    );
    assert_eq!(message(matches("(((){255}){255}){255}", "a")), complex);
}

#[test]
fn states_are_forgotten_when_there_are_too_many() {
    // Every set of positions of an `a` among the last 13 characters is a state.
    let regex = Regex::new("a[ab]{13}c", Flags::default()).unwrap();
    let mut bits = 0x2545_f491u32;
    let mut letter = || {
        bits ^= bits << 13;
        bits ^= bits >> 17;
        bits ^= bits << 5;
        if bits & 1 == 0 { 'a' } else { 'b' }
    };
    let mut text: String = (0..200_000).map(|_| letter()).collect();
    assert!(!regex.is_match(&text).unwrap());
    text.push_str("abbbbbbbbbbbbbc");
    let mut extents = Extents::new(true);
    assert!(regex.find_at(&text, 0, &mut extents).unwrap());
    assert_eq!(extents.whole(), (200_000, 200_015));
}

#[test]
fn a_search_that_never_ends_is_stopped() {
    // Twice a length and one more is never even.
    let pattern = r"^(a+)(a+)(a+)(a+)\1\2\3\4a$";
    let text = "a".repeat(3_000);
    let error = matches(pattern, &text).unwrap_err();
    assert_eq!(error.state(), SqlState::STATEMENT_TOO_COMPLEX);
}

#[test]
fn looks_see_the_whole_text() {
    assert!(matches("(?<=x.*)y", &format!("x{}y", "-".repeat(10_000))).unwrap());
    assert!(!matches("(?<!x.*)y", &format!("x{}y", "-".repeat(10_000))).unwrap());
}
