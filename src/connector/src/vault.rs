//! The key that seals secrets, and what it seals.
//!
//! A sealed text is `v1:<id of the key>:<base64 of nonce, ciphertext and tag>`, AES-256-GCM with a
//! nonce of its own for each. The catalog, and with it log and checkpoints, has sealed texts only;
//! they are opened when a connector is. The id (four bytes of a hash) tells a wrong key from a
//! damaged text.
//!
//! Where the key comes from: the environment (`TIDEMARK_SECRET_KEY`), else the file that
//! `secret_key_file` names, else `secret.key` in the data folder, which is made with the first
//! secret and which its owner alone may read. So a password in a statement works without having
//! been prepared, as people expect it, and is sealed all the same: a checkpoint store, which is
//! often elsewhere and read by others, never holds the key. Who copies the data folder copies the
//! key with it; who does not want that names a file elsewhere. A file that is named and missing is
//! never made: it may be that a disk is not mounted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::{Error, ErrorKind, Result, SqlState};
use tidemark_plan::ConnectorSpec;

/// The environment variable that holds the key itself.
pub const KEY_VARIABLE: &str = "TIDEMARK_SECRET_KEY";
/// The file in the data folder.
pub const KEY_FILE: &str = "secret.key";

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 4;
/// Bound to every sealed text.
const PURPOSE: &[u8] = b"tidemark secret";

const REMEDY: &str = "Set secret_key_file or TIDEMARK_SECRET_KEY to the key that sealed them.";

struct Key {
    cipher: LessSafeKey,
    id: String,
}

impl Key {
    fn new(bytes: &[u8]) -> Result<Key> {
        let cipher = UnboundKey::new(&AES_256_GCM, bytes)
            .map_err(|_| Error::internal("a key of the wrong length"))?;
        let mut hashed = PURPOSE.to_vec();
        hashed.extend_from_slice(bytes);
        let hash = digest::digest(&digest::SHA256, &hashed);
        let id = hash.as_ref()[..ID_BYTES].iter();
        Ok(Key {
            cipher: LessSafeKey::new(cipher),
            id: id.map(|b| format!("{b:02x}")).collect(),
        })
    }

    /// Of a text: 64 hexadecimal digits, or 32 bytes in base64.
    fn parse(text: &str, origin: &str) -> Result<Key> {
        let text = text.trim();
        let hex = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        let bytes = match text.len() {
            n if n == 2 * KEY_BYTES && is_hex => (0..n).step_by(2).map(hex).collect(),
            _ => BASE64.decode(text).ok(),
        };
        match bytes.filter(|bytes: &Vec<u8>| bytes.len() == KEY_BYTES) {
            Some(bytes) => Key::new(&bytes),
            None => {
                let message = format!("{origin} has no key of {KEY_BYTES} bytes");
                Err(Error::user(SqlState::INVALID_PARAMETER, message).with_hint(
                    "A key is 64 hexadecimal digits or base64, as `openssl rand -base64 32` \
                     makes it.",
                ))
            }
        }
    }
}

/// Seals and opens texts.
pub struct Vault {
    /// The file that the key may come from, and be made in.
    own: Option<PathBuf>,
    /// What the key is of, for messages.
    origin: String,
    key: Mutex<Option<Arc<Key>>>,
}

impl Vault {
    /// With the key of `given`, else of the file that is named, else of the data folder's, if there
    /// is one yet.
    ///
    /// Errors: `58030` for a file that cannot be read, `22023` for one that holds no key.
    pub fn open(given: Option<&str>, named: &str, data_dir: &Path) -> Result<Vault> {
        let (own, origin, text) = match given.filter(|text| !text.is_empty()) {
            Some(text) => (None, KEY_VARIABLE.to_string(), Some(text.to_string())),
            None if !named.is_empty() => {
                let text = std::fs::read_to_string(named).map_err(|e| unread(named, &e))?;
                (None, format!("secret_key_file {named}"), Some(text))
            }
            None => {
                let path = data_dir.join(KEY_FILE);
                let text = read_key(&path)?;
                (Some(path.clone()), path.display().to_string(), text)
            }
        };
        let key = text.map(|text| Key::parse(&text, &origin)).transpose()?;
        Ok(Vault {
            own,
            origin,
            key: Mutex::new(key.map(Arc::new)),
        })
    }

