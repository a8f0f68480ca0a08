//! `metanode storage ...`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

/// The two halves.
#[derive(Debug, Subcommand)]
pub(crate) enum Storage {
    /// The service that scatters, finds and repairs.
    #[command(subcommand)]
    Distributed(Distributed),
    /// The clouds it scatters over.
    #[command(subcommand)]
    Providers(Providers),
}

/// `metanode storage distributed ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Distributed {
    /// Make a home folder: configuration, master key, keyring. Running it again changes nothing.
    Init(Init),
    /// Run the service in the foreground until it is told to stop.
    Start(Start),
    /// State, providers, blocks, integrity, latency.
    Status,
    /// Throughput and failovers.
    Metrics,
    /// Totals of the audit log.
    Audit,
    /// What is not yet durable on all its domains.
    Settle {
        /// Wait until nothing is left.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after this many seconds (exit code 3).
        #[arg(long, default_value_t = 600)]
        timeout_s: u64,
    },
    /// Make the view of the service's own ledger durable now. What is acknowledged is durable without it; a start after a crash is shorter.
    Flush,
    /// Compact the log: what the ledger knows becomes a checkpoint at the providers, from which a recovery begins.
    Checkpoint {
        /// Wait until it is whole and announced.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after this many seconds (exit code 3); the checkpoint goes on.
        #[arg(long, default_value_t = 600)]
        timeout_s: u64,
    },
    /// Delete what no blob names any more, and say what else lies at the providers. Prints its cost first.
    Gc(Gc),
    /// Ask for every shard, repair what is missing or wrong, and say how all blocks are (exit code 4 unless all are whole).
    Scrub {
        /// Start one now; without it, tell about the one that runs or ran last.
        #[arg(long)]
        now: bool,
        /// Read and verify every shard whole instead of its header only. Costs the egress of everything stored.
        #[arg(long)]
        deep: bool,
        /// Wait until it has ended and what it found is repaired.
        #[arg(long)]
        wait: bool,
    },
    /// Rebuild sampled blocks from every set of k providers, as if the others were gone (exit code 4 unless all are rebuilt).
    Drill {
        /// Write the report, a signed note under the log's key, to this file.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Rebuild nothing: check the report in this file, without asking anybody.
        #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "report")]
        verify: Option<PathBuf>,
        /// Public key of the log for --verify: 64 hex digits, or a file holding them.
        #[arg(long, value_name = "PUBKEY", requires = "verify")]
        key: Option<String>,
    },
    /// Rebuild the service's data from the providers: empty disk, master key and provider credentials suffice.
    Recover(Recover),
    /// Look over the service's own data: every value, every journal entry, the log. Reads only; exit code 4 when something is damaged.
    Fsck(Fsck),
    /// A sealed copy of the service's own data in one file, and the way back.
    #[command(subcommand)]
    Backup(Backup),
    /// Give back disk space that the service's own data does not need. The service must not run.
    Compact(Compact),
    /// How likely blocks are lost under stated rates: a formula and a simulation side by side. A model, not a promise; asks nobody.
    Durability(Durability),
}

/// `metanode storage distributed fsck`.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Throw a damaged view away and make it anew from the journal, which must be whole. The service must not run.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Master key: FILE, fd:N or cred:NAME; default: from the configuration. Not needed while the service runs.
    #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
    pub(crate) master_key: Option<String>,
}

/// `metanode storage distributed backup ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Copy the running service's keyring and ledger into a new file: one consistent state, sealed, while it serves.
    Export {
        /// File to write.
        file: PathBuf,
    },
    /// Fill an empty data folder from such a file. The next start catches up with the providers.
    Restore {
        /// File to read.
        file: PathBuf,
        /// Master key: FILE, fd:N or cred:NAME; default: from the configuration.
        #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
        master_key: Option<String>,
    },
}

/// `metanode storage distributed compact`.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// Also remove the copies that changes of the schema left (`schema-*`).
    #[arg(long)]
    pub(crate) drop_old_schema: bool,
    /// Master key: FILE, fd:N or cred:NAME; default: from the configuration.
    #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
    pub(crate) master_key: Option<String>,
}

