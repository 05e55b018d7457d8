//! Text to statements. The text is cut into tokens once (sqlparser's tokenizer, PostgreSQL's
//! dialect), the tokens into statements at semicolons, and each statement goes to the front parser
//! for the streaming DDL and the utility statements; what it does not know goes to sqlparser.
//! Tokens keep their place in the whole text, so every error has a position.

mod alter;
mod changelog;
mod composite;
mod copy;
mod cursors;
mod ddl;
mod dialect;
mod excluded;
mod functions;
mod grants;
mod operators;
mod refused;
mod roles;
mod secrets;
mod sessions;
mod special;
mod strict;
mod timed;
mod tokens;
mod utility;
mod whole_tables;
mod written;

pub(crate) use composite::ALL_FIELDS;

use crate::error::parser_error;
use crate::limits;
use crate::names::{fold, name_of};
use crate::statement::{Name, Positions, Statement, StatementKind};
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};
use std::borrow::Cow;
use tidemark_common::{Error, Result, SqlState};

/// The dialect that everything is parsed with.
pub static DIALECT: dialect::TidemarkDialect = dialect::TidemarkDialect;

/// Parses statements separated by semicolons; empty ones are left out.
///
/// Errors: `42601` with the position in `sql`; `0A000` for a clause that is known but not
/// supported.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    statements(sql, true)
}

/// Parses statements that were parsed when the catalog took them: what is refused since then is
/// still read.
pub fn parse_stored(sql: &str) -> Result<Vec<Statement>> {
    statements(sql, false)
}

/// Parses statements; `strict`: as PostgreSQL does, without what sqlparser reads beyond it.
fn statements(sql: &str, strict: bool) -> Result<Vec<Statement>> {
    let positions = Positions::new(sql);
    let tokens = Tokenizer::new(&DIALECT, sql)
        .tokenize_with_location()
        .map_err(|e| parser_error(ParserError::from(e), &positions))?;
    let mut tokens = operators::without_signs(tokens);
    operators::other_spellings(&mut tokens);
    let source = Source::new(sql);
    let mut statements = Vec::new();
    for tokens in tokens.split(|t| t.token == Token::SemiColon) {
        let Some(first) = tokens.iter().find(|t| !is_blank(&t.token)) else {
            continue;
        };
        limits::check_tokens(tokens)?;
        if strict {
            strict::numbers(tokens, &source, &positions)?;
        }
        let last = tokens
            .iter()
            .rfind(|t| !is_blank(&t.token))
            .unwrap_or(first);
        let text = secrets::shown(&source, tokens, first.span.start, last.span.end);
        let count = tokens.len();
        let mut tokens = without_only(tokens).into_owned();
        sessions::partitions(&mut tokens);
        let tokens = rewrite_table_functions(&tokens);
        let mut tokens = excluded::frames(tokens);
        quoted_offsets(&mut tokens);
        let tokens = changelog::queries(tokens);
        let mut tokens = timed::joins(tokens, &positions)?;
        whole_tables::table_queries(&mut tokens);
        composite::rewrite(&mut tokens);
        let mut front = Front::new(tokens, source.clone(), positions.clone(), strict);
        let kind = limits::within(count, || {
            let kind = front.statement()?;
            front.end()?;
            Ok(kind)
        });
        let kind = kind.map_err(|e| front.unread(e))?;
        let start = positions.of(first.span.start).map_or(0, |p| p - 1);
        statements.push(Statement {
            text,
            start,
            positions: positions.clone(),
            kind,
        });
    }
    Ok(statements)
}

/// Parses one expression, as it is stored in the catalog.
///
/// Errors: the parser's.
pub fn parse_expression(text: &str) -> std::result::Result<ast::Expr, ParserError> {
    let mut tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location()?;
    composite::rewrite(&mut tokens);
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    parser.parse_expr()
}

