//! Rows that people read of other nodes' workers.
//!
//! A host numbers what its workers show ([`Shown`]); the node that leads reads it by that number
//! ([`FarShare`]), at an epoch that it has pinned. Questions go over links of their own, one at a
//! time each, which are kept for the next one.
//!
//! A question is the length of its JSON (u32, little-endian), the JSON, and values to look for. An
//! answer is frames: rows, as often as it takes, and the end, or an error.

use super::frames::encode_forget;
use super::{Site, Wants, gone, json, unreadable};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::network::{Link, LinkSender};
use tidemark_common::{Epoch, Error, RelationId, Result, WorkerId, machine};
use tidemark_control::Readers;
use tidemark_operator::expr::Predicate;
use tidemark_plan::{Expr, Relation};
use tidemark_state::ViewPartition;
use tidemark_state::checkpoint::FileMeta;
use tidemark_worker::{FarRows, Pieces, ReadAs, Shows, Storing, store_share};
use tokio::sync::{mpsc, watch};

/// Rows of a piece at most.
const BATCH_ROWS: usize = 8192;
/// Pieces of which no row is sent, before an empty one is.
const UNSENT_MAX: usize = 64;
/// Links that are kept for the next question.
const IDLE_MAX: usize = 8;

const ROWS: u8 = 0;
const END: u8 = 1;
const FAILED: u8 = 2;

/// What is asked of a share.
#[derive(Serialize, Deserialize)]
struct Question {
    share: u64,
    epoch: Epoch,
    mergeable: Epoch,
    wants: Wanted,
}

#[derive(Serialize, Deserialize)]
enum Wanted {
    /// All rows, or those for which the filter, over these columns, is true or fails.
    Scan {
        columns: Vec<usize>,
        filter: Option<Expr>,
    },
    /// Those with the values that follow, in these columns or the key.
    LookUp {
        by: Option<Vec<usize>>,
        columns: Vec<usize>,
    },
    /// That they are stored.
    Store {
        relation: Box<Relation>,
        named: Epoch,
    },
    /// What changed after an epoch: all columns, and behind them the weight.
    Changes { since: Epoch },
}

/// What workers of a host show.
pub(super) struct Shown {
    pub generation: u64,
    pub storing: Storing,
    pub readers: Arc<Readers>,
    shares: Mutex<Shares>,
    ended: watch::Sender<bool>,
    /// Tells the node that leads.
    tell: Box<dyn Fn(Change) + Send + Sync>,
}

/// What becomes of what a worker shows.
pub(super) enum Change {
    Shown {
        relation: RelationId,
        worker: WorkerId,
        share: u64,
    },
    Withdrawn(RelationId),
}

#[derive(Default)]
struct Shares {
    last: u64,
    kept: HashMap<u64, (WorkerId, Arc<ViewPartition>)>,
}

impl Shown {
    pub fn new(
        generation: u64,
        storing: Storing,
        readers: Arc<Readers>,
        tell: impl Fn(Change) + Send + Sync + 'static,
    ) -> Shown {
        Shown {
            generation,
            storing,
            readers,
            shares: Mutex::default(),
            ended: watch::Sender::new(false),
            tell: Box::new(tell),
        }
    }

    /// Nobody reads anything any more, whoever still asks.
    pub fn end(&self) {
        self.ended.send_replace(true);
        let kept = std::mem::take(&mut self.shares.lock().kept);
        drop(kept);
    }

    /// Nobody reads it any more.
    pub fn forget_share(&self, share: u64) {
        let forgotten = self.shares.lock().kept.remove(&share);
        drop(forgotten);
    }

    fn share(&self, share: u64) -> Result<(WorkerId, Arc<ViewPartition>)> {
        let kept = self.shares.lock().kept.get(&share).cloned();
        kept.ok_or_else(|| Error::internal("rows are read that nobody shows any more"))
    }
}

impl Shows for Shown {
    fn show(&self, relation: RelationId, worker: WorkerId, view: Arc<ViewPartition>) {
        let share = {
            let mut shares = self.shares.lock();
            shares.last += 1;
            let share = shares.last;
            shares.kept.insert(share, (worker, view));
            share
        };
        (self.tell)(Change::Shown {
            relation,
            worker,
            share,
        });
    }

