//! CREATE, ALTER and DROP ROLE.

use crate::auth::Verifier;
use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::CatalogChange;
use tidemark_plan::{ROOT, Role};
use tidemark_planner::statement::RoleOption;
use tidemark_query::outcome::Outcome;
use tidemark_values::moment;

/// Letters of a password at most.
const PASSWORD_MAX: usize = 1024;

impl Session {
    pub(crate) async fn create_role(
        &mut self,
        name: &str,
        user: bool,
        options: &[RoleOption],
    ) -> Result<Outcome> {
        if name.starts_with("pg_") || ["public", "none", "current_user"].contains(&name) {
            let message = format!("role name \"{name}\" is reserved");
            return Err(Error::user(SqlState("42939"), message));
        }
        self.require_superuser("create roles")?;
        let mut role = Role::new(name);
        role.login = user;
        self.with_options(&mut role, options)?;
        let change = CatalogChange::CreateRole {
            role: Box::new(role),
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        Ok(Outcome::Command("CREATE ROLE".into()))
    }

    pub(crate) async fn alter_role(
        &mut self,
        name: &str,
        options: &[RoleOption],
    ) -> Result<Outcome> {
        let name = self.named_role(name);
        let mut role = self.catalog().role(&name).ok_or_else(|| no_role(&name))?;
        // Who may do less changes its own password.
        let own = |o: &RoleOption| matches!(o, RoleOption::Password(_)) && name == self.user();
        if !options.iter().all(own) {
            self.require_superuser("alter roles")?;
        }
        self.with_options(&mut role, options)?;
        if !(role.superuser && role.login) {
            self.check_others_do_everything(&[&name])?;
        }
        let change = CatalogChange::AlterRole {
            role: Box::new(role),
        };
        self.server
            .engine
            .change_catalog(vec![change], false)
            .await?;
        Ok(Outcome::Command("ALTER ROLE".into()))
    }

    pub(crate) async fn drop_role(&mut self, names: &[String], if_exists: bool) -> Result<Outcome> {
        self.require_superuser("drop roles")?;
        let mut changes = Vec::new();
        for name in names {
            if name == self.user() {
                let message = "current user cannot be dropped";
                return Err(Error::user(SqlState("55006"), message));
            }
            if name == self.asker.session_user() {
                let message = "session user cannot be dropped";
                return Err(Error::user(SqlState("55006"), message));
            }
            if name == ROOT {
                let message = "role \"root\" is always there and cannot be dropped";
                return Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
                    .with_hint("ALTER ROLE root NOLOGIN keeps it out."));
            }
            if self.catalog().role(name).is_none() {
                if !if_exists {
                    return Err(no_role(name));
                }
                let text = format!("role \"{name}\" does not exist, skipping");
                self.notice(tidemark_query::error::Notice::new(text));
                continue;
            }
            changes.push(CatalogChange::DropRole { name: name.clone() });
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.check_others_do_everything(&names)?;
        if !changes.is_empty() {
            self.server.engine.change_catalog(changes, false).await?;
        }
        Ok(Outcome::Command("DROP ROLE".into()))
    }

    /// `55000` if nobody who may do everything could log in without these roles.
    fn check_others_do_everything(&self, without: &[&str]) -> Result<()> {
        let roles = self.catalog().all_roles();
        let mut able = roles.iter().filter(|role| role.superuser && role.login);
        let is_lost = |role: &Role| without.contains(&role.name.as_str());
        if able.clone().any(is_lost) && able.all(is_lost) {
            let message = "no superuser could log in any more";
            return Err(Error::user(SqlState::OBJECT_NOT_READY, message)
                .with_hint("Let another superuser log in first."));
        }
        Ok(())
    }

    fn with_options(&self, role: &mut Role, options: &[RoleOption]) -> Result<()> {
        for option in options {
            match option {
                RoleOption::Superuser(false) if role.name == ROOT => {
                    let message = "role \"root\" may do everything, always";
                    return Err(Error::unsupported(message));
                }
                RoleOption::Superuser(superuser) => role.superuser = *superuser,
                RoleOption::Login(login) => role.login = *login,
                RoleOption::Password(None) => role.verifier = None,
                RoleOption::Password(Some(password)) => {
                    role.verifier = self.verifier(password)?;
                }
                RoleOption::ValidUntil(text) => {
                    let session = moment::Session {
                        now: tidemark_common::machine::micros(),
                        zone: self.asker.settings.zone(),
                    };
                    let at = moment::read_timestamptz(text, 6, &session)?;
                    role.valid_until = (at != i64::MAX).then_some(at);
                }
            }
        }
        Ok(())
    }

    /// What a password is held against; none for an empty one, as in PostgreSQL.
    fn verifier(&self, password: &str) -> Result<Option<String>> {
        if password.is_empty() {
            let text = "empty string is not a valid password, clearing password";
            self.notice(tidemark_query::error::Notice::new(text));
            return Ok(None);
        }
        if let Some(verifier) = Verifier::parse(password) {
            return Ok(Some(verifier.text()));
        }
        let md5 = |rest: &str| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit());
        if password.strip_prefix("md5").is_some_and(md5) {
            let message = "MD5 passwords are not supported";
            return Err(Error::unsupported(message).with_hint("Give the password itself."));
        }
        if password.len() > PASSWORD_MAX {
            let message = format!("a password has at most {PASSWORD_MAX} bytes");
            return Err(Error::user(SqlState::INVALID_PARAMETER, message));
        }
        Ok(Some(Verifier::of(password)?.text()))
    }
}

fn no_role(name: &str) -> Error {
    let message = format!("role \"{name}\" does not exist");
    Error::user(SqlState::UNDEFINED_OBJECT, message)
}
