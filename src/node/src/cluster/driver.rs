//! The thread that drives a member: it takes in what it is told, lets time go by, makes durable
//! what must be, sends what there is to send, and answers those whose entries are decided.

use super::links::Sending;
use super::status::{NEAR, Shared, Told};
use crate::threads::spawn;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::mailbox::{Empty, Receiver, Sender};
use tidemark_common::{Backoff, Error, Result, SqlState, machine};
use tidemark_control::raft::{
    Answer, Call, MemberChange, MemberId, Members, Output, Replica, TICK, Turn, not_leading,
};

/// The pause between two tries to write to a full disk, at most.
const FULL_DISK_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How often it is said that the disk is still full.
const FULL_DISK_TOLD: Duration = Duration::from_secs(60);
/// What is taken in before time goes on.
const TURNS_AT_ONCE: usize = 1024;
/// More members than this do not vote.
const VOTERS_MAX: usize = 5;
/// How long a member that leaves waits for another to lead.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);

struct Driver {
    /// Away only while it is made anew.
    replica: Option<Replica>,
    inbox: Receiver<Turn>,
    turns: Sender<Turn>,
    shared: Arc<Shared>,
    sending: Option<Arc<Sending>>,
    /// Proposed and not decided yet, in order.
    waiting: VecDeque<(u64, Answer<u64>)>,
    /// When the clock of its questions to the majority began.
    began: Instant,
    next_tick: Instant,
    /// It has led.
    led: bool,
    /// It takes part no more when nobody needs it; whom to tell, and until when it waits.
    leaving: Option<(Answer<()>, Instant)>,
    /// What was told last of the members, and of those with whom the log began.
    placed: Arc<Members>,
    began_with: Arc<Members>,
}

/// Starts the thread.
pub(super) fn start(
    replica: Replica,
    inbox: Receiver<Turn>,
    turns: Sender<Turn>,
    shared: Arc<Shared>,
) -> Result<()> {
    let now = machine::now();
    let sending = shared.sending.lock().clone();
    let mut driver = Driver {
        placed: Arc::default(),
        began_with: Arc::default(),
        replica: Some(replica),
        inbox,
        turns,
        sending,
        shared,
        waiting: VecDeque::new(),
        began: now,
        next_tick: now + TICK,
        led: false,
        leaving: None,
    };
    spawn("group".into(), move || {
        let ran = driver.run();
        driver.shared.ended.send_replace(true);
        if let Err(error) = ran {
            tracing::error!(%error, "the log cannot be written: nothing can be decided any more");
            // Whoever waits must not wait for ever, and nothing may be answered that was not
            // decided.
            machine::exit(1);
        }
    })?;
    Ok(())
}

impl Driver {
    fn replica(&mut self) -> Result<&mut Replica> {
        let missing = || Error::internal("the log of the group is being made anew");
        self.replica.as_mut().ok_or_else(missing)
    }

    fn run(&mut self) -> Result<()> {
        self.turn()?;
        loop {
            // A node alone waits for nobody: it needs no clock.
            let until = (!self.is_alone()).then_some(self.next_tick);
            let first = match self.inbox.recv_until(until) {
                Ok(turn) => Some(turn),
                Err(Empty::Yet) => None,
                Err(Empty::ForEver) => return Ok(()),
            };
            let mut next = first;
            for _ in 0..TURNS_AT_ONCE {
                let Some(turn) = next.or_else(|| self.inbox.try_recv().ok()) else {
                    break;
                };
                self.take(turn)?;
                next = None;
            }
            let now = machine::now();
            if now >= self.next_tick && !self.is_alone() {
                // Time that it slept through does not count: others may have lived on.
                self.next_tick = now + TICK;
                let since = now.saturating_duration_since(self.began).as_micros() as u64;
                let replica = self.replica()?;
                replica.tick();
                replica.ask_majority(since);
                self.arrange()?;
            }
            self.turn()?;
            if self.has_left() {
                return Ok(());
            }
        }
    }

    fn is_alone(&self) -> bool {
        let alone = |r: &Replica| r.leads() && r.members().is_alone(r.member());
        self.replica.as_ref().is_some_and(alone)
    }

    fn take(&mut self, turn: Turn) -> Result<()> {
        match turn {
            Turn::Heard(message) => self.replica()?.receive(message),
            Turn::Unreachable(member) => {
                let replica = self.replica()?;
                replica.is_unreachable(member);
                // One that was on its way may have got lost.
                replica.told_checkpoint(member, false);
            }
            Turn::ToldCheckpoint(member, sent) => self.replica()?.told_checkpoint(member, sent),
            Turn::Call(call) => self.call(call)?,
        }
        Ok(())
    }

