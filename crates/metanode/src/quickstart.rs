//! `quickstart`: six emulated clouds and the real service on real sockets; half the clouds fail, the disk burns, every byte comes back.

mod dataset;
mod report;

use std::path::Path;
use std::time::Duration;

use diaspore_block::key::{Keyring, MasterKey};
use diaspore_engine::Mode;
use diaspore_engine::world::Entropy;
use diaspore_policy::BuiltInProfiles;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::report::Report;
use crate::blob::{self, Folder, PutFile};
use crate::cli::{Global, Quickstart};
use crate::client::Client;
use crate::config::Store;
use crate::dev::Clouds;
use crate::failure::{Explain, Failure, Outcome};
use crate::home::Home;
use crate::output::{as_f64, note, ratio};
use crate::service::{self, Parts, Running};
use crate::{audit, operate, secret};

/// Clouds; the profile codes 3-of-6 over them.
const CLOUDS: u16 = 6;
/// Clouds that are switched off.
const STOPPED: usize = 2;
/// Clouds that answer with flipped bits.
const LYING: usize = 1;
/// Blobs in flight.
const PARALLEL: usize = 16;
/// Downloads timed one by one before and after the losses.
const TIMED: usize = 150;
/// Longest wait for everything to be durable.
const SETTLE: Duration = Duration::from_mins(5);
const BUCKET: &str = "quickstart";

/// Runs the command; ctrl-c ends it at any point and leaves nothing behind.
pub(crate) async fn run(global: &Global, flags: &Quickstart) -> Outcome {
    let scratch =
        tempfile::Builder::new().prefix("diaspore-quickstart-").tempdir().explain(|| "cannot make a temporary folder".to_owned())?;
    let outcome = tokio::select! {
        biased;
        () = service::signals()? => Err(Failure::plain("interrupted; the temporary folder is removed")),
        outcome = Box::pin(story(global, flags, scratch.path())) => outcome,
    };
    scratch.close().explain(|| "cannot remove the temporary folder".to_owned())?;
    outcome
}

async fn story(global: &Global, flags: &Quickstart, scratch: &Path) -> Outcome {
    let began = Instant::now();
    let mut report = Report { providers: usize::from(CLOUDS), providers_stopped: STOPPED, providers_lying: LYING, ..Report::default() };
    note("gathering data");
    let (asked, into) = (flags.data.clone(), scratch.join("source"));
    let cap = flags.max_mib.saturating_mul(1 << 20);
    let gathered = tokio::task::spawn_blocking(move || dataset::gather(asked.as_deref(), cap, &into)).await;
    let folder = gathered.explain(|| "gathering the data failed".to_owned())??;
    let clouds = Clouds::start(CLOUDS, &scratch.join("clouds"), false).await?;
    note(&format!("{CLOUDS} emulated clouds are up; uploading {} files, {}", folder.files.len(), crate::output::bytes(folder.bytes())));

    let mut master = zeroize::Zeroizing::new([0_u8; 32]);
    service::entropy()?.draw(master.as_mut_slice());
    let keyring = diaspore_engine::new_keyring(service::entropy()?);
    let log_key = keyring.identity.public();
    let home = Home::find(Some(&scratch.join("home")), None)?;
    let stage = Stage { home, master: &master, clouds: &clouds, port: flags.port };
    let service = stage.up(Some(keyring)).await?;

    upload(&service, &folder, &clouds, &mut report).await?;
    let well = first_bytes(&service.client, folder.files.iter().step_by(stride(&folder))).await?;
    let checkpoint = scratch.join("earlier-checkpoint");
    save_checkpoint(&service, &checkpoint).await?;

    note(&format!("stopping {STOPPED} clouds, {LYING} more starts to lie; downloading everything"));
    break_clouds(&clouds)?;
    let hurt = first_bytes(&service.client, folder.files.iter().skip(1).step_by(stride(&folder))).await?;
    latencies(&mut report, &well, &hurt);
    let (equal, rate) = compare(&service.client, &folder, &mut report.failures).await?;
    (report.byte_equal, report.download_mb_per_s) = (equal, rate);
    report.lies_caught = operate::Status::of(&service.operator).await?.providers.iter().map(|provider| provider.lies).sum();

    note("wiping the service's disk and recovering; the stopped clouds are declared lost, the liar goes on lying");
    let port = service.port;
    service.down().await?;
    std::fs::remove_dir_all(stage.home.root()).explain(|| "cannot wipe the service's disk".to_owned())?;
    let recovering = Instant::now();
    let service = Stage { port, ..stage }.up(None).await?;
    report.recover_ms = millis(recovering);
    let (equal, rate) = compare(&service.client, &folder, &mut report.failures).await?;
    (report.recovered_byte_equal, report.recovered_download_mb_per_s) = (equal, rate);

    let export = scratch.join("audit.jsonl");
    let mut bytes = Vec::new();
    audit::export(&service.operator, 0, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    std::fs::write(&export, bytes).explain(|| format!("cannot write {}", export.display()))?;
    match audit::verify(&export, &log_key, Some(&checkpoint)) {
        Ok(verified) => (report.audit_verified, report.audit_entries) = (true, verified.entries),
        Err(failure) => report.failures.push(failure.message),
    }
    report.provider_requests = clouds.handles.iter().map(|cloud| cloud.counters().requests()).sum();
    report.total_s = began.elapsed().as_secs_f64();
    global.output.print(&report, || report.text())?;
    report.verdict()?;
    if flags.once {
        return service.down().await;
    }
    stay(&service, &clouds, &folder, &export).await
}

/// Where the service runs and with what.
struct Stage<'a> {
    home: Home,
    master: &'a [u8; 32],
    clouds: &'a Clouds,
    port: u16,
}

