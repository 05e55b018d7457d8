//! One scheduler for everything that runs: tasks, which it polls, and threads, which are stacks of
//! their own that it switches to ([`Machine::block_on`] switches back). It runs one of them at a
//! time, chooses by the dice who is next, and moves the clock when nobody can go on: so a run is a
//! function of its seed.
//!
//! Each task and thread belongs to a [`Process`]. A process that is killed is not run any more: its
//! tasks are dropped, its threads left as they stand (their stacks stay, for what others still
//! hold may point there), and whatever it tries while it goes down meets handles that are dead.

use super::alive::Alive;
use super::dice::Dice;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tidemark_common::disk::Disk;
use tidemark_common::machine::{self, Machine, Task, Work};
use tokio::sync::oneshot;

/// Stack of a thread: nothing that a simulation plans nests deep.
const FIBER_STACK_BYTES: usize = 8 << 20;

/// What a turn takes of the processor, at most: time goes on with work.
const TURN_MAX: Duration = Duration::from_micros(40);

type Fiber = Coroutine<(), (), (), DefaultStack>;
type Number = u64;

thread_local! {
    /// The thread that runs now, and how it gives way.
    static RUNNING: Cell<Option<(Number, *const Yielder<(), ()>)>> = const { Cell::new(None) };
}

/// How a run ended, if not with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody can go on, and no time will change that.
    Stuck,
    /// So many turns were taken without an end.
    TooLong,
    /// A task or thread broke an invariant.
    Panic(String),
}

/// What all that run share.
struct Shared {
    start: Instant,
    dice: Dice,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    now: Duration,
    last: Number,
    timers: BTreeMap<(Duration, Number), Waker>,
    ready: Vec<Number>,
    spawned: Vec<(Number, Arc<Process>, Body)>,
    exits: Vec<(u64, i32)>,
    /// Processes that are paused, each with those of it that could go on.
    paused: BTreeMap<u64, Vec<Number>>,
    /// A process was killed, and its tasks are still there.
    killed: bool,
    panics: Vec<String>,
}

enum Body {
    Task(Task),
    Thread(Work),
}

struct Item {
    process: Arc<Process>,
    waker: Waker,
    runs: Runs,
}

enum Runs {
    Task(Task),
    Fiber(Box<Fiber>, *const Yielder<(), ()>),
}

struct Ring {
    shared: Arc<Shared>,
    number: Number,
    rung: Mutex<bool>,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !std::mem::replace(&mut *self.rung.lock(), true) {
            self.shared.inner.lock().ready.push(self.number);
        }
    }
}

/// A process of the simulation, which is the machine that its tasks and threads run on.
pub struct Process {
    shared: Arc<Shared>,
    /// Its number; 0 is the simulation itself.
    pub number: u64,
    /// Until it is killed.
    pub alive: Alive,
    disk: Option<Arc<dyn Disk>>,
    /// What its clock on the wall shows when the simulation begins, in microseconds since 1970.
    wall: i64,
    myself: std::sync::Weak<Process>,
}

impl Process {
    fn new(
        shared: &Arc<Shared>,
        number: u64,
        alive: Alive,
        disk: Option<Arc<dyn Disk>>,
        wall: i64,
    ) -> Arc<Process> {
        Arc::new_cyclic(|myself| Process {
            shared: shared.clone(),
            number,
            alive,
            disk,
            wall,
            myself: myself.clone(),
        })
    }

    /// Another process, with its disk and what its clock shows now.
    pub fn start(&self, number: u64, alive: Alive, disk: Arc<dyn Disk>, wall: i64) -> Arc<Process> {
        let wall = wall - self.time().as_micros() as i64;
        Process::new(&self.shared, number, alive, Some(disk), wall)
    }

    /// Time since the simulation began.
    pub fn time(&self) -> Duration {
        self.shared.inner.lock().now
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.alive.kill();
        self.shared.inner.lock().killed = true;
    }

    /// `kill -STOP`: nothing of it runs, and its timers ring in vain.
    pub fn pause(&self) {
        let paused = &mut self.shared.inner.lock().paused;
        paused.entry(self.number).or_default();
    }

    /// `kill -CONT`: it goes on where it stands, and finds that time has passed.
    pub fn resume(&self) {
        let inner = &mut *self.shared.inner.lock();
        let waiting = inner.paused.remove(&self.number);
        inner.ready.extend(waiting.into_iter().flatten());
    }

