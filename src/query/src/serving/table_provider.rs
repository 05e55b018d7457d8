//! A relation as DataFusion sees it.
//!
//! Rows come from the relation's shares at the snapshot's epoch, one stream per worker, wherever it
//! is, piece by piece as they are asked for: a query holds no more of a relation than it has use
//! for. They come from the transaction's guard where it knows more than the epoch; from the
//! connector where an append-only source keeps no rows. Equalities that fix every key column become
//! a lookup: the cross product of the constants is looked up in the share that owns each key.
//!
//! Filters that say the same wherever they are evaluated go with the scan to other nodes, which
//! send only rows that may pass.
//!
//! Where a plan may run again ([`Snapshot::again`]), a scan says what is read and no more: the rows
//! are those of the run ([`Sight`]).

use super::passing::Passing;
use super::sight::{Seen, Sight};
use crate::error::{Notice, from_datafusion};
use crate::snapshot::Snapshot;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::datasource::DefaultTableSource;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableSource, TableType,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tidemark_changelog::hash::{hash_columns, vnode_of_hash};
use tidemark_common::{Error, RelationId, SqlState, vnode_owner};
use tidemark_node::Engine;
use tidemark_node::engine::{Answer, Pieces, Pin, ReadAs, Share};
use tidemark_plan::{BinaryOp, Catalog, Op, Relation};

/// Keys of one lookup at most; more are cheaper by a scan.
const LOOKUP_KEYS_MAX: usize = 1000;

/// Rows of a batch that is read from state.
const BATCH_ROWS: usize = 8192;

/// A relation at a snapshot.
pub struct RelationTable {
    snapshot: Snapshot,
    relation: Arc<Relation>,
    /// Its columns that can be named.
    schema: SchemaRef,
    /// Their positions in it.
    positions: Vec<usize>,
}

/// The key that a relation's rows are kept by, of its `Materialize`.
pub fn kept_key(relation: &Relation) -> Option<Vec<usize>> {
    let nodes = relation
        .job
        .iter()
        .flat_map(|j| &j.fragments)
        .flat_map(tidemark_plan::Fragment::nodes);
    nodes.into_iter().find_map(|n| {
        if let Op::Materialize { key, .. } = &n.op {
            key.clone()
        } else {
            None
        }
    })
}

/// The columns that a lookup goes by: those of the whole key that rows are kept by, or the longest
/// beginning of it, or of an index, that is fixed.
pub fn path(
    catalog: &Catalog,
    relation: &Relation,
    is_fixed: impl Fn(usize) -> bool,
) -> Option<Vec<usize>> {
    if !relation.is_materialized() {
        return None;
    }
    let key = kept_key(relation).unwrap_or_default();
    let indexes = catalog.indexes(relation).map(|(_, columns)| columns);
    let all = std::iter::once(key.clone()).chain(indexes);
    let fixed = all.map(|mut columns| {
        let first_open = columns.iter().position(|c| !is_fixed(*c));
        columns.truncate(first_open.unwrap_or(columns.len()));
        columns
    });
    let is_whole = |columns: &Vec<usize>| !columns.is_empty() && *columns == key;
    let is_better =
        |best: &Vec<usize>, next: &Vec<usize>| !is_whole(best) && next.len() > best.len();
    let best = fixed.reduce(|best, next| if is_better(&best, &next) { next } else { best });
    best.filter(|columns| !columns.is_empty())
}

/// The primary key of the table that a query reads.
pub fn key_of(source: &dyn TableSource) -> Option<Vec<usize>> {
    let source = source.downcast_ref::<DefaultTableSource>()?;
    let table = source.table_provider.downcast_ref::<RelationTable>()?;
    let relation = &table.relation;
    let key = relation.enforced_key()?.iter();
    key.map(|at| relation.visible_place(*at)).collect()
}

fn ours(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

impl fmt::Debug for RelationTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.relation.kind.name(), self.relation.name)
    }
}

