//! What one provider's fault adds to the first byte of a read: at the moment it strikes, and while it lasts.

use std::time::Duration;

use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::Data;
use crate::stage::{Stage, headline};
use crate::usage::{float, load, ms, percentile, size};
use crate::{Measured, Setting};

const BYTES: u64 = 64 << 10;
/// Name, and the plan in testkit's text form.
const FAULTS: [(&str, &str); 5] =
    [("down", "down"), ("freeze", "freeze"), ("error", "error-before"), ("flip", "flip 8 on get"), ("slow", "latency 500ms 100ms")];

/// Flags of `failover`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Bytes of the blob that is read.
    #[arg(long, default_value = "256MiB", value_parser = size)]
    size: u64,
    /// How often each fault strikes: another provider each time, and a service that has seen no fault before.
    #[arg(long, default_value_t = 5)]
    strikes: usize,
    /// Reads during each strike, one after the other.
    #[arg(long, default_value_t = 40)]
    reads: usize,
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("failover", &flags.setting);
    println!("# reads of {BYTES} bytes at random places of {} MiB, load {}", flags.size >> 20, load());
    let data = Data::Random { seed: flags.setting.seed, len: flags.size }.hold();
    let mut stage = Stage::set(&flags.setting, false).await?;
    stage.client.put("big", &data).await?;
    stage.client.settle().await?;
    let mut rng = ChaCha8Rng::seed_from_u64(flags.setting.seed);
    let mut well = Vec::new();
    for (name, plan) in FAULTS {
        let (mut hurt, mut worst, mut requests) = (Vec::new(), Vec::new(), 0);
        for strike in 0..flags.strikes {
            stage = Box::pin(stage.restart()).await?;
            reads(&stage, &data, &mut rng, flags.reads).await?;
            well.extend(reads(&stage, &data, &mut rng, flags.reads).await?);
            let before = stage.emulators.state()?;
            stage.emulators.plan(Some(strike % flags.setting.providers), plan)?;
            let times = reads(&stage, &data, &mut rng, flags.reads).await?;
            requests += (stage.emulators.state()? - before).gets;
            stage.emulators.plan(None, "")?;
            worst.extend(times.iter().max());
            hurt.extend(times);
        }
        well.sort_unstable();
        hurt.sort_unstable();
        worst.sort_unstable();
        let added = |percent: usize| ms(percentile(&hurt, percent)) - ms(percentile(&well, percent));
        println!(
            "{name:<7} first byte p50 {:+8.2} ms  p99 {:+8.2} ms  longest of each strike p50 {:8.2} ms  max {:8.2} ms  {:.2} requests per read",
            added(50),
            added(99),
            ms(percentile(&worst, 50)),
            ms(percentile(&worst, 100)),
            float(requests) / float((flags.strikes * flags.reads) as u64),
        );
    }
    println!("healthy first byte p50 {:.2} ms  p99 {:.2} ms  ({} reads)", ms(percentile(&well, 50)), ms(percentile(&well, 99)), well.len());
    stage.node.stop()
}

async fn reads(stage: &Stage, data: &Data, rng: &mut ChaCha8Rng, count: usize) -> Measured<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = rng.next_u64() % (data.len() - BYTES);
        let range = start..start + BYTES;
        times.push(stage.client.get_bytes("big", Some(range.clone()), &data.slice(range)).await?.first);
    }
    Ok(times)
}
