//! Makes the golden vectors from a fixed seed: a deployment of two tenants with a blob each, a decision block, a commit block and two
//! bulk blocks. [`compact`] adds their compacted log, [`later`] a second incarnation.

mod compact;
mod later;
mod refused;

use std::collections::BTreeMap;

use diaspore_block::block::{SignedBlock, encode};
use diaspore_block::claim::Claim;
use diaspore_block::commit::CommitBody;
use diaspore_block::erasure::parity;
use diaspore_block::error::{BlockError, Result};
use diaspore_block::geometry::{Geometry, max_payload};
use diaspore_block::id::{
    Attempt, BlockId, BucketId, ChunkId, Counter, Epoch, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId,
    Timestamp, VersionId,
};
use diaspore_block::key::{Keyring, KeyringPlace, LogIdentity, MasterKey, TenantKeys};
use diaspore_block::log::{Checkpoint, KeyName, LogTree, consistency_proof, empty_root, inclusion_proof, verifier_key};
use diaspore_block::manifest::{BlockKind, BlockPosition, LogState};
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::record::{
    BlobPut, BucketCreated, BulkAdded, ChunkEntry, ChunkRef, Class, Content, Decision, Encoding, Outcome, Placement, Private, Record,
    RecordFacts, ServiceStarted, TenantCreated,
};
use diaspore_block::seal::{Context, Salt, SealType, seal_object};
use diaspore_block::section::PayloadBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use sha2::Digest;

/// Where the files of a block's shards lie, in order.
pub(crate) const PROVIDERS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

const INCARNATION: IncarnationId = IncarnationId::from_bytes([0x1c; 16]);

/// Who writes, and in which shape.
#[derive(Clone, Copy)]
struct Writer {
    incarnation: IncarnationId,
    epoch: Epoch,
    k_floor: u8,
    geometry: Geometry,
}

/// A chunk on its way into a block: its plain bytes, and the stored ones where they differ.
type Chunk<'a> = (&'a [u8], Option<&'a [u8]>);

/// A deployment under construction.
struct Deployment {
    rng: ChaCha20Rng,
    keys: Keyring,
    writer: Writer,
    files: BTreeMap<String, Vec<u8>>,
    blocks: Vec<Value>,
    tree: LogTree,
    nodes: BTreeMap<(u8, u64), Hash32>,
    /// Public parts of all records so far.
    leaves: Vec<[u8; 128]>,
    seq: Seq,
}

/// A tenant and its one bucket.
struct House {
    tenant: TenantId,
    bucket: BucketId,
    records: Vec<Record>,
    chunks: Vec<(ChunkId, u32, Encoding, Vec<u8>)>,
}

