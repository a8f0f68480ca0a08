use proptest::prelude::*;

use super::*;
use crate::block::SignedBlock;
use crate::commit::open_whole;
use crate::decode::{decode, reconstruct};
use crate::id::{Attempt, Counter};
use crate::key::HeaderKey;
use crate::name::Names;
use crate::test_world::{PROVIDERS, World, address, bytes};

fn open(world: &World, block: &SignedBlock, index: u8, name: &ObjectName, object: &Bytes) -> Result<(ShardHeader, VerifiedCells)> {
    let provider = PROVIDERS[usize::from(index) % PROVIDERS.len()];
    let public = world.keys.identity.public();
    VerifiedCells::open_object(&world.keys.header, &public, world.keys.deployment, &address(block, provider), name, object)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_k_objects_give_the_payload_back(k in 1u8..4, f in 1u8..3, len in 1usize..400_000, seed in any::<u64>(), a in any::<u32>(), b in any::<u32>()) {
        let mut world = World::new(seed);
        let plain = bytes(seed, len);
        let (block, section) = world.bulk(&plain, k, k + f);
        let mut order: Vec<u8> = (0..k + f).collect();
        order.sort_by_key(|i| *blake3::hash(&[seed.to_be_bytes().as_slice(), &[*i]].concat()).as_bytes());
        let mut cells = Vec::new();
        for index in order.iter().take(usize::from(k)) {
            let (name, object) = world.object(&block, *index);
            let (header, verified) = open(&world, &block, *index, &name, &object).unwrap();
            prop_assert_eq!(header.manifest(), block.manifest());
            cells.push(verified);
        }
        let manifest = block.manifest();
        let payload = decode(manifest, &cells, 0..manifest.payload_len).unwrap();
        prop_assert_eq!(&payload, &block.payload());
        prop_assert_eq!(open_whole(&manifest.position, 0, &section, &payload, &world.keys).unwrap(), plain);
        let (a, b) = (a % (manifest.payload_len + 1), b % (manifest.payload_len + 1));
        let range = a.min(b)..a.max(b);
        let part = decode(manifest, &cells, range.clone()).unwrap();
        prop_assert_eq!(part.as_ref(), &payload[range.start as usize..range.end as usize]);
        let missing = order[usize::from(k)];
        let rebuilt = reconstruct(manifest, &cells, missing, 0..manifest.shard_len).unwrap();
        prop_assert_eq!(&rebuilt, &block.body(missing).unwrap());
        let short = reconstruct(manifest, &cells[1..], missing, 0..1);
        prop_assert_eq!(short, Err(BlockError::TooFewShards { need: k, have: k - 1 }));
        let name = world.names().shard(&address(&block, "spare"));
        let header = block.header().clone();
        prop_assert!(header.object_for(missing, rebuilt.clone(), "spare", &name, &world.keys.header, &mut world.rng).is_ok());
        let mut wrong = rebuilt.to_vec();
        wrong[0] ^= 1;
        prop_assert!(header.object_for(missing, wrong.into(), "spare", &name, &world.keys.header, &mut world.rng).is_err());
    }

    #[test]
    fn any_flipped_byte_is_refused_before_decoding(seed in any::<u64>(), at in any::<usize>(), bit in 0u8..8, cut in 1usize..3000) {
        let mut world = World::new(seed % 4);
        let (block, _) = world.bulk(&bytes(seed, 150_000), 2, 3);
        let (name, object) = world.object(&block, 1);
        prop_assert!(open(&world, &block, 1, &name, &object).is_ok());
        let mut flipped = object.to_vec();
        let at = at % flipped.len();
        flipped[at] ^= 1 << bit;
        prop_assert!(open(&world, &block, 1, &name, &flipped.into()).unwrap_err().is_integrity());
        prop_assert!(open(&world, &block, 1, &name, &object.slice(..object.len() - cut)).is_err());
        prop_assert!(open(&world, &block, 1, &name, &[object.as_ref(), &vec![0; cut]].concat().into()).is_err());
    }
}

