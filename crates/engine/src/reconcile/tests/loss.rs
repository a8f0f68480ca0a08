//! More is lost than the class survives, and the operator says that it is gone for good.

use diaspore_block::id::{Attempt, Counter};
use diaspore_block::name::Names;
use futures::TryStreamExt;

use super::*;
use crate::claim::{ClaimBook, Rank};
use crate::config::AcceptLoss;
use crate::reconcile::loss::Loss;
use crate::shared::Ground;

pub(in crate::reconcile) const RECOVER: Mode = Mode::Recover { declare_lost: Vec::new() };

/// The list that a refused recovery comes with.
pub(in crate::reconcile) async fn refused(world: &mut World, disk: &MemoryMedium) -> Loss {
    let error = world.start(disk, RECOVER).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RefusedState, "{error}");
    *error.source.unwrap_or_else(|| panic!("no list: {}", error.message)).downcast::<Loss>().unwrap()
}

pub(in crate::reconcile) async fn accepted(world: &mut World, disk: &MemoryMedium, token: &str) -> Result<Engine, crate::api::Error> {
    world.accept_loss = Some(AcceptLoss { token: token.to_owned(), by: "a test".to_owned() });
    let started = world.start(disk, RECOVER).await;
    world.accept_loss = None;
    started
}

/// Objects of all stores, to be brought back later.
pub(in crate::reconcile) async fn saved(world: &World) -> Vec<Vec<(object_store::path::Path, bytes::Bytes)>> {
    let mut all = Vec::new();
    for store in &world.stores {
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut objects = Vec::new();
        for meta in listed {
            objects.push((meta.location.clone(), store.get(&meta.location).await.unwrap().bytes().await.unwrap()));
        }
        all.push(objects);
    }
    all
}

pub(in crate::reconcile) async fn bring_back(world: &World, saved: &[Vec<(object_store::path::Path, bytes::Bytes)>]) {
    for (store, objects) in world.stores.iter().zip(saved) {
        for (path, bytes) in objects {
            if store.head(path).await.is_err() {
                store.put(path, bytes.clone().into()).await.unwrap();
            }
        }
    }
}

/// A ground to look at the providers from, as nobody's service.
pub(in crate::reconcile) fn onlooker(world: &World) -> Ground {
    onlooker_on(world, &MemoryMedium::new())
}

/// The same with a disk that holds something.
pub(in crate::reconcile) fn onlooker_on(world: &World, disk: &MemoryMedium) -> Ground {
    let rng = Box::new(StdRng::seed_from_u64(77));
    let ledger = Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, rng).unwrap();
    let clock = Arc::new(RuntimeClock::starting_at(Timestamp(1)));
    let config = EngineConfig::new(Profile { replication_factor: 4, max_cloud_providers: 6, ..Profile::default() });
    Ground::new(config, Arc::clone(&world.keys), world.fleet(), ledger, clock, Arc::new(SeededEntropy::new(77)))
}

/// Every incarnation with a claim, oldest first.
pub(in crate::reconcile) async fn ranks(world: &World) -> Vec<Rank> {
    let book = ClaimBook::default();
    book.survey(&onlooker(world), None).await;
    book.ranks()
}

/// These stores lose the commit block at `counter` of an incarnation. They must have it.
pub(in crate::reconcile) async fn lose(world: &World, stores: std::ops::Range<usize>, rank: Rank, counter: u64) {
    for at in stores {
        let name = Names::new(&world.keys.name).commit(&format!("p{at}"), rank.1, Counter(counter), Attempt(0));
        world.stores[at].head(&name.as_str().into()).await.unwrap();
        world.stores[at].delete(&name.as_str().into()).await.unwrap();
    }
}

/// Four of six lose the commit block at `counter` of the newest incarnation.
async fn lose_commit(world: &World, counter: u64) {
    lose(world, 0..4, *ranks(world).await.last().unwrap(), counter).await;
}

pub(in crate::reconcile) async fn written(world: &mut World, buckets: u32) -> MemoryMedium {
    let disk = MemoryMedium::new();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, world, 0..buckets).await;
    assert_eq!(engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap().unsettled_blocks, 0);
    crash(engine);
    disk
}

async fn leaves(engine: &Engine, world: &World) -> Vec<String> {
    engine.audit_export(&world.caller(), 0, 1000).await.unwrap().into_iter().map(|line| line.leaf).collect()
}

