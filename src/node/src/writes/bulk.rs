//! Statements that may write more than fits into memory: their rows come batch by batch, are
//! resolved at once, and beyond [`HELD_BYTES_MAX`] go to a file, which the log names when the
//! statement commits ([`tidemark_control::stored`]). What stays in memory is the keys that the
//! statement has written, 16 to 40 bytes of each; of keys that come in ascending order, as those of
//! many a file do, only the last one.
//!
//! A statement that fails drops its guard, and its file with it. One that is committed keeps its
//! tables locked until its epoch can be read: so no head has to hold its rows.

use super::{Locked, WriteGuard, check_not_null, encoded_keys, short_of_memory, take_all};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use hashbrown::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_control::entry::changes_bytes;
use tidemark_control::{RowFiles, RowsWriter, StoredRows};
use tidemark_plan::{Conflict, Relation};
use tidemark_state::consolidate::consolidate;
use tidemark_worker::Pressure;

/// So much of a statement stays in memory, in bytes, and goes the way of small ones.
const HELD_BYTES_MAX: usize = 32 << 20;

/// A piece of the file, in bytes of memory.
const PIECE_BYTES: usize = 4 << 20;

/// What a statement has written to a table.
pub(super) struct Bulk {
    files: Arc<RowFiles>,
    writer: Option<RowsWriter>,
    /// What is not in the file, in bytes.
    held_bytes: usize,
    /// The greatest of the keys that came, of a table that has keys.
    greatest: Vec<u8>,
    /// All of them, as soon as one came that was not the greatest.
    keys: Option<KeySet>,
    /// A key came twice.
    repeats: bool,
}

impl Bulk {
    pub fn new(files: Arc<RowFiles>) -> Bulk {
        Bulk {
            files,
            writer: None,
            held_bytes: 0,
            greatest: Vec::new(),
            keys: None,
            repeats: false,
        }
    }

    /// Whether there is a file.
    pub fn is_stored(&self) -> bool {
        self.writer.is_some()
    }
}

impl WriteGuard {
    /// Inserts rows: what exists is replaced or kept, as the table says; of several rows of one key
    /// the last one (or with IGNORE the first) counts. For a statement that writes nothing else
    /// but by this and commits alone, of a table without unique indexes. Returns `23502` for a NULL
    /// that may not be.
    pub fn append(&mut self, table: RelationId, rows: &RecordBatch) -> Result<()> {
        let locked = self.locked(table)?;
        let (relation, schema) = (locked.relation.clone(), locked.schema.clone());
        locked.check_width(rows)?;
        self.check_unchecked(&relation)?;
        check_not_null(&relation, rows)?;
        let rows = RecordBatch::try_new(schema, rows.columns().to_vec())
            .map_err(|e| Error::internal(e.to_string()))?;
        let changes = if relation.key.is_empty() {
            ChangeBatch::insert(rows)
        } else {
            self.resolve_appended(table, &relation, rows)?
        };
        self.hold(table, changes)
    }

    /// Puts rows in the place of others (all columns, as they were read under this guard) that have
    /// the same keys, or only takes those out. As [`WriteGuard::append`] otherwise.
    pub fn exchange(
        &mut self,
        table: RelationId,
        old: &RecordBatch,
        new: Option<&RecordBatch>,
    ) -> Result<()> {
        let locked = self.locked(table)?;
        let (relation, schema) = (locked.relation.clone(), locked.schema.clone());
        locked.check_width(old)?;
        let mut changes = vec![ChangeBatch::new(old.clone(), vec![-1; old.num_rows()])];
        if let Some(new) = new {
            self.check_unchecked(&relation)?;
            check_not_null(&relation, new)?;
            changes.push(ChangeBatch::insert(new.clone()));
        }
        self.hold(table, consolidate(&schema, &changes))
    }

    /// `40001` if there is a unique index by now: rows that come in this way are not checked.
    fn check_unchecked(&mut self, relation: &Relation) -> Result<()> {
        if self.unique_indexes(relation.id)?.is_empty() {
            return Ok(());
        }
        let text = format!("a unique index on table \"{}\" was created", relation.name);
        Err(Error::user(SqlState("40001"), text).with_hint("Run the statement again."))
    }

    /// Whether the rows of the table as of `epoch` are those that this guard would show.
    pub fn is_published(&self, table: RelationId, epoch: Epoch) -> Result<bool> {
        let locked = self.locked(table)?;
        let is_untouched = locked.changes.is_empty() && locked.bulk.is_none();
        Ok(is_untouched && epoch >= locked.readable && !locked.head.has_after(epoch))
    }

    /// Whether rows of it are in a file.
    pub(super) fn is_stored(&self) -> bool {
        let mut bulks = self.tables.values().filter_map(|l| l.bulk.as_ref());
        bulks.any(Bulk::is_stored)
    }

