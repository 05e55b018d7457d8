//! The crew as the node that leads has it: it gathers the others, gives orders to them, and takes
//! in what they report.

use super::batches::BatchReader;
use super::exchange::{Incoming, deliver};
use super::frames::{
    JobReport, Limits, Report, encode_command, encode_expect, encode_limits, encode_lost,
};
use super::rows::{FarShare, RowsOf};
use super::terms::{Offer, Terms, chosen};
use super::{
    LOST_PATIENCE, MUSTER_PATIENCE, Mate, Muster, Numbers, OFFER_PATIENCE, Presence, SIGN_OF_LIFE,
    SILENCE_MAX, Site, Wants, gone, json, late, receive,
};
use crate::cluster::{GroupStatus, NEAR, NodeStatus, Role};
use crate::full::FullSinks;
use crate::sinks::SinkQueues;
use crate::threads::spawn;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidemark_common::mailbox::Sender;
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Error, RelationId, Result, VNODES, WorkerId, machine};
use tidemark_control::protocol::Command;
use tidemark_control::raft::MemberId;
use tidemark_control::{Events, Placement, Readers};
use tidemark_state::checkpoint::owner::Claim;
use tidemark_worker::{Figures, Inbound, KeptErrors, Outbound, Published, Share, Shows, Sinks};
use tokio::sync::{mpsc, watch};

/// How long a node must be there before the crew is gathered anew with it.
const SETTLED: Duration = Duration::from_secs(1);
/// The pause before an expected node is asked again.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// How long the hand-over of the lead may take, when a node is lost.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);

/// The nodes that work for this one, and this one, which is the first. Of a node alone only that.
pub struct Crew {
    site: Arc<Site>,
    terms: Terms,
    muster: Muster,
    placement: Arc<Placement>,
    numbers: Arc<Numbers>,
    /// Orders are numbered and sent to all under this lock.
    last: Mutex<u64>,
    /// The other nodes.
    hosts: Vec<Host>,
    /// The jobs that were started and not stopped since: what is told of others comes too late.
    started: Mutex<HashSet<RelationId>>,
    /// It ends in order.
    is_over: AtomicBool,
    /// The work begins anew.
    begins_anew: AtomicBool,
}

/// Another node of the crew.
struct Host {
    mate: Mate,
    workers: Range<WorkerId>,
    orders: mpsc::UnboundedSender<Bytes>,
    /// Until the crew begins.
    link: Mutex<Option<(Link, mpsc::UnboundedReceiver<Bytes>)>>,
    rows: Arc<RowsOf>,
}

/// What the reports of other nodes are told to.
pub struct Ears {
    /// The coordinator.
    pub events: Events,
    /// Where rows are shown.
    pub published: Arc<Published>,
    /// Where rows are counted.
    pub figures: Arc<Figures>,
    /// Where errors are kept.
    pub errors: KeptErrors,
    /// The sinks.
    pub sinks: Arc<SinkQueues>,
    /// Whether the log takes entries.
    pub readers: Arc<Readers>,
    /// Which sinks are full.
    pub full: Arc<FullSinks>,
}

