//! What window functions are of rows in their order.

use super::partitions::{Partitions, internal};
use crate::aggregate::{over_frames, pairs};
use crate::pieces::{Pieces, pieces, rows as rows_of};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, UInt32Array, make_comparator,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Int64Type};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{
    AggregateCall, AggregateFunction, Frame, FrameBound, FrameUnits, Ranking, WindowCall,
    WindowFunction,
};

/// How far a change of rows reaches in their order, in rows; `usize::MAX` is all the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Results change of so many rows before the first change.
    pub changed_before: usize,
    /// Results change of so many rows behind the last one.
    pub changed_after: usize,
    /// These read so many rows before them.
    pub read_before: usize,
    /// These read so many rows behind them.
    pub read_after: usize,
    /// Results change of the peers of rows that change.
    pub peers: bool,
}

impl Reach {
    /// Of several calls together.
    pub fn of(calls: &[WindowCall]) -> Reach {
        calls
            .iter()
            .map(Reach::of_call)
            .fold(Reach::default(), |a, b| Reach {
                changed_before: a.changed_before.max(b.changed_before),
                changed_after: a.changed_after.max(b.changed_after),
                read_before: a.read_before.max(b.read_before),
                read_after: a.read_after.max(b.read_after),
                peers: a.peers || b.peers,
            })
    }

    fn of_call(call: &WindowCall) -> Reach {
        const WHOLE: Reach = Reach {
            changed_before: usize::MAX,
            changed_after: usize::MAX,
            read_before: usize::MAX,
            read_after: usize::MAX,
            peers: true,
        };
        let running = |peers| Reach {
            changed_before: 0,
            changed_after: usize::MAX,
            read_before: usize::MAX,
            read_after: 0,
            peers,
        };
        match &call.function {
            WindowFunction::Ranking(ranking) => running(*ranking != Ranking::RowNumber),
            WindowFunction::PercentRank
            | WindowFunction::CumeDist
            | WindowFunction::Ntile(_)
            | WindowFunction::NtileBy
            | WindowFunction::LagBy
            | WindowFunction::LeadBy => WHOLE,
            WindowFunction::Shifted(by) => Reach::of_rows(*by, *by),
            // What a frame leaves out of its rows is told by these rows.
            WindowFunction::FirstValue
            | WindowFunction::LastValue
            | WindowFunction::NthValue(_)
            | WindowFunction::NthValueBy
            | WindowFunction::Array
            | WindowFunction::Aggregate(_) => match (call.frame.units, call.frame.start) {
                (FrameUnits::Rows, _) => {
                    let start = match call.frame.start {
                        FrameBound::Unbounded => i64::MIN,
                        FrameBound::Offset(rows) => rows,
                        FrameBound::Value(_) => return WHOLE,
                    };
                    let end = match call.frame.end {
                        FrameBound::Unbounded => i64::MAX,
                        FrameBound::Offset(rows) => rows,
                        FrameBound::Value(_) => return WHOLE,
                    };
                    Reach::of_rows(start, end)
                }
                (_, FrameBound::Unbounded) if call.frame.end == FrameBound::CURRENT => {
                    running(true)
                }
                _ => WHOLE,
            },
        }
    }

    /// Of a frame between two rows.
    fn of_rows(start: i64, end: i64) -> Reach {
        let rows = |n: i64| match n {
            i64::MAX => usize::MAX,
            n => usize::try_from(n).unwrap_or(0),
        };
        let (before, after) = (rows(start.saturating_neg()), rows(end));
        Reach {
            changed_before: after,
            changed_after: before,
            read_before: before,
            read_after: after,
            peers: false,
        }
    }
}

/// The argument of an aggregate, of two that they are pairs.
pub(super) fn argument(columns: &[ArrayRef]) -> Result<Option<ArrayRef>> {
    match columns {
        [first, second] => pairs(first, second).map(Some),
        columns => Ok(columns.first().cloned()),
    }
}

/// The calls of a window.
pub(super) struct Calls {
    calls: Vec<WindowCall>,
}

/// Rows in their order, partition by partition; of each all rows, or those that are looked at.
struct Sequence<'a> {
    partitions: &'a Partitions,
    rows: &'a [u32],
    slices: Vec<Slice>,
    /// The slice of each row.
    slice_of: Vec<usize>,
    /// First row of each group of peers, and the number of rows behind the last.
    groups: Vec<usize>,
    /// The group of each row.
    group_of: Vec<usize>,
}

