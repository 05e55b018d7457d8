//! Backups: a checkpoint copied to a place of its own, while its cluster runs or when it is dead,
//! and from there to where a cluster can go on with it.
//!
//! **Law.** A backup is valid from the instant at which the object `backups/{number, 20 digits}
//! .json` that names its manifest is created, after every file and the manifest itself. Of those
//! that are there the greatest number counts; what it does not name is deleted only after that. So
//! a place of backups has a valid one from the first time on, wherever the work on a next one ends.
//!
//! **What is copied** is the newest manifest of the store and what it names, byte for byte under
//! the same names, each file held against its checksum. Manifests are written when their epoch is
//! decided and complete: the newest one is always a state that the database was in. Files never
//! change, so what the place has already under the same name and with the same size is not copied
//! again. The cluster may delete files meanwhile, because a newer manifest names others instead:
//! then the work begins again with that one, and large files, which live longest, go first. A file
//! that is missing although its manifest stays the newest one is damage.
//!
//! **Whose a place is** its object `BACKUP` says, which is created first: the cluster of the
//! backups, or which backup is being restored there. A live store has `CLUSTER` instead
//! ([`crate::checkpoint::owner`]); a server does not start on a place that has `BACKUP`. Restoring
//! ends with `CLUSTER` being created and `BACKUP` being deleted; when it was cut off, the same
//! command goes on. Claims are not copied: nobody has opened the new store, and its first
//! generation is the one after the manifest's.
//!
//! Of two that back up to one place at a time one wins its number, and the other begins again.
//!
//! Memory: a few files, whole.

use crate::checkpoint::owner::OWNER;
use crate::checkpoint::{CheckpointStore, FOLDERS, check_whole};
use crate::manifest::{Manifest, Object};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidemark_common::{Backoff, Error, Result, SqlState, failpoint, machine};

/// The object that says that a place is no live store.
const PLACE: &str = "BACKUP";

/// Where the backups of a place are named.
const BACKUPS: &str = "backups";

/// How often a backup begins, before it gives up.
const TRIES_MAX: u32 = 30;

/// How often a file may be missing although its manifest stays the newest: whoever deleted it may
/// be about to delete the manifest, too.
const MISSED_MAX: u32 = 6;

/// Bytes from which on a file is large.
const LARGE: u64 = 4 << 20;

/// Large files that are copied at a time.
const LARGE_AT_A_TIME: usize = 2;

/// Small ones.
const SMALL_AT_A_TIME: usize = 16;

/// For who learns from a backup what became of the store.
const NOT_WHOLE: &str = "The store is not whole: no node would start from it. The last backup is \
                         valid.";
const SAVE_FIRST: &str = "Put back what is gone. If that is not possible, let no node end before \
                          you have read \"The store is gone\" in docs/cluster.md.";

/// What [`PLACE`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Whose checkpoints are there.
    cluster: String,
    /// Of a place that a backup is being copied to: its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restores: Option<String>,
}

/// A valid backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Backup {
    manifest: String,
    epoch: u64,
    /// The clock of the epoch, in microseconds since 1970.
    clock: i64,
    /// When it was made, in microseconds since 1970.
    at_micros: i64,
    /// Files and their bytes, without the manifest.
    files: u64,
    bytes: u64,
}

/// How far a copy is, and in the end what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The cluster.
    pub cluster: String,
    /// The epoch of the checkpoint.
    pub epoch: u64,
    /// The clock of that epoch, in microseconds since 1970.
    pub clock: i64,
    /// Files that the checkpoint has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were copied, also for checkpoints that have been overtaken meanwhile.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Bytes of the checkpoint that were there already.
    pub present_bytes: u64,
}

/// Who is told how far a copy is.
pub type Told<'a> = &'a (dyn Fn(&Copied) + Sync);

