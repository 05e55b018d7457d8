//! COLLATE. Texts are compared byte by byte, which is what the collations `C` and `POSIX` say and
//! what `default` means here; so these are taken and change nothing, and others are refused.

use crate::names::fold;
use datafusion_sql::sqlparser::ast::ObjectName;
use tidemark_common::{Error, Result, SqlState};

/// Whether a collation is the order that texts have anyway.
///
/// Errors: `0A000` for the collation of a language, `42704` for what is none.
pub fn check_collation(name: &ObjectName) -> Result<()> {
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| fold(ident.clone()))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let schema = parts.len() < 2 || parts[parts.len() - 2] == "pg_catalog";
    let last = parts.last().copied().unwrap_or_default();
    let bytewise = ["C", "POSIX", "default", "ucs_basic", "C.UTF-8", "C.utf8"];
    if schema && bytewise.contains(&last) {
        return Ok(());
    }
    if schema && is_locale(last) {
        return Err(
            Error::unsupported(format!("collation \"{last}\" is not supported"))
                .with_hint("Texts are ordered byte by byte, as by collation \"C\"."),
        );
    }
    let known_by = parts.join("\".\"");
    Err(Error::user(
        SqlState::UNDEFINED_OBJECT,
        format!("collation \"{known_by}\" for encoding \"UTF8\" does not exist"),
    ))
}

/// `en_US`, `de_DE.utf8`, `sr-Latn-RS-x-icu`, `und-x-icu`.
fn is_locale(name: &str) -> bool {
    let language = name.split(['_', '-', '.', '@']).next().unwrap_or_default();
    let short = (2..=3).contains(&language.len());
    short
        && name.len() > language.len()
        && language.chars().all(|c| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_sql::sqlparser::ast::Ident;

    #[test]
    fn only_the_order_of_bytes_is_taken() {
        let state = |parts: &[&str]| {
            let quoted = parts.iter().map(|p| Ident::with_quote('"', *p)).collect();
            let checked = check_collation(&ObjectName::from(Vec::<Ident>::clone(&quoted)));
            checked.err().map(|e| e.state().0)
        };
        assert_eq!(state(&["C"]), None);
        assert_eq!(state(&["pg_catalog", "default"]), None);
        assert_eq!(state(&["en_US.utf8"]), Some("0A000"));
        assert_eq!(state(&["und-x-icu"]), Some("0A000"));
        assert_eq!(state(&["Invalid"]), Some("42704"));
        assert_eq!(state(&["s", "C"]), Some("42704"));
    }
}
