//! What moves together, in which order, and what has to be seen before a block counts as empty.

use diaspore_block::record::ProviderMode;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use sha2::{Digest, Sha256};

use super::*;
use crate::api::{PutOptions, PutOutcome};
use crate::blob::tests::fixture::{Fixture, body, random};
use crate::scrub::{proven_lost, seen_whole};

impl Fixture {
    async fn planned(&self, blocks: &[BlockId]) -> Vec<Move> {
        let shared = self.engine.shared();
        let roots = Roots::take(&shared).await.unwrap();
        plan(&shared, &roots, blocks).await.unwrap()
    }

    /// Chunks of a blob of the tenant's first bucket in the order of the blob, and where each lies.
    fn chunks_of(&self, tenant: TenantId, key: &[u8]) -> Vec<(ChunkId, ChunkPlace)> {
        let view = self.engine.shared().ledger.snapshot().unwrap();
        let bucket = view.bucket(tenant, "bucket").unwrap().unwrap().id;
        let refs = view.blob(bucket, key).unwrap().unwrap().content.refs;
        refs.iter().map(|chunk| (chunk.id, view.chunk(bucket, &chunk.id).unwrap().unwrap())).collect()
    }

    fn places(&self, key: &[u8]) -> Vec<(ChunkId, ChunkPlace)> {
        self.chunks_of(self.caller().tenant, key)
    }

    fn entry(&self, block: BlockId) -> BlockEntry {
        self.engine.shared().ledger.snapshot().unwrap().block(block).unwrap().unwrap()
    }

    /// Requests for the bytes of one block, by provider.
    fn gets_of(&self, entry: &BlockEntry) -> Vec<usize> {
        let shared = self.engine.shared();
        let asked = self.stores.iter().map(|store| {
            let name = shared.names.shard(&Place::of(&entry.facts).at(store.name()));
            let hash = Sha256::digest(name.as_str());
            store.trace().iter().filter(|event| event.op == Op::Get && hash.starts_with(&event.path_hash)).count()
        });
        asked.collect()
    }
}

async fn carried_out(fx: &Fixture, blocks: &[BlockId]) -> Result<Moved, Error> {
    let mut all = Moved::default();
    for group in fx.planned(blocks).await {
        let moved = carry_out(&fx.engine.shared(), group).await?;
        all.emptied.extend(moved.emptied);
        all.bytes += moved.bytes;
        all.new_blocks += moved.new_blocks;
    }
    Ok(all)
}

/// A new block belongs to one tenant and is sealed for it alone.
#[tokio::test(start_paused = true)]
async fn what_lives_moves_by_tenant_and_a_block_of_several_goes_alone() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let other = Caller { tenant: fx.engine.create_tenant("u").await.unwrap().id, principal: PrincipalId::NIL };
    fx.engine.create_bucket(&other, "bucket").await.unwrap();
    let small = |seed: u64| random(3000, seed);
    let put_other = async |key: &[u8], data: &[u8]| -> PutOutcome {
        fx.engine.put_blob(&other, "bucket", key, PutOptions::default(), body(data)).await.unwrap()
    };
    let (data, data_of_other) = (small(1), small(2));
    let (one, two) = futures::join!(fx.put(b"met", &data), put_other(b"met", &data_of_other));
    assert_eq!(one.unwrap().seq, two.seq, "they met");
    let mut own = Vec::new();
    for index in 0..=GROUP {
        let key = format!("{index}");
        fx.put(key.as_bytes(), &small(100 + index as u64)).await.unwrap();
        own.push(fx.places(key.as_bytes()).remove(0));
    }
    let mut others = Vec::new();
    for key in [b"x", b"y"] {
        put_other(key, &small(key[0].into())).await;
        others.push(fx.chunks_of(other.tenant, key).remove(0));
    }
    fx.put(b"dead", &small(3)).await.unwrap();
    let dead = fx.places(b"dead").remove(0).1.block;
    fx.gone(b"dead").await;
    fx.settle().await;
    let met = [fx.places(b"met").remove(0), fx.chunks_of(other.tenant, b"met").remove(0)];
    assert_eq!(met[0].1.block, met[1].1.block);
    let blocks: Vec<BlockId> = own[..20]
        .iter()
        .chain(&met[..1])
        .chain(&others[..1])
        .chain(&own[20..])
        .chain(&others[1..])
        .map(|(_, place)| place.block)
        .chain([dead])
        .collect();
    let moves = fx.planned(&blocks).await;
    let shown = |group: &Move| {
        let living = group.survivors.iter().filter(|(_, survivors)| !survivors.is_empty());
        let ids = |survivors: &Vec<Survivor>| survivors.iter().map(|survivor| survivor.id).collect::<BTreeSet<_>>();
        (group.blocks.clone(), living.map(|(tenant, survivors)| (*tenant, ids(survivors))).collect::<BTreeMap<_, _>>())
    };
    let expected = |tenant: TenantId, chunks: &[(ChunkId, ChunkPlace)]| {
        let (ids, blocks): (BTreeSet<_>, BTreeSet<_>) = chunks.iter().map(|(id, place)| (*id, place.block)).unzip();
        (blocks, BTreeMap::from([(tenant, ids)]))
    };
    let own_tenant = fx.caller().tenant;
    let both = BTreeMap::from([(own_tenant, BTreeSet::from([met[0].0])), (other.tenant, BTreeSet::from([met[1].0]))]);
    let mut shown: Vec<_> = moves.iter().map(shown).collect();
    let mut all = vec![
        (BTreeSet::from([met[0].1.block]), both),
        expected(own_tenant, &own[..GROUP]),
        expected(own_tenant, &own[GROUP..]),
        expected(other.tenant, &others),
        (BTreeSet::from([dead]), BTreeMap::new()),
    ];
    shown.sort();
    all.sort();
    assert_eq!(shown, all);
    let moved = carried_out(&fx, &[met[0].1.block]).await.unwrap();
    assert_eq!((moved.emptied, moved.bytes, moved.new_blocks), (vec![met[0].1.block], 6000, 2));
    for tenant in [own_tenant, other.tenant] {
        let place = fx.chunks_of(tenant, b"met").remove(0).1;
        let sections = fx.entry(place.block).facts.sections;
        assert_eq!(sections.iter().map(|section| section.tenant).collect::<Vec<_>>(), [tenant]);
    }
    let moved = carried_out(&fx, &[dead]).await.unwrap();
    assert_eq!((moved.emptied, moved.bytes, moved.new_blocks), (vec![dead], 0, 0), "nothing of it is needed");
    fx.forget();
    assert_eq!(fx.read(b"met").await.unwrap(), data);
    assert!(!shared.settlement.is_worked_on(dead));
}

