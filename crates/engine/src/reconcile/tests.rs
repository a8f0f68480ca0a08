//! Starts over a fleet of in-memory stores, with a paused clock.

use std::sync::Arc;

use diaspore_block::claim::Claim;
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Epoch, IncarnationId, PrincipalId, TenantId, Timestamp};
use diaspore_block::key::{Keyring, TenantKeys};
use diaspore_block::name::Names;
use diaspore_block::record::RecordKind;
use diaspore_ledger::{JournalEntry, Ledger, MemoryMedium, OpenMode};
use diaspore_policy::{Profile, ProviderSpec};
use diaspore_provider::{Fleet, FleetOptions};
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_chacha::ChaCha12Rng;

use crate::api::{Caller, ErrorKind};
use crate::config::{EngineConfig, Mode};
use crate::engine::Engine;
use crate::world::{RuntimeClock, SeededEntropy};

pub(super) struct World {
    pub(super) stores: Vec<Arc<InMemory>>,
    /// When there are any, they stand in for `stores`.
    pub(super) hostile: Vec<HostileStore>,
    pub(super) keys: Arc<Keyring>,
    tenant: TenantId,
    pub(super) seed: u64,
    /// What the next recovery accepts.
    accept_loss: Option<crate::config::AcceptLoss>,
    /// Unsettled blocks that a start takes up at once.
    open_blocks: usize,
}

impl World {
    pub(super) fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let tenant = TenantId::draw(&mut rng);
        let keys = Keyring::create(&mut rng).with_tenant(tenant, TenantKeys::draw(&mut rng)).unwrap();
        Self {
            stores: (0..6).map(|_| Arc::new(InMemory::new())).collect(),
            hostile: Vec::new(),
            keys: Arc::new(keys),
            tenant,
            seed: 1,
            accept_loss: None,
            open_blocks: 1000,
        }
    }

    pub(super) fn fleet(&self) -> Fleet {
        if !self.hostile.is_empty() {
            let store = |store: &HostileStore| {
                let id = diaspore_policy::ProviderId::new(store.name()).unwrap();
                (ProviderSpec::memory(id), Arc::new(store.clone()) as Arc<dyn ObjectStore>)
            };
            return Fleet::from_stores(self.hostile.iter().map(store).collect(), FleetOptions::default());
        }
        let store = |(at, store): (usize, &Arc<InMemory>)| {
            (ProviderSpec::memory(diaspore_policy::ProviderId::new(&format!("p{at}")).unwrap()), Arc::clone(store) as Arc<dyn ObjectStore>)
        };
        Fleet::from_stores(self.stores.iter().enumerate().map(store).collect(), FleetOptions::default())
    }

    pub(super) async fn start(&mut self, disk: &MemoryMedium, mode: Mode) -> Result<Engine, crate::api::Error> {
        self.seed += 1;
        let rng = Box::new(StdRng::seed_from_u64(1000 + self.seed));
        let ledger = Ledger::open(disk.clone(), &self.keys.ledger, OpenMode::ReadWrite, rng).unwrap();
        // 3-of-6.
        let profile = Profile { replication_factor: 4, max_cloud_providers: 6, ..Profile::default() };
        let mut config = EngineConfig::new(profile);
        config.mode = mode;
        config.accept_loss = self.accept_loss.clone();
        config.limits.open_blocks = self.open_blocks;
        let clock = Arc::new(RuntimeClock::starting_at(Timestamp(1_700_000_000_000)));
        Engine::start(config, Arc::clone(&self.keys), self.fleet(), ledger, clock, Arc::new(SeededEntropy::new(self.seed))).await
    }

    pub(super) async fn wipe(&self, provider: usize) {
        use futures::StreamExt;
        let store = &self.stores[provider];
        let names: Vec<_> = store.list(None).map(|meta| meta.unwrap().location).collect().await;
        for name in names {
            store.delete(&name).await.unwrap();
        }
    }

    async fn spoil(&self, provider: usize) {
        use futures::StreamExt;
        let store = &self.stores[provider];
        let names: Vec<_> = store.list(None).map(|meta| meta.unwrap().location).collect().await;
        for name in names {
            let mut bytes = store.get(&name).await.unwrap().bytes().await.unwrap().to_vec();
            bytes[100] ^= 1;
            store.put(&name, bytes.into()).await.unwrap();
        }
    }

    /// A claim of another life.
    fn claim(&self, epoch: u64, incarnation: IncarnationId) -> Claim {
        Claim {
            deployment: self.keys.deployment,
            epoch: Epoch(epoch),
            incarnation,
            started: Timestamp(1),
            lease_ms: 0,
            claim_quorum: 4,
            claims_seen: Vec::new(),
            providers: (0..6).map(|at| format!("p{at}")).collect(),
            geometry: Geometry::new(3, 6).unwrap(),
            k_floor: 3,
            window: 4,
        }
    }

    /// Puts a claim at every provider.
    async fn place(&self, claim: &Claim) {
        let mut rng = StdRng::seed_from_u64(3);
        for (at, store) in self.stores.iter().enumerate() {
            let provider = format!("p{at}");
            let name = Names::new(&self.keys.name).claim(&provider, claim.incarnation, claim.epoch);
            let sealed = claim.seal(&self.keys.head, &self.keys.identity, (&provider, &name), &mut rng).unwrap();
            match self.hostile.get(at) {
                Some(hostile) => hostile.tamper(name.as_str(), Some(sealed.into())),
                None => drop(store.put(&name.as_str().into(), sealed.into()).await.unwrap()),
            }
        }
    }

    fn caller(&self) -> Caller {
        Caller { tenant: self.tenant, principal: PrincipalId::NIL }
    }
}

