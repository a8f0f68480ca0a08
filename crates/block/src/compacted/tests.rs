use super::*;
use crate::block::encode;
use crate::test_world::{World, bytes};

fn block_ref() -> BlockRef {
    BlockRef {
        block: BlockId::from_bytes([1; 16]),
        incarnation: IncarnationId::from_bytes([2; 16]),
        counter: Counter(3),
        attempt: Attempt(0),
        geometry: Geometry::new(2, 3).unwrap(),
        manifest_hash: Hash32::from_bytes([4; 32]),
    }
}

fn part(first: RowKey, rows: &[(u8, &[u8], &[u8])]) -> (PartInfo, Vec<u8>, Vec<u8>) {
    let mut plain = Vec::new();
    for (table, key, value) in rows {
        let row = Row { table: *table, key, value };
        let before = plain.len();
        row.put(&mut plain);
        assert_eq!(plain.len() - before, row.len());
    }
    let (encoding, stored) = pack(&plain).unwrap();
    let info = PartInfo {
        first,
        rows: u32::try_from(rows.len()).unwrap(),
        plain_len: u32::try_from(plain.len()).unwrap(),
        encoding,
        content: content_of(&plain),
        block: block_ref(),
    };
    (info, stored, plain)
}

fn root(parts: Vec<PartInfo>) -> CompactedRoot {
    CompactedRoot {
        covers: Seq(9),
        incarnation: IncarnationId::from_bytes([5; 16]),
        counter: Counter(8),
        log_size: 40,
        log_root: Hash32::from_bytes([6; 32]),
        acked_through: Seq(10),
        parts,
    }
}

const ROWS: [(u8, &[u8], &[u8]); 3] = [(0, b"applied", b"9"), (5, b"a", b""), (5, b"b", b"value")];

#[test]
fn a_part_comes_back_and_nothing_else_passes_for_it() {
    let long = vec![b'x'; 300_000];
    for rows in [ROWS, [(0, b"applied", b"9"), (5, b"a", &long), (5, b"b", b"value")]] {
        let (info, stored, plain) = part(RowKey::default(), &rows);
        assert_eq!(info.encoding == Encoding::ZstdFramed, plain.len() > 1000);
        let end = RowKey { table: 5, key: b"c".to_vec() };
        assert_eq!(info.unpack(stored.clone(), Some(&end)).unwrap(), plain);
        let mut seen = Vec::new();
        each_row::<BlockError>(&plain, |row| {
            seen.push((row.table, row.key.to_vec(), row.value.to_vec()));
            Ok(())
        })
        .unwrap();
        assert!(seen.iter().zip(&rows).all(|(seen, row)| seen.0 == row.0 && seen.1 == row.1 && seen.2 == row.2));
        // Outside its range, at either end.
        let short = RowKey { table: 5, key: b"b".to_vec() };
        assert!(info.unpack(stored.clone(), Some(&short)).is_err());
        let late = PartInfo { first: RowKey { table: 1, key: Vec::new() }, ..info.clone() };
        assert!(late.unpack(stored.clone(), None).is_err());
        for wrong in [PartInfo { rows: 4, ..info.clone() }, PartInfo { plain_len: 1, ..info.clone() }] {
            assert!(wrong.unpack(stored.clone(), None).is_err());
        }
        for at in (0..stored.len()).step_by(13) {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            assert!(info.unpack(flipped, None).is_err(), "byte {at}");
        }
    }
}

#[test]
fn rows_out_of_order_or_twice_are_refused() {
    for rows in [[ROWS[1], ROWS[0], ROWS[2]], [ROWS[0], ROWS[1], ROWS[1]], [ROWS[0], ROWS[2], ROWS[1]]] {
        let (info, stored, _) = part(RowKey::default(), &rows);
        assert!(info.unpack(stored, None).is_err());
    }
}

#[test]
fn a_root_comes_back_and_numbers_that_do_not_fit_are_refused() {
    let (first, ..) = part(RowKey::default(), &ROWS);
    let next = PartInfo { first: RowKey { table: 5, key: b"c".to_vec() }, ..first.clone() };
    let good = root(vec![first.clone(), next.clone()]);
    let bytes = good.to_bytes().unwrap();
    assert_eq!(CompactedRoot::from_bytes(&bytes).unwrap(), good);
    assert_eq!((good.end_of(0), good.end_of(1)), (Some(&next.first), None));
    for cut in 0..bytes.len() {
        assert!(CompactedRoot::from_bytes(&bytes[..cut]).is_err());
    }
    assert!(CompactedRoot::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    let newer = [&[COMPACTED_VERSION + 1], &bytes[1..]].concat();
    assert!(matches!(CompactedRoot::from_bytes(&newer), Err(BlockError::Unsupported { .. })));
    let refused = |change: &dyn Fn(&mut CompactedRoot)| {
        let mut changed = good.clone();
        change(&mut changed);
        let mut bytes = vec![COMPACTED_VERSION];
        changed.put(&mut bytes);
        changed.to_bytes().is_err() && CompactedRoot::from_bytes(&bytes).is_err()
    };
    assert!(refused(&|root| root.covers = Seq(0)));
    assert!(refused(&|root| root.covers = Seq(11)));
    assert!(refused(&|root| root.log_size = 0));
    assert!(refused(&|root| root.parts.reverse()));
    assert!(refused(&|root| root.parts.clear()));
    assert!(refused(&|root| drop(root.parts.remove(0))));
    assert!(refused(&|root| root.parts[1].plain_len = 0));
    assert!(refused(&|root| root.parts[1].plain_len = u32::try_from(MAX_PART).unwrap() + 1));
    assert!(refused(&|root| root.parts[1].block.attempt = Attempt(4)));
}

#[test]
fn the_longest_part_fits_the_narrowest_block_and_opens_in_its_place_only() {
    let mut world = World::new(7);
    let plain = bytes(1, MAX_PART);
    let at = world.position(BlockKind::Compacted);
    let sealed = seal(&plain, &at, 1, &world.keys, &mut world.rng).unwrap();
    assert!(sealed.bytes.len() <= max_payload(1));
    let coded = encode(sealed.bytes.clone(), Geometry::new(1, 2).unwrap(), [9; 32]).unwrap();
    let block = coded.sign(at, 0, World::log(BlockKind::Compacted), &world.keys.identity);
    assert_eq!(open(block.manifest(), &block.payload(), &world.keys).unwrap(), plain);
    assert_eq!(BlockRef::of(block.manifest()).manifest_hash, block.manifest().hash());
    let mut elsewhere = block.manifest().clone();
    elsewhere.position.counter = Counter(8);
    assert!(open(&elsewhere, &block.payload(), &world.keys).is_err());
    let mut bulk = block.manifest().clone();
    bulk.position.kind = BlockKind::Bulk;
    assert!(open(&bulk, &block.payload(), &world.keys).is_err());
    assert!(open(block.manifest(), &sealed.bytes[..55], &world.keys).is_err());
    assert!(seal(&bytes(1, max_payload(1)), &at, 1, &world.keys, &mut world.rng).is_err());
}
