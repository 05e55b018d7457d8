//! Writing tables: INSERT, UPDATE and DELETE are resolved here, serially per table against all
//! earlier writes, into -old +new rows that the log keeps.
//!
//! A table's *head* holds its rows as of the last submitted write, also of epochs that are not
//! decided yet; a writer locks the heads of its tables, in the order of their ids. What it writes
//! is kept in the guard until it commits, and goes into the heads only then. A head is filled from
//! the table's partitions at its first write.

use crate::engine::Engine;
use crate::shared::Shared;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::key::encode_columns;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_control::TableWrites;
use tidemark_control::entry::{WRITE_BYTES_MAX, changes_bytes};
use tidemark_control::protocol::{Event, Request};
use tidemark_plan::{Conflict, Relation, RelationKind};
use tidemark_state::ViewPartition;
use tidemark_state::consolidate::consolidate;
use tidemark_state::view::ViewOptions;
use tokio::sync::{OwnedMutexGuard, oneshot};

/// A table's rows as of the last submitted write.
pub struct TableHead {
    rows: ViewPartition,
    version: Epoch,
}

/// Exclusive write access to some tables.
pub struct WriteGuard {
    shared: Arc<Shared>,
    tables: BTreeMap<RelationId, Locked>,
}

struct Locked {
    relation: Arc<Relation>,
    head: OwnedMutexGuard<Option<TableHead>>,
    /// This guard's own writes.
    changes: Vec<ChangeBatch>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody knows how far it came.
            *self.head = None;
        }
    }
}

impl TableHead {
    fn new(relation: &Relation) -> TableHead {
        let key = (!relation.key.is_empty()).then(|| relation.key.clone());
        TableHead {
            rows: ViewPartition::new(ViewOptions {
                name: relation.name.clone(),
                schema: relation.arrow_schema(),
                key,
                append_only: false,
                partitioned_by_key: true,
                table: 0,
                vnode_of_worker: 0,
            }),
            version: Epoch(0),
        }
    }

    fn apply(&mut self, changes: Vec<ChangeBatch>) {
        self.version = self.version.next();
        self.rows.append(self.version, changes);
        self.rows.merge(self.version);
    }

    fn read(&self, columns: &[usize]) -> Vec<RecordBatch> {
        self.rows.read_at(self.version, self.version, columns, 8192)
    }
}

impl Engine {
    /// Locks these tables for writing, in id order. Writes see all earlier writes; nothing is
    /// visible to others before `commit`. Dropping the guard rolls back.
    pub async fn begin_write(&self, tables: &[RelationId]) -> Result<WriteGuard> {
        if let Some(error) = self.shared().readers.log_error() {
            return Err(error.context("the write cannot be logged"));
        }
        let mut ids = tables.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut locked = BTreeMap::new();
        for id in ids {
            let relation = self.writable(id)?;
            let head = self.shared().heads.lock().entry(id).or_default().clone();
            let mut head = head.lock_owned().await;
            // The wait can have been long: the table may be gone.
            let relation = self.writable(relation.id)?;
            if head.is_none() {
                *head = Some(self.fill_head(&relation)?);
            }
            locked.insert(
                id,
                Locked {
                    relation,
                    head,
                    changes: Vec::new(),
                },
            );
        }
        Ok(WriteGuard {
            shared: self.shared().clone(),
            tables: locked,
        })
    }

    fn writable(&self, id: RelationId) -> Result<Arc<Relation>> {
        let catalog = self.catalog();
        let relation = catalog.relations.get(&id).ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_TABLE,
                "the table does not exist any more",
            )
        })?;
        if relation.kind != RelationKind::Table {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "\"{}\" is a {}, only tables can be written",
                    relation.name,
                    relation.kind.name()
                ),
            ));
        }
        if relation.connector.is_some() {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("table \"{}\" is written by its connector", relation.name),
            ));
        }
        if let Some(stopped) = catalog.stopped.get(&id) {
            return Err(tidemark_control::coordinator::stopped_error(
                relation, stopped,
            ));
        }
        Ok(relation.clone())
    }

    /// All that was written so far is published here: nothing was written since this process
    /// opened, and it opened with every decided epoch complete.
    fn fill_head(&self, relation: &Relation) -> Result<TableHead> {
        let pin = self.pin();
        let columns: Vec<usize> = (0..relation.columns.len()).collect();
        let mut head = TableHead::new(relation);
        for partition in self.partitions(relation.id)? {
            let rows = partition.read_at(pin.epoch(), pin.mergeable(), &columns, 8192);
            head.apply(rows.into_iter().map(ChangeBatch::insert).collect());
        }
        Ok(head)
    }
}

