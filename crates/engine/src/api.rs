//! What the layer above sees: plain values in, plain values out.
//!
//! Nothing here names a provider object: locations stay inside the ledger (docs/ARCHITECTURE.md, invariant 3).

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use diaspore_block::id::{BucketId, PrincipalId, Seq, TenantId, Timestamp, VersionId};
pub use diaspore_block::record::ProviderMode;
use futures::Stream;

use diaspore_ledger::StorageMetrics;

use crate::history::Counts;
use crate::relocate::RelocationState;
use crate::scrub::{Audits, Census};

/// A request body: the caller's stream of pieces, any size each. An error aborts the upload; nothing becomes visible.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Plain bytes of a blob in order. An error means that the rest cannot be had; bytes already yielded are verified.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// The sender of a body failed: connection lost, too slow, or its declared digest did not match.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the declared length.
    #[error("the upload ended early: {0}")]
    Aborted(String),
    /// The body is longer than the limit in force.
    #[error("the body exceeds the limit of {limit} bytes")]
    TooLong {
        /// Limit in bytes.
        limit: u64,
    },
}

/// How many losses an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// k + 1 domains hold it: survives the service's disk plus one domain, lost or lying.
    Quorum,
    /// All n shards are durable: survives the disk plus any n - k domains.
    Full,
}

/// Who asks, as the front door established it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Tenant whose namespace the call addresses.
    pub tenant: TenantId,
    /// The API key (or operator) behind the call; appears in the audit log as an opaque reference.
    pub principal: PrincipalId,
}

/// `If-Match` / `If-None-Match` of RFC 9110 on the current version of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Unconditional.
    #[default]
    None,
    /// The key must be absent (`If-None-Match: *`).
    Absent,
    /// The key must exist (`If-Match: *`).
    Exists,
    /// The current `ETag` must be one of these.
    Match(Vec<ETag>),
    /// The current `ETag` must be none of these.
    NoneMatch(Vec<ETag>),
}

/// Strong validator of one version: 16 random bytes, so that equal content is not visible in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ETag(pub [u8; 16]);

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A client's retry token with a hash of the request it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of tenant and token.
    pub key_hash: [u8; 32],
    /// SHA-256 of what must not differ between retries besides the body: method, path, digests, metadata. The engine adds a hash of the body.
    pub request_hash: [u8; 32],
}

/// Everything about a put besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Requested class; the bucket's policy decides when absent.
    pub class: Option<Class>,
    /// Media type, returned as given.
    pub content_type: Option<String>,
    /// User metadata pairs, in order, sealed; limits in `docs/format.md`.
    pub metadata: Vec<(String, String)>,
    /// Declared length in bytes, when known: a shorter or longer body is refused.
    pub length: Option<u64>,
    /// Declared SHA-256 of the body (`Content-Digest`, RFC 9530): another body is refused.
    pub sha256: Option<[u8; 32]>,
    /// Compute and keep the SHA-256 even though none was declared (`Want-Content-Digest`).
    pub want_sha256: bool,
    /// Condition on the current version.
    pub precondition: Precondition,
    /// Retry token.
    pub idempotency: Option<Idempotency>,
}

/// A stored version as callers may see it.
#[derive(Debug, Clone)]
pub struct BlobInfo {
    /// Key bytes, exactly as given.
    pub key: Vec<u8>,
    /// Version id.
    pub version: VersionId,
    /// Strong validator.
    pub etag: ETag,
    /// Plain length in bytes.
    pub size: u64,
    /// SHA-256 of the plain bytes, when the upload declared or wanted it (docs/decisions/0004-chunking.md has the cost).
    pub sha256: Option<[u8; 32]>,
    /// Media type.
    pub content_type: Option<String>,
    /// User metadata.
    pub metadata: Vec<(String, String)>,
    /// When the version was accepted.
    pub modified: Timestamp,
    /// Class it was acknowledged at.
    pub class: Class,
}

/// Answer to a put or delete.
#[derive(Debug, Clone)]
pub struct PutOutcome {
    /// The new version.
    pub blob: BlobInfo,
    /// Commit-block sequence that carries the record.
    pub seq: Seq,
    /// Geometry used and whether it was shrunk because domains are down: `(k, n, shrunk)`.
    pub geometry: (u8, u8, bool),
    /// True when an earlier request with the same `Idempotency-Key` already did this.
    pub replayed: bool,
}

