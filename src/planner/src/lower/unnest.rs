//! Functions of several rows: lists, whose elements become rows.

use crate::lower::{Builder, Stream, schema_of};
use arrow_schema::DataType;
use datafusion_common::NullHandling;
use datafusion_expr::logical_plan::Unnest;
use tidemark_common::{Error, Result};
use tidemark_plan::{Op, Properties, Unnested};

impl Builder {
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<Stream> {
        let refused = |what: &str| {
            Error::unsupported(format!(
                "UNNEST of {what} is not supported in a streaming query"
            ))
        };
        let keep_empty = match unnest.options.null_handling {
            NullHandling::Drop => false,
            NullHandling::PreserveAndExpandEmpty => true,
            NullHandling::Preserve => return Err(refused("lists that keep NULL alone")),
        };
        let input = self.lower(&unnest.input)?;
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(c, _)| *c).collect();
        if !unnest.struct_type_columns.is_empty() {
            return Err(refused("rows"));
        }
        if unnest
            .list_type_columns
            .iter()
            .any(|(_, list)| list.depth != 1)
        {
            return Err(refused("arrays in arrays"));
        }
        let fields = input.node.schema.fields();
        if !lists
            .iter()
            .all(|c| matches!(fields[*c].data_type(), DataType::List(_)))
        {
            return Err(refused("what is no array"));
        }
        let output: Vec<Unnested> = unnest
            .dependency_indices
            .iter()
            .map(|c| match lists.contains(c) {
                true => Unnested::Element(*c),
                false => Unnested::Column(*c),
            })
            .collect();
        let place = |column: &usize| output.iter().position(|o| *o == Unnested::Column(*column));
        let known = input.partitions.iter();
        let partitions = known
            .filter_map(|columns| columns.iter().map(place).collect())
            .collect();
        let properties = Properties {
            append_only: input.node.properties.append_only,
            key: None,
        };
        let op = Op::Unnest {
            lists,
            output,
            keep_empty,
        };
        let mut stream = input.wrap(op, schema_of(&unnest.schema), properties);
        stream.partitions = partitions;
        Ok(stream)
    }
}
