//! Who is to blame when recovery kills the process (rule 5): out of memory, a stack overflow, an
//! abort in a library. What panics within an operator is caught and needs none of this.
//!
//! While a node restores and replays, each worker notes in a file which job it runs and which epoch
//! that job has closed last, before it runs it, and takes the note back after. The page cache
//! outlives the process. A start that finds such a file follows a recovery that died; when two of
//! them in a row died in the same job at the same epoch, that job stops and the others go on. A
//! recovery that ends, and one that is ended in order, removes the file.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tidemark_common::{Epoch, Error, RelationId, Result, WorkerId};

/// Bytes of one worker's note: epoch, then relation, little-endian; no relation has the number 0.
const NOTE_BYTES: usize = 16;

/// A job and the epoch that it had closed last.
type Suspect = (u64, u64);

/// The notes of one recovery.
pub struct Recovery {
    notes: Mutex<Option<File>>,
    path: PathBuf,
    before: PathBuf,
}

impl Recovery {
    /// Begins the notes of this recovery; returns them with the jobs in which the last two died.
    pub fn begin(folder: &Path) -> Result<(Recovery, Vec<(Epoch, RelationId)>)> {
        let (path, before) = (folder.join("RECOVERY"), folder.join("RECOVERY.before"));
        let last = suspects(&path)?;
        let blamed: Vec<_> = last
            .intersection(&suspects(&before)?)
            .map(|(epoch, relation)| (Epoch(*epoch), RelationId(*relation as u32)))
            .collect();
        if path.exists() {
            fs::rename(&path, &before).map_err(|e| Error::from(e).context(path.display()))?;
        }
        let notes = File::create(&path).map_err(|e| Error::from(e).context(path.display()))?;
        Ok((
            Recovery {
                notes: Mutex::new(Some(notes)),
                path,
                before,
            },
            blamed,
        ))
    }

    /// The worker runs this job, which has closed `epoch`.
    pub fn enter(&self, worker: WorkerId, relation: RelationId, epoch: Epoch) {
        self.note(worker, u64::from(relation.0), epoch.0);
    }

    /// The worker has run it.
    pub fn leave(&self, worker: WorkerId) {
        self.note(worker, 0, 0);
    }

    fn note(&self, worker: WorkerId, relation: u64, epoch: u64) {
        if let Some(file) = self.notes.lock().as_ref() {
            let mut note = [0; NOTE_BYTES];
            note[..8].copy_from_slice(&epoch.to_le_bytes());
            note[8..].copy_from_slice(&relation.to_le_bytes());
            if let Err(error) = file.write_all_at(&note, (worker * NOTE_BYTES) as u64) {
                tracing::debug!(%error, "what recovery runs could not be noted");
            }
        }
    }

    /// Recovery has ended: nobody is to blame.
    pub fn end(&self) {
        if self.notes.lock().take().is_some() {
            for path in [&self.path, &self.before] {
                if let Err(error) = fs::remove_file(path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "the notes of a recovery that \
                        ended could not be removed");
                }
            }
        }
    }
}

/// What the workers ran when the recovery of these notes died.
fn suspects(path: &Path) -> Result<BTreeSet<Suspect>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(Error::from(e).context(path.display())),
    };
    let word = |b: &[u8]| {
        b.iter()
            .rev()
            .fold(0u64, |word, byte| word << 8 | u64::from(*byte))
    };
    Ok(bytes
        .chunks_exact(NOTE_BYTES)
        .map(|note| (word(&note[..8]), word(&note[8..])))
        .filter(|(_, relation)| *relation != 0)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_deaths_in_one_job_at_one_epoch_blame_it() {
        let folder = std::env::temp_dir().join(format!("tidemark-blame-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // Each death: what worker 1 ran, and the epoch; then who is blamed at the next start.
        let deaths = [
            (7, 100, None),
            (8, 100, None),
            (8, 101, None),
            (8, 101, Some((Epoch(101), RelationId(8)))),
        ];
        for (relation, epoch, blamed) in deaths {
            let (notes, _) = Recovery::begin(&folder).unwrap();
            notes.enter(0, RelationId(3), Epoch(1));
            notes.enter(1, RelationId(relation), Epoch(epoch));
            notes.leave(0);
            drop(notes);
            let copy = folder.join("next");
            fs::create_dir_all(&copy).unwrap();
            for name in ["RECOVERY", "RECOVERY.before"]
                .iter()
                .filter(|name| folder.join(name).exists())
            {
                fs::copy(folder.join(name), copy.join(name)).unwrap();
            }
            assert_eq!(Recovery::begin(&copy).unwrap().1, Vec::from_iter(blamed));
            fs::remove_dir_all(&copy).unwrap();
        }
        let (notes, blamed) = Recovery::begin(&folder).unwrap();
        assert_eq!(blamed.len(), 1);
        notes.end();
        notes.enter(1, RelationId(8), Epoch(101));
        assert!(Recovery::begin(&folder).unwrap().1.is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }
}
