//! The rows of each partition, in order, with what has changed since the last barrier apart.
//!
//! Partition columns are kept once per partition, in a [`KeyIndex`]; the others row by row under
//! dense ids, whose order per partition an [`OrderedList`] knows. Equal rows are one entry with a
//! weight. A row that comes is put into its list at once, with weight zero: its changes wait in
//! [`Partitions::pending`] for the barrier. A row that has gone leaves the list with the barrier;
//! if a checkpoint knows of it, its values stay until the next seal has told of its end.

use crate::Barrier;
use crate::closing::{Closing, below};
use crate::values::nullable;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::cmp::Ordering;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::{Error, Result};
use tidemark_plan::SortKey;
use tidemark_state::chunked::{Chunked, Slots};
use tidemark_state::table::PIECE_ROWS;
use tidemark_state::{
    ABSENT, KeyIndex, OrderedList, Place, SlotColumns, SortBy, StateTable, TableDelta, TableForm,
    TableSpec,
};

/// A checkpoint has the row.
const PERSISTED: u8 = 1;
/// Its weight has changed since the last seal.
const DIRTY: u8 = 2;

/// Where a column of the input is kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// With the partition.
    Partition(usize),
    /// With the row.
    Row(usize),
}

/// A change of a row that waits for the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pending {
    pub partition: u32,
    pub row: u32,
    pub weight: i64,
}

/// All partitions of a worker.
pub(super) struct Partitions {
    partition_columns: Vec<usize>,
    /// The columns of the input that are kept row by row.
    row_columns: Vec<usize>,
    kept: Vec<Kept>,
    /// The order of rows of one partition; the first so many are the sort keys.
    order: Vec<SortBy>,
    sort_keys: usize,
    /// Of an input that only grows: how many rows of each partition matter.
    bound: Option<usize>,
    index: KeyIndex,
    lists: Vec<OrderedList>,
    /// Rows in all lists.
    listed: usize,
    slots: Slots,
    rows: SlotColumns,
    /// As of the last barrier.
    weights: Chunked<i64>,
    /// The number of each row in checkpoints.
    seqs: Chunked<i64>,
    next_seq: i64,
    partition_of: Chunked<u32>,
    flags: Chunked<u8>,
    pending: Vec<Pending>,
    dirty: Vec<u32>,
    /// Rows of a checkpoint that are there no more.
    gone: Vec<u32>,
    /// Partitions that had no row left at some barrier.
    emptied: Vec<u32>,
    /// Partitions below this watermark of a partition column never change again.
    closing: Option<Closing>,
    /// Rows have come from a checkpoint.
    restored: bool,
    spec: TableSpec,
}

impl Partitions {
    /// Without rows. `bound`: the input only grows, and no row matters that is behind so many of
    /// its partition.
    pub fn new(
        input: &SchemaRef,
        partition: &[usize],
        order: &[SortKey],
        bound: Option<usize>,
        table: u32,
    ) -> Partitions {
        let input = nullable(input);
        let mut partition_columns: Vec<usize> = Vec::new();
        for column in partition {
            if !partition_columns.contains(column) {
                partition_columns.push(*column);
            }
        }
        let (mut row_columns, mut kept) = (Vec::new(), Vec::new());
        for column in 0..input.fields().len() {
            kept.push(match partition_columns.iter().position(|p| *p == column) {
                Some(at) => Kept::Partition(at),
                None => {
                    row_columns.push(column);
                    Kept::Row(row_columns.len() - 1)
                }
            });
        }
        let (by, sort_keys) = order_of(&kept, row_columns.len(), order);
        let types = |columns: &[usize]| -> Vec<DataType> {
            let types = columns.iter().map(|c| input.field(*c).data_type().clone());
            types.collect()
        };
        let fields = input.fields().iter().map(|f| f.as_ref().clone());
        let number = |name| Field::new(name, DataType::Int64, false);
        let fields = [number("_seq")].into_iter().chain(fields);
        let fields = fields.chain([number("_weight")]);
        let spec = TableSpec {
            table,
            form: TableForm::Keyed,
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            key_columns: 1,
        };
        Partitions {
            index: KeyIndex::new(&types(&partition_columns)),
            rows: SlotColumns::new(&types(&row_columns)),
            partition_columns,
            row_columns,
            kept,
            order: by,
            sort_keys,
            bound,
            lists: Vec::new(),
            listed: 0,
            slots: Slots::default(),
            weights: Chunked::new(),
            seqs: Chunked::new(),
            next_seq: 0,
            partition_of: Chunked::new(),
            flags: Chunked::new(),
            pending: Vec::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            emptied: Vec::new(),
            closing: None,
            restored: false,
            spec,
        }
    }

