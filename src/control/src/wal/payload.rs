//! What a frame of the log holds: the entries of one decision, which count together or not at all,
//! or what the replication says to itself. The first byte tells.
//!
//! ```text
//! 0                      a leader begins its term
//! 1 ..                   one entry that names no object (crate::entry has its bytes)
//! 2 | 0 u8 | entries u16 | length of the names u32 | names of objects, as JSON
//!   | of each entry: its length u32 and bytes
//! 3 ..                   a change of the members (eraftpb.ConfChangeV2)
//! ```
//!
//! Little-endian.

use super::objects::ObjectFiles;
use crate::entry::{self, ENTRY_BYTES_MAX, INLINE_BYTES_MAX};
use crate::{Entry, RowFiles};
use std::sync::Arc;
use tidemark_common::{Error, Result};

const ELECTED: u8 = 0;
const ONE: u8 = 1;
const SEVERAL: u8 = 2;
const MEMBERS: u8 = 3;
const SEVERAL_HEADER_BYTES: usize = 8;

/// Makes payloads of entries; the rows of large cuts become objects.
pub struct Encoder {
    pub(super) files: ObjectFiles,
    /// Of the last `Opened` entry; names objects.
    pub(super) generation: u64,
    /// Rows of a cut that are larger go into an object.
    pub(super) inline_bytes_max: usize,
}

impl Encoder {
    pub(super) fn new(files: ObjectFiles, generation: u64) -> Encoder {
        Encoder {
            files,
            generation,
            inline_bytes_max: INLINE_BYTES_MAX,
        }
    }

    /// Where the rows of writes that are too large for memory go.
    pub fn row_files(&self) -> Arc<RowFiles> {
        self.files.row_files()
    }

    /// The payload of these entries. Stores the rows of large cuts, durably.
    ///
    /// Errors: an entry is too large, or could not be read back, or a disk without room; nothing is
    /// stored then.
    pub fn encode(&mut self, entries: &[Entry]) -> Result<Vec<u8>> {
        let mut named = Vec::new();
        let encoded = self.encode_each(entries, &mut named);
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                named.iter().for_each(|name| self.files.discard(name));
                return Err(error);
            }
        };
        for entry in entries {
            if let Entry::Opened { generation } = entry {
                self.generation = self.generation.max(*generation);
            }
            named.extend(entry.stored_names().into_iter().map(String::from));
        }
        match <[Vec<u8>; 1]>::try_from(encoded) {
            Ok([one]) if named.is_empty() => Ok(one),
            Ok(one) => together(&one, &named),
            Err(several) => together(&several, &named),
        }
    }

    /// The same, with all rows in the entries themselves.
    pub fn encode_inline(&mut self, entries: &[Entry]) -> Result<Vec<u8>> {
        let usual = std::mem::replace(&mut self.inline_bytes_max, usize::MAX);
        let encoded = self.encode(entries);
        self.inline_bytes_max = usual;
        encoded
    }

    fn encode_each(&self, entries: &[Entry], named: &mut Vec<String>) -> Result<Vec<Vec<u8>>> {
        let each = entries.iter().map(|entry| {
            let bytes = entry.encode_with(self.inline_bytes_max, &mut |epoch, rows| {
                let stored = self.files.store(self.generation, epoch, rows)?;
                named.push(stored.name.clone());
                Ok(stored)
            })?;
            entry.check_encoded(&bytes)?;
            match bytes.len() <= ENTRY_BYTES_MAX {
                true => Ok(bytes),
                false => Err(entry::too_large(bytes.len())),
            }
        });
        each.collect()
    }
}

