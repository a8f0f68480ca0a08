use std::fs;

use bytes::Bytes;
use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId, Seq, Timestamp};
use diaspore_block::key::LedgerKey;

use crate::fixture::{
    applied, block_id, bucket, bucket_created, chunk, chunk_entry, delete, first_blocks, key, open, placements, put, released, rng,
};
use crate::identity::plate_of_schema;
use crate::secret::Secret;
use crate::{
    FileMedium, IncarnationNote, IssuedBlock, JournalEntry, KeyringCopy, Ledger, LedgerError, MemoryMedium, OpenMode, ReleasedNote,
};

fn filled(medium: &MemoryMedium) -> Ledger {
    let ledger = open(medium.clone(), 1).unwrap();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    ledger
}

fn issued(seq: u64, payload: &'static [u8]) -> JournalEntry {
    JournalEntry::Block(IssuedBlock {
        seq: Seq(seq),
        incarnation: IncarnationId::from_bytes([1; 16]),
        counter: Counter(seq - 1),
        attempt: Attempt(0),
        block: block_id(seq),
        manifest: Bytes::from_static(b"canary-manifest"),
        payload: Bytes::from_static(payload),
    })
}

fn is_complete(ledger: &Ledger) {
    let state = ledger.snapshot().unwrap();
    assert_eq!(state.applied_seq().unwrap(), Seq(2));
    let tenant = state.tenant_by_name("canary-tenant").unwrap().unwrap();
    let row = state.bucket(tenant.id, "canary-bucket-1").unwrap().unwrap();
    assert_eq!((row.id, row.blobs), (bucket(1), 1));
    let blob = state.blob(bucket(1), b"canary-key").unwrap().unwrap();
    assert_eq!(blob.metadata, [("canary-name".to_owned(), "canary-value".to_owned())]);
    let place = state.chunk(bucket(1), &chunk(1)).unwrap().unwrap();
    assert_eq!((place.block, place.offset), (block_id(2), 16));
    assert_eq!(state.log_size().unwrap(), 3);
    assert_eq!(state.totals().unwrap().unsettled_blocks, 2);
}

#[test]
fn what_was_applied_is_there_after_every_kind_of_end() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    is_complete(&ledger);
    ledger.flush_view().unwrap();
    // Unsynced beyond the flush: an ordered close and a copy of the disk have it, a power loss does not.
    ledger.apply(&applied(3, vec![put(1, b"later", 2, 1)], vec![])).unwrap();
    let copy = open(disk.snapshot(), 2).unwrap();
    assert_eq!(copy.report().applied, Seq(3));
    let crashed = open(disk.crash(), 3).unwrap();
    is_complete(&crashed);
    assert!(!crashed.report().rebuilt);
    drop(ledger);
    assert_eq!(open(disk, 4).unwrap().report().applied, Seq(3));
}

#[test]
fn a_missing_damaged_or_newer_view_is_rebuilt_equal() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.flush_view().unwrap();
    let root = ledger.snapshot().unwrap().log_root(3).unwrap();
    drop(ledger);
    let view = disk.contents("view").unwrap();
    let damages: [fn(&mut Vec<u8>); 4] =
        [Vec::clear, |bytes| bytes[20] ^= 1, |bytes| bytes.truncate(5000), |bytes| bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x55)];
    for damage in damages {
        let disk = disk.snapshot();
        let mut bytes = view.clone();
        damage(&mut bytes);
        disk.replace("view", bytes);
        let ledger = open(disk, 5).unwrap();
        assert!(ledger.report().rebuilt);
        is_complete(&ledger);
        assert_eq!(ledger.snapshot().unwrap().log_root(3).unwrap(), root);
    }
    // A view that is ahead of its journal (the journal was rolled back behind its back) goes back to the journal's state.
    let ledger = open(disk.clone(), 6).unwrap();
    let journal: Vec<_> = disk.files().into_iter().filter(|(name, _)| name.starts_with("log-")).collect();
    ledger.apply(&applied(3, vec![put(1, b"later", 2, 1)], vec![])).unwrap();
    ledger.flush_view().unwrap();
    drop(ledger);
    for (name, _) in disk.files().into_iter().filter(|(name, _)| name.starts_with("log-")) {
        if !journal.iter().any(|(kept, _)| *kept == name) {
            crate::Medium::remove(&disk, &name).unwrap();
        }
    }
    let ledger = open(disk, 7).unwrap();
    assert!(ledger.report().rebuilt);
    is_complete(&ledger);
}

