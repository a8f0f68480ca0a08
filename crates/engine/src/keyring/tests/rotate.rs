//! Another master key: cut off anywhere, beside providers that are silent or lie.

use diaspore_block::record::RecordKind;
use diaspore_provider::Fleet;
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::keyring::ReplacedKeys;

/// Five providers, of which a claim quorum is four, and three master keys.
struct World {
    house: House,
    clouds: Vec<HostileStore>,
    keys: [MasterKey; 3],
}

impl World {
    fn new() -> Self {
        let clouds: Vec<_> = (0..5).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
        let member = |(at, store): (usize, &HostileStore)| {
            (ProviderSpec::memory(ProviderId::new(&format!("p{at}")).unwrap()), Arc::new(store.clone()) as Arc<dyn ObjectStore>)
        };
        let fleet = Fleet::from_stores(clouds.iter().enumerate().map(member).collect(), FleetOptions::default());
        let house = House { fleet, ..House::new() };
        Self { house, clouds, keys: [5, 6, 7].map(|byte| MasterKey::from_bytes([byte; 32])) }
    }

    /// A keyring at every provider, under the first key, and an engine that uses it.
    async fn begin(&self) -> (Keyring, Engine) {
        let keyring = self.house.keyring();
        plant(&self.keys[0], &keyring, &self.house.fleet, &self.house.entropy).await.unwrap();
        let engine = self.engine(&keyring, Mode::Start).await;
        (keyring, engine)
    }

    async fn engine(&self, keyring: &Keyring, mode: Mode) -> Engine {
        engine_for(&self.house, keyring.duplicate().unwrap(), mode, 3).await
    }

    /// What the command does after it noted the next keyring on the disk.
    async fn rotate(&self, engine: &Engine, from: usize, next: &Keyring) -> ReplacedKeys {
        let (old, new) = (&self.keys[from], &self.keys[from + 1]);
        engine.check_keyring(old).await.unwrap();
        engine.reseal_keyring(new, next).await.unwrap();
        let mut replaced = ReplacedKeys::default();
        replaced.add(old, &engine.shared().keys, self.house.fleet.providers().iter().map(|spec| &spec.id));
        replaced
    }

    async fn found(&self, key: usize) -> Option<Keyring> {
        find(&self.keys[key], &self.house.fleet).await.unwrap()
    }

    /// Copies under a key, by provider.
    fn copies(&self, key: usize) -> Vec<usize> {
        let names = KeyringNames::new(&self.keys[key]);
        let below = |at: usize, path: &str| path.starts_with(&names.prefix(&format!("p{at}")));
        let count = |(at, store): (usize, &HostileStore)| store.objects().iter().filter(|(path, _)| below(at, path)).count();
        self.clouds.iter().enumerate().map(count).collect()
    }
}

fn first(keyring: &Keyring) -> Keyring {
    let mut next = keyring.duplicate().unwrap();
    next.version = 1;
    next
}

/// How often the log says that the keyring changed.
fn said(engine: &Engine) -> u64 {
    engine.shared().ledger.snapshot().unwrap().totals().unwrap().records_of(RecordKind::KeyringChanged)
}

#[tokio::test(start_paused = true)]
async fn a_keyring_of_many_versions_goes_under_a_second_and_a_third_key() {
    let world = World::new();
    let mut keyring = world.house.keyring();
    for version in 1..=20 {
        keyring.version = version;
        plant(&world.keys[0], &keyring, &world.house.fleet, &world.house.entropy).await.unwrap();
    }
    let engine = world.engine(&keyring, Mode::Start).await;
    let next = first(&keyring);
    let mut replaced = world.rotate(&engine, 0, &next).await;
    assert_eq!(world.found(0).await.unwrap().version, 20, "until the end the old key opens everything");
    assert!(world.found(1).await.unwrap().is_same(&next));
    assert_eq!(engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap(), 5);
    assert!(replaced.is_done(&world.keys[1]));
    assert!(world.found(0).await.is_none());
    assert_eq!((world.copies(0), world.copies(1), said(&engine)), (vec![0; 5], vec![1; 5], 1));
    engine.shutdown().await.unwrap();

    // Under the second key it grows, and goes on to the third.
    let engine = world.engine(&next, Mode::Recover { declare_lost: Vec::new() }).await;
    let sealed = engine.extend_keyring(&world.keys[1]).await.unwrap().unwrap();
    let grown = Keyring::open(&world.keys[1], &KeyringPlace::OwnDisk, &sealed).unwrap();
    assert_eq!((grown.version, grown.tenants.len()), (2, TENANT_SLOTS));
    // This engine does not use it yet, and must not leave its keys behind.
    let refused = engine.check_keyring(&world.keys[1]).await.unwrap_err();
    assert!(refused.message.contains("another keyring"), "{refused}");
    engine.shutdown().await.unwrap();
    let engine = world.engine(&grown, Mode::Recover { declare_lost: Vec::new() }).await;
    let next = first(&grown);
    let mut replaced = world.rotate(&engine, 1, &next).await;
    engine.finish_rotation(&world.keys[2], &next, &mut replaced).await.unwrap();
    assert!(world.found(2).await.unwrap().is_same(&next));
    assert_eq!((world.copies(0), world.copies(1), world.copies(2)), (vec![0; 5], vec![0; 5], vec![1; 5]));
}

