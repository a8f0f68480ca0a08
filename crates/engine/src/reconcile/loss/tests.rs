//! The list of what would be lost, the word on it, and the account of it.

use diaspore_block::id::PrincipalId;
use diaspore_block::record::RecordKind;
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::{FaultPlan, HostileStore};

use super::*;
use crate::api::{BodyStream, Caller, PutOptions};
use crate::config::Mode;
use crate::reconcile::position::Care;
use crate::reconcile::tests::left::{Left, claimed};
use crate::reconcile::tests::loss::{RECOVER, accepted, lose, onlooker, ranks, refused as list_of, written};
use crate::reconcile::tests::{World, crash, fill};

fn list() -> Loss {
    Loss {
        kept_through: 5,
        log_size: 9,
        log_root: "aa".to_owned(),
        known_through: 12,
        unknown: vec![(6, 6), (9, 10)],
        readable: vec![(7, 8)],
        blobs_total: 2,
        bytes_total: 300,
        deletions: 1,
        incarnations: vec!["one".to_owned()],
        silent: vec!["two".to_owned()],
        declared: vec!["three".to_owned()],
        ..Loss::default()
    }
}

fn walk() -> Walk {
    Walk { loss: Loss::default(), tree: LogTree::new(), ruling: None, ended: false, silent: BTreeSet::new(), blobs: Sha256::new() }
}

/// What is accepted is what was seen: nothing that the list says can change without the word on it.
#[test]
fn every_other_list_has_another_token() {
    let ground = onlooker(&World::new());
    let of = |change: &dyn Fn(&mut Loss)| {
        let mut changed = list();
        change(&mut changed);
        token(&ground, &changed, Sha256::new())
    };
    let same = of(&|_| ());
    assert_eq!((same.clone(), same.len()), (of(&|_| ()), 4 * 4 + 3));
    let changes: [&dyn Fn(&mut Loss); 17] = [
        &|loss| loss.kept_through = 4,
        &|loss| loss.log_size = 8,
        &|loss| loss.log_root = "ab".to_owned(),
        &|loss| loss.known_through = 13,
        &|loss| loss.blobs_total = 3,
        &|loss| loss.deletions = 2,
        &|loss| loss.unknown = vec![(6, 6), (9, 11)],
        &|loss| loss.unknown = vec![(6, 6), (8, 10)],
        // What could be read cannot any more.
        &|loss| (loss.unknown, loss.readable) = (vec![(6, 6), (9, 10), (7, 8)], Vec::new()),
        &|loss| loss.readable = vec![(7, 9)],
        &|loss| loss.incarnations.push("more".to_owned()),
        &|loss| (loss.incarnations, loss.silent) = (Vec::new(), vec!["one".to_owned(), "two".to_owned()]),
        &|loss| (loss.silent, loss.declared) = (Vec::new(), vec!["two".to_owned(), "three".to_owned()]),
        &|loss| loss.silent = vec!["tw".to_owned(), "o".to_owned()],
        &|loss| loss.silent.iter_mut().for_each(|domain| *domain = domain.to_uppercase()),
        &|loss| loss.declared.clear(),
        &|loss| loss.declared = vec!["threeandmore".to_owned()],
    ];
    let mut tokens = BTreeSet::from([same.clone()]);
    for (index, change) in changes.into_iter().enumerate() {
        assert!(tokens.insert(of(change)), "change {index}");
    }
    assert_ne!(same, token(&ground, &list(), Sha256::new().chain_update(b"a blob")), "blobs count, listed or not");
    let mut other = onlooker(&World::new());
    let mut keys = other.keys.duplicate().unwrap();
    keys.deployment = diaspore_block::id::DeploymentId::from_bytes([9; 16]);
    other.keys = std::sync::Arc::new(keys);
    assert_ne!(same, token(&other, &list(), Sha256::new()), "and whose log it is");
}

#[test]
fn positions_become_ranges() {
    let mut ranges = Vec::new();
    for seq in [3, 4, 5, 7, 9, 10] {
        note(&mut ranges, seq);
    }
    assert_eq!(ranges, [(3, 5), (7, 7), (9, 10)]);
}

