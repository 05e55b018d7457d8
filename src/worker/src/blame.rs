//! Which job to hold back when recovery kills the process again and again: out of memory, a stack
//! overflow, an abort in a library. What panics within an operator is caught and needs none of
//! this. A death is no proof of guilt (a `kill -9`, a liveness probe, a power failure end a
//! recovery as well, and most likely in the job that takes longest), so nothing is logged and
//! nobody is stopped for good.
//!
//! While a worker builds a job, and while the node replays, it notes in the file `RECOVERY` which
//! job it runs, the epoch that the job has closed last and how many rows of its state are restored.
//! The page cache outlives the process. A start that finds notes follows a process that died in
//! them. It counts in the file `SUSPECTS`, one line a job: how far it has ever come, and how many
//! deaths in a row came no further. With [`DEATHS_MAX`] of them the job is not started with the
//! others, but after a pause that doubles with each further death. A job that runs is acquitted.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_common::disk::DiskFile;
use tidemark_common::{Epoch, Error, RelationId, Result, WorkerId, machine};
use tidemark_control::coordinator::recovery::Suspect;

/// Bytes of one worker's note: relation, epoch and rows, little-endian; no relation has the number
/// 0.
const NOTE_BYTES: usize = 24;

/// Deaths in one job without any progress after which it waits for all others.
const DEATHS_MAX: u32 = 3;

/// How long a suspect waits at first, and at most.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How far a job has come: the epoch that it has closed, and rows restored.
type Progress = (u64, u64);

/// Deaths in one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    deaths: u32,
    progress: Progress,
}

/// The notes of this process, and what is known of those that died.
pub struct Recovery {
    notes: Mutex<Box<dyn DiskFile>>,
    folder: PathBuf,
    suspects: Mutex<BTreeMap<u32, Record>>,
    /// Until recovery has ended, a job that was started has proven nothing.
    recovering: AtomicBool,
    /// It was left off: what is noted now says nothing.
    left_off: AtomicBool,
}

impl Recovery {
    /// Begins the notes of this process; returns them with the jobs that have to wait.
    pub fn begin(folder: &Path) -> Result<(Recovery, Vec<Suspect>)> {
        let (path, disk) = (folder.join("RECOVERY"), machine::disk());
        let mut suspects = read_suspects(&folder.join("SUSPECTS"))?;
        for (relation, progress) in read_notes(&path)? {
            let record = suspects.entry(relation).or_insert(Record {
                deaths: 0,
                progress,
            });
            record.deaths = if progress > record.progress {
                1
            } else {
                record.deaths.saturating_add(1)
            };
            record.progress = record.progress.max(progress);
        }
        // The count before the notes that it contains are gone: a death between counts twice.
        write_suspects(folder, &suspects)?;
        let mut notes = disk
            .open(&path)
            .map_err(|e| Error::from(e).context(path.display()))?;
        notes.truncate(0)?;
        let waiting = suspects
            .iter()
            .filter(|(_, record)| record.deaths >= DEATHS_MAX)
            .map(|(relation, record)| Suspect {
                relation: RelationId(*relation),
                deaths: record.deaths,
                pause: PAUSE
                    .saturating_mul(1 << (record.deaths - DEATHS_MAX).min(16))
                    .min(PAUSE_MAX),
            })
            .collect();
        Ok((
            Recovery {
                notes: Mutex::new(notes),
                folder: folder.into(),
                suspects: Mutex::new(suspects),
                recovering: AtomicBool::new(true),
                left_off: AtomicBool::new(false),
            },
            waiting,
        ))
    }

    /// The worker runs this job, which has closed `epoch`.
    pub fn enter(&self, worker: WorkerId, relation: RelationId, epoch: Epoch) {
        self.note(worker, 0, &[u64::from(relation.0), epoch.0, 0]);
    }

    /// The worker has restored so many rows of the job that it runs.
    pub fn progress(&self, worker: WorkerId, rows: u64) {
        self.note(worker, 2, &[rows]);
    }

    /// The worker has run it.
    pub fn leave(&self, worker: WorkerId) {
        self.note(worker, 0, &[0, 0, 0]);
    }

    /// What runs ends in its middle, though the process goes on: nobody is to blame for that, and
    /// nobody is acquitted.
    pub fn leave_off(&self) {
        let mut notes = self.notes.lock();
        self.left_off.store(true, Ordering::Release);
        if let Err(error) = notes.truncate(0) {
            tracing::warn!(%error, "the notes of what was left off could not be removed");
        }
    }

    fn note(&self, worker: WorkerId, word: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = worker * NOTE_BYTES + word * 8;
        let mut notes = self.notes.lock();
        if self.left_off.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = notes.write_at(at as u64, &bytes) {
            tracing::debug!(%error, "what runs could not be noted");
        }
    }

