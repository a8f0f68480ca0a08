//! Compacted logs: recovery begins from them and needs nothing below, with providers gone, heads hidden, the disk rolled back, an install
//! broken off; and what must not happen: traces C15 to C19 of the model checker.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diaspore_engine::api::{Caller, Error, ErrorKind, Precondition, PutOptions};
use diaspore_engine::config::Mode;
use diaspore_engine::id::{Attempt, Counter, IncarnationId};
use diaspore_engine::{CheckpointReport, CollectAsked, Engine};
use diaspore_ledger::{BaseStep, JournalEntry, MemoryMedium};
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use diaspore_tests::sim::{Deployment, DiskFate};
use futures::{StreamExt, stream};

use crate::traces::{BUCKET, deployment, engine, get, on_paused_clock, put};

/// Objects by provider.
type Objects = Vec<BTreeSet<String>>;

fn objects(world: &Deployment) -> Objects {
    let paths = |store: &HostileStore| store.objects().into_iter().map(|(path, _)| path).collect();
    world.stores.iter().map(paths).collect()
}

/// A 3-of-6 deployment that does nothing but name buckets: its blocks are commit blocks. Gives what was there when it had decided.
async fn named(seed: u64) -> (Deployment, Caller, Objects) {
    let mut world = Deployment::new(seed, 6, "quickstart").unwrap();
    world.start(true).await.unwrap();
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    let decided = objects(&world);
    let caller = world.caller().await.unwrap();
    (world, caller, decided)
}

async fn name(world: &Deployment, caller: &Caller, from: u32, count: u32) {
    for number in from..from + count {
        engine(world).create_bucket(caller, &format!("bucket-{number}")).await.unwrap();
    }
}

async fn names(engine: &Engine, caller: &Caller) -> usize {
    engine.list_buckets(caller).await.unwrap().len()
}

/// Checkpoints, with the clock's help.
async fn checkpoint(world: &Deployment) -> CheckpointReport {
    tokio::time::timeout(Duration::from_mins(5), engine(world).checkpoint_log()).await.expect("in time").unwrap()
}

/// What the collector will do to commit blocks below a checkpoint: shards that stood there before it go, decisions stay.
fn collect(world: &Deployment, before: &Objects, decided: &Objects) -> usize {
    let mut gone = 0;
    for ((store, before), decided) in world.stores.iter().zip(before).zip(decided) {
        // Claims, heads and keyrings stand below a prefix of sixteen digits.
        for path in before.difference(decided).filter(|path| path.find('/') == Some(2)) {
            store.tamper(path, None);
            gone += 1;
        }
    }
    gone
}

fn heads(world: &Deployment) -> Vec<usize> {
    let names = world.names();
    let of = |store: &HostileStore| {
        let prefix = names.head_prefix(store.name());
        store.objects().iter().filter(|(path, _)| path.starts_with(&prefix)).count()
    };
    world.stores.iter().map(of).collect()
}

fn hide_heads(world: &Deployment, providers: impl Iterator<Item = usize>) {
    for at in providers {
        let prefix = world.names().head_prefix(world.stores[at].name());
        for (path, _) in world.stores[at].objects() {
            if path.starts_with(&prefix) {
                world.stores[at].tamper(&path, None);
            }
        }
    }
}

/// A log whose beginning was collected below two checkpoints, with more behind them. Fourteen buckets.
async fn collected(seed: u64) -> (Deployment, Caller, Objects) {
    let (world, caller, decided) = named(seed).await;
    name(&world, &caller, 0, 6).await;
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    let below = objects(&world);
    let first = checkpoint(&world).await;
    name(&world, &caller, 6, 4).await;
    let second = checkpoint(&world).await;
    assert!(second.covers > first.covers && second.heads == 6, "{second:?}");
    name(&world, &caller, 10, 4).await;
    engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
    assert!(collect(&world, &below, &decided) >= 6 * 6);
    (world, caller, decided)
}

#[test]
fn recovery_needs_nothing_below_its_checkpoint() {
    on_paused_clock(async {
        let (mut world, caller, decided) = collected(1).await;
        // Not even the decision: the chain is known from the checkpoint on.
        let none: Objects = decided.iter().map(|_| BTreeSet::new()).collect();
        collect(&world, &decided, &none);
        let before = engine(&world).audit_totals().unwrap();
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert_eq!(engine(&world).status().state, "active");
        assert_eq!(names(&engine(&world), &caller).await, 14);
        assert!(engine(&world).audit_totals().unwrap().total > before.total, "the log goes on");
        // It writes, checkpoints again on the parts it found, and comes back once more; generations beyond two are forgotten.
        name(&world, &caller, 14, 3).await;
        let third = checkpoint(&world).await;
        assert!(third.heads == 6);
        assert_eq!(heads(&world), [2; 6]);
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 17);
        // Its own journal brings the ledger back without any provider: a restart over the same disk.
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 17);
    });
}

