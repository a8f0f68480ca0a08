//! From a sealed payload to shard objects: `SealedPayload -> CodedBlock -> SignedBlock -> [Bytes; 3]`.
//!
//! Data shards are slices of the payload, all parity is one buffer; nothing is copied on the way to a PUT.

use bytes::Bytes;
use rand::CryptoRng;

use crate::cell::{block_root, cell_hash, cell_hashes, shard_root};
use crate::erasure::{self, coder::DefaultCoder};
use crate::error::{BlockError, Result};
use crate::geometry::{Geometry, shard_len_for};
use crate::id::Hash32;
use crate::key::{HeaderKey, LogIdentity};
use crate::limits::{CELL_LEN, MANIFEST_VERSION};
use crate::manifest::{BlockPosition, CodeId, LogState, Manifest};
use crate::name::{ObjectName, ShardAddress};
use crate::shard::{ShardHeader, seal_header, seal_leaves};

const PADDING_CONTEXT: &str = "diaspore v1 payload padding";

/// A coded block: bodies and their tree; not signed, so not yet fit to leave.
#[derive(Debug)]
pub struct CodedBlock {
    geometry: Geometry,
    payload_len: u32,
    shard_len: u32,
    bodies: Vec<Bytes>,
    leaves: Vec<Vec<Hash32>>,
    roots: Vec<Hash32>,
    blind: [u8; 32],
}

/// Codes a payload. `blind` is random per attempt; the padding behind the payload follows from it.
pub fn encode(payload: Vec<u8>, geometry: Geometry, blind: [u8; 32]) -> Result<CodedBlock> {
    encode_into(payload, Vec::new(), geometry, blind, |data, parity| (data.into(), parity.into()))
}

/// [`encode`] with memory that was used before: `parity` may hold anything and is written over, and `share` says who gets both
/// buffers back when the last shard is gone.
pub fn encode_into(
    mut payload: Vec<u8>,
    mut parity: Vec<u8>,
    geometry: Geometry,
    blind: [u8; 32],
    share: impl FnOnce(Vec<u8>, Vec<u8>) -> (Bytes, Bytes),
) -> Result<CodedBlock> {
    let invalid = BlockError::Invalid { what: "payload length" };
    let shard_len = shard_len_for(payload.len(), geometry.k())?;
    let payload_len = u32::try_from(payload.len()).map_err(|_| invalid)?;
    let each = shard_len as usize;
    payload.resize(each * usize::from(geometry.k()), 0);
    if let Some(padding) = payload.get_mut(payload_len as usize..) {
        blake3::Hasher::new_derive_key(PADDING_CONTEXT).update(&blind).finalize_xof().fill(padding);
    }
    parity.resize(each * usize::from(geometry.f()), 0);
    let mut leaves: Vec<Vec<Hash32>> = (0..geometry.n()).map(|_| Vec::with_capacity(each.div_ceil(CELL_LEN))).collect();
    let data: Vec<&[u8]> = payload.chunks(each).collect();
    // A column's cells are hashed while coding has them in the cache.
    erasure::parity_into::<DefaultCoder>(geometry, &data, &mut parity, |index, column| {
        if let Some(cells) = leaves.get_mut(index) {
            cells.extend(column.chunks(CELL_LEN).map(cell_hash));
        }
    })?;
    let (data, parity) = share(payload, parity);
    let cut = |all: &Bytes, count: u8| (0..usize::from(count)).map(|i| all.slice(i * each..(i + 1) * each)).collect::<Vec<_>>();
    let mut bodies = cut(&data, geometry.k());
    bodies.extend(cut(&parity, geometry.f()));
    let roots = (0u8..).zip(&leaves).map(|(index, cells)| shard_root(index, shard_len, cells)).collect();
    Ok(CodedBlock { geometry, payload_len, shard_len, bodies, leaves, roots, blind })
}

impl CodedBlock {
    /// Root over the shard roots.
    pub fn block_root(&self) -> Hash32 {
        block_root(&self.roots)
    }

    /// Signs the block. `first_section_len` is the plain length of section 0 of a commit body, 0 for bulk blocks.
    pub fn sign(self, position: BlockPosition, first_section_len: u32, log: LogState, identity: &LogIdentity) -> SignedBlock {
        self.sign_as(MANIFEST_VERSION, position, first_section_len, log, identity)
    }

