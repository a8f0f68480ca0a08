//! The golden vectors: the checked-in files are what this build makes, both engines agree on them, and what is bad is refused.
//!
//! Regenerate, after a deliberate change of the format only: `cargo run -p diaspore-block --example vectors -- tests/vectors`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test crate: its helpers stand outside #[test] functions"
)]

#[path = "../examples/vectors/generate.rs"]
mod generate;

use std::path::PathBuf;

use diaspore_block::BlockError;
use diaspore_block::claim::{Claim, Head};
use diaspore_block::commit::{CommitBody, open_whole};
use diaspore_block::compacted::{self, BlockRef, CompactedRoot};
use diaspore_block::compress::{decompress, decompress_range};
use diaspore_block::decode::decode;
use diaspore_block::erasure::coder::{DefaultCoder, ReferenceCoder};
use diaspore_block::erasure::{parity_with, rebuild_with};
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, DeploymentId, Epoch, Hash32, IncarnationId, KeyVersion, TenantId};
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::log::{Checkpoint, ConsistencyProof, InclusionProof, LogTree};
use diaspore_block::manifest::{BlockKind, Manifest};
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::record::{BlobPut, BulkAdded, ChunkEntry, Encoding, Private, Record};
use diaspore_block::seal::cipher::{DefaultCipher, ReferenceCipher, SegmentCipher};
use diaspore_block::seal::{Context, Opener, SealType, span};
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use serde_json::Value;
use sha2::Digest;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn index() -> Value {
    serde_json::from_slice(&read("vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn id(value: &Value) -> [u8; 16] {
    bytes(value).try_into().unwrap()
}

fn keyring() -> Keyring {
    let master = hex::decode(read("master.key")).unwrap().try_into().unwrap();
    let master = MasterKey::from_bytes(master);
    let name = KeyringNames::new(&master).keyring("alpha", 3);
    Keyring::open(&master, &KeyringPlace::Provider { provider: "alpha", name: &name, version: 3 }, &read("keyring.sealed")).unwrap()
}

#[test]
fn checked_in_files_are_what_this_build_makes() {
    for (name, made) in generate::files().unwrap() {
        assert!(read(&name) == made, "{name} differs: the format changed");
    }
}

fn open_seal<C: SegmentCipher>(vector: &Value) -> Vec<u8> {
    let sealed = bytes(&vector["sealed"]);
    let len = bytes(&vector["plain"]).len() as u64;
    let context = Context::new(SealType::Section, DeploymentId::from_bytes(id(&vector["deployment"])))
        .segments(u8::try_from(vector["segment_log2"].as_u64().unwrap()).unwrap())
        .field(&bytes(&vector["meaning"]));
    let key = bytes(&vector["key"]).try_into().unwrap();
    let opener = Opener::<C>::new_with(&key, &context, len, sealed.first_chunk().unwrap(), "vector").unwrap();
    opener.open_span(&span(0..len, len, context.segment_log2()).unwrap(), &sealed[56..]).unwrap()
}

#[test]
fn both_ciphers_open_every_sealed_vector() {
    let index = index();
    let vectors = index["seal"].as_array().unwrap();
    assert!(vectors.len() >= 6);
    for vector in vectors {
        assert_eq!(open_seal::<ReferenceCipher>(vector), bytes(&vector["plain"]));
        assert_eq!(open_seal::<DefaultCipher>(vector), bytes(&vector["plain"]));
    }
}

#[test]
fn both_coders_make_and_rebuild_every_coded_vector() {
    let index = index();
    let vectors = index["code"].as_array().unwrap();
    assert!(vectors.len() >= 7);
    for vector in vectors {
        let number = |name: &str| u8::try_from(vector[name].as_u64().unwrap()).unwrap();
        let geometry = Geometry::new(number("k"), number("n")).unwrap();
        let (data, expected) = (bytes(&vector["data"]), bytes(&vector["parity"]));
        let len = data.len() / usize::from(geometry.k());
        let slices: Vec<&[u8]> = data.chunks(len).collect();
        assert_eq!(parity_with::<ReferenceCoder>(geometry, &slices, len).unwrap(), expected);
        assert_eq!(parity_with::<DefaultCoder>(geometry, &slices, len).unwrap(), expected);
        let all: Vec<(u8, &[u8])> = (0u8..).zip(slices.iter().copied().chain(expected.chunks(len))).collect();
        let last = &all[all.len() - usize::from(geometry.k())..];
        for (wanted, shard) in &all[..all.len() - last.len()] {
            assert_eq!(&rebuild_with::<ReferenceCoder>(geometry, last, *wanted).unwrap(), shard);
            assert_eq!(&rebuild_with::<DefaultCoder>(geometry, last, *wanted).unwrap(), shard);
        }
    }
}

/// The file in whose place another one is tried.
fn base(file: &str) -> &str {
    match file {
        "forged.shard" => "bulk-0.shard",
        "floor.shard" => "packed-0.shard",
        file => file,
    }
}

/// The block a file belongs to, and which shard it is.
fn home<'a>(index: &'a Value, file: &str) -> (&'a Value, usize) {
    let file = base(file);
    let block = index["blocks"].as_array().unwrap().iter().find(|block| block["shards"].as_array().unwrap().iter().any(|s| s == file));
    (block.unwrap(), usize::from(file.as_bytes()[file.len() - "0.shard".len()] - b'0'))
}

/// Opens a shard file of the vectors, with the changes a bad vector makes to its place.
fn open(keys: &Keyring, index: &Value, file: &str, data: Vec<u8>, place: &Value) -> Result<(ShardHeader, VerifiedCells), BlockError> {
    let (block, shard) = home(index, file);
    let field = |name: &str| if place[name].is_null() { &block[name] } else { &place[name] };
    let provider = place["provider"].as_str().unwrap_or(generate::PROVIDERS[shard]);
    let address = ShardAddress {
        provider,
        kind: if field("kind") == "bulk" { BlockKind::Bulk } else { BlockKind::Commit },
        incarnation: IncarnationId::from_bytes(id(field("incarnation"))),
        counter: Counter(field("counter").as_u64().unwrap()),
        attempt: Attempt(u8::try_from(field("attempt").as_u64().unwrap()).unwrap()),
    };
    let deployment = place["deployment"].as_str().map_or(keys.deployment, |_| DeploymentId::from_bytes(id(&place["deployment"])));
    let name = Names::new(&keys.name).shard(&address);
    VerifiedCells::open_object(&keys.header, &keys.identity.public(), deployment, &address, &name, &data.into())
}

/// Manifest and payload of a block, from all its shards that are files but the first.
fn payload(keys: &Keyring, index: &Value, label: &str) -> (Manifest, Vec<u8>) {
    let block = index["blocks"].as_array().unwrap().iter().find(|block| block["label"] == label).unwrap();
    let files = block["shards"].as_array().unwrap().iter().skip(1).map(|file| file.as_str().unwrap());
    let (headers, cells): (Vec<_>, Vec<_>) = files.map(|file| open(keys, index, file, read(file), &Value::Null).unwrap()).unzip();
    let manifest = headers[0].manifest().clone();
    assert!(cells.len() <= usize::from(manifest.geometry.k()), "no more than are needed");
    let payload = decode(&manifest, &cells, 0..manifest.payload_len).unwrap().to_vec();
    (manifest, payload)
}

fn flip(mut data: Vec<u8>, at: &Value) -> Vec<u8> {
    let len = i64::try_from(data.len()).unwrap();
    data[usize::try_from(at.as_i64().unwrap().rem_euclid(len)).unwrap()] ^= 1;
    data
}

/// Cuts or lengthens the bytes as a change says.
fn resize(data: &mut Vec<u8>, change: &Value) {
    let count = |name: &str| change[name].as_u64().and_then(|n| usize::try_from(n).ok());
    data.truncate(data.len() - count("cut").unwrap_or(0));
    data.truncate(count("keep").unwrap_or(data.len()));
    data.resize(data.len() + count("append").unwrap_or(0), 0);
}

#[test]
fn every_bad_vector_is_refused_and_its_base_is_not() {
    let (keys, index) = (keyring(), index());
    let vectors = index["bad"].as_array().unwrap();
    assert!(vectors.len() >= 26);
    for bad in vectors {
        let file = bad["file"].as_str().unwrap();
        let mut data = read(file);
        assert!(open(&keys, &index, base(file), read(base(file)), &Value::Null).is_ok(), "{file}");
        if !bad["change"]["flip"].is_null() {
            data = flip(data, &bad["change"]["flip"]);
        }
        resize(&mut data, &bad["change"]);
        let refused = open(&keys, &index, file, data, &bad["place"]);
        assert!(refused.is_err_and(|error| error.is_integrity()), "accepted: {}", bad["why"]);
    }
}

#[test]
fn damaged_keyrings_claims_heads_and_bodies_are_refused() {
    let (keys, index) = (keyring(), index());
    let master = MasterKey::from_bytes(hex::decode(read("master.key")).unwrap().try_into().unwrap());
    let version = index["keyring"]["version"].as_u64().unwrap();
    let keyring_name = KeyringNames::new(&master).keyring("alpha", version);
    let place = KeyringPlace::Provider { provider: "alpha", name: &keyring_name, version };
    let incarnation = IncarnationId::from_bytes(id(&index["claim"]["incarnation"]));
    let claim_name = Names::new(&keys.name).claim("alpha", incarnation, Epoch(index["claim"]["epoch"].as_u64().unwrap()));
    assert_eq!(index["claim"]["name"], claim_name.as_str());
    let claim = |data: &[u8]| Claim::open(&keys.head, &keys.identity.public(), keys.deployment, ("alpha", &claim_name), data);
    assert_eq!(claim(&read("claim.sealed")).unwrap().providers, generate::PROVIDERS[..3]);
    let of = &index["head"];
    let counter = Counter(of["counter"].as_u64().unwrap());
    let head_name = Names::new(&keys.name).head("beta", IncarnationId::from_bytes(id(&of["incarnation"])), counter);
    assert_eq!(of["name"], head_name.as_str());
    let head = |data: &[u8]| Head::open(&keys.head, &keys.identity.public(), keys.deployment, ("beta", &head_name), data);
    let opened = head(&read("head.sealed")).unwrap();
    assert_eq!((opened.root.counter, opened.covers.0), (counter, of["covers"].as_u64().unwrap()));
    assert_eq!(opened.checkpoint.as_bytes(), read("checkpoint.note"));
    assert!(head(&read("claim.sealed")).is_err() && claim(&read("head.sealed")).is_err());
    for bad in index["bad_bytes"].as_array().unwrap() {
        let refused = match bad["what"].as_str().unwrap() {
            "keyring" => Keyring::open(&master, &place, &flip(read("keyring.sealed"), &bad["flip"])).err(),
            "claim" => claim(&flip(read("claim.sealed"), &bad["flip"])).err(),
            "head" => head(&flip(read("head.sealed"), &bad["flip"])).err(),
            what @ ("payload of part-a" | "payload of part-b" | "payload of root") => {
                let (manifest, payload) = payload(&keys, &index, what.strip_prefix("payload of ").unwrap());
                compacted::open(&manifest, &payload, &keys).unwrap();
                compacted::open(&manifest, &flip(payload, &bad["flip"]), &keys).err()
            }
            what => {
                let (manifest, payload) = payload(&keys, &index, what.strip_prefix("payload of ").unwrap());
                CommitBody::open(&manifest, &payload, &keys).unwrap();
                CommitBody::open(&manifest, &flip(payload, &bad["flip"]), &keys).err()
            }
        };
        assert!(refused.is_some_and(|error| error.is_integrity()), "accepted: {bad}");
    }
}

/// The log in order.
const LOG: [&str; 4] = ["decision", "commit", "turn", "later"];
/// How much of it the first incarnation wrote.
const FIRST: usize = 2;

/// Every record of these blocks, in order, and the tree over them.
fn log(keys: &Keyring, index: &Value, labels: &[&str]) -> (Vec<Record>, LogTree) {
    let (mut records, mut tree) = (Vec::new(), LogTree::new());
    for label in labels {
        let (manifest, payload) = payload(keys, index, label);
        let opened = CommitBody::open(&manifest, &payload, keys).unwrap();
        for leaf in opened.body.leaves() {
            tree.append(leaf);
        }
        assert_eq!((manifest.log.log_size, manifest.log.log_root), (tree.size(), tree.root()), "{label}");
        records.extend_from_slice(opened.body.records());
    }
    (records, tree)
}

#[test]
fn a_section_opens_as_what_its_entry_says_and_as_nothing_else() {
    let (keys, index) = (keyring(), index());
    for bad in index["bad_sections"].as_array().unwrap() {
        let (manifest, payload) = payload(&keys, &index, bad["block"].as_str().unwrap());
        let added = log(&keys, &index, &LOG).0.into_iter().find_map(|record| match record.into_parts().2 {
            Private::BulkAdded(added) if added.block == manifest.position.block => Some(added),
            _ => None,
        });
        let mut section = added.unwrap().sections[0].clone();
        assert!(open_whole(&manifest.position, 0, &section, &payload, &keys).is_ok());
        let change = &bad["change"];
        match change.get("tenant") {
            Some(Value::Null) => section.tenant = TenantId::SYSTEM,
            Some(_) => section.tenant = *keys.tenants.keys().find(|tenant| **tenant != section.tenant).unwrap(),
            None => (),
        }
        let number = |name: &str| change[name].as_u64().and_then(|n| u32::try_from(n).ok());
        section.key_version = number("key_version").map_or(section.key_version, KeyVersion);
        section.plain_len = number("plain_len").unwrap_or(section.plain_len);
        section.seg_log2 = number("seg_log2").map_or(section.seg_log2, |n| u8::try_from(n).unwrap());
        let at = u8::try_from(number("index").unwrap_or(0)).unwrap();
        assert!(open_whole(&manifest.position, at, &section, &payload, &keys).is_err(), "accepted: {}", bad["why"]);
    }
}

#[test]
fn the_log_its_checkpoint_and_its_proofs_agree() {
    let (keys, index) = (keyring(), index());
    let (records, tree) = log(&keys, &index, &LOG[..FIRST]);
    let public = keys.identity.public();
    let note = Checkpoint::open(&String::from_utf8(read("checkpoint.note")).unwrap(), &public).unwrap();
    assert_eq!((note.size, note.root), (tree.size(), tree.root()));
    for bad in index["bad_notes"].as_array().unwrap() {
        assert!(Checkpoint::open(bad["note"].as_str().unwrap(), &public).is_err(), "accepted: {}", bad["why"]);
    }
    let hash = |value: &Value| Hash32::from_bytes(bytes(value).try_into().unwrap());
    let path = |value: &Value| value["path"].as_array().unwrap().iter().map(hash).collect::<Vec<_>>();
    let proofs = &index["proofs"];
    let (one, two) = (&proofs["inclusion"], &proofs["consistency"]);
    let at = one["index"].as_u64().unwrap();
    let leaf = records[usize::try_from(at).unwrap()].public().leaf();
    assert_eq!(leaf, hash(&one["leaf"]));
    InclusionProof { index: at, size: note.size, path: path(one) }.verify(&leaf, &note.root).unwrap();
    let old_size = two["old_size"].as_u64().unwrap();
    let proof = ConsistencyProof { old_size, new_size: note.size, path: path(two) };
    proof.verify(&hash(&two["old_root"]), &note.root).unwrap();
    assert!(proof.verify(&leaf, &note.root).is_err());
}

#[test]
fn a_compacted_log_holds_the_leaves_and_nothing_passes_for_another() {
    let (keys, index) = (keyring(), index());
    let of = &index["head"];
    let incarnation = IncarnationId::from_bytes(id(&of["incarnation"]));
    let name = Names::new(&keys.name).head("beta", incarnation, Counter(of["counter"].as_u64().unwrap()));
    let head = Head::open(&keys.head, &keys.identity.public(), keys.deployment, ("beta", &name), &read("head.sealed")).unwrap();
    let (manifest, bytes) = payload(&keys, &index, "root");
    assert_eq!(BlockRef::of(&manifest), head.root);
    let root = CompactedRoot::from_bytes(&compacted::open(&manifest, &bytes, &keys).unwrap()).unwrap();
    let (records, tree) = log(&keys, &index, &LOG[..FIRST]);
    assert_eq!((root.covers, root.log_size, root.log_root), (head.covers, tree.size(), tree.root()));
    let mut leaves = Vec::new();
    for (at, label) in ["part-a", "part-b"].into_iter().enumerate() {
        let (manifest, bytes) = payload(&keys, &index, label);
        assert_eq!(BlockRef::of(&manifest), root.parts[at].block);
        let plain = root.parts[at].unpack(compacted::open(&manifest, &bytes, &keys).unwrap(), root.end_of(at)).unwrap();
        assert!(root.parts[1 - at].unpack(compacted::open(&manifest, &bytes, &keys).unwrap(), None).is_err(), "the other part");
        compacted::each_row::<BlockError>(&plain, |row| {
            leaves.extend((row.table == 10).then(|| row.value.to_vec()));
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(leaves, records.iter().map(|record| record.public().encode().to_vec()).collect::<Vec<_>>());
}

/// Plain bytes of the one chunk of a blob, wherever it lies.
fn chunk(keys: &Keyring, index: &Value, put: &BlobPut) -> Vec<u8> {
    let wanted = |entry: &ChunkEntry| entry.bucket == put.bucket && entry.id == put.content.refs[0].id;
    let unpack = |entry: &ChunkEntry, stored: &[u8]| match entry.encoding {
        Encoding::Raw => stored.to_vec(),
        Encoding::ZstdFramed => decompress(stored, entry.plain_len as usize).unwrap(),
    };
    let (manifest, bytes) = payload(keys, index, "later");
    let commit = CommitBody::open(&manifest, &bytes, keys).unwrap().body;
    if let Some((_, entry, stored)) = commit.chunks().find(|(_, entry, _)| wanted(entry)) {
        return unpack(entry, stored);
    }
    let added: Vec<BulkAdded> = commit
        .records()
        .iter()
        .filter_map(|record| match record.clone().into_parts().2 {
            Private::BulkAdded(added) => Some(added),
            _ => None,
        })
        .collect();
    let (added, entry) = added.iter().find_map(|added| Some((added, added.chunks.iter().find(|entry| wanted(entry))?))).unwrap();
    let block = if added.geometry.n() == 32 { "broad" } else { "packed" };
    let (manifest, bytes) = payload(keys, index, block);
    assert_eq!((manifest.hash(), manifest.geometry), (added.manifest_hash, added.geometry));
    let plain = open_whole(&manifest.position, entry.section, &added.sections[usize::from(entry.section)], &bytes, keys).unwrap();
    unpack(entry, &plain[entry.offset as usize..][..entry.stored_len as usize])
}

#[test]
fn packed_small_and_broad_blobs_come_back() {
    let (keys, index) = (keyring(), index());
    let (records, _) = log(&keys, &index, &LOG);
    for (key, shards) in [("packed", 3), ("small", 3), ("broad", 32)] {
        let put = records.iter().find_map(|record| match record.clone().into_parts().2 {
            Private::BlobPut(put) if put.key == key.as_bytes() => Some(put),
            _ => None,
        });
        let put = put.unwrap();
        let of = index["blobs"].as_array().unwrap().iter().find(|blob| blob["key"] == hex::encode(key)).unwrap();
        let plain = chunk(&keys, &index, &put);
        assert_eq!(hex::encode(sha2::Sha256::digest(&plain)), of["sha256"].as_str().unwrap(), "{key}");
        assert_eq!(plain.len() as u64, put.size);
        if shards == 32 {
            let (manifest, _) = payload(&keys, &index, key);
            assert!(manifest.shard_len > 65_536 && manifest.geometry.n() == 32, "several cells in 32 shards");
        }
    }
}

#[test]
fn a_geometry_steps_down_to_its_floor_and_no_deeper() {
    let (keys, index) = (keyring(), index());
    let (turn, later) = (payload(&keys, &index, "turn").0, payload(&keys, &index, "later").0);
    assert_eq!((turn.geometry, turn.log.k_floor), (Geometry::new(3, 4).unwrap(), 2));
    assert_eq!((later.geometry, later.log.k_floor), (Geometry::new(2, 3).unwrap(), 2));
    let forged = open(&keys, &index, "floor.shard", read("floor.shard"), &Value::Null);
    assert_eq!(forged.unwrap_err(), BlockError::Malformed { what: "manifest" });
}

#[test]
fn a_compressed_chunk_unpacks_as_what_it_is_and_as_nothing_else() {
    let index = index();
    let good = read("compressed.chunk");
    let plain = decompress(&good, 99_000).unwrap();
    assert_eq!(decompress_range(&good, 99_000, 65_000..66_000).unwrap(), plain[65_000..66_000], "over the edge of a frame");
    for bad in index["bad_frames"].as_array().unwrap() {
        let (mut data, change) = (good.clone(), &bad["change"]);
        for put in change["put"].as_array().into_iter().flatten() {
            let at = usize::try_from(put[0].as_u64().unwrap()).unwrap();
            data[at..at + 4].copy_from_slice(&u32::try_from(put[1].as_u64().unwrap()).unwrap().to_be_bytes());
        }
        resize(&mut data, change);
        let len = change["plain_len"].as_u64().map_or(plain.len(), |len| usize::try_from(len).unwrap());
        assert!(decompress(&data, len).is_err_and(|error| error.is_integrity()), "accepted: {}", bad["why"]);
    }
}
