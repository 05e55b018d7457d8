//! Session windows: rows of a partition that follow each other within a gap are one session, which
//! begins at its first row and ends a gap after its last one.
//!
//! **Algebra.** The input's columns, and the beginning and end of the row's session. A row whose
//! time is NULL is in none, and has NULLs.
//!
//! **Cost.** A change reaches the sessions that it touches, as they were and as they are: those are
//! walked, and only rows whose session differs are sent. Rows of both are linked: where rows come
//! between, they link more, and so no session, old or new, goes beyond what is walked.
//!
//! **Time.** A session that ends before the watermark has ended: a row that comes is more than a
//! gap behind it. Its rows are forgotten.

use super::difference::{Difference, SENT_ROWS};
use super::partitions::{Partitions, Pending};
use crate::closing::{Closing, moments};
use crate::{Barrier, Operator, Out};
use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::SortKey;
use tidemark_state::StateTable;

/// Rows whose results are compared together, about.
const ROWS: usize = 64 * 1024;

/// Rows whose times are looked at together: the first ones of a walk, and at most.
const LOOKED_AT: (usize, usize) = (16, 4096);

/// `Op::Session`.
pub struct Session {
    partitions: Partitions,
    time: usize,
    gap: i64,
    width: usize,
    output: SchemaRef,
    closing: Option<Closing>,
}

/// A session: its beginning and its end.
type Span = (Option<i64>, Option<i64>);

/// A row that a change reaches.
struct Linked {
    row: u32,
    time: Option<i64>,
    /// How often it was there, and is there.
    copies: [i64; 2],
}

/// Rows with their sessions as they were and as they are.
#[derive(Default)]
struct Found {
    rows: Vec<(u32, [i64; 2])>,
    olds: Vec<Span>,
    news: Vec<Span>,
}

