//! The motion: what one worker does with its share of the vnodes.
//!
//! A change walks `source` (or an exchange) -> `actor` (a `fragment`: operators in a row, barrier
//! alignment) -> `exchange` (by vnode, over an `edge`, to the actors of the next fragment) and so
//! on, to the taps of other jobs, to a view or through `sinks` out of the worker. [`Worker`] is
//! what turns the wheel: `worker/mod.rs` takes commands, messages and rows in turn; beside it
//! `starting` builds jobs, `creating` brings those up that are being created, `barriers` leads an
//! epoch's end through them and `output` sends on what an actor has produced. `sealing` stores what
//! they sealed.
//!
//! A worker knows its node by what it is given: each part by its name, in [`Surroundings`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod actor;
mod answers;
mod blame;
mod catch;
mod columns;
mod edge;
mod errors;
mod exchange;
mod figures;
mod fragment;
mod job;
mod pressure;
mod published;
mod sealing;
mod sinks;
mod source;
mod storing;
mod table_feed;
mod worker;

pub use answers::{store_answer, store_share};
pub use blame::Recovery;
pub use catch::catch;
pub use columns::{nullable, pick};
pub use edge::{Credit, Load};
pub use errors::{ErrorTable, KeptErrors, SealedErrors};
pub use exchange::{Delivery, Inbound, Message, Outbound, Peer};
pub use figures::{Figures, JobFigures};
pub use job::{Actors, build_actors};
pub use pressure::Pressure;
pub use published::{FarRows, Pieces, Published, ReadAs, Share, Shows};
pub use sinks::Sinks;
pub use source::{Reading, Source};
pub use storing::Storing;
pub use worker::{Round, Surroundings, Worker};
