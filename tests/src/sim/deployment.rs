//! Providers, disk, keys and at most one living engine of a simulated deployment.

use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{PrincipalId, Timestamp};
use diaspore_block::key::Keyring;
use diaspore_block::name::Names;
use diaspore_engine::Engine;
use diaspore_engine::api::{Caller, Error};
use diaspore_engine::config::{AcceptLoss, EngineConfig, Mode};
use diaspore_engine::world::{Clock, Entropy, RuntimeClock, SeededEntropy};
use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
use diaspore_policy::{BuiltInProfiles, Profile, ProviderId, ProviderSpec};
use diaspore_provider::{Fleet, FleetOptions};
use diaspore_testkit::{HostileStore, Tripwire};
use object_store::ObjectStore;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::disk::DyingDisk;
use super::model::Violation;
use super::vault::Vault;

/// What a crash leaves of the service's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFate {
    /// All that was synced.
    Kept,
    /// What was synced, and this many bytes of what was not.
    Torn(usize),
    /// Nothing.
    Lost,
    /// The state at the last [`Deployment::remember_disk`].
    RolledBack,
}

/// A deployment under simulation.
#[derive(Debug)]
pub struct Deployment {
    /// The providers.
    pub stores: Vec<HostileStore>,
    /// The living engine.
    pub engine: Option<Engine>,
    specs: Vec<ProviderSpec>,
    keys: Arc<Keyring>,
    profile: Profile,
    disk: MemoryMedium,
    remembered: MemoryMedium,
    remembered_empty: bool,
    /// Nothing on it yet, or a recovery that did not end.
    disk_empty: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<SeededEntropy>,
    /// Where processes that start from now on die.
    tripwire: Option<Tripwire>,
    /// Without it the keys are simply there.
    vault: Option<Vault>,
    /// Why the last start could not look after the keyring's copies.
    pub untended: Option<Error>,
}

