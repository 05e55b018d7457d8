//! The store in a folder of this machine: how an object comes to be there so that a power failure
//! at any instant leaves it whole or not at all.
//!
//! **Law.** When [`Folder::put_new`] has returned, the object is there after a power failure. An
//! object that is there under its name is whole, always. Both rest on the order of steps: the
//! content is written under another name (`name#number`, which no listing shows) and synced; a hard
//! link gives it its name, which fails where there is one already; the folder is synced. Every
//! folder on the way is synced into its own parent when this process first uses it, whoever made
//! it: `tables/7-0` is no help if `tables` forgets it.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The steps, so that a test can lose what was not synced.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes a folder; one that exists is left as it is.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file of this content; nothing of it is durable yet.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file a second name, unless something has that name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a file's content durable, or the names in a folder.
    fn sync(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(bytes)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// A store's folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Folders whose names are durable.
    durable: Mutex<HashSet<PathBuf>>,
    staged: AtomicU32,
}

impl Folder {
    pub(super) fn new(root: PathBuf, disk: Box<dyn Disk>) -> Folder {
        Folder {
            root,
            disk,
            durable: Mutex::default(),
            staged: AtomicU32::new(0),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a whole object under `name`, durably; `false` if there is one already, which is durable
    /// then.
    pub(super) fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        let put = self
            .make_durable(folder)
            .and_then(|()| self.stage_and_link(&path, bytes));
        if put.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            // Somebody removed a folder since: look at all of them again at the next try.
            self.durable.lock().clear();
        }
        let new = put?;
        if !new {
            self.disk.sync(&path)?;
        }
        self.disk.sync(folder)?;
        Ok(new)
    }

    fn stage_and_link(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        // The number is no other process's, which may be writing the same name just now.
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{}{number:010}", std::process::id()));
        let staged = PathBuf::from(staged);
        let written = self
            .disk
            .write_new(&staged, bytes)
            .and_then(|()| self.disk.sync(&staged));
        let linked = written.and_then(|()| match self.disk.link(&staged, path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        });
        match self.disk.remove(&staged) {
            Err(e) if linked.is_ok() => Err(e),
            _ => linked,
        }
    }

    /// Makes `folder`, and its name and those of all above it durable.
    fn make_durable(&self, folder: &Path) -> io::Result<()> {
        if self.durable.lock().contains(folder) {
            return Ok(());
        }
        let above = |path: &Path| {
            let parent = path.parent()?;
            Some(match parent.as_os_str().is_empty() {
                true => PathBuf::from("."),
                false => parent.to_path_buf(),
            })
        };
        let parent = above(folder).unwrap_or_else(|| PathBuf::from("/"));
        if folder == self.root {
            // Opening the store may have made some of what the root stands in.
            let mut outside = above(&parent);
            while let Some(path) = outside {
                self.sync_others(&path)?;
                outside = above(&path).filter(|p| p != Path::new("."));
            }
            self.disk.create_folder(folder)?;
            self.sync_others(&parent)?;
        } else {
            self.make_durable(&parent)?;
            self.disk.create_folder(folder)?;
            self.disk.sync(&parent)?;
        }
        self.durable.lock().insert(folder.to_path_buf());
        Ok(())
    }

    /// Syncs a folder that may be somebody else's: what we may not open was there before us.
    fn sync_others(&self, folder: &Path) -> io::Result<()> {
        match self.disk.sync(folder) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        }
    }
}
