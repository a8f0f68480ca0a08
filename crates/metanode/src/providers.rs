//! `storage providers configure|list`.

use std::collections::BTreeSet;

use diaspore_engine::world::Entropy;
use diaspore_policy::{AccountConfig, Catalogue, ProviderId, ProviderSpec};
use diaspore_provider::{Capabilities, Fleet, FleetOptions, Verdict};
use serde::Serialize;

use crate::cli::Global;
use crate::cli::storage::{Configure, Providers};
use crate::client::{Client, Role};
use crate::config::Config;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::output::{note, table};
use crate::relocate;
use crate::{credentials, integrity, operate, secret, service};

/// One account for people and programs; never a secret.
#[derive(Debug, Serialize)]
struct Account {
    name: String,
    preset: String,
    /// `vendor/name` unless declared.
    domain: Option<String>,
    domain_declared: bool,
    region: Option<String>,
    jurisdiction: Option<String>,
    endpoint: Option<String>,
    bucket: Option<String>,
    weight: Option<u32>,
    credentials: &'static str,
    /// How the running service uses it; absent while none runs.
    mode: Option<String>,
    /// How well it served in the last fifteen minutes, 0 to 100; likewise.
    score: Option<u8>,
    /// Its copy of the keyring, as the service's last start found it: `held`, `spoiled`, `unknown`; likewise.
    keyring: Option<String>,
    /// What is missing, when the account cannot be used yet.
    problem: Option<String>,
}

/// One probe of `--test`.
#[derive(Debug, Serialize)]
struct Probed {
    provider: String,
    probe: &'static str,
    works: bool,
    detail: String,
    took_ms: u64,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: &Providers) -> Outcome {
    let home = Home::find(global.home.as_deref(), global.config.as_deref())?;
    match command {
        Providers::Evacuate(flags) => relocate::evacuate(global, flags).await,
        Providers::Rebalance(flags) => relocate::rebalance(global, flags).await,
        Providers::List => {
            let config = Config::load(home.config())?;
            let mut accounts = accounts(&home, &config)?;
            for live in live(global).await {
                if let Some(account) = accounts.iter_mut().find(|account| account.name == live.id) {
                    (account.mode, account.score, account.keyring) = (Some(live.mode), live.score, live.keyring);
                }
            }
            global.output.print(&accounts, || shown(&accounts))
        }
        Providers::State { name, state, reason } => integrity::provider_state(global, name, state, reason.as_deref()).await,
        Providers::Configure(flags) => {
            let mut config = Config::load(home.config())?;
            let touched = change(&home, &mut config, flags)?;
            if !touched.is_empty() {
                secret::replace_private(home.config(), config.to_toml()?.as_bytes())?;
            }
            if flags.test {
                let subject =
                    if touched.is_empty() { config.providers.iter().map(|account| account.name.clone()).collect() } else { touched };
                return test(global, &home, &config, &subject).await;
            }
            if touched.is_empty() {
                return Err(Failure::usage("nothing to configure was given")
                    .hint("metanode storage providers configure --name NAME --bucket BUCKET --region REGION --test"));
            }
            let accounts = accounts(&home, &config)?;
            global.output.print(&accounts, || shown(&accounts))
        }
    }
}

/// What the running service says of its providers; nothing if none runs.
async fn live(global: &Global) -> Vec<operate::Provider> {
    let Ok(client) = Client::connect(global, Role::Operator) else { return Vec::new() };
    operate::Status::of(&client).await.map(|status| status.providers).unwrap_or_default()
}

/// Writes the flags into the configuration. Returns the accounts they touch.
fn change(home: &Home, config: &mut Config, flags: &Configure) -> Outcome<BTreeSet<ProviderId>> {
    let catalogue = Catalogue::built_in().explain(|| "the built-in provider catalogue is broken".to_owned())?;
    let mut touched = BTreeSet::new();
    for (preset, region) in [("aws", &flags.aws_region), ("gcp", &flags.gcp_region), ("azure", &flags.azure_region)] {
        let Some(region) = region else { continue };
        let account = entry(config, preset, Some(preset))?;
        account.region = Some(region.clone());
        touched.insert(account.name.clone());
    }
    if let Some(name) = &flags.name {
        if let Some(preset) = flags.preset.as_ref().filter(|preset| catalogue.get(preset).is_none()) {
            return Err(Failure::usage(format!("there is no preset {preset:?}; there are {}", catalogue.names()))
                .hint("preset s3 takes any S3 endpoint"));
        }
        let account = entry(config, name, flags.preset.as_deref())?;
        let fields = [
            (&mut account.region, &flags.region),
            (&mut account.endpoint, &flags.endpoint),
            (&mut account.bucket, &flags.bucket),
            (&mut account.domain, &flags.domain),
        ];
        for (field, flag) in fields {
            if flag.is_some() {
                field.clone_from(flag);
            }
        }
        if flags.path.is_some() {
            account.folder.clone_from(&flags.path);
        }
        if let Some(domain) = &flags.domain {
            note(&format!("note: {name} is declared to be the failure domain {domain}; status shows it as declared"));
        }
        let id = account.name.clone();
        match (&flags.access_key_file, &flags.secret_key_file) {
            (Some(access), Some(secret)) => credentials::store(home, &id, access, secret)?,
            (None, None) => {}
            _ => return Err(Failure::usage("--access-key-file and --secret-key-file go together")),
        }
        touched.insert(id);
    }
    for account in config.providers.iter().filter(|account| touched.contains(&account.name)) {
        let known = catalogue.get(&account.preset).map(|preset| (preset, account.region.as_ref()));
        if let Some((preset, Some(region))) = known
            && !preset.open_regions
            && preset.region(region).is_none()
        {
            let there = preset.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("{} has no region {region:?}", preset.title)).hint(format!("there are {there}")));
        }
    }
    Ok(touched)
}

