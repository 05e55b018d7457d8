//! A view whose relation gets columns.
//!
//! **Law.** At every epoch that can be read, the wider view has the rows of the narrow one, each
//! with the values for rows that are older than the columns ([`crate::added`]); its next seal tells
//! what the narrow one's would have told. The narrow one stays as it is, for those who read it.
//!
//! Rows that are kept by their key or by nothing take their places as they were; those of a
//! multiset are found by all of their columns and get new ones. It costs what the rows cost when
//! they came.

use super::base::{Base, Dirty, Indexed};
use super::{Merged, Unsealed, ViewOptions, ViewPartition, batch_of};
use crate::added::{widened_columns, widened_rows};
use arrow::datatypes::SchemaRef;
use std::sync::atomic::Ordering;
use tidemark_common::Epoch;

/// Rows that are copied at a time.
const COPIED_ROWS: usize = 8192;

impl ViewPartition {
    /// See the module. `schema` has the columns of this view, and behind them those that are new.
    pub fn widened(&self, schema: &SchemaRef) -> ViewPartition {
        let options = ViewOptions {
            schema: schema.clone(),
            ..self.options.clone()
        };
        let wide = ViewPartition::new(options);
        let apart_from = self.apart_from.load(Ordering::Acquire);
        wide.apart_from.store(apart_from, Ordering::Release);
        wide.begins_at(Epoch(self.began.load(Ordering::Acquire)));
        let merged = self.base.read();
        let pending = self.pending.lock();
        let unsealed = self.unsealed.lock();
        *wide.base.write() = Merged {
            base: self.widened_base(&merged.base, schema),
            epoch: merged.epoch,
            moves: merged.moves,
            secondaries: Vec::new(),
        };
        *wide.pending.lock() = pending.widened(schema);
        let mut dirty = Dirty::default();
        if let (Base::Indexed(narrow), Base::Indexed(wide)) =
            (&merged.base, &mut wide.base.write().base)
        {
            mark(narrow, &unsealed.dirty.ids, wide, schema, &mut dirty);
        }
        *wide.unsealed.lock() = Unsealed {
            tracked: unsealed.tracked,
            dirty,
            sealed: unsealed.sealed,
            is_being_sealed: false,
            sealed_rows: unsealed.sealed_rows,
            next_seq: unsealed.next_seq,
        };
        wide
    }

    fn widened_base(&self, narrow: &Base, schema: &SchemaRef) -> Base {
        let options = &self.options;
        let every: Vec<usize> = (0..options.schema.fields().len()).collect();
        let mut wide = Base::new(schema, options.key.as_deref(), options.append_only);
        for ids in narrow.ids().chunks(COPIED_ROWS) {
            let rows = batch_of(&options.schema, narrow.gather(&every, ids), ids.len());
            let weights: Option<Vec<i64>> = match narrow {
                Base::Indexed(indexed) => Some(ids.iter().map(|id| indexed.weight(*id)).collect()),
                Base::AppendOnly(_) => None,
            };
            wide.load(&widened_rows(&rows, schema), weights.as_deref(), &mut []);
        }
        wide
    }
}

/// What changed since the last seal changed here, too: rows that are there, and keys without one.
fn mark(narrow: &Indexed, ids: &[u32], wide: &mut Indexed, schema: &SchemaRef, dirty: &mut Dirty) {
    for ids in ids.chunks(COPIED_ROWS) {
        let keys = narrow.index.gather(ids);
        let keys = match narrow.is_multiset() {
            true => widened_columns(keys, ids.len(), schema),
            false => keys,
        };
        let added = wide.intern_keys(&keys, ids.len());
        added.into_iter().for_each(|id| dirty.mark(id));
    }
}

#[cfg(test)]
mod tests {
    //! A view that is widened in the middle of a random history, against one that was as wide from
    //! its beginning and got the same rows: both are read, sealed, merged and restored alike.

    use super::*;
    use crate::added::{encode, widened};
    use crate::testing::{Random, column, row_texts, texts};
    use crate::{StateTable, TableDelta, ViewTable};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tidemark_changelog::ChangeBatch;
    use tidemark_common::Epoch;
    use tidemark_plan::MISSING;

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Shape {
        Keyed,
        Multiset,
        AppendOnly,
    }

    const SHAPES: [Shape; 3] = [Shape::Keyed, Shape::Multiset, Shape::AppendOnly];

