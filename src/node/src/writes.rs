//! Writing tables: INSERT, UPDATE and DELETE are resolved here, serially per table against all
//! earlier writes, into -old +new rows that the log keeps.
//!
//! A table's rows are looked up where they live, in the partitions of its view as of the newest
//! epoch that can be read of it. On top of that its *head* has what was submitted since, so
//! that a writer sees all earlier writes; it is empty soon after the last one, and there is no
//! second copy of a table. A writer locks the heads of its tables, in the order of their ids, so
//! that no two wait for each other. What it writes is kept in the guard until it commits, and goes
//! into the heads only then; a statement that writes more than fits into memory goes past them
//! ([`bulk`]).

mod alter;
mod bulk;
mod head;
mod merge;
mod own;
mod unique;

use crate::full::{self, FullSinks};
use crate::locks::{LockNote, TableLock, TableLocks, Writer};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use bulk::Bulk;
use head::Decision;
pub use head::TableHead;
use own::OwnWrites;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemark_changelog::connector::SinkMarker;
use tidemark_changelog::key::encode_columns;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, machine, vnode_owner};
use tidemark_control::coordinator::stopped_error;
use tidemark_control::entry::{WRITE_BYTES_MAX, changes_bytes};
use tidemark_control::protocol::{Fate, Request};
use tidemark_control::{Events, Readers, RowFiles, StoredRows, TableWrites, Written};
use tidemark_plan::{Conflict, Relation, RelationKind};
use tidemark_state::ViewPartition;
use tidemark_state::consolidate::consolidate;
use tidemark_worker::{Pressure, Published};
use tokio::sync::OwnedMutexGuard;
pub use unique::unique_keys;

/// What is known of the keys of rows that come, in a table that has a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewKeys {
    /// Nothing: a row that has one of them is replaced or stays, as the table says.
    #[default]
    Any,
    /// That they must be free: `23505` for one that is taken.
    Free,
    /// All, by what was looked up under this guard: they are those of the rows that leave, or free,
    /// and each comes once.
    Known,
}

/// Bytes of a write from which on it leaves the head as soon as it can be read.
const LARGE_BYTES: usize = 1 << 20;

/// Exclusive write access to some tables.
pub struct WriteGuard {
    writers: Arc<TableWriters>,
    tables: BTreeMap<RelationId, Locked>,
}

struct Locked {
    relation: Arc<Relation>,
    /// Of all its columns.
    schema: SchemaRef,
    head: OwnedMutexGuard<TableHead>,
    _note: LockNote,
    /// All that could be read of it when it was locked is not in the head.
    readable: Epoch,
    /// This guard's own writes.
    changes: OwnWrites,
    /// Of a statement whose rows come batch by batch.
    bulk: Option<Bulk>,
}

/// The writers of a node's tables.
pub struct TableWriters {
    events: Events,
    readers: Arc<Readers>,
    published: Arc<Published>,
    /// Sinks that hold up those who write what they read.
    full: Arc<FullSinks>,
    /// Whether memory runs short.
    pressure: Arc<Pressure>,
    /// Where rows go that are too many for memory.
    files: Arc<RowFiles>,
    /// Who holds and who awaits the tables' locks.
    locks: Arc<TableLocks>,
    /// Writes that cannot be read yet, for resolving the next one.
    heads: Mutex<HashMap<RelationId, Arc<tokio::sync::Mutex<TableHead>>>>,
}

impl TableWriters {
    /// Nothing written yet.
    pub fn new(
        events: Events,
        readers: Arc<Readers>,
        published: Arc<Published>,
        full: Arc<FullSinks>,
        pressure: Arc<Pressure>,
        files: Arc<RowFiles>,
    ) -> TableWriters {
        TableWriters {
            events,
            readers,
            published,
            full,
            pressure,
            files,
            locks: Arc::default(),
            heads: Mutex::default(),
        }
    }

    /// The jobs of these relations end. Whoever holds one of them cannot commit.
    pub fn forget(&self, relations: &[RelationId]) {
        let mut heads = self.heads.lock();
        heads.retain(|id, _| !relations.contains(id));
    }

