//! One binary of integration tests: `sql` (the scripts of `sql-tests/`), `manual` (the examples of
//! `docs/` and README), `closing` (what operators forget), `messages` (what users read when
//! something is wrong), `random` (views and writes that nobody thought of), `simulation` (seeds of
//! a whole server) and `tidy` (the house rules).

#![allow(clippy::disallowed_methods)]

mod closing;
mod manual;
mod messages;
mod random;
mod simulation;
mod sql;
mod tidy;
