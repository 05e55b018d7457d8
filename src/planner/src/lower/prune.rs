//! Columns that nobody reads any more after lowering: helper columns of join keys, columns of a
//! condition that turned out to be implied. They are taken out of trees and exchanges, from the end
//! of the job to its beginning: what a fragment reads is what the one before has to send, plus the
//! keys by which it is sent.
//!
//! Sound, because no operator looks at columns that it does not name, but for an ASOF join, whose
//! right side keeps those that decide between rows; where a row's multiplicity is all that matters,
//! one column stays.

use crate::lower::exprs::remap;
use crate::lower::stream::{Stream, narrowest};
use arrow_schema::{Field, Schema, SchemaRef};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tidemark_plan::{Expr, Fragment, Node, Op, Output, Properties, SortKey};

/// Where each old column is now.
type Places = Vec<Option<usize>>;

/// Prunes all fragments of a job.
pub(super) fn prune_fragments(fragments: &mut [Fragment]) {
    let mut sent: Vec<Option<BTreeSet<usize>>> = vec![None; fragments.len()];
    for f in (0..fragments.len()).rev() {
        let width = fragments[f].root.schema.fields().len();
        let needed = sent[f].clone().unwrap_or_else(|| (0..width).collect());
        let keys: Vec<Vec<usize>> = fragments[..f]
            .iter()
            .map(|g| {
                if let Output::Exchange { keys, .. } = &g.output {
                    keys.clone()
                } else {
                    Vec::new()
                }
            })
            .collect();
        let mut pruner = Pruner {
            keys,
            sent: &mut sent,
        };
        let root = std::mem::replace(&mut fragments[f].root, placeholder());
        let root = pruner.exactly(root, &needed);
        fragments[f].root = root;
        if let Output::Exchange { keys, .. } = &mut fragments[f].output {
            let order: Vec<usize> = needed.iter().copied().collect();
            keys.iter_mut()
                .for_each(|k| *k = order.binary_search(k).unwrap_or(0));
        }
    }
}

fn placeholder() -> Node {
    Node {
        op: Op::Union,
        inputs: Vec::new(),
        schema: Arc::new(Schema::empty()),
        properties: Properties::default(),
    }
}

struct Pruner<'a> {
    /// The exchange keys of the fragments before this one.
    keys: Vec<Vec<usize>>,
    /// What they have to send, found on the way.
    sent: &'a mut Vec<Option<BTreeSet<usize>>>,
}

