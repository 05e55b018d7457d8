//! `TABLE t` and `TRUNCATE t`: all rows of a table, in words of their own.

use super::{DIALECT, Front, is_blank, is_word};
use crate::error::parser_error;
use crate::statement::StatementKind;
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use tidemark_common::Result;

/// `TABLE t` becomes `SELECT * FROM t` wherever a query may begin; sqlparser reads it otherwise.
pub(super) fn table_queries(tokens: &mut Vec<TokenWithSpan>) {
    if !tokens.iter().any(|t| is_word(&t.token, "table")) {
        return;
    }
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    let token = |i: usize| solid.get(i).map_or(&Token::EOF, |i| &tokens[*i].token);
    let is = |i: usize, words: &[&str]| words.iter().any(|word| is_word(token(i), word));
    // Behind the first AS of these stands a query; behind any other AS stands a name.
    let defined = match is(0, &["create", "prepare"]) {
        true => (0..solid.len()).find(|i| is(*i, &["as"])),
        false => None,
    };
    let begins = |i: usize| match i.checked_sub(1) {
        None => true,
        Some(before) => {
            let words = [
                "union",
                "except",
                "intersect",
                "all",
                "distinct",
                "for",
                "explain",
            ];
            matches!(token(before), Token::LParen | Token::RParen)
                || is(before, &words)
                || defined == Some(before)
                || before >= 2 && is(before - 1, &["into"]) && is(before - 2, &["insert"])
        }
    };
    let named = |i: usize| matches!(token(i), Token::Word(_));
    let queries: Vec<usize> = (0..solid.len())
        .filter(|i| is(*i, &["table"]) && named(i + 1) && begins(*i))
        .filter(|i| !matches!(token(i + 2), Token::LParen | Token::Comma))
        .map(|i| solid[i])
        .collect();
    let select = Tokenizer::new(&DIALECT, "SELECT * FROM").tokenize();
    let select = select.unwrap_or_default();
    for at in queries.into_iter().rev() {
        let span = tokens[at].span;
        let spanned = select.iter().map(|token| TokenWithSpan {
            token: token.clone(),
            span,
        });
        tokens.splice(at..=at, spanned);
    }
}

impl Front<'_> {
    /// What follows TRUNCATE. There are no sequences to restart, and no table refers to another.
    pub(super) fn truncate(&mut self) -> Result<StatementKind> {
        self.word("table");
        let tables = self.several(|front| {
            front.word("only");
            let name = front.run(|p| p.parse_object_name(false))?;
            front.token(&Token::Mul);
            Ok(name)
        })?;
        let _ = self.words(&["restart", "identity"]) || self.words(&["continue", "identity"]);
        self.cascade();
        let deletes = tables.into_iter().map(|name| self.delete_all(name));
        deletes.collect::<Result<_>>().map(StatementKind::Truncate)
    }

    /// `DELETE FROM name`.
    fn delete_all(&self, name: ast::ObjectName) -> Result<ast::Statement> {
        let parser = Parser::new(&DIALECT).try_with_sql("DELETE FROM t");
        let delete = parser.and_then(|mut p| p.parse_statement());
        let mut delete = delete.map_err(|e| parser_error(e, &self.positions))?;
        if let ast::Statement::Delete(delete) = &mut delete
            && let ast::FromTable::WithFromKeyword(tables) = &mut delete.from
            && let Some(table) = tables.first_mut()
            && let ast::TableFactor::Table { name: table, .. } = &mut table.relation
        {
            *table = name;
        }
        Ok(delete)
    }
}
