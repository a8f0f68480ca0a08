//! Who owned the log where, by the little that is left of them.

use diaspore_block::id::Epoch;

use super::*;
use crate::reconcile::tests::left::{Left, NOBODY};

fn rank(epoch: u8) -> Rank {
    (Epoch(u64::from(epoch)), IncarnationId::from_bytes([epoch; 16]))
}

/// Epoch, first and last sequence, and from where on it owns the log.
fn writer((epoch, first, last, own_from): (u8, u64, u64, Option<u64>)) -> Writer {
    let subject = Subject { incarnation: rank(epoch).1, k_floor: 3, usual_k: 3, window: 4, homes: None };
    Writer { rank: rank(epoch), subject, first: Seq(first), own_from: own_from.map(Seq), decision: None, last: Seq(last) }
}

fn remains(writers: &[(u8, u64, u64, Option<u64>)]) -> Remains {
    Remains { writers: writers.iter().copied().map(writer).collect(), ..Remains::default() }
}

/// Blocks of an incarnation whose first sequence is 100, by their counters: whether it is the decision, and what it says was acknowledged.
fn seen(blocks: &[(u64, bool, u64)]) -> BTreeMap<u64, Glimpse> {
    let glimpse = |(counter, decides, acked): &(u64, bool, u64)| {
        let kind = if *decides { BlockKind::Decision } else { BlockKind::Commit };
        (*counter, Glimpse { seq: Seq(100 + counter), kind, acked: Seq(*acked) })
    };
    blocks.iter().map(glimpse).collect()
}

#[test]
fn an_incarnation_owns_the_log_from_its_decision_on_or_from_as_far_as_its_copies_may_reach() {
    let owns = |blocks: &[(u64, bool, u64)], is_read| own_from(&seen(blocks), (100, 4), is_read).map(|seq| seq.0);
    assert_eq!(owns(&[(0, false, 99), (3, true, 99)], true), Some(103), "the decision was read");
    assert_eq!(owns(&[(0, false, 99), (3, true, 99)], false), None, "it may be on one domain, and never have counted");
    assert_eq!(owns(&[(3, true, 99), (4, false, 103)], false), Some(103), "somebody served on it");
    // The decision itself is not seen.
    assert_eq!(owns(&[(0, false, 99), (4, false, 99)], false), None, "a window of copies");
    assert_eq!(owns(&[(0, false, 99), (5, false, 99)], false), Some(104), "more than that was never copied");
    assert_eq!(owns(&[(0, false, 99), (3, false, 99)], false), None, "what was acknowledged before is no word on itself");
    assert_eq!(owns(&[(1, false, 99), (3, false, 100)], false), Some(102), "decided before it said so");
    assert_eq!(owns(&[(9, false, 108)], false), Some(104));
    assert_eq!(owns(&[(0, false, 100)], false), Some(100));
    assert_eq!((decided_at(&seen(&[(1, false, 0)])), decided_at(&seen(&[(1, false, 0), (2, true, 0)]))), (None, Some(2)));
}

#[test]
fn every_position_has_its_writers_newest_first_down_to_whoever_owned_the_log_there() {
    // The first up to 50, the second copied from 47 on and decided at 51, the third copied from 58 on and nothing tells that it decided.
    let remains = remains(&[(1, 1, 50, Some(1)), (2, 47, 60, Some(51)), (3, 58, 61, None)]);
    let at = |seq| remains.candidates(Seq(seq)).map(|writer| writer.rank.0.0).collect::<Vec<_>>();
    assert_eq!((at(1), at(46)), (vec![1], vec![1]));
    assert_eq!((at(47), at(50)), (vec![2, 1], vec![2, 1]), "copies and what they are copies of");
    assert_eq!((at(51), at(57)), (vec![2], vec![2]));
    assert_eq!((at(58), at(99)), (vec![3, 2], vec![3, 2]));
    assert!(at(0).is_empty());
    assert_eq!(remains.last(), Seq(61));
    assert_eq!(Remains { marks: Seq(70), ..remains }.last(), Seq(70), "what is said to have been acknowledged");
    assert_eq!(Remains::default().last(), Seq(0));
}

