//! The state tables of an aggregate: the groups with counts and sums; per distinct column `(group,
//! value)` with the variants that have it; per retractable extreme `(group, value)` with its count.
//! All are partitioned by the hash of the group columns (without any: vnode 0).
//!
//! A seal takes the groups that were touched since the last one. The ids of groups that ended are
//! given back only when rows go on, so that the other tables can still name them.

use super::groups::{Groups, SEALED, TableKind, UNSEALED};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemark_changelog::vnode_of_hash;
use tidemark_state::table::PIECE_ROWS;
use tidemark_state::{StateTable, TableDelta, TableForm, TableSpec};

/// One of the tables, as checkpoints see it.
pub(super) struct Table {
    groups: Arc<Mutex<Groups>>,
    kind: TableKind,
    spec: TableSpec,
}

/// The groups; a panic while they were held has stopped the worker anyway.
pub(super) fn lock(groups: &Mutex<Groups>) -> MutexGuard<'_, Groups> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All tables, numbered from `first`.
pub(super) fn tables(groups: &Arc<Mutex<Groups>>, first: u32) -> Vec<Table> {
    let mut held = lock(groups);
    let kinds = held.kinds.clone();
    let specs: Vec<TableSpec> = kinds
        .iter()
        .zip(first..)
        .map(|(kind, table)| held.spec(*kind, table))
        .collect();
    drop(held);
    kinds
        .into_iter()
        .zip(specs)
        .map(|(kind, spec)| Table {
            groups: groups.clone(),
            kind,
            spec,
        })
        .collect()
}

impl StateTable for Table {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        while let Some(piece) = self.seal_piece() {
            each(Some(piece));
        }
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let mut groups = lock(&self.groups);
        let width = groups.group_fields.len();
        let mut ids = Vec::new();
        groups.intern_keys(&rows.columns()[..width], rows.num_rows(), &mut ids);
        match self.kind {
            TableKind::Groups => groups.restore_new(&ids, &rows.columns()[width..]),
            TableKind::Distinct(table) => {
                groups.distinct[table].load(ids, rows.column(width), &rows.columns()[width + 1..])
            }
            TableKind::Multiset(call) => {
                if let Some(multiset) = groups.calls[call].accumulator.multiset() {
                    multiset.load_entries(
                        &ids,
                        rows.column(width),
                        rows.column(width + 1).as_primitive::<Int64Type>(),
                    );
                }
            }
        }
    }

    fn keeps_newest(&self) -> bool {
        matches!(self.kind, TableKind::Groups)
    }

    fn memory_bytes(&self) -> usize {
        let mut groups = lock(&self.groups);
        match self.kind {
            TableKind::Groups => groups.memory_bytes(),
            TableKind::Distinct(table) => groups.distinct[table].memory_bytes(),
            TableKind::Multiset(call) => groups.calls[call].accumulator.memory_bytes(),
        }
    }
}

impl Table {
    fn seal_piece(&mut self) -> Option<TableDelta> {
        let mut groups = lock(&self.groups);
        match self.kind {
            TableKind::Groups => groups.seal_groups(&self.spec),
            TableKind::Distinct(table) => {
                let c = groups.distinct[table].take_changes(PIECE_ROWS)?;
                let columns = std::iter::once(c.values).chain(c.presence).collect();
                groups.entries_delta(&self.spec, &c.ids, columns, &c.gone_ids, c.gone_values)
            }
            TableKind::Multiset(call) => {
                let multiset = groups.calls[call].accumulator.multiset()?;
                let c = multiset.take_changes(PIECE_ROWS)?;
                let columns = vec![c.values, Arc::new(Int64Array::from(c.counts)) as ArrayRef];
                groups.entries_delta(&self.spec, &c.ids, columns, &c.gone_ids, c.gone_values)
            }
        }
    }
}

impl Groups {
    fn spec(&mut self, kind: TableKind, table: u32) -> TableSpec {
        let mut fields = self.group_fields.clone();
        let mut key_columns = fields.len();
        match kind {
            TableKind::Groups => {
                fields.push(Field::new("rows", DataType::Int64, false));
                fields.extend(
                    (1..self.lanes.len())
                        .map(|lane| Field::new(format!("count_{lane}"), DataType::Int64, false)),
                );
                let stored = self.calls.iter().enumerate().filter_map(|(i, c)| {
                    Some(Field::new(
                        format!("call_{i}"),
                        c.accumulator.stored_type()?,
                        true,
                    ))
                });
                fields.extend(stored);
            }
            TableKind::Distinct(table) => {
                fields.push(Field::new(
                    "value",
                    self.distinct[table].data_type.clone(),
                    false,
                ));
                fields.extend(self.distinct[table].presence_fields());
                key_columns += 1;
            }
            TableKind::Multiset(call) => {
                let value_type = self.calls[call]
                    .accumulator
                    .multiset()
                    .map_or(DataType::Null, |m| m.value_type());
                fields.extend([
                    Field::new("value", value_type, false),
                    Field::new("count", DataType::Int64, false),
                ]);
                key_columns += 1;
            }
        }
        TableSpec {
            table,
            form: TableForm::Keyed,
            schema: Arc::new(Schema::new(fields)),
            key_columns,
        }
    }

