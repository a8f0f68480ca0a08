use std::sync::Arc;

use super::{Stream, StreamKind, journal_secret};
use crate::fixture::{key, rng};
use crate::medium::{MemoryMedium, OpenMode};
use crate::secret::Secret;
use crate::{LedgerError, Result};

fn stream(disk: &MemoryMedium) -> Result<Stream> {
    let secret = Arc::new(journal_secret(&Secret::of(&key())));
    Stream::open(StreamKind::Log, Arc::new(disk.clone()), secret, OpenMode::ReadWrite)
}

fn append(stream: &mut Stream, seed: u64, plain: &[u8]) {
    stream.append(plain, rng(seed).as_mut()).unwrap();
}

fn sync(stream: &mut Stream) {
    if let Some(pending) = stream.begin_sync() {
        let through = pending.run().unwrap();
        stream.end_sync(through);
    }
}

fn entries(stream: &Stream) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for number in stream.numbers() {
        stream.read(*number, None, &mut |plain, _| {
            found.push(plain.to_vec());
            Ok(())
        })?;
    }
    Ok(found)
}

const NAME: &str = "log-0000000001";

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_the_last_whole_entry() {
    let disk = MemoryMedium::new();
    let mut journal = stream(&disk).unwrap();
    append(&mut journal, 1, b"first");
    let before = disk.contents(NAME).unwrap().len();
    append(&mut journal, 2, b"second");
    let whole = disk.contents(NAME).unwrap();
    for cut in before..whole.len() {
        let torn = MemoryMedium::new();
        torn.replace(NAME, whole[..cut].to_vec());
        let mut journal = stream(&torn).unwrap();
        assert_eq!(torn.contents(NAME).unwrap().len(), before, "cut at {cut}");
        assert_eq!(entries(&journal).unwrap(), [b"first".to_vec()]);
        append(&mut journal, 3, b"third");
        assert_eq!(entries(&stream(&torn).unwrap()).unwrap(), [b"first".to_vec(), b"third".to_vec()]);
    }
    for cut in 0..before.min(80) {
        let torn = MemoryMedium::new();
        torn.replace(NAME, whole[..cut].to_vec());
        assert_eq!(entries(&stream(&torn).unwrap()).unwrap(), Vec::<Vec<u8>>::new(), "cut at {cut}");
    }
}

#[test]
fn a_broken_synced_entry_below_others_is_damage_an_unsynced_one_is_a_torn_end() {
    for synced in [true, false] {
        let disk = MemoryMedium::new();
        let mut journal = stream(&disk).unwrap();
        append(&mut journal, 1, b"first");
        let start = disk.contents(NAME).unwrap().len();
        append(&mut journal, 2, b"second");
        let end = disk.contents(NAME).unwrap().len();
        if synced {
            sync(&mut journal);
        }
        append(&mut journal, 3, b"third");
        let whole = disk.contents(NAME).unwrap();
        for at in start..end {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let broken = MemoryMedium::new();
            broken.replace(NAME, bytes);
            match stream(&broken) {
                Err(LedgerError::Corrupt { what }) => {
                    assert!(synced && what.contains(NAME), "{what}");
                }
                Ok(journal) => assert!(!synced && entries(&journal).unwrap() == [b"first".to_vec()]),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn missing_foreign_and_shortened_segments_are_named() {
    let disk = MemoryMedium::new();
    for seed in 1..=3 {
        append(&mut stream(&disk).unwrap(), seed, &[u8::try_from(seed).unwrap()]);
    }
    assert_eq!(entries(&stream(&disk).unwrap()).unwrap(), [vec![1], vec![2], vec![3]]);
    let without = |name: &str| {
        let disk = disk.snapshot();
        crate::Medium::remove(&disk, name).unwrap();
        stream(&disk).map(|journal| entries(&journal))
    };
    assert!(matches!(without("log-0000000002"), Err(LedgerError::Corrupt { .. })));
    assert!(matches!(without("log-0000000001"), Err(LedgerError::Corrupt { .. })));
    // A middle segment cut at an entry's edge, or one of another disk, is noticed by its successor or header.
    let cut = disk.snapshot();
    let bytes = cut.contents("log-0000000002").unwrap();
    cut.replace("log-0000000002", bytes[..80].to_vec());
    assert!(matches!(entries(&stream(&cut).unwrap()), Err(LedgerError::Corrupt { .. })));
    let moved = disk.snapshot();
    moved.replace("log-0000000002", disk.contents("log-0000000003").unwrap());
    assert!(matches!(entries(&stream(&moved).unwrap()), Err(LedgerError::Corrupt { .. })));
}

#[test]
fn two_copies_of_one_disk_never_write_the_same_bytes() {
    let disk = MemoryMedium::new();
    append(&mut stream(&disk).unwrap(), 1, b"common");
    let copy = disk.snapshot();
    append(&mut stream(&disk).unwrap(), 2, b"same plaintext");
    append(&mut stream(&copy).unwrap(), 3, b"same plaintext");
    let (left, right) = (disk.contents("log-0000000002").unwrap(), copy.contents("log-0000000002").unwrap());
    // Salt, commitment and ciphertext of the sealed entry: 120 bytes of header and frame lie before it.
    let same = left[120..].iter().zip(&right[120..]).filter(|(left, right)| left == right).count();
    assert!(same < 10, "{same} of {} bytes agree", left.len() - 120);
}

#[test]
fn a_full_disk_leaves_the_journal_as_it_was() {
    let disk = MemoryMedium::new();
    let mut journal = stream(&disk).unwrap();
    append(&mut journal, 1, b"first");
    disk.set_capacity(Some(disk.used_bytes() + 10));
    assert!(matches!(journal.append(b"second", rng(2).as_mut()), Err(LedgerError::Full)));
    disk.set_capacity(None);
    append(&mut journal, 3, b"third");
    assert_eq!(entries(&journal).unwrap(), [b"first".to_vec(), b"third".to_vec()]);
    assert_eq!(entries(&stream(&disk).unwrap()).unwrap(), [b"first".to_vec(), b"third".to_vec()]);
}
