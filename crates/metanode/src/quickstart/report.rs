//! What the quickstart found, as one JSON object and as a short table.

use serde::Serialize;

use crate::failure::{Exit, Failure, Outcome};
use crate::output::{bytes, grouped, table};

/// Everything measured. Names are part of the interface: programs read them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Every byte came back with two providers stopped and one lying.
    pub(super) byte_equal: bool,
    /// The same after the service's disk was wiped and rebuilt, those providers still stopped and still lying.
    pub(super) recovered_byte_equal: bool,
    /// The exported log verified offline and extends the checkpoint taken before the disk was wiped.
    pub(super) audit_verified: bool,
    pub(super) blobs: u64,
    pub(super) logical_bytes: u64,
    pub(super) unique_bytes: u64,
    pub(super) compressed_bytes: u64,
    pub(super) sealed_bytes: u64,
    /// Bytes at the providers, counted there.
    pub(super) stored_bytes: u64,
    /// `stored_bytes / sealed_bytes`.
    pub(super) coding_overhead: f64,
    pub(super) dedup_ratio: f64,
    pub(super) compression_ratio: f64,
    pub(super) k: u8,
    pub(super) n: u8,
    pub(super) providers: usize,
    pub(super) providers_stopped: usize,
    pub(super) providers_lying: usize,
    /// Times the liar was caught, as the service counted them.
    pub(super) lies_caught: u64,
    pub(super) upload_mb_per_s: f64,
    pub(super) settle_ms: u64,
    pub(super) download_mb_per_s: f64,
    pub(super) recovered_download_mb_per_s: f64,
    pub(super) recover_ms: u64,
    /// First byte of a download, all providers well.
    pub(super) first_byte_p50_ms: f64,
    pub(super) first_byte_p99_ms: f64,
    /// First byte with the losses, less the healthy median.
    pub(super) failover_p50_ms: f64,
    pub(super) failover_p99_ms: f64,
    pub(super) audit_entries: u64,
    pub(super) provider_requests: u64,
    pub(super) upload_provider_requests: u64,
    pub(super) total_s: f64,
    /// What went wrong, if anything.
    pub(super) failures: Vec<String>,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let verdict = |good: bool| if good { "yes, every byte" } else { "NO" }.to_owned();
        let rows = [
            ["blobs".to_owned(), grouped(self.blobs)],
            ["logical".to_owned(), bytes(self.logical_bytes)],
            ["unique".to_owned(), format!("{}  (dedup {:.2}x)", bytes(self.unique_bytes), self.dedup_ratio)],
            ["compressed".to_owned(), format!("{}  (compression {:.2}x)", bytes(self.compressed_bytes), self.compression_ratio)],
            [
                "stored at providers".to_owned(),
                format!(
                    "{}  (coding overhead {:.2}x, any {} of {} rebuild)",
                    bytes(self.stored_bytes),
                    self.coding_overhead,
                    self.k,
                    self.n
                ),
            ],
            ["upload".to_owned(), format!("{:.1} MB/s, settled {:.1} s later", self.upload_mb_per_s, millis(self.settle_ms))],
            ["download, half the clouds gone".to_owned(), format!("{:.1} MB/s", self.download_mb_per_s)],
            ["added failover latency".to_owned(), format!("p50 {:.1} ms, p99 {:.1} ms", self.failover_p50_ms, self.failover_p99_ms)],
            [
                "provider requests".to_owned(),
                format!("{} ({} for the upload)", grouped(self.provider_requests), grouped(self.upload_provider_requests)),
            ],
            [
                format!("byte-equal, {} of {} stopped, {} lying", self.providers_stopped, self.providers, self.providers_lying),
                verdict(self.byte_equal),
            ],
            [
                format!("byte-equal after disk loss, {} stopped, {} lying", self.providers_stopped, self.providers_lying),
                format!("{} (recovered in {:.1} s)", verdict(self.recovered_byte_equal), millis(self.recover_ms)),
            ],
            [
                "audit log verified offline".to_owned(),
                format!("{} ({} entries)", if self.audit_verified { "yes" } else { "NO" }, grouped(self.audit_entries)),
            ],
        ];
        table(["quickstart", ""], rows)
    }

    /// Exit 4 when bytes or proofs are wrong.
    pub(super) fn verdict(&self) -> Outcome {
        if self.byte_equal && self.recovered_byte_equal && self.audit_verified && self.failures.is_empty() {
            return Ok(());
        }
        let message = if self.failures.is_empty() { "something did not come back".to_owned() } else { self.failures.join("; ") };
        Err(Failure::new(Exit::Integrity, format!("the quickstart failed: {message}")))
    }
}

fn millis(ms: u64) -> f64 {
    crate::output::as_f64(ms) / 1000.0
}