#[test]
fn a_flipped_bit_in_the_view_never_gives_a_wrong_answer_and_is_repaired() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    for seq in 3..40 {
        ledger.apply(&applied(seq, vec![put(1, format!("key-{seq}").as_bytes(), seq, 1)], vec![])).unwrap();
    }
    ledger.flush_view().unwrap();
    let expected = ledger.snapshot().unwrap().blob(bucket(1), b"key-20").unwrap();
    drop(ledger);
    let view = disk.contents("view").unwrap();
    for at in (4096..view.len()).step_by(20_011) {
        let disk = disk.snapshot();
        let mut bytes = view.clone();
        bytes[at] ^= 4;
        disk.replace("view", bytes);
        let ledger = open(disk.clone(), 8).unwrap();
        if let Ok(Some(found)) = ledger.snapshot().unwrap().blob(bucket(1), b"key-20") {
            assert_eq!(Some(found), expected);
        }
        if ledger.check().is_err() {
            drop(ledger);
            let ledger = open(disk, 9).unwrap();
            assert!(ledger.report().rebuilt);
            ledger.check().unwrap();
            assert_eq!(ledger.snapshot().unwrap().blob(bucket(1), b"key-20").unwrap(), expected);
        }
    }
}

#[test]
fn the_medium_is_locked_and_keys_and_schemas_are_told_apart() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    assert!(matches!(open(disk.clone(), 2), Err(LedgerError::Locked)));
    assert!(matches!(Ledger::open(disk.clone(), &key(), OpenMode::ReadOnly, rng(1)), Err(LedgerError::Locked)));
    drop(ledger);
    let other = LedgerKey::from_bytes([8; 32]);
    assert!(matches!(Ledger::open(disk.clone(), &other, OpenMode::ReadWrite, rng(1)), Err(LedgerError::WrongKey)));
    disk.replace("identity", plate_of_schema(9, &Secret::of(&key())));
    assert!(matches!(open(disk.clone(), 2), Err(LedgerError::NewerSchema { found: 9, supported: 2 })));
    disk.replace("identity", vec![0; 60]);
    assert!(matches!(open(disk, 2), Err(LedgerError::Corrupt { .. })));
}

#[test]
fn a_folder_works_like_memory_is_locked_and_shows_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(FileMedium::new(folder.path()), 1).unwrap();
    assert!(matches!(open(FileMedium::new(folder.path()), 2), Err(LedgerError::Locked)));
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    ledger.append(issued(3, b"canary-payload")).unwrap();
    ledger.append(JournalEntry::Keyring(KeyringCopy { version: 1, sealed: b"canary-keyring".to_vec() })).unwrap();
    ledger.sync().unwrap();
    ledger.flush_view().unwrap();
    drop(ledger);
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        seen += bytes.len();
        for needle in [&b"canary"[..], b"provider-", b"text/", &[0xaa; 12], &[0xcc; 16]] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{} shows a name", path.display());
        }
    }
    assert!(seen > 4096);
    let ledger = open(FileMedium::new(folder.path()), 3).unwrap();
    is_complete(&ledger);
    assert_eq!(ledger.snapshot().unwrap().keyring().unwrap().unwrap().sealed, b"canary-keyring");
}

#[test]
fn read_only_reads_everything_and_writes_nothing() {
    let disk = MemoryMedium::new();
    let empty = Ledger::open(disk.clone(), &key(), OpenMode::ReadOnly, rng(1)).unwrap();
    assert_eq!(empty.snapshot().unwrap().applied_seq().unwrap(), Seq(0));
    assert!(disk.files().is_empty());
    drop(empty);
    drop(filled(&disk));
    disk.replace("view", Vec::new());
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    let ledger = Ledger::open(disk.clone(), &key(), OpenMode::ReadOnly, rng(1)).unwrap();
    let second = Ledger::open(disk.clone(), &key(), OpenMode::ReadOnly, rng(2)).unwrap();
    is_complete(&ledger);
    is_complete(&second);
    assert!(matches!(ledger.apply(&applied(3, vec![], vec![])), Err(LedgerError::ReadOnly)));
    assert!(matches!(ledger.append(issued(3, b"x")), Err(LedgerError::ReadOnly)));
    assert!(matches!(ledger.sync(), Err(LedgerError::ReadOnly)));
    let after: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_full_disk_refuses_writes_stays_readable_and_recovers() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.flush_view().unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 3000));
    let mut seq = 3;
    let refused = loop {
        match ledger.apply(&applied(seq, vec![put(1, format!("key-{seq}").as_bytes(), seq, 1)], vec![])) {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerError::Full));
    assert!(ledger.snapshot().unwrap().blob(bucket(1), b"canary-key").unwrap().is_some());
    assert_eq!(ledger.snapshot().unwrap().applied_seq().unwrap(), Seq(seq - 1));
    drop(ledger);
    disk.set_capacity(None);
    let ledger = open(disk, 2).unwrap();
    assert!(ledger.report().applied >= Seq(seq - 1));
    let next = ledger.report().applied.next().get();
    ledger.apply(&applied(next, vec![put(1, b"after", next, 1)], vec![])).unwrap();
    ledger.check().unwrap();
}

