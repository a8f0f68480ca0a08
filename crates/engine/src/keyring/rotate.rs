//! Another master key: the same keyring sealed under it, and then the copies under the one before deleted.
//!
//! Nothing but the keyring is sealed under the master key, so no block is touched. The order is what counts: at every moment a key that
//! somebody has opens a copy at a claim quorum of the providers.

use std::collections::BTreeSet;
use std::fmt;

use diaspore_block::codec::{Field, Reader, decode, encode};
use diaspore_block::key::{Keyring, MasterKey, NameKey};
use diaspore_block::name::KeyringNames;
use diaspore_block::record::KeyringChanged;
use diaspore_block::seal::{Context, Salt, SealType, open_object, seal_object};
use diaspore_policy::ProviderId;
use diaspore_provider::Deadline;
use futures::future::join_all;

use super::{Searched, enough, find, holders, plant_copies, search, unanswered};
use crate::api::{Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::shared::Shared;
use crate::world::{Draw, Entropy};

/// Longest list of replaced master keys read from the disk, in bytes: some hundred bytes each.
const MAX_REPLACED: usize = 1 << 20;
/// Copies listed at one provider at once; a later try finds what is beyond them.
const MOST: usize = 1000;

/// Master keys that are or may be replaced, and the providers at which copies of the keyring under them may still lie. It finds these copies and
/// opens none of them.
#[derive(Debug, Default)]
pub struct ReplacedKeys(Vec<Replaced>);

struct Replaced {
    names: NameKey,
    /// The newest version under it.
    version: u64,
    /// Whether the log says so already.
    logged: bool,
    left: BTreeSet<String>,
}

impl fmt::Debug for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replaced").field("version", &self.version).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Field for Replaced {
    const MIN_LEN: usize = 32 + 8 + 1 + 4;

    fn put(&self, out: &mut Vec<u8>) {
        self.names.put(out);
        self.version.put(out);
        self.logged.put(out);
        self.left.iter().cloned().collect::<Vec<_>>().put(out);
    }

    fn take(reader: &mut Reader<'_>) -> diaspore_block::Result<Self> {
        let (names, version, logged) = (reader.value()?, reader.value()?, reader.value()?);
        Ok(Self { names, version, logged, left: reader.value::<Vec<String>>()?.into_iter().collect() })
    }
}

impl Replaced {
    fn is(&self, master: &MasterKey) -> bool {
        self.names.expose() == master.keyring_name_key().expose()
    }
}

impl ReplacedKeys {
    /// Opens the list as the service's disk keeps it.
    pub fn open(keys: &Keyring, sealed: &[u8]) -> diaspore_block::Result<Self> {
        let plain = open_object(keys.ledger.expose(), &context(keys), sealed, MAX_REPLACED, "replaced master keys")?;
        decode(&plain, "replaced master keys").map(Self)
    }

    /// Seals it for the service's disk.
    pub fn seal(&self, keys: &Keyring, entropy: &dyn Entropy) -> diaspore_block::Result<Vec<u8>> {
        seal_object(keys.ledger.expose(), Salt::draw(&mut Draw(entropy)), &context(keys), &encode(&self.0))
    }

    /// Notes that versions up to that of `keys` lie at these providers under `master`, to be deleted once another key is in force.
    pub fn add<'a>(&mut self, master: &MasterKey, keys: &Keyring, providers: impl IntoIterator<Item = &'a ProviderId>) {
        self.0.retain(|replaced| !replaced.is(master));
        let left = providers.into_iter().map(|provider| provider.as_str().to_owned()).collect();
        self.0.push(Replaced { names: master.keyring_name_key(), version: keys.version, logged: false, left });
    }

    /// Whether this key is noted.
    pub fn holds(&self, master: &MasterKey) -> bool {
        self.0.iter().any(|replaced| replaced.is(master))
    }

    /// Whether nothing is left to do once `master` is in force.
    pub fn is_done(&self, master: &MasterKey) -> bool {
        self.0.iter().all(|replaced| replaced.is(master))
    }

    /// Providers that may hold a copy under a key other than `master`.
    pub fn left(&self, master: &MasterKey) -> BTreeSet<String> {
        self.0.iter().filter(|replaced| !replaced.is(master)).flat_map(|replaced| replaced.left.clone()).collect()
    }
}

fn context(keys: &Keyring) -> Context {
    Context::new(SealType::ReplacedKeys, keys.deployment)
}

/// Fails unless the engine's keyring is the newest that lies at the providers under `master`: sealed anew, an older one would leave
/// keys behind.
pub(crate) async fn check(shared: &Shared, master: &MasterKey) -> Result<(), Error> {
    shared.check_writable()?;
    let (message, found) = match find(master, &shared.fleet).await? {
        Some(found) if found.is_same(&shared.keys) => return Ok(()),
        Some(found) => ("the providers hold another keyring than this disk", format!("version {}", found.version)),
        None => ("no provider holds the keyring under the present master key", "it was replaced elsewhere".to_owned()),
    };
    Err(Error::new(ErrorKind::RefusedState, format!("{message} ({found}): nothing was changed")))
}

