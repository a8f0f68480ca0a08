//! Bounds on single requests.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;

use super::fixture::{house, house_with};
use crate::Limits;

const AT: &str = "/api/v1/blobs/photos/k";

fn endless(piece: &'static [u8]) -> Body {
    Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from_static(piece))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_beyond_the_limit_is_refused_before_and_during() {
    let house = house_with(Limits { blob_bytes: 1000, ..Limits::default() }).await;
    house.user("PUT", AT).header("content-length", "1001").body(endless(b"never read")).send().await.is_problem(413, "too_large");
    house.user("PUT", AT).body(endless(b"0123456789")).send().await.is_problem(413, "too_large");
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
    house.user("PUT", AT).body(vec![0_u8; 1000]).send().await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_targets_and_heads_are_refused() {
    let house = house_with(Limits { uri_bytes: 200, header_bytes: 500, headers: 10, ..Limits::default() }).await;
    house.user("GET", &format!("{AT}{}", "x".repeat(200))).send().await.is_problem(414, "uri_too_long");
    house.user("GET", AT).header("x-filler", &"x".repeat(500)).send().await.is_problem(431, "headers_too_large");
    let many = (0..10).fold(house.user("GET", AT), |call, at| call.header(&format!("x-{at}"), "1"));
    many.send().await.is_problem(431, "headers_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_cut_with_408() {
    let house = house_with(Limits { stall_time: Duration::from_millis(100), ..Limits::default() }).await;
    let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let cut = house.user("PUT", AT).body(silent).send().await;
    cut.is_problem(408, "too_slow");
    assert_eq!(cut.header("connection"), "close");

    let start = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"a little"))]);
    let half = Body::from_stream(start.chain(futures::stream::pending()));
    house.user("PUT", AT).body(half).send().await.is_problem(408, "too_slow");
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_not_accepted() {
    let house = house_with(Limits { requests: 1, ..Limits::default() }).await;
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel::<()>();
    let body = Body::from_stream(futures::stream::once(async move {
        began.send(()).ok();
        held.await.ok();
        Ok::<_, std::io::Error>(Bytes::from_static(b"late"))
    }));
    let first = tokio::spawn(house.user("PUT", AT).body(body).send());
    begun.await.unwrap();
    let refused = house.user("GET", "/api/v1/buckets").send().await;
    refused.is_problem(503, "not_accepted");
    assert_eq!((refused.json()["outcome"].as_str(), refused.header("retry-after")), (Some("not_accepted"), "1"));
    house.call("GET", "/healthz").send().await.is(200);
    release.send(()).unwrap();
    first.await.unwrap().is(201);
    house.user("GET", AT).send().await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_while_the_first_runs_is_told_to_wait() {
    let house = house().await;
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel::<()>();
    let body = Body::from_stream(futures::stream::once(async move {
        began.send(()).ok();
        held.await.ok();
        Ok::<_, std::io::Error>(Bytes::from_static(b"late"))
    }));
    let first = tokio::spawn(house.user("PUT", AT).header("idempotency-key", "t").body(body).send());
    begun.await.unwrap();
    let second = house.user("PUT", AT).header("idempotency-key", "t").body("late").send().await;
    second.is_problem(409, "idempotency_in_flight");
    assert_eq!(second.header("retry-after"), "1");
    release.send(()).unwrap();
    let first = first.await.unwrap().is(201);
    let third = house.user("PUT", AT).header("idempotency-key", "t").body("late").send().await.is(201);
    assert_eq!((third.header("etag"), third.header("idempotency-replayed")), (first.header("etag"), "true"));
}
