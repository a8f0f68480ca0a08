//! `status`, `metrics`, `audit` and `settle`: what the running service says of itself, in the seeds' lines and more.

use std::collections::BTreeMap;
use std::time::Duration;

use diaspore_engine::api::{CheckpointStatus, IntegrityStatus, ModeSince};
use diaspore_engine::{Counts, Evacuated, Relocated, RelocationState};
use diaspore_ledger::StorageMetrics;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::Global;
use crate::client::{Client, Role};
use crate::failure::{Exit, Failure, Outcome};
use crate::integrity::{audits_text, census_text, repairs_text};
use crate::output::{as_f64, bytes, grouped, ratio, table};

/// The engine's counters as the service sends them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) state: String,
    pub(crate) epoch: u64,
    pub(crate) k: u8,
    pub(crate) n: u8,
    pub(crate) writes_refused: Option<String>,
    pub(crate) healthy_domains: u64,
    pub(crate) domains: u64,
    pub(crate) restart_survives_down: u64,
    pub(crate) providers: Vec<Provider>,
    pub(crate) buckets: u64,
    pub(crate) blobs: u64,
    pub(crate) blocks: u64,
    pub(crate) logical_bytes: u64,
    pub(crate) unique_bytes: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) sealed_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) unsettled_bytes: u64,
    pub(crate) unsettled_age_ms: u64,
    pub(crate) unsettled_blocks: u64,
    pub(crate) released_seq: u64,
    pub(crate) log_size: u64,
    pub(crate) log_root: String,
    pub(crate) integrity_faults: u64,
    pub(crate) failovers: u64,
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) deletes: u64,
    pub(crate) proofs: u64,
    pub(crate) last_day: Counts,
    pub(crate) average_latency_ms: f64,
    pub(crate) ledger_bytes: u64,
    pub(crate) ledger_rows: BTreeMap<String, u64>,
    pub(crate) storage: StorageMetrics,
    pub(crate) uptime_ms: u64,
    pub(crate) integrity: IntegrityStatus,
    pub(crate) recovery_point_seq: u64,
    pub(crate) recovery_point_age_ms: u64,
    pub(crate) checkpoint: CheckpointStatus,
    pub(crate) relocation: RelocationState,
}

/// One account in it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Provider {
    pub(crate) id: String,
    pub(crate) domain: String,
    pub(crate) state: String,
    pub(crate) latency_ms: f64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) lies: u64,
    pub(crate) mode: String,
    pub(crate) score: Option<u8>,
    pub(crate) down_ms: Option<u64>,
    pub(crate) keyring: Option<String>,
    pub(crate) mode_since: Option<ModeSince>,
}

impl Status {
    /// Asks the service.
    pub(crate) async fn of(client: &Client) -> Outcome<Self> {
        client.get("/api/v1/status").await
    }

    /// Share of blocks that are whole as far as anybody looked: a number only when every block was looked at.
    fn integrity(&self) -> String {
        let Some(census) = &self.integrity.census else { return "unknown (blocks are not counted yet)".to_owned() };
        let whole = census.verified + census.unverified;
        match (census.blocks, census.unverified) {
            (0, _) => "unknown (nothing is stored)".to_owned(),
            (blocks, 0) => format!("{}%", percent(100.0 * as_f64(census.verified) / as_f64(blocks))),
            (blocks, unseen) if whole == blocks => {
                format!("unverified ({} of {} blocks not looked at yet)", grouped(unseen), grouped(blocks))
            }
            (blocks, unseen) => {
                format!("{} of {} blocks are not whole, {} not looked at yet", grouped(blocks - whole), grouped(blocks), grouped(unseen))
            }
        }
    }
}

/// `status`.
pub(crate) async fn status(global: &Global) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let (status, raw) = both(&client).await?;
    global.output.print(&raw, || status_text(&status))?;
    if status.state == "active" {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, format!("the service is {}", status.state))
        .hint("its log says why; writes need enough healthy failure domains"))
}

