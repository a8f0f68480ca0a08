//! Put, get, head and delete of one blob.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use diaspore_engine::api::{BlobInfo, ByteRange, ErrorKind, GetOptions, GetOutcome};
use diaspore_engine::id::VersionId;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::access::{Access, Read, Scope, Write};
use crate::address::Query;
use crate::attributes::{self, SEQ};
use crate::condition::{self, ReadConditions, Verdict};
use crate::digest;
use crate::problem::Problem;
use crate::range;
use crate::router::App;
use crate::upload::{Fate, Upload};
use crate::wire::Stored;

/// How often a read starts over because the version it judged was replaced meanwhile.
const READ_ATTEMPTS: usize = 4;
/// Says that an earlier request did this.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// `k-of-n`, with `shrunk` behind it while domains are down.
const GEOMETRY: HeaderName = HeaderName::from_static("x-diaspore-geometry");

/// Store a blob; every put makes a new version.
#[utoipa::path(
    put, path = "/api/v1/blobs/{bucket}/{key}", tag = "blobs", security(("api_key" = ["write"])),
    params(
        ("bucket" = String, Path, description = "Bucket name"),
        ("key" = String, Path, description = "Rest of the path, percent-decoded once and taken byte for byte; 1 to 1024 bytes, no NUL"),
        ("Content-Digest" = Option<String>, Header, description = "RFC 9530, `sha-256=:<base64>:`; another body is refused with 400"),
        ("Want-Content-Digest" = Option<String>, Header, description = "`sha-256=1` keeps a SHA-256 that was not declared"),
        ("If-Match" = Option<String>, Header, description = "Entity tags, or `*` for \"must exist\""),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags, or `*` for \"must not exist\""),
        ("Idempotency-Key" = Option<String>, Header, description = "Retry token, 1 to 255 visible characters"),
        ("X-Diaspore-Class" = Option<String>, Header, description = "`quorum` or `full`"),
        ("X-Diaspore-Meta-*" = Option<String>, Header, description = "User metadata, at most 64 pairs and 4096 bytes"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "Stored", body = Stored),
        (status = 400, description = "`invalid`, `invalid_key`, `digest_mismatch`, `aborted`"),
        (status = 404, description = "`unknown_bucket`"),
        (status = 408, description = "`too_slow`"),
        (status = 409, description = "`idempotency_in_flight`"),
        (status = 412, description = "`precondition_failed`"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "Content-Encoding given"),
        (status = 422, description = "`idempotency_mismatch`"),
        (status = 503, description = "`outcome` tells `not_accepted` from `outcome_unknown`"),
        (status = 507, description = "`insufficient_storage`: the service's own disk is full, nothing happened"),
    )
)]
pub(crate) async fn put(app: App, bucket: String, key: Vec<u8>, request: Request) -> Result<Response, Problem> {
    let (parts, body, access) = enter::<Write>(&app, request).await?;
    Query::of(&parts.uri)?.done()?;
    let mut options = attributes::put_options(&parts.headers, app.limits())?;
    options.idempotency = attributes::idempotency(&parts.headers, access.caller.tenant.as_bytes(), "PUT", &bucket, &key)?;
    let fate = parts.extensions.get::<Arc<Fate>>().map(Arc::clone).unwrap_or_default();
    let upload = Box::pin(Upload::new(body, app.limits(), Arc::clone(&fate)));

    let outcome = app.engine.put_blob(&access.caller, &bucket, &key, options, upload).await;
    let outcome = outcome.map_err(|error| fate.explain(error, app.limits()))?;

    let mut response = (StatusCode::CREATED, axum::Json(Stored::of(&outcome))).into_response();
    let headers = response.headers_mut();
    attributes::identify(&outcome.blob, headers);
    insert_text(headers, SEQ, &outcome.seq.to_string());
    let (k, n, shrunk) = outcome.geometry;
    insert_text(headers, GEOMETRY, &format!("{k}-of-{n}{}", if shrunk { " shrunk" } else { "" }));
    insert_text(headers, LOCATION, &format!("{}?version={}", parts.uri.path(), outcome.blob.version));
    if let Some(sha256) = &outcome.blob.sha256 {
        headers.insert(digest::REPR_DIGEST, digest::value(sha256));
    }
    if outcome.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Read a blob or one range of it.
#[utoipa::path(
    get, path = "/api/v1/blobs/{bucket}/{key}", tag = "blobs", security(("api_key" = ["read"])),
    params(
        ("bucket" = String, Path, description = "Bucket name"),
        ("key" = String, Path, description = "Rest of the path, percent-decoded once and taken byte for byte"),
        ("version" = Option<String>, Query, description = "Read exactly this version"),
        ("Range" = Option<String>, Header, description = "One byte range, `bytes=a-b`, `bytes=a-` or `bytes=-n`; several ranges are answered with the whole blob"),
        ("If-Range" = Option<String>, Header, description = "Entity tag; the whole blob is sent when it differs"),
        ("If-Match" = Option<String>, Header, description = "Entity tags or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags or `*`"),
    ),
    responses(
        (status = 200, description = "The blob", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "If-None-Match holds the current tag"),
        (status = 404, description = "`unknown_bucket`, `unknown_key`, `unknown_version`"),
        (status = 412, description = "`precondition_failed`"),
        (status = 416, description = "`range_not_satisfiable`, with `Content-Range: bytes */size`"),
        (status = 503, description = "`data_unavailable`, `not_accepted`"),
    )
)]
pub(crate) async fn get(app: App, bucket: String, key: Vec<u8>, request: Request) -> Result<Response, Problem> {
    let (parts, _body, access) = enter::<Read>(&app, request).await?;
    let asked = Asked::of(&parts)?;
    if asked.is_plain() {
        let options = GetOptions { range: None, version: asked.version };
        let read = app.engine.get_blob(&access.caller, &bucket, &key, &options).await?;
        return Ok(whole(read));
    }
    for _ in 0..READ_ATTEMPTS {
        let current = GetOptions { range: None, version: asked.version };
        let blob = app.engine.head_blob(&access.caller, &bucket, &key, &current).await?;
        let range = match asked.judge(&blob, &parts.headers)? {
            Judged::NotModified => return Ok(not_modified(&blob)),
            Judged::Whole => None,
            Judged::Part(range) => Some(ByteRange::From { first: range.start, last: Some(range.end.saturating_sub(1)) }),
        };
        let exactly = GetOptions { range, version: Some(blob.version) };
        match app.engine.get_blob(&access.caller, &bucket, &key, &exactly).await {
            Ok(read) if range.is_some() => return Ok(part(read)),
            Ok(read) => return Ok(whole(read)),
            // Replaced between the two looks: judge the new version instead, unless this very one was asked for.
            Err(error) if error.kind == ErrorKind::UnknownVersion && asked.version.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::busy())
}

/// Describe a blob: the fields of a get without its bytes.
#[utoipa::path(
    head, path = "/api/v1/blobs/{bucket}/{key}", tag = "blobs", security(("api_key" = ["read"])),
    params(
        ("bucket" = String, Path, description = "Bucket name"),
        ("key" = String, Path, description = "Rest of the path, percent-decoded once and taken byte for byte"),
        ("version" = Option<String>, Query, description = "Look at exactly this version"),
        ("If-Match" = Option<String>, Header, description = "Entity tags or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags or `*`"),
    ),
    responses(
        (status = 200, description = "It exists"),
        (status = 304, description = "If-None-Match holds the current tag"),
        (status = 404, description = "No such bucket, key or version"),
        (status = 412, description = "If-Match does not hold"),
    )
)]
pub(crate) async fn head(app: App, bucket: String, key: Vec<u8>, request: Request) -> Result<Response, Problem> {
    let (parts, _body, access) = enter::<Read>(&app, request).await?;
    let mut asked = Asked::of(&parts)?;
    // Range is defined for GET alone (RFC 9110 section 14.2).
    asked.range = None;
    let options = GetOptions { range: None, version: asked.version };
    let blob = app.engine.head_blob(&access.caller, &bucket, &key, &options).await?;
    if let Judged::NotModified = asked.judge(&blob, &parts.headers)? {
        return Ok(not_modified(&blob));
    }
    let mut response = Response::new(Body::empty());
    attributes::describe(&blob, response.headers_mut());
    whole_length(&blob, response.headers_mut());
    Ok(response)
}

