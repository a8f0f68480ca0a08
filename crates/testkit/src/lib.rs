//! Providers that can be trusted even less than real ones.
//!
//! * [`s3`]: an emulator that speaks the S3 wire protocol over loopback sockets and keeps one folder per bucket. It
//!   stands behind `metanode quickstart` and `metanode dev providers`, and is cheap enough to measure against.
//! * [`hostile`]: an [`object_store::ObjectStore`] in memory for deterministic simulation: it waits only on tokio's
//!   (pausable) clock, draws only from the seeded generator it was given, spawns nothing and records a trace.
//! * [`fault`]: the vocabulary of misbehaviour both share. [`FaultPlan::decide`] is the only place that throws dice.
//!
//! # An emulator in five lines
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), diaspore_testkit::s3::EmulatorError> {
//! use diaspore_testkit::{Fault, Misbehaviour, s3::EmulatorConfig};
//! let cloud = EmulatorConfig::memory().with_bucket("shards").with_credentials("key", "secret").start().await?;
//! assert!(cloud.endpoint().starts_with("http://127.0.0.1:"));
//! cloud.set_faults(Fault::chance(Misbehaviour::Flip { bits: 1 }, 0.5).into())?;
//! cloud.kill();
//! # Ok(()) }
//! ```
//!
//! # What it is not
//! An emulator keeps no promise a provider makes about durability: nothing is ever flushed to the disk, and file work
//! is done on the runtime's own threads because that is cheapest for files in the page cache. It listens on 127.0.0.1
//! only. Its tags are opaque (S3 allows that), its dates are those of the files.

pub mod fault;
pub mod hostile;
mod recent;
pub mod s3;
mod tripwire;

pub use fault::{Fault, FaultPlan, Misbehaviour, Op, Ops, ParseFaultError, When};
pub use hostile::HostileStore;
pub use recent::RECENT_CHANGES;
pub use s3::{Counters, EmulatorConfig, EmulatorHandle};
pub use tripwire::Tripwire;
