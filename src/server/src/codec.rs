//! pgwire's codec, told what a message is: it reads a message's parts wherever their lengths lead,
//! into the message behind it or, with a panic, past the end. Here it gets one whole message, and
//! what does not end with it is an error of the protocol.
//!
//! It decodes statements lossily: bytes that are not UTF-8
//! would come out as U+FFFD and be stored as that. Here such a statement arrives as [`INVALID`], a
//! text that no client can send, and is refused with `22021` when it is parsed.

mod frequent;

use crate::stream::ClientStream;
use bytes::{Buf, BytesMut};
use pgwire::api::{ClientInfo, DefaultClient, PgWireConnectionState};
use pgwire::error::PgWireError;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::PgWireMessageServerCodec;
use std::net::SocketAddr;
use tidemark_common::{Error, Result, SqlState};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedParts};

/// Stands for a statement that was not UTF-8: a message's texts end at their first zero byte, so
/// none of them has one.
const INVALID: &str = "\0";

/// A client's connection, message by message.
pub type Wire = Framed<ClientStream, Codec>;

/// See the module.
pub struct Codec(pub PgWireMessageServerCodec<()>);

/// The connection of a client at this address, of whose first message `begin` was read already.
pub fn wire(stream: ClientStream, client: SocketAddr, begin: BytesMut) -> Wire {
    let mut client = DefaultClient::new(client, stream.is_encrypted());
    client.set_state(PgWireConnectionState::AwaitingStartup);
    let codec = Codec(PgWireMessageServerCodec::new(client));
    let mut parts = FramedParts::new::<PgWireBackendMessage>(stream, codec);
    parts.read_buf = begin;
    Framed::from_parts(parts)
}

/// `22021` for a statement that was not UTF-8.
pub fn check(text: &str) -> Result<()> {
    if text == INVALID {
        Err(Error::user(
            SqlState("22021"),
            "invalid byte sequence for encoding \"UTF8\"",
        ))
    } else {
        Ok(())
    }
}

/// Whether the message at the front is a complete Query or Parse whose texts are not UTF-8.
fn is_invalid(src: &[u8]) -> bool {
    let (Some(kind @ (b'Q' | b'P')), Some(length)) = (
        src.first(),
        src.get(1..5)
            .and_then(|l| l.try_into().ok())
            .map(u32::from_be_bytes),
    ) else {
        return false;
    };
    let Some(body) = src
        .get(5..)
        .and_then(|body| body.get(..(length as usize).checked_sub(4)?))
    else {
        return false;
    };
    // Query: the text. Parse: the name, the text, and numbers.
    body.split(|b| *b == 0)
        .take(if *kind == b'Q' { 1 } else { 2 })
        .any(|text| std::str::from_utf8(text).is_err())
}

/// The length of the message at the front, if all of it is there; the first message of a connection
/// has no type before its length. A length that cannot be is pgwire's to refuse.
fn whole(src: &[u8], is_first: bool) -> Option<usize> {
    let kind = usize::from(!is_first);
    let length = u32::from_be_bytes(src.get(kind..kind + 4)?.try_into().ok()?) as usize;
    (length >= 4 && src.len() >= kind + length).then_some(kind + length)
}

/// Bytes of the first message at most, as PostgreSQL has it.
const STARTUP_BYTES_MAX: u32 = 10_000;

/// Whether the first message of a connection may be as long as it says.
pub fn is_startup_length(length: [u8; 4]) -> bool {
    (8..=STARTUP_BYTES_MAX).contains(&u32::from_be_bytes(length))
}

