//! Epochs, jobs, checkpoints and recovery, on the test bed ([`super::testing`]).

use super::testing::{Bed, at, connector_table, rows_of, sink, source, table, view};
use super::{EPOCH_MS_MIN, SHARED_MS_MIN};
use crate::Entry;
use crate::protocol::{Command, Event, Fate, Positions, Request, StartMode};
use std::time::Duration;
use tidemark_common::{Error, SqlState};

fn failed(relation: &tidemark_plan::Relation) -> Event {
    Event::Failed {
        relation: relation.id,
        error: Error::internal("it broke"),
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_before_and_after_a_checkpoint() {
    let (t, mut bed) = (table(1, "t"), Bed::new(2));
    bed.create(&t);
    let mut expected = 0;
    for round in 0..4 {
        bed.write(t.id, 3).unwrap().unwrap();
        expected += 3;
        if round % 2 == 1 {
            bed.flush().unwrap().unwrap();
        }
        bed = bed.restart();
        assert_eq!(bed.script.lock().rows(t.id), Some(expected));
    }
}

#[test]
fn a_write_is_acknowledged_when_its_epoch_is_decided_and_read_when_all_are_done() {
    let (t, mut bed) = (table(1, "t"), Bed::new(2));
    bed.create(&t);
    bed.script.lock().holds = Some(Vec::new());
    assert!(bed.write(t.id, 1).is_none());
    let (published, held) = (bed.readers.published(), bed.script.lock().holds.take());
    let (done, cuts): (Vec<_>, Vec<_>) = held
        .into_iter()
        .flatten()
        .partition(|e| matches!(e, Event::Done { .. }));
    cuts.into_iter().for_each(|event| bed.event(event));
    assert!(bed.readers.decided() > published);
    assert_eq!(bed.readers.published(), published);
    done.into_iter().for_each(|event| bed.event(event));
    assert_eq!(bed.readers.published(), bed.readers.decided());
}

#[test]
fn a_creation_that_no_checkpoint_contains_is_undone_by_a_crash() {
    let (t, mut bed) = (table(1, "t"), Bed::new(1));
    bed.script.lock().manifest_error = Some(Error::unavailable(SqlState::IO_ERROR, "away"));
    assert!(bed.create_at(&t, Vec::new()).is_none());
    assert!(!bed.script.lock().shown.relations.contains_key(&t.id));
    bed = bed.restart();
    assert!(bed.running().is_empty());
    bed.create(&t);
    assert!(bed.script.lock().shown.relations.contains_key(&t.id));
}

/// The next barrier is due at once for a writer, and not before the epoch on its way is decided;
/// all who came meanwhile share it. Beside a source that reads they wait as statements do.
#[test]
fn writers_share_the_epoch_after_the_one_on_its_way() {
    let (t, mut bed) = (table(1, "t"), Bed::new(2));
    bed.create(&t);
    bed.coordinator.pace.epoch = Duration::from_secs(3600);
    let write = |bed: &mut Bed| {
        bed.request(Request::Write {
            writes: vec![rows_of(t.id, 1)],
            after: Vec::new(),
            fate: Fate::default(),
            marker: None,
        })
    };
    let after = |bed: &Bed| {
        let deadline = bed.coordinator.next_deadline().unwrap();
        deadline.saturating_duration_since(bed.coordinator.last_barrier)
    };
    let first = write(&mut bed);
    assert_eq!(after(&bed), Duration::ZERO);
    bed.coordinator.send_barrier().unwrap();
    let (second, third) = (write(&mut bed), write(&mut bed));
    let soon = bed.coordinator.last_barrier + Duration::from_secs(3600);
    assert!(bed.coordinator.next_deadline().is_none_or(|at| at > soon));
    bed.run();
    let epoch = bed.answer(first).unwrap().unwrap();
    assert_eq!(bed.answer(second).unwrap().unwrap(), epoch.next());
    assert_eq!(bed.answer(third).unwrap().unwrap(), epoch.next());
    let _fourth = write(&mut bed);
    assert_eq!(after(&bed), Duration::from_millis(SHARED_MS_MIN));
    bed.coordinator.handle(Event::Active).unwrap();
    assert_eq!(after(&bed), Duration::from_millis(EPOCH_MS_MIN));
}

#[test]
fn writes_are_acknowledged_while_a_job_is_behind() {
    let (t, mut bed) = (table(1, "t"), Bed::new(2));
    bed.create(&t);
    bed.run();
    let published = bed.readers.published();
    bed.script.lock().behind = Some(Vec::new());
    for _ in 0..20 {
        bed.write(t.id, 1).unwrap().unwrap();
    }
    assert!(bed.coordinator.in_flight.len() >= 20);
    assert_eq!(bed.readers.published(), published);
    // Nobody else gets an epoch meanwhile.
    bed.coordinator.handle(Event::Active).unwrap();
    assert_eq!(bed.coordinator.next_deadline(), None);
    let held = bed.script.lock().behind.take();
    held.into_iter()
        .flatten()
        .for_each(|event| bed.event(event));
    bed.run();
    assert_eq!(bed.readers.published(), bed.readers.decided());
    assert_eq!(bed.script.lock().rows(t.id), Some(20));
}

#[test]
fn a_job_that_is_behind_delays_what_reads_it_and_nothing_else() {
    let mut bed = Bed::new(2);
    let (t, other) = (table(1, "t"), table(2, "other"));
    let (slow, fast) = (view(3, "slow", &t), view(4, "fast", &t));
    let out = sink(5, "out", &slow);
    for relation in [&t, &other, &slow, &fast, &out] {
        bed.create(relation);
    }
    let before = bed.readers.published();
    bed.script.lock().behind = Some(Vec::new());
    bed.script.lock().fast = [t.id, other.id, fast.id].into();
    let mut written = before;
    for _ in 0..100 {
        written = bed.write(t.id, 1).unwrap().unwrap();
        assert_eq!(bed.readers.readable(t.id), written);
        assert_eq!(bed.readers.pin_of(&[fast.id, t.id]).epoch(), written);
        assert_eq!(bed.readers.pin_of(&[fast.id, slow.id]).epoch(), before);
        assert_eq!(bed.readers.readable(out.id), before, "nothing is sent");
    }
    // Sources and statements get their epochs.
    bed.coordinator.handle(Event::Active).unwrap();
    assert!(bed.coordinator.next_deadline().is_some());
    // It stops where it was read last; what is not behind does not stand still with it.
    bed.event(failed(&slow));
    let shown = bed.script.lock().shown.clone();
    let stopped = |id| shown.stopped[&id].epoch;
    assert_eq!((stopped(slow.id), stopped(out.id)), (before, before));
    assert!(bed.readers.published() >= written);
    let held = bed.script.lock().behind.take();
    held.into_iter()
        .flatten()
        .for_each(|event| bed.event(event));
    bed.flush().unwrap().unwrap();
    bed = bed.restart();
    assert_eq!(bed.script.lock().rows(t.id), Some(100));
    assert_eq!(bed.script.lock().shown.stopped[&slow.id].epoch, before);
}

#[test]
fn a_start_replays_each_job_to_where_it_stopped() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let (slow, fast) = (view(2, "slow", &t), view(3, "fast", &t));
    for relation in [&t, &slow, &fast] {
        bed.create(relation);
    }
    let before = bed.readers.published();
    bed.script.lock().behind = Some(Vec::new());
    bed.script.lock().fast = [t.id, fast.id].into();
    bed.write(t.id, 1).unwrap().unwrap();
    bed.event(failed(&slow));
    let at = bed.write(t.id, 1).unwrap().unwrap();
    bed.event(failed(&fast));
    bed.write(t.id, 1).unwrap().unwrap();
    bed = bed.restart();
    let shown = bed.script.lock().shown.clone();
    let stopped = |id| shown.stopped[&id].epoch;
    assert_eq!((stopped(slow.id), stopped(fast.id)), (before, at));
    assert_eq!(bed.readers.published(), bed.readers.decided());
}

/// What a job has still to read of a table is bounded; writes to other tables do not wait for that.
#[test]
fn writes_to_a_table_wait_for_who_reads_it_and_others_do_not() {
    let mut bed = Bed::new(1);
    let (t, other) = (table(1, "t"), table(2, "other"));
    let slow = view(3, "slow", &t);
    for relation in [&t, &other, &slow] {
        bed.create(relation);
    }
    bed.script.lock().behind = Some(Vec::new());
    bed.script.lock().fast = [t.id, other.id].into();
    // 16 bytes a row: value and weight.
    let half = super::unread::UNREAD_BYTES_MAX / 32 + 1;
    assert!(bed.write(t.id, half).is_some());
    assert!(bed.write(t.id, half).is_some());
    assert!(bed.write(t.id, 1).is_none(), "it waits");
    assert!(bed.write(other.id, 1).unwrap().is_ok());
    let (_, both) = bed.write_after(&[other.id, t.id], 1, &[]);
    assert!(both.is_none());
    assert!(
        bed.write(other.id, 1).is_none(),
        "it comes after one that waits"
    );
    let relations = vec![slow.id];
    bed.ask(Request::Drop { relations }).unwrap().unwrap();
    let held = bed.script.lock().behind.take();
    held.into_iter()
        .flatten()
        .for_each(|event| bed.event(event));
    bed.event(Event::Active);
    let rows = |id| bed.script.lock().rows(id);
    assert_eq!(rows(t.id), Some(2 * half as i64 + 2));
    assert_eq!(rows(other.id), Some(3));
}

#[test]
fn a_manifest_that_is_not_stored_loses_nothing() {
    let (t, mut bed) = (table(1, "t"), Bed::new(1));
    bed.create(&t);
    bed.write(t.id, 5).unwrap().unwrap();
    bed.script.lock().manifest_error = Some(Error::unavailable(SqlState::IO_ERROR, "away"));
    assert!(bed.flush().unwrap().is_err());
    bed.script.lock().manifest_error = None;
    bed.write(t.id, 2).unwrap().unwrap();
    bed.flush().unwrap().unwrap();
    bed = bed.restart();
    assert_eq!(bed.script.lock().rows(t.id), Some(7));
}

#[test]
fn a_job_that_fails_stops_with_those_that_read_it_and_alone() {
    let mut bed = Bed::new(2);
    let (t, other) = (table(1, "t"), table(2, "other"));
    let (v, w) = (view(3, "v", &t), view(4, "w", &other));
    for relation in [&t, &other, &v, &w] {
        bed.create(relation);
    }
    bed.event(failed(&t));
    let shown = bed.script.lock().shown.clone();
    assert_eq!(
        shown.stopped.keys().copied().collect::<Vec<_>>(),
        [t.id, v.id]
    );
    assert_eq!(bed.running(), [other.id, w.id].into());
    assert!(bed.write(other.id, 1).unwrap().is_ok());
}

#[test]
fn a_source_runs_while_somebody_reads_it() {
    let mut bed = Bed::new(1);
    let s = source(1, "s");
    bed.create_at(&s, vec![at(0)]).unwrap().unwrap();
    assert!(bed.running().is_empty());
    let v = view(2, "v", &s);
    bed.create(&v);
    assert_eq!(bed.running(), [s.id, v.id].into());
    bed.script.lock().positions = Positions::from([(s.id, vec![at(7)])]);
    bed.event(Event::Active);
    bed = bed.restart();
    assert_eq!(bed.coordinator.decisions.positions[&s.id], [at(7)]);
    let relations = vec![v.id];
    bed.ask(Request::Drop { relations }).unwrap().unwrap();
    assert!(bed.running().is_empty());
}

#[test]
fn replay_takes_sources_to_the_cuts_and_tables_through_the_writes() {
    let mut bed = Bed::new(1);
    let (t, k) = (table(1, "t"), connector_table(2, "k"));
    bed.create(&t);
    bed.create_at(&k, vec![at(0)]).unwrap().unwrap();
    for offset in [3, 5] {
        bed.script.lock().positions = Positions::from([(k.id, vec![at(offset)])]);
        bed.event(Event::Active);
        bed.write(t.id, 1).unwrap().unwrap();
    }
    bed = bed.restart();
    let script = bed.script.lock();
    let replayed: Vec<_> = script
        .commands
        .iter()
        .filter_map(|c| match c {
            Command::Barrier(b) => Some((b.limits.clone()?[&k.id][0].next_offset, &b.writes)),
            _ => None,
        })
        .collect();
    assert!(replayed.iter().map(|(offset, _)| *offset).is_sorted());
    assert_eq!(replayed.last().unwrap().0, 5);
    let writes: Vec<_> = replayed.iter().flat_map(|(_, w)| w.iter()).collect();
    assert_eq!(writes, [&rows_of(t.id, 1), &rows_of(t.id, 1)]);
    assert_eq!(script.rows(t.id), Some(2));
}

#[test]
fn a_checkpoint_names_sinks_and_shortens_the_log() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let out = sink(2, "out", &t);
    for relation in [&t, &out] {
        bed.create(relation);
    }
    bed.write(t.id, 1).unwrap().unwrap();
    bed.flush().unwrap().unwrap();
    let manifest = bed.script.lock().manifests.last().unwrap().clone();
    assert!(manifest.sinks.contains_key(&out.id));
    let left = bed.log.entries();
    assert!(left.iter().all(|(index, _)| *index > manifest.log_index));
    assert!(matches!(left.last(), Some((_, Entry::Checkpoint { .. }))));
}

