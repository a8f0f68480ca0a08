//! The Diaspore block format, purely: no I/O, no clock, no random state, nothing asynchronous.

pub mod block;
pub mod cell;
pub mod claim;
pub mod codec;
pub mod commit;
pub mod compress;
pub mod decode;
pub mod erasure;
pub mod error;
pub mod geometry;
pub mod id;
pub mod key;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod name;
pub mod record;
pub mod seal;
pub mod section;
pub mod shard;

#[cfg(test)]
mod test_world;

pub use error::{BlockError, Result};
