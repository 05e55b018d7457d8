//! `EMIT ON WINDOW CLOSE`: where in a query rows wait for the watermark of one of their columns.
//!
//! As near to the source of it as they may: columns that are computed of the one with the watermark
//! keep theirs so, and what is computed is computed once.

use crate::lower::{Builder, Stream};
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Node, Op, Properties};

impl Builder {
    /// The rows of a stream, each sent once when nothing changes it any more.
    ///
    /// Errors: `0A000` if no column has a watermark.
    pub(crate) fn emit_on_close(&mut self, stream: Stream) -> Result<Stream> {
        let goes_below = matches!(stream.node.op, Op::Project { .. } | Op::Filter { .. })
            && !self.watermarks_of(&stream.node.inputs[0]).is_empty();
        if !goes_below {
            return self.waiting(stream);
        }
        let Stream { node, partitions } = stream;
        let Node {
            op,
            mut inputs,
            schema,
            properties,
        } = node;
        let below = Stream {
            node: inputs.remove(0),
            partitions: below(&op, &partitions),
        };
        let below = self.emit_on_close(below)?;
        let mut above = match op {
            Op::Project { exprs } => below.project(exprs, schema),
            Op::Filter { predicate } => below.filter(predicate),
            _ => {
                return Err(Error::internal(
                    "rows wait below an operator that keeps some",
                ));
            }
        };
        above.node.properties.key = properties.key;
        Ok(above)
    }

    fn waiting(&mut self, stream: Stream) -> Result<Stream> {
        let watermarks = self.watermarks_of(&stream.node);
        let Some(closes) = watermarks.into_iter().next() else {
            return Err(Error::unsupported(
                "EMIT ON WINDOW CLOSE needs a column in the result that has a watermark",
            )
            .with_hint(
                "Group by window_start or window_end of a TUMBLE or HOP over a source that has a \
                 WATERMARK FOR its time column, or keep that column. What looks at later rows, \
                 joins rows that change, or may be NULL in an outer join has no watermark.",
            ));
        };
        let mut by = stream.partitions.iter();
        let by = by.find(|keys| keys.contains(&closes.column));
        let keys = by.cloned().unwrap_or_else(|| vec![closes.column]);
        let stream = self.exchange(stream, &keys);
        let (schema, properties) = (stream.node.schema.clone(), stream.node.properties.clone());
        let op = Op::EmitOnClose {
            keys,
            table: self.tables(1),
            closes: Some(closes),
        };
        let properties = Properties {
            append_only: true,
            ..properties
        };
        Ok(stream.wrap(op, schema, properties))
    }
}

/// By which columns the input of an operator is partitioned, if its output is by these.
fn below(op: &Op, partitions: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let Op::Project { exprs } = op else {
        return partitions.to_vec();
    };
    let column = |c: &usize| match exprs[*c] {
        Expr::Column(below) => Some(below),
        _ => None,
    };
    let columns = |columns: &Vec<usize>| columns.iter().map(column).collect();
    partitions.iter().filter_map(columns).collect()
}