#[test]
fn the_log_keeps_an_account_of_what_was_given_up_and_on_whose_word() {
    let word = AcceptLoss { token: String::new(), by: "an operator".to_owned() };
    let text = reason(&Loss { token: "12ab".to_owned(), ..list() }, &word);
    for part in [
        "an operator as 12ab",
        "sequence 5 (9 entries, root aa)",
        "through 12",
        "unknown: 6, 9..10;",
        "not kept: 7..8,",
        "2 blobs of 300 bytes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let nothing = reason(&Loss { unknown: Vec::new(), ..list() }, &word);
    assert!(nothing.contains("unknown: none;"), "{nothing}");
    let long = Loss { declared: vec!["ä".repeat(2 * REASON)], ..list() };
    assert_eq!(reason(&long, &word).chars().count(), REASON);
}

#[test]
fn only_missing_data_can_be_given_up() {
    assert!(is_missing(&missing("gone".to_owned())));
    assert!(!is_missing(&refused("a fork".to_owned())));
    assert!(!is_missing(&Error::caused(ErrorKind::RefusedState, "a list", list())));
}

/// A decision, a tenant, a bucket, two blobs, and one of them deleted: sequences 1 to 6.
#[tokio::test(start_paused = true)]
async fn what_can_be_read_behind_the_end_is_listed_blob_by_blob() {
    let mut world = World::new();
    let engine = world.start(&MemoryMedium::new(), Mode::Start).await.unwrap();
    fill(&engine, &world, 0..1).await;
    let caller = Caller { tenant: engine.tenant("acme").await.unwrap().unwrap().id, principal: PrincipalId::NIL };
    let put = async |key: &str, len: usize| {
        let body: BodyStream = Box::pin(futures::stream::once(std::future::ready(Ok(vec![1; len].into()))));
        engine.put_blob(&caller, "bucket-0", key.as_bytes(), PutOptions::default(), body).await.unwrap()
    };
    let one = put("one", 100).await;
    let two = put("two", 200).await;
    engine.delete_blob(&caller, "bucket-0", b"one", crate::api::Precondition::None, None).await.unwrap();
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    book.survey(&ground, None).await;
    let rank = book.ranks()[0];
    let subject = super::super::chain::subject(&ground, &book, rank).await.unwrap();
    let mut walk = walk();
    let mut digests = vec![walk.blobs.clone().finalize()];
    for seq in 3..=6 {
        let judged = Evidence::nothing().judge(&ground, &subject, Counter(seq - 1), Care::Tail).await.unwrap();
        let crate::reconcile::position::Verdict::Readable(found) = judged else { panic!("{judged:?}") };
        walk.leave(&ground, &found).unwrap();
        assert!(walk.ended, "it ends what is kept");
        digests.push(walk.blobs.clone().finalize());
    }
    digests.dedup();
    assert_eq!(digests.len(), 4, "two puts and a deletion");
    let Loss { readable, blobs, blobs_total, bytes_total, deletions, .. } = walk.loss;
    assert_eq!((readable, blobs_total, bytes_total, deletions), (vec![(3, 6)], 2, 300, 1));
    let listed: Vec<_> = blobs.iter().map(|blob| (blob.version.clone(), blob.size, blob.seq)).collect();
    assert_eq!(listed, [(one.blob.version.to_string(), 100, one.seq.0), (two.blob.version.to_string(), 200, two.seq.0)]);
    assert!(blobs.iter().all(|blob| blob.tenant == caller.tenant.to_string()));
}

#[tokio::test(start_paused = true)]
async fn the_log_is_kept_up_to_the_first_hole_and_what_follows_is_told_apart() {
    let left = Left::new().await;
    left.lose(0..4, 2);
    left.lose(0..4, 4);
    let (ground, book) = left.looked_at().await;
    let evidence = Evidence::nothing();
    let remains = Remains::find(&ground, &book, &evidence, &Hints::default(), (None, Seq(0))).await.unwrap();
    let mut all = walk();
    all.through(&ground, &evidence, &book, (&remains, Seq(0))).await.unwrap();
    assert_eq!((all.loss.kept_through, all.loss.known_through, all.ruling), (2, 5, Some(book.ranks()[0])));
    assert_eq!((all.loss.unknown.as_slice(), all.loss.readable.as_slice()), ([(3, 3), (5, 5)].as_slice(), [(4, 4)].as_slice()));
    assert!(all.ended && all.silent.is_empty() && all.tree.size() > 1);
    // A head says that more was acknowledged than anything else tells of.
    let mut marked = walk();
    marked.through(&ground, &evidence, &book, (&remains, Seq(8))).await.unwrap();
    assert_eq!((marked.loss.known_through, marked.loss.unknown.as_slice()), (8, [(3, 3), (5, 8)].as_slice()));
    // Who does not say what it has of what is missing is named, once there are enough of them.
    left.silence(3..4);
    let mut silent = walk();
    silent.through(&onlooker(&left.world), &evidence, &book, (&remains, Seq(0))).await.unwrap();
    assert_eq!(silent.silent, BTreeSet::from([ground.fleet.providers()[3].domain.clone()]), "two shards are seen, and one may be there");
    assert!(rank_of(&book, IncarnationId::from_bytes([9; 16]), Seq(3)).unwrap_err().message.contains("which no provider knows"));
}

/// What was accepted is passed over from then on, whoever wrote it; those before it are not.
#[tokio::test(start_paused = true)]
async fn the_decision_names_whoever_is_given_up_and_nobody_else() {
    let mut world = World::new();
    let mut disk = written(&mut world, 2).await.snapshot();
    for life in 1..3 {
        let engine = world.start(&disk, Mode::Start).await.unwrap();
        fill(&engine, &world, 2 * life..2 * life + 2).await;
        engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
        disk = disk.snapshot();
        crash(engine);
    }
    let lives = ranks(&world).await;
    lose(&world, 0..4, lives[2], 0).await;
    let loss = list_of(&mut world, &MemoryMedium::new()).await;
    assert_eq!(loss.incarnations, [lives[2].1.to_string()]);
    let engine = accepted(&mut world, &MemoryMedium::new(), &loss.token).await.unwrap();
    let shared = engine.shared();
    let entry = shared.ledger.snapshot().unwrap().chain().unwrap().pop().unwrap();
    assert_eq!((entry.last_valid, entry.predecessor), (Seq(loss.kept_through), Some((lives[1].1, lives[1].0))));
    assert_eq!(entry.may_have_lost, [Seq(loss.kept_through + 1), ALL_LATER]);
    let totals = shared.ledger.snapshot().unwrap().totals().unwrap();
    assert_eq!(totals.records_of(RecordKind::MayHaveLost), 1);
    crash(engine);
    let (ground, book) = (onlooker(&world), ClaimBook::default());
    book.survey(&ground, None).await;
    let accepting = *book.ranks().last().unwrap();
    let hints = Hints::default();
    let remains = Remains::find(&ground, &book, &Evidence::nothing(), &hints, (None, Seq(0))).await.unwrap();
    let decision = remains.writers.iter().find(|writer| writer.rank == accepting).unwrap().decision.clone().unwrap();
    let passed: BTreeSet<_> = decision.passed_over.iter().copied().collect();
    let claimed: BTreeSet<_> = book.ranks().iter().filter(|rank| **rank > lives[1] && **rank != accepting).map(|rank| rank.1).collect();
    assert_eq!(passed, claimed, "the third life and the start that was refused");
    assert!(passed.contains(&lives[2].1));
    // So a state of the one that was given up is no part of the log.
    assert!(!remains.admits(lives[2].1, Seq(loss.kept_through)) && remains.admits(lives[1].1, Seq(loss.kept_through)));
}

/// A hole is a hole for a plain start as well, which offers nobody to give it up; and what is no hole is not listed.
#[tokio::test(start_paused = true)]
async fn only_a_recovery_lists_what_is_lost_and_only_if_something_is() {
    let mut world = World::new();
    let disk = written(&mut world, 6).await;
    lose(&world, 0..4, ranks(&world).await[0], 3).await;
    let behind = MemoryMedium::new();
    let plain = world.start(&behind, Mode::Start).await.unwrap_err();
    assert!(plain.kind == ErrorKind::RefusedState && !plain.source.is_some_and(|source| source.is::<Loss>()));
    assert_eq!(list_of(&mut world, &behind).await.kept_through, 3);
    // The disk that has everything needs nobody's word. One of another history is a fork, and nothing to accept.
    crash(world.start(&disk.snapshot(), RECOVER).await.unwrap());
    let mut other = World::new();
    other.seed = 50;
    let stranger = written(&mut other, 9).await;
    let fork = world.start(&stranger.snapshot(), RECOVER).await.unwrap_err();
    assert!(fork.kind == ErrorKind::RefusedState && !fork.source.is_some_and(|source| source.is::<Loss>()), "{}", fork.message);
}

fn word() -> AcceptLoss {
    AcceptLoss { token: String::new(), by: "an operator".to_owned() }
}

/// What follows from what this build cannot judge is no list, and the disk stays as it is. No more is what follows while a compacted log may come back.
#[tokio::test(start_paused = true)]
async fn nothing_is_listed_once_something_could_not_be_judged_or_while_a_compacted_log_may_come_back() {
    let mut world = World::new();
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), rand::SeedableRng::seed_from_u64(at))).collect();
    let engine = world.start(&MemoryMedium::new(), Mode::Start).await.unwrap();
    fill(&engine, &world, 0..2).await;
    let covers = engine.checkpoint_log().await.unwrap().covers;
    crash(engine);
    let stands = |ground: &Ground| ground.ledger.snapshot().unwrap().applied_seq().unwrap().0;
    let ground = onlooker(&world);
    let known = claimed(&ground);
    known.book.survey(&ground, None).await;
    ground.unjudged.are_wrong("a shard", diaspore_block::BlockError::Unsupported { what: "manifest", version: 2 });
    let newer = assess(&ground, &known, &Evidence::nothing()).await.err().unwrap();
    assert!(newer.message.contains("newer version") && stands(&ground) == 0, "{newer}");
    world.hostile[..4].iter().for_each(|store| store.set_faults(FaultPlan::down()));
    let hidden = assess(&onlooker(&world), &known, &Evidence::nothing()).await.err().unwrap();
    assert!(hidden.kind == ErrorKind::DataUnavailable && hidden.message.contains("bring silent domains back"), "{hidden}");
    world.hostile[..4].iter().for_each(|store| store.set_faults(FaultPlan::honest()));
    let ground = onlooker(&world);
    let plan = assess(&ground, &known, &Evidence::nothing()).await.unwrap();
    assert_eq!(stands(&ground), covers);
    assert!(plan.loss.kept_through >= covers && plan.loss.unknown.is_empty());
}

