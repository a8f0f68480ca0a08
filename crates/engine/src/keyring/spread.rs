//! A copy of the keyring on every account. Whoever joined later, or whose copy was deleted, gets one at the next start, which is when the
//! master key is at hand. What the start found is remembered: no account is certified as left while too few others hold the keyring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::name::KeyringNames;
use diaspore_block::record::ProviderMode;
use diaspore_block::seal::Salt;
use diaspore_policy::{FailureDomain, ProviderId, ProviderSpec, claim_quorum};
use diaspore_provider::Deadline;
use futures::future::join_all;

use super::{Copy, PROBE, fork, is_replaced, look, replaced_elsewhere};
use crate::api::{Error, ErrorKind};
use crate::shared::{Ground, Shared};
use crate::world::Draw;

/// What a start knows of one account's copy of the present keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyringCopy {
    /// It was there, and opened.
    Held,
    /// There was none. It was put there, and opened when it was read back.
    Planted,
    /// Something else stands under its name, for good: nothing at a provider is written over.
    Spoiled,
    /// Nobody knows, and why. The next start tries again.
    Unknown(String),
}

impl KeyringCopy {
    const fn is_held(&self) -> bool {
        matches!(self, Self::Held | Self::Planted)
    }

    /// For people: `held`, `spoiled` or `unknown`.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Held | Self::Planted => "held",
            Self::Spoiled => "spoiled",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Who holds the keyring, as far as the last start found out.
#[derive(Debug, Default)]
pub(crate) struct Holders(Mutex<BTreeMap<ProviderId, KeyringCopy>>);

impl Holders {
    pub(crate) fn of(&self, provider: &ProviderId) -> Option<KeyringCopy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(provider).cloned()
    }