fn status_text(status: &Status) -> String {
    let active = status.providers.iter().filter(|provider| provider.state == "healthy").count();
    let mut state = status.state.clone();
    if let Some(first) = state.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let overhead = ratio(status.stored_bytes, status.sealed_bytes).map_or_else(|| "-".to_owned(), |overhead| format!("{overhead:.2}x"));
    let lines = [
        format!("Distributed Storage Status: {state}"),
        format!("Active Providers: {active}/{}", status.providers.len()),
        format!("Total Blocks: {}", grouped(status.blocks)),
        format!("Data Integrity: {}", status.integrity()),
        format!("Average Latency: {:.1}ms", status.average_latency_ms),
        format!(
            "Geometry: any {} of {} rebuild; {} of {} failure domains healthy",
            status.k, status.n, status.healthy_domains, status.domains
        ),
        status.writes_refused.as_ref().map_or_else(|| "Writes: accepted".to_owned(), |why| format!("Writes: refused: {why}")),
        format!("Restart Possible With Domains Down: {}", status.restart_survives_down),
        format!("Buckets: {}   Blobs: {}", grouped(status.buckets), grouped(status.blobs)),
        format!(
            "Bytes: {} logical, {} unique, {} compressed, {} stored ({overhead} coding overhead)",
            bytes(status.logical_bytes),
            bytes(status.unique_bytes),
            bytes(status.compressed_bytes),
            bytes(status.stored_bytes)
        ),
        format!(
            "Unsettled: {} in {} blocks, oldest {:.1}s",
            bytes(status.unsettled_bytes),
            grouped(status.unsettled_blocks),
            as_f64(status.unsettled_age_ms) / 1000.0
        ),
        status.integrity.census.as_ref().map_or_else(|| "Blocks: not counted yet".to_owned(), census_text),
        format!("Oldest Shard With Verified Bytes: {}", oldest(status)),
        repairs_text(
            status.integrity.repairs_waiting,
            status.integrity.repairs_failed,
            status.integrity.repair_bytes_waiting,
            status.integrity.repaired_shards,
        ),
        format!(
            "Recovery Point: sequence {}, {}",
            grouped(status.recovery_point_seq),
            match status.recovery_point_age_ms {
                0 => "nothing acknowledged lies beyond it".to_owned(),
                age => format!("{:.1}s of acknowledged data lie beyond it", as_f64(age) / 1000.0),
            }
        ),
        checkpoint_text(&status.checkpoint, status.providers.len()),
        status.integrity.last_drill.map_or_else(
            || "Last Drill: never".to_owned(),
            |drill| {
                format!(
                    "Last Drill: {} ago, {} of {} sets, {} failures",
                    ago(status, drill.time_ms),
                    drill.sets,
                    drill.sets_total,
                    drill.failures
                )
            },
        ),
        format!(
            "Log: {} entries, sequence {}, epoch {}, root {}",
            grouped(status.log_size),
            grouped(status.released_seq),
            status.epoch,
            status.log_root
        ),
        format!("Ledger: {} on disk   Up: {}", bytes(status.ledger_bytes), duration(status.uptime_ms)),
        format!(
            "Integrity Faults: {}   Failovers: {}   Failed Reads (24h): {}",
            status.integrity_faults, status.failovers, status.last_day.failed_reads
        ),
    ];
    let lines =
        lines.into_iter().chain(relocation_text(&status.relocation)).chain(status.providers.iter().filter_map(|p| mode_text(status, p)));
    let lines: Vec<String> = lines.collect();
    let rows = status.providers.iter().map(|p| {
        [
            p.id.clone(),
            p.domain.clone(),
            if p.mode.is_empty() || p.mode == "active" { p.state.clone() } else { p.mode.clone() },
            format!("{:.1}", p.latency_ms),
            grouped(p.requests),
            grouped(p.errors),
            bytes(p.bytes_up),
            bytes(p.bytes_down),
            grouped(p.lies),
            p.score.map_or_else(|| "-".to_owned(), |score| score.to_string()),
        ]
    });
    let providers = table(["provider", "domain", "state", "latency ms", "requests", "errors", "up", "down", "lies", "score"], rows);
    format!("{}\n{providers}\n{}", lines.join("\n"), audits_text(&status.integrity.audits))
}

