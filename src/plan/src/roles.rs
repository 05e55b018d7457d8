//! Roles: who may come in. Those that nobody has changed are not stored.

use crate::Catalog;
use serde::{Deserialize, Serialize};

/// The role that is there from the beginning.
pub const ROOT: &str = "root";

/// A role; a user is one that may log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may do everything. There are no others yet.
    pub superuser: bool,
    /// Whether it may log in.
    pub login: bool,
    /// What a password is held against: `SCRAM-SHA-256$iterations:salt$stored key:server key`, in
    /// base64. The password itself is nowhere. Without one, a role comes in from this machine only.
    pub verifier: Option<String>,
    /// When its password stops to count, in microseconds since 1970.
    pub valid_until: Option<i64>,
}

impl Role {
    /// A role that may log in, without password.
    pub fn new(name: impl Into<String>) -> Role {
        Role {
            name: name.into(),
            superuser: true,
            login: true,
            verifier: None,
            valid_until: None,
        }
    }
}

impl Catalog {
    /// A role by its name.
    pub fn role(&self, name: &str) -> Option<Role> {
        let stored = self.roles.get(name).cloned();
        stored.or_else(|| (name == ROOT).then(|| Role::new(ROOT)))
    }

    /// All roles, `root` first, then by name.
    pub fn all_roles(&self) -> Vec<Role> {
        let others = self.roles.values().filter(|r| r.name != ROOT).cloned();
        self.role(ROOT).into_iter().chain(others).collect()
    }
}
