//! Moving shards between providers on request: leaving one, spreading over all. One request starts it and another asks how it goes.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use diaspore_engine::{Errand, EvacuateAsked, RelocationState};
use http::StatusCode;

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::problem::Problem;
use crate::router::App;

/// Leave a provider.
#[utoipa::path(post, path = "/api/v1/providers/{name}/evacuate", tag = "admin", security(("api_key" = ["admin"])),
    params(("name" = String, Path, description = "The operator's name of the account"),
        ("dead" = Option<bool>, Query, description = "It is gone for good: rebuild from the others, ask it for nothing"),
        ("dry_run" = Option<bool>, Query, description = "Only find out what would move and what it costs"),
        ("max_microdollars" = Option<u64>, Query, description = "Refuse if moving costs more by list prices")),
    responses((status = 202, description = "Begun: `running` is its number", body = Object),
        (status = 503, description = "`not_accepted`: shards are being moved already")))]
pub(crate) async fn evacuate(
    State(app): State<App>,
    _access: Access<Admin>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(Path(provider)) = name else { return Err(Problem::invalid("the path names no provider")) };
    let mut query = Query::of(request.uri())?;
    let (dead, dry_run, most) = (query.flag("dead")?, query.flag("dry_run")?, query.number("max_microdollars")?);
    query.done()?;
    begin(&app, Errand::Evacuate(EvacuateAsked { provider, dead, dry_run, most }))
}

/// Give every provider its share of what is stored.
#[utoipa::path(post, path = "/api/v1/providers/rebalance", tag = "admin", security(("api_key" = ["admin"])),
    params(("dry_run" = Option<bool>, Query, description = "Only find out what would move and what it costs")),
    responses((status = 202, description = "Begun: `running` is its number", body = Object),
        (status = 503, description = "`not_accepted`: shards are being moved already")))]
pub(crate) async fn rebalance(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<Response, Problem> {
    let mut query = Query::of(request.uri())?;
    let dry_run = query.flag("dry_run")?;
    query.done()?;
    begin(&app, Errand::Rebalance { dry_run })
}

/// How moving goes.
#[utoipa::path(get, path = "/api/v1/relocations", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "What runs, and what came of the last", body = Object)))]
pub(crate) async fn relocations(State(app): State<App>, _access: Access<Admin>) -> Json<RelocationState> {
    Json(app.engine.relocations())
}

fn begin(app: &App, errand: Errand) -> Result<Response, Problem> {
    let number = app.engine.begin_relocating(errand)?;
    let state = RelocationState { running: Some(number), ..RelocationState::default() };
    Ok((StatusCode::ACCEPTED, Json(state)).into_response())
}
