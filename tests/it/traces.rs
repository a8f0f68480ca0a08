//! Traces that break weaker protocols (docs/protocol.md names the rules), played against the real engine on a paused clock.
//!
//! Each was a shortest counterexample of the model checker for a rule left out. The comment says which rule, and what the
//! engine without it would do.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use diaspore_engine::api::{Caller, Error, ErrorKind, GetOptions, PutOptions};
use diaspore_engine::config::Mode;
use diaspore_engine::id::Timestamp;
use diaspore_engine::world::{Clock, RuntimeClock};
use diaspore_engine::{CollectAsked, Engine};
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use diaspore_tests::sim::{Deployment, DiskFate};
use futures::{StreamExt, stream};

pub(crate) const BUCKET: &str = "traces";

pub(crate) fn on_paused_clock<F: Future<Output = ()>>(trace: F) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(trace);
}

/// A 3-of-6 deployment with a bucket, serving.
pub(crate) async fn deployment(seed: u64) -> (Deployment, Caller) {
    deployment_under("quickstart", seed).await
}

pub(crate) async fn deployment_under(profile: &str, seed: u64) -> (Deployment, Caller) {
    let mut world = Deployment::new(seed, 6, profile).unwrap();
    world.start(true).await.unwrap();
    let caller = world.caller().await.unwrap();
    engine(&world).create_bucket(&caller, BUCKET).await.unwrap();
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    (world, caller)
}

pub(crate) fn engine(world: &Deployment) -> Engine {
    world.engine.clone().expect("an engine lives")
}

pub(crate) async fn put(engine: &Engine, caller: &Caller, key: &str, text: &'static str) -> Result<(), Error> {
    let body = stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed();
    engine.put_blob(caller, BUCKET, key.as_bytes(), PutOptions::default(), body).await.map(drop)
}

pub(crate) async fn get(engine: &Engine, caller: &Caller, key: &str) -> Result<Vec<u8>, Error> {
    let mut got = engine.get_blob(caller, BUCKET, key.as_bytes(), &GetOptions::default()).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = got.body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn refuse_puts(world: &Deployment, providers: &[usize]) {
    for &provider in providers {
        world.stores[provider].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    }
}

/// C1 and C3. Acknowledged on d0..d3 only, the disk is lost, two of the four are silent: two shards are visible, fewer than k.
/// "Not readable, so void" would drop an acknowledged write in silence; serving meanwhile would show its absence and then its
/// presence. Right: undetermined, nothing served, and all there when they are back (rules 8 and 10).
#[test]
fn c1_silent_domains_never_void_what_was_acknowledged() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(1).await;
        refuse_puts(&world, &[4, 5]);
        put(&engine(&world), &caller, "key", "acknowledged").await.unwrap();
        world.crash(DiskFate::Lost);
        world.heal();
        for silent in [0, 1] {
            world.stores[silent].set_faults(FaultPlan::down());
        }
        world.start(false).await.unwrap();
        assert_ne!(engine(&world).status().state, "active", "the end of the log cannot be known");
        let read = get(&engine(&world), &caller, "key").await.expect_err("nothing is served before the decision");
        assert_eq!(read.kind, ErrorKind::ReadOnly, "{read}");
        world.crash(DiskFate::Lost);
        world.heal();
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"acknowledged");
    });
}

/// C2. A block lies on exactly k domains and was never acknowledged; the next start finds and serves it. Adopting it as it lies
/// would leave a hole in the log as soon as one of the k goes. Right: it is carried over at quorum before anything is decided
/// (rule 10).
#[test]
fn c2_an_adopted_block_survives_the_loss_of_a_domain_that_held_it() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(2).await;
        refuse_puts(&world, &[3, 4, 5]);
        let writing = engine(&world);
        let cut = tokio::time::timeout(Duration::from_secs(5), put(&writing, &caller, "key", "adopted")).await;
        assert!(cut.is_err(), "k shards must not be enough for an acknowledgement: {cut:?}");
        world.crash(DiskFate::Lost);
        world.heal();
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"adopted", "k shards are readable, so it is part of the log");
        // Before anything can settle: the disk again, and one of the three domains that held it.
        world.crash(DiskFate::Lost);
        world.stores[0].lose_everything();
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"adopted");
    });
}