impl Crew {
    /// Asks all members that are not drained for their workers; those that do not answer soon are
    /// left out.
    pub async fn gather(site: &Arc<Site>, claim: &Claim, sealed: Option<String>) -> Result<Crew> {
        let generation = claim.generation;
        let config = &site.config;
        let status = site.membership.status();
        let mut others: Vec<_> = status.nodes.iter().collect();
        others.retain(|node| node.member != status.member && !node.is_drained);
        // Who is known to be away, or starts anew, need not be reached by those who are there.
        // (Who was lost may be so only to one of them, which finds that out.)
        let there = |node: &&&NodeStatus| {
            node.answers != Some(false) && site.presence(node.member) != Presence::Expected
        };
        let there = others.iter().filter(there);
        let mates = there.map(|node| (node.member, node.addresses.rpc.clone()));
        let own = Mate {
            member: status.member,
            rpc: config.rpc_address().into(),
            workers: config.workers,
        };
        let terms = Terms {
            generation,
            nonce: claim.nonce.clone(),
            sealed,
            mates: mates.chain([(own.member, own.rpc.clone())]).collect(),
        };
        let asked = others.into_iter();
        let asked = asked.map(async |node| {
            let rpc = node.addresses.rpc.clone();
            let reached_in = match site.presence(node.member) {
                Presence::Lost => LOST_PATIENCE,
                Presence::Expected | Presence::Unknown => OFFER_PATIENCE,
            };
            let asked = loop {
                let wants = Wants::Work(terms.clone());
                let asked = async {
                    let link = machine::timeout(reached_in, site.connect(&rpc, &wants));
                    let mut link = link.await.ok_or_else(late)??;
                    // It looks at its store, and ends what it had before.
                    let offer: Offer = receive(&mut link, 2 * OFFER_PATIENCE).await?;
                    Ok::<_, Error>((link, offer))
                };
                let asked = asked.await;
                if asked.is_ok() || site.presence(node.member) != Presence::Expected {
                    break asked;
                }
                machine::sleep(ASKED_AGAIN).await;
            };
            let told = asked.inspect_err(|error| {
                tracing::info!(node = node.member, %error, "another node does not work here");
            });
            let (link, offer) = told.ok()?;
            if let Some(reason) = offer.refusal() {
                let node = node.member;
                tracing::warn!(node, reason, "another node has no part of the work");
            }
            let mate = Mate {
                member: node.member,
                rpc,
                workers: offer.workers,
            };
            Some((mate, link, offer))
        });
        let found = futures::future::join_all(asked).await;
        let offered = found.into_iter().flatten().collect();
        let (hosts, links): (Vec<_>, Vec<_>) = chosen(&own, offered).into_iter().unzip();
        let nodes = std::iter::once(own).chain(hosts).collect();
        let muster = Muster {
            generation,
            nodes,
            you: 0,
            batch_rows_max: config.batch_rows_max,
            edge_bytes_max: config.edge_bytes_max,
            compression: config.rpc_compression,
        };
        let placement = Arc::new(muster.placement());
        let mates = muster.nodes.iter().enumerate().skip(1);
        let host = |((node, mate), link): ((usize, &Mate), Link)| {
            let (orders, given) = mpsc::unbounded_channel();
            let rows = RowsOf::new(site.clone(), mate.rpc.clone(), generation, orders.clone());
            Host {
                mate: mate.clone(),
                workers: placement.workers_of(node),
                orders,
                link: Mutex::new(Some((link, given))),
                rows: Arc::new(rows),
            }
        };
        let hosts = mates.zip(links).map(host).collect();
        Ok(Crew {
            site: site.clone(),
            terms,
            muster,
            placement,
            numbers: Arc::default(),
            last: Mutex::new(0),
            hosts,
            started: Mutex::default(),
            is_over: AtomicBool::new(false),
            begins_anew: AtomicBool::new(false),
        })
    }

    /// Who does what.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// Whether other nodes have a part of the work.
    pub fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// The workers of each node.
    pub fn workers(&self) -> impl Iterator<Item = (MemberId, Range<WorkerId>)> {
        let nodes = self.muster.nodes.iter().enumerate();
        nodes.map(|(at, node)| (node.member, self.placement.workers_of(at)))
    }

    /// Tells all who belongs to the crew, and waits until they have found each other. `inboxes`: of
    /// the workers of this node. Returns the ways to the workers of each node.
    pub async fn begin(
        self: &Arc<Self>,
        inboxes: Vec<Sender<Inbound>>,
        ears: Ears,
    ) -> Result<Vec<Option<mpsc::UnboundedSender<Outbound>>>> {
        let generation = self.muster.generation;
        self.site.incoming.send_replace(Some(Arc::new(Incoming {
            generation,
            first: 0,
            inboxes,
            numbers: self.numbers.clone(),
            ended: watch::Sender::new(false),
        })));
        let ears = Arc::new(ears);
        let begun = self.hosts.iter().enumerate().map(async |(at, host)| {
            let link = host.link.lock().take();
            let (mut link, orders) = link.ok_or_else(|| Error::internal("a crew begins once"))?;
            let muster = Muster {
                you: at + 1,
                ..self.muster.clone()
            };
            link.sender.send(json(&muster)?).await?;
            let wants = Wants::Exchange {
                generation,
                from: 0,
            };
            let exchange = self.site.connect(&host.mate.rpc, &wants).await?;
            let ready = link
                .receiver
                .receive()
                .await?
                .ok_or_else(|| gone("has gone"))?;
            if !matches!(
                Report::decode(&ready, &mut BatchReader::default())?,
                Some(Report::Ready)
            ) {
                return Err(gone("says something else"));
            }
            let Link {
                sender, receiver, ..
            } = link;
            // It hears from this node from now on, though others may not be ready yet.
            let (crew, member) = (self.clone(), host.mate.member);
            machine::spawn_apart(async move {
                if let Err(error) = send_orders(sender, orders).await {
                    crew.lose(member, &error).await;
                }
            });
            Ok::<_, Error>((receiver, exchange))
        });
        let begun = machine::timeout(MUSTER_PATIENCE, futures::future::try_join_all(begun)).await;
        let mut ways = vec![None];
        for (at, (receiver, exchange)) in begun.ok_or_else(late)??.into_iter().enumerate() {
            let (way, outbound) = mpsc::unbounded_channel();
            ways.push(Some(way));
            let (crew, member) = (self.clone(), self.hosts[at].mate.member);
            machine::spawn(async move {
                let (numbers, compression) = (crew.numbers.clone(), crew.muster.compression);
                if let Err(error) = deliver(exchange, outbound, numbers, compression).await {
                    crew.lose(member, &error).await;
                }
            });
            self.hear(at, receiver, &ears)?;
        }
        if !self.hosts.is_empty() {
            let nodes: Vec<MemberId> = self.muster.nodes.iter().map(|n| n.member).collect();
            tracing::info!(generation, ?nodes, "these nodes work together");
            machine::spawn(tell_limits(Arc::downgrade(self), ears));
        }
        Ok(ways)
    }

