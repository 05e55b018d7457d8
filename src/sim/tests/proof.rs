//! One binary of integration tests: `sql` (the scripts of `sql-tests/`), `manual` (the examples of
//! `docs/` and README), `random` (views and writes that nobody thought of) and `tidy` (the house
//! rules).

mod manual;
mod random;
mod sql;
mod tidy;
