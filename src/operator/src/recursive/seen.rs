//! The rows of a recursive query with UNION, and how often each iteration has them.
//!
//! **Law.** Between barriers a row is *in* the smallest iteration that has it, and in no other.
//! Iterations are gone through in ascending order, so when it is the turn of one, the counts of
//! those before it are what they will be, and the row's place among them is settled. A row that is
//! in a later one, and has now come to this one, leaves the later one when it is that one's turn; a
//! row that has gone from this one is looked at again when it is the turn of the next that has it.

use super::CHUNK_ROWS;
use crate::Out;
use crate::project::batch_of;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::Result;
use tidemark_state::chunked::Chunked;
use tidemark_state::table::PIECE_ROWS;
use tidemark_state::{KeyIndex, StateTable, TableDelta, TableForm, TableSpec};

/// A checkpoint has the count.
const PERSISTED: u8 = 1;
/// It has changed since the last seal.
const DIRTY: u8 = 2;

/// How often an iteration has a row.
#[derive(Clone, Copy, Debug)]
struct Count {
    iteration: u32,
    flags: u8,
    count: i64,
}

/// The counts of a row, by ascending iteration; nearly all rows have one.
#[derive(Clone, Debug, Default)]
enum Counts {
    #[default]
    None,
    One(Count),
    Many(Box<Vec<Count>>),
}

impl Counts {
    fn all(&self) -> &[Count] {
        match self {
            Counts::None => &[],
            Counts::One(count) => std::slice::from_ref(count),
            Counts::Many(counts) => counts,
        }
    }

    /// The count of an iteration, zero if it is new.
    fn of(&mut self, iteration: u32) -> &mut Count {
        let new = Count {
            iteration,
            flags: 0,
            count: 0,
        };
        match self {
            Counts::None => *self = Counts::One(new),
            Counts::One(count) if count.iteration == iteration => {}
            Counts::One(count) => {
                let mut both = vec![*count, new];
                both.sort_by_key(|c| c.iteration);
                *self = Counts::Many(Box::new(both));
            }
            Counts::Many(_) => {}
        }
        match self {
            Counts::None => unreachable!("it has one by now"),
            Counts::One(count) => count,
            Counts::Many(counts) => {
                let at = counts.binary_search_by_key(&iteration, |c| c.iteration);
                let at = at.unwrap_or_else(|at| {
                    counts.insert(at, new);
                    at
                });
                &mut counts[at]
            }
        }
    }

    /// Takes the count of an iteration out.
    fn remove(&mut self, iteration: u32) {
        match self {
            Counts::None => {}
            Counts::One(count) if count.iteration == iteration => *self = Counts::None,
            Counts::One(_) => {}
            Counts::Many(counts) => {
                counts.retain(|c| c.iteration != iteration);
                match counts.as_slice() {
                    [] => *self = Counts::None,
                    [one] => *self = Counts::One(*one),
                    _ => {}
                }
            }
        }
    }

    /// The smallest iteration that has the row.
    fn first(&self) -> Option<u32> {
        let first = self.all().iter().find(|c| c.count > 0);
        first.map(|c| c.iteration)
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Counts::Many(counts) => {
                counts.capacity() * size_of::<Count>() + size_of::<Vec<Count>>()
            }
            _ => 0,
        }
    }
}

/// See the module.
pub(super) struct Seen {
    output: SchemaRef,
    /// Rows of later iterations are not part of the answer.
    iterations_max: u32,
    index: KeyIndex,
    counts: Vec<Counts>,
    /// The iteration that each row is in, plus 1; 0 for none.
    places: Chunked<u32>,
    /// Rows to be looked at when it is the turn of an iteration.
    due: BTreeMap<u32, Vec<u32>>,
    /// Rows that leave an iteration then.
    leaving: BTreeMap<u32, Vec<u32>>,
    /// Whether the row is among `moved`.
    is_moved: Chunked<bool>,
    /// Rows whose place has changed since the last barrier, and whether the answer had them.
    moved: Vec<(u32, bool)>,
    /// Counts that have changed since the last seal.
    dirty: Vec<(u32, u32)>,
    /// Bytes of counts outside of their vector.
    counts_bytes: usize,
    spec: TableSpec,
}

