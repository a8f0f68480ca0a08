//! Where the log ends, and what may be concluded from what is seen of one position (PROTOCOL rules 7 and 8).

use std::collections::BTreeSet;

use diaspore_block::id::{Counter, Seq};
use diaspore_policy::FailureDomain;

use super::left::{Left, NOBODY};
use super::loss::onlooker;
use super::*;
use crate::reconcile::chain::{self, Outcome};
use crate::reconcile::loss::{ALL_LATER, is_missing};
use crate::reconcile::position::{Care, Evidence, Subject, Verdict};
use crate::reconcile::tail::{self, End};
use crate::reconcile::too_few_to_decide;
use crate::shared::{Ground, Stage};

fn domains(ground: &Ground, homes: std::ops::Range<usize>) -> BTreeSet<FailureDomain> {
    ground.fleet.providers()[homes].iter().map(|spec| spec.domain.clone()).collect()
}

impl Left {
    /// The end as somebody finds it who begins with nothing, and how far the ledger came on the way.
    async fn end(&self, lost: std::ops::Range<usize>, witnessed: u64) -> (Outcome<End>, u64) {
        let (ground, book) = self.looked_at().await;
        let evidence = Evidence { lost: domains(&ground, lost), ..Evidence::nothing() };
        let chain = chain::find(&ground, &book, &evidence, NOBODY, None).await.unwrap().unwrap();
        let end = tail::read(&ground, &book, &evidence, &chain, (Seq(0), Seq(witnessed))).await;
        (end, ground.ledger.snapshot().unwrap().applied_seq().unwrap().0)
    }

    /// The last sequence and the next counter.
    async fn ends_at(&self) -> (u64, u64) {
        let end = self.end(0..0, 0).await.0.unwrap().unwrap();
        assert!(end.may_have_lost.is_empty());
        (end.last.0, end.next_counter.0)
    }

    /// That acknowledged data is missing, and what of.
    async fn misses(&self) -> String {
        let error = self.end(0..0, 0).await.0.unwrap_err();
        assert!(is_missing(&error), "{error}");
        error.message
    }

    async fn judged(&self, counter: u64, care: Care) -> Verdict {
        let ground = onlooker(&self.world);
        Evidence::nothing().judge(&ground, &self.subject(), Counter(counter), care).await.unwrap()
    }

