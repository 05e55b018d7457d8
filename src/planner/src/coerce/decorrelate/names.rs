//! Names for columns, and what is said of a subquery that stays one.

use crate::error::external;
use datafusion_common::DataFusionError;
use tidemark_common::Error;

/// How columns of domains are called.
const OUTER: &str = "__outer_";

/// Names that nothing else in the statement has.
#[derive(Default)]
pub(super) struct Names(pub usize);

impl Names {
    pub(super) fn outer(&mut self) -> String {
        self.fresh(OUTER)
    }

    pub(super) fn fresh(&mut self, prefix: &str) -> String {
        self.0 += 1;
        format!("{prefix}{}", self.0)
    }

    pub(super) fn is_outer(name: &str) -> bool {
        name.starts_with(OUTER)
    }
}

/// `0A000`: "a correlated subquery .. is not supported".
pub(super) fn refused(what: &str) -> DataFusionError {
    let error = Error::unsupported(format!("a correlated subquery {what} is not supported"));
    external(error.with_hint("Join the relations instead, and group or number the rows by a key."))
}
