//! The statement that makes a relation as it is now: as it was written, unless it, columns of it,
//! or what it reads, got other names or columns since.

use crate::identifiers::quote_ident;
use crate::snapshot::Snapshot;
use crate::types::column_type_name;
use tidemark_plan::{Catalog, Column, Conflict, OnError, Relation, RelationKind};
use tidemark_planner::statement::{CreateSink, Name, SinkInput};
use tidemark_planner::{Planner, StatementKind, parse_stored};

/// See the module. A query whose text cannot be read stays as it was written.
pub fn definition(planner: &Planner, relation: &Relation) -> String {
    let written = relation.definition.trim();
    match relation.kind {
        RelationKind::Table if relation.altered.times > 0 => table(relation),
        RelationKind::Index => index(planner.catalog(), relation),
        RelationKind::View | RelationKind::MaterializedView | RelationKind::Sink => {
            let text = with_query(written, relation, &query(planner, relation));
            with_names(planner.catalog(), relation, text)
        }
        _ => with_names(planner.catalog(), relation, written.to_string()),
    }
}

/// The query of a relation as it would have to be written now.
pub fn query(planner: &Planner, relation: &Relation) -> String {
    let now = planner.query_now(relation);
    now.unwrap_or_else(|_| relation.query.clone())
}

/// The same for what shows the catalog.
pub fn query_in(snapshot: &Snapshot, relation: &Relation) -> String {
    let sql = &snapshot.commons.sql;
    let planner = sql.planner(snapshot.catalog.clone(), &snapshot.search_path);
    query(&planner, relation)
}

/// The statement that makes an index.
pub fn index(catalog: &Catalog, index: &Relation) -> String {
    let written = index.definition.trim().trim_end_matches(';');
    let on = index.depends_on.first();
    let on = on.and_then(|id| catalog.relations.get(id));
    let (Some((_, columns)), Some(on)) = (written.split_once(" USING "), on) else {
        return written.to_string();
    };
    format!(
        "CREATE {}INDEX {} ON {}.{} USING {columns}",
        if index.key_declared { "UNIQUE " } else { "" },
        quote_ident(&index.name),
        quote_ident(&on.schema_name),
        quote_ident(&on.name),
    )
}

/// A statement as it was written, with this query.
fn with_query(written: &str, relation: &Relation, now: &str) -> String {
    let renamed = relation.altered.times > 0;
    match written.split_once(relation.query.as_str()) {
        Some((_, behind)) if renamed => format!("{}{now}{behind}", head_of_view(relation)),
        Some((before, behind)) => format!("{before}{now}{behind}"),
        // All of a relation under another name.
        None if now == relation.query || is_all_of_one(now) => written.to_string(),
        None => of_what_it_sends(written, now).unwrap_or_else(|| written.to_string()),
    }
}

fn is_all_of_one(query: &str) -> bool {
    let from = query.strip_prefix("SELECT * FROM ");
    from.is_some_and(|from| !from.starts_with('('))
}

/// A statement with the names of now: its relation's own, and of what a sink sends and a
/// subscription follows.
fn with_names(catalog: &Catalog, relation: &Relation, text: String) -> String {
    let statement = parse_stored(&text).ok().and_then(|mut all| all.pop());
    let mut into = None;
    let (own, from) = match statement.map(|statement| statement.kind) {
        Some(StatementKind::CreateTable(create) | StatementKind::CreateSource(create)) => {
            (create.name, None)
        }
        Some(StatementKind::CreateView(view) | StatementKind::CreateMaterializedView(view)) => {
            (view.name, None)
        }
        Some(StatementKind::CreateSubscription(create)) => (create.name, Some(create.from)),
        Some(StatementKind::CreateSink(sink)) => {
            let target = relation.into_table().map(|into| into.table);
            let target = target.and_then(|id| catalog.relations.get(&id));
            into = sink.into.map(|(name, _)| name).zip(target);
            match sink.input {
                SinkInput::Relation(from) => (sink.name, Some(from)),
                _ => (sink.name, None),
            }
        }
        _ => return text,
    };
    let meant = relation.named.first();
    let meant = meant.and_then(|named| catalog.relations.get(&named.relation));
    let from = from.zip(meant.map(|relation| relation.as_ref()));
    // From behind, so that the places before stay what they are.
    let text = from
        .and_then(|(name, now)| renamed(&text, &name, now))
        .unwrap_or(text);
    let text = into
        .and_then(|(name, now)| renamed(&text, &name, now))
        .unwrap_or(text);
    renamed(&text, &own, relation).unwrap_or(text)
}

