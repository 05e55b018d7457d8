//! Joins. Equality conditions become key columns on both sides (an expression becomes a column of a
//! projection below), both sides are exchanged by their keys, and what remains of the condition is
//! the residual over `left ++ right`.
//!
//! Shapes that have no equality:
//! * constants on one side: every row is expanded by them;
//! * a side with at most one row (a global aggregate): the join has no keys and runs on the owner
//!   of vnode 0;
//! * `EXISTS` without correlation: whether there is a row is a global count;
//! * anything else would pair all rows with all rows on one worker, and is refused.
//!
//! `NOT IN` (a null-aware anti join): with n rows on the right and m of them not NULL, x NOT IN s
//! holds iff n = 0, or x is not NULL, n = m and nothing equals x. So it is an anti join, then a
//! join with the single row (n = 0, n = m).
//!
//! A mark (an EXISTS inside an OR) is a left join with the distinct keys of the right side, or,
//! with a residual, the union of the semi join with true and the anti join with false.

use crate::lower::columns::one_zero;
use crate::lower::dependent::implied_pairs;
use crate::lower::neighbours::in_order_of_key;
use crate::lower::temporal::reads_clock;
use crate::lower::{Builder, Stream, narrowest, schema_of, to_expr, union_all};
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::{JoinType, NullEquality};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::{Expr as Df, ExprSchemable};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{
    AggregateCall, AggregateFunction, BinaryOp, Expr, JoinKind, Literal, Node, Op, Properties,
};

/// Both sides of a join, ready: key columns exist, the residual counts in `left ++ right` with
/// their helper columns.
pub(super) struct Sides {
    pub left: Stream,
    pub right: Stream,
    pub left_keys: Vec<usize>,
    pub right_keys: Vec<usize>,
    /// Columns of the sides themselves, without helpers.
    pub left_width: usize,
    pub right_width: usize,
    pub residual: Option<Expr>,
}

impl Builder {
    pub(super) fn join(&mut self, join: &Join) -> Result<Stream> {
        if let Some(stream) = self.join_by_clock(join)? {
            return Ok(stream);
        }
        let output = schema_of(&join.schema);
        let stream = match join.join_type {
            JoinType::Inner => self.keyed(join, JoinKind::Inner)?,
            JoinType::Left => self.keyed(join, JoinKind::Left)?,
            JoinType::Right => self.keyed(join, JoinKind::Right)?,
            JoinType::Full => self.keyed(join, JoinKind::Full)?,
            JoinType::LeftSemi => self.keyed(join, JoinKind::LeftSemi)?,
            JoinType::LeftAnti if join.null_aware => self.not_in(join)?,
            JoinType::LeftAnti => self.keyed(join, JoinKind::LeftAnti)?,
            JoinType::RightSemi => self.keyed(&swapped(join), JoinKind::LeftSemi)?,
            JoinType::RightAnti => self.keyed(&swapped(join), JoinKind::LeftAnti)?,
            JoinType::LeftMark => self.mark(join)?,
            JoinType::RightMark => return Err(Error::unsupported("EXISTS in this place")),
        };
        Ok(stream.with_schema(output))
    }

    /// An inner join whose condition compares with the clock: what of it does is a filter above.
    fn join_by_clock(&mut self, join: &Join) -> Result<Option<Stream>> {
        let (JoinType::Inner, Some(filter)) = (join.join_type, &join.filter) else {
            return Ok(None);
        };
        if !reads_clock(filter) {
            return Ok(None);
        }
        let mut joined = |builder: &mut Builder, others: Option<Df>| {
            let mut without = join.clone();
            without.filter = others;
            builder.join(&without)
        };
        let filtered = self.by_clock(filter, &join.schema, &mut joined)?;
        Ok(Some(filtered))
    }