impl Session {
    /// Without rows. `time` is a column of `input` of microseconds, `gap` is in microseconds;
    /// `output` has the columns of the input, then beginning and end. The state table is number
    /// `table`.
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        partition: &[usize],
        (time, gap): (usize, i64),
        closing: Option<Closing>,
        table: u32,
    ) -> Session {
        let order = SortKey {
            column: time,
            descending: false,
            nulls_first: false,
        };
        Session {
            partitions: Partitions::new(input, partition, &[order], None, table),
            time,
            gap,
            width: input.fields().len(),
            output: output.clone(),
            closing,
        }
    }

    /// Rows with their times, in turn.
    fn timed<'a>(
        &'a self,
        mut rows: impl Iterator<Item = u32> + 'a,
    ) -> impl Iterator<Item = Result<(u32, Option<i64>)>> + 'a {
        let mut some: std::vec::IntoIter<(u32, Option<i64>)> = Vec::new().into_iter();
        let mut count = LOOKED_AT.0;
        std::iter::from_fn(move || {
            if let Some(next) = some.next() {
                return Some(Ok(next));
            }
            let next: Vec<u32> = rows.by_ref().take(count).collect();
            count = (count * 2).min(LOOKED_AT.1);
            let times = match self.partitions.column(self.time, &next) {
                Ok(times) => times,
                Err(error) => return Some(Err(error)),
            };
            let timed: Vec<_> = next.into_iter().zip(moments(&times)).collect();
            some = timed.into_iter();
            some.next().map(Ok)
        })
    }

    fn are_linked(&self, before: Option<i64>, after: Option<i64>) -> bool {
        match (before, after) {
            (Some(before), Some(after)) => after.saturating_sub(before) <= self.gap,
            _ => false,
        }
    }

    /// Adds the rows that the changes of a partition reach.
    fn reach(&self, changes: &[Pending], found: &mut Found) -> Result<()> {
        let mut next = 0;
        while next < changes.len() {
            if changes[next].weight == 0 {
                next += 1;
                continue;
            }
            let linked = self.linked(changes, &mut next)?;
            found.add(&linked, self.gap, self);
        }
        Ok(())
    }

    /// The rows that are linked with that of the next change, and what is changed of them.
    fn linked(&self, changes: &[Pending], next: &mut usize) -> Result<Vec<Linked>> {
        let first = changes[*next];
        let list = self.partitions.list(first.partition);
        let place = self.partitions.place(first.partition, first.row);
        let mut linked = Vec::new();
        let mut at = self.timed(std::iter::once(first.row));
        let mut after = at.next().transpose()?.and_then(|(_, time)| time);
        for before in self.timed(list.iter_before(place)) {
            let (row, time) = before?;
            let weight = self.partitions.weight(row);
            if weight <= 0 {
                continue;
            }
            if !self.are_linked(time, after) {
                break;
            }
            after = time;
            let copies = [weight, weight];
            linked.push(Linked { row, time, copies });
        }
        linked.reverse();
        for here in self.timed(list.iter_from(place)) {
            let (row, time) = here?;
            let change = changes.get(*next).filter(|change| change.row == row);
            let was = self.partitions.weight(row);
            let is = was + change.map_or(0, |change| change.weight);
            let is_there = was > 0 || is > 0;
            let last = linked.last().map(|last: &Linked| last.time);
            if is_there && last.is_some_and(|last| !self.are_linked(last, time)) {
                break;
            }
            *next += usize::from(change.is_some());
            if is_there {
                let copies = [was.max(0), is.max(0)];
                linked.push(Linked { row, time, copies });
            }
        }
        // A change of what is not there, and was not, is none.
        *next += usize::from(changes.get(*next) == Some(&first));
        Ok(linked)
    }

    /// Sends what differs.
    fn send(&self, found: Found, out: &mut dyn Out) -> Result<()> {
        let mut difference = Difference::new(self.spans(&found.olds), self.spans(&found.news));
        for (at, (row, [was, is])) in found.rows.iter().enumerate() {
            let same = (*was).min(*is);
            let same = if same > 0 && difference.is_same(at, at) {
                same
            } else {
                0
            };
            (same..*was).for_each(|_| difference.was(*row, at));
            (same..*is).for_each(|_| difference.is(*row, at));
        }
        let all: Vec<usize> = (0..self.width).collect();
        difference.send(&self.partitions, &all, &self.output, out)
    }

    /// Beginnings and ends as columns.
    fn spans(&self, spans: &[Span]) -> Vec<ArrayRef> {
        let column = |at: usize, value: fn(&Span) -> Option<i64>| -> ArrayRef {
            let values: TimestampMicrosecondArray = spans.iter().map(value).collect();
            Arc::new(match self.output.field(self.width + at).data_type() {
                DataType::Timestamp(_, zone) => values.with_timezone_opt(zone.clone()),
                _ => values,
            })
        };
        vec![column(0, |span| span.0), column(1, |span| span.1)]
    }

    /// Forgets rows of sessions that have ended, if it is worth while.
    fn forget_ended(&mut self, barrier: &Barrier) -> Result<()> {
        let Some(mut closing) = self.closing.take() else {
            return Ok(());
        };
        if let Some(watermark) = closing.due(barrier, self.partitions.listed())? {
            let mut left = Vec::new();
            for partition in self.partitions.all() {
                for _ in 0..self.ended(partition, watermark)? {
                    self.partitions.pop_first(partition, &mut left);
                }
                if left.len() >= SENT_ROWS {
                    self.partitions.free(&mut left);
                }
            }
            self.partitions.free(&mut left);
            closing.forgot(self.partitions.listed());
        }
        self.closing = Some(closing);
        Ok(())
    }

    /// How many of a partition's first rows are of sessions that end before a watermark.
    fn ended(&self, partition: u32, watermark: i64) -> Result<usize> {
        let (mut ended, mut last) = (0, None);
        let list = self.partitions.list(partition);
        for (at, timed) in self.timed(list.iter()).enumerate() {
            let (_, time) = timed?;
            if !self.are_linked(last, time) {
                ended = at;
            }
            let has_ended = |time: i64| time.saturating_add(self.gap) < watermark;
            if !time.is_some_and(has_ended) {
                return Ok(ended);
            }
            last = time;
        }
        Ok(list.len())
    }
}