#[test]
fn a_view_that_finds_the_disk_full_keeps_answering_and_is_rebuilt_after_a_power_loss() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.flush_view().unwrap();
    for seq in 3..200 {
        ledger.apply(&applied(seq, vec![put(1, format!("key-{seq}").as_bytes(), seq, 1)], vec![])).unwrap();
    }
    ledger.append(JournalEntry::Keyring(KeyringCopy { version: 1, sealed: vec![1] })).unwrap();
    ledger.sync().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let flushed = ledger.flush_view();
    for seq in 3..200 {
        let key = format!("key-{seq}");
        assert!(ledger.snapshot().unwrap().blob(bucket(1), key.as_bytes()).unwrap().is_some(), "{flushed:?}");
    }
    let crashed = open(disk.crash(), 2).unwrap();
    assert_eq!(crashed.report().applied, Seq(199));
    disk.set_capacity(None);
    ledger.flush_view().unwrap();
    let crashed = open(disk.crash(), 3).unwrap();
    assert_eq!(crashed.report().applied, Seq(199));
    crashed.check().unwrap();
}

/// Where the file system copies on write, marking the view needs room like everything else.
#[test]
fn a_disk_without_room_for_the_mark_keeps_answering_and_forgets_nothing() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.flush_view().unwrap();
    let key = |seq: u64| format!("key-{seq}").into_bytes();
    for seq in 3..200 {
        ledger.apply(&applied(seq, vec![put(1, &key(seq), seq, 1)], vec![])).unwrap();
    }
    ledger.append(JournalEntry::Keyring(KeyringCopy { version: 1, sealed: vec![1] })).unwrap();
    ledger.sync().unwrap();
    disk.copy_on_write(true);
    let answers_and_survives = |rebuilt: Option<bool>| {
        assert!((3..200).all(|seq| ledger.snapshot().unwrap().blob(bucket(1), &key(seq)).unwrap().is_some()));
        for image in [disk.crash(), disk.crash_torn(1), disk.crash_torn(5000), disk.crash_torn(50_000), disk.snapshot()] {
            let crashed = open(image, 2).unwrap();
            assert!(crashed.report().applied >= Seq(199) && rebuilt.is_none_or(|rebuilt| rebuilt == crashed.report().rebuilt));
            crashed.check().unwrap();
            assert!(crashed.integrity().unwrap().is_sound());
        }
    };
    // No room at all; then for the mark alone.
    for (room, rebuilt) in [(0, Some(false)), (100, Some(true))] {
        disk.set_capacity(Some(disk.used_bytes() + room));
        for _ in 0..3 {
            assert!(matches!(ledger.flush_view(), Err(LedgerError::Full)), "{room}");
            assert!(matches!(ledger.apply(&applied(200, vec![put(1, b"more", 200, 1)], vec![])), Err(LedgerError::Full)), "{room}");
        }
        answers_and_survives(rebuilt);
    }
    disk.set_capacity(None);
    assert!(ledger.find_room().unwrap());
    ledger.apply(&applied(200, vec![put(1, b"more", 200, 1)], vec![])).unwrap();
    ledger.flush_view().unwrap();
    answers_and_survives(Some(false));
    // A view that was found damaged stays so, however much room there is.
    ledger.view().mark_damaged().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(matches!(ledger.flush_view(), Err(LedgerError::Full)));
    disk.set_capacity(None);
    assert!(ledger.find_room().unwrap());
    answers_and_survives(Some(true));
}

