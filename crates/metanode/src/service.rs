//! The service process: keys, ledger, fleet and engine put together, the HTTP front before them, and an orderly end.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use diaspore_block::BlockError;
use diaspore_block::id::{PrincipalId, TenantId};
use diaspore_block::key::{Keyring, MasterKey};
use diaspore_engine::api::{Caller, Error, ErrorKind};
use diaspore_engine::world::{Draw, SystemClock, SystemEntropy};
use diaspore_engine::{AcceptLoss, Engine, EngineConfig, Fatal, Loss, Mode, Unanswered};
use diaspore_ledger::{FileMedium, Ledger, LedgerError, MemoryMedium, OpenMode, create_folder};
use diaspore_policy::{Profile, ProviderSpec};
use diaspore_provider::{Credentials, Fleet, FleetOptions, ProviderId};
use diaspore_server::{MetricsText, ServerOptions};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::cli::Global;
use crate::cli::storage::{Recover, Serve, Start};
use crate::config::{Config, Store};
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::output::note;
use crate::recovered::Recovered;
use crate::{copies, credentials, history, init, reading, recovered, rotate, salvage, secret, upkeep};

/// Everything a service is made of, before it runs.
pub(crate) struct Parts {
    pub(crate) home: Home,
    pub(crate) profile: Profile,
    pub(crate) specs: Vec<ProviderSpec>,
    pub(crate) credentials: Credentials,
    pub(crate) master: MasterKey,
    pub(crate) probe_deadline: Duration,
    pub(crate) answer_deadline: Duration,
    pub(crate) checkpoint_after: u64,
    pub(crate) store: Store,
    /// In a recovery: the operator's word on a list of losses.
    pub(crate) accept_loss: Option<AcceptLoss>,
}

/// A running engine and the word that it has stopped for good.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    fatal: mpsc::UnboundedReceiver<Fatal>,
    disk: Disk,
}

/// What the service does with its data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Keeps its ledger there.
    Own,
    /// Reads it.
    ReadOnly,
    /// Leaves it alone.
    Memory,
}

/// The tenant whose key the first start leaves in the home folder.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// `storage distributed start`.
pub(crate) async fn start(global: &Global, flags: &Start) -> Outcome {
    if !flags.audit_enabled {
        return Err(Failure::usage(
            "--audit-enabled false is not possible: the audit log is the commit log, without it nothing could be stored",
        )
        .hint("leave the flag out"));
    }
    if !flags.backup_enabled {
        return Err(Failure::usage("--backup-enabled false is not possible: keys and log lie at the providers from the first write on")
            .hint("leave the flag out; metanode storage distributed recover is what it gives"));
    }
    let (home, config, parts) = prepare(global, &flags.serve)?;
    if flags.read_only {
        upkeep::exists(&home)?;
        let listener = listen(config.service.address()).await?;
        let keyring = init::open_keyring(&home, &parts.master)?;
        let running = bring_up_on(&parts, keyring, Mode::ReadOnly, Disk::ReadOnly).await?;
        reading::announce(&running.engine)?;
        return serve(&home, running, listener).await;
    }
    if flags.in_memory {
        let listener = listen(config.service.address()).await?;
        let keyring = keyring_in_memory(&parts).await?;
        // An empty disk is what this mode is about: the permission is the flag.
        let running = bring_up_on(&parts, keyring, Mode::Recover { declare_lost: Vec::new() }, Disk::Memory).await?;
        copies::spread(&parts, &running.engine).await;
        return serve(&home, running, listener).await;
    }
    // Taken first: a port in use is found before anything is claimed at the providers.
    let listener = listen(config.service.address()).await?;
    let keyring = init::open_keyring(&home, &parts.master)?;
    let running = bring_up(&parts, rotate::copy(&keyring)?, Mode::Start).await?;
    rotate::promote(&home, &parts.master)?;
    copies::spread(&parts, &running.engine).await;
    if rotate::finish_at_start(&home, &running.engine, &parts.master, &keyring).await? {
        make_room(&parts, &running.engine).await?;
    }
    drop(keyring);
    serve(&home, running, listener).await
}

