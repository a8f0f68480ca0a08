//! The untrusted outside. A [`Fleet`] is the operator's accounts, each a flat space of write-once objects; this crate moves
//! bytes to and from them and trusts nothing it is told.
//!
//! It cannot name a block, a blob or a tenant: it sees random object paths and sealed bytes (docs/ARCHITECTURE.md, invariant 2).
//! Whether bytes are the right ones is decided above, by tag or by cell; the verdict comes back through [`Fleet::report_lie`].
//!
//! What it adds to `object_store`:
//! - **Our deadlines.** One attempt per call, cut by a [`Deadline`] for the whole and for progress. `object_store` itself would
//!   retry ten times in three minutes, which is the right habit for one store and the wrong one when another provider has the bytes.
//! - **Bounds.** Never more than the caller's `max_len` bytes of a body are kept, never more than a few MiB of a listing or of an
//!   error text are read; requests and bytes in flight per provider are limited. Redirects are refused, proxies ignored.
//! - **Health.** Latency, error rate, lies and a circuit breaker per provider ([`Health`]), so that a dead provider costs one
//!   deadline and not one per request.
//! - **Errors by action.** [`ErrorKind`] says what a caller can do; no message carries an object path or a secret.
//!
//! All waiting goes through `tokio::time`: under a paused clock the whole crate is deterministic.

mod body;
mod capability;
mod connect;
mod counters;
mod credentials;
mod deadline;
mod error;
mod fleet;
mod health;
mod member;
mod path;
mod root;
mod transport;

pub use capability::{Capabilities, Probe, Verdict};
pub use counters::Counters;
pub use credentials::{Credentials, S3Credentials};
pub use deadline::Deadline;
pub use diaspore_policy::{FailureDomain, ProviderId, ProviderSpec};
pub use error::{ConnectError, ErrorKind, Operation, ProviderError};
pub use fleet::{Fleet, FleetOptions, TRIAL_OBJECT};
pub use health::{BreakerOptions, Health, HealthState, MINUTES, Minute};
