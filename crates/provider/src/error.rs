//! What went wrong, sorted by what the caller can do about it. No message names an object.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use diaspore_policy::{Dialect, ProviderId, SpecError};
use http::StatusCode;
use object_store::client::{HttpError, HttpErrorKind};

use crate::transport::Refusal;

/// What was asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Write an object.
    Put,
    /// Read an object or a range.
    Get,
    /// Ask for an object's size.
    Head,
    /// Enumerate a prefix.
    List,
    /// Remove an object.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// One kind per action of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The provider says there is no such object. It may lie: use other shards. An account without its bucket, and a "404" that does not
    /// speak of the object, are [`ErrorKind::Unavailable`].
    NotFound,
    /// Credentials or permissions do not suffice: tell the operator; a retry changes nothing.
    Denied,
    /// The provider answers with an error or not at all: go elsewhere, come back later. Its effect is unknown for writes.
    Unavailable,
    /// A deadline passed: as [`ErrorKind::Unavailable`].
    Timeout,
    /// The object or listing is longer than the caller allows: it is not what was written.
    TooLong,
    /// The name is taken by other bytes: never retry under this name.
    AlreadyExists,
    /// No room or quota: place elsewhere.
    Full,
    /// An answer that cannot be right (shorter than announced, redirect, wrong range): treat as a lie without evidence.
    BadResponse,
    /// The circuit breaker is open; nothing was sent.
    CircuitOpen,
    /// Our own concurrency limit did not free a slot in time; nothing was sent and the provider is not to blame.
    Busy,
    /// The caller's path, range or payload is not acceptable; nothing was sent.
    Invalid,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider {provider}: {operation} failed: {detail}{}", hint(*kind))]
pub struct ProviderError {
    /// Account.
    pub provider: ProviderId,
    /// Request.
    pub operation: Operation,
    /// What can be done.
    pub kind: ErrorKind,
    /// Status, error code or reason. Without object path, bucket or secret.
    pub detail: String,
}

impl ProviderError {
    /// Whether the same request may succeed later (never at once without back-off).
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::CircuitOpen | ErrorKind::Busy | ErrorKind::Full)
    }

    /// Whether the request may have had an effect although it failed (writes and deletes whose answer was lost).
    pub fn effect_unknown(&self) -> bool {
        let writes = matches!(self.operation, Operation::Put | Operation::Delete);
        writes && matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::BadResponse)
    }
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Denied => {
            ". Check the access key, its permissions (put, get, delete, list on this bucket) and the clock of this machine, \
             then run `metanode storage providers configure --test`"
        }
        ErrorKind::Full => ". Free space or raise the quota at this provider",
        ErrorKind::CircuitOpen => ". It failed repeatedly and is being left alone; it is probed again within 30 s",
        _ => "",
    }
}

/// A fleet that cannot be put together, and what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Two accounts share a name.
    #[error("two providers are called {provider}; names must be distinct")]
    Duplicate {
        /// The name.
        provider: ProviderId,
    },
    /// No provider at all.
    #[error("no providers are configured; add some with `metanode storage providers configure`")]
    Empty,
    /// A specification that does not hold together.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No key pair for an account that needs one.
    #[error(
        "provider {provider}: no credentials; give an access key and a secret in the credentials file or the environment (see `metanode storage providers configure --help`)"
    )]
    NoCredentials {
        /// Account.
        provider: ProviderId,
    },
    /// A dialect this version declares but does not speak.
    #[error(
        "provider {provider}: the {dialect} dialect is not built into this version; use another provider or an S3 gateway in front of it"
    )]
    NotBuiltIn {
        /// Account.
        provider: ProviderId,
        /// Dialect.
        dialect: &'static str,
    },
    /// An endpoint that is no usable URL.
    #[error("provider {provider}: endpoint {endpoint:?} is not usable: {reason}")]
    Endpoint {
        /// Account.
        provider: ProviderId,
        /// As configured.
        endpoint: String,
        /// What to change.
        reason: String,
    },
    /// The HTTP client or store could not be built.
    #[error("provider {provider}: cannot set up the connection: {reason}")]
    Setup {
        /// Account.
        provider: ProviderId,
        /// Why.
        reason: String,
    },
}