/// `storage distributed recover`.
pub(crate) async fn recover(global: &Global, flags: &Recover) -> Outcome {
    let (home, config, mut parts) = prepare(global, &flags.listen)?;
    parts.accept_loss = flags.accept_loss.clone().map(|token| AcceptLoss { token, by: recovered::operator() });
    if let Some(folder) = &flags.salvage {
        return Box::pin(salvage::run(global, &parts, folder)).await;
    }
    let listener = if flags.serve { Some(listen(config.service.address()).await?) } else { None };
    home.create()?;
    let keyring = find_keyring(&parts).await?;
    let declare_lost = flags.declare_lost.iter().map(|name| domain_of(&parts.specs, name)).collect::<Outcome<_>>()?;
    let running = match bring_up(&parts, keyring, Mode::Recover { declare_lost }).await {
        Ok(running) => running,
        Err(failure) => return Err(recovered::refused(global.output, failure)?),
    };
    // An end of the log that is not decided shows nothing; with too few domains to write, everything can still be read.
    if !running.engine.is_readable() {
        return require_active(&running.engine);
    }
    let losses = running.engine.losses().await.map_err(engine_failure)?;
    let recovered = Recovered { status: running.engine.status(), losses };
    global.output.print(&recovered, || recovered.to_string())?;
    if let Some(why) = running.engine.why_read_only() {
        note(&format!("warning: {why}"));
    }
    copies::spread(&parts, &running.engine).await;
    if let Some(listener) = listener {
        return serve(&home, running, listener).await;
    }
    ensure_tokens(&home, &running.engine).await?;
    running.engine.shutdown().await.map_err(engine_failure)?;
    recovered.verdict()
}

/// The failure domain of a provider, by the provider's or the domain's name.
fn domain_of(specs: &[ProviderSpec], name: &str) -> Outcome<String> {
    let found = specs.iter().find(|spec| spec.id.as_str() == name || spec.domain.as_str() == name);
    found.map(|spec| spec.domain.to_string()).ok_or_else(|| {
        let known = specs.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>().join(", ");
        Failure::usage(format!("--declare-lost {name}: no provider of this name is configured")).hint(format!("there are {known}"))
    })
}

/// Configuration, flags and secrets, checked as far as they can be without asking a provider.
pub(crate) fn prepare(global: &Global, serve: &Serve) -> Outcome<(Home, Config, Parts)> {
    let home = Home::find(global.home.as_deref(), global.config.as_deref())?;
    let mut config = Config::load(home.config())?;
    config.service.port = serve.port.unwrap_or(config.service.port);
    config.service.listen = serve.listen.unwrap_or(config.service.listen);
    let profile = config.policy.resolve()?;
    let specs = config.specs()?;
    let domains: std::collections::BTreeSet<_> = specs.iter().filter(|spec| profile.admits(spec)).map(|spec| &spec.domain).collect();
    Config::check_domains(&profile, domains.len())?;
    if config.insecure {
        note("warning: this deployment is sealed under a published key: anybody can read it (init --encryption false --insecure)");
    }
    let parts = Parts {
        credentials: credentials::load(&home, &specs)?,
        master: init::master_key(&home, &config, serve.master_key.as_deref())?,
        home: home.clone(),
        profile,
        specs,
        probe_deadline: Duration::from_millis(config.service.probe_deadline_ms),
        answer_deadline: Duration::from_millis(config.service.answer_deadline_ms),
        checkpoint_after: config.service.checkpoint_after,
        store: config.store,
        accept_loss: None,
    };
    Ok((home, config, parts))
}

