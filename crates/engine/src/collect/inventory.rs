//! What lies at one provider, as its listing says, held against what the map knows: a hint about each name, no more.

use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::BlockId;
use diaspore_block::name::ObjectName;
use diaspore_ledger::Snapshot;
use diaspore_policy::ProviderId;
use diaspore_provider::{Deadline, ProviderError, TRIAL_OBJECT};
use rand::Rng;
use tokio::time::Instant;

use super::allowance::Allowance;
use crate::api::Error;
use crate::coded::address_of;
use crate::namespace::local;
use crate::shared::{Ground, Shared};
use crate::world::cpu;

/// Objects listed in one go. A provider with more is listed folder by folder, and what lies outside our folders is not counted then.
const AT_ONCE: usize = 50_000;
/// Objects listed in one of 256 folders at most.
const MOST_IN_FOLDER: usize = 200_000;
/// Blocks taken from the ledger at once.
const PAGE: usize = 1000;
/// Longest listing of one provider. The next one of the same provider begins in another folder, so that what this one did not reach is
/// listed by one of those that follow.
const LONGEST: Duration = Duration::from_mins(30);
/// Listings are pages of 1000 to the provider; patience for many of them.
const PATIENCE: u32 = 12;

/// Names that the map expects at one provider, by their first 8 bytes: enough to find the block, and to leave alone what only looks like one.
#[derive(Debug)]
pub(crate) struct Index(Vec<(u64, BlockId)>);

impl Index {
    /// Knows nothing.
    pub(crate) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Every block's name there, wherever its shards are said to lie.
    pub(crate) async fn of(shared: &Arc<Shared>, view: &Snapshot, provider: &ProviderId) -> Result<Self, Error> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let batch = view.blocks(after, PAGE).map_err(local)?;
            let Some(last) = batch.last() else { break };
            after = Some(last.facts.id);
            cpu(|| {
                for entry in &batch {
                    let name = shared.names.shard(&address_of(&entry.facts, provider.as_str()));
                    names.push((short(&name), entry.facts.id));
                }
            });
            tokio::task::yield_now().await;
        }
        names.sort_unstable();
        Ok(Self(names))
    }

    /// The block of the map that it may be the name of.
    pub(crate) fn block(&self, name: &ObjectName) -> Option<BlockId> {
        let key = short(name);
        let at = self.0.partition_point(|(known, _)| *known < key);
        self.0.get(at).filter(|(known, _)| *known == key).map(|(_, block)| *block)
    }
}

/// The first 8 bytes of a shard's name.
pub(crate) fn short(name: &ObjectName) -> u64 {
    let digits = name.as_str().bytes().filter(|byte| *byte != b'/').take(16);
    digits.fold(0, |value, digit| value << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0)))
}

/// What a listed name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// A claim, a head or a keyring copy.
    Control,
    /// The name of a block of the map.
    Block(BlockId),
    /// Made as our names are made, and none that the map knows.
    Unexpected(ObjectName),
    /// Nothing that this deployment ever writes.
    Foreign,
}

/// How much of a provider was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Everything,
    /// There is too much: our own folders, each to its end.
    OurFolders,
    /// More than that: some of our folders were not listed, or not to their end.
    Part,
}

/// Lists a provider. Of one with too much the control objects come first, and then folder by folder, from a random one on.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn list(
    ground: &Ground,
    provider: &ProviderId,
    index: &Index,
    allowance: &Allowance,
    mut visit: impl FnMut(&str, u64, Listed),
) -> Result<Extent, ProviderError> {
    let control = control_prefixes(ground, provider);
    let mut show = |path: &str, size: u64| visit(path, size, classify(path, &control, index));
    let deadline = Deadline::control().times(PATIENCE);
    allowance.take(AT_ONCE / 1000).await;
    let all = ground.fleet.list(provider, "", AT_ONCE, deadline).await?;
    if all.len() < AT_ONCE {
        for (path, size) in &all {
            show(path, *size);
        }
        return Ok(Extent::Everything);
    }
    drop(all);
    let end = Instant::now() + LONGEST;
    let first = ground.rng().next_u64() % 256;
    let ours = (0..256).map(|folder| format!("{:02x}", (first + folder) % 256));
    let mut extent = Extent::OurFolders;
    for folder in control.iter().map(|prefix| prefix.trim_end_matches('/').to_owned()).chain(ours) {
        allowance.take(1).await;
        if Instant::now() >= end {
            return Ok(Extent::Part);
        }
        let some = ground.fleet.list(provider, &folder, MOST_IN_FOLDER, deadline).await?;
        if some.len() >= MOST_IN_FOLDER {
            extent = Extent::Part;
        }
        for (path, size) in &some {
            show(path, *size);
        }
    }
    Ok(extent)
}

/// Requests that listing so many objects takes, in pages of 1000: a partial page for every folder, and those that first find out that there are too many.
pub(super) const fn requests(objects: u64) -> u64 {
    let folders = 256 + 3;
    objects / 1000 + 1 + if objects < AT_ONCE as u64 { 0 } else { AT_ONCE as u64 / 1000 + folders }
}

fn control_prefixes(ground: &Ground, provider: &ProviderId) -> Vec<String> {
    let names = [ground.names.claim_prefix(provider.as_str()), ground.names.head_prefix(provider.as_str())];
    names.into_iter().chain(ground.collector.keyring_prefixes(provider)).collect()
}

fn classify(path: &str, control: &[String], index: &Index) -> Listed {
    if path == TRIAL_OBJECT {
        return Listed::Control;
    }
    let Ok(name) = ObjectName::parse(path) else { return Listed::Foreign };
    if control.iter().any(|prefix| path.starts_with(prefix)) {
        return Listed::Control;
    }
    if path.find('/') != Some(2) {
        return Listed::Foreign;
    }
    match index.block(&name) {
        Some(block) => Listed::Block(block),
        None => Listed::Unexpected(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_by_its_first_bytes_and_its_shape() {
        let name = |path: &str| ObjectName::parse(path).unwrap();
        let known = name("ab/cdef0123456789abcdef0123456789abcdef01");
        assert_eq!(short(&known), 0xabcd_ef01_2345_6789);
        let index = Index(vec![(7, BlockId::NIL), (short(&known), BlockId::from_bytes([1; 16]))]);
        let control = ["0123456789abcdef/".to_owned()];
        let of = |path: &str| classify(path, &control, &index);
        assert_eq!(of(known.as_str()), Listed::Block(BlockId::from_bytes([1; 16])));
        assert_eq!(of("0123456789abcdef/0123456789012345678901234567890123456789"), Listed::Control);
        assert_eq!(of("probe/write"), Listed::Control, "a trial that a crash left");
        let stranger = "ab/000f0123456789abcdef0123456789abcdef01";
        assert_eq!(of(stranger), Listed::Unexpected(name(stranger)));
        for foreign in [
            "readme.txt",
            "ab/short",
            "fedcba9876543210/0123456789012345678901234567890123456789",
            "AB/cdef0123456789abcdef0123456789abcdef01",
        ] {
            assert_eq!(of(foreign), Listed::Foreign, "{foreign}");
        }
    }
}
