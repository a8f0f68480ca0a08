use proptest::prelude::*;

use super::coder::ReferenceCoder;
use super::*;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_k_of_n_rebuild_and_both_coders_agree(k in 1u8..8, f in 1u8..6, len in 1usize..3000, seed in any::<u64>()) {
        let geometry = Geometry::new(k, k + f).unwrap();
        let data: Vec<Vec<u8>> = (0..k).map(|i| bytes(seed ^ u64::from(i), len)).collect();
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let parity = parity(geometry, &slices, len).unwrap();
        prop_assert_eq!(&parity, &parity_with::<ReferenceCoder>(geometry, &slices, len).unwrap());
        let all: Vec<&[u8]> = slices.iter().copied().chain(parity.chunks(len)).collect();
        // A pseudo-random choice of k survivors, then every missing shard.
        let mut order: Vec<u8> = (0..geometry.n()).collect();
        order.sort_by_key(|i| *blake3::hash(&[seed.to_be_bytes().as_slice(), &[*i]].concat()).as_bytes());
        let present: Vec<(u8, &[u8])> = order.iter().take(usize::from(k)).map(|i| (*i, all[usize::from(*i)])).collect();
        for wanted in order.iter().skip(usize::from(k)) {
            let rebuilt = rebuild(geometry, &present, *wanted).unwrap();
            prop_assert_eq!(rebuilt.as_slice(), all[usize::from(*wanted)]);
            prop_assert_eq!(rebuilt, rebuild_with::<ReferenceCoder>(geometry, &present, *wanted).unwrap());
        }
    }
}

#[test]
fn columns_do_not_show() {
    let geometry = Geometry::new(2, 4).unwrap();
    let len = 2 * COLUMN_LEN + 77;
    let (a, b) = (bytes(1, len), bytes(2, len));
    let whole = parity(geometry, &[&a, &b], len).unwrap();
    let edge = COLUMN_LEN - 5..COLUMN_LEN + 9;
    let part = parity(geometry, &[&a[edge.clone()], &b[edge.clone()]], edge.len()).unwrap();
    assert_eq!(&whole[edge.clone()], &part[..edge.len()]);
}

#[test]
fn unequal_or_too_few_shards_are_refused() {
    let geometry = Geometry::new(2, 3).unwrap();
    assert!(parity(geometry, &[&[1, 2], &[3]], 2).is_err());
    assert!(rebuild(geometry, &[(0, &[1, 2])], 2).is_err());
    assert!(rebuild(geometry, &[(0, &[1, 2]), (0, &[1, 2])], 2).is_err());
    assert!(rebuild(geometry, &[(0, &[1, 2]), (9, &[1, 2])], 2).is_err());
}