impl Pruner<'_> {
    /// Prunes to these columns and no others, in their old order.
    fn exactly(&mut self, node: Node, needed: &BTreeSet<usize>) -> Node {
        let (node, places) = self.prune(node, needed);
        let picks: Vec<usize> = needed.iter().filter_map(|c| places[*c]).collect();
        Stream {
            node,
            partitions: Vec::new(),
        }
        .pick(&picks)
        .node
    }

    /// Prunes a tree to at least these columns.
    fn prune(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let mut needed = needed.clone();
        if needed.is_empty() {
            needed.insert(narrowest(&node.schema));
        }
        let read = |reads: &mut BTreeSet<usize>, c: usize| {
            reads.insert(c);
        };
        let input = |node: &mut Node| std::mem::replace(&mut node.inputs[0], placeholder());
        match &mut node.op {
            Op::Tap { columns, .. } => {
                *columns = needed.iter().map(|c| columns[*c]).collect();
                kept(node, &needed)
            }
            Op::Receive { from } => {
                let from = *from as usize;
                needed.extend(self.keys[from].iter().copied());
                self.sent[from] = Some(needed.clone());
                kept(node, &needed)
            }
            Op::Values { rows } => {
                rows.iter_mut()
                    .for_each(|row| *row = needed.iter().map(|c| row[*c].clone()).collect());
                kept(node, &needed)
            }
            Op::Filter { .. } => {
                let below = input(&mut node);
                let schema = node.schema.clone();
                let Op::Filter { predicate } = node.op else {
                    unreachable!("matched above")
                };
                let mut reads = needed.clone();
                predicate.visit_columns(&mut |c| read(&mut reads, c));
                let (below, places) = self.prune(below, &reads);
                let mut stream = Stream {
                    node: below,
                    partitions: Vec::new(),
                }
                .filter(moved(predicate, &places));
                stream.node.schema = renamed(&stream.node.schema, &schema, &places);
                (stream.node, places)
            }
            Op::Project { .. } => {
                let below = input(&mut node);
                let Op::Project { exprs } = &node.op else {
                    unreachable!("matched above")
                };
                let exprs: Vec<Expr> = needed.iter().map(|c| exprs[*c].clone()).collect();
                let mut reads = BTreeSet::new();
                exprs
                    .iter()
                    .for_each(|e| e.visit_columns(&mut |c| read(&mut reads, c)));
                let (below, places) = self.prune(below, &reads);
                let exprs = exprs.into_iter().map(|e| moved(e, &places)).collect();
                let (node, places) = kept(node, &needed);
                let mut stream = Stream {
                    node: below,
                    partitions: Vec::new(),
                }
                .project(exprs, node.schema.clone());
                stream.node.properties = node.properties;
                (stream.node, places)
            }
            Op::Union => {
                node.inputs = std::mem::take(&mut node.inputs)
                    .into_iter()
                    .map(|i| self.exactly(i, &needed))
                    .collect();
                kept(node, &needed)
            }
            Op::Expand { .. } => self.expand(node, &needed),
            Op::Unnest { .. } => self.unnest(node, &needed),
            Op::Join { .. } | Op::AsofJoin { .. } | Op::TemporalJoin { .. } => {
                self.join(node, &needed)
            }
            Op::Aggregate { .. } | Op::PartialAggregate { .. } => self.aggregate(node),
            Op::TopN { .. } | Op::PartialTopN { .. } => self.top_n(node, &needed),
            Op::Window { .. } => self.window(node, &needed),
            Op::Session { .. } => self.session(node, &needed),
            Op::Collect { .. } => self.collect(node),
            Op::EmitOnClose { .. } | Op::TemporalFilter { .. } => self.waiting(node, &needed),
            Op::Recursive { .. } => self.recursive(node),
            Op::SourceRead { .. } | Op::TableRead | Op::Working => whole(node),
            Op::Upsert { .. } | Op::Materialize { .. } | Op::Sink { .. } | Op::Changelog { .. } => {
                let below = input(&mut node);
                let all = (0..below.schema.fields().len()).collect();
                node.inputs[0] = self.exactly(below, &all);
                whole(node)
            }
        }
    }

    /// All columns of a recursive query may decide how it goes on.
    fn recursive(&mut self, mut node: Node) -> (Node, Places) {
        let all = (0..node.schema.fields().len()).collect();
        let inputs = std::mem::take(&mut node.inputs).into_iter().enumerate();
        let pruned = inputs.map(|(input, below)| match input {
            0 => self.exactly(below, &all),
            _ => self.exactly(below, &(0..=all.len()).collect()),
        });
        node.inputs = pruned.collect();
        whole(node)
    }

    fn expand(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let width = below.schema.fields().len();
        let reads: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < width).collect();
        let (below, mut places) = self.prune(below, &reads);
        let Op::Expand { rows } = &mut node.op else {
            unreachable!("called for Expand")
        };
        let appended = rows.first().map_or(0, Vec::len);
        let mut columns: Vec<usize> = (0..appended)
            .filter(|c| needed.contains(&(width + c)))
            .collect();
        if columns.is_empty() && appended > 0 {
            columns.push(0);
        }
        let before = below.schema.fields().len();
        places.extend(
            (0..appended).map(|c| columns.iter().position(|k| *k == c).map(|at| before + at)),
        );
        rows.iter_mut()
            .for_each(|row| *row = columns.iter().map(|c| row[*c].clone()).collect());
        let appended_fields = columns
            .iter()
            .map(|c| node.schema.field(width + c).clone())
            .collect::<Vec<_>>();
        (appended_to(node, below, &places, appended_fields), places)
    }

    fn unnest(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let Op::Unnest { lists, output, .. } = &mut node.op else {
            unreachable!("called for Unnest")
        };
        *output = needed.iter().map(|c| output[*c]).collect();
        let reads = output.iter().map(|o| o.column());
        let (below, places) = self.prune(below, &reads.chain(lists.iter().copied()).collect());
        let moved = |c: usize| places[c].unwrap_or(c);
        lists.iter_mut().for_each(|c| *c = moved(*c));
        output.iter_mut().for_each(|o| *o = o.at(moved(o.column())));
        let (mut node, places) = kept(node, needed);
        node.inputs = vec![below];
        (node, places)
    }

    fn join(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let right = node.inputs.remove(1);
        let left = node.inputs.remove(0);
        let shift = left.schema.fields().len();
        let (mut no_residual, mut times) = (None, None);
        let (left_keys, right_keys, output, residual) = match &mut node.op {
            Op::Join {
                left_keys,
                right_keys,
                residual,
                output,
                ..
            }
            | Op::TemporalJoin {
                left_keys,
                right_keys,
                residual,
                output,
                ..
            } => (left_keys, right_keys, output, residual),
            Op::AsofJoin {
                left_keys,
                right_keys,
                left_time,
                right_time,
                output,
                ..
            } => {
                times = Some((left_time, right_time));
                (left_keys, right_keys, output, &mut no_residual)
            }
            _ => unreachable!("called for joins"),
        };
        *output = needed.iter().map(|c| output[*c]).collect();
        let mut reads: BTreeSet<usize> = output.iter().copied().collect();
        if let Some(residual) = residual {
            residual.visit_columns(&mut |c| {
                reads.insert(c);
            });
        }
        let side = |keys: &[usize], range: Range<usize>| -> BTreeSet<usize> {
            reads
                .iter()
                .filter(|c| range.contains(c))
                .map(|c| c - range.start)
                .chain(keys.iter().copied())
                .collect()
        };
        let (mut left_reads, mut right_reads) = (
            side(left_keys, 0..shift),
            side(right_keys, shift..shift + right.schema.fields().len()),
        );
        if let Some((left_time, right_time)) = &times {
            left_reads.insert(**left_time);
            right_reads.insert(**right_time);
            right_reads.extend(deciding(&right, right_keys, **right_time));
        }
        let (left, mut places) = self.prune(left, &left_reads);
        let (right, right_places) = self.prune(right, &right_reads);
        left_keys
            .iter_mut()
            .for_each(|k| *k = places[*k].unwrap_or(*k));
        right_keys
            .iter_mut()
            .for_each(|k| *k = right_places[*k].unwrap_or(*k));
        if let Some((left_time, right_time)) = times {
            *left_time = places[*left_time].unwrap_or(*left_time);
            *right_time = right_places[*right_time].unwrap_or(*right_time);
        }
        let before = left.schema.fields().len();
        places.extend(right_places.iter().map(|p| p.map(|p| p + before)));
        output
            .iter_mut()
            .for_each(|c| *c = places[*c].unwrap_or(*c));
        *residual = residual.take().map(|r| moved(r, &places));
        let (mut node, places) = kept(node, needed);
        node.inputs = vec![left, right];
        (node, places)
    }

    fn top_n(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let width = below.schema.fields().len();
        let (Op::TopN {
            partition, order, ..
        }
        | Op::PartialTopN {
            partition, order, ..
        }) = &mut node.op
        else {
            unreachable!("called for the first rows")
        };
        let keys = order.iter().map(|k| k.column);
        let keys = keys.chain(partition.iter().copied());
        let reads: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < width).collect();
        let (below, mut places) = self.prune(below, &reads.into_iter().chain(keys).collect());
        let mut appended = Vec::new();
        moved_order(partition, order, &places);
        if let Op::TopN { numbered, .. } = &mut node.op {
            let wanted = *numbered && needed.contains(&width);
            if *numbered {
                places.push(wanted.then(|| below.schema.fields().len()));
            }
            if wanted {
                appended.push(node.schema.field(width).clone());
            }
            *numbered = wanted;
        }
        (appended_to(node, below, &places, appended), places)
    }

    fn window(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let width = below.schema.fields().len();
        let Op::Window {
            partition,
            order,
            calls,
            ..
        } = &mut node.op
        else {
            unreachable!("called for windows")
        };
        let mut wanted: Vec<usize> = (0..calls.len())
            .filter(|c| needed.contains(&(width + c)))
            .collect();
        if wanted.is_empty() {
            wanted.push(0);
        }
        *calls = wanted.iter().map(|c| calls[*c].clone()).collect();
        let keys = order.iter().map(|k| k.column);
        let keys = keys.chain(partition.iter().copied());
        let reads = needed.iter().copied().filter(|c| *c < width).chain(keys);
        let mut reads: BTreeSet<usize> = reads.collect();
        reads.extend(calls.iter_mut().flat_map(|c| c.columns_mut()).map(|c| *c));
        let (below, mut places) = self.prune(below, &reads);
        moved_order(partition, order, &places);
        let before = below.schema.fields().len();
        let place = |c: usize| wanted.iter().position(|w| *w == c).map(|at| before + at);
        for column in calls.iter_mut().flat_map(|call| call.columns_mut()) {
            *column = places[*column].unwrap_or(*column);
        }
        let all = node.schema.fields().len() - width;
        places.extend((0..all).map(place));
        let appended = wanted.iter().map(|c| node.schema.field(width + c).clone());
        let appended = appended.collect();
        (appended_to(node, below, &places, appended), places)
    }

    fn session(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let width = below.schema.fields().len();
        let Op::Session {
            partition, time, ..
        } = &mut node.op
        else {
            unreachable!("called for sessions")
        };
        let keys = partition.iter().copied().chain([*time]);
        let reads = needed.iter().copied().filter(|c| *c < width).chain(keys);
        let (below, mut places) = self.prune(below, &reads.collect());
        for column in partition.iter_mut().chain([time]) {
            *column = places[*column].unwrap_or(*column);
        }
        let before = below.schema.fields().len();
        places.extend([Some(before), Some(before + 1)]);
        let bounds = (width..width + 2).map(|c| node.schema.field(c).clone());
        let bounds = bounds.collect();
        (appended_to(node, below, &places, bounds), places)
    }

    fn waiting(&mut self, mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let (keys, column) = match &mut node.op {
            Op::EmitOnClose { keys, closes, .. } => (keys, closes.as_mut().map(|c| &mut c.column)),
            Op::TemporalFilter { keys, moment, .. } => (keys, Some(moment)),
            _ => unreachable!("called for what waits"),
        };
        let reads = needed.iter().chain(keys.iter()).copied();
        let (below, places) = self.prune(below, &reads.collect());
        for column in keys.iter_mut().chain(column) {
            *column = places[*column].unwrap_or(*column);
        }
        (appended_to(node, below, &places, Vec::new()), places)
    }

    fn collect(&mut self, mut node: Node) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let Op::Collect { group, calls, .. } = &mut node.op else {
            unreachable!("called for Collect")
        };
        let read = calls.iter_mut().flat_map(|c| c.columns_mut()).map(|c| *c);
        let reads: BTreeSet<usize> = read.chain(group.iter().copied()).collect();
        let (below, places) = self.prune(below, &reads);
        let columns = calls.iter_mut().flat_map(|c| c.columns_mut());
        for column in columns.chain(group) {
            *column = places[*column].unwrap_or(*column);
        }
        node.inputs.push(below);
        whole(node)
    }

    fn aggregate(&mut self, mut node: Node) -> (Node, Places) {
        let below = node.inputs.remove(0);
        let (Op::Aggregate { group, calls, .. } | Op::PartialAggregate { group, calls }) =
            &mut node.op
        else {
            unreachable!("called for aggregates")
        };
        let reads: BTreeSet<usize> = group
            .iter()
            .copied()
            .chain(calls.iter_mut().flat_map(|c| c.columns_mut()).map(|c| *c))
            .collect();
        let (below, places) = self.prune(below, &reads);
        group.iter_mut().for_each(|g| *g = places[*g].unwrap_or(*g));
        for column in calls.iter_mut().flat_map(|c| c.columns_mut()) {
            *column = places[*column].unwrap_or(*column);
        }
        node.inputs.push(below);
        whole(node)
    }
}