    /// The rows with -old before them; `old` is looked up for keys that come first.
    fn resolve_appended(
        &mut self,
        table: RelationId,
        relation: &Relation,
        rows: RecordBatch,
    ) -> Result<ChangeBatch> {
        let ignore = relation.conflict == Conflict::Ignore;
        let keys = encoded_keys(&rows, &relation.key);
        self.bulk(table)?;
        let first = self.locked_mut(table)?.come_first(&keys)?;
        let repeats = first.iter().any(|first| !first);
        self.bulk(table)?.repeats |= repeats && !ignore;
        let old = self.rows_of_others(table, relation, &rows, &keys, &first)?;
        if old.num_rows() == 0 && !(repeats && ignore) {
            return Ok(ChangeBatch::insert(rows));
        }
        if ignore {
            let taken = encoded_keys(&old, &relation.key);
            let taken: HashSet<&[u8]> = taken.iter().map(Vec::as_slice).collect();
            let keep = first.iter().zip(&keys);
            let keep: BooleanArray = keep
                .map(|(first, key)| Some(*first && !taken.contains(key.as_slice())))
                .collect();
            return Ok(ChangeBatch::insert(rows).filter(&keep));
        }
        let weights = vec![-1; old.num_rows()];
        let changes = [ChangeBatch::new(old, weights), ChangeBatch::insert(rows)];
        Ok(ChangeBatch::concat(&self.locked(table)?.schema, &changes))
    }

    /// The rows that other statements have left of the keys that come first.
    fn rows_of_others(
        &self,
        table: RelationId,
        relation: &Relation,
        rows: &RecordBatch,
        keys: &[Vec<u8>],
        first: &[bool],
    ) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = relation
            .key
            .iter()
            .map(|k| rows.column(*k).clone())
            .collect();
        let found = match first.iter().all(|first| *first) {
            true => self.lookup_submitted(table, &columns, keys)?,
            false => {
                let which = (0..keys.len() as u32).filter(|row| first[*row as usize]);
                let which = UInt32Array::from(which.collect::<Vec<u32>>());
                let wanted = which.values().iter().map(|row| keys[*row as usize].clone());
                let wanted: Vec<Vec<u8>> = wanted.collect();
                self.lookup_submitted(table, &take_all(&columns, &which)?, &wanted)?
            }
        };
        compute::concat_batches(&self.locked(table)?.schema, &found)
            .map_err(|e| Error::internal(e.to_string()))
    }

    fn bulk(&mut self, table: RelationId) -> Result<&mut Bulk> {
        let files = self.writers.files.clone();
        let locked = self.locked_mut(table)?;
        Ok(locked.bulk.get_or_insert_with(|| Bulk::new(files)))
    }

    /// Keeps changes, in memory or in the file.
    fn hold(&mut self, table: RelationId, changes: ChangeBatch) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let bulk = self.bulk(table)?;
        bulk.held_bytes += changes_bytes(&changes);
        let limit = match bulk.is_stored() {
            true => PIECE_BYTES,
            false => HELD_BYTES_MAX,
        };
        let is_full = bulk.held_bytes > limit;
        let locked = self.locked_mut(table)?;
        locked.changes.push(changes);
        if !is_full {
            return Ok(());
        }
        locked.store_held()?;
        let stored = locked.bulk.as_ref().and_then(|bulk| bulk.writer.as_ref());
        let bytes = stored.map_or(0, RowsWriter::bytes);
        check_stored_bytes(bytes, &self.writers.pressure)
    }
}

/// `54000` for rows that would not fit into the memory that there is, since a table's rows are kept
/// there while what changes is kept beside them; `53200` if they do not at the moment.
fn check_stored_bytes(bytes: u64, pressure: &Pressure) -> Result<()> {
    let limit = pressure.limit();
    if bytes > limit / 2 {
        let text = format!("a statement that writes {bytes} bytes is too large");
        return Err(Error::user(SqlState("54000"), text)
            .with_detail(format!(
                "The limit is half of --memory-limit, {} bytes.",
                limit / 2
            ))
            .with_hint("Write the rows in several statements, or raise --memory-limit."));
    }
    match bytes > pressure.room() {
        true => Err(short_of_memory()),
        false => Ok(()),
    }
}

impl Locked {
    /// Of each of these keys, in their encoded form, whether the statement writes it first.
    fn come_first(&mut self, keys: &[Vec<u8>]) -> Result<Vec<bool>> {
        let Some(bulk) = &mut self.bulk else {
            return Err(Error::internal("no statement writes the table"));
        };
        if bulk.keys.is_none() {
            let before = std::iter::once(&bulk.greatest).chain(keys);
            if before.zip(keys).all(|(before, key)| before < key) {
                if let Some(last) = keys.last() {
                    bulk.greatest.clone_from(last);
                }
                return Ok(vec![true; keys.len()]);
            }
        }
        let mut all = match bulk.keys.take() {
            Some(all) => all,
            None => self.keys_written()?,
        };
        let first = keys.iter().map(|key| all.insert(key)).collect();
        if let Some(bulk) = &mut self.bulk {
            bulk.keys = Some(all);
        }
        Ok(first)
    }

