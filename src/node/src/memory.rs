//! The memory limit of a node, and what happens at it.
//!
//! What counts is what the kernel counts, the memory of the process that is resident. It is looked
//! at every [`LOOK_INTERVAL`], or [`CALM_INTERVAL`] where there is much room:
//!
//! * **From [`SOFT_PERCENT`] of the limit on** sources are not read, creations wait and writes
//!   wait. What is on its way comes to its end meanwhile: queues drain, sinks deliver, checkpoints
//!   take what was sealed, views merge.
//! * **If that has not helped within [`PATIENCE`], or at the limit itself,** the query that holds
//!   most ends with `53200`, and after [`QUERY_RELIEF`] the next one.
//! * **If no query holds any,** the job whose state has grown most over the last minute stops
//!   alone, with `53200`. Its last complete answer is kept with the checkpoints, and it can be
//!   resumed when there is room. Then there is [`RELIEF`] for the memory to go back before another
//!   one stops; below the limit four times that.
//! * **If memory still runs short [`GRACE`] after a job stopped,** the rows that people read of
//!   jobs that stand still leave the memory, too: who reads them gets `55000` and the reason.
//!
//! A start is let through: what is restored was there before.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tidemark_common::memory::about;
use tidemark_common::{Error, RelationId, SqlState, machine};
use tidemark_control::Events;
use tidemark_control::protocol::Event;
use tidemark_plan::RelationKind;
use tidemark_worker::{Figures, JobFigures, Pressure, Published, Shows};

/// How often the memory is looked at, from half of the limit on.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often below that: an idle node computes next to nothing.
const CALM_INTERVAL: Duration = Duration::from_millis(500);

/// The part of the limit from which on nothing more is taken in.
const SOFT_PERCENT: u64 = 85;

/// How long that may help.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the allocator is asked what it does not use while there is room: queries that end
/// leave much in it.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// What has come to that before it gives back, in bytes.
const TIDY_BYTES: usize = 128 << 20;

/// How long the memory of a query that was ended may take to go back.
const QUERY_RELIEF: Duration = Duration::from_millis(500);

/// How long the memory of a job that stopped may take to go back.
const RELIEF: Duration = Duration::from_secs(5);

/// How long the rows of a job that stopped stay in memory that runs short: longer than it takes to
/// begin to store them.
const GRACE: Duration = Duration::from_secs(2);

/// How often the jobs' state is noted, and how many notes are kept.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
const NOTES_KEPT: usize = 60;

/// Bytes of state by job.
type Note = BTreeMap<RelationId, u64>;

/// Who holds memory beside the jobs, and gives it back first: the queries.
pub trait Others: Send + Sync {
    /// Ends the one that holds most; how many bytes, or none if nobody holds any that count.
    fn end_largest(&self) -> Option<u64>;
}

/// See the module.
pub struct Memory {
    /// In bytes.
    limit: u64,
    pressure: Arc<Pressure>,
    published: Arc<Published>,
    figures: Arc<Figures>,
    events: Events,
    notes: Mutex<VecDeque<Note>>,
    others: OnceLock<Arc<dyn Others>>,
}

/// Who holds how much memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// What the process may hold.
    pub limit: u64,
    /// What it holds.
    pub resident: u64,
    /// Of that the state of jobs,
    pub state: u64,
    /// rows between actors,
    pub on_the_way: u64,
    /// changes that sinks have not delivered,
    pub undelivered: u64,
    /// records that Kafka clients have fetched ahead,
    pub fetched: u64,
    /// and what is to be stored for a checkpoint.
    pub storing: u64,
    /// The program, its libraries and mapped files.
    pub program: u64,
    /// What the allocator keeps of freed memory, and the stacks of threads.
    pub free: u64,
    /// Nothing more is taken in.
    pub is_short: bool,
}

/// What the watch remembers from look to look.
#[derive(Default)]
struct Watch {
    noted: Option<Instant>,
    /// Since when it is too much.
    high_since: Option<Instant>,
    /// What the allocator did not use when it had given back, or less since, in bytes: what lies
    /// between pieces that are in use.
    unused: usize,
    /// When it was asked last to give back.
    given_back: Option<Instant>,
    /// When a job was stopped last.
    stopped: Option<Instant>,
    /// When a query was ended last.
    ended: Option<Instant>,
}

