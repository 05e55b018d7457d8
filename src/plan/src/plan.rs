//! The stream plan: a job is a list of fragments; a fragment is a tree of operators that runs as
//! one actor on every worker; between two fragments rows move by vnode. Fragment numbers are their
//! order of dataflow: a fragment receives only from smaller ones. The last one ends in
//! `Materialize`, `Sink`, or (an append-only source) the source itself.
//!
//! Every relation is a changelog with weights, so operators need no stream key; [`Properties::key`]
//! is known where a unique key is derived and makes state cheaper.

use crate::order::{CollectCall, Ranking, SortKey, WindowCall};
use crate::{ColumnWatermark, Expr, Relation, RelationKind, Watermark};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidemark_common::{RelationId, SplitId};

/// What a job computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPlan {
    /// The relation that the job keeps up to date.
    pub relation: RelationId,
    /// In order of dataflow.
    pub fragments: Vec<Fragment>,
    /// Number of state tables; they are numbered `0..tables` in the operators.
    pub tables: u32,
    /// Of columns of the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<ColumnWatermark>,
}

/// A tree of operators between two exchanges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fragment {
    /// Position in [`JobPlan::fragments`].
    pub id: u32,
    /// The tree; its leaves are `SourceRead`, `TableRead`, `Tap`, `Receive` or `Values`.
    pub root: Node,
    /// Where the root's output goes.
    pub output: Output,
}

/// Where a fragment's output goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// To fragment `to` of the same job, each row to the worker that owns `hash(keys) mod VNODES`;
    /// without keys all rows go to the owner of vnode 0.
    Exchange { to: u32, keys: Vec<usize> },
    /// To fragment `to`, every row to every worker.
    Broadcast { to: u32 },
    /// The end of the job. Other jobs that tap the relation receive the root's output on the same
    /// worker.
    Relation,
    /// To several fragments, or to several leaves of one, in their order: what is computed once and
    /// read more than once. None of them is one of these two.
    Several(Vec<Output>),
}

impl Output {
    /// The places, one by one.
    pub fn each(&self) -> &[Output] {
        match self {
            Output::Several(outputs) => outputs,
            one => std::slice::from_ref(one),
        }
    }
}

/// An operator with its inputs. Stored as `codec` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// Its inputs, in the order of their ports.
    pub inputs: Vec<Node>,
    /// The columns of its output.
    pub schema: SchemaRef,
    /// What is known about its output.
    pub properties: Properties,
}

impl Node {
    /// Whether the tree is a step, or a part of one that depends on the rows of an iteration.
    pub fn reads_working(&self) -> bool {
        match self.op {
            Op::Working => true,
            // Its step reads its own iterations.
            Op::Recursive { .. } => false,
            _ => self.inputs.iter().any(Node::reads_working),
        }
    }

    /// The nodes whose output the operator reads, in the order of its ports: its inputs; of a
    /// recursive query its first input and whatever its step reads but its iterations, from left to
    /// right.
    pub fn read(&self) -> Vec<&Node> {
        let (Op::Recursive { .. }, [first, step]) = (&self.op, self.inputs.as_slice()) else {
            return self.inputs.iter().collect();
        };
        let (mut read, mut open) = (vec![first], vec![step]);
        while let Some(node) = open.pop() {
            match node.op {
                Op::Working => {}
                _ if node.reads_working() => open.extend(node.inputs.iter().rev()),
                _ => read.push(node),
            }
        }
        read
    }
}

/// What the planner has proven about a relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// No row ever leaves: all weights are +1.
    pub append_only: bool,
    /// Columns that are unique among the rows present (an update of a key may still be seen as -old
    /// +new in any order within an epoch).
    pub key: Option<Vec<usize>>,
}

