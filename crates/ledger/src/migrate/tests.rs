//! The store that a program of schema 1 left (`tests/fixtures/stores/1`), brought to this schema.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use diaspore_block::id::{Seq, Timestamp};
use diaspore_block::key::LedgerKey;
use diaspore_block::record::SchemaMigrated;

use super::keep_copy;
use crate::fixture::{applied, rng};
use crate::identity::{SCHEMA, plate_of_schema};
use crate::journal::{Stream, StreamKind, journal_secret};
use crate::medium::{Medium, MediumFile, MediumLock};
use crate::secret::Secret;
use crate::{FileMedium, JournalEntry, KeyringCopy, Ledger, LedgerError, MemoryMedium, MigrationEntry, OpenMode, Result};

const ROOT: &str = "48b4fb753f017fa0a86050d80dc57dc2a82b4bf3873e17759c7bde518ff833e9";

fn key() -> LedgerKey {
    LedgerKey::from_bytes([0x51; 32])
}

fn old_store() -> MemoryMedium {
    let disk = MemoryMedium::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/stores/1");
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        disk.replace(&entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    assert!(disk.files().len() == 6);
    disk
}

fn open(medium: impl Medium, mode: OpenMode) -> Result<Ledger> {
    Ledger::open(medium, &key(), mode, rng(3))
}

/// What the fixture's text says of it.
fn holds_everything(ledger: &Ledger) {
    let state = ledger.snapshot().unwrap();
    assert_eq!(state.applied_seq().unwrap(), Seq(34));
    assert_eq!(state.log_size().unwrap(), 48);
    assert_eq!(state.log_root(48).unwrap().to_string(), ROOT);
    let totals = state.totals().unwrap();
    assert_eq!((totals.tenants, totals.buckets, totals.blobs, totals.chunks), (2, 2, 27, 27));
    assert_eq!((totals.bulk_blocks, totals.unsettled_blocks, totals.unsettled_bytes), (3, 20, 165_280));
    let bucket = state.bucket(state.tenant_by_name("tenant-0").unwrap().unwrap().id, "bucket-1").unwrap().unwrap();
    let large = state.blob(bucket.id, b"large").unwrap().unwrap();
    assert_eq!(large.size, 400);
    let place = state.chunk(bucket.id, &large.content.refs[2].id).unwrap().unwrap();
    // A table that schema 1 did not have, filled from the journal.
    assert!(state.contents(place.block).unwrap().iter().any(|(_, chunk)| *chunk == large.content.refs[2].id));
    let keys = state.api_keys(None, 9).unwrap();
    assert_eq!((keys.len(), keys.iter().filter(|key| key.revoked.is_some()).count()), (2, 1));
    assert_eq!((state.chain().unwrap().len(), state.incarnations().unwrap().len()), (2, 2));
    assert_eq!(state.keyring().unwrap().unwrap().version, 2);
    let hold = ledger.held();
    assert!(hold.iter().any(|entry| matches!(entry, JournalEntry::Block(block) if block.seq == Seq(35))));
    ledger.check().unwrap();
}

fn unrecorded() -> MigrationEntry {
    MigrationEntry { from: 1, to: SCHEMA, recorded: None }
}

#[test]
fn an_old_store_is_brought_up_with_a_copy_kept_and_a_line_in_its_journal() {
    let disk = old_store();
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name).unwrap(), name)).collect();
    let ledger = open(disk.clone(), OpenMode::ReadWrite).unwrap();
    assert_eq!((ledger.report().migrated_from, ledger.report().rebuilt), (Some(1), true));
    holds_everything(&ledger);
    assert_eq!(ledger.snapshot().unwrap().migrations().unwrap(), [unrecorded()]);
    for (bytes, name) in before {
        assert_eq!(disk.contents(&format!("schema-1.{name}")), Some(bytes), "{name}");
    }
    // The record of it in the log is listed beside it, once; the next opening is an ordinary one.
    let change = SchemaMigrated { from: 1, to: SCHEMA, what: "the view was made anew".to_owned() };
    ledger.apply(&applied(35, vec![change.into()], vec![])).unwrap();
    drop(ledger);
    let ledger = open(disk.clone(), OpenMode::ReadWrite).unwrap();
    assert_eq!((ledger.report().migrated_from, ledger.report().rebuilt), (None, false));
    let recorded = MigrationEntry { recorded: Some((Seq(35), Timestamp(1035))), ..unrecorded() };
    assert_eq!(ledger.snapshot().unwrap().migrations().unwrap(), std::slice::from_ref(&recorded));
    // So it stays when the view is rebuilt from the journal.
    drop(ledger);
    disk.replace("view", Vec::new());
    assert_eq!(open(disk.clone(), OpenMode::ReadWrite).unwrap().snapshot().unwrap().migrations().unwrap(), [recorded]);
    // The copy is the old store: put back, it is migrated again.
    let back = MemoryMedium::new();
    for (name, _) in disk.files() {
        if let Some(old) = name.strip_prefix("schema-1.") {
            back.replace(old, disk.contents(&name).unwrap());
        }
    }
    let ledger = open(back, OpenMode::ReadWrite).unwrap();
    assert_eq!(ledger.report().migrated_from, Some(1));
    holds_everything(&ledger);
}