    fn subject(&self) -> Subject {
        Subject { incarnation: self.writer.shared().writer.incarnation, k_floor: 3, usual_k: 3, window: 4, homes: None }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_window_waits_for_the_decision_and_the_rest_is_applied() {
    let left = Left::new().await;
    let (end, applied) = left.end(0..0, 5).await;
    let end = end.unwrap().unwrap();
    assert_eq!(end.pending.iter().map(|found| found.seq().0).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!((applied, end.last, end.next_counter), (1, Seq(5), Counter(5)));
    assert!(end.may_have_lost.is_empty() && end.adrift.is_none() && end.reason.is_none());
    let short = left.end(0..0, 6).await.0.unwrap_err();
    assert!(is_missing(&short) && short.message.contains("up to sequence 6") && short.message.contains("only up to 5"), "{short}");
}

#[tokio::test(start_paused = true)]
async fn what_reached_k_domains_is_part_of_the_log_and_what_did_not_is_not() {
    let left = Left::new().await;
    let blocks = left.next(2, 5);
    left.plant(&blocks[0], 0..2).await;
    assert_eq!(left.ends_at().await, (5, 5));
    left.plant(&blocks[1], 0..6).await;
    assert_eq!(left.ends_at().await, (5, 5), "nothing counts behind a hole");
    left.plant(&blocks[0], 2..3).await;
    assert_eq!(left.ends_at().await, (7, 7));
}

#[tokio::test(start_paused = true)]
async fn a_hole_may_be_followed_by_less_than_a_window() {
    let left = Left::new().await;
    let blocks = left.next(9, 5);
    left.plant(&blocks[3], 0..1).await;
    assert_eq!(left.ends_at().await, (5, 5), "they were all under way together");
    left.plant(&blocks[8], 0..6).await;
    assert_eq!(left.ends_at().await, (5, 5), "behind a window of nothing nobody looks");
    left.plant(&blocks[7], 0..1).await;
    assert!(left.misses().await.contains("sequence 6 cannot be read, but sequence 13"));
    left.plant(&blocks[4], 0..1).await;
    assert!(left.misses().await.contains("sequence 6 cannot be read, but sequence 10"));
}

#[tokio::test(start_paused = true)]
async fn what_any_block_says_was_acknowledged_must_be_there() {
    for (acked, homes) in [(6, 0..1), (6, 0..6), (5, 0..6)] {
        let left = Left::new().await;
        let blocks = left.next(2, acked);
        left.plant(&blocks[1], homes).await;
        if acked == 6 {
            assert!(left.misses().await.contains("up to sequence 6 was acknowledged, but the log can be read only up to 5"));
        } else {
            assert_eq!(left.ends_at().await, (5, 5));
        }
    }
}

/// The first hole may be where acknowledged data was: with so many silent nothing is concluded, unless somebody says that they are lost.
#[tokio::test(start_paused = true)]
async fn silence_that_could_hide_a_block_ends_nothing() {
    let left = Left::new().await;
    left.silence(4..6);
    assert_eq!(left.ends_at().await, (5, 5), "two cannot have k shards");
    left.silence(3..4);
    let why = left.end(0..0, 0).await.0.unwrap().unwrap_err();
    assert!(why.contains("block 5") && why.contains("3 domains silent"), "{why}");
    let declared = left.end(3..4, 0).await.0.unwrap().unwrap();
    assert_eq!((declared.last, declared.next_counter), (Seq(5), Counter(5)));
    assert_eq!(declared.may_have_lost, [Seq(6), Seq(7), Seq(8), Seq(9)], "on their word alone");
    left.world.hostile[5].set_faults(FaultPlan::honest());
    assert!(left.end(3..4, 0).await.0.unwrap().unwrap().may_have_lost.is_empty(), "that nobody's word is needed for");
}

#[tokio::test(start_paused = true)]
async fn a_log_without_a_decision_ends_where_the_disk_does() {
    let left = Left::new().await;
    let (ground, book) = left.looked_at().await;
    let chain = || chain::Chain {
        stretches: Vec::new(),
        ruling: None,
        passed_over: Vec::new(),
        ends: Vec::new(),
        marks: Seq(4),
        given_up_above: None,
    };
    let read = async |have, witnessed| tail::read(&ground, &book, &Evidence::nothing(), &chain(), (Seq(have), Seq(witnessed))).await;
    assert_eq!(read(4, 0).await.unwrap().unwrap().last, Seq(4));
    assert!(is_missing(&read(3, 0).await.unwrap_err()), "what the passed over say counts as well");
    assert!(is_missing(&read(4, 5).await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn two_blocks_under_one_name_are_a_fork() {
    let left = Left::new().await;
    left.plant(&left.next(1, 5)[0], 0..3).await;
    left.plant(&left.next(1, 5)[0], 3..6).await;
    let ground = onlooker(&left.world);
    for care in [Care::Tail, Care::Replay] {
        let judged = Evidence::nothing().judge(&ground, &left.subject(), Counter(5), care).await;
        if let Err(fork) = judged {
            assert!(fork.kind == ErrorKind::RefusedState && fork.message.contains("fork"), "{fork}");
        } else {
            assert_eq!(care, Care::Replay, "a replay may have met one of them alone");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_block_is_void_as_far_as_the_silent_cannot_have_it() {
    let left = Left::new().await;
    let judged = left.judged(5, Care::Tail).await;
    let Verdict::Unacknowledged { visible: false, on_word: false, acked_through: Seq(0), silent } = judged else { panic!("{judged:?}") };
    assert!(silent.is_empty());
    left.plant(&left.next(1, 4)[0], 0..2).await;
    let judged = left.judged(5, Care::Tail).await;
    let Verdict::Unacknowledged { visible: true, on_word: false, acked_through: Seq(4), .. } = judged else { panic!("{judged:?}") };
    left.silence(5..6);
    let ground = onlooker(&left.world);
    let nothing = left.judged(6, Care::Tail).await;
    assert!(matches!(&nothing, Verdict::Unacknowledged { silent, .. } if silent.is_empty()), "one shard would not help: {nothing:?}");
    let judged = left.judged(5, Care::Tail).await;
    let Verdict::Undetermined { visible: true, why, silent } = judged else { panic!("{judged:?}") };
    assert_eq!(silent, domains(&ground, 5..6));
    assert!(why.contains("2 shards visible, 1 domains silent"), "{why}");
    // Whoever was lost by declaration does not say anything any more, and is not waited for.
    let evidence = Evidence { lost: domains(&ground, 5..6), ..Evidence::nothing() };
    let judged = evidence.judge(&ground, &left.subject(), Counter(5), Care::Tail).await.unwrap();
    let Verdict::Unacknowledged { visible: true, on_word: true, silent, .. } = judged else { panic!("{judged:?}") };
    assert!(silent.is_empty());
    // Nor is who cannot have it, as its writer said; but a home that is not configured any more may have it.
    let homes = |homes: BTreeSet<FailureDomain>| Subject { homes: Some(homes), ..left.subject() };
    let judged = async |subject: Subject| Evidence::nothing().judge(&ground, &subject, Counter(5), Care::Tail).await.unwrap();
    let narrow = judged(homes(domains(&ground, 0..5))).await;
    assert!(matches!(narrow, Verdict::Unacknowledged { on_word: false, .. }), "{narrow:?}");
    let mut gone = domains(&ground, 0..5);
    gone.insert(FailureDomain::new("elsewhere"));
    let gone = judged(homes(gone)).await;
    assert!(matches!(&gone, Verdict::Undetermined { silent, .. } if silent.is_empty()), "nobody who is configured could help: {gone:?}");
}

/// A replay takes k shards of the first attempt and leaves it at that; who wants to know how many domains have it asks them all.
#[tokio::test(start_paused = true)]
async fn a_block_is_found_in_any_k_shards_and_counted_on_all_its_domains() {
    let left = Left::new().await;
    let ground = onlooker(&left.world);
    // Its claim may have named another k than it was written with.
    for usual_k in [1, 6] {
        let judged = Evidence::nothing().judge(&ground, &Subject { usual_k, ..left.subject() }, Counter(2), Care::Replay).await;
        assert!(matches!(judged, Ok(Verdict::Readable(found)) if found.domains == 6 && !found.partial), "{usual_k}");
    }
    let Verdict::Readable(mut found) = left.judged(2, Care::Replay).await else { panic!() };
    assert!(found.partial && (3..6).contains(&found.domains), "{}", found.domains);
    found.count_domains(&ground).await;
    assert_eq!((found.partial, found.domains, found.seq()), (false, 6, Seq(3)));
    left.lose(0..2, 2);
    let Verdict::Readable(found) = left.judged(2, Care::Tail).await else { panic!() };
    assert_eq!((found.partial, found.domains), (false, 4));
    let applied = found.applied(&ground).unwrap();
    assert_eq!(applied.facts.placements.iter().map(|place| place.shard).collect::<Vec<_>>().len(), 4);
    assert!(applied.facts.placements.iter().all(|place| place.acked && !["p0", "p1"].contains(&place.provider.as_str())));
    left.lose(2..3, 2);
    assert!(matches!(left.judged(2, Care::Replay).await, Verdict::Readable(_)), "three are enough");
    left.lose(3..4, 2);
    for care in [Care::Replay, Care::Tail] {
        assert!(matches!(left.judged(2, care).await, Verdict::Unacknowledged { visible: true, .. }));
    }
}

/// Where everybody has to be asked for every attempt, whoever is slow is waited for once. A replay waits twice where it must, and asks each for
/// one object where the first attempt is enough.
#[tokio::test(start_paused = true)]
async fn four_attempts_do_not_take_four_times_as_long() {
    let left = Left::new().await;
    let gets = || left.world.hostile.iter().map(|store| store.requests(Op::Get)).sum::<u64>();
    let pause = std::time::Duration::from_millis(50);
    let slow = Misbehaviour::Latency { fixed: pause, jitter: std::time::Duration::ZERO };
    left.world.hostile.iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(slow))));
    for (counter, care, waits, asked) in [(2, Care::Replay, 1, 6), (5, Care::Tail, 1, 24), (5, Care::Replay, 2, 24)] {
        let (begun, before) = (tokio::time::Instant::now(), gets());
        left.judged(counter, care).await;
        let took = begun.elapsed();
        assert!(took >= pause * waits && took < pause * (waits + 1), "{counter} {care:?}: {took:?}");
        assert!(gets() - before <= asked, "{counter} {care:?}: {} requests", gets() - before);
    }
}

/// The journal adds content: what it holds is there for whoever replays, and whoever wants to know on how many domains it lies asks them.
#[tokio::test(start_paused = true)]
async fn a_block_that_the_journal_holds_is_readable_wherever_it_lies() {
    let left = Left::new().await;
    let built = left.next(1, 5).remove(0);
    left.plant(&built, 0..2).await;
    let JournalEntry::Block(issued) = built.journal_entry() else { panic!("a block") };
    let key = (left.subject().incarnation, Counter(5));
    let evidence = |issued| Evidence { held: std::collections::BTreeMap::from([(key, vec![issued])]), ..Evidence::nothing() };
    let damaged = diaspore_ledger::IssuedBlock { manifest: issued.manifest.slice(1..), ..issued.clone() };
    let held = evidence(issued);
    let ground = onlooker(&left.world);
    let judged = async |evidence: &Evidence, care| evidence.judge(&ground, &left.subject(), Counter(5), care).await.unwrap();
    let gets = || left.world.hostile.iter().map(|store| store.requests(Op::Get)).sum::<u64>();
    let before = gets();
    let Verdict::Readable(mut found) = judged(&held, Care::Replay).await else { panic!("it is held") };
    assert_eq!((found.seq(), found.partial, gets()), (Seq(6), true, before), "nobody is asked");
    found.count_domains(&ground).await;
    assert_eq!((found.domains, found.partial), (2, false));
    let Verdict::Readable(found) = judged(&held, Care::Tail).await else { panic!("it is held") };
    assert_eq!((found.seq(), found.domains, found.partial), (Seq(6), 2, false));
    let placements = found.applied(&ground).unwrap().facts.placements;
    assert_eq!(placements.iter().map(|at| (at.shard, at.provider.as_str())).collect::<Vec<_>>(), [(0, "p0"), (1, "p1")]);
    // A journal that is damaged there holds nothing.
    for care in [Care::Replay, Care::Tail] {
        assert!(matches!(judged(&evidence(damaged.clone()), care).await, Verdict::Unacknowledged { visible: true, .. }));
    }
}

/// Nobody may decide on k domains, and the operator asked what can be read: it is shown, and what it lacks is said.
#[tokio::test(start_paused = true)]
async fn a_recovery_with_too_few_domains_shows_what_it_read_and_a_start_shows_nothing() {
    let left = Left::new().await;
    let (ground, book) = left.looked_at().await;
    let chain = chain::find(&ground, &book, &Evidence::nothing(), NOBODY, None).await.unwrap().unwrap();
    let end = tail::read(&ground, &book, &Evidence::nothing(), &chain, (Seq(0), Seq(0))).await.unwrap().unwrap();
    let few = crate::api::Error::new(ErrorKind::TooFewDomains, "bring back 2 more");
    let stands = || ground.ledger.snapshot().unwrap().applied_seq().unwrap().0;
    let shown = |mode: Mode, end: &End| {
        let mut ground = ground.clone();
        ground.config.mode = mode;
        let shared = too_few_to_decide(ground, end, &few).unwrap();
        assert_eq!(crate::layout::of_commit_blocks(&shared).unwrap_err().kind, ErrorKind::ReadOnly, "nothing is written either way");
        shared.stage.get()
    };
    assert!(matches!(shown(Mode::Start, &end), Stage::Undetermined(why) if why == "bring back 2 more"));
    assert_eq!(stands(), 1, "the tail waits for a decision");
    let Stage::ReadOnly(why) = shown(super::loss::RECOVER, &end) else { panic!("it was asked for") };
    assert_eq!((why.as_str(), stands()), ("recovered without a decision: bring back 2 more", 5));
    let lacking = End { may_have_lost: vec![Seq(6), ALL_LATER], ..End::default() };
    let Stage::ReadOnly(why) = shown(super::loss::RECOVER, &lacking) else { panic!("it was asked for") };
    assert!(why.ends_with("acknowledged writes may have been lost at sequence 6, everything later"), "{why}");
}
