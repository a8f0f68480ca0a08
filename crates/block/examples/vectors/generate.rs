//! Makes the golden vectors from a fixed seed: a deployment of two tenants with a blob each, a decision block, a commit block and two
//! bulk blocks.

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

/// Where each shard of a block lies, by index.
pub(crate) const PROVIDERS: [&str; 3] = ["alpha", "beta", "gamma"];

const INCARNATION: IncarnationId = IncarnationId::from_bytes([0x1c; 16]);

/// A deployment under construction.
struct Deployment {
    rng: ChaCha20Rng,
    keys: Keyring,
    files: BTreeMap<String, Vec<u8>>,
    blocks: Vec<Value>,
    tree: LogTree,
    nodes: BTreeMap<(u8, u64), Hash32>,
    seq: Seq,
}

/// A tenant and its one bucket.
struct House {
    tenant: TenantId,
    bucket: BucketId,
    records: Vec<Record>,
    chunks: Vec<(ChunkId, Vec<u8>)>,
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
    let mut made =
        Deployment { rng, keys, files: BTreeMap::new(), blocks: Vec::new(), tree: LogTree::new(), nodes: BTreeMap::new(), seq: Seq(0) };
    made.files.insert("master.key".into(), hex::encode(master.expose()).into_bytes());
    made.files.insert("keyring.sealed".into(), sealed);
    let claim = made.claim()?;
    made.decision()?;
    let checkpoint_before = made.checkpoint();

    let letters: Vec<u8> = b"Wind carries the seed farther than the tree can see. ".iter().copied().cycle().take(5000).collect();
    let (large, small) = letters.split_at(4000);
    let mut first = made.house(tenants[0], "letters")?;
    let chunks = [first.stored_in_bulk(&mut made, "bulk", 9, &[large])?, vec![first.stored_small(&made, small)?]];
    first.put(&mut made, b"letters/\xffseed", &letters, Content { depth: 0, refs: chunks.concat() })?;

    let mut pollen = vec![0; 159_000];
    blake3::Hasher::new().update(b"pollen").finalize_xof().fill(&mut pollen);
    let (large, small) = pollen.split_at(150_000);
    let mut second = made.house(tenants[1], "pollen")?;
    let mut refs = second.stored_in_bulk(&mut made, "wide", 16, &[large])?;
    refs.push(second.stored_small(&made, small)?);
    let list = second.stored_small(&made, &Content::encode_list(&refs))?;
    let whole = ChunkRef { id: list.id, len: 159_000 };
    second.put(&mut made, b"pollen", &pollen, Content { depth: 1, refs: vec![whole] })?;

    let proven = made.tree.size() + 4;
    made.commit([first, second])?;
    let index = made.index(&claim, &checkpoint_before, proven, [(&letters, "6c6574746572732fff73656564"), (&pollen, "706f6c6c656e")])?;
    made.files.insert("vectors.json".into(), pretty(&index));
    Ok(made.files)
}

impl Deployment {
    fn at(&mut self, kind: BlockKind, counter: u64) -> BlockPosition {
        let block = BlockId::draw(&mut self.rng);
        let deployment = self.keys.deployment;
        BlockPosition { deployment, block, kind, incarnation: INCARNATION, counter: Counter(counter), attempt: Attempt(0) }
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
            providers: PROVIDERS.iter().map(ToString::to_string).collect(),
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
        let started = ServiceStarted { incarnation: INCARNATION, version: "vectors".into() };
        let mut body = CommitBody::new();
        for private in [Private::from(decision), started.into()] {
            body.push_record(self.record(TenantId::SYSTEM, INCARNATION.into(), private)?, KeyVersion(0))?;
        }
        self.publish("decision", BlockKind::Decision, 0, &body)
    }

    fn commit(&mut self, houses: [House; 2]) -> Result<()> {
        let mut body = CommitBody::new();
        let [first, second] = houses;
        for record in first.records.iter().zip(&second.records).flat_map(|(a, b)| [a, b]) {
            body.push_record(record.clone(), KeyVersion(1))?;
        }
        for house in [first, second] {
            for (id, stored) in &house.chunks {
                let plain_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
                body.push_chunk(house.tenant, KeyVersion(1), house.bucket, *id, (plain_len, Encoding::Raw), stored)?;
            }
        }
        self.publish("commit", BlockKind::Commit, 1, &body)
    }