/// Half-open or suffix byte range of RFC 9110 section 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `first..=last`, last absent = to the end.
    From {
        /// First byte.
        first: u64,
        /// Last byte, inclusive.
        last: Option<u64>,
    },
    /// The last `length` bytes.
    Suffix {
        /// Number of bytes.
        length: u64,
    },
}

/// Options of a read.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Single range; whole blob when absent.
    pub range: Option<ByteRange>,
    /// Read exactly this version; `UnknownVersion` when it is not the current one.
    pub version: Option<VersionId>,
}

/// A read in progress.
pub struct GetOutcome {
    /// The version being read.
    pub blob: BlobInfo,
    /// Bytes `start..end` of the blob that `body` yields.
    pub range: std::ops::Range<u64>,
    /// The bytes.
    pub body: BlobStream,
}

impl fmt::Debug for GetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOutcome").field("blob", &self.blob).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Listing request: keys in byte order.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only keys that start with this.
    pub prefix: Vec<u8>,
    /// Keys sharing the part up to this after the prefix fold into one common prefix.
    pub delimiter: Option<Vec<u8>>,
    /// Continue after this key or common prefix, exclusive.
    pub start_after: Option<Vec<u8>>,
    /// At most this many entries (keys plus common prefixes), 1 to 1000.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Blobs in key order.
    pub blobs: Vec<BlobInfo>,
    /// Folded prefixes in byte order.
    pub common_prefixes: Vec<Vec<u8>>,
    /// Present when more follows: pass as `start_after`.
    pub next: Option<Vec<u8>>,
}

/// A bucket as callers see it.
#[derive(Debug, Clone)]
pub struct BucketInfo {
    /// Name, unique in its tenant: 3 to 63 of `a-z 0-9 . -` as S3 has it.
    pub name: String,
    /// Internal id.
    pub id: BucketId,
    /// Creation time.
    pub created: Timestamp,
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct TenantInfo {
    /// Name, unique in the deployment.
    pub name: String,
    /// Internal id.
    pub id: TenantId,
}

/// An API key as stored: never the secret.
#[derive(Debug, Clone)]
pub struct ApiKeyInfo {
    /// Identifier, the public half of the token.
    pub id: PrincipalId,
    /// Tenant it is confined to; `TenantId::SYSTEM` for operators.
    pub tenant: TenantId,
    /// Label.
    pub name: String,
    /// Scopes: `read`, `write`, `admin`, `audit`.
    pub scopes: Vec<String>,
    /// Keyed verifier of the secret.
    pub verifier: [u8; 32],
    /// Expiry.
    pub expires: Option<Timestamp>,
}

/// A freshly made API key; the only moment the token exists outside its owner.
pub struct NewApiKey {
    /// Stored half.
    pub info: ApiKeyInfo,
    /// Token for `Authorization: Bearer`, `dsp_<id hex>_<secret hex>`.
    pub token: String,
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewApiKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such bucket.
    UnknownBucket,
    /// No such key.
    UnknownKey,
    /// The key exists but not in that version.
    UnknownVersion,
    /// Bucket or tenant exists already.
    AlreadyExists,
    /// The bucket still holds blobs.
    BucketNotEmpty,
    /// Name, key, metadata or parameter outside the limits.
    Invalid,
    /// Body longer than allowed.
    TooLarge,
    /// Body differs from its declared digest or length.
    DigestMismatch,
    /// If-Match / If-None-Match did not hold.
    PreconditionFailed,
    /// Range outside the blob.
    RangeNotSatisfiable,
    /// Same Idempotency-Key, other request.
    IdempotencyMismatch,
    /// Same Idempotency-Key, still running.
    IdempotencyInFlight,
    /// The upload broke off.
    Aborted,
    /// Not accepted: nothing happened, try later (window full, too few domains, shutting down).
    NotAccepted,
    /// Too few healthy domains for the policy; `message` has the arithmetic.
    TooFewDomains,
    /// Accepted, outcome not yet known: ask again with the same Idempotency-Key.
    OutcomeUnknown,
    /// Read-only: start has not decided the log's end, or the fence was lost.
    ReadOnly,
    /// Bytes cannot be had from enough domains now.
    DataUnavailable,
    /// Bytes or records are damaged beyond the code's reach.
    IntegrityViolation,
    /// Start refused: fork, living foreign writer, acknowledged data missing (exit 78).
    RefusedState,
    /// Not accepted: the service's own disk is full. Nothing happened; reads go on, and writes once there is room again.
    InsufficientStorage,
    /// Local store: locked, newer schema, wrong key, damaged.
    LocalStore,
    /// Anything else; a defect.
    Internal,
}

/// An engine error: a coarse kind, a sentence for whoever called, and the cause for the operator's log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// One sentence without provider names, paths or key ids.
    pub message: String,
    /// Cause, for the log only.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause.
    pub fn caused(kind: ErrorKind, message: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { kind, message: message.into(), source: Some(Box::new(source)) }
    }

