//! Fields of rows, `(row).name` and `(row).*`, as what DataFusion's planner hands on:
//!
//! * the name of a field is a constant that begins with [`FIELD`], so that nobody takes it for the
//!   name of a column; [`coerce::records`](crate::coerce) looks it up in the row's type;
//! * an item `(row).*` of a select list is the item `row.*`, in whose place come all of the fields
//!   where the type of the row is known before planning ([`scopes`](super::scopes));
//! * an argument `(row).*` is the row.

use crate::names::{FIELD, fold};
use crate::parse::ALL_FIELDS;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind, Value,
    WildcardAdditionalOptions,
};
use tidemark_common::{Error, Result, SqlState};

/// The name of a field as an access to it has it.
pub(super) fn name_of(field: &Expr) -> Option<String> {
    match field {
        Expr::Identifier(ident) => Some(fold(ident.clone())),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => name.strip_prefix(FIELD).map(str::to_string),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a name stands for all fields.
fn is_all(ident: &Ident) -> bool {
    ident.value == ALL_FIELDS && ident.quote_style.is_some()
}

/// `(row).name`.
pub(super) fn field(row: Expr, name: &str) -> Expr {
    let name = Value::SingleQuotedString(format!("{FIELD}{name}"));
    let access = AccessExpr::Dot(Expr::Value(name.into()));
    let (root, mut access_chain) = match row {
        Expr::CompoundFieldAccess { root, access_chain } => (root, access_chain),
        row @ Expr::Nested(_) => (Box::new(row), Vec::new()),
        row => (Box::new(Expr::Nested(Box::new(row))), Vec::new()),
    };
    access_chain.push(access);
    Expr::CompoundFieldAccess { root, access_chain }
}

/// The row of `(row).*`.
fn without_all(expr: &mut Expr) -> Option<Expr> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else {
        return None;
    };
    let all = |access: &mut AccessExpr| match access {
        AccessExpr::Dot(Expr::Identifier(ident)) => is_all(ident),
        _ => false,
    };
    access_chain.pop_if(all)?;
    let root = std::mem::replace(root.as_mut(), Expr::Value(Value::Null.into()));
    let access_chain = std::mem::take(access_chain);
    Some(match access_chain.is_empty() {
        true => root,
        false => Expr::CompoundFieldAccess {
            root: Box::new(root),
            access_chain,
        },
    })
}

/// Rewrites the items of a select list.
pub(super) fn items(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some(row) = without_all(expr)
        {
            let row = SelectItemQualifiedWildcardKind::Expr(row);
            *item = SelectItem::QualifiedWildcard(row, WildcardAdditionalOptions::default());
        }
    }
}

/// Rewrites an expression, before what it consists of.
///
/// Errors: `42601` for a field of a call that is not in parentheses.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    if let Some(row) = without_all(expr) {
        *expr = row;
    }
    let Expr::CompoundFieldAccess { root, access_chain } = expr else {
        return Ok(());
    };
    if matches!(root.as_ref(), Expr::Function(_))
        && matches!(access_chain.first(), Some(AccessExpr::Dot(_)))
    {
        let error = Error::user(SqlState::SYNTAX_ERROR, "syntax error at or near \".\"");
        return Err(error.with_hint("Put what a field is taken of in parentheses: (f(x)).field"));
    }
    for access in access_chain {
        if let AccessExpr::Dot(name @ Expr::Identifier(_)) = access
            && let Some(text) = name_of(name)
        {
            *name = Expr::Value(Value::SingleQuotedString(format!("{FIELD}{text}")).into());
        }
    }
    Ok(())
}
