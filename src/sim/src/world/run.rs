//! One seed: a server on a machine that fails, clients that ask it, and what must hold.
//!
//! First a random number of clients work for some seconds of virtual time while the server is
//! killed, loses its power, is stopped and started with other numbers of workers, and its disk,
//! store and broker fail. Then everything is calm, and the run has to come to rest: everything that
//! was sent is read, every view answers what its query answers, every sink has sent exactly that.
//! Then the server starts once more, and answers the same.

use super::broker::{BrokerTrouble, SimBroker};
use super::clients::{
    Common, Session, check_errors, check_increments, check_sinks, create_base, define, produce,
};
use super::dice::Dice;
use super::disk::{DiskTrouble, SimDisk};
use super::queries::{BASES, Feed};
use super::scheduler::{Failure, Process, Scheduler};
use super::server::{Reading, Server, Told};
use super::store::{SimStore, StoreTrouble};
use super::witness::check_deliveries;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::machine;
use tidemark_common::{Epoch, ErrorKind};
use tokio::sync::oneshot;

/// What the clocks on the wall show when a simulation begins, in microseconds since 1970.
const WALL: i64 = 1_800_000_000_000_000;
/// Turns after which a run that does not end is given up.
const TURNS_MAX: u64 = 3_000_000;
/// How long the calm may take until all is at rest, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was wrong, in words.
    pub wrong: Option<String>,
    /// Differs between any two runs that are not the same.
    pub print: u64,
    /// Turns taken.
    pub turns: u64,
    /// Answers that were checked.
    pub checked: u64,
    /// Processes that were started.
    pub starts: u64,
}

/// Runs a seed.
pub fn run(seed: u64) -> Outcome {
    let dice = Dice::new(seed);
    let mut scheduler = Scheduler::new(dice.fork(), WALL);
    let root = scheduler.root().clone();
    let ran = scheduler.run(whole(root, dice), TURNS_MAX);
    let (turns, print) = (scheduler.turns, scheduler.print);
    let mut outcome = Outcome {
        wrong: None,
        print,
        turns,
        checked: 0,
        starts: 0,
    };
    match ran {
        Ok((wrong, checked, starts)) => {
            (outcome.wrong, outcome.checked, outcome.starts) = (wrong, checked, starts);
        }
        Err(Failure::Stuck) => outcome.wrong = Some("everybody waits for somebody".into()),
        Err(Failure::TooLong) => outcome.wrong = Some("it does not come to an end".into()),
        Err(Failure::Panic(text)) => outcome.wrong = Some(format!("panic: {text}")),
    }
    outcome
}

async fn whole(root: Arc<Process>, dice: Dice) -> (Option<String>, u64, u64) {
    let (disk, store) = (SimDisk::new(dice.fork()), SimStore::new(dice.fork()));
    let broker = SimBroker::new(dice.fork());
    let server = Server::new(root.clone(), disk, store, broker);
    let common = Common::new(server.clone());
    let mut chaos = Chaos {
        common: common.clone(),
        dice: dice.fork(),
        root: root.clone(),
        starts: 0,
        compacts: false,
    };
    let wrong = play(&common, &mut chaos, &dice).await.err();
    let wrong = common.wrong.lock().first().cloned().or(wrong);
    let checked = *common.checked.lock();
    (wrong, checked, chaos.starts)
}

