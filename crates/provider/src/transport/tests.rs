//! The client against real sockets that misbehave.

use std::time::Duration;

use diaspore_policy::{ProviderId, ProviderSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::{BreakerOptions, Credentials, Deadline, ErrorKind, Fleet, FleetOptions, HealthState, ProviderError, S3Credentials};

const QUICK: Deadline = Deadline::new(Duration::from_secs(20), Duration::from_secs(10));

/// Answers every connection's first request with `head`, then with `filler` for ever if there is one. Requests are kept.
async fn endpoint(head: String, filler: Option<&'static [u8]>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut buffer = vec![0; 16 * 1024];
            let length = socket.read(&mut buffer).await.unwrap_or(0);
            requests.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).ok();
            let mut alive = socket.write_all(head.as_bytes()).await.is_ok();
            while let (true, Some(filler)) = (alive, filler) {
                alive = socket.write_all(filler).await.is_ok();
            }
        }
    });
    (url, seen)
}

fn fleet(url: &str) -> (Fleet, ProviderId) {
    fleet_with(url, FleetOptions::default())
}

fn fleet_with(url: &str, options: FleetOptions) -> (Fleet, ProviderId) {
    let id = ProviderId::new("p").unwrap();
    let keys = [(id.clone(), S3Credentials::new("AKIACANARY".to_owned(), "SECRETCANARY".to_owned()))].into_iter().collect::<Credentials>();
    let spec = ProviderSpec::s3(id.clone(), url, "bucket");
    (Fleet::connect(&[spec], &keys, options).unwrap(), id)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

async fn refused(response: String) -> ProviderError {
    let (url, _seen) = endpoint(response, None).await;
    let (fleet, id) = fleet(&url);
    let error = fleet.get(&id, "ab/cd", None, 100, QUICK).await.unwrap_err();
    let text = format!("{error} {error:?} {fleet:?}");
    assert!(!text.contains("SECRETCANARY") && !error.to_string().contains("ab/cd"), "{text}");
    error
}

#[tokio::test]
async fn statuses_and_codes_become_kinds() {
    let xml = |code: &str| format!("<Error><Code>{code}</Code><Message>ab/cd</Message></Error>");
    for (status, code, kind) in [
        ("404 Not Found", "NoSuchKey", ErrorKind::NotFound),
        ("404 Not Found", "NoSuchBucket", ErrorKind::Unavailable),
        ("404 Not Found", "", ErrorKind::Unavailable),
        ("403 Forbidden", "NoSuchKey", ErrorKind::Denied),
        ("403 Forbidden", "SignatureDoesNotMatch", ErrorKind::Denied),
        ("403 Forbidden", "QuotaExceeded", ErrorKind::Full),
        ("401 Unauthorized", "", ErrorKind::Denied),
        ("400 Bad Request", "InvalidAccessKeyId", ErrorKind::Denied),
        ("500 Internal Server Error", "InternalError", ErrorKind::Unavailable),
        ("503 Slow Down", "SlowDown", ErrorKind::Unavailable),
        ("507 Insufficient Storage", "", ErrorKind::Full),
        ("416 Range Not Satisfiable", "InvalidRange", ErrorKind::BadResponse),
    ] {
        let error = refused(answer(status, "", &xml(code))).await;
        assert_eq!(error.kind, kind, "{status} {code}: {error}");
        if kind == ErrorKind::Denied {
            assert!(error.to_string().contains("Check the access key"), "{error}");
        }
    }
}

/// A mistyped or suspended bucket answers every question with "not found": that is an account that is not there, not one that never had
/// the object. A HEAD cannot tell the two apart.
#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    for code in ["NoSuchBucket", "AccountNotFound", ""] {
        let (url, mut seen) = endpoint(answer("404 Not Found", "", &format!("<Error><Code>{code}</Code></Error>")), None).await;
        let (fleet, id) = fleet(&url);
        for error in [
            fleet.get(&id, "ab/cd", None, 100, QUICK).await.map(drop).unwrap_err(),
            fleet.exists(&id, "ab/cd", QUICK).await.map(drop).unwrap_err(),
            fleet.probe(&id, QUICK).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("check bucket, account and endpoint"), "{error}");
        }
        assert_eq!(fleet.health(&id).unwrap().state, HealthState::Down, "and it is known after three answers");
        for _ in 0..3 {
            let request = seen.recv().await.unwrap();
            assert!(request.starts_with("GET "), "{request}");
        }
        let patient = BreakerOptions { failures: 100, ..BreakerOptions::default() };
        let (fleet, id) = fleet_with(&url, FleetOptions { breaker: patient, ..FleetOptions::default() });
        for asked in [
            fleet.delete(&id, "ab/cd", QUICK).await,
            fleet.list(&id, "ab", 10, QUICK).await.map(drop),
            fleet.put(&id, "ab/cd", vec![Bytes::from_static(b"shard")], QUICK).await,
        ] {
            assert_eq!(asked.unwrap_err().kind, ErrorKind::Unavailable);
        }
    }
}