/// Two disks in turn. What the first one had released was carried over by who started from an older copy of it, and its first copies were deleted
/// there as orphans. The first disk comes back: its map named what is gone, and its own collection took for orphans what a recovery looks for.
#[test]
fn a_disk_that_comes_back_reads_what_was_carried_over_without_it() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(18).await;
        put(&engine(&world), &caller, "before", "in both copies of the disk").await.unwrap();
        let older = world.copy_disk();
        put(&engine(&world), &caller, "between", "in the first disk alone").await.unwrap();
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        tokio::time::sleep(Duration::from_mins(1)).await;
        let first = world.copy_disk();

        world.crash_to(older);
        // Seen on too few domains to count as it is, so it is written again.
        for (provider, what) in [(3, Misbehaviour::ErrorBefore), (4, Misbehaviour::ErrorBefore), (5, Misbehaviour::Flip { bits: 3 })] {
            world.stores[provider].set_faults(FaultPlan::from(Fault::always(what).on(&[Op::Get])));
        }
        for disk in [None, Some(first)] {
            let comes_back = disk.is_some();
            if let Some(disk) = disk {
                world.crash_to(disk);
            }
            world.start(false).await.unwrap();
            world.heal();
            engine(&world).settle_wait(Duration::from_mins(10)).await.unwrap();
            let collected = engine(&world).collect(CollectAsked { now: true, ..CollectAsked::default() }).await.unwrap();
            let orphans: u64 = collected.providers.values().map(|found| found.deleted).sum();
            assert!(comes_back || orphans > 0, "the first copies are no part of the log any more: {collected:?}");
            for (key, text) in [("before", "in both copies of the disk"), ("between", "in the first disk alone")] {
                assert_eq!(get(&engine(&world), &caller, key).await.unwrap(), text.as_bytes(), "{key}");
            }
        }
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "between").await.unwrap(), b"in the first disk alone");
    });
}

/// C7. A disk rolled back to an earlier state looks like one that was kept. Taking the end of its journal for the end of the log
/// would drop what was acknowledged since. Right: the journal adds content, its end proves nothing (rule 9).
#[test]
fn c7_a_rolled_back_disk_catches_up() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(3).await;
        put(&engine(&world), &caller, "early", "one").await.unwrap();
        world.remember_disk();
        put(&engine(&world), &caller, "late", "two").await.unwrap();
        put(&engine(&world), &caller, "early", "three").await.unwrap();
        world.crash(DiskFate::RolledBack);
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "late").await.unwrap(), b"two");
        assert_eq!(get(&engine(&world), &caller, "early").await.unwrap(), b"three");
    });
}

/// C8. The bulk block of an undecided write must not be deleted as an orphan. This version deletes nothing at providers but
/// old claims; the trace checks that no DELETE is ever sent.
#[test]
fn c8_nothing_is_deleted_at_providers() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(4).await;
        put(&engine(&world), &caller, "key", "one").await.unwrap();
        put(&engine(&world), &caller, "key", "two").await.unwrap();
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert!(world.stores.iter().all(|store| store.requests(Op::Delete) == 0));
    });
}

