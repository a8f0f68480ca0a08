//! Large blobs: up, down, down with two providers gone, and the same behind throttled links; each beside the yardstick.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::data::{self, Data};
use crate::emulators::State;
use crate::stage::{Mark, Stage, headline};
use crate::usage::{float, load, megabytes_per_s, ns_per_byte, size};
use crate::yardstick::{Answer, Yardstick};
use crate::{Measured, Setting};

/// Flags of `bulk`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Bytes of the blob.
    #[arg(long, default_value = "1GiB", value_parser = size)]
    size: u64,
    /// Bytes of the blob behind throttled links; `--no-throttle` leaves it out.
    #[arg(long, default_value = "256MiB", value_parser = size)]
    throttled_size: u64,
    /// Bytes per second of each throttled provider, each way: 25 MB/s is 200 Mbit/s.
    #[arg(long, default_value_t = 25_000_000)]
    bandwidth: u64,
    /// Leaves out the throttled part.
    #[arg(long)]
    no_throttle: bool,
    /// What the blob holds.
    #[arg(long, value_enum)]
    data: Option<Kind>,
    /// How often all of it is done, each time from nothing.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Random,
    Text,
}

/// What one transfer took at the service and at the client.
struct Transfer {
    bytes: u64,
    wall: Duration,
    from: Mark,
    to: Mark,
}

impl Transfer {
    fn moved(&self) -> State {
        self.to.providers - self.from.providers
    }

    fn cpu(&self) -> Duration {
        self.to.service.since(&self.from.service)
    }

    fn print(&self, what: &str) {
        let moved = self.moved();
        let system = float(self.to.service.system_ticks - self.from.service.system_ticks) * 1e7 / float(self.bytes);
        println!(
            "{what:<26} {:8.0} MB/s  service {:5.2} ns/B (kernel {system:4.2})  client {:5.2}  providers {:5.2}  {} puts {} gets",
            megabytes_per_s(self.bytes, self.wall),
            ns_per_byte(self.cpu(), self.bytes),
            ns_per_byte(self.to.client.since(&self.from.client), self.bytes),
            ns_per_byte(Duration::from_nanos(moved.cpu_ns), self.bytes),
            moved.puts,
            moved.gets,
        );
    }

    fn print_yardstick(&self, what: &str, yardstick: Answer) {
        println!(
            "{what:<26} {:8.0} MB/s  process {:5.2} ns/B; the service took {:.2} times its wall time",
            megabytes_per_s(self.bytes, yardstick.wall),
            ns_per_byte(yardstick.cpu, self.bytes),
            self.wall.as_secs_f64() / yardstick.wall.as_secs_f64(),
        );
    }
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("bulk", &flags.setting);
    for round in 0..flags.rounds {
        for kind in [Kind::Random, Kind::Text].into_iter().filter(|kind| flags.data.is_none_or(|wanted| wanted == *kind)) {
            let seed = flags.setting.seed + round * 16;
            let make = |bytes: u64, seed: u64| -> Measured<(Data, String)> {
                match kind {
                    Kind::Random => Ok((Data::Random { seed, len: bytes }.hold(), "incompressible".to_owned())),
                    Kind::Text => data::text(seed, bytes),
                }
            };
            let (data, told) = make(flags.size, seed)?;
            println!("\n## {} MiB, {told} (round {}, load {})", data.len() >> 20, round + 1, load());
            let mut stage = Stage::set(&flags.setting, false).await?;
            let mut yardstick = Yardstick::start(&stage.emulators.endpoints)?;
            healthy_and_hurt(&mut stage, &mut yardstick, &data).await?;
            drop((stage, yardstick));
            if !flags.no_throttle && kind == Kind::Random {
                let (data, _) = make(flags.throttled_size, seed + 1)?;
                let mut stage = Stage::set(&flags.setting, false).await?;
                let mut yardstick = Yardstick::start(&stage.emulators.endpoints)?;
                throttled(&mut stage, &mut yardstick, &data, flags.bandwidth).await?;
                stage.node.stop()?;
            }
        }
    }
    Ok(())
}

/// Up to the acknowledgement for the wall time, up to the last shard for the processor time.
async fn upload(stage: &mut Stage, key: &str, data: &Data) -> Measured<Transfer> {
    let from = stage.mark()?;
    let wall = stage.client.put(key, data).await?;
    stage.client.settle().await?;
    Ok(Transfer { bytes: data.len(), wall, from, to: stage.mark()? })
}

async fn download(stage: &mut Stage, key: &str, data: &Data) -> Measured<Transfer> {
    let from = stage.mark()?;
    let took = stage.client.get(key, data).await?;
    Ok(Transfer { bytes: data.len(), wall: took.whole, from, to: stage.mark()? })
}

async fn healthy_and_hurt(stage: &mut Stage, yardstick: &mut Yardstick, data: &Data) -> Measured<()> {
    let up = upload(stage, "big", data).await?;
    up.print("up");
    println!("{:<26} {:8.3} stored bytes per plain byte", "", float(up.moved().bytes_in) / float(data.len()));
    up.print_yardstick("up, yardstick", yardstick.put(up.moved())?);
    let down = download(stage, "big", data).await?;
    down.print("down");
    down.print_yardstick("down, yardstick", yardstick.get(down.moved())?);
    stage.emulators.plan(Some(0), "down")?;
    stage.emulators.plan(Some(1), "down")?;
    let noticing = download(stage, "big", data).await?;
    noticing.print("down, two just lost");
    let hurt = download(stage, "big", data).await?;
    hurt.print("down, two lost");
    println!(
        "{:<26} {:8.2} times the healthy wall time, {:.2} times its processor time",
        "",
        hurt.wall.as_secs_f64() / down.wall.as_secs_f64(),
        hurt.cpu().as_secs_f64() / down.cpu().as_secs_f64(),
    );
    Ok(())
}

async fn throttled(stage: &mut Stage, yardstick: &mut Yardstick, data: &Data, bandwidth: u64) -> Measured<()> {
    println!("## {} MiB, every provider throttled to {:.1} MB/s each way", data.len() >> 20, float(bandwidth) / 1e6);
    stage.emulators.plan(None, &format!("bandwidth {bandwidth}"))?;
    let up = upload(stage, "throttled", data).await?;
    up.print("up, throttled");
    up.print_yardstick("up, yardstick", yardstick.put(up.moved())?);
    let down = download(stage, "throttled", data).await?;
    down.print("down, throttled");
    down.print_yardstick("down, yardstick", yardstick.get(down.moved())?);
    stage.emulators.plan(None, "")
}
