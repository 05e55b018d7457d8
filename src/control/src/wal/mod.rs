//! The write-ahead log of one node: segment files of frames ([`frame`] has the bytes), appended and
//! synced, and beside them a mark that says how far ([`mark`]).
//!
//! **Law.** What `append` returned for is there after any crash, or the start fails with an error
//! that names file and offset. Nothing is skipped, and nothing that was acknowledged is taken for
//! torn. After a mere power loss the log opens without help.
//!
//! * An append is one write and one sync of the last segment. Then the mark is written, without a
//!   sync, and the caller is told. The entries of one frame ([`payload`]) are there all or none; of
//!   frames that are appended together any first part may be, if nobody was told.
//! * Frames at the end may be given up for others ([`WriteAheadLog::give_up`]): a leader that died
//!   may have left some that were never decided.
//! * At a start ([`read`]) an end that is not whole is cut off with a warning only if nothing
//!   proves that it was synced: neither the mark, nor a later append, nor a later segment.
//! * What a power loss may undo is synced in this order: the folder into the one above it, the
//!   mark, the head of a segment, the folder, the mark again; then entries. So the mark is there
//!   whenever a segment is, and knows the last segment.
//! * Rows of large cuts are files of their own ([`objects`]), synced before their entry.
//! * An entry that is too large, or that cannot be read back, is refused before anything is
//!   written. An append that cannot write (a full disk) is taken back and may be tried again. After
//!   a failed sync the log takes nothing more, because what is on disk is not known then; the next
//!   start writes again what lies beyond the mark, as the system may hold it for clean.
//! * With `accept_loss` what can be read counts: files that are damaged are copied to a folder
//!   `log.aside-N`, and the log goes on behind the indexes that it had.
//!
//! **Cost.** An append of 700 bytes takes 3.99 ms in the median and 11 ms at 99 % on the disk that
//! this was measured on, nearly all of it the sync; writing the mark adds 0.03 ms (0.06 at 99 %).
//!
//! **Why not a library.** raft-engine 0.4.2 was read for it. An append is one write and one
//! `fdatasync` there as well, so it would not be faster. Its recovery cannot tell what was
//! acknowledged from what was torn: by default it cuts the last file (128 MB of log) off at the
//! first batch that is not whole, with a warning, whatever stands behind it, and looks at the
//! payload of the last batch only; in its strict mode it refuses to open after a mere power loss. A
//! sync that fails ends the process. raft-rs has its storage over this log (`crate::raft`), which
//! gives it payloads by index.
//!
//! Every call that touches the disk goes through [`Disk`]; the tests drop and tear what was not
//! synced.

mod frame;
mod mark;
mod objects;
pub(crate) mod payload;
mod read;
#[cfg(test)]
pub(crate) mod tests;

use crate::Entry;
use frame::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use mark::{Found, Mark, Slot, Synced};
use objects::Objects;
use payload::Encoder;
use read::Read;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::disk::{Disk, DiskFile};
use tidemark_common::{Error, Result, SqlState, failpoint};

/// A segment is closed when it is larger than this, in bytes.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// A log in a folder of segment files.
pub struct WriteAheadLog {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Its own number.
    log: u64,
    segments: Vec<u64>,
    file: Box<dyn DiskFile>,
    file_bytes: u64,
    next_index: u64,
    mark: Mark,
    objects: Objects,
    /// Of all frames, in order.
    spots: VecDeque<Spot>,
    /// A segment is closed when it is larger than this, in bytes.
    pub(crate) segment_bytes_max: u64,
    /// A group has kept it before.
    replicated: bool,
    /// An append was taken back since the last sync.
    untidy: bool,
    broken: bool,
}

/// Where the payload of a frame stands.
#[derive(Clone, Copy)]
struct Spot {
    segment: u64,
    offset: u64,
    bytes: u32,
}

/// A log that was opened, with what it says.
pub struct OpenedLog {
    /// Takes more entries.
    pub log: WriteAheadLog,
    /// Makes payloads of them.
    pub encoder: Encoder,
    /// What it has, with the indexes.
    pub entries: Vec<(u64, Entry)>,
    /// The index that the first entry follows: all up to it are in a checkpoint.
    pub follows: u64,
    /// Entries are lost, and the caller accepts it, or an earlier one did who did not come to tell
    /// ([`DecisionLog::loss_is_told`]).
    pub loss: Option<Error>,
    /// Nothing is there, not even a mark: it is new, or missing.
    pub is_new: bool,
}

