use super::*;

fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
}

fn read(pairs: &[(&'static str, &str)]) -> Result<PutOptions, Problem> {
    put_options(&with(pairs), &Limits { blob_bytes: 100, ..Limits::default() })
}

#[test]
fn a_bare_put_has_no_options() {
    let options = read(&[]).unwrap();
    assert!(options.class.is_none() && options.content_type.is_none() && options.metadata.is_empty());
    assert!(options.length.is_none() && options.sha256.is_none() && !options.want_sha256);
}

#[test]
fn metadata_is_taken_with_unicode_values() {
    let options = read(&[("x-diaspore-meta-owner", "Zoë"), ("x-diaspore-meta-n", ""), ("x-other", "no")]).unwrap();
    let mut pairs = options.metadata;
    pairs.sort();
    assert_eq!(pairs, [("n".to_owned(), String::new()), ("owner".to_owned(), "Zoë".to_owned())]);
}

#[test]
fn metadata_has_limits() {
    assert!(read(&[("x-diaspore-meta-a", &"v".repeat(META_BYTES - 1))]).is_ok());
    assert!(read(&[("x-diaspore-meta-a", &"v".repeat(META_BYTES))]).is_err());
    assert!(read(&[("x-diaspore-meta-", "v")]).is_err());
    let mut headers = HeaderMap::new();
    for at in 0..=META_PAIRS {
        headers.insert(HeaderName::from_bytes(format!("{META_PREFIX}{at}").as_bytes()).unwrap(), HeaderValue::from_static("v"));
    }
    assert!(put_options(&headers, &Limits::default()).is_err());
    let mut latin = HeaderMap::new();
    latin.insert("x-diaspore-meta-a", HeaderValue::from_bytes(&[0xe9]).unwrap());
    assert!(put_options(&latin, &Limits::default()).is_err());
}

#[test]
fn lengths_are_checked_before_the_body() {
    assert_eq!(read(&[("content-length", "100")]).unwrap().length, Some(100));
    assert_eq!(read(&[("content-length", "101")]).unwrap_err().code(), "too_large");
    assert_eq!(read(&[("content-length", "5"), ("transfer-encoding", "chunked")]).unwrap().length, None);
}

#[test]
fn what_would_be_lost_is_refused() {
    assert_eq!(read(&[("content-encoding", "gzip")]).unwrap_err().code(), "unsupported_media_type");
    assert!(read(&[("content-encoding", "identity")]).is_ok());
    assert!(read(&[("content-range", "bytes 0-1/2")]).is_err());
    assert!(read(&[("x-diaspore-class", "gold")]).is_err());
    assert_eq!(read(&[("x-diaspore-class", "full")]).unwrap().class, Some(Class::Full));
}

#[test]
fn a_wanted_digest_is_seen_unless_its_weight_is_zero() {
    assert!(read(&[("want-content-digest", "sha-512=3, sha-256=10")]).unwrap().want_sha256);
    assert!(read(&[("want-repr-digest", "sha-256=1")]).unwrap().want_sha256);
    assert!(!read(&[("want-content-digest", "sha-256=0")]).unwrap().want_sha256);
}

#[test]
fn a_retry_is_recognised_and_a_different_request_is_not() {
    let of = |pairs: &[(&'static str, &str)], tenant: &[u8], key: &[u8]| idempotency(&with(pairs), tenant, "PUT", "b", key).unwrap();
    let base = [("idempotency-key", "t"), ("x-diaspore-meta-a", "1"), ("x-diaspore-meta-b", "2")];
    let reordered = [("x-diaspore-meta-b", "2"), ("user-agent", "x"), ("x-diaspore-meta-a", "1"), ("idempotency-key", "t")];
    let first = of(&base, b"T", b"k").unwrap();
    assert_eq!(of(&reordered, b"T", b"k").unwrap(), first);

    let other_key = of(&base, b"T", b"k2").unwrap();
    assert_eq!(other_key.key_hash, first.key_hash);
    assert_ne!(other_key.request_hash, first.request_hash);
    let other_meta = of(&[("idempotency-key", "t"), ("x-diaspore-meta-a", "1"), ("x-diaspore-meta-b", "3")], b"T", b"k").unwrap();
    assert_ne!(other_meta.request_hash, first.request_hash);
    assert_ne!(of(&base, b"U", b"k").unwrap().key_hash, first.key_hash);

    assert_eq!(of(&[], b"T", b"k"), None);
    assert!(idempotency(&with(&[("idempotency-key", "")]), b"T", "PUT", "b", b"k").is_err());
    assert!(idempotency(&with(&[("idempotency-key", &"x".repeat(256))]), b"T", "PUT", "b", b"k").is_err());
}
