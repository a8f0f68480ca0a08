//! Running the deployment: status, settling, tenants and API keys. All of it needs the scope `admin`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use diaspore_engine::api::Status;
use diaspore_engine::id::{TenantId, Timestamp};
use http::StatusCode;

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::document::Document;
use crate::instant;
use crate::problem::Problem;
use crate::router::App;
use crate::wire::{ApiKey, ApiKeyRequest, ApiKeys, IssuedApiKey, SettleOutcome, Tenant, TenantRequest, Tenants};

/// Longest wait for settling in one request, in seconds.
const SETTLE_S: u64 = 3600;
/// Wait when the request names none, in seconds.
const SETTLE_DEFAULT_S: u64 = 60;
const SCOPES: [&str; 4] = ["read", "write", "admin", "audit"];
const LABEL_BYTES: usize = 128;

/// State and counters of the deployment.
#[utoipa::path(get, path = "/api/v1/status", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "State and counters", body = Object)))]
pub(crate) async fn status(State(app): State<App>, _access: Access<Admin>) -> Json<Status> {
    Json(app.engine.status())
}

/// Wait until every shard of everything acknowledged is durable.
#[utoipa::path(post, path = "/api/v1/settle", tag = "admin", security(("api_key" = ["admin"])),
    params(("timeout_s" = Option<u64>, Query, description = "Longest wait, 0 to 3600 seconds; 60 when absent")),
    responses((status = 200, description = "What is settled and what is not", body = SettleOutcome)))]
pub(crate) async fn settle(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<Json<SettleOutcome>, Problem> {
    let mut query = Query::of(request.uri())?;
    let seconds = query.number("timeout_s")?.unwrap_or(SETTLE_DEFAULT_S);
    query.done()?;
    if seconds > SETTLE_S {
        return Err(Problem::invalid(format!("timeout_s is at most {SETTLE_S}")));
    }
    let report = app.engine.settle_wait(Duration::from_secs(seconds)).await?;
    Ok(Json(SettleOutcome {
        settled: report.unsettled_blocks == 0,
        unsettled_blocks: report.unsettled_blocks,
        unsettled_bytes: report.unsettled_bytes,
        waited_ms: report.waited_ms,
    }))
}

/// List tenants.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "All tenants by name", body = Tenants)))]
pub(crate) async fn list_tenants(State(app): State<App>, _access: Access<Admin>) -> Result<Json<Tenants>, Problem> {
    let tenants = app.engine.tenants().await?;
    Ok(Json(Tenants { tenants: tenants.iter().map(Tenant::of).collect() }))
}

/// Create a tenant.
#[utoipa::path(post, path = "/api/v1/tenants", tag = "admin", security(("api_key" = ["admin"])), request_body = TenantRequest,
    responses((status = 201, description = "Created", body = Tenant),
        (status = 400, description = "`invalid`"),
        (status = 409, description = "`already_exists`")))]
pub(crate) async fn create_tenant(
    State(app): State<App>,
    _access: Access<Admin>,
    Document(asked): Document<TenantRequest>,
) -> Result<Response, Problem> {
    let tenant = app.engine.create_tenant(&asked.name).await?;
    Ok((StatusCode::CREATED, Json(Tenant::of(&tenant))).into_response())
}

/// List API keys, without their secrets.
#[utoipa::path(get, path = "/api/v1/keys", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "Keys in force", body = ApiKeys)))]
pub(crate) async fn list_keys(State(app): State<App>, _access: Access<Admin>) -> Result<Json<ApiKeys>, Problem> {
    let keys = app.engine.api_keys().await?;
    Ok(Json(ApiKeys { keys: keys.iter().map(ApiKey::of).collect() }))
}

/// Issue an API key; the answer is the only place where its token ever appears.
#[utoipa::path(post, path = "/api/v1/keys", tag = "admin", security(("api_key" = ["admin"])), request_body = ApiKeyRequest,
    responses((status = 201, description = "Issued", body = IssuedApiKey),
        (status = 400, description = "`invalid`, also for an unknown tenant")))]
pub(crate) async fn create_key(
    State(app): State<App>,
    access: Access<Admin>,
    Document(asked): Document<ApiKeyRequest>,
) -> Result<Response, Problem> {
    let expires = check(&asked)?;
    let tenant = match &asked.tenant {
        None => TenantId::SYSTEM,
        Some(name) => app.engine.tenant(name).await?.ok_or_else(|| Problem::invalid("no tenant has this name; create it first"))?.id,
    };
    let fresh = app.engine.create_api_key(&access.caller, tenant, &asked.name, asked.scopes, expires).await?;
    let mut response = (StatusCode::CREATED, Json(IssuedApiKey::of(fresh))).into_response();
    response.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Checks what the engine takes as given; the answer is the expiry.
fn check(asked: &ApiKeyRequest) -> Result<Option<Timestamp>, Problem> {
    if asked.name.is_empty() || asked.name.len() > LABEL_BYTES {
        return Err(Problem::invalid(format!("name has 1 to {LABEL_BYTES} bytes")));
    }
    let distinct = asked.scopes.iter().enumerate().all(|(at, scope)| !asked.scopes.iter().skip(at + 1).any(|later| later == scope));
    if asked.scopes.is_empty() || !distinct || !asked.scopes.iter().all(|scope| SCOPES.contains(&scope.as_str())) {
        return Err(Problem::invalid("scopes lists one or more of read, write, admin, audit, each once"));
    }
    let Some(text) = &asked.expires else { return Ok(None) };
    instant::parse(text).map(|ms| Some(Timestamp(ms))).ok_or_else(|| Problem::invalid("expires is not an RFC 3339 time"))
}

/// Revoke an API key.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "admin", security(("api_key" = ["admin"])),
    params(("id" = String, Path, description = "Id of the key")),
    responses((status = 204, description = "Revoked"),
        (status = 404, description = "No such key")))]
pub(crate) async fn revoke_key(
    State(app): State<App>,
    access: Access<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id =
        id.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(|| Problem::invalid("the path does not end in the id of an API key"))?;
    app.engine.revoke_api_key(&access.caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, scopes: &[&str], expires: Option<&str>) -> ApiKeyRequest {
        ApiKeyRequest {
            tenant: None,
            name: name.into(),
            scopes: scopes.iter().map(|&scope| scope.into()).collect(),
            expires: expires.map(Into::into),
        }
    }

    #[test]
    fn key_requests_are_checked() {
        assert_eq!(check(&asked("ci", &["read"], Some("1970-01-01T00:00:01Z"))).unwrap(), Some(Timestamp(1000)));
        assert_eq!(check(&asked("ci", &["read", "write"], None)).unwrap(), None);
        assert!(check(&asked("", &["read"], None)).is_err());
        assert!(check(&asked("ci", &[], None)).is_err());
        assert!(check(&asked("ci", &["root"], None)).is_err());
        assert!(check(&asked("ci", &["read", "read"], None)).is_err());
        assert!(check(&asked("ci", &["read"], Some("tomorrow"))).is_err());
    }
}
