//! The manifest: the one signed statement about a block, of fixed width.

use sha2::{Digest, Sha256};

use crate::codec::{Field, Reader, tags};
use crate::error::{BlockError, Result};
use crate::geometry::{Geometry, shard_len_for};
use crate::id::{Attempt, BlockId, Counter, DeploymentId, Epoch, Hash32, IncarnationId, Seq};
use crate::key::{LogIdentity, LogPublicKey};
use crate::limits::{CELL_LOG2, MANIFEST_VERSION};

/// Bytes of an encoded manifest.
pub const MANIFEST_LEN: usize = 256;
const DOMAIN: &str = "diaspore/v1/manifest";
const HASH_DOMAIN: &[u8] = b"diaspore/v1/manifest-hash\0";
const RESERVED: usize = 40;

tags! {
    /// What a block carries.
    pub enum BlockKind {
        /// Chunks only.
        Bulk = 1,
        /// Commit records and small chunks.
        Commit = 2,
        /// A commit block whose records decide what became of the predecessors.
        Decision = 3,
        /// A part or the root of a compacted log.
        Compacted = 4,
    }
}

impl BlockKind {
    /// What names and headers count by: 1 bulk, 2 commit. A prober looks for both record-bearing kinds under one name and learns
    /// from the manifest which it found; parts of compacted logs are named and counted like bulk blocks.
    pub const fn name_class(self) -> u8 {
        match self {
            Self::Bulk | Self::Compacted => 1,
            Self::Commit | Self::Decision => 2,
        }
    }

    /// Whether the payload is a commit body (its sections begin with the service's own).
    pub const fn has_records(self) -> bool {
        matches!(self, Self::Commit | Self::Decision)
    }
}

tags! {
    /// Which code made the parity shards.
    pub enum CodeId {
        /// Systematic Reed-Solomon over GF(2^8) with the matrix of `reed-solomon-erasure` 6.
        ReedSolomonVandermonde = 1,
    }
}

/// Where a block stands: what every section in it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPosition {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Which block; the same in all attempts.
    pub block: BlockId,
    /// What it carries.
    pub kind: BlockKind,
    /// Who wrote it.
    pub incarnation: IncarnationId,
    /// Its index in the incarnation, per kind.
    pub counter: Counter,
    /// Which coding.
    pub attempt: Attempt,
}

/// What the log says at the moment a block is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// Generation of the writer's claim.
    pub epoch: Epoch,
    /// Position in the log; 0 for bulk blocks.
    pub seq: Seq,
    /// Leaves of the log after this block's; 0 for bulk blocks.
    pub log_size: u64,
    /// Root of the log after this block's leaves; zero for bulk blocks.
    pub log_root: Hash32,
    /// Every sequence up to here is acknowledged.
    pub acked_through: Seq,
    /// Every sequence up to here is settled.
    pub settled_through: Seq,
    /// Smallest k this incarnation may use.
    pub k_floor: u8,
}

/// The signed statement about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Version of its encoding, kept so that the signature's bytes come again.
    pub(crate) version: u8,
    /// Where the block stands.
    pub position: BlockPosition,
    /// Shards.
    pub geometry: Geometry,
    /// Code of the parity shards.
    pub code: CodeId,
    /// Bytes of the payload before padding.
    pub payload_len: u32,
    /// Bytes of each shard.
    pub shard_len: u32,
    /// Plain length of section 0 of a commit body; 0 for bulk blocks.
    pub first_section_len: u32,
    /// Root over the n shard roots.
    pub block_root: Hash32,
    /// The log at this block.
    pub log: LogState,
    /// Random; hides the rest in [`Manifest::hash`] and seeds the payload's padding.
    pub blind: [u8; 32],
}

impl Manifest {
    /// The fixed-width encoding (docs/format.md, "Manifest").
    pub fn encode(&self) -> [u8; MANIFEST_LEN] {
        let mut out = Vec::with_capacity(MANIFEST_LEN);
        let at = &self.position;
        out.push(self.version);
        at.kind.put(&mut out);
        at.attempt.put(&mut out);
        self.geometry.put(&mut out);
        self.code.put(&mut out);
        out.push(CELL_LOG2);
        out.push(self.log.k_floor);
        at.deployment.put(&mut out);
        at.block.put(&mut out);
        at.incarnation.put(&mut out);
        self.log.epoch.put(&mut out);
        self.log.seq.put(&mut out);
        at.counter.put(&mut out);
        self.payload_len.put(&mut out);
        self.shard_len.put(&mut out);
        self.first_section_len.put(&mut out);
        0u32.put(&mut out);
        self.block_root.put(&mut out);
        self.log.log_size.put(&mut out);
        self.log.log_root.put(&mut out);
        self.log.acked_through.put(&mut out);
        self.log.settled_through.put(&mut out);
        self.blind.put(&mut out);
        [0; RESERVED].put(&mut out);
        let mut encoded = [0; MANIFEST_LEN];
        debug_assert_eq!(out.len(), MANIFEST_LEN, "the manifest has a fixed width");
        encoded.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        encoded
    }

