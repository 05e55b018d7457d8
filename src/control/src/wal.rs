//! The write-ahead log of one node: segment files of frames, appended and synced.
//!
//! A frame is `length: u32 | crc32 of index and payload: u32 | index: u64 | payload`,
//! little-endian. A segment is named by the index of its first entry. A torn frame at the very end
//! of the last segment is what a crash leaves of an append that never returned: it is cut off.
//! Damage anywhere else is an error that names file and offset: nothing is skipped. The folder is
//! synced after a segment is made. An append that cannot write (a full disk) is taken back and may
//! be tried again; after a failed sync the log takes nothing more, because what is on disk is not
//! known then.

use crate::{DecisionLog, Entry};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tidemark_common::{Error, Result, failpoint};

/// A segment is closed when it is larger than this, in bytes.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
const HEADER_BYTES: usize = 16;

/// A log in a folder of segment files.
pub struct WriteAheadLog {
    folder: PathBuf,
    segments: Vec<u64>,
    file: File,
    file_bytes: u64,
    next_index: u64,
    broken: bool,
}

impl WriteAheadLog {
    /// Opens or makes the log in `folder`; returns it with all its entries and their indexes.
    pub fn open(folder: &Path) -> Result<(WriteAheadLog, Vec<(u64, Entry)>)> {
        fs::create_dir_all(folder).map_err(|e| at(folder, e))?;
        let mut segments = Vec::new();
        for item in fs::read_dir(folder).map_err(|e| at(folder, e))? {
            let name = item.map_err(|e| at(folder, e))?.file_name();
            if let Some(first) = name
                .to_str()
                .and_then(|n| n.strip_suffix(".log"))
                .and_then(|n| n.parse::<u64>().ok())
            {
                segments.push(first);
            }
        }
        segments.sort_unstable();
        let mut entries = Vec::new();
        let mut next_index = segments.first().copied().unwrap_or(1);
        for (i, first) in segments.iter().enumerate() {
            let path = segment_path(folder, *first);
            if *first != next_index {
                return Err(Error::corrupt(format!(
                    "log: entries {next_index} to {} are missing before {}",
                    first - 1,
                    path.display()
                )));
            }
            next_index = read_segment(&path, next_index, i + 1 == segments.len(), &mut entries)?;
        }
        let first = segments.last().copied().unwrap_or(next_index);
        if segments.is_empty() {
            segments.push(first);
        }
        let file = open_segment(folder, first)?;
        let file_bytes = file.metadata().map_err(|e| at(folder, e))?.len();
        Ok((
            WriteAheadLog {
                folder: folder.into(),
                segments,
                file,
                file_bytes,
                next_index,
                broken: false,
            },
            entries,
        ))
    }

    fn roll(&mut self) -> Result<()> {
        self.file = open_segment(&self.folder, self.next_index)?;
        self.segments.push(self.next_index);
        self.file_bytes = 0;
        Ok(())
    }

    fn write(&mut self, entries: &[Entry]) -> Result<()> {
        if self.file_bytes > SEGMENT_BYTES_MAX {
            self.roll()?;
        }
        let mut frames = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let payload = entry.encode()?;
            let index = self.next_index + i as u64;
            frames.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            frames.extend_from_slice(&checksum(index, &payload).to_le_bytes());
            frames.extend_from_slice(&index.to_le_bytes());
            frames.extend_from_slice(&payload);
        }
        failpoint::hit("log.append");
        if let Err(e) = self.file.write_all(&frames) {
            // Take back what was written of it, so that a full disk is not the end: the caller may
            // try again.
            self.broken = self.file.set_len(self.file_bytes).is_err();
            return Err(at(&self.folder, e));
        }
        failpoint::hit("log.sync");
        // What a failed sync left on disk is not known: no entry may follow it.
        self.file
            .sync_data()
            .map_err(|e| at(&self.folder, e))
            .inspect_err(|_| self.broken = true)?;
        self.file_bytes += frames.len() as u64;
        self.next_index += entries.len() as u64;
        Ok(())
    }
}

impl DecisionLog for WriteAheadLog {
    fn append(&mut self, entries: &[Entry]) -> Result<u64> {
        if self.broken {
            return Err(Error::unavailable(
                tidemark_common::SqlState::IO_ERROR,
                "the log failed earlier and takes no more entries",
            )
            .with_hint("Restart the server when the disk is well again."));
        }
        self.write(entries)?;
        Ok(self.next_index - 1)
    }

    fn begin_at(&mut self, index: u64) -> Result<()> {
        assert!(
            self.file_bytes == 0 && self.segments.len() == 1,
            "a log with entries begins where it begins"
        );
        let path = segment_path(&self.folder, self.segments[0]);
        fs::remove_file(&path).map_err(|e| at(&path, e))?;
        self.segments.clear();
        self.next_index = index;
        self.roll()
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        if self.file_bytes > 0
            && index + 1 == self.next_index
            && self.file_bytes > SEGMENT_BYTES_MAX / 16
        {
            self.roll()?;
        }
        while self.segments.len() > 1 && self.segments[1] <= index + 1 {
            let path = segment_path(&self.folder, self.segments[0]);
            fs::remove_file(&path).map_err(|e| at(&path, e))?;
            self.segments.remove(0);
        }
        Ok(())
    }
}

