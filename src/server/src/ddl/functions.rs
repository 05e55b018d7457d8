//! CREATE, DROP, ALTER and COMMENT ON FUNCTION.

use super::done;
use crate::session::Session;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::{CatalogChange, Creation};
use tidemark_plan::{Catalog, Relation};
use tidemark_planner::functions::{has_types, kept, signature};
use tidemark_planner::statement::{
    AlterAction, CreateFunction, FunctionName, Statement, StatementKind,
};
use tidemark_query::error::Notice;
use tidemark_query::outcome::Outcome;
use tidemark_query::privileges::check_reads;

impl Session {
    pub(crate) async fn create_function(&mut self, statement: &Statement) -> Result<Outcome> {
        let StatementKind::CreateFunction(create) = &statement.kind else {
            return Err(Error::internal("not a CREATE FUNCTION"));
        };
        let catalog = self.catalog();
        let schema = match &create.name.schema {
            Some(schema) => schema.clone(),
            None => self.creation_schema()?,
        };
        self.require_creation_in(&schema)?;
        let count = create.parameters.len();
        let mut alike = catalog.functions(&schema, &create.name.name);
        let old = alike.find(|f| f.columns.len() == count).cloned();
        if let Some(old) = &old {
            check_replaces(create, old)?;
            self.require_ownership(old)?;
        }
        let planner = self
            .server
            .commons
            .sql
            .planner(catalog.clone(), &self.asker.settings.search_path())
            .in_zone(self.asker.settings.get("timezone").unwrap_or("UTC"));
        let (id, owner) = (self.server.engine.allocate_id(), self.user().to_string());
        let (create, replaced) = (statement.clone(), old.clone());
        let planned = move || planner.plan_function(id, &create, &owner, replaced.as_deref());
        let planned = self.server.serving.planning.run(planned).await?;
        check_reads(&catalog, self.user(), &planned.reads)?;
        match old {
            Some(old) => {
                let function = Box::new(kept(&old, planned.relation));
                let change = CatalogChange::Redefine { function };
                self.server
                    .engine
                    .change_catalog(vec![change], false)
                    .await?;
            }
            None => {
                let engine = self.server.engine.clone();
                let creation = Creation::default();
                engine.create_as(planned.relation, creation, |_| {}).await?;
            }
        }
        done("CREATE FUNCTION")
    }

    pub(crate) async fn drop_functions(
        &mut self,
        names: &[FunctionName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome> {
        let (catalog, mut wanted) = (self.catalog(), Vec::new());
        for name in names {
            match self.function(&catalog, name) {
                Ok(function) => {
                    self.require_ownership(&function)?;
                    wanted.push(function.id);
                }
                Err(e) if e.state() == SqlState::UNDEFINED_FUNCTION && if_exists => {
                    let text = match &name.types {
                        Some(_) => e.message().to_string(),
                        None => format!("function {}() does not exist", name.name),
                    };
                    self.notice(Notice::new(format!("{text}, skipping")));
                }
                Err(e) => return Err(e),
            }
        }
        if !wanted.is_empty() {
            self.check_dependents(&catalog, &wanted, cascade)?;
            self.server.engine.drop(&wanted, cascade).await?;
        }
        done("DROP FUNCTION")
    }

    pub(crate) async fn alter_function(
        &mut self,
        name: &FunctionName,
        action: &AlterAction,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let function = self.function(&catalog, name)?;
        self.require_ownership(&function)?;
        let relation = function.id;
        let change = match action {
            AlterAction::RenameTo(name) => {
                check_unused(&catalog, &function, "rename")?;
                let name = name.clone();
                CatalogChange::Rename { relation, name }
            }
            AlterAction::SetSchema(schema) => {
                check_unused(&catalog, &function, "move")?;
                self.require_creation_in(schema)?;
                let schema_name = schema.clone();
                CatalogChange::SetSchema {
                    relation,
                    schema_name,
                }
            }
            AlterAction::OwnerTo(owner) => {
                let owner = self.new_owner(&catalog, owner)?;
                CatalogChange::SetOwner { relation, owner }
            }
            _ => return Err(Error::internal("no action on a function")),
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        done("ALTER FUNCTION")
    }

    pub(crate) async fn comment_on_function(
        &mut self,
        name: &FunctionName,
        comment: Option<String>,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let path = self.asker.settings.search_path();
        let planner = self.server.commons.sql.planner(catalog.clone(), &path);
        if planner.is_built_in(&name.name.name) {
            self.notice(Notice::new(
                "comments on built-in functions are accepted and not kept",
            ));
            return done("COMMENT");
        }
        let function = self.function(&catalog, name)?;
        self.require_ownership(&function)?;
        let change = CatalogChange::Comment {
            relation: function.id,
            comment,
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        done("COMMENT")
    }

    /// The function that a statement names.
    ///
    /// Errors: `42883` for none, `42725` for several.
    pub(crate) fn function(
        &self,
        catalog: &Catalog,
        wanted: &FunctionName,
    ) -> Result<Arc<Relation>> {
        let name = &wanted.name;
        let path = self.asker.settings.search_path();
        let schemas = name.schema.as_ref().map_or(path, |s| vec![s.clone()]);
        let mut found = Vec::new();
        for schema in &schemas {
            for function in catalog.functions(schema, &name.name) {
                let types = wanted.types.as_ref();
                if types.map_or(Ok(true), |types| has_types(function, types))? {
                    found.push(function.clone());
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        let missing = |message: String| Err(Error::user(SqlState::UNDEFINED_FUNCTION, message));
        match (found.as_slice(), &wanted.types) {
            ([one], _) => Ok(one.clone()),
            ([], None) => missing(format!("could not find a function named \"{name}\"")),
            ([], Some(types)) => {
                let types: Vec<String> =
                    types.iter().map(|t| t.to_string().to_lowercase()).collect();
                missing(format!(
                    "function {name}({}) does not exist",
                    types.join(", ")
                ))
            }
            _ => {
                let message = format!("function name \"{name}\" is not unique");
                Err(Error::user(SqlState("42725"), message)
                    .with_hint("Specify the argument list to select the function unambiguously."))
            }
        }
    }
}

/// Errors: `42723` for a function that is there, without OR REPLACE; `0A000` for one with as many
/// parameters of other types.
fn check_replaces(create: &CreateFunction, old: &Relation) -> Result<()> {
    let types: Vec<_> = create
        .parameters
        .iter()
        .map(|p| p.data_type.clone())
        .collect();
    if create.or_replace || !has_types(old, &types)? {
        return Ok(());
    }
    let message = format!(
        "function \"{}\" already exists with same argument types",
        old.name
    );
    Err(Error::user(SqlState("42723"), message).at(create.name.position))
}

/// What uses a function names it in its text.
fn check_unused(catalog: &Catalog, function: &Relation, what: &str) -> Result<()> {
    let Some(user) = catalog.dependents(function.id).first().cloned() else {
        return Ok(());
    };
    let (signature, kind) = (signature(function), user.kind.name());
    let message = format!(
        "cannot {what} function {signature} because {kind} \"{}\" names it",
        user.name
    );
    Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
        .with_hint("Drop what names it, alter the function, and create that again."))
}