    fn publish(&mut self, label: &str, kind: BlockKind, counter: u64, body: &CommitBody) -> Result<()> {
        let at = self.at(kind, counter);
        let (sealed, first) = body.seal(&at, &self.keys, max_payload(2), &mut self.rng)?;
        for leaf in body.leaves() {
            self.nodes.extend(self.tree.append(leaf).into_iter().map(|(level, index, hash)| ((level, index), hash)));
        }
        let acked_through = self.seq;
        self.seq = self.seq.next();
        let (log_size, log_root) = (self.tree.size(), self.tree.root());
        let log = LogState { epoch: Epoch(2), seq: self.seq, log_size, log_root, acked_through, settled_through: Seq(0), k_floor: 2 };
        let block = encode(sealed.bytes, Geometry::new(2, 3)?, draw(&mut self.rng))?.sign(at, first, log, &self.keys.identity);
        self.put_shards(label, &block)
    }

    fn put_shards(&mut self, label: &str, block: &SignedBlock) -> Result<()> {
        let names = Names::new(&self.keys.name);
        let at = block.manifest().position;
        for (index, provider) in (0u8..).zip(PROVIDERS) {
            let address = ShardAddress { provider, kind: at.kind, incarnation: at.incarnation, counter: at.counter, attempt: at.attempt };
            let object = block.object(index, provider, &names.shard(&address), &self.keys.header, &mut self.rng)?;
            self.files.insert(format!("{label}-{index}.shard"), object.concat());
        }
        let class = if at.kind.has_records() { "commit" } else { "bulk" };
        let shards = [0, 1, 2].map(|i| format!("{label}-{i}.shard"));
        self.blocks.push(json!({
            "label": label, "kind": class, "incarnation": hex::encode(at.incarnation.as_bytes()), "counter": at.counter.0, "attempt": 0,
            "shards": shards,
        }));
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: KeyName::of(self.keys.deployment), size: self.tree.size(), root: self.tree.root() }
    }

    fn index(&mut self, claim: &Value, before: &Checkpoint, proven: u64, blobs: [(&Vec<u8>, &str); 2]) -> Result<Value> {
        let checkpoint = self.checkpoint();
        let vkey = verifier_key(&checkpoint.origin, &self.keys.identity.public());
        let note = checkpoint.sign(&self.keys.identity);
        let node = |level: u8, index: u64| self.nodes.get(&(level, index)).copied().ok_or(BlockError::Invalid { what: "node" });
        let inclusion = inclusion_proof(proven, checkpoint.size, node)?;
        let leaf = node(0, proven)?;
        let consistency = consistency_proof(before.size, checkpoint.size, node)?;
        let hexes = |path: &[Hash32]| path.iter().map(ToString::to_string).collect::<Vec<_>>();
        let proofs = json!({
            "size": checkpoint.size, "root": checkpoint.root.to_string(),
            "inclusion": {"index": proven, "leaf": leaf.to_string(), "path": hexes(&inclusion.path)},
            "consistency": {"old_size": before.size, "old_root": before.root.to_string(), "path": hexes(&consistency.path)},
        });
        let bad_notes = bad_notes(&note, before, &self.keys);
        self.files.insert("checkpoint.note".into(), note.into_bytes());
        let blobs = blobs.map(|(blob, key)| json!({"key": key, "size": blob.len(), "sha256": hex::encode(sha2::Sha256::digest(blob))}));
        Ok(json!({
            "about": "made by: cargo run -p diaspore-block --example vectors -- tests/vectors",
            "master_key": "master.key",
            "keyring": {"file": "keyring.sealed", "provider": PROVIDERS[0], "version": self.keys.version},
            "claim": claim, "checkpoint": "checkpoint.note", "vkey": vkey,
            "log_public_key": hex::encode(self.keys.identity.public().as_bytes()),
            "providers": PROVIDERS, "blocks": self.blocks, "blobs": blobs, "proofs": proofs,
            "seal": seal_vectors(&mut self.rng)?, "code": code_vectors()?, "bad": bad_vectors(),
            "bad_notes": bad_notes, "bad_bytes": bad_bytes(), "bad_sections": bad_sections(),
        }))
    }
}

impl House {
    fn reference(&self, made: &Deployment, plain: &[u8]) -> Result<ChunkRef> {
        let id = made.keys.tenant(self.tenant)?.dedup.bucket(&self.bucket).chunk_id(plain);
        Ok(ChunkRef { id, len: plain.len() as u64 })
    }

    /// A chunk that rides in the commit block.
    fn stored_small(&mut self, made: &Deployment, plain: &[u8]) -> Result<ChunkRef> {
        let reference = self.reference(made, plain)?;
        self.chunks.push((reference.id, plain.to_vec()));
        Ok(reference)
    }

