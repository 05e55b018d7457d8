//! How a node opens: it takes the folder and the store, reads the log and the last checkpoint, puts
//! its parts together and starts their threads. Reads open when the decided epochs are replayed.

use super::following::follow_sources;
use super::idle::look_for_idle;
use super::{Engine, Node};
use crate::checkpoints::Checkpoints;
use crate::cluster::{Doorway, Membership, Seat};
use crate::crew::{Crew, Ears, Site};
use crate::full::FullSinks;
use crate::memory::Memory;
use crate::ownership::{self, DataFolder, LogKnowledge};
use crate::pool::Pool;
use crate::sinks::{self, SinkQueues};
use crate::store::{Claim, tell_trouble, tidy_up, watch_claim};
use crate::threads::spawn;
use crate::writes::TableWriters;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::machine::{self, Thread};
use tidemark_common::mailbox::mailbox;
use tidemark_common::network::Network;
use tidemark_common::{Error, Result, WorkerId};
use tidemark_connector::kafka::set_fetch_budget;
use tidemark_connector::{Connectors, Outside, RealConnectors, Vault, vault};
use tidemark_control::coordinator::recovery::{Past, Recovered};
use tidemark_control::coordinator::{Coordinator, Pace};
use tidemark_control::inputs::Inputs;
use tidemark_control::raft::not_leading;
use tidemark_control::{DecisionLog, Events, Readers, RowFiles};
use tidemark_plan::Catalog;
use tidemark_state::checkpoint::{CheckpointStore, StoreHealth};
use tidemark_worker::{
    ErrorTable, Figures, Inbound, KeptErrors, Load, Peer, Pressure, Published, Reading, Recovery,
    Storing, Surroundings, Worker,
};
use tokio::sync::oneshot;

/// What a node reaches beside its machine.
pub struct Services {
    /// The checkpoint store; none: that of the configuration.
    pub store: Option<CheckpointStore>,
    /// Of that one: says from the beginning on whether it answers. What is opened waits for it.
    pub health: Arc<StoreHealth>,
    /// Who opens connectors.
    pub connectors: Arc<dyn Connectors>,
    /// The way to other nodes; none: there can be none.
    pub network: Option<Arc<dyn Network>>,
    /// Of the clients whom nodes hand on to each other; it is ready while the engine opens.
    pub doorway: Doorway,
}

impl Default for Services {
    fn default() -> Services {
        Services {
            store: None,
            health: Arc::default(),
            connectors: Arc::new(RealConnectors),
            network: None,
            doorway: Doorway::default(),
        }
    }
}

impl Engine {
    /// Opens the data folder (takes its lock), restores and replays. Returns when reads may open.
    /// Must be called within a tokio runtime.
    pub async fn open(config: &Config) -> Result<Engine> {
        Engine::open_with(config, Services::default()).await
    }

    /// The same, with other services than those that the configuration names.
    pub async fn open_with(config: &Config, services: Services) -> Result<Engine> {
        let doorway = services.doorway.clone();
        let opened = Engine::open_node(config, services).await;
        if let Err(error) = &opened
            && doorway.lost_the_lead()
        {
            // What it found is another node's work.
            tracing::warn!(%error, "this node leads its cluster no more: it starts anew");
            machine::exit(machine::RESTART);
        }
        opened
    }