    /// The partitions of a table. `55000` with the reason when its job does not run.
    pub fn partitions(&self, table: RelationId) -> Result<Vec<Arc<ViewPartition>>> {
        let (catalog, shares) = self.published.shares(table);
        let partitions = shares.map(|s| s.iter().map(|share| share.here().cloned()).collect());
        let relation = catalog.relations.get(&table);
        match (partitions, relation, catalog.stopped.get(&table)) {
            (_, Some(relation), Some(stopped)) => Err(stopped_error(relation, stopped)),
            (Some(Some(partitions)), ..) => Ok(partitions),
            (Some(None), ..) => Err(Error::internal("rows to be written are on another node")),
            (None, relation, _) => Err(no_rows(relation)),
        }
    }

    /// Locks these tables for writing, in id order. Writes see all earlier writes; nothing is
    /// visible to others before `commit`. Dropping the guard rolls back. `55P03` if a lock is not
    /// free within the writer's `lock_timeout`, `53400` if a sink has no room for the changes.
    pub async fn begin_write(
        self: &Arc<Self>,
        tables: &[RelationId],
        writer: Writer,
    ) -> Result<WriteGuard> {
        if let Some(error) = self.readers.log_error() {
            return Err(error.context("the write cannot be logged"));
        }
        let mut ids = tables.to_vec();
        ids.sort_unstable();
        ids.dedup();
        self.await_room(&ids).await?;
        let mut locked = BTreeMap::new();
        for id in ids {
            let relation = self.writable(id)?;
            let head = self.heads.lock().entry(id).or_default().clone();
            let note = self.locks.ask(id, writer.session);
            let mut head = self.lock_head(head, writer).await?;
            note.granted();
            // The wait can have been long: the table may be gone.
            let relation = self.writable(relation.id)?;
            let readable = self.readers.readable(id);
            head.forget(readable);
            locked.insert(
                id,
                Locked {
                    schema: head.schema(&relation),
                    relation,
                    head,
                    _note: note,
                    readable,
                    changes: OwnWrites::default(),
                    bulk: None,
                },
            );
        }
        Ok(WriteGuard {
            writers: self.clone(),
            tables: locked,
        })
    }

    /// Waits until there is memory, and no sink that reads these tables is full; before anything is
    /// locked.
    async fn await_room(&self, tables: &[RelationId]) -> Result<()> {
        let is_fed = || tables.iter().find_map(|table| self.full.fed_by(*table));
        let lacks = || match self.pressure.is_high() {
            true => Some(short_of_memory()),
            false => is_fed().map(|sink| full::too_full(&sink)),
        };
        if lacks().is_none() {
            return Ok(());
        }
        let patience = machine::sleep(full::WRITE_PATIENCE);
        tokio::pin!(patience);
        loop {
            // What changes after this is noticed.
            let (eased, taken) = (self.pressure.eased(), self.full.taken());
            let Some(error) = lacks() else {
                return Ok(());
            };
            tokio::select! {
                biased;
                () = eased => {}
                () = taken => {}
                () = &mut patience => return Err(error),
            }
        }
    }

    async fn lock_head(
        &self,
        head: Arc<tokio::sync::Mutex<TableHead>>,
        writer: Writer,
    ) -> Result<OwnedMutexGuard<TableHead>> {
        let Some(timeout) = writer.lock_timeout else {
            return Ok(head.lock_owned().await);
        };
        let locked = machine::timeout(timeout, head.lock_owned()).await;
        locked.ok_or_else(|| {
            let e = Error::user(SqlState("55P03"), "canceling statement due to lock timeout");
            self.explain_wait(e, writer.session)
        })
    }

    /// The write locks that are held or awaited.
    pub fn locks(&self) -> Vec<TableLock> {
        self.locks.list()
    }

