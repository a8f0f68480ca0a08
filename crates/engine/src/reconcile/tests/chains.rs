//! Who ruled when, as the decisions say: for every place where a disk may stand.

use diaspore_block::claim::Claim;
use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId, Seq};
use diaspore_block::name::Names;
use diaspore_ledger::ChainEntry;

use super::left::{Left, NOBODY};
use super::loss::{RECOVER, accepted, lose, onlooker, onlooker_on, ranks, refused, written};
use super::*;
use crate::claim::{ClaimBook, Rank};
use crate::reconcile::chain::{self, Chain, LARGEST_WINDOW, Local, Outcome, decided_subject, older_copy};
use crate::reconcile::loss::is_missing;
use crate::reconcile::position::Evidence;

/// Three lives: a decision, a tenant and two buckets; then twice a decision and two buckets. They begin at sequences 1, 5 and 8, and the last one
/// ends at 10. With the disk as each of them left it.
pub(super) async fn lives() -> (World, Vec<MemoryMedium>) {
    let (mut world, mut disk, mut disks) = (World::new(), MemoryMedium::new(), Vec::new());
    for life in 0..3 {
        let engine = world.start(&disk, Mode::Start).await.unwrap();
        fill(&engine, &world, 2 * life..2 * life + 2).await;
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        disk = disk.snapshot();
        disks.push(disk.snapshot());
        crash(engine);
    }
    (world, disks)
}

async fn found(world: &World, local: Option<Local>) -> Outcome<Chain> {
    found_on(world, &MemoryMedium::new(), local).await
}

/// The same, where `disk` knows some of the decisions.
async fn found_on(world: &World, disk: &MemoryMedium, local: Option<Local>) -> Outcome<Chain> {
    let (ground, book) = (onlooker_on(world, &disk.snapshot()), ClaimBook::default());
    book.survey(&ground, None).await;
    chain::find(&ground, &book, &Evidence::nothing(), NOBODY, local).await
}

/// Where each stretch begins in the log, the first counter that is lacking, the last sequence that counts, and below which its blocks are copies.
fn stretches(chain: &Chain) -> Vec<(u64, u64, Option<u64>, Option<u64>)> {
    let of = |stretch: &chain::Stretch| {
        (stretch.base, stretch.from.0, stretch.through.map(|seq| seq.0), stretch.carried.map(|(_, below)| below.0))
    };
    chain.stretches.iter().map(of).collect()
}

/// Puts a claim of somebody who never decided at every provider.
async fn claimed(world: &World, epoch: u64, id: u8) -> Rank {
    let rank = (Epoch(epoch), IncarnationId::from_bytes([id; 16]));
    let claim = Claim { k_floor: 2, window: 7, ..world.claim(epoch, rank.1) };
    world.place(&claim).await;
    rank
}

