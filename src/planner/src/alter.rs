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
use crate::names::name_of;
use crate::parse::parse_query;
use crate::statement::{ColumnDefinition, Positions};
use crate::{Planner, limits};
use datafusion_common::Column as Named;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Ident, Query, TableFactor, VisitMut, VisitorMut};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, RelationId, Result};
use tidemark_plan::{Catalog, Column, Relation};

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

    /// The query of a view as it would have to be written now to mean the same: relations that it
    /// knows by other columns than they have stand in it with those.
    pub fn query_now(&self, reader: &Relation) -> Result<String> {
        let now = |id: &RelationId| self.catalog.relations.get(id);
        let known = reader.altered.known_as.iter();
        let mut known = known.filter_map(|(id, names)| Some((now(id)?, names)));
        let differs = known.any(|(relation, names)| {
            let visible = relation.visible().map(|(at, c)| (c.name.clone(), at));
            visible.collect::<Vec<_>>() != *names
        });
        if !differs {
            return Ok(reader.query.clone());
        }
        let mut query = parse_query(&reader.query)?;
        let mut names = Now {
            catalog: &self.catalog,
            reader,
            hidden: BTreeSet::new(),
        };
        names.hide(&query);
        let _ = VisitMut::visit(&mut query, &mut names);
        Ok(query.to_string())
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

/// Puts relations into a query's text as it knows them.
struct Now<'a> {
    catalog: &'a Catalog,
    reader: &'a Relation,
    /// Names of common table expressions.
    hidden: BTreeSet<String>,
}

impl Now<'_> {
    fn hide(&mut self, query: &Query) {
        struct Names<'a>(&'a mut BTreeSet<String>);
        impl ast::Visitor for Names<'_> {
            type Break = ();
            fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
                let tables = query.with.iter().flat_map(|with| &with.cte_tables);
                let names = tables.map(|table| crate::names::fold(table.alias.name.clone()));
                self.0.extend(names);
                ControlFlow::Continue(())
            }
        }
        let _ = ast::Visit::visit(query, &mut Names(&mut self.hidden));
    }

    fn relation(&self, object: &ast::ObjectName) -> Option<&Relation> {
        let name = name_of(object, 0).ok()?;
        let known = self.reader.altered.known_as.keys();
        let mut known = known.filter_map(|id| self.catalog.relations.get(id));
        let found = known.find(|r| {
            let schema = name.schema.as_ref().is_none_or(|s| *s == r.schema_name);
            schema && r.name == name.name
        })?;
        let hidden = name.schema.is_none() && self.hidden.contains(&name.name);
        (!hidden).then_some(found)
    }
}

impl VisitorMut for Now<'_> {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let Some(relation) = self.relation(name) else {
            return ControlFlow::Continue(());
        };
        let quoted = |name: &str| Ident::with_quote('"', name).to_string();
        let known = self.reader.altered.known_as.get(&relation.id);
        let columns = known.into_iter().flatten().filter_map(|(name, at)| {
            let now = quoted(&relation.columns.get(*at)?.name);
            Some(match quoted(name) {
                same if same == now => now,
                then => format!("{now} AS {then}"),
            })
        });
        let columns: Vec<String> = columns.collect();
        let text = format!("SELECT {} FROM {name}", columns.join(", "));
        if let Ok(subquery) = parse_query(&text) {
            let own = || ast::TableAlias {
                explicit: true,
                name: Ident::with_quote('"', &relation.name),
                columns: Vec::new(),
                at: None,
            };
            *factor = TableFactor::Derived {
                lateral: false,
                subquery,
                alias: Some(alias.take().unwrap_or_else(own)),
                sample: None,
            };
        }
        ControlFlow::Continue(())
    }
}
