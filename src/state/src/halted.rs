//! What a job that does not run (it stopped, or is held back) needs to go on later, as a manifest
//! names it.
//!
//! **Law.** The files of the job's state tables stay those of its own epoch (`job_epochs`). Beside
//! them the manifest has where the sources stood at that epoch, and the rows that were written to
//! the job since: in the order of their epochs, in files of their own, because the log that had
//! them is shortened. State, positions and rows together are the job as of its last decided epoch,
//! whatever the others did meanwhile. Nothing is added after that: a halted table takes no writes.
//!
//! **Answers.** People go on reading what the job answered last, as of the epoch where it stopped.
//! That is newer than its state tables, so it is stored whole, once ([`Answer`]). A sink has the
//! answers of what it reads, instead: what its receiver was told is the query over those.
//!
//! **Files.** `tables/{relation}-kept/{generation}-{epoch}-0.rows`, named like those of state
//! tables so that garbage collection treats them alike. The bytes are the control crate's.

use crate::checkpoint::{CheckpointStore, FileMeta};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, RelationId, Result, failpoint};
use tidemark_plan::Relation;

/// What a halted job needs beside its state tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Halted {
    /// Where the sources stood of which its state is made: its own connector, and the sources
    /// without rows that it reads.
    pub positions: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// Where they stood when it stopped.
    pub reached: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// The rows that were written to it since, in order.
    pub kept: Vec<KeptFile>,
    /// What it answered last. Absent: its state tables have that.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Of a sink: what the relations with rows that it reads answered where it stopped.
    #[serde(default)]
    pub inputs: BTreeMap<RelationId, Answer>,
}

/// All rows of a relation as of an epoch, as files of its state table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The epoch.
    pub epoch: Epoch,
    /// They contradict no other: each row is in one of them.
    pub files: Vec<FileMeta>,
    /// Whose rows they are, where another relation has taken the place of that one since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formerly: Option<Formerly>,
}

/// A relation whose place another one has taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Formerly {
    /// As it was.
    pub relation: Arc<Relation>,
    /// Where its columns are in it, by their positions in the one that came.
    pub places: BTreeMap<usize, usize>,
}

impl Halted {
    /// The files of all answers.
    pub fn answers(&self) -> impl Iterator<Item = &FileMeta> {
        let all = self.answer.iter().chain(self.inputs.values());
        all.flat_map(|answer| &answer.files)
    }
}

/// A file of rows that were written to a halted job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Name within the store.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc32: u32,
}

impl KeptFile {
    /// The file of `relation` that the manifest of `epoch` is the first to name.
    pub fn new(relation: RelationId, epoch: Epoch, generation: u64, bytes: &[u8]) -> KeptFile {
        KeptFile {
            path: format!("tables/{relation}-kept/{generation}-{epoch}-0.rows"),
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(bytes),
        }
    }
}

impl CheckpointStore {
    /// Writes a file of kept rows. The same call again is harmless.
    pub async fn write_kept(&self, file: &KeptFile, bytes: Bytes) -> Result<()> {
        failpoint::hit("checkpoint.upload");
        self.put_new(&file.path, bytes).await
    }

    /// Reads a file of kept rows; a missing or damaged one is an error that names it.
    pub async fn read_kept(&self, file: &KeptFile) -> Result<Bytes> {
        self.get_whole(&file.path, file.bytes, file.crc32).await
    }
}
