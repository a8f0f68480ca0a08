use std::collections::BTreeMap;

use super::*;
use crate::id::DeploymentId;
use crate::key::LogIdentity;
use crate::test_world::rng;

fn leaves(count: u64) -> Vec<Hash32> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

#[test]
fn roots_and_proofs_of_every_size_up_to_40() {
    let all = leaves(40);
    let mut tree = LogTree::new();
    let mut nodes = BTreeMap::new();
    let mut roots = vec![tree.root()];
    for leaf in &all {
        for (level, index, hash) in tree.append(*leaf) {
            assert!(nodes.insert((level, index), hash).is_none());
        }
        roots.push(tree.root());
    }
    let node = |level, index| nodes.get(&(level, index)).copied().ok_or(BlockError::Invalid { what: "node" });
    for size in 0..=40u64 {
        let at = usize::try_from(size).unwrap();
        let root = roots[at];
        assert_eq!(root, root_of(&all[..at]));
        assert_eq!(root, root_at(size, node).unwrap());
        for index in 0..size {
            let proof = inclusion_proof(index, size, node).unwrap();
            let leaf = &all[usize::try_from(index).unwrap()];
            proof.verify(leaf, &root).unwrap();
            assert!(proof.verify(&leaf_hash(b"other"), &root).is_err());
            assert!(InclusionProof { index: (index + 1) % size.max(2), ..proof.clone() }.verify(leaf, &root).is_err());
            let longer = InclusionProof { path: [proof.path.as_slice(), &[root]].concat(), ..proof };
            assert!(longer.verify(leaf, &root).is_err());
        }
        for old in 1..=size {
            let proof = consistency_proof(old, size, node).unwrap();
            let old_root = roots[usize::try_from(old).unwrap()];
            proof.verify(&old_root, &root).unwrap();
            assert!(proof.verify(&leaf_hash(b"other"), &root).is_err());
            assert!(proof.verify(&old_root, &leaf_hash(b"other")).is_err());
            let longer = ConsistencyProof { path: [proof.path.as_slice(), &[root]].concat(), ..proof };
            assert!(longer.verify(&old_root, &root).is_err());
        }
    }
    assert!(inclusion_proof(40, 40, node).is_err());
    assert!(consistency_proof(41, 40, node).is_err());
    let from_nothing = consistency_proof(0, 40, node).unwrap();
    assert!(from_nothing.path.is_empty());
    from_nothing.verify(&empty_root(), &roots[40]).unwrap();
    assert!(from_nothing.verify(&roots[1], &roots[40]).is_err());
    assert!(ConsistencyProof { path: vec![roots[1]], ..from_nothing }.verify(&empty_root(), &roots[40]).is_err());
    let empty = consistency_proof(0, 0, node).unwrap();
    empty.verify(&empty_root(), &empty_root()).unwrap();
    assert!(empty.verify(&empty_root(), &roots[1]).is_err());
    assert!(empty.verify(&roots[1], &roots[1]).is_err());
}

#[test]
fn a_proof_that_stops_below_the_root_is_refused() {
    // The hash alone would match: the tree's size says that more siblings are owed.
    let node = leaf_hash(b"node");
    assert!(InclusionProof { index: 0, size: 2, path: Vec::new() }.verify(&node, &node).is_err());
    assert!(ConsistencyProof { old_size: 2, new_size: 4, path: Vec::new() }.verify(&node, &node).is_err());
}

