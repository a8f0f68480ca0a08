//! What the parts of one engine share.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_block::id::{DeploymentId, Epoch, IncarnationId};
use diaspore_block::key::Keyring;
use diaspore_block::name::Names;
use diaspore_ledger::Ledger;
use diaspore_provider::Fleet;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::api::{Error, ErrorKind};
use crate::audit::AuditQueue;
use crate::blob::DataPath;
use crate::checkpoint::Checkpoints;
use crate::collect::{Collector, Keep};
use crate::commit::Committer;
use crate::config::{EngineConfig, Fatal, Limits};
use crate::fence::Fence;
use crate::history::Recorder;
use crate::keyring::Holders;
use crate::layout::Layout;
use crate::modes::Modes;
use crate::namespace::{KeyLocks, disk_full};
use crate::relocate::Relocations;
use crate::scrub::Scrubbing;
use crate::settle::Settlement;
use crate::unjudged::Unjudged;
use crate::world::{Clock, Draw, Entropy};

/// What exists before anybody may write: the start and its reads work on this alone. Clones share everything that counts.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) config: EngineConfig,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) names: Arc<Names>,
    pub(crate) fleet: Fleet,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) meters: Arc<Meters>,
    /// Counters by the time of day.
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) audit: Arc<AuditQueue>,
    /// What collections leave alone.
    pub(crate) keep: Keep,
    pub(crate) collector: Arc<Collector>,
    /// What is known about the integrity of what is stored.
    pub(crate) scrub: Arc<Scrubbing>,
    /// How each provider is to be used.
    pub(crate) modes: Arc<Modes>,
    pub(crate) relocations: Arc<Relocations>,
    /// Who holds the keyring, as the start of the process found.
    pub(crate) holders: Arc<Holders>,
    /// What this build met at a provider and cannot judge.
    pub(crate) unjudged: Arc<Unjudged>,
    /// What to abort; none once the engine was aborted.
    running: Arc<Mutex<Option<Vec<AbortHandle>>>>,
    started: tokio::time::Instant,
}

impl Ground {
    /// The ground of one process.
    pub(crate) fn new(
        config: EngineConfig,
        keys: Arc<Keyring>,
        fleet: Fleet,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let recorder = Arc::new(Recorder::new(config.history.clone()));
        Self {
            config,
            names: Arc::new(Names::new(&keys.name)),
            keys,
            fleet,
            ledger,
            clock,
            entropy,
            meters: Arc::default(),
            recorder,
            audit: Arc::default(),
            keep: Keep::default(),
            collector: Arc::default(),
            scrub: Arc::default(),
            modes: Arc::default(),
            relocations: Arc::default(),
            holders: Arc::default(),
            unjudged: Arc::default(),
            running: Arc::new(Mutex::new(Some(Vec::new()))),
            started: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets [`Ground::abort`] end a task; it is aborted at once when that was called already.
    pub(crate) fn register(&self, task: AbortHandle) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handles) = running.as_mut() else {
            task.abort();
            return;
        };
        if handles.len() >= 64 && handles.len().is_power_of_two() {
            handles.retain(|handle| !handle.is_finished());
        }
        handles.push(task);
    }

    /// Ends every task where it stands and lets none run any more.
    pub(crate) fn abort(&self) {
        let handles = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        for handle in handles.into_iter().flatten() {
            handle.abort();
        }
    }

    /// A generator over the engine's entropy.
    pub(crate) fn rng(&self) -> Draw<'_> {
        Draw(self.entropy.as_ref())
    }

    pub(crate) fn deployment(&self) -> DeploymentId {
        self.keys.deployment
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The incarnation that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) incarnation: IncarnationId,
    pub(crate) epoch: Epoch,
}

/// What the engine does at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Reconciling: nothing is served (PROTOCOL rule 10).
    Starting,
    /// Serving reads and writes.
    Active,
    /// Serving what the ledger knows, taking nothing; the reason.
    ReadOnly(String),
    /// The end of the log is not decided: nothing is served (PROTOCOL rule 10).
    Undetermined(String),
    /// Lost the fence or the disk: nothing is acknowledged ever again; the reason.
    Stopped(String),
    /// Shut down in order.
    Closed,
}