impl WriteAheadLog {
    /// Opens or makes the log in `folder`. What was acknowledged and is not there is an error; with
    /// `accept_loss` it is told, and what can be read counts.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, accept_loss: bool) -> Result<OpenedLog> {
        WriteAheadLog::open_member(disk, folder, accept_loss, None)
    }

    /// The same, of a member of a group whose log begins `behind` this index: what is before it
    /// counts no more, and entries may name files that only others have.
    pub fn open_member(
        disk: Arc<dyn Disk>,
        folder: &Path,
        accept_loss: bool,
        behind: Option<u64>,
    ) -> Result<OpenedLog> {
        if let Some(behind) = behind {
            remove_before(disk.as_ref(), folder, behind)?;
        }
        let mark_path = mark::path(folder);
        let (mark, slot, unmarked) = match Mark::read(disk.as_ref(), &mark_path)? {
            Found::Synced(synced, slot) => (Some(synced), slot, None),
            // The first start ended before there was a segment.
            Found::Missing | Found::Damaged
                if read::list_segments(disk.as_ref(), folder)?.is_empty() =>
            {
                (None, Slot::default(), None)
            }
            Found::Missing => {
                let problem = no_mark(&mark_path, "missing");
                (None, Slot::default(), Some(problem))
            }
            Found::Damaged => {
                let problem = no_mark(&mark_path, "damaged at byte 0");
                (None, Slot::default(), Some(problem))
            }
        };
        let mut read = Read::all(&disk, folder, mark, behind.is_none())?;
        let accepted = is_there(disk.as_ref(), &loss_path(folder))?;
        let found = unmarked.or(read.problem.take());
        if let Some(error) = &found
            && !accept_loss
            && !accepted
        {
            return Err(error.clone());
        }
        disk.create_folder(folder).map_err(|e| at(folder, e))?;
        if found.is_some() {
            // Before anything is cut: what is left looks whole.
            make_file(disk.as_ref(), &loss_path(folder))?;
            set_aside(disk.as_ref(), folder, &read)?;
        }
        let earlier = || {
            let text = "the loss of a part of the log was accepted by a start that did not open";
            accepted.then(|| Error::corrupt(text))
        };
        let loss = found.or_else(earlier);
        let is_new = mark.is_none() && loss.is_none();
        let synced = Synced {
            log: read.log.unwrap_or_else(new_number),
            segment: read.segments.last().copied().unwrap_or(read.next_index),
            length: 0,
            next_index: read.next_index,
        };
        let log = WriteAheadLog::resume(disk, folder, &read, synced, mark, slot)?;
        let generations = read.entries.iter().map(|(_, entry)| match entry {
            Entry::Opened { generation } => *generation,
            _ => 0,
        });
        let generation = generations.max().unwrap_or(0);
        let mut opened = OpenedLog {
            encoder: Encoder::new(log.objects.files(), generation),
            log,
            entries: read.entries,
            follows: read.follows,
            loss,
            is_new,
        };
        let used = mark.map_or(0, |m| m.next_index);
        if used > read.next_index {
            // No index is used twice.
            opened.log.roll(used, read.next_index - 1)?;
        }
        Ok(opened)
    }

    /// Makes the end of what was read the end of the log, durably.
    fn resume(
        disk: Arc<dyn Disk>,
        folder: &Path,
        read: &Read,
        synced: Synced,
        mark: Option<Synced>,
        mut slot: Slot,
    ) -> Result<WriteAheadLog> {
        let mark_path = mark::path(folder);
        let objects = Objects::open(disk.clone(), Objects::folder_of(folder), read.named())?;
        if mark.is_none() {
            // Before there is a segment: one without a mark has lost it.
            slot = Mark::open(disk.as_ref(), &mark_path, &synced, slot)
                .map_err(|e| at(&mark_path, e))?
                .slot();
        }
        let path = segment_path(folder, synced.segment);
        let mut file = disk.open(&path).map_err(|e| at(&path, e))?;
        let header = SegmentHeader {
            log: synced.log,
            first: synced.segment,
            follows: synced.segment.saturating_sub(1),
            replicated: true,
        };
        let end = finish_segment(disk.as_ref(), &path, file.as_mut(), read, &header, mark)
            .and_then(|end| disk.sync_folder(folder).map(|()| end))
            .map_err(|e| at(&path, e))?;
        let synced = Synced {
            length: end,
            ..synced
        };
        let mark =
            Mark::open(disk.as_ref(), &mark_path, &synced, slot).map_err(|e| at(&mark_path, e))?;
        objects.remove_unnamed()?;
        // Up to where a loss was accepted.
        let runs = read.places.chunk_by(|a, b| a.index + 1 == b.index);
        let run = runs.last().filter(|run| {
            let last = run.last().map(|place| place.index + 1);
            last == Some(synced.next_index)
        });
        let spots = run.unwrap_or_default().iter().map(|place| Spot {
            segment: read.segments[place.segment],
            offset: place.offset + FRAME_HEADER_BYTES as u64,
            bytes: place.bytes,
        });
        let spots = spots.collect();
        let segments = if read.segments.is_empty() {
            vec![synced.segment]
        } else {
            read.segments.clone()
        };
        Ok(WriteAheadLog {
            disk,
            folder: folder.into(),
            log: synced.log,
            segments,
            file,
            file_bytes: end,
            next_index: synced.next_index,
            mark,
            objects,
            spots,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            replicated: read.replicated,
            untidy: false,
            broken: false,
        })
    }

    fn synced(&self) -> Synced {
        Synced {
            log: self.log,
            segment: self.segments.last().copied().unwrap_or_default(),
            length: self.file_bytes,
            next_index: self.next_index,
        }
    }

    /// Begins a segment whose first entry will be `first`, behind entry `follows`. One that cannot
    /// be made leaves nothing, or the log is broken.
    fn roll(&mut self, first: u64, follows: u64) -> Result<()> {
        if self.segments.last() == Some(&first) {
            // It has no entry yet.
            return Ok(());
        }
        let path = segment_path(&self.folder, first);
        self.settle()?;
        let header = SegmentHeader {
            log: self.log,
            first,
            follows,
            replicated: true,
        };
        let make = || {
            let mut file = self.disk.open(&path)?;
            file.truncate(0)?;
            file.write_at(0, &header.encode())?;
            file.sync()?;
            self.disk.sync_folder(&self.folder)?;
            Ok(file)
        };
        match make() {
            Ok(file) => self.file = file,
            Err(e) => {
                let undone = self.disk.remove(&path);
                let undone = undone.and_then(|()| self.disk.sync_folder(&self.folder));
                self.broken = undone.is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound);
                return Err(at(&path, e));
            }
        }
        self.segments.push(first);
        if first != self.next_index {
            self.spots.clear();
        }
        self.next_index = first;
        self.file_bytes = SEGMENT_HEADER_BYTES as u64;
        let synced = self.synced();
        self.mark
            .write_synced(&synced)
            .map_err(|e| at(&mark::path(&self.folder), e))
            .inspect_err(|_| self.broken = true)
    }

    fn write(&mut self, payloads: &[impl AsRef<[u8]>]) -> Result<()> {
        self.settle()?;
        if self.file_bytes > self.segment_bytes_max {
            self.roll(self.next_index, self.next_index - 1)?;
        }
        let (frames, spots) = self.frames(payloads);
        failpoint::check("log.append")?;
        let path = segment_path(&self.folder, self.synced().segment);
        if let Err(e) = self.file.write_at(self.file_bytes, &frames) {
            self.take_back();
            return Err(at(&path, e));
        }
        // What a failed sync left on disk is not known: no entry may follow it.
        failpoint::check("log.sync")
            .and_then(|()| self.file.sync().map_err(|e| at(&path, e)))
            .inspect_err(|_| self.broken = true)?;
        self.untidy = false;
        let synced = Synced {
            length: self.file_bytes + frames.len() as u64,
            next_index: self.next_index + payloads.len() as u64,
            ..self.synced()
        };
        if let Err(e) = self.mark.write(&synced) {
            self.take_back();
            return Err(at(&mark::path(&self.folder), e));
        }
        self.file_bytes = synced.length;
        self.next_index = synced.next_index;
        self.spots.extend(spots);
        Ok(())
    }

    /// Makes durable that an append was taken back: it must not come back in front of a segment, or
    /// name an object that is written anew.
    fn settle(&mut self) -> Result<()> {
        if self.untidy {
            let path = segment_path(&self.folder, self.synced().segment);
            let synced = self.file.sync().map_err(|e| at(&path, e));
            synced.inspect_err(|_| self.broken = true)?;
            self.untidy = false;
        }
        Ok(())
    }

    /// Takes back what was written of an append, so that a full disk is not the end: the caller may
    /// try again.
    fn take_back(&mut self) {
        self.untidy = true;
        self.broken = self.file.truncate(self.file_bytes).is_err();
    }

    /// The frames of these payloads, to be appended together, and where each of them will stand.
    fn frames(&self, payloads: &[impl AsRef<[u8]>]) -> (Vec<u8>, Vec<Spot>) {
        let first = self.next_index;
        let (mut frames, mut spots) = (Vec::new(), Vec::with_capacity(payloads.len()));
        for (payload, index) in payloads.iter().map(AsRef::as_ref).zip(first..) {
            let bytes = payload.len() as u32;
            let header = FrameHeader::new(payload, bytes, index, (first, index));
            frames.reserve(FRAME_HEADER_BYTES + payload.len());
            frames.extend_from_slice(&header.encode(self.log));
            spots.push(Spot {
                segment: self.synced().segment,
                offset: self.file_bytes + frames.len() as u64,
                bytes,
            });
            frames.extend_from_slice(payload);
        }
        (frames, spots)
    }

    /// Appends frames with these payloads, together; returns the index of the last one when they
    /// are durable. One that does not fit on the disk is taken back and may be tried again.
    pub fn append(&mut self, payloads: &[impl AsRef<[u8]>]) -> Result<u64> {
        if self.broken {
            return Err(Error::unavailable(
                SqlState::IO_ERROR,
                "the log failed earlier and takes no more entries",
            )
            .with_hint("Restart the server when the disk is well again."));
        }
        let first = self.next_index;
        self.write(payloads)?;
        for (payload, index) in payloads.iter().zip(first..) {
            for name in payload::names(payload.as_ref())? {
                self.objects.keep(index, name);
            }
        }
        Ok(self.next_index - 1)
    }

    /// The index of the first frame that it has, or of the next one.
    pub fn first_index(&self) -> u64 {
        self.next_index - self.spots.len() as u64
    }

    /// The index of the next frame.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Whether frames name objects.
    pub fn names_files(&self) -> bool {
        !self.objects.is_empty()
    }

    /// Whether a group kept it when it was opened.
    pub fn is_replicated(&self) -> bool {
        self.replicated
    }

    /// The bytes of a frame's payload, which it must have.
    pub fn payload_bytes(&self, index: u64) -> usize {
        self.spot(index).map_or(0, |spot| spot.bytes as usize)
    }

    fn spot(&self, index: u64) -> Option<&Spot> {
        let at = index.checked_sub(self.first_index())?;
        self.spots.get(usize::try_from(at).ok()?)
    }

    /// The payload of a frame, which it must have: read back.
    pub fn payload(&self, index: u64) -> Result<Vec<u8>> {
        let spot = self
            .spot(index)
            .ok_or_else(|| Error::internal(format!("the log has no entry {index}")))?;
        let path = segment_path(&self.folder, spot.segment);
        let bytes = self
            .disk
            .read_at(&path, spot.offset, spot.bytes as usize)
            .map_err(|e| at(&path, e))?;
        Ok(bytes)
    }

    /// Frames from `index` on count no more: they were never decided. Durable when this returns.
    pub fn give_up(&mut self, index: u64) -> Result<()> {
        let Some(spot) = self.spot(index).copied() else {
            return Ok(());
        };
        self.settle()?;
        let before = std::mem::take(&mut self.segments);
        let (kept, gone) = before.into_iter().partition(|s| *s <= spot.segment);
        self.segments = kept;
        let path = segment_path(&self.folder, spot.segment);
        self.file = self.disk.open(&path).map_err(|e| at(&path, e))?;
        self.file_bytes = spot.offset - FRAME_HEADER_BYTES as u64;
        self.spots.truncate((index - self.first_index()) as usize);
        self.next_index = index;
        self.objects.forget_from(index);
        // Until it is done, nobody knows what is there.
        self.broken = true;
        let synced = self.synced();
        self.mark
            .write_synced(&synced)
            .map_err(|e| at(&mark::path(&self.folder), e))?;
        // The last one first: no segment may be missing in front of one that is still there.
        let gone: Vec<u64> = gone;
        for segment in gone.into_iter().rev() {
            remove(self.disk.as_ref(), &segment_path(&self.folder, segment))?;
            self.disk
                .sync_folder(&self.folder)
                .map_err(|e| at(&self.folder, e))?;
        }
        let cut = self.file.truncate(self.file_bytes);
        cut.and_then(|()| self.file.sync())
            .map_err(|e| at(&path, e))?;
        self.broken = false;
        Ok(())
    }

    /// All that a lost log had, and all up to `index`, is in a checkpoint or gone: the log begins
    /// anew behind it, with an index that was never used.
    pub fn begin_behind(&mut self, index: u64) -> Result<()> {
        let first = self.next_index.max(index + 1);
        self.roll(first, index)?;
        let before = std::mem::take(&mut self.segments);
        self.segments.push(first);
        self.spots.clear();
        for segment in before.into_iter().filter(|s| *s != first) {
            remove(self.disk.as_ref(), &segment_path(&self.folder, segment))?;
        }
        self.disk
            .sync_folder(&self.folder)
            .map_err(|e| at(&self.folder, e))
    }

    /// The log has an entry of an opening that went on behind an accepted loss: that need not be
    /// known any more.
    pub fn loss_is_told(&mut self) -> Result<()> {
        let path = loss_path(&self.folder);
        if !is_there(self.disk.as_ref(), &path)? {
            return Ok(());
        }
        remove(self.disk.as_ref(), &path)?;
        sync_parent(self.disk.as_ref(), &path)
    }

    /// The entries after `index` that it still has. Not cheap: they are read back.
    pub fn read_after(&self, index: u64) -> Result<Vec<(u64, Entry)>> {
        let read = Read::all(&self.disk, &self.folder, Some(self.synced()), true)?;
        if let Some(problem) = read.problem {
            return Err(problem);
        }
        let mut entries = read.entries;
        entries.retain(|(i, _)| *i > index);
        Ok(entries)
    }

    /// Entries up to and including `index` are not needed any more.
    pub fn truncate(&mut self, index: u64) -> Result<()> {
        while self.segments.len() > 1 && self.segments[1] <= index + 1 {
            remove(
                self.disk.as_ref(),
                &segment_path(&self.folder, self.segments[0]),
            )?;
            self.segments.remove(0);
            let first = self.segments[0];
            let gone = first.saturating_sub(self.first_index()) as usize;
            self.spots.drain(..gone.min(self.spots.len()));
            // One after the other: after a power loss no segment may be missing behind one that is
            // still there.
            self.disk
                .sync_folder(&self.folder)
                .map_err(|e| at(&self.folder, e))?;
        }
        self.objects.collect(index)
    }
}

