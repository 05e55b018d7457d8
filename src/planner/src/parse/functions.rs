//! CREATE, DROP, ALTER and COMMENT ON FUNCTION. The clauses behind the parameters may come in any
//! order, as PostgreSQL has it; the body of a function is read with it, as one query.

use super::{Front, is_word, statements};
use crate::limits;
use crate::statement::{
    AlterAction, CreateFunction, FunctionName, Name, Parameter, Returns, StatementKind,
};
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};

/// `invalid_function_definition`.
const INVALID: SqlState = SqlState("42P13");

/// First words of types of several.
const LONG_TYPES: &[(&str, &[&str])] = &[
    ("double", &["precision"]),
    ("character", &["varying"]),
    ("char", &["varying"]),
    ("national", &["character", "char"]),
    ("timestamp", &["with", "without"]),
    ("time", &["with", "without"]),
    ("bit", &["varying"]),
    (
        "interval",
        &["year", "month", "day", "hour", "minute", "second"],
    ),
];

/// What the clauses of CREATE FUNCTION say.
#[derive(Default)]
struct Clauses {
    returns: Option<Returns>,
    language: Option<String>,
    strict: Option<bool>,
    volatility: Option<&'static str>,
    /// The body, its text, and whether it is RETURN.
    body: Option<(Box<ast::Query>, String, bool)>,
}