/// Every set of n - k providers may be gone for good: what is left serves, read-only where too few are left to commit.
#[test]
fn recovery_works_with_every_three_of_six_gone() {
    on_paused_clock(async {
        let (mut world, caller, _) = collected(2).await;
        world.crash(DiskFate::Lost);
        for store in &world.stores {
            store.take_snapshot();
        }
        for gone in (0..6usize).flat_map(|a| (a + 1..6).flat_map(move |b| (b + 1..6).map(move |c| [a, b, c]))) {
            for at in gone {
                world.stores[at].set_faults(FaultPlan::down());
            }
            let lost = gone.iter().map(|at| format!("memory/{}", world.stores[*at].name())).collect();
            let engine = world.start_on(&MemoryMedium::new(), Mode::Recover { declare_lost: lost }).await.unwrap();
            assert_eq!(names(&engine, &caller).await, 14, "without {gone:?}: {:?}", engine.status());
            engine.abort();
            world.heal();
            // What one recovery left, a claim on the three that were there, is not for the next.
            for store in &world.stores {
                store.roll_back();
            }
        }
    });
}

/// f domains hide their heads or do not list at all, and a fourth has lost its own: the ones that are left are enough.
#[test]
fn a_single_honest_head_is_found() {
    on_paused_clock(async {
        let (mut world, caller, _) = collected(3).await;
        world.crash(DiskFate::Lost);
        hide_heads(&world, 0..4);
        world.stores[4].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::List])));
        world.start(false).await.unwrap();
        assert_eq!(engine(&world).status().state, "active");
        assert_eq!(names(&engine(&world), &caller).await, 14);
        // They are put again where they are missing.
        world.heal();
        tokio::time::sleep(Duration::from_mins(31)).await;
        assert_eq!(heads(&world), [2; 6]);
    });
}

/// Without any head the log cannot be read from its beginning, and that is said: it is never taken for one that never began.
#[test]
fn without_heads_a_collected_log_is_refused() {
    on_paused_clock(async {
        let (mut world, _, _) = collected(4).await;
        world.crash(DiskFate::Lost);
        hide_heads(&world, 0..6);
        let refused = world.start(false).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::RefusedState, "{refused}");
        assert!(refused.message.contains("missing"), "{refused}");
    });
}

/// The newest checkpoint cannot be read any more: the one before it and the log behind that serve.
#[test]
fn the_older_generation_stands_in() {
    on_paused_clock(async {
        let (world, caller, decided) = named(5).await;
        name(&world, &caller, 0, 6).await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        let below = objects(&world);
        checkpoint(&world).await;
        name(&world, &caller, 6, 4).await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        let between = objects(&world);
        let second = checkpoint(&world).await;
        collect(&world, &below, &decided);
        // Whatever was written with the second checkpoint is damaged: its parts and root, and records behind it.
        let names_of = world.names();
        for (store, between) in world.stores.iter().zip(&between) {
            let prefix = names_of.head_prefix(store.name());
            for (path, bytes) in store.objects() {
                if !between.contains(&path) && !path.starts_with(&prefix) && bytes.len() >= 4096 && is_part(&world, store, &path, second) {
                    store.tamper(&path, None);
                }
            }
        }
        let mut world = world;
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 10);
    });
}

/// Whether a path is one of the bulk names of the living incarnation: parts and roots, in a deployment without data.
fn is_part(world: &Deployment, store: &HostileStore, path: &str, of: CheckpointReport) -> bool {
    let digits: String = engine(world).status().incarnation.chars().filter(char::is_ascii_hexdigit).collect();
    let incarnation = IncarnationId::from_bytes(u128::from_str_radix(&digits, 16).unwrap().to_be_bytes());
    let bulk = |counter| world.names().bulk(store.name(), incarnation, Counter(counter), Attempt(0));
    (0..64 + of.parts).any(|counter| bulk(counter).as_str() == path)
}

/// A disk rolled back below what is left of the log takes the checkpoint in place of its own state.
#[test]
fn a_disk_rolled_back_below_the_checkpoints_catches_up() {
    on_paused_clock(async {
        let (mut world, caller, decided) = named(6).await;
        name(&world, &caller, 0, 3).await;
        world.remember_disk();
        name(&world, &caller, 3, 3).await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        let below = objects(&world);
        checkpoint(&world).await;
        name(&world, &caller, 6, 2).await;
        checkpoint(&world).await;
        collect(&world, &below, &decided);
        world.crash(DiskFate::RolledBack);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 8);
        name(&world, &caller, 8, 1).await;
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 9);
    });
}