/// Parses one query, as it is stored in the catalog.
pub(crate) fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    let statements = parse_stored(sql)?;
    match statements.into_iter().next().map(|s| s.kind) {
        Some(StatementKind::Sql(statement)) => match *statement {
            ast::Statement::Query(query) => Ok(query),
            _ => Err(Error::internal(format!("not a query: {sql}"))),
        },
        _ => Err(Error::internal(format!("not a query: {sql}"))),
    }
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// Whether a token is this word, unquoted, in any case.
fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// `FROM ONLY t` and `UPDATE ONLY t` are those of `t`: no table has others below it.
fn without_only(tokens: &[TokenWithSpan]) -> Cow<'_, [TokenWithSpan]> {
    if !tokens.iter().any(|t| is_word(&t.token, "only")) {
        return Cow::Borrowed(tokens);
    }
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    let only: Vec<usize> = solid
        .windows(3)
        .filter(|three| {
            let [before, only, name] = [0, 1, 2].map(|n| &tokens[three[n]].token);
            is_word(only, "only")
                && ["from", "update", "join"]
                    .iter()
                    .any(|w| is_word(before, w))
                && matches!(name, Token::Word(_))
        })
        .map(|three| three[1])
        .collect();
    let mut tokens = tokens.to_vec();
    for at in only.into_iter().rev() {
        tokens.remove(at);
    }
    Cow::Owned(tokens)
}

/// Flink's spelling `TABLE(TUMBLE(TABLE rel, DESCRIPTOR(c), ...))` becomes RisingWave's
/// `TUMBLE(rel, c, ...)`; everything else stays as it is.
fn rewrite_table_functions(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    let at = |i: usize| solid.get(i).map_or(&Token::EOF, |i| &tokens[*i].token);
    let mut dropped = vec![false; tokens.len()];
    for i in 0..solid.len() {
        let window_function = ["tumble", "hop", "session"]
            .iter()
            .any(|w| is_word(at(i + 2), w));
        if !(is_word(at(i), "table")
            && *at(i + 1) == Token::LParen
            && window_function
            && *at(i + 3) == Token::LParen)
        {
            continue;
        }
        let mut dropping = vec![i, i + 1];
        if is_word(at(i + 4), "table") {
            dropping.push(i + 4);
        }
        let mut depth = 2;
        let mut j = i + 4;
        while depth > 0 && j < solid.len() {
            match at(j) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                t if is_word(t, "descriptor")
                    && *at(j + 1) == Token::LParen
                    && *at(j + 3) == Token::RParen =>
                {
                    dropping.extend([j, j + 1, j + 3]);
                    j += 3;
                }
                _ => {}
            }
            j += 1;
        }
        dropping.push(j - 1);
        dropping
            .into_iter()
            .filter_map(|d| solid.get(d))
            .for_each(|d| dropped[*d] = true);
    }
    tokens
        .iter()
        .zip(dropped)
        .filter(|(_, dropped)| !dropped)
        .map(|(t, _)| t.clone())
        .collect()
}

/// Offsets of window frames that are casts of quoted constants (`RANGE '1 day'::interval
/// PRECEDING`): sqlparser reads what is quoted there as an interval, and no cast; as `e'..'` it is
/// an expression.
fn quoted_offsets(tokens: &mut [TokenWithSpan]) {
    let ends = |t: &TokenWithSpan| is_word(&t.token, "preceding") || is_word(&t.token, "following");
    if !tokens.iter().any(ends) {
        return;
    }
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    for four in solid.windows(4) {
        let is = |n: usize, words: &[&str]| {
            let token = &tokens[four[n]].token;
            words.iter().any(|word| is_word(token, word))
        };
        const UNITS: [&str; 3] = ["range", "rows", "groups"];
        let frame = is(1, &UNITS)
            || is(1, &["between"]) && is(0, &UNITS)
            || is(1, &["and"]) && is(0, &["preceding", "following", "row"]);
        if !frame || tokens[four[3]].token != Token::DoubleColon {
            continue;
        }
        if let Token::SingleQuotedString(text) = &tokens[four[2]].token {
            tokens[four[2]].token = Token::EscapedStringLiteral(text.clone());
        }
    }
}

