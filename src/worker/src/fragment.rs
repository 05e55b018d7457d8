//! An actor: one fragment on one worker. Its operators in post-order (inputs before those who read
//! them), its leaves with their channels, and barrier alignment, which is written here once for all
//! operators.
//!
//! Alignment: a channel that has delivered the barrier of an epoch is held back (its messages wait
//! in its queue) until all channels of all leaves have. Then every operator closes the epoch,
//! inputs first, state is sealed if the barrier asks for it, and the barrier goes on.

use crate::exchange::Message;
use crate::sealing::Sealed;
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Result};
use tidemark_operator::{Barrier, Operator, Out, RowError};
use tidemark_state::{Appended, TableSpec, ViewPartition};

/// An operator and who reads its output: (operator, port), or nobody (the root).
pub struct Slot {
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// Where its output goes within the fragment.
    pub parent: Option<(usize, usize)>,
}

/// Where messages come in.
pub struct Leaf {
    /// Where rows go: (operator, port), or straight to the fragment's output.
    pub parent: Option<(usize, usize)>,
    /// One per sender.
    pub channels: Vec<Channel>,
}

/// Messages of one sender, in order.
#[derive(Default)]
pub struct Channel {
    queue: VecDeque<Message>,
    /// Has delivered the current epoch's barrier.
    aligned: bool,
    /// Live messages wait until a catching-up leaf has come to its barrier.
    held: bool,
}

/// One fragment on one worker.
pub struct Fragment {
    /// In post-order.
    pub slots: Vec<Slot>,
    /// Its leaves.
    pub leaves: Vec<Leaf>,
    aligned: usize,
    channels: usize,
}

/// An epoch that an actor has closed.
pub struct Closed {
    /// Its barrier.
    pub barrier: Barrier,
    /// What changed in the state tables, if they were sealed.
    pub sealed: Vec<Sealed>,
    /// At the barrier of a checkpoint: bytes of state.
    pub memory_bytes: Option<usize>,
}

/// What processing produces.
pub trait Sink {
    /// Output of the root.
    fn changes(&mut self, batch: ChangeBatch) -> Result<()>;
    /// A failing row.
    fn row_error(&mut self, error: RowError) -> Result<()>;
    /// The actor looks up from work that sends nothing.
    fn look_up(&mut self) {}
    /// All channels have delivered a barrier and the operators have closed its epoch.
    fn closed(&mut self, closed: Closed) -> Result<()>;
    /// Whether epochs from this one on wait for the job.
    fn counts(&self, epoch: Epoch) -> bool;
    /// Whether state is sealed at this barrier.
    fn seals(&self, barrier: &Barrier) -> bool {
        barrier.checkpoint && self.counts(barrier.epoch)
    }
}

struct Chain<'a> {
    slots: &'a mut [Slot],
    base: usize,
    target: Option<(usize, usize)>,
    sink: &'a mut dyn Sink,
}

impl Out for Chain<'_> {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some((slot, port)) = self.target else {
            return self.sink.changes(batch);
        };
        let Some((head, rest)) = self.slots[slot - self.base..].split_first_mut() else {
            unreachable!("a parent follows its inputs")
        };
        let mut out = Chain {
            slots: rest,
            base: slot + 1,
            target: head.parent,
            sink: self.sink,
        };
        head.operator.on_changes(port, batch, &mut out)
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        self.sink.row_error(error)
    }

    fn look_up(&mut self) {
        self.sink.look_up();
    }
}

impl Fragment {
    /// A fragment that has seen nothing.
    pub fn new(slots: Vec<Slot>, leaves: Vec<Leaf>) -> Fragment {
        let channels = leaves.iter().map(|l| l.channels.len()).sum();
        Fragment {
            slots,
            leaves,
            aligned: 0,
            channels,
        }
    }