    /// Partitions below this watermark of a partition column never change again.
    pub fn closes(mut self, closing: Option<Closing>) -> Partitions {
        self.closing = closing;
        self
    }

    /// Forgets partitions that the barrier has closed, if it is worth while. Nothing waits for the
    /// barrier any more.
    pub fn forget_closed(&mut self, barrier: &Barrier) -> Result<()> {
        let Some(mut closing) = self.closing.take() else {
            return Ok(());
        };
        if let Some(watermark) = closing.due(barrier, self.listed)? {
            let live: Vec<u32> = self.index.live_ids().collect();
            let mut left = Vec::new();
            for partitions in live.chunks(PIECE_ROWS) {
                let values = self.partition_values(closing.column(), partitions)?;
                for partition in below(partitions, &values, watermark) {
                    self.empty(partition, &mut left);
                }
                self.free(&mut left);
            }
            closing.forgot(self.listed);
        }
        self.closing = Some(closing);
        Ok(())
    }

    /// The values of some partitions in a column of the input by which they are partitioned.
    pub fn partition_values(&self, column: usize, partitions: &[u32]) -> Result<ArrayRef> {
        match self.kept[column] {
            Kept::Partition(at) => Ok(self.index.gather_one(at, partitions)),
            Kept::Row(_) => Err(Error::internal("rows are not partitioned by this column")),
        }
    }

    /// The rows of a partition, those among them that wait for the barrier.
    pub fn list(&self, partition: u32) -> &OrderedList {
        &self.lists[partition as usize]
    }

    /// All ids of rows are below this.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Whether rows have come from a checkpoint since this was asked last.
    pub fn take_restored(&mut self) -> bool {
        std::mem::take(&mut self.restored)
    }

    /// The partitions in use.
    pub fn all(&self) -> Vec<u32> {
        self.index.live_ids().collect()
    }

    /// The partition columns of partitions, each column once.
    pub fn keys_of(&self, partitions: &[u32]) -> Vec<ArrayRef> {
        self.index.gather(partitions)
    }

    /// The partitions of so many keys, ABSENT where there is none.
    pub fn find(&self, keys: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut partitions = Vec::new();
        self.index
            .find(keys, &hash_columns(keys, rows), &mut partitions);
        partitions
    }

    /// How a row's value compares with that of a row of others; the columns of the input have one
    /// type, are kept row by row, and are not NULL there.
    #[inline]
    pub fn compare_across(
        &self,
        column: usize,
        row: u32,
        others: &Partitions,
        other_column: usize,
        other: u32,
    ) -> Ordering {
        let at = |kept: Kept| match kept {
            Kept::Row(at) => at,
            Kept::Partition(_) => unreachable!("what is compared is kept row by row"),
        };
        let (own, theirs) = (at(self.kept[column]), at(others.kept[other_column]));
        self.rows
            .order_across(own, row, &others.rows, theirs, other)
    }

    /// A row's weight as of the last barrier.
    #[inline]
    pub fn weight(&self, row: u32) -> i64 {
        self.weights.get(row)
    }

    /// How two rows of one partition compare by the sort keys alone.
    #[inline]
    pub fn compare_keys(&self, a: u32, b: u32) -> Ordering {
        self.rows.order(&self.order[..self.sort_keys], a, b)
    }

