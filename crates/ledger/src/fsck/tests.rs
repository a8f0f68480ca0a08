use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use diaspore_block::codec::encode;
use diaspore_block::compacted::{RowKey, each_row};
use diaspore_block::error::BlockError;

use crate::fixture::{
    applied, block_id, bucket_created, bulk, bulk_id, chunk_entry, condemn, delete, first_blocks, key, open, placements, put, rng,
};
use crate::snapshot::meta;
use crate::state::{Changes, Table};
use crate::{BaseStep, IntegrityReport, JournalEntry, KeyringCopy, Ledger, LedgerError, MemoryMedium, OpenMode, Totals};

/// A ledger in which the tables have rows.
fn full() -> MemoryMedium {
    let disk = MemoryMedium::new();
    let ledger = open(disk.clone(), 1).unwrap();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    ledger.apply(&applied(3, vec![bulk(1, 1, 7, 5), bulk(2, 1, 8, 4), put(1, b"large", 2, 7), bucket_created(2)], vec![])).unwrap();
    for seq in 4..30 {
        let key = format!("key-{seq}");
        ledger.apply(&applied(seq, vec![put(1, key.as_bytes(), seq, seq)], vec![chunk_entry(1, seq)])).unwrap();
    }
    ledger.apply(&applied(30, vec![delete(1, b"key-9", 9), condemn(&[bulk_id(2)])], vec![])).unwrap();
    ledger.update_placement(block_id(1), placements(5)).unwrap();
    ledger.append(JournalEntry::Keyring(KeyringCopy { version: 1, sealed: vec![1; 40] })).unwrap();
    ledger.sync().unwrap();
    ledger.flush_view().unwrap();
    disk
}

fn examine(disk: &MemoryMedium) -> IntegrityReport {
    Ledger::examine(disk.clone(), &key()).unwrap()
}

#[test]
fn a_sound_ledger_is_counted_whole_online_and_offline() {
    let disk = full();
    let report = examine(&disk);
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!((report.applied, report.log_size), (30, 35));
    let ledger = open(disk.clone(), 2).unwrap();
    assert!(matches!(Ledger::examine(disk, &key()), Err(LedgerError::Locked)));
    let state = ledger.snapshot().unwrap();
    assert_eq!(report.log_root, state.log_root(state.log_size().unwrap()).unwrap().to_string());
    let blobs = report.tables.iter().find(|table| table.name == "blobs").unwrap();
    assert_eq!((blobs.total, blobs.valid, blobs.corrupted), (state.totals().unwrap().blobs, 27, 0));
    assert!(report.rules.iter().all(|rule| rule.checked > 0), "{:#?}", report.rules);
    assert!(ledger.integrity().unwrap().is_sound());
    assert!(Ledger::examine(MemoryMedium::new(), &key()).unwrap().streams.iter().all(|stream| stream.segments == 0));
}

/// A value that is not what was written under its key, whatever the page around it says.
#[test]
fn one_wrong_value_in_any_table_is_counted_and_healed() {
    let disk = full();
    for table in Table::ALL {
        let disk = disk.snapshot();
        let ledger = open(disk.clone(), 2).unwrap();
        let frozen = ledger.snapshot().unwrap();
        let mut row = None;
        frozen
            .state()
            .walk(table, Bound::Unbounded, &mut |key, value| {
                row = Some((key.to_vec(), value.to_vec()));
                Ok(ControlFlow::Break(()))
            })
            .unwrap();
        let Some((at, value)) = row else {
            // Tables that nothing in this ledger fills.
            assert!(
                [Table::ApiKeys, Table::Chain, Table::Incarnations, Table::Compactions, Table::Providers, Table::Checks].contains(&table)
            );
            continue;
        };
        ledger.view().write_unauthentic(table, &at, &value).unwrap();
        // Flushed first; what follows may stumble over the damage.
        drop(ledger.flush_view());
        drop((ledger, frozen));
        let report = examine(&disk);
        let counted = report.tables.iter().find(|counted| counted.name == table.name()).unwrap();
        assert_eq!((counted.corrupted, counted.total), (1, counted.valid + 1), "{}", table.name());
        assert!(!report.view_is_sound() && report.journal_is_sound());
        Ledger::discard_view(&disk, &key()).unwrap();
        let healed = open(disk.clone(), 3).unwrap();
        assert!(healed.report().rebuilt);
        assert!(healed.integrity().unwrap().is_sound());
    }
}