    fn set(&self, found: BTreeMap<ProviderId, KeyringCopy>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Why an account cannot be certified as left, if so: once it is gone, too few others hold the keyring, and with the service's disk
/// everything would be lost. Accounts that are being left themselves do not count.
pub(crate) fn too_few_without(ground: &Ground, leaving: &ProviderId) -> Option<String> {
    let stay: Vec<&ProviderSpec> =
        ground.fleet.providers().iter().filter(|spec| spec.id != *leaving && ground.modes.takes_shards(&spec.id)).collect();
    let all: BTreeSet<&FailureDomain> = stay.iter().map(|spec| &spec.domain).collect();
    let holds = |spec: &&&ProviderSpec| ground.holders.of(&spec.id).is_some_and(|copy| copy.is_held());
    let held: BTreeSet<&FailureDomain> = stay.iter().filter(holds).map(|spec| &spec.domain).collect();
    let needed = claim_quorum(all.len()).min(all.len().max(1));
    (held.len() < needed).then(|| {
        format!(
            "{} of the {} domains that stay are known to hold the keyring, {needed} are needed; a start of the service puts it where it is missing",
            held.len(),
            all.len()
        )
    })
}

/// Looks at every account that stays, and puts the keyring where none is.
///
/// # Errors
/// `ReadOnly` and the like unless the log is held; `RefusedState` for a fork, a keyring of a newer version of this software, or a master
/// key that was replaced from another machine.
pub(crate) async fn spread(shared: &Arc<Shared>, master: &MasterKey) -> Result<BTreeMap<ProviderId, KeyringCopy>, Error> {
    shared.stage.check_writable()?;
    let names = KeyringNames::new(master);
    for spec in shared.fleet.providers() {
        shared.collector.keyrings_below(&spec.id, names.prefix(spec.id.as_str()));
    }
    if is_replaced(shared, master).await? {
        return Err(replaced_elsewhere());
    }
    let leaves = |spec: &&ProviderSpec| matches!(shared.modes.of(&spec.id), ProviderMode::Draining | ProviderMode::Dead);
    let specs: Vec<&ProviderSpec> = shared.fleet.providers().iter().filter(|spec| !leaves(spec)).collect();
    let mut found: BTreeMap<ProviderId, KeyringCopy> = BTreeMap::new();
    for version in steps(shared.keys.version) {
        for (provider, copy) in one_version(shared, (master, &names), &specs, version).await? {
            // An account holds the present version only if a search gets there.
            let reached = found.get(&provider).is_none_or(KeyringCopy::is_held);
            if reached {
                found.insert(provider, copy);
            }
        }
    }
    shared.holders.set(found.clone());
    Ok(found)
}

/// Versions by which a search that knows of none gets to `last`: it looks [`PROBE`] versions ahead.
fn steps(last: u64) -> impl Iterator<Item = u64> {
    (1..).map(|step: u64| step.saturating_mul(PROBE)).take_while(move |version| *version < last).chain([last])
}

type Found = Vec<(ProviderId, KeyringCopy)>;

/// Looks for one version at every account, and puts it where none is.
async fn one_version(
    shared: &Shared,
    (master, names): (&MasterKey, &KeyringNames),
    specs: &[&ProviderSpec],
    version: u64,
) -> Result<Found, Error> {
    let looks = specs.iter().map(async |spec| look(master, names, &shared.fleet, &spec.id, version).await);
    let mut keyring = if version == shared.keys.version {
        Some(shared.keys.duplicate().map_err(|error| Error::caused(ErrorKind::Internal, "the keyring does not copy", error))?)
    } else {
        None
    };
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for (spec, answer) in specs.iter().zip(join_all(looks).await) {
        let copy = match answer? {
            Copy::Absent => {
                absent.push(*spec);
                continue;
            }
            Copy::Opened(there) => {
                if there.deployment != shared.keys.deployment || keyring.as_ref().is_some_and(|known| !known.is_same(&there)) {
                    return Err(fork(version));
                }
                keyring = Some(*there);
                KeyringCopy::Held
            }
            Copy::Spoiled => KeyringCopy::Spoiled,
            Copy::Silent(error) => KeyringCopy::Unknown(error.to_string()),
        };
        found.push((spec.id.clone(), copy));
    }
    let puts = absent.into_iter().map(async |spec| {
        let copy = match &keyring {
            Some(keyring) => put(shared, (master, names), &spec.id, keyring).await?,
            None => KeyringCopy::Unknown(format!("version {version} is missing there, through which the present one is found")),
        };
        Ok::<_, Error>((spec.id.clone(), copy))
    });
    for put in join_all(puts).await {
        found.push(put?);
    }
    Ok(found)
}

/// Puts one copy and reads it back: what an account only says to have taken is not counted on.
async fn put(
    shared: &Shared,
    (master, names): (&MasterKey, &KeyringNames),
    provider: &ProviderId,
    keyring: &Keyring,
) -> Result<KeyringCopy, Error> {
    let name = names.keyring(provider.as_str(), keyring.version);
    let place = KeyringPlace::Provider { provider: provider.as_str(), name: &name, version: keyring.version };
    let sealed = keyring.seal(master, &place, Salt::draw(&mut Draw(shared.entropy.as_ref())));
    let sealed = sealed.map_err(|error| Error::caused(ErrorKind::Internal, "the keyring could not be sealed", error))?;
    if let Err(error) = shared.fleet.put(provider, name.as_str(), vec![sealed.into()], Deadline::control()).await {
        return Ok(KeyringCopy::Unknown(error.to_string()));
    }
    Ok(match look(master, names, &shared.fleet, provider, keyring.version).await? {
        Copy::Opened(there) if there.is_same(keyring) => KeyringCopy::Planted,
        Copy::Opened(_) => return Err(fork(keyring.version)),
        Copy::Spoiled => KeyringCopy::Spoiled,
        Copy::Absent => KeyringCopy::Unknown("it took the keyring and does not have it".to_owned()),
        Copy::Silent(error) => KeyringCopy::Unknown(error.to_string()),
    })
}
