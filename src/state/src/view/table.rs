//! A relation's rows as a state table: what a checkpoint of it writes, and how it comes back.
//!
//! A seal tells every key that changed since the last one: by the sum of the pending changes since
//! then, and the other dirty keys of the base as they stand. (Keys of the base are dirty only where
//! it was merged past the last seal; then all pending changes are since that seal, and a key whose
//! changes cancel stands as in the base.) Of a keyed relation the sum alone says where a key
//! stands, so that a seal costs what changed, whatever older changes are kept for readers; a
//! multiset adds the weights that base and older changes have for those rows. It needs the base for
//! reading only. It is told in pieces, between which no lock is held and nothing is merged.

use super::base::{Base, Indexed, by_sign, pick, repeated, take_rows};
use super::group::{self, Group};
use super::{Merged, ViewPartition, batch_of};
use crate::added::first_columns;
use crate::apart::Apart;
use crate::table::PIECE_ROWS;
use crate::{ABSENT, KeyIndex, StateTable, TableDelta, TableForm, TableSpec};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::{Epoch, Result};

/// The state table of a [`ViewPartition`].
#[derive(Debug)]
pub struct ViewTable {
    view: Arc<ViewPartition>,
    spec: TableSpec,
    /// Position in the relation of each of the relation's columns in the table's schema.
    columns: Vec<usize>,
}

impl ViewTable {
    /// The table of a view that is still empty. From now on the view remembers what changed, until
    /// a seal.
    pub fn new(view: Arc<ViewPartition>) -> ViewTable {
        view.unsealed.lock().tracked = true;
        ViewTable::of(view)
    }

    /// The table of a view that is not sealed by this.
    pub fn of(view: Arc<ViewPartition>) -> ViewTable {
        let options = &view.options;
        let width = options.schema.fields().len();
        let key = options.key.clone().unwrap_or_default();
        let columns: Vec<usize> = key
            .iter()
            .copied()
            .chain((0..width).filter(|c| !key.contains(c)))
            .collect();
        let plain = |c: &usize| options.schema.field(*c).clone();
        let mut fields: Vec<Field> = columns.iter().map(plain).collect();
        let (form, key_columns) = match (&options.key, options.append_only) {
            (Some(key), _) => (TableForm::Keyed, key.len()),
            (None, true) => {
                fields.insert(0, Field::new("_seq", DataType::Int64, false));
                (TableForm::Appended, 1)
            }
            (None, false) => {
                fields.push(Field::new("_weight", DataType::Int64, false));
                (TableForm::Multiset, width)
            }
        };
        let own = if options.append_only {
            Some(0)
        } else {
            Some(width)
        };
        let spec = TableSpec {
            table: options.table,
            form,
            schema: unique_names(fields, own.filter(|_| options.key.is_none())),
            key_columns,
        };
        ViewTable {
            view,
            spec,
            columns,
        }
    }

    /// The view.
    pub fn view(&self) -> &Arc<ViewPartition> {
        &self.view
    }

    /// All rows as of `epoch`, as deltas to an empty table of about `rows_max` rows each. The view
    /// is locked for reading meanwhile, so this is for one that nobody merges, or for a short time.
    /// The caller has pinned `epoch`, and knows that no epoch up to `mergeable` is needed apart.
    pub fn answer_at(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        rows_max: usize,
        mut each: impl FnMut(TableDelta) -> Result<()>,
    ) -> Result<()> {
        let options = &self.view.options;
        let every: Vec<usize> = (0..options.schema.fields().len()).collect();
        self.view.with(epoch, mergeable, |merged, pending| {
            let base = &merged.base;
            let delta = options.sum(&group::changes(pending));
            let (ids, extra) = base.rows_with(&options.name, &delta);
            let mut seq = 0;
            let mut tell = |rows: RecordBatch, weights: Vec<i64>| {
                let told = self.present(base, rows, weights, seq);
                seq += told.as_ref().map_or(0, |d| d.upserts.num_rows() as i64);
                told.map_or(Ok(()), &mut each)
            };
            // The same row of a multiset stands there as often as it is present.
            for chunk in in_chunks(&ids, rows_max) {
                let (ids, weights) = counted(chunk, base);
                let rows = batch_of(&options.schema, base.gather(&every, &ids), ids.len());
                tell(rows, weights)?;
            }
            for chunk in in_chunks(&extra, rows_max) {
                let (rows, weights) = counted(chunk, base);
                tell(take_rows(delta.rows(), rows), weights)?;
            }
            Ok(())
        })?
    }

