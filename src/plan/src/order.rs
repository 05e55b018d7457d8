//! Rows in an order: the first of each partition, and functions of the rows around each.

use crate::AggregateFunction;
use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

/// A column that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Which column.
    pub column: usize,
    /// The greatest value comes first.
    pub descending: bool,
    /// NULL comes before all values; otherwise behind them.
    pub nulls_first: bool,
}

/// How rows are numbered that are equal by the sort keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ranking {
    /// Each has a number of its own, in the order of their other columns.
    RowNumber,
    /// All have the number of the first of them.
    Rank,
    /// The same, and the next ones have the next number.
    DenseRank,
}

/// A function of the rows of a partition, for each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowCall {
    /// Which.
    pub function: WindowFunction,
    /// Columns of its arguments.
    pub args: Vec<usize>,
    /// `FILTER (WHERE column)`, of aggregates: a boolean column.
    pub filter: Option<usize>,
    /// The rows that it is about, of functions that have a frame.
    pub frame: Frame,
    /// Type of the result.
    pub output: DataType,
}

/// What is computed of the rows of a group, in an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectCall {
    /// Which function.
    pub function: CollectFunction,
    /// Its argument column (none for `count(*)`).
    pub arg: Option<usize>,
    /// The second argument column, of aggregates of pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<usize>,
    /// What the rows are ordered by; rows that are equal by it, by their other columns.
    pub order: Vec<SortKey>,
    /// Of rows with equal arguments, which stand side by side, the first counts.
    pub distinct: bool,
    /// `FILTER (WHERE column)`: a boolean column.
    pub filter: Option<usize>,
    /// Type of the result.
    pub output: DataType,
}

/// The functions of rows in an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectFunction {
    /// `array_agg`: the arguments as a list; NULL of no rows.
    Array,
    /// The argument of the first row.
    First,
    /// The argument of the last row.
    Last,
    /// Of the arguments that are not NULL the first that is there most often.
    Mode,
    /// Of the arguments that are not NULL the one at this part of them (a double, by its bits).
    PercentileDisc(u64),
    /// What lies there between two of them, as a double; of intervals as an interval.
    PercentileCont(u64),
    /// An aggregate of all rows.
    Aggregate(AggregateFunction),
    /// `PercentileDisc` of each of these, as a list; NULL where there is none.
    PercentilesDisc(Vec<Option<u64>>),
    /// The same of `PercentileCont`.
    PercentilesCont(Vec<Option<u64>>),
}

impl CollectCall {
    /// The columns that it reads, to be changed.
    pub fn columns_mut(&mut self) -> impl Iterator<Item = &mut usize> {
        let order = self.order.iter_mut().map(|k| &mut k.column);
        let args = self.arg.iter_mut().chain(&mut self.second);
        args.chain(&mut self.filter).chain(order)
    }
}

/// The window functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowFunction {
    /// The row's number, as bigint.
    Ranking(Ranking),
    /// `(rank - 1) / (rows - 1)`.
    PercentRank,
    /// The part of rows that are not behind this one and its peers.
    CumeDist,
    /// The partition in this many parts of about equal size.
    Ntile(i64),
    /// The first argument at the row that is so many behind (before, if negative); the second, if
    /// there is one, where there is no such row.
    Shifted(i64),
    /// The argument at the frame's first row.
    FirstValue,
    /// The argument at the frame's last row.
    LastValue,
    /// The argument at the frame's row of this number, from 1.
    NthValue(i64),
    /// An aggregate of the frame's rows.
    Aggregate(AggregateFunction),
    /// The arguments of the frame's rows, as a list; NULL without rows.
    Array,
    /// `Ntile` of as many parts as the argument says at the first row where it is not NULL; rows
    /// before that have none.
    NtileBy,
    /// The first argument at the row that is as many before as the second says at this row.
    LagBy,
    /// The first argument at the row that is as many behind as the second says at this row.
    LeadBy,
    /// The first argument at the frame's row of the number, from 1, that the second has here.
    NthValueBy,
}

/// The rows around a row, both bounds included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What the offsets of the bounds count.
    pub units: FrameUnits,
    /// The first row.
    pub start: FrameBound,
    /// The last row.
    pub end: FrameBound,
    /// Rows between them that do not belong to it.
    #[serde(default, skip_serializing_if = "Excluded::is_nothing")]
    pub excluded: Excluded,
    /// With an end that is a value: how far behind the sort key, a moment, it lies, in
    /// microseconds, where that is the same for all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_micros: Option<i64>,
}

/// Rows that a frame leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
pub enum Excluded {
    /// None.
    #[default]
    Nothing,
    /// The current row.
    CurrentRow,
    /// The current row and its peers.
    Group,
    /// Its peers without itself.
    Ties,
}

impl Excluded {
    /// Whether it is `Nothing`.
    pub fn is_nothing(&self) -> bool {
        *self == Excluded::Nothing
    }
}

/// What the offsets of a frame count. With `Range` there are none but 0, the row's peers: it goes
/// by values.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameUnits {
    Rows,
    Groups,
    Range,
}

/// A bound of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameBound {
    /// The partition's first row, or its last.
    Unbounded,
    /// So many rows, or groups of peers, behind the current one (before it, if negative).
    Offset(i64),
    /// The first row whose sort key is not before the value of this column, or the last that is
    /// not behind it. There is one sort key, the last: those before it order as it does.
    Value(usize),
}

impl FrameBound {
    /// The current row, or its peers.
    pub const CURRENT: FrameBound = FrameBound::Offset(0);

    /// The column that it reads, to be changed.
    pub fn column_mut(&mut self) -> Option<&mut usize> {
        match self {
            FrameBound::Value(column) => Some(column),
            _ => None,
        }
    }
}

impl WindowCall {
    /// The columns that it reads, to be changed.
    pub fn columns_mut(&mut self) -> impl Iterator<Item = &mut usize> {
        let Frame { start, end, .. } = &mut self.frame;
        let bounds = start.column_mut().into_iter().chain(end.column_mut());
        self.args.iter_mut().chain(&mut self.filter).chain(bounds)
    }
}
