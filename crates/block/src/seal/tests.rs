use proptest::prelude::*;

use super::cipher::ReferenceCipher;
use super::*;
use crate::test_world::{bytes, rng};

const KEY: [u8; 32] = [7; 32];

fn context(log2: u8) -> Context {
    Context::new(SealType::Section, DeploymentId::from_bytes([1; 16])).segments(log2).field(b"place")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn ranges_equal_slices_and_engines_agree(len in 0usize..40_000, log2 in 9u8..=16, a in any::<usize>(), b in any::<usize>(), seed in any::<u64>()) {
        let plain = bytes(seed, len);
        let sealed = seal_object(&KEY, Salt::draw(&mut rng(seed)), &context(log2), &plain).unwrap();
        prop_assert_eq!(sealed.len() as u64, sealed_len(len as u64, log2));
        prop_assert_eq!(plain_len(sealed.len() as u64, log2), Some(len as u64));
        let mut reference = spread(&plain, log2);
        seal_in_place_with::<ReferenceCipher>(&KEY, Salt::draw(&mut rng(seed)), &context(log2), &mut reference).unwrap();
        prop_assert_eq!(&sealed, &reference);
        prop_assert_eq!(&open_object(&KEY, &context(log2), &sealed, len, "x").unwrap(), &plain);
        let (a, b) = (a % (len + 1), b % (len + 1));
        let range = a.min(b) as u64..a.max(b) as u64;
        if range.is_empty() {
            prop_assert!(span(range, len as u64, log2).is_err(), "no bytes are no span");
            return Ok(());
        }
        let part = span(range.clone(), len as u64, log2).unwrap();
        let prefix = sealed.first_chunk().unwrap();
        let bytes = &sealed[usize::try_from(part.sealed.start).unwrap()..usize::try_from(part.sealed.end).unwrap()];
        let fast = Opener::new(&KEY, &context(log2), len as u64, prefix, "x").unwrap().open_span(&part, bytes).unwrap();
        let slow = Opener::<ReferenceCipher>::new_with(&KEY, &context(log2), len as u64, prefix, "x").unwrap().open_span(&part, bytes).unwrap();
        prop_assert_eq!(&fast, &plain[a.min(b)..a.max(b)]);
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn a_segment_opens_where_it_stands_or_not_at_all(len in 1usize..4096, at in any::<usize>(), bit in 0u8..8, seed in any::<u64>()) {
        let plain = bytes(seed, len);
        let sealed = seal_object(&KEY, Salt::draw(&mut rng(seed)), &context(12), &plain).unwrap();
        let (prefix, segment) = sealed.split_first_chunk::<PREFIX_LEN>().unwrap();
        let fast = Opener::new(&KEY, &context(12), len as u64, prefix, "x").unwrap();
        let slow = Opener::<ReferenceCipher>::new_with(&KEY, &context(12), len as u64, prefix, "x").unwrap();
        let (mut one, mut two, mut flipped) = (segment.to_vec(), segment.to_vec(), segment.to_vec());
        prop_assert_eq!(fast.open_segment_in_place(0, &mut one).unwrap(), len);
        prop_assert_eq!(slow.open_segment_in_place(0, &mut two).unwrap(), len);
        prop_assert_eq!(&one[..len], &plain);
        prop_assert_eq!(&two[..len], &plain);
        flipped[at % segment.len()] ^= 1 << bit;
        prop_assert!(slow.open_segment_in_place(0, &mut flipped.clone()).is_err());
        prop_assert!(fast.open_segment_in_place(0, &mut flipped).is_err());
        prop_assert!(fast.open_segment_in_place(0, &mut segment.to_vec()[1..]).is_err());
    }

    #[test]
    fn any_altered_cut_or_extended_form_is_refused(len in 0usize..5000, at in any::<usize>(), bit in 0u8..8, cut in 1usize..80, seed in any::<u64>()) {
        let sealed = seal_object(&KEY, Salt::draw(&mut rng(seed)), &context(9), &bytes(seed, len)).unwrap();
        let open = |bytes: &[u8]| open_object(&KEY, &context(9), bytes, 1 << 20, "x");
        let mut flipped = sealed.clone();
        flipped[at % sealed.len()] ^= 1 << bit;
        prop_assert!(open(&flipped).is_err());
        prop_assert!(open(&sealed[..sealed.len().saturating_sub(cut)]).is_err());
        prop_assert!(open(&[sealed.as_slice(), &vec![0; cut]].concat()).is_err());
    }
}

#[test]
fn every_field_of_the_context_counts() {
    let sealed = seal_object(&KEY, Salt::draw(&mut rng(1)), &context(9), b"bytes").unwrap();
    let other = DeploymentId::from_bytes([2; 16]);
    let wrong = [
        Context::new(SealType::Head, DeploymentId::from_bytes([1; 16])).segments(9).field(b"place"),
        Context::new(SealType::Section, other).segments(9).field(b"place"),
        Context::new(SealType::Section, DeploymentId::from_bytes([1; 16])).segments(10).field(b"place"),
        context(9).field(&[1]),
        Context::new(SealType::Section, DeploymentId::from_bytes([1; 16])).segments(9).field(b"plact"),
    ];
    for context in wrong {
        let refused = open_object(&KEY, &context, &sealed, 100, "x");
        assert_eq!(refused, Err(BlockError::NotAuthentic { what: "x" }), "{context:?}");
    }
    assert!(open_object(&[8; 32], &context(9), &sealed, 100, "x").is_err());
}

#[test]
fn a_meaning_wider_than_the_context_is_folded_not_dropped() {
    let wide = |last: u8| Context::new(SealType::Section, DeploymentId::NIL).field(&[3; 120]).field(&[last; 20]);
    assert_ne!(wide(1), wide(2));
}

#[test]
fn swapped_segments_are_refused() {
    let sealed = seal_object(&KEY, Salt::draw(&mut rng(2)), &context(9), &bytes(2, 1024)).unwrap();
    let (prefix, body) = sealed.split_at(PREFIX_LEN);
    let (first, second) = body.split_at(512 + TAG_LEN);
    assert!(open_object(&KEY, &context(9), &[prefix, second, first].concat(), 2000, "x").is_err());
}

#[test]
fn two_copies_of_a_disk_never_share_a_key() {
    // The same bytes sealed by two processes with the same keyring: fresh salts give unrelated keys, hence no pair repeats.
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        let sealed = seal_object(&KEY, Salt::draw(&mut rng(seed)), &context(9), b"same").unwrap();
        assert!(seen.insert(sealed[..PREFIX_LEN].to_vec()));
    }
}
