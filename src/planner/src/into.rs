//! CREATE SINK INTO a table: which columns of the table get what the query has, and whether the
//! table can take its changes.
//!
//! A table with a key takes all changes of a query in which its key is unique, and the insertions
//! of any; one without a key, or that is append only, takes insertions only. What the query depends
//! on may not depend on the table.

use crate::Planner;
use crate::options::{flag, only_options};
use crate::parse::parse_query;
use crate::statement::{CreateSink, Name, Positions};
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{Ident, Query, SetExpr, TableFactor};
use std::collections::BTreeMap;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::messages::sql_type_name;
use tidemark_plan::{
    Catalog, Column, Conflict, ConnectorSpec, Encode, Format, INTO_TABLE, IntoTable, Properties,
    Relation, RelationKind,
};

/// Where a sink is to write.
pub(crate) struct Target {
    pub table: RelationId,
    pub connector: ConnectorSpec,
    /// The statement with the key that the table has.
    pub sink: CreateSink,
    name: Name,
}

impl Target {
    /// `42P17` for a query that depends on the table.
    pub(crate) fn check_cycle(&self, catalog: &Catalog, sink: &Relation) -> Result<()> {
        if !catalog.rests_on(&sink.depends_on, self.table) {
            return Ok(());
        }
        let message = format!(
            "sink \"{}\" would read what it writes: its query depends on table \"{}\"",
            sink.name, self.name.name
        );
        Err(Error::user(SqlState("42P17"), message).at(self.name.position))
    }
}

impl Planner {
    /// Where a sink with these columns writes, if that is a table.
    ///
    /// Errors: `42809` for what cannot be written; `42601`, `42703`, `42701` and `42804` for
    /// columns that do not fit, `23502` for a column that must have a value and gets none, `0A000`
    /// for changes that the table cannot take.
    pub(crate) fn target(
        &self,
        sink: &CreateSink,
        columns: &[Column],
        properties: &Properties,
    ) -> Result<Option<Target>> {
        let Some((name, listed)) = &sink.into else {
            return Ok(None);
        };
        let position = name.position;
        only_options(
            &sink.options,
            &["type", "force_append_only", "snapshot", "on_error"],
        )?;
        if sink.format.is_some() {
            let message = "FORMAT and ENCODE have no meaning for a sink into a table";
            return Err(Error::user(SqlState::SYNTAX_ERROR, message).at(position));
        }
        let table = self.provider().find(name.schema.as_deref(), &name.name);
        let table = table.map_err(|e| e.at(position))?;
        if table.kind != RelationKind::Table || table.connector.is_some() {
            let message = format!("a sink cannot write into \"{}\"", table.name);
            return Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message)
                .at(position)
                .with_hint("Only tables that statements write can be written by a sink."));
        }
        let places = places(&table, listed, columns).map_err(|e| e.at(position))?;
        check_values(&table, &places).map_err(|e| e.at(position))?;
        let forced = flag(&sink.options, "force_append_only", false)?;
        let kind = sink.options.get("type").map(|t| t.to_ascii_lowercase());
        if let Some(kind) = kind
            .as_deref()
            .filter(|k| !["append-only", "upsert"].contains(k))
        {
            let message = format!("option \"type\" cannot be '{kind}'");
            return Err(Error::user(SqlState::INVALID_PARAMETER, message).at(position));
        }
        let adds = properties.append_only || forced || kind.as_deref() == Some("append-only");
        let mut told = sink.clone();
        let format = match adds {
            true => Format::Plain,
            false => {
                let key = key_of(&table, &places, columns).map_err(|e| e.at(position))?;
                told.options.insert("primary_key".into(), key);
                Format::Upsert
            }
        };
        let mut connector = ConnectorSpec {
            connector: INTO_TABLE.into(),
            options: sink.options.clone(),
            hidden: BTreeMap::new(),
            format,
            encode: Encode::Native,
            encode_options: BTreeMap::new(),
            includes: Vec::new(),
            key: Vec::new(),
        };
        let into = IntoTable {
            table: table.id,
            columns: places,
            defaults: Vec::new(),
        };
        into.write(&mut connector);
        Ok(Some(Target {
            table: table.id,
            connector,
            sink: told,
            name: name.clone(),
        }))
    }
}

