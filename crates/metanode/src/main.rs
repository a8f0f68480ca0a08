//! `metanode`: the service process of Diaspore and the commands that talk to it.
//!
//! The only crate that reads the environment, prints or exits. It puts the layers together ([`service`]) and holds no rule of its own:
//! what is stored, found, repaired or refused is decided below.
//!
//! Data goes to standard output, as a table or as JSON (`--output`); everything else to standard error. Failures end with a sentence,
//! `hint:` lines and an exit code of their own kind ([`failure::Exit`]).

mod allocator;
mod audit;
mod blob;
mod checkpoint;
mod cli;
mod client;
mod collect;
mod config;
mod copies;
mod credentials;
mod dev;
mod drilled;
mod durability;
mod failure;
mod history;
mod home;
mod init;
mod integrity;
mod keys;
mod operate;
mod output;
mod providers;
mod quickstart;
mod reading;
mod recovered;
mod relocate;
mod rotate;
mod salvage;
mod secret;
mod service;
mod telemetry;
mod upkeep;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::cli::storage::{Distributed, Storage};
use crate::cli::{Cli, Command};
use crate::failure::{Exit, Explain, Outcome};
use crate::home::Home;
use crate::telemetry::Verbosity;

/// Longest wait for tasks that were told to end.
const WIND_UP: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data and go to standard output; clap knows which is which.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    if !matches!(verbosity(&cli.command), Verbosity::Command) {
        allocator::tune();
    }
    match telemetry::set_up(cli.global.log_format, cli.global.log.as_deref(), verbosity(&cli.command)).and_then(|()| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(&failure);
            failure.code()
        }
    }
}

fn verbosity(command: &Command) -> Verbosity {
    match command {
        Command::Storage(Storage::Distributed(Distributed::Start(_) | Distributed::Recover(_))) => Verbosity::Service,
        Command::Quickstart(_) => Verbosity::Staged,
        _ => Verbosity::Command,
    }
}

fn run(cli: &Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().explain(|| "cannot start the runtime".to_owned())?;
    let outcome = runtime.block_on(Box::pin(dispatch(cli)));
    runtime.shutdown_timeout(WIND_UP);
    outcome
}

async fn dispatch(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Storage(Storage::Distributed(command)) => distributed(global, command).await,
        Command::Storage(Storage::Providers(command)) => providers::run(global, command).await,
        Command::Blob(command) => Box::pin(blob::run(global, command)).await,
        Command::Keys(command) => keys::run(global, command).await,
        Command::Audit(command) => audit::run(global, command).await,
        Command::Config(cli::Config::Check) => check(global),
        Command::Dev(command) => dev::run(global, command).await,
        Command::Quickstart(flags) => Box::pin(quickstart::run(global, flags)).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "metanode", &mut script);
            output::raw(&script)
        }
    }
}

async fn distributed(global: &cli::Global, command: &Distributed) -> Outcome {
    match command {
        Distributed::Init(flags) => init::run(global.output, &Home::find(global.home.as_deref(), global.config.as_deref())?, flags),
        Distributed::Start(flags) => Box::pin(service::start(global, flags)).await,
        Distributed::Recover(flags) => Box::pin(service::recover(global, flags)).await,
        Distributed::Status => operate::status(global).await,
        Distributed::Metrics => operate::metrics(global).await,
        Distributed::Audit => operate::audit(global).await,
        Distributed::Flush => operate::flush(global).await,
        Distributed::Checkpoint { wait, timeout_s } => checkpoint::run(global, *wait, *timeout_s).await,
        Distributed::Gc(flags) => collect::run(global, flags).await,
        Distributed::Scrub { now, deep, wait } => integrity::scrub(global, *now, *deep, *wait).await,
        Distributed::Drill { verify: Some(file), key: Some(key), .. } => drilled::verify(global, file, key),
        Distributed::Drill { report, .. } => integrity::drill(global, report.as_deref()).await,
        Distributed::Settle { wait, timeout_s } => operate::settle(global, *wait, *timeout_s).await,
        Distributed::Fsck(flags) => upkeep::fsck(global, flags).await,
        Distributed::Backup(command) => upkeep::backup(global, command).await,
        Distributed::Compact(flags) => upkeep::compact(global, flags),
        Distributed::Durability(flags) => durability::run(global.output, flags),
    }
}

/// `config check`: everything `start` would read, nothing it would change.
fn check(global: &cli::Global) -> Outcome {
    let serve = cli::storage::Serve { port: None, listen: None, master_key: None };
    let (home, config, parts) = service::prepare(global, &serve)?;
    init::open_keyring(&home, &parts.master)?;
    drop(service::connect(&parts.specs, &parts.credentials)?);
    let domains: std::collections::BTreeSet<_> = parts.specs.iter().map(|spec| &spec.domain).collect();
    let plan = config::Config::check_domains(&parts.profile, domains.len())?;
    let value = serde_json::json!({
        "config": home.config(),
        "listen": config.service.address(),
        "profile": parts.profile,
        "providers": parts.specs.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>(),
        "k": plan.k,
        "n": plan.n,
        "losses_survived": plan.losses_survived(),
        "encryption": !config.insecure,
    });
    global.output.print(&value, || {
        format!(
            "Configuration: {} is usable\nListen: {}\nProviders: {}\nGeometry: any {} of {} rebuild, {} may be lost",
            home.config().display(),
            config.service.address(),
            parts.specs.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>().join(", "),
            plan.k,
            plan.n,
            plan.losses_survived()
        )
    })
}