    async fn open_node(config: &Config, services: Services) -> Result<Engine> {
        let mut config = config.clone();
        if config.workers == 0 {
            config.workers = std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(tidemark_common::VNODES);
        }
        let data = DataFolder::lock(Path::new(&config.data_dir))?;
        let folder = data.path().to_path_buf();
        let given = std::env::var(vault::KEY_VARIABLE).ok();
        let outside = Outside {
            vault: Vault::open(given.as_deref(), &config.secret_key_file, &folder)?.into(),
            connectors: services.connectors,
        };
        if config.checkpoint_url.is_empty() {
            config.checkpoint_url = format!("file://{}", folder.join("checkpoints").display());
        }
        let store = match services.store {
            Some(store) => store,
            None => CheckpointStore::open_noting(&config.checkpoint_url, services.health)?,
        };
        machine::spawn(tell_trouble(&store, folder.join("log")));
        let recover = config.recover_from_checkpoint;
        let (seat, log) = Seat::take(&config, &data, services.network, &services.doorway).await?;
        // A node alone looks at its store before it writes anything; others have been told whose
        // it is, and look at it when they lead.
        let (seat, log) = match seat.is_alone() {
            true => (Ok(seat), log),
            false => {
                let (membership, encoder) = seat.sit(&log.entries)?;
                let site = Site::open(&membership, &config, &outside, &store);
                membership.leads().await?;
                site.close();
                let log = membership.log().await?;
                (Err((membership, encoder, site)), log)
            }
        };
        let of_group = seat.is_err();
        // A log of which a part is lost says nothing about who is ahead, folder or store.
        let is_lost = log.loss.is_some();
        let entries = match &log.loss {
            Some(loss) => {
                tracing::error!(%loss, "the log is not whole, and its loss is accepted");
                &[]
            }
            None => &log.entries[..],
        };
        let known = LogKnowledge {
            entries,
            is_lost,
            is_new: log.is_new,
            of_group,
        };
        let looked = ownership::look(&data, &store.waiting(), &known, recover).await?;
        let past = Past {
            entries: log.entries.clone(),
            follows: log.follows,
            loss: is_lost,
            accept_loss: recover || is_lost,
        };
        let mut recovered = Recovered::read(past, &store.patient()).await?;
        check_key(&outside.vault, &recovered.decisions.catalog)?;
        ownership::report_loss(&recovered, recover);
        if let Err((membership, ..)) = &seat {
            membership.sure().await?;
        }
        let owned = looked.claim(&data, &store.patient(), &recovered).await?;
        recovered.generation = owned.lineage.own().generation;
        let (membership, encoder, site) = match seat {
            Ok(seat) => {
                let (membership, encoder) = seat.sit(&log.entries)?;
                let site = Site::open(&membership, &config, &outside, &store);
                site.close();
                (membership, encoder, site)
            }
            Err(sits) => sits,
        };
        membership.leads().await?;
        membership.is_named(&owned.cluster);
        tidy_up(&store, &owned.lineage).await?;
        let (recovery, suspects) = Recovery::begin(&folder)?;
        recovered.suspects = suspects;
        let errors = restored_errors(&recovered, &store.patient()).await;
        let next_id = recovered.decisions.catalog.next_id.max(1);
        let pace = Pace {
            epoch: Duration::from_millis(config.epoch_ms),
            checkpoint: Duration::from_millis(config.checkpoint_ms),
            snapshot_age_max: (config.snapshot_age_max_ms > 0)
                .then(|| Duration::from_millis(config.snapshot_age_max_ms)),
        };
        let storing = Storing::new(store.clone(), recovered.generation);
        let own_claim = owned.lineage.own().clone();
        let claim = Arc::new(Claim {
            lineage: owned.lineage,
            membership: membership.clone(),
        });
        let sealed = all_sealed(&recovered.decisions.catalog).next().cloned();
        let crew = Arc::new(Crew::gather(&site, &own_claim, sealed).await?);
        let (node, inputs, full) = Node::new(
            config,
            crew.clone(),
            owned.cluster,
            storing,
            &claim,
            errors,
            outside,
            encoder.row_files(),
            membership.clone(),
        )?;
        *node.lock.lock() = Some(data.into_lock());
        node.next_id.store(next_id, Ordering::Relaxed);
        let recovery = Arc::new(recovery);
        // Also when it is left: a start that fails with an error, or that a signal ends, has not
        // died.
        let ended = EndRecovery(recovery.clone());
        let (pool, mut threads) = node.start_workers(&recovery, full).await?;
        let (ready, opened) = oneshot::channel();
        let readers = node.readers.clone();
        let trouble = readers.clone();
        membership.tell_trouble(move |error| trouble.set_log_error(error));
        let log = Box::new(membership.replicated(encoder));
        threads.push(start_coordinator(
            log, recovered, readers, pool, pace, inputs, ready,
        )?);
        opened
            .await
            .map_err(|_| Error::internal("the coordinator ended before it opened"))??;
        drop(ended);
        crew.opened();
        *node.threads.lock() = threads;
        let node = Arc::new(node);
        machine::spawn(follow_sources(Arc::downgrade(&node)));
        machine::spawn(look_for_idle(Arc::downgrade(&node)));
        machine::spawn(watch_claim(store, Arc::downgrade(&claim)));
        machine::spawn(Memory::watch(Arc::downgrade(&node.memory)));
        Ok(Engine { node })
    }
}