/// The algebra. State table numbers (`table`, `left_table`, ...) are the operator's own and unique
/// within the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Leaf: the records of this job's own source connector. `watermark`: rows below it are late
    /// and dropped (counted). `versioned`: one more column at the end, the row's version
    /// ([`version`]).
    SourceRead {
        columns: Vec<usize>,
        watermark: Option<Watermark>,
        versioned: bool,
    },
    /// Leaf: the written rows (-old +new) of this job's own table.
    TableRead,
    /// Leaf: these columns of another relation's changelog.
    Tap {
        relation: RelationId,
        columns: Vec<usize>,
    },
    /// Leaf: what fragment `from` of this job sends.
    Receive { from: u32 },
    /// Leaf: constant rows, on the worker that owns vnode 0, in the job's first epoch.
    Values { rows: Vec<Vec<Expr>> },
    /// Rows for which the predicate is true.
    Filter { predicate: Expr },
    /// One output column per expression.
    Project { exprs: Vec<Expr> },
    /// All rows of all inputs, which have the same types.
    Union,
    /// Each input row once for every row of `rows`, whose columns are appended (a cross join with
    /// constants; HOP windows).
    Expand { rows: Vec<Vec<Expr>> },
    /// Each row once for every element of its lists, which stand side by side: as often as the
    /// longest has elements, and at least once if `keep_empty`. An append-only input stays such.
    Unnest {
        lists: Vec<usize>,
        output: Vec<Unnested>,
        keep_empty: bool,
    },
    /// An equi-join with an optional residual condition over `left columns ++ right columns`.
    /// Output: for inner and outer joins `output` picks from left ++ right; for semi and anti joins
    /// it picks from left.
    Join {
        kind: JoinKind,
        left_keys: Vec<usize>,
        right_keys: Vec<usize>,
        null_equals_null: bool,
        residual: Option<Expr>,
        output: Vec<usize>,
        left_table: u32,
        right_table: u32,
        /// Left rows below it find no partner any more, and nothing takes them back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_closes: Option<ColumnWatermark>,
        /// The same of right rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        right_closes: Option<ColumnWatermark>,
        /// Left and right: who has the rows, where the join keeps none of its own.
        #[serde(default, skip_serializing_if = "shares_nothing")]
        shared: [Option<SharedRows>; 2],
    },
    /// Grouped aggregation: output is group columns then one column per call. Emits one -old +new
    /// per touched group and barrier. Without group columns and with `global`, one row even for no
    /// input. `table` and those after it (`distinct_tables` many, one per call that needs one) hold
    /// its state.
    Aggregate {
        group: Vec<usize>,
        calls: Vec<AggregateCall>,
        global: bool,
        table: u32,
        /// Groups below it never change again; a column of the input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes: Option<ColumnWatermark>,
    },
    /// First half of a two-phase aggregation, stateless between barriers: combines rows of a group
    /// locally. Output: group columns, then the partial columns that `calls` of the matching
    /// `AggregateFinal` read. Append-only input with count/sum/min/max, or retracting input with
    /// count/sum.
    PartialAggregate {
        group: Vec<usize>,
        calls: Vec<AggregateCall>,
    },
    /// Of each partition the rows with numbers above `skip`, of which there are `take` at most
    /// (all, if it is none). With `numbered`, their numbers are a column behind the input's.
    /// `skip` only goes with [`Ranking::RowNumber`].
    TopN {
        partition: Vec<usize>,
        order: Vec<SortKey>,
        ranking: Ranking,
        skip: u64,
        take: Option<u64>,
        numbered: bool,
        table: u32,
        /// Partitions below it never change again; a column of the input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes: Option<ColumnWatermark>,
    },
    /// What of an input that only grows may be among the first `take` rows of each partition:
    /// nothing is kept but for speed. The output only grows, too.
    PartialTopN {
        partition: Vec<usize>,
        order: Vec<SortKey>,
        take: u64,
    },
    /// The input's columns, then one per call over the ordered rows of each partition.
    Window {
        partition: Vec<usize>,
        order: Vec<SortKey>,
        calls: Vec<WindowCall>,
        table: u32,
        /// Partitions below it never change again; a column of the input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes: Option<ColumnWatermark>,
    },
    /// One row per group: the group columns, then one column per call over its rows in an order.
    /// All rows are kept, and a group that changes is computed anew.
    Collect {
        group: Vec<usize>,
        calls: Vec<CollectCall>,
        table: u32,
        /// Groups below it never change again; a column of the input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes: Option<ColumnWatermark>,
    },
    /// Rows wait until the watermark of a column of theirs has passed them, and are sent once, as
    /// they are then. `keys` are the columns by whose hash they are kept, that one among them.
    EmitOnClose {
        keys: Vec<usize>,
        table: u32,
        /// Missing before all is lowered only.
        closes: Option<ColumnWatermark>,
    },
    /// Rows whose column `moment` is after a bound, or before it: an expression over the clock of
    /// the epoch (column 0, of type `clock`), which never goes back here. `inclusive`: what is
    /// equal to it is kept. `keys` are the columns by whose hash rows are kept, `moment` among
    /// them. No row's moment is NULL.
    TemporalFilter {
        keys: Vec<usize>,
        moment: usize,
        kept: Kept,
        inclusive: bool,
        clock: DataType,
        bound: Expr,
        table: u32,
    },
    /// Rows are writes by key: a positive weight writes the row of its key, a negative one deletes
    /// it. Of the writes of one key the one with the greatest `version` (a column behind all
    /// others, which is not part of the output) counts, among equal ones the last. Output: -old
    /// +new.
    Upsert {
        key: Vec<usize>,
        conflict: Conflict,
        version: usize,
        table: u32,
    },
    /// Keeps the relation's rows for reads and later jobs, and passes its input on. With `key`,
    /// rows are located by it; append-only input without key is kept as it comes.
    Materialize {
        key: Option<Vec<usize>>,
        append_only: bool,
        table: u32,
    },
    /// Consolidates each epoch and hands it to the sink's writer. `key`: the columns whose hash
    /// orders changes (all columns if none).
    Sink { key: Vec<usize>, table: u32 },
    /// Each left row with the one right row of equal keys for which `left_time comparison
    /// right_time` holds and whose time is the nearest; of several at that time the first by their
    /// other columns. With `outer`, left rows without such a one have NULLs. What is NULL among
    /// keys and times finds nothing. Output: `output` picks from left ++ right. No column is both a
    /// key and a time, or a key twice.
    AsofJoin {
        outer: bool,
        left_keys: Vec<usize>,
        right_keys: Vec<usize>,
        left_time: usize,
        right_time: usize,
        comparison: Nearest,
        output: Vec<usize>,
        left_table: u32,
        right_table: u32,
    },
    /// Each row of an append-only left input with the right rows that its condition finds at the
    /// end of the epoch in which it comes; what changes later on the right changes nothing. The
    /// output only grows. Otherwise as an inner or (`outer`) left `Join`.
    TemporalJoin {
        outer: bool,
        left_keys: Vec<usize>,
        right_keys: Vec<usize>,
        residual: Option<Expr>,
        output: Vec<usize>,
        table: u32,
    },
    /// What each epoch changes in the input, as rows that only come: the input's columns, what
    /// became of the row (a smallint), its number (a bigint), the epoch (a bigint) and its time.
    /// `key`: columns of a unique key, by whose hash rows are here; by that of all columns if there
    /// is none.
    Changelog { key: Option<Vec<usize>>, table: u32 },
    /// The input's columns, then the beginning and the end of the row's session: rows of a
    /// partition whose column `time`, of microseconds, follows the one before within `gap`
    /// microseconds are of one session, which ends a gap after its last row.
    Session {
        partition: Vec<usize>,
        time: usize,
        gap: i64,
        table: u32,
        /// The watermark of `time`: sessions that end before it never change again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closes: Option<ColumnWatermark>,
    },
    /// A recursive query: the rows of the first input are iteration 0; what the second one, its
    /// *step*, makes of the rows of an iteration is the next one. The output is all rows of all
    /// iterations. With `distinct` each row is in the first iteration alone that has it, and once.
    /// The step reads the rows of an iteration at its one `Working` leaf; on the way from there to
    /// its root are operators that treat each row by itself and pass the number of its iteration
    /// on, as the first column. Rows beyond iteration `iterations_max` are errors. All inputs are
    /// on the worker that owns vnode 0.
    Recursive {
        name: String,
        distinct: bool,
        iterations_max: u32,
        table: u32,
    },
    /// Leaf, in the step of a `Recursive` only: the rows of an iteration behind its number.
    Working,
}

