//! Watermarks of columns, followed from the sources through a lowered job, and what closes by them.
//!
//! A column has a watermark where it is a source's event time, or computed of one by a function
//! that keeps the order of values; of operators that keep rows, where no change of an old row can
//! come out of them any more. Whoever keeps rows or groups by such a column forgets those below it:
//! nothing can change them. That is no part of the answer, so it may be left out anywhere.
//!
//! | operator | columns that keep a watermark |
//! | --- | --- |
//! | filter, projection, union (of all inputs the least), constant rows | those computed in order |
//! | aggregation | columns of the group |
//! | first rows | the partition; the first of the order |
//! | windows | the same; if rows look ahead, the time of the last row that they see ([`Ahead`]) |
//! | join by time | of a temporal join those of the left side, of an ASOF join its left time |
//! | join | both sides of an equality, and of an interval: the least of the sides |
//! | recursive query | none |
//! | `EMIT ON WINDOW CLOSE` | the one that it waits for |

use crate::lower::Builder;
use crate::lower::ahead::{Ahead, is_by_time};
use arrow_schema::{DataType, Schema};
use std::collections::BTreeMap;
use tidemark_common::RelationId;
use tidemark_plan::{
    BinaryOp, ColumnWatermark, Expr, Fragment, JoinKind, Literal, Nearest, Node, Op, Relation,
    SortKey, Term, Unnested, WindowCall,
};

/// Terms beyond these are not worth following.
const TERMS_MAX: usize = 64;

/// What is known of a column.
#[derive(Clone, Debug, Default, PartialEq)]
enum Known {
    #[default]
    Nothing,
    /// Its watermark, and its type.
    Watermark(Vec<Term>, DataType),
    /// These are its values.
    Constants(Vec<i64>),
}

/// Watermarks of the relations that a job taps.
pub(crate) type Tapped = BTreeMap<RelationId, Vec<ColumnWatermark>>;

/// The watermarks of a relation's columns.
pub(super) fn of_relation(relation: &Relation) -> Vec<ColumnWatermark> {
    let job = relation.job.as_ref();
    let followed = job.map_or(&[][..], |job| &job.watermarks);
    match &relation.watermark {
        // Of a job that was planned before watermarks were followed.
        Some(watermark) if followed.is_empty() && relation.append_only => {
            let data_type = relation.columns[watermark.column].data_type.clone();
            let terms = promised(relation.id, data_type);
            let column = watermark.column;
            vec![ColumnWatermark { column, terms }]
        }
        _ => followed.to_vec(),
    }
}

/// What a source promises of its event time.
fn promised(source: RelationId, event_time: DataType) -> Vec<Term> {
    vec![Term {
        source,
        event_time,
        value: Expr::Column(0),
    }]
}

/// Follows watermarks through the fragments of a relation's job and writes down what closes by
/// them. Answers those of the last fragment's columns.
pub(super) fn follow(
    relation: RelationId,
    fragments: &mut [Fragment],
    tapped: &Tapped,
) -> Vec<ColumnWatermark> {
    let mut way = Way {
        relation,
        tapped,
        sent: Vec::new(),
    };
    for fragment in fragments {
        let known = way.known(&mut fragment.root);
        way.sent.push(known);
    }
    watermarks(&way.sent.pop().unwrap_or_default())
}

impl Builder {
    /// The watermarks of the columns of a tree under construction.
    pub(super) fn watermarks_of(&self, node: &Node) -> Vec<ColumnWatermark> {
        let mut fragments = self.fragments.clone();
        let root = node.clone();
        fragments.push(Fragment {
            id: fragments.len() as u32,
            root,
            output: tidemark_plan::Output::Relation,
        });
        follow(self.relation, &mut fragments, &self.tapped)
    }
}

fn watermarks(known: &[Known]) -> Vec<ColumnWatermark> {
    let each = known.iter().enumerate();
    let watermark = |(column, known): (usize, &Known)| match known {
        Known::Watermark(terms, _) => Some(ColumnWatermark {
            column,
            terms: terms.clone(),
        }),
        _ => None,
    };
    each.filter_map(watermark).collect()
}

/// The way through the fragments, in order of dataflow.
struct Way<'a> {
    /// Whose job it is.
    relation: RelationId,
    tapped: &'a Tapped,
    /// What is known of the columns of those before.
    sent: Vec<Vec<Known>>,
}

