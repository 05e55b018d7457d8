//! Random histories against a map: several checkpoints by several workers, compactions in between,
//! restored by other workers; and what damage looks like.

mod pieces;
mod power;

use super::owner::Lineage;
use super::*;
use crate::garbage::origin_of;
use crate::manifest::Manifest;
use crate::{Appended, TableDelta, TableForm};
use arrow::array::*;
use arrow::datatypes::*;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use tidemark_changelog::{hash_columns, vnode_of_hash};
use tidemark_common::random::Random;
use tidemark_common::{RelationId, VNODES, vnode_owner, vnodes_of};

const TABLE: TableId = TableId {
    relation: RelationId(7),
    table: 2,
};

/// Key (k, s), value (v, i).
type Key = (Option<i64>, String);
type Value = (Option<i64>, i32);

fn spec(key_columns: usize) -> TableSpec {
    let schema = Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, false),
        Field::new("v", DataType::Int64, true),
        Field::new("i", DataType::Interval(IntervalUnit::MonthDayNano), false),
    ]);
    TableSpec {
        table: 2,
        form: TableForm::Keyed,
        schema: Arc::new(schema),
        key_columns,
    }
}

fn batch(spec: &TableSpec, rows: &[(Key, Value)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.0.0).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|r| Some(r.0.1.as_str()))
                .collect::<StringArray>(),
        ),
        Arc::new(rows.iter().map(|r| r.1.0).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|r| Some(IntervalMonthDayNanoType::make_value(r.1.1, -1, 5)))
                .collect::<IntervalMonthDayNanoArray>(),
        ),
    ];
    RecordBatch::try_new(spec.schema.clone(), columns).unwrap()
}

fn rows_of(batch: &RecordBatch) -> Vec<(Key, Value)> {
    let (k, v) = (
        batch.column(0).as_primitive::<Int64Type>(),
        batch.column(2).as_primitive::<Int64Type>(),
    );
    let (s, i) = (
        batch.column(1).as_string::<i32>(),
        batch.column(3).as_primitive::<IntervalMonthDayNanoType>(),
    );
    let opt = |a: &Int64Array, r: usize| a.is_valid(r).then(|| a.value(r));
    (0..batch.num_rows())
        .map(|r| {
            (
                (opt(k, r), s.value(r).to_string()),
                (opt(v, r), i.value(r).months),
            )
        })
        .collect()
}

fn vnodes(spec: &TableSpec, batch: &RecordBatch) -> Vec<u16> {
    hash_columns(&batch.columns()[..spec.key_columns], batch.num_rows())
        .iter()
        .map(|h| vnode_of_hash(*h) as u16)
        .collect()
}

fn delta(spec: &TableSpec, upserts: &[(Key, Value)], deletes: &[Key]) -> TableDelta {
    let upserts = batch(spec, upserts);
    let gone: Vec<(Key, Value)> = deletes.iter().map(|k| (k.clone(), (None, 0))).collect();
    let deletes = batch(spec, &gone)
        .project(&(0..spec.key_columns).collect::<Vec<_>>())
        .unwrap();
    TableDelta {
        upsert_vnodes: vnodes(spec, &upserts),
        delete_vnodes: vnodes(spec, &deletes),
        upserts,
        deletes,
    }
}

async fn restored(
    store: &CheckpointStore,
    files: &[FileMeta],
    spec: &TableSpec,
    range: Range<usize>,
) -> Vec<(Key, Value)> {
    let mut rows = Vec::new();
    let each = |b: RecordBatch| {
        assert_eq!(b.schema(), spec.schema);
        rows.extend(rows_of(&b));
        Ok(())
    };
    store.read_table(files, spec, range, each).await.unwrap();
    rows
}

