//! The view against the reference model: random logs, good and contradicting, through redb and through a sorted map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use diaspore_block::record::Private;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::prop_assert_eq;

use crate::entry::JournalEntry;
use crate::fixture::{
    applied, block_id, bucket, bucket_created, bucket_deleted, bulk, chunk_entry, delete, open, placements, put, record_at, released,
    tenant_created,
};
use crate::listing::{self, ListItem, ListQuery};
use crate::snapshot::meta;
use crate::state::{Changes, Model, State, Table};
use crate::{LedgerError, MemoryMedium};

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
    }
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
            let block = crate::AppliedBlock { seq: diaspore_block::id::Seq(seq), facts: crate::fixture::facts(seq), ..block };
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
