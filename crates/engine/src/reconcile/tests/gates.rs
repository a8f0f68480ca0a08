//! What a start holds against the disk before it goes on: what its journal says, and whose log that is.

use std::collections::{BTreeMap, BTreeSet};

use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId, Seq};
use diaspore_ledger::{ChainEntry, IncarnationNote, ReleasedNote};

use super::left::Left;
use super::loss::onlooker;
use super::*;
use crate::claim::ClaimBook;
use crate::reconcile::chain::Chain;
use crate::reconcile::position::Evidence;
use crate::reconcile::tail::End;
use crate::reconcile::{Permitted, check_forks, declared_lost, evidence, newest_decided};

fn id(byte: u8) -> IncarnationId {
    IncarnationId::from_bytes([byte; 16])
}

/// The second incarnation rules, and the first ended at sequence 10.
fn chain() -> Chain {
    Chain {
        stretches: Vec::new(),
        ruling: Some((Epoch(2), id(2))),
        passed_over: Vec::new(),
        ends: vec![(id(1), Seq(10))],
        marks: Seq(0),
        given_up_above: None,
    }
}

#[test]
fn what_this_disk_acknowledged_must_be_part_of_the_log() {
    let ground = onlooker(&World::new());
    let end = End { last: Seq(20), ..End::default() };
    let forks = |released: &[(u8, u64)]| {
        let released: BTreeMap<_, _> = released.iter().map(|(of, seq)| (id(*of), Seq(*seq))).collect();
        let checked = check_forks(&ground, &Evidence { released, ..Evidence::nothing() }, &chain(), &end);
        checked.err().inspect(|error| assert!(error.message.contains("fork"), "{error}")).is_some()
    };
    assert!(!forks(&[]) && !forks(&[(1, 10)]) && !forks(&[(2, 20)]) && !forks(&[(1, 3), (2, 20)]));
    assert!(forks(&[(1, 11)]), "it was decided to end before that");
    assert!(forks(&[(2, 21)]), "who rules was not found to have written that");
    assert!(forks(&[(3, 1)]), "it is no part of the log at all");
    assert!(forks(&[(1, 10), (2, 20), (3, 1)]));
}

#[test]
fn only_domains_that_there_are_can_be_declared_lost() {
    let mut ground = onlooker(&World::new());
    assert!(declared_lost(&ground).unwrap().is_empty());
    let known = ground.fleet.providers()[2].domain.clone();
    ground.config.mode = Mode::Recover { declare_lost: vec![known.to_string()] };
    assert_eq!(declared_lost(&ground).unwrap(), BTreeSet::from([known.clone()]));
    ground.config.mode = Mode::Recover { declare_lost: vec![known.to_string(), "nowhere".to_owned()] };
    let refused = declared_lost(&ground).unwrap_err();
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("no failure domain is called nowhere"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_journal_gives_what_may_matter_and_what_was_acknowledged() {
    let left = Left::new().await;
    let shared = left.writer.shared();
    let own = shared.writer.incarnation;
    let note =
        |of, seq| JournalEntry::Released(ReleasedNote { seq: Seq(seq), incarnation: of, attempt: Attempt(0), placements: Vec::new() });
    for entry in [note(id(7), 9), note(id(7), 4), note(id(8), 2)] {
        shared.ledger.append(entry).unwrap();
    }
    for built in left.next(3, 5) {
        shared.ledger.append(built.journal_entry()).unwrap();
    }
    let held = || evidence(&shared).unwrap().held.into_keys().filter(|(_, counter)| counter.0 >= 5).collect::<Vec<_>>();
    assert_eq!(held(), [5, 6, 7].map(|counter| (own, Counter(counter))));
    let released = evidence(&shared).unwrap().released;
    assert_eq!((released[&id(7)], released[&id(8)]), (Seq(9), Seq(2)), "the highest of each");
    assert!(evidence(&shared).unwrap().lost.is_empty());
    shared.ledger.append(JournalEntry::Dropped { incarnation: id(7), from: Counter(0) }).unwrap();
    assert_eq!(held().len(), 3, "those of another");
    shared.ledger.append(JournalEntry::Dropped { incarnation: own, from: Counter(6) }).unwrap();
    assert_eq!(held(), [(own, Counter(5))]);
}

#[test]
fn an_empty_disk_goes_on_with_what_it_began_itself() {
    let mut ground = onlooker(&World::new());
    let notes = [IncarnationNote { incarnation: id(1), epoch: Epoch(1), started: Timestamp(1), k_floor: 3 }];
    let permitted = |ground: &crate::shared::Ground, evidence: &Evidence| {
        Permitted::of(ground, &ground.ledger.snapshot().unwrap(), evidence, &notes).unwrap()
    };
    let plain = permitted(&ground, &Evidence::nothing());
    assert!(plain.check([]).is_ok() && plain.check([id(1), id(1)]).is_ok());
    assert!(plain.check([id(1), id(2)]).unwrap_err().message.contains("recover"));
    // A journal that holds something is no empty disk, nor does a recovery need to be told twice.
    let acknowledged = Evidence { released: BTreeMap::from([(id(9), Seq(1))]), ..Evidence::nothing() };
    assert!(permitted(&ground, &acknowledged).check([id(2)]).is_ok());
    let held = Evidence { held: BTreeMap::from([((id(9), Counter(1)), Vec::new())]), ..Evidence::nothing() };
    assert!(permitted(&ground, &held).check([id(2)]).is_ok());
    ground.config.mode = super::loss::RECOVER;
    assert!(permitted(&ground, &Evidence::nothing()).check([id(2)]).is_ok());
}

#[test]
fn the_newest_decision_on_this_disk_names_who_ruled() {
    let book = ClaimBook::default();
    for epoch in 1..4 {
        book.learn((Epoch(epoch), id(u8::try_from(epoch).unwrap())));
    }
    let entry = |of, seq| ChainEntry {
        seq: Seq(seq),
        incarnation: id(of),
        predecessor: None,
        last_valid: Seq(seq - 1),
        may_have_lost: Vec::new(),
        lost_declared: Vec::new(),
    };
    assert_eq!(newest_decided(&[], &book), None);
    assert_eq!(newest_decided(&[entry(2, 9), entry(1, 4)], &book), Some((Epoch(2), id(2))));
    assert_eq!(newest_decided(&[entry(2, 9), entry(8, 14)], &book), None, "nobody claims to be that one");
}