impl Seen {
    /// No rows.
    pub fn new(output: &SchemaRef, iterations_max: u32, table: u32) -> Seen {
        let types: Vec<DataType> = output
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let fields = output.fields().iter();
        let fields = fields.map(|f| f.as_ref().clone().with_nullable(true));
        let number = |name| Field::new(name, DataType::Int64, false);
        let fields = fields.chain([number("_iteration"), number("_count")]);
        Seen {
            output: output.clone(),
            iterations_max,
            index: KeyIndex::new(&types),
            counts: Vec::new(),
            places: Chunked::new(),
            due: BTreeMap::new(),
            leaving: BTreeMap::new(),
            is_moved: Chunked::new(),
            moved: Vec::new(),
            dirty: Vec::new(),
            counts_bytes: 0,
            spec: TableSpec {
                table,
                form: TableForm::Keyed,
                schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
                key_columns: types.len() + 1,
            },
        }
    }

    /// The first iteration in which rows are to be looked at.
    pub fn next(&self) -> Option<u32> {
        let first = |rows: &BTreeMap<u32, Vec<u32>>| rows.keys().next().copied();
        first(&self.due)
            .into_iter()
            .chain(first(&self.leaving))
            .min()
    }

    /// Takes in all changes of an iteration; answers the rows that come to be in it (1), and those
    /// that leave it (-1). Calls `rest` every few thousand rows.
    pub fn turn(
        &mut self,
        iteration: u32,
        batches: &[ChangeBatch],
        rest: &mut dyn FnMut(),
    ) -> Vec<(u32, i64)> {
        let mut looked_at = self.due.remove(&iteration).unwrap_or_default();
        for batch in batches {
            let ids = self.intern(batch.rows().columns(), batch.num_rows());
            for (row, id) in ids.iter().enumerate() {
                self.add(*id, iteration, batch.weight(row));
            }
            looked_at.extend(ids);
            rest();
        }
        looked_at.sort_unstable();
        looked_at.dedup();
        let leaving = self.leaving.remove(&iteration).unwrap_or_default();
        let mut moves: Vec<(u32, i64)> = leaving.into_iter().map(|id| (id, -1)).collect();
        for some in looked_at.chunks(CHUNK_ROWS) {
            let settled = some
                .iter()
                .filter_map(|id| Some((*id, self.settle(*id, iteration)?)));
            moves.extend(settled);
            rest();
        }
        moves
    }

    /// Rows that have moved, as changes.
    pub fn changes(&self, moves: &[(u32, i64)]) -> ChangeBatch {
        let (ids, weights): (Vec<u32>, Vec<i64>) = moves.iter().copied().unzip();
        ChangeBatch::new(self.rows(&ids), weights)
    }

