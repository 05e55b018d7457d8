//! What happens to the server: one thing after the other goes wrong, until it is told to end. A
//! node alone is killed, loses its power, is stopped and started; the nodes of a group are paused
//! and cut off from each other as well, and some stay away for a while.

use super::broker::BrokerTrouble;
use super::clients::Common;
use super::dice::Dice;
use super::disk::DiskTrouble;
use super::network::NetworkTrouble;
use super::node::{Node, Told};
use super::scheduler::Process;
use super::server::Server;
use super::store::StoreTrouble;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::{Epoch, ErrorKind, machine};
use tokio::sync::oneshot;

/// How long the calm may take until the server is open, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether all nodes of a group run.
const LOOKED: Duration = Duration::from_millis(50);

/// See the module.
pub struct Chaos {
    common: Arc<Common>,
    root: Arc<Process>,
    dice: Dice,
    /// What a group needs of chance beside that.
    group: Dice,
    /// Processes that were started.
    pub starts: u64,
    /// The broker takes records away.
    pub compacts: bool,
    /// What will come of the processes of a group that are not open, by node.
    starting: Vec<Option<oneshot::Receiver<Told<()>>>>,
}

impl Chaos {
    /// Nothing has happened yet.
    pub fn new(common: Arc<Common>, dice: Dice, group: Dice) -> Chaos {
        Chaos {
            root: common.server.outside.root.clone(),
            starting: common.server.nodes.iter().map(|_| None).collect(),
            common,
            dice,
            group,
            starts: 0,
            compacts: false,
        }
    }

    /// The server that it happens to.
    pub fn server(&self) -> Arc<Server> {
        self.common.server.clone()
    }

    fn node(&self, at: usize) -> &Node {
        &self.common.server.nodes[at]
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        self.dice
            .between(Duration::from_millis(from), Duration::from_millis(to))
    }

    /// Lets so much time pass in which one thing after the other goes wrong.
    pub async fn rage(&mut self, until: Duration) -> Result<(), String> {
        if self.common.server.is_group() {
            return self.rage_in_group(until).await;
        }
        while self.root.time() < until && self.common.wrong.lock().is_empty() {
            machine::sleep(self.millis(0, 1500)).await;
            match self.dice.below(10) {
                0..=2 => self.kill(0),
                3 => {
                    self.kill(0);
                    self.node(0).disk.power_loss();
                }
                4 => self.stop(0, 60_000).await,
                5 => self.node(0).disk.trouble(self.disk_trouble()),
                6 => self.server().outside.store.trouble(self.store_trouble()),
                7 => self.server().broker.set_trouble(self.broker_trouble()),
                8 => self.calm(),
                _ => self.change_topics(),
            }
            if !self.common.server.is_open() {
                machine::sleep(self.millis(0, 500)).await;
                self.start_in_trouble().await?;
            }
        }
        Ok(())
    }

    /// Stops a node in order; it may be killed while it does.
    async fn stop(&mut self, at: usize, patience_ms: u64) {
        let node = self.node(at);
        tracing::debug!(target: "sim", node = node.number, "is told to stop");
        let patience = self.millis(0, patience_ms);
        let stopped = machine::timeout(patience, node.shutdown()).await;
        tracing::debug!(target: "sim", ?stopped, "it has");
        self.kill(at);
    }

    fn kill(&mut self, at: usize) {
        let node = self.node(at);
        tracing::debug!(target: "sim", node = node.number, "is killed");
        node.kill();
        self.starting[at] = None;
    }

