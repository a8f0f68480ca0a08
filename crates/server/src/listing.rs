//! Keys of a bucket, page by page.

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diaspore_engine::api::ListOptions;

use crate::access::{Access, Read};
use crate::address::{KEY_BYTES, Query};
use crate::problem::Problem;
use crate::router::App;
use crate::wire::Listing;

/// Most entries of a page, and the default.
const PAGE: u64 = 1000;

/// List keys in byte order.
#[utoipa::path(
    get, path = "/api/v1/blobs/{bucket}", tag = "blobs", security(("api_key" = ["read"])),
    params(
        ("bucket" = String, Path, description = "Bucket name"),
        ("prefix" = Option<String>, Query, description = "Only keys that start with this"),
        ("delimiter" = Option<String>, Query, description = "Fold keys that share the part up to this after the prefix"),
        ("start_after" = Option<String>, Query, description = "Only keys behind this one; not together with `page_token`"),
        ("page_token" = Option<String>, Query, description = "`next_page_token` of the page before"),
        ("limit" = Option<u64>, Query, description = "Entries of a page, 1 to 1000; 1000 when absent"),
    ),
    responses(
        (status = 200, description = "A page", body = Listing),
        (status = 400, description = "`invalid`"),
        (status = 404, description = "`unknown_bucket`"),
    )
)]
pub(crate) async fn list(app: App, bucket: String, request: Request) -> Result<Response, Problem> {
    let (mut parts, _body) = request.into_parts();
    let access = Access::<Read>::from_request_parts(&mut parts, &app).await?;
    let options = options(Query::of(&parts.uri)?)?;
    let page = app.engine.list_blobs(&access.caller, &bucket, &options).await?;
    Ok(Json(Listing::of(&page)).into_response())
}

fn options(mut query: Query) -> Result<ListOptions, Problem> {
    let prefix = query.bytes("prefix").unwrap_or_default();
    let delimiter = query.bytes("delimiter").filter(|delimiter| !delimiter.is_empty());
    let start_after = query.bytes("start_after").filter(|key| !key.is_empty());
    let token = query.text("page_token")?.map(|token| position(&token)).transpose()?;
    let limit = query.number("limit")?.unwrap_or(PAGE);
    query.done()?;
    if start_after.is_some() && token.is_some() {
        return Err(Problem::invalid("send either start_after or page_token"));
    }
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::invalid(format!("limit is a number from 1 to {PAGE}")));
    }
    let longest = [Some(&prefix), delimiter.as_ref(), start_after.as_ref(), token.as_ref()].into_iter().flatten().map(Vec::len).max();
    if longest.is_some_and(|bytes| bytes > KEY_BYTES) {
        return Err(Problem::invalid(format!("prefix, delimiter and positions have at most {KEY_BYTES} bytes")));
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    Ok(ListOptions { prefix, delimiter, start_after: token.or(start_after), limit })
}

/// Token for the position `next`. Opaque to clients; it holds nothing that the page did not show.
pub(crate) fn page_token(next: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(next)
}

fn position(token: &str) -> Result<Vec<u8>, Problem> {
    URL_SAFE_NO_PAD.decode(token).map_err(|_| Problem::invalid("page_token is not one of ours; start again without it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str) -> Result<ListOptions, Problem> {
        options(Query::of(&format!("/x?{query}").parse().unwrap()).unwrap())
    }

    #[test]
    fn defaults_list_everything() {
        let options = read("").unwrap();
        assert_eq!((options.limit, options.prefix.len()), (1000, 0));
        assert!(options.delimiter.is_none() && options.start_after.is_none());
    }

    #[test]
    fn bytes_go_through() {
        let options = read("prefix=%ff%2F&delimiter=%2F&start_after=%ff%2Fa&limit=3").unwrap();
        assert_eq!(
            (options.prefix, options.delimiter.unwrap(), options.start_after.unwrap()),
            (vec![0xff, b'/'], vec![b'/'], vec![0xff, b'/', b'a'])
        );
    }

    #[test]
    fn bad_pages_are_refused() {
        for query in ["limit=0", "limit=1001", "limit=x", "page_token=***", "page_token=YQ&start_after=b", "delimeter=/"] {
            assert!(read(query).is_err(), "{query}");
        }
        assert!(read(&format!("prefix={}", "p".repeat(KEY_BYTES + 1))).is_err());
    }

    proptest! {
        #[test]
        fn tokens_keep_their_position(key in proptest::collection::vec(any::<u8>(), 1..64)) {
            let options = read(&format!("page_token={}", page_token(&key))).unwrap();
            prop_assert_eq!(options.start_after, Some(key));
        }
    }
}