#[tokio::test(start_paused = true)]
async fn cut_off_anywhere_the_old_key_or_the_new_one_opens_all_and_the_next_try_ends_it() {
    let world = World::new();
    let (keyring, engine) = world.begin().await;
    let next = first(&keyring);
    // Two of five are down: no claim quorum, and the old key is in force as before.
    for cloud in &world.clouds[3..] {
        cloud.set_faults(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]).into());
    }
    assert_eq!(engine.reseal_keyring(&world.keys[1], &next).await.unwrap_err().kind, ErrorKind::TooFewDomains);
    assert!(world.found(0).await.unwrap().is_same(&keyring));
    assert!(world.found(1).await.unwrap().is_same(&next), "with one copy of it the new key opens everything as well");
    let mut early = ReplacedKeys::default();
    early.add(&world.keys[0], &keyring, world.house.fleet.providers().iter().map(|spec| &spec.id));
    assert_eq!(engine.finish_rotation(&world.keys[1], &next, &mut early).await.unwrap_err().kind, ErrorKind::TooFewDomains);
    assert_eq!(world.copies(0), [1; 5]);
    // Without a word in the log nothing is deleted, whatever is planted.
    world.clouds.iter().for_each(|cloud| cloud.set_faults(FaultPlan::honest()));
    let replaced = world.rotate(&engine, 0, &next).await;
    for cloud in &world.clouds[3..] {
        cloud.set_faults(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]).into());
    }
    let sealed = replaced.seal(&keyring, &world.house.entropy).unwrap();
    let mut mute = ReplacedKeys::open(&keyring, &sealed).unwrap();
    engine.finish_rotation(&world.keys[1], &next, &mut mute).await.unwrap_err();
    assert_eq!((world.copies(0), world.copies(1), said(&engine)), (vec![1; 5], vec![1; 5], 0));
    // Under the old key, which is in force again, the list means nothing.
    assert!(replaced.is_done(&world.keys[0]) && !replaced.is_done(&world.keys[1]));
    world.clouds.iter().for_each(|cloud| cloud.set_faults(FaultPlan::honest()));
    engine.abort();
    // The health of accounts is that of this process, which leaves alone for a while who refused its writes.
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    // The next process ends it; a second one that knows no better does it again and harms nothing.
    let engine = world.engine(&next, Mode::Recover { declare_lost: Vec::new() }).await;
    for _ in 0..2 {
        let mut replaced = ReplacedKeys::open(&next, &sealed).unwrap();
        engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap();
        assert!(replaced.is_done(&world.keys[1]));
        assert_eq!((world.copies(0), world.copies(1)), (vec![0; 5], vec![1; 5]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_gets_the_new_copy_and_loses_the_old_one_when_it_is_back() {
    let world = World::new();
    let (keyring, engine) = world.begin().await;
    let next = first(&keyring);
    // A second version that was begun, reached the fifth alone and was never used.
    let mut begun = keyring.duplicate().unwrap();
    begun.version = 2;
    world.clouds[..4].iter().for_each(|cloud| cloud.set_faults(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]).into()));
    plant(&world.keys[0], &begun, &world.house.fleet, &world.house.entropy).await.unwrap_err();
    world.clouds[..4].iter().for_each(|cloud| cloud.set_faults(FaultPlan::honest()));
    world.clouds[4].set_faults(FaultPlan::down());
    let mut replaced = world.rotate(&engine, 0, &next).await;
    assert_eq!(engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap(), 4);
    assert_eq!((world.copies(0), world.copies(1), said(&engine)), (vec![0, 0, 0, 0, 2], vec![1, 1, 1, 1, 0], 1));
    assert_eq!(replaced.left(&world.keys[1]).into_iter().collect::<Vec<_>>(), ["p4"]);
    world.clouds[4].set_faults(FaultPlan::honest());
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert_eq!(engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap(), 5);
    assert_eq!((world.copies(0), world.copies(1), said(&engine)), (vec![0; 5], vec![1; 5], 1));
    assert!(replaced.is_done(&world.keys[1]));

    // Whoever still has a disk under the old key adds no version that nobody with the new one would find, nor brings the old one back.
    let refused = engine.extend_keyring(&world.keys[0]).await.unwrap_err();
    assert!(refused.message.contains("replaced from another machine"), "{refused}");
    let refused = Engine::plant_keyring(&world.keys[0], &keyring, &world.house.fleet, &world.house.entropy).await.unwrap_err();
    assert!(refused.message.contains("not new"), "{refused}");
    assert_eq!(world.copies(0), [0; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_lost_before_the_old_copies_were_deleted_is_told_of_them() {
    let world = World::new();
    let (keyring, engine) = world.begin().await;
    let next = first(&keyring);
    world.rotate(&engine, 0, &next).await;
    engine.abort();
    let engine = world.engine(&world.found(1).await.unwrap(), Mode::Recover { declare_lost: Vec::new() }).await;
    let mut replaced = ReplacedKeys::default();
    assert!(engine.recall_replaced_key(&world.keys[0], &mut replaced).await.unwrap());
    engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap();
    assert_eq!((world.copies(0), world.copies(1), said(&engine)), (vec![0; 5], vec![1; 5], 1));
    assert!(!engine.recall_replaced_key(&world.keys[0], &mut replaced).await.unwrap());
    // A key that is no predecessor: what it opens is another deployment, or has more in it.
    let mut more = keyring.duplicate().unwrap();
    draw_tenants(&mut more, &mut Draw(&world.house.entropy));
    for (key, other) in [(2, world.house.keyring()), (0, more)] {
        plant(&world.keys[key], &other, &world.house.fleet, &world.house.entropy).await.unwrap();
        let refused = engine.recall_replaced_key(&world.keys[key], &mut replaced).await.unwrap_err();
        assert!(refused.message.contains("nothing was deleted"), "{refused}");
        assert!(replaced.is_done(&world.keys[1]));
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_says_that_it_stored_or_deleted_a_copy_does_not_count() {
    let world = World::new();
    let (keyring, engine) = world.begin().await;
    let next = first(&keyring);
    world.clouds[0].set_faults(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Delete]).into());
    world.clouds[1].set_faults(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put]).into());
    let mut replaced = world.rotate(&engine, 0, &next).await;
    assert_eq!(engine.finish_rotation(&world.keys[1], &next, &mut replaced).await.unwrap(), 4);
    assert_eq!((world.copies(0), world.copies(1)), (vec![1, 0, 0, 0, 0], vec![1, 0, 1, 1, 1]));
    assert_eq!(replaced.left(&world.keys[1]).into_iter().collect::<Vec<_>>(), ["p0"]);

    // Two of five that drop the new copies: a claim quorum said yes, but does not show it. The old key is in force as before.
    let world = World::new();
    let (keyring, engine) = world.begin().await;
    let next = first(&keyring);
    for cloud in &world.clouds[..2] {
        cloud.set_faults(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put]).into());
    }
    let refused = engine.reseal_keyring(&world.keys[1], &next).await.unwrap_err();
    assert!(refused.message.contains("3 of 5 failure domains hold the keyring, 4 are needed"), "{refused}");
    let mut early = ReplacedKeys::default();
    early.add(&world.keys[0], &keyring, world.house.fleet.providers().iter().map(|spec| &spec.id));
    engine.finish_rotation(&world.keys[1], &next, &mut early).await.unwrap_err();
    assert_eq!((world.copies(0), said(&engine)), (vec![1; 5], 0));
}
