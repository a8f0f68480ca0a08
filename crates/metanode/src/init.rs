//! `storage distributed init`: configuration, master key, keyring. Running it again with the same flags changes nothing.

use std::path::Path;
use std::str::FromStr;

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::seal::Salt;
use diaspore_engine::world::{Draw, SystemEntropy};
use diaspore_policy::{AccountConfig, Catalogue, ProviderId};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::storage::Init;
use crate::config::{Config, Policy, SCHEMA, Service, Store};
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::output::Format;
use crate::rotate;
use crate::secret::{self, PUBLISHED_KEY, SecretSource};

/// What `init` reports.
#[derive(Serialize)]
struct Report {
    home: String,
    created: bool,
    master_key: String,
    log_public_key: String,
    providers: Vec<String>,
    k: u8,
    n: u8,
    losses_survived: u8,
    overhead_permille: u32,
    encryption: bool,
    compression: bool,
}

/// Runs the command.
pub(crate) fn run(format: Format, home: &Home, flags: &Init) -> Outcome {
    let wanted = wanted(flags)?;
    let profile = wanted.policy.resolve()?;
    let plan = Config::check_domains(&profile, wanted.providers.len())?;
    let created = !home.config().exists();
    if !created {
        agree(&wanted, &Config::load(home.config())?, home)?;
    }
    home.create()?;
    let master_key = prepare_master_key(home, &wanted)?;
    let public = prepare_keyring(home, &master_key)?;
    if created {
        // Written last: a configuration without its keys would make the next run believe that all is done.
        secret::create_private(home.config(), wanted.to_toml()?.as_bytes())?;
    }
    let report = Report {
        home: home.root().display().to_string(),
        created,
        master_key: if wanted.insecure { "published (insecure)".to_owned() } else { source_text(home, &wanted.service) },
        log_public_key: public,
        providers: wanted.providers.iter().map(|account| account.name.to_string()).collect(),
        k: plan.k,
        n: plan.n,
        losses_survived: plan.losses_survived(),
        overhead_permille: plan.overhead_permille(),
        encryption: !wanted.insecure,
        compression: profile.compression,
    };
    format.print(&report, || text(&report))?;
    if created && !wanted.insecure {
        crate::output::note(&format!(
            "hint: copy the master key ({}) to a safe place now: with it and the provider credentials everything can be recovered, without it nothing",
            report.master_key
        ));
        crate::output::note(
            "hint: next: metanode storage providers configure --name NAME --bucket BUCKET ... --test, then metanode storage distributed start",
        );
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let state = if report.created { "Initialised" } else { "Unchanged" };
    format!(
        "{state}: {}\nMaster Key: {}\nLog Public Key: {}\nProviders: {}\nGeometry: any {} of {} rebuild, {} may be lost, {}.{:03}x stored\nEncryption: {}\nCompression: {}",
        report.home,
        report.master_key,
        report.log_public_key,
        report.providers.join(", "),
        report.k,
        report.n,
        report.losses_survived,
        report.overhead_permille / 1000,
        report.overhead_permille % 1000,
        if report.encryption { "on" } else { "OFF: sealed under a published key, anybody can read it" },
        if report.compression { "on" } else { "off" },
    )
}

/// The configuration that the flags describe.
fn wanted(flags: &Init) -> Outcome<Config> {
    match (flags.encryption, flags.insecure) {
        (false, false) => {
            return Err(Failure::usage("--encryption false is refused: everything would be sealed under a published key")
                .hint("leave it on; it costs a few percent")
                .hint("for an experiment without secrets add --insecure"));
        }
        (true, true) => return Err(Failure::usage("--insecure goes with --encryption false only").hint("leave --insecure out")),
        _ => {}
    }
    let catalogue = Catalogue::built_in().explain(|| "the built-in provider catalogue is broken".to_owned())?;
    let mut providers: Vec<AccountConfig> = Vec::new();
    for name in &flags.providers {
        let account =
            AccountConfig::new(ProviderId::new(name).map_err(|error| Failure::usage(error.to_string()))?, preset_for(&catalogue, name));
        if providers.iter().any(|other| other.name == account.name) {
            return Err(Failure::usage(format!("provider {name} is named twice"))
                .hint("two accounts at one vendor need two names, such as aws-a,aws-b"));
        }
        providers.push(account);
    }
    Ok(Config {
        schema: SCHEMA,
        insecure: flags.insecure,
        service: Service { master_key: flags.master_key.clone(), ..Service::default() },
        store: Store::default(),
        policy: Policy {
            replication_factor: Some(flags.replication_factor),
            max_cloud_providers: Some(flags.max_cloud_providers),
            compression: Some(flags.compression),
            ..Policy::default()
        },
        providers,
    })
}

/// `aws` and `aws-archive` start from the preset aws; any other name from s3, which needs an endpoint.
fn preset_for<'a>(catalogue: &Catalogue, name: &'a str) -> &'a str {
    let stem = name.split(['-', '_', '.']).next().unwrap_or(name);
    if catalogue.get(name).is_some() {
        name
    } else if catalogue.get(stem).is_some() {
        stem
    } else {
        "s3"
    }
}

