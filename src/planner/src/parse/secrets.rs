//! CREATE, ALTER and DROP SECRET; and texts of statements without the secrets in them.

use super::{Front, Source, is_blank, is_word};
use crate::statement::{Name, StatementKind};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{MASK, is_secret_option};

impl Front<'_> {
    /// Parses such a statement; `None` if it is something else (nothing is consumed then).
    pub(super) fn secret(&mut self) -> Result<Option<StatementKind>> {
        if !is_word(&self.parser.peek_nth_token_ref(1).token, "secret") {
            return Ok(None);
        }
        let verbs = ["create", "alter", "drop"];
        let Some(verb) = verbs.into_iter().find(|verb| self.word(verb)) else {
            return Ok(None);
        };
        self.parser.advance_token();
        if verb == "drop" {
            let if_exists = self.if_exists();
            let names = self.several(Self::name)?;
            let position = self.position();
            if self.cascade() {
                let message = "DROP SECRET ... CASCADE is not supported";
                return Err(Error::unsupported(message)
                    .at(position)
                    .with_hint("Drop what uses it first."));
            }
            return Ok(Some(StatementKind::DropSecret { names, if_exists }));
        }
        let if_not_exists = verb == "create" && self.if_not_exists();
        let name = self.name()?;
        if self.word("with") {
            self.backend()?;
        }
        self.expect_word("as")?;
        let value = self.string()?;
        Ok(Some(match verb {
            "create" => StatementKind::CreateSecret {
                name,
                if_not_exists,
                value,
            },
            _ => StatementKind::AlterSecret { name, value },
        }))
    }

    /// `(backend = 'meta')`: where secrets are kept.
    fn backend(&mut self) -> Result<()> {
        let position = self.position();
        let options = self.options()?;
        if let Some(option) = options.keys().find(|key| *key != "backend") {
            let message = format!("unknown option \"{option}\" of a secret");
            return Err(Error::user(SqlState::INVALID_PARAMETER, message).at(position));
        }
        match options.get("backend").map(String::as_str) {
            Some("meta") => Ok(()),
            Some(other) => Err(Error::unsupported(format!(
                "secrets of backend '{other}' are not supported"
            ))
            .at(position)
            .with_hint("Write WITH (backend = 'meta').")),
            None => {
                let message = "option \"backend\" is required for a secret";
                Err(Error::user(SqlState::INVALID_PARAMETER, message)
                    .at(position)
                    .with_hint("Write WITH (backend = 'meta')."))
            }
        }
    }

    /// What follows SECRET in an option.
    pub(super) fn secret_name(&mut self) -> Result<Name> {
        let name = self.name()?;
        if self.at_word("as") {
            let message = "SECRET ... AS FILE is not supported";
            return Err(Error::unsupported(message).at(self.position()));
        }
        Ok(name)
    }
}

/// The text of a statement between two places, in which the values of secrets and passwords are
/// masked.
pub(super) fn shown(
    source: &Source<'_>,
    tokens: &[TokenWithSpan],
    from: Location,
    to: Location,
) -> String {
    let solid: Vec<&TokenWithSpan> = tokens.iter().filter(|t| !is_blank(&t.token)).collect();
    let verb = |t: &&TokenWithSpan| ["create", "alter"].iter().any(|v| is_word(&t.token, v));
    let text = source.slice(from, to);
    if !solid.iter().any(verb) {
        return text.to_string();
    }
    // Behind PREPARE .. AS or EXPLAIN it is the same, though there is no such statement.
    let first = |objects: &[&str]| {
        let starts = |two: &[&TokenWithSpan]| {
            let is = |n: usize, words: &[&str]| words.iter().any(|w| is_word(&two[n].token, w));
            is(0, &["create", "alter"]) && is(1, objects)
        };
        solid.windows(2).position(starts).unwrap_or(solid.len())
    };
    let about = About {
        role: first(&["role", "user", "group"]),
        secret: first(&["secret"]),
    };
    let (start, mut done) = (source.byte(from), 0);
    let mut shown = String::with_capacity(text.len());
    for at in (1..solid.len()).filter(|at| is_hidden(&solid, *at, &about)) {
        let span = solid[at].span;
        let (begin, end) = (
            source.byte(span.start) - start,
            source.byte(span.end) - start,
        );
        shown.push_str(&text[done..begin]);
        shown.push_str(&format!("'{MASK}'"));
        done = end;
    }
    shown + &text[done..]
}

/// Where CREATE and ALTER of such things begin; the number of tokens where there are none.
struct About {
    role: usize,
    secret: usize,
}

/// Whether a token is a value that nobody may see: the password of a role, the value of a secret,
/// or that of an option that is secret by its name.
fn is_hidden(solid: &[&TokenWithSpan], at: usize, about: &About) -> bool {
    let word = |n: usize, w: &str| is_word(&solid[n].token, w);
    if !is_value(&solid[at].token) {
        return false;
    }
    if about.role < at && word(at - 1, "password") || about.secret < at && word(at - 1, "as") {
        return true;
    }
    if solid[at - 1].token != Token::Eq {
        return false;
    }
    let mut key = String::new();
    for part in solid[..at - 1].iter().rev() {
        match &part.token {
            Token::Period => key.insert(0, '.'),
            Token::Word(w) if key.is_empty() || key.starts_with('.') => key.insert_str(0, &w.value),
            Token::SingleQuotedString(s) if key.is_empty() || key.starts_with('.') => {
                key.insert_str(0, s)
            }
            _ => break,
        }
    }
    is_secret_option(&key) && in_options(&solid[..at])
}

fn is_value(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::Number(..)
    ) || matches!(token, Token::Word(w) if !w.value.eq_ignore_ascii_case("secret"))
}

/// Whether what stands before is inside of `WITH (...)` or `ENCODE e (...)`.
fn in_options(before: &[&TokenWithSpan]) -> bool {
    let mut open = 0;
    for (at, token) in before.iter().enumerate().rev() {
        match token.token {
            Token::RParen => open += 1,
            Token::LParen if open > 0 => open -= 1,
            Token::LParen => {
                let with = at > 0 && is_word(&before[at - 1].token, "with");
                return with || at > 1 && is_word(&before[at - 2].token, "encode");
            }
            _ => {}
        }
    }
    false
}
