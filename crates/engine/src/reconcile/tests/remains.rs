//! What a list of the lost may rest on: whatever can be read counts, and the listing changes nothing.

use diaspore_block::id::Seq;
use diaspore_block::name::Names;
use diaspore_testkit::Tripwire;
use futures::StreamExt;

use super::loss::{RECOVER, accepted, bring_back, holds_whatever_comes_back, lose, onlooker, ranks, refused, saved, written};
use super::*;
use crate::api::{BodyStream, PutOptions};
use crate::claim::ClaimBook;
use crate::reconcile::position::Evidence;
use crate::reconcile::remains::{Hints, Remains, Spot};

fn ledger_on(world: &World, disk: &MemoryMedium) -> Ledger {
    Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, Box::new(StdRng::seed_from_u64(5))).unwrap()
}

fn applied(world: &World, disk: &MemoryMedium) -> Seq {
    ledger_on(world, &disk.snapshot()).snapshot().unwrap().applied_seq().unwrap()
}

/// Enough for a compacted log of more than one part: a few megabytes of metadata that do not compress.
async fn fill_a_part(engine: &Engine, world: &World) {
    let caller = world.caller();
    let puts = (0..480_u32).map(async |at| {
        let piece = |piece: u32| blake3::hash(&[at.to_be_bytes(), piece.to_be_bytes()].concat()).to_hex().to_string();
        let text = (0..120).map(piece).collect();
        let options = PutOptions { metadata: vec![("noise".to_owned(), text)], ..PutOptions::default() };
        let body: BodyStream = Box::pin(futures::stream::once(std::future::ready(Ok(vec![1; 100].into()))));
        engine.put_blob(&caller, "bucket-0", format!("blob-{at}").as_bytes(), options, body).await.unwrap();
    });
    futures::future::join_all(puts).await;
}

/// A disk that stands below a checkpoint of which a part is gone keeps what it has: a list is a list.
#[tokio::test(start_paused = true)]
async fn a_disk_that_lists_what_is_lost_keeps_its_state() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..6).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    let behind = disk.snapshot();
    fill(&engine, &world, 6..12).await;
    fill_a_part(&engine, &world).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    let before = saved(&world).await;
    engine.checkpoint_log().await.unwrap();
    crash(engine);
    // The first part, and one position in between, are gone at four of six. The leaves are in the last part.
    for (at, objects) in saved(&world).await.into_iter().enumerate().take(4) {
        let new = objects.into_iter().filter(|(path, _)| !before[at].iter().any(|(known, _)| known == path));
        let (path, bytes) = new.max_by_key(|(_, bytes)| bytes.len()).unwrap();
        assert!(bytes.len() > 400_000, "{} bytes are no shard of a whole part", bytes.len());
        world.stores[at].delete(&path).await.unwrap();
    }
    lose(&world, 0..4, ranks(&world).await[0], 10).await;
    let had = applied(&world, &behind);
    assert!(had >= Seq(8), "{had}");
    let loss = refused(&mut world, &behind).await;
    assert_eq!(loss.kept_through, 10, "{loss:?}");
    assert!(applied(&world, &behind) >= had);
    let engine = accepted(&mut world, &behind, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 8);
    crash(engine);
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, &world).await, 8);
}

/// Somebody recovered, carried a window of blocks over because they were weak, and decided; then that decision goes, and with it the original of one
/// of the blocks. What is left are copies that no decision leads to, and they count as what they are copies of.
#[tokio::test(start_paused = true)]
async fn a_tail_that_is_left_in_copies_alone_is_kept_and_found_again() {
    let mut world = World::new();
    let old = written(&mut world, 12).await;
    let end = applied(&world, &old).0;
    for at in 0..3 {
        world.wipe(at).await;
    }
    let given_up = MemoryMedium::new();
    let engine = world.start(&given_up, RECOVER).await.unwrap();
    fill(&engine, &world, 12..15).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let all = saved(&world).await;
    let writers = ranks(&world).await;
    let window = u64::from(Profile::default().window);
    lose(&world, 0..4, writers[1], window).await;
    // At end - 1, as sequence 1 has counter 0.
    lose(&world, 3..4, writers[0], end - 2).await;
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!((loss.kept_through, loss.unknown.as_slice()), (end, [(end + 1, end + 1)].as_slice()), "{loss:?}");
    let disk = MemoryMedium::new();
    let engine = accepted(&mut world, &disk, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 12);
    fill(&engine, &world, 20..21).await;
    holds_whatever_comes_back(&mut world, engine, &disk, &given_up, &all).await;
}

