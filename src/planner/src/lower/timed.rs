//! Joins that go by time (see [`crate::timed`]): both sides are exchanged by their equalities, and
//! the operator does the rest.
//!
//! An ASOF join has at most one row for each row on its left: a key of the left side is one of the
//! join. A temporal join is asked of a left side that only grows, since what was sent is never
//! taken back. It keeps the rows of its right side itself, which must be those of a relation that
//! has rows.

use crate::bind::Table;
use crate::lower::{Builder, Stream, schema_of, to_expr};
use crate::timed::{TimedJoin, Timing};
use arrow_schema::{Field, Schema};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, NullEquality};
use datafusion_expr::logical_plan::{Join, JoinConstraint};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr as Df, ExprSchemable, LogicalPlan};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Node, Op, Properties, RelationKind};

impl Builder {
    pub(super) fn timed(&mut self, join: &TimedJoin) -> Result<Stream> {
        let schema = schema_of(datafusion_expr::UserDefinedLogicalNodeCore::schema(join));
        let stream = match join.timing {
            Timing::Asof => self.asof(join)?,
            Timing::Temporal => self.temporal(join)?,
        };
        Ok(stream.with_schema(schema))
    }

    fn asof(&mut self, join: &TimedJoin) -> Result<Stream> {
        let asof = join.asof().map_err(crate::error::from_planning)?;
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let widths = [&join.left, &join.right].map(|side| side.schema().fields().len());
        let (lefts, rights): (Vec<&Df>, Vec<&Df>) =
            asof.keys.iter().map(|(left, right)| (left, right)).unzip();
        let lefts: Vec<&Df> = lefts.into_iter().chain([&asof.times.0]).collect();
        let rights: Vec<&Df> = rights.into_iter().chain([&asof.times.1]).collect();
        let (left, mut left_keys) = with_columns(left, &lefts, join.left.schema())?;
        let (right, mut right_keys) = with_columns(right, &rights, join.right.schema())?;
        for (l, r) in left_keys.iter().zip(&right_keys) {
            let types =
                [(&left, *l), (&right, *r)].map(|(s, c)| s.node.schema.field(c).data_type());
            if types[0] != types[1] {
                return Err(Error::internal(format!(
                    "an ASOF join of different types: {} and {}",
                    types[0], types[1]
                )));
            }
        }
        let (Some(left_time), Some(right_time)) = (left_keys.pop(), right_keys.pop()) else {
            return Err(Error::internal("an ASOF join without times"));
        };
        if left_keys.is_empty() {
            self.notice("an ASOF join without an equality between its sides runs on one worker");
        }
        let left = self.exchange(left, &left_keys);
        let right = self.exchange(right, &right_keys);
        let left_table = self.tables(2);
        let key = left.node.properties.key.clone();
        let sides = Paired::new(&left.node, &right.node, widths, join.is_outer());
        let mut partitions = vec![left_keys.clone()];
        if !join.is_outer() {
            partitions.push(right_keys.iter().map(|c| c + left.width()).collect());
        }
        let op = Op::AsofJoin {
            outer: join.is_outer(),
            left_keys,
            right_keys,
            left_time,
            right_time,
            comparison: asof.comparison,
            output: sides.output.clone(),
            left_table,
            right_table: left_table + 1,
        };
        let properties = Properties {
            append_only: false,
            key: key.and_then(|key| sides.places(&key)),
        };
        Ok(sides.stream(op, [left.node, right.node], properties, partitions))
    }

