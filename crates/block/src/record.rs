//! Commit records: a public part of fixed width, which is the audit leaf, and a private part for its tenant's section.
//!
//! The public part holds references only: keyed hashes of ids that the private part alone spells out. It commits to the private part through SHA-256 over a random blind, so that a
//! log of public parts can be shown to an outsider, and a receipt can open one record without the others.

use sha2::{Digest, Sha256};

use crate::codec::{Field, Reader, tags};
use crate::error::{BlockError, Result};
use crate::id::{Hash32, PrincipalId, Reference, SubjectId, TenantId, Timestamp};
use crate::key::ReferenceKey;
use crate::limits::{MAX_PRIVATE, PUBLIC_VERSION};
use crate::log::leaf_hash;

mod private;
pub use private::{
    AccessDenied, ApiKeyCreated, ApiKeyRevoked, AuditDropped, AuditExported, BackupExported, BlobDeleted, BlobPut, BlobRead,
    BlocksCondemned, BlocksErased, BucketCreated, BucketDeleted, BulkAdded, ChunkEntry, ChunkRef, CommitReleased, CondemnReason, Content,
    Decision, DrillReported, Encoding, Idempotency, IntegrityFault, KeyringChanged, LogCompacted, MayHaveLost, Move, PartsAdded, Placement,
    PolicySet, Private, PrivatePart, ProviderConfigured, ProviderEvacuated, ProviderFault, ProviderMode, ProviderStateSet, SchemaMigrated,
    SectionInfo, ServiceStarted, ServiceStopped, ShardsMoved, TenantCreated,
};

#[cfg(test)]
mod tests;

/// Bytes of a public part.
pub const PUBLIC_LEN: usize = 128;
const RESERVED: usize = 36;
const COMMITMENT_DOMAIN: &[u8] = b"diaspore/v1/private\0";

tags! {
    /// What a record says.
    pub enum RecordKind {
        /// A tenant exists.
        TenantCreated = 1,
        /// A bucket exists.
        BucketCreated = 2,
        /// A bucket is gone.
        BucketDeleted = 3,
        /// A blob has a new version.
        BlobPut = 4,
        /// A blob is gone.
        BlobDeleted = 5,
        /// A bulk block reached its class and may be named.
        BulkAdded = 6,
        /// An earlier commit block was released, and where its shards are.
        CommitReleased = 7,
        /// What became of the predecessors.
        Decision = 8,
        /// Sequences an operator declared possibly lost.
        MayHaveLost = 9,
        /// A new generation of the keyring.
        KeyringChanged = 10,
        /// An API key exists.
        ApiKeyCreated = 11,
        /// An API key is revoked.
        ApiKeyRevoked = 12,
        /// A provider was configured.
        ProviderConfigured = 13,
        /// A policy was set.
        PolicySet = 14,
        /// A blob was read.
        BlobRead = 15,
        /// Something was refused.
        AccessDenied = 16,
        /// Bytes failed verification.
        IntegrityFault = 17,
        /// A provider failed.
        ProviderFault = 18,
        /// Audit records were dropped under load.
        AuditDropped = 19,
        /// The log was exported.
        AuditExported = 20,
        /// The service started.
        ServiceStarted = 21,
        /// The service stopped in order.
        ServiceStopped = 22,
        /// Blocks hold nothing alive and may be deleted.
        BlocksCondemned = 23,
        /// Condemned blocks are gone from every provider.
        BlocksErased = 24,
        /// Shards lie at other providers now.
        ShardsMoved = 25,
        /// Parts of a compacted log are durable.
        PartsAdded = 26,
        /// A compacted log is whole and settled.
        LogCompacted = 27,
        /// How a provider is to be used.
        ProviderStateSet = 28,
        /// A provider was left: what remains there.
        ProviderEvacuated = 29,
        /// Blocks were rebuilt from chosen providers to see that they can be.
        DrillReported = 30,
        /// The local store has another schema.
        SchemaMigrated = 31,
        /// The local store was copied to a backup.
        BackupExported = 32,
    }
}

tags! {
    /// What a write waits for before it is acknowledged.
    #[derive(Default)]
    pub enum Class {
        /// k + 1 verified acknowledgements on distinct domains.
        #[default]
        Quorum = 0,
        /// All n shards durable.
        Full = 1,
    }
}

tags! {
    /// How it ended, as the public part shows it.
    #[derive(Default)]
    pub enum Outcome {
        /// It happened.
        #[default]
        Done = 0,
        /// It was refused.
        Denied = 1,
        /// It failed.
        Failed = 2,
    }
}

