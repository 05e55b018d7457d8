//! `tidemark.errors`: what could not be read or computed, as changes of epochs, so that a
//! checkpoint holds exactly those of its epoch.
//!
//! **Law.** The error of a record is keyed by (relation, split, offset, column): meeting it again,
//! by another reader or by a second reading, changes nothing. The error of a failing expression is
//! its row's: it comes and goes with the row's weight, in the epoch that the failing actor is in.
//! As of epoch e the table holds what came in epochs up to e and was not taken back in one of them;
//! since actors work ahead, what later epochs took back is remembered until a checkpoint has passed
//! them.
//!
//! **Limits.** Of each relation the newest [`ERRORS_KEPT_MAX`] errors are kept, and as many that
//! were taken back.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId};
use tidemark_state::errors::{ErrorRow, ErrorsFile, KeptError};

/// Failed rows and records that are kept of each relation.
pub const ERRORS_KEPT_MAX: usize = 10_000;

/// The errors of a node, for all who meet some.
pub type KeptErrors = Arc<Mutex<ErrorTable>>;

/// The errors of all relations.
#[derive(Default)]
pub struct ErrorTable {
    relations: BTreeMap<RelationId, Errors>,
    /// Errors are numbered in the order in which they came.
    next: u64,
    /// Errors that `stored` holds went with their relation.
    forgotten: bool,
    /// What the last checkpoint holds.
    stored: Option<ErrorsFile>,
    /// On a node where no errors are kept: what came and went, for the one that keeps them.
    passed_on: Option<Vec<KeptError>>,
}

/// What a checkpoint does about the errors.
#[derive(Debug, PartialEq)]
pub enum SealedErrors {
    /// They are as the last checkpoint has them.
    Unchanged(Option<ErrorsFile>),
    /// All that are kept, oldest first.
    Changed(Vec<KeptError>),
}

/// The errors of one relation.
#[derive(Default)]
struct Errors {
    kept: BTreeMap<u64, Counted>,
    /// The numbers of those that are kept, by what they are the error of.
    index: BTreeSet<(ByKey, u64)>,
    taken_back: VecDeque<TakenBack>,
    /// Epochs that changed something and that no checkpoint holds yet.
    changed: BTreeSet<Epoch>,
}

struct Counted {
    row: Arc<ErrorRow>,
    weight: i64,
}

/// A part of an error that a later epoch than its own took back.
struct TakenBack {
    number: u64,
    row: Arc<ErrorRow>,
    weight: i64,
    at: Epoch,
}

/// Orders errors by what they are the error of: a record and its column, or a failing row.
#[derive(Clone)]
struct ByKey(Arc<ErrorRow>);

impl ByKey {
    fn key(&self) -> (i64, u32, &str, &str, &[u8]) {
        let row = &self.0;
        if is_record(row) {
            (row.offset, row.split, &row.column, "", &[])
        } else {
            (row.offset, row.split, "", &row.message, &row.raw)
        }
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &ByKey) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &ByKey) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByKey {}

/// Whether it is the error of a record, not of a failing expression.
fn is_record(row: &ErrorRow) -> bool {
    row.offset >= 0
}

impl ErrorTable {
    /// One that keeps nothing: what comes and goes is taken from it ([`ErrorTable::take`]) and
    /// recorded on another node.
    pub fn that_passes_on() -> ErrorTable {
        ErrorTable {
            passed_on: Some(Vec::new()),
            ..ErrorTable::default()
        }
    }

