//! Power failures: a disk that forgets what was not synced, or keeps any part of it, at each step
//! of several checkpoints. Whatever is left, a manifest that was written names files that are there
//! and whole; and no object that is there is less than whole.

use super::super::disk::Disk;
use super::super::*;
use crate::manifest::Manifest;
use crate::{TableDelta, TableForm};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use tidemark_common::RelationId;
use tidemark_common::random::Random;

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Folder,
    File(usize),
}

/// What the disk holds in memory and what it holds for good. Folders are known by their paths,
/// files by number.
#[derive(Clone, Default)]
struct Model {
    names: BTreeMap<PathBuf, Item>,
    durable_names: BTreeMap<PathBuf, Item>,
    contents: Vec<(Vec<u8>, bool)>,
}

impl Model {
    /// Writes what a power failure leaves into `folder`; `keeps` decides for each name and content
    /// that was not synced.
    fn leave(&self, root: &FilePath, folder: &FilePath, mut keeps: impl FnMut() -> bool) {
        let mut left = self.durable_names.clone();
        left.retain(|path, item| self.names.get(path) == Some(item) || keeps());
        for (path, item) in &self.names {
            if !left.contains_key(path) && keeps() {
                left.insert(path.clone(), *item);
            }
        }
        fs::create_dir_all(folder).unwrap();
        // In the order of paths a folder comes before what is in it; without it that is gone, too.
        for (path, item) in left {
            let at = folder.join(path.strip_prefix(root).unwrap());
            match item {
                Item::Folder => drop(fs::create_dir(&at)),
                Item::File(number) => {
                    let (bytes, synced) = &self.contents[number];
                    let whole = *synced || keeps();
                    let bytes = &bytes[..if whole { bytes.len() } else { bytes.len() / 2 }];
                    drop(fs::write(&at, bytes));
                }
            }
        }
    }
}

/// Does what it is told in memory and for real, and remembers the model after each step.
#[derive(Default)]
struct Losing {
    history: Mutex<Vec<Model>>,
}

impl Losing {
    fn step<T>(&self, done: io::Result<T>, change: impl FnOnce(&mut Model)) -> io::Result<T> {
        if done.is_ok() {
            let mut history = self.history.lock();
            let mut model = history.last().cloned().unwrap_or_default();
            change(&mut model);
            history.push(model);
        }
        done
    }
}

impl std::fmt::Debug for Losing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Losing")
    }
}

impl Disk for Arc<Losing> {
    fn create_folder(&self, path: &FilePath) -> io::Result<()> {
        self.step(RealDisk.create_folder(path), |m| {
            m.names.insert(path.into(), Item::Folder);
        })
    }

    fn write_new(&self, path: &FilePath, bytes: &[u8]) -> io::Result<()> {
        self.step(RealDisk.write_new(path, bytes), |m| {
            m.names.insert(path.into(), Item::File(m.contents.len()));
            m.contents.push((bytes.to_vec(), false));
        })
    }

    fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.step(RealDisk.link(from, to), |m| {
            let item = m.names[from];
            m.names.insert(to.into(), item);
        })
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        self.step(RealDisk.remove(path), |m| {
            m.names.remove(path);
        })
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        self.step(RealDisk.sync(path), |m| {
            if let Some(Item::File(number)) = m.names.get(path) {
                m.contents[*number].1 = true;
                return;
            }
            let inside = |p: &PathBuf| p.parent() == Some(path);
            m.durable_names.retain(|p, _| !inside(p));
            let now = m.names.iter().filter(|(p, _)| inside(p));
            m.durable_names.extend(now.map(|(p, i)| (p.clone(), *i)));
        })
    }
}

fn delta(spec: &TableSpec, from: i64) -> TableDelta {
    let rows = Int64Array::from_iter_values(from..from + 20);
    TableDelta {
        upserts: RecordBatch::try_new(spec.schema.clone(), vec![Arc::new(rows)]).unwrap(),
        upsert_vnodes: vec![0; 20],
        deletes: RecordBatch::new_empty(spec.schema.clone()),
        delete_vnodes: Vec::new(),
    }
}

/// Two checkpoints of two tables, one of which begins with the second one. Returns each manifest
/// with the number of steps after which it was written.
async fn checkpoints(store: &CheckpointStore, disk: &Losing) -> Vec<(usize, Manifest)> {
    let spec = TableSpec {
        table: 0,
        form: TableForm::Keyed,
        schema: Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)])),
        key_columns: 1,
    };
    let mut written = Vec::new();
    store.become_owner("a").await.unwrap();
    let mut manifest = Manifest {
        version: crate::manifest::MANIFEST_VERSION,
        generation: 1,
        ..Manifest::default()
    };
    for (epoch, relations) in [(Epoch(3), 1..2), (Epoch(5), 1..3)] {
        for relation in relations {
            let table = TableId {
                relation: RelationId(relation),
                table: 0,
            };
            let encoded = encode_delta(&spec, delta(&spec, epoch.0 as i64)).unwrap();
            let file = store
                .write_file(table, 0, 0, epoch, 1, encoded)
                .await
                .unwrap();
            let files = manifest.tables.entry(table.to_string()).or_default();
            files.push(file);
        }
        manifest.epoch = epoch;
        store.write_manifest(&manifest).await.unwrap();
        written.push((disk.history.lock().len(), manifest.clone()));
    }
    written
}

#[tokio::test]
async fn what_a_manifest_names_survives_a_power_failure() {
    let base = std::env::temp_dir().join(format!("tidemark-power-{}", std::process::id()));
    let _ = fs::remove_dir_all(&base);
    let root = base.join("live").join("checkpoints");
    fs::create_dir_all(&root).unwrap();
    let disk = Arc::new(Losing::default());
    let mut store = CheckpointStore::open(&format!("file://{}", root.display())).unwrap();
    store.folder = Some(Arc::new(Folder::new(root.clone(), Box::new(disk.clone()))));
    let written = checkpoints(&store, &disk).await;

    let history = disk.history.lock().clone();
    assert!(history.len() > 40, "{} steps", history.len());
    let (live, mut random) = (base.join("live"), Random(1));
    for (steps, model) in history.iter().enumerate().map(|(i, m)| (i + 1, m)) {
        for attempt in 0..6 {
            let left = base.join(format!("{steps}-{attempt}"));
            model.leave(&live, &left, || {
                // First nothing that was not synced is kept, last everything.
                attempt == 5 || (attempt > 0 && random.one_in(2))
            });
            let committed = written.iter().filter(|(at, _)| *at <= steps);
            check(&left.join("checkpoints"), committed.map(|(_, m)| m)).await;
            fs::remove_dir_all(&left).unwrap();
        }
    }
    fs::remove_dir_all(&base).unwrap();
}

async fn check(folder: &FilePath, committed: impl Iterator<Item = &Manifest>) {
    let store = CheckpointStore::open(&format!("file://{}", folder.display())).unwrap();
    for manifest in committed {
        let read = store.read_manifest(&manifest.path()).await.unwrap();
        assert_eq!(&read, manifest);
    }
    // Also one that was not written to the end, if it is there.
    store.owner().await.unwrap();
    for path in store.list_manifests().await.unwrap() {
        let manifest = store.read_manifest(&path).await.unwrap();
        for file in manifest.files() {
            store.read_file(file).await.unwrap();
        }
    }
}
