//! Answers that statements get all the time, written straight into the buffer that goes to the
//! client: a message of the codec's is made, moved and copied before it gets there, and a prepared
//! lookup by key has five of them.
//!
//! What goes wrong on the way, a panic too, leaves no part of a message behind ([`Message`]).

use crate::formats::Formats;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use tidemark_common::{Error, Result, SqlState};
use tidemark_query::outcome::Status;
use tidemark_query::types;

/// The answers that say nothing but what they are.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// See [`PARSE_COMPLETE`].
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// See [`PARSE_COMPLETE`].
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// See [`PARSE_COMPLETE`].
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// See [`PARSE_COMPLETE`].
pub const EMPTY_QUERY_RESPONSE: &[u8] = b"I\0\0\0\x04";
/// See [`PARSE_COMPLETE`].
pub const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";

/// A message that is being written: dropped before its end, it was not.
pub struct Message<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl Message<'_> {
    /// One of this kind, without a body.
    pub fn begin(kind: u8, out: &mut BytesMut) -> Message<'_> {
        let start = out.len();
        out.put_u8(kind);
        out.put_u32(0);
        Message { out, start }
    }

    /// Where its body is written.
    pub fn body(&mut self) -> &mut BytesMut {
        self.out
    }

    /// It is whole; `54000` if it is longer than a message may be.
    pub fn end(mut self) -> Result<()> {
        let length_at = self.start + 1;
        let length = i32::try_from(self.out.len() - length_at).map_err(|_| {
            let text = "a message to the client would be larger than 2 GB";
            Error::user(SqlState("54000"), text)
        })?;
        self.out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        self.start = self.out.len();
        Ok(())
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}

/// RowDescription: the columns of a result.
pub fn row_description(schema: &Schema, formats: &Formats, out: &mut BytesMut) -> Result<()> {
    let mut message = Message::begin(b'T', out);
    let body = message.body();
    body.put_i16(schema.fields().len() as i16);
    for (i, field) in schema.fields().iter().enumerate() {
        let t = types::pg_type(field);
        let declared = tidemark_plan::declared_numeric(field).unwrap_or(types::declared(field));
        body.put_slice(field.name().as_bytes());
        // The name's end; the table and the number of the column in it, which nobody is told.
        body.put_u8(0);
        body.put_u32(0);
        body.put_i16(0);
        body.put_u32(t.oid());
        body.put_i16(types::width(&t));
        body.put_i32(types::modifier(declared));
        body.put_i16(formats.is_binary(i).into());
    }
    message.end()
}

/// CommandComplete.
pub fn command_complete(tag: &str, out: &mut BytesMut) -> Result<()> {
    let mut message = Message::begin(b'C', out);
    message.body().put_slice(tag.as_bytes());
    message.body().put_u8(0);
    message.end()
}

/// ReadyForQuery.
pub fn ready_for_query(status: Status, out: &mut BytesMut) {
    let status = match status {
        Status::Idle => b'I',
        Status::Open => b'T',
        Status::Failed => b'E',
    };
    out.put_slice(&[b'Z', 0, 0, 0, 5, status]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use pgwire::messages::PgWireBackendMessage as Told;
    use pgwire::messages::data::{FieldDescription, RowDescription};
    use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus};

    /// What the codec makes of the same answers.
    #[test]
    fn answers_are_those_of_the_codec() {
        let (mut mine, mut theirs) = (BytesMut::new(), BytesMut::new());
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("bö", DataType::Utf8, true),
        ]);
        let field = |name: &str, t, width, format| {
            FieldDescription::new(name.into(), 0, 0, t, width, -1, format)
        };
        let fields = vec![field("a", 23, 4, 0), field("bö", 25, -1, 1)];
        row_description(&schema, &Formats::new(vec![0, 1]), &mut mine).unwrap();
        command_complete("SELECT 1", &mut mine).unwrap();
        ready_for_query(Status::Failed, &mut mine);
        let messages = [
            Told::RowDescription(RowDescription::new(fields)),
            Told::CommandComplete(CommandComplete::new("SELECT 1".into())),
            Told::ReadyForQuery(ReadyForQuery::new(TransactionStatus::Error)),
        ];
        for message in messages {
            message.encode(&mut theirs).unwrap();
        }
        assert_eq!(mine, theirs);
    }

    #[test]
    fn a_message_that_is_not_ended_was_never_begun() {
        let mut out = BytesMut::from(BIND_COMPLETE);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Message::begin(b'D', &mut out).body().put_u8(1);
            let mut message = Message::begin(b'D', &mut out);
            message.body().put_u8(1);
            panic!("on the way");
        }));
        assert!(panicked.is_err());
        assert_eq!(out, BIND_COMPLETE);
    }
}
