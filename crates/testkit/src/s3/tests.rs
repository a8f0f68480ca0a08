//! The client of `object_store` against the emulator: conformance here, misbehaviour and the socket's life in modules.

mod faults;
mod lifecycle;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, integration,
};

use super::{EmulatorConfig, EmulatorHandle};

fn client_with(cloud: &EmulatorHandle, secret: &str, unsigned_payload: bool) -> AmazonS3 {
    let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(20));
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    AmazonS3Builder::new()
        .with_endpoint(cloud.endpoint())
        .with_virtual_hosted_style_request(false)
        .with_region("us-east-1")
        .with_bucket_name("shards")
        .with_access_key_id("id")
        .with_secret_access_key(secret)
        .with_unsigned_payload(unsigned_payload)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .unwrap()
}

fn client(cloud: &EmulatorHandle) -> AmazonS3 {
    client_with(cloud, "secret", true)
}

/// Both backings, each with its bucket and key; the folder lives as long as the guard.
async fn clouds() -> (tempfile::TempDir, [EmulatorHandle; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let started = [EmulatorConfig::folder(folder.path()), EmulatorConfig::memory()]
        .map(|config| config.with_bucket("shards").with_credentials("id", "secret").with_seed(7).start());
    let [on_disk, in_memory] = started;
    (folder, [on_disk.await.unwrap(), in_memory.await.unwrap()])
}

async fn put(store: &AmazonS3, path: &str, bytes: &'static [u8]) -> Result<(), Error> {
    let stored = store.put(&Path::from(path), PutPayload::from_static(bytes)).await;
    stored.map(drop)
}

async fn get(store: &AmazonS3, path: &str) -> Result<Bytes, Error> {
    store.get(&Path::from(path)).await?.bytes().await
}

async fn names(store: &AmazonS3) -> Vec<String> {
    let found: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut names: Vec<_> = found.into_iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn object_store_s_own_suite_passes() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        // Each check wants an empty bucket or cleans up for itself; some leave objects behind.
        let store = client(cloud);
        integration::put_get_delete_list(&store).await;
        integration::get_opts(&store).await;
        integration::put_opts(&store, true).await;
        cloud.lose_everything().unwrap();
        integration::stream_get(&store).await;
        cloud.lose_everything().unwrap();
        integration::list_uses_directories_correctly(&store).await;
        integration::list_with_delimiter(&store).await;
        integration::list_with_offset_exclusivity(&store).await;
        integration::list_paginated(&store, &store).await;
        integration::rename_and_copy(&store).await;
        integration::multipart(&store, &store).await;
        integration::multipart_put_part_out_of_order(&store, &store).await;
        integration::multipart_out_of_order(&store).await;
        integration::multipart_race_condition(&store, true).await;
        let missing = integration::get_nonexistent_object(&store, None).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
    }
}

#[tokio::test]
async fn large_objects_and_ranges_come_back_with_signed_payloads() {
    let (_folder, clouds) = clouds().await;
    let large: Vec<u8> = (0..5_000_011_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let large = Bytes::from(large);
    for cloud in &clouds {
        let store = client_with(cloud, "secret", false);
        let path = Path::from("ab/large");
        store.put(&path, PutPayload::from(large.clone())).await.unwrap();
        assert_eq!(get(&store, "ab/large").await.unwrap(), large);
        for (start, end) in [(0_u32, 1_u32), (700_000, 1_300_001), (4_999_999, 5_000_011)] {
            let range = u64::from(start)..u64::from(end);
            let part = store.get_range(&path, range).await.unwrap();
            let cut = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            assert_eq!(part, large.slice(cut));
        }
        let counters = cloud.counters();
        assert_eq!((counters.puts, counters.gets, counters.errors), (1, 4, 0));
        assert_eq!(counters.bytes_in, 5_000_011);
        assert_eq!(counters.bytes_out, 5_000_011 + 1 + 600_001 + 12);
        assert_eq!(cloud.stored().unwrap(), (1, 5_000_011));
    }
}

#[tokio::test]
async fn of_sixteen_racing_creates_one_wins() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        for round in 0..8 {
            let path = Path::from(format!("claims/{round}"));
            let racing = (0..16_u8).map(|racer| {
                let (store, path) = (client(cloud), path.clone());
                async move {
                    let options = PutOptions::from(PutMode::Create);
                    let payload = PutPayload::from(vec![racer; 2000]);
                    (racer, store.put_opts(&path, payload, options).await)
                }
            });
            let ended = join_all(racing).await;
            let winners: Vec<u8> = ended.iter().filter_map(|(racer, ended)| ended.is_ok().then_some(*racer)).collect();
            assert_eq!(winners.len(), 1, "{winners:?}");
            let refused = |ended: &Result<_, Error>| matches!(ended, Err(Error::AlreadyExists { .. }));
            assert_eq!(ended.iter().filter(|(_, ended)| refused(ended)).count(), 15);
            let stored = client(cloud).get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(stored, vec![winners[0]; 2000]);
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_key_are_denied() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        put(&client(cloud), "a/b", b"content").await.unwrap();
        let stranger = client_with(cloud, "guess", true);
        for denied in [put(&stranger, "a/c", b"x").await, get(&stranger, "a/b").await.map(drop)] {
            let denied = denied.unwrap_err();
            assert!(matches!(denied, Error::PermissionDenied { .. }), "{denied:?}");
        }
        assert_eq!(names(&client(cloud)).await, ["a/b"]);
        let anonymous = reqwest::get(format!("{}/shards/a/b", cloud.endpoint())).await.unwrap();
        assert_eq!(anonymous.status(), 403);
    }
}

#[tokio::test]
async fn objects_are_plain_files_below_the_bucket() {
    let (folder, [cloud, _]) = clouds().await;
    put(&client(&cloud), "ab/0123", b"content").await.unwrap();
    let file = folder.path().join("shards/ab/0123");
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    client(&cloud).delete(&Path::from("ab/0123")).await.unwrap();
    assert!(!folder.path().join("shards/ab").exists());
    assert_eq!(std::fs::read_dir(folder.path().join(".incoming")).unwrap().count(), 0);
    let conditional = GetOptions { if_match: Some("\"none\"".to_owned()), ..GetOptions::default() };
    put(&client(&cloud), "ab/4", b"content").await.unwrap();
    let refused = client(&cloud).get_opts(&Path::from("ab/4"), conditional).await;
    assert!(matches!(refused, Err(Error::Precondition { .. })));
}
