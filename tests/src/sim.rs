//! A whole deployment inside one seeded, single-threaded runtime with a paused clock.
//!
//! The real engine runs over hostile in-memory stores and an in-memory disk. A script drawn from the seed puts, overwrites,
//! deletes, reads and lists, several operations at a time; crashes the process between any two awaits; keeps, loses, tears
//! or rolls back its disk; starts it again, recovers it, replaces its master key, or starts a second writer beside it. A reference model judges every
//! answer. The same seed gives the same trace, request by request.
//!
//! What is demanded follows from the faults that a [`Scenario`] allows: within the class an acknowledged write survives,
//! beyond it the engine may refuse to start, but it must say so and must never invent, resurrect or mix up data.

pub mod atlas;
mod client;
mod deployment;
mod disk;
pub mod history;
mod model;
mod script;
pub mod steps;
mod vault;

pub use deployment::{Deployment, DiskFate};
pub use model::{Model, Value, Violation};
pub use script::{Report, Scenario, run, run_blocking};
