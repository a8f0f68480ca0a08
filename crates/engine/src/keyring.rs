//! The keyring at the providers: write-once per version, found with nothing but the master key.

mod extend;
mod rotate;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use diaspore_block::BlockError;
use diaspore_block::id::TenantId;
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey, TenantKeys};
use diaspore_block::limits::MAX_KEYRING;
use diaspore_block::name::{KeyringNames, Names};
use diaspore_block::record::RecordKind;
use diaspore_block::seal::Salt;
use diaspore_policy::{FailureDomain, ProviderId, ProviderSpec, claim_quorum};
use diaspore_provider::{Deadline, Fleet, ProviderError};
use futures::future::join_all;

use crate::api::{Error, ErrorKind};
use crate::namespace::local;
use crate::shared::Shared;
use crate::unjudged::refusal;
use crate::world::{Draw, Entropy};
pub(crate) use extend::extend;
pub use rotate::ReplacedKeys;
pub(crate) use rotate::{check, finish, recall, reseal};
pub use spread::KeyringCopy;
pub(crate) use spread::{Holders, spread, too_few_without};

/// Versions probed upward beyond the last one found: a keyring that reached few providers is still found.
const PROBE: u64 = 8;
/// Sealing adds less than this.
const SEAL_MARGIN: usize = 1 << 16;

/// Tenants that one version of the keyring makes room for: the service itself never holds the master key, so it names tenants whose
/// keys were drawn before ([`extend`]).
pub(crate) const TENANT_SLOTS: usize = 128;

/// A new deployment's keys, with the keys of tenants that are not named yet in store.
pub fn new_keyring(entropy: &dyn Entropy) -> Keyring {
    let mut rng = Draw(entropy);
    let mut keyring = Keyring::create(&mut rng);
    draw_tenants(&mut keyring, &mut rng);
    keyring
}

fn draw_tenants(keyring: &mut Keyring, rng: &mut Draw<'_>) {
    for _ in 0..TENANT_SLOTS {
        keyring.tenants.insert(TenantId::draw(rng), TenantKeys::draw(rng));
    }
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
    let Searched { newest, spoiled, silent } = search(master, fleet).await?;
    if newest.is_some() || (silent.is_empty() && spoiled == 0) {
        return Ok(newest);
    }
    if silent.is_empty() {
        let message = "what the providers hold as keyring does not open: it was altered, or moved from elsewhere";
        return Err(Error::new(ErrorKind::RefusedState, message));
    }
    Err(unanswered(silent, fleet))
}

/// What the providers said when asked for every version.
struct Searched {
    newest: Option<Keyring>,
    spoiled: usize,
    silent: BTreeMap<ProviderId, ProviderError>,
}

async fn search(master: &MasterKey, fleet: &Fleet) -> Result<Searched, Error> {
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
    Ok(Searched { newest, spoiled, silent })
}

fn unanswered(silent: BTreeMap<ProviderId, ProviderError>, fleet: &Fleet) -> Error {
    let message =
        format!("no keyring was found, but {} of {} providers did not say that they hold none", silent.len(), fleet.providers().len());
    Error::caused(ErrorKind::DataUnavailable, message, Unanswered(silent.into_values().collect()))
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
    plant_copies(master, keyring, fleet, entropy).await?;
    keyring.seal(master, &KeyringPlace::OwnDisk, Salt::draw(&mut Draw(entropy))).map_err(unsealable)
}

/// The same for a new deployment. One that has claims at a provider is not new: planted again under a master key that was replaced from
/// another machine, its keyring would open for whoever has that key.
pub(crate) async fn plant_new(master: &MasterKey, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
    let names = Names::new(&keyring.name);
    let lists = fleet.providers().iter().map(async |spec| {
        let prefix = names.claim_prefix(spec.id.as_str());
        fleet.list(&spec.id, prefix.trim_end_matches('/'), 1, Deadline::control()).await.is_ok_and(|listed| !listed.is_empty())
    });
    if join_all(lists).await.contains(&true) && holders(master, keyring, fleet).await?.is_empty() {
        let message = "this deployment is not new, but no provider holds its keyring under this master key: the key was replaced from \
             another machine, or every copy was lost";
        return Err(Error::new(ErrorKind::RefusedState, message));
    }
    plant(master, keyring, fleet, entropy).await
}

fn unsealable(error: BlockError) -> Error {
    Error::caused(ErrorKind::Internal, "the keyring could not be sealed", error)
}

/// The providers that show this very keyring under `master` when asked.
async fn holders<'f>(master: &MasterKey, keyring: &Keyring, fleet: &'f Fleet) -> Result<Vec<&'f ProviderSpec>, Error> {
    let names = KeyringNames::new(master);
    let looks = fleet.providers().iter().map(async |spec| look(master, &names, fleet, &spec.id, keyring.version).await);
    let mut held = Vec::new();
    for (spec, answer) in fleet.providers().iter().zip(join_all(looks).await) {
        if matches!(answer?, Copy::Opened(there) if there.is_same(keyring)) {
            held.push(spec);
        }
    }
    Ok(held)
}

/// Refuses fewer failure domains than a claim quorum: two accounts that fail together are one place.
fn enough(held: &[&ProviderSpec], fleet: &Fleet) -> Result<(), String> {
    let domains: BTreeSet<&FailureDomain> = held.iter().map(|spec| &spec.domain).collect();
    let (all, needed) = (fleet.domains().len(), claim_quorum(fleet.domains().len()));
    if domains.len() < needed {
        return Err(format!("{} of {all} failure domains hold the keyring, {needed} are needed", domains.len()));
    }
    Ok(())
}

/// Whether no provider holds the keyring of this very engine and its log says of more changes than made it: the master key was replaced
/// from another machine, then, and nothing may be put under the old one.
async fn is_replaced(shared: &Shared, master: &MasterKey) -> Result<bool, Error> {
    if !holders(master, &shared.keys, &shared.fleet).await?.is_empty() {
        return Ok(false);
    }
    let totals = shared.ledger.snapshot().and_then(|view| view.totals()).map_err(local)?;
    Ok(totals.records_of(RecordKind::KeyringChanged) >= shared.keys.version)
}

/// The disk of a standby, say: what it put at the providers under the old key would be found by nobody who has the new one.
fn replaced_elsewhere() -> Error {
    let message = "no provider holds this keyring under this master key: the master key was replaced from another machine";
    Error::new(ErrorKind::RefusedState, message)
}

async fn plant_copies(master: &MasterKey, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<(), Error> {
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
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    for (spec, outcome) in fleet.providers().iter().zip(join_all(puts).await) {
        match outcome? {
            Ok(()) => stored.push(spec),
            Err(error) => failed.extend(error),
        }
    }
    for error in &failed {
        tracing::warn!(%error, "a provider did not take the keyring");
    }
    enough(&stored, fleet).map_err(|message| Error::caused(ErrorKind::TooFewDomains, message, Unanswered(failed)))
}

#[cfg(test)]
mod tests;
