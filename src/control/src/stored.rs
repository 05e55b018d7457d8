//! Writes that are too large for memory: their rows are in a file, piece by piece.
//!
//! The file is in the log's folder of objects. It is written while the rows come, synced before the
//! entry of the cut that names it with the place and the checksum of every piece, and kept until a
//! checkpoint contains the epoch. So the entry decides: until it is there, nothing of the write
//! is. A file that no entry names is removed: by the writer that gives up, or at the next start.
//! Whoever applies the rows has one piece in memory at a time.
//!
//! ```text
//! magic "TDMKROWS" | version u32 | 1 u32 | pieces as entries hold rows
//! ```

use crate::codec::{decode_changes, encode_changes};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_changelog::ChangeBatch;
use tidemark_common::disk::{Disk, DiskFile};
use tidemark_common::{Error, Result};

const HEADER: [u8; 16] = *b"TDMKROWS\x01\0\0\0\x01\0\0\0";

/// What is written is synced whenever it is so much, in bytes: the last sync is a short one.
const SYNC_BYTES: u64 = 64 << 20;

/// What an entry says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    name: String,
    pieces: Vec<Piece>,
}

/// Where some rows are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    at: u64,
    bytes: u32,
    /// CRC-32 (IEEE).
    crc32: u32,
}

impl Contents {
    /// The file's name in the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many pieces count.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

/// A file of written rows.
pub struct StoredRows {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    contents: Contents,
}

impl std::fmt::Debug for StoredRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl StoredRows {
    /// One that an entry names; all of its pieces must be there and whole.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        contents: Contents,
    ) -> Result<StoredRows> {
        let path = folder.join(&contents.name);
        let stored = StoredRows {
            disk,
            path,
            contents,
        };
        for piece in &stored.contents.pieces {
            bytes_of(stored.disk.as_ref(), &stored.path, piece)?;
        }
        Ok(stored)
    }

    /// What an entry says of it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Reads a piece.
    pub fn read(&self, at: usize) -> Result<ChangeBatch> {
        read(self.disk.as_ref(), &self.path, &self.contents.pieces, at)
    }

    /// Removes the file of a write that was refused. One that stays is removed at the next start.
    pub fn discard(&self) {
        let _ = self.disk.remove(&self.path);
    }
}

fn read(disk: &dyn Disk, path: &Path, pieces: &[Piece], at: usize) -> Result<ChangeBatch> {
    let piece = pieces.get(at);
    let piece = piece.ok_or_else(|| Error::internal("a piece of rows that was never written"))?;
    decode_changes(&bytes_of(disk, path, piece)?).map_err(|e| e.context(path.display()))
}

fn bytes_of(disk: &dyn Disk, path: &Path, piece: &Piece) -> Result<Vec<u8>> {
    let Piece { at, bytes, crc32 } = *piece;
    let shown = path.display();
    let part = match disk.read_at(path, at, bytes as usize) {
        Ok(part) => part,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(format!("{shown} is missing")));
        }
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            let end = at + u64::from(bytes);
            return Err(Error::corrupt(format!(
                "{shown} is damaged: it ends before byte {end}"
            )));
        }
        Err(e) => return Err(Error::from(e).context(shown)),
    };
    if crc32fast::hash(&part) != crc32 {
        return Err(Error::corrupt(format!(
            "{shown} is damaged between byte {at} and byte {}: its checksum is another",
            at + u64::from(bytes)
        )));
    }
    Ok(part)
}

/// Where such files are made.
pub struct RowFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Of this opening of the log alone: what an earlier one has left is not met.
    prefix: u64,
    next: AtomicU64,
}

impl RowFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, prefix: u64) -> RowFiles {
        RowFiles {
            disk,
            folder,
            prefix,
            next: AtomicU64::new(0),
        }
    }

    /// Begins a file.
    pub fn begin(self: &Arc<Self>) -> Result<RowsWriter> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:016x}-{number:010}.rows", self.prefix);
        let path = self.folder.join(&name);
        let file = self.disk.open(&path);
        let file = file.map_err(|e| Error::from(e).context(path.display()))?;
        let mut writer = RowsWriter {
            files: self.clone(),
            file,
            path,
            end: 0,
            synced: 0,
            contents: Contents {
                name,
                pieces: Vec::new(),
            },
            is_whole: false,
        };
        writer.append(&HEADER)?;
        Ok(writer)
    }
}

/// Writes such a file. Dropping it removes the file.
pub struct RowsWriter {
    files: Arc<RowFiles>,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    end: u64,
    synced: u64,
    contents: Contents,
    is_whole: bool,
}

