//! The audit log: totals, export, checkpoint, key. Needs the scope `audit` or `admin`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use diaspore_engine::Engine;
use diaspore_engine::api::{AuditTotals, Caller, Error, ErrorKind};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::access::{Access, Audit};
use crate::address::Query;
use crate::problem::Problem;
use crate::router::App;
use crate::wire::LogKey;

/// Lines fetched from the engine at once.
const BATCH: u64 = 500;

/// Totals by family.
#[utoipa::path(get, path = "/api/v1/audit/totals", tag = "audit", security(("api_key" = ["audit"])),
    responses((status = 200, description = "Totals; `total` is their sum", body = Object)))]
pub(crate) async fn totals(State(app): State<App>, _access: Access<Audit>) -> Result<Json<AuditTotals>, Problem> {
    Ok(Json(app.engine.audit_totals()?))
}

/// Signed note over the released log (C2SP tlog-checkpoint).
#[utoipa::path(get, path = "/api/v1/audit/checkpoint", tag = "audit", security(("api_key" = ["audit"])),
    responses((status = 200, description = "The note", body = String, content_type = "text/plain")))]
pub(crate) async fn checkpoint(State(app): State<App>, _access: Access<Audit>) -> Result<Response, Problem> {
    Ok(app.engine.checkpoint()?.into_response())
}

/// Public key that verifies checkpoints and manifests.
#[utoipa::path(get, path = "/api/v1/audit/key", tag = "audit", security(("api_key" = ["audit"])),
    responses((status = 200, description = "The key", body = LogKey)))]
pub(crate) async fn key(State(app): State<App>, _access: Access<Audit>) -> Json<LogKey> {
    let public_key = hex::encode(app.engine.log_public_key().as_bytes());
    Json(LogKey { algorithm: "ed25519".to_owned(), public_key })
}

/// Public parts of the log, one JSON object per line.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", security(("api_key" = ["audit"])),
    params(
        ("from" = Option<u64>, Query, description = "First leaf, from 0"),
        ("limit" = Option<u64>, Query, description = "Most lines; to the end of the log when absent"),
    ),
    responses((status = 200, description = "JSON lines; a connection that ends without the last chunk means the export broke off", body = String, content_type = "application/jsonl")))]
pub(crate) async fn export(State(app): State<App>, access: Access<Audit>, request: Request) -> Result<Response, Problem> {
    let mut query = Query::of(request.uri())?;
    let from = query.number("from")?.unwrap_or(0);
    let left = query.number("limit")?.unwrap_or(u64::MAX);
    query.done()?;
    let mut export = Export { engine: app.engine, caller: access.caller, next: from, left };
    // The first batch comes before the status line: trouble at once is a problem document, not a cut body.
    let first = export.batch().await?;
    let rest = futures::stream::try_unfold(export, async |mut export| Ok(export.batch().await?.map(|lines| (lines, export))));
    let first = futures::stream::iter(first.map(Ok::<Bytes, Error>));
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, rest)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    Ok(response)
}

/// An export in progress.
struct Export {
    engine: Engine,
    caller: Caller,
    next: u64,
    left: u64,
}

impl Export {
    /// The next lines; `None` at the end.
    async fn batch(&mut self) -> Result<Option<Bytes>, Error> {
        let wanted = usize::try_from(self.left.min(BATCH)).unwrap_or(1);
        if wanted == 0 {
            return Ok(None);
        }
        let lines = self.engine.audit_export(&self.caller, self.next, wanted).await?;
        if lines.is_empty() {
            return Ok(None);
        }
        let count = lines.len() as u64;
        self.next = self.next.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        let mut text = BytesMut::with_capacity(lines.len() * 512).writer();
        for line in &lines {
            serde_json::to_writer(&mut text, line)
                .map_err(|error| Error::caused(ErrorKind::Internal, "an audit line has no JSON form", error))?;
            text.get_mut().put_u8(b'\n');
        }
        Ok(Some(text.into_inner().freeze()))
    }
}
