//! Tokens that the parser's rewritings put in.

use datafusion_sql::sqlparser::ast::Ident;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, Word};

/// A name in quotes.
pub(super) fn quoted(text: &str) -> Token {
    let ident = Ident::with_quote('"', text);
    Token::make_word(&ident.value, ident.quote_style)
}

/// A word of SQL.
pub(super) fn keyword(text: &str) -> Token {
    Token::Word(match Token::make_keyword(text) {
        Token::Word(word) => word,
        _ => Word {
            value: text.into(),
            quote_style: None,
            keyword: Keyword::NoKeyword,
        },
    })
}
