//! Private parts: one struct per kind, encoded as `version ‖ kind ‖ subject ‖ principal ‖ fields in order`.

use crate::cell::block_root;
use crate::codec::{Field, Reader, fields, tags};
use crate::error::{BlockError, Result};
use crate::geometry::{Geometry, shard_len_for};
use crate::id::{
    Attempt, BlockId, BucketId, ChunkId, Counter, Epoch, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId,
    Timestamp, VersionId,
};
use crate::limits::{
    FRAME_LEN, MAX_BLOB_KEY, MAX_CHUNK, MAX_DEPTH, MAX_INLINE_REFS, MAX_LIST_REFS, MAX_PROVIDER_ID, MAX_SECTIONS, PRIVATE_VERSION,
    SEGMENT_LOG2_RANGE,
};
use crate::manifest::CodeId;
use crate::record::{Class, RecordKind};
use crate::seal::{PREFIX_LEN, sealed_len};

fields! {
    /// A tenant exists.
    pub struct TenantCreated {
        /// Its id.
        pub tenant: TenantId,
        /// Its name, unique in the deployment.
        pub name: String,
    }
}
fields! {
    /// A bucket exists.
    pub struct BucketCreated {
        /// Its id.
        pub bucket: BucketId,
        /// Its name, unique in the tenant.
        pub name: String,
        /// The tenant's key generation at that moment.
        pub key_version: KeyVersion,
    }
}
fields! {
    /// A bucket is gone.
    pub struct BucketDeleted {
        /// Its id.
        pub bucket: BucketId,
        /// Its name.
        pub name: String,
    }
}
fields! {
    /// A chunk of a blob, or of its content list.
    pub struct ChunkRef {
        /// Its id.
        pub id: ChunkId,
        /// Plain bytes of the blob below it: a data chunk's length, or the sum over a list's references.
        pub len: u64,
    }
}
fields! {
    /// What a blob consists of.
    ///
    /// Depth 0: the data chunks in order. Depth d > 0: chunks whose plain bytes, joined, are an encoded list of
    /// [`ChunkRef`] of depth d - 1.
    pub struct Content {
        /// Levels of lists above the data.
        pub depth: u8,
        /// At most 512 references.
        pub refs: Vec<ChunkRef>,
    }
}

impl Content {
    /// The plain bytes of a list chunk: the references, joined; at most 4096 of them.
    pub fn encode_list(refs: &[ChunkRef]) -> Vec<u8> {
        let mut out = Vec::with_capacity(refs.len() * ChunkRef::MIN_LEN);
        for one in refs {
            one.put(&mut out);
        }
        out
    }

    /// The references in the plain bytes of one list chunk.
    pub fn decode_list(bytes: &[u8]) -> Result<Vec<ChunkRef>> {
        let mut reader = Reader::new(bytes, "content list");
        if bytes.is_empty() || bytes.len() > MAX_LIST_REFS * ChunkRef::MIN_LEN {
            return Err(reader.malformed());
        }
        let mut refs = Vec::with_capacity(bytes.len() / ChunkRef::MIN_LEN);
        while reader.remaining() > 0 {
            refs.push(reader.value()?);
        }
        Ok(refs)
    }
}

fields! {
    /// An idempotency key and the request it was first used with.
    pub struct Idempotency {
        /// Keyed hash of principal and key.
        pub key_hash: [u8; 32],
        /// Keyed hash of the request.
        pub request_hash: [u8; 32],
    }
}
fields! {
    /// A blob has a new version.
    pub struct BlobPut {
        /// Where.
        pub bucket: BucketId,
        /// Its name, byte-exact.
        pub key: Vec<u8>,
        /// The new version.
        pub version: VersionId,
        /// Plain length in bytes.
        pub size: u64,
        /// As the client gave it.
        pub content_type: Option<String>,
        /// As the client gave it, in order.
        pub metadata: Vec<(String, String)>,
        /// SHA-256 of the plain blob, where it was declared or wanted; shown only to those who may read it.
        pub sha256: Option<[u8; 32]>,
        /// Random per version.
        pub etag: [u8; 16],
        /// What the write waited for.
        pub class: Class,
        /// Its chunks.
        pub content: Content,
        /// Set when the client sent an idempotency key.
        pub idempotency: Option<Idempotency>,
    }
}
fields! {
    /// A blob is gone.
    pub struct BlobDeleted {
        /// Where.
        pub bucket: BucketId,
        /// Its name.
        pub key: Vec<u8>,
        /// The version that was current.
        pub version: VersionId,
        /// Set when the client sent an idempotency key.
        pub idempotency: Option<Idempotency>,
    }
}

