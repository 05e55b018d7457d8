//! Groups of members whose messages get lost, come late, twice and in another order, whose
//! processes are killed, whose disks lose what was not synced, and who come and go. What was
//! acknowledged is decided everywhere, once, in the same place.

use super::*;
use crate::wal::tests::lossy::LossyDisk;
use crate::{Encoder, OpenedLog};
use std::collections::BTreeMap;
use tidemark_common::random::Random;
use tidemark_common::{Epoch, RelationId};

fn folder() -> &'static Path {
    Path::new("/data/log")
}

/// An entry that is unlike any other.
fn entry(number: u64) -> Entry {
    Entry::Resume {
        relation: RelationId(number as u32),
    }
}

fn number(entry: &Entry) -> Option<u64> {
    match entry {
        Entry::Resume { relation } => Some(relation.0.into()),
        _ => None,
    }
}

/// In lists that raft-rs keeps as sets.
fn in_order(mut members: Members) -> Members {
    members.voters.sort_unstable();
    members.learners.sort_unstable();
    members
}

struct Running {
    replica: Replica,
    encoder: Encoder,
    /// Proposed by this life of it: number and index.
    proposed: Vec<(u64, u64)>,
    /// Up to here it was looked at.
    checked: u64,
}

struct Node {
    disk: LossyDisk,
    joins: Option<Members>,
    running: Option<Running>,
}

struct Group {
    random: Random,
    nodes: BTreeMap<MemberId, Node>,
    messages: Vec<Message>,
    next: u64,
    /// Number and index of what was acknowledged.
    acknowledged: BTreeMap<u64, u64>,
    /// What was decided, by index, as anybody saw it.
    decided: BTreeMap<u64, Vec<u64>>,
    /// How many messages of a thousand get lost.
    losses: u64,
    what: String,
}

impl Group {
    fn new(seed: u64) -> Group {
        let mut group = Group {
            random: Random(seed),
            nodes: BTreeMap::new(),
            messages: Vec::new(),
            next: 1,
            acknowledged: BTreeMap::new(),
            decided: BTreeMap::new(),
            losses: 0,
            what: format!("seed {seed}"),
        };
        group.add(1, None);
        group
    }

    /// Three that vote, of whom the first leads.
    fn of_three(seed: u64) -> Group {
        let mut group = Group::new(seed);
        group.turn(1);
        for member in 2..=3 {
            let began = group.running(1).unwrap().replica.began_with().clone();
            let change = MemberChange::Add(member, Addresses::default());
            let added = group.running(1).unwrap().replica.propose_members(&[change]);
            added.unwrap();
            group.add(member, Some(began));
            group.turn(1);
        }
        for _ in 0..40 {
            group.tick();
            while !group.messages.is_empty() {
                group.deliver();
            }
        }
        let both = [2, 3].map(MemberChange::Promote);
        group
            .running(1)
            .unwrap()
            .replica
            .propose_members(&both)
            .unwrap();
        group.turn(1);
        group
    }

    fn add(&mut self, member: MemberId, joins: Option<Members>) {
        let node = Node {
            disk: LossyDisk::default(),
            joins,
            running: None,
        };
        self.nodes.insert(member, node);
        self.start(member);
    }

    fn start(&mut self, member: MemberId) {
        let Some(node) = self.nodes.get_mut(&member) else {
            return;
        };
        if node.running.is_some() {
            return;
        }
        let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
        let known = Replica::known(disk.clone(), folder()).unwrap();
        let behind = known.map(|known| known.begins_behind);
        let opened = WriteAheadLog::open_member(disk.clone(), folder(), false, behind);
        let OpenedLog {
            mut log,
            encoder,
            entries,
            ..
        } = opened.unwrap_or_else(|e| panic!("{}: node {member}: {e}", self.what));
        // Checkpoints make it short, so that others need them.
        log.segment_bytes_max = 600;
        let begin = Begin {
            disk,
            folder: folder(),
            member,
            addresses: Addresses::default(),
            joins: node.joins.clone(),
            seed: self.random.below_u64(1 << 40),
        };
        let replica = Replica::open(log, &entries, begin);
        let replica = replica.unwrap_or_else(|e| panic!("{}: node {member}: {e}", self.what));
        node.running = Some(Running {
            replica,
            encoder,
            proposed: Vec::new(),
            checked: 0,
        });
    }