    /// What came and, with a weight below zero, went since this was asked last.
    pub fn take(&mut self) -> Vec<KeptError> {
        self.passed_on
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// An error comes, or goes (`weight` below zero), in `row.epoch`.
    pub fn record(&mut self, relation: RelationId, row: impl Into<Arc<ErrorRow>>, weight: i64) {
        if let Some(passed_on) = &mut self.passed_on {
            let row = row.into();
            passed_on.push(KeptError {
                relation,
                row,
                weight,
            });
            return;
        }
        let errors = self.relations.entry(relation).or_default();
        if weight > 0 {
            errors.add(self.next, row.into(), weight);
            self.next += 1;
        } else {
            errors.take_back(row.into(), weight.unsigned_abs());
        }
    }

    /// An error comes, unless just that one is there already.
    pub fn record_once(&mut self, relation: RelationId, row: ErrorRow) {
        let row = Arc::new(row);
        let kept = self.relations.get(&relation);
        let is_there = kept.is_some_and(|errors| {
            let same = errors.same(&row);
            same.iter().any(|number| errors.kept[number].row == row)
        });
        if !is_there {
            self.record(relation, row, 1);
        }
    }

    /// Forgets all errors of a relation.
    pub fn forget(&mut self, relation: RelationId) {
        self.forgotten |= self.relations.remove(&relation).is_some();
    }

    /// Begins with what a checkpoint holds of the relations that are there still.
    pub fn restore(
        &mut self,
        file: ErrorsFile,
        errors: Vec<KeptError>,
        is_there: impl Fn(RelationId) -> bool,
    ) {
        for error in errors {
            if is_there(error.relation) {
                self.relations.entry(error.relation).or_default().keep(
                    self.next,
                    error.row,
                    error.weight,
                );
                self.next += 1;
            } else {
                self.forgotten = true;
            }
        }
        self.stored = Some(file);
    }

    /// What the checkpoint of `epoch`, which all of these relations have passed, holds.
    pub fn seal(&mut self, epoch: Epoch, relations: &[RelationId]) -> SealedErrors {
        let mut changed = std::mem::take(&mut self.forgotten);
        for relation in relations {
            let Some(errors) = self.relations.get_mut(relation) else {
                continue;
            };
            let later = errors.changed.split_off(&epoch.next());
            changed |= !std::mem::replace(&mut errors.changed, later).is_empty();
        }
        if !changed {
            return SealedErrors::Unchanged(self.stored.clone());
        }
        let mut sealed = Vec::new();
        for relation in relations {
            if let Some(errors) = self.relations.get_mut(relation) {
                sealed.extend(errors.as_of(epoch).into_iter().map(
                    |(number, Counted { row, weight })| {
                        (
                            number,
                            KeptError {
                                relation: *relation,
                                row,
                                weight,
                            },
                        )
                    },
                ));
                errors.taken_back.retain(|t| t.at > epoch);
            }
        }
        sealed.sort_by_key(|(number, _)| *number);
        SealedErrors::Changed(sealed.into_iter().map(|(_, error)| error).collect())
    }

    /// What was sealed is stored; nothing is when there are no errors.
    pub fn set_stored(&mut self, file: Option<ErrorsFile>) {
        self.stored = file;
    }

    /// What was sealed could not be stored: the next checkpoint tries anew. Returns what the last
    /// one holds.
    pub fn not_stored(&mut self) -> Option<ErrorsFile> {
        self.forgotten = true;
        self.stored.clone()
    }

    /// All errors of each relation as of an epoch that no checkpoint has passed, oldest first.
    pub fn rows(
        &self,
        epoch: impl Fn(RelationId) -> Epoch,
    ) -> impl Iterator<Item = (RelationId, Arc<ErrorRow>)> {
        self.relations.iter().flat_map(move |(id, errors)| {
            let kept = errors.as_of(epoch(*id)).into_values();
            kept.map(|e| (*id, e.row))
        })
    }

    /// How many are kept of each relation.
    pub fn counts(&self) -> impl Iterator<Item = (RelationId, usize)> {
        self.relations
            .iter()
            .map(|(id, errors)| (*id, errors.kept.len()))
    }
}

impl Errors {
    fn keep(&mut self, number: u64, row: Arc<ErrorRow>, weight: i64) {
        if self.kept.len() == ERRORS_KEPT_MAX
            && let Some((oldest, Counted { row, .. })) = self.kept.pop_first()
        {
            self.index.remove(&(ByKey(row), oldest));
        }
        self.index.insert((ByKey(row.clone()), number));
        self.kept.insert(number, Counted { row, weight });
    }

    /// The numbers of the errors of the same thing, oldest first.
    fn same(&self, row: &Arc<ErrorRow>) -> Vec<u64> {
        let key = ByKey(row.clone());
        self.index
            .range((key.clone(), 0)..=(key, u64::MAX))
            .map(|(_, number)| *number)
            .collect()
    }