fn resume(
    bed: &mut Bed,
    relation: &tidemark_plan::Relation,
) -> Option<tidemark_common::Result<()>> {
    let relation = relation.id;
    bed.ask(Request::Resume { relation })
        .map(|answer| answer.map(drop))
}

fn stopped(bed: &Bed) -> Vec<u32> {
    let shown = bed.script.lock().shown.clone();
    shown.stopped.keys().map(|id| id.0).collect()
}

/// One statement of a transaction saw a row of another one that is refused because its other table
/// stopped: taken, it would retract a row that was never there.
#[test]
fn a_write_that_saw_a_refused_one_is_refused() {
    let mut bed = Bed::new(1);
    let (a, b) = (table(1, "a"), table(2, "b"));
    for relation in [&a, &b] {
        bed.create(relation);
    }
    // Writes that wait for a barrier when the table stops, and one that comes after that.
    bed.script.lock().holds = Some(Vec::new());
    assert!(bed.write(b.id, 1).is_none());
    let (both, _) = bed.write_after(&[a.id, b.id], 1, &[]);
    let (saw, _) = bed.write_after(&[b.id], 1, &[&both]);
    let (other, _) = bed.write_after(&[b.id], 1, &[]);
    assert_eq!(bed.coordinator.pending_writes.len(), 3);
    bed.event(failed(&a));
    let (late, answer) = bed.write_after(&[b.id], 1, &[&saw]);
    assert_eq!(answer.unwrap().unwrap_err().state().0, "40001");
    let refused = [&both, &saw, &other, &late].map(|fate| fate.is_refused());
    assert_eq!(refused, [true, true, false, true]);
    // What does not build on it is taken.
    let held = bed.script.lock().holds.take();
    held.into_iter()
        .flatten()
        .for_each(|event| bed.event(event));
    let (_, answer) = bed.write_after(&[b.id], 1, &[&other]);
    answer.unwrap().unwrap();
}

