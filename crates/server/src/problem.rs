//! Errors as RFC 9457 `application/problem+json`. Nothing here names a provider, a path or a key.

use axum::response::{IntoResponse, Response};
use diaspore_engine::api::{Error, ErrorKind};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// Prefix of every problem type.
const TYPE_PREFIX: &str = "urn:diaspore:problem:";

/// The document a client sees.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// `urn:diaspore:problem:` and the code.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// What the code means, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here and what to do about it.
    pub detail: String,
    /// Stable word to branch on, such as `unknown_key`.
    pub code: String,
    /// The request's id, also in `X-Request-Id` and in the service's log.
    pub request_id: String,
    /// True when the same request may succeed later without a change.
    pub retryable: bool,
    /// With 503 and 507: `not_accepted` (nothing happened) or `outcome_unknown` (ask again with the same `Idempotency-Key`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// A failed request before it is rendered: the outermost layer adds the request id.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    const fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        Self { status, code, title, detail, retry_after_s: None, headers: Vec::new() }
    }

    /// 400: something about the request is outside the rules; `detail` says what.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", "The request is not valid", detail.into())
    }

    /// 400: a blob key outside the rules.
    pub(crate) fn invalid_key(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_key", "The key is not valid", detail.into())
    }

    /// 401 with the challenge of RFC 6750.
    pub(crate) fn unauthorized(detail: &'static str, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Authentication is required", detail.into())
            .header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 403: the key is good, its scopes do not cover the call. Says nothing about what exists.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The API key does not allow this", detail.into())
    }

    /// 404 for a path that names no resource.
    pub(crate) fn no_such_route() -> Self {
        let detail = "no such resource; /api/openapi.json lists them all".into();
        Self::new(StatusCode::NOT_FOUND, "unknown_route", "No such resource", detail)
    }

    /// 405 with the methods that work.
    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let detail = format!("this resource answers {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed here", detail)
            .header(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 408: the body stopped coming.
    pub(crate) fn too_slow() -> Self {
        let detail = "the body came too slowly and was cut; nothing was stored, send it again".into();
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "The request body came too slowly", detail)
            .header(http::header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 413 with the limit.
    pub(crate) fn too_large(limit: u64) -> Self {
        let detail = format!("the body exceeds the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large", detail)
    }

    /// 414 with the limit.
    pub(crate) fn uri_too_long(limit: usize) -> Self {
        let detail = format!("the request target exceeds {limit} bytes");
        Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", "The request target is too long", detail)
    }

    /// 415 with what would be understood.
    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body's form is not supported", detail.into())
    }

    /// 431 with the limits.
    pub(crate) fn headers_too_large(bytes: usize, count: usize) -> Self {
        let detail = format!("the header fields exceed {bytes} bytes or {count} fields");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The header fields are too large", detail)
    }

    /// 412.
    pub(crate) fn precondition_failed() -> Self {
        Error::new(ErrorKind::PreconditionFailed, "the current version does not meet If-Match or If-None-Match; read it and decide again")
            .into()
    }

    /// 416 with the blob's size.
    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let problem = Self::from(Error::new(ErrorKind::RangeNotSatisfiable, format!("the range lies outside the blob of {size} bytes")));
        match HeaderValue::from_str(&format!("bytes */{size}")) {
            Ok(value) => problem.header(http::header::CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }

    /// 503: nothing happened; too many requests at once.
    pub(crate) fn busy() -> Self {
        Error::new(ErrorKind::NotAccepted, "too many requests are running; nothing was done, try again shortly").into()
    }

    /// 503 of the readiness check.
    pub(crate) fn not_ready(state: &str) -> Self {
        let mut problem = Self::from(Error::new(ErrorKind::ReadOnly, format!("the service is {state}")));
        problem.code = "not_ready";
        problem
    }

    /// The same with another header field.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Stable code, for the log.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The response with its document.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let outcome = matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE)
            .then(|| if self.code == "outcome_unknown" { "outcome_unknown" } else { "not_accepted" })
            .map(str::to_owned);
        let document = ProblemDocument {
            problem_type: format!("{TYPE_PREFIX}{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
            request_id: request_id.to_owned(),
            retryable: self.retry_after_s.is_some(),
            outcome,
        };
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        *response.body_mut() = bytes.into();
        response
    }
}

/// Carries the problem to the outermost layer, which knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// What an engine error becomes on the wire.
struct Class {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    retry_after_s: Option<u32>,
    /// Whether the engine's sentence is meant for callers. Defects and refusals of the whole state keep theirs for the log.
    detail_is_public: bool,
}

/// The one place where kinds become statuses.
fn classify(kind: ErrorKind) -> Class {
    use ErrorKind as K;
    let (status, code, title, retry_after_s) = match kind {
        K::UnknownBucket => (StatusCode::NOT_FOUND, "unknown_bucket", "No such bucket", None),
        K::UnknownKey => (StatusCode::NOT_FOUND, "unknown_key", "No such key", None),
        K::UnknownVersion => (StatusCode::NOT_FOUND, "unknown_version", "No such version", None),
        K::AlreadyExists => (StatusCode::CONFLICT, "already_exists", "The name is taken", None),
        K::BucketNotEmpty => (StatusCode::CONFLICT, "bucket_not_empty", "The bucket still holds blobs", None),
        K::Invalid => (StatusCode::BAD_REQUEST, "invalid", "The request is not valid", None),
        K::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large", None),
        K::DigestMismatch => (StatusCode::BAD_REQUEST, "digest_mismatch", "The body is not what was declared", None),
        K::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed", "The condition does not hold", None),
        K::RangeNotSatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "The range is outside the blob", None),
        K::IdempotencyMismatch => {
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", "The Idempotency-Key stands for another request", None)
        }
        K::IdempotencyInFlight => (StatusCode::CONFLICT, "idempotency_in_flight", "The first such request is still running", Some(1)),
        K::Aborted => (StatusCode::BAD_REQUEST, "aborted", "The upload broke off", None),
        K::NotAccepted => (StatusCode::SERVICE_UNAVAILABLE, "not_accepted", "Not accepted, nothing happened", Some(1)),
        K::TooFewDomains => (StatusCode::SERVICE_UNAVAILABLE, "too_few_domains", "Too few failure domains are up", Some(30)),
        K::OutcomeUnknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", "The outcome is not known yet", Some(2)),
        K::ReadOnly => (StatusCode::SERVICE_UNAVAILABLE, "read_only", "The service takes no changes now", Some(10)),
        K::DataUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "data_unavailable", "The data cannot be reached now", Some(10)),
        K::IntegrityViolation => (StatusCode::INTERNAL_SERVER_ERROR, "integrity_violation", "The stored data is damaged", None),
        K::RefusedState => (StatusCode::INTERNAL_SERVER_ERROR, "refused_state", "The service refused its state", None),
        K::InsufficientStorage => (StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage", "The service's disk is full", Some(30)),
        K::LocalStore => (StatusCode::INTERNAL_SERVER_ERROR, "local_store", "The local store failed", None),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", None),
    };
    let detail_is_public = !matches!(kind, K::Internal | K::RefusedState);
    Class { status, code, title, retry_after_s, detail_is_public }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let class = classify(error.kind);
        if class.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code = class.code, error = %error, cause = error.source.as_deref().map(tracing::field::display), "request failed");
        } else if class.status.is_server_error() {
            tracing::warn!(code = class.code, error = %error, cause = error.source.as_deref().map(tracing::field::display), "request put off");
        }
        let detail = if class.detail_is_public { error.message } else { "see the service's log under this request id".to_owned() };
        let mut problem = Self::new(class.status, class.code, class.title, detail);
        problem.retry_after_s = class.retry_after_s;
        problem
    }
}

#[cfg(test)]
mod tests;