impl RelationTable {
    /// Of a snapshot.
    pub fn new(snapshot: Snapshot, relation: Arc<Relation>) -> RelationTable {
        RelationTable {
            schema: relation.visible_schema(),
            positions: relation.visible_positions(),
            snapshot,
            relation,
        }
    }

    /// The positions in the relation of these columns of the schema.
    fn positions_of(&self, projection: &[usize]) -> Vec<usize> {
        projection.iter().map(|c| self.positions[*c]).collect()
    }

    /// The batch with our field metadata, projected.
    fn dress(&self, batch: RecordBatch, projection: &[usize]) -> Result<RecordBatch> {
        dress(batch, &Arc::new(self.schema.project(projection)?))
    }

    fn memory(
        &self,
        batches: Vec<RecordBatch>,
        schema: SchemaRef,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }

    /// What a lookup goes by, for EXPLAIN.
    fn described(&self, by: &[usize]) -> String {
        let names: Vec<&str> = by
            .iter()
            .map(|c| self.relation.columns[*c].name.as_str())
            .collect();
        let key = kept_key(&self.relation).unwrap_or_default();
        let mut indexes = self.snapshot.catalog.indexes(&self.relation);
        let through = match indexes.find(|(_, columns)| columns.starts_with(by)) {
            _ if key.starts_with(by) => "key".to_string(),
            Some((index, _)) => format!("index {}", index.name),
            None => "index".to_string(),
        };
        let list = names.join(", ");
        format!("{} by ({list}) through its {through}", self.relation.name)
    }

    /// A guard's rows: all of them, or those of some keys.
    fn scan_guard(
        &self,
        projection: &[usize],
        keys: Option<(Vec<usize>, Vec<ArrayRef>)>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some((guard, tables)) = &self.snapshot.written else {
            return Ok(None);
        };
        if !tables.contains(&self.relation.id) {
            return Ok(None);
        }
        let guard = guard.upgrade().ok_or_else(|| {
            ours(Error::user(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ))
        })?;
        let guard = guard.lock();
        let epoch = self.snapshot.pin.epoch();
        if guard.is_published(self.relation.id, epoch).map_err(ours)? {
            // Then they can be read piece by piece.
            return Ok(None);
        }
        let through = keys.as_ref().map(|(by, _)| self.described(by));
        let batches = match keys {
            Some((key, arrays)) if key == self.relation.key => {
                vec![guard.lookup(self.relation.id, &arrays).map_err(ours)?]
            }
            Some((by, arrays)) => {
                let found = guard.lookup_by(self.relation.id, &by, &arrays);
                vec![found.map_err(ours)?]
            }
            _ => guard.rows(self.relation.id).map_err(ours)?,
        };
        let batches = batches
            .into_iter()
            .map(|b| self.dress(b.project(&self.positions_of(projection))?, projection))
            .collect::<Result<Vec<_>>>()?;
        let rows = self.memory(batches, Arc::new(self.schema.project(projection)?))?;
        Ok(Some(match through {
            Some(text) => Arc::new(Passing::looked_up(rows, text)),
            None => rows,
        }))
    }
}

/// The rows of a relation with these keys, one array for each column of the key that it is kept by:
/// some columns, which the schema names.
///
/// Errors: `72000` when the epoch is not kept any more.
pub async fn looked_up(
    answer: &Answer,
    keys: &[ArrayRef],
    columns: (&[usize], &SchemaRef),
) -> tidemark_common::Result<RecordBatch> {
    let (at, shares) = (answer.at, &answer.shares);
    let wanted = keys.first().map_or(0, |k| k.len());
    let owner = |hash| vnode_owner(vnode_of_hash(hash), shares.len());
    let hashes = hash_columns(keys, wanted);
    if let [hash] = hashes.as_slice() {
        return look_up(&shares[owner(*hash)], at, None, keys, columns).await;
    }
    let mut wanted_of: Vec<Vec<u32>> = vec![Vec::new(); shares.len()];
    for (row, hash) in hashes.into_iter().enumerate() {
        wanted_of[owner(hash)].push(row as u32);
    }
    let mut found = Vec::new();
    for (share, rows) in shares.iter().zip(wanted_of) {
        if rows.is_empty() {
            continue;
        }
        let keys = match rows.len() == wanted {
            true => keys.to_vec(),
            false => {
                let rows = UInt32Array::from(rows);
                let share = keys.iter().map(|k| take(k, &rows, None));
                let share: Result<Vec<ArrayRef>, _> = share.collect();
                share.map_err(|e| from_datafusion(e.into()))?
            }
        };
        found.push(look_up(share, at, None, &keys, columns).await?);
    }
    gathered(found, columns.1)
}

