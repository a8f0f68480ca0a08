//! What the layers above rely on, as one suite that every kind of store must pass.

use super::*;
use crate::capability::Verdict;

fn payload() -> Vec<Bytes> {
    [&b"header.."[..], b"", b"the body"].map(Bytes::from_static).into()
}

const WHOLE: &[u8] = b"header..the body";

/// The suite. The store must be empty.
async fn conforms(fleet: &Fleet, p: &ProviderId) {
    let len = WHOLE.len() as u64;
    assert_eq!(fleet.exists(p, "ab/none", QUICK).await.unwrap(), None);
    assert_eq!(fleet.get(p, "ab/none", None, 10, QUICK).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(fleet.list(p, "ab", 10, QUICK).await.unwrap(), vec![]);
    fleet.delete(p, "ab/none", QUICK).await.unwrap();

    // What was put comes back, whole and in ranges; an identical retry succeeds.
    fleet.put(p, "ab/one", payload(), QUICK).await.unwrap();
    fleet.put(p, "ab/one", payload(), QUICK).await.unwrap();
    assert_eq!(fleet.get(p, "ab/one", None, len, QUICK).await.unwrap(), WHOLE);
    assert_eq!(fleet.get(p, "ab/one", Some(6..11), 5, QUICK).await.unwrap(), WHOLE[6..11]);
    assert_eq!(fleet.exists(p, "ab/one", QUICK).await.unwrap(), Some(len));

    // Bounds hold, and what is not there is not made up.
    let failure = async |range, max_len| fleet.get(p, "ab/one", range, max_len, QUICK).await.unwrap_err().kind;
    assert_eq!(failure(None, len - 1).await, ErrorKind::TooLong);
    assert_eq!(failure(Some(0..len + 1), len + 1).await, ErrorKind::BadResponse);
    assert_eq!(failure(Some(0..4), 3).await, ErrorKind::Invalid);

    // A listing started after a write shows it, by whole segments, up to the limit.
    fleet.put(p, "ab/two", vec![Bytes::from_static(b"2")], QUICK).await.unwrap();
    fleet.put(p, "abc/three", vec![], QUICK).await.unwrap();
    let mut listed = fleet.list(p, "ab", 10, QUICK).await.unwrap();
    listed.sort();
    assert_eq!(listed, vec![("ab/one".to_owned(), len), ("ab/two".to_owned(), 1)]);
    assert_eq!(fleet.list(p, "ab", 1, QUICK).await.unwrap().len(), 1);
    assert_eq!(fleet.get(p, "abc/three", None, 0, QUICK).await.unwrap(), Bytes::new(), "an empty object");

    assert_eq!(fleet.exists(p, "abc/three", QUICK).await.unwrap(), Some(0));
    fleet.delete(p, "ab/one", QUICK).await.unwrap();
    assert_eq!(fleet.exists(p, "ab/one", QUICK).await.unwrap(), None);
    let report = fleet.self_test(p, [7; 16]).await.unwrap();
    for (name, probe) in report.probes() {
        assert_eq!(probe.verdict, Verdict::Works, "{name}");
    }
    assert_eq!(fleet.list(p, "selftest", 10, QUICK).await.unwrap(), vec![], "the self-test cleans up");
}

#[tokio::test]
async fn memory_conforms() {
    for make in [one, creating] {
        let (fleet, p) = make(Arc::new(InMemory::new()));
        conforms(&fleet, &p).await;
    }
}

#[tokio::test]
async fn folders_conform() {
    for conditional_put in [Guarantee::No, Guarantee::Yes] {
        let folder = tempfile::tempdir().unwrap();
        let spec = ProviderSpec { conditional_put, ..ProviderSpec::local(id("disk"), folder.path().to_owned()) };
        let fleet = Fleet::connect(&[spec], &Credentials::new(), FleetOptions::default()).unwrap();
        conforms(&fleet, &id("disk")).await;
    }
}

#[tokio::test]
async fn create_only_refuses_other_bytes_under_a_taken_name() {
    let (fleet, p) = creating(Arc::new(InMemory::new()));
    fleet.put(&p, "ab/one", payload(), QUICK).await.unwrap();
    for other in [&b"short"[..], b"Header..the body", b"header..the body and more"] {
        let error = fleet.put(&p, "ab/one", vec![Bytes::from_static(other)], QUICK).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
    }
    assert_eq!(fleet.get(&p, "ab/one", None, 100, QUICK).await.unwrap(), WHOLE);
    fleet.put(&p, "ab/one", vec![Bytes::from_static(WHOLE)], QUICK).await.unwrap();
}
