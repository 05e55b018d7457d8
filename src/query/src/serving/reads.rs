//! Which relations a statement reads, by the names in it, before it is planned: the epoch that it
//! sees has to be complete in them, and in no others.
//!
//! A function that a statement made reads what its body names.
//!
//! A name of the statement's own (WITH) that is also a relation's counts as that: then the epoch is
//! one that is complete in more than is read.

use crate::identifiers::name_of;
use datafusion::sql::sqlparser::ast::{self, ObjectName};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::RelationId;
use tidemark_plan::{Catalog, Relation, RelationKind};
use tidemark_planner::functions::declared;

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
        functions: BTreeSet::new(),
    };
    let _ = ast::Visit::visit(node, &mut reads);
    reads.found.into_iter().collect()
}

struct Reads<'a> {
    catalog: &'a Catalog,
    search_path: &'a [String],
    found: BTreeSet<RelationId>,
    /// Functions whose bodies are read.
    functions: BTreeSet<RelationId>,
}

impl Reads<'_> {
    fn add(&mut self, relation: &Relation) {
        match relation.kind {
            RelationKind::View => {}
            // What it reads stands beside it.
            RelationKind::Function => return,
            _ => {
                self.found.insert(relation.id);
                return;
            }
        }
        let inputs = relation.depends_on.iter();
        for input in inputs.filter_map(|id| self.catalog.relations.get(id)) {
            self.add(input);
        }
    }

    /// What the functions of this name read, whatever arguments they take.
    fn call(&mut self, name: &ObjectName) {
        let Ok(name) = name_of(name) else {
            return;
        };
        let catalog = self.catalog;
        let schemas = name.schema.as_ref();
        let schemas = schemas.map_or(self.search_path, std::slice::from_ref);
        let named = schemas
            .iter()
            .flat_map(|s| catalog.functions(s, &name.name));
        for function in named {
            if self.functions.insert(function.id)
                && let Ok(made) = declared(function)
            {
                let defaults = made.parameters.iter().filter_map(|p| p.default.as_ref());
                for default in defaults {
                    let _ = ast::Visit::visit(default, self);
                }
                let _ = ast::Visit::visit(&made.body, self);
            }
        }
    }
}

impl ast::Visitor for Reads<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Function(function) = expr {
            self.call(&function.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Function { name, .. }
        | ast::TableFactor::Table {
            name,
            args: Some(_),
            ..
        } = factor
        {
            self.call(name);
        }
        ControlFlow::Continue(())
    }

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