/// The stage, as those see it who must refuse by it. Once stopped it stays stopped.
#[derive(Debug, Clone)]
pub(crate) struct StageCell(Arc<Mutex<Stage>>);

impl StageCell {
    pub(crate) fn new(stage: Stage) -> Self {
        Self(Arc::new(Mutex::new(stage)))
    }

    fn cell(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Stage {
        self.cell().clone()
    }

    pub(crate) fn set(&self, next: Stage) {
        let mut stage = self.cell();
        if !matches!(*stage, Stage::Stopped(_)) {
            *stage = next;
        }
    }

    /// True the first time.
    fn stop(&self, why: String) -> bool {
        let mut stage = self.cell();
        let first = !matches!(*stage, Stage::Stopped(_));
        if first {
            *stage = Stage::Stopped(why);
        }
        first
    }

    /// From here on only reads are served, while what was accepted is finished.
    pub(crate) fn refuse_new_work(&self) {
        self.set(Stage::ReadOnly("it is shutting down".to_owned()));
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        match self.get() {
            Stage::Active => Ok(()),
            Stage::ReadOnly(why) => Err(Error::new(ErrorKind::ReadOnly, format!("the service is read-only: {why}"))),
            other => refusal(other),
        }
    }

    pub(crate) fn check_readable(&self) -> Result<(), Error> {
        match self.get() {
            Stage::Active | Stage::ReadOnly(_) => Ok(()),
            other => refusal(other),
        }
    }
}

/// One engine: ground, writer and the moving parts. Everything below `engine` gets an `Arc` of it.
pub(crate) struct Shared {
    pub(crate) ground: Ground,
    pub(crate) writer: Writer,
    /// How its commit blocks are laid out; none for an engine that does not write.
    pub(crate) layout: Option<Layout>,
    pub(crate) fence: Fence,
    pub(crate) committer: Committer,
    pub(crate) settlement: Settlement,
    /// Compacted logs.
    pub(crate) checkpoints: Checkpoints,
    pub(crate) locks: KeyLocks,
    /// One permit per byte of commit blocks whose shards are still on their way.
    pub(crate) commit_buffers: Arc<Semaphore>,
    /// One permit per byte of download buffers.
    pub(crate) read_bytes: Arc<Semaphore>,
    pub(crate) bulk_counter: AtomicU64,
    /// What the data path keeps between requests.
    pub(crate) data: DataPath,
    pub(crate) stage: StageCell,
    /// Background tasks end when it turns true.
    pub(crate) closing: watch::Sender<bool>,
    tasks: TaskTracker,
}

impl Deref for Shared {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("writer", &self.writer).field("stage", &self.stage.get()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Puts the parts together in `stage`.
    pub(crate) fn new(
        ground: Ground,
        (writer, layout): (Writer, Option<Layout>),
        fence: Fence,
        committer: Committer,
        stage: StageCell,
    ) -> Self {
        let limits = ground.config.limits;
        Self {
            ground,
            writer,
            layout,
            fence,
            committer,
            settlement: Settlement::default(),
            checkpoints: Checkpoints::default(),
            locks: KeyLocks::default(),
            commit_buffers: Arc::new(Semaphore::new(commit_buffer_bytes(&limits))),
            read_bytes: Arc::new(Semaphore::new(limits.read_bytes)),
            bulk_counter: AtomicU64::new(0),
            data: DataPath::new(&limits),
            stage,
            closing: watch::Sender::new(false),
            tasks: TaskTracker::new(),
        }
    }

    /// When a request that comes now has to be answered.
    pub(crate) fn answer_by(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.config.answer_deadline
    }

    /// How long an account may be away before what lies there is made anew elsewhere.
    pub(crate) fn hold_off(&self) -> Duration {
        Duration::from_secs(self.config.profile.upkeep.hold_off_s.into())
    }

    /// Rests between two rounds of a background task; false when the engine ends meanwhile.
    pub(crate) async fn rest(&self, pause: Duration) -> bool {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Runs a task of this engine; shutting down waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.register(self.tasks.spawn(task).abort_handle());
    }

    /// Runs a task that only reads, for whoever waits for the bytes: a successor need not wait for it.
    pub(crate) fn spawn_read(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.register(tokio::spawn(task).abort_handle());
    }

    /// Ends every task of this engine where it stands and starts none any more: what a crash does.
    pub(crate) fn abort(&self) {
        self.stage.set(Stage::Closed);
        self.ground.abort();
    }

    /// Makes way for a successor in the same process: takes nothing new, leaves what is in flight to it, and goes on serving reads
    /// of what was released.
    pub(crate) fn step_aside(&self, why: &str) {
        self.stage.set(Stage::ReadOnly(why.to_owned()));
        self.closing.send_replace(true);
    }

    /// Waits, at most for `limit`, until no task of this engine runs; whether that came about.
    pub(crate) async fn wait_tasks(&self, limit: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        if !ended {
            tracing::warn!(tasks = self.tasks.len(), "tasks of the engine did not end in time");
        }
        ended
    }

    /// Refuses mutations unless the engine serves them and the disk has room for them.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.stage.check_writable()?;
        self.check_room()
    }

