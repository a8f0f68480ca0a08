//! After an account was left with as many accounts as shards: blocks of the log that were as wide as all of them are gone, decisions among them.

use std::time::Duration;

use diaspore_block::key::MasterKey;
use diaspore_engine::api::{Caller, ErrorKind};
use diaspore_engine::{Errand, EvacuateAsked, Relocated};
use diaspore_testkit::FaultPlan;
use diaspore_tests::sim::{Deployment, DiskFate};

use crate::traces::{deployment, engine, get, on_paused_clock, put};

/// Six accounts, six shards, five lives of the service, and then the first account is left. Every life wrote one value; the disk is
/// remembered after the second.
async fn left(seed: u64) -> (Deployment, Caller) {
    let (mut world, caller) = deployment(seed).await;
    assert_eq!((engine(&world).status().k, engine(&world).status().n), (3, 6));
    for life in 0..5 {
        if life > 0 {
            world.crash(DiskFate::Kept);
            world.start(false).await.unwrap();
        }
        put(&engine(&world), &caller, &format!("life {life}"), "value").await.unwrap();
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        if life == 1 {
            world.remember_disk();
        }
    }
    engine(&world).spread_keyring(&MasterKey::from_bytes([9; 32])).await.unwrap();
    let asked = EvacuateAsked { provider: world.stores[0].name().to_owned(), dead: false, dry_run: false, most: None };
    let Relocated::Evacuated(done) = engine(&world).relocate(Errand::Evacuate(asked)).await.unwrap() else { panic!("another answer") };
    assert!(done.certified && done.domains == 5 && done.left == done.control, "{done:?}");
    assert_eq!((engine(&world).status().k, engine(&world).status().n), (2, 5));
    put(&engine(&world), &caller, "later", "value").await.unwrap();
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    world.stores[0].lose_everything();
    world.stores[0].set_faults(FaultPlan::down());
    (world, caller)
}

async fn check(world: &Deployment, caller: &Caller) {
    assert_eq!(engine(world).status().state, "active");
    for key in ["life 0", "life 1", "life 2", "life 3", "life 4", "later"] {
        assert_eq!(get(&engine(world), caller, key).await.unwrap(), b"value", "{key}");
    }
}

fn hide_heads(world: &Deployment, providers: usize) {
    for store in &world.stores[..providers] {
        let prefix = world.names().head_prefix(store.name());
        for (path, _) in store.objects() {
            if path.starts_with(&prefix) {
                store.tamper(&path, None);
            }
        }
    }
}

/// Three more may go or lie: what announces the compacted logs at the last but one or two is enough, from nothing and from a disk that stands below
/// all that is left of the log.
#[test]
fn an_empty_disk_and_one_of_wider_days_find_the_log() {
    on_paused_clock(async {
        for fate in [DiskFate::Lost, DiskFate::RolledBack] {
            let (mut world, caller) = left(1).await;
            hide_heads(&world, 4);
            world.crash(fate);
            world.start(false).await.unwrap();
            check(&world, &caller).await;
        }
    });
}

/// Beyond all that the layout survives: nobody announces a compacted log. Neither start takes what is left for a log that never began.
#[test]
fn without_any_compacted_log_nothing_is_begun_anew() {
    on_paused_clock(async {
        for fate in [DiskFate::Lost, DiskFate::RolledBack] {
            let (mut world, _) = left(2).await;
            hide_heads(&world, 6);
            world.crash(fate);
            let error = world.start(false).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::RefusedState, "{error}");
            assert!(error.message.contains("missing"), "{error}");
        }
    });
}