/// The service with its front, and clients for both roles.
struct Service {
    running: Running,
    client: Client,
    operator: Client,
    home: Home,
    port: u16,
    stop: oneshot::Sender<()>,
    front: JoinHandle<Result<(), diaspore_server::ServerError>>,
}

impl Stage<'_> {
    /// Starts with a fresh keyring, or recovers one and everything else from the clouds that were not stopped.
    async fn up(&self, fresh: Option<Keyring>) -> Outcome<Service> {
        self.home.create()?;
        let profiles = BuiltInProfiles::load().explain(|| "the built-in policies are broken".to_owned())?;
        let parts = Parts {
            accept_loss: None,
            home: self.home.clone(),
            profile: profiles.get("quickstart").explain(|| "the quickstart policy is missing".to_owned())?.clone(),
            specs: self.clouds.specs.clone(),
            credentials: self.clouds.credentials.clone(),
            master: MasterKey::from_bytes(*self.master),
            probe_deadline: Duration::from_secs(5),
            answer_deadline: Duration::from_secs(30),
            checkpoint_after: 50_000,
            store: Store::default(),
        };
        let listener: TcpListener = service::listen(([127, 0, 0, 1], self.port).into()).await?;
        let port = listener.local_addr().explain(|| "the listening socket has no address".to_owned())?.port();
        let running = if let Some(keyring) = fresh {
            Box::pin(service::bring_up(&parts, keyring, Mode::Start)).await?
        } else {
            let keyring = service::find_keyring(&parts).await?;
            let declare_lost = parts.specs.iter().take(STOPPED).map(|spec| spec.domain.to_string()).collect();
            Box::pin(service::bring_up(&parts, keyring, Mode::Recover { declare_lost })).await?
        };
        service::require_active(&running.engine)?;
        service::ensure_tokens(&self.home, &running.engine).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let front = tokio::spawn(diaspore_server::serve(running.engine.clone(), listener, service::options()?, async {
            drop(stopped.await);
        }));
        let base = format!("http://127.0.0.1:{port}");
        let token = |path: std::path::PathBuf| -> Outcome<String> {
            let bytes = secret::read_private(&path)?;
            String::from_utf8(bytes.to_vec()).explain(|| "the token is no text".to_owned())
        };
        let client = Client::new(&base, token(self.home.client_token())?)?;
        let operator = Client::new(&base, token(self.home.operator_token())?)?;
        Ok(Service { running, client, operator, home: self.home.clone(), port, stop, front })
    }
}