/// Removes segments that a log had before it began `behind` a checkpoint, where the new beginning
/// is there already: whoever took it may have died meanwhile.
fn remove_before(disk: &dyn Disk, folder: &Path, behind: u64) -> Result<()> {
    let segments = read::list_segments(disk, folder)?;
    if !segments.iter().any(|first| *first > behind) {
        return Ok(());
    }
    for first in segments.into_iter().filter(|first| *first <= behind) {
        remove(disk, &segment_path(folder, first))?;
    }
    disk.sync_folder(folder).map_err(|e| at(folder, e))
}

/// Beside the log from when a loss is accepted until the log tells of it: who dies between is not
/// forgotten.
fn loss_path(folder: &Path) -> PathBuf {
    folder.with_extension("loss")
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool> {
    match disk.read(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(path, e)),
    }
}

fn make_file(disk: &dyn Disk, path: &Path) -> Result<()> {
    let made = disk.open(path).and_then(|mut file| file.sync());
    made.map_err(|e| at(path, e))?;
    sync_parent(disk, path)
}

/// Removes a file; one that is gone already is removed.
fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at(path, e)),
        _ => Ok(()),
    }
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    disk.sync_folder(parent).map_err(|e| at(parent, e))
}

/// Cuts the last segment off where what counts ends, gives it its head where it has none, and
/// syncs it. Returns its length. What lies beyond the mark is written once more: after a failed
/// sync the system may hold for clean what never reached the disk.
fn finish_segment(
    disk: &dyn Disk,
    path: &Path,
    file: &mut dyn DiskFile,
    read: &Read,
    header: &SegmentHeader,
    mark: Option<Synced>,
) -> std::io::Result<u64> {
    let bytes = disk.read(path)?;
    if read.length == 0 {
        file.truncate(0)?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        return Ok(SEGMENT_HEADER_BYTES as u64);
    }
    let marked = mark.filter(|m| m.segment == header.first);
    let from = marked.map_or(0, |m| m.length.min(read.length));
    if from < read.length {
        file.write_at(from, &bytes[from as usize..read.length as usize])?;
    }
    if bytes.len() as u64 > read.length {
        file.truncate(read.length)?;
    }
    file.sync()?;
    Ok(read.length)
}

