//! Leaving and joining over a whole engine in memory.

mod errands;
mod one_shard;

use std::time::Duration;

use diaspore_block::key::MasterKey;
use diaspore_block::manifest::BlockKind;
use diaspore_block::name::Names;
use diaspore_block::record::ProviderMode;
use diaspore_policy::ProviderId;
use diaspore_testkit::{Fault, FaultPlan, HostileStore, Misbehaviour, Op};
use futures::StreamExt;

use super::mover::census;
use super::*;
use crate::KeyringCopy;
use crate::api::Precondition;
use crate::blob::tests::fixture::{Fixture, random, whole};
use crate::collect;

const MIB: usize = 1 << 20;

fn leave(provider: &str) -> Errand {
    Errand::Evacuate(EvacuateAsked { provider: provider.to_owned(), dead: false, dry_run: false, most: None })
}

impl Fixture {
    async fn evacuate(&self, errand: Errand) -> Evacuated {
        match self.engine.relocate(errand).await.unwrap() {
            Relocated::Evacuated(report) => report,
            other @ Relocated::Rebalanced(_) => panic!("{other:?}"),
        }
    }

    async fn filled(providers: usize) -> (Self, Vec<Vec<u8>>) {
        let fx = Self::start(providers).await;
        let blobs: Vec<Vec<u8>> = (0..6).map(|index| random(if index % 2 == 0 { 5000 } else { 7 * MIB }, index)).collect();
        for (index, data) in blobs.iter().enumerate() {
            fx.put(format!("{index}").as_bytes(), data).await.unwrap();
        }
        fx.settle().await;
        fx.copy_keyring().await;
        (fx, blobs)
    }

    /// What the process does at a start, when it has the master key.
    async fn copy_keyring(&self) -> Vec<KeyringCopy> {
        self.engine.spread_keyring(&MasterKey::from_bytes([9; 32])).await.unwrap().into_values().collect()
    }

    async fn check(&self, blobs: &[Vec<u8>]) {
        for (index, data) in blobs.iter().enumerate() {
            self.forget();
            assert!(self.read(format!("{index}").as_bytes()).await.unwrap() == *data, "{index}");
        }
    }

    /// No account announces the newest compacted log any more.
    fn lose_newest_heads(&self) {
        let (shared, names) = (self.engine.shared(), Names::new(&self.keys.name));
        let view = shared.ledger.snapshot().unwrap();
        let newest = view.compactions().unwrap().pop().unwrap().compacted.root;
        let root = view.block(newest).unwrap().unwrap().facts;
        for store in &self.stores {
            store.tamper(names.head(store.name(), root.incarnation, root.counter).as_str(), None);
        }
    }

    /// Objects that are shards: all but claims and the like.
    fn shards(&self, at: usize) -> usize {
        self.stores[at].objects().iter().filter(|(path, _)| path.find('/') == Some(2)).count()
    }

    fn at(&self, provider: &str) -> u64 {
        census(&self.engine.shared()).unwrap().get(&ProviderId::new(provider).unwrap()).copied().unwrap_or(0)
    }
}

