//! Changelogs (see [`crate::changelog`]): the input goes to the owners of its key, or of the whole
//! row, where its changes are numbered.

use crate::changelog::Changelog;
use crate::lower::aggregate::keyable;
use crate::lower::{Builder, Stream, schema_of};
use datafusion_expr::UserDefinedLogicalNodeCore;
use tidemark_common::Result;
use tidemark_plan::{Op, Properties};

impl Builder {
    pub(super) fn changelog(&mut self, changelog: &Changelog) -> Result<Stream> {
        let input = self.lower(&changelog.input)?;
        for field in input.node.schema.fields() {
            keyable(field.data_type(), "a changelog")?;
        }
        // A relation of one column has it also where nothing reads it.
        let key = input.node.properties.key.clone();
        let all: Vec<usize> = (0..input.width()).collect();
        let by = key.as_ref().unwrap_or(&all);
        let input = self.exchange(input, by);
        let number = input.width() + 1;
        let op = Op::Changelog {
            key,
            table: self.tables(1),
        };
        let properties = Properties {
            append_only: true,
            key: Some(vec![number]),
        };
        let schema = schema_of(UserDefinedLogicalNodeCore::schema(changelog));
        Ok(input.wrap(op, schema, properties))
    }
}