#[test]
fn a_wrong_cell_is_named_and_the_others_are_kept() {
    let mut world = World::new(5);
    let (block, _) = world.bulk(&bytes(5, 600_000), 2, 3);
    let (name, object) = world.object(&block, 0);
    let (header, _) = open(&world, &block, 0, &name, &object).unwrap();
    let end = HEADER_LEN + header.manifest().shard_len as usize;
    let leaves = LeafList::open(&world.keys.header, &header, &address(&block, PROVIDERS[0]), &name, &object[end..]).unwrap();
    let mut body = object.slice(HEADER_LEN..end).to_vec();
    body[CELL_LEN * 2 + 17] ^= 0x40;
    let wrong = VerifiedCells::check(&leaves, 0, body.clone().into()).unwrap_err();
    assert_eq!(wrong, BlockError::WrongCells { shard: 0, cells: vec![2] });
    assert!(VerifiedCells::check(&leaves, 0, Bytes::from(body.clone()).slice(..CELL_LEN * 2)).is_ok());
    // Right cells at another place, and cells cut short, are refused as well.
    assert!(VerifiedCells::check(&leaves, 1, Bytes::from(body.clone()).slice(..CELL_LEN)).is_err());
    assert!(VerifiedCells::check(&leaves, 0, Bytes::from(body).slice(..CELL_LEN - 1)).is_err());
    assert!(VerifiedCells::check(&leaves, u32::MAX, Bytes::new()).is_err());
}

#[test]
fn a_shard_opens_only_at_its_own_place() {
    let mut world = World::new(6);
    let (block, _) = world.bulk(&bytes(6, 9000), 2, 4);
    let (name, object) = world.object(&block, 0);
    let here = address(&block, PROVIDERS[0]);
    let public = world.keys.identity.public();
    let open = |key: &HeaderKey, public: &LogPublicKey, deployment, address: &ShardAddress<'_>, name: &ObjectName| {
        VerifiedCells::open_object(key, public, deployment, address, name, &object)
    };
    let keys = &world.keys;
    assert!(open(&keys.header, &public, keys.deployment, &here, &name).is_ok());
    let elsewhere = [
        ShardAddress { provider: "beta", ..here },
        ShardAddress { counter: Counter(8), ..here },
        ShardAddress { attempt: Attempt(0), ..here },
        ShardAddress { incarnation: crate::id::IncarnationId::NIL, ..here },
        ShardAddress { kind: crate::manifest::BlockKind::Commit, ..here },
    ];
    for place in elsewhere {
        assert!(open(&keys.header, &public, keys.deployment, &place, &name).is_err(), "{place:?}");
    }
    let other_name = Names::new(&keys.name).shard(&ShardAddress { provider: "beta", ..here });
    assert!(open(&keys.header, &public, keys.deployment, &here, &other_name).is_err());
    let other = World::new(7);
    assert!(open(&other.keys.header, &public, keys.deployment, &here, &name).is_err());
    assert!(open(&keys.header, &other.keys.identity.public(), keys.deployment, &here, &name).is_err());
    assert!(open(&keys.header, &public, other.keys.deployment, &here, &name).is_err());
}

#[test]
fn shards_of_another_attempt_never_mix_in() {
    let mut world = World::new(8);
    let (block, _) = world.bulk(&bytes(8, 50_000), 2, 3);
    let (again, _) = world.bulk(&bytes(8, 50_000), 2, 3);
    let mut cells = Vec::new();
    for (from, index) in [(&block, 0), (&again, 2)] {
        let (name, object) = world.object(from, index);
        cells.push(open(&world, from, index, &name, &object).unwrap().1);
    }
    let refused = decode(block.manifest(), &cells, 0..block.manifest().payload_len);
    assert_eq!(refused, Err(BlockError::TooFewShards { need: 2, have: 1 }));
}

#[test]
fn a_journaled_payload_gives_the_same_block_again() {
    let mut world = World::new(9);
    let (block, _) = world.bulk(&bytes(9, 70_000), 3, 5);
    let again = SignedBlock::from_issued(block.manifest(), block.payload(), &world.keys.identity).unwrap();
    assert_eq!(again.header(), block.header());
    assert_eq!(again.body(4).unwrap(), block.body(4).unwrap());
    let mut altered = block.payload();
    altered[3] ^= 1;
    assert!(SignedBlock::from_issued(block.manifest(), altered, &world.keys.identity).is_err());
}
