use std::collections::BTreeMap;

use bytes::Bytes;
use diaspore_block::compacted::content_of;
use diaspore_block::id::{Epoch, Hash32, IncarnationId, Timestamp};

use super::*;
use crate::fixture::{applied, bucket, bucket_created, bulk, chunk_entry, first_blocks, open, placements, put};
use crate::state::State;
use crate::{IncarnationNote, JournalEntry, Ledger, MemoryMedium};

type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// A ledger with a few hundred blobs.
fn filled(disk: &MemoryMedium) -> Ledger {
    let ledger = open(disk.clone(), 1).unwrap();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    for seq in 3..60 {
        let puts = (0..5).map(|at| put(1, format!("blob-{seq}-{at}").as_bytes(), seq * 10 + at, 1)).collect();
        ledger.apply(&applied(seq, puts, vec![])).unwrap();
    }
    ledger.apply(&applied(60, vec![bucket_created(2), bulk(7, 2, 3, 4)], vec![chunk_entry(2, 9)])).unwrap();
    ledger.update_placement(crate::fixture::block_id(5), placements(5)).unwrap();
    let note = IncarnationNote { incarnation: IncarnationId::from_bytes([3; 16]), epoch: Epoch(1), started: Timestamp(1), k_floor: 2 };
    ledger.append(JournalEntry::Chain(note)).unwrap();
    ledger
}

