//! Columns that come, go and change their names after their relation was created.
//!
//! **Law.** A column keeps its position for as long as its relation is there. One that is added
//! comes behind all others; one that is dropped stays where it was, without a name that anybody
//! could write, and rows that are written from then on have NULL in it. So nothing that holds a
//! column by its position (plans of jobs, keys, indexes, rows in the log and in checkpoints) has to
//! be changed by an alteration: jobs that read the relation go on as they are, and rows that are
//! older than a column have its *missing value*, which was computed once, when it was added. It
//! stands with the column in the schemas of the relation's own plan ([`MISSING`]); whoever meets
//! rows that are too narrow for it adds it to them.
//!
//! (The other way would have been to make the table anew beside the old one: all rows twice for a
//! while, and everything that reads the old one would have to be brought over to the new one
//! without a gap.)
//!
//! **Texts** name columns. What a query's text meant when it was written it means for ever: of
//! every relation with a query it is noted by which names that knows the columns of a relation that
//! is altered afterwards ([`Altered::known_as`]), and a relation looks like that wherever the text
//! is read again.

use crate::{Catalog, Column, Relation, RelationKind};
use arrow_schema::{Field, Schema};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::RelationId;

/// The key under which a field of a table's plan carries the value that rows have which are older
/// than the column, as `tidemark_state::added` writes it.
pub const MISSING: &str = "missing";

/// Between the name of a relation and the number of who knows it; in no name that a statement can
/// write.
const KNOWN_BY: char = '\u{1}';

/// Columns of a relation by name and position.
pub type Names = Vec<(String, usize)>;

/// What happened to a relation's columns since it was created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Altered {
    /// How often something did.
    #[serde(default)]
    pub times: u32,
    /// Positions of columns that are gone.
    #[serde(default)]
    pub dropped: BTreeSet<usize>,
    /// What was altered of the relations that its query names when that was planned: how often.
    #[serde(default)]
    pub seen: BTreeMap<RelationId, u32>,
    /// The columns of relations that were altered since, by the names that its query has for them.
    #[serde(default)]
    pub known_as: BTreeMap<RelationId, Names>,
}

impl Altered {
    /// Whether nothing did.
    pub fn is_nothing(&self) -> bool {
        *self == Altered::default()
    }
}

impl Relation {
    /// The columns that can be named, with their positions.
    pub fn visible(&self) -> impl Iterator<Item = (usize, &Column)> {
        let columns = self.columns.iter().enumerate();
        columns.filter(|(at, _)| !self.altered.dropped.contains(at))
    }

    /// The positions of the columns that can be named.
    pub fn visible_positions(&self) -> Vec<usize> {
        self.visible().map(|(at, _)| at).collect()
    }

    /// The place of a column, which is given by its position, among those that can be named.
    pub fn visible_place(&self, position: usize) -> Option<usize> {
        self.visible().position(|(at, _)| at == position)
    }

