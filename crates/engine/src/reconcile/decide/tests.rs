//! What is carried over, and what the journal keeps of those before.

use std::collections::BTreeMap;

use diaspore_block::id::Epoch;
use diaspore_ledger::{IssuedBlock, MemoryMedium};

use super::*;
use crate::claim::Rank;
use crate::reconcile::chain::subject;
use crate::reconcile::position::{Care, Verdict};
use crate::reconcile::tests::left::Left;
use crate::reconcile::tests::loss::{RECOVER, lose, onlooker, ranks, written};
use crate::reconcile::tests::{World, crash};

/// The blocks of sequences 1 to 5 as a replay finds them.
async fn tail(left: &Left) -> End {
    let (ground, book) = left.looked_at().await;
    let of = subject(&ground, &book, book.ranks()[0]).await.unwrap();
    let mut pending = Vec::new();
    for counter in 0..5 {
        let Verdict::Readable(found) = Evidence::nothing().judge(&ground, &of, Counter(counter), Care::Replay).await.unwrap() else {
            panic!()
        };
        pending.push(*found);
    }
    End { pending, ..End::default() }
}

#[tokio::test(start_paused = true)]
async fn whatever_lies_on_k_domains_only_is_carried_over_with_all_behind_it() {
    let left = Left::new().await;
    let shared = left.writer.shared();
    let mut end = tail(&left).await;
    assert_eq!(first_weak(&shared, &mut end).await, 5, "all of it is safe");
    assert!(end.pending.iter().all(|found| found.domains == 6 && !found.partial));
    left.lose(0..2, 3);
    assert_eq!(first_weak(&shared, &mut tail(&left).await).await, 5, "k + 1 domains have it");
    left.lose(2..3, 3);
    assert_eq!(first_weak(&shared, &mut tail(&left).await).await, 3);
    // From some position on copies were found that no decision leads to.
    for (adrift, weak) in [(1, 0), (2, 1), (4, 3), (5, 3), (9, 3)] {
        let mut end = End { adrift: Some(Seq(adrift)), ..tail(&left).await };
        assert_eq!(first_weak(&shared, &mut end).await, weak, "adrift from {adrift} on");
    }
}

#[tokio::test(start_paused = true)]
async fn the_journal_forgets_what_was_passed_over_and_what_was_carried_over() {
    let left = Left::new().await;
    let shared = left.writer.shared();
    let rank = |epoch: u8| -> Rank { (Epoch(u64::from(epoch)), IncarnationId::from_bytes([epoch; 16])) };
    let chain = Chain {
        stretches: Vec::new(),
        ruling: Some(rank(2)),
        passed_over: vec![rank(3).1, rank(4).1],
        ends: Vec::new(),
        marks: Seq(0),
        given_up_above: None,
    };
    let dropped = || {
        let mut found = Vec::new();
        let mut note = |entry| {
            if let JournalEntry::Dropped { incarnation, from } = entry {
                found.push((incarnation, from.0));
            }
        };
        shared.ledger.scan_hold(&mut note).unwrap();
        found
    };
    let holding = |held: &[(u8, u64)]| {
        let key = |(epoch, counter): &(u8, u64)| ((rank(*epoch).1, Counter(*counter)), Vec::<IssuedBlock>::new());
        Evidence { held: held.iter().map(key).collect::<BTreeMap<_, _>>(), ..Evidence::nothing() }
    };
    // The log ends before counter 7 of who ruled. Of others it holds nothing that has to go.
    drop_rest(&shared, &holding(&[(1, 0), (1, 90), (2, 6), (5, 3)]), &chain, Counter(7)).unwrap();
    assert!(dropped().is_empty());
    drop_rest(&shared, &holding(&[(2, 7), (3, 0)]), &chain, Counter(7)).unwrap();
    assert_eq!(dropped(), [(rank(3).1, 0), (rank(2).1, 7)]);
    drop_rest(&shared, &holding(&[(2, 6), (4, 12)]), &chain, Counter(7)).unwrap();
    assert_eq!(dropped()[2..], [(rank(4).1, 0)]);
}

