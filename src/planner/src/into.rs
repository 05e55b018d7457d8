//! CREATE SINK INTO a table: which columns of the table get what the query has, and whether the
//! table can take its changes.
//!
//! A table with a key takes all changes of a query in which its key is unique, and the insertions
//! of any; one without a key, or that is append only, takes insertions only. What the query depends
//! on may not depend on the table.

use crate::Planner;
use crate::options::{flag, only_options};
use crate::statement::{CreateSink, Name};
use std::collections::BTreeMap;
use tidemark_common::{Error, RelationId, Result, SqlState};
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

/// The position of the table's column that each column of the sink goes to.
fn places(table: &Relation, listed: &[String], columns: &[Column]) -> Result<Vec<usize>> {
    let there: Vec<(usize, &Column)> = table.visible().collect();
    let find = |name: &String| {
        let found = there.iter().find(|(_, c)| c.name == *name);
        let missing = || {
            let message = format!(
                "column \"{name}\" of relation \"{}\" does not exist",
                table.name
            );
            Error::user(SqlState::UNDEFINED_COLUMN, message)
        };
        found.map(|(at, _)| *at).ok_or_else(missing)
    };
    let all: Vec<usize> = match listed {
        [] => there.iter().map(|(at, _)| *at).collect(),
        names => names.iter().map(find).collect::<Result<_>>()?,
    };
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
    // Other types are told by Arrow's.
    let limited = |c: &Column| match c.sql_type.contains('(') {
        true => c.sql_type.clone(),
        false => String::new(),
    };
    for (column, at) in columns.iter().zip(&all) {
        let to = &table.columns[*at];
        // What has no limit takes what has one.
        let fits = column.data_type == to.data_type
            && (limited(column) == limited(to) || limited(to).is_empty());
        if !fits {
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
