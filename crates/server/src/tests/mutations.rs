//! Puts and deletes.

use super::fixture::{Answer, House, house};

const AT: &str = "/api/v1/blobs/photos/k";

async fn put(house: &House, headers: &[(&str, &str)], body: &'static [u8]) -> Answer {
    headers.iter().fold(house.user("PUT", AT), |call, (name, value)| call.header(name, value)).body(body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_through_its_life() {
    let house = house().await;
    let stored = house.user("PUT", AT).header("content-type", "text/plain").body("hello").send().await.is(201);
    let document = stored.json();
    assert_eq!((document["key"].as_str(), document["size"].as_u64()), (Some("k"), Some(5)));
    assert_eq!(stored.header("etag"), format!("\"{}\"", document["etag"].as_str().unwrap()));
    assert_eq!(stored.header("x-diaspore-version"), document["version"]);
    assert_eq!(stored.header("location"), format!("{AT}?version={}", stored.header("x-diaspore-version")));
    assert_eq!(stored.header("x-diaspore-class"), "quorum");
    assert!(stored.header("x-diaspore-geometry").contains("-of-"));
    assert_eq!(stored.header("x-diaspore-seq"), document["seq"].to_string());

    let read = house.user("GET", AT).send().await.is(200);
    assert_eq!(read.body, "hello");
    assert_eq!((read.header("content-type"), read.header("content-length")), ("text/plain", "5"));
    assert_eq!((read.header("accept-ranges"), read.header("x-content-type-options")), ("bytes", "nosniff"));
    assert_eq!(read.header("etag"), stored.header("etag"));
    assert!(read.header("last-modified").ends_with("GMT"));

    let head = house.user("HEAD", AT).send().await.is(200);
    assert!(head.body.is_empty());
    for name in ["etag", "content-length", "content-type", "x-diaspore-version", "last-modified", "accept-ranges"] {
        assert_eq!(head.header(name), read.header(name), "{name}");
    }

    let gone = house.user("DELETE", AT).send().await.is(204);
    assert!(gone.header("x-diaspore-seq").parse::<u64>().is_ok());
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
    house.user("DELETE", AT).send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_is_a_new_version() {
    let house = house().await;
    let first = put(&house, &[], b"one").await.is(201);
    let second = put(&house, &[], b"two").await.is(201);
    assert_ne!(first.header("x-diaspore-version"), second.header("x-diaspore-version"));
    assert_ne!(first.header("etag"), second.header("etag"));
    assert_eq!(house.user("GET", AT).send().await.is(200).body, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_has_unequal_tags() {
    let house = house().await;
    let first = put(&house, &[], b"same").await.is(201);
    assert_ne!(first.header("etag"), put(&house, &[], b"same").await.is(201).header("etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_obey_their_conditions() {
    let house = house().await;
    put(&house, &[("if-match", "*")], b"x").await.is_problem(412, "precondition_failed");
    let first = put(&house, &[("if-none-match", "*")], b"one").await.is(201);
    put(&house, &[("if-none-match", "*")], b"x").await.is_problem(412, "precondition_failed");
    let second = put(&house, &[("if-match", first.header("etag"))], b"two").await.is(201);
    put(&house, &[("if-match", first.header("etag"))], b"x").await.is_problem(412, "precondition_failed");
    put(&house, &[("if-match", "\"foreign\"")], b"x").await.is_problem(412, "precondition_failed");
    put(&house, &[("if-none-match", second.header("etag"))], b"x").await.is_problem(412, "precondition_failed");
    put(&house, &[("if-match", "unquoted")], b"x").await.is_problem(400, "invalid");
    put(&house, &[("if-match", "*"), ("if-none-match", "*")], b"x").await.is_problem(400, "invalid");
    assert_eq!(house.user("GET", AT).send().await.body, "two");

    house.user("DELETE", AT).header("if-match", first.header("etag")).send().await.is_problem(412, "precondition_failed");
    house.user("DELETE", AT).header("if-match", second.header("etag")).send().await.is(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_digest_is_checked_and_returned() {
    let house = house().await;
    let right = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"; // "hello"
    put(&house, &[("content-digest", right)], b"hellO").await.is_problem(400, "digest_mismatch");
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
    put(&house, &[("content-digest", "sha-512=:AA==:")], b"hello").await.is_problem(400, "invalid");

    let stored = put(&house, &[("content-digest", right)], b"hello").await.is(201);
    assert_eq!(stored.header("repr-digest"), right);
    let read = house.user("GET", AT).send().await.is(200);
    assert_eq!((read.header("content-digest"), read.header("repr-digest")), (right, right));
    let part = house.user("GET", AT).header("range", "bytes=0-1").send().await.is(206);
    assert_eq!((part.header("content-digest"), part.header("repr-digest")), ("", right), "the part's own digest is not known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wanted_digest_is_computed() {
    let house = house().await;
    let stored = put(&house, &[("want-content-digest", "sha-256=1")], b"hello").await.is(201);
    assert_eq!(stored.header("repr-digest"), "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_as_given() {
    let house = house().await;
    let call = house.user("PUT", AT).header("X-Diaspore-Meta-Owner", "zoe").header("x-diaspore-meta-empty", "");
    call.header("x-diaspore-class", "full").body("x").send().await.is(201);
    let head = house.user("HEAD", AT).send().await.is(200);
    assert_eq!((head.header("x-diaspore-meta-owner"), head.header("x-diaspore-class")), ("zoe", "full"));
    assert!(head.headers.contains_key("x-diaspore-meta-empty"));
    assert_eq!(head.header("content-type"), "application/octet-stream");

    put(&house, &[("x-diaspore-meta-a", &"v".repeat(4096))], b"x").await.is_problem(400, "invalid");
    put(&house, &[("x-diaspore-class", "gold")], b"x").await.is_problem(400, "invalid");
    put(&house, &[("content-encoding", "gzip")], b"x").await.is_problem(415, "unsupported_media_type");
    put(&house, &[("content-range", "bytes 0-0/1")], b"x").await.is_problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_token_stands_for_one_request() {
    let house = house().await;
    let first = put(&house, &[("idempotency-key", "t1")], b"one").await.is(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = put(&house, &[("idempotency-key", "t1")], b"one").await.is(201);
    assert_eq!((again.header("idempotency-replayed"), again.header("etag")), ("true", first.header("etag")));
    assert_eq!(again.json()["replayed"], true);

    put(&house, &[("idempotency-key", "t1")], b"two").await.is_problem(422, "idempotency_mismatch");
    put(&house, &[("idempotency-key", "t1"), ("x-diaspore-meta-a", "b")], b"one").await.is_problem(422, "idempotency_mismatch");
    put(&house, &[("idempotency-key", "")], b"one").await.is_problem(400, "invalid");
    put(&house, &[("idempotency-key", "t2")], b"two").await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_length_stores_nothing() {
    let house = house().await;
    let short = house.user("PUT", AT).header("content-length", "9").body("short").send().await;
    assert_eq!(short.status, 400, "{short:?}");
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_stores_nothing() {
    let house = house().await;
    let pieces = [Ok(bytes::Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let body = axum::body::Body::from_stream(futures::stream::iter(pieces));
    house.user("PUT", AT).body(body).send().await.is_problem(400, "aborted");
    house.user("GET", AT).send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_parameters_are_refused_rather_than_ignored() {
    let house = house().await;
    let stored = put(&house, &[], b"x").await.is(201);
    let version = stored.header("x-diaspore-version");
    house.user("DELETE", &format!("{AT}?version={version}")).send().await.is_problem(400, "invalid");
    house.user("PUT", &format!("{AT}?acl=public")).body("y").send().await.is_problem(400, "invalid");
    assert_eq!(house.user("GET", AT).send().await.body, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_byte_exact() {
    let house = house().await;
    house.store("dir%2Ffile", b"slash").await;
    assert_eq!(house.user("GET", "/api/v1/blobs/photos/dir/file").send().await.is(200).body, "slash");
    house.store("../x", b"dots").await;
    assert_eq!(house.user("GET", "/api/v1/blobs/photos/%2e%2e/x").send().await.is(200).body, "dots");
    house.user("GET", "/api/v1/blobs/photos/x").send().await.is_problem(404, "unknown_key");
    house.store("%C3%A9", b"composed").await;
    house.user("GET", "/api/v1/blobs/photos/e%CC%81").send().await.is_problem(404, "unknown_key");
    house.store("a//b/", b"empty parts").await;
    house.user("GET", "/api/v1/blobs/photos/a/b").send().await.is_problem(404, "unknown_key");
    house.store("%ff%00".trim_end_matches("%00"), b"not text").await;
    let longest = "k".repeat(1024);
    house.store(&longest, b"longest").await;

    house.user("PUT", "/api/v1/blobs/photos/a%00b").body("x").send().await.is_problem(400, "invalid_key");
    house.user("PUT", &format!("/api/v1/blobs/photos/{longest}k")).body("x").send().await.is_problem(400, "invalid_key");
    house.user("PUT", "/api/v1/blobs/photos/").body("x").send().await.is_problem(400, "invalid_key");
    house.user("PUT", "/api/v1/blobs/photos/%zz").body("x").send().await.is_problem(400, "invalid");
    house.user("PUT", "/api/v1/blobs/absent/k").body("x").send().await.is_problem(404, "unknown_bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_a_blob() {
    let house = house().await;
    house.store("empty", b"").await;
    let read = house.user("GET", "/api/v1/blobs/photos/empty").send().await.is(200);
    assert_eq!((read.header("content-length"), read.body.len()), ("0", 0));
    house.user("GET", "/api/v1/blobs/photos/empty").header("range", "bytes=-1").send().await.is_problem(416, "range_not_satisfiable");
}