/// Neighbours stay neighbours: they are read out in one go, and whoever reads them later reads them in one go.
#[tokio::test(start_paused = true)]
async fn what_moves_keeps_its_order_and_what_was_shown_is_not_read_again() {
    let fx = Fixture::start(5).await;
    let data = random(10 << 20, 11);
    fx.put(b"whole", &data).await.unwrap();
    fx.put(b"some", &data[..6 << 20]).await.unwrap();
    fx.settle().await;
    fx.gone(b"whole").await;
    let ordered = || {
        let mut places = fx.places(b"some");
        places.sort_by_key(|(_, place)| (place.block, place.section, place.offset));
        places
    };
    let before = ordered();
    let old: BTreeSet<BlockId> = before.iter().map(|(_, place)| place.block).collect();
    let entries: Vec<BlockEntry> = old.iter().map(|block| fx.entry(*block)).collect();
    let asked = || entries.iter().flat_map(|entry| fx.gets_of(entry)).sum::<usize>();
    let earlier = asked();
    let moved = carried_out(&fx, &old.iter().copied().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(moved.bytes, before.iter().map(|(_, place)| u64::from(place.stored_len)).sum::<u64>());
    let after = ordered();
    let new: BTreeSet<BlockId> = after.iter().map(|(_, place)| place.block).collect();
    assert!(new.is_disjoint(&old) && new.len() == 1 && moved.new_blocks == 1);
    assert_eq!(after.iter().map(|(id, _)| id).collect::<Vec<_>>(), before.iter().map(|(id, _)| id).collect::<Vec<_>>());
    let asked = asked() - earlier;
    assert!(before.len() > 15 && asked <= 6 * old.len(), "{asked} requests for {} chunks of {} blocks", before.len(), old.len());
    let entry = fx.entry(*new.first().unwrap());
    let read = fx.gets_of(&entry);
    assert!(read.iter().sum::<usize>() <= 6, "each shard once to prove that enough is given back, and one once more: {read:?}");
    assert_eq!(seen_whole(fx.engine.shared().ledger.snapshot().unwrap().check_of(entry.facts.id).unwrap().as_ref()).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_from_elsewhere_does_not_count_for_where_it_should_lie() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    let facts = fx.entry(fx.places(b"a")[0].1.block).facts;
    let home = |shard: usize| ProviderId::new(&facts.placements[shard].provider).unwrap();
    let shown: Shown = [(0, home(0)), (1, home(2)), (2, ProviderId::new("elsewhere").unwrap()), (4, home(4))].into();
    assert_eq!(at_home(&facts, &shown), [(0, home(0), Seen::Good), (4, home(4), Seen::Good)]);
    assert_eq!(at_home(&facts, &Shown::new()), []);
}

/// One account acknowledges and drops, another is late: the first look shows three shards of the four that prove a block.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_on_its_way_is_looked_for_once_more() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(2 << 20, 1)).await.unwrap();
    fx.settle().await;
    let old = fx.places(b"a")[0].1.block;
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(2), jitter: Duration::ZERO };
    fx.stores[3].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    fx.stores[4].set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put])));
    let error = carried_out(&fx, &[old]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DataUnavailable, "one of all five could not be read back: {error:?}");
    let new = fx.places(b"a")[0].1.block;
    assert_ne!(new, old, "four that show it are enough to read from it");
    // Two that drop: it is not proven, and taken back.
    fx.stores[4].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    let error = carried_out(&fx, &[new]).await.unwrap_err();
    assert_eq!((error.kind, fx.places(b"a")[0].1.block), (ErrorKind::TooFewDomains, new));
    let names = fx.stores[0].objects().iter().filter(|(path, _)| path.find('/') == Some(2)).count();
    assert_eq!(names, fx.engine.shared().ledger.snapshot().unwrap().blocks(None, 100).unwrap().len(), "it lies nowhere");
}

