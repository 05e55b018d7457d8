//! The machine that a node runs on: its clock, its threads and tasks, its disk, behind one trait,
//! so that a simulation can be the machine of many nodes, in one thread and from one seed.
//!
//! Every thread belongs to a machine, and what it starts belongs to the same one. Who wants to know
//! the time, to begin something beside itself, to wait or to end the process asks this module,
//! never the standard library or the runtime; clippy holds the crates that are simulated to that.
//! Unless a simulation says otherwise ([`enter`]) it is the [`LocalMachine`], of which nothing is
//! kept: asking costs what the system call costs.
//!
//! What has to wait in a thread waits by [`block_on`], a [`mailbox`](crate::mailbox) or a
//! [`Signal`](crate::Signal), and holds no lock meanwhile.

use crate::disk::{Disk, LocalDisk};
use crate::{Error, Result, STACK_BYTES};
use std::cell::RefCell;
use std::ffi::CString;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

/// What a task is.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a thread runs.
pub type Work = Box<dyn FnOnce() + Send>;

/// See the module.
pub trait Machine: Send + Sync {
    /// The clock that never goes back.
    fn now(&self) -> Instant;
    /// Microseconds since 1970-01-01 00:00 UTC by the clock on the wall, which people set.
    fn micros(&self) -> i64;
    /// Is ready at that time.
    fn sleep_until(&self, at: Instant) -> Task;
    /// Runs a task beside whoever asks.
    fn spawn(&self, task: Task);
    /// Runs a task that has little to do, and must not wait for those that have much.
    fn spawn_apart(&self, task: Task) {
        self.spawn(task);
    }
    /// Runs a thread, which may wait.
    fn thread(&self, name: String, run: Work) -> std::io::Result<()>;
    /// Runs in one of the threads that are kept for what waits or takes long.
    fn blocking(&self, run: Work);
    /// Waits, in a thread.
    fn block_on(&self, future: Pin<&mut dyn Future<Output = ()>>);
    /// Whether who runs now is a thread, which may wait.
    fn may_wait(&self) -> bool {
        true
    }
    /// Lets others go first, where all threads share one. Called in threads, between two pieces of
    /// their work.
    fn breathe(&self) {}
    /// Folders and files.
    fn disk(&self) -> Arc<dyn Disk>;
    /// A number that nobody foresees, for what must be unique.
    fn random(&self) -> u64;
    /// Ends the process; with [`RESTART`] it starts anew.
    fn exit(&self, code: i32) -> !;
}

/// A process that ends with this code starts anew, with the same arguments: nothing that it had
/// begun goes on.
pub const RESTART: i32 = 75;

thread_local! {
    /// None: the local one.
    static CURRENT: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
}

/// This thread belongs to that machine from now on, and none of its own; returns the one before.
pub fn enter(machine: Option<Arc<dyn Machine>>) -> Option<Arc<dyn Machine>> {
    CURRENT.with(|current| current.replace(machine))
}

/// Whether this thread is a part of a simulation, where nothing but the simulation may wake it.
pub fn is_simulated() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

fn ask<T>(question: impl FnOnce(&dyn Machine) -> T) -> T {
    // It may be another one when the answer comes: what waits is a guest of many threads.
    match CURRENT.with_borrow(Clone::clone) {
        Some(machine) => question(machine.as_ref()),
        None => question(&LocalMachine),
    }
}

/// The clock that never goes back.
pub fn now() -> Instant {
    ask(|machine| machine.now())
}

/// The time since then.
pub fn elapsed(since: Instant) -> Duration {
    now().saturating_duration_since(since)
}

/// Microseconds since 1970-01-01 00:00 UTC. Only the coordinator asks this for data; what a job may
/// see is the clock of its epoch.
pub fn micros() -> i64 {
    ask(|machine| machine.micros())
}

/// Is ready at that time.
pub fn sleep_until(at: Instant) -> Task {
    ask(|machine| machine.sleep_until(at))
}

/// Is ready after so long.
pub fn sleep(time: Duration) -> Task {
    sleep_until(now() + time)
}

/// What comes of it, if that is within this time.
pub async fn timeout<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut late) = (pin!(future), sleep(time));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(done));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Runs a task beside whoever asks.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    ask(|machine| machine.spawn(Box::pin(task)));
}

/// Runs a task that has little to do, and must not wait for those that have much: apart from them.
/// What it begins is apart as well.
pub fn spawn_apart(task: impl Future<Output = ()> + Send + 'static) {
    ask(|machine| machine.spawn_apart(Box::pin(task)));
}

/// Runs apart, and waits for what comes of it. An error of kind `Internal` if that is a panic.
pub async fn apart<T: Send + 'static>(run: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (done, answer) = oneshot::channel();
    spawn_apart(async move { drop(done.send(run.await)) });
    answer
        .await
        .map_err(|_| Error::internal("a task that ran apart ended by a broken invariant"))
}

/// Runs in one of the threads that are kept for what waits or takes long, beside whoever asks.
pub fn spawn_blocking(run: impl FnOnce() + Send + 'static) {
    ask(|machine| machine.blocking(Box::new(run)));
}

/// The same, and waits for what comes of it. An error of kind `Internal` if that is a panic.
pub async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, answer) = oneshot::channel();
    spawn_blocking(move || drop(done.send(run())));
    answer
        .await
        .map_err(|_| Error::internal("work in the background ended by a broken invariant"))
}