/// The account of this name, made when missing.
fn entry<'c>(config: &'c mut Config, name: &str, preset: Option<&str>) -> Outcome<&'c mut AccountConfig> {
    let id = ProviderId::new(name).map_err(|error| Failure::usage(error.to_string()))?;
    let at = if let Some(at) = config.providers.iter().position(|account| account.name == id) {
        at
    } else {
        config.providers.push(AccountConfig::new(id, preset.unwrap_or("s3")));
        config.providers.len() - 1
    };
    let account = config.providers.get_mut(at).ok_or_else(|| Failure::plain("the account list changed under us"))?;
    if let Some(preset) = preset {
        preset.clone_into(&mut account.preset);
    }
    Ok(account)
}

fn accounts(home: &Home, config: &Config) -> Outcome<Vec<Account>> {
    let catalogue = Catalogue::built_in().explain(|| "the built-in provider catalogue is broken".to_owned())?;
    let account = |account: &AccountConfig| -> Outcome<Account> {
        let (spec, problem) = match account.resolve(&catalogue) {
            Ok(spec) => (Some(spec), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let of = |field: fn(&ProviderSpec) -> String| spec.as_ref().map(field).filter(|text| !text.is_empty());
        Ok(Account {
            name: account.name.to_string(),
            preset: account.preset.clone(),
            domain: of(|spec| spec.domain.to_string()),
            domain_declared: account.domain.is_some(),
            region: of(|spec| spec.region.clone()).or_else(|| account.region.clone()),
            jurisdiction: of(|spec| spec.jurisdiction.clone()),
            endpoint: spec.as_ref().and_then(|spec| spec.endpoint.clone()),
            bucket: account.bucket.clone(),
            weight: spec.as_ref().map(|spec| spec.weight),
            credentials: credentials::origin(home, &account.name)?,
            problem,
            mode: None,
            score: None,
            keyring: None,
        })
    };
    config.providers.iter().map(account).collect()
}

fn shown(accounts: &[Account]) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |account: &Account| {
        let declared = if account.domain_declared { " (declared)" } else { "" };
        [
            account.name.clone(),
            account.preset.clone(),
            format!("{}{declared}", text(&account.domain)),
            text(&account.region),
            text(&account.jurisdiction),
            account.credentials.to_owned(),
            text(&account.mode),
            account.score.map_or_else(|| "-".to_owned(), |score| score.to_string()),
            text(&account.keyring),
            account.problem.clone().unwrap_or_else(|| "ready".to_owned()),
        ]
    };
    table(
        ["name", "preset", "domain", "region", "jurisdiction", "credentials", "used", "score", "keyring", "state"],
        accounts.iter().map(row),
    )
}

/// Writes, reads, lists, overwrites and deletes a small object at each account.
async fn test(global: &Global, home: &Home, config: &Config, subject: &BTreeSet<ProviderId>) -> Outcome {
    let catalogue = Catalogue::built_in().explain(|| "the built-in provider catalogue is broken".to_owned())?;
    let accounts = config.providers.iter().filter(|account| subject.contains(&account.name));
    let specs: Vec<ProviderSpec> =
        accounts.map(|account| account.resolve(&catalogue).map_err(|error| Failure::usage(error.to_string()))).collect::<Outcome<_>>()?;
    let fleet = Fleet::connect(&specs, &credentials::load(home, &specs)?, FleetOptions::default())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let (mut rows, mut unusable) = (Vec::new(), Vec::new());
    for spec in &specs {
        let mut nonce = [0; 16];
        service::entropy()?.draw(&mut nonce);
        match fleet.self_test(&spec.id, nonce).await {
            Ok(found) => {
                if !found.can_store() || !found.can_claim() {
                    unusable.push(spec.id.to_string());
                }
                rows.extend(probes(&found));
            }
            Err(error) => {
                unusable.push(spec.id.to_string());
                rows.push(Probed { provider: spec.id.to_string(), probe: "reach", works: false, detail: error.to_string(), took_ms: 0 });
            }
        }
    }
    global.output.print(&rows, || {
        let row = |probed: &Probed| {
            let state = if probed.works { "works" } else { "fails" };
            [probed.provider.clone(), probed.probe.to_owned(), state.to_owned(), probed.took_ms.to_string(), probed.detail.clone()]
        };
        table(["provider", "probe", "result", "ms", "detail"], rows.iter().map(row))
    })?;
    if unusable.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, format!("not usable: {}", unusable.join(", ")))
        .hint("credentials, bucket and endpoint must be right, and the key must allow PUT, GET, HEAD, LIST and DELETE"))
}

fn probes(found: &Capabilities) -> Vec<Probed> {
    let probed = |(name, probe): (&'static str, &diaspore_provider::Probe)| Probed {
        provider: found.provider.to_string(),
        probe: name,
        works: probe.verdict.works(),
        detail: match &probe.verdict {
            Verdict::Works => String::new(),
            Verdict::Fails(why) => why.clone(),
            Verdict::NotTried => "not tried".to_owned(),
        },
        took_ms: u64::try_from(probe.took.as_millis()).unwrap_or(u64::MAX),
    };
    found.probes().into_iter().map(probed).collect()
}