    /// The sessions that a session waits for.
    pub fn blockers(&self, session: i32) -> Vec<i32> {
        let blockers = self.locks.blockers(session);
        let mut all: Vec<i32> = blockers.into_iter().flat_map(|(_, by)| by).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Adds to the error of a statement that did not get what it waited for who has it.
    pub fn explain_wait(&self, error: Error, session: i32) -> Error {
        let blockers = self.locks.blockers(session);
        let holder = |(table, by): &(RelationId, Vec<i32>)| Some((*table, *by.first()?));
        let Some((table, holder)) = blockers.iter().find_map(holder) else {
            return error;
        };
        let catalog = self.published.catalog();
        let name = catalog.relations.get(&table).map_or("", |r| &r.name);
        error
            .with_detail(format!(
                "Session {holder} has locked table \"{name}\" for writing."
            ))
            .with_hint(format!(
                "SELECT * FROM pg_stat_activity WHERE pid = {holder} tells what it does, SELECT \
                 pg_terminate_backend({holder}) ends it."
            ))
    }

    /// Whether a table that a writer has locked is still the one that it was. Nobody is told that
    /// rows are kept in one that was dropped, or that stopped, meanwhile.
    fn check_held(&self, table: RelationId, locked: &Locked) -> Result<()> {
        let catalog = self.published.catalog();
        if let Some(stopped) = catalog.stopped.get(&table) {
            return Err(stopped_error(&locked.relation, stopped));
        }
        let name = &locked.relation.name;
        if !catalog.relations.contains_key(&table) {
            let message = format!("table \"{name}\" was dropped while it was being written");
            return Err(Error::user(SqlState::UNDEFINED_TABLE, message));
        }
        let current = self.heads.lock().get(&table).cloned();
        let held = OwnedMutexGuard::mutex(&locked.head);
        if current.is_some_and(|head| Arc::ptr_eq(&head, held)) {
            return Ok(());
        }
        let message =
            format!("table \"{name}\" stopped and was resumed while it was being written");
        Err(Error::user(SqlState("40001"), message).with_hint("Run the transaction again."))
    }

    fn writable(&self, id: RelationId) -> Result<Arc<Relation>> {
        let catalog = self.published.catalog();
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
            return Err(stopped_error(relation, stopped));
        }
        Ok(relation.clone())
    }
}

impl WriteGuard {
    fn locked(&self, table: RelationId) -> Result<&Locked> {
        self.tables.get(&table).ok_or_else(not_locked)
    }

    fn locked_mut(&mut self, table: RelationId) -> Result<&mut Locked> {
        self.tables.get_mut(&table).ok_or_else(not_locked)
    }

    /// Waits until there is room for more, as [`TableWriters::begin_write`] does.
    pub fn await_room(&self) -> impl Future<Output = Result<()>> + use<> {
        let writers = self.writers.clone();
        let tables: Vec<RelationId> = self.tables.keys().copied().collect();
        async move { writers.await_room(&tables).await }
    }

    /// The table's rows now, with this guard's own writes, in all its columns (what UPDATE and
    /// DELETE evaluate over).
    pub fn rows(&self, table: RelationId) -> Result<Vec<RecordBatch>> {
        let locked = self.locked(table)?;
        let columns: Vec<usize> = (0..locked.relation.columns.len()).collect();
        let partitions = self.writers.partitions(table)?;
        let pin = self.writers.readers.pin_of(&[table]);
        let mut changes = locked.head.after(pin.epoch());
        changes.extend(locked.changes.iter().cloned());
        let on_top = consolidate(&locked.schema, &changes);
        let shares = shares(&on_top, &partitions);
        let mut rows = Vec::new();
        for (partition, share) in partitions.iter().zip(shares) {
            let (epoch, mergeable) = (pin.epoch(), pin.mergeable());
            rows.extend(partition.read_with(epoch, mergeable, share, &columns, 8192)?);
        }
        Ok(rows)
    }

    /// The rows with these keys (arrays of the table's key columns), without scanning.
    pub fn lookup(&self, table: RelationId, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let locked = self.locked(table)?;
        let mut wanted = vec![Vec::new(); keys.first().map_or(0, |k| k.len())];
        encode_columns(keys, &mut wanted);
        let mut found = self.lookup_submitted(table, keys, &wanted)?;
        let own = locked.changes.of_keys(&locked.relation.key, keys, &wanted);
        if !own.is_empty() {
            let there = found.into_iter().map(ChangeBatch::insert);
            let changes: Vec<ChangeBatch> = there.chain(own).collect();
            found = expand_weights(consolidate(&locked.schema, &changes))?;
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            _ => compute::concat_batches(&locked.schema, &found)
                .map_err(|e| Error::internal(e.to_string())),
        }
    }

    /// The rows with these keys, also encoded, without this guard's own writes.
    fn lookup_submitted(
        &self,
        table: RelationId,
        keys: &[ArrayRef],
        wanted: &[Vec<u8>],
    ) -> Result<Vec<RecordBatch>> {
        let (mut found, elsewhere) = self.locked(table)?.head.lookup(wanted)?;
        found.extend(self.published(table, keys, elsewhere)?);
        Ok(found)
    }

