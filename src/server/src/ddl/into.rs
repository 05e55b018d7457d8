//! CREATE SINK INTO a table, as far as it is about the table: who may write it, and what the
//! columns have that the sink does not send.

use crate::session::Session;
use tidemark_common::{Error, Result};
use tidemark_plan::{Catalog, Format, Privilege, Relation};
use tidemark_query::dml::has_constant_default;

impl Session {
    /// Completes a sink that is about to be created, if it writes a table.
    ///
    /// Errors: `42501` for who may not write it, `0A000` for a default that is computed for each
    /// row.
    pub(super) async fn fill_sink(&mut self, catalog: &Catalog, sink: &mut Relation) -> Result<()> {
        let Some(mut into) = sink.into_table() else {
            return Ok(());
        };
        let Some(table) = catalog.relations.get(&into.table) else {
            return Err(Error::internal("the table of a sink is not there"));
        };
        self.asker.require(Privilege::Insert, table)?;
        let adds = sink.connector.as_ref().map(|c| c.format) == Some(Format::Plain);
        if !adds || !table.key.is_empty() {
            self.asker.require(Privilege::Update, table)?;
        }
        if !adds {
            self.asker.require(Privilege::Delete, table)?;
        }
        for (at, column) in table.visible() {
            if into.columns.contains(&at) || column.default.is_none() {
                continue;
            }
            if !has_constant_default(column)? {
                return Err(Error::unsupported(format!(
                    "the default of column \"{}\" of table \"{}\" is computed for each row, and \
                     the sink has no value for it",
                    column.name, table.name
                ))
                .with_hint("Compute the column in the sink's query."));
            }
            let value = self.asker.missing_value(column).await?;
            into.defaults.push((at, value.text));
        }
        if let Some(connector) = &mut sink.connector {
            into.write(connector);
        }
        Ok(())
    }
}