    /// What it does can be read: from now on other nodes may join it. What is under way before that
    /// is not begun anew for anybody who comes.
    pub fn opened(self: &Arc<Self>) {
        machine::spawn(watch_members(Arc::downgrade(self)));
    }

    /// A command for one worker or all, as far as they are on other nodes. It is sent before the
    /// workers of this node are given it.
    pub fn order(&self, to: Option<WorkerId>, command: &Command) {
        if self.hosts.is_empty() {
            return;
        }
        match command {
            Command::Start(start) => {
                self.started.lock().insert(start.relation.id);
            }
            Command::Stop { relations, .. } => {
                let mut started = self.started.lock();
                started.retain(|id| !relations.contains(id));
            }
            Command::Shutdown => self.is_over.store(true, Ordering::Release),
            _ => {}
        }
        let mut last = self.last.lock();
        *last += 1;
        let number = *last;
        self.numbers.take(number);
        self.numbers.gave(number);
        let only_number = encode_command(number, to, None);
        let whole = encode_command(number, to, Some(command));
        for host in &self.hosts {
            let is_for = to.is_none_or(|worker| host.workers.contains(&worker));
            match if is_for { &whole } else { &only_number } {
                Ok(frame) => drop(host.orders.send(frame.clone())),
                Err(error) => {
                    tracing::error!(%error, "a command cannot be sent");
                    machine::exit(1);
                }
            }
        }
    }

    /// Takes in what a host reports, in a thread.
    fn hear(
        self: &Arc<Self>,
        at: usize,
        mut receiver: Box<dyn LinkReceiver>,
        ears: &Arc<Ears>,
    ) -> Result<()> {
        let (crew, ears) = (self.clone(), ears.clone());
        let host = &self.hosts[at];
        let member = host.mate.member;
        let mut hearing = Hearing {
            workers: host.workers.clone(),
            rows: host.rows.clone(),
            ears,
            counted: HashMap::new(),
        };
        let hear = move || {
            let mut batches = BatchReader::default();
            let heard = loop {
                let receiving = machine::timeout(SILENCE_MAX, receiver.receive());
                let report = match machine::block_on(receiving) {
                    None => break Err(gone("is silent")),
                    Some(Ok(None)) => break Err(gone("has gone")),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(Some(frame))) => Report::decode(&frame, &mut batches),
                };
                let taken = report.and_then(|report| match report {
                    Some(report) => hearing.take(&crew, report),
                    None => Ok(()),
                });
                if taken.is_err() {
                    break taken;
                }
            };
            if let Err(error) = heard {
                machine::block_on(crew.lose(member, &error));
            }
        };
        spawn(format!("crew-{member}"), hear).map(drop)
    }

    /// A node is lost: this one hands the lead over and starts anew, without it. Others that are
    /// lost after the first are so because the work ends.
    async fn lose(&self, member: MemberId, error: &(impl std::fmt::Display + Sync)) {
        let is_over = &self.is_over;
        if is_over.load(Ordering::Acquire) || self.begins_anew.load(Ordering::Acquire) {
            return;
        }
        tracing::warn!(node = member, %error, "a node that works for this one is lost: the work \
            begins anew");
        self.begin_anew(Some(member)).await;
    }

    /// This node hands the lead over, if somebody takes it (not the one that is lost, if one is),
    /// and starts anew: it does not return. Only the first call counts: it says who is lost.
    pub async fn begin_anew(&self, lost: Option<MemberId>) {
        if self.begins_anew.swap(true, Ordering::AcqRel) {
            return std::future::pending().await;
        }
        let (own, status) = (self.muster.nodes[0].member, self.site.membership.status());
        if !status.is_drained(own) {
            for host in &self.hosts {
                let _ = host.orders.send(encode_expect(own));
            }
        }
        // Nor is one waited for that is silent.
        if let Some(lost) = lost {
            for host in &self.hosts {
                let _ = host.orders.send(encode_lost(lost));
            }
        }
        // Those who know that this one comes back; others would begin without it, and once more
        // with it.
        let hosts = self.hosts.iter().map(|host| host.mate.member);
        let can = |host: &MemberId| Some(*host) != lost && !status.is_drained(*host);
        let told = hosts.filter(can).collect();
        let leaves = self.site.membership.leave(told);
        if machine::timeout(HAND_OVER_PATIENCE, leaves).await.is_none() {
            tracing::debug!("no other node takes the lead");
        }
        machine::exit(machine::RESTART);
    }
}

