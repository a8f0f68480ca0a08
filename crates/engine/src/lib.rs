//! The use cases of Diaspore: put, get, commit, start, recover, settle, audit.
//!
//! One log orders every mutation. A mutation is acknowledged when its commit block lies on k + 1 failure domains, the journal
//! that holds it is flushed and the fence holds; a start reconciles disk and providers before anything is served. Both follow
//! `docs/protocol.md` rule by rule: the modules name the rules they carry.
//!
//! - [`world`]: time, randomness and processor time as arguments.
//! - `commit`: group commit, the window, release in order. `scatter`: shards onto distinct domains. `settle`: the missing rest.
//! - `checkpoint`: the log in a compacted form. `claim`, `fence`, `reconcile`: who writes, and where the log ends. `layout`, `succession`: writing on with fewer domains.
//! - `namespace`, `blob`, `upload`, `read`: what callers do. `audit`, `status`, `history`: what happened. `losses`: what cannot be read. `salvage`: copying out what still can, with no writer.
//! - `scrub`: whether what is stored is still there and right. `modes`: how each provider is to be used.

pub mod api;
pub mod config;
pub mod world;

mod audit;
mod backup;
mod bell;
mod blob;
mod cache;
mod checkpoint;
mod chunker;
mod claim;
mod coded;
mod collect;
mod commit;
mod engine;
mod fence;
mod history;
mod keyring;
mod layout;
mod losses;
mod modes;
mod namespace;
mod prober;
mod read;
mod reconcile;
mod relocate;
mod salvage;
mod scatter;
mod scrub;
mod settle;
mod shards;
mod shared;
mod status;
mod succession;
mod unjudged;
mod upload;

pub use audit::AuditLine;
pub use backup::Backup;
pub use checkpoint::{CheckpointReport, CheckpointState};
pub use collect::{Asked as CollectAsked, Collected, CollectorState, Cost, Found, Swept};
pub use config::{AcceptLoss, EngineConfig, Fatal, Limits, Mode, OnFatal};
pub use diaspore_block::id;
pub use diaspore_ledger::IntegrityReport;
pub use engine::Engine;
pub use history::{Counts, History};
pub use keyring::{KeyringCopy, ReplacedKeys, Unanswered, new_keyring};
pub use losses::{Losses, LostBlock, UnreadableBlob};
pub use reconcile::loss::Loss;
pub use relocate::{Errand, EvacuateAsked, Evacuated, Rebalanced, Relocated, RelocationState};
pub use salvage::{Salvage, SalvageBlob, SalvageCursor, Salvaged, Shortfall, Unmapped};
pub use scrub::{Audits, Census, DrillReport, DrilledSet, Integrity, ProviderCensus, ScrubReport};
pub use settle::SettleReport;
