//! The text of a query as it would have to be written now to mean what it meant: relations and
//! columns may have other names since.

use crate::Planner;
use crate::names::{fold, name_of};
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, Ident, Query, TableFactor, VisitMut, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};
use tidemark_plan::{Catalog, Relation, RelationKind};

impl Planner {
    /// The query of a view, sink or subscription as it would have to be written now. A relation
    /// with another name has the one that the text knows as an alias; one with other columns is a
    /// subquery that gives them the names that the text knows.
    ///
    /// Errors: `XX000` for a text that is not a query.
    pub fn query_now(&self, reader: &Relation) -> Result<String> {
        let mut query = parse_query(&reader.query)?;
        let mut names = Now {
            catalog: &self.catalog,
            reader,
            scopes: Vec::new(),
            withs: Vec::new(),
            in_full: false,
            changed: false,
        };
        let _ = VisitMut::visit(&mut query, &mut names);
        if !names.changed {
            return Ok(reader.query.clone());
        }
        let text = query.to_string();
        match parse_query(&text) {
            Ok(read) if read == query => Ok(text),
            _ => Err(Error::internal(format!(
                "the query of \"{}\" does not read as it is written",
                reader.name
            ))),
        }
    }
}

/// Puts what a body means by its names into it in full, so that it means the same wherever it is
/// put.
pub(crate) fn in_full(body: &mut Query, of: &Relation, catalog: &Catalog) {
    let mut names = Now {
        catalog,
        reader: of,
        scopes: Vec::new(),
        withs: Vec::new(),
        in_full: true,
        changed: false,
    };
    let _ = VisitMut::visit(body, &mut names);
}

/// Puts relations and functions into a query's text as they are called now.
struct Now<'a> {
    catalog: &'a Catalog,
    reader: &'a Relation,
    /// Names of common table expressions in scope, innermost last.
    scopes: Vec<BTreeSet<String>>,
    /// The WITH clauses of the queries being visited, taken out while their bodies are.
    withs: Vec<Option<ast::With>>,
    /// Every name with its schema.
    in_full: bool,
    changed: bool,
}