    /// These rows are present. The first gets the number `seq` where rows are numbered.
    fn present(
        &self,
        base: &Base,
        rows: RecordBatch,
        weights: Vec<i64>,
        seq: i64,
    ) -> Option<TableDelta> {
        match base {
            Base::Indexed(indexed) => {
                let (upserts, deletes) = (vec![(rows, weights)], Vec::new());
                self.delta_of(Outcome { upserts, deletes }, indexed)
            }
            Base::AppendOnly(_) => Some(self.numbered(&rows, seq)),
        }
    }

    /// Rows of an append-only relation, numbered from `seq` on.
    fn numbered(&self, rows: &RecordBatch, seq: i64) -> TableDelta {
        let count = rows.num_rows();
        let seq: ArrayRef = Arc::new(Int64Array::from_iter_values(seq..seq + count as i64));
        let columns = std::iter::once(seq)
            .chain(self.table_columns(rows))
            .collect();
        TableDelta {
            upserts: batch_of(&self.spec.schema, columns, count),
            upsert_vnodes: vec![self.view.options.vnode_of_worker; count],
            deletes: RecordBatch::new_empty(self.key_schema()),
            delete_vnodes: Vec::new(),
        }
    }

    /// Columns of the table without `_seq` or `_weight`, from rows of the relation.
    fn table_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        pick(rows, &self.columns)
    }

    fn key_schema(&self) -> SchemaRef {
        Arc::new(
            self.spec
                .schema
                .project(&(0..self.spec.key_columns).collect::<Vec<_>>())
                .expect("key columns come first"),
        )
    }

    fn seal_append_only(&self, pending: &[ChangeBatch], each: &mut dyn FnMut(Option<TableDelta>)) {
        let options = &self.view.options;
        let every: Vec<usize> = (0..options.schema.fields().len()).collect();
        let of_base = |from: u64| {
            let merged = self.view.base.read();
            let Base::AppendOnly(store) = &merged.base else {
                return (0, None);
            };
            let all = store.len() as u64;
            let ids: Vec<u32> = (from.min(all)..all.min(from + PIECE_ROWS as u64))
                .map(|id| id as u32)
                .collect();
            let rows =
                |ids: Vec<u32>| batch_of(&options.schema, store.gather(&every, &ids), ids.len());
            (all, Some(ids).filter(|ids| !ids.is_empty()).map(rows))
        };
        let (mut from, mut tell) = (
            self.view.unsealed.lock().sealed_rows,
            |rows: &RecordBatch| {
                let seq = self.view.unsealed.lock().numbers(rows.num_rows());
                each(Some(self.numbered(rows, seq)));
            },
        );
        let merged = loop {
            match of_base(from) {
                (_, Some(rows)) => {
                    from += rows.num_rows() as u64;
                    tell(&rows);
                }
                (merged, None) => break merged,
            }
        };
        let mut skip = from.saturating_sub(merged) as usize;
        for changes in pending {
            let rows = repeated(&options.name, changes);
            let skipped = skip.min(rows.num_rows());
            skip -= skipped;
            for at in (skipped..rows.num_rows()).step_by(PIECE_ROWS) {
                tell(&rows.slice(at, PIECE_ROWS.min(rows.num_rows() - at)));
            }
        }
    }

    /// `older` pending changes are sealed, `fresh` ones are not. Both, and the dirty keys of the
    /// base, are cut into the same parts by their keys, and each part tells for itself.
    fn seal_indexed(
        &self,
        older: &[Arc<Group>],
        fresh: &[Arc<Group>],
        each: &mut dyn FnMut(Option<TableDelta>),
    ) {
        let options = &self.view.options;
        let dirty = self.view.unsealed.lock().dirty.ids.clone();
        let fresh = group::changes(fresh);
        let rows = fresh.iter().map(ChangeBatch::num_rows).sum::<usize>();
        let parts = options.parts(rows + dirty.len());
        let mut dirty_of = vec![Vec::new(); parts.count()];
        self.with_indexed(|indexed, _| {
            for id in dirty {
                dirty_of[parts.of_hash(indexed.index.hash(id))].push(id);
            }
        });
        let fresh = Apart::new(fresh, options.key_columns(), parts, &mut || each(None));
        for (part, dirty) in dirty_of.iter().enumerate() {
            let fresh = fresh.part(part);
            let told = self
                .with_indexed(|indexed, base| self.seal_part(indexed, base, older, &fresh, dirty));
            each(told.flatten());
        }
    }

    /// Runs `read` with the base, if rows are found by their keys.
    fn with_indexed<T>(&self, read: impl FnOnce(&Indexed, &Base) -> T) -> Option<T> {
        let merged = self.view.base.read();
        match &merged.base {
            Base::Indexed(indexed) => Some(read(indexed, &merged.base)),
            Base::AppendOnly(_) => None,
        }
    }

    fn seal_part(
        &self,
        indexed: &Indexed,
        base: &Base,
        older: &[Arc<Group>],
        fresh: &[ChangeBatch],
        dirty: &[u32],
    ) -> Option<TableDelta> {
        let options = &self.view.options;
        let net = options.sum(fresh);
        let mut touched = indexed.no_keys(&options.schema);
        let keys = pick(net.rows(), &indexed.key);
        let hashes = hash_columns(&keys, net.num_rows());
        touched.intern(&keys, &hashes, &mut Vec::new());
        let mut outcome = if indexed.is_multiset() {
            let mut changes = group::matching(older, &touched, &indexed.key);
            changes.push(net);
            self.outcome_of(indexed, base, &touched, &options.sum(&changes))
        } else {
            self.outcome_of_keyed(indexed, &net)
        };
        let mut told = vec![ABSENT; dirty.len()];
        if !touched.is_empty() {
            let hashes: Vec<u64> = dirty.iter().map(|id| indexed.index.hash(*id)).collect();
            touched.find(&indexed.index.gather(dirty), &hashes, &mut told);
        }
        let other = dirty
            .iter()
            .zip(&told)
            .filter(|(_, told)| **told == ABSENT)
            .map(|(id, _)| *id);
        let (come, gone): (Vec<u32>, Vec<u32>) = other.partition(|id| indexed.weight(*id) > 0);
        outcome.add_base(self, indexed, base, &come);
        outcome.deletes.push(indexed.index.gather(&gone));
        self.delta_of(outcome, indexed)
    }

    /// Where the keys of `net` stand, the sum of what changed since the last seal: a row that came
    /// is there, a key that only went is not.
    fn outcome_of_keyed(&self, indexed: &Indexed, net: &ChangeBatch) -> Outcome {
        let (gone, come) = by_sign(net);
        let rows = take_rows(net.rows(), come);
        let mut present = indexed.no_keys(&self.view.options.schema);
        let keys = pick(&rows, &indexed.key);
        let hashes = hash_columns(&keys, rows.num_rows());
        present.intern(&keys, &hashes, &mut Vec::new());
        assert!(
            present.len() == rows.num_rows(),
            "{}: two rows have one key",
            self.view.options.name
        );
        let went = super::wanted_ids(&present, &pick(net.rows(), &indexed.key), &gone);
        let only_went: Vec<u32> = gone
            .into_iter()
            .zip(went)
            .filter(|(_, place)| *place == ABSENT)
            .map(|(row, _)| row)
            .collect();
        Outcome {
            deletes: vec![pick(&take_rows(net.rows(), only_went), &indexed.key)],
            upserts: vec![(rows.clone(), vec![1; rows.num_rows()])],
        }
    }

    /// Where the rows in `touched` stand, given the sum of all pending changes to them.
    fn outcome_of(
        &self,
        indexed: &Indexed,
        base: &Base,
        touched: &KeyIndex,
        delta: &ChangeBatch,
    ) -> Outcome {
        let keys = touched.gather(&touched.live_ids().collect::<Vec<u32>>());
        let base_ids = indexed.find_keys(&keys, touched.len());
        // Without removals, the ids of `touched` count from 0, in the order of `keys`.
        let mut weights: Vec<i64> = base_ids.iter().map(|id| indexed.weight(*id)).collect();
        let mut delta_rows = vec![ABSENT; weights.len()];
        let delta_keys = pick(delta.rows(), &indexed.key);
        let mut places = Vec::new();
        touched.find(
            &delta_keys,
            &hash_columns(&delta_keys, delta.num_rows()),
            &mut places,
        );
        for (row, place) in places
            .iter()
            .enumerate()
            .filter(|(_, place)| **place != ABSENT)
        {
            weights[*place as usize] += delta.weight(row);
            if delta.weight(row) > 0 {
                delta_rows[*place as usize] = row as u32;
            }
        }
        let name = &self.view.options.name;
        assert!(
            weights.iter().all(|w| *w >= 0),
            "{name}: a row was retracted that is not there"
        );
        let (come, gone): (Vec<u32>, Vec<u32>) =
            (0..weights.len() as u32).partition(|i| weights[*i as usize] > 0);
        let mut outcome = Outcome {
            upserts: Vec::new(),
            deletes: vec![touched.gather(&gone)],
        };
        let (new, old): (Vec<u32>, Vec<u32>) = come
            .into_iter()
            .partition(|i| delta_rows[*i as usize] != ABSENT);
        let new_rows = new.iter().map(|i| delta_rows[*i as usize]).collect();
        outcome.upserts.push((
            take_rows(delta.rows(), new_rows),
            new.iter().map(|i| weights[*i as usize]).collect(),
        ));
        let old_ids: Vec<u32> = old.iter().map(|i| base_ids[*i as usize]).collect();
        outcome.add_base(self, indexed, base, &old_ids);
        if let Some((_, old_weights)) = outcome.upserts.last_mut() {
            *old_weights = old.iter().map(|i| weights[*i as usize]).collect();
        }
        outcome
    }

    /// Where rows with these keys are: those of a multiset by the columns that it began with, for
    /// that is how they come.
    fn vnodes(&self, keys: &[ArrayRef], rows: usize) -> impl Iterator<Item = u16> + use<> {
        let keys = match self.spec.form {
            TableForm::Multiset => &keys[..first_columns(&self.view.options.schema)],
            TableForm::Keyed | TableForm::Appended => keys,
        };
        let hashes = hash_columns(keys, rows).into_iter();
        hashes.map(|h| vnode_of_hash(h) as u16)
    }

    fn delta_of(&self, outcome: Outcome, indexed: &Indexed) -> Option<TableDelta> {
        let mut upserts = Vec::new();
        let mut upsert_vnodes = Vec::new();
        for (rows, weights) in outcome.upserts {
            upsert_vnodes.extend(self.vnodes(&pick(&rows, &indexed.key), rows.num_rows()));
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
            delete_vnodes.extend(self.vnodes(&keys, rows));
            deletes.push(batch_of(&key_schema, keys, rows));
        }
        if upsert_vnodes.is_empty() && delete_vnodes.is_empty() {
            return None;
        }
        let concat = |schema: &SchemaRef, parts: &[RecordBatch]| {
            arrow::compute::concat_batches(schema, parts).expect("the parts share a schema")
        };
        Some(TableDelta {
            upserts: concat(&self.spec.schema, &upserts),
            upsert_vnodes,
            deletes: concat(&key_schema, &deletes),
            delete_vnodes,
        })
    }
}

