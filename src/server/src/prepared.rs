//! The prepared statements of a client, by Parse of the protocol or by PREPARE: one space of names,
//! as in PostgreSQL. Their texts, what the client said of their parameters, and what was found out
//! about them.
//!
//! The tree of a statement is about a hundred times as large as its text. Only those that were
//! parsed last are kept, [`TREES_BYTES`] together; another statement is parsed again when it is
//! used. The texts of one connection have a limit, [`TEXTS_BYTES_MAX`].

use crate::formats::Formats;
use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use pgwire::api::Type;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use tidemark_common::memory::about;
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_node::Engine;
use tidemark_plan::Catalog;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::kept::Kept;
use tidemark_query::parameters;
use tidemark_query::snapshot::{Listed, Lists};
use tidemark_query::statement::{Description, sql_of};
use tidemark_query::types::pg_type;

/// Bytes of trees that a connection keeps, about.
const TREES_BYTES: usize = 8 << 20;

/// Bytes of a tree for each of its text, and of the smallest one.
const TREE_BYTES: (usize, usize) = (100, 2048);

/// Bytes of the texts that a connection may have prepared.
const TEXTS_BYTES_MAX: usize = 64 << 20;

/// What a statement takes beside its text: its name, its types, its description.
const BESIDE_BYTES: usize = 1024;

/// A statement to be bound and executed.
pub struct Prepared {
    /// The text that prepared it; there may be no statement in it.
    pub text: String,
    /// Whether that text is a PREPARE, and what is prepared stands in it.
    pub from_sql: bool,
    /// When it was prepared, in microseconds since 1970.
    pub since: i64,
    /// Number of its parameters.
    pub count: usize,
    /// None for a statement that is to be planned.
    pub kept: Option<Kept>,
    /// Whether the text has no statement.
    pub is_empty: bool,
    /// Types that the client named; 0 is unknown.
    types: Vec<u32>,
    /// What Describe tells, as long as the catalog is that one.
    described: Mutex<Option<(Weak<Catalog>, Arc<Described>)>>,
    /// What the client was told last of its columns.
    told: Mutex<Option<Arc<Described>>>,
    tree: Mutex<Option<Arc<Statement>>>,
}

/// What Describe tells about a statement.
pub struct Described {
    /// The types of its parameters, and its columns.
    pub description: Description,
    /// The message that told the columns last, and their formats in it.
    told: Mutex<Option<(Formats, Vec<u8>)>>,
}

fn changed() -> Error {
    Error::unsupported("cached plan must not change result type")
}

impl Described {
    /// This.
    pub fn new(description: Description) -> Arc<Described> {
        Arc::new(Described {
            description,
            told: Mutex::default(),
        })
    }

