use crate::fixture::{applied, bucket, bulk, chunk, chunk_entry, first_blocks, key, open, put, released, rng};
use std::io;
use std::sync::Arc;

use crate::{BackupHead, IssuedBlock, JournalEntry, Ledger, LedgerError, Medium, MediumFile, MediumLock, MemoryMedium, OpenMode};
use bytes::Bytes;
use diaspore_block::id::{Attempt, Counter, IncarnationId, Seq};
use diaspore_block::key::LedgerKey;

fn issued(seq: u64, len: usize) -> JournalEntry {
    JournalEntry::Block(IssuedBlock {
        seq: Seq(seq),
        incarnation: IncarnationId::from_bytes([1; 16]),
        counter: Counter(seq - 1),
        attempt: Attempt(0),
        block: crate::fixture::block_id(seq),
        manifest: Bytes::from_static(b"a manifest"),
        payload: Bytes::from(vec![7; len]),
    })
}

fn filled(blocks: u64) -> (MemoryMedium, Ledger) {
    let disk = MemoryMedium::new();
    let ledger = open(disk.clone(), 1).unwrap();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    for seq in 3..=blocks {
        ledger.append(issued(seq, 3000)).unwrap();
        let records = vec![put(1, format!("key-{seq}").as_bytes(), seq, seq), bulk(seq, 1, 1000 + seq, 4)];
        ledger.apply(&applied(seq, records, vec![chunk_entry(1, seq)])).unwrap();
    }
    ledger.sync().unwrap();
    (disk, ledger)
}

fn export(ledger: &Ledger) -> Vec<u8> {
    let mut exporter = ledger.exporter().unwrap();
    std::iter::from_fn(|| exporter.piece().unwrap()).flatten().collect()
}

fn restore(bytes: &[u8]) -> Result<(MemoryMedium, BackupHead), LedgerError> {
    let disk = MemoryMedium::new();
    let head = Ledger::restore(disk.clone(), &key(), rng(5), &mut &*bytes);
    if head.is_err() {
        assert!(disk.files().is_empty(), "a failed restore leaves nothing");
    }
    head.map(|head| (disk, head))
}

#[test]
fn a_backup_made_beside_the_writer_is_one_state_and_comes_back_whole() {
    let (_, ledger) = filled(300);
    let before = ledger.snapshot().unwrap();
    let mut exporter = ledger.exporter().unwrap();
    assert_eq!(exporter.applied(), Some(Seq(300)));
    let mut bytes = exporter.piece().unwrap().unwrap();
    // The writer goes on while the copy is made, and closes segments.
    for seq in 301..340 {
        ledger.append(issued(seq, 1 << 20)).unwrap();
        ledger.apply(&applied(seq, vec![put(1, b"later", seq, 1), released(seq - 1, 5)], vec![])).unwrap();
    }
    ledger.flush_view().unwrap();
    while let Some(piece) = exporter.piece().unwrap() {
        assert!(piece.len() < 4 << 20, "pieces stay small");
        bytes.extend_from_slice(&piece);
    }
    let (disk, head) = restore(&bytes).unwrap();
    assert_eq!((head.applied, head.log_size), (Seq(300), before.log_size().unwrap()));
    let restored = open(disk.clone(), 6).unwrap();
    let state = restored.snapshot().unwrap();
    assert_eq!(state.totals().unwrap(), before.totals().unwrap());
    assert_eq!(state.log_root(head.log_size).unwrap(), before.log_root(head.log_size).unwrap());
    assert_eq!(state.blob(bucket(1), b"key-77").unwrap(), before.blob(bucket(1), b"key-77").unwrap());
    assert!(state.chunk(bucket(1), &chunk(77)).unwrap() == before.chunk(bucket(1), &chunk(77)).unwrap());
    assert!(state.blob(bucket(1), b"later").unwrap().is_none());
    assert!(restored.held().contains(&issued(300, 3000)), "the hold is in it too");
    assert!(restored.integrity().unwrap().is_sound());
    restored.apply(&applied(301, vec![put(1, b"on", 301, 1)], vec![])).unwrap();
    for needle in [&b"canary"[..], b"provider-", b"key-77"] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "a backup shows a name");
    }
}

#[test]
fn a_damaged_backup_is_refused_whole() {
    let (_, ledger) = filled(40);
    let bytes = export(&ledger);
    let refused = |bytes: &[u8]| match restore(bytes) {
        Err(LedgerError::Backup { what }) => what,
        other => panic!("{other:?}"),
    };
    for len in (0..bytes.len()).step_by(bytes.len() / 40) {
        assert_eq!(refused(&bytes[..len]), "it ends early", "cut to {len} of {}", bytes.len());
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        refused(&flipped);
    }
    // Frames from elsewhere: the end of another backup of the same ledger, and a frame left out.
    let other = export(&ledger);
    let tail = 200;
    assert_eq!(refused(&[&bytes[..bytes.len() - tail], &other[other.len() - tail..]].concat()), "a frame of it is damaged");
    let foreign = Ledger::restore(MemoryMedium::new(), &LedgerKey::from_bytes([9; 32]), rng(5), &mut bytes.as_slice());
    assert!(matches!(foreign, Err(LedgerError::Backup { what }) if what.contains("another deployment")));
    assert!(restore(&bytes).is_ok());
}

