//! Blobs: put, get, head, delete, list.
//!
//! A mutation of a key is decided under the key's lock, which is held until its record is applied: conditional requests see
//! the state that the one before left behind. The body of a put arrives before the lock is taken, so that a slow sender holds
//! up nobody.

pub(crate) mod condition;
mod deadline;
pub(crate) mod flight;

use std::sync::Arc;

use diaspore_block::id::{BucketId, Seq, VersionId};
use diaspore_block::record::{self, BlobDeleted, BlobPut, Outcome, Private};
use diaspore_ledger::{BlobEntry, BucketEntry, IdempotencyEntry, ListItem, ListQuery};
use diaspore_policy::AckClass;
use rand::Rng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::{
    BlobInfo, BodyStream, Caller, Class, ETag, Error, ErrorKind, GetOptions, GetOutcome, Idempotency, ListOptions, ListPage, Precondition,
    PutOptions, PutOutcome,
};
use crate::audit::Event;
use crate::cache::{ChunkCache, LeafCache};
use crate::collect::Lease;
use crate::commit::{CommitRequest, Committed, NewRecord};
use crate::config::Limits;
use crate::layout;
use crate::namespace::{self, local, view};
use crate::read;
use crate::read::coalesce::Fetches;
use crate::read::links::Links;
use crate::read::pace::Pace;
use crate::shared::{Meters, Shared};
use crate::upload::{BlockMemory, Purpose, Received, Shipment, Upload};
use condition::{check_key, check_options, check_precondition, resolve_range};
use flight::Flights;

/// Entries of one page of a listing.
const MAX_PAGE: usize = 1000;
/// Uploads whose bodies are buffered at once, 2 MiB each; more of them wait with their first bytes.
const WINDOWS: usize = 24;

/// What the data path keeps between requests.
#[derive(Debug)]
pub(crate) struct DataPath {
    pub(crate) cache: ChunkCache,
    pub(crate) leaves: LeafCache,
    pub(crate) fetches: Fetches,
    pub(crate) pace: Pace,
    pub(crate) links: Links,
    /// One permit per upload that holds more than a few bytes of its body.
    pub(crate) windows: Arc<Semaphore>,
    pub(crate) blocks: Arc<BlockMemory>,
    flights: Flights,
}

impl DataPath {
    /// Nothing cached, nothing known about anybody's pace.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            cache: ChunkCache::new(limits.cache_bytes),
            leaves: LeafCache::default(),
            fetches: Fetches::default(),
            pace: Pace::default(),
            links: Links::default(),
            windows: Arc::new(Semaphore::new(WINDOWS)),
            blocks: Arc::new(BlockMemory::new(limits.upload_bytes)),
            flights: Flights::default(),
        }
    }
}

