//! What a call or an operator means, by PostgreSQL's rules: from its signatures, by the types of
//! what it is applied to.
//!
//! PostgreSQL's functions are overloaded (`length(text)`, `length(bytea)`), and its quoted
//! constants have no type until the call they stand in has been chosen. DataFusion has neither: a
//! quoted constant is text to it, and each function coerces what it gets. So calls are resolved
//! here, and handed to DataFusion with arguments of exactly the types that the function declares:
//!
//! * [`types`]: the types of SQL, which of them stand for which others, and their categories;
//! * [`table`]: the signatures, `functions.txt` and `operators.txt`, as PostgreSQL's own catalog
//!   has them;
//! * [`choose`]: one signature for a call (PostgreSQL's manual, "Function Type Resolution");
//! * [`bind`]: what polymorphic parameters (`anyelement`, `anycompatiblearray`) come to in it;
//! * [`overloaded`]: a function that is called by them;
//! * [`argument`]: an argument of a function that a statement made.
//!
//! A function that is in the table under a name that we have is called by the table only. Those
//! that are not in it (DataFusion's own, and functions about the catalog) coerce as they say
//! themselves.

mod argument;
mod bind;
mod choose;
mod overloaded;
mod table;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use argument::{argument, argument_name, is_argument};
pub(crate) use bind::{Call, common_of, common_type, unmatched};
pub(crate) use choose::{Mismatch, choose_operator, no_operator};
pub(crate) use overloaded::Overloaded;
pub use overloaded::bound;
pub(crate) use table::signatures;
pub(crate) use types::{Arg, Type, assigns, type_text};
