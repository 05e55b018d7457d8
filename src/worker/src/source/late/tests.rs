//! A split's history of rows and floors, read live, again from the start, in any pieces, and on
//! from any position: the same rows are late; and so they are for the definition, row by row.

use super::*;
use tidemark_common::random::Random;

const DELAY: i64 = 3;

fn at(next_offset: i64, event_time_micros: Option<i64>) -> SplitPosition {
    SplitPosition {
        split: 1,
        topic_id: String::new(),
        leader_epoch: -1,
        newest_epoch: -1,
        next_offset,
        records: 0,
        time_ms: -1,
        event_time_micros,
    }
}

fn floor(offset: i64, event_time_micros: i64) -> Floor {
    Floor {
        split: 1,
        offset,
        event_time_micros,
    }
}

/// The law: which rows are late, and what is reached behind each.
fn defined(rows: &[Option<i64>], floors: &[Floor]) -> (Vec<bool>, Vec<Option<i64>>) {
    let timed = |time: &Option<i64>| time.filter(|time| *time != i64::MAX);
    let (mut late, mut reached) = (Vec::new(), Vec::new());
    for offset in 0..=rows.len() {
        let under = floors.iter().filter(|f| f.offset <= offset as i64);
        let under = under.map(|f| Some(f.event_time_micros)).max().flatten();
        let most = rows[..offset].iter().map(timed).max().flatten().max(under);
        reached.push(most);
        if let Some(row) = rows.get(offset) {
            let is_late = |time: i64| most.is_some_and(|most| time < most - DELAY);
            late.push(timed(row).is_some_and(is_late));
        }
    }
    (late, reached)
}

/// Reads a split as a reader does: no further than to the next floor at once. Hands `each` every
/// place where it stands.
struct Reader<'a> {
    rows: &'a [Option<i64>],
    late: Lateness,
    offset: usize,
    is_late: Vec<bool>,
}

impl<'a> Reader<'a> {
    fn new(rows: &'a [Option<i64>], floors: &[Floor], position: SplitPosition) -> Reader<'a> {
        let mut late = Lateness::default();
        late.begin(std::slice::from_ref(&position));
        late.learn(floors, std::slice::from_ref(&position));
        Reader {
            rows,
            late,
            offset: position.next_offset as usize,
            is_late: Vec::new(),
        }
    }

    fn position(&self) -> SplitPosition {
        at(self.offset as i64, self.late.reached(1))
    }

    fn read(&mut self, rows: usize, end: usize) {
        let to = self.late.next(1).map_or(end, |next| end.min(next as usize));
        let to = to.min(self.offset + rows);
        let times = self.rows[self.offset..to].iter().copied();
        let on_time = self.late.take(1, times, DELAY);
        self.is_late.extend(on_time.iter().map(|on_time| !on_time));
        self.offset = to;
        let position = self.position();
        self.late.stand(&position);
    }

    fn read_to(&mut self, end: usize, dice: &mut Random) {
        while self.offset < end {
            self.read(1 + dice.below(4) as usize, end);
        }
    }
}

fn time(now: i64, dice: &mut Random) -> Option<i64> {
    match dice.below(12) {
        0 => None,
        1 => Some(i64::MAX),
        2 => Some(now - 12),
        _ => Some(now - dice.below(7) as i64),
    }
}

#[test]
fn what_is_late_for_one_is_late_for_all() {
    let mut effective = 0;
    for seed in 0..2000 {
        let mut dice = Random(seed + 1);
        let mut now = 20;
        let times = |_| {
            now += dice.below(4) as i64;
            time(now, &mut dice)
        };
        let rows: Vec<Option<i64>> = (0..30).map(times).collect();
        // Live: floors are put where it stands, now and then several.
        let mut live = Reader::new(&rows, &[], at(0, None));
        let (mut put, mut kept, mut stood) = (Vec::new(), Vec::new(), Vec::new());
        while live.offset < rows.len() {
            for _ in 0..dice.below(3) {
                let position = live.position();
                let reached = position.event_time_micros.unwrap_or(dice.below(20) as i64);
                let floor = floor(position.next_offset, reached + 1 + dice.below(15) as i64);
                live.late.put(floor, &position);
                floor.put(&mut put);
                floor.put(&mut kept);
            }
            stood.push((live.position(), kept.clone()));
            live.read(1 + dice.below(6) as usize, rows.len());
            let moot = live.late.take_moot();
            moot.into_iter().for_each(|floor| floor.put(&mut kept));
        }
        let (late, reached) = defined(&rows, &put);
        assert_eq!(live.is_late, late, "seed {seed}");
        assert_eq!(live.late.reached(1), reached[rows.len()], "seed {seed}");
        assert!(kept.len() <= put.len());
        effective += kept.len();
        // Later: all from the start, with all floors that were put or only with those that are
        // kept.
        for floors in [&put, &kept] {
            let mut later = Reader::new(&rows, floors, at(0, None));
            later.read_to(rows.len(), &mut dice);
            assert_eq!(later.is_late, late, "seed {seed}");
            assert_eq!(later.late.reached(1), reached[rows.len()], "seed {seed}");
        }
        // On from any cut, with what is known at the end.
        for (position, known) in &stood {
            let offset = position.next_offset as usize;
            let mut again = Reader::new(&rows, &kept, position.clone());
            again.read_to(rows.len(), &mut dice);
            assert_eq!(again.is_late, late[offset..], "seed {seed}");
            // Up to there a reader that begins then knows enough; what is decided meanwhile it
            // learns where the live one stands.
            let mut catching_up = Reader::new(&rows, known, at(0, None));
            catching_up.read_to(offset, &mut dice);
            catching_up.late.learn(&kept, &[catching_up.position()]);
            catching_up.read_to(rows.len(), &mut dice);
            assert_eq!(catching_up.is_late, late, "seed {seed}");
        }
    }
    assert!(effective > 1000, "floors mattered {effective} times");
}

#[test]
fn a_floor_above_which_the_next_row_lies_is_forgotten() {
    let mut late = Lateness::default();
    late.put(floor(0, 50), &at(0, None));
    late.put(floor(0, 60), &at(0, None));
    assert_eq!(late.floors(), [floor(0, 60)]);
    assert_eq!((late.reached(1), late.has_next()), (Some(60), false));
    // No row with a time says nothing.
    assert_eq!(
        late.take(1, [None, Some(i64::MAX)].into_iter(), DELAY),
        [true; 2]
    );
    assert_eq!(late.take_moot(), []);
    assert_eq!(
        late.take(1, [Some(60), Some(1)].into_iter(), DELAY),
        [true, false]
    );
    assert_eq!(late.take_moot(), [floor(0, Floor::NONE)]);
    assert_eq!(late.floors(), []);
    // One that makes a row late, or could have, stays.
    late.put(floor(4, 90), &at(4, Some(60)));
    assert_eq!(
        late.take(1, [Some(89), Some(99)].into_iter(), DELAY),
        [true, true]
    );
    assert_eq!(
        (late.take_moot(), late.floors()),
        (vec![], vec![floor(4, 90)])
    );
}
