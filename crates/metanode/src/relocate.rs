//! `storage providers evacuate|rebalance`: the price first, then the move, then what came of it.

use std::time::Duration;

use diaspore_engine::{Cost, Evacuated, Rebalanced, Relocated, RelocationState};
use reqwest::Method;

use crate::cli::Global;
use crate::cli::storage::{Evacuate, Rebalance};
use crate::client::{Client, Role};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{as_f64, bytes, grouped, note, table};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// `evacuate`.
pub(crate) async fn evacuate(global: &Global, flags: &Evacuate) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let most = flags.max_cost.map_or_else(String::new, |most| format!("&max_microdollars={most}"));
    let path = |dry_run: bool| format!("/api/v1/providers/{}/evacuate?dead={}&dry_run={dry_run}{most}", flags.name, flags.dead);
    let Relocated::Evacuated(plan) = run(&client, &path(true)).await? else { return Err(strange()) };
    if flags.dry_run {
        return global.output.print(&plan, || plan_text(&plan));
    }
    note(&plan_text(&plan));
    if !flags.wait {
        let begun = begin(&client, &path(false)).await?;
        return global
            .output
            .print(&begun, || format!("Leaving {}: the same command with --wait goes on and says how it ended", flags.name));
    }
    let Relocated::Evacuated(done) = run(&client, &path(false)).await? else { return Err(strange()) };
    global.output.print(&done, || done_text(&done))?;
    if done.certified {
        return Ok(());
    }
    if let (0, Some(why)) = (done.remaining, &done.keyring) {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("nothing of the map lies at {} any more, but it may hold a copy of the keyring that is needed: {why}", done.provider),
        )
        .hint("restart the service with every account within reach, then run the same command again"));
    }
    Err(Failure::new(Exit::Unavailable, format!("{} blocks still have a shard at {}", grouped(done.remaining), done.provider))
        .hint("run the same command again: it goes on where it ended")
        .hint("if the disk was set back it believes shards where they were: metanode storage distributed scrub --now --wait looks where they are")
        .hint("blocks of the log that no free domain can take go when two checkpoints stand for them; it makes those once everything is settled"))
}

/// `rebalance`.
pub(crate) async fn rebalance(global: &Global, flags: &Rebalance) -> Outcome {
    let client = Client::connect(global, Role::Operator)?;
    let path = |dry_run: bool| format!("/api/v1/providers/rebalance?dry_run={dry_run}");
    let Relocated::Rebalanced(plan) = run(&client, &path(true)).await? else { return Err(strange()) };
    if flags.dry_run {
        return global.output.print(&plan, || spread_text(&plan));
    }
    note(&spread_text(&plan));
    if !flags.wait {
        let begun = begin(&client, &path(false)).await?;
        return global.output.print(&begun, || "Spreading".to_owned());
    }
    let Relocated::Rebalanced(done) = run(&client, &path(false)).await? else { return Err(strange()) };
    global
        .output
        .print(&done, || format!("Moved: {} shards, {}   Stayed: {}", grouped(done.moved), bytes(done.bytes), grouped(done.failed)))
}

async fn begin(client: &Client, path: &str) -> Outcome<RelocationState> {
    client.json(client.request(Method::POST, path)).await
}

/// From beginning to end.
async fn run(client: &Client, path: &str) -> Outcome<Relocated> {
    let number = begin(client, path).await?.running;
    loop {
        let state: RelocationState = client.get("/api/v1/relocations").await?;
        if state.running != number {
            return match (state.ended == number, state.outcome, state.error) {
                (true, Some(outcome), _) => Ok(outcome),
                (true, None, Some(error)) => Err(Failure::plain(error)),
                _ => Err(Failure::new(Exit::Unavailable, "the service started anew meanwhile; run the same command again: it goes on")),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn strange() -> Failure {
    Failure::plain("the service answered about another errand; run the same command again")
}

fn cost_text(cost: &Cost) -> String {
    format!(
        "Cost: {} writes, {} reads; {} to read, {} to write; {:.4} USD by list price",
        grouped(cost.writes),
        grouped(cost.reads),
        bytes(cost.bytes_read),
        bytes(cost.bytes_written),
        as_f64(cost.microdollars) / 1e6
    )
}

fn plan_text(plan: &Evacuated) -> String {
    let mut lines = vec![
        format!("To Move: {} shards, {}", grouped(plan.blocks), bytes(plan.bytes)),
        format!("Domains Left That Take Shards: {}", plan.domains),
        cost_text(&plan.cost),
    ];
    if plan.crowded > 0 {
        lines.push(format!(
            "No Free Domain: {} blocks have a shard on each of the {} others; {} hold data and are written anew in a narrower layout, {} belong to the log and go when new checkpoints stand for them",
            grouped(plan.crowded),
            plan.domains,
            grouped(plan.crowded - plan.crowded_log),
            grouped(plan.crowded_log)
        ));
    }
    if let Some(why) = &plan.keyring {
        lines.push(format!("No Certificate Yet: {why}"));
    }
    lines.join("\n")
}

fn done_text(done: &Evacuated) -> String {
    [
        format!("Moved: {} shards, {}", grouped(done.moved_shards), bytes(done.moved_bytes)),
        format!("Written Anew: {} blocks", grouped(done.rewritten)),
        format!("Left In The Map: {} blocks", grouped(done.remaining)),
        if done.reachable {
            format!(
                "Left There: {} objects, of which {} are claims, heads and keyring copies; {} that are not ours",
                grouped(done.left),
                grouped(done.control),
                grouped(done.foreign)
            )
        } else {
            "Left There: unknown, it does not answer, or does not list all that it has".to_owned()
        },
        format!("Certified In The Log: {}", if done.certified { "yes" } else { "no" }),
    ]
    .join("\n")
}

fn spread_text(plan: &Rebalanced) -> String {
    let rows = plan.before.iter().map(|(provider, count)| [provider.clone(), grouped(*count)]);
    format!("{}\nTo Move: {} shards\n{}", table(["provider", "shards"], rows), grouped(plan.planned), cost_text(&plan.cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_has_no_place() {
        let plan = Evacuated { blocks: 1200, bytes: 3 << 30, domains: 4, crowded: 1200, crowded_log: 200, ..Evacuated::default() };
        let text = plan_text(&plan);
        assert!(text.starts_with("To Move: 1,200 shards, 3.0 GiB\nDomains Left That Take Shards: 4\nCost: "), "{text}");
        assert!(text.contains("1,000 hold data and are written anew in a narrower layout, 200 belong to the log"), "{text}");
        assert!(!plan_text(&Evacuated::default()).contains("No Free Domain"));
    }

    #[test]
    fn what_was_not_asked_is_not_called_empty() {
        assert!(done_text(&Evacuated::default()).contains("unknown, it does not answer"));
    }
}
