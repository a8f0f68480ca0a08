//! `storage distributed checkpoint`: the log in its compacted form, so that a recovery is short and old records may go.

use std::time::Duration;

use diaspore_engine::{CheckpointReport, CheckpointState};
use reqwest::Method;
use tokio::time::Instant;

use crate::cli::Global;
use crate::client::{Client, Role};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{bytes, grouped};

/// Pause between two looks at one that is under way.
const PAUSE: Duration = Duration::from_millis(250);

/// Runs the command.
pub(crate) async fn run(global: &Global, wait: bool, timeout_s: u64) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let begun: CheckpointState = client.json(client.request(Method::POST, "/api/v1/checkpoint")).await?;
    if !wait {
        return global
            .output
            .print(&begun, || "Compacting the log: metanode storage distributed checkpoint --wait waits for the end".to_owned());
    }
    let until = Instant::now() + Duration::from_secs(timeout_s);
    loop {
        let state: CheckpointState = client.get("/api/v1/checkpoint").await?;
        if state.running != begun.running {
            return match (state.outcome.filter(|_| state.ended == begun.running), state.error) {
                (Some(report), _) => global.output.print(&report, || text(&report)),
                (None, Some(error)) => Err(Failure::new(Exit::Unavailable, format!("the log was not compacted: {error}"))),
                (None, None) => Err(Failure::new(Exit::Unavailable, "the service started anew meanwhile; ask again")),
            };
        }
        if Instant::now() >= until {
            return Err(Failure::new(Exit::Unavailable, format!("the checkpoint is not whole after {timeout_s} s; it goes on")).hint(
                "it waits until everything it covers lies on all its providers: metanode storage distributed status shows which are down",
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn text(report: &CheckpointReport) -> String {
    [
        format!("Compacted Log: up to sequence {}, {} entries", grouped(report.covers), grouped(report.log_size)),
        format!("State: {} rows in {} parts", grouped(report.rows), grouped(report.parts)),
        format!("Written: {} blocks, {}; the other parts had not changed", grouped(report.written), bytes(report.bytes)),
        format!("Announced: at {} providers", grouped(report.heads)),
    ]
    .join("\n")
}