async fn play(common: &Arc<Common>, chaos: &mut Chaos, dice: &Dice) -> Result<(), String> {
    let (server, root) = (&common.server, &chaos.root.clone());
    server
        .broker
        .create_topic("s", 1 + dice.below(3) as usize, false);
    chaos.compacts = dice.chance(500);
    server
        .broker
        .create_topic("u", 1 + dice.below(2) as usize, chaos.compacts);
    chaos.start_until_open().await?;
    for base in BASES {
        create_base(common, base.name, base.sql).await;
    }
    let count = 1 + dice.below(3) as i64;
    let sessions: Vec<_> = (0..count)
        .map(|i| {
            let session = Session::new(common.clone(), dice.fork(), i, count);
            root.run(session.run())
        })
        .collect();
    let producer = root.run(produce(common.clone(), dice.fork()));
    let definer = root.run(define(common.clone(), dice.fork()));
    let until = root.time() + dice.between(Duration::from_secs(1), Duration::from_secs(8));
    chaos.rage(until).await?;
    common.over.store(true, Ordering::Relaxed);
    chaos.calm();
    chaos.start_until_open().await?;
    tracing::debug!(target: "sim", "the clients are told to end");
    ended(common, "the producer", producer).await?;
    ended(common, "the client that creates and drops", definer).await?;
    let mut asked = Vec::new();
    for session in sessions {
        asked.push(ended(common, "a session", session).await?);
    }
    tracing::debug!(target: "sim", "all clients have ended");
    come_to_rest(common, chaos, &mut asked).await?;
    tracing::debug!(target: "sim", "all is at rest; once more");
    match server.shutdown().await {
        Told::Answer(()) => {}
        other => return Err(format!("it does not stop in order: {other:?}")),
    }
    chaos.start_until_open().await?;
    come_to_rest(common, chaos, &mut asked).await
}

/// Waits for a client's end, when nothing fails any more.
async fn ended<T>(common: &Common, who: &str, client: oneshot::Receiver<T>) -> Result<T, String> {
    match machine::timeout(PATIENCE, client).await {
        Some(Ok(client)) => Ok(client),
        Some(Err(_)) => Err(format!("{who} died")),
        None => {
            let jobs = common.server.jobs().await;
            Err(format!("{who} gets no answer; jobs: {jobs:?}"))
        }
    }
}

/// Waits until everything that was sent is read, computed and sent on.
async fn come_to_rest(
    common: &Arc<Common>,
    chaos: &mut Chaos,
    sessions: &mut [Session],
) -> Result<(), String> {
    let deadline = chaos.root.time() + PATIENCE;
    loop {
        if let Some(wrong) = common.wrong.lock().first() {
            return Err(wrong.clone());
        }
        chaos.start_until_open().await?;
        let unrest = look(common).await;
        let Some(unrest) = unrest else { break };
        if chaos.root.time() > deadline {
            return Err(format!("it does not come to rest: {unrest}"));
        }
        tracing::debug!(target: "sim", unrest, "not at rest yet");
        machine::sleep(Duration::from_millis(200)).await;
    }
    check_deliveries(common)?;
    for session in sessions {
        if !session.read().await {
            return Err("there is no answer in all this calm".into());
        }
    }
    Ok(())
}

/// What is not at rest yet.
async fn look(common: &Arc<Common>) -> Option<String> {
    let server = &common.server;
    match server.flush().await {
        Told::Answer(()) => {}
        other => return Some(format!("FLUSH: {other:?}")),
    }
    match server.stopped().await {
        Told::Answer(stopped) if stopped.is_empty() => {}
        other => return Some(format!("stopped jobs: {other:?}")),
    }
    let reading = match server.read(Epoch(0)).await {
        Told::Answer(reading) => reading,
        Told::Refused(error) => return Some(format!("a read: {error}")),
        Told::Lost => return Some("a read is not answered".into()),
    };
    common.check(&reading);
    check_increments(common, &reading);
    let unrest = unread(common, &reading).or_else(|| check_sinks(common, &reading));
    if unrest.is_some() {
        return unrest;
    }
    if let Err(unrest) = check_errors(common, &reading).await {
        return Some(unrest);
    }
    drop(reading);
    held(common).await
}

