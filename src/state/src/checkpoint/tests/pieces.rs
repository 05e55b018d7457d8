//! Files that are larger than a piece: what is read of them, what of damage is noticed by whom, and
//! what becomes of them when they are merged.

use super::*;

/// Rows of one file.
const ROWS: i64 = 90_000;

/// A key and bytes that cannot be compressed.
fn wide_spec() -> TableSpec {
    let fields = vec![
        Field::new("k", DataType::Int64, false),
        Field::new("b", DataType::Binary, true),
    ];
    TableSpec {
        table: 2,
        form: TableForm::Keyed,
        schema: Arc::new(Schema::new(fields)),
        key_columns: 1,
    }
}

/// Keys from `first` on, every `step`th, with values of `seed`.
fn wide_delta(spec: &TableSpec, first: i64, step: i64, seed: u64) -> TableDelta {
    let mut random = Random(seed);
    let noise: Vec<u8> = (0..ROWS as usize / 4)
        .flat_map(|_| random.next_u64().to_le_bytes())
        .collect();
    let value = |row: i64| &noise[row as usize..row as usize + 330];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            (0..ROWS)
                .map(|row| first + row * step)
                .collect::<Int64Array>(),
        ),
        Arc::new(
            (0..ROWS)
                .map(|row| Some(value(row)))
                .collect::<BinaryArray>(),
        ),
    ];
    let upserts = RecordBatch::try_new(spec.schema.clone(), columns).unwrap();
    TableDelta {
        upsert_vnodes: vnodes(spec, &upserts),
        deletes: upserts.project(&[0]).unwrap().slice(0, 0),
        delete_vnodes: Vec::new(),
        upserts,
    }
}

async fn wide_file(store: &CheckpointStore, epoch: u64, first: i64, step: i64) -> FileMeta {
    let spec = wide_spec();
    let delta = wide_delta(&spec, first, step, epoch);
    let encoded = encode_delta(&spec, delta).unwrap();
    let written = store.write_file(TABLE, 0, 0, Epoch(epoch), 1, encoded);
    written.await.unwrap()
}

