//! Named policies: how much loss to survive, and what requests, bytes and milliseconds to spend for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::account::ProviderSpec;
use crate::geometry::MAX_SHARDS;

/// When a mutation is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckClass {
    /// k + 1 verified acknowledgements: survives the service's disk plus one domain, lost or lying.
    #[default]
    Quorum,
    /// All n shards durable: survives the disk plus any f domains.
    Full,
}

/// Provider requests cost money: inside the budget a commit block leaves at once, beyond it lingers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestBudget {
    /// Provider requests that may be spent at once.
    pub burst: u32,
    /// Provider requests per second in the long run.
    pub sustained_per_second: u32,
}

/// What looking after stored data may cost, per provider, and how patient repair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upkeep {
    /// Sampled cells that are read and verified per hour and provider; 0 = none.
    pub audits_per_hour: u32,
    /// Most bytes that these may fetch per hour and provider.
    pub audit_bytes_per_hour: u64,
    /// Every shard's header is asked for within so many hours; 0 = never by itself.
    pub presence_hours: u32,
    /// One more set of k providers rebuilds sampled blocks every so many hours; 0 = never by itself.
    pub drill_hours: u32,
    /// A provider that is silent for less than this many seconds causes no repair.
    pub hold_off_s: u32,
    /// Most bytes per second that repair reads and writes. Not applied to a block that survives no further loss.
    pub repair_bytes_per_s: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            audits_per_hour: 120,
            audit_bytes_per_hour: 16 << 20,
            presence_hours: 168,
            drill_hours: 24,
            hold_off_s: 900,
            repair_bytes_per_s: 16 << 20,
        }
    }
}

/// One policy, from `policy/<name>.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// File name without ending.
    pub name: String,
    /// One sentence for `--help` and `status`.
    pub description: String,
    /// r: survive r - 1 lost providers. 2..=16.
    pub replication_factor: u8,
    /// Most providers per block.
    pub max_cloud_providers: u8,
    /// Smallest k of any layout, shrunk ones included; at least 1. Below 2 a single provider holds whole (sealed) blocks.
    pub min_k: u8,
    /// Class of a put that does not ask for one.
    pub class: AckClass,
    /// Store equal chunks of a bucket once.
    pub dedup: bool,
    /// Compress chunks where a probe says it pays.
    pub compression: bool,
    /// zstd level, 1..=19.
    pub compression_level: u8,
    /// Request budget of group commit.
    pub requests: RequestBudget,
    /// Longest wait for company beyond the budget, in milliseconds, at most 250.
    pub linger_ms: u32,
    /// W: commit blocks in flight, 1..=64.
    pub window: u8,
    /// Lease of the writer's claim in milliseconds, 100..=60 000.
    pub lease_ms: u32,
    /// Upkeep of what is stored.
    #[serde(default)]
    pub upkeep: Upkeep,
    /// Only accounts under these jurisdictions (ISO 3166 codes or "EU"); empty = any.
    #[serde(default)]
    pub jurisdictions: BTreeSet<String>,
    /// Presets or vendors never used.
    #[serde(default)]
    pub exclude_vendors: BTreeSet<String>,
}

/// A profile that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not TOML, or a field is missing, misspelt or of the wrong type.
    #[error("policy {name:?} does not parse: {reason}")]
    Syntax {
        /// Profile as the caller called it.
        name: String,
        /// The parser's words with line and column.
        reason: String,
    },
    /// A number outside its range.
    #[error("policy {name:?}: {field} = {value} is out of range; allowed is {allowed}")]
    Range {
        /// Profile.
        name: String,
        /// Field.
        field: &'static str,
        /// Value found.
        value: u64,
        /// Allowed range in words.
        allowed: String,
    },
    /// No profile of this name is built in.
    #[error("no policy named {name:?}; known are: {known}")]
    Unknown {
        /// Name asked for.
        name: String,
        /// Names there are, comma-separated.
        known: String,
    },
}