impl Found {
    /// Adds rows that are linked, each with its sessions.
    fn add(&mut self, linked: &[Linked], gap: i64, session: &Session) {
        let first = self.rows.len();
        self.rows
            .extend(linked.iter().map(|row| (row.row, row.copies)));
        for (which, spans) in [&mut self.olds, &mut self.news].into_iter().enumerate() {
            spans.resize(self.rows.len(), (None, None));
            let spans = &mut spans[first..];
            let there = (0..linked.len()).filter(|at| linked[*at].copies[which] > 0);
            let there: Vec<usize> = there.collect();
            let goes_on =
                |a: &usize, b: &usize| session.are_linked(linked[*a].time, linked[*b].time);
            for one in there.chunk_by(goes_on) {
                let end = linked[one[one.len() - 1]].time;
                let span = (linked[one[0]].time, end.map(|end| end.saturating_add(gap)));
                one.iter().for_each(|at| spans[*at] = span);
            }
        }
    }
}

impl Operator for Session {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.partitions.take_pending();
        let (mut found, mut left) = (Found::default(), Vec::new());
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            self.reach(changes, &mut found)?;
            self.partitions.apply(changes, &mut left);
            if found.rows.len() >= ROWS {
                self.send(std::mem::take(&mut found), out)?;
                self.partitions.free(&mut left);
            }
        }
        self.send(found, out)?;
        self.partitions.free(&mut left);
        self.forget_ended(barrier)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.partitions]
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{History, Row, schema, text};
    use super::*;
    use arrow::datatypes::{Field, Schema, TimeUnit};

    const GAP: i64 = 3;

    /// The columns of a row: partition, time, value; the time is a timestamp for the operator.
    fn timed(columns: usize) -> SchemaRef {
        let fields = schema(columns);
        let at = |(i, field): (usize, &Arc<Field>)| match i {
            1 | 3 | 4 => Field::new(
                field.name(),
                DataType::Timestamp(TimeUnit::Microsecond, None),
                true,
            ),
            _ => field.as_ref().clone(),
        };
        let fields: Vec<Field> = fields.fields().iter().enumerate().map(at).collect();
        Arc::new(Schema::new(fields))
    }

    /// Puts the integers of a history into timestamps and back.
    struct Adapted(Session);

    fn cast(batch: &ChangeBatch, to: &SchemaRef) -> ChangeBatch {
        let columns = batch.rows().columns().iter().zip(to.fields());
        let columns = columns.map(|(c, f)| arrow::compute::cast(c, f.data_type()).unwrap());
        let rows = arrow::array::RecordBatch::try_new(to.clone(), columns.collect()).unwrap();
        ChangeBatch::with_weights(rows, batch.weights().cloned())
    }

    struct Back<'a>(&'a mut dyn Out);

    impl Out for Back<'_> {
        fn send(&mut self, batch: ChangeBatch) -> Result<()> {
            self.0.send(cast(&batch, &schema(5)))
        }
        fn row_error(&mut self, error: crate::RowError) -> Result<()> {
            self.0.row_error(error)
        }
    }

    impl Operator for Adapted {
        fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
            self.0
                .on_changes(port, cast(&batch, &timed(3)), &mut Back(out))
        }
        fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
            self.0.on_barrier(barrier, &mut Back(out))
        }
        fn tables(&mut self) -> Vec<&mut dyn StateTable> {
            self.0.tables()
        }
    }

    /// Sessions by definition: a row's session goes as far as there are rows within a gap.
    fn expected(rows: &[Row]) -> Vec<String> {
        let session = |row: &Row| {
            let at = row[1]?;
            let times = || rows.iter().filter(|r| r[0] == row[0]).flat_map(|r| r[1]);
            let (mut start, mut end) = (at, at);
            while let Some(time) = times().find(|t| *t < start && start - t <= GAP) {
                start = time;
            }
            while let Some(time) = times().find(|t| *t > end && t - end <= GAP) {
                end = time;
            }
            Some((start, end + GAP))
        };
        let line = |row: &Row| {
            let span = session(row);
            let [p, o, x] = *row;
            text(&[p, o, x, span.map(|s| s.0), span.map(|s| s.1)])
        };
        rows.iter().map(line).collect()
    }

    #[test]
    fn sessions_are_what_they_are_by_definition() {
        let new = || {
            let session = Session::new(&timed(3), &timed(5), &[0], (1, GAP), None, 0);
            Box::new(Adapted(session)) as Box<dyn Operator>
        };
        for seed in 0..2000 {
            History {
                seed,
                append_only: seed % 3 == 0,
                durable: true,
                operator: &new,
                expected: &expected,
            }
            .check();
        }
    }
}
