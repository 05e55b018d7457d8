//! Sides of joins that a relation keeps already.
//!
//! A view, or a table that its connector keeps, that has a key is kept by that on the worker that
//! owns the key's vnode. A join of its rows by the same key has them on the same worker, and would
//! keep them once more, as would every other job that joins them: it looks them up instead
//! ([`SharedRows`]). A filter between the relation and the join goes with the lookup.
//!
//! Not shared are rows
//! * of relations that keep them otherwise ([`tidemark_plan::Relation::lookup_key`]);
//! * that a watermark closes, and those whose join counts partners row by row.

use std::collections::BTreeMap;
use tidemark_common::RelationId;
use tidemark_plan::{BinaryOp, Expr, Fragment, JoinKind, Node, Op, Output, SharedRows};

/// The keys by which joins can look up the rows of relations.
pub(super) type Neighbours = BTreeMap<RelationId, Vec<usize>>;

/// A relation's rows on their way to a join.
#[derive(Debug)]
struct Way {
    relation: RelationId,
    /// Columns of the relation.
    columns: Vec<usize>,
    /// Over the relation's columns.
    filter: Option<Expr>,
}

/// The way of a tree that only picks columns of a relation and leaves out rows.
fn way(node: &Node) -> Option<Way> {
    match &node.op {
        Op::Tap { relation, columns } => Some(Way {
            relation: *relation,
            columns: columns.clone(),
            filter: None,
        }),
        Op::Project { exprs } => {
            let below = way(&node.inputs[0])?;
            let picked = exprs.iter().map(|expr| match expr {
                Expr::Column(c) => Some(below.columns[*c]),
                _ => None,
            });
            Some(Way {
                columns: picked.collect::<Option<_>>()?,
                ..below
            })
        }
        Op::Filter { predicate } if predicate.is_infallible() => {
            let below = way(&node.inputs[0])?;
            let predicate = predicate.clone();
            let own = predicate.replace_columns(&|c| Expr::Column(below.columns[c]));
            let filter = match below.filter {
                None => own,
                Some(other) => Expr::Binary {
                    op: BinaryOp::And,
                    left: Box::new(other),
                    right: Box::new(own),
                },
            };
            Some(Way {
                filter: Some(filter),
                ..below
            })
        }
        _ => None,
    }
}

impl Way {
    /// What the join looks up.
    fn rows(&self) -> SharedRows {
        let mut columns = self.columns.clone();
        if let Some(filter) = &self.filter {
            filter.visit_columns(&mut |c| {
                if !columns.contains(&c) {
                    columns.push(c);
                }
            });
        }
        let place = |c: usize| columns.iter().position(|other| *other == c);
        let filter = self.filter.clone();
        SharedRows {
            relation: self.relation,
            filter: filter.map(|f| f.replace_columns(&|c| Expr::Column(place(c).unwrap_or(c)))),
            columns,
        }
    }
}

/// Pairs of join keys in the order that the key of a relation on one of the sides has, if they are
/// that key.
pub(super) fn in_order_of_key(
    (left, right): (&Node, &Node),
    (left_keys, right_keys): (Vec<usize>, Vec<usize>),
    neighbours: &Neighbours,
) -> (Vec<usize>, Vec<usize>) {
    for (node, keys) in [(right, &right_keys), (left, &left_keys)] {
        let Some((way, key)) = way(node).and_then(|way| {
            let key = neighbours.get(&way.relation)?;
            Some((way, key))
        }) else {
            continue;
        };
        let place = |c: &usize| keys.iter().position(|k| way.columns[*k] == *c);
        let order: Option<Vec<usize>> = key.iter().map(place).collect();
        if let Some(order) = order.filter(|order| order.len() == keys.len()) {
            let sorted = |keys: &[usize]| order.iter().map(|at| keys[*at]).collect();
            return (sorted(&left_keys), sorted(&right_keys));
        }
    }
    (left_keys, right_keys)
}

/// Finds the sides of a job's joins that relations keep already.
pub(super) fn share_rows(fragments: &mut [Fragment], neighbours: &Neighbours) {
    let senders: Vec<(Option<Way>, Output)> = fragments
        .iter()
        .map(|fragment| (way(&fragment.root), fragment.output.clone()))
        .collect();
    for fragment in fragments {
        let to = fragment.id;
        let rows_of = |from: u32, keys: &[usize]| {
            let (way, output) = senders.get(from as usize)?;
            let way = way.as_ref()?;
            let key = neighbours.get(&way.relation)?;
            let is_key = keys.iter().map(|k| way.columns[*k]).eq(key.iter().copied());
            let mut ways = output.each().iter();
            let is_there = ways.all(|output| match output {
                Output::Exchange {
                    to: other,
                    keys: by,
                } => *other != to || by == keys,
                _ => false,
            });
            (is_key && is_there).then(|| way.rows())
        };
        each_join(&mut fragment.root, &rows_of);
    }
}

fn each_join(node: &mut Node, rows_of: &dyn Fn(u32, &[usize]) -> Option<SharedRows>) {
    let Node { op, inputs, .. } = node;
    if let Op::Join {
        kind,
        left_keys,
        right_keys,
        residual,
        left_closes: None,
        right_closes: None,
        shared,
        ..
    } = op
        && (residual.is_none() || *kind == JoinKind::Inner)
    {
        for (port, keys) in [left_keys, right_keys].into_iter().enumerate() {
            if let Op::Receive { from } = inputs[port].op {
                shared[port] = rows_of(from, keys);
            }
        }
    }
    inputs
        .iter_mut()
        .for_each(|input| each_join(input, rows_of));
}