/// Of one share: by the columns `by`, without them by the key.
async fn look_up(
    share: &Share,
    at: ReadAs,
    by: Option<&[usize]>,
    values: &[ArrayRef],
    columns: (&[usize], &SchemaRef),
) -> tidemark_common::Result<RecordBatch> {
    let ReadAs { epoch, mergeable } = at;
    match (share, by) {
        (Share::Here(view), None) => view.lookup(epoch, mergeable, values, columns),
        (Share::Here(view), Some(by)) => view.lookup_by(epoch, mergeable, (by, values), columns),
        (Share::There(far), by) => far.look_up(at, by, values, columns).await,
    }
}

/// The rows of a relation with these values in some columns, as [`looked_up`] finds those of a key:
/// they may be in any partition.
pub async fn looked_up_by(
    answer: &Answer,
    relation: &Relation,
    (by, values): (&[usize], &[ArrayRef]),
    columns: (&[usize], &SchemaRef),
) -> tidemark_common::Result<RecordBatch> {
    if kept_key(relation).as_deref() == Some(by) {
        return looked_up(answer, values, columns).await;
    }
    looked_up_among(answer, (by, values), columns).await
}

/// The same by columns that are not the whole key.
pub async fn looked_up_among(
    answer: &Answer,
    (by, values): (&[usize], &[ArrayRef]),
    columns: (&[usize], &SchemaRef),
) -> tidemark_common::Result<RecordBatch> {
    let shares = answer.shares.iter();
    let found = shares.map(|share| look_up(share, answer.at, Some(by), values, columns));
    let found = futures::future::try_join_all(found).await?;
    gathered(found, columns.1)
}

/// What was found in several partitions as one batch; without a column it still counts its rows.
fn gathered(
    mut found: Vec<RecordBatch>,
    schema: &SchemaRef,
) -> tidemark_common::Result<RecordBatch> {
    if schema.fields().is_empty() {
        let rows = found.iter().map(RecordBatch::num_rows).sum();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let counted = RecordBatch::try_new_with_options(schema.clone(), vec![], &options);
        return counted.map_err(|e| from_datafusion(e.into()));
    }
    found.retain(|rows| rows.num_rows() > 0);
    if found.len() == 1 {
        return Ok(found.swap_remove(0));
    }
    concat_batches(schema, &found).map_err(|e| from_datafusion(e.into()))
}