impl Now<'_> {
    /// The relation that a name in FROM means, with its name as the text has it.
    fn relation(&self, object: &ast::ObjectName) -> Option<(&Relation, String)> {
        let name = name_of(object, 0).ok()?;
        let schema = name.schema.as_deref();
        if schema.is_none() && self.scopes.iter().any(|s| s.contains(&name.name)) {
            return None;
        }
        let meant = self.reader.means(schema, &name.name);
        let mut meant = meant.filter_map(|id| self.catalog.relations.get(&id));
        let relation = match meant.find(|r| r.kind != RelationKind::Function) {
            Some(relation) => relation,
            // Written before meanings were noted: then nothing that it names was renamed.
            None => {
                let known = self.reader.altered.known_as.keys();
                let mut known = known.filter_map(|id| self.catalog.relations.get(id));
                known.find(|r| schema.is_none_or(|s| *s == r.schema_name) && r.name == name.name)?
            }
        };
        Some((relation, name.name.clone()))
    }

    /// What has to stand in the place of a relation's name; nothing where it can stay.
    fn instead(&self, object: &ast::ObjectName) -> Option<Instead> {
        let (relation, written) = self.relation(object)?;
        let schema = match object.0.as_slice() {
            [_] => None,
            _ => name_of(object, 0).ok()?.schema,
        };
        let is_elsewhere =
            self.in_full || relation.schema_name != schema.as_deref().unwrap_or("public");
        let mut name = object.clone();
        if written != relation.name || is_elsewhere {
            let mut parts = vec![quoted(&relation.name)];
            if schema.is_some() || is_elsewhere {
                parts.insert(0, quoted(&relation.schema_name));
            }
            name = ast::ObjectName::from(parts);
        }
        let columns = self.columns(relation);
        if columns.is_none() && name == *object {
            return None;
        }
        Some(Instead {
            name,
            alias: quoted(&written),
            columns,
        })
    }

    /// The name of a function that is not where the search path always leads.
    fn call(&mut self, name: &mut ast::ObjectName) {
        let Ok(written) = name_of(name, 0) else {
            return;
        };
        let meant = self.reader.means(written.schema.as_deref(), &written.name);
        let mut meant = meant.filter_map(|id| self.catalog.relations.get(&id));
        let Some(function) = meant.find(|r| r.kind == RelationKind::Function) else {
            return;
        };
        if written.schema.is_none() && (self.in_full || function.schema_name != "public") {
            let parts = vec![quoted(&function.schema_name), quoted(&function.name)];
            *name = ast::ObjectName::from(parts);
            self.changed = true;
        }
    }

    /// Its columns by the names that the text has for them, if those are not theirs.
    fn columns(&self, relation: &Relation) -> Option<String> {
        let known = self.reader.altered.known_as.get(&relation.id)?;
        let names = relation.visible().map(|(at, c)| (c.name.clone(), at));
        if names.collect::<Vec<_>>() == *known {
            return None;
        }
        let columns = known.iter().filter_map(|(name, at)| {
            let now = quoted(&relation.columns.get(*at)?.name);
            Some(match quoted(name) {
                same if same == now => now.to_string(),
                then => format!("{now} AS {then}"),
            })
        });
        Some(columns.collect::<Vec<_>>().join(", "))
    }

    fn factor(&mut self, factor: &mut TableFactor) {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let Some(instead) = self.instead(name) else {
                    return;
                };
                let own = alias.take().unwrap_or_else(|| instead.as_alias());
                match instead.subquery() {
                    Some(subquery) => {
                        *factor = TableFactor::Derived {
                            lateral: false,
                            subquery,
                            alias: Some(own),
                            sample: None,
                        }
                    }
                    None => {
                        *name = instead.name;
                        *alias = Some(own);
                    }
                }
                self.changed = true;
            }
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                ..
            } => {
                let function = name_of(name, 0).map(|name| name.name);
                let windows = ["tumble", "hop", "session"];
                if function.is_ok_and(|f| windows.contains(&f.as_str())) {
                    self.windowed(&mut args.args, alias);
                } else {
                    self.call(name);
                }
            }
            TableFactor::Function { name, .. } => self.call(name),
            _ => {}
        }
    }

    /// The relation that TUMBLE and its like read.
    fn windowed(&mut self, args: &mut [FunctionArg], alias: &mut Option<ast::TableAlias>) {
        let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = args.first_mut() else {
            return;
        };
        let object = match first {
            Expr::Identifier(name) => ast::ObjectName::from(vec![name.clone()]),
            Expr::CompoundIdentifier(parts) => ast::ObjectName::from(parts.clone()),
            _ => return,
        };
        let Some(instead) = self.instead(&object) else {
            return;
        };
        alias.get_or_insert_with(|| instead.as_alias());
        *first = match instead.subquery() {
            Some(subquery) => Expr::Subquery(subquery),
            None => {
                let parts = instead.name.0.iter().filter_map(|p| p.as_ident().cloned());
                match parts.collect::<Vec<_>>() {
                    parts if parts.len() > 1 => Expr::CompoundIdentifier(parts),
                    parts => Expr::Identifier(parts.into_iter().next().unwrap_or(instead.alias)),
                }
            }
        };
        self.changed = true;
    }
}

/// What has to stand in the place of a relation's name.
struct Instead {
    name: ast::ObjectName,
    /// The name that the text has for it.
    alias: Ident,
    /// What to select from it, if not all.
    columns: Option<String>,
}

impl Instead {
    fn as_alias(&self) -> ast::TableAlias {
        ast::TableAlias {
            explicit: true,
            name: self.alias.clone(),
            columns: Vec::new(),
            at: None,
        }
    }

    fn subquery(&self) -> Option<Box<Query>> {
        let columns = self.columns.as_ref()?;
        parse_query(&format!("SELECT {columns} FROM {}", self.name)).ok()
    }
}

fn quoted(name: &str) -> Ident {
    let mut written = String::new();
    tidemark_values::text::quote_ident(name, &mut written);
    match written == name {
        true => Ident::new(name),
        false => Ident::with_quote('"', name),
    }
}

impl VisitorMut for Now<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.scopes.push(BTreeSet::new());
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            for cte in &mut with.cte_tables {
                let name = fold(cte.alias.name.clone());
                if with.recursive {
                    self.scopes.last_mut().map(|s| s.insert(name.clone()));
                }
                let _ = VisitMut::visit(&mut cte.query, self);
                self.scopes.last_mut().map(|s| s.insert(name));
            }
        }
        self.withs.push(with);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.with = self.withs.pop().flatten();
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.call(&mut function.name);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        self.factor(factor);
        ControlFlow::Continue(())
    }
}
