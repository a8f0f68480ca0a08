//! Keys and scopes: deny by default, and a refusal says nothing about what exists.

use super::fixture::{Answer, house};

/// Every operation that the API describes, with placeholders filled in.
fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(crate::openapi::describe()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{bucket}", "photos").replace("{key}", "k").replace("{name}", "photos").replace("{id}", "x");
        all.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_below_the_api_answers_without_a_key() {
    let house = house().await;
    let closed: Vec<_> = operations().into_iter().filter(|(_, path)| path.starts_with("/api/v1/")).collect();
    assert!(closed.len() >= 19, "{closed:?}");
    for (method, path) in &closed {
        let answer = house.call(method, path).send().await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert!(answer.header("www-authenticate").starts_with("Bearer "), "{method} {path}");
        let forged = house.call(method, path).token("dsp_0123_4567").send().await;
        assert_eq!(forged.status, 401, "{method} {path}");
        assert!(forged.header("www-authenticate").contains("invalid_token"));
    }
    for path in ["/api/v1/absent", "/api/v1/blobs", "/api/v1/blobs/photos/%00", "/api/v1"] {
        house.call("GET", path).send().await.is_problem(401, "unauthorized");
    }
    house.call("PATCH", "/api/v1/status").send().await.is_problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_needed() {
    let house = house().await;
    let tokens = &house.tokens;
    for (method, path, token) in [
        ("PUT", "/api/v1/blobs/photos/k", &tokens.reader),
        ("DELETE", "/api/v1/blobs/photos/k", &tokens.reader),
        ("PUT", "/api/v1/buckets/other", &tokens.reader),
        ("GET", "/api/v1/status", &tokens.user),
        ("POST", "/api/v1/settle", &tokens.user),
        ("POST", "/api/v1/keys", &tokens.user),
        ("GET", "/api/v1/keys", &tokens.auditor),
        ("POST", "/api/v1/tenants", &tokens.auditor),
        ("GET", "/api/v1/audit/export", &tokens.user),
        ("GET", "/api/v1/blobs/photos/k", &tokens.auditor),
        ("GET", "/api/v1/blobs/photos/k", &tokens.admin),
        ("GET", "/api/v1/buckets", &tokens.admin),
        ("GET", "/metrics", &tokens.user),
    ] {
        house.call(method, path).token(token).send().await.is_problem(403, "forbidden");
    }
    house.call("GET", "/api/v1/audit/totals").token(&tokens.auditor).send().await.is(200);
    house.call("GET", "/api/v1/blobs/photos").token(&tokens.reader).send().await.is(200);
}

/// An answer without what differs from request to request.
fn shape(answer: &Answer) -> String {
    let mut document = answer.json();
    document["request_id"] = serde_json::Value::Null;
    format!("{} {document}", answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_tell_what_exists() {
    let house = house().await;
    house.store("k", b"secret").await;
    for token in [&house.tokens.auditor, &"dsp_00_00".to_owned()] {
        let there = house.call("GET", "/api/v1/blobs/photos/k").token(token).send().await;
        let absent = house.call("GET", "/api/v1/blobs/absent/k").token(token).send().await;
        assert_eq!(shape(&there), shape(&absent));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let house = house().await;
    house.store("k", b"secret").await;
    let stranger = |method: &str, path: &str| house.call(method, path).token(&house.tokens.stranger);
    let there = stranger("GET", "/api/v1/blobs/photos/k").send().await;
    there.is_problem(404, "unknown_bucket");
    assert_eq!(shape(&there), shape(&stranger("GET", "/api/v1/blobs/never/k").send().await));
    assert_eq!(stranger("GET", "/api/v1/buckets").send().await.is(200).json()["buckets"].as_array().unwrap().len(), 0);
    stranger("PUT", "/api/v1/buckets/photos").send().await.is(201);
    stranger("GET", "/api/v1/blobs/photos/k").send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_issued_and_revoked() {
    let house = house().await;
    let ask = serde_json::json!({"tenant": "acme", "name": "ci", "scopes": ["read"], "expires": "2999-01-01T00:00:00Z"});
    let issued = house.admin("POST", "/api/v1/keys").json(&ask).send().await.is(201);
    assert_eq!(issued.header("cache-control"), "no-store");
    let issued = issued.json();
    let (id, token) = (issued["id"].as_str().unwrap(), issued["token"].as_str().unwrap());
    assert_eq!(issued["expires"], "2999-01-01T00:00:00Z");
    house.call("GET", "/api/v1/blobs/photos").token(token).send().await.is(200);
    house.call("PUT", "/api/v1/blobs/photos/k").token(token).body("x").send().await.is_problem(403, "forbidden");

    let listed = house.admin("GET", "/api/v1/keys").send().await.is(200);
    assert!(listed.json()["keys"].as_array().unwrap().iter().any(|key| key["id"] == id));
    let text = String::from_utf8(listed.body.to_vec()).unwrap();
    assert!(!text.contains(token) && !text.contains("verifier"), "{text}");

    house.admin("DELETE", &format!("/api/v1/keys/{id}")).send().await.is(204);
    house.call("GET", "/api/v1/blobs/photos").token(token).send().await.is_problem(401, "unauthorized");
    house.admin("DELETE", "/api/v1/keys/nonsense").send().await.is_problem(400, "invalid");

    for bad in [
        serde_json::json!({"name": "x", "scopes": ["root"]}),
        serde_json::json!({"name": "x", "scopes": []}),
        serde_json::json!({"name": "x", "scopes": ["read"], "tenant": "absent"}),
        serde_json::json!({"name": "x", "scopes": ["read"], "typo": 1}),
        serde_json::json!({"name": "x", "scopes": ["read"], "expires": "soon"}),
    ] {
        house.admin("POST", "/api/v1/keys").json(&bad).send().await.is_problem(400, "invalid");
    }
}