/// C10 and C11. The old writer's requests are slow; a successor claims, reads and decides; then they land. The old writer must
/// not acknowledge them: it lists the claims after its k + 1 acknowledgements, or its lease has run out (rule 6).
#[test]
fn c10_a_paused_writer_acknowledges_nothing_after_its_successor_decided() {
    on_paused_clock(async {
        let (world, caller) = deployment(5).await;
        let old = engine(&world);
        let slow = Misbehaviour::Latency { fixed: Duration::from_secs(8), jitter: Duration::ZERO };
        for store in &world.stores {
            store.set_faults(FaultPlan::from(Fault::next(slow, 1).on(&[Op::Put])));
        }
        let (writer, owner) = (old.clone(), caller.clone());
        let late = tokio::spawn(async move { put(&writer, &owner, "key", "from the past").await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.heal();
        let disk = MemoryMedium::new();
        let new = world.start_on(&disk, Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
        let outcome = late.await.unwrap();
        let seen = get(&new, &caller, "key").await;
        assert!(outcome.is_err() || seen.is_ok(), "acknowledged by the old writer, unknown to the new one");
        assert!(put(&old, &caller, "key", "again").await.is_err(), "the old writer is fenced");
    });
}

/// C9. Two of six domains are down under 4-of-6: the service steps down to 2-of-4 on the rest. A write is acknowledged by three of
/// the four, one of which lies; then the disk and two more are gone. No shard is visible and two homes are silent: with the
/// policy's k = 4 assumed that is "never acknowledged". Right: the k floor and the homes of that incarnation's claim count
/// (rules 5, 8 and 11).
#[test]
fn c9_a_narrow_incarnation_is_judged_by_its_own_k_floor() {
    on_paused_clock(async {
        let (mut world, caller) = deployment_under("low-overhead", 9).await;
        stepped_down(&world, &[4, 5]).await;
        refuse_puts(&world, &[3]);
        world.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
        put(&engine(&world), &caller, "key", "acknowledged").await.unwrap();
        world.crash(DiskFate::Lost);
        world.heal();
        for silent in [1, 2] {
            world.stores[silent].set_faults(FaultPlan::down());
        }
        let started = world.start(false).await;
        let state = world.engine.as_ref().map(|engine| engine.status().state);
        assert!(started.is_err() || state.as_deref() != Some("active"), "voided in silence: {state:?}");
        world.crash(DiskFate::Lost);
        world.heal();
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"acknowledged");
    });
}

/// Takes providers down until the service writes in a narrower layout.
async fn stepped_down(world: &Deployment, down: &[usize]) {
    for &provider in down {
        world.stores[provider].set_faults(FaultPlan::down());
    }
    wait_for_a_narrower_layout(world).await;
}

async fn wait_for_a_narrower_layout(world: &Deployment) {
    let before = engine(world).status().epoch;
    let caller = world.caller().await.unwrap();
    for attempt in 0..60 {
        let name = format!("probe-{attempt}");
        let made = tokio::time::timeout(Duration::from_secs(30), engine(world).create_bucket(&caller, &name)).await;
        if engine(world).status().epoch > before && matches!(made, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("the service did not step down: {:?}", engine(world).status());
}

/// With two of six down, 4-of-6 cannot gather k + 1 = 5: the service supersedes itself and writes on, and takes up the full
/// layout when they are back. Reads go on all the time, and nothing acknowledged in any layout is lost.
#[test]
fn a_service_steps_down_and_up_again() {
    on_paused_clock(async {
        steps_down_and_up(&FaultPlan::down()).await;
    });
}

/// The same with two accounts over their quota, or under a key that may only read: they answer every question and take nothing. The
/// restart in between finds out only by its claim, which they list and do not take.
#[test]
fn a_service_steps_down_from_accounts_that_refuse_writes() {
    for what in [Misbehaviour::Full, Misbehaviour::Denied, Misbehaviour::ErrorBefore] {
        on_paused_clock(async move {
            steps_down_and_up(&FaultPlan::from(Fault::always(what).on(&[Op::Put]))).await;
        });
    }
}

async fn steps_down_and_up(plan: &FaultPlan) {
    let (mut world, caller) = deployment_under("low-overhead", 10).await;
    put(&engine(&world), &caller, "before", "full").await.unwrap();
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    for refusing in [1, 2] {
        world.stores[refusing].set_faults(plan.clone());
    }
    wait_for_a_narrower_layout(&world).await;
    assert_eq!(get(&engine(&world), &caller, "before").await.unwrap(), b"full");
    put(&engine(&world), &caller, "during", "narrow").await.unwrap();
    let narrow = engine(&world).status().epoch;
    // A restart with the two still down decides by itself: their silence says nothing about the narrow incarnation.
    world.crash(DiskFate::Lost);
    world.start(false).await.unwrap();
    assert_eq!(engine(&world).status().state, "active");
    assert_eq!(get(&engine(&world), &caller, "during").await.unwrap(), b"narrow");
    world.heal();
    let mut full = engine(&world).status().epoch;
    for _ in 0..120 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        full = engine(&world).status().epoch;
        if full > narrow + 1 {
            break;
        }
    }
    assert!(full > narrow + 1, "the full layout was not taken up again");
    put(&engine(&world), &caller, "after", "full again").await.unwrap();
    let settled = engine(&world).settle_wait(Duration::from_mins(2)).await.unwrap();
    assert_eq!(settled.unsettled_blocks, 0);
    world.crash(DiskFate::Lost);
    for lost in [0, 3] {
        world.stores[lost].lose_everything();
    }
    world.start(false).await.unwrap();
    for (key, text) in [("before", "full"), ("during", "narrow"), ("after", "full again")] {
        assert_eq!(get(&engine(&world), &caller, key).await.unwrap(), text.as_bytes());
    }
}

/// A start that cannot decide tries again as domains come back, without being started anew.
#[test]
fn an_undetermined_start_decides_once_domains_are_back() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(11).await;
        put(&engine(&world), &caller, "key", "text").await.unwrap();
        world.crash(DiskFate::Kept);
        for silent in [0, 1, 2] {
            world.stores[silent].set_faults(FaultPlan::down());
        }
        world.start(false).await.unwrap();
        assert_ne!(engine(&world).status().state, "active");
        world.heal();
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(engine(&world).status().state, "active");
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"text");
    });
}