/// As many accounts as shards, and one is declared dead: its record itself, and whatever was written while nobody knew, could never get
/// its fifth shard, and nothing that came later either. So nothing settled any more, and no checkpoint was ever due again.
#[tokio::test(start_paused = true)]
async fn with_an_account_too_few_a_narrower_layout_is_taken_up_and_everything_settles() {
    let (fx, blobs) = Fixture::filled(5).await;
    assert_eq!((fx.engine.status().k, fx.engine.status().n), (3, 5));
    fx.stores[2].lose_everything();
    fx.stores[2].set_faults(FaultPlan::down());
    fx.put(b"between", &random(4000, 60)).await.unwrap();
    fx.engine.set_provider_mode(&fx.caller(), "p2", ProviderMode::Dead, "gone for good").await.unwrap();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!((fx.engine.status().k, fx.engine.status().n), (2, 4), "as many losses survived, on the four that are left");
    fx.put(b"later", &random(9 * MIB, 61)).await.unwrap();
    fx.settle().await;
    assert_eq!(fx.engine.status().unsettled_blocks, 0);
    fx.check(&blobs).await;
    let fx = fx.restart().await;
    assert_eq!((fx.engine.status().k, fx.engine.status().n), (2, 4));
    fx.settle().await;
    fx.stores[4].lose_everything();
    fx.stores[4].set_faults(FaultPlan::down());
    fx.forget();
    assert!(fx.read(b"later").await.unwrap() == random(9 * MIB, 61) && fx.read(b"between").await.unwrap() == random(4000, 60));
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_left_and_the_log_says_so() {
    let (fx, blobs) = Fixture::filled(7).await;
    let before = fx.at("p2");
    assert!(before > 4);
    let dry = Errand::Evacuate(EvacuateAsked { provider: "p2".to_owned(), dead: false, dry_run: true, most: None });
    let plan = fx.evacuate(dry).await;
    assert_eq!((plan.blocks, plan.remaining, plan.crowded, plan.moved_shards, plan.certified), (before, before, 0, 0, false));
    assert_eq!(plan.domains, 6);
    fx.forget();
    let mut reading = fx.open(b"1", None).await.unwrap().body;
    let first = reading.next().await.unwrap().unwrap();
    let report = fx.evacuate(leave("p2")).await;
    assert!(report.certified && report.reachable && report.moved_shards >= before, "{report:?}");
    assert_eq!((report.remaining, report.left, fx.shards(2), fx.at("p2")), (0, report.control, 0, 0));
    assert!([first.as_ref(), &whole(reading).await.unwrap()].concat() == blobs[1], "reads stay up");
    fx.check(&blobs).await;
    let shared = fx.engine.shared();
    let entry = shared.ledger.snapshot().unwrap().provider("p2").unwrap().unwrap();
    assert_eq!(entry.mode, ProviderMode::Draining);
    assert_eq!(entry.evacuated.unwrap().1.left, report.left);
    fx.put(b"later", &random(9 * MIB, 50)).await.unwrap();
    fx.settle().await;
    assert_eq!(fx.shards(2), 0, "nothing new goes there");
    fx.stores[2].lose_everything();
    fx.stores[2].set_faults(FaultPlan::down());
    fx.stores[0].set_faults(FaultPlan::down());
    fx.stores[1].set_faults(FaultPlan::down());
    fx.check(&blobs).await;
}

/// Accounts were replaced one after the other, and the keyring stayed behind on those that were left: with the service's disk everything was lost.
#[tokio::test(start_paused = true)]
async fn nobody_is_certified_as_left_while_too_few_others_hold_the_keyring() {
    let (fx, _) = Fixture::filled(7).await;
    let fx = fx.restart().await;
    let report = fx.evacuate(leave("p2")).await;
    assert!(!report.certified && report.remaining == 0, "{report:?}");
    assert!(report.keyring.unwrap().starts_with("0 of the 6 domains that stay are known to hold the keyring, 4 are needed"));
    // What does not answer is not known to hold it, and what is being left does not count.
    let shared = fx.engine.shared();
    for at in [3, 4] {
        fx.stores[at].set_faults(FaultPlan::down());
    }
    crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, &ProviderId::new("p5").unwrap(), ProviderMode::Draining, "")
        .await
        .unwrap();
    assert_eq!(fx.copy_keyring().await.iter().filter(|copy| **copy == KeyringCopy::Held).count(), 3);
    for at in [3, 4] {
        fx.stores[at].set_faults(FaultPlan::honest());
    }
    let report = fx.evacuate(leave("p2")).await;
    assert!(!report.certified && report.keyring.unwrap().starts_with("3 of the 5 domains that stay"));
    let entry = shared.ledger.snapshot().unwrap().provider("p2").unwrap().unwrap();
    assert!(entry.evacuated.is_none());
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(fx.copy_keyring().await.iter().all(|copy| *copy == KeyringCopy::Held));
    let report = fx.evacuate(leave("p2")).await;
    assert!(report.certified && report.keyring.is_none(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_gone_is_left_too() {
    let (fx, blobs) = Fixture::filled(7).await;
    fx.stores[3].lose_everything();
    fx.stores[3].set_faults(FaultPlan::down());
    let errand = Errand::Evacuate(EvacuateAsked { provider: "p3".to_owned(), dead: true, dry_run: false, most: None });
    let report = fx.evacuate(errand).await;
    assert!(report.certified && !report.reachable && report.moved_shards > 4, "{report:?}");
    assert_eq!(fx.at("p3"), 0);
    for store in [0, 1] {
        fx.stores[store].set_faults(FaultPlan::down());
    }
    fx.check(&blobs).await;
}

/// What it holds is wrong, so its shards are made from the others; nothing of it is believed.
#[tokio::test(start_paused = true)]
async fn a_liar_is_left_without_taking_its_lies_along() {
    let (fx, blobs) = Fixture::filled(7).await;
    fx.stores[1].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 3 }).on(&[Op::Get])));
    let report = fx.evacuate(leave("p1")).await;
    assert!(report.certified, "{report:?}");
    fx.stores[1].set_faults(FaultPlan::down());
    for store in [0, 2] {
        fx.stores[store].set_faults(FaultPlan::down());
    }
    fx.check(&blobs).await;
}