impl RecordKind {
    /// The kind of this byte; one that this build does not know is a newer version's, not damage.
    pub(crate) fn known(byte: u8) -> Result<Self> {
        match (byte, Self::from_u8(byte)) {
            (_, Some(kind)) => Ok(kind),
            (0, None) => Err(BlockError::Malformed { what: "kind of a record" }),
            (version, None) => Err(BlockError::Unsupported { what: "kind of a record", version }),
        }
    }

    /// The name of a kind as exports show it: `BlobPut`, or `kind 99` for one that this build does not know.
    pub fn name_of(byte: u8) -> String {
        Self::from_u8(byte).map_or_else(|| format!("kind {byte}"), |kind| format!("{kind:?}"))
    }
}

/// The audit leaf: fixed width, references instead of ids, nothing that needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicPart {
    /// Version of its encoding, kept so that the leaf's bytes come again.
    pub(crate) version: u8,
    /// What the record says.
    pub kind: RecordKind,
    /// How it ended.
    pub outcome: Outcome,
    /// What it waited for.
    pub class: Class,
    /// Reference to the tenant whose section holds the private part; nil for the service itself.
    pub tenant: Reference,
    /// Reference to what it is about.
    pub subject: Reference,
    /// Reference to who asked.
    pub principal: Reference,
    /// When, by the service's clock.
    pub time: Timestamp,
    /// SHA-256 over domain, blind and the encoded private part.
    pub commitment: Hash32,
}

/// The fields of a leaf as they stand, for verifiers: a leaf counts by its bytes, whether or not its kind is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafView {
    /// Kind; see [`RecordKind::name_of`].
    pub kind: u8,
    /// How it ended.
    pub outcome: u8,
    /// What it waited for.
    pub class: u8,
    /// Reference to the tenant.
    pub tenant: Reference,
    /// Reference to what it is about.
    pub subject: Reference,
    /// Reference to who asked.
    pub principal: Reference,
    /// When.
    pub time: Timestamp,
    /// What ties the private part to it.
    pub commitment: Hash32,
}

impl LeafView {
    /// The fields of version 1; `None` for a leaf of another version, which is to be hashed without being understood.
    pub fn of(leaf: &[u8; PUBLIC_LEN]) -> Result<Option<Self>> {
        let mut r = Reader::new(leaf, "public part of a record");
        if r.value::<u8>()? != 1 {
            return Ok(None);
        }
        let view = Self {
            kind: r.value()?,
            outcome: r.value()?,
            class: r.value()?,
            tenant: r.value()?,
            subject: r.value()?,
            principal: r.value()?,
            time: r.value()?,
            commitment: r.value()?,
        };
        r.zeros(RESERVED)?;
        Ok(Some(view))
    }
}

impl PublicPart {
    /// The fixed-width encoding: the leaf of the log.
    pub fn encode(&self) -> [u8; PUBLIC_LEN] {
        let mut out = Vec::with_capacity(PUBLIC_LEN);
        out.push(self.version);
        self.kind.put(&mut out);
        self.outcome.put(&mut out);
        self.class.put(&mut out);
        self.tenant.put(&mut out);
        self.subject.put(&mut out);
        self.principal.put(&mut out);
        self.time.put(&mut out);
        self.commitment.put(&mut out);
        let mut encoded = [0; PUBLIC_LEN];
        debug_assert_eq!(out.len() + RESERVED, PUBLIC_LEN, "the public part has a fixed width");
        encoded.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        encoded
    }

    /// Decodes one public part.
    pub fn decode(bytes: &[u8; PUBLIC_LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes, "public part of a record");
        let version: u8 = r.value()?;
        if version > PUBLIC_VERSION {
            return Err(BlockError::Unsupported { what: "public part of a record", version });
        }
        if version == 0 {
            return Err(r.malformed());
        }
        let public = Self {
            version,
            kind: RecordKind::known(r.value()?)?,
            outcome: r.value()?,
            class: r.value()?,
            tenant: r.value()?,
            subject: r.value()?,
            principal: r.value()?,
            time: r.value()?,
            commitment: r.value()?,
        };
        r.zeros(RESERVED)?;
        r.finish()?;
        Ok(public)
    }

    /// The leaf of this record in the log (RFC 6962 leaf hash of the encoding).
    pub fn leaf(&self) -> Hash32 {
        leaf_hash(&self.encode())
    }
}

impl Field for PublicPart {
    const MIN_LEN: usize = PUBLIC_LEN;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encode());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Self::decode(&reader.array()?)
    }
}

