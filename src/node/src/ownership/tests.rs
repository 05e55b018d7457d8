//! Every meeting of a folder and a store: what is taken, what is refused and with which sentence.

use super::*;
use std::fs;
use tidemark_common::Epoch;
use tidemark_control::Cut;
use tidemark_state::manifest::{MANIFEST_VERSION, Manifest};

/// A folder of its own for each test, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("tidemark-own-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn folder(&self, name: &str) -> DataFolder {
        DataFolder::lock(&self.0.join(name)).unwrap()
    }

    /// What `cp -a` makes of a data folder.
    fn copy(&self, from: &str, to: &str) -> DataFolder {
        let to = self.0.join(to);
        fs::create_dir_all(&to).unwrap();
        for name in ["CLUSTER", "CLAIM"] {
            fs::copy(self.0.join(from).join(name), to.join(name)).unwrap();
        }
        DataFolder::lock(&to).unwrap()
    }

    fn store(&self, name: &str) -> CheckpointStore {
        CheckpointStore::open(&format!("file://{}", self.0.join(name).display())).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A log, as far as it matters here.
#[derive(Clone, Default)]
struct Log(Vec<(u64, Entry)>);

impl Log {
    fn push(&mut self, entry: Entry) {
        self.0.push((self.0.len() as u64 + 1, entry));
    }

    fn decide(&mut self, epoch: u64) {
        self.push(Entry::Cut(Cut::new(
            Epoch(epoch),
            0,
            Default::default(),
            Vec::new(),
        )));
    }

    fn known(&self) -> LogKnowledge<'_> {
        LogKnowledge {
            entries: &self.0,
            is_lost: false,
            is_new: false,
            of_group: false,
        }
    }

    /// Decides an epoch and commits a checkpoint of it.
    async fn checkpoint(&mut self, store: &CheckpointStore, generation: u64, epoch: u64) {
        self.decide(epoch);
        let path = write_manifest(store, generation, epoch, self.0.len()).await;
        self.push(Entry::Checkpoint {
            epoch: Epoch(epoch),
            manifest: path,
            contains: 0,
        });
    }
}

async fn write_manifest(
    store: &CheckpointStore,
    generation: u64,
    epoch: u64,
    log_index: usize,
) -> String {
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        epoch: Epoch(epoch),
        generation,
        log_index: log_index as u64,
        ..Manifest::default()
    };
    store.write_manifest(&manifest).await.unwrap()
}

/// A whole start; logs the generation, which it returns.
async fn start(
    folder: &DataFolder,
    store: &CheckpointStore,
    log: &mut Log,
    recover: bool,
) -> Result<Ownership> {
    let looked = look(folder, store, &log.known(), recover).await?;
    let recovered = Recovered::read(log.0.clone(), store).await?;
    let owned = looked.claim(folder, store, &recovered).await?;
    log.push(Entry::Opened {
        generation: owned.lineage.own().generation,
    });
    Ok(owned)
}

