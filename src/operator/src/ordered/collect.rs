//! Aggregates that go by the order of rows, or by all of them: `array_agg`, `first_value`, `mode`,
//! percentiles. Other aggregates of the same groups are computed beside them.
//!
//! **State.** All rows of each group, in the order of the first call; other calls sort them.
//!
//! **Cost.** A group of which a row has changed is computed anew at the barrier, as it was and as
//! it is; many groups at a time, a column at a time.

use super::calls::argument;
use super::difference::Difference;
use super::partitions::{Partitions, Pending, internal};
use crate::aggregate::{arrow_interval, interval, over_frames};
use crate::closing::Closing;
use crate::{Barrier, Operator, Out};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, IntervalMonthDayNanoArray, ListArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNanoType, SchemaRef};
use std::ops::Range;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{AggregateCall, AggregateFunction, CollectCall, CollectFunction};
use tidemark_state::{Place, SortBy, StateTable};
use tidemark_values::float::towards;

/// Rows of groups that are computed together, about.
const ROWS: usize = 64 * 1024;

/// `Op::Collect`.
pub struct Collect {
    partitions: Partitions,
    group: Vec<usize>,
    calls: Vec<Call>,
    output: SchemaRef,
}

struct Call {
    call: CollectCall,
    /// Its order, where it is not that of the partitions.
    order: Option<Vec<SortBy>>,
}

