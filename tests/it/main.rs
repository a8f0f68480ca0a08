//! The one integration binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this is a test, the functions around the tests as well: what does not hold ends it"
)]

mod atlas;
mod bad_input;
mod buckets;
mod canary;
mod checkpoints;
mod claims;
mod cli;
mod cli_service;
mod clouds;
mod histories;
mod joined;
mod kill;
mod leaving;
mod localstack;
mod outage;
mod program;
mod recovery;
mod rescue;
mod rotation;
mod sim;
mod steps;
mod tenants;
mod threats;
mod traces;
mod trouble;
mod upkeep;
mod wire;