impl Op {
    /// The numbers of its state tables; of an aggregate, the first of them.
    pub fn tables_mut(&mut self) -> Vec<&mut u32> {
        match self {
            Op::Join {
                left_table,
                right_table,
                ..
            }
            | Op::AsofJoin {
                left_table,
                right_table,
                ..
            } => vec![left_table, right_table],
            Op::Aggregate { table, .. }
            | Op::TopN { table, .. }
            | Op::Window { table, .. }
            | Op::Collect { table, .. }
            | Op::EmitOnClose { table, .. }
            | Op::TemporalFilter { table, .. }
            | Op::Upsert { table, .. }
            | Op::Materialize { table, .. }
            | Op::Sink { table, .. }
            | Op::TemporalJoin { table, .. }
            | Op::Changelog { table, .. }
            | Op::Session { table, .. }
            | Op::Recursive { table, .. } => vec![table],
            Op::SourceRead { .. }
            | Op::TableRead
            | Op::Working
            | Op::Tap { .. }
            | Op::Receive { .. }
            | Op::Values { .. }
            | Op::Filter { .. }
            | Op::Project { .. }
            | Op::Union
            | Op::Expand { .. }
            | Op::Unnest { .. }
            | Op::PartialAggregate { .. }
            | Op::PartialTopN { .. } => Vec::new(),
        }
    }
}

