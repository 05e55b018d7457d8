//! A disk that outlives the processes on it. What a process did is there for the next one, however
//! it ended; a power loss ends all of them and takes the disk back to what was synced, with any
//! part of what happened since: each write wholly, not at all or torn, lengths and names likewise.
//!
//! A sync makes durable what was written since the one before, and nothing else: after a failed one
//! the system holds for clean what may never have reached the disk, and no later sync writes it.

use super::alive::Alive;
use super::dice::Dice;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::disk::{Disk, DiskFile, Lock};
use tidemark_common::machine;

/// A time that something takes is between these.
pub type Takes = (Duration, Duration);

/// What is wrong with a disk. By default nothing is.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskTrouble {
    /// What a write takes; when that is not nothing, a part is there before the rest.
    pub writes: Takes,
    /// What a sync of a file or a folder takes, before it counts.
    pub syncs: Takes,
    /// There is no room: a write writes a part, nothing new can be made, nothing written synced.
    pub full: bool,
    /// Of a thousand calls that change or sync something so many fail.
    pub failing: u64,
    /// Of a thousand calls that look so many fail.
    pub failing_reads: u64,
}

/// The disk. Cloning shares.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    dice: Dice,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What every call sees.
    names: Names,
    /// What a power loss leaves at least, and the changes since.
    durable: Names,
    unsynced: Vec<Renaming>,
    /// The number of the last file or change.
    last: u64,
    processes: Vec<Alive>,
    trouble: DiskTrouble,
}

type Names = BTreeMap<PathBuf, Item>;

#[derive(Clone)]
enum Item {
    Folder,
    File(Arc<Mutex<File>>),
}

/// A change of the names in one folder, which a journal would keep whole. Of a file that gets
/// another name in the folder, both may be there, but never neither.
struct Renaming {
    number: u64,
    comes: Option<(PathBuf, Item)>,
    goes: Option<PathBuf>,
}

struct File {
    number: u64,
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Changes that are not unsynced any more.
    settled: u64,
    lock: Option<Held>,
}

struct Held {
    by: Alive,
    number: u64,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// One process's way to the disk.
struct Handle {
    disk: SimDisk,
    alive: Alive,
}

/// A file that a process has open.
struct OpenFile {
    handle: Handle,
    file: Arc<Mutex<File>>,
}

/// A file that a process holds.
struct HeldFile {
    file: Arc<Mutex<File>>,
    number: u64,
}

impl SimDisk {
    /// An empty disk without trouble.
    pub fn new(dice: Dice) -> SimDisk {
        let state = Mutex::default();
        SimDisk(Arc::new(Shared { dice, state }))
    }

    /// The disk as a process sees it while it lives.
    pub fn open(&self, alive: Alive) -> Arc<dyn Disk> {
        let processes = &mut self.state().processes;
        processes.retain(|process| process.is_alive() && !process.is(&alive));
        processes.push(alive.clone());
        let disk = self.clone();
        Arc::new(Handle { disk, alive })
    }

    /// What is wrong from now on.
    pub fn trouble(&self, trouble: DiskTrouble) {
        self.state().trouble = trouble;
    }

    /// Nothing is wrong any more.
    pub fn calm(&self) {
        self.trouble(DiskTrouble::default());
    }

    /// The power fails: all processes end, and what comes back is durable.
    pub fn power_loss(&self) {
        let dice = &self.0.dice;
        let state = &mut *self.state();
        for process in state.processes.drain(..) {
            process.kill();
        }
        let mut left = std::mem::take(&mut state.durable);
        let (mut kept, unsynced) = (0, std::mem::take(&mut state.unsynced));
        let changes = unsynced.len();
        for change in unsynced {
            if dice.chance(500) {
                change.apply(&mut left, dice.chance(750));
                kept += 1;
            }
        }
        state.names.clear();
        for (path, item) in left {
            // What was in a folder that is gone is gone with it.
            if state.is_in_folder(&path) {
                if let Item::File(file) = &item {
                    file.lock().lose(dice);
                }
                state.names.insert(path, item);
            }
        }
        state.durable = state.names.clone();
        tracing::debug!(target: "sim", "disk: power loss, {kept} of {changes} names kept");
    }

