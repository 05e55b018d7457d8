//! Which role a client acts as when it sets one, and whether it may.

use crate::settings::{NO_ROLE, ROLE, SESSION_AUTHORIZATION, Settings};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Catalog;

/// Whether a setting says whom a client acts as.
pub fn is_of_identity(name: &str) -> bool {
    [ROLE, SESSION_AUTHORIZATION]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
}

/// The role that a client acts as when it sets such a setting; none is the default.
///
/// Errors: `22023` for a role that is not there, `42501` for one that the client may not take.
pub fn wanted(
    catalog: &Catalog,
    settings: &Settings,
    name: &str,
    value: Option<&str>,
) -> Result<String> {
    let of_role = name.eq_ignore_ascii_case(ROLE);
    let own = match of_role {
        true => settings.session_user(),
        false => settings.login(),
    };
    let wanted = match value {
        None => return Ok(own.into()),
        Some(NO_ROLE) if of_role => return Ok(own.into()),
        Some(wanted) => wanted,
    };
    if catalog.role(wanted).is_none() {
        let message = format!("role \"{wanted}\" does not exist");
        return Err(Error::user(SqlState::INVALID_PARAMETER, message));
    }
    let may = match of_role {
        true => catalog.is_superuser(own) || catalog.memberships(own).contains(wanted),
        false => catalog.is_superuser(own) || own == wanted,
    };
    let message = match of_role {
        _ if may => return Ok(wanted.into()),
        true => format!("permission denied to set role \"{wanted}\""),
        false => "permission denied to set session authorization".into(),
    };
    Err(Error::user(SqlState("42501"), message))
}