/// Providers that stop answering for a moment, wherever in a recovery that falls: what is not there now is not gone.
#[test]
fn a_moment_of_silence_is_no_loss() {
    on_paused_clock(async {
        let (mut world, caller, _) = collected(11).await;
        for requests in [3, 4, 5, 6, 8, 12, 20] {
            world.crash(DiskFate::Lost);
            for store in &world.stores[..4] {
                store.set_faults(FaultPlan::from(Fault::next(Misbehaviour::ErrorBefore, requests).on(&[Op::Get])));
            }
            let started = world.start(false).await;
            started.unwrap_or_else(|error| panic!("with {requests} requests unanswered: {error}"));
            world.heal();
            let began = tokio::time::Instant::now();
            while engine(&world).status().state != "active" {
                assert!(began.elapsed() < Duration::from_hours(1), "with {requests}: {}", engine(&world).status().state);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            assert_eq!(names(&engine(&world), &caller).await, 14);
        }
    });
}

/// A disk that holds another history than the checkpoint is a fork: refused, and the disk stays as it was.
#[test]
fn a_disk_with_another_history_is_refused() {
    on_paused_clock(async {
        let (mut world, caller, _) = named(7).await;
        for store in &world.stores {
            store.take_snapshot();
        }
        let start = world.copy_disk();
        name(&world, &caller, 0, 2).await;
        let other = world.copy_disk();
        // Everything goes back, and another history is written.
        world.crash(DiskFate::Lost);
        for store in &world.stores {
            store.roll_back();
        }
        let second = world.start_on(&start, Mode::Start).await.unwrap();
        world.adopt(second, start);
        name(&world, &caller, 100, 5).await;
        checkpoint(&world).await;
        checkpoint(&world).await;
        world.crash(DiskFate::Kept);
        let refused = world.start_on(&other, Mode::Start).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::RefusedState);
        assert!(refused.message.contains("fork"), "{refused}");
        let kept = world.start_on(&other, Mode::ReadOnly).await.unwrap();
        assert_eq!(names(&kept, &caller).await, 2, "nothing was taken from the disk");
    });
}

/// A disk on which an install broke off, an empty one and one that held a state, takes nothing but another install.
#[test]
fn an_install_that_broke_off_is_begun_again() {
    on_paused_clock(async {
        let (mut world, caller, _) = collected(8).await;
        world.crash(DiskFate::Kept);
        for disk in [MemoryMedium::new(), world.copy_disk()] {
            let ledger = world.ledger_on(&disk);
            ledger.append(JournalEntry::Base(BaseStep::Begin)).unwrap();
            ledger.sync().unwrap();
            drop(ledger);
            let engine = world.start_on(&disk, Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
            assert_eq!(names(&engine, &caller).await, 14);
            engine.shutdown().await.unwrap();
        }
        // Where no compacted log is left, the log is read from its beginning, if that is there.
        let (mut world, caller, _) = named(9).await;
        name(&world, &caller, 0, 3).await;
        world.crash(DiskFate::Lost);
        let disk = MemoryMedium::new();
        world.ledger_on(&disk).append(JournalEntry::Base(BaseStep::Begin)).unwrap();
        let engine = world.start_on(&disk, Mode::Recover { declare_lost: Vec::new() }).await.unwrap();
        assert_eq!(names(&engine, &caller).await, 3);
    });
}

async fn stuck(world: &Deployment) -> bool {
    let cut = tokio::time::timeout(Duration::from_mins(3), engine(world).checkpoint_log()).await;
    !matches!(cut, Ok(Ok(_))) && heads(world).iter().all(|heads| *heads == 0)
}

fn refuse_puts(world: &Deployment, providers: &[usize]) {
    for &provider in providers {
        world.stores[provider].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    }
}

/// C15. A write has its quorum and no more. A checkpoint that covered it would outlive its data: two losses later the blob is there and
/// its bytes are not. Right: it waits until everything that it covers is settled.
#[test]
fn c15_a_checkpoint_waits_for_what_it_covers() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(15).await;
        refuse_puts(&world, &[5]);
        put(&engine(&world), &caller, "key", "acknowledged").await.unwrap();
        // The checkpoint's own blocks could be settled now; what it covers cannot, as a domain lacks what it was to hold.
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        assert!(stuck(&world).await, "a checkpoint counts over unsettled positions: {:?}", heads(&world));
        healed_it_survives_two_losses(&mut world, &caller, b"acknowledged").await;
    });
}

