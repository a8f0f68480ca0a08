//! What a request says about a blob besides its bytes, and what an answer says back.

use diaspore_engine::api::{BlobInfo, Class, Idempotency, PutOptions};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::condition;
use crate::digest;
use crate::limits::Limits;
use crate::problem::Problem;

/// Prefix of user metadata fields.
pub(crate) const META_PREFIX: &str = "x-diaspore-meta-";
/// Pairs of user metadata of one blob.
pub(crate) const META_PAIRS: usize = 64;
/// Sum of the names and values of a blob's user metadata in bytes, as S3 has it doubled.
pub(crate) const META_BYTES: usize = 4096;

/// `quorum` or `full`.
pub(crate) const CLASS: HeaderName = HeaderName::from_static("x-diaspore-class");
/// Version id.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-diaspore-version");
/// Position of the change in the log.
pub(crate) const SEQ: HeaderName = HeaderName::from_static("x-diaspore-seq");
/// Client's retry token (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Asks for a digest in answers (RFC 9530 section 4).
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const CONTENT_TYPE_BYTES: usize = 255;
const IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Reads everything a put may carry, except its bytes and its retry token.
pub(crate) fn put_options(headers: &HeaderMap, limits: &Limits) -> Result<PutOptions, Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::unsupported("Content-Encoding is not kept with a blob; send the bytes as they are to be stored"));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::invalid("a put replaces the whole blob; Content-Range is not possible"));
    }
    let length = declared_length(headers)?;
    if length.is_some_and(|length| length > limits.blob_bytes) {
        return Err(Problem::too_large(limits.blob_bytes));
    }
    Ok(PutOptions {
        class: class(headers)?,
        content_type: content_type(headers)?,
        metadata: metadata(headers)?,
        length,
        sha256: digest::declared(headers)?,
        want_sha256: wants_sha256(headers),
        precondition: condition::of_mutation(headers)?,
        ..PutOptions::default()
    })
}

/// `Content-Length`, which means nothing beside a transfer coding.
fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Ok(None);
    }
    let Some(value) = headers.get(http::header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| Problem::invalid("Content-Length is not a number of bytes"))
}

fn class(headers: &HeaderMap) -> Result<Option<Class>, Problem> {
    match headers.get(CLASS).map(HeaderValue::as_bytes) {
        None => Ok(None),
        Some(b"quorum") => Ok(Some(Class::Quorum)),
        Some(b"full") => Ok(Some(Class::Full)),
        Some(_) => Err(Problem::invalid("X-Diaspore-Class is either quorum or full")),
    }
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid("Content-Type is not ASCII text"))?;
    if text.len() > CONTENT_TYPE_BYTES {
        return Err(Problem::invalid(format!("Content-Type exceeds {CONTENT_TYPE_BYTES} bytes")));
    }
    Ok(Some(text.to_owned()))
}

fn metadata(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(META_PREFIX) else { continue };
        if name.is_empty() {
            return Err(Problem::invalid("a metadata field has no name behind X-Diaspore-Meta-"));
        }
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::invalid("a metadata value is not UTF-8 text"))?;
        bytes += name.len() + value.len();
        pairs.push((name.to_owned(), value.to_owned()));
    }
    if pairs.len() > META_PAIRS || bytes > META_BYTES {
        return Err(Problem::invalid(format!("user metadata exceeds {META_PAIRS} pairs or {META_BYTES} bytes")));
    }
    Ok(pairs)
}

/// Whether the sender wants a SHA-256 kept; a weight of 0 means "not acceptable".
fn wants_sha256(headers: &HeaderMap) -> bool {
    [WANT_CONTENT_DIGEST, WANT_REPR_DIGEST].iter().flat_map(|name| headers.get_all(name)).filter_map(|value| value.to_str().ok()).any(
        |text| {
            text.split(',').filter_map(|member| member.trim().split_once('=')).any(|(key, weight)| key == "sha-256" && weight.trim() != "0")
        },
    )
}

/// The retry token of a request with a hash of what must not differ between retries, the body apart.
///
/// `scope` is the tenant's id: equal tokens of two tenants do not meet.
pub(crate) fn idempotency(
    headers: &HeaderMap,
    scope: &[u8],
    method: &str,
    bucket: &str,
    key: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let mut fields = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(token) = fields.next() else { return Ok(None) };
    let text = token.to_str().unwrap_or("");
    if fields.next().is_some() || text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES {
        return Err(Problem::invalid(format!("Idempotency-Key is one field of 1 to {IDEMPOTENCY_KEY_BYTES} visible characters")));
    }
    let mut request = Sha256::new();
    for part in [b"diaspore request v1".as_slice(), method.as_bytes(), bucket.as_bytes(), key] {
        absorb(&mut request, part);
    }
    let fixed = [http::header::IF_MATCH, http::header::IF_NONE_MATCH, CONTENT_TYPE, CLASS, digest::CONTENT_DIGEST, digest::REPR_DIGEST];
    for name in fixed {
        for value in headers.get_all(&name) {
            absorb(&mut request, name.as_str().as_bytes());
            absorb(&mut request, value.as_bytes());
        }
    }
    // The order in which a client happens to send different fields is not part of the request.
    let mut meta: Vec<_> = headers.iter().filter(|(name, _)| name.as_str().starts_with(META_PREFIX)).collect();
    meta.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in meta {
        absorb(&mut request, name.as_str().as_bytes());
        absorb(&mut request, value.as_bytes());
    }
    let mut token_hash = Sha256::new();
    for part in [b"diaspore idempotency v1".as_slice(), scope, text.as_bytes()] {
        absorb(&mut token_hash, part);
    }
    Ok(Some(Idempotency { key_hash: token_hash.finalize().into(), request_hash: request.finalize().into() }))
}

/// Hashes a part with its length in front, so that parts cannot run into each other.
fn absorb(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// The fields that describe a version, without its length and range.
pub(crate) fn describe(blob: &BlobInfo, headers: &mut HeaderMap) {
    let stored = blob.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    headers.insert(CONTENT_TYPE, stored.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    // Stored bytes are a tenant's: a browser must not take them for something of ours.
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    identify(blob, headers);
    if let Some(sha256) = &blob.sha256 {
        headers.insert(digest::REPR_DIGEST, digest::value(sha256));
    }
    for (name, value) in &blob.metadata {
        let name = HeaderName::from_bytes(format!("{META_PREFIX}{name}").as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
}

/// Version, validators and class.
pub(crate) fn identify(blob: &BlobInfo, headers: &mut HeaderMap) {
    headers.insert(ETAG, condition::etag_value(blob.etag));
    if let Ok(version) = HeaderValue::from_str(&blob.version.to_string()) {
        headers.insert(VERSION, version);
    }
    headers.insert(CLASS, HeaderValue::from_static(class_name(blob.class)));
    if let Some(date) = crate::instant::http_date(blob.modified.get()) {
        headers.insert(LAST_MODIFIED, date);
    }
}

/// Wire word of a class.
pub(crate) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Quorum => "quorum",
        Class::Full => "full",
    }
}

#[cfg(test)]
mod tests;