impl Watch {
    fn may_give_back(&mut self, now: Instant, is_high: bool) -> bool {
        let pause = match is_high {
            true => NOTE_INTERVAL,
            false => TIDY_INTERVAL,
        };
        let since = self.given_back.map(|then| now.duration_since(then));
        let may = since.is_none_or(|time| time >= pause);
        if may {
            self.given_back = Some(now);
        }
        may
    }
}

impl Memory {
    /// With a limit in bytes.
    pub fn new(
        limit: u64,
        pressure: Arc<Pressure>,
        published: Arc<Published>,
        figures: Arc<Figures>,
        events: Events,
    ) -> Memory {
        Memory {
            limit,
            pressure,
            published,
            figures,
            events,
            notes: Mutex::default(),
            others: OnceLock::new(),
        }
    }

    /// These give memory back before a job stops.
    pub fn eased_by(&self, others: Arc<dyn Others>) {
        // There are the same ones as long as the node lives.
        let _ = self.others.set(others);
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether nothing more is taken in.
    pub fn is_short(&self) -> bool {
        self.pressure.is_high()
    }

    /// Watches the memory until the node is gone.
    pub async fn watch(memory: Weak<Memory>) {
        let mut watch = Watch::default();
        let mut interval = LOOK_INTERVAL;
        loop {
            machine::sleep(interval).await;
            let Some(memory) = memory.upgrade() else {
                return;
            };
            let Some(mut resident) = resident_bytes() else {
                continue;
            };
            let is_high = memory.is_high(resident);
            if watch.may_give_back(machine::now(), is_high) {
                // What it takes is not this thread's to wait for.
                let unused = watch.unused;
                let given = machine::blocking(move || tidy(unused, is_high)).await;
                watch.unused = given.unwrap_or(unused);
                resident = resident_bytes().unwrap_or(resident);
            }
            memory.look(&mut watch, resident, machine::now());
            interval = match resident > memory.limit / 2 {
                true => LOOK_INTERVAL,
                false => CALM_INTERVAL,
            };
        }
    }

    fn is_high(&self, resident: u64) -> bool {
        resident > self.soft_limit()
    }

    fn soft_limit(&self) -> u64 {
        self.limit / 100 * SOFT_PERCENT
    }

    fn look(&self, watch: &mut Watch, resident: u64, now: Instant) {
        let since = |then: Option<Instant>| then.map(|then| now.duration_since(then));
        if since(watch.noted).is_none_or(|time| time >= NOTE_INTERVAL) {
            watch.noted = Some(now);
            self.note();
        }
        let is_high = self.is_high(resident);
        let room = self.soft_limit().saturating_sub(resident);
        self.pressure.note(self.limit, room);
        if self.pressure.set(is_high) != is_high {
            self.tell(is_high, resident);
        }
        if !is_high {
            watch.high_since = None;
            return;
        }
        let high_since = *watch.high_since.get_or_insert(now);
        if since(watch.stopped).is_some_and(|time| time > GRACE) {
            self.withdraw();
        }
        let is_too_much = resident > self.limit || now.duration_since(high_since) > PATIENCE;
        if since(watch.ended).is_some_and(|time| time < QUERY_RELIEF) {
            return;
        }
        if is_too_much && self.end_query(resident) {
            watch.ended = Some(now);
            return;
        }
        // Short of the limit there is time to wait for what is still being stored.
        let relief = if resident > self.limit {
            RELIEF
        } else {
            4 * RELIEF
        };
        if is_too_much && since(watch.stopped).is_none_or(|time| time > relief) {
            watch.stopped = Some(now);
            self.stop_one(resident);
        }
    }

    fn tell(&self, is_high: bool, resident: u64) {
        let (resident, limit) = (about(resident), about(self.limit));
        if is_high {
            tracing::warn!(
                resident,
                limit,
                "memory runs short: sources are not read and writes wait"
            );
        } else {
            tracing::info!(resident, limit, "there is memory again");
        }
    }

    fn note(&self) {
        let bytes = |(id, f): (RelationId, Arc<JobFigures>)| (id, f.memory_bytes());
        let mut notes = self.notes.lock();
        if notes.len() == NOTES_KEPT {
            notes.pop_front();
        }
        notes.push_back(self.figures.all().into_iter().map(bytes).collect());
    }

    /// The job whose state has grown most, and by how much. One that has no state frees none.
    fn grown_most(&self) -> Option<(RelationId, u64)> {
        self.note();
        let notes = self.notes.lock();
        let now = notes.back()?;
        let catalog = self.published.catalog();
        let may_stop = |id: &RelationId| {
            let relation = catalog.relations.get(id);
            // One that is being resumed grows, too.
            let stands_still = || self.figures.of(*id).state.lock().0 != "resuming";
            !(catalog.stopped.contains_key(id) && stands_still())
                && relation.is_none_or(|r| r.kind != RelationKind::Sink)
        };
        let growth = |(id, bytes): (&RelationId, &u64)| {
            let past = notes.iter().filter_map(|note| note.get(id));
            (*id, bytes - past.min().unwrap_or(&0).min(bytes), *bytes)
        };
        let jobs = now.iter().filter(|(id, bytes)| may_stop(id) && **bytes > 0);
        // Of those that have not grown, the largest.
        let most = jobs
            .map(growth)
            .max_by_key(|(_, grown, bytes)| (*grown, *bytes));
        most.map(|(id, grown, _)| (id, grown))
    }

    /// Gives up the rows of jobs that stand still: the one that was stopped, those that read it and
    /// stopped with it, and others that have stood still before.
    fn withdraw(&self) {
        let stopped = &self.published.catalog().stopped;
        stopped.keys().for_each(|id| self.published.withdraw(*id));
    }

    /// Ends the query that holds most, if one holds any that counts.
    fn end_query(&self, resident: u64) -> bool {
        let ended = self.others.get().and_then(|others| others.end_largest());
        if let Some(held) = ended {
            tracing::warn!(
                held = about(held),
                resident = about(resident),
                limit = about(self.limit),
                "memory runs short: the query that holds most ends"
            );
        }
        ended.is_some()
    }

    /// Stops the job that has grown most, if one has state at all.
    fn stop_one(&self, resident: u64) {
        let Some((relation, grown)) = self.grown_most() else {
            tracing::error!(
                resident = about(resident),
                limit = about(self.limit),
                "memory runs short, and no job holds any that could be freed"
            );
            return;
        };
        let name = self.figures.of(relation).name.lock().0.clone();
        tracing::error!(
            job = name,
            grown = about(grown),
            resident = about(resident),
            limit = about(self.limit),
            "memory runs short: the job that has grown most stops"
        );
        let error = Error::user(SqlState("53200"), "out of memory")
            .with_detail(format!(
                "The process holds {} of {}, and this job has grown most, by {} in a minute.",
                about(resident),
                about(self.limit),
                about(grown)
            ))
            .with_hint(
                "Resume it when there is room: with a higher --memory-limit, or when others are \
                 dropped.",
            );
        self.events.tell(Event::Failed { relation, error });
    }
}

/// Gives what the allocator keeps of freed memory back to the system, if it `must` or if that has
/// become much more than `before`. Returns what it keeps: what lies between pieces in use.
fn tidy(before: usize, must: bool) -> usize {
    let now = unused_bytes();
    if !must && now < before.saturating_add(TIDY_BYTES) {
        return before.min(now);
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    unused_bytes()
}

/// What the allocator holds and nobody uses, in bytes, whether it is resident or not.
fn unused_bytes() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    return unsafe { libc::mallinfo2() }.fordblks;
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0
}

/// The memory of this process that is resident, in bytes; none where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    pages(1)
}