impl Front<'_> {
    /// Parses such a statement; `None` if it is something else (nothing is consumed then).
    pub(super) fn function(&mut self) -> Result<Option<StatementKind>> {
        if self.words(&["create", "or", "replace", "function"]) {
            return self.create_function(true).map(Some);
        }
        if self.words(&["create", "function"]) {
            return self.create_function(false).map(Some);
        }
        if self.words(&["drop", "function"]) {
            let if_exists = self.if_exists();
            let names = self.several(Self::function_name)?;
            let cascade = self.cascade();
            return Ok(Some(StatementKind::DropFunction {
                names,
                if_exists,
                cascade,
            }));
        }
        if self.words(&["alter", "function"]) {
            let name = self.function_name()?;
            let action = self.function_action()?;
            return Ok(Some(StatementKind::AlterFunction { name, action }));
        }
        if self.words(&["comment", "on", "function"]) {
            let name = self.function_name()?;
            self.expect_word("is")?;
            let comment = match self.word("null") {
                true => None,
                false => Some(self.string()?),
            };
            return Ok(Some(StatementKind::CommentOnFunction { name, comment }));
        }
        Ok(None)
    }

    fn function_action(&mut self) -> Result<AlterAction> {
        let position = self.position();
        Ok(match () {
            () if self.words(&["rename", "to"]) => AlterAction::RenameTo(self.identifier()?),
            () if self.words(&["set", "schema"]) => AlterAction::SetSchema(self.identifier()?),
            () if self.words(&["owner", "to"]) => AlterAction::OwnerTo(self.identifier()?),
            () => {
                let message = "ALTER FUNCTION is supported with RENAME TO, SET SCHEMA and OWNER TO";
                return Err(Error::unsupported(message)
                    .at(position)
                    .with_hint("CREATE OR REPLACE FUNCTION changes the rest."));
            }
        })
    }

    /// `name [(types)]`, in which names of parameters may stand before their types.
    pub(super) fn function_name(&mut self) -> Result<FunctionName> {
        let name = self.name()?;
        if !self.token(&Token::LParen) {
            return Ok(FunctionName { name, types: None });
        }
        let parameters = match self.token(&Token::RParen) {
            true => Vec::new(),
            false => {
                let all = self.several(Self::parameter)?;
                self.expect(&Token::RParen)?;
                all
            }
        };
        let types = Some(parameters.into_iter().map(|p| p.data_type).collect());
        Ok(FunctionName { name, types })
    }

    fn create_function(&mut self, or_replace: bool) -> Result<StatementKind> {
        let name = self.name()?;
        self.expect(&Token::LParen)?;
        let parameters = match self.token(&Token::RParen) {
            true => Vec::new(),
            false => {
                let all = self.several(Self::parameter)?;
                self.expect(&Token::RParen)?;
                all
            }
        };
        check_parameters(&parameters)?;
        let mut clauses = Clauses::default();
        while self.peek().token != Token::EOF {
            self.function_clause(&mut clauses)?;
        }
        let (body, body_text, is_return) = clauses.finish(&name)?;
        Ok(StatementKind::CreateFunction(Box::new(CreateFunction {
            name,
            or_replace,
            parameters,
            returns: clauses.returns,
            strict: clauses.strict.unwrap_or(false),
            volatility: clauses.volatility.unwrap_or("VOLATILE"),
            is_return,
            body,
            body_text,
        })))
    }

    /// `[IN] [name] type [{DEFAULT | =} expression]`.
    fn parameter(&mut self) -> Result<Parameter> {
        let position = self.position();
        let next = self.parser.peek_nth_token_ref(1).token.clone();
        let follows = matches!(next, Token::Word(_));
        for mode in ["out", "inout", "variadic"] {
            if follows && self.at_word(mode) {
                let message = format!("{} parameters are not supported", mode.to_uppercase());
                return Err(Error::unsupported(message)
                    .at(position)
                    .with_hint("RETURNS TABLE (..) gives several columns."));
            }
        }
        if follows {
            self.word("in");
        }
        let name = match self.is_type_alone() {
            true => None,
            false => Some(self.identifier()?),
        };
        let data_type = self.run(|p| p.parse_data_type())?;
        let default = match self.word("default") || self.token(&Token::Eq) {
            true => {
                let mut default = self.run(|p| p.parse_expr())?;
                limits::settle(&mut default)?;
                self.check(&default)?;
                Some(default)
            }
            false => None,
        };
        Ok(Parameter {
            name,
            data_type,
            default,
        })
    }

    /// Whether what comes next is the type of a parameter without a name.
    fn is_type_alone(&self) -> bool {
        let token = |n: usize| &self.parser.peek_nth_token_ref(n).token;
        let Token::Word(next) = token(1) else {
            return true;
        };
        if next.quote_style.is_none() && next.value.eq_ignore_ascii_case("default") {
            return true;
        }
        LONG_TYPES.iter().any(|(first, seconds)| {
            is_word(token(0), first) && seconds.iter().any(|second| is_word(token(1), second))
        })
    }

    /// One clause behind the parameters.
    fn function_clause(&mut self, clauses: &mut Clauses) -> Result<()> {
        let position = self.position();
        let refused = |what: &str| {
            let message = format!("{what} of a function is not supported");
            Err(Error::unsupported(message).at(position))
        };
        match () {
            () if self.words(&["returns", "null", "on", "null", "input"])
                || self.word("strict") =>
            {
                once(&mut clauses.strict, true, position)
            }
            () if self.words(&["called", "on", "null", "input"]) => {
                once(&mut clauses.strict, false, position)
            }
            () if self.word("returns") => {
                let returns = self.returns()?;
                once(&mut clauses.returns, returns, position)
            }
            () if self.word("language") => {
                let language = match self.peek().token {
                    Token::SingleQuotedString(_) => self.string()?.to_lowercase(),
                    _ => self.identifier()?,
                };
                once(&mut clauses.language, language, position)
            }
            () if self.word("immutable") => once(&mut clauses.volatility, "IMMUTABLE", position),
            () if self.word("stable") => once(&mut clauses.volatility, "STABLE", position),
            () if self.word("volatile") => once(&mut clauses.volatility, "VOLATILE", position),
            // What says nothing of the answer.
            () if self.words(&["not", "leakproof"]) || self.word("leakproof") => Ok(()),
            () if self.word("parallel") => self.identifier().map(|_| ()),
            () if self.word("cost") || self.word("rows") => self.option_value().map(|_| ()),
            () if self.words(&["external", "security", "invoker"])
                || self.words(&["security", "invoker"]) =>
            {
                Ok(())
            }
            () if self.at_word("security") || self.at_word("external") => {
                refused("SECURITY DEFINER")
            }
            () if self.at_word("window") => refused("WINDOW"),
            () if self.at_word("transform") => refused("TRANSFORM"),
            () if self.at_word("support") => refused("SUPPORT"),
            () if self.at_word("set") => refused("SET"),
            () if self.at_word("using") || self.at_word("with") => refused("code that is not SQL"),
            () if self.at_word("begin") => refused("BEGIN ATOMIC"),
            () if self.word("as") => {
                let text = match &self.peek().token {
                    Token::DollarQuotedString(s) => {
                        let text = s.value.clone();
                        self.parser.advance_token();
                        text
                    }
                    _ => self.string()?,
                };
                // In another language it is no query, and is refused for that.
                let known = clauses.language.as_deref().unwrap_or("sql");
                if known != "sql" || !self.is_language("sql") {
                    return self.other_language(clauses);
                }
                let body = body(&text, self.strict)?;
                once(&mut clauses.body, (body, text, false), position)
            }
            () if self.word("return") => {
                let from = self.peek().span;
                let mut value = self.run(|p| p.parse_expr())?;
                limits::settle(&mut value)?;
                self.check(&value)?;
                let text = self.text_since(from);
                let body = returned(value)?;
                once(&mut clauses.body, (body, text, true), position)
            }
            () => Err(self.unexpected("a clause of CREATE FUNCTION")),
        }
    }

    /// Whether no other language is named behind here.
    fn is_language(&self, language: &str) -> bool {
        let mut n = 0;
        loop {
            let token = &self.parser.peek_nth_token_ref(n).token;
            if *token == Token::EOF {
                return true;
            }
            if is_word(token, "language") {
                let next = &self.parser.peek_nth_token_ref(n + 1).token;
                return is_word(next, language)
                    || matches!(next, Token::SingleQuotedString(s)
                        if s.eq_ignore_ascii_case(language));
            }
            n += 1;
        }
    }

    /// Goes to the end of a function in another language, whose name refuses it.
    fn other_language(&mut self, clauses: &mut Clauses) -> Result<()> {
        while self.peek().token != Token::EOF {
            if self.word("language") && clauses.language.is_none() {
                clauses.language = Some(self.option_value()?.to_lowercase());
            } else {
                self.parser.advance_token();
            }
        }
        Ok(())
    }

    fn returns(&mut self) -> Result<Returns> {
        let position = self.position();
        for nothing in ["void", "trigger", "event_trigger", "record"] {
            if self.at_word(nothing) {
                let message = format!("functions that return {nothing} are not supported");
                return Err(Error::unsupported(message).at(position));
            }
        }
        if self.word("setof") {
            if self.at_word("record") {
                let message = "functions that return SETOF record are not supported";
                return Err(Error::unsupported(message)
                    .at(position)
                    .with_hint("RETURNS TABLE (..) names the columns."));
            }
            return Ok(Returns::Values(self.run(|p| p.parse_data_type())?));
        }
        if self.word("table") {
            self.expect(&Token::LParen)?;
            let columns = self.several(|front| {
                let name = front.identifier()?;
                Ok((name, front.run(|p| p.parse_data_type())?))
            })?;
            self.expect(&Token::RParen)?;
            return Ok(Returns::Rows(columns));
        }
        Ok(Returns::Value(self.run(|p| p.parse_data_type())?))
    }
}

