//! What heads are worth, and what an installation leaves when it cannot be had whole.

use std::collections::BTreeMap;

use diaspore_block::id::Epoch;
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::HostileStore;

use super::*;
use crate::config::Mode;
use crate::reconcile::Permitted;
use crate::reconcile::tests::left::claimed;
use crate::reconcile::tests::loss::{onlooker, onlooker_on, saved};
use crate::reconcile::tests::{World, crash, fill};

/// Two compacted logs, any 3 of 6 shards for each block of them, and a bucket behind them. Gives what they cover, oldest first.
async fn compacted(seed: u64) -> (World, [u64; 2]) {
    let mut world = World::new();
    world.seed = seed;
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), rand::SeedableRng::seed_from_u64(at))).collect();
    let engine = world.start(&MemoryMedium::new(), Mode::Start).await.unwrap();
    fill(&engine, &world, 0..2).await;
    let first = engine.checkpoint_log().await.unwrap().covers;
    fill(&engine, &world, 2..4).await;
    let second = engine.checkpoint_log().await.unwrap().covers;
    fill(&engine, &world, 4..5).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    crash(engine);
    (world, [first, second])
}

/// Removes shards of a block of a compacted log at these providers.
fn lose(world: &World, ground: &Ground, homes: std::ops::Range<usize>, of: &diaspore_block::compacted::BlockRef) {
    for at in homes {
        let provider = format!("p{at}");
        let place = crate::shards::Place {
            kind: diaspore_block::manifest::BlockKind::Compacted,
            incarnation: of.incarnation,
            counter: of.counter,
            attempt: of.attempt,
        };
        let name = ground.names.shard(&place.at(&provider));
        assert!(world.hostile[at].peek(name.as_str()).is_some());
        world.hostile[at].tamper(name.as_str(), None);
    }
}

/// Whether an installation is broken off, and up to where the ledger stands.
fn stands(ground: &Ground) -> (bool, u64) {
    let (incomplete, seq) = standing(ground).unwrap();
    (incomplete, seq.0)
}

async fn parts(ground: &Ground, head: &Head) -> CompactedRoot {
    read::root(ground, &head.root, &BTreeSet::new()).await.unwrap()
}

#[test]
fn what_a_writer_acknowledged_counts_up_to_where_a_later_decision_ends_it() {
    let id = |byte| IncarnationId::from_bytes([byte; 16]);
    let chain = |ruling, given_up_above| Chain {
        stretches: Vec::new(),
        ruling: Some((Epoch(9), id(ruling))),
        passed_over: Vec::new(),
        ends: vec![(id(1), Seq(10))],
        marks: Seq(0),
        given_up_above,
    };
    let witnesses = |marks: &[(u8, u64)]| Witnesses { marks: marks.iter().map(|(of, seq)| (id(*of), Seq(*seq))).collect(), hidden: false };
    let highest = |marks: &[(u8, u64)], chain: &Chain, known: &[ChainEntry]| witnesses(marks).highest(chain, known).0;
    assert_eq!(highest(&[], &chain(2, None), &[]), 0);
    assert_eq!(highest(&[(1, 8)], &chain(2, None), &[]), 8);
    assert_eq!(highest(&[(1, 12)], &chain(2, None), &[]), 10, "decided to end there");
    assert_eq!(highest(&[(1, 12), (2, 15)], &chain(2, None), &[]), 15, "who rules has no end");
    assert_eq!(highest(&[(3, 30)], &chain(2, None), &[]), 30, "nothing says where it ends");
    // An operator gave up everything behind 20.
    assert_eq!(highest(&[(3, 30)], &chain(2, Some(Seq(20))), &[]), 20);
    assert_eq!(highest(&[(3, 15)], &chain(2, Some(Seq(20))), &[]), 15);
    assert_eq!(highest(&[(2, 30)], &chain(2, Some(Seq(20))), &[]), 30, "but not of what was written on that");
    let entry = |may_have_lost: Vec<Seq>, last_valid| ChainEntry {
        seq: Seq(last_valid + 1),
        incarnation: id(8),
        predecessor: Some((id(7), Epoch(1))),
        last_valid: Seq(last_valid),
        may_have_lost,
        lost_declared: Vec::new(),
    };
    assert_eq!(highest(&[(3, 30)], &chain(2, None), &[entry(vec![Seq(25), ALL_LATER], 24)]), 24, "as this disk knows");
    assert_eq!(highest(&[(3, 30)], &chain(2, Some(Seq(20))), &[entry(vec![Seq(25), ALL_LATER], 24)]), 24, "the later of the two");
    assert_eq!(highest(&[(3, 30)], &chain(2, None), &[entry(vec![Seq(25)], 24)]), 30, "positions are not everything later");
    assert_eq!(highest(&[(7, 30)], &chain(2, None), &[entry(Vec::new(), 24)]), 24);
}

