//! Commit records: a public part of fixed width, which is the audit leaf, and a private part for its tenant's section.
//!
//! The public part holds opaque ids only. It commits to the private part through SHA-256 over a random blind, so that a
//! log of public parts can be shown to an outsider, and a receipt can open one record without the others.

use sha2::{Digest, Sha256};

use crate::codec::{Field, Reader, tags};
use crate::error::{BlockError, Result};
use crate::id::{Hash32, PrincipalId, SubjectId, TenantId, Timestamp};
use crate::limits::{FORMAT_VERSION, MAX_PRIVATE};
use crate::log::leaf_hash;

mod private;
pub use private::{
    AccessDenied, ApiKeyCreated, ApiKeyRevoked, AuditDropped, AuditExported, BlobDeleted, BlobPut, BlobRead, BucketCreated, BucketDeleted,
    BulkAdded, ChunkEntry, ChunkRef, CommitReleased, Content, Decision, Encoding, Idempotency, IntegrityFault, KeyringChanged, MayHaveLost,
    Placement, PolicySet, Private, ProviderConfigured, ProviderFault, SectionInfo, ServiceStarted, ServiceStopped, TenantCreated,
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

/// The audit leaf: fixed width, opaque ids, nothing that needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicPart {
    /// What the record says.
    pub kind: RecordKind,
    /// How it ended.
    pub outcome: Outcome,
    /// What it waited for.
    pub class: Class,
    /// Whose section holds the private part.
    pub tenant: TenantId,
    /// What it is about.
    pub subject: SubjectId,
    /// Who asked.
    pub principal: PrincipalId,
    /// When, by the service's clock.
    pub time: Timestamp,
    /// SHA-256 over domain, blind and the encoded private part.
    pub commitment: Hash32,
}

impl PublicPart {
    /// The fixed-width encoding: the leaf of the log.
    pub fn encode(&self) -> [u8; PUBLIC_LEN] {
        let mut out = Vec::with_capacity(PUBLIC_LEN);
        out.push(FORMAT_VERSION);
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
        if version > FORMAT_VERSION {
            return Err(BlockError::Unsupported { what: "public part of a record", version });
        }
        if version != FORMAT_VERSION {
            return Err(r.malformed());
        }
        let public = Self {
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

/// The part of a record's meaning that its public part shows, besides its kind.
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

/// A commit record: both parts and the blind that ties them. Exists only with a matching commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    public: PublicPart,
    blind: [u8; 32],
    private: Private,
}

impl Record {
    /// Joins facts and private part under a fresh random `blind`.
    pub fn new(facts: RecordFacts, private: Private, blind: [u8; 32]) -> Self {
        let commitment = commit(&blind, &private.encode());
        let RecordFacts { tenant, subject, principal, time, class, outcome } = facts;
        let kind = private.kind();
        let public = PublicPart { kind, outcome, class, tenant, subject, principal, time, commitment };
        Self { public, blind, private }
    }

    /// Joins the parts as they come out of a block; refuses a private part its public part does not commit to.
    pub fn from_parts(public: PublicPart, blind: [u8; 32], private: &[u8]) -> Result<Self> {
        if commit(&blind, private) != public.commitment {
            return Err(BlockError::Contradiction { what: "private part of a record" });
        }
        let private = Private::decode(private)?;
        if private.kind() != public.kind {
            return Err(BlockError::Contradiction { what: "kind of a record" });
        }
        Ok(Self { public, blind, private })
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
        &self.private
    }

    /// Splits the record.
    pub fn into_parts(self) -> (PublicPart, [u8; 32], Private) {
        (self.public, self.blind, self.private)
    }
}

impl Field for Record {
    const MIN_LEN: usize = PUBLIC_LEN + 32 + 4;
    fn put(&self, out: &mut Vec<u8>) {
        self.public.put(out);
        self.blind.put(out);
        let private = self.private.encode();
        crate::codec::length(private.len()).put(out);
        out.extend_from_slice(&private);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let public = reader.value()?;
        let blind = reader.value()?;
        let len = reader.value::<u32>()? as usize;
        if len > MAX_PRIVATE {
            return Err(reader.malformed());
        }
        Self::from_parts(public, blind, reader.take(len)?)
    }
}

/// SHA-256 over domain, blind and private part.
pub fn commit(blind: &[u8; 32], private: &[u8]) -> Hash32 {
    let hash = Sha256::new().chain_update(COMMITMENT_DOMAIN).chain_update(blind).chain_update(private);
    Hash32::from_bytes(hash.finalize().into())
}
