//! From a specification to a store.

use std::net::IpAddr;
use std::sync::Arc;

use diaspore_policy::{Addressing, Dialect, ProviderSpec};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use url::{Host, Url};

use crate::credentials::Credentials;
use crate::error::{ConnectError, dialect_name};
use crate::fleet::FleetOptions;
use crate::transport::{Ready, Transport};

/// Builds the store behind one account. Reads nothing from the environment and asks no metadata service.
pub(crate) fn open(spec: &ProviderSpec, credentials: &Credentials, options: &FleetOptions) -> Result<Arc<dyn ObjectStore>, ConnectError> {
    spec.check()?;
    match spec.dialect {
        Dialect::Memory => Ok(Arc::new(InMemory::new())),
        Dialect::Local => open_folder(spec),
        Dialect::S3 => open_s3(spec, credentials, options),
        Dialect::Azure => Err(ConnectError::NotBuiltIn { provider: spec.id.clone(), dialect: dialect_name(spec.dialect) }),
    }
}

fn open_folder(spec: &ProviderSpec) -> Result<Arc<dyn ObjectStore>, ConnectError> {
    let setup = |reason: String| ConnectError::Setup { provider: spec.id.clone(), reason };
    let folder = spec.folder.clone().unwrap_or_default();
    // A folder that is missing now is an account that is down (`root`), as one over a network would be: not a reason to refuse the others.
    let folder = folder.canonicalize().or_else(|_| std::path::absolute(&folder)).map_err(|error| setup(error.to_string()))?;
    let prefix = Path::from_absolute_path(&folder).map_err(|error| setup(error.to_string()))?;
    // An acknowledged shard is a durable shard: file and directory are flushed before the rename counts.
    Ok(Arc::new(PrefixStore::new(LocalFileSystem::new().with_fsync(true), prefix)))
}

fn open_s3(spec: &ProviderSpec, credentials: &Credentials, options: &FleetOptions) -> Result<Arc<dyn ObjectStore>, ConnectError> {
    let setup = |reason: String| ConnectError::Setup { provider: spec.id.clone(), reason };
    let pair = credentials.get(&spec.id).ok_or_else(|| ConnectError::NoCredentials { provider: spec.id.clone() })?;
    let endpoint = Endpoint::parse(spec)?;
    let transport = Transport {
        connect: options.connect,
        idle_connections: usize::try_from(options.requests_in_flight).unwrap_or(usize::MAX),
        https_only: endpoint.tls,
    };
    let client = transport.client().map_err(|error| setup(error.to_string()))?;
    let virtual_hosted = spec.addressing == Addressing::Virtual;
    let mut builder = AmazonS3Builder::new()
        .with_endpoint(endpoint.for_bucket(spec, virtual_hosted))
        .with_bucket_name(&spec.bucket)
        .with_region(&spec.region)
        .with_virtual_hosted_style_request(virtual_hosted)
        .with_allow_http(!endpoint.tls)
        // Our sealed bytes authenticate themselves; a hash over them would only cost. In clear over a network the signature covers them.
        .with_unsigned_payload(spec.unsigned_payload && (endpoint.tls || endpoint.loopback))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_disable_tagging(true)
        .with_access_key_id(pair.access_key())
        .with_secret_access_key(pair.secret_key())
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(Ready(client));
    if let Some(token) = pair.session_token() {
        builder = builder.with_token(token);
    }
    Ok(Arc::new(builder.build().map_err(|error| setup(error.to_string()))?))
}

/// An endpoint as far as its safety matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    url: Url,
    tls: bool,
    loopback: bool,
}

impl Endpoint {
    fn parse(spec: &ProviderSpec) -> Result<Self, ConnectError> {
        let text = spec.endpoint.clone().unwrap_or_default();
        let refuse = |reason: &str| ConnectError::Endpoint {
            provider: spec.id.clone(),
            // User information in a URL is a secret put in the wrong place: do not repeat it.
            endpoint: if text.contains('@') { "(with user information)".to_owned() } else { text.clone() },
            reason: reason.to_owned(),
        };
        let url = Url::parse(&text).map_err(|error| refuse(&error.to_string()))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(refuse("the scheme must be https, or http for an endpoint in your own network")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("credentials do not belong into the URL; use the credentials file"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it must not have a query or fragment"));
        }
        let loopback = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(refuse("it has no host")),
        };
        Ok(Self { url, tls, loopback })
    }

    /// `object_store` wants the bucket already in the host name for virtual addressing.
    fn for_bucket(&self, spec: &ProviderSpec, virtual_hosted: bool) -> String {
        let mut url = self.url.clone();
        if virtual_hosted && let Some(host) = self.url.host_str() {
            let with_bucket = format!("{}.{host}", spec.bucket);
            if url.set_host(Some(&with_bucket)).is_err() {
                url = self.url.clone();
            }
        }
        url.as_str().trim_end_matches('/').to_owned()
    }
}

#[cfg(test)]
mod tests;