/// With everybody well again the checkpoint counts; then the disk and two providers go.
async fn healed_it_survives_two_losses(world: &mut Deployment, caller: &Caller, value: &[u8]) {
    world.heal();
    // Whether the account takes writes again is tried now and then.
    engine(world).settle_wait(Duration::from_mins(1)).await.unwrap();
    assert!(checkpoint(world).await.heads == 6);
    world.crash(DiskFate::Lost);
    for lost in [0, 1] {
        world.stores[lost].lose_everything();
    }
    world.start(false).await.unwrap();
    assert_eq!(get(&engine(world), caller, "key").await.unwrap(), value);
}

/// C16. The checkpoint itself has its quorum and no more. Counted at quorum, two losses make it unreadable after what it stands for was
/// deleted. Right: it counts when all its shards are durable.
#[test]
fn c16_a_checkpoint_counts_when_it_is_settled() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(16).await;
        put(&engine(&world), &caller, "key", "settled").await.unwrap();
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        refuse_puts(&world, &[5]);
        assert!(stuck(&world).await, "a checkpoint counts at quorum: {:?}", heads(&world));
        healed_it_survives_two_losses(&mut world, &caller, b"settled").await;
    });
}

/// C17. A write that was never acknowledged is in flight while a checkpoint is asked for. In a checkpoint it would come back although it
/// may be void. Right: what is not released is in no checkpoint, and the checkpoint waits behind it.
#[test]
fn c17_a_checkpoint_covers_released_positions_only() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(17).await;
        refuse_puts(&world, &[1, 2, 3, 4, 5]);
        let (writer, owner) = (engine(&world), caller.clone());
        let late = tokio::spawn(async move { put(&writer, &owner, "key", "never acknowledged").await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(stuck(&world).await);
        assert!(late.await.unwrap().is_err());
        world.crash(DiskFate::Lost);
        world.heal();
        world.stores[0].lose_everything();
        world.start(false).await.unwrap();
        let read = get(&engine(&world), &caller, "key").await;
        assert_eq!(read.expect_err("it was void").kind, ErrorKind::UnknownKey);
    });
}

/// C18. The record that condemns a block cannot be released. Were the DELETE sent when it is issued, the record could be lost and the blob
/// come back without its bytes. Right: nothing is deleted before the record is released.
#[test]
fn c18_nothing_is_deleted_before_its_record_is_released() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(18).await;
        put(&engine(&world), &caller, "doomed", "small").await.unwrap();
        put_large(&world, &caller, "large").await;
        delete(&world, &caller, "large").await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        refuse_puts(&world, &[2, 3, 4, 5]);
        let (collector, asked) = (engine(&world), NOW);
        let cut = tokio::time::timeout(Duration::from_mins(10), collector.collect(asked)).await;
        assert!(!matches!(cut, Ok(Ok(_))), "it was condemned without a quorum: {cut:?}");
        assert!(world.stores.iter().all(|store| store.requests(Op::Delete) == 0));
        // The record is void: what it condemned is part of the log as before.
        world.crash(DiskFate::Lost);
        world.heal();
        for lost in [0, 1] {
            world.stores[lost].lose_everything();
        }
        world.start(false).await.unwrap();
        assert_eq!(get(&engine(&world), &caller, "doomed").await.unwrap(), b"small");
        let collected = engine(&world).collect(asked).await.unwrap();
        assert!(collected.condemned_blocks > 0 && world.stores.iter().any(|store| store.requests(Op::Delete) > 0));
    });
}

/// Whatever lets the collector delete at once.
const NOW: CollectAsked = CollectAsked { now: true, max_dead_permille: Some(50), dry_run: false };

/// Too much for a commit block.
const LARGE: usize = 1_500_000;

async fn put_large(world: &Deployment, caller: &Caller, key: &str) {
    let mut bytes = vec![0; LARGE];
    blake3::Hasher::new().update(key.as_bytes()).finalize_xof().fill(&mut bytes);
    let body = stream::iter([Ok(Bytes::from(bytes))]).boxed();
    engine(world).put_blob(caller, BUCKET, key.as_bytes(), PutOptions::default(), body).await.unwrap();
}

async fn delete(world: &Deployment, caller: &Caller, key: &str) {
    engine(world).delete_blob(caller, BUCKET, key.as_bytes(), Precondition::None, None).await.unwrap();
}

