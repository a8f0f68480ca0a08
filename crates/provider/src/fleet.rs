//! The operator's accounts as one object.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diaspore_policy::{Candidate, FailureDomain, Guarantee, ProviderId, ProviderSpec};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::{Instant, timeout_at};

use crate::body;
use crate::connect;
use crate::counters::Counters;
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{ConnectError, ErrorKind, Operation, ProviderError, classify};
use crate::health::{BreakerOptions, Health, HealthState, MINUTES, Minute};
use crate::member::{Answer, Errand, Failure, Member};
use crate::path::{list_prefix, object_path, strip};

/// Limits of a fleet, per provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetOptions {
    /// Longest time to a connection (DNS, TCP, TLS).
    pub connect: Duration,
    /// Requests in flight.
    pub requests_in_flight: u32,
    /// Payload bytes in flight, both ways.
    pub bytes_in_flight: u64,
    /// Circuit breaker.
    pub breaker: BreakerOptions,
}

impl Default for FleetOptions {
    /// 3 s to connect, 64 requests and 32 MiB in flight per provider.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            requests_in_flight: 64,
            bytes_in_flight: 32 * 1024 * 1024,
            breaker: BreakerOptions::default(),
        }
    }
}

/// All accounts. A cheap handle: clones share stores, limits, health and counters.
#[derive(Debug, Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    specs: Vec<ProviderSpec>,
    members: BTreeMap<ProviderId, Member>,
}

