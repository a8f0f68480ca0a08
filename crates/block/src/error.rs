//! One error for the crate: a variant per action the caller can take.

use crate::id::{KeyVersion, TenantId};

/// What went wrong, by what the caller should do about it.
///
/// No variant carries key material, plaintext, provider names or object names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are not what their place promises: do not use them, fetch another copy.
    #[error("{what} is malformed: fetch it from another place and report where it came from")]
    Malformed {
        /// Which object or field.
        what: &'static str,
    },
    /// A tag, commitment or signature does not fit: wrong key, wrong place or altered bytes.
    #[error("{what} is not authentic: it was altered, moved, or sealed under another key")]
    NotAuthentic {
        /// Which object.
        what: &'static str,
    },
    /// Written by a newer format: upgrade before opening it.
    #[error("{what} has version {version}, newer than this build reads: upgrade")]
    Unsupported {
        /// Which object.
        what: &'static str,
        /// The version it names.
        version: u8,
    },
    /// An argument is outside the limits of the format: correct the call.
    #[error("{what} is outside the limits of the format")]
    Invalid {
        /// Which argument.
        what: &'static str,
    },
    /// The block under construction is full: close it and start another.
    #[error("no room: {wanted} bytes wanted, {room} left; start another block")]
    Full {
        /// Bytes that were to be added.
        wanted: u64,
        /// Bytes that still fit.
        room: u64,
    },
    /// Not enough verified shards cover the range: fetch more.
    #[error("{have} verified shards cover this range, {need} are needed: fetch more shards")]
    TooFewShards {
        /// Shards needed (k).
        need: u8,
        /// Shards given.
        have: u8,
    },
    /// Some cells do not match their signed leaves: drop these cells, keep the others.
    #[error("{} cells of shard {shard} do not match their signed leaves", cells.len())]
    WrongCells {
        /// Shard index.
        shard: u8,
        /// Indexes of the wrong cells in the shard.
        cells: Vec<u32>,
    },
    /// The keyring does not hold the key: it was shredded, or the keyring is older than the data.
    #[error("the keyring holds no key of version {version} for tenant {tenant}")]
    KeyMissing {
        /// Whose key.
        tenant: TenantId,
        /// Which version.
        version: KeyVersion,
    },
    /// A proof or checkpoint contradicts another statement: somebody shows a different history.
    #[error("{what} contradicts the log")]
    Contradiction {
        /// Which statement.
        what: &'static str,
    },
    /// A cipher, coder or compressor refused valid input: stop, the build or machine is broken.
    #[error("{what} failed on valid input: this build or machine is not fit for service")]
    Engine {
        /// Which engine.
        what: &'static str,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, BlockError>;

impl BlockError {
    /// Whether the bytes that were given are at fault, so that who delivered them should be reported.
    pub fn is_integrity(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::NotAuthentic { .. } | Self::WrongCells { .. } | Self::Contradiction { .. })
    }
}
