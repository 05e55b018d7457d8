//! The proof: what the other crates promise, checked from outside against the real server binary,
//! and from inside by a simulation.
//!
//! * `server` starts, kills and restarts a server on free ports with a data folder of its own;
//! * `client` speaks to it as `sqllogictest` wants: every value as the text that a client sees,
//!   every error with its SQLSTATE;
//! * `views` holds the central law, V(e) = Q(I(e)), against every materialized view that a test
//!   file creates: after each write the view has exactly the rows that its query gives when run ad
//!   hoc in the same epoch;
//! * `script` runs one `.slt` file: its records, its restarts, the views between them;
//! * `random` makes random views and writes from a seed;
//! * `manual` finds the SQL examples of the manual;
//! * `world` runs the engine in one thread from a seed, where everything fails.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

pub mod client;
pub mod manual;
pub mod random;
pub mod script;
pub mod server;
pub mod views;
pub mod world;
