//! The manifest of a checkpoint: everything that is needed to go on from an epoch, in one object.
//!
//! **Law.** A manifest names every file of every state table, where each source stood, what each
//! sink had delivered, the errors that are kept, and the catalog, all as of the barrier that closed
//! its epoch. It is written once (put if absent) after every file that it names; the log's commit
//! entry that names the manifest is the instant at which the checkpoint counts.
//!
//! **Form.** `manifests/{epoch, 20 digits}-{generation}.json`:
//! `{"crc32":"xxxxxxxx","manifest":{...}}`, the checksum (CRC-32, IEEE) over the bytes of the inner
//! object as they stand. The catalog in it is a list of relations, each of which can be read or
//! set aside by itself ([`tidemark_plan`]); nothing in it nests deeper than a few levels.

use crate::checkpoint::{CheckpointStore, FileMeta};
use crate::errors::ErrorsFile;
use crate::halted::Halted;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_changelog::connector::{Floor, SinkMarker, SplitPosition};
use tidemark_common::{Epoch, Error, RelationId, Result, failpoint};
use tidemark_plan::Catalog;

/// The form of manifests that this build writes and reads.
pub const MANIFEST_VERSION: u32 = 2;

const HEAD: &str = "{\"crc32\":\"";
const MIDDLE: &str = "\",\"manifest\":";

/// A sink at a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkProgress {
    /// What it had delivered, as far as we knew; its own marker is the truth.
    pub delivered: Option<SinkMarker>,
    /// Order-free hash over all that it emitted up to the checkpoint's epoch.
    pub emitted_hash: u64,
    /// The epoch up to which this has all that it emitted: of a sink whose job stopped the one
    /// where it stopped. Absent: the checkpoint's.
    #[serde(default)]
    pub through: Option<Epoch>,
    /// What it emitted and has not delivered.
    pub log: Vec<FileMeta>,
}

/// An object as a manifest names it, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// Name within the store.
    pub path: &'a str,
    /// Size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole object.
    pub crc32: u32,
}

/// Everything about one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The epoch.
    pub epoch: Epoch,
    /// The cluster's incarnation that made it.
    pub generation: u64,
    /// Entries of the decision log up to and including this one are contained.
    pub log_index: u64,
    /// The clock of the epoch, in microseconds since 1970.
    pub clock: i64,
    /// The catalog.
    pub catalog: Catalog,
    /// The files of each state table, by `{relation}-{table}`.
    pub tables: BTreeMap<String, Vec<FileMeta>>,
    /// Where the splits of each source stand.
    pub sources: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// Where each source started, for jobs that come later.
    #[serde(default)]
    pub starts: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// What was decided of splits of each source that brought nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floors: BTreeMap<RelationId, Vec<Floor>>,
    /// The sinks.
    pub sinks: BTreeMap<RelationId, SinkProgress>,
    /// What sinks into tables have delivered of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub markers: BTreeMap<RelationId, SinkMarker>,
    /// The epoch that each job's state is of; a halted job's is older than the checkpoint's.
    pub job_epochs: BTreeMap<RelationId, Epoch>,
    /// What the jobs that do not run need to go on. One that is not among the stopped ones of the
    /// catalog was held back, and the next start tries it again.
    #[serde(default)]
    pub halted: BTreeMap<RelationId, Halted>,
    /// The errors that are kept, if there are any.
    #[serde(default)]
    pub errors: Option<ErrorsFile>,
}

impl Manifest {
    /// Its name within the store.
    pub fn path(&self) -> String {
        format!("manifests/{:020}-{}.json", self.epoch.0, self.generation)
    }

    /// Every file of rows that it names.
    pub fn files(&self) -> impl Iterator<Item = &FileMeta> {
        self.tables
            .values()
            .flatten()
            .chain(self.sinks.values().flat_map(|s| &s.log))
            .chain(self.halted.values().flat_map(Halted::answers))
    }

