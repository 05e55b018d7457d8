//! What a job would compute twice is computed once: its plan is a graph.
//!
//! Lowering makes a tree, and names a relation, a common table expression or a subquery that stands
//! in a query twice as often as it stands there. Here, when all fragments are made,
//!
//! * fragments that compute the same are one, whose output goes to all who read it;
//! * where two compute different columns of the same groups, windows or first rows, these become a
//!   fragment of their own, which keeps its state once.
//!
//! Sound, because an operator's output follows from its input alone. Names of columns are none of
//! what is computed.

use arrow_schema::{Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_plan::{Fragment, Node, Op, Output};

/// Who sends to a `Receive`: a fragment of before, or the state that some of these share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Fragment(usize),
    /// The state of the fragments of this group.
    Shared(usize),
}

/// A fragment of the graph.
struct Made {
    is: Sender,
    /// Its `Receive`s are those of before, or [`SHARED`] that of its group.
    root: Node,
    group: usize,
}

/// Stands for the shared state in a `Receive`.
const SHARED: u32 = u32::MAX;

/// Makes a graph of the fragments of a job, whose `Receive`s and outputs are told again.
pub(super) fn share(fragments: Vec<Fragment>) -> Vec<Fragment> {
    let classes = Classes::of(&fragments);
    let made = classes.made(&fragments);
    let numbers: BTreeMap<Sender, u32> = made
        .iter()
        .enumerate()
        .map(|(number, made)| (made.is, number as u32))
        .collect();
    let mut shared: Vec<Fragment> = Vec::new();
    for (id, mut made) in made.into_iter().enumerate() {
        let mut outputs = Vec::new();
        receives(&mut made.root, &mut |from| {
            let (sender, keys) = match *from {
                SHARED => (Sender::Shared(made.group), classes.keys[made.group].clone()),
                before => classes.sender(before as usize, &fragments),
            };
            *from = numbers[&sender];
            outputs.push((*from, keys));
        });
        for (from, keys) in outputs {
            add_output(&mut shared[from as usize].output, id as u32, keys);
        }
        shared.push(Fragment {
            id: id as u32,
            root: made.root,
            output: Output::Several(Vec::new()),
        });
    }
    for fragment in &mut shared {
        if let Output::Several(outputs) = &mut fragment.output {
            match outputs.len() {
                0 => fragment.output = Output::Relation,
                1 => fragment.output = outputs.remove(0),
                _ => {}
            }
        }
    }
    shared
}

fn add_output(output: &mut Output, to: u32, keys: Vec<usize>) {
    if let Output::Several(outputs) = output {
        outputs.push(Output::Exchange { to, keys });
    }
}

/// Calls `f` for the sender of each `Receive` of a tree, in the order of its leaves.
fn receives(node: &mut Node, f: &mut dyn FnMut(&mut u32)) {
    if let Op::Receive { from } = &mut node.op {
        f(from);
    }
    for input in &mut node.inputs {
        receives(input, f);
    }
}

/// What is equal among the fragments of a job.
struct Classes {
    /// By fragment: the first one that computes the same.
    first: Vec<usize>,
    /// By fragment: the group of those that share its state, if there are others.
    group: Vec<Option<usize>>,
    /// By group: the columns by which its state is spread.
    keys: Vec<Vec<usize>>,
}

impl Classes {
    fn of(fragments: &[Fragment]) -> Classes {
        let (mut first, mut roots) = (Vec::new(), Vec::<Node>::new());
        let mut ways = Vec::new();
        for fragment in fragments {
            let root = same(&fragment.root, &mut |from| {
                let way = (first[from], keys(&fragments[from].output));
                way_number(&mut ways, way)
            });
            let is_last = fragment.output == Output::Relation;
            let found = roots.iter().position(|r| are_same(r, &root));
            let found = found.filter(|_| !is_last);
            first.push(found.unwrap_or(roots.len()));
            roots.push(root);
        }
        let mut classes = Classes {
            group: vec![None; first.len()],
            keys: Vec::new(),
            first,
        };
        classes.group(&roots);
        classes
    }

    /// Finds fragments that have the same state below other columns.
    fn group(&mut self, roots: &[Node]) {
        let ones: Vec<usize> = (0..roots.len()).filter(|i| self.first[*i] == *i).collect();
        for (n, i) in ones.iter().enumerate() {
            let Some((state, keys)) = state_of(&roots[*i]).filter(|_| self.group[*i].is_none())
            else {
                continue;
            };
            let is_same =
                |j: &&usize| state_of(&roots[**j]).is_some_and(|(s, _)| are_same(s, state));
            let others: Vec<usize> = ones[n + 1..].iter().filter(is_same).copied().collect();
            if !others.is_empty() {
                let group = Some(self.keys.len());
                self.keys.push(keys);
                self.group[*i] = group;
                others.iter().for_each(|j| self.group[*j] = group);
            }
        }
    }