    pub(super) fn sides(&mut self, join: &Join) -> Result<Sides> {
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let (left_width, right_width) = (
            join.left.schema().fields().len(),
            join.right.schema().fields().len(),
        );
        let lefts: Vec<&Df> = join.on.iter().map(|(l, _)| l).collect();
        let rights: Vec<&Df> = join.on.iter().map(|(_, r)| r).collect();
        let (left, left_keys) = with_keys(left, &lefts, join.left.schema())?;
        let (right, right_keys) = with_keys(right, &rights, join.right.schema())?;
        for (l, r) in left_keys.iter().zip(&right_keys) {
            let (l, r) = (
                left.node.schema.field(*l).data_type(),
                right.node.schema.field(*r).data_type(),
            );
            if l != r {
                return Err(Error::internal(format!(
                    "join keys of different types: {l} and {r}"
                )));
            }
        }
        let (left_keys, right_keys) = without_implied(&left, &right, left_keys, right_keys);
        let residual = match &join.filter {
            None => None,
            Some(filter) => {
                let both = join
                    .left
                    .schema()
                    .join(join.right.schema())
                    .map_err(|e| Error::internal(e.to_string()))?;
                let shift = left.width() - left_width;
                Some(super::exprs::remap(to_expr(filter, &both)?, &|c| {
                    if c < left_width { c } else { c + shift }
                }))
            }
        };
        let residual = residual.filter(|r| *r != Expr::Literal(Literal::Boolean(true)));
        Ok(Sides {
            left,
            right,
            left_keys,
            right_keys,
            left_width,
            right_width,
            residual,
        })
    }

    /// A join of one of the operator's kinds.
    fn keyed(&mut self, join: &Join, kind: JoinKind) -> Result<Stream> {
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let mut sides = self.sides(join)?;
        if sides.left_keys.is_empty() {
            if let Some(stream) = expanded(&sides, kind) {
                return Ok(stream);
            }
            let one_sided = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
            if one_sided && sides.residual.is_none() && !sides.right.is_single_row() {
                let exists = self.any_row(sides.right);
                sides.right_width = exists.width();
                sides.right = exists;
            }
            if !sides.left.is_single_row() && !sides.right.is_single_row() {
                self.notice(
                    "a join without an equality between its sides compares all pairs of rows, on \
                     one worker",
                );
            }
        }
        Ok(self.join_sides(sides, kind, null_equals_null))
    }

    fn join_sides(&mut self, sides: Sides, kind: JoinKind, null_equals_null: bool) -> Stream {
        let Sides {
            left,
            right,
            left_keys,
            right_keys,
            left_width,
            right_width,
            residual,
        } = sides;
        let both = (&left.node, &right.node);
        let keys = (left_keys, right_keys);
        let (left_keys, right_keys) = in_order_of_key(both, keys, &self.neighbours);
        // The iterations of a recursive query are on one worker, and what they meet goes there.
        let gathered = left.node.reads_working() || right.node.reads_working();
        let by = |keys: &[usize]| if gathered { Vec::new() } else { keys.to_vec() };
        let left = self.exchange(left, &by(&left_keys));
        let right = self.exchange(right, &by(&right_keys));
        let one_sided = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let shift = left.width();
        let mut output: Vec<usize> = if one_sided {
            (0..left_width).collect()
        } else {
            (0..left_width).chain(shift..shift + right_width).collect()
        };
        if output.is_empty() {
            output.push(0);
        }
        let place = |c: usize| output.iter().position(|o| *o == c);
        let places = |columns: Vec<usize>| {
            columns
                .into_iter()
                .map(place)
                .collect::<Option<Vec<usize>>>()
        };
        let key = join_key(kind, &left.node, &right.node, &left_keys, &right_keys).and_then(places);
        let append_only = matches!(kind, JoinKind::Inner | JoinKind::LeftSemi)
            && left.node.properties.append_only
            && right.node.properties.append_only;
        let by_left = left_keys.clone();
        let by_right = right_keys.iter().map(|c| c + shift).collect();
        let partitions = match kind {
            _ if gathered => vec![Vec::new()],
            JoinKind::Inner => vec![by_left, by_right],
            JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti => vec![by_left],
            JoinKind::Right => vec![by_right],
            JoinKind::Full => Vec::new(),
        };
        let field = |node: &Node, c: usize, padded: bool| {
            let field = node.schema.field(c);
            field.clone().with_nullable(field.is_nullable() || padded)
        };
        let (pad_left, pad_right) = (
            matches!(kind, JoinKind::Right | JoinKind::Full),
            matches!(kind, JoinKind::Left | JoinKind::Full),
        );
        let fields: Vec<Field> = output
            .iter()
            .map(|c| {
                if *c < shift {
                    field(&left.node, *c, pad_left)
                } else {
                    field(&right.node, c - shift, pad_right)
                }
            })
            .collect();
        let partitions = partitions.into_iter().filter_map(places).collect();
        let left_table = self.tables(2);
        let op = Op::Join {
            kind,
            left_keys,
            right_keys,
            null_equals_null,
            residual,
            output,
            left_table,
            right_table: left_table + 1,
            left_closes: None,
            right_closes: None,
            shared: [None, None],
        };
        let node = Node {
            op,
            inputs: vec![left.node, right.node],
            schema: Arc::new(Schema::new(fields)),
            properties: Properties { append_only, key },
        };
        Stream { node, partitions }
    }

