//! Whose the data folder and the checkpoint store are, settled before anything is written.
//!
//! **The data folder** is held by one process for its life: a lock on its file `LOCK`, which also
//! holds the process's number for the message to the second one. Its file `CLUSTER` names the
//! cluster, `CLAIM` is the generation that this folder claimed last in its store.
//!
//! **The store** belongs to the cluster that its object `CLUSTER` names
//! ([`tidemark_state::checkpoint::owner`]). What is found where decides:
//!
//! | folder | store | |
//! | --- | --- | --- |
//! | new | empty | a new cluster |
//! | of a cluster | of the same | the usual start |
//! | of a cluster | no name | its own, if it is empty or belongs to the log |
//! | of a cluster | of another | refused |
//! | new, or without log | not empty | refused, unless `recover_from_checkpoint` |
//! | any | a backup | refused ([`tidemark_state::backup`]) |
//!
//! A folder whose log is older than what the store has is an old copy and is refused: the store has
//! a claim above the log's generation that this folder did not make, or a manifest of an epoch that
//! the log has not decided. A store without the checkpoint that the log names is refused as well.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::disk::{Disk, Lock};
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_control::Entry;
use tidemark_control::coordinator::recovery::Recovered;
use tidemark_state::backup;
use tidemark_state::checkpoint::CheckpointStore;
use tidemark_state::checkpoint::owner::{Claim, Lineage};
use tidemark_state::manifest::numbers_of;

const HOW_TO: &str = "See \"Who owns a store\" in docs/operations.md.";

/// A data folder that this process holds.
pub struct DataFolder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    lock: Lock,
}

impl DataFolder {
    /// Makes the folder if it is absent, and locks it; `55006` if another process holds it.
    pub fn lock(path: &Path) -> Result<DataFolder> {
        let disk = machine::disk();
        let at = |e: io::Error| Error::from(e).context(path.display());
        disk.create_folder(path).map_err(at)?;
        let file = path.join("LOCK");
        let lock = match disk.lock(&file) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(in_use(path, disk.read(&file).unwrap_or_default()));
            }
            Err(e) => return Err(at(e).context("cannot be locked")),
        };
        // For the message to the next one only: nothing depends on it.
        let number = std::process::id().to_string();
        let noted = disk.open(&file).and_then(|mut file| {
            file.truncate(0)?;
            file.write_at(0, number.as_bytes())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the process id could not be noted in the data folder");
        }
        Ok(DataFolder {
            path: disk.absolute(path).map_err(at)?,
            disk,
            lock,
        })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock alone, to be kept as long as the folder is in use.
    pub fn into_lock(self) -> Lock {
        self.lock
    }

    /// The cluster that it belongs to; none in a new folder.
    pub fn cluster(&self) -> Result<Option<String>> {
        let Some(bytes) = self.read("CLUSTER")? else {
            return Ok(None);
        };
        match String::from_utf8_lossy(&bytes).trim() {
            "" => {
                let path = self.path.join("CLUSTER");
                Err(Error::corrupt(format!("{} is empty", path.display())))
            }
            id => Ok(Some(id.to_string())),
        }
    }

    /// It belongs to this cluster from now on.
    pub fn belongs_to(&self, cluster: &str) -> Result<()> {
        self.write("CLUSTER", cluster.as_bytes())
    }

    fn claimed(&self) -> Result<Option<Claim>> {
        let path = self.path.join("CLAIM");
        let bytes = self.read("CLAIM")?;
        let claim = bytes.map(|bytes| Claim::decode(&path.display().to_string(), &bytes));
        claim.transpose()
    }

    /// One of its small files, if it is there.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match self.disk.read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::from(e).context(path.display())),
        }
    }

    /// Replaces one of its small files, durably.
    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let (path, made) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let replaced = self.disk.open(&made).and_then(|mut file| {
            file.truncate(0)?;
            file.write_at(0, content)?;
            file.sync()?;
            self.disk.rename(&made, &path)?;
            self.disk.sync_folder(&self.path)
        });
        replaced.map_err(|e| Error::from(e).context(path.display()))
    }

    /// Tells it from its copies.
    fn mark(&self) -> Result<String> {
        let path = self.path.join("CLUSTER");
        let identity = self.disk.identity(&path);
        identity.map_err(|e| Error::from(e).context(path.display()))
    }
}