/// What is held that should be given back, or is not there and should be.
async fn held(common: &Common) -> Option<String> {
    match common.server.holds().await {
        Told::Answer(held) if held.is_empty() => {}
        Told::Answer(held) => return Some(held.join(", ")),
        other => return Some(format!("what is held: {other:?}")),
    }
    match common.server.missing() {
        Ok(missing) if missing.is_empty() => None,
        Ok(missing) => Some(format!("the store lacks {}", missing.join(", "))),
        Err(error) => Some(error.to_string()),
    }
}

fn unread(common: &Common, reading: &Reading) -> Option<String> {
    let sources = BASES.iter().filter(|base| base.feed != Feed::Written);
    for base in sources {
        let (_, id) = reading.ids.iter().find(|(name, _)| name == base.name)?;
        let Some(stands) = reading.positions.get(id) else {
            continue;
        };
        for (partition, end) in common
            .server
            .broker
            .end_offsets(base.name)
            .iter()
            .enumerate()
        {
            let split = stands.iter().find(|p| p.split as usize == partition);
            let at = split.map_or(0, |p| p.next_offset);
            if at < *end {
                return Some(format!(
                    "partition {partition} of {} is read to {at} of {end}",
                    base.name
                ));
            }
        }
    }
    None
}

/// What happens to the server.
struct Chaos {
    common: Arc<Common>,
    dice: Dice,
    root: Arc<Process>,
    starts: u64,
    /// The broker takes records away.
    compacts: bool,
}

impl Chaos {
    fn millis(&self, from: u64, to: u64) -> Duration {
        self.dice
            .between(Duration::from_millis(from), Duration::from_millis(to))
    }

    /// Lets so much time pass in which one thing after the other goes wrong.
    async fn rage(&mut self, until: Duration) -> Result<(), String> {
        while self.root.time() < until && self.common.wrong.lock().is_empty() {
            machine::sleep(self.millis(0, 1500)).await;
            let server = self.common.server.clone();
            match self.dice.below(10) {
                0..=2 => self.kill(),
                3 => {
                    self.kill();
                    server.disk.power_loss();
                }
                4 => self.stop().await,
                5 => server.disk.trouble(self.disk_trouble()),
                6 => server.store.trouble(self.store_trouble()),
                7 => server.broker.set_trouble(self.broker_trouble()),
                8 => self.calm(),
                _ => self.change_topics(),
            }
            if !server.is_open() {
                machine::sleep(self.millis(0, 500)).await;
                self.start_in_trouble().await?;
            }
        }
        Ok(())
    }

    /// Stops the server in order; it may be killed while it does.
    async fn stop(&self) {
        tracing::debug!(target: "sim", "the server is told to stop");
        let patience = self.millis(0, 60_000);
        let stopped = machine::timeout(patience, self.common.server.shutdown()).await;
        tracing::debug!(target: "sim", ?stopped, "it has");
        self.kill();
    }

    fn kill(&self) {
        tracing::debug!(target: "sim", "the server is killed");
        self.common.server.kill();
    }

    fn change_topics(&self) {
        let broker = &self.common.server.broker;
        match self.dice.below(3) {
            0 => broker.add_partitions("s", 1),
            1 if self.compacts => broker.compact("u"),
            _ => {}
        }
    }

    fn disk_trouble(&self) -> DiskTrouble {
        let full = self.dice.chance(200);
        tracing::debug!(target: "sim", full, "the disk is slow");
        DiskTrouble {
            syncs: (Duration::ZERO, self.millis(0, 30)),
            full,
            ..DiskTrouble::default()
        }
    }

    fn store_trouble(&self) -> StoreTrouble {
        tracing::debug!(target: "sim", "the store is in trouble");
        StoreTrouble {
            requests: (Duration::ZERO, self.millis(0, 100)),
            answers: (Duration::ZERO, self.millis(0, 100)),
            failing: self.dice.below(300),
            lost_answers: self.dice.below(200),
            stragglers: self.dice.below(500),
            straggler_time: self.millis(0, 5000),
            away: self.dice.chance(100),
            late_listings: self.dice.below(300),
            listing_time: self.millis(0, 3000),
        }
    }