    /// Whether rows of this description have the columns of another one.
    ///
    /// Errors: `0A000`, as in PostgreSQL, if not: a relation was altered, or replaced, since.
    pub fn check_same(&self, other: &Described) -> Result<()> {
        let columns = |d: &Described| {
            let schema = d.description.columns.iter();
            let fields = schema.flat_map(|schema| schema.fields());
            fields.map(|f| pg_type(f)).collect::<Vec<_>>()
        };
        match columns(self) == columns(other) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// The same of rows that have so many columns.
    pub fn check_width(&self, width: usize) -> Result<()> {
        let told = self.description.columns.as_ref();
        match told.is_none_or(|schema| schema.fields().len() == width) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// Appends the message that tells the columns in these formats: as it was told last, or as
    /// `tell` writes it.
    pub fn tell(
        &self,
        formats: &Formats,
        out: &mut BytesMut,
        tell: impl FnOnce(&mut BytesMut) -> Result<()>,
    ) -> Result<()> {
        let mut told = self.told.lock();
        if let Some((known, message)) = &*told
            && known == formats
        {
            out.extend_from_slice(message);
            return Ok(());
        }
        let start = out.len();
        tell(out)?;
        *told = Some((formats.clone(), out[start..].to_vec()));
        Ok(())
    }
}

impl Prepared {
    /// Of a text, the statement in it, and the types that the client named.
    pub fn new(text: String, statement: Option<Statement>, types: Vec<u32>) -> Prepared {
        let count = statement.as_ref().and_then(sql_of);
        let count = count.map_or(0, parameters::count).max(types.len());
        let kept = match statement.as_ref().map(|s| &s.kind) {
            Some(StatementKind::Sql(sql)) => Kept::of(sql),
            _ => None,
        };
        Prepared {
            text,
            from_sql: false,
            since: machine::micros(),
            count,
            kept,
            is_empty: statement.is_none(),
            types,
            described: Mutex::default(),
            told: Mutex::default(),
            tree: Mutex::new(statement.map(Arc::new)),
        }
    }

    /// The same of a PREPARE, whose text this is.
    pub fn by_sql(self) -> Prepared {
        Prepared {
            from_sql: true,
            ..self
        }
    }

    /// What it says, if that is kept.
    pub fn tree(&self) -> Option<Arc<Statement>> {
        self.tree.lock().clone()
    }

    /// The type that the client named of each parameter.
    pub fn named_types(&self) -> impl Iterator<Item = Option<Type>> {
        (0..self.count).map(|i| self.named_type(i))
    }

    /// The type that the client named of a parameter, counted from 0.
    pub fn named_type(&self, i: usize) -> Option<Type> {
        Type::from_oid(*self.types.get(i)?)
    }

    /// What Describe tells, if it is known and the catalog is still the same.
    pub fn described(&self, engine: &Engine) -> Option<Arc<Described>> {
        let known = self.described.lock();
        let (catalog, described) = known.as_ref()?;
        let same = engine.is_newest(catalog.as_ptr());
        same.then(|| described.clone())
    }

    /// What Describe tells with this catalog.
    pub fn describe(&self, catalog: &Arc<Catalog>, described: Arc<Described>) {
        *self.described.lock() = Some((Arc::downgrade(catalog), described));
    }

    /// The client is told this of its columns.
    pub fn is_told(&self, described: &Arc<Described>) {
        *self.told.lock() = Some(described.clone());
    }

    /// What the client was told last of its columns, if it has some.
    pub fn told(&self) -> Option<Arc<Described>> {
        let told = self.told.lock().clone();
        told.filter(|told| told.description.columns.is_some())
    }

    /// The types of its parameters as far as they are known: those that nobody named are found when
    /// it is first bound or described.
    fn known_types(&self) -> Vec<Type> {
        let described = self.described.lock();
        let parameters = described.as_ref().map(|(_, d)| &d.description.parameters);
        let found = |i: usize| parameters?.get(i).cloned();
        let types = self.named_types().enumerate();
        types
            .map(|(i, named)| named.or_else(|| found(i)).unwrap_or(Type::UNKNOWN))
            .collect()
    }

    fn bytes(&self) -> usize {
        self.text.len() + BESIDE_BYTES
    }

    fn tree_bytes(&self) -> usize {
        self.text.len() * TREE_BYTES.0 + TREE_BYTES.1
    }
}

/// `26000`: there is no statement of this name.
pub fn missing(name: &str) -> Error {
    let message = match name {
        "" => "unnamed prepared statement does not exist".to_string(),
        name => format!("prepared statement \"{name}\" does not exist"),
    };
    Error::user(SqlState("26000"), message)
}

fn too_many() -> Error {
    let limit = about(TEXTS_BYTES_MAX as u64);
    Error::unavailable(SqlState::OUT_OF_MEMORY, "out of memory")
        .with_detail(format!(
            "The prepared statements of one session may take {limit} together."
        ))
        .with_hint("Deallocate those that are not needed any more.")
}

/// The statements by name.
#[derive(Default)]
pub struct Statements {
    by_name: BTreeMap<String, Arc<Prepared>>,
    bytes: usize,
    /// Those whose trees are kept, the oldest first, and their bytes.
    trees: VecDeque<(Weak<Prepared>, usize)>,
    tree_bytes: usize,
}

impl Statements {
    /// The statement of this name; without a name, the one that was parsed last without one.
    pub fn get(&self, name: &str) -> Result<Arc<Prepared>> {
        self.by_name.get(name).cloned().ok_or_else(|| missing(name))
    }

    /// `42P05` for a name that is taken.
    pub fn check_free(&self, name: &str) -> Result<()> {
        if name.is_empty() || !self.by_name.contains_key(name) {
            return Ok(());
        }
        let message = format!("prepared statement \"{name}\" already exists");
        Err(Error::user(SqlState("42P05"), message))
    }

    /// A new statement, in place of one without a name. `53200` if there are too many.
    pub fn insert(&mut self, name: String, prepared: Prepared) -> Result<()> {
        self.check_free(&name)?;
        self.remove(&name);
        if self.bytes + prepared.bytes() > TEXTS_BYTES_MAX {
            return Err(too_many());
        }
        let prepared = Arc::new(prepared);
        self.bytes += prepared.bytes();
        if let Some(tree) = prepared.tree() {
            self.keep(&prepared, tree);
        }
        self.by_name.insert(name, prepared);
        Ok(())
    }

    /// Forgets a statement, if there is one; a portal keeps what it has until that is closed.
    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.by_name.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |prepared| prepared.bytes());
        removed.is_some()
    }

