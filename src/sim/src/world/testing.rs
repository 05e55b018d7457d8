//! A machine for the tests of the world's parts: its time goes on when somebody sleeps, and a test
//! can say what happens meanwhile.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tidemark_common::disk::{Disk, LocalDisk};
use tidemark_common::machine::{self, Machine, Task, Work};

type Happens = Box<dyn FnOnce() + Send>;

/// See the module. Cloning shares.
#[derive(Clone)]
pub struct TestMachine(Arc<Inner>);

struct Inner {
    start: Instant,
    time: Mutex<Duration>,
    meanwhile: Mutex<Vec<Happens>>,
}

impl TestMachine {
    /// The time since the test began.
    pub fn time(&self) -> Duration {
        *self.0.time.lock()
    }

    /// This happens when somebody has slept next.
    pub fn meanwhile(&self, happens: impl FnOnce() + Send + 'static) {
        self.0.meanwhile.lock().push(Box::new(happens));
    }
}

/// Runs a test on a machine of its own.
pub fn simulated<T>(test: impl FnOnce(&TestMachine) -> T) -> T {
    let machine = TestMachine(Arc::new(Inner {
        start: machine::now(),
        time: Mutex::default(),
        meanwhile: Mutex::default(),
    }));
    let before = machine::enter(Some(Arc::new(machine.clone())));
    let result = test(&machine);
    machine::enter(before);
    result
}

impl Machine for TestMachine {
    fn now(&self) -> Instant {
        self.0.start + self.time()
    }

    fn micros(&self) -> i64 {
        self.time().as_micros() as i64
    }

    fn sleep_until(&self, at: Instant) -> Task {
        let machine = self.clone();
        let mut began = false;
        Box::pin(std::future::poll_fn(move |context| {
            if !std::mem::replace(&mut began, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let at = at.saturating_duration_since(machine.0.start);
            let time = &mut *machine.0.time.lock();
            *time = at.max(*time);
            let happens = std::mem::take(&mut *machine.0.meanwhile.lock());
            happens.into_iter().for_each(|happens| happens());
            Poll::Ready(())
        }))
    }

    fn block_on(&self, future: Pin<&mut dyn Future<Output = ()>>) {
        futures::executor::block_on(future);
    }

    fn spawn(&self, _task: Task) {
        unreachable!("the parts of the world begin nothing");
    }

    fn thread(&self, _name: String, _run: Work) -> std::io::Result<()> {
        unreachable!("the parts of the world begin nothing");
    }

    fn blocking(&self, _run: Work) {
        unreachable!("the parts of the world begin nothing");
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(LocalDisk)
    }

    fn random(&self) -> u64 {
        0
    }

    fn exit(&self, code: i32) -> ! {
        panic!("exit {code}");
    }
}