#[test]
fn a_full_disk_is_full_until_there_is_room_for_more_than_a_little() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.flush_view().unwrap();
    let mut seq = 3;
    let mut fill = |ledger: &Ledger| loop {
        match ledger.apply(&applied(seq, vec![put(1, format!("key-{seq}").as_bytes(), seq, 1)], vec![])) {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(!ledger.is_full() && ledger.find_room().unwrap());
    let before = disk.used_bytes();
    disk.set_capacity(Some(before + 3000));
    // Whether the view or the journal meets the end of the disk first, and with what still in memory, is redb's business.
    for room in [3000, 9000, 20_000] {
        disk.set_capacity(Some(disk.used_bytes().max(before) + room));
        assert!(matches!(fill(&ledger), LedgerError::Full));
        assert!(ledger.is_full() && !ledger.find_room().unwrap(), "{room}");
        assert!(matches!(ledger.append(issued(1000, &[0; 10_000])), Err(LedgerError::Full)), "{room}");
    }
    let files: Vec<_> = disk.files().into_iter().filter(|(name, _)| name.starts_with("log-")).collect();
    disk.set_capacity(None);
    assert!(ledger.find_room().unwrap() && !ledger.is_full());
    let after: Vec<_> = disk.files().into_iter().filter(|(name, _)| name.starts_with("log-")).collect();
    assert_eq!(files, after, "nothing of the look stays");
    for _ in 0..20 {
        ledger.apply(&applied(seq, vec![put(1, format!("key-{seq}").as_bytes(), seq, 1)], vec![])).unwrap();
        seq += 1;
    }
    ledger.flush_view().unwrap();
    ledger.check().unwrap();
    let crashed = open(disk.crash(), 2).unwrap();
    assert_eq!(crashed.report().applied, Seq(seq - 1));
    crashed.check().unwrap();
}

#[test]
fn every_access_to_the_medium_is_counted() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.append(issued(2, b"so that there is a segment")).unwrap();
    let before = (ledger.metrics(), disk.sync_count());
    ledger.append(issued(3, &[7; 5000])).unwrap();
    ledger.sync().unwrap();
    let after = ledger.metrics();
    assert_eq!(after.writes, before.0.writes + 1);
    let written = after.written_bytes - before.0.written_bytes;
    assert!((5000..6000).contains(&written), "{written}");
    assert_eq!(after.flushes - before.0.flushes, disk.sync_count() - before.1);
    assert_eq!((after.errors, after.deletes), (before.0.errors, before.0.deletes));
    ledger.scan_hold(&mut |_| ()).unwrap();
    assert!(ledger.metrics().reads > after.reads && ledger.metrics().read_bytes >= after.read_bytes + 5000);
    assert!(after.cache_hits > 0, "{after:?}");
    disk.set_capacity(Some(disk.used_bytes()));
    ledger.append(issued(4, &[7; 5000])).unwrap_err();
    assert_eq!(ledger.metrics().errors, before.0.errors + 1);
    disk.set_capacity(None);
}

#[test]
fn a_failed_sync_ends_everything() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.append(issued(3, b"x")).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(ledger.sync(), Err(LedgerError::SyncFailed)));
    disk.fail_syncs(false);
    assert!(matches!(ledger.sync(), Err(LedgerError::SyncFailed)));
    assert!(matches!(ledger.append(issued(4, b"x")), Err(LedgerError::SyncFailed)));
    assert!(matches!(ledger.apply(&applied(3, vec![], vec![])), Err(LedgerError::SyncFailed)));
    assert!(matches!(ledger.flush_view(), Err(LedgerError::SyncFailed)));
    assert!(ledger.snapshot().is_err());
}

#[test]
fn applying_twice_changes_nothing_and_gaps_and_contradictions_are_refused() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    let used = disk.used_bytes();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    assert_eq!(disk.used_bytes(), used);
    is_complete(&ledger);
    assert!(matches!(ledger.apply(&applied(4, vec![], vec![])), Err(LedgerError::OutOfOrder { expected: 3, found: 4 })));
    for contradiction in [
        put(1, b"k", 2, 99),
        put(9, b"k", 2, 1),
        delete(1, b"canary-key", 7),
        delete(1, b"absent", 1),
        bucket_created(1),
        crate::fixture::bucket_deleted(1),
        crate::fixture::tenant_created(),
        released(3000, 5),
    ] {
        let refused = ledger.apply(&applied(3, vec![put(1, b"first", 2, 1), contradiction], vec![]));
        assert!(matches!(refused, Err(LedgerError::Refused { seq: 3, index: 1, .. })), "{refused:?}");
    }
    let mut lying = applied(3, vec![], vec![]);
    lying.log = Some(crate::LogHead { size: 3, root: diaspore_block::id::Hash32::ZERO });
    assert!(matches!(ledger.apply(&lying), Err(LedgerError::Refused { .. })));
    assert_eq!(disk.used_bytes(), used);
    is_complete(&ledger);
    assert_eq!(open(disk.snapshot(), 2).unwrap().report().applied, Seq(2));
}