fn dress(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if schema.fields().is_empty() {
        return Ok(batch);
    }
    Ok(RecordBatch::try_new(
        schema.clone(),
        batch.columns().to_vec(),
    )?)
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let indexes = self.snapshot.catalog.indexes(&self.relation);
        let key = kept_key(&self.relation).unwrap_or_default();
        let columns = indexes.flat_map(|(_, columns)| columns).chain(key);
        let names: Vec<&str> = columns
            .map(|c| self.relation.columns[c].name.as_str())
            .collect();
        let is_spread = self.snapshot.engine().is_spread() && self.relation.is_materialized();
        let support = |f: &&Expr| match constants(f) {
            Some((column, _)) if names.contains(&column.as_str()) => {
                TableProviderFilterPushDown::Inexact
            }
            _ if is_spread && says_the_same_elsewhere(f) => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection: Vec<usize> = projection
            .cloned()
            .unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let keys = lookup_of(&self.snapshot.catalog, &self.relation, filters);
        if let Some(plan) = self.scan_guard(&projection, keys.clone())? {
            return Ok(plan);
        }
        let schema = Arc::new(self.schema.project(&projection)?);
        let projection = self.positions_of(&projection);
        if !self.relation.is_materialized() {
            let source = SourceScan {
                engine: self.snapshot.engine().clone(),
                pin: self.snapshot.pin.clone(),
                relation: self.relation.clone(),
                columns: projection,
                schema: schema.clone(),
                notices: self.snapshot.notices.clone(),
            };
            return Ok(Arc::new(StreamingTableExec::try_new(
                schema,
                vec![Arc::new(source)],
                None,
                vec![],
                false,
                limit,
            )?));
        }
        if let Some((by, values)) = &keys {
            let (engine, pin) = (self.snapshot.engine(), &self.snapshot.pin);
            let by = (by.as_slice(), values.as_slice());
            let columns = (projection.as_slice(), &schema);
            let answer = engine.answer(self.relation.id, pin.epoch());
            let answer = answer.map_err(ours)?;
            let found = looked_up_by(&answer, &self.relation, by, columns).await;
            self.snapshot.warn_of_age(&self.relation);
            let found = self.memory(vec![found.map_err(ours)?], schema)?;
            return Ok(Arc::new(Passing::looked_up(found, self.described(by.0))));
        }
        let Answer { shares, at } = self
            .snapshot
            .engine()
            .answer(self.relation.id, self.snapshot.pin.epoch())
            .map_err(ours)?;
        self.snapshot.warn_of_age(&self.relation);
        let filter = match self.snapshot.engine().is_spread() {
            true => filter_elsewhere(filters, &schema)?,
            false => None,
        };
        let part = |(place, share): (usize, &Share)| {
            let seen = || Seen {
                share: share.clone(),
                pin: self.snapshot.pin.clone(),
                at,
            };
            let scan = PartitionScan {
                relation: self.relation.id,
                place,
                seen: (!self.snapshot.again).then(seen),
                columns: projection.clone(),
                filter: filter.clone(),
                schema: schema.clone(),
            };
            Arc::new(scan) as Arc<dyn PartitionStream>
        };
        let streams = shares.iter().enumerate().map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(
            schema.clone(),
            streams,
            None,
            vec![],
            false,
            limit,
        )?))
    }
}

/// One worker's share of a relation.
struct PartitionScan {
    relation: RelationId,
    /// Which share.
    place: usize,
    /// None: what the run sees of it.
    seen: Option<Seen>,
    columns: Vec<usize>,
    /// For other nodes.
    filter: Option<Arc<tidemark_plan::Expr>>,
    schema: SchemaRef,
}

impl fmt::Debug for PartitionScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("partition")
    }
}

