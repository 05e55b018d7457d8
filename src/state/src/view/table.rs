//! A relation's rows as a state table: what a checkpoint of it writes, and how it comes back.
//!
//! A seal tells every key that changed since the last one, as of base and all pending changes together: keys of pending changes with their net
//! outcome, and the other dirty keys of the base as they stand. It needs the base for reading only.

use super::base::{Base, Indexed, by_sign, pick, repeated, take_rows};
use super::{ViewPartition, batch_of};
use crate::{ABSENT, KeyIndex, StateTable, TableDelta, TableSpec};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};

/// The state table of a [`ViewPartition`].
#[derive(Debug)]
pub struct ViewTable {
    view: Arc<ViewPartition>,
    spec: TableSpec,
    /// Position in the relation of each of the relation's columns in the table's schema.
    columns: Vec<usize>,
}

impl ViewTable {
    /// The table of a view.
    pub fn new(view: Arc<ViewPartition>) -> ViewTable {
        let options = &view.options;
        let width = options.schema.fields().len();
        let key = options.key.clone().unwrap_or_default();
        let columns: Vec<usize> = key.iter().copied().chain((0..width).filter(|c| !key.contains(c))).collect();
        let plain = |c: &usize| options.schema.field(*c).clone();
        let mut fields: Vec<Field> = columns.iter().map(plain).collect();
        let key_columns = match (&options.key, options.append_only) {
            (Some(key), _) => key.len(),
            (None, true) => {
                fields.insert(0, Field::new("_seq", DataType::Int64, false));
                1
            }
            (None, false) => {
                fields.push(Field::new("_weight", DataType::Int64, false));
                width
            }
        };
        let own = if options.append_only { Some(0) } else { Some(width) };
        let spec = TableSpec { table: options.table, schema: unique_names(fields, own.filter(|_| options.key.is_none())), key_columns };
        ViewTable { view, spec, columns }
    }

    /// The view.
    pub fn view(&self) -> &Arc<ViewPartition> {
        &self.view
    }