/// What a record says besides its kind and the fields of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFacts {
    /// Whose section holds the private part; `TenantId::SYSTEM` for the service itself.
    pub tenant: TenantId,
    /// What it is about.
    pub subject: SubjectId,
    /// Who asked.
    pub principal: PrincipalId,
    /// When.
    pub time: Timestamp,
    /// What it waits for.
    pub class: Class,
    /// How it ended.
    pub outcome: Outcome,
}

/// A commit record: the section it lies in, both parts, and the blind that ties them. Exists only with a matching commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    tenant: TenantId,
    public: PublicPart,
    blind: [u8; 32],
    part: PrivatePart,
}

impl Record {
    /// Joins facts and private part under a fresh random `blind`; `key` is the reference key of the tenant's section. A record in a
    /// section where its kind must not lie is refused by the commit body.
    pub fn new(facts: RecordFacts, private: Private, blind: [u8; 32], key: &ReferenceKey) -> Self {
        let RecordFacts { tenant, subject, principal, time, class, outcome } = facts;
        let kind = private.kind();
        let part = PrivatePart::new(subject, principal, private);
        let commitment = commit(&blind, &part.encode());
        let (subject, principal) = (key.of(subject.as_bytes()), key.of(principal.as_bytes()));
        let to_tenant = key.of(tenant.as_bytes());
        let public = PublicPart { version: PUBLIC_VERSION, kind, outcome, class, tenant: to_tenant, subject, principal, time, commitment };
        Self { tenant, public, blind, part }
    }

    /// Joins the parts as they come out of `tenant`'s section; refuses a private part its public part does not commit to, and one
    /// that must not lie in that section.
    pub fn from_parts(tenant: TenantId, public: PublicPart, blind: [u8; 32], private: &[u8]) -> Result<Self> {
        if commit(&blind, private) != public.commitment {
            return Err(BlockError::Contradiction { what: "private part of a record" });
        }
        let part = PrivatePart::decode(private)?;
        if part.private.kind() != public.kind {
            return Err(BlockError::Contradiction { what: "kind of a record" });
        }
        if !part.private.belongs_to(tenant) {
            return Err(BlockError::Contradiction { what: "section of a record" });
        }
        Ok(Self { tenant, public, blind, part })
    }

    /// Whether the public part's references are those of the ids in the private part and of the section.
    pub fn has_references_of(&self, key: &ReferenceKey) -> bool {
        self.public.tenant == key.of(self.tenant.as_bytes())
            && self.public.subject == key.of(self.part.subject.as_bytes())
            && self.public.principal == key.of(self.part.principal.as_bytes())
    }

    /// Whose section it lies in.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// What it is about.
    pub const fn subject(&self) -> SubjectId {
        self.part.subject
    }

    /// Who asked.
    pub const fn principal(&self) -> PrincipalId {
        self.part.principal
    }

    /// The audit leaf.
    pub const fn public(&self) -> &PublicPart {
        &self.public
    }

    /// What ties the private part to the public one; part of a receipt.
    pub const fn blind(&self) -> &[u8; 32] {
        &self.blind
    }

    /// Names, manifests and locations.
    pub const fn private(&self) -> &Private {
        &self.part.private
    }

    /// The private part as the commitment is over it.
    pub fn encode_private(&self) -> Vec<u8> {
        self.part.encode()
    }

    /// Splits the record.
    pub fn into_parts(self) -> (PublicPart, [u8; 32], Private) {
        (self.public, self.blind, self.part.private)
    }
}

impl Field for Record {
    const MIN_LEN: usize = 16 + PUBLIC_LEN + 32 + 4;
    fn put(&self, out: &mut Vec<u8>) {
        self.tenant.put(out);
        self.public.put(out);
        self.blind.put(out);
        let private = self.part.encode();
        crate::codec::length(private.len()).put(out);
        out.extend_from_slice(&private);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let (tenant, public, blind) = (reader.value()?, reader.value()?, reader.value()?);
        let len = reader.value::<u32>()? as usize;
        if len > MAX_PRIVATE {
            return Err(reader.malformed());
        }
        Self::from_parts(tenant, public, blind, reader.take(len)?)
    }
}

/// SHA-256 over domain, blind and private part.
pub fn commit(blind: &[u8; 32], private: &[u8]) -> Hash32 {
    let hash = Sha256::new().chain_update(COMMITMENT_DOMAIN).chain_update(blind).chain_update(private);
    Hash32::from_bytes(hash.finalize().into())
}