    /// Some of the groups that changed, as long as there are any to tell of.
    fn seal_groups(&mut self, spec: &TableSpec) -> Option<TableDelta> {
        self.closed = 0;
        let mut piece = None;
        while piece.is_none() && !self.unsealed.is_empty() {
            let rest = self.unsealed.len().saturating_sub(PIECE_ROWS);
            let some = self.unsealed.split_off(rest);
            piece = self.seal_some_groups(spec, some);
        }
        piece
    }

    fn seal_some_groups(&mut self, spec: &TableSpec, unsealed: Vec<u32>) -> Option<TableDelta> {
        let (here, gone): (Vec<u32>, Vec<u32>) =
            unsealed.into_iter().partition(|id| self.is_alive(*id));
        let stored_before: Vec<u32> = gone
            .iter()
            .copied()
            .filter(|id| self.flags.get(*id) & SEALED != 0)
            .collect();
        let mut columns = Vec::new();
        for lane in 0..self.lanes.len() {
            let counts = self.counts(lane);
            columns.push(Arc::new(Int64Array::from_iter_values(
                here.iter().map(|id| counts.get(*id)),
            )) as ArrayRef);
        }
        columns.extend(
            self.calls
                .iter()
                .filter(|c| c.accumulator.stored_type().is_some())
                .map(|c| c.accumulator.save(&here)),
        );
        let delta = self.delta(spec, &here, columns, &stored_before, None);
        for id in here {
            let flags = self.flags.get_mut(id);
            *flags = *flags & !UNSEALED | SEALED;
        }
        self.ended.extend(gone);
        delta
    }

    fn entries_delta(
        &self,
        spec: &TableSpec,
        ids: &[u32],
        columns: Vec<ArrayRef>,
        gone_ids: &[u32],
        gone_values: ArrayRef,
    ) -> Option<TableDelta> {
        self.delta(spec, ids, columns, gone_ids, Some(gone_values))
    }

    /// Rows of `ids` with these columns after the group's, and deletes of `gone`; `None` if there
    /// is neither.
    fn delta(
        &self,
        spec: &TableSpec,
        ids: &[u32],
        columns: Vec<ArrayRef>,
        gone: &[u32],
        gone_values: Option<ArrayRef>,
    ) -> Option<TableDelta> {
        if ids.is_empty() && gone.is_empty() {
            return None;
        }
        let key_schema: SchemaRef = Arc::new(Schema::new(
            spec.schema.fields()[..spec.key_columns].to_vec(),
        ));
        let upserts = self.index.gather(ids).into_iter().chain(columns).collect();
        let deletes = self
            .index
            .gather(gone)
            .into_iter()
            .chain(gone_values)
            .collect();
        Some(TableDelta {
            upserts: batch(&spec.schema, upserts, ids.len()),
            upsert_vnodes: self.vnodes(ids),
            deletes: batch(&key_schema, deletes, gone.len()),
            delete_vnodes: self.vnodes(gone),
        })
    }

    fn vnodes(&self, ids: &[u32]) -> Vec<u16> {
        if self.group_fields.is_empty() {
            vec![0; ids.len()]
        } else {
            ids.iter()
                .map(|id| vnode_of_hash(self.index.hash(*id)) as u16)
                .collect()
        }
    }

    /// Those of them that were not restored before.
    fn restore_new(&mut self, ids: &[u32], columns: &[ArrayRef]) {
        let is_new = |id: &u32| self.flags.get(*id) & SEALED == 0;
        if ids.iter().all(is_new) {
            return self.restore_groups(ids, columns);
        }
        let mask: BooleanArray = ids.iter().map(|id| Some(is_new(id))).collect();
        let new: Vec<u32> = ids.iter().copied().filter(is_new).collect();
        let columns = columns.iter().map(|c| arrow::compute::filter(c, &mask));
        let columns: Result<Vec<ArrayRef>, _> = columns.collect();
        self.restore_groups(&new, &columns.expect("as many rows as ids"));
    }

    fn restore_groups(&mut self, ids: &[u32], columns: &[ArrayRef]) {
        let counts: Vec<&Int64Array> = columns[..self.lanes.len()]
            .iter()
            .map(|c| c.as_primitive::<Int64Type>())
            .collect();
        for lane in 1..self.lanes.len() {
            if self.lanes[lane].is_all_rows() && counts[lane].values() != counts[0].values() {
                let so_far = self.lanes[0].counts.clone();
                self.lanes[lane].diverge(so_far);
            }
        }
        for (lane, counts) in self
            .lanes
            .iter_mut()
            .zip(counts)
            .filter(|(lane, _)| !lane.is_all_rows())
        {
            ids.iter()
                .zip(counts.values())
                .for_each(|(id, count)| lane.counts.set(*id, *count));
        }
        let mut stored = columns[self.lanes.len()..].iter();
        for call in self
            .calls
            .iter_mut()
            .filter(|c| c.accumulator.stored_type().is_some())
        {
            call.accumulator
                .load(ids, stored.next().expect("one column per stored state"));
        }
        ids.iter().for_each(|id| *self.flags.get_mut(*id) |= SEALED);
        self.shown = true;
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let columns = columns.into_iter().zip(schema.fields()).map(|(c, f)| {
        if c.data_type() == f.data_type() {
            c
        } else {
            arrow::compute::cast(&c, f.data_type()).expect("a key keeps its type")
        }
    });
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns.collect(),
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .expect("columns have their declared types")
}