    fn kill(&mut self, member: MemberId, power: bool) {
        if let Some(node) = self.nodes.get_mut(&member) {
            node.running = None;
            match power {
                true => node.disk.lose_power(&mut self.random),
                false => node.disk.kill(),
            }
        }
    }

    fn leader(&mut self) -> Option<MemberId> {
        let leads = self.nodes.iter().filter_map(|(id, node)| {
            let replica = &node.running.as_ref()?.replica;
            replica.leads().then(|| (replica.term(), *id))
        });
        leads.max().map(|(_, id)| id)
    }

    fn running(&mut self, member: MemberId) -> Option<&mut Running> {
        self.nodes.get_mut(&member)?.running.as_mut()
    }

    /// Somebody proposes, also who only believes that it leads.
    fn propose(&mut self, member: MemberId) {
        let first = self.next;
        let count = 1 + self.random.below_u64(3);
        self.next += count;
        let Some(running) = self.running(member) else {
            return;
        };
        let entries: Vec<Entry> = (first..first + count).map(entry).collect();
        let payload = running.encoder.encode(&entries).unwrap();
        if let Ok(index) = running.replica.propose(vec![payload]) {
            running
                .proposed
                .extend((first..first + count).map(|n| (n, index)));
        }
    }

    fn turn(&mut self, member: MemberId) {
        let Some(running) = self.running(member) else {
            return;
        };
        let output = running.replica.turn().unwrap();
        let decided = running.replica.decided();
        let leads = running.replica.leads();
        let (told, waits) = std::mem::take(&mut running.proposed)
            .into_iter()
            .partition(|(_, index)| *index <= decided);
        // Who leads no more cannot know what becomes of the rest.
        running.proposed = if leads { waits } else { Vec::new() };
        let told: Vec<(u64, u64)> = if leads { told } else { Vec::new() };
        self.acknowledged.extend(told);
        self.messages.extend(output.messages);
        self.check(member);
    }

    /// What this member has decided is what anybody has decided.
    fn check(&mut self, member: MemberId) {
        let what = self.what.clone();
        let Some(running) = self.running(member) else {
            return;
        };
        let decided = running.replica.decided();
        if decided == std::mem::replace(&mut running.checked, decided) {
            return;
        }
        let entries = running.replica.read_after(0).unwrap();
        let mut by_index = BTreeMap::<u64, Vec<u64>>::new();
        for (index, entry) in &entries {
            by_index.entry(*index).or_default().extend(number(entry));
        }
        for (index, numbers) in by_index {
            let known = self.decided.entry(index).or_insert(numbers.clone());
            assert_eq!(*known, numbers, "{what}: node {member}, entry {index}");
        }
    }

