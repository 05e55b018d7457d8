//! The step of a recursive query: the operators between the rows of an iteration and what they
//! become, as a tree that is fed from outside. Whatever does not depend on the iterations is
//! computed elsewhere and comes in at a port of its own.

use super::pending::Pending;
use crate::{Barrier, Operator, Out, RowError};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{Node, Op};
use tidemark_state::StateTable;

/// Who reads something: (operator, port), or nobody in the step, whose output it is.
type Target = Option<(usize, usize)>;

/// The operators, inputs before those that read them.
pub struct Step {
    slots: Vec<Slot>,
    /// Where the rows of iterations go, then what comes in at the other ports.
    targets: Vec<Target>,
}

struct Slot {
    operator: Box<dyn Operator>,
    target: Target,
}

/// Where a part of the tree gets its rows from.
enum Source {
    Slot(usize),
    Port(usize),
}

/// The columns of an iteration with its number in front.
pub(super) fn numbered(columns: &SchemaRef) -> SchemaRef {
    let number = Arc::new(Field::new("iteration", DataType::Int64, true));
    let fields = columns.fields().iter().cloned();
    Arc::new(Schema::new(
        std::iter::once(number).chain(fields).collect::<Vec<_>>(),
    ))
}

impl Step {
    /// The step of this tree, whose operators `build` makes. Its ports are as [`Node::read`] tells
    /// them.
    pub fn new(
        root: &Node,
        build: &mut dyn FnMut(&Node) -> Result<Box<dyn Operator>>,
    ) -> Result<Step> {
        let mut step = Step {
            slots: Vec::new(),
            targets: vec![None],
        };
        if !root.reads_working() {
            return Err(Error::internal("a step does not read its iterations"));
        }
        step.add(root, build)?;
        Ok(step)
    }

    fn add(
        &mut self,
        node: &Node,
        build: &mut dyn FnMut(&Node) -> Result<Box<dyn Operator>>,
    ) -> Result<Source> {
        if matches!(node.op, Op::Working) {
            return Ok(Source::Port(0));
        }
        if !node.reads_working() {
            self.targets.push(None);
            return Ok(Source::Port(self.targets.len() - 1));
        }
        let inputs = node.inputs.iter().map(|input| self.add(input, build));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let slot = self.slots.len();
        self.slots.push(Slot {
            operator: build(node)?,
            target: None,
        });
        for (port, input) in inputs.into_iter().enumerate() {
            match input {
                Source::Slot(i) => self.slots[i].target = Some((slot, port)),
                Source::Port(i) => self.targets[i] = Some((slot, port)),
            }
        }
        Ok(Source::Slot(slot))
    }

    /// Changes come in at a port: those of an iteration, with its number in front, at the first.
    /// What becomes of them waits in `pending`.
    pub(super) fn changes(
        &mut self,
        port: usize,
        batch: ChangeBatch,
        pending: &mut Pending,
        out: &mut dyn Out,
    ) -> Result<()> {
        let target = self.targets.get(port).copied();
        let target = target.ok_or_else(|| Error::internal("a step has no such port"))?;
        let mut chain = Chain {
            slots: &mut self.slots,
            base: 0,
            target,
            pending,
            out,
        };
        chain.send(batch)
    }

    /// The barrier has come: the operators forget what they may.
    pub(super) fn close(
        &mut self,
        barrier: &Barrier,
        pending: &mut Pending,
        out: &mut dyn Out,
    ) -> Result<()> {
        for i in 0..self.slots.len() {
            let Some((head, rest)) = self.slots[i..].split_first_mut() else {
                break;
            };
            let mut chain = Chain {
                slots: rest,
                base: i + 1,
                target: head.target,
                pending,
                out,
            };
            head.operator.on_barrier(barrier, &mut chain)?;
        }
        assert!(
            pending.next().is_none(),
            "the operators of a step send nothing at barriers"
        );
        Ok(())
    }

    /// The state tables of its operators.
    pub(super) fn tables(&mut self) -> impl Iterator<Item = &mut dyn StateTable> {
        self.slots.iter_mut().flat_map(|s| s.operator.tables())
    }
}

/// What an operator of the step sends to.
struct Chain<'a> {
    slots: &'a mut [Slot],
    base: usize,
    target: Target,
    pending: &'a mut Pending,
    out: &'a mut dyn Out,
}

impl Out for Chain<'_> {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some((slot, port)) = self.target else {
            return self.pending.add_next(&batch);
        };
        let Some((head, rest)) = self.slots[slot - self.base..].split_first_mut() else {
            unreachable!("who reads an operator follows it")
        };
        let mut chain = Chain {
            slots: rest,
            base: slot + 1,
            target: head.target,
            pending: self.pending,
            out: self.out,
        };
        head.operator.on_changes(port, batch, &mut chain)
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        self.out.row_error(error)
    }

    fn look_up(&mut self) {
        self.out.look_up();
    }
}