/// A seal under way. Nothing is merged until it ends, so that its pieces are of one moment; no lock
/// is held between them.
struct BeingSealed<'a>(&'a ViewPartition);

impl BeingSealed<'_> {
    fn of(view: &ViewPartition) -> BeingSealed<'_> {
        // Who merges holds the base, and then looks.
        let _merged = view.base.read();
        view.unsealed.lock().is_being_sealed = true;
        BeingSealed(view)
    }

    /// All that changed up to this epoch was told.
    fn is_done(self, up_to: Epoch) {
        let mut unsealed = self.0.unsealed.lock();
        unsealed.dirty.clear();
        unsealed.sealed = up_to;
    }
}

impl Drop for BeingSealed<'_> {
    fn drop(&mut self) {
        self.0.unsealed.lock().is_being_sealed = false;
    }
}

/// Rows now present with their weights, and keys now absent.
struct Outcome {
    upserts: Vec<(RecordBatch, Vec<i64>)>,
    deletes: Vec<Vec<ArrayRef>>,
}

impl Outcome {
    /// Rows of the base are present, as they stand.
    fn add_base(&mut self, table: &ViewTable, indexed: &Indexed, base: &Base, ids: &[u32]) {
        let schema = &table.view.options.schema;
        let every: Vec<usize> = (0..schema.fields().len()).collect();
        self.upserts.push((
            batch_of(schema, base.gather(&every, ids), ids.len()),
            ids.iter().map(|id| indexed.weight(*id)).collect(),
        ));
    }
}