/// An accepted recovery may die at any change at any provider, and its disk with it: what was to be kept is offered again, no less of it,
/// and can be kept then.
#[tokio::test(start_paused = true)]
async fn whatever_step_an_accepted_recovery_dies_at_nothing_more_is_lost() {
    let mut world = World::new();
    written(&mut world, 12).await;
    lose(&world, 0..4, ranks(&world).await[0], 9).await;
    for at in 0..3 {
        world.wipe(at).await;
    }
    let left = saved(&world).await;
    let (mut died, mut offered_again) = (0, 0);
    for step in (0..).step_by(3) {
        world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
        for (store, objects) in world.hostile.iter().zip(&left) {
            for (path, bytes) in objects {
                store.tamper(path.as_ref(), Some(bytes.clone()));
            }
        }
        let first = refused(&mut world, &MemoryMedium::new()).await;
        assert_eq!((first.kept_through, first.readable.first().map(|range| range.0)), (9, Some(11)));
        let (tripwire, disk) = (Tripwire::default(), MemoryMedium::new());
        world.hostile.iter().for_each(|store| store.set_tripwire(Some(tripwire.clone())));
        tripwire.arm(step, || ());
        let alive = tokio::select! {
            biased;
            () = tripwire.tripped() => None,
            engine = accepted(&mut world, &disk, &first.token) => Some(engine.unwrap()),
        };
        world.hostile.iter().for_each(|store| store.set_tripwire(None));
        let ended = alive.is_some();
        alive.into_iter().for_each(crash);
        world.accept_loss = None;
        died += usize::from(!ended);
        // Now the disk is lost as well, now it is there.
        let disk = if step % 2 == 0 { MemoryMedium::new() } else { disk.crash() };
        let engine = match world.start(&disk, RECOVER).await {
            Ok(engine) => engine,
            Err(error) => {
                assert!(!ended, "{error}");
                let again = error.source.unwrap_or_else(|| panic!("no list at step {step}: {}", error.message));
                let again = again.downcast::<crate::reconcile::loss::Loss>().unwrap();
                assert_eq!((again.kept_through, &again.log_root), (9, &first.log_root), "dying at step {step}: {again:?}");
                assert_eq!(again.readable.first(), first.readable.first(), "dying at step {step}: {again:?}");
                offered_again += 1;
                accepted(&mut world, &disk, &again.token).await.unwrap_or_else(|error| panic!("step {step}: {error}"))
            }
        };
        assert_eq!(count(&engine, &world).await, 7, "dying at step {step}");
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        crash(engine);
        let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap_or_else(|error| panic!("after step {step}: {error}"));
        assert_eq!(count(&engine, &world).await, 7, "dying at step {step}");
        crash(engine);
        if ended {
            break;
        }
    }
    assert!(died > 15 && offered_again > 10, "{died} deaths, {offered_again} lists");
}

/// It takes claims and lists, and gives nothing: what is missing may be there, so nothing is given up before it answers or is declared lost.
#[tokio::test(start_paused = true)]
async fn who_takes_claims_and_gives_nothing_is_silent() {
    let mut world = World::new();
    let disk = written(&mut world, 12).await;
    let engine = world.start(&disk.snapshot(), Mode::Start).await.unwrap();
    fill(&engine, &world, 12..14).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    // Position 6 of the first life is left at three, one of which fails every read.
    lose(&world, 0..3, ranks(&world).await[0], 5).await;
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    for (store, objects) in world.hostile.iter().zip(saved(&world).await) {
        for (path, bytes) in objects {
            store.tamper(path.as_ref(), Some(bytes));
        }
    }
    world.hostile[3].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Get])));
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!((loss.kept_through, loss.silent.len()), (5, 1), "{loss:?}");
    let not_yet = accepted(&mut world, &MemoryMedium::new(), &loss.token).await.unwrap_err();
    assert!(not_yet.message.contains("do not answer"), "{not_yet}");
    world.hostile[3].set_faults(FaultPlan::honest());
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, &world).await, 14);
}

/// Claims are pruned, and those that are left name a limited number of others: the decisions lead back to the beginning.
#[tokio::test(start_paused = true)]
async fn incarnations_without_a_claim_are_found_by_the_decisions() {
    let (mut world, mut disk) = (World::new(), MemoryMedium::new());
    for life in 0..4 {
        let engine = world.start(&disk, Mode::Start).await.unwrap();
        fill(&engine, &world, 2 * life..2 * life + 2).await;
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        disk = disk.snapshot();
        crash(engine);
    }
    let (all, ground) = (ranks(&world).await, onlooker(&world));
    for (at, store) in world.stores.iter().enumerate() {
        for rank in &all {
            let name = Names::new(&world.keys.name).claim(&format!("p{at}"), rank.1, rank.0);
            store.delete(&name.as_str().into()).await.unwrap();
        }
    }
    let book = ClaimBook::default();
    book.learn(*all.last().unwrap());
    let (hints, evidence) = (Hints::gather(&ground).await, Evidence::nothing());
    let remains = Remains::find(&ground, &book, &evidence, &hints, (None, Seq(0))).await.unwrap();
    assert_eq!(remains.writers.iter().map(|writer| writer.rank).collect::<Vec<_>>(), all);
    assert_eq!(book.ranks(), all);
    for seq in 1..=remains.last().0 {
        let spot = remains.look(&ground, &evidence, Seq(seq), None).await.unwrap();
        assert!(matches!(spot, Spot::Found(..)), "{seq}: {spot:?}");
    }
}

