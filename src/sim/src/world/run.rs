//! One seed: a server on machines that fail, clients that ask it, and what must hold.
//!
//! The server is one node, or a group of three or five. First a random number of clients work for
//! some seconds of virtual time while its nodes are killed, lose their power, are stopped and
//! started with other numbers of workers, and their disks, store and broker fail; those of a group
//! are paused and cut off as well. Then everything is calm, and the run has to come to rest:
//! everything that was sent is read, every view answers what its query answers, every sink has sent
//! exactly that. Then the server starts once more, and answers the same.

use super::broker::SimBroker;
use super::chaos::Chaos;
use super::clients::{
    Common, Session, check_errors, check_increments, check_sinks, create_base, define, produce,
};
use super::dice::Dice;
use super::disk::SimDisk;
use super::network::SimNetwork;
use super::node::{Node, Outside, Told};
use super::queries::{BASES, Feed};
use super::scheduler::{Failure, Process, Scheduler};
use super::server::{Reading, Server};
use super::store::SimStore;
use super::witness::check_deliveries;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemark_common::{Epoch, machine};
use tokio::sync::oneshot;

/// What the clocks on the wall show when a simulation begins, in microseconds since 1970.
const WALL: i64 = 1_800_000_000_000_000;
/// Turns after which a run that does not end is given up, for each node.
const TURNS_MAX: u64 = 3_000_000;
/// How long the calm may take until all is at rest, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether all nodes of a group run.
const TENDED: Duration = Duration::from_millis(200);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was wrong, in words.
    pub wrong: Option<String>,
    /// Nodes that the server had.
    pub nodes: u64,
    /// Differs between any two runs that are not the same.
    pub print: u64,
    /// Turns taken.
    pub turns: u64,
    /// Answers that were checked.
    pub checked: u64,
    /// Processes that were started.
    pub starts: u64,
}

/// Runs a seed, on so many nodes, or as many as the seed says.
pub fn run(seed: u64, nodes: Option<u64>) -> Outcome {
    let dice = Dice::new(seed);
    // What a group needs of chance leaves a node alone as it is.
    let group = Dice::new(!seed);
    let drawn = group.pick(&[1, 1, 1, 3, 3, 5]);
    let nodes = nodes.unwrap_or(drawn);
    let mut scheduler = Scheduler::new(dice.fork(), WALL);
    let root = scheduler.root().clone();
    let ran = scheduler.run(whole(root, dice, group, nodes), TURNS_MAX * nodes);
    let (turns, print) = (scheduler.turns, scheduler.print);
    let mut outcome = Outcome {
        wrong: None,
        nodes,
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

async fn whole(
    root: Arc<Process>,
    dice: Dice,
    group: Dice,
    nodes: u64,
) -> (Option<String>, u64, u64) {
    let (disk, store) = (SimDisk::new(dice.fork()), SimStore::new(dice.fork()));
    let broker = SimBroker::new(dice.fork());
    let network = SimNetwork::new(group.fork());
    let mut all = vec![Node::new(1, disk)];
    all.extend((2..=nodes).map(|number| Node::new(number, SimDisk::new(group.fork()))));
    let outside = Outside::new(root.clone(), store, broker, network);
    let server = Server::new(outside, all, group.fork());
    let common = Common::new(server.clone());
    let mut chaos = Chaos::new(common.clone(), dice.fork(), group);
    let wrong = play(&common, &mut chaos, &dice).await.err();
    let wrong = common.wrong.lock().first().cloned().or(wrong);
    let checked = *common.checked.lock();
    (wrong, checked, chaos.starts)
}

async fn play(common: &Arc<Common>, chaos: &mut Chaos, dice: &Dice) -> Result<(), String> {
    let (server, root) = (&common.server, &common.server.outside.root);
    server
        .broker
        .create_topic("s", 1 + dice.below(3) as usize, false);
    chaos.compacts = dice.chance(500);
    server
        .broker
        .create_topic("u", 1 + dice.below(2) as usize, chaos.compacts);
    server
        .broker
        .create_topic("w", 2 + dice.below(2) as usize, false);
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
    ended(chaos, "the producer", producer).await?;
    ended(chaos, "the client that creates and drops", definer).await?;
    let mut asked = Vec::new();
    for session in sessions {
        asked.push(ended(chaos, "a session", session).await?);
    }
    tracing::debug!(target: "sim", "all clients have ended");
    come_to_rest(common, chaos, &mut asked).await?;
    tracing::debug!(target: "sim", "all is at rest; once more");
    chaos.stop_in_calm().await?;
    chaos.start_until_open().await?;
    come_to_rest(common, chaos, &mut asked).await
}

/// Waits for a client's end, when nothing fails any more.
async fn ended<T>(
    chaos: &mut Chaos,
    who: &str,
    mut client: oneshot::Receiver<T>,
) -> Result<T, String> {
    let server = chaos.server();
    let deadline = server.outside.root.time() + PATIENCE;
    while server.outside.root.time() < deadline {
        let step = if server.is_group() { TENDED } else { PATIENCE };
        match machine::timeout(step, &mut client).await {
            Some(Ok(client)) => return Ok(client),
            Some(Err(_)) => return Err(format!("{who} died")),
            None => chaos.tend()?,
        }
    }
    let jobs = server.jobs().await;
    Err(format!("{who} gets no answer; jobs: {jobs:?}"))
}

/// Waits until everything that was sent is read, computed and sent on.
async fn come_to_rest(
    common: &Arc<Common>,
    chaos: &mut Chaos,
    sessions: &mut [Session],
) -> Result<(), String> {
    let root = &common.server.outside.root;
    let deadline = root.time() + PATIENCE;
    loop {
        if let Some(wrong) = common.wrong.lock().first() {
            return Err(wrong.clone());
        }
        chaos.start_until_open().await?;
        let unrest = look(common).await;
        let Some(unrest) = unrest else { break };
        if root.time() > deadline {
            return Err(format!("it does not come to rest: {unrest}"));
        }
        tracing::debug!(target: "sim", unrest, "not at rest yet");
        machine::sleep(Duration::from_millis(200)).await;
    }
    check_deliveries(common)?;
    for session in sessions {
        // The work may begin anew with a node that is back: what this cuts off is asked again.
        while !session.read().await {
            if root.time() > deadline {
                return Err("there is no answer in all this calm".into());
            }
            chaos.start_until_open().await?;
            machine::sleep(Duration::from_millis(200)).await;
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
