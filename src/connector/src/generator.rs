//! What the generators share: a source whose rows are a function of (split, offset). `Generate` is
//! that function; reading positions, limits, the interleaving of splits and pacing are written
//! once, here.
//!
//! A reader always continues with the split that stands at the lowest event number, so that event
//! time advances evenly over its splits. Pacing only delays: which rows come, and their offsets,
//! never depends on a clock.

use crate::metrics::SourceMetrics;
use arrow::array::RecordBatch;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{
    SourceBatch, SourceConnector, SourceReader, SplitPosition, Waker,
};
use tidemark_common::{Error, Result, SplitId};

/// Rows as a function of split and offset.
pub trait Generate: Send + Sync + 'static {
    /// Number of splits, numbered from 0.
    fn splits(&self) -> u32;
    /// The end of a split (exclusive); `i64::MAX` if it is endless.
    fn end(&self, split: SplitId) -> i64;
    /// The number, over all splits, of the event at `offset`.
    fn number(&self, split: SplitId, offset: i64) -> u64;
    /// The rows at the offsets `from..to`, at most `rows_max` of them, with `columns` of the
    /// source's row; and the offset after them. May have no rows where the offsets hold events of
    /// other kinds.
    fn rows(
        &self,
        split: SplitId,
        from: i64,
        to: i64,
        rows_max: usize,
        columns: &[usize],
    ) -> Result<(RecordBatch, i64)>;
    /// The number of the event of each row that the same call of `rows` returns.
    fn numbers(&self, split: SplitId, from: i64, to: i64, rows_max: usize) -> Vec<u64>;
}

/// A generator as source.
pub struct GeneratorSource {
    generate: Arc<dyn Generate>,
    columns: usize,
    rows_per_second: u64,
    metrics: SourceMetrics,
}

impl GeneratorSource {
    /// A source of `columns` columns; `rows_per_second` over all splits, 0 for as many as possible.
    pub fn new(
        generate: Arc<dyn Generate>,
        columns: usize,
        rows_per_second: u64,
        metrics: SourceMetrics,
    ) -> GeneratorSource {
        GeneratorSource {
            generate,
            columns,
            rows_per_second,
            metrics,
        }
    }
}

impl SourceConnector for GeneratorSource {
    fn start(&self) -> Result<Vec<SplitPosition>> {
        Ok((0..self.generate.splits())
            .map(|split| SplitPosition {
                split,
                topic_id: String::new(),
                leader_epoch: -1,
                newest_epoch: -1,
                next_offset: 0,
                records: 0,
                time_ms: -1,
                event_time_micros: None,
            })
            .collect())
    }

    fn end(&self) -> Result<Vec<SplitPosition>> {
        self.start()
    }

    fn readable(&self) -> Result<Vec<SplitPosition>> {
        let ends: Vec<i64> = (0..self.generate.splits())
            .map(|split| self.generate.end(split))
            .collect();
        if self.rows_per_second > 0 || ends.contains(&i64::MAX) {
            return self.start();
        }
        Ok(self
            .start()?
            .into_iter()
            .zip(ends)
            .map(|(start, end)| SplitPosition {
                next_offset: end,
                ..start
            })
            .collect())
    }

    fn open(&self, positions: &[SplitPosition], waker: Waker) -> Result<Box<dyn SourceReader>> {
        let pacer = (self.rows_per_second > 0)
            .then(|| Pacer::new(waker))
            .transpose()?;
        let mut reader = GeneratorReader {
            generate: self.generate.clone(),
            columns: (0..self.columns).collect(),
            timed: false,
            splits: Vec::new(),
            rows_per_second: self.rows_per_second,
            pacer,
            repeats: false,
            metrics: self.metrics.clone(),
        };
        reader.add_splits(positions)?;
        Ok(Box::new(reader))
    }
}

struct SplitState {
    position: SplitPosition,
    end: i64,
    limit: i64,
}

struct GeneratorReader {
    generate: Arc<dyn Generate>,
    columns: Vec<usize>,
    /// Whether the rows' times are asked for: the numbers of their events stand for them.
    timed: bool,
    splits: Vec<SplitState>,
    rows_per_second: u64,
    pacer: Option<Pacer>,
    /// Limits say that these rows were read before: they are not new, and the rate is that of new
    /// ones.
    repeats: bool,
    metrics: SourceMetrics,
}

impl GeneratorReader {
    /// The readable split with the lowest event number.
    fn behind(&self) -> Option<usize> {
        let readable = self
            .splits
            .iter()
            .enumerate()
            .filter(|(_, s)| s.position.next_offset < s.limit);
        readable
            .min_by_key(|(_, s)| {
                self.generate
                    .number(s.position.split, s.position.next_offset)
            })
            .map(|(i, _)| i)
    }
}

