//! The durable side of state tables: Parquet files in an object store, one sequence per table.
//!
//! **Law.** Reading the files of a table newest epoch first, where a key's newest record wins and a
//! delete hides the key, gives the table as of the manifest that names them. Files are written
//! once, never changed, and count only when a committed manifest names them; a file that a manifest
//! names and that is missing or differs in one bit is an error with the file's name, never fewer
//! rows.
//!
//! **Files.** `tables/{relation}-{table}/{generation}-{epoch}-{worker}.parquet` (of many rows
//! further ones, `...-{worker}-{part}.parquet`; from compaction `...-c{crc32}.parquet`), plain
//! Parquet, LZ4_RAW, row groups of at most 64 Ki rows:
//!
//! | column | type | |
//! | --- | --- | --- |
//! | `_vnode` | UINT16 | partition of the key; with row-group statistics |
//! | `_deleted` | BOOLEAN | the key is gone; its value columns are NULL |
//! | key columns | as in the table | |
//! | value columns | as in the table, nullable | |
//!
//! sorted by (`_vnode`, key in the order of `tidemark_changelog::key`), each key once per file. The
//! file's metadata say how many columns are the key (`tidemark.key_columns`) and what the table is
//! (`tidemark.form`: keyed, appended, multiset).
//! INTERVAL columns are FIXED_LEN_BYTE_ARRAY(16): months, days (32 bits each), nanoseconds (64
//! bits), little-endian. To read a table with DuckDB, newest file first: `SELECT * FROM (SELECT *,
//! row_number() OVER (PARTITION BY _vnode, <key> ORDER BY <epoch of filename> DESC) r FROM
//! read_parquet('tables/7-0/*.parquet', filename = true)) WHERE r = 1 AND NOT _deleted`, restricted
//! to the files that the newest manifest names.
//!
//! Generation and epoch are part of every name, so that work on an epoch that never came to be
//! decided is overtaken, never overwritten.

mod file;
mod location;
mod merge;
#[cfg(test)]
mod tests;

pub use file::{EncodedFile, encode_appended, encode_delta};
pub use merge::{Compaction, plan_compaction};

use crate::TableSpec;
use crate::manifest::Manifest;
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use location::Location;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_common::{Epoch, Error, Result, SqlState, TableId, WorkerId, failpoint};

/// Files read ahead while an earlier one is decoded.
const READ_AHEAD: usize = 3;

/// Where the objects of checkpoints are.
const FOLDERS: [&str; 3] = ["tables", "errors", "manifests"];

/// One file of a state table, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Name within the store.
    pub path: String,
    /// The table.
    pub table: TableId,
    /// The epoch whose state it brings the table to; of a compacted file the newest one of its
    /// inputs.
    pub epoch: Epoch,
    /// Records: upserts and deletes.
    pub rows: u64,
    /// How many of the records are deletes.
    pub deletes: u64,
    /// Size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc32: u32,
    /// Smallest vnode of its records; 0 in an empty file.
    pub vnode_min: u16,
    /// Largest vnode of its records; 0 in an empty file.
    pub vnode_max: u16,
}

/// A place for checkpoints. Keeps nothing but the handle; clones share it.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    store: Arc<dyn ObjectStore>,
    /// Of a store in the file system: where it is, so that what was written can be synced.
    root: Option<PathBuf>,
}

impl CheckpointStore {
    /// Opens `file:///folder` (made if absent) or `s3://bucket/prefix`; S3's region, endpoint and
    /// credentials come from the `AWS_*` environment. `memory:` is a store that lives as long as
    /// its handles.
    pub fn open(url: &str) -> Result<CheckpointStore> {
        let location = Location::parse(url)?;
        let root = if let Location::File(folder) = &location {
            Some(folder.clone())
        } else {
            None
        };
        Ok(CheckpointStore {
            store: location.open()?,
            root,
        })
    }

    /// Writes one file of `table` for `epoch`, the `part`-th (from 0) of this worker. The same call
    /// again is harmless; another content under that name is an error.
    pub async fn write_file(
        &self,
        table: TableId,
        worker: WorkerId,
        part: usize,
        epoch: Epoch,
        generation: u64,
        file: EncodedFile,
    ) -> Result<FileMeta> {
        let part = if part == 0 {
            String::new()
        } else {
            format!("-{part}")
        };
        self.write_table_file(
            format!("tables/{table}/{generation}-{epoch}-{worker}{part}.parquet"),
            table,
            epoch,
            file,
        )
        .await
    }