impl Way<'_> {
    /// What is known of a node's columns. Writes down what closes.
    fn known(&mut self, node: &mut Node) -> Vec<Known> {
        let inputs: Vec<Vec<Known>> = node.inputs.iter_mut().map(|n| self.known(n)).collect();
        let width = node.schema.fields().len();
        let mut known = self.known_over(node, &inputs);
        known.resize(width, Known::Nothing);
        known
    }

    fn known_over(&self, node: &mut Node, inputs: &[Vec<Known>]) -> Vec<Known> {
        let input = inputs.first().map_or(&[][..], Vec::as_slice);
        match &mut node.op {
            Op::Tap { relation, columns } => self.tapped(*relation, columns, &node.schema),
            Op::Receive { from } => self.sent[*from as usize].clone(),
            Op::SourceRead {
                columns,
                watermark: Some(watermark),
                ..
            } => {
                let column = |column: &usize| *column == watermark.column;
                let mut known = vec![Known::Nothing; columns.len()];
                if let Some(at) = columns.iter().position(column) {
                    let data_type = node.schema.field(at).data_type().clone();
                    let terms = promised(self.relation, data_type.clone());
                    known[at] = Known::Watermark(terms, data_type);
                }
                known
            }
            Op::SourceRead { .. } | Op::TableRead | Op::Values { .. } => Vec::new(),
            Op::Filter { .. } | Op::PartialTopN { .. } => input.to_vec(),
            Op::Materialize { .. } | Op::Sink { .. } => input.to_vec(),
            Op::Project { exprs } => {
                let mut known: Vec<Known> = exprs.iter().map(|e| computed(e, input)).collect();
                if let Some((at, terms, data_type)) =
                    self.generated_time(&node.inputs, &node.schema)
                {
                    known[at] = Known::Watermark(terms, data_type);
                }
                known
            }
            Op::Union => united(node, inputs),
            Op::Expand { rows } => expanded(rows, input),
            Op::Unnest { output, .. } => {
                let known = |o: &Unnested| match o {
                    Unnested::Column(column) => input[*column].clone(),
                    Unnested::Element(_) => Known::Nothing,
                };
                output.iter().map(known).collect()
            }
            Op::PartialAggregate { group, .. } => picked(group, input),
            Op::Aggregate { group, closes, .. } | Op::Collect { group, closes, .. } => {
                *closes = first_of(group, input);
                picked(group, input)
            }
            Op::TopN {
                partition,
                order,
                closes,
                ..
            } => {
                *closes = first_of(partition, input);
                let first = order.first().filter(|key| is_by_time(key));
                only(
                    input,
                    partition.iter().copied().chain(first.map(|k| k.column)),
                )
            }
            Op::Window {
                partition,
                order,
                calls,
                closes,
                ..
            } => {
                *closes = first_of(partition, input);
                let known = only(input, partition.iter().copied());
                windowed(known, order.first(), calls, input)
            }
            // A row makes a session longer whatever the times of its other rows; one that has
            // ended stays.
            Op::Session {
                partition,
                time,
                closes,
                ..
            } => {
                *closes = first_of(&[*time], input);
                let mut known = only(input, partition.iter().copied());
                known.extend([Known::Nothing, input[*time].clone()]);
                known
            }
            Op::EmitOnClose { closes, .. } => only(input, closes.iter().map(|c| c.column)),
            Op::Join { .. } => joined(node, inputs),
            Op::AsofJoin { .. } | Op::TemporalJoin { .. } => timed(&node.op, inputs),
            // A write that is no older than the watermark takes back the row that it replaces,
            // which may be.
            Op::Upsert { .. } => Vec::new(),
            // A row may be made of rows of any time.
            Op::Recursive { .. } | Op::Working => Vec::new(),
            // Rows come and go with the clock, whatever their time.
            Op::TemporalFilter { .. } => Vec::new(),
            // A row that goes is told of again, whatever its time.
            Op::Changelog { .. } if !node.inputs[0].properties.append_only => Vec::new(),
            Op::Changelog { .. } => {
                let mut known = input.to_vec();
                known.resize(node.schema.fields().len(), Known::Nothing);
                known
            }
        }
    }

    /// The column of a projection over a source that has the source's event time, where that is
    /// computed: the reader computes it, too, and leaves out what is late.
    fn generated_time(
        &self,
        inputs: &[Node],
        schema: &Schema,
    ) -> Option<(usize, Vec<Term>, DataType)> {
        let [leaf] = inputs else { return None };
        let Op::SourceRead {
            columns,
            watermark: Some(watermark),
            ..
        } = &leaf.op
        else {
            return None;
        };
        let at = Some(watermark.column).filter(|c| !columns.contains(c))?;
        let data_type = schema.fields().get(at)?.data_type().clone();
        Some((at, promised(self.relation, data_type.clone()), data_type))
    }

    fn tapped(&self, relation: RelationId, columns: &[usize], schema: &Schema) -> Vec<Known> {
        let watermarks = self.tapped.get(&relation).map_or(&[][..], Vec::as_slice);
        let known = |(at, column): (usize, &usize)| {
            let found = watermarks.iter().find(|w| w.column == *column);
            let data_type = schema.field(at).data_type().clone();
            found.map_or(Known::Nothing, |w| {
                Known::Watermark(w.terms.clone(), data_type)
            })
        };
        columns.iter().enumerate().map(known).collect()
    }
}