pub(super) async fn fill(engine: &Engine, world: &World, buckets: std::ops::Range<u32>) {
    if engine.tenant("acme").await.unwrap().is_none() {
        assert_eq!(engine.create_tenant("acme").await.unwrap().id, world.tenant);
    }
    for at in buckets {
        engine.create_bucket(&world.caller(), &format!("bucket-{at}")).await.unwrap();
    }
}

pub(super) async fn count(engine: &Engine, world: &World) -> usize {
    engine.list_buckets(&world.caller()).await.unwrap().len()
}

#[expect(clippy::needless_pass_by_value, reason = "a crashed engine is of no further use")]
pub(super) fn crash(engine: Engine) {
    engine.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..5).await;
    let checkpoint = engine.checkpoint().unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 5);
    assert_ne!(engine.checkpoint().unwrap(), checkpoint, "the decision and the stop are in the log");
    fill(&engine, &world, 5..6).await;
    assert_eq!(engine.status().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_disks_schema_is_put_into_the_log_once() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let rng = Box::new(StdRng::seed_from_u64(5));
    let ledger = Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, rng).unwrap();
    // What opening an old store notes, once its plate is new.
    ledger.append(JournalEntry::Migrated { from: 1, to: 2 }).unwrap();
    drop(ledger);
    for _ in 0..2 {
        let engine = world.start(&disk, Mode::Start).await.unwrap();
        let view = engine.shared().ledger.snapshot().unwrap();
        let migrations = view.migrations().unwrap();
        assert_eq!(migrations.len(), 1);
        assert!(migrations[0].recorded.is_some());
        assert_eq!(view.totals().unwrap().records_of(RecordKind::SchemaMigrated), 1);
        drop(view);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_older_than_the_providers_catches_up_and_forks_nothing() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..5).await;
    let mut backup = engine.backup().unwrap();
    let mut bytes = Vec::new();
    let mut later = 5;
    while let Some(piece) = backup.piece().await.unwrap() {
        bytes.extend_from_slice(&piece);
        // Beside the copy the service goes on.
        fill(&engine, &world, later..later + 1).await;
        later += 1;
    }
    fill(&engine, &world, later..20).await;
    assert_eq!(engine.shared().ledger.snapshot().unwrap().totals().unwrap().records_of(RecordKind::BackupExported), 1);
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let restored = MemoryMedium::new();
    let rng = Box::new(StdRng::seed_from_u64(6));
    let head = Ledger::restore(restored.clone(), &world.keys.ledger, rng, &mut bytes.as_slice()).unwrap();
    assert!(head.applied.0 >= 6);
    let engine = world.start(&restored, Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 20, "what was stored after the backup comes from the providers");
    assert_eq!(engine.status().epoch, 2);
    fill(&engine, &world, 20..21).await;
    assert!(engine.integrity().unwrap().is_sound());
    // The first machine, should it come back, finds the newer writer's log and goes on behind it.
    engine.shutdown().await.unwrap();
    let engine = world.start(&disk.crash(), Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 21);
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_needs_permission_and_then_gets_everything() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..12).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let refused = world.start(&MemoryMedium::new(), Mode::Start).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RefusedState, "{refused}");
    let engine = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&engine, &world).await, 12);
    fill(&engine, &world, 12..13).await;
}

