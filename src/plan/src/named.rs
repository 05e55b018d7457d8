//! What a query's text means by the names of relations in it, for ever: which relation each is, as
//! it was found when the query was planned. Relations may change their names and schemas
//! afterwards, and whoever reads the query has another search path: what the text means stays the
//! same. Where the text is shown, it is rewritten to the names of now.

use crate::Relation;
use serde::{Deserialize, Serialize};
use tidemark_common::RelationId;

/// A name in the text of a query, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// The schema, if it was written.
    #[serde(default)]
    pub schema: Option<String>,
    /// The name.
    pub name: String,
    /// The relation.
    pub relation: RelationId,
}

impl Relation {
    /// What its query means by a name: a relation, and functions.
    pub fn means(&self, schema: Option<&str>, name: &str) -> impl Iterator<Item = RelationId> {
        let is_it = move |named: &&Named| named.schema.as_deref() == schema && named.name == name;
        self.named.iter().filter(is_it).map(|named| named.relation)
    }
}