async fn send_orders(
    mut sender: Box<dyn LinkSender>,
    mut orders: mpsc::UnboundedReceiver<Bytes>,
) -> Result<()> {
    loop {
        match machine::timeout(SIGN_OF_LIFE, orders.recv()).await {
            Some(Some(frame)) => sender.send(frame).await?,
            Some(None) => return Ok(()),
            None => sender.send(Bytes::new()).await?,
        }
    }
}

/// Tells the other nodes what holds up their sources, when that changes.
async fn tell_limits(crew: Weak<Crew>, ears: Arc<Ears>) {
    let mut told = Limits::default();
    loop {
        machine::sleep(SIGN_OF_LIFE).await;
        let Some(crew) = crew
            .upgrade()
            .filter(|c| !c.is_over.load(Ordering::Acquire))
        else {
            return;
        };
        let limits = Limits {
            stalled: ears.readers.is_stalled(),
            full: ears.full.fed(),
        };
        if limits != told
            && let Ok(frame) = encode_limits(&limits)
        {
            for host in &crew.hosts {
                let _ = host.orders.send(frame.clone());
            }
            told = limits;
        }
    }
}

impl Crew {
    /// What a node says to these terms; none if it does not answer.
    async fn asked(&self, rpc: &str, terms: Terms) -> Option<Offer> {
        let asked = async {
            let mut link = self.site.connect(rpc, &Wants::Offer(terms)).await?;
            receive::<Offer>(&mut link, OFFER_PATIENCE).await
        };
        machine::timeout(OFFER_PATIENCE, asked).await?.ok()
    }

    /// Whether a node could work with all of this crew: it reaches them, and they reach it.
    async fn could_have(&self, node: &NodeStatus) -> bool {
        let mates = self.muster.nodes.iter();
        let terms = |mates| Terms {
            mates,
            ..self.terms.clone()
        };
        let crew = terms(mates.map(|m| (m.member, m.rpc.clone())).collect());
        let there = vec![(node.member, node.addresses.rpc.clone())];
        let has: usize = self.muster.nodes.iter().map(|node| node.workers).sum();
        let offer = self.asked(&node.addresses.rpc, crew).await;
        if !offer.is_some_and(|o| o.unreached.is_empty() && o.fits(VNODES - has)) {
            return false;
        }
        let hosts = self.hosts.iter();
        let asked = hosts.map(|host| self.asked(&host.mate.rpc, terms(there.clone())));
        let offers = futures::future::join_all(asked).await;
        let reach = |offer: &Option<Offer>| offer.as_ref().is_some_and(|o| o.unreached.is_empty());
        offers.iter().all(reach)
    }
}

/// Whether a node of the crew is to have no part of the work any more, and need not have.
fn has_drained(crew: &Crew, status: &GroupStatus) -> bool {
    let mut nodes = crew.muster.nodes.iter().map(|node| node.member);
    if !status.is_drained(status.member) {
        return nodes.any(|member| status.is_drained(member));
    }
    // One that leads hands over, if somebody can lead in its place.
    let leads = |node: &NodeStatus| {
        let is_near = node.lag.is_some_and(|lag| lag <= NEAR);
        node.role == Role::Voter && node.answers == Some(true) && is_near && !node.is_drained
    };
    status.nodes.iter().any(leads)
}

