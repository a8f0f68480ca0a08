mod conformance;
mod misbehaviour;
mod rogue;

use super::*;
use crate::error::ErrorKind;
use object_store::memory::InMemory;

fn id(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

const QUICK: Deadline = Deadline::new(Duration::from_secs(10), Duration::from_secs(2));

fn one(store: Arc<dyn ObjectStore>) -> (Fleet, ProviderId) {
    let options = FleetOptions::default();
    (Fleet::from_stores(vec![(ProviderSpec::memory(id("p")), store)], options), id("p"))
}

fn creating(store: Arc<dyn ObjectStore>) -> (Fleet, ProviderId) {
    let spec = ProviderSpec { conditional_put: Guarantee::Yes, ..ProviderSpec::memory(id("p")) };
    (Fleet::from_stores(vec![(spec, store)], FleetOptions::default()), id("p"))
}

#[tokio::test]
async fn an_unknown_provider_is_refused_and_not_invented() {
    let (fleet, _) = one(Arc::new(InMemory::new()));
    let stranger = id("stranger");
    assert_eq!(fleet.exists(&stranger, "a/b", QUICK).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!((fleet.health(&stranger), fleet.counters(&stranger)), (None, None));
}

#[tokio::test]
async fn paths_are_checked_before_anything_is_sent() {
    let (fleet, p) = one(Arc::new(InMemory::new()));
    for bad in ["../x", "a//b", "ä", "a\0", ""] {
        assert_eq!(fleet.put(&p, bad, vec![], QUICK).await.unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
        assert_eq!(fleet.get(&p, bad, None, 1, QUICK).await.unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
        assert_eq!(fleet.delete(&p, bad, QUICK).await.unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
    }
    assert_eq!(fleet.counters(&p).unwrap().requests(), 0);
}

#[tokio::test]
async fn the_prefix_is_the_accounts_business() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let spec = |prefix: &str| ProviderSpec { prefix: prefix.to_owned(), ..ProviderSpec::memory(id("p")) };
    let fleet = |prefix| Fleet::from_stores(vec![(spec(prefix), Arc::clone(&store))], FleetOptions::default());
    let (one, other, p) = (fleet("one/deep"), fleet("other"), id("p"));
    one.put(&p, "claims/x", vec![Bytes::from_static(b"1")], QUICK).await.unwrap();
    assert_eq!(other.exists(&p, "claims/x", QUICK).await.unwrap(), None);
    assert_eq!(other.list(&p, "", 10, QUICK).await.unwrap(), vec![]);
    assert_eq!(one.list(&p, "claims", 10, QUICK).await.unwrap(), vec![("claims/x".to_owned(), 1)]);
    assert_eq!(store.head(&Path::from("one/deep/claims/x")).await.unwrap().size, 1);
}

#[tokio::test]
async fn counters_count_requests_and_bytes() {
    let (fleet, p) = one(Arc::new(InMemory::new()));
    fleet.put(&p, "a/b", vec![Bytes::from_static(b"12345"), Bytes::from_static(b"678")], QUICK).await.unwrap();
    fleet.get(&p, "a/b", Some(1..4), 3, QUICK).await.unwrap();
    fleet.get(&p, "a/b", None, 8, QUICK).await.unwrap();
    fleet.exists(&p, "a/none", QUICK).await.unwrap();
    fleet.list(&p, "a", 5, QUICK).await.unwrap();
    fleet.delete(&p, "a/b", QUICK).await.unwrap();
    let expected = Counters { puts: 1, gets: 3, lists: 1, deletes: 1, bytes_up: 8, bytes_down: 11, ..Counters::default() };
    assert_eq!(fleet.counters(&p), Some(expected));
    assert_eq!((expected.requests(), expected.writes(), expected.reads()), (6, 2, 3));
}

#[tokio::test]
async fn candidates_line_up_with_providers_and_follow_health() {
    let spec = |name: &str, weight| ProviderSpec { weight, ..ProviderSpec::memory(id(name)) };
    let memory = || Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
    let fleet = Fleet::from_stores(vec![(spec("z", 50), memory()), (spec("a", 100), memory())], FleetOptions::default());
    let names: Vec<&str> = fleet.providers().iter().map(|spec| spec.id.as_str()).collect();
    assert_eq!(names, ["a", "z"]);
    assert_eq!(fleet.candidates().iter().map(|c| c.weight).collect::<Vec<_>>(), [100, 50]);
    fleet.report_lie(&id("a"), "a cell does not match its leaf");
    assert_eq!(fleet.candidates().iter().map(|c| c.weight).collect::<Vec<_>>(), [10, 50]);
    let health = fleet.health(&id("a")).unwrap();
    assert_eq!((health.state, health.lying), (HealthState::Suspect, true));
    assert_eq!(fleet.counters(&id("a")).unwrap().lies, 1);
    assert_eq!(fleet.healthy_domains().len(), 2, "a liar still answers");
}

#[test]
fn a_fleet_needs_distinct_providers() {
    let none = Fleet::connect(&[], &Credentials::new(), FleetOptions::default());
    assert!(matches!(none, Err(ConnectError::Empty)));
    let twice = [ProviderSpec::memory(id("x")), ProviderSpec::memory(id("x"))];
    let error = Fleet::connect(&twice, &Credentials::new(), FleetOptions::default()).unwrap_err();
    assert!(matches!(error, ConnectError::Duplicate { provider } if provider == id("x")));
}

/// A wrong object under a name that is written only once: a plain PUT must not pass for a repair, and a repair must not leave a gap.
#[tokio::test]
async fn a_wrong_object_is_replaced_where_names_are_written_once() {
    let (fleet, p) = creating(Arc::new(InMemory::new()));
    let put = |bytes: &'static [u8]| vec![Bytes::from_static(bytes)];
    fleet.put(&p, "a/b", put(b"rotten"), QUICK).await.unwrap();
    assert_eq!(fleet.put(&p, "a/b", put(b"proven"), QUICK).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    fleet.replace(&p, "a/b", put(b"proven"), QUICK).await.unwrap();
    assert_eq!(fleet.get(&p, "a/b", None, 100, QUICK).await.unwrap(), "proven");
}