    /// Delivers a message that is on its way, or loses it, or delivers it twice.
    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.below_u64(self.messages.len() as u64) as usize;
        let message = match self.random.below_u64(1000) {
            0..20 => self.messages[at].clone(),
            _ => self.messages.swap_remove(at),
        };
        let (from, to) = (message.from, message.to);
        let is_lost = self.random.below_u64(1000) < self.losses || self.running(to).is_none();
        if names_checkpoint(&message)
            && let Some(sender) = self.running(from)
        {
            // Also of one that arrives the sender may hear that it got lost.
            sender.replica.told_checkpoint(to, !is_lost);
        }
        if is_lost {
            return;
        }
        if let Some(running) = self.running(to) {
            running.replica.receive(message);
            self.turn(to);
        }
    }

    fn tick(&mut self) {
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        for member in members {
            if let Some(running) = self.running(member) {
                running.replica.tick();
                self.turn(member);
            }
        }
    }

    /// The leader commits a checkpoint of all that is decided, and shortens its log.
    fn checkpoint(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        let Some(running) = self.running(leader) else {
            return;
        };
        let contains = running.replica.decided();
        let checkpoint = Entry::Checkpoint {
            epoch: Epoch(contains),
            manifest: format!("manifest {contains}"),
            contains,
        };
        let payload = running.encoder.encode(&[checkpoint]).unwrap();
        let Ok(index) = running.replica.propose(vec![payload]) else {
            return;
        };
        for _ in 0..50 {
            self.turn(leader);
            self.deliver();
            let Some(running) = self.running(leader) else {
                return;
            };
            if running.replica.leads() && running.replica.decided() >= index {
                running.replica.truncate(contains).unwrap();
                return;
            }
        }
    }

    fn change(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        let fresh = self.nodes.keys().max().copied().unwrap_or(0) + 1;
        let choice = self.random.below_u64(4);
        let Some(running) = self.running(leader) else {
            return;
        };
        let members = running.replica.members().clone();
        let began = running.replica.began_with().clone();
        let other = members.all().into_iter().find(|id| *id != leader);
        match choice {
            0 if fresh < 8 => {
                let change = MemberChange::Add(fresh, Addresses::default());
                if running.replica.propose_members(&[change]).is_ok() {
                    self.add(fresh, Some(began));
                }
            }
            1 if members.all().len() > 3 => {
                let change = other.map(MemberChange::Remove);
                let _ = running.replica.propose_members(&Vec::from_iter(change));
            }
            2 => {
                let all = members.all();
                let member = all[fresh as usize % all.len()];
                let change = MemberChange::Drain(member, !members.drained.contains(&member));
                let _ = running.replica.propose_members(&[change]);
            }
            _ => {
                let learners = members.learners.iter().take(2);
                let changes: Vec<_> = learners.copied().map(MemberChange::Promote).collect();
                if !changes.is_empty() {
                    let _ = running.replica.propose_members(&changes);
                }
            }
        }
        self.turn(leader);
    }

    fn rage(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below_u64(100) {
                0 => {
                    let power = self.random.one_in(2);
                    let member = 1 + self.random.below_u64(7);
                    self.kill(member, power);
                }
                1..5 => {
                    let member = 1 + self.random.below_u64(7);
                    self.start(member);
                    self.turn(member);
                }
                5 => self.losses = [0, 50, 300, 900][self.random.below_u64(4) as usize],
                6 => self.checkpoint(),
                7 => self.change(),
                8..30 => self.tick(),
                30..40 => {
                    let member = match self.random.one_in(4) {
                        true => 1 + self.random.below_u64(7),
                        false => self.leader().unwrap_or(1),
                    };
                    self.propose(member);
                    self.turn(member);
                }
                _ => self.deliver(),
            }
        }
    }

    /// Nothing fails any more: there is a leader, and all have the same.
    fn come_to_rest(&mut self) {
        self.losses = 0;
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        for member in members {
            self.start(member);
            self.turn(member);
        }
        let mut asked = false;
        for round in 0..400 {
            self.tick();
            while !self.messages.is_empty() {
                self.deliver();
            }
            let Some(leader) = self.leader() else {
                continue;
            };
            if round >= 200 && !asked {
                // Something new must still be possible.
                asked = true;
                self.propose(leader);
                self.turn(leader);
            }
        }
        let leader = self.leader();
        let leader = leader.unwrap_or_else(|| panic!("{}: nobody leads", self.what));
        let running = self.running(leader).map(|r| {
            let entries = r.replica.read_after(0).unwrap();
            (r.replica.decided(), entries, r.replica.members().clone())
        });
        let Some((decided, entries, members)) = running else {
            return;
        };
        let contained = self.nodes.values().filter_map(|node| {
            let store = node.running.as_ref()?.replica.raw.store();
            store.checkpoint.as_ref().map(|c| c.index)
        });
        let contained = contained.max().unwrap_or(0);
        for (number, index) in &self.acknowledged {
            let known = self.decided.get(index);
            let is_there = known.is_some_and(|numbers| numbers.contains(number));
            assert!(is_there, "{}: {number} at {index} is lost", self.what);
            let read = entries
                .iter()
                .any(|(i, e)| *i == *index && super::tests::number(e) == Some(*number));
            assert!(
                read || *index <= contained,
                "{}: {number} is lost",
                self.what
            );
        }
        let last = self.next - 1;
        assert!(
            self.acknowledged.contains_key(&last),
            "{}: {last} is not decided, {leader} leads {members:?}, {decided} is decided",
            self.what
        );
        for member in members.all() {
            let Some(running) = self.running(member) else {
                continue;
            };
            let reached = running.replica.decided();
            assert_eq!(reached, decided, "{}: node {member}", self.what);
            let known = in_order(running.replica.members().clone());
            let members = in_order(members.clone());
            assert_eq!(known, members, "{}: node {member}", self.what);
        }
        // Nothing is decided twice.
        let mut all: Vec<u64> = self.decided.values().flatten().copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(
            all.len(),
            count,
            "{}: something is decided twice",
            self.what
        );
    }
}

