//! What comes of a backup and of a restore, and what is left of the one before when the work ends
//! anywhere.

use super::*;
use crate::checkpoint::FileMeta;
use crate::manifest::MANIFEST_VERSION;
use futures::executor::block_on;
use tidemark_common::{Epoch, RelationId, TableId};

fn memory() -> CheckpointStore {
    CheckpointStore::open("memory:").unwrap()
}

async fn live_store() -> CheckpointStore {
    let store = memory();
    store.become_owner("c").await.unwrap();
    store
}

/// A file of a checkpoint, whose bytes its name makes.
async fn write(store: &CheckpointStore, epoch: u64, name: &str) -> FileMeta {
    let content = format!("rows of {name} {}", "x".repeat(epoch as usize));
    let file = FileMeta {
        path: format!("tables/1-0/1-{epoch}-{name}.parquet"),
        table: TableId {
            relation: RelationId(1),
            table: 0,
        },
        epoch: Epoch(epoch),
        rows: 1,
        deletes: 0,
        bytes: content.len() as u64,
        crc32: crc32fast::hash(content.as_bytes()),
        vnode_min: 0,
        vnode_max: 255,
        footer: None,
    };
    store.put_new(&file.path, content.into()).await.unwrap();
    file
}

async fn commit(store: &CheckpointStore, epoch: u64, files: &[FileMeta]) -> Manifest {
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        epoch: Epoch(epoch),
        generation: 1,
        tables: [("1-0".to_string(), files.to_vec())].into(),
        ..Manifest::default()
    };
    store.write_manifest(&manifest).await.unwrap();
    manifest
}

/// As the cluster does when a newer checkpoint is committed.
async fn collect(store: &CheckpointStore, old: &Manifest, files: &[&FileMeta]) {
    let mut gone: Vec<String> = files.iter().map(|f| f.path.clone()).collect();
    gone.push(old.path());
    store.delete(gone).await.unwrap();
}

async fn names(store: &CheckpointStore) -> Vec<String> {
    let mut names = Vec::new();
    for folder in FOLDERS.iter().chain(&[BACKUPS]) {
        names.extend(store.list(folder).await.unwrap());
    }
    names.sort();
    names
}

async fn damage(store: &CheckpointStore, path: &str, with: &str) {
    store.delete(vec![path.into()]).await.unwrap();
    store.put_new(path, with.to_string().into()).await.unwrap();
}

/// What a restore of the backup in `target` has: the epoch, and that all of its files are right.
async fn restored_epoch(target: &CheckpointStore) -> u64 {
    let place = memory();
    let copied = restore(target, &place, &|_| {}).await.unwrap();
    assert_eq!(place.owner().await.unwrap().as_deref(), Some("c"));
    check_live(&place).await.unwrap();
    let path = place.newest_manifest().await.unwrap().unwrap();
    let manifest = place.read_manifest(&path).await.unwrap();
    for file in manifest.files() {
        place.read_file(file).await.unwrap();
    }
    assert_eq!(copied.epoch, manifest.epoch.0);
    copied.epoch
}

#[tokio::test]
async fn a_second_backup_copies_what_is_new_and_deletes_what_is_old() {
    let (live, target) = (live_store().await, memory());
    let (a, b) = (write(&live, 3, "a").await, write(&live, 3, "b").await);
    let first = commit(&live, 3, &[a.clone(), b.clone()]).await;
    let copied = back_up(&live, &target, &|_| {}).await.unwrap();
    assert_eq!((copied.epoch, copied.files), (3, 2));
    assert_eq!((copied.copied_files, copied.present_bytes), (2, 0));
    assert_eq!(copied.copied_bytes, a.bytes + b.bytes);
    assert_eq!(restored_epoch(&target).await, 3);

    let c = write(&live, 4, "c").await;
    let second = commit(&live, 4, &[b.clone(), c.clone()]).await;
    collect(&live, &first, &[&a]).await;
    let copied = back_up(&live, &target, &|_| {}).await.unwrap();
    assert_eq!((copied.epoch, copied.copied_files), (4, 1));
    assert_eq!(copied.copied_bytes, c.bytes);
    assert_eq!(copied.present_bytes, b.bytes);
    let mut expected = vec![path_of(2), second.path(), b.path.clone(), c.path.clone()];
    expected.sort();
    assert_eq!(names(&target).await, expected);

    // The same once more: nothing to copy.
    let copied = back_up(&live, &target, &|_| {}).await.unwrap();
    assert_eq!((copied.copied_files, copied.bytes), (0, b.bytes + c.bytes));
    assert_eq!(restored_epoch(&target).await, 4);
}