    fn sign_as(self, version: u8, position: BlockPosition, first_section_len: u32, log: LogState, identity: &LogIdentity) -> SignedBlock {
        let manifest = Manifest {
            version,
            position,
            geometry: self.geometry,
            code: CodeId::ReedSolomonVandermonde,
            payload_len: self.payload_len,
            shard_len: self.shard_len,
            first_section_len,
            block_root: block_root(&self.roots),
            log,
            blind: self.blind,
        };
        let signature = manifest.sign(identity);
        SignedBlock { header: ShardHeader::unchecked(manifest, signature, self.roots), bodies: self.bodies, leaves: self.leaves }
    }
}

/// A signed block: gives shard objects for any provider.
#[derive(Debug, Clone)]
pub struct SignedBlock {
    header: ShardHeader,
    bodies: Vec<Bytes>,
    leaves: Vec<Vec<Hash32>>,
}

impl SignedBlock {
    /// Codes an issued payload again, as the journal holds it, and checks that it gives the block that was signed.
    pub fn from_issued(manifest: &Manifest, payload: Vec<u8>, identity: &LogIdentity) -> Result<Self> {
        let contradiction = BlockError::Contradiction { what: "issued payload" };
        if payload.len() as u64 != u64::from(manifest.payload_len) {
            return Err(contradiction);
        }
        let coded = encode(payload, manifest.geometry, manifest.blind)?;
        let block = coded.sign_as(manifest.version, manifest.position, manifest.first_section_len, manifest.log, identity);
        if block.manifest() == manifest { Ok(block) } else { Err(contradiction) }
    }

    /// The signed statement.
    pub fn manifest(&self) -> &Manifest {
        self.header.manifest()
    }

    /// Root of every shard.
    pub fn shard_roots(&self) -> &[Hash32] {
        self.header.shard_roots()
    }

    /// What every shard's header says.
    pub fn header(&self) -> &ShardHeader {
        &self.header
    }

    /// The payload as it was sealed, without padding: what the journal keeps.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload: Vec<u8> = Vec::with_capacity(self.manifest().payload_len as usize);
        for body in self.bodies.iter().take(usize::from(self.manifest().geometry.k())) {
            let left = self.manifest().payload_len as usize - payload.len();
            payload.extend_from_slice(body.get(..left.min(body.len())).unwrap_or_default());
        }
        payload
    }

    /// Body of one shard.
    pub fn body(&self, index: u8) -> Result<Bytes> {
        self.bodies.get(usize::from(index)).cloned().ok_or(BlockError::Invalid { what: "shard index" })
    }

    /// The object of shard `index` for one provider: sealed header, body, sealed leaf list. Only the first and the last
    /// depend on the provider, and both are small.
    pub fn object(
        &self,
        index: u8,
        provider: &str,
        name: &ObjectName,
        key: &HeaderKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<[Bytes; 3]> {
        let leaves = self.leaves.get(usize::from(index)).ok_or(BlockError::Invalid { what: "shard index" })?;
        shard_object(&self.header, index, self.body(index)?, leaves, provider, name, key, rng)
    }
}

impl ShardHeader {
    /// The object of a rebuilt shard, for repair: refuses a body that does not have the signed root.
    pub fn object_for(
        &self,
        index: u8,
        body: Bytes,
        provider: &str,
        name: &ObjectName,
        key: &HeaderKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<[Bytes; 3]> {
        let leaves = cell_hashes(&body);
        let root = shard_root(index, self.manifest().shard_len, &leaves);
        if body.len() as u64 != u64::from(self.manifest().shard_len) || self.shard_roots().get(usize::from(index)) != Some(&root) {
            return Err(BlockError::NotAuthentic { what: "rebuilt shard" });
        }
        shard_object(self, index, body, &leaves, provider, name, key, rng)
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place where a shard object comes together")]
fn shard_object(
    header: &ShardHeader,
    index: u8,
    body: Bytes,
    leaves: &[Hash32],
    provider: &str,
    name: &ObjectName,
    key: &HeaderKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<[Bytes; 3]> {
    let at = header.manifest().position;
    let address = ShardAddress { provider, kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt };
    let front = seal_header(header, index, &address, name, key, rng)?;
    let back = seal_leaves(header, leaves, &address, name, key, rng)?;
    Ok([front.into(), body, back.into()])
}
