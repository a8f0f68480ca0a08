//! A disk that stood beside the log while somebody else wrote its last blocks again.

use diaspore_ledger::{Ledger, MemoryMedium};

use super::*;
use crate::claim::ClaimBook;
use crate::reconcile::chain;
use crate::reconcile::local_end;
use crate::reconcile::tests::left::NOBODY;
use crate::reconcile::tests::loss::{RECOVER, lose, onlooker_on, ranks, written};
use crate::reconcile::tests::{World, crash};

/// Eight blocks on a disk, the last four of which a later writer carried over. Gives that disk, and what that writer begins with.
async fn beside(seed: u64) -> (World, MemoryMedium, Stretch) {
    let mut world = World::new();
    world.seed = seed;
    let disk = written(&mut world, 6).await.snapshot();
    for at in 0..3 {
        world.wipe(at).await;
    }
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let (ground, book) = (onlooker_on(&world, &disk.snapshot()), ClaimBook::default());
    book.survey(&ground, None).await;
    let have = local_end(&ground).unwrap();
    assert_eq!(have.unwrap().seq, Seq(8));
    let mut chain = chain::find(&ground, &book, &Evidence::nothing(), NOBODY, have).await.unwrap().unwrap();
    assert_eq!((chain.stretches.len(), chain.stretches[0].base, chain.stretches[0].from), (1, 5, Counter(4)));
    (world, disk, chain.stretches.remove(0))
}

/// Whose block the map has, from sequence 4 on: the first writer's or the later one's.
fn later(ledger: &Ledger, stretch: &Stretch) -> Vec<bool> {
    let view = ledger.snapshot().unwrap();
    (4..=8).map(|seq| view.commit_block(Seq(seq)).unwrap().unwrap().facts.incarnation == stretch.subject.incarnation).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_written_again_is_read_from_there_and_stays_so() {
    let (world, disk, stretch) = beside(1).await;
    let evidence = Evidence::nothing();
    lose(&world, 0..4, *ranks(&world).await.last().unwrap(), 1).await;
    let held = disk.snapshot();
    let ground = onlooker_on(&world, &held);
    // Nothing was copied of what the ruling one wrote itself.
    take(&ground, &evidence, &Stretch { carried: None, ..stretch.clone() }, Seq(8)).await.unwrap();
    take(&ground, &evidence, &stretch, Seq(4)).await.unwrap();
    assert_eq!(later(&ground.ledger, &stretch), [false; 5]);
    take(&ground, &evidence, &stretch, Seq(7)).await.unwrap();
    // Of sequence 6 the first writing stands in.
    assert_eq!(later(&ground.ledger, &stretch), [false, true, false, true, false]);
    take(&ground, &evidence, &stretch, Seq(8)).await.unwrap();
    assert_eq!(later(&ground.ledger, &stretch), [false, true, false, true, true]);
    let leaves = ground.ledger.snapshot().unwrap().log_size().unwrap();
    let after = onlooker_on(&world, &held.crash());
    assert_eq!(later(&after.ledger, &stretch), [false, true, false, true, true], "whatever happens to the power");
    assert_eq!(after.ledger.snapshot().unwrap().log_size().unwrap(), leaves, "the log is the same");
    // What the ledger does not have yet comes with the replay.
    take(&after, &evidence, &stretch, Seq(9)).await.unwrap();
    assert_eq!(after.ledger.snapshot().unwrap().applied_seq().unwrap(), Seq(8));
}

/// A copy that says anything else than what this disk applied.
#[tokio::test(start_paused = true)]
async fn a_copy_of_another_history_is_a_fork() {
    let (world, _, stretch) = beside(1).await;
    let (_, stranger, _) = beside(60).await;
    let ground = onlooker_on(&world, &stranger.snapshot());
    let fork = take(&ground, &Evidence::nothing(), &stretch, Seq(8)).await.unwrap_err();
    assert!(fork.message.contains("fork") && fork.message.contains("sequence 5"), "{fork}");
    assert_eq!(later(&ground.ledger, &stretch), [false; 5]);
}