/// The watermark of the first of these columns that has one.
fn first_of(columns: &[usize], input: &[Known]) -> Option<ColumnWatermark> {
    let watermark = |column: &usize| match &input[*column] {
        Known::Watermark(terms, _) => Some(ColumnWatermark {
            column: *column,
            terms: terms.clone(),
        }),
        _ => None,
    };
    columns.iter().find_map(watermark)
}

fn picked(columns: &[usize], input: &[Known]) -> Vec<Known> {
    columns.iter().map(|c| input[*c].clone()).collect()
}

/// What is known of these columns, in their places.
fn only(input: &[Known], columns: impl Iterator<Item = usize>) -> Vec<Known> {
    let mut known = vec![Known::Nothing; input.len()];
    columns.for_each(|c| known[c] = input[c].clone());
    known
}

/// What is known of a window's columns, besides those of its partition: of what it is ordered by,
/// or of the call that tells when a row is complete.
fn windowed(
    mut known: Vec<Known>,
    first: Option<&SortKey>,
    calls: &[WindowCall],
    input: &[Known],
) -> Vec<Known> {
    let time = first.filter(|key| is_by_time(key)).map(|key| key.column);
    let (Some(time), Some(ahead)) = (time, Ahead::of(calls)) else {
        return known;
    };
    match ahead {
        Ahead::Nothing => known[time] = input[time].clone(),
        Ahead::Micros(micros) if known[time] == Known::Nothing => {
            known[time] = shifted(&input[time], -micros);
        }
        Ahead::Micros(_) => {}
        Ahead::Rows(_) | Ahead::Groups(_) => {
            known.extend(
                calls
                    .iter()
                    .map(|call| match ahead.is_closed_by(call, time) {
                        true => input[time].clone(),
                        false => Known::Nothing,
                    }),
            );
        }
    }
    known
}

/// Constant rows come before the job's first barrier only.
fn united(node: &Node, inputs: &[Vec<Known>]) -> Vec<Known> {
    let inputs = node.inputs.iter().zip(inputs);
    let moving = inputs.filter(|(n, _)| !matches!(n.op, Op::Values { .. }));
    let moving: Vec<&Vec<Known>> = moving.map(|(_, known)| known).collect();
    let column = |c: usize| {
        let mut all = moving.iter().map(|known| known[c].clone());
        let first = all.next().unwrap_or_default();
        all.fold(first, least)
    };
    (0..node.schema.fields().len()).map(column).collect()
}

/// A watermark of rows of either kind.
fn least(a: Known, b: Known) -> Known {
    match (a, b) {
        (Known::Watermark(mut terms, data_type), Known::Watermark(others, other_type))
            if data_type == other_type =>
        {
            terms.extend(others);
            reduced(terms, data_type)
        }
        _ => Known::Nothing,
    }
}

fn reduced(terms: Vec<Term>, data_type: DataType) -> Known {
    let mut different: Vec<Term> = Vec::new();
    for term in terms {
        if !different.contains(&term) {
            different.push(term);
        }
    }
    match different.len() <= TERMS_MAX {
        true => Known::Watermark(different, data_type),
        false => Known::Nothing,
    }
}