    /// Recovery has ended in order: nobody is to blame for what comes, and the jobs that took part
    /// in it are acquitted. Those that wait still have to show that they run.
    pub fn end(&self) {
        self.recovering.store(false, Ordering::Release);
        let mut suspects = self.suspects.lock();
        let before = suspects.len();
        suspects.retain(|_, record| record.deaths >= DEATHS_MAX);
        if suspects.len() < before {
            self.keep(&suspects);
        }
        if let Err(error) = self.notes.lock().truncate(0) {
            tracing::warn!(%error, "the notes of a recovery that ended could not be removed");
        }
    }

    /// The job runs; during recovery that is only said of it, and proves nothing.
    pub fn acquit(&self, relation: RelationId) {
        let mut suspects = self.suspects.lock();
        if !self.recovering.load(Ordering::Acquire) && suspects.remove(&relation.0).is_some() {
            self.keep(&suspects);
        }
    }

    fn keep(&self, suspects: &BTreeMap<u32, Record>) {
        if let Err(error) = write_suspects(&self.folder, suspects) {
            tracing::warn!(%error, "the count of deaths could not be written");
        }
    }
}

/// The jobs that the process of these notes ran when it died, each as far as any worker had come.
fn read_notes(path: &Path) -> Result<BTreeMap<u32, Progress>> {
    let bytes = match machine::disk().read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::from(e).context(path.display())),
    };
    let mut notes = BTreeMap::new();
    for note in bytes.chunks_exact(NOTE_BYTES) {
        let word = |i: usize| {
            let word = note[i * 8..][..8].iter().rev();
            word.fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        if let Ok(relation @ 1..) = u32::try_from(word(0)) {
            let progress = notes.entry(relation).or_insert((0, 0));
            *progress = (*progress).max((word(1), word(2)));
        }
    }
    Ok(notes)
}

/// Lines of `relation deaths epoch rows`. What is no such line is left out: it is a hint, no more.
fn read_suspects(path: &Path) -> Result<BTreeMap<u32, Record>> {
    let text = match machine::disk().read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::from(e).context(path.display())),
    };
    let parse = |line: &str| {
        let mut words = line.split(' ').map(|w| w.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let relation = u32::try_from(next()?).ok()?;
        let deaths = u32::try_from(next()?).ok()?;
        let progress = (next()?, next()?);
        Some((relation, Record { deaths, progress }))
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn write_suspects(folder: &Path, suspects: &BTreeMap<u32, Record>) -> Result<()> {
    let path = folder.join("SUSPECTS");
    let lines = suspects.iter().map(|(relation, r)| {
        let (epoch, rows) = r.progress;
        format!("{relation} {} {epoch} {rows}\n", r.deaths)
    });
    let (made, disk) = (folder.join("SUSPECTS.new"), machine::disk());
    let replaced = disk.open(&made).and_then(|mut file| {
        file.truncate(0)?;
        file.write_at(0, lines.collect::<String>().as_bytes())?;
        disk.rename(&made, &path)
    });
    replaced.map_err(|e| Error::from(e).context(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A process that dies while worker 1 has `rows` of job 8 restored; who waits at the next
    /// start.
    fn die(folder: &Path, rows: u64) -> Vec<(u32, u64)> {
        let (notes, _) = Recovery::begin(folder).unwrap();
        notes.enter(0, RelationId(3), Epoch(1));
        notes.enter(1, RelationId(8), Epoch(0));
        notes.progress(1, rows);
        notes.leave(0);
        drop(notes);
        let (_, waiting) = Recovery::begin(folder).unwrap();
        let waiting = waiting.iter().map(|s| (s.relation.0, s.pause.as_secs()));
        waiting.collect()
    }

    #[test]
    fn deaths_without_progress_make_a_job_wait_ever_longer_until_it_runs() {
        let folder = std::env::temp_dir().join(format!("tidemark-blame-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // Slow is not guilty.
        for rows in 1..=10 {
            assert_eq!(die(&folder, rows * 100), []);
        }
        assert_eq!(die(&folder, 700), []);
        assert_eq!(die(&folder, 1000), [(8, 5)]);
        assert_eq!(die(&folder, 30), [(8, 10)]);
        for _ in 0..40 {
            die(&folder, 30);
        }
        assert_eq!(die(&folder, 30), [(8, 600)]);
        // An end in order is no death, and who runs is acquitted.
        let (notes, _) = Recovery::begin(&folder).unwrap();
        notes.enter(1, RelationId(9), Epoch(0));
        notes.acquit(RelationId(8));
        assert!(!read_suspects(&folder.join("SUSPECTS")).unwrap().is_empty());
        notes.end();
        notes.acquit(RelationId(8));
        assert!(Recovery::begin(&folder).unwrap().1.is_empty());
        assert_eq!(die(&folder, 30), []);
        fs::remove_dir_all(&folder).unwrap();
    }
}
