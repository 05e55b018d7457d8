//! What the coordinator takes in, and the way there and back.
//!
//! **Law.** All of it is data, and so is what comes back: whoever asks gets a number, and the
//! answer has the same number, wherever it was asked. What is told, either way, is stamped with the
//! incarnation of the cluster that it was told in ([`Stamped`]). What comes from another one is not
//! heard: the work that it speaks of is void, or not begun.
//!
//! Within a process the way is a channel. When the coordinator ends, all who still wait for an
//! answer hear that there is none.

use crate::protocol::{Event, Request};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tidemark_common::mailbox::{Empty, Receiver, Sender, mailbox};
use tidemark_common::{Epoch, Error, Result};
use tokio::sync::oneshot;

/// Something that is told, with the incarnation of the cluster that it is told in.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped<T> {
    /// The incarnation.
    pub generation: u64,
    /// What is told.
    pub told: T,
}

impl<T> Stamped<T> {
    /// What is told, if it was in this incarnation.
    pub fn heard_in(self, generation: u64) -> Option<T> {
        (self.generation == generation).then_some(self.told)
    }
}

/// The number of a request; its answer has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the coordinator takes in.
pub enum Input {
    /// Something happened.
    Event(Event),
    /// Somebody asks.
    Request(RequestId, Request),
}

/// What came of a request: the newest decided epoch then; of a write the one that it is part of.
pub type Answer = Result<Epoch>;

/// The way to the coordinator of one incarnation. Cloning is cheap.
#[derive(Clone)]
pub struct Events {
    generation: u64,
    sender: Sender<Stamped<Input>>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits for answers.
#[derive(Default)]
struct Waiting {
    last: u64,
    asked: HashMap<RequestId, oneshot::Sender<Answer>>,
    /// There are no more answers.
    over: bool,
}

impl Waiting {
    fn next(&mut self) -> RequestId {
        self.last += 1;
        RequestId(self.last)
    }
}

impl Events {
    /// A way to a coordinator, and its other end.
    pub fn new(generation: u64) -> (Events, Inputs) {
        let (sender, receiver) = mailbox();
        let events = Events {
            generation,
            sender,
            waiting: Arc::default(),
        };
        let inputs = Inputs {
            generation,
            receiver,
        };
        (events, inputs)
    }

    /// Tells what happened. A coordinator that is gone means shutdown: it needs not know any more.
    pub fn tell(&self, event: Event) {
        let _ = self.send(Input::Event(event));
    }

    /// Asks for something whose answer nobody waits for.
    ///
    /// Errors: the coordinator has ended.
    pub fn request(&self, request: Request) -> Result<()> {
        let number = self.waiting.lock().next();
        self.send(Input::Request(number, request))
    }

    /// Asks for something, and gives where the answer comes; without one the coordinator has ended.
    ///
    /// Errors: it has ended already.
    pub fn ask(&self, request: Request) -> Result<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock();
            if waiting.over {
                return Err(Error::shutting_down());
            }
            let number = waiting.next();
            waiting.asked.insert(number, answer);
            number
        };
        self.send(Input::Request(number, request))?;
        Ok(answered)
    }

    /// Brings an answer to who asked. One that has gone away needs none.
    pub fn answer(&self, request: RequestId, answer: Answer) {
        let asked = self.waiting.lock().asked.remove(&request);
        if let Some(asked) = asked {
            let _ = asked.send(answer);
        }
    }

    /// The coordinator has ended: there are no more answers.
    pub fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.over = true;
        waiting.asked.clear();
    }

    fn send(&self, told: Input) -> Result<()> {
        let generation = self.generation;
        let sent = self.sender.send(Stamped { generation, told });
        sent.map_err(|_| Error::shutting_down())
    }
}

/// Where the coordinator of one incarnation takes in what it is told.
pub struct Inputs {
    generation: u64,
    receiver: Receiver<Stamped<Input>>,
}

impl Inputs {
    /// Waits for the next one, until then at most.
    pub fn recv_until(&self, deadline: Option<Instant>) -> Result<Input, Empty> {
        loop {
            let told = self.receiver.recv_until(deadline)?;
            if let Some(input) = told.heard_in(self.generation) {
                return Ok(input);
            }
        }
    }

    /// The next one, if it is there.
    pub fn try_recv(&self) -> Result<Input, Empty> {
        loop {
            if let Some(input) = self.receiver.try_recv()?.heard_in(self.generation) {
                return Ok(input);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::RelationId;

    fn flush(events: &Events) -> oneshot::Receiver<Answer> {
        events.ask(Request::Flush).expect("there is a coordinator")
    }

    fn asked(inputs: &Inputs) -> RequestId {
        match inputs.try_recv() {
            Ok(Input::Request(number, Request::Flush)) => number,
            _ => panic!("somebody has asked"),
        }
    }

    #[test]
    fn what_comes_from_another_incarnation_is_not_heard() {
        let (events, inputs) = Events::new(3);
        let in_generation = |generation| Events {
            generation,
            ..events.clone()
        };
        let done = |worker| Event::Done {
            worker,
            epoch: Epoch(7),
        };
        in_generation(2).tell(done(0));
        in_generation(4).tell(done(1));
        events.tell(done(2));
        in_generation(2).tell(done(3));
        assert!(matches!(inputs.recv_until(None), Ok(Input::Event(event)) if event == done(2)));
        let until = inputs.recv_until(Some(tidemark_common::machine::now()));
        assert!(matches!(until, Err(Empty::Yet)));
        in_generation(2).tell(done(4));
        assert!(matches!(inputs.try_recv(), Err(Empty::Yet)));
    }

    #[test]
    fn an_answer_comes_to_who_asked_whatever_the_order() {
        let (events, inputs) = Events::new(1);
        let (mut first, mut second) = (flush(&events), flush(&events));
        let (one, two) = (asked(&inputs), asked(&inputs));
        events.answer(two, Ok(Epoch(9)));
        assert!(first.try_recv().is_err());
        assert_eq!(second.try_recv().unwrap().unwrap(), Epoch(9));
        events.answer(one, Ok(Epoch(10)));
        // Told twice, as where an answer was lost on its way.
        events.answer(one, Err(Error::internal("again")));
        assert_eq!(first.try_recv().unwrap().unwrap(), Epoch(10));
    }

    #[test]
    fn nobody_waits_for_a_coordinator_that_has_ended() {
        let (events, inputs) = Events::new(1);
        let mut waits = flush(&events);
        let relation = RelationId(4);
        events.end();
        assert!(matches!(
            waits.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
        // Its end of the way may still be there.
        assert_eq!(
            events
                .ask(Request::LogRows { relation })
                .unwrap_err()
                .message(),
            "the server is shutting down"
        );
        drop(inputs);
        events.tell(Event::Active);
    }
}
