//! Going down, coming back, forgetting.

use super::{client, clouds, get, names, put};
use crate::fault::FaultPlan;
use crate::s3::EmulatorConfig;

#[tokio::test]
async fn down_refuses_and_the_same_port_comes_back_with_everything() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        let store = client(cloud);
        put(&store, "a/1", b"one").await.unwrap();
        let address = cloud.address();
        cloud.set_faults(FaultPlan::down()).unwrap();
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        get(&store, "a/1").await.unwrap_err();
        cloud.set_faults(FaultPlan::honest()).unwrap();
        assert_eq!(cloud.address(), address);
        assert_eq!(get(&client(cloud), "a/1").await.unwrap(), "one");
        cloud.stop().await;
        tokio::net::TcpStream::connect(address).await.unwrap_err();
        cloud.resume().unwrap();
        cloud.resume().unwrap();
        assert_eq!(get(&client(cloud), "a/1").await.unwrap(), "one");
    }
}

#[tokio::test]
async fn a_folder_is_served_again_by_another_emulator() {
    let (folder, [cloud, _]) = clouds().await;
    put(&client(&cloud), "a/1", b"one").await.unwrap();
    let address = cloud.address();
    drop(cloud);
    let again = EmulatorConfig::folder(folder.path()).start().await.unwrap();
    assert_eq!(get(&client(&again), "a/1").await.unwrap(), "one");
    assert_ne!(again.address(), address);
}

#[tokio::test]
async fn snapshots_losses_and_returns() {
    let (_folder, clouds) = clouds().await;
    for cloud in &clouds {
        let store = client(cloud);
        put(&store, "a/1", b"one").await.unwrap();
        cloud.take_snapshot().unwrap();
        put(&store, "a/1", b"new").await.unwrap();
        put(&store, "a/2", b"two").await.unwrap();
        cloud.lose_everything().unwrap();
        assert!(names(&store).await.is_empty());
        cloud.roll_back().unwrap();
        assert_eq!(names(&store).await, ["a/1"]);
        assert_eq!(get(&store, "a/1").await.unwrap(), "one");
        put(&store, "a/1", b"newer").await.unwrap();
        cloud.roll_back().unwrap();
        assert_eq!(get(&store, "a/1").await.unwrap(), "one");
    }
}