impl Planner {
    /// The query of a sink into a table, its columns cast to the table's as INSERT casts them; none
    /// where nothing is to be cast, or cannot be.
    pub(crate) fn assigned(
        &self,
        sink: &CreateSink,
        query: &Query,
        positions: &Positions,
    ) -> Option<Box<Query>> {
        let (name, listed) = sink.into.as_ref()?;
        let table = self.provider().find(name.schema.as_deref(), &name.name);
        let table = table.ok()?;
        let columns = self.columns_of_query(query, positions)?;
        let all = targets(&table, listed).ok()?;
        if columns.len() > all.len() {
            return None;
        }
        let quoted = |name: &str| Ident::with_quote('"', name).to_string();
        let mut any = false;
        let mut items = Vec::new();
        for (i, (column, at)) in columns.iter().zip(&all).enumerate() {
            let to = table.columns.get(*at)?;
            let (from, name) = (quoted(&format!("c{i}")), quoted(&column.name));
            let cast = !fits(column, to) && is_assigned(column, to);
            any |= cast;
            items.push(match cast {
                true => format!("CAST({from} AS {}) AS {name}", type_of(to)),
                false => format!("{from} AS {name}"),
            });
        }
        let from: Vec<String> = (0..columns.len())
            .map(|i| quoted(&format!("c{i}")))
            .collect();
        let (items, from) = (items.join(", "), from.join(", "));
        let text = format!("SELECT {items} FROM (SELECT 1) AS sent ({from})");
        let mut assigned = parse_query(&text).ok().filter(|_| any)?;
        if let SetExpr::Select(select) = assigned.body.as_mut()
            && let Some(TableFactor::Derived { subquery, .. }) =
                select.from.first_mut().map(|from| &mut from.relation)
        {
            **subquery = query.clone();
        }
        Some(assigned)
    }
}

/// Whether the values of a column go into another as they are: what has no limit takes what has
/// one.
fn fits(column: &Column, to: &Column) -> bool {
    let limited = |c: &Column| match c.sql_type.contains('(') {
        true => c.sql_type.clone(),
        false => String::new(),
    };
    column.data_type == to.data_type && (limited(column) == limited(to) || limited(to).is_empty())
}

/// Whether INSERT casts the values of a column to another's type without being told: PostgreSQL's
/// assignment casts. A text that is too long is an error there and cut off by a cast: those of
/// limited length are for the user to write.
fn is_assigned(column: &Column, to: &Column) -> bool {
    use DataType as D;
    let is_number = |t: &D| {
        let is_whole = matches!(t, D::Int16 | D::Int32 | D::Int64);
        is_whole
            || matches!(
                t,
                D::Float32 | D::Float64 | D::Decimal128(..) | D::LargeBinary
            )
    };
    let is_moment = |t: &D| matches!(t, D::Date32 | D::Timestamp(..));
    let (from, into) = (&column.data_type, &to.data_type);
    let takes_all = *into == D::Utf8 && !to.sql_type.contains('(');
    takes_all || is_number(from) && is_number(into) || is_moment(from) && is_moment(into)
}

/// The name of a column's type, as a cast writes it.
fn type_of(column: &Column) -> String {
    match &column.data_type {
        DataType::Decimal128(digits, scale) => format!("numeric({digits}, {scale})"),
        _ if !column.sql_type.is_empty() => column.sql_type.clone(),
        other => sql_type_name(other),
    }
}

/// The positions of the columns that a sink writes.
fn targets(table: &Relation, listed: &[String]) -> Result<Vec<usize>> {
    let columns = table.visible();
    match listed {
        [] => Ok(columns.map(|(at, _)| at).collect()),
        names => names.iter().map(|name| find(table, name)).collect(),
    }
}

