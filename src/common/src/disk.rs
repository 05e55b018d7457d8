//! The disk as the log sees it: the few calls that matter for what survives a power loss, behind a
//! trait, so that a test can drop or tear whatever was not synced.
//!
//! Contract: (1) bytes written to a file and its length survive a power loss once `sync` of that
//! file returned; before that any part of them may be there, in any order; (2) that a file is in a
//! folder, or is not any more, survives once `sync_folder` of that folder returned; (3) everything
//! that a call did is seen by all later calls, also by those of another process after this one was
//! killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Folders and files.
pub trait Disk: Send + Sync {
    /// Makes the folder and those above it, and syncs each of them into the one above it. One that
    /// is there already is synced into its parent too: who made it may have died before.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// So many bytes of a file from an offset on.
    fn read_at(&self, path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let whole = self.read(path)?;
        let from = usize::try_from(offset).ok().and_then(|at| whole.get(at..));
        let part = from.and_then(|rest| rest.get(..bytes));
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
    /// Opens a file for writing; makes it, empty, where there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Puts a file in the place of another: whoever looks sees the one or the other, whole.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Holds a file, made if absent, for this process until what is returned is dropped or the
    /// process ends; `WouldBlock` while another one holds it.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
    /// The path from the root on.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Tells a file from its copies.
    fn identity(&self, path: &Path) -> io::Result<String>;
}

/// A file that a process holds.
pub type Lock = Box<dyn Send + Sync>;

/// A file that is open for writing.
pub trait DiskFile: Send {
    /// Writes all bytes at this offset.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file off, or extends it by zeros, to this length.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let parent = match folder.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        if !parent.is_dir() {
            self.create_folder(parent)?;
        }
        match fs::create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => Err(e),
            Ok(()) => self.sync_folder(parent),
            // Nobody can sync a folder that he may not read; then it was there before us.
            Err(_) => match self.sync_folder(parent) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            },
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(folder)?
            .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut part = vec![0; bytes];
        File::open(path)?.read_exact_at(&mut part, offset)?;
        Ok(part)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    /// A copied file is another file, born later.
    fn identity(&self, path: &Path) -> io::Result<String> {
        let file = fs::metadata(path)?;
        let born = file.created().ok();
        let born = born.and_then(|b| b.duration_since(UNIX_EPOCH).ok());
        let nanos = born.unwrap_or_default().as_nanos();
        Ok(format!("{:x}-{nanos:x}", file.ino()))
    }
}

impl DiskFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_those_above_and_files_keep_what_was_written() {
        let root = std::env::temp_dir().join(format!("tidemark-disk-{}", std::process::id()));
        let folder = root.join("a/b");
        LocalDisk.create_folder(&folder).unwrap();
        LocalDisk.create_folder(&folder).unwrap();
        let path = folder.join("file");
        let mut file = LocalDisk.open(&path).unwrap();
        file.write_at(2, b"cd").unwrap();
        file.write_at(0, b"ab").unwrap();
        file.sync().unwrap();
        assert_eq!(LocalDisk.read(&path).unwrap(), b"abcd");
        LocalDisk.open(&path).unwrap().truncate(3).unwrap();
        assert_eq!(LocalDisk.list(&folder).unwrap(), ["file"]);
        assert_eq!(LocalDisk.read(&path).unwrap(), b"abc");
        LocalDisk.remove(&path).unwrap();
        assert_eq!(
            LocalDisk.open(&root).err().unwrap().kind(),
            io::ErrorKind::IsADirectory
        );
        fs::remove_dir_all(&root).unwrap();
    }
}