impl Collect {
    /// Without rows. `output` has the columns `group`, then one per call; the state table is number
    /// `table`.
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        group: &[usize],
        calls: &[CollectCall],
        table: u32,
    ) -> Collect {
        let first = calls
            .iter()
            .map(|c| c.order.as_slice())
            .find(|o| !o.is_empty());
        let first = first.unwrap_or_default();
        let partitions = Partitions::new(input, group, first, None, table);
        let call = |call: &CollectCall| {
            let order = partitions.order_by(&call.order);
            // Without an order of its own any will do.
            let own = call.order.is_empty() || order == partitions.own_order();
            Call {
                call: call.clone(),
                order: (!own).then_some(order),
            }
        };
        Collect {
            calls: calls.iter().map(call).collect(),
            partitions,
            group: group.to_vec(),
            output: output.clone(),
        }
    }

    /// Partitions below this watermark of a column of theirs never change again.
    pub fn closes(mut self, closing: Option<Closing>) -> Collect {
        self.partitions = self.partitions.closes(closing);
        self
    }

    fn evaluate(&self, groups: &Groups) -> Result<Vec<ArrayRef>> {
        let of = |call: &Call| self.call(call, groups);
        self.calls.iter().map(of).collect()
    }

    /// The rows that count for a call, group by group.
    fn selected(&self, call: &Call, groups: &Groups) -> Result<Groups> {
        let mut rows = groups.rows.clone();
        if let Some(order) = &call.order {
            for range in groups.ranges() {
                self.partitions.sort(&mut rows[range], order);
            }
        }
        let CollectCall {
            function,
            arg,
            second,
            filter,
            distinct,
            ..
        } = &call.call;
        let mut counts = vec![true; rows.len()];
        if let Some(filter) = filter {
            let passing = self.partitions.passing(*filter, &rows)?;
            (0..rows.len()).for_each(|i| counts[i] &= passing.value(i));
        }
        let skips_null = !matches!(
            function,
            CollectFunction::Array | CollectFunction::First | CollectFunction::Last
        );
        for arg in arg.iter().chain(second).filter(|_| skips_null) {
            let nulls = self.partitions.column(*arg, &rows)?.logical_nulls();
            let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
            (0..rows.len()).for_each(|i| counts[i] &= valid(i));
        }
        let mut selected = groups.with(&rows, &counts);
        if let (true, Some(compared)) = (*distinct, compared(&call.call)) {
            let first = self.firsts(compared, &selected);
            selected = selected.with(&selected.rows, &first);
        }
        Ok(selected)
    }

    fn call(&self, call: &Call, groups: &Groups) -> Result<ArrayRef> {
        let selected = self.selected(call, groups)?;
        let CollectCall {
            function,
            arg,
            output,
            ..
        } = &call.call;
        if let CollectFunction::Aggregate(function) = function {
            return self.aggregate(*function, &call.call, &selected);
        }
        let arg = arg.ok_or_else(|| Error::internal("a call without argument"))?;
        let values = self.partitions.column(arg, &selected.rows)?;
        let pick = |at: &dyn Fn(Range<usize>) -> usize| {
            let at = |range: Range<usize>| (!range.is_empty()).then(|| at(range) as u32);
            let picked = UInt32Array::from_iter(selected.ranges().map(at));
            take(&values, &picked, None).map_err(internal)
        };
        // Several percentiles are as many of each group that has rows.
        let lengths = |parts: &[Option<u64>]| {
            let each = parts.len();
            let length = move |r: Range<usize>| if r.is_empty() { 0 } else { each };
            selected.ranges().map(length)
        };
        match function {
            CollectFunction::First => pick(&|range| range.start),
            CollectFunction::Last => pick(&|range| range.end - 1),
            CollectFunction::PercentileDisc(bits) => pick(&|range| place(*bits, range)),
            CollectFunction::Mode => {
                let first = self.firsts(compared(&call.call).unwrap_or(arg), &selected);
                pick(&|range| most(&first, range))
            }
            CollectFunction::PercentilesDisc(parts) => {
                let places = of_each(parts, &selected, |bits, range| Some(place(bits, range)));
                let places = places.into_iter().map(|place| place.map(|p| p as u32));
                let values = take(&values, &UInt32Array::from_iter(places), None);
                lists(output, lengths(parts), &selected, values.map_err(internal)?)
            }
            CollectFunction::PercentileCont(bits) => {
                let between = selected.ranges().map(|range| Between::new(*bits, range));
                between_all(&values, &between.collect::<Vec<_>>())
            }
            CollectFunction::PercentilesCont(parts) => {
                let between = of_each(parts, &selected, Between::new);
                let values = between_all(&values, &between)?;
                lists(output, lengths(parts), &selected, values)
            }
            CollectFunction::Array | CollectFunction::Aggregate(_) => {
                let lengths = selected.ranges().map(|r| r.len());
                lists(output, lengths, &selected, values)
            }
        }
    }

    fn aggregate(
        &self,
        function: AggregateFunction,
        call: &CollectCall,
        selected: &Groups,
    ) -> Result<ArrayRef> {
        let columns = call.arg.iter().chain(&call.second);
        let columns = columns.map(|c| self.partitions.column(*c, &selected.rows));
        let values = argument(&columns.collect::<Result<Vec<_>>>()?)?;
        let call = AggregateCall {
            function,
            arg: call.arg,
            second: call.second,
            distinct: false,
            filter: None,
            order: Vec::new(),
            output: call.output.clone(),
        };
        let frames: Vec<[Range<usize>; 1]> = selected.ranges().map(|range| [range]).collect();
        over_frames(&call, values.as_ref(), None, selected.rows.len(), &frames)
    }

    /// Which rows have another value than the one before in their group.
    fn firsts(&self, column: usize, groups: &Groups) -> Vec<bool> {
        let mut first = vec![true; groups.rows.len()];
        for range in groups.ranges() {
            for i in range.skip(1) {
                let (before, row) = (groups.rows[i - 1], groups.rows[i]);
                first[i] = !self.partitions.have_same(column, before, row);
            }
        }
        first
    }

    /// Sends what differs between groups as they were and as they are, side by side.
    fn send(&self, old: &Groups, new: &Groups, out: &mut dyn Out) -> Result<()> {
        let mut difference = Difference::new(self.evaluate(old)?, self.evaluate(new)?);
        for (i, (was, is)) in old.ranges().zip(new.ranges()).enumerate() {
            if !was.is_empty() && !is.is_empty() && difference.is_same(i, i) {
                continue;
            }
            if !was.is_empty() {
                difference.was(old.rows[was.start], i);
            }
            if !is.is_empty() {
                difference.is(new.rows[is.start], i);
            }
        }
        difference.send(&self.partitions, &self.group, &self.output, out)
    }
}

/// The column in which rows are equal that count once, or together: of values that are equal and
/// look different it has what they have in common, and they are ordered by it.
fn compared(call: &CollectCall) -> Option<usize> {
    let first = call.order.first().map(|key| key.column);
    first.or(call.arg)
}

/// The row of a group, which has some, that so large a part of its rows comes up to.
fn place(bits: u64, range: Range<usize>) -> usize {
    let place = (f64::from_bits(bits) * range.len() as f64).ceil() as usize;
    range.start + place.saturating_sub(1).min(range.len() - 1)
}

/// What lies some part of the way from one row to another.
#[derive(Clone, Copy)]
struct Between {
    low: usize,
    high: usize,
    part: f64,
}

impl Between {
    /// At this part of a group; nothing of no rows.
    fn new(bits: u64, range: Range<usize>) -> Option<Between> {
        let at = f64::from_bits(bits) * (range.len().checked_sub(1)? as f64);
        Some(Between {
            low: range.start + at.floor() as usize,
            high: range.start + at.ceil() as usize,
            part: at - at.floor(),
        })
    }
}

