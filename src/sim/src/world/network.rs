//! The network between the nodes of a simulation: links that take time, wait for slow receivers,
//! break and lose what was sent last, and do not get through where it is parted.
//!
//! Each pair of nodes may be cut, in one direction or in both. What is sent there does not arrive:
//! it waits, as it does in a real connection, and goes on if the way is free again soon enough;
//! after some seconds whoever has sent something gives the link up. Whoever only receives notices
//! nothing. A process that is killed leaves its links as a real one does, its machine alive or not.
//!
//! An address is any text. Who listens at it is remembered with its node, so that a connection to
//! an address where nobody is any more, behind a cut, hangs as it should.

mod link;

use super::alive::Alive;
use super::dice::Dice;
use async_trait::async_trait;
use bytes::Bytes;
use link::{End, Moment, Received, Sent, SimLink};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::machine;
use tidemark_common::network::{
    FRAME_BYTES_MAX, Link, LinkReceiver, LinkSender, Listener, Network,
};
use tidemark_common::{Error, Result, SqlState};
use tokio::sync::Notify;

/// Least and most time that something takes.
type Range = (Duration, Duration);

/// How long a connect waits for an answer.
const CONNECT_PATIENCE: Range = (Duration::from_secs(1), Duration::from_secs(10));

/// What is wrong with a network beside what is cut. By default nothing is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkTrouble {
    /// What a frame, or one way of a connect, takes beside what it always does, from and to.
    pub latency: Range,
    /// Of a thousand frames so many are the last of their link, and may be lost with others.
    pub breaks: u64,
    /// Of a thousand connects so many are refused.
    pub refused: u64,
    /// So many hang, so long, and fail.
    pub hanging: u64,
    pub hanging_time: Range,
}

/// The network. Cloning shares.
#[derive(Clone)]
pub struct SimNetwork(Arc<Shared>);

struct Shared {
    dice: Dice,
    state: Mutex<State>,
    /// Something is cut, or is not any more.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the last process, listener or link.
    last: u64,
    places: BTreeMap<String, Place>,
    links: BTreeMap<u64, SimLink>,
    /// Nothing gets from the first to the second.
    cut: BTreeSet<(u64, u64)>,
    trouble: NetworkTrouble,
}

/// Where somebody listens, or did.
struct Place {
    /// The listener.
    number: u64,
    node: u64,
    process: u64,
    is_open: bool,
    /// Links that were not taken yet.
    arrived: VecDeque<u64>,
    bell: Arc<Notify>,
}