    fn withdraw(&self, relation: RelationId) {
        (self.tell)(Change::Withdrawn(relation));
    }

    /// The node that leads hears of it as all workers do.
    fn forget(&self, _: RelationId) {}

    fn is_stopped(&self, _: RelationId) -> bool {
        false
    }
}

/// Answers one question after the other.
pub(super) async fn serve(mut link: Link, shown: &Shown) -> Result<()> {
    let mut ended = shown.ended.subscribe();
    loop {
        let question = tokio::select! {
            question = link.receiver.receive() => question?,
            _ = ended.wait_for(|ended| *ended) => None,
        };
        let Some(question) = question else {
            return Ok(());
        };
        let answered = answer(&question, shown, link.sender.as_mut()).await;
        let end = match answered {
            Ok(end) => end,
            Err(error) => {
                let mut bytes = vec![FAILED];
                bytes.extend(json(&error)?);
                bytes.into()
            }
        };
        link.sender.send(end).await?;
    }
}

async fn answer(question: &[u8], shown: &Shown, to: &mut dyn LinkSender) -> Result<Bytes> {
    let mut rest = question;
    let length = rest.try_get_u32_le().map_err(unreadable)? as usize;
    let cut_off = || unreadable("a question is cut off");
    let (header, values) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    let question: Question = serde_json::from_slice(header).map_err(unreadable)?;
    let (worker, view) = shown.share(question.share)?;
    let epoch = question.epoch;
    // A job that begins here may need an older one than anybody who reads.
    let pinned = shown.readers.pinned().first().copied();
    let mergeable = pinned.map_or(question.mergeable, |pin| pin.min(question.mergeable));
    let mut end = vec![END];
    match question.wants {
        Wanted::Scan { columns, filter } => {
            let begin = move || {
                let schema = view.schema().project(&columns).map_err(unreadable)?;
                let schema = Arc::new(schema);
                let filter = filter.map(|filter| Predicate::new(&filter, &schema));
                let reading = view.reading(epoch, mergeable, &columns, BATCH_ROWS)?;
                Ok::<_, Error>((reading, filter.transpose()?))
            };
            let (mut reading, filter) = machine::blocking(begin).await??;
            let filter = Arc::new(filter);
            let mut unsent = 0;
            loop {
                let filter = filter.clone();
                let next = move || {
                    let piece = reading.next_piece()?;
                    let piece = piece.map(|piece| selected(piece, filter.as_ref().as_ref()));
                    Ok::<_, Error>((reading, piece.transpose()?))
                };
                let (rest, piece) = machine::blocking(next).await??;
                let Some(piece) = piece else {
                    break;
                };
                // Whoever waits long for rows may have gone: an empty piece finds that out.
                unsent += 1;
                if piece.num_rows() > 0 || unsent == UNSENT_MAX {
                    to.send(encode_rows(&piece)?).await?;
                    unsent = 0;
                }
                if *shown.ended.borrow() {
                    return Err(gone("has ended"));
                }
                reading = rest;
            }
        }
        Wanted::LookUp { by, columns } => {
            let values = decode_rows(values)?.columns().to_vec();
            // The first one by an index makes it, which takes as long as a scan.
            let look_up = move || {
                let schema = view.schema().project(&columns).map_err(unreadable)?;
                let schema = Arc::new(schema);
                let columns = (columns.as_slice(), &schema);
                match by {
                    None => view.lookup(epoch, mergeable, &values, columns),
                    Some(by) => view.lookup_by(epoch, mergeable, (&by, &values), columns),
                }
            };
            let found = machine::blocking(look_up).await??;
            for at in (0..found.num_rows().max(1)).step_by(BATCH_ROWS) {
                let rows = found.slice(at, BATCH_ROWS.min(found.num_rows() - at));
                to.send(encode_rows(&rows)?).await?;
            }
        }
        Wanted::Changes { since } => {
            let read = move || view.changes_since(since, epoch);
            let changes = machine::blocking(read).await??;
            for at in (0..changes.num_rows()).step_by(BATCH_ROWS) {
                let rows = BATCH_ROWS.min(changes.num_rows() - at);
                let weights = (at..at + rows).map(|row| changes.weight(row));
                let weights: ArrayRef = Arc::new(weights.collect::<Int64Array>());
                let piece = changes.rows().slice(at, rows);
                to.send(encode_rows(&with_weights(&piece, weights)?)?)
                    .await?;
            }
        }
        Wanted::Store { relation, named } => {
            let (storing, at) = (shown.storing.clone(), ReadAs { epoch, mergeable });
            let stored = machine::blocking(move || {
                store_share(&storing, &relation, worker, view, at, named)
            });
            end.extend(json(&stored.await??)?);
        }
    }
    Ok(end.into())
}

