//! `/metrics`: Prometheus text exposition 0.0.4, from the engine's counters and ours.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use diaspore_engine::api::{CheckpointStatus, Status};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, FORWARDED};

use crate::access::{Admin, permit};
use crate::observe::{METHODS, STATUS_CLASSES, Traffic};
use crate::problem::Problem;
use crate::router::{App, Peer};

/// Counters for Prometheus. Open to loopback peers that speak for themselves; everybody else needs the scope `admin`.
#[utoipa::path(get, path = "/metrics", tag = "health", security((), ("api_key" = ["admin"])),
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
        (status = 401, description = "Not from loopback and without a key")))]
pub(crate) async fn metrics(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    if !is_local(&request) {
        permit::<Admin>(&app, request.headers())?;
    }
    let mut text = engine_text(&app.engine.status());
    text.push_str(&traffic_text(&app.traffic));
    if let Some(more) = &app.options.metrics_text {
        text.push_str(&more());
    }
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}

/// A peer on this machine. One that forwards for somebody else says so and does not count.
fn is_local(request: &Request) -> bool {
    let local = request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let headers = request.headers();
    local && !headers.contains_key(FORWARDED) && !headers.contains_key("x-forwarded-for")
}

/// Families of metrics under construction.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.0, "# HELP diaspore_{name} {help}\n# TYPE diaspore_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut line = format!("diaspore_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let opening = if at == 0 { '{' } else { ',' };
            let _infallible = write!(line, "{opening}{label}=\"{text}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.0, "{line}{closing} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn engine_text(status: &Status) -> String {
    let mut text = Text::default();
    text.single("writes_accepted", "gauge", "1 when changes are taken.", u8::from(status.writes_refused.is_none()));
    text.single("ready", "gauge", "1 when the state of the log is decided and served.", u8::from(status.state == "active"));
    for (name, help, value) in [
        ("epoch", "Epoch of the writer.", status.epoch),
        ("geometry_k", "Shards that rebuild a new block.", u64::from(status.k)),
        ("geometry_n", "Shards made of a new block.", u64::from(status.n)),
        ("domains", "Failure domains configured.", status.domains as u64),
        ("domains_healthy", "Failure domains with a healthy provider.", status.healthy_domains as u64),
        ("restart_survives_down", "Domains that may be down while the log's end can be declared.", status.restart_survives_down as u64),
        ("buckets", "Buckets.", status.buckets),
        ("blobs", "Current blobs.", status.blobs),
        ("blocks", "Container blocks.", status.blocks),
        ("logical_bytes", "Plain bytes of current blobs.", status.logical_bytes),
        ("unique_bytes", "Plain bytes after deduplication.", status.unique_bytes),
        ("compressed_bytes", "Chunk bytes after compression.", status.compressed_bytes),
        ("sealed_bytes", "Sealed payload bytes.", status.sealed_bytes),
        ("stored_bytes", "Shard bytes durable at providers.", status.stored_bytes),
        ("unsettled_blocks", "Blocks that miss shards.", status.unsettled_blocks),
        ("unsettled_bytes", "Sealed bytes of blocks that miss shards.", status.unsettled_bytes),
        ("unsettled_age_milliseconds", "Age of the oldest block that misses shards.", status.unsettled_age_ms),
        ("recovery_point_seq", "Position up to which everything survives the disk and any n - k domains.", status.recovery_point_seq),
        ("recovery_point_age_milliseconds", "Age of the oldest acknowledged data beyond it.", status.recovery_point_age_ms),
        ("repairs_waiting", "Blocks that wait for repair.", status.integrity.repairs_waiting),
        ("repair_bytes_waiting", "Bytes that their repair will move.", status.integrity.repair_bytes_waiting),
        ("failed_reads_24h", "Reads that failed for want of shards in 24 hours.", status.last_day.failed_reads),
        ("released_seq", "Last released position of the log.", status.released_seq),
        ("log_leaves", "Leaves of the Merkle log.", status.log_size),
        ("ledger_bytes", "Bytes of the local ledger on its disk.", status.ledger_bytes),
    ] {
        text.single(name, "gauge", help, value);
    }
    for (name, help, value) in [
        ("puts_total", "Puts.", status.puts),
        ("gets_total", "Gets.", status.gets),
        ("deletes_total", "Deletes.", status.deletes),
        ("proofs_total", "Merkle leaves and signatures made.", status.proofs),
        ("read_requests_total", "Requests that readers sent to providers.", status.read_requests),
        ("coalesced_reads_total", "Fetches that readers of the same bytes shared.", status.coalesced_reads),
        ("hedged_requests_total", "Extra requests that slow answers were granted.", status.hedged_requests),
        ("failovers_total", "Reads that needed another shard than the first choice.", status.failovers),
        ("repaired_shards_total", "Shards made again.", status.integrity.repaired_shards),
        ("repaired_bytes_total", "Their bytes.", status.integrity.repaired_bytes),
        ("integrity_faults_total", "Shards and segments that failed verification.", status.integrity_faults),
        ("ledger_reads_total", "Reads of the local ledger's files.", status.storage.reads),
        ("ledger_writes_total", "Writes to them.", status.storage.writes),
        ("ledger_deletes_total", "Files of it removed.", status.storage.deletes),
        ("ledger_flushes_total", "Times that they were made durable.", status.storage.flushes),
        ("ledger_read_bytes_total", "Bytes read from them.", status.storage.read_bytes),
        ("ledger_written_bytes_total", "Bytes written to them.", status.storage.written_bytes),
        ("ledger_errors_total", "Accesses to them that failed.", status.storage.errors),
        ("ledger_cache_hits_total", "Pages of the ledger found in memory.", status.storage.cache_hits),
        ("ledger_cache_misses_total", "Pages of it read from its disk.", status.storage.cache_misses),
    ] {
        text.single(name, "counter", help, value);
    }
    text.family("ledger_rows", "gauge", "Rows of the local ledger's tables.");
    for (table, rows) in &status.ledger_rows {
        text.sample("ledger_rows", &[("table", table)], rows);
    }
    checkpoint_text(&mut text, &status.checkpoint);
    integrity_text(&mut text, status);
    provider_text(&mut text, status);
    text.0
}

/// No sample of what there is not.
fn checkpoint_text(text: &mut Text, checkpoint: &CheckpointStatus) {
    text.single("log_leaves_since_checkpoint", "gauge", "Leaves by which the log has grown since its last checkpoint.", checkpoint.grown);
    let Some(last) = &checkpoint.last else { return };
    text.single("checkpoint_covers_seq", "gauge", "Position up to which the newest checkpoint of the log stands for it.", last.covers);
    text.single("checkpoint_age_milliseconds", "gauge", "Age of the newest checkpoint of the log.", last.age_ms);
    text.single("checkpoint_heads", "gauge", "Providers that are known to hold its head.", last.heads.len());
    text.single("checkpoint_counts", "gauge", "1 when enough failure domains hold its head.", u8::from(last.counts));
}

/// Nothing before the first count: a missing sample is not a good one.
fn integrity_text(text: &mut Text, status: &Status) {
    let Some(census) = &status.integrity.census else { return };
    text.family("blocks_by_integrity", "gauge", "Blocks by what was last seen of their shards.");
    for (integrity, blocks) in [
        ("verified", census.verified),
        ("unverified", census.unverified),
        ("degraded", census.degraded),
        ("at_risk", census.at_risk),
        ("lost", census.lost),
    ] {
        text.sample("blocks_by_integrity", &[("integrity", integrity)], blocks);
    }
    text.family("blocks_by_losses_survived", "gauge", "Blocks by the further losses that they survive.");
    for (losses, blocks) in &census.by_losses {
        text.sample("blocks_by_losses_survived", &[("losses", &losses.to_string())], blocks);
    }
    if let Some(oldest) = census.oldest_verified_ms {
        text.single(
            "oldest_verified_shard_milliseconds",
            "gauge",
            "Age of the oldest verification of a shard.",
            census.as_of_ms - oldest.min(census.as_of_ms),
        );
    }
    text.family("provider_bad_cells_at_most", "gauge", "Share of its cells that is bad at most, with 95 % confidence, from audits.");
    for audits in &status.integrity.audits {
        text.sample("provider_bad_cells_at_most", &[("provider", &audits.provider)], audits.at_most_bad_percent / 100.0);
    }
}

fn provider_text(text: &mut Text, status: &Status) {
    type Value = fn(&diaspore_engine::api::ProviderStatus) -> String;
    let families: [(&str, &str, &str, Value); 7] = [
        ("provider_up", "gauge", "1 healthy, 0.5 suspect or read-only, 0 down.", |one| match one.state.as_str() {
            "healthy" => "1".to_owned(),
            "suspect" | "read-only" => "0.5".to_owned(),
            _ => "0".to_owned(),
        }),
        ("provider_latency_milliseconds", "gauge", "Smoothed request latency.", |one| one.latency_ms.to_string()),
        ("provider_requests_total", "counter", "Requests sent.", |one| one.requests.to_string()),
        ("provider_errors_total", "counter", "Requests that failed.", |one| one.errors.to_string()),
        ("provider_sent_bytes_total", "counter", "Bytes sent.", |one| one.bytes_up.to_string()),
        ("provider_received_bytes_total", "counter", "Bytes received.", |one| one.bytes_down.to_string()),
        ("provider_lies_total", "counter", "Times its bytes failed verification.", |one| one.lies.to_string()),
    ];
    text.family("provider_score", "gauge", "How well it served in the last fifteen minutes, 0 to 100.");
    for provider in &status.providers {
        if let Some(score) = provider.score {
            text.sample("provider_score", &[("provider", &provider.id), ("domain", &provider.domain)], score);
        }
    }
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for provider in &status.providers {
            text.sample(name, &[("provider", &provider.id), ("domain", &provider.domain)], value(provider));
        }
    }
}

