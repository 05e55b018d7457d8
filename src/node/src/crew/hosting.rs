//! A node whose workers work for another one that leads: it takes orders, and reports.
//!
//! What it has is void when the link to the node that leads breaks, or nothing is heard on it for a
//! while: its workers end, and with them all rows. What they have stored by then carries their
//! incarnation, and no manifest of a later one names it.

use super::batches::BatchWriter;
use super::exchange::{Incoming, deliver};
use super::frames::{JobReport, Limits, Order, Report, decode_order};
use super::rows::{Change, Shown};
use super::terms::Terms;
use super::{
    MUSTER_PATIENCE, Muster, Numbers, OFFER_PATIENCE, SIGN_OF_LIFE, SILENCE_MAX, Site, Wants, gone,
    json, late, receive,
};
use crate::memory::Memory;
use crate::threads::spawn;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_common::config::Compression;
use tidemark_common::machine::Thread;
use tidemark_common::mailbox::{Sender, mailbox};
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, WorkerId, machine};
use tidemark_connector::kafka::set_fetch_budget;
use tidemark_control::inputs::{Input, Inputs};
use tidemark_control::protocol::Command;
use tidemark_control::raft::MemberId;
use tidemark_control::{Events, Readers, Stamped};
use tidemark_operator::build::SinkOutput;
use tidemark_plan::Relation;
use tidemark_state::manifest::SinkProgress;
use tidemark_worker::{
    ErrorTable, Figures, Inbound, KeptErrors, Load, Outbound, Peer, Pressure, Published, Recovery,
    Sinks, Storing, Surroundings, Worker,
};
use tokio::sync::{mpsc, watch};

/// What a sink has to send goes in pieces of this size, or little more.
const PIECE_BYTES: usize = 1 << 20;
/// How long the workers of an incarnation that has ended are waited for.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// Errors of one report.
const ERRORS_AT_ONCE: usize = 64;

/// What a host tells, in the order in which it is told.
type Reports = mpsc::UnboundedSender<Report>;

/// What a host has while it works.
struct Work {
    generation: u64,
    own: Range<WorkerId>,
    numbers: Arc<Numbers>,
    commands: Vec<Sender<Stamped<Command>>>,
    inboxes: Vec<Sender<Inbound>>,
    readers: Arc<Readers>,
    recovery: Arc<Recovery>,
    figures: Arc<Figures>,
    sinks: Arc<FarSinks>,
    shown: Arc<Shown>,
    /// The workers end at once, whatever they have to do.
    over: Arc<AtomicBool>,
    threads: Mutex<Vec<Thread>>,
    /// Ends with the work.
    _memory: Arc<Memory>,
}

/// Works for the node at the other end of the link, until that is gone.
pub(super) async fn work(site: &Arc<Site>, mut link: Link, terms: Terms) -> Result<()> {
    let (generation, offer) = (terms.generation, site.offer(&terms).await);
    if offer.refusal().is_some() {
        return link.sender.send(json(&offer)?).await;
    }
    {
        let mut newest = site.newest.lock();
        // It leads, or works for a later incarnation.
        if newest.is_none_or(|newest| newest >= generation) {
            return Ok(());
        }
        *newest = Some(generation);
    }
    // What it had for another incarnation goes first: it may be as much again.
    let ending = std::mem::take(&mut *site.ending.lock());
    let ended = async {
        for thread in ending {
            thread.ended().await;
        }
    };
    if machine::timeout(END_PATIENCE, ended).await.is_none() {
        tracing::debug!("workers of before have not ended yet");
    }
    link.sender.send(json(&offer)?).await?;
    let muster: Muster = receive(&mut link, OFFER_PATIENCE + MUSTER_PATIENCE).await?;
    tracing::info!(
        generation,
        workers = offer.workers,
        "this node works for the one that leads its cluster"
    );
    let (reports, told) = mpsc::unbounded_channel();
    let (ways, outbound): (Vec<_>, Vec<_>) = muster
        .nodes
        .iter()
        .map(|_| mpsc::unbounded_channel())
        .unzip();
    let work = Work::begin(site, &muster, &ways, &reports)?;
    drop(ways);
    let worked = work
        .run(site, &muster, link, outbound, (reports, told))
        .await;
    work.end(site);
    if let Err(error) = &worked {
        tracing::info!(generation, %error, "this node works no more for the one that led");
    }
    worked
}