/// The text that tokens point into.
#[derive(Clone)]
struct Source<'a> {
    sql: &'a str,
    places: std::sync::Arc<Places>,
}

/// Where lines and characters are, so that a location is found without reading its line.
struct Places {
    /// The character that each line begins with.
    lines: Vec<usize>,
    /// The byte of every so many characters.
    bytes: Vec<usize>,
}

/// Characters from one known byte to the next.
const CHARACTERS_APART: usize = 64;

impl<'a> Source<'a> {
    fn new(sql: &'a str) -> Source<'a> {
        let (mut lines, mut bytes) = (vec![0], Vec::new());
        for (character, (byte, c)) in sql.char_indices().enumerate() {
            if character % CHARACTERS_APART == 0 {
                bytes.push(byte);
            }
            if c == '\n' {
                lines.push(character + 1);
            }
        }
        Source {
            sql,
            places: std::sync::Arc::new(Places { lines, bytes }),
        }
    }

    fn byte(&self, at: Location) -> usize {
        let line = (at.line as usize).checked_sub(1);
        let Some(start) = line.and_then(|l| self.places.lines.get(l)) else {
            return self.sql.len();
        };
        let character = start + (at.column as usize).saturating_sub(1);
        let Some(known) = self.places.bytes.get(character / CHARACTERS_APART) else {
            return self.sql.len();
        };
        self.sql[*known..]
            .char_indices()
            .nth(character % CHARACTERS_APART)
            .map_or(self.sql.len(), |(i, _)| known + i)
    }

    fn slice(&self, from: Location, to: Location) -> &'a str {
        let (from, to) = (self.byte(from), self.byte(to));
        self.sql.get(from..to.max(from)).unwrap_or("").trim()
    }
}

/// The front parser over the tokens of one statement.
struct Front<'a> {
    parser: Parser<'a>,
    tokens: Vec<TokenWithSpan>,
    source: Source<'a>,
    positions: Positions,
    /// Statements around the one that is read: EXPLAIN's, CREATE TABLE's.
    depth: usize,
    /// Whether what sqlparser reads beyond PostgreSQL's grammar is refused.
    strict: bool,
}