fn together(entries: &[Vec<u8>], named: &[String]) -> Result<Vec<u8>> {
    let names = match named {
        [] => Vec::new(),
        named => serde_json::to_vec(named)
            .map_err(|e| Error::internal(format!("log entry cannot be encoded: {e}")))?,
    };
    let bytes: usize = entries.iter().map(|e| 4 + e.len()).sum();
    let size = SEVERAL_HEADER_BYTES + names.len() + bytes;
    let count = u16::try_from(entries.len()).map_err(|_| entry::too_large(size))?;
    if size > ENTRY_BYTES_MAX {
        return Err(entry::too_large(size));
    }
    let mut payload = Vec::with_capacity(size);
    payload.extend_from_slice(&[SEVERAL, 0]);
    payload.extend_from_slice(&count.to_le_bytes());
    payload.extend_from_slice(&(names.len() as u32).to_le_bytes());
    payload.extend_from_slice(&names);
    for entry in entries {
        payload.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        payload.extend_from_slice(entry);
    }
    Ok(payload)
}

/// What a leader appends first.
pub(crate) fn elected() -> Vec<u8> {
    vec![ELECTED]
}

/// A change of the members.
pub(crate) fn members(change: &[u8]) -> Vec<u8> {
    [&[MEMBERS], change].concat()
}

/// What kind of payload it is.
pub(crate) enum Kind<'a> {
    Elected,
    Entries,
    Members(&'a [u8]),
}

/// Tells the kinds apart.
pub(crate) fn kind(payload: &[u8]) -> Kind<'_> {
    match payload.split_first() {
        Some((&ELECTED, _)) => Kind::Elected,
        Some((&MEMBERS, change)) => Kind::Members(change),
        _ => Kind::Entries,
    }
}

/// The entries of a payload; none of what is not a decision.
pub(crate) fn decode(payload: &[u8]) -> Result<Vec<Entry>> {
    match payload.first() {
        Some(&(ELECTED | MEMBERS)) => Ok(Vec::new()),
        Some(&SEVERAL) => {
            let (_, entries) = several(payload)?;
            entries.iter().map(|bytes| Entry::decode(bytes)).collect()
        }
        _ => Ok(vec![Entry::decode(payload)?]),
    }
}

/// Whether a checkpoint may be committed by it: most payloads need not be decoded to know.
pub(crate) fn may_be_checkpoint(payload: &[u8]) -> bool {
    match payload.first() {
        Some(&SEVERAL) => true,
        Some(&ONE) => entry::kind(payload) == "Checkpoint",
        _ => false,
    }
}

/// The objects that a payload names.
pub(crate) fn names(payload: &[u8]) -> Result<Vec<String>> {
    match payload.first() {
        Some(&SEVERAL) => Ok(several(payload)?.0),
        _ => Ok(Vec::new()),
    }
}

/// What it is, in words.
pub(super) fn describe(payload: &[u8]) -> String {
    match payload.first() {
        Some(&ELECTED) => "elected".into(),
        Some(&MEMBERS) => "members".into(),
        Some(&SEVERAL) => match several(payload) {
            Ok((_, entries)) => {
                let described = entries.iter().map(|bytes| entry::describe(bytes));
                described.collect::<Vec<_>>().join(", ")
            }
            Err(_) => "unknown".into(),
        },
        _ => entry::describe(payload),
    }
}

fn several(payload: &[u8]) -> Result<(Vec<String>, Vec<&[u8]>)> {
    let cut_off = || Error::corrupt("log entry: it is cut off");
    let u32_at = |at: usize| super::frame::u32_at(payload, at).ok_or_else(cut_off);
    let count = u16::from_le_bytes([
        *payload.get(2).ok_or_else(cut_off)?,
        *payload.get(3).ok_or_else(cut_off)?,
    ]);
    let mut at = SEVERAL_HEADER_BYTES + u32_at(4)? as usize;
    let names = payload.get(SEVERAL_HEADER_BYTES..at).ok_or_else(cut_off)?;
    let names = match names {
        [] => Vec::new(),
        names => serde_json::from_slice(names)
            .map_err(|e| Error::corrupt(format!("log entry: names of objects: {e}")))?,
    };
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = u32_at(at)? as usize;
        let bytes = payload.get(at + 4..at + 4 + length);
        entries.push(bytes.ok_or_else(cut_off)?);
        at += 4 + length;
    }
    Ok((names, entries))
}

const _: () = assert!(ONE == entry::VERSION);
