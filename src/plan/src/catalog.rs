//! Catalog entries. The catalog is the state that the decision log's DDL entries build up; it is
//! stored whole in every manifest.

use crate::roles::{DefaultGrant, Grants, Role};
use crate::secrets::{Hidden, Secret};
use crate::{Altered, Conflict, Expr, JobPlan, Unreadable, Watermark};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId};

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, in the case that SQL resolves.
    pub name: String,
    /// Arrow type.
    pub data_type: DataType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Default for INSERT, as SQL text.
    pub default: Option<String>,
    /// Text of the type where Arrow's does not say it all: `jsonb`, `uuid`, `varchar(10)`; empty
    /// otherwise.
    #[serde(default)]
    pub sql_type: String,
}

impl Column {
    /// The column as an Arrow field of this name, which carries its SQL type.
    pub fn sql_field(&self, name: impl Into<String>) -> Field {
        let field = with_digits(Field::new(name, self.data_type.clone(), self.nullable));
        if self.sql_type.is_empty() {
            return field;
        }
        let mut metadata = field.metadata().clone();
        metadata.insert(SQL_TYPE.to_string(), self.sql_type.clone());
        field.with_metadata(metadata)
    }
}

/// A field that carries, if it is a `numeric(p, s)`, that it is declared so: what is computed of it
/// may have the same digits by chance.
pub fn with_digits(field: Field) -> Field {
    match digits(field.data_type()) {
        Some(digits) => field.with_metadata([(DIGITS.to_string(), digits)].into()),
        None => field,
    }
}

/// The precision and scale that a field's type is declared with, as in `numeric(10,2)`; `None` of
/// what has none, or is computed.
pub fn declared_numeric(field: &Field) -> Option<&str> {
    let declared = field.metadata().get(DIGITS)?;
    (digits(field.data_type()).as_ref() == Some(declared)).then_some(declared)
}

fn digits(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Decimal128(precision, scale) => Some(format!("numeric({precision},{scale})")),
        _ => None,
    }
}

/// A column that is computed of the others of its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// Which, by position.
    pub column: usize,
    /// Of what, as SQL text.
    pub text: String,
    /// The same over the relation's columns; none of them is computed.
    pub value: Expr,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelationKind {
    /// `CREATE SOURCE`.
    Source,
    /// `CREATE TABLE`, written by DML or by its connector.
    Table,
    /// `CREATE MATERIALIZED VIEW`.
    MaterializedView,
    /// `CREATE VIEW`: a text that is expanded, no job.
    View,
    /// `CREATE SINK`.
    Sink,
    /// `CREATE INDEX`.
    Index,
    /// `CREATE SUBSCRIPTION`: the changes of another relation, kept for a while.
    Subscription,
    /// `CREATE FUNCTION`: a text that is expanded, too. It shares no names with relations; its
    /// columns are its parameters, its query is its body.
    Function,
}

impl RelationKind {
    /// The words of SQL, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            RelationKind::Source => "source",
            RelationKind::Table => "table",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::View => "view",
            RelationKind::Sink => "sink",
            RelationKind::Index => "index",
            RelationKind::Subscription => "subscription",
            RelationKind::Function => "function",
        }
    }
}

/// `on_error`: what happens to a row that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// The row is left out and recorded in `tidemark.errors`.
    #[default]
    Log,
    /// The job stops.
    Fail,
    /// The failing value becomes NULL, and is recorded.
    Null,
}

/// How records become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Each record is a row.
    Plain,
    /// Each record writes the row of its key; a null value deletes it.
    Upsert,
    /// Debezium change events.
    Debezium,
}

/// How a record's value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encode {
    /// A JSON object.
    Json,
    /// The raw bytes, one BYTEA column.
    Bytes,
    /// Rows that the connector makes itself (generators).
    Native,
}

/// What `INCLUDE` adds to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Include {
    /// The record key, text or bytes.
    Key,
    /// The partition, INT.
    Partition,
    /// The offset, BIGINT.
    Offset,
    /// The record's timestamp, TIMESTAMPTZ.
    Timestamp,
}

/// The `WITH (...) FORMAT ... ENCODE ...` of a source, a connector table or a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectorSpec {
    /// `kafka`, `nexmark`, `datagen`, `blackhole`.
    pub connector: String,
    /// All options as written, keys in lower case, without those whose values are secret.
    pub options: BTreeMap<String, String>,
    /// Options whose values are secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hidden: BTreeMap<String, Hidden>,
    /// Of records.
    pub format: Format,
    /// Of values.
    pub encode: Encode,
    /// Options in the parentheses after ENCODE.
    pub encode_options: BTreeMap<String, String>,
    /// Columns filled by INCLUDE: position in the relation and what it is.
    pub includes: Vec<(usize, Include)>,
    /// Columns of the key, by position: of an upsert or Debezium source its PRIMARY KEY, of an
    /// upsert sink its `primary_key`.
    pub key: Vec<usize>,
}

