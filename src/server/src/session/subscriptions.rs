//! Cursors of subscriptions: `DECLARE c SUBSCRIPTION CURSOR FOR s`, and FETCH from them.
//!
//! A cursor is a place in the changes that a subscription keeps, which are in order by their epochs
//! and numbers: what comes behind the last row that it gave comes next. It reads the newest epoch,
//! also in a transaction block, some rows ahead of what is asked for; it lives as long as its
//! session. Where it cannot know that nothing between two reads was forgotten, it says so, and
//! gives nothing more.

use super::Session;
use super::cursors::no_cursor;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::StreamExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_plan::{Relation, RelationKind};
use tidemark_planner::StatementKind;
use tidemark_planner::sqlparser::ast::{self, Ident};
use tidemark_planner::statement::{FetchRows, Name, Since};
use tidemark_planner::subscription::{EPOCH, ROW, followed_columns, retention_of, shown_columns};
use tidemark_query::error::{from_arrow, from_datafusion};
use tidemark_query::outcome::{Outcome, RowStream, Rows, Tag};
use tokio::sync::Mutex;

/// Longer than it takes to decide an epoch.
const UNDECIDED_MS: i64 = 5_000;

/// Rows that are read ahead, at least.
const AHEAD_ROWS: usize = 1000;

/// A cursor of a subscription.
pub(super) struct SubscriptionCursor {
    /// The subscription.
    id: RelationId,
    /// What it shows, as SQL.
    columns: String,
    pub(super) schema: SchemaRef,
    /// The rows of FULL that come before all changes.
    stock: Option<Mutex<RowStream>>,
    /// Something that was to come is lost.
    is_broken: bool,
    /// Epoch and number of the last change that was read.
    last: (i64, i64),
    /// Rows that are read and not yet given.
    ahead: Option<RecordBatch>,
    /// All changes before this time are read, in milliseconds since 1970.
    complete_ms: i64,
    /// For how long the subscription keeps changes.
    retention_ms: i64,
    /// The epoch that was read last.
    seen: Epoch,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// Epochs that are not decided now, and all after them, end after this time: from the end of an
/// epoch to its decision it does not take so long.
fn before(retention_ms: i64) -> i64 {
    now_ms() - UNDECIDED_MS.min(retention_ms / 2)
}

fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

fn qualified(relation: &Relation) -> String {
    format!(
        "{}.{}",
        quoted(&relation.schema_name),
        quoted(&relation.name)
    )
}

fn query(text: &str) -> Result<ast::Statement> {
    let mut statements = tidemark_planner::parse_stored(text)?;
    match statements.pop().map(|statement| statement.kind) {
        Some(StatementKind::Sql(query)) => Ok(*query),
        _ => Err(Error::internal(format!("not a query: {text}"))),
    }
}

async fn collected(mut rows: Rows) -> Result<RecordBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = rows.stream.next().await {
        batches.push(batch.map_err(from_datafusion)?);
    }
    match batches.first() {
        Some(first) => concat_batches(&first.schema(), &batches).map_err(from_arrow),
        None => Ok(RecordBatch::new_empty(rows.schema)),
    }
}

fn number(batch: &RecordBatch, column: usize, row: usize) -> i64 {
    batch.column(column).as_primitive::<Int64Type>().value(row)
}

