//! Filter: `f(A + dA) = f(A) + f(dA)`: linear, so each change passes or not by itself, whatever its
//! weight.
//!
//! State: none. A row whose predicate is unknown does not pass; one whose predicate fails does not
//! pass either and is reported, under every `on_error` policy that goes on (a NULL predicate
//! selects nothing).

use crate::expr::Predicate;
use crate::report::report;
use crate::{Operator, Out};
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;

/// Lets rows pass for which a predicate is true.
pub struct Filter {
    predicate: Predicate,
}

impl Filter {
    /// A filter by `predicate`.
    pub fn new(predicate: Predicate) -> Filter {
        Filter { predicate }
    }
}

impl Operator for Filter {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let (mask, failures) = self.predicate.evaluate(batch.rows())?;
        report(&batch, failures, out)?;
        match mask.true_count() {
            0 => Ok(()),
            n if n == batch.num_rows() => out.send(batch),
            _ => out.send(batch.filter(&mask)),
        }
    }
}