fn traffic_text(traffic: &Traffic) -> String {
    let mut text = Text::default();
    text.family("http_requests_total", "counter", "Requests answered.");
    for (row, method) in METHODS.iter().enumerate() {
        for (column, class) in STATUS_CLASSES.iter().enumerate() {
            let count = traffic.answered(row, column);
            if count > 0 {
                text.sample("http_requests_total", &[("method", method), ("status", class)], count);
            }
        }
    }
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    text.single("http_requests_running", "gauge", "Requests being answered.", load(&traffic.running));
    text.single("http_received_bytes_total", "counter", "Body bytes received.", load(&traffic.bytes_in));
    text.single("http_sent_bytes_total", "counter", "Body bytes sent.", load(&traffic.bytes_out));
    text.single("http_busy_microseconds_total", "counter", "Time requests took, bodies included.", load(&traffic.duration_us));
    text.single("http_cut_bodies_total", "counter", "Answers that broke off.", load(&traffic.cut_bodies));
    text.single("http_connections", "gauge", "Open connections.", load(&traffic.connections));
    text.single("http_connections_total", "counter", "Connections accepted.", load(&traffic.connections_total));
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use diaspore_engine::api::ProviderStatus;

    #[test]
    fn labels_cannot_break_out() {
        let odd = ProviderStatus { id: "a\"b\\c\nd".into(), domain: "x".into(), state: "suspect".into(), ..ProviderStatus::default() };
        let text = engine_text(&Status { providers: vec![odd], ..Status::default() });
        assert!(text.contains(r#"diaspore_provider_up{provider="a\"b\\c\nd",domain="x"} 0.5"#), "{text}");
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let text = engine_text(&Status { state: "active".into(), ..Status::default() }) + &traffic_text(&Traffic::new("0123456789"));
        assert!(text.contains("diaspore_ready 1\n"));
        assert!(text.contains("# TYPE diaspore_ledger_flushes_total counter\ndiaspore_ledger_flushes_total 0\n"), "{text}");
        for line in text.lines() {
            let sample = line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            assert!(line.starts_with("# ") || sample, "{line}");
        }
    }

    #[test]
    fn only_direct_loopback_peers_are_local() {
        let from = |ip: &str, forwarded: bool| {
            let mut request = Request::new(axum::body::Body::empty());
            request.extensions_mut().insert(Peer(format!("{ip}:1").parse().unwrap()));
            if forwarded {
                request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
            }
            is_local(&request)
        };
        assert!(from("127.0.0.1", false) && from("[::1]", false) && from("[::ffff:127.0.0.1]", false));
        assert!(!from("127.0.0.1", true) && !from("192.0.2.1", false));
        assert!(!is_local(&Request::new(axum::body::Body::empty())), "an in-process call has no peer");
    }
}
