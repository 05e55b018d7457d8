//! A change batch: rows with signed weights.
//!
//! `weights: None` means that every row counts +1, which is what append-only inputs produce;
//! operators take a cheaper path for it. An update is two rows, -1 with the old values and +1 with
//! the new ones. The order of rows within a batch matters to nobody but `Upsert`, which reads its
//! input as a sequence of writes per key.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    UInt32Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;

/// Signed multiplicities, one per row; never zero.
pub type Weights = Arc<[i64]>;

/// Values that could not be read: row of the batch and column of the relation.
pub type Faulty = Arc<[(usize, usize)]>;

/// Rows of one relation with their weights.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    rows: RecordBatch,
    weights: Option<Weights>,
    faulty: Option<Faulty>,
}

impl ChangeBatch {
    /// Rows that all count +1.
    pub fn insert(rows: RecordBatch) -> ChangeBatch {
        ChangeBatch {
            rows,
            weights: None,
            faulty: None,
        }
    }

    /// Rows with weights; as many weights as rows. Weights that are all +1 are dropped.
    pub fn new(rows: RecordBatch, weights: Vec<i64>) -> ChangeBatch {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        if weights.iter().all(|w| *w == 1) {
            ChangeBatch::insert(rows)
        } else {
            ChangeBatch {
                rows,
                weights: Some(weights.into()),
                faulty: None,
            }
        }
    }

    /// Bytes that the rows take, and not what their buffers hold besides.
    pub fn bytes(&self) -> usize {
        let bytes = |column: &ArrayRef| {
            let data = column.to_data();
            data.get_slice_memory_size()
                .unwrap_or_else(|_| column.get_array_memory_size())
        };
        self.rows.columns().iter().map(bytes).sum()
    }

    /// The rows, with other or no weights.
    pub fn with_weights(rows: RecordBatch, weights: Option<Weights>) -> ChangeBatch {
        if let Some(w) = &weights {
            assert_eq!(rows.num_rows(), w.len(), "one weight per row");
        }
        ChangeBatch {
            rows,
            weights,
            faulty: None,
        }
    }

    /// The same rows, some of which hold NULL for a value that could not be read: who reads that
    /// column has to leave them out. Only what a source's reader hands to those who read from it
    /// says so; every operation on a batch drops it.
    pub fn with_faulty(self, faulty: Vec<(usize, usize)>) -> ChangeBatch {
        ChangeBatch {
            faulty: (!faulty.is_empty()).then(|| faulty.into()),
            ..self
        }
    }

    /// The values that could not be read, if any.
    pub fn faulty(&self) -> Option<&Faulty> {
        self.faulty.as_ref()
    }

    /// The rows without their weights.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The same, in memory of its own as far as columns are views: what was taken from a batch
    /// holds all of its bytes.
    pub fn compacted(&self) -> ChangeBatch {
        let compact = |column: &ArrayRef| match column.data_type() {
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
            DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
            _ => column.clone(),
        };
        let columns = self.rows.columns().iter().map(compact).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &count)
            .expect("the columns keep their types");
        ChangeBatch {
            rows,
            ..self.clone()
        }
    }

    /// The weights; `None` when all are +1.
    pub fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }
    /// The weight of row `i`.
    #[inline]
    pub fn weight(&self, i: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w[i])
    }
    /// The column types.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
    /// Column `i`.
    pub fn column(&self, i: usize) -> &ArrayRef {
        self.rows.column(i)
    }
    /// Number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }
    /// Rows and weights apart.
    pub fn into_parts(self) -> (RecordBatch, Option<Weights>) {
        (self.rows, self.weights)
    }

    /// The rows where `mask` is true (null counts as false).
    pub fn filter(&self, mask: &BooleanArray) -> ChangeBatch {
        let rows =
            compute::filter_record_batch(&self.rows, mask).expect("mask has one value per row");
        let weights = self.weights.as_ref().map(|w| {
            mask.iter()
                .zip(w.iter())
                .filter(|(keep, _)| *keep == Some(true))
                .map(|(_, w)| *w)
                .collect()
        });
        ChangeBatch {
            rows,
            weights,
            faulty: None,
        }
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> ChangeBatch {
        let columns = self
            .rows
            .columns()
            .iter()
            .map(|c| compute::take(c, indices, None).expect("indices are within the batch"))
            .collect();
        let count = RecordBatchOptions::new().with_row_count(Some(indices.len()));
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &count)
            .expect("the columns keep their types");
        let weights = self
            .weights
            .as_ref()
            .map(|w| indices.values().iter().map(|i| w[*i as usize]).collect());
        ChangeBatch {
            rows,
            weights,
            faulty: None,
        }
    }

    /// Rows `offset..offset + len`, without copying columns.
    pub fn slice(&self, offset: usize, len: usize) -> ChangeBatch {
        ChangeBatch {
            rows: self.rows.slice(offset, len),
            weights: self
                .weights
                .as_ref()
                .map(|w| w[offset..offset + len].into()),
            faulty: None,
        }
    }

    /// The columns at `columns`, in that order.
    pub fn project(&self, columns: &[usize]) -> ChangeBatch {
        ChangeBatch {
            rows: self
                .rows
                .project(columns)
                .expect("projection is within the schema"),
            weights: self.weights.clone(),
            faulty: None,
        }
    }

    /// All rows of `batches`, which share `schema`.
    pub fn concat(schema: &SchemaRef, batches: &[ChangeBatch]) -> ChangeBatch {
        if let [one] = batches {
            return one.clone();
        }
        let rows = compute::concat_batches(schema, batches.iter().map(|b| &b.rows))
            .expect("batches share a schema");
        let weights = batches.iter().any(|b| b.weights.is_some()).then(|| {
            batches
                .iter()
                .flat_map(|b| (0..b.num_rows()).map(|i| b.weight(i)))
                .collect()
        });
        ChangeBatch {
            rows,
            weights,
            faulty: None,
        }
    }

    /// The weights as an Arrow column.
    pub fn weight_column(&self) -> Int64Array {
        match &self.weights {
            Some(w) => Int64Array::from(w.to_vec()),
            None => Int64Array::from(vec![1; self.num_rows()]),
        }
    }
}
