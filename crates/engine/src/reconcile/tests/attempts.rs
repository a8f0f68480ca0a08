//! This version writes every position once, under attempt 0. The format knows four attempts, and a reader that overlooked or
//! mixed them would void, or believe, what another writer acknowledged (PROTOCOL rule 2).

use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, Seq};
use diaspore_block::manifest::{BlockKind, MANIFEST_LEN, Manifest};
use diaspore_block::record::ServiceStopped;
use diaspore_ledger::JournalEntry;

use super::*;
use crate::commit::{Built, Draft, NewRecord, Tip, body_of, build_attempt};
use crate::scatter::put_shard;
use crate::shared::Shared;

/// The block that the writer of `engine` would issue next, coded under `attempt`.
fn next_block(shared: &Shared, attempt: Attempt, marks: (Seq, Seq)) -> Built {
    let view = shared.ledger.snapshot().unwrap();
    let last = view.commit_block(view.applied_seq().unwrap()).unwrap().unwrap();
    let mut tip = Tip::behind(&view, Counter(last.facts.counter.0 + 1)).unwrap();
    let stopped = ServiceStopped { incarnation: shared.writer.incarnation, reason: "test".to_owned() };
    let draft = Draft {
        kind: BlockKind::Commit,
        body: body_of(shared, vec![NewRecord::system(stopped)], Vec::new()).unwrap(),
        geometry: Geometry::new(3, 6).unwrap(),
        acked_through: marks.0,
        settled_through: marks.1,
    };
    build_attempt(shared, shared.writer, &mut tip, draft, attempt).unwrap()
}

/// Puts shard i of the next block on provider i, for every i of `shards`.
async fn plant(engine: &Engine, attempt: u8, shards: std::ops::Range<u8>) -> Seq {
    let shared = engine.shared();
    let built = next_block(&shared, Attempt(attempt), (Seq(1), Seq(1)));
    for shard in shards {
        let provider = shared.fleet.providers()[usize::from(shard)].id.clone();
        put_shard(&shared, &built.coded(), shard, &provider).await.unwrap();
    }
    built.seq
}

async fn written() -> (World, Engine) {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..3).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    engine.abort();
    (world, engine)
}

async fn recovered(world: &mut World) -> Engine {
    world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap()
}

/// C4: attempt 0 landed nowhere, attempt 1 has its k + 1. Probing attempts until the first absent one loses it.
#[tokio::test(start_paused = true)]
async fn c4_every_attempt_is_probed() {
    let (mut world, old) = written().await;
    let seq = plant(&old, 1, 0..4).await;
    let engine = recovered(&mut world).await;
    assert_eq!(engine.status().released_seq, seq.next().0, "the block, then the decision");
}

/// C5: two shards of attempt 0 and one of attempt 1 are no k shards of anything.
#[tokio::test(start_paused = true)]
async fn c5_shards_of_two_attempts_are_not_added_up() {
    let (mut world, old) = written().await;
    let seq = plant(&old, 0, 0..2).await;
    assert_eq!(plant(&old, 1, 2..3).await, seq);
    let engine = recovered(&mut world).await;
    assert_eq!(engine.status().released_seq, seq.0, "never acknowledged: the decision stands in its place");
    assert_eq!(count(&engine, &world).await, 3);
}

/// Settlement may overtake the acknowledged mark between two readings; a manifest that said so would not open again.
#[tokio::test(start_paused = true)]
async fn a_settled_mark_never_passes_the_acknowledged_one() {
    let (_, old) = written().await;
    let built = next_block(&old.shared(), Attempt(0), (Seq(3), Seq(5)));
    let JournalEntry::Block(issued) = built.journal_entry() else { panic!("a block") };
    let encoded: &[u8; MANIFEST_LEN] = issued.manifest.first_chunk().unwrap();
    let manifest = Manifest::decode(encoded).unwrap();
    assert_eq!((manifest.log.acked_through, manifest.log.settled_through), (Seq(3), Seq(3)));
}

/// A decision that lies on one domain never counted, so what it carried over was never acknowledged by it: its mark must not say so. It would
/// refuse every later start when one domain that held the carried block's first copy goes as well.
#[tokio::test(start_paused = true)]
async fn an_undecided_carrier_acknowledged_nothing() {
    let (mut world, old) = written().await;
    let seq = plant(&old, 0, 0..3).await;
    let carrier = recovered(&mut world).await;
    assert_eq!(carrier.status().released_seq, seq.next().0);
    let (incarnation, names) = (carrier.shared().writer.incarnation, Arc::clone(&carrier.shared().names));
    crash(carrier);
    let gone = async |at: usize, incarnation, counter| {
        let name = names.commit(&format!("p{at}"), incarnation, Counter(counter), Attempt(0));
        world.stores[at].delete(&name.as_str().into()).await.unwrap();
    };
    for at in 1..6 {
        gone(at, incarnation, 1).await;
    }
    let first = old.shared().ledger.snapshot().unwrap().commit_block(Seq(seq.0 - 1)).unwrap().unwrap();
    gone(0, first.facts.incarnation, first.facts.counter.0 + 1).await;
    let engine = recovered(&mut world).await;
    assert_eq!(engine.status().released_seq, seq.0, "{:?}: the decision stands in its place", engine.status().state);
    assert_eq!(count(&engine, &world).await, 3);
}