/// Puts, deletes, checkpoints and collections in turns: commit blocks go for good, and still the disk and two providers may be lost.
#[test]
fn what_the_collector_leaves_is_enough_for_a_recovery() {
    on_paused_clock(async {
        let (mut world, caller) = deployment(20).await;
        let mut gone = 0;
        for round in 0..4 {
            for at in 0..6 {
                put(&engine(&world), &caller, &format!("{round}-{at}"), "kept or not").await.unwrap();
            }
            put_large(&world, &caller, &format!("{round}-large")).await;
            for at in 0..5 {
                delete(&world, &caller, &format!("{round}-{at}")).await;
            }
            engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
            checkpoint(&world).await;
            let collected = engine(&world).collect(NOW).await.unwrap();
            assert_eq!(collected.failed_moves, 0, "{collected:?}");
            gone += collected.swept.blocks;
        }
        assert!(gone > 20, "hardly anything was collected: {gone}");
        let holds = async |world: &Deployment, without: &[u32]| {
            for round in 0..4 {
                assert_eq!(get(&engine(world), &caller, &format!("{round}-5")).await.unwrap(), b"kept or not");
                assert_eq!(get(&engine(world), &caller, &format!("{round}-large")).await.unwrap().len(), LARGE);
                for at in without {
                    let read = get(&engine(world), &caller, &format!("{round}-{at}")).await;
                    assert_eq!(read.expect_err("deleted, and back").kind, ErrorKind::UnknownKey);
                }
            }
        };
        world.crash(DiskFate::Kept);
        world.start(false).await.unwrap();
        holds(&world, &[0, 1, 2, 3, 4]).await;
        for lost in [0, 1] {
            world.stores[lost].lose_everything();
        }
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        holds(&world, &[0, 1, 2, 3, 4]).await;
        // It is all that there is: without it the log has no beginning.
        world.crash(DiskFate::Lost);
        hide_heads(&world, 0..6);
        assert_eq!(world.start(false).await.unwrap_err().kind, ErrorKind::RefusedState);
    });
}

/// The other half of C17. A checkpoint lies beyond the end that a later decision gave its writer's log: all providers had been rolled back, and
/// come back with what they had. Installed, it would bring back what was decided away. Right: the decision counts.
#[test]
fn a_checkpoint_beyond_a_decided_end_is_passed_over() {
    on_paused_clock(async {
        let (mut world, caller, _) = named(21).await;
        name(&world, &caller, 0, 2).await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        for store in &world.stores {
            store.take_snapshot();
        }
        name(&world, &caller, 10, 5).await;
        checkpoint(&world).await;
        let later: Vec<_> = world.stores.iter().map(HostileStore::objects).collect();
        world.crash(DiskFate::Lost);
        for store in &world.stores {
            store.roll_back();
        }
        world.start(false).await.unwrap();
        name(&world, &caller, 20, 1).await;
        engine(&world).settle_wait(Duration::from_mins(1)).await.unwrap();
        for (store, later) in world.stores.iter().zip(later) {
            for (path, bytes) in later {
                if store.peek(&path).is_none() {
                    store.tamper(&path, Some(bytes));
                }
            }
        }
        world.crash(DiskFate::Lost);
        world.start(false).await.unwrap();
        assert_eq!(names(&engine(&world), &caller).await, 3);
    });
}

/// C19. All providers are rolled back but for one head: the log that is left is shorter than what was acknowledged. Accepted, deletes
/// would come back. Right: a head witnesses what was acknowledged, and an end below it is refused.
#[test]
fn c19_a_log_shorter_than_a_head_witnesses_is_refused() {
    on_paused_clock(async {
        let (mut world, caller, _) = named(19).await;
        name(&world, &caller, 0, 3).await;
        checkpoint(&world).await;
        for store in &world.stores {
            store.take_snapshot();
        }
        name(&world, &caller, 3, 3).await;
        checkpoint(&world).await;
        let prefix = world.names().head_prefix(world.stores[2].name());
        let kept: Vec<_> = world.stores[2].objects().into_iter().filter(|(path, _)| path.starts_with(&prefix)).collect();
        world.crash(DiskFate::Lost);
        for store in &world.stores {
            store.roll_back();
        }
        let all_back = world.start_on(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await;
        assert!(all_back.is_ok(), "a roll-back of everything cannot be told from the truth");
        all_back.unwrap().abort();
        for store in &world.stores {
            store.roll_back();
        }
        for (path, bytes) in kept {
            world.stores[2].tamper(&path, Some(bytes));
        }
        let refused: Error = world.start(false).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::RefusedState);
        assert!(refused.message.contains("acknowledged data is missing"), "{refused}");
    });
}