    fn call(&mut self, call: Call) -> Result<()> {
        match call {
            Call::Propose(payloads, answer) => {
                let proposed = self.replica()?.propose(payloads);
                self.await_decision(proposed, answer);
            }
            Call::Change(changes, answer) => {
                let proposed = self.replica()?.propose_members(&changes);
                self.await_decision(proposed, answer);
            }
            Call::Truncate(index, answer) => drop(answer.send(self.replica()?.truncate(index))),
            Call::ReadAfter(index, answer) => {
                drop(answer.send(self.replica()?.read_after(index)));
            }
            Call::LossIsTold(answer) => drop(answer.send(self.replica()?.loss_is_told())),
            Call::BeginBehind(index, answer) => {
                if let Some(replica) = self.replica.take() {
                    self.replica = Some(replica.begin_behind(index)?);
                }
                self.turn()?;
                let _ = answer.send(Ok(()));
            }
            Call::Leave(to, answer) => {
                self.shared.leave();
                self.replica()?.hand_over(&to);
                self.leaving = Some((answer, machine::now() + HAND_OVER_PATIENCE));
            }
        }
        Ok(())
    }

    fn await_decision(&mut self, proposed: Result<u64>, answer: Answer<u64>) {
        match proposed {
            Ok(index) => self.waiting.push_back((index, answer)),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    /// Does what is due.
    fn turn(&mut self) -> Result<()> {
        let output = self.persist()?;
        let leads = self.replica()?.leads();
        if !leads {
            // Whether they will be decided, others know: what stands at their indexes now may be
            // another leader's.
            for (_, answer) in self.waiting.drain(..) {
                let _ = answer.send(Err(not_leading()));
            }
        }
        if let Some(sending) = &self.sending {
            sending.send(output.messages);
        }
        let began = self.began;
        if let Some(since) = output.sure_since {
            self.shared.promised(began + Duration::from_micros(since));
        }
        // Who is answered sees what was decided.
        self.tell()?;
        let decided = self.replica()?.decided();
        while let Some((index, answer)) = self.waiting.pop_front_if(|(at, _)| *at <= decided) {
            let _ = answer.send(Ok(index));
        }
        if self.led && !leads && self.leaving.is_none() {
            tracing::warn!("this node leads its cluster no more: it starts anew");
            machine::exit(machine::RESTART);
        }
        self.led |= leads;
        Ok(())
    }

    /// Makes durable what must be; waits while the disk is full. The others elect a new leader
    /// meanwhile, if this one leads.
    fn persist(&mut self) -> Result<Output> {
        let mut backoff = Backoff::default();
        let mut told: Option<Instant> = None;
        loop {
            match self.replica()?.turn() {
                Ok(output) => {
                    if told.is_some() {
                        tracing::info!("the log grows again");
                        self.shared.trouble(None);
                    }
                    return Ok(output);
                }
                Err(error) if error.state() == SqlState::DISK_FULL => {
                    if told.is_none_or(|at| machine::elapsed(at) > FULL_DISK_TOLD) {
                        tracing::error!(%error, "the log cannot grow; waiting for space");
                        told = Some(machine::now());
                    }
                    self.shared.trouble(Some(error));
                    machine::pause(backoff.pause().min(FULL_DISK_PAUSE_MAX));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells what is known of the group. It is told at every turn, and members seldom change.
    fn tell(&mut self) -> Result<()> {
        let sending = self.sending.clone();
        let (mut placed, mut began_with) = (self.placed.clone(), self.began_with.clone());
        let replica = self.replica()?;
        let moves = *replica.members() != *placed;
        if moves {
            placed = Arc::new(replica.members().clone());
        }
        if *replica.began_with() != *began_with {
            began_with = Arc::new(replica.began_with().clone());
        }
        let leads = replica.leads();
        let progress = |(id, at, active): (MemberId, u64, bool)| (id, (at, active));
        let told = Told {
            leads,
            leader: replica.leader(),
            term: replica.term(),
            decided: replica.decided(),
            follows: replica.follows(),
            began_with: began_with.clone(),
            progress: match leads {
                true => replica.progress().into_iter().map(progress).collect(),
                false => Default::default(),
            },
            members: placed.clone(),
        };
        if let Some(sending) = sending.filter(|_| moves) {
            sending.reach(&placed, &self.turns);
        }
        (self.placed, self.began_with) = (placed, began_with);
        self.shared.tell(told);
        Ok(())
    }

    /// Who leads sees to it that an odd number of members votes, and that those do who are there.
    fn arrange(&mut self) -> Result<()> {
        let replica = self.replica()?;
        if !replica.leads() {
            return Ok(());
        }
        // One that has just come may say something before it has any entry.
        let near = |at: u64| at > 0 && at + NEAR >= replica.decided();
        let ready: Vec<MemberId> = replica
            .progress()
            .into_iter()
            .filter(|(id, at, active)| *active && near(*at) && *id != replica.member())
            .map(|(id, ..)| id)
            .collect();
        let changes = arrangement(replica.member(), replica.members(), &ready);
        // Whoever votes may lead, and needs all rows then.
        if !changes.is_empty()
            && !replica.names_files()
            && let Err(error) = replica.propose_members(&changes)
        {
            tracing::debug!(%error, "the members are not arranged yet");
        }
        Ok(())
    }

    /// Whether it takes part no more: somebody else leads, or nobody does in time. Until then its
    /// vote may be needed.
    fn has_left(&mut self) -> bool {
        let is_led = self.replica.as_ref();
        let is_led = is_led.is_some_and(Replica::is_led_by_another);
        let alone = self.is_alone();
        let left = |until: &Instant| is_led || alone || machine::now() >= *until;
        match self.leaving.take_if(|(_, until)| left(until)) {
            Some((answer, _)) => {
                let _ = answer.send(Ok(()));
                true
            }
            None => false,
        }
    }
}

/// Changes after which an odd number of members votes: as many as there are, five at most, and
/// rather those who are not drained. `ready`: those beside the leader who answer and are nearly as
/// far.
fn arrangement(leader: MemberId, members: &Members, ready: &[MemberId]) -> Vec<MemberChange> {
    let fit = |id: &MemberId| ready.contains(id) && !members.drained.contains(id);
    let learners = members.learners.iter().copied().filter(fit);
    let mut learners = learners.map(MemberChange::Promote);
    let leader_goes = members.drained.contains(&leader);
    if leader_goes && !members.voters.iter().any(fit) {
        // It needs somebody who can lead in its place.
        return learners.next().into_iter().collect();
    }
    let voters = members.voters.len();
    let can_vote = (voters + learners.clone().count()).min(VOTERS_MAX);
    let wanted = can_vote - usize::from(can_vote % 2 == 0);
    // Those who do not answer first, then those who are drained.
    let mut others: Vec<MemberId> = members.voters.clone();
    others.retain(|id| *id != leader && !(leader_goes && fit(id)));
    others.sort_by_key(|id| (ready.contains(id), fit(id)));
    if wanted < voters {
        let demoted = others.into_iter().take(voters - wanted);
        return demoted.map(MemberChange::Demote).collect();
    }
    let promoted: Vec<MemberChange> = learners.by_ref().take(wanted - voters).collect();
    let drained = others.into_iter().find(|id| members.drained.contains(id));
    match (drained, learners.next()) {
        (Some(drained), Some(promotes)) if promoted.is_empty() => {
            vec![MemberChange::Demote(drained), promotes]
        }
        _ => promoted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[MemberId], learners: &[MemberId]) -> Members {
        Members {
            voters: voters.into(),
            learners: learners.into(),
            ..Members::default()
        }
    }

    #[test]
    fn an_odd_number_of_members_votes() {
        use MemberChange::{Demote, Promote};
        let of = |voters: &[MemberId], learners: &[MemberId], ready: &[MemberId]| {
            arrangement(1, &members(voters, learners), ready)
        };
        assert_eq!(of(&[1], &[], &[]), []);
        assert_eq!(of(&[1], &[2], &[2]), []);
        assert_eq!(of(&[1], &[2, 3], &[2]), []);
        assert_eq!(of(&[1], &[2, 3], &[2, 3]), [Promote(2), Promote(3)]);
        assert_eq!(of(&[1, 2, 3], &[4], &[2, 3, 4]), []);
        assert_eq!(of(&[1, 2, 3], &[], &[]), []);
        let five = of(&[1, 2, 3], &[4, 5, 6], &[2, 3, 4, 5, 6]);
        assert_eq!(five, [Promote(4), Promote(5)]);
        assert_eq!(of(&[1, 2], &[], &[2]), [Demote(2)]);
        assert_eq!(of(&[1, 2, 3, 4], &[], &[2, 4]), [Demote(3)]);
        assert_eq!(of(&[1, 2], &[3], &[2, 3]), [Promote(3)]);
    }

    #[test]
    fn who_is_drained_votes_only_where_nobody_else_can() {
        use MemberChange::{Demote, Promote};
        let of = |voters: &[MemberId], learners: &[MemberId], drained: &[MemberId]| {
            let members = Members {
                drained: drained.iter().copied().collect(),
                ..members(voters, learners)
            };
            arrangement(1, &members, &[2, 3, 4, 5])
        };
        assert_eq!(of(&[1, 2, 3], &[], &[3]), []);
        assert_eq!(of(&[1, 2, 3], &[4], &[2]), [Demote(2), Promote(4)]);
        assert_eq!(of(&[1, 2, 3], &[4], &[2, 4]), []);
        assert_eq!(of(&[1], &[2, 3], &[2]), []);
        assert_eq!(of(&[1, 2, 3, 4], &[], &[3]), [Demote(3)]);
        // The leader itself: somebody must be there to whom it can hand over.
        assert_eq!(of(&[1], &[2], &[1]), [Promote(2)]);
        assert_eq!(of(&[1, 2], &[], &[1]), []);
        assert_eq!(of(&[1, 2, 3], &[], &[1]), []);
        assert_eq!(of(&[1, 2], &[3], &[1, 2]), [Promote(3)]);
    }
}
