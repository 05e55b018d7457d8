//! Which relations a statement reads, by the names in it, before it is planned: the epoch that it
//! sees has to be complete in them, and in no others.
//!
//! A name of the statement's own (WITH) that is also a relation's counts as that: then the epoch is
//! one that is complete in more than is read.

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
        let parts = name.0.iter().filter_map(|part| part.as_ident());
        let parts: Vec<String> = parts
            .map(|ident| match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            })
            .collect();
        let (schema, name) = match parts.as_slice() {
            [.., schema, name] => (Some(schema), name),
            [name] => (None, name),
            [] => return ControlFlow::Continue(()),
        };
        let schemas = schema.map_or(self.search_path, std::slice::from_ref);
        let mut found = schemas.iter().filter_map(|s| self.catalog.find(s, name));
        if let Some(relation) = found.next().cloned() {
            self.add(&relation);
        }
        ControlFlow::Continue(())
    }
}