    /// Runs a task in this process. Without an answer the process has died, or the task.
    pub fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, answer) = oneshot::channel();
        self.begin(Body::Task(Box::pin(async move {
            let _ = done.send(task.await);
        })));
        answer
    }

    /// The processes that ended by themselves since this was asked last, with their codes.
    pub fn exits(&self) -> Vec<(u64, i32)> {
        std::mem::take(&mut self.shared.inner.lock().exits)
    }

    fn begin(&self, body: Body) {
        let Some(process) = self.myself.upgrade() else {
            return;
        };
        let mut inner = self.shared.inner.lock();
        inner.last += 1;
        let number = inner.last;
        inner.spawned.push((number, process, body));
    }
}

impl Machine for Process {
    fn now(&self) -> Instant {
        self.shared.start + self.time()
    }

    fn micros(&self) -> i64 {
        self.wall + self.time().as_micros() as i64
    }

    fn sleep_until(&self, at: Instant) -> Task {
        Box::pin(Sleep {
            shared: self.shared.clone(),
            at: at.saturating_duration_since(self.shared.start),
            number: None,
        })
    }

    fn spawn(&self, task: Task) {
        self.begin(Body::Task(task));
    }

    fn thread(&self, _name: String, run: Work) -> std::io::Result<()> {
        self.begin(Body::Thread(run));
        Ok(())
    }

    fn blocking(&self, run: Work) {
        self.begin(Body::Thread(run));
    }

    fn block_on(&self, mut future: Pin<&mut dyn Future<Output = ()>>) {
        let Some((number, yielder)) = RUNNING.get() else {
            panic!("a task waits as only threads may");
        };
        loop {
            // A waker rings once.
            let waker = waker_of(&self.shared, number);
            let mut context = Context::from_waker(&waker);
            if future.as_mut().poll(&mut context).is_ready() {
                return;
            }
            give_way(yielder);
        }
    }

    fn may_wait(&self) -> bool {
        RUNNING.get().is_some()
    }

    fn breathe(&self) {
        let turn = self.shared.dice.between(Duration::ZERO, TURN_MAX);
        machine::pause(turn);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        match &self.disk {
            Some(disk) => disk.clone(),
            None => panic!("the simulation itself has no disk"),
        }
    }

    fn random(&self) -> u64 {
        self.shared.dice.below(u64::MAX)
    }

    fn exit(&self, code: i32) -> ! {
        self.kill();
        self.shared.inner.lock().exits.push((self.number, code));
        match RUNNING.get() {
            Some((_, yielder)) => loop {
                give_way(yielder);
            },
            // The scheduler drops the task that this ends.
            None => std::panic::resume_unwind(Box::new(Ended)),
        }
    }
}

/// What ends a task of a process that ended by itself.
struct Ended;

fn give_way(yielder: *const Yielder<(), ()>) {
    // It lives as long as its thread, which runs now.
    unsafe { (*yielder).suspend(()) }
}

/// Wakes a thread each time, whoever asks.
fn waker_of(shared: &Arc<Shared>, number: Number) -> Waker {
    let ring = Ring {
        shared: shared.clone(),
        number,
        rung: Mutex::new(false),
    };
    Arc::new(ring).into()
}

struct Sleep {
    shared: Arc<Shared>,
    at: Duration,
    number: Option<Number>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        if inner.now >= self.at {
            return Poll::Ready(());
        }
        let number = match self.number {
            Some(number) => number,
            None => {
                inner.last += 1;
                inner.last
            }
        };
        self.number = Some(number);
        inner
            .timers
            .insert((self.at, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.inner.lock().timers.remove(&(self.at, number));
        }
    }
}

/// See the module.
pub struct Scheduler {
    shared: Arc<Shared>,
    items: BTreeMap<Number, Item>,
    root: Arc<Process>,
    /// Turns taken so far.
    pub turns: u64,
    /// What happened, as a number: two runs that differ in one turn have different ones.
    pub print: u64,
}

impl Scheduler {
    /// Nothing runs yet. `wall`: what the simulation's own clock on the wall shows.
    pub fn new(dice: Dice, wall: i64) -> Scheduler {
        let shared = Arc::new(Shared {
            start: machine::now(),
            dice,
            inner: Mutex::default(),
        });
        Scheduler {
            root: Process::new(&shared, 0, Alive::default(), None, wall),
            shared,
            items: BTreeMap::new(),
            turns: 0,
            print: 0,
        }
    }

    /// The simulation's own process.
    pub fn root(&self) -> &Arc<Process> {
        &self.root
    }

