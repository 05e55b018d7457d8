//! Plans over large values, and plans that are told to end.

use super::super::{BATCH_BYTES, Bounds, STEP_BYTES, watched};
use super::*;
use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::joins::CrossJoinExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::scalar::ScalarValue;

/// So many rows, of their numbers and this text.
fn rows(count: i64, text: &str) -> Arc<dyn ExecutionPlan> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, false),
    ]));
    let numbers = Int64Array::from_iter_values(0..count);
    let texts = StringArray::from_iter_values((0..count).map(|_| text));
    let columns = vec![Arc::new(numbers) as _, Arc::new(texts) as _];
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap()
}

/// `n, repeat(s, times)`.
fn repeated(input: Arc<dyn ExecutionPlan>, times: i64) -> Arc<dyn ExecutionPlan> {
    let times = Arc::new(Literal::new(ScalarValue::Int64(Some(times))));
    let repeat = tidemark_operator::functions::lookup("repeat").unwrap();
    let args: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("s", 1)), times];
    let options = Arc::new(ConfigOptions::new());
    let call = ScalarFunctionExpr::try_new(repeat, args, &input.schema(), options).unwrap();
    let values = [
        ProjectionExpr::new(Arc::new(Column::new("n", 0)), "n"),
        ProjectionExpr::new(Arc::new(call), "r"),
    ];
    Arc::new(ProjectionExec::try_new(values, input).unwrap())
}

fn bounds() -> Bounds {
    Bounds {
        stop: Arc::default(),
        first_step: STEP_BYTES,
        step: STEP_BYTES,
    }
}

async fn batches(plan: Arc<dyn ExecutionPlan>) -> Vec<RecordBatch> {
    let plan = watched(plan, &bounds()).unwrap();
    let stream = execute_stream(plan, Arc::default()).unwrap();
    stream.map(Result::unwrap).collect().await
}

#[tokio::test]
async fn a_projection_takes_as_many_rows_as_fit() {
    let found = batches(repeated(rows(100, "ab"), 50_000)).await;
    assert!(found.len() > 3, "{} batches", found.len());
    let mut next = 0;
    for batch in found {
        assert!(rows_bytes(&batch) <= STEP_BYTES + (1 << 17));
        for row in 0..batch.num_rows() {
            let n = batch.column(0).as_any().downcast_ref::<Int64Array>();
            assert_eq!(n.unwrap().value(row), next);
            assert_eq!(
                batch.column(1).as_string::<i32>().value_length(row),
                100_000
            );
            next += 1;
        }
    }
    assert_eq!(next, 100);
    let one = batches(repeated(rows(1, "ab"), 5_000_000)).await;
    assert_eq!(
        one[0].column(1).as_string::<i32>().value_length(0),
        10_000_000
    );
}

#[tokio::test]
async fn few_rows_come_to_stand_beside_a_wide_one() {
    let (wide, many) = (rows(1, &"x".repeat(4 << 20)), rows(1000, "y"));
    let found = batches(Arc::new(CrossJoinExec::new(wide, many))).await;
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
    let largest = found.iter().map(rows_bytes).max();
    assert!(largest.is_some_and(|l| l <= BATCH_BYTES + (1 << 20)));
}

#[tokio::test]
async fn a_plan_that_is_told_to_end_does() {
    let bounds = bounds();
    let plan = watched(repeated(rows(100, "ab"), 50_000), &bounds).unwrap();
    let mut stream = execute_stream(plan, Arc::default()).unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    bounds.stop.store(true, Ordering::Relaxed);
    let e = crate::error::from_datafusion(stream.next().await.unwrap().unwrap_err());
    assert_eq!(e.state(), SqlState::QUERY_CANCELED);
}