/// After the loss was accepted: what was hidden comes back, and nothing changes. On the same disk, from nothing, and twice.
pub(in crate::reconcile) async fn holds_whatever_comes_back(
    world: &mut World,
    engine: Engine,
    disk: &MemoryMedium,
    old: &MemoryMedium,
    all: &[Vec<(object_store::path::Path, bytes::Bytes)>],
) {
    let (buckets, log) = (count(&engine, world).await, leaves(&engine, world).await);
    assert!(engine.integrity().unwrap().is_sound());
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    // From nothing before any checkpoint: by what the decisions say alone.
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, world).await, buckets);
    assert!(leaves(&engine, world).await.starts_with(&log));
    crash(engine);
    bring_back(world, all).await;
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    assert_eq!(count(&engine, world).await, buckets, "the same disk goes on");
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    engine.checkpoint_log().await.unwrap();
    crash(engine);
    for _ in 0..2 {
        let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
        assert_eq!(count(&engine, world).await, buckets);
        assert!(leaves(&engine, world).await.starts_with(&log), "the log that was accepted, entry by entry");
        assert!(engine.integrity().unwrap().is_sound());
        crash(engine);
    }
    // The disk that was lost turns up: it holds what was given up, and says so instead of going on.
    let fork = world.start(&old.snapshot(), Mode::Start).await.unwrap_err();
    assert!(fork.kind == ErrorKind::RefusedState && fork.message.contains("fork"), "{fork}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_can_read_begins_anew_on_the_operators_word() {
    let mut world = World::new();
    let old = written(&mut world, 5).await;
    let all = saved(&world).await;
    for at in 0..4 {
        world.wipe(at).await;
    }
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!((loss.kept_through, loss.unknown.first().map(|range| range.0), loss.readable.len()), (0, Some(1), 0), "{loss:?}");
    assert_eq!(refused(&mut world, &MemoryMedium::new()).await, loss, "the same state gives the same list");
    let wrong = accepted(&mut world, &MemoryMedium::new(), "0000-0000-0000-0000").await.unwrap_err();
    assert!(wrong.message.contains("is not what was accepted"), "{wrong}");

    let disk = MemoryMedium::new();
    let engine = accepted(&mut world, &disk, &loss.token).await.unwrap();
    let kinds = engine.audit_export(&world.caller(), 0, 10).await.unwrap().into_iter().map(|line| line.kind).collect::<Vec<_>>();
    assert_eq!(kinds[..2], ["Decision", "MayHaveLost"], "the log says so");
    assert!(engine.list_buckets(&world.caller()).await.unwrap().is_empty());
    fill(&engine, &world, 40..43).await;
    holds_whatever_comes_back(&mut world, engine, &disk, &old, &all).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_with_a_hole_goes_on_before_it() {
    let mut world = World::new();
    // Sequence 1 is the decision, 2 the tenant; bucket n stands at n + 3.
    let old = written(&mut world, 12).await;
    let all = saved(&world).await;
    lose_commit(&world, 5).await;
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!((loss.kept_through, loss.unknown.as_slice()), (5, [(6, 6)].as_slice()), "{loss:?}");
    assert_eq!(loss.readable.first().map(|range| range.0), Some(7));
    // Somebody takes more away between the list and the word: the list is another one.
    let before = saved(&world).await;
    // Nobody but the first claim ever wrote.
    lose(&world, 0..4, ranks(&world).await[0], 8).await;
    let disk = MemoryMedium::new();
    let changed = accepted(&mut world, &disk, &loss.token).await.unwrap_err();
    assert!(changed.message.contains("is not what was accepted"), "{changed}");
    bring_back(&world, &before).await;
    let engine = accepted(&mut world, &disk, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 3);
    fill(&engine, &world, 20..22).await;
    assert_eq!(count(&engine, &world).await, 5);
    holds_whatever_comes_back(&mut world, engine, &disk, &old, &all).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_decision_gives_up_its_incarnation() {
    let mut world = World::new();
    let disk = written(&mut world, 4).await.snapshot();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 4..12).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let all = saved(&world).await;
    lose_commit(&world, 0).await;
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!(
        (loss.unknown.as_slice(), loss.incarnations.len()),
        ([(loss.kept_through + 1, loss.kept_through + 1)].as_slice(), 1),
        "{loss:?}"
    );
    let fresh = MemoryMedium::new();
    let engine = accepted(&mut world, &fresh, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 4);
    fill(&engine, &world, 30..31).await;
    holds_whatever_comes_back(&mut world, engine, &fresh, &disk, &all).await;
}

/// What a checkpoint covers is kept, and one that stands behind the end comes back to no avail.
#[tokio::test(start_paused = true)]
async fn the_checkpoint_that_can_be_read_is_kept() {
    let mut world = World::new();
    let disk = MemoryMedium::new();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..4).await;
    engine.checkpoint_log().await.unwrap();
    fill(&engine, &world, 4..8).await;
    let covered = engine.status().released_seq;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    fill(&engine, &world, 8..16).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    let before = saved(&world).await;
    engine.checkpoint_log().await.unwrap();
    crash(engine);
    let all = saved(&world).await;
    // The second checkpoint is gone at four of six, and with it a position of the log between the two.
    for at in 0..4 {
        for (path, _) in all[at].iter().filter(|(path, _)| !before[at].iter().any(|(known, _)| known == path)) {
            world.stores[at].delete(path).await.unwrap();
        }
    }
    lose_commit(&world, covered).await;
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!(loss.kept_through, covered, "{loss:?}");
    let fresh = MemoryMedium::new();
    let engine = accepted(&mut world, &fresh, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 8);
    fill(&engine, &world, 30..31).await;
    holds_whatever_comes_back(&mut world, engine, &fresh, &disk, &all).await;
}

#[tokio::test(start_paused = true)]
async fn a_word_on_nothing_is_refused() {
    let mut world = World::new();
    written(&mut world, 3).await;
    let nothing = accepted(&mut world, &MemoryMedium::new(), "0000-0000-0000-0000").await.unwrap_err();
    assert!(nothing.message.contains("nothing is missing"), "{nothing}");
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, &world).await, 3);
}
