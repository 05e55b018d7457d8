//! The messages that come with every statement of the extended protocol, Bind, Describe, Execute
//! and Sync, read where they lie: the codec takes a message apart into buffers that are counted and
//! given back one by one. What is long or malformed is the codec's, with what it says of it.

use bytes::{Buf, Bytes};
use pgwire::messages::PgWireFrontendMessage as Message;
use pgwire::messages::extendedquery::{Bind, Describe, Execute, Sync};

/// Longer ones are the codec's.
const BYTES_MAX: usize = 4096;

/// Reads a whole message; `None` for all others, and for one that is malformed.
pub fn read(message: &[u8]) -> Option<Message> {
    let kind = *message.first().filter(|_| message.len() <= BYTES_MAX)?;
    let mut rest = Rest(message.get(5..)?);
    let read = match kind {
        b'B' => Message::Bind(rest.bind()?),
        b'D' => Message::Describe(Describe::new(rest.0.try_get_u8().ok()?, rest.name()?)),
        b'E' => {
            let name = rest.name()?;
            Message::Execute(Execute::new(name, rest.0.try_get_i32().ok()?))
        }
        b'S' => Message::Sync(Sync::new()),
        _ => return None,
    };
    rest.0.is_empty().then_some(read)
}

/// What was not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// A text that ends with a zero; none if it is empty.
    fn name(&mut self) -> Option<Option<String>> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let name = String::from_utf8_lossy(&self.0[..end]);
        self.0 = &self.0[end + 1..];
        Some((end > 0).then(|| name.into_owned()))
    }

    /// As many codes as it says.
    fn codes(&mut self) -> Option<Vec<i16>> {
        let count = self.0.try_get_u16().ok()?;
        (0..count).map(|_| self.0.try_get_i16().ok()).collect()
    }

    fn bind(&mut self) -> Option<Bind> {
        let (portal, statement, formats) = (self.name()?, self.name()?, self.codes()?);
        let count = self.0.try_get_u16().ok()?;
        let parameters = (0..count)
            .map(|_| self.parameter())
            .collect::<Option<_>>()?;
        Some(Bind::new(
            portal,
            statement,
            formats,
            parameters,
            self.codes()?,
        ))
    }

    /// A length, below zero for NULL, and so many bytes.
    fn parameter(&mut self) -> Option<Option<Bytes>> {
        let Ok(length) = usize::try_from(self.0.try_get_i32().ok()?) else {
            return Some(None);
        };
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(Bytes::copy_from_slice(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use pgwire::messages::DecodeContext;

    /// As the codec reads them.
    #[test]
    fn messages_are_those_of_the_codec() {
        let typed = |kind: u8, body: &[u8]| {
            let length = (body.len() as u32 + 4).to_be_bytes();
            BytesMut::from([&[kind][..], &length, body].concat().as_slice())
        };
        let messages = [
            typed(b'B', b"\0\0\0\0\0\0\0\0"),
            typed(
                b'B',
                b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x03abc\xff\xff\xff\xff\0\x02\0\0\0\x01",
            ),
            typed(b'D', b"S\0"),
            typed(b'D', b"Pp\0"),
            typed(b'E', b"p\0\0\0\0\x07"),
            typed(b'S', b""),
        ];
        let mut context = DecodeContext::default();
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        for message in messages {
            let mine = read(&message).unwrap();
            let theirs = Message::decode(&mut message.clone(), &context);
            let theirs = theirs.unwrap().unwrap();
            assert_eq!(format!("{mine:?}"), format!("{theirs:?}"));
        }
        let malformed = [
            typed(b'B', b"\0\0\0\0\0\x01\0\0\0\x04abc\0\0"),
            typed(b'B', b"\0\0\0\x01\0"),
            typed(b'D', b"Sunended"),
            typed(b'E', b"\0\0\0\0"),
            typed(b'S', b"more"),
        ];
        assert!(malformed.iter().all(|message| read(message).is_none()));
    }
}