    /// Forgets all that have a name.
    pub fn clear(&mut self) {
        self.by_name.retain(|name, _| name.is_empty());
        self.bytes = self.by_name.values().map(|prepared| prepared.bytes()).sum();
    }

    /// Keeps what a statement says, and gives up what was kept first.
    pub fn keep(&mut self, prepared: &Arc<Prepared>, tree: Arc<Statement>) {
        *prepared.tree.lock() = Some(tree);
        let bytes = prepared.tree_bytes();
        self.trees.push_back((Arc::downgrade(prepared), bytes));
        self.tree_bytes += bytes;
        while self.tree_bytes > TREES_BYTES && self.trees.len() > 1 {
            let Some((oldest, bytes)) = self.trees.pop_front() else {
                return;
            };
            self.tree_bytes -= bytes;
            if let Some(oldest) = oldest.upgrade() {
                *oldest.tree.lock() = None;
            }
        }
    }
}

/// The statements of a session, which its queries may list on other threads.
#[derive(Default)]
pub struct SharedStatements(Mutex<Statements>);

impl SharedStatements {
    /// They themselves.
    pub fn lock(&self) -> MutexGuard<'_, Statements> {
        self.0.lock()
    }
}

impl Lists for SharedStatements {
    fn listed(&self) -> Vec<Listed> {
        let statements = self.lock();
        let named = statements
            .by_name
            .iter()
            .filter(|(name, _)| !name.is_empty());
        let listed = named.map(|(name, prepared)| Listed {
            name: name.clone(),
            text: prepared.text.clone(),
            since: prepared.since,
            types: prepared.known_types(),
            from_sql: prepared.from_sql,
        });
        listed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &str) -> Prepared {
        let statement = tidemark_planner::parse(text).unwrap().pop();
        Prepared::new(text.into(), statement, Vec::new())
    }

    #[test]
    fn trees_are_given_up_and_texts_have_a_limit() {
        let mut statements = Statements::default();
        let text = format!("SELECT '{}'", "x".repeat(20_000));
        for n in 0..10 {
            statements.insert(n.to_string(), prepared(&text)).unwrap();
        }
        let kept = |s: &Statements, n: &str| s.get(n).is_ok_and(|p| p.tree().is_some());
        assert!(!kept(&statements, "0") && kept(&statements, "9"));
        let first = statements.get("0").unwrap();
        let tree = tidemark_planner::parse(&first.text).unwrap().pop().unwrap();
        statements.keep(&first, Arc::new(tree));
        assert!(kept(&statements, "0"));
        let huge = format!("SELECT '{}'", "x".repeat(30 << 20));
        statements.insert(String::new(), prepared(&huge)).unwrap();
        statements.insert(String::new(), prepared(&huge)).unwrap();
        statements.insert("b".into(), prepared(&huge)).unwrap();
        let refused = statements.insert("c".into(), prepared(&huge)).unwrap_err();
        assert_eq!(refused.state(), SqlState::OUT_OF_MEMORY);
        assert!(statements.remove("") && !statements.remove(""));
        statements.insert("c".into(), prepared(&huge)).unwrap();
        let taken = statements.insert("c".into(), prepared("SELECT 1"));
        assert_eq!(taken.unwrap_err().state(), SqlState("42P05"));
        statements
            .insert(String::new(), prepared("SELECT 1"))
            .unwrap();
        statements.clear();
        assert!(statements.get("").is_ok());
        assert!(SharedStatements(Mutex::new(statements)).listed().is_empty());
    }
}
