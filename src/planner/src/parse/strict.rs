//! What sqlparser reads and PostgreSQL's grammar does not, in statements that clients send; a query
//! that the catalog holds is read as it was when it was accepted.
//!
//! * A number ends before a letter: `1_000`, `0x1F` and `12abc` are no constants, nor a constant
//!   and its alias. `X'1F'` is a string of bits, which there are none of, not of bytes.
//! * An alias is a name, never a quoted text; a join has a condition unless it is a CROSS or
//!   NATURAL one.
//! * `COALESCE`, `GREATEST`, `LEAST` and `NULLIF` are no calls that may lack arguments;
//!   `count(DISTINCT *)`, `current_date()` and `integer(3)` are nothing.
//! * Tables of one FROM, common table expressions of one WITH and windows of one WINDOW have names
//!   of their own.

use super::Source;
use crate::names::fold;
use crate::statement::Positions;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins, Visit, Visitor,
};
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// Errors: `42601` for a number with something behind it that is neither blank nor operator,
/// `0A000` for a string of bits.
pub(super) fn numbers(
    tokens: &[TokenWithSpan],
    source: &Source,
    positions: &Positions,
) -> Result<()> {
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let word = next.filter(|t| matches!(&t.token, Token::Word(w) if w.quote_style.is_none()));
        let (what, end) = match &token.token {
            Token::Number(text, long) if *long || text.contains('_') || word.is_some() => {
                ("numeric literal", word.unwrap_or(token))
            }
            // `X'1F'` is one too.
            Token::HexStringLiteral(_) => {
                let text = source.slice(token.span.start, token.span.end);
                if !text.starts_with('0') {
                    return Err(at_span(bit_string(), token.span, positions));
                }
                ("numeric literal", token)
            }
            Token::SingleQuotedByteStringLiteral(_) => {
                return Err(at_span(bit_string(), token.span, positions));
            }
            Token::Placeholder(name)
                if name.starts_with('$')
                    && name[1..].starts_with(|c: char| c.is_ascii_digit())
                    && !name[1..].chars().all(|c| c.is_ascii_digit()) =>
            {
                ("parameter", token)
            }
            _ => continue,
        };
        let text = source.slice(token.span.start, end.span.end);
        let message = format!("trailing junk after {what} at or near \"{text}\"");
        return Err(at_span(syntax(message), token.span, positions));
    }
    Ok(())
}

/// Errors: `42601`, `42712` and `42P20`, see above.
pub(super) fn tree(node: &impl Visit, positions: &Positions) -> Result<()> {
    match node.visit(&mut Strict { positions }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// `B'101'` and `X'1F'`, which sqlparser takes for strings of bytes.
fn bit_string() -> Error {
    Error::unsupported("strings of bits are not supported")
        .with_hint("A string of bytes is written '\\x1F'::bytea.")
}

fn syntax(message: impl Into<String>) -> Error {
    Error::user(SqlState::SYNTAX_ERROR, message.into())
}

fn at_span(error: Error, span: Span, positions: &Positions) -> Error {
    match positions.of(span.start) {
        Some(position) if position > 0 => error.at(position),
        _ => error,
    }
}

struct Strict<'a> {
    positions: &'a Positions,
}

impl Visitor for Strict<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let Some(with) = &query.with else {
            return ControlFlow::Continue(());
        };
        let mut names = BTreeSet::new();
        for table in &with.cte_tables {
            if let SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) =
                table.query.body.as_ref()
            {
                let message = "data-modifying statements in WITH are not supported";
                return self.fail(Error::unsupported(message), table.alias.name.span);
            }
            let name = fold(table.alias.name.clone());
            if names.contains(&name) {
                let message = format!("WITH query name \"{name}\" specified more than once");
                return self.fail(
                    Error::user(SqlState("42712"), message),
                    table.alias.name.span,
                );
            }
            names.insert(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        if let Some(into) = &select.into {
            let error = Error::unsupported("SELECT INTO is not supported");
            let error = error.with_hint("Use CREATE TABLE .. AS SELECT.");
            return self.fail(error, into.span());
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.alias(alias)?;
            }
        }
        let mut windows = BTreeSet::new();
        for window in &select.named_window {
            let name = fold(window.0.clone());
            if windows.contains(&name) {
                let message = format!("window \"{name}\" is already defined");
                return self.fail(Error::user(SqlState("42P20"), message), window.0.span);
            }
            windows.insert(name);
        }
        let mut tables = Vec::new();
        select
            .from
            .iter()
            .try_for_each(|from| self.joins(from, &mut tables))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => self.call(function),
            Expr::Cast { data_type, .. } if has_display_width(data_type) => {
                self.fail(syntax("syntax error at or near \"(\""), expr.span())
            }
            // Comparisons have no order among themselves.
            Expr::BinaryOp { left, op, right } if is_comparison(op) && is_compared(left) => {
                let message = format!("syntax error at or near \"{op}\"");
                self.fail(syntax(message), right.span())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq
    )
}

fn is_compared(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if is_comparison(op))
}

/// What a name in FROM names.
#[derive(Clone, PartialEq)]
enum Of {
    /// A relation that keeps its own name, with the schema that is written before it.
    Relation(Option<String>),
    /// Something else, or a relation by another name.
    Other,
}

/// A table's name in FROM.
#[derive(Clone)]
struct Named {
    name: String,
    of: Of,
}

