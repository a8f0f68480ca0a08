//! What is sent where and when, and how it ends.

use diaspore_block::geometry::Geometry;
use diaspore_block::manifest::LogState;
use diaspore_block::record::Private;
use diaspore_provider::Operation;

use super::*;
use crate::coded::address_of;

const SOON: Duration = Duration::from_millis(50);

/// A block of data for five of so many accounts, not sent yet.
pub(super) struct One {
    pub(super) fx: Fixture,
    pub(super) shared: Arc<Shared>,
    pub(super) coded: Arc<Coded>,
    /// Where its shards belong, by shard.
    homes: Vec<ProviderId>,
    spares: Vec<ProviderId>,
}

impl One {
    pub(super) async fn at(providers: usize) -> Self {
        Self::coded(providers, Geometry::new(3, 5).unwrap()).await
    }

    async fn coded(providers: usize, geometry: Geometry) -> Self {
        let fx = Fixture::start(providers).await;
        fx.settle().await;
        let shared = fx.engine.shared();
        let slot = open_bulk(&shared).unwrap();
        let log = LogState { epoch: slot.epoch, k_floor: geometry.k(), ..LogState::default() };
        let signed = block::encode(vec![1; 1000], geometry, [7; 32]).unwrap().sign(slot.position, 0, log, &shared.keys.identity);
        let coded = Arc::new(Coded::new(signed, Vec::new()));
        let facts = coded.facts();
        let mut homes = Plan::draw(seats(&shared, &facts), geometry.n(), facts.id).map(|plan| plan.homes()).unwrap_or_default();
        homes.sort();
        let homes: Vec<_> = homes.into_iter().map(|(_, home)| home).collect();
        let ids = shared.fleet.providers().iter().map(|spec| spec.id.clone());
        let spares = ids.filter(|id| !homes.contains(id)).collect();
        Self { fx, shared, coded, homes, spares }
    }

    fn store(&self, at: &ProviderId) -> &HostileStore {
        self.fx.stores.iter().find(|store| store.name() == at.as_str()).unwrap()
    }

    /// PUTs there fail, or take so long.
    fn fails(&self, at: &ProviderId) {
        self.store(at).set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
    }

    fn slows(&self, at: &ProviderId, by: Duration) {
        let late = Misbehaviour::Latency { fixed: by, jitter: Duration::ZERO };
        self.store(at).set_faults(FaultPlan::from(Fault::always(late).on(&[Op::Put])));
    }

    fn shows(&self, at: &ProviderId) -> bool {
        self.store(at).peek(self.shared.names.shard(&address_of(&self.coded.facts(), at.as_str())).as_str()).is_some()
    }

    fn send(&self, purpose: Purpose) -> ScatterHandle {
        spawn(&self.shared, Arc::clone(&self.coded), purpose, None)
    }

    fn open(&self) -> Open {
        self.shared.settlement.get(self.coded.facts().id).unwrap()
    }

    /// How the register has it when the task has ended: shards there, vain tries, how long it is left alone.
    async fn ended(&self) -> (usize, u32, Option<Duration>) {
        while self.open().busy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let open = self.open();
        let pause = open.not_before.map(|at| at.saturating_duration_since(Instant::now()));
        (open.stored.len(), open.failures, pause)
    }

    /// A task that was not started.
    fn task(&self) -> Task {
        let facts = self.coded.facts();
        self.shared.settlement.open(Open::new(Arc::clone(&facts), None, self.shared.clock.now()));
        Task {
            shared: Arc::clone(&self.shared),
            coded: Arc::clone(&self.coded),
            plan: Plan::draw(seats(&self.shared, &facts), facts.geometry.n(), facts.id).unwrap(),
            purpose: Purpose::Bulk,
            stored: BTreeMap::new(),
            failures: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            quorum: Some(oneshot::channel().0),
            grace_ends: None,
            _budget: None,
        }
    }

    /// How long after so many failures a shard without a spare is tried again, to a hundredth of a second.
    async fn pauses(&self, kind: ProviderErrorKind, times: usize) -> Vec<u128> {
        let mut task = self.task();
        let mut pauses = Vec::new();
        for _ in 0..times {
            let (mut puts, begun) = (Puts::new(), Instant::now());
            task.replace(0, self.homes[0].clone(), &failed(&self.homes[0], kind), &mut puts);
            let done = puts.next().await.unwrap();
            assert_eq!((done.shard, &done.provider, puts.len()), (0, &self.homes[0], 0));
            task.in_flight.clear();
            pauses.push(begun.elapsed().as_millis() / 10 * 10);
        }
        pauses
    }
}

