//! Makes the golden vectors from a fixed seed: a deployment of one tenant, one blob, one bulk and one commit block.

use std::collections::BTreeMap;

use diaspore_block::block::{SignedBlock, encode};
use diaspore_block::commit::CommitBody;
use diaspore_block::erasure::parity;
use diaspore_block::error::Result;
use diaspore_block::geometry::{Geometry, max_payload};
use diaspore_block::id::{
    Attempt, BlockId, BucketId, Counter, Epoch, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId, Timestamp, VersionId,
};
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey, TenantKeys};
use diaspore_block::log::{Checkpoint, KeyName, LogTree, verifier_key};
use diaspore_block::manifest::{BlockKind, BlockPosition, LogState};
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::record::{
    BlobPut, BulkAdded, ChunkEntry, ChunkRef, Class, Content, Encoding, Outcome, Placement, Private, Record, RecordFacts,
};
use diaspore_block::seal::{Context, Salt, SealType, seal_object};
use diaspore_block::section::PayloadBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};

/// Where each shard of a block lies, by index.
pub(crate) const PROVIDERS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Every vector file by its name.
pub(crate) fn files() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut rng = ChaCha20Rng::seed_from_u64(0x6469_6173_706f_7265);
    let mut files = BTreeMap::new();
    let master = MasterKey::draw(&mut rng);
    let tenant = TenantId::draw(&mut rng);
    let keys = Keyring::create(&mut rng).with_tenant(tenant, TenantKeys::draw(&mut rng))?;
    files.insert("master.key".into(), hex::encode(master.expose()).into_bytes());
    let name = KeyringNames::new(&master).keyring(PROVIDERS[0], keys.version);
    let place = KeyringPlace::Provider { provider: PROVIDERS[0], name: &name, version: keys.version };
    files.insert("keyring.sealed".into(), keys.seal(&master, &place, Salt::draw(&mut rng))?);

    let bucket = BucketId::draw(&mut rng);
    let blob: Vec<u8> = b"Wind carries the seed farther than the tree can see. ".iter().copied().cycle().take(5000).collect();
    let (large, small) = blob.split_at(4000);
    let hasher = keys.tenant(tenant)?.dedup.bucket(&bucket);
    let (large_id, small_id) = (hasher.chunk_id(large), hasher.chunk_id(small));
    let geometry = Geometry::new(2, 3)?;
    let incarnation = IncarnationId::draw(&mut rng);
    let position = |kind, rng: &mut ChaCha20Rng| BlockPosition {
        deployment: keys.deployment,
        block: BlockId::draw(rng),
        kind,
        incarnation,
        counter: Counter(0),
        attempt: Attempt(0),
    };

    let at = position(BlockKind::Bulk, &mut rng);
    let mut payload = PayloadBuilder::new(max_payload(2), 0);
    let section = payload.begin(tenant, KeyVersion(1), 9)?;
    let offset = payload.push(large)?;
    let sealed = payload.seal(&at, &keys, &mut rng)?;
    let log = LogState { epoch: Epoch(1), k_floor: 2, ..LogState::default() };
    let bulk = encode(sealed.bytes, geometry, draw(&mut rng))?.sign(at, 0, log, &keys.identity);
    put_shards(&mut files, "bulk", &bulk, &keys, &mut rng)?;
    let entry = ChunkEntry { bucket, id: large_id, section, offset, stored_len: 4000, plain_len: 4000, encoding: Encoding::Raw };
    let added = BulkAdded {
        block: at.block,
        incarnation,
        counter: at.counter,
        attempt: at.attempt,
        geometry,
        code: bulk.manifest().code,
        payload_len: bulk.manifest().payload_len,
        shard_len: bulk.manifest().shard_len,
        block_root: bulk.manifest().block_root,
        shard_roots: bulk.shard_roots().to_vec(),
        manifest_hash: bulk.manifest().hash(),
        placements: (0u8..).zip(PROVIDERS).map(|(shard, p)| Placement { shard, provider: p.into(), acked: true }).collect(),
        sections: sealed.sections,
        chunks: vec![entry],
    };
    let refs = vec![ChunkRef { id: large_id, len: 4000 }, ChunkRef { id: small_id, len: 1000 }];
    let version = VersionId::draw(&mut rng);
    let put = BlobPut {
        bucket,
        key: b"letters/\xffseed".to_vec(),
        version,
        size: 5000,
        content_type: Some("text/plain".into()),
        metadata: vec![("author".into(), "vector".into())],
        sha256: None,
        etag: [0xe7; 16],
        class: Class::Quorum,
        content: Content { depth: 0, refs },
        idempotency: None,
    };
    let mut body = CommitBody::new();
    for (subject, private) in [(SubjectId::from(at.block), Private::from(added)), (version.into(), put.into())] {
        let record = Record::new(facts(tenant, subject), private, draw(&mut rng), keys.reference_key(tenant)?);
        body.push_record(record, KeyVersion(1))?;
    }
    body.push_chunk(tenant, KeyVersion(1), bucket, small_id, (1000, Encoding::Raw), small)?;
    let at = position(BlockKind::Commit, &mut rng);
    let (sealed, first) = body.seal(&at, &keys, max_payload(2), &mut rng)?;
    let mut tree = LogTree::new();
    for leaf in body.leaves() {
        tree.append(leaf);
    }
    let log = LogState { seq: Seq(1), log_size: tree.size(), log_root: tree.root(), ..log };
    let commit = encode(sealed.bytes, geometry, draw(&mut rng))?.sign(at, first, log, &keys.identity);
    put_shards(&mut files, "commit", &commit, &keys, &mut rng)?;
    let origin = KeyName::of(keys.deployment);
    let vkey = verifier_key(&origin, &keys.identity.public());
    let checkpoint = Checkpoint { origin, size: tree.size(), root: tree.root() }.sign(&keys.identity);
    files.insert("checkpoint.note".into(), checkpoint.into_bytes());

    let blocks = ["commit", "bulk"].map(|kind| {
        let shards = [0, 1, 2].map(|i| format!("{kind}-{i}.shard"));
        json!({
            "kind": kind, "incarnation": hex::encode(incarnation.as_bytes()), "counter": 0, "attempt": 0,
            "k": 2, "shards": shards,
        })
    });
    let index = json!({
        "about": "made by: cargo run -p diaspore-block --example vectors -- tests/vectors",
        "master_key": "master.key", "keyring": {"file": "keyring.sealed", "provider": PROVIDERS[0], "version": keys.version}, "checkpoint": "checkpoint.note", "vkey": vkey,
        "log_public_key": hex::encode(keys.identity.public().as_bytes()),
        "providers": PROVIDERS,
        "blocks": blocks,
        "blob": {"key": hex::encode(b"letters/\xffseed"), "file": "blob.bin"},
        "seal": seal_vectors(&mut rng)?, "code": code_vectors()?, "bad": bad_vectors(),
    });
    files.insert("blob.bin".into(), blob);
    files.insert("vectors.json".into(), pretty(&index));
    Ok(files)
}