    fn broker_trouble(&self) -> BrokerTrouble {
        tracing::debug!(target: "sim", "the broker is in trouble");
        BrokerTrouble {
            latency: (Duration::ZERO, self.millis(0, 100)),
            marker_delay: (Duration::ZERO, self.millis(0, 50)),
            refused: self.dice.below(200),
            unacknowledged: self.dice.below(200),
            late: self.dice.pick(&[0, 100, 500]),
            late_by: (Duration::ZERO, self.millis(0, 2000)),
            away: self.dice.chance(100),
            cut: self.dice.below(300),
        }
    }

    /// Nothing fails any more.
    fn calm(&self) {
        tracing::debug!(target: "sim", "calm");
        let server = &self.common.server;
        server.disk.calm();
        server.store.calm();
        server.broker.calm();
    }

    fn config(&self) -> Config {
        let dice = &self.dice;
        Config {
            data_dir: "/data".into(),
            checkpoint_url: "sim://store".into(),
            workers: 1 + dice.below(3) as usize,
            epoch_ms: dice.pick(&[5, 10, 50]),
            checkpoint_ms: dice.pick(&[30, 200, 1000]),
            batch_rows_max: dice.pick(&[1, 7, 4096]),
            edge_bytes_max: dice.pick(&[1 << 8, 1 << 20]),
            discovery_ms: dice.pick(&[100, 1000]),
            memory_limit: "20GB".into(),
            ..Config::default()
        }
    }

    /// Starts the server, once; it may die while it starts.
    async fn start_in_trouble(&mut self) -> Result<(), String> {
        self.starts += 1;
        let (server, config, wall) = (self.common.server.clone(), self.config(), self.wall());
        tracing::debug!(target: "sim", workers = config.workers, "the server starts");
        let told = server.broker.delivered();
        let starting = self.root.run({
            let server = server.clone();
            async move { server.start(&config, wall).await }
        });
        let patience = match self.dice.chance(300) {
            true => self.millis(0, 300),
            false => Duration::from_secs(5),
        };
        let started = machine::timeout(patience, starting).await;
        match started {
            Some(Ok(Told::Answer(()))) => self.opened(told).await?,
            Some(Ok(Told::Refused(error))) if error.kind() != ErrorKind::Unavailable => {
                return Err(format!("it does not start: {error}"));
            }
            // Away, or dead, or nobody waits for it any longer.
            _ => self.kill(),
        }
        Ok(())
    }

    /// It is open: what sinks had told of before it started was decided.
    async fn opened(&self, told: Epoch) -> Result<(), String> {
        tracing::debug!(target: "sim", "it is open");
        match self.common.server.published().await {
            Told::Answer(published) if published < told => Err(format!(
                "a sink has told of epoch {told}, and the last one that was decided is {published}"
            )),
            _ => Ok(()),
        }
    }

    /// Starts the server as often as it takes, when nothing fails.
    async fn start_until_open(&mut self) -> Result<(), String> {
        for _ in 0..20 {
            if self.common.server.is_open() {
                return Ok(());
            }
            self.starts += 1;
            let (config, wall) = (self.config(), self.wall());
            tracing::debug!(target: "sim", workers = config.workers, "the server starts");
            let told = self.common.server.broker.delivered();
            let started = machine::timeout(PATIENCE, self.common.server.start(&config, wall)).await;
            match started {
                Some(Told::Answer(())) => return self.opened(told).await,
                Some(Told::Refused(error)) => return Err(format!("it does not start: {error}")),
                Some(Told::Lost) => self.kill(),
                None => return Err("it does not open".into()),
            }
        }
        Err("it dies at every start".into())
    }

    /// What the server's clock shows at a start: people set it.
    fn wall(&self) -> i64 {
        let error = match self.dice.chance(200) {
            true => self.dice.below(600_000_000) as i64 - 300_000_000,
            false => 0,
        };
        machine::micros() + error
    }
}