    /// Refuses what has to be written down while the disk is full.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.ledger.is_full() { Err(disk_full()) } else { Ok(()) }
    }

    /// Refuses reads while the state they would see is not decided (PROTOCOL rule 10).
    pub(crate) fn check_readable(&self) -> Result<(), Error> {
        self.stage.check_readable()
    }

    /// Stops for good: the first reason stays, background work ends, the process is told.
    pub(crate) fn stop(&self, fatal: Fatal) {
        let why = match &fatal {
            Fatal::JournalSync(why) => format!("the journal could not be flushed: {why}"),
            Fatal::Superseded(why) => format!("another writer took over: {why}"),
            Fatal::Refused(why) => why.clone(),
            Fatal::Ledger(why) => format!("the ledger refused a released block: {why}"),
        };
        if !self.stage.stop(why.clone()) {
            return;
        }
        tracing::error!(%why, "stopped for good");
        self.closing.send_replace(true);
        (self.config.on_fatal)(fatal);
    }

    /// Ends background work in order; what is stopped stays stopped.
    pub(crate) fn close(&self) {
        self.stage.set(Stage::Closed);
        self.closing.send_replace(true);
    }
}

/// Room for the coded form of a few of the longest commit blocks.
pub(crate) const fn commit_buffer_bytes(limits: &Limits) -> usize {
    limits.commit_bytes.saturating_mul(8)
}

fn refusal(stage: Stage) -> Result<(), Error> {
    Err(match stage {
        Stage::Starting => Error::new(ErrorKind::ReadOnly, "the service is starting: the end of the log is not decided yet"),
        Stage::Undetermined(why) => Error::new(ErrorKind::ReadOnly, format!("the end of the log is not decided: {why}")),
        Stage::Stopped(why) => Error::new(ErrorKind::RefusedState, format!("this process has stopped for good: {why}")),
        Stage::Closed => Error::new(ErrorKind::NotAccepted, "the service is shutting down; nothing was accepted"),
        Stage::Active | Stage::ReadOnly(_) => Error::new(ErrorKind::Internal, "refused without a reason"),
    })
}

/// Counters since start. Relaxed: they inform, nothing is decided by them.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) puts: AtomicU64,
    pub(crate) gets: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) failovers: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
    /// Units that a reader took from another one's fetch.
    pub(crate) coalesced_reads: AtomicU64,
    pub(crate) integrity_faults: AtomicU64,
    pub(crate) leaves: AtomicU64,
    pub(crate) signatures: AtomicU64,
    pub(crate) repaired_shards: AtomicU64,
    pub(crate) repaired_bytes: AtomicU64,
}

impl Meters {
    /// Adds one.
    pub(crate) fn bump(meter: &AtomicU64) {
        meter.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `count`.
    pub(crate) fn add(meter: &AtomicU64, count: u64) {
        meter.fetch_add(count, Ordering::Relaxed);
    }

    /// Reads it.
    pub(crate) fn read(meter: &AtomicU64) -> u64 {
        meter.load(Ordering::Relaxed)
    }
}
