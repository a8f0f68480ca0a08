use super::*;

#[test]
fn every_error_says_whether_to_retry_and_what_to_do() {
    let error = |kind, operation| ProviderError { provider: ProviderId::new("p").unwrap(), operation, kind, detail: "x".to_owned() };
    let retryable = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::CircuitOpen, ErrorKind::Busy, ErrorKind::Full];
    let final_ones = [ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::TooLong, ErrorKind::AlreadyExists, ErrorKind::Invalid];
    assert!(retryable.iter().all(|kind| error(*kind, Operation::Get).is_retryable()));
    assert!(!final_ones.iter().any(|kind| error(*kind, Operation::Get).is_retryable()));
    assert!(error(ErrorKind::Timeout, Operation::Put).effect_unknown());
    assert!(!error(ErrorKind::Timeout, Operation::Get).effect_unknown() && !error(ErrorKind::Busy, Operation::Put).effect_unknown());
    assert_eq!(
        error(ErrorKind::Denied, Operation::List).to_string(),
        "provider p: list failed: x. Check the access key, its permissions (put, get, delete, list on this bucket) \
         and the clock of this machine, then run `metanode storage providers configure --test`"
    );
}

#[test]
fn file_errors_keep_their_meaning_and_lose_their_path() {
    let wrap = |kind| object_store::Error::Generic { store: "x", source: Box::new(io::Error::new(kind, "/secret/path")) };
    for (from, to) in [
        (io::ErrorKind::StorageFull, ErrorKind::Full),
        (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
        (io::ErrorKind::UnexpectedEof, ErrorKind::BadResponse),
        (io::ErrorKind::BrokenPipe, ErrorKind::Unavailable),
    ] {
        let (kind, detail) = classify(&wrap(from));
        assert_eq!(kind, to);
        assert!(!detail.contains("secret"), "{detail}");
    }
}
