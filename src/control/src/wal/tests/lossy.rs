//! A disk in memory that forgets. It keeps beside each other what every later call sees and what is
//! durable; a power loss takes it back to the latter, with any part of the writes since: each one
//! wholly, not at all, or torn, in any order, and likewise of the names in each folder. It can also
//! fail: a full disk writes a part, a sync fails and lets the system believe that all is clean.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::disk::{Disk, DiskFile, Lock};

use parking_lot::Mutex;
use tidemark_common::random::Random;

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

/// A name that came or went: path, and the file that it names from then on.
type Renaming = (PathBuf, Option<usize>);

#[derive(Default)]
struct State {
    files: Vec<Content>,
    folders: BTreeSet<PathBuf>,
    durable_folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<Renaming>,
    /// What fails from the n-th write or sync on, counted down.
    fails_in: Option<u64>,
    /// The process is gone: nothing reaches the disk any more.
    dead: bool,
}

/// The disk.
#[derive(Clone, Default)]
pub struct LossyDisk(Arc<Mutex<State>>);

struct LossyFile {
    disk: LossyDisk,
    file: usize,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => content.resize(*length as usize, 0),
        Change::Write(at, bytes) => {
            let end = *at as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at as usize..end].copy_from_slice(bytes);
        }
    }
}

impl Content {
    /// What a power loss leaves of the changes since the last sync.
    fn lose(&mut self, random: &mut Random) {
        let mut left = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.unsynced) {
            match random.below_u64(4) {
                0 => {}
                1 => apply(&mut left, &change),
                _ => apply_torn(&mut left, &change, random),
            }
        }
        self.now = left.clone();
        self.durable = left;
    }
}

/// Any pieces of a write arrive; where others do not, there are zeros or what was there.
fn apply_torn(content: &mut Vec<u8>, change: &Change, random: &mut Random) {
    let Change::Write(at, bytes) = change else {
        return apply(content, change);
    };
    let mut from = 0;
    while from < bytes.len() {
        let to = (from + 1 + random.below_u64(64) as usize).min(bytes.len());
        if !random.one_in(3) {
            apply(
                content,
                &Change::Write(at + from as u64, bytes[from..to].to_vec()),
            );
        }
        from = to;
    }
}

impl LossyDisk {
    /// The power fails: what comes back is durable.
    pub fn lose_power(&self, random: &mut Random) {
        let state = &mut *self.0.lock();
        for (path, file) in std::mem::take(&mut state.unsynced_names) {
            if random.one_in(2) {
                continue;
            }
            match file {
                Some(file) => drop(state.durable_names.insert(path, file)),
                None => drop(state.durable_names.remove(&path)),
            }
        }
        let folders = state.durable_folders.clone();
        state
            .durable_names
            .retain(|path, _| path.parent().is_some_and(|p| folders.contains(p)));
        state.names = state.durable_names.clone();
        state.folders = folders;
        state.files.iter_mut().for_each(|f| f.lose(random));
        (state.fails_in, state.dead) = (None, false);
    }

    /// The process dies, the system goes on.
    pub fn kill(&self) {
        let state = &mut *self.0.lock();
        (state.fails_in, state.dead) = (None, false);
    }

    /// The n-th write or sync from now on, and all after it, fail, until [`LossyDisk::heal`].
    pub fn fail_in(&self, n: u64) {
        self.0.lock().fails_in = Some(n);
    }

    /// The process ends at the n-th write or sync from now on.
    pub fn die_in(&self, n: u64) {
        let state = &mut *self.0.lock();
        (state.fails_in, state.dead) = (Some(n), true);
    }

