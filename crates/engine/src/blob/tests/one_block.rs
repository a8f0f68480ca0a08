//! One block of data, and what its accounts show of it.

use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::manifest::BlockKind;
use diaspore_ledger::BlockEntry;
use diaspore_policy::ProviderId;
use diaspore_testkit::{HostileStore, Op};

use super::fixture::{Fixture, random};
use crate::coded::address_of;
use crate::settle::Claim;
use crate::shared::Shared;

/// A settled block that lies at five of so many accounts.
pub(crate) struct One {
    pub(crate) fx: Fixture,
    pub(crate) shared: Arc<Shared>,
    pub(crate) entry: BlockEntry,
    /// Who has it, by shard.
    pub(crate) homes: Vec<ProviderId>,
    /// Who has nothing of it.
    pub(crate) free: Vec<ProviderId>,
    /// While it is held nobody else works on the block.
    pub(crate) claim: Option<Claim>,
}

impl One {
    pub(crate) async fn at(providers: usize) -> Self {
        let fx = Fixture::start(providers).await;
        fx.put(b"one", &random(2 << 20, 1)).await.unwrap();
        fx.settle().await;
        let shared = fx.engine.shared();
        let blocks = shared.ledger.snapshot().unwrap().blocks(None, 100).unwrap();
        let entry = blocks.into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap();
        let mut placements = entry.facts.placements.clone();
        placements.sort_by_key(|place| place.shard);
        let homes: Vec<_> = placements.iter().map(|place| ProviderId::new(&place.provider).unwrap()).collect();
        let ids = shared.fleet.providers().iter().map(|spec| spec.id.clone());
        let free = ids.filter(|id| !homes.contains(id)).collect();
        Self { fx, shared, entry, homes, free, claim: None }
    }

    pub(crate) fn store(&self, at: &ProviderId) -> &HostileStore {
        self.fx.stores.iter().find(|store| store.name() == at.as_str()).unwrap()
    }

    pub(crate) fn name(&self, at: &ProviderId) -> String {
        self.shared.names.shard(&address_of(&self.entry.facts, at.as_str())).as_str().to_owned()
    }

    pub(crate) fn shows(&self, at: &ProviderId) -> Option<Bytes> {
        self.store(at).peek(&self.name(at))
    }

    pub(crate) fn show(&self, at: &ProviderId, bytes: Option<Bytes>) {
        self.store(at).tamper(&self.name(at), bytes);
    }

    pub(crate) fn asked(&self, op: Op) -> u64 {
        self.fx.stores.iter().map(|store| store.requests(op)).sum()
    }
}