impl WriteGuard {
    fn locked(&self, table: RelationId) -> Result<(&Locked, &TableHead)> {
        let locked = self
            .tables
            .get(&table)
            .ok_or_else(|| Error::internal("the table is not locked for writing"))?;
        let head = locked
            .head
            .as_ref()
            .ok_or_else(|| Error::internal("the table's head is not filled"))?;
        Ok((locked, head))
    }

    /// The table's rows now, with this guard's own writes, in all its columns (what UPDATE and
    /// DELETE evaluate over).
    pub fn rows(&self, table: RelationId) -> Result<Vec<RecordBatch>> {
        let (locked, head) = self.locked(table)?;
        let columns: Vec<usize> = (0..locked.relation.columns.len()).collect();
        let rows = head.read(&columns);
        if locked.changes.is_empty() {
            return Ok(rows);
        }
        let mut changes: Vec<ChangeBatch> = rows.into_iter().map(ChangeBatch::insert).collect();
        changes.extend(locked.changes.iter().cloned());
        expand_weights(consolidate(head.rows.schema(), &changes))
    }

    /// The rows with these keys (arrays of the table's key columns), without scanning.
    pub fn lookup(&self, table: RelationId, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let (locked, head) = self.locked(table)?;
        let columns: Vec<usize> = (0..locked.relation.columns.len()).collect();
        let found = head.rows.lookup(head.version, head.version, keys, &columns);
        if locked.changes.is_empty() {
            return Ok(found);
        }
        let mut wanted = vec![Vec::new(); keys.first().map_or(0, |k| k.len())];
        encode_columns(keys, &mut wanted);
        let mut changes = vec![ChangeBatch::insert(found)];
        for batch in &locked.changes {
            let mask: BooleanArray = encoded_keys(batch.rows(), &locked.relation.key)
                .iter()
                .map(|k| Some(wanted.contains(k)))
                .collect();
            changes.push(batch.filter(&mask));
        }
        let rows = expand_weights(consolidate(head.rows.schema(), &changes))?;
        compute::concat_batches(head.rows.schema(), &rows)
            .map_err(|e| Error::internal(e.to_string()))
    }

    /// Deletes exactly these rows (all columns, as `rows` returned them under this guard; see
    /// `holds`), then writes `inserts`. Returns how many rows were (deleted, inserted). A key that
    /// exists: by the table's conflict rule, or `23505` with `unique = true`. NOT NULL is checked
    /// here (`23502`).
    pub fn write(
        &mut self,
        table: RelationId,
        deletes: &[RecordBatch],
        inserts: &[RecordBatch],
        unique: bool,
    ) -> Result<(usize, usize)> {
        let relation = self.locked(table)?.0.relation.clone();
        let schema = relation.arrow_schema();
        let before = self.tables.get(&table).map_or(0, |l| l.changes.len());
        let deleted: usize = deletes.iter().map(RecordBatch::num_rows).sum();
        for rows in deletes.iter().filter(|r| r.num_rows() > 0) {
            self.add(
                table,
                ChangeBatch::new(rows.clone(), vec![-1; rows.num_rows()]),
            );
        }
        let mut inserted = 0;
        for rows in inserts.iter().filter(|r| r.num_rows() > 0) {
            let result = check_not_null(&relation, rows).and_then(|()| {
                if relation.key.is_empty() {
                    Ok(ChangeBatch::insert(rows.clone()))
                } else {
                    self.resolve(table, &relation, rows, unique)
                }
            });
            match result {
                Ok(changes) => {
                    inserted += (0..changes.num_rows())
                        .filter(|i| changes.weight(*i) > 0)
                        .count();
                    let rows =
                        RecordBatch::try_new(schema.clone(), changes.rows().columns().to_vec())
                            .map_err(|e| Error::internal(e.to_string()))?;
                    self.add(
                        table,
                        ChangeBatch::with_weights(rows, changes.weights().cloned()),
                    );
                }
                Err(error) => {
                    // A statement has effect wholly or not at all.
                    if let Some(locked) = self.tables.get_mut(&table) {
                        locked.changes.truncate(before);
                    }
                    return Err(error);
                }
            }
        }
        Ok((deleted, inserted))
    }

    /// A number that changes with every write of others into the table: equal ones mean equal rows.
    pub fn version(&self, table: RelationId) -> Result<Epoch> {
        Ok(self.locked(table)?.1.version)
    }

