//! Names as SQL writes them.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::statement::Name;

/// Folds an identifier as PostgreSQL does.
pub fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// `[dev.][schema.]name`.
pub fn name_of(object: &ObjectName) -> Result<Name> {
    let parts: Vec<String> = object
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(fold)
        .collect();
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.clone()),
        [schema, name] | [_, schema, name] => (Some(schema.clone()), name.clone()),
        _ => {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("improper relation name: {object}"),
            ));
        }
    };
    Ok(Name {
        schema,
        name,
        position: 0,
    })
}

/// In double quotes where needed.
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    tidemark_values::text::quote_ident(name, &mut quoted);
    quoted
}
