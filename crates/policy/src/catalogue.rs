//! The clouds there are: one preset per file of `providers/`, embedded, overridable by the operator's own files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::price::Price;

/// Protocol spoken by a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The S3 REST dialect over HTTP.
    S3,
    /// A folder on a local or mounted file system.
    Local,
    /// The memory of the process: simulation and tests.
    Memory,
    /// Azure Blob Storage. Declared so that plans and cost estimates can name it; connecting to it is refused in this version.
    Azure,
}

/// How the bucket appears in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// `https://endpoint/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`.
    Virtual,
}

/// What a provider's documents promise. Nothing rests on a promise: `providers configure --test` probes, and correctness never needs a conditional put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guarantee {
    /// Documented to hold.
    Yes,
    /// Documented or measured not to hold.
    No,
    /// Not documented: only the self-test can tell.
    #[default]
    Unknown,
}

/// One region of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Name as the provider's API spells it.
    pub name: String,
    /// Where it is, for people.
    pub place: String,
    /// ISO 3166-1 alpha-2 code of the country whose law reaches the machines, or "EU" where only that is promised, or "local".
    pub jurisdiction: String,
}

/// One cloud, from `providers/<name>.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderPreset {
    /// File name without ending; what `--providers` takes.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Company behind it. Accounts of one vendor share a failure domain only if they are the same account; see [`crate::FailureDomain`].
    pub vendor: String,
    /// Protocol.
    pub dialect: Dialect,
    /// Endpoint URL with `{region}` and `{account}` where the operator's values go; absent when the operator must give one or none is needed.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Bucket place in the URL.
    #[serde(default)]
    pub addressing: Addressing,
    /// Region used when the operator names none; must be in `regions` unless `open_regions`.
    pub default_region: String,
    /// Any region name is accepted (self-hosted and generic endpoints).
    #[serde(default)]
    pub open_regions: bool,
    /// Whether `If-None-Match: *` on PUT is atomic.
    pub conditional_put: Guarantee,
    /// Whether a LIST started after an acknowledged PUT shows the object.
    pub list_after_write: Guarantee,
    /// Whether `UNSIGNED-PAYLOAD` signatures are accepted; used only over TLS or to loopback, our own tags authenticate the bytes.
    pub unsigned_payload: bool,
    /// Regions known.
    #[serde(default)]
    pub regions: Vec<Region>,
    /// List price of the default region, when there is one.
    #[serde(default)]
    pub price: Option<Price>,
    /// What an operator must know: where keys are made, limits, known gaps.
    #[serde(default)]
    pub notes: String,
}

/// A catalogue that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// Not TOML, or a field is missing, misspelt or of the wrong type.
    #[error("provider preset {name:?} does not parse: {reason}")]
    Syntax {
        /// Preset as the caller called it.
        name: String,
        /// The parser's words with line and column.
        reason: String,
    },
    /// The fields contradict each other.
    #[error("provider preset {name:?} is inconsistent: {reason}")]
    Inconsistent {
        /// Preset.
        name: String,
        /// What to change.
        reason: String,
    },
}

impl ProviderPreset {
    /// Reads one preset from TOML text; `name` is for messages only.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, CatalogueError> {
        let preset: Self =
            toml::from_str(text).map_err(|error| CatalogueError::Syntax { name: name.to_owned(), reason: error.to_string() })?;
        preset.check()?;
        Ok(preset)
    }

    /// The region of this name, if the preset lists it.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    fn check(&self) -> Result<(), CatalogueError> {
        let refuse = |reason: &str| Err(CatalogueError::Inconsistent { name: self.name.clone(), reason: reason.to_owned() });
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain(&self.name) {
            return refuse("name must be lower-case letters, digits and dashes");
        }
        if !plain(&self.vendor) {
            return refuse("vendor must be lower-case letters, digits and dashes");
        }
        if !self.open_regions && self.region(&self.default_region).is_none() {
            return refuse("default_region must be one of the regions, or open_regions = true");
        }
        let mut names: Vec<&str> = self.regions.iter().map(|region| region.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return refuse("a region is listed twice");
        }
        if let Some(endpoint) = &self.endpoint {
            let rest = endpoint.replace("{region}", "").replace("{account}", "");
            if rest.contains(['{', '}']) {
                return refuse("the endpoint knows the placeholders {region} and {account} only");
            }
            if !(rest.starts_with("https://") || rest.starts_with("http://127.0.0.1") || rest.starts_with("http://localhost")) {
                return refuse("the endpoint must be https, or http to this machine");
            }
        }
        if self.price.as_ref().is_some_and(|price| price.source.is_empty() || price.as_of.len() != "2026-01-01".len()) {
            return refuse("a price needs its source and the day it was written down (YYYY-MM-DD)");
        }
        Ok(())
    }
}

/// All presets by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue(BTreeMap<String, ProviderPreset>);

const EMBEDDED: [(&str, &str); 14] = [
    ("aws", include_str!("../../../providers/aws.toml")),
    ("azure", include_str!("../../../providers/azure.toml")),
    ("digitalocean", include_str!("../../../providers/digitalocean.toml")),
    ("gcp", include_str!("../../../providers/gcp.toml")),
    ("hetzner", include_str!("../../../providers/hetzner.toml")),
    ("linode", include_str!("../../../providers/linode.toml")),
    ("local", include_str!("../../../providers/local.toml")),
    ("localstack", include_str!("../../../providers/localstack.toml")),
    ("memory", include_str!("../../../providers/memory.toml")),
    ("minio", include_str!("../../../providers/minio.toml")),
    ("ovh", include_str!("../../../providers/ovh.toml")),
    ("r2", include_str!("../../../providers/r2.toml")),
    ("s3", include_str!("../../../providers/s3.toml")),
    ("vultr", include_str!("../../../providers/vultr.toml")),
];

impl Catalogue {
    /// The presets shipped with the program.
    pub fn built_in() -> Result<Self, CatalogueError> {
        let parse = |(name, text): (&str, &str)| ProviderPreset::from_toml(name, text).map(|preset| (name.to_owned(), preset));
        EMBEDDED.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Adds or replaces presets with an operator's own files, given as (file name without ending, text). All or nothing.
    pub fn with_overrides<'a>(mut self, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        for (name, text) in files {
            let preset = ProviderPreset::from_toml(name, text)?;
            if preset.name != name {
                let reason = format!("the file is called {name:?} but says name = {:?}; make them equal", preset.name);
                return Err(CatalogueError::Inconsistent { name: name.to_owned(), reason });
            }
            self.0.insert(preset.name.clone(), preset);
        }
        Ok(self)
    }

    /// The preset of this name.
    pub fn get(&self, name: &str) -> Option<&ProviderPreset> {
        self.0.get(name)
    }

    /// All presets in name order.
    pub fn iter(&self) -> impl Iterator<Item = &ProviderPreset> {
        self.0.values()
    }

    /// Names, comma-separated, for messages.
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
