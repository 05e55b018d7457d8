//! What a side of a join forgets by a watermark.

use super::{Keys, Rows, Side};
use crate::closing::below;
use tidemark_state::table::PIECE_ROWS;

impl Side {
    /// How many rows are kept.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Appended { store, .. } => store.len(),
            Rows::Multiset(m) => m.linked,
            Rows::Keyed { kept, .. } => *kept,
        }
    }

    /// Forgets the rows whose value in a stored column of the input is below a watermark.
    pub fn close(&mut self, keys: &mut Keys, column: usize, watermark: i64) {
        let live: Vec<u32> = match &self.rows {
            Rows::Appended { .. } => Vec::new(),
            Rows::Multiset(m) => m
                .index
                .live_ids()
                .filter(|id| m.weights.get(*id) != 0)
                .collect(),
            Rows::Keyed { .. } => {
                let totals = &keys.sides[self.port].totals;
                let live = keys.index.live_ids();
                live.filter(|id| totals.get(*id) != 0).collect()
            }
        };
        let mut emptied = Vec::new();
        for rows in live.chunks(PIECE_ROWS) {
            let values = self.gather(keys, &[self.stored_at(column)], rows);
            let closed = below(rows, &values[0], watermark);
            self.take_from_totals(keys, &closed);
            self.forget(keys, closed.into_iter(), &mut emptied);
        }
        keys.remove_unused(&emptied);
    }

    /// The rows do not count for their keys any more.
    fn take_from_totals(&self, keys: &mut Keys, rows: &[u32]) {
        let side = &mut keys.sides[self.port];
        if let (Rows::Multiset(m), true) = (&self.rows, side.has_totals) {
            for row in rows {
                *side.totals.get_mut(m.key_of.get(*row)) -= m.weights.get(*row);
            }
        }
    }
}