#[tokio::test(start_paused = true)]
async fn a_disk_lacks_what_stands_behind_it_wherever_that_was_written() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    let at = |life: usize, seq, counter| Some(Local { seq: Seq(seq), incarnation: all[life].1, counter: Counter(counter) });
    let second = (5, 0, Some(7), Some(5));
    let third = (8, 0, None, Some(8));
    let chain = found(&world, None).await.unwrap().unwrap();
    assert_eq!(stretches(&chain), [(1, 0, Some(4), None), second, third]);
    assert_eq!((chain.ruling, chain.passed_over.len(), chain.marks, chain.given_up_above), (Some(all[2]), 0, Seq(8), None));
    assert_eq!(chain.ends, [(all[1].1, Seq(7)), (all[0].1, Seq(4))]);
    let cases = [
        (at(0, 2, 1), vec![(1, 2, Some(4), None), second, third]),
        (at(0, 4, 3), vec![second, third]),
        (at(1, 5, 0), vec![(5, 1, Some(7), None), third]),
        (at(1, 7, 2), vec![third]),
        (at(2, 8, 0), vec![(8, 1, None, None)]),
        (at(2, 10, 2), vec![(8, 3, None, None)]),
    ];
    for (local, lacks) in cases {
        let chain = found(&world, local).await.unwrap().unwrap();
        assert_eq!((stretches(&chain), chain.ruling), (lacks, Some(all[2])), "{local:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_beside_the_log_is_a_fork() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    let stranger = IncarnationId::from_bytes([77; 16]);
    let beside = [(all[0].1, 5, 4), (all[1].1, 8, 3), (stranger, 3, 2), (stranger, 6, 1), (stranger, 20, 1)];
    for (incarnation, seq, counter) in beside {
        let fork = found(&world, Some(Local { seq: Seq(seq), incarnation, counter: Counter(counter) })).await.unwrap_err();
        assert!(fork.kind == ErrorKind::RefusedState && fork.message.contains("fork") && !is_missing(&fork), "{fork}");
    }
    let nothing = World::new();
    assert!(stretches(&found(&nothing, None).await.unwrap().unwrap()).is_empty());
    let wrong = found(&nothing, Some(Local { seq: Seq(3), incarnation: stranger, counter: Counter(0) })).await.unwrap_err();
    assert!(wrong.message.contains("which no provider knows"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn who_claimed_and_never_decided_is_passed_over() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    let late = [claimed(&world, 9, 9).await, claimed(&world, 10, 8).await];
    // Of old ones nobody asks any more.
    let old = claimed(&world, 1, 7).await;
    let chain = found(&world, None).await.unwrap().unwrap();
    assert_eq!((chain.ruling, chain.passed_over.as_slice()), (Some(all[2]), [late[1].1, late[0].1].as_slice()));
    assert!(!chain.passed_over.contains(&old.1) && stretches(&chain).len() == 3);
    // Whoever looks is none of those before it.
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    book.survey(&ground, None).await;
    let chain = chain::find(&ground, &book, &Evidence::nothing(), late[1], None).await.unwrap().unwrap();
    assert_eq!((chain.ruling, chain.passed_over.as_slice()), (Some(all[2]), [late[0].1].as_slice()));
}

/// Too few shards of a decision are left to read it, so its writer seems never to have decided. What its blocks say was acknowledged is not
/// forgotten with it.
#[tokio::test(start_paused = true)]
async fn who_is_passed_over_is_still_a_witness() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    lose(&world, 0..4, all[2], 0).await;
    let chain = found(&world, None).await.unwrap().unwrap();
    assert_eq!((chain.ruling, chain.passed_over.as_slice()), (Some(all[1]), [all[2].1].as_slice()));
    assert!(chain.marks >= Seq(8), "{}", chain.marks);
    let of_newest = chain.marks;
    // So are blocks that cannot be read themselves.
    lose(&world, 0..4, all[2], 1).await;
    lose(&world, 0..4, all[2], 2).await;
    assert_eq!(found(&world, None).await.unwrap().unwrap().marks, of_newest);
}

#[tokio::test(start_paused = true)]
async fn a_decision_in_between_that_cannot_be_read_is_missing() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    let at = |life: usize, seq, counter| Some(Local { seq: Seq(seq), incarnation: all[life].1, counter: Counter(counter) });
    lose(&world, 0..4, all[1], 0).await;
    assert!(is_missing(&found(&world, None).await.unwrap_err()));
    assert!(is_missing(&found(&world, at(0, 4, 3)).await.unwrap_err()), "where the second began is not known");
    // Nor whether what it ends with is a copy of what an earlier one wrote there; behind that nobody else wrote.
    assert!(is_missing(&found(&world, at(0, 7, 6)).await.unwrap_err()));
    assert!(found(&world, at(0, 8, 7)).await.unwrap_err().message.contains("fork"));
    assert_eq!(stretches(&found(&world, at(1, 6, 1)).await.unwrap().unwrap()), [(5, 2, Some(7), None), (8, 0, None, Some(8))]);
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_from_the_silence_of_somebody_unknown() {
    let (world, _) = lives().await;
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    let rank = claimed(&world, 9, 9).await;
    let unknown = decided_subject(&ground, &book, rank).await;
    assert_eq!((unknown.k_floor, unknown.usual_k, unknown.window, unknown.homes.is_none()), (1, 3, LARGEST_WINDOW, true), "not listed yet");
    book.survey(&ground, None).await;
    let known = decided_subject(&ground, &book, rank).await;
    assert_eq!((known.k_floor, known.usual_k, known.window), (2, 3, 7));
    assert_eq!(known.homes.unwrap(), ground.fleet.domains());
    assert_eq!((known.incarnation, unknown.incarnation), (rank.1, rank.1));
    // Who is not configured any more may hold something all the same.
    let mut other = world.claim(11, IncarnationId::from_bytes([11; 16]));
    other.providers[5] = "p9".to_owned();
    world.place(&other).await;
    let homes = chain::subject(&ground, &book, other.rank()).await.unwrap().homes.unwrap();
    assert_eq!(homes.difference(&ground.fleet.domains()).collect::<Vec<_>>(), [&diaspore_policy::FailureDomain::new("p9")]);
    assert_eq!((homes.len(), ground.fleet.domains().difference(&homes).count()), (6, 1));
    // A disk that was there knows the floor.
    let note = diaspore_ledger::IncarnationNote {
        incarnation: IncarnationId::from_bytes([5; 16]),
        epoch: Epoch(3),
        started: Timestamp(1),
        k_floor: 2,
    };
    ground.ledger.append(JournalEntry::Chain(note.clone())).unwrap();
    let noted = chain::subject(&ground, &book, (Epoch(3), note.incarnation)).await.unwrap();
    assert_eq!((noted.k_floor, noted.usual_k, noted.window, noted.homes.is_none()), (2, 2, 4, true));
    assert!(chain::subject(&ground, &book, (Epoch(3), IncarnationId::from_bytes([6; 16]))).await.is_none());
}

#[test]
fn an_incarnation_ends_where_the_decision_behind_it_says() {
    let id = |byte| IncarnationId::from_bytes([byte; 16]);
    let chain = Chain {
        stretches: Vec::new(),
        ruling: None,
        passed_over: Vec::new(),
        ends: vec![(id(2), Seq(20)), (id(1), Seq(10))],
        marks: Seq(0),
        given_up_above: None,
    };
    let entry = |predecessor, last_valid| ChainEntry {
        seq: Seq(last_valid + 1),
        incarnation: id(9),
        predecessor: Some((id(predecessor), Epoch(1))),
        last_valid: Seq(last_valid),
        may_have_lost: Vec::new(),
        lost_declared: Vec::new(),
    };
    let known = [entry(1, 11), entry(3, 5), ChainEntry { predecessor: None, ..entry(4, 7) }];
    let ends = [1, 2, 3, 4].map(|of| chain.end_of(id(of), &known).map(|seq| seq.0));
    assert_eq!(ends, [Some(10), Some(20), Some(5), None], "what was just read comes before what the disk knew");
}

/// A tail that lay on three of six was carried over. What was copied can be had from where it was first written, and nothing else can.
#[tokio::test(start_paused = true)]
async fn the_first_copy_of_what_was_carried_over_stands_in_for_it() {
    let mut world = World::new();
    let disk = super::loss::written(&mut world, 6).await;
    let end = disk.snapshot();
    for at in 0..3 {
        world.wipe(at).await;
    }
    let engine = world.start(&MemoryMedium::new(), super::loss::RECOVER).await.unwrap();
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let last = {
        let ledger = Ledger::open(end, &world.keys.ledger, OpenMode::ReadWrite, Box::new(StdRng::seed_from_u64(5))).unwrap();
        ledger.snapshot().unwrap().applied_seq().unwrap().0
    };
    let all = ranks(&world).await;
    let (ground, book, evidence) = (onlooker(&world), ClaimBook::default(), Evidence::nothing());
    book.survey(&ground, None).await;
    let chain = chain::find(&ground, &book, &evidence, NOBODY, None).await.unwrap().unwrap();
    assert_eq!(stretches(&chain)[1], (last - 3, 0, None, Some(last + 1)), "a window of copies");
    let ruling = chain.stretches.last().unwrap();
    let copy = async |seq: u64| older_copy(&ground, &book, &evidence, ruling, Seq(seq)).await.unwrap().map(|found| found.manifest);
    for seq in last - 3..=last {
        let manifest = copy(seq).await.unwrap();
        assert_eq!((manifest.position.incarnation, manifest.log.seq), (all[0].1, Seq(seq)));
    }
    assert!(copy(last + 1).await.is_none(), "that one it wrote itself");
    lose(&world, 3..4, all[0], last - 1).await;
    assert!(copy(last).await.is_none() && copy(last - 1).await.is_some());
}

/// A life of two blocks was carried over whole, its decision included. What became of the first copies changes nothing.
#[tokio::test(start_paused = true)]
async fn a_decision_that_was_carried_over_is_known_from_its_copy() {
    let mut world = World::new();
    let disk = super::loss::written(&mut world, 6).await.snapshot();
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 6..7).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    for at in 0..3 {
        world.wipe(at).await;
    }
    let engine = world.start(&MemoryMedium::new(), super::loss::RECOVER).await.unwrap();
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let all = ranks(&world).await;
    // Six buckets end at 8, the second life is 9 and 10, and both of these are carried over by the third.
    let whole = |chain: &Chain| {
        assert_eq!(stretches(chain), [(1, 0, Some(8), None), (9, 0, None, Some(11))]);
        assert_eq!(chain.ends, [(all[1].1, Seq(10)), (all[0].1, Seq(8))]);
        assert_eq!((chain.ruling, chain.passed_over.len()), (Some(all[2]), 0));
    };
    whole(&found(&world, None).await.unwrap().unwrap());
    let name = |at: usize| Names::new(&world.keys.name).commit(&format!("p{at}"), all[1].1, Counter(1), Attempt(0));
    let mut last = Vec::new();
    for at in 3..6 {
        let path = object_store::path::Path::from(name(at).as_str());
        last.push((path.clone(), world.stores[at].get(&path).await.unwrap().bytes().await.unwrap()));
    }
    for counter in 0..2 {
        lose(&world, 3..6, all[1], counter).await;
    }
    whole(&found(&world, None).await.unwrap().unwrap());
    // Disks that stand in the first life, at its end, and among what was copied; then those that hold more than was decided.
    let at = |life: usize, seq, counter| Some(Local { seq: Seq(seq), incarnation: all[life].1, counter: Counter(counter) });
    assert_eq!(stretches(&found(&world, at(0, 5, 4)).await.unwrap().unwrap()), [(1, 5, Some(8), None), (9, 0, None, Some(11))]);
    assert_eq!(stretches(&found(&world, at(0, 8, 7)).await.unwrap().unwrap()), [(9, 0, None, Some(11))]);
    assert_eq!(stretches(&found(&world, at(1, 9, 0)).await.unwrap().unwrap()), [(9, 1, None, Some(11))]);
    for beyond in [at(0, 9, 8), at(1, 11, 2)] {
        assert!(found(&world, beyond).await.unwrap_err().message.contains("fork"));
    }
    // So is where the first copies stand, whoever has to look for one of those.
    lose(&world, 0..4, all[2], 1).await;
    for (at, objects) in (3..6).zip(&last) {
        world.stores[at].put(&objects.0, objects.1.clone().into()).await.unwrap();
    }
    let (ground, book, evidence) = (onlooker(&world), ClaimBook::default(), Evidence::nothing());
    book.survey(&ground, None).await;
    let chain = chain::find(&ground, &book, &evidence, NOBODY, None).await.unwrap().unwrap();
    let first = async |seq: u64| older_copy(&ground, &book, &evidence, chain.stretches.last().unwrap(), Seq(seq)).await.unwrap();
    assert_eq!(first(10).await.map(|copy| (copy.seq(), copy.manifest.position.incarnation)), Some((Seq(10), all[1].1)));
    assert!(first(9).await.is_none() && first(11).await.is_none());
}

/// Where the log before it ended is what a disk has to know of who rules. It has that from the decision, once it has applied it; before, in the
/// midst of what was carried over, the providers tell.
#[tokio::test(start_paused = true)]
async fn a_disk_learns_from_providers_what_it_has_not_applied_of_who_rules() {
    let (world, disks) = lives().await;
    let all = ranks(&world).await;
    let at = |seq: u64| Some(Local { seq: Seq(seq), incarnation: all[2].1, counter: Counter(seq - 8) });
    let second_ends = [(all[1].1, Seq(7))];
    for ignorant in [&MemoryMedium::new(), &disks[1]] {
        let chain = found_on(&world, ignorant, at(8)).await.unwrap().unwrap();
        assert_eq!((chain.ends.as_slice(), chain.marks), (second_ends.as_slice(), Seq(8)));
    }
    let chain = found_on(&world, &disks[2], at(10)).await.unwrap().unwrap();
    assert_eq!((chain.ends.len(), chain.marks, stretches(&chain)), (0, Seq(0), vec![(8, 3, None, None)]), "it knows");
    // So it does not matter to that one what became of the decision.
    lose(&world, 0..4, all[2], 0).await;
    assert_eq!(stretches(&found_on(&world, &disks[2], at(10)).await.unwrap().unwrap()), [(8, 3, None, None)]);
}

/// A short log that lay on k domains was carried over whole, and nothing came behind the decision. Then the first block goes, with its copy.
///
/// The decision can be read, so everything before it was there and counted. No block says that of another, as what is carried over says
/// nothing was acknowledged, and the decision stands within a window of the hole: a start called the hole the end, and began a new log.
#[tokio::test(start_paused = true)]
async fn a_hole_below_a_decision_that_can_be_read_is_missing() {
    for hole in 0..3 {
        let mut world = World::new();
        written(&mut world, 1).await;
        for at in 0..3 {
            world.wipe(at).await;
        }
        let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
        assert_eq!(engine.status().released_seq, 4, "three that were carried over, and the decision");
        crash(engine);
        let all = ranks(&world).await;
        lose(&world, 0..4, all[1], hole).await;
        assert_eq!(stretches(&found(&world, None).await.unwrap().unwrap()), [(1, 0, None, Some(4))], "in the first writing");
        lose(&world, 3..4, all[0], hole).await;
        let chain = found(&world, None).await.unwrap().unwrap();
        assert_eq!((stretches(&chain), chain.ends.as_slice()), (vec![(1, 0, None, Some(4))], [(all[0].1, Seq(3))].as_slice()));
        let loss = refused(&mut world, &MemoryMedium::new()).await;
        assert_eq!((loss.kept_through, loss.known_through, loss.unknown), (hole, 4, vec![(hole + 1, hole + 1)]));
    }
}

/// A claim stands at every provider, and none of them shows what it says: whether its writer decided cannot be known from absence then.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_listed_and_cannot_be_read_leaves_all_open() {
    let (world, _) = lives().await;
    let all = ranks(&world).await;
    let late = claimed(&world, 9, 9).await;
    for (at, store) in world.stores.iter().enumerate() {
        let name = Names::new(&world.keys.name).claim(&format!("p{at}"), late.1, late.0);
        store.put(&name.as_str().into(), vec![0; 4096].into()).await.unwrap();
    }
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    // Somebody's claim names it.
    book.learn(late);
    book.survey(&ground, None).await;
    let why = chain::find(&ground, &book, &Evidence::nothing(), NOBODY, None).await.unwrap().unwrap_err();
    assert!(why.contains("cannot be read anywhere"), "{why}");
    let own = chain::find(&ground, &book, &Evidence::nothing(), late, None).await.unwrap().unwrap();
    assert_eq!(own.ruling, Some(all[2]));
    // One that is named and that nobody lists never counted.
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    for rank in &all {
        book.learn(*rank);
    }
    book.learn(late);
    let chain = chain::find(&ground, &book, &Evidence::nothing(), NOBODY, None).await.unwrap().unwrap();
    assert_eq!((chain.ruling, chain.passed_over.as_slice()), (Some(all[2]), [late.1].as_slice()));
}

