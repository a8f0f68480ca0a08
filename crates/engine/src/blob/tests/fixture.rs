//! A whole engine in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::id::{PrincipalId, Seq, Timestamp};
use diaspore_block::key::{Keyring, TenantKeys};
use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
use diaspore_policy::{Profile, ProviderSpec};
use diaspore_provider::{Fleet, FleetOptions, ProviderId};
use diaspore_testkit::{HostileStore, Op};
use futures::TryStreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_chacha::ChaCha12Rng;

use crate::Engine;
use crate::api::{
    BlobInfo, BlobStream, BodyStream, ByteRange, Caller, Error, GetOptions, GetOutcome, Idempotency, ListOptions, ListPage, Precondition,
    PutOptions, PutOutcome,
};
use crate::config::{EngineConfig, Mode};
use crate::history::History;
use crate::world::{Draw, RuntimeClock, SeededEntropy};

pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    pub(crate) stores: Vec<HostileStore>,
    caller: Caller,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) disk: MemoryMedium,
    clock: Arc<RuntimeClock>,
    restarts: u64,
    /// When the log is compacted by itself, if not as a rule.
    compacted_after: Option<u64>,
}

pub(crate) fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

pub(crate) fn compressible(len: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(len + 64);
    let mut line = 0_u64;
    while data.len() < len {
        data.extend_from_slice(
            format!("{{\"line\": {line}, \"hash\": \"{:016x}\"}}\n", line.wrapping_mul(0x9e37_79b9_7f4a_7c15)).as_bytes(),
        );
        line += 1;
    }
    data.truncate(len);
    data
}