impl<'a> Front<'a> {
    fn new(
        tokens: Vec<TokenWithSpan>,
        source: Source<'a>,
        positions: Positions,
        strict: bool,
    ) -> Front<'a> {
        Front {
            parser: Parser::new(&DIALECT)
                .with_recursion_limit(limits::PARSER_DEPTH_MAX)
                .with_tokens_with_locations(tokens.clone()),
            tokens,
            source,
            positions,
            depth: 0,
            strict,
        }
    }

    /// Runs a method of sqlparser's, translating its error.
    fn run<T>(
        &mut self,
        f: impl FnOnce(&mut Parser<'a>) -> std::result::Result<T, ParserError>,
    ) -> Result<T> {
        f(&mut self.parser).map_err(|e| parser_error(e, &self.positions))
    }

    /// The token that comes next.
    fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    /// The position of the next token, in characters from 1.
    fn position(&self) -> usize {
        self.positions.of(self.peek().span.start).unwrap_or(0)
    }

    /// Takes the next token if it is this word.
    fn word(&mut self, word: &str) -> bool {
        let found = is_word(&self.peek().token, word);
        if found {
            self.parser.advance_token();
        }
        found
    }

    /// Takes the next tokens if they are these words.
    fn words(&mut self, words: &[&str]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .all(|(n, w)| is_word(&self.parser.peek_nth_token_ref(n).token, w));
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    /// Whether this word comes next.
    fn at_word(&self, word: &str) -> bool {
        is_word(&self.peek().token, word)
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) {
            Ok(())
        } else {
            Err(self.unexpected(word))
        }
    }

    fn token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        self.run(|p| p.expect_token(token).map(|_| ()))
    }

    /// `syntax error at or near "..."`.
    fn unexpected(&self, expected: &str) -> Error {
        self.unexpected_at(0, expected)
    }

    /// The same of a token that comes later.
    fn unexpected_at(&self, n: usize, expected: &str) -> Error {
        let token = self.parser.peek_nth_token_ref(n);
        let message = match &token.token {
            Token::EOF => "syntax error at end of input".to_string(),
            t => format!("syntax error at or near \"{t}\""),
        };
        let error = Error::user(SqlState::SYNTAX_ERROR, message)
            .with_detail(format!("Expected {expected}."));
        let position = if token.token == Token::EOF {
            self.positions.end()
        } else {
            self.positions.of(token.span.start)
        };
        match position {
            Some(position) => error.at(position),
            None => error,
        }
    }

    /// Everything has been read.
    fn end(&mut self) -> Result<()> {
        if self.peek().token == Token::EOF {
            Ok(())
        } else {
            Err(self.unexpected("end of statement"))
        }
    }

    fn identifier(&mut self) -> Result<String> {
        self.run(|p| p.parse_identifier()).map(fold)
    }

    fn identifiers(&mut self) -> Result<Vec<String>> {
        self.expect(&Token::LParen)?;
        let all = self.several(Self::identifier)?;
        self.expect(&Token::RParen)?;
        Ok(all)
    }

    /// One or more, with commas between them.
    fn several<T>(&mut self, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = vec![one(self)?];
        while self.token(&Token::Comma) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn name(&mut self) -> Result<Name> {
        let position = self.position();
        let object = self.run(|p| p.parse_object_name(false))?;
        name_of(&object, position)
    }

    fn if_exists(&mut self) -> bool {
        self.words(&["if", "exists"])
    }

    fn if_not_exists(&mut self) -> bool {
        self.words(&["if", "not", "exists"])
    }

    fn string(&mut self) -> Result<String> {
        // sqlparser takes words, too.
        if matches!(self.peek().token, Token::Word(_)) {
            return Err(self.unexpected("a string"));
        }
        self.run(|p| p.parse_literal_string())
    }

    /// The source text from a token's start up to the next token.
    fn text_since(&self, start: Span) -> String {
        let end = self.peek();
        let to = if end.token == Token::EOF {
            self.tokens
                .iter()
                .rfind(|t| !is_blank(&t.token))
                .map_or(start.end, |t| t.span.end)
        } else {
            end.span.start
        };
        self.source.slice(start.start, to).to_string()
    }

    /// Refuses what PostgreSQL's grammar has not.
    fn check(&self, node: &impl ast::Visit) -> Result<()> {
        if self.strict {
            strict::tree(node, &self.positions)?;
        }
        Ok(())
    }

    /// Parses the statement, `first` dispatching on its first words.
    fn statement(&mut self) -> Result<StatementKind> {
        self.depth += 1;
        if self.depth > limits::STATEMENT_DEPTH_MAX {
            return Err(limits::too_deep("statements", limits::STATEMENT_DEPTH_MAX));
        }
        if let Some(error) = self.refused() {
            return Err(error);
        }
        if let Some(kind) = self.grant()? {
            return Ok(kind);
        }
        if let Some(kind) = self.secret()? {
            return Ok(kind);
        }
        if let Some(kind) = self.role()? {
            return Ok(kind);
        }
        if let Some(kind) = self.function()? {
            return Ok(kind);
        }
        if let Some(kind) = self.create()? {
            return Ok(kind);
        }
        if let Some(kind) = self.utility()? {
            return Ok(kind);
        }
        self.check_prepared()?;
        let mut statement = self.run(|p| p.parse_statement())?;
        limits::settle(&mut statement)?;
        self.check(&statement)?;
        let statement = Box::new(written::write(statement)?);
        Ok(match *statement {
            ast::Statement::Query(_)
            | ast::Statement::Insert(_)
            | ast::Statement::Update { .. }
            | ast::Statement::Delete(_) => StatementKind::Sql(statement),
            ast::Statement::CreateIndex(index) => StatementKind::CreateIndex(Box::new(index)),
            _ => StatementKind::Other(statement),
        })
    }
}

#[cfg(test)]
mod tests;