    /// How they compare in all.
    #[inline]
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        self.rows.order_apart(&self.order, a, b)
    }

    /// The column of the input that is the last sort key, and how it is sorted; none, if all rows
    /// of a partition are peers.
    pub fn sort_key(&self) -> Option<(usize, SortOptions)> {
        let by = self.order[..self.sort_keys].last()?;
        let options = SortOptions {
            descending: by.descending,
            nulls_first: by.nulls_first,
        };
        Some((self.row_columns[by.column], options))
    }

    /// An order of the rows of one partition.
    pub fn order_by(&self, keys: &[SortKey]) -> Vec<SortBy> {
        order_of(&self.kept, self.row_columns.len(), keys).0
    }

    /// The order that they have anyway.
    pub fn own_order(&self) -> &[SortBy] {
        &self.order
    }

    /// Puts rows of one partition into an order.
    pub fn sort(&self, rows: &mut [u32], by: &[SortBy]) {
        rows.sort_unstable_by(|a, b| self.rows.order(by, *a, *b));
    }

    /// Where a row is that is in its list.
    pub fn place(&self, partition: u32, row: u32) -> Place {
        let found = self.list(partition).find(|other| self.compare(other, row));
        found.unwrap_or_else(|place| place)
    }

    /// Whether two rows of one partition have the same value in a column of the input.
    pub fn have_same(&self, column: usize, a: u32, b: u32) -> bool {
        match self.kept[column] {
            Kept::Partition(_) => true,
            Kept::Row(column) => {
                let by = SortBy {
                    column,
                    descending: false,
                    nulls_first: false,
                };
                self.rows.order(&[by], a, b).is_eq()
            }
        }
    }

    /// A column of the input of these rows.
    pub fn column(&self, column: usize, rows: &[u32]) -> Result<ArrayRef> {
        let mut columns = self.gather(&[column], rows);
        let column = columns.pop();
        column.ok_or_else(|| Error::internal("a column is missing"))
    }

    /// For which of these rows a boolean column of the input is true.
    pub fn passing(&self, filter: usize, rows: &[u32]) -> Result<BooleanBuffer> {
        let filter = self.column(filter, rows)?;
        let filter = filter.as_boolean();
        Ok(match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        })
    }

    /// Columns of the input of these rows; ABSENT gives NULL.
    pub fn gather(&self, columns: &[usize], rows: &[u32]) -> Vec<ArrayRef> {
        let partition = |row: &u32| match *row {
            ABSENT => ABSENT,
            row => self.partition_of.get(row),
        };
        let partitions: Vec<u32> = rows.iter().map(partition).collect();
        let column = |column: &usize| match self.kept[*column] {
            Kept::Partition(at) => self.index.gather_one(at, &partitions),
            Kept::Row(at) => self.rows.gather_one(at, rows),
        };
        columns.iter().map(column).collect()
    }

    /// Takes changes in; they count from the next barrier on.
    pub fn add(&mut self, batch: &ChangeBatch) {
        if self.bound == Some(0) {
            return;
        }
        let columns = |columns: &[usize]| -> Vec<ArrayRef> {
            columns.iter().map(|c| batch.column(*c).clone()).collect()
        };
        let partitions = self.intern(&columns(&self.partition_columns), batch.num_rows());
        let arrays = columns(&self.row_columns);
        let (rows, ids) = self.written(&arrays, &partitions);
        for (row, id) in rows.iter().zip(&ids) {
            let partition = partitions[*row as usize];
            let pending = Pending {
                partition,
                row: self.inserted(partition, *id),
                weight: batch.weight(*row as usize),
            };
            self.pending.push(pending);
        }
    }

    /// Finds or adds partitions.
    fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut partitions = Vec::new();
        self.index
            .intern(columns, &hash_columns(columns, rows), &mut partitions);
        let capacity = self.index.capacity();
        if capacity > self.lists.len() {
            self.lists.resize(capacity, OrderedList::Empty);
        }
        partitions
    }

    /// Puts rows into the store: those that matter, of a batch, and their ids.
    fn written(&mut self, arrays: &[ArrayRef], partitions: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut ids = Vec::new();
        self.slots.take(partitions.len(), &mut ids);
        let capacity = self.slots.capacity();
        self.rows.grow(capacity);
        self.weights.grow(capacity);
        self.seqs.grow(capacity);
        self.partition_of.grow(capacity);
        self.flags.grow(capacity);
        let mut rows: Vec<u32> = (0..partitions.len() as u32).collect();
        let Some(bound) = self.bound else {
            self.rows.write(arrays, &ids);
            return (rows, ids);
        };
        // First the sort keys alone: most rows are behind all that matter.
        let keys: Vec<usize> = self.order[..self.sort_keys]
            .iter()
            .map(|by| by.column)
            .collect();
        let of = |columns: &[usize]| -> Vec<ArrayRef> {
            columns.iter().map(|c| arrays[*c].clone()).collect()
        };
        self.rows.write_columns(&keys, &of(&keys), &rows, &ids);
        let matters = |row: u32, id: u32| {
            let last = self
                .list(partitions[row as usize])
                .get(bound.saturating_sub(1));
            last.is_none_or(|last| self.compare_keys(id, last) != Ordering::Greater)
        };
        let matter: Vec<bool> = rows
            .iter()
            .zip(&ids)
            .map(|(r, id)| matters(*r, *id))
            .collect();
        for (id, _) in ids.iter().zip(&matter).filter(|(_, matters)| !**matters) {
            self.rows.clear(*id);
            self.slots.give_back(*id);
        }
        let mut kept = matter.iter();
        rows.retain(|_| *kept.next().expect("one per row"));
        let mut kept = matter.iter();
        ids.retain(|_| *kept.next().expect("one per row"));
        let others: Vec<usize> = (0..arrays.len()).filter(|c| !keys.contains(c)).collect();
        self.rows.write_columns(&others, &of(&others), &rows, &ids);
        (rows, ids)
    }

    /// Puts a new row into its list, or gives it up for the equal one that is there.
    fn inserted(&mut self, partition: u32, id: u32) -> u32 {
        let list = &mut self.lists[partition as usize];
        let (rows, order) = (&self.rows, &self.order);
        match list.find(|other| rows.order_apart(order, other, id)) {
            Ok(place) => {
                let there = list.iter_from(place).next().expect("it was found");
                self.give_back(id);
                there
            }
            Err(place) => {
                list.insert(place, id);
                self.listed += 1;
                self.partition_of.set(id, partition);
                self.weights.set(id, 0);
                self.flags.set(id, 0);
                self.seqs.set(id, self.next_seq);
                self.next_seq += 1;
                id
            }
        }
    }

    fn give_back(&mut self, id: u32) {
        self.rows.clear(id);
        self.slots.give_back(id);
    }

    /// What has changed since the last barrier, by partition and in its order; each row once.
    /// Rows whose changes cancel out are among them.
    pub fn take_pending(&mut self) -> Vec<Pending> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        pending.dedup_by(|next, first| {
            let same = next.row == first.row;
            if same {
                first.weight += next.weight;
            }
            same
        });
        pending.sort_unstable_by(|a, b| {
            let by_order = || self.compare(a.row, b.row);
            a.partition.cmp(&b.partition).then_with(by_order)
        });
        pending
    }

    /// The changes count from now on. Rows that are there no more keep their values until
    /// [`Partitions::free`] has been called with what this adds to `left`.
    pub fn apply(&mut self, changes: &[Pending], left: &mut Vec<u32>) {
        for change in changes {
            let weight = self.weights.get_mut(change.row);
            *weight += change.weight;
            let stays = *weight != 0;
            if change.weight != 0 {
                self.mark_dirty(change.row);
            }
            if !stays {
                let place = self.place(change.partition, change.row);
                self.lists[change.partition as usize].remove(place);
                self.listed -= 1;
                left.push(change.row);
            }
        }
        if let Some(first) = changes.first() {
            self.note_if_empty(first.partition);
        }
    }

    /// Takes the last row of a partition out, whatever its weight.
    pub fn pop(&mut self, partition: u32, left: &mut Vec<u32>) {
        if let Some(row) = self.lists[partition as usize].pop() {
            self.listed -= 1;
            self.weights.set(row, 0);
            self.mark_dirty(row);
            left.push(row);
            self.note_if_empty(partition);
        }
    }

    /// Takes the first row of a partition out, whatever its weight.
    pub fn pop_first(&mut self, partition: u32, left: &mut Vec<u32>) {
        let list = &mut self.lists[partition as usize];
        if !list.is_empty() {
            let row = list.remove(Place::FIRST);
            self.listed -= 1;
            self.weights.set(row, 0);
            self.mark_dirty(row);
            left.push(row);
            self.note_if_empty(partition);
        }
    }

    /// Rows in all partitions.
    pub fn listed(&self) -> usize {
        self.listed
    }

    /// Takes all rows of a partition out.
    pub fn empty(&mut self, partition: u32, left: &mut Vec<u32>) {
        while !self.list(partition).is_empty() {
            self.pop(partition, left);
        }
    }

    fn note_if_empty(&mut self, partition: u32) {
        if self.list(partition).is_empty() {
            self.emptied.push(partition);
        }
    }

    fn mark_dirty(&mut self, row: u32) {
        let flags = self.flags.get_mut(row);
        if *flags & DIRTY == 0 {
            *flags |= DIRTY;
            self.dirty.push(row);
        }
    }

    /// Nobody reads the values of these rows any more, which are in no list.
    pub fn free(&mut self, left: &mut Vec<u32>) {
        for row in left.drain(..) {
            let flags = self.flags.get_mut(row);
            let persisted = *flags & PERSISTED != 0;
            *flags = 0;
            if persisted {
                self.gone.push(row);
            } else {
                self.give_back(row);
            }
        }
    }

    /// A delta of rows that are there, and of some that are not.
    fn delta(&self, present: &[u32], gone: &[u32]) -> Option<TableDelta> {
        if present.is_empty() && gone.is_empty() {
            return None;
        }
        let all: Vec<usize> = (0..self.kept.len()).collect();
        let vnode = |row: &u32| {
            let partition = self.partition_of.get(*row);
            match self.partition_columns.is_empty() {
                true => 0,
                false => vnode_of_hash(self.index.hash(partition)) as u16,
            }
        };
        let numbers = |of: &Chunked<i64>, rows: &[u32]| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|r| of.get(*r)),
            ))
        };
        let mut columns = vec![numbers(&self.seqs, present)];
        columns.extend(self.gather(&all, present));
        columns.push(numbers(&self.weights, present));
        let key = self.spec.schema.field(0).clone();
        Some(TableDelta {
            upserts: record_batch(&self.spec.schema, columns, present.len()),
            upsert_vnodes: present.iter().map(vnode).collect(),
            deletes: record_batch(
                &Arc::new(Schema::new(vec![key])),
                vec![numbers(&self.seqs, gone)],
                gone.len(),
            ),
            delete_vnodes: gone.iter().map(vnode).collect(),
        })
    }

    /// No checkpoint will ask for changes.
    pub fn forget_changes(&mut self) {
        for row in std::mem::take(&mut self.dirty) {
            self.flags.set(row, 0);
        }
        self.forget_emptied();
    }

    /// Gives up partitions without rows.
    fn forget_emptied(&mut self) {
        for partition in std::mem::take(&mut self.emptied) {
            if self.index.is_live(partition) && self.list(partition).is_empty() {
                self.index.remove(partition);
            }
        }
    }
}

