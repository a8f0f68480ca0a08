//! `storage distributed gc`: the price first, then the collection, then what came of it.

use std::time::Duration;

use diaspore_engine::{Collected, CollectorState};
use reqwest::Method;

use crate::cli::Global;
use crate::cli::storage::Gc;
use crate::client::{Client, Role, may_retry};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{as_f64, bytes, grouped, note, table};

/// Pause between two looks at a collection that runs.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for one that somebody else began.
const TURN: Duration = Duration::from_mins(10);

/// Runs the command.
pub(crate) async fn run(global: &Global, flags: &Gc) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let plan = collect(&client, flags, true).await?;
    if flags.dry_run {
        return global.output.print(&plan, || plan_text(&plan));
    }
    note(&plan_text(&plan));
    if !flags.wait {
        let begun = begin(&client, flags, false).await?;
        return global.output.print(&begun, || "Collecting: metanode storage distributed gc --wait waits for the next one".to_owned());
    }
    let done = collect(&client, flags, false).await?;
    global.output.print(&done, || done_text(&done))?;
    if done.failed_moves > 0 || done.unreadable_buckets > 0 {
        return Err(Failure::new(Exit::Unavailable, "not everything could be collected: too few providers answer for some blocks")
            .hint("metanode storage distributed status shows which providers are down; nothing is lost, the next collection goes on"));
    }
    Ok(())
}

/// One collection from its beginning to its end.
async fn collect(client: &Client, flags: &Gc, dry_run: bool) -> Outcome<Collected> {
    let number = begin(client, flags, dry_run).await?.running;
    loop {
        let state: CollectorState = client.get("/api/v1/collect").await?;
        if state.running != number {
            return match (state.ended == number, state.outcome, state.error) {
                (true, Some(outcome), _) => Ok(outcome),
                (true, None, Some(error)) => Err(Failure::new(Exit::Unavailable, format!("the collection ended early: {error}"))),
                _ => Err(Failure::new(Exit::Unavailable, "the service started anew, or another collection followed; ask again")),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts one; waits while another runs.
async fn begin(client: &Client, flags: &Gc, dry_run: bool) -> Outcome<CollectorState> {
    let most = flags.max_dead.map_or_else(String::new, |most| format!("&max_dead_permille={most}"));
    let path = format!("/api/v1/collect?now={}&dry_run={dry_run}{most}", flags.now);
    let until = tokio::time::Instant::now() + TURN;
    loop {
        match client.json::<CollectorState>(client.request(Method::POST, &path)).await {
            Err(failure) if may_retry(&failure) && tokio::time::Instant::now() < until => {
                let state: CollectorState = client.get("/api/v1/collect").await?;
                if state.running.is_none() {
                    return Err(failure);
                }
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

fn plan_text(plan: &Collected) -> String {
    let cost = &plan.cost;
    [
        format!(
            "Dead: {} of {} in {} blocks",
            bytes(plan.held_bytes.saturating_sub(plan.live_bytes)),
            bytes(plan.held_bytes),
            grouped(plan.blocks)
        ),
        format!("To Delete: {} blocks   To Empty: {} blocks", grouped(plan.dead_blocks + plan.sparse_blocks), grouped(plan.sparse_blocks)),
        format!(
            "Cost: at most {} writes and listings, {} reads, {} deletes; {} to read, {} to write; {:.4} USD by list price",
            grouped(cost.writes),
            grouped(cost.reads),
            grouped(cost.deletes),
            bytes(cost.bytes_read),
            bytes(cost.bytes_written),
            as_f64(cost.microdollars) / 1e6
        ),
    ]
    .join("\n")
}

fn done_text(done: &Collected) -> String {
    let swept = &done.swept;
    let mut lines = vec![
        format!("Condemned: {} blocks", grouped(done.condemned_blocks)),
        format!("Moved: {} into {} new blocks", bytes(done.moved_bytes), grouped(done.new_blocks)),
        format!("Freed: {} in {} blocks", bytes(swept.bytes), grouped(swept.blocks)),
        format!("Waiting: {} blocks (grace time, running reads, or a provider that does not answer)", grouped(swept.waiting)),
    ];
    if done.inherited_blocks > 0 {
        let count = grouped(done.inherited_blocks);
        lines.push(format!("Held Back: {count} blocks, until all shards of what their chunks are read from by now were read back"));
    }
    if done.failed_moves > 0 {
        lines.push(format!("Not Emptied: {} groups of blocks; the service's log says why", grouped(done.failed_moves)));
    }
    let rows = done.providers.iter().map(|(provider, found)| {
        [
            provider.clone(),
            if found.listed { grouped(found.known) } else { "no listing".to_owned() },
            grouped(found.control),
            grouped(found.pending),
            grouped(found.orphans),
            grouped(found.deleted),
            format!("{} ({})", grouped(found.foreign), bytes(found.foreign_bytes)),
            grouped(swept.failed.get(provider).copied().unwrap_or(0)),
            grouped(swept.kept.get(provider).copied().unwrap_or(0)),
        ]
    });
    let heads = ["provider", "known", "control", "pending", "orphans", "deleted", "foreign", "no answer", "kept though deleted"];
    format!("{}\n{}", lines.join("\n"), table(heads, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_is_said_in_requests_bytes_and_money() {
        let mut plan = Collected {
            blocks: 1200,
            held_bytes: 3 << 30,
            live_bytes: 1 << 30,
            dead_blocks: 100,
            sparse_blocks: 7,
            ..Collected::default()
        };
        plan.cost.writes = 1234;
        plan.cost.microdollars = 12_345;
        let text = plan_text(&plan);
        assert!(
            text.starts_with(
                "Dead: 2.0 GiB of 3.0 GiB in 1,200 blocks\nTo Delete: 107 blocks   To Empty: 7 blocks\nCost: at most 1,234 writes and listings"
            ),
            "{text}"
        );
        assert!(text.ends_with("0.0123 USD by list price"), "{text}");
    }
}
