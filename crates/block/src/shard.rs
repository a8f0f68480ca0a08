//! What comes back from a provider, and the constructors that alone make it usable.
//!
//! `ShardHeader::open` checks seal, place, signature and roots; `LeafList::open` checks the leaves against the signed
//! shard root; `VerifiedCells::check` checks bytes against the leaves. Decoding takes nothing else.

use bytes::Bytes;
use rand::CryptoRng;

use crate::cell::{block_root, cell_hash, shard_root};
use crate::codec::{Field, Reader};
use crate::error::{BlockError, Result};
use crate::geometry::{cell_count, object_len};
use crate::id::{DeploymentId, Hash32};
use crate::key::{HeaderKey, LogPublicKey};
use crate::limits::{CELL_LEN, HEADER_LEN, MAX_SHARD_OBJECT, SEGMENT_LOG2_RANGE};
use crate::manifest::{MANIFEST_LEN, Manifest};
use crate::name::{ObjectName, ShardAddress};
use crate::seal::{Context, PREFIX_LEN, Salt, SealType, TAG_LEN, open_object, seal_object};

const HEADER_PLAIN: usize = HEADER_LEN - PREFIX_LEN - TAG_LEN;

/// A header whose seal, signature and roots were checked: what a shard says about its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardHeader {
    manifest: Manifest,
    signature: [u8; 64],
    roots: Vec<Hash32>,
    index: u8,
}

/// Binds header and leaf list to their place: provider, name, incarnation, counter, attempt, kind.
fn context(seal_type: SealType, deployment: DeploymentId, address: &ShardAddress<'_>, name: &ObjectName) -> Context {
    Context::new(seal_type, deployment)
        .text(address.provider)
        .text(name.as_str())
        .field(address.incarnation.as_bytes())
        .field(&address.counter.0.to_be_bytes())
        .field(&[address.attempt.0, address.kind.name_class()])
}

/// What the header of a shard at this place is sealed for; the same in every version of the format.
pub fn header_context(deployment: DeploymentId, address: &ShardAddress<'_>, name: &ObjectName) -> Context {
    context(SealType::ShardHeader, deployment, address, name)
}