    /// At most one row without columns that matter: there when the input has a row.
    fn any_row(&mut self, input: Stream) -> Stream {
        let column = narrowest(&input.node.schema);
        self.counts(input.pick(&[column]), vec![row_count()])
            .filter(Expr::Binary {
                op: BinaryOp::Gt,
                left: Box::new(Expr::Column(0)),
                right: Box::new(Expr::Literal(Literal::Int64(0))),
            })
    }

    /// Global counts.
    fn counts(&mut self, input: Stream, calls: Vec<AggregateCall>) -> Stream {
        let schema = Schema::new(
            calls
                .iter()
                .map(|_| Field::new("count", DataType::Int64, false))
                .collect::<Vec<_>>(),
        );
        self.grouped(input, 0, calls, Arc::new(schema))
    }

    /// `x NOT IN (subquery)` where NULLs may occur.
    fn not_in(&mut self, join: &Join) -> Result<Stream> {
        let mut plain = join.clone();
        plain.null_aware = false;
        let ([_], None) = (join.on.as_slice(), &join.filter) else {
            return Err(Error::unsupported(
                "NOT IN with a correlated subquery over columns that may be NULL is not supported",
            )
            .with_hint("Use NOT EXISTS, or declare the columns NOT NULL."));
        };
        let sides = self.sides(&plain)?;
        let (left_key, left_width) = (sides.left_keys[0], sides.left_width);
        let x_nullable = sides.left.node.schema.field(left_key).is_nullable();
        // The anti join keeps the helper column of x, if there is one.
        let anti = self.join_sides(
            Sides {
                left_width: sides.left.width(),
                ..sides
            },
            JoinKind::LeftAnti,
            false,
        );
        let right = self.lower(&join.right)?;
        let (right, keys) = with_keys(right, &[&join.on[0].1], join.right.schema())?;
        let y = right.pick(&keys);
        let counted = self.counts(
            y,
            vec![
                row_count(),
                AggregateCall {
                    arg: Some(0),
                    ..row_count()
                },
            ],
        );
        let equals = |right| Expr::Binary {
            op: BinaryOp::Eq,
            left: Box::new(Expr::Column(0)),
            right: Box::new(right),
        };
        let flags = Schema::new(vec![
            Field::new("is_empty", DataType::Boolean, false),
            Field::new("has_no_null", DataType::Boolean, false),
        ]);
        let facts = counted.project(
            vec![
                equals(Expr::Literal(Literal::Int64(0))),
                equals(Expr::Column(1)),
            ],
            Arc::new(flags),
        );
        // Grouping by the flags themselves lets nothing through while they stay the same; it also
        // is what makes "one row" visible as two columns.
        let facts = self.unchanged(facts);
        let width = anti.width();
        let (is_empty, has_no_null) = (Expr::Column(width), Expr::Column(width + 1));
        let and = |l, r| Expr::Binary {
            op: BinaryOp::And,
            left: Box::new(l),
            right: Box::new(r),
        };
        let known = if x_nullable {
            and(
                Expr::IsNotNull(Box::new(Expr::Column(left_key))),
                has_no_null,
            )
        } else {
            has_no_null
        };
        let residual = Some(Expr::Binary {
            op: BinaryOp::Or,
            left: Box::new(is_empty),
            right: Box::new(known),
        });
        let sides = Sides {
            left: anti,
            right: facts,
            left_keys: Vec::new(),
            right_keys: Vec::new(),
            left_width,
            right_width: 0,
            residual,
        };
        Ok(self.join_sides(sides, JoinKind::Inner, false))
    }

