//! What ALTER of columns asks of the planner: a column as it is declared, and what the text of a
//! query says of the columns of a relation.
//!
//! **Sound**: a query depends on a column of a relation if any expression of its plan, before
//! anything is optimised, names it under a name of that relation. So stars, joins by NATURAL and
//! USING and whole rows are told by what they stand for, and a column that is named where it makes
//! no difference counts as well, as it does for PostgreSQL.

use crate::bind::{Expander, Provider, Scopes, Table};
use crate::create::column_of;
use crate::error::to_error;
use crate::parse::parse_query;
use crate::statement::{ColumnDefinition, Positions};
use crate::{Planner, limits};
use datafusion_common::Column as Named;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast;
use std::collections::BTreeSet;
use tidemark_common::{Error, RelationId, Result};
use tidemark_plan::{Column, Relation};

impl Planner {
    /// The column that ALTER TABLE adds.
    ///
    /// Errors: `0A000` for one that is computed; those of CREATE TABLE.
    pub fn plan_column(&self, definition: &ColumnDefinition) -> Result<Column> {
        if definition.generated.is_some() {
            let message = "a generated column cannot be added to a table";
            return Err(Error::unsupported(message)
                .at(definition.position)
                .with_detail("The rows that are there would have to be computed anew.")
                .with_hint("Make the table anew with it, and copy its rows."));
        }
        self.check_defaults(std::slice::from_ref(definition))?;
        column_of(definition, &self.zone, &self.registry)
    }

    /// The columns of a relation, by position, that the query of `reader` names.
    ///
    /// Errors: those of planning the query's text.
    pub fn columns_named(&self, reader: &Relation, of: &Relation) -> Result<BTreeSet<usize>> {
        let path = [reader.schema_name.clone(), "public".to_string()];
        let provider = Provider {
            catalog: &self.catalog,
            registry: &self.registry,
            search_path: &path,
        };
        let positions = Positions::default();
        let mut query = parse_query(&reader.query)?;
        limits::settle(&mut query)?;
        let mut expander = Expander::new(&provider, &positions).inside(reader);
        expander.query(&mut query)?;
        Scopes::new(&provider, &positions).rewrite(&mut query)?;
        let options = ParserOptions::from(&self.registry.options().sql_parser);
        let planner = SqlToRel::new_with_options(&provider, options);
        let plan = planner.sql_statement_to_plan(ast::Statement::Query(query));
        let plan = plan.map_err(|e| to_error(e, &positions))?;
        let mut named = Mentions::of(of.id);
        named.look(&plan).map_err(|e| to_error(e, &positions))?;
        Ok(named.columns)
    }
}

/// The columns of a relation that a plan names.
struct Mentions {
    of: RelationId,
    columns: BTreeSet<usize>,
    /// Its names in the plan, with the names and positions of its columns.
    names: Vec<(String, Vec<(String, usize)>)>,
}

impl Mentions {
    fn of(of: RelationId) -> Mentions {
        Mentions {
            of,
            columns: BTreeSet::new(),
            names: Vec::new(),
        }
    }

    fn look(&mut self, plan: &LogicalPlan) -> datafusion_common::Result<()> {
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::SubqueryAlias(alias) => {
                    if let LogicalPlan::TableScan(scan) = alias.input.as_ref() {
                        self.scanned(scan, alias.alias.table());
                    }
                }
                LogicalPlan::TableScan(scan) => self.scanned(scan, scan.table_name.table()),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part {
                        self.named(column);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(())
    }

    fn scanned(&mut self, scan: &datafusion_expr::TableScan, name: &str) {
        let table = scan.source.downcast_ref::<Table>();
        if let Some(table) = table.filter(|table| table.relation.id == self.of) {
            let columns = table.relation.visible().map(|(at, c)| (c.name.clone(), at));
            self.names.push((name.to_string(), columns.collect()));
        }
    }

    fn named(&mut self, column: &Named) {
        let table = column.relation.as_ref().map(|r| r.table());
        for (name, columns) in &self.names {
            if table.is_none_or(|table| table == name) {
                let same = columns.iter().filter(|(name, _)| *name == column.name);
                self.columns.extend(same.map(|(_, at)| *at));
            }
        }
    }
}
