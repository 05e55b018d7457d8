//! What was written to a table and cannot be read yet.
//!
//! Writes of one table are submitted in order, so their epochs do not decrease. The epoch of one is
//! told when it is decided, which is before it can be read: whoever pins an epoch and then asks a
//! write for its own knows whether the pinned rows contain it.
//!
//! A write may still be refused, because another of its tables stopped: it was never there, and is
//! forgotten with what it left. The coordinator refuses what was resolved against it meanwhile.

use super::unique::UniqueIndexes;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, Result};
use tidemark_control::inputs::Answer;
use tidemark_control::protocol::Fate;
use tidemark_plan::Relation;
use tokio::sync::oneshot;

/// Tells the epoch of submitted writes when it is decided.
pub(super) type Decision = Shared<BoxFuture<'static, Result<Epoch>>>;

/// What a write's answer tells.
pub(super) fn decision(answer: oneshot::Receiver<Answer>) -> Decision {
    let decision = answer.map(|answer| answer.unwrap_or_else(|_| Err(Error::shutting_down())));
    decision.boxed().shared()
}

/// A table's writes that cannot be read yet; see the module.
#[derive(Default)]
pub struct TableHead {
    /// Counts the writes.
    version: Epoch,
    submitted: VecDeque<Submitted>,
    /// By key, of a table that has one: the last of those writes that touched it, and the row that
    /// it left.
    current: Current,
    /// What is to be unique in the table, beside its key.
    pub(super) unique: UniqueIndexes,
    /// Of the table's rows, when it had been altered so often.
    schema: Option<(u32, SchemaRef)>,
}

type Current = HashMap<Vec<u8>, (Epoch, Option<(Arc<RecordBatch>, u32)>)>;

/// Notes what a write left of its keys.
fn touch(current: &mut Current, write: &Submitted) {
    let rows = Arc::new(write.changes.rows().clone());
    for (row, key) in write.keys.iter().enumerate() {
        let left = (write.changes.weight(row) > 0).then(|| (rows.clone(), row as u32));
        current.insert(key.clone(), (write.version, left));
    }
}

struct Submitted {
    version: Epoch,
    decision: Decision,
    fate: Fate,
    changes: ChangeBatch,
    keys: Vec<Vec<u8>>,
}

impl Submitted {
    fn epoch(&self) -> Option<Epoch> {
        self.decision.clone().now_or_never()?.ok()
    }
}

impl TableHead {
    /// The schema of the table's rows.
    pub(super) fn schema(&mut self, table: &Relation) -> SchemaRef {
        let times = table.altered.times;
        match &self.schema {
            Some((known, schema)) if *known == times => schema.clone(),
            _ => {
                let schema = table.arrow_schema();
                self.schema = Some((times, schema.clone()));
                schema
            }
        }
    }

    /// A number that changes with every write, and when one is forgotten that was refused.
    pub(super) fn version(&self) -> Epoch {
        self.version
    }

    /// Forgets what can be read as of `epoch`, and what was refused.
    pub(super) fn forget(&mut self, readable: Epoch) {
        if self.submitted.iter().any(|s| s.fate.is_refused()) {
            self.submitted.retain(|s| !s.fate.is_refused());
            self.version = self.version.next();
            self.current.clear();
            for s in &self.submitted {
                touch(&mut self.current, s);
            }
        }
        let is_past = |s: &Submitted| s.epoch().is_some_and(|epoch| epoch <= readable);
        while self.submitted.front().is_some_and(is_past) {
            let Some(past) = self.submitted.pop_front() else {
                break;
            };
            for key in past.keys {
                if self
                    .current
                    .get(&key)
                    .is_some_and(|(v, _)| *v == past.version)
                {
                    self.current.remove(&key);
                }
            }
        }
        if self.submitted.is_empty() {
            self.submitted.shrink_to(64);
            self.current.shrink_to(64);
        }
    }

    /// Adds submitted changes, consolidated: retractions first. `keys`: of each row, if the table
    /// has a key.
    pub(super) fn add(
        &mut self,
        changes: ChangeBatch,
        keys: Vec<Vec<u8>>,
        decision: Decision,
        fate: Fate,
    ) {
        self.version = self.version.next();
        let submitted = Submitted {
            version: self.version,
            decision,
            fate,
            changes,
            keys,
        };
        touch(&mut self.current, &submitted);
        self.submitted.push_back(submitted);
    }

    /// The last write, if it is not decided: if it is refused, nothing that was resolved here
    /// counts. If one before it is, it is refused itself.
    pub(super) fn last_open(&self) -> Option<Fate> {
        let last = self.submitted.back()?;
        last.epoch().is_none().then(|| last.fate.clone())
    }

    /// A write went past this head: it is published before the next one begins.
    pub(super) fn pass(&mut self) {
        self.version = self.version.next();
    }

    /// Whether something is not in the rows as of `epoch`, which is pinned.
    pub(super) fn has_after(&self, epoch: Epoch) -> bool {
        let is_after = |s: &Submitted| s.epoch().is_none_or(|e| e > epoch);
        let mut there = self.submitted.iter().filter(|s| !s.fate.is_refused());
        there.any(is_after)
    }

