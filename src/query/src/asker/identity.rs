//! Whom a client acts as: the role that it logged in as, or one that it has taken since by SET
//! SESSION AUTHORIZATION or SET ROLE, with that role's privileges and no others. What it took is
//! one of its settings, so that it ends with the transaction as they do. A role is known by its
//! number: when it is dropped, another one of its name is another one.

use super::Asker;
use crate::catalog_tables::roles;
use crate::identity::wanted;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Catalog;

/// The roles that a client has acted as, and their numbers at that time.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<String, u32>);

impl Taken {
    /// One more, if it is there.
    pub(super) fn take(&mut self, catalog: &Catalog, name: &str) {
        if let Some(id) = catalog.role_id(name) {
            self.0.insert(name.into(), id);
        }
    }

    /// `42704` for a role that is not there any more.
    fn check(&self, catalog: &Catalog, name: &str) -> Result<()> {
        match self.0.get(name) {
            Some(id) if catalog.role_id(name) != Some(*id) => {
                let message = format!("invalid role OID: {}", roles::oid_of_number(*id));
                Err(Error::user(SqlState::UNDEFINED_OBJECT, message))
            }
            _ => Ok(()),
        }
    }
}

impl Asker {
    /// The role that the client logged in as, or took by SET SESSION AUTHORIZATION.
    pub fn session_user(&self) -> &str {
        self.settings.session_user()
    }

    /// SET ROLE, SET SESSION AUTHORIZATION; none is the default.
    ///
    /// Errors: as [`wanted`].
    pub fn act_as(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let catalog = self.catalog();
        let role = wanted(&catalog, &self.settings, name, value)?;
        let superuser = catalog.is_superuser(&role);
        self.taken.take(&catalog, &role);
        let settings = Arc::make_mut(&mut self.settings);
        let reports = settings.act_as(name, value, superuser, local);
        for (name, value) in reports {
            self.report(name, value);
        }
        Ok(())
    }

    /// Whether the roles of this client are still those that it has taken.
    ///
    /// Errors: `42704`.
    pub fn check_roles(&mut self) -> Result<()> {
        let (seen, settings) = &self.checked;
        let same = Arc::ptr_eq(settings, &self.settings);
        if same && self.commons.engine.is_newest(seen.as_ptr()) {
            return Ok(());
        }
        let (catalog, settings) = (self.catalog(), &self.settings);
        self.check_session_role(&catalog)?;
        self.taken.check(&catalog, settings.user())?;
        self.checked = (Arc::downgrade(&catalog), settings.clone());
        Ok(())
    }

    /// As [`Asker::check_roles`], of the role alone that SET ROLE goes back to.
    pub fn check_session_role(&self, catalog: &Catalog) -> Result<()> {
        self.taken.check(catalog, self.settings.login())?;
        self.taken.check(catalog, self.settings.session_user())
    }
}