/// Everything known of a relation. Stored as `codec` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// Never used again, also after DROP.
    pub id: RelationId,
    /// Schema name, `public` by default.
    pub schema_name: String,
    /// Name within the schema.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns (of a sink: the columns it sends).
    pub columns: Vec<Column>,
    /// Positions of the declared or derived unique key; empty if none is known.
    pub key: Vec<usize>,
    /// Whether `key` was declared as PRIMARY KEY; of an index: as UNIQUE.
    pub key_declared: bool,
    /// All its changes are insertions.
    pub append_only: bool,
    /// Its watermark.
    pub watermark: Option<Watermark>,
    /// The connector of a source, connector table or sink.
    pub connector: Option<ConnectorSpec>,
    /// Its connector may take records away (compaction): of epochs after this one, the log keeps
    /// the rows until a checkpoint contains them. None where offsets alone bring the rows back.
    pub logs_rows: Option<Epoch>,
    /// The columns that are computed.
    pub generated: Vec<Generated>,
    /// What INSERT does on an existing key.
    pub conflict: Conflict,
    /// What happens to failing rows.
    pub on_error: OnError,
    /// A sink with `snapshot = 'false'` starts with the changes after its creation.
    pub snapshot: bool,
    /// The statement that made it.
    pub definition: String,
    /// The query's own text, of views, materialized views and sinks.
    pub query: String,
    /// Relations that must exist for this one.
    pub depends_on: Vec<RelationId>,
    /// Who made it.
    pub owner: String,
    /// `COMMENT ON`.
    pub comment: Option<String>,
    /// The job; none for a plain view.
    pub job: Option<JobPlan>,
    /// The epoch from which on checkpoints contain its job; none where it has no job that counts
    /// for itself (a plain view, an append-only source): it is there at once.
    pub created_at: Option<Epoch>,
    /// What happened to its columns since it was created.
    pub altered: Altered,
    /// Set when this build cannot read what is stored of the relation: then there is no job, and
    /// only names, dependencies and what else could be read are there.
    pub unreadable: Option<Unreadable>,
}

/// The key under which a field carries the text of its SQL type, where Arrow's does not say it all.
pub const SQL_TYPE: &str = "sql_type";

/// The key under which a field carries the precision and scale that it is declared with.
const DIGITS: &str = "digits";

impl Relation {
    /// The columns as an Arrow schema whose fields carry their SQL types.
    pub fn sql_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| c.sql_field(&c.name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns as an Arrow schema.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                .map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable))
                .collect::<Vec<_>>(),
        ))
    }

    /// The columns as the connector is told of them. A generator of known fields has not those that
    /// are computed: in their places stands another one, which nobody reads there.
    pub fn columns_of_records(&self) -> Vec<Column> {
        let connector = self.connector.as_ref().map(|c| c.connector.as_str());
        if connector != Some("nexmark") {
            return self.columns.clone();
        }
        let read = |at: usize| self.generated(at).is_none();
        let first = (0..self.columns.len()).find(|at| read(*at)).unwrap_or(0);
        let shown = |at: usize| if read(at) { at } else { first };
        let all = (0..self.columns.len()).map(|at| self.columns[shown(at)].clone());
        all.collect()
    }

    /// How a column is computed, if it is.
    pub fn generated(&self, column: usize) -> Option<&Generated> {
        self.generated.iter().find(|g| g.column == column)
    }

    /// The primary key that no two rows share and none lacks: it is declared, and kept.
    pub fn enforced_key(&self) -> Option<&[usize]> {
        let enforced = self.key_declared && !self.key.is_empty() && self.is_materialized();
        enforced.then_some(self.key.as_slice())
    }

    /// Whether rows of this relation are kept, so that it can be read and later jobs can start from
    /// its rows. An append-only source is not: later jobs read its connector again.
    pub fn is_materialized(&self) -> bool {
        self.job.as_ref().is_some_and(|j| {
            j.fragments
                .iter()
                .flat_map(crate::Fragment::nodes)
                .any(|n| matches!(n.op, crate::Op::Materialize { .. }))
        })
    }
}

/// Why a job does not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// Its last complete epoch: what it is read as of.
    pub epoch: Epoch,
    /// The error.
    pub reason: String,
    /// When it stopped, in microseconds since 1970; 0 where an old log does not tell.
    #[serde(default)]
    pub since: i64,
    /// Held back in this incarnation only: nothing is logged, and the next start tries it again.
    #[serde(default)]
    pub held: bool,
}

