//! The rows of large cuts: one file each in the folder `objects` of the log, named by generation
//! and epoch. Beside them are the files of writes that are too large for memory, which a cut names
//! as well ([`crate::stored`]). A file is written and synced, with its folder, before the entry
//! that names it with its size and checksum; it stays until a checkpoint that contains its epoch is
//! committed. What no entry names was left by an append that never returned, or by a statement, and
//! is removed when the log is opened.
//!
//! ```text
//! magic "TDMKROWS" | version u32 | 0 u32 | the rows as the entry would hold them
//! ```

use super::frame::{VERSION, u32_at};
use crate::RowFiles;
use crate::entry::NamedRows;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::disk::Disk;
use tidemark_common::{Epoch, Error, Result};

const MAGIC: &[u8; 8] = b"TDMKROWS";
const HEADER_BYTES: usize = 16;

/// The files of the folder.
#[derive(Clone)]
pub(super) struct ObjectFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

/// The folder, and which entries name what is in it.
pub(super) struct Objects {
    files: ObjectFiles,
    /// By the index of the entry.
    named: BTreeMap<u64, Vec<String>>,
}

impl Objects {
    /// Makes the folder where there is none. `named` are those that entries name.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        named: BTreeMap<u64, Vec<String>>,
    ) -> Result<Objects> {
        disk.create_folder(&folder)
            .map_err(|e| Error::from(e).context(folder.display()))?;
        Ok(Objects {
            files: ObjectFiles { disk, folder },
            named,
        })
    }

    pub fn folder_of(log: &Path) -> PathBuf {
        log.join("objects")
    }

    pub fn files(&self) -> ObjectFiles {
        self.files.clone()
    }

    /// Whether no entry names any.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The entry with this index names it.
    pub fn keep(&mut self, index: u64, name: String) {
        self.named.entry(index).or_default().push(name);
    }

    /// Entries up to `index` are in a checkpoint.
    pub fn collect(&mut self, index: u64) -> Result<()> {
        while let Some(entry) = self.named.first_entry().filter(|e| *e.key() <= index) {
            for name in entry.get() {
                self.files.remove(name)?;
            }
            entry.remove();
        }
        Ok(())
    }

    /// Entries from `index` on are gone. What they named may be named again.
    pub fn forget_from(&mut self, index: u64) {
        self.named.split_off(&index);
    }

    /// Removes what no entry names.
    pub fn remove_unnamed(&self) -> Result<()> {
        let ObjectFiles { disk, folder } = &self.files;
        let names = disk.list(folder);
        for name in names.map_err(|e| Error::from(e).context(folder.display()))? {
            if !self.named.values().flatten().any(|n| *n == name) {
                self.files.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl ObjectFiles {
    /// Where the rows of writes that are too large for memory go.
    pub fn row_files(&self) -> Arc<RowFiles> {
        let number = super::new_number();
        Arc::new(RowFiles::new(
            self.disk.clone(),
            self.folder.clone(),
            number,
        ))
    }

    /// Stores the rows of a cut; durable when this returns. One that fails leaves no file.
    pub fn store(&self, generation: u64, epoch: Epoch, rows: &[u8]) -> Result<NamedRows> {
        let name = format!("{generation:010}-{:020}.rows", epoch.0);
        let path = self.folder.join(&name);
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let write = || {
            let mut file = self.disk.open(&path)?;
            // A try before this one may have left some of it.
            file.truncate(0)?;
            file.write_at(0, &header)?;
            file.write_at(HEADER_BYTES as u64, rows)?;
            file.sync()?;
            self.disk.sync_folder(&self.folder)
        };
        if let Err(error) = write() {
            self.discard(&name);
            return Err(Error::from(error).context(path.display()));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        crc.update(rows);
        Ok(NamedRows {
            name,
            bytes: (HEADER_BYTES + rows.len()) as u64,
            crc32: crc.finalize(),
        })
    }

    /// Removes one that no entry names after all. One that stays is removed at the next start.
    pub fn discard(&self, name: &str) {
        let _ = self.disk.remove(&self.folder.join(name));
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(e).context(path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The rows of an object, with which `named` must agree.
pub(super) fn load(disk: &dyn Disk, folder: &Path, named: &NamedRows) -> Result<Vec<u8>> {
    let path = folder.join(&named.name);
    let shown = path.display();
    let mut bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(format!("{shown} is missing")));
        }
        Err(e) => return Err(Error::from(e).context(shown)),
    };
    if bytes.len() as u64 != named.bytes {
        return Err(Error::corrupt(format!(
            "{shown} is damaged: it ends at byte {}, not at byte {}",
            bytes.len(),
            named.bytes
        )));
    }
    if crc32fast::hash(&bytes) != named.crc32 || bytes[..8] != *MAGIC {
        return Err(Error::corrupt(format!(
            "{shown} is damaged between byte 0 and byte {}: its checksum is another",
            named.bytes
        )));
    }
    match u32_at(&bytes, 8) {
        Some(VERSION) => Ok(bytes.split_off(HEADER_BYTES)),
        version => Err(super::version_unknown(&path, version.unwrap_or_default())),
    }
}