    fn temporal(&mut self, join: &TimedJoin) -> Result<Stream> {
        refuse_sources(&join.right)?;
        let (on, others) = join.equalities();
        let plain = Join {
            left: Arc::new(join.left.clone()),
            right: Arc::new(join.right.clone()),
            on,
            filter: conjunction(others),
            join_type: join.join_type,
            join_constraint: JoinConstraint::On,
            schema: datafusion_expr::UserDefinedLogicalNodeCore::schema(join).clone(),
            null_equality: NullEquality::NullEqualsNothing,
            null_aware: false,
        };
        let sides = self.sides(&plain)?;
        if !sides.left.node.properties.append_only {
            return Err(Error::unsupported(
                "a temporal join needs a left side whose rows only come and never change or go",
            )
            .with_hint(
                "Read a source or an append-only table there, without what retracts rows: \
                 aggregates, outer joins, limits, tables with keys. Or leave FOR SYSTEM_TIME AS OF \
                 out: the join is then kept up to date.",
            ));
        }
        if sides.left_keys.is_empty() {
            self.notice(
                "a temporal join without an equality between its sides compares all pairs of rows, \
                 on one worker",
            );
        }
        let widths = [sides.left_width, sides.right_width];
        let left = self.exchange(sides.left, &sides.left_keys);
        let right = self.exchange(sides.right, &sides.right_keys);
        let paired = Paired::new(&left.node, &right.node, widths, join.is_outer());
        let partitions = vec![sides.left_keys.clone()];
        let op = Op::TemporalJoin {
            outer: join.is_outer(),
            left_keys: sides.left_keys,
            right_keys: sides.right_keys,
            residual: sides.residual,
            output: paired.output.clone(),
            table: self.tables(1),
        };
        let properties = Properties {
            append_only: true,
            key: None,
        };
        Ok(paired.stream(op, [left.node, right.node], properties, partitions))
    }
}

/// The columns that a join of two sides hands out.
struct Paired {
    /// Of left ++ right.
    output: Vec<usize>,
    fields: Vec<Field>,
}

impl Paired {
    /// The sides' own columns, of which there are so many; behind them are those of keys.
    fn new(left: &Node, right: &Node, widths: [usize; 2], outer: bool) -> Paired {
        let shift = left.schema.fields().len();
        let mut output: Vec<usize> = (0..widths[0]).chain(shift..shift + widths[1]).collect();
        if output.is_empty() {
            output.push(0);
        }
        let field = |c: &usize| match c.checked_sub(shift) {
            None => left.schema.field(*c).clone(),
            Some(c) => {
                let field = right.schema.field(c);
                field.clone().with_nullable(field.is_nullable() || outer)
            }
        };
        Paired {
            fields: output.iter().map(field).collect(),
            output,
        }
    }

    /// Where these columns are handed out, if all of them are.
    fn places(&self, columns: &[usize]) -> Option<Vec<usize>> {
        let place = |c: &usize| self.output.iter().position(|o| o == c);
        columns.iter().map(place).collect()
    }

    fn stream(
        self,
        op: Op,
        inputs: [Node; 2],
        properties: Properties,
        partitions: Vec<Vec<usize>>,
    ) -> Stream {
        let partitions = partitions.iter().filter_map(|p| self.places(p)).collect();
        Stream {
            node: Node {
                op,
                inputs: inputs.into(),
                schema: Arc::new(Schema::new(self.fields)),
                properties,
            },
            partitions,
        }
    }
}

/// A column for each of these values, no two of them the same one.
fn with_columns(stream: Stream, values: &[&Df], schema: &DFSchema) -> Result<(Stream, Vec<usize>)> {
    let width = stream.width();
    let mut exprs: Vec<Expr> = (0..width).map(Expr::Column).collect();
    let fields = stream.node.schema.fields().iter();
    let mut fields: Vec<Field> = fields.map(|f| f.as_ref().clone()).collect();
    let mut columns: Vec<usize> = Vec::new();
    for value in values {
        let lowered = to_expr(value, schema)?;
        let known = exprs.iter().position(|e| *e == lowered);
        match known.filter(|at| !columns.contains(at)) {
            Some(at) => columns.push(at),
            None => {
                let field = value.to_field(schema);
                let (_, field) = field.map_err(|e| Error::internal(e.to_string()))?;
                let name = value.schema_name().to_string();
                fields.push(field.as_ref().clone().with_name(name));
                columns.push(exprs.len());
                exprs.push(lowered);
            }
        }
    }
    if exprs.len() == width {
        return Ok((stream, columns));
    }
    Ok((
        stream.project(exprs, Arc::new(Schema::new(fields))),
        columns,
    ))
}

/// `0A000` for a side that reads a source, which has no rows to look up.
fn refuse_sources(plan: &LogicalPlan) -> Result<()> {
    let mut source = None;
    let walked = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = scan.source.downcast_ref::<Table>()
            && table.relation.kind == RelationKind::Source
        {
            source = Some(table.relation.name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|e| Error::internal(e.to_string()))?;
    let Some(source) = source else {
        return Ok(());
    };
    let error = Error::unsupported(format!(
        "a temporal join cannot look up rows in source \"{source}\", which keeps none"
    ));
    Err(error.with_hint("Make a table or a materialized view of it, and join that."))
}