fn expanded(rows: &[Vec<Expr>], input: &[Known]) -> Vec<Known> {
    let appended = rows.first().map_or(0, Vec::len);
    let integer = |expr: &Expr| match expr {
        Expr::Literal(Literal::Int64(value)) => Some(*value),
        Expr::Cast { expr, .. } => match **expr {
            Expr::Literal(Literal::Int64(value)) => Some(value),
            Expr::Literal(Literal::Int32(value)) => Some(i64::from(value)),
            _ => None,
        },
        _ => None,
    };
    let constants = |column: usize| {
        let values = rows.iter().map(|row| integer(&row[column]));
        let values: Option<Vec<i64>> = values.collect();
        values.map_or(Known::Nothing, Known::Constants)
    };
    input
        .iter()
        .cloned()
        .chain((0..appended).map(constants))
        .collect()
}

/// What is known of an expression over columns of which this is known.
fn computed(expr: &Expr, input: &[Known]) -> Known {
    match expr {
        Expr::Column(column) => input[*column].clone(),
        Expr::Literal(Literal::Int64(value)) => Known::Constants(vec![*value]),
        Expr::Cast {
            expr: below,
            to,
            safe: false,
        } => over(computed(below, input), |value, from| {
            let cast = Expr::Cast {
                expr: Box::new(value),
                to: to.clone(),
                safe: false,
            };
            keeps_order(from, to).then(|| (cast, to.clone()))
        }),
        Expr::Binary { op, left, right } => match (op, &**right) {
            (
                BinaryOp::Plus | BinaryOp::Minus,
                interval @ Expr::Literal(Literal::IntervalMonthDayNano(..)),
            ) => over(computed(left, input), |value, data_type| {
                let moved = Expr::Binary {
                    op: *op,
                    left: Box::new(value),
                    right: Box::new(interval.clone()),
                };
                let keeps_order = is_fixed(interval, is_without_zone(data_type));
                keeps_order.then(|| (moved, data_type.clone()))
            }),
            _ => Known::Nothing,
        },
        Expr::Call { function, args } => called(function, args, input),
        _ => Known::Nothing,
    }
}

/// The same of what a function makes of a watermark; `None` from `make` if that is none.
fn over(known: Known, make: impl Fn(Expr, &DataType) -> Option<(Expr, DataType)>) -> Known {
    let Known::Watermark(terms, data_type) = known else {
        return Known::Nothing;
    };
    let mut made_type = data_type.clone();
    let mut made = |term: Term| {
        let (value, data_type) = make(term.value, &data_type)?;
        made_type = data_type;
        Some(Term { value, ..term })
    };
    let terms: Option<Vec<Term>> = terms.into_iter().map(&mut made).collect();
    terms.map_or(Known::Nothing, |terms| reduced(terms, made_type))
}

/// Functions that keep the order of moments.
fn called(function: &str, args: &[Expr], input: &[Known]) -> Known {
    let call = |args: Vec<Expr>| Expr::Call {
        function: function.to_string(),
        args,
    };
    let is_constant = |expr: &Expr| matches!(expr, Expr::Literal(_));
    match (function, args) {
        ("add_micros", [moment, distance]) => {
            let Known::Constants(distances) = computed(distance, input) else {
                return Known::Nothing;
            };
            // The least of all is that of the least distance.
            let Some(distance) = distances.into_iter().min() else {
                return Known::Nothing;
            };
            over(computed(moment, input), |value, data_type| {
                let distance = Expr::Literal(Literal::Int64(distance));
                Some((call(vec![value, distance]), data_type.clone()))
            })
        }
        ("tumble_start", [moment, length]) if is_constant(length) => {
            over(computed(moment, input), |value, data_type| {
                Some((call(vec![value, length.clone()]), data_type.clone()))
            })
        }
        ("date_trunc", [field, moment]) if is_constant(field) => {
            over(computed(moment, input), |value, data_type| {
                let truncated = call(vec![field.clone(), value]);
                is_without_zone(data_type).then(|| (truncated, data_type.clone()))
            })
        }
        ("date_bin", [stride, moment, origin]) if is_constant(stride) && is_constant(origin) => {
            over(computed(moment, input), |value, data_type| {
                let binned = call(vec![stride.clone(), value, origin.clone()]);
                Some((binned, data_type.clone()))
            })
        }
        _ => Known::Nothing,
    }
}