impl SimNetwork {
    /// A network without trouble, and nobody in it.
    pub fn new(dice: Dice) -> SimNetwork {
        SimNetwork(Arc::new(Shared {
            dice,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// The network as a process on this node sees it while it lives.
    pub fn open(&self, alive: Alive, node: u64) -> Arc<dyn Network> {
        let process = self.0.state.lock().next();
        let network = self.clone();
        alive.when_killed(move || network.died(process));
        Arc::new(Handle {
            network: self.clone(),
            alive,
            node,
            process,
        })
    }

    /// What is wrong from now on.
    pub fn trouble(&self, trouble: NetworkTrouble) {
        self.0.state.lock().trouble = trouble;
    }

    /// From now on nothing gets from the first node to the second of each of these pairs, and
    /// everything between others.
    pub fn partition(&self, cut: impl IntoIterator<Item = (u64, u64)>) {
        let state = &mut *self.0.state.lock();
        state.cut = cut.into_iter().collect();
        let moment = self.moment(state);
        for link in state.links.values_mut() {
            let [one, other] = [link.ends[0].node, link.ends[1].node];
            let cut = [(one, other), (other, one)].map(|way| state.cut.contains(&way));
            link.cut(cut, &moment);
        }
        self.0.changed.notify_waiters();
    }

    /// Nothing is wrong any more, and nothing cut.
    pub fn calm(&self) {
        self.trouble(NetworkTrouble::default());
        self.partition([]);
    }

    fn moment(&self, state: &State) -> Moment<'_> {
        Moment {
            now: machine::now(),
            dice: &self.0.dice,
            trouble: state.trouble,
        }
    }

    /// A process was killed.
    fn died(&self, process: u64) {
        let state = &mut *self.0.state.lock();
        let moment = self.moment(state);
        for place in state.places.values_mut().filter(|p| p.process == process) {
            place.is_open = false;
        }
        for link in state.links.values_mut() {
            for at in [0, 1] {
                if link.ends[at].process == process {
                    link.died(at, &moment);
                }
            }
        }
        state.links.retain(|_, link| !link.is_over());
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether a connection from this node to that one gets no answer.
    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to)) || self.cut.contains(&(to, from))
    }
}

/// Waits until the bell rings, at most until then.
async fn wait(bell: &Notify, until: Option<Instant>) {
    match until {
        Some(at) => {
            let time = at.saturating_duration_since(machine::now());
            machine::timeout(time, bell.notified()).await;
        }
        None => bell.notified().await,
    }
}

fn failure(why: &str) -> Error {
    Error::unavailable(SqlState::CONNECTION_FAILURE, why)
}

fn broken() -> Error {
    failure("the link is broken")
}

/// One process's way to the others.
struct Handle {
    network: SimNetwork,
    alive: Alive,
    node: u64,
    process: u64,
}

#[async_trait]
impl Network for Handle {
    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        self.alive.check()?;
        let state = &mut *self.network.0.state.lock();
        if state.places.get(address).is_some_and(|place| place.is_open) {
            return Err(failure("address already in use"));
        }
        let (number, bell) = (state.next(), Arc::new(Notify::new()));
        let place = Place {
            number,
            node: self.node,
            process: self.process,
            is_open: true,
            arrived: VecDeque::new(),
            bell: bell.clone(),
        };
        state.places.insert(address.to_string(), place);
        Ok(Box::new(Arrivals {
            network: self.network.clone(),
            alive: self.alive.clone(),
            address: address.to_string(),
            number,
            bell,
        }))
    }

    async fn connect(&self, address: &str) -> Result<Link> {
        let shared = &self.network.0;
        self.pass_time().await?;
        let trouble = shared.state.lock().trouble;
        if shared.dice.chance(trouble.refused) {
            return Err(failure("connection refused"));
        }
        if shared.dice.chance(trouble.hanging) {
            let (from, to) = trouble.hanging_time;
            machine::sleep(shared.dice.between(from, to)).await;
            return Err(failure("connection timed out"));
        }
        self.get_through(address).await?;
        let link = self.meet(address)?;
        self.pass_time().await?;
        Ok(link)
    }
}

impl Handle {
    /// One way there, or back.
    async fn pass_time(&self) -> Result<()> {
        let time = {
            let state = self.network.0.state.lock();
            self.network.moment(&state).latency()
        };
        machine::sleep(time).await;
        Ok(self.alive.check()?)
    }

    /// Waits while the way to an address is cut.
    async fn get_through(&self, address: &str) -> Result<()> {
        let shared = &self.network.0;
        let mut patience = None;
        loop {
            let changed = shared.changed.notified();
            {
                let state = shared.state.lock();
                let place = state.places.get(address);
                if !place.is_some_and(|place| state.is_cut(self.node, place.node)) {
                    return Ok(());
                }
            }
            let (from, to) = CONNECT_PATIENCE;
            let gives_up = || machine::now() + shared.dice.between(from, to);
            let until = *patience.get_or_insert_with(gives_up);
            let time = until.saturating_duration_since(machine::now());
            if machine::timeout(time, changed).await.is_none() {
                return Err(failure("connection timed out"));
            }
        }
    }

    /// A link to whoever listens at an address.
    fn meet(&self, address: &str) -> Result<Link> {
        self.alive.check()?;
        let state = &mut *self.network.0.state.lock();
        let moment = self.network.moment(state);
        let number = state.next();
        let place = state.places.get_mut(address).filter(|place| place.is_open);
        let Some(place) = place else {
            return Err(failure("connection refused"));
        };
        let ends = [(self.node, self.process), (place.node, place.process)];
        let ends = ends.map(|(node, process)| End::new(node, process, moment.now));
        place.arrived.push_back(number);
        place.bell.notify_one();
        let link = SimLink::new(ends, [false, false]);
        let halves = self
            .network
            .halves(&self.alive, number, 0, &link, address.to_string());
        state.links.insert(number, link);
        Ok(halves)
    }
}