/// The clock that a lease is counted on, as machines have it.
#[derive(Debug)]
struct LeaseClock {
    runtime: RuntimeClock,
    kind: Suspend,
    stands_at: Mutex<Option<Duration>>,
}

/// What the clock does while its machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspend {
    RunsThrough,
    StandsStill,
    HasNone,
}

impl Clock for LeaseClock {
    fn now(&self) -> Timestamp {
        self.runtime.now()
    }

    fn boot_time(&self) -> Option<Duration> {
        let stands_at = *self.stands_at.lock().unwrap();
        if self.kind == Suspend::HasNone { None } else { stands_at.or_else(|| self.runtime.boot_time()) }
    }
}

/// C12. A writer sleeps while its successor claims and decides. On a clock that stood still its lease holds when it wakes, and it
/// acknowledges what the successor does not know: the last round shows it. Right: a clock that runs through suspend, or a look
/// at the claims for every release where there is none (rule 6).
#[test]
fn c12_a_suspended_writer_does_not_trust_its_lease() {
    for kind in [Suspend::RunsThrough, Suspend::HasNone, Suspend::StandsStill] {
        on_paused_clock(async {
            let (mut world, caller) = deployment(12).await;
            let runtime = RuntimeClock::starting_at(Timestamp(1_800_000_000_000));
            let clock = Arc::new(LeaseClock { runtime, kind, stands_at: Mutex::new(None) });
            world.crash(DiskFate::Kept);
            world.set_clock(Arc::<LeaseClock>::clone(&clock));
            world.start(false).await.unwrap();
            let old = engine(&world);
            put(&old, &caller, "early", "one").await.unwrap();
            if kind == Suspend::StandsStill {
                *clock.stands_at.lock().unwrap() = clock.runtime.boot_time();
            }
            world.set_clock(Arc::new(runtime));
            let new = world.start_on(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
            let woken = put(&old, &caller, "late", "two").await;
            assert!(get(&new, &caller, "late").await.is_err(), "the successor decided before");
            assert_eq!(woken.is_ok(), kind == Suspend::StandsStill, "{kind:?}: {woken:?}");
        });
    }
}

/// The first copies of carried-over blocks stand in when the second ones are gone. A writer's blocks are carried over at quorum by
/// a successor whose disk is then lost; the disk of the first comes back, and the service settles the copies that it knows. Then
/// two holders of the second copies and the disk go.
#[test]
fn a_carried_block_is_read_from_its_first_copy() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(13).await;
        refuse_puts(&world, &[4, 5]);
        put(&engine(&world), &caller, "key", "carried").await.unwrap();
        world.remember_disk();
        world.crash(DiskFate::Lost);
        world.heal();
        // Seen on k domains only, so the successor carries it over; its copies reach exactly k + 1.
        world.stores[0].set_faults(FaultPlan::down());
        refuse_puts(&world, &[5]);
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"carried");
        world.crash(DiskFate::RolledBack);
        world.heal();
        world.start(false).await.unwrap();
        engine(&world).settle_wait(Duration::from_mins(2)).await.unwrap();
        world.crash(DiskFate::Lost);
        for lost in [1, 2] {
            world.stores[lost].lose_everything();
        }
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"carried");
    });
}

/// C13, C14. Claims are write-once and enumerated: after several writers, the highest epoch rules and each start is one more.
#[test]
fn c13_every_start_is_a_higher_epoch() {
    on_paused_clock(async {
        let (mut world, _) = deployment(6).await;
        let mut last = engine(&world).status().epoch;
        for fate in [DiskFate::Kept, DiskFate::Lost, DiskFate::Kept] {
            world.crash(fate);
            world.start(false).await.unwrap();
            let epoch = engine(&world).status().epoch;
            assert!(epoch > last, "{epoch} after {last}");
            last = epoch;
        }
    });
}

/// One lie among k + 1 acknowledgements and the disk gone: k real shards are left, and nothing acknowledged is lost (rule 13).
#[test]
fn c6_one_lie_among_the_acknowledgements_is_survived() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(7).await;
        refuse_puts(&world, &[4, 5]);
        world.stores[0].set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
        put(&engine(&world), &caller, "key", "three real shards").await.unwrap();
        world.crash(DiskFate::Lost);
        world.heal();
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "key").await.unwrap(), b"three real shards");
    });
}
