//! Requests that no well-behaved client sends.

use reqwest::{Client, StatusCode};

use crate::s3::{EmulatorConfig, EmulatorError};

/// Method, path, headers; status and a word of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);

/// Status and body of one request to an emulator that wants no signatures.
async fn ask(client: &Client, method: &str, url: String, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut request = client.request(method.parse().unwrap(), url).body("twelve bytes");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn bad_requests_get_s3_errors() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = EmulatorConfig::folder(folder.path()).with_bucket("shards").start().await.unwrap();
    let client = Client::new();
    let zeros = "0".repeat(64);
    let cases: [Case<'_>; 15] = [
        ("GET", "/shards/none", &[], 404, "NoSuchKey"),
        ("GET", "/absent/none", &[], 404, "NoSuchBucket"),
        ("PUT", "/absent/key", &[], 404, "NoSuchBucket"),
        ("PUT", "/UPPER", &[], 400, "InvalidBucketName"),
        ("PUT", "/.incoming/key", &[], 400, "InvalidBucketName"),
        ("PUT", "/shards/a%2F..%2F..%2F..%2Fescaped", &[], 400, "InvalidArgument"),
        ("PUT", "/shards/nul%00", &[], 400, "InvalidArgument"),
        ("PUT", "/shards//empty", &[], 400, "InvalidArgument"),
        ("PUT", "/shards/file", &[], 200, ""),
        ("PUT", "/shards/file/below", &[], 409, "OperationAborted"),
        ("GET", "/shards/file", &[("range", "bytes=12-")], 416, "InvalidRange"),
        ("PUT", "/shards/file", &[("if-none-match", "*")], 412, "PreconditionFailed"),
        ("PUT", "/shards/file", &[("x-amz-content-sha256", &zeros)], 400, "XAmzContentSHA256Mismatch"),
        ("PUT", "/shards/file?acl", &[], 501, "NotImplemented"),
        ("PUT", "/shards", &[], 409, "BucketAlreadyOwnedByYou"),
    ];
    for (method, path, headers, status, code) in cases {
        let (found, body) = ask(&client, method, cloud.endpoint() + path, headers).await;
        assert_eq!(found, status, "{method} {path}: {body}");
        assert!(body.contains(code), "{method} {path}: {body}");
    }
    assert!(!folder.path().parent().unwrap().join("escaped").exists());
    assert_eq!(cloud.stored().unwrap(), (1, 12));
}

#[tokio::test]
async fn the_admin_path_is_there_only_when_asked_for() {
    let client = Client::new();
    let open = EmulatorConfig::memory().with_bucket("shards").with_admin(true).start().await.unwrap();
    let shut = EmulatorConfig::memory().start().await.unwrap();
    let faults = |cloud: &crate::EmulatorHandle| cloud.endpoint() + "/_emulator/faults";
    assert_eq!(ask(&client, "GET", faults(&shut), &[]).await.0, 400);
    let set = client.put(faults(&open)).body("denied on put next 1").send().await.unwrap();
    assert_eq!(set.status(), 204);
    assert_eq!(ask(&client, "GET", faults(&open), &[]).await.1, "denied on put next 1\n");
    assert_eq!(ask(&client, "PUT", open.endpoint() + "/shards/a", &[]).await.0, 403);
    assert_eq!(ask(&client, "PUT", open.endpoint() + "/shards/a", &[]).await.0, 200);
    let bad = client.put(faults(&open)).body("explode").send().await.unwrap();
    assert_eq!(bad.status(), 400);
    let counters = open.endpoint() + "/_emulator/counters";
    let text = ask(&client, "GET", counters, &[]).await.1;
    assert!(text.starts_with("puts 2\n") && text.contains("errors 1\n"), "{text}");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let first = EmulatorConfig::memory().start().await.unwrap();
    let taken = EmulatorConfig::memory().with_port(first.address().port()).start().await;
    assert!(matches!(taken, Err(EmulatorError::Listen { .. })));
    let unnamed = EmulatorConfig::memory().with_bucket("No").start().await;
    assert!(unnamed.unwrap_err().to_string().contains("`No`"));
}
