//! The local ledger of the running service: looked over, copied. Needs the scope `admin`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use diaspore_engine::IntegrityReport;
use diaspore_engine::api::Error;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::problem::Problem;
use crate::router::App;

/// Look over the service's own ledger: every value, every journal entry, the log from its leaves. Slow on a large one.
#[utoipa::path(get, path = "/api/v1/fsck", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "What was found, damage included", body = Object)))]
pub(crate) async fn fsck(State(app): State<App>, _access: Access<Admin>) -> Result<Json<IntegrityReport>, Problem> {
    Ok(Json(app.engine.integrity()?))
}

/// Make the ledger's view durable now. What is acknowledged is durable without it.
#[utoipa::path(post, path = "/api/v1/flush", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 204, description = "The view is on the disk as it was when this was asked")))]
pub(crate) async fn flush(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<StatusCode, Problem> {
    Query::of(request.uri())?.done()?;
    app.engine.flush()?;
    Ok(StatusCode::NO_CONTENT)
}

/// A sealed copy of the service's own ledger as it is now.
#[utoipa::path(get, path = "/api/v1/backup", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "The copy; a connection that ends without the last chunk means that it broke off", body = Vec<u8>, content_type = "application/octet-stream")))]
pub(crate) async fn backup(State(app): State<App>, _access: Access<Admin>) -> Result<Response, Problem> {
    let mut backup = app.engine.backup()?;
    // The first piece comes before the status line: trouble at once is a problem document, not a cut body.
    let first = backup.piece().await?;
    let rest = futures::stream::try_unfold(backup, async |mut backup| Ok(backup.piece().await?.map(|piece| (piece, backup))));
    let first = futures::stream::iter(first.map(Ok::<Bytes, Error>));
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, rest)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
