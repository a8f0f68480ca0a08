//! What one provider's fault adds to the first byte of a read, at the moment it strikes and while it lasts, and what it does to writes.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::data::Data;
use crate::stage::{Stage, headline};
use crate::usage::{float, load, ms, percentile, size};
use crate::{Measured, Setting};

const BYTES: u64 = 64 << 10;
const WRITE_BYTES: usize = 4096;
/// Name, and the plan in testkit's text form. A black hole takes requests and never answers: what a dropped packet looks like to whoever
/// has a connection already.
const FAULTS: [(&str, &str); 9] = [
    ("stopped", "down"),
    ("black hole", "freeze"),
    ("frozen in body", "freeze-mid-body"),
    ("slow", "latency 500ms 100ms"),
    ("5xx", "error-before"),
    ("wrong bytes", "flip 8 on get"),
    ("truncated", "truncate on get"),
    ("dripping", "drip 512 20ms"),
    ("endless body", "endless-body on get"),
];

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
    /// Writes of 4 KiB during each strike, one after the other.
    #[arg(long, default_value_t = 20)]
    writes: usize,
    /// Only the fault of this name.
    #[arg(long)]
    only: Option<String>,
}

/// Times of one fault.
#[derive(Default)]
struct Times {
    reads: Vec<Duration>,
    longest: Vec<Duration>,
    requests: u64,
    writes: Vec<Duration>,
    refused: usize,
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("failover", &flags.setting);
    println!("# reads of {BYTES} bytes at random places of {} MiB, puts of {WRITE_BYTES} bytes, load {}", flags.size >> 20, load());
    let data = Data::Random { seed: flags.setting.seed, len: flags.size }.hold();
    let mut stage = Stage::set(&flags.setting, false).await?;
    stage.client.put("big", &data).await?;
    stage.client.settle().await?;
    let mut rng = ChaCha8Rng::seed_from_u64(flags.setting.seed);
    let (mut well, mut well_written) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for (name, plan) in FAULTS.into_iter().filter(|(name, _)| flags.only.as_deref().is_none_or(|only| only == *name)) {
        let mut times = Times::default();
        for strike in 0..flags.strikes {
            let victim = strike % flags.setting.providers;
            stage = Box::pin(stage.restart()).await?;
            reads(&stage, &data, &mut rng, flags.reads).await?;
            well.extend(reads(&stage, &data, &mut rng, flags.reads).await?);
            let before = stage.emulators.state()?;
            stage.emulators.plan(Some(victim), plan)?;
            let struck = reads(&stage, &data, &mut rng, flags.reads).await?;
            times.requests += (stage.emulators.state()? - before).gets;
            stage.emulators.plan(None, "")?;
            times.longest.extend(struck.iter().max());
            times.reads.extend(struck);

            stage = Box::pin(stage.restart()).await?;
            let key = |index: usize| format!("w/{}/{strike}/{index}", name.replace(' ', "-"));
            let mut kept = Vec::new();
            for index in 0..flags.writes {
                let time = write(&stage, &format!("{}/well", key(index)), index, &mut kept).await?;
                well_written.extend(time);
            }
            stage.emulators.plan(Some(victim), plan)?;
            for index in 0..flags.writes {
                match write(&stage, &key(index), index, &mut kept).await? {
                    Some(time) => times.writes.push(time),
                    None => times.refused += 1,
                }
            }
            // Acknowledged only under the rule: everything reads back byte-equal with that provider gone and a service that kept nothing.
            stage.emulators.plan(Some(victim), "down")?;
            stage = stage.restart_as_it_is()?;
            for (key, bytes) in &kept {
                stage.client.get_bytes(key, None, bytes).await?;
            }
            stage.emulators.plan(None, "")?;
        }
        rows.push((name, times));
    }
    well.sort_unstable();
    well_written.sort_unstable();
    println!("{:<15} {:>44}   {:>40}", "", "read: added to the first byte, ms", "put: acknowledged after, ms");
    println!(
        "{:<15} {:>9} {:>9} {:>9} {:>12}   {:>9} {:>9} {:>9} {:>8}",
        "fault", "p50", "p99", "longest", "requests", "p50", "p99", "longest", "refused"
    );
    for (name, mut times) in rows {
        times.reads.sort_unstable();
        times.longest.sort_unstable();
        times.writes.sort_unstable();
        let added = |percent: usize| ms(percentile(&times.reads, percent)) - ms(percentile(&well, percent));
        let took = |percent: usize| ms(percentile(&times.writes, percent));
        println!(
            "{name:<15} {:>+9.2} {:>+9.2} {:>9.2} {:>12.2}   {:>9.2} {:>9.2} {:>9.2} {:>8}",
            added(50),
            added(99),
            ms(percentile(&times.longest, 100)),
            float(times.requests) / float((flags.strikes * flags.reads) as u64),
            took(50),
            took(99),
            took(100),
            times.refused,
        );
    }
    println!(
        "healthy: first byte p50 {:.2} ms  p99 {:.2} ms  ({} reads); put p50 {:.2} ms  p99 {:.2} ms  ({} puts)",
        ms(percentile(&well, 50)),
        ms(percentile(&well, 99)),
        well.len(),
        ms(percentile(&well_written, 50)),
        ms(percentile(&well_written, 99)),
        well_written.len()
    );
    println!("every acknowledged put was read back with its struck provider gone");
    stage.node.stop()
}

/// A put that is timed if it is acknowledged; what was refused may be there or not.
async fn write(stage: &Stage, key: &str, index: usize, kept: &mut Vec<(String, Bytes)>) -> Measured<Option<Duration>> {
    let mut bytes = vec![0; WRITE_BYTES];
    ChaCha8Rng::seed_from_u64(index as u64 ^ key.len() as u64).fill_bytes(&mut bytes);
    let bytes = Bytes::from(bytes);
    let began = Instant::now();
    if stage.client.put_bytes(key, bytes.clone()).await.is_err() {
        return Ok(None);
    }
    let took = began.elapsed();
    kept.push((key.to_owned(), bytes));
    Ok(Some(took))
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
