//! The simulation: some hundred seeds of a whole server, whose disk, store and broker fail and
//! which is killed, each held to what its clients were told (`make simulate SEEDS=10000` for more).

use std::process::Command;

/// Seeds that every run of the tests takes.
const SEEDS: u64 = 200;

fn simulate(arguments: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(arguments)
        .output()
        .expect("the simulation runs");
    let told = String::from_utf8_lossy(&run.stdout).into_owned();
    let panics = String::from_utf8_lossy(&run.stderr).into_owned();
    (run.status.success(), told + &panics)
}

#[test]
fn whatever_fails_what_was_told_stays_true() {
    let (well, told) = simulate(&["--count", &SEEDS.to_string(), "--jobs", "2"]);
    let wrong = told.lines().filter(|line| !line.contains(": well ("));
    assert!(well, "{}", wrong.collect::<Vec<&str>>().join("\n"));
    let ran = told.lines().filter(|line| line.contains(": well ("));
    assert_eq!(ran.count() as u64, SEEDS);
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in ["3", "4", "5"] {
        let first = simulate(&["--seed", seed]);
        assert_eq!(simulate(&["--seed", seed]), first);
    }
}