/// One account was away for so long that its shards were made again at the only free domain. It is back, with shards that are one too many:
/// they give way, for it is the only place left.
#[tokio::test(start_paused = true)]
async fn shards_that_are_one_too_many_give_way() {
    let (fx, blobs) = Fixture::filled(6).await;
    fx.stores[0].set_faults(FaultPlan::down());
    tokio::time::sleep(Duration::from_mins(40)).await;
    fx.settle().await;
    assert_eq!(fx.at("p0"), 0, "all of it was made again");
    assert!(fx.shards(0) > 4);
    fx.stores[0].set_faults(FaultPlan::honest());
    // Until its score forgets that it was down.
    tokio::time::sleep(Duration::from_mins(30)).await;
    let report = fx.evacuate(leave("p1")).await;
    assert!(report.certified, "{report:?}");
    for store in [1, 2, 3] {
        fx.stores[store].set_faults(FaultPlan::down());
    }
    fx.check(&blobs).await;
}

#[tokio::test(start_paused = true)]
async fn leaving_goes_on_after_a_crash() {
    let (fx, blobs) = Fixture::filled(7).await;
    let before = fx.at("p4");
    // Whatever has left p4 cannot be deleted there yet, so the errand is surely on its way when the first move is in the log.
    let never = Misbehaviour::Latency { fixed: Duration::from_hours(1), jitter: Duration::ZERO };
    fx.stores[4].set_faults(FaultPlan::from(Fault::always(never).on(&[Op::Delete])));
    let number = fx.engine.begin_relocating(leave("p4")).unwrap();
    assert!(fx.engine.begin_relocating(leave("p4")).is_err(), "one at a time");
    let first_move = async {
        while fx.at("p4") == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), first_move).await.unwrap();
    assert_eq!(fx.engine.relocations().running, Some(number));
    let fx = fx.restart().await;
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    fx.check(&blobs).await;
    let shared = fx.engine.shared();
    assert_eq!(shared.modes.of(&ProviderId::new("p4").unwrap()), ProviderMode::Draining, "the log knows");
    fx.copy_keyring().await;
    let report = fx.evacuate(leave("p4")).await;
    assert!(report.certified && report.blocks <= before + 2, "{report:?}");
    assert_eq!((fx.at("p4"), fx.shards(4)), (0, 0));
    // Nothing lies on two domains because a copy was made and not recorded.
    let copies: usize = (0..7).map(|at| fx.shards(at)).sum();
    let known: u64 = census(&fx.engine.shared()).unwrap().values().sum();
    assert!(copies as u64 <= known + 3, "{copies} objects for {known} shards");
    fx.check(&blobs).await;
}

