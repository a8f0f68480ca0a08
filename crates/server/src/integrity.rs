//! Whether what is stored is still there and right: scrubs, drills, and how providers are used. All of it needs the scope `admin`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use diaspore_engine::api::ProviderMode;
use diaspore_engine::{DrillReport, ScrubReport};
use http::StatusCode;

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::document::Document;
use crate::problem::Problem;
use crate::router::App;
use crate::wire::ProviderState;

/// Longest wait for a scrub in one request, in seconds.
const WAIT_S: u64 = 3600;

/// Start a scrub of everything, unless one is running.
#[utoipa::path(post, path = "/api/v1/scrub", tag = "admin", security(("api_key" = ["admin"])),
    params(("deep" = Option<bool>, Query, description = "Read every shard whole, not only its header")),
    responses((status = 202, description = "The scrub that is running, as far as it is", body = Object)))]
pub(crate) async fn scrub(
    State(app): State<App>,
    _access: Access<Admin>,
    request: Request,
) -> Result<(StatusCode, Json<ScrubReport>), Problem> {
    let mut query = Query::of(request.uri())?;
    let deep = match query.text("deep")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("deep is true or false")),
    };
    query.done()?;
    Ok((StatusCode::ACCEPTED, Json(app.engine.scrub(deep)?)))
}

/// The scrub that is running or ran last; waits for its end if asked to.
#[utoipa::path(get, path = "/api/v1/scrub", tag = "admin", security(("api_key" = ["admin"])),
    params(("timeout_s" = Option<u64>, Query, description = "Longest wait for its end, 0 to 3600 seconds; 0 when absent")),
    responses((status = 200, description = "What it found; `started_ms` is 0 when none ever ran", body = Object)))]
pub(crate) async fn scrubbed(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<Json<ScrubReport>, Problem> {
    let mut query = Query::of(request.uri())?;
    let seconds = query.number("timeout_s")?.unwrap_or(0);
    query.done()?;
    if seconds > WAIT_S {
        return Err(Problem::invalid(format!("timeout_s is at most {WAIT_S}")));
    }
    Ok(Json(app.engine.scrub_wait(Duration::from_secs(seconds)).await))
}

/// Rebuild sampled blocks from every set of k providers and compare with what was signed.
#[utoipa::path(post, path = "/api/v1/drill", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "What was rebuilt from whom, with the signed report in `note`", body = Object)))]
pub(crate) async fn drill(State(app): State<App>, _access: Access<Admin>) -> Result<Json<DrillReport>, Problem> {
    Ok(Json(Box::pin(app.engine.drill()).await?))
}

/// Say how a provider is to be used: `active`, `quarantined` or `dead`.
#[utoipa::path(post, path = "/api/v1/providers/{name}/state", tag = "admin", security(("api_key" = ["admin"])), request_body = ProviderState,
    params(("name" = String, Path, description = "Operator's name of the account")),
    responses((status = 204, description = "It is in the log"),
        (status = 400, description = "`invalid`, also for a provider that is not configured")))]
pub(crate) async fn set_state(
    State(app): State<App>,
    access: Access<Admin>,
    name: Result<Path<String>, PathRejection>,
    Document(asked): Document<ProviderState>,
) -> Result<StatusCode, Problem> {
    let Ok(Path(name)) = name else { return Err(Problem::invalid("the path does not name a provider")) };
    let mode = match asked.state.as_str() {
        "active" => ProviderMode::Active,
        "quarantined" => ProviderMode::Quarantined,
        "dead" => ProviderMode::Dead,
        _ => return Err(Problem::invalid("state is active, quarantined or dead; evacuating a provider is a command of its own")),
    };
    let reason = asked.reason.unwrap_or_else(|| "said by the operator".to_owned());
    app.engine.set_provider_mode(&access.caller, &name, mode, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}