/// Every vector file by its name.
pub(crate) fn files() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut rng = ChaCha20Rng::seed_from_u64(0x6469_6173_706f_7265);
    let master = MasterKey::draw(&mut rng);
    let tenants = [TenantId::draw(&mut rng), TenantId::draw(&mut rng)];
    let mut keys = Keyring::create(&mut rng);
    for tenant in tenants {
        keys = keys.with_tenant(tenant, TenantKeys::draw(&mut rng))?;
    }
    let name = KeyringNames::new(&master).keyring(PROVIDERS[0], keys.version);
    let place = KeyringPlace::Provider { provider: PROVIDERS[0], name: &name, version: keys.version };
    let sealed = keys.seal(&master, &place, Salt::draw(&mut rng))?;
    let writer = Writer { incarnation: INCARNATION, epoch: Epoch(2), k_floor: 2, geometry: Geometry::new(2, 3)? };
    let (tree, nodes) = (LogTree::new(), BTreeMap::new());
    let mut made =
        Deployment { rng, keys, writer, files: BTreeMap::new(), blocks: Vec::new(), tree, nodes, leaves: Vec::new(), seq: Seq(0) };
    made.files.insert("master.key".into(), hex::encode(master.expose()).into_bytes());
    made.files.insert("keyring.sealed".into(), sealed);
    let claim = made.claim()?;
    made.decision()?;
    let checkpoint_before = made.checkpoint();

    let letters: Vec<u8> = b"Wind carries the seed farther than the tree can see. ".iter().copied().cycle().take(5000).collect();
    let (large, small) = letters.split_at(4000);
    let mut first = made.house(tenants[0], "letters")?;
    let chunks = [first.stored_in_bulk(&mut made, "bulk", 9, (large, None))?, first.stored_small(&made, (small, None))?];
    first.put(&mut made, b"letters/\xffseed", &letters, Content { depth: 0, refs: chunks.into() })?;

    let mut pollen = vec![0; 159_000];
    blake3::Hasher::new().update(b"pollen").finalize_xof().fill(&mut pollen);
    let (large, small) = pollen.split_at(150_000);
    let mut second = made.house(tenants[1], "pollen")?;
    let refs = [second.stored_in_bulk(&mut made, "wide", 16, (large, None))?, second.stored_small(&made, (small, None))?];
    let list = second.stored_small(&made, (&Content::encode_list(&refs), None))?;
    let whole = ChunkRef { id: list.id, len: 159_000 };
    second.put(&mut made, b"pollen", &pollen, Content { depth: 1, refs: vec![whole] })?;

    let proven = made.tree.size() + 4;
    let houses = [(first.tenant, first.bucket), (second.tenant, second.bucket)];
    made.commit("commit", 1, [first, second])?;
    let proof = Proof { checkpoint: made.checkpoint(), before: checkpoint_before, proven };
    let mut blobs = vec![(letters, "6c6574746572732fff73656564"), (pollen, "706f6c6c656e")];
    let head = compact::add(&mut made, &proof.checkpoint)?;
    later::add(&mut made, houses, &proof.checkpoint, &mut blobs)?;
    let index = made.index((&claim, &head), &proof, &blobs)?;
    made.files.insert("vectors.json".into(), pretty(&index));
    Ok(made.files)
}

/// Which attempt of a block counted: seldom the first alone, so that its place in names and seals is pinned down.
fn attempt_of(label: &str) -> Attempt {
    Attempt(match label {
        "broad" => 2,
        "later" => 3,
        _ => 0,
    })
}

/// What is proven about the log of the first incarnation.
struct Proof {
    checkpoint: Checkpoint,
    before: Checkpoint,
    proven: u64,
}

impl Deployment {
    fn at(&mut self, kind: BlockKind, counter: u64) -> BlockPosition {
        let block = BlockId::draw(&mut self.rng);
        let deployment = self.keys.deployment;
        BlockPosition { deployment, block, kind, incarnation: self.writer.incarnation, counter: Counter(counter), attempt: Attempt(0) }
    }

    fn claim(&mut self) -> Result<Value> {
        let claim = Claim {
            deployment: self.keys.deployment,
            epoch: Epoch(2),
            incarnation: INCARNATION,
            started: Timestamp(1_790_000_000_000),
            lease_ms: 3000,
            claim_quorum: 2,
            claims_seen: vec![(Epoch(1), IncarnationId::from_bytes([0x1b; 16]))],
            providers: PROVIDERS.iter().take(3).map(ToString::to_string).collect(),
            geometry: Geometry::new(2, 3)?,
            k_floor: 2,
            window: 4,
        };
        let name = Names::new(&self.keys.name).claim(PROVIDERS[0], INCARNATION, claim.epoch);
        let sealed = claim.seal(&self.keys.head, &self.keys.identity, (PROVIDERS[0], &name), &mut self.rng)?;
        self.files.insert("claim.sealed".into(), sealed);
        let (incarnation, name) = (hex::encode(INCARNATION.as_bytes()), name.as_str());
        Ok(json!({"file": "claim.sealed", "provider": PROVIDERS[0], "epoch": 2, "incarnation": incarnation, "name": name}))
    }