tags! {
    /// How a chunk's stored bytes are made from its plain bytes.
    pub enum Encoding {
        /// They are the plain bytes.
        Raw = 0,
        /// zstd frames of 64 KiB behind an offset table (module `compress`).
        ZstdFramed = 1,
    }
}

fields! {
    /// Where a chunk lies in its block.
    pub struct ChunkEntry {
        /// The bucket it may be shared in.
        pub bucket: BucketId,
        /// Its id.
        pub id: ChunkId,
        /// Index of its section in the block.
        pub section: u8,
        /// Offset of its stored bytes in the section's plaintext.
        pub offset: u32,
        /// Length of its stored bytes.
        pub stored_len: u32,
        /// Length of its plain bytes.
        pub plain_len: u32,
        /// How the one becomes the other.
        pub encoding: Encoding,
    }
}
fields! {
    /// Where a section lies in its block's payload and what opens it.
    pub struct SectionInfo {
        /// Whose key.
        pub tenant: TenantId,
        /// Which generation of it.
        pub key_version: KeyVersion,
        /// Offset of its sealed form in the payload.
        pub offset: u32,
        /// Length of its plaintext.
        pub plain_len: u32,
        /// log2 of its segment length.
        pub seg_log2: u8,
        /// Salt and commitment of its sealed form, so that one ranged request reads a segment.
        pub prefix: [u8; PREFIX_LEN],
    }
}

impl SectionInfo {
    /// Length of the sealed form in bytes.
    pub fn sealed_len(&self) -> u64 {
        sealed_len(u64::from(self.plain_len), self.seg_log2.clamp(*SEGMENT_LOG2_RANGE.start(), *SEGMENT_LOG2_RANGE.end()))
    }
}

