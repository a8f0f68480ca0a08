//! Whose leavings are whose, since when they are dead, and how far they are looked for.

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::blob::tests::fixture::{Fixture, random};

fn incarnation(id: u8) -> IncarnationId {
    IncarnationId::from_bytes([id; 16])
}

/// A sweep in the background looks at a few of thousands of incarnations, the newest always and every other one in time.
#[test]
fn the_newest_incarnations_are_always_searched_and_the_others_in_turn() {
    let all: Vec<IncarnationId> = (0..100).map(|index| IncarnationId::from_bytes([index; 16])).collect();
    let past = || Past { all: all.clone(), dead: BTreeMap::new(), reach: 1 };
    let mut rng = StdRng::seed_from_u64(1);
    let mut met = BTreeSet::new();
    for _ in 0..100 {
        let some = past().some(PER_SWEEP, &mut rng).all;
        assert_eq!((some.len(), &some[..8]), (PER_SWEEP, &all[..8]));
        met.extend(some);
    }
    assert_eq!(met.len(), 100);
    assert_eq!(past().some(PER_SWEEP_NOW, &mut rng).all, all);
}

/// The grace time of what it left begins when somebody else took over, and a clock that was wrong at one start neither shortens nor
/// lengthens it.
#[test]
fn an_incarnation_is_dead_since_the_first_start_of_a_later_one() {
    let note = |id: u8, started: u64| IncarnationNote {
        incarnation: incarnation(id),
        epoch: Epoch(id.into()),
        started: Timestamp(started),
        k_floor: 3,
    };
    let now = Timestamp(1000);
    let since = |notes: &[IncarnationNote], id: u8| superseded(notes, (Epoch(id.into()), incarnation(id)), now).0;
    let notes = [note(1, 100), note(2, 300), note(3, 200), note(4, 500)];
    assert_eq!([1, 2, 3, 4].map(|id| since(&notes, id)), [200, 500, 500, 1000], "nothing is known to have superseded the last");
    assert_eq!(since(&notes, 0), 100, "one that this disk knows nothing else of");
    assert_eq!(since(&[note(2, 300)], 3), 1000);
    // Before it began itself, or in the future.
    assert_eq!(since(&[note(1, 100), note(2, 99), note(3, 1001), note(4, 400)], 1), 400);
    assert_eq!((since(&[note(1, 100), note(2, 100)], 1), since(&[note(1, 100), note(2, 1000)], 1)), (100, 1000));
    assert_eq!(since(&[note(1, 100), note(2, 1001)], 1), 1000);
}

/// Every incarnation below ours that anybody heard of, and none above: what a successor writes is not ours to judge, let alone to delete.
#[tokio::test(start_paused = true)]
async fn only_those_before_us_are_searched_and_they_are_dead_once_our_decision_is_settled() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    fx.settle().await;
    let first = fx.engine.shared().writer;
    let past = Past::of(&fx.engine.shared()).unwrap();
    assert_eq!((past.all, past.dead.len()), (vec![first.incarnation], 0), "its own leavings are its successor's");
    fx.stores[4].set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    let fx = fx.restart().await;
    let shared = fx.engine.shared();
    let own = shared.writer;
    assert!(own.epoch > first.epoch);
    for (epoch, id) in [(0, 1), (own.epoch.0 + 1, 2), (u64::MAX, 3)] {
        shared.fence.book().learn((Epoch(epoch), incarnation(id)));
    }
    let known = vec![own.incarnation, first.incarnation, incarnation(1)];
    let past = Past::of(&shared).unwrap();
    assert_eq!((&past.all, past.dead.len()), (&known, 0), "what they left may be needed to read what was carried over");
    fx.stores[4].set_faults(FaultPlan::honest());
    fx.settle().await;
    let past = Past::of(&shared).unwrap();
    assert_eq!(past.all, known, "newest first");
    assert_eq!(past.dead.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([first.incarnation, incarnation(1)]));
    let notes = shared.ledger.snapshot().unwrap().incarnations().unwrap();
    let started = |id| notes.iter().find(|note| note.incarnation == id).unwrap().started;
    assert_eq!(past.dead[&first.incarnation], started(own.incarnation));
    assert_eq!(past.dead[&incarnation(1)], started(first.incarnation), "the first that this disk knows to have come later");
}

