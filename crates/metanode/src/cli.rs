//! The command tree. Flags that the seed documents name are spelled exactly as there.

pub(crate) mod blob;
pub(crate) mod storage;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

/// Encrypted blobs, scattered over clouds that nobody has to trust.
#[derive(Debug, Parser)]
#[command(name = "metanode", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How data is printed on standard output.
    #[arg(long, global = true, value_enum, default_value = "table", env = "DIASPORE_OUTPUT")]
    pub(crate) output: Format,
    /// Folder with the configuration, the master key and the service's own data.
    #[arg(long, global = true, value_name = "DIR", env = "DIASPORE_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Configuration file; default: metanode.toml in the home folder.
    #[arg(long, global = true, value_name = "FILE", env = "DIASPORE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the running service answers; default: from the configuration.
    #[arg(long, global = true, value_name = "URL", env = "DIASPORE_URL")]
    pub(crate) url: Option<String>,
    /// File holding the API key to act with; default: `DIASPORE_TOKEN`, then operator.token or client.token in the home folder.
    #[arg(long, global = true, value_name = "FILE", env = "DIASPORE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Form of the log lines on standard error.
    #[arg(long, global = true, value_enum, default_value = "text", env = "DIASPORE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What to log, as in `info,diaspore_engine=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "DIASPORE_LOG")]
    pub(crate) log: Option<String>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The storage service and its providers.
    #[command(subcommand)]
    Storage(storage::Storage),
    /// Upload, download and look at blobs through the running service.
    #[command(subcommand)]
    Blob(blob::Blob),
    /// API keys of the running service, and its master key.
    #[command(subcommand)]
    Keys(Keys),
    /// The audit log: export it, verify an export without trusting anybody.
    #[command(subcommand)]
    Audit(Audit),
    /// The configuration in force.
    #[command(subcommand)]
    Config(Config),
    /// Things for developers.
    #[command(subcommand)]
    Dev(Dev),
    /// Six emulated clouds, a real data set, half of them lost, every byte compared.
    Quickstart(Quickstart),
    /// Print a completion script.
    Completions {
        /// Shell to print it for.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `metanode keys ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key. Its token is shown once.
    Create {
        /// Label.
        #[arg(long)]
        name: String,
        /// Tenant it is confined to; made when missing.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What it may do: read, write, admin, audit.
        #[arg(long, value_delimiter = ',', default_value = "read,write")]
        scopes: Vec<String>,
        /// Days until it expires; default: never.
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
        /// Write the token to this new file (mode 0600) instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// All keys, without their secrets.
    List,
    /// Withdraw a key at once.
    Revoke {
        /// Identifier as listed.
        id: String,
    },
    /// Replace the master key: seal the keyring under another one, and delete what lies under the old one. No block is touched. The service must be
    /// stopped; a run that was cut off is ended by the same command.
    Rotate {
        /// The new master key: FILE, fd:N or cred:NAME. Into a file that does not exist a key is drawn, and nothing else is done: copy it to a safe place,
        /// then run the same command again.
        #[arg(long, value_name = "SOURCE")]
        new_key: String,
        /// The key in force: FILE, fd:N or cred:NAME; default: from the configuration.
        #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
        master_key: Option<String>,
    },
}

/// `metanode audit ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Write the log as JSON lines, the signed checkpoint last. The export itself is logged.
    Export {
        /// First entry to export.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// File to write; default: standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check an export offline: every entry is in the tree, the tree is the one that was signed.
    Verify {
        /// Export to check.
        file: PathBuf,
        /// Public key of the log: 64 hex digits, or a file holding them.
        #[arg(long, value_name = "PUBKEY")]
        key: String,
        /// Earlier checkpoint (signed note) that this log must extend.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
}

/// `metanode config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Read the configuration as `start` would, say what is wrong, touch nothing.
    Check,
}

/// `metanode dev ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dev {
    /// Emulated S3 providers on loopback sockets until ctrl-c.
    Providers {
        /// How many.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=32))]
        count: u16,
        /// Folder that holds one listable folder per provider; default: a new temporary one.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// `metanode quickstart`.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Folder to store; default: this project's checkout, the toolchain's documentation and fetched sources.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// At most this many MiB of it.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_mib: u64,
    /// Run through and end, instead of staying up for you to try.
    #[arg(long)]
    pub(crate) once: bool,
    /// Port of the service; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}