#[test]
fn a_missing_and_a_present_store_are_not_migrated_and_a_newer_one_is_not_touched() {
    let disk = MemoryMedium::new();
    let fresh = open(disk.clone(), OpenMode::ReadWrite).unwrap();
    assert_eq!(fresh.report().migrated_from, None);
    drop(fresh);
    assert_eq!(open(disk.clone(), OpenMode::ReadWrite).unwrap().report().migrated_from, None);
    assert!(disk.files().iter().all(|(name, _)| !super::is_copy(name)));
    let disk = old_store();
    disk.replace("identity", plate_of_schema(SCHEMA + 1, &Secret::of(&key())));
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        let refused = open(disk.clone(), mode);
        assert!(matches!(refused, Err(LedgerError::NewerSchema { found, supported: SCHEMA }) if found == SCHEMA + 1));
    }
    let after: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    assert_eq!(before, after);
}

#[test]
fn an_old_store_can_be_read_without_changing_a_byte() {
    let disk = old_store();
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    let ledger = open(disk.clone(), OpenMode::ReadOnly).unwrap();
    assert_eq!(ledger.report().migrated_from, None);
    holds_everything(&ledger);
    drop(ledger);
    let after: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    assert_eq!(before, after);
}

#[test]
fn an_old_store_is_not_damaged_and_is_not_repaired() {
    let disk = old_store();
    let before: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    let report = Ledger::examine(disk.clone(), &key()).unwrap();
    assert!(report.is_sound() && report.awaits_migration && report.schema == 1, "{report:#?}");
    assert_eq!((report.log_size, report.log_root.as_str(), report.heads_wrong), (48, ROOT, 0));
    let refused = Ledger::discard_view(&disk, &key());
    assert!(matches!(refused, Err(LedgerError::OlderSchema { found: 1, present: SCHEMA })), "{refused:?}");
    let after: Vec<_> = disk.files().into_iter().map(|(name, _)| (disk.contents(&name), name)).collect();
    assert_eq!(before, after);
    // Damage of its journal is seen all the same.
    let damaged = disk.snapshot();
    let mut bytes = damaged.contents("log-0000000001").unwrap();
    bytes[100] ^= 1;
    damaged.replace("log-0000000001", bytes);
    assert!(!Ledger::examine(damaged, &key()).unwrap().is_sound());
    drop(open(disk.clone(), OpenMode::ReadWrite).unwrap());
    assert!(!Ledger::examine(disk, &key()).unwrap().awaits_migration);
}

#[test]
fn a_disk_too_full_for_the_copy_leaves_the_old_store() {
    let disk = old_store();
    disk.set_capacity(Some(disk.used_bytes() + 100_000));
    assert!(matches!(open(disk.clone(), OpenMode::ReadWrite), Err(LedgerError::Full)));
    let plate = old_store().contents("identity");
    assert_eq!(disk.contents("identity"), plate);
    assert!(!disk.files().iter().any(|(name, _)| name == "schema-1.identity"), "a copy that is not whole has no plate");
    disk.set_capacity(None);
    let ledger = open(disk, OpenMode::ReadWrite).unwrap();
    assert_eq!(ledger.report().migrated_from, Some(1));
    holds_everything(&ledger);
}

/// A segment that the journal has cut since would stand behind the others in the copy, and damage what is put back from it.
#[test]
fn a_copy_that_broke_off_leaves_no_file_in_the_next() {
    let disk = old_store();
    disk.replace("schema-1.hold-0000000009", vec![1; 100]);
    holds_everything(&open(disk.clone(), OpenMode::ReadWrite).unwrap());
    let kept: Vec<_> = disk.files().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("schema-1.")).collect();
    assert_eq!(kept.len(), old_store().files().len(), "{kept:?}");
}