/// The columns of an ASOF join's right side that decide between rows at one time, in their order:
/// so the same one is found whatever is read of it. Behind those of a unique key no column decides.
fn deciding(right: &Node, keys: &[usize], time: usize) -> Range<usize> {
    let open = |c: &&usize| **c != time && !keys.contains(c);
    match &right.properties.key {
        Some(key) => 0..key.iter().filter(open).max().map_or(0, |c| c + 1),
        None => 0..right.schema.fields().len(),
    }
}

/// Columns of a partition and its order after pruning.
fn moved_order(partition: &mut [usize], order: &mut [SortKey], places: &Places) {
    let moved = |c: usize| places[c].unwrap_or(c);
    partition.iter_mut().for_each(|c| *c = moved(*c));
    order.iter_mut().for_each(|k| k.column = moved(k.column));
}

/// A node that hands out its input's columns, and behind them some of its own.
fn appended_to(mut node: Node, below: Node, places: &Places, appended: Vec<Field>) -> Node {
    let before = renamed(&below.schema, &node.schema, places);
    let fields = before.fields().iter().map(|f| f.as_ref().clone());
    node.schema = Arc::new(Schema::new(fields.chain(appended).collect::<Vec<_>>()));
    node.properties = at_places(&node.properties, places);
    node.inputs.push(below);
    node
}