/// All relations. Cloned on change (copy on write behind an `Arc`): readers keep the one they began
/// with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// By id.
    pub relations: BTreeMap<RelationId, Arc<Relation>>,
    /// Schemas besides `public`.
    pub schemas: Vec<String>,
    /// Who owns them, where that is known.
    pub schema_owners: BTreeMap<String, String>,
    /// Roles by name, those that were made or altered.
    pub roles: BTreeMap<String, Role>,
    /// The number of the role that was made last.
    pub last_role_id: u32,
    /// Their privileges.
    pub grants: Grants,
    /// `ALTER DEFAULT PRIVILEGES`.
    pub default_grants: BTreeSet<DefaultGrant>,
    /// What `CREATE SECRET` made.
    pub secrets: Vec<Secret>,
    /// Jobs that stopped.
    pub stopped: BTreeMap<RelationId, Stopped>,
    /// Relations that take the place of others (new to old), which are gone when a committed
    /// checkpoint contains the new ones.
    pub replacing: BTreeMap<RelationId, RelationId>,
    /// Relations that are made beside others (new to old), whose places all of a succession take
    /// together when all are there ([`crate::succession`]). Nobody sees them before.
    pub beside: BTreeMap<RelationId, RelationId>,
    /// The next relation id.
    pub next_id: u32,
}

impl Catalog {
    /// Finds a relation by schema and name; no function.
    pub fn find(&self, schema_name: &str, name: &str) -> Option<&Arc<Relation>> {
        self.relations.values().find(|r| {
            r.name == name && r.schema_name == schema_name && r.kind != RelationKind::Function
        })
    }

    /// The functions of a schema and name, each of another number of parameters.
    pub fn functions<'a>(
        &'a self,
        schema_name: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Relation>> {
        self.relations.values().filter(move |r| {
            r.kind == RelationKind::Function && r.name == name && r.schema_name == schema_name
        })
    }

    /// The relations that depend directly on `id`.
    pub fn dependents(&self, id: RelationId) -> Vec<&Arc<Relation>> {
        self.relations
            .values()
            .filter(|r| r.depends_on.contains(&id))
            .collect()
    }

    /// The indexes over a relation, with the positions of their columns in it.
    pub fn indexes<'a>(
        &'a self,
        on: &'a Relation,
    ) -> impl Iterator<Item = (&'a Arc<Relation>, Vec<usize>)> {
        let place = |c: &Column| on.columns.iter().position(|o| o.name == c.name);
        let indexes = self
            .relations
            .values()
            .filter(|r| r.kind == RelationKind::Index && r.depends_on.first() == Some(&on.id));
        indexes.filter_map(move |index| {
            let places = index
                .columns
                .iter()
                .map(place)
                .collect::<Option<Vec<usize>>>();
            Some((index, places?))
        })
    }

    /// Those of them that are unique. They are looked for among all relations.
    pub fn unique_indexes<'a>(
        &'a self,
        on: &'a Relation,
    ) -> impl Iterator<Item = (&'a Arc<Relation>, Vec<usize>)> {
        self.indexes(on).filter(|(index, _)| index.key_declared)
    }

    /// Whether there is a unique index over a relation, beside its key.
    pub fn has_unique_index(&self, on: &Relation) -> bool {
        self.unique_indexes(on).next().is_some()
    }

    /// The relations whose jobs cannot run because what is stored of them, or of a relation that
    /// they read, cannot be read by this build; with the reason, which names the relation.
    pub fn unreadable(&self) -> BTreeMap<RelationId, String> {
        let mut found = BTreeMap::new();
        // Most dependencies have smaller numbers than what reads them; not all that took the place
        // of others.
        while self.find_unreadable(&mut found) {}
        found
    }

    /// Whether there were more of them than those that are known.
    fn find_unreadable(&self, found: &mut BTreeMap<RelationId, String>) -> bool {
        let before = found.len();
        for relation in self.relations.values() {
            if found.contains_key(&relation.id) {
                continue;
            }
            let own = relation.unreadable.as_ref().map(|u| {
                format!(
                    "what is stored of {} \"{}\" cannot be read: {}",
                    relation.kind.name(),
                    relation.name,
                    u.reason
                )
            });
            let below = || {
                relation
                    .depends_on
                    .iter()
                    .find_map(|id| found.get(id))
                    .cloned()
            };
            if let Some(reason) = own.or_else(below) {
                found.insert(relation.id, reason);
            }
        }
        found.len() > before
    }
}
