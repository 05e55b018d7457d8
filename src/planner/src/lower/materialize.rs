//! The last operator of what keeps its rows.

use super::{Builder, Stream};
use tidemark_plan::Op;

/// Puts `Materialize` on a stream: append-only rows stay where they are, others go to the owner of
/// their key, or of the whole row.
pub(crate) fn materialized(
    builder: &mut Builder,
    stream: Stream,
    key: Option<Vec<usize>>,
) -> Stream {
    let append_only = stream.node.properties.append_only;
    let key = key.filter(|k| !append_only && !k.is_empty());
    let all: Vec<usize> = (0..stream.width()).collect();
    let stream = match (&key, append_only) {
        (_, true) => stream,
        (Some(key), _) => builder.exchange(stream, key),
        (None, _) => builder.exchange(stream, &all),
    };
    kept(builder, stream, key)
}

/// `Materialize` by a key even when nothing is ever deleted.
pub(crate) fn materialized_by(
    builder: &mut Builder,
    stream: Stream,
    key: Option<Vec<usize>>,
) -> Stream {
    if key.is_none() || !stream.node.properties.append_only {
        return materialized(builder, stream, key);
    }
    let stream = builder.exchange(stream, key.as_deref().unwrap_or_default());
    kept(builder, stream, key)
}

/// The operator on top of a stream whose rows are where they belong.
fn kept(builder: &mut Builder, stream: Stream, key: Option<Vec<usize>>) -> Stream {
    let (schema, properties) = (stream.node.schema.clone(), stream.node.properties.clone());
    let op = Op::Materialize {
        key,
        append_only: properties.append_only,
        table: builder.tables(1),
    };
    stream.wrap(op, schema, properties)
}
