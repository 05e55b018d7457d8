//! Runs seeds of the simulation: `simulate --from 0 --count 1000`, or one with its trace in words:
//! `simulate --seed 42 --trace`. A seed is the same run each time. Ends with 1 if one fails, and
//! says how to run it again.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

use clap::Parser;
use std::collections::VecDeque;
use std::fmt;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;
use tidemark_common::machine;
use tidemark_sim::world::run::{Outcome, run};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Seconds of the real clock after which a seed is given up: each takes about one.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// Simulates a whole system from a seed.
#[derive(Parser)]
struct Arguments {
    /// Runs this one.
    #[arg(long)]
    seed: Option<u64>,
    /// The first of several.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Nodes of the server; without it the seed says how many.
    #[arg(long)]
    nodes: Option<u64>,
    /// Tells what happens.
    #[arg(long)]
    trace: bool,
    /// Processes that run seeds at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// The keys of hash maps: the same in each run.
///
/// # Safety
/// The standard library calls it as the C library's own: `buffer` has room for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, bytes: usize, _flags: u32) -> isize {
    // Whoever calls it promises the room.
    unsafe { std::ptr::write_bytes(buffer, 0x5a, bytes) };
    bytes as isize
}

/// The simulation's time, in seconds.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let micros = machine::micros() - 1_800_000_000_000_000;
        write!(writer, "{:>11.6}", micros as f64 / 1e6)
    }
}

/// Runs a seed in a thread of its own, whose hash maps are the same in each run.
fn alone(seed: u64, nodes: Option<u64>) -> Outcome {
    let (done, outcome) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(tidemark_common::STACK_BYTES)
        .spawn(move || done.send(run(seed, nodes)));
    if let Err(e) = thread {
        panic!("no thread: {e}");
    }
    match outcome.recv_timeout(HANGS_AFTER) {
        Ok(outcome) => outcome,
        Err(e) => {
            // The thread goes on, or waits for a lock: the process cannot be used any more.
            println!("seed {seed}: WRONG: the simulation itself hangs, or broke: {e}");
            std::process::exit(1);
        }
    }
}

fn one(seed: u64, forced: Option<u64>) -> bool {
    let Outcome {
        wrong,
        nodes,
        print,
        turns,
        checked,
        starts,
    } = alone(seed, forced);
    match wrong {
        None => {
            println!(
                "seed {seed}: well ({nodes} nodes, {starts} starts, {checked} answers, {turns} \
                 turns, {print:x})"
            );
            true
        }
        Some(wrong) => {
            let nodes = forced.map(|nodes| format!(" --nodes {nodes}"));
            let nodes = nodes.unwrap_or_default();
            println!(
                "seed {seed}: WRONG: {wrong}\n  again: cargo run --release -p tidemark-sim --bin \
                 simulate -- --seed {seed}{nodes} --trace"
            );
            false
        }
    }
}

/// Runs each seed in a process of its own, so that none sees what another one left; returns how
/// many failed.
fn many(arguments: &Arguments) -> std::io::Result<usize> {
    let program = std::env::current_exe()?;
    let mut seeds = arguments.from..arguments.from + arguments.count;
    let (mut running, mut failed) = (VecDeque::new(), 0);
    loop {
        while running.len() < arguments.jobs.max(1) {
            let Some(seed) = seeds.next() else { break };
            let mut command = Command::new(&program);
            command.args(["--seed", &seed.to_string()]);
            if let Some(nodes) = arguments.nodes {
                command.args(["--nodes", &nodes.to_string()]);
            }
            running.push_back(command.spawn()?);
        }
        let Some(mut process) = running.pop_front() else {
            return Ok(failed);
        };
        failed += usize::from(!process.wait()?.success());
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.trace { "debug" } else { "off" };
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("TRACE").unwrap_or_else(|_| level.into()))
        .with_timer(VirtualTime)
        .with_ansi(false)
        .init();
    let all_well = match arguments.seed {
        Some(seed) => one(seed, arguments.nodes),
        None => match many(&arguments) {
            Ok(failed) => {
                println!("{} seeds, {failed} failed", arguments.count);
                failed == 0
            }
            Err(e) => panic!("seeds cannot be run: {e}"),
        },
    };
    match all_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
