//! The configuration: `metanode.toml`, overruled by `DIASPORE_SERVICE__*`, `DIASPORE_STORE__*` and `DIASPORE_POLICY__*`, overruled by flags.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use diaspore_policy::{AccountConfig, BuiltInProfiles, Catalogue, Profile, ProviderSpec, Upkeep, plan_geometry};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::failure::{Explain, Failure, Outcome};

/// Schema of the file this program writes; a newer one is refused.
pub(crate) const SCHEMA: u32 = 1;

/// Bounds of `service.probe_deadline_ms`: one answer of a far provider, and not for ever.
const PROBE_DEADLINE_MS: RangeInclusive<u64> = 100..=600_000;
/// A change takes several round trips to a provider; no client waits for longer than ten minutes.
const ANSWER_DEADLINE_MS: RangeInclusive<u64> = 1_000..=600_000;

/// The least that the ledger's cache is worth having for, and more than any machine has.
const CACHE_CAPACITY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// More often is what the journal is for; more seldom makes a start after a crash long.
const FLUSH_EVERY_MS: RangeInclusive<u64> = 100..=600_000;
/// Fewer entries than this would make the log of checkpoints longer than what they stand for.
const CHECKPOINT_AFTER: RangeInclusive<u64> = 1_000..=100_000_000;

/// Prefix of every environment variable.
const PREFIX: &str = "DIASPORE_";

/// What `metanode.toml` holds. No secret is among it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Schema of this file.
    pub(crate) schema: u32,
    /// Sealed under the published key: everybody can read everything. Set by `init --encryption false --insecure` only.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// The process.
    #[serde(default)]
    pub(crate) service: Service,
    /// The service's own ledger.
    #[serde(default)]
    pub(crate) store: Store,
    /// The promise.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// The accounts.
    #[serde(default)]
    pub(crate) providers: Vec<AccountConfig>,
}

/// `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Service {
    /// Address to listen on.
    pub(crate) listen: IpAddr,
    /// Port of the HTTP API.
    pub(crate) port: u16,
    /// Where the master key is: FILE, fd:N or cred:NAME; `master.key` in the home folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) master_key: Option<String>,
    /// Longest wait for one provider while starting, in milliseconds.
    pub(crate) probe_deadline_ms: u64,
    /// Longest time between the last byte of a change and its answer, in milliseconds.
    pub(crate) answer_deadline_ms: u64,
    /// A checkpoint of the log is made when it has grown by so many entries, and by a quarter of itself; 0 for none without being asked.
    pub(crate) checkpoint_after: u64,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 9090,
            master_key: None,
            probe_deadline_ms: 10_000,
            answer_deadline_ms: 30_000,
            checkpoint_after: 50_000,
        }
    }
}

impl Service {
    /// Where to listen.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }
}

/// `[store]`: the service's own ledger. It lies in the home folder, and what is acknowledged is durable whatever stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// Most bytes of its pages that are kept in memory.
    pub(crate) cache_capacity_bytes: u64,
    /// How often its view is made durable, in milliseconds: a start after a crash applies again what came since.
    pub(crate) flush_every_ms: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_capacity_bytes: 64 << 20, flush_every_ms: 5000 }
    }
}

impl Store {
    /// Bytes of cache for this machine.
    pub(crate) fn cache(self) -> usize {
        usize::try_from(self.cache_capacity_bytes).unwrap_or(usize::MAX)
    }

    /// Time between two flushes of the view.
    pub(crate) fn flush_every(self) -> Duration {
        Duration::from_millis(self.flush_every_ms)
    }
}

/// `[policy]`: a named profile and what this deployment changes in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Built-in profile it starts from.
    pub(crate) profile: String,
    /// Instead of the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replication_factor: Option<u8>,
    /// Instead of the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_cloud_providers: Option<u8>,
    /// Instead of the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compression: Option<bool>,
    /// `[policy.upkeep]`: what looking after stored data may cost, instead of the profile's; the fields of [`diaspore_policy::Upkeep`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) upkeep: BTreeMap<String, u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            profile: "default".to_owned(),
            replication_factor: None,
            max_cloud_providers: None,
            compression: None,
            upkeep: BTreeMap::new(),
        }
    }
}

impl Policy {
    /// The profile in force.
    pub(crate) fn resolve(&self) -> Outcome<Profile> {
        let built_in = BuiltInProfiles::load().explain(|| "the built-in policies are broken".to_owned())?;
        let mut profile = built_in.get(&self.profile).map_err(|error| Failure::usage(error.to_string()))?.clone();
        profile.replication_factor = self.replication_factor.unwrap_or(profile.replication_factor);
        profile.max_cloud_providers = self.max_cloud_providers.unwrap_or(profile.max_cloud_providers);
        profile.compression = self.compression.unwrap_or(profile.compression);
        profile.upkeep = self.upkeep_over(profile.upkeep)?;
        profile.check().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(profile)
    }

