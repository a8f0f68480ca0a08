//! `scrub`, `drill` and `providers state`: whether what is stored is still there and right, asked of the running service.

use std::path::Path;

use diaspore_engine::{Census, ScrubReport};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::Global;
use crate::client::{Client, Role};
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::output::{bytes, grouped, note, table};

/// Longest wait asked of the service in one request, in seconds.
const WAIT_PER_REQUEST_S: u64 = 30;

/// `scrub`.
pub(crate) async fn scrub(global: &Global, now: bool, deep: bool, wait: bool) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let mut raw: Value = if now || deep {
        let path = format!("/api/v1/scrub?deep={deep}");
        client.json(client.request(Method::POST, &path)).await?
    } else {
        client.get("/api/v1/scrub").await?
    };
    let mut report = read(&raw)?;
    while wait && report.running {
        note(&format!("{} blocks asked for, {} wait for repair", grouped(report.blocks), grouped(report.repairs_left)));
        raw = client.get(&format!("/api/v1/scrub?timeout_s={WAIT_PER_REQUEST_S}")).await?;
        report = read(&raw)?;
    }
    global.output.print(&raw, || scrub_text(&report))?;
    verdict(&report)
}

fn read(raw: &Value) -> Outcome<ScrubReport> {
    serde_json::from_value(raw.clone()).map_err(|error| Failure::plain(format!("the service's report does not read: {error}")))
}

/// Exit 0 for a scrub that is running, or that ended with every block verified; 4 otherwise.
fn verdict(report: &ScrubReport) -> Outcome {
    if let Some(why) = &report.failed {
        return Err(Failure::new(Exit::Unavailable, format!("the scrub ended early: {why}")));
    }
    if report.started_ms == 0 {
        return Err(Failure::new(Exit::Unavailable, "nothing is known: no scrub was asked for since the service started")
            .hint("metanode storage distributed scrub --now --wait"));
    }
    let Some(census) = &report.census else { return Ok(()) };
    if census.blocks == 0 {
        return Err(Failure::new(Exit::Integrity, "there is no block that could be whole"));
    }
    if census.verified == census.blocks {
        return Ok(());
    }
    let rest = census.blocks - census.verified;
    Err(Failure::new(Exit::Integrity, format!("{} of {} blocks are not whole", grouped(rest), grouped(census.blocks)))
        .hint("metanode storage distributed status shows which providers miss shards; repair goes on by itself while they answer"))
}

fn scrub_text(report: &ScrubReport) -> String {
    let depth = if report.deep { "every shard whole" } else { "every shard's header" };
    let state = match (report.started_ms, report.running) {
        (0, _) => "none since the service started",
        (_, true) => "running",
        _ => "ended",
    };
    let mut lines = vec![
        format!("Scrub: {state} ({depth})"),
        format!("Blocks Asked For: {}", grouped(report.blocks)),
        format!(
            "Shards: {} good, {} missing, {} wrong, {} without an answer",
            grouped(report.good),
            grouped(report.missing),
            grouped(report.wrong),
            grouped(report.silent)
        ),
        format!("Waiting For Repair: {} blocks", grouped(report.repairs_left)),
    ];
    if let Some(census) = &report.census {
        lines.push(census_text(census));
        lines.push(providers_text(census));
    }
    lines.join("\n")
}

/// Totals per status, and by how many further losses are survived.
pub(crate) fn census_text(census: &Census) -> String {
    let losses = census.by_losses.iter().map(|(losses, blocks)| format!("{losses}: {}", grouped(*blocks)));
    let losses = losses.collect::<Vec<_>>().join(", ");
    format!(
        "Blocks: {} verified, {} unverified, {} degraded, {} at risk, {} lost\nFurther Losses Survived: {}",
        grouped(census.verified),
        grouped(census.unverified),
        grouped(census.degraded),
        grouped(census.at_risk),
        grouped(census.lost),
        if losses.is_empty() { "-".to_owned() } else { losses }
    )
}