/// Rows from before the checkpoint, after it, of an epoch that was on its way when the table
/// stopped, through any number of checkpoints and crashes of others.
#[test]
fn a_table_that_stopped_is_resumed_with_every_acknowledged_row() {
    for (checkpoints, crashes) in [(0, 0), (2, 0), (0, 1), (2, 1), (2, 2)] {
        let mut bed = Bed::new(2);
        let (t, other) = (table(1, "t"), table(2, "other"));
        for relation in [&t, &other] {
            bed.create(relation);
        }
        bed.write(t.id, 5).unwrap().unwrap();
        bed.flush().unwrap().unwrap();
        bed.write(t.id, 7).unwrap().unwrap();
        bed.script.lock().holds = Some(Vec::new());
        assert!(bed.write(t.id, 11).is_none());
        bed.event(failed(&t));
        let held = bed.script.lock().holds.take();
        held.into_iter()
            .flatten()
            .for_each(|event| bed.event(event));
        assert_eq!(stopped(&bed), [1]);
        let refused = bed.write(t.id, 1).unwrap().err().unwrap();
        assert!(refused.hint().unwrap().contains("ALTER TABLE t RESUME"));
        for _ in 0..crashes.max(1) {
            for _ in 0..checkpoints {
                bed.write(other.id, 1).unwrap().unwrap();
                bed.flush().unwrap().unwrap();
            }
            if crashes > 0 {
                bed = bed.restart();
                assert_eq!(
                    (stopped(&bed), bed.script.lock().rows(t.id)),
                    (vec![1], None)
                );
            }
        }
        resume(&mut bed, &t).unwrap().unwrap();
        assert!(stopped(&bed).is_empty());
        bed.write(t.id, 13).unwrap().unwrap();
        assert_eq!(bed.script.lock().rows(t.id), Some(36));
        bed = bed.restart();
        assert_eq!(bed.script.lock().rows(t.id), Some(36));
    }
}