/// Refuses to change a home that exists; what `providers configure` may change later is not compared.
fn agree(wanted: &Config, found: &Config, home: &Home) -> Outcome {
    let names = |config: &Config| config.providers.iter().map(|account| account.name.to_string()).collect::<Vec<_>>().join(",");
    let mut differences = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            differences.push(format!("{what} is {found}, asked for was {wanted}"));
        }
    };
    let (is, asked) = (found.policy.resolve()?, wanted.policy.resolve()?);
    compare("providers", names(found), names(wanted));
    compare("replication factor", is.replication_factor.to_string(), asked.replication_factor.to_string());
    compare("max cloud providers", is.max_cloud_providers.to_string(), asked.max_cloud_providers.to_string());
    compare("compression", is.compression.to_string(), asked.compression.to_string());
    compare("encryption", (!found.insecure).to_string(), (!wanted.insecure).to_string());
    if differences.is_empty() {
        return Ok(());
    }
    let failure = Failure::plain(format!("{} is initialised otherwise: {}", home.root().display(), differences.join("; ")));
    Err(failure.hint(format!("edit {} to change policy or providers", home.config().display())).hint("or give another --home"))
}

fn prepare_master_key(home: &Home, config: &Config) -> Outcome<MasterKey> {
    let own = config.service.master_key.is_none() && !config.insecure;
    if own && !home.master_key().exists() {
        if home.keyring().exists() {
            return Err(Failure::new(
                Exit::Refused,
                format!("{} exists but its master key {} is gone", home.keyring().display(), home.master_key().display()),
            )
            .hint("put the key back, or give it with --master-key SOURCE")
            .hint("a new key would not open what is stored"));
        }
        draw_master_key(&home.master_key())?;
    }
    master_key(home, config, None)
}

/// Draws a master key into a new file.
pub(crate) fn draw_master_key(path: &Path) -> Outcome {
    let entropy = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
    secret::create_private(path, key_text(&MasterKey::draw(&mut Draw(&entropy))).as_bytes())
}

/// A master key as its file holds it.
pub(crate) fn key_text(key: &MasterKey) -> Zeroizing<String> {
    // Room for all of it from the start: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(65));
    text.push_str(&Zeroizing::new(hex::encode(key.expose())));
    text.push('\n');
    text
}

/// The master key from where flags or configuration say it is.
pub(crate) fn master_key(home: &Home, config: &Config, flag: Option<&str>) -> Outcome<MasterKey> {
    if config.insecure {
        return Ok(MasterKey::from_bytes(*PUBLISHED_KEY));
    }
    let source = match flag.or(config.service.master_key.as_deref()) {
        Some(text) => SecretSource::from_str(text)?,
        None => SecretSource::File(home.master_key()),
    };
    Ok(MasterKey::from_bytes(*source.read_key()?))
}

fn source_text(home: &Home, service: &Service) -> String {
    service.master_key.clone().unwrap_or_else(|| home.master_key().display().to_string())
}

/// Makes the keyring when it is missing, opens it when it is there. Returns the log's public key as hex.
fn prepare_keyring(home: &Home, master: &MasterKey) -> Outcome<String> {
    let keyring = if home.keyring().exists() {
        open_keyring(home, master)?
    } else {
        let entropy = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
        let keyring = diaspore_engine::new_keyring(&entropy);
        secret::create_private(&home.keyring(), &seal_keyring(master, &keyring, entropy)?)?;
        keyring
    };
    publish_log_key(home, &keyring)
}

/// The keyring as the disk keeps it.
pub(crate) fn seal_keyring(master: &MasterKey, keyring: &Keyring, entropy: SystemEntropy) -> Outcome<Vec<u8>> {
    keyring.seal(master, &KeyringPlace::OwnDisk, Salt::draw(&mut Draw(&entropy))).explain(|| "cannot seal the keyring".to_owned())
}

/// Opens the keyring on the disk.
pub(crate) fn open_keyring(home: &Home, master: &MasterKey) -> Outcome<Keyring> {
    let path = home.keyring();
    if !path.exists() {
        return Err(Failure::new(Exit::Refused, format!("there is no keyring at {}", path.display()))
            .hint("a new deployment: metanode storage distributed init")
            .hint("a lost disk: metanode storage distributed recover"));
    }
    let sealed = std::fs::read(&path).explain(|| format!("cannot read {}", path.display()))?;
    let opened = Keyring::open(master, &KeyringPlace::OwnDisk, &sealed);
    // A change of the master key that was cut off left what it was about to put here.
    if let (Err(_), Some(next)) = (&opened, rotate::sealed_under(&home.next_keyring(), master)?) {
        return Ok(next);
    }
    opened.map_err(|error| {
        Failure::new(Exit::Refused, format!("the master key does not open {}: {error}", path.display()))
            .hint("this is another deployment's master key, or one that metanode keys rotate replaced, or the keyring is damaged")
            .hint("with the right key, metanode storage distributed recover fetches the keyring from the providers")
    })
}

/// Writes `log.pub`, which is no secret but must not change.
pub(crate) fn publish_log_key(home: &Home, keyring: &Keyring) -> Outcome<String> {
    let public = hex::encode(keyring.identity.public().as_bytes());
    let path = home.log_public_key();
    let line = format!("{public}\n");
    if std::fs::read_to_string(&path).ok().as_deref() != Some(line.as_str()) {
        secret::replace_private(&path, line.as_bytes())?;
    }
    Ok(public)
}
