//! One link: what is under way in both directions, and when each end sees that it is broken. What
//! happens is a function of the times and the dice that it is given; nobody waits here.

use super::{NetworkTrouble, Range};
use crate::world::dice::Dice;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that a receiver has not taken, at most; a single frame may be larger.
const UNDER_WAY_MAX: usize = 1 << 20;
/// What everything takes on its way, also where there is no trouble.
const LATENCY: Range = (Duration::from_micros(50), Duration::from_micros(300));
/// When an end that is alive is told that the other one has gone, mostly.
const RESET: Range = (Duration::ZERO, Duration::from_millis(5));
/// The same of one that went without a word: its machine has to come up again before it tells.
const SILENCE: Range = (Duration::from_millis(5), Duration::from_secs(10));
/// How long a sender waits for signs of what it has sent.
const PATIENCE: Range = (Duration::from_secs(1), Duration::from_secs(10));

/// When something happens, and what chance has to do with it.
pub struct Moment<'m> {
    pub now: Instant,
    pub dice: &'m Dice,
    pub trouble: NetworkTrouble,
}

impl Moment<'_> {
    /// A time from now in this range.
    pub fn within(&self, range: Range) -> Instant {
        self.now + self.dice.between(range.0, range.1)
    }

    /// What a frame takes.
    pub fn latency(&self) -> Duration {
        let (trouble, dice) = (self.trouble.latency, self.dice);
        dice.between(LATENCY.0, LATENCY.1) + dice.between(trouble.0, trouble.1)
    }
}

/// What is under way to an end. `arrives`: none while it cannot. `frame`: none tells that nothing
/// follows.
struct Parcel {
    arrives: Option<Instant>,
    frame: Option<Bytes>,
}

/// What one of the two has of a link.
pub struct End {
    /// Whose it is.
    pub node: u64,
    pub process: u64,
    /// Something has come for its receiver, or will not.
    pub bell: Arc<Notify>,
    /// Its sender may go on.
    pub room: Arc<Notify>,
    inbox: VecDeque<Parcel>,
    bytes: usize,
    /// When the last of what was sent to it arrives.
    newest: Instant,
    sends: bool,
    receives: bool,
    /// Nobody is there any more.
    is_gone: bool,
    /// From when on it sees that the link is broken.
    broken: Option<Instant>,
    /// Since it has no signs of what it sent, it sees it from then on, if they do not come.
    gives_up: Option<Instant>,
}

/// What came of sending.
pub enum Sent {
    Done,
    /// The receiver has to take something first; it is worth to look again at that time.
    Full(Option<Instant>),
    Broken,
}

/// What came of receiving.
pub enum Received {
    /// None: nothing follows.
    Frame(Option<Bytes>),
    /// It is worth to look again at that time.
    Nothing(Option<Instant>),
    Broken,
}

/// See the module.
pub struct SimLink {
    pub ends: [End; 2],
    /// Nothing that leaves this end arrives.
    cut: [bool; 2],
}

impl End {
    /// Of this process, on that node.
    pub fn new(node: u64, process: u64, now: Instant) -> End {
        End {
            node,
            process,
            bell: Arc::default(),
            room: Arc::default(),
            inbox: VecDeque::new(),
            bytes: 0,
            newest: now,
            sends: true,
            receives: true,
            is_gone: false,
            broken: None,
            gives_up: None,
        }
    }

    fn breaks(&self) -> Option<Instant> {
        let times = self.broken.into_iter().chain(self.gives_up);
        times.min()
    }

    fn is_broken(&self, now: Instant) -> bool {
        self.breaks().is_some_and(|at| at <= now)
    }

    /// Both halves look again.
    fn ring(&self) {
        self.bell.notify_one();
        self.room.notify_one();
    }

    fn breaks_at(&mut self, at: Instant) {
        self.broken = Some(self.broken.map_or(at, |before| before.min(at)));
        self.ring();
    }

    fn is_told_of_the_end(&self) -> bool {
        let last = self.inbox.back();
        last.is_some_and(|parcel| parcel.frame.is_none())
    }
}

impl SimLink {
    /// Between these, on a way that may be cut.
    pub fn new(ends: [End; 2], cut: [bool; 2]) -> SimLink {
        SimLink { ends, cut }
    }