fn facts(tenant: TenantId, subject: SubjectId) -> RecordFacts {
    let time = Timestamp(1_790_000_000_000);
    RecordFacts { tenant, subject, principal: PrincipalId::NIL, time, class: Class::Quorum, outcome: Outcome::Done }
}

fn draw(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

fn put_shards(files: &mut BTreeMap<String, Vec<u8>>, kind: &str, block: &SignedBlock, keys: &Keyring, rng: &mut ChaCha20Rng) -> Result<()> {
    let names = Names::new(&keys.name);
    let at = block.manifest().position;
    for (index, provider) in (0u8..).zip(PROVIDERS) {
        let address = ShardAddress { provider, kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt };
        let object = block.object(index, provider, &names.shard(&address), &keys.header, rng)?;
        files.insert(format!("{kind}-{index}.shard"), object.concat());
    }
    Ok(())
}

/// SEAL alone: lengths around the edges of segments of 512 bytes.
fn seal_vectors(rng: &mut ChaCha20Rng) -> Result<Vec<Value>> {
    let deployment = diaspore_block::id::DeploymentId::from_bytes([0xd1; 16]);
    let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap_or(0));
    let context = Context::new(SealType::Section, deployment).segments(9).field(b"meaning");
    [0usize, 1, 511, 512, 513, 1100]
        .into_iter()
        .map(|len| {
            let plain: Vec<u8> = (0u8..=250).cycle().take(len).collect();
            let sealed = seal_object(&key, Salt::draw(rng), &context, &plain)?;
            Ok(json!({
                "key": hex::encode(key), "type": 1, "deployment": hex::encode(deployment.as_bytes()), "segment_log2": 9,
                "meaning": hex::encode(b"meaning"), "plain": hex::encode(plain), "sealed": hex::encode(sealed),
            }))
        })
        .collect()
}

/// Parity of short shards in several geometries.
fn code_vectors() -> Result<Vec<Value>> {
    [(1u8, 3u8), (2, 3), (3, 5), (3, 6), (4, 6), (10, 14), (20, 32)]
        .into_iter()
        .map(|(k, n)| {
            let data: Vec<Vec<u8>> = (0..k).map(|i| (0u8..17).map(|b| b.wrapping_mul(31) ^ i.wrapping_mul(77) ^ 0x5a).collect()).collect();
            let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let parity = parity(Geometry::new(k, n)?, &slices, 17)?;
            Ok(json!({"k": k, "n": n, "data": hex::encode(data.concat()), "parity": hex::encode(parity)}))
        })
        .collect()
}

/// What must be refused: a shard file, how its bytes are altered, and where it claims to lie.
fn bad_vectors() -> Vec<Value> {
    let altered = |why: &str, file: &str, change: Value| json!({"why": why, "file": file, "change": change});
    let moved = |why: &str, file: &str, place: Value| json!({"why": why, "file": file, "place": place});
    vec![
        altered("flipped byte in the header's salt", "bulk-0.shard", json!({"flip": 3})),
        altered("flipped byte in the header's commitment", "bulk-0.shard", json!({"flip": 30})),
        altered("flipped byte in the sealed manifest", "bulk-0.shard", json!({"flip": 100})),
        altered("flipped byte in the header's tag", "bulk-0.shard", json!({"flip": 2047})),
        altered("flipped byte in the body", "bulk-1.shard", json!({"flip": 2100})),
        altered("flipped byte in the last byte of the body", "bulk-2.shard", json!({"flip": 3990})),
        altered("flipped byte in the leaf list", "commit-0.shard", json!({"flip": -5})),
        altered("truncated by one byte", "bulk-0.shard", json!({"cut": 1})),
        altered("truncated to its header", "bulk-0.shard", json!({"keep": 2048})),
        altered("empty", "bulk-0.shard", json!({"keep": 0})),
        altered("one byte longer", "bulk-0.shard", json!({"append": 1})),
        moved("another provider's object", "bulk-0.shard", json!({"provider": "beta"})),
        moved("another attempt", "commit-1.shard", json!({"attempt": 1})),
        moved("another counter", "commit-1.shard", json!({"counter": 1})),
        moved("another incarnation", "commit-2.shard", json!({"incarnation": "00000000000000000000000000000000"})),
        moved("another kind", "bulk-0.shard", json!({"kind": "commit"})),
        moved("another deployment", "bulk-0.shard", json!({"deployment": "00000000000000000000000000000000"})),
    ]
}
