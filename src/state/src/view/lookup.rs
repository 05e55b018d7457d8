//! Lookups by columns that are not the whole key: through an index over just these columns.
//!
//! Values are looked for in their comparable form ([`comparables`]), so that it does not matter how
//! they look. The index ([`Secondary`]) is over the base, is made by the first lookup that asks for
//! it, or by [`ViewPartition::index`], and is kept from then on as changes are merged. Rows as of
//! an epoch with the wanted values are those of the base, and what the pending changes of rows with
//! these values make of them: taking the rows of some values commutes with summing changes, so the
//! sum of the matching changes is about matching rows alone.

use super::group::Group;
use super::secondary::Secondary;
use super::{Merged, ViewPartition, batch_of, group, take_rows};
use crate::KeyIndex;
use crate::comparable::comparables;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use parking_lot::{RwLockUpgradableReadGuard, RwLockWriteGuard};
use std::sync::Arc;
use tidemark_changelog::hash_columns;
use tidemark_common::{Epoch, Result};

impl ViewPartition {
    /// Makes an index over these columns, if there is none: the time of a scan, during which
    /// readers go on.
    pub fn index(&self, columns: &[usize]) {
        if self.base.read().secondary(columns).is_some() {
            return;
        }
        let merged = self.base.upgradable_read();
        if merged.secondary(columns).is_some() {
            return;
        }
        let mut secondary = Secondary::new(&self.options.schema, columns);
        for ids in merged.base.ids().chunks(8192) {
            secondary.add(ids, &merged.base.gather(columns, ids));
        }
        let mut merged = RwLockUpgradableReadGuard::upgrade(merged);
        merged.secondaries.push(secondary);
        drop(RwLockWriteGuard::downgrade(merged));
    }

    /// Drops the indexes over columns of which `keep` says no.
    pub fn retain_indexes(&self, keep: impl Fn(&[usize]) -> bool) {
        let goes = |s: &Secondary| !keep(&s.columns);
        if self.base.read().secondaries.iter().any(goes) {
            self.base.write().secondaries.retain(|s| !goes(s));
        }
    }

    /// The rows with these values in `by` (one value per column and wanted combination) as of
    /// `epoch`, in no order: these columns, which `schema` names.
    pub fn lookup_by(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        (by, values): (&[usize], &[ArrayRef]),
        (columns, schema): (&[usize], &SchemaRef),
    ) -> Result<RecordBatch> {
        self.index(by);
        let values = comparables(values);
        self.with(epoch, mergeable, |merged, pending| {
            match merged.secondary(by).filter(|_| pending.is_empty()) {
                Some(secondary) => {
                    let ids = merged.base.each(secondary.rows_of(&values));
                    batch_of(schema, merged.base.gather(columns, &ids), ids.len())
                }
                None => self.summed(merged, pending, (by, &values), columns, schema),
            }
        })
    }

    /// [`ViewPartition::lookup_by`] where changes are pending; values in their comparable form.
    fn summed(
        &self,
        merged: &Merged,
        pending: &[Arc<Group>],
        (by, values): (&[usize], &[ArrayRef]),
        columns: &[usize],
        schema: &SchemaRef,
    ) -> RecordBatch {
        let types = values.iter().map(|v| v.data_type().clone());
        let mut wanted = KeyIndex::new(&types.collect::<Vec<DataType>>());
        let count = values.first().map_or(0, |v| v.len());
        wanted.intern(values, &hash_columns(values, count), &mut Vec::new());
        let delta = self.options.sum(&group::changes_to(pending, &wanted, by));
        let ids = match merged.secondary(by) {
            Some(secondary) => secondary.rows_of(values),
            // It was dropped in this moment.
            None => merged.matching(by, &wanted),
        };
        let ids = merged.base.untouched(ids, &delta);
        let found = batch_of(schema, merged.base.gather(columns, &ids), ids.len());
        if delta.is_empty() {
            return found;
        }
        let left = merged.base.left_by(&self.options.name, &delta);
        let rows = delta.rows().project(columns).expect("the columns exist");
        arrow::compute::concat_batches(schema, [&found, &take_rows(&rows, left)])
            .expect("the parts share a schema")
    }
}

impl Merged {
    fn secondary(&self, columns: &[usize]) -> Option<&Secondary> {
        self.secondaries.iter().find(|s| s.columns == columns)
    }

    /// Ids of the rows with the wanted values, by a scan.
    fn matching(&self, by: &[usize], wanted: &KeyIndex) -> Vec<u32> {
        let (ids, mut places) = (self.base.ids(), Vec::new());
        let columns = comparables(&self.base.gather(by, &ids));
        wanted.find(&columns, &hash_columns(&columns, ids.len()), &mut places);
        let found = ids.into_iter().zip(places);
        found
            .filter(|(_, place)| *place != crate::ABSENT)
            .map(|(id, _)| id)
            .collect()
    }
}
