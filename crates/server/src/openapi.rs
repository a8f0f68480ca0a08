//! The API's description, generated from the handlers.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use crate::{ProblemDocument, admin, audit, blobs, buckets, exposition, health, listing};

#[derive(OpenApi)]
#[openapi(
    info(title = "Diaspore", description = "Encrypted blobs scattered over clouds that nobody has to trust."),
    paths(
        blobs::put, blobs::get, blobs::head, blobs::remove, listing::list,
        buckets::list, buckets::show, buckets::create, buckets::remove,
        admin::status, admin::settle, admin::list_tenants, admin::create_tenant, admin::list_keys, admin::create_key, admin::revoke_key,
        audit::totals, audit::export, audit::checkpoint, audit::key,
        health::alive, health::ready, exposition::metrics, document,
    ),
    components(schemas(ProblemDocument)),
    modifiers(&ApiKeyScheme),
)]
struct Api;

struct ApiKeyScheme;

impl utoipa::Modify for ApiKeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).description(Some("API key, `dsp_<id>_<secret>`")).build();
        document.components.get_or_insert_default().add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The document as a value.
pub(crate) fn describe() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(describe())
}