    fn add(&mut self, number: u64, row: Arc<ErrorRow>, weight: i64) {
        if is_record(&row) && !self.same(&row).is_empty() {
            return;
        }
        self.changed.insert(row.epoch);
        self.keep(number, row, weight);
    }

    fn take_back(&mut self, row: Arc<ErrorRow>, weight: u64) {
        let (at, mut left) = (row.epoch, i64::try_from(weight).unwrap_or(i64::MAX));
        for number in self.same(&row) {
            let Some(error) = self.kept.get_mut(&number).filter(|_| left > 0) else {
                break;
            };
            let part = left.min(error.weight);
            left -= part;
            error.weight -= part;
            let (row, is_gone) = (error.row.clone(), error.weight == 0);
            if is_gone {
                self.kept.remove(&number);
                self.index.remove(&(ByKey(row.clone()), number));
            }
            if row.epoch < at {
                if self.taken_back.len() == ERRORS_KEPT_MAX {
                    self.taken_back.pop_front();
                }
                self.taken_back.push_back(TakenBack {
                    number,
                    row,
                    weight: part,
                    at,
                });
            }
            self.changed.insert(at);
        }
    }

    fn as_of(&self, epoch: Epoch) -> BTreeMap<u64, Counted> {
        let kept = self
            .kept
            .iter()
            .map(|(number, e)| (*number, &e.row, e.weight));
        let taken_back = self
            .taken_back
            .iter()
            .filter(|t| t.at > epoch)
            .map(|t| (t.number, &t.row, t.weight));
        let mut found = BTreeMap::new();
        for (number, row, weight) in kept
            .chain(taken_back)
            .filter(|(_, row, _)| row.epoch <= epoch)
        {
            found
                .entry(number)
                .or_insert_with(|| Counted {
                    row: row.clone(),
                    weight: 0,
                })
                .weight += weight;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RelationId = RelationId(1);
    const B: RelationId = RelationId(2);

    fn record(epoch: u64, offset: i64, column: &str) -> ErrorRow {
        ErrorRow {
            epoch: Epoch(epoch),
            offset,
            column: column.into(),
            message: "bad".into(),
            ..ErrorRow::default()
        }
    }

    fn failing(epoch: u64, raw: &str) -> ErrorRow {
        ErrorRow {
            epoch: Epoch(epoch),
            offset: -1,
            message: "division by zero".into(),
            raw: raw.into(),
            ..ErrorRow::default()
        }
    }

    fn file(epoch: u64) -> ErrorsFile {
        ErrorsFile {
            path: format!("errors/1-{epoch}.parquet"),
            epoch: Epoch(epoch),
            rows: 1,
            bytes: 1,
            crc32: 1,
        }
    }

    fn sealed(table: &mut ErrorTable, epoch: u64, relations: &[RelationId]) -> String {
        match table.seal(Epoch(epoch), relations) {
            SealedErrors::Unchanged(file) => format!("as of {}", file.map_or(0, |f| f.epoch.0)),
            SealedErrors::Changed(errors) => {
                table.set_stored((!errors.is_empty()).then(|| file(epoch)));
                let line = |e: &KeptError| {
                    format!(
                        "{}@{} {}{}*{}",
                        e.relation,
                        e.row.epoch,
                        e.row.offset,
                        String::from_utf8_lossy(&e.row.raw),
                        e.weight
                    )
                };
                errors.iter().map(line).collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn a_checkpoint_holds_the_errors_of_its_epochs_though_actors_work_ahead() {
        let mut table = ErrorTable::default();
        table.record(A, failing(1, "x"), 2);
        table.record(A, failing(3, "y"), 1);
        table.record(A, failing(3, "x"), -1);
        table.record(A, failing(4, "x"), -1);
        table.record(A, failing(4, "z"), 1);
        table.record(A, failing(4, "z"), -1);
        let counts: Vec<usize> = (0..5)
            .map(|epoch| table.rows(|_| Epoch(epoch)).count())
            .collect();
        assert_eq!(counts, [0, 1, 1, 2, 1]);
        assert_eq!(sealed(&mut table, 2, &[A]), "1@1 -1x*2");
        assert_eq!(sealed(&mut table, 2, &[A]), "as of 2");
        assert_eq!(sealed(&mut table, 3, &[A]), "1@1 -1x*1, 1@3 -1y*1");
        assert_eq!(sealed(&mut table, 4, &[A]), "1@3 -1y*1");
        assert_eq!(sealed(&mut table, 9, &[A]), "as of 4");
        table.record(A, failing(10, "y"), -1);
        assert_eq!(sealed(&mut table, 10, &[A]), "");
        assert_eq!(sealed(&mut table, 11, &[A]), "as of 0");
    }

    #[test]
    fn the_error_of_a_record_is_there_once() {
        let mut table = ErrorTable::default();
        for epoch in [1, 2] {
            table.record(A, record(epoch, 7, "x"), 1);
            table.record(A, record(epoch, 7, "y"), 1);
            table.record(B, record(epoch, 7, "x"), 1);
        }
        let found: Vec<_> = table
            .rows(|_| Epoch(2))
            .map(|(id, row)| (id, row.epoch, row.column.clone()))
            .collect();
        assert_eq!(
            found,
            [
                (A, Epoch(1), "x".into()),
                (A, Epoch(1), "y".into()),
                (B, Epoch(1), "x".into())
            ]
        );
        assert_eq!(sealed(&mut table, 1, &[A, B]), "1@1 7*1, 1@1 7*1, 2@1 7*1");
        assert_eq!(sealed(&mut table, 2, &[A, B]), "as of 1");
    }

    #[test]
    fn an_error_that_is_told_again_is_there_once() {
        let mut table = ErrorTable::default();
        for row in [failing(1, "x"), failing(2, "x"), failing(1, "x")] {
            table.record_once(A, row);
        }
        assert_eq!(sealed(&mut table, 2, &[A]), "1@1 -1x*1, 1@2 -1x*1");
    }

    #[test]
    fn what_is_restored_goes_on_as_if_nothing_had_happened() {
        let mut table = ErrorTable::default();
        let kept = |relation, row| KeptError {
            relation,
            row: Arc::new(row),
            weight: 1,
        };
        table.restore(
            file(5),
            vec![
                kept(A, record(2, 7, "x")),
                kept(A, failing(3, "x")),
                kept(B, failing(3, "x")),
            ],
            |id| id == A,
        );
        table.record(A, record(6, 7, "x"), 1);
        table.record(A, failing(6, "x"), -1);
        assert_eq!(table.counts().collect::<Vec<_>>(), [(A, 1)]);
        assert_eq!(sealed(&mut table, 6, &[A]), "1@2 7*1", "B is gone");
        let mut table = ErrorTable::default();
        table.restore(file(5), vec![kept(A, failing(3, "x"))], |_| true);
        assert_eq!(sealed(&mut table, 6, &[A]), "as of 5", "nothing changed");
        table.forget(A);
        assert_eq!(sealed(&mut table, 7, &[]), "");
    }

    #[test]
    fn a_job_that_is_being_created_is_held_by_the_first_checkpoint_that_contains_it() {
        let mut table = ErrorTable::default();
        table.record(A, failing(1, "x"), 1);
        table.record(B, failing(1, "y"), 1);
        assert_eq!(sealed(&mut table, 2, &[A]), "1@1 -1x*1");
        assert_eq!(sealed(&mut table, 3, &[A, B]), "1@1 -1x*1, 2@1 -1y*1");
    }

    #[test]
    fn the_newest_are_kept() {
        let mut table = ErrorTable::default();
        for offset in 0..ERRORS_KEPT_MAX as i64 + 5 {
            table.record(A, record(1, offset, ""), 1);
        }
        assert_eq!(
            (
                table.rows(|_| Epoch(1)).count(),
                table.rows(|_| Epoch(1)).next().unwrap().1.offset
            ),
            (ERRORS_KEPT_MAX, 5)
        );
        for n in 0..2 * ERRORS_KEPT_MAX {
            table.record(B, failing(n as u64, "x"), 1);
            table.record(B, failing(n as u64 + 1, "x"), -1);
        }
        assert!(
            table.relations[&B].kept.is_empty()
                && table.relations[&B].index.is_empty()
                && table.relations[&B].taken_back.len() == ERRORS_KEPT_MAX
        );
    }
}