impl SimNetwork {
    /// What a process has of its end of a link.
    fn halves(&self, alive: &Alive, link: u64, end: usize, of: &SimLink, peer: String) -> Link {
        let half = |bell: &Arc<Notify>| Half {
            network: self.clone(),
            alive: alive.clone(),
            link,
            end,
            bell: bell.clone(),
        };
        Link {
            sender: Box::new(Sender(half(&of.ends[end].room))),
            receiver: Box::new(Receiver(half(&of.ends[end].bell))),
            peer,
        }
    }
}

/// A listener.
struct Arrivals {
    network: SimNetwork,
    alive: Alive,
    address: String,
    number: u64,
    bell: Arc<Notify>,
}

impl Arrivals {
    fn next(&self) -> Option<Link> {
        let state = &mut *self.network.0.state.lock();
        let place = state.places.get_mut(&self.address)?;
        loop {
            let number = place.arrived.pop_front()?;
            // It may be over already.
            if let Some(link) = state.links.get(&number) {
                let peer = format!("n{}:{}", link.ends[0].node, 40_000 + number);
                return Some(self.network.halves(&self.alive, number, 1, link, peer));
            }
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let state = &mut *self.network.0.state.lock();
        let moment = self.network.moment(state);
        let place = state.places.get_mut(&self.address);
        let Some(place) = place.filter(|place| place.number == self.number) else {
            return;
        };
        place.is_open = false;
        for number in std::mem::take(&mut place.arrived) {
            if let Some(link) = state.links.get_mut(&number) {
                link.turn_away(1, &moment);
            }
        }
    }
}

#[async_trait]
impl Listener for Arrivals {
    async fn accept(&mut self) -> Result<Link> {
        loop {
            self.alive.check()?;
            if let Some(link) = self.next() {
                return Ok(link);
            }
            self.bell.notified().await;
        }
    }
}

/// One direction of an end.
struct Half {
    network: SimNetwork,
    alive: Alive,
    link: u64,
    end: usize,
    bell: Arc<Notify>,
}

struct Sender(Half);

struct Receiver(Half);

impl Half {
    /// None: nobody is at either end.
    fn with<T>(&self, does: impl FnOnce(&mut SimLink, usize, &Moment<'_>) -> T) -> Option<T> {
        let state = &mut *self.network.0.state.lock();
        let moment = self.network.moment(state);
        let link = state.links.get_mut(&self.link)?;
        let done = does(link, self.end, &moment);
        if link.is_over() {
            state.links.remove(&self.link);
        }
        Some(done)
    }
}

/// A frame that is being sent: its link breaks if it is left so.
struct Unfinished<'h>(Option<&'h Half>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(half) = self.0 {
            half.with(|link, _, moment| link.break_off(moment));
        }
    }
}

#[async_trait]
impl LinkSender for Sender {
    async fn send(&mut self, frame: Bytes) -> Result<()> {
        if frame.len() > FRAME_BYTES_MAX {
            let bytes = frame.len();
            return Err(Error::internal(format!(
                "a frame of {bytes} bytes is too large"
            )));
        }
        let half = &self.0;
        let mut unfinished = Unfinished(Some(half));
        let result = loop {
            half.alive.check()?;
            match half.with(|link, end, moment| link.send(end, &frame, moment)) {
                Some(Sent::Done) => break Ok(()),
                Some(Sent::Full(until)) => wait(&half.bell, until).await,
                Some(Sent::Broken) | None => break Err(broken()),
            }
        };
        unfinished.0 = None;
        result
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0
            .with(|link, end, moment| link.drop_sender(end, moment));
    }
}

#[async_trait]
impl LinkReceiver for Receiver {
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        let half = &self.0;
        loop {
            half.alive.check()?;
            match half.with(|link, end, moment| link.receive(end, moment.now)) {
                Some(Received::Frame(frame)) => return Ok(frame),
                Some(Received::Nothing(until)) => wait(&half.bell, until).await,
                Some(Received::Broken) | None => return Err(broken()),
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0
            .with(|link, end, moment| link.drop_receiver(end, moment));
    }
}

#[cfg(test)]
mod tests;