/// What the journal holds is taken from there, and no look at providers tells that nothing may be concluded any more.
#[tokio::test(start_paused = true)]
async fn a_walk_over_the_journal_alone_is_refused_all_the_same() {
    let left = Left::new().await;
    let (_, book) = left.looked_at().await;
    let shared = left.writer.shared();
    let mut evidence = Evidence::nothing();
    let diaspore_ledger::JournalEntry::Block(issued) = left.next(1, 5).remove(0).journal_entry() else { panic!("a block") };
    evidence.held.insert((shared.writer.incarnation, Counter(5)), vec![issued]);
    let known = claimed(&shared);
    known.book.survey(&shared, None).await;
    let remains = Remains::find(&shared, &book, &evidence, &Hints::default(), (None, Seq(0))).await.unwrap();
    let walked = async || {
        let mut walk = Walk::begin(&shared, &known).unwrap();
        walk.through(&shared, &evidence, &book, (&remains, Seq(0))).await.map(|()| walk)
    };
    let walk = walked().await.unwrap();
    assert_eq!((walk.loss.kept_through, walk.loss.known_through, walk.ruling), (6, 6, Some(book.ranks()[0])));
    shared.unjudged.are_wrong("a shard", diaspore_block::BlockError::Unsupported { what: "manifest", version: 2 });
    assert!(walked().await.err().unwrap().message.contains("newer version"));
}