/// A side of a join of which the join keeps nothing: on each worker, its rows are those that a
/// relation has there, by the join's keys as its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedRows {
    /// The relation.
    pub relation: RelationId,
    /// Columns of the relation: those of the side in their order, then what else `filter` reads.
    pub columns: Vec<usize>,
    /// Which of its rows are the side's; over `columns`. It has a value for every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Expr>,
}

impl Relation {
    /// The key by which joins can look up its rows, on the worker that owns the key's vnode.
    /// Not of tables that statements write to, which are on the workers of one node where joins are
    /// on all; nor where values of the key that are equal may look different (`1.0` and `1.00`).
    pub fn lookup_key(&self) -> Option<Vec<usize>> {
        let fragments = &self.job.as_ref()?.fragments;
        let mut nodes = fragments.iter().flat_map(Fragment::nodes);
        let is_written =
            self.kind == RelationKind::Table && nodes.any(|node| matches!(node.op, Op::TableRead));
        let looks_one_way = |c: &usize| {
            let data_type = self.columns.get(*c).map(|column| &column.data_type);
            data_type.is_some_and(|t| {
                use DataType::*;
                t.is_integer() || matches!(t, Boolean | Utf8 | Date32 | Timestamp(..))
            })
        };
        match &fragments.last()?.root.op {
            Op::Materialize {
                key: Some(key),
                append_only: false,
                ..
            } if !is_written && key.iter().all(looks_one_way) => Some(key.clone()),
            _ => None,
        }
    }
}

fn shares_nothing(shared: &[Option<SharedRows>; 2]) -> bool {
    shared.iter().all(Option::is_none)
}

/// Which time on the right is the nearest to one on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nearest {
    /// `left >= right`: the greatest that is not above.
    AtOrBefore,
    /// `left > right`: the greatest below.
    Before,
    /// `left <= right`: the least that is not below.
    AtOrAfter,
    /// `left < right`: the least above.
    After,
}

/// A column of an `Unnest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unnested {
    /// This column of the input.
    Column(usize),
    /// The element of the list in this column; NULL behind its last.
    Element(usize),
}

impl Unnested {
    /// The column of the input.
    pub fn column(self) -> usize {
        match self {
            Unnested::Column(column) | Unnested::Element(column) => column,
        }
    }

    /// The same of another column.
    pub fn at(self, column: usize) -> Unnested {
        match self {
            Unnested::Column(_) => Unnested::Column(column),
            Unnested::Element(_) => Unnested::Element(column),
        }
    }
}