/// `metanode storage distributed durability`.
#[derive(Debug, Args)]
pub(crate) struct Durability {
    /// Provider accounts in distinct failure domains.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub(crate) providers: u8,
    /// Blocks kept for the whole time.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) blocks: u32,
    /// Years.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) years: f64,
    /// Shards that rebuild a block.
    #[arg(long, default_value_t = 3)]
    pub(crate) k: u8,
    /// Shards made of a block.
    #[arg(long, default_value_t = 5)]
    pub(crate) n: u8,
    /// Expected total losses per provider and year, each with every shard there.
    #[arg(long, value_name = "RATE", default_value_t = 0.02)]
    pub(crate) annual_failure_rate: f64,
    /// Expected losses of single shards per shard and year.
    #[arg(long, value_name = "RATE", default_value_t = 0.0001)]
    pub(crate) shard_loss_rate: f64,
    /// Mean hours until a missing shard is noticed and rebuilt; 0: never.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    pub(crate) repair_hours: f64,
    /// Most shards rebuilt per hour in the whole deployment; 0: no bound. Only the simulation knows it.
    #[arg(long, value_name = "SHARDS", default_value_t = 0.0)]
    pub(crate) repairs_per_hour: f64,
    /// Simulated runs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Seed of the first run; each later one adds one.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `metanode storage distributed init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Provider names, by comma. A name that is also a preset (aws, gcp, minio, ...) uses it.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) providers: Vec<String>,
    /// Survive the loss of this number less one providers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) replication_factor: u8,
    /// At most this many providers hold one block.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=32))]
    pub(crate) max_cloud_providers: u8,
    /// Encrypt everything. `false` is refused unless --insecure is given too.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) encryption: bool,
    /// Compress chunks where a probe says it pays.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) compression: bool,
    /// Seal under a published key: for experiments, never for data.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Master key to use: FILE, fd:N or cred:NAME (32 bytes, raw or hex); default: a new one in the home folder.
    #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
    pub(crate) master_key: Option<String>,
}

/// Where the service listens and which key it opens its keyring with.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Port of the HTTP API.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Address to listen on.
    #[arg(long)]
    pub(crate) listen: Option<IpAddr>,
    /// Master key: FILE, fd:N or cred:NAME; default: from the configuration.
    #[arg(long, value_name = "SOURCE", env = "DIASPORE_MASTER_KEY")]
    pub(crate) master_key: Option<String>,
}

/// `metanode storage distributed start`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "one flag each, as clap wants them")]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) serve: Serve,
    /// Keep the audit log. It is the commit log itself, so it cannot be off.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) audit_enabled: bool,
    /// Keep keys and log recoverable from the providers. The commit log lives there, so it cannot be off.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) backup_enabled: bool,
    /// Serve reads of what this data folder knows, stale as it may be. Writes nothing, neither here nor at a provider, and claims nothing.
    #[arg(long, conflicts_with = "in_memory")]
    pub(crate) read_only: bool,
    /// Keep journal and ledger in memory: nothing but configuration, keys and tokens lies on this disk, and every start reads the whole log
    /// from the providers. The disk is then no copy: what was acknowledged and is not settled survives one provider less.
    #[arg(long)]
    pub(crate) in_memory: bool,
}

/// `metanode storage distributed gc`.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Delete at once: no grace time of a day, no budget of requests.
    #[arg(long)]
    pub(crate) now: bool,
    /// Empty blocks until at most this share of bytes is dead, for example 5%, whatever it costs. Default: only where more than half is dead and moving the
    /// rest costs less than keeping it for six months.
    #[arg(long, value_name = "PERCENT", value_parser = permille)]
    pub(crate) max_dead: Option<u64>,
    /// Wait for the end, and say what came of it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Only say what would be done and what it costs.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `5%` or `2.5%`, in a thousand.
fn permille(text: &str) -> Result<u64, String> {
    let (whole, tenths) = text.trim_end_matches('%').split_once('.').unwrap_or((text.trim_end_matches('%'), "0"));
    let parsed = whole.parse::<u64>().ok().zip(tenths.parse::<u64>().ok()).filter(|(whole, _)| *whole <= 100 && tenths.len() == 1);
    let value = parsed.map(|(whole, tenths)| whole * 10 + tenths).filter(|permille| *permille <= 1000);
    value.ok_or_else(|| "a percentage from 0% to 100%, with at most one digit behind the point".to_owned())
}

