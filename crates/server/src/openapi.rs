//! The API's description, generated from the handlers.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, PathItem, Ref, RefOr};

use crate::{ProblemDocument, admin, audit, blobs, buckets, checkpoint, collect, exposition, health, integrity, listing, relocate, upkeep};

#[derive(OpenApi)]
#[openapi(
    info(title = "Diaspore", description = "Encrypted blobs scattered over clouds that nobody has to trust."),
    paths(
        blobs::put, blobs::get, blobs::head, blobs::remove, listing::list,
        buckets::list, buckets::show, buckets::create, buckets::remove,
        admin::status, admin::settle, admin::list_tenants, admin::create_tenant, admin::list_keys, admin::create_key, admin::revoke_key,
        checkpoint::begin, checkpoint::state,
        collect::collect, collect::collections, relocate::evacuate, relocate::rebalance, relocate::relocations,
        integrity::scrub, integrity::scrubbed, integrity::drill, integrity::set_state,
        upkeep::fsck, upkeep::flush, upkeep::backup,
        audit::totals, audit::export, audit::checkpoint, audit::key,
        health::alive, health::ready, exposition::metrics, document,
    ),
    components(schemas(ProblemDocument)),
    modifiers(&ApiKeyScheme, &ProblemBodies),
)]
struct Api;

struct ApiKeyScheme;

impl utoipa::Modify for ApiKeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).description(Some("API key, `dsp_<id>_<secret>`")).build();
        document.components.get_or_insert_default().add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// Every refusal is one and the same document, except that an answer to HEAD has no body: said here once and not at each handler.
struct ProblemBodies;

impl utoipa::Modify for ProblemBodies {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for PathItem { get, put, post, delete, .. } in document.paths.paths.values_mut() {
            for operation in [get, put, post, delete].into_iter().flatten() {
                for (status, response) in &mut operation.responses.responses {
                    let RefOr::T(response) = response else { continue };
                    if status.starts_with(['4', '5']) {
                        let content = Content::new(Some(Ref::from_schema_name("ProblemDocument")));
                        response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
                    }
                }
            }
        }
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