/// Copies the newest checkpoint of `live` to `target`, deletes what no valid backup there names,
/// and returns what it was.
///
/// Errors: `55000` if there is no checkpoint, or `target` is something else than backups of this
/// cluster; `XX001` if a file is missing or damaged; 58030 if a store fails, or the cluster deletes
/// files faster than they are copied. The backup before this one stays valid then.
pub async fn back_up(
    live: &CheckpointStore,
    target: &CheckpointStore,
    told: Told<'_>,
) -> Result<Copied> {
    let cluster = live_cluster(live).await?;
    become_target(target, &cluster).await?;
    let mut copy = Copy::new(live, target, told, cluster);
    let mut backoff = Backoff::default();
    // The last manifest of which something was missing, and how often in a row.
    let mut missed = (String::new(), 0);
    for _ in 0..TRIES_MAX {
        let number = target.newest_backup().await?.map_or(0, |(n, _)| n) + 1;
        let Some(path) = live.newest_manifest().await? else {
            return Err(no_checkpoint(live));
        };
        if missed.0 != path {
            missed = (path.clone(), 0);
            backoff.reset();
        }
        let Some(bytes) = live.get_if_present(&path).await? else {
            // A newer one has taken its place since the listing.
            machine::sleep(backoff.pause()).await;
            continue;
        };
        let manifest = Manifest::decode(&path, &bytes)?;
        if let Some(file) = copy.run(&manifest).await? {
            missed.1 += 1;
            if missed.1 == MISSED_MAX {
                return Err(missing(live, &file, &manifest));
            }
            machine::sleep(backoff.pause()).await;
            continue;
        }
        target.put_manifest(&path, &bytes).await?;
        let Some(garbage) = copy.garbage(&manifest).await? else {
            continue;
        };
        let backup = Backup {
            manifest: path,
            epoch: manifest.epoch.0,
            clock: manifest.clock,
            at_micros: machine::micros(),
            files: copy.told.files,
            bytes: copy.told.bytes,
        };
        failpoint::check("backup.valid")?;
        if !target
            .put_if_absent(&path_of(number), encoded(&backup)?)
            .await?
        {
            // Somebody else's backup was finished meanwhile.
            continue;
        }
        failpoint::check("backup.clean")?;
        target.delete(garbage).await?;
        target.remove_unfinished().await?;
        return Ok(copy.told);
    }
    let message = format!(
        "checkpoint store {}: no checkpoint stayed for as long as it takes to copy what is new in \
         it",
        live.url()
    );
    Err(Error::unavailable(SqlState::IO_ERROR, message).with_hint(
        "What was copied is there for the next try. Try when less is written, or let the cluster \
         take checkpoints less often (--checkpoint-ms).",
    ))
}

/// Looks whether the store has all that its newest manifest names: of the right sizes, without
/// reading it. A backup does not look for what its target has already.
///
/// Errors: `XX001` with the name of a file that is missing or has another size.
pub async fn look_over(live: &CheckpointStore) -> Result<()> {
    let mut looked_at: Option<(String, Manifest, String)> = None;
    let mut backoff = Backoff::default();
    loop {
        let Some(path) = live.newest_manifest().await? else {
            return Err(no_checkpoint(live));
        };
        // What it has not may have been deleted for the sake of a newer manifest.
        if let Some((file, manifest, of)) = &looked_at
            && *of == path
        {
            return Err(missing(live, file, manifest));
        }
        let Some(bytes) = live.get_if_present(&path).await? else {
            machine::sleep(backoff.pause()).await;
            continue;
        };
        let manifest = Manifest::decode(&path, &bytes)?;
        let present: BTreeMap<String, u64> = files_of(live).await?.into_iter().collect();
        let is_lost = |o: &Object| present.get(o.path) != Some(&o.bytes);
        let lost = manifest.objects().find(is_lost);
        let Some(file) = lost.map(|o| o.path.to_string()) else {
            return Ok(());
        };
        looked_at = Some((file, manifest, path));
    }
}

