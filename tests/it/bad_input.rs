//! What must be refused, or taken byte for byte, by the real process: each with a typed answer that says what to do.

use crate::program::{Place, tree};
use crate::wire::Wire;

const BUCKET: &str = "/api/v1/buckets/box";

fn started() -> (Place, crate::program::Service, Wire) {
    let place = Place::new();
    place.init_local(3, 2);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", BUCKET, &[], b"").is(201);
    (place, service, wire)
}

fn at(key: &str) -> String {
    format!("/api/v1/blobs/box/{key}")
}

#[test]
fn what_is_not_there_is_named() {
    let (_place, service, wire) = started();
    wire.send("GET", "/api/v1/blobs/absent/k", &[], b"").problem(404, "unknown_bucket");
    wire.send("PUT", "/api/v1/blobs/absent/k", &[], b"x").problem(404, "unknown_bucket");
    wire.send("GET", &at("absent"), &[], b"").problem(404, "unknown_key");
    wire.send("DELETE", &at("absent"), &[], b"").problem(404, "unknown_key");
    wire.send("PUT", &at("k"), &[], b"x").is(201);
    let other = "00000000-0000-4000-8000-000000000000";
    wire.send("GET", &at(&format!("k?version={other}")), &[], b"").problem(404, "unknown_version");
    assert_eq!(service.stop(), 0);
}

#[test]
fn keys_are_bytes_and_nothing_else() {
    let (place, service, wire) = started();
    // Dots climb nowhere: they are a key like any other, and the files around the data folder stay as they are.
    let before = tree(&place.path("clouds")).len();
    for key in ["../../../../etc/passwd", "%2e%2e/%2e%2e/x", "a/../b", "./x", "..", "//", "a%2Fb"] {
        wire.send("PUT", &at(key), &[], key.as_bytes()).is(201);
    }
    for key in ["../../../../etc/passwd", "%2e%2e/%2e%2e/x", "a/../b", "./x", "..", "//"] {
        assert_eq!(wire.send("GET", &at(key), &[], b"").is(200).body, key.as_bytes());
    }
    wire.send("GET", &at("b"), &[], b"").problem(404, "unknown_key");
    wire.send("GET", &at("x"), &[], b"").problem(404, "unknown_key");
    assert_eq!(wire.send("GET", &at("a/b"), &[], b"").is(200).body, b"a%2Fb", "an escaped slash is a slash");
    assert!(tree(&place.path("clouds")).len() > before);

    assert!(wire.send("PUT", &at("a%00b"), &[], b"x").problem(400, "invalid_key").contains("NUL"));
    let longest = "k".repeat(1024);
    wire.send("PUT", &at(&longest), &[], b"1024").is(201);
    assert_eq!(wire.send("GET", &at(&longest), &[], b"").is(200).body, b"1024");
    assert!(wire.send("PUT", &at(&format!("{longest}k")), &[], b"x").problem(400, "invalid_key").contains("1024"));
    // 1024 counts bytes, not letters.
    wire.send("PUT", &at(&"%C3%A9".repeat(513)), &[], b"x").problem(400, "invalid_key");

    // Composed and decomposed, Latin and Cyrillic: to the eye the same.
    for (key, body) in [("%C3%A9", b"1"), ("e%CC%81", b"2"), ("a", b"3"), ("%D0%B0", b"4"), ("A", b"5")] {
        wire.send("PUT", &at(key), &[], body).is(201);
    }
    for (key, body) in [("%C3%A9", b"1"), ("e%CC%81", b"2"), ("a", b"3"), ("%D0%B0", b"4"), ("A", b"5")] {
        assert_eq!(wire.send("GET", &at(key), &[], b"").is(200).body, body, "{key}");
    }
    wire.send("PUT", &at("%zz"), &[], b"x").problem(400, "invalid");
    wire.send("PUT", &at(""), &[], b"x").problem(400, "invalid_key");
    assert_eq!(service.stop(), 0);
}

#[test]
fn bodies_are_whole_or_absent() {
    let (_place, service, wire) = started();
    wire.send("PUT", &at("empty"), &[], b"").is(201);
    let empty = wire.send("GET", &at("empty"), &[], b"").is(200);
    assert!(empty.body.is_empty() && empty.head.to_ascii_lowercase().contains("content-length: 0"), "{empty:?}");

    // The digest of something else: nothing is stored, and what was there stays.
    let digest = [("Content-Digest", "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:")];
    wire.send("PUT", &at("d"), &digest, b"hellO").problem(400, "digest_mismatch");
    wire.send("GET", &at("d"), &[], b"").problem(404, "unknown_key");
    wire.send("PUT", &at("d"), &digest, b"hello").is(201);
    wire.send("PUT", &at("d"), &digest, b"hellO").problem(400, "digest_mismatch");
    assert_eq!(wire.send("GET", &at("d"), &[], b"").is(200).body, b"hello");

    // Broken off in the middle, below and beyond the size that rides in commit blocks.
    for (key, length) in [("small", 100_000), ("large", 6 << 20)] {
        wire.break_off(&at(key), length, &vec![7; length / 2]);
        wire.send("PUT", &at("after"), &[], b"x").is(201);
        wire.send("GET", &at(key), &[], b"").problem(404, "unknown_key");
    }
    let listed = wire.send("GET", "/api/v1/blobs/box", &[], b"").is(200).json();
    let keys: Vec<_> = listed["blobs"].as_array().unwrap().iter().map(|blob| blob["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["after", "d", "empty"]);
    assert_eq!(service.stop(), 0);
}

/// What a retry token stands for is in the log, not in the process.
#[test]
fn a_retry_after_a_restart_has_the_first_outcome() {
    let (place, service, wire) = started();
    let token = |name| [("Idempotency-Key", name)];
    let first = wire.send("PUT", &at("k"), &token("put"), b"body").is(201);
    wire.send("PUT", &at("gone"), &[], b"x").is(201);
    wire.send("DELETE", &at("gone"), &token("delete"), b"").is(204);
    assert_eq!(service.stop(), 0);

    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    let again = wire.send("PUT", &at("k"), &token("put"), b"body").is(201);
    assert!(again.head.to_ascii_lowercase().contains("idempotency-replayed: true"), "{}", again.head);
    assert_eq!(again.json()["version"], first.json()["version"]);
    wire.send("PUT", &at("k"), &token("put"), b"other body").problem(422, "idempotency_mismatch");
    wire.send("PUT", &at("other"), &token("put"), b"body").problem(422, "idempotency_mismatch");
    wire.send("DELETE", &at("gone"), &token("delete"), b"").is(204);
    wire.send("DELETE", &at("gone"), &[], b"").problem(404, "unknown_key");
    assert_eq!(wire.send("GET", &at("k"), &[], b"").is(200).body, b"body");
    assert_eq!(service.stop(), 0);
}
