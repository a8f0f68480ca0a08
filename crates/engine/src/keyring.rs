//! The keyring at the providers: write-once per version, found with nothing but the master key.

use std::collections::BTreeMap;
use std::fmt;

use diaspore_block::id::TenantId;
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey, TenantKeys};
use diaspore_block::limits::MAX_KEYRING;
use diaspore_block::name::KeyringNames;
use diaspore_block::seal::Salt;
use diaspore_policy::{ProviderId, claim_quorum};
use diaspore_provider::{Deadline, Fleet, ProviderError};
use futures::future::join_all;

use crate::api::{Error, ErrorKind};
use crate::unjudged::refusal;
use crate::world::{Draw, Entropy};

/// Versions probed upward beyond the last one found: a keyring that reached few providers is still found.
const PROBE: u64 = 8;
/// Sealing adds less than this.
const SEAL_MARGIN: usize = 1 << 16;

/// Tenants that a deployment may name before its keyring needs another version: the service itself never holds the master key.
const TENANT_SLOTS: usize = 128;

/// A new deployment's keys, with the keys of tenants that are not named yet in store.
pub fn new_keyring(entropy: &dyn Entropy) -> Keyring {
    let mut rng = Draw(entropy);
    let mut keyring = Keyring::create(&mut rng);
    for _ in 0..TENANT_SLOTS {
        keyring.tenants.insert(TenantId::draw(&mut rng), TenantKeys::draw(&mut rng));
    }
    keyring
}

/// Providers that did not answer, and why: the cause of an error for the operator, who may see account names.
#[derive(Debug)]
pub struct Unanswered(pub Vec<ProviderError>);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&each.join("; "))
    }
}

impl std::error::Error for Unanswered {}

/// The newest version that opens, from any provider. A lying provider can hide or spoil its copies, not forge one.
///
/// `None` only when every provider said that it has none: whoever plants a keyring must know that none is there.
pub(crate) async fn find(master: &MasterKey, fleet: &Fleet) -> Result<Option<Keyring>, Error> {
    let names = KeyringNames::new(master);
    let (mut newest, mut spoiled, mut version): (Option<Keyring>, usize, u64) = (None, 0, 1);
    let mut silent = BTreeMap::new();
    while version <= newest.as_ref().map_or(0, |keyring| keyring.version) + PROBE {
        let looks = fleet.providers().iter().map(async |spec| (spec, look(master, &names, fleet, &spec.id, version).await));
        let mut found: Option<Keyring> = None;
        for (spec, answer) in join_all(looks).await {
            match answer? {
                Copy::Opened(keyring) => match &found {
                    Some(other) if !other.is_same(&keyring) => return Err(fork(version)),
                    Some(_) => (),
                    None => found = Some(*keyring),
                },
                Copy::Spoiled => spoiled += 1,
                Copy::Absent => (),
                // The first error says why; later ones only that it is left alone by now.
                Copy::Silent(error) => drop(silent.entry(spec.id.clone()).or_insert(error)),
            }
        }
        newest = found.or(newest);
        version += 1;
    }
    if newest.is_some() || (silent.is_empty() && spoiled == 0) {
        return Ok(newest);
    }
    if silent.is_empty() {
        let message = "what the providers hold as keyring does not open: it was altered, or moved from elsewhere";
        return Err(Error::new(ErrorKind::RefusedState, message));
    }
    let message =
        format!("no keyring was found, but {} of {} providers did not say that they hold none", silent.len(), fleet.providers().len());
    Err(Error::caused(ErrorKind::DataUnavailable, message, Unanswered(silent.into_values().collect())))
}

fn fork(version: u64) -> Error {
    let message = format!(
        "two different keyrings of version {version} lie at the providers: two machines changed the keys at once, or planted two deployments \
         under one master key; do not write anything, and compare the disks of both"
    );
    Error::new(ErrorKind::RefusedState, message)
}

/// What one provider holds as one version.
enum Copy {
    Opened(Box<Keyring>),
    Spoiled,
    Absent,
    Silent(ProviderError),
}

/// Asks one provider. The error is for a keyring that this build cannot judge.
async fn look(master: &MasterKey, names: &KeyringNames, fleet: &Fleet, provider: &ProviderId, version: u64) -> Result<Copy, Error> {
    let name = names.keyring(provider.as_str(), version);
    let sealed = match fleet.get(provider, name.as_str(), None, (MAX_KEYRING + SEAL_MARGIN) as u64, Deadline::control()).await {
        Ok(sealed) => sealed,
        Err(error) if error.kind == diaspore_provider::ErrorKind::NotFound => return Ok(Copy::Absent),
        Err(error) => return Ok(Copy::Silent(error)),
    };
    let place = KeyringPlace::Provider { provider: provider.as_str(), name: &name, version };
    match Keyring::open(master, &place, &sealed) {
        Ok(keyring) => Ok(Copy::Opened(Box::new(keyring))),
        Err(error) if error.is_integrity() => {
            fleet.report_lie(provider, "a keyring that does not open");
            Ok(Copy::Spoiled)
        }
        Err(error) => Err(refusal("the keyring", error)),
    }
}

/// Puts `keyring` under its version on every provider that has none, each copy under a salt of its own.
///
/// Looks first: where a provider lets names be overwritten, a PUT would bury what is there. Gives the copy for the service's own disk.
pub(crate) async fn plant(master: &MasterKey, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
    let unsealable = |error| Error::caused(ErrorKind::Internal, "the keyring could not be sealed", error);
    let names = KeyringNames::new(master);
    let version = keyring.version;
    let puts = fleet.providers().iter().map(async |spec| {
        match look(master, &names, fleet, &spec.id, version).await? {
            Copy::Opened(there) if there.is_same(keyring) => return Ok(Ok(())),
            Copy::Opened(_) => return Err(fork(version)),
            Copy::Spoiled => return Ok(Err(None)),
            Copy::Silent(error) => return Ok(Err(Some(error))),
            Copy::Absent => (),
        }
        let name = names.keyring(spec.id.as_str(), version);
        let place = KeyringPlace::Provider { provider: spec.id.as_str(), name: &name, version };
        let sealed = keyring.seal(master, &place, Salt::draw(&mut Draw(entropy))).map_err(unsealable)?;
        Ok(fleet.put(&spec.id, name.as_str(), vec![sealed.into()], Deadline::control()).await.map_err(Some))
    });
    let (mut stored, mut failed) = (0, Vec::new());
    for outcome in join_all(puts).await {
        match outcome? {
            Ok(()) => stored += 1,
            Err(error) => failed.extend(error),
        }
    }
    for error in &failed {
        tracing::warn!(%error, "a provider did not take the keyring");
    }
    let needed = claim_quorum(fleet.domains().len());
    if stored < needed {
        let message = format!("{stored} of {} providers hold the keyring, {needed} are needed", fleet.providers().len());
        return Err(Error::caused(ErrorKind::TooFewDomains, message, Unanswered(failed)));
    }
    keyring.seal(master, &KeyringPlace::OwnDisk, Salt::draw(&mut Draw(entropy))).map_err(unsealable)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diaspore_block::seal::{Context, SealType, seal_object};
    use diaspore_policy::ProviderSpec;
    use diaspore_provider::FleetOptions;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::*;
    use crate::world::SeededEntropy;

    struct House {
        stores: Vec<Arc<InMemory>>,
        fleet: Fleet,
        master: MasterKey,
        entropy: SeededEntropy,
    }

    impl House {
        fn new() -> Self {
            let stores: Vec<_> = (0..3).map(|_| Arc::new(InMemory::new())).collect();
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
}