    /// True when the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::NotAccepted
                | ErrorKind::TooFewDomains
                | ErrorKind::OutcomeUnknown
                | ErrorKind::ReadOnly
                | ErrorKind::DataUnavailable
                | ErrorKind::IdempotencyInFlight
                | ErrorKind::InsufficientStorage
        )
    }
}

/// Counters and state for `status`, `metrics` and the dashboard. All from real counters.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Status {
    /// `active`, `read-only` or `starting`.
    pub state: String,
    /// Incarnation of the writer, uuid text.
    pub incarnation: String,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Geometry new blocks get now: k. The configured one while writes are refused for want of domains.
    pub k: u8,
    /// Geometry new blocks get now: n; likewise.
    pub n: u8,
    /// Why changes are refused at present; absent while they are taken.
    pub writes_refused: Option<String>,
    /// Domains with a healthy provider.
    pub healthy_domains: usize,
    /// Domains configured.
    pub domains: usize,
    /// How many domains may be down while the end of the log can still be declared (PROTOCOL rule 11).
    pub restart_survives_down: usize,
    /// Per provider: id, domain, state, latency.
    pub providers: Vec<ProviderStatus>,
    /// Buckets.
    pub buckets: u64,
    /// Current blobs.
    pub blobs: u64,
    /// Container blocks, bulk and commit.
    pub blocks: u64,
    /// Plain bytes of all current blobs.
    pub logical_bytes: u64,
    /// Plain bytes after deduplication.
    pub unique_bytes: u64,
    /// Chunk bytes after compression.
    pub compressed_bytes: u64,
    /// Sealed payload bytes of all blocks (sections, padding excluded).
    pub sealed_bytes: u64,
    /// Shard-object bytes durable at providers.
    pub stored_bytes: u64,
    /// Sealed payload bytes of blocks that are not settled.
    pub unsettled_bytes: u64,
    /// Age of the oldest unsettled block in milliseconds; 0 when none.
    pub unsettled_age_ms: u64,
    /// Blocks not settled.
    pub unsettled_blocks: u64,
    /// Last released commit sequence.
    pub released_seq: u64,
    /// Merkle log size in leaves.
    pub log_size: u64,
    /// Merkle log root, hex.
    pub log_root: String,
    /// Integrity: shards or segments that failed verification since start.
    pub integrity_faults: u64,
    /// Reads that needed another shard than the first choice since start.
    pub failovers: u64,
    /// Requests that readers sent to providers since the writer began.
    pub read_requests: u64,
    /// Fetches that a reader shared with one who wanted the same bytes at the same time, since start.
    pub coalesced_reads: u64,
    /// Extra requests that slow answers were granted since then: at most one in twenty, and a burst of 64.
    pub hedged_requests: u64,
    /// Put operations since start.
    pub puts: u64,
    /// Get operations since start.
    pub gets: u64,
    /// Deletes since start.
    pub deletes: u64,
    /// Merkle leaves and signatures made since start.
    pub proofs: u64,
    /// Counts of the last 24 hours, earlier runs included.
    pub last_day: Counts,
    /// Mean of provider request latency, milliseconds.
    pub average_latency_ms: f64,
    /// Bytes of the local ledger on its disk.
    pub ledger_bytes: u64,
    /// Rows of each of its tables.
    pub ledger_rows: BTreeMap<&'static str, u64>,
    /// How the local ledger used its disk since it was opened.
    pub storage: StorageMetrics,
    /// Engine uptime, milliseconds.
    pub uptime_ms: u64,
    /// Whether what is stored is still there and right, as far as anybody looked.
    pub integrity: IntegrityStatus,
    /// Position up to which everything survives the loss of the service's disk and any n - k domains: all of it is settled.
    pub recovery_point_seq: u64,
    /// Age of the oldest acknowledged data beyond it, in milliseconds; 0 when there is none.
    pub recovery_point_age_ms: u64,
    /// How far a recovery need not read the log, and when that is brought up to date.
    pub checkpoint: CheckpointStatus,
    /// Shards on their way between providers, and what came of the last such errand of this process.
    pub relocation: RelocationState,
}

