//! The durable side of state tables: Parquet files in an object store, one sequence per table.
//!
//! **Law.** Reading the files of a table newest epoch first, where a key's newest record wins and a
//! delete hides the key, gives the table as of the manifest that names them. Files are written
//! once, never changed, and count only when a committed manifest names them; a file that a manifest
//! names and that is missing or differs in one bit is an error with the file's name, never fewer
//! rows.
//!
//! **Files.** `tables/{relation}-{table}/{generation}-{epoch}-{worker}.parquet` (of many rows
//! further ones, `...-{worker}-{part}.parquet`; of a sink's log `sink` in the place of the worker;
//! from compaction `...-c{crc32 of what was merged}-{part}.parquet`), plain
//! Parquet, LZ4_RAW, row groups of at most 64 Ki rows and about 4 MiB:
//!
//! | column | type | |
//! | --- | --- | --- |
//! | `_vnode` | UINT16 | partition of the key; with row-group statistics |
//! | `_deleted` | BOOLEAN | the key is gone; its value columns are NULL |
//! | key columns | as in the table | |
//! | value columns | as in the table, nullable | |
//!
//! sorted by (`_vnode`, key in the order of `tidemark_changelog::key`), each key once per file. The
//! file's metadata say how many columns are the key (`tidemark.key_columns`), what the table is
//! (`tidemark.form`: keyed, appended, multiset), and where each row group ends, with its CRC-32
//! (`tidemark.row_groups`).
//! INTERVAL columns are FIXED_LEN_BYTE_ARRAY(16): months, days (32 bits each), nanoseconds (64
//! bits), little-endian. To read a table with DuckDB, newest file first: `SELECT * FROM (SELECT *,
//! row_number() OVER (PARTITION BY _vnode, <key> ORDER BY <epoch of filename> DESC) r FROM
//! read_parquet('tables/7-0/*.parquet', filename = true)) WHERE r = 1 AND NOT _deleted`, restricted
//! to the files that the newest manifest names.
//!
//! Generation and epoch are part of every name, so that work on an epoch that never came to be
//! decided is overtaken, never overwritten. Whose the store is: [`owner`].
//!
//! **A store that is away.** Every access notes its outcome ([`StoreHealth`]). A handle from
//! [`CheckpointStore::patient`] waits for a store that fails; any other one gives the error back.

mod disk;
mod file;
mod health;
mod location;
mod merge;
pub mod owner;
mod read;
#[cfg(test)]
mod tests;

pub use file::{EncodedFile, encode_appended, encode_delta};
pub use health::{StoreHealth, StoreTrouble};
pub use merge::{Compaction, plan_compaction};
pub use read::Footer;

use crate::{StateTable, TableSpec};
use arrow::array::RecordBatch;
use bytes::Bytes;
use disk::{Folder, RealDisk};
use futures::{StreamExt, TryStreamExt};
use location::Location;
use merge::Remembers;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use tidemark_common::{
    Backoff, Epoch, Error, ErrorKind, Result, SqlState, TableId, WorkerId, failpoint, machine,
};

/// Where the objects of checkpoints are.
pub(crate) const FOLDERS: [&str; 3] = ["tables", "errors", "manifests"];

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
    /// Its end, by which it is read in pieces; absent in manifests of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Footer>,
}

impl FileMeta {
    /// Whether it may have records of `vnodes`.
    fn has_any_of(&self, vnodes: &Range<usize>) -> bool {
        self.rows > 0
            && (self.vnode_min as usize) < vnodes.end
            && self.vnode_max as usize >= vnodes.start
    }
}

/// Who wrote a file of a checkpoint: files of one table and epoch differ in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// A worker, its share.
    Worker(WorkerId),
    /// The sink whose log it is.
    Sink,
    /// Nobody's share of a checkpoint: what a worker's partition answered at an epoch
    /// ([`crate::halted::Answer`]).
    Answer(WorkerId, Epoch),
}

