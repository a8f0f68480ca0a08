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
use diaspore_block::claim::Claim;
use diaspore_block::commit::{CommitBody, open_whole};
use diaspore_block::decode::decode;
use diaspore_block::erasure::coder::{DefaultCoder, ReferenceCoder};
use diaspore_block::erasure::{parity_with, rebuild_with};
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, DeploymentId, Epoch, Hash32, IncarnationId, KeyVersion, TenantId};
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::log::{Checkpoint, ConsistencyProof, InclusionProof, LogTree};
use diaspore_block::manifest::{BlockKind, Manifest};
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::record::{Private, Record};
use diaspore_block::seal::cipher::{DefaultCipher, ReferenceCipher, SegmentCipher};
use diaspore_block::seal::{Context, Opener, SealType, span};
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use serde_json::Value;

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

/// The block a file belongs to, and which shard it is; the forged shard stands in for the first bulk shard.
fn home<'a>(index: &'a Value, file: &str) -> (&'a Value, usize) {
    let file = if file == "forged.shard" { "bulk-0.shard" } else { file };
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

/// Manifest and payload of a block, from its last two shards.
fn payload(keys: &Keyring, index: &Value, label: &str) -> (Manifest, Vec<u8>) {
    let shard = |i: u8| {
        let file = format!("{label}-{i}.shard");
        open(keys, index, &file, read(&file), &Value::Null).unwrap()
    };
    let ((header, one), (_, two)) = (shard(1), shard(2));
    let manifest = header.manifest().clone();
    let payload = decode(&manifest, &[one, two], 0..manifest.payload_len).unwrap().to_vec();
    (manifest, payload)
}

fn flip(mut data: Vec<u8>, at: &Value) -> Vec<u8> {
    let len = i64::try_from(data.len()).unwrap();
    data[usize::try_from(at.as_i64().unwrap().rem_euclid(len)).unwrap()] ^= 1;
    data
}

#[test]
fn every_bad_vector_is_refused_and_its_base_is_not() {
    let (keys, index) = (keyring(), index());
    let vectors = index["bad"].as_array().unwrap();
    assert!(vectors.len() >= 21);
    for bad in vectors {
        let file = bad["file"].as_str().unwrap();
        let mut data = read(file);
        let base = if file == "forged.shard" { "bulk-0.shard" } else { file };
        assert!(open(&keys, &index, base, read(base), &Value::Null).is_ok(), "{file}");
        let change = &bad["change"];
        if !change["flip"].is_null() {
            data = flip(data, &change["flip"]);
        }
        let count = |name: &str| change[name].as_u64().and_then(|n| usize::try_from(n).ok());
        data.truncate(data.len() - count("cut").unwrap_or(0));
        data.truncate(count("keep").unwrap_or(data.len()));
        data.resize(data.len() + count("append").unwrap_or(0), 0);
        let refused = open(&keys, &index, file, data, &bad["place"]);
        assert!(refused.is_err_and(|error| error.is_integrity()), "accepted: {}", bad["why"]);
    }
}

#[test]
fn damaged_keyrings_claims_and_bodies_are_refused() {
    let (keys, index) = (keyring(), index());
    let master = MasterKey::from_bytes(hex::decode(read("master.key")).unwrap().try_into().unwrap());
    let version = index["keyring"]["version"].as_u64().unwrap();
    let keyring_name = KeyringNames::new(&master).keyring("alpha", version);
    let place = KeyringPlace::Provider { provider: "alpha", name: &keyring_name, version };
    let incarnation = IncarnationId::from_bytes(id(&index["claim"]["incarnation"]));
    let claim_name = Names::new(&keys.name).claim("alpha", incarnation, Epoch(index["claim"]["epoch"].as_u64().unwrap()));
    assert_eq!(index["claim"]["name"], claim_name.as_str());
    let claim = |data: &[u8]| Claim::open(&keys.head, &keys.identity.public(), keys.deployment, ("alpha", &claim_name), data);
    assert_eq!(claim(&read("claim.sealed")).unwrap().providers, generate::PROVIDERS);
    for bad in index["bad_bytes"].as_array().unwrap() {
        let refused = match bad["what"].as_str().unwrap() {
            "keyring" => Keyring::open(&master, &place, &flip(read("keyring.sealed"), &bad["flip"])).err(),
            "claim" => claim(&flip(read("claim.sealed"), &bad["flip"])).err(),
            what => {
                let (manifest, payload) = payload(&keys, &index, what.strip_prefix("payload of ").unwrap());
                CommitBody::open(&manifest, &payload, &keys).unwrap();
                CommitBody::open(&manifest, &flip(payload, &bad["flip"]), &keys).err()
            }
        };
        assert!(refused.is_some_and(|error| error.is_integrity()), "accepted: {bad}");
    }
}

/// Every record of the log, in order, and the tree over them.
fn log(keys: &Keyring, index: &Value) -> (Vec<Record>, LogTree) {
    let (mut records, mut tree) = (Vec::new(), LogTree::new());
    for label in ["decision", "commit"] {
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
        let added = log(&keys, &index).0.into_iter().find_map(|record| match record.into_parts().2 {
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
    let (records, tree) = log(&keys, &index);
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
