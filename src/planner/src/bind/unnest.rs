//! Functions that give rows, in terms of functions that give lists: `jsonb_array_elements(x)` is
//! `unnest(jsonb_elements(x))`, in SELECT as in FROM.
//!
//! In FROM, several lists are unnested side by side, the shorter ones filled up with NULL; WITH
//! ORDINALITY is one more list, of the rows' numbers. Columns are named as in PostgreSQL: by the
//! function where its result has no name, or after the table's alias.
//!
//! A function that gives one value, of columns of what stands before it, is the unnesting of an
//! array of it.
//!
//! `generate_series` between constants, without numbered rows, stays a table function where it is
//! read once, which holds no list of its rows.

use super::constants::as_type;
use super::moments::function;
use super::names::hidden;
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectName, Subscript, TableAlias, TableAliasColumnDef, TableFactor,
    Value, Visit, Visitor,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};

/// A list, and the name of its column in FROM; empty where that is the function's, or the alias.
type List = (&'static str, &'static str);

const ROWS: [(&str, &[List]); 16] = [
    ("jsonb_array_elements", &[("jsonb_elements", "value")]),
    (
        "jsonb_array_elements_text",
        &[("jsonb_element_texts", "value")],
    ),
    ("jsonb_object_keys", &[("jsonb_keys", "")]),
    ("jsonb_path_query", &[("jsonb_path_rows", "")]),
    (
        "jsonb_each",
        &[("jsonb_each_keys", "key"), ("jsonb_each_values", "value")],
    ),
    (
        "jsonb_each_text",
        &[
            ("jsonb_each_text_keys", "key"),
            ("jsonb_each_text_values", "value"),
        ],
    ),
    ("json_array_elements", &[("jsonb_elements", "value")]),
    (
        "json_array_elements_text",
        &[("jsonb_element_texts", "value")],
    ),
    ("json_object_keys", &[("jsonb_keys", "")]),
    (
        "json_each",
        &[("jsonb_each_keys", "key"), ("jsonb_each_values", "value")],
    ),
    (
        "json_each_text",
        &[
            ("jsonb_each_text_keys", "key"),
            ("jsonb_each_text_values", "value"),
        ],
    ),
    ("generate_series", &[("series_list", "")]),
    ("generate_subscripts", &[("subscripts_list", "")]),
    ("string_to_table", &[("string_to_array", "")]),
    ("regexp_matches", &[("regexp_match_rows", "")]),
    ("regexp_split_to_table", &[("regexp_split_rows", "")]),
];

/// Whether a function of this name gives rows.
pub(super) fn is_set(name: &str) -> bool {
    name == "unnest" || ROWS.iter().any(|(n, _)| *n == name)
}

/// Whether a function gives rows, by the name that a call writes.
pub(super) fn gives_rows(name: &ObjectName) -> bool {
    let name = name.0.last().and_then(|p| p.as_ident());
    name.is_some_and(|name| is_set(&name.value.to_lowercase()))
}

fn lists_of(name: &ObjectName) -> Option<&'static [List]> {
    let name = name.0.last()?.as_ident()?;
    let found = ROWS
        .iter()
        .find(|(n, _)| name.value.eq_ignore_ascii_case(n))?;
    Some(found.1)
}

fn call(name: &str, args: &[FunctionArg]) -> Expr {
    let mut args = args.to_vec();
    if name == "jsonb_path_rows" {
        super::json_paths::positional(&mut args);
    } else if name.starts_with("jsonb_") {
        args.iter_mut().for_each(|a| quoted_as(a, DataType::JSONB));
    }
    if name == "subscripts_list" {
        let types = [DataType::Integer(None), DataType::Boolean];
        let numbers = args.iter_mut().skip(1).zip(types);
        numbers.for_each(|(a, data_type)| quoted_as(a, data_type));
    }
    Expr::Function(function(name, &args))
}

/// A quoted constant that is of a type.
fn quoted_as(argument: &mut FunctionArg, data_type: DataType) {
    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument
        && matches!(expr, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)))
    {
        *expr = as_type(expr, data_type);
    }
}