impl From<WorkerId> for WrittenBy {
    fn from(worker: WorkerId) -> WrittenBy {
        WrittenBy::Worker(worker)
    }
}

impl std::fmt::Display for WrittenBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WrittenBy::Worker(worker) => write!(f, "{worker}"),
            WrittenBy::Sink => f.write_str("sink"),
            WrittenBy::Answer(worker, epoch) => write!(f, "answer{epoch}-{worker}"),
        }
    }
}

/// A place for checkpoints. Keeps nothing but the handle; clones share it.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    url: Arc<str>,
    store: Arc<dyn ObjectStore>,
    /// Of a store in the file system: how objects are put there.
    folder: Option<Arc<Folder>>,
    health: Arc<StoreHealth>,
    patience: Patience,
}

/// What a handle does when the store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Gives the error back.
    None,
    /// Waits while the store does not answer; what only a change of settings can mend is an error.
    Absence,
    /// Waits for anything that is not damage or our own fault: settings were right once.
    Anything,
}

impl CheckpointStore {
    /// Opens `file:///folder` (made if absent) or `s3://bucket/prefix`; S3's region, endpoint and
    /// credentials come from the `AWS_*` environment. `memory:` is a store that lives as long as
    /// its handles. Asks nobody.
    pub fn open(url: &str) -> Result<CheckpointStore> {
        CheckpointStore::open_noting(url, Arc::default())
    }

    /// The same, noting in `health` how it goes.
    pub fn open_noting(url: &str, health: Arc<StoreHealth>) -> Result<CheckpointStore> {
        let location = Location::parse(url)?;
        let folder = match &location {
            Location::File(root) => Some(Arc::new(Folder::new(root.clone(), Box::new(RealDisk)))),
            _ => None,
        };
        Ok(CheckpointStore {
            url: url.into(),
            store: location.open()?,
            folder,
            health,
            patience: Patience::None,
        })
    }

