use diaspore_block::id::Hash32;
use diaspore_block::log::root_of;
use diaspore_block::record::{MayHaveLost, PublicPart};

use crate::fixture::record_at;
use crate::state::{Changes, Model};

#[test]
fn every_root_and_proof_agrees_with_the_leaves() {
    let leaves: Vec<PublicPart> =
        (0..70).map(|time| *record_at(MayHaveLost { seqs: vec![], reason: String::new() }, time).public()).collect();
    let hashes: Vec<Hash32> = leaves.iter().map(PublicPart::leaf).collect();
    let mut model = Model::default();
    for pair in leaves.chunks(3) {
        let empty = model.clone();
        let mut changes = Changes::new(&empty);
        let tree = super::append(&mut changes, pair.iter()).unwrap();
        model.absorb(changes.into_cells());
        assert_eq!(super::root(&model, tree.size()).unwrap(), tree.root());
    }
    assert_eq!(super::size(&model).unwrap(), 70);
    for size in 1..=70 {
        let root = super::root(&model, size).unwrap();
        assert_eq!(root, root_of(&hashes[..usize::try_from(size).unwrap()]));
        for index in 0..size {
            let proof = super::inclusion(&model, index, size).unwrap();
            proof.verify(&hashes[usize::try_from(index).unwrap()], &root).unwrap();
        }
        for old in 1..=size {
            let proof = super::consistency(&model, old, size).unwrap();
            proof.verify(&super::root(&model, old).unwrap(), &root).unwrap();
        }
    }
    assert_eq!(super::node(&model, 6, 0).unwrap(), root_of(&hashes[..64]));
    assert!(super::node(&model, 6, 1).is_err());
    assert!(super::root(&model, 71).is_err());
}