/// Which rows a temporal filter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Those whose moment is before the bound.
    Before,
    /// Those whose moment is after it.
    After,
}

/// What an upsert does when its key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// The new row replaces the old one.
    Overwrite,
    /// The old row stays.
    Ignore,
    /// What is not NULL in the new row replaces what the old one has.
    Merge,
}

/// How a join treats rows without partner.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    LeftSemi,
    LeftAnti,
}

/// Type of a row's version.
pub const VERSION_TYPE: DataType = DataType::Decimal128(38, 0);

/// The version of a write by key, as a decimal without fraction: the largest time of its split so
/// far, then the split. Writes of one split never go down, and those of one version are told apart
/// by their order; so versions order the writes of all splits, whatever the order in which they
/// arrive.
pub fn version(time_ms: i64, split: SplitId) -> i128 {
    i128::from(time_ms) << 32 | i128::from(split)
}

/// The inverse of [`version`].
pub fn time_and_split(version: i128) -> (i64, SplitId) {
    ((version >> 32) as i64, version as u32)
}

/// One aggregate of an `Aggregate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateCall {
    /// Which.
    pub function: AggregateFunction,
    /// Its argument column (none for `count(*)`).
    pub arg: Option<usize>,
    /// The second argument column, of functions of pairs: the first is y, this is x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<usize>,
    /// `DISTINCT`.
    pub distinct: bool,
    /// `FILTER (WHERE column)`: a boolean column.
    pub filter: Option<usize>,
    /// What rows are ordered by, of functions of the first and the last row; rows that are equal by
    /// it by the argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<SortKey>,
    /// Type of the result.
    pub output: arrow_schema::DataType,
}

/// The aggregate functions that are maintained. `sum` of integers is checked; of floats exact and
/// order-free, rounded once.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    BitAnd,
    BitOr,
    BitXor,
    Corr,
    CovarPop,
    CovarSamp,
    RegrCount,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    RegrAvgX,
    RegrAvgY,
    RegrR2,
    RegrSlope,
    RegrIntercept,
    /// Of an input that only grows the argument of the first row in an order.
    First,
    /// The same of the last row.
    Last,
}

impl AggregateFunction {
    /// Whether it makes no difference how often a value is there.
    pub fn is_of_values(self) -> bool {
        use AggregateFunction::{BitAnd, BitOr, BoolAnd, BoolOr, Max, Min};
        matches!(self, Min | Max | BoolAnd | BoolOr | BitAnd | BitOr)
    }
}

impl AggregateCall {
    /// Whether DISTINCT makes a difference to it.
    pub fn is_distinct(&self) -> bool {
        self.distinct && !self.function.is_of_values()
    }

    /// The columns that it reads, to be changed.
    pub fn columns_mut(&mut self) -> impl Iterator<Item = &mut usize> {
        let order = self.order.iter_mut().map(|key| &mut key.column);
        let args = self.arg.iter_mut().chain(&mut self.second);
        args.chain(&mut self.filter).chain(order)
    }
}

/// The column that is cheapest to carry where only the number of rows matters: a stream never has
/// no columns at all, and what reads none of them ignores the one that it has beyond its logical
/// schema. A query over a source reads the same one, so that it leaves out the same rows where that
/// column could not be read.
pub fn narrowest(schema: &Schema) -> usize {
    let width = |f: &FieldRef| {
        if *f.data_type() == DataType::Boolean {
            0
        } else {
            f.data_type().primitive_width().unwrap_or(usize::MAX)
        }
    };
    schema
        .fields()
        .iter()
        .enumerate()
        .min_by_key(|(_, f)| width(f))
        .map_or(0, |(i, _)| i)
}