    /// The rows with these of the keys in the table's partitions, as of the newest epoch at which
    /// those can be read.
    fn published(
        &self,
        table: RelationId,
        keys: &[ArrayRef],
        which: Vec<u32>,
    ) -> Result<Vec<RecordBatch>> {
        if which.is_empty() {
            return Ok(Vec::new());
        }
        let relation = &self.locked(table)?.relation;
        let columns: Vec<usize> = (0..relation.columns.len()).collect();
        let keys = match which.len() == keys.first().map_or(0, |k| k.len()) {
            true => keys.to_vec(),
            false => take_all(keys, &UInt32Array::from(which.clone()))?,
        };
        let partitions = self.writers.partitions(table)?;
        let pin = self.writers.readers.pin_of(&[table]);
        let owners: Vec<usize> = hash_columns(&keys, which.len())
            .into_iter()
            .map(|hash| vnode_owner(vnode_of_hash(hash), partitions.len()))
            .collect();
        let mut found = Vec::new();
        for (worker, partition) in partitions.iter().enumerate() {
            if partition.key() != Some(relation.key.as_slice()) {
                return Err(Error::internal(format!(
                    "table \"{}\" is not kept by its key",
                    relation.name
                )));
            }
            // Rows that are only ever added may be anywhere.
            let here = |row: &u32| partition.is_append_only() || owners[*row as usize] == worker;
            let rows: Vec<u32> = (0..which.len() as u32).filter(here).collect();
            if rows.is_empty() {
                continue;
            }
            let share = match rows.len() == which.len() {
                true => keys.clone(),
                false => take_all(&keys, &UInt32Array::from(rows))?,
            };
            let columns = (columns.as_slice(), partition.schema());
            found.push(partition.lookup(pin.epoch(), pin.mergeable(), &share, columns)?);
        }
        Ok(found)
    }

