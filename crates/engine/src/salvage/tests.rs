//! Rescue over in-memory providers, with more lost than the class survives.

use std::collections::BTreeMap;
use std::sync::Arc;

use diaspore_block::id::{PrincipalId, TenantId, Timestamp};
use diaspore_block::key::{Keyring, TenantKeys};
use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
use diaspore_policy::{Profile, ProviderId, ProviderSpec};
use diaspore_provider::{Fleet, FleetOptions};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::api::{BodyStream, Caller, PutOptions};
use crate::config::Mode;
use crate::engine::Engine;
use crate::world::{RuntimeClock, SeededEntropy};

/// Six providers, 3-of-6.
struct World {
    stores: Vec<Arc<InMemory>>,
    keys: Arc<Keyring>,
    tenant: TenantId,
}

impl World {
    fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let tenant = TenantId::draw(&mut rng);
        let keys = Keyring::create(&mut rng).with_tenant(tenant, TenantKeys::draw(&mut rng)).unwrap();
        Self { stores: (0..6).map(|_| Arc::new(InMemory::new())).collect(), keys: Arc::new(keys), tenant }
    }

    fn fleet(&self) -> Fleet {
        let store = |(at, store): (usize, &Arc<InMemory>)| {
            (ProviderSpec::memory(ProviderId::new(&format!("p{at}")).unwrap()), Arc::clone(store) as Arc<dyn ObjectStore>)
        };
        Fleet::from_stores(self.stores.iter().enumerate().map(store).collect(), FleetOptions::default())
    }

    fn parts(&self, seed: u64) -> (EngineConfig, Ledger, Arc<RuntimeClock>, Arc<SeededEntropy>) {
        let rng = Box::new(StdRng::seed_from_u64(1000 + seed));
        let ledger = Ledger::open(MemoryMedium::new(), &self.keys.ledger, OpenMode::ReadWrite, rng).unwrap();
        let config = EngineConfig::new(Profile { replication_factor: 4, max_cloud_providers: 6, ..Profile::default() });
        let clock = Arc::new(RuntimeClock::starting_at(Timestamp(1_700_000_000_000)));
        (config, ledger, clock, Arc::new(SeededEntropy::new(seed)))
    }

    async fn start(&self, seed: u64, mode: Mode) -> Engine {
        let (mut config, ledger, clock, entropy) = self.parts(seed);
        config.mode = mode;
        Engine::start(config, Arc::clone(&self.keys), self.fleet(), ledger, clock, entropy).await.unwrap()
    }

    /// A service with a small blob, a large one and a small one again, in that order, settled and gone. One incarnation.
    async fn written(&self) {
        let engine = self.start(1, Mode::Start).await;
        engine.create_tenant("acme").await.unwrap();
        engine.create_bucket(&self.caller(), "photos").await.unwrap();
        for (key, len) in BLOBS {
            put(&engine, &self.caller(), key, len).await;
        }
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        engine.abort();
    }

    async fn salvage(&self) -> Salvage {
        let before = self.everything().await;
        let (config, ledger, clock, entropy) = self.parts(7);
        let salvage = Salvage::begin(config, Arc::clone(&self.keys), self.fleet(), ledger, clock, entropy).await.unwrap();
        assert_eq!(self.everything().await, before, "nothing is written to any provider, and nothing deleted");
        salvage
    }

    async fn everything(&self) -> Vec<BTreeMap<String, usize>> {
        let mut all = Vec::new();
        for store in &self.stores {
            let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
            all.push(listed.into_iter().map(|meta| (meta.location.to_string(), usize::try_from(meta.size).unwrap())).collect());
        }
        all
    }

    /// Four of six lose the objects for which `goes` holds.
    async fn lose(&self, goes: impl Fn(&str, usize) -> bool + Send + Sync) -> usize {
        let mut lost = 0;
        for (store, objects) in self.stores.iter().zip(self.everything().await).take(4) {
            for (path, _) in objects.iter().filter(|(path, len)| goes(path, **len)) {
                store.delete(&path.as_str().into()).await.unwrap();
                lost += 1;
            }
        }
        lost
    }

    /// Four of six lose the commit block at this counter of the first incarnation.
    async fn lose_commit(&self, counter: u64) {
        let names = diaspore_block::name::Names::new(&self.keys.name);
        let incarnation = self.first_incarnation().await;
        let gone: Vec<String> = (0..4)
            .map(|at| names.commit(&format!("p{at}"), incarnation, diaspore_block::id::Counter(counter), diaspore_block::id::Attempt(0)))
            .map(|name| name.as_str().to_owned())
            .collect();
        assert_eq!(self.lose(|path, _| gone.iter().any(|name| name == path)).await, 4);
    }

    async fn first_incarnation(&self) -> diaspore_block::id::IncarnationId {
        let (config, ledger, clock, entropy) = self.parts(9);
        let ground = Ground::new(config, Arc::clone(&self.keys), self.fleet(), ledger, clock, entropy);
        let book = ClaimBook::default();
        book.survey(&ground, None).await;
        book.ranks().first().unwrap().1
    }

    fn caller(&self) -> Caller {
        Caller { tenant: self.tenant, principal: PrincipalId::NIL }
    }
}

const BLOBS: [(&str, usize); 4] = [("a/first", 3000), ("large", 1_300_000), ("second", 2000), ("third", 1000)];

fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn put(engine: &Engine, caller: &Caller, key: &str, len: usize) {
    let body: BodyStream = Box::pin(futures::stream::once(std::future::ready(Ok(noise(len, len).into()))));
    let options = PutOptions { content_type: Some("x/y".into()), ..PutOptions::default() };
    engine.put_blob(caller, "photos", key.as_bytes(), options, body).await.unwrap();
}

/// Keys that are rebuilt byte by byte, and those that are not.
async fn rebuilt(salvage: &Salvage) -> (Vec<String>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut next = Some(SalvageCursor::default());
    while let Some(from) = next {
        let (blobs, behind) = salvage.page(from).unwrap();
        next = behind;
        for blob in blobs {
            let key = String::from_utf8(blob.key.clone()).unwrap();
            let len = usize::try_from(blob.size).unwrap();
            match read_all(salvage, &blob).await {
                Some(bytes) if bytes == noise(len, len) => good.push(key),
                Some(_) => panic!("{key} has wrong bytes"),
                None => {
                    assert!(!salvage.shortfalls(&blob).await.unwrap().is_empty(), "{key}: it says why");
                    bad.push(key);
                }
            }
        }
    }
    (good, bad)
}

async fn read_all(salvage: &Salvage, blob: &SalvageBlob) -> Option<Vec<u8>> {
    let pieces: Vec<_> = salvage.open(blob).await.ok()?.collect().await;
    let pieces: Result<Vec<_>, _> = pieces.into_iter().collect();
    Some(pieces.ok()?.concat())
}

#[tokio::test(start_paused = true)]
async fn with_n_minus_k_gone_everything_is_rebuilt() {
    let world = World::new();
    world.written().await;
    for at in [0, 2, 5] {
        for path in world.everything().await[at].keys() {
            world.stores[at].delete(&path.as_str().into()).await.unwrap();
        }
    }
    let salvage = world.salvage().await;
    assert!(salvage.salvaged().is_whole(), "{:?}", salvage.salvaged());
    assert_eq!(rebuilt(&salvage).await.0, ["a/first", "large", "second", "third"]);
    let (blobs, bytes) = salvage.totals().unwrap();
    assert_eq!((blobs, bytes), (4, 1_306_000));
    let (blob, _) = salvage.page(SalvageCursor::default()).unwrap();
    assert_eq!((blob[0].tenant.as_str(), blob[0].bucket.as_str(), blob[0].content_type.as_deref()), ("acme", "photos", Some("x/y")));
    assert!(salvage.has_sibling(&blob[0], b"large").unwrap() && !salvage.has_sibling(&blob[0], b"a").unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_lost_bulk_block_costs_its_blob_alone() {
    let world = World::new();
    world.written().await;
    assert!(world.lose(|_, len| len > 100_000).await >= 4);
    let salvage = world.salvage().await;
    assert!(salvage.salvaged().is_whole());
    assert_eq!(rebuilt(&salvage).await, (vec!["a/first".into(), "second".into(), "third".into()], vec!["large".into()]));
}

/// Counter 0 is the decision, then come tenant, bucket and the four blobs, each in a block of its own.
#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_hole_is_taken_up() {
    let world = World::new();
    world.written().await;
    world.lose_commit(3).await;
    let salvage = world.salvage().await;
    assert_eq!(salvage.salvaged().holes, [(4, 4)], "{:?}", salvage.salvaged());
    assert_eq!(rebuilt(&salvage).await, (vec!["large".into(), "second".into(), "third".into()], Vec::new()));
}

/// The hole holds the creation of the bucket: its blobs are found under its id.
#[tokio::test(start_paused = true)]
async fn a_bucket_without_a_name_goes_by_its_id() {
    let world = World::new();
    world.written().await;
    world.lose_commit(1).await;
    world.lose_commit(2).await;
    let salvage = world.salvage().await;
    assert_eq!((salvage.salvaged().holes.as_slice(), salvage.salvaged().nameless_buckets), ([(2, 3)].as_slice(), 1));
    assert_eq!(rebuilt(&salvage).await.0.len(), 4);
    let (blobs, _) = salvage.page(SalvageCursor::default()).unwrap();
    assert!(blobs[0].bucket.starts_with("bucket-") && blobs[0].tenant.starts_with("tenant-"), "{blobs:?}");
}

/// A decision that nobody can read any more hides nothing of what its incarnation wrote.
#[tokio::test(start_paused = true)]
async fn a_lost_decision_hides_nothing() {
    let world = World::new();
    world.written().await;
    world.lose_commit(0).await;
    let salvage = world.salvage().await;
    assert_eq!(salvage.salvaged().holes, [(1, 1)]);
    assert_eq!(rebuilt(&salvage).await.0.len(), 4);
}

/// The log is gone and the bulk block is there: it is counted, and nothing is said about what it holds.
#[tokio::test(start_paused = true)]
async fn blocks_without_a_log_are_counted() {
    let world = World::new();
    world.written().await;
    world.lose(|_, len| len < 100_000).await;
    let salvage = world.salvage().await;
    let salvaged = salvage.salvaged();
    assert_eq!(rebuilt(&salvage).await, (Vec::new(), Vec::new()));
    assert!(!salvaged.is_whole() && salvaged.holes.first() == Some(&(1, salvaged.last)), "{salvaged:?}");
    assert_eq!((salvaged.unnamed_blocks, salvaged.unnamed_rebuildable), (1, 1), "{salvaged:?}");
}
