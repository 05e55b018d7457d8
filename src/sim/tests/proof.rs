//! One binary of integration tests: `sql` (the scripts of `sql-tests/`), `manual` (the examples of
//! `docs/` and README), `messages` (what users read when something is wrong), `random` (views and
//! writes that nobody thought of), `simulation` (seeds of a whole server) and `tidy` (the house
//! rules).

#![allow(clippy::disallowed_methods)]

mod manual;
mod messages;
mod random;
mod simulation;
mod sql;
mod tidy;