#[tokio::test(start_paused = true)]
async fn who_took_no_claim_is_silent_unless_it_was_declared_lost() {
    let left = Left::new().await;
    left.lose(0..4, 2);
    let (ground, book) = left.looked_at().await;
    let domain = |at: usize| ground.fleet.providers()[at].domain.clone();
    let mut known = claimed(&ground);
    known.book = book;
    known.acknowledged.retain(|taker| ![domain(4), domain(5)].contains(taker));
    let evidence = Evidence { lost: BTreeSet::from([domain(4)]), ..Evidence::nothing() };
    let loss = assess(&ground, &known, &evidence).await.unwrap().loss;
    assert_eq!((loss.declared, loss.silent), (vec![domain(4).to_string()], vec![domain(5).to_string()]));
    assert_eq!((loss.kept_through, loss.known_through, loss.incarnations.len()), (2, 5, 1));
    assert!(loss.log_size > 0 && loss.token.len() == 19 && !loss.log_root.is_empty());
    // Nobody is given up of whom nothing stands behind the end.
    known.book.learn((diaspore_block::id::Epoch(9), IncarnationId::from_bytes([9; 16])));
    assert_eq!(assess(&ground, &known, &evidence).await.unwrap().loss.incarnations.len(), 1);
}

/// The log goes on behind the last position that is kept, and the decision knows who wrote it: from that one's next block on the journal forgets.
#[tokio::test(start_paused = true)]
async fn what_is_accepted_is_the_log_up_to_the_hole_and_who_ruled_there() {
    for (hole, kept, pending, applied) in [(Some(2), 2, vec![1, 2], 0), (None, 5, vec![2, 3, 4, 5], 1)] {
        let left = Left::new().await;
        if let Some(counter) = hole {
            left.lose(0..4, counter);
        }
        let (ground, book) = left.looked_at().await;
        let (ruling, late) = (book.ranks()[0], (diaspore_block::id::Epoch(9), IncarnationId::from_bytes([9; 16])));
        let mut known = claimed(&ground);
        known.book = book;
        known.book.learn(late);
        let evidence = Evidence::nothing();
        let plan = assess(&ground, &known, &evidence).await.unwrap();
        assert_eq!(plan.loss.kept_through, kept);
        let (chain, end) = accept(&ground, &known, &evidence, plan, &word()).await.unwrap();
        let [stretch] = chain.stretches.as_slice() else { panic!("{chain:?}") };
        assert_eq!((stretch.subject.incarnation, stretch.base, stretch.from), (ruling.1, 1, Counter(kept)));
        assert!(stretch.through.is_none() && stretch.carried.is_none());
        assert_eq!((chain.ruling, chain.passed_over, chain.ends), (Some(ruling), vec![late.1], vec![(ruling.1, Seq(kept))]));
        assert_eq!((chain.given_up_above, chain.marks), (Some(Seq(kept)), Seq(0)));
        assert_eq!(end.pending.iter().map(|found| found.seq().0).collect::<Vec<_>>(), pending);
        assert_eq!(ground.ledger.snapshot().unwrap().applied_seq().unwrap(), Seq(applied), "a window waits for the decision");
        assert_eq!((end.last, end.next_counter, end.adrift), (Seq(kept), Counter(kept), None));
        assert_eq!(end.may_have_lost, [Seq(kept + 1), ALL_LATER]);
        assert!(end.reason.unwrap().contains("accepted by an operator"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_between_the_list_and_the_word_refuses_the_word() {
    let left = Left::new().await;
    left.lose(0..4, 3);
    let (ground, book) = left.looked_at().await;
    let mut known = claimed(&ground);
    known.book = book;
    let plan = assess(&ground, &known, &Evidence::nothing()).await.unwrap();
    left.lose(0..4, 1);
    let changed = accept(&ground, &known, &Evidence::nothing(), plan, &word()).await.err().unwrap();
    assert!(changed.message.contains("changed meanwhile") && !is_missing(&changed), "{changed}");
    // The same positions with another log.
    let left = Left::new().await;
    let (ground, book) = left.looked_at().await;
    known.book = book;
    let mut plan = assess(&ground, &known, &Evidence::nothing()).await.unwrap();
    plan.loss.log_root = "another".to_owned();
    assert!(accept(&ground, &known, &Evidence::nothing(), plan, &word()).await.err().unwrap().message.contains("changed meanwhile"));
}
