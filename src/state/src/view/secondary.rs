//! An index over columns that several rows may share: from their values to the rows of the base.
//!
//! The distinct values have ids in a [`KeyIndex`]; the rows of each are a doubly linked list
//! through arrays by row id, so that adding and removing a row costs the same however many share
//! its values. Values that are equal are one, however they look ([`crate::comparable`]). Law: after
//! every batch that the base applies, the lists hold exactly the ids of rows that are there. It is
//! derived from the base: made when it is first asked for, never stored.
//! Cost: 12 bytes a row, and per distinct value what a key of a [`KeyIndex`] costs and 4 bytes.

use crate::chunked::Chunked;
use crate::comparable::{comparable_type, comparables};
use crate::{ABSENT, KeyIndex};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use tidemark_changelog::hash_columns;

#[derive(Debug)]
pub(super) struct Secondary {
    /// By position in the relation.
    pub(super) columns: Vec<usize>,
    values: KeyIndex,
    /// By id of the values: a row that has them.
    first: Chunked<u32>,
    /// By id of the row: its values, and its neighbours in their list.
    value: Chunked<u32>,
    next: Chunked<u32>,
    previous: Chunked<u32>,
}

impl Secondary {
    /// Over these columns, without rows.
    pub(super) fn new(schema: &SchemaRef, columns: &[usize]) -> Secondary {
        let types = columns
            .iter()
            .map(|c| comparable_type(schema.field(*c).data_type()));
        Secondary {
            columns: columns.to_vec(),
            values: KeyIndex::new(&types.collect::<Vec<DataType>>()),
            first: Chunked::new(),
            value: Chunked::new(),
            next: Chunked::new(),
            previous: Chunked::new(),
        }
    }

    /// Adds rows that are not in it; `columns` are its own, of these rows.
    pub(super) fn add(&mut self, ids: &[u32], columns: &[ArrayRef]) {
        let Some(last) = ids.iter().max() else {
            return;
        };
        let (columns, mut values) = (comparables(columns), Vec::new());
        let hashes = hash_columns(&columns, ids.len());
        self.values.intern(&columns, &hashes, &mut values);
        let known = self.first.len();
        self.first.grow(self.values.capacity());
        for value in known..self.first.len() {
            self.first.set(value as u32, ABSENT);
        }
        for rows in [&mut self.value, &mut self.next, &mut self.previous] {
            rows.grow(*last as usize + 1);
        }
        for (id, value) in ids.iter().zip(values) {
            let second = self.first.get(value);
            self.value.set(*id, value);
            self.previous.set(*id, ABSENT);
            self.next.set(*id, second);
            if second != ABSENT {
                self.previous.set(second, *id);
            }
            self.first.set(value, *id);
        }
    }

    /// Takes rows out that are in it.
    pub(super) fn remove(&mut self, ids: &[u32]) {
        for id in ids {
            let (next, previous) = (self.next.get(*id), self.previous.get(*id));
            if next != ABSENT {
                self.previous.set(next, previous);
            }
            if previous != ABSENT {
                self.next.set(previous, next);
                continue;
            }
            let value = self.value.get(*id);
            self.first.set(value, next);
            if next == ABSENT {
                self.values.remove(value);
            }
        }
    }

    /// The rows that have one of these values, which are in their comparable form.
    pub(super) fn rows_of(&self, wanted: &[ArrayRef]) -> Vec<u32> {
        let count = wanted.first().map_or(0, |column| column.len());
        let (mut values, mut rows) = (Vec::new(), Vec::new());
        self.values
            .find(wanted, &hash_columns(wanted, count), &mut values);
        // What looks different may be equal.
        values.sort_unstable();
        values.dedup();
        for value in values.into_iter().filter(|value| *value != ABSENT) {
            let mut row = self.first.get(value);
            while row != ABSENT {
                rows.push(row);
                row = self.next.get(row);
            }
        }
        rows
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let lists = [&self.first, &self.value, &self.next, &self.previous];
        self.values.memory_bytes() + lists.map(Chunked::memory_bytes).iter().sum::<usize>()
    }
}