/// The values there, as doubles or as intervals.
fn between_all(values: &ArrayRef, places: &[Option<Between>]) -> Result<ArrayRef> {
    if let DataType::Interval(_) = values.data_type() {
        let values = values.as_primitive::<IntervalMonthDayNanoType>();
        let value = |place: &Between| {
            let [low, high] = [place.low, place.high].map(|row| interval(values.value(row)));
            arrow_interval(low.towards(high, place.part)?)
        };
        let values = places
            .iter()
            .map(|place| place.as_ref().map(value).transpose());
        let values = values.collect::<Result<IntervalMonthDayNanoArray>>()?;
        return Ok(Arc::new(values));
    }
    let values = cast(values, &DataType::Float64).map_err(internal)?;
    let values = values.as_primitive::<Float64Type>();
    let value = |b: &Between| towards(values.value(b.low), values.value(b.high), b.part);
    let values = places.iter().map(|place| place.as_ref().map(value));
    Ok(Arc::new(values.collect::<Float64Array>()))
}

/// Something of each part of each group that has rows, one group after the other; nothing of a part
/// that is none.
fn of_each<T>(
    parts: &[Option<u64>],
    groups: &Groups,
    of: impl Fn(u64, Range<usize>) -> Option<T>,
) -> Vec<Option<T>> {
    let there = groups.ranges().filter(|range| !range.is_empty());
    let of = &of;
    let each = there.flat_map(|range| {
        let of_part = move |part: &Option<u64>| part.and_then(|bits| of(bits, range.clone()));
        parts.iter().map(of_part)
    });
    each.collect()
}

/// Values as lists of these lengths; NULL for a group without rows.
fn lists(
    output: &DataType,
    lengths: impl Iterator<Item = usize>,
    groups: &Groups,
    values: ArrayRef,
) -> Result<ArrayRef> {
    let DataType::List(element) = output else {
        return Err(Error::internal("what is collected is a list"));
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    let nulls: NullBuffer = groups.ranges().map(|r| !r.is_empty()).collect();
    let list = ListArray::try_new(element.clone(), offsets, values, Some(nulls));
    Ok(Arc::new(list.map_err(internal)?))
}

/// Where the first of the longest stretches of equal values begins.
fn most(first: &[bool], range: Range<usize>) -> usize {
    let (mut best, mut longest, mut start) = (range.start, 0, range.start);
    for i in range {
        if first[i] {
            start = i;
        }
        if i + 1 - start > longest {
            (best, longest) = (start, i + 1 - start);
        }
    }
    best
}

/// Rows of groups, one after the other.
#[derive(Default)]
struct Groups {
    rows: Vec<u32>,
    /// Where each group ends.
    ends: Vec<usize>,
}

impl Groups {
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| start..*end)
    }

    fn push(&mut self, row: u32, copies: i64) {
        self.rows.extend((0..copies).map(|_| row));
    }

    fn end(&mut self) {
        self.ends.push(self.rows.len());
    }

    /// The same groups with those of `rows` that count.
    fn with(&self, rows: &[u32], counts: &[bool]) -> Groups {
        let mut kept = Groups::default();
        for range in self.ranges() {
            let some = range.filter(|i| counts[*i]).map(|i| rows[i]);
            kept.rows.extend(some);
            kept.end();
        }
        kept
    }
}

impl Operator for Collect {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.partitions.take_pending();
        let (mut old, mut new) = (Groups::default(), Groups::default());
        let mut left = Vec::new();
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            if changes.iter().any(|c| c.weight != 0) {
                self.read(changes, &mut old, &mut new);
            }
            self.partitions.apply(changes, &mut left);
            if old.rows.len() + new.rows.len() >= ROWS {
                self.send(&std::mem::take(&mut old), &std::mem::take(&mut new), out)?;
                self.partitions.free(&mut left);
            }
        }
        self.send(&old, &new, out)?;
        self.partitions.free(&mut left);
        self.partitions.forget_closed(barrier)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.partitions]
    }
}

impl Collect {
    /// A group as it was and as it is.
    fn read(&self, changes: &[Pending], old: &mut Groups, new: &mut Groups) {
        let list = self.partitions.list(changes[0].partition);
        let mut changes = changes.iter().peekable();
        for row in list.iter_from(Place::FIRST) {
            let was = self.partitions.weight(row);
            let change = changes.next_if(|c| c.row == row).map_or(0, |c| c.weight);
            old.push(row, was);
            new.push(row, was + change);
        }
        old.end();
        new.end();
    }
}

#[cfg(test)]
mod tests;