fn in_use(path: &Path, noted: Vec<u8>) -> Error {
    let holder = String::from_utf8_lossy(&noted).trim().parse::<u32>();
    let by = match holder {
        Ok(holder) => format!("another server (process {holder})"),
        Err(_) => "another server".to_string(),
    };
    Error::unavailable(
        SqlState("55006"),
        format!("data folder {} is in use by {by}", path.display()),
    )
    .with_hint("Stop it, or choose another folder with --data-dir.")
}

/// Tells, as loudly as a log can, what going on without the log costs.
pub fn report_loss(recovered: &Recovered, recover: bool) {
    if recovered.log_is_lost {
        let clock = recovered.decisions.clock;
        tracing::error!(
            epoch = recovered.decisions.decided.0,
            checkpoint_age_seconds = (machine::micros() - clock) / 1_000_000,
            "the log is gone: going on from the last checkpoint. What was written to tables after \
             it is lost. Sources are read on from where they stood then; a sink that has delivered \
             more stops and says so"
        );
    } else if recover && !recovered.loss {
        tracing::warn!(
            "--recover-from-checkpoint is set, and the log is there: the word is not needed and \
             should not stand for ever"
        );
    }
}

/// What may be written where.
pub struct Ownership {
    /// The cluster's id.
    pub cluster: String,
    /// The claim of this opening, and what it says about the store's files.
    pub lineage: Lineage,
}

/// What the log says about the folder's past.
pub struct LogKnowledge<'a> {
    /// Its entries; none of a log of which a part is lost: that does not know how far it was.
    pub entries: &'a [(u64, Entry)],
    /// A part of it is lost.
    pub is_lost: bool,
    /// There was none.
    pub is_new: bool,
    /// A group keeps it: what its members have decided is known here, and who else claims the
    /// store is one of them.
    pub of_group: bool,
}

/// A start between looking and claiming.
pub struct Looked {
    cluster: String,
    claims: Vec<Claim>,
    previous: Option<Claim>,
    of_group: bool,
}

/// Finds out whether this folder and this store belong together, and makes them so if they are new.
/// `store` waits while it is away. Nothing is read from the store's files yet.
pub async fn look(
    folder: &DataFolder,
    store: &CheckpointStore,
    log: &LogKnowledge<'_>,
    recover: bool,
) -> Result<Looked> {
    let entries = log.entries;
    // A folder that never decided anything.
    let is_blank = entries.is_empty() && !log.is_lost;
    if log.is_new && !recover && folder.claimed()?.is_some() {
        return Err(log_missing(folder));
    }
    backup::check_live(store).await?;
    let manifests = store.list_manifests().await?;
    // A listing may not show yet what was written last: what is named is asked for.
    let has_committed = match committed(entries) {
        Some(path) => store.has_manifest(path).await?,
        None => false,
    };
    let own = has_committed || (!entries.is_empty() && is_inside(folder, store));
    let cluster = match (folder.cluster()?, store.owner().await?) {
        (Some(known), Some(owner)) if known == owner => known,
        (Some(known), None) if own || (manifests.is_empty() && store.is_empty().await?) => known,
        // It takes the store's name, if its user wants that.
        (Some(_), Some(owner)) if recover && is_blank => owner,
        (Some(known), owner) => return Err(foreign(folder, store, &known, owner.as_deref())),
        (None, Some(owner)) if own => {
            tracing::warn!(cluster = %owner, "CLUSTER is missing from the data folder: it is taken \
                                              from the checkpoint store that the log belongs to");
            owner
        }
        (None, _) if !is_blank => return Err(nameless(folder)),
        (None, None) if manifests.is_empty() && store.is_empty().await? => new_id(),
        (None, owner) if recover => owner.unwrap_or_else(new_id),
        (None, owner) => return Err(lost_folder(folder, store, owner.as_deref())),
    };
    let looked = Looked {
        cluster,
        claims: store.claims().await?,
        previous: folder.claimed()?,
        of_group: log.of_group,
    };
    if !log.of_group && !(recover && entries.is_empty()) {
        looked.refuse_old_copy(folder, store, entries, &manifests)?;
    }
    // What an old copy's log names may be deleted already: this comes after.
    if let Some(path) = committed(entries).filter(|_| !has_committed) {
        return Err(without_checkpoint(folder, store, path));
    }
    if folder.cluster()?.as_ref() != Some(&looked.cluster) {
        folder.belongs_to(&looked.cluster)?;
    }
    let owner = store.become_owner(&looked.cluster).await?;
    if owner != looked.cluster {
        return Err(foreign(folder, store, &looked.cluster, Some(&owner)));
    }
    Ok(looked)
}

