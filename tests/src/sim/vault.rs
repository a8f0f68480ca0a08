//! The master keys of a deployment, and the files by which its disk goes from one to the next, as `metanode keys rotate` does it.
//!
//! The master key in force and the one to follow survive every disk: copies of them lie in a safe. One that was replaced is destroyed
//! when nothing is known to lie under it any more; here it is kept, to look for what it still opens.

use std::fmt;

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::name::KeyringNames;
use diaspore_block::seal::Salt;
use diaspore_engine::api::{Error, ErrorKind};
use diaspore_engine::world::{Draw, Entropy};
use diaspore_engine::{Engine, ReplacedKeys};
use diaspore_policy::ProviderId;
use diaspore_provider::Fleet;
use diaspore_testkit::{HostileStore, Tripwire};

/// What the service's disk keeps, each written whole or not at all.
#[derive(Debug, Clone, Default)]
struct Files {
    keyring: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    replaced: Option<Vec<u8>>,
}

struct Former {
    key: MasterKey,
    /// Nothing was known to lie under it at some time since.
    clean: bool,
}

/// Master keys and the disk's files.
pub(super) struct Vault {
    in_force: MasterKey,
    /// Drawn to follow, while a change of the key has begun and not ended.
    next_key: Option<MasterKey>,
    former: Vec<Former>,
    files: Files,
    remembered: Files,
    providers: Vec<ProviderId>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("former", &self.former.len()).finish_non_exhaustive()
    }
}

impl Vault {
    pub(super) fn new(providers: Vec<ProviderId>, entropy: &dyn Entropy) -> Self {
        let in_force = MasterKey::draw(&mut Draw(entropy));
        Self { in_force, next_key: None, former: Vec::new(), files: Files::default(), remembered: Files::default(), providers }
    }

    /// The keyring of a new deployment, at the providers and on the disk.
    pub(super) async fn plant(&mut self, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<(), Error> {
        self.files.keyring = Some(Engine::plant_keyring(&self.in_force, keyring, fleet, entropy).await?);
        Ok(())
    }

    pub(super) fn disk_is_lost(&mut self) {
        self.files = Files::default();
    }

    pub(super) fn disk_is_rolled_back(&mut self) {
        self.files = self.remembered.clone();
    }

    pub(super) fn remember_disk(&mut self) {
        self.remembered = self.files.clone();
    }

    /// The keyring for a start: the disk's, or the one that the providers hold.
    pub(super) async fn open(&mut self, fleet: &Fleet, entropy: &dyn Entropy) -> Result<Keyring, Error> {
        if opened(&self.in_force, self.files.next.as_ref()).is_some() {
            if opened(&self.in_force, self.files.keyring.as_ref()).is_some() {
                self.files.next = None;
            } else {
                self.files.keyring = self.files.next.take();
            }
        }
        if let Some(keyring) = opened(&self.in_force, self.files.keyring.as_ref()) {
            return Ok(keyring);
        }
        let mut coin = [0];
        entropy.draw(&mut coin);
        let hasty = self.next_key.take_if(|_| coin[0] & 1 == 1);
        if let Some(key) = hasty {
            // Somebody takes the new key although the change to it was cut off: it will do if any provider has that keyring.
            if let Ok(Some(keyring)) = Engine::find_keyring(&key, fleet).await {
                self.succeed(key);
                self.files.keyring = Some(sealed(&self.in_force, &keyring, entropy)?);
                return Ok(keyring);
            }
            self.next_key = Some(key);
        }
        let found = Engine::find_keyring(&self.in_force, fleet).await?;
        let keyring = found.ok_or_else(|| Error::new(ErrorKind::RefusedState, "no provider holds a keyring under the key in force"))?;
        self.files.keyring = Some(sealed(&self.in_force, &keyring, entropy)?);
        Ok(keyring)
    }

    fn succeed(&mut self, key: MasterKey) {
        self.former.retain(|former| former.key.expose() != key.expose());
        self.former.push(Former { key: std::mem::replace(&mut self.in_force, key), clean: false });
    }

    pub(super) async fn spread(&self, engine: &Engine) -> Result<(), Error> {
        engine.spread_keyring(&self.in_force).await.map(drop)
    }

    /// What a start does for the keys once the engine serves.
    pub(super) async fn tend(&mut self, engine: &Engine, entropy: &dyn Entropy) -> Result<(), Error> {
        let keyring = self.present()?;
        self.spread(engine).await?;
        if self.files.next.is_none() {
            self.finish(engine, &keyring, None, entropy).await?;
            engine.extend_keyring(&self.in_force).await?;
        }
        Ok(())
    }

    /// The whole change to another key, or what is missing of one that was cut off.
    pub(super) async fn rotate(&mut self, engine: &Engine, tripwire: Option<&Tripwire>, entropy: &dyn Entropy) -> Result<(), Error> {
        let keyring = self.present()?;
        let new = copy(self.next_key.get_or_insert_with(|| MasterKey::draw(&mut Draw(entropy))));
        engine.check_keyring(&self.in_force).await?;
        let mut replaced = self.noted(&keyring)?;
        replaced.add(&self.in_force, &keyring, &self.providers);
        self.note(&replaced, &keyring, tripwire, entropy).await?;
        let mut next = keyring.duplicate().map_err(broken)?;
        next.version = 1;
        match opened(&new, self.files.next.as_ref()) {
            Some(begun) if begun.is_same(&next) => (),
            Some(_) => return Err(Error::new(ErrorKind::Internal, "the keyring grew while its key was being replaced")),
            None => {
                step(tripwire).await;
                self.files.next = Some(sealed(&new, &next, entropy)?);
            }
        }
        replaced.add(&new, &next, &self.providers);
        self.note(&replaced, &keyring, tripwire, entropy).await?;
        engine.reseal_keyring(&new, &next).await?;
        step(tripwire).await;
        self.succeed(new);
        self.next_key = None;
        step(tripwire).await;
        self.files.keyring = self.files.next.take();
        self.finish(engine, &next, tripwire, entropy).await
    }

    /// Deletes what lies under former keys.
    async fn finish(
        &mut self,
        engine: &Engine,
        keyring: &Keyring,
        tripwire: Option<&Tripwire>,
        entropy: &dyn Entropy,
    ) -> Result<(), Error> {
        let mut replaced = self.noted(keyring)?;
        for former in self.former.iter().filter(|former| !former.clean) {
            if !replaced.holds(&former.key) {
                engine.recall_replaced_key(&former.key, &mut replaced).await?;
            }
        }
        if !replaced.is_done(&self.in_force) {
            self.note(&replaced, keyring, tripwire, entropy).await?;
            engine.finish_rotation(&self.in_force, keyring, &mut replaced).await?;
        }
        let done = replaced.is_done(&self.in_force);
        if done {
            step(tripwire).await;
            self.files.replaced = None;
        } else {
            self.note(&replaced, keyring, tripwire, entropy).await?;
        }
        self.former.iter_mut().for_each(|former| former.clean |= done);
        Ok(())
    }

    /// Whether a change of the key was cut off, or something is known to lie under a former one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.next_key.is_some() || self.former.iter().any(|former| !former.clean)
    }

