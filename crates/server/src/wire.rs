//! JSON documents of the API, as they go over the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diaspore_engine::api::{ApiKeyInfo, BlobInfo, BucketInfo, NewApiKey, PutOutcome, TenantInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::attributes::class_name;
use crate::instant;

/// A byte string that is usually text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Key {
    /// The key as text; bytes that are not UTF-8 appear as U+FFFD.
    pub key: String,
    /// The exact bytes in base64, only when `key` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_b64: Option<String>,
}

impl Key {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { key: text.to_owned(), key_b64: None },
            Err(_) => Self { key: String::from_utf8_lossy(bytes).into_owned(), key_b64: Some(STANDARD.encode(bytes)) },
        }
    }
}

/// One stored version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Blob {
    /// Key.
    #[serde(flatten)]
    pub key: Key,
    /// Version id.
    pub version: String,
    /// Strong validator, without the quotes of the header field.
    pub etag: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in hex, when one was declared or wanted at upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When it was accepted, RFC 3339.
    pub modified: String,
    /// `quorum` or `full`.
    pub class: String,
}

impl Blob {
    /// The wire form of a version.
    pub(crate) fn of(blob: &BlobInfo) -> Self {
        Self {
            key: Key::of(&blob.key),
            version: blob.version.to_string(),
            etag: blob.etag.to_string(),
            size: blob.size,
            sha256: blob.sha256.map(hex::encode),
            content_type: blob.content_type.clone(),
            modified: instant::text(blob.modified.get()),
            class: class_name(blob.class).to_owned(),
        }
    }
}

/// How a block was coded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Geometry {
    /// Any `k` shards rebuild.
    pub k: u8,
    /// Shards made.
    pub n: u8,
    /// True when failure domains are down and the layout shrank: as many losses are survived, at a higher overhead.
    pub shrunk: bool,
}

/// Answer to a put.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stored {
    /// The new version.
    #[serde(flatten)]
    pub blob: Blob,
    /// Position in the log.
    pub seq: u64,
    /// Layout in force.
    pub geometry: Geometry,
    /// True when an earlier request with the same `Idempotency-Key` did this.
    pub replayed: bool,
}

impl Stored {
    /// The wire form of a put's outcome.
    pub(crate) fn of(outcome: &PutOutcome) -> Self {
        let (k, n, shrunk) = outcome.geometry;
        Self { blob: Blob::of(&outcome.blob), seq: outcome.seq.get(), geometry: Geometry { k, n, shrunk }, replayed: outcome.replayed }
    }
}

/// A page of a listing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Listing {
    /// Blobs in byte order of their keys.
    pub blobs: Vec<Blob>,
    /// Prefixes that keys were folded into, in byte order.
    pub common_prefixes: Vec<Key>,
    /// Pass as `page_token` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

impl Listing {
    /// The wire form of a page.
    pub(crate) fn of(page: &diaspore_engine::api::ListPage) -> Self {
        Self {
            blobs: page.blobs.iter().map(Blob::of).collect(),
            common_prefixes: page.common_prefixes.iter().map(|prefix| Key::of(prefix)).collect(),
            next_page_token: page.next.as_deref().map(crate::listing::page_token),
        }
    }
}

/// A bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bucket {
    /// Name.
    pub name: String,
    /// Creation time, RFC 3339.
    pub created: String,
}

impl Bucket {
    /// The wire form of a bucket.
    pub(crate) fn of(bucket: &BucketInfo) -> Self {
        Self { name: bucket.name.clone(), created: instant::text(bucket.created.get()) }
    }
}

/// All buckets of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Buckets {
    /// By name.
    pub buckets: Vec<Bucket>,
}

/// Asks for a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantRequest {
    /// Name, unique in the deployment.
    pub name: String,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenant {
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
}

impl Tenant {
    /// The wire form of a tenant.
    pub(crate) fn of(tenant: &TenantInfo) -> Self {
        Self { name: tenant.name.clone(), id: tenant.id.to_string() }
    }
}

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenants {
    /// By name.
    pub tenants: Vec<Tenant>,
}

/// Asks for an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeyRequest {
    /// Tenant the key is confined to, by name; an operator key, which has no namespace, when absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Label.
    pub name: String,
    /// Any of `read`, `write`, `admin`, `audit`. The last two are powers over the whole deployment.
    pub scopes: Vec<String>,
    /// Expiry, RFC 3339; none when absent.
    #[serde(default)]
    pub expires: Option<String>,
}

/// An API key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKey {
    /// Id, the public half of the token.
    pub id: String,
    /// Tenant id; absent for operator keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Label.
    pub name: String,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Expiry, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl ApiKey {
    /// The wire form of a stored key; the verifier stays inside.
    pub(crate) fn of(key: &ApiKeyInfo) -> Self {
        Self {
            id: key.id.to_string(),
            tenant_id: (!key.tenant.is_nil()).then(|| key.tenant.to_string()),
            name: key.name.clone(),
            scopes: key.scopes.clone(),
            expires: key.expires.map(|at| instant::text(at.get())),
        }
    }
}

/// All API keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeys {
    /// Keys in force.
    pub keys: Vec<ApiKey>,
}

/// A new API key. The only answer that ever carries a token.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedApiKey {
    /// Stored half.
    #[serde(flatten)]
    pub key: ApiKey,
    /// For `Authorization: Bearer`. Not shown again.
    pub token: String,
}

impl std::fmt::Debug for IssuedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}

impl IssuedApiKey {
    /// The wire form of a fresh key.
    pub(crate) fn of(fresh: NewApiKey) -> Self {
        Self { key: ApiKey::of(&fresh.info), token: fresh.token }
    }
}

/// Outcome of waiting for everything to settle.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettleOutcome {
    /// True when every shard of every block is durable.
    pub settled: bool,
    /// Blocks that still miss shards.
    pub unsettled_blocks: u64,
    /// Sealed bytes of those blocks.
    pub unsettled_bytes: u64,
    /// Time waited in milliseconds.
    pub waited_ms: u64,
}

/// How a provider is to be used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderState {
    /// `active`, `quarantined` or `dead`.
    pub state: String,
    /// Why, for the log; at most 200 characters count.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Public key of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogKey {
    /// `ed25519`.
    pub algorithm: String,
    /// 32 bytes in hex.
    pub public_key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_exact_one_way_or_the_other() {
        let text = Key::of("é/x".as_bytes());
        assert_eq!((text.key.as_str(), text.key_b64), ("é/x", None));
        let raw = Key::of(&[b'a', 0xff]);
        assert_eq!((raw.key.as_str(), raw.key_b64.as_deref()), ("a\u{fffd}", Some("Yf8=")));
    }

    #[test]
    fn a_token_never_shows_in_debug_output() {
        let key = ApiKey { id: "i".into(), tenant_id: None, name: "n".into(), scopes: vec![], expires: None };
        let issued = IssuedApiKey { key, token: "dsp_canary".into() };
        assert!(!format!("{issued:?}").contains("canary"));
        assert!(serde_json::to_string(&issued).unwrap().contains("dsp_canary"));
    }
}
