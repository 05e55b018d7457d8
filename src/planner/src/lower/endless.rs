//! A warning about state without an end: rows of a source that some operator keeps for ever.
//!
//! A source never ends, so what keeps its rows needs a watermark that tells when they are over
//! (`watermarks`). Groups are not told of: how many there are is known to whoever asks for them.

use std::collections::{BTreeMap, BTreeSet};
use tidemark_common::RelationId;
use tidemark_plan::{Fragment, Node, Op};

/// The names of sources that are read.
pub(super) type Sources = BTreeMap<RelationId, String>;

/// The names of the sources whose rows a job keeps for ever, by fragments in order of dataflow.
pub(super) fn kept_for_ever(fragments: &[Fragment], sources: &Sources) -> BTreeSet<String> {
    let mut looking = Looking {
        sources,
        sent: Vec::new(),
        kept: BTreeSet::new(),
    };
    for fragment in fragments {
        let rows = looking.rows(&fragment.root);
        looking.sent.push(rows);
    }
    looking.kept
}

struct Looking<'a> {
    sources: &'a Sources,
    /// By fragment: the sources whose rows it sends, one for one or more.
    sent: Vec<BTreeSet<String>>,
    kept: BTreeSet<String>,
}

impl Looking<'_> {
    /// The sources whose rows a node sends on.
    fn rows(&mut self, node: &Node) -> BTreeSet<String> {
        let inputs: Vec<BTreeSet<String>> = node.inputs.iter().map(|n| self.rows(n)).collect();
        let side = |at: usize| inputs.get(at).cloned().unwrap_or_default();
        let all = || inputs.iter().flatten().cloned().collect();
        match &node.op {
            Op::Tap { relation, .. } => self.sources.get(relation).cloned().into_iter().collect(),
            Op::Receive { from } => self.sent[*from as usize].clone(),
            Op::Filter { .. } | Op::Project { .. } | Op::Union | Op::Expand { .. } => all(),
            Op::Unnest { .. } | Op::EmitOnClose { .. } | Op::Changelog { .. } => all(),
            Op::Materialize { .. } | Op::Sink { .. } => all(),
            Op::Join {
                left_closes,
                right_closes,
                ..
            } => {
                for (at, closes) in [left_closes, right_closes].into_iter().enumerate() {
                    if closes.is_none() {
                        self.kept.extend(side(at));
                    }
                }
                all()
            }
            Op::AsofJoin { .. } => {
                self.kept.extend(side(0));
                self.kept.extend(side(1));
                all()
            }
            Op::TemporalJoin { .. } => side(0),
            Op::Window { closes, .. } | Op::Session { closes, .. } => {
                if closes.is_none() {
                    self.kept.extend(side(0));
                }
                all()
            }
            Op::Collect { closes, .. } => {
                if closes.is_none() {
                    self.kept.extend(side(0));
                }
                BTreeSet::new()
            }
            Op::Recursive { .. } => {
                self.kept.extend(inputs.iter().flatten().cloned());
                all()
            }
            // One row for many, or rows that leave.
            _ => BTreeSet::new(),
        }
    }
}