/// Every row of the tables but those that are this disk's own.
fn rows(state: &dyn State) -> Rows {
    let mut found = Rows::new();
    for table in Table::ALL {
        state
            .walk(table, Bound::Unbounded, &mut |key, value| {
                if !is_local(table, key) {
                    found.insert((table as u8, key.to_vec()), value.to_vec());
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }
    found
}

fn export(ledger: &Ledger) -> (Vec<Bytes>, Seq, LogHead) {
    let view = ledger.snapshot().unwrap();
    let (mut parts, mut from) = (Vec::new(), RowKey::default());
    // Short parts by the way they are read: whatever is cut, the rows are the same.
    loop {
        let part = view.base_part(&from, &[]).unwrap();
        assert!(part.plain.len() <= MAX_PART && part.rows > 0);
        let mut halves = [Vec::new(), Vec::new()];
        let mut at = 0;
        each_row::<BlockError>(&part.plain, |row| {
            row.put(&mut halves[usize::from(at >= part.rows / 2)]);
            at += 1;
            Ok(())
        })
        .unwrap();
        parts.extend(halves.map(Bytes::from));
        let Some(end) = part.end else { break };
        from = end;
    }
    let size = view.log_size().unwrap();
    (parts, view.applied_seq().unwrap(), LogHead { size, root: view.log_root(size).unwrap() })
}

fn base(ledger: &Ledger, step: BaseStep) -> Result<()> {
    ledger.append(JournalEntry::Base(step))
}

fn install(ledger: &Ledger, (parts, covers, log): &(Vec<Bytes>, Seq, LogHead)) -> Result<()> {
    base(ledger, BaseStep::Begin)?;
    for part in parts {
        base(ledger, BaseStep::Rows(part.clone()))?;
    }
    base(ledger, BaseStep::End { covers: *covers, log: *log })
}

#[test]
fn an_exported_state_is_installed_as_it_was() {
    let source = filled(&MemoryMedium::new());
    let exported = export(&source);
    let wanted = rows(source.snapshot().unwrap().state().as_ref());
    assert!(wanted.len() > 700);
    // On an empty disk, and in place of another state.
    for old in [vec![], first_blocks()] {
        let disk = MemoryMedium::new();
        let ledger = open(disk.clone(), 2).unwrap();
        for block in &old {
            ledger.apply(block).unwrap();
        }
        let note = IncarnationNote { incarnation: IncarnationId::from_bytes([4; 16]), epoch: Epoch(2), started: Timestamp(2), k_floor: 3 };
        ledger.append(JournalEntry::Chain(note.clone())).unwrap();
        install(&ledger, &exported).unwrap();
        let view = ledger.snapshot().unwrap();
        assert_eq!(rows(view.state().as_ref()), wanted);
        assert_eq!(view.incarnations().unwrap(), [note], "what this disk noted stays");
        let looked_at = ledger.integrity().unwrap();
        assert!(looked_at.is_sound(), "{looked_at:?}");
        assert_eq!(view.consistency_proof(3, 280).unwrap(), source.snapshot().unwrap().consistency_proof(3, 280).unwrap());
        // It goes on from there, and a lost view comes back from the journal alone.
        ledger.apply(&applied(61, vec![put(2, b"later", 9000, 3)], vec![])).unwrap();
        ledger.sync().unwrap();
        let after = rows(ledger.snapshot().unwrap().state().as_ref());
        drop((view, ledger));
        disk.replace("view", Vec::new());
        let again = open(disk, 3).unwrap();
        assert!(again.report().rebuilt);
        assert_eq!(rows(again.snapshot().unwrap().state().as_ref()), after);
        assert!(again.snapshot().unwrap().blob(bucket(2), b"later").unwrap().is_some());
    }
}

#[test]
fn an_install_that_broke_off_is_recognised_and_begun_again() {
    let exported = export(&filled(&MemoryMedium::new()));
    let disk = MemoryMedium::new();
    let ledger = open(disk.clone(), 2).unwrap();
    for block in first_blocks() {
        ledger.apply(&block).unwrap();
    }
    base(&ledger, BaseStep::Begin).unwrap();
    base(&ledger, BaseStep::Rows(exported.0[0].clone())).unwrap();
    ledger.sync().unwrap();
    for disk in [disk.crash(), disk.snapshot()] {
        let again = open(disk, 3).unwrap();
        let view = again.snapshot().unwrap();
        assert!(view.is_incomplete().unwrap() && view.applied_seq().unwrap() == Seq(0));
        assert!(matches!(again.apply(&first_blocks()[0]), Err(LedgerError::Invalid { .. })), "half a state takes no block");
        install(&again, &exported).unwrap();
        assert!(!again.snapshot().unwrap().is_incomplete().unwrap());
        // Back to nothing, for a log that is replayed from its beginning.
        base(&again, BaseStep::Begin).unwrap();
        base(&again, BaseStep::End { covers: Seq(0), log: LogHead { size: 0, root: diaspore_block::log::empty_root() } }).unwrap();
        assert_eq!(rows(again.snapshot().unwrap().state().as_ref()), Rows::new());
        for block in first_blocks() {
            again.apply(&block).unwrap();
        }
    }
}

#[test]
fn a_base_that_gives_another_log_is_refused() {
    let (parts, covers, log) = export(&filled(&MemoryMedium::new()));
    let other = LogHead { root: Hash32::from_bytes([9; 32]), ..log };
    let shorter = LogHead { size: log.size - 1, ..log };
    let without = |at: usize| parts.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, part)| part.clone()).collect::<Vec<_>>();
    for wrong in [(parts.clone(), covers, other), (parts.clone(), covers, shorter), (without(1), covers, log)] {
        let ledger = open(MemoryMedium::new(), 2).unwrap();
        assert!(install(&ledger, &wrong).is_err());
        assert!(ledger.snapshot().unwrap().is_incomplete().unwrap());
    }
    let ledger = open(MemoryMedium::new(), 2).unwrap();
    assert!(base(&ledger, BaseStep::Rows(parts[0].clone())).is_err(), "rows outside a base");
    assert!(base(&ledger, BaseStep::End { covers, log }).is_err(), "an end without a beginning");
    let mut foreign = Vec::new();
    Row { table: Table::Meta as u8, key: meta::POSITION, value: b"x" }.put(&mut foreign);
    base(&ledger, BaseStep::Begin).unwrap();
    assert!(base(&ledger, BaseStep::Rows(foreign.into())).is_err(), "a row that is this disk's own");
    assert!(base(&ledger, BaseStep::Rows(Bytes::from_static(b"junk"))).is_err());
}

/// Cuts `rows` as a state is cut.
fn cut(rows: &Rows, before: &[(RowKey, Hash32, u32)]) -> Vec<(RowKey, Hash32, u32)> {
    let cuts: Vec<(RowKey, u32)> = before.iter().map(|(first, _, len)| (first.clone(), *len)).collect();
    let (mut parts, mut from) = (Vec::new(), RowKey::default());
    loop {
        let ahead: Vec<_> = cuts.iter().filter(|(cut, _)| *cut > from).cloned().collect();
        let part = BasePart { rows: 0, plain: Vec::new(), end: None };
        let mut cutter = Cutter { part, cuts: &ahead, middle: None };
        for ((table, key), value) in rows.range((from.table, from.key.clone())..) {
            if cutter.take(Row { table: *table, key, value }).is_break() {
                break;
            }
        }
        let BasePart { plain, end, .. } = cutter.part;
        assert!(plain.len() <= MAX_PART && !plain.is_empty());
        parts.push((from, content_of(&plain), u32::try_from(plain.len()).unwrap()));
        let Some(next) = end else { return parts };
        from = next;
    }
}

fn unchanged(parts: &[(RowKey, Hash32, u32)], before: &[(RowKey, Hash32, u32)]) -> usize {
    parts.iter().filter(|(_, content, _)| before.iter().any(|(_, old, _)| old == content)).count()
}

#[test]
fn parts_keep_their_boundaries_when_others_change() {
    let value = vec![7; 30_000];
    let mut rows: Rows = (0..1000u64).map(|at| ((5, (at * 1000).to_be_bytes().to_vec()), value.clone())).collect();
    rows.extend((0..200u64).map(|at| ((10, at.to_be_bytes().to_vec()), value.clone())));
    let first = cut(&rows, &[]);
    assert!((11..=14).contains(&first.len()), "{}", first.len());
    assert_eq!(cut(&rows, &first), first, "nothing changed, nothing moves");
    // One row more in the middle, and some at the end: two parts are new, and what was added.
    rows.insert((5, 400_500u64.to_be_bytes().to_vec()), value.clone());
    rows.extend((200..230u64).map(|at| ((10, at.to_be_bytes().to_vec()), value.clone())));
    let second = cut(&rows, &first);
    assert_eq!(unchanged(&second, &first), first.len() - 2);
    // A part that grows too long is split, and its neighbours stay.
    rows.extend((0..80u64).map(|at| ((5, (500_001 + at).to_be_bytes().to_vec()), value.clone())));
    let third = cut(&rows, &second);
    assert_eq!((third.len(), unchanged(&third, &second)), (second.len() + 1, second.len() - 1));
    // Where almost everything goes, what is left of neighbours becomes one.
    rows.retain(|(table, key), _| *table == 10 || u64::from_be_bytes(key.as_slice().try_into().unwrap()) % 10_000 == 0);
    let fourth = cut(&rows, &third);
    let fifth = cut(&rows, &fourth);
    assert!(fifth.len() < third.len() - 3, "{} of {}", fifth.len(), third.len());
    assert_eq!(unchanged(&fifth, &third), third.iter().filter(|(first, ..)| first.table == 10).count());
    assert_eq!(cut(&rows, &fifth), fifth);
}