    /// Whether there is nobody at either end.
    pub fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.is_gone)
    }

    fn is_cut(&self) -> bool {
        self.cut.contains(&true)
    }

    /// A frame leaves this end.
    pub fn send(&mut self, from: usize, frame: &Bytes, moment: &Moment<'_>) -> Sent {
        if self.ends[from].is_broken(moment.now) {
            return Sent::Broken;
        }
        let to = &self.ends[1 - from];
        if to.is_gone {
            self.goes_nowhere(from, moment);
            return Sent::Done;
        }
        if self.is_cut() {
            self.waits_for_signs(from, moment);
        }
        let to = &self.ends[1 - from];
        if to.bytes > 0 && to.bytes + frame.len() > UNDER_WAY_MAX {
            return Sent::Full(self.ends[from].breaks());
        }
        self.push(1 - from, Some(frame.clone()), moment);
        if moment.dice.chance(moment.trouble.breaks) {
            self.break_off(moment);
        }
        Sent::Done
    }

    /// What is sent to one who has gone: whoever is asked for it says so, if the way is free.
    fn goes_nowhere(&mut self, from: usize, moment: &Moment<'_>) {
        if self.is_cut() {
            self.waits_for_signs(from, moment);
        } else if self.ends[from].broken.is_none() {
            let at = moment.now + moment.latency() + moment.latency();
            self.ends[from].breaks_at(at);
        }
    }

    fn waits_for_signs(&mut self, from: usize, moment: &Moment<'_>) {
        let end = &mut self.ends[from];
        if end.gives_up.is_none() {
            end.gives_up = Some(moment.within(PATIENCE));
            end.ring();
        }
    }

    fn push(&mut self, to: usize, frame: Option<Bytes>, moment: &Moment<'_>) {
        let is_cut = self.cut[1 - to];
        let end = &mut self.ends[to];
        let arrives = (!is_cut).then(|| end.newest.max(moment.now + moment.latency()));
        end.newest = end.newest.max(arrives.unwrap_or(moment.now));
        end.bytes += frame.as_ref().map_or(0, Bytes::len);
        end.inbox.push_back(Parcel { arrives, frame });
        end.bell.notify_one();
    }

    /// This end takes what has arrived.
    pub fn receive(&mut self, at: usize, now: Instant) -> Received {
        let end = &mut self.ends[at];
        let (first, breaks) = (end.inbox.front(), end.breaks());
        let arrives = first.and_then(|parcel| parcel.arrives);
        let is_there = |at: Instant| at <= now && breaks.is_none_or(|breaks| at <= breaks);
        if !arrives.is_some_and(is_there) {
            return match end.is_broken(now) {
                true => Received::Broken,
                false => Received::Nothing(arrives.into_iter().chain(breaks).min()),
            };
        }
        // That nothing follows is told as often as somebody asks.
        if end.is_told_of_the_end() && end.inbox.len() == 1 {
            return Received::Frame(None);
        }
        let frame = end.inbox.pop_front().and_then(|parcel| parcel.frame);
        end.bytes -= frame.as_ref().map_or(0, Bytes::len);
        self.ends[1 - at].room.notify_one();
        Received::Frame(frame)
    }

    /// It breaks, for both, who see it sooner or later.
    pub fn break_off(&mut self, moment: &Moment<'_>) {
        for at in [0, 1] {
            self.lose(at, moment);
            self.ends[at].breaks_at(moment.within(RESET));
        }
    }

    /// Of what is under way to this end a last part does not arrive.
    fn lose(&mut self, to: usize, moment: &Moment<'_>) {
        let end = &mut self.ends[to];
        let kept = moment.dice.below(end.inbox.len() as u64 + 1) as usize;
        end.inbox.truncate(kept);
        let frames = end.inbox.iter().filter_map(|parcel| parcel.frame.as_ref());
        end.bytes = frames.map(Bytes::len).sum();
        self.ends[1 - to].room.notify_one();
    }

    /// This end has dropped its sender.
    pub fn drop_sender(&mut self, at: usize, moment: &Moment<'_>) {
        self.ends[at].sends = false;
        let is_told = self.ends[at].is_gone || self.ends[at].is_broken(moment.now);
        if !is_told && !self.ends[1 - at].is_gone {
            self.push(1 - at, None, moment);
        }
        self.close_if_dropped(at, moment);
    }

    /// This end has dropped its receiver.
    pub fn drop_receiver(&mut self, at: usize, moment: &Moment<'_>) {
        self.ends[at].receives = false;
        self.close_if_dropped(at, moment);
    }

    fn close_if_dropped(&mut self, at: usize, moment: &Moment<'_>) {
        let end = &self.ends[at];
        if end.is_gone || end.sends || end.receives {
            return;
        }
        // What came and was not taken makes an end that loses what was sent before it.
        let is_unread = end.inbox.iter().any(|parcel| parcel.frame.is_some());
        let is_broken = end.is_broken(moment.now) || is_unread;
        self.leave(at);
        if is_broken {
            self.reset(1 - at, RESET, moment);
        }
    }

    /// Nobody is at this end any more.
    fn leave(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.is_gone = true;
        end.inbox.clear();
        end.bytes = 0;
        self.ends[1 - at].room.notify_one();
    }

    /// This end is told that the link is broken, unless the way is cut.
    fn reset(&mut self, at: usize, after: Range, moment: &Moment<'_>) {
        if self.ends[at].is_gone {
            return;
        }
        self.lose(at, moment);
        if !self.is_cut() {
            self.ends[at].breaks_at(moment.within(after));
        }
    }

    /// This end was not taken by anybody, and will not be.
    pub fn turn_away(&mut self, at: usize, moment: &Moment<'_>) {
        self.leave(at);
        self.reset(1 - at, RESET, moment);
    }

    /// The process at this end was killed, or its machine.
    pub fn died(&mut self, at: usize, moment: &Moment<'_>) {
        if self.ends[at].is_gone {
            return;
        }
        let (was_told, other) = (!self.ends[at].sends, 1 - at);
        self.leave(at);
        match moment.dice.below(5) {
            // As after an orderly end.
            0 | 1 if was_told || self.ends[other].is_gone => {}
            0 | 1 => self.push(other, None, moment),
            2 | 3 => self.reset(other, RESET, moment),
            _ => self.reset(other, SILENCE, moment),
        }
    }

    /// From now on nothing that leaves one of the ends arrives, or it does again.
    pub fn cut(&mut self, cut: [bool; 2], moment: &Moment<'_>) {
        let before = std::mem::replace(&mut self.cut, cut);
        if before == cut {
            return;
        }
        for from in [0, 1] {
            if cut[from] && !before[from] {
                self.stall(1 - from, moment.now);
            } else if before[from] && !cut[from] {
                self.let_through(1 - from, moment);
            }
        }
        if !self.is_cut() {
            self.heal(moment);
        } else if !before.contains(&true) {
            for from in [0, 1] {
                let inbox = &self.ends[1 - from].inbox;
                let has_come = |parcel: &Parcel| parcel.arrives.is_some_and(|at| at <= moment.now);
                if !inbox.back().is_none_or(has_come) {
                    self.waits_for_signs(from, moment);
                }
            }
        }
        // Who waits for room may have to give up as well.
        self.ends.iter().for_each(End::ring);
    }

    fn stall(&mut self, to: usize, now: Instant) {
        let under_way = self.ends[to].inbox.iter_mut();
        for parcel in under_way.filter(|parcel| parcel.arrives.is_some_and(|at| at > now)) {
            parcel.arrives = None;
        }
    }

    fn let_through(&mut self, to: usize, moment: &Moment<'_>) {
        let end = &mut self.ends[to];
        let at = moment.now + moment.latency();
        end.newest = end.newest.max(at);
        for parcel in end.inbox.iter_mut().filter(|p| p.arrives.is_none()) {
            parcel.arrives = Some(end.newest);
        }
        end.bell.notify_one();
    }

    /// Who has not given up meanwhile goes on, if the other one is still there.
    fn heal(&mut self, moment: &Moment<'_>) {
        for end in &mut self.ends {
            if end.is_broken(moment.now) {
                end.broken = end.breaks();
            }
            end.gives_up = None;
        }
        for at in [0, 1] {
            let (end, other) = (&self.ends[at], &self.ends[1 - at]);
            let is_left = other.is_gone && !end.is_told_of_the_end();
            if end.broken.is_none() && (is_left || other.is_broken(moment.now)) {
                self.reset(at, RESET, moment);
            }
        }
    }
}
