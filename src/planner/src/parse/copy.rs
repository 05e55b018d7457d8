//! COPY: what, which way, and its options in each of PostgreSQL's three spellings. What the
//! options mean is the session's.

use super::{Front, is_word, limits};
use crate::statement::{Copied, Copy, CopyOption, CopyValue, StatementKind};
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::IsOptional;
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result};

impl Front<'_> {
    /// Parses what follows COPY.
    pub(super) fn copy(&mut self) -> Result<StatementKind> {
        let mut options = Vec::new();
        if self.at_word("binary") {
            options.push(self.alone("format", CopyValue::Text("binary".into())));
        }
        let what = match self.token(&Token::LParen) {
            true if self.word("subscribe") => {
                let changes = self.subscribe()?;
                self.expect(&Token::RParen)?;
                Copied::Changes(changes)
            }
            true => {
                let mut query = self.run(|p| p.parse_query())?;
                limits::settle(&mut *query)?;
                self.check(&*query)?;
                self.expect(&Token::RParen)?;
                Copied::Query(query)
            }
            false => Copied::Relation {
                name: self.run(|p| p.parse_object_name(false))?,
                columns: self.copied_columns()?,
            },
        };
        let to = self.word("to");
        if !to {
            self.expect_word("from")?;
        }
        let client = self.word("stdin") || self.word("stdout");
        if !client {
            self.word("program");
            self.string()?;
        }
        if self.at_word("using") || self.at_word("delimiters") {
            self.word("using");
            let position = self.position();
            self.expect_word("delimiters")?;
            let value = CopyValue::Text(self.string()?);
            options.push(CopyOption::new("delimiter", value, position));
        }
        self.word("with");
        match self.token(&Token::LParen) {
            true => self.listed_options(&mut options)?,
            false => self.bare_options(&mut options)?,
        }
        if self.at_word("where") {
            let error = Error::unsupported("COPY with WHERE is not supported")
                .with_hint("Copy into a table of its own, and insert from it what is wanted.");
            return Err(error.at(self.position()));
        }
        Ok(StatementKind::Copy(Box::new(Copy {
            what,
            to,
            client,
            options,
        })))
    }

    fn copied_columns(&mut self) -> Result<Vec<ast::Ident>> {
        if self.peek().token != Token::LParen {
            return Ok(Vec::new());
        }
        self.run(|p| p.parse_parenthesized_column_list(IsOptional::Mandatory, false))
    }

    /// `(name [value], ..)`.
    fn listed_options(&mut self, options: &mut Vec<CopyOption>) -> Result<()> {
        loop {
            let position = self.position();
            let name = self.identifier()?;
            let value = match &self.peek().token {
                Token::Comma | Token::RParen => CopyValue::None,
                Token::Mul => {
                    self.parser.advance_token();
                    CopyValue::All
                }
                Token::LParen => CopyValue::Columns(self.identifiers()?),
                Token::Number(number, _) => {
                    let value = CopyValue::Text(number.clone());
                    self.parser.advance_token();
                    value
                }
                Token::Word(_) => CopyValue::Text(self.identifier()?),
                _ => CopyValue::Text(self.string()?),
            };
            options.push(CopyOption::new(&name, value, position));
            if !self.token(&Token::Comma) {
                return self.expect(&Token::RParen);
            }
        }
    }

    /// The options of old, one behind the other in any order.
    fn bare_options(&mut self, options: &mut Vec<CopyOption>) -> Result<()> {
        loop {
            let next = self.peek().token.clone();
            let is = |word| is_word(&next, word);
            let option = match () {
                () if is("csv") => self.alone("format", CopyValue::Text("csv".into())),
                () if is("binary") => self.alone("format", CopyValue::Text("binary".into())),
                () if is("header") => self.alone("header", CopyValue::None),
                () if is("freeze") => self.alone("freeze", CopyValue::None),
                () if is("force") => self.forced()?,
                () => {
                    let names = ["delimiter", "null", "quote", "escape", "encoding"];
                    let Some(name) = names.into_iter().find(|name| is(name)) else {
                        return Ok(());
                    };
                    let position = self.position();
                    self.parser.advance_token();
                    if name != "encoding" {
                        self.word("as");
                    }
                    CopyOption::new(name, CopyValue::Text(self.string()?), position)
                }
            };
            options.push(option);
        }
    }

    /// An option of one word.
    fn alone(&mut self, name: &str, value: CopyValue) -> CopyOption {
        let option = CopyOption::new(name, value, self.position());
        self.parser.advance_token();
        option
    }

    /// `FORCE QUOTE`, `FORCE NOT NULL`, `FORCE NULL`, with their columns.
    fn forced(&mut self) -> Result<CopyOption> {
        let position = self.position();
        self.parser.advance_token();
        let name = match () {
            () if self.words(&["not", "null"]) => "force_not_null",
            () if self.word("null") => "force_null",
            () => {
                self.expect_word("quote")?;
                "force_quote"
            }
        };
        let columns = match self.token(&Token::Mul) {
            true => CopyValue::All,
            false => CopyValue::Columns(self.several(Self::identifier)?),
        };
        Ok(CopyOption::new(name, columns, position))
    }
}
