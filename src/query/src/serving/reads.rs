//! Which relations a statement reads, by the names in it, before it is planned: the epoch that it
//! sees has to be complete in them, and in no others.
//!
//! A name of the statement's own (WITH) that is also a relation's counts as that: then the epoch is
//! one that is complete in more than is read.

use crate::identifiers::name_of;
use datafusion::sql::sqlparser::ast::{self, ObjectName};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::RelationId;
use tidemark_plan::{Catalog, Relation, RelationKind};

/// The relations with jobs among those which `node` names, or a view in it does.
pub fn relations_in<V: ast::Visit>(
    catalog: &Catalog,
    search_path: &[String],
    node: &V,
) -> Vec<RelationId> {
    let mut reads = Reads {
        catalog,
        search_path,
        found: BTreeSet::new(),
    };
    let _ = ast::Visit::visit(node, &mut reads);
    reads.found.into_iter().collect()
}

struct Reads<'a> {
    catalog: &'a Catalog,
    search_path: &'a [String],
    found: BTreeSet<RelationId>,
}

impl Reads<'_> {
    fn add(&mut self, relation: &Relation) {
        if relation.kind != RelationKind::View {
            self.found.insert(relation.id);
            return;
        }
        let inputs = relation.depends_on.iter();
        for input in inputs.filter_map(|id| self.catalog.relations.get(id)) {
            self.add(input);
        }
    }
}

impl ast::Visitor for Reads<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        // The planner refuses what is no name.
        let Ok(name) = name_of(name) else {
            return ControlFlow::Continue(());
        };
        let schemas = name.schema.as_ref();
        let schemas = schemas.map_or(self.search_path, std::slice::from_ref);
        let mut found = schemas
            .iter()
            .filter_map(|schema| self.catalog.find(schema, &name.name));
        if let Some(relation) = found.next().cloned() {
            self.add(&relation);
        }
        ControlFlow::Continue(())
    }
}