/// "No such object" answers whoever asked about an object, and nobody else.
#[tokio::test]
async fn a_missing_object_is_an_answer_to_questions_about_it() {
    let (url, _seen) = endpoint(answer("404 Not Found", "", "<Error><Code>NoSuchKey</Code></Error>"), None).await;
    let (fleet, id) = fleet(&url);
    assert_eq!(fleet.exists(&id, "ab/cd", QUICK).await.unwrap(), None);
    fleet.delete(&id, "ab/cd", QUICK).await.unwrap();
    assert_eq!(fleet.probe(&id, QUICK).await.unwrap().state, HealthState::Healthy);
    assert_eq!(fleet.list(&id, "ab", 10, QUICK).await.unwrap_err().kind, ErrorKind::Unavailable);
    let put = fleet.put(&id, "ab/cd", vec![Bytes::from_static(b"shard")], QUICK).await;
    assert_eq!(put.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let (trap, mut visitors) = endpoint(answer("200 OK", "ETag: \"x\"\r\n", "inside"), None).await;
    let error = refused(answer("307 Temporary Redirect", &format!("Location: {trap}/metadata\r\n"), "")).await;
    assert_eq!(error.kind, ErrorKind::BadResponse);
    assert!(error.to_string().contains("redirect, which is never followed"), "{error}");
    assert!(visitors.try_recv().is_err(), "nobody came");
}

#[tokio::test]
async fn endless_error_texts_listings_and_objects_end() {
    let head = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 99999999999\r\nContent-Type: application/xml\r\n\r\n");
    let (url, _seen) = endpoint(head("500 Oops"), Some(&[b'x'; 4096])).await;
    let (failing, id) = fleet(&url);
    assert_eq!(failing.get(&id, "ab/cd", None, 100, QUICK).await.unwrap_err().kind, ErrorKind::Unavailable);
    let (url, _seen) = endpoint(head("200 OK"), Some(&[b'x'; 4096])).await;
    let (endless, id) = fleet(&url);
    assert_eq!(endless.list(&id, "claims", 10, QUICK).await.unwrap_err().kind, ErrorKind::TooLong);
    assert_eq!(endless.get(&id, "ab/cd", None, 100, QUICK).await.unwrap_err().kind, ErrorKind::TooLong);
}

#[tokio::test]
async fn a_body_cut_off_is_no_object_and_no_connection_is_unavailable() {
    let short = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 50\r\nConnection: close\r\n\r\nhalf".to_owned();
    let error = refused(short).await;
    assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::BadResponse), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (fleet, id) = fleet(&url);
    let error = fleet.exists(&id, "ab/cd", QUICK).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("no connection: check the endpoint"), "{error}");
}

#[tokio::test]
async fn loopback_puts_are_signed_but_not_hashed() {
    let (url, mut seen) = endpoint(answer("200 OK", "ETag: \"x\"\r\n", ""), None).await;
    let (fleet, id) = fleet(&url);
    fleet.put(&id, "ab/cd", vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")], QUICK).await.unwrap();
    let request = seen.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("put /bucket/ab/cd http/1.1"), "{request}");
    assert!(request.contains("x-amz-content-sha256: unsigned-payload") && request.contains("aws4-hmac-sha256"), "{request}");
    assert!(request.contains("content-length: 6"), "{request}");
}

#[test]
fn codes_are_plain_words_or_nothing() {
    assert_eq!(error_code(b"<?xml?><Error><Code>NoSuchKey</Code></Error>"), "NoSuchKey");
    for hostile in [&b"<Code>a/b\n</Code>"[..], b"<Code>", b"", b"\xff\xfe", &[b'x'; 100]] {
        assert_eq!(error_code(hostile), "");
    }
    assert_eq!(error_code(format!("<Code>{}</Code>", "x".repeat(65)).as_bytes()), "");
}

/// Somebody who can answer in a provider's place, but not in its name: a certificate for this very address that nobody vouches for.
/// (The key is no secret: it was made for this test.)
#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_talk_before_a_word_is_said() {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{ServerConfig, crypto, pki_types::PrivateKeyDer};
    let certificate = include_bytes!("stranger.cert.der").to_vec();
    let key = PrivateKeyDer::try_from(include_bytes!("stranger.key.der").to_vec()).unwrap();
    let config = ServerConfig::builder_with_provider(crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone().into()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (words, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut buffer = vec![0; 16 * 1024];
            let length = socket.read(&mut buffer).await.unwrap_or(0);
            words.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).ok();
            socket.write_all(answer("200 OK", "", "sure").as_bytes()).await.ok();
        }
    });
    let (fleet, id) = fleet(&url);
    for error in [
        fleet.get(&id, "ab/cd", None, 100, QUICK).await.map(drop).unwrap_err(),
        fleet.put(&id, "ab/cd", vec![Bytes::from_static(b"sealed")], QUICK).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert!(heard.try_recv().is_err(), "not even a request was sent");
    // The stranger is able to talk; it is the trust that was missing.
    let trusted = reqwest::Certificate::from_der(&certificate).unwrap();
    let gullible = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    assert_eq!(gullible.get(&url).send().await.unwrap().text().await.unwrap(), "sure");
    assert!(heard.try_recv().unwrap().starts_with("GET / HTTP/1.1"));
}