fields! {
    /// Where one shard lies.
    pub struct Placement {
        /// Index of the shard.
        pub shard: u8,
        /// The operator's name of the provider account.
        pub provider: String,
        /// Whether the provider acknowledged it.
        pub acked: bool,
    }
}
fields! {
    /// A bulk block reached its class and may be named.
    pub struct BulkAdded {
        /// Which block.
        pub block: BlockId,
        /// Whose counter.
        pub incarnation: IncarnationId,
        /// Its index among the incarnation's bulk blocks.
        pub counter: Counter,
        /// Which coding.
        pub attempt: Attempt,
        /// Shards.
        pub geometry: Geometry,
        /// Code of the parity shards.
        pub code: CodeId,
        /// Bytes of the payload.
        pub payload_len: u32,
        /// Bytes of each shard.
        pub shard_len: u32,
        /// Root over the shard roots.
        pub block_root: Hash32,
        /// Root of every shard.
        pub shard_roots: Vec<Hash32>,
        /// Hash of the manifest.
        pub manifest_hash: Hash32,
        /// Where the shards are.
        pub placements: Vec<Placement>,
        /// Sections of the payload.
        pub sections: Vec<SectionInfo>,
        /// Chunks in them.
        pub chunks: Vec<ChunkEntry>,
    }
}
fields! {
    /// An earlier commit block was released, and where its shards are.
    pub struct CommitReleased {
        /// Its position.
        pub seq: Seq,
        /// The attempt that counted.
        pub attempt: Attempt,
        /// Hash of its manifest.
        pub manifest_hash: Hash32,
        /// Where the shards are.
        pub placements: Vec<Placement>,
    }
}
fields! {
    /// What became of the predecessors.
    pub struct Decision {
        /// The incarnation this one follows; none for the first.
        pub predecessor: Option<(IncarnationId, Epoch)>,
        /// Last valid position of the predecessor.
        pub last_valid: Seq,
        /// Leaves of the log at that position.
        pub log_size: u64,
        /// Root of the log at that position.
        pub log_root: Hash32,
        /// Blocks carried over: position, and counter under the new incarnation.
        pub carried: Vec<(Seq, Counter)>,
        /// Incarnations that claimed but never decided.
        pub passed_over: Vec<IncarnationId>,
        /// Domains the operator declared lost.
        pub lost_declared: Vec<String>,
        /// Positions whose acknowledged data may have been lost.
        pub may_have_lost: Vec<Seq>,
    }
}
fields! {
    /// Positions an operator declared possibly lost.
    pub struct MayHaveLost {
        /// Which.
        pub seqs: Vec<Seq>,
        /// On whose word.
        pub reason: String,
    }
}
fields! {
    /// A new generation of the keyring.
    pub struct KeyringChanged {
        /// Its number.
        pub version: u64,
        /// Why.
        pub reason: String,
    }
}
fields! {
    /// An API key exists.
    pub struct ApiKeyCreated {
        /// Its id; its owner is the principal of what it does.
        pub id: PrincipalId,
        /// The tenant it acts for.
        pub tenant: TenantId,
        /// The operator's name for it.
        pub name: String,
        /// Keyed hash of its secret.
        pub verifier: [u8; 32],
        /// What it may do.
        pub scopes: Vec<String>,
        /// When it ends, if ever.
        pub expires: Option<Timestamp>,
    }
}
fields! {
    /// An API key is revoked.
    pub struct ApiKeyRevoked {
        /// Its id.
        pub id: PrincipalId,
    }
}
fields! {
    /// A provider was configured.
    pub struct ProviderConfigured {
        /// The operator's name of the account.
        pub provider: String,
        /// Its failure domain.
        pub domain: String,
        /// Whether the operator declared the domain against the preset.
        pub domain_declared: bool,
        /// What changed.
        pub what: String,
    }
}
fields! {
    /// A policy was set.
    pub struct PolicySet {
        /// Its name.
        pub profile: String,
        /// Its text.
        pub what: String,
    }
}
fields! {
    /// A blob was read.
    pub struct BlobRead {
        /// Where.
        pub bucket: BucketId,
        /// Its name.
        pub key: Vec<u8>,
        /// Which version.
        pub version: VersionId,
        /// Reads this record stands for.
        pub count: u64,
        /// Bytes they gave.
        pub bytes: u64,
    }
}
fields! {
    /// Something was refused.
    pub struct AccessDenied {
        /// What was asked.
        pub what: String,
        /// Refusals this record stands for.
        pub count: u64,
    }
}
fields! {
    /// Bytes failed verification.
    pub struct IntegrityFault {
        /// Whose.
        pub provider: String,
        /// What did not match.
        pub what: String,
        /// Which block, if it is known.
        pub block: Option<BlockId>,
        /// Faults this record stands for.
        pub count: u64,
    }
}
fields! {
    /// A provider failed.
    pub struct ProviderFault {
        /// Which.
        pub provider: String,
        /// How.
        pub what: String,
        /// Faults this record stands for.
        pub count: u64,
    }
}
fields! {
    /// Audit records were dropped under load.
    pub struct AuditDropped {
        /// How many.
        pub count: u64,
    }
}
fields! {
    /// The log was exported.
    pub struct AuditExported {
        /// First leaf.
        pub from: u64,
        /// One past the last leaf.
        pub to: u64,
    }
}
fields! {
    /// The service started.
    pub struct ServiceStarted {
        /// Which incarnation.
        pub incarnation: IncarnationId,
        /// Which build.
        pub version: String,
    }
}
fields! {
    /// The service stopped in order.
    pub struct ServiceStopped {
        /// Which incarnation.
        pub incarnation: IncarnationId,
        /// Why.
        pub reason: String,
    }
}