impl Service {
    /// Ends in order: requests first, then the engine.
    async fn down(self) -> Outcome {
        drop((self.client, self.operator));
        drop(self.stop);
        self.front.await.explain(|| "the HTTP front failed".to_owned())?.explain(|| "the HTTP front failed".to_owned())?;
        self.running.engine.shutdown().await.map_err(service::engine_failure)
    }
}

async fn upload(service: &Service, folder: &Folder, clouds: &Clouds, report: &mut Report) -> Outcome {
    let bar = ProgressBar::new(folder.bytes());
    let began = Instant::now();
    blob::put_all(&service.client, BUCKET, folder.files.clone(), PARALLEL, &bar).await?;
    report.upload_mb_per_s = megabytes_per_s(folder.bytes(), began);
    bar.finish_and_clear();
    let settling = Instant::now();
    let settled = operate::wait_settled(&service.operator, SETTLE).await?;
    report.settle_ms = millis(settling);
    if !settled.settled {
        report.failures.push(format!("{} blocks were not settled in time", settled.unsettled_blocks));
    }
    let status = operate::Status::of(&service.operator).await?;
    (report.blobs, report.logical_bytes) = (status.blobs, status.logical_bytes);
    (report.unique_bytes, report.compressed_bytes) = (status.unique_bytes, status.compressed_bytes);
    (report.sealed_bytes, report.k, report.n) = (status.sealed_bytes, status.k, status.n);
    for cloud in &clouds.handles {
        report.stored_bytes += cloud.stored().explain(|| "cannot count what a cloud stores".to_owned())?.1;
        report.upload_provider_requests += cloud.counters().requests();
    }
    report.coding_overhead = ratio(report.stored_bytes, report.sealed_bytes).unwrap_or_default();
    report.dedup_ratio = ratio(report.logical_bytes, report.unique_bytes).unwrap_or_default();
    report.compression_ratio = ratio(report.unique_bytes, report.compressed_bytes).unwrap_or_default();
    let files = u64::try_from(folder.files.len()).unwrap_or_default();
    if report.blobs != files || report.logical_bytes != folder.bytes() {
        report.failures.push(format!("{files} files were uploaded, the service counts {}", report.blobs));
    }
    Ok(())
}

async fn save_checkpoint(service: &Service, path: &Path) -> Outcome {
    let response = service.operator.send(service.operator.request(reqwest::Method::GET, "/api/v1/audit/checkpoint")).await?;
    let text = response.text().await.map_err(|error| service.operator.unreachable(&error))?;
    std::fs::write(path, text).explain(|| format!("cannot write {}", path.display()))
}

/// Switches two clouds off and makes a third lie on every read.
fn break_clouds(clouds: &Clouds) -> Outcome {
    for cloud in clouds.handles.iter().take(STOPPED) {
        cloud.kill();
    }
    for liar in clouds.handles.iter().skip(STOPPED).take(LYING) {
        let lies = FaultPlan::default().with(Fault::chance(Misbehaviour::Flip { bits: 8 }, 1.0).on(&[Op::Get]));
        liar.set_faults(lies).explain(|| "cannot make a cloud lie".to_owned())?;
    }
    Ok(())
}

fn mend_clouds(clouds: &Clouds) -> Outcome {
    for cloud in &clouds.handles {
        cloud.set_faults(FaultPlan::default()).explain(|| "cannot mend a cloud".to_owned())?;
        cloud.resume().explain(|| "cannot bring a cloud back".to_owned())?;
    }
    Ok(())
}

