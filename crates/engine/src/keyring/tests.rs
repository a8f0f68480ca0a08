//! The keyring at the providers.

mod rotate;

use std::sync::Arc;

use diaspore_block::id::Timestamp;
use diaspore_block::seal::{Context, SealType, seal_object};
use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
use diaspore_policy::{Profile, ProviderSpec};
use diaspore_provider::FleetOptions;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::Engine;
use crate::config::{EngineConfig, Mode};
use crate::world::{RuntimeClock, SeededEntropy};

struct House {
    stores: Vec<Arc<InMemory>>,
    fleet: Fleet,
    master: MasterKey,
    entropy: SeededEntropy,
}

impl House {
    fn new() -> Self {
        Self::with(3)
    }

    fn with(accounts: usize) -> Self {
        let stores: Vec<_> = (0..accounts).map(|_| Arc::new(InMemory::new())).collect();
        let member = |(at, store): (usize, &Arc<InMemory>)| {
            (ProviderSpec::memory(ProviderId::new(&format!("p{at}")).unwrap()), Arc::clone(store) as Arc<dyn ObjectStore>)
        };
        let fleet = Fleet::from_stores(stores.iter().enumerate().map(member).collect(), FleetOptions::default());
        Self { stores, fleet, master: MasterKey::from_bytes([5; 32]), entropy: SeededEntropy::new(1) }
    }

    fn keyring(&self) -> Keyring {
        Keyring::create(&mut Draw(&self.entropy))
    }

    fn path(&self, at: usize) -> object_store::path::Path {
        KeyringNames::new(&self.master).keyring(&format!("p{at}"), 1).as_str().into()
    }

    fn version_path(&self, at: usize, version: u64) -> object_store::path::Path {
        KeyringNames::new(&self.master).keyring(&format!("p{at}"), version).as_str().into()
    }

    /// What a recovery finds when nothing but this account is left.
    async fn find_at(&self, at: usize) -> Option<Keyring> {
        let spec = ProviderSpec::memory(ProviderId::new(&format!("p{at}")).unwrap());
        let alone = Fleet::from_stores(vec![(spec, Arc::clone(&self.stores[at]) as _)], FleetOptions::default());
        find(&self.master, &alone).await.unwrap()
    }

