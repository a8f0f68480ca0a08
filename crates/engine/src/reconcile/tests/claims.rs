//! The claim of a start: what it says, who must take it, and whom it waits for (PROTOCOL rules 5 and 6).

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_block::claim::Claim;
use diaspore_block::id::{Epoch, IncarnationId};
use diaspore_block::name::Names;
use diaspore_ledger::IncarnationNote;

use super::chains::lives;
use super::left::Left;
use super::loss::{RECOVER, onlooker, onlooker_on, ranks};
use super::*;
use crate::claim::ClaimBook;
use crate::config::AcceptLoss;
use crate::reconcile::position::Evidence;
use crate::reconcile::{ACCEPTED_STEP, Claimed, claim_log, draft_claim};
use crate::shared::Ground;

fn id(byte: u8) -> IncarnationId {
    IncarnationId::from_bytes([byte; 16])
}

fn hostile() -> World {
    let mut world = World::new();
    world.hostile = (0..6).map(|at| HostileStore::new(&format!("p{at}"), ChaCha12Rng::seed_from_u64(at))).collect();
    world
}

fn recovering(world: &World) -> Ground {
    let mut ground = onlooker(world);
    ground.config.mode = RECOVER;
    ground
}

/// What came of the claim, or why it does not count.
async fn claimed(ground: &Ground) -> Result<Claimed, String> {
    claim_log(ground, &Evidence::nothing()).await.unwrap()
}

async fn why_not(ground: &Ground) -> String {
    claimed(ground).await.err().unwrap()
}

fn puts(world: &World) -> u64 {
    world.hostile.iter().map(|store| store.requests(Op::Put)).sum()
}

fn set(world: &World, stores: std::ops::Range<usize>, plan: &FaultPlan) {
    world.hostile[stores].iter().for_each(|store| store.set_faults(plan.clone()));
}

#[test]
fn a_claim_stands_above_all_others_and_says_how_its_blocks_will_lie() {
    let disk = MemoryMedium::new();
    let world = World::new();
    let (mut ground, book) = (onlooker_on(&world, &disk), ClaimBook::default());
    let all = ground.fleet.domains();
    let (first, layout) = draft_claim(&ground, &book, &all, 4).unwrap();
    assert_eq!((first.epoch, first.claims_seen.len(), first.claim_quorum, layout.full), (Epoch(1), 0, 4, true));
    assert_eq!((first.geometry, first.k_floor), (Geometry::new(3, 6).unwrap(), 3));
    assert_eq!((first.window, first.lease_ms), (4, u64::from(ground.config.profile.lease_ms)));
    assert_eq!(first.providers, ["p0", "p1", "p2", "p3", "p4", "p5"]);
    book.learn((Epoch(7), id(7)));
    book.learn((Epoch(3), id(3)));
    let (second, _) = draft_claim(&ground, &book, &all, 4).unwrap();
    assert_eq!((second.epoch, second.claims_seen), (Epoch(8), vec![(Epoch(3), id(3)), (Epoch(7), id(7))]));
    assert_ne!(first.incarnation, second.incarnation);
    // Whoever gives up what is hidden stands above whatever is hidden with it.
    ground.config.accept_loss = Some(AcceptLoss { token: String::new(), by: String::new() });
    assert_eq!(draft_claim(&ground, &book, &all, 4).unwrap().0.epoch, Epoch(8 + ACCEPTED_STEP));
    // A narrow one names those that its blocks may lie on, and no others.
    ground.config.profile.replication_factor = 2;
    let few: BTreeSet<_> = ground.fleet.providers()[1..].iter().map(|spec| spec.domain.clone()).collect();
    let (narrow, layout) = draft_claim(&ground, &book, &few, 4).unwrap();
    assert_eq!((narrow.geometry, narrow.k_floor, layout.full), (Geometry::new(4, 5).unwrap(), 4, false));
    assert_eq!(narrow.providers, ["p1", "p2", "p3", "p4", "p5"]);
    // The disk knows of each before any provider does.
    let notes = onlooker_on(&world, &disk.crash()).ledger.snapshot().unwrap().incarnations().unwrap();
    let noted = |claim: &Claim| {
        let found = notes.iter().find(|note| note.incarnation == claim.incarnation).unwrap();
        assert_eq!((found.epoch, found.k_floor, found.started), (claim.epoch, claim.k_floor, claim.started));
    };
    noted(&first);
    noted(&narrow);
    assert_eq!(notes.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_claim_counts_when_a_quorum_listed_theirs_and_took_it() {
    let refusing = FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put]));
    let world = hostile();
    set(&world, 3..6, &FaultPlan::down());
    let why = why_not(&recovering(&world)).await;
    assert!(why.contains("listed their claims"), "{why}");
    assert_eq!(puts(&world), 0, "nobody is claimed from before enough have answered");
    // Who is lost is no part of the set: three of four, and not four of six.
    let ground = recovering(&world);
    let domain = |at: usize| ground.fleet.providers()[at].domain.clone();
    let lost = Evidence { lost: BTreeSet::from([domain(4), domain(5)]), ..Evidence::nothing() };
    let taken = claim_log(&ground, &lost).await.unwrap().ok().unwrap();
    assert_eq!((taken.quorum, taken.acknowledged), (3, (0..3).map(domain).collect()));
    let world = hostile();
    set(&world, 3..6, &refusing);
    let why = why_not(&recovering(&world)).await;
    assert!(why.contains("took the claim"), "{why}");
    let world = hostile();
    set(&world, 4..6, &refusing);
    let begun = tokio::time::Instant::now();
    let taken = claimed(&recovering(&world)).await.unwrap();
    assert_eq!((taken.quorum, taken.acknowledged.len(), taken.rank.0, taken.layout.full), (4, 4, Epoch(1), true));
    assert!(taken.book.get(taken.rank).is_some());
    assert!(begun.elapsed() < Duration::from_secs(1), "there is nobody to wait for");
}

