//! Identifiers and positions. Small, `Copy`, ordered; none of them is secret, none is guessable from another.

use std::fmt;

use rand::CryptoRng;
use uuid::Uuid;

use crate::codec::{Field, Reader};
use crate::error::Result;

macro_rules! uuid_id {
    ($($(#[$meta:meta])* $name:ident,)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(Uuid);

        impl $name {
            /// The all-zero id.
            pub const NIL: Self = Self(Uuid::nil());
            /// A fresh id: 122 random bits in the form of a version-4 UUID (RFC 9562).
            pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }
            /// The id with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
            /// The 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
            /// Whether this is the all-zero id.
            pub const fn is_nil(&self) -> bool {
                self.0.is_nil()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        crate::codec::array_field!($name, 16, as_bytes);
    )*};
}

uuid_id! {
    /// One installation: keyring, log and providers.
    DeploymentId,
    /// Whose data.
    TenantId,
    /// A namespace of one tenant.
    BucketId,
    /// One immutable state of a blob.
    VersionId,
    /// One container block, across its attempts.
    BlockId,
    /// One start of the writer.
    IncarnationId,
    /// Who asked: an API key or an operator.
    PrincipalId,
    /// What a record is about (a version, bucket, block, key or tenant id); only its private part says it.
    SubjectId,
    /// What a public part shows instead of an id: a keyed hash of it, which only the holder of the tenant's reference key can tell.
    Reference,
}

impl TenantId {
    /// The service itself: its section is sealed under the log key.
    pub const SYSTEM: Self = Self::NIL;
}

macro_rules! subject {
    ($($name:ident),*) => {$(
        impl From<$name> for SubjectId {
            fn from(id: $name) -> Self {
                Self(id.0)
            }
        }
    )*};
}
subject!(TenantId, BucketId, VersionId, BlockId, IncarnationId, PrincipalId);

macro_rules! hash_id {
    ($($(#[$meta:meta])* $name:ident,)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            /// All zero.
            pub const ZERO: Self = Self([0; 32]);
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        crate::codec::array_field!($name, 32, as_bytes);
    )*};
}

hash_id! {
    /// Keyed BLAKE3 of a chunk's plain bytes under its bucket's deduplication key.
    ChunkId,
    /// A SHA-256 or BLAKE3 hash; which one, its place says.
    Hash32,
}

macro_rules! number_id {
    ($($(#[$meta:meta])* $name:ident: $int:ty,)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            /// The bare number.
            pub const fn get(self) -> $int {
                self.0
            }
            /// The following one; stays at the last number there is.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl Field for $name {
            const MIN_LEN: usize = size_of::<$int>();
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self> {
                Ok(Self(<$int>::take(reader)?))
            }
        }
    )*};
}

number_id! {
    /// Position of a commit block in the one log of the deployment; the first is 1, 0 means none.
    Seq: u64,
    /// Index of a block in its incarnation, from 0; commit and bulk blocks count separately.
    Counter: u64,
    /// Which coding of one counter, `0..Attempt::COUNT`.
    Attempt: u8,
    /// Generation of a claim; the first is 1.
    Epoch: u64,
    /// Index of a leaf in the Merkle log, from 0.
    LeafIndex: u64,
    /// Generation of a tenant's key; the first is 1. The service's own section uses 0.
    KeyVersion: u32,
    /// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
    Timestamp: u64,
}

impl Attempt {
    /// Attempts per counter (PROTOCOL rule 2); all of them are probed.
    pub const COUNT: u8 = 4;

    /// Every attempt, first to last.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}
