//! Runs every script below `sql-tests/` against a server of its own, two at a time.
//!
//! `SLT=joins,ddl` runs the scripts whose path contains one of these words; `UPDATE=1` writes the
//! answers into the files instead of comparing, to be read with `git diff` before they are
//! believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_sim::script::{Mode, run};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Servers at a time.
const PARALLEL: usize = 2;
/// Workers of each.
const WORKERS: usize = 2;
/// A script that takes longer hangs.
const SCRIPT_SECONDS_MAX: u64 = 180;

#[tokio::test(flavor = "multi_thread")]
async fn scripts() {
    let mode = if std::env::var("UPDATE").is_ok_and(|v| v == "1") {
        Mode::Update
    } else {
        Mode::Check
    };
    let only = std::env::var("SLT").unwrap_or_default();
    let root = root();
    let mut files = Vec::new();
    collect(&root.join("sql-tests"), &mut files);
    files.sort();
    let wanted = |f: &PathBuf| {
        only.split(',')
            .any(|word| f.to_string_lossy().contains(word))
    };
    let slots = Arc::new(Semaphore::new(PARALLEL));
    let mut running = JoinSet::new();
    for file in files.into_iter().filter(wanted) {
        let (slots, name) = (
            slots.clone(),
            file.strip_prefix(&root)
                .unwrap_or(&file)
                .display()
                .to_string(),
        );
        let runtime = tokio::runtime::Handle::current();
        // A thread of its own: starting a server blocks, and sqllogictest's runner does not move
        // between threads.
        running.spawn_blocking(move || {
            let _slot = runtime.block_on(slots.acquire_owned());
            let from = Instant::now();
            let script = async {
                tokio::time::timeout(
                    Duration::from_secs(SCRIPT_SECONDS_MAX),
                    run(&file, WORKERS, mode),
                )
                .await
            };
            let failures = match runtime.block_on(script) {
                Ok(Ok(failures)) => failures,
                Ok(Err(e)) => vec![e.to_string()],
                Err(_) => vec![format!("did not end within {SCRIPT_SECONDS_MAX} seconds")],
            };
            println!(
                "{} {name} ({:.1} s)",
                if failures.is_empty() {
                    "ok    "
                } else {
                    "FAILED"
                },
                from.elapsed().as_secs_f64()
            );
            (name, failures)
        });
    }
    let results = running.join_all().await;
    assert!(!results.is_empty(), "no script was found");
    let mut failed: Vec<_> = results
        .into_iter()
        .filter(|(_, failures)| !failures.is_empty())
        .collect();
    failed.sort();
    for (name, failures) in &failed {
        println!("\n==== {name}: {} failures", failures.len());
        for failure in failures {
            println!("---- {failure}");
        }
    }
    assert!(
        failed.is_empty(),
        "scripts failed: {}",
        failed
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    );
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "slt") {
            files.push(path);
        }
    }
}