#[tokio::test]
async fn what_vanishes_meanwhile_is_taken_from_a_newer_checkpoint() {
    let (live, target) = (live_store().await, memory());
    let (a, b) = (write(&live, 3, "a").await, write(&live, 3, "b").await);
    let first = commit(&live, 3, &[a.clone(), b.clone()]).await;
    // The files have been listed, and nothing was copied yet.
    let told = |copied: &Copied| {
        if copied.epoch == 3 && copied.copied_files == 0 {
            block_on(async {
                let merged = write(&live, 9, "c").await;
                commit(&live, 9, &[merged]).await;
                collect(&live, &first, &[&a, &b]).await;
            });
        }
    };
    let copied = back_up(&live, &target, &told).await.unwrap();
    assert_eq!((copied.epoch, copied.files), (9, 1));
    assert_eq!(restored_epoch(&target).await, 9);
}

#[tokio::test]
async fn a_file_that_stays_away_is_damage() {
    let (live, target) = (live_store().await, memory());
    let a = write(&live, 3, "a").await;
    commit(&live, 3, std::slice::from_ref(&a)).await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    let b = write(&live, 4, "b").await;
    commit(&live, 4, &[a, b.clone()]).await;
    live.delete(vec![b.path]).await.unwrap();
    let error = back_up(&live, &target, &|_| {}).await.unwrap_err();
    assert_eq!(
        error.message(),
        "checkpoint store memory:: file tables/1-0/1-4-b.parquet of checkpoint 4 is missing"
    );
    assert_eq!(restored_epoch(&target).await, 3);
}

#[tokio::test]
async fn what_the_target_has_is_missed_in_the_store_all_the_same() {
    let (live, target) = (live_store().await, memory());
    let a = write(&live, 3, "a").await;
    commit(&live, 3, std::slice::from_ref(&a)).await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    look_over(&live).await.unwrap();
    live.delete(vec![a.path]).await.unwrap();
    back_up(&live, &target, &|_| {}).await.unwrap();
    let error = look_over(&live).await.unwrap_err();
    assert!(
        error
            .message()
            .contains("1-3-a.parquet of checkpoint 3 is missing"),
        "{error}"
    );
    write(&live, 3, "a").await;
    look_over(&live).await.unwrap();
}

#[tokio::test]
async fn the_former_backup_is_valid_until_the_next_one_is() {
    let (live, target) = (live_store().await, memory());
    let a = write(&live, 3, "a").await;
    let first = commit(&live, 3, std::slice::from_ref(&a)).await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    let b = write(&live, 4, "b").await;
    commit(&live, 4, std::slice::from_ref(&b)).await;
    collect(&live, &first, &[&a]).await;
    {
        let _cut_off = failpoint::scoped("backup.valid=error");
        back_up(&live, &target, &|_| {}).await.unwrap_err();
    }
    assert_eq!(restored_epoch(&target).await, 3);
    {
        let _cut_off = failpoint::scoped("backup.clean=error");
        back_up(&live, &target, &|_| {}).await.unwrap_err();
    }
    assert_eq!(restored_epoch(&target).await, 4);
    assert!(names(&target).await.contains(&a.path), "left behind");
    back_up(&live, &target, &|_| {}).await.unwrap();
    assert!(!names(&target).await.contains(&a.path));
    assert_eq!(restored_epoch(&target).await, 4);
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let (live, target) = (live_store().await, memory());
    let a = write(&live, 3, "a").await;
    commit(&live, 3, std::slice::from_ref(&a)).await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    let b = write(&live, 4, "b").await;
    commit(&live, 4, &[a.clone(), b.clone()]).await;
    damage(&live, &b.path, "something else").await;
    let error = back_up(&live, &target, &|_| {}).await.unwrap_err();
    let told = "checkpoint file tables/1-0/1-4-b.parquet is damaged";
    assert!(error.message().ends_with(told), "{error}");
    assert_eq!(restored_epoch(&target).await, 3);

    // In the backup, when it is restored; of another size, it is copied again by the next one.
    damage(&target, &a.path, "cut").await;
    let place = memory();
    let error = restore(&target, &place, &|_| {}).await.unwrap_err();
    assert!(
        error.message().ends_with("1-3-a.parquet is damaged"),
        "{error}"
    );
    let error = check_live(&place).await.unwrap_err();
    assert!(
        error.message().contains("is not restored completely"),
        "{error}"
    );
    live.delete(vec![b.path.clone()]).await.unwrap();
    write(&live, 4, "b").await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    assert_eq!(restored_epoch(&target).await, 4);
}