    /// Finds or adds rows.
    fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.index
            .intern(columns, &hash_columns(columns, rows), &mut ids);
        let capacity = self.index.capacity();
        if capacity > self.counts.len() {
            self.counts.resize(capacity, Counts::None);
            self.places.grow(capacity);
            self.is_moved.grow(capacity);
        }
        ids
    }

    fn add(&mut self, id: u32, iteration: u32, weight: i64) {
        let counts = &mut self.counts[id as usize];
        let before = counts.memory_bytes();
        let count = counts.of(iteration);
        count.count += weight;
        if count.flags & DIRTY == 0 {
            count.flags |= DIRTY;
            self.dirty.push((id, iteration));
        }
        self.counts_bytes += counts.memory_bytes() - before;
    }

    /// Decides whether a row is in an iteration whose turn it is: 1 if it comes to be, -1 if it is
    /// no more.
    fn settle(&mut self, id: u32, iteration: u32) -> Option<i64> {
        let first = self.counts[id as usize].first();
        let place = self.places.get(id).checked_sub(1);
        if place == first || place.is_some_and(|place| place < iteration) {
            return None;
        }
        if first == Some(iteration) {
            if let Some(later) = place {
                self.leaving.entry(later).or_default().push(id);
            }
            self.put(id, Some(iteration));
            return Some(1);
        }
        let leaves = place == Some(iteration);
        if let Some(later) = first
            && (leaves || place.is_none())
        {
            self.due.entry(later).or_default().push(id);
        }
        if leaves {
            self.put(id, None);
        }
        leaves.then_some(-1)
    }

    /// Puts a row into an iteration, or into none.
    fn put(&mut self, id: u32, iteration: Option<u32>) {
        if !self.is_moved.get(id) {
            self.is_moved.set(id, true);
            self.moved.push((id, self.is_in_answer(id)));
        }
        self.places.set(id, iteration.map_or(0, |i| i + 1));
    }

    fn is_in_answer(&self, id: u32) -> bool {
        let place = self.places.get(id).checked_sub(1);
        place.is_some_and(|place| place <= self.iterations_max)
    }

    /// These rows.
    fn rows(&self, ids: &[u32]) -> RecordBatch {
        batch_of(&self.output, self.index.gather(ids), ids.len()).expect("rows keep their types")
    }

    /// Sends the rows that have come to the answer since the last barrier, and those that have gone
    /// from it.
    pub fn send_changed(&mut self, out: &mut dyn Out) -> Result<()> {
        let moved = std::mem::take(&mut self.moved);
        let mut changed = Vec::new();
        for (id, was) in moved {
            self.is_moved.set(id, false);
            let is = self.is_in_answer(id);
            if was != is {
                changed.push((id, if is { 1 } else { -1 }));
            }
        }
        for changed in changed.chunks(CHUNK_ROWS) {
            out.send(self.changes(changed))?;
        }
        Ok(())
    }

    /// A piece of a seal: these counts, those that are zero as deletes.
    fn seal_some(&mut self, dirty: &[(u32, u32)]) -> Option<TableDelta> {
        let (mut here, mut gone, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (id, iteration) in dirty {
            let counts = &mut self.counts[*id as usize];
            let before = counts.memory_bytes();
            let count = counts.of(*iteration);
            if count.count != 0 {
                count.flags = PERSISTED;
                here.push((*id, *iteration));
                values.push(count.count);
                continue;
            }
            if count.flags & PERSISTED != 0 {
                gone.push((*id, *iteration));
            }
            counts.remove(*iteration);
            self.counts_bytes -= before - counts.memory_bytes();
        }
        let piece = (!here.is_empty() || !gone.is_empty()).then(|| {
            let deletes: Vec<usize> = (0..self.spec.key_columns).collect();
            let keys = self.spec.schema.project(&deletes).expect("key columns");
            let counts: ArrayRef = Arc::new(Int64Array::from(values));
            TableDelta {
                upsert_vnodes: vec![0; here.len()],
                upserts: self.stored(&self.spec.schema.clone(), &here, Some(counts)),
                delete_vnodes: vec![0; gone.len()],
                deletes: self.stored(&Arc::new(keys), &gone, None),
            }
        });
        for (id, _) in dirty {
            if matches!(self.counts[*id as usize], Counts::None) && self.index.is_live(*id) {
                self.index.remove(*id);
            }
        }
        piece
    }

    /// Rows of the state table.
    fn stored(
        &self,
        schema: &SchemaRef,
        counts: &[(u32, u32)],
        values: Option<ArrayRef>,
    ) -> RecordBatch {
        let ids: Vec<u32> = counts.iter().map(|(id, _)| *id).collect();
        let iterations = counts.iter().map(|(_, i)| i64::from(*i));
        let iterations: ArrayRef = Arc::new(Int64Array::from_iter_values(iterations));
        let columns = self.index.gather(&ids).into_iter().chain([iterations]);
        let columns = columns.chain(values).collect();
        batch_of(schema, columns, ids.len()).expect("columns have their declared types")
    }
}

impl StateTable for Seen {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        // The counts of a row side by side, so that it goes with the last of them.
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for some in dirty.chunks(PIECE_ROWS) {
            each(self.seal_some(some));
        }
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let width = self.spec.key_columns - 1;
        let ids = self.intern(&rows.columns()[..width], rows.num_rows());
        let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>().values();
        let counts = numbers(width).iter().zip(numbers(width + 1));
        for (id, (iteration, value)) in ids.into_iter().zip(counts) {
            let iteration = u32::try_from(*iteration).expect("an iteration was stored");
            let counts = &mut self.counts[id as usize];
            let before = counts.memory_bytes();
            let count = counts.of(iteration);
            (count.count, count.flags) = (*value, PERSISTED);
            self.counts_bytes += counts.memory_bytes() - before;
            self.places.set(id, counts.first().map_or(0, |i| i + 1));
        }
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.counts.capacity() * size_of::<Counts>()
            + self.counts_bytes
            + self.places.memory_bytes()
            + self.is_moved.memory_bytes()
            + self.moved.capacity() * size_of::<(u32, bool)>()
            + self.dirty.capacity() * size_of::<(u32, u32)>()
    }
}
