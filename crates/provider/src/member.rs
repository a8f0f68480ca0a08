//! One provider of the fleet: its store, its limits, its health, and the frame every request runs in.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diaspore_policy::ProviderSpec;
use object_store::ObjectStore;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::counters::Tally;
use crate::deadline::Deadline;
use crate::error::{ErrorKind, Operation, ProviderError};
use crate::fleet::FleetOptions;
use crate::health::{HealthState, Monitor, Outcome};
use crate::root::{Root, tells_nothing};

/// Bytes per permit of the byte limit.
const GRAIN: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) spec: ProviderSpec,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) tally: Tally,
    pub(crate) monitor: Monitor,
    root: Option<Root>,
    requests: Semaphore,
    bytes: Semaphore,
    byte_permits: u32,
}

/// What a request is and what it moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errand {
    pub(crate) operation: Operation,
    /// Most payload bytes in memory for it, either way.
    pub(crate) bytes: u64,
    pub(crate) deadline: Deadline,
    /// Passes an open breaker, and a gate that is shut to writes.
    pub(crate) forced: bool,
}

/// A finished request: its value and the latency that tells about the provider, if this one does.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) latency: Option<Duration>,
}

pub(crate) type Failure = (ErrorKind, String);

impl Member {
    pub(crate) fn new(spec: ProviderSpec, store: Arc<dyn ObjectStore>, options: &FleetOptions) -> Self {
        let byte_permits = permits(options.bytes_in_flight).max(1);
        Self {
            root: Root::of(&spec),
            spec,
            store,
            tally: Tally::default(),
            monitor: Monitor::new(options.breaker),
            requests: Semaphore::new(usize::try_from(options.requests_in_flight.max(1)).unwrap_or(Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(usize::try_from(byte_permits).unwrap_or(Semaphore::MAX_PERMITS)),
            byte_permits,
        }
    }

    /// Runs one request: waits for a slot, asks the breaker, sends, watches the deadline, keeps the books.
    ///
    /// `work` gets the instant at which the request must be over. Dropping the future ends the request and blames nobody.
    pub(crate) async fn run<T, F, W>(&self, errand: Errand, work: W) -> Result<T, ProviderError>
    where
        W: FnOnce(Instant) -> F,
        F: Future<Output = Result<Answer<T>, Failure>>,
    {
        let _slot = self.slot(errand).await?;
        if !self.monitor.admit(errand.operation, errand.forced) {
            self.tally.refused();
            let writes = errand.operation == Operation::Put && self.monitor.health().state != HealthState::Down;
            let why = if writes { "it takes no writes at present" } else { "the circuit breaker is open" };
            return Err(self.error(errand.operation, ErrorKind::CircuitOpen, why.to_owned()));
        }
        let mut report = Report { member: self, operation: errand.operation, outcome: Some(Outcome::Abandoned) };
        self.tally.sent(errand.operation, if errand.operation == Operation::Put { errand.bytes } else { 0 });
        let until = Instant::now() + errand.deadline.total;
        let late = || (ErrorKind::Timeout, format!("no answer within {:?}", errand.deadline.total));
        let done = match self.check_root(errand.deadline).await {
            Ok(()) => timeout_at(until, work(until)).await.unwrap_or_else(|_| Err(late())),
            Err(gone) => Err(gone),
        };
        let done = if tells_nothing(errand.operation, &done) { self.check_root(errand.deadline).await.and(done) } else { done };
        let done = done.map_err(|(kind, detail)| (sensible(errand.operation, kind), detail));
        match done {
            Ok(Answer { value, latency }) => {
                report.outcome = Some(Outcome::Good(latency));
                Ok(value)
            }
            Err((kind, detail)) => {
                report.outcome = Some(self.judge(kind, &detail));
                Err(self.error(errand.operation, kind, detail))
            }
        }
    }

    /// Nothing to do for an account that does not live in a folder.
    async fn check_root(&self, deadline: Deadline) -> Result<(), Failure> {
        match &self.root {
            Some(root) => root.check(deadline.total).await,
            None => Ok(()),
        }
    }

    pub(crate) fn error(&self, operation: Operation, kind: ErrorKind, detail: String) -> ProviderError {
        ProviderError { provider: self.spec.id.clone(), operation, kind, detail }
    }

    /// Waits for a free request and enough free bytes; a request larger than the limit takes all of it.
    async fn slot(&self, errand: Errand) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), ProviderError> {
        let wanted = permits(errand.bytes).min(self.byte_permits);
        let both = async { Ok::<_, tokio::sync::AcquireError>((self.bytes.acquire_many(wanted).await?, self.requests.acquire().await?)) };
        if let Ok(Ok(slot)) = tokio::time::timeout(errand.deadline.total, both).await {
            return Ok(slot);
        }
        self.tally.refused();
        let detail = format!("no free slot within {:?}: raise the limits or lower the load", errand.deadline.total);
        Err(self.error(errand.operation, ErrorKind::Busy, detail))
    }

    fn judge(&self, kind: ErrorKind, detail: &str) -> Outcome {
        match kind {
            ErrorKind::NotFound => Outcome::Good(None),
            ErrorKind::AlreadyExists => Outcome::Taken,
            ErrorKind::Full => {
                self.tally.failed(kind);
                Outcome::Full(detail.to_owned())
            }
            ErrorKind::Invalid => Outcome::Abandoned,
            _ => {
                self.tally.failed(kind);
                Outcome::Failed(detail.to_owned())
            }
        }
    }
}

/// "Not there" answers a question about an object. Where there was none it is the account that is not there.
fn sensible(operation: Operation, kind: ErrorKind) -> ErrorKind {
    match (operation, kind) {
        (Operation::Put | Operation::List, ErrorKind::NotFound) => ErrorKind::Unavailable,
        (_, kind) => kind,
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX)
}

/// Tells the monitor how a request ended, also when its future is dropped half-way.
struct Report<'a> {
    member: &'a Member,
    operation: Operation,
    outcome: Option<Outcome>,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        let provider = &self.member.spec.id;
        let turn = self.member.monitor.settle(self.operation, outcome);
        if turn.down {
            self.member.tally.opened();
            tracing::warn!(%provider, "provider is down: circuit breaker opened");
        }
        match turn.takes_writes {
            Some(false) => tracing::warn!(%provider, "provider takes no writes: nothing new is placed there until a trial succeeds"),
            Some(true) => tracing::info!(%provider, "provider takes writes again"),
            None => (),
        }
    }
}