impl Looked {
    /// The store has gone on without this folder's log.
    fn refuse_old_copy(
        &self,
        folder: &DataFolder,
        store: &CheckpointStore,
        entries: &[(u64, Entry)],
        manifests: &[String],
    ) -> Result<()> {
        let known = generation(entries);
        let taken = self.claims.last().filter(|c| c.generation > known);
        if let Some(claim) = taken.filter(|c| !self.is_ours(c)) {
            return Err(taken_over(folder, store, known, claim));
        }
        if entries.is_empty() {
            return Ok(());
        }
        let decided = decided(entries);
        let of_known = manifests
            .iter()
            .filter_map(|path| numbers_of(path))
            .filter(|(_, generation)| *generation == known);
        match of_known.map(|(epoch, _)| epoch).max() {
            Some(epoch) if epoch > decided => Err(old_copy(folder, store, decided, epoch)),
            _ => Ok(()),
        }
    }

    /// The folder's own last claim, or one that was there when that was made: the start that made
    /// it has looked at those before.
    fn is_ours(&self, claim: &Claim) -> bool {
        // Which of a group's members counts, their log decides.
        self.of_group
            || self
                .previous
                .as_ref()
                .is_some_and(|own| own.nonce == claim.nonce || claim.generation < own.generation)
    }

    /// Claims the generation with which this process opens log and store.
    pub async fn claim(
        mut self,
        folder: &DataFolder,
        store: &CheckpointStore,
        recovered: &Recovered,
    ) -> Result<Ownership> {
        loop {
            let claim = self.next_claim(folder, recovered)?;
            // First here, so that a start that ends in between is known as our own.
            folder.write("CLAIM", &claim.encode()?)?;
            if store.claim(&claim).await? {
                let lineage = Lineage::new(claim.clone(), self.claims.into_iter().chain([claim]));
                return Ok(Ownership {
                    cluster: self.cluster,
                    lineage,
                });
            }
            // It may be our own, and so new that the listing did not show it.
            let by = store.claim_of(claim.generation).await?.ok_or_else(|| {
                let (url, path) = (store.url(), claim.path());
                Error::unavailable(
                    SqlState::IO_ERROR,
                    format!("checkpoint store {url}: {path} cannot be created and is not there"),
                )
            })?;
            if !self.is_ours(&by) {
                return Err(taken_over(folder, store, claim.generation - 1, &by));
            }
            self.claims.push(by);
        }
    }

    /// The claim of the generation after all that are known.
    fn next_claim(&self, folder: &DataFolder, recovered: &Recovered) -> Result<Claim> {
        let known = recovered.decisions.generation;
        let newest = self.claims.last().map_or(0, |c| c.generation);
        let mut strangers = self.previous.as_ref().map(|c| c.strangers.clone());
        if self.of_group {
            let told = self.claims.iter().flat_map(|c| &c.strangers).copied();
            strangers.get_or_insert_default().extend(told);
        }
        if newest > known && !recovered.log_is_lost {
            // Ours that ended before they were logged left nothing that could be told from the
            // files of others: those are left alone as well.
            strangers.get_or_insert_default().extend(known + 1..=newest);
        }
        Ok(Claim {
            generation: newest.max(known) + 1,
            nonce: new_id(),
            mark: folder.mark()?,
            strangers: strangers.unwrap_or_default(),
            host: host_name(),
            pid: std::process::id(),
            folder: folder.path.display().to_string(),
            at_micros: machine::micros(),
        })
    }
}

/// Whether the store is the folder's own subfolder.
fn is_inside(folder: &DataFolder, store: &CheckpointStore) -> bool {
    let inside = store.folder().and_then(|f| f.canonicalize().ok());
    inside.is_some_and(|inside| inside.starts_with(&folder.path))
}

/// The manifest that the log committed last.
fn committed(entries: &[(u64, Entry)]) -> Option<&str> {
    entries.iter().rev().find_map(|(_, entry)| match entry {
        Entry::Checkpoint { manifest, .. } => Some(manifest.as_str()),
        _ => None,
    })
}

/// The generation that the log knows; of a log that begins after its last opening, that of its last
/// checkpoint.
fn generation(entries: &[(u64, Entry)]) -> u64 {
    let opened = entries.iter().filter_map(|(_, entry)| match entry {
        Entry::Opened { generation } => Some(*generation),
        Entry::Checkpoint { manifest, .. } => numbers_of(manifest).map(|(_, g)| g),
        _ => None,
    });
    opened.max().unwrap_or(0)
}

