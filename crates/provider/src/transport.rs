//! The HTTP client under `object_store`: no redirects, no proxies, bounded error texts and listings, typed refusals.
//!
//! `object_store` reads error bodies and listing pages to their end whatever their length, and turns a status into text. Both are
//! settled here, below it: a non-2xx answer becomes a [`Refusal`] with the status and the S3 error code, and every body of a
//! request that is not an object read is cut at [`MAX_CONTROL_BODY`].

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};

use crate::error::NO_SUCH_KEY;

/// Longest listing page or acknowledgement read: 1000 keys of 512 bytes with their XML fit four times.
pub(crate) const MAX_CONTROL_BODY: usize = 4 * 1024 * 1024;
/// Longest error text read.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// Longest S3 error code kept.
const MAX_CODE: usize = 64;

/// An answer that is no success, or a body past its bound. Travels as the source of an `HttpError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not 2xx. `code` is the S3 error code, or empty.
    Status {
        /// HTTP status.
        status: StatusCode,
        /// Letters and digits only.
        code: String,
    },
    /// A body that is not an object went past its bound.
    BodyTooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, .. } if status.is_redirection() => {
                write!(f, "it answered {} with a redirect, which is never followed; check region and endpoint", status.as_u16())
            }
            Self::Status { status, code } if *status == StatusCode::NOT_FOUND && code != NO_SUCH_KEY => {
                let code = if code.is_empty() { "without saying what of" } else { code };
                write!(f, "it answered 404 {code}, which tells nothing of the object; check bucket, account and endpoint")
            }
            Self::Status { status, code } if code.is_empty() => write!(f, "it answered {}", status.as_u16()),
            Self::Status { status, code } => write!(f, "it answered {} {code}", status.as_u16()),
            Self::BodyTooLong => write!(f, "its answer went past {MAX_CONTROL_BODY} bytes"),
        }
    }
}

/// What the client needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport {
    /// Longest time to a connection (DNS, TCP, TLS).
    pub(crate) connect: Duration,
    /// Idle connections kept.
    pub(crate) idle_connections: usize,
    /// Refuse plain HTTP.
    pub(crate) https_only: bool,
}

impl Transport {
    /// Builds the client. It never follows a redirect (a provider could point us into our own network), ignores proxies, and speaks HTTP/1.1.
    pub(crate) fn client(self) -> Result<HttpClient, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(self.https_only)
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(self.connect)
            .pool_max_idle_per_host(self.idle_connections)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("diaspore/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(HttpClient::new(Guarded(HttpClient::new(client))))
    }
}

/// Hands `object_store` a client already built, instead of one with its own options.
#[derive(Debug)]
pub(crate) struct Ready(pub(crate) HttpClient);

impl HttpConnector for Ready {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// The bounds, around any client.
#[derive(Debug)]
struct Guarded(HttpClient);

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_object_read = request.method() == Method::GET && !request.uri().query().unwrap_or_default().contains("list-type=");
        let response = self.0.execute(request).await?;
        let status = response.status();
        let (parts, body) = response.into_parts();
        if !status.is_success() {
            let code = error_code(&read_some(body, MAX_ERROR_BODY).await);
            return Err(HttpError::new(HttpErrorKind::Unknown, Refusal::Status { status, code }));
        }
        let body = if is_object_read { body } else { cut(body, MAX_CONTROL_BODY) };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// At most `limit` bytes of a body; whatever goes wrong after that does not matter.
async fn read_some(body: HttpResponseBody, limit: usize) -> Vec<u8> {
    let mut pieces = body.bytes_stream();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        let room = limit - text.len();
        text.extend(piece.iter().copied().take(room));
        if text.len() == limit {
            break;
        }
    }
    text
}

/// The content of `<Code>`, if it is a plain word.
fn error_code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let plain = code.len() <= MAX_CODE && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { code.to_owned() } else { String::new() }
}

/// The same body, ending in an error once it is longer than `limit`.
///
/// The new body has no size hint on purpose: `object_store` allocates what `Content-Length` announces, so a provider that
/// announces 100 GB for a listing would abort the process before a byte arrived.
fn cut(body: HttpResponseBody, limit: usize) -> HttpResponseBody {
    let pieces = stream::unfold((body.bytes_stream(), limit), |(mut pieces, room)| async move {
        let piece = pieces.next().await?;
        let checked = piece.and_then(|bytes: Bytes| match room.checked_sub(bytes.len()) {
            Some(left) => Ok((bytes, left)),
            None => Err(HttpError::new(HttpErrorKind::Decode, Refusal::BodyTooLong)),
        });
        Some(match checked {
            Ok((bytes, left)) => (Ok(Frame::data(bytes)), (pieces, left)),
            Err(error) => (Err(error), (stream::empty().boxed(), 0)),
        })
    });
    HttpResponseBody::new(StreamBody::new(SyncStream(std::sync::Mutex::new(pieces.boxed()))))
}

/// A stream that only one owner ever polls, made `Sync` as `HttpResponseBody` demands.
struct SyncStream<S>(std::sync::Mutex<S>);

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<S::Item>> {
        let inner = self.get_mut().0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.poll_next_unpin(cx)
    }
}

#[cfg(test)]
mod tests;