/// `metanode storage distributed recover`.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Provider known to be dead for good; repeatable. Written into the log.
    #[arg(long, value_name = "NAME")]
    pub(crate) declare_lost: Vec<String>,
    /// What is missing of the log is gone for good: go on without it. TOKEN stands for the exact list that a refused recovery printed; with another
    /// list it refuses again. Written into the log.
    #[arg(long, value_name = "TOKEN", conflicts_with = "salvage")]
    pub(crate) accept_loss: Option<String>,
    /// Copy every blob that can still be rebuilt into this folder, and list what cannot. Claims nothing, writes nothing to any provider, leaves
    /// the data folder alone; run again, it adds to what is there. Exit code 4 when something is missing, 78 when nothing can be rebuilt.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["declare_lost", "serve"])]
    pub(crate) salvage: Option<PathBuf>,
    /// Stay up and serve when recovered, instead of ending.
    #[arg(long)]
    pub(crate) serve: bool,
    #[command(flatten)]
    pub(crate) listen: Serve,
}

/// `metanode storage providers ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Providers {
    /// Describe a provider account, and try it.
    Configure(Box<Configure>),
    /// The configured accounts.
    List,
    /// Say in the log how the running service is to use an account.
    State {
        /// The account.
        name: String,
        /// Used for everything; read last and given nothing new; or not asked at all.
        #[arg(value_parser = ["active", "quarantined", "dead"])]
        state: String,
        /// Why, for the log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Leave a provider: move everything elsewhere, delete it there, certify it in the log. Goes on where an earlier run ended.
    Evacuate(Evacuate),
    /// Give every provider its share of what is stored, above all one that was added.
    Rebalance(Rebalance),
}

/// `metanode storage providers evacuate`.
#[derive(Debug, Args)]
pub(crate) struct Evacuate {
    /// Account to leave.
    pub(crate) name: String,
    /// It is gone for good: rebuild from the others and ask it for nothing.
    #[arg(long)]
    pub(crate) dead: bool,
    /// Refuse if it costs more than so many US dollars by list prices, for example 2.50.
    #[arg(long, value_name = "USD", value_parser = microdollars)]
    pub(crate) max_cost: Option<u64>,
    /// Only say what would move and what it costs.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait for the end, and say what came of it.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `metanode storage providers rebalance`.
#[derive(Debug, Args)]
pub(crate) struct Rebalance {
    /// Only say what would move and what it costs.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait for the end, and say what came of it.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `2.50` in micro-dollars.
fn microdollars(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    let value = whole.parse::<u64>().ok().filter(|_| digits).zip(format!("{part:0<6}").parse::<u64>().ok());
    let value = value.and_then(|(whole, part)| whole.checked_mul(1_000_000)?.checked_add(part));
    value.ok_or_else(|| "an amount like 2.50".to_owned())
}

/// `metanode storage providers configure`.
#[derive(Debug, Args)]
pub(crate) struct Configure {
    /// Region of the account named aws.
    #[arg(long, value_name = "REGION")]
    pub(crate) aws_region: Option<String>,
    /// Region of the account named gcp.
    #[arg(long, value_name = "REGION")]
    pub(crate) gcp_region: Option<String>,
    /// Region of the account named azure.
    #[arg(long, value_name = "REGION")]
    pub(crate) azure_region: Option<String>,
    /// Account the flags below describe; made when missing.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Catalogue entry: aws, s3, minio, localstack, local, ...
    #[arg(long, requires = "name")]
    pub(crate) preset: Option<String>,
    /// Region of the account.
    #[arg(long, requires = "name")]
    pub(crate) region: Option<String>,
    /// Base URL of the S3 endpoint.
    #[arg(long, requires = "name")]
    pub(crate) endpoint: Option<String>,
    /// Bucket that takes the shards.
    #[arg(long, requires = "name")]
    pub(crate) bucket: Option<String>,
    /// Folder that takes the shards (preset local).
    #[arg(long, requires = "name")]
    pub(crate) path: Option<PathBuf>,
    /// Failure domain; default: the vendor and account. An override is logged and shown as declared.
    #[arg(long, requires = "name")]
    pub(crate) domain: Option<String>,
    /// File with the access key id; copied into the 0600 credentials file of the home folder.
    #[arg(long, value_name = "FILE", requires = "name")]
    pub(crate) access_key_file: Option<PathBuf>,
    /// File with the secret access key; copied likewise.
    #[arg(long, value_name = "FILE", requires = "name")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// Write, read back, list and delete a small object at each account afterwards.
    #[arg(long)]
    pub(crate) test: bool,
}