    fn narrow_schema() -> SchemaRef {
        let fields = [("v", DataType::Float64), ("k", DataType::Int64)];
        let fields = fields.map(|(name, t)| Field::new(name, t, true));
        Arc::new(Schema::new(fields.to_vec()))
    }

    fn wide_schema(value: Option<i64>) -> SchemaRef {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let metadata = [(MISSING.to_string(), encode(&value).unwrap())];
        let added = Field::new("v", DataType::Int64, true).with_metadata(metadata.into());
        let fields = narrow_schema().fields().iter().cloned().collect::<Vec<_>>();
        let fields = fields.into_iter().chain([Arc::new(added)]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn table(shape: Shape, schema: SchemaRef) -> ViewTable {
        ViewTable::new(Arc::new(ViewPartition::new(ViewOptions {
            name: "r".into(),
            schema,
            key: (shape == Shape::Keyed).then(|| vec![1]),
            append_only: shape == Shape::AppendOnly,
            table: 4,
            vnode_of_worker: 9,
            partitioned_by_key: shape != Shape::AppendOnly,
        })))
    }

    /// What a checkpoint holds, by vnode and key.
    #[derive(Default)]
    struct Durable(BTreeMap<(u16, String), RecordBatch>);

    impl Durable {
        /// Adds what a seal told, with all columns of the table as it is now.
        fn add(&mut self, delta: Option<TableDelta>, shape: Shape, schema: &SchemaRef) {
            let Some(delta) = delta else {
                return;
            };
            let width = schema.fields().len();
            let keys = |rows: &RecordBatch| {
                let columns = match shape {
                    Shape::Keyed | Shape::AppendOnly => rows.columns()[..1].to_vec(),
                    Shape::Multiset => {
                        let there = rows.num_columns().min(width);
                        let there = if rows.num_columns() == 3 && width == 3 {
                            // Two columns and a weight, or all three.
                            match rows.schema().field(2).name().as_str() {
                                "_weight" => 2,
                                _ => 3,
                            }
                        } else {
                            there
                        };
                        let columns = rows.columns()[..there].to_vec();
                        widened_columns(columns, rows.num_rows(), schema)
                    }
                };
                row_texts(&columns, rows.num_rows())
            };
            for (vnode, key) in delta.delete_vnodes.iter().zip(keys(&delta.deletes)) {
                self.0.remove(&(*vnode, key));
            }
            let upserts = keys(&delta.upserts).into_iter().enumerate();
            for ((row, key), vnode) in upserts.zip(&delta.upsert_vnodes) {
                self.0.insert((*vnode, key), delta.upserts.slice(row, 1));
            }
        }

        /// What is there, as text, with values for what rows lack.
        fn texts(&self, shape: Shape, schema: &SchemaRef) -> BTreeMap<(u16, String), String> {
            let text =
                |row: &RecordBatch| row_texts(filled(row, shape, schema).columns(), 1).remove(0);
            self.0.iter().map(|(k, r)| (k.clone(), text(r))).collect()
        }
    }

    /// A row of a checkpoint with all columns of the table's durable form.
    fn filled(row: &RecordBatch, shape: Shape, schema: &SchemaRef) -> RecordBatch {
        let spec = table(shape, schema.clone()).spec();
        if row.num_columns() == spec.schema.fields().len() {
            return RecordBatch::try_new(spec.schema, row.columns().to_vec()).unwrap();
        }
        let value = crate::added::missing(schema.field(2)).unwrap();
        let mut columns = row.columns().to_vec();
        let at = match shape {
            Shape::Multiset => columns.len() - 1,
            Shape::Keyed | Shape::AppendOnly => columns.len(),
        };
        columns.insert(at, value);
        RecordBatch::try_new(spec.schema, columns).unwrap()
    }

    fn bag(rows: &[RecordBatch]) -> Vec<String> {
        let rows = rows
            .iter()
            .flat_map(|b| row_texts(b.columns(), b.num_rows()));
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
    }

    struct Pair {
        shape: Shape,
        /// Was narrow, and its rows until it is widened.
        grown: ViewTable,
        is_wide: bool,
        /// Was wide from the beginning.
        twin: ViewTable,
        wide: SchemaRef,
        durable: [Durable; 2],
        present: Vec<RecordBatch>,
        last: Epoch,
        readable: Vec<Epoch>,
    }

    impl Pair {
        fn epoch(&mut self, rng: &mut Random) {
            self.last = self.last.next();
            let mut changes: Vec<(RecordBatch, i64)> = Vec::new();
            let schema = match self.is_wide {
                true => self.wide.clone(),
                false => narrow_schema(),
            };
            for _ in 0..rng.below(9) {
                if self.shape != Shape::AppendOnly && !self.present.is_empty() && rng.below(3) == 0
                {
                    let row = self.present.swap_remove(rng.below(self.present.len()));
                    changes.push((row, -1));
                    continue;
                }
                let fields = schema.fields().iter();
                let columns = fields.map(|f| column(rng, f.data_type(), 1, 5, true));
                let row = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
                let key = |row: &RecordBatch| texts(&row.columns()[1..2], 1).remove(0);
                let same = |r: &RecordBatch| key(r) == key(&row);
                if self.shape == Shape::Keyed
                    && let Some(at) = self.present.iter().position(same)
                {
                    changes.push((self.present.swap_remove(at), -1));
                }
                self.present.push(row.clone());
                changes.push((row, 1));
            }
            let batches = changes.chunks(3).map(|part| {
                let rows = part.iter().map(|(row, _)| row);
                let rows = arrow::compute::concat_batches(&schema, rows).unwrap();
                ChangeBatch::new(rows, part.iter().map(|(_, w)| *w).collect())
            });
            let batches: Vec<ChangeBatch> = batches.collect();
            let wide = batches.iter().cloned().map(|b| widened(b, &self.wide));
            self.twin.view().append(self.last, wide.collect());
            self.grown.view().append(self.last, batches);
            self.readable.push(self.last);
        }

        fn widen(&mut self) {
            let view = Arc::new(self.grown.view().widened(&self.wide));
            self.grown = ViewTable::new(view);
            self.is_wide = true;
            for row in &mut self.present {
                *row = widened_rows(row, &self.wide);
            }
        }

        fn seal(&mut self) {
            let shape = self.shape;
            self.durable[0].add(self.grown.seal(), shape, &self.wide);
            self.durable[1].add(self.twin.seal(), shape, &self.wide);
            let texts = |durable: &Durable| durable.texts(shape, &self.wide);
            assert_eq!(texts(&self.durable[0]), texts(&self.durable[1]));
        }

        fn check(&mut self, rng: &mut Random) {
            let epoch = self.readable[rng.below(self.readable.len())];
            let first = self.readable[0];
            let columns: &[usize] = if self.is_wide { &[0, 1, 2] } else { &[0, 1] };
            let read = |table: &ViewTable| {
                let rows = table.view().read_at(epoch, first, columns, 3).unwrap();
                (bag(&rows), table.view().row_count(epoch, first).unwrap())
            };
            assert_eq!(read(&self.grown), read(&self.twin));
        }

        /// What was sealed, also before the table was widened, comes back.
        fn restored(&self) {
            let mut table = table(self.shape, self.wide.clone());
            for row in self.durable[0].0.values() {
                table.restore(&filled(row, self.shape, &self.wide));
            }
            let rows = table.view().read_at(Epoch(0), Epoch(0), &[0, 1, 2], 3);
            let now = self.present.iter().map(|r| widened_rows(r, &self.wide));
            assert_eq!(bag(&rows.unwrap()), bag(&now.collect::<Vec<_>>()));
        }
    }

    fn run(shape: Shape, seed: u64) {
        let mut rng = Random(seed);
        let wide = wide_schema((seed % 3 > 0).then_some(2));
        let mut pair = Pair {
            shape,
            grown: table(shape, narrow_schema()),
            is_wide: false,
            twin: table(shape, wide.clone()),
            wide,
            durable: Default::default(),
            present: Vec::new(),
            last: Epoch(0),
            readable: vec![Epoch(0)],
        };
        let widens_at = rng.below(40);
        for step in 0..50 {
            if step == widens_at {
                pair.widen();
            }
            match rng.below(6) {
                0..3 => pair.epoch(&mut rng),
                3 => {
                    let to = pair.readable[rng.below(pair.readable.len())];
                    for table in [&pair.grown, &pair.twin] {
                        assert!(table.view().merge(to));
                    }
                    pair.readable.retain(|e| *e >= to);
                }
                4 => pair.seal(),
                _ => {}
            }
            pair.check(&mut rng);
        }
        pair.seal();
        pair.restored();
    }

    #[test]
    fn a_widened_view_is_as_one_that_was_wide() {
        for seed in 0..150 {
            SHAPES.into_iter().for_each(|shape| run(shape, seed));
        }
    }
}
