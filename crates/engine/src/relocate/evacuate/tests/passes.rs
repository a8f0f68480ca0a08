//! What leaving an account costs, what one pass over it does, and what the log certifies in the end.

use diaspore_block::manifest::BlockKind;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::blob::tests::fixture::{Fixture, random};
use crate::relocate::mover::{Placed, place, record};

const MIB: usize = 1 << 20;

/// Two blobs in blocks of their own and two in commit blocks, settled.
async fn filled(providers: usize) -> (Fixture, Arc<Shared>) {
    let fx = Fixture::start(providers).await;
    for index in 0..4 {
        fx.put(&[b'a' + index], &random(if index < 2 { 2 * MIB } else { 3000 }, u64::from(index))).await.unwrap();
    }
    fx.settle().await;
    fx.engine.spread_keyring(&diaspore_block::key::MasterKey::from_bytes([9; 32])).await.unwrap();
    let shared = fx.engine.shared();
    (fx, shared)
}

fn id(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

fn planned(shared: &Shared, provider: &ProviderId, dead: bool) -> Evacuated {
    let domain = shared.fleet.provider(provider).unwrap().domain.clone();
    plan(shared, provider, &domain, dead).unwrap()
}

async fn moved(shared: &Arc<Shared>, provider: &ProviderId) -> Vec<Placed> {
    let mut placed = Vec::new();
    for entry in at(shared, provider).unwrap() {
        placed.push(place(shared, &entry, provider, None, false).await.unwrap());
    }
    placed
}

#[tokio::test(start_paused = true)]
async fn leaving_is_planned_by_what_lies_there_and_what_moving_it_takes() {
    let (fx, shared) = filled(7).await;
    let p0 = id("p0");
    let blocks = at(&shared, &p0).unwrap();
    let (count, k) = (blocks.len() as u64, 3);
    assert!(count > 2);
    let object = |entry: &BlockEntry| diaspore_block::geometry::object_len(entry.facts.shard_len).unwrap() as u64;
    let bytes: u64 = blocks.iter().map(object).sum();
    let there =
        fx.stores[0].objects().iter().filter(|(path, _)| path.find('/') == Some(2)).map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    assert_eq!(bytes, there);
    let report = planned(&shared, &p0, false);
    assert_eq!((report.provider.as_str(), report.blocks, report.bytes, report.remaining, report.domains), ("p0", count, bytes, count, 6));
    assert_eq!((report.crowded, report.crowded_log), (0, 0), "two domains more than shards");
    // Read there, written elsewhere, looked at and read back, and deleted.
    let cost = report.cost;
    assert_eq!((cost.writes, cost.reads, cost.deletes, cost.bytes_read, cost.bytes_written), (count, 3 * count, count, 2 * bytes, bytes));
    // Who is gone gives nothing: k others are read instead, and nothing is deleted.
    let gone = planned(&shared, &p0, true).cost;
    let expected = (count, (k + 2) * count, 0, (k + 1) * bytes, bytes);
    assert_eq!((gone.writes, gone.reads, gone.deletes, gone.bytes_read, gone.bytes_written), expected);
    fx.stores[0].set_faults(FaultPlan::down());
    while shared.fleet.health(&p0).unwrap().state != HealthState::Down {
        let _none = shared.fleet.exists(&p0, "x", Deadline::control()).await;
    }
    assert_eq!(planned(&shared, &p0, false).cost, gone, "nor does who is down");
}

#[tokio::test(start_paused = true)]
async fn without_a_domain_to_spare_data_is_written_anew_and_the_log_waits_for_a_compacted_one() {
    let (_fx, shared) = filled(5).await;
    let report = planned(&shared, &id("p0"), false);
    let blocks = at(&shared, &id("p0")).unwrap();
    let of_log = blocks.iter().filter(|entry| entry.facts.kind != BlockKind::Bulk).count() as u64;
    assert_eq!((report.domains, report.crowded, report.crowded_log), (4, blocks.len() as u64, of_log));
    assert!(of_log > 0 && of_log < report.crowded);
    // While the account is not being left there is a domain for every shard, for all that anybody knows.
    let (mut pass, so_far) = (report.clone(), SoFar::default());
    let (crowded, busy) = one_pass(&shared, &id("p0"), false, (&mut pass, &so_far)).await.unwrap();
    assert_eq!((crowded.len(), busy, pass.moved_shards, pass.crowded_log), (0, 0, 0, 0), "a narrower block would not be narrower");
    modes::set(&shared, PrincipalId::NIL, &id("p0"), ProviderMode::Draining, "a test").await.unwrap();
    let (mut pass, so_far) = (report, SoFar::default());
    let (crowded, _) = one_pass(&shared, &id("p0"), false, (&mut pass, &so_far)).await.unwrap();
    // What said so lies there as well.
    let of_log = of_log + 1;
    let data: BTreeSet<BlockId> = blocks.iter().filter(|entry| entry.facts.kind == BlockKind::Bulk).map(|entry| entry.facts.id).collect();
    assert_eq!((crowded.into_iter().collect::<BTreeSet<_>>(), pass.crowded_log), (data, of_log));
}

#[tokio::test(start_paused = true)]
async fn a_pass_moves_what_it_can_and_says_what_others_worked_on() {
    let (fx, shared) = filled(7).await;
    let p0 = id("p0");
    modes::set(&shared, PrincipalId::NIL, &p0, ProviderMode::Draining, "a test").await.unwrap();
    fx.settle().await;
    let blocks = at(&shared, &p0).unwrap();
    let worked_on = shared.settlement.claim(blocks[0].facts.id).unwrap();
    let (mut report, so_far) = (planned(&shared, &p0, false), SoFar::default());
    let moving: u64 = blocks[1..].iter().map(|entry| diaspore_block::geometry::object_len(entry.facts.shard_len).unwrap() as u64).sum();
    let (crowded, busy) = one_pass(&shared, &p0, false, (&mut report, &so_far)).await.unwrap();
    assert_eq!((crowded.len(), busy), (0, 1));
    assert_eq!((report.moved_shards, report.moved_bytes, report.crowded_log), (blocks.len() as u64 - 1, moving, 0));
    assert_eq!(so_far.0.lock().unwrap().as_ref(), Some(&report), "a successor goes on from there");
    assert_eq!(at(&shared, &p0).unwrap().iter().map(|entry| entry.facts.id).collect::<Vec<_>>(), [blocks[0].facts.id]);
    assert_eq!(remaining(&shared, &p0).unwrap(), 1);
    // Not all of it lies elsewhere, so nothing is certified.
    let seq = || shared.ledger.snapshot().unwrap().applied_seq().unwrap();
    let before = seq();
    let open = certify(&shared, &p0, false, report.clone()).await.unwrap();
    assert_eq!((open.certified, open.remaining, seq()), (false, 1, before));
    drop(worked_on);
    let (_, busy) = one_pass(&shared, &p0, false, (&mut report, &so_far)).await.unwrap();
    assert_eq!((busy, report.moved_shards, remaining(&shared, &p0).unwrap()), (0, blocks.len() as u64, 0));
    let done = certify(&shared, &p0, false, report).await.unwrap();
    assert!(done.certified && done.reachable && done.left == done.control, "{done:?}");
    let (_, said) = shared.ledger.snapshot().unwrap().provider("p0").unwrap().unwrap().evacuated.unwrap();
    assert_eq!((said.blocks, said.shards, said.bytes, said.left), (done.blocks, done.moved_shards, done.moved_bytes, done.left));
}

/// A block on its way into the log has a shard there, or may have: the map will say so.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_remains_as_well() {
    let (fx, shared) = filled(7).await;
    let ids: Vec<ProviderId> = shared.fleet.providers().iter().map(|spec| spec.id.clone()).collect();
    let there = |id: &ProviderId| at(&shared, id).unwrap().len() as u64;
    assert!(ids.iter().all(|id| remaining(&shared, id).unwrap() == there(id) && there(id) > 0));
    // Two answer at once and the others late, so that nothing reaches its quorum for a while.
    let late = Misbehaviour::Latency { fixed: Duration::from_secs(5), jitter: Duration::ZERO };
    fx.stores[2..].iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put]))));
    let (keys, data) = ([b"e", b"f", b"g", b"h"], random(3000, 9));
    let mut puts: futures::stream::FuturesUnordered<_> = keys.iter().map(|key| fx.put(*key, &data)).collect();
    assert!(tokio::time::timeout(Duration::from_secs(1), puts.next()).await.is_err());
    let underway: Vec<u64> = ids.iter().map(|id| shared.settlement.underway_at(id)).collect();
    assert!(underway.iter().sum::<u64>() > 0);
    for (id, underway) in ids.iter().zip(underway) {
        assert_eq!(remaining(&shared, id).unwrap(), there(id) + underway);
    }
}