pub(crate) fn seal_header(
    header: &ShardHeader,
    index: u8,
    address: &ShardAddress<'_>,
    name: &ObjectName,
    key: &HeaderKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>> {
    if index >= header.manifest.geometry.n() {
        return Err(BlockError::Invalid { what: "shard index" });
    }
    let mut plain = Vec::with_capacity(HEADER_PLAIN);
    header.manifest.put(&mut plain);
    header.signature.put(&mut plain);
    index.put(&mut plain);
    for root in &header.roots {
        root.put(&mut plain);
    }
    debug_assert!(plain.len() <= HEADER_PLAIN, "a header of 32 roots fits");
    plain.resize(HEADER_PLAIN, 0);
    let context = context(SealType::ShardHeader, header.manifest.position.deployment, address, name);
    seal_object(key.expose(), Salt::draw(rng), &context, &plain)
}

pub(crate) fn seal_leaves(
    header: &ShardHeader,
    leaves: &[Hash32],
    address: &ShardAddress<'_>,
    name: &ObjectName,
    key: &HeaderKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(leaves.len() * 32 + 32);
    for leaf in leaves {
        leaf.put(&mut plain);
    }
    let whole = leaf_list_len(header.manifest.shard_len)?;
    plain.resize(whole.checked_sub(PREFIX_LEN + TAG_LEN).ok_or(BlockError::Invalid { what: "shard length" })?, 0);
    let context = context(SealType::LeafList, header.manifest.position.deployment, address, name);
    seal_object(key.expose(), Salt::draw(rng), &context, &plain)
}

/// Bytes of the sealed leaf list behind a shard of this length.
pub fn leaf_list_len(shard_len: u32) -> Result<usize> {
    let object = object_len(shard_len)?;
    object.checked_sub(HEADER_LEN + shard_len as usize).ok_or(BlockError::Invalid { what: "shard length" })
}

impl ShardHeader {
    pub(crate) fn unchecked(manifest: Manifest, signature: [u8; 64], roots: Vec<Hash32>) -> Self {
        Self { manifest, signature, roots, index: 0 }
    }

    /// Opens the first 2048 bytes of a shard object found at `address` under `name`, and checks everything in it.
    pub fn open(
        key: &HeaderKey,
        public: &LogPublicKey,
        deployment: DeploymentId,
        address: &ShardAddress<'_>,
        name: &ObjectName,
        sealed: &[u8],
    ) -> Result<Self> {
        const WHAT: &str = "shard header";
        if sealed.len() != HEADER_LEN {
            return Err(BlockError::Malformed { what: WHAT });
        }
        let context = context(SealType::ShardHeader, deployment, address, name);
        let plain = open_object(key.expose(), &context, sealed, HEADER_PLAIN, WHAT)?;
        let mut r = Reader::new(&plain, WHAT);
        let manifest = Manifest::decode(&r.array::<MANIFEST_LEN>()?)?;
        let signature = r.array()?;
        let index: u8 = r.value()?;
        let n = manifest.geometry.n();
        let roots = (0..n).map(|_| r.value()).collect::<Result<Vec<Hash32>>>()?;
        r.zeros_to_end()?;
        manifest.verify(public, &signature)?;
        let at = &manifest.position;
        let placed = at.deployment == deployment
            && at.incarnation == address.incarnation
            && at.counter == address.counter
            && at.attempt == address.attempt
            && at.kind.name_class() == address.kind.name_class();
        if !placed || index >= n || block_root(&roots) != manifest.block_root {
            return Err(BlockError::NotAuthentic { what: WHAT });
        }
        Ok(Self { manifest, signature, roots, index })
    }

    /// The signed statement about the block.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The signature over it.
    pub const fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// Which shard this header stands in front of.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Root of every shard.
    pub fn shard_roots(&self) -> &[Hash32] {
        &self.roots
    }

    /// Length of the whole object: header, body, leaf list.
    pub fn object_len(&self) -> Result<usize> {
        object_len(self.manifest.shard_len)
    }
}

/// The cell hashes of one shard, checked against its signed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafList {
    block_root: Hash32,
    shard: u8,
    shard_len: u32,
    cells: Vec<Hash32>,
}

/// What a record says about one shard: enough to check its cells without its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownShard {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Root of the block.
    pub block_root: Hash32,
    /// Index of the shard.
    pub shard: u8,
    /// Bytes of the shard.
    pub shard_len: u32,
    /// Its root.
    pub root: Hash32,
}

impl ShardHeader {
    /// The shard this header stands in front of.
    pub fn known(&self) -> Result<KnownShard> {
        let root = self.roots.get(usize::from(self.index)).ok_or(BlockError::Malformed { what: "shard header" })?;
        Ok(KnownShard {
            deployment: self.manifest.position.deployment,
            block_root: self.manifest.block_root,
            shard: self.index,
            shard_len: self.manifest.shard_len,
            root: *root,
        })
    }
}

impl LeafList {
    /// Opens the bytes behind the body of the shard that `header` stands in front of.
    pub fn open(key: &HeaderKey, header: &ShardHeader, address: &ShardAddress<'_>, name: &ObjectName, sealed: &[u8]) -> Result<Self> {
        Self::open_known(key, &header.known()?, address, name, sealed)
    }

    /// [`LeafList::open`] for a reader who knows the shard from its record.
    pub fn open_known(key: &HeaderKey, known: &KnownShard, address: &ShardAddress<'_>, name: &ObjectName, sealed: &[u8]) -> Result<Self> {
        const WHAT: &str = "leaf list";
        if sealed.len() != leaf_list_len(known.shard_len)? {
            return Err(BlockError::Malformed { what: WHAT });
        }
        let context = context(SealType::LeafList, known.deployment, address, name);
        let plain = open_object(key.expose(), &context, sealed, MAX_SHARD_OBJECT, WHAT)?;
        let mut r = Reader::new(&plain, WHAT);
        let cells = (0..cell_count(known.shard_len)).map(|_| r.value()).collect::<Result<Vec<Hash32>>>()?;
        r.zeros_to_end()?;
        if shard_root(known.shard, known.shard_len, &cells) != known.root {
            return Err(BlockError::NotAuthentic { what: WHAT });
        }
        Ok(Self { block_root: known.block_root, shard: known.shard, shard_len: known.shard_len, cells })
    }