    /// Seals a text. The first one makes the key, where none is named.
    pub fn seal(&self, text: &str) -> Result<String> {
        let key = self.key_or_new()?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = text.as_bytes().to_vec();
        let tag = key
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(PURPOSE),
                &mut sealed,
            )
            .map_err(|_| Error::internal("a secret could not be sealed"))?;
        let bytes = [&nonce[..], &sealed, tag.as_ref()].concat();
        Ok(format!("{VERSION}:{}:{}", key.id, BASE64.encode(bytes)))
    }

    /// The text that was sealed.
    ///
    /// Errors: `F0000` without the key that sealed it, `XX001` for a damaged one.
    pub fn unseal(&self, sealed: &str) -> Result<String> {
        let damaged = || Error::corrupt("a sealed secret is damaged");
        let mut parts = sealed.splitn(3, ':');
        let (Some(VERSION), Some(id), Some(bytes)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(damaged());
        };
        let key = self.key.lock().clone();
        let key = match key {
            Some(key) if key.id == id => key,
            Some(key) => {
                let message = format!(
                    "secrets were sealed with key {id}, and {} has key {}",
                    self.origin, key.id
                );
                return Err(no_key(message));
            }
            None => {
                let message = format!(
                    "secrets were sealed with key {id}, and {} is missing",
                    self.origin
                );
                return Err(no_key(message));
            }
        };
        let mut bytes = BASE64.decode(bytes).map_err(|_| damaged())?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let text = key.cipher.open_in_place(nonce, Aad::from(PURPOSE), sealed);
        let text = text.map_err(|_| damaged())?;
        String::from_utf8(text.to_vec()).map_err(|_| damaged())
    }

    /// A connector's options with those in it that are secret: for whoever opens it, and to be kept
    /// by nobody.
    pub fn revealed(&self, spec: &ConnectorSpec) -> Result<ConnectorSpec> {
        let mut revealed = spec.clone();
        for (name, hidden) in &spec.hidden {
            let text = self.unseal(&hidden.sealed)?;
            revealed.options.insert(name.clone(), text);
        }
        Ok(revealed)
    }

    fn key_or_new(&self) -> Result<Arc<Key>> {
        let mut key = self.key.lock();
        if let Some(key) = &*key {
            return Ok(key.clone());
        }
        let path = self.own.as_deref();
        let path = path.ok_or_else(|| Error::internal("a key that was named is not there"))?;
        // One may have been made, and not be known to be durable.
        if read_key(path)?.is_none() {
            let mut bytes = [0; KEY_BYTES];
            random(&mut bytes)?;
            write_key(path, &BASE64.encode(bytes)).map_err(|e| unread(&self.origin, &e))?;
            tracing::info!(file = %self.origin, "a key for secrets was made");
        }
        sync_folder(path).map_err(|e| unread(&self.origin, &e))?;
        let text = read_key(path)?.unwrap_or_default();
        let made = Arc::new(Key::parse(&text, &self.origin)?);
        *key = Some(made.clone());
        Ok(made)
    }
}

/// The text of the data folder's key file, if there is one.
fn read_key(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unread(&path.display().to_string(), &e)),
    }
}

/// A key file is there whole or not at all, wherever this ends. One that is there stays.
fn write_key(path: &Path, text: &str) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match std::fs::remove_file(&unfinished) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::hard_link(&unfinished, path)?;
    std::fs::remove_file(&unfinished)
}

/// The file's name is durable before anything is sealed with what is in it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn random(into: &mut [u8]) -> Result<()> {
    let filled = SystemRandom::new().fill(into);
    filled.map_err(|_| Error::internal("the system gives no random numbers"))
}