    /// Deletes exactly these rows (all columns, as `rows` returned them under this guard; see
    /// `holds`), then writes `inserts`. Returns how many rows were (deleted, inserted). NOT NULL is
    /// checked here (`23502`).
    pub fn write(
        &mut self,
        table: RelationId,
        deletes: &[RecordBatch],
        inserts: &[RecordBatch],
        keys: NewKeys,
    ) -> Result<(usize, usize)> {
        let locked = self.locked(table)?;
        let (relation, schema) = (locked.relation.clone(), locked.schema.clone());
        for rows in deletes.iter().chain(inserts) {
            locked.check_width(rows)?;
        }
        let before = locked.changes.len();
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
                if relation.key.is_empty() || keys == NewKeys::Known {
                    Ok(ChangeBatch::insert(rows.clone()))
                } else {
                    self.resolve(table, &relation, rows, keys == NewKeys::Free)
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
                Err(error) => return Err(self.undone(table, before, error)),
            }
        }
        if let Err(error) = self.check_indexes(table, before) {
            return Err(self.undone(table, before, error));
        }
        Ok((deleted, inserted))
    }

    /// A statement has effect wholly or not at all: what it added behind the first `before` changes
    /// is taken back.
    fn undone(&mut self, table: RelationId, before: usize, error: Error) -> Error {
        if let Some(locked) = self.tables.get_mut(&table) {
            locked.changes.truncate(before);
        }
        error
    }

    /// A number that changes with every write of others into the table: equal ones mean equal rows.
    pub fn version(&self, table: RelationId) -> Result<Epoch> {
        Ok(self.locked(table)?.head.version())
    }

    /// Whether the table has all of these rows (all columns) now, with this guard's own writes:
    /// what `write` may delete.
    pub fn holds(&self, table: RelationId, rows: &[RecordBatch]) -> Result<bool> {
        let relation = self.locked(table)?.relation.clone();
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
        let net = consolidate(&self.locked(table)?.schema, &changes);
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
        let merged = match relation.conflict {
            Conflict::Merge if !unique => Some(self.merged(table, relation, rows)?),
            _ => None,
        };
        let rows = merged.as_ref().unwrap_or(rows);
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
        if existing.num_rows() == 0 && chosen.len() == rows.num_rows() {
            return Ok(ChangeBatch::insert(rows.clone()));
        }
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
        let schema = self.locked(table)?.schema.clone();
        let new = RecordBatch::try_new(schema.clone(), new.columns().to_vec())
            .map_err(|e| Error::internal(e.to_string()))?;
        let both = compute::concat_batches(&schema, [&old, &new])
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok(ChangeBatch::new(both, weights))
    }

    /// Submits the writes and puts them into the heads; the tables are free for the next writer
    /// when this returns. The answer tells their epoch when it is decided; none if nothing changes.
    fn submit(self, marker: Option<(RelationId, SinkMarker)>) -> Result<Option<Decision>> {
        // The tables stay locked until the writes are sent: the log must have them in the order in
        // which they were resolved.
        let mut tables = self.tables;
        let changes = tables.values().flat_map(|locked| locked.changes.iter());
        let bytes = changes.map(changes_bytes).sum();
        check_write_bytes(bytes)?;
        let writers = &self.writers;
        let is_stored = |l: &Locked| l.bulk.as_ref().is_some_and(Bulk::is_stored);
        let is_written = |l: &Locked| !l.changes.is_empty() || is_stored(l);
        for (table, locked) in tables.iter().filter(|(_, l)| is_written(l)) {
            writers.check_held(*table, locked)?;
        }
        let (mut writes, mut keys) = (Vec::new(), Vec::new());
        let mut stored = Vec::new();
        for (table, locked) in &mut tables {
            if let Some(rows) = locked.finish_bulk()? {
                let rows = Arc::new(rows);
                stored.push(rows.clone());
                let (table, changes) = (*table, Written::Stored(rows));
                writes.push(TableWrites { table, changes });
                keys.push(Vec::new());
                continue;
            }
            let changes = consolidate(&locked.schema, &locked.changes);
            if changes.is_empty() {
                continue;
            }
            keys.push(if locked.relation.key.is_empty() {
                Vec::new()
            } else {
                encoded_keys(changes.rows(), &locked.relation.key)
            });
            writes.push(TableWrites::held(*table, changes));
        }
        if writes.is_empty() && marker.is_none() {
            return Ok(None);
        }
        // What was not submitted is in no head: a head that knows more than the log would resolve
        // the next write against rows that are not there. What is refused after it was submitted
        // leaves the heads again, and the coordinator refuses what was resolved against it.
        let (submitted, fate) = (writes.clone(), Fate::default());
        let request = Request::Write {
            writes,
            after: tables.values().filter_map(|l| l.head.last_open()).collect(),
            fate: fate.clone(),
            marker,
        };
        let decision = head::decision(writers.events.ask(request)?);
        for (TableWrites { table, changes }, keys) in submitted.into_iter().zip(keys) {
            let Some(locked) = tables.get_mut(&table) else {
                continue;
            };
            match changes {
                Written::Held(changes) => {
                    let (decision, fate) = (decision.clone(), fate.clone());
                    locked.head.add(changes, keys, decision, fate);
                }
                Written::Stored(_) => locked.head.pass(),
            }
        }
        if bytes >= LARGE_BYTES {
            let head = |l: &Locked| OwnedMutexGuard::mutex(&l.head).clone();
            let heads = tables.iter().map(|(table, l)| (*table, head(l)));
            let readers = writers.readers.clone();
            machine::spawn(forget_readable(heads.collect(), decision.clone(), readers));
        }
        if !stored.is_empty() {
            let readers = writers.readers.clone();
            machine::spawn(keep_locked(tables, stored, decision.clone(), fate, readers));
        }
        Ok(Some(decision))
    }

    /// The tables that it has locked.
    pub fn tables(&self) -> impl Iterator<Item = RelationId> + use<> {
        let tables: Vec<RelationId> = self.tables.keys().copied().collect();
        tables.into_iter()
    }

    /// Submits, elsewhere if a file has to be made durable for it.
    async fn submit_somewhere(self) -> Result<Option<Decision>> {
        if !self.is_stored() {
            return self.submit(None);
        }
        machine::blocking(|| self.submit(None)).await?
    }

    /// Logs the writes as one; returns their epoch when it is decided. That of rows in a file takes
    /// its time until they can be read: others who are told of it expect to read them, so it is
    /// waited for.
    pub async fn commit(self) -> Result<Epoch> {
        let (readers, is_stored) = (self.writers.readers.clone(), self.is_stored());
        let tables: Vec<RelationId> = self.tables().collect();
        let Some(decision) = self.submit_somewhere().await? else {
            return Ok(readers.decided());
        };
        let epoch = decision.await?;
        if is_stored {
            readers.wait_readable(&tables, epoch).await?;
        }
        Ok(epoch)
    }

    /// Submits the writes and returns at once (`dml_commit = 'async'`).
    pub async fn commit_async(self) -> Result<()> {
        self.submit_somewhere().await.map(drop)
    }
}