async fn refusal(folder: &DataFolder, store: &CheckpointStore, log: &Log) -> String {
    let error = start(folder, store, &mut log.clone(), false).await.err();
    let error = error.expect("the start is refused");
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_cluster_keeps_its_store_and_its_generations_rise() {
    let place = Place::new("rise");
    let (folder, store, mut log) = (place.folder("a"), place.store("s"), Log::default());
    let first = start(&folder, &store, &mut log, false).await.unwrap();
    assert_eq!(store.owner().await.unwrap(), Some(first.cluster.clone()));
    log.checkpoint(&store, 1, 5).await;
    for generation in 2..4 {
        let again = start(&folder, &store, &mut log, false).await.unwrap();
        assert_eq!(again.cluster, first.cluster);
        assert_eq!(again.lineage.own().generation, generation);
        assert!(again.lineage.owns(1, again.lineage.own().at_micros));
    }
    // A start that ends between its claim and the log is no other server.
    let looked = look(&folder, &store, &log.known(), false).await.unwrap();
    let recovered = Recovered::read(log.0.clone(), &store).await.unwrap();
    looked.claim(&folder, &store, &recovered).await.unwrap();
    let after = start(&folder, &store, &mut log, false).await.unwrap();
    assert_eq!(after.lineage.own().generation, 5);
    // Without its name the store is known by the checkpoint that the log names.
    fs::remove_file(place.0.join("s/CLUSTER")).unwrap();
    start(&folder, &store, &mut log, false).await.unwrap();
    assert_eq!(store.owner().await.unwrap(), Some(first.cluster.clone()));
    // And the folder by the store.
    fs::remove_file(place.0.join("a/CLUSTER")).unwrap();
    let named = start(&folder, &store, &mut log, false).await.unwrap();
    assert_eq!(named.cluster, first.cluster);
}

#[tokio::test]
async fn a_store_of_another_cluster_is_refused() {
    let place = Place::new("other");
    let (store, mut log) = (place.store("s"), Log::default());
    start(&place.folder("a"), &store, &mut log, false)
        .await
        .unwrap();
    log.checkpoint(&store, 1, 5).await;

    // A new folder, and one with a cluster of its own.
    let text = refusal(&place.folder("b"), &store, &Log::default()).await;
    assert!(
        text.contains("belongs to cluster") && text.contains("is new"),
        "{text}"
    );
    assert!(
        !place.0.join("b/CLUSTER").exists(),
        "nothing is written by a start that is refused"
    );
    let (other, mut other_log) = (place.folder("c"), Log::default());
    start(&other, &place.store("t"), &mut other_log, false)
        .await
        .unwrap();
    let text = refusal(&other, &store, &other_log).await;
    assert!(
        text.contains("belongs to cluster") && text.contains("is of cluster"),
        "{text}"
    );

    // A store of before there were owners is nobody else's either.
    fs::remove_file(place.0.join("s/CLUSTER")).unwrap();
    let text = refusal(&other, &store, &other_log).await;
    assert!(
        text.contains("has checkpoints that are not this cluster's"),
        "{text}"
    );
    let text = refusal(&place.folder("b"), &store, &Log::default()).await;
    assert!(text.contains("has checkpoints, and data folder"), "{text}");
}

#[tokio::test]
async fn a_store_without_the_last_checkpoint_is_refused() {
    let place = Place::new("elsewhere");
    let (folder, store, mut log) = (place.folder("a"), place.store("s"), Log::default());
    start(&folder, &store, &mut log, false).await.unwrap();
    log.checkpoint(&store, 1, 5).await;
    let text = refusal(&folder, &place.store("t"), &log).await;
    assert!(
        text.contains("does not have manifests/00000000000000000005-1.json"),
        "{text}"
    );
    assert!(!place.0.join("t/CLUSTER").exists());
}

#[tokio::test]
async fn old_copies_are_refused() {
    let place = Place::new("old");
    let (folder, store, mut log) = (place.folder("a"), place.store("s"), Log::default());
    start(&folder, &store, &mut log, false).await.unwrap();
    log.checkpoint(&store, 1, 5).await;
    let (copy, old) = (place.copy("a", "b"), log.clone());
    // The server went on without another start, ...
    log.checkpoint(&store, 1, 9).await;
    // (And needs the checkpoint that the copy knows no more.)
    fs::remove_file(place.0.join("s/manifests/00000000000000000005-1.json")).unwrap();
    let text = refusal(&copy, &store, &old).await;
    assert!(
        text.contains("its log ends with epoch 5") && text.contains("of epoch 9"),
        "{text}"
    );
    // ... or with one.
    start(&folder, &store, &mut log, false).await.unwrap();
    let text = refusal(&copy, &store, &old).await;
    assert!(
        text.contains("is a copy") && text.contains("generation 2 after 1"),
        "{text}"
    );
}

/// Two copies of one folder: the later one fences the earlier one, deletes none of its files, and
/// the earlier one comes back only by its user's deliberate act.
#[tokio::test]
async fn the_later_of_two_copies_has_the_store() {
    let place = Place::new("copies");
    let (folder, store, mut log) = (place.folder("a"), place.store("s"), Log::default());
    let first = start(&folder, &store, &mut log, false).await.unwrap();
    log.checkpoint(&store, 1, 5).await;
    let (copy, mut copied) = (place.copy("a", "b"), log.clone());
    let second = start(&copy, &store, &mut copied, false).await.unwrap();
    assert_eq!(second.cluster, first.cluster);
    let by = store.overtaken(first.lineage.own()).await.unwrap();
    assert_eq!(by.as_ref(), Some(second.lineage.own()));
    assert_eq!(store.overtaken(second.lineage.own()).await.unwrap(), None);
    let now = machine::micros();
    assert!(
        !second.lineage.owns(1, now),
        "files of the first are not the copy's to delete"
    );
    assert!(!first.lineage.owns(2, now));

    let text = refusal(&folder, &store, &log).await;
    assert!(text.contains("generation 2 after 1"), "{text}");
    fs::copy(
        place.0.join("s").join(second.lineage.own().path()),
        place.0.join("a/CLAIM"),
    )
    .unwrap();
    let third = start(&folder, &store, &mut log, false).await.unwrap();
    assert_eq!(third.lineage.own().generation, 3);
    assert!(third.lineage.owns(1, now) && !third.lineage.owns(2, now));
    // The manifests of the one that was overtaken say nothing about this log.
    write_manifest(&store, 2, 700, 0).await;
    log.decide(6);
    start(&folder, &store, &mut log, false).await.unwrap();
}

#[tokio::test]
async fn a_lost_folder_is_replaced_by_an_explicit_word_only() {
    let place = Place::new("lost");
    let (store, mut log) = (place.store("s"), Log::default());
    let first = start(&place.folder("a"), &store, &mut log, false)
        .await
        .unwrap();
    log.checkpoint(&store, 1, 5).await;
    let fresh = place.folder("b");
    refusal(&fresh, &store, &Log::default()).await;
    let mut begun = Log::default();
    let second = start(&fresh, &store, &mut begun, true).await.unwrap();
    assert_eq!(
        (second.cluster.as_str(), second.lineage.own().generation),
        (first.cluster.as_str(), 2)
    );
    // The old folder turns up again.
    let text = refusal(&place.folder("a"), &store, &log).await;
    assert!(text.contains("generation 2 after 1"), "{text}");
}

#[tokio::test]
async fn a_backup_is_no_store_until_it_is_restored() {
    let place = Place::new("backup");
    let (folder, store, mut log) = (place.folder("a"), place.store("s"), Log::default());
    let first = start(&folder, &store, &mut log, false).await.unwrap();
    log.checkpoint(&store, 1, 5).await;
    let (backup, new) = (place.store("b"), place.store("n"));
    backup::back_up(&store, &backup, &|_| {}).await.unwrap();
    let fresh = place.folder("f");
    let error = look(&fresh, &backup, &Log::default().known(), true).await;
    let text = error.err().unwrap().to_string();
    assert!(text.contains("is a backup of cluster"), "{text}");

    backup::restore(&backup, &new, &|_| {}).await.unwrap();
    let text = refusal(&fresh, &new, &Log::default()).await;
    assert!(text.contains("belongs to cluster"), "{text}");
    let again = start(&fresh, &new, &mut Log::default(), true)
        .await
        .unwrap();
    assert_eq!(again.cluster, first.cluster);
    assert_eq!(again.lineage.own().generation, 2);
    assert!(again.lineage.owns(1, machine::micros()));
    // The old folder turns up again.
    let text = refusal(&folder, &new, &log).await;
    assert!(text.contains("generation 2 after 1"), "{text}");
}

#[tokio::test]
async fn a_damaged_log_takes_no_other_clusters_store() {
    let place = Place::new("damaged");
    let (a, b) = (place.folder("a"), place.folder("b"));
    let (own, other) = (place.store("s"), place.store("t"));
    start(&a, &own, &mut Log::default(), false).await.unwrap();
    let owner = start(&b, &other, &mut Log::default(), false).await.unwrap();
    let damaged = LogKnowledge {
        entries: &[],
        is_lost: true,
        is_new: false,
        of_group: false,
    };
    assert!(look(&a, &other, &damaged, true).await.is_err());
    assert_eq!(other.owner().await.unwrap(), Some(owner.cluster));
    assert!(look(&a, &own, &damaged, true).await.is_ok());
}

#[tokio::test]
async fn a_folder_that_claimed_a_store_has_a_log() {
    let place = Place::new("logless");
    let (folder, store) = (place.folder("a"), place.store("s"));
    start(&folder, &store, &mut Log::default(), false)
        .await
        .unwrap();
    let missing = LogKnowledge {
        entries: &[],
        is_lost: false,
        is_new: true,
        of_group: false,
    };
    assert!(look(&folder, &store, &missing, false).await.is_err());
    assert!(look(&folder, &store, &missing, true).await.is_ok());
}

#[test]
fn one_process_holds_a_folder() {
    let place = Place::new("lock");
    let held = place.folder("a");
    let error = DataFolder::lock(&place.0.join("a")).err().unwrap();
    assert!(
        error.to_string().ends_with(&format!(
            "a is in use by another server (process {})",
            std::process::id()
        )),
        "{error}"
    );
    drop(held);
    place.folder("a");
}
