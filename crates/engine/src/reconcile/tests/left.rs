//! What a writer that crashed left at six providers, and what it would have written next, to be planted shard by shard.

use std::ops::Range;

use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId, Seq};
use diaspore_block::manifest::BlockKind;
use diaspore_block::name::Names;
use diaspore_block::record::ServiceStopped;

use super::loss::onlooker;
use super::*;
use crate::claim::{ClaimBook, Rank};
use crate::commit::{Built, Draft, NewRecord, Tip, body_of, build_attempt};
use crate::layout::Layout;
use crate::reconcile::{Claimed, Permitted};
use crate::scatter::put_shard;
use crate::shared::Ground;

/// Stands above everybody who ever claimed.
pub(in crate::reconcile) const NOBODY: Rank = (Epoch(u64::MAX), IncarnationId::NIL);

/// A decision, a tenant and three buckets: sequences 1 to 5 are counters 0 to 4, any 3 of 6 shards make a block, and the window is 4.
pub(in crate::reconcile) struct Left {
    pub(in crate::reconcile) world: World,
    /// It does nothing any more.
    pub(in crate::reconcile) writer: Engine,
}

impl Left {
    pub(in crate::reconcile) async fn new() -> Self {
        let mut world = World::new();
        world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
        let writer = world.start(&MemoryMedium::new(), Mode::Start).await.unwrap();
        fill(&writer, &world, 0..3).await;
        writer.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        writer.abort();
        assert_eq!(writer.shared().ledger.snapshot().unwrap().applied_seq().unwrap(), Seq(5));
        Self { world, writer }
    }

    /// The blocks that would have followed, each of which says that everything up to `acked` was acknowledged.
    pub(in crate::reconcile) fn next(&self, count: usize, acked: u64) -> Vec<Built> {
        self.next_under(Attempt(0), count, acked)
    }

    /// The same under another attempt.
    pub(in crate::reconcile) fn next_under(&self, attempt: Attempt, count: usize, acked: u64) -> Vec<Built> {
        let shared = self.writer.shared();
        let mut tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(5)).unwrap();
        let block = || {
            let stopped = ServiceStopped { incarnation: shared.writer.incarnation, reason: "test".to_owned() };
            let draft = Draft {
                kind: BlockKind::Commit,
                body: body_of(&shared, vec![NewRecord::system(stopped)], Vec::new()).unwrap(),
                geometry: Geometry::new(3, 6).unwrap(),
                acked_through: Seq(acked),
                settled_through: Seq(0),
            };
            build_attempt(&shared, shared.writer, &mut tip, draft, attempt).unwrap()
        };
        std::iter::repeat_with(block).take(count).collect()
    }

    /// Puts shard i of a block on provider i.
    pub(in crate::reconcile) async fn plant(&self, built: &Built, homes: Range<u8>) {
        let shared = self.writer.shared();
        for shard in homes {
            let provider = shared.fleet.providers()[usize::from(shard)].id.clone();
            put_shard(&shared, &built.coded(), shard, &provider).await.unwrap();
        }
    }

    /// These providers lose the block at `counter`. They must have it.
    pub(in crate::reconcile) fn lose(&self, homes: Range<usize>, counter: u64) {
        for at in homes {
            let incarnation = self.writer.shared().writer.incarnation;
            let name = Names::new(&self.world.keys.name).commit(&format!("p{at}"), incarnation, Counter(counter), Attempt(0));
            assert!(self.world.hostile[at].peek(name.as_str()).is_some());
            self.world.hostile[at].tamper(name.as_str(), None);
        }
    }

    pub(in crate::reconcile) fn silence(&self, homes: Range<usize>) {
        for at in homes {
            self.world.hostile[at].set_faults(FaultPlan::down());
        }
    }

    /// Somebody who looks at the providers with an empty disk, and the claims that are there.
    pub(in crate::reconcile) async fn looked_at(&self) -> (Ground, ClaimBook) {
        let (ground, book) = (onlooker(&self.world), ClaimBook::default());
        book.survey(&ground, None).await;
        (ground, book)
    }
}

/// What a claim that everybody took gives to go on with: of nobody's incarnation, and with an empty book.
pub(in crate::reconcile) fn claimed(ground: &Ground) -> Claimed {
    let domains = ground.fleet.domains();
    Claimed {
        rank: NOBODY,
        layout: Layout::choose(ground, &domains, 4).unwrap(),
        acknowledged: domains,
        quorum: 4,
        book: ClaimBook::default(),
        permitted: Permitted::Any,
    }
}