    /// Runs until this task, which belongs to the simulation itself, has its result.
    pub fn run<T: Send + 'static>(
        &mut self,
        task: impl Future<Output = T> + Send + 'static,
        turns_max: u64,
    ) -> Result<T, Failure> {
        let mut answer = self.root.run(task);
        while self.turns < turns_max {
            self.take_in();
            if let Ok(result) = answer.try_recv() {
                return Ok(result);
            }
            let panic = self.shared.inner.lock().panics.pop();
            if let Some(panic) = panic {
                return Err(Failure::Panic(panic));
            }
            if !self.turn() {
                return Err(Failure::Stuck);
            }
        }
        let (time, items) = (self.root.time(), self.items.len());
        tracing::debug!(target: "sim", ?time, items, "too long");
        Err(Failure::TooLong)
    }

    fn take_in(&mut self) {
        let spawned = std::mem::take(&mut self.shared.inner.lock().spawned);
        for (number, process, body) in spawned {
            let runs = match body {
                Body::Task(task) => Runs::Task(task),
                Body::Thread(work) => Runs::Fiber(fiber(work, &self.shared), std::ptr::null()),
            };
            let waker = waker_of(&self.shared, number);
            waker.wake_by_ref();
            let item = Item {
                process,
                waker,
                runs,
            };
            self.items.insert(number, item);
        }
        if std::mem::take(&mut self.shared.inner.lock().killed) {
            let dead = |_: &Number, item: &mut Item| !item.process.alive.is_alive();
            let dead: BTreeMap<Number, Item> = self.items.extract_if(.., dead).collect();
            dead.into_values().for_each(abandon);
        }
    }

    /// Runs one of those that can go on, or moves the clock. False if there is nothing to wait for.
    fn turn(&mut self) -> bool {
        self.turns += 1;
        let next = {
            let mut inner = self.shared.inner.lock();
            match inner.ready.len() as u64 {
                0 => None,
                n => {
                    let at = self.shared.dice.below(n) as usize;
                    Some(inner.ready.swap_remove(at))
                }
            }
        };
        match next {
            Some(number) => self.run_item(number),
            None => return self.move_clock(),
        }
        true
    }

    fn move_clock(&mut self) -> bool {
        let mut inner = self.shared.inner.lock();
        let Some(((at, _), waker)) = inner.timers.pop_first() else {
            return false;
        };
        inner.now = inner.now.max(at);
        drop(inner);
        waker.wake();
        true
    }

    fn run_item(&mut self, number: Number) {
        // One that has ended may have been woken once more.
        let Some(mut item) = self.items.remove(&number) else {
            return;
        };
        if !item.process.alive.is_alive() {
            return abandon(item);
        }
        if let Some(waiting) = self
            .shared
            .inner
            .lock()
            .paused
            .get_mut(&item.process.number)
        {
            waiting.push(number);
            self.items.insert(number, item);
            return;
        }
        self.note(number);
        // Woken from now on, it runs once more.
        item.waker = waker_of(&self.shared, number);
        let before = machine::enter(Some(item.process.clone()));
        let over = match &mut item.runs {
            Runs::Task(task) => {
                let mut context = Context::from_waker(&item.waker);
                let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut context)));
                match polled {
                    Ok(polled) => polled.is_ready(),
                    Err(panic) => {
                        self.note_panic(panic);
                        true
                    }
                }
            }
            Runs::Fiber(fiber, yielder) => {
                STARTED.set(std::ptr::null());
                RUNNING.set(Some((number, *yielder)));
                NUMBER.set(number);
                let over = matches!(fiber.resume(()), CoroutineResult::Return(()));
                if !STARTED.get().is_null() {
                    *yielder = STARTED.get();
                }
                RUNNING.set(None);
                over
            }
        };
        if over {
            drop(item);
        } else if !item.process.alive.is_alive() {
            abandon(item);
        } else {
            self.items.insert(number, item);
        }
        machine::enter(before);
    }

    fn note_panic(&self, panic: Box<dyn std::any::Any + Send>) {
        note_panic(&self.shared, panic);
    }

    fn note(&mut self, number: Number) {
        let now = self.shared.inner.lock().now.as_nanos() as u64;
        let word = (self.print ^ number.rotate_left(40) ^ now).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.print = word ^ (word >> 29);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // Nothing runs any more; what stands somewhere stays there.
        std::mem::take(&mut self.items)
            .into_values()
            .for_each(abandon);
    }
}

thread_local! {
    /// How the thread that was begun in this turn gives way.
    static STARTED: Cell<*const Yielder<(), ()>> = const { Cell::new(std::ptr::null()) };
    /// Its number.
    static NUMBER: Cell<Number> = const { Cell::new(0) };
}