impl Session {
    /// DECLARE .. SUBSCRIPTION CURSOR.
    pub(super) async fn declare_subscription(
        &mut self,
        name: &str,
        subscription: &Name,
        since: Since,
    ) -> Result<Outcome> {
        if self.cursors.has(name) {
            return Err(Error::user(
                SqlState("42P03"),
                format!("cursor \"{name}\" already exists"),
            ));
        }
        let relation = self.resolve(&self.catalog(), subscription)?;
        if relation.kind != RelationKind::Subscription {
            let error = Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a subscription", relation.name),
            );
            return Err(error.with_hint("CREATE SUBSCRIPTION .. FROM it makes one."));
        }
        let from = qualified(&relation);
        let columns = list(shown_columns(&relation));
        let first = query(&format!("SELECT {columns} FROM {from} LIMIT 0"))?;
        let retention_ms = retention_of(&relation)?;
        let (before_ms, decided) = (before(retention_ms), self.server.engine.decided());
        let (seen, rows) = self.asker.select_newest(&first, decided).await?;
        let mut cursor = SubscriptionCursor {
            id: relation.id,
            columns,
            schema: rows.schema,
            stock: None,
            is_broken: false,
            last: (seen.0 as i64, i64::MAX),
            ahead: None,
            complete_ms: before_ms,
            retention_ms,
            seen,
        };
        match since {
            Since::Now => {}
            Since::Begin => cursor.last = (-1, 0),
            Since::Millis(millis) => self.begin_at(&mut cursor, &relation, millis).await?,
            Since::Full => self.begin_with_stock(&mut cursor, &relation).await?,
        }
        self.cursors.subscriptions.insert(name.into(), cursor);
        Ok(Outcome::Command("DECLARE CURSOR".into()))
    }

    /// Behind the last epoch before a time.
    async fn begin_at(
        &mut self,
        cursor: &mut SubscriptionCursor,
        subscription: &Relation,
        millis: i64,
    ) -> Result<()> {
        let text = format!(
            "SELECT coalesce(max({EPOCH}), -1) FROM {} WHERE rw_timestamp < {millis}",
            qualified(subscription)
        );
        let (_, rows) = self
            .asker
            .select_newest(&query(&text)?, cursor.seen)
            .await?;
        let before = collected(rows).await?;
        let now = now_ms();
        if millis > now || millis <= now - cursor.retention_ms {
            let error = Error::user(
                SqlState::INVALID_PARAMETER,
                "SINCE must be a time within the retention of the subscription, and not after now",
            );
            return Err(error.with_detail(format!(
                "It keeps what changed from {} to {now}, in milliseconds since 1970.",
                now - cursor.retention_ms
            )));
        }
        cursor.last = (number(&before, 0, 0), i64::MAX);
        cursor.complete_ms = millis;
        Ok(())
    }

    /// With the rows that the relation has, and behind the epoch in which it has them.
    async fn begin_with_stock(
        &mut self,
        cursor: &mut SubscriptionCursor,
        subscription: &Relation,
    ) -> Result<()> {
        let catalog = self.catalog();
        let followed = subscription.depends_on.first();
        let followed = followed.and_then(|id| catalog.relations.get(id));
        let followed = followed.ok_or_else(|| Error::internal("a subscription to nothing"))?;
        // Columns that it has got since come behind those.
        let names = followed_columns(subscription).zip(followed.visible());
        let columns: Vec<String> = names
            .map(|(name, (_, column))| format!("{} AS {}", quoted(&column.name), quoted(name)))
            .collect();
        let text = format!(
            "SELECT {}, 'Insert' AS op, CAST(NULL AS BIGINT) AS rw_timestamp FROM {}",
            columns.join(", "),
            qualified(followed)
        );
        let (epoch, rows) = self
            .asker
            .select_newest(&query(&text)?, cursor.seen)
            .await?;
        cursor.stock = Some(Mutex::new(rows.stream));
        cursor.last = (epoch.0 as i64, i64::MAX);
        Ok(())
    }

    /// FETCH from the cursor of a subscription: what is there, up to so many rows. If nothing is,
    /// it waits for so many microseconds.
    pub(super) async fn fetch_changes(
        &mut self,
        name: &str,
        wanted: FetchRows,
        timeout: Option<i64>,
    ) -> Result<Outcome> {
        let FetchRows::Next(wanted) = wanted else {
            let error = Error::unsupported(
                "the cursor of a subscription gives the rows that come next, a number of them",
            );
            return Err(error.with_hint("Write FETCH NEXT or FETCH 100."));
        };
        let until = timeout.map(|micros| Instant::now() + Duration::from_micros(micros as u64));
        let cursors = &mut self.cursors.subscriptions;
        let mut cursor = cursors.remove(name).ok_or_else(|| no_cursor(name))?;
        let catalog = self.catalog();
        let subscription = catalog.relations.get(&cursor.id).cloned();
        let subscription = subscription.ok_or_else(|| {
            let message = format!("the subscription of cursor \"{name}\" was dropped");
            Error::user(BEHIND, message)
        })?;
        let next = self.next_changes(name, &mut cursor, &subscription, wanted, until);
        let fetched = next.await;
        let schema = cursor.schema.clone();
        // One that may have missed a change is gone.
        if !cursor.is_broken {
            self.cursors.subscriptions.insert(name.into(), cursor);
        }
        let batches = fetched?;
        let shown: Result<Vec<RecordBatch>> = batches
            .into_iter()
            .map(|batch| {
                let columns = batch.columns()[..schema.fields().len()].to_vec();
                RecordBatch::try_new(schema.clone(), columns).map_err(from_arrow)
            })
            .collect();
        let stream = futures::stream::iter(shown?.into_iter().map(Ok));
        Ok(Outcome::Rows(Rows::streamed(
            schema,
            stream,
            Tag::Counted("FETCH"),
        )))
    }

    async fn next_changes(
        &mut self,
        name: &str,
        cursor: &mut SubscriptionCursor,
        subscription: &Relation,
        wanted: usize,
        until: Option<Instant>,
    ) -> Result<Vec<RecordBatch>> {
        let (mut found, mut count) = (Vec::new(), 0);
        while count < wanted {
            if cursor.ahead.is_none() {
                let more = wanted - count;
                match self.read_ahead(name, cursor, subscription, more).await {
                    Ok(true) => {}
                    Ok(false) if count > 0 => break,
                    Ok(false) if self.wait_for_changes(cursor, until).await? => continue,
                    Ok(false) => break,
                    // What was taken is given; what is wrong is told by the next FETCH.
                    Err(_) if count > 0 && !cursor.is_broken => break,
                    Err(error) => return Err(error),
                }
            }
            let Some(ahead) = cursor.ahead.take() else {
                continue;
            };
            let rows = ahead.num_rows().min(wanted - count);
            if rows < ahead.num_rows() {
                cursor.ahead = Some(ahead.slice(rows, ahead.num_rows() - rows));
            }
            count += rows;
            found.push(ahead.slice(0, rows));
        }
        Ok(found)
    }

    /// Waits for an epoch behind the one that was read last; false when the time is over.
    async fn wait_for_changes(
        &mut self,
        cursor: &SubscriptionCursor,
        until: Option<Instant>,
    ) -> Result<bool> {
        let Some(until) = until else {
            return Ok(false);
        };
        let (engine, its) = (&self.server.engine, [cursor.id]);
        let next = engine.pin_when(&its, Epoch(cursor.seen.0 + 1));
        match tokio::time::timeout_at(until.into(), next).await {
            Ok(pinned) => pinned.map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// Reads what comes next; false if there is nothing.
    async fn read_ahead(
        &mut self,
        name: &str,
        cursor: &mut SubscriptionCursor,
        subscription: &Relation,
        wanted: usize,
    ) -> Result<bool> {
        while let Some(stock) = &mut cursor.stock {
            match stock.get_mut().next().await {
                Some(batch) => {
                    cursor.is_broken = batch.is_err();
                    let batch = batch.map_err(from_datafusion)?;
                    if batch.num_rows() > 0 {
                        cursor.ahead = Some(batch);
                        return Ok(true);
                    }
                }
                None => cursor.stock = None,
            }
        }
        let limit = wanted.max(AHEAD_ROWS);
        let ((epoch, row), from) = (cursor.last, qualified(subscription));
        let text = format!(
            "SELECT {}, {EPOCH}, {ROW} FROM {from} WHERE {EPOCH} > {epoch} OR ({EPOCH} = {epoch} \
             AND {ROW} > {row}) ORDER BY {EPOCH}, {ROW} LIMIT {limit}",
            cursor.columns
        );
        let (before_ms, decided) = (before(cursor.retention_ms), self.server.engine.decided());
        let query = query(&text)?;
        let newest = self.asker.select_newest(&query, cursor.seen);
        let (seen, rows) = newest.await?;
        let batch = collected(rows).await?;
        if cursor.complete_ms <= now_ms() - cursor.retention_ms {
            cursor.is_broken = true;
            return Err(behind(name, &from));
        }
        cursor.seen = seen;
        let rows = batch.num_rows();
        if rows < limit && seen >= decided {
            cursor.complete_ms = cursor.complete_ms.max(before_ms);
        }
        if rows == 0 {
            return Ok(false);
        }
        let own = cursor.schema.fields().len();
        cursor.last = (
            number(&batch, own, rows - 1),
            number(&batch, own + 1, rows - 1),
        );
        // The last of the shown columns is the time.
        let last_ms = number(&batch, own - 1, rows - 1);
        cursor.complete_ms = match rows < limit {
            true => cursor.complete_ms.max(last_ms),
            false => last_ms,
        };
        cursor.ahead = Some(batch);
        Ok(true)
    }
}

const BEHIND: SqlState = SqlState("55000");

fn behind(name: &str, subscription: &str) -> Error {
    let error = Error::user(
        BEHIND,
        format!("cursor \"{name}\" may have missed changes that are not kept any more"),
    );
    error
        .with_detail(format!(
            "It was not read for longer than subscription {subscription} keeps changes."
        ))
        .with_hint(
            "Declare it again: FULL gives the rows that there are and what changes then, SINCE \
             begin() the oldest changes that are kept.",
        )
}
