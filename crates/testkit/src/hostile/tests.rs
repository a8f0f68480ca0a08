use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use tokio::time::{Instant, timeout};

use super::{HostileStore, Outcome};
use crate::fault::{Fault, FaultPlan, Misbehaviour, Op};

fn store(seed: u64) -> HostileStore {
    HostileStore::new("tester", ChaCha12Rng::seed_from_u64(seed))
}

async fn put(store: &HostileStore, path: &str, bytes: &'static [u8]) -> Result<(), Error> {
    store.put(&Path::from(path), PutPayload::from_static(bytes)).await.map(drop)
}

async fn get(store: &HostileStore, path: &str) -> Result<Bytes, Error> {
    store.get(&Path::from(path)).await?.bytes().await
}

async fn create(store: &HostileStore, path: &str, bytes: &'static [u8]) -> Result<(), Error> {
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(&Path::from(path), PutPayload::from_static(bytes), options).await.map(drop)
}

async fn names(store: &HostileStore, prefix: &str) -> Vec<String> {
    let found: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    found.into_iter().map(|meta| meta.location.to_string()).collect()
}

const SHORT: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn an_honest_store_passes_the_conformance_suite() {
    use object_store::integration;
    let store = Arc::new(store(1));
    integration::put_get_delete_list(&store.as_ref().clone()).await;
    integration::get_opts(store.as_ref()).await;
    integration::put_opts(store.as_ref(), true).await;
    integration::list_uses_directories_correctly(&store.as_ref().clone()).await;
    integration::list_with_delimiter(&store.as_ref().clone()).await;
    integration::rename_and_copy(&store.as_ref().clone()).await;
    integration::copy_if_not_exists(&store.as_ref().clone()).await;
}

