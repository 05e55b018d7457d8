//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, over verifiers as PostgreSQL keeps them:
//!
//! ```text
//! SCRAM-SHA-256$4096:salt$stored key:server key
//! salted = PBKDF2(HMAC-SHA-256, password, salt, 4096)
//! stored key = SHA-256(HMAC(salted, "Client Key"))     server key = HMAC(salted, "Server Key")
//! ```
//!
//! Who reads a verifier can neither come in with it nor tell the password. pgwire's own exchange
//! wants the salted password, with which one can, so the exchange is here. There is no channel
//! binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use tidemark_common::{Error, Result, SqlState};

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Rounds of a new verifier.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

type Key = [u8; KEY_BYTES];

/// What a password is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored: Key,
    server: Key,
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A password that nobody guesses: 120 random bits in letters and digits.
pub fn random_password() -> Result<String> {
    let bytes = random::<15>()?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

fn sign(key: &[u8], text: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut signature = [0; KEY_BYTES];
    signature.copy_from_slice(tag.as_ref());
    signature
}

fn sha256(bytes: &[u8]) -> Key {
    let mut hash = [0; KEY_BYTES];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

impl Verifier {
    /// Of a new password.
    pub fn of(password: &str) -> Result<Verifier> {
        let salt = random::<SALT_BYTES>()?.to_vec();
        Ok(Verifier::with(password, salt, ITERATIONS))
    }

    fn with(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Verifier {
        // As PostgreSQL: what cannot be prepared counts as it is written.
        let prepared = stringprep::saslprep(password);
        let password = prepared.as_deref().unwrap_or(password);
        let mut salted = [0; KEY_BYTES];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        Verifier {
            iterations: iterations.get(),
            salt,
            stored: sha256(&sign(&salted, b"Client Key")),
            server: sign(&salted, b"Server Key"),
        }
    }

    /// Whether a password is the one.
    pub fn fits(&self, password: &str) -> bool {
        let Some(iterations) = NonZeroU32::new(self.iterations) else {
            return false;
        };
        let given = Verifier::with(password, self.salt.clone(), iterations);
        // Of hashes: how far two are alike tells nothing of the password.
        given.stored == self.stored
    }

    /// Of a name that nobody has: it looks the same each time, and no password fits.
    pub fn of_nobody(name: &str, secret: &[u8]) -> Verifier {
        let salt = sign(secret, name.as_bytes());
        Verifier {
            iterations: ITERATIONS.get(),
            salt: salt[..SALT_BYTES].to_vec(),
            stored: sign(secret, &salt),
            server: sign(secret, &sign(secret, &salt)),
        }
    }

    /// Reads the form that is stored; `None` for anything else.
    pub fn parse(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (rounds, keys) = rest.split_once('$')?;
        let (iterations, salt) = rounds.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Some(Verifier {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: BASE64.decode(salt).ok()?,
            stored: key(stored)?,
            server: key(server)?,
        })
    }

    /// The form that is stored.
    pub fn text(&self) -> String {
        format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored),
            BASE64.encode(self.server)
        )
    }
}

/// `08P01` for a message that is none of this exchange.
fn malformed(what: &str) -> Error {
    Error::user(
        SqlState("08P01"),
        format!("malformed SCRAM message: {what}"),
    )
}

/// An exchange whose first message was answered.
pub struct Exchange {
    verifier: Verifier,
    /// The header of the client's first message, which its last one repeats.
    header: String,
    nonce: String,
    /// The client's first message without its header, and the answer.
    before: String,
}

impl Exchange {
    /// The exchange, and the answer to the client's first message, `n,,n=user,r=nonce`.
    pub fn begin(verifier: Verifier, message: &[u8]) -> Result<(Exchange, String)> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("it is no text"))?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it has no header"));
        };
        if !matches!(flag, "n" | "y") {
            return Err(malformed("channel binding was not offered"));
        }
        let nonce = bare.split(',').find_map(|part| part.strip_prefix("r="));
        let nonce = nonce.ok_or_else(|| malformed("it has no nonce"))?;
        let nonce = format!("{nonce}{}", BASE64.encode(random::<18>()?));
        let salt = BASE64.encode(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let exchange = Exchange {
            verifier,
            header: format!("{flag},{identity},"),
            nonce,
            before: format!("{bare},{answer}"),
        };
        Ok((exchange, answer))
    }

    /// The answer to the client's last message, `c=header,r=nonce,p=proof`; `None` for a wrong
    /// password.
    pub fn end(&self, message: &[u8]) -> Result<Option<String>> {
        let text = std::str::from_utf8(message).map_err(|_| malformed("it is no text"))?;
        let (unproven, proof) = text
            .rsplit_once(",p=")
            .ok_or_else(|| malformed("it has no proof"))?;
        let expected = format!("c={},r={}", BASE64.encode(&self.header), self.nonce);
        if unproven != expected && !unproven.starts_with(&format!("{expected},")) {
            return Err(malformed("it does not go on with the exchange"));
        }
        let proof = BASE64.decode(proof).ok();
        let proof: Option<Key> = proof.and_then(|p| p.try_into().ok());
        let proof = proof.ok_or_else(|| malformed("its proof is no key"))?;
        let signed = format!("{},{unproven}", self.before);
        let mut client = sign(&self.verifier.stored, signed.as_bytes());
        client.iter_mut().zip(proof).for_each(|(c, p)| *c ^= p);
        // All bytes are looked at, whichever is the first to differ.
        let pairs = sha256(&client).into_iter().zip(self.verifier.stored);
        let differ = pairs.fold(0, |all, (a, b)| all | (a ^ b));
        let answer = sign(&self.verifier.server, signed.as_bytes());
        Ok((differ == 0).then(|| format!("v={}", BASE64.encode(answer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client's last message for a password.
    fn proven(password: &str, verifier: &Verifier, exchange: &Exchange) -> String {
        let mut salted = [0; KEY_BYTES];
        let iterations = NonZeroU32::new(verifier.iterations).unwrap();
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        let text = password.as_bytes();
        pbkdf2::derive(algorithm, iterations, &verifier.salt, text, &mut salted);
        let key = sign(&salted, b"Client Key");
        let unproven = format!("c={},r={}", BASE64.encode(&exchange.header), exchange.nonce);
        let signed = format!("{},{unproven}", exchange.before);
        let mut proof = sign(&sha256(&key), signed.as_bytes());
        proof.iter_mut().zip(key).for_each(|(p, k)| *p ^= k);
        format!("{unproven},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_right_password_comes_in_and_no_other() {
        let verifier = Verifier::of("pencil").unwrap();
        for (password, right) in [("pencil", true), ("Pencil", false), ("", false)] {
            let (exchange, _) = Exchange::begin(verifier.clone(), b"n,,n=,r=abc").unwrap();
            let last = proven(password, &verifier, &exchange);
            assert_eq!(exchange.end(last.as_bytes()).unwrap().is_some(), right);
        }
    }

    #[test]
    fn an_answer_serves_one_exchange() {
        let verifier = Verifier::of("pencil").unwrap();
        let (one, _) = Exchange::begin(verifier.clone(), b"n,,n=,r=abc").unwrap();
        let (other, _) = Exchange::begin(verifier.clone(), b"n,,n=,r=abc").unwrap();
        let last = proven("pencil", &verifier, &one);
        assert!(other.end(last.as_bytes()).is_err());
    }

    #[test]
    fn the_example_of_the_standard() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::with("pencil", salt, ITERATIONS);
        let exchange = Exchange {
            verifier,
            header: "n,,".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
            before: "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)\
                     hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                .into(),
        };
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN\
                    +Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(
            exchange.end(last.as_bytes()).unwrap().as_deref(),
            Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
    }

    #[test]
    fn verifiers_are_read_as_they_are_written() {
        let verifier = Verifier::of("x").unwrap();
        assert_eq!(Verifier::parse(&verifier.text()), Some(verifier.clone()));
        for wrong in ["", "x", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "md5abc"] {
            assert_eq!(Verifier::parse(wrong), None);
        }
        let nobody = Verifier::of_nobody("x", b"secret");
        assert_eq!(nobody, Verifier::of_nobody("x", b"secret"));
        assert_ne!(nobody.salt, Verifier::of_nobody("y", b"secret").salt);
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let verifier = Verifier::of("x").unwrap();
        for first in [
            &b""[..],
            b"n,,",
            b"p=tls-unique,,n=,r=a",
            b"n,,n=u",
            b"\xff,,",
        ] {
            assert!(Exchange::begin(verifier.clone(), first).is_err());
        }
        let (exchange, _) = Exchange::begin(verifier, b"n,,n=,r=abc").unwrap();
        for last in [&b""[..], b"c=biws", b"c=biws,r=abc,p=AA==", b"p=AA=="] {
            assert!(exchange.end(last).is_err());
        }
    }
}