/// Checkpoints of the log in `Status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CheckpointStatus {
    /// The newest; absent before the first.
    pub last: Option<LastCheckpoint>,
    /// Entries by which the log has grown since, or since it began.
    pub grown: u64,
    /// Entries still to come until the next is made; absent when none is made without being asked for.
    pub due_in: Option<u64>,
}

/// The newest checkpoint of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LastCheckpoint {
    /// The sequence it covers.
    pub covers: u64,
    /// Entries of the log there.
    pub log_size: u64,
    /// Its age in milliseconds.
    pub age_ms: u64,
    /// Providers that are known to hold its head.
    pub heads: Vec<String>,
    /// Whether enough failure domains hold its head for one of them to be neither gone nor lying, and its record is settled.
    pub counts: bool,
}

/// Integrity in `Status`. Nothing in it is assumed: what nobody looked at is absent or counted as unverified.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct IntegrityStatus {
    /// The last count of all blocks; absent before the first.
    pub census: Option<Census>,
    /// Sampled audits per provider; empty before the first.
    pub audits: Vec<Audits>,
    /// Blocks that wait for repair.
    pub repairs_waiting: u64,
    /// Of these: tried several times, in vain so far.
    pub repairs_failed: u64,
    /// Bytes that their repair will read and write.
    pub repair_bytes_waiting: u64,
    /// Shards made again since start.
    pub repaired_shards: u64,
    /// Their bytes.
    pub repaired_bytes: u64,
    /// The last drill in the log; absent before the first.
    pub last_drill: Option<LastDrill>,
}

/// The last drill, as the log has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LastDrill {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Sets of k providers that were tried.
    pub sets: u64,
    /// Sets there are.
    pub sets_total: u64,
    /// Blocks that were rebuilt.
    pub blocks: u64,
    /// Blocks that were not.
    pub failures: u64,
}

/// One provider in `Status`: what an operator may see (its own account names), never a path.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct ProviderStatus {
    /// Operator's name of the account.
    pub id: String,
    /// Failure domain.
    pub domain: String,
    /// `healthy`, `suspect`, `read-only` (it answers and refuses writes) or `down`.
    pub state: String,
    /// Smoothed request latency, milliseconds.
    pub latency_ms: f64,
    /// Requests sent since start, by kind.
    pub requests: u64,
    /// Errors since start.
    pub errors: u64,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Times its bytes failed verification.
    pub lies: u64,
    /// How it is to be used, as the log says: `active`, `draining`, `quarantined` or `dead`.
    pub mode: String,
    /// How well it served in the last fifteen minutes, 0 to 100; absent while nothing is known.
    pub score: Option<u8>,
    /// How long it has not answered, in milliseconds; absent while it does.
    pub down_ms: Option<u64>,
    /// Its copy of the keyring, as the last start found it: `held`, `spoiled` or `unknown`; absent if it was not looked at.
    pub keyring: Option<String>,
    /// Since when it is used like that, and why; absent while it is active.
    pub mode_since: Option<ModeSince>,
}

/// When and why the log said how a provider is to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ModeSince {
    /// How long ago, in milliseconds.
    pub age_ms: u64,
    /// Why.
    pub reason: String,
    /// How long ago the log certified that nothing of the map lies there any more, in milliseconds; absent while it does not.
    pub certified_age_ms: Option<u64>,
}

/// Totals of the audit log by family, for `storage distributed audit`; `total` is their sum.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct AuditTotals {
    /// All events.
    pub total: u64,
    /// Puts.
    pub storage: u64,
    /// Reads (aggregated records count what they stand for).
    pub retrieval: u64,
    /// Deletes.
    pub deletion: u64,
    /// Denials.
    pub denied: u64,
    /// Integrity violations.
    pub integrity_violations: u64,
    /// Everything else: buckets, keys, providers, service life, block placement, exports.
    pub administration: u64,
}