#[tokio::test(start_paused = true)]
async fn one_provider_lost_and_one_lying_lose_nothing_settled() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..6).await;
    let report = engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    assert_eq!(report.unsettled_blocks, 0);
    crash(engine);
    world.wipe(1).await;
    world.spoil(4).await;
    let engine = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&engine, &world).await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_fences_the_first() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let first = world.start(&disk, Mode::Start).await.unwrap();
    fill(&first, &world, 0..2).await;
    let second = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&second, &world).await, 2);
    // The first one's lease ran out while the second waited: its next release looks and finds the higher claim.
    let late = first.create_bucket(&world.caller(), "too-late").await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::OutcomeUnknown);
    assert!(first.stopped().is_some());
    let after = first.create_bucket(&world.caller(), "even-later").await.unwrap_err();
    assert_eq!(after.kind, ErrorKind::RefusedState);
    fill(&second, &world, 2..3).await;
    assert_eq!(count(&second, &world).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_disk_keeps_what_was_acknowledged() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..7).await;
    let after_power_loss = disk.crash();
    crash(engine);
    let engine = world.start(&after_power_loss, Mode::Start).await.unwrap();
    assert_eq!(count(&engine, &world).await, 7);
}

/// Stops a writer after every number of scheduler steps: whatever it had acknowledged is there afterwards, and what the first
/// start decides about the rest the second one repeats.
async fn crash_after(steps: usize, empty_disk: bool) -> usize {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..1).await;
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::from(["bucket-0".to_owned()])));
    let writing = {
        let (engine, caller, acknowledged) = (engine.clone(), world.caller(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for at in 1..20 {
                let name = format!("bucket-{at}");
                if engine.create_bucket(&caller, &name).await.is_ok() {
                    acknowledged.lock().unwrap().push(name);
                }
            }
        })
    };
    for _ in 0..steps {
        tokio::task::yield_now().await;
    }
    let (left, promised) = (disk.crash(), acknowledged.lock().unwrap().clone());
    writing.abort();
    crash(engine);
    if empty_disk {
        // Quorum survives the disk plus one domain.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        world.wipe(steps % 6).await;
    }
    let (disk, mode) = if empty_disk { (MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }) } else { (left, Mode::Start) };
    let engine = world.start(&disk, mode).await.unwrap();
    let names = |buckets: Vec<crate::api::BucketInfo>| buckets.into_iter().map(|bucket| bucket.name).collect::<Vec<_>>();
    let decided = names(engine.list_buckets(&world.caller()).await.unwrap());
    for name in &promised {
        assert!(decided.contains(name), "{name} was acknowledged before the crash after {steps} steps");
    }
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    assert_eq!(names(engine.list_buckets(&world.caller()).await.unwrap()), decided, "decided once, after {steps} steps");
    promised.len()
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_steps_loses_nothing_acknowledged() {
    let mut promised = 0;
    for steps in 0..40 {
        promised = promised.max(crash_after(steps, false).await);
    }
    assert!(promised > 2, "the crashes fell into the middle of the work");
}

