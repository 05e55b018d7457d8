//! What a statement gives: a tag, rows, or COPY in one of its directions; and where it leaves the
//! transaction.

use crate::copy::CopyOptions;
use crate::error::from_arrow;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidemark_common::Result;
use tidemark_plan::Relation;
use tidemark_values::moment::Zone;

/// How a command tag is completed.
#[derive(Clone, Debug)]
pub enum Tag {
    /// As it is: `SHOW`, `EXPLAIN`.
    Fixed(&'static str),
    /// Followed by the number of rows: `SELECT 3`, `INSERT 0 3`.
    Counted(&'static str),
}

impl Tag {
    /// The text for `rows` rows.
    pub fn text(&self, rows: usize) -> String {
        match self {
            Tag::Fixed(tag) => (*tag).into(),
            Tag::Counted(tag) => format!("{tag} {rows}"),
        }
    }
}

/// Rows as they come.
pub enum RowStream {
    /// They are there; none when they were taken.
    Found(Option<RecordBatch>),
    /// A query makes them.
    Made(SendableRecordBatchStream),
    /// They come as the world goes on: what has come is not held back until there is more.
    Live(SendableRecordBatchStream),
}

impl RowStream {
    /// The next rows, or none at the end, where that needs no waiting.
    pub fn at_once(&mut self) -> Option<Option<RecordBatch>> {
        match self {
            RowStream::Found(rows) => Some(rows.take()),
            RowStream::Made(_) | RowStream::Live(_) => None,
        }
    }

    /// Whether the next rows may be long in coming.
    pub fn is_live(&self) -> bool {
        matches!(self, RowStream::Live(_))
    }
}

impl Stream for RowStream {
    type Item = RowResult;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RowResult>> {
        match self.get_mut() {
            RowStream::Found(rows) => Poll::Ready(rows.take().map(Ok)),
            RowStream::Made(rows) | RowStream::Live(rows) => rows.poll_next_unpin(context),
        }
    }
}

/// Some of them, or what went wrong.
pub type RowResult = datafusion::common::Result<RecordBatch>;

/// Rows on their way to the client.
pub struct Rows {
    /// Names as the client sees them, types with their SQL names.
    pub schema: SchemaRef,
    /// Batches with these columns, in this order.
    pub stream: RowStream,
    /// How the statement ends.
    pub tag: Tag,
}

impl Rows {
    /// Rows that are there.
    pub fn found(batch: RecordBatch, tag: Tag) -> Rows {
        Rows {
            schema: batch.schema(),
            stream: RowStream::Found(Some(batch)),
            tag,
        }
    }

    /// Rows of a stream.
    pub fn streamed(
        schema: SchemaRef,
        stream: impl Stream<Item = RowResult> + Send + 'static,
        tag: Tag,
    ) -> Rows {
        Rows {
            stream: RowStream::Made(Box::pin(RecordBatchStreamAdapter::new(
                schema.clone(),
                stream,
            ))),
            schema,
            tag,
        }
    }
}

impl Rows {
    /// Rows that come as the world goes on.
    pub fn live(
        schema: SchemaRef,
        stream: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        tag: Tag,
    ) -> Rows {
        let stream = stream.map(|rows| rows.map_err(|e| DataFusionError::External(Box::new(e))));
        let stream = RecordBatchStreamAdapter::new(schema.clone(), stream);
        Rows {
            stream: RowStream::Live(Box::pin(stream)),
            schema,
            tag,
        }
    }
}

/// What a statement gives.
pub enum Outcome {
    /// A command tag.
    Command(String),
    /// Rows, then a tag.
    Rows(Rows),
    /// `COPY .. TO STDOUT`.
    CopyOut(CopyOut),
    /// `COPY .. FROM STDIN`: the client sends data next.
    CopyIn(CopyIn),
}

/// `COPY .. TO STDOUT`.
pub struct CopyOut {
    /// What to send.
    pub rows: Rows,
    /// How.
    pub options: CopyOptions,
}

/// `COPY t FROM STDIN`, checked: what the session needs to write the rows.
pub struct CopyIn {
    /// The table.
    pub relation: Arc<Relation>,
    /// The columns that each line has, by position.
    pub columns: Vec<usize>,
    /// How lines are read.
    pub options: CopyOptions,
    /// Where their moments are meant.
    pub zone: Zone,
}

/// A schema of text columns.
pub fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        names
            .iter()
            .map(|n| Field::new(*n, DataType::Utf8, true))
            .collect::<Vec<_>>(),
    ))
}

/// A result of text columns.
pub fn text_rows(
    names: &[&str],
    rows: Vec<Vec<Option<String>>>,
    tag: &'static str,
) -> Result<Outcome> {
    let columns = (0..names.len())
        .map(|i| Arc::new(rows.iter().map(|r| r[i].clone()).collect::<StringArray>()) as ArrayRef)
        .collect();
    let batch = RecordBatch::try_new(text_schema(names), columns).map_err(from_arrow)?;
    Ok(Outcome::Rows(Rows::found(batch, Tag::Fixed(tag))))
}

/// The transaction status that ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No transaction block.
    Idle,
    /// In a block.
    Open,
    /// In a block that failed.
    Failed,
}
