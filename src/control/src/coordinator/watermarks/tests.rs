//! Floors from what is told of idle splits to the log and back, on the test bed.

use super::super::testing::{Bed, at, source, view};
use super::*;
use crate::Entry;
use crate::protocol::{Command, Positions, Request};
use tidemark_plan::{Relation, Watermark};

fn split(split: SplitId, next_offset: i64, event_time_micros: Option<i64>) -> SplitPosition {
    SplitPosition {
        split,
        event_time_micros,
        ..at(next_offset)
    }
}

fn floor(split: SplitId, offset: i64, event_time_micros: i64) -> Floor {
    Floor {
        split,
        offset,
        event_time_micros,
    }
}

/// A source of three splits that is read.
fn bed(stands: Vec<SplitPosition>) -> (Bed, Relation) {
    let mut s = source(1, "s");
    s.watermark = Some(Watermark {
        column: 0,
        delay_micros: 10,
        idle_micros: Some(1_000_000),
    });
    let mut bed = Bed::new(2);
    let start = (0..3).map(|n| split(n, 0, None)).collect();
    bed.create_at(&s, start).unwrap().unwrap();
    bed.create(&view(2, "v", &s));
    bed.script.lock().positions = Positions::from([(s.id, stands)]);
    bed.flush().unwrap().unwrap();
    (bed, s)
}

fn tell(bed: &mut Bed, s: &Relation, splits: &[(SplitId, i64)], earliest: Vec<SplitPosition>) {
    let (relation, splits) = (s.id, splits.to_vec());
    bed.request(Request::Idle {
        relation,
        splits,
        earliest,
    });
    bed.run();
}

fn promised(bed: &Bed, s: &Relation) -> Option<i64> {
    let commands = &bed.script.lock().commands;
    let last = commands.iter().rev().find_map(|c| match c {
        Command::Barrier(barrier) => Some(barrier.watermarks.get(&s.id).copied()),
        _ => None,
    });
    last.flatten()
}

#[test]
fn idle_splits_are_raised_to_the_others_and_that_is_logged() {
    let stands = vec![
        split(0, 5, Some(100)),
        split(1, 0, None),
        split(2, 7, Some(40)),
    ];
    let (mut bed, s) = bed(stands);
    assert_eq!(promised(&bed, &s), None);
    // One that has moved since is not idle, and holds back.
    tell(&mut bed, &s, &[(1, 0), (2, 6)], Vec::new());
    assert_eq!(promised(&bed, &s), Some(30));
    assert_eq!(bed.coordinator.decisions.floors_of(s.id), [floor(1, 0, 40)]);
    tell(&mut bed, &s, &[(1, 0), (2, 7)], Vec::new());
    assert_eq!(promised(&bed, &s), Some(90));
    let floors = vec![floor(1, 0, 100), floor(2, 7, 100)];
    assert_eq!(bed.coordinator.decisions.floors_of(s.id), floors);
    assert_eq!(bed.readers.floors()[&s.id], floors);
    // It holds for one barrier, and needs none where nothing is raised.
    let barriers = bed.script.lock().commands.len();
    tell(&mut bed, &s, &[(1, 0), (2, 7)], Vec::new());
    assert_eq!(bed.script.lock().commands.len(), barriers);
    let forward = |bed: &Bed| {
        let positions = &mut bed.script.lock().positions;
        positions.get_mut(&s.id).unwrap()[0].event_time_micros = Some(200);
    };
    forward(&bed);
    bed.flush().unwrap().unwrap();
    assert_eq!(promised(&bed, &s), Some(90));
    // All of them: no promise moves without rows.
    tell(&mut bed, &s, &[(0, 5), (1, 0), (2, 7)], Vec::new());
    assert_eq!(promised(&bed, &s), Some(90));
    // From the checkpoint, and from the log behind it.
    tell(&mut bed, &s, &[(1, 0)], Vec::new());
    let floors = vec![floor(1, 0, 100), floor(2, 7, 100)];
    assert_eq!(bed.coordinator.decisions.floors_of(s.id), floors);
    tell(&mut bed, &s, &[(1, 0), (2, 7)], Vec::new());
    let floors = vec![floor(1, 0, 200), floor(2, 7, 200)];
    for _ in 0..2 {
        bed = bed.restart();
        assert_eq!(bed.coordinator.decisions.floors_of(s.id), floors);
        assert_eq!(bed.readers.floors()[&s.id], floors);
        let started = bed.script.lock().started(s.id).unwrap();
        assert_eq!(started.floors, floors);
        let positions = bed.coordinator.decisions.positions.clone();
        bed.script.lock().positions = positions;
        bed.flush().unwrap().unwrap();
    }
}

#[test]
fn floors_are_forgotten_with_their_source_and_below_what_the_broker_has() {
    let stands = vec![
        split(0, 5, Some(100)),
        split(1, 9, None),
        split(2, 7, Some(400)),
    ];
    let (mut bed, s) = bed(stands);
    for (offset, time) in [(2, 10), (4, 20), (6, 30)] {
        let floors = Floors::from([(s.id, vec![floor(1, offset, time), floor(2, 1, 5)])]);
        let mut cut = crate::Cut::new(
            bed.coordinator.next_epoch,
            i64::MAX,
            Positions::new(),
            vec![],
        );
        cut.floors = floors;
        bed.coordinator.decisions.put_floors(&cut.floors);
        assert_eq!(
            Entry::decode(&Entry::Cut(cut.clone()).encode().unwrap()).unwrap(),
            Entry::Cut(cut)
        );
    }
    tell(
        &mut bed,
        &s,
        &[],
        vec![split(1, 4, None), split(2, 4, None)],
    );
    let left = [floor(1, 4, 20), floor(1, 6, 30), floor(2, 1, 5)];
    // Nothing asks for a barrier because of that.
    bed.flush().unwrap().unwrap();
    assert_eq!(bed.coordinator.decisions.floors_of(s.id), left);
    bed.coordinator.decisions.forget(s.id);
    assert_eq!(bed.coordinator.decisions.floors_of(s.id), []);
}

#[test]
fn who_has_too_many_floors_gets_no_more() {
    let stands = vec![
        split(0, 5, Some(100)),
        split(1, 2000, None),
        split(2, 7, Some(400)),
    ];
    let (mut bed, s) = bed(stands);
    let many = (0..FLOORS_MAX as i64).map(|n| floor(1, n, n - 5000));
    let many = Floors::from([(s.id, many.collect())]);
    bed.coordinator.decisions.put_floors(&many);
    tell(&mut bed, &s, &[(1, 2000)], Vec::new());
    assert_eq!(promised(&bed, &s), None);
    assert_eq!(bed.coordinator.decisions.floors_of(s.id).len(), FLOORS_MAX);
}