    fn record(&mut self, tenant: TenantId, subject: SubjectId, private: Private) -> Result<Record> {
        let blind = draw(&mut self.rng);
        Ok(Record::new(facts(tenant, subject), private, blind, self.keys.reference_key(tenant)?))
    }

    fn house(&mut self, tenant: TenantId, name: &str) -> Result<House> {
        let bucket = BucketId::draw(&mut self.rng);
        let created = TenantCreated { tenant, name: name.into() };
        let named = BucketCreated { bucket, name: name.into(), key_version: KeyVersion(1) };
        let records = vec![self.record(tenant, tenant.into(), created.into())?, self.record(tenant, bucket.into(), named.into())?];
        Ok(House { tenant, bucket, records, chunks: Vec::new() })
    }

    /// The first block: nobody wrote before.
    fn decision(&mut self) -> Result<()> {
        let decision = Decision {
            predecessor: None,
            last_valid: Seq(0),
            log_size: 0,
            log_root: empty_root(),
            carried: Vec::new(),
            passed_over: vec![IncarnationId::from_bytes([0x1b; 16])],
            lost_declared: Vec::new(),
            may_have_lost: Vec::new(),
        };
        self.decide("decision", decision)
    }

    fn decide(&mut self, label: &str, decision: Decision) -> Result<()> {
        let incarnation = self.writer.incarnation;
        let started = ServiceStarted { incarnation, version: "vectors".into() };
        let mut body = CommitBody::new();
        for private in [Private::from(decision), started.into()] {
            body.push_record(self.record(TenantId::SYSTEM, incarnation.into(), private)?, KeyVersion(0))?;
        }
        self.publish(label, BlockKind::Decision, 0, &body)
    }

    fn commit(&mut self, label: &str, counter: u64, houses: [House; 2]) -> Result<()> {
        let mut body = CommitBody::new();
        let [first, second] = houses;
        for record in first.records.iter().zip(&second.records).flat_map(|(a, b)| [a, b]) {
            body.push_record(record.clone(), KeyVersion(1))?;
        }
        for house in [first, second] {
            for (id, plain_len, encoding, stored) in &house.chunks {
                body.push_chunk(house.tenant, KeyVersion(1), house.bucket, *id, (*plain_len, *encoding), stored)?;
            }
        }
        self.publish(label, BlockKind::Commit, counter, &body)
    }

    fn publish(&mut self, label: &str, kind: BlockKind, counter: u64, body: &CommitBody) -> Result<()> {
        let at = BlockPosition { attempt: attempt_of(label), ..self.at(kind, counter) };
        let (sealed, first) = body.seal(&at, &self.keys, max_payload(2), &mut self.rng)?;
        self.leaves.extend(body.records().iter().map(|record| record.public().encode()));
        for leaf in body.leaves() {
            self.nodes.extend(self.tree.append(leaf).into_iter().map(|(level, index, hash)| ((level, index), hash)));
        }
        let acked_through = self.seq;
        self.seq = self.seq.next();
        let (log_size, log_root) = (self.tree.size(), self.tree.root());
        let Writer { epoch, k_floor, geometry, .. } = self.writer;
        let log = LogState { epoch, seq: self.seq, log_size, log_root, acked_through, settled_through: Seq(0), k_floor };
        let block = encode(sealed.bytes, geometry, draw(&mut self.rng))?.sign(at, first, log, &self.keys.identity);
        self.put_shards(label, &block, &(0..geometry.n()).collect::<Vec<u8>>())
    }

