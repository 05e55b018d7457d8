//! Reading the log at a start: which entries are there, and whether they are all that anybody was
//! told about.
//!
//! A frame that is not whole was torn by a power loss, and is cut off, only if nothing proves that
//! it was synced once. Three things prove it: the mark is beyond it; a later append stands behind
//! it; a later segment does. The same holds for the end of the log, for a segment that is not there
//! and for the head of a segment. What is proven and not there is a [`Read::problem`].

use super::frame::{
    FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHead, SegmentHeader, later_append,
};
use super::mark::Synced;
use super::objects::{self, Objects};
use super::{at, payload, segment_path, version_unknown};
use crate::Entry;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidemark_common::disk::Disk;
use tidemark_common::{Epoch, Error, Result};

/// What was read.
pub(super) struct Read {
    /// The log's own number; none where neither mark nor segment tells it.
    pub log: Option<u64>,
    /// The segments that count, by their first indexes.
    pub segments: Vec<u64>,
    /// The index that the first of them follows.
    pub follows: u64,
    /// Bytes of the last of them that count; 0 when its head must be written again.
    pub length: u64,
    /// The entries that are there.
    pub entries: Vec<(u64, Entry)>,
    /// The index after the last one.
    pub next_index: u64,
    /// What is missing or damaged although it was synced: nothing behind it is in the fields above.
    pub problem: Option<Error>,
    /// A group keeps the log: its first frame came when the state of raft was there.
    pub replicated: bool,
    /// The segment that is read says so.
    marked_replicated: bool,
    /// Where each frame stands.
    pub places: Vec<Place>,
}

/// Where a frame stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Which of the segments.
    pub segment: usize,
    pub offset: u64,
    /// Of its payload.
    pub bytes: u32,
    pub index: u64,
    /// Of its append.
    first: u64,
    last: u64,
}

/// A segment that is read.
struct Segment<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    first: u64,
    /// Entries below this index were synced.
    synced: u64,
}

/// The first indexes of the segments in a folder, in order.
pub(super) fn list_segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>> {
    let names = match disk.list(folder) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(at(folder, e)),
    };
    let first = |name: &String| name.strip_suffix(".log")?.parse().ok();
    let mut segments: Vec<u64> = names.iter().filter_map(first).collect();
    segments.sort_unstable();
    Ok(segments)
}

impl Read {
    /// Reads everything. `mark` is none where there is none.
    /// Rows that are objects are read as well if it `has_files`.
    pub fn all(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        mark: Option<Synced>,
        has_files: bool,
    ) -> Result<Read> {
        let mut read = Read {
            log: mark.map(|m| m.log),
            segments: Vec::new(),
            follows: 0,
            length: 0,
            entries: Vec::new(),
            next_index: 1,
            problem: None,
            replicated: false,
            marked_replicated: false,
            places: Vec::new(),
        };
        let marked = mark.map_or(0, |m| m.next_index);
        let segments = list_segments(disk.as_ref(), folder)?;
        for (i, first) in segments.iter().enumerate() {
            let path = &segment_path(folder, *first);
            let bytes = &disk.read(path).map_err(|e| at(path, e))?;
            if read.is_unused(bytes) {
                tracing::warn!(file = %path.display(), "the beginning of another log is left out");
                continue;
            }
            let segment = Segment {
                path,
                bytes,
                first: *first,
                synced: marked.max(segments.get(i + 1).copied().unwrap_or(0)),
            };
            let whole = read
                .head(&segment)
                .and_then(|whole| if whole { read.frames(&segment) } else { Ok(()) });
            if let Err(problem) = whole {
                read.problem = Some(problem);
                break;
            }
        }
        read.drop_unfinished_append(folder);
        if read.problem.is_none()
            && let Some(mark) = mark
        {
            read.problem = read.missing(folder, mark);
        }
        if has_files {
            read.load_objects(disk, folder)?;
        }
        Ok(read)
    }

    /// Whether this is the beginning of another log, without entries: a start without this log was
    /// refused before it was put back.
    fn is_unused(&self, bytes: &[u8]) -> bool {
        let other = |head: SegmentHeader| self.log.is_some_and(|log| log != head.log);
        bytes.len() == SEGMENT_HEADER_BYTES
            && matches!(SegmentHeader::decode(bytes), SegmentHead::Whole(head) if other(head))
    }