impl Work {
    fn begin(
        site: &Arc<Site>,
        muster: &Muster,
        ways: &[mpsc::UnboundedSender<Outbound>],
        reports: &Reports,
    ) -> Result<Work> {
        let generation = muster.generation;
        let placement = Arc::new(muster.placement());
        let own = placement.workers_of(muster.you);
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            own.clone().map(|_| mailbox::<Inbound>()).unzip();
        let peers: Vec<Peer> = (0..placement.workers())
            .map(|worker| match own.contains(&worker) {
                true => Peer::Here(inboxes[worker - own.start].clone()),
                false => Peer::There(ways[placement.node_of(worker)].clone()),
            })
            .collect();
        let (events, inputs) = Events::new(generation);
        let errors: KeptErrors = Arc::new(Mutex::new(ErrorTable::that_passes_on()));
        report_events(inputs, errors.clone(), reports.clone())?;
        let (recovery, _) = Recovery::begin(Path::new(&site.config.data_dir))?;
        let recovery = Arc::new(recovery);
        let storing = Storing::new(site.store.clone(), generation);
        let readers = Readers::new();
        let figures = Arc::new(Figures::new(placement.workers()));
        let sinks = Arc::new(FarSinks {
            reports: reports.clone(),
            full: Mutex::default(),
        });
        let shown = Arc::new(shown(generation, &storing, &readers, reports));
        let (pressure, over) = (Arc::<Pressure>::default(), Arc::<AtomicBool>::default());
        set_fetch_budget(site.config.fetch_memory_bytes()?);
        let memory = Arc::new(Memory::new(
            site.config.memory_limit_bytes()?,
            pressure.clone(),
            Arc::new(Published::new(placement.clone())),
            figures.clone(),
            events.clone(),
        ));
        machine::spawn(Memory::watch(Arc::downgrade(&memory)));
        let around = Surroundings {
            load: Arc::new(Load::new(placement.workers())),
            placement,
            batch_rows_max: muster.batch_rows_max,
            events,
            readers: readers.clone(),
            published: shown.clone(),
            figures: figures.clone(),
            errors,
            recovery: recovery.clone(),
            storing,
            sinks: sinks.clone(),
            edge_bytes_max: muster.edge_bytes_max,
            pressure,
            outside: site.outside.clone(),
            over: over.clone(),
        };
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for (id, inbox) in own.clone().zip(receivers) {
            let (sender, receiver) = mailbox();
            commands.push(sender);
            let (around, peers) = (around.clone(), peers.clone());
            let reached = inboxes[id - own.start].clone();
            threads.push(spawn(format!("worker-{id}"), move || {
                Worker::new(id, around, receiver, inbox, reached, peers).run()
            })?);
        }
        Ok(Work {
            generation,
            own,
            numbers: Arc::default(),
            commands,
            inboxes,
            readers,
            recovery,
            figures,
            sinks,
            shown,
            over,
            threads: Mutex::new(threads),
            _memory: memory,
        })
    }