    /// Decodes and checks every field against the limits of the format.
    pub fn decode(bytes: &[u8; MANIFEST_LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes, "manifest");
        let version: u8 = r.value()?;
        if version > MANIFEST_VERSION {
            return Err(BlockError::Unsupported { what: "manifest", version });
        }
        let kind = match (r.value::<u8>()?, "kind of a block") {
            (0, what) => return Err(BlockError::Malformed { what }),
            (byte, what) => BlockKind::from_u8(byte).ok_or(BlockError::Unsupported { what, version: byte })?,
        };
        let attempt: Attempt = r.value()?;
        let geometry: Geometry = r.value()?;
        let code = r.value()?;
        let cell_log2: u8 = r.value()?;
        let k_floor = r.value()?;
        let deployment = r.value()?;
        let block = r.value()?;
        let incarnation = r.value()?;
        let epoch = r.value()?;
        let seq = r.value()?;
        let counter = r.value()?;
        let (payload_len, shard_len, first_section_len) = (r.value()?, r.value()?, r.value()?);
        r.zeros(4)?;
        let block_root = r.value()?;
        let (log_size, log_root, acked_through, settled_through) = (r.value()?, r.value()?, r.value()?, r.value()?);
        let blind = r.value()?;
        let position = BlockPosition { deployment, block, kind, incarnation, counter, attempt };
        let log = LogState { epoch, seq, log_size, log_root, acked_through, settled_through, k_floor };
        let manifest = Self { version, position, geometry, code, payload_len, shard_len, first_section_len, block_root, log, blind };
        if version == 0 || cell_log2 != CELL_LOG2 || !manifest.is_plausible() {
            return Err(r.malformed());
        }
        r.zeros(RESERVED)?;
        r.finish()?;
        Ok(manifest)
    }

    fn is_plausible(&self) -> bool {
        let k = self.geometry.k();
        let log = &self.log;
        let lengths = shard_len_for(self.payload_len as usize, k) == Ok(self.shard_len) && self.first_section_len <= self.payload_len;
        let position = if self.position.kind.has_records() {
            let marks = log.settled_through <= log.acked_through && log.acked_through <= log.seq;
            log.seq.0 > 0 && marks && self.first_section_len > 0
        } else {
            let empty = LogState { epoch: log.epoch, k_floor: log.k_floor, ..LogState::default() };
            *log == empty && self.first_section_len == 0
        };
        lengths && position && (1..=k).contains(&log.k_floor) && self.position.attempt.0 < Attempt::COUNT
    }

    /// SHA-256 over domain and encoding: what the log names a block by.
    pub fn hash(&self) -> Hash32 {
        Hash32::from_bytes(Sha256::new().chain_update(HASH_DOMAIN).chain_update(self.encode()).finalize().into())
    }

    /// Ed25519 over the domain-separated encoding.
    pub fn sign(&self, identity: &LogIdentity) -> [u8; 64] {
        identity.sign(DOMAIN, &self.encode())
    }

    /// Checks a signature strictly.
    pub fn verify(&self, public: &LogPublicKey, signature: &[u8; 64]) -> Result<()> {
        public.verify(DOMAIN, &self.encode(), signature, "manifest signature")
    }
}

impl Field for Manifest {
    const MIN_LEN: usize = MANIFEST_LEN;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encode());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Self::decode(&reader.array()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_world::World;

    #[test]
    fn numbers_that_do_not_fit_each_other_are_refused() {
        let bulk = World::new(1).bulk(&[7; 9000], 2, 3).0.manifest().clone();
        assert_eq!(Manifest::decode(&bulk.encode()).unwrap(), bulk);
        let refused = |from: &Manifest, change: &dyn Fn(&mut Manifest)| {
            let mut changed = from.clone();
            change(&mut changed);
            Manifest::decode(&changed.encode()).is_err()
        };
        assert!(refused(&bulk, &|m| m.log.seq = Seq(1)));
        assert!(refused(&bulk, &|m| m.log.log_size = 1));
        assert!(refused(&bulk, &|m| m.log.log_root = Hash32::from_bytes([1; 32])));
        assert!(refused(&bulk, &|m| m.log.acked_through = Seq(1)));
        assert!(refused(&bulk, &|m| m.log.settled_through = Seq(1)));
        assert!(refused(&bulk, &|m| m.first_section_len = 1));
        assert!(refused(&bulk, &|m| m.log.k_floor = 0));
        assert!(refused(&bulk, &|m| m.log.k_floor = 3));
        assert!(refused(&bulk, &|m| m.shard_len += 65_536));
        assert!(refused(&bulk, &|m| m.payload_len = 0));
        assert!(refused(&bulk, &|m| m.position.attempt = Attempt(4)));
        let mut commit = bulk.clone();
        commit.position.kind = BlockKind::Commit;
        commit.first_section_len = 100;
        commit.log = World::log(BlockKind::Commit);
        assert!(!refused(&commit, &|_| ()));
        assert!(refused(&commit, &|m| m.log.seq = Seq(0)));
        assert!(refused(&commit, &|m| m.log.acked_through = Seq(10)));
        assert!(refused(&commit, &|m| m.log.settled_through = Seq(1)));
        assert!(refused(&commit, &|m| m.first_section_len = 0));
    }

    #[test]
    fn an_unknown_kind_is_a_newer_versions() {
        let mut encoded = World::new(1).bulk(&[7; 9000], 2, 3).0.manifest().encode();
        for (kind, newer) in [(5, true), (9, true), (0, false)] {
            encoded[1] = kind;
            let refused = Manifest::decode(&encoded).unwrap_err();
            assert_eq!(matches!(refused, BlockError::Unsupported { .. }), newer, "{refused}");
            assert_eq!(refused.is_integrity(), !newer);
        }
    }
}