/// Whether what is sealed in the catalog can be opened: nothing was changed so far, and the right
/// key finds all as it was.
fn check_key(vault: &Vault, catalog: &Catalog) -> Result<()> {
    for secret in &catalog.secrets {
        vault
            .unseal(&secret.sealed)
            .map_err(|e| e.context(format!("secret \"{}\"", secret.name.name)))?;
    }
    for relation in catalog.relations.values() {
        let hidden = relation.connector.iter().flat_map(|c| &c.hidden);
        for (option, hidden) in hidden {
            vault.unseal(&hidden.sealed).map_err(|e| {
                let (kind, name) = (relation.kind.name(), &relation.name);
                e.context(format!("option \"{option}\" of {kind} \"{name}\""))
            })?;
        }
    }
    Ok(())
}

/// Everything in the catalog that is sealed with the key.
fn all_sealed(catalog: &Catalog) -> impl Iterator<Item = &String> {
    let connectors = catalog.relations.values();
    let connectors = connectors.flat_map(|relation| &relation.connector);
    let hidden = connectors.flat_map(|connector| connector.hidden.values());
    let secrets = catalog.secrets.iter().map(|secret| &secret.sealed);
    secrets.chain(hidden.map(|hidden| &hidden.sealed))
}

impl Node {
    /// Its parts, without threads, and where the coordinator takes in what it is told.
    fn new(
        config: Config,
        crew: Arc<Crew>,
        cluster: String,
        storing: Storing,
        claim: &Arc<Claim>,
        errors: ErrorTable,
        outside: Outside,
        files: Arc<RowFiles>,
        membership: Membership,
    ) -> Result<(Node, Inputs, Arc<FullSinks>)> {
        let (events, inputs) = Events::new(storing.generation);
        let placement = crew.placement().clone();
        let workers = placement.workers();
        let readers = Readers::new();
        let published = Arc::new(Published::new(placement.clone()));
        let figures = Arc::new(Figures::new(workers));
        let errors: KeptErrors = Arc::new(Mutex::new(errors));
        let full = Arc::new(FullSinks::default());
        let checkpoints = Checkpoints::new(
            storing.clone(),
            claim.clone(),
            events.clone(),
            errors.clone(),
        );
        let pressure = Arc::<Pressure>::default();
        let writers = Arc::new(TableWriters::new(
            events.clone(),
            readers.clone(),
            published.clone(),
            full.clone(),
            pressure.clone(),
            files,
        ));
        let sinks = SinkQueues::new(sinks::Surroundings {
            cluster: cluster.clone(),
            storing: storing.clone(),
            readers: readers.clone(),
            published: published.clone(),
            figures: figures.clone(),
            errors: errors.clone(),
            events: events.clone(),
            writers: writers.clone(),
            full: full.clone(),
            outside: outside.clone(),
        });
        set_fetch_budget(config.fetch_memory_bytes()?);
        let memory = Memory::new(
            config.memory_limit_bytes()?,
            pressure.clone(),
            published.clone(),
            figures.clone(),
            events.clone(),
        );
        let reading = Reading {
            placement,
            batch_rows_max: config.batch_rows_max,
            figures: figures.clone(),
            errors: errors.clone(),
            outside,
        };
        let node = Node {
            crew,
            load: Arc::new(Load::new(workers)),
            pressure,
            memory: Arc::new(memory),
            reading,
            config,
            cluster,
            events,
            readers,
            published,
            figures,
            errors,
            storing,
            checkpoints: Arc::new(checkpoints),
            sinks: Arc::new(sinks),
            writers,
            membership,
            next_id: AtomicU32::default(),
            threads: Mutex::default(),
            lock: Mutex::default(),
        };
        Ok((node, inputs, full))
    }

