//! An actor at work: one fragment on one worker, what waits for it, and its work in slices.
//!
//! An actor processes a message on a stack of its own. Where it has sent a slice's worth of output
//! ([`SLICE_BYTES`]), or has looked up as long from work that sends nothing ([`LOOKS_MAX`]), it is
//! suspended in the middle of whatever it was about: its worker routes what it has sent, looks at
//! commands and barriers and gives other jobs their turns. Then it goes on where it was. No
//! operator knows of that: a join's fan-out, a big aggregate at a barrier, a snapshot, all send
//! piece by piece, and each piece may be where it stops. So what an actor has sent and nobody has
//! taken yet is never more than a slice, and nobody waits for more than one.
//!
//! An actor that is dropped while it is suspended unwinds its stack: a job that is dropped, or
//! fails, ends in the middle of its work.
//!
//! Slices are measured in bytes, not in time: the same input takes the same steps.

use crate::catch::catch;
use crate::exchange::{AppendedRead, Message};
use crate::fragment::{Closed, Fragment, Sink};
use arrow::datatypes::SchemaRef;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, Result, STACK_BYTES};
use tidemark_operator::RowError;
use tidemark_state::{TableSpec, ViewPartition};

/// Output after which an actor is suspended, in bytes.
pub const SLICE_BYTES: usize = 1 << 20;

/// Looks up from work that sends nothing after which an actor is suspended; an operator looks up
/// after some thousand rows.
const LOOKS_MAX: usize = 16;

/// Stacks that are kept for the next actor.
const STACKS_KEPT_MAX: usize = 8;

/// What an actor is to do next.
pub enum Work {
    /// A message from a sender of one of its leaves.
    Message {
        /// The leaf.
        leaf: usize,
        /// The sender among the leaf's channels.
        channel: usize,
        /// What it sent.
        message: Message,
    },
    /// A message of a leaf's own catching up, past the live ones that are held.
    Backfill {
        /// The leaf.
        leaf: usize,
        /// What it read.
        message: Message,
    },
    /// Live messages of this leaf wait from now on.
    Hold(usize),
    /// They flow.
    Release(usize),
    /// The writer of a checkpoint file asks for rows that a state table has sealed.
    Read(AppendedRead),
    /// The table whose rows it keeps has more columns.
    Widen(SchemaRef),
}

/// What an actor has done.
pub enum Done {
    /// Sent rows, so many bytes.
    Changes(ChangeBatch, usize),
    /// Met a failing row.
    RowError(RowError),
    /// Closed an epoch.
    Closed(Closed),
}

/// See the module.
pub struct Actor {
    /// The fragment, unless it is suspended.
    fragment: Option<Fragment>,
    suspended: Option<Run>,
    queue: VecDeque<Work>,
    /// Its state tables.
    tables: Vec<u32>,
    /// The last barrier that it has closed, or after which it began; none while it is being
    /// created.
    pub closed: Option<Epoch>,
    /// Bytes of state when it was looked at last.
    pub memory_bytes: usize,
    /// What readers see of a table that it has widened, and its state table; to be taken.
    pub widened: Option<(Arc<ViewPartition>, TableSpec)>,
}

impl Actor {
    /// An actor with nothing to do, after the barrier of `closed`.
    pub fn new(mut fragment: Fragment, closed: Option<Epoch>) -> Actor {
        if let Some(epoch) = closed {
            fragment.passed(epoch);
        }
        let operators = fragment.slots.iter_mut();
        let tables = operators.flat_map(|s| s.operator.tables());
        Actor {
            tables: tables.map(|t| t.spec().table).collect(),
            fragment: Some(fragment),
            suspended: None,
            queue: VecDeque::new(),
            closed,
            memory_bytes: 0,
            widened: None,
        }
    }

    /// Gives it something to do.
    pub fn push(&mut self, work: Work) {
        self.queue.push_back(work);
    }

    /// Whether it has something to do.
    pub fn has_work(&self) -> bool {
        self.suspended.is_some() || !self.queue.is_empty()
    }

    /// Whether it is in the middle of something.
    pub fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Looks how much state it has, unless it is in the middle of something.
    pub fn weigh(&mut self) {
        if let Some(fragment) = &mut self.fragment {
            self.memory_bytes = fragment.memory_bytes();
        }
    }

    /// Whether a state table is one of its.
    pub fn has_table(&self, table: u32) -> bool {
        self.tables.contains(&table)
    }

