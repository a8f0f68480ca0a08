//! Compacting the log on request. It waits for what is not settled, so one request begins it and another asks how it goes.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use diaspore_engine::CheckpointState;
use http::StatusCode;

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::problem::Problem;
use crate::router::App;

/// Begin a checkpoint of the log.
#[utoipa::path(post, path = "/api/v1/checkpoint", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 202, description = "Begun, or under way already: `running` is its number", body = Object)))]
pub(crate) async fn begin(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<Response, Problem> {
    Query::of(request.uri())?.done()?;
    let number = app.engine.begin_checkpoint()?;
    let state = CheckpointState { running: Some(number), ..CheckpointState::default() };
    Ok((StatusCode::ACCEPTED, Json(state)).into_response())
}

/// How the checkpoints go.
#[utoipa::path(get, path = "/api/v1/checkpoint", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "The one that is under way, and what the last one gave", body = Object)))]
pub(crate) async fn state(State(app): State<App>, _access: Access<Admin>) -> Json<CheckpointState> {
    Json(app.engine.checkpoint_state())
}