impl PartitionStream for PartitionScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let seen = match &self.seen {
            Some(seen) => Ok(seen.clone()),
            None => Sight::of(&task).and_then(|sight| sight.share(self.relation, self.place)),
        };
        let begun = seen.map(|seen| {
            let pieces = begin(&seen, &self.columns, self.filter.clone());
            (pieces, seen.pin)
        });
        let pieces = futures::stream::iter(Some(begun.map_err(ours))).map_ok(move |state| {
            // Until the last piece, the epoch is kept.
            let schema = schema.clone();
            futures::stream::try_unfold(state, move |(reading, pin)| {
                let schema = schema.clone();
                async move {
                    let mut reading = reading.begun().await.map_err(ours)?;
                    let piece = reading.next().await.map_err(ours)?;
                    let dressed = piece.map(|p| dress(p, &schema)).transpose()?;
                    Ok(dressed.map(|p| (p, (reading, pin))))
                }
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(
            self.schema.clone(),
            pieces.try_flatten(),
        ))
    }
}

/// The rows of one share, piece by piece.
enum PiecesOf {
    Here(tidemark_state::Reading),
    There(Box<dyn Pieces>),
    /// Nobody was asked yet.
    Asking(BoxFuture<'static, tidemark_common::Result<Box<dyn Pieces>>>),
    Failed(Error),
}

/// Begins to read these columns; from another node, only rows that may pass the filter.
fn begin(seen: &Seen, columns: &[usize], filter: Option<Arc<tidemark_plan::Expr>>) -> PiecesOf {
    let ReadAs { epoch, .. } = seen.at;
    let mergeable = seen.pin.mergeable();
    match &seen.share {
        Share::Here(view) => match view.reading(epoch, mergeable, columns, BATCH_ROWS) {
            Ok(reading) => PiecesOf::Here(reading),
            Err(error) => PiecesOf::Failed(error),
        },
        Share::There(far) => {
            let (far, columns) = (far.clone(), columns.to_vec());
            let at = ReadAs { epoch, mergeable };
            PiecesOf::Asking(async move { far.scan(at, &columns, filter.as_deref()).await }.boxed())
        }
    }
}

impl PiecesOf {
    async fn begun(self) -> tidemark_common::Result<PiecesOf> {
        match self {
            PiecesOf::Asking(pieces) => Ok(PiecesOf::There(pieces.await?)),
            PiecesOf::Failed(error) => Err(error),
            begun => Ok(begun),
        }
    }

    async fn next(&mut self) -> tidemark_common::Result<Option<RecordBatch>> {
        match self {
            PiecesOf::Here(reading) => reading.next_piece(),
            PiecesOf::There(pieces) => pieces.next().await,
            PiecesOf::Asking(_) | PiecesOf::Failed(_) => Ok(None),
        }
    }
}

/// An append-only source, read from its connector up to the pinned cut. Its thread can outlive the
/// statement, so it holds nothing of a transaction.
struct SourceScan {
    engine: Engine,
    pin: Arc<Pin>,
    relation: Arc<Relation>,
    columns: Vec<usize>,
    schema: SchemaRef,
    notices: tokio::sync::mpsc::UnboundedSender<Notice>,
}

impl fmt::Debug for SourceScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source {}", self.relation.name)
    }
}

impl PartitionStream for SourceScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<RecordBatch>>(4);
        let notices = self.notices.clone();
        let (engine, pin, id, columns, schema) = (
            self.engine.clone(),
            self.pin.clone(),
            self.relation.id,
            self.columns.clone(),
            self.schema.clone(),
        );
        tokio::task::spawn_blocking(move || {
            let mut each = |batch: RecordBatch| {
                let batch = dress(batch, &schema).map_err(from_datafusion)?;
                // A closed channel means that the query has enough or was canceled.
                sender
                    .blocking_send(Ok(batch))
                    .map_err(|_| Error::internal("query ended"))
            };
            // A client that is gone needs no notice.
            let mut notice = |text: String| drop(notices.send(Notice::new(text)));
            let result = engine.scan_source(id, &columns, &pin, &mut notice, &mut each);
            if let Err(e) = result
                && !sender.is_closed()
            {
                let _ = sender.blocking_send(Err(ours(e)));
            }
        });
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|batch| (batch, receiver))
        });
        Box::pin(RecordBatchStreamAdapter::new(
            self.schema.clone(),
            stream.boxed(),
        ))
    }
}

/// A constant; NULL for one that is known only when the query is to be run.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Placeholder(_) => Some(ScalarValue::Null),
        _ => None,
    }
}

