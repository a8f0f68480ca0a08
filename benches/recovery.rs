//! How long a lost disk takes: `cargo bench --bench recovery -- [blobs] [bytes per blob]`.
//!
//! An engine over six providers in memory (3-of-6) and a ledger on disk takes so many random blobs, then loses its disk: once with nothing but the
//! log at the providers, once with a checkpoint of it. Provider requests cost nothing here, so the figures are what the service itself takes.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diaspore_engine::api::{Caller, GetOptions, PutOptions};
use diaspore_engine::config::{EngineConfig, Mode};
use diaspore_engine::id::PrincipalId;
use diaspore_engine::world::{Entropy, SystemClock, SystemEntropy};
use diaspore_engine::{Engine, new_keyring};
use diaspore_ledger::{FileMedium, Ledger, OpenMode};
use diaspore_policy::{BuiltInProfiles, ProviderId, ProviderSpec};
use diaspore_provider::{Credentials, Fleet, FleetOptions};
use futures::{StreamExt, stream};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rustix::time::{ClockId, Timespec, clock_gettime};

const PROVIDERS: usize = 6;
const BUCKET: &str = "bench";
const AT_ONCE: usize = 256;
/// Longest wait for a checkpoint or for settlement.
const LONG: Duration = Duration::from_mins(30);

type Measured<T> = Result<T, Box<dyn Error>>;

/// Wall clock and processor time.
struct Started(Timespec, Timespec);

impl Started {
    fn now() -> Self {
        Self(clock_gettime(ClockId::Monotonic), clock_gettime(ClockId::ProcessCPUTime))
    }

    fn elapsed(&self) -> (Duration, Duration) {
        let since = |clock, start| (clock_gettime(clock) - start).try_into().unwrap_or_default();
        (since(ClockId::Monotonic, self.0), since(ClockId::ProcessCPUTime, self.1))
    }
}

struct World {
    config: EngineConfig,
    keys: Arc<diaspore_block::key::Keyring>,
    fleet: Fleet,
    entropy: Arc<SystemEntropy>,
}

impl World {
    fn new() -> Measured<Self> {
        let specs = (0..PROVIDERS).map(|at| Ok(ProviderSpec::memory(ProviderId::new(&format!("cloud-{at}"))?)));
        let specs = specs.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let mut profile = BuiltInProfiles::load()?.get("quickstart")?.clone();
        // What a start waits for others is not what is measured.
        profile.lease_ms = 10;
        let mut config = EngineConfig::new(profile);
        config.checkpoint_after = 0;
        let entropy = Arc::new(SystemEntropy::new()?);
        let keys = Arc::new(new_keyring(entropy.as_ref()));
        Ok(Self { config, keys, fleet: Fleet::connect(&specs, &Credentials::default(), FleetOptions::default())?, entropy })
    }

    /// An engine over a ledger in a new folder.
    async fn start(&self, mode: Mode) -> Measured<(Engine, tempfile::TempDir)> {
        let folder = tempfile::tempdir()?;
        let mut seed = [0; 32];
        self.entropy.draw(&mut seed);
        let salts = Box::new(ChaCha20Rng::from_seed(seed));
        let ledger = Ledger::open(FileMedium::new(folder.path()), &self.keys.ledger, OpenMode::ReadWrite, salts)?;
        let config = EngineConfig { mode, ..self.config.clone() };
        let engine = Engine::start(
            config,
            Arc::clone(&self.keys),
            self.fleet.clone(),
            ledger,
            Arc::new(SystemClock),
            Arc::<SystemEntropy>::clone(&self.entropy),
        )
        .await?;
        Ok((engine, folder))
    }

    /// Recovers into an empty folder and says how fast that was.
    async fn recover(&self, what: &str, blobs: u64, caller: &Caller) -> Measured<(Engine, tempfile::TempDir)> {
        let started = Started::now();
        let (engine, folder) = self.start(Mode::Recover { declare_lost: Vec::new() }).await?;
        let (wall, cpu) = started.elapsed();
        let status = engine.status();
        assert!(status.state == "active" && status.blobs == blobs, "{status:?}");
        let entries = status.log_size;
        println!(
            "{what}: {:.2} s, {:.2} s of processor time: {} blobs/s, {} log entries/s",
            wall.as_secs_f64(),
            cpu.as_secs_f64(),
            rate(blobs, wall),
            rate(entries, wall)
        );
        let last = engine.get_blob(caller, BUCKET, &key(blobs - 1), &GetOptions::default()).await?;
        assert!(last.body.count().await > 0, "it reads");
        Ok((engine, folder))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn key(at: u64) -> Vec<u8> {
    format!("photos/{:016x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

async fn fill(engine: &Engine, caller: &Caller, blobs: std::ops::Range<u64>, len: usize) -> Measured<()> {
    let puts = stream::iter(blobs).map(async |at| {
        let mut bytes = vec![0; len];
        ChaCha20Rng::seed_from_u64(at).fill_bytes(&mut bytes);
        let body = stream::iter([Ok(Bytes::from(bytes))]).boxed();
        engine.put_blob(caller, BUCKET, &key(at), PutOptions::default(), body).await.map(drop)
    });
    let mut puts = std::pin::pin!(puts.buffer_unordered(AT_ONCE));
    while let Some(put) = puts.next().await {
        put?;
    }
    Ok(())
}

async fn checkpoint(engine: &Engine, what: &str) -> Measured<()> {
    let started = Started::now();
    let report = tokio::time::timeout(LONG, engine.checkpoint_log()).await??;
    let (wall, cpu) = started.elapsed();
    println!(
        "{what}: {:.2} s, {:.2} s of processor time: {} rows in {} parts, {} blocks of {} bytes written, {} rows/s",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        report.rows,
        report.parts,
        report.written,
        report.bytes,
        rate(report.rows, wall)
    );
    Ok(())
}

async fn run(blobs: u64, len: usize) -> Measured<()> {
    let world = World::new()?;
    let (engine, folder) = world.start(Mode::Start).await?;
    let tenant = engine.create_tenant("bench").await?;
    let caller = Caller { tenant: tenant.id, principal: PrincipalId::NIL };
    engine.create_bucket(&caller, BUCKET).await?;
    let started = Started::now();
    fill(&engine, &caller, 0..blobs, len).await?;
    engine.settle_wait(LONG).await?;
    println!("{blobs} blobs of {len} bytes put and settled: {} blobs/s", rate(blobs, started.elapsed().0));
    engine.shutdown().await?;
    drop((engine, folder));

    let (engine, _folder) = world.recover("recovery from the log alone", blobs, &caller).await?;
    checkpoint(&engine, "checkpoint of everything").await?;
    let more = blobs / 100;
    fill(&engine, &caller, blobs..blobs + more, len).await?;
    engine.settle_wait(LONG).await?;
    checkpoint(&engine, "checkpoint after one blob more in a hundred").await?;
    engine.shutdown().await?;
    drop(engine);
    let (engine, _folder) = world.recover("recovery from the checkpoint", blobs + more, &caller).await?;
    engine.shutdown().await?;
    Ok(())
}

fn main() -> Measured<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let blobs = numbers.first().copied().unwrap_or(20_000).max(100);
    let len = usize::try_from(numbers.get(1).copied().unwrap_or(4096))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(blobs, len))
}