/// Stores a blob.
pub(crate) async fn put(
    shared: &Arc<Shared>,
    caller: &Caller,
    bucket: &str,
    key: &[u8],
    options: PutOptions,
    body: BodyStream,
) -> Result<PutOutcome, Error> {
    shared.check_writable()?;
    check_key(key)?;
    check_options(&options)?;
    let row = namespace::bucket(shared, caller.tenant, bucket)?;
    let flight = options.idempotency.as_ref().map(|token| shared.data.flights.enter(token.key_hash)).transpose()?;
    if let Some(token) = &options.idempotency
        && let Some(known) = view(shared)?.idempotency(&token.key_hash).map_err(local)?
    {
        return replay_put(shared, caller, &row, key, token, &known, &options, body).await;
    }
    // Refuse what cannot hold before the body is read; what decides is the check under the lock, and the one before sealing.
    layout::of_commit_blocks(shared)?;
    check_precondition(&options.precondition, current_etag(shared, row.id, key)?)?;
    let class = options.class.unwrap_or(match shared.config.profile.class {
        AckClass::Quorum => Class::Quorum,
        AckClass::Full => Class::Full,
    });
    let upload = Upload::new(shared, caller, row.id, Purpose::Store(class), &options)?;
    let (received, by) = take_in(shared, upload, body, &options).await?;

    let guard = shared.locks.lock(row.id, key, by).await?;
    if namespace::bucket(shared, caller.tenant, bucket)?.id != row.id {
        return Err(Error::new(ErrorKind::UnknownBucket, "the bucket was deleted while the body arrived"));
    }
    check_precondition(&options.precondition, current_etag(shared, row.id, key)?)?;
    let (version, etag) = draw_version(shared);
    let idempotency = match &options.idempotency {
        Some(token) => Some(fingerprint(shared, caller, row.id, token, &received.body_hash)?),
        None => None,
    };
    let Received { size, sha256, content, small, shipment, unsettled, geometry, pins, .. } = received;
    let put = BlobPut {
        bucket: row.id,
        key: key.to_vec(),
        version,
        size,
        content_type: options.content_type.clone(),
        metadata: options.metadata.clone(),
        sha256,
        etag: etag.0,
        class: record_class(class),
        content,
        idempotency,
    };
    let (mut records, bulk, recorded) = shipment.map(Shipment::into_records).unwrap_or_default();
    records.push(NewRecord {
        tenant: caller.tenant,
        principal: caller.principal,
        subject: version.into(),
        class: record_class(class),
        outcome: Outcome::Done,
        private: Private::BlobPut(put),
    });
    let request = CommitRequest { records, chunks: small, class, bulk, hold: Box::new((guard, flight, pins)) };
    let Committed { seq, geometry: commit_geometry } = shared.committer.submit(request, by).await?;
    Meters::bump(&shared.meters.puts);
    if class == Class::Full {
        settled(shared, recorded.into_iter().chain(unsettled), by).await?;
    }
    let (k, n) = commit_geometry;
    let entry = view(shared)?.blob(row.id, key).map_err(local)?.filter(|entry| entry.version == version);
    let modified = entry.map_or_else(|| shared.clock.now(), |entry| entry.modified);
    Ok(PutOutcome {
        blob: BlobInfo {
            key: key.to_vec(),
            version,
            etag,
            size,
            sha256,
            content_type: options.content_type,
            metadata: options.metadata,
            modified,
            class,
        },
        seq,
        geometry: geometry.unwrap_or((k, n, false)),
        replayed: false,
    })
}

/// Receives the whole body; what comes after has until the instant it gives.
async fn take_in(shared: &Shared, upload: Upload, body: BodyStream, options: &PutOptions) -> Result<(Received, Instant), Error> {
    Box::pin(deadline::receive(shared.config.answer_deadline, body, |body| upload.receive(body, options))).await
}

/// Answers a retry of a request that has its outcome, once its body turns out to be the same.
#[expect(clippy::too_many_arguments, reason = "the request, and what is known about it")]
async fn replay_put(
    shared: &Arc<Shared>,
    caller: &Caller,
    row: &BucketEntry,
    key: &[u8],
    token: &Idempotency,
    known: &IdempotencyEntry,
    options: &PutOptions,
    body: BodyStream,
) -> Result<PutOutcome, Error> {
    let upload = Upload::new(shared, caller, row.id, Purpose::Compare, options)?;
    let (received, by) = take_in(shared, upload, body, options).await?;
    let same = fingerprint(shared, caller, row.id, token, &received.body_hash)?.request_hash == known.request_hash;
    let Some(entry) = known.blob.as_ref().filter(|_| same && known.bucket == row.id && known.key == key) else { return Err(mismatch()) };
    if entry.class == record::Class::Full {
        // The first answer may have been "not yet": a retry must not turn that into "yes".
        tokio::time::timeout_at(by, shared.settlement.wait_through(known.seq)).await.map_err(|_| not_yet_full())?;
    }
    let block = view(shared)?.commit_block(known.seq).map_err(local)?;
    let geometry = block.map_or((0, 0, false), |block| (block.facts.geometry.k(), block.facts.geometry.n(), false));
    Ok(PutOutcome { blob: info(key.to_vec(), entry), seq: known.seq, geometry, replayed: true })
}