/// Shards that the map places elsewhere are deleted there; whatever else is listed is counted.
#[tokio::test(start_paused = true)]
async fn what_is_listed_and_lies_elsewhere_is_deleted() {
    let (fx, shared) = filled(7).await;
    let p0 = id("p0");
    modes::set(&shared, PrincipalId::NIL, &p0, ProviderMode::Draining, "a test").await.unwrap();
    fx.settle().await;
    let shards = || fx.stores[0].objects().iter().filter(|(path, _)| path.find('/') == Some(2)).count() as u64;
    let before = shards();
    let mut placed = moved(&shared, &p0).await;
    let kept = placed.pop().unwrap();
    let moved = placed.len() as u64;
    // The record is in the log, and nobody came to delete anything.
    record(&shared, placed, &BTreeSet::from([p0.clone()])).await.unwrap();
    drop(kept);
    assert_eq!(shards(), before);
    fx.stores[0].tamper("letter.txt", Some(bytes::Bytes::from_static(b"hello")));
    let mut report = Evacuated::default();
    clean(&shared, &p0, &mut report).await.unwrap();
    assert_eq!(shards(), before - moved, "what the map places here stays");
    assert_eq!((report.left, report.foreign, report.reachable), (report.control + 1, 1, true));
    assert!(report.control > 0);
    fx.stores[0].set_faults(FaultPlan::down());
    clean(&shared, &p0, &mut report).await.unwrap();
    assert!(!report.reachable);
}

