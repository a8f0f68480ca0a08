//! What Diaspore knows and decides before any byte moves: which clouds there are, which accounts the operator has, how many
//! pieces a block is cut into and where they go.
//!
//! The crate is pure. It opens no file, reads no clock and holds no generator: the data files of `providers/` and `policy/`
//! are embedded as text, overriding text is handed in by the caller, and randomness is an argument. So every decision can be
//! replayed, and the arithmetic a refusal prints is the arithmetic that refused.
//!
//! - [`Catalogue`]: one [`ProviderPreset`] per cloud, from `providers/*.toml`. A new cloud with an S3 endpoint is a new file.
//! - [`AccountConfig`] (what an operator writes) resolves against the catalogue into a [`ProviderSpec`] (plain, complete values).
//! - [`Profile`]: how much loss to survive and what to spend for it, from `policy/*.toml`.
//! - [`plan_geometry`], [`claim_quorum`], [`GeometryPlan::restart_survives_down`]: docs/protocol.md, rules 5 and 11.
//! - [`durability`]: how likely a block is lost under stated rates, computed and simulated.
//! - [`place`]: weighted random choice over distinct failure domains.

mod account;
mod catalogue;
pub mod durability;
mod geometry;
mod place;
mod price;
mod profile;

pub use account::{AccountConfig, DEFAULT_WEIGHT, FailureDomain, ProviderId, ProviderSpec, SpecError};
pub use catalogue::{Addressing, Catalogue, CatalogueError, Dialect, Guarantee, ProviderPreset, Region};
pub use geometry::{GeometryPlan, MAX_SHARDS, TooFew, claim_quorum, plan_geometry};
pub use place::{Candidate, TooFewDomains, place};
pub use price::Price;
pub use profile::{AckClass, BuiltInProfiles, Profile, ProfileError, RequestBudget, Upkeep};
