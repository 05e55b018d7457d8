//! `first_value` and `last_value` in an order, and with them `arg_min` and `arg_max`, where rows
//! never leave: of each group the first row so far is kept, and nothing else. Of rows that are
//! equal by the order the one with the least value comes first.
//!
//! What is taken are structs of the columns of the order, with the value behind them.

use super::accumulator::Accumulator;
use super::lane::Input;
use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::SortKey;
use tidemark_state::chunked::Slots;
use tidemark_state::{SlotColumns, SortBy, chunked::Chunked};

/// The first rows of groups, or the last.
pub(super) struct Firsts {
    last: bool,
    fields: Fields,
    order: Vec<SortBy>,
    slots: Slots,
    rows: SlotColumns,
    /// By group: its row's slot.
    slot_of: Vec<Option<u32>>,
    /// The slots of the rows of a batch.
    batch: Vec<u32>,
}

impl Firsts {
    /// Of structs of these fields, in the order of these keys.
    pub(super) fn new(last: bool, fields: &Fields, keys: &[SortKey]) -> Firsts {
        let by = |(column, key): (usize, &SortKey)| SortBy {
            column,
            descending: key.descending,
            nulls_first: key.nulls_first,
        };
        let mut order: Vec<SortBy> = keys.iter().enumerate().map(by).collect();
        order.push(SortBy {
            column: keys.len(),
            descending: false,
            nulls_first: false,
        });
        let types: Vec<DataType> = fields.iter().map(|f| f.data_type().clone()).collect();
        Firsts {
            last,
            fields: fields.clone(),
            order,
            slots: Slots::default(),
            rows: SlotColumns::new(&types),
            slot_of: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// Whether the row in one slot takes the place of that in the other.
    fn goes_before(&self, row: u32, other: u32) -> bool {
        let ordering = self.rows.order(&self.order, row, other);
        match self.last {
            true => ordering.is_gt(),
            false => ordering.is_lt(),
        }
    }

    /// Has the row in a slot compete for a group's place.
    fn compete(&mut self, id: u32, row: u32) {
        let place = &mut self.slot_of[id as usize];
        let gone = match place.replace(row) {
            Some(known) if !self.goes_before(row, known) => {
                self.slot_of[id as usize] = Some(known);
                row
            }
            Some(known) => known,
            None => return,
        };
        self.give_back(gone);
    }

    fn give_back(&mut self, row: u32) {
        self.rows.clear(row);
        self.slots.give_back(row);
    }

    /// Puts rows of columns into slots of their own.
    fn write(&mut self, columns: &[ArrayRef], rows: &[u32]) {
        self.batch.clear();
        self.slots.take(rows.len(), &mut self.batch);
        self.rows.grow(self.slots.capacity());
        self.rows.write_selected(columns, rows, &self.batch);
    }

    /// The slots of groups, and where among those each group's is, if it has one.
    fn places(&self, ids: &[u32]) -> (Vec<u32>, UInt32Array) {
        let mut slots = Vec::with_capacity(ids.len());
        let place = |id: &u32| {
            let slot = self.slot_of[*id as usize]?;
            slots.push(slot);
            Some(slots.len() as u32 - 1)
        };
        let places = ids.iter().map(place).collect();
        (slots, places)
    }

    /// A column of the rows of groups.
    fn column(&self, column: usize, slots: &[u32], places: &UInt32Array) -> Result<ArrayRef> {
        let values = self.rows.gather_one(column, slots);
        take(&values, places, None).map_err(|e| Error::internal(e.to_string()))
    }
}

impl Accumulator for Firsts {
    fn grow(&mut self, capacity: usize) {
        if self.slot_of.len() < capacity {
            self.slot_of.resize(capacity, None);
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        input.each(|row, id, _| {
            rows.push(row as u32);
            ids.push(id);
        });
        self.write(values.as_struct().columns(), &rows);
        let batch = std::mem::take(&mut self.batch);
        for (row, id) in batch.iter().zip(ids) {
            self.compete(id, *row);
        }
        self.batch = batch;
        Ok(())
    }

    fn output(&self, ids: &[u32], _: &Chunked<i64>) -> Result<ArrayRef> {
        let (slots, places) = self.places(ids);
        self.column(self.fields.len() - 1, &slots, &places)
    }

    fn reset(&mut self, id: u32) {
        if let Some(row) = self.slot_of[id as usize].take() {
            self.give_back(row);
        }
    }

    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Struct(self.fields.clone()))
    }

    fn save(&self, ids: &[u32]) -> ArrayRef {
        let (slots, places) = self.places(ids);
        let columns = (0..self.fields.len()).map(|c| self.column(c, &slots, &places));
        let columns: Result<Vec<ArrayRef>> = columns.collect();
        let there: NullBuffer = places.iter().map(|place| place.is_some()).collect();
        let columns = columns.expect("places are among the slots");
        Arc::new(StructArray::new(self.fields.clone(), columns, Some(there)))
    }

    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_struct();
        let there = (0..ids.len()).filter(|row| stored.is_valid(*row));
        let there: Vec<u32> = there.map(|row| row as u32).collect();
        self.write(stored.columns(), &there);
        for (row, slot) in there.iter().zip(std::mem::take(&mut self.batch)) {
            let id = ids[*row as usize];
            self.reset(id);
            self.slot_of[id as usize] = Some(slot);
        }
    }

    fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.slots.memory_bytes()
            + self.slot_of.capacity() * size_of::<Option<u32>>()
    }
}
