//! CREATE of what streams: sources, tables, views, materialized views, sinks. The clauses after the
//! column list may come in any order, as users write them.

use super::{Front, is_blank, is_word};
use crate::interval::interval_micros;
use crate::limits;
use crate::statement::*;
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use std::collections::BTreeMap;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Conflict, Encode, Format, Include};

/// Options, and those that are secrets by their names.
type Given = (BTreeMap<String, String>, BTreeMap<String, Name>);

impl Front<'_> {
    /// Parses `CREATE` of a relation; `None` if the statement is something else (nothing is
    /// consumed then).
    pub(super) fn create(&mut self) -> Result<Option<StatementKind>> {
        if !self.at_word("create") {
            return Ok(None);
        }
        let or_replace = [1, 2]
            .iter()
            .zip(["or", "replace"])
            .all(|(n, w)| is_word(&self.parser.peek_nth_token_ref(*n).token, w));
        let kind = if or_replace { 3 } else { 1 };
        let at = |n: usize, w: &str| is_word(&self.parser.peek_nth_token_ref(kind + n).token, w);
        let (words, what) = match () {
            () if at(0, "source") => (1, "source"),
            () if at(0, "table") => (1, "table"),
            () if at(0, "materialized") && at(1, "view") => (2, "materialized view"),
            () if at(0, "view") => (1, "view"),
            () if at(0, "sink") => (1, "sink"),
            () if at(0, "subscription") => (1, "subscription"),
            () if at(0, "schema") => (1, "schema"),
            () => return Ok(None),
        };
        (0..kind + words).for_each(|_| self.parser.advance_token());
        let if_not_exists = self.if_not_exists();
        if what == "schema" {
            let name = self.identifier()?;
            return Ok(Some(StatementKind::CreateSchema {
                name,
                if_not_exists,
            }));
        }
        let name = self.name()?;
        Ok(Some(match what {
            "source" => {
                StatementKind::CreateSource(self.relation(name, if_not_exists, or_replace)?)
            }
            "table" if self.is_query_with_names() || self.at_word("as") => {
                let columns = match self.peek().token {
                    Token::LParen => self.identifiers()?,
                    _ => Vec::new(),
                };
                self.word("as");
                let from = self.peek().span;
                let kind = self.statement()?;
                let start = self.positions.of(from.start).map_or(0, |p| p - 1);
                let query = Statement {
                    text: self.text_since(from),
                    start,
                    positions: self.positions.clone(),
                    kind,
                };
                StatementKind::CreateTableAs {
                    name,
                    if_not_exists,
                    columns,
                    query: Box::new(query),
                }
            }
            "table" => {
                StatementKind::CreateTable(self.relation(name, if_not_exists, or_replace)?)
            }
            "materialized view" => {
                StatementKind::CreateMaterializedView(self.view(name, if_not_exists, or_replace)?)
            }
            "view" => StatementKind::CreateView(self.view(name, if_not_exists, or_replace)?),
            "subscription" => {
                StatementKind::CreateSubscription(self.subscription(name, if_not_exists)?)
            }
            _ => StatementKind::CreateSink(self.sink(name, if_not_exists)?),
        }))
    }

    /// Whether names of columns, without types, and AS are next.
    fn is_query_with_names(&self) -> bool {
        let token = |n: usize| &self.parser.peek_nth_token_ref(n).token;
        if *token(0) != Token::LParen {
            return false;
        }
        let mut next = 1;
        while matches!(token(next), Token::Word(_)) {
            match token(next + 1) {
                Token::Comma => next += 2,
                Token::RParen => return is_word(token(next + 2), "as"),
                _ => return false,
            }
        }
        false
    }

    fn relation(
        &mut self,
        name: Name,
        if_not_exists: bool,
        or_replace: bool,
    ) -> Result<CreateRelation> {
        let mut relation = CreateRelation {
            if_not_exists,
            or_replace,
            ..CreateRelation::named(name)
        };
        if self.token(&Token::LParen) {
            loop {
                self.relation_element(&mut relation)?;
                if !self.token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        while self.relation_clause(&mut relation)? {}
        Ok(relation)
    }

    /// The column that ALTER TABLE adds.
    ///
    /// Errors: `0A000` for a key.
    pub(super) fn added_column(&mut self, table: &Name) -> Result<ColumnDefinition> {
        let mut relation = CreateRelation::named(table.clone());
        let column = self.column(&mut relation)?;
        match relation.primary_key.is_empty() {
            true => Ok(column),
            false => Err(
                Error::unsupported("the primary key of a table cannot be added to it")
                    .at(column.position)
                    .with_hint("Make the table anew with CREATE TABLE, and copy its rows."),
            ),
        }
    }

    /// A column, PRIMARY KEY or WATERMARK between the parentheses.
    fn relation_element(&mut self, relation: &mut CreateRelation) -> Result<()> {
        let position = self.position();
        if self.words(&["watermark", "for"]) {
            if relation.watermark.is_some() {
                return Err(
                    Error::unsupported("more than one watermark is not supported").at(position),
                );
            }
            relation.watermark = Some(self.watermark(position)?);
            return Ok(());
        }
        if self.word("constraint") {
            self.identifier()?;
        }
        if self.words(&["primary", "key"]) {
            if !relation.primary_key.is_empty() {
                return Err(Error::user(
                    SqlState("42P16"),
                    format!(
                        "multiple primary keys for table \"{}\" are not allowed",
                        relation.name.name
                    ),
                )
                .at(position));
            }
            relation.primary_key = self.identifiers()?;
            return Ok(());
        }
        for constraint in ["unique", "check", "foreign"] {
            if self.at_word(constraint)
                && matches!(self.parser.peek_nth_token_ref(1).token, Token::LParen)
                || self.at_word("foreign")
            {
                return Err(Error::unsupported(format!(
                    "{} constraint is not supported",
                    constraint.to_uppercase()
                ))
                .at(position)
                .with_hint("Only PRIMARY KEY and NOT NULL are enforced."));
            }
        }
        if self.at_word("like") {
            let like = self.like(relation.columns.len())?;
            relation.likes.push(like);
            return Ok(());
        }
        let column = self.column(relation)?;
        relation.columns.push(column);
        Ok(())
    }

    /// `LIKE relation [{INCLUDING | EXCLUDING} what] ..`.
    fn like(&mut self, behind: usize) -> Result<Like> {
        self.expect_word("like")?;
        let mut like = Like {
            name: self.name()?,
            behind,
            defaults: false,
            generated: false,
            indexes: false,
        };
        loop {
            let is = match () {
                () if self.word("including") => true,
                () if self.word("excluding") => false,
                () => return Ok(like),
            };
            let position = self.position();
            match self.identifier()?.as_str() {
                "all" => (like.defaults, like.generated, like.indexes) = (is, is, is),
                "defaults" => like.defaults = is,
                "generated" => like.generated = is,
                "indexes" => like.indexes = is,
                // What no relation has.
                "comments" | "compression" | "constraints" | "identity" | "statistics"
                | "storage" => {}
                other => {
                    let message = format!("syntax error at or near \"{other}\"");
                    return Err(Error::user(SqlState::SYNTAX_ERROR, message).at(position));
                }
            }
        }
    }

    fn watermark(&mut self, position: usize) -> Result<WatermarkClause> {
        let column = self.identifier()?;
        self.expect_word("as")?;
        let mut expression = self.run(|p| p.parse_expr())?;
        limits::settle(&mut expression)?;
        let delay = match &expression {
            ast::Expr::BinaryOp {
                left,
                op: ast::BinaryOperator::Minus,
                right,
            } if is_column(left, &column) => match right.as_ref() {
                ast::Expr::Interval(interval) => {
                    Some(interval_micros(interval).map_err(|e| e.at(position))?)
                }
                _ => None,
            },
            e if is_column(e, &column) => Some(0),
            _ => None,
        };
        let delay_micros = delay.filter(|d| *d >= 0).ok_or_else(|| {
            Error::unsupported(format!("watermark \"{expression}\""))
                .at(position)
                .with_hint(format!(
                    "Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."
                ))
        })?;
        Ok(WatermarkClause {
            column,
            delay_micros,
            position,
        })
    }

    fn column(&mut self, relation: &mut CreateRelation) -> Result<ColumnDefinition> {
        let position = self.position();
        let name = self.identifier()?;
        if self.at_word("as") || matches!(self.peek().token, Token::Comma | Token::RParen) {
            return Err(self.unexpected("the column's data type"));
        }
        let data_type = self.run(|p| p.parse_data_type())?;
        let mut column = ColumnDefinition {
            name,
            data_type,
            not_null: false,
            default: None,
            generated: None,
            position,
        };
        loop {
            let position = self.position();
            if self.word("as") {
                let mut expression = self.run(|p| p.parse_expr())?;
                limits::settle(&mut expression)?;
                column.generated = Some(expression);
                continue;
            }
            let Some(mut option) = self.run(|p| p.parse_optional_column_option())? else {
                return Ok(column);
            };
            limits::settle(&mut option)?;
            match option {
                ast::ColumnOption::NotNull => column.not_null = true,
                ast::ColumnOption::Null => {}
                ast::ColumnOption::Default(e) => column.default = Some(e.to_string()),
                ast::ColumnOption::PrimaryKey(_) => {
                    if !relation.primary_key.is_empty() {
                        return Err(Error::user(
                            SqlState("42P16"),
                            format!(
                                "multiple primary keys for table \"{}\" are not allowed",
                                relation.name.name
                            ),
                        )
                        .at(position));
                    }
                    relation.primary_key.push(column.name.clone());
                }
                ast::ColumnOption::Generated {
                    generation_expr: Some(e),
                    ..
                } => column.generated = Some(e),
                other => {
                    return Err(Error::unsupported(format!(
                        "column option {other} is not supported"
                    ))
                    .at(position));
                }
            }
        }
    }

    /// One clause after the column list; false if there is none.
    fn relation_clause(&mut self, relation: &mut CreateRelation) -> Result<bool> {
        let position = self.position();
        if self.words(&["append", "only"]) {
            relation.append_only = true;
        } else if self.words(&["on", "conflict"]) {
            relation.on_conflict = Some(
                if self.word("overwrite") || self.words(&["do", "update", "full"]) {
                    Conflict::Overwrite
                } else if self.word("ignore") || self.words(&["do", "nothing"]) {
                    Conflict::Ignore
                } else if self.words(&["do", "update", "if", "not", "null"]) {
                    Conflict::Merge
                } else {
                    return Err(self.unexpected("OVERWRITE, IGNORE or DO UPDATE IF NOT NULL"));
                },
            );
        } else if self.word("include") {
            let what = self.include()?;
            let alias = if self.word("as") {
                Some(self.identifier()?)
            } else {
                None
            };
            relation.includes.push((what, alias));
        } else if self.word("with") {
            let (mut options, secrets) = self.options_and_secrets()?;
            relation.options.append(&mut options);
            relation.secrets.extend(secrets);
        } else if self.at_word("format") || self.at_word("row") {
            relation.format = Some(self.format()?);
        } else if self.at_word("as") {
            return Err(Error::unsupported(
                "CREATE TABLE AS takes its columns from the query: a \
                                           list of columns or options is not supported",
            )
            .at(position));
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn include(&mut self) -> Result<Include> {
        let position = self.position();
        for (word, what) in [
            ("key", Include::Key),
            ("partition", Include::Partition),
            ("offset", Include::Offset),
            ("timestamp", Include::Timestamp),
        ] {
            if self.word(word) {
                return Ok(what);
            }
        }
        for word in ["header", "headers", "payload"] {
            if self.at_word(word) {
                return Err(Error::unsupported(format!(
                    "INCLUDE {} is not supported yet",
                    word.to_uppercase()
                ))
                .at(position)
                .with_hint("KEY, PARTITION, OFFSET and TIMESTAMP can be included."));
            }
        }
        Err(self.unexpected("KEY, PARTITION, OFFSET or TIMESTAMP"))
    }

    /// `(key = value, ...)`: keys are dotted words, in lower case; values strings, numbers or
    /// words.
    pub(super) fn options(&mut self) -> Result<BTreeMap<String, String>> {
        let position = self.position();
        let (options, secrets) = self.options_and_secrets()?;
        match secrets.is_empty() {
            true => Ok(options),
            false => {
                let message = "SECRET is for options of sources, tables and sinks";
                Err(Error::unsupported(message).at(position))
            }
        }
    }

    /// The same, and the options whose value is `SECRET name`.
    fn options_and_secrets(&mut self) -> Result<Given> {
        self.expect(&Token::LParen)?;
        let (mut options, mut secrets) = Given::default();
        loop {
            if self.token(&Token::RParen) {
                return Ok((options, secrets));
            }
            let position = self.position();
            let mut key = self.option_word()?;
            while self.token(&Token::Period) {
                key.push('.');
                key.push_str(&self.option_word()?);
            }
            let key = key.to_lowercase();
            let again = if matches!(self.peek().token, Token::Comma | Token::RParen) {
                options.insert(key.clone(), "true".into()).is_some()
            } else {
                self.expect(&Token::Eq)?;
                match self.word("secret") {
                    true => {
                        let name = self.secret_name()?;
                        secrets.insert(key.clone(), name).is_some()
                    }
                    false => {
                        let value = self.option_value()?;
                        options.insert(key.clone(), value).is_some()
                    }
                }
            };
            if again || options.contains_key(&key) && secrets.contains_key(&key) {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    format!("option \"{key}\" is given twice"),
                )
                .at(position));
            }
            if !self.token(&Token::Comma) {
                self.expect(&Token::RParen)?;
                return Ok((options, secrets));
            }
        }
    }

    fn option_word(&mut self) -> Result<String> {
        let word = match &self.peek().token {
            Token::Word(w) => w.value.clone(),
            Token::SingleQuotedString(s) => s.clone(),
            _ => return Err(self.unexpected("the name of an option")),
        };
        self.parser.advance_token();
        Ok(word)
    }

    pub(super) fn option_value(&mut self) -> Result<String> {
        let minus = self.token(&Token::Minus);
        let value = match &self.peek().token {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => s.clone(),
            Token::DollarQuotedString(s) => s.value.clone(),
            Token::Number(n, _) => n.clone(),
            Token::Word(w) => w.value.clone(),
            _ => return Err(self.unexpected("the option's value, a string")),
        };
        self.parser.advance_token();
        Ok(if minus { format!("-{value}") } else { value })
    }

    /// `FORMAT f ENCODE e [(options)] [KEY ENCODE k [(options)]]`.
    fn format(&mut self) -> Result<FormatClause> {
        let position = self.position();
        if self.at_word("row") {
            return Err(Error::unsupported("ROW FORMAT is not supported")
                .at(position)
                .with_hint("Write FORMAT PLAIN ENCODE JSON."));
        }
        self.expect_word("format")?;
        let format = match () {
            () if self.word("plain") || self.word("native") => Format::Plain,
            () if self.word("upsert") => Format::Upsert,
            () if self.word("debezium") => Format::Debezium,
            () => return Err(self.unexpected("PLAIN, UPSERT or DEBEZIUM")),
        };
        self.expect_word("encode")?;
        let position = self.position();
        let encode = match () {
            () if self.word("json") => Encode::Json,
            () if self.word("bytes") => Encode::Bytes,
            () if self.word("native") => Encode::Native,
            () => {
                if let Some(other) = ["avro", "protobuf", "csv", "parquet"]
                    .iter()
                    .find(|w| self.at_word(w))
                {
                    return Err(Error::unsupported(format!(
                        "ENCODE {} is not supported yet",
                        other.to_uppercase()
                    ))
                    .at(position)
                    .with_hint("JSON and BYTES are supported."));
                }
                return Err(self.unexpected("JSON or BYTES"));
            }
        };
        let options = if self.peek().token == Token::LParen {
            self.options()?
        } else {
            BTreeMap::new()
        };
        let key_encode = if self.words(&["key", "encode"]) {
            let name = self.identifier()?;
            if !["json", "text", "bytes"].contains(&name.as_str()) {
                return Err(Error::unsupported(format!(
                    "KEY ENCODE {} is not supported",
                    name.to_uppercase()
                ))
                .at(position)
                .with_hint("JSON, TEXT and BYTES are supported."));
            }
            if self.peek().token == Token::LParen {
                return Err(Error::unsupported("KEY ENCODE has no options").at(self.position()));
            }
            Some(name)
        } else {
            None
        };
        Ok(FormatClause {
            format,
            encode,
            options,
            key_encode,
        })
    }

    fn view(&mut self, name: Name, if_not_exists: bool, or_replace: bool) -> Result<CreateView> {
        let columns = if self.peek().token == Token::LParen {
            self.identifiers()?
        } else {
            Vec::new()
        };
        let options = if self.word("with") {
            self.options()?
        } else {
            BTreeMap::new()
        };
        self.expect_word("as")?;
        let (query, query_text, emit_on_window_close) = self.query_up_to(|_, _| false)?;
        Ok(CreateView {
            name,
            if_not_exists,
            or_replace,
            columns,
            options,
            query,
            query_text,
            emit_on_window_close,
        })
    }

    fn subscription(&mut self, name: Name, if_not_exists: bool) -> Result<CreateSubscription> {
        self.expect_word("from")?;
        let from = self.name()?;
        let options = match self.word("with") {
            true => self.options()?,
            false => BTreeMap::new(),
        };
        Ok(CreateSubscription {
            name,
            if_not_exists,
            from,
            options,
        })
    }

    fn sink(&mut self, name: Name, if_not_exists: bool) -> Result<CreateSink> {
        let into = if self.word("into") {
            let table = self.name()?;
            let columns = match self.peek().token {
                Token::LParen => self.identifiers()?,
                _ => Vec::new(),
            };
            Some((table, columns))
        } else {
            None
        };
        let input = if self.word("from") {
            SinkInput::Relation(self.name()?)
        } else if self.word("as") {
            let stop = |token: &Token, next: &Token| {
                is_word(token, "with") && *next == Token::LParen
                    || is_word(token, "format") && matches!(next, Token::Word(_))
            };
            let (query, text, emit) = self.query_up_to(stop)?;
            SinkInput::Query(query, text, emit)
        } else {
            return Err(self.unexpected("FROM relation or AS query"));
        };
        let (options, secrets) = if self.word("with") {
            self.options_and_secrets()?
        } else {
            Default::default()
        };
        let format = if self.at_word("format") {
            Some(self.format()?)
        } else {
            None
        };
        Ok(CreateSink {
            name,
            if_not_exists,
            into,
            input,
            options,
            secrets,
            format,
        })
    }

    /// Parses a query that ends before the first token, outside of parentheses, for which
    /// `stop(token, next token)` holds. Also answers its text and whether it ended in EMIT ON
    /// WINDOW CLOSE.
    fn query_up_to(
        &mut self,
        stop: impl Fn(&Token, &Token) -> bool,
    ) -> Result<(Box<ast::Query>, String, bool)> {
        let from = self.peek().clone();
        let first = self
            .tokens
            .iter()
            .position(|t| t.span == from.span && t.token == from.token)
            .unwrap_or(self.tokens.len());
        let solid: Vec<&TokenWithSpan> = self.tokens[first..]
            .iter()
            .filter(|t| !is_blank(&t.token))
            .collect();
        let mut depth = 0;
        let mut end = solid.len();
        for (i, token) in solid.iter().enumerate() {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ if depth == 0
                    && i > 0
                    && stop(
                        &token.token,
                        solid.get(i + 1).map_or(&Token::EOF, |t| &t.token),
                    ) =>
                {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        let emit = end >= 4
            && ["emit", "on", "window", "close"]
                .iter()
                .zip(&solid[end - 4..end])
                .all(|(w, t)| is_word(&t.token, w));
        let query_end = if emit { end - 4 } else { end };
        let Some(last) = query_end.checked_sub(1).and_then(|i| solid.get(i)) else {
            return Err(self.unexpected("a query"));
        };
        let text = self
            .source
            .slice(from.span.start, last.span.end)
            .to_string();
        let tokens: Vec<TokenWithSpan> = solid[..query_end].iter().map(|t| (*t).clone()).collect();
        let mut inner = Front::new(
            tokens,
            self.source.clone(),
            self.positions.clone(),
            self.strict,
        );
        let mut query = inner.run(Parser::parse_query)?;
        limits::settle(&mut *query)?;
        inner.check(&*query)?;
        inner.end()?;
        (0..end).for_each(|_| self.parser.advance_token());
        Ok((query, text, emit))
    }
}

fn is_column(e: &ast::Expr, column: &str) -> bool {
    matches!(e, ast::Expr::Identifier(i) if crate::names::fold(i.clone()) == column)
}
