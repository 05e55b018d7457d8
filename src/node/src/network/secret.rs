//! The cluster secret, and the proof that somebody knows it.

use ring::hmac;
use std::path::Path;
use tidemark_common::{Error, Result, SqlState, machine};

/// The environment variable with the secret itself.
pub const SECRET_VARIABLE: &str = "TIDEMARK_CLUSTER_SECRET";
/// Bytes of a secret at least.
const SECRET_BYTES_MIN: usize = 16;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// What all nodes of a cluster know, and nobody else.
pub struct Secret(hmac::Key);

impl Secret {
    /// These bytes, without white space around them.
    ///
    /// Errors: `22023` if they are too few.
    pub fn new(bytes: &[u8]) -> Result<Secret> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < SECRET_BYTES_MIN {
            let message = format!(
                "a cluster secret has at least {SECRET_BYTES_MIN} bytes, this one {}",
                bytes.len()
            );
            return Err(Error::user(SqlState::INVALID_PARAMETER, message)
                .with_hint("One that nobody guesses is made by `openssl rand -hex 32`."));
        }
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// The one in a file.
    ///
    /// Errors: `22023` if it cannot be read, or has too few bytes.
    pub fn read(file: &str) -> Result<Secret> {
        let named = |e: Error| e.context(format!("cluster_secret_file {file}"));
        let bytes = machine::disk().read(Path::new(file));
        let bytes =
            bytes.map_err(|e| named(Error::user(SqlState::INVALID_PARAMETER, e.to_string())))?;
        Secret::new(&bytes).map_err(named)
    }

    /// That who makes it knows the secret, for one occasion.
    pub fn proof(&self, occasion: &[u8]) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(hmac::sign(&self.0, occasion).as_ref());
        proof
    }

    /// Whether this is one. How long that takes tells nothing.
    pub fn is_proven(&self, occasion: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.0, occasion, proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_secret_and_one_occasion() {
        let secret = Secret::new(b"  0123456789abcdef\n").unwrap();
        let same = Secret::new(b"0123456789abcdef").unwrap();
        let other = Secret::new(b"0123456789abcdeF").unwrap();
        let proof = secret.proof(b"today");
        assert!(same.is_proven(b"today", &proof));
        assert!(!other.is_proven(b"today", &proof));
        assert!(!same.is_proven(b"tomorrow", &proof));
        assert!(!same.is_proven(b"today", &proof[1..]));
        assert!(!same.is_proven(b"today", b""));
    }

    #[test]
    fn a_secret_that_is_short_or_missing_is_none() {
        let short = Secret::new(b"  0123456789abcde ").err().unwrap();
        assert_eq!(
            short.message(),
            "a cluster secret has at least 16 bytes, this one 15"
        );
        assert_eq!(short.state(), SqlState::INVALID_PARAMETER);
        let missing = Secret::read("/nowhere/secret").err().unwrap();
        assert!(
            missing
                .message()
                .starts_with("cluster_secret_file /nowhere/secret: "),
            "{missing}"
        );
    }
}
