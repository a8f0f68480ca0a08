//! The second incarnation: it takes over, steps its geometry down, packs a chunk and scatters one over 32 providers.
//!
//! Drawn from a generator of its own, so that adding to it leaves the files of the first incarnation as they are.

use diaspore_block::block::encode;
use diaspore_block::error::Result;
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{BucketId, Epoch, IncarnationId, TenantId};
use diaspore_block::log::Checkpoint;
use diaspore_block::manifest::{BlockKind, LogState};
use diaspore_block::name::Names;
use diaspore_block::record::{Content, Decision};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::{Deployment, House, INCARNATION, PROVIDERS, Writer, draw};

const TURN: IncarnationId = IncarnationId::from_bytes([0x1d; 16]);

/// The stored form of [`lines`], as one build of zstd packed it once. Readers must open it for ever; writers may pack otherwise.
const COMPRESSED: &[u8] = include_bytes!("../../../../tests/vectors/compressed.chunk");

/// A text of 99,000 bytes that compresses: two frames.
fn lines() -> Vec<u8> {
    (0u32..)
        .flat_map(|line| format!("seed {line} fell {} steps from its tree\n", line.wrapping_mul(2_654_435_761) >> 20).into_bytes())
        .take(99_000)
        .collect()
}

/// Adds its blocks and blobs.
pub(super) fn add(
    made: &mut Deployment,
    houses: [(TenantId, BucketId); 2],
    checkpoint: &Checkpoint,
    blobs: &mut Vec<(Vec<u8>, &'static str)>,
) -> Result<()> {
    let before = std::mem::replace(&mut made.rng, ChaCha20Rng::seed_from_u64(0x6c61_7465_7200));
    made.writer = Writer { incarnation: TURN, epoch: Epoch(3), k_floor: 2, geometry: Geometry::new(3, 4)? };
    let decision = Decision {
        predecessor: Some((INCARNATION, Epoch(2))),
        last_valid: made.seq,
        log_size: checkpoint.size,
        log_root: checkpoint.root,
        carried: Vec::new(),
        passed_over: Vec::new(),
        lost_declared: Vec::new(),
        may_have_lost: Vec::new(),
    };
    made.decide("turn", decision)?;
    // One domain fewer: k steps down to its floor.
    made.writer.geometry = Geometry::new(2, 3)?;
    let house = |(tenant, bucket)| House { tenant, bucket, records: Vec::new(), chunks: Vec::new() };
    let [mut first, mut second] = houses.map(house);

    let lines = lines();
    let refs = vec![first.stored_in_bulk(made, "packed", 13, (&lines, Some(COMPRESSED)))?];
    first.put(made, b"packed", &lines, Content { depth: 0, refs })?;
    let refs = vec![second.stored_small(made, (&lines, Some(COMPRESSED)))?];
    second.put(made, b"small", &lines, Content { depth: 0, refs })?;

    let mut spores = vec![0; 134_000];
    blake3::Hasher::new().update(b"spores").finalize_xof().fill(&mut spores);
    let refs = vec![second.scattered(made, "broad", 16, (&spores, None), (Geometry::new(2, 32)?, &[0, 17, 31]))?];
    second.put(made, b"broad", &spores, Content { depth: 0, refs })?;
    // As many records as the second tenant's, since a commit takes them in turns.
    let refs = vec![first.stored_small(made, (b"seed", None))?];
    first.put(made, b"seed", b"seed", Content { depth: 0, refs })?;
    made.commit("later", 1, [first, second])?;
    forge_floor(made)?;
    blobs.extend([(lines.clone(), "7061636b6564"), (lines, "736d616c6c"), (spores, "62726f6164"), (b"seed".to_vec(), "73656564")]);
    made.rng = before;
    Ok(())
}

/// A shard in the place of `packed-0.shard` whose writer names a k floor above its k.
fn forge_floor(made: &mut Deployment) -> Result<()> {
    let at = made.at(BlockKind::Bulk, 0);
    let log = LogState { epoch: Epoch(3), k_floor: 3, ..LogState::default() };
    let block = encode(b"floor".to_vec(), Geometry::new(2, 3)?, draw(&mut made.rng))?.sign(at, 0, log, &made.keys.identity);
    let name = Names::new(&made.keys.name).bulk(PROVIDERS[0], at.incarnation, at.counter, at.attempt);
    let object = block.object(0, PROVIDERS[0], &name, &made.keys.header, &mut made.rng)?;
    made.files.insert("floor.shard".into(), object.concat());
    Ok(())
}