/// An interval that is equally long at every moment: without months, and without days where a zone
/// may have longer ones.
fn is_fixed(interval: &Expr, without_zone: bool) -> bool {
    match interval {
        Expr::Literal(Literal::IntervalMonthDayNano(0, days, _)) => without_zone || *days == 0,
        _ => false,
    }
}

fn is_without_zone(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, None) | DataType::Date32)
}

/// Whether a cast between moments keeps their order: it does where no zone with summer time takes
/// part.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(_, from), DataType::Timestamp(_, to)) => from == to,
        (DataType::Timestamp(_, None), DataType::Date32) => true,
        _ => false,
    }
}

/// How columns of both sides of a join are bound to each other: `left >= right + least` and
/// `left <= right + most`, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    least: Option<i64>,
    most: Option<i64>,
}

/// What is known of a join's columns, and what of its sides closes.
///
/// A row finds no partner any more when the other side's watermark has passed all that it could be
/// paired with; where its own side may take rows back, its own watermark has to have passed it,
/// too. Where rows are padded or counted, both sides forget only what neither can ask for again: a
/// row's partners are counted anew after a restart.
fn joined(node: &mut Node, inputs: &[Vec<Known>]) -> Vec<Known> {
    let append_only = [0, 1].map(|side| node.inputs[side].properties.append_only);
    let Op::Join {
        kind,
        left_keys,
        right_keys,
        residual,
        output,
        left_closes,
        right_closes,
        ..
    } = &mut node.op
    else {
        return Vec::new();
    };
    let (left, right) = (&inputs[0], &inputs[1]);
    let shift = left.len();
    let mut known = vec![Known::Nothing; shift + right.len()];
    let inner = *kind == JoinKind::Inner;
    let alone = append_only.map(|append_only| append_only && inner);
    for (l, r) in left_keys.iter().zip(right_keys.iter()) {
        let both = least(left[*l].clone(), right[*r].clone());
        known[*l] = both.clone();
        known[shift + r] = both.clone();
        let either = |own: bool, other: &Known| match own {
            true => other.clone(),
            false => both.clone(),
        };
        set_if_none(left_closes, *l, either(alone[0], &right[*r]));
        set_if_none(right_closes, *r, either(alone[1], &left[*l]));
    }
    for ((l, r), bounds) in intervals(residual.as_ref(), shift) {
        let by_right = bounds
            .least
            .map_or(Known::Nothing, |micros| shifted(&right[r], micros));
        let by_left = bounds
            .most
            .map_or(Known::Nothing, |micros| shifted(&left[l], -micros));
        let left_both = least(left[l].clone(), by_right.clone());
        let right_both = least(right[r].clone(), by_left.clone());
        let (left_closing, right_closing) = match (*kind, bounds.least.zip(bounds.most)) {
            (JoinKind::Inner, _) => (
                if alone[0] {
                    by_right
                } else {
                    left_both.clone()
                },
                if alone[1] {
                    by_left
                } else {
                    right_both.clone()
                },
            ),
            (JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti, Some((_, most))) => {
                let partners_gone = shifted(&left_both, -most);
                (left_both.clone(), least(right_both.clone(), partners_gone))
            }
            (JoinKind::Right, Some((first, _))) => {
                let partners_gone = shifted(&right_both, first);
                (least(left_both.clone(), partners_gone), right_both.clone())
            }
            _ => (Known::Nothing, Known::Nothing),
        };
        set_if_none(left_closes, l, left_closing);
        set_if_none(right_closes, r, right_closing);
        if known[l] == Known::Nothing {
            known[l] = left_both;
        }
        if known[shift + r] == Known::Nothing {
            known[shift + r] = right_both;
        }
    }
    // Of a side that is padded, rows without a value come at any time, and wait for nothing.
    let (pads_left, pads_right) = match kind {
        JoinKind::Inner | JoinKind::LeftSemi | JoinKind::LeftAnti => (false, false),
        JoinKind::Left => (false, true),
        JoinKind::Right => (true, false),
        JoinKind::Full => (true, true),
    };
    let padded = |c: usize| if c < shift { pads_left } else { pads_right };
    for (c, known) in known.iter_mut().enumerate() {
        if padded(c) {
            *known = Known::Nothing;
        }
    }
    output.iter().map(|c| known[*c].clone()).collect()
}