/// As many domains as shards: without one of them there is no place. Data is written anew as any k of fewer, compacted logs are made until the
/// log needs none of its wider blocks, decisions among them, and those go.
#[tokio::test(start_paused = true)]
async fn without_a_free_domain_blocks_are_written_anew_narrower() {
    let (fx, blobs) = Fixture::filled(5).await;
    let blocks = fx.at("p0");
    let dry = Errand::Evacuate(EvacuateAsked { provider: "p0".to_owned(), dead: false, dry_run: true, most: None });
    let plan = fx.evacuate(dry).await;
    let report = fx.evacuate(leave("p0")).await;
    // The service takes up a layout for four meanwhile; the errand goes on in the incarnation that follows, and says what it all came to.
    assert_eq!((report.domains, report.crowded, report.blocks, report.bytes), (4, blocks, blocks, plan.bytes));
    assert!(report.rewritten >= 3, "{report:?}");
    assert_eq!((fx.engine.status().k, fx.engine.status().n), (2, 4));
    assert!(report.certified && report.remaining == 0 && report.crowded_log == 0, "{report:?}");
    assert_eq!((fx.at("p0"), fx.shards(0), report.left), (0, 0, report.control));
    fx.check(&blobs).await;
    // It is not missed, neither at a start nor when the disk is lost.
    fx.settle().await;
    fx.stores[0].lose_everything();
    fx.stores[0].set_faults(FaultPlan::down());
    let fx = fx.restart().await;
    fx.check(&blobs).await;
    let fx = fx.recover().await;
    fx.check(&blobs).await;
}

