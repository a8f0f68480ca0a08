//! Buckets of the caller's tenant.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::access::{Access, Read, Write};
use crate::problem::Problem;
use crate::router::App;
use crate::wire::{Bucket, Buckets};

type Name = Result<Path<String>, PathRejection>;

fn text(name: Name) -> Result<String, Problem> {
    name.map(|Path(name)| name).map_err(|_| Problem::invalid("the name in the path is not text"))
}

/// List the tenant's buckets.
#[utoipa::path(get, path = "/api/v1/buckets", tag = "buckets", security(("api_key" = ["read"])),
    responses((status = 200, description = "All buckets by name", body = Buckets)))]
pub(crate) async fn list(State(app): State<App>, access: Access<Read>) -> Result<Json<Buckets>, Problem> {
    let buckets = app.engine.list_buckets(&access.caller).await?;
    Ok(Json(Buckets { buckets: buckets.iter().map(Bucket::of).collect() }))
}

/// Show a bucket.
#[utoipa::path(get, path = "/api/v1/buckets/{name}", tag = "buckets", security(("api_key" = ["read"])),
    params(("name" = String, Path, description = "Bucket name")),
    responses((status = 200, description = "It exists", body = Bucket),
        (status = 404, description = "`unknown_bucket`")))]
pub(crate) async fn show(State(app): State<App>, access: Access<Read>, name: Name) -> Result<Json<Bucket>, Problem> {
    let bucket = app.engine.bucket(&access.caller, &text(name)?).await?;
    Ok(Json(Bucket::of(&bucket)))
}

/// Create a bucket.
#[utoipa::path(put, path = "/api/v1/buckets/{name}", tag = "buckets", security(("api_key" = ["write"])),
    params(("name" = String, Path, description = "3 to 63 of a-z, 0-9, dot and hyphen")),
    responses((status = 201, description = "Created", body = Bucket),
        (status = 400, description = "`invalid`"),
        (status = 409, description = "`already_exists`")))]
pub(crate) async fn create(State(app): State<App>, access: Access<Write>, name: Name) -> Result<Response, Problem> {
    let bucket = app.engine.create_bucket(&access.caller, &text(name)?).await?;
    Ok((StatusCode::CREATED, Json(Bucket::of(&bucket))).into_response())
}

/// Delete an empty bucket.
#[utoipa::path(delete, path = "/api/v1/buckets/{name}", tag = "buckets", security(("api_key" = ["write"])),
    params(("name" = String, Path, description = "Bucket name")),
    responses((status = 204, description = "Deleted"),
        (status = 404, description = "`unknown_bucket`"),
        (status = 409, description = "`bucket_not_empty`")))]
pub(crate) async fn remove(State(app): State<App>, access: Access<Write>, name: Name) -> Result<StatusCode, Problem> {
    app.engine.delete_bucket(&access.caller, &text(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
