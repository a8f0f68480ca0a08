//! Compares the two chunkers on 256 MiB of random bytes and 256 MiB of sources: CPU per byte, mean size, and how much of an
//! edited copy is found again. `cargo run --release --example chunking -- FOLDER`
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a measuring program for the terminal"
)]

use fastcdc::v2020 as fast;
use mothcdc::mincdc::{MinCdcHash4, SliceChunker};
use std::collections::HashSet;
use std::path::Path;

const SIZE: usize = 256 << 20;
const MULTIPLIER: u32 = 0x9e37_79b1;
type Cut = Box<dyn Fn(&[u8]) -> Vec<(usize, usize)>>;

const ADDEND: u32 = 0x1234_5677;

fn cpu_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
fn random(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}
fn gather(folder: &Path, out: &mut Vec<u8>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if out.len() >= SIZE {
            return;
        }
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            gather(&path, out);
        } else if let Ok(b) = std::fs::read(&path) {
            out.extend_from_slice(&b);
        }
    }
}
/// A copy with an insertion of 1..=64 bytes about every `gap` bytes.
fn edited(data: &[u8], gap: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / gap * 64);
    let noise = random(data.len() / gap * 80 + 1024);
    let (mut at, mut n) = (0, 0);
    while at < data.len() {
        let step = (gap / 2 + usize::from(noise[n]) * gap / 256).min(data.len() - at);
        out.extend_from_slice(&data[at..at + step]);
        let len = 1 + usize::from(noise[n + 1] & 63);
        out.extend_from_slice(&noise[n + 2..n + 2 + len]);
        n += 2 + len;
        at += step;
    }
    out
}
fn fastcdc(data: &[u8], min: usize, avg: usize, max: usize, level: fast::Normalization) -> Vec<(usize, usize)> {
    fast::FastCDC::with_level_and_seed(data, min, avg, max, level, 0x5eed_5eed_5eed_5eed).map(|c| (c.offset, c.length)).collect()
}
fn mothcdc(data: &[u8], min: usize, max: usize) -> Vec<(usize, usize)> {
    SliceChunker::new(data, min, max, MinCdcHash4::with_params(MULTIPLIER, ADDEND)).map(|c| (c.offset() as usize, c.len())).collect()
}
fn main() {
    let folder = std::env::args().nth(1).expect("a folder of sources");
    let mut sources = Vec::with_capacity(SIZE + (64 << 20));
    gather(Path::new(&folder), &mut sources);
    sources.truncate(SIZE);
    let random = random(SIZE);
    let k = 1024;
    let rows: Vec<(&str, Cut)> = vec![
        ("fastcdc 5  64K/256K/1M level1", Box::new(move |d| fastcdc(d, 64 * k, 256 * k, k * k, fast::Normalization::Level1))),
        ("fastcdc 5  64K/256K/1M level2", Box::new(move |d| fastcdc(d, 64 * k, 256 * k, k * k, fast::Normalization::Level2))),
        ("mothcdc 0.7 64K..448K", Box::new(move |d| mothcdc(d, 64 * k, 448 * k))),
        ("mothcdc 0.7 128K..384K", Box::new(move |d| mothcdc(d, 128 * k, 384 * k))),
        ("mothcdc 0.7 64K..1M", Box::new(move |d| mothcdc(d, 64 * k, k * k))),
    ];
    println!(
        "{:32} {:8} {:>8} {:>10} {:>8} {:>8} {:>10} {:>10}",
        "chunker", "data", "ns/B", "mean KiB", "min K", "max K", "again 2M", "again 8M"
    );
    for (data_name, data) in [("random", &random), ("sources", &sources)] {
        let e2 = edited(data, 2 << 20);
        let e8 = edited(data, 8 << 20);
        for (name, cut) in &rows {
            let mut costs: Vec<u64> = (0..5)
                .map(|_| {
                    let t = cpu_ns();
                    std::hint::black_box(cut(data));
                    cpu_ns() - t
                })
                .collect();
            costs.sort_unstable();
            let chunks = cut(data);
            let known: HashSet<[u8; 32]> = chunks.iter().map(|&(o, l)| *blake3::hash(&data[o..o + l]).as_bytes()).collect();
            let again = |copy: &[u8]| {
                let found: usize =
                    cut(copy).iter().filter(|&&(o, l)| known.contains(blake3::hash(&copy[o..o + l]).as_bytes())).map(|c| c.1).sum();
                100.0 * found as f64 / copy.len() as f64
            };
            let body = &chunks[..chunks.len() - 1];
            println!(
                "{name:32} {data_name:8} {:8.3} {:10.1} {:8} {:8} {:9.1}% {:9.1}%",
                costs[2] as f64 / data.len() as f64,
                data.len() as f64 / chunks.len() as f64 / 1024.0,
                body.iter().map(|c| c.1).min().unwrap_or(0) / k,
                body.iter().map(|c| c.1).max().unwrap_or(0) / k,
                again(&e2),
                again(&e8)
            );
        }
    }
}