/// A migration broke off behind its copy, and the old program went on for a while: going back must not lose what it stored since.
#[test]
fn a_copy_of_another_time_is_made_anew() {
    let disk = old_store();
    keep_copy(&disk, 1).unwrap();
    keep_copy(&disk, 1).unwrap();
    let secret = Arc::new(journal_secret(&Secret::of(&key())));
    let mut log = Stream::open(StreamKind::Log, Arc::new(disk.clone()), secret, OpenMode::ReadWrite).unwrap();
    let entry = JournalEntry::Keyring(KeyringCopy { version: 3, sealed: vec![1; 40] });
    log.append(&entry.encode(), rng(4).as_mut()).unwrap();
    let through = log.begin_sync().unwrap().run().unwrap();
    log.end_sync(through);
    let journal: Vec<_> = disk.files().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("log-")).collect();
    drop(open(disk.clone(), OpenMode::ReadWrite).unwrap());
    let back = MemoryMedium::new();
    for (name, _) in disk.files() {
        if let Some(old) = name.strip_prefix("schema-1.") {
            back.replace(old, disk.contents(&name).unwrap());
        }
    }
    assert!(journal.iter().all(|name| back.contents(name).is_some()), "{journal:?} {:?}", back.files());
    assert_eq!(open(back, OpenMode::ReadWrite).unwrap().snapshot().unwrap().keyring().unwrap().unwrap().version, 3);
}

#[test]
fn a_folder_is_migrated_like_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in old_store().files() {
        std::fs::write(folder.path().join(&name), old_store().contents(&name).unwrap()).unwrap();
    }
    let ledger = open(FileMedium::new(folder.path()), OpenMode::ReadWrite).unwrap();
    holds_everything(&ledger);
    drop(ledger);
    assert!(folder.path().join("schema-1.view").exists());
    holds_everything(&open(FileMedium::new(folder.path()), OpenMode::ReadWrite).unwrap());
}

/// A disk whose power goes after so many changes: later ones fail, and what was there is kept as it was at that moment.
#[derive(Debug, Clone)]
struct Failing {
    disk: MemoryMedium,
    left: Arc<AtomicU64>,
    /// Changes of the view count for so many at once, or the test would take hours.
    names: Arc<Mutex<u64>>,
}

impl Failing {
    fn step(&self, of_view: bool) -> io::Result<()> {
        if of_view {
            let mut count = self.names.lock().unwrap();
            *count += 1;
            if !count.is_multiple_of(101) {
                return if self.left.load(Ordering::Relaxed) == 0 { Err(io::Error::other("no power")) } else { Ok(()) };
            }
        }
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct FailingFile {
    of: Failing,
    file: Arc<dyn MediumFile>,
    view: bool,
}

impl Medium for Failing {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock> {
        self.disk.lock(mode)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let file = self.disk.open(name, create)?;
        Ok(file.map(|file| Arc::new(FailingFile { of: self.clone(), file, view: name == "view" }) as Arc<dyn MediumFile>))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(false)?;
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(false)?;
        self.disk.rename(from, to)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.step(false)?;
        self.disk.sync_names()
    }
}

impl MediumFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.of.step(self.view)?;
        self.file.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.of.step(self.view)?;
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.of.step(self.view)?;
        self.file.sync()
    }
}

#[test]
fn a_crash_at_any_step_leaves_a_store_that_the_next_opening_migrates_or_finds_migrated() {
    let (mut steps, mut old, mut new) = (0, 0, 0);
    loop {
        let disk = old_store();
        let failing = Failing { disk: disk.clone(), left: Arc::new(AtomicU64::new(steps)), names: Arc::default() };
        let opened = open(failing.clone(), OpenMode::ReadWrite);
        let done = opened.is_ok();
        let images = [disk.crash(), disk.crash_torn(1), disk.crash_torn(5000), disk.snapshot()];
        failing.left.store(0, Ordering::Relaxed);
        drop(opened);
        for image in images {
            let ledger = open(image.clone(), OpenMode::ReadWrite).unwrap();
            match ledger.report().migrated_from {
                Some(1) => old += 1,
                None => new += 1,
                other => panic!("{other:?}"),
            }
            holds_everything(&ledger);
            assert_eq!(ledger.snapshot().unwrap().migrations().unwrap(), [unrecorded()], "after {steps} steps");
            drop(ledger);
            for (name, _) in old_store().files() {
                assert_eq!(image.contents(&format!("schema-1.{name}")), old_store().contents(&name), "{name} after {steps} steps");
            }
        }
        if done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20 && old > 40 && new > 3, "{steps} steps: {old} found old, {new} found new");
}
