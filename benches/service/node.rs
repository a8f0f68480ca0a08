//! The service: engine and HTTP front with their default limits, as `metanode` wires them, in a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use diaspore_block::id::{PrincipalId, TenantId};
use diaspore_block::key::{Keyring, MasterKey, TenantKeys};
use diaspore_engine::api::Caller;
use diaspore_engine::config::Mode;
use diaspore_engine::world::{Draw, SystemClock, SystemEntropy};
use diaspore_engine::{Engine, EngineConfig};
use diaspore_ledger::{FileMedium, Ledger, OpenMode};
use diaspore_policy::BuiltInProfiles;
use diaspore_provider::{Fleet, FleetOptions};
use diaspore_server::ServerOptions;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::Measured;
use crate::child::{Child, Questions, answer};
use crate::emulators::accounts;
use crate::usage::Usage;

/// A benchmark's master key guards nothing.
const MASTER: [u8; 32] = [7; 32];

#[derive(Serialize, Deserialize)]
struct Order {
    endpoints: Vec<String>,
    home: PathBuf,
    profile: String,
    manner: Manner,
}

/// How a service starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manner {
    /// As `metanode storage distributed start` does.
    #[default]
    Usual,
    /// Without what slows upkeep on purpose: no cap on repair, a short lease, no checkpoint by itself.
    Uncapped,
    /// The same after its disk was lost, as `metanode storage distributed recover` does.
    Recovering,
}

#[derive(Serialize, Deserialize)]
enum Question {
    Usage,
    ResetPeak,
}

/// Where the service listens and who may talk to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) client: String,
    pub(crate) operator: String,
}

/// The driver's end.
pub(crate) struct Node {
    child: Child,
    /// How to reach it.
    pub(crate) door: Door,
}

impl Node {
    /// Starts the service over these providers; goes on with what `home` holds.
    pub(crate) fn start(endpoints: &[String], home: PathBuf, profile: &str, manner: Manner) -> Measured<Self> {
        let order = Order { endpoints: endpoints.to_vec(), home, profile: profile.to_owned(), manner };
        let (child, door) = Child::start("service", &order)?;
        Ok(Self { child, door })
    }

    /// What it used so far.
    pub(crate) fn usage(&mut self) -> Measured<Usage> {
        self.child.ask(&Question::Usage)
    }

    /// Forgets the peak of its memory.
    pub(crate) fn reset_peak(&mut self) -> Measured<()> {
        self.child.ask(&Question::ResetPeak)
    }

    /// Ends it in order.
    pub(crate) fn stop(self) -> Measured<()> {
        self.child.stop()
    }
}

/// The process.
pub(crate) async fn serve() -> Measured<()> {
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR).with_writer(std::io::stderr).init();
    let (order, mut questions) = Questions::open::<Order>().await?;
    let (specs, credentials) = accounts(&order.endpoints)?;
    let fleet = Fleet::connect(&specs, &credentials, FleetOptions::default())?;
    let entropy = Arc::new(SystemEntropy::new()?);
    let (ledger, tokens) = (order.home.join("ledger"), order.home.join("tokens"));
    let master = MasterKey::from_bytes(MASTER);
    let recovering = order.manner == Manner::Recovering;
    if recovering {
        std::fs::remove_dir_all(&ledger)?;
        std::fs::create_dir_all(&ledger)?;
    }
    let keyring = if ledger.exists() {
        Engine::find_keyring(&master, &fleet).await?.ok_or("the providers hold no keyring")?
    } else {
        std::fs::create_dir_all(&ledger)?;
        let mut rng = Draw(entropy.as_ref());
        let mut keyring = Keyring::create(&mut rng);
        keyring.tenants.insert(TenantId::draw(&mut rng), TenantKeys::draw(&mut rng));
        Engine::plant_keyring(&master, &keyring, &fleet, entropy.as_ref()).await?;
        keyring
    };
    let mut config = EngineConfig::new(BuiltInProfiles::load()?.get(&order.profile)?.clone());
    if order.manner != Manner::Usual {
        config.profile.upkeep.repair_bytes_per_s = u64::MAX >> 1;
        config.profile.lease_ms = 100;
        config.checkpoint_after = 0;
    }
    if recovering {
        config.mode = Mode::Recover { declare_lost: Vec::new() };
    }
    let ledger = Ledger::open(FileMedium::new(&ledger), &keyring.ledger, OpenMode::ReadWrite, Box::new(Draw(leak()?)))?;
    let starting = Engine::start(config, Arc::new(keyring), fleet, ledger, Arc::new(SystemClock), entropy);
    let engine = Box::pin(starting).await?;
    engine.spread_keyring(&master).await?;
    let (client, operator) = if tokens.exists() {
        serde_json::from_slice(&std::fs::read(&tokens)?)?
    } else {
        let fresh = issue(&engine).await?;
        std::fs::write(&tokens, serde_json::to_vec(&fresh)?)?;
        fresh
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let front = tokio::spawn(diaspore_server::serve(engine.clone(), listener, ServerOptions::default(), async {
        drop(stopped.await);
    }));
    answer(&Door { address, client, operator })?;
    while let Some(question) = questions.next().await? {
        match question {
            Question::Usage => answer(&Usage::now()?)?,
            Question::ResetPeak => answer(&Usage::reset_peak()?)?,
        }
    }
    drop(stop);
    front.await??;
    Ok(engine.shutdown().await?)
}

/// The ledger keeps its generator for as long as the process lives.
fn leak() -> Measured<&'static SystemEntropy> {
    Ok(Box::leak(Box::new(SystemEntropy::new()?)))
}

async fn issue(engine: &Engine) -> Measured<(String, String)> {
    let system = Caller { tenant: TenantId::SYSTEM, principal: PrincipalId::NIL };
    let tenant = engine.create_tenant("bench").await?.id;
    let scopes = |scopes: [&str; 2]| scopes.map(str::to_owned).to_vec();
    let client = engine.create_api_key(&system, tenant, "client", scopes(["read", "write"]), None).await?.token;
    let operator = engine.create_api_key(&system, TenantId::SYSTEM, "operator", scopes(["admin", "audit"]), None).await?.token;
    Ok((client, operator))
}