fn moved(expr: Expr, places: &Places) -> Expr {
    remap(expr, &|c| places[c].unwrap_or(c))
}

/// The fields of `schema` under the names that they had above.
fn renamed(schema: &SchemaRef, above: &Schema, places: &Places) -> SchemaRef {
    let name = |at: usize| {
        places
            .iter()
            .position(|p| *p == Some(at))
            .map_or(schema.field(at), |c| above.field(c))
            .name()
            .clone()
    };
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, f)| f.as_ref().clone().with_name(name(at)))
            .collect::<Vec<_>>(),
    ))
}

/// The node with its schema and properties cut to `needed`; its operator hands out just these
/// already.
fn kept(mut node: Node, needed: &BTreeSet<usize>) -> (Node, Places) {
    let order: Vec<usize> = needed.iter().copied().collect();
    let places: Places = (0..node.schema.fields().len())
        .map(|c| order.binary_search(&c).ok())
        .collect();
    node.schema = Arc::new(Schema::new(
        order
            .iter()
            .map(|c| node.schema.field(*c).clone())
            .collect::<Vec<_>>(),
    ));
    node.properties = at_places(&node.properties, &places);
    (node, places)
}

fn whole(node: Node) -> (Node, Places) {
    let places = (0..node.schema.fields().len()).map(Some).collect();
    (node, places)
}

fn at_places(properties: &Properties, places: &Places) -> Properties {
    let key = properties
        .key
        .as_ref()
        .and_then(|k| k.iter().map(|c| places[*c]).collect());
    Properties {
        append_only: properties.append_only,
        key,
    }
}