    /// The paths of all files.
    pub fn names(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.names.iter();
        let files = files.filter(|(_, item)| matches!(item, Item::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// What is in a file now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        match self.state().names.get(path)? {
            Item::File(file) => Some(file.lock().now.clone()),
            Item::Folder => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

fn no_room() -> Error {
    ErrorKind::StorageFull.into()
}

impl State {
    fn is_folder(&self, path: &Path) -> bool {
        // The root, and where relative paths begin, are always there.
        path.parent().is_none() || matches!(self.names.get(path), Some(Item::Folder))
    }

    fn is_in_folder(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.is_folder(parent))
    }

    /// Why there is nothing at a path.
    fn absent(&self, path: &Path) -> Error {
        let mut above = path.ancestors().skip(1);
        match above.find_map(|folder| self.names.get(folder)) {
            Some(Item::File(_)) => ErrorKind::NotADirectory.into(),
            _ => ErrorKind::NotFound.into(),
        }
    }

    fn file(&self, path: &Path) -> Result<&Arc<Mutex<File>>> {
        match self.names.get(path) {
            Some(Item::File(file)) => Ok(file),
            None if !self.is_folder(path) => Err(self.absent(path)),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn folder(&self, path: &Path) -> Result<()> {
        match self.names.get(path) {
            _ if self.is_folder(path) => Ok(()),
            Some(_) => Err(ErrorKind::NotADirectory.into()),
            None => Err(self.absent(path)),
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn rename(&mut self, comes: Option<(PathBuf, Item)>, goes: Option<PathBuf>) {
        let number = self.number();
        let change = Renaming {
            number,
            comes,
            goes,
        };
        change.apply(&mut self.names, true);
        self.unsynced.push(change);
    }

    fn make(&mut self, path: &Path, item: Item) -> Result<()> {
        if !self.is_in_folder(path) {
            return Err(self.absent(path));
        }
        if self.trouble.full {
            return Err(no_room());
        }
        self.rename(Some((path.into(), item)), None);
        Ok(())
    }

    /// The file at a path, made if absent.
    fn file_made(&mut self, path: &Path) -> Result<Arc<Mutex<File>>> {
        if let Ok(file) = self.file(path) {
            return Ok(file.clone());
        }
        if self.is_folder(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let file = Arc::new(Mutex::new(File {
            number: self.number(),
            now: Vec::new(),
            durable: Vec::new(),
            unsynced: Vec::new(),
            settled: 0,
            lock: None,
        }));
        self.make(path, Item::File(file.clone()))?;
        Ok(file)
    }
}

impl Renaming {
    fn is_in(&self, folder: &Path) -> bool {
        let comes = self.comes.as_ref().map(|(path, _)| path);
        let path = comes.or(self.goes.as_ref());
        path.and_then(|path| path.parent()) == Some(folder)
    }

    /// `wholly`: of two names the old one goes, too.
    fn apply(&self, names: &mut Names, wholly: bool) {
        if let Some(goes) = self
            .goes
            .as_ref()
            .filter(|_| wholly || self.comes.is_none())
        {
            names.remove(goes);
        }
        if let Some((path, item)) = &self.comes {
            names.insert(path.clone(), item.clone());
        }
    }
}

/// Writes, as far as a file goes: behind its end there are zeros.
fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Length(length) => content.resize(*length, 0),
            Change::Write(at, bytes) => write(content, *at, bytes),
        }
    }

    /// What is there of it if nobody waited for it.
    fn apply_in_part(&self, content: &mut Vec<u8>, dice: &Dice) {
        let (at, bytes) = match self {
            _ if dice.chance(250) => return,
            Change::Write(at, bytes) if dice.chance(600) => (*at, bytes),
            whole => return whole.apply(content),
        };
        let end = at + bytes.len();
        if content.len() < end && dice.chance(250) {
            content.resize(end, 0);
        }
        let (piece, kept) = (dice.pick(&[8, 512, 4096]), dice.pick(&[300, 700, 950]));
        let mut from = at;
        while from < end {
            let to = ((from / piece + 1) * piece).min(end);
            if dice.chance(kept) {
                write(content, from, &bytes[from - at..to - at]);
            }
            from = to;
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    /// Where the changes end that a sync which begins now makes durable.
    fn written(&self) -> u64 {
        self.settled + self.unsynced.len() as u64
    }

    /// The changes up to there count as clean.
    fn settle(&mut self, upto: u64) -> (&mut Vec<u8>, std::vec::Drain<'_, Change>) {
        let count = upto.saturating_sub(self.settled);
        self.settled += count;
        let changes = self.unsynced.drain(..count as usize);
        (&mut self.durable, changes)
    }

    fn synced(&mut self, upto: u64) {
        let (durable, changes) = self.settle(upto);
        changes.for_each(|change| change.apply(durable));
    }

    fn not_synced(&mut self, upto: u64, dice: &Dice) {
        let (durable, changes) = self.settle(upto);
        changes.for_each(|change| change.apply_in_part(durable, dice));
    }

    /// What a power loss leaves.
    fn lose(&mut self, dice: &Dice) {
        self.not_synced(self.written(), dice);
        self.now.clone_from(&self.durable);
        self.lock = None;
    }
}

impl Handle {
    /// The disk, unless the process is dead.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        self.alive.check()?;
        Ok(self.disk.state())
    }

    /// The same for a call that may fail by itself, so many times in a thousand.
    fn try_state(&self, failing: impl Fn(&DiskTrouble) -> u64) -> Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        match self.disk.0.dice.chance(failing(&state.trouble)) {
            true => Err(failure()),
            false => Ok(state),
        }
    }

    fn looks(&self) -> Result<MutexGuard<'_, State>> {
        self.try_state(|trouble| trouble.failing_reads)
    }

    fn changes(&self) -> Result<MutexGuard<'_, State>> {
        self.try_state(|trouble| trouble.failing)
    }

    /// What something takes this time.
    fn time(&self, takes: impl Fn(&DiskTrouble) -> Takes) -> Duration {
        let (from, to) = takes(&self.disk.state().trouble);
        self.disk.0.dice.between(from, to)
    }

    /// Time passes, in a simulation.
    fn wait(&self, time: Duration) -> Result<()> {
        if !time.is_zero() && machine::may_wait() {
            machine::pause(time);
        }
        self.alive.check()
    }
}

fn failure() -> Error {
    tracing::debug!(target: "sim", "disk: a call fails");
    Error::other("the disk failed")
}

impl Disk for Handle {
    fn create_folder(&self, folder: &Path) -> Result<()> {
        let Some(parent) = folder.parent() else {
            return self.alive.check();
        };
        let parent_is_there = self.state()?.is_folder(parent);
        if !parent_is_there {
            self.create_folder(parent)?;
        }
        let mut state = self.changes()?;
        match state.names.get(folder) {
            Some(Item::Folder) => {}
            Some(Item::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
            None => state.make(folder, Item::Folder)?,
        }
        drop(state);
        self.sync_folder(parent)
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        let state = self.looks()?;
        state.folder(folder)?;
        let from = (Bound::Included(folder), Bound::Unbounded);
        let below = state.names.range::<Path, _>(from);
        let below = below.take_while(|(path, _)| path.starts_with(folder));
        let inside = below.filter(|(path, _)| path.parent() == Some(folder));
        let names = inside.filter_map(|(path, _)| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let state = self.looks()?;
        let file = state.file(path)?.lock();
        Ok(file.now.clone())
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let state = self.looks()?;
        let file = state.file(path)?.lock();
        let part = file.now.get(offset as usize..);
        let part = part.and_then(|rest| rest.get(..bytes));
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let file = self.changes()?.file_made(path)?;
        let handle = Handle {
            disk: self.disk.clone(),
            alive: self.alive.clone(),
        };
        Ok(Box::new(OpenFile { handle, file }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.changes()?;
        state.file(path)?;
        state.rename(None, Some(path.into()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        let upto = {
            let state = self.state()?;
            state.folder(folder)?;
            state.last
        };
        self.wait(self.time(|trouble| trouble.syncs))?;
        let state = &mut *self.changes()?;
        let mut is_synced = |change: &mut Renaming| change.number <= upto && change.is_in(folder);
        if state.trouble.full && state.unsynced.iter_mut().any(&mut is_synced) {
            return Err(no_room());
        }
        for change in state.unsynced.extract_if(.., is_synced) {
            change.apply(&mut state.durable, true);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.changes()?;
        let file = state.file(from)?.clone();
        if !state.is_in_folder(to) {
            return Err(state.absent(to));
        }
        if state.is_folder(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let (comes, goes) = (Some((to.into(), Item::File(file))), Some(from.into()));
        if from.parent() == to.parent() {
            state.rename(comes, goes.filter(|_| from != to));
        } else {
            state.rename(comes, None);
            state.rename(None, goes);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Lock> {
        let mut state = self.changes()?;
        let file = state.file_made(path)?;
        let number = state.number();
        let held = &mut file.lock().lock;
        if held.as_ref().is_some_and(|held| held.by.is_alive()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let by = self.alive.clone();
        *held = Some(Held { by, number });
        let file = file.clone();
        Ok(Box::new(HeldFile { file, number }))
    }

    fn identity(&self, path: &Path) -> Result<String> {
        let state = self.looks()?;
        let file = state.file(path)?.lock();
        Ok(format!("{:x}", file.number))
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        // Who was dead when another one took it holds nothing.
        let held = &mut self.file.lock().lock;
        if held.as_ref().is_some_and(|h| h.number == self.number) {
            *held = None;
        }
    }
}

impl OpenFile {
    fn put(&self, at: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let change = Change::Write(at, bytes.to_vec());
            self.file.lock().change(change);
        }
    }

    /// Why the next write or sync fails, if it does.
    fn fails(&self, needs_room: bool) -> Result<Option<Error>> {
        let state = self.handle.state()?;
        if needs_room && state.trouble.full {
            return Ok(Some(no_room()));
        }
        let fails = self.handle.disk.0.dice.chance(state.trouble.failing);
        Ok(fails.then(failure))
    }
}

impl DiskFile for OpenFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let dice = &self.handle.disk.0.dice;
        let (fails, at) = (self.fails(true)?, offset as usize);
        let time = self.handle.time(|trouble| trouble.writes);
        let first = match fails {
            None if time.is_zero() => bytes.len(),
            // One that has written all has not failed.
            _ => dice.below(bytes.len() as u64) as usize,
        };
        self.put(at, &bytes[..first]);
        self.handle.wait(time)?;
        if let Some(error) = fails {
            return Err(error);
        }
        self.put(at + first, &bytes[first..]);
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> Result<()> {
        // To give room back works on a full disk.
        let grows = bytes > self.file.lock().now.len() as u64;
        if let Some(error) = self.fails(grows)? {
            return Err(error);
        }
        self.file.lock().change(Change::Length(bytes as usize));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.handle.alive.check()?;
        let upto = self.file.lock().written();
        self.handle
            .wait(self.handle.time(|trouble| trouble.syncs))?;
        let wrote = upto > self.file.lock().settled;
        match self.fails(wrote)? {
            None => self.file.lock().synced(upto),
            Some(error) => {
                self.file.lock().not_synced(upto, &self.handle.disk.0.dice);
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