/// What the decision says of those before: it is all that later starts know of them.
#[tokio::test(start_paused = true)]
async fn a_decision_never_passes_its_own_writer_over() {
    let left = Left::new().await;
    let shared = left.writer.shared();
    let other = IncarnationId::from_bytes([3; 16]);
    let chain = Chain {
        stretches: Vec::new(),
        ruling: Some((Epoch(2), IncarnationId::from_bytes([2; 16]))),
        passed_over: vec![shared.writer.incarnation, other],
        ends: Vec::new(),
        marks: Seq(0),
        given_up_above: None,
    };
    let mut evidence = Evidence::nothing();
    evidence.lost = shared.fleet.providers()[..1].iter().map(|spec| spec.domain.clone()).collect();
    let tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(7)).unwrap();
    let end = End { may_have_lost: vec![Seq(6)], ..End::default() };
    let carried = vec![(Seq(5), Counter(0))];
    let Private::Decision(said) = decision(&shared, &chain, &end, &tip, carried.clone(), &evidence) else { panic!() };
    assert_eq!(said.predecessor, Some((IncarnationId::from_bytes([2; 16]), Epoch(2))));
    assert_eq!((said.last_valid, said.log_size, said.log_root), (Seq(5), tip.log.size(), tip.log.root()));
    assert_eq!((said.passed_over, said.may_have_lost, said.carried), (vec![other], vec![Seq(6)], carried));
    assert_eq!(said.lost_declared.len(), 1);
}

/// What is weak is written again from its first block on, under the names of who decides, and none of the copies says that it was acknowledged: if the
/// decision cannot be read, nobody was told so.
#[tokio::test(start_paused = true)]
async fn a_weak_tail_is_copied_in_its_order_and_counts_with_the_decision() {
    let mut world = World::new();
    written(&mut world, 6).await;
    // Sequence 7 lies on k domains only, and 8 behind it on all.
    lose(&world, 0..3, ranks(&world).await[0], 6).await;
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(engine.status().released_seq, 9);
    let view = engine.shared().ledger.snapshot().unwrap();
    let writers = (6..=9).map(|seq| view.commit_block(Seq(seq)).unwrap().unwrap().facts.incarnation == engine.shared().writer.incarnation);
    assert_eq!(writers.collect::<Vec<_>>(), [false, true, true, true]);
    drop(view);
    crash(engine);
    let (ground, book) = (onlooker(&world), crate::claim::ClaimBook::default());
    book.survey(&ground, None).await;
    let [first, second] = book.ranks()[..] else { panic!("two lives") };
    let read = async |rank: Rank, counter| {
        let subject = subject(&ground, &book, rank).await.unwrap();
        let judged = Evidence::nothing().judge(&ground, &subject, Counter(counter), Care::Tail).await.unwrap();
        let Verdict::Readable(found) = judged else { panic!("{judged:?}") };
        *found
    };
    for (counter, seq, kind) in [(0, 7, BlockKind::Commit), (1, 8, BlockKind::Commit), (2, 9, BlockKind::Decision)] {
        let found = read(second, counter).await;
        assert_eq!((found.seq(), found.manifest.position.kind, found.manifest.log.acked_through), (Seq(seq), kind, Seq(6)));
        assert!(found.domains > 3, "at quorum");
    }
    let (copy, original) = (read(second, 1).await, read(first, 7).await);
    assert_eq!((copy.manifest.log.log_root, copy.manifest.log.log_size), (original.manifest.log.log_root, original.manifest.log.log_size));
    assert_eq!(copy.records(&ground).unwrap(), original.records(&ground).unwrap());
    let (writer, decision) = super::super::chain::decision_in(&ground, &read(second, 2).await).unwrap().unwrap();
    assert_eq!((writer, decision.predecessor, decision.last_valid), (second.1, Some((first.1, first.0)), Seq(8)));
    assert_eq!(decision.carried, [(Seq(7), Counter(0)), (Seq(8), Counter(1))]);
    assert_eq!((decision.log_size, decision.log_root), (copy.manifest.log.log_size, copy.manifest.log.log_root));
    assert!(decision.may_have_lost.is_empty() && decision.passed_over.is_empty());
}
