//! `tidemark backup` and `tidemark restore`: what they tell. How a backup is made is the state
//! crate's ([`tidemark_node::backup`]).
//!
//! Progress goes to stderr, now and then; what became of it is one line on stdout.

use crate::cli;
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tidemark_common::memory::about;
use tidemark_common::{Result, machine};
use tidemark_node::CheckpointStore;
use tidemark_node::backup::{self, Copied};

/// How often it is told how far a copy is.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

/// Makes a backup, and looks over the store.
pub async fn back_up(words: &cli::Backup) -> Result<()> {
    let live = CheckpointStore::open_existing(&words.checkpoint_url)?;
    let target = CheckpointStore::open(&words.target)?;
    let progress = Progress::new();
    let copied = backup::back_up(&live, &target, &|copied| progress.tell(copied)).await?;
    println!("{}", made(&copied, &words.target, machine::micros()));
    backup::look_over(&live).await
}

/// Restores one, and says how to go on.
pub async fn restore(words: &cli::Restore) -> Result<()> {
    let backups = CheckpointStore::open_existing(&words.backup)?;
    let place = CheckpointStore::open(&words.checkpoint_url)?;
    let progress = Progress::new();
    let copied = backup::restore(&backups, &place, &|copied| progress.tell(copied)).await?;
    let url = &words.checkpoint_url;
    println!("{}", restored(&copied, url, machine::micros()));
    eprintln!(
        "\nStart it with an empty data folder and the secret key of the cluster:\n\n  \
         tidemark start --data-dir EMPTY --checkpoint-url {url} --recover-from-checkpoint\n\n\
         It is the same database: do not let it run beside the one that the backup was made of.\n"
    );
    Ok(())
}

fn made(copied: &Copied, url: &str, now_micros: i64) -> String {
    format!(
        "backup of epoch {}, {} old: {}, {} copied, {} there already, in {url}",
        copied.epoch,
        age(copied, now_micros),
        files(copied.files),
        about(copied.copied_bytes),
        about(copied.present_bytes)
    )
}

fn restored(copied: &Copied, url: &str, now_micros: i64) -> String {
    format!(
        "restored epoch {} of cluster {}, {} old: {}, {}, to {url}",
        copied.epoch,
        copied.cluster,
        age(copied, now_micros),
        files(copied.files),
        about(copied.bytes)
    )
}

fn files(count: u64) -> String {
    match count {
        1 => "1 file".into(),
        _ => format!("{count} files"),
    }
}

/// How long ago the epoch of a checkpoint was, in the largest unit of which there are two.
fn age(copied: &Copied, now_micros: i64) -> String {
    let seconds = now_micros.saturating_sub(copied.clock).max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Tells now and then how far a copy is.
struct Progress {
    told: Mutex<Instant>,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            told: Mutex::new(machine::now()),
        }
    }

    fn tell(&self, copied: &Copied) {
        let mut told = self.told.lock();
        if machine::elapsed(*told) < TELL_INTERVAL {
            return;
        }
        *told = machine::now();
        eprintln!(
            "epoch {}: {}, {}; {}, {} copied, {} there already",
            copied.epoch,
            files(copied.files),
            about(copied.bytes),
            files(copied.copied_files),
            about(copied.copied_bytes),
            about(copied.present_bytes)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let copied = Copied {
            cluster: "c".into(),
            epoch: 7,
            clock: 1_000_000,
            files: 3,
            bytes: 3 << 20,
            copied_files: 1,
            copied_bytes: 1 << 20,
            present_bytes: 2 << 20,
        };
        assert_eq!(
            made(&copied, "file:///b", 4_500_000),
            "backup of epoch 7, 3 s old: 3 files, 1.0 MB copied, 2.0 MB there already, in \
             file:///b"
        );
        assert_eq!(
            restored(&copied, "file:///n", 7_300_000_000),
            "restored epoch 7 of cluster c, 2 h old: 3 files, 3.0 MB, to file:///n"
        );
        assert_eq!(age(&copied, 1_000_000 + 300 * 86_400_000_000), "300 days");
        assert_eq!(age(&copied, 0), "0 s");
    }
}