/// `column = constant` and `column IN (constants)`: the column's name and the constants.
fn constants(filter: &Expr) -> Option<(String, Vec<ScalarValue>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(c), value) | (value, Expr::Column(c)) => {
                Some((c.name.clone(), vec![constant(value)?]))
            }
            _ => None,
        },
        // A short IN list arrives as equalities joined by OR.
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let ((a, mut values), (b, more)) = (constants(left)?, constants(right)?);
            values.extend(more);
            (a == b).then_some((a, values))
        }
        Expr::InList(list) if !list.negated => match list.expr.as_ref() {
            Expr::Column(c) => {
                let values = list.list.iter().map(constant);
                Some((c.name.clone(), values.collect::<Option<_>>()?))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a filter is made of columns, constants and comparisons alone, so that neither settings
/// nor the time nor what a function makes of them matter. A constant that a kept plan gets anew for
/// each run (it has a mark) is none.
fn says_the_same_elsewhere(filter: &Expr) -> bool {
    let is_plain = |e: &Expr| match e {
        Expr::BinaryExpr(binary) => {
            use Operator::*;
            let of_truths = matches!(binary.op, And | Or);
            of_truths || matches!(binary.op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
        }
        Expr::Column(_)
        | Expr::Literal(_, None)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Like(_) => true,
        _ => false,
    };
    filter
        .exists(|e| Ok(!is_plain(e)))
        .is_ok_and(|other| !other)
}

/// All of these filters that other nodes can evaluate, over rows of this schema.
fn filter_elsewhere(
    filters: &[Expr],
    schema: &SchemaRef,
) -> Result<Option<Arc<tidemark_plan::Expr>>> {
    let schema = DFSchema::try_from(schema.clone())?;
    let filters = filters.iter().filter(|f| says_the_same_elsewhere(f));
    // One that cannot be said to them is evaluated here.
    let told = filters.filter_map(|f| tidemark_planner::to_expr(f, &schema).ok());
    let all = told.reduce(|left, right| tidemark_plan::Expr::Binary {
        op: BinaryOp::And,
        left: Box::new(left),
        right: Box::new(right),
    });
    Ok(all.map(Arc::new))
}

/// The columns that the filters allow to look rows up by, and the values that are looked for, one
/// array per column.
fn lookup_of(
    catalog: &Catalog,
    relation: &Relation,
    filters: &[Expr],
) -> Option<(Vec<usize>, Vec<ArrayRef>)> {
    let mut fixed: HashMap<usize, Vec<ScalarValue>> = HashMap::new();
    for (name, constants) in filters.iter().filter_map(constants) {
        let column = relation.columns.iter().position(|c| c.name == name)?;
        let data_type = &relation.columns[column].data_type;
        let mut typed: Vec<ScalarValue> = Vec::new();
        for value in constants.into_iter().filter(|v| !v.is_null()) {
            if !typed.contains(&value) {
                typed.push(value);
            }
        }
        if typed.iter().all(|value| value.data_type() == *data_type) {
            fixed.entry(column).or_insert(typed);
        }
    }
    let by = path(catalog, relation, |column| fixed.contains_key(&column))?;
    let values = key_arrays(relation, &by, &fixed)?;
    Some((by, values))
}

/// Every combination of the values of these columns.
fn key_arrays(
    relation: &Relation,
    key: &[usize],
    fixed: &HashMap<usize, Vec<ScalarValue>>,
) -> Option<Vec<ArrayRef>> {
    let values: Vec<&Vec<ScalarValue>> = key.iter().map(|k| &fixed[k]).collect();
    let values = values.as_slice();
    let total: usize = values.iter().map(|v| v.len()).product();
    if total > LOOKUP_KEYS_MAX {
        return None;
    }
    // Row r of the cross product takes constant (r / stride) mod n of each column.
    let mut stride = total;
    let mut arrays = Vec::new();
    for (typed, k) in values.iter().zip(key) {
        if total == 0 {
            arrays.push(arrow::array::new_empty_array(
                &relation.columns[*k].data_type,
            ));
            continue;
        }
        stride /= typed.len();
        arrays.push(
            ScalarValue::iter_to_array((0..total).map(|r| typed[r / stride % typed.len()].clone()))
                .ok()?,
        );
    }
    Some(arrays)
}
