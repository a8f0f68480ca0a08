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

use diaspore_block::erasure::coder::{DefaultCoder, ReferenceCoder};
use diaspore_block::erasure::{parity_with, rebuild_with};
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{Attempt, Counter, DeploymentId, IncarnationId};
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::log::Checkpoint;
use diaspore_block::manifest::BlockKind;
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::seal::cipher::{DefaultCipher, ReferenceCipher, SegmentCipher};
use diaspore_block::seal::{Context, Opener, SealType, span};
use diaspore_block::shard::VerifiedCells;
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
    let name = KeyringNames::new(&master).keyring("alpha", 2);
    Keyring::open(&master, &KeyringPlace::Provider { provider: "alpha", name: &name, version: 2 }, &read("keyring.sealed")).unwrap()
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

/// Where a shard file of the vectors lies, with the changes a bad vector makes to its place.
fn opens(keys: &Keyring, index: &Value, file: &str, data: Vec<u8>, place: &Value) -> bool {
    let block = index["blocks"].as_array().unwrap().iter().find(|b| file.starts_with(b["kind"].as_str().unwrap())).unwrap();
    let shard = usize::from(file.as_bytes()[file.len() - "0.shard".len()] - b'0');
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
    VerifiedCells::open_object(&keys.header, &keys.identity.public(), deployment, &address, &name, &data.into()).is_ok()
}

#[test]
fn every_bad_vector_is_refused_and_its_base_is_not() {
    let (keys, index) = (keyring(), index());
    let vectors = index["bad"].as_array().unwrap();
    assert!(vectors.len() >= 17);
    for bad in vectors {
        let file = bad["file"].as_str().unwrap();
        let mut data = read(file);
        assert!(opens(&keys, &index, file, data.clone(), &Value::Null), "{file}");
        let change = &bad["change"];
        if let Some(at) = change["flip"].as_i64() {
            let len = i64::try_from(data.len()).unwrap();
            data[usize::try_from(at.rem_euclid(len)).unwrap()] ^= 1;
        }
        let count = |name: &str| change[name].as_u64().and_then(|n| usize::try_from(n).ok());
        data.truncate(data.len() - count("cut").unwrap_or(0));
        data.truncate(count("keep").unwrap_or(data.len()));
        data.resize(data.len() + count("append").unwrap_or(0), 0);
        assert!(!opens(&keys, &index, file, data, &bad["place"]), "accepted: {}", bad["why"]);
    }
}

#[test]
fn the_checkpoint_opens_under_the_published_key() {
    let note = String::from_utf8(read("checkpoint.note")).unwrap();
    assert_eq!(Checkpoint::open(&note, &keyring().identity.public()).unwrap().size, 2);
}
