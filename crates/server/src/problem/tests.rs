use super::*;
use diaspore_engine::api::ErrorKind as K;

async fn shown(problem: Problem) -> (Response<()>, serde_json::Value) {
    let (parts, body) = problem.render("id-1").into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 16).await.unwrap();
    (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap())
}

type Response<T> = http::Response<T>;

#[tokio::test]
async fn every_kind_has_its_status() {
    let table = [
        (K::UnknownBucket, 404, false),
        (K::UnknownKey, 404, false),
        (K::UnknownVersion, 404, false),
        (K::AlreadyExists, 409, false),
        (K::BucketNotEmpty, 409, false),
        (K::Invalid, 400, false),
        (K::TooLarge, 413, false),
        (K::DigestMismatch, 400, false),
        (K::PreconditionFailed, 412, false),
        (K::RangeNotSatisfiable, 416, false),
        (K::IdempotencyMismatch, 422, false),
        (K::IdempotencyInFlight, 409, true),
        (K::Aborted, 400, false),
        (K::NotAccepted, 503, true),
        (K::TooFewDomains, 503, true),
        (K::OutcomeUnknown, 503, true),
        (K::ReadOnly, 503, true),
        (K::DataUnavailable, 503, true),
        (K::IntegrityViolation, 500, false),
        (K::RefusedState, 500, false),
        (K::InsufficientStorage, 507, true),
        (K::LocalStore, 500, false),
        (K::Internal, 500, false),
    ];
    for (kind, status, retry) in table {
        let error = Error::new(kind, "what happened");
        assert_eq!(error.is_retryable(), retry, "{kind:?}");
        let (response, document) = shown(error.into()).await;
        assert_eq!(response.status().as_u16(), status, "{kind:?}");
        assert_eq!(response.headers().contains_key(RETRY_AFTER), retry, "{kind:?}");
        assert_eq!(document["retryable"], retry, "{kind:?}");
        // The code is the kind's own name, so that nobody has to learn two vocabularies.
        assert_eq!(document["code"], serde_json::to_value(kind).unwrap());
        assert_eq!(document["outcome"].is_string(), status == 503 || status == 507, "{kind:?}");
    }
}

#[tokio::test]
async fn the_two_kinds_of_503_are_told_apart() {
    let (_, refused) = shown(Error::new(K::NotAccepted, "x").into()).await;
    let (_, unknown) = shown(Error::new(K::OutcomeUnknown, "x").into()).await;
    assert_eq!((&refused["outcome"], &unknown["outcome"]), (&"not_accepted".into(), &"outcome_unknown".into()));
}

#[tokio::test]
async fn inner_trouble_stays_inside() {
    for kind in [K::Internal, K::RefusedState] {
        let (_, document) = shown(Error::new(kind, "secret at /var/lib").into()).await;
        assert!(!document.to_string().contains("secret"), "{document}");
    }
    let (_, document) = shown(Error::new(K::InsufficientStorage, "the disk is full").into()).await;
    assert_eq!(document["detail"], "the disk is full");
    let (_, document) = shown(Error::new(K::TooFewDomains, "3 of 5 domains are up, 4 are needed").into()).await;
    assert_eq!(document["detail"], "3 of 5 domains are up, 4 are needed");
}

#[tokio::test]
async fn the_document_has_the_form_of_rfc_9457() {
    let (response, document) = shown(Problem::range_not_satisfiable(10)).await;
    assert_eq!(response.headers()[http::header::CONTENT_RANGE], "bytes */10");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let expected = serde_json::json!({
        "type": "urn:diaspore:problem:range_not_satisfiable",
        "title": "The range is outside the blob",
        "status": 416,
        "detail": "the range lies outside the blob of 10 bytes",
        "code": "range_not_satisfiable",
        "request_id": "id-1",
        "retryable": false,
    });
    assert_eq!(document, expected);
}