    /// Takes a message in; processes it and whatever it unblocks.
    pub fn receive(
        &mut self,
        leaf: usize,
        channel: usize,
        message: Message,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let c = &mut self.leaves[leaf].channels[channel];
        if c.aligned || c.held || !c.queue.is_empty() {
            c.queue.push_back(message);
            return Ok(());
        }
        self.process(leaf, channel, message, sink)?;
        self.drain(sink)
    }

    /// Takes a message of a leaf's own catching up in, past the live ones that are held.
    pub fn receive_backfill(
        &mut self,
        leaf: usize,
        message: Message,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        self.process(leaf, 0, message, sink)?;
        self.drain(sink)
    }

    /// Live messages of a leaf wait until it is released.
    pub fn hold(&mut self, leaf: usize) {
        self.leaves[leaf].channels[0].held = true;
    }

    /// Lets live messages flow.
    pub fn release(&mut self, leaf: usize, sink: &mut dyn Sink) -> Result<()> {
        self.leaves[leaf].channels[0].held = false;
        self.drain(sink)
    }

    /// Runs a batch through a stateless fragment with one leaf, outside of any dataflow; failing
    /// rows are left out (who reads the same rows live records them).
    pub fn run(&mut self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        let mut collected = Collected::default();
        self.process(0, 0, Message::Changes(batch, None), &mut collected)?;
        Ok(collected.0)
    }

