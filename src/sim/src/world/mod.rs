//! A whole system in one thread, from one seed, on virtual time: the real engine on a machine, a
//! disk, a store, a broker and a network that are made of memory and fail as the real ones do.
//!
//! [`run`](run::run) is one seed. [`scheduler`] is the machine; [`disk`], [`store`], [`broker`] and
//! [`network`] are what outlives a process; [`node`] is one that runs the engine, or waits to, and
//! [`chaos`] what happens to it; [`server`] is the engine as its clients see it, [`clients`] are
//! those, and hold all that they are told against [`queries`], which computes every view by itself;
//! [`witness`] holds it against what was told earlier, and to others.

pub mod alive;
pub mod broker;
pub mod chaos;
pub mod clients;
pub mod dice;
pub mod disk;
pub mod network;
pub mod node;
pub mod queries;
pub mod run;
pub mod scheduler;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;
pub mod witness;
