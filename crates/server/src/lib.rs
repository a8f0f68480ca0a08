//! The HTTP front of Diaspore.
//!
//! Plain HTTP/1.1 over an accept loop of our own ([`serve`]), because every limit here answers an attack: a timer on heads and a
//! pace for bodies ([`Limits`]), a bound on connections and requests, a lingering close. Handlers sit on the engine's facade and see
//! neither providers nor shards.
//!
//! - A key is the rest of the *original* path, decoded once, byte for byte (`address`).
//! - A handler can only get a caller through its scope (`access`); the check comes before any lookup.
//! - Every error is an RFC 9457 document from one table (`problem`).
//! - Bodies pass through frame by frame in both directions (`upload`, `blobs`).
//! - Logs and counters carry ids and sizes, never names (`observe`, `exposition`).

mod access;
mod address;
mod admin;
mod attributes;
mod audit;
mod blobs;
mod buckets;
mod checkpoint;
mod collect;
mod condition;
mod digest;
mod document;
mod exposition;
mod health;
mod instant;
mod integrity;
mod limits;
mod listing;
mod observe;
mod openapi;
mod problem;
mod progress;
mod range;
mod relocate;
mod router;
mod serve;
mod socket;
mod upkeep;
mod upload;
mod wire;

pub use limits::Limits;
pub use problem::ProblemDocument;
pub use router::{MetricsText, ServerOptions, router};
pub use serve::{ServerError, serve};

#[cfg(test)]
mod tests;