/// Milliseconds to the first byte, one download after the other, sorted.
async fn first_bytes(client: &Client, files: impl Iterator<Item = &PutFile>) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for file in files.filter(|file| file.size > 0).take(TIMED) {
        let began = Instant::now();
        let response = client.send(client.request(reqwest::Method::GET, &blob::path_of(BUCKET, &file.key))).await?;
        let mut pieces = response.bytes_stream();
        drop(pieces.next().await);
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        while let Some(piece) = pieces.next().await {
            drop(piece.map_err(|error| client.unreachable(&error))?);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn stride(folder: &Folder) -> usize {
    (folder.files.len() / TIMED).max(2)
}

fn latencies(report: &mut Report, well: &[f64], hurt: &[f64]) {
    let at = |times: &[f64], percent: usize| {
        times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    (report.first_byte_p50_ms, report.first_byte_p99_ms) = (at(well, 50), at(well, 99));
    // Against the healthy median: the most that a loss can be said to add.
    report.failover_p50_ms = (at(hurt, 50) - at(well, 50)).max(0.0);
    report.failover_p99_ms = (at(hurt, 99) - at(well, 50)).max(0.0);
}

/// Downloads everything and compares it with the files. Differences are told, up to a few.
async fn compare(client: &Client, folder: &Folder, failures: &mut Vec<String>) -> Outcome<(bool, f64)> {
    let began = Instant::now();
    let checks = futures::stream::iter(&folder.files).map(|file| same(client, file)).buffer_unordered(PARALLEL);
    let different: Vec<String> = checks.try_filter_map(|difference| async { Ok(difference) }).try_collect().await?;
    let rate = megabytes_per_s(folder.bytes(), began);
    failures.extend(different.iter().take(5).cloned());
    Ok((different.is_empty(), rate))
}

/// `None` when the blob's bytes are the file's.
async fn same(client: &Client, file: &PutFile) -> Outcome<Option<String>> {
    let name = String::from_utf8_lossy(&file.key).into_owned();
    let wanted = tokio::fs::read(&file.path).await.explain(|| format!("cannot read {}", file.path.display()))?;
    let response = match client.send(client.request(reqwest::Method::GET, &blob::path_of(BUCKET, &file.key))).await {
        Ok(response) => response,
        Err(failure) => return Ok(Some(format!("{name}: {}", failure.message))),
    };
    let (mut pieces, mut at) = (response.bytes_stream(), 0_usize);
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { return Ok(Some(format!("{name}: broke off after {at} bytes"))) };
        if wanted.get(at..at + piece.len()) != Some(&piece[..]) {
            return Ok(Some(format!("{name}: differs behind byte {at}")));
        }
        at += piece.len();
    }
    Ok((at != wanted.len()).then(|| format!("{name}: {at} bytes instead of {}", wanted.len())))
}

/// All clouds well again; prints what to try and waits for ctrl-c.
async fn stay(service: &Service, clouds: &Clouds, folder: &Folder, export: &Path) -> Outcome {
    mend_clouds(clouds)?;
    let base = service.client.base();
    let home = service.home.root().display();
    let bearer = format!("-H \"Authorization: Bearer $(cat {})\"", service.home.client_token().display());
    let example =
        folder.files.iter().find(|file| file.key.ends_with(b".md") || file.key.ends_with(b".rs")).or_else(|| folder.files.first());
    let example = example.map(|file| blob::path_of(BUCKET, &file.key)).unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| "metanode".into());
    let program = program.display();
    note("\nAll clouds are well again and the service stays up until ctrl-c. Try:");
    note(&format!("  curl -s {bearer} '{base}{example}' | head"));
    note(&format!("  curl -s {bearer} '{base}/api/v1/blobs/{BUCKET}?delimiter=%2F'"));
    note(&format!("  echo hello | curl -s {bearer} -T - '{base}/api/v1/blobs/{BUCKET}/hello.txt'"));
    note(&format!("  curl -s {bearer} '{base}/api/v1/blobs/{BUCKET}/hello.txt'"));
    note(&format!("  curl -s -H \"Authorization: Bearer $(cat {})\" '{base}/api/v1/status'", service.home.operator_token().display()));
    note(&format!("  {program} --home {home} --url {base} storage distributed status"));
    note(&format!("  {program} audit verify {} --key {}", export.display(), service.home.log_public_key().display()));
    std::future::pending().await
}

fn megabytes_per_s(bytes: u64, since: Instant) -> f64 {
    as_f64(bytes) / 1_000_000.0 / since.elapsed().as_secs_f64().max(1e-9)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
