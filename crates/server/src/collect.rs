//! Collecting garbage on request. A collection may take hours, so one request starts it and another asks how it goes.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use diaspore_engine::{CollectAsked, CollectorState};
use http::StatusCode;

use crate::access::{Access, Admin};
use crate::address::Query;
use crate::problem::Problem;
use crate::router::App;

/// Start a collection.
#[utoipa::path(post, path = "/api/v1/collect", tag = "admin", security(("api_key" = ["admin"])),
    params(("now" = Option<bool>, Query, description = "Delete at once what is condemned: no grace time, no budget of requests"),
        ("max_dead_permille" = Option<u64>, Query, description = "Empty blocks until at most so much of a thousand bytes is dead, whatever it costs; 0 to 1000"),
        ("dry_run" = Option<bool>, Query, description = "Only find out what would be done and what it costs")),
    responses((status = 202, description = "Begun, or what runs: `running` is its number", body = Object),
        (status = 503, description = "`not_accepted`: one runs already")))]
pub(crate) async fn collect(State(app): State<App>, _access: Access<Admin>, request: Request) -> Result<Response, Problem> {
    let mut query = Query::of(request.uri())?;
    let asked =
        CollectAsked { now: query.flag("now")?, max_dead_permille: query.number("max_dead_permille")?, dry_run: query.flag("dry_run")? };
    query.done()?;
    if asked.max_dead_permille.is_some_and(|most| most > 1000) {
        return Err(Problem::invalid("max_dead_permille is at most 1000"));
    }
    let number = app.engine.begin_collecting(asked)?;
    let state = CollectorState { running: Some(number), ..CollectorState::default() };
    Ok((StatusCode::ACCEPTED, Json(state)).into_response())
}

/// How the collections go.
#[utoipa::path(get, path = "/api/v1/collect", tag = "admin", security(("api_key" = ["admin"])),
    responses((status = 200, description = "The one that runs, and what the last one gave", body = Object)))]
pub(crate) async fn collections(State(app): State<App>, _access: Access<Admin>) -> Json<CollectorState> {
    Json(app.engine.collector())
}