/// Joins that go by time: a row of a temporal join is sent when its left row comes, and never
/// again; one of an ASOF join changes when a right row comes that is nearer to it.
fn timed(op: &Op, inputs: &[Vec<Known>]) -> Vec<Known> {
    let (left, right) = (&inputs[0], &inputs[1]);
    let (known, output) = match op {
        Op::TemporalJoin { output, .. } => (left.clone(), output),
        Op::AsofJoin {
            left_time,
            right_time,
            comparison,
            output,
            ..
        } => {
            let mut known = vec![Known::Nothing; left.len()];
            // Left rows that a right one may be the nearest to are not before that one.
            if matches!(comparison, Nearest::AtOrBefore | Nearest::Before) {
                known[*left_time] = least(left[*left_time].clone(), right[*right_time].clone());
            }
            (known, output)
        }
        _ => return Vec::new(),
    };
    let column = |c: &usize| known.get(*c).cloned().unwrap_or_default();
    output.iter().map(column).collect()
}

fn set_if_none(closes: &mut Option<ColumnWatermark>, column: usize, known: Known) {
    if let (None, Known::Watermark(terms, _)) = (&closes, known) {
        *closes = Some(ColumnWatermark { column, terms });
    }
}

/// A watermark moved by so many microseconds.
fn shifted(known: &Known, micros: i64) -> Known {
    over(known.clone(), |value, data_type| {
        let args = vec![value, Expr::Literal(Literal::Int64(micros))];
        let function = "add_micros".to_string();
        let is_moment = matches!(data_type, DataType::Timestamp(_, _));
        is_moment.then(|| (Expr::Call { function, args }, data_type.clone()))
    })
}

/// The pairs of columns of both sides that a condition binds to each other.
fn intervals(residual: Option<&Expr>, shift: usize) -> Vec<((usize, usize), Bounds)> {
    let mut found: Vec<((usize, usize), Bounds)> = Vec::new();
    let mut open: Vec<&Expr> = residual.into_iter().collect();
    while let Some(expr) = open.pop() {
        let Expr::Binary { op, left, right } = expr else {
            continue;
        };
        if *op == BinaryOp::And {
            open.extend([&**left, &**right]);
            continue;
        }
        let (Some((a, a_micros)), Some((b, b_micros))) = (moved_column(left), moved_column(right))
        else {
            continue;
        };
        let at_least = match op {
            BinaryOp::Gt | BinaryOp::GtEq => true,
            BinaryOp::Lt | BinaryOp::LtEq => false,
            _ => continue,
        };
        // a >= b + micros, or a <= b + micros.
        let Some(micros) = b_micros.checked_sub(a_micros) else {
            continue;
        };
        let (pair, at_least, micros) = match (a < shift, b < shift) {
            (true, false) => ((a, b - shift), at_least, micros),
            (false, true) => ((b, a - shift), !at_least, -micros),
            _ => continue,
        };
        let at = found.iter().position(|(p, _)| *p == pair);
        let at = at.unwrap_or_else(|| {
            found.push((pair, Bounds::default()));
            found.len() - 1
        });
        let bounds = &mut found[at].1;
        match at_least {
            true => bounds.least = Some(bounds.least.map_or(micros, |known| known.max(micros))),
            false => bounds.most = Some(bounds.most.map_or(micros, |known| known.min(micros))),
        }
    }
    found
}

/// A column plus so many microseconds.
fn moved_column(expr: &Expr) -> Option<(usize, i64)> {
    match expr {
        Expr::Column(column) => Some((*column, 0)),
        Expr::Binary {
            op: op @ (BinaryOp::Plus | BinaryOp::Minus),
            left,
            right,
        } => {
            let (column, before) = moved_column(left)?;
            let Expr::Literal(Literal::IntervalMonthDayNano(0, days, nanos)) = **right else {
                return None;
            };
            let micros = i64::from(days)
                .checked_mul(86_400_000_000)?
                .checked_add(nanos / 1000)?;
            let micros = if *op == BinaryOp::Plus {
                micros
            } else {
                -micros
            };
            Some((column, before.checked_add(micros)?))
        }
        Expr::Call { function, args } if function == "add_micros" => {
            let [moment, Expr::Literal(Literal::Int64(micros))] = &args[..] else {
                return None;
            };
            let (column, before) = moved_column(moment)?;
            Some((column, before.checked_add(*micros)?))
        }
        _ => None,
    }
}
