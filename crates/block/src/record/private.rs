//! Private parts: one struct per kind, encoded as `version ‖ kind ‖ subject ‖ principal ‖ fields in order`.

use crate::codec::{Field, Reader};
use crate::error::{BlockError, Result};
use crate::id::{PrincipalId, SubjectId, TenantId};
use crate::limits::{MAX_BLOB_KEY, PRIVATE_VERSION};
use crate::record::RecordKind;

mod blobs;
mod blocks;
mod events;
mod names;
mod upkeep;
mod writer;

pub use blobs::{BlobDeleted, BlobPut, BlobRead, ChunkRef, Content, Idempotency};
pub use blocks::{BulkAdded, ChunkEntry, CommitReleased, Encoding, Placement, SectionInfo};
pub use events::{AccessDenied, AuditDropped, AuditExported, IntegrityFault, PolicySet, ProviderConfigured, ProviderFault};
pub use names::{ApiKeyCreated, ApiKeyRevoked, BucketCreated, BucketDeleted, TenantCreated};
pub use upkeep::{
    BackupExported, BlocksCondemned, BlocksErased, CondemnReason, DrillReported, LogCompacted, Move, PartsAdded, ProviderEvacuated,
    ProviderMode, ProviderStateSet, SchemaMigrated, ShardsMoved,
};
pub use writer::{Decision, KeyringChanged, MayHaveLost, ServiceStarted, ServiceStopped};

const WHAT: &str = "private part of a record";

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
    ProviderFault, AuditDropped, AuditExported, ServiceStarted, ServiceStopped, BlocksCondemned, BlocksErased, ShardsMoved, PartsAdded,
    LogCompacted, ProviderStateSet, ProviderEvacuated, DrillReported, SchemaMigrated, BackupExported,
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
        let mut reader = Reader::new(bytes, WHAT);
        let version: u8 = reader.value()?;
        if version > PRIVATE_VERSION {
            return Err(BlockError::Unsupported { what: WHAT, version });
        }
        let kind = RecordKind::known(reader.value()?)?;
        let (subject, principal) = (reader.value()?, reader.value()?);
        let private = Private::take_fields(kind, &mut reader)?;
        if version == 0 {
            return Err(reader.malformed());
        }
        private.check()?;
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
            | Self::ServiceStopped(_)
            | Self::BlocksCondemned(_)
            | Self::BlocksErased(_)
            | Self::ShardsMoved(_)
            | Self::PartsAdded(_)
            | Self::LogCompacted(_)
            | Self::ProviderStateSet(_)
            | Self::ProviderEvacuated(_)
            | Self::DrillReported(_)
            | Self::SchemaMigrated(_)
            | Self::BackupExported(_) => is_system,
        }
    }

    /// Refuses numbers that do not fit each other, or that later code must not multiply, allocate or shift by.
    pub(crate) fn check(&self) -> Result<()> {
        let fits = match self {
            Self::BlobPut(put) => {
                put.check()?;
                put.key.len() <= MAX_BLOB_KEY
            }
            Self::BlobDeleted(deleted) => deleted.key.len() <= MAX_BLOB_KEY,
            Self::BlobRead(read) => read.key.len() <= MAX_BLOB_KEY,
            Self::BulkAdded(bulk) => bulk.is_plausible(),
            Self::CommitReleased(released) => released.is_plausible(),
            Self::ShardsMoved(moved) => moved.is_plausible(),
            Self::PartsAdded(added) => added.is_plausible(),
            Self::LogCompacted(compacted) => compacted.is_plausible(),
            _ => true,
        };
        if fits { Ok(()) } else { Err(BlockError::Malformed { what: WHAT }) }
    }
}
