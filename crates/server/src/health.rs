//! Is the process up, and does it serve?

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::router::App;

/// Answer of a check that holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `up`; `ready`, or `read-only` when reads are served and changes refused.
    pub status: String,
}

/// Is the process up? Looks at nothing else.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "Up", body = Health)))]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "up".to_owned() })
}

/// Is the log decided, and are reads served?
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready", body = Health),
        (status = 503, description = "`not_ready`, with the state")))]
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Health>, Problem> {
    let state = app.engine.status().state;
    if !app.engine.is_readable() {
        return Err(Problem::not_ready(&state));
    }
    let status = if state == "active" { "ready".to_owned() } else { state };
    Ok(Json(Health { status }))
}