    /// All objects that it names, with their sizes and checksums.
    pub fn objects(&self) -> impl Iterator<Item = Object<'_>> {
        let files = self.files().map(|f| (f.path.as_str(), f.bytes, f.crc32));
        let errors = self.errors.iter();
        let errors = errors.map(|e| (e.path.as_str(), e.bytes, e.crc32));
        let kept = self.halted.values().flat_map(|h| &h.kept);
        let kept = kept.map(|k| (k.path.as_str(), k.bytes, k.crc32));
        let all = files.chain(errors).chain(kept);
        all.map(|(path, bytes, crc32)| Object { path, bytes, crc32 })
    }

    /// The names of all objects that it names.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.objects().map(|object| object.path)
    }

    /// Its bytes in the store.
    pub fn encode(&self) -> Result<Bytes> {
        let body = serde_json::to_string(self)
            .map_err(|e| Error::internal(format!("manifest of epoch {}: {e}", self.epoch)))?;
        Ok(format!(
            "{HEAD}{:08x}{MIDDLE}{body}}}",
            crc32fast::hash(body.as_bytes())
        )
        .into())
    }

    /// Reads what [`Manifest::encode`] wrote; `path` is for messages.
    pub fn decode(path: &str, bytes: &[u8]) -> Result<Manifest> {
        let damaged = |what: &str| {
            Error::corrupt(format!("manifest {path} is damaged")).with_detail(format!("{what}."))
        };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("It is not UTF-8"))?;
        let framed = text
            .strip_prefix(HEAD)
            .and_then(|rest| rest.split_at_checked(8));
        let framed = framed.and_then(|(crc, rest)| {
            Some((
                u32::from_str_radix(crc, 16).ok()?,
                rest.strip_prefix(MIDDLE)?.strip_suffix('}')?,
            ))
        });
        let (crc32, body) =
            framed.ok_or_else(|| damaged("It is cut short, or was never a manifest"))?;
        if crc32fast::hash(body.as_bytes()) != crc32 {
            return Err(damaged("Its checksum does not match its content"));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version = serde_json::from_str::<Version>(body)
            .map_err(|e| damaged(&e.to_string()))?
            .version;
        if version != MANIFEST_VERSION {
            return Err(Error::corrupt(format!(
                "manifest {path} has version {version}, this build reads version \
                 {MANIFEST_VERSION}"
            )));
        }
        serde_json::from_str(body).map_err(|e| damaged(&e.to_string()))
    }
}

impl CheckpointStore {
    /// Writes the manifest under its own name and returns that. The same manifest again is
    /// harmless, another one under that name an error.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<String> {
        let (path, bytes) = (manifest.path(), manifest.encode()?);
        failpoint::check("checkpoint.manifest")?;
        self.put_new(&path, bytes).await?;
        Ok(path)
    }

    /// Reads a manifest; a missing or damaged one is an error that names it.
    pub async fn read_manifest(&self, path: &str) -> Result<Manifest> {
        Manifest::decode(path, &self.get(path).await?)
    }

    /// Whether it has the manifest of this path; unlike a listing, never late.
    pub async fn has_manifest(&self, path: &str) -> Result<bool> {
        Ok(self.get_if_present(path).await?.is_some())
    }

    /// The names of all manifests in the store, committed or not, oldest first (by epoch, then
    /// generation).
    pub async fn list_manifests(&self) -> Result<Vec<String>> {
        let mut found: Vec<_> = self
            .list("manifests")
            .await?
            .into_iter()
            .filter_map(|path| Some((numbers_of(&path)?, path)))
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// The manifest with the newest state: of the newest generation the newest epoch. Committed or
    /// not: only the log knows.
    pub async fn newest_manifest(&self) -> Result<Option<String>> {
        let names = self.list_manifests().await?;
        let order = |path: &String| numbers_of(path).map(|(e, g)| (g, e));
        Ok(names.into_iter().max_by_key(order))
    }
}

/// Epoch and generation in the name of a manifest.
pub fn numbers_of(path: &str) -> Option<(u64, u64)> {
    let (epoch, generation) = path
        .strip_prefix("manifests/")?
        .strip_suffix(".json")?
        .split_once('-')?;
    Some((epoch.parse().ok()?, generation.parse().ok()?))
}