#[test]
fn settling_is_journalled_and_survives_a_rebuild() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    ledger.update_placement(block_id(1), placements(5)).unwrap();
    ledger.apply(&applied(3, vec![released(2, 4)], vec![])).unwrap();
    let check = |ledger: &Ledger| {
        let state = ledger.snapshot().unwrap();
        assert_eq!(state.settled_through().unwrap(), Seq(1));
        let waiting: Vec<_> = state.unsettled(10).unwrap().into_iter().map(|entry| entry.seq).collect();
        assert_eq!(waiting, [Seq(2), Seq(3)]);
        assert_eq!(state.totals().unwrap().unsettled_bytes, 2 * 8264);
    };
    check(&ledger);
    // Older news never take an acknowledgement back.
    ledger.update_placement(block_id(1), placements(2)).unwrap();
    check(&ledger);
    drop(ledger);
    disk.replace("view", Vec::new());
    check(&open(disk, 2).unwrap());
}

#[test]
fn the_hold_keeps_issued_blocks_until_they_are_settled() {
    let disk = MemoryMedium::new();
    let ledger = open(disk.clone(), 1).unwrap();
    let big: &'static [u8] = Box::leak(vec![3; 9 << 20].into_boxed_slice());
    for seq in 1..=4 {
        ledger.append(issued(seq, big)).unwrap();
        ledger
            .append(JournalEntry::Released(ReleasedNote {
                seq: Seq(seq),
                incarnation: IncarnationId::from_bytes([1; 16]),
                attempt: Attempt(0),
                placements: placements(4),
            }))
            .unwrap();
    }
    ledger.sync().unwrap();
    let crashed = open(disk.crash(), 2).unwrap();
    let scanned = crashed.held();
    assert_eq!(scanned.len(), 8);
    assert_eq!(scanned[6], issued(4, big));
    let note = IncarnationNote { incarnation: IncarnationId::from_bytes([1; 16]), epoch: Epoch(1), started: Timestamp(1), k_floor: 3 };
    crashed.append(JournalEntry::Chain(note.clone())).unwrap();
    assert_eq!(crashed.snapshot().unwrap().incarnations().unwrap(), [note]);
    let dropped = JournalEntry::Dropped { incarnation: IncarnationId::from_bytes([1; 16]), from: Counter(2) };
    crashed.append(dropped.clone()).unwrap();
    assert_eq!(crashed.held().last(), Some(&dropped), "behind what it speaks of");

    let used = disk.used_bytes();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    ledger.flush_view().unwrap();
    assert!(disk.used_bytes() >= used);
    for seq in 1..=2 {
        ledger.update_placement(block_id(seq), placements(5)).unwrap();
    }
    ledger.flush_view().unwrap();
    assert!(disk.used_bytes() < used - (17 << 20));
    assert!(ledger.held().contains(&issued(4, big)));
}

#[test]
fn a_snapshot_does_not_see_what_comes_later() {
    let disk = MemoryMedium::new();
    let ledger = filled(&disk);
    let before = ledger.snapshot().unwrap();
    ledger.apply(&applied(3, vec![delete(1, b"canary-key", 1), put(1, b"new", 2, 5)], vec![chunk_entry(1, 5)])).unwrap();
    ledger.flush_view().unwrap();
    assert!(before.blob(bucket(1), b"canary-key").unwrap().is_some());
    assert!(before.blob(bucket(1), b"new").unwrap().is_none());
    let after = ledger.snapshot().unwrap();
    assert!(after.blob(bucket(1), b"canary-key").unwrap().is_none());
    assert!(after.blob(bucket(1), b"new").unwrap().is_some());
    assert!(!format!("{:?} {:?}", after.block(block_id(2)), after.chunk(bucket(1), &chunk(1))).contains("provider"));
}