/// `type[][]` is `type[]`: how many dimensions are declared does not count.
pub(super) fn one_dimension(expr: &mut Expr) {
    let Expr::Cast { data_type, .. } = expr else {
        return;
    };
    while let DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) = data_type
        && matches!(inner.as_ref(), DataType::Array(_))
    {
        *data_type = inner.as_ref().clone();
    }
}

/// `ARRAY[a, b]::type[]` casts each element alone, whatever the others are. `ARRAY[]::type[]` is
/// `'{}'::type[]`: without a cast it has no type.
pub(super) fn array_cast(expr: &mut Expr) {
    let Expr::Cast {
        kind,
        expr: inner,
        data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)),
        format: None,
        ..
    } = expr
    else {
        return;
    };
    let Expr::Array(array) = inner.as_mut() else {
        return;
    };
    if array.elem.is_empty() {
        **inner = Expr::Value(Value::SingleQuotedString("{}".into()).into());
        return;
    }
    if !array.elem.iter().all(is_scalar) || matches!(**element, DataType::Array(_)) {
        return;
    }
    for value in &mut array.elem {
        let taken = std::mem::replace(value, Expr::Value(Value::Null.into()));
        *value = Expr::Cast {
            kind: kind.clone(),
            expr: Box::new(taken),
            data_type: element.as_ref().clone(),
            array: false,
            format: None,
        };
    }
}

/// Whether a value is none of an array, as far as it is written: a column may be one.
fn is_scalar(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) | Expr::TypedString(_) | Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => !matches!(data_type, DataType::Array(_)),
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => is_scalar(expr),
        Expr::BinaryOp { left, right, .. } => is_scalar(left) && is_scalar(right),
        _ => false,
    }
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// Rewrites a call in an expression.
///
/// Errors: `0A000` for a function whose rows have several columns.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(Function { name, args, .. }) = expr else {
        return Ok(());
    };
    let (Some(lists), FunctionArguments::List(arguments)) = (lists_of(name), args) else {
        return Ok(());
    };
    let [(list, _)] = lists else {
        let message = format!("{name} is supported in FROM only");
        return Err(Error::unsupported(message));
    };
    *expr = call("unnest", &[argument(call(list, &arguments.args))]);
    Ok(())
}

/// Rewrites a function in FROM; `as_lists`: whatever it is, it gives lists.
pub(super) fn factor(factor: &mut TableFactor, as_lists: bool, is_scalar: impl Fn(&str) -> bool) {
    let from_call =
        |name: &_, args: &[_], numbered| from_call(name, args, numbered || as_lists, &is_scalar);
    let (name, lists, names, alias, numbered) = match factor {
        TableFactor::Table {
            name,
            args: Some(args),
            alias,
            with_ordinality,
            ..
        } => match from_call(name, &args.args, *with_ordinality) {
            Some((lists, names)) => (name.clone(), lists, names, alias.take(), *with_ordinality),
            None => return,
        },
        TableFactor::Function {
            name,
            args,
            alias,
            with_ordinality,
            ..
        } => match from_call(name, args, *with_ordinality) {
            Some((lists, names)) => (name.clone(), lists, names, alias.take(), *with_ordinality),
            None => return,
        },
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_ordinality,
            ..
        } => {
            let name = ObjectName::from(vec![Ident::new("unnest")]);
            // Lists that stand side by side are not named after the table.
            let column = if array_exprs.len() == 1 { "" } else { "unnest" };
            let names = vec![column; array_exprs.len()];
            let lists = std::mem::take(array_exprs);
            (name, lists, names, alias.take(), *with_ordinality)
        }
        _ => return,
    };
    *factor = unnested(&name, lists, &names, alias, numbered);
}