    /// The workers of this node, and the way to those of others.
    async fn start_workers(
        &self,
        recovery: &Arc<Recovery>,
        full: Arc<FullSinks>,
    ) -> Result<(Pool, Vec<Thread>)> {
        let placement = self.crew.placement();
        let own = placement.workers_of(0);
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            own.clone().map(|_| mailbox::<Inbound>()).unzip();
        let ears = Ears {
            events: self.events.clone(),
            published: self.published.clone(),
            figures: self.figures.clone(),
            errors: self.errors.clone(),
            sinks: self.sinks.clone(),
            readers: self.readers.clone(),
            full,
        };
        let ways = match self.crew.begin(inboxes.clone(), ears).await {
            Ok(ways) => ways,
            Err(error) => {
                tracing::warn!(%error, "the nodes do not find each other: this one starts anew");
                self.crew.begin_anew(None).await;
                return Err(error);
            }
        };
        let peer = |worker: WorkerId| match &ways[placement.node_of(worker)] {
            None => Peer::Here(inboxes[worker].clone()),
            Some(way) => Peer::There(way.clone()),
        };
        let peers: Vec<Peer> = (0..placement.workers()).map(peer).collect();
        let around = Surroundings {
            placement: placement.clone(),
            batch_rows_max: self.config.batch_rows_max,
            events: self.events.clone(),
            readers: self.readers.clone(),
            published: self.published.clone(),
            figures: self.figures.clone(),
            errors: self.errors.clone(),
            recovery: recovery.clone(),
            storing: self.storing.clone(),
            sinks: self.sinks.clone(),
            load: self.load.clone(),
            edge_bytes_max: self.config.edge_bytes_max,
            pressure: self.pressure.clone(),
            outside: self.reading.outside.clone(),
            over: Arc::default(),
        };
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for (id, inbox) in receivers.into_iter().enumerate() {
            let (sender, receiver) = mailbox();
            commands.push(sender);
            let (around, peers) = (around.clone(), peers.clone());
            let reached = inboxes[id].clone();
            threads.push(spawn(format!("worker-{id}"), move || {
                Worker::new(id, around, receiver, inbox, reached, peers).run()
            })?);
        }
        let pool = Pool {
            crew: self.crew.clone(),
            commands,
            inboxes,
            events: self.events.clone(),
            published: self.published.clone(),
            figures: self.figures.clone(),
            errors: self.errors.clone(),
            recovery: recovery.clone(),
            storing: self.storing.clone(),
            checkpoints: self.checkpoints.clone(),
            sinks: self.sinks.clone(),
            writers: self.writers.clone(),
        };
        Ok((pool, threads))
    }
}

/// The errors that the last checkpoint holds. They are diagnostics: what cannot be read is
/// reported, and the database opens without.
async fn restored_errors(recovered: &Recovered, store: &CheckpointStore) -> ErrorTable {
    let mut errors = ErrorTable::default();
    let Some(file) = recovered.manifest.as_ref().and_then(|m| m.errors.clone()) else {
        return errors;
    };
    let running = recovered.running();
    match store.read_errors(&file).await {
        Ok(kept) => errors.restore(file, kept, |id| {
            running.contains(&id) || recovered.decisions.catalog.relations.contains_key(&id)
        }),
        Err(error) => {
            tracing::error!(file = %file.path, %error, "the errors of before the last checkpoint \
                cannot be read: tidemark.errors goes on without them")
        }
    }
    errors
}

/// Ends the notes of recovery when it is dropped.
struct EndRecovery(Arc<Recovery>);

impl Drop for EndRecovery {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn start_coordinator(
    log: Box<dyn DecisionLog>,
    recovered: Recovered,
    readers: Arc<Readers>,
    pool: Pool,
    pace: Pace,
    inputs: Inputs,
    ready: oneshot::Sender<Result<()>>,
) -> Result<Thread> {
    spawn("coordinator".into(), move || {
        let opened = Coordinator::recover(log, recovered, readers, Box::new(pool), pace)
            .and_then(|mut coordinator| coordinator.run(&inputs).map(|()| coordinator));
        match opened {
            Ok(mut coordinator) => {
                let _ = ready.send(Ok(()));
                if let Err(error) = coordinator.run(&inputs) {
                    if error.state() == not_leading().state() {
                        tracing::warn!("this node leads its cluster no more: it starts anew");
                        machine::exit(machine::RESTART);
                    }
                    tracing::error!(%error, "the log cannot be written: nothing can be decided any \
                        more");
                    // Whoever waits must not wait for ever, and nothing may be answered that was
                    // not decided.
                    machine::exit(1);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })
}