#[tokio::test(start_paused = true)]
async fn errors_before_and_after_differ_in_effect() {
    let store = store(2);
    store.set_faults(Fault::next(Misbehaviour::ErrorBefore, 1).into());
    put(&store, "a/1", b"one").await.unwrap_err();
    assert_eq!(store.peek("a/1"), None);
    store.set_faults(Fault::next(Misbehaviour::ErrorAfter, 1).into());
    put(&store, "a/1", b"one").await.unwrap_err();
    assert_eq!(store.peek("a/1").unwrap(), "one");
    store.set_faults(Fault::next(Misbehaviour::DroppedWrite, 1).into());
    put(&store, "a/2", b"two").await.unwrap();
    assert_eq!(store.peek("a/2"), None);
    assert!(matches!(get(&store, "a/2").await, Err(Error::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_lands_after_the_client_gave_up() {
    let store = store(3);
    let late = Misbehaviour::LandLate { within: Duration::from_mins(1) };
    store.set_faults(Fault::next(late, 2).into());
    timeout(SHORT, create(&store, "a/1", b"late")).await.unwrap_err();
    timeout(SHORT, create(&store, "a/2", b"late")).await.unwrap_err();
    create(&store, "a/1", b"soon").await.map_or_else(drop, drop);
    let before = store.late_writes();
    tokio::time::advance(Duration::from_secs(70)).await;
    assert_eq!(store.late_writes(), 0);
    assert!(before > 0, "the seed must leave something on its way");
    assert_eq!(get(&store, "a/2").await.unwrap(), "late");
    let landed = store.trace();
    let ended = |outcome| landed.iter().filter(|event| event.outcome == outcome).count();
    assert_eq!(ended(Outcome::OnItsWay), 2);
    assert_eq!(ended(Outcome::Landed) + ended(Outcome::LandedInVain), 2);
}

#[tokio::test(start_paused = true)]
async fn lies_about_content() {
    let store = store(4);
    put(&store, "a/1", b"first object").await.unwrap();
    put(&store, "a/2", b"other object").await.unwrap();
    store.set_faults(Fault::always(Misbehaviour::Swap).into());
    assert_eq!(get(&store, "a/1").await.unwrap(), "other object");
    store.set_faults(Fault::always(Misbehaviour::Flip { bits: 1 }).into());
    let flipped = get(&store, "a/1").await.unwrap();
    let differing: u32 = flipped.iter().zip(b"first object").map(|(got, sent)| (got ^ sent).count_ones()).sum();
    assert_eq!((flipped.len(), differing), (12, 1));
    store.set_faults(Fault::always(Misbehaviour::Truncate).into());
    assert!(get(&store, "a/1").await.unwrap().len() < 12);
    store.set_faults(Fault::always(Misbehaviour::EndlessBody).into());
    let mut endless = store.get(&Path::from("a/1")).await.unwrap().into_stream();
    let mut seen = 0;
    while seen < 1 << 24 {
        seen += endless.try_next().await.unwrap().unwrap().len();
    }
    store.set_faults(Fault::always(Misbehaviour::FreezeMidBody).into());
    timeout(SHORT, get(&store, "a/1")).await.unwrap_err();
    store.set_faults(Fault::always(Misbehaviour::Freeze).into());
    timeout(SHORT, get(&store, "a/1")).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn old_states_and_stale_lists() {
    let store = store(5);
    put(&store, "a/1", b"one").await.unwrap();
    store.take_snapshot();
    put(&store, "a/1", b"new").await.unwrap();
    put(&store, "a/2", b"two").await.unwrap();
    store.set_faults(Fault::always(Misbehaviour::RollBack).into());
    assert_eq!(get(&store, "a/1").await.unwrap(), "one");
    assert_eq!(names(&store, "a").await, ["a/1"]);
    store.set_faults(Fault::always(Misbehaviour::StaleList { behind: 1 }).into());
    assert_eq!(names(&store, "a").await, ["a/1"]);
    store.delete(&Path::from("a/1")).await.unwrap();
    assert_eq!(names(&store, "a").await, ["a/1", "a/2"]);
    store.set_faults(FaultPlan::honest());
    assert_eq!(names(&store, "a").await, ["a/2"]);
    store.lose_everything();
    assert!(names(&store, "a").await.is_empty());
    store.roll_back();
    assert_eq!(store.objects(), [("a/1".to_owned(), Bytes::from_static(b"one"))]);
    store.tamper("a/1", Some(Bytes::from_static(b"rot")));
    assert_eq!(get(&store, "a/1").await.unwrap(), "rot");
}

#[tokio::test(start_paused = true)]
async fn time_is_spent_as_the_plan_says() {
    let store = store(6);
    let latency = Misbehaviour::Latency { fixed: Duration::from_millis(30), jitter: Duration::ZERO };
    let plan = FaultPlan::from(Fault::always(latency)).with(Fault::always(Misbehaviour::Bandwidth { bytes_per_s: 1000 }));
    store.set_faults(plan);
    let start = Instant::now();
    put(&store, "a/1", b"0123456789").await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 40);
}

#[tokio::test(start_paused = true)]
async fn refusals() {
    let store = store(7);
    put(&store, "a/1", b"one").await.unwrap();
    store.set_faults(Fault::always(Misbehaviour::Denied).into());
    assert!(matches!(get(&store, "a/1").await, Err(Error::PermissionDenied { .. })));
    store.set_faults(Fault::always(Misbehaviour::Full).into());
    assert_eq!(get(&store, "a/1").await.unwrap(), "one");
    let full = put(&store, "a/2", b"two").await.unwrap_err();
    assert!(full.to_string().contains("507"), "{full}");
    store.set_faults(FaultPlan::down());
    let down = get(&store, "a/1").await.unwrap_err();
    assert!(down.to_string().contains("refused"), "{down}");
}

/// A busy seeded run: every misbehaviour at some rate, many operations, clients that give up.
async fn busy_run(seed: u64) -> ([u8; 32], usize) {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let store = HostileStore::new("busy", ChaCha12Rng::seed_from_u64(dice.next_u64()));
    let plan: FaultPlan = "latency 1ms 9ms; error-before chance 0.1; error-after chance 0.1; reset chance 0.1; \
        freeze chance 0.05; flip 2 chance 0.1; swap chance 0.1; stale-list 3 chance 0.3; truncate chance 0.05; \
        dropped-write chance 0.05; land-late 20s chance 0.1; roll-back chance 0.1"
        .parse()
        .unwrap();
    store.set_faults(plan);
    for step in 0..=200_u8 {
        let path = format!("p/{}", dice.next_u64() % 20);
        let path = Path::from(path);
        match dice.next_u64() % 4 {
            0 => {
                let body = PutPayload::from(vec![step; 100]);
                timeout(SHORT, store.put(&path, body)).await.map_or_else(drop, drop);
            }
            1 => {
                let read = async { store.get(&path).await?.bytes().await };
                timeout(SHORT, read).await.map_or_else(drop, drop);
            }
            2 => {
                let listed = store.list(None).try_collect::<Vec<_>>();
                timeout(SHORT, listed).await.map_or_else(drop, drop);
            }
            _ => {
                timeout(SHORT, store.delete(&path)).await.map_or_else(drop, drop);
            }
        }
        if step == 100 {
            store.take_snapshot();
        }
    }
    (store.trace_hash(), store.trace().len())
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_trace() {
    let (first, events) = busy_run(11).await;
    assert!(events > 150, "{events}");
    assert_eq!(busy_run(11).await.0, first);
    assert_ne!(busy_run(12).await.0, first);
    let counted = store(1);
    put(&counted, "a/1", b"x").await.unwrap();
    assert_eq!((counted.requests(Op::Put), counted.requests(Op::Get)), (1, 0));
}