    async fn write_table_file(
        &self,
        path: String,
        table: TableId,
        epoch: Epoch,
        file: EncodedFile,
    ) -> Result<FileMeta> {
        let EncodedFile {
            bytes,
            rows,
            deletes,
            vnode_min,
            vnode_max,
        } = file;
        let meta = FileMeta {
            path,
            table,
            epoch,
            rows,
            deletes,
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(&bytes),
            vnode_min,
            vnode_max,
        };
        failpoint::check("checkpoint.upload")?;
        self.put_new(&meta.path, bytes).await?;
        Ok(meta)
    }

    /// Hands the rows of `vnodes` that are present according to `files` (of one table, in any
    /// order) to `each`, in batches of the table's schema.
    pub async fn read_table(
        &self,
        files: &[FileMeta],
        spec: &TableSpec,
        vnodes: Range<usize>,
        mut each: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut files: Vec<FileMeta> = files
            .iter()
            .filter(|f| {
                f.rows > 0
                    && (f.vnode_min as usize) < vnodes.end
                    && f.vnode_max as usize >= vnodes.start
            })
            .cloned()
            .collect();
        files.sort_by_key(|f| std::cmp::Reverse(f.epoch));
        let mut merge = merge::NewestFirst::new(spec, &files);
        let mut contents =
            futures::stream::iter(files.iter().map(|f| self.read_file(f))).buffered(READ_AHEAD);
        for file in &files {
            let bytes = contents.next().await.expect("one content per file")?;
            merge.add(file, bytes, vnodes.clone(), &mut each)?;
        }
        Ok(())
    }

    /// Merges the files of `compaction` into one and writes it; `epoch` is the one being written
    /// now (it protects the file until a manifest names it). The inputs stay until
    /// [`CheckpointStore::collect`]. Memory: the inputs and the output as they are on disk, and a
    /// few thousand rows.
    pub async fn compact(
        &self,
        compaction: &Compaction,
        spec: &TableSpec,
        generation: u64,
        epoch: Epoch,
    ) -> Result<FileMeta> {
        let first = compaction
            .files
            .first()
            .ok_or_else(|| Error::internal("a compaction of no files"))?;
        let (table, newest) = (
            first.table,
            compaction
                .files
                .iter()
                .map(|f| f.epoch)
                .max()
                .unwrap_or_default(),
        );
        let mut contents = Vec::new();
        for file in &compaction.files {
            contents.push((file.clone(), self.read_file(file).await?));
        }
        let (spec, drop_deletes) = (spec.clone(), compaction.includes_oldest);
        let merged =
            tokio::task::spawn_blocking(move || merge::merge_files(&spec, contents, drop_deletes))
                .await;
        let merged =
            merged.map_err(|e| Error::internal(format!("compaction of table {table}: {e}")))??;
        let path = format!(
            "tables/{table}/{generation}-{epoch}-c{:08x}.parquet",
            crc32fast::hash(&merged.bytes)
        );
        self.write_table_file(path, table, newest, merged).await
    }

    /// Reads one file whole and holds it against its checksum.
    pub async fn read_file(&self, file: &FileMeta) -> Result<Bytes> {
        self.get_whole(&file.path, file.bytes, file.crc32).await
    }

    /// Reads `path`, which a manifest names with this size and checksum.
    pub(crate) async fn get_whole(&self, path: &str, size: u64, crc32: u32) -> Result<Bytes> {
        let bytes = self.get(path).await?;
        let found = crc32fast::hash(&bytes);
        if bytes.len() as u64 != size || found != crc32 {
            return Err(
                Error::corrupt(format!("checkpoint file {path} is damaged")).with_detail(format!(
                    "It has {} bytes with checksum {found:08x}; the manifest \
                                      names {size} bytes with checksum {crc32:08x}.",
                    bytes.len(),
                )),
            );
        }
        Ok(bytes)
    }

