//! The log: lines on standard error, for people or as JSON. Set up once, here and nowhere else.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::failure::{Failure, Outcome};

/// What is logged when nobody says otherwise: the service tells what it does, commands only what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// A command that ends.
    Command,
    /// A show of failures on purpose: what is expected to go wrong is told by the command itself.
    Staged,
    /// The service.
    Service,
}

/// Installs the subscriber.
pub(crate) fn set_up(format: LogFormat, filter: Option<&str>, verbosity: Verbosity) -> Outcome {
    let fallback = match verbosity {
        Verbosity::Command => "warn",
        Verbosity::Staged => "error",
        Verbosity::Service => "info",
    };
    let filter = EnvFilter::try_new(filter.unwrap_or(fallback)).map_err(|error| {
        Failure::usage(format!("the log filter does not parse: {error}")).hint("for example --log info,diaspore_engine=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| Failure::plain(format!("cannot set up logging: {error}")))
}