/// How far a recovery need not read the log.
fn checkpoint_text(checkpoint: &CheckpointStatus, providers: usize) -> String {
    let next = match checkpoint.due_in {
        None => "none is made by itself".to_owned(),
        Some(0) => "the next is due".to_owned(),
        Some(entries) => format!("the next in {} entries", grouped(entries)),
    };
    let Some(last) = &checkpoint.last else { return format!("Last Log Checkpoint: never; {next}") };
    format!(
        "Last Log Checkpoint: {} ago, up to sequence {}, head at {} of {providers} providers{}; {} entries since, {next}",
        duration(last.age_ms),
        grouped(last.covers),
        last.heads.len(),
        if last.counts { "" } else { ", too few or not settled to count yet" },
        grouped(checkpoint.grown),
    )
}

/// What is moved between providers, or what came of the last such errand.
fn relocation_text(state: &RelocationState) -> Option<String> {
    if let Some(errand) = &state.errand {
        return Some(format!("Moving Shards: {errand}"));
    }
    match (&state.outcome, &state.error) {
        (Some(Relocated::Evacuated(done)), _) if done.certified => {
            Some(format!("Last Move: {} is empty, certified in the log", done.provider))
        }
        (Some(Relocated::Evacuated(Evacuated { remaining: 0, provider, keyring: Some(why), .. })), _) => {
            Some(format!("Last Move: {provider} is empty, not certified: {why}"))
        }
        (Some(Relocated::Evacuated(done)), _) => Some(format!(
            "Last Move: {} of {} blocks still have a shard at {}",
            grouped(done.remaining),
            grouped(done.blocks),
            done.provider
        )),
        (Some(Relocated::Rebalanced(done)), _) => {
            Some(format!("Last Move: {} of {} shards spread anew", grouped(done.moved), grouped(done.planned)))
        }
        (None, Some(why)) => Some(format!("Last Move: ended early: {why}")),
        (None, None) => None,
    }
}

/// An account that is not used like the others.
fn mode_text(status: &Status, provider: &Provider) -> Option<String> {
    let since = provider.mode_since.as_ref()?;
    let counted = status.integrity.census.as_ref().and_then(|census| census.providers.get(&provider.id));
    let left = match (since.certified_age_ms, counted) {
        (Some(age), _) => format!("certified empty {} ago", duration(age)),
        (None, Some(row)) => format!("{} shards there when blocks were last counted", grouped(row.shards)),
        (None, None) => "shards there are not counted yet".to_owned(),
    };
    Some(format!("Provider {}: {} for {} ({}); {left}", provider.id, provider.mode, duration(since.age_ms), since.reason))
}

/// Since when every shard's bytes are verified.
fn oldest(status: &Status) -> String {
    let Some(census) = &status.integrity.census else { return "unknown".to_owned() };
    match census.oldest_verified_ms {
        Some(at) => format!("{} ago", ago(status, at)),
        None => format!("never: {} of {} shards have none", grouped(census.shards - census.shards_verified), grouped(census.shards)),
    }
}

/// Time between `at_ms` and the last count of blocks, which is as new as anything here.
fn ago(status: &Status, at_ms: u64) -> String {
    duration(status.integrity.census.as_ref().map_or(0, |census| census.as_of_ms.saturating_sub(at_ms)))
}

/// `100` when it is, two digits when it is not: 99.99 must never round to 100.
fn percent(value: f64) -> String {
    if value >= 100.0 { "100".to_owned() } else { format!("{:.2}", (value * 100.0).floor() / 100.0) }
}