    /// Answers as soon as it is not in the middle of something.
    pub fn read(&mut self, read: AppendedRead) {
        match &mut self.fragment {
            Some(fragment) => answer(fragment, read),
            None => self.queue.push_front(Work::Read(read)),
        }
    }

    /// Goes on with what it is about, or begins what is next, for a slice. State is sealed at
    /// barriers of checkpoints from epoch `counts_from` on. An error ends its job.
    pub fn slice(
        &mut self,
        counts_from: Option<Epoch>,
        stacks: &mut Stacks,
    ) -> (Vec<Done>, Result<()>) {
        let run = match self.suspended.take() {
            Some(run) => run,
            None => match self.begin(counts_from, stacks) {
                Ok(Some(run)) => run,
                Ok(None) => return (Vec::new(), Ok(())),
                Err(error) => return (Vec::new(), Err(error)),
            },
        };
        match catch(|| Ok(run.go_on())) {
            Ok(Went::On(run, done)) => {
                self.suspended = Some(run);
                (done, Ok(()))
            }
            Ok(Went::Through(ended, stack)) => {
                stacks.keep(stack);
                self.fragment = Some(ended.fragment);
                self.answer_reads();
                (ended.done, ended.result)
            }
            Err(error) => (Vec::new(), Err(error)),
        }
    }

    /// Whoever asked meanwhile waits for nothing else.
    fn answer_reads(&mut self) {
        while let (Some(Work::Read(_)), Some(fragment)) =
            (self.queue.front(), self.fragment.as_mut())
        {
            if let Some(Work::Read(read)) = self.queue.pop_front() {
                answer(fragment, read);
            }
        }
    }

    /// Begins what is next, if it takes more than a moment.
    fn begin(&mut self, counts_from: Option<Epoch>, stacks: &mut Stacks) -> Result<Option<Run>> {
        let Some(mut fragment) = self.fragment.take() else {
            return Err(Error::internal("the actor has failed before"));
        };
        let work: Box<dyn FnOnce(&mut Fragment, &mut dyn Sink) -> Result<()>> =
            match self.queue.pop_front() {
                Some(Work::Message {
                    leaf,
                    channel,
                    message,
                }) => Box::new(move |f, sink| f.receive(leaf, channel, message, sink)),
                Some(Work::Backfill { leaf, message }) => {
                    Box::new(move |f, sink| f.receive_backfill(leaf, message, sink))
                }
                Some(Work::Release(leaf)) => Box::new(move |f, sink| f.release(leaf, sink)),
                Some(Work::Hold(leaf)) => {
                    fragment.hold(leaf);
                    self.fragment = Some(fragment);
                    return Ok(None);
                }
                Some(Work::Widen(schema)) => {
                    self.widened = fragment.widen(&schema);
                    self.fragment = Some(fragment);
                    return Ok(None);
                }
                // They are answered when the work ends in the middle of which they came.
                Some(Work::Read(_)) | None => {
                    self.fragment = Some(fragment);
                    return Ok(None);
                }
            };
        let stack = stacks.take()?;
        Ok(Some(Run::new(stack, fragment, counts_from, work)))
    }
}

/// Who asks gets no answer from a table that is gone.
fn answer(fragment: &mut Fragment, read: AppendedRead) {
    let columns = fragment.read_appended(read.table.table, &read.appended, &read.rows);
    if let Some(columns) = columns {
        // A writer that is gone means shutdown.
        let _ = read.reply.send(columns);
    }
}

/// Stacks for actors.
#[derive(Default)]
pub struct Stacks(Vec<DefaultStack>);

impl Stacks {
    fn take(&mut self) -> Result<DefaultStack> {
        match self.0.pop() {
            Some(stack) => Ok(stack),
            None => Ok(DefaultStack::new(STACK_BYTES)?),
        }
    }

    fn keep(&mut self, stack: DefaultStack) {
        if self.0.len() < STACKS_KEPT_MAX {
            self.0.push(stack);
        }
    }
}

/// An actor in the middle of something.
struct Run(Coroutine<(), Vec<Done>, Ended>);

/// What is left when it is through.
struct Ended {
    fragment: Fragment,
    done: Vec<Done>,
    result: Result<()>,
}

enum Went {
    On(Run, Vec<Done>),
    Through(Ended, DefaultStack),
}

