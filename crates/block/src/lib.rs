//! The Diaspore block format, purely: no I/O, no clock, no random state, nothing asynchronous.

pub mod codec;
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

pub use error::{BlockError, Result};
