//! Which handler answers which path, and what all of them share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use diaspore_engine::Engine;
use http::Method;
use tokio::sync::Semaphore;

use crate::access::{Access, Known};
use crate::address::Address;
use crate::limits::Limits;
use crate::observe::{self, Traffic};
use crate::problem::Problem;
use crate::{admin, audit, blobs, buckets, checkpoint, collect, exposition, health, integrity, listing, openapi, relocate, upkeep};

/// Further Prometheus text appended to `/metrics`, such as a recorder's.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Settings of the HTTP front.
#[derive(Clone, Default)]
pub struct ServerOptions {
    /// Bounds on what peers may send and take.
    pub limits: Limits,
    /// Further text for `/metrics`.
    pub metrics_text: Option<MetricsText>,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The other end of the connection. Absent in in-process calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Shared by all handlers; cloning counts references.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) options: Arc<ServerOptions>,
    pub(crate) traffic: Arc<Traffic>,
    /// One permit per request, its body included.
    pub(crate) slots: Arc<Semaphore>,
}

impl App {
    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }
}

/// The whole API over `engine`, for a server or for in-process calls.
///
/// Everything below `/api/v1` needs an API key, unknown paths included. `/healthz`, `/readyz` and `/api/openapi.json` are open;
/// `/metrics` is open to loopback peers only.
pub fn router(engine: Engine, options: ServerOptions) -> Router {
    build(engine, options).0
}

/// The router with the counters it keeps.
pub(crate) fn build(engine: Engine, options: ServerOptions) -> (Router, Arc<Traffic>) {
    let slots = Arc::new(Semaphore::new(options.limits.requests));
    let traffic = Arc::new(Traffic::new(&engine.status().incarnation));
    let app = App { engine, options: Arc::new(options), traffic: Arc::clone(&traffic), slots };
    let router = Router::new()
        .route("/api/v1/blobs/{*rest}", any(blob_or_bucket))
        .route("/api/v1/buckets", get(buckets::list))
        .route("/api/v1/buckets/{name}", get(buckets::show).put(buckets::create).delete(buckets::remove))
        .route("/api/v1/status", get(admin::status))
        .route("/api/v1/settle", post(admin::settle))
        .route("/api/v1/checkpoint", get(checkpoint::state).post(checkpoint::begin))
        .route("/api/v1/providers/{name}/evacuate", post(relocate::evacuate))
        .route("/api/v1/providers/rebalance", post(relocate::rebalance))
        .route("/api/v1/relocations", get(relocate::relocations))
        .route("/api/v1/collect", get(collect::collections).post(collect::collect))
        .route("/api/v1/scrub", get(integrity::scrubbed).post(integrity::scrub))
        .route("/api/v1/drill", post(integrity::drill))
        .route("/api/v1/providers/{name}/state", post(integrity::set_state))
        .route("/api/v1/fsck", get(upkeep::fsck))
        .route("/api/v1/flush", post(upkeep::flush))
        .route("/api/v1/backup", get(upkeep::backup))
        .route("/api/v1/tenants", get(admin::list_tenants).post(admin::create_tenant))
        .route("/api/v1/keys", get(admin::list_keys).post(admin::create_key))
        .route("/api/v1/keys/{id}", delete(admin::revoke_key))
        .route("/api/v1/audit/totals", get(audit::totals))
        .route("/api/v1/audit/export", get(audit::export))
        .route("/api/v1/audit/checkpoint", get(audit::checkpoint))
        .route("/api/v1/audit/key", get(audit::key))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(exposition::metrics))
        .route("/api/openapi.json", get(openapi::document))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), observe::around))
        .with_state(app);
    (router, traffic)
}

/// Blobs and listings share one route: the key is what follows the bucket in the *original* path, which no pattern sees unharmed.
async fn blob_or_bucket(State(app): State<App>, request: Request) -> Response {
    let outcome = match (Address::of(request.uri()), request.method()) {
        (Ok(Address::Blob { bucket, key }), &Method::PUT) => blobs::put(app, bucket, key, request).await,
        (Ok(Address::Blob { bucket, key }), &Method::GET) => blobs::get(app, bucket, key, request).await,
        (Ok(Address::Blob { bucket, key }), &Method::HEAD) => blobs::head(app, bucket, key, request).await,
        (Ok(Address::Blob { bucket, key }), &Method::DELETE) => blobs::remove(app, bucket, key, request).await,
        (Ok(Address::Bucket(bucket)), &Method::GET | &Method::HEAD) => listing::list(app, bucket, request).await,
        (Ok(Address::Blob { .. }), _) => refuse(&app, request, Problem::method_not_allowed("GET, HEAD, PUT, DELETE")).await,
        (Ok(Address::Bucket(_)), &Method::PUT | &Method::DELETE) => {
            let problem =
                Problem::invalid_key("the path has no key behind the bucket; buckets are made and removed at /api/v1/buckets/{name}");
            refuse(&app, request, problem).await
        }
        (Ok(Address::Bucket(_)), _) => refuse(&app, request, Problem::method_not_allowed("GET, HEAD")).await,
        (Err(problem), _) => refuse(&app, request, problem).await,
    };
    outcome.unwrap_or_else(IntoResponse::into_response)
}

/// Answers `problem` to whoever has a key, 401 to everybody else.
async fn refuse(app: &App, request: Request, problem: Problem) -> Result<Response, Problem> {
    let (mut parts, _body) = request.into_parts();
    Access::<Known>::from_request_parts(&mut parts, app).await?;
    Err(problem)
}

async fn unknown(State(app): State<App>, request: Request) -> Response {
    let open = !request.uri().path().starts_with("/api/v1");
    let problem = Problem::no_such_route();
    let outcome = if open { Err(problem) } else { refuse(&app, request, problem).await };
    outcome.unwrap_or_else(IntoResponse::into_response)
}

async fn wrong_method(State(app): State<App>, request: Request) -> Response {
    let problem = Problem::method_not_allowed(allowed(request.uri().path()));
    let open = !request.uri().path().starts_with("/api/v1");
    let outcome = if open { Err(problem) } else { refuse(&app, request, problem).await };
    outcome.unwrap_or_else(IntoResponse::into_response)
}

/// Methods of a routed path, for `Allow` (RFC 9110 section 15.5.6).
fn allowed(path: &str) -> &'static str {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    match path {
        "/api/v1/settle" | "/api/v1/flush" | "/api/v1/drill" | "/api/v1/providers/rebalance" => "POST",
        _ if below("/api/v1/providers/") => "POST",
        "/api/v1/tenants" | "/api/v1/keys" | "/api/v1/checkpoint" | "/api/v1/collect" | "/api/v1/scrub" => "GET, HEAD, POST",
        _ if below("/api/v1/keys/") => "DELETE",
        _ if below("/api/v1/buckets/") => "GET, HEAD, PUT, DELETE",
        _ => "GET, HEAD",
    }
}