    async fn bytes(&self, at: usize) -> Vec<u8> {
        self.stores[at].get(&self.path(at)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn plant(&self, keyring: &Keyring) -> Result<Vec<u8>, Error> {
        plant(&self.master, keyring, &self.fleet, &self.entropy).await
    }

    async fn find(&self) -> Result<Option<Keyring>, Error> {
        find(&self.master, &self.fleet).await
    }
}

/// Four of five accounts held it, and two outages would have taken all of them.
#[tokio::test]
async fn accounts_that_fail_together_are_one_place_for_the_keyring() {
    let house = House::with(5);
    let member = |(at, store): (usize, &Arc<InMemory>)| {
        let mut spec = ProviderSpec::memory(ProviderId::new(&format!("p{at}")).unwrap());
        spec.domain = FailureDomain::new(["one", "one", "two", "two", "three"][at]);
        (spec, Arc::clone(store) as Arc<dyn ObjectStore>)
    };
    let fleet = Fleet::from_stores(house.stores.iter().enumerate().map(member).collect(), FleetOptions::default());
    let keyring = house.keyring();
    let junk = house.path(4);
    house.stores[4].put(&junk, b"junk".to_vec().into()).await.unwrap();
    let refused = plant(&house.master, &keyring, &fleet, &house.entropy).await.unwrap_err();
    assert!(refused.message.contains("2 of 3 failure domains hold the keyring, 3 are needed"), "{refused}");
    assert_eq!(holders(&house.master, &keyring, &fleet).await.unwrap().len(), 4);
    house.stores[4].delete(&junk).await.unwrap();
    plant(&house.master, &keyring, &fleet, &house.entropy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn copies_are_found_and_cannot_be_linked() {
    // Every provider held the same bytes: two of them could tell that they serve one customer.
    let house = House::new();
    assert!(house.find().await.unwrap().is_none());
    let keyring = house.keyring();
    let local = house.plant(&keyring).await.unwrap();
    assert!(Keyring::open(&house.master, &KeyringPlace::OwnDisk, &local).unwrap().is_same(&keyring));
    assert!(house.find().await.unwrap().unwrap().is_same(&keyring));
    let (one, two) = (house.bytes(0).await, house.bytes(1).await);
    let shared = one.windows(8).filter(|window| two.windows(8).any(|other| other == *window)).count();
    assert_eq!(shared, 0);
    // Moved to another provider, a copy is no copy.
    house.stores[0].put(&house.path(0), two.into()).await.unwrap();
    assert!(house.find().await.unwrap().unwrap().is_same(&keyring));
    for (at, store) in house.stores.iter().enumerate().skip(1) {
        store.delete(&house.path(at)).await.unwrap();
    }
    assert_eq!(house.find().await.unwrap_err().kind, ErrorKind::RefusedState);
}

#[tokio::test(start_paused = true)]
async fn another_deployment_is_never_buried() {
    let house = House::new();
    let (first, second) = (house.keyring(), house.keyring());
    house.plant(&first).await.unwrap();
    let before = house.bytes(0).await;
    let refused = house.plant(&second).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RefusedState, "{refused}");
    assert_eq!(house.bytes(0).await, before);
    // A second planting of the same keyring fills the gaps and touches nothing else.
    house.stores[2].delete(&house.path(2)).await.unwrap();
    house.plant(&first).await.unwrap();
    assert_eq!(house.bytes(0).await, before);
    assert!(!house.bytes(2).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_keyrings_of_one_version_are_refused() {
    let (house, other) = (House::new(), House::new());
    house.plant(&house.keyring()).await.unwrap();
    other
        .plant(&{
            house.keyring();
            house.keyring()
        })
        .await
        .unwrap();
    house.stores[1].put(&house.path(1), other.bytes(1).await.into()).await.unwrap();
    let refused = house.find().await.unwrap_err();
    assert!(refused.message.contains("two different keyrings of version 1"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_keyring_is_not_taken_for_a_lie() {
    let house = House::new();
    let name = KeyringNames::new(&house.master).keyring("p0", 1);
    let context = Context::new(SealType::Keyring, diaspore_block::id::DeploymentId::NIL);
    let context = context.text("p0").text(name.as_str()).field(&1u64.to_be_bytes());
    let sealed = seal_object(house.master.expose(), Salt::draw(&mut Draw(&house.entropy)), &context, &[2; 4096]).unwrap();
    house.stores[0].put(&house.path(0), sealed.into()).await.unwrap();
    assert!(house.find().await.unwrap_err().message.contains("newer version"));
    assert!(house.plant(&house.keyring()).await.unwrap_err().message.contains("newer version"));
}

/// An engine over the house's stores and an empty disk.
async fn engine(house: &House, keyring: Keyring, mode: Mode) -> Engine {
    engine_for(house, keyring, mode, 2).await
}

async fn engine_for(house: &House, keyring: Keyring, mode: Mode, replication_factor: u8) -> Engine {
    let mut seed = [0; 8];
    house.entropy.draw(&mut seed);
    let salts = Box::new(StdRng::seed_from_u64(u64::from_be_bytes(seed)));
    let ledger = Ledger::open(MemoryMedium::new(), &keyring.ledger, OpenMode::ReadWrite, salts).unwrap();
    let config = EngineConfig { mode, ..EngineConfig::new(Profile { replication_factor, ..Profile::default() }) };
    let clock = Arc::new(RuntimeClock::starting_at(Timestamp(1_700_000_000_000)));
    let entropy = Arc::new(SeededEntropy::new(u64::from_le_bytes(seed)));
    Engine::start(config, Arc::new(keyring), house.fleet.clone(), ledger, clock, entropy).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn tenants_beyond_the_first_slots_find_room_in_the_next_version() {
    let house = House::new();
    let mut keyring = house.keyring();
    keyring.tenants.insert(TenantId::from_bytes([1; 16]), TenantKeys::draw(&mut Draw(&house.entropy)));
    house.plant(&keyring).await.unwrap();
    let first = engine(&house, keyring, Mode::Start).await;
    first.create_tenant("one").await.unwrap();
    let full = first.create_tenant("two").await.unwrap_err();
    assert!(full.message.contains("all 1 tenants") && full.message.contains("128 more"), "{full}");
    // Something that does not open stands where the next version belongs: nobody can tell what it was.
    let next = KeyringNames::new(&house.master).keyring("p1", 2).as_str().into();
    house.stores[1].put(&next, vec![0; 5000].into()).await.unwrap();
    assert_eq!(first.extend_keyring(&house.master).await.unwrap_err().kind, ErrorKind::TooFewDomains);
    assert_eq!(house.find().await.unwrap().unwrap().version, 1, "nothing was planted");
    house.stores[1].delete(&next).await.unwrap();
    // A try that broke off left one copy; the next one finishes it, and does not draw other keys.
    first.extend_keyring(&house.master).await.unwrap().unwrap();
    for (at, store) in house.stores.iter().enumerate().skip(1) {
        store.delete(&KeyringNames::new(&house.master).keyring(&format!("p{at}"), 2).as_str().into()).await.unwrap();
    }
    let begun = house.find().await.unwrap().unwrap();
    let sealed = first.extend_keyring(&house.master).await.unwrap().unwrap();
    let keyring = Keyring::open(&house.master, &KeyringPlace::OwnDisk, &sealed).unwrap();
    assert!(keyring.is_same(&begun));
    assert_eq!((keyring.version, keyring.tenants.len()), (2, 129));
    first.shutdown().await.unwrap();
    let second = engine(&house, keyring, Mode::Recover { declare_lost: Vec::new() }).await;
    assert_eq!(second.tenants().await.unwrap().len(), 1);
    second.create_tenant("two").await.unwrap();
    assert!(second.extend_keyring(&house.master).await.unwrap().is_none(), "there is room");
}

#[tokio::test(start_paused = true)]
async fn a_start_puts_the_keyring_where_none_is_and_touches_nothing_else() {
    let house = House::with(5);
    let keyring = house.keyring();
    house.plant(&keyring).await.unwrap();
    // Two accounts joined later, or lost their copy; one altered its own.
    for at in [3, 4] {
        house.stores[at].delete(&house.path(at)).await.unwrap();
    }
    house.stores[1].put(&house.path(1), vec![7; 5000].into()).await.unwrap();
    let before = house.bytes(0).await;
    let engine = engine(&house, keyring.duplicate().unwrap(), Mode::Start).await;
    let found = engine.spread_keyring(&house.master).await.unwrap();
    let of = |at: usize| found[&ProviderId::new(&format!("p{at}")).unwrap()].clone();
    assert_eq!([of(0), of(2)], [KeyringCopy::Held, KeyringCopy::Held]);
    assert_eq!([of(3), of(4)], [KeyringCopy::Planted, KeyringCopy::Planted]);
    assert_eq!((of(1), house.bytes(1).await), (KeyringCopy::Spoiled, vec![7; 5000]), "nothing is written over");
    assert_eq!(house.bytes(0).await, before);
    assert!(house.find_at(4).await.unwrap().is_same(&keyring));
    let again = engine.spread_keyring(&house.master).await.unwrap();
    assert_eq!(again[&ProviderId::new("p4").unwrap()], KeyringCopy::Held);
    let status = engine.status();
    let said: Vec<_> = status.providers.iter().map(|provider| provider.keyring.clone().unwrap()).collect();
    assert_eq!(said, ["held", "spoiled", "held", "held", "held"]);
}

/// A search that knows nothing begins at the first version and looks a few ahead. On an account that joined late it must get to the present
/// one without those before.
#[tokio::test(start_paused = true)]
async fn a_late_account_is_enough_for_a_keyring_of_many_versions() {
    let house = House::with(4);
    let mut keyring = house.keyring();
    while keyring.version < 18 {
        house.plant(&keyring).await.unwrap();
        keyring.version += 1;
    }
    house.plant(&keyring).await.unwrap();
    for version in 1..=18 {
        house.stores[3].delete(&house.version_path(3, version)).await.unwrap();
    }
    // Of this one a version on the way is gone as well.
    house.stores[2].delete(&house.version_path(2, 16)).await.unwrap();
    let engine = engine(&house, keyring.duplicate().unwrap(), Mode::Start).await;
    let found = engine.spread_keyring(&house.master).await.unwrap();
    assert_eq!(found[&ProviderId::new("p3").unwrap()], KeyringCopy::Planted);
    for at in [2, 3] {
        assert!(house.find_at(at).await.unwrap().is_same(&keyring), "p{at}");
    }
    // A version on the way that nobody has any more cannot be made again: then it is not claimed that the account holds the keyring.
    for at in 0..4 {
        house.stores[at].delete(&house.version_path(at, 8)).await.unwrap();
    }
    let found = engine.spread_keyring(&house.master).await.unwrap();
    assert!(found.values().all(|copy| matches!(copy, KeyringCopy::Unknown(_))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn another_keyring_of_the_same_version_is_a_fork_to_a_start_too() {
    let (house, other) = (House::new(), House::new());
    let keyring = house.keyring();
    house.plant(&keyring).await.unwrap();
    let engine = engine(&house, keyring, Mode::Start).await;
    let strange = {
        other.keyring();
        other.keyring()
    };
    other.plant(&strange).await.unwrap();
    house.stores[2].put(&house.path(2), other.bytes(2).await.into()).await.unwrap();
    assert!(engine.spread_keyring(&house.master).await.unwrap_err().message.contains("two different keyrings of version 1"));
}
