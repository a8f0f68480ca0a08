//! Every decoder of untrusted bytes under mutated golden vectors: none panics, none takes what it would not write, none allocates
//! more than its limits allow. The targets are those of the fuzzer; the inputs follow from a fixed seed, so a failure comes again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test crate: its helpers stand outside #[test] functions")]

#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the same source is the fuzzer's library")]
mod targets;

use std::panic::catch_unwind;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use targets::TARGETS;

const INPUTS: usize = 200_000;
/// What the process may grow by while it reads: the longest object and its plaintext several times over.
const MEMORY_KIB: u64 = 64 << 10;

/// Highest resident size of this process so far, in KiB, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// A few changes to one of the seeds.
fn mutated(seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut data = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=data.len());
        let interesting = [0, 1, 2, 0x7f, 0x80, 0xff, 255 - rng.random_range(0..4)][rng.random_range(0..7)];
        match rng.random_range(0..8) {
            0 | 1 if at < data.len() => data[at] ^= 1 << rng.random_range(0..8),
            2 if at < data.len() => data[at] = interesting,
            // A count or a length.
            3 if at + 4 <= data.len() => {
                let wild: u32 =
                    [0, 1, u32::MAX, 1 << 31, 1 << 24, rng.next_u32(), u32::try_from(data.len()).unwrap()][rng.random_range(0..7)];
                data[at..at + 4].copy_from_slice(&wild.to_be_bytes());
            }
            4 => data.truncate(at),
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                data.splice(at.., other[from..].iter().copied());
            }
            6 => {
                let mut more = vec![interesting; rng.random_range(1..64)];
                if rng.random_bool(0.5) {
                    rng.fill_bytes(&mut more);
                }
                data.splice(at..at, more);
            }
            _ => data.extend([interesting; 5]),
        }
    }
    data
}

#[test]
fn no_bytes_make_a_decoder_panic_or_swell() {
    let golden = targets::golden();
    for target in TARGETS {
        for seed in (target.seeds)(golden) {
            (target.run)(&seed);
        }
    }
    let before = peak();
    let shares: usize = TARGETS.iter().map(|target| target.share).sum();
    let mut fed = 0;
    for target in TARGETS {
        let seeds = (target.seeds)(golden);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let mut rng = ChaCha8Rng::seed_from_u64(target.name.bytes().fold(0, |sum, byte| u64::wrapping_mul(sum, 31) + u64::from(byte)));
        for _ in 0..INPUTS.div_ceil(shares) * target.share {
            let data = mutated(&seeds, &mut rng);
            let outcome = catch_unwind(|| targets::run(target.name, &data));
            assert!(outcome.is_ok(), "{} panics on {}", target.name, hex::encode(&data));
            fed += 1;
        }
    }
    assert!(fed >= INPUTS);
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before < MEMORY_KIB, "{before} KiB before, {after} KiB after");
    }
}
