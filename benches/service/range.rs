//! Small ranges out of a large blob.

use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::Data;
use crate::stage::{Stage, headline};
use crate::usage::{float, load, ms, percentile, size};
use crate::{Measured, Setting};

/// Flags of `range`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Bytes of the blob.
    #[arg(long, default_value = "1GiB", value_parser = size)]
    size: u64,
    /// Bytes of a range.
    #[arg(long, default_value = "64KiB", value_parser = size)]
    bytes: u64,
    /// Ranges read, one after the other, at random places.
    #[arg(long, default_value_t = 500)]
    reads: usize,
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("range", &flags.setting);
    let data = Data::Random { seed: flags.setting.seed, len: flags.size };
    let mut stage = Stage::set(&flags.setting, false).await?;
    stage.client.put("big", &data).await?;
    stage.client.settle().await?;
    stage = Box::pin(stage.restart()).await?;
    let mut rng = ChaCha8Rng::seed_from_u64(flags.setting.seed);
    let ranges: Vec<_> = (0..flags.reads)
        .map(|_| {
            let start = rng.next_u64() % (flags.size - flags.bytes).max(1);
            start..start + flags.bytes
        })
        .collect();
    let expected: Vec<_> = ranges.iter().map(|range| data.slice(range.clone())).collect();
    println!("# {} ranges of {} bytes out of {} MiB, load {}", flags.reads, flags.bytes, flags.size >> 20, load());
    let before = stage.mark()?;
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for (range, expected) in ranges.iter().zip(&expected) {
        let took = stage.client.get_bytes("big", Some(range.clone()), expected).await?;
        first.push(took.first);
        whole.push(took.whole);
    }
    let after = stage.mark()?;
    first.sort_unstable();
    whole.sort_unstable();
    let (moved, reads) = (after.providers - before.providers, float(flags.reads as u64));
    println!(
        "first byte p50 {:.3} ms p99 {:.3} ms; whole p50 {:.3} ms p99 {:.3} ms; {:.3} provider requests and {:.0} provider bytes per read; \
         service {:.0} us of CPU each",
        ms(percentile(&first, 50)),
        ms(percentile(&first, 99)),
        ms(percentile(&whole, 50)),
        ms(percentile(&whole, 99)),
        float(moved.gets) / reads,
        float(moved.bytes_out) / reads,
        after.service.since(&before.service).as_secs_f64() * 1e6 / reads,
    );
    stage.node.stop()
}
