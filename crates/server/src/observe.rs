//! The outermost layer of a request: admission, request id, counters, one log line. Never a name, a key or a token.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument;

use crate::problem::Problem;
use crate::router::App;
use crate::upload::Fate;

/// Field that carries the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Methods with counters of their own; the last stands for all others.
pub(crate) const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "other"];
/// Status classes with counters of their own.
pub(crate) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of the HTTP front since start.
#[derive(Debug)]
pub(crate) struct Traffic {
    instance: String,
    next_request: AtomicU64,
    requests: [[AtomicU64; STATUS_CLASSES.len()]; METHODS.len()],
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) duration_us: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) cut_bodies: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_total: AtomicU64,
}

impl Traffic {
    /// Counters at zero. `instance` makes request ids differ between starts: its first eight characters lead them.
    pub(crate) fn new(instance: &str) -> Self {
        Self {
            instance: instance.chars().filter(char::is_ascii_alphanumeric).take(8).collect(),
            next_request: AtomicU64::new(0),
            requests: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            duration_us: AtomicU64::new(0),
            running: AtomicU64::new(0),
            cut_bodies: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
        }
    }

    fn request_id(&self) -> String {
        format!("{}-{:08x}", self.instance, self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Requests answered, by index into [`METHODS`] and [`STATUS_CLASSES`].
    pub(crate) fn answered(&self, method: usize, class: usize) -> u64 {
        self.requests.get(method).and_then(|row| row.get(class)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn count(&self, method: &'static str, status: StatusCode) {
        let row = METHODS.iter().position(|name| *name == method).and_then(|at| self.requests.get(at));
        let cell = row.and_then(|row| row.get(usize::from(status.as_u16() / 100).saturating_sub(1)));
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Paths that answer whatever the load: they are how the load is seen.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Wraps every request.
pub(crate) async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let method = METHODS.iter().copied().find(|name| *name == request.method().as_str()).unwrap_or("other");
    let id = app.traffic.request_id();
    let fate = Arc::new(Fate::default());
    request.extensions_mut().insert(Arc::clone(&fate));
    app.traffic.running.fetch_add(1, Ordering::Relaxed);
    let mut account =
        Account { app: app.clone(), id, method, fate, start: Instant::now(), status: StatusCode::OK, out: 0, failed: false, permit: None };
    let span = tracing::info_span!("request", id = %account.id, method);
    let is_head = request.method() == Method::HEAD;

    let response = match admit(&app, &request) {
        Ok(permit) => {
            account.permit = permit;
            next.run(request).instrument(span).await
        }
        Err(problem) => axum::response::IntoResponse::into_response(problem),
    };
    finish(response, account, is_head)
}

/// Checks the head of the request and takes a slot.
fn admit(app: &App, request: &Request) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    let limits = app.limits();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes {
        return Err(Problem::uri_too_long(limits.uri_bytes));
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes || request.headers().len() > limits.headers {
        return Err(Problem::headers_too_large(limits.header_bytes, limits.headers));
    }
    if ALWAYS_ANSWERED.contains(&request.uri().path()) {
        return Ok(None);
    }
    Arc::clone(&app.slots).try_acquire_owned().map(Some).map_err(|_| Problem::busy())
}

/// Renders a problem, adds the request id and keeps the account open until the body is out.
fn finish(mut response: Response, mut account: Account, is_head: bool) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        tracing::debug!(id = %account.id, code = problem.code(), "problem");
        response = problem.render(&account.id);
    }
    account.status = response.status();
    if let Ok(value) = HeaderValue::from_str(&account.id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if is_head {
        // Dropping the body here closes the account now; hyper keeps the declared length.
        return response.map(|_| Body::empty());
    }
    response.map(|body| Body::new(Tracked { body, account }))
}

/// What one request cost. Settled when dropped, so a connection that breaks is counted too.
struct Account {
    app: App,
    id: String,
    method: &'static str,
    fate: Arc<Fate>,
    start: Instant,
    status: StatusCode,
    out: u64,
    failed: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Account {
    fn drop(&mut self) {
        let traffic = &self.app.traffic;
        let (taken, elapsed) = (self.fate.received(), self.start.elapsed());
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        traffic.count(self.method, self.status);
        traffic.bytes_in.fetch_add(taken, Ordering::Relaxed);
        traffic.bytes_out.fetch_add(self.out, Ordering::Relaxed);
        traffic.duration_us.fetch_add(micros, Ordering::Relaxed);
        traffic.running.fetch_sub(1, Ordering::Relaxed);
        if self.failed {
            traffic.cut_bodies.fetch_add(1, Ordering::Relaxed);
        }
        tracing::info!(
            id = %self.id,
            method = self.method,
            status = self.status.as_u16(),
            duration_us = micros,
            bytes_in = taken,
            bytes_out = self.out,
            cut = self.failed,
            "answered"
        );
    }
}

/// A response body that keeps its request's account and slot until it is out or dropped.
struct Tracked {
    body: Body,
    account: Account,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.account.out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                self.account.failed = true;
                tracing::error!(id = %self.account.id, %error, "an answer broke off");
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
