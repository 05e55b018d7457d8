//! The portals of a connection: statements with their parameters, and how far each has run. Most
//! clients have one at a time, without a name.

use super::Cursor;
use crate::formats::Formats;
use crate::prepared::Prepared;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_query::outcome::Tag;
use tidemark_query::parameters::Parameter;

/// A statement with its parameters.
pub struct Portal {
    /// The statement.
    pub prepared: Arc<Prepared>,
    /// Its parameters.
    pub values: Vec<Parameter>,
    /// Of its result.
    pub formats: Formats,
    /// How far it has run.
    pub state: PortalState,
}

/// How far a portal has run.
pub enum PortalState {
    /// Not yet.
    Ready,
    /// Its rows are being sent.
    Rows(Cursor, Tag),
    /// To its end; a second Execute gives nothing more.
    Done,
}

/// The portals by name.
#[derive(Default)]
pub struct Portals {
    unnamed: Option<Portal>,
    named: HashMap<String, Portal>,
}

impl Portals {
    /// One more, in place of one of its name.
    pub fn put(&mut self, name: String, portal: Portal) {
        match name.as_str() {
            "" => self.unnamed = Some(portal),
            _ => drop(self.named.insert(name, portal)),
        }
    }

    /// The portal of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Portal> {
        match name {
            "" => self.unnamed.as_ref(),
            _ => self.named.get(name),
        }
    }

    /// Takes a portal out; `34000` if there is none.
    pub fn take(&mut self, name: &str) -> Result<Portal> {
        self.remove(name).ok_or_else(|| missing(name))
    }

    /// Closes a portal, if there is one.
    pub fn remove(&mut self, name: &str) -> Option<Portal> {
        match name {
            "" => self.unnamed.take(),
            _ => self.named.remove(name),
        }
    }

    /// Closes all.
    pub fn clear(&mut self) {
        *self = Portals::default();
    }
}

/// `34000`: there is no portal of this name.
pub fn missing(name: &str) -> Error {
    Error::user(
        SqlState("34000"),
        format!("portal \"{name}\" does not exist"),
    )
}