impl Fleet {
    /// Sets up every account. Sends nothing: whether an account answers shows at the first request or in [`Fleet::self_test`].
    pub fn connect(specs: &[ProviderSpec], credentials: &Credentials, options: FleetOptions) -> Result<Self, ConnectError> {
        if specs.is_empty() {
            return Err(ConnectError::Empty);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = specs.iter().find(|spec| !seen.insert(&spec.id)) {
            return Err(ConnectError::Duplicate { provider: twice.id.clone() });
        }
        let open = |spec: &ProviderSpec| Ok((spec.clone(), connect::open(spec, credentials, &options)?));
        Ok(Self::from_stores(specs.iter().map(open).collect::<Result<_, ConnectError>>()?, options))
    }

    /// A fleet over stores made elsewhere: simulation and tests. Of accounts with the same name the last one stays.
    pub fn from_stores(stores: Vec<(ProviderSpec, Arc<dyn ObjectStore>)>, options: FleetOptions) -> Self {
        let member = |(spec, store): (ProviderSpec, Arc<dyn ObjectStore>)| (spec.id.clone(), Member::new(spec, store, &options));
        let members: BTreeMap<_, _> = stores.into_iter().map(member).collect();
        let specs = members.values().map(|member| member.spec.clone()).collect();
        Self { inner: Arc::new(Inner { specs, members }) }
    }

    /// The accounts, in name order.
    pub fn providers(&self) -> &[ProviderSpec] {
        &self.inner.specs
    }

    /// One account.
    pub fn provider(&self, id: &ProviderId) -> Option<&ProviderSpec> {
        self.inner.members.get(id).map(|member| &member.spec)
    }

    /// Writes an object; its pieces go out in order without being copied. An identical retry succeeds.
    ///
    /// Where the preset says conditional PUT works, the PUT is create-only. "Already exists" may then be our own earlier PUT
    /// whose answer was lost, or a second writer with our memory (PROTOCOL rule 13). Sizes cannot tell them apart, so the object is
    /// read back and compared: equal bytes are success, anything else is [`ErrorKind::AlreadyExists`]. Correctness never rests on it.
    pub async fn put(&self, id: &ProviderId, path: &str, payload: Vec<Bytes>, deadline: Deadline) -> Result<(), ProviderError> {
        let member = self.member(id, Operation::Put)?;
        let location = self.location(member, Operation::Put, path)?;
        let create = member.spec.conditional_put == Guarantee::Yes;
        let length: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
        let body: PutPayload = payload.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        let written = send_put(member, &location, body, length, create, deadline).await;
        match written {
            Err(error) if error.kind == ErrorKind::AlreadyExists && create => {
                let stored = self.get(id, path, None, length, deadline).await;
                match stored {
                    Ok(stored) if same_bytes(&payload, &stored) => Ok(()),
                    Ok(_) => Err(error),
                    Err(read) if read.kind == ErrorKind::TooLong => Err(error),
                    Err(read) => Err(ProviderError { operation: Operation::Put, ..read }),
                }
            }
            other => other,
        }
    }

    /// Writes an object over whatever stands under its name: for one that was proven to be wrong. Nothing is ever absent in between.
    pub async fn replace(&self, id: &ProviderId, path: &str, payload: Vec<Bytes>, deadline: Deadline) -> Result<(), ProviderError> {
        let member = self.member(id, Operation::Put)?;
        let location = self.location(member, Operation::Put, path)?;
        let length: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
        let body: PutPayload = payload.into_iter().filter(|piece| !piece.is_empty()).collect();
        send_put(member, &location, body, length, false, deadline).await
    }

    /// Reads an object, or exactly `range` of it. Never keeps more than `max_len` bytes, whatever is sent; an object (or range) longer
    /// than that is [`ErrorKind::TooLong`] before its body is read. Shorter than asked or announced is [`ErrorKind::BadResponse`].
    pub async fn get(
        &self,
        id: &ProviderId,
        path: &str,
        range: Option<Range<u64>>,
        max_len: u64,
        deadline: Deadline,
    ) -> Result<Bytes, ProviderError> {
        let member = self.member(id, Operation::Get)?;
        let location = self.location(member, Operation::Get, path)?;
        if range.as_ref().is_some_and(|range| range.is_empty() || range.end - range.start > max_len) {
            let detail = "the range is empty or longer than the caller's own bound".to_owned();
            return Err(member.error(Operation::Get, ErrorKind::Invalid, detail));
        }
        let bytes = range.as_ref().map_or(max_len, |range| range.end - range.start);
        let errand = Errand { operation: Operation::Get, bytes, deadline, forced: false };
        member.run(errand, |until| read(member, &location, range, max_len, until, deadline)).await.map(|(bytes, _)| bytes)
    }

    /// Size of an object, `None` if the provider says there is none.
    ///
    /// Asked by its first byte and not by HEAD, which costs as much: a HEAD has no text that would tell a missing object from a missing bucket.
    pub async fn exists(&self, id: &ProviderId, path: &str, deadline: Deadline) -> Result<Option<u64>, ProviderError> {
        self.size(id, path, deadline, false).await
    }

    /// Removes an object. An absent one counts as removed.
    pub async fn delete(&self, id: &ProviderId, path: &str, deadline: Deadline) -> Result<(), ProviderError> {
        let member = self.member(id, Operation::Delete)?;
        let location = self.location(member, Operation::Delete, path)?;
        let errand = Errand { operation: Operation::Delete, bytes: 0, deadline, forced: false };
        let removed = member
            .run(errand, async |_| {
                let started = Instant::now();
                member.store.delete(&location).await.map_err(|error| classify(&error))?;
                Ok(Answer { value: (), latency: Some(started.elapsed()) })
            })
            .await;
        match removed {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Up to `limit` objects below `prefix` (whole path segments; empty = everything), as (path, size), in no particular order.
    /// Exactly `limit` entries mean there may be more. Entries outside the prefix are dropped: the provider made them up.
    pub async fn list(&self, id: &ProviderId, prefix: &str, limit: usize, deadline: Deadline) -> Result<Vec<(String, u64)>, ProviderError> {
        let member = self.member(id, Operation::List)?;
        let invalid = |reason: &str| member.error(Operation::List, ErrorKind::Invalid, reason.to_owned());
        let location = list_prefix(&member.spec.prefix, prefix).map_err(invalid)?;
        let errand = Errand { operation: Operation::List, bytes: 0, deadline, forced: false };
        member.run(errand, |_| enumerate(member, &location, limit)).await
    }

    /// Asks whether the provider answers, through an open breaker too, and settles its health by the answer: for a background prober.
    pub async fn probe(&self, id: &ProviderId, deadline: Deadline) -> Result<Health, ProviderError> {
        self.size(id, PROBE_OBJECT, deadline, true).await?;
        self.health(id).ok_or_else(|| unknown(id, Operation::Get))
    }

    /// Tries whether the account takes writes, past a gate that is shut to them too, and settles its health by the answer: for a background
    /// prober. One small object is written over that of the last trial, and removed again; where that fails the next trial does it.
    pub async fn try_write(&self, id: &ProviderId, deadline: Deadline) -> Result<(), ProviderError> {
        let member = self.member(id, Operation::Put)?;
        let location = self.location(member, Operation::Put, TRIAL_OBJECT)?;
        let errand = Errand { operation: Operation::Put, bytes: TRIAL.len() as u64, deadline, forced: true };
        write(member, &location, PutPayload::from_static(&TRIAL), PutMode::Overwrite, errand).await?;
        if let Err(error) = self.delete(id, TRIAL_OBJECT, deadline).await {
            tracing::debug!(%error, "the object of a trial stays");
        }
        Ok(())
    }

    /// Health of an account; `None` if there is no such account.
    pub fn health(&self, id: &ProviderId) -> Option<Health> {
        self.inner.members.get(id).map(|member| member.monitor.health())
    }

    /// What an account did in each of the last fifteen minutes, oldest first; `None` if there is no such account.
    pub fn minutes(&self, id: &ProviderId) -> Option<[Minute; MINUTES]> {
        self.inner.members.get(id).map(|member| member.monitor.minutes())
    }

    /// Asks nothing of an account any more, probes included, until told otherwise: the operator says that it is gone.
    pub fn retire(&self, id: &ProviderId, retired: bool) {
        if let Some(member) = self.inner.members.get(id) {
            member.monitor.retire(retired);
        }
    }

    /// A sampled piece of a stored object was held against what was signed: right, or wrong or not there.
    pub fn report_audit(&self, id: &ProviderId, good: bool) {
        if let Some(member) = self.inner.members.get(id) {
            member.monitor.audited(good);
        }
    }

    /// Domains with at least one account that is not down.
    pub fn healthy_domains(&self) -> BTreeSet<FailureDomain> {
        let up = |member: &&Member| member.monitor.health().state != HealthState::Down;
        self.inner.members.values().filter(up).map(|member| member.spec.domain.clone()).collect()
    }

    /// All domains.
    pub fn domains(&self) -> BTreeSet<FailureDomain> {
        self.inner.specs.iter().map(|spec| spec.domain.clone()).collect()
    }

    /// The accounts as placement candidates, index for index as [`Fleet::providers`]: weight 0 when down or full, a tenth when suspect.
    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |member: &Member| Candidate {
            domain: member.spec.domain.clone(),
            weight: member.monitor.health().scale_weight(member.spec.weight),
        };
        self.inner.members.values().map(candidate).collect()
    }

    /// Bytes from this provider failed verification above. `what` must not name an object.
    pub fn report_lie(&self, id: &ProviderId, what: &str) {
        if let Some(member) = self.inner.members.get(id) {
            let known = member.monitor.health().lying;
            member.tally.lied();
            member.monitor.lied(what);
            // A liar lies at every read: the first time is news, the rest is in the counters.
            if known {
                tracing::debug!(provider = %id, what, "provider returned bytes that fail verification again");
            } else {
                tracing::warn!(provider = %id, what, "provider returned bytes that fail verification; it is read last for a while");
            }
        }
    }

    /// Counters of an account; `None` if there is no such account.
    pub fn counters(&self, id: &ProviderId) -> Option<Counters> {
        self.inner.members.get(id).map(|member| member.tally.snapshot())
    }

    async fn size(&self, id: &ProviderId, path: &str, deadline: Deadline, forced: bool) -> Result<Option<u64>, ProviderError> {
        let member = self.member(id, Operation::Get)?;
        let location = self.location(member, Operation::Get, path)?;
        let errand = Errand { operation: Operation::Get, bytes: 1, deadline, forced };
        let first_byte = member.run(errand, |until| read(member, &location, Some(0..1), 1, until, deadline)).await;
        let asked = match first_byte {
            // An empty object has no first byte, and some do not keep to ranges.
            Err(error) if error.kind == ErrorKind::BadResponse => {
                let errand = Errand { operation: Operation::Head, bytes: 0, ..errand };
                member.run(errand, |_| head(member, &location)).await
            }
            other => other.map(|(_, size)| size),
        };
        match asked {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn member(&self, id: &ProviderId, operation: Operation) -> Result<&Member, ProviderError> {
        self.inner.members.get(id).ok_or_else(|| unknown(id, operation))
    }

    #[expect(clippy::unused_self, reason = "reads as a step of the methods above")]
    pub(crate) fn location(&self, member: &Member, operation: Operation, path: &str) -> Result<Path, ProviderError> {
        object_path(&member.spec.prefix, path).map_err(|reason| member.error(operation, ErrorKind::Invalid, reason.to_owned()))
    }
}

/// A name no object has: a provider that answers "not found" is alive.
const PROBE_OBJECT: &str = "probe/absent";
/// Where [`Fleet::try_write`] writes: one object per account at most, which stays if the process dies before it is removed.
pub const TRIAL_OBJECT: &str = "probe/write";
static TRIAL: [u8; 4096] = [0; 4096];

fn unknown(id: &ProviderId, operation: Operation) -> ProviderError {
    ProviderError { provider: id.clone(), operation, kind: ErrorKind::Invalid, detail: "no such provider is configured".to_owned() }
}

fn same_bytes(pieces: &[Bytes], stored: &[u8]) -> bool {
    let mut rest = stored;
    let matched = pieces.iter().all(|piece| {
        let (head, tail) = rest.split_at(piece.len().min(rest.len()));
        rest = tail;
        head == piece
    });
    matched && rest.is_empty()
}

pub(crate) async fn send_put(
    member: &Member,
    location: &Path,
    body: PutPayload,
    length: u64,
    create: bool,
    deadline: Deadline,
) -> Result<(), ProviderError> {
    let mode = if create { PutMode::Create } else { PutMode::Overwrite };
    write(member, location, body, mode, Errand { operation: Operation::Put, bytes: length, deadline, forced: false }).await
}

async fn write(member: &Member, location: &Path, body: PutPayload, mode: PutMode, errand: Errand) -> Result<(), ProviderError> {
    let work = async |_: Instant| {
        member.store.put_opts(location, body, PutOptions::from(mode)).await.map_err(|error| classify(&error))?;
        Ok(Answer { value: (), latency: None })
    };
    member.run(errand, work).await
}

async fn head(member: &Member, location: &Path) -> Result<Answer<u64>, Failure> {
    let started = Instant::now();
    let meta = member.store.head(location).await.map_err(|error| classify(&error))?;
    Ok(Answer { value: meta.size, latency: Some(started.elapsed()) })
}

/// The bytes asked for, and how many the object has.
async fn read(
    member: &Member,
    location: &Path,
    range: Option<Range<u64>>,
    max_len: u64,
    until: Instant,
    deadline: Deadline,
) -> Result<Answer<(Bytes, u64)>, Failure> {
    let started = Instant::now();
    let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
    let opening = timeout_at(until.min(started + deadline.stall), member.store.get_opts(location, options)).await;
    let response = opening
        .map_err(|_| (ErrorKind::Timeout, format!("no answer within {:?}", deadline.stall.min(deadline.total))))?
        .map_err(|error| classify(&error))?;
    let latency = started.elapsed();
    let size = response.meta.size;
    let announced = response.range.end.saturating_sub(response.range.start);
    match &range {
        Some(range) if response.range != *range => {
            return Err((ErrorKind::BadResponse, format!("it answered {announced} bytes to a range of {}", range.end - range.start)));
        }
        _ if announced > max_len => {
            return Err((ErrorKind::TooLong, format!("the object has {announced} bytes, at most {max_len} are acceptable")));
        }
        _ => {}
    }
    let bytes = body::collect(response.into_stream(), announced, until, deadline).await?;
    member.tally.received(bytes.len() as u64);
    Ok(Answer { value: (bytes, size), latency: Some(latency) })
}

async fn enumerate(member: &Member, location: &Path, limit: usize) -> Result<Answer<Vec<(String, u64)>>, Failure> {
    let started = Instant::now();
    let prefix = (!location.as_ref().is_empty()).then_some(location);
    let mut entries = member.store.list(prefix);
    let mut found = Vec::new();
    let mut seen = 0_usize;
    while seen < limit {
        let Some(entry) = entries.next().await else { break };
        let meta = entry.map_err(|error| classify(&error))?;
        seen += 1;
        let inside = location.as_ref().is_empty() || strip(location.as_ref(), meta.location.as_ref()).is_some();
        if let Some(path) = strip(&member.spec.prefix, meta.location.as_ref()).filter(|_| inside) {
            found.push((path.to_owned(), meta.size));
        }
    }
    Ok(Answer { value: found, latency: Some(started.elapsed()) })
}

#[cfg(test)]
mod tests;