#[test]
fn a_refusal_may_be_for_want_of_a_compacted_log_that_nobody_shows() {
    let weigh = |hidden, kind| Witnesses { marks: Vec::new(), hidden }.weigh::<()>(Err(Error::new(kind, "a hole")));
    let why = weigh(true, ErrorKind::RefusedState).unwrap().unwrap_err();
    assert!(why.contains("a hole") && why.contains("silent"), "{why}");
    assert_eq!(weigh(false, ErrorKind::RefusedState).unwrap_err().kind, ErrorKind::RefusedState);
    assert_eq!(weigh(true, ErrorKind::LocalStore).unwrap_err().kind, ErrorKind::LocalStore);
    let found = Witnesses { marks: Vec::new(), hidden: true };
    assert!(found.weigh(Ok(Ok(()))).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_newest_that_is_admitted_is_installed_above_what_the_disk_holds() {
    let (world, [first, second]) = compacted(1).await;
    let ground = onlooker(&world);
    let announced = heads::find(&ground).await;
    let none = install_newest(&ground, &announced, |_| false).await.unwrap();
    assert_eq!((none.hidden.is_none(), stands(&ground)), (true, (false, 0)), "no part of what is left");
    let marks = announced.heads.iter().map(|head| head.acked_through).max().unwrap();
    assert!(marks.0 >= second && none.marks == marks);
    let older = install_newest(&ground, &announced, |root| root.covers.0 == first).await.unwrap();
    assert_eq!((older.hidden.is_none(), stands(&ground)), (true, (false, first)));
    let newest = install_newest(&ground, &announced, |_| true).await.unwrap();
    assert_eq!((newest.hidden.is_none(), stands(&ground)), (true, (false, second)));
    // Once more there is nothing to install, and nobody is asked.
    let gets = || world.hostile.iter().map(|store| store.requests(diaspore_testkit::Op::Get)).sum::<u64>();
    let before = gets();
    install_newest(&ground, &announced, |_| panic!("nothing stands above")).await.unwrap();
    assert_eq!((stands(&ground), gets()), ((false, second), before));
    let seen = local_end(&ground).unwrap().unwrap();
    assert_eq!(seen.seq, Seq(second));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_whole_is_passed_over_and_said_to_be_hidden_if_it_may_come_back() {
    let (world, [first, _]) = compacted(1).await;
    let ground = onlooker(&world);
    let announced = heads::find(&ground).await;
    let root = announced.heads[0].root.clone();
    // Two are silent and two have none: with the silent ones it could be read.
    lose(&world, &ground, 0..2, &root);
    world.hostile[4..].iter().for_each(|store| store.set_faults(diaspore_testkit::FaultPlan::down()));
    let newest = install_newest(&ground, &announced, |_| true).await.unwrap();
    assert!(newest.hidden.unwrap().contains("2 of the 3 shards"));
    assert_eq!(stands(&ground), (false, first), "what can be read is installed all the same");
    world.hostile[4..].iter().for_each(|store| store.set_faults(diaspore_testkit::FaultPlan::honest()));
    lose(&world, &ground, 2..4, &root);
    let ground = onlooker(&world);
    let newest = install_newest(&ground, &announced, |_| true).await.unwrap();
    assert_eq!((newest.hidden, stands(&ground)), (None, (false, first)), "gone for good");
}

/// The first step takes away what was there. A ledger that had nothing begins anew when the rest does not come; one that had something never
/// takes that step.
#[tokio::test(start_paused = true)]
async fn an_installation_that_breaks_off_leaves_an_empty_state_or_what_was_there() {
    let (world, [first, second]) = compacted(1).await;
    let held = onlooker(&world);
    let announced = heads::find(&held).await;
    install_newest(&held, &announced, |root| root.covers.0 == first).await.unwrap();
    let [newest, older] = [parts(&held, &announced.heads[0]).await, parts(&held, &announced.heads[1]).await];
    lose(&world, &held, 0..4, &newest.parts[0].block);
    install_newest(&held, &announced, |_| true).await.unwrap();
    assert_eq!(stands(&held), (false, first), "all of it is looked for first");
    let ground = onlooker(&world);
    install_newest(&ground, &announced, |_| true).await.unwrap();
    assert_eq!(stands(&ground), (false, first), "the next one is taken");
    let ground = onlooker(&world);
    let newest_only = install_newest(&ground, &announced, |root| root.covers.0 == second).await.unwrap();
    assert_eq!((newest_only.hidden.is_none(), stands(&ground)), (true, (false, 0)), "the log is read from its beginning");
    if older.parts[0].block.block != newest.parts[0].block.block {
        lose(&world, &held, 0..4, &older.parts[0].block);
    }
    let ground = onlooker(&world);
    install_newest(&ground, &announced, |_| true).await.unwrap();
    assert_eq!(stands(&ground), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn a_compacted_log_takes_the_place_of_what_it_continues_and_of_nothing_else() {
    let (world, [first, second]) = compacted(1).await;
    let (other, _) = compacted(70).await;
    let announced = heads::find(&onlooker(&world)).await;
    let lost = BTreeSet::new();
    let mut ground = onlooker(&world);
    let [newest, older] = [parts(&ground, &announced.heads[0]).await, parts(&ground, &announced.heads[1]).await];
    assert!(replaceable(&ground, &newest, &lost).await.unwrap().is_ok(), "nothing is there");
    install_root(&ground, &older, &lost).await.unwrap().unwrap();
    assert_eq!(stands(&ground), (false, first));
    assert!(replaceable(&ground, &newest, &lost).await.unwrap().is_ok());
    let have = local_end(&ground).unwrap().unwrap();
    assert!(continues(&ground, &newest, have, &lost).await.unwrap().is_ok());
    // Fewer leaves than this disk holds are no continuation.
    install_root(&ground, &newest, &lost).await.unwrap().unwrap();
    let fork = continues(&ground, &older, local_end(&ground).unwrap().unwrap(), &lost).await.unwrap_err();
    assert!(fork.message.contains("fork") && stands(&ground) == (false, second), "{fork}");
    // Another history of the same deployment.
    ground.fleet = other.fleet();
    let theirs = heads::find(&ground).await;
    let root = parts(&ground, &theirs.heads[0]).await;
    assert!(replaceable(&ground, &root, &lost).await.unwrap_err().message.contains("fork"));
    assert_eq!(stands(&ground), (false, second), "nothing was touched");
    // A part that cannot be had says nothing about that.
    lose(&other, &ground, 0..4, &root.parts[0].block);
    assert!(!continues(&ground, &root, have, &lost).await.unwrap().unwrap_err().may_come);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_below_catches_up_with_the_newest_that_is_part_of_the_log() {
    let (world, [first, second]) = compacted(1).await;
    let evidence = || Evidence { lost: BTreeSet::new(), held: BTreeMap::new(), released: BTreeMap::new() };
    let ground = onlooker(&world);
    let claimed_here = claimed(&ground);
    claimed_here.book.survey(&ground, None).await;
    let witnesses = catch_up(&ground, &claimed_here, &evidence()).await.unwrap().unwrap();
    assert_eq!((stands(&ground), witnesses.marks.len(), witnesses.hidden), ((false, second), 2, false));
    assert!(witnesses.marks.iter().all(|(_, acked)| acked.0 >= first));
    let gets = || world.hostile.iter().map(|store| store.requests(diaspore_testkit::Op::Get)).sum::<u64>();
    let before = gets();
    catch_up(&ground, &claimed_here, &evidence()).await.unwrap().unwrap();
    assert_eq!((stands(&ground), gets() - before), ((false, second), 12), "two heads at six providers, and nothing else");
    // A disk that holds nothing of the log may not take up what others began, if that is all it was permitted.
    let fresh = onlooker(&world);
    let mut own = claimed(&fresh);
    own.permitted = Permitted::Own(BTreeSet::new());
    assert!(catch_up(&fresh, &own, &evidence()).await.unwrap_err().message.contains("recover"));
    assert_eq!(stands(&fresh), (false, 0));
    // A head that counts stands at more than f domains, three here.
    for (silent, lost, hidden) in [(3, 0, false), (4, 0, true), (4, 1, false)] {
        world.hostile[..silent].iter().for_each(|store| store.set_faults(diaspore_testkit::FaultPlan::down()));
        let mut evidence = evidence();
        evidence.lost = ground.fleet.providers()[..lost].iter().map(|spec| spec.domain.clone()).collect();
        let witnesses = catch_up(&ground, &claimed_here, &evidence).await.unwrap().unwrap();
        assert_eq!((witnesses.hidden, witnesses.marks.len()), (hidden, 2), "{silent} silent, {lost} lost");
    }
}

/// A start that ended in the middle of an installation goes on with one, or reads the log from its beginning.
#[tokio::test(start_paused = true)]
async fn an_installation_that_was_cut_short_is_made_again_or_given_up() {
    let (world, [_, second]) = compacted(1).await;
    let evidence = Evidence::nothing();
    let ground = onlooker(&world);
    let claimed_here = claimed(&ground);
    claimed_here.book.survey(&ground, None).await;
    install(&ground, BaseStep::Begin).unwrap();
    assert_eq!(stands(&ground), (true, 0));
    catch_up(&ground, &claimed_here, &evidence).await.unwrap().unwrap();
    assert_eq!(stands(&ground), (false, second));
    let root = parts(&ground, &heads::find(&ground).await.heads[0]).await;
    // Nobody announces any more.
    for store in &world.hostile {
        let prefix = ground.names.head_prefix(store.name());
        for (path, _) in store.objects().into_iter().filter(|(path, _)| path.starts_with(&prefix)) {
            store.tamper(&path, None);
        }
    }
    install(&ground, BaseStep::Begin).unwrap();
    for at in 0..root.parts.len() {
        let rows = part_at(&ground, &root, at, &BTreeSet::new()).await.unwrap();
        install(&ground, BaseStep::Rows(Bytes::from(rows))).unwrap();
    }
    world.hostile[..4].iter().for_each(|store| store.set_faults(diaspore_testkit::FaultPlan::down()));
    let why = catch_up(&ground, &claimed_here, &evidence).await.unwrap().unwrap_err();
    assert!(why.contains("broke off"), "{why}");
    assert!(stands(&ground).0, "somebody silent may have a head");
    world.hostile[..4].iter().for_each(|store| store.set_faults(diaspore_testkit::FaultPlan::honest()));
    catch_up(&ground, &claimed_here, &evidence).await.unwrap().unwrap();
    assert_eq!(stands(&ground), (false, 0));
    let view = ground.ledger.snapshot().unwrap();
    assert!(view.tenants(None, 1).unwrap().is_empty() && view.blocks(None, 1).unwrap().is_empty(), "no row of it stays");
    assert_eq!((view.log_size().unwrap(), view.chain().unwrap().len()), (0, 0));
    assert!(saved(&world).await.iter().all(Vec::is_empty), "the hostile ones stand in");
}

/// What speaks against a compacted log is a reason to look at the next one. A disk that fails is none: nothing was learnt about the log.
#[tokio::test(start_paused = true)]
async fn a_compacted_log_is_passed_over_for_what_is_wrong_with_it_and_not_for_what_is_wrong_here() {
    let (world, [_, second]) = compacted(1).await;
    let (disk, evidence) = (MemoryMedium::new(), Evidence::nothing());
    let ground = onlooker_on(&world, &disk);
    let known = claimed(&ground);
    known.book.survey(&ground, None).await;
    let announced = heads::find(&ground).await;
    let useless = |tried: Tried| {
        let Tried::Useless(why) = tried else { panic!("it was taken") };
        assert_eq!(stands(&ground), (false, 0), "nothing is begun");
        why
    };
    let misled = Head { covers: announced.heads[0].covers.next(), ..announced.heads[0].clone() };
    assert!(useless(try_one(&ground, &known, &evidence, &misled).await.unwrap()).contains("another root"));
    // Nobody claims to have written it.
    let head = &announced.heads[0];
    assert!(useless(try_one(&ground, &claimed(&ground), &evidence, head).await.unwrap()).contains("which no provider knows"));
    ground.unjudged.are_wrong("a shard", diaspore_block::BlockError::Unsupported { what: "manifest", version: 2 });
    let newer = try_one(&ground, &known, &evidence, head).await.err().unwrap();
    assert!(newer.message.contains("newer version"), "{newer}");
    let sound = onlooker(&world);
    assert!(matches!(try_one(&sound, &known, &evidence, head).await.unwrap(), Tried::Installed));
    assert_eq!(stands(&sound), (false, second));
    let failing = MemoryMedium::new();
    let ground = onlooker_on(&world, &failing);
    failing.fail_syncs(true);
    assert!(ground.ledger.append(JournalEntry::Migrated { from: 1, to: 2 }).is_err());
    assert_eq!(try_one(&ground, &known, &evidence, head).await.err().unwrap().kind, ErrorKind::LocalStore);
}