    /// Reads the head of a segment; says whether frames may follow. A head is synced before that:
    /// one that is not whole is what a power loss left of a segment that was being made.
    fn head(&mut self, segment: &Segment) -> Result<bool> {
        let Segment { path, first, .. } = segment;
        let only = self.segments.is_empty();
        match SegmentHeader::decode(segment.bytes) {
            SegmentHead::Whole(head) => {
                if head.first != *first || *self.log.get_or_insert(head.log) != head.log {
                    return Err(Error::corrupt(format!(
                        "log: {} is not what its name says: at byte 0 begins entry {} of log \
                         {:016x}",
                        path.display(),
                        head.first,
                        head.log
                    ))
                    .with_hint(HINT));
                }
                self.marked_replicated = head.replicated;
                if only {
                    self.follows = head.follows;
                } else if head.follows + 1 != self.next_index {
                    return Err(self.gap(path, head.follows));
                }
                self.length = SEGMENT_HEADER_BYTES as u64;
            }
            SegmentHead::Version(version) => return Err(version_unknown(path, version)),
            SegmentHead::Foreign => {
                return Err(Error::corrupt(format!(
                    "log: {} is of a build older than version 1 of the log",
                    path.display()
                ))
                .with_hint("Start that build again, or begin with a new data folder."));
            }
            SegmentHead::Damaged => {
                let log = self.log.unwrap_or_default();
                let follows_nothing = only && *first == 1;
                if segment.synced > *first
                    || later_append(segment.bytes, log, 0).is_some()
                    || !(follows_nothing || !only && self.next_index == *first)
                {
                    return Err(damaged(path, 0, *first));
                }
                self.length = 0;
            }
        }
        self.segments.push(*first);
        self.next_index = *first;
        Ok(self.length > 0)
    }

    /// Reads frames until one is not whole.
    fn frames(&mut self, segment: &Segment) -> Result<()> {
        while self.length < segment.bytes.len() as u64 {
            let (index, offset) = (self.next_index, self.length);
            let rest = &segment.bytes[offset as usize..];
            let log = self.log.unwrap_or_default();
            let frame = FrameHeader::decode(rest, log)
                .filter(|header| self.comes_next(header))
                .and_then(|header| Some((header, header.payload(rest)?)));
            let Some((header, payload)) = frame else {
                if later_append(rest, log, index).is_some() {
                    return Err(damaged(segment.path, offset, index));
                }
                if segment.synced > index {
                    return Err(damaged_or_cut_off(segment, offset, index, log));
                }
                tracing::warn!(
                    file = %segment.path.display(),
                    offset,
                    bytes = rest.len(),
                    "the log ends with an append that never returned: it is cut off"
                );
                return Ok(());
            };
            let entries = payload::decode(payload)
                .map_err(|error| unreadable(segment.path, offset, index, payload, &error))?;
            let entries = entries.into_iter().map(|entry| (index, entry));
            self.replicated |= self.marked_replicated;
            self.entries.extend(entries);
            self.places.push(Place {
                segment: self.segments.len() - 1,
                offset,
                bytes: header.length as u32,
                index,
                first: header.append_first,
                last: header.append_last,
            });
            self.length += header.frame_bytes() as u64;
            self.next_index = index + 1;
        }
        Ok(())
    }

    /// Whether this is the header of the next frame, of the append that is being read or of a new
    /// one.
    fn comes_next(&self, header: &FrameHeader) -> bool {
        let append = (header.append_first, header.append_last);
        let comes = match self.places.last() {
            Some(place) if place.last > place.index => append == (place.first, place.last),
            Some(place) if place.first == header.append_first => header.append_last == header.index,
            _ => header.append_first == self.next_index && header.append_last >= header.index,
        };
        header.index == self.next_index && comes
    }

    /// Entries that were appended together are there all or none.
    fn drop_unfinished_append(&mut self, folder: &Path) {
        let Some(place) = self.places.last().copied().filter(|p| p.last > p.index) else {
            return;
        };
        let path = segment_path(folder, self.segments[place.segment]);
        tracing::warn!(
            file = %path.display(),
            entries = place.index + 1 - place.first,
            "entries are left out: the append that they belong to is not whole"
        );
        let first = self.places.partition_point(|p| p.index < place.first);
        self.cut_before(first);
    }

    /// Leaves out the frame at this position and all that follow.
    fn cut_before(&mut self, position: usize) {
        let place = self.places[position];
        self.segments.truncate(place.segment + 1);
        (self.length, self.next_index) = (place.offset, place.index);
        self.places.truncate(position);
        self.entries.retain(|(index, _)| *index < place.index);
    }

    /// What the mark knows and the log does not have.
    fn missing(&self, folder: &Path, mark: Synced) -> Option<Error> {
        if self.next_index >= mark.next_index {
            return None;
        }
        let path = segment_path(folder, mark.segment);
        let last = mark.next_index - 1;
        let message = if self.segments.last() == Some(&mark.segment) {
            format!(
                "log: {} ends at byte {}, but was synced to byte {}: entries {} to {last} are \
                 missing",
                path.display(),
                self.length,
                mark.length,
                self.next_index
            )
        } else {
            format!(
                "log: {} is missing, from byte 0: it had entries up to {last}",
                path.display()
            )
        };
        Some(Error::corrupt(message).with_hint(HINT))
    }