    /// Whether the table has all of these rows (all columns) now, with this guard's own writes:
    /// what `write` may delete.
    pub fn holds(&self, table: RelationId, rows: &[RecordBatch]) -> Result<bool> {
        let relation = self.locked(table)?.0.relation.clone();
        let rows: Vec<&RecordBatch> = rows.iter().filter(|r| r.num_rows() > 0).collect();
        if rows.is_empty() {
            return Ok(true);
        }
        let mut changes: Vec<ChangeBatch> = if relation.key.is_empty() {
            self.rows(table)?
                .into_iter()
                .map(ChangeBatch::insert)
                .collect()
        } else {
            let found = rows.iter().map(|r| {
                self.lookup(
                    table,
                    &relation
                        .key
                        .iter()
                        .map(|k| r.column(*k).clone())
                        .collect::<Vec<_>>(),
                )
            });
            found
                .map(|f| f.map(ChangeBatch::insert))
                .collect::<Result<_>>()?
        };
        changes.extend(
            rows.into_iter()
                .map(|r| ChangeBatch::new(r.clone(), vec![-1; r.num_rows()])),
        );
        let net = consolidate(&relation.arrow_schema(), &changes);
        Ok((0..net.num_rows()).all(|i| net.weight(i) >= 0))
    }

    fn add(&mut self, table: RelationId, changes: ChangeBatch) {
        if let Some(locked) = self.tables.get_mut(&table) {
            locked.changes.push(changes);
        }
    }

    /// Inserts by key: what exists is replaced, kept or an error; of several rows of one key in the
    /// statement the last one (or with IGNORE the first) counts.
    fn resolve(
        &self,
        table: RelationId,
        relation: &Relation,
        rows: &RecordBatch,
        unique: bool,
    ) -> Result<ChangeBatch> {
        let keys = encoded_keys(rows, &relation.key);
        let ignore = relation.conflict == Conflict::Ignore;
        let mut chosen: HashMap<&[u8], u32> = HashMap::with_capacity(keys.len());
        for (i, key) in keys.iter().enumerate() {
            let i = i as u32;
            match chosen.entry(key) {
                std::collections::hash_map::Entry::Occupied(_) if unique => {
                    return Err(duplicate(relation, rows, i as usize));
                }
                std::collections::hash_map::Entry::Occupied(mut e) => {
                    if !ignore {
                        e.insert(i);
                    }
                }
                std::collections::hash_map::Entry::Vacant(e) => drop(e.insert(i)),
            }
        }
        let columns: Vec<ArrayRef> = relation
            .key
            .iter()
            .map(|k| rows.column(*k).clone())
            .collect();
        let existing = self.lookup(table, &columns)?;
        let mut existing_keys = encoded_keys(&existing, &relation.key);
        let mut keep = vec![true; existing.num_rows()];
        for (i, key) in existing_keys.iter().enumerate() {
            if let Some(row) = chosen.get(key.as_slice()) {
                if unique {
                    return Err(duplicate(relation, rows, *row as usize));
                }
                if ignore {
                    chosen.remove(key.as_slice());
                    keep[i] = false;
                }
            }
        }
        dedup(&mut existing_keys, &mut keep);
        let mut indices: Vec<u32> = chosen.into_values().collect();
        indices.sort_unstable();
        let new = compute::take_record_batch(rows, &UInt32Array::from(indices))
            .map_err(|e| Error::internal(e.to_string()))?;
        let old = compute::filter_record_batch(&existing, &BooleanArray::from(keep))
            .map_err(|e| Error::internal(e.to_string()))?;
        let weights: Vec<i64> = std::iter::repeat_n(-1, old.num_rows())
            .chain(std::iter::repeat_n(1, new.num_rows()))
            .collect();
        let schema = relation.arrow_schema();
        let new = RecordBatch::try_new(schema.clone(), new.columns().to_vec())
            .map_err(|e| Error::internal(e.to_string()))?;
        let both = compute::concat_batches(&schema, [&old, &new])
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok(ChangeBatch::new(both, weights))
    }

