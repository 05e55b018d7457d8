//! One node of a simulation: its disk, which outlives its processes, and the process that there is
//! now, which may have opened the engine, or wait until it leads its group.

use super::alive::Alive;
use super::broker::{SimBroker, SimConnectors};
use super::disk::SimDisk;
use super::network::SimNetwork;
use super::scheduler::Process;
use super::store::SimStore;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::{Epoch, Error, Result, machine};
use tidemark_node::{Engine, Services};
use tidemark_state::checkpoint::CheckpointStore;

/// How long a process that has said that it ends may take, in virtual time.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// What all nodes share.
pub struct Outside {
    /// The simulation itself.
    pub root: Arc<Process>,
    /// Their checkpoint store.
    pub store: SimStore,
    /// Their broker.
    pub broker: SimBroker,
    /// What is between them.
    pub network: SimNetwork,
    last: Mutex<u64>,
}

impl Outside {
    /// Nobody is there yet.
    pub fn new(
        root: Arc<Process>,
        store: SimStore,
        broker: SimBroker,
        network: SimNetwork,
    ) -> Outside {
        Outside {
            root,
            store,
            broker,
            network,
            last: Mutex::default(),
        }
    }

    fn next(&self) -> u64 {
        let last = &mut *self.last.lock();
        *last += 1;
        *last
    }
}

/// See the module.
pub struct Node {
    /// 1 and above.
    pub number: u64,
    /// Its disk.
    pub disk: SimDisk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Arc<Process>>,
    engine: Option<Opened>,
}

/// An engine that answers.
#[derive(Clone)]
pub struct Opened {
    /// Later ones have larger numbers.
    pub order: u64,
    /// Where it is open.
    pub process: Arc<Process>,
    engine: Engine,
}

/// What a client is told.
#[derive(Debug)]
pub enum Told<T> {
    /// An answer.
    Answer(T),
    /// An error.
    Refused(Error),
    /// Nothing: the connection broke, or there was none.
    Lost,
}

impl Node {
    /// Nothing was started yet.
    pub fn new(number: u64, disk: SimDisk) -> Node {
        let state = Mutex::default();
        Node {
            number,
            disk,
            state,
        }
    }

    /// Where other nodes reach it.
    pub fn address(&self) -> String {
        format!("n{}:4568", self.number)
    }

    /// Starts a process and waits until it is open, or has died.
    ///
    /// Errors: what it said before it gave up.
    pub async fn start(&self, outside: &Outside, config: &Config, wall: i64) -> Told<()> {
        let alive = Alive::default();
        let (connectors, store) = (
            SimConnectors {
                broker: outside.broker.clone(),
                alive: alive.clone(),
            },
            CheckpointStore::over("sim://store", outside.store.open(alive.clone())),
        );
        let network = outside.network.open(alive.clone(), self.number);
        let process = {
            let mut state = self.state.lock();
            let disk = self.disk.open(alive.clone());
            let process = outside.root.start(outside.next(), alive, disk, wall);
            state.process = Some(process.clone());
            // One that ended by itself has left its engine, which must not answer in this process.
            state.engine = None;
            process
        };
        let config = config.clone();
        let opened = process.run(async move {
            let services = Services {
                store: Some(store),
                connectors: Arc::new(connectors),
                network: Some(network),
                ..Services::default()
            };
            Engine::open_with(&config, services).await
        });
        match opened.await {
            Ok(Ok(engine)) => {
                let mut state = self.state.lock();
                if process.alive.is_alive() {
                    let order = outside.next();
                    state.engine = Some(Opened {
                        order,
                        process,
                        engine,
                    });
                }
                Told::Answer(())
            }
            Ok(Err(error)) => {
                process.kill();
                Told::Refused(error)
            }
            Err(_) => Told::Lost,
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.engine = None;
        if let Some(process) = state.process.take() {
            process.kill();
        }
    }

    /// Its process, if there is one that lives.
    pub fn process(&self) -> Option<Arc<Process>> {
        let process = self.state.lock().process.clone();
        process.filter(|process| process.alive.is_alive())
    }

    /// Its engine, if it was opened; the process may have ended by itself meanwhile.
    pub fn opened(&self) -> Option<Opened> {
        self.state.lock().engine.clone()
    }

    /// Whether it answers.
    pub fn is_open(&self) -> bool {
        self.opened().is_some_and(|opened| opened.lives())
    }

    /// Stops in order; nobody is let in meanwhile.
    pub async fn shutdown(&self) -> Told<()> {
        let engine = self.state.lock().engine.take();
        let Some(Opened {
            process, engine, ..
        }) = engine
        else {
            return Told::Lost;
        };
        let told = process.run(async move { engine.shutdown().await }).await;
        self.kill();
        match told {
            Ok(Ok(())) => Told::Answer(()),
            Ok(Err(error)) => Told::Refused(error),
            Err(_) => Told::Lost,
        }
    }
}

impl Opened {
    fn lives(&self) -> bool {
        self.process.alive.is_alive()
    }

    /// The newest epoch at which all can be read.
    pub async fn published(self) -> Told<Epoch> {
        self.ask(|engine: Engine| async move { Ok(engine.published()) })
            .await
    }

    /// Has something asked in the process.
    pub async fn ask<T, F>(self, question: impl FnOnce(Engine) -> F) -> Told<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.process.run(question(self.engine)).await {
            Ok(Ok(answer)) => Told::Answer(answer),
            Ok(Err(error)) => Told::Refused(error),
            Err(_) => Told::Lost,
        }
    }
}

/// Waits until a process has ended that said so; false if it does not.
pub async fn ended(process: &Process) -> bool {
    let began = machine::now();
    while process.alive.is_alive() && machine::elapsed(began) < ENDS_WITHIN {
        machine::sleep(Duration::from_millis(1)).await;
    }
    !process.alive.is_alive()
}