    fn change_topics(&self) {
        let broker = &self.common.server.broker;
        match self.dice.below(3) {
            0 => broker.add_partitions("s", 1),
            1 if self.compacts => {
                tracing::debug!(target: "sim", topic = "u", "is compacted");
                broker.compact("u");
            }
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
    pub fn calm(&self) {
        tracing::debug!(target: "sim", "calm");
        let server = &self.common.server;
        for node in &server.nodes {
            node.disk.calm();
            if let Some(process) = node.process() {
                process.resume();
            }
        }
        server.outside.store.calm();
        server.broker.calm();
        server.outside.network.calm();
    }

    fn config(&self, at: usize) -> Config {
        let dice = &self.dice;
        let config = Config {
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
        };
        let server = &self.common.server;
        match server.is_group() {
            true => Config {
                node_id: self.node(at).number,
                rpc: self.node(at).address(),
                join: server.nodes.iter().map(Node::address).collect(),
                ..config
            },
            false => config,
        }
    }

    /// Begins to start a node.
    fn begin(&mut self, at: usize) -> oneshot::Receiver<Told<()>> {
        self.starts += 1;
        let (server, config, wall) = (self.server(), self.config(at), self.wall());
        let (node, workers) = (self.node(at).number, config.workers);
        tracing::debug!(target: "sim", node, workers, "is started");
        self.root.run(async move {
            let node = &server.nodes[at];
            node.start(&server.outside, &config, wall).await
        })
    }

    /// Starts a node that is alone, once; it may die while it starts.
    async fn start_in_trouble(&mut self) -> Result<(), String> {
        let told = self.common.server.broker.delivered();
        let starting = self.begin(0);
        let patience = match self.dice.chance(300) {
            true => self.millis(0, 300),
            false => Duration::from_secs(5),
        };
        let started = machine::timeout(patience, starting).await;
        match started {
            Some(Ok(Told::Answer(()))) => opened(&self.common.server, told).await?,
            Some(Ok(Told::Refused(error))) if error.kind() != ErrorKind::Unavailable => {
                return Err(format!("it does not start: {error}"));
            }
            // Away, or dead, or nobody waits for it any longer.
            _ => self.kill(0),
        }
        Ok(())
    }

    /// Starts the server as often as it takes, when nothing fails.
    pub async fn start_until_open(&mut self) -> Result<(), String> {
        if self.common.server.is_group() {
            return self.start_group().await;
        }
        for _ in 0..20 {
            let server = self.server();
            if server.is_open() {
                return Ok(());
            }
            self.starts += 1;
            let (config, wall) = (self.config(0), self.wall());
            tracing::debug!(target: "sim", workers = config.workers, "the server starts");
            let told = server.broker.delivered();
            let start = server.nodes[0].start(&server.outside, &config, wall);
            match machine::timeout(PATIENCE, start).await {
                Some(Told::Answer(())) => return opened(&server, told).await,
                Some(Told::Refused(error)) => return Err(format!("it does not start: {error}")),
                Some(Told::Lost) => self.kill(0),
                None => return Err("it does not open".into()),
            }
        }
        Err("it dies at every start".into())
    }

    /// Stops the server in order, when nothing fails.
    pub async fn stop_in_calm(&mut self) -> Result<(), String> {
        let server = self.server();
        if server.is_group() {
            return self.stop_group().await;
        }
        match server.nodes[0].shutdown().await {
            Told::Answer(()) => Ok(()),
            other => Err(format!("it does not stop in order: {other:?}")),
        }
    }

    /// What a node's clock shows at a start: people set it.
    fn wall(&self) -> i64 {
        let error = match self.dice.chance(200) {
            true => self.dice.below(600_000_000) as i64 - 300_000_000,
            false => 0,
        };
        machine::micros() + error
    }
}

/// The server is open: what sinks had told of before was decided.
async fn opened(server: &Server, told: Epoch) -> Result<(), String> {
    tracing::debug!(target: "sim", "it is open");
    match server.published().await {
        Told::Answer(published) if published < told => Err(format!(
            "a sink has told of epoch {told}, and the last one that was decided is {published}"
        )),
        _ => Ok(()),
    }
}

/// What happens to a group.
impl Chaos {
    async fn rage_in_group(&mut self, until: Duration) -> Result<(), String> {
        // It takes a while until another node leads.
        let until = until + self.group.between(Duration::ZERO, Duration::from_secs(20));
        while self.root.time() < until && self.common.wrong.lock().is_empty() {
            machine::sleep(self.millis(0, 1500)).await;
            self.strike().await;
            machine::sleep(self.millis(0, 500)).await;
            for at in 0..self.starting.len() {
                self.look_at(at)?;
                // Some stay away for a while.
                if self.group.chance(700) {
                    self.start_if_down(at);
                }
            }
        }
        Ok(())
    }

    /// One thing goes wrong.
    async fn strike(&mut self) {
        let server = self.server();
        let at = self.victim();
        match self.group.below(20) {
            0..=2 => self.kill(at),
            3 => {
                self.kill(at);
                self.node(at).disk.power_loss();
            }
            4..=5 => self.stop(at, 5_000).await,
            6 => self.node(at).disk.trouble(self.disk_trouble()),
            7 => server.outside.store.trouble(self.store_trouble()),
            8 => server.broker.set_trouble(self.broker_trouble()),
            9 => server.outside.network.trouble(self.network_trouble()),
            10 => self.calm(),
            11 => server.outside.network.partition([]),
            12..=14 => self.cut_off(self.node(at).number),
            15..=16 => self.pause(at),
            17..=18 => self.drain(self.node(at).number).await,
            _ => self.change_topics(),
        }
    }

    /// This node is to do nothing of the work any more, or again some.
    async fn drain(&self, number: u64) {
        let is_drained = self.group.chance(500);
        tracing::debug!(target: "sim", node = number, is_drained, "is drained or resumed");
        let server = self.server();
        let drain = server
            .ask(move |engine| async move { engine.membership().drain(number, is_drained).await });
        let drained = machine::timeout(self.millis(0, 5_000), drain).await;
        tracing::debug!(target: "sim", ?drained, "it is told");
    }

    /// Who is struck: half of the times the one that leads.
    fn victim(&self) -> usize {
        let leader = self.common.server.leader().map(|node| node.number);
        match leader.filter(|_| self.group.chance(500)) {
            Some(number) => number as usize - 1,
            None => self.group.below(self.starting.len() as u64) as usize,
        }
    }

    /// This node is cut off: from all others, with some of them, in one direction, from one.
    fn cut_off(&self, number: u64) {
        let group = &self.group;
        let nodes = self.common.server.nodes.iter();
        let others: Vec<u64> = nodes.map(|n| n.number).filter(|n| *n != number).collect();
        let (mut here, mut there) = (vec![number], others.clone());
        let (out, back) = group.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        match group.below(3) {
            0 => {}
            1 => there = vec![group.pick(&others)],
            _ => {
                let stay = |_: &mut u64| group.chance(400);
                here.extend(there.extract_if(.., stay));
            }
        }
        tracing::debug!(target: "sim", ?here, ?there, out, back, "are parted");
        let ways = here
            .iter()
            .flat_map(|one| there.iter().map(|other| (*one, *other)));
        let ways = ways.flat_map(|(one, other)| {
            let (out, back) = (out.then_some((one, other)), back.then_some((other, one)));
            out.into_iter().chain(back)
        });
        self.common.server.outside.network.partition(ways);
    }

    /// This node does not run for a while.
    fn pause(&self, at: usize) {
        let Some(process) = self.node(at).process() else {
            return;
        };
        let most = self.group.pick(&[100, 2000, 10_000]);
        let time = self.millis(0, most);
        tracing::debug!(target: "sim", node = self.node(at).number, ?time, "is paused");
        process.pause();
        drop(self.root.run(async move {
            machine::sleep(time).await;
            process.resume();
        }));
    }

    fn network_trouble(&self) -> NetworkTrouble {
        tracing::debug!(target: "sim", "the network is in trouble");
        let group = &self.group;
        NetworkTrouble {
            latency: (Duration::ZERO, self.millis(0, 100)),
            breaks: group.pick(&[0, 5, 50]),
            refused: group.below(300),
            hanging: group.below(200),
            hanging_time: (Duration::ZERO, self.millis(0, 5000)),
        }
    }

    /// Sees what came of starting a node.
    fn look_at(&mut self, at: usize) -> Result<(), String> {
        let Some(starting) = &mut self.starting[at] else {
            return Ok(());
        };
        let started = starting.try_recv();
        if matches!(started, Err(oneshot::error::TryRecvError::Empty)) {
            return Ok(());
        }
        self.starting[at] = None;
        match started {
            Ok(Told::Refused(error)) if error.kind() != ErrorKind::Unavailable => {
                let number = self.node(at).number;
                Err(format!("node {number} does not start: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn start_if_down(&mut self, at: usize) {
        if self.node(at).process().is_some() || self.starting[at].is_some() {
            return;
        }
        let (starting, common) = (self.begin(at), self.common.clone());
        self.starting[at] = Some(self.root.run(async move {
            let Ok(started) = starting.await else {
                return Told::Lost;
            };
            let server = &common.server;
            let told = server.broker.delivered();
            if let Some(opened) = server.nodes[at].opened()
                && let Told::Answer(published) = opened.published().await
                && published < told
            {
                common.blame(format!(
                    "a sink has told of epoch {told}, and the last one that was decided when \
                     node {} opened is {published}",
                    at + 1
                ));
            }
            started
        }));
    }

    /// Starts the nodes that have ended.
    pub fn tend(&mut self) -> Result<(), String> {
        for at in 0..self.starting.len() {
            self.look_at(at)?;
            self.start_if_down(at);
        }
        Ok(())
    }

    /// Waits until all nodes of a group run, and one is open.
    async fn start_group(&mut self) -> Result<(), String> {
        let deadline = self.root.time() + PATIENCE;
        let server = self.server();
        loop {
            self.tend()?;
            let all_run = server.nodes.iter().all(|node| node.process().is_some());
            if all_run && server.is_open() {
                return Ok(());
            }
            if self.root.time() > deadline {
                return Err("no node opens".into());
            }
            machine::sleep(LOOKED).await;
        }
    }

    /// Stops the node that leads in order, and perhaps kills the others.
    async fn stop_group(&mut self) -> Result<(), String> {
        let server = self.server();
        let deadline = self.root.time() + PATIENCE;
        loop {
            self.start_group().await?;
            let Some(leader) = server.leader() else {
                continue;
            };
            match leader.shutdown().await {
                Told::Answer(()) => break,
                // Another one leads.
                Told::Lost if self.root.time() < deadline => {}
                other => return Err(format!("it does not stop in order: {other:?}")),
            }
        }
        if self.group.chance(500) {
            (0..server.nodes.len()).for_each(|at| self.kill(at));
        }
        Ok(())
    }
}
