//! What a recovery came to, in words and as JSON.

use std::fmt;

use diaspore_engine::api::Status;
use diaspore_engine::{Loss, Losses};

use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Format, bytes, grouped};

/// Who gives their word, for the log: the account that runs the command.
pub(crate) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
    name.map_or_else(|| "an operator without a name".to_owned(), |name| name.to_string_lossy().chars().take(64).collect())
}

/// Shows what a refused recovery would lose, and what can be done about it.
pub(crate) fn refused(format: Format, failure: Failure) -> Outcome<Failure> {
    let Some(loss) = failure.loss.as_deref() else { return Ok(failure) };
    format.print(loss, || loss_text(loss))?;
    let token = loss.token.clone();
    let silent = loss.silent.join(", ");
    let failure = failure.hint("nothing was changed: bring the providers back that hold it, and run recover again");
    if !silent.is_empty() {
        return Ok(failure.hint(format!("{silent} do not answer: if they are gone for good, name them with --declare-lost first")));
    }
    Ok(failure
        .hint("if it is gone for good: run recover --salvage DIR first, which copies out everything that can be rebuilt, and keep that")
        .hint(format!(
            "then recover --accept-loss {token} goes on without what is listed above; providers that come back later change nothing then"
        )))
}

fn loss_text(loss: &Loss) -> String {
    let mut lines = vec![format!(
        "Kept: the log up to position {} of {} ({} entries, root {})",
        grouped(loss.kept_through),
        grouped(loss.known_through),
        grouped(loss.log_size),
        loss.log_root
    )];
    if !loss.unknown.is_empty() {
        lines.push(format!("Lost, Unknown: positions {}: nobody can say what was written there", ranges(&loss.unknown)));
    }
    if !loss.readable.is_empty() {
        lines.push(format!(
            "Lost From The Log, Readable: positions {}: {} blobs of {} put, {} deleted",
            ranges(&loss.readable),
            grouped(loss.blobs_total),
            bytes(loss.bytes_total),
            grouped(loss.deletions)
        ));
    }
    for blob in &loss.blobs {
        lines.push(format!(
            "  version {} in bucket {}: {} bytes, acknowledged in sequence {}",
            blob.version, blob.bucket, blob.size, blob.seq
        ));
    }
    if loss.blobs_total > loss.blobs.len() as u64 {
        lines.push(format!("  and {} more", grouped(loss.blobs_total - loss.blobs.len() as u64)));
    }
    if !loss.incarnations.is_empty() {
        lines.push(format!(
            "Given Up With It: what incarnations {} wrote behind position {}",
            loss.incarnations.join(", "),
            loss.kept_through
        ));
    }
    for (what, domains) in [("Do Not Answer", &loss.silent), ("Declared Lost", &loss.declared)] {
        if !domains.is_empty() {
            lines.push(format!("{what}: {}", domains.join(", ")));
        }
    }
    lines.push(format!("Token: {}", loss.token));
    lines.join("\n")
}

fn ranges(ranges: &[(u64, u64)]) -> String {
    let one = |(from, to): &(u64, u64)| if from == to { from.to_string() } else { format!("{from}..{to}") };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The state of the service and what it cannot give back.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Recovered {
    #[serde(flatten)]
    pub(crate) status: Status,
    pub(crate) losses: Losses,
}

impl Recovered {
    /// A failure when acknowledged data cannot be read.
    pub(crate) fn verdict(&self) -> Outcome {
        let lost = self.losses.unreadable.len();
        if lost == 0 {
            return Ok(());
        }
        Err(Failure::new(Exit::Integrity, format!("{lost} acknowledged blobs cannot be read now; their versions are listed above"))
            .hint("they come back with the providers that hold their shards: bring those back and run recover into an empty data folder again")
            .hint("or delete them once the service runs"))
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, losses) = (&self.status, &self.losses);
        writeln!(
            f,
            "Recovered: {} blobs in {} buckets, {} blocks, log of {} entries with root {}",
            status.blobs, status.buckets, status.blocks, status.log_size, status.log_root
        )?;
        writeln!(f, "Unreadable: {} blobs, in {} of {} blocks", losses.unreadable.len(), losses.lost_blocks.len(), losses.blocks)?;
        for blob in &losses.unreadable {
            writeln!(
                f,
                "  version {} in bucket {}: {} bytes, acknowledged in sequence {}",
                blob.version, blob.bucket, blob.size, blob.seq
            )?;
        }
        for block in &losses.lost_blocks {
            writeln!(f, "  block {}: {} of the {} shards that rebuild it", block.block, block.shards, block.needed)?;
        }
        Ok(())
    }
}