#[test]
fn a_crash_before_the_checkpoint_of_a_resume_finds_the_job_stopped_as_before() {
    let (t, mut bed) = (table(1, "t"), Bed::new(1));
    bed.create(&t);
    bed.write(t.id, 5).unwrap().unwrap();
    bed.event(failed(&t));
    bed.script.lock().manifest_error = Some(Error::unavailable(SqlState::IO_ERROR, "away"));
    assert!(resume(&mut bed, &t).is_none());
    assert_eq!(stopped(&bed), [1]);
    bed = bed.restart();
    assert_eq!(stopped(&bed), [1]);
    resume(&mut bed, &t).unwrap().unwrap();
    assert_eq!(bed.script.lock().rows(t.id), Some(5));
}

#[test]
fn a_resume_whose_cause_is_still_there_leaves_the_job_as_it_was() {
    let (t, mut bed) = (table(1, "t"), Bed::new(2));
    bed.create(&t);
    bed.write(t.id, 5).unwrap().unwrap();
    bed.event(failed(&t));
    bed.script
        .lock()
        .fails
        .insert(t.id, Error::internal("it broke again"));
    assert!(resume(&mut bed, &t).unwrap().is_err());
    let reason = bed.script.lock().shown.stopped[&t.id].reason.clone();
    assert_eq!(reason, "it broke again");
    bed.script.lock().fails.clear();
    resume(&mut bed, &t).unwrap().unwrap();
    assert_eq!(bed.script.lock().rows(t.id), Some(5));
}