#[test]
fn known_answers_of_certificate_transparency() {
    // The eight entries of the RFC 6962 reference implementation (merkletree tests).
    let data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let all: Vec<Hash32> = data.iter().map(|text| leaf_hash(&hex::decode(text).unwrap())).collect();
    assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(all[0].to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(root_of(&all[..3]).to_string(), "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
    assert_eq!(root_of(&all).to_string(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
}

#[test]
fn a_checkpoint_opens_under_its_own_key_only() {
    let identity = LogIdentity::draw(&mut rng(1));
    let origin = KeyName::of(DeploymentId::from_bytes([3; 16]));
    let checkpoint = Checkpoint { origin, size: 77, root: leaf_hash(b"root") };
    let note = checkpoint.sign(&identity);
    assert_eq!(Checkpoint::open(&note, &identity.public()).unwrap(), checkpoint);
    assert!(Checkpoint::open(&note, &LogIdentity::draw(&mut rng(2)).public()).is_err());
    assert!(Checkpoint::open(&note.replace("\n77\n", "\n78\n"), &identity.public()).is_err());
    assert!(Checkpoint::open(&note.replace("\n77\n", "\n077\n"), &identity.public()).is_err());
    assert!(Checkpoint::open(&note[..note.len() - 1], &identity.public()).is_err());
    let witnessed = format!("{note}\u{2014} witness AAAAAAAA\n");
    assert_eq!(Checkpoint::open(&witnessed, &identity.public()).unwrap(), checkpoint);
    let vkey = verifier_key(&checkpoint.origin, &identity.public());
    let (name, rest) = vkey.split_once('+').unwrap();
    assert_eq!((name, rest.split_once('+').unwrap().0.len()), (checkpoint.origin.as_str(), 8));
}

#[test]
fn a_note_is_parsed_as_strictly_as_go_does() {
    let identity = LogIdentity::draw(&mut rng(1));
    let public = identity.public();
    let origin = KeyName::of(DeploymentId::from_bytes([3; 16]));
    let checkpoint = Checkpoint { origin, size: 77, root: leaf_hash(b"root") };
    let note = checkpoint.sign(&identity);
    let line = note.lines().last().unwrap();
    let with = |lines: &[&str]| format!("{}\n\n{}\n", note.split_once("\n\n").unwrap().0, lines.join("\n"));
    assert_eq!(with(&[line]), note);
    let open = |note: &str| Checkpoint::open(note, &public);
    let witness = "\u{2014} witness AAAAAAAA";
    assert!(open(&with(&[witness, line])).is_ok());
    for junk in [
        "",
        "junk",
        "\u{2014} witness",
        "\u{2014} witness ",
        "\u{2014} witness AAAA",
        "\u{2014} witness !!!!",
        "\u{2014}  AAAAAAAA",
        "\u{2014} a+b AAAAAAAA",
    ] {
        assert!(open(&with(&[line, junk])).is_err(), "{junk:?}");
        assert!(open(&with(&[junk, line])).is_err(), "{junk:?}");
    }
    // The first line of the key decides: a good one behind a forged one does not help.
    let mut forged = Checkpoint { size: 78, ..checkpoint.clone() }.sign(&identity);
    forged = forged.lines().last().unwrap().to_owned();
    assert!(open(&with(&[line, &forged])).is_ok());
    assert!(open(&with(&[&forged, line])).is_err());
    assert!(open(&with(&[&vec![witness; 99], [line].as_slice()].concat())).is_ok());
    assert!(open(&with(&[&vec![witness; 100], [line].as_slice()].concat())).is_err());
    assert!(open(&note.replace('\n', "\r\n")).is_err());
    assert!(open(&note.replacen(' ', " \t", 1)).is_err());
    // A log without leaves has one root.
    let empty = Checkpoint { size: 0, root: empty_root(), ..checkpoint.clone() };
    assert_eq!(open(&empty.sign(&identity)).unwrap(), empty);
    assert!(open(&Checkpoint { size: 0, ..checkpoint }.sign(&identity)).is_err());
}

#[test]
fn tiles_lie_where_c2sp_says() {
    assert_eq!(tile::tile_path(0, 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(tile::tile_path(1, 0, 17), "tile/1/000.p/17");
    assert_eq!(tile::entries_path(5, 256), "tile/entries/005");
    assert_eq!(tile::tiles(0, 513).collect::<Vec<_>>(), [(0, 256), (1, 256), (2, 1)]);
    assert_eq!(tile::tiles(1, 513).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(tile::tiles(2, 513).count(), 0);
    let node = |_: u8, index: u64| Ok::<_, BlockError>(leaf_hash(&index.to_be_bytes()));
    assert_eq!(tile::tile(0, 0, 3, node).unwrap().len(), 96);
}