/// `metrics`.
pub(crate) async fn metrics(global: &Global) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let status = Status::of(&client).await?;
    let day = status.last_day;
    let value = serde_json::json!({
        "window_ms": day.running_ms,
        "storage_ops_per_s": per_second(day, day.puts + day.deletes),
        "retrieval_ops_per_s": per_second(day, day.gets),
        "proofs_per_s": per_second(day, day.proofs),
        "failover_failures_24h": day.failed_reads,
        "failovers": day.failovers,
        "puts": day.puts,
        "gets": day.gets,
        "deletes": day.deletes,
        "proofs": day.proofs,
        "provider_requests": day.provider_requests,
        "dedup_ratio": ratio(status.logical_bytes, status.unique_bytes),
        "compression_ratio": ratio(status.unique_bytes, status.compressed_bytes),
        "coding_overhead": ratio(status.stored_bytes, status.sealed_bytes),
        "storage": status.storage,
        "ledger_bytes": status.ledger_bytes,
        "ledger_rows": status.ledger_rows,
    });
    global.output.print(&value, || metrics_text(&status))
}

fn metrics_text(status: &Status) -> String {
    let day = status.last_day;
    let shown = |over, under| ratio(over, under).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    [
        format!("Storage Throughput: {} ops/sec", rate(per_second(day, day.puts + day.deletes))),
        format!("Retrieval Throughput: {} ops/sec", rate(per_second(day, day.gets))),
        format!("Proof Generation: {} proofs/sec", rate(per_second(day, day.proofs))),
        format!("Multi-Cloud Failover: {} failures (24h)", grouped(day.failed_reads)),
        format!("Failovers: {}", grouped(day.failovers)),
        format!("Provider Requests: {}", grouped(day.provider_requests)),
        format!(
            "Deduplication: {}   Compression: {}",
            shown(status.logical_bytes, status.unique_bytes),
            shown(status.unique_bytes, status.compressed_bytes)
        ),
        format!("Coding Overhead: {}", shown(status.stored_bytes, status.sealed_bytes)),
        format!(
            "Ledger Disk: {} reads ({}), {} writes ({}), {} flushes, {} deletes, {} errors; {} of its pages found in memory",
            grouped(status.storage.reads),
            bytes(status.storage.read_bytes),
            grouped(status.storage.writes),
            bytes(status.storage.written_bytes),
            grouped(status.storage.flushes),
            grouped(status.storage.deletes),
            grouped(status.storage.errors),
            ratio(status.storage.cache_hits, status.storage.cache_hits + status.storage.cache_misses)
                .map_or_else(|| "none".to_owned(), |share| format!("{:.1}%", share * 100.0)),
        ),
        format!("Ledger Rows: {}", rows(&status.ledger_rows)),
        format!("Measured Over: {} of service in the last 24h", duration(day.running_ms)),
    ]
    .join("\n")
}

/// Tables that hold something, with their rows.
fn rows(tables: &BTreeMap<String, u64>) -> String {
    tables.iter().filter(|(_, rows)| **rows > 0).map(|(table, rows)| format!("{table} {}", grouped(*rows))).collect::<Vec<_>>().join(", ")
}

/// `flush`.
pub(crate) async fn flush(global: &Global) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    client.send(client.request(Method::POST, "/api/v1/flush")).await?;
    global.output.print(&serde_json::json!({ "flushed": true }), || "Flushed: the ledger's view is on the disk".to_owned())
}

/// Per second in which the service ran.
fn per_second(day: Counts, count: u64) -> f64 {
    if day.running_ms == 0 { 0.0 } else { as_f64(count) * 1000.0 / as_f64(day.running_ms) }
}

/// Hours and minutes, or seconds while there is no hour.
pub(crate) fn duration(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    if hours > 0 { format!("{hours}h {minutes:02}m") } else { format!("{minutes}m {seconds:02}s") }
}

/// A rate with thousands grouped, or with two digits when it is small.
fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        return format!("{per_second:.2}");
    }
    let rounded = format!("{per_second:.0}");
    rounded.parse().map_or(rounded, grouped)
}

/// Totals of the log.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Totals {
    total: u64,
    storage: u64,
    retrieval: u64,
    deletion: u64,
    denied: u64,
    integrity_violations: u64,
    administration: u64,
}