#[test]
fn what_cannot_be_restored_is_held_back_and_tried_at_the_next_start() {
    let mut bed = Bed::new(2);
    let (t, other) = (table(1, "t"), table(2, "other"));
    let v = view(3, "v", &t);
    for relation in [&t, &other, &v] {
        bed.create(relation);
    }
    bed.write(t.id, 5).unwrap().unwrap();
    bed.flush().unwrap().unwrap();
    bed.write(t.id, 7).unwrap().unwrap();
    // Missing at two starts, with checkpoints of the others between.
    for _ in 0..2 {
        bed = bed
            .restart_with(|_, script| {
                let missing = Error::corrupt("checkpoint file f is missing");
                script.unreadable.insert(t.id, missing);
            })
            .unwrap();
        assert_eq!(stopped(&bed), [1, 3]);
        assert!(bed.script.lock().shown.stopped.values().all(|s| s.held));
        assert!(bed.coordinator.decisions.catalog.stopped.is_empty());
        assert!(bed.write(t.id, 1).unwrap().is_err());
        bed.write(other.id, 1).unwrap().unwrap();
        bed.flush().unwrap().unwrap();
        let error = resume(&mut bed, &t).unwrap().err().unwrap();
        assert_eq!(error.message(), "checkpoint file f is missing");
    }
    bed = bed.restart();
    assert!(stopped(&bed).is_empty());
    assert_eq!(bed.script.lock().rows(t.id), Some(12));
    // What reads relations with rows is built from those.
    assert!(bed.script.lock().started(v.id).unwrap().tables.is_empty());
    assert_eq!(bed.running(), [t.id, other.id, v.id].into());
}