    pub fn heal(&self) {
        self.0.lock().fails_in = None;
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Replaces a file's content, or removes the file.
    pub fn put(&self, path: &Path, bytes: Option<&[u8]>) {
        let state = &mut *self.0.lock();
        let Some(bytes) = bytes else {
            state.names.remove(path);
            return;
        };
        let content = Content {
            now: bytes.to_vec(),
            durable: bytes.to_vec(),
            unsynced: Vec::new(),
        };
        state.files.push(content);
        state.names.insert(path.into(), state.files.len() - 1);
    }

    /// A disk with the same files, all durable.
    pub fn copy(&self) -> LossyDisk {
        let state = self.0.lock();
        let copy = State {
            files: state.files.clone(),
            folders: state.folders.clone(),
            durable_folders: state.folders.clone(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            ..State::default()
        };
        LossyDisk(Arc::new(Mutex::new(copy)))
    }
}

impl State {
    fn file(&self, path: &Path) -> Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn in_folder(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if !self.folders.contains(parent) => Err(ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }

    /// Counts down to the failure.
    fn fails(&mut self) -> Result<()> {
        match &mut self.fails_in {
            Some(0) => Err(Error::from(ErrorKind::StorageFull)),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn name(&mut self, path: &Path, file: Option<usize>) {
        match file {
            Some(file) => drop(self.names.insert(path.into(), file)),
            None => drop(self.names.remove(path)),
        }
        self.unsynced_names.push((path.into(), file));
    }
}

impl Disk for LossyDisk {
    fn create_folder(&self, folder: &Path) -> Result<()> {
        let state = &mut *self.0.lock();
        state.fails()?;
        for above in folder.ancestors() {
            state.folders.insert(above.into());
            state.durable_folders.insert(above.into());
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        let state = self.0.lock();
        if !state.folders.contains(folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state
            .names
            .keys()
            .filter(|p| p.parent() == Some(folder))
            .filter_map(|p| p.file_name()?.to_str().map(String::from));
        Ok(inside.collect())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let state = self.0.lock();
        Ok(state.files[state.file(path)?].now.clone())
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let state = &mut *self.0.lock();
        state.in_folder(path)?;
        let file = match state.file(path) {
            Ok(file) => file,
            Err(_) => {
                state.fails()?;
                state.files.push(Content::default());
                let file = state.files.len() - 1;
                state.name(path, Some(file));
                file
            }
        };
        let disk = self.clone();
        Ok(Box::new(LossyFile { disk, file }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let state = &mut *self.0.lock();
        state.file(path)?;
        if state.dead {
            state.fails()?;
        }
        state.name(path, None);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        let state = &mut *self.0.lock();
        state.fails()?;
        let (here, elsewhere): (Vec<Renaming>, Vec<Renaming>) =
            std::mem::take(&mut state.unsynced_names)
                .into_iter()
                .partition(|(path, _)| path.parent() == Some(folder));
        state.unsynced_names = elsewhere;
        for (path, file) in here {
            match file {
                Some(file) => drop(state.durable_names.insert(path, file)),
                None => drop(state.durable_names.remove(&path)),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let state = &mut *self.0.lock();
        state.fails()?;
        let file = state.file(from)?;
        state.name(to, Some(file));
        state.name(from, None);
        Ok(())
    }

    fn lock(&self, _: &Path) -> Result<Lock> {
        Err(ErrorKind::Unsupported.into())
    }

    fn identity(&self, _: &Path) -> Result<String> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl DiskFile for LossyFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let state = &mut *self.disk.0.lock();
        let written = match state.fails() {
            Ok(()) => bytes.len(),
            // A full disk, or a process that dies meanwhile, has written a part.
            Err(_) => bytes.len() / 2,
        };
        let change = Change::Write(offset, bytes[..written].to_vec());
        let content = &mut state.files[self.file];
        apply(&mut content.now, &change);
        content.unsynced.push(change);
        if written < bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> Result<()> {
        let state = &mut *self.disk.0.lock();
        // Giving back space works on a full disk; the dead give back nothing.
        if state.dead {
            state.fails()?;
        }
        let content = &mut state.files[self.file];
        apply(&mut content.now, &Change::Length(bytes));
        content.unsynced.push(Change::Length(bytes));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let state = &mut *self.disk.0.lock();
        let failed = state.fails();
        let dead = state.dead;
        let content = &mut state.files[self.file];
        match failed {
            Ok(()) => {
                content.durable = content.now.clone();
                content.unsynced.clear();
                Ok(())
            }
            Err(e) if dead => Err(e),
            // The pages count as clean from now on, although they were never written.
            Err(_) => {
                content.unsynced.clear();
                Err(ErrorKind::Other.into())
            }
        }
    }
}