fn failed(provider: &ProviderId, kind: ProviderErrorKind) -> ProviderError {
    ProviderError { provider: provider.clone(), operation: Operation::Put, kind, detail: String::new() }
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_home_fails_is_at_a_spare_at_once() {
    let one = One::at(6).await;
    one.fails(&one.homes[1]);
    let begun = Instant::now();
    let placements = one.send(Purpose::Bulk).quorum().await.unwrap();
    assert!(placements.iter().filter(|place| place.acked).count() > 3);
    assert_eq!(one.ended().await, (5, 0, None), "whole, and nothing is wrong with it");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(one.open().stored.get(&1), Some(&one.spares[0]));
    assert!(one.shows(&one.spares[0]) && !one.shows(&one.homes[1]));
    let said = one.shared.audit.take(100).records().any(|record| match record.private {
        Private::ProviderFault(fault) => fault.provider == one.homes[1].as_str() && fault.what == "put: Unavailable",
        _ => false,
    });
    assert!(said, "the log says who failed");
}

/// Whoever does not answer for long is not asked again without end, and what cannot succeed soon is not tried soon.
#[tokio::test(start_paused = true)]
async fn without_a_spare_the_same_provider_is_tried_again_after_a_pause_that_doubles() {
    let one = One::at(5).await;
    assert_eq!(one.pauses(ProviderErrorKind::Unavailable, 8).await, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    for hopeless in [ProviderErrorKind::AlreadyExists, ProviderErrorKind::Invalid] {
        assert_eq!(one.pauses(hopeless, 1).await, [5000]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_a_spare_is_left_to_what_is_under_way_and_past_the_quorum_to_the_settler() {
    let one = One::at(5).await;
    let error = failed(&one.homes[0], ProviderErrorKind::Timeout);
    let sent = |task: &mut Task| {
        let mut puts = Puts::new();
        task.replace(0, one.homes[0].clone(), &error, &mut puts);
        puts.len()
    };
    let mut task = one.task();
    task.in_flight.insert((1, one.homes[1].clone()));
    assert_eq!(sent(&mut task), 1, "what is under way for another shard is no help");
    let mut task = one.task();
    task.in_flight.insert((0, one.homes[1].clone()));
    assert_eq!(sent(&mut task), 0);
    let mut task = one.task();
    task.quorum = None;
    assert_eq!(sent(&mut task), 0);
    // With a spare it goes there, whoever waits.
    let one = One::at(6).await;
    let mut task = one.task();
    task.quorum = None;
    let mut puts = Puts::new();
    task.replace(0, one.homes[0].clone(), &failed(&one.homes[0], ProviderErrorKind::Timeout), &mut puts);
    assert_eq!(task.in_flight, BTreeSet::from([(0, one.spares[0].clone())]));
    assert_eq!(task.plan.homes().iter().filter(|(shard, _)| *shard == 0).count(), 2);
    assert!(one.open().tried.contains(&(0, one.spares[0].clone())), "a request whose answer is lost may land there");
}

#[tokio::test(start_paused = true)]
async fn of_those_that_a_shard_was_tried_at_who_answers_comes_first_and_then_who_failed_least() {
    let one = One::at(6).await;
    let mut task = one.task();
    let (home, spare) = (&one.homes[0], &one.spares[0]);
    assert_eq!(task.plan.spare(0).as_ref(), Some(spare));
    task.failures = BTreeMap::from([(home.clone(), 3), (spare.clone(), 1)]);
    assert_eq!(task.tried_before(0), Some((spare.clone(), true)));
    task.failures.insert(spare.clone(), 4);
    assert_eq!(task.tried_before(0), Some((home.clone(), true)));
    let mut present = seats(&one.shared, &one.coded.facts());
    for seat in present.iter_mut().filter(|seat| seat.provider == *home) {
        (seat.healthy, seat.alive) = (false, false);
    }
    task.plan.refresh(&present);
    assert_eq!(task.tried_before(0), Some((spare.clone(), true)), "the home failed less, and is down");
    task.in_flight.insert((0, spare.clone()));
    assert_eq!(task.tried_before(0), Some((home.clone(), false)));
    task.in_flight.insert((0, home.clone()));
    assert_eq!(task.tried_before(0), None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_quorum_is_helped_along_by_spares() {
    for (providers, quorum) in [(6, Duration::from_secs(2)), (5, Duration::from_secs(8))] {
        let one = One::at(providers).await;
        one.slows(&one.homes[0], Duration::from_secs(8));
        one.slows(&one.homes[1], Duration::from_secs(9));
        let begun = Instant::now();
        one.send(Purpose::Bulk).quorum().await.unwrap();
        let took = begun.elapsed();
        assert!(took >= quorum && took < quorum + SOON, "{providers}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_shards_that_are_still_on_their_way_are_sent_to_spares_too() {
    let one = One::at(7).await;
    let mut task = one.task();
    for shard in [0, 2, 3] {
        task.stored.insert(shard, one.homes[usize::from(shard)].clone());
    }
    task.in_flight.extend([1, 4].map(|shard| (shard, one.homes[usize::from(shard)].clone())));
    let mut puts = Puts::new();
    task.hedge(&mut puts);
    assert_eq!(puts.len(), 2);
    let twice = |shard: u8| task.in_flight.iter().filter(|(other, at)| *other == shard && one.spares.contains(at)).count();
    assert_eq!((twice(1), twice(4)), (1, 1), "{:?}", task.in_flight);
    let mut more = Puts::new();
    task.hedge(&mut more);
    assert_eq!(more.len(), 0, "no spare is left, and wherever they were tried a request is on its way");
}

#[tokio::test(start_paused = true)]
async fn k_plus_one_shards_on_distinct_domains_are_a_quorum_and_no_fewer() {
    let one = One::at(5).await;
    let mut task = one.task();
    let (done, mut quorum) = oneshot::channel();
    task.quorum = Some(done);
    // Two accounts with one provider of theirs: what loses one loses the other.
    let mut present = seats(&one.shared, &one.coded.facts());
    let same = present[0].domain.clone();
    present[1].domain = same;
    let at = |index: usize| present[index].provider.clone();
    let accounts = [at(0), at(1), at(2), at(3), at(4)];
    task.plan = Plan::resume(present, 5, one.coded.facts().id, &[]);
    for (shard, account) in (0..4).zip(&accounts) {
        task.stored.insert(shard, account.clone());
        task.check_quorum();
        assert!(quorum.try_recv().is_err() && task.grace_ends.is_none(), "{shard}");
    }
    task.stored.insert(4, accounts[4].clone());
    task.check_quorum();
    assert_eq!(quorum.try_recv().unwrap().unwrap().iter().filter(|place| place.acked).count(), 5);
    assert_eq!(task.grace_ends, Some(Instant::now() + GRACE));
    tokio::time::sleep(SOON).await;
    task.check_quorum();
    assert_eq!(task.grace_ends, Some(Instant::now() + GRACE - SOON), "once");
}

/// A hedge and its home both answered: the first to do so counts, and the other is no loss.
#[tokio::test(start_paused = true)]
async fn the_first_to_acknowledge_a_shard_has_it() {
    let one = One::at(6).await;
    let mut task = one.task();
    let mut puts = Puts::new();
    let (home, spare) = (&one.homes[0], &one.spares[0]);
    let done = |provider: &ProviderId, outcome| Done { shard: 0, provider: provider.clone(), outcome };
    task.in_flight = BTreeSet::from([(0, home.clone()), (0, spare.clone()), (1, one.homes[1].clone())]);
    task.take(done(spare, Ok(())), &mut puts);
    assert_eq!(task.in_flight, BTreeSet::from([(0, home.clone()), (1, one.homes[1].clone())]));
    task.take(done(home, Ok(())), &mut puts);
    assert_eq!(task.stored, BTreeMap::from([(0, spare.clone())]));
    assert_eq!(one.open().stored, BTreeMap::from([(0, spare.clone())]));
    task.take(done(home, Err(failed(home, ProviderErrorKind::Timeout))), &mut puts);
    assert!(puts.is_empty() && task.failures.is_empty(), "it need not be anywhere else");
}

/// Shards beyond the quorum get a little time while their bytes are at hand; then the memory goes back, and the settler makes them.
#[tokio::test(start_paused = true)]
async fn past_the_quorum_the_rest_has_three_seconds() {
    for (slow, shards) in [(2900, 5), (3100, 4)] {
        let one = One::at(5).await;
        one.slows(&one.homes[2], Duration::from_millis(slow));
        let begun = Instant::now();
        one.send(Purpose::Bulk).quorum().await.unwrap();
        assert!(begun.elapsed() < SOON);
        let (stored, failures, pause) = one.ended().await;
        let took = begun.elapsed();
        assert_eq!((stored, failures), (shards, u32::from(shards < 5)));
        assert!(took >= Duration::from_millis(slow.min(3000)) && took < Duration::from_millis(slow.min(3000)) + SOON, "{took:?}");
        assert_eq!(pause.is_some(), shards < 5);
        assert!(pause.is_none_or(|pause| pause <= PAUSES.0 && pause + SOON > PAUSES.0), "{pause:?}");
    }
    // With nothing on its way any more there is nothing to wait for.
    let one = One::at(5).await;
    one.fails(&one.homes[2]);
    let begun = Instant::now();
    one.send(Purpose::Bulk).quorum().await.unwrap();
    assert_eq!(one.ended().await.0, 4);
    assert!(begun.elapsed() < GRACE / 2);
}

#[tokio::test(start_paused = true)]
async fn data_without_a_quorum_is_given_up_and_a_commit_block_never() {
    let one = One::at(5).await;
    for home in &one.homes[..2] {
        one.fails(home);
    }
    let begun = Instant::now();
    let error = one.send(Purpose::Bulk).quorum().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotAccepted);
    assert!(error.message.contains("3 of 5 shards found a provider in time; 4 are needed"), "{}", error.message);
    assert!(begun.elapsed() >= BULK_GIVES_UP && begun.elapsed() < BULK_GIVES_UP + SOON);
    assert_eq!(one.ended().await.1, 1);

    let one = One::at(5).await;
    for home in &one.homes[..2] {
        one.fails(home);
    }
    let mut handle = one.send(Purpose::Commit(Seq(1000)));
    assert_eq!(one.open().seq, Some(Seq(1000)));
    assert!(tokio::time::timeout(Duration::from_mins(10), handle.quorum()).await.is_err());
    for home in &one.homes[..2] {
        one.store(home).set_faults(FaultPlan::honest());
    }
    assert!(tokio::time::timeout(Duration::from_mins(1), handle.quorum()).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_closing_engine_ends_what_has_no_quorum_yet() {
    let one = One::at(5).await;
    for home in &one.homes[..2] {
        one.slows(home, Duration::from_secs(9));
    }
    let mut handle = one.send(Purpose::Commit(Seq(1000)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    one.shared.close();
    let begun = Instant::now();
    let error = handle.quorum().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotAccepted);
    assert!(error.message.contains("closed before enough providers answered"), "{}", error.message);
    assert!(begun.elapsed() < SOON);
}

#[tokio::test(start_paused = true)]
async fn with_fewer_domains_than_shards_nothing_is_sent() {
    let one = One::coded(5, Geometry::new(3, 6).unwrap()).await;
    let error = one.send(Purpose::Bulk).quorum().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooFewDomains);
    assert!(error.message.starts_with("6 distinct failure domains"), "{}", error.message);
    assert_eq!(one.ended().await, (0, 1, None));
    assert!(one.open().tried.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_the_block_does_not_have_is_not_sent() {
    let one = One::at(5).await;
    let to = &one.homes[0];
    let error = put_shard(&one.shared, &one.coded, 5, to).await.unwrap_err();
    assert_eq!((&error.provider, error.operation, error.kind), (to, Operation::Put, ProviderErrorKind::Invalid));
    assert!(!one.shows(to));
    put_shard(&one.shared, &one.coded, 4, to).await.unwrap();
    assert!(one.shows(to));
}

#[tokio::test(start_paused = true)]
async fn no_two_blocks_of_data_have_a_position_and_each_is_handed_over_once() {
    let one = One::at(5).await;
    let [first, second] = [0, 1].map(|_| open_bulk(&one.shared).unwrap());
    assert_eq!(second.position.counter.0, first.position.counter.0 + 1);
    assert_ne!(first.position.block, second.position.block);
    assert_eq!((first.geometry, first.shrunk), (Geometry::new(3, 5).unwrap(), false));
    let mut buffers = one.shared.data.blocks.take(second.geometry, 1000).await.unwrap();
    buffers.payload.extend_from_slice(&[1; 1000]);
    let mut handle = scatter_bulk(&one.shared, second, buffers, Vec::new(), Vec::new()).unwrap();
    let (block, place) = handle.place().unwrap();
    assert_eq!((block, place.counter, place.kind), (second.position.block, second.position.counter, second.position.kind));
    let added = handle.quorum().await.unwrap();
    assert_eq!((added.block, added.geometry, added.counter), (block, second.geometry, place.counter));
    assert!(added.placements.iter().filter(|place| place.acked).count() > 3);
    assert!(handle.place().is_none(), "it is in a record by now");
    one.shared.stage.refuse_new_work();
    assert_eq!(open_bulk(&one.shared).unwrap_err().kind, ErrorKind::ReadOnly);
}