#[test]
fn a_suspect_waits_for_the_others_and_is_tried_again_without_a_start() {
    let (t, mut bed) = (table(1, "t"), Bed::new(1));
    bed.create(&t);
    bed.write(t.id, 5).unwrap().unwrap();
    bed = bed
        .restart_with(|recovered, _| {
            recovered.suspects.push(super::recovery::Suspect {
                relation: t.id,
                deaths: 3,
                pause: std::time::Duration::ZERO,
            });
        })
        .unwrap();
    let entries = bed.log.entries();
    assert!(!entries.iter().any(|(_, e)| matches!(e, Entry::Stop { .. })));
    assert_eq!(
        (stopped(&bed), bed.script.lock().rows(t.id)),
        (vec![], Some(5))
    );
    assert!(bed.script.lock().started(t.id).unwrap().mode == StartMode::Resuming);
}

#[test]
fn a_view_of_a_source_goes_on_where_the_source_stood_at_its_checkpoint() {
    let mut bed = Bed::new(1);
    let s = source(1, "s");
    bed.create_at(&s, vec![at(0)]).unwrap().unwrap();
    let (v, w) = (view(2, "v", &s), view(3, "w", &s));
    for relation in [&v, &w] {
        bed.create(relation);
    }
    let stands = |bed: &mut Bed, offset| {
        bed.script.lock().positions = Positions::from([(s.id, vec![at(offset)])]);
        bed.event(Event::Active);
    };
    stands(&mut bed, 4);
    bed.flush().unwrap().unwrap();
    stands(&mut bed, 6);
    bed.event(failed(&v));
    stands(&mut bed, 9);
    bed.flush().unwrap().unwrap();
    bed = bed.restart();
    resume(&mut bed, &v).unwrap().unwrap();
    let start = bed.script.lock().started(v.id).unwrap();
    assert_eq!(start.backfill[&s.id], [at(4)]);
    // Without another reader the source itself begins there.
    bed.event(failed(&v));
    let relations = vec![w.id];
    bed.ask(Request::Drop { relations });
    assert!(bed.running().is_empty());
    stands(&mut bed, 9);
    resume(&mut bed, &v).unwrap().unwrap();
    let start = bed.script.lock().started(s.id).unwrap();
    assert_eq!(start.positions, [at(9)]);
}

#[test]
fn what_reads_a_stopped_job_is_resumed_after_it() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let v = view(2, "v", &t);
    for relation in [&t, &v] {
        bed.create(relation);
    }
    bed.event(failed(&t));
    let error = resume(&mut bed, &v).unwrap().err().unwrap();
    assert!(error.hint().unwrap().contains("ALTER TABLE t RESUME"));
    resume(&mut bed, &t).unwrap().unwrap();
    assert_eq!(stopped(&bed), [2]);
    resume(&mut bed, &v).unwrap().unwrap();
    assert!(stopped(&bed).is_empty());
}

