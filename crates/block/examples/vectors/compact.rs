//! The compacted log of what the first incarnation wrote: two parts, their root, and the head that announces it.
//!
//! Drawn from a generator of its own, like [`later`](super::later).

use diaspore_block::block::encode;
use diaspore_block::claim::Head;
use diaspore_block::compacted::{self, BlockRef, CompactedRoot, PartInfo, Row, RowKey};
use diaspore_block::error::Result;
use diaspore_block::id::Counter;
use diaspore_block::log::Checkpoint;
use diaspore_block::manifest::{BlockKind, LogState};
use diaspore_block::name::Names;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};

use super::{Deployment, INCARNATION, PROVIDERS, draw};

/// The table of leaves.
const LEAVES: u8 = 10;
/// Leaves in the first part.
const CUT: u64 = 5;

/// Adds blocks and head. Gives what the index says about the head.
pub(super) fn add(made: &mut Deployment, checkpoint: &Checkpoint) -> Result<Value> {
    let before = std::mem::replace(&mut made.rng, ChaCha20Rng::seed_from_u64(0x636f_6d70_6163_7400));
    let leaf = |(index, leaf): (u64, &[u8; 128])| (LEAVES, index.to_be_bytes().to_vec(), leaf.to_vec());
    let mut rows = vec![(0, b"totals".to_vec(), vec![0; 124])];
    rows.extend((0..).zip(&made.leaves).map(leaf));
    let cut = RowKey { table: LEAVES, key: CUT.to_be_bytes().to_vec() };
    let (early, late): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(table, key, _)| (*table, key) < (cut.table, &cut.key));
    let mut parts = Vec::new();
    for (label, first, rows) in [("part-a", RowKey::default(), early), ("part-b", cut, late)] {
        let mut plain = Vec::new();
        for (table, key, value) in &rows {
            Row { table: *table, key, value }.put(&mut plain);
        }
        let (encoding, stored) = compacted::pack(&plain)?;
        let block = scatter(made, label, &stored)?;
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        parts.push(PartInfo {
            first,
            rows: len(rows.len()),
            plain_len: len(plain.len()),
            encoding,
            content: compacted::content_of(&plain),
            block,
        });
    }
    let root = CompactedRoot {
        covers: made.seq,
        incarnation: INCARNATION,
        counter: Counter(1),
        log_size: checkpoint.size,
        log_root: checkpoint.root,
        acked_through: made.seq,
        parts,
    };
    let root = scatter(made, "root", &root.to_bytes()?)?;
    let head = Head {
        deployment: made.keys.deployment,
        covers: made.seq,
        acked_through: made.seq,
        settled_through: made.seq,
        checkpoint: checkpoint.sign(&made.keys.identity),
        root,
    };
    let name = Names::new(&made.keys.name).head(PROVIDERS[1], INCARNATION, head.root.counter);
    let sealed = head.seal(&made.keys.head, &made.keys.identity, (PROVIDERS[1], &name), &mut made.rng)?;
    made.files.insert("head.sealed".into(), sealed);
    made.rng = before;
    let (incarnation, name) = (hex::encode(INCARNATION.as_bytes()), name.as_str());
    Ok(json!({
        "file": "head.sealed", "provider": PROVIDERS[1], "incarnation": incarnation, "counter": head.root.counter.0, "name": name,
        "covers": head.covers.0, "acked_through": head.acked_through.0, "settled_through": head.settled_through.0,
        "rows": made.leaves.len() + 1,
    }))
}

/// One block of kind 4 with its shards as files.
fn scatter(made: &mut Deployment, label: &str, plain: &[u8]) -> Result<BlockRef> {
    let incarnation = hex::encode(made.writer.incarnation.as_bytes());
    let bulks = made.blocks.iter().filter(|block| block["kind"] == "bulk" && block["incarnation"] == incarnation.as_str()).count();
    let at = made.at(BlockKind::Compacted, bulks as u64);
    let geometry = made.writer.geometry;
    let sealed = compacted::seal(plain, &at, geometry.k(), &made.keys, &mut made.rng)?;
    let log = LogState { epoch: made.writer.epoch, k_floor: made.writer.k_floor, ..LogState::default() };
    let block = encode(sealed.bytes, geometry, draw(&mut made.rng))?.sign(at, 0, log, &made.keys.identity);
    made.put_shards(label, &block, &(0..geometry.n()).collect::<Vec<u8>>())?;
    Ok(BlockRef::of(block.manifest()))
}