/// `42703` for a column that is not there.
fn find(table: &Relation, name: &str) -> Result<usize> {
    let mut columns = table.visible();
    let found = columns.find(|(_, c)| c.name == *name);
    let missing = || {
        let message = format!(
            "column \"{name}\" of relation \"{}\" does not exist",
            table.name
        );
        Error::user(SqlState::UNDEFINED_COLUMN, message)
    };
    found.map(|(at, _)| at).ok_or_else(missing)
}

/// The position of the table's column that each column of the sink goes to.
fn places(table: &Relation, listed: &[String], columns: &[Column]) -> Result<Vec<usize>> {
    let all = targets(table, listed)?;
    if let Some(twice) = (0..all.len()).find(|i| all[..*i].contains(&all[*i])) {
        let message = format!("column \"{}\" specified more than once", listed[twice]);
        return Err(Error::user(SqlState::DUPLICATE_COLUMN, message));
    }
    if columns.len() > all.len() || !listed.is_empty() && columns.len() < all.len() {
        let more = match columns.len() > all.len() {
            true => "more columns than the table",
            false => "less columns than are listed",
        };
        let message = format!("the sink has {more}");
        return Err(Error::user(SqlState::SYNTAX_ERROR, message));
    }
    for (column, at) in columns.iter().zip(&all) {
        let to = &table.columns[*at];
        if !fits(column, to) {
            let message = format!(
                "column \"{}\" of table \"{}\" has another type than column \"{}\" of the sink",
                to.name, table.name, column.name
            );
            return Err(Error::user(SqlState::DATATYPE_MISMATCH, message)
                .with_hint("Cast it in the sink's query."));
        }
    }
    Ok(all.into_iter().take(columns.len()).collect())
}

/// Columns that get nothing may be without a value; what is computed is computed by statements
/// only.
fn check_values(table: &Relation, places: &[usize]) -> Result<()> {
    if let Some(generated) = table.generated.first() {
        let message = format!(
            "a sink into table \"{}\", whose column \"{}\" is generated, is not supported",
            table.name, table.columns[generated.column].name
        );
        return Err(Error::unsupported(message).with_hint(
            "Compute the column in the sink's query, and let the table be without it.",
        ));
    }
    let mut others = table.visible().filter(|(at, _)| !places.contains(at));
    match others.find(|(_, c)| !c.nullable && c.default.is_none()) {
        None => Ok(()),
        Some((_, column)) => {
            let message = format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.name, table.name
            );
            Err(Error::user(SqlState::NOT_NULL_VIOLATION, message)
                .with_detail("The sink has no value for it."))
        }
    }
}

/// The names of the sink's columns that go to the table's key.
fn key_of(table: &Relation, places: &[usize], columns: &[Column]) -> Result<String> {
    let refused = |why: &str| {
        let message = format!(
            "table \"{}\" {why} and cannot take rows that are updated or deleted",
            table.name
        );
        Err(Error::unsupported(message).with_hint(
            "Give the table a primary key, or WITH (type = 'append-only', force_append_only = \
             'true') to drop the retractions.",
        ))
    };
    if table.append_only {
        return refused("is append only");
    }
    if table.key.is_empty() {
        return refused("has no primary key");
    }
    match table.conflict {
        Conflict::Overwrite => {}
        Conflict::Ignore => return refused("keeps the first row of a key (ON CONFLICT IGNORE)"),
        Conflict::Merge => {
            return refused("keeps what rows of a key had (ON CONFLICT DO UPDATE IF NOT NULL)");
        }
    }
    let name = |k: &usize| {
        let sent = places.iter().position(|p| p == k)?;
        Some(columns[sent].name.clone())
    };
    let names: Option<Vec<String>> = table.key.iter().map(name).collect();
    match names {
        Some(names) => Ok(names.join(",")),
        None => refused("has a primary key that the sink does not send"),
    }
}
