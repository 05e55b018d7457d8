//! Sinks into tables: which table, and which of its columns get what the sink sends. It stands in
//! the options of the sink's connector, which is called `table`.

use crate::{Catalog, ConnectorSpec, Relation};
use std::collections::BTreeSet;
use tidemark_common::RelationId;

/// The connector of a sink into a table.
pub const INTO_TABLE: &str = "table";

const TABLE: &str = "table.id";
const COLUMNS: &str = "table.columns";
const DEFAULT: &str = "table.default.";

/// Where a sink into a table writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntoTable {
    /// The table.
    pub table: RelationId,
    /// The position of the table's column that each column of the sink goes to.
    pub columns: Vec<usize>,
    /// The values of other columns that have a default, as `tidemark_state::added` writes them.
    pub defaults: Vec<(usize, String)>,
}

impl IntoTable {
    /// Puts it into the options of a connector.
    pub fn write(&self, spec: &mut ConnectorSpec) {
        let columns: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let options = &mut spec.options;
        options.insert(TABLE.into(), self.table.0.to_string());
        options.insert(COLUMNS.into(), columns.join(","));
        for (at, value) in &self.defaults {
            options.insert(format!("{DEFAULT}{at}"), value.clone());
        }
    }

    fn read(spec: &ConnectorSpec) -> Option<IntoTable> {
        let options = &spec.options;
        let columns = options.get(COLUMNS)?.split(',').filter(|c| !c.is_empty());
        let defaults = options.iter().filter_map(|(key, value)| {
            let at = key.strip_prefix(DEFAULT)?.parse().ok()?;
            Some((at, value.clone()))
        });
        Some(IntoTable {
            table: RelationId(options.get(TABLE)?.parse().ok()?),
            columns: columns.map(|c| c.parse().ok()).collect::<Option<_>>()?,
            defaults: defaults.collect(),
        })
    }
}

impl Relation {
    /// Where it writes, if it is a sink into a table.
    pub fn into_table(&self) -> Option<IntoTable> {
        let spec = self.connector.as_ref()?;
        (spec.connector == INTO_TABLE).then(|| IntoTable::read(spec))?
    }
}

impl Catalog {
    /// Whether what one of these relations has depends on that relation: it reads it, or is written
    /// by a sink that does.
    pub fn rests_on(&self, relations: &[RelationId], on: RelationId) -> bool {
        let (mut all, mut open) = (BTreeSet::new(), relations.to_vec());
        while let Some(id) = open.pop() {
            if id == on {
                return true;
            }
            if !all.insert(id) {
                continue;
            }
            let own = self.relations.get(&id).into_iter();
            open.extend(own.flat_map(|r| r.depends_on.iter().copied()));
            for sink in self.relations.values() {
                if let Some(into) = sink.into_table().filter(|into| into.table == id) {
                    let reads = sink.depends_on.iter().copied();
                    open.extend(reads.filter(|read| *read != into.table));
                }
            }
        }
        false
    }
}
