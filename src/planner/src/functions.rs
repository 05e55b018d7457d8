//! Functions that statements made, as the catalog has them.
//!
//! The catalog has a function as a relation of its own kind without a job: its columns are the
//! parameters, its definition is the statement, which is read again wherever the function is
//! called. There is one function for each number of parameters; `OR REPLACE` keeps its number, so
//! that what uses it goes on.

use crate::names::quote;
use crate::parse::parse_stored;
use crate::statement::{CreateFunction, Returns, StatementKind};
use crate::types::sql_type_to_arrow;
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{self, Ident};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::messages::sql_type_name;
use tidemark_plan::{Column, Relation};

/// The statement that made a function.
pub fn declared(function: &Relation) -> Result<CreateFunction> {
    let statement = parse_stored(&function.definition)?.into_iter().next();
    match statement.map(|s| s.kind) {
        Some(StatementKind::CreateFunction(create)) => Ok(*create),
        _ => Err(Error::internal(format!(
            "function \"{}\" has no definition",
            function.name
        ))),
    }
}

/// The types of a function's parameters.
pub(crate) fn types_of(function: &Relation) -> Vec<DataType> {
    let types = function.columns.iter().map(|c| c.data_type.clone());
    types.collect()
}

/// `name(type,..)`, as messages call a function.
pub fn signature(function: &Relation) -> String {
    let types: Vec<String> = function.columns.iter().map(type_of_column).collect();
    format!("{}({})", function.name, types.join(","))
}

fn type_of_column(column: &Column) -> String {
    match column.sql_type.as_str() {
        "varchar" => "character varying".into(),
        _ => sql_type_name(&column.data_type),
    }
}

/// Whether these are the types of a function's parameters.
pub fn has_types(function: &Relation, types: &[ast::DataType]) -> Result<bool> {
    let types = types.iter().map(|t| Ok(base(t)?.0));
    Ok(types.collect::<Result<Vec<_>>>()? == types_of(function))
}

/// The columns that a function gives; of one value, one without a name.
///
/// Errors: those of types that this build does not know.
pub fn results(made: &CreateFunction) -> Result<Vec<Column>> {
    let column = |name: &str, t: &ast::DataType| {
        let (data_type, sql_type) = base(t)?;
        Ok(Column {
            name: name.into(),
            data_type,
            nullable: true,
            default: None,
            sql_type,
        })
    };
    match &made.returns {
        Some(Returns::Value(t) | Returns::Values(t)) => Ok(vec![column("", t)?]),
        Some(Returns::Rows(columns)) => columns.iter().map(|(n, t)| column(n, t)).collect(),
        None => Ok(Vec::new()),
    }
}

/// A type without lengths, digits and scales, which do not count for functions.
pub(crate) fn unmodified(data_type: &ast::DataType) -> ast::DataType {
    use ast::DataType as Sql;
    match data_type {
        Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::CharVarying(_) => Sql::Varchar(None),
        Sql::Char(_) | Sql::Character(_) => Sql::Custom(
            ast::ObjectName::from(vec![Ident::new("bpchar")]),
            Vec::new(),
        ),
        Sql::Numeric(_) | Sql::Decimal(_) | Sql::Dec(_) => Sql::Numeric(ast::ExactNumberInfo::None),
        Sql::Timestamp(_, zone) => Sql::Timestamp(None, *zone),
        Sql::Time(_, zone) => Sql::Time(None, *zone),
        Sql::Interval { .. } => Sql::Interval {
            fields: None,
            precision: None,
        },
        Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) => Sql::Array(
            ast::ArrayElemTypeDef::SquareBracket(Box::new(unmodified(inner)), None),
        ),
        other => other.clone(),
    }
}

/// The type that a parameter or result has, and its text where that says more.
pub(crate) fn base(data_type: &ast::DataType) -> Result<(DataType, String)> {
    if let ast::DataType::Custom(name, _) = data_type {
        let name = name.to_string().to_lowercase();
        if name.starts_with("any") || name == "anycompatible" {
            let message = format!("functions of polymorphic type {name} are not supported");
            return Err(Error::unsupported(message).with_hint("Name a type."));
        }
    }
    sql_type_to_arrow(&unmodified(data_type))
}

/// What a function gives, as text: `integer`, `SETOF text`, `TABLE(a integer)`.
///
/// Errors: those of types that this build does not know.
pub fn returned_text(made: &CreateFunction) -> Result<String> {
    let columns = results(made)?;
    let names = columns.iter().map(|c| match c.name.is_empty() {
        true => type_of_column(c),
        false => format!("{} {}", quote(&c.name), type_of_column(c)),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    Ok(match made.returns {
        Some(Returns::Values(_)) => format!("SETOF {names}"),
        Some(Returns::Rows(_)) => format!("TABLE({names})"),
        _ => names,
    })
}

/// Keeps what a new text of a function does not say: who owns it, and what is said of it.
pub fn kept(old: &Arc<Relation>, mut new: Relation) -> Relation {
    new.id = old.id;
    new.owner.clone_from(&old.owner);
    new.comment.clone_from(&old.comment);
    new
}

/// The parameters as a call writes them: `a integer, b integer DEFAULT 5`.
pub fn parameters_text(function: &Relation, with_defaults: bool) -> String {
    let one = |c: &Column| {
        let mut text = type_of_column(c);
        if !c.name.is_empty() {
            text = format!("{} {text}", quote(&c.name));
        }
        match &c.default {
            Some(default) if with_defaults => format!("{text} DEFAULT {default}"),
            _ => text,
        }
    };
    let all: Vec<String> = function.columns.iter().map(one).collect();
    all.join(", ")
}

/// The statement that makes a function as it is now.
///
/// Errors: those of a definition that this build cannot read.
pub fn definition(function: &Relation) -> Result<String> {
    let written = declared(function)?;
    let returns = returned_text(&written)?;
    let mut text = format!(
        "CREATE OR REPLACE FUNCTION {}.{}({})\n RETURNS {}\n LANGUAGE sql\n",
        quote(&function.schema_name),
        quote(&function.name),
        parameters_text(function, true),
        returns
    );
    let strict = written.strict.then_some("STRICT");
    let volatility = Some(written.volatility).filter(|v| *v != "VOLATILE");
    let words: Vec<&str> = volatility.into_iter().chain(strict).collect();
    if !words.is_empty() {
        text.push_str(&format!(" {}\n", words.join(" ")));
    }
    if written.is_return {
        return Ok(format!("{text}RETURN {}\n", written.body_text));
    }
    let mut tag = "$function$".to_string();
    while written.body_text.contains(&tag) {
        tag.insert(tag.len() - 1, 'x');
    }
    Ok(format!("{text}AS {tag}{}{tag}\n", written.body_text))
}