/// The rows for which the filter is true, or fails: whoever asks finds out how.
fn selected(rows: RecordBatch, filter: Option<&Predicate>) -> Result<RecordBatch> {
    let Some(filter) = filter else {
        return Ok(rows);
    };
    let (mask, failures) = filter.evaluate(&rows)?;
    let mask = match failures.is_empty() {
        true => mask,
        false => {
            let mut passes: Vec<bool> = mask.values().iter().collect();
            failures
                .iter()
                .for_each(|failure| passes[failure.row] = true);
            BooleanArray::from(passes)
        }
    };
    filter_record_batch(&rows, &mask).map_err(unreadable)
}

/// Rows with their weights behind their columns.
fn with_weights(rows: &RecordBatch, weights: ArrayRef) -> Result<RecordBatch> {
    let fields = rows.schema().fields().iter().cloned().collect::<Vec<_>>();
    let weight = Arc::new(Field::new("_weight", DataType::Int64, false));
    let fields: Vec<_> = fields.into_iter().chain([weight]).collect();
    let columns = rows.columns().iter().cloned().chain([weights]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unreadable)
}

/// The inverse.
fn weighted(piece: &RecordBatch) -> Result<ChangeBatch> {
    let columns = piece.num_columns();
    let weights = columns.checked_sub(1).map(|last| piece.column(last));
    let weights = weights.and_then(|w| w.as_primitive_opt::<Int64Type>());
    let weights = weights.ok_or_else(|| unreadable("changes without weights"))?;
    let rows: Vec<usize> = (0..columns - 1).collect();
    let rows = piece.project(&rows).map_err(unreadable)?;
    Ok(ChangeBatch::new(rows, weights.values().to_vec()))
}

/// The kind, the number of rows, and the rows as an Arrow IPC stream.
fn encode_rows(rows: &RecordBatch) -> Result<Bytes> {
    let failed = |e| Error::internal(format!("rows cannot be encoded: {e}"));
    let mut bytes = vec![ROWS];
    bytes.put_u32_le(rows.num_rows() as u32);
    let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    writer.finish().map_err(failed)?;
    drop(writer);
    Ok(bytes.into())
}

/// The inverse, behind the kind.
fn decode_rows(mut bytes: &[u8]) -> Result<RecordBatch> {
    let rows = bytes.try_get_u32_le().map_err(unreadable)? as usize;
    let mut reader = StreamReader::try_new(bytes, None).map_err(unreadable)?;
    let batch = reader.next().ok_or_else(|| unreadable("no rows"))?;
    let batch = batch.map_err(unreadable)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(batch.schema(), batch.columns().to_vec(), &options)
        .map_err(unreadable)
}

/// The way to the rows of one host.
pub(super) struct RowsOf {
    pub site: Arc<Site>,
    pub rpc: String,
    pub generation: u64,
    pub orders: mpsc::UnboundedSender<Bytes>,
    idle: Mutex<Vec<Link>>,
}