macro_rules! private {
    ($($variant:ident),* $(,)?) => {
        /// The private part of a record. The kind of the record is its variant.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the struct of its name, documented there")]
        pub enum Private { $($variant($variant),)* }

        impl Private {
            /// What the record says.
            pub const fn kind(&self) -> RecordKind {
                match self { $(Self::$variant(_) => RecordKind::$variant,)* }
            }

            fn put_fields(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(part) => part.put(out),)* }
            }

            fn take_fields(kind: RecordKind, reader: &mut Reader<'_>) -> Result<Self> {
                Ok(match kind {
                    $(RecordKind::$variant => Self::$variant(reader.value()?),)*
                })
            }
        }

        $(impl From<$variant> for Private {
            fn from(part: $variant) -> Self {
                Self::$variant(part)
            }
        })*
    };
}

private! {
    TenantCreated, BucketCreated, BucketDeleted, BlobPut, BlobDeleted, BulkAdded, CommitReleased, Decision, MayHaveLost,
    KeyringChanged, ApiKeyCreated, ApiKeyRevoked, ProviderConfigured, PolicySet, BlobRead, AccessDenied, IntegrityFault,
    ProviderFault, AuditDropped, AuditExported, ServiceStarted, ServiceStopped,
}

/// A record's private part whole: what happened, about what, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivatePart {
    /// Version of its encoding, kept so that the commitment's bytes come again.
    pub(crate) version: u8,
    /// What it is about.
    pub subject: SubjectId,
    /// Who asked.
    pub principal: PrincipalId,
    /// What happened.
    pub private: Private,
}

impl PrivatePart {
    /// As it is written today.
    pub const fn new(subject: SubjectId, principal: PrincipalId, private: Private) -> Self {
        Self { version: PRIVATE_VERSION, subject, principal, private }
    }

    /// `version ‖ kind ‖ subject ‖ principal ‖ fields`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.version, self.private.kind().to_u8()];
        self.subject.put(&mut out);
        self.principal.put(&mut out);
        self.private.put_fields(&mut out);
        out
    }

    /// Decodes one private part; refuses trailing bytes and values outside the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "private part of a record";
        let mut reader = Reader::new(bytes, WHAT);
        let version: u8 = reader.value()?;
        if version > PRIVATE_VERSION {
            return Err(BlockError::Unsupported { what: WHAT, version });
        }
        let kind = RecordKind::known(reader.value()?)?;
        let (subject, principal) = (reader.value()?, reader.value()?);
        let private = Private::take_fields(kind, &mut reader)?;
        if version == 0 || !private.is_within_limits() {
            return Err(reader.malformed());
        }
        reader.finish()?;
        Ok(Self { version, subject, principal, private })
    }
}

impl Private {
    /// Bytes of its encoding as a private part.
    pub fn encoded_len(&self) -> usize {
        let mut fields = Vec::new();
        self.put_fields(&mut fields);
        2 + 16 + 16 + fields.len()
    }

    /// Whether a record that says this may lie in the section of `tenant` (docs/format.md, section 8): what names a tenant's data
    /// lies under that tenant's key and under no other.
    pub fn belongs_to(&self, tenant: TenantId) -> bool {
        let is_system = tenant == TenantId::SYSTEM;
        match self {
            Self::TenantCreated(created) => !is_system && created.tenant == tenant,
            Self::ApiKeyCreated(created) => created.tenant == tenant,
            Self::BulkAdded(bulk) => !is_system && bulk.sections.iter().all(|section| section.tenant == tenant),
            Self::BucketCreated(_) | Self::BucketDeleted(_) | Self::BlobPut(_) | Self::BlobDeleted(_) | Self::BlobRead(_) => !is_system,
            Self::ApiKeyRevoked(_) | Self::AccessDenied(_) => true,
            Self::CommitReleased(_)
            | Self::Decision(_)
            | Self::MayHaveLost(_)
            | Self::KeyringChanged(_)
            | Self::ProviderConfigured(_)
            | Self::PolicySet(_)
            | Self::IntegrityFault(_)
            | Self::ProviderFault(_)
            | Self::AuditDropped(_)
            | Self::AuditExported(_)
            | Self::ServiceStarted(_)
            | Self::ServiceStopped(_) => is_system,
        }
    }