/// Copies the newest backup of `backups` to `place`, which is empty, and makes that the store of
/// its cluster. A copy of the same backup that was cut off goes on.
///
/// Errors: `55000` if there is no backup, or something else in `place`; `XX001` if a file is
/// missing or damaged.
pub async fn restore(
    backups: &CheckpointStore,
    place: &CheckpointStore,
    told: Told<'_>,
) -> Result<Copied> {
    let (cluster, backup) = found_backup(backups).await?;
    let restores = Place {
        cluster: cluster.clone(),
        restores: Some(backup.manifest.clone()),
    };
    begin_restore(place, &restores).await?;
    let bytes = backups.get(&backup.manifest).await?;
    let manifest = Manifest::decode(&backup.manifest, &bytes)?;
    let mut copy = Copy::new(backups, place, told, cluster.clone());
    if let Some(file) = copy.run(&manifest).await? {
        return Err(Error::corrupt(format!(
            "checkpoint file {file} is missing in backup {}",
            backups.url()
        ))
        .with_hint(
            "Put it back, or restore another backup. Was a newer backup finished meanwhile? Then \
             begin again, with another empty place.",
        ));
    }
    place.put_manifest(&backup.manifest, &bytes).await?;
    let owner = place.become_owner(&cluster).await?;
    if owner != cluster {
        return Err(not_empty(place, OWNER));
    }
    place.delete(vec![PLACE.into()]).await?;
    Ok(copy.told)
}

/// Refuses a place that is no live store: backups, or a restore that was not finished. For those
/// who would write there.
pub async fn check_live(store: &CheckpointStore) -> Result<()> {
    let Some(place) = store.place().await? else {
        return Ok(());
    };
    let (url, cluster) = (store.url(), &place.cluster);
    Err(match place.restores {
        None => refused(format!(
            "checkpoint store {url} is a backup of cluster {cluster}"
        ))
        .with_detail("A server would change it, and the next backup what the server has.")
        .with_hint(format!(
            "Copy it to an empty place, and start with that: tidemark restore {url} \
                 --checkpoint-url URL."
        )),
        Some(manifest) => refused(format!("checkpoint store {url} is not restored completely"))
            .with_detail(format!(
                "Copying {manifest} of cluster {cluster} to it has begun and did not end."
            ))
            .with_hint("Run the same tidemark restore again: it goes on."),
    })
}

/// A copy under way.
struct Copy<'a> {
    from: &'a CheckpointStore,
    to: &'a CheckpointStore,
    tells: Told<'a>,
    told: Copied,
    /// What was copied.
    done: BTreeSet<String>,
}

impl<'a> Copy<'a> {
    fn new(
        from: &'a CheckpointStore,
        to: &'a CheckpointStore,
        tells: Told<'a>,
        cluster: String,
    ) -> Copy<'a> {
        let told = Copied {
            cluster,
            ..Copied::default()
        };
        Copy {
            from,
            to,
            tells,
            told,
            done: BTreeSet::new(),
        }
    }

    /// Copies what a manifest names and the target does not have. Returns the name of a file that
    /// is not there to be copied, if it meets one.
    async fn run(&mut self, manifest: &Manifest) -> Result<Option<String>> {
        let present: BTreeMap<String, u64> = files_of(self.to).await?.into_iter().collect();
        let named: BTreeMap<&str, Object> = manifest.objects().map(|o| (o.path, o)).collect();
        self.told.epoch = manifest.epoch.0;
        self.told.clock = manifest.clock;
        self.told.files = named.len() as u64;
        self.told.bytes = named.values().map(|o| o.bytes).sum();
        let is_present = |o: &Object| present.get(o.path) == Some(&o.bytes);
        let before = named.values().filter(|o| is_present(o));
        let before = before.filter(|o| !self.done.contains(o.path));
        self.told.present_bytes = before.map(|o| o.bytes).sum();
        (self.tells)(&self.told);
        let wanted = named.into_values().filter(|o| !is_present(o));
        // Of another size there: damaged.
        let wanted = wanted.map(|o| (o, present.contains_key(o.path)));
        let (large, small): (Vec<_>, Vec<_>) = wanted.partition(|(o, _)| o.bytes >= LARGE);
        for (objects, at_a_time) in [(large, LARGE_AT_A_TIME), (small, SMALL_AT_A_TIME)] {
            let (from, to) = (self.from, self.to);
            let copies = objects.into_iter().map(|(object, replaces)| async move {
                let copied = copy_one(from, to, object, replaces).await?;
                Ok::<_, Error>((object, copied))
            });
            let mut copies = stream::iter(copies).buffer_unordered(at_a_time);
            while let Some((object, copied)) = copies.try_next().await? {
                if !copied {
                    return Ok(Some(object.path.to_string()));
                }
                self.done.insert(object.path.to_string());
                self.told.copied_files += 1;
                self.told.copied_bytes += object.bytes;
                (self.tells)(&self.told);
            }
        }
        Ok(None)
    }

    /// What is to be deleted once this manifest counts, in this order; none if something that it
    /// names is not there any more (another backup's end has deleted it).
    async fn garbage(&self, manifest: &Manifest) -> Result<Option<Vec<String>>> {
        let mut garbage = self.to.list(BACKUPS).await?;
        let (path, mut named) = (manifest.path(), BTreeSet::from_iter(manifest.paths()));
        named.insert(&path);
        let mut met = 0;
        for (name, _) in files_of(self.to).await? {
            match named.contains(name.as_str()) {
                true => met += 1,
                false => garbage.push(name),
            }
        }
        Ok((met == named.len()).then_some(garbage))
    }
}

