//! What keeps data alive: scrub, repair, collection, leaving a provider, and recovery, over S3 sockets and without the caps that slow them
//! on purpose. Rates count what moves at the providers; a recovery also says how many bytes of blobs it brought back.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::PATIENCE;
use crate::data::Data;
use crate::node::Manner;
use crate::stage::{Mark, Stage, headline};
use crate::usage::{float, load, megabytes_per_s, size};
use crate::{Measured, Setting};

const SMALL: usize = 4096;
const AT_ONCE: usize = 64;

/// Flags of `upkeep`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Large blobs.
    #[arg(long, default_value_t = 16)]
    large: u64,
    /// Bytes of each.
    #[arg(long, default_value = "64MiB", value_parser = size)]
    size: u64,
    /// Blobs of 4 KiB beside them.
    #[arg(long, default_value_t = 20_000)]
    small: u64,
}

/// A phase that has begun.
struct Phase {
    what: &'static str,
    began: Instant,
    mark: Mark,
}

impl Phase {
    fn begin(what: &'static str, stage: &mut Stage) -> Measured<Self> {
        let mark = stage.mark()?;
        Ok(Self { what, began: Instant::now(), mark })
    }

    fn end(self, stage: &mut Stage, more: &str) -> Measured<()> {
        let wall = self.began.elapsed();
        let after = stage.mark()?;
        line(self.what, wall, after.service.since(&self.mark.service), after.providers - self.mark.providers, more);
        Ok(())
    }
}

