//! `rank(a) WITHIN GROUP (ORDER BY k)` and its like: where a row of these values would come among
//! those of the group. They are counts:
//!
//! ```text
//! rank(a)          count(*) FILTER (WHERE k before a) + 1
//! dense_rank(a)    count(DISTINCT ROW(k)) FILTER (WHERE k before a) + 1
//! percent_rank(a)  (rank(a) - 1) / count(*), 0 of no rows
//! cume_dist(a)     (count(*) FILTER (WHERE k before a or equal to it) + 1) / (count(*) + 1)
//! ```
//!
//! Of several keys the first in which a row differs from the arguments decides.

use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, OrderByExpr,
    SelectItem, SetExpr, Value, Visit, Visitor, visit_expressions_mut,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// The functions.
const NAMES: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// Rewrites one expression before its parts.
///
/// Errors: `42883` for as many arguments as there are no sort keys; `0A000` for arguments that are
/// not constant.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = &*expr else {
        return Ok(());
    };
    let name = function.name.to_string().to_ascii_lowercase();
    if function.within_group.is_empty() || !NAMES.contains(&name.as_str()) {
        return Ok(());
    }
    let arguments = arguments(function, &name)?;
    let keys = &function.within_group;
    if arguments.len() != keys.len() {
        let message = format!(
            "function {name} of {} arguments does not exist",
            arguments.len()
        );
        return Err(Error::user(SqlState::UNDEFINED_FUNCTION, message)
            .with_hint("It has as many arguments as there are sort keys after WITHIN GROUP."));
    }
    let mut parts = Parts::default();
    for (key, argument) in keys.iter().zip(&arguments) {
        parts.key(key, argument);
    }
    let filter = function.filter.as_deref();
    let written = parts.written(&name, filter);
    *expr = parts.filled(&written)?;
    Ok(())
}

/// The arguments, which are constant.
fn arguments(function: &Function, name: &str) -> Result<Vec<Expr>> {
    let refused = |what: &str| {
        let message = format!("{name}() WITHIN GROUP {what} is not supported");
        Err(Error::unsupported(message))
    };
    if function.over.is_some() {
        return refused("over a window");
    }
    let FunctionArguments::List(list) = &function.args else {
        return refused("without arguments");
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return refused("with DISTINCT or ORDER BY among its arguments");
    }
    let mut arguments = Vec::new();
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
            return refused("of such an argument");
        };
        if argument.visit(&mut Varies).is_break() {
            return refused("of an argument that is not constant");
        }
        arguments.push(argument.clone());
    }
    Ok(arguments)
}

/// Looks for what differs from row to row.
struct Varies;

impl Visitor for Varies {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Texts of conditions in which names stand for expressions.
#[derive(Default)]
struct Parts {
    named: Vec<(String, Expr)>,
    /// The keys.
    keys: Vec<String>,
    /// When a row comes before the arguments.
    before: String,
    /// When all keys are equal to the arguments.
    equal: String,
}

impl Parts {
    fn name(&mut self, expr: &Expr) -> String {
        let name = format!("__hypothetical_{}", self.named.len());
        self.named.push((name.clone(), expr.clone()));
        name
    }

    fn key(&mut self, sort: &OrderByExpr, argument: &Expr) {
        let is_there = matches!(argument, Expr::Value(v) if !matches!(v.value, Value::Null));
        let (key, argument) = (self.name(&sort.expr), self.name(argument));
        let descending = sort.options.asc == Some(false);
        let nulls_first = sort.options.nulls_first.unwrap_or(descending);
        let less = if descending { ">" } else { "<" };
        let before_null = match nulls_first {
            true => "false".to_string(),
            false => format!("{key} IS NOT NULL"),
        };
        let before = match (is_there, nulls_first) {
            (true, false) => format!("({key} {less} {argument})"),
            (true, true) => format!("({key} IS NULL OR {key} {less} {argument})"),
            (false, _) => format!(
                "CASE WHEN {argument} IS NULL THEN {before_null} \
                 WHEN {key} IS NULL THEN {nulls_first} ELSE {key} {less} {argument} END"
            ),
        };
        let equal = format!("({key} IS NOT DISTINCT FROM {argument})");
        if self.keys.is_empty() {
            (self.before, self.equal) = (format!("({before})"), equal);
        } else {
            self.before = format!("({} OR ({} AND {before}))", self.before, self.equal);
            self.equal = format!("({} AND {equal})", self.equal);
        }
        self.keys.push(key);
    }

    /// The text of a function.
    fn written(&mut self, function: &str, filter: Option<&Expr>) -> String {
        let filter = filter.map(|filter| self.name(filter));
        let and = filter
            .iter()
            .map(|f| format!(" AND {f}"))
            .collect::<String>();
        let all = filter.iter().map(|f| format!(" FILTER (WHERE {f})"));
        let all = format!("count(*){}", all.collect::<String>());
        let Parts { before, equal, .. } = self;
        let ahead = format!("count(*) FILTER (WHERE {before}{and})");
        match function {
            "rank" => format!("({ahead} + 1)"),
            "dense_rank" => {
                let keys = self.keys.join(", ");
                format!("(count(DISTINCT ROW({keys})) FILTER (WHERE {before}{and}) + 1)")
            }
            "percent_rank" => format!("({ahead}::double precision / greatest({all}, 1))"),
            _ => format!(
                "((count(*) FILTER (WHERE ({before} OR {equal}){and}) + 1)::double precision \
                 / ({all} + 1))"
            ),
        }
    }

    /// The expression that a text stands for.
    fn filled(&self, text: &str) -> Result<Expr> {
        let query = parse_query(&format!("SELECT {text}"))?;
        let SetExpr::Select(mut select) = *query.body else {
            return Err(Error::internal("a SELECT is none"));
        };
        let Some(SelectItem::UnnamedExpr(mut expr)) = select.projection.pop() else {
            return Err(Error::internal("a value is none"));
        };
        let _ = visit_expressions_mut(&mut expr, |part| {
            if let Expr::Identifier(Ident { value, .. }) = &*part
                && let Some((_, meant)) = self.named.iter().find(|(name, _)| name == value)
            {
                *part = Expr::Nested(Box::new(meant.clone()));
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(expr)
    }
}