    /// A single row, passed on only when it changes: an aggregate emits nothing for a group whose
    /// row is taken and given back within an epoch.
    fn unchanged(&mut self, row: Stream) -> Stream {
        let (width, schema) = (row.width(), row.node.schema.clone());
        let mut calls = Vec::new();
        for c in 0..width {
            calls.push(AggregateCall {
                function: AggregateFunction::BoolAnd,
                arg: Some(c),
                second: None,
                distinct: false,
                filter: None,
                order: Vec::new(),
                output: DataType::Boolean,
            });
        }
        self.grouped(row, 0, calls, schema)
    }

    /// `mark`: whether a left row has a partner.
    fn mark(&mut self, join: &Join) -> Result<Stream> {
        let left_width = join.left.schema().fields().len();
        let marked = schema_of(&join.schema);
        let columns = |last: Expr| {
            (0..left_width)
                .map(Expr::Column)
                .chain([last])
                .collect::<Vec<_>>()
        };
        if join.filter.is_some() {
            if join.on.is_empty() {
                return Err(Error::unsupported(
                    "NOT IN or EXISTS inside of OR, without an equality between the subquery and \
                     the query around it is not supported",
                )
                .with_hint(
                    "Compare a column of the subquery with one outside of it, or move \
                                the condition to the top level of WHERE.",
                ));
            }
            let semi = self.keyed(join, JoinKind::LeftSemi)?.project(
                columns(Expr::Literal(Literal::Boolean(true))),
                marked.clone(),
            );
            let anti = self.keyed(join, JoinKind::LeftAnti)?.project(
                columns(Expr::Literal(Literal::Boolean(false))),
                marked.clone(),
            );
            return Ok(union_all(vec![semi, anti], marked));
        }
        let sides = self.sides(join)?;
        if sides.left_keys.is_empty() {
            let column = narrowest(&sides.right.node.schema);
            let count = self.counts(sides.right.pick(&[column]), vec![row_count()]);
            let sides = Sides {
                right: count,
                right_width: 1,
                ..sides
            };
            let joined = self.join_sides(sides, JoinKind::Inner, false);
            let some = Expr::Binary {
                op: BinaryOp::Gt,
                left: Box::new(Expr::Column(left_width)),
                right: Box::new(Expr::Literal(Literal::Int64(0))),
            };
            return Ok(joined.project(columns(some), marked));
        }
        let keys = sides.right.pick(&sides.right_keys);
        let distinct = self.distinct(keys);
        let width = distinct.width();
        let fields = distinct
            .node
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone())
            .chain([Field::new("found", DataType::Boolean, false)])
            .collect::<Vec<_>>();
        let exprs = (0..width)
            .map(Expr::Column)
            .chain([Expr::Literal(Literal::Boolean(true))])
            .collect();
        let found = distinct.project(exprs, Arc::new(Schema::new(fields)));
        let sides = Sides {
            right: found,
            right_keys: (0..width).collect(),
            right_width: width + 1,
            ..sides
        };
        let joined = self.join_sides(
            sides,
            JoinKind::Left,
            join.null_equality == NullEquality::NullEqualsNull,
        );
        Ok(joined.project(
            columns(Expr::IsNotNull(Box::new(Expr::Column(left_width + width)))),
            marked,
        ))
    }
}

/// `count(*)`.
pub(super) fn row_count() -> AggregateCall {
    AggregateCall {
        function: AggregateFunction::Count,
        arg: None,
        second: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        output: DataType::Int64,
    }
}

/// Leaves out keys that follow from others on both sides.
fn without_implied(
    left: &Stream,
    right: &Stream,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
) -> (Vec<usize>, Vec<usize>) {
    let (Op::Project { exprs: lefts }, Op::Project { exprs: rights }) =
        (&left.node.op, &right.node.op)
    else {
        return (left_keys, right_keys);
    };
    let implied = implied_pairs(lefts, rights, &left.node.schema, &left_keys, &right_keys);
    let kept = |keys: &[usize]| {
        keys.iter()
            .enumerate()
            .filter(|(pair, _)| !implied.contains(pair))
            .map(|(_, k)| *k)
            .collect()
    };
    (kept(&left_keys), kept(&right_keys))
}