impl SourceReader for GeneratorReader {
    fn poll(&mut self, rows_max: usize) -> Result<Option<SourceBatch>> {
        while let Some(i) = self.behind() {
            let mut pacer = self.pacer.as_mut().filter(|_| !self.repeats);
            let rows_max = pacer.as_mut().map_or(rows_max, |p| p.permit(rows_max));
            if rows_max == 0 {
                return Ok(None);
            }
            let state = &mut self.splits[i];
            let (split, from) = (state.position.split, state.position.next_offset);
            let (rows, next) =
                self.generate
                    .rows(split, from, state.limit, rows_max, &self.columns)?;
            assert!(
                next > state.position.next_offset && next <= state.limit,
                "a generator advances within its limit"
            );
            state.position.next_offset = next;
            if rows.num_rows() == 0 {
                continue;
            }
            state.position.records += rows.num_rows() as u64;
            let times_ms: Vec<i64> = if self.timed {
                self.generate
                    .numbers(split, from, state.limit, rows_max)
                    .into_iter()
                    .map(|n| n as i64)
                    .collect()
            } else {
                Vec::new()
            };
            state.position.time_ms = times_ms.last().copied().unwrap_or(state.position.time_ms);
            if let Some(pacer) = pacer {
                pacer.count(rows.num_rows());
            }
            self.metrics.records.inc_by(rows.num_rows() as u64);
            return Ok(Some(SourceBatch {
                split,
                changes: ChangeBatch::insert(rows),
                errors: Vec::new(),
                faulty: Vec::new(),
                times_ms,
            }));
        }
        Ok(None)
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.splits.iter().map(|s| s.position.clone()).collect()
    }

    fn set_limits(&mut self, limits: &[SplitPosition]) {
        self.repeats = !limits.is_empty();
        for state in &mut self.splits {
            let limit = limits
                .iter()
                .find(|l| l.split == state.position.split)
                .map_or(i64::MAX, |l| l.next_offset);
            state.limit = limit.min(state.end);
        }
    }

    fn set_columns(&mut self, columns: &[usize]) {
        self.columns = columns.to_vec();
    }

    fn set_times(&mut self, wanted: bool) {
        self.timed = wanted;
    }

    fn add_splits(&mut self, splits: &[SplitPosition]) -> Result<()> {
        for position in splits {
            if position.split >= self.generate.splits() || position.next_offset < 0 {
                return Err(Error::corrupt(format!(
                    "the generator has no offset {} in split {}",
                    position.next_offset, position.split
                )));
            }
            let end = self.generate.end(position.split);
            self.splits.push(SplitState {
                position: position.clone(),
                end,
                limit: end,
            });
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.set_rate(
                self.rows_per_second as f64 * self.splits.len() as f64
                    / f64::from(self.generate.splits()),
            );
        }
        Ok(())
    }
}

/// Lets rows through at a rate, and wakes the reader when more are due. What was not taken for
/// longer than a second is not made up for.
struct Pacer {
    rate: f64,
    since: Instant,
    taken: u64,
    wake_at: mpsc::Sender<Instant>,
    armed_until: Option<Instant>,
}

/// The reader is woken at most this often.
const TICK: Duration = Duration::from_millis(1);

impl Pacer {
    fn new(waker: Waker) -> Result<Pacer> {
        let (wake_at, requests) = mpsc::channel::<Instant>();
        // The thread ends when the reader, and with it the sender, is dropped.
        std::thread::Builder::new()
            .name("generator-pace".into())
            .spawn(move || {
                while let Ok(due) = requests.recv() {
                    let wait = due.saturating_duration_since(Instant::now());
                    std::thread::sleep(wait);
                    waker();
                }
            })?;
        Ok(Pacer {
            rate: 1.0,
            since: Instant::now(),
            taken: 0,
            wake_at,
            armed_until: None,
        })
    }

    fn set_rate(&mut self, rate: f64) {
        self.rate = rate.max(f64::MIN_POSITIVE);
        self.since = Instant::now();
        self.taken = 0;
    }

    /// How many rows may go now, at most `rows_max`; arms the wake-up when none may.
    fn permit(&mut self, rows_max: usize) -> usize {
        let now = Instant::now();
        let due = (now - self.since).as_secs_f64() * self.rate;
        let permitted = (due - self.taken as f64).max(0.0);
        if permitted >= 1.0 {
            if permitted > self.rate.max(1.0) {
                self.taken = (due - self.rate.max(1.0)) as u64;
            }
            return rows_max.min(permitted as usize);
        }
        if self.armed_until.is_none_or(|armed| armed <= now) {
            let wait = Duration::from_secs_f64(((1.0 - permitted) / self.rate).min(1.0)).max(TICK);
            self.armed_until = Some(now + wait);
            // A closed channel means that the thread is gone, which only happens after this pacer.
            let _ = self.wake_at.send(now + wait);
        }
        0
    }

    fn count(&mut self, rows: usize) {
        self.taken += rows as u64;
    }
}