/// Delete the current version.
#[utoipa::path(
    delete, path = "/api/v1/blobs/{bucket}/{key}", tag = "blobs", security(("api_key" = ["write"])),
    params(
        ("bucket" = String, Path, description = "Bucket name"),
        ("key" = String, Path, description = "Rest of the path, percent-decoded once and taken byte for byte"),
        ("If-Match" = Option<String>, Header, description = "Entity tags or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags"),
        ("Idempotency-Key" = Option<String>, Header, description = "Retry token, 1 to 255 visible characters"),
    ),
    responses(
        (status = 204, description = "Deleted; `X-Diaspore-Seq` says where in the log"),
        (status = 404, description = "`unknown_bucket`, `unknown_key`"),
        (status = 412, description = "`precondition_failed`"),
        (status = 422, description = "`idempotency_mismatch`"),
        (status = 503, description = "`outcome` tells `not_accepted` from `outcome_unknown`"),
        (status = 507, description = "`insufficient_storage`: the service's own disk is full, nothing happened"),
    )
)]
pub(crate) async fn remove(app: App, bucket: String, key: Vec<u8>, request: Request) -> Result<Response, Problem> {
    let (parts, _body, access) = enter::<Write>(&app, request).await?;
    Query::of(&parts.uri)?.done()?;
    let precondition = condition::of_mutation(&parts.headers)?;
    let idempotency = attributes::idempotency(&parts.headers, access.caller.tenant.as_bytes(), "DELETE", &bucket, &key)?;
    let seq = app.engine.delete_blob(&access.caller, &bucket, &key, precondition, idempotency).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    insert_text(response.headers_mut(), SEQ, &seq.to_string());
    Ok(response)
}