/// Appends a column for every key that is not a column already.
fn with_keys(
    stream: Stream,
    keys: &[&Df],
    schema: &datafusion_common::DFSchema,
) -> Result<(Stream, Vec<usize>)> {
    let width = stream.width();
    let mut exprs: Vec<Expr> = (0..width).map(Expr::Column).collect();
    let mut fields: Vec<Field> = stream
        .node
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let mut positions = Vec::new();
    for key in keys {
        let (_, field) = key
            .to_field(schema)
            .map_err(|e| Error::internal(e.to_string()))?;
        let lowered = one_zero(to_expr(key, schema)?, field.data_type());
        match exprs.iter().position(|e| *e == lowered) {
            Some(at) => positions.push(at),
            None => {
                fields.push(Field::new(
                    key.schema_name().to_string(),
                    field.data_type().clone(),
                    field.is_nullable(),
                ));
                exprs.push(lowered);
                positions.push(exprs.len() - 1);
            }
        }
    }
    if exprs.len() == width {
        return Ok((stream, positions));
    }
    Ok((
        stream.project(exprs, Arc::new(Schema::new(fields))),
        positions,
    ))
}

/// A product with constants: no state, no exchange.
fn expanded(sides: &Sides, kind: JoinKind) -> Option<Stream> {
    if kind != JoinKind::Inner {
        return None;
    }
    let constants = |s: &Stream| {
        if let Op::Values { rows } = &s.node.op {
            Some(rows.clone())
        } else {
            None
        }
    };
    let (input, rows, fields, swapped) = match (constants(&sides.left), constants(&sides.right)) {
        (_, Some(rows)) => (&sides.left, rows, sides.right.node.schema.fields(), false),
        (Some(rows), None) => (&sides.right, rows, sides.left.node.schema.fields(), true),
        (None, None) => return None,
    };
    let schema = Arc::new(Schema::new(
        input
            .node
            .schema
            .fields()
            .iter()
            .chain(fields)
            .map(|f| f.as_ref().clone())
            .collect::<Vec<_>>(),
    ));
    let key = if rows.len() <= 1 {
        input.node.properties.key.clone()
    } else {
        None
    };
    let properties = Properties {
        append_only: input.node.properties.append_only,
        key,
    };
    let (width, left, right) = (input.width(), sides.left.width(), sides.right.width());
    let mut stream = input.clone().wrap(Op::Expand { rows }, schema, properties);
    if swapped {
        let order: Vec<usize> = (width..width + left).chain(0..width).collect();
        stream = stream.pick(&order);
    }
    if let Some(residual) = &sides.residual {
        stream = stream.filter(residual.clone());
    }
    // Columns beyond the logical schema of the left side would stand between the two.
    let logical: Vec<usize> = (0..sides.left_width)
        .chain(left..left + sides.right_width)
        .collect();
    Some(if logical.len() == left + right || logical.is_empty() {
        stream
    } else {
        stream.pick(&logical)
    })
}

/// A unique key of the join's output, in positions of left ++ right. A side whose key is covered by
/// the join keys matches at most once.
fn join_key(
    kind: JoinKind,
    left: &Node,
    right: &Node,
    left_keys: &[usize],
    right_keys: &[usize],
) -> Option<Vec<usize>> {
    let shift = left.schema.fields().len();
    let left_key = left.properties.key.clone();
    if matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) {
        return left_key;
    }
    let right_key = right
        .properties
        .key
        .as_ref()
        .map(|k| k.iter().map(|c| c + shift).collect::<Vec<_>>());
    let covered = |key: &Option<Vec<usize>>, by: &[usize]| {
        key.as_ref()
            .is_some_and(|k| k.iter().all(|c| by.contains(c)))
    };
    let right_once = covered(&right.properties.key, right_keys);
    let left_once = covered(&left.properties.key, left_keys);
    match kind {
        JoinKind::Inner | JoinKind::Left if right_once && left_key.is_some() => return left_key,
        JoinKind::Inner | JoinKind::Right if left_once && right_key.is_some() => return right_key,
        // Padding of both sides may collide with keys that are NULL themselves.
        JoinKind::Full => return None,
        _ => {}
    }
    let (mut key, right_key) = (left_key?, right_key?);
    key.extend(right_key);
    Some(key)
}

/// The mirror image of a right semi or anti join.
fn swapped(join: &Join) -> Join {
    let mut join = join.clone();
    std::mem::swap(&mut join.left, &mut join.right);
    join.on = join.on.into_iter().map(|(l, r)| (r, l)).collect();
    join
}