/// Looks for nodes that could work and do not, or do and are to do it no more; then the work begins
/// anew.
async fn watch_members(crew: Weak<Crew>) {
    let (mut since, mut pause) = (None, SETTLED);
    loop {
        machine::sleep(pause).await;
        let Some(crew) = crew
            .upgrade()
            .filter(|c| !c.is_over.load(Ordering::Acquire))
        else {
            return;
        };
        let membership = &crew.site.membership;
        // A node alone has nobody to look for.
        pause = match membership.has_others() {
            true => SIGN_OF_LIFE,
            false => SETTLED,
        };
        let status = membership.status();
        if has_drained(&crew, &status) {
            tracing::info!("a node is drained: the work begins anew without it");
            return crew.begin_anew(None).await;
        }
        let has = |member| crew.muster.nodes.iter().any(|node| node.member == member);
        let could = |node: &&NodeStatus| node.answers == Some(true) && !node.is_drained;
        let answers = status.nodes.iter().filter(could);
        let new: Vec<_> = answers.filter(|node| !has(node.member)).collect();
        if new.is_empty() {
            since = None;
            continue;
        }
        let now = machine::now();
        if now.duration_since(*since.get_or_insert(now)) < SETTLED {
            continue;
        }
        for node in new {
            if crew.could_have(node).await {
                tracing::info!(
                    node = node.member,
                    "another node can work: the work begins anew \
                    with it"
                );
                return crew.begin_anew(None).await;
            }
        }
        since = None;
    }
}

/// What is remembered of what one host reports.
struct Hearing {
    workers: Range<WorkerId>,
    rows: Arc<RowsOf>,
    ears: Arc<Ears>,
    /// Rows and late rows of each job that are counted.
    counted: HashMap<RelationId, (u64, u64)>,
}

impl Hearing {
    fn take(&mut self, crew: &Crew, report: Report) -> Result<()> {
        let ears = self.ears.clone();
        match report {
            Report::Ready => {}
            Report::Event(event) => ears.events.tell(event),
            Report::Errors(errors) => {
                let started = crew.started.lock();
                let mut kept = ears.errors.lock();
                for error in errors {
                    if started.contains(&error.relation) {
                        kept.record(error.relation, error.row, error.weight);
                    }
                }
            }
            Report::Sink {
                relation,
                epoch,
                hash,
                changes,
            } => {
                // Of one that was stopped meanwhile nobody wants it; the workers of this node have
                // opened it before any worker came to a barrier.
                let is_started = crew.started.lock().contains(&relation);
                let queue = is_started.then(|| ears.sinks.get(relation)).flatten();
                if let Some(queue) = queue {
                    queue.output()(epoch, changes, hash);
                }
            }
            Report::SinkCounts { relation, epoch } => ears.sinks.count_from(relation, epoch),
            Report::SinkCovers { relation, epoch } => ears.sinks.cover(relation, epoch),
            Report::Shown {
                relation,
                worker,
                share,
            } => {
                let far = FarShare::new(self.rows.clone(), share);
                if crew.started.lock().contains(&relation) {
                    let share = Share::There(Arc::new(far));
                    ears.published.show_share(relation, worker, share);
                }
            }
            Report::Withdrawn { relation } => ears.published.withdraw(relation),
            Report::Lost { member, error } => machine::block_on(crew.lose(member, &error)),
            Report::Figures(mut jobs) => {
                let started = crew.started.lock().clone();
                jobs.retain(|job| started.contains(&job.relation));
                self.counted.retain(|id, _| started.contains(id));
                jobs.into_iter().for_each(|job| self.count(job));
            }
        }
        Ok(())
    }

    fn count(&mut self, job: JobReport) {
        let figures = self.ears.figures.of(job.relation);
        let counted = self.counted.entry(job.relation).or_default();
        // A job that was started again counts from 0.
        let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let rows = more(job.rows, counted.0);
        figures.rows.fetch_add(rows, Ordering::Relaxed);
        figures
            .late
            .fetch_add(more(job.late, counted.1), Ordering::Relaxed);
        *counted = (job.rows, job.late);
        for (worker, bytes) in self.workers.clone().zip(job.memory) {
            figures.memory[worker].store(bytes, Ordering::Relaxed);
        }
        let mut trouble = figures.trouble.lock();
        trouble.retain(|worker, _| !self.workers.contains(worker));
        trouble.extend(job.trouble);
    }
}