/// Full: it lists, and takes nothing. A layout that needs it would never decide.
#[tokio::test(start_paused = true)]
async fn who_takes_no_claim_is_left_out_of_a_second_one_and_of_the_first_once_that_is_known() {
    let world = hostile();
    let mut ground = recovering(&world);
    ground.config.profile.replication_factor = 2;
    set(&world, 5..6, &FaultPlan::from(Fault::always(Misbehaviour::Full)));
    let narrow = claimed(&ground).await.unwrap();
    assert_eq!((narrow.rank.0, narrow.layout.geometry), (Epoch(2), Geometry::new(4, 5).unwrap()));
    assert_eq!((narrow.layout.members.clone(), narrow.layout.full), (narrow.acknowledged, false));
    let again = claimed(&ground).await.unwrap();
    assert_eq!((again.rank.0, again.layout.geometry), (Epoch(3), Geometry::new(4, 5).unwrap()), "one claim is enough");
}

/// Whoever served may go on for a lease. What is found after that decides whether the claim stands.
#[tokio::test(start_paused = true)]
async fn leases_are_waited_out_and_claims_listed_again() {
    let lease = Duration::from_millis(u64::from(Profile::default().lease_ms));
    let moment = Duration::from_millis(1);
    let left = Left::new().await;
    let ground = recovering(&left.world);
    let begun = tokio::time::Instant::now();
    assert_eq!(claimed(&ground).await.unwrap().rank.0, Epoch(2));
    assert!(begun.elapsed() >= lease && begun.elapsed() < 2 * lease, "{:?}", begun.elapsed());
    // Somebody below claims meanwhile, and has a longer lease.
    let longer = Claim { lease_ms: 300_000, ..left.world.claim(1, id(1)) };
    let begun = tokio::time::Instant::now();
    let meanwhile = async {
        tokio::time::sleep(moment).await;
        left.world.place(&longer).await;
    };
    assert!(tokio::join!(claimed(&ground), meanwhile).0.is_ok());
    assert!(begun.elapsed() >= Duration::from_mins(5), "{:?}", begun.elapsed());
    // Somebody above.
    let higher = left.world.claim(99, id(2));
    let meanwhile = async {
        tokio::time::sleep(moment).await;
        left.world.place(&higher).await;
    };
    let nothing = Evidence::nothing();
    let beaten = tokio::join!(claim_log(&ground, &nothing), meanwhile).0.err().unwrap();
    assert!(beaten.kind == ErrorKind::RefusedState && beaten.message.contains("epoch 99"), "{beaten}");
    let meanwhile = async {
        tokio::time::sleep(moment).await;
        left.silence(0..3);
    };
    let why = tokio::join!(claimed(&ground), meanwhile).0.err().unwrap();
    assert!(why.contains("listed their claims again"), "{why}");
}

/// Claims are pruned. Whoever the disk knows of, from its own starts or from decisions, is known all the same.
#[tokio::test(start_paused = true)]
async fn a_disk_remembers_whom_no_claim_names_any_more() {
    let (mut world, _) = lives().await;
    let disk = MemoryMedium::new();
    crash(world.start(&disk, RECOVER).await.unwrap());
    let all = ranks(&world).await;
    for (at, store) in world.stores.iter().enumerate() {
        for rank in &all {
            let name = Names::new(&world.keys.name).claim(&format!("p{at}"), rank.1, rank.0);
            store.delete(&name.as_str().into()).await.unwrap();
        }
    }
    let only = world.claim(5, id(5));
    world.place(&only).await;
    let ground = onlooker_on(&world, &disk.snapshot());
    let note = IncarnationNote { incarnation: id(12), epoch: Epoch(12), started: Timestamp(1), k_floor: 3 };
    ground.ledger.append(JournalEntry::Chain(note)).unwrap();
    let taken = claimed(&ground).await.unwrap();
    assert_eq!(taken.rank.0, Epoch(13));
    let known = taken.book.ranks();
    assert!(all.iter().all(|rank| known.contains(rank)) && known.contains(&only.rank()), "{known:?}");
}
