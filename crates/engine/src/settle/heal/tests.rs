//! One block in trouble: what its providers show, where a missing shard goes, and when it counts.

mod places;

use bytes::Bytes;
use diaspore_block::block;
use diaspore_block::id::{BlockId, PrincipalId};
use diaspore_block::manifest::{BlockPosition, LogState};
use diaspore_ledger::ShardCheck;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::*;
use crate::api::Precondition;
use crate::blob::tests::fixture::random;
use crate::blob::tests::one_block::One;
use crate::coded::Coded;
use crate::collect;
use crate::modes;

impl One {
    /// One that nobody else works on.
    async fn held(providers: usize) -> Self {
        let mut one = Self::at(providers).await;
        one.claim = one.shared.settlement.claim(one.id());
        assert!(one.claim.is_some());
        one
    }

    fn id(&self) -> BlockId {
        self.entry.facts.id
    }

    /// Fails such requests.
    fn fails(&self, at: &ProviderId, ops: &[Op]) {
        self.store(at).set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(ops)));
    }

    /// As the map has it.
    fn whole(&self) -> Open {
        let mut open = Open::known(self.entry.facts.clone(), self.entry.seq, self.entry.time);
        open.repair = true;
        open
    }

    /// Without these shards, which are gone from their places.
    fn without(&self, shards: &[u8]) -> Open {
        let mut open = self.whole();
        for shard in shards {
            let home = open.stored.remove(shard).unwrap();
            self.show(&home, None);
            open.damage.insert(*shard, (home, Seen::Missing));
        }
        open
    }

    /// One try, with the block in the register. Gives the bytes that it moved.
    async fn heal(&self, open: &Open) -> (Result<(), String>, u64) {
        self.shared.settlement.open(open.clone());
        let mut moved = 0;
        let outcome = heal(&self.shared, open, &mut moved).await;
        (outcome, moved)
    }

    fn stored(&self, shard: u8) -> Option<ProviderId> {
        self.shared.settlement.get(self.id()).unwrap().stored.get(&shard).cloned()
    }

    fn check(&self, shard: u8) -> ShardCheck {
        let check = self.shared.ledger.snapshot().unwrap().check_of(self.id()).unwrap().unwrap();
        check.shards[usize::from(shard)]
    }

    async fn source(&self) -> Source {
        let open = self.whole();
        let homes: Vec<_> = open.stored.iter().map(|(shard, home)| (*shard, home.clone())).collect();
        Source::read(&self.shared, &homes, &open).await.unwrap()
    }

    /// A shard as it would lie at an account.
    async fn object(&self, shard: u8, at: &ProviderId) -> Bytes {
        let name = self.shared.names.shard(&address_of(&self.entry.facts, at.as_str()));
        self.source().await.object(&self.shared, shard, at, &name).unwrap().concat().into()
    }

    /// A shard of another block that somebody wrote under the same name.
    fn foreign(&self, shard: u8, at: &ProviderId) -> Bytes {
        let facts = &self.entry.facts;
        let position = BlockPosition {
            deployment: self.shared.deployment(),
            block: BlockId::from_bytes([8; 16]),
            kind: facts.kind,
            incarnation: facts.incarnation,
            counter: facts.counter,
            attempt: facts.attempt,
        };
        let log = LogState { epoch: self.shared.writer.epoch, k_floor: facts.geometry.k(), ..LogState::default() };
        let signed = block::encode(random(5000, 2), facts.geometry, [7; 32]).unwrap().sign(position, 0, log, &self.shared.keys.identity);
        let (name, pieces) = Coded::new(signed, Vec::new()).object(&self.shared, shard, at).unwrap();
        assert_eq!(name.as_str(), self.name(at));
        pieces.concat().into()
    }

    fn repaired(&self) -> (u64, u64) {
        (Meters::read(&self.shared.meters.repaired_shards), Meters::read(&self.shared.meters.repaired_bytes))
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_shard_is_made_again_in_its_own_place() {
    let one = One::held(6).await;
    let (home, size) = (&one.homes[2], one.shows(&one.homes[2]).unwrap().len());
    let open = one.without(&[2]);
    let puts = one.asked(Op::Put);
    assert_eq!(one.heal(&open).await, (Ok(()), open.repair_bytes()));
    assert_eq!((one.stored(2).as_ref(), one.shows(home).unwrap().len(), one.asked(Op::Put)), (Some(home), size, puts + 1));
    assert_eq!(one.repaired(), (1, size as u64));
    assert_eq!(one.check(2).state, Seen::Good.to_u8());
    // With nothing missing there is nothing to do.
    assert_eq!(one.heal(&one.whole()).await, (Ok(()), 0));
    assert_eq!(one.asked(Op::Put), puts + 1);
}

/// Its account may be well again later; until then the shard is needed.
#[tokio::test(start_paused = true)]
async fn a_shard_of_an_account_that_is_not_well_goes_elsewhere_and_if_there_is_no_place_there_all_the_same() {
    for providers in [6, 5] {
        let one = One::held(providers).await;
        let open = one.without(&[2]);
        one.shared.fleet.report_lie(&one.homes[2], "a test");
        one.heal(&open).await.0.unwrap();
        assert_eq!(one.stored(2).as_ref(), Some(one.free.first().unwrap_or(&one.homes[2])));
    }
}

/// Whoever kept verified bytes of a shard keeps none of what lies elsewhere now.
#[tokio::test(start_paused = true)]
async fn what_was_verified_of_a_shard_was_verified_where_it_lay() {
    let one = One::held(6).await;
    scrub::note(&one.shared, &one.entry.facts, &[(2, one.homes[2].clone(), Seen::Good)], true);
    assert!(one.check(2).verified.is_some());
    let mut open = one.without(&[2]);
    open.damage.insert(2, (one.homes[2].clone(), Seen::Silent));
    one.store(&one.homes[2]).set_faults(FaultPlan::down());
    let survey = survey(&one.shared, &open).await;
    assert!(survey.silent && one.check(2).verified.is_some(), "silence says nothing about it");
    while one.shared.fleet.health(&one.homes[2]).unwrap().state != diaspore_provider::HealthState::Down {
        let _none = one.shared.fleet.exists(&one.homes[2], "x", Deadline::control()).await;
    }
    one.heal(&open).await.0.unwrap();
    assert_eq!(one.stored(2), Some(one.free[0].clone()));
    assert_eq!(one.check(2), ShardCheck { state: Seen::Good.to_u8(), verified: None });
}

/// Where bytes were wrong all of them are read again before anything is done; where none were, its header says enough.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_there_after_all_is_not_made_again() {
    for (seen, verified) in [(Seen::Wrong, true), (Seen::Missing, false)] {
        let one = One::held(6).await;
        let mut open = one.whole();
        open.stored.remove(&2);
        open.damage.insert(2, (one.homes[2].clone(), seen));
        let puts = one.asked(Op::Put);
        assert_eq!(one.heal(&open).await, (Ok(()), 0));
        assert_eq!((one.stored(2), one.asked(Op::Put)), (Some(one.homes[2].clone()), puts));
        assert_eq!((one.check(2).state, one.check(2).verified.is_some()), (Seen::Good.to_u8(), verified));
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_who_is_not_known_to_hold_a_shard_is_asked_and_nobody_else() {
    let one = One::held(7).await;
    let (found, surplus) = (one.object(4, &one.homes[0]).await, one.object(4, &one.free[0]).await);
    let mut open = one.without(&[0, 1, 2, 3]);
    open.stored.remove(&4);
    one.show(&one.homes[4], None);
    one.show(&one.homes[0], Some(found));
    one.show(&one.homes[1], Some(one.foreign(1, &one.homes[1])));
    one.show(&one.homes[2], Some(Bytes::from(vec![7; 5000])));
    one.fails(&one.homes[3], &[Op::Get, Op::Head]);
    one.show(&one.free[0], Some(surplus));
    open.tried = vec![(2, one.homes[3].clone())];
    one.shared.settlement.open(open.clone());
    let found = survey(&one.shared, &open).await;
    let set = |ids: &[&ProviderId]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
    let counted = if one.homes[0] < one.free[0] { [&one.homes[0], &one.free[0]] } else { [&one.free[0], &one.homes[0]] };
    assert_eq!(found.missing, BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(found.homes, counted.map(|home| (4, home.clone())), "whoever was asked first counts");
    assert_eq!((found.surplus, one.stored(4).as_ref()), (set(&counted[1..]), Some(counted[0])));
    assert_eq!((found.strangers, found.wrong), (set(&[&one.homes[1]]), set(&[&one.homes[2]])));
    assert_eq!(found.free, set(&[&one.homes[4], &one.free[1]]));
    assert_eq!((found.unanswered, found.silent), (vec![(2, one.homes[3].clone())], true));
    let seen = [0, 1, 2, 3].map(|shard| one.check(shard).state);
    assert_eq!(seen[1..], [Seen::Wrong, Seen::Wrong, Seen::Silent].map(Seen::to_u8));
    // Who is gone for good is not waited for.
    let one = One::held(6).await;
    modes::set(&one.shared, PrincipalId::NIL, &one.free[0], ProviderMode::Dead, "a test").await.unwrap();
    one.store(&one.free[0]).set_faults(FaultPlan::down());
    let gets = one.asked(Op::Get);
    assert!(!survey(&one.shared, &one.whole()).await.silent);
    assert_eq!(one.asked(Op::Get), gets, "everybody else has a shard");
}

/// It acknowledged, and shows another shard, another block, or nothing: what it says is worth nothing for a while.
#[tokio::test(start_paused = true)]
async fn a_repaired_shard_counts_once_its_very_header_was_read_back() {
    let one = One::held(6).await;
    let (home, source) = (&one.homes[2], one.source().await);
    let other = one.object(3, home).await;
    let open = one.without(&[2]);
    one.store(home).set_faults(FaultPlan::from(Fault::always(Misbehaviour::DroppedWrite).on(&[Op::Put])));
    for there in [Some(other), Some(one.foreign(2, home)), Some(Bytes::from(vec![7; 5000])), None] {
        one.shared.settlement.open(open.clone());
        one.show(home, there);
        let why = put_rebuilt(&one.shared, &source, (2, home, true), &open).await.unwrap_err();
        assert!(why.ends_with("took a shard and does not have it"), "{why}");
        let now = one.shared.settlement.get(one.id()).unwrap();
        assert!(now.avoids(home, Instant::now()) && !now.stored.contains_key(&2));
    }
    // Silence is no such proof.
    one.shared.settlement.open(open.clone());
    one.fails(home, &[Op::Get, Op::Head]);
    let why = put_rebuilt(&one.shared, &source, (2, home, true), &open).await.unwrap_err();
    assert!(why.ends_with("took a shard and does not answer now"), "{why}");
    let now = one.shared.settlement.get(one.id()).unwrap();
    assert!(!now.avoids(home, Instant::now()) && !now.stored.contains_key(&2));
    assert_eq!(one.repaired(), (0, 0));
    one.store(home).set_faults(FaultPlan::honest());
    put_rebuilt(&one.shared, &source, (2, home, true), &open).await.unwrap();
    assert_eq!((one.stored(2).as_ref(), one.repaired().0), (Some(home), 1));
}

/// An acknowledgement of a block that never was whole is one as any other.
#[tokio::test(start_paused = true)]
async fn a_shard_of_an_unsettled_block_counts_when_it_is_acknowledged() {
    let one = One::held(6).await;
    let source = one.source().await;
    let mut open = one.without(&[2]);
    open.repair = false;
    one.shared.settlement.open(open.clone());
    let gets = one.asked(Op::Get);
    put_rebuilt(&one.shared, &source, (2, &one.homes[2], false), &open).await.unwrap();
    assert_eq!((one.stored(2), one.asked(Op::Get), one.repaired()), (Some(one.homes[2].clone()), gets, (0, 0)));
    // One that says no has none, and is bound to the shard: it may have landed.
    let mut open = one.without(&[3]);
    open.repair = false;
    one.shared.settlement.open(open.clone());
    one.fails(&one.homes[3], &[Op::Put]);
    put_rebuilt(&one.shared, &source, (3, &one.homes[3], false), &open).await.unwrap_err();
    let now = one.shared.settlement.get(one.id()).unwrap();
    assert_eq!((now.stored.get(&3), now.tried), (None, vec![(3, one.homes[3].clone())]));
}

/// Whoever deletes its shards waits for those who were at work, and for none that comes later.
#[tokio::test(start_paused = true)]
async fn nothing_is_put_of_a_block_that_was_condemned_while_it_was_read() {
    let mut one = One::held(6).await;
    let source = one.source().await;
    let open = one.without(&[2]);
    one.fx.delete(b"one", Precondition::None, None).await.unwrap();
    one.fx.settle().await;
    drop(one.claim.take());
    let report = collect::collect(&one.shared, collect::Asked::default()).await.unwrap();
    assert_eq!((report.condemned_blocks, report.swept.blocks), (1, 0));
    one.shared.settlement.open(open.clone());
    let puts = one.asked(Op::Put);
    let why = put_rebuilt(&one.shared, &source, (2, &one.homes[2], false), &open).await.unwrap_err();
    assert_eq!(why, "nothing in it has to be kept");
    assert_eq!((one.shows(&one.homes[2]), one.asked(Op::Put)), (None, puts));
    assert!(one.shared.settlement.get(one.id()).is_none(), "nobody has to look at it any more");
}

#[tokio::test(start_paused = true)]
async fn from_fewer_than_k_shards_nothing_is_made_and_one_failure_holds_up_no_other() {
    let one = One::held(5).await;
    let open = one.without(&[0, 1]);
    let (refusing, well) = (&one.homes[0], &one.homes[1]);
    one.fails(refusing, &[Op::Put]);
    let (outcome, moved) = one.heal(&open).await;
    assert!(outcome.is_err() && moved == open.repair_bytes(), "k were read");
    assert_eq!((one.stored(0), one.stored(1).as_ref()), (None, Some(well)));
    one.store(refusing).set_faults(FaultPlan::honest());
    let open = one.without(&[0, 1, 2]);
    let (puts, gets) = (one.asked(Op::Put), one.asked(Op::Get));
    assert_eq!(one.heal(&open).await, (Err("2 of 3 shards are left".to_owned()), 0));
    assert_eq!((one.asked(Op::Put), one.asked(Op::Get)), (puts, gets + 3), "who misses one was looked at, and nobody read");
}

/// Two accounts show the same shard, which are two of k for nothing; and who turns out not to have its shard is registered.
#[tokio::test(start_paused = true)]
async fn what_shards_are_made_from_are_k_different_ones() {
    let one = One::held(6).await;
    let twice = one.object(0, &one.free[0]).await;
    one.show(&one.free[0], Some(twice));
    one.show(&one.homes[1], None);
    let mut spoilt = one.shows(&one.homes[2]).unwrap().to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    one.show(&one.homes[2], Some(spoilt.into()));
    let open = one.whole();
    one.shared.settlement.open(open.clone());
    let at = |list: &[(u8, &ProviderId)]| list.iter().map(|(shard, home)| (*shard, (*home).clone())).collect::<Vec<_>>();
    let [first, second, third, fourth, fifth] = [0, 1, 2, 3, 4].map(|shard: usize| (u8::try_from(shard).unwrap(), &one.homes[shard]));
    let few = Source::read(&one.shared, &at(&[first, (0, &one.free[0]), second, third, fourth]), &open).await;
    assert_eq!(few.err().unwrap(), "2 of 3 shards could be read");
    let now = one.shared.settlement.get(one.id()).unwrap();
    assert_eq!(now.damage.get(&1), Some(&(one.homes[1].clone(), Seen::Missing)));
    assert_eq!(now.damage.get(&2), Some(&(one.homes[2].clone(), Seen::Wrong)));
    assert_eq!(now.stored.keys().copied().collect::<Vec<_>>(), [0, 3, 4]);
    assert!(Source::read(&one.shared, &at(&[first, second, fourth, fifth]), &open).await.is_ok());
    let gets = one.asked(Op::Get);
    assert!(Source::read(&one.shared, &at(&[first, fourth, fifth, second, third]), &open).await.is_ok());
    assert_eq!(one.asked(Op::Get), gets + 3, "k are enough");
    assert!(Source::held(&one.shared, &open).is_none(), "of data the journal has nothing");
}