/// State tables of an `Aggregate`: the groups, one per column with DISTINCT calls, and one per
/// extreme of an input that may retract.
pub fn aggregate_table_count(calls: &[AggregateCall], append_only: bool) -> u32 {
    use AggregateFunction::{Max, Min};
    let mut distinct: Vec<Option<usize>> = calls
        .iter()
        .filter(|c| c.is_distinct())
        .map(|c| c.arg)
        .collect();
    distinct.sort_unstable();
    distinct.dedup();
    let extremes = calls
        .iter()
        .filter(|c| matches!(c.function, Min | Max) && !append_only)
        .count();
    1 + distinct.len() as u32 + extremes as u32
}

impl Fragment {
    /// The tree's nodes, root first.
    pub fn nodes(&self) -> Vec<&Node> {
        let mut all = vec![&self.root];
        let mut i = 0;
        while i < all.len() {
            all.extend(all[i].inputs.iter());
            i += 1;
        }
        all
    }
}

impl JobPlan {
    /// Whether the query over a sum of inputs is the sum of the queries over each, and nothing is
    /// kept between epochs but by a sink.
    pub fn is_linear(&self) -> bool {
        let mut nodes = self.fragments.iter().flat_map(Fragment::nodes);
        nodes.all(|n| match n.op {
            Op::SourceRead { .. } | Op::TableRead | Op::Tap { .. } => true,
            Op::Receive { .. } | Op::Values { .. } | Op::Sink { .. } => true,
            Op::Filter { .. } | Op::Project { .. } | Op::Union | Op::Expand { .. } => true,
            Op::Unnest { .. } => true,
            Op::Join { .. } | Op::Aggregate { .. } | Op::PartialAggregate { .. } => false,
            Op::TopN { .. } | Op::PartialTopN { .. } => false,
            Op::Window { .. } | Op::Collect { .. } => false,
            Op::EmitOnClose { .. } | Op::TemporalFilter { .. } => false,
            Op::Upsert { .. } | Op::Materialize { .. } => false,
            Op::AsofJoin { .. } | Op::TemporalJoin { .. } | Op::Changelog { .. } => false,
            Op::Session { .. } => false,
            Op::Recursive { .. } | Op::Working => false,
        })
    }

    /// The relations whose rows its joins look up instead of keeping them, each with the number of
    /// the fragment that does.
    pub fn shared_rows(&self) -> Vec<(u32, RelationId)> {
        let mut found = Vec::new();
        for fragment in &self.fragments {
            for node in fragment.nodes() {
                if let Op::Join { shared, .. } = &node.op {
                    let relations = shared.iter().flatten().map(|rows| rows.relation);
                    found.extend(relations.map(|relation| (fragment.id, relation)));
                }
            }
        }
        found
    }

    /// Whether what the job computes depends on when its rows came, so that it cannot be computed
    /// again.
    pub fn depends_on_arrival(&self) -> bool {
        let mut nodes = self.fragments.iter().flat_map(Fragment::nodes);
        nodes.any(|n| matches!(n.op, Op::TemporalJoin { .. } | Op::Changelog { .. }))
    }

    /// Whether time alone changes what the job computes.
    pub fn follows_clock(&self) -> bool {
        let mut nodes = self.fragments.iter().flat_map(Fragment::nodes);
        nodes.any(|n| matches!(n.op, Op::TemporalFilter { .. }))
    }

    /// The relations that the job reads, with the columns it needs of each tap.
    pub fn taps(&self) -> Vec<(RelationId, Vec<usize>)> {
        let nodes = self.fragments.iter().flat_map(Fragment::nodes);
        nodes
            .filter_map(|n| {
                if let Op::Tap { relation, columns } = &n.op {
                    Some((*relation, columns.clone()))
                } else {
                    None
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_time_then_split() {
        let all = [
            (-1, 0),
            (-1, u32::MAX),
            (0, 0),
            (0, 1),
            (0, u32::MAX),
            (1, 0),
            (i64::MAX, 0),
            (i64::MAX, u32::MAX),
        ];
        assert!(
            all.windows(2)
                .all(|w| version(w[0].0, w[0].1) < version(w[1].0, w[1].1))
        );
        assert!(
            all.iter()
                .all(|(time, split)| time_and_split(version(*time, *split)) == (*time, *split))
        );
    }
}