/// One checkpoint: random upserts and deletes of keys below `keys`, as one file per worker.
async fn checkpoint(
    store: &CheckpointStore,
    spec: &TableSpec,
    model: &mut BTreeMap<Key, Value>,
    random: &mut Random,
    epoch: u64,
    keys: u64,
) -> Vec<FileMeta> {
    let workers = 1 + random.below_u64(3) as usize;
    let mut changed: BTreeMap<Key, Option<Value>> = BTreeMap::new();
    for _ in 0..random.below_u64(300) {
        let k = random.below_u64(keys) as i64 - 20;
        let key = if spec.key_columns == 1 {
            ((k % 50 != 0).then_some(k), String::new())
        } else {
            ((k % 7 != 0).then_some(k / 10), "x".repeat(k as usize % 40))
        };
        changed.insert(
            key,
            (random.below_u64(3) > 0).then(|| {
                (
                    Some(random.below_u64(1000) as i64).filter(|v| v % 5 > 0),
                    random.below_u64(9) as i32,
                )
            }),
        );
    }
    let mut parts: Vec<(Vec<(Key, Value)>, Vec<Key>)> = vec![Default::default(); workers];
    for (key, value) in changed {
        let vnode = vnodes(spec, &batch(spec, &[(key.clone(), (None, 0))]))[0];
        let part = &mut parts[vnode_owner(vnode as usize, workers)];
        match value {
            Some(value) => {
                model.insert(key.clone(), value);
                part.0.push((key, value));
            }
            None => {
                model.remove(&key);
                part.1.push(key);
            }
        }
    }
    let mut files = Vec::new();
    for (worker, (upserts, deletes)) in parts.into_iter().enumerate() {
        let file = encode_delta(spec, delta(spec, &upserts, &deletes)).unwrap();
        assert_eq!(
            (file.rows, file.deletes),
            ((upserts.len() + deletes.len()) as u64, deletes.len() as u64)
        );
        files.push(
            store
                .write_file(TABLE, worker, 0, Epoch(epoch), 1, file)
                .await
                .unwrap(),
        );
    }
    files
}

async fn history(seed: u64, key_columns: usize) {
    let (store, spec, mut random) = (
        CheckpointStore::open("memory:").unwrap(),
        spec(key_columns),
        Random(seed),
    );
    let (mut files, mut model) = (Vec::<FileMeta>::new(), BTreeMap::new());
    for epoch in 1..=40u64 {
        let keys = if epoch < 20 { 2000 } else { 300 };
        files.extend(checkpoint(&store, &spec, &mut model, &mut random, epoch, keys).await);
        if let Some(compaction) = plan_compaction(&files).filter(|_| random.below_u64(3) == 0) {
            let merged = store
                .compact(&compaction, &spec, 1, Epoch(epoch + 1))
                .await
                .unwrap();
            files.retain(|f| !compaction.files.contains(f));
            for merged in merged {
                assert!(!compaction.includes_oldest || merged.deletes == 0);
                files.insert(random.below_u64(files.len() as u64 + 1) as usize, merged);
            }
        }
        let readers = 1 + random.below_u64(4) as usize;
        let mut rows = Vec::new();
        for reader in 0..readers {
            let range = vnodes_of(reader, readers);
            let part = restored(&store, &files, &spec, range.clone()).await;
            rows.extend(part);
        }
        rows.sort();
        assert_eq!(
            rows,
            model.clone().into_iter().collect::<Vec<_>>(),
            "seed {seed}, epoch {epoch}"
        );
    }
}

#[tokio::test]
async fn any_history_reads_back() {
    for seed in 1..=6 {
        history(seed, 1).await;
        history(seed * 1000, 2).await;
    }
}

#[tokio::test]
async fn row_groups_hold_a_vnode_range_and_plain_readers_see_the_documented_columns() {
    let (store, spec) = (CheckpointStore::open("memory:").unwrap(), spec(1));
    let rows: Vec<_> = (0..200_000)
        .rev()
        .map(|k| ((Some(k), String::new()), (Some(k), 1)))
        .collect();
    let file = store
        .write_file(
            TABLE,
            0,
            0,
            Epoch(3),
            9,
            encode_delta(&spec, delta(&spec, &rows, &[(None, String::new())])).unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        (file.path.as_str(), file.rows, file.deletes),
        ("tables/7-2/9-3-0.parquet", 200_001, 1)
    );
    assert_eq!((file.vnode_min, file.vnode_max), (0, 255));
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(store.read_file(&file).await.unwrap()).unwrap();
    let names: Vec<_> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.is_nullable()))
        .collect();
    assert_eq!(
        names,
        [
            ("_vnode", false),
            ("_deleted", false),
            ("k", true),
            ("s", true),
            ("v", true),
            ("i", true)
        ]
    );
    assert_eq!(reader.metadata().num_row_groups(), 4);
    let mut last = (0, i64::MIN);
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let (v, d, k) = (
            batch.column(0).as_primitive::<UInt16Type>(),
            batch.column(1).as_boolean(),
            batch.column(2).as_primitive::<Int64Type>(),
        );
        for i in 0..batch.num_rows() {
            assert_eq!(d.value(i), k.is_null(i));
            let at = (v.value(i), if k.is_null(i) { i64::MAX } else { k.value(i) });
            assert!(at > last, "sorted by vnode, then key");
            last = at;
        }
    }
    let mine: Vec<_> = restored(&store, std::slice::from_ref(&file), &spec, 10..20).await;
    assert_eq!(
        mine.len(),
        vnodes(&spec, &batch(&spec, &rows))
            .iter()
            .filter(|v| (10..20).contains(*v))
            .count()
    );
}