fn fiber(work: Work, shared: &Arc<Shared>) -> Box<Fiber> {
    let shared = shared.clone();
    let stack = match DefaultStack::new(FIBER_STACK_BYTES) {
        Ok(stack) => stack,
        Err(e) => panic!("no memory for a stack: {e}"),
    };
    Box::new(Coroutine::with_stack(stack, move |yielder, ()| {
        let yielder: *const Yielder<(), ()> = yielder;
        STARTED.set(yielder);
        RUNNING.set(Some((NUMBER.get(), yielder)));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            note_panic(&shared, panic);
        }
    }))
}

fn note_panic(shared: &Shared, panic: Box<dyn std::any::Any + Send>) {
    if panic.is::<Ended>() {
        return;
    }
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without words".into());
    shared.inner.lock().panics.push(text);
}

/// Leaves what runs of a dead process as it stands.
fn abandon(item: Item) {
    let before = machine::enter(Some(item.process));
    match item.runs {
        Runs::Task(task) => drop(task),
        Runs::Fiber(fiber, _) => std::mem::forget(fiber),
    }
    machine::enter(before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::disk::LocalDisk;
    use tidemark_common::mailbox::{Empty, mailbox};

    const HOUR: Duration = Duration::from_secs(3600);

    fn run<T: Send + 'static>(
        seed: u64,
        task: impl Future<Output = T> + Send + 'static,
    ) -> (Result<T, Failure>, u64) {
        let mut scheduler = Scheduler::new(Dice::new(seed), 0);
        let result = scheduler.run(task, 100_000);
        (result, scheduler.print)
    }

    #[test]
    fn an_hour_takes_no_time() {
        let (took, _) = run(1, async {
            let began = machine::now();
            machine::sleep(HOUR).await;
            machine::elapsed(began)
        });
        assert_eq!(took, Ok(HOUR));
    }

    async fn busy() -> Vec<u64> {
        let (sender, receiver) = mailbox();
        let (done, told) = oneshot::channel();
        machine::spawn_blocking(move || {
            let mut seen = Vec::new();
            while seen.len() < 30 {
                let deadline = machine::now() + Duration::from_millis(1);
                match receiver.recv_until(Some(deadline)) {
                    Ok(number) => seen.push(number),
                    Err(Empty::Yet) => machine::breathe(),
                    Err(Empty::ForEver) => break,
                }
            }
            let _ = done.send(seen);
        });
        for thread in 0..3 {
            let sender = sender.clone();
            machine::spawn_blocking(move || {
                for i in 0..10 {
                    machine::breathe();
                    sender.send(thread * 10 + i).unwrap();
                }
            });
        }
        told.await.unwrap()
    }

    #[test]
    fn the_same_seed_is_the_same_run_and_another_is_another() {
        let (first, print) = run(7, busy());
        assert_eq!((first.clone(), print), run(7, busy()));
        assert_ne!(first, run(8, busy()).0);
        let mut sorted = first.unwrap();
        sorted.sort();
        assert_eq!(sorted, (0..30).collect::<Vec<u64>>());
    }

    #[test]
    fn a_paused_process_goes_on_where_it_stands() {
        let mut scheduler = Scheduler::new(Dice::new(1), 0);
        let root = scheduler.root().clone();
        let process = root.start(1, Alive::default(), Arc::new(LocalDisk), 0);
        let (seen, counter) = (Arc::new(Mutex::new(0)), process.clone());
        let counted = seen.clone();
        let result = scheduler.run(
            async move {
                drop(counter.run(async move {
                    loop {
                        machine::sleep(Duration::from_secs(1)).await;
                        *counted.lock() += 1;
                    }
                }));
                let mut counts = Vec::new();
                for pauses in [false, true, false, true] {
                    match pauses {
                        true => process.pause(),
                        false => process.resume(),
                    }
                    machine::sleep(HOUR + Duration::from_millis(1)).await;
                    counts.push(*seen.lock());
                }
                process.kill();
                process.resume();
                machine::sleep(HOUR).await;
                counts.push(*seen.lock());
                counts
            },
            100_000,
        );
        // The one that rang meanwhile counts.
        assert_eq!(result, Ok(vec![3600, 3600, 7201, 7201, 7201]));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (stuck, _) = run(1, std::future::pending::<()>());
        assert_eq!(stuck, Err(Failure::Stuck));
        let (panics, _) = run(1, async {
            machine::spawn_blocking(|| panic!("on purpose"));
            std::future::pending::<()>().await
        });
        assert_eq!(panics, Err(Failure::Panic("on purpose".into())));
    }
}