    /// Where former keys still find something, although all that was known of is deleted; and whether the one in force finds its keyring.
    pub(super) async fn verdict(&self, stores: &[HostileStore], fleet: &Fleet) -> Result<(Vec<usize>, bool), Error> {
        let mut left = Vec::new();
        for former in &self.former {
            let names = KeyringNames::new(&former.key);
            let holds = |store: &HostileStore| store.objects().iter().any(|(path, _)| path.starts_with(&names.prefix(store.name())));
            left.extend(stores.iter().enumerate().filter(|(_, store)| holds(store)).map(|(at, _)| at));
            if left.is_empty() && Engine::find_keyring(&former.key, fleet).await?.is_some() {
                return Err(Error::new(ErrorKind::Internal, "a former key opens what lies nowhere"));
            }
        }
        Ok((left, Engine::find_keyring(&self.in_force, fleet).await?.is_some()))
    }

    fn present(&self) -> Result<Keyring, Error> {
        opened(&self.in_force, self.files.keyring.as_ref())
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the disk's keyring does not open under the key in force"))
    }

    fn noted(&self, keyring: &Keyring) -> Result<ReplacedKeys, Error> {
        let open = |bytes: &Vec<u8>| ReplacedKeys::open(keyring, bytes).map_err(broken);
        self.files.replaced.as_ref().map_or_else(|| Ok(ReplacedKeys::default()), open)
    }

    async fn note(
        &mut self,
        replaced: &ReplacedKeys,
        keyring: &Keyring,
        tripwire: Option<&Tripwire>,
        entropy: &dyn Entropy,
    ) -> Result<(), Error> {
        step(tripwire).await;
        self.files.replaced = Some(replaced.seal(keyring, entropy).map_err(broken)?);
        Ok(())
    }
}

/// The process may die before it changes a file.
async fn step(tripwire: Option<&Tripwire>) {
    if tripwire.is_some_and(|tripwire| !tripwire.step()) {
        std::future::pending::<()>().await;
    }
}

fn opened(master: &MasterKey, file: Option<&Vec<u8>>) -> Option<Keyring> {
    Keyring::open(master, &KeyringPlace::OwnDisk, file?).ok()
}

fn sealed(master: &MasterKey, keyring: &Keyring, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
    keyring.seal(master, &KeyringPlace::OwnDisk, Salt::draw(&mut Draw(entropy))).map_err(broken)
}

fn copy(key: &MasterKey) -> MasterKey {
    MasterKey::from_bytes(*key.expose())
}

fn broken(error: diaspore_block::BlockError) -> Error {
    Error::caused(ErrorKind::Internal, "the simulated disk's keyring", error)
}
