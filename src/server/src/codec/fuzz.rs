//! Streams of bytes that nobody should send: whole messages that were changed, cut, or put together
//! wrongly, and noise. The codec answers with messages or one error, holds no more than it was
//! sent, and always ends. A stream is found again by its seed, which a failure tells.
//! `TIDEMARK_FUZZ_SECONDS` goes on for longer, with other seeds.

use super::*;
use pgwire::api::DefaultClient;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tidemark_common::random::Random;

const SEEDS: u64 = 3_000;

fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn startup(code: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 8).to_be_bytes();
    [&length[..], &code.to_be_bytes(), body].concat()
}

/// What clients begin with.
fn beginnings() -> Vec<Vec<u8>> {
    vec![
        startup(196_608, b"user\0root\0database\0dev\0options\0-c x=y\0\0"),
        startup(196_610, b"user\0root\0\0"),
        startup(80_877_103, b""),
        startup(80_877_104, b""),
        startup(80_877_102, b"\0\0\0\x01\0\0\0\x02"),
    ]
}

/// What they go on with.
fn messages() -> Vec<Vec<u8>> {
    vec![
        typed(b'Q', b"select 1\0"),
        typed(b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
        typed(b'B', b"\0s\0\0\x01\0\0\0\x01\0\0\0\x011\0\x01\0\0"),
        typed(b'D', b"Ss\0"),
        typed(b'E', b"\0\0\0\0\0"),
        typed(b'C', b"P\0"),
        typed(b'p', b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r="),
        typed(b'd', b"1\t2\n"),
        typed(b'f', b"no\0"),
        typed(b'F', b"\0\0\0\x01\0\0\0\0\0\0\0\0"),
        typed(b'c', b""),
        typed(b'H', b""),
        typed(b'S', b""),
        typed(b'X', b""),
    ]
}

fn stream(random: &mut Random, started: bool) -> Vec<u8> {
    let (known, count) = match started {
        true => (messages(), 1 + random.below(6)),
        false => (beginnings(), 1 + random.below(2)),
    };
    let mut bytes = Vec::new();
    for _ in 0..count {
        bytes.extend_from_slice(&known[random.below(known.len())]);
    }
    // Some go on.
    if !started && random.below(2) == 0 {
        bytes.extend(messages().concat());
    }
    for _ in 0..random.below(6) {
        let (at, length) = (random.below(bytes.len()), bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next_u64() as u8),
            2 if length > 0 => bytes[at] = random.next_u64() as u8,
            3 if length > 0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 if length > 0 => drop(bytes.remove(at)),
            _ => bytes.extend((0..random.below(40)).map(|_| random.next_u64() as u8)),
        }
    }
    bytes
}

/// Decodes a stream that arrives in pieces; answers how many messages were in it, and whether it
/// ended with an error.
fn decode(bytes: &[u8], started: bool, random: &mut Random) -> (usize, bool) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let mut client = DefaultClient::new(address, false);
    // As a connection is handed over when it is settled whether TLS is used.
    client.set_state(match started {
        true => PgWireConnectionState::ReadyForQuery,
        false => PgWireConnectionState::AwaitingStartup,
    });
    let mut codec = Codec(PgWireMessageServerCodec::new(client));
    let (mut buffer, mut sent, mut messages) = (BytesMut::new(), 0, 0);
    while sent < bytes.len() {
        let piece = (1 + random.below(bytes.len())).min(bytes.len() - sent);
        buffer.extend_from_slice(&bytes[sent..sent + piece]);
        sent += piece;
        loop {
            let before = buffer.len();
            match codec.decode(&mut buffer) {
                Err(_) => return (messages, true),
                Ok(None) => break,
                Ok(Some(message)) => {
                    if let PgWireFrontendMessage::Startup(_) = message {
                        let ready = PgWireConnectionState::ReadyForQuery;
                        codec.0.client_info.set_state(ready);
                    }
                    assert!(buffer.len() < before, "a message without bytes");
                    messages += 1;
                }
            }
        }
        assert!(
            buffer.capacity() <= 64 * bytes.len() + 4096,
            "it holds more than was sent"
        );
    }
    (messages, false)
}

#[test]
fn whatever_is_sent_is_messages_or_an_error() {
    let seconds = std::env::var("TIDEMARK_FUZZ_SECONDS").ok();
    let seconds = seconds
        .and_then(|s| s.parse().ok())
        .map(Duration::from_secs);
    let (begun, mut messages, mut errors, mut seed) = (Instant::now(), 0, 0, 0);
    // Panics are what is looked for; those inside of the codec are told as errors.
    while seed < SEEDS || seconds.is_some_and(|s| begun.elapsed() < s) {
        seed += 1;
        let run = std::panic::catch_unwind(|| {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let started = random.below(3) > 0;
            let bytes = stream(&mut random, started);
            decode(&bytes, started, &mut random)
        });
        let (found, failed) = run.unwrap_or_else(|_| panic!("seed {seed}"));
        messages += found;
        errors += usize::from(failed);
    }
    // Both happen: the streams are neither all noise nor all right.
    assert!(
        messages > SEEDS as usize && errors > SEEDS as usize / 10,
        "{messages} {errors}"
    );
}

/// Lengths inside of a message that lead out of it.
#[test]
fn no_message_reads_into_the_next_one() {
    let bind = typed(b'B', b"\0s\0\0\0\0\x01\0\0\0\x20abc");
    let parse = typed(b'P', b"s\0select 1\0\0\x09");
    let query = typed(b'Q', b"select 1");
    let rest = typed(b'Q', b"select 2, 'abcdefghijklmnopqrstuvwxyz'\0");
    for first in [bind, parse, query, typed(b'Q', b"select 1\0more")] {
        let (messages, failed) = decode(
            &[first.clone(), rest.clone()].concat(),
            true,
            &mut Random(7),
        );
        assert_eq!((messages, failed), (0, true), "{first:?}");
    }
}
