//! What is to be computed: scalar expressions, stream plans cut into fragments, and catalog
//! entries. Everything here is data with a stable serialised form (JSON): lowered plans are stored
//! in the catalog and a restart never plans anew.

mod altered;
pub mod catalog;
mod codec;
pub mod expr;
mod into;
pub mod maps;
pub mod messages;
mod named;
pub mod order;
pub mod plan;
pub mod roles;
pub mod secrets;
pub mod succession;
pub mod watermark;

pub use altered::{Altered, MISSING, Names, is_name_of_dropped};
pub use catalog::*;
pub use codec::{PLAN_VERSION, Unreadable};
pub use expr::*;
pub use into::{INTO_TABLE, IntoTable};
pub use named::Named;
pub use order::*;
pub use plan::*;
pub use roles::{DefaultGrant, Grant, Grants, NewObject, Object, Privilege, ROOT, Role};
pub use secrets::{Hidden, MASK, Secret, SecretName, is_secret_option};
pub use watermark::*;