impl RowsOf {
    pub fn new(
        site: Arc<Site>,
        rpc: String,
        generation: u64,
        orders: mpsc::UnboundedSender<Bytes>,
    ) -> RowsOf {
        RowsOf {
            site,
            rpc,
            generation,
            orders,
            idle: Mutex::default(),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        kept: &Arc<Kept>,
        question: &Question,
        values: &[ArrayRef],
    ) -> Result<Answering> {
        let header = json(question)?;
        let mut bytes = Vec::new();
        bytes.put_u32_le(header.len() as u32);
        bytes.extend_from_slice(&header);
        if let Some(first) = values.first() {
            let fields = values.iter().enumerate();
            let fields: Vec<Field> = fields
                .map(|(at, v)| Field::new(at.to_string(), v.data_type().clone(), true))
                .collect();
            let options = RecordBatchOptions::new().with_row_count(Some(first.len()));
            let schema = Arc::new(Schema::new(fields));
            let values = RecordBatch::try_new_with_options(schema, values.to_vec(), &options);
            let values = values.map_err(|e| Error::internal(e.to_string()))?;
            bytes.extend_from_slice(&encode_rows(&values)?[1..]);
        }
        let bytes = Bytes::from(bytes);
        let idle = self.idle.lock().pop();
        let link = match idle {
            // It may have broken meanwhile.
            Some(mut link) => link.sender.send(bytes.clone()).await.ok().map(|()| link),
            None => None,
        };
        let link = match link {
            Some(link) => link,
            None => {
                let generation = self.generation;
                let mut link = self
                    .site
                    .connect(&self.rpc, &Wants::Rows { generation })
                    .await?;
                link.sender.send(bytes).await?;
                link
            }
        };
        Ok(Answering {
            _kept: kept.clone(),
            rows: self.clone(),
            link: Some(link),
            end: Bytes::new(),
        })
    }
}

/// An answer that comes.
struct Answering {
    /// What is read stays until then.
    _kept: Arc<Kept>,
    rows: Arc<RowsOf>,
    /// Until the end.
    link: Option<Link>,
    /// What the end says.
    end: Bytes,
}

#[async_trait]
impl Pieces for Answering {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(link) = &mut self.link else {
            return Ok(None);
        };
        let frame = link.receiver.receive().await?;
        let frame = frame.ok_or_else(|| gone("that has a part of the rows has gone"))?;
        match frame.split_first() {
            Some((&ROWS, rows)) => return decode_rows(rows).map(Some),
            Some((&END, _)) => self.end = frame.slice(1..),
            Some((&FAILED, error)) => {
                let error: Error = serde_json::from_slice(error).map_err(unreadable)?;
                self.keep_link();
                return Err(error);
            }
            _ => return Err(unreadable("an answer of an unknown kind")),
        }
        self.keep_link();
        Ok(None)
    }
}

impl Answering {
    fn keep_link(&mut self) {
        let mut idle = self.rows.idle.lock();
        idle.extend(self.link.take());
        idle.truncate(IDLE_MAX);
    }
}

/// What a worker of a host shows of a relation. The host keeps it as long as this is there.
pub(super) struct FarShare(Arc<Kept>);

/// A share that a host keeps.
struct Kept {
    rows: Arc<RowsOf>,
    share: u64,
}

impl FarShare {
    pub fn new(rows: Arc<RowsOf>, share: u64) -> FarShare {
        FarShare(Arc::new(Kept { rows, share }))
    }

    fn question(&self, at: ReadAs, wants: Wanted) -> Question {
        Question {
            share: self.0.share,
            epoch: at.epoch,
            mergeable: at.mergeable,
            wants,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A host that is gone keeps nothing.
        let _ = self.rows.orders.send(encode_forget(self.share));
    }
}

#[async_trait]
impl FarRows for FarShare {
    async fn scan(
        &self,
        at: ReadAs,
        columns: &[usize],
        filter: Option<&Expr>,
    ) -> Result<Box<dyn Pieces>> {
        let (columns, filter) = (columns.to_vec(), filter.cloned());
        let question = self.question(at, Wanted::Scan { columns, filter });
        Ok(Box::new(self.0.rows.ask(&self.0, &question, &[]).await?))
    }

    async fn look_up(
        &self,
        at: ReadAs,
        by: Option<&[usize]>,
        values: &[ArrayRef],
        (columns, schema): (&[usize], &SchemaRef),
    ) -> Result<RecordBatch> {
        let by = by.map(<[usize]>::to_vec);
        let columns = columns.to_vec();
        let question = self.question(at, Wanted::LookUp { by, columns });
        let mut answer = self.0.rows.ask(&self.0, &question, values).await?;
        let mut found = Vec::new();
        while let Some(piece) = answer.next().await? {
            found.push(piece);
        }
        let first = found.first();
        let first = first.ok_or_else(|| unreadable("an answer without rows"))?;
        let count = found.iter().map(RecordBatch::num_rows).sum();
        let rows = match found.len() {
            1 => first.clone(),
            _ => concat_batches(&first.schema(), &found).map_err(unreadable)?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)
            .map_err(unreadable)
    }