    /// Files of these shards, each at the next provider.
    fn put_shards(&mut self, label: &str, block: &SignedBlock, indexes: &[u8]) -> Result<()> {
        let names = Names::new(&self.keys.name);
        let at = block.manifest().position;
        let mut shards = Vec::new();
        for (&index, (file, provider)) in indexes.iter().zip(PROVIDERS.iter().enumerate()) {
            let address = ShardAddress { provider, kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt };
            let object = block.object(index, provider, &names.shard(&address), &self.keys.header, &mut self.rng)?;
            shards.push(format!("{label}-{file}.shard"));
            self.files.insert(format!("{label}-{file}.shard"), object.concat());
        }
        let class = if at.kind.has_records() { "commit" } else { "bulk" };
        self.blocks.push(json!({
            "label": label, "kind": class, "incarnation": hex::encode(at.incarnation.as_bytes()), "counter": at.counter.0, "attempt": at.attempt.0,
            "shards": shards,
        }));
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: KeyName::of(self.keys.deployment), size: self.tree.size(), root: self.tree.root() }
    }

    fn index(&mut self, (claim, head): (&Value, &Value), proof: &Proof, blobs: &[(Vec<u8>, &str)]) -> Result<Value> {
        let Proof { checkpoint, before, proven } = proof;
        let vkey = verifier_key(&checkpoint.origin, &self.keys.identity.public());
        let note = checkpoint.sign(&self.keys.identity);
        let node = |level: u8, index: u64| self.nodes.get(&(level, index)).copied().ok_or(BlockError::Invalid { what: "node" });
        let inclusion = inclusion_proof(*proven, checkpoint.size, node)?;
        let leaf = node(0, *proven)?;
        let consistency = consistency_proof(before.size, checkpoint.size, node)?;
        let hexes = |path: &[Hash32]| path.iter().map(ToString::to_string).collect::<Vec<_>>();
        let proofs = json!({
            "size": checkpoint.size, "root": checkpoint.root.to_string(),
            "inclusion": {"index": proven, "leaf": leaf.to_string(), "path": hexes(&inclusion.path)},
            "consistency": {"old_size": before.size, "old_root": before.root.to_string(), "path": hexes(&consistency.path)},
        });
        let bad_notes = refused::notes(&note, before, &self.keys);
        self.files.insert("checkpoint.note".into(), note.into_bytes());
        let blob =
            |(blob, key): &(Vec<u8>, &str)| json!({"key": key, "size": blob.len(), "sha256": hex::encode(sha2::Sha256::digest(blob))});
        let blobs: Vec<Value> = blobs.iter().map(blob).collect();
        Ok(json!({
            "about": "made by: cargo run -p diaspore-block --example vectors -- tests/vectors",
            "master_key": "master.key",
            "keyring": {"file": "keyring.sealed", "provider": PROVIDERS[0], "version": self.keys.version},
            "claim": claim, "head": head, "checkpoint": "checkpoint.note", "vkey": vkey,
            "log_public_key": hex::encode(self.keys.identity.public().as_bytes()),
            "providers": PROVIDERS, "blocks": self.blocks, "blobs": blobs, "proofs": proofs,
            "seal": seal_vectors(&mut self.rng)?, "code": code_vectors()?, "bad": refused::shards(),
            "bad_notes": bad_notes, "bad_bytes": refused::bytes(), "bad_sections": refused::sections(), "bad_frames": refused::frames(),
        }))
    }
}

impl House {
    fn reference(&self, made: &Deployment, plain: &[u8]) -> Result<ChunkRef> {
        let id = made.keys.tenant(self.tenant)?.dedup.bucket(&self.bucket).chunk_id(plain);
        Ok(ChunkRef { id, len: plain.len() as u64 })
    }

    /// A chunk that rides in the commit block.
    fn stored_small(&mut self, made: &Deployment, (plain, stored): Chunk<'_>) -> Result<ChunkRef> {
        let reference = self.reference(made, plain)?;
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        self.chunks.push((reference.id, plain_len, encoding_of(stored), stored.unwrap_or(plain).to_vec()));
        Ok(reference)
    }

    /// A chunk in a bulk block of its own.
    fn stored_in_bulk(&mut self, made: &mut Deployment, label: &str, seg_log2: u8, chunk: Chunk<'_>) -> Result<ChunkRef> {
        let geometry = made.writer.geometry;
        self.scattered(made, label, seg_log2, chunk, (geometry, &(0..geometry.n()).collect::<Vec<u8>>()))
    }

