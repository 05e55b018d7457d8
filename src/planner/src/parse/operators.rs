//! Where an operator ends. PostgreSQL's lexer takes the longest run of operator characters, but of
//! several, the last ones are no `+` and `-`, unless one of `~ ! @ # % ^ & | ?` or a backtick is
//! among them: `a>-1` is `a > -1`, `j->-1` is `j -> -1`. sqlparser takes the whole run.

use super::DIALECT;
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

/// Characters with which an operator may end in a sign.
const FREE: [char; 10] = ['~', '!', '@', '#', '%', '^', '&', '|', '`', '?'];

/// `N'..'` is a text like any other, and `name := value` an argument like `name => value`.
pub(super) fn other_spellings(tokens: &mut [TokenWithSpan]) {
    for token in tokens {
        match &mut token.token {
            Token::NationalStringLiteral(text) => {
                token.token = Token::SingleQuotedString(std::mem::take(text));
            }
            Token::Assignment => token.token = Token::RArrow,
            _ => {}
        }
    }
}

/// Takes the signs off the ends of operators.
pub(super) fn without_signs(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|t| bare(&t.token).is_some()) {
        return tokens;
    }
    let mut all = Vec::with_capacity(tokens.len() + 1);
    for token in tokens {
        match bare(&token.token) {
            Some((operator, signs)) => {
                all.extend(pieces(operator, signs, token.span.start));
            }
            None => all.push(token),
        }
    }
    all
}

/// An operator and the signs behind it.
fn bare(token: &Token) -> Option<(&str, &str)> {
    let Token::CustomBinaryOperator(text) = token else {
        return None;
    };
    if text.contains(FREE) {
        return None;
    }
    let length = text.trim_end_matches(['+', '-']).len().max(1);
    (length < text.len()).then(|| text.split_at(length))
}

fn pieces(operator: &str, signs: &str, start: Location) -> Vec<TokenWithSpan> {
    let operator_tokens = Tokenizer::new(&DIALECT, operator).tokenize();
    let operator_tokens =
        operator_tokens.unwrap_or_else(|_| vec![Token::CustomBinaryOperator(operator.to_string())]);
    let signs = signs.chars().map(|sign| match sign {
        '+' => Token::Plus,
        _ => Token::Minus,
    });
    let mut column = start.column;
    let place = |token: Token| {
        let begin = column;
        column += token.to_string().len() as u64;
        let at = |column| Location::new(start.line, column);
        TokenWithSpan::new(token, Span::new(at(begin), at(column)))
    };
    operator_tokens
        .into_iter()
        .chain(signs)
        .map(place)
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::parse::parse_query;

    #[test]
    fn an_operator_ends_before_signs() {
        for (text, read) in [
            ("a>-1", "a > -1"),
            ("a>+b", "a > +b"),
            ("j->-1", "j -> -1"),
            ("j->>-1", "j ->> -1"),
            ("a*-b", "a * -b"),
            ("a-+-b", "a - +-b"),
            ("a@>b", "a @> b"),
            ("a - b", "a - b"),
        ] {
            let query = parse_query(&format!("SELECT {text}")).unwrap();
            assert_eq!(query.to_string(), format!("SELECT {read}"));
        }
    }
}