    /// Submits the writes and puts them into the heads; the tables are free for the next writer when
    /// this returns. What was not submitted is in no head: a head that knows more than the log would
    /// resolve the next write against rows that are not there. A panic on the way empties the heads
    /// ([`Locked`]), and the next writer fills them again.
    fn submit(self, reply: Option<oneshot::Sender<Result<Epoch>>>) -> Result<()> {
        let mut writes = Vec::new();
        // The tables stay locked until the writes are sent: the log must have them in the order in
        // which they were resolved.
        let mut tables = self.tables;
        let changes = tables.values().flat_map(|locked| &locked.changes);
        check_size(changes.map(changes_bytes).sum())?;
        for (table, locked) in tables
            .iter()
            .filter(|(_, locked)| !locked.changes.is_empty())
        {
            // Nobody is told that rows are kept in a table that was dropped, or that stopped, while
            // the writer held it.
            let catalog = self.shared.catalog.read();
            if let Some(stopped) = catalog.stopped.get(table) {
                return Err(tidemark_control::coordinator::stopped_error(
                    &locked.relation,
                    stopped,
                ));
            }
            let current = self.shared.heads.lock().get(table).cloned();
            let held = OwnedMutexGuard::mutex(&locked.head);
            if current.is_some_and(|head| !Arc::ptr_eq(&head, held)) {
                return Err(Error::user(
                    SqlState("40001"),
                    format!(
                        "table \"{}\" stopped and was resumed while it was being written",
                        locked.relation.name
                    ),
                )
                .with_hint("Run the transaction again."));
            }
            if !catalog.relations.contains_key(table) {
                return Err(Error::user(
                    SqlState::UNDEFINED_TABLE,
                    format!(
                        "table \"{}\" was dropped while it was being written",
                        locked.relation.name
                    ),
                ));
            }
        }
        for (table, locked) in &tables {
            let Some(head) = locked.head.as_ref().filter(|_| !locked.changes.is_empty()) else {
                continue;
            };
            let changes = consolidate(&head.rows.schema().clone(), &locked.changes);
            if changes.is_empty() {
                continue;
            }
            writes.push(TableWrites {
                table: *table,
                changes,
            });
        }
        if writes.is_empty() {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(self.shared.readers.decided()));
            }
            return Ok(());
        }
        let applied = writes.clone();
        self.shared
            .events
            .send(Event::Request(Request::Write { writes, reply }))
            .map_err(|_| tidemark_control::coordinator::shutting_down())?;
        for TableWrites { table, changes } in applied {
            if let Some(head) = tables.get_mut(&table).and_then(|l| l.head.as_mut()) {
                head.apply(vec![changes]);
            }
        }
        Ok(())
    }

    /// Logs the writes as one; returns their epoch when it is decided.
    pub async fn commit(self) -> Result<Epoch> {
        let (reply, answer) = oneshot::channel();
        self.submit(Some(reply))?;
        answer
            .await
            .map_err(|_| tidemark_control::coordinator::shutting_down())?
    }

    /// Submits the writes and returns at once (`dml_commit = 'async'`).
    pub fn commit_async(self) -> Result<()> {
        self.submit(None)
    }
}

/// `54000` for more than the log takes at once.
fn check_size(bytes: usize) -> Result<()> {
    if bytes <= WRITE_BYTES_MAX {
        return Ok(());
    }
    Err(Error::user(
        SqlState("54000"),
        format!("a transaction that writes {bytes} bytes is too large"),
    )
    .with_detail(format!("The limit is {WRITE_BYTES_MAX} bytes."))
    .with_hint("Write the rows in several transactions."))
}

/// Of an existing row that was found for several input rows only one is taken out.
fn dedup(keys: &mut [Vec<u8>], keep: &mut [bool]) {
    let mut seen = std::collections::HashSet::new();
    for (key, keep) in keys.iter().zip(keep) {
        *keep &= seen.insert(key.clone());
    }
}

fn encoded_keys(rows: &RecordBatch, key: &[usize]) -> Vec<Vec<u8>> {
    let columns: Vec<ArrayRef> = key.iter().map(|k| rows.column(*k).clone()).collect();
    let mut keys = vec![Vec::new(); rows.num_rows()];
    encode_columns(&columns, &mut keys);
    keys
}

/// Rows of weight n, n times.
fn expand_weights(changes: ChangeBatch) -> Result<Vec<RecordBatch>> {
    if changes.weights().is_none() {
        return Ok(vec![changes.rows().clone()]);
    }
    let indices: Vec<u32> = (0..changes.num_rows())
        .flat_map(|i| std::iter::repeat_n(i as u32, changes.weight(i).max(0) as usize))
        .collect();
    Ok(vec![
        changes.take(&UInt32Array::from(indices)).rows().clone(),
    ])
}

fn check_not_null(relation: &Relation, rows: &RecordBatch) -> Result<()> {
    for (i, column) in relation.columns.iter().enumerate() {
        if !column.nullable && rows.column(i).null_count() > 0 {
            return Err(Error::user(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, relation.name
                ),
            ));
        }
    }
    Ok(())
}

fn duplicate(relation: &Relation, rows: &RecordBatch, row: usize) -> Error {
    let names: Vec<&str> = relation
        .key
        .iter()
        .map(|k| relation.columns[*k].name.as_str())
        .collect();
    let values: Vec<String> = relation
        .key
        .iter()
        .map(|k| {
            arrow::util::display::array_value_to_string(rows.column(*k), row).unwrap_or_default()
        })
        .collect();
    Error::user(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}_pkey\"",
            relation.name
        ),
    )
    .with_detail(format!(
        "Key ({})=({}) already exists.",
        names.join(", "),
        values.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_beyond_the_limit_is_refused_before_it_is_logged() {
        assert!(check_size(WRITE_BYTES_MAX).is_ok());
        let error = check_size(WRITE_BYTES_MAX + 1).unwrap_err();
        assert_eq!(error.state(), SqlState("54000"));
    }
}