impl Run {
    fn new(
        stack: DefaultStack,
        mut fragment: Fragment,
        counts_from: Option<Epoch>,
        work: impl FnOnce(&mut Fragment, &mut dyn Sink) -> Result<()> + 'static,
    ) -> Run {
        Run(Coroutine::with_stack(stack, move |yielder, ()| {
            let mut slice = Slice {
                yielder,
                counts_from,
                done: Vec::new(),
                bytes: 0,
                looks: 0,
            };
            let result = work(&mut fragment, &mut slice);
            Ended {
                done: slice.done,
                fragment,
                result,
            }
        }))
    }

    fn go_on(mut self) -> Went {
        match self.0.resume(()) {
            CoroutineResult::Yield(done) => Went::On(self, done),
            CoroutineResult::Return(ended) => Went::Through(ended, self.0.into_stack()),
        }
    }
}

/// Collects what an actor does, and suspends it.
struct Slice<'a> {
    yielder: &'a Yielder<(), Vec<Done>>,
    counts_from: Option<Epoch>,
    done: Vec<Done>,
    bytes: usize,
    looks: usize,
}

impl Slice<'_> {
    fn suspend(&mut self) {
        (self.bytes, self.looks) = (0, 0);
        self.yielder.suspend(std::mem::take(&mut self.done));
    }
}