#[test]
fn a_halted_job_can_be_dropped_while_it_is_resumed() {
    let (t, mut bed) = (table(1, "t"), Bed::new(1));
    bed.create(&t);
    bed.event(failed(&t));
    bed.script.lock().manifest_error = Some(Error::unavailable(SqlState::IO_ERROR, "away"));
    assert!(resume(&mut bed, &t).is_none());
    let relations = vec![t.id];
    bed.ask(Request::Drop { relations }).unwrap().unwrap();
    bed.script.lock().manifest_error = None;
    bed.flush().unwrap().unwrap();
    bed = bed.restart();
    assert!(bed.script.lock().shown.relations.is_empty());
}

/// A manifest that has the job as running is being stored when the job fails; whether that succeeds
/// or not, nothing counts twice or is lost.
#[test]
fn a_job_that_fails_while_a_manifest_is_stored_has_each_row_once() {
    for fails in [false, true] {
        let (t, mut bed) = (table(1, "t"), Bed::new(2));
        bed.create(&t);
        bed.write(t.id, 5).unwrap().unwrap();
        bed.flush().unwrap().unwrap();
        bed.write(t.id, 7).unwrap().unwrap();
        bed.script.lock().stores = Some(Vec::new());
        bed.script.lock().manifest_error =
            fails.then(|| Error::unavailable(SqlState::IO_ERROR, "away"));
        assert!(bed.flush().is_none());
        bed.event(failed(&t));
        bed.script.lock().manifest_error = None;
        let stored = bed.script.lock().stores.take();
        stored.into_iter().flatten().for_each(|e| bed.event(e));
        resume(&mut bed, &t).unwrap().unwrap();
        assert_eq!(bed.script.lock().rows(t.id), Some(12), "fails: {fails}");
        bed = bed.restart();
        assert_eq!(bed.script.lock().rows(t.id), Some(12), "fails: {fails}");
    }
}

#[test]
fn a_stopped_job_answers_as_of_its_last_complete_epoch_after_any_crash() {
    for checkpoints in [0, 1] {
        let mut bed = Bed::new(2);
        let (t, other) = (table(1, "t"), table(2, "other"));
        for relation in [&t, &other] {
            bed.create(relation);
        }
        bed.write(t.id, 5).unwrap().unwrap();
        bed.flush().unwrap().unwrap();
        bed.write(t.id, 7).unwrap().unwrap();
        // Nothing after this is complete when the table stops, and a checkpoint comes no more.
        bed.script.lock().stores = (checkpoints == 0).then(Vec::new);
        bed.event(failed(&t));
        let epoch = bed.script.lock().shown.stopped[&t.id].epoch;
        bed.write(other.id, 1).unwrap().unwrap();
        for _ in 0..checkpoints {
            bed.flush().unwrap().unwrap();
        }
        for _ in 0..2 {
            bed = bed.restart();
            assert_eq!(bed.script.lock().shown.stopped[&t.id].epoch, epoch);
            let start = bed.script.lock().started(t.id).unwrap();
            if checkpoints == 0 {
                // It ran once more up to there.
                assert!(matches!(start.mode, StartMode::Restored(_)));
                assert!(bed.coordinator.halted[&t.id].saved.answer.is_some());
            } else {
                assert!(start.mode == StartMode::Shown(epoch));
                let files = start.tables.values().flatten();
                assert_eq!(files.map(|f| f.rows).collect::<Vec<_>>(), [12]);
            }
        }
        resume(&mut bed, &t).unwrap().unwrap();
        assert_eq!(bed.script.lock().rows(t.id), Some(12));
    }
}