impl Strict<'_> {
    fn fail(&self, error: Error, span: Span) -> ControlFlow<Error> {
        ControlFlow::Break(at_span(error, span, self.positions))
    }

    fn alias(&self, alias: &Ident) -> ControlFlow<Error> {
        if alias.quote_style == Some('\'') {
            let text = alias.value.replace('\'', "''");
            let message = format!("syntax error at or near \"'{text}'\"");
            return self.fail(syntax(message), alias.span);
        }
        ControlFlow::Continue(())
    }

    /// Adds the tables of a join to those before it.
    fn joins(&self, from: &TableWithJoins, tables: &mut Vec<Named>) -> ControlFlow<Error> {
        self.factor(&from.relation, tables)?;
        for join in &from.joins {
            self.factor(&join.relation, tables)?;
            let constraint = match &join.join_operator {
                JoinOperator::Join(c)
                | JoinOperator::Inner(c)
                | JoinOperator::Left(c)
                | JoinOperator::LeftOuter(c)
                | JoinOperator::Right(c)
                | JoinOperator::RightOuter(c)
                | JoinOperator::FullOuter(c) => c,
                _ => continue,
            };
            if matches!(constraint, JoinConstraint::None) {
                let error = syntax("syntax error: a JOIN is without its ON or USING")
                    .with_hint("A CROSS JOIN has no condition.");
                return self.fail(error, join.relation.span());
            }
        }
        ControlFlow::Continue(())
    }

    fn factor(&self, factor: &TableFactor, tables: &mut Vec<Named>) -> ControlFlow<Error> {
        match factor {
            TableFactor::Table {
                name, alias, args, ..
            } => self.table(name, alias.as_ref(), args.is_some(), tables),
            TableFactor::Function { name, alias, .. } => {
                self.table(name, alias.as_ref(), true, tables)
            }
            TableFactor::Derived {
                alias: Some(alias), ..
            }
            | TableFactor::UNNEST {
                alias: Some(alias), ..
            } => self.aliased(alias, tables),
            TableFactor::UNNEST { alias: None, .. } => {
                let name = "unnest".to_string();
                self.add(
                    Named {
                        name,
                        of: Of::Other,
                    },
                    factor.span(),
                    tables,
                )
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => match alias {
                // What it hides has names of its own.
                Some(alias) => {
                    self.joins(table_with_joins, &mut Vec::new())?;
                    self.aliased(alias, tables)
                }
                None => self.joins(table_with_joins, tables),
            },
            _ => ControlFlow::Continue(()),
        }
    }

    fn table(
        &self,
        object: &ObjectName,
        alias: Option<&TableAlias>,
        is_call: bool,
        tables: &mut Vec<Named>,
    ) -> ControlFlow<Error> {
        if let Some(alias) = alias {
            return self.aliased(alias, tables);
        }
        let mut parts = object.0.iter().rev().filter_map(|p| p.as_ident());
        let Some(last) = parts.next() else {
            return ControlFlow::Continue(());
        };
        let of = match is_call {
            true => Of::Other,
            false => Of::Relation(parts.next().cloned().map(fold)),
        };
        let name = fold(last.clone());
        if is_call && ["tumble", "hop"].contains(&name.as_str()) {
            // They go by the name of what they read.
            return ControlFlow::Continue(());
        }
        self.add(Named { name, of }, last.span, tables)
    }

    fn aliased(&self, alias: &TableAlias, tables: &mut Vec<Named>) -> ControlFlow<Error> {
        self.alias(&alias.name)?;
        let name = fold(alias.name.clone());
        self.add(
            Named {
                name,
                of: Of::Other,
            },
            alias.name.span,
            tables,
        )
    }

    /// Two relations of one name may be in different schemas, of which only the search path knows
    /// which it is where none is written.
    fn add(&self, table: Named, span: Span, tables: &mut Vec<Named>) -> ControlFlow<Error> {
        let same = |other: &&Named| {
            other.name == table.name
                && (other.of == Of::Other || table.of == Of::Other || other.of == table.of)
        };
        if tables.iter().find(same).is_some() {
            let message = format!("table name \"{}\" specified more than once", table.name);
            return self.fail(Error::user(SqlState("42712"), message), span);
        }
        tables.push(table);
        ControlFlow::Continue(())
    }

    fn call(&self, function: &Function) -> ControlFlow<Error> {
        let FunctionArguments::List(list) = &function.args else {
            return ControlFlow::Continue(());
        };
        let [name] = function.name.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let Some(name) = name.as_ident().filter(|i| i.quote_style.is_none()) else {
            return ControlFlow::Continue(());
        };
        let is = |names: &[&str]| names.iter().any(|n| name.value.eq_ignore_ascii_case(n));
        let near = |token: &str| {
            let message = format!("syntax error at or near \"{token}\"");
            self.fail(syntax(message), name.span)
        };
        let star = [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
        match list.args.len() {
            0 if is(&["coalesce", "greatest", "least", "nullif"]) => near(")"),
            1 if is(&["nullif"]) => near(")"),
            1 if list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
                && list.args == star =>
            {
                near("*")
            }
            _ if is(&["any", "all", "some"]) => near(&name.value),
            0 if is(&[
                "current_date",
                "current_user",
                "current_role",
                "current_catalog",
                "session_user",
                "user",
            ]) =>
            {
                near("(")
            }
            0 if is(&["count"]) => {
                let message = "count(*) must be used to call a parameterless aggregate function";
                self.fail(Error::user(SqlState::WRONG_OBJECT_TYPE, message), name.span)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// `integer(3)` and its like, which other systems have.
fn has_display_width(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int(Some(_))
            | DataType::Integer(Some(_))
            | DataType::Int2(Some(_))
            | DataType::Int4(Some(_))
            | DataType::Int8(Some(_))
            | DataType::SmallInt(Some(_))
            | DataType::BigInt(Some(_))
    )
}