/// Connects the fleet; sends nothing.
pub(crate) fn connect(specs: &[ProviderSpec], credentials: &Credentials) -> Outcome<Fleet> {
    Fleet::connect(specs, credentials, FleetOptions::default()).map_err(|error| {
        Failure::usage(error.to_string())
            .hint("DIASPORE_<NAME>_ACCESS_KEY_ID and DIASPORE_<NAME>_SECRET_ACCESS_KEY, or")
            .hint("metanode storage providers configure --name NAME --access-key-file FILE --secret-key-file FILE")
    })
}

/// The keyring as the providers hold it, written to the disk.
pub(crate) async fn find_keyring(parts: &Parts) -> Outcome<Keyring> {
    let fleet = connect(&parts.specs, &parts.credentials)?;
    let found = Engine::find_keyring(&parts.master, &fleet).await.map_err(|error| {
        keyring_failure(&parts.home, error)
            .hint("the master key must be this deployment's, and one provider that holds the keyring must answer")
    })?;
    let keyring = found.ok_or_else(|| {
        Failure::new(Exit::Refused, "no provider holds a keyring for this master key")
            .hint("check that it is the right key file, and that these are the right accounts, buckets and prefixes")
            .hint("if metanode keys rotate replaced this key: the one that followed it opens everything")
    })?;
    copies::adopt(&parts.home, &parts.master, keyring)
}

/// Opens the ledger and starts the engine, which is to reconcile.
pub(crate) async fn bring_up(parts: &Parts, keyring: Keyring, mode: Mode) -> Outcome<Running> {
    bring_up_on(parts, keyring, mode, Disk::Own).await
}

/// The keyring for a service that keeps nothing here: the one `init` made, or the providers'. A new deployment's is put there first.
async fn keyring_in_memory(parts: &Parts) -> Outcome<Keyring> {
    if parts.home.ledger().exists() {
        return Err(Failure::usage(format!("--in-memory would pass over the ledger in {}", parts.home.ledger().display()))
            .hint("it may hold what no provider has yet: start without --in-memory, run settle --wait, stop, and move that folder away"));
    }
    let fleet = connect(&parts.specs, &parts.credentials)?;
    let found = Engine::find_keyring(&parts.master, &fleet).await;
    if let Some(keyring) = found.map_err(|error| keyring_failure(&parts.home, error))? {
        return Ok(keyring);
    }
    let keyring = init::open_keyring(&parts.home, &parts.master)?;
    let planted = Engine::plant_keyring(&parts.master, &keyring, &fleet, entropy()?).await;
    planted.map(|_| keyring).map_err(|error| keyring_failure(&parts.home, error))
}

/// The same over the data folder, or without it.
async fn bring_up_on(parts: &Parts, keyring: Keyring, mode: Mode, disk: Disk) -> Outcome<Running> {
    let fleet = connect(&parts.specs, &parts.credentials)?;
    let folder = parts.home.ledger();
    if mode == Mode::Start && !folder.exists() {
        plant(parts, &keyring, &fleet).await?;
    }
    let salts = Box::new(Draw(entropy()?));
    let cache = parts.store.cache();
    let opened = match disk {
        Disk::Own => {
            create_folder(&folder).explain(|| format!("cannot make {}", folder.display()))?;
            Ledger::open_with_cache(FileMedium::new(&folder), &keyring.ledger, OpenMode::ReadWrite, salts, cache)
        }
        Disk::ReadOnly => Ledger::open_with_cache(FileMedium::new(&folder), &keyring.ledger, OpenMode::ReadOnly, salts, cache),
        Disk::Memory => Ledger::open_with_cache(MemoryMedium::new(), &keyring.ledger, OpenMode::ReadWrite, salts, cache),
    };
    let ledger = opened.map_err(|error| ledger_failure(&error))?;
    let (told, fatal) = mpsc::unbounded_channel();
    let mut config = EngineConfig::new(parts.profile.clone());
    config.mode = mode;
    config.accept_loss = parts.accept_loss.clone();
    config.probe_deadline = parts.probe_deadline;
    config.answer_deadline = parts.answer_deadline;
    config.checkpoint_after = parts.checkpoint_after;
    config.flush_every = parts.store.flush_every();
    if disk != Disk::Memory {
        config.history = history::load(&parts.home);
    }
    config.on_fatal = Arc::new(move |event| drop(told.send(event)));
    let own = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
    let starting = Engine::start(config, Arc::new(keyring), fleet, ledger, Arc::new(SystemClock), Arc::new(own));
    let engine = Box::pin(starting).await.map_err(start_failure)?;
    Ok(Running { engine, fatal, disk })
}