impl StateTable for Partitions {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        let dirty = std::mem::take(&mut self.dirty);
        for some in dirty.chunks(PIECE_ROWS) {
            let mut present = Vec::with_capacity(some.len());
            for row in some {
                // Slots are used again: only who has the flag is meant, and once.
                let flags = self.flags.get_mut(*row);
                if *flags & DIRTY != 0 {
                    *flags = PERSISTED;
                    present.push(*row);
                }
            }
            each(self.delta(&present, &[]));
        }
        let gone = std::mem::take(&mut self.gone);
        for some in gone.chunks(PIECE_ROWS) {
            each(self.delta(&[], some));
            some.iter().for_each(|row| self.give_back(*row));
        }
        self.forget_emptied();
    }

    fn restore(&mut self, rows: &RecordBatch) {
        self.restored = true;
        let columns = |columns: &[usize]| -> Vec<ArrayRef> {
            let columns = columns.iter().map(|c| rows.column(1 + c).clone());
            columns.collect()
        };
        let partitions = self.intern(&columns(&self.partition_columns), rows.num_rows());
        let arrays = columns(&self.row_columns);
        let seqs = rows.column(0).as_primitive::<Int64Type>();
        let weights = rows.column(1 + self.kept.len()).as_primitive::<Int64Type>();
        let bound = self.bound.take();
        let (_, ids) = self.written(&arrays, &partitions);
        self.bound = bound;
        for (i, id) in ids.into_iter().enumerate() {
            let next_seq = self.next_seq.max(seqs.value(i) + 1);
            let row = self.inserted(partitions[i], id);
            self.next_seq = next_seq;
            self.seqs.set(row, seqs.value(i));
            self.weights.set(row, weights.value(i));
            self.flags.set(row, PERSISTED);
        }
    }

    fn memory_bytes(&self) -> usize {
        // A list's vectors have room for more than they hold.
        let lists = self.lists.capacity() * size_of::<OrderedList>() + self.listed * 6;
        self.index.memory_bytes()
            + lists
            + self.slots.memory_bytes()
            + self.rows.memory_bytes()
            + self.weights.memory_bytes()
            + self.seqs.memory_bytes()
            + self.partition_of.memory_bytes()
            + self.flags.memory_bytes()
            + self.pending.capacity() * size_of::<Pending>()
            + (self.dirty.capacity() + self.gone.capacity()) * 4
    }
}

/// The order by these keys, then by all other columns of a row; and how many of its parts are of
/// the keys.
fn order_of(kept: &[Kept], row_columns: usize, keys: &[SortKey]) -> (Vec<SortBy>, usize) {
    let mut by: Vec<SortBy> = Vec::new();
    for key in keys {
        if let Kept::Row(column) = kept[key.column]
            && by.iter().all(|b| b.column != column)
        {
            by.push(SortBy {
                column,
                descending: key.descending,
                nulls_first: key.nulls_first,
            });
        }
    }
    let sort_keys = by.len();
    for column in 0..row_columns {
        if by.iter().all(|b| b.column != column) {
            by.push(SortBy {
                column,
                descending: false,
                nulls_first: false,
            });
        }
    }
    (by, sort_keys)
}

/// An error of Arrow's, which cannot be.
pub(super) fn internal(error: arrow::error::ArrowError) -> Error {
    Error::internal(error.to_string())
}

/// A batch that may have no columns.
pub(super) fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("columns have the types of the state")
}
