//! `CREATE TABLE t (LIKE other)`: the columns of another relation, as they are now. What is stored
//! of the table says what it is by itself, and knows the other one no more.

use crate::names::quote;
use crate::parse::DIALECT;
use crate::statement::{ColumnDefinition, CreateRelation, Like};
use crate::{Planner, Read};
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::messages::sql_type_name;
use tidemark_plan::{Column, Conflict, Relation, RelationKind, declared_numeric};

impl Planner {
    /// A table with the columns that it takes from others among its own; with what it reads of
    /// them, and what is to be told.
    ///
    /// Errors: `42P01`, `42809` for what has no columns, `0A000` for unique indexes that would be
    /// copied.
    pub(crate) fn likened(
        &self,
        create: &CreateRelation,
    ) -> Result<(CreateRelation, BTreeSet<Read>, Vec<String>)> {
        let (mut all, mut reads, mut notices) = (create.clone(), BTreeSet::new(), Vec::new());
        all.likes.clear();
        for like in create.likes.iter().rev() {
            let other = self.liked(like)?;
            let within = None;
            let relation = other.id;
            reads.insert(Read { within, relation });
            let columns = other.visible().map(|(at, c)| taken(&other, like, at, c));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            all.columns.splice(like.behind..like.behind, columns);
            if like.indexes {
                notices.extend(self.take_key(&other, &mut all, like)?);
            }
        }
        Ok((all, reads, notices))
    }

    fn liked(&self, like: &Like) -> Result<Arc<Relation>> {
        let (name, position) = (&like.name, like.name.position.max(1));
        let found = self.provider().find(name.schema.as_deref(), &name.name);
        let other = found.map_err(|e| e.at(position))?;
        let has_columns = !matches!(
            other.kind,
            RelationKind::Index | RelationKind::Sink | RelationKind::Subscription
        );
        match has_columns {
            true => Ok(other),
            false => {
                let message = format!("relation \"{}\" is invalid in LIKE clause", other.name);
                Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message).at(position))
            }
        }
    }

    /// The primary key goes along; of other indexes it is told that they do not.
    fn take_key(
        &self,
        other: &Relation,
        into: &mut CreateRelation,
        like: &Like,
    ) -> Result<Option<String>> {
        let position = like.name.position.max(1);
        if self.catalog.has_unique_index(other) {
            let message = "unique indexes are not copied by LIKE .. INCLUDING INDEXES";
            return Err(Error::unsupported(message)
                .at(position)
                .with_hint("Leave INCLUDING INDEXES out, and create them behind the table."));
        }
        if other.kind == RelationKind::Table && other.key_declared && !other.key.is_empty() {
            if !into.primary_key.is_empty() {
                let message = format!(
                    "multiple primary keys for table \"{}\" are not allowed",
                    into.name.name
                );
                return Err(Error::user(SqlState("42P16"), message).at(position));
            }
            let key = other.key.iter().map(|k| other.columns[*k].name.clone());
            into.primary_key = key.collect();
        }
        let has_indexes = self.catalog.indexes(other).next().is_some();
        Ok(has_indexes.then(|| {
            let name = &other.name;
            format!("the indexes of \"{name}\" are not copied, but for its primary key")
        }))
    }
}

/// A column of another relation as one that is declared.
fn taken(other: &Relation, like: &Like, at: usize, column: &Column) -> Result<ColumnDefinition> {
    let generated = other.generated(at).filter(|_| like.generated);
    let generated = generated.map(|g| parsed(&g.text, |p| p.parse_expr()));
    Ok(ColumnDefinition {
        name: column.name.clone(),
        data_type: parsed(&type_text(column), |p| p.parse_data_type())?,
        not_null: !column.nullable,
        default: column.default.clone().filter(|_| like.defaults),
        generated: generated.transpose()?,
        position: like.name.position.max(1),
    })
}

/// A column's type as a statement writes it.
fn type_text(column: &Column) -> String {
    if !column.sql_type.is_empty() {
        return column.sql_type.clone();
    }
    let field = column.sql_field(&column.name);
    let digits = declared_numeric(&field).map(String::from);
    digits.unwrap_or_else(|| sql_type_name(&column.data_type))
}

fn parsed<T>(
    text: &str,
    read: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> Result<T> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text);
    let parsed = parsed.and_then(|mut parser| read(&mut parser));
    parsed.map_err(|_| Error::unsupported(format!("LIKE with a column {text} is not supported")))
}

/// The statement that makes a table without connector, of its own columns alone.
pub(crate) fn definition(create: &CreateRelation) -> String {
    let column = |c: &ColumnDefinition| {
        let mut text = format!("{} {}", quote(&c.name), c.data_type);
        if let Some(default) = &c.default {
            text.push_str(&format!(" DEFAULT {default}"));
        }
        if let Some(generated) = &c.generated {
            text.push_str(&format!(" GENERATED ALWAYS AS ({generated}) STORED"));
        }
        if c.not_null {
            text.push_str(" NOT NULL");
        }
        text
    };
    let mut parts: Vec<String> = create.columns.iter().map(column).collect();
    if !create.primary_key.is_empty() {
        let key: Vec<String> = create.primary_key.iter().map(|k| quote(k)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let schema = create.name.schema.iter().map(|s| format!("{}.", quote(s)));
    let mut text = format!(
        "CREATE TABLE {}{} ({})",
        schema.collect::<String>(),
        quote(&create.name.name),
        parts.join(", ")
    );
    if create.append_only {
        text.push_str(" APPEND ONLY");
    }
    text.push_str(match create.on_conflict {
        None => "",
        Some(Conflict::Overwrite) => " ON CONFLICT OVERWRITE",
        Some(Conflict::Ignore) => " ON CONFLICT IGNORE",
        Some(Conflict::Merge) => " ON CONFLICT DO UPDATE IF NOT NULL",
    });
    if !create.options.is_empty() {
        let options = create.options.iter();
        let options = options.map(|(k, v)| format!("{k} = {}", literal(v)));
        let options: Vec<String> = options.collect();
        text.push_str(&format!(" WITH ({})", options.join(", ")));
    }
    text
}

fn literal(text: &str) -> String {
    ast::Value::SingleQuotedString(text.to_string()).to_string()
}