    /// The same, of a place that must be there: a folder that does not exist is the user's error.
    pub fn open_existing(url: &str) -> Result<CheckpointStore> {
        if let Location::File(root) = Location::parse(url)?
            && !root.is_dir()
        {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("there is no folder {}", root.display()),
            ));
        }
        CheckpointStore::open(url)
    }

    /// One over these objects, whatever the URL says of them.
    pub fn over(url: &str, objects: Arc<dyn ObjectStore>) -> CheckpointStore {
        CheckpointStore {
            url: url.into(),
            store: objects,
            folder: None,
            health: Arc::default(),
            patience: Patience::None,
        }
    }

    /// A handle that waits while the store does not answer, and gives back what waiting cannot
    /// mend: damage, and settings that are wrong.
    pub fn waiting(&self) -> CheckpointStore {
        CheckpointStore {
            patience: Patience::Absence,
            ..self.clone()
        }
    }

    /// A handle that waits until the store does what it is asked: for a store that has worked, and
    /// will again when somebody mends it. Only damage and broken invariants come back.
    pub fn patient(&self) -> CheckpointStore {
        CheckpointStore {
            patience: Patience::Anything,
            ..self.clone()
        }
    }

    /// What the store said last.
    pub fn health(&self) -> &Arc<StoreHealth> {
        &self.health
    }

    /// Where it is, as the user wrote it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its folder, if it is in the file system.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(|f| f.root())
    }

    /// What a failure asks for: to wait, or to change the settings.
    fn failure(&self, what: &str, e: object_store::Error) -> Error {
        let text = e.to_string();
        let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
        let reason = match between(&text, "<Message>", "</Message>") {
            Some(message) => format!("{code}: {message}"),
            None => text.clone(),
        };
        let refused = |by: &str| {
            let hint = match self.folder {
                Some(_) => "Give the server's user access to the folder.",
                None => location::S3_SETTINGS,
            };
            Error::user(
                SqlState::INVALID_PARAMETER,
                format!("checkpoint store {}: {by}: {reason}", self.url),
            )
            .with_hint(hint)
        };
        match &e {
            _ if code == NO_BUCKET => refused("there is no such bucket"),
            _ if REFUSALS.contains(&code) => refused("access is refused"),
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => refused("access is refused"),
            _ => Error::unavailable(
                SqlState::IO_ERROR,
                format!("checkpoint store {}: {what}: {reason}", self.url),
            ),
        }
    }

    /// Takes a step on the store as often as this handle's patience says.
    async fn attempt<T, F>(&self, step: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let error = match step().await {
                Ok(done) => {
                    self.health.succeeded();
                    return Ok(done);
                }
                Err(error) => error,
            };
            let waits = match error.kind() {
                // The store has answered; what it has is not right.
                ErrorKind::Corrupt => {
                    self.health.succeeded();
                    return Err(error);
                }
                ErrorKind::Unavailable => self.patience != Patience::None,
                ErrorKind::User => self.patience == Patience::Anything,
                ErrorKind::Internal => false,
            };
            self.health.failed(&error);
            if !waits {
                return Err(error);
            }
            tracing::debug!(%error, "the checkpoint store fails; trying again");
            machine::sleep(backoff.pause()).await;
        }
    }

    /// Writes one file of `table` for `epoch`, the `part`-th (from 0) of this writer. The same call
    /// again is harmless; another content under that name is an error.
    pub async fn write_file(
        &self,
        table: TableId,
        by: impl Into<WrittenBy>,
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
            format!(
                "tables/{table}/{generation}-{epoch}-{}{part}.parquet",
                by.into()
            ),
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
            footer,
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
            footer: Some(footer),
        };
        failpoint::check("checkpoint.upload")?;
        self.put_new(&meta.path, bytes).await?;
        Ok(meta)
    }

    /// Hands the rows of `vnodes` that are present according to `files` (of one table, in any
    /// order) to `each`, in batches of the table's schema. Memory: some pieces of files, and the
    /// keys of some rows.
    pub async fn read_table(
        &self,
        files: &[FileMeta],
        spec: &TableSpec,
        vnodes: Range<usize>,
        each: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        self.read_newest_first(files, spec, vnodes, Remembers::All, each)
            .await
    }

    /// Restores the rows of `vnodes` of a table that is empty; `restored` hears of each so many
    /// rows, and may end it by an error.
    pub async fn restore_table(
        &self,
        files: &[FileMeta],
        table: &mut dyn StateTable,
        vnodes: Range<usize>,
        mut restored: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let remembers = match table.keeps_newest() {
            true => Remembers::Deletes,
            false => Remembers::All,
        };
        let spec = table.spec();
        let restore = |rows: RecordBatch| {
            restored(rows.num_rows())?;
            table.restore(&rows);
            Ok(())
        };
        self.read_newest_first(files, &spec, vnodes, remembers, restore)
            .await
    }

    async fn read_newest_first(
        &self,
        files: &[FileMeta],
        spec: &TableSpec,
        vnodes: Range<usize>,
        remembers: Remembers,
        mut each: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let files = files.iter().filter(|f| f.has_any_of(&vnodes));
        let mut files: Vec<FileMeta> = files.cloned().collect();
        files.sort_by_key(|f| std::cmp::Reverse(f.epoch));
        for span in merge::spans(spec, &files, vnodes, remembers) {
            let mut merge = merge::NewestFirst::new(spec, &files, remembers);
            let mut pieces = pin!(self.pieces(spec, &files, span.clone()));
            while let Some(piece) = pieces.try_next().await? {
                merge.add(piece, span.clone(), &mut each)?;
            }
        }
        Ok(())
    }

    /// Merges the files of `compaction` and writes what comes out, in files of bounded size;
    /// `epoch` is the one being written now (it protects the files until a manifest names them).
    /// The inputs stay until garbage is collected ([`crate::garbage`]). Memory: a row group of each
    /// input, a few thousand rows, and one output. A long one works half of the time, and it ends
    /// where it is when the future is dropped.
    pub async fn compact(
        &self,
        compaction: &Compaction,
        spec: &TableSpec,
        generation: u64,
        epoch: Epoch,
    ) -> Result<Vec<FileMeta>> {
        let first = compaction.files.first();
        let table = first
            .ok_or_else(|| Error::internal("a compaction of no files"))?
            .table;
        let newest = compaction.files.iter().map(|f| f.epoch).max();
        let newest = newest.unwrap_or_default();
        let run = format!(
            "tables/{table}/{generation}-{epoch}-c{:08x}",
            compaction.checksum()
        );
        let (pace, _ends_it) = merge::Pace::of(&compaction.files);
        let (store, spec, compaction) = (self.clone(), spec.clone(), compaction.clone());
        let merged = machine::blocking(move || {
            let mut files: Vec<FileMeta> = Vec::new();
            merge::merge_files(&store, &spec, compaction, pace, |file| {
                let path = format!("{run}-{:04}.parquet", files.len());
                let written = store.write_table_file(path, table, newest, file);
                files.push(machine::block_on(written)?);
                Ok(())
            })?;
            Ok(files)
        });
        merged.await?
    }

    /// Reads one file whole and holds it against its checksum.
    pub async fn read_file(&self, file: &FileMeta) -> Result<Bytes> {
        self.get_whole(&file.path, file.bytes, file.crc32).await
    }

    /// Reads `path`, which a manifest names with this size and checksum.
    pub(crate) async fn get_whole(&self, path: &str, size: u64, crc32: u32) -> Result<Bytes> {
        let bytes = self.get(path).await?;
        check_whole(path, &bytes, size, crc32)?;
        Ok(bytes)
    }

    /// Deletes objects; one that is gone already is as good.
    pub(crate) async fn delete(&self, paths: Vec<String>) -> Result<()> {
        let locations =
            futures::stream::iter(paths.into_iter().map(|path| Ok(Path::from(path)))).boxed();
        let mut deleted = self.store.delete_stream(locations);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) => {}
                Err(e) if not_found(&e) => {}
                Err(e) => return Err(self.failure("delete garbage", e)),
            }
        }
        Ok(())
    }

    /// In a file system: deletes what a crash left of files that were being written (`name#1`),
    /// which no listing shows. To be called before anything is written.
    pub async fn remove_unfinished(&self) -> Result<usize> {
        let Some(root) = self.folder().map(std::path::Path::to_path_buf) else {
            return Ok(0);
        };
        let done = machine::blocking(move || {
            let mut removed = 0;
            for folder in FOLDERS {
                remove_staged(&root.join(folder), &mut removed)?;
            }
            Ok::<_, Error>(removed)
        });
        done.await?
    }

    /// The names under `folder`, unsorted.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.list_sizes(folder).await?;
        Ok(listed.into_iter().map(|(name, _)| name).collect())
    }

    /// The names under `folder` with their sizes, unsorted.
    pub(crate) async fn list_sizes(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let listed: Vec<_> = self
            .attempt(|| async {
                let listed = self.store.list(Some(&Path::from(folder)));
                listed
                    .try_collect()
                    .await
                    .map_err(|e| self.failure(folder, e))
            })
            .await?;
        let named = |object: object_store::ObjectMeta| (object.location.to_string(), object.size);
        Ok(listed.into_iter().map(named).collect())
    }

    /// The name of some object of the place, ours or anybody's, if there is one.
    pub(crate) async fn any_object(&self) -> Result<Option<String>> {
        self.attempt(|| async {
            match self.store.list(None).next().await {
                Some(Ok(object)) => Ok(Some(object.location.to_string())),
                Some(Err(e)) => Err(self.failure("list", e)),
                None => Ok(None),
            }
        })
        .await
    }

    /// The content of `path`; a missing object is damage.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        let found = self.get_if_present(path).await?;
        found.ok_or_else(|| Error::corrupt(format!("checkpoint file {path} is missing")))
    }

    /// The content of `path`, if there is such an object.
    pub(crate) async fn get_if_present(&self, path: &str) -> Result<Option<Bytes>> {
        let read = async || {
            let found = self.store.get(&Path::from(path)).await?;
            found.bytes().await
        };
        self.attempt(|| async {
            match read().await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if not_found(&e) => Ok(None),
                Err(e) => Err(self.failure(path, e)),
            }
        })
        .await
    }

    /// Some bytes of a file that a manifest names; that it is missing or of another size is damage.
    async fn get_range(&self, file: &FileMeta, range: Range<u64>) -> Result<Bytes> {
        let path = Path::from(file.path.as_str());
        self.attempt(|| async {
            let failed = match self.store.get_range(&path, range.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) => e,
            };
            let missing = || Error::corrupt(format!("checkpoint file {} is missing", file.path));
            if not_found(&failed) {
                return Err(missing());
            }
            // Stores have words of their own for what lies behind the end.
            match self.store.head(&path).await {
                Ok(found) if found.size != file.bytes => {
                    Err(is_damaged(&file.path).with_detail(format!(
                        "It has {} bytes; the manifest names {} bytes.",
                        found.size, file.bytes
                    )))
                }
                Err(e) if not_found(&e) => Err(missing()),
                _ => Err(self.failure(&file.path, failed)),
            }
        })
        .await
    }

    /// Writes `path` if it is absent, durably. That it is there already with the same content (a
    /// retry whose first answer was lost) is success.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.attempt(|| async {
            if self.put(path, bytes.clone()).await? {
                return Ok(());
            }
            let once = CheckpointStore {
                patience: Patience::None,
                ..self.clone()
            };
            match once.get_if_present(path).await? {
                Some(found) if found == bytes => Ok(()),
                Some(_) => Err(Error::internal(format!(
                    "checkpoint file {path} exists with other content"
                ))),
                None => Err(Error::unavailable(
                    SqlState::IO_ERROR,
                    format!("checkpoint store: {path}: is being written by somebody else"),
                )),
            }
        })
        .await
    }

    /// One try to write `path` durably; `false` if there is such an object.
    async fn put(&self, path: &str, bytes: Bytes) -> Result<bool> {
        if let Some(folder) = self.folder.clone() {
            let name = path.to_string();
            let put = machine::blocking(move || folder.put_new(&name, &bytes)).await;
            let put = put.map_err(|e| Error::internal(format!("writing {path}: {e}")))?;
            return put.map_err(|e| Error::from(e).context(format!("checkpoint store: {path}")));
        }
        let location = Path::from(path);
        let put = self
            .store
            .put_opts(&location, bytes.into(), PutMode::Create.into());
        match put.await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(self.failure(path, e)),
        }
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

/// Holds the content of `path` against what a manifest says of it.
pub(crate) fn check_whole(path: &str, bytes: &[u8], size: u64, crc32: u32) -> Result<()> {
    let found = crc32fast::hash(bytes);
    if bytes.len() as u64 == size && found == crc32 {
        return Ok(());
    }
    Err(is_damaged(path).with_detail(format!(
        "It has {} bytes with checksum {found:08x}; the manifest names {size} bytes with checksum \
         {crc32:08x}.",
        bytes.len(),
    )))
}

fn is_damaged(path: &str) -> Error {
    Error::corrupt(format!("checkpoint file {path} is damaged"))
}

/// Code of S3 for a bucket that does not exist.
const NO_BUCKET: &str = "NoSuchBucket";

/// Codes of S3 for a request that no waiting makes right.
const REFUSALS: [&str; 8] = [
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "PermanentRedirect",
    "SignatureDoesNotMatch",
];

/// What stands between two marks.
fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    Some(text.split_once(from)?.1.split_once(to)?.0)
}

/// The store says that there is no such object. A bucket that does not exist is something else.
fn not_found(e: &object_store::Error) -> bool {
    matches!(e, object_store::Error::NotFound { .. }) && !format!("{e}").contains(NO_BUCKET)
}