    /// Until the link breaks, or the node that leads says that it is over.
    async fn run(
        &self,
        site: &Arc<Site>,
        muster: &Muster,
        link: Link,
        outbound: Vec<mpsc::UnboundedReceiver<Outbound>>,
        (reports, told): (Reports, mpsc::UnboundedReceiver<Report>),
    ) -> Result<()> {
        site.incoming.send_replace(Some(Arc::new(Incoming {
            generation: self.generation,
            first: self.own.start,
            inboxes: self.inboxes.clone(),
            numbers: self.numbers.clone(),
            ended: watch::Sender::new(false),
        })));
        *site.shown.lock() = Some(self.shown.clone());
        let from = muster.you;
        let others = muster.nodes.iter().zip(outbound).enumerate();
        let others = others.filter(|(node, _)| *node != from);
        let mates = muster.nodes.iter().enumerate();
        let mates = mates.filter(|(node, _)| *node != from);
        let mates: Vec<MemberId> = mates.map(|(_, mate)| mate.member).collect();
        let found = others.map(async |(_, (mate, outbound))| {
            let wants = Wants::Exchange {
                generation: self.generation,
                from,
            };
            let link = machine::timeout(MUSTER_PATIENCE, site.connect(&mate.rpc, &wants)).await;
            Ok::<_, Error>((link.ok_or_else(late)??, outbound))
        });
        let links = futures::future::try_join_all(found).await?;
        let _ = reports.send(Report::Ready);
        let delivering = links.into_iter().map(|(link, outbound)| {
            let numbers = self.numbers.clone();
            Box::pin(deliver(link, outbound, numbers, muster.compression))
        });
        let delivering = async {
            let (ended, at, _others) = futures::future::select_all(delivering).await;
            let error = ended.err().unwrap_or_else(|| gone("has gone"));
            if mates[at] == muster.nodes[0].member {
                return Err(error);
            }
            // Who leads hears of it before this node goes: it is not this one that is lost.
            let _ = reports.send(Report::Lost {
                member: mates[at],
                error: error.to_string(),
            });
            machine::sleep(SILENCE_MAX).await;
            Err(error)
        };
        tokio::select! {
            ended = self.take_orders(site, link.receiver) => ended,
            sent = send_reports(link.sender, told, muster.compression) => sent,
            lost = delivering => lost,
            () = self.report_figures(&reports) => Ok(()),
        }
    }