#[test]
fn a_group_of_one_decides_at_once() {
    let mut group = Group::new(1);
    group.turn(1);
    for _ in 0..5 {
        group.propose(1);
        group.turn(1);
    }
    assert_eq!(group.acknowledged.len() as u64, group.next - 1);
    // What counts each by itself has indexes of its own, also in one go.
    let first = group.next;
    group.next += 2;
    let running = group.running(1).unwrap();
    let each = [entry(first), entry(first + 1)];
    let each = each.map(|e| running.encoder.encode(&[e]).unwrap());
    let last = running.replica.propose(each.to_vec()).unwrap();
    group.turn(1);
    assert_eq!(group.decided[&(last - 1)], [first]);
    assert_eq!(group.decided[&last], [first + 1]);
    group.kill(1, true);
    group.start(1);
    group.turn(1);
    assert_eq!(group.leader(), Some(1));
    assert_eq!(
        group.decided.values().flatten().count() as u64,
        group.next - 1
    );
    group.come_to_rest();
}

#[test]
fn no_history_loses_what_was_acknowledged_or_decides_twice() {
    for seed in 0..150 {
        let mut group = Group::of_three(seed);
        group.rage(3000);
        group.come_to_rest();
    }
}

#[test]
fn who_hands_over_is_needed_until_another_leads() {
    for seed in 0..20 {
        let mut group = Group::of_three(seed);
        for _ in 0..40 {
            group.tick();
            while !group.messages.is_empty() {
                group.deliver();
            }
        }
        assert_eq!(group.leader(), Some(1));
        // The third has gone, so that the second needs the vote of the first.
        group.kill(3, false);
        assert!(group.running(1).unwrap().replica.hand_over(&[2]));
        group.turn(1);
        while !group.running(1).unwrap().replica.is_led_by_another() {
            assert!(!group.messages.is_empty(), "seed {seed}: nobody leads");
            group.deliver();
        }
        // It has voted, and nobody's patience was needed.
        while !group.messages.is_empty() {
            group.deliver();
        }
        assert_eq!(group.leader(), Some(2));
    }
}

#[test]
fn a_log_without_its_state_is_refused_once_a_group_has_kept_it() {
    let mut group = Group::new(1);
    group.turn(1);
    let disk = group.nodes[&1].disk.clone();
    group.kill(1, false);
    disk.put(Path::new("/data/log.raft"), None);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let opened = WriteAheadLog::open(disk.clone(), folder(), false).unwrap();
    let begin = Begin {
        disk,
        folder: folder(),
        member: 1,
        addresses: Addresses::default(),
        joins: None,
        seed: 1,
    };
    let error = Replica::open(opened.log, &opened.entries, begin)
        .err()
        .unwrap();
    assert!(error.message().contains("log.raft is missing"), "{error}");
}