    /// Deletes the files of tables and errors and the manifests that none of `retained` names,
    /// except those made for `oldest_in_making` or a later epoch: the caller passes the epoch of
    /// the oldest checkpoint or compaction that is under way, or the next one. Objects with other
    /// names are left alone. Returns how many were deleted.
    pub async fn collect(&self, retained: &[Manifest], oldest_in_making: Epoch) -> Result<usize> {
        let mut named: HashSet<String> = retained
            .iter()
            .flat_map(Manifest::paths)
            .map(str::to_string)
            .collect();
        named.extend(retained.iter().map(Manifest::path));
        let mut garbage = Vec::new();
        for folder in FOLDERS {
            let listed = self.list(folder).await?;
            garbage.extend(listed.into_iter().filter(|path| {
                !named.contains(path) && epoch_of(path).is_some_and(|e| e < oldest_in_making)
            }));
        }
        let count = garbage.len();
        let locations =
            futures::stream::iter(garbage.into_iter().map(|path| Ok(Path::from(path)))).boxed();
        let mut deleted = self.store.delete_stream(locations);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(unavailable("delete garbage", e)),
            }
        }
        Ok(count)
    }

    /// In a file system: deletes what a crash left of files that were being written (`name#1`),
    /// which no listing shows. To be called before anything is written.
    pub async fn remove_unfinished(&self) -> Result<usize> {
        let Some(root) = self.root.clone() else {
            return Ok(0);
        };
        let done = tokio::task::spawn_blocking(move || {
            let mut removed = 0;
            for folder in FOLDERS {
                remove_staged(&root.join(folder), &mut removed)?;
            }
            Ok::<_, Error>(removed)
        });
        done.await
            .map_err(|e| Error::internal(format!("removal of unfinished files: {e}")))?
    }

    /// The names under `folder`, unsorted.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let listed: Vec<_> = self
            .store
            .list(Some(&Path::from(folder)))
            .try_collect()
            .await
            .map_err(|e| unavailable(folder, e))?;
        Ok(listed
            .into_iter()
            .map(|object| object.location.to_string())
            .collect())
    }

    /// The content of `path`; a missing object is damage.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        let missing = |e| match e {
            object_store::Error::NotFound { .. } => {
                Error::corrupt(format!("checkpoint file {path} is missing"))
            }
            e => unavailable(path, e),
        };
        self.store
            .get(&Path::from(path))
            .await
            .map_err(missing)?
            .bytes()
            .await
            .map_err(missing)
    }

    /// Writes `path` if it is absent, durably. That it is there already with the same content (a
    /// retry whose first answer was lost) is success.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()> {
        match self
            .store
            .put_opts(
                &Path::from(path),
                bytes.clone().into(),
                PutMode::Create.into(),
            )
            .await
        {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.get(path).await? != bytes {
                    return Err(Error::internal(format!(
                        "checkpoint file {path} exists with other content"
                    )));
                }
            }
            Err(e) => return Err(unavailable(path, e)),
        }
        self.sync(path).await
    }

    /// In a file system: makes `path` survive a power failure. An object store has done so when it
    /// answers.
    async fn sync(&self, path: &str) -> Result<()> {
        let Some(root) = &self.root else {
            return Ok(());
        };
        let file = root.join(path);
        let sync = move || -> std::io::Result<()> {
            std::fs::File::open(&file)?.sync_all()?;
            file.parent()
                .map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        };
        let done = tokio::task::spawn_blocking(sync)
            .await
            .map_err(|e| Error::internal(format!("sync of {path}: {e}")))?;
        done.map_err(|e| Error::from(e).context(path))
    }
}

/// Deletes the files under `folder` whose names end as those of files in the making do: `#` and a
/// number.
fn remove_staged(folder: &std::path::Path, removed: &mut usize) -> Result<()> {
    let at = |path: &std::path::Path, e: std::io::Error| Error::from(e).context(path.display());
    let items = match std::fs::read_dir(folder) {
        Ok(items) => items,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at(folder, e)),
    };
    for item in items {
        let path = item.map_err(|e| at(folder, e))?.path();
        let number = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.rsplit_once('#'))
            .map(|(_, number)| number);
        if path.is_dir() {
            remove_staged(&path, removed)?;
        } else if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            std::fs::remove_file(&path).map_err(|e| at(&path, e))?;
            *removed += 1;
        }
    }
    Ok(())
}

/// The epoch in the name of a table file (`tables/7-0/{generation}-{epoch}-{worker}.parquet`), of
/// kept errors (`errors/{generation}-{epoch}.parquet`) or a manifest
/// (`manifests/{epoch}-{generation}.json`).
fn epoch_of(path: &str) -> Option<Epoch> {
    let (folder, name) = path.rsplit_once('/')?;
    let mut parts = name.split_once('.')?.0.split('-');
    let epoch = if folder == "manifests" {
        parts.next()?
    } else {
        parts.nth(1)?
    };
    epoch.parse().ok().map(Epoch)
}

fn unavailable(what: &str, e: object_store::Error) -> Error {
    Error::unavailable(SqlState::IO_ERROR, format!("checkpoint store: {what}: {e}"))
}