/// Keeps a copy of what does not count any more: the last segment that does, before its end is cut
/// off, all segments behind it, and the objects that no entry names.
fn set_aside(disk: &dyn Disk, folder: &Path, read: &Read) -> Result<()> {
    let cut = read.segments.last().copied();
    let segments = read::list_segments(disk, folder)?.into_iter();
    let segments = segments.filter(|s| cut.is_none_or(|c| *s >= c));
    let mut doubtful: Vec<PathBuf> = segments.map(|s| segment_path(folder, s)).collect();
    let (objects, named) = (Objects::folder_of(folder), read.named());
    for name in disk.list(&objects).unwrap_or_default() {
        if !named.values().flatten().any(|n| *n == name) {
            doubtful.push(objects.join(name));
        }
    }
    let aside = (1..)
        .map(|n| folder.with_extension(format!("aside-{n}")))
        .find(|aside| disk.list(aside).is_err())
        .unwrap_or_else(|| folder.with_extension("aside"));
    disk.create_folder(&aside).map_err(|e| at(&aside, e))?;
    for path in &doubtful {
        let copy = aside.join(path.file_name().unwrap_or_default());
        let copied = disk.read(path).and_then(|bytes| {
            let mut file = disk.open(&copy)?;
            file.write_at(0, &bytes)?;
            file.sync()
        });
        copied.map_err(|e| at(&copy, e))?;
    }
    disk.sync_folder(&aside).map_err(|e| at(&aside, e))?;
    let kept = cut.map(|c| segment_path(folder, c));
    for path in doubtful.iter().filter(|p| Some(*p) != kept.as_ref()) {
        disk.remove(path).map_err(|e| at(path, e))?;
    }
    tracing::warn!(folder = %aside.display(), "what the log had and does not count is kept here");
    Ok(())
}

fn at(path: &Path, e: std::io::Error) -> Error {
    Error::from(e).context(path.display())
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

fn version_unknown(path: &Path, version: u32) -> Error {
    Error::corrupt(format!(
        "log: {} is of version {version}, this build knows version {}",
        path.display(),
        frame::VERSION
    ))
    .with_hint("Start the build that wrote it.")
}

fn no_mark(path: &Path, what: &str) -> Error {
    Error::corrupt(format!(
        "log: {} is {what}: without it nobody can say whether the log is whole",
        path.display()
    ))
    .with_hint(
        "Put the file back. If it is gone for good, start once with --recover-from-checkpoint: \
         what the log has counts then, and nothing proves that it is all.",
    )
}

/// A number for a new log, unlike that of any other.
pub(super) fn new_number() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