/// A text with the name of `now` in place of another; none if it is the same.
fn renamed(text: &str, name: &Name, now: &Relation) -> Option<String> {
    let schema = name.schema.as_deref();
    if (schema.unwrap_or("public"), &name.name) == (&now.schema_name, &now.name) {
        return None;
    }
    let (before, rest) = at_name(text, name)?;
    let mut text = before.to_string();
    if schema.is_some() || now.schema_name != "public" {
        text.push_str(&quote_ident(&now.schema_name));
        text.push('.');
    }
    text.push_str(&quote_ident(&now.name));
    text.push_str(&rest[name_length(rest)..]);
    Some(text)
}

/// What stands before a name, and what begins with it.
fn at_name<'a>(text: &'a str, name: &Name) -> Option<(&'a str, &'a str)> {
    let start = text.char_indices().nth(name.position.checked_sub(1)?)?.0;
    Some(text.split_at(start))
}

/// The bytes of the name that a text begins with, its schema included.
fn name_length(text: &str) -> usize {
    let mut quoted = false;
    let behind = |c: char| {
        quoted ^= c == '"';
        !(quoted || c == '"' || c == '.' || c == '_' || c == '$' || c.is_alphanumeric())
    };
    text.find(behind).unwrap_or(text.len())
}

/// `CREATE SINK .. FROM relation` with a query in its place; none of a text that is no such one.
fn of_what_it_sends(written: &str, query: &str) -> Option<String> {
    let statement = parse_stored(written).ok()?.pop()?;
    let StatementKind::CreateSink(CreateSink {
        input: SinkInput::Relation(name),
        ..
    }) = statement.kind
    else {
        return None;
    };
    let (before, from) = at_name(written, &name)?;
    let before = before.trim_end();
    let before = before.get(..before.len().checked_sub("from".len())?)?;
    Some(format!("{before}AS {query}{}", &from[name_length(from)..]))
}

fn table(relation: &Relation) -> String {
    let column = |(at, c): (usize, &Column)| {
        let mut text = format!("{} {}", quote_ident(&c.name), column_type_name(c));
        if let Some(generated) = relation.generated(at) {
            text.push_str(&format!(" GENERATED ALWAYS AS ({}) STORED", generated.text));
        }
        if let Some(default) = &c.default {
            text.push_str(&format!(" DEFAULT {default}"));
        }
        if !c.nullable {
            text.push_str(" NOT NULL");
        }
        text
    };
    let mut parts: Vec<String> = relation.visible().map(column).collect();
    if !relation.key.is_empty() {
        let key = relation
            .key
            .iter()
            .map(|k| quote_ident(&relation.columns[*k].name));
        parts.push(format!(
            "PRIMARY KEY ({})",
            key.collect::<Vec<_>>().join(", ")
        ));
    }
    let mut text = format!(
        "CREATE TABLE {} ({})",
        full_name(relation),
        parts.join(", ")
    );
    if relation.append_only {
        text.push_str(" APPEND ONLY");
    }
    match relation.conflict {
        Conflict::Overwrite => {}
        Conflict::Ignore => text.push_str(" ON CONFLICT IGNORE"),
        Conflict::Merge => text.push_str(" ON CONFLICT DO UPDATE IF NOT NULL"),
    }
    text + &on_error(relation)
}

/// Its name, with the schema where that is not the usual one.
fn full_name(relation: &Relation) -> String {
    match relation.schema_name.as_str() {
        "public" => quote_ident(&relation.name),
        schema => format!("{}.{}", quote_ident(schema), quote_ident(&relation.name)),
    }
}

fn on_error(relation: &Relation) -> String {
    match relation.on_error {
        OnError::Log => String::new(),
        OnError::Fail => " WITH (on_error = 'fail')".into(),
        OnError::Null => " WITH (on_error = 'null')".into(),
    }
}

fn head_of_view(relation: &Relation) -> String {
    let columns = relation.columns.iter().map(|c| quote_ident(&c.name));
    format!(
        "CREATE {} {} ({}){} AS ",
        relation.kind.name().to_uppercase(),
        full_name(relation),
        columns.collect::<Vec<_>>().join(", "),
        on_error(relation)
    )
}
