//! `jsonb_to_recordset(x) AS t(a int, b text)` and `jsonb_to_record(x) AS t(..)`, in terms of the
//! members of objects:
//!
//! ```text
//! SELECT (o ->> 'a')::int AS a, (o ->> 'b')::text AS b
//! FROM jsonb_array_elements(x) AS r(o) WHERE cardinality(jsonb_keys(o)) IS DISTINCT FROM -1
//! ```
//!
//! The condition holds for every object; of anything else it is an error.

use super::constants::as_type;
use super::unnest::reads_columns;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    DataType, Expr, FunctionArg, FunctionArgExpr, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};

/// The name that stands for the argument in the query.
const ARGUMENT: &str = "__argument";

/// Rewrites a function in FROM.
///
/// Errors: `0A000` for columns of types that are not made from text alone.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let (name, args, alias) = match factor {
        TableFactor::Table {
            name,
            args: Some(args),
            alias: Some(alias),
            with_ordinality: false,
            ..
        } => (name, &args.args, alias),
        TableFactor::Function {
            name,
            args,
            alias: Some(alias),
            with_ordinality: false,
            ..
        } => (name, &*args, alias),
        _ => return Ok(()),
    };
    let Some(function) = name.0.last().and_then(|p| p.as_ident()) else {
        return Ok(());
    };
    let from = match function.value.to_ascii_lowercase().as_str() {
        "jsonb_to_recordset" | "json_to_recordset" => {
            format!("jsonb_array_elements({ARGUMENT}) AS __r(__o)")
        }
        "jsonb_to_record" | "json_to_record" => format!("(SELECT {ARGUMENT} AS __o) AS __r"),
        _ => return Ok(()),
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = args.as_slice() else {
        return Ok(());
    };
    if alias.columns.is_empty() || alias.columns.iter().any(|c| c.data_type.is_none()) {
        return Ok(());
    }
    let lateral = args.iter().any(reads_columns);
    let argument = match argument {
        Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_) | Value::Null) => {
            as_type(argument, DataType::JSONB)
        }
        other => other.clone(),
    };
    let mut subquery = parse_query(&format!(
        "SELECT 1 FROM {from} WHERE cardinality(jsonb_keys(__o)) IS DISTINCT FROM -1"
    ))?;
    let _ = VisitMut::visit(&mut subquery, &mut Argument(argument));
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        let items = alias.columns.iter().map(member);
        select.projection = items.collect::<Result<_>>()?;
    }
    let columns = alias.columns.drain(..).map(|c| TableAliasColumnDef {
        data_type: None,
        ..c
    });
    let alias = TableAlias {
        columns: columns.collect(),
        ..alias.clone()
    };
    *factor = TableFactor::Derived {
        lateral,
        subquery,
        alias: Some(alias),
        sample: None,
    };
    Ok(())
}

/// Puts the argument in place of its name.
struct Argument(Expr);

impl VisitorMut for Argument {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Identifier(ident) if ident.value == ARGUMENT) {
            *expr = Expr::Nested(Box::new(self.0.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// A member of the object, as the type of its column; `null` is NULL.
fn member(column: &TableAliasColumnDef) -> Result<SelectItem> {
    let data_type = column.data_type.clone().unwrap_or(DataType::Text);
    let key = crate::names::fold(column.name.clone()).replace('\'', "''");
    let json = matches!(data_type, DataType::JSON | DataType::JSONB);
    if !json && !is_read_from_text(&data_type) {
        let message = format!("a column of type {data_type} in a record of JSON is not supported");
        return Err(Error::unsupported(message)
            .with_hint("Make the column of type jsonb or text, and cast it."));
    }
    let of = match json {
        true => format!("SELECT nullif(__o -> '{key}', 'null'::jsonb)"),
        false => format!("SELECT (__o ->> '{key}')"),
    };
    let query = parse_query(&of)?;
    let value = match *query.body {
        SetExpr::Select(select) => select.projection.into_iter().next(),
        _ => None,
    };
    let Some(SelectItem::UnnamedExpr(value)) = value else {
        return Err(Error::unsupported(
            "this column of a record is not supported",
        ));
    };
    Ok(SelectItem::ExprWithAlias {
        expr: if json {
            value
        } else {
            as_type(&value, data_type)
        },
        alias: column.name.clone(),
    })
}

/// Types of which a cast from text is what their input reads: no lengths, which a cast cuts to.
fn is_read_from_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Text
        | DataType::Varchar(None)
        | DataType::Boolean
        | DataType::Bool
        | DataType::Date
        | DataType::Real
        | DataType::DoublePrecision
        | DataType::Uuid => true,
        DataType::SmallInt(None) | DataType::Integer(None) | DataType::BigInt(None) => true,
        DataType::Int(None) | DataType::Int2(None) | DataType::Int4(None) => true,
        DataType::Int8(None) | DataType::Float4 | DataType::Float8 => true,
        DataType::Numeric(_) | DataType::Decimal(_) => true,
        DataType::Timestamp(..) | DataType::Time(..) => true,
        _ => false,
    }
}
