//! Results that a statement needs whole before it goes on: the rows of a write. They are held in
//! memory outside of the queries' pool, so they are counted while they come, and end where a
//! transaction's writes end: what is more than that could not be committed anyway.

use crate::error::from_datafusion;
use crate::outcome::RowResult;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use futures::{Stream, TryStreamExt};
use tidemark_common::Result;
use tidemark_node::check_write_bytes;

/// The size of a batch's rows, in bytes: nearly what the log counts; more than nothing also where
/// there are no columns.
pub fn rows_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter().map(|c| array_bytes(c.as_ref()));
    columns.sum::<usize>() + batch.num_rows() * size_of::<i64>()
}

/// The size of what an array shows of its buffers: a result's batches are often slices of one.
fn array_bytes(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let offsets = lists.value_offsets();
            let (Some(from), Some(to)) = (offsets.first(), offsets.last()) else {
                return 0;
            };
            let shown = lists.values().slice(*from as usize, (to - from) as usize);
            array_bytes(shown.as_ref()) + size_of_val(offsets)
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter();
            fields.map(|f| array_bytes(f.as_ref())).sum()
        }
        DataType::Utf8View => views_bytes(array.as_string_view().views()),
        DataType::BinaryView => views_bytes(array.as_binary_view().views()),
        _ => {
            let slice = array.to_data().get_slice_memory_size();
            slice.unwrap_or_else(|_| array.get_array_memory_size())
        }
    }
}

/// A view begins with its length.
fn views_bytes(views: &[u128]) -> usize {
    let texts: usize = views.iter().map(|v| *v as u32 as usize).sum();
    texts + size_of_val(views)
}

/// Collects the rows of a write; `54000` as soon as they are more than one transaction may write.
pub async fn collect_bounded(
    mut rows: impl Stream<Item = RowResult> + Unpin,
) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await.map_err(from_datafusion)? {
        bytes += rows_bytes(&batch);
        check_write_bytes(bytes)?;
        batches.push(batch);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use datafusion::physical_plan::SendableRecordBatchStream;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A stream of the same megabyte, for ever; and how often it was asked.
    fn endless() -> (SendableRecordBatchStream, Arc<AtomicUsize>) {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let rows = Arc::new(Int64Array::from(vec![7; 1 << 17]));
        let batch = RecordBatch::try_new(schema.clone(), vec![rows]).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let batches = futures::stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(batch.clone())
        });
        (
            Box::pin(RecordBatchStreamAdapter::new(schema, batches)),
            asked,
        )
    }

    #[tokio::test]
    async fn a_result_without_end_is_given_up_at_the_limit() {
        let (stream, asked) = endless();
        let error = collect_bounded(stream).await.unwrap_err();
        assert_eq!(error.state(), tidemark_common::SqlState("54000"));
        // A megabyte of values, another of weights.
        assert_eq!(asked.load(Ordering::Relaxed), 513);
    }

    #[test]
    fn a_slice_counts_its_own_rows() {
        let texts: StringArray = (0..1000).map(|_| Some("x".repeat(100))).collect();
        let lists = (0..1000).map(|_| Some(vec![Some(1); 100]));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        let views = arrow::compute::cast(&texts, &DataType::Utf8View).unwrap();
        for (array, least) in [
            (Arc::new(texts) as ArrayRef, 100_000),
            (Arc::new(lists), 800_000),
            (views, 100_000),
        ] {
            let field = Field::new("a", array.data_type().clone(), true);
            let schema = Arc::new(Schema::new(vec![field]));
            let batch = RecordBatch::try_new(schema, vec![array]).unwrap();
            let all = rows_bytes(&batch);
            assert!(all >= least, "{all}");
            let tenth = rows_bytes(&batch.slice(500, 100));
            assert!((all / 11..all / 9).contains(&tenth), "{tenth} of {all}");
        }
    }
}