    /// Chunks in a bulk block of their own.
    fn stored_in_bulk(&mut self, made: &mut Deployment, label: &str, seg_log2: u8, plains: &[&[u8]]) -> Result<Vec<ChunkRef>> {
        let bulks = made.blocks.iter().filter(|block| block["kind"] == "bulk").count();
        let at = made.at(BlockKind::Bulk, bulks as u64);
        let mut payload = PayloadBuilder::new(max_payload(2), 0);
        let section = payload.begin(self.tenant, KeyVersion(1), seg_log2)?;
        let (mut refs, mut chunks) = (Vec::new(), Vec::new());
        for plain in plains {
            let reference = self.reference(made, plain)?;
            let (offset, len) = (payload.push(plain)?, u32::try_from(plain.len()).unwrap_or(u32::MAX));
            let (id, bucket, encoding) = (reference.id, self.bucket, Encoding::Raw);
            chunks.push(ChunkEntry { bucket, id, section, offset, stored_len: len, plain_len: len, encoding });
            refs.push(reference);
        }
        let sealed = payload.seal(&at, &made.keys, &mut made.rng)?;
        let log = LogState { epoch: Epoch(2), k_floor: 2, ..LogState::default() };
        let geometry = Geometry::new(2, 3)?;
        let blind = draw(&mut made.rng);
        let block = encode(sealed.bytes.clone(), geometry, blind)?.sign(at, 0, log, &made.keys.identity);
        made.put_shards(label, &block)?;
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
            placements: (0u8..).zip(PROVIDERS).map(|(shard, p)| Placement { shard, provider: p.into(), acked: true }).collect(),
            sections: sealed.sections,
            chunks,
        };
        let record = made.record(self.tenant, at.block.into(), added.into())?;
        self.records.push(record);
        Ok(refs)
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

/// Notes that must be refused, beside the good one.
fn bad_notes(note: &str, before: &Checkpoint, keys: &Keyring) -> Vec<Value> {
    let (text, line) = note.split_once("\n\n").unwrap_or_default();
    let other = before.sign(&keys.identity);
    let (_, other_line) = other.split_once("\n\n").unwrap_or_default();
    let stranger = Checkpoint { ..before.clone() }.sign(&LogIdentity::from_bytes(&[0x66; 32]));
    [
        ("damaged size", note.replacen('\n', "\n1", 1)),
        ("damaged root", format!("{}A{}", &text[..text.len() - 2], &note[text.len() - 1..])),
        ("no newline at the end", note.trim_end().to_owned()),
        ("carriage returns", note.replace('\n', "\r\n")),
        ("a line that is no signature", format!("{note}junk\n")),
        ("a signature over another text", format!("{text}\n\n{other_line}")),
        ("a signature over another text before the good one", format!("{text}\n\n{other_line}{line}")),
        ("a stranger's signature", stranger),
    ]
    .into_iter()
    .map(|(why, note)| json!({"why": why, "note": note}))
    .collect()
}

/// Damage to what is neither shard nor note: which file or payload, and the flipped byte, counted from its end if negative.
fn bad_bytes() -> Vec<Value> {
    let of = |what: &'static str, flips: &[i64]| flips.iter().map(|flip| json!({"what": what, "flip": flip})).collect::<Vec<_>>();
    [
        of("keyring", &[0, 24, 56, 1000, -1]),
        of("claim", &[0, 24, 56, 1000, -1]),
        of("payload of commit", &[0, 24, 56, 1000, 9000, -1]),
        of("payload of decision", &[0, 24, 56, -1]),
    ]
    .concat()
}

/// Section entries that must not open, made from the good one of a bulk block.
fn bad_sections() -> Vec<Value> {
    let of = |why: &str, change: Value| json!({"why": why, "block": "bulk", "change": change});
    vec![
        of("another tenant", json!({"tenant": 1})),
        of("the service itself", json!({"tenant": null})),
        of("another key version", json!({"key_version": 2})),
        of("another index", json!({"index": 1})),
        of("another segment length", json!({"seg_log2": 10})),
        of("another length", json!({"plain_len": 3999})),
    ]
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
        altered("signed by another identity", "forged.shard", json!({})),
        moved("another provider's object", "bulk-0.shard", json!({"provider": "beta"})),
        moved("another attempt", "commit-1.shard", json!({"attempt": 1})),
        moved("another counter", "commit-1.shard", json!({"counter": 2})),
        moved("another incarnation", "commit-2.shard", json!({"incarnation": "00000000000000000000000000000000"})),
        moved("another kind", "bulk-0.shard", json!({"kind": "commit"})),
        moved("another deployment", "bulk-0.shard", json!({"deployment": "00000000000000000000000000000000"})),
        altered("flipped byte in the second cell", "wide-0.shard", json!({"flip": 70000})),
        altered("flipped byte in the last cell", "wide-2.shard", json!({"flip": 75000})),
        moved("a decision at another counter", "decision-0.shard", json!({"counter": 1})),
    ]
}