/// The files of a place, with their sizes.
async fn files_of(store: &CheckpointStore) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        files.extend(store.list_sizes(folder).await?);
    }
    Ok(files)
}

/// Copies one file; `false` if it is not there. `replaces`: the target has another one of its name.
async fn copy_one(
    from: &CheckpointStore,
    to: &CheckpointStore,
    object: Object<'_>,
    replaces: bool,
) -> Result<bool> {
    let Object { path, bytes, crc32 } = object;
    let Some(content) = from.get_if_present(path).await? else {
        return Ok(false);
    };
    check_whole(path, &content, bytes, crc32)
        .map_err(|e| e.context(format!("checkpoint store {}", from.url())))?;
    if replaces {
        to.delete(vec![path.to_string()]).await?;
    }
    to.put_new(path, content).await?;
    Ok(true)
}

impl CheckpointStore {
    async fn place(&self) -> Result<Option<Place>> {
        let bytes = self.get_if_present(PLACE).await?;
        bytes.map(|bytes| decoded(self, PLACE, &bytes)).transpose()
    }

    /// The valid backup of this place, with its number.
    async fn newest_backup(&self) -> Result<Option<(u64, String)>> {
        let names = self.list(BACKUPS).await?;
        let numbered = names
            .into_iter()
            .filter_map(|name| Some((number_of(&name)?, name)));
        Ok(numbered.max())
    }

    /// Puts a manifest there; a damaged one of that name is replaced.
    async fn put_manifest(&self, path: &str, bytes: &Bytes) -> Result<()> {
        match self.get_if_present(path).await? {
            Some(found) if found == *bytes => return Ok(()),
            Some(_) => self.delete(vec![path.to_string()]).await?,
            None => {}
        }
        self.put_new(path, bytes.clone()).await
    }
}

fn path_of(number: u64) -> String {
    format!("{BACKUPS}/{number:020}.json")
}

fn number_of(path: &str) -> Option<u64> {
    let name = path.strip_prefix(BACKUPS)?.strip_prefix('/')?;
    name.strip_suffix(".json")?.parse().ok()
}

fn encoded(said: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec_pretty(said);
    let bytes = bytes.map_err(|e| Error::internal(format!("an object of backups: {e}")))?;
    Ok(bytes.into())
}

fn decoded<T: for<'de> Deserialize<'de>>(
    store: &CheckpointStore,
    path: &str,
    bytes: &[u8],
) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::corrupt(format!("{path} of {} is damaged", store.url())).with_detail(format!("{e}."))
    })
}