#[test]
fn an_errand_that_goes_on_reports_all_of_it() {
    let so_far = SoFar::default();
    let begun = Evacuated { blocks: 9, bytes: 90, remaining: 9, domains: 6, crowded: 2, ..Evacuated::default() };
    assert_eq!(so_far.begin(begun.clone()), begun);
    let noted = Evacuated { moved_shards: 5, moved_bytes: 50, rewritten: 1, remaining: 4, crowded_log: 3, ..begun };
    so_far.note(&noted);
    let again = Evacuated { blocks: 4, bytes: 40, remaining: 4, domains: 5, ..Evacuated::default() };
    let resumed = so_far.begin(again);
    assert_eq!(resumed, Evacuated { remaining: 4, domains: 5, crowded_log: 0, ..noted });
    assert_eq!(so_far.begin(Evacuated::default()).blocks, 9, "and once more");
}

fn asked(provider: &ProviderId) -> EvacuateAsked {
    EvacuateAsked { provider: provider.to_string(), dead: false, dry_run: false, most: None }
}

/// Leaves an account that everybody knows is being left; how long it took.
async fn left(shared: &Arc<Shared>, provider: &ProviderId) -> (Evacuated, Duration) {
    let begun = Instant::now();
    let (asked, so_far) = (asked(provider), SoFar::default());
    let leaving = evacuate(shared, &asked, &so_far);
    let report = tokio::time::timeout(Duration::from_mins(30), Box::pin(leaving)).await;
    (report.expect("it ends by itself").unwrap(), begun.elapsed())
}

/// So many accounts, the first of which is being left.
async fn draining(providers: usize) -> (Fixture, Arc<Shared>, ProviderId) {
    let (fx, shared) = filled(providers).await;
    let p0 = id("p0");
    modes::set(&shared, PrincipalId::NIL, &p0, ProviderMode::Draining, "a test").await.unwrap();
    fx.settle().await;
    (fx, shared, p0)
}

