//! The operator's accounts: what they write ([`AccountConfig`]) and what the rest of the program works with ([`ProviderSpec`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Addressing, Catalogue, Dialect, Guarantee, ProviderPreset};
use crate::price::Price;

/// The operator's name for one account behind one endpoint. Stable: object names derive from it, so renaming an account loses its objects.
///
/// 1 to 64 characters of `a-z 0-9 - _ .`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// Checks and wraps a name.
    pub fn new(name: &str) -> Result<Self, SpecError> {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
        if first && plain && name.len() <= 64 {
            return Ok(Self(Arc::from(name)));
        }
        Err(SpecError::Name { name: name.to_owned() })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl TryFrom<String> for ProviderId {
    type Error = SpecError;

    fn try_from(name: String) -> Result<Self, SpecError> {
        Self::new(&name)
    }
}

impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// What fails as one. By default "vendor/account name"; the operator may declare another, which is shown as declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FailureDomain(Arc<str>);

impl FailureDomain {
    /// Wraps a name as given; equality of text is equality of domains.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FailureDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One `[[providers]]` entry of the configuration: a preset plus what only the operator knows. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// The operator's name for the account.
    pub name: ProviderId,
    /// Preset it starts from.
    pub preset: String,
    /// Region; the preset's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Endpoint URL instead of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Fills `{account}` in the preset's endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Bucket or container; must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Put before every object name, so that several deployments share a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Folder of a local provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Failure domain instead of "vendor/name".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Jurisdiction instead of the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Share of placements relative to the others; 100 when absent, 0 = only read and delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Price instead of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

impl AccountConfig {
    /// An entry with only a name and a preset.
    pub fn new(name: ProviderId, preset: &str) -> Self {
        Self {
            name,
            preset: preset.to_owned(),
            region: None,
            endpoint: None,
            account: None,
            bucket: None,
            prefix: None,
            folder: None,
            domain: None,
            jurisdiction: None,
            weight: None,
            price: None,
        }
    }

    /// Completes the entry from the catalogue and checks it.
    pub fn resolve(&self, catalogue: &Catalogue) -> Result<ProviderSpec, SpecError> {
        let preset = catalogue.get(&self.preset).ok_or_else(|| SpecError::UnknownPreset {
            name: self.name.clone(),
            preset: self.preset.clone(),
            known: catalogue.names(),
        })?;
        let region = self.region.clone().unwrap_or_else(|| preset.default_region.clone());
        let known = preset.region(&region);
        if known.is_none() && !preset.open_regions {
            let known = preset.regions.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(SpecError::UnknownRegion { name: self.name.clone(), region, known });
        }
        let jurisdiction =
            self.jurisdiction.clone().or_else(|| known.map(|r| r.jurisdiction.clone())).unwrap_or_else(|| "unknown".to_owned());
        let spec = ProviderSpec {
            domain: FailureDomain::new(&self.domain.clone().unwrap_or_else(|| format!("{}/{}", preset.vendor, self.name))),
            domain_declared: self.domain.is_some(),
            id: self.name.clone(),
            preset: preset.name.clone(),
            vendor: preset.vendor.clone(),
            dialect: preset.dialect,
            endpoint: self.endpoint_for(preset, &region)?,
            addressing: preset.addressing,
            region,
            jurisdiction,
            bucket: self.bucket.clone().unwrap_or_default(),
            prefix: self.prefix.clone().unwrap_or_default(),
            folder: self.folder.clone(),
            conditional_put: preset.conditional_put,
            list_after_write: preset.list_after_write,
            unsigned_payload: preset.unsigned_payload,
            weight: self.weight.unwrap_or(DEFAULT_WEIGHT),
            price: self.price.clone().or_else(|| preset.price.clone()).unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }

    fn endpoint_for(&self, preset: &ProviderPreset, region: &str) -> Result<Option<String>, SpecError> {
        let Some(template) = self.endpoint.as_ref().or(preset.endpoint.as_ref()) else { return Ok(None) };
        let account = self.account.as_deref();
        if template.contains("{account}") && account.is_none() {
            return Err(SpecError::Missing { name: self.name.clone(), field: "account" });
        }
        Ok(Some(template.replace("{region}", region).replace("{account}", account.unwrap_or_default())))
    }
}

/// Placement weight when none is given.
pub const DEFAULT_WEIGHT: u32 = 100;

/// One configured account with every value filled in. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// The operator's name for the account.
    pub id: ProviderId,
    /// Preset it came from.
    pub preset: String,
    /// Company behind it.
    pub vendor: String,
    /// What fails as one with it.
    pub domain: FailureDomain,
    /// The domain was declared by the operator and not derived: shown as such.
    pub domain_declared: bool,
    /// Protocol.
    pub dialect: Dialect,
    /// Endpoint URL without bucket (S3).
    pub endpoint: Option<String>,
    /// Bucket place in the URL (S3).
    pub addressing: Addressing,
    /// Region.
    pub region: String,
    /// Jurisdiction of the region, or as declared.
    pub jurisdiction: String,
    /// Bucket (S3).
    pub bucket: String,
    /// Put before every object name; empty or `a/b` without slashes at the ends.
    pub prefix: String,
    /// Folder (local).
    pub folder: Option<PathBuf>,
    /// Documented conditional put.
    pub conditional_put: Guarantee,
    /// Documented list after write.
    pub list_after_write: Guarantee,
    /// Unsigned payloads accepted.
    pub unsigned_payload: bool,
    /// Placement weight.
    pub weight: u32,
    /// List price.
    pub price: Price,
}

impl ProviderSpec {
    /// A provider in the process's memory, its own failure domain: simulation and tests.
    pub fn memory(id: ProviderId) -> Self {
        Self::emulated(id, "memory", Dialect::Memory)
    }

    /// A folder provider, its own failure domain.
    pub fn local(id: ProviderId, folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..Self::emulated(id, "local", Dialect::Local) }
    }

    /// An S3 endpoint at any URL with path-style buckets and an own failure domain: emulators, quickstart, self-hosted stores.
    pub fn s3(id: ProviderId, endpoint: &str, bucket: &str) -> Self {
        Self { endpoint: Some(endpoint.to_owned()), bucket: bucket.to_owned(), ..Self::emulated(id, "s3", Dialect::S3) }
    }

    fn emulated(id: ProviderId, preset: &str, dialect: Dialect) -> Self {
        Self {
            domain: FailureDomain::new(&format!("{preset}/{id}")),
            domain_declared: false,
            id,
            preset: preset.to_owned(),
            vendor: preset.to_owned(),
            dialect,
            endpoint: None,
            addressing: Addressing::Path,
            region: "us-east-1".to_owned(),
            jurisdiction: "local".to_owned(),
            bucket: String::new(),
            prefix: String::new(),
            folder: None,
            conditional_put: Guarantee::Unknown,
            list_after_write: Guarantee::Unknown,
            unsigned_payload: true,
            weight: DEFAULT_WEIGHT,
            price: Price::default(),
        }
    }

    /// Checks that everything the dialect needs is there and that paths are plain.
    pub fn check(&self) -> Result<(), SpecError> {
        let missing = |field| Err(SpecError::Missing { name: self.id.clone(), field });
        match self.dialect {
            Dialect::S3 if self.endpoint.is_none() => return missing("endpoint"),
            Dialect::S3 | Dialect::Azure if self.bucket.is_empty() => return missing("bucket"),
            Dialect::Local if self.folder.is_none() => return missing("folder"),
            _ => {}
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let segment = |text: &str| !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain);
        if !self.prefix.is_empty() && !self.prefix.split('/').all(segment) {
            return Err(SpecError::Prefix { name: self.id.clone(), prefix: self.prefix.clone() });
        }
        if !self.bucket.is_empty() && !segment(&self.bucket) {
            return Err(SpecError::Bucket { name: self.id.clone(), bucket: self.bucket.clone() });
        }
        Ok(())
    }
}

/// An account entry that cannot be used, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A name outside the allowed alphabet.
    #[error("provider name {name:?} is not usable: 1 to 64 characters of a-z, 0-9, '-', '_', '.', starting with a letter or digit")]
    Name {
        /// Name given.
        name: String,
    },
    /// No such preset.
    #[error(
        "provider {name}: no preset named {preset:?}; known are: {known}. Use preset \"s3\" with your own endpoint for any other S3 store"
    )]
    UnknownPreset {
        /// Account.
        name: ProviderId,
        /// Preset asked for.
        preset: String,
        /// Presets there are.
        known: String,
    },
    /// No such region.
    #[error("provider {name}: no region named {region:?}; known are: {known}")]
    UnknownRegion {
        /// Account.
        name: ProviderId,
        /// Region asked for.
        region: String,
        /// Regions there are.
        known: String,
    },
    /// A required value is absent.
    #[error("provider {name}: {field} is required; set it with `metanode storage providers configure` or in the configuration file")]
    Missing {
        /// Account.
        name: ProviderId,
        /// Field.
        field: &'static str,
    },
    /// A prefix that is no plain path.
    #[error("provider {name}: prefix {prefix:?} must be plain segments of letters, digits, '-', '_', '.' joined by '/'")]
    Prefix {
        /// Account.
        name: ProviderId,
        /// Prefix given.
        prefix: String,
    },
    /// A bucket name that is no plain segment.
    #[error("provider {name}: bucket {bucket:?} must consist of letters, digits, '-', '_', '.'")]
    Bucket {
        /// Account.
        name: ProviderId,
        /// Bucket given.
        bucket: String,
    },
}

#[cfg(test)]
mod tests;