/// `audit`.
pub(crate) async fn audit(global: &Global) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let totals: Totals = client.get("/api/v1/audit/totals").await?;
    global.output.print(&totals, || {
        [
            format!("Total Audit Events: {}", grouped(totals.total)),
            format!("Storage Operations: {}", grouped(totals.storage)),
            format!("Retrieval Operations: {}", grouped(totals.retrieval)),
            format!("Integrity Violations: {}", grouped(totals.integrity_violations)),
            format!("Deletions: {}", grouped(totals.deletion)),
            format!("Denied: {}", grouped(totals.denied)),
            format!("Administration: {}", grouped(totals.administration)),
        ]
        .join("\n")
    })
}

/// What the service says after waiting.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON that programs read")]
pub(crate) struct Settled {
    pub(crate) settled: bool,
    pub(crate) unsettled_blocks: u64,
    pub(crate) unsettled_bytes: u64,
    pub(crate) waited_ms: u64,
}

/// Longest wait asked of the service in one request.
const WAIT_PER_REQUEST: Duration = Duration::from_secs(30);

/// Asks the service to settle, again and again until `timeout`.
pub(crate) async fn wait_settled(client: &Client, timeout: Duration) -> Outcome<Settled> {
    let end = tokio::time::Instant::now() + timeout;
    let mut waited_ms = 0;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let wait = left.min(WAIT_PER_REQUEST).as_secs();
        let mut settled: Settled = client.json(client.request(Method::POST, &format!("/api/v1/settle?timeout_s={wait}"))).await?;
        waited_ms += settled.waited_ms;
        settled.waited_ms = waited_ms;
        if settled.settled || left <= WAIT_PER_REQUEST {
            return Ok(settled);
        }
    }
}

/// `settle`.
pub(crate) async fn settle(global: &Global, wait: bool, timeout_s: u64) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let timeout = if wait { Duration::from_secs(timeout_s) } else { Duration::ZERO };
    let settled = wait_settled(&client, timeout).await?;
    global.output.print(&settled, || {
        format!(
            "Settled: {}\nUnsettled: {} in {} blocks\nWaited: {:.1}s",
            if settled.settled { "yes, every shard of every block is durable" } else { "no" },
            bytes(settled.unsettled_bytes),
            grouped(settled.unsettled_blocks),
            as_f64(settled.waited_ms) / 1000.0
        )
    })?;
    if wait && !settled.settled {
        return Err(Failure::new(Exit::Unavailable, format!("not settled after {timeout_s} s"))
            .hint("metanode storage distributed status shows which providers are down"));
    }
    Ok(())
}

/// The status as numbers for our lines and as the whole document for `--output json`.
async fn both(client: &Client) -> Outcome<(Status, Value)> {
    let raw: Value = client.get("/api/v1/status").await?;
    let status =
        serde_json::from_value(raw.clone()).map_err(|error| Failure::plain(format!("the service's status does not read: {error}")))?;
    Ok((status, raw))
}

#[cfg(test)]
mod tests {
    use diaspore_engine::Census;
    use diaspore_engine::api::LastCheckpoint;

    use super::*;

    #[test]
    fn the_seed_lines_come_first_and_exactly() {
        let provider = |state: &str| Provider { state: state.to_owned(), ..Provider::default() };
        let mut status = Status { state: "active".to_owned(), blocks: 1_234_567, average_latency_ms: 0.8, ..Status::default() };
        status.integrity.census = Some(Census { blocks: 9, verified: 9, ..Census::default() });
        status.providers = (0..10).map(|index| provider(if index < 5 { "healthy" } else { "down" })).collect();
        let text = status_text(&status);
        let first: Vec<&str> = text.lines().take(5).collect();
        assert_eq!(
            first,
            [
                "Distributed Storage Status: Active",
                "Active Providers: 5/10",
                "Total Blocks: 1,234,567",
                "Data Integrity: 100%",
                "Average Latency: 0.8ms"
            ]
        );
    }