    async fn changes(&self, since: Epoch, at: ReadAs) -> Result<Vec<ChangeBatch>> {
        let question = self.question(at, Wanted::Changes { since });
        let mut answer = self.0.rows.ask(&self.0, &question, &[]).await?;
        let mut changes = Vec::new();
        while let Some(piece) = answer.next().await? {
            changes.push(weighted(&piece)?);
        }
        Ok(changes)
    }

    async fn store(&self, relation: &Relation, at: ReadAs, named: Epoch) -> Result<Vec<FileMeta>> {
        let relation = Box::new(relation.clone());
        let question = self.question(at, Wanted::Store { relation, named });
        let mut answer = self.0.rows.ask(&self.0, &question, &[]).await?;
        while answer.next().await?.is_some() {}
        serde_json::from_slice(&answer.end).map_err(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Int64Type};
    use tidemark_changelog::ChangeBatch;
    use tidemark_plan::{BinaryOp, Literal};
    use tidemark_state::ViewOptions;
    use tidemark_state::checkpoint::CheckpointStore;
    use tidemark_state::object_store::memory::InMemory;

    struct Sent(Vec<Bytes>);

    #[async_trait]
    impl LinkSender for Sent {
        async fn send(&mut self, frame: Bytes) -> Result<()> {
            self.0.push(frame);
            Ok(())
        }
    }

    fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
        let (left, right) = (Box::new(left), Box::new(right));
        Expr::Binary { op, left, right }
    }

    fn number(value: i64) -> Expr {
        Expr::Literal(Literal::Int64(value))
    }

    /// What a host sends of 20,000 rows with the numbers from 0 on.
    async fn sent(filter: Option<Expr>) -> Vec<i64> {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("other"), field("v")]));
        let view = Arc::new(ViewPartition::new(ViewOptions {
            name: "t".into(),
            schema: schema.clone(),
            key: None,
            append_only: true,
            table: 0,
            vnode_of_worker: 0,
            partitioned_by_key: false,
        }));
        let values = Arc::new(Int64Array::from_iter_values(0..20_000));
        let rows = RecordBatch::try_new(schema, vec![values.clone(), values]).unwrap();
        view.append(Epoch(1), vec![ChangeBatch::insert(rows)]);
        let store = CheckpointStore::over("memory://", Arc::new(InMemory::new()));
        let shown = Shown::new(1, Storing::new(store, 1), Readers::new(), |_| ());
        shown.show(RelationId(7), 0, view);
        let columns = vec![1];
        let question = Question {
            share: 1,
            epoch: Epoch(1),
            mergeable: Epoch(1),
            wants: Wanted::Scan { columns, filter },
        };
        let header = json(&question).unwrap();
        let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        let mut to = Sent(Vec::new());
        answer(&bytes, &shown, &mut to).await.unwrap();
        let mut values = Vec::new();
        for frame in to.0 {
            let rows = decode_rows(&frame[1..]).unwrap();
            values.extend_from_slice(rows.column(0).as_primitive::<Int64Type>().values());
        }
        values
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_rows_are_sent_that_may_pass() {
        assert_eq!(sent(None).await.len(), 20_000);
        let last = binary(BinaryOp::GtEq, Expr::Column(0), number(19_997));
        assert_eq!(sent(Some(last)).await, [19_997, 19_998, 19_999]);
        let none = binary(BinaryOp::Lt, Expr::Column(0), number(0));
        assert_eq!(sent(Some(none)).await, [0_i64; 0]);
        // A row for which it fails is sent: the error is that of whoever asks.
        let fails = binary(BinaryOp::Divide, number(10), Expr::Column(0));
        let fails = binary(BinaryOp::Eq, fails, number(5));
        assert_eq!(sent(Some(fails)).await, [0, 2]);
    }
}