    /// A segment does not follow what was read.
    fn gap(&self, path: &Path, follows: u64) -> Error {
        let folder = path.parent().unwrap_or(Path::new(""));
        let before = self.segments.last().copied().unwrap_or_default();
        Error::corrupt(format!(
            "log: entries {} to {follows} are missing in front of {}: they stood behind byte {} of \
             {}, or in {}",
            self.next_index,
            path.display(),
            self.length,
            segment_path(folder, before).display(),
            segment_path(folder, self.next_index).display()
        ))
        .with_hint(HINT)
    }

    /// The objects that entries name, by the entries' indexes.
    pub fn named(&self) -> BTreeMap<u64, Vec<String>> {
        let named = |(index, entry): &(u64, Entry)| {
            let rows = entry.named_rows().map(|(_, named)| named.name.as_str());
            let names = entry.stored_names().into_iter().chain(rows);
            (*index, names.map(String::from).collect::<Vec<_>>())
        };
        let mut all = BTreeMap::<u64, Vec<String>>::new();
        let named = self.entries.iter().map(named);
        for (index, names) in named.filter(|(_, names)| !names.is_empty()) {
            all.entry(index).or_default().extend(names);
        }
        all
    }

    /// Puts the rows of large cuts into their entries: of those that the last checkpoint does not
    /// contain. The objects of the others may be gone.
    fn load_objects(&mut self, disk: &Arc<dyn Disk>, folder: &Path) -> Result<()> {
        let objects = Objects::folder_of(folder);
        let committed = self
            .entries
            .iter()
            .rev()
            .find_map(|(_, entry)| match entry {
                Entry::Checkpoint { epoch, .. } => Some(*epoch),
                _ => None,
            });
        let contained = committed.unwrap_or(Epoch(0));
        let mut lost = None;
        for (index, entry) in &mut self.entries {
            if entry.epoch_of_cut().is_none_or(|epoch| epoch <= contained) {
                continue;
            }
            let loaded = match entry.named_rows() {
                Some((_, named)) => {
                    objects::load(disk.as_ref(), &objects, named).and_then(|rows| entry.fill(&rows))
                }
                None => Ok(()),
            };
            let loaded = loaded.and_then(|()| entry.open_stored(disk, &objects));
            if let Err(error) = loaded {
                let error = error.context(format!("log: rows of entry {index}"));
                if error.kind() != tidemark_common::ErrorKind::Corrupt {
                    return Err(error);
                }
                lost = Some((*index, error));
                break;
            }
        }
        if let Some((index, error)) = lost {
            let mut frame = self.places.partition_point(|p| p.index < index);
            while frame > 0 && self.places[frame - 1].last >= self.places[frame].index {
                frame -= 1;
            }
            self.cut_before(frame);
            self.problem = Some(error.with_hint(HINT));
        }
        Ok(())
    }
}

/// What to do about damage.
const HINT: &str = "Put the file back as it was. If it is gone for good, start once with \
                    --recover-from-checkpoint: what was decided after the last checkpoint and \
                    cannot be read is lost then.";

fn damaged(path: &Path, offset: u64, index: u64) -> Error {
    Error::corrupt(format!(
        "log: {} is damaged at byte {offset} (entry {index})",
        path.display()
    ))
    .with_hint(HINT)
}

/// Damage that nothing stands behind: a frame that does not end before the file does is told as
/// what it most likely is.
fn damaged_or_cut_off(segment: &Segment, offset: u64, index: u64, log: u64) -> Error {
    let rest = &segment.bytes[offset as usize..];
    let cut_off = FrameHeader::decode(rest, log).map_or(rest.len() < FRAME_HEADER_BYTES, |h| {
        h.frame_bytes() > rest.len()
    });
    if !cut_off {
        return damaged(segment.path, offset, index);
    }
    Error::corrupt(format!(
        "log: {} ends at byte {}, in the middle of entry {index}, which was synced",
        segment.path.display(),
        segment.bytes.len()
    ))
    .with_hint(HINT)
}

/// A frame that is whole, and yet no entry that this build can read.
fn unreadable(path: &Path, offset: u64, index: u64, payload: &[u8], error: &Error) -> Error {
    Error::corrupt(format!(
        "log: {} at byte {offset}: entry {index} ({}) cannot be read: {}",
        path.display(),
        payload::describe(payload),
        error.message()
    ))
    .with_hint(HINT)
}
