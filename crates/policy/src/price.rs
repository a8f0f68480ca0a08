//! List prices in integers, so that sums do not depend on the order of additions.

use serde::{Deserialize, Serialize};

/// List price of one provider in micro-dollars (1 USD = 1 000 000). Decimal gigabytes, 30-day months, first paid tier, no free quota.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Keeping 1 GB for a month, in micro-dollars.
    pub storage_gb_month: u64,
    /// One million writing or listing requests (PUT, LIST), in micro-dollars.
    pub write_million: u64,
    /// One million reading requests (GET, HEAD), in micro-dollars.
    pub read_million: u64,
    /// Sending 1 GB from the provider to the internet, in micro-dollars.
    pub egress_gb: u64,
    /// Page or document the figures were taken from.
    pub source: String,
    /// Day the figures were written down, ISO 8601. Prices change: check before relying on an estimate.
    pub as_of: String,
    /// What the figures leave out (free quotas, minimum bills, minimum storage times).
    #[serde(default)]
    pub note: String,
}

const MILLION: u128 = 1_000_000;
const GIGABYTE: u128 = 1_000_000_000;

impl Price {
    /// Micro-dollars for so many writing and reading requests, rounded up; saturates at `u64::MAX`.
    pub fn requests(&self, writes: u64, reads: u64) -> u64 {
        let total = u128::from(writes) * u128::from(self.write_million) + u128::from(reads) * u128::from(self.read_million);
        saturate(total.div_ceil(MILLION))
    }

    /// Micro-dollars for bytes sent to the internet, rounded up; saturates at `u64::MAX`.
    pub fn egress(&self, bytes: u64) -> u64 {
        saturate((u128::from(bytes) * u128::from(self.egress_gb)).div_ceil(GIGABYTE))
    }

    /// Micro-dollars for keeping so many bytes for one month, rounded up; saturates at `u64::MAX`.
    pub fn storage_month(&self, bytes: u64) -> u64 {
        saturate((u128::from(bytes) * u128::from(self.storage_gb_month)).div_ceil(GIGABYTE))
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price() -> Price {
        Price { storage_gb_month: 23_000, write_million: 5_000_000, read_million: 400_000, egress_gb: 90_000, ..Price::default() }
    }

    #[test]
    fn sums_are_exact_and_round_up() {
        // 100 TB in S3 standard: 100 000 GB at 0.023 USD = 2300 USD.
        assert_eq!(price().storage_month(100_000_000_000_000), 2_300_000_000);
        assert_eq!(price().requests(1_000_000, 0), 5_000_000);
        assert_eq!(price().requests(1, 1), 6, "5 + 0.4 micro-dollars round up");
        assert_eq!(price().egress(1), 1);
        assert_eq!(price().egress(0), 0);
    }

    #[test]
    fn absurd_inputs_saturate_instead_of_wrapping() {
        let dear = Price { storage_gb_month: u64::MAX, write_million: u64::MAX, ..price() };
        assert_eq!(dear.storage_month(u64::MAX), u64::MAX);
        assert_eq!(dear.requests(u64::MAX, 0), u64::MAX);
    }
}
