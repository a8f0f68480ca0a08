//! The Diaspore block format, purely: no I/O, no clock, no random state, nothing asynchronous.
//!
//! Time and randomness are arguments, providers are names in a seal's context, and every byte that comes from outside
//! passes a constructor that verified it. `docs/format.md` is the normative text; this crate follows its order.
//!
//! Writing is a chain of types, each made by consuming the one before:
//!
//! ```text
//! PayloadBuilder or CommitBody --seal--> SealedPayload --encode--> CodedBlock --sign--> SignedBlock --object--> [Bytes; 3]
//! ```
//!
//! Reading runs the other way and cannot skip a step: [`shard::ShardHeader::open`] checks seal, place, signature and
//! roots, [`shard::LeafList::open`] the leaves, [`shard::VerifiedCells::check`] the bytes, and [`decode::decode`] takes
//! nothing but verified cells. A small read of a healthy block needs none of that: [`section::open_section`] opens whole
//! segments by their own tags, from the entry in the block's record.
//!
//! One construction seals everything ([`seal`]), one code makes parity ([`erasure`]), one tree speaks for cells
//! ([`cell`]) and one for the log ([`log`]). The engines below them come in pairs that give the same bytes.

pub mod block;
pub mod cell;
pub mod claim;
pub mod codec;
pub mod commit;
pub mod compacted;
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