    /// Columns of the table without `_seq` or `_weight`, from rows of the relation.
    fn table_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        pick(rows, &self.columns)
    }

    fn key_schema(&self) -> SchemaRef {
        Arc::new(self.spec.schema.project(&(0..self.spec.key_columns).collect::<Vec<_>>()).expect("key columns come first"))
    }

    fn seal_append_only(&self, store: &crate::RowStore, pending: &[ChangeBatch]) -> Option<TableDelta> {
        let mut unsealed = self.view.unsealed.lock();
        let every: Vec<usize> = (0..self.view.options.schema.fields().len()).collect();
        let merged = store.len() as u64;
        let ids: Vec<u32> = (unsealed.sealed_rows.min(merged) as u32..merged as u32).collect();
        let mut parts = vec![batch_of(&self.view.options.schema, store.gather(&every, &ids), ids.len())];
        let mut skip = unsealed.sealed_rows.saturating_sub(merged) as usize;
        for changes in pending {
            let rows = repeated(&self.view.options.name, changes);
            let skipped = skip.min(rows.num_rows());
            skip -= skipped;
            parts.push(rows.slice(skipped, rows.num_rows() - skipped));
        }
        let rows = arrow::compute::concat_batches(&self.view.options.schema, &parts).expect("the parts share a schema");
        if rows.num_rows() == 0 {
            return None;
        }
        let count = rows.num_rows() as i64;
        let seq: ArrayRef = Arc::new(Int64Array::from_iter_values(unsealed.next_seq..unsealed.next_seq + count));
        unsealed.next_seq += count;
        unsealed.sealed_rows += count as u64;
        let columns = std::iter::once(seq).chain(self.table_columns(&rows)).collect();
        Some(TableDelta {
            upserts: batch_of(&self.spec.schema, columns, rows.num_rows()),
            upsert_vnodes: vec![self.view.options.vnode_of_worker; rows.num_rows()],
            deletes: RecordBatch::new_empty(self.key_schema()),
            delete_vnodes: Vec::new(),
        })
    }

    fn seal_indexed(&self, indexed: &Indexed, base: &Base, pending: &[ChangeBatch]) -> Option<TableDelta> {
        let view = &self.view;
        let mut unsealed = view.unsealed.lock();
        let delta = view.options.sum(pending);
        let mut outcome = self.outcome_of(indexed, &delta);
        let mut pending_keys = KeyIndex::new(&indexed.key.iter().map(|c| view.options.schema.field(*c).data_type().clone()).collect::<Vec<_>>());
        let keys = pick(delta.rows(), &indexed.key);
        pending_keys.intern(&keys, &hash_columns(&keys, delta.num_rows()), &mut Vec::new());
        let dirty_keys = indexed.index.gather(&unsealed.dirty.ids);
        let mut told = Vec::new();
        pending_keys.find(&dirty_keys, &hash_columns(&dirty_keys, unsealed.dirty.ids.len()), &mut told);
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for (id, _) in unsealed.dirty.ids.iter().zip(&told).filter(|(_, told)| **told == ABSENT) {
            if indexed.weight(*id) > 0 { come.push(*id) } else { gone.push(*id) }
        }
        let every: Vec<usize> = (0..view.options.schema.fields().len()).collect();
        let weights: Vec<i64> = come.iter().map(|id| indexed.weight(*id)).collect();
        outcome.upserts.push((batch_of(&view.options.schema, base.gather(&every, &come), come.len()), weights));
        outcome.deletes.push(indexed.index.gather(&gone));
        unsealed.dirty.clear();
        drop(unsealed);
        self.delta_of(outcome, indexed)
    }

    /// What net changes make of the rows that they are about.
    fn outcome_of(&self, indexed: &Indexed, delta: &ChangeBatch) -> Outcome {
        let rows = delta.rows();
        let take = |columns: Vec<ArrayRef>, selected: &[u32]| -> Vec<ArrayRef> {
            let selection = arrow::array::UInt32Array::from(selected.to_vec());
            columns.iter().map(|c| arrow::compute::take(c, &selection, None).expect("rows are within the batch")).collect()
        };
        if indexed.is_multiset() {
            let ids = indexed.find(rows);
            let now: Vec<i64> = ids.iter().enumerate().map(|(row, id)| indexed.weight(*id) + delta.weight(row)).collect();
            assert!(now.iter().all(|w| *w >= 0), "{}: a row was retracted that is not there", self.view.options.name);
            let (come, gone): (Vec<u32>, Vec<u32>) = (0..rows.num_rows() as u32).partition(|r| now[*r as usize] > 0);
            let weights = come.iter().map(|r| now[*r as usize]).collect();
            return Outcome { deletes: vec![take(rows.columns().to_vec(), &gone)], upserts: vec![(take_rows(rows, come), weights)] };
        }
        let (gone, come) = by_sign(delta);
        let come_rows = take_rows(rows, come);
        let come_keys = pick(&come_rows, &indexed.key);
        let mut come_index = KeyIndex::new(&come_keys.iter().map(|k| k.data_type().clone()).collect::<Vec<_>>());
        come_index.intern(&come_keys, &hash_columns(&come_keys, come_rows.num_rows()), &mut Vec::new());
        assert!(come_index.len() == come_rows.num_rows(), "{}: two rows have one key", self.view.options.name);
        let gone_keys = take(pick(rows, &indexed.key), &gone);
        let mut replaced = Vec::new();
        come_index.find(&gone_keys, &hash_columns(&gone_keys, gone.len()), &mut replaced);
        let left: Vec<u32> = (0..gone.len() as u32).filter(|i| replaced[*i as usize] == ABSENT).collect();
        let weights = vec![1; come_rows.num_rows()];
        Outcome { deletes: vec![take(gone_keys, &left)], upserts: vec![(come_rows, weights)] }
    }

    fn delta_of(&self, outcome: Outcome, indexed: &Indexed) -> Option<TableDelta> {
        let mut upserts = Vec::new();
        let mut upsert_vnodes = Vec::new();
        for (rows, weights) in outcome.upserts {
            upsert_vnodes.extend(vnodes(&pick(&rows, &indexed.key), rows.num_rows()));
            let mut columns = self.table_columns(&rows);
            if indexed.is_multiset() {
                columns.push(Arc::new(Int64Array::from(weights)));
            }
            upserts.push(batch_of(&self.spec.schema, columns, rows.num_rows()));
        }
        let key_schema = self.key_schema();
        let mut deletes = Vec::new();
        let mut delete_vnodes = Vec::new();
        for keys in outcome.deletes {
            let rows = keys.first().map_or(0, |k| k.len());
            delete_vnodes.extend(vnodes(&keys, rows));
            deletes.push(batch_of(&key_schema, keys, rows));
        }
        if upsert_vnodes.is_empty() && delete_vnodes.is_empty() {
            return None;
        }
        let concat = |schema: &SchemaRef, parts: &[RecordBatch]| arrow::compute::concat_batches(schema, parts).expect("the parts share a schema");
        Some(TableDelta { upserts: concat(&self.spec.schema, &upserts), upsert_vnodes, deletes: concat(&key_schema, &deletes), delete_vnodes })
    }
}

