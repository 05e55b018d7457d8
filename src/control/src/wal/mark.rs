//! The mark beside the log: how far it was synced when its writer last told somebody so. It is what
//! tells an acknowledged entry that is gone from an append that never returned.
//!
//! The file has four slots, each in a page of its own; the newest one that is whole counts. Two of
//! them are written in turn after each sync of the log and before the caller is told, without a
//! sync of their own: they survive the death of the process, and a power loss may take them back or
//! tear them. The other two are written in turn, and synced, when a segment begins and when the log
//! is opened: one of those is always whole, and an older one asks for less than there is.
//!
//! ```text
//! magic "TDMKSYNC" | version u32 | 0 u32 | sequence u64 | log u64 | segment u64 | length u64
//!   | next_index u64 | checksum u32
//! ```

use super::frame::{VERSION, u32_at, u64_at};
use std::io;
use std::path::{Path, PathBuf};
use tidemark_common::disk::{Disk, DiskFile};
use tidemark_common::{Error, Result};

const MAGIC: &[u8; 8] = b"TDMKSYNC";
const SLOT_BYTES: usize = 60;
const SLOT_DISTANCE: u64 = 4096;
/// The two that are synced, then the two that are not.
const SLOTS: u64 = 4;

/// How far the log is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Synced {
    /// The log's own number.
    pub log: u64,
    /// The segment that was written to last, by its first index.
    pub segment: u64,
    /// Its bytes.
    pub length: u64,
    /// The index after the last entry.
    pub next_index: u64,
}

/// The file.
pub(super) struct Mark {
    file: Box<dyn DiskFile>,
    sequence: u64,
    /// The slot of the two that are synced that is written next.
    turn: u64,
}

/// Where the next write goes.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    sequence: u64,
    turn: u64,
}

/// What the file says.
pub(super) enum Found {
    /// The position, and the sequence number and slot of the newest synced one.
    Synced(Synced, Slot),
    Missing,
    Damaged,
}

/// Beside the log's folder, so that it stays when the folder goes.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.with_extension("synced")
}

impl Mark {
    /// Reads the newest slot that is whole.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Found> {
        let bytes = match disk.read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(e) => return Err(Error::from(e).context(path.display())),
        };
        let mut newest: Option<(Synced, u64)> = None;
        let mut durable = [0; 2];
        for slot in 0..SLOTS as usize {
            let at = slot * SLOT_DISTANCE as usize;
            let Some((version, synced, sequence)) = bytes.get(at..).and_then(decode) else {
                continue;
            };
            if version != VERSION {
                return Err(super::version_unknown(path, version));
            }
            if let Some(durable) = durable.get_mut(slot) {
                *durable = sequence;
            }
            if newest.is_none_or(|(_, known)| sequence > known) {
                newest = Some((synced, sequence));
            }
        }
        let turn = u64::from(durable[0] > durable[1]);
        Ok(newest.map_or(Found::Damaged, |(synced, sequence)| {
            Found::Synced(synced, Slot { sequence, turn })
        }))
    }

    /// Opens the file, or makes it, with all slots at `synced`: from here on writing to it takes no
    /// space. Durable when this returns.
    pub fn open(disk: &dyn Disk, path: &Path, synced: &Synced, slot: Slot) -> io::Result<Mark> {
        let mut mark = Mark {
            file: disk.open(path)?,
            sequence: slot.sequence,
            turn: slot.turn,
        };
        // One after the other: a tear must never hit both.
        mark.write_synced(synced)?;
        mark.write_synced(synced)?;
        mark.write(synced)?;
        mark.write(synced)?;
        mark.file.sync()?;
        disk.sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        Ok(mark)
    }

    /// Where the next write goes.
    pub fn slot(&self) -> Slot {
        Slot {
            sequence: self.sequence,
            turn: self.turn,
        }
    }

    /// Writes one of the slots that are not synced.
    pub fn write(&mut self, synced: &Synced) -> io::Result<()> {
        self.put(2 + self.sequence % 2, synced)
    }

    /// Writes one of the slots that are synced, and syncs it.
    pub fn write_synced(&mut self, synced: &Synced) -> io::Result<()> {
        self.put(self.turn, synced)?;
        self.turn = 1 - self.turn;
        self.file.sync()
    }

    fn put(&mut self, slot: u64, synced: &Synced) -> io::Result<()> {
        let next = self.sequence + 1;
        self.file
            .write_at(slot * SLOT_DISTANCE, &encode(synced, next))?;
        self.sequence = next;
        Ok(())
    }
}

fn encode(synced: &Synced, sequence: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let fields = [
        sequence,
        synced.log,
        synced.segment,
        synced.length,
        synced.next_index,
    ];
    for (i, field) in fields.iter().enumerate() {
        bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[..56]);
    bytes[56..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(slot: &[u8]) -> Option<(u32, Synced, u64)> {
    let slot = slot.get(..SLOT_BYTES)?;
    if slot[..8] != *MAGIC || u32_at(slot, 56)? != crc32fast::hash(&slot[..56]) {
        return None;
    }
    let synced = Synced {
        log: u64_at(slot, 24)?,
        segment: u64_at(slot, 32)?,
        length: u64_at(slot, 40)?,
        next_index: u64_at(slot, 48)?,
    };
    Some((u32_at(slot, 8)?, synced, u64_at(slot, 16)?))
}