#[test]
fn a_state_counts_unless_somebody_newer_owned_the_log_there() {
    let mut remains = remains(&[(1, 1, 50, Some(1)), (3, 47, 60, Some(51))]);
    remains.empty.push(rank(2));
    let admits = |remains: &Remains, epoch, seq| remains.admits(rank(epoch).1, Seq(seq));
    assert!(admits(&remains, 1, 50) && !admits(&remains, 1, 51), "the third decided there");
    assert!(admits(&remains, 3, 51) && admits(&remains, 3, 500), "nobody is newer");
    // Of the second only a claim is left.
    assert!(admits(&remains, 2, 50) && !admits(&remains, 2, 51));
    // Of this one not even that: whoever went on behind its state knew nothing of it.
    assert!(
        admits(&remains, 9, 60) && !admits(&remains, 9, 59) && !admits(&remains, 9, 30),
        "the first wrote up to 50, the third up to 60"
    );
    remains.passed.insert(rank(3).1);
    assert!(!admits(&remains, 3, 51), "a later decision passed it over");
    // Who never decided contradicts nobody.
    let undecided = super::tests::remains(&[(1, 1, 50, Some(1)), (3, 47, 60, None)]);
    assert!(undecided.admits(rank(1).1, Seq(55)));
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_known_by_its_headers_alone() {
    for (lost, decides) in [(0..0, true), (0..4, true), (0..6, false)] {
        let left = Left::new().await;
        left.lose(lost.clone(), 0);
        // Of the last block two shards are left, of one far behind it one.
        left.lose(0..4, 4);
        let far = left.next(8, 7).pop().unwrap();
        left.plant(&far, 2..3).await;
        let (ground, book) = left.looked_at().await;
        let hints = Hints::gather(&ground).await;
        let remains = Remains::find(&ground, &book, &Evidence::nothing(), &hints, (None, Seq(0))).await.unwrap();
        let [writer] = remains.writers.as_slice() else { panic!("{remains:?}") };
        assert_eq!((writer.rank, writer.first, writer.last), (book.ranks()[0], Seq(1), Seq(13)), "{lost:?}");
        assert_eq!((writer.decision.is_some(), remains.marks, remains.last()), (lost.is_empty(), Seq(7), Seq(13)));
        // Its first own word: the second block says that the first was acknowledged.
        assert_eq!(writer.own_from, Some(Seq(1)), "{lost:?} {decides}");
        let spot = async |seq, below| remains.look(&ground, &Evidence::nothing(), Seq(seq), below).await.unwrap();
        assert!(matches!(spot(2, None).await, Spot::Found(found, rank) if found.seq() == Seq(2) && rank == writer.rank));
        assert!(matches!(spot(2, Some(writer.rank)).await, Spot::Gap(waiting) if waiting.is_empty()), "nobody is older");
        assert!(matches!(spot(2, Some(NOBODY)).await, Spot::Found(..)));
        assert!(matches!(spot(5, None).await, Spot::Gap(waiting) if waiting.is_empty()));
        // Who may have what is missing is waited for.
        left.silence(0..2);
        let (ground, _) = left.looked_at().await;
        assert!(
            matches!(remains.look(&ground, &Evidence::nothing(), Seq(5), None).await.unwrap(), Spot::Gap(waiting) if waiting.len() == 2)
        );
    }
}

/// Without hints only the first blocks are looked for, and an incarnation of which nothing is visible left nothing but its claim.
#[tokio::test(start_paused = true)]
async fn what_is_far_from_the_beginning_is_found_by_hints_and_what_is_not_there_is_not() {
    let left = Left::new().await;
    let far = left.next(8, 7).pop().unwrap();
    left.plant(&far, 2..3).await;
    let (ground, book) = left.looked_at().await;
    let find = async |hints: &Hints, own| Remains::find(&ground, &book, &Evidence::nothing(), hints, (own, Seq(0))).await.unwrap();
    let near = find(&Hints::default(), None).await;
    assert_eq!((near.writers[0].last, near.marks), (Seq(5), Seq(4)));
    let own = find(&Hints::default(), Some(book.ranks()[0])).await;
    assert!(own.writers.is_empty() && own.empty.is_empty(), "whoever looks does not count itself");
    book.learn(rank(9));
    assert_eq!(find(&Hints::default(), None).await.empty, [rank(9)]);
    // Everything near its beginning is gone.
    for counter in 0..5 {
        left.lose(0..6, counter);
    }
    assert!(find(&Hints::default(), None).await.writers.is_empty());
    let hinted = find(&Hints::gather(&ground).await, None).await;
    assert_eq!((hinted.writers[0].first, hinted.writers[0].last, hinted.writers[0].own_from), (Seq(1), Seq(13), Some(Seq(5))));
}

#[tokio::test(start_paused = true)]
async fn listings_tell_which_counters_there_are_until_a_long_stretch_shows_none() {
    let left = Left::new().await;
    let (ground, _) = left.looked_at().await;
    let incarnation = rank(1).1;
    let place = |counter| Place { kind: BlockKind::Commit, incarnation, counter: Counter(counter), attempt: Attempt(0) };
    let listed = |provider: &str, counters: &[(u64, u64)]| {
        let name = |(counter, size): &(u64, u64)| (short(&ground.names.shard(&place(*counter).at(provider))), *size);
        let mut names: Vec<_> = counters.iter().map(name).collect();
        names.sort_unstable();
        (ProviderId::new(provider).unwrap(), names)
    };
    let hints = Hints(vec![listed("p0", &[(3, 10), (7, 20), (3 + BEYOND, 30)]), listed("p1", &[(7, 40), (7 + 2 * BEYOND, 50)])]);
    let counters = |from| hints.counters(&ground, BlockKind::Commit, incarnation, from);
    assert_eq!(counters(0), [3, 7, 3 + BEYOND], "a stretch without any ends it");
    assert_eq!((counters(4), counters(7), counters(8)), (vec![7, 3 + BEYOND], vec![7, 3 + BEYOND], vec![3 + BEYOND]));
    assert_eq!(counters(8 + BEYOND), [7 + 2 * BEYOND]);
    assert!(hints.counters(&ground, BlockKind::Bulk, incarnation, 0).is_empty(), "those have other names");
    let sizes = |counter| hints.sizes(&ground, place(counter)).collect::<Vec<_>>();
    assert_eq!((sizes(3), sizes(7), sizes(4)), (vec![10], vec![20, 40], vec![]));
    assert_eq!((hints.objects(), Hints::default().objects()), (5, 0));
    assert!(Hints(vec![listed("p0", &[])]).counters(&ground, BlockKind::Commit, incarnation, 0).is_empty());
}

/// Whatever is left of a block tells of it: one shard under any attempt, or the journal.
#[tokio::test(start_paused = true)]
async fn a_block_is_glimpsed_under_every_attempt_and_in_the_journal() {
    let left = Left::new().await;
    let (ground, book) = left.looked_at().await;
    let find = async |evidence: &Evidence| {
        let mut found = Remains::find(&ground, &book, evidence, &Hints::default(), (None, Seq(0))).await.unwrap();
        (found.writers.remove(0).last, found.marks)
    };
    assert_eq!(find(&Evidence::nothing()).await, (Seq(5), Seq(4)));
    let diaspore_ledger::JournalEntry::Block(issued) = left.next(2, 6).remove(1).journal_entry() else { panic!("a block") };
    let held = BTreeMap::from([((book.ranks()[0].1, Counter(6)), vec![issued])]);
    assert_eq!(find(&Evidence { held, ..Evidence::nothing() }).await, (Seq(7), Seq(6)));
    // What is damaged there says where to look.
    let diaspore_ledger::JournalEntry::Block(issued) = left.next(1, 5).remove(0).journal_entry() else { panic!("a block") };
    let damaged = diaspore_ledger::IssuedBlock { manifest: issued.manifest.slice(1..), ..issued };
    let held = BTreeMap::from([((book.ranks()[0].1, Counter(5)), vec![damaged])]);
    let evidence = Evidence { held, ..Evidence::nothing() };
    assert_eq!(find(&evidence).await, (Seq(5), Seq(4)));
    left.plant(&left.next_under(Attempt(3), 1, 5)[0], 2..3).await;
    assert_eq!(find(&evidence).await, (Seq(6), Seq(5)));
}