/// Rows now present with their weights, and keys now absent.
struct Outcome {
    upserts: Vec<(RecordBatch, Vec<i64>)>,
    deletes: Vec<Vec<ArrayRef>>,
}

fn vnodes(keys: &[ArrayRef], rows: usize) -> impl Iterator<Item = u16> {
    hash_columns(keys, rows).into_iter().map(|h| vnode_of_hash(h) as u16)
}

/// A schema whose names differ: a name that is taken gets a number behind it. The field at `fixed` keeps its name.
fn unique_names(fields: Vec<Field>, fixed: Option<usize>) -> SchemaRef {
    let mut taken: std::collections::HashSet<String> = fixed.iter().map(|i| fields[*i].name().clone()).collect();
    let mut unique = |(i, field): (usize, Field)| {
        if Some(i) == fixed {
            return field;
        }
        let name = std::iter::once(field.name().clone()).chain((1..).map(|n| format!("{}_{n}", field.name()))).find(|n| !taken.contains(n)).expect("endless");
        taken.insert(name.clone());
        field.with_name(name)
    };
    Arc::new(Schema::new(fields.into_iter().enumerate().map(&mut unique).collect::<Vec<_>>()))
}

impl StateTable for ViewTable {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal(&mut self) -> Option<TableDelta> {
        let merged = self.view.base.read();
        let (pending, last): (Vec<ChangeBatch>, _) = {
            let pending = self.view.pending.lock();
            (pending.epochs.values().flatten().cloned().collect(), pending.last)
        };
        let delta = match &merged.base {
            Base::AppendOnly(store) => self.seal_append_only(store, &pending),
            Base::Indexed(indexed) => self.seal_indexed(indexed, &merged.base, &pending),
        };
        self.view.unsealed.lock().sealed = last;
        delta
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let options = &self.view.options;
        let mut merged = self.view.base.write();
        let mut unsealed = self.view.unsealed.lock();
        let offset = usize::from(matches!(merged.base, Base::AppendOnly(_)));
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.columns.len()];
        for (i, column) in self.columns.iter().enumerate() {
            columns[*column] = Some(rows.column(i + offset).clone());
        }
        let columns: Vec<ArrayRef> = columns.into_iter().map(|c| c.expect("every column is in the table")).collect();
        let relation_rows = batch_of(&options.schema, columns, rows.num_rows());
        let changes = if offset == 1 {
            let seq = rows.column(0).as_primitive::<Int64Type>();
            unsealed.next_seq = seq.values().iter().fold(unsealed.next_seq, |next, s| next.max(s + 1));
            unsealed.sealed_rows += rows.num_rows() as u64;
            ChangeBatch::insert(relation_rows)
        } else if options.key.is_some() {
            ChangeBatch::insert(relation_rows)
        } else {
            ChangeBatch::new(relation_rows, rows.column(self.columns.len()).as_primitive::<Int64Type>().values().to_vec())
        };
        merged.base.apply(&options.name, &changes, &mut unsealed.dirty, false);
    }

    fn memory_bytes(&self) -> usize {
        self.view.memory_bytes()
    }
}