/// The rows of one partition.
struct Slice {
    rows: Range<usize>,
    /// The groups of peers that they are.
    groups: Range<usize>,
}

impl Calls {
    pub fn new(calls: &[WindowCall]) -> Calls {
        Calls {
            calls: calls.to_vec(),
        }
    }

    /// The results of each call for these rows; `ends` is where those of each partition end.
    pub fn evaluate(
        &self,
        partitions: &Partitions,
        rows: &[u32],
        ends: &[usize],
    ) -> Result<Vec<ArrayRef>> {
        let sequence = Sequence::new(partitions, rows, ends);
        let result = |call: &WindowCall| {
            let result = sequence.call(call)?;
            if *result.data_type() == call.output {
                return Ok(result);
            }
            cast(&result, &call.output).map_err(internal)
        };
        self.calls.iter().map(result).collect()
    }
}

impl<'a> Sequence<'a> {
    fn new(partitions: &'a Partitions, rows: &'a [u32], ends: &[usize]) -> Sequence<'a> {
        let (mut groups, mut group_of) = (Vec::new(), Vec::with_capacity(rows.len()));
        let (mut slices, mut slice_of) = (Vec::new(), Vec::with_capacity(rows.len()));
        let mut start = 0;
        for end in ends {
            let first_group = groups.len();
            for i in start..*end {
                let peers = i > start && partitions.compare_keys(rows[i - 1], rows[i]).is_eq();
                if !peers {
                    groups.push(i);
                }
                group_of.push(groups.len() - 1);
                slice_of.push(slices.len());
            }
            slices.push(Slice {
                rows: start..*end,
                groups: first_group..groups.len(),
            });
            start = *end;
        }
        groups.push(rows.len());
        Sequence {
            partitions,
            rows,
            slices,
            slice_of,
            groups,
            group_of,
        }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, column: usize) -> Result<ArrayRef> {
        self.partitions.column(column, self.rows)
    }

    /// The rows of a row's partition.
    fn slice(&self, row: usize) -> &Slice {
        &self.slices[self.slice_of[row]]
    }

    /// Rows of its partition before a row's group of peers.
    fn before_peers(&self, row: usize) -> usize {
        self.groups[self.group_of[row]] - self.slice(row).rows.start
    }

    fn call(&self, call: &WindowCall) -> Result<ArrayRef> {
        let argument = |at: usize| {
            let column = call.args.get(at);
            let column = column.ok_or_else(|| Error::internal("a call without argument"))?;
            self.column(*column)
        };
        let value = || argument(0);
        // Of each row.
        let numbers = |at: usize| {
            let numbers = cast(&argument(at)?, &DataType::Int64).map_err(internal)?;
            Ok::<_, Error>(numbers.as_primitive::<Int64Type>().clone())
        };
        Ok(match &call.function {
            WindowFunction::Ranking(ranking) => self.ranks(*ranking),
            WindowFunction::PercentRank => self.numbers(|row| {
                let others = self.slice(row).rows.len() - 1;
                self.before_peers(row) as f64 / others.max(1) as f64
            }),
            WindowFunction::CumeDist => self.numbers(|row| {
                let Range { start, end } = self.slice(row).rows;
                let behind_peers = self.groups[self.group_of[row] + 1];
                (behind_peers - start) as f64 / (end - start) as f64
            }),
            WindowFunction::Ntile(parts) => self.parts(|rows| Some((rows.start, *parts))),
            WindowFunction::NtileBy => {
                let parts = numbers(0)?;
                self.parts(|rows| {
                    let first = rows.clone().find(|row| parts.is_valid(*row))?;
                    Some((first, parts.value(first)))
                })
            }
            WindowFunction::Shifted(by) => {
                let default = call.args.get(1).map(|c| self.column(*c)).transpose()?;
                self.shifted(&value()?, default.as_ref(), |_| Some(*by))?
            }
            WindowFunction::LagBy | WindowFunction::LeadBy => {
                let offsets = numbers(1)?;
                let is_back = call.function == WindowFunction::LagBy;
                self.shifted(&value()?, None, |row| {
                    let by = offsets.is_valid(row).then(|| offsets.value(row))?;
                    if is_back { by.checked_neg() } else { Some(by) }
                })?
            }
            WindowFunction::FirstValue => {
                self.values(&value()?, call.frame, |_, frame| rows_of(frame).next())?
            }
            WindowFunction::LastValue => self.values(&value()?, call.frame, |_, frame| {
                let last = frame.iter().rfind(|rows| !rows.is_empty())?;
                last.end.checked_sub(1)
            })?,
            WindowFunction::NthValue(n) => {
                self.values(&value()?, call.frame, |_, frame| nth(frame, *n))?
            }
            WindowFunction::NthValueBy => {
                let places = numbers(1)?;
                self.values(&value()?, call.frame, |row, frame| {
                    nth(frame, places.is_valid(row).then(|| places.value(row))?)
                })?
            }
            WindowFunction::Array => self.lists(call, &value()?)?,
            WindowFunction::Aggregate(function) => self.aggregate(call, *function)?,
        })
    }

    fn ranks(&self, ranking: Ranking) -> ArrayRef {
        let number = |row| match ranking {
            Ranking::RowNumber => row - self.slice(row).rows.start,
            Ranking::Rank => self.before_peers(row),
            Ranking::DenseRank => self.group_of[row] - self.slice(row).groups.start,
        };
        let numbers = (0..self.len()).map(|row| number(row) as i64 + 1);
        Arc::new(Int64Array::from_iter_values(numbers))
    }

    fn numbers(&self, number: impl Fn(usize) -> f64) -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..self.len()).map(number)))
    }

    /// Parts of the rows from one on, as many as are told of each partition's; the first of them
    /// have a row more, where all rows of the partition cannot be divided equally.
    fn parts(&self, parts: impl Fn(&Range<usize>) -> Option<(usize, i64)>) -> ArrayRef {
        let of_slice = self.slices.iter().map(|slice| parts(&slice.rows));
        let of_slice: Vec<_> = of_slice.collect();
        let part = |row: usize| {
            let (first, parts) = of_slice[self.slice_of[row]]?;
            let rows = self.slice(row).rows.len() as i64;
            let (row, parts) = (row.checked_sub(first)? as i64, parts.max(1));
            let (least, longer) = (rows / parts, rows % parts);
            Some(match row < longer * (least + 1) {
                true => 1 + row / (least + 1),
                false => 1 + longer + (row - longer * (least + 1)) / least.max(1),
            })
        };
        Arc::new(Int64Array::from_iter((0..self.len()).map(part)))
    }

    fn shifted(
        &self,
        values: &ArrayRef,
        default: Option<&ArrayRef>,
        by: impl Fn(usize) -> Option<i64>,
    ) -> Result<ArrayRef> {
        let there = |row: usize| {
            let at = i64::try_from(row).ok()?.checked_add(by(row)?)?;
            let at = usize::try_from(at).ok();
            at.filter(|at| self.slice(row).rows.contains(at))
        };
        let Some(default) = default else {
            let indices = (0..self.len()).map(|row| there(row).map(|at| at as u32));
            return take(values, &UInt32Array::from_iter(indices), None).map_err(internal);
        };
        let places: Vec<(usize, usize)> = (0..self.len())
            .map(|row| there(row).map_or((1, row), |at| (0, at)))
            .collect();
        interleave(&[values.as_ref(), default.as_ref()], &places).map_err(internal)
    }

    /// The value at a row of each row's frame.
    fn values(
        &self,
        values: &ArrayRef,
        frame: Frame,
        at: impl Fn(usize, &Pieces) -> Option<usize>,
    ) -> Result<ArrayRef> {
        let frames = self.frames(frame)?;
        let frames = frames.iter().enumerate();
        let indices = frames.map(|(row, frame)| at(row, frame).map(|at| at as u32));
        take(values, &UInt32Array::from_iter(indices), None).map_err(internal)
    }

    /// Which rows a call counts; all without a filter.
    fn filter(&self, call: &WindowCall) -> Result<Option<BooleanBuffer>> {
        let passing = call.filter.map(|c| self.partitions.passing(c, self.rows));
        passing.transpose()
    }

    /// The values of each frame's rows as a list; NULL without rows.
    fn lists(&self, call: &WindowCall, values: &ArrayRef) -> Result<ArrayRef> {
        let DataType::List(element) = &call.output else {
            return Err(Error::internal("what is collected is a list"));
        };
        let filter = self.filter(call)?;
        let counts = |row: &usize| filter.as_ref().is_none_or(|passing| passing.value(*row));
        let (mut rows, mut lengths) = (Vec::new(), Vec::with_capacity(self.len()));
        for frame in self.frames(call.frame)? {
            let before = rows.len();
            rows.extend(rows_of(&frame).filter(counts).map(|row| row as u32));
            lengths.push(rows.len() - before);
        }
        if i32::try_from(rows.len()).is_err() {
            let message = "the lists of a window function have too many elements together";
            return Err(Error::user(SqlState("54000"), message));
        }
        let values = take(values, &UInt32Array::from(rows), None).map_err(internal)?;
        let nulls: NullBuffer = lengths.iter().map(|length| *length > 0).collect();
        let offsets = OffsetBuffer::from_lengths(lengths);
        let lists = ListArray::try_new(element.clone(), offsets, values, Some(nulls));
        Ok(Arc::new(lists.map_err(internal)?))
    }

    fn aggregate(&self, call: &WindowCall, function: AggregateFunction) -> Result<ArrayRef> {
        let columns = call.args.iter().map(|c| self.column(*c));
        let values = argument(&columns.collect::<Result<Vec<_>>>()?)?;
        let filter = self.filter(call)?;
        let mut frames: Vec<Pieces> = Vec::new();
        let mut frame_of = Vec::with_capacity(self.len());
        for frame in self.frames(call.frame)? {
            if frames.last() != Some(&frame) {
                frames.push(frame);
            }
            frame_of.push(frames.len() as u32 - 1);
        }
        let aggregate = AggregateCall {
            function,
            arg: call.args.first().copied(),
            second: call.args.get(1).copied(),
            distinct: false,
            filter: None,
            order: Vec::new(),
            output: call.output.clone(),
        };
        let results = over_frames(&aggregate, values.as_ref(), filter, self.len(), &frames)?;
        if frames.len() == self.len() {
            return Ok(results);
        }
        take(&results, &UInt32Array::from(frame_of), None).map_err(internal)
    }

    /// The frame of each row.
    fn frames(&self, frame: Frame) -> Result<Vec<Pieces>> {
        let starts = self.edges(frame.units, frame.start, false)?;
        let ends = self.edges(frame.units, frame.end, true)?;
        let of_row = |(row, (start, end)): (usize, (usize, usize))| {
            let group = self.group_of[row];
            let peers = self.groups[group]..self.groups[group + 1];
            pieces(start..end.max(start), frame.excluded, row, peers)
        };
        let frames = starts.into_iter().zip(ends).enumerate();
        Ok(frames.map(of_row).collect())
    }

    /// Where each row's frame begins; or, of its end, where the next row would be.
    fn edges(&self, units: FrameUnits, bound: FrameBound, end: bool) -> Result<Vec<usize>> {
        let at = |of: usize, by: i64, within: &Range<usize>| {
            let at = (of as i64)
                .saturating_add(by)
                .saturating_add(i64::from(end));
            let at = usize::try_from(at).unwrap_or(0);
            at.clamp(within.start, within.end)
        };
        let rows = 0..self.len();
        let whole = |row: usize| {
            let rows = &self.slice(row).rows;
            if end { rows.end } else { rows.start }
        };
        Ok(match (units, bound) {
            (_, FrameBound::Unbounded) => rows.map(whole).collect(),
            (FrameUnits::Rows, FrameBound::Offset(by)) => {
                rows.map(|row| at(row, by, &self.slice(row).rows)).collect()
            }
            (_, FrameBound::Offset(by)) => {
                let group = |row: usize| at(self.group_of[row], by, &self.slice(row).groups);
                rows.map(|row| self.groups[group(row)]).collect()
            }
            (_, FrameBound::Value(column)) => {
                let Some((key, options)) = self.partitions.sort_key() else {
                    // The key is a column of the partition, and the same everywhere.
                    return Ok(rows.map(whole).collect());
                };
                let (keys, values) = (self.column(key)?, self.column(column)?);
                let compare = make_comparator(&keys, &values, options).map_err(internal)?;
                let before = |row: usize, key: usize| match compare(key, row) {
                    Ordering::Less => true,
                    Ordering::Equal => end,
                    Ordering::Greater => false,
                };
                let place = |row: usize| {
                    let Range { mut start, mut end } = self.slice(row).rows;
                    while start < end {
                        let middle = start.midpoint(end);
                        match before(row, middle) {
                            true => start = middle + 1,
                            false => end = middle,
                        }
                    }
                    start
                };
                rows.map(place).collect()
            }
        })
    }
}

/// A frame's row of this number, from 1.
fn nth(frame: &Pieces, number: i64) -> Option<usize> {
    let number = usize::try_from(number).ok()?.checked_sub(1)?;
    rows_of(frame).nth(number)
}