/// What is stored under a key.
#[expect(clippy::unused_async, reason = "every use case is awaited; this one happens to be answered from the ledger alone")]
pub(crate) async fn head(shared: &Arc<Shared>, caller: &Caller, bucket: &str, key: &[u8], options: &GetOptions) -> Result<BlobInfo, Error> {
    let (_, entry) = find(shared, caller, bucket, key, options.version)?;
    Ok(info(key.to_vec(), &entry))
}

/// Reads a blob or a range of it.
pub(crate) async fn get(
    shared: &Arc<Shared>,
    caller: &Caller,
    bucket: &str,
    key: &[u8],
    options: &GetOptions,
) -> Result<GetOutcome, Error> {
    let lease = lease(shared)?;
    let (row, entry) = find(shared, caller, bucket, key, options.version)?;
    let range = resolve_range(options.range, entry.size)?;
    Meters::bump(&shared.meters.gets);
    let body = read::open(shared, row.id, &entry.content, range.clone(), lease).await?;
    shared.audit.note(Event::BlobRead {
        tenant: caller.tenant,
        principal: caller.principal,
        bucket: row.id,
        key: key.to_vec(),
        version: entry.version,
    });
    Ok(GetOutcome { blob: info(key.to_vec(), &entry), range, body })
}

/// Deletes the current version.
pub(crate) async fn delete(
    shared: &Arc<Shared>,
    caller: &Caller,
    bucket: &str,
    key: &[u8],
    precondition: Precondition,
    idempotency: Option<Idempotency>,
) -> Result<Seq, Error> {
    shared.check_writable()?;
    check_key(key)?;
    let row = namespace::bucket(shared, caller.tenant, bucket)?;
    let flight = idempotency.as_ref().map(|token| shared.data.flights.enter(token.key_hash)).transpose()?;
    let stored = match &idempotency {
        Some(token) => Some(fingerprint(shared, caller, row.id, token, &[0; 32])?),
        None => None,
    };
    if let Some(stored) = &stored
        && let Some(known) = view(shared)?.idempotency(&stored.key_hash).map_err(local)?
    {
        let same = known.deleted && known.request_hash == stored.request_hash && known.bucket == row.id && known.key == key;
        return if same { Ok(known.seq) } else { Err(mismatch()) };
    }
    layout::of_commit_blocks(shared)?;
    let by = shared.answer_by();
    let guard = shared.locks.lock(row.id, key, by).await?;
    let entry = view(shared)?.blob(row.id, key).map_err(local)?;
    check_precondition(&precondition, entry.as_ref().map(|entry| ETag(entry.etag)))?;
    let entry = entry.ok_or_else(unknown_key)?;
    let record = NewRecord {
        tenant: caller.tenant,
        principal: caller.principal,
        subject: entry.version.into(),
        class: record::Class::Quorum,
        outcome: Outcome::Done,
        private: Private::BlobDeleted(BlobDeleted { bucket: row.id, key: key.to_vec(), version: entry.version, idempotency: stored }),
    };
    let committed = shared.committer.submit(CommitRequest::single(record, (guard, flight)), by).await?;
    Meters::bump(&shared.meters.deletes);
    Ok(committed.seq)
}

/// One page of a bucket's keys.
#[expect(clippy::unused_async, reason = "every use case is awaited; this one happens to be answered from the ledger alone")]
pub(crate) async fn list(shared: &Arc<Shared>, caller: &Caller, bucket: &str, options: &ListOptions) -> Result<ListPage, Error> {
    if !(1..=MAX_PAGE).contains(&options.limit) {
        return Err(Error::new(ErrorKind::Invalid, "the page size is outside 1 to 1000"));
    }
    let row = namespace::bucket(shared, caller.tenant, bucket)?;
    let query = ListQuery {
        prefix: &options.prefix,
        delimiter: options.delimiter.as_deref().unwrap_or_default(),
        start_after: options.start_after.as_deref(),
        limit: options.limit,
    };
    let page = view(shared)?.list(row.id, &query).map_err(local)?;
    let mut out = ListPage { next: page.next, ..ListPage::default() };
    for item in page.items {
        match item {
            ListItem::Blob { key, entry } => out.blobs.push(info(key, &entry)),
            ListItem::Prefix(prefix) => out.common_prefixes.push(prefix),
        }
    }
    Ok(out)
}

