//! Hopping windows by panes: rows that are in the same windows are combined before each of them is
//! put into all of its windows.
//!
//! `HOP` makes several rows of one, one for each window, and an aggregate by windows combines them
//! again. What of a row decides about its windows is the pane that it lies in, the beginning of the
//! last window that it is in. So a first phase of the aggregation, by pane, comes before the rows
//! are multiplied: of an epoch there is one row for each pane and group to multiply, however many
//! came. Nothing is kept for it.
//!
//! Sound, as two phases of an aggregation are (see `aggregate`), and because the windows of a row
//! follow from its pane alone: each group expression is one over what is below, or `add_micros` of
//! such a one and the distance of a window.

use crate::lower::Stream;
use crate::lower::aggregate::partial;
use arrow_schema::{Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_plan::{AggregateCall, Expr, Node, Op, Properties};

/// The first phase of an aggregation, the calls of the second over its output, and which columns of
/// the second are counts.
pub(super) type FirstPhase = (Stream, Vec<AggregateCall>, Vec<usize>);

/// A group expression.
enum Grouped<'a> {
    /// Over what is below.
    Below(&'a Expr),
    /// A moment below, moved by a distance: a column of the alternatives.
    Moved(&'a Expr, usize),
}

/// The first phase by panes, if the input is hopping windows. `calls` are those that can be taken
/// of parts.
pub(super) fn first_phase(
    input: &Stream,
    width: usize,
    calls: &[AggregateCall],
    schema: &SchemaRef,
) -> Option<FirstPhase> {
    let Op::Project { exprs } = &input.node.op else {
        return None;
    };
    let expand = &input.node.inputs[0];
    let Op::Expand { rows } = &expand.op else {
        return None;
    };
    let below = &expand.inputs[0];
    let own = below.schema.fields().len();
    let reads_own = |expr: &Expr| {
        let mut reads = true;
        expr.visit_columns(&mut |c| reads &= c < own);
        reads
    };
    let constant = |expr: &Expr| {
        let mut constant = true;
        expr.visit_columns(&mut |_| constant = false);
        constant
    };
    if rows.len() < 2 || !rows.iter().flatten().all(constant) {
        return None;
    }
    let grouped = exprs[..width].iter().map(|expr| match expr {
        expr if reads_own(expr) => Some(Grouped::Below(expr)),
        Expr::Call { function, args } if function == "add_micros" => match args.as_slice() {
            [moment, Expr::Column(distance)] if reads_own(moment) => {
                Some(Grouped::Moved(moment, *distance - own))
            }
            _ => None,
        },
        _ => None,
    });
    let grouped: Vec<Grouped> = grouped.collect::<Option<_>>()?;
    if !exprs[width..].iter().all(reads_own) {
        return None;
    }
    let panes = grouped.iter().map(|group| match group {
        Grouped::Below(expr) | Grouped::Moved(expr, _) => (*expr).clone(),
    });
    let panes = panes.chain(exprs[width..].iter().cloned()).collect();
    let panes = Stream {
        node: below.clone(),
        partitions: Vec::new(),
    }
    .project(panes, input.node.schema.clone());
    let (combined, second, counts) = partial(panes, width, calls.to_vec(), schema);
    let expanded = expanded(combined, rows, &expand.schema.fields()[own..]);
    let distances = schema.fields().len();
    let windows = grouped.iter().enumerate().map(|(at, group)| match group {
        Grouped::Below(_) => Expr::Column(at),
        Grouped::Moved(_, distance) => Expr::Call {
            function: "add_micros".into(),
            args: vec![Expr::Column(at), Expr::Column(distances + distance)],
        },
    });
    let windows = windows.chain((width..distances).map(Expr::Column));
    let stream = expanded.project(windows.collect(), schema.clone());
    Some((stream, second, counts))
}

/// Each row of a stream once for each alternative, whose columns have these fields.
fn expanded(stream: Stream, rows: &[Vec<Expr>], appended: &[Arc<Field>]) -> Stream {
    let fields = stream.node.schema.fields().iter().chain(appended);
    let schema = Schema::new(fields.map(|f| f.as_ref().clone()).collect::<Vec<_>>());
    let properties = Properties {
        append_only: true,
        key: None,
    };
    let op = Op::Expand {
        rows: rows.to_vec(),
    };
    Stream {
        node: Node {
            op,
            inputs: vec![stream.node],
            schema: Arc::new(schema),
            properties,
        },
        partitions: Vec::new(),
    }
}
