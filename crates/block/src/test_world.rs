//! A small deployment for tests: seeded keys, a coded block, and its objects at named providers.

use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::block::{SignedBlock, encode};
use crate::geometry::{Geometry, max_payload};
use crate::id::{Attempt, BlockId, Counter, Epoch, Hash32, IncarnationId, KeyVersion, Seq, TenantId};
use crate::key::{Keyring, TenantKeys};
use crate::limits::BULK_SEGMENT_LOG2;
use crate::manifest::{BlockKind, BlockPosition, LogState};
use crate::name::{Names, ObjectName, ShardAddress};
use crate::record::SectionInfo;
use crate::section::PayloadBuilder;

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

pub(crate) const PROVIDERS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];

pub(crate) struct World {
    pub(crate) keys: Keyring,
    pub(crate) tenant: TenantId,
    pub(crate) rng: ChaCha20Rng,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let tenant = TenantId::draw(&mut rng);
        let keys = TenantKeys::draw(&mut rng);
        let keys = Keyring::create(&mut rng).with_tenant(tenant, keys).unwrap();
        Self { keys, tenant, rng }
    }

    pub(crate) fn position(&mut self, kind: BlockKind) -> BlockPosition {
        BlockPosition {
            deployment: self.keys.deployment,
            block: BlockId::draw(&mut self.rng),
            kind,
            incarnation: IncarnationId::draw(&mut self.rng),
            counter: Counter(7),
            attempt: Attempt(1),
        }
    }

    pub(crate) fn names(&self) -> Names {
        Names::new(&self.keys.name)
    }

    pub(crate) fn log(kind: BlockKind) -> LogState {
        if kind.has_records() {
            LogState {
                epoch: Epoch(3),
                seq: Seq(9),
                log_size: 12,
                log_root: Hash32::from_bytes([5; 32]),
                k_floor: 1,
                ..LogState::default()
            }
        } else {
            LogState { epoch: Epoch(3), k_floor: 1, ..LogState::default() }
        }
    }

    /// A bulk block with one section of `plain`.
    pub(crate) fn bulk(&mut self, plain: &[u8], k: u8, n: u8) -> (SignedBlock, SectionInfo) {
        let position = self.position(BlockKind::Bulk);
        let mut builder = PayloadBuilder::new(max_payload(k), 0);
        builder.begin(self.tenant, KeyVersion(1), BULK_SEGMENT_LOG2).unwrap();
        builder.push(plain).unwrap();
        let sealed = builder.seal(&position, &self.keys, &mut self.rng).unwrap();
        let coded = encode(sealed.bytes, Geometry::new(k, n).unwrap(), [9; 32]).unwrap();
        let block = coded.sign(position, 0, Self::log(BlockKind::Bulk), &self.keys.identity);
        (block, sealed.sections[0].clone())
    }

    pub(crate) fn object(&mut self, block: &SignedBlock, index: u8) -> (ObjectName, Bytes) {
        let provider = PROVIDERS[usize::from(index) % PROVIDERS.len()];
        let name = self.names().shard(&address(block, provider));
        let parts = block.object(index, provider, &name, &self.keys.header, &mut self.rng).unwrap();
        (name, parts.concat().into())
    }
}

pub(crate) fn address<'a>(block: &SignedBlock, provider: &'a str) -> ShardAddress<'a> {
    let at = block.manifest().position;
    ShardAddress { provider, kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt }
}