/// Where each frame lies.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut found) = (32, Vec::new());
    while at < bytes.len() {
        let end = at + 4 + usize::try_from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap();
        found.push(at..end);
        at = end;
    }
    found
}

#[test]
fn a_frame_counts_in_its_place_only() {
    let (_, ledger) = filled(5);
    for seq in 6..10 {
        ledger.append(issued(seq, 1 << 20)).unwrap();
    }
    ledger.sync().unwrap();
    let bytes = export(&ledger);
    let frames = frames(&bytes);
    assert!(frames.len() >= 6, "head, log, four of the hold and the end: {}", frames.len());
    let with = |order: &[usize]| -> Vec<u8> {
        let kept = order.iter().flat_map(|at| &bytes[frames[*at].clone()]);
        bytes[..32].iter().chain(kept).copied().collect()
    };
    let all: Vec<usize> = (0..frames.len()).collect();
    assert!(restore(&with(&all)).is_ok());
    let mut swapped = all.clone();
    swapped.swap(frames.len() - 3, frames.len() - 2);
    let mut without = all.clone();
    without.remove(frames.len() - 2);
    let mut twice = all;
    twice.insert(frames.len() - 2, frames.len() - 2);
    for order in [swapped, without, twice] {
        assert!(matches!(restore(&with(&order)), Err(LedgerError::Backup { what: "a frame of it is damaged" })), "{order:?}");
    }
}

#[test]
fn a_restore_needs_an_empty_place_and_room() {
    let (disk, ledger) = filled(10);
    let bytes = export(&ledger);
    drop(ledger);
    let before = disk.files();
    let refused = Ledger::restore(disk.clone(), &key(), rng(5), &mut bytes.as_slice());
    assert!(matches!(refused, Err(LedgerError::Occupied)));
    assert_eq!(disk.files(), before);
    // Nor is anything touched where somebody is at work: a file may appear there between a look and a lock.
    let held = MemoryMedium::new();
    let _work = held.lock(OpenMode::ReadWrite).unwrap();
    held.replace("log-0000000001", vec![1; 9]);
    assert!(matches!(Ledger::restore(held.clone(), &key(), rng(5), &mut bytes.as_slice()), Err(LedgerError::Locked)));
    assert_eq!(held.contents("log-0000000001"), Some(vec![1; 9]));
    let small = MemoryMedium::new();
    small.set_capacity(Some(20_000));
    assert!(matches!(Ledger::restore(small.clone(), &key(), rng(5), &mut bytes.as_slice()), Err(LedgerError::Full)));
    assert!(small.files().is_empty());
    // An empty ledger is a backup too.
    let empty = export(&open(MemoryMedium::new(), 1).unwrap());
    assert_eq!(restore(&empty).unwrap().1.applied, Seq(0));
}

/// A disk that lets nothing be removed while nobody holds it: whoever came in between would lose what is theirs.
#[derive(Debug, Clone)]
struct Guarded(MemoryMedium);

impl Medium for Guarded {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock, LedgerError> {
        self.0.lock(mode)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        self.0.open(name, create)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        assert!(matches!(self.0.lock(OpenMode::ReadOnly), Err(LedgerError::Locked)), "{name} is removed and nobody holds the disk");
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }
}

#[test]
fn what_a_failed_restore_clears_away_it_holds() {
    let (_, ledger) = filled(40);
    let bytes = export(&ledger);
    let disk = MemoryMedium::new();
    // Cut, and with entries that lead elsewhere than its head says.
    for bytes in [bytes[..bytes.len() - 9].to_vec(), altered(&ledger)] {
        let refused = Ledger::restore(Guarded(disk.clone()), &key(), rng(5), &mut bytes.as_slice());
        assert!(matches!(refused, Err(LedgerError::Backup { .. })), "{refused:?}");
        assert!(disk.files().is_empty());
        drop(disk.lock(OpenMode::ReadWrite).unwrap());
    }
}

/// A backup whose head names another root than its entries lead to.
fn altered(ledger: &Ledger) -> Vec<u8> {
    let mut exporter = ledger.exporter().unwrap();
    let super::Next::Head(head) = &mut exporter.next else { panic!("begun") };
    head.log_root = diaspore_block::id::Hash32::from_bytes([9; 32]);
    std::iter::from_fn(|| exporter.piece().unwrap()).flatten().collect()
}
