//! The statement that makes a relation as it is now: as it was written, unless columns of it, or of
//! what it reads, were altered since.

use crate::identifiers::quote_ident;
use crate::types::column_type_name;
use tidemark_plan::{Column, Conflict, OnError, Relation, RelationKind};
use tidemark_planner::statement::{CreateSink, SinkInput};
use tidemark_planner::{Planner, StatementKind, parse_stored};

/// See the module. A query whose text cannot be read stays as it was written.
pub fn definition(planner: &Planner, relation: &Relation) -> String {
    let written = relation.definition.trim();
    match relation.kind {
        RelationKind::Table if relation.altered.times > 0 => table(relation),
        RelationKind::View | RelationKind::MaterializedView | RelationKind::Sink => {
            let now = planner.query_now(relation);
            let now = now.unwrap_or_else(|_| relation.query.clone());
            let renamed = relation.altered.times > 0;
            match written.split_once(relation.query.as_str()) {
                Some((_, behind)) if renamed => {
                    format!("{}{now}{behind}", head_of_view(relation))
                }
                Some((before, behind)) => format!("{before}{now}{behind}"),
                None if now == relation.query => written.to_string(),
                None => of_what_it_sends(written, &now).unwrap_or_else(|| written.to_string()),
            }
        }
        _ => written.to_string(),
    }
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
    let start = written.char_indices().nth(name.position.checked_sub(1)?)?.0;
    let (before, from) = written.split_at(start);
    let before = before.trim_end();
    let before = before.get(..before.len().checked_sub("from".len())?)?;
    let mut quoted = false;
    let of_name = |c: char| {
        quoted ^= c == '"';
        !(quoted || c == '"' || c == '.' || c == '_' || c == '$' || c.is_alphanumeric())
    };
    let end = from.find(of_name).unwrap_or(from.len());
    Some(format!("{before}AS {query}{}", &from[end..]))
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
        quote_ident(&relation.name),
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
        quote_ident(&relation.name),
        columns.collect::<Vec<_>>().join(", "),
        on_error(relation)
    )
}