impl Profile {
    /// Reads one profile from TOML text; `name` is for messages only.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self =
            toml::from_str(text).map_err(|error| ProfileError::Syntax { name: name.to_owned(), reason: error.to_string() })?;
        profile.check()?;
        Ok(profile)
    }

    /// Checks every range; call it again after changing fields by hand.
    pub fn check(&self) -> Result<(), ProfileError> {
        let within = |field: &'static str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ProfileError::Range { name: self.name.clone(), field, value, allowed: format!("{low} to {high}") })
        };
        let cap = MAX_SHARDS as u64;
        within("replication_factor", self.replication_factor.into(), 2, 16)?;
        within("min_k", self.min_k.into(), 1, cap - 1)?;
        let needed = u64::from(self.replication_factor) - 1 + u64::from(self.min_k);
        within("max_cloud_providers", self.max_cloud_providers.into(), needed, cap)?;
        within("compression_level", self.compression_level.into(), 1, 19)?;
        within("requests.burst", self.requests.burst.into(), 1, 1_000_000)?;
        within("requests.sustained_per_second", self.requests.sustained_per_second.into(), 1, 1_000_000)?;
        within("linger_ms", self.linger_ms.into(), 0, 250)?;
        within("window", self.window.into(), 1, 64)?;
        within("lease_ms", self.lease_ms.into(), 100, 60_000)?;
        within("upkeep.audits_per_hour", self.upkeep.audits_per_hour.into(), 0, 3_600)?;
        within("upkeep.audit_bytes_per_hour", self.upkeep.audit_bytes_per_hour, 1 << 16, 1 << 40)?;
        // A year.
        within("upkeep.presence_hours", self.upkeep.presence_hours.into(), 0, 366 * 24)?;
        within("upkeep.drill_hours", self.upkeep.drill_hours.into(), 0, 366 * 24)?;
        within("upkeep.hold_off_s", self.upkeep.hold_off_s.into(), 60, 7 * 24 * 3600)?;
        within("upkeep.repair_bytes_per_s", self.upkeep.repair_bytes_per_s, 1 << 16, 1 << 40)
    }

    /// Whether an account may hold shards under this profile.
    pub fn admits(&self, spec: &ProviderSpec) -> bool {
        let excluded = self.exclude_vendors.contains(&spec.vendor) || self.exclude_vendors.contains(&spec.preset);
        !excluded && (self.jurisdictions.is_empty() || self.jurisdictions.contains(&spec.jurisdiction))
    }
}

impl Default for Profile {
    /// `policy/default.toml`, field by field (a test compares them).
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            description: "3-of-5: survives two lost providers at 1.67x, acknowledges at quorum".to_owned(),
            replication_factor: 3,
            max_cloud_providers: 5,
            min_k: 2,
            class: AckClass::Quorum,
            dedup: true,
            compression: true,
            compression_level: 1,
            requests: RequestBudget { burst: 256, sustained_per_second: 64 },
            linger_ms: 250,
            window: 4,
            lease_ms: 3000,
            upkeep: Upkeep::default(),
            jurisdictions: BTreeSet::new(),
            exclude_vendors: BTreeSet::new(),
        }
    }
}

/// The profiles shipped with the program, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltInProfiles(BTreeMap<String, Profile>);

const EMBEDDED: [(&str, &str); 6] = [
    ("default", include_str!("../../../policy/default.toml")),
    ("high-write", include_str!("../../../policy/high-write.toml")),
    ("low-memory", include_str!("../../../policy/low-memory.toml")),
    ("low-overhead", include_str!("../../../policy/low-overhead.toml")),
    ("max-durability", include_str!("../../../policy/max-durability.toml")),
    ("quickstart", include_str!("../../../policy/quickstart.toml")),
];

impl BuiltInProfiles {
    /// Parses every embedded profile.
    pub fn load() -> Result<Self, ProfileError> {
        let parse = |(name, text): (&str, &str)| Profile::from_toml(name, text).map(|profile| (name.to_owned(), profile));
        EMBEDDED.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The profile of this name, or an error that lists those there are.
    pub fn get(&self, name: &str) -> Result<&Profile, ProfileError> {
        self.0.get(name).ok_or_else(|| ProfileError::Unknown {
            name: name.to_owned(),
            known: self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// Adds or replaces a profile (an operator's own `policy/` folder).
    pub fn insert(&mut self, profile: Profile) {
        self.0.insert(profile.name.clone(), profile);
    }

    /// All profiles in name order.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests;