impl Deployment {
    /// `providers` honest stores and an empty disk, all drawn from `seed`. Call inside the paused runtime.
    pub fn new(seed: u64, providers: usize, profile: &str) -> Result<Self, Violation> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let entropy = Arc::new(SeededEntropy::new(rng.next_u64()));
        let mut stores = Vec::new();
        let mut specs = Vec::new();
        for index in 0..providers {
            let name = format!("cloud-{index}");
            stores.push(HostileStore::new(&name, ChaCha12Rng::seed_from_u64(rng.next_u64())));
            specs.push(ProviderSpec::memory(ProviderId::new(&name).map_err(broken)?));
        }
        let profiles = BuiltInProfiles::load().map_err(broken)?;
        let mut profile = profiles.get(profile).map_err(broken)?.clone();
        profile.lease_ms = 1000;
        Ok(Self {
            stores,
            engine: None,
            specs,
            keys: Arc::new(diaspore_engine::new_keyring(entropy.as_ref())),
            profile,
            disk: MemoryMedium::new(),
            remembered: MemoryMedium::new(),
            remembered_empty: true,
            disk_empty: true,
            clock: Arc::new(RuntimeClock::starting_at(Timestamp(1_800_000_000_000))),
            entropy,
            tripwire: None,
            vault: None,
            untended: None,
        })
    }

    /// From the first start on, the keyring lies at the providers and on the disk, under master keys that can be replaced.
    pub fn seal_keys(&mut self) {
        let providers = self.specs.iter().map(|spec| spec.id.clone()).collect();
        self.vault = Some(Vault::new(providers, self.entropy.as_ref()));
    }

    /// Puts the keyring on every account that has none, as a start does.
    pub async fn spread_keyring(&self) -> Result<(), Error> {
        let (Some(vault), Some(engine)) = (&self.vault, &self.engine) else { return Ok(()) };
        vault.spread(engine).await
    }

    /// Replaces the master key, or ends what was begun; the engine that lives goes on with the keyring it has.
    pub async fn rotate(&mut self) -> Result<(), Error> {
        let (Some(vault), Some(engine)) = (self.vault.as_mut(), self.engine.as_ref()) else { return Ok(()) };
        vault.rotate(engine, self.tripwire.as_ref(), self.entropy.as_ref()).await
    }

    /// Whether a change of the master key was cut off, or something is known to lie under a former one.
    pub fn is_key_change_unfinished(&self) -> bool {
        self.vault.as_ref().is_some_and(Vault::is_unfinished)
    }

    /// Only the key in force finds anything; `liar` may keep what it likes.
    pub async fn expect_one_key(&self, liar: Option<usize>) -> Result<(), Violation> {
        let Some(vault) = &self.vault else { return Ok(()) };
        if vault.is_unfinished() {
            return Err(Violation("a change of the master key does not end".into()));
        }
        let (mut left, found) = vault.verdict(&self.stores, &self.fleet()).await.map_err(broken)?;
        left.retain(|at| Some(*at) != liar);
        if left.is_empty() && found {
            Ok(())
        } else {
            Err(Violation(format!("a former master key finds copies at {left:?}; the one in force finds its own: {found}")))
        }
    }

    /// The profile in force.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What objects are called at the providers.
    pub fn names(&self) -> Names {
        Names::new(&self.keys.name)
    }

    fn fleet(&self) -> Fleet {
        let stores = self.specs.iter().zip(&self.stores);
        let stores = stores.map(|(spec, store)| (spec.clone(), Arc::new(store.clone()) as Arc<dyn ObjectStore>));
        Fleet::from_stores(stores.collect(), FleetOptions::default())
    }

    /// The ledger on a disk that nobody uses.
    ///
    /// # Panics
    /// When it does not open.
    pub fn ledger_on(&self, disk: &MemoryMedium) -> Ledger {
        let salts = Box::new(ChaCha12Rng::seed_from_u64(0));
        #[expect(clippy::expect_used, reason = "a test asks for it")]
        Ledger::open(disk.clone(), &self.keys.ledger, OpenMode::ReadWrite, salts).expect("the simulated disk opens")
    }

    /// An engine over these providers and `disk`, started in `mode`.
    pub async fn start_on(&self, disk: &MemoryMedium, mode: Mode) -> Result<Engine, Error> {
        self.start_accepting(disk, mode, None).await
    }

    /// The same, with the operator's word on what is missing.
    pub async fn start_accepting(&self, disk: &MemoryMedium, mode: Mode, accept_loss: Option<AcceptLoss>) -> Result<Engine, Error> {
        let mut seed = [0; 32];
        self.entropy.draw(&mut seed);
        let salts = Box::new(ChaCha12Rng::from_seed(seed));
        let opened = match self.tripwire.clone() {
            Some(tripwire) => Ledger::open(DyingDisk { disk: disk.clone(), tripwire }, &self.keys.ledger, OpenMode::ReadWrite, salts),
            None => Ledger::open(disk.clone(), &self.keys.ledger, OpenMode::ReadWrite, salts),
        };
        let ledger = opened
            .map_err(|error| Error::caused(diaspore_engine::api::ErrorKind::LocalStore, "the simulated disk does not open", error))?;
        let mut config = EngineConfig::new(self.profile.clone());
        config.mode = mode;
        config.accept_loss = accept_loss;
        config.probe_deadline = Duration::from_secs(5);
        // No incarnation lives long enough to write as many blocks.
        config.orphan_reach = 512;
        let keys = Arc::clone(&self.keys);
        let clock = Arc::clone(&self.clock);
        let entropy: Arc<dyn Entropy> = Arc::<SeededEntropy>::clone(&self.entropy);
        Engine::start(config, keys, self.fleet(), ledger, clock, entropy).await
    }

    /// Starts the engine on the deployment's own disk: a plain start, or a recovery when the disk is empty.
    pub async fn start(&mut self, first: bool) -> Result<(), Error> {
        let fleet = self.fleet();
        match &mut self.vault {
            Some(vault) if first => vault.plant(&self.keys, &fleet, self.entropy.as_ref()).await?,
            Some(vault) => self.keys = Arc::new(vault.open(&fleet, self.entropy.as_ref()).await?),
            None => (),
        }
        let mode = if self.disk_empty && !first { Mode::Recover { declare_lost: Vec::new() } } else { Mode::Start };
        let engine = self.start_on(&self.disk.clone(), mode).await?;
        // A start that could not decide left nothing behind that a later one could stand on.
        let active = engine.status().state == "active";
        self.disk_empty = self.disk_empty && !active;
        if let (Some(vault), true) = (&mut self.vault, active) {
            self.untended = vault.tend(&engine, self.entropy.as_ref()).await.err();
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// Ends the process this instant and leaves the disk as `fate` says.
    pub fn crash(&mut self, fate: DiskFate) {
        if let Some(engine) = self.engine.take() {
            engine.abort();
        }
        match (&mut self.vault, fate) {
            (Some(vault), DiskFate::Lost) => vault.disk_is_lost(),
            (Some(vault), DiskFate::RolledBack) => vault.disk_is_rolled_back(),
            _ => (),
        }
        self.disk = match fate {
            DiskFate::Kept => self.disk.crash(),
            DiskFate::Torn(keep) => self.disk.crash_torn(keep),
            DiskFate::RolledBack => {
                self.disk_empty = self.remembered_empty;
                self.remembered.snapshot()
            }
            DiskFate::Lost => MemoryMedium::new(),
        };
        self.disk_empty = self.disk_empty || self.disk.files().is_empty();
    }

    /// Ends the process this instant and leaves `disk` of its disk.
    pub fn crash_to(&mut self, disk: MemoryMedium) {
        if let Some(engine) = self.engine.take() {
            engine.abort();
        }
        self.disk_empty = self.disk_empty || disk.files().is_empty();
        self.disk = disk;
    }

    /// The disk itself, as it changes.
    pub fn disk(&self) -> MemoryMedium {
        self.disk.clone()
    }

    /// Requests from now on, and processes that start from now on, die where the tripwire says.
    pub fn set_tripwire(&mut self, tripwire: Option<Tripwire>) {
        for store in &self.stores {
            store.set_tripwire(tripwire.clone());
        }
        self.tripwire = tripwire;
    }

    /// Remembers the disk for [`DiskFate::RolledBack`].
    pub fn remember_disk(&mut self) {
        self.remembered = self.disk.snapshot();
        self.remembered_empty = self.disk_empty;
        if let Some(vault) = &mut self.vault {
            vault.remember_disk();
        }
    }

    /// `engine` and its disk take the place of what lived before.
    pub fn adopt(&mut self, engine: Engine, disk: MemoryMedium) {
        self.engine = Some(engine);
        self.disk = disk;
        self.disk_empty = false;
    }

    /// A copy of the disk as it is, as somebody might start it elsewhere.
    pub fn copy_disk(&self) -> MemoryMedium {
        self.disk.snapshot()
    }

    /// Engines that start from now on read this clock.
    pub fn set_clock(&mut self, clock: Arc<dyn Clock>) {
        self.clock = clock;
    }

    /// All providers behave from now on.
    pub fn heal(&self) {
        for store in &self.stores {
            store.set_faults(diaspore_testkit::FaultPlan::honest());
        }
    }

    /// The tenant that the script writes as.
    pub async fn caller(&self) -> Result<Caller, Error> {
        let engine = self.engine.as_ref().ok_or_else(|| Error::new(diaspore_engine::api::ErrorKind::NotAccepted, "no engine is alive"))?;
        let tenant = match engine.tenant("sim").await? {
            Some(tenant) => tenant,
            None => engine.create_tenant("sim").await?,
        };
        Ok(Caller { tenant: tenant.id, principal: PrincipalId::NIL })
    }
}

/// A simulation that could not be set up.
pub(super) fn broken(error: impl std::fmt::Display) -> Violation {
    Violation(format!("the simulation itself failed: {error}"))
}

/// Journal, tables, totals and log agree with each other, whatever happened.
pub(super) fn sound(engine: &Engine) -> Result<(), Violation> {
    let report = engine.integrity().map_err(broken)?;
    if report.is_sound() { Ok(()) } else { Err(Violation(format!("the ledger contradicts itself: {report:#?}"))) }
}