/// A thread that was started. It goes on when this is dropped.
pub struct Thread {
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Waits for its end.
    pub async fn ended(self) {
        let _ = self.ended.await;
    }
}

/// Starts a thread with a deep stack.
pub fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let (ends, ended) = oneshot::channel::<()>();
    let run = move || {
        let _ends = ends;
        run();
    };
    ask(|machine| machine.thread(name, Box::new(run)))?;
    Ok(Thread { ended })
}

/// Waits, in a thread, for what comes of it.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut output = None;
    let waits = async { output = Some(future.await) };
    ask(|machine| machine.block_on(pin!(waits)));
    match output {
        Some(output) => output,
        None => unreachable!("a machine returns when the future is ready"),
    }
}

/// Waits, in a thread, for so long.
pub fn pause(time: Duration) {
    block_on(sleep(time));
}

/// Whether who asks may wait as threads do: a task may not, which a simulation sees.
pub fn may_wait() -> bool {
    ask(|machine| machine.may_wait())
}

/// Lets others go first, where all threads share one: a simulation's.
pub fn breathe() {
    ask(|machine| machine.breathe());
}

/// Folders and files.
pub fn disk() -> Arc<dyn Disk> {
    ask(|machine| machine.disk())
}

/// A number that nobody foresees, for what must be unique; not for secrets.
pub fn random() -> u64 {
    ask(|machine| machine.random())
}

/// Ends the process; with [`RESTART`] it starts anew.
pub fn exit(code: i32) -> ! {
    ask(|machine| machine.exit(code))
}

/// Whether this process was told to end.
static IS_TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// This process is told to end, by a signal that comes once: what would have it start anew ends it
/// from now on.
pub fn told_to_end() {
    IS_TOLD_TO_END.store(true, Ordering::Release);
}

/// The machine that this process runs on. Tasks need a runtime: threads that it starts belong to
/// that of their starter.
pub struct LocalMachine;

#[allow(clippy::disallowed_methods)]
impl Machine for LocalMachine {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn micros(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as i64)
    }

    fn sleep_until(&self, at: Instant) -> Task {
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn spawn(&self, task: Task) {
        drop(tokio::spawn(task));
    }

    fn spawn_apart(&self, task: Task) {
        static APART: OnceLock<Option<Runtime>> = OnceLock::new();
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).thread_name("apart").enable_all();
            runtime.build().ok()
        };
        match APART.get_or_init(runtime) {
            Some(runtime) => drop(runtime.spawn(task)),
            None => self.spawn(task),
        }
    }

    fn thread(&self, name: String, run: Work) -> std::io::Result<()> {
        let runtime = Handle::try_current().ok();
        let run = move || {
            let _inside = runtime.as_ref().map(Handle::enter);
            run();
        };
        let thread = std::thread::Builder::new().name(name);
        thread.stack_size(STACK_BYTES).spawn(run).map(drop)
    }

    fn blocking(&self, run: Work) {
        drop(tokio::task::spawn_blocking(run));
    }

    fn block_on(&self, future: Pin<&mut dyn Future<Output = ()>>) {
        Handle::current().block_on(future);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(LocalDisk)
    }

    fn random(&self) -> u64 {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_i64(self.micros());
        hasher.write_u32(std::process::id());
        hasher.finish()
    }

    fn exit(&self, code: i32) -> ! {
        if code == RESTART && IS_TOLD_TO_END.load(Ordering::Acquire) {
            std::process::exit(0);
        }
        if code == RESTART && !cfg!(test) {
            let error = start_anew();
            tracing::error!(%error, "this process cannot start anew: it ends");
        }
        std::process::exit(code)
    }
}

/// This process begins again, as the same program with the same arguments; returns only if that
/// fails. Files and sockets are closed by it.
///
/// The `exec` of the standard library gives SIGPIPE its deadly meaning back first, and any other
/// thread that writes to a broken connection in that moment would end the process.
fn start_anew() -> std::io::Error {
    // Also where the file has been replaced meanwhile.
    let program = PathBuf::from("/proc/self/exe");
    let arguments = std::env::args_os().map(|argument| argument.into_vec());
    let arguments: std::result::Result<Vec<CString>, _> = arguments.map(CString::new).collect();
    let (program, arguments) = match (CString::new(program.into_os_string().into_vec()), arguments)
    {
        (Ok(program), Ok(arguments)) => (program, arguments),
        (Err(error), _) | (_, Err(error)) => return error.into(),
    };
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: all strings end with a zero and the list with a null; they live until it returns.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    std::io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_begun_beside_comes_to_its_end() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let broken = blocking(|| panic!("on purpose")).await;
        assert!(broken.is_err());
        let (done, answer) = oneshot::channel();
        let started = thread("a thread".into(), move || {
            // A thread may wait, and belongs to the runtime of its starter.
            let (begun, beside) = oneshot::channel();
            spawn(async move {
                let _ = begun.send(8);
            });
            let _ = done.send(block_on(beside));
        });
        started.unwrap().ended().await;
        assert_eq!(answer.await.unwrap(), Ok(8));
    }

    #[tokio::test]
    async fn a_timeout_ends_what_is_not_ready() {
        let (_never, waits) = oneshot::channel::<()>();
        assert!(timeout(Duration::from_millis(1), waits).await.is_none());
        assert_eq!(timeout(Duration::from_secs(60), async { 3 }).await, Some(3));
    }
}
