//! The service's resident memory while a blob far larger than it goes up and down.

use clap::Args;

use crate::data::Data;
use crate::stage::{Stage, headline};
use crate::usage::{float, load, megabytes_per_s, size};
use crate::{Measured, Setting};

/// Flags of `memory`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Bytes of the blob.
    #[arg(long, default_value = "5GiB", value_parser = size)]
    size: u64,
    /// Bytes per second of each provider; 0 leaves them unthrottled. Slow providers fill every buffer.
    #[arg(long, default_value_t = 0)]
    bandwidth: u64,
}

/// Runs it. The providers keep their objects in folders: 5 GiB become 8.4.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("memory", &flags.setting);
    let data = Data::Random { seed: flags.setting.seed, len: flags.size };
    let mut stage = Stage::set(&flags.setting, true).await?;
    if flags.bandwidth > 0 {
        stage.emulators.plan(None, &format!("bandwidth {}", flags.bandwidth))?;
    }
    println!("# {} MiB, incompressible, one blob; load {}", flags.size >> 20, load());
    let idle = stage.node.usage()?;
    println!("idle                 {:7.1} MiB resident", float(idle.rss_kib) / 1024.0);
    let wall = stage.client.put("big", &data).await?;
    stage.client.settle().await?;
    let up = stage.node.usage()?;
    let print = |what: &str, peak: u64, now: u64, wall| {
        println!(
            "{what:<20} {:7.1} MiB at the peak (VmHWM), {:7.1} MiB afterwards; {:.0} MB/s",
            float(peak) / 1024.0,
            float(now) / 1024.0,
            megabytes_per_s(flags.size, wall)
        );
    };
    print("up", up.peak_kib, up.rss_kib, wall);
    stage.node.reset_peak()?;
    let took = stage.client.get("big", &data).await?;
    let down = stage.node.usage()?;
    print("down", down.peak_kib, down.rss_kib, took.whole);
    println!("the service's disk   {:7.1} MiB", float(folder_bytes(&stage.home())?) / f64::from(1 << 20));
    stage.node.stop()
}

fn folder_bytes(folder: &std::path::Path) -> Measured<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { folder_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(sum)
}