#[test]
fn a_sink_goes_on_with_the_difference_to_what_it_told() {
    for crashes in [0, 1] {
        let mut bed = Bed::new(1);
        let t = table(1, "t");
        let out = sink(2, "out", &t);
        for relation in [&t, &out] {
            bed.create(relation);
        }
        bed.write(t.id, 5).unwrap().unwrap();
        bed.event(failed(&t));
        bed.flush().unwrap().unwrap();
        for _ in 0..crashes {
            bed = bed.restart();
        }
        assert_eq!(stopped(&bed), [1, 2]);
        assert!(resume(&mut bed, &out).unwrap().is_err());
        resume(&mut bed, &t).unwrap().unwrap();
        bed.write(t.id, 3).unwrap().unwrap();
        resume(&mut bed, &out).unwrap().unwrap();
        let start = bed.script.lock().started(out.id).unwrap();
        let told: Vec<u64> = start.told[&t.id].iter().map(|f| f.rows).collect();
        assert_eq!(told, [5]);
        assert_eq!(bed.running(), [t.id, out.id].into());
    }
}

#[test]
fn a_sink_whose_inputs_could_not_be_stored_says_so() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let out = sink(2, "out", &t);
    for relation in [&t, &out] {
        bed.create(relation);
    }
    bed.write(t.id, 5).unwrap().unwrap();
    bed.script.lock().answer_error = Some(Error::internal("it cannot be encoded"));
    bed.event(failed(&t));
    resume(&mut bed, &t).unwrap().unwrap();
    let error = resume(&mut bed, &out).unwrap().err().unwrap();
    assert_eq!(error.state(), SqlState::FEATURE_NOT_SUPPORTED);
}

#[test]
fn a_sink_that_was_held_back_runs_again_with_what_it_reads() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let (v, out) = (view(2, "v", &t), sink(3, "out", &t));
    for relation in [&t, &v, &out] {
        bed.create(relation);
    }
    bed.write(t.id, 5).unwrap().unwrap();
    bed.flush().unwrap().unwrap();
    bed = bed
        .restart_with(|_, script| {
            let missing = Error::corrupt("checkpoint file f is missing");
            script.unreadable.insert(t.id, missing);
        })
        .unwrap();
    assert_eq!(stopped(&bed), [1, 2, 3]);
    bed.flush().unwrap().unwrap();
    bed = bed.restart();
    assert_eq!(bed.running(), [t.id, v.id, out.id].into());
    let start = bed.script.lock().started(out.id).unwrap();
    assert_eq!(start.told[&t.id].len(), 1);
}

#[test]
fn what_reads_a_relation_that_is_set_aside_does_not_run() {
    let mut bed = Bed::new(2);
    let (t, other) = (table(1, "t"), table(2, "other"));
    let v = view(3, "v", &t);
    for relation in [&t, &other, &v] {
        bed.create(relation);
    }
    bed.write(t.id, 5).unwrap().unwrap();
    bed = bed
        .restart_with(|recovered, _| {
            for id in [t.id, v.id] {
                recovered.set_aside.insert(id, "its plan is unknown".into());
            }
        })
        .unwrap();
    assert_eq!(bed.running(), [other.id].into());
    assert!(bed.write(other.id, 1).unwrap().is_ok());
}

/// It would keep a core busy until that is done.
#[test]
fn a_job_that_waits_for_another_one_does_not_wake_the_coordinator() {
    let mut bed = Bed::new(1);
    let t = table(1, "t");
    let v = view(2, "v", &t);
    for relation in [&t, &v] {
        bed.create(relation);
    }
    bed = bed
        .restart_with(|_, script| {
            let missing = Error::corrupt("checkpoint file f is missing");
            script.unreadable.insert(t.id, missing);
        })
        .unwrap();
    bed.flush().unwrap().unwrap();
    bed = bed
        .restart_with(|_, script| script.stores = Some(Vec::new()))
        .unwrap();
    assert!(bed.coordinator.creating.contains_key(&t.id));
    assert!(bed.coordinator.halted[&v.id].retry.is_some());
    assert_eq!(bed.coordinator.retry_deadline(), None);
}