fn providers_text(census: &Census) -> String {
    let rows = census.providers.iter().map(|(name, row)| {
        let counts = [row.shards, row.good, row.never, row.missing, row.wrong, row.silent, row.verified].map(grouped);
        let [shards, good, never, missing, wrong, silent, verified] = counts;
        [name.clone(), shards, good, never, missing, wrong, silent, verified]
    });
    table(["provider", "shards", "good", "never seen", "missing", "wrong", "silent", "bytes verified"], rows)
}

/// One set of providers of a drill.
#[derive(Debug, Serialize, Deserialize)]
struct Set {
    providers: Vec<String>,
    outcome: String,
}

/// A drill as the service sends it.
#[derive(Debug, Serialize, Deserialize)]
struct Drill {
    needed: u8,
    sets: Vec<Set>,
    sets_total: u64,
    blocks: u64,
    failures: u64,
    note: String,
}

/// `drill`.
pub(crate) async fn drill(global: &Global, report: Option<&Path>) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let raw: Value = client.json(client.request(Method::POST, "/api/v1/drill")).await?;
    let drill: Drill =
        serde_json::from_value(raw.clone()).map_err(|error| Failure::plain(format!("the service's report does not read: {error}")))?;
    if let Some(file) = report {
        std::fs::write(file, &drill.note).explain(|| format!("cannot write {}", file.display()))?;
    }
    global.output.print(&raw, || {
        let rows = drill.sets.iter().map(|set| [set.providers.join(" "), set.outcome.clone()]);
        format!(
            "Drill: {} of {} sets of {} providers tried\nBlocks Rebuilt: {}\nFailures: {}\n{}",
            grouped(drill.sets.len() as u64),
            grouped(drill.sets_total),
            drill.needed,
            grouped(drill.blocks),
            grouped(drill.failures),
            table(["providers", "outcome"], rows)
        )
    })?;
    if drill.failures == 0 && drill.blocks > 0 {
        return Ok(());
    }
    let why =
        if drill.blocks + drill.failures == 0 { "no block was there to rebuild" } else { "not every set of providers rebuilds its block" };
    Err(Failure::new(Exit::Integrity, why).hint("metanode storage distributed scrub --deep --wait finds what is wrong and repairs it"))
}

/// `providers state`.
pub(crate) async fn provider_state(global: &Global, name: &str, state: &str, reason: Option<&str>) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let mut path = String::from("/api/v1/providers/");
    path.extend(name.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    }));
    path.push_str("/state");
    let asked = serde_json::json!({ "state": state, "reason": reason });
    client.send(client.request(Method::POST, &path).json(&asked)).await?;
    global.output.print(&serde_json::json!({ "provider": name, "state": state }), || format!("Provider {name}: {state}"))
}

/// How much of a provider's cells is bad at most, in words.
pub(crate) fn audits_text(audits: &[diaspore_engine::Audits]) -> String {
    if audits.is_empty() {
        return "Audits: none yet".to_owned();
    }
    let rows = audits.iter().map(|one| {
        [one.provider.clone(), grouped(one.cells), grouped(one.of), grouped(one.bad), format!("{:.3} %", one.at_most_bad_percent)]
    });
    table(["audits of", "cells read", "of", "bad", "bad at most (95 %)"], rows)
}

/// Bytes that wait for repair.
pub(crate) fn repairs_text(waiting: u64, failed: u64, moving: u64, repaired: u64) -> String {
    format!(
        "Repairs: {} blocks wait ({} to move, {} tried in vain), {} shards made again since start",
        grouped(waiting),
        bytes(moving),
        grouped(failed),
        grouped(repaired)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_deployment_exits_well() {
        let report = |census: Option<Census>| ScrubReport { started_ms: 1, census, ..ScrubReport::default() };
        let census = |blocks, verified| Some(Census { blocks, verified, ..Census::default() });
        let exit = |report: &ScrubReport| verdict(report).map_err(|failure| failure.exit);
        assert_eq!(exit(&report(census(8, 8))), Ok(()));
        assert_eq!(exit(&report(census(8, 7))), Err(Exit::Integrity));
        assert_eq!(exit(&report(census(0, 0))), Err(Exit::Integrity), "nothing is not whole");
        assert_eq!(exit(&report(None)), Ok(()), "it runs");
        assert_eq!(exit(&ScrubReport::default()), Err(Exit::Unavailable), "none ever ran");
    }
}