pub(crate) fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::S3 => "S3",
        Dialect::Local => "local folder",
        Dialect::Memory => "memory",
        Dialect::Azure => "Azure",
    }
}

/// Sorts an `object_store` error. Looks for our own [`Refusal`] first, which carries the exact status; then at transport and file errors.
pub(crate) fn classify(error: &object_store::Error) -> (ErrorKind, String) {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return (refusal_kind(refusal), refusal.to_string());
        }
        if let Some(transport) = current.downcast_ref::<HttpError>()
            && !has_refusal(transport)
        {
            return transport_kind(transport);
        }
        if let Some(file) = current.downcast_ref::<io::Error>() {
            return file_kind(file.kind());
        }
        cause = current.source();
    }
    let (kind, text) = match error {
        object_store::Error::NotFound { .. } => (ErrorKind::NotFound, "no such object"),
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            (ErrorKind::AlreadyExists, "the name is taken")
        }
        object_store::Error::PermissionDenied { .. } => (ErrorKind::Denied, "permission denied"),
        object_store::Error::Unauthenticated { .. } => (ErrorKind::Denied, "credentials refused"),
        object_store::Error::InvalidPath { .. } => (ErrorKind::Invalid, "invalid object path"),
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
            (ErrorKind::Invalid, "not supported by this store")
        }
        _ => (ErrorKind::BadResponse, "an answer that does not follow the protocol"),
    };
    (kind, text.to_owned())
}

fn has_refusal(error: &HttpError) -> bool {
    let mut cause = error.source();
    while let Some(current) = cause {
        if current.is::<Refusal>() {
            return true;
        }
        cause = current.source();
    }
    false
}

/// The TLS library's errors are not ours to name; what they say of certificates is enough for a hint.
fn blames_certificate(error: &HttpError) -> bool {
    std::iter::successors(error.source(), |&cause| cause.source()).any(|cause| cause.to_string().contains("certificate"))
}

/// The one code that says of an object that it is not there. Every other 404 (`NoSuchBucket` of S3, its kin and the XML interface of GCS, a
/// gateway's page, no text at all as HEAD has it) says that something on the way to the object is not.
pub(crate) const NO_SUCH_KEY: &str = "NoSuchKey";

/// The S3 code decides where it is more exact than the status.
fn refusal_kind(refusal: &Refusal) -> ErrorKind {
    let Refusal::Status { status, code } = refusal else { return ErrorKind::TooLong };
    match code.as_str() {
        NO_SUCH_KEY if *status == StatusCode::NOT_FOUND => ErrorKind::NotFound,
        "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" => ErrorKind::Full,
        "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable" | "OperationAborted" | "ConditionalRequestConflict" => {
            ErrorKind::Unavailable
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthorizationHeaderMalformed" => ErrorKind::Denied,
        _ => status_kind(*status),
    }
}

fn status_kind(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED => ErrorKind::AlreadyExists,
        StatusCode::INSUFFICIENT_STORAGE => ErrorKind::Full,
        StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT => {
            ErrorKind::Unavailable
        }
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::BadResponse,
    }
}

fn transport_kind(error: &HttpError) -> (ErrorKind, String) {
    let (kind, text) = match error.kind() {
        HttpErrorKind::Connect if blames_certificate(error) => {
            (ErrorKind::Unavailable, "its certificate is not accepted: check the endpoint, or who stands in between")
        }
        HttpErrorKind::Connect => (ErrorKind::Unavailable, "no connection: check the endpoint, the network and whether the provider is up"),
        HttpErrorKind::Timeout => (ErrorKind::Timeout, "the connection timed out"),
        HttpErrorKind::Decode => (ErrorKind::BadResponse, "an answer that is not HTTP"),
        _ => (ErrorKind::Unavailable, "the connection broke"),
    };
    (kind, text.to_owned())
}

fn file_kind(kind: io::ErrorKind) -> (ErrorKind, String) {
    let sorted = match kind {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::BadResponse,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    };
    (sorted, kind.to_string())
}

#[cfg(test)]
mod tests;