pub(crate) fn body(data: &[u8]) -> BodyStream {
    let pieces: Vec<_> = data.chunks(300_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(futures::stream::iter(pieces))
}

pub(crate) async fn whole(body: BlobStream) -> Result<Vec<u8>, Error> {
    body.try_fold(Vec::new(), async |mut all, piece| {
        all.extend_from_slice(&piece);
        Ok(all)
    })
    .await
}

impl Fixture {
    pub(crate) async fn start(providers: usize) -> Self {
        Self::start_with(providers, None).await
    }

    /// One that compacts its log when it has grown by so many records.
    pub(crate) async fn compacting_after(providers: usize, records: u64) -> Self {
        Self::start_with(providers, Some(records)).await
    }

    async fn start_with(providers: usize, compacted_after: Option<u64>) -> Self {
        let entropy = Arc::new(SeededEntropy::new(42));
        let mut rng = Draw(entropy.as_ref());
        let mut keys = Keyring::create(&mut rng);
        for _ in 0..2 {
            let tenant = diaspore_block::id::TenantId::draw(&mut rng);
            let tenant_keys = TenantKeys::draw(&mut rng);
            keys = keys.with_tenant(tenant, tenant_keys).unwrap();
        }
        let stores: Vec<_> = (0..providers).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at as u64))).collect();
        let disk = MemoryMedium::new();
        let clock = Arc::new(RuntimeClock::starting_at(Timestamp(1_700_000_000_000)));
        let engine = Self::engine(&keys, &stores, &disk, &clock, (entropy, Mode::Start, History::default(), compacted_after)).await;
        let tenant = engine.create_tenant("t").await.unwrap().id;
        let caller = Caller { tenant, principal: PrincipalId::NIL };
        engine.create_bucket(&caller, "bucket").await.unwrap();
        Self { engine, stores, caller, keys: Arc::new(keys), disk, clock, restarts: 0, compacted_after }
    }

    async fn engine(
        keys: &Keyring,
        stores: &[HostileStore],
        disk: &MemoryMedium,
        clock: &Arc<RuntimeClock>,
        (entropy, mode, history, compacted_after): (Arc<SeededEntropy>, Mode, History, Option<u64>),
    ) -> Engine {
        let members = stores.iter().map(|store| {
            let spec = ProviderSpec::memory(ProviderId::new(store.name()).unwrap());
            (spec, Arc::new(store.clone()) as _)
        });
        let fleet = Fleet::from_stores(members.collect(), FleetOptions::default());
        let ledger = Ledger::open(disk.clone(), &keys.ledger, OpenMode::ReadWrite, Box::new(ChaCha12Rng::seed_from_u64(1))).unwrap();
        let profile = Profile { linger_ms: 0, ..Profile::default() };
        let keys = Arc::new(keys.duplicate().unwrap());
        let mut config = EngineConfig { mode, history, ..EngineConfig::new(profile) };
        config.checkpoint_after = compacted_after.unwrap_or(config.checkpoint_after);
        Engine::start(config, keys, fleet, ledger, Arc::clone(clock) as _, entropy).await.unwrap()
    }

    /// The disk is gone; the service is rebuilt from the providers.
    pub(crate) async fn recover(self) -> Self {
        self.engine.abort();
        let disk = MemoryMedium::new();
        let mode = (Arc::new(SeededEntropy::new(44)), Mode::Recover { declare_lost: Vec::new() }, History::default(), self.compacted_after);
        let engine = Self::engine(&self.keys, &self.stores, &disk, &self.clock, mode).await;
        Self { engine, disk, ..self }
    }

    /// The process ends without a word and starts again on what its disk had synced.
    pub(crate) async fn restart(self) -> Self {
        self.engine.abort();
        let disk = self.disk.crash();
        let entropy = Arc::new(SeededEntropy::new(43 + 1000 * self.restarts));
        let mode = (entropy, Mode::Start, self.engine.history(), self.compacted_after);
        let engine = Self::engine(&self.keys, &self.stores, &disk, &self.clock, mode).await;
        let restarts = self.restarts + 1;
        Self { engine, disk, restarts, ..self }
    }

    pub(crate) async fn put(&self, key: &[u8], data: &[u8]) -> Result<PutOutcome, Error> {
        self.put_with(key, data, PutOptions::default()).await
    }

    pub(crate) async fn put_with(&self, key: &[u8], data: &[u8], options: PutOptions) -> Result<PutOutcome, Error> {
        self.put_stream(key, options, body(data)).await
    }

    pub(crate) async fn put_stream(&self, key: &[u8], options: PutOptions, body: BodyStream) -> Result<PutOutcome, Error> {
        self.engine.put_blob(&self.caller, "bucket", key, options, body).await
    }

    pub(crate) async fn engine_get(&self, key: &[u8], options: &GetOptions) -> Result<GetOutcome, Error> {
        self.engine.get_blob(&self.caller, "bucket", key, options).await
    }

    pub(crate) async fn open(&self, key: &[u8], range: Option<ByteRange>) -> Result<GetOutcome, Error> {
        self.engine_get(key, &GetOptions { range, version: None }).await
    }

    pub(crate) async fn read(&self, key: &[u8]) -> Result<Vec<u8>, Error> {
        whole(self.open(key, None).await?.body).await
    }

    pub(crate) async fn range(&self, key: &[u8], range: ByteRange) -> Result<Vec<u8>, Error> {
        whole(self.open(key, Some(range)).await?.body).await
    }

    pub(crate) async fn head(&self, key: &[u8]) -> Result<BlobInfo, Error> {
        self.engine.head_blob(&self.caller, "bucket", key, &GetOptions::default()).await
    }

    pub(crate) async fn delete(&self, key: &[u8], condition: Precondition, token: Option<Idempotency>) -> Result<Seq, Error> {
        self.engine.delete_blob(&self.caller, "bucket", key, condition, token).await
    }

    pub(crate) async fn list(&self, options: &ListOptions) -> Result<ListPage, Error> {
        self.engine.list_blobs(&self.caller, "bucket", options).await
    }

    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    pub(crate) async fn settle(&self) {
        let report = self.engine.settle_wait(Duration::from_mins(2)).await.unwrap();
        assert_eq!(report.unsettled_blocks, 0);
    }

    /// Empties the memory tier, so that reads reach the providers.
    pub(crate) fn forget(&self) {
        self.engine.shared().data.cache.clear();
        self.engine.shared().data.leaves.clear();
    }

    /// Providers that are known to have given wrong bytes lately.
    pub(crate) fn liars(&self) -> Vec<usize> {
        let fleet = &self.engine.shared().fleet;
        let lies = |store: &HostileStore| fleet.health(&ProviderId::new(store.name()).unwrap()).is_some_and(|health| health.lying);
        (0..self.stores.len()).filter(|index| lies(&self.stores[*index])).collect()
    }

    pub(crate) fn gets(&self) -> u64 {
        self.stores.iter().map(|store| store.requests(Op::Get)).sum()
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stores.iter().flat_map(HostileStore::objects).map(|(_, bytes)| bytes.len() as u64).sum()
    }
}