/// What was written before something failed is part of the log: it would be garbage otherwise.
#[tokio::test(start_paused = true)]
async fn what_moved_before_another_block_could_not_be_read_has_moved() {
    let fx = Fixture::start(5).await;
    for key in [b"a", b"b"] {
        fx.put(key, &random(2 << 20, key[0].into())).await.unwrap();
    }
    fx.settle().await;
    let block = |key: &[u8]| fx.places(key)[0].1.block;
    let (first, last) = if block(b"a") < block(b"b") { (b"a", b"b") } else { (b"b", b"a") };
    let (moves, stays) = (block(first), block(last));
    let shared = fx.engine.shared();
    let entry = fx.entry(stays);
    for store in &fx.stores[..3] {
        store.tamper(shared.names.shard(&Place::of(&entry.facts).at(store.name())).as_str(), None);
    }
    fx.forget();
    let groups = fx.planned(&[stays, moves]).await;
    assert_eq!(groups.len(), 1);
    let error = carried_out(&fx, &[stays, moves]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DataUnavailable, "{error:?}");
    assert_ne!(block(first), moves);
    assert_eq!(block(last), stays);
    fx.forget();
    assert_eq!(fx.read(first).await.unwrap(), random(2 << 20, first[0].into()));
}

/// Whole, from where the map says, once; what is missing is noted and repaired, and who is being left is not asked.
#[tokio::test(start_paused = true)]
async fn a_block_is_read_back_shard_by_shard() {
    let fx = Fixture::start(6).await;
    let shared = fx.engine.shared();
    fx.put(b"a", &random(2 << 20, 1)).await.unwrap();
    fx.settle().await;
    let entry = fx.entry(fx.places(b"a")[0].1.block);
    let homes: Vec<usize> = entry.facts.placements.iter().map(|place| place.provider[1..].parse().unwrap()).collect();
    let check = || shared.ledger.snapshot().unwrap().check_of(entry.facts.id).unwrap();
    let asked = || homes.iter().map(|home| fx.gets_of(&entry)[*home]).collect::<Vec<_>>();
    assert!(seen_whole(check().as_ref()).is_empty());
    let leave = async |at: usize, mode| {
        let id = ProviderId::new(fx.stores[homes[at]].name()).unwrap();
        crate::modes::set(&shared, PrincipalId::NIL, &id, mode, "a test").await.unwrap();
    };
    let silent = || FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Get, Op::Head]));
    leave(4, ProviderMode::Draining).await;
    fx.stores[homes[3]].set_faults(silent());
    let before = asked();
    let error = read_back(&shared, &entry).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::DataUnavailable, "1 of 5 shards of a new block could not be read back"));
    let after = asked();
    assert_eq!([0, 1, 2, 4].map(|at| after[at] - before[at]), [1, 1, 1, 0]);
    assert_eq!(seen_whole(check().as_ref()), BTreeSet::from([0, 1, 2]));
    fx.stores[homes[3]].set_faults(FaultPlan::honest());
    let before = asked();
    read_back(&shared, &entry).await.unwrap();
    let after = asked();
    assert_eq!([0, 1, 2, 3, 4].map(|at| after[at] - before[at]), [0, 0, 0, 1, 0], "the others are known to be whole");
    read_back(&shared, &entry).await.unwrap();
    assert_eq!(asked(), after);
    // It is not left any more, and does not have what it should.
    leave(4, ProviderMode::Active).await;
    let path = shared.names.shard(&Place::of(&entry.facts).at(fx.stores[homes[4]].name()));
    fx.stores[homes[4]].tamper(path.as_str(), None);
    assert!(read_back(&shared, &entry).await.is_err());
    assert_eq!((proven_lost(check().as_ref()), shared.settlement.is_calm(entry.facts.id)), (1, false));
}
