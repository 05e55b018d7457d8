//! One binary of integration tests: `sql` (the scripts of `sql-tests/`), `manual` (the examples of `docs/` and README) and `tidy` (the house rules).

mod manual;
mod sql;
mod tidy;
