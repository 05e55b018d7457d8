//! Names are unique: those of relations in their schema, those of functions in it for each number
//! of parameters.

use super::Proposed;
use std::collections::{BTreeMap, BTreeSet};
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{Catalog, Relation, RelationKind};

impl Proposed<'_> {
    /// No two relations of one name. What is being replaced shares its name with its successor.
    pub(super) fn check_names(
        &self,
        after: &Catalog,
        touched: &BTreeSet<RelationId>,
        canceled: &BTreeSet<RelationId>,
    ) -> Result<()> {
        let logged = after.replacing.values().copied();
        let creating = self.creating.values().filter_map(|c| c.replaces);
        let replaced: BTreeSet<RelationId> = logged.chain(creating).collect();
        let mut names: BTreeMap<(&str, &str, Option<usize>), &Relation> = BTreeMap::new();
        for relation in self.all_after(after, canceled) {
            if replaced.contains(&relation.id) {
                continue;
            }
            let is_function = relation.kind == RelationKind::Function;
            let parameters = is_function.then_some(relation.columns.len());
            let schema = relation.schema_name.as_str();
            let name = (schema, relation.name.as_str(), parameters);
            let Some(before) = names.insert(name, relation) else {
                continue;
            };
            let other = match (touched.contains(&before.id), touched.contains(&relation.id)) {
                (false, false) => continue,
                (true, _) => relation,
                (false, true) => before,
            };
            if is_function {
                return Err(same_arguments(other));
            }
            let being = if self.is_new(other.id) {
                "is being created"
            } else {
                "already exists"
            };
            let what = if other.kind == RelationKind::Index {
                "index"
            } else {
                "relation"
            };
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("{what} \"{}\" {being}", other.name),
            ));
        }
        Ok(())
    }
}

fn same_arguments(function: &Relation) -> Error {
    let message = format!(
        "function \"{}\" already exists with the same number of arguments",
        function.name
    );
    Error::user(SqlState("42723"), message)
}