/// Checks the key before anything else is looked at.
async fn enter<S: Scope>(app: &App, request: Request) -> Result<(Parts, Body, Access<S>), Problem> {
    let (mut parts, body) = request.into_parts();
    let access = Access::from_request_parts(&mut parts, app).await?;
    Ok((parts, body, access))
}

/// What a read asks for.
struct Asked {
    version: Option<VersionId>,
    range: Option<ByteRange>,
    conditions: ReadConditions,
}

enum Judged {
    NotModified,
    Whole,
    Part(std::ops::Range<u64>),
}

impl Asked {
    fn of(parts: &Parts) -> Result<Self, Problem> {
        let mut query = Query::of(&parts.uri)?;
        let version = query.text("version")?.map(|text| text.parse().map_err(|_| Problem::invalid("version is not an id")));
        query.done()?;
        Ok(Self { version: version.transpose()?, range: range::requested(&parts.headers), conditions: ReadConditions::of(&parts.headers)? })
    }

    /// True when nothing has to be known about the blob before it is read.
    fn is_plain(&self) -> bool {
        self.range.is_none() && self.conditions.is_none()
    }

    /// Conditions first, then the range (RFC 9110 section 13.2.2).
    fn judge(&self, blob: &BlobInfo, headers: &HeaderMap) -> Result<Judged, Problem> {
        match self.conditions.judge(blob.etag) {
            Verdict::Failed => return Err(Problem::precondition_failed()),
            Verdict::NotModified => return Ok(Judged::NotModified),
            Verdict::Proceed => {}
        }
        match self.range {
            Some(range) if condition::range_applies(headers, blob) => {
                range::resolve(range, blob.size).map(Judged::Part).ok_or_else(|| Problem::range_not_satisfiable(blob.size))
            }
            _ => Ok(Judged::Whole),
        }
    }
}

/// 304 with the fields that RFC 9110 section 15.4.5 wants.
fn not_modified(blob: &BlobInfo) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    attributes::identify(blob, response.headers_mut());
    response
}

/// 200 with the whole blob. The declared length makes a read that breaks off visible to the client.
fn whole(read: GetOutcome) -> Response {
    let mut response = Response::new(Body::from_stream(read.body));
    attributes::describe(&read.blob, response.headers_mut());
    whole_length(&read.blob, response.headers_mut());
    response
}

fn whole_length(blob: &BlobInfo, headers: &mut HeaderMap) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
    if let Some(sha256) = &blob.sha256 {
        headers.insert(digest::CONTENT_DIGEST, digest::value(sha256));
    }
}

/// 206 with what the engine says it reads.
fn part(read: GetOutcome) -> Response {
    let (start, end, size) = (read.range.start, read.range.end, read.blob.size);
    let mut response = Response::new(Body::from_stream(read.body));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    attributes::describe(&read.blob, headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end.saturating_sub(start)));
    insert_text(headers, CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
    response
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