/// The rows by key, as checksums of the values.
async fn read(
    store: &CheckpointStore,
    files: &[FileMeta],
    vnodes: Range<usize>,
) -> Result<BTreeMap<i64, u32>> {
    let mut rows = BTreeMap::new();
    let each = |batch: RecordBatch| {
        let keys = batch.column(0).as_primitive::<Int64Type>().values();
        for (key, value) in keys.iter().zip(batch.column(1).as_binary::<i32>()) {
            let before = rows.insert(*key, crc32fast::hash(value.unwrap()));
            assert_eq!(before, None, "key {key} comes once");
        }
        Ok(())
    };
    let spec = wide_spec();
    store.read_table(files, &spec, vnodes, each).await?;
    Ok(rows)
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> (Folder, CheckpointStore) {
    let name = format!("tidemark-{name}-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let url = format!("file://{}", folder.0.display());
    (folder, CheckpointStore::open(&url).unwrap())
}

#[tokio::test]
async fn a_reader_reads_the_row_groups_of_its_vnodes_and_notices_damage_there() {
    let (folder, store) = folder("pieces");
    let file = wide_file(&store, 3, 0, 1).await;
    assert!(file.bytes > 16 << 20, "{} bytes", file.bytes);
    let all = read(&store, std::slice::from_ref(&file), 0..VNODES).await;
    assert_eq!(all.unwrap().len(), ROWS as usize);
    let path = folder.0.join(&file.path);
    let whole = std::fs::read(&path).unwrap();
    let mut noticed_by = 0;
    for at in (0..whole.len()).step_by(whole.len() / 7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        for reader in 0..4 {
            let vnodes = vnodes_of(reader, 4);
            let part = read(&store, std::slice::from_ref(&file), vnodes).await;
            if let Err(error) = part {
                noticed_by += 1;
                assert_eq!(
                    (error.message(), error.state().0),
                    (
                        "checkpoint file tables/7-2/1-3-0.parquet is damaged",
                        "XX001"
                    )
                );
            }
        }
    }
    // The first byte is Parquet's mark, which says nothing.
    assert!((7..=16).contains(&noticed_by), "{noticed_by}");
    for length in [whole.len() / 2, whole.len() - 1, 0] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = read(&store.patient(), std::slice::from_ref(&file), 0..9).await;
        let error = error.unwrap_err();
        assert_eq!(
            error.message(),
            "checkpoint file tables/7-2/1-3-0.parquet is damaged"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let error = read(&store.patient(), &[file], 0..9).await.unwrap_err();
    assert_eq!(
        error.message(),
        "checkpoint file tables/7-2/1-3-0.parquet is missing"
    );
}

#[tokio::test]
async fn files_of_earlier_builds_are_read_whole() {
    let store = CheckpointStore::open("memory:").unwrap();
    let file = wide_file(&store, 3, 0, 1).await;
    let told = serde_json::to_string(&file).unwrap();
    let earlier = FileMeta {
        footer: None,
        ..file.clone()
    };
    let told_earlier = serde_json::to_string(&earlier).unwrap();
    assert!(told.contains("footer") && !told_earlier.contains("footer"));
    assert_eq!(
        serde_json::from_str::<FileMeta>(&told_earlier).unwrap(),
        earlier
    );
    let (new, old) = (
        read(&store, &[file], 60..90).await.unwrap(),
        read(&store, &[earlier], 60..90).await.unwrap(),
    );
    assert!(new.len() > 1000 && new == old);
}

#[tokio::test]
async fn what_is_merged_has_a_size_limit_and_can_be_merged_again() {
    let store = CheckpointStore::open("memory:").unwrap();
    let mut files = Vec::new();
    for epoch in 1..=4 {
        files.push(wide_file(&store, epoch, epoch as i64, epoch as i64).await);
    }
    let before = read(&store, &files, 0..VNODES).await.unwrap();
    let merged = |files: Vec<FileMeta>, epoch: u64| {
        let store = store.clone();
        async move {
            let compaction = Compaction {
                files,
                includes_oldest: true,
            };
            let spec = wide_spec();
            let compacted = store.compact(&compaction, &spec, 1, Epoch(epoch));
            compacted.await.unwrap()
        }
    };
    let by = merged(files[..3].to_vec(), 5).await;
    assert!(by.len() > 1, "{by:?}");
    for (part, file) in by.iter().enumerate() {
        assert!(file.bytes < 40 << 20 && file.rows > 0, "{file:?}");
        assert!(file.path.ends_with(&format!("-{part:04}.parquet")));
        assert_eq!(
            (file.epoch, origin_of(&file.path)),
            (Epoch(3), Some((1, Epoch(5))))
        );
    }
    assert_eq!(
        merged(files[..3].to_vec(), 5).await,
        by,
        "the same of the same"
    );
    let mut all = by.clone();
    all.push(files[3].clone());
    assert_eq!(read(&store, &all, 0..VNODES).await.unwrap(), before);
    let again = merged(all, 6).await;
    assert_eq!(read(&store, &again, 0..VNODES).await.unwrap(), before);
    assert_eq!(
        again.iter().map(|f| f.rows).sum::<u64>(),
        before.len() as u64
    );
}

#[test]
fn a_merge_that_nobody_waits_for_ends() {
    let (_folder, store) = folder("ended-merge");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut files = Vec::new();
        for epoch in 1..=3 {
            files.push(wide_file(&store, epoch, epoch as i64, 3).await);
        }
        let (spec, includes_oldest) = (wide_spec(), true);
        let compaction = Compaction {
            files,
            includes_oldest,
        };
        // It is polled once, which begins it, and dropped.
        let compacted = store.compact(&compaction, &spec, 1, Epoch(9));
        assert!(futures::FutureExt::now_or_never(compacted).is_none());
    });
    // This waits for what was begun.
    drop(runtime);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let files = runtime.block_on(store.list("tables")).unwrap();
    assert_eq!(files.len(), 3, "nothing came out: {files:?}");
}
