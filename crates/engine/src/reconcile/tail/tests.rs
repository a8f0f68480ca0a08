//! Reading forward, step by step: what is applied on the way, what is held back, and what stops it.

use diaspore_testkit::FaultPlan;

use super::*;
use crate::claim::Rank;
use crate::reconcile::chain::subject;
use crate::reconcile::loss::is_missing;
use crate::reconcile::tests::left::Left;

/// What a reader with an empty disk reads of the five blocks that are there.
struct Reader {
    ground: Ground,
    book: ClaimBook,
    stretch: Stretch,
    marks: Seq,
}

impl Reader {
    /// Up to `through`, or of an incarnation that rules.
    async fn of(left: &Left, through: Option<u64>) -> Self {
        let (ground, book) = left.looked_at().await;
        let rank: Rank = book.ranks()[0];
        let subject = subject(&ground, &book, rank).await.unwrap();
        let stretch = Stretch { subject, from: Counter(0), through: through.map(Seq), base: 1, carried: None };
        Self { ground, book, stretch, marks: Seq(0) }
    }

    async fn closed(&mut self) -> Result<(), Error> {
        replay_closed(&self.ground, &self.book, &Evidence::nothing(), &self.stretch, &mut self.marks).await
    }

    async fn end(&mut self, next: u64) -> (Outcome<End>, Vec<u64>) {
        let mut pending = VecDeque::new();
        let end = find_end(&self.ground, &Evidence::nothing(), &self.stretch, Counter(next), &mut pending, &mut self.marks).await;
        (end, pending.iter().map(|found| found.seq().0).collect())
    }

    fn stands(&self) -> u64 {
        applied(&self.ground).unwrap().0
    }
}

#[tokio::test(start_paused = true)]
async fn a_stretch_whose_end_was_decided_is_applied_to_that_end_and_nothing_of_it_may_be_missing() {
    let left = Left::new().await;
    let mut three = Reader::of(&left, Some(3)).await;
    three.closed().await.unwrap();
    assert_eq!((three.stands(), three.marks), (3, Seq(2)), "each says that those before it are acknowledged");
    three.stretch.from = Counter(3);
    three.closed().await.unwrap();
    assert_eq!(three.stands(), 3, "there is no more of it");
    // What the disk does not continue is not applied.
    let mut behind = Reader::of(&left, Some(3)).await;
    behind.stretch.from = Counter(1);
    let fork = behind.closed().await.unwrap_err();
    assert!(fork.message.contains("fork: sequence 2") && !is_missing(&fork), "{fork}");
    left.lose(0..3, 1);
    Reader::of(&left, Some(3)).await.closed().await.unwrap();
    left.silence(3..4);
    let mut silent = Reader::of(&left, Some(3)).await;
    let missing = silent.closed().await.unwrap_err();
    assert!(is_missing(&missing) && missing.message.contains("sequence 2 of the decided log cannot be read: block 1"), "{missing}");
    assert_eq!(silent.stands(), 1);
    left.world.hostile[3].set_faults(FaultPlan::honest());
    left.lose(3..4, 1);
    let mut gone = Reader::of(&left, Some(3)).await;
    let missing = gone.closed().await.unwrap_err();
    assert!(is_missing(&missing) && missing.message.contains("sequence 2 lies inside the decided log"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn who_rules_is_read_up_to_the_first_block_that_is_not_plainly_there() {
    let left = Left::new().await;
    let read = async |reader: &mut Reader| {
        let Reader { ground, book, stretch, marks } = reader;
        let (pending, next) = replay_open(ground, book, &Evidence::nothing(), stretch, marks).await.unwrap().unwrap();
        (pending.iter().map(|found| found.seq().0).collect::<Vec<_>>(), next.0)
    };
    let mut whole = Reader::of(&left, None).await;
    assert_eq!(read(&mut whole).await, (vec![2, 3, 4, 5], 5));
    assert_eq!((whole.stands(), whole.marks), (1, Seq(4)));
    let mut shorter = Reader::of(&left, None).await;
    shorter.stretch.subject.window = 2;
    assert_eq!(read(&mut shorter).await, (vec![4, 5], 5));
    assert_eq!(shorter.stands(), 3);
    left.lose(0..4, 2);
    let mut holed = Reader::of(&left, None).await;
    assert_eq!(read(&mut holed).await, (vec![1, 2], 2));
    assert_eq!((holed.stands(), holed.marks), (0, Seq(1)));
}

/// Who was silent while the log was replayed may have answered since: the end is where nothing is found with all care.
#[tokio::test(start_paused = true)]
async fn what_a_replay_did_not_find_is_part_of_the_log_if_it_is_there_at_the_second_look() {
    let left = Left::new().await;
    let mut reader = Reader::of(&left, None).await;
    let (end, pending) = reader.end(0).await;
    let end = end.unwrap().unwrap();
    assert_eq!((end.next_counter, pending.as_slice()), (Counter(5), [2, 3, 4, 5].as_slice()));
    assert_eq!((reader.stands(), reader.marks), (1, Seq(4)));
    assert!(end.may_have_lost.is_empty());
}

/// Where the log ends is known from the first hole. What stands within a window behind it was under way with that, known or not.
#[tokio::test(start_paused = true)]
async fn a_doubt_behind_the_end_is_no_doubt_about_it() {
    let left = Left::new().await;
    left.plant(&left.next(2, 5)[1], 0..2).await;
    left.silence(5..6);
    let mut reader = Reader::of(&left, None).await;
    let (end, pending) = reader.end(5).await;
    assert_eq!((end.unwrap().unwrap().next_counter, pending.len()), (Counter(5), 0));
    // As the first hole it is one.
    let why = reader.end(6).await.0.unwrap().unwrap_err();
    assert!(why.contains("block 6") && why.contains("2 shards visible, 1 domains silent"), "{why}");
}
