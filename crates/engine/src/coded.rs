//! A block on its way out: signed, with what the ledger keeps about it.

use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::block::SignedBlock;
use diaspore_block::id::Hash32;
use diaspore_block::manifest::Manifest;
use diaspore_block::name::{ObjectName, ShardAddress};
use diaspore_block::record::{BulkAdded, ChunkEntry, SectionInfo};
use diaspore_ledger::BlockFacts;
use diaspore_policy::ProviderId;

use crate::shared::Ground;

/// A signed block whose shard bodies are in memory.
#[derive(Debug)]
pub(crate) struct Coded {
    signed: SignedBlock,
    facts: Arc<BlockFacts>,
}

impl Coded {
    pub(crate) fn new(signed: SignedBlock, sections: Vec<SectionInfo>) -> Self {
        let facts = Arc::new(facts_of(signed.manifest(), signed.shard_roots(), sections));
        Self { signed, facts }
    }

    pub(crate) fn facts(&self) -> Arc<BlockFacts> {
        Arc::clone(&self.facts)
    }

    pub(crate) fn signed(&self) -> &SignedBlock {
        &self.signed
    }

    /// Name and pieces of one shard's object at one provider; the body is not copied.
    pub(crate) fn object(
        &self,
        ground: &Ground,
        shard: u8,
        provider: &ProviderId,
    ) -> Result<(ObjectName, Vec<Bytes>), diaspore_block::BlockError> {
        let name = ground.names.shard(&address_of(&self.facts, provider.as_str()));
        let pieces = self.signed.object(shard, provider.as_str(), &name, &ground.keys.header, &mut ground.rng())?;
        Ok((name, pieces.to_vec()))
    }
}

/// What the ledger keeps about a block besides where its shards are.
pub(crate) fn facts_of(manifest: &Manifest, roots: &[Hash32], sections: Vec<SectionInfo>) -> BlockFacts {
    BlockFacts {
        id: manifest.position.block,
        kind: manifest.position.kind,
        incarnation: manifest.position.incarnation,
        counter: manifest.position.counter,
        attempt: manifest.position.attempt,
        geometry: manifest.geometry,
        code: manifest.code,
        payload_len: manifest.payload_len,
        shard_len: manifest.shard_len,
        block_root: manifest.block_root,
        shard_roots: roots.to_vec(),
        manifest_hash: manifest.hash(),
        sections,
        placements: Vec::new(),
    }
}

/// What a record says about a block that is on its way; its placements come when it has its quorum.
pub(crate) fn added(facts: &BlockFacts, chunks: Vec<ChunkEntry>) -> BulkAdded {
    BulkAdded {
        block: facts.id,
        incarnation: facts.incarnation,
        counter: facts.counter,
        attempt: facts.attempt,
        geometry: facts.geometry,
        code: facts.code,
        payload_len: facts.payload_len,
        shard_len: facts.shard_len,
        block_root: facts.block_root,
        shard_roots: facts.shard_roots.clone(),
        manifest_hash: facts.manifest_hash,
        placements: Vec::new(),
        sections: facts.sections.clone(),
        chunks,
    }
}

/// Where a provider keeps its shard of a block, if it has one.
pub(crate) fn address_of<'a>(facts: &BlockFacts, provider: &'a str) -> ShardAddress<'a> {
    ShardAddress { provider, kind: facts.kind, incarnation: facts.incarnation, counter: facts.counter, attempt: facts.attempt }
}