/// Makes room for more tenants in the keyring's next version, if there is too little in this one. The next start uses it.
async fn make_room(parts: &Parts, engine: &Engine) -> Outcome {
    match engine.extend_keyring(&parts.master).await {
        Ok(None) => Ok(()),
        Ok(Some(sealed)) => {
            note("the keyring has room for more tenants: from the next start on they can be created");
            secret::replace_private(&parts.home.keyring(), &sealed)
        }
        Err(error) => {
            tracing::warn!(%error, "no room was made for more tenants");
            Ok(())
        }
    }
}

/// Puts the keyring of a new deployment on the providers, as far as an earlier try did not.
///
/// Looks first, and goes on only when every provider has answered: planting over another deployment's keyring would make that one
/// unrecoverable where a provider lets names be overwritten.
async fn plant(parts: &Parts, keyring: &Keyring, fleet: &Fleet) -> Outcome {
    let found = Engine::find_keyring(&parts.master, fleet).await.map_err(|error| {
        keyring_failure(&parts.home, error)
            .hint("the very first start needs an answer from every provider: one that is silent may hold the keyring of an earlier deployment under this master key, and it must not be buried")
            .hint("metanode storage providers configure --test shows what each of them answers")
    })?;
    if found.is_some_and(|found| found.deployment != keyring.deployment) {
        return Err(Failure::new(Exit::Refused, "the providers already hold another deployment under this master key")
            .hint("its disk is lost: metanode storage distributed recover")
            .hint("to begin anew beside it: another master key, and other buckets or prefixes"));
    }
    let sealed = Engine::plant_keyring(&parts.master, keyring, fleet, entropy()?).await.map_err(|error| {
        keyring_failure(&parts.home, error).hint("metanode storage providers configure --test shows what each of them answers")
    })?;
    secret::replace_private(&parts.home.keyring(), &sealed)
}

/// Binds the address.
pub(crate) async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(Exit::Unavailable, format!("cannot listen on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => failure.hint("another process has the port: stop it, or give --port"),
            std::io::ErrorKind::PermissionDenied => failure.hint("ports below 1024 need a privilege: give --port"),
            _ => failure,
        }
    })
}

/// Serves until a signal or a fatal event, then ends in order.
async fn serve(home: &Home, mut running: Running, listener: TcpListener) -> Outcome {
    ensure_tokens(home, &running.engine).await?;
    let address = listener.local_addr().explain(|| "the listening socket has no address".to_owned())?;
    let status = running.engine.status();
    tracing::info!(%address, state = status.state, k = status.k, n = status.n, blobs = status.blobs, "serving");
    note(&format!("serving on http://{address} ({}, any {} of {} rebuild)", status.state, status.k, status.n));
    if let Some(why) = status.writes_refused {
        note(&format!("warning: writes are refused: {why}"));
    }
    // Before the first request is answered: whoever sees the service ready may ask it to stop.
    let signals = signals()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut front = tokio::spawn(diaspore_server::serve(running.engine.clone(), listener, options()?, async {
        drop(stopped.await);
    }));
    let fatal = tokio::select! {
        biased;
        event = running.fatal.recv() => event,
        () = signals => None,
        () = history::keep(home, &running.engine), if running.disk == Disk::Own => None,
        ended = &mut front => {
            return Err(Failure::plain(format!("the HTTP front ended: {ended:?}")));
        }
    };
    drop(stop);
    if let Some(event) = fatal {
        return Err(fatal_failure(&event));
    }
    note("stopping: running requests end first");
    front.await.explain(|| "the HTTP front failed".to_owned())?.map_err(|error| Failure::plain(error.to_string()))?;
    if running.disk == Disk::Own {
        history::save(home, &running.engine);
    }
    running.engine.shutdown().await.map_err(engine_failure)
}