/// Takes what was written out of the heads when it can be read; small writes stay there until the
/// next one comes.
async fn forget_readable(
    heads: Vec<(RelationId, Arc<tokio::sync::Mutex<TableHead>>)>,
    decision: Decision,
    readers: Arc<Readers>,
) {
    let Ok(epoch) = decision.await else {
        return;
    };
    for (table, head) in heads {
        // A log that fails lets nobody read more.
        if readers.wait_readable(&[table], epoch).await.is_ok() {
            head.lock().await.forget(readers.readable(table));
        }
    }
}

/// Keeps the tables locked until what was written to them past their heads can be read, or was
/// refused.
async fn keep_locked(
    tables: BTreeMap<RelationId, Locked>,
    stored: Vec<Arc<StoredRows>>,
    decision: Decision,
    fate: Fate,
    readers: Arc<Readers>,
) {
    match decision.await {
        // A log that fails lets nobody read more, and takes no more writes either.
        Ok(epoch) => {
            let written: Vec<RelationId> = tables.keys().copied().collect();
            drop(readers.wait_readable(&written, epoch).await);
        }
        // Of one that failed otherwise the log may have the entry.
        Err(_) if fate.is_refused() => stored.iter().for_each(|rows| rows.discard()),
        Err(_) => {}
    }
    drop(tables);
}

fn not_locked() -> Error {
    Error::internal("the table is not locked for writing")
}

/// `42P01` for a relation that is gone, or whose rows are.
pub fn no_rows(relation: Option<&Arc<Relation>>) -> Error {
    let name = relation.map(|r| r.name.as_str()).unwrap_or_default();
    Error::user(
        SqlState::UNDEFINED_TABLE,
        format!("relation \"{name}\" does not exist any more or keeps no rows"),
    )
}

fn short_of_memory() -> Error {
    Error::user(SqlState("53200"), "out of memory")
        .with_detail("The server holds about what --memory-limit allows, and takes nothing more.")
        .with_hint("SHOW MEMORY tells what holds it.")
}

/// `54000` for more than the log takes at once.
pub fn check_write_bytes(bytes: usize) -> Result<()> {
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

/// The part of the changes that each partition keeps.
fn shares(changes: &ChangeBatch, partitions: &[Arc<ViewPartition>]) -> Vec<ChangeBatch> {
    let by = partitions.first().map(|p| p.placed_by());
    let by = by.unwrap_or_default().into_iter();
    let columns: Vec<ArrayRef> = by.map(|column| changes.column(column).clone()).collect();
    let mut rows = vec![Vec::new(); partitions.len()];
    for (row, hash) in hash_columns(&columns, changes.num_rows())
        .into_iter()
        .enumerate()
    {
        rows[vnode_owner(vnode_of_hash(hash), partitions.len())].push(row as u32);
    }
    rows.into_iter()
        .map(|rows| changes.take(&UInt32Array::from(rows)))
        .collect()
}

fn take_all(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    columns
        .iter()
        .map(|c| compute::take(c, rows, None).map_err(|e| Error::internal(e.to_string())))
        .collect()
}

/// Of an existing row that was found for several input rows only one is taken out.
fn dedup(keys: &mut [Vec<u8>], keep: &mut [bool]) {
    let mut seen = std::collections::HashSet::new();
    for (key, keep) in keys.iter().zip(keep) {
        *keep &= seen.insert(key.clone());
    }
}

/// Bytes that most keys have at most in their encoded form.
const KEY_BYTES: usize = 16;

fn encoded_keys(rows: &RecordBatch, key: &[usize]) -> Vec<Vec<u8>> {
    let columns: Vec<ArrayRef> = key.iter().map(|k| rows.column(*k).clone()).collect();
    let mut keys = Vec::new();
    keys.resize_with(rows.num_rows(), || Vec::with_capacity(KEY_BYTES));
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
    let (names, values) = unique::shown(relation, rows, &relation.key, row);
    let message = format!(
        "duplicate key value violates unique constraint \"{}_pkey\"",
        relation.name
    );
    Error::user(SqlState::UNIQUE_VIOLATION, message)
        .with_detail(format!("Key ({names})=({values}) already exists."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_beyond_the_limit_is_refused_before_it_is_logged() {
        assert!(check_write_bytes(WRITE_BYTES_MAX).is_ok());
        let error = check_write_bytes(WRITE_BYTES_MAX + 1).unwrap_err();
        assert_eq!(error.state(), SqlState("54000"));
    }
}