fn compactions(shared: &Shared) -> usize {
    shared.ledger.snapshot().unwrap().compactions().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn an_account_that_nothing_holds_back_is_left_in_one_pass() {
    let (_fx, shared, p0) = draining(7).await;
    let (report, took) = left(&shared, &p0).await;
    assert!(report.certified && took < PAUSE, "{took:?} {report:?}");
}

/// Repair goes as fast as it may, so a block that is worked on is waited for; not for ever, and no compacted log would be of any help.
#[tokio::test(start_paused = true)]
async fn what_somebody_works_on_is_waited_for_thirty_times() {
    let (_fx, shared, p0) = draining(7).await;
    let worked_on = shared.settlement.claim(at(&shared, &p0).unwrap()[0].facts.id).unwrap();
    let before = compactions(&shared);
    let (report, took) = left(&shared, &p0).await;
    assert_eq!((report.certified, report.remaining, report.moved_shards), (false, 1, report.blocks - 1));
    // The first pass moved all others, and was not in vain.
    assert!(took >= PAUSE * 30 && took < PAUSE * 31, "{took:?}");
    assert_eq!(compactions(&shared), before);
    drop(worked_on);
    let (report, took) = left(&shared, &p0).await;
    assert!(report.certified && took < PAUSE, "{took:?} {report:?}");
}

/// Too few shards of it are left for another, and nobody knows yet.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_is_tried_five_times_in_vain() {
    let (fx, shared, p0) = draining(7).await;
    let entry = at(&shared, &p0).unwrap().into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap();
    let others = entry.facts.placements.iter().filter(|place| place.provider != "p0").take(2).map(|place| place.provider.clone());
    for gone in others.chain(["p0".to_owned()]) {
        let store = fx.stores.iter().find(|store| store.name() == gone).unwrap();
        store.tamper(shared.names.shard(&address_of(&entry.facts, &gone)).as_str(), None);
    }
    let (report, took) = left(&shared, &p0).await;
    assert_eq!((report.certified, report.remaining), (false, 1));
    assert!(took >= PAUSE * 5 && took < PAUSE * 6, "{took:?}");
}

/// Should the service end meanwhile, few shards lie at two places, and no record is larger than it may be.
#[tokio::test(start_paused = true)]
async fn every_so_many_shards_the_log_says_where_they_are() {
    let (fx, shared) = filled(7).await;
    for number in 0..50 {
        fx.put(format!("x{number}").as_bytes(), &random(300, number)).await.unwrap();
    }
    fx.settle().await;
    let p0 = id("p0");
    modes::set(&shared, PrincipalId::NIL, &p0, ProviderMode::Draining, "a test").await.unwrap();
    fx.settle().await;
    let there = at(&shared, &p0).unwrap().len();
    assert!(there > PER_RECORD && there <= 2 * PER_RECORD, "{there}");
    let seq = || shared.ledger.snapshot().unwrap().applied_seq().unwrap().0;
    let (mut report, so_far) = (planned(&shared, &p0, false), SoFar::default());
    let before = seq();
    one_pass(&shared, &p0, false, (&mut report, &so_far)).await.unwrap();
    assert_eq!((report.moved_shards, seq()), (there as u64, before + 2));
    assert_eq!(at(&shared, &p0).unwrap().len(), 0);
}

/// Deleting what was written anew may take long, and the incarnation may end meanwhile: what it came to is known by then.
#[tokio::test(start_paused = true)]
async fn what_was_written_anew_is_noted_before_the_old_blocks_go() {
    let (fx, shared, p0) = draining(5).await;
    let never = Misbehaviour::Latency { fixed: Duration::from_hours(1), jitter: Duration::ZERO };
    fx.stores.iter().for_each(|store| store.set_faults(FaultPlan::from(Fault::always(never).on(&[Op::Delete]))));
    let (asked, so_far) = (asked(&p0), SoFar::default());
    let noted = || so_far.0.lock().unwrap().as_ref().map_or(0, |report| report.rewritten);
    let leaving = Box::pin(evacuate(&shared, &asked, &so_far));
    assert!(tokio::time::timeout(Duration::from_secs(1), leaving).await.is_err());
    assert_eq!(noted(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_plan_changes_nothing_and_what_is_known_is_not_said_again() {
    let (_fx, shared) = filled(7).await;
    let p0 = id("p0");
    let seq = || shared.ledger.snapshot().unwrap().applied_seq().unwrap().0;
    let (before, so_far) = (seq(), SoFar::default());
    let dry = EvacuateAsked { dry_run: true, ..asked(&p0) };
    assert_eq!(evacuate(&shared, &dry, &so_far).await.unwrap(), planned(&shared, &p0, false));
    assert_eq!((seq(), shared.modes.of(&p0)), (before, ProviderMode::Active));
    assert!(so_far.0.lock().unwrap().is_none());
    // Its mode, its shards, the certificate; the second time nothing but that.
    assert!(left(&shared, &p0).await.0.certified);
    assert_eq!((seq(), shared.modes.of(&p0)), (before + 3, ProviderMode::Draining));
    assert!(left(&shared, &p0).await.0.certified);
    assert_eq!(seq(), before + 4);
    let gone = EvacuateAsked { dead: true, ..asked(&p0) };
    evacuate(&shared, &gone, &SoFar::default()).await.unwrap();
    assert_eq!(shared.modes.of(&p0), ProviderMode::Dead);
}
