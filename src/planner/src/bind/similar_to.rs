//! `text SIMILAR TO 'pattern'`, SQL's own patterns: `%` and `_` as in LIKE, with `| * + ? {m,n} ( )
//! [ ]` as in regular expressions, over the whole text. DataFusion takes the pattern for a regular
//! expression, so it is turned into one here, as PostgreSQL does.

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Value};
use tidemark_common::{Error, Result};

/// Rewrites SIMILAR TO into `~` or `!~`. Errors: `0A000` for a pattern that is not a constant.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::SimilarTo {
        negated,
        expr: text,
        pattern,
        escape_char,
    } = expr
    else {
        return Ok(());
    };
    let escape = match escape_char.as_ref().map(|v| &v.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(s)) if s.chars().count() <= 1 => s.chars().next(),
        Some(other) => {
            return Err(Error::user(
                tidemark_common::SqlState("22025"),
                format!("invalid escape string {other}"),
            )
            .with_hint("Escape string must be empty or one character."));
        }
    };
    let Expr::Value(value) = pattern.as_mut() else {
        return Err(not_constant());
    };
    match &mut value.value {
        Value::SingleQuotedString(text) => *text = regular_expression(text, escape),
        Value::Null => {}
        _ => return Err(not_constant()),
    }
    let op = if *negated {
        BinaryOperator::PGRegexNotMatch
    } else {
        BinaryOperator::PGRegexMatch
    };
    *expr = Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(Expr::Nested(text.clone())),
        op,
        right: pattern.clone(),
    }));
    Ok(())
}

fn not_constant() -> Error {
    Error::unsupported("SIMILAR TO needs a constant pattern")
        .with_hint("Use the operator ~ with a regular expression.")
}

/// The regular expression that matches what the pattern does.
fn regular_expression(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut characters = pattern.chars();
    let mut bracket = false;
    while let Some(c) = characters.next() {
        match c {
            c if Some(c) == escape => match characters.next() {
                Some(literal) => regex.push_str(&regex_literal(literal)),
                None => regex.push_str(&regex_literal(c)),
            },
            ']' if bracket => {
                bracket = false;
                regex.push(c);
            }
            '\\' => regex.push_str("\\\\"),
            // Within brackets nothing else is special, but for the regex engine these are.
            '[' | '&' | '~' if bracket => {
                regex.push('\\');
                regex.push(c);
            }
            c if bracket => regex.push(c),
            '[' => {
                bracket = true;
                regex.push(c);
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '.' | '^' | '$' => regex.push_str(&regex_literal(c)),
            c => regex.push(c),
        }
    }
    regex.push_str(")$");
    regex
}

/// A character that stands for itself.
fn regex_literal(c: char) -> String {
    if c.is_ascii_punctuation() {
        format!("\\{c}")
    } else {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_regular_expressions() {
        for (pattern, expected) in [
            ("a%b_", "a.*b."),
            ("(foo|bar)+", "(?:foo|bar)+"),
            ("a.b^c$", r"a\.b\^c\$"),
            (r"100\%", r"100\%"),
            ("[a-z%_]x", "[a-z%_]x"),
            ("[[&]", r"[\[\&]"),
            ("x{2,3}", "x{2,3}"),
        ] {
            assert_eq!(
                regular_expression(pattern, Some('\\')),
                format!("(?s)^(?:{expected})$"),
                "{pattern}"
            );
        }
        assert_eq!(regular_expression("a#%", Some('#')), r"(?s)^(?:a\%)$");
        assert_eq!(regular_expression(r"a\%", None), r"(?s)^(?:a\\.*)$");
    }
}