/// Watches for SIGINT and SIGTERM from now on; what it gives resolves at the first of them.
pub(crate) fn signals() -> Outcome<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).explain(|| "cannot watch for signals".to_owned())?;
    let mut terminate = signal(SignalKind::terminate()).explain(|| "cannot watch for signals".to_owned())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Options of the HTTP front, with the process's metrics behind `/metrics`.
pub(crate) fn options() -> Outcome<ServerOptions> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = if let Some(handle) = RECORDER.get() {
        handle.clone()
    } else {
        let fresh = PrometheusBuilder::new().install_recorder().explain(|| "cannot set up metrics".to_owned())?;
        RECORDER.get_or_init(|| fresh).clone()
    };
    let text: MetricsText = Arc::new(move || handle.render());
    Ok(ServerOptions { metrics_text: Some(text), ..ServerOptions::default() })
}

/// The operating system's generator, for as long as the process lives.
pub(crate) fn entropy() -> Outcome<&'static SystemEntropy> {
    static ENTROPY: OnceLock<SystemEntropy> = OnceLock::new();
    if let Some(entropy) = ENTROPY.get() {
        return Ok(entropy);
    }
    let fresh = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
    Ok(ENTROPY.get_or_init(|| fresh))
}

/// Leaves an operator key and a key of the default tenant in the home folder, unless working ones are there.
pub(crate) async fn ensure_tokens(home: &Home, engine: &Engine) -> Outcome {
    if engine.status().state != "active" {
        return Ok(());
    }
    let works = |path: &std::path::Path| -> bool {
        let token = secret::read_private(path).ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        token.is_some_and(|token| engine.authenticate(token.trim()).is_some())
    };
    let system = Caller { tenant: TenantId::SYSTEM, principal: PrincipalId::NIL };
    let operator = home.operator_token();
    if !works(&operator) {
        let scopes = vec!["admin".to_owned(), "audit".to_owned()];
        let key = engine.create_api_key(&system, TenantId::SYSTEM, "operator", scopes, None).await.map_err(engine_failure)?;
        secret::replace_private(&operator, key.token.as_bytes())?;
        note(&format!("the operator's API key is in {}", operator.display()));
    }
    let client = home.client_token();
    if !works(&client) {
        let tenant = match engine.tenant(DEFAULT_TENANT).await.map_err(engine_failure)? {
            Some(tenant) => tenant,
            None => engine.create_tenant(DEFAULT_TENANT).await.map_err(engine_failure)?,
        };
        let scopes = vec!["read".to_owned(), "write".to_owned()];
        let key = engine.create_api_key(&system, tenant.id, "client", scopes, None).await.map_err(engine_failure)?;
        secret::replace_private(&client, key.token.as_bytes())?;
        note(&format!("an API key for blobs of the tenant {DEFAULT_TENANT} is in {}", client.display()));
    }
    Ok(())
}

/// Exit 3 when the log's end could not be decided.
pub(crate) fn require_active(engine: &Engine) -> Outcome {
    let status = engine.status();
    if status.state == "active" {
        return Ok(());
    }
    let why = engine.why_read_only().unwrap_or_else(|| format!("{} of {} failure domains answer", status.healthy_domains, status.domains));
    Err(Failure::new(Exit::Unavailable, format!("the end of the log could not be decided, the service is {}: {why}", status.state))
        .hint("bring providers back and run the command again")
        .hint("if some are lost for good: metanode storage distributed recover --declare-lost NAME"))
}