fn at(path: &Path, e: std::io::Error) -> Error {
    Error::from(e).context(path.display())
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

fn open_segment(folder: &Path, first: u64) -> Result<File> {
    let path = segment_path(folder, first);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| at(&path, e))?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| at(folder, e))?;
    Ok(file)
}

fn checksum(index: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&index.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// Reads the frames of one segment; returns the index after its last entry. In the last segment an
/// unfinished frame is cut off.
fn read_segment(
    path: &Path,
    mut index: u64,
    last: bool,
    entries: &mut Vec<(u64, Entry)>,
) -> Result<u64> {
    let bytes = fs::read(path).map_err(|e| at(path, e))?;
    let mut offset = 0;
    while offset < bytes.len() {
        let Some(length) = whole_frame(&bytes[offset..], index) else {
            // A torn append is followed by nothing: a later frame that is whole means damage in the
            // middle.
            if !last || has_frame_after(&bytes[offset..], index) {
                return Err(Error::corrupt(format!(
                    "log: {} is damaged at byte {offset} (entry {index})",
                    path.display()
                )));
            }
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|e| at(path, e))?;
            file.set_len(offset as u64)
                .and_then(|()| file.sync_all())
                .map_err(|e| at(path, e))?;
            break;
        };
        let payload = &bytes[offset + HEADER_BYTES..offset + HEADER_BYTES + length];
        entries.push((
            index,
            Entry::decode(payload).map_err(|e| e.context(path.display()))?,
        ));
        offset += HEADER_BYTES + length;
        index += 1;
    }
    Ok(index)
}

/// Length of the payload if a whole frame of entry `index` stands at the start of `bytes`.
fn whole_frame(bytes: &[u8], index: u64) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let stored = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + length)?;
    (stored == index && checksum(index, payload) == crc).then_some(length)
}

fn has_frame_after(bytes: &[u8], index: u64) -> bool {
    (1..bytes.len().min(1 << 20)).any(|skip| {
        (1..=64).any(|ahead| {
            bytes.get(skip + 8..skip + 16) == Some(&(index + ahead).to_le_bytes()[..])
                && whole_frame(&bytes[skip..], index + ahead).is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(generation: u64) -> Entry {
        Entry::Opened { generation }
    }

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("tidemark-wal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn entries_survive_reopening_and_a_torn_tail_is_cut_off() {
        let folder = folder("torn");
        let (mut log, entries) = WriteAheadLog::open(&folder).unwrap();
        assert!(entries.is_empty());
        assert_eq!(log.append(&[opened(1), opened(2)]).unwrap(), 2);
        assert_eq!(log.append(&[opened(3)]).unwrap(), 3);
        drop(log);
        let path = segment_path(&folder, 1);
        let whole = fs::read(&path).unwrap();
        for cut in 1..20 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut log, entries) = WriteAheadLog::open(&folder).unwrap();
            assert_eq!(entries, vec![(1, opened(1)), (2, opened(2))]);
            assert_eq!(log.append(&[opened(9)]).unwrap(), 3);
            fs::write(&path, &whole).unwrap();
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let folder = folder("damage");
        let (mut log, _) = WriteAheadLog::open(&folder).unwrap();
        log.append(&[opened(1)]).unwrap();
        log.append(&[opened(2)]).unwrap();
        let path = segment_path(&folder, 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER_BYTES + 5] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = WriteAheadLog::open(&folder).err().unwrap();
        assert!(error.message().contains("damaged at byte 0"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_lost_log_uses_no_index_twice() {
        let folder = folder("lost");
        let (mut log, entries) = WriteAheadLog::open(&folder).unwrap();
        assert!(entries.is_empty());
        log.begin_at(501).unwrap();
        assert_eq!(log.append(&[opened(7)]).unwrap(), 501);
        drop(log);
        let (mut log, entries) = WriteAheadLog::open(&folder).unwrap();
        assert_eq!(entries, vec![(501, opened(7))]);
        assert_eq!(log.append(&[opened(8)]).unwrap(), 502);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn truncation_removes_whole_segments_only() {
        let folder = folder("truncate");
        let (mut log, _) = WriteAheadLog::open(&folder).unwrap();
        log.append(&[opened(1)]).unwrap();
        log.roll().unwrap();
        log.append(&[opened(2), opened(3)]).unwrap();
        log.truncate(2).unwrap();
        drop(log);
        let (_, entries) = WriteAheadLog::open(&folder).unwrap();
        assert_eq!(entries, vec![(2, opened(2)), (3, opened(3))]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
