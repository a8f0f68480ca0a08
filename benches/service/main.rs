//! The service under load, as its users meet it: `cargo bench -p diaspore-benches --bench service -- <what> [flags]`.
//!
//! Three kinds of processes, so that each one's processor time is its own: `emulators` (S3 over loopback sockets), `service`
//! (the engine with its HTTP front, default limits) and this one, the client. A fourth, `yardstick`, moves the same provider
//! bytes with nothing in between. docs/performance.md has the figures and the commands that made them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints its figures")]

mod bulk;
mod child;
mod client;
mod data;
mod emulators;
mod failover;
mod memory;
mod node;
mod range;
mod small;
mod stage;
mod upkeep;
mod usage;
mod yardstick;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What a measurement gives, or why it could not be made.
type Measured<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What to measure.
#[derive(Parser)]
struct Cli {
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Large blobs up and down beside the yardstick; healthy, with two providers down, and throttled.
    Bulk(bulk::Flags),
    /// Blobs of 4 KiB.
    Small(small::Flags),
    /// 64 KiB out of a large blob.
    Range(range::Flags),
    /// What a provider's fault adds to the first byte.
    Failover(failover::Flags),
    /// Scrub, repair, collection, leaving a provider, and recovery from the providers alone.
    Upkeep(upkeep::Flags),
    /// Resident memory of the service.
    Memory(memory::Flags),
    #[command(hide = true)]
    Emulators,
    #[command(hide = true)]
    Service,
    #[command(hide = true)]
    Yardstick,
}

/// Flags of every measurement.
#[derive(Debug, Clone, Args)]
struct Setting {
    /// Emulated providers, each its own failure domain.
    #[arg(long, default_value_t = 5)]
    providers: usize,
    /// Built-in policy; `default` is 3-of-5 over five or more providers.
    #[arg(long, default_value = "default")]
    profile: String,
    /// Folder for the service's disk and for provider folders.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seed of all data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Box::pin(run(cli.what))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the measurement failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(what: What) -> Measured<()> {
    match what {
        What::Bulk(flags) => bulk::run(flags).await,
        What::Small(flags) => small::run(flags).await,
        What::Range(flags) => range::run(flags).await,
        What::Failover(flags) => failover::run(flags).await,
        What::Upkeep(flags) => upkeep::run(flags).await,
        What::Memory(flags) => memory::run(flags).await,
        What::Emulators => emulators::serve().await,
        What::Service => node::serve().await,
        What::Yardstick => yardstick::serve().await,
    }
}
