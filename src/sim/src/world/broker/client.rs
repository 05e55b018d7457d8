//! A process asks the broker: requests take time, fail, get lost and come late. Of a process that
//! was killed nothing comes any more but the writes that were on their way.

use super::super::alive::Alive;
use super::cluster::{Cluster, Refusal, Sent, Write};
use super::direct::SimBroker;
use super::trouble::Range;
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState, machine};

/// How long a broker that is away is waited for, by default.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it is back.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a question is asked, which changes nothing, until it counts as failed.
const ATTEMPTS: usize = 3;
/// The pause between two of them.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// One process as the broker's client.
#[derive(Clone)]
pub struct Client {
    /// Whom it asks.
    pub broker: SimBroker,
    /// Whether the process lives.
    pub alive: Alive,
    /// What it calls the broker, in messages.
    pub brokers: String,
}

/// Why there is no answer. The effect may have taken place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered(pub &'static str);

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Of a thousand writes that are on their way when their sender dies so many come all the same,
/// that much later.
const ORPHANS: u64 = 500;
const ORPHANS_AFTER: Range = (Duration::from_millis(1), Duration::from_secs(2));

const AWAY: Unanswered = Unanswered("Connection refused");
const FAILED: Unanswered = Unanswered("Broker: Request failed");
const LOST: Unanswered = Unanswered("Local: Timed out");
const DEAD: Unanswered = Unanswered("the process was killed");

/// How a request goes.
struct Fate {
    there: Duration,
    back: Duration,
    refused: bool,
    lost: bool,
    late: Option<Duration>,
}

impl Client {
    fn fate(&self, may_be_late: bool) -> Fate {
        let cluster = self.broker.lock();
        let (trouble, dice) = (&cluster.trouble, &cluster.dice);
        let latency = dice.between(trouble.latency.0, trouble.latency.1);
        let there = dice.between(Duration::ZERO, latency);
        let late = may_be_late && dice.chance(trouble.late);
        Fate {
            there,
            back: latency - there,
            refused: dice.chance(trouble.refused),
            lost: dice.chance(trouble.unacknowledged),
            late: late.then(|| dice.between(trouble.late_by.0, trouble.late_by.1)),
        }
    }

    fn is_away(&self) -> bool {
        self.broker.lock().trouble.away
    }

    async fn reach(&self, patience: Duration) -> Result<(), Unanswered> {
        let began = machine::now();
        while self.is_away() {
            if machine::elapsed(began) >= patience {
                return Err(AWAY);
            }
            machine::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Asks once: `effect` takes place between the way there and the way back.
    pub async fn ask<T>(
        &self,
        patience: Duration,
        effect: impl FnOnce(&mut Cluster) -> T,
    ) -> Result<T, Unanswered> {
        self.reach(patience).await?;
        let fate = self.fate(false);
        self.go(&fate, effect).await
    }

    async fn go<T>(
        &self,
        fate: &Fate,
        effect: impl FnOnce(&mut Cluster) -> T,
    ) -> Result<T, Unanswered> {
        machine::sleep(fate.there).await;
        if !self.alive.is_alive() {
            return Err(DEAD);
        }
        let answer = {
            let mut cluster = self.broker.lock();
            if fate.refused || cluster.trouble.away {
                return Err(if fate.refused { FAILED } else { AWAY });
            }
            cluster.settle();
            effect(&mut cluster)
        };
        machine::sleep(fate.back).await;
        match self.alive.is_alive() {
            false => Err(DEAD),
            true if fate.lost || self.is_away() => Err(LOST),
            true => Ok(answer),
        }
    }

    /// Asks for a write, which may come late if it belongs to a transaction.
    pub async fn write(&self, write: Write) -> Result<Result<(), Refusal>, Unanswered> {
        self.reach(PATIENCE).await?;
        let is_transactional = match &write {
            Write::Records { session, .. } => session.is_some(),
            Write::End { .. } => true,
        };
        let fate = self.fate(is_transactional);
        let sent = is_transactional.then(|| self.send(&fate, &write)).flatten();
        let late = fate.late;
        let outcome = self.go(&fate, move |cluster| {
            cluster.take_back(sent);
            match late {
                Some(late) => {
                    cluster.write_later(late, write);
                    None
                }
                None => Some(cluster.write(&write)),
            }
        });
        let outcome = outcome.await;
        if self.alive.is_alive() {
            self.broker.lock().take_back(sent);
        }
        outcome?.ok_or(LOST)
    }

    /// A write that is on its way: if its sender dies, it may come all the same, a while after.
    fn send(&self, fate: &Fate, write: &Write) -> Option<Sent> {
        let mut cluster = self.broker.lock();
        let arrives = cluster.dice.chance(ORPHANS);
        let delay = cluster.dice.between(ORPHANS_AFTER.0, ORPHANS_AFTER.1);
        arrives.then(|| cluster.write_later(fate.there + delay, write.clone()))
    }

    /// A question that changes nothing, or nothing more when it is asked again; waits in a thread.
    pub fn question<T>(&self, question: impl Fn(&mut Cluster) -> T) -> Result<T, Unanswered> {
        let mut attempts = 1;
        loop {
            match machine::block_on(self.ask(PATIENCE, &question)) {
                Err(_) if attempts < ATTEMPTS && self.alive.is_alive() => {
                    attempts += 1;
                    machine::pause(ATTEMPT_INTERVAL);
                }
                answer => return answer,
            }
        }
    }
}

/// A failure that another try may mend: `08006`.
pub fn unavailable(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::unavailable(SqlState::CONNECTION_FAILURE, format!("{what}: {error}"))
}