    fn process(
        &mut self,
        leaf: usize,
        channel: usize,
        message: Message,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        match message {
            Message::Changes(batch, _credit) => {
                let target = self.leaves[leaf].parent;
                Chain {
                    slots: &mut self.slots,
                    base: 0,
                    target,
                    sink,
                }
                .send(batch)
            }
            Message::Barrier(barrier) => {
                self.leaves[leaf].channels[channel].aligned = true;
                self.aligned += 1;
                if self.aligned == self.channels {
                    self.close(barrier, sink)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn close(&mut self, barrier: Barrier, sink: &mut dyn Sink) -> Result<()> {
        for i in 0..self.slots.len() {
            let Some((head, rest)) = self.slots[i..].split_first_mut() else {
                break;
            };
            let mut out = Chain {
                slots: rest,
                base: i + 1,
                target: head.parent,
                sink,
            };
            head.operator.on_barrier(&barrier, &mut out)?;
        }
        if sink.counts(barrier.epoch) {
            self.passed(barrier.epoch);
        }
        let mut sealed = Vec::new();
        if sink.seals(&barrier) {
            for table in self.slots.iter_mut().flat_map(|s| s.operator.tables()) {
                sealed.extend(Sealed::of(table, &mut || sink.look_up()));
            }
        }
        let memory_bytes = barrier.checkpoint.then(|| self.memory_bytes());
        sink.closed(Closed {
            barrier,
            sealed,
            memory_bytes,
        })?;
        self.aligned = 0;
        self.leaves
            .iter_mut()
            .flat_map(|l| &mut l.channels)
            .for_each(|c| c.aligned = false);
        Ok(())
    }

    /// What other relations hold as of this epoch can be looked up.
    pub fn passed(&mut self, epoch: Epoch) {
        let operators = self.slots.iter_mut();
        operators.for_each(|slot| slot.operator.passed(epoch));
    }

    /// Processes what waits in channels that are not held back (any more).
    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        loop {
            let mut progressed = false;
            for leaf in 0..self.leaves.len() {
                for channel in 0..self.leaves[leaf].channels.len() {
                    loop {
                        let c = &mut self.leaves[leaf].channels[channel];
                        if c.aligned || c.held {
                            break;
                        }
                        let Some(message) = c.queue.pop_front() else {
                            break;
                        };
                        self.process(leaf, channel, message, sink)?;
                        progressed = true;
                    }
                }
            }
            if !progressed {
                return Ok(());
            }
        }
    }

    /// The table whose rows an operator of this fragment keeps has more columns; what readers see
    /// of it, and its state table.
    pub fn widen(&mut self, schema: &SchemaRef) -> Option<(Arc<ViewPartition>, TableSpec)> {
        self.slots.iter_mut().find_map(|slot| {
            let view = slot.operator.widen(schema)?;
            let spec = slot.operator.tables().first()?.spec();
            Some((view, spec))
        })
    }

    /// Columns of rows that a table of this fragment has sealed as appended; `None` if it is none
    /// of this fragment's.
    pub fn read_appended(
        &mut self,
        table: u32,
        appended: &Appended,
        rows: &[u32],
    ) -> Option<Vec<ArrayRef>> {
        let found = self
            .slots
            .iter_mut()
            .flat_map(|s| s.operator.tables())
            .find(|t| t.spec().table == table)?;
        Some(found.read_appended(appended, rows))
    }

    /// Bytes of state.
    pub fn memory_bytes(&mut self) -> usize {
        let bytes = |slot: &mut Slot| {
            let tables = slot.operator.tables();
            let tables = tables.iter().map(|t| t.memory_bytes()).sum::<usize>();
            tables + slot.operator.memory_bytes()
        };
        self.slots.iter_mut().map(bytes).sum()
    }
}

#[derive(Default)]
struct Collected(Vec<ChangeBatch>);

impl Sink for Collected {
    fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
        self.0.push(batch);
        Ok(())
    }
    fn row_error(&mut self, _: RowError) -> Result<()> {
        Ok(())
    }
    fn closed(&mut self, _: Closed) -> Result<()> {
        Ok(())
    }
    fn counts(&self, _: Epoch) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[derive(Default)]
    struct Record(Vec<String>);

    impl Sink for Record {
        fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
            self.0.push(format!("{} rows", batch.num_rows()));
            Ok(())
        }
        fn row_error(&mut self, _: RowError) -> Result<()> {
            Ok(())
        }
        fn closed(&mut self, closed: Closed) -> Result<()> {
            self.0.push(format!("barrier {}", closed.barrier.epoch));
            Ok(())
        }
        fn counts(&self, _: Epoch) -> bool {
            false
        }
    }

    fn rows(n: usize) -> Message {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let column = Arc::new(Int64Array::from(vec![0; n]));
        let rows = RecordBatch::try_new(schema, vec![column]).unwrap();
        Message::Changes(ChangeBatch::insert(rows), None)
    }

    fn barrier(epoch: u64) -> Message {
        Message::Barrier(Barrier {
            epoch: Epoch(epoch),
            clock: 0,
            checkpoint: false,
            horizon_ms: -1,
            watermarks: Default::default(),
        })
    }

    #[test]
    fn rows_behind_a_barrier_wait_for_the_slowest_channel() {
        let leaf = || Leaf {
            parent: None,
            channels: vec![Channel::default(), Channel::default()],
        };
        let mut fragment = Fragment::new(Vec::new(), vec![leaf(), leaf()]);
        let mut out = Record::default();
        fragment.receive(0, 0, barrier(1), &mut out).unwrap();
        fragment.receive(0, 0, rows(1), &mut out).unwrap();
        fragment.receive(0, 0, barrier(2), &mut out).unwrap();
        fragment.receive(0, 0, rows(2), &mut out).unwrap();
        fragment.receive(1, 1, rows(3), &mut out).unwrap();
        assert_eq!(out.0, ["3 rows"]);
        for (leaf, channel) in [(0, 1), (1, 0), (1, 1)] {
            fragment
                .receive(leaf, channel, barrier(1), &mut out)
                .unwrap();
        }
        assert_eq!(out.0, ["3 rows", "barrier 1", "1 rows"]);
        for (leaf, channel) in [(0, 1), (1, 0), (1, 1)] {
            fragment
                .receive(leaf, channel, barrier(2), &mut out)
                .unwrap();
        }
        assert_eq!(
            out.0,
            ["3 rows", "barrier 1", "1 rows", "barrier 2", "2 rows"]
        );
    }
}
