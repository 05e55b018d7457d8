//! The store against a map from ids to the rows' texts, over every type.

use super::*;
use crate::ABSENT;
use crate::testing::{Random, column, texts, types};
use arrow::datatypes::{Field, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;

#[test]
fn agrees_with_a_map_over_all_types() {
    let fields: Vec<Field> = types()
        .into_iter()
        .enumerate()
        .map(|(i, t)| Field::new(format!("c{i}"), t, true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    for nulls in [false, true] {
        let mut rng = Random(5);
        let mut store = RowStore::new(schema.clone());
        let mut model: BTreeMap<u32, String> = BTreeMap::new();
        for _ in 0..300 {
            let rows = rng.below(50) + 1;
            let columns = types()
                .iter()
                .map(|t| column(&mut rng, t, rows, 60, nulls))
                .collect();
            let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
            let batch = batch.slice(rows / 3, rows - rows / 3);
            let text = texts(batch.columns(), batch.num_rows());
            let mut ids = vec![1];
            if rng.below(2) == 0 {
                store.insert(&batch, &mut ids);
                model.extend(ids.iter().copied().zip(text.clone()));
            } else {
                let selection: Vec<u32> = (0..batch.num_rows() as u32)
                    .filter(|_| rng.below(2) == 0)
                    .collect();
                store.insert_selected(&batch, &selection, &mut ids);
                model.extend(
                    ids.iter()
                        .copied()
                        .zip(selection.iter().map(|r| text[*r as usize].clone())),
                );
            }
            for (row, text) in text.iter().enumerate() {
                ids.iter().for_each(|id| {
                    assert_eq!(store.rows_equal(*id, &batch, row), model[id] == *text)
                });
            }
            let victims: Vec<u32> = model
                .keys()
                .copied()
                .filter(|_| rng.below(3) == 0)
                .collect();
            for id in victims {
                store.remove(id);
                model.remove(&id);
            }
            check(&store, &model);
        }
        model.keys().for_each(|id| store.remove(*id));
        assert!(store.is_empty());
    }
}

fn check(store: &RowStore, model: &BTreeMap<u32, String>) {
    let live: Vec<u32> = store.live_ids().collect();
    assert_eq!(live, model.keys().copied().collect::<Vec<_>>());
    assert_eq!(store.len(), model.len());
    let every: Vec<usize> = (0..store.schema().fields().len()).collect();
    assert_eq!(
        texts(&store.gather(&every, &live), live.len()),
        model.values().cloned().collect::<Vec<_>>()
    );
    let mut absent = vec![ABSENT];
    absent.extend(&live);
    let gathered = store.gather(&every, &absent);
    assert!(gathered.iter().all(|c| c.is_null(0)));
    assert_eq!(
        texts(&gathered, absent.len())[1..],
        model.values().cloned().collect::<Vec<_>>()
    );
}

#[test]
fn long_strings_do_not_leave_garbage_behind() {
    let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8, false)]));
    let mut store = RowStore::new(schema.clone());
    let mut rng = Random(3);
    let mut model: BTreeMap<u32, String> = BTreeMap::new();
    for round in 0..200 {
        let strings: Vec<String> = (0..400)
            .map(|i| format!("{round} {i} ").repeat(rng.below(if i == 0 { 20_000 } else { 40 })))
            .collect();
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![Arc::new(arrow::array::StringArray::from(strings.clone()))],
        )
        .unwrap();
        let mut ids = Vec::new();
        store.insert(&batch, &mut ids);
        model.extend(ids.into_iter().zip(strings));
        while model.len() > 2000 {
            let id = *model.keys().nth(rng.below(model.len())).unwrap();
            store.remove(id);
            model.remove(&id);
        }
        let live: Vec<u32> = model.keys().copied().collect();
        let gathered = store.gather(&[0], &live);
        assert!(
            arrow::array::AsArray::as_string::<i32>(gathered[0].as_ref())
                .iter()
                .zip(model.values())
                .all(|(a, b)| a == Some(b.as_str()))
        );
        let living: usize = model.values().map(String::len).sum();
        assert!(
            store.memory_bytes() < living * 3 + 1_000_000,
            "{} bytes for {living} of values",
            store.memory_bytes()
        );
    }
}