/// Where an operator gave up what followed is known as long as a decision on the way says so, the first one or a later one.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_known_from_the_decisions_behind_it() {
    for (hole, kept) in [(0, 0), (3, 3)] {
        let mut world = World::new();
        written(&mut world, 6).await;
        lose(&world, 0..4, ranks(&world).await[0], hole).await;
        let loss = refused(&mut world, &MemoryMedium::new()).await;
        assert_eq!(loss.kept_through, kept);
        let disk = MemoryMedium::new();
        let engine = accepted(&mut world, &disk, &loss.token).await.unwrap();
        fill(&engine, &world, 20..21).await;
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        let disk = disk.snapshot();
        crash(engine);
        assert_eq!(found(&world, None).await.unwrap().unwrap().given_up_above, Some(Seq(kept)));
        crash(world.start(&disk, Mode::Start).await.unwrap());
        let later = found(&world, None).await.unwrap().unwrap();
        assert_eq!((later.given_up_above, later.marks > Seq(kept)), (Some(Seq(kept)), true));
    }
}

/// Somebody claimed above, and those who could have its decision do not answer.
#[tokio::test(start_paused = true)]
async fn silence_that_could_hide_a_decision_leaves_all_open() {
    let left = Left::new().await;
    let late = left.world.claim(9, IncarnationId::from_bytes([9; 16]));
    left.world.place(&late).await;
    let (_, book) = left.looked_at().await;
    let found = async |silent: usize| {
        left.silence(0..silent);
        chain::find(&onlooker(&left.world), &book, &Evidence::nothing(), NOBODY, None).await.unwrap()
    };
    let chain = found(2).await.unwrap();
    assert_eq!((chain.ruling, chain.passed_over.as_slice()), (Some(book.ranks()[0]), [late.incarnation].as_slice()));
    let why = found(3).await.unwrap_err();
    assert!(why.contains(&format!("block 0 of incarnation {}", late.incarnation)), "{why}");
}