    /// Those columns as an Arrow schema whose fields carry their SQL types.
    pub fn visible_schema(&self) -> Arc<Schema> {
        let fields = self.visible().map(|(_, c)| c.sql_field(&c.name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Whether a column was dropped.
    pub fn has_dropped(&self) -> bool {
        !self.altered.dropped.is_empty()
    }

    /// The same relation with all columns that it has ever had: what writes rows names those that
    /// are gone as well.
    pub fn revealed(&self) -> Relation {
        let mut relation = self.clone();
        relation.altered.dropped.clear();
        relation
    }

    /// A relation of those columns alone that can be named.
    pub fn shown(&self) -> Relation {
        let place = |at: &usize| self.visible_place(*at);
        Relation {
            columns: self.visible().map(|(_, c)| c.clone()).collect(),
            key: self.key.iter().filter_map(place).collect(),
            altered: Altered::default(),
            ..self.clone()
        }
    }

    /// The same relation as a query knows it, which was written when its columns had these names.
    pub fn known_as(&self, names: &Names) -> Relation {
        let mut relation = self.clone();
        relation.altered.dropped = (0..self.columns.len()).collect();
        for (name, at) in names {
            if let Some(column) = relation.columns.get_mut(*at) {
                column.name.clone_from(name);
                relation.altered.dropped.remove(at);
            }
        }
        relation
    }

    /// The relation as the query of `reader` knows it.
    pub fn known_by(self: &Arc<Relation>, reader: &Relation) -> Arc<Relation> {
        match reader.altered.known_as.get(&self.id) {
            Some(names) => Arc::new(self.known_as(names)),
            None => self.clone(),
        }
    }

    /// The name of the relation in the query of `reader` when that is put into another one: if it
    /// knows the relation by other columns, with its number behind it ([`Catalog::known`]).
    pub fn name_in(&self, reader: Option<&Relation>) -> String {
        match reader {
            Some(reader) if reader.altered.known_as.contains_key(&self.id) => {
                format!("{}{KNOWN_BY}{}", self.name, reader.id)
            }
            _ => self.name.clone(),
        }
    }

    /// The columns that can be named, by name and position.
    pub(crate) fn names(&self) -> Names {
        let named = self.visible().map(|(at, c)| (c.name.clone(), at));
        named.collect()
    }

    /// The schema of each node of its own plan, one column wider.
    fn widen_plan(&mut self, field: &Field) {
        let fragments = self.job.iter_mut().flat_map(|job| &mut job.fragments);
        let mut open: Vec<&mut crate::Node> = fragments.map(|f| &mut f.root).collect();
        while let Some(node) = open.pop() {
            let fields = node.schema.fields().iter().cloned();
            let fields = fields.chain([Arc::new(field.clone())]);
            node.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            open.extend(&mut node.inputs);
        }
    }
}

/// How the names of dropped columns begin.
const DROPPED: &str = "........pg.dropped.";

/// A name that nobody gives: of the column at this position of this relation.
fn name_of_dropped(relation: RelationId, at: usize) -> String {
    format!("{DROPPED}{}.of.{relation}........", at + 1)
}

/// Whether a name is that of a dropped column, which statements do not find.
pub fn is_name_of_dropped(name: &str) -> bool {
    name.starts_with(DROPPED)
}

impl Catalog {
    /// The relation of a name that [`Relation::name_in`] has made, as the query knows it that names
    /// it so.
    pub fn known(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        let (name, reader) = name.split_once(KNOWN_BY)?;
        let reader = self.relations.get(&RelationId(reader.parse().ok()?))?;
        Some(self.find(schema?, name)?.known_by(reader))
    }

    /// `ALTER .. ADD COLUMN`: rows that are there have this value in it.
    pub fn add_column(&mut self, id: RelationId, column: &Column, missing: &str) {
        self.note_names(id);
        self.alter(id, |relation| {
            let metadata = [(MISSING.to_string(), missing.to_string())];
            let field = Field::new(&column.name, column.data_type.clone(), true);
            relation.widen_plan(&field.with_metadata(metadata.into()));
            relation.columns.push(column.clone());
        });
    }

    /// `ALTER .. DROP COLUMN`.
    pub fn drop_column(&mut self, id: RelationId, at: usize) {
        self.alter(id, |relation| {
            let Some(column) = relation.columns.get_mut(at) else {
                return;
            };
            column.name = name_of_dropped(id, at);
            column.nullable = true;
            column.default = None;
            relation.generated.retain(|g| g.column != at);
            relation.altered.dropped.insert(at);
        });
        for relation in self.relations.values_mut() {
            if relation.altered.known_as.contains_key(&id) {
                let known = &mut Arc::make_mut(relation).altered.known_as;
                let names = known.get_mut(&id).into_iter();
                names.for_each(|names| names.retain(|(_, position)| *position != at));
            }
        }
    }

    /// `ALTER .. RENAME COLUMN`. Indexes name their columns; `definitions` are their texts.
    pub fn rename_column(
        &mut self,
        id: RelationId,
        at: usize,
        name: &str,
        definitions: &BTreeMap<RelationId, String>,
    ) {
        self.note_names(id);
        let mut before = None;
        self.alter(id, |relation| {
            let column = relation.columns.get_mut(at);
            before = column.map(|c| std::mem::replace(&mut c.name, name.to_string()));
        });
        let is_index = |r: &&mut Arc<Relation>| {
            r.kind == RelationKind::Index && r.depends_on.first() == Some(&id)
        };
        for index in self.relations.values_mut().filter(is_index) {
            let index = Arc::make_mut(index);
            let columns = index.columns.iter_mut();
            let named = columns.filter(|c| Some(&c.name) == before.as_ref());
            named.for_each(|c| c.name = name.to_string());
            if let Some(definition) = definitions.get(&index.id) {
                index.definition.clone_from(definition);
            }
        }
    }

    fn alter(&mut self, id: RelationId, change: impl FnOnce(&mut Relation)) {
        if let Some(relation) = self.relations.get_mut(&id) {
            let relation = Arc::make_mut(relation);
            relation.altered.times += 1;
            change(relation);
        }
    }

    /// Whatever has a query that names the relation goes on to know it by its names of now.
    fn note_names(&mut self, id: RelationId) {
        use RelationKind::{MaterializedView, Sink, Subscription, View};
        let Some(names) = self.relations.get(&id).map(|r| r.names()) else {
            return;
        };
        let reads = |r: &&mut Arc<Relation>| {
            matches!(r.kind, View | MaterializedView | Sink | Subscription)
                && r.depends_on.contains(&id)
                && r.into_table().is_none_or(|into| into.table != id)
        };
        for reader in self.relations.values_mut().filter(reads) {
            if !reader.altered.known_as.contains_key(&id) {
                let known = &mut Arc::make_mut(reader).altered.known_as;
                known.insert(id, names.clone());
            }
        }
    }
}