/// Pieces of at most `rows_max`, longer where one number would be cut apart.
fn in_chunks(ids: &[u32], rows_max: usize) -> impl Iterator<Item = &[u32]> {
    let mut rest = ids;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(rows_max);
        while end > 0 && end < rest.len() && rest[end] == rest[end - 1] {
            end += 1;
        }
        let (chunk, later) = rest.split_at(end);
        rest = later;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Neighbours that are the same, counted; of an append-only relation each counts for itself.
fn counted(ids: &[u32], base: &Base) -> (Vec<u32>, Vec<i64>) {
    if matches!(base, Base::AppendOnly(_)) {
        return (ids.to_vec(), Vec::new());
    }
    let runs = ids.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len() as i64)).unzip()
}

/// A schema whose names differ: a name that is taken gets a number behind it. The field at `fixed`
/// keeps its name.
fn unique_names(fields: Vec<Field>, fixed: Option<usize>) -> SchemaRef {
    let mut taken: std::collections::HashSet<String> =
        fixed.iter().map(|i| fields[*i].name().clone()).collect();
    let mut unique = |(i, field): (usize, Field)| {
        if Some(i) == fixed {
            return field;
        }
        let name = std::iter::once(field.name().clone())
            .chain((1..).map(|n| format!("{}_{n}", field.name())))
            .find(|n| !taken.contains(n))
            .expect("endless");
        taken.insert(name.clone());
        field.with_name(name)
    };
    Arc::new(Schema::new(
        fields
            .into_iter()
            .enumerate()
            .map(&mut unique)
            .collect::<Vec<_>>(),
    ))
}