#[tokio::test]
async fn a_restore_that_was_cut_off_goes_on() {
    let (live, target, place) = (live_store().await, memory(), memory());
    let (a, b) = (write(&live, 3, "a").await, write(&live, 3, "b").await);
    commit(&live, 3, &[a.clone(), b.clone()]).await;
    back_up(&live, &target, &|_| {}).await.unwrap();
    target.delete(vec![b.path.clone()]).await.unwrap();
    let error = restore(&target, &place, &|_| {}).await.unwrap_err();
    assert!(
        error.message().contains("1-3-b.parquet is missing"),
        "{error}"
    );
    write(&target, 3, "b").await;
    let copied = restore(&target, &place, &|_| {}).await.unwrap();
    assert_eq!(copied.copied_bytes + copied.present_bytes, copied.bytes);
    check_live(&place).await.unwrap();
    place.read_file(&a).await.unwrap();
    place.read_file(&b).await.unwrap();
    // Now it is a live store.
    let error = restore(&target, &place, &|_| {}).await.unwrap_err();
    assert!(error.message().contains("is not empty"), "{error}");
}

#[tokio::test]
async fn places_are_not_mixed_up() {
    let (live, target) = (live_store().await, memory());
    let message = |refused: Result<Copied>| refused.unwrap_err().message().to_string();
    let none = &|_: &Copied| {};
    let nothing = "there is no checkpoint in memory:";
    assert_eq!(message(back_up(&memory(), &target, none).await), nothing);
    assert_eq!(message(back_up(&live, &target, none).await), nothing);
    let a = write(&live, 3, "a").await;
    commit(&live, 3, &[a]).await;
    let unfinished = "no backup in memory: was ever finished";
    assert_eq!(message(restore(&target, &memory(), none).await), unfinished);
    assert_eq!(
        message(back_up(&live, &live, none).await),
        "memory: is the checkpoint store of cluster c"
    );
    back_up(&live, &target, none).await.unwrap();
    let error = check_live(&target).await.unwrap_err();
    assert_eq!(
        error.message(),
        "checkpoint store memory: is a backup of cluster c"
    );
    assert_eq!(
        message(back_up(&target, &memory(), none).await),
        "memory: is a backup itself"
    );

    let other = memory();
    other.become_owner("d").await.unwrap();
    let file = write(&other, 3, "a").await;
    commit(&other, 3, &[file]).await;
    assert_eq!(
        message(back_up(&other, &target, none).await),
        "memory: has the backup of another cluster: of c, and this one is d"
    );
    let nameless = memory();
    write(&nameless, 3, "a").await;
    assert_eq!(
        message(back_up(&nameless, &memory(), none).await),
        "checkpoint store memory:: CLUSTER is missing, which names its cluster"
    );
    assert_eq!(
        message(back_up(&live, &nameless, none).await),
        "memory: has checkpoints that are no backup"
    );
    assert_eq!(
        message(restore(&live, &memory(), none).await),
        "there is no backup in memory:"
    );
    assert_eq!(
        message(restore(&target, &nameless, none).await),
        "memory: is not empty: it has tables/1-0/1-3-a.parquet"
    );
}