/// The last epoch that the log decided.
fn decided(entries: &[(u64, Entry)]) -> u64 {
    let epochs = entries.iter().filter_map(|(_, entry)| match entry {
        Entry::Cut(cut) => Some(cut.epoch.0),
        Entry::Checkpoint { epoch, .. } => Some(epoch.0),
        _ => None,
    });
    epochs.max().unwrap_or(0)
}

fn refused(message: String, detail: String, hint: &str) -> Error {
    Error::user(SqlState::OBJECT_NOT_READY, message)
        .with_detail(detail)
        .with_hint(format!("{hint} {HOW_TO}"))
}

/// The folder claimed a store once, so it had a log.
fn log_missing(folder: &DataFolder) -> Error {
    let path = folder.path.join("log");
    Error::corrupt(format!(
        "the log is missing from data folder {}",
        folder.path.display()
    ))
    .with_hint(format!(
        "Put back the folder {} and the file log.synced beside it. If they are gone for good, \
         start once with --recover-from-checkpoint to go on from the last checkpoint.",
        path.display()
    ))
}

fn nameless(folder: &DataFolder) -> Error {
    let path = folder.path.join("CLUSTER");
    Error::corrupt(format!(
        "{} is missing, and there is a log beside it",
        path.display()
    ))
    .with_hint("Put the file back: it names the cluster.")
}

fn lost_folder(folder: &DataFolder, store: &CheckpointStore, owner: Option<&str>) -> Error {
    let whose = owner.map_or("has checkpoints".into(), |c| {
        format!("belongs to cluster {c}")
    });
    refused(
        format!(
            "checkpoint store {} {whose}, and data folder {} is new",
            store.url(),
            folder.path.display()
        ),
        "The log, without which the store is behind, is in the cluster's own data folder.".into(),
        "Start with that folder, or choose another --checkpoint-url for a new cluster; if the \
         folder is lost, start once with --recover-from-checkpoint: what was written to tables \
         after the last checkpoint is lost then.",
    )
}

fn foreign(
    folder: &DataFolder,
    store: &CheckpointStore,
    cluster: &str,
    owner: Option<&str>,
) -> Error {
    let whose = match owner {
        Some(owner) => format!("belongs to cluster {owner}"),
        None => "has checkpoints that are not this cluster's".into(),
    };
    refused(
        format!(
            "checkpoint store {} {whose}; data folder {} is of cluster {cluster}",
            store.url(),
            folder.path.display()
        ),
        "Two clusters in one store would delete each other's files.".into(),
        "Choose another --checkpoint-url, or the data folder that belongs to the store.",
    )
}

fn without_checkpoint(folder: &DataFolder, store: &CheckpointStore, path: &str) -> Error {
    refused(
        format!(
            "checkpoint store {} does not have {path}, the last checkpoint of data folder {}",
            store.url(),
            folder.path.display()
        ),
        "It is another store, or the file was deleted.".into(),
        "Start with the --checkpoint-url that the folder was used with, or put the file back.",
    )
}

fn taken_over(folder: &DataFolder, store: &CheckpointStore, known: u64, claim: &Claim) -> Error {
    refused(
        format!(
            "data folder {} is a copy: checkpoint store {} was opened with another copy of it \
             since (generation {} after {known})",
            folder.path.display(),
            store.url(),
            claim.generation
        ),
        format!("It was {}.", claim.describe()),
        &format!(
            "Start with that folder; or, if it is gone for good and this one is to go on in its \
             place, copy the store's object {} to {}/CLAIM.",
            claim.path(),
            folder.path.display()
        ),
    )
}

fn old_copy(folder: &DataFolder, store: &CheckpointStore, decided: u64, epoch: u64) -> Error {
    refused(
        format!(
            "data folder {} is an old copy: its log ends with epoch {decided}, and checkpoint \
             store {} has a checkpoint of epoch {epoch}",
            folder.path.display(),
            store.url()
        ),
        "Going on from here would lose what was decided since.".into(),
        "Start with the newest copy of the folder; without one, start once with an empty folder \
         and --recover-from-checkpoint, which goes on from that checkpoint.",
    )
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "?".into(), |name| name.trim().to_string())
}

/// An id that nobody else has.
fn new_id() -> String {
    format!("{:016x}", machine::random())
}

#[cfg(test)]
mod tests;