    /// Numbers that later code multiplies, allocates or shifts by.
    fn is_within_limits(&self) -> bool {
        match self {
            Self::BlobPut(put) => put.key.len() <= MAX_BLOB_KEY && put.content.is_plausible(),
            Self::BlobDeleted(deleted) => deleted.key.len() <= MAX_BLOB_KEY,
            Self::BlobRead(read) => read.key.len() <= MAX_BLOB_KEY,
            Self::BulkAdded(bulk) => bulk.is_plausible(),
            Self::CommitReleased(released) => {
                released.attempt.0 < Attempt::COUNT && is_one_home_each(&released.placements, crate::limits::MAX_SHARDS)
            }
            _ => true,
        }
    }
}

impl Content {
    fn is_plausible(&self) -> bool {
        self.refs.len() <= MAX_INLINE_REFS && self.depth <= MAX_DEPTH && (self.depth == 0 || !self.refs.is_empty())
    }
}

impl BulkAdded {
    /// Whether all its numbers fit each other; what follows from others must be what follows.
    fn is_plausible(&self) -> bool {
        let mut end = 0;
        let tiled = self.sections.iter().all(|section| {
            let in_order = u64::from(section.offset) == end && section.is_within(self.payload_len);
            end += section.sealed_len();
            in_order
        });
        tiled
            && end == u64::from(self.payload_len)
            && self.sections.len() <= MAX_SECTIONS
            && self.attempt.0 < Attempt::COUNT
            && shard_len_for(self.payload_len as usize, self.geometry.k()) == Ok(self.shard_len)
            && self.shard_roots.len() == usize::from(self.geometry.n())
            && self.block_root == block_root(&self.shard_roots)
            && is_one_home_each(&self.placements, self.geometry.n())
            && self.chunks.iter().all(|chunk| chunk.is_within(&self.sections))
    }
}

/// Whether every placement names another of `n` shards, at a provider that has a name.
fn is_one_home_each(placements: &[Placement], n: u8) -> bool {
    let mut seen = 0u32;
    placements.iter().all(|placement| {
        let bit = 1u32.checked_shl(u32::from(placement.shard)).unwrap_or(0);
        let fresh = placement.shard < n && seen & bit == 0;
        seen |= bit;
        fresh && (1..=MAX_PROVIDER_ID).contains(&placement.provider.len())
    })
}

impl SectionInfo {
    /// Whether the section lies inside a payload of this length.
    pub(crate) fn is_within(&self, payload_len: u32) -> bool {
        SEGMENT_LOG2_RANGE.contains(&self.seg_log2) && u64::from(self.offset) + self.sealed_len() <= u64::from(payload_len)
    }
}

impl ChunkEntry {
    /// Whether its lengths fit each other.
    pub(crate) fn is_plausible(&self) -> bool {
        let stored_fits = match self.encoding {
            Encoding::Raw => self.stored_len == self.plain_len,
            // One offset per frame, and the frames behind them.
            Encoding::ZstdFramed => u64::from(self.stored_len) >= 4 * (self.plain_len as usize).div_ceil(FRAME_LEN) as u64,
        };
        stored_fits && self.plain_len as usize <= MAX_CHUNK
    }

    /// Whether the chunk lies inside its section.
    pub(crate) fn is_within(&self, sections: &[SectionInfo]) -> bool {
        self.is_plausible()
            && sections
                .get(usize::from(self.section))
                .is_some_and(|section| u64::from(self.offset) + u64::from(self.stored_len) <= u64::from(section.plain_len))
    }
}