/// An engine's error as a command's failure.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err, and nobody needs the error afterwards")]
pub(crate) fn engine_failure(error: Error) -> Failure {
    let exit = match error.kind {
        ErrorKind::RefusedState => Exit::Refused,
        ErrorKind::IntegrityViolation => Exit::Integrity,
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::DataUnavailable | ErrorKind::TooFewDomains | ErrorKind::NotAccepted | ErrorKind::ReadOnly => Exit::Unavailable,
        _ => Exit::Failure,
    };
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source()).map(ToString::to_string);
    let message = std::iter::once(error.message.clone()).chain(causes).collect::<Vec<_>>().join(": ");
    Failure::new(exit, message)
}

/// The same for a start, which may come with a list of what is missing.
fn start_failure(mut error: Error) -> Failure {
    let Some(source) = error.source.take() else { return engine_failure(error) };
    match source.downcast::<Loss>() {
        Ok(loss) => Failure { loss: Some(loss), ..engine_failure(error) },
        Err(source) => {
            let too_old = matches!(source.downcast_ref(), Some(BlockError::KeyMissing { .. }));
            error.source = Some(source);
            let failure = engine_failure(error);
            if too_old {
                failure.hint("the keyring on this disk is older than the log: metanode storage distributed recover fetches the newest from the providers")
            } else {
                failure
            }
        }
    }
}

/// The same for the keyring at the providers. An account that was turned away is a mistake in the configuration (exit 2), which no
/// waiting mends: the hint says where its credentials come from.
fn keyring_failure(home: &Home, error: Error) -> Failure {
    let unanswered = error.source.as_ref().and_then(|cause| cause.downcast_ref::<Unanswered>());
    let denied: Vec<ProviderId> = unanswered
        .into_iter()
        .flat_map(|unanswered| &unanswered.0)
        .filter(|answer| answer.kind == diaspore_provider::ErrorKind::Denied)
        .map(|answer| answer.provider.clone())
        .collect();
    let mut failure = engine_failure(error);
    for provider in denied {
        failure.exit = Exit::Usage;
        failure =
            failure.hint(format!("{provider} refused its credentials, which come from {}", credentials::origin_text(home, &provider)));
    }
    failure
}

pub(crate) fn ledger_failure(error: &LedgerError) -> Failure {
    let exit = match error {
        LedgerError::WrongKey | LedgerError::NewerSchema { .. } | LedgerError::OlderSchema { .. } => Exit::Refused,
        LedgerError::Corrupt { .. } | LedgerError::Backup { .. } => Exit::Integrity,
        _ => Exit::Failure,
    };
    Failure::new(exit, error.to_string())
}

fn fatal_failure(event: &Fatal) -> Failure {
    match event {
        Fatal::JournalSync(what) => Failure::plain(format!("the journal could not be made durable: {what}"))
            .hint("check the disk; the next start reconciles with the providers"),
        Fatal::Ledger(what) => Failure::plain(format!("the ledger and the log came apart: {what}"))
            .hint("start again; if that fails, move the data folder away and run metanode storage distributed recover"),
        Fatal::Superseded(what) => Failure::new(Exit::Refused, format!("another writer holds the log: {what}"))
            .hint("one service per deployment: stop the other one before this one is started again"),
        Fatal::Refused(what) => Failure::new(Exit::Refused, format!("the service started anew over what it holds, and refused it: {what}"))
            .hint("start it again: a start says the same, or goes on once the cause is gone"),
    }
}

#[cfg(test)]
mod tests {
    use diaspore_block::id::KeyVersion;

    use super::*;

    #[test]
    fn a_keyring_older_than_the_log_is_told_from_damage() {
        let start = |cause: BlockError| start_failure(Error::caused(ErrorKind::RefusedState, "commit block 7 does not open", cause));
        let missing = start(BlockError::KeyMissing { tenant: TenantId::NIL, version: KeyVersion(0) });
        assert!(missing.exit == Exit::Refused && missing.hints.iter().any(|hint| hint.contains("older than the log")), "{missing}");
        assert!(start(BlockError::NotAuthentic { what: "x" }).hints.is_empty());
    }
}