impl RowsWriter {
    /// Writes one more piece.
    pub fn add(&mut self, changes: &ChangeBatch) -> Result<()> {
        let piece = self.write(changes)?;
        self.contents.pieces.push(piece);
        Ok(())
    }

    /// Writes a piece that counts instead of an earlier one.
    pub fn replace(&mut self, at: usize, changes: &ChangeBatch) -> Result<()> {
        self.contents.pieces[at] = self.write(changes)?;
        Ok(())
    }

    /// How many pieces it has.
    pub fn pieces(&self) -> usize {
        self.contents.pieces()
    }

    /// Its size, in bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Reads a piece back.
    pub fn read(&self, at: usize) -> Result<ChangeBatch> {
        read(
            self.files.disk.as_ref(),
            &self.path,
            &self.contents.pieces,
            at,
        )
    }

    /// Makes it durable: what an entry may name.
    pub fn finish(mut self) -> Result<StoredRows> {
        self.sync()?;
        let folder = &self.files.folder;
        let synced = self.files.disk.sync_folder(folder);
        synced.map_err(|e| Error::from(e).context(folder.display()))?;
        self.is_whole = true;
        Ok(StoredRows {
            disk: self.files.disk.clone(),
            path: self.path.clone(),
            contents: self.contents.clone(),
        })
    }

    fn write(&mut self, changes: &ChangeBatch) -> Result<Piece> {
        let mut encoded = Vec::new();
        encode_changes(changes, &mut encoded)?;
        let too_large = |_| Error::internal("a piece of written rows is too large");
        let piece = Piece {
            at: self.end,
            bytes: u32::try_from(encoded.len()).map_err(too_large)?,
            crc32: crc32fast::hash(&encoded),
        };
        self.append(&encoded)?;
        if self.end - self.synced > SYNC_BYTES {
            self.sync()?;
        }
        Ok(piece)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_at(self.end, bytes);
        written.map_err(|e| Error::from(e).context(self.path.display()))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.file.sync();
        synced.map_err(|e| Error::from(e).context(self.path.display()))?;
        self.synced = self.end;
        Ok(())
    }
}

impl Drop for RowsWriter {
    fn drop(&mut self) {
        if !self.is_whole {
            // One that stays is removed at the next start.
            let _ = self.files.disk.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::ops::Range;
    use tidemark_common::disk::LocalDisk;

    fn rows(values: Range<i64>) -> ChangeBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        ChangeBatch::insert(RecordBatch::try_from_iter([("k", column)]).unwrap())
    }

    fn files(name: &str) -> Arc<RowFiles> {
        let name = format!("tidemark-stored-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        LocalDisk.create_folder(&folder).unwrap();
        Arc::new(RowFiles::new(Arc::new(LocalDisk), folder, 7))
    }

    #[test]
    fn pieces_are_read_as_they_were_written_and_replaced() {
        let files = files("whole");
        let mut writer = files.begin().unwrap();
        for at in 0..3 {
            writer.add(&rows(10 * at..10 * at + 5)).unwrap();
        }
        writer.replace(1, &rows(3..4)).unwrap();
        assert_eq!(writer.read(1).unwrap().num_rows(), 1);
        let stored = writer.finish().unwrap();
        let again = StoredRows::open(files.disk.clone(), &files.folder, stored.contents().clone());
        let again = again.unwrap();
        for (at, expected) in [rows(0..5), rows(3..4), rows(20..25)].iter().enumerate() {
            assert_eq!(again.read(at).unwrap().rows(), expected.rows());
        }
        let mut file = files.disk.open(&again.path).unwrap();
        file.write_at(again.contents.pieces[2].at + 100, b"x")
            .unwrap();
        let contents = again.contents().clone();
        let error = StoredRows::open(files.disk.clone(), &files.folder, contents.clone());
        assert!(error.unwrap_err().message().contains("checksum"));
        again.discard();
        let error = StoredRows::open(files.disk.clone(), &files.folder, contents);
        assert!(error.unwrap_err().message().contains("is missing"));
        std::fs::remove_dir_all(&files.folder).unwrap();
    }

    #[test]
    fn a_writer_that_gives_up_leaves_no_file() {
        let files = files("given-up");
        let mut writer = files.begin().unwrap();
        writer.add(&rows(0..5)).unwrap();
        assert_eq!(files.disk.list(&files.folder).unwrap().len(), 1);
        drop(writer);
        assert!(files.disk.list(&files.folder).unwrap().is_empty());
        std::fs::remove_dir_all(&files.folder).unwrap();
    }
}