/// The part of it that is the program, its libraries and mapped files.
pub fn program_bytes() -> u64 {
    pages(2).unwrap_or_default()
}

/// What the system tells in pages: all of them, those that are resident, those of files, ..
fn pages(place: usize) -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split_whitespace().nth(place)?.parse().ok()?;
    Some(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// What the allocator has given out, in bytes; none where it does not tell.
pub fn allocated_bytes() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes no pointers, and any thread may call it at any time.
        let told = unsafe { libc::mallinfo2() };
        Some(told.uordblks as u64 + told.hblkhd as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use tidemark_control::Placement;
    use tidemark_control::inputs::{Input, Inputs};

    const MB: u64 = 1 << 20;

    fn stopped(told: &Inputs) -> Vec<u32> {
        let ids = std::iter::from_fn(|| told.try_recv().ok()).map(|input| match input {
            Input::Event(Event::Failed { relation, error }) => {
                assert_eq!(error.state(), SqlState("53200"));
                relation.0
            }
            _ => panic!("nothing else is told"),
        });
        ids.collect()
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn the_allocator_tells_what_it_gave_out() {
        let before = allocated_bytes().unwrap();
        let taken = std::hint::black_box(vec![1u8; 64 * MB as usize]);
        let grown = allocated_bytes().unwrap().saturating_sub(before);
        assert!(grown > 32 * MB, "{grown}");
        assert!(program_bytes() > MB && resident_bytes().unwrap() > program_bytes());
        drop(taken);
    }

    #[test]
    fn nothing_more_is_taken_in_and_if_that_does_not_help_who_has_grown_most_stops() {
        let (events, told) = Events::new(1);
        let (pressure, figures) = (Arc::<Pressure>::default(), Arc::new(Figures::new(1)));
        let published = Arc::new(Published::new(Arc::new(Placement::even(1))));
        let memory = Memory::new(
            100 * MB,
            pressure.clone(),
            published,
            figures.clone(),
            events,
        );
        let hold = |relation: u32, bytes: u64| {
            figures.of(RelationId(relation)).memory[0].store(bytes, Ordering::Relaxed);
        };
        let (mut watch, start) = (Watch::default(), machine::now());
        let mut look = |second: u64, resident: u64| {
            memory.look(
                &mut watch,
                resident * MB,
                start + Duration::from_secs(second),
            );
            (pressure.is_high(), stopped(&told))
        };
        hold(1, 50 * MB);
        hold(2, MB);
        assert_eq!(look(0, 60), (false, vec![]));
        hold(2, 30 * MB);
        hold(1, 51 * MB);
        assert_eq!(look(1, 86), (true, vec![]));
        assert_eq!(look(5, 86), (true, vec![]));
        assert_eq!(look(6, 80), (false, vec![]), "it has helped");
        assert_eq!(look(7, 86), (true, vec![]));
        assert_eq!(
            look(13, 86),
            (true, vec![2]),
            "job 1 is larger, and has not grown"
        );
        assert_eq!(look(14, 99), (true, vec![]), "its memory may take a moment");
        hold(2, 0);
        assert_eq!(look(19, 101), (true, vec![1]));
        assert_eq!(look(20, 50), (false, vec![]));
    }

    /// Queries that hold something until they are ended.
    struct Queries(Mutex<Vec<u64>>);

    impl Others for Queries {
        fn end_largest(&self) -> Option<u64> {
            self.0.lock().pop()
        }
    }

    #[test]
    fn no_job_stops_before_the_queries() {
        let (events, told) = Events::new(1);
        let (pressure, figures) = (Arc::<Pressure>::default(), Arc::new(Figures::new(1)));
        let published = Arc::new(Published::new(Arc::new(Placement::even(1))));
        figures.of(RelationId(1)).memory[0].store(50 * MB, Ordering::Relaxed);
        let memory = Memory::new(100 * MB, pressure, published, figures, events);
        let queries = Arc::new(Queries(Mutex::new(vec![10 * MB, 20 * MB])));
        memory.eased_by(queries.clone());
        let (mut watch, start) = (Watch::default(), machine::now());
        let mut look = |milliseconds: u64, resident: u64| {
            let now = start + Duration::from_millis(milliseconds);
            memory.look(&mut watch, resident * MB, now);
            (queries.0.lock().len(), stopped(&told))
        };
        assert_eq!(look(0, 90), (2, vec![]), "it may ease by itself");
        assert_eq!(look(100, 120), (1, vec![]));
        assert_eq!(
            look(500, 120),
            (1, vec![]),
            "what it held is still to go back"
        );
        assert_eq!(look(700, 120), (0, vec![]));
        assert_eq!(look(1300, 120), (0, vec![1]), "nobody else holds any");
    }
}
