//! What an engine is started with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diaspore_policy::Profile;

use crate::history::History;

/// How to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// Reconcile with the providers and serve (PROTOCOL rules 5 to 11).
    #[default]
    Start,
    /// The same with an empty disk, by explicit permission: the whole log is replayed from the providers.
    Recover {
        /// Failure domains the operator knows to be lost for good; rule 8 then decides with v + max(u, 1) <= k.
        declare_lost: Vec<String>,
    },
    /// Claims nothing and writes nothing; what the local ledger knows is served, stale as it may be.
    ReadOnly,
}

/// The operator's word on a list of losses that an earlier, refused recovery gave ([`crate::Loss`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptLoss {
    /// The token of that list.
    pub token: String,
    /// Who says so, for the log.
    pub by: String,
}

/// Bounds on memory. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain and coded bytes of all uploads in progress, buffers of shards not yet stored included.
    pub upload_bytes: usize,
    /// Bytes fetched and decoded for all downloads in progress.
    pub read_bytes: usize,
    /// Records and small chunks that wait for a commit block.
    pub queue_bytes: usize,
    /// Most plain bytes in one commit block.
    pub commit_bytes: usize,
    /// Memory tier of the read path.
    pub cache_bytes: usize,
    /// Unsettled blocks of earlier incarnations that are worked on at once; the rest follow as these settle.
    pub open_blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: 96 << 20,
            read_bytes: 48 << 20,
            queue_bytes: 16 << 20,
            commit_bytes: 4 << 20,
            cache_bytes: 32 << 20,
            open_blocks: 100_000,
        }
    }
}

/// The engine cannot go on and the process has to end; the caller decides how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// The journal could not be flushed: what the disk holds is unknown (exit 1).
    JournalSync(String),
    /// A newer writer holds the log (exit 78).
    Superseded(String),
    /// A start in the same process refused the state it found: fork, acknowledged data missing, another writer (exit 78).
    Refused(String),
    /// The ledger refused what was released: disk full, damage, or a defect (exit 1).
    Ledger(String),
}

/// Called once, from a task of the engine, when it has stopped for good.
pub type OnFatal = Arc<dyn Fn(Fatal) + Send + Sync>;

/// Settings of one engine.
#[derive(Clone)]
pub struct EngineConfig {
    /// Policy in force.
    pub profile: Profile,
    /// How to start.
    pub mode: Mode,
    /// In a recovery: the operator's word that what is missing of the log is gone for good.
    pub accept_loss: Option<AcceptLoss>,
    /// Memory bounds.
    pub limits: Limits,
    /// Longest wait for one provider's answer while starting.
    pub probe_deadline: Duration,
    /// Longest time between the last byte of a change and its answer, whatever providers do: `NotAccepted` or `OutcomeUnknown` then.
    pub answer_deadline: Duration,
    /// The log is compacted when it has grown by so many records, and by a quarter of itself; 0 for never by itself.
    pub checkpoint_after: u64,
    /// How often the ledger's view is made durable. What is acknowledged is durable without it: it is in the journal, and a start after a
    /// crash applies again what the view lacks.
    pub flush_every: Duration,
    /// Counters tried beyond the last one that the map or a listing shows of an incarnation, to find what it left at providers. More than
    /// an incarnation ever had under way; each costs a keyed hash per incarnation and provider when a listing shows a name unknown so far.
    pub orphan_reach: u64,
    /// What [`crate::Engine::history`] gave at the end of the last run.
    pub history: History,
    /// Told when the engine has stopped for good.
    pub on_fatal: OnFatal,
}

impl EngineConfig {
    /// Defaults around `profile`: normal start, built-in limits, fatal events only visible in `status`.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            mode: Mode::Start,
            accept_loss: None,
            limits: Limits::default(),
            probe_deadline: Duration::from_secs(10),
            answer_deadline: Duration::from_secs(30),
            checkpoint_after: 50_000,
            flush_every: Duration::from_secs(5),
            orphan_reach: 1 << 16,
            history: History::default(),
            on_fatal: Arc::new(|_| ()),
        }
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("profile", &self.profile.name)
            .field("mode", &self.mode)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
