//! Replays one seed of the simulation and prints what happened: `cargo run -p diaspore-tests --example sim -- SEED [STEPS]`.
//! `RUST_LOG=diaspore_engine=debug` shows what the engine says meanwhile.

use std::process::ExitCode;

use diaspore_tests::sim;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command of its own")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(seed) = words.next().and_then(|word| word.parse().ok()) else {
        eprintln!("usage: sim SEED [STEPS]");
        return ExitCode::from(2);
    };
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let steps = words.next().and_then(|word| word.parse().ok()).unwrap_or(60);
    match sim::run_blocking(seed, steps) {
        Ok(report) => {
            report.lines.iter().for_each(|line| println!("{line}"));
            let trace = u128::from_be_bytes(report.trace.first_chunk().copied().unwrap_or_default());
            println!(
                "{:?}: {} acknowledged, {} reads, {} starts, trace {trace:032x}",
                report.scenario, report.acknowledged, report.reads, report.starts
            );
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}