/// The cluster of a live store that has checkpoints.
async fn live_cluster(live: &CheckpointStore) -> Result<String> {
    if live.place().await?.is_some() {
        return Err(refused(format!("{} is a backup itself", live.url()))
            .with_hint("Give the --checkpoint-url of the cluster."));
    }
    match live.owner().await? {
        Some(cluster) => Ok(cluster),
        None if live.is_empty().await? => Err(no_checkpoint(live)),
        None => Err(Error::corrupt(format!(
            "checkpoint store {}: {OWNER} is missing, which names its cluster",
            live.url()
        ))
        .with_detail(NOT_WHOLE)
        .with_hint(SAVE_FIRST)),
    }
}

/// Makes `target` a place of backups of `cluster`, if it is empty.
async fn become_target(target: &CheckpointStore, cluster: &str) -> Result<()> {
    let url = target.url();
    let mine = Place {
        cluster: cluster.to_string(),
        restores: None,
    };
    let found = match target.place().await? {
        Some(found) => found,
        None => {
            if let Some(owner) = target.owner().await? {
                return Err(
                    refused(format!("{url} is the checkpoint store of cluster {owner}"))
                        .with_hint("Choose another place for the backup."),
                );
            }
            if !target.is_empty().await? {
                return Err(refused(format!("{url} has checkpoints that are no backup"))
                    .with_hint("Choose another place for the backup, or empty this one."));
            }
            if target.put_if_absent(PLACE, encoded(&mine)?).await? {
                return Ok(());
            }
            // Somebody was quicker.
            target.place().await?.unwrap_or_else(|| mine.clone())
        }
    };
    match found {
        found if found == mine => Ok(()),
        Place {
            restores: Some(_), ..
        } => check_live(target).await,
        found => Err(refused(format!(
            "{url} has the backup of another cluster: of {}, and this one is {cluster}",
            found.cluster
        ))
        .with_hint("Give each cluster a place of its own for its backups.")),
    }
}

/// The backup that counts, and whose it is.
async fn found_backup(backups: &CheckpointStore) -> Result<(String, Backup)> {
    let url = backups.url();
    let place = backups.place().await?.filter(|p| p.restores.is_none());
    let Some(place) = place else {
        let error = refused(format!("there is no backup in {url}"));
        return Err(match backups.owner().await? {
            Some(owner) => error
                .with_detail(format!("It is the checkpoint store of cluster {owner}."))
                .with_hint("tidemark backup makes a backup of it."),
            None => error.with_hint("Give the URL that tidemark backup was given."),
        });
    };
    let Some((_, path)) = backups.newest_backup().await? else {
        return Err(refused(format!("no backup in {url} was ever finished"))
            .with_hint("Run tidemark backup again: it goes on with what was copied."));
    };
    let backup = decoded(backups, &path, &backups.get(&path).await?)?;
    Ok((place.cluster, backup))
}

/// Marks an empty place as one that a backup is being copied to; one where the same was begun is as
/// good.
async fn begin_restore(place: &CheckpointStore, restores: &Place) -> Result<()> {
    if place.place().await?.as_ref() == Some(restores) {
        return Ok(());
    }
    if let Some(object) = place.any_object().await? {
        return Err(not_empty(place, &object));
    }
    match place.put_if_absent(PLACE, encoded(restores)?).await? {
        true => Ok(()),
        false => Err(not_empty(place, PLACE)),
    }
}

fn refused(message: String) -> Error {
    Error::user(SqlState::OBJECT_NOT_READY, message)
}

fn no_checkpoint(live: &CheckpointStore) -> Error {
    refused(format!("there is no checkpoint in {}", live.url())).with_hint(
        "Give the --checkpoint-url of the cluster; without one, its checkpoints are in the folder \
         checkpoints of its data folder.",
    )
}

fn not_empty(place: &CheckpointStore, object: &str) -> Error {
    refused(format!("{} is not empty: it has {object}", place.url()))
        .with_hint("A backup is restored to a place where nothing is: choose another one.")
}

fn missing(live: &CheckpointStore, file: &str, manifest: &Manifest) -> Error {
    Error::corrupt(format!(
        "checkpoint store {}: file {file} of checkpoint {} is missing",
        live.url(),
        manifest.epoch
    ))
    .with_detail(NOT_WHOLE)
    .with_hint(SAVE_FIRST)
}

#[cfg(test)]
mod tests;
