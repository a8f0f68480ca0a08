//! Many seeds of the simulation on all processors: `cargo run -p diaspore-tests --example campaign -- FROM TO [STEPS]`. Prints what
//! the runs did, and every violation with its script; fails if there is one.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use diaspore_tests::sim::{self, history};

/// Steps of a run unless told otherwise: short ones, since most defects need few events in an unlucky order.
const STEPS: usize = 8;
/// One seed in so many is also run as a recorded concurrent history.
const HISTORIES: u64 = 8;

#[derive(Debug, Default)]
struct Sums {
    runs: AtomicU64,
    histories: AtomicU64,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    starts: AtomicU64,
    violations: AtomicU64,
}

impl Sums {
    fn run(&self, seed: u64, steps: usize) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        match sim::run_blocking(seed, steps) {
            Ok(report) => {
                self.acknowledged.fetch_add(report.acknowledged, Ordering::Relaxed);
                self.reads.fetch_add(report.reads, Ordering::Relaxed);
                self.starts.fetch_add(report.starts, Ordering::Relaxed);
            }
            Err(violation) => self.violated(&violation.0),
        }
        if seed.is_multiple_of(HISTORIES) {
            self.histories.fetch_add(1, Ordering::Relaxed);
            if let Err(violation) = history::record_blocking(seed) {
                self.violated(&violation.0);
            }
        }
    }

    /// Said at once: a long campaign is read while it runs.
    #[expect(clippy::print_stdout, reason = "a command of its own")]
    fn violated(&self, what: &str) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        println!("{what}\n");
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, reason = "a command of its own")]
fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let &[from, to] = numbers.first_chunk().unwrap_or(&[0, 0]);
    if from >= to {
        eprintln!("usage: campaign FROM TO [STEPS]");
        return ExitCode::from(2);
    }
    let steps = numbers.get(2).and_then(|steps| usize::try_from(*steps).ok()).unwrap_or(STEPS);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (sums, next, started) = (Sums::default(), AtomicU64::new(from), std::time::Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    sums.run(seed, steps);
                }
            });
        }
    });
    let read = |meter: &AtomicU64| meter.load(Ordering::Relaxed);
    println!(
        "{} simulated runs of {steps} steps and {} recorded histories in {:.0} s on {threads} threads: {} acknowledged, {} reads, {} starts, {} violations",
        read(&sums.runs),
        read(&sums.histories),
        started.elapsed().as_secs_f64(),
        read(&sums.acknowledged),
        read(&sums.reads),
        read(&sums.starts),
        read(&sums.violations)
    );
    if read(&sums.violations) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