/// The service was restarted often, wide each time, and had compacted its log before: none of that ties it to the account.
#[tokio::test(start_paused = true)]
async fn decisions_and_compacted_logs_of_wider_days_do_not_hold_an_account() {
    let (mut fx, blobs) = Fixture::filled(5).await;
    for round in 0..4_u64 {
        fx.put(format!("more {round}").as_bytes(), &random(3000, 70 + round)).await.unwrap();
        fx.settle().await;
        fx.engine.checkpoint_log().await.unwrap();
        fx = fx.restart().await;
    }
    fx.settle().await;
    let decisions = fx.engine.shared().ledger.snapshot().unwrap().chain().unwrap().len();
    assert!(decisions >= 5);
    fx.copy_keyring().await;
    let report = fx.evacuate(leave("p1")).await;
    assert!(report.certified, "{report:?}");
    assert_eq!((fx.at("p1"), fx.shards(1)), (0, 0));
    fx.check(&blobs).await;
    fx.stores[1].lose_everything();
    fx.stores[1].set_faults(FaultPlan::down());
    let fx = fx.recover().await;
    fx.check(&blobs).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_not_configured_is_refused_before_anything_is_done() {
    let (fx, _) = Fixture::filled(7).await;
    let errand = Errand::Evacuate(EvacuateAsked { provider: "nobody".to_owned(), dead: false, dry_run: false, most: None });
    assert!(fx.engine.relocate(errand).await.unwrap_err().message.contains("no provider is called nobody"));
    assert_eq!(fx.engine.shared().modes.of(&ProviderId::new("p2").unwrap()), ProviderMode::Active);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_was_away_gets_its_share() {
    let fx = Fixture::start(7).await;
    let p6 = ProviderId::new("p6").unwrap();
    crate::modes::set(&fx.engine.shared(), diaspore_block::id::PrincipalId::NIL, &p6, ProviderMode::Draining, "not yet").await.unwrap();
    let data = random(60 * MIB, 60);
    fx.put(b"all", &data).await.unwrap();
    for index in 0..20 {
        fx.put(format!("{index}").as_bytes(), &random(3000, index)).await.unwrap();
    }
    fx.settle().await;
    let few = fx.at("p6");
    crate::modes::set(&fx.engine.shared(), diaspore_block::id::PrincipalId::NIL, &p6, ProviderMode::Active, "now").await.unwrap();
    fx.settle().await;
    let Relocated::Rebalanced(plan) = fx.engine.relocate(Errand::Rebalance { dry_run: true }).await.unwrap() else { panic!() };
    assert!(plan.planned > 5 && plan.moved == 0, "{plan:?}");
    let Relocated::Rebalanced(done) = fx.engine.relocate(Errand::Rebalance { dry_run: false }).await.unwrap() else { panic!() };
    assert!(done.moved >= plan.planned && done.failed == 0, "{done:?}");
    let total: u64 = census(&fx.engine.shared()).unwrap().values().sum();
    assert!(fx.at("p6") > few && fx.at("p6") * 7 + 14 >= total, "{} of {total}", fx.at("p6"));
    let stored: usize = fx.stores.iter().map(HostileStore::objects).map(|objects| objects.len()).sum();
    assert!(stored as u64 <= total + 7 * 3 + 7, "{stored} objects for {total} shards");
    for store in [0, 1] {
        fx.stores[store].set_faults(FaultPlan::down());
    }
    fx.forget();
    assert!(fx.read(b"all").await.unwrap() == data);
}

/// Cut short behind any record, with the newest compacted log lost besides: what the older one leads on from is still there, which are the
/// decisions behind it above all.
#[tokio::test(start_paused = true)]
async fn wherever_leaving_is_cut_short_a_recovery_from_nothing_follows() {
    for records in 0.. {
        let mut fx = Fixture::start(5).await;
        let blobs: Vec<Vec<u8>> = [5000, MIB, 300, 4000, 20].into_iter().zip(0..).map(|(len, seed)| random(len, seed)).collect();
        for (index, data) in blobs.iter().enumerate() {
            fx.put(format!("{index}").as_bytes(), data).await.unwrap();
            fx.settle().await;
            if index < 2 {
                fx.engine.checkpoint_log().await.unwrap();
            } else {
                fx = fx.restart().await;
                fx.settle().await;
            }
        }
        let applied = |fx: &Fixture| fx.engine.shared().ledger.snapshot().unwrap().applied_seq().unwrap().0;
        let end = applied(&fx) + records;
        fx.engine.begin_relocating(leave("p0")).unwrap();
        while applied(&fx) < end && fx.engine.relocations().running.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ended = fx.engine.relocations().running.is_none();
        fx.lose_newest_heads();
        let fx = fx.recover().await;
        fx.check(&blobs).await;
        if ended {
            assert!(records > 10, "it was cut short {records} times only");
            return;
        }
    }
}

/// A block is condemned while one of its shards is read to be moved. The move puts nothing any more, and until it has ended nothing is deleted:
/// a provider that was seen clean would not be asked again.
#[tokio::test(start_paused = true)]
async fn a_move_puts_nothing_of_a_block_that_was_condemned_meanwhile() {
    let fx = Fixture::start(7).await;
    fx.put(b"goes", &random(3 * MIB, 1)).await.unwrap();
    fx.settle().await;
    fx.delete(b"goes", Precondition::None, None).await.unwrap();
    fx.settle().await;
    let shared = fx.engine.shared();
    let view = || shared.ledger.snapshot().unwrap();
    let entry = view().blocks(None, 100).unwrap().into_iter().find(|entry| entry.facts.kind == BlockKind::Bulk).unwrap();
    let from = ProviderId::new(&entry.facts.placements[0].provider).unwrap();
    let late = |op, by| Fault::always(Misbehaviour::Latency { fixed: Duration::from_secs(by), jitter: Duration::ZERO }).on(&[op]);
    for store in &fx.stores {
        store.set_faults(FaultPlan::from(late(Op::Put, 5)).with(late(Op::Get, 4)));
    }
    let asked = collect::Asked { now: true, ..collect::Asked::default() };
    let collecting = collect::begin(&shared, asked).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(view().condemned(entry.facts.id).unwrap().is_none(), "the record is on its way");
    let moved = mover::place(&shared, &entry, &from, None, false).await;
    assert!(view().condemned(entry.facts.id).unwrap().is_some());
    assert_eq!(moved.unwrap_err(), mover::Stay::Busy);
    let swept = collecting.outcome.await.unwrap().unwrap().swept;
    assert_eq!((swept.blocks, swept.waiting), (0, 1), "it was being moved when its turn came");
    let reads = || fx.stores.iter().map(|store| store.requests(Op::Get)).sum::<u64>();
    let before = reads();
    assert_eq!(mover::place(&shared, &entry, &from, None, false).await.unwrap_err(), mover::Stay::Busy);
    assert_eq!(reads(), before, "what is condemned is not even read");
    for store in &fx.stores {
        store.set_faults(FaultPlan::honest());
    }
    let Ok(done) = collect::collect(&shared, asked).await else { panic!() };
    assert_eq!((done.swept.blocks, done.swept.waiting), (1, 0));
    assert!(done.providers.values().all(|found| found.pending + found.orphans == 0), "{:?}", done.providers);
}