    /// The keys of the rows that the statement has written.
    fn keys_written(&self) -> Result<KeySet> {
        let mut all = KeySet::default();
        let mut add = |changes: &ChangeBatch| {
            let keys = encoded_keys(changes.rows(), &self.relation.key);
            let come = keys.iter().enumerate();
            for (_, key) in come.filter(|(row, _)| changes.weight(*row) > 0) {
                all.insert(key);
            }
        };
        self.changes.iter().for_each(&mut add);
        if let Some(writer) = self.bulk.as_ref().and_then(|bulk| bulk.writer.as_ref()) {
            for at in 0..writer.pieces() {
                add(&writer.read(at)?);
            }
        }
        Ok(all)
    }

    /// Moves what is in memory to the file, in pieces.
    fn store_held(&mut self) -> Result<()> {
        let Some(bulk) = &mut self.bulk else {
            return Ok(());
        };
        let writer = match &mut bulk.writer {
            Some(writer) => writer,
            none => none.insert(bulk.files.begin()?),
        };
        let schema = self.schema.clone();
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for changes in self.changes.take() {
            bytes += changes_bytes(&changes);
            piece.push(changes);
            if bytes > PIECE_BYTES {
                writer.add(&ChangeBatch::concat(&schema, &piece))?;
                (piece, bytes) = (Vec::new(), 0);
            }
        }
        if !piece.is_empty() {
            writer.add(&ChangeBatch::concat(&schema, &piece))?;
        }
        bulk.held_bytes = 0;
        Ok(())
    }

    /// Nothing more comes: the file with all rows, if there is one; else they are in memory.
    pub(super) fn finish_bulk(&mut self) -> Result<Option<StoredRows>> {
        if self.bulk.as_ref().is_some_and(Bulk::is_stored) {
            self.store_held()?;
        }
        let Some(mut bulk) = self.bulk.take() else {
            return Ok(None);
        };
        if bulk.repeats {
            self.drop_repeated(bulk.writer.as_mut())?;
        }
        bulk.writer.map(RowsWriter::finish).transpose()
    }

    /// Of the rows that came, leaves the last one of each key: from the end on, the first that is
    /// met.
    fn drop_repeated(&mut self, writer: Option<&mut RowsWriter>) -> Result<()> {
        let key = &self.relation.key;
        let mut seen = KeySet::default();
        let mut last_of_each = |changes: &ChangeBatch| -> Option<ChangeBatch> {
            let keys = encoded_keys(changes.rows(), key);
            let mut keep = vec![true; keys.len()];
            for row in (0..keys.len()).rev() {
                keep[row] = changes.weight(row) < 0 || seen.insert(&keys[row]);
            }
            let all = keep.iter().all(|keep| *keep);
            (!all).then(|| changes.filter(&BooleanArray::from(keep)))
        };
        for changes in self.changes.iter_mut().rev() {
            if let Some(fewer) = last_of_each(changes) {
                *changes = fewer;
            }
        }
        if let Some(writer) = writer {
            for at in (0..writer.pieces()).rev() {
                if let Some(fewer) = last_of_each(&writer.read(at)?) {
                    writer.replace(at, &fewer)?;
                }
            }
        }
        Ok(())
    }
}

/// Keys in their encoded form, each in 16 bytes: a short one as it is, a longer one as 120 bits of
/// two keyed hashes, of which no two are met to be equal.
#[derive(Default)]
struct KeySet {
    keys: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl KeySet {
    /// Whether it was not there.
    fn insert(&mut self, key: &[u8]) -> bool {
        let code = self.code(key);
        self.keys.insert(code)
    }

    fn code(&self, key: &[u8]) -> u128 {
        let mut bytes = [0; 16];
        if let Some(short) = bytes[..15].get_mut(..key.len()) {
            short.copy_from_slice(key);
            bytes[15] = key.len() as u8;
            return u128::from_le_bytes(bytes);
        }
        let [high, low] = self.hashers.each_ref().map(|h| u128::from(h.hash_one(key)));
        (high << 64 | low) | 0xff << 120
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn what_memory_would_not_hold_is_refused_while_it_comes() {
        let pressure = Pressure::default();
        assert!(check_stored_bytes(1 << 40, &pressure).is_ok());
        pressure.note(1000, 300);
        assert!(check_stored_bytes(300, &pressure).is_ok());
        let state = |bytes| check_stored_bytes(bytes, &pressure).unwrap_err().state();
        assert_eq!(state(301), SqlState("53200"));
        assert_eq!(state(501), SqlState("54000"));
    }

    #[test]
    fn keys_are_told_apart_whatever_their_length() {
        let mut set = KeySet::default();
        let mut all: HashMap<Vec<u8>, usize> = HashMap::new();
        for length in 0..40 {
            for last in [0, 1, 255] {
                let mut key = vec![7; length];
                key.extend((length > 0).then_some(last));
                let is_new = all.insert(key.clone(), length).is_none();
                assert_eq!(set.insert(&key), is_new, "{key:?}");
                assert!(!set.insert(&key));
            }
        }
    }
}