/// Notes copies under `old`, a key that was replaced already, of which this disk knows nothing: it was lost before they were deleted. True
/// if there is something to delete.
pub(crate) async fn recall(shared: &Shared, old: &MasterKey, replaced: &mut ReplacedKeys) -> Result<bool, Error> {
    // A copy that does not open is not worth deleting.
    let found = match search(old, &shared.fleet).await? {
        Searched { newest: Some(found), .. } => found,
        Searched { silent, .. } if silent.is_empty() => return Ok(false),
        Searched { silent, .. } => return Err(unanswered(silent, &shared.fleet)),
    };
    let known = |tenant| shared.keys.tenants.contains_key(tenant);
    if found.deployment != shared.keys.deployment || !found.tenants.keys().all(known) {
        let message = "under the old master key lies another deployment, or keys of tenants that are missing here: nothing was deleted";
        return Err(Error::new(ErrorKind::RefusedState, message));
    }
    replaced.add(old, &found, shared.fleet.providers().iter().map(|spec| &spec.id));
    Ok(true)
}

/// Puts `keyring` under another master key at the providers, and reads it back: at a claim quorum of them, or an error.
pub(crate) async fn reseal(shared: &Shared, master: &MasterKey, keyring: &Keyring) -> Result<usize, Error> {
    shared.check_writable()?;
    plant_copies(master, keyring, &shared.fleet, shared.entropy.as_ref()).await?;
    // What a provider only says to have taken is not counted on.
    let held = holders(master, keyring, &shared.fleet).await?;
    enough(&held, &shared.fleet).map_err(|message| Error::new(ErrorKind::TooFewDomains, message))?;
    Ok(held.len())
}

/// Deletes the copies under every replaced key, after the log said so. Gives how many providers show `keyring` under `master`, the
/// key in force: without a claim quorum of them nothing is deleted.
///
/// `replaced` then says what is left: at providers that did not answer, or still list one.
pub(crate) async fn finish(shared: &Shared, master: &MasterKey, keyring: &Keyring, replaced: &mut ReplacedKeys) -> Result<usize, Error> {
    // Whoever was silent at first gets a copy now.
    let held = reseal(shared, master, keyring).await?;
    for one in replaced.0.iter_mut().filter(|one| !one.is(master)) {
        if !one.logged {
            let reason = format!("sealed under another master key; copies under the one before, up to version {}, go", one.version);
            let record = NewRecord::system(KeyringChanged { version: keyring.version, reason });
            shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await?;
            one.logged = true;
        }
        let names = KeyringNames::from_key(&one.names);
        // An account that was taken out of the configuration cannot be asked; whoever left it deletes there what is left.
        let configured = shared.fleet.providers().iter().filter(|spec| one.left.contains(spec.id.as_str()));
        let looks = configured.map(async |spec| {
            shared.collector.keyrings_below(&spec.id, names.prefix(spec.id.as_str()));
            (!clear(shared, &names, &spec.id, one.version).await).then(|| spec.id.as_str().to_owned())
        });
        let left = join_all(looks).await.into_iter().flatten().collect();
        one.left = left;
    }
    replaced.0.retain(|one| one.is(master) || !one.left.is_empty());
    Ok(held)
}

/// Deletes every version up to `newest` at one provider, and what else it lists under these names; true if it shows nothing there then.
async fn clear(shared: &Shared, names: &KeyringNames, provider: &ProviderId, newest: u64) -> bool {
    // A version that was begun and never used may lie above the newest; a list may leave out what is there.
    let known = (1..=newest).map(|version| names.keyring(provider.as_str(), version).as_str().to_owned());
    let Some(shown) = listed(shared, names, provider).await else { return false };
    for path in known.chain(shown).collect::<BTreeSet<_>>() {
        if let Err(error) = shared.fleet.delete(provider, &path, Deadline::control()).await {
            tracing::warn!(%error, "a copy of the keyring under a replaced master key was not deleted");
            return false;
        }
    }
    listed(shared, names, provider).await.is_some_and(|left| left.is_empty())
}

/// Keyrings that a provider lists under these names; `None` if it does not answer.
async fn listed(shared: &Shared, names: &KeyringNames, provider: &ProviderId) -> Option<Vec<String>> {
    let prefix = names.prefix(provider.as_str());
    let listed = shared.fleet.list(provider, prefix.trim_end_matches('/'), MOST, Deadline::control()).await.ok()?;
    // Nothing else is deleted, whatever is listed.
    Some(listed.into_iter().map(|(path, _)| path).filter(|path| path.starts_with(&prefix)).collect())
}