#[tokio::test]
async fn appended_rows_become_files_of_whole_vnodes() {
    let store = CheckpointStore::open("memory:").unwrap();
    let fields = vec![
        Field::new("_seq", DataType::Int64, false),
        Field::new("s", DataType::Binary, true),
    ];
    let spec = TableSpec {
        table: 2,
        form: TableForm::Appended,
        schema: Arc::new(Schema::new(fields)),
        key_columns: 1,
    };
    let mut random = Random(99);
    let rows = 150_000;
    let vnodes: Vec<u16> = (0..rows)
        .map(|_| 64 + random.below_u64(64) as u16)
        .collect();
    // What cannot be compressed, so that several files are needed.
    let text: Vec<u8> = (0..100_000)
        .flat_map(|_| random.below_u64(u64::MAX).to_le_bytes())
        .collect();
    let value = |row: u32| &text[row as usize * 5..row as usize * 5 + 600 - row as usize % 7];
    let read = |rows: Vec<u32>| -> Option<Vec<ArrayRef>> {
        assert!(rows.len() <= 16 * 1024);
        Some(vec![
            Arc::new(
                rows.iter()
                    .map(|r| i64::from(*r) + 1000)
                    .collect::<Int64Array>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|r| Some(value(*r)))
                    .collect::<BinaryArray>(),
            ),
        ])
    };
    let appended = Appended {
        first: 5,
        first_seq: 1000,
        vnodes: vnodes.clone(),
    };
    let mut encoded = Vec::new();
    encode_appended(&spec, &appended, read, |file| {
        encoded.push(file);
        Ok(())
    })
    .unwrap();
    assert!(encoded.len() > 1, "{} files", encoded.len());
    assert!(
        encoded.windows(2).all(|w| w[0].vnode_max < w[1].vnode_min),
        "no vnode is in two files"
    );
    let mut files = Vec::new();
    for (part, file) in encoded.into_iter().enumerate() {
        files.push(
            store
                .write_file(TABLE, 1, part, Epoch(4), 1, file)
                .await
                .unwrap(),
        );
    }
    assert_eq!(
        (files[0].path.as_str(), files[1].path.as_str()),
        ("tables/7-2/1-4-1.parquet", "tables/7-2/1-4-1-1.parquet")
    );
    assert_eq!(origin_of(&files[1].path).map(|(_, e)| e), Some(Epoch(4)));
    let mut met = vec![false; rows];
    let each = |batch: RecordBatch| {
        for (seq, s) in batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .zip(batch.column(1).as_binary::<i32>())
        {
            let row = (seq - 1000) as u32;
            assert_eq!(s, Some(value(row)));
            assert!(!std::mem::replace(&mut met[row as usize], true));
        }
        Ok(())
    };
    store
        .read_table(&files, &spec, 0..VNODES, each)
        .await
        .unwrap();
    assert!(met.iter().all(|m| *m));
    let mut none = 0;
    encode_appended(
        &spec,
        &appended,
        |_| None,
        |_| {
            none += 1;
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(none, 0, "a table that is gone gives no file");
}

#[tokio::test]
async fn damage_is_reported_by_name() {
    let folder = std::env::temp_dir().join(format!("tidemark-checkpoint-{}", std::process::id()));
    let store = CheckpointStore::open(&format!("file://{}", folder.display())).unwrap();
    let spec = spec(2);
    let encoded = encode_delta(
        &spec,
        delta(&spec, &[((Some(1), "a".into()), (None, 2))], &[]),
    )
    .unwrap();
    let file = store
        .write_file(TABLE, 1, 0, Epoch(5), 1, encoded.clone())
        .await
        .unwrap();
    assert_eq!(
        store
            .write_file(TABLE, 1, 0, Epoch(5), 1, encoded)
            .await
            .unwrap(),
        file,
        "the same again is harmless"
    );
    let other = encode_delta(&spec, delta(&spec, &[], &[(Some(1), "b".into())])).unwrap();
    let error = store
        .write_file(TABLE, 1, 0, Epoch(5), 1, other)
        .await
        .unwrap_err();
    assert_eq!(
        error.message(),
        "checkpoint file tables/7-2/1-5-1.parquet exists with other content"
    );
    assert_eq!(
        restored(&store, std::slice::from_ref(&file), &spec, 0..VNODES)
            .await
            .len(),
        1
    );
    let path = folder.join(&file.path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = store
        .read_table(std::slice::from_ref(&file), &spec, 0..VNODES, |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(
        (error.message(), error.state().0),
        (
            "checkpoint file tables/7-2/1-5-1.parquet is damaged",
            "XX001"
        )
    );
    std::fs::remove_file(&path).unwrap();
    let error = store
        .read_table(&[file], &spec, 0..VNODES, |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(
        (error.message(), error.state().0),
        (
            "checkpoint file tables/7-2/1-5-1.parquet is missing",
            "XX001"
        )
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_column_of_another_type_is_refused() {
    let (store, narrow) = (CheckpointStore::open("memory:").unwrap(), spec(1));
    let encoded = encode_delta(
        &narrow,
        delta(&narrow, &[((Some(1), String::new()), (None, 2))], &[]),
    )
    .unwrap();
    let file = store
        .write_file(TABLE, 0, 0, Epoch(1), 1, encoded)
        .await
        .unwrap();
    let schema = Schema::new(vec![Field::new("k", DataType::Int32, true)]);
    let wide = TableSpec {
        table: 2,
        form: TableForm::Keyed,
        schema: Arc::new(schema),
        key_columns: 1,
    };
    let error = store
        .read_table(&[file], &wide, 0..VNODES, |_| Ok(()))
        .await
        .unwrap_err();
    assert_eq!(
        error.message(),
        "checkpoint file tables/7-2/1-1-0.parquet: column \"k\" is Int64, the table has Int32"
    );
}

/// A file of two columns, `_seq` and `v`, written by a table of this form.
async fn numbered_file(
    store: &CheckpointStore,
    spec: &TableSpec,
    epoch: u64,
    rows: &[(i64, i64)],
) -> FileMeta {
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let columns = vec![
        column(rows.iter().map(|r| r.0).collect()),
        column(rows.iter().map(|r| r.1).collect()),
    ];
    let upserts = RecordBatch::try_new(spec.schema.clone(), columns).unwrap();
    let encoded = encode_delta(
        spec,
        TableDelta {
            upsert_vnodes: vnodes(spec, &upserts),
            deletes: upserts.project(&[0]).unwrap().slice(0, 0),
            delete_vnodes: Vec::new(),
            upserts,
        },
    )
    .unwrap();
    store
        .write_file(TABLE, 0, 0, Epoch(epoch), 1, encoded)
        .await
        .unwrap()
}

/// A table of two columns, `_seq` and `v`.
fn numbered_spec(form: TableForm) -> TableSpec {
    let fields = ["_seq", "v"].map(|name| Field::new(name, DataType::Int64, true));
    TableSpec {
        table: 2,
        form,
        schema: Arc::new(Schema::new(fields.to_vec())),
        key_columns: 1,
    }
}

#[tokio::test]
async fn what_a_table_is_does_not_hang_on_the_name_of_its_key() {
    let store = CheckpointStore::open("memory:").unwrap();
    let spec = numbered_spec(TableForm::Keyed);
    let files = [
        numbered_file(&store, &spec, 1, &[(1, 10), (2, 20)]).await,
        numbered_file(&store, &spec, 2, &[(1, 11)]).await,
    ];
    let mut rows = BTreeMap::new();
    let each = |b: RecordBatch| {
        let column = |c: usize| b.column(c).as_primitive::<Int64Type>().values();
        for (key, value) in column(0).iter().zip(column(1)) {
            assert_eq!(rows.insert(*key, *value), None, "key {key} comes once");
        }
        Ok(())
    };
    store
        .read_table(&files, &spec, 0..VNODES, each)
        .await
        .unwrap();
    assert_eq!(rows, BTreeMap::from([(1, 11), (2, 20)]));
}

#[tokio::test]
async fn a_file_of_a_table_of_another_form_is_refused() {
    let store = CheckpointStore::open("memory:").unwrap();
    let appended = numbered_spec(TableForm::Appended);
    let file = numbered_file(&store, &appended, 1, &[(1, 10)]).await;
    let keyed = numbered_spec(TableForm::Keyed);
    let files = [file];
    let read = store.read_table(&files, &keyed, 0..VNODES, |_| Ok(()));
    assert_eq!(
        read.await.unwrap_err().message(),
        "checkpoint file tables/7-2/1-1-0.parquet: it is of a table that is appended, and this one \
         is keyed"
    );
}

#[tokio::test]
async fn names_that_occur_twice_are_told_apart() {
    let store = CheckpointStore::open("memory:").unwrap();
    let fields = ["id", "id", "_deleted"].map(|name| Field::new(name, DataType::Int64, true));
    let spec = TableSpec {
        table: 0,
        form: TableForm::Keyed,
        schema: Arc::new(Schema::new(fields.to_vec())),
        key_columns: 2,
    };
    let columns: Vec<ArrayRef> = [1, 2, 3]
        .map(|v| Arc::new(Int64Array::from(vec![v])) as ArrayRef)
        .to_vec();
    let upserts = RecordBatch::try_new(spec.schema.clone(), columns).unwrap();
    let deletes = upserts.project(&[0, 1]).unwrap().slice(0, 0);
    let encoded = encode_delta(
        &spec,
        TableDelta {
            upserts: upserts.clone(),
            upsert_vnodes: vec![9],
            deletes,
            delete_vnodes: vec![],
        },
    )
    .unwrap();
    let file = store
        .write_file(TABLE, 0, 0, Epoch(1), 1, encoded)
        .await
        .unwrap();
    let mut rows = Vec::new();
    let each = |batch: RecordBatch| {
        rows.push(batch);
        Ok(())
    };
    store
        .read_table(&[file], &spec, 0..VNODES, each)
        .await
        .unwrap();
    assert_eq!(rows, [upserts]);
}

fn file_of(epoch: u64, worker: u64, bytes: u64) -> FileMeta {
    FileMeta {
        path: format!("{epoch}-{worker}"),
        table: TABLE,
        epoch: Epoch(epoch),
        rows: 1,
        deletes: 0,
        bytes,
        crc32: 0,
        vnode_min: 0,
        vnode_max: 0,
        footer: None,
    }
}

#[test]
fn who_is_behind_with_compaction_goes_on_in_steps() {
    let mut files: Vec<FileMeta> = (1..=1000).map(|epoch| file_of(epoch, 0, 2000)).collect();
    let mut steps = 0;
    while let Some(compaction) = plan_compaction(&files) {
        assert!(compaction.files.len() <= 24, "{}", compaction.files.len());
        let newest = compaction.files.iter().map(|f| f.epoch.0).max().unwrap();
        let bytes = compaction.files.iter().map(|f| f.bytes).sum();
        files.retain(|f| !compaction.files.contains(f));
        files.push(file_of(newest, 0, bytes));
        steps += 1;
    }
    assert!(steps <= 60, "{steps} steps");
    assert!(files.len() <= 16, "{} files", files.len());
}

#[test]
fn compaction_is_logarithmic() {
    // A thousand checkpoints of 64 KiB by two workers: each byte is rewritten once per size class.
    let file = file_of;
    let (mut files, mut written, mut most) = (Vec::new(), 0, 0);
    for epoch in 1..=1000 {
        files.extend([file(epoch, 0, 32 << 10), file(epoch, 1, 32 << 10)]);
        while let Some(compaction) = plan_compaction(&files) {
            let bytes = compaction.files.iter().map(|f| f.bytes).sum();
            let newest = compaction.files.iter().map(|f| f.epoch.0).max().unwrap();
            assert_eq!(
                compaction.includes_oldest,
                files
                    .iter()
                    .all(|f| f.epoch.0 > newest || compaction.files.contains(f))
            );
            files.retain(|f| !compaction.files.contains(f));
            assert!(files.iter().all(|f| f.epoch.0 != newest));
            files.push(file(newest, 0, bytes));
            written += bytes;
        }
        most = most.max(files.len());
    }
    assert!(
        written <= 4 * 1000 * (64 << 10),
        "{written} bytes rewritten"
    );
    assert!(most <= 40, "{most} files");
}

fn manifest(epoch: u64, files: Vec<FileMeta>) -> Manifest {
    let mut manifest = Manifest {
        version: crate::manifest::MANIFEST_VERSION,
        epoch: Epoch(epoch),
        generation: 4,
        log_index: 17,
        clock: -1,
        ..Default::default()
    };
    manifest.tables.insert(TABLE.to_string(), files);
    manifest.job_epochs.insert(RelationId(7), Epoch(epoch));
    manifest.sinks.insert(
        RelationId(9),
        crate::manifest::SinkProgress {
            emitted_hash: u64::MAX,
            ..Default::default()
        },
    );
    manifest
}

/// Of a store of before there were claims.
fn lineage(generation: u64) -> Lineage {
    let own = owner::Claim {
        generation,
        ..Default::default()
    };
    Lineage::new(own, [])
}

#[tokio::test]
async fn manifests_and_garbage() {
    let (store, spec, mut random) = (
        CheckpointStore::open("memory:").unwrap(),
        spec(1),
        Random(5),
    );
    let (mut manifests, mut model) = (Vec::new(), BTreeMap::new());
    for epoch in [1, 2, 3, 12] {
        let files = checkpoint(&store, &spec, &mut model, &mut random, epoch, 100).await;
        let manifest = manifest(epoch, files);
        if epoch < 12 {
            assert_eq!(
                store.write_manifest(&manifest).await.unwrap(),
                format!("manifests/{epoch:020}-4.json")
            );
        }
        manifests.push(manifest);
    }
    let names = store.list_manifests().await.unwrap();
    assert_eq!(names.len(), 3);
    for (name, manifest) in names.iter().zip(&manifests) {
        assert_eq!(&store.read_manifest(name).await.unwrap(), manifest);
    }
    let lineage = lineage(5);
    // Epoch 12 is in the making: nobody names its files, and they stay. Manifest 3 names only its
    // own files.
    let deleted = store
        .collect(&manifests[2..3], Epoch(12), &lineage)
        .await
        .unwrap();
    assert_eq!(
        deleted,
        2 + manifests[0].files().count() + manifests[1].files().count()
    );
    assert_eq!(store.list_manifests().await.unwrap(), [names[2].clone()]);
    for file in manifests[2].files().chain(manifests[3].files()) {
        store.read_file(file).await.unwrap();
    }
    assert_eq!(
        store
            .collect(&manifests[2..3], Epoch(12), &lineage)
            .await
            .unwrap(),
        0
    );
}

#[test]
fn a_damaged_manifest_is_named() {
    let bytes = manifest(3, Vec::new()).encode().unwrap();
    for cut in [0, 5, 20, bytes.len() - 1] {
        assert_eq!(
            Manifest::decode("manifests/m.json", &bytes[..cut])
                .unwrap_err()
                .message(),
            "manifest manifests/m.json is damaged"
        );
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        let error = Manifest::decode("manifests/m.json", &bytes).unwrap_err();
        assert_eq!(
            error.message(),
            "manifest manifests/m.json is damaged",
            "byte {at}"
        );
    }
}

/// What sealing costs. Run with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    let (store, spec) = (CheckpointStore::open("memory:").unwrap(), spec(1));
    for (name, key_columns) in [("integer key", 1), ("integer and text key", 2)] {
        let spec = TableSpec {
            key_columns,
            ..spec.clone()
        };
        let rows: Vec<_> = (0..1_000_000i64)
            .map(|k| {
                (
                    (Some(k * 7919 % 1_000_003), format!("name {k}")),
                    (Some(k), 1),
                )
            })
            .collect();
        let delta = delta(&spec, &rows, &[]);
        let started = std::time::Instant::now();
        let encoded = encode_delta(&spec, delta).unwrap();
        println!(
            "{name}: encode 1 M rows in {:?}, {} bytes a row",
            started.elapsed(),
            encoded.bytes.len() / 1_000_000
        );
        let old = store
            .write_file(TABLE, key_columns, 0, Epoch(1), 1, encoded.clone())
            .await
            .unwrap();
        let new = store
            .write_file(TABLE, key_columns, 0, Epoch(2), 1, encoded)
            .await
            .unwrap();
        for files in [vec![old.clone()], vec![old.clone(), new.clone()]] {
            let (started, mut count) = (std::time::Instant::now(), 0);
            let each = |b: RecordBatch| {
                count += b.num_rows();
                Ok(())
            };
            store
                .read_table(&files, &spec, 0..VNODES, each)
                .await
                .unwrap();
            println!(
                "{name}: read {count} rows from {} files in {:?}",
                files.len(),
                started.elapsed()
            );
        }
        let started = std::time::Instant::now();
        store
            .compact(
                &Compaction {
                    files: vec![old, new],
                    includes_oldest: true,
                },
                &spec,
                1,
                Epoch(3),
            )
            .await
            .unwrap();
        println!("{name}: compact 2 M records in {:?}", started.elapsed());
    }
}