/// What keeps a collection away from whatever is looked up from now on.
fn lease(shared: &Shared) -> Result<Lease, Error> {
    Ok(shared.keep.lease(view(shared)?.applied_seq().map_err(local)?))
}

fn find(
    shared: &Arc<Shared>,
    caller: &Caller,
    bucket: &str,
    key: &[u8],
    version: Option<VersionId>,
) -> Result<(BucketEntry, BlobEntry), Error> {
    check_key(key)?;
    let row = namespace::bucket(shared, caller.tenant, bucket)?;
    let entry = view(shared)?.blob(row.id, key).map_err(local)?.ok_or_else(unknown_key)?;
    if version.is_some_and(|version| version != entry.version) {
        return Err(Error::new(ErrorKind::UnknownVersion, "the key exists, but its current version is another one"));
    }
    Ok((row, entry))
}

fn current_etag(shared: &Shared, bucket: BucketId, key: &[u8]) -> Result<Option<ETag>, Error> {
    Ok(view(shared)?.blob(bucket, key).map_err(local)?.map(|entry| ETag(entry.etag)))
}

fn draw_version(shared: &Shared) -> (VersionId, ETag) {
    let mut rng = shared.rng();
    let mut etag = [0; 16];
    rng.fill_bytes(&mut etag);
    (VersionId::draw(&mut rng), ETag(etag))
}

/// What a record keeps of a retry token: its hash, and a keyed hash of the whole request with its body.
fn fingerprint(
    shared: &Shared,
    caller: &Caller,
    bucket: BucketId,
    token: &Idempotency,
    body_hash: &[u8; 32],
) -> Result<record::Idempotency, Error> {
    let keys = shared.keys.tenant(caller.tenant);
    let keys = keys.map_err(|error| Error::caused(ErrorKind::Internal, "the tenant has no keys", error))?;
    let request = [token.request_hash.as_slice(), body_hash].concat();
    let request_hash = keys.dedup.bucket(&bucket).keyed("request", &request);
    Ok(record::Idempotency { key_hash: token.key_hash, request_hash })
}

fn info(key: Vec<u8>, entry: &BlobEntry) -> BlobInfo {
    BlobInfo {
        key,
        version: entry.version,
        etag: ETag(entry.etag),
        size: entry.size,
        sha256: entry.sha256,
        content_type: entry.content_type.clone(),
        metadata: entry.metadata.clone(),
        modified: entry.modified,
        class: match entry.class {
            record::Class::Full => Class::Full,
            record::Class::Quorum => Class::Quorum,
        },
    }
}

fn record_class(class: Class) -> record::Class {
    match class {
        Class::Quorum => record::Class::Quorum,
        Class::Full => record::Class::Full,
    }
}

/// Waits for blocks that earlier commits brought and that a `full` answer rests on too.
async fn settled(shared: &Shared, seqs: impl Iterator<Item = Seq>, by: Instant) -> Result<(), Error> {
    let all = async {
        for seq in seqs {
            shared.settlement.wait(seq).await;
        }
    };
    tokio::time::timeout_at(by, all).await.map_err(|_| not_yet_full())
}

/// The answer to a `full` request whose records are released while shards are still missing.
fn not_yet_full() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "stored at quorum, not yet at full: ask again with the same Idempotency-Key")
}

fn unknown_key() -> Error {
    Error::new(ErrorKind::UnknownKey, "no blob under this key")
}

fn mismatch() -> Error {
    Error::new(ErrorKind::IdempotencyMismatch, "this Idempotency-Key was used for another request; use a fresh one")
}

#[cfg(test)]
pub(crate) mod tests;