/// The lists of a call, and the names of their columns; none of a series that need not be a list.
fn from_call(
    name: &ObjectName,
    args: &[FunctionArg],
    as_list: bool,
    is_scalar: impl Fn(&str) -> bool,
) -> Option<(Vec<Expr>, Vec<&'static str>)> {
    let function = name.0.last()?.as_ident()?;
    if function.value.eq_ignore_ascii_case("unnest") {
        let lists = args.iter().filter_map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(list)) => Some(list.clone()),
            _ => None,
        });
        let column = if args.len() == 1 { "" } else { "unnest" };
        return Some((lists.collect(), vec![column; args.len()]));
    }
    let Some(lists) = lists_of(name) else {
        let value = args.iter().any(reads_columns) && is_scalar(&fold(function.clone()));
        return value.then(|| {
            let value = argument(call(&function.value, args));
            (vec![call("make_array", &[value])], vec![""])
        });
    };
    // A series between constants holds no list of its rows.
    if lists[0].0 == "series_list" && !as_list && !args.iter().any(reads_columns) {
        return None;
    }
    Some((
        lists.iter().map(|(list, _)| call(list, args)).collect(),
        lists.iter().map(|(_, column)| *column).collect(),
    ))
}

/// Whether an argument is one of what stands before the function.
pub(super) fn reads_columns(argument: &FunctionArg) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    argument.visit(&mut Finder).is_break()
}

fn unnested(
    name: &ObjectName,
    mut lists: Vec<Expr>,
    names: &[&str],
    alias: Option<TableAlias>,
    numbered: bool,
) -> TableFactor {
    let function = name.0.last().and_then(|p| p.as_ident()).cloned();
    let function = function.unwrap_or_else(|| Ident::new("unnest"));
    let mut alias = alias.unwrap_or_else(|| TableAlias {
        explicit: true,
        name: function,
        columns: Vec::new(),
        at: None,
    });
    let table = alias.name.clone();
    let given = alias.columns.len();
    let own = names.iter().enumerate().map(|(i, name)| match *name {
        "" => table.clone(),
        // Lists side by side have one name.
        name if names[..i].contains(&name) => Ident::with_quote('"', hidden(name, i)),
        name => Ident::new(name),
    });
    let number = numbered.then(|| Ident::new("ordinality"));
    let columns = own.chain(number).skip(given);
    alias
        .columns
        .extend(columns.map(|name| TableAliasColumnDef {
            name,
            data_type: None,
        }));
    if numbered {
        let all: Vec<FunctionArg> = lists.iter().cloned().map(argument).collect();
        lists.push(call("ordinals_list", &all));
    }
    TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: lists,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// Gives the bounds of slices that have none: `a[:2]` begins at the first element, `a[2:]` ends
/// with the last.
///
/// Where one of several subscripts is a slice, all are, `[n]` is `[1:n]`, and each is of a
/// dimension of its own: an array of one dimension has no elements there, `a[2:3][1]` is `{}`.
pub(super) fn slice_bounds(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else {
        return;
    };
    let number = |n: i32| Expr::Value(Value::Number(n.to_string(), false).into());
    for access in access_chain.iter_mut() {
        if let AccessExpr::Subscript(Subscript::Slice {
            lower_bound,
            upper_bound,
            stride: None,
        }) = access
        {
            lower_bound.get_or_insert_with(|| number(1));
            upper_bound.get_or_insert_with(|| number(i32::MAX));
            [lower_bound, upper_bound]
                .into_iter()
                .flatten()
                .for_each(quoted_bound);
        }
    }
    // A column may have its table's name before it: that is no subscript.
    let subscripts = access_chain.iter().filter(|access| is_subscript(access));
    if subscripts.count() < 2 || !access_chain.iter().any(is_slice) {
        return;
    }
    let slice = |upper| {
        AccessExpr::Subscript(Subscript::Slice {
            lower_bound: Some(number(1)),
            upper_bound: Some(upper),
            stride: None,
        })
    };
    for access in access_chain.iter_mut() {
        if let AccessExpr::Subscript(Subscript::Index { index }) = access {
            quoted_bound(index);
            let index = std::mem::replace(index, number(1));
            *access = slice(index);
        }
    }
    access_chain.push(slice(number(0)));
}

fn is_subscript(access: &AccessExpr) -> bool {
    matches!(access, AccessExpr::Subscript(_))
}

fn is_slice(access: &AccessExpr) -> bool {
    matches!(access, AccessExpr::Subscript(Subscript::Slice { .. }))
}

/// A bound in quotes is a number.
fn quoted_bound(bound: &mut Expr) {
    if matches!(bound, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_))) {
        *bound = as_type(bound, DataType::Integer(None));
    }
}