fn line(what: &str, wall: Duration, cpu: Duration, moved: crate::emulators::State, more: &str) {
    println!(
        "{what:<22} {:7.2} s, service {:6.2} s of CPU; read {:6.0} MB/s, written {:6.0} MB/s, {:6.0} requests/s; {more}",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        megabytes_per_s(moved.bytes_out, wall),
        megabytes_per_s(moved.bytes_in, wall),
        float(moved.requests) / wall.as_secs_f64(),
    );
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("upkeep", &flags.setting);
    let plain = flags.large * flags.size + flags.small * SMALL as u64;
    println!("# {} blobs of {} MiB and {} of 4 KiB, incompressible; load {}", flags.large, flags.size >> 20, flags.small, load());
    let mut stage = Box::pin(Stage::set_as(&flags.setting, false, Manner::Uncapped)).await?;

    let phase = Phase::begin("put and settled", &mut stage)?;
    for index in 0..flags.large {
        stage.client.put(&large(index), &data(&flags, index)).await?;
    }
    every_small(&stage, 0..flags.small, async |stage, index| stage.client.put_bytes(&small(index), bytes(&flags, index)).await.map(drop))
        .await?;
    stage.client.settle().await?;
    phase.end(&mut stage, &format!("{:.0} MB of blobs", float(plain) / 1e6))?;

    let phase = Phase::begin("scrub, presence", &mut stage)?;
    let report = scrub(&stage, false).await?;
    phase.end(&mut stage, &looked_at(&report))?;
    let phase = Phase::begin("scrub, deep", &mut stage)?;
    let report = scrub(&stage, true).await?;
    phase.end(&mut stage, &looked_at(&report))?;
    let phase = Phase::begin("drill", &mut stage)?;
    let drill = stage.client.operate(Method::POST, "drill").await?;
    phase.end(
        &mut stage,
        &format!("{} of {} sets", drill.get("sets").and_then(Value::as_array).map_or(0, Vec::len), number(&drill, "sets_total")),
    )?;

    stage = Box::pin(recover(stage, "recovery, log alone", plain)).await?;
    let phase = Phase::begin("log checkpoint", &mut stage)?;
    let report = stage.client.carry_out("checkpoint", "checkpoint").await?;
    phase.end(&mut stage, &format!("{} rows in {} parts", number(&report, "rows"), number(&report, "parts")))?;
    stage = Box::pin(recover(stage, "recovery, checkpoint", plain)).await?;
    stage.client.get_bytes(&small(flags.small / 2), None, &bytes(&flags, flags.small / 2)).await?;
    stage.client.get(&large(0), &data(&flags, 0)).await?;

    stage.emulators.lose(1)?;
    let phase = Phase::begin("one emptied, repaired", &mut stage)?;
    let report = scrub(&stage, false).await?;
    let deadline = Instant::now() + PATIENCE;
    let census = loop {
        let now = stage.client.operate(Method::GET, "scrub").await?;
        let census = now.get("census").filter(|census| census.is_object()).cloned().ok_or_else(|| format!("no census: {now}"))?;
        if Instant::now() > deadline {
            return Err(format!("not repaired: {now}").into());
        }
        if number(&now, "repairs_left") == 0 && number(&census, "degraded") + number(&census, "at_risk") + number(&census, "lost") == 0 {
            break census;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    phase.end(&mut stage, &format!("{} shards had been lost, {} blocks well", number(&report, "missing"), number(&census, "verified")))?;

    for index in (0..flags.large).filter(|index| index % 2 == 0) {
        stage.client.delete(&large(index)).await?;
    }
    every_small(&stage, 0..flags.small, async |stage, index| match index % 2 {
        0 => stage.client.delete(&small(index)).await,
        _ => Ok(()),
    })
    .await?;
    stage.client.settle().await?;
    let phase = Phase::begin("collection", &mut stage)?;
    let report = stage.client.carry_out("collect?now=true&max_dead_permille=50", "collect").await?;
    let swept = report.get("swept").cloned().unwrap_or_default();
    let more = format!(
        "{:.0} of {:.0} MB alive, {:.0} MB moved, {:.0} MB freed at the providers",
        float(number(&report, "live_bytes")) / 1e6,
        float(number(&report, "held_bytes")) / 1e6,
        float(number(&report, "moved_bytes")) / 1e6,
        float(number(&swept, "bytes")) / 1e6
    );
    phase.end(&mut stage, &more)?;

    let phase = Phase::begin("a provider is left", &mut stage)?;
    let report = stage.client.carry_out("providers/cloud-0/evacuate", "relocations").await?;
    phase.end(&mut stage, &format!("{} shards moved, {} stay", number(&report, "moved_shards"), number(&report, "remaining")))?;
    for index in (0..flags.large).filter(|index| index % 2 == 1) {
        stage.client.get(&large(index), &data(&flags, index)).await?;
    }
    println!("what was not deleted reads back byte-equal; load {}", load());
    stage.node.stop()
}

/// The service ends, its disk is lost, and a new one recovers from the providers.
async fn recover(mut stage: Stage, what: &str, plain: u64) -> Measured<Stage> {
    let before = stage.emulators.state()?;
    let began = Instant::now();
    stage = stage.restart_as(Manner::Recovering)?;
    let wall = began.elapsed();
    let after = stage.mark()?;
    let status = stage.client.operate(Method::GET, "status").await?;
    let entries = number(&status, "log_size");
    let blobs = number(&status, "blobs");
    let more = format!(
        "{blobs} blobs, {:.0}/s, {:.2} GB/s of blobs; {entries} log entries, {:.0}/s",
        float(blobs) / wall.as_secs_f64(),
        float(plain) / wall.as_secs_f64() / 1e9,
        float(entries) / wall.as_secs_f64()
    );
    line(what, wall, Duration::from_nanos(after.service.cpu_ns), after.providers - before, &more);
    Ok(stage)
}

async fn scrub(stage: &Stage, deep: bool) -> Measured<Value> {
    stage.client.operate(Method::POST, &format!("scrub?deep={deep}")).await?;
    loop {
        let report = stage.client.operate(Method::GET, "scrub?timeout_s=600").await?;
        if report.get("running") == Some(&Value::Bool(false)) {
            return Ok(report);
        }
    }
}

fn looked_at(report: &Value) -> String {
    format!("{} shards of {} blocks good, {} missing", number(report, "good"), number(report, "blocks"), number(report, "missing"))
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn large(index: u64) -> String {
    format!("large/{index:04}")
}

fn small(index: u64) -> String {
    format!("small/{index:08}")
}

fn data(flags: &Flags, index: u64) -> Data {
    Data::Random { seed: flags.setting.seed.wrapping_add(index), len: flags.size }
}

fn bytes(flags: &Flags, index: u64) -> Bytes {
    let mut bytes = vec![0; SMALL];
    let mut rng = ChaCha8Rng::seed_from_u64(flags.setting.seed);
    rng.set_stream(index);
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

#[expect(clippy::future_not_send, reason = "polled where it is made")]
async fn every_small(stage: &Stage, range: std::ops::Range<u64>, work: impl AsyncFn(&Stage, u64) -> Measured<()>) -> Measured<()> {
    stream::iter(range).map(|index| work(stage, index)).buffer_unordered(AT_ONCE).try_collect().await
}