impl Sink for Slice<'_> {
    fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.bytes();
        self.bytes += bytes;
        self.done.push(Done::Changes(batch, bytes));
        if self.bytes >= SLICE_BYTES {
            self.suspend();
        }
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        self.bytes += error.row.len() + error.message.len();
        self.done.push(Done::RowError(error));
        if self.bytes >= SLICE_BYTES {
            self.suspend();
        }
        Ok(())
    }

    fn look_up(&mut self) {
        self.looks += 1;
        if self.looks >= LOOKS_MAX {
            self.suspend();
        }
    }

    fn closed(&mut self, closed: Closed) -> Result<()> {
        self.done.push(Done::Closed(closed));
        Ok(())
    }

    fn counts(&self, epoch: Epoch) -> bool {
        self.counts_from.is_some_and(|from| epoch >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::{Channel, Leaf, Slot};
    use crate::sealing::Sealed;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tidemark_operator::materialize::Materialize;
    use tidemark_operator::{Barrier, Operator, Out};

    /// Sends each batch so many times, and then looks up as often.
    struct Fan {
        times: usize,
        under_way: Arc<AtomicUsize>,
    }

    /// Counts what is under way, also when it ends before its end.
    struct UnderWay(Arc<AtomicUsize>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Operator for Fan {
        fn on_changes(&mut self, _: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let _under_way = UnderWay(self.under_way.clone());
            for _ in 0..self.times {
                out.send(batch.clone())?;
            }
            (0..self.times).for_each(|_| out.look_up());
            Ok(())
        }
    }

    fn actor(times: usize) -> (Actor, Arc<AtomicUsize>) {
        let under_way = Arc::<AtomicUsize>::default();
        let operator = Box::new(Fan {
            times,
            under_way: under_way.clone(),
        });
        let slot = Slot {
            operator,
            parent: None,
        };
        let leaf = Leaf {
            parent: Some((0, 0)),
            channels: vec![Channel::default()],
        };
        let fragment = Fragment::new(vec![slot], vec![leaf]);
        (Actor::new(fragment, None), under_way)
    }

    fn message(message: Message) -> Work {
        Work::Message {
            leaf: 0,
            channel: 0,
            message,
        }
    }

    /// Half a slice of rows.
    fn rows() -> Message {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1; SLICE_BYTES / 16]));
        let rows = RecordBatch::try_from_iter([("a", values)]).unwrap();
        Message::Changes(ChangeBatch::insert(rows), None)
    }

    fn barrier() -> Message {
        Message::Barrier(Barrier {
            epoch: Epoch(1),
            clock: 0,
            checkpoint: false,
            horizon_ms: -1,
            watermarks: Default::default(),
        })
    }

    #[test]
    fn what_sends_much_or_works_long_does_so_slice_by_slice_and_in_order() {
        let (mut actor, under_way) = actor(33);
        let mut stacks = Stacks::default();
        actor.push(message(rows()));
        actor.push(message(barrier()));
        let mut slices = Vec::new();
        while actor.has_work() {
            let (done, result) = actor.slice(None, &mut stacks);
            result.unwrap();
            let epochs = done.iter().filter(|d| matches!(d, Done::Closed(_))).count();
            slices.push((done.len() - epochs, epochs, actor.is_suspended()));
        }
        // 16 slices of two batches; one that has sent the last and looked up; one more of looks;
        // the rest of them; the barrier.
        let mut expected = vec![(2, 0, true); 16];
        expected.extend([(1, 0, true), (0, 0, true), (0, 0, false), (0, 1, false)]);
        assert_eq!(slices, expected);
        assert_eq!(under_way.load(Ordering::Relaxed), 0);
    }

    /// Slices that an actor takes until it has closed an epoch of a million changes, and the bytes
    /// that it sealed.
    fn slices_of_a_large_epoch(operator: Box<dyn Operator>) -> (usize, usize) {
        let slot = Slot {
            operator,
            parent: None,
        };
        let leaf = Leaf {
            parent: Some((0, 0)),
            channels: vec![Channel::default()],
        };
        let mut actor = Actor::new(Fragment::new(vec![slot], vec![leaf]), None);
        let (mut stacks, counts_from) = (Stacks::default(), Some(Epoch(1)));
        let mut work = |actor: &mut Actor, work| {
            actor.push(work);
            let (mut slices, mut bytes) = (0, 0);
            while actor.has_work() {
                let (done, result) = actor.slice(counts_from, &mut stacks);
                result.unwrap();
                for done in done {
                    if let Done::Closed(closed) = done {
                        bytes += closed
                            .sealed
                            .iter()
                            .map(Sealed::memory_bytes)
                            .sum::<usize>();
                    }
                }
                slices += 1;
            }
            (slices, bytes)
        };
        for part in 0..16i64 {
            let values = (0..65_536).map(|i| part * 65_536 + i);
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
            let rows = RecordBatch::try_from_iter([("a", values)]).unwrap();
            let weights = (0..65_536).map(|i| 1 + i % 2).collect();
            let changes = Message::Changes(ChangeBatch::new(rows, weights), None);
            work(&mut actor, message(changes));
        }
        let barrier = Barrier {
            epoch: Epoch(1),
            clock: 0,
            checkpoint: true,
            horizon_ms: -1,
            watermarks: Default::default(),
        };
        work(&mut actor, message(Message::Barrier(barrier)))
    }

    #[test]
    fn a_large_epoch_is_consolidated_and_sealed_slice_by_slice() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let view = Materialize::new("r", schema.clone(), None, false, 0, 0);
        let (slices, sealed) = slices_of_a_large_epoch(Box::new(view));
        assert!(slices > 50 && sealed > 16 << 20, "{slices}, {sealed}");
        let told = Arc::<AtomicUsize>::default();
        let output = {
            let told = told.clone();
            Box::new(move |_, changes: Vec<ChangeBatch>, _| {
                let rows = changes.iter().map(ChangeBatch::num_rows).sum();
                told.fetch_add(rows, Ordering::Relaxed);
            })
        };
        let sink = tidemark_operator::sink::Sink::new(schema, vec![0], false, output);
        let (slices, _) = slices_of_a_large_epoch(Box::new(sink));
        assert!(slices > 25, "{slices}");
        assert_eq!(told.load(Ordering::Relaxed), 1 << 20);
    }

    #[test]
    fn an_actor_that_is_dropped_ends_in_the_middle_of_its_work() {
        let (mut actor, under_way) = actor(1000);
        actor.push(message(rows()));
        let (_, result) = actor.slice(None, &mut Stacks::default());
        result.unwrap();
        assert_eq!(under_way.load(Ordering::Relaxed), 1);
        drop(actor);
        assert_eq!(under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panic_is_an_error_of_the_job() {
        struct Broken;
        impl Operator for Broken {
            fn on_changes(&mut self, _: usize, _: ChangeBatch, _: &mut dyn Out) -> Result<()> {
                panic!("a broken invariant")
            }
        }
        let slot = Slot {
            operator: Box::new(Broken),
            parent: None,
        };
        let leaf = Leaf {
            parent: Some((0, 0)),
            channels: vec![Channel::default()],
        };
        let mut actor = Actor::new(Fragment::new(vec![slot], vec![leaf]), None);
        actor.push(message(rows()));
        let error = actor.slice(None, &mut Stacks::default()).1.unwrap_err();
        assert!(error.message().contains("a broken invariant"), "{error}");
        actor.push(message(barrier()));
        assert!(actor.slice(None, &mut Stacks::default()).1.is_err());
    }
}