/// A listing that is longer than anything that was ever written is no help, and costs no memory; those of the others are.
#[tokio::test(start_paused = true)]
async fn a_provider_that_lists_too_much_gives_no_hints() {
    let mut world = World::new();
    written(&mut world, 6).await;
    let ground = onlooker(&world);
    let all = Hints::gather(&ground).await.objects();
    let each = usize::try_from(all).unwrap() / 6;
    assert!(each > 5, "{all} objects at six");
    for at in 0..2 * each {
        let name = format!("ab/{at:038x}");
        world.stores[0].put(&name.as_str().into(), vec![0; 100].into()).await.unwrap();
    }
    assert_eq!(Hints::gather(&ground).await.objects(), all + 2 * each as u64);
    assert_eq!(Hints::gather_up_to(&ground, 2 * each).await.objects(), all - each as u64);
    assert_eq!(Hints::gather_up_to(&ground, each).await.objects(), all - each as u64, "as many as it may be are not too many");
    assert_eq!(Hints::gather_up_to(&ground, each - 1).await.objects(), 0);
}

/// Nothing can be read of it, and a provider takes its time for every answer: many are asked for at once.
#[tokio::test(start_paused = true)]
async fn what_is_left_is_not_asked_for_one_by_one() {
    let mut world = World::new();
    written(&mut world, 30).await;
    for at in 0..4 {
        world.wipe(at).await;
    }
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    let slow = Misbehaviour::Latency { fixed: std::time::Duration::from_millis(50), jitter: std::time::Duration::ZERO };
    for (store, objects) in world.hostile.iter().zip(saved(&world).await) {
        for (path, bytes) in objects {
            store.tamper(path.as_ref(), Some(bytes));
        }
        store.set_faults(FaultPlan::from(Fault::always(slow)));
    }
    let (book, ground) = (ClaimBook::default(), onlooker(&world));
    book.survey(&ground, None).await;
    let (hints, evidence) = (Hints::gather(&ground).await, Evidence::nothing());
    let begun = tokio::time::Instant::now();
    let remains = Remains::find(&ground, &book, &evidence, &hints, (None, Seq(0))).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    let spots: Vec<_> = remains.spots(&ground, &evidence, 1..=remains.last().0).collect().await;
    assert!(spots.len() > 30 && spots.iter().all(|(_, spot)| matches!(spot, Ok(Spot::Gap(_)))));
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// An accepted recovery came to nothing and was passed over by a start that found everything again. Then what it wrote shows up: its word on
/// those before it counts no more than it does.
#[tokio::test(start_paused = true)]
async fn who_was_passed_over_passes_nobody_over() {
    let mut world = World::new();
    let disk = written(&mut world, 6).await;
    let (end, before) = (applied(&world, &disk).0, saved(&world).await);
    for at in 0..4 {
        world.wipe(at).await;
    }
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    let engine = accepted(&mut world, &MemoryMedium::new(), &loss.token).await.unwrap();
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let (late, accepting) = (saved(&world).await, *ranks(&world).await.last().unwrap());
    // Nothing of it arrived but its claim.
    for (at, objects) in late.iter().enumerate() {
        world.wipe(at).await;
        let claim = Names::new(&world.keys.name).claim(&format!("p{at}"), accepting.1, accepting.0);
        let (path, bytes) = objects.iter().find(|(path, _)| path.as_ref() == claim.as_str()).unwrap();
        world.stores[at].put(path, bytes.clone().into()).await.unwrap();
    }
    bring_back(&world, &before).await;
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, &world).await, 6);
    fill(&engine, &world, 6..9).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    bring_back(&world, &late).await;
    lose(&world, 0..4, *ranks(&world).await.last().unwrap(), 2).await;
    let (book, ground) = (ClaimBook::default(), onlooker(&world));
    book.survey(&ground, None).await;
    let (hints, evidence) = (Hints::gather(&ground).await, Evidence::nothing());
    let remains = Remains::find(&ground, &book, &evidence, &hints, (None, Seq(0))).await.unwrap();
    let left = |rank| remains.writers.iter().any(|writer| writer.rank == rank);
    assert!(left(ranks(&world).await[0]) && !left(accepting), "{remains:?}");
    let loss = refused(&mut world, &MemoryMedium::new()).await;
    assert_eq!((loss.kept_through, loss.unknown.as_slice()), (end + 2, [(end + 3, end + 3)].as_slice()), "{loss:?}");
}