impl StateTable for ViewTable {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        let sealing = BeingSealed::of(&self.view);
        let (older, fresh, last) = {
            let sealed = self.view.unsealed.lock().sealed;
            let pending = self.view.pending.lock();
            let (older, fresh) = pending.split_at(sealed);
            (older, fresh, pending.last)
        };
        if self.spec.form == TableForm::Appended {
            self.seal_append_only(&group::changes(older.iter().chain(&fresh)), each);
        } else {
            self.seal_indexed(&older, &fresh, each);
        }
        sealing.is_done(last);
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
        let columns: Vec<ArrayRef> = columns
            .into_iter()
            .map(|c| c.expect("every column is in the table"))
            .collect();
        let relation_rows = batch_of(&options.schema, columns, rows.num_rows());
        if offset == 1 {
            let seq = rows.column(0).as_primitive::<Int64Type>();
            unsealed.next_seq = seq
                .values()
                .iter()
                .fold(unsealed.next_seq, |next, s| next.max(s + 1));
            unsealed.sealed_rows += rows.num_rows() as u64;
        }
        let weights = match (&options.key, offset) {
            (None, 0) => Some(rows.column(self.columns.len()).as_primitive::<Int64Type>()),
            _ => None,
        };
        let Merged {
            base, secondaries, ..
        } = &mut *merged;
        let weights = weights.map(|weights| &weights.values()[..]);
        base.load(&relation_rows, weights, secondaries);
    }

    fn keeps_newest(&self) -> bool {
        true
    }

    /// The view is others' as well: whoever shows it counts it.
    fn memory_bytes(&self) -> usize {
        0
    }
}
