//! What a recovery came to, in words and as JSON.

use std::fmt;

use diaspore_engine::Losses;
use diaspore_engine::api::Status;

use crate::failure::{Exit, Failure, Outcome};

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