    /// The changes that are not in the rows as of `epoch`, which is pinned.
    pub(super) fn after(&self, epoch: Epoch) -> Vec<ChangeBatch> {
        self.submitted
            .iter()
            .filter(|s| !s.fate.is_refused() && s.epoch().is_none_or(|e| e > epoch))
            .map(|s| s.changes.clone())
            .collect()
    }

    /// The rows of those keys that are here, each once, and the positions of the keys of which
    /// nothing is known here.
    pub(super) fn lookup(&self, wanted: &[Vec<u8>]) -> Result<(Vec<RecordBatch>, Vec<u32>)> {
        if self.current.is_empty() {
            return Ok((Vec::new(), (0..wanted.len() as u32).collect()));
        }
        let mut elsewhere = Vec::new();
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let mut rows: HashMap<*const RecordBatch, (&RecordBatch, Vec<u32>)> = HashMap::new();
        for (i, key) in wanted.iter().enumerate() {
            match self.current.get(key) {
                None => elsewhere.push(i as u32),
                Some((_, Some((batch, row)))) if seen.insert(key) => {
                    let batch_rows = rows.entry(Arc::as_ptr(batch));
                    batch_rows.or_insert((batch, Vec::new())).1.push(*row);
                }
                Some(_) => {}
            }
        }
        let taken = rows.into_values().map(|(batch, rows)| {
            arrow::compute::take_record_batch(batch, &UInt32Array::from(rows))
                .map_err(|e| Error::internal(e.to_string()))
        });
        Ok((taken.collect::<Result<_>>()?, elsewhere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    fn change(rows: &[(i64, i64, i64)]) -> (ChangeBatch, Vec<Vec<u8>>) {
        let column = |f: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(f)))
        };
        let batch = RecordBatch::try_from_iter([("k", column(|r| r.0)), ("v", column(|r| r.1))]);
        let keys = rows.iter().map(|r| r.0.to_be_bytes().to_vec()).collect();
        let weights = rows.iter().map(|r| r.2).collect();
        (ChangeBatch::new(batch.unwrap(), weights), keys)
    }

    fn values(head: &TableHead, keys: &[i64]) -> (Vec<i64>, Vec<u32>) {
        let wanted: Vec<Vec<u8>> = keys.iter().map(|k| k.to_be_bytes().to_vec()).collect();
        let (rows, elsewhere) = head.lookup(&wanted).unwrap();
        let of = |b: &RecordBatch| b.column(1).as_primitive::<Int64Type>().values().to_vec();
        let mut values: Vec<i64> = rows.iter().flat_map(of).collect();
        values.sort_unstable();
        (values, elsewhere)
    }

    #[test]
    fn a_head_has_what_cannot_be_read_and_nothing_else() {
        let mut head = TableHead::default();
        let submit = |head: &mut TableHead, rows: &[(i64, i64, i64)]| {
            let ((changes, keys), (reply, answer)) = (change(rows), oneshot::channel());
            let decision = decision(answer);
            head.add(changes, keys, decision, Fate::default());
            reply
        };
        let first = submit(&mut head, &[(1, 10, 1), (2, 20, 1)]);
        let second = submit(&mut head, &[(1, 10, -1), (1, 11, 1)]);
        let third = submit(&mut head, &[(2, 20, -1)]);
        assert_eq!(values(&head, &[1, 2, 3, 1]), (vec![11], vec![2]));
        assert_eq!(head.after(Epoch(9)).len(), 3, "not decided");
        first.send(Ok(Epoch(5))).unwrap();
        second.send(Ok(Epoch(6))).unwrap();
        assert_eq!(head.after(Epoch(5)).len(), 2);
        head.forget(Epoch(5));
        assert_eq!(values(&head, &[1, 2, 3]), (vec![11], vec![2]));
        head.forget(Epoch(6));
        assert_eq!(values(&head, &[1, 2, 3]), (vec![], vec![0, 2]));
        third.send(Ok(Epoch(6))).unwrap();
        head.forget(Epoch(6));
        assert_eq!(values(&head, &[1, 2, 3]), (vec![], vec![0, 1, 2]));
        assert_eq!(head.after(Epoch(0)).len(), 0);
        assert_eq!(head.version(), Epoch(3));
    }

    #[test]
    fn a_refused_write_was_never_there() {
        let mut head = TableHead::default();
        let submit = |head: &mut TableHead, rows: &[(i64, i64, i64)]| {
            let ((changes, keys), (reply, answer)) = (change(rows), oneshot::channel());
            let decision = decision(answer);
            let fate = Fate::default();
            head.add(changes, keys, decision, fate.clone());
            (reply, fate)
        };
        let (first, _) = submit(&mut head, &[(1, 10, 1)]);
        first.send(Ok(Epoch(5))).unwrap();
        assert!(head.last_open().is_none());
        let (_second, fate) = submit(&mut head, &[(1, 10, -1), (1, 11, 1), (2, 20, 1)]);
        assert_eq!(values(&head, &[1, 2]), (vec![11, 20], vec![]));
        fate.refuse();
        // Whoever resolves before the head has forgotten it is refused with it.
        assert!(head.last_open().unwrap().is_refused());
        assert_eq!(head.after(Epoch(4)).len(), 1);
        head.forget(Epoch(4));
        assert!(head.last_open().is_none());
        assert_eq!(values(&head, &[1, 2]), (vec![10], vec![1]));
        head.forget(Epoch(5));
        assert_eq!(values(&head, &[1, 2]), (vec![], vec![0, 1]));
    }
}