fn unread(file: &str, error: &std::io::Error) -> Error {
    let message = format!("the key of secrets, {file}: {error}");
    Error::new(ErrorKind::Unavailable, SqlState::IO_ERROR, message)
}

fn no_key(message: String) -> Error {
    Error::user(SqlState("F0000"), message).with_hint(REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("tidemark-vault-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_same_key_only() {
        let folder = folder("same");
        let vault = Vault::open(None, "", &folder).unwrap();
        let (one, two) = (
            vault.seal("hunter2").unwrap(),
            vault.seal("hunter2").unwrap(),
        );
        assert_ne!(one, two);
        assert!(!one.contains("hunter2"));
        let mode = std::fs::metadata(folder.join(KEY_FILE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let again = Vault::open(None, "", &folder).unwrap();
        assert_eq!(again.unseal(&one).unwrap(), "hunter2");
        let other = "00".repeat(KEY_BYTES);
        let wrong = Vault::open(Some(&other), "", &folder).unwrap();
        let error = wrong.unseal(&one).unwrap_err();
        assert!(
            error.message().contains("TIDEMARK_SECRET_KEY has key"),
            "{error}"
        );
        std::fs::remove_file(folder.join(KEY_FILE)).unwrap();
        let error = Vault::open(None, "", &folder)
            .unwrap()
            .unseal(&one)
            .unwrap_err();
        assert!(
            error.message().ends_with("secret.key is missing"),
            "{error}"
        );
        assert_eq!(error.hint(), Some(REMEDY));
    }

    #[test]
    fn every_damage_is_found() {
        let folder = folder("damage");
        let vault = Vault::open(Some(&"ab".repeat(KEY_BYTES)), "", &folder).unwrap();
        let sealed = vault.seal("x'y\u{e4}").unwrap();
        assert_eq!(vault.unseal(&sealed).unwrap(), "x'y\u{e4}");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(
                vault
                    .unseal(std::str::from_utf8(&damaged).unwrap())
                    .is_err()
            );
            assert!(vault.unseal(&sealed[..at]).is_err());
        }
        assert!(vault.unseal(&format!("{sealed}:A")).is_err());
        assert!(!folder.join(KEY_FILE).exists());
    }

    #[test]
    fn the_making_of_a_key_may_end_anywhere() {
        let folder = folder("crash");
        let unfinished = folder.join("secret.unfinished");
        // It ended while the key was written: there is none yet, and the next start makes one.
        std::fs::write(&unfinished, "q83v").unwrap();
        let vault = Vault::open(None, "", &folder).unwrap();
        let sealed = vault.seal("hunter2").unwrap();
        assert!(!unfinished.exists());
        let again = Vault::open(None, "", &folder).unwrap();
        assert_eq!(again.unseal(&sealed).unwrap(), "hunter2");
        // It ended when the file had its name: that key is used, not another made.
        let late = Vault::open(None, "", &folder).unwrap();
        *late.key.lock() = None;
        assert_eq!(again.unseal(&late.seal("x").unwrap()).unwrap(), "x");
        // A file that holds no key is never taken for none.
        std::fs::write(folder.join(KEY_FILE), "").unwrap();
        let error = Vault::open(None, "", &folder).err().unwrap();
        assert!(
            error.message().contains("has no key of 32 bytes"),
            "{error}"
        );
    }

    #[test]
    fn keys_are_read_as_people_write_them() {
        let key = |text: &str| Key::parse(text, "k").map(|k| k.id);
        let hex = key(&format!("{}\n", "07".repeat(KEY_BYTES))).unwrap();
        assert_eq!(key(&BASE64.encode([7; KEY_BYTES])).unwrap(), hex);
        for bad in [
            "",
            "short",
            &"zz".repeat(KEY_BYTES),
            &"\u{e4}".repeat(KEY_BYTES),
        ] {
            assert!(key(bad).is_err(), "{bad}");
        }
        let error = Vault::open(None, "/no/such/file", &folder("keys"))
            .err()
            .unwrap();
        assert!(error.message().contains("/no/such/file"), "{error}");
    }
}