/// What makes the bytes at the front no first message of a connection, as far as they are there.
fn check_startup(src: &[u8]) -> Result<()> {
    let violation = |text: String| Err(Error::user(SqlState("08P01"), text));
    let Some((length, rest)) = src.split_first_chunk::<4>() else {
        return Ok(());
    };
    if !is_startup_length(*length) {
        return violation("invalid length of startup packet".into());
    }
    let length = u32::from_be_bytes(*length) as usize - 4;
    let Some((version, parameters)) = rest.get(..length).and_then(|r| r.split_first_chunk::<4>())
    else {
        return Ok(());
    };
    let [a, b, c, d] = *version;
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match major {
        3 => {}
        // Requests to cancel, and for encryption.
        1234 => return Ok(()),
        _ => {
            return Err(Error::unsupported(format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            )));
        }
    }
    // Names and values in turn, and an empty name.
    let mut rest = parameters;
    loop {
        match rest.iter().position(|b| *b == 0) {
            Some(0) if rest.len() == 1 => break,
            Some(end) if end > 0 => match rest[end + 1..].iter().position(|b| *b == 0) {
                Some(value) => rest = &rest[end + value + 2..],
                None => rest = &[],
            },
            _ => {
                let text = "invalid startup packet layout: expected terminator as last byte";
                return violation(text.into());
            }
        }
    }
    match std::str::from_utf8(parameters) {
        Ok(_) => Ok(()),
        Err(_) => check(INVALID),
    }
}

fn malformed() -> PgWireError {
    let error = Error::user(SqlState("08P01"), "invalid message format");
    refused(error)
}

fn refused(error: Error) -> PgWireError {
    PgWireError::IoError(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// What a client is told whose bytes are no message, in PostgreSQL's words; none for a connection
/// that broke.
pub fn violation(error: &PgWireError) -> Option<Error> {
    let message = match error {
        PgWireError::IoError(e) if e.kind() != std::io::ErrorKind::InvalidData => return None,
        PgWireError::IoError(e) if e.get_ref().is_some_and(|e| e.is::<Error>()) => {
            return e.get_ref()?.downcast_ref::<Error>().cloned();
        }
        PgWireError::InvalidMessageType(kind) => format!("invalid frontend message type {kind}"),
        PgWireError::MessageTooLarge(..) => "invalid message length".into(),
        _ => "invalid message format".into(),
    };
    Some(Error::user(SqlState("08P01"), message))
}

impl Codec {
    fn guarded(
        &mut self,
        src: &mut BytesMut,
    ) -> Result<Option<PgWireFrontendMessage>, PgWireError> {
        let decode = std::panic::AssertUnwindSafe(|| self.0.decode(src));
        std::panic::catch_unwind(decode).unwrap_or_else(|_| Err(malformed()))
    }
}

impl Decoder for Codec {
    type Item = PgWireFrontendMessage;
    type Error = PgWireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<PgWireFrontendMessage>, PgWireError> {
        // Whether TLS is used was settled before.
        let state = self.0.client_info.state();
        let is_first = matches!(state, PgWireConnectionState::AwaitingStartup);
        if is_first {
            check_startup(src).map_err(refused)?;
        }
        let invalid = !is_first && is_invalid(src);
        let mut message = match whole(src, is_first) {
            Some(length) => {
                if !is_first && let Some(message) = frequent::read(&src[..length]) {
                    src.advance(length);
                    return Ok(Some(message));
                }
                let mut one = src.split_to(length);
                let message = self.guarded(&mut one)?;
                if message.is_none() || !one.is_empty() {
                    return Err(malformed());
                }
                message
            }
            None => self.guarded(src)?,
        };
        if invalid {
            match &mut message {
                Some(PgWireFrontendMessage::Query(query)) => query.query = INVALID.into(),
                Some(PgWireFrontendMessage::Parse(parse)) => parse.query = INVALID.into(),
                _ => {}
            }
        }
        Ok(message)
    }
}

impl Encoder<PgWireBackendMessage> for Codec {
    type Error = std::io::Error;

    fn encode(&mut self, message: PgWireBackendMessage, dst: &mut BytesMut) -> std::io::Result<()> {
        self.0.encode(message, dst)
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    #[test]
    fn statements_that_are_not_utf8_are_found() {
        assert!(is_invalid(&message(b'Q', b"select '\xff'\0")));
        assert!(!is_invalid(&message(
            b'Q',
            "select 'ü\u{fffd}'\0".as_bytes()
        )));
        assert!(is_invalid(&message(b'P', b"s\0select '\xc3('\0\0\0")));
        assert!(
            !is_invalid(&message(b'P', b"s\0select $1\0\0\x01\0\0\0\xff")),
            "numbers of types are not text"
        );
        assert!(!is_invalid(&message(b'B', b"\xff\0")));
        assert!(!is_invalid(b"Q\0\0\0\x20select '\xff"), "not complete yet");
    }
}