    /// Whether a fragment is nothing but the state of its group.
    fn is_state(&self, fragment: usize, fragments: &[Fragment]) -> Option<usize> {
        let group = self.group[fragment]?;
        let root = &fragments[fragment].root;
        let (state, _) = state_of(root)?;
        std::ptr::eq(state, root).then_some(group)
    }

    /// Who sends what a fragment of before sent, and by which columns.
    fn sender(&self, before: usize, fragments: &[Fragment]) -> (Sender, Vec<usize>) {
        let first = self.first[before];
        let sender = match self.is_state(first, fragments) {
            Some(group) => Sender::Shared(group),
            None => Sender::Fragment(first),
        };
        (sender, keys(&fragments[before].output))
    }

    /// The fragments of the graph, in order of dataflow.
    fn made(&self, fragments: &[Fragment]) -> Vec<Made> {
        let (mut made, mut is_made) = (Vec::new(), vec![false; self.keys.len()]);
        for (i, fragment) in fragments.iter().enumerate() {
            if self.first[i] != i {
                continue;
            }
            let (is, root) = (Sender::Fragment(i), fragment.root.clone());
            let Some(group) = self.group[i] else {
                let group = usize::MAX;
                made.push(Made { is, root, group });
                continue;
            };
            let (root, state) = parted(root);
            if !std::mem::replace(&mut is_made[group], true) {
                made.push(Made {
                    is: Sender::Shared(group),
                    root: state,
                    group: usize::MAX,
                });
            }
            if self.is_state(i, fragments).is_none() {
                made.push(Made { is, root, group });
            }
        }
        made
    }
}

/// Whether two trees are the same to the letter: 0 and -0 are equal, and are not.
fn are_same(a: &Node, b: &Node) -> bool {
    a == b && format!("{a:?}") == format!("{b:?}")
}

fn keys(output: &Output) -> Vec<usize> {
    match output {
        Output::Exchange { keys, .. } => keys.clone(),
        _ => Vec::new(),
    }
}

/// The number of a way from one fragment to others: equal ways have one.
fn way_number(ways: &mut Vec<(usize, Vec<usize>)>, way: (usize, Vec<usize>)) -> u32 {
    let known = ways.iter().position(|w| *w == way);
    known.unwrap_or_else(|| {
        ways.push(way);
        ways.len() - 1
    }) as u32
}

/// The operator with state below what only computes columns and leaves out rows, and the columns
/// of its output by which it is spread.
fn state_of(root: &Node) -> Option<(&Node, Vec<usize>)> {
    let mut node = root;
    while let Op::Project { .. } | Op::Filter { .. } = node.op {
        node = &node.inputs[0];
    }
    let keys = match &node.op {
        Op::Aggregate { group, .. } | Op::Collect { group, .. } => (0..group.len()).collect(),
        Op::TopN { partition, .. }
        | Op::Window { partition, .. }
        | Op::Session { partition, .. } => partition.clone(),
        _ => return None,
    };
    Some((node, keys))
}

/// A tree over the shared state, and that.
fn parted(root: Node) -> (Node, Node) {
    match root.op {
        Op::Project { .. } | Op::Filter { .. } => {
            let mut root = root;
            let (above, state) = parted(root.inputs.remove(0));
            root.inputs.push(above);
            (root, state)
        }
        _ => {
            let above = Node {
                op: Op::Receive { from: SHARED },
                inputs: Vec::new(),
                schema: root.schema.clone(),
                properties: root.properties.clone(),
            };
            (above, root)
        }
    }
}

/// A tree without what is not computed: names of columns, numbers of state tables; `sender` gives
/// equal numbers to equal senders.
fn same(node: &Node, sender: &mut dyn FnMut(usize) -> u32) -> Node {
    let mut op = node.op.clone();
    if let Op::Receive { from } = &mut op {
        *from = sender(*from as usize);
    }
    for table in op.tables_mut() {
        *table = 0;
    }
    Node {
        op,
        inputs: node.inputs.iter().map(|n| same(n, sender)).collect(),
        schema: unnamed(&node.schema),
        properties: node.properties.clone(),
    }
}

fn unnamed(schema: &SchemaRef) -> SchemaRef {
    let field = |f: &Arc<Field>| Field::new("", f.data_type().clone(), f.is_nullable());
    Arc::new(Schema::new(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
    ))
}