#[test]
fn a_service_that_finds_its_view_damaged_rebuilds_it_at_the_next_start() {
    let disk = full();
    let ledger = open(disk.clone(), 2).unwrap();
    ledger.view().write_unauthentic(Table::Meta, b"nothing", b"x").unwrap();
    assert!(!ledger.integrity().unwrap().view_is_sound());
    drop(ledger);
    let ledger = open(disk, 3).unwrap();
    assert!(ledger.report().rebuilt);
    assert!(ledger.integrity().unwrap().is_sound());
}

/// Any byte of any file: never a panic, never an error instead of a report, and never a sound report where something that counts changed.
#[test]
fn a_flipped_byte_in_any_file_is_reported() {
    let disk = full();
    let mut seen = BTreeSet::new();
    for (name, len) in disk.files() {
        let step = if name == "view" { 1021 } else { 97 };
        for at in (0..usize::try_from(len).unwrap()).step_by(step) {
            let disk = disk.snapshot();
            let mut bytes = disk.contents(&name).unwrap();
            let empty_before = bytes[at / 4096 * 4096..].iter().take(4096).all(|byte| *byte == 0);
            bytes[at] ^= 0x10;
            disk.replace(&name, bytes);
            match Ledger::examine(disk.clone(), &key()) {
                Ok(report) if name.starts_with("log-") => {
                    assert!(!report.journal_is_sound() || report.streams[0].torn_bytes > 0, "{name} at {at}: {report:#?}");
                    seen.insert("journal");
                }
                Ok(report) if name == "view" => {
                    // Free pages and padding count for nothing; a report that calls such a view sound must be right.
                    if report.is_sound() && !empty_before {
                        let ledger = open(disk, 2).unwrap();
                        assert!(ledger.integrity().unwrap().is_sound(), "{name} at {at}");
                    } else {
                        assert!(report.journal_is_sound());
                        seen.insert("view");
                    }
                }
                Ok(report) => panic!("{name} at {at}: {report:#?}"),
                Err(LedgerError::Corrupt { .. } | LedgerError::WrongKey | LedgerError::NewerSchema { .. }) if name == "identity" => {
                    seen.insert("identity");
                }
                Err(other) => panic!("{name} at {at}: {other}"),
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["identity", "journal", "view"]);
}

#[test]
fn a_missing_segment_and_a_view_from_elsewhere_are_reported() {
    let disk = full();
    drop(open(disk.clone(), 2).unwrap());
    let ledger = open(disk.clone(), 3).unwrap();
    ledger.apply(&applied(31, vec![], vec![])).unwrap();
    drop(ledger);
    let names: Vec<_> = disk.files().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("log-")).collect();
    assert_eq!(names.len(), 2);
    let newest = disk.snapshot();
    crate::Medium::remove(&newest, &names[1]).unwrap();
    let report = examine(&newest);
    assert!(report.journal_is_sound(), "a journal rolled back is whole");
    assert!(report.rules.last().unwrap().broken > 0, "the view is ahead of it");
    let oldest = disk.snapshot();
    crate::Medium::remove(&oldest, &names[0]).unwrap();
    assert!(!examine(&oldest).journal_is_sound());
    let without = disk.snapshot();
    without.replace("view", Vec::new());
    assert_eq!(examine(&without).view_unusable.unwrap(), "there is none");
}

/// Authentic values that contradict each other: each rule on its own.
#[test]
fn every_rule_between_tables_is_looked_at() {
    type Lie<'l> = (&'static str, &'l dyn Fn(&Ledger, &mut Changes<'_>));
    let lies: [Lie<'_>; 8] = [
        ("every name", &|_, changes| changes.remove(Table::TenantNames, b"canary-tenant")),
        ("every blob's", &|ledger, changes| drop_first(ledger, changes, Table::Blobs)),
        ("every block that is not settled", &|ledger, changes| drop_first(ledger, changes, Table::Unsettled)),
        ("every commit block", &|ledger, changes| drop_first(ledger, changes, Table::Commits)),
        ("every chunk is listed", &|_, changes| changes.remove(Table::Contents, block_id(10).as_bytes())),
        ("every remembered", &|ledger, changes| drop_first(ledger, changes, Table::IdempotencyByTime)),
        ("the log's nodes", &|ledger, changes| drop_first(ledger, changes, Table::Nodes)),
        ("totals", &|ledger, changes| {
            let totals = ledger.snapshot().unwrap().totals().unwrap();
            changes.put(Table::Meta, meta::TOTALS, encode(&Totals { blobs: totals.blobs + 1, ..totals }));
        }),
    ];
    let disk = full();
    for (rule, lie) in lies {
        let ledger = open(disk.snapshot(), 2).unwrap();
        let state = ledger.snapshot().unwrap().state();
        let mut changes = Changes::new(state.as_ref());
        lie(&ledger, &mut changes);
        ledger.view().write(changes).unwrap();
        let report = ledger.integrity().unwrap();
        let broken: Vec<_> = report.rules.iter().filter(|rule| rule.broken > 0).map(|rule| rule.rule.as_str()).collect();
        assert!(broken.iter().any(|broken| broken.starts_with(rule)), "{rule}: {broken:?}");
        assert!(report.journal_is_sound() && !report.is_sound());
    }
    // A chunk whose block is gone.
    let ledger = open(disk.snapshot(), 2).unwrap();
    let state = ledger.snapshot().unwrap().state();
    let mut changes = Changes::new(state.as_ref());
    changes.remove(Table::Blocks, block_id(10).as_bytes());
    ledger.view().write(changes).unwrap();
    assert!(ledger.integrity().unwrap().rules.iter().any(|rule| rule.rule.starts_with("every chunk's block") && rule.broken == 1));
}

