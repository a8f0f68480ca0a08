//! Admin, audit and health resources, the API's description and the log.

use super::fixture::house;
use super::log;

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_made_once() {
    let house = house().await;
    let ask = serde_json::json!({"name": "initech"});
    assert_eq!(house.admin("POST", "/api/v1/tenants").json(&ask).send().await.is(201).json()["name"], "initech");
    house.admin("POST", "/api/v1/tenants").json(&ask).send().await.is_problem(409, "already_exists");
    let tenants = house.admin("GET", "/api/v1/tenants").send().await.is(200).json();
    assert_eq!(tenants["tenants"].as_array().unwrap().len(), 3);
    house.admin("POST", "/api/v1/tenants").body("{}").send().await.is_problem(415, "unsupported_media_type");
    house
        .admin("POST", "/api/v1/tenants")
        .json(&serde_json::json!({"name": "x".repeat(1 << 17)}))
        .send()
        .await
        .is_problem(413, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_settling() {
    let house = house().await;
    house.store("k", b"x").await;
    let status = house.admin("GET", "/api/v1/status").send().await.is(200).json();
    assert_eq!(status["state"], "active");
    assert!(status["providers"].is_array() && status["stored_bytes"].is_u64());
    let settled = house.admin("POST", "/api/v1/settle?timeout_s=20").send().await.is(200).json();
    assert_eq!((settled["settled"].as_bool(), settled["unsettled_blocks"].as_u64()), (Some(true), Some(0)));
    house.admin("POST", "/api/v1/settle?timeout_s=3601").send().await.is_problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_exported_line_by_line() {
    let house = house().await;
    for key in ["a", "b", "c"] {
        house.store(key, b"x").await;
    }
    let audit = |target: &str| house.call("GET", target).token(&house.tokens.auditor);
    let totals = audit("/api/v1/audit/totals").send().await.is(200).json();
    let families: u64 =
        totals.as_object().unwrap().iter().filter(|(name, _)| *name != "total").map(|(_, count)| count.as_u64().unwrap()).sum();
    assert_eq!(totals["total"].as_u64(), Some(families));

    let export = audit("/api/v1/audit/export").send().await.is(200);
    assert_eq!(export.header("content-type"), "application/jsonl");
    let lines: Vec<serde_json::Value> =
        String::from_utf8(export.body.to_vec()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 4);
    assert!(lines.iter().enumerate().all(|(at, line)| line["index"] == at));
    let some = audit("/api/v1/audit/export?from=1&limit=2").send().await.is(200);
    let some = String::from_utf8(some.body.to_vec()).unwrap();
    assert_eq!(some.lines().count(), 2);
    assert!(some.contains("\"index\":1"));

    let key = audit("/api/v1/audit/key").send().await.is(200).json();
    assert_eq!((key["algorithm"].as_str(), key["public_key"].as_str().unwrap().len()), (Some("ed25519"), 64));
    let note = audit("/api/v1/audit/checkpoint").send().await.is(200);
    assert!(note.header("content-type").starts_with("text/plain") && !note.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_open_and_metrics_are_not() {
    let house = house().await;
    house.call("GET", "/healthz").send().await.is(200);
    house.call("GET", "/readyz").send().await.is(200);
    house.call("GET", "/metrics").send().await.is_problem(401, "unauthorized");
    let metrics = house.admin("GET", "/metrics").send().await.is(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("diaspore_http_requests_total{method=\"PUT\",status=\"2xx\"} 1\n"), "{text}");
    assert!(text.contains("diaspore_ready 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_to_the_router_are_told() {
    let house = house().await;
    house.call("GET", "/").send().await.is_problem(404, "unknown_route");
    house.user("GET", "/api/v1/absent").send().await.is_problem(404, "unknown_route");
    for (method, path, allowed) in [
        ("PATCH", "/api/v1/blobs/photos/k", "GET, HEAD, PUT, DELETE"),
        ("POST", "/api/v1/buckets/photos", "GET, HEAD, PUT, DELETE"),
        ("GET", "/api/v1/settle", "POST"),
        ("PUT", "/api/v1/keys", "GET, HEAD, POST"),
        ("PUT", "/healthz", "GET, HEAD"),
    ] {
        let answer = house.user(method, path).send().await;
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_and_reviewed() {
    let house = house().await;
    let served = house.call("GET", "/api/openapi.json").send().await.is(200).json();
    assert_eq!(served, serde_json::to_value(crate::openapi::describe()).unwrap());
    insta::assert_json_snapshot!("openapi", served);
}

/// Runs on one thread, whose log is read.
#[tokio::test]
async fn the_log_names_nobody() {
    let house = house().await;
    log::listen();
    house.user("PUT", "/api/v1/buckets/canary-bucket").send().await.is(201);
    let put = house.user("PUT", "/api/v1/blobs/canary-bucket/canary-key").header("x-diaspore-meta-a", "canary-meta");
    put.header("idempotency-key", "canary-idem").body("canary-plain").send().await.is(201);
    house.user("GET", "/api/v1/blobs/canary-bucket/canary-key").send().await.is(200);
    house.user("GET", "/api/v1/blobs/canary-bucket/canary-absent?version=canary").send().await.is(400);
    house.call("GET", "/api/v1/blobs/canary-bucket/canary-key").token("dsp_canary_token").send().await.is(401);
    let text = log::heard();
    assert!(text.contains("answered") && text.contains("status=201"), "the log is on: {text}");
    assert!(!text.contains("canary") && !text.contains(&house.tokens.user), "{text}");
}