/// As far as `reach` beyond the last that is known, which may be one that was just found.
#[tokio::test(start_paused = true)]
async fn leavings_are_looked_for_up_to_the_reach_and_on_from_each_find() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(2 << 20, 1)).await.unwrap();
    fx.settle().await;
    let shared = fx.engine.shared();
    let view = shared.ledger.snapshot().unwrap();
    let provider = ProviderId::new("p0").unwrap();
    let (own, old) = (shared.writer.incarnation, incarnation(9));
    let highest = |kind: BlockKind| {
        let blocks = view.blocks(None, 100).unwrap();
        let facts = blocks.into_iter().map(|entry| entry.facts).filter(|facts| facts.kind.name_class() == kind.name_class());
        facts.map(|facts| facts.counter.0).max().unwrap()
    };
    let (bulk, commit) = (highest(BlockKind::Bulk), highest(BlockKind::Commit));
    let found = async |reach: u64, names: &[(BlockKind, IncarnationId, u64)]| {
        let past = Past { all: vec![own, old], dead: BTreeMap::new(), reach };
        let place = |(kind, incarnation, counter): (BlockKind, IncarnationId, u64)| Place {
            kind,
            incarnation,
            counter: Counter(counter),
            attempt: Attempt(0),
        };
        let name = |at| shared.names.shard(&place(at).at("p0"));
        let mut unexpected: BTreeMap<u64, (ObjectName, u64)> =
            names.iter().map(|at| (inventory::short(&name(*at)), (name(*at), at.2))).collect();
        let places = identify(&shared, &view, &provider, &past, &mut unexpected).await.unwrap();
        assert_eq!(places.len() + unexpected.len(), names.len());
        for (place, listed, size) in &places {
            assert_eq!((shared.names.shard(&place.at("p0")), place.counter.0), (listed.clone(), *size));
        }
        places.into_iter().map(|(place, ..)| (place.kind, place.incarnation, place.counter.0)).collect::<Vec<_>>()
    };
    for (kind, incarnation, end) in
        [(BlockKind::Bulk, own, bulk + 1), (BlockKind::Commit, own, commit + 1), (BlockKind::Bulk, old, 0), (BlockKind::Commit, old, 0)]
    {
        let at = |counter: u64| (kind, incarnation, end + counter);
        assert_eq!(found(100, &[at(99)]).await, [at(99)]);
        assert_eq!(found(100, &[at(100)]).await, []);
        assert_eq!(found(100, &[at(50), at(149), at(248), at(348)]).await, [at(50), at(149), at(248)], "{kind:?}: each within a hundred");
    }
    // Further than what is tried in one go, from the first to the last; one way beside the other.
    let far = [(BlockKind::Bulk, old, 0), (BlockKind::Bulk, old, STRIDE - 1), (BlockKind::Bulk, old, STRIDE), (BlockKind::Commit, old, 3)];
    assert_eq!(found(STRIDE, &far).await, far);
    // A name that only begins alike stays where it is.
    let name = shared.names.shard(&Place { kind: BlockKind::Bulk, incarnation: old, counter: Counter(1), attempt: Attempt(0) }.at("p0"));
    let last = if name.as_str().ends_with('0') { '1' } else { '0' };
    let alike = ObjectName::parse(&format!("{}{last}", &name.as_str()[..name.as_str().len() - 1])).unwrap();
    let mut unexpected = BTreeMap::from([(inventory::short(&alike), (alike, 1))]);
    let past = Past { all: vec![old], dead: BTreeMap::new(), reach: 10 };
    assert!(identify(&shared, &view, &provider, &past, &mut unexpected).await.unwrap().is_empty() && unexpected.len() == 1);
}