    /// What this deployment changes in the profile's upkeep.
    fn upkeep_over(&self, profile: Upkeep) -> Outcome<Upkeep> {
        let broken = |error: toml::ser::Error| Failure::plain(format!("policy.upkeep cannot be put together: {error}"));
        let mut table = toml::Table::try_from(profile).map_err(broken)?;
        for (field, value) in &self.upkeep {
            if !table.contains_key(field) {
                let known = table.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(format!("policy.upkeep has no setting {field}; there are: {known}")));
            }
            let value = i64::try_from(*value).unwrap_or(i64::MAX);
            table.insert(field.clone(), value.into());
        }
        table.try_into().map_err(|error: toml::de::Error| Failure::usage(format!("policy.upkeep: {}", error.message())))
    }
}

impl Config {
    /// Reads the file and the environment.
    pub(crate) fn load(path: &Path) -> Outcome<Self> {
        if !path.exists() {
            return Err(Failure::usage(format!("there is no configuration at {}", path.display()))
                .hint("metanode storage distributed init --providers a,b,c makes one")
                .hint("--home or DIASPORE_HOME says which home folder to use"));
        }
        let ours = |key: &figment::value::UncasedStr| ["service__", "store__", "policy__"].iter().any(|part| key.starts_with(part));
        let config: Self =
            Figment::new().merge(Toml::file_exact(path)).merge(Env::prefixed(PREFIX).filter(ours).split("__")).extract().map_err(
                |error| {
                    Failure::usage(format!("the configuration {} cannot be used: {error}", path.display())).hint("metanode config check")
                },
            )?;
        if config.schema > SCHEMA {
            return Err(Failure::new(
                crate::failure::Exit::Refused,
                format!("{} has schema {}; this program knows up to {SCHEMA}", path.display(), config.schema),
            )
            .hint("run the newer program that wrote it"));
        }
        let bounded = [
            ("service.probe_deadline_ms", config.service.probe_deadline_ms, PROBE_DEADLINE_MS),
            ("service.answer_deadline_ms", config.service.answer_deadline_ms, ANSWER_DEADLINE_MS),
            ("store.cache_capacity_bytes", config.store.cache_capacity_bytes, CACHE_CAPACITY_BYTES),
            ("store.flush_every_ms", config.store.flush_every_ms, FLUSH_EVERY_MS),
        ];
        for (name, value, bounds) in bounded {
            if !bounds.contains(&value) {
                let (least, most) = (bounds.start(), bounds.end());
                return Err(Failure::usage(format!("{name} = {value} is out of range: {least} to {most}")));
            }
        }
        let after = config.service.checkpoint_after;
        if after != 0 && !CHECKPOINT_AFTER.contains(&after) {
            let (least, most) = (CHECKPOINT_AFTER.start(), CHECKPOINT_AFTER.end());
            return Err(Failure::usage(format!(
                "service.checkpoint_after = {after} is out of range: {least} to {most} entries of the log, or 0"
            ))
            .hint("0 makes no checkpoint by itself; metanode storage distributed checkpoint makes one at any time"));
        }
        Ok(config)
    }

    /// The file's text.
    pub(crate) fn to_toml(&self) -> Outcome<String> {
        let plain = Figment::from(Serialized::defaults(self)).extract::<Self>().explain(|| "cannot render the configuration".to_owned())?;
        let body = toml::to_string_pretty(&plain).explain(|| "cannot render the configuration".to_owned())?;
        Ok(format!("# Written by metanode; yours to edit. Secrets live in credentials.toml and the master key.\n{body}"))
    }

    /// Every account completed from the catalogue, those the policy admits first checked for number.
    pub(crate) fn specs(&self) -> Outcome<Vec<ProviderSpec>> {
        let catalogue = Catalogue::built_in().explain(|| "the built-in provider catalogue is broken".to_owned())?;
        self.providers.iter().map(|account| account.resolve(&catalogue).map_err(|error| Failure::usage(error.to_string()))).collect()
    }

    /// Refuses fewer domains than the policy needs, with the arithmetic.
    pub(crate) fn check_domains(profile: &Profile, domains: usize) -> Outcome<diaspore_policy::GeometryPlan> {
        plan_geometry(profile, domains, domains).map_err(|too_few| {
            Failure::usage(too_few.to_string())
                .hint("a failure domain is one account at one vendor; two accounts at two vendors are two domains")
        })
    }
}

#[cfg(test)]
mod tests;
