//! Each misbehaviour does what its name says.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutPayload};
use tokio::time::{Instant, timeout};

use super::{client, clouds, get, names, put};
use crate::fault::{Fault, FaultPlan, Misbehaviour, Op};
use crate::s3::EmulatorHandle;

/// Longer than anything honest takes here, shorter than the client's own limit.
const PATIENCE: Duration = Duration::from_millis(300);

fn set(cloud: &EmulatorHandle, what: Misbehaviour) {
    cloud.set_faults(Fault::always(what).into()).unwrap();
}

fn once(cloud: &EmulatorHandle, what: Misbehaviour) {
    cloud.set_faults(Fault::next(what, 1).into()).unwrap();
}

#[tokio::test]
async fn errors_before_after_and_dropped_writes() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        let store = client(cloud);
        once(cloud, Misbehaviour::ErrorBefore);
        put(&store, "a/1", b"one").await.unwrap_err();
        assert!(names(&store).await.is_empty());
        once(cloud, Misbehaviour::ErrorAfter);
        put(&store, "a/1", b"one").await.unwrap_err();
        assert_eq!(get(&store, "a/1").await.unwrap(), "one");
        once(cloud, Misbehaviour::DroppedWrite);
        put(&store, "a/2", b"two").await.unwrap();
        assert!(matches!(get(&store, "a/2").await, Err(Error::NotFound { .. })));
        once(cloud, Misbehaviour::Full);
        let full = put(&store, "a/2", b"two").await.unwrap_err().to_string();
        assert!(full.contains("507"), "{full}");
        set(cloud, Misbehaviour::Denied);
        let denied = get(&store, "a/1").await.unwrap_err();
        assert!(matches!(denied, Error::PermissionDenied { .. }), "{denied:?}");
    }
}

#[tokio::test]
async fn lies_about_content() {
    let (_folder, clouds) = clouds().await;
    let honest = Bytes::from(vec![9_u8; 700_000]);
    for cloud in &clouds {
        let store = client(cloud);
        store.put(&Path::from("a/1"), PutPayload::from(honest.clone())).await.unwrap();
        put(&store, "a/2", b"other").await.unwrap();
        set(cloud, Misbehaviour::Flip { bits: 3 });
        let flipped = get(&store, "a/1").await.unwrap();
        let bits: u32 = flipped.iter().zip(&honest).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((flipped.len(), bits), (700_000, 3));
        set(cloud, Misbehaviour::Truncate);
        assert!(get(&store, "a/1").await.unwrap().len() < 700_000);
        set(cloud, Misbehaviour::Swap);
        assert_eq!(get(&store, "a/1").await.unwrap(), "other");
        assert_eq!(get(&store, "a/2").await.unwrap(), honest);
        set(cloud, Misbehaviour::EndlessBody);
        let mut endless = store.get(&Path::from("a/1")).await.unwrap().into_stream();
        let mut seen = 0;
        while seen < 1 << 25 {
            seen += endless.try_next().await.unwrap().unwrap().len();
        }
    }
}

#[tokio::test]
async fn old_states_and_stale_lists() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        let store = client(cloud);
        put(&store, "a/1", b"one").await.unwrap();
        cloud.take_snapshot().unwrap();
        put(&store, "a/1", b"new").await.unwrap();
        put(&store, "a/2", b"two").await.unwrap();
        set(cloud, Misbehaviour::RollBack);
        assert_eq!(get(&store, "a/1").await.unwrap(), "one");
        assert!(matches!(get(&store, "a/2").await, Err(Error::NotFound { .. })));
        assert_eq!(names(&store).await, ["a/1"]);
        set(cloud, Misbehaviour::StaleList { behind: 1 });
        assert_eq!(names(&store).await, ["a/1"]);
        store.delete(&Path::from("a/1")).await.unwrap();
        assert_eq!(names(&store).await, ["a/1", "a/2"]);
        cloud.set_faults(FaultPlan::honest()).unwrap();
        assert_eq!(names(&store).await, ["a/2"]);
    }
}

#[tokio::test]
async fn connections_that_reset_or_fall_silent() {
    let (_folder, clouds) = clouds().await;
    let large = Bytes::from(vec![7_u8; 3_000_000]);
    for cloud in &clouds {
        let store = client(cloud);
        store.put(&Path::from("a/1"), PutPayload::from(large.clone())).await.unwrap();
        set(cloud, Misbehaviour::Reset);
        for _ in 0..6 {
            get(&store, "a/1").await.unwrap_err();
        }
        set(cloud, Misbehaviour::Freeze);
        timeout(PATIENCE, put(&store, "a/2", b"two")).await.unwrap_err();
        set(cloud, Misbehaviour::FreezeMidBody);
        timeout(PATIENCE, get(&store, "a/1")).await.unwrap_err();
        timeout(PATIENCE, put(&store, "a/3", b"three")).await.unwrap_err();
        cloud.set_faults(FaultPlan::honest()).unwrap();
        assert_eq!(names(&store).await, ["a/1", "a/3"]);
        // A frozen request ends with the plug.
        set(cloud, Misbehaviour::Freeze);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { get(&store, "a/1").await }
        });
        while cloud.counters().gets < 8 {
            tokio::task::yield_now().await;
        }
        cloud.kill();
        waiting.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn late_writes_land_after_the_client_and_the_listener_are_gone() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        let store = client(cloud);
        once(cloud, Misbehaviour::LandLate { within: Duration::from_millis(400) });
        timeout(Duration::from_millis(1), put(&store, "a/1", b"late")).await.ok();
        let sent = timeout(PATIENCE, put(&store, "a/1", b"late")).await;
        cloud.kill();
        cloud.resume().unwrap();
        cloud.set_faults(FaultPlan::honest()).unwrap();
        let patient = async {
            while get(&client(cloud), "a/1").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), patient).await.unwrap();
        drop(sent);
    }
}

#[tokio::test]
async fn time_is_spent_as_the_plan_says() {
    let (_folder, [cloud, _]) = clouds().await;
    let store = client(&cloud);
    let elapsed = async |path: &str, len: usize| {
        let start = Instant::now();
        store.put(&Path::from(path), PutPayload::from(vec![1; len])).await.unwrap();
        get(&store, path).await.unwrap();
        start.elapsed()
    };
    let fixed = Duration::from_millis(40);
    set(&cloud, Misbehaviour::Latency { fixed, jitter: Duration::ZERO });
    assert!(elapsed("a/1", 10).await >= 2 * fixed);
    set(&cloud, Misbehaviour::Bandwidth { bytes_per_s: 1_000_000 });
    assert!(elapsed("a/2", 100_000).await >= Duration::from_millis(190));
    let drip = Misbehaviour::Drip { bytes: 10, every: Duration::from_millis(10) };
    cloud.set_faults(Fault::always(drip).on(&[Op::Get]).into()).unwrap();
    assert!(elapsed("a/3", 100).await >= Duration::from_millis(90));
}
