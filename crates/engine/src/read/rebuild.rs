//! A shard without that shard: k others of the block, the same columns of each with its sealed leaf list.
//!
//! Every cell is held against the shard roots in the ledger, once per unit, and only cells that fit are decoded. Whoever gives others
//! is named.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::decode::rebuild_range;
use diaspore_block::limits::{CELL_LEN, HEADER_LEN};
use diaspore_block::shard::{KnownShard, LeafList, VerifiedCells, leaf_list_len};
use diaspore_provider::{Deadline, HealthState, ProviderId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::fetch::{BlockReader, Part, RangeKey, Raw};
use super::links::LONG_BYTES;
use super::plan::{ShardRange, cell_cover};
use crate::api::{Error, ErrorKind};
use crate::audit::Event;
use crate::scrub::Seen;
use crate::shards::{Depth, Place, survey};
use crate::shared::Meters;
use crate::world::cpu;

/// Longest wait for a provider that was given up, before data is called unavailable.
const REVIVAL: Duration = Duration::from_millis(500);

impl BlockReader {
    /// The wanted bytes of a shard without that shard: k others, cell by cell verified, decoded where wanted only.
    pub(super) async fn rebuilt(&self, range: &ShardRange) -> Result<Part, Error> {
        if !self.shelf(|shelf| shelf.detours.contains(&range.shard)) {
            Meters::bump(&self.shared.meters.failovers);
        }
        let columns = self.columns(range);
        let present = match self.gather(range.shard, &columns).await {
            Err(error) if error.kind == ErrorKind::DataUnavailable => {
                self.revival.get_or_init(|| self.revive()).await;
                self.gather(range.shard, &columns).await?
            }
            other => other?,
        };
        let facts = &self.block.facts;
        let bound = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        let wanted = bound(range.body.start)..bound(range.body.end);
        let rebuilt = cpu(|| rebuild_range(facts.geometry, facts.shard_len, &facts.block_root, &present, range.shard, wanted));
        let bytes =
            rebuilt.map_err(|error| Error::caused(ErrorKind::IntegrityViolation, "verified shards do not rebuild the block", error))?;
        Ok(Part { range: range.clone(), bytes, source: None })
    }

    /// Verified cells of `columns` of k shards other than `missing`: k at once, one more for each that fails or is late.
    async fn gather(&self, missing: u8, columns: &Range<u64>) -> Result<Vec<VerifiedCells>, Error> {
        let k = usize::from(self.block.facts.geometry.k());
        let mut waiting = self.substitutes(missing, columns).into_iter();
        let ask = async |shard: u8| (shard, self.verified(shard, columns).await);
        let mut late: BTreeSet<u8> = BTreeSet::new();
        let mut asked = FuturesUnordered::new();
        for shard in waiting.by_ref().take(k) {
            late.insert(shard);
            asked.push(ask(shard));
        }
        let mut present = Vec::with_capacity(k);
        let patience = self.slowest_patience(columns.end - columns.start);
        while present.len() < k {
            if present.len() + asked.len() + waiting.len() < k {
                return Err(self.unavailable(present.len()));
            }
            tokio::select! {
                biased;
                answer = asked.next(), if !asked.is_empty() => {
                    let Some((shard, cells)) = answer else { continue };
                    late.remove(&shard);
                    if let Some(cells) = cells {
                        present.push(cells);
                    } else if let Some(shard) = waiting.next() {
                        late.insert(shard);
                        asked.push(ask(shard));
                    }
                }
                () = sleep(patience) => {
                    for provider in late.iter().filter_map(|shard| self.homes(*shard).into_iter().next()) {
                        self.shared.data.pace.strike(&provider, Instant::now());
                    }
                    if waiting.len() > 0
                        && self.shared.data.pace.take_hedge(1)
                        && let Some(shard) = waiting.next()
                    {
                        late.insert(shard);
                        asked.push(ask(shard));
                    }
                }
            }
        }
        Ok(present)
    }

    /// Before data is called unavailable: asks once whether those given up are back, and whether shards lie where the ledger does
    /// not know them (a crash may have lost the note), so that what failed may be tried again.
    async fn revive(&self) {
        let down = |provider: &ProviderId| self.shared.fleet.health(provider).is_some_and(|health| health.state == HealthState::Down);
        let homes = (0..self.block.facts.geometry.n()).flat_map(|shard| self.homes(shard));
        let suspects: BTreeSet<ProviderId> = homes.filter(down).collect();
        let deadline = Deadline::new(REVIVAL, REVIVAL);
        let probes = suspects.iter().map(|provider| self.shared.fleet.probe(provider, deadline));
        for (provider, answer) in suspects.iter().zip(futures::future::join_all(probes).await) {
            tracing::debug!(%provider, alive = answer.is_ok(), "asked a provider that was given up");
        }
        self.find_shards().await;
        self.shelf(|shelf| {
            shelf.raw.retain(|_, cell| cell.get().is_none_or(Option::is_some));
            shelf.leaves.retain(|_, cell| cell.get().is_none_or(Option::is_some));
            shelf.verified.retain(|_, cell| cell.get().is_none_or(Option::is_some));
        });
    }

    /// Names follow from the block's position, so its shards can be found without a note of where they lie.
    async fn find_shards(&self) {
        let facts = &self.block.facts;
        let seen = survey(&self.shared, Place::of(facts), Depth::Header, None).await.seen;
        for sighting in seen.into_iter().filter(|sighting| sighting.header.manifest().hash() == facts.manifest_hash) {
            let shard = sighting.header.index();
            self.shared.settlement.stored(facts.id, shard, &sighting.provider);
            if !self.homes(shard).contains(&sighting.provider) {
                self.shelf(|shelf| shelf.found.entry(shard).or_default().push(sighting.provider));
            }
        }
    }

    /// Shards to rebuild from, best first: those that are fetched anyway, then by trust, then by how soon they can be here.
    fn substitutes(&self, missing: u8, columns: &Range<u64>) -> Vec<u8> {
        let facts = &self.block.facts;
        let mut shards: Vec<_> = (0..facts.geometry.n())
            .filter(|shard| *shard != missing && !self.shelf(|shelf| shelf.wrong.contains(shard)))
            .filter_map(|shard| {
                let provider = self.homes(shard).into_iter().next()?;
                let (fetched, detour) = self.shelf(|shelf| {
                    let around = |(of, start, end): &RangeKey| *of == shard && *start <= columns.start && columns.end <= *end;
                    let planned = shelf.direct.contains(&shard) && shelf.columns.as_ref() == Some(columns);
                    (planned || shelf.raw.keys().any(around), shelf.detours.contains(&shard))
                });
                let length = columns.end - columns.start;
                let soon = if length < LONG_BYTES { Duration::ZERO } else { self.shared.data.links.expected(&provider, length) };
                Some((self.is_doubtful(&provider), detour, !fetched, soon, shard))
            })
            .collect();
        shards.sort_unstable();
        shards.into_iter().map(|(.., shard)| shard).collect()
    }

    fn slowest_patience(&self, length: u64) -> Duration {
        let providers = (0..self.block.facts.geometry.n()).filter_map(|shard| self.homes(shard).into_iter().next());
        let patience = providers.filter(|p| !self.is_doubtful(p)).map(|provider| self.patience(&provider, length));
        patience.max().unwrap_or(Duration::from_millis(250))
    }

    fn unavailable(&self, have: usize) -> Error {
        Error::new(
            ErrorKind::DataUnavailable,
            format!(
                "the data cannot be read now: {have} of {} shards of a block can be had, {} are needed; try again when more providers answer",
                self.block.facts.geometry.n(),
                self.block.facts.geometry.k()
            ),
        )
    }

    /// Cells of one shard, held against its signed root, once per unit. A provider whose cells are wrong is reported.
    async fn verified(&self, shard: u8, columns: &Range<u64>) -> Option<VerifiedCells> {
        let key = (shard, columns.start, columns.end);
        let cell = self.shelf(|shelf| Arc::clone(shelf.verified.entry(key).or_default()));
        cell.get_or_init(|| self.verify(shard, columns)).await.clone()
    }

    async fn verify(&self, shard: u8, columns: &Range<u64>) -> Option<VerifiedCells> {
        let raw = self.raw(shard, columns).await?;
        let leaves = self.leaves(shard, &raw).await?;
        let first = u32::try_from(columns.start / CELL_LEN as u64).ok()?;
        match cpu(|| VerifiedCells::check(&leaves, first, raw.body.clone())) {
            Ok(cells) => Some(cells),
            Err(error) => {
                self.lied(shard, &raw.provider, &error.to_string());
                None
            }
        }
    }

    /// The shard's leaf list: from memory, with the body, or asked for.
    async fn leaves(&self, shard: u8, raw: &Raw) -> Option<Arc<LeafList>> {
        let (block, kept) = (self.block.facts.id, &self.shared.data.leaves);
        if let Some(leaves) = kept.get(block, shard) {
            return Some(leaves);
        }
        let cell = self.shelf(|shelf| Arc::clone(shelf.leaves.entry(shard).or_default()));
        let leaves = cell.get_or_init(|| self.open_leaves(shard, raw)).await.clone()?;
        kept.put(block, shard, &leaves);
        Some(leaves)
    }

    async fn open_leaves(&self, shard: u8, raw: &Raw) -> Option<Arc<LeafList>> {
        let facts = &self.block.facts;
        let sealed = if let Some(sealed) = &raw.leaves {
            sealed.clone()
        } else {
            let start = HEADER_LEN as u64 + self.shard_len();
            self.get(&raw.provider, start..start + leaf_list_len(facts.shard_len).ok()? as u64).await?
        };
        let known = KnownShard {
            deployment: self.shared.deployment(),
            block_root: facts.block_root,
            shard,
            shard_len: facts.shard_len,
            root: *facts.shard_roots.get(usize::from(shard))?,
        };
        let (address, name) = self.address(&raw.provider);
        match LeafList::open_known(&self.shared.keys.header, &known, &address, &name, &sealed) {
            Ok(leaves) => Some(Arc::new(leaves)),
            Err(error) => {
                self.lied(shard, &raw.provider, &error.to_string());
                None
            }
        }
    }

    pub(super) fn lied(&self, shard: u8, provider: &ProviderId, what: &str) {
        self.shelf(|shelf| shelf.wrong.insert(shard));
        self.suspect(shard, provider, Seen::Wrong);
        Meters::bump(&self.shared.meters.integrity_faults);
        self.shared.data.pace.strike(provider, Instant::now());
        self.shared.fleet.report_lie(provider, what);
        self.shared.audit.note(Event::IntegrityFault { provider: provider.to_string(), what: what.to_owned() });
    }

    /// The same bytes, this time from verified cells: after a segment in them did not open.
    pub(super) async fn proven(&self, range: &ShardRange) -> Result<Part, Error> {
        let error = match self.rebuilt(range).await {
            Ok(rebuilt) => return Ok(rebuilt),
            Err(error) => error,
        };
        // Too few others: the shard's own cells may still be right, and the wrong bytes its neighbour's.
        let columns = cell_cover(&range.body, self.shard_len());
        let Some(cells) = self.verified(range.shard, &columns).await else { return Err(error) };
        let place = |at: u64| usize::try_from(at.saturating_sub(columns.start)).unwrap_or(usize::MAX);
        let (start, end, body) = (place(range.body.start), place(range.body.end), cells.bytes());
        if end > body.len() {
            return Err(error);
        }
        Ok(Part { range: range.clone(), bytes: body.slice(start..end), source: None })
    }
}