    /// The same in a geometry of its own; files of the shards `kept` only.
    fn scattered(
        &mut self,
        made: &mut Deployment,
        label: &str,
        seg_log2: u8,
        (plain, compressed): Chunk<'_>,
        (geometry, kept): (Geometry, &[u8]),
    ) -> Result<ChunkRef> {
        let incarnation = hex::encode(made.writer.incarnation.as_bytes());
        let bulks = made.blocks.iter().filter(|block| block["kind"] == "bulk" && block["incarnation"] == incarnation.as_str()).count();
        let at = BlockPosition { attempt: attempt_of(label), ..made.at(BlockKind::Bulk, bulks as u64) };
        let mut payload = PayloadBuilder::new(max_payload(geometry.k()), 0);
        let section = payload.begin(self.tenant, KeyVersion(1), seg_log2)?;
        let (reference, stored) = (self.reference(made, plain)?, compressed.unwrap_or(plain));
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (offset, stored_len, plain_len) = (payload.push(stored)?, len(stored), len(plain));
        let encoding = encoding_of(compressed);
        let chunks = vec![ChunkEntry { bucket: self.bucket, id: reference.id, section, offset, stored_len, plain_len, encoding }];
        let sealed = payload.seal(&at, &made.keys, &mut made.rng)?;
        let log = LogState { epoch: made.writer.epoch, k_floor: made.writer.k_floor, ..LogState::default() };
        let blind = draw(&mut made.rng);
        let block = encode(sealed.bytes.clone(), geometry, blind)?.sign(at, 0, log, &made.keys.identity);
        made.put_shards(label, &block, kept)?;
        if label == "bulk" {
            // The same block by somebody who has every key but the identity.
            let forged = encode(sealed.bytes, geometry, blind)?.sign(at, 0, log, &LogIdentity::from_bytes(&[0x66; 32]));
            let name = Names::new(&made.keys.name).bulk(PROVIDERS[0], at.incarnation, at.counter, at.attempt);
            let object = forged.object(0, PROVIDERS[0], &name, &made.keys.header, &mut made.rng)?;
            made.files.insert("forged.shard".into(), object.concat());
        }
        let manifest = block.manifest();
        let added = BulkAdded {
            block: at.block,
            incarnation: at.incarnation,
            counter: at.counter,
            attempt: at.attempt,
            geometry,
            code: manifest.code,
            payload_len: manifest.payload_len,
            shard_len: manifest.shard_len,
            block_root: manifest.block_root,
            shard_roots: block.shard_roots().to_vec(),
            manifest_hash: manifest.hash(),
            placements: kept.iter().zip(PROVIDERS).map(|(shard, p)| Placement { shard: *shard, provider: p.into(), acked: true }).collect(),
            sections: sealed.sections,
            chunks,
        };
        let record = made.record(self.tenant, at.block.into(), added.into())?;
        self.records.push(record);
        Ok(reference)
    }

    fn put(&mut self, made: &mut Deployment, key: &[u8], blob: &[u8], content: Content) -> Result<()> {
        let version = VersionId::draw(&mut made.rng);
        let put = BlobPut {
            bucket: self.bucket,
            key: key.to_vec(),
            version,
            size: blob.len() as u64,
            content_type: Some("text/plain".into()),
            metadata: vec![("author".into(), "vector".into())],
            sha256: (content.depth > 0).then(|| sha2::Sha256::digest(blob).into()),
            etag: [0xe7; 16],
            class: Class::Quorum,
            content,
            idempotency: None,
        };
        let record = made.record(self.tenant, version.into(), put.into())?;
        self.records.push(record);
        Ok(())
    }
}

const fn encoding_of(compressed: Option<&[u8]>) -> Encoding {
    if compressed.is_some() { Encoding::ZstdFramed } else { Encoding::Raw }
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