impl Clauses {
    /// The body, once all clauses are read.
    ///
    /// Errors: `0A000` for other languages, `42P13` where language or body is missing.
    fn finish(&mut self, name: &Name) -> Result<(Box<ast::Query>, String, bool)> {
        let invalid = |message: &str| Err(Error::user(INVALID, message));
        let body = self.body.take();
        match (self.language.as_deref(), &body) {
            (Some("sql"), _) | (None, Some((_, _, true))) => {}
            (Some(other), _) => {
                let message = format!("functions in language {other} are not supported");
                return Err(Error::unsupported(message)
                    .at(name.position)
                    .with_detail("Only what is SQL can be part of a view's dataflow.")
                    .with_hint("Write the function in LANGUAGE sql."));
            }
            (None, _) => return invalid("no language specified"),
        }
        body.map_or_else(|| invalid("no function body specified"), Ok)
    }
}

/// Sets what may be said once.
fn once<T>(place: &mut Option<T>, value: T, position: usize) -> Result<()> {
    if place.is_some() {
        let message = "conflicting or redundant options";
        return Err(Error::user(SqlState::SYNTAX_ERROR, message).at(position));
    }
    *place = Some(value);
    Ok(())
}

/// Errors: `42P13` for a name that is there twice, and for a parameter without a default behind one
/// that has it.
fn check_parameters(parameters: &[Parameter]) -> Result<()> {
    let mut has_default = false;
    for (at, parameter) in parameters.iter().enumerate() {
        if has_default && parameter.default.is_none() {
            let message = "input parameters after one with a default value must also have defaults";
            return Err(Error::user(INVALID, message));
        }
        has_default |= parameter.default.is_some();
        let Some(name) = &parameter.name else {
            continue;
        };
        if parameters[..at]
            .iter()
            .any(|p| p.name.as_ref() == Some(name))
        {
            let message = format!("parameter name \"{name}\" used more than once");
            return Err(Error::user(INVALID, message));
        }
    }
    Ok(())
}

/// The one query that a body is.
fn body(text: &str, strict: bool) -> Result<Box<ast::Query>> {
    let inside = |e: Error| Error::user(e.state(), e.message().to_string());
    let mut all = statements(text, strict).map_err(inside)?;
    let last = all.pop().map(|s| s.kind);
    if !all.is_empty() {
        let message = "functions of more than one statement are not supported";
        return Err(Error::unsupported(message));
    }
    match last {
        Some(StatementKind::Sql(statement)) => match *statement {
            ast::Statement::Query(query) => Ok(query),
            _ => Err(Error::unsupported(
                "functions that write to tables are not supported",
            )),
        },
        Some(_) => Err(Error::unsupported(
            "functions of other statements than SELECT are not supported",
        )),
        None => Err(Error::user(INVALID, "the function has no statement")
            .with_detail("Function's final statement must be SELECT.")),
    }
}

/// The query of `RETURN value`.
fn returned(value: ast::Expr) -> Result<Box<ast::Query>> {
    let mut query = super::parse_query("SELECT NULL")?;
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![ast::SelectItem::UnnamedExpr(value)];
    }
    Ok(query)
}
