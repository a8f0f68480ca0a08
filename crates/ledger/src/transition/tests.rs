//! The view against the reference model: random logs, good and contradicting, through redb and through a sorted map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use diaspore_block::id::{BlockId, Epoch, IncarnationId, Seq, Timestamp};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::{
    BlocksErased, Decision, LogCompacted, Move, PartsAdded, Private, ProviderMode, ProviderStateSet, ShardsMoved,
};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::prop_assert_eq;

use crate::entry::JournalEntry;
use crate::fixture::{
    applied, block_id, bucket, bucket_created, bucket_deleted, bulk, bulk_id, chunk, chunk_entry, condemn, delete, open, placements, put,
    record_at, released, tenant_created,
};
use crate::listing::{self, ListItem, ListQuery};
use crate::snapshot::meta;
use crate::state::{Changes, Model, State, Table};
use crate::{CheckEntry, LedgerError, MemoryMedium, ShardCheck, Snapshot};

#[derive(Debug, Clone)]
enum Step {
    Block(Vec<Act>),
    Settle(u64, u8),
    Flush,
    Reopen,
    Crash,
}

#[derive(Debug, Clone)]
enum Act {
    Bucket(u64),
    DropBucket(u64),
    Put(u64, Vec<u8>, u64),
    Delete(u64, Vec<u8>),
    Bulk(u64, u64),
    Released(u64, u8),
    Condemn(u64),
    Erase(u64),
    Move(u64, u8),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'/'), Just(b'b'), Just(0xff)], 0..4)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0..3u64).prop_map(Act::Bucket),
        1 => (0..3u64).prop_map(Act::DropBucket),
        8 => (0..3u64, key(), 0..6u64).prop_map(|(bucket, key, chunk)| Act::Put(bucket, key, chunk)),
        4 => (0..3u64, key()).prop_map(|(bucket, key)| Act::Delete(bucket, key)),
        2 => (0..20u64, 0..6u64).prop_map(|(number, chunk)| Act::Bulk(number, chunk)),
        1 => (1..9u64, any::<u8>()).prop_map(|(seq, acked)| Act::Released(seq, acked % 6)),
        1 => (0..20u64).prop_map(Act::Condemn),
        1 => (0..20u64).prop_map(Act::Erase),
        1 => (0..20u64, 0..5u8).prop_map(|(number, shard)| Act::Move(number, shard)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(act(), 0..4).prop_map(Step::Block),
        2 => (1..20u64, 0..6u8).prop_map(|(seq, acked)| Step::Settle(seq, acked)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

/// Everything in a state but the journal position, which only the view has.
fn all(state: &dyn State) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut found = BTreeMap::new();
    for table in Table::ALL {
        state
            .walk(table, Bound::Unbounded, &mut |key, value| {
                if (table, key) != (Table::Meta, meta::POSITION) {
                    found.insert((table, key.to_vec()), value.to_vec());
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }
    found
}

/// Versions by bucket and key, so that deletes mostly name what is current.
type Versions = BTreeMap<(u64, Vec<u8>), u64>;

fn private(act: &Act, version: u64, versions: &mut Versions) -> Private {
    match act {
        Act::Bucket(number) => bucket_created(*number),
        Act::DropBucket(number) => bucket_deleted(*number),
        Act::Put(number, key, chunk) => {
            versions.insert((*number, key.clone()), version);
            put(*number, key, version, *chunk)
        }
        Act::Delete(number, key) => delete(*number, key, versions.get(&(*number, key.clone())).copied().unwrap_or(0)),
        Act::Bulk(number, chunk) => bulk(*number, 1, *chunk, 4),
        Act::Released(seq, acked) => released(*seq, *acked),
        Act::Condemn(number) => condemn(&[bulk_id(*number), block_id(*number)]),
        Act::Erase(number) => erase(&[bulk_id(*number), block_id(*number)]),
        Act::Move(number, shard) => move_to(bulk_id(*number), *shard),
    }
}

fn erase(blocks: &[BlockId]) -> Private {
    BlocksErased { blocks: blocks.to_vec() }.into()
}

fn move_to(block: BlockId, shard: u8) -> Private {
    ShardsMoved { moves: vec![Move { block, shard, provider: "elsewhere".to_owned() }] }.into()
}

fn run(steps: &[Step]) {
    let mut disk = MemoryMedium::new();
    let mut ledger = open(disk.clone(), 1).unwrap();
    let mut model = Model::default();
    let (mut seq, mut version, mut versions) = (1, 1, Versions::new());
    let first = vec![tenant_created(), bucket_created(1)];
    let chunks: Vec<_> = (0..4).map(|number| chunk_entry(1, number)).collect();
    let mut blocks = vec![applied(1, first, chunks)];
    for step in steps {
        if let Step::Block(acts) = step {
            let mut records = Vec::new();
            for act in acts {
                version += 1;
                records.push(private(act, version, &mut versions));
            }
            blocks.push(applied(seq, records, vec![]));
        }
        for block in blocks.drain(..) {
            let base = model.clone();
            let mut changes = Changes::new(&base);
            let block = crate::AppliedBlock { seq: Seq(seq), facts: crate::fixture::facts(seq), ..block };
            let expected = super::apply(&mut changes, &block);
            match (&expected, ledger.apply(&block)) {
                (Ok(()), Ok(())) => {
                    model.absorb(changes.into_cells());
                    seq += 1;
                }
                (Err(LedgerError::Refused { what, .. }), Err(LedgerError::Refused { what: found, .. })) => assert_eq!(*what, found),
                (expected, found) => panic!("{expected:?} and {found:?} differ"),
            }
        }
        match step {
            Step::Block(_) => {}
            Step::Settle(at, acked) => {
                let base = model.clone();
                let mut changes = Changes::new(&base);
                super::note(&mut changes, &JournalEntry::Settled { block: block_id(*at), placements: placements(*acked) }).unwrap();
                model.absorb(changes.into_cells());
                ledger.update_placement(block_id(*at), placements(*acked)).unwrap();
            }
            Step::Flush => ledger.flush_view().unwrap(),
            Step::Reopen => {
                drop(ledger);
                ledger = open(disk.clone(), seq).unwrap();
            }
            Step::Crash => {
                ledger.flush_view().unwrap();
                disk = disk.crash();
                ledger = open(disk.clone(), seq).unwrap();
            }
        }
        assert_eq!(all(ledger_state(&ledger).as_ref()), all(&model));
    }
    drop(ledger);
    disk.replace("view", Vec::new());
    assert_eq!(all(ledger_state(&open(disk, 99).unwrap()).as_ref()), all(&model));
}

fn ledger_state(ledger: &crate::Ledger) -> std::sync::Arc<dyn State + Send + Sync> {
    ledger.snapshot().unwrap().state()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_view_and_the_model_agree(steps in proptest::collection::vec(step(), 1..25)) {
        run(&steps);
    }

    #[test]
    fn listing_agrees_with_a_naive_one(
        keys in proptest::collection::btree_set(key(), 0..40),
        prefix in key(),
        delimiter in prop_oneof![Just(&b""[..]), Just(&b"/"[..]), Just(&b"a/"[..])],
        limit in 1..7usize,
    ) {
        let mut model = Model::default();
        let mut records = vec![tenant_created(), bucket_created(1), bucket_created(2)];
        records.extend(keys.iter().enumerate().map(|(index, key)| put(1, key, index as u64 + 1, 1)));
        // A neighbour whose keys must never show.
        let block = applied(1, records, vec![chunk_entry(1, 1), chunk_entry(2, 1)]);
        let empty = Model::default();
        let mut changes = Changes::new(&empty);
        super::apply(&mut changes, &block).unwrap();
        model.absorb(changes.into_cells());

        let mut expected = BTreeSet::new();
        for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
            let at = (!delimiter.is_empty())
                .then(|| key[prefix.len()..].windows(delimiter.len()).position(|window| window == delimiter))
                .flatten();
            expected.insert(match at {
                Some(at) => (key[..prefix.len() + at + delimiter.len()].to_vec(), true),
                None => (key.clone(), false),
            });
        }
        let mut found = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let query = ListQuery { prefix: &prefix, delimiter, start_after: after.as_deref(), limit };
            let page = listing::list(&model, bucket(1), &query).unwrap();
            found.extend(page.items.iter().map(|item| (item.name().to_vec(), matches!(item, ListItem::Prefix(_)))));
            let Some(next) = page.next else { break };
            prop_assert_eq!(page.items.len(), limit);
            after = Some(next);
        }
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

/// A ledger with a bucket, and the blocks of `records` on top of it.
fn ledger_of(records: Vec<Vec<Private>>) -> crate::Ledger {
    let ledger = open(MemoryMedium::new(), 1).unwrap();
    ledger.apply(&applied(1, vec![tenant_created(), bucket_created(1)], vec![])).unwrap();
    for (seq, records) in (2..).zip(records) {
        ledger.apply(&applied(seq, records, vec![])).unwrap();
    }
    ledger
}

#[test]
fn a_condemned_block_is_forgotten_by_chunks_and_by_those_who_wait_for_it() {
    // Chunk 1 lies in bulk blocks 1 and 2, the newer place counts; chunk 2 only in block 3, which is not settled.
    let ledger = ledger_of(vec![vec![bulk(1, 1, 1, 5), bulk(2, 1, 1, 5), bulk(3, 1, 2, 4)]]);
    let before = ledger.snapshot().unwrap();
    assert_eq!(before.totals().unwrap().chunks, 2);
    assert!(before.unsettled(9).unwrap().iter().any(|entry| entry.facts.id == bulk_id(3)));

    ledger.apply(&applied(3, vec![condemn(&[bulk_id(1), bulk_id(3), bulk_id(77)]), condemn(&[bulk_id(3)])], vec![])).unwrap();
    let after = ledger.snapshot().unwrap();
    assert_eq!(after.chunk(bucket(1), &chunk(1)).unwrap().unwrap().block, bulk_id(2), "it was stored again");
    assert!(after.chunk(bucket(1), &chunk(2)).unwrap().is_none(), "nothing may be deduplicated against it");
    assert!(after.unsettled(9).unwrap().iter().all(|entry| entry.facts.id != bulk_id(3)));
    let condemned = after.all_condemned(None, 9).unwrap();
    assert_eq!(condemned.iter().map(|entry| (entry.block, entry.seq)).collect::<Vec<_>>(), [(bulk_id(1), Seq(3)), (bulk_id(3), Seq(3))]);
    let totals = after.totals().unwrap();
    assert_eq!((totals.chunks, totals.condemned_blocks), (1, 2));
    assert_eq!(totals.stored_bytes, before.totals().unwrap().stored_bytes + shards_of_one(), "bytes are there until they are erased");

    // Erasing what is not condemned changes nothing: the map is not lost by a wrong record.
    ledger.apply(&applied(4, vec![erase(&[bulk_id(1), bulk_id(2), bulk_id(3)])], vec![])).unwrap();
    let gone = ledger.snapshot().unwrap();
    assert!(gone.block(bulk_id(1)).unwrap().is_none() && gone.block(bulk_id(3)).unwrap().is_none());
    assert!(gone.block(bulk_id(2)).unwrap().is_some() && gone.chunk(bucket(1), &chunk(1)).unwrap().is_some());
    let totals = gone.totals().unwrap();
    assert_eq!((totals.condemned_blocks, totals.condemned_bytes), (0, 0));
    assert_eq!(totals.stored_bytes, before.totals().unwrap().stored_bytes);
}

/// A later writer wrote block 2 again. What the map has is then its copy, however often that is noted and however the view is made anew; what
/// is read from elsewhere since stays there.
#[test]
fn a_copy_takes_the_place_of_what_was_first_written() {
    let medium = MemoryMedium::new();
    let ledger = open(medium.clone(), 1).unwrap();
    let second = || applied(2, vec![], vec![chunk_entry(1, 1), chunk_entry(1, 2)]);
    ledger.apply(&applied(1, vec![tenant_created(), bucket_created(1)], vec![])).unwrap();
    ledger.apply(&second()).unwrap();
    // Chunk 2 was stored again since.
    ledger.apply(&applied(3, vec![bulk(7, 1, 2, 5)], vec![])).unwrap();
    let before = ledger.snapshot().unwrap();
    let copy = |seq: u64, acked: u8| {
        let mut block = if seq == 2 { second() } else { applied(seq, vec![], vec![]) };
        block.facts.id = block_id(100 + seq);
        block.facts.incarnation = IncarnationId::from_bytes([2; 16]);
        (block.facts.counter, block.facts.placements) = (diaspore_block::id::Counter(0), placements(acked));
        JournalEntry::Copied(Box::new(block))
    };
    for _ in 0..2 {
        ledger.append(copy(2, 3)).unwrap();
        ledger.append(copy(9, 5)).unwrap();
    }
    ledger.sync().unwrap();
    let check = |ledger: &crate::Ledger| {
        let view = ledger.snapshot().unwrap();
        let entry = view.commit_block(Seq(2)).unwrap().unwrap();
        assert_eq!((entry.facts.id, entry.seq, entry.settled), (block_id(102), Seq(2), false));
        assert!(view.block(block_id(2)).unwrap().is_none());
        assert_eq!(view.contents(block_id(102)).unwrap(), [(bucket(1), chunk(1)), (bucket(1), chunk(2))]);
        assert!(view.contents(block_id(2)).unwrap().is_empty());
        let places = [1, 2].map(|number| view.chunk(bucket(1), &chunk(number)).unwrap().unwrap().block);
        assert_eq!(places, [block_id(102), bulk_id(7)]);
        let waiting: Vec<BlockId> = view.unsettled(9).unwrap().into_iter().map(|entry| entry.facts.id).collect();
        assert!(waiting.contains(&block_id(102)) && !waiting.contains(&block_id(2)), "{waiting:?}");
        assert_eq!(view.totals().unwrap(), before.totals().unwrap());
        assert_eq!(view.applied_seq().unwrap(), Seq(3));
        assert!(ledger.integrity().unwrap().is_sound());
    };
    check(&ledger);
    drop(ledger);
    medium.replace("view", Vec::new());
    check(&open(medium, 2).unwrap());
}

#[test]
fn what_is_condemned_or_gone_is_not_brought_back_by_a_copy() {
    let ledger = ledger_of(vec![vec![compacted(1)], vec![compacted(3)]]);
    ledger.apply(&applied(4, vec![condemn(&[block_id(1), block_id(2)])], vec![])).unwrap();
    let mut copy = applied(1, vec![], vec![]);
    copy.facts.id = block_id(101);
    for erased in [false, true] {
        if erased {
            ledger.apply(&applied(5, vec![erase(&[block_id(1)])], vec![])).unwrap();
        }
        ledger.append(JournalEntry::Copied(Box::new(copy.clone()))).unwrap();
        let view = ledger.snapshot().unwrap();
        assert!(view.block(block_id(101)).unwrap().is_none());
        assert_eq!(view.commit_block(Seq(1)).unwrap().is_none(), erased);
    }
}

/// Bytes of the shards of one block of the fixture.
fn shards_of_one() -> u64 {
    let facts = crate::fixture::facts(1);
    u64::from(facts.shard_len) * u64::from(facts.geometry.n())
}

#[test]
fn a_moved_shard_is_looked_for_where_it_went() {
    let ledger = ledger_of(vec![vec![bulk(1, 1, 1, 4)], vec![move_to(bulk_id(1), 4), move_to(bulk_id(2), 0)]]);
    let entry = ledger.snapshot().unwrap().block(bulk_id(1)).unwrap().unwrap();
    assert!(entry.settled, "its last shard is acknowledged elsewhere");
    assert_eq!(entry.facts.placements.iter().find(|placement| placement.shard == 4).unwrap().provider, "elsewhere");
}

/// A release note rides in a later block. It came after the record of a move and put the shard back to where it no longer was: the map
/// was wrong until a scrub looked. Found by the simulation (seeds 168 and 712, eight steps).
#[test]
fn a_release_note_does_not_undo_a_move() {
    let to_elsewhere: Private = ShardsMoved { moves: vec![Move { block: block_id(1), shard: 2, provider: "elsewhere".to_owned() }] }.into();
    let ledger = ledger_of(vec![vec![to_elsewhere], vec![released(1, 5)]]);
    let entry = ledger.snapshot().unwrap().block(block_id(1)).unwrap().unwrap();
    assert_eq!(entry.facts.placements.iter().find(|placement| placement.shard == 2).unwrap().provider, "elsewhere");
    assert!(entry.settled, "what the note adds still counts");
}

#[test]
fn an_erased_commit_block_keeps_nothing_waiting() {
    let ledger = ledger_of(vec![vec![compacted(1)], vec![compacted(3)]]);
    ledger.apply(&applied(4, vec![condemn(&[block_id(1), block_id(2)])], vec![])).unwrap();
    ledger.apply(&applied(5, vec![erase(&[block_id(1), block_id(2)])], vec![])).unwrap();
    let view = ledger.snapshot().unwrap();
    assert!(view.commit_block(Seq(1)).unwrap().is_none());
    assert!(view.commit_block(Seq(2)).unwrap().is_some(), "only the newer compacted log covers it");
    assert_eq!(view.applied_seq().unwrap(), Seq(5));
    assert_eq!(view.leaves(0, 2).unwrap().len(), 2, "the audit log keeps its leaves");
}

/// A compacted log up to `covers`, whose root and only part are blocks with the numbers 100 and 200 above that.
fn compacted(covers: u64) -> Private {
    let facts = crate::fixture::facts(covers);
    LogCompacted {
        covers: Seq(covers),
        incarnation: facts.incarnation,
        counter: facts.counter,
        log_size: covers,
        log_root: facts.block_root,
        root: bulk_id(100 + covers),
        parts: vec![bulk_id(200 + covers)],
    }
    .into()
}

fn parts(covers: u64) -> Private {
    let part = |number| match bulk(number, 1, 1, 5) {
        Private::BulkAdded(mut added) => {
            added.chunks.clear();
            added.sections[0].tenant = diaspore_block::id::TenantId::SYSTEM;
            added
        }
        _ => panic!("a bulk block"),
    };
    PartsAdded { parts: vec![part(100 + covers), part(200 + covers)] }.into()
}

/// A recovery begins with the newest compacted logs, decisions, and what was logged behind the older one. No record takes those away.
#[test]
fn what_a_recovery_begins_with_is_never_condemned() {
    let mut blocks = vec![vec![]];
    for covers in 1..=4 {
        blocks.push(vec![parts(covers), compacted(covers)]);
    }
    let ledger = ledger_of(blocks);
    let view = ledger.snapshot().unwrap();
    let covered = |view: &Snapshot| view.compactions().unwrap().iter().map(|entry| entry.compacted.covers.0).collect::<Vec<_>>();
    assert_eq!(covered(&view), [2, 3, 4], "two are kept, and one until the newest counts");
    let kept = view.kept_compactions(Seq(6)).unwrap();
    assert_eq!(kept.iter().map(|entry| entry.compacted.covers.0).collect::<Vec<_>>(), [4, 3], "by the sequence of their records");
    assert_eq!(view.kept_compactions(Seq(5)).unwrap()[0].compacted.covers, Seq(3), "the newest does not count yet");

    let mut decision = applied(7, vec![], vec![]);
    decision.facts.kind = BlockKind::Decision;
    ledger.apply(&decision).unwrap();
    let every = (1..=7).map(block_id).chain((100..300).map(bulk_id)).collect::<Vec<_>>();
    ledger.apply(&applied(8, vec![condemn(&every)], vec![])).unwrap();
    let view = ledger.snapshot().unwrap();
    let gone: BTreeSet<_> = view.all_condemned(None, 99).unwrap().into_iter().map(|entry| entry.block).collect();
    assert_eq!(gone, BTreeSet::from([block_id(1), block_id(2), block_id(3), bulk_id(101), bulk_id(201)]));
}

/// Two compacted logs stand for everything up to 5: of the decisions at 2, 4, 6 a recovery from the older may read those at 4, which was carried
/// over, and 6.
#[test]
fn of_the_decisions_below_two_compacted_logs_the_newest_stays() {
    let ledger = ledger_of(vec![]);
    let decided = |seq: u64, kind: BlockKind, records: Vec<Private>| {
        let decision = Decision {
            predecessor: Some((IncarnationId::from_bytes([1; 16]), Epoch(seq))),
            last_valid: Seq(seq - 1),
            log_size: 0,
            log_root: diaspore_block::log::empty_root(),
            carried: vec![],
            passed_over: vec![],
            lost_declared: vec![],
            may_have_lost: vec![],
        };
        let mut block = applied(seq, [vec![decision.into()], records].concat(), vec![]);
        block.facts.kind = kind;
        ledger.apply(&block).unwrap();
    };
    let condemned = || {
        let gone = ledger.snapshot().unwrap().all_condemned(None, 99).unwrap();
        gone.into_iter().map(|entry| entry.block).collect::<BTreeSet<_>>()
    };
    let every = (1..=8).map(block_id).collect::<Vec<_>>();
    decided(2, BlockKind::Decision, vec![parts(2)]);
    ledger.apply(&applied(3, vec![parts(3), compacted(2)], vec![])).unwrap();
    decided(4, BlockKind::Commit, vec![]);
    ledger.apply(&applied(5, vec![parts(5), condemn(&every)], vec![])).unwrap();
    assert_eq!(condemned(), BTreeSet::new(), "one compacted log is none");
    decided(6, BlockKind::Decision, vec![compacted(3)]);
    ledger.apply(&applied(7, vec![compacted(5), condemn(&every)], vec![])).unwrap();
    assert_eq!(condemned(), BTreeSet::from([block_id(1)]), "what the same block says does not count for it yet");
    ledger.apply(&applied(8, vec![condemn(&every)], vec![])).unwrap();
    assert_eq!(condemned(), BTreeSet::from([1, 3].map(block_id)), "the older stands at 3, in the incarnation that began at 2");
    ledger.apply(&applied(9, vec![parts(6), compacted(6), condemn(&every)], vec![])).unwrap();
    ledger.apply(&applied(10, vec![condemn(&every)], vec![])).unwrap();
    assert_eq!(
        condemned(),
        BTreeSet::from([1, 2, 3, 5].map(block_id)),
        "it stands at 5: the decision at 4 stays, that at 2 is read by nobody"
    );
}

#[test]
fn the_log_says_how_a_provider_is_used() {
    let set = |mode| ProviderStateSet { provider: "beta".to_owned(), mode, reason: "by hand".to_owned() }.into();
    let ledger = ledger_of(vec![vec![set(ProviderMode::Draining)], vec![set(ProviderMode::Dead)]]);
    let view = ledger.snapshot().unwrap();
    assert_eq!(view.provider("beta").unwrap().unwrap().mode, ProviderMode::Dead);
    assert!(view.provider("alpha").unwrap().is_none());
    assert_eq!(view.providers().unwrap().len(), 1);
}

#[test]
fn checks_live_in_the_view_alone() {
    let disk = MemoryMedium::new();
    let ledger = open(disk.clone(), 1).unwrap();
    ledger.apply(&applied(1, vec![tenant_created(), bucket_created(1), bulk(1, 1, 1, 5)], vec![])).unwrap();
    let check = CheckEntry { checked: Timestamp(7), shards: vec![ShardCheck { state: 1, verified: Some(Timestamp(7)) }] };
    ledger.note_checks(&[(bulk_id(1), check.clone()), (bulk_id(9), check.clone())]).unwrap();
    let view = ledger.snapshot().unwrap();
    assert!(view.check_of(bulk_id(1)).unwrap() == Some(check));
    assert!(view.check_of(bulk_id(9)).unwrap().is_none(), "the map does not know that block");
    drop((view, ledger));
    disk.replace("view", Vec::new());
    assert!(open(disk, 2).unwrap().snapshot().unwrap().check_of(bulk_id(1)).unwrap().is_none());
}

#[test]
fn idempotency_keys_are_forgotten_after_a_day_of_log_time() {
    let mut model = Model::default();
    let day = 24 * 60 * 60 * 1000;
    let mut blocks = vec![applied(1, vec![tenant_created(), bucket_created(1), put(1, b"k", 1, 1)], vec![chunk_entry(1, 1)])];
    blocks.push(applied(2, vec![], vec![]));
    blocks[1].records = vec![record_at(put(1, b"l", 2, 1), day)];
    blocks.push(applied(3, vec![], vec![]));
    blocks[2].records = vec![record_at(put(1, b"m", 3, 1), day + 5_000)];
    let remembered = |model: &Model, version: u8| model.get(Table::Idempotency, &[version; 32]).unwrap().is_some();
    for (index, block) in blocks.iter().enumerate() {
        let base = model.clone();
        let mut changes = Changes::new(&base);
        super::apply(&mut changes, block).unwrap();
        model.absorb(changes.into_cells());
        assert_eq!(remembered(&model, 1), index < 2);
    }
    assert!(remembered(&model, 2) && remembered(&model, 3));
}
