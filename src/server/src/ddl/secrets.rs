//! CREATE, ALTER and DROP SECRET, and what of a statement's options is kept sealed.
//!
//! A value is sealed here, before anything is handed on that could be logged: below, catalog, log
//! and checkpoints know sealed values only. An option that is secret by its name is treated as if
//! it were a secret without a name.

use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::CatalogChange;
use tidemark_plan::{Catalog, Hidden, Relation, Secret, SecretName, is_secret_option};
use tidemark_planner::statement::Name;
use tidemark_query::error::Notice;
use tidemark_query::outcome::Outcome;

impl Session {
    pub(crate) async fn create_secret(
        &mut self,
        name: &Name,
        if_not_exists: bool,
        value: &str,
    ) -> Result<Outcome> {
        let schema_name = match &name.schema {
            Some(schema) => schema.clone(),
            None => self.creation_schema()?,
        };
        self.require_creation_in(&schema_name)?;
        let secret = Secret {
            name: SecretName {
                schema_name,
                name: name.name.clone(),
            },
            owner: self.user().into(),
            sealed: self.seal(value).await?,
        };
        let created = self.change(CatalogChange::CreateSecret { secret }).await;
        match created {
            Err(e) if e.state() == SqlState::DUPLICATE_OBJECT && if_not_exists => {
                let text = format!("{}, skipping", e.message());
                self.notice(Notice::with_state(SqlState::DUPLICATE_OBJECT, text));
            }
            created => created?,
        }
        Ok(Outcome::Command("CREATE SECRET".into()))
    }

    /// What uses the secret has the new value when its connector is opened next.
    pub(crate) async fn alter_secret(&mut self, name: &Name, value: &str) -> Result<Outcome> {
        let secret = self.own_secret(&self.catalog(), name)?;
        let sealed = self.seal(value).await?;
        let name = secret.name;
        self.change(CatalogChange::AlterSecret { name, sealed })
            .await?;
        Ok(Outcome::Command("ALTER SECRET".into()))
    }

    pub(crate) async fn drop_secrets(
        &mut self,
        names: &[Name],
        if_exists: bool,
    ) -> Result<Outcome> {
        let (catalog, mut changes) = (self.catalog(), Vec::new());
        for name in names {
            match self.own_secret(&catalog, name) {
                Ok(secret) => changes.push(CatalogChange::DropSecret { name: secret.name }),
                Err(e) if e.state() == SqlState::UNDEFINED_OBJECT && if_exists => {
                    self.notice(Notice::new(format!("{}, skipping", e.message())));
                }
                Err(e) => return Err(e),
            }
        }
        if !changes.is_empty() {
            self.server.engine.change_catalog(changes, false).await?;
        }
        Ok(Outcome::Command("DROP SECRET".into()))
    }

    /// Takes what is secret out of a relation that was planned: of options it keeps sealed values.
    pub(super) async fn hide_secrets(&self, relation: &mut Relation) -> Result<()> {
        let Some(spec) = &mut relation.connector else {
            return Ok(());
        };
        let catalog = self.catalog();
        for hidden in spec.hidden.values_mut() {
            if let Some(reference) = &hidden.secret {
                let schema = Some(&reference.schema_name).filter(|s| !s.is_empty());
                let name = Name {
                    schema: schema.cloned(),
                    name: reference.name.clone(),
                    position: 0,
                };
                let secret = self.own_secret(&catalog, &name)?;
                *hidden = Hidden {
                    sealed: secret.sealed,
                    secret: Some(secret.name),
                };
            }
        }
        let names = spec.options.keys().filter(|name| is_secret_option(name));
        for name in names.cloned().collect::<Vec<_>>() {
            let value = spec.options.remove(&name).unwrap_or_default();
            let hidden = Hidden {
                sealed: self.seal(&value).await?,
                secret: None,
            };
            spec.hidden.insert(name, hidden);
        }
        Ok(())
    }

    /// A secret that this session may use and change: as nobody reads one, that is its owner's.
    ///
    /// Errors: `42704` if there is none, `42501` for somebody else's.
    fn own_secret(&self, catalog: &Catalog, name: &Name) -> Result<Secret> {
        let find = |schema: &String| {
            catalog.secret(&SecretName {
                schema_name: schema.clone(),
                name: name.name.clone(),
            })
        };
        let found = match &name.schema {
            Some(schema) => find(schema),
            None => self.asker.settings.search_path().iter().find_map(find),
        };
        let secret = found.ok_or_else(|| {
            let message = format!("secret \"{name}\" does not exist");
            let missing = Error::user(SqlState::UNDEFINED_OBJECT, message);
            match name.position {
                0 => missing,
                position => missing.at(position),
            }
        })?;
        let own = catalog.memberships(self.user()).contains(&secret.owner);
        if !own && !catalog.is_superuser(self.user()) {
            let message = format!("must be owner of secret {}", secret.name.name);
            return Err(Error::user(SqlState("42501"), message));
        }
        Ok(secret.clone())
    }

    /// The first value makes the key, on the disk.
    async fn seal(&self, value: &str) -> Result<String> {
        let (vault, value) = (self.server.engine.vault().clone(), value.to_string());
        let sealed = tokio::task::spawn_blocking(move || vault.seal(&value)).await;
        sealed.map_err(|e| Error::internal(e.to_string()))?
    }

    async fn change(&self, change: CatalogChange) -> Result<()> {
        let changes = vec![change];
        self.server.engine.change_catalog(changes, false).await
    }
}