#[tokio::test(start_paused = true)]
async fn the_same_when_the_disk_is_gone_too() {
    let mut promised = 0;
    for steps in (0..60).step_by(3) {
        promised = promised.max(crash_after(steps, true).await);
    }
    assert!(promised > 2, "the crashes fell into the middle of the work");
}

#[tokio::test(start_paused = true)]
async fn with_n_minus_k_domains_gone_everything_settled_can_be_read() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..6).await;
    assert_eq!(engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap().unsettled_blocks, 0);
    crash(engine);
    for provider in [0, 2, 5] {
        world.wipe(provider).await;
    }
    let engine = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&engine, &world).await, 6);
}

/// Also when its map lacks what the journal says was acknowledged, as the power went before the map was written.
#[tokio::test(start_paused = true)]
async fn a_disk_that_released_what_the_log_was_decided_without_is_a_fork() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let first = world.start(&disk, Mode::Start).await.unwrap();
    fill(&first, &world, 0..2).await;
    first.shared().ledger.flush_view().unwrap();
    let fork_of = |stores: &[Arc<InMemory>]| stores.iter().map(|store| Arc::new(store.fork())).collect::<Vec<_>>();
    let before = fork_of(&world.stores);
    let map_ends = first.status().released_seq;
    fill(&first, &world, 2..6).await;
    let images = [(disk.snapshot(), first.status().released_seq), (disk.crash(), map_ends)];
    crash(first);
    // All providers are rolled back together, and another machine decides on what is left.
    world.stores = before;
    let second = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    crash(second);
    let decided = fork_of(&world.stores);
    for (image, applied) in images {
        world.stores = fork_of(&decided);
        let ledger = Ledger::open(image.snapshot(), &world.keys.ledger, OpenMode::ReadWrite, Box::new(StdRng::seed_from_u64(5))).unwrap();
        assert_eq!(ledger.snapshot().unwrap().applied_seq().unwrap().0, applied);
        drop(ledger);
        let fork = world.start(&image, Mode::Start).await.unwrap_err();
        assert_eq!(fork.kind, ErrorKind::RefusedState);
        assert!(fork.message.contains("fork"), "{fork}");
    }
}

/// Three of six domains drop every PUT: k = 3 acknowledgements are one too few for any promise.
#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_below_k_plus_one() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..1).await;
    for store in &world.hostile[3..] {
        store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    }
    let caller = world.caller();
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(5), engine.create_bucket(&caller, "no-quorum")).await;
    assert!(!matches!(outcome, Ok(Ok(_))), "acknowledged with k shards: {outcome:?}");
    for store in &world.hostile {
        store.set_faults(FaultPlan::honest());
    }
    tokio::time::sleep(std::time::Duration::from_mins(2)).await;
    assert!(engine.bucket(&caller, "no-quorum").await.is_ok(), "an issued block is never given up");
}

/// Two domains down and one that spoils every read: a start from an empty disk still decides, and loses nothing acknowledged.
#[tokio::test(start_paused = true)]
async fn two_down_and_one_lying_do_not_stop_a_recovery() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..6).await;
    assert_eq!(engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap().unsettled_blocks, 0);
    crash(engine);
    world.hostile[0].set_faults(FaultPlan::down());
    world.hostile[1].set_faults(FaultPlan::down());
    world.hostile[2].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 1 }).on(&[Op::Get])));
    let engine = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
    assert_eq!(count(&engine, &world).await, 6, "{:?}", engine.status().state);
    fill(&engine, &world, 6..7).await;
}

mod attempts;
mod chains;
mod claims;
mod ends;
mod gates;
mod ledgers;
pub(super) mod left;
pub(super) mod loss;
mod newer;
mod remains;
mod starts;