    async fn take_orders(&self, site: &Site, mut receiver: Box<dyn LinkReceiver>) -> Result<()> {
        loop {
            let frame = machine::timeout(SILENCE_MAX, receiver.receive()).await;
            let Some(frame) = frame.ok_or_else(late)?? else {
                return Err(gone("has gone"));
            };
            if !site.works_for(self.generation) {
                return Err(gone("works for another one"));
            }
            match decode_order(&frame)? {
                None => {}
                Some(Order::Limits(limits)) => self.limit(limits),
                Some(Order::Forget(share)) => self.shown.forget_share(share),
                Some(Order::Expect(member)) => site.expect(member),
                Some(Order::Lost(member)) => site.lost(member),
                Some(Order::Command {
                    number,
                    to,
                    command,
                }) => {
                    self.numbers.take(number);
                    let is_last = matches!(command, Some(Command::Shutdown));
                    if let Some(command) = command {
                        self.command(to, command);
                    }
                    self.numbers.gave(number);
                    if is_last {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn command(&self, to: Option<WorkerId>, mut command: Command) {
        match &mut command {
            Command::Resume => self.recovery.end(),
            Command::Publish { needed } => {
                // A job that begins here reads as of an epoch that only this node knows.
                let mut all = needed.to_vec();
                all.extend(self.readers.pinned());
                all.sort_unstable();
                all.dedup();
                *needed = all.into();
            }
            _ => {}
        }
        for worker in self.own.clone() {
            if to.is_none_or(|to| to == worker) {
                self.send(worker, command.clone());
            }
        }
    }

    fn send(&self, worker: WorkerId, told: Command) {
        let (at, generation) = (worker - self.own.start, self.generation);
        // A worker that is gone means shutdown.
        let _ = self.commands[at].send(Stamped { generation, told });
        let _ = self.inboxes[at].send(Inbound::Wake);
    }

    fn limit(&self, limits: Limits) {
        let stalled = || {
            Error::unavailable(
                SqlState::IO_ERROR,
                "the log of the node that leads takes no entries",
            )
        };
        self.readers.set_log_error(limits.stalled.then(stalled));
        *self.sinks.full.lock() = limits.full.into_iter().collect();
    }

    /// Tells now and then how the jobs are, and that this node is there.
    async fn report_figures(&self, reports: &Reports) {
        loop {
            machine::sleep(SIGN_OF_LIFE).await;
            let jobs = self.figures.all();
            let jobs = jobs.into_iter().map(|(relation, figures)| {
                let memory = self.own.clone();
                let memory = memory.map(|worker| figures.memory[worker].load(Ordering::Relaxed));
                let mut memory: Vec<u64> = memory.collect();
                // What people read of it is nobody's in particular.
                let others = figures.memory_bytes().saturating_sub(memory.iter().sum());
                memory[0] += others;
                let trouble = figures.trouble.lock();
                JobReport {
                    relation,
                    rows: figures.rows.load(Ordering::Relaxed),
                    late: figures.late.load(Ordering::Relaxed),
                    memory,
                    trouble: trouble.iter().map(|(w, text)| (*w, text.clone())).collect(),
                }
            });
            if reports.send(Report::Figures(jobs.collect())).is_err() {
                return;
            }
        }
    }

    fn end(&self, site: &Site) {
        self.over.store(true, Ordering::Release);
        self.recovery.leave_off();
        for worker in self.own.clone() {
            self.send(worker, Command::Shutdown);
        }
        site.incoming.send_if_modified(|incoming| {
            let own = incoming.take_if(|i| i.generation == self.generation);
            let ended = own.map(|own| own.ended.send_replace(true));
            ended.is_some()
        });
        let mut shown = site.shown.lock();
        shown.take_if(|shown| shown.generation == self.generation);
        drop(shown);
        self.shown.end();
        *site.ending.lock() = std::mem::take(&mut *self.threads.lock());
    }
}

fn shown(generation: u64, storing: &Storing, readers: &Arc<Readers>, reports: &Reports) -> Shown {
    let reports = reports.clone();
    Shown::new(
        generation,
        storing.clone(),
        readers.clone(),
        move |change| {
            let report = match change {
                Change::Shown {
                    relation,
                    worker,
                    share,
                } => Report::Shown {
                    relation,
                    worker,
                    share,
                },
                Change::Withdrawn(relation) => Report::Withdrawn { relation },
            };
            let _ = reports.send(report);
        },
    )
}

/// Passes on what happens, behind the errors that were met before.
fn report_events(inputs: Inputs, errors: KeptErrors, reports: Reports) -> Result<()> {
    let report = move || {
        while let Ok(input) = inputs.recv_until(None) {
            let Input::Event(event) = input else {
                continue;
            };
            let met = errors.lock().take();
            for met in met.chunks(ERRORS_AT_ONCE) {
                let _ = reports.send(Report::Errors(met.to_vec()));
            }
            if reports.send(Report::Event(event)).is_err() {
                return;
            }
        }
    };
    spawn("reports".into(), report).map(drop)
}

async fn send_reports(
    mut sender: Box<dyn LinkSender>,
    mut told: mpsc::UnboundedReceiver<Report>,
    compression: Compression,
) -> Result<()> {
    let mut batches = BatchWriter::new(compression);
    while let Some(report) = told.recv().await {
        let frame: Bytes = report.encode(&mut batches)?;
        sender.send(frame).await?;
    }
    Ok(())
}

/// Changes in pieces of [`PIECE_BYTES`] or little more.
fn in_pieces(changes: Vec<ChangeBatch>) -> Vec<Vec<ChangeBatch>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for batch in changes {
        if bytes > PIECE_BYTES {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += batch.bytes();
        pieces.last_mut().expect("there is one").push(batch);
    }
    pieces
}

/// The sinks, which are all on the node that leads.
struct FarSinks {
    reports: Reports,
    /// What full ones read, each with the name of one.
    full: Mutex<BTreeMap<RelationId, String>>,
}

impl Sinks for FarSinks {
    fn open(
        &self,
        relation: &Arc<Relation>,
        _: Option<(&SinkProgress, Epoch)>,
    ) -> Result<SinkOutput> {
        let (reports, relation) = (self.reports.clone(), relation.id);
        Ok(Box::new(move |epoch, changes, hash| {
            // Pieces of an epoch are put together; their hashes are added up.
            let mut hash = Some(hash);
            for changes in in_pieces(changes) {
                let _ = reports.send(Report::Sink {
                    relation,
                    epoch,
                    hash: hash.take().unwrap_or_default(),
                    changes,
                });
            }
        }))
    }

    fn count_from(&self, relation: RelationId, epoch: Epoch) {
        let _ = self.reports.send(Report::SinkCounts { relation, epoch });
    }

    fn cover(&self, relation: RelationId, epoch: Epoch) {
        let _ = self.reports.send(Report::SinkCovers { relation, epoch });
    }

    /// The node that leads hears of it as all workers do.
    fn end(&self, _: RelationId) {}

    fn full_one_behind(&self, source: RelationId) -> Option<String> {
        self.full.lock().get(&source).cloned()
    }
}