    #[test]
    fn a_hundred_percent_is_seen_and_counted() {
        let said = |census: Option<Census>| {
            let integrity = IntegrityStatus { census, ..IntegrityStatus::default() };
            Status { integrity, ..Status::default() }.integrity()
        };
        let census = |blocks, verified, unverified| Some(Census { blocks, verified, unverified, ..Census::default() });
        assert_eq!(said(None), "unknown (blocks are not counted yet)");
        assert_eq!(said(census(0, 0, 0)), "unknown (nothing is stored)");
        assert_eq!(said(census(8, 5, 3)), "unverified (3 of 8 blocks not looked at yet)");
        assert_eq!(said(census(8, 4, 3)), "1 of 8 blocks are not whole, 3 not looked at yet");
        assert_eq!(said(census(1_000_000, 999_999, 0)), "99.99%", "a single block never rounds to a hundred");
        assert_eq!(said(census(8, 8, 0)), "100%");
    }

    #[test]
    fn refused_writes_are_said_with_the_configured_geometry() {
        let why = Some("2 of 5 failure domains healthy, 4 needed".to_owned());
        let status = Status { k: 3, n: 5, healthy_domains: 2, domains: 5, writes_refused: why, ..Status::default() };
        let text = status_text(&status);
        assert!(text.contains("\nGeometry: any 3 of 5 rebuild; 2 of 5 failure domains healthy\n"), "{text}");
        assert!(text.contains("\nWrites: refused: 2 of 5 failure domains healthy, 4 needed\n"), "{text}");
    }

    #[test]
    fn the_last_checkpoint_and_the_next_are_said() {
        let mut checkpoint = CheckpointStatus { last: None, grown: 50, due_in: Some(1_950) };
        assert_eq!(checkpoint_text(&checkpoint, 6), "Last Log Checkpoint: never; the next in 1,950 entries");
        let heads = vec!["c1".to_owned(); 5];
        checkpoint.last = Some(LastCheckpoint { covers: 2_100, log_size: 9_000, age_ms: 61_000, heads, counts: true });
        assert_eq!(
            checkpoint_text(&checkpoint, 6),
            "Last Log Checkpoint: 1m 01s ago, up to sequence 2,100, head at 5 of 6 providers; 50 entries since, the next in 1,950 entries"
        );
        checkpoint.due_in = None;
        assert!(checkpoint_text(&checkpoint, 6).ends_with("none is made by itself"));
    }

    #[test]
    fn who_is_being_left_is_named_until_the_certificate_and_after() {
        let mut provider = Provider { id: "c2".to_owned(), mode: "draining".to_owned(), ..Provider::default() };
        assert_eq!(mode_text(&Status::default(), &provider), None);
        let since = ModeSince { age_ms: 5_000, reason: "being emptied".to_owned(), certified_age_ms: None };
        provider.mode_since = Some(since.clone());
        let wanted = "Provider c2: draining for 0m 05s (being emptied); shards there are not counted yet";
        assert_eq!(mode_text(&Status::default(), &provider).unwrap(), wanted);
        provider.mode_since = Some(ModeSince { certified_age_ms: Some(1_000), ..since });
        assert!(mode_text(&Status::default(), &provider).unwrap().ends_with("certified empty 0m 01s ago"));
        let running = RelocationState { running: Some(1), errand: Some("evacuate c2".to_owned()), ..RelocationState::default() };
        assert_eq!(relocation_text(&running).unwrap(), "Moving Shards: evacuate c2");
        assert_eq!(relocation_text(&RelocationState::default()), None);
    }

    #[test]
    fn rates_are_over_the_day_and_say_over_how_much_of_it() {
        let last_day = Counts { running_ms: 5_400_000, puts: 10_000, deletes: 800, failed_reads: 3, ..Counts::default() };
        let ledger_rows = [("blobs", 1_234), ("chunks", 0), ("leaves", 5)].map(|(table, rows)| (table.to_owned(), rows)).into();
        let text = metrics_text(&Status { last_day, ledger_rows, uptime_ms: 5, ..Status::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Storage Throughput: 2.00 ops/sec");
        assert_eq!(lines[3], "Multi-Cloud Failover: 3 failures (24h)");
        assert_eq!(lines[9], "Ledger Rows: blobs 1,234, leaves 5");
        assert_eq!(lines[10], "Measured Over: 1h 30m of service in the last 24h");
    }

    #[test]
    fn rates_are_grouped_or_small() {
        assert_eq!(rate(45_230.4), "45,230");
        assert_eq!(rate(0.126), "0.13");
    }
}
