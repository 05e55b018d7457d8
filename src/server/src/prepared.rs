//! The prepared statements of a connection: their texts, what the client said of their parameters,
//! and what was found out about them.
//!
//! The tree of a statement is about a hundred times as large as its text. Only those that were
//! parsed last are kept, [`TREES_BYTES`] together; another statement is parsed again when it is
//! used. The texts of one connection have a limit, [`TEXTS_BYTES_MAX`].

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tidemark_common::memory::about;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Catalog;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::kept::Kept;
use tidemark_query::parameters;
use tidemark_query::statement::{Description, sql_of};

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
    /// Its text; there may be no statement in it.
    pub text: String,
    /// Types that the client named; 0 is unknown.
    pub types: Vec<u32>,
    /// Number of its parameters.
    pub count: usize,
    /// What Describe tells, as long as the catalog is that one.
    pub description: Mutex<Option<(Weak<Catalog>, Arc<Description>)>>,
    /// None for a statement that is to be planned.
    pub kept: Option<Kept>,
    /// Whether the text has no statement.
    pub is_empty: bool,
    tree: Mutex<Option<Arc<Statement>>>,
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
            types,
            count,
            description: Mutex::default(),
            kept,
            is_empty: statement.is_none(),
            tree: Mutex::new(statement.map(Arc::new)),
        }
    }

    /// What it says, if that is kept.
    pub fn tree(&self) -> Option<Arc<Statement>> {
        self.tree.lock().clone()
    }

    fn bytes(&self) -> usize {
        self.text.len() + BESIDE_BYTES
    }

    fn tree_bytes(&self) -> usize {
        tree_bytes(&self.text)
    }
}

fn tree_bytes(text: &str) -> usize {
    text.len() * TREE_BYTES.0 + TREE_BYTES.1
}

/// `53200` where statements that SQL prepared, whose trees are kept, would be too many.
pub fn check_trees<'a>(texts: impl Iterator<Item = &'a str>) -> Result<()> {
    if texts.map(tree_bytes).sum::<usize>() > TEXTS_BYTES_MAX {
        return Err(too_many());
    }
    Ok(())
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
    by_name: HashMap<String, Arc<Prepared>>,
    bytes: usize,
    /// Those whose trees are kept, the oldest first, and their bytes.
    trees: VecDeque<(Weak<Prepared>, usize)>,
    tree_bytes: usize,
}

impl Statements {
    /// The statement of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Prepared>> {
        self.by_name.get(name)
    }

    /// A new statement, in place of one of the same name. `53200` if there are too many.
    pub fn insert(&mut self, name: String, prepared: Prepared) -> Result<()> {
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

    /// Forgets a statement. One that a portal has is there until that is closed.
    pub fn remove(&mut self, name: &str) {
        if let Some(prepared) = self.by_name.remove(name) {
            self.bytes -= prepared.bytes();
        }
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
        let kept = |s: &Statements, n: &str| s.get(n).is_some_and(|p| p.tree().is_some());
        assert!(!kept(&statements, "0") && kept(&statements, "9"));
        let first = statements.get("0").unwrap().clone();
        let tree = tidemark_planner::parse(&first.text).unwrap().pop().unwrap();
        statements.keep(&first, Arc::new(tree));
        assert!(kept(&statements, "0"));
        let huge = format!("SELECT '{}'", "x".repeat(30 << 20));
        statements.insert("a".into(), prepared(&huge)).unwrap();
        statements.insert("a".into(), prepared(&huge)).unwrap();
        statements.insert("b".into(), prepared(&huge)).unwrap();
        let refused = statements.insert("c".into(), prepared(&huge)).unwrap_err();
        assert_eq!(refused.state(), SqlState::OUT_OF_MEMORY);
        statements.remove("a");
        statements.insert("c".into(), prepared(&huge)).unwrap();
    }
}