    /// Cells of the shard.
    pub fn cell_count(&self) -> u32 {
        crate::codec::length(self.cells.len())
    }

    /// The hash of cell `i`, if the shard has one.
    pub fn cell(&self, i: u32) -> Option<&Hash32> {
        self.cells.get(i as usize)
    }

    /// Whether these bytes are cell `i`, whole.
    pub fn check_cell(&self, i: u32, bytes: &[u8]) -> bool {
        let start = u64::from(i) * CELL_LEN as u64;
        let len = u64::from(self.shard_len).saturating_sub(start).min(CELL_LEN as u64);
        bytes.len() as u64 == len && self.cell(i) == Some(&cell_hash(bytes))
    }
}

/// Bytes of one shard, whole cells, each checked against the signed tree: the only way into `decode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCells {
    pub(crate) block_root: Hash32,
    pub(crate) shard: u8,
    pub(crate) start: u32,
    pub(crate) bytes: Bytes,
}

impl VerifiedCells {
    /// Checks `bytes` as the cells from `first_cell` on; the last may be the shard's short one. On error the wrong cells
    /// are named, so that the others can be used.
    pub fn check(leaves: &LeafList, first_cell: u32, bytes: Bytes) -> Result<Self> {
        // Counting from beyond the last cell would overflow; there is nothing to check there.
        let first = first_cell.min(leaves.cell_count());
        let cells = (first..).zip(bytes.chunks(CELL_LEN));
        let wrong: Vec<u32> = cells.filter(|(i, cell)| !leaves.check_cell(*i, cell)).map(|(i, _)| i).collect();
        let start = first_cell.checked_mul(1 << crate::limits::CELL_LOG2);
        match start {
            Some(start) if wrong.is_empty() && !bytes.is_empty() => {
                Ok(Self { block_root: leaves.block_root, shard: leaves.shard, start, bytes })
            }
            _ => Err(BlockError::WrongCells { shard: leaves.shard, cells: wrong }),
        }
    }

    /// Opens a whole shard object, header to leaf list, and checks every cell.
    pub fn open_object(
        key: &HeaderKey,
        public: &LogPublicKey,
        deployment: DeploymentId,
        address: &ShardAddress<'_>,
        name: &ObjectName,
        object: &Bytes,
    ) -> Result<(ShardHeader, Self)> {
        let short = BlockError::Malformed { what: "shard object" };
        let front = object.get(..HEADER_LEN).ok_or(short.clone())?;
        let header = ShardHeader::open(key, public, deployment, address, name, front)?;
        let body_end = HEADER_LEN + header.manifest.shard_len as usize;
        if object.len() != header.object_len()? {
            return Err(short);
        }
        let leaves = LeafList::open(key, &header, address, name, object.get(body_end..).ok_or(short)?)?;
        let cells = Self::check(&leaves, 0, object.slice(HEADER_LEN..body_end))?;
        Ok((header, cells))
    }

    /// Which shard.
    pub const fn shard(&self) -> u8 {
        self.shard
    }

    /// Root of the block they belong to.
    pub const fn block_root(&self) -> &Hash32 {
        &self.block_root
    }

    /// The checked bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes of `from..to` of the shard, if these cells hold all of them.
    pub(crate) fn slice(&self, from: u32, to: u32) -> Option<Bytes> {
        let first = from.checked_sub(self.start)? as usize;
        let last = to.checked_sub(self.start)? as usize;
        (first <= last && last <= self.bytes.len()).then(|| self.bytes.slice(first..last))
    }
}

const _: () = assert!(HEADER_PLAIN >= MANIFEST_LEN + 64 + 1 + 32 * crate::limits::MAX_SHARDS as usize, "every header fits");
const _: () = assert!(HEADER_PLAIN <= 1 << *SEGMENT_LOG2_RANGE.end(), "a header is one segment");

#[cfg(test)]
mod tests;