fn drop_first(ledger: &Ledger, changes: &mut Changes<'_>, table: Table) {
    let state = ledger.snapshot().unwrap().state();
    let mut first = None;
    state
        .walk(table, Bound::Unbounded, &mut |key, _| {
            first = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })
        .unwrap();
    changes.remove(table, &first.unwrap());
}

#[test]
fn a_look_writes_nothing_even_where_it_finds_damage() {
    let disk = full();
    let mut view = disk.contents("view").unwrap();
    view[9000..9100].fill(7);
    disk.replace("view", view);
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    drop(examine(&disk));
    let after: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    assert_eq!(before, after);
    assert!(Ledger::open(disk, &key(), OpenMode::ReadOnly, rng(1)).is_ok());
}

/// Half of the rows of a compacted log contradict each other; the journal has the rest of them, or a recovery brings it.
#[test]
fn an_installation_that_broke_off_is_no_damage() {
    let disk = full();
    let ledger = open(disk.clone(), 2).unwrap();
    let whole = ledger.snapshot().unwrap().base_part(&RowKey::default(), &[]).unwrap();
    let mut half = Vec::new();
    each_row::<BlockError>(&whole.plain, |row| {
        if row.table.is_multiple_of(2) {
            row.put(&mut half);
        }
        Ok(())
    })
    .unwrap();
    for step in [BaseStep::Begin, BaseStep::Rows(half.into())] {
        ledger.append(JournalEntry::Base(step)).unwrap();
    }
    ledger.sync().unwrap();
    ledger.flush_view().unwrap();
    assert!(ledger.integrity().unwrap().interrupted);
    drop(ledger);
    let report = examine(&disk);
    assert!(report.interrupted && report.is_sound(), "{report:#?}");
    assert!(!examine(&full()).interrupted);
}
