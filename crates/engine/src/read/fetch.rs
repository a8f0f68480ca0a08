//! Payload bytes of one block, from whoever has them.
//!
//! Healthy: one ranged request per data shard touched, verified above by segment tag. When a shard is missing, late or wrong,
//! the same columns of k other shards are fetched with their sealed leaf lists, every cell is held against the shard roots in
//! the ledger, and the wanted shard is rebuilt from verified cells only. Within one unit every shard range is fetched once,
//! whoever needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::decode::rebuild_range;
use diaspore_block::limits::{CELL_LEN, HEADER_LEN};
use diaspore_block::name::{ObjectName, ShardAddress};
use diaspore_block::shard::{KnownShard, LeafList, VerifiedCells, leaf_list_len};
use diaspore_ledger::BlockEntry;
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind, HealthState, ProviderId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{ShardRange, cell_cover, object_range, shard_ranges};
use crate::api::{Error, ErrorKind};
use crate::audit::Event;
use crate::shards::{Depth, Place, survey};
use crate::shared::{Meters, Shared};
use crate::world::cpu;

/// Longest wait for a provider that was given up, before data is called unavailable.
const REVIVAL: Duration = Duration::from_millis(500);

/// Bytes of one data shard as they were asked for.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) range: ShardRange,
    pub(super) bytes: Bytes,
    /// Rebuilt from verified cells, or cells checked themselves; otherwise only segment tags can tell.
    pub(super) verified: bool,
}

/// What one provider answered to one range of a shard's body.
#[derive(Debug, Clone)]
struct Raw {
    provider: ProviderId,
    body: Bytes,
    /// The sealed leaf list, when the range reached the body's end.
    leaves: Option<Bytes>,
}

type Cell<T> = Arc<OnceCell<Option<T>>>;
type RangeKey = (u8, u64, u64);

#[derive(Default)]
struct Shelf {
    raw: BTreeMap<RangeKey, Cell<Raw>>,
    leaves: BTreeMap<u8, Cell<Arc<LeafList>>>,
    /// Shards that gave wrong bytes in this unit.
    wrong: BTreeSet<u8>,
    /// Places that the ledger does not know: found by asking everybody for the block's name.
    found: BTreeMap<u8, Vec<ProviderId>>,
}

/// Reads one block for one unit.
pub(super) struct BlockReader {
    shared: Arc<Shared>,
    block: Arc<BlockEntry>,
    shelf: Mutex<Shelf>,
    /// Set once those given up were asked once more; whoever fails meanwhile waits for that and tries again.
    revival: OnceCell<()>,
}

impl BlockReader {
    pub(super) fn new(shared: &Arc<Shared>, block: Arc<BlockEntry>) -> Self {
        Self { shared: Arc::clone(shared), block, shelf: Mutex::default(), revival: OnceCell::new() }
    }

    fn shelf<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        act(&mut self.shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard_len(&self) -> u64 {
        u64::from(self.block.facts.shard_len)
    }

    /// The parts that hold payload bytes `payload`, in order.
    pub(super) async fn payload(&self, payload: &Range<u64>) -> Result<Vec<Part>, Error> {
        let ranges = shard_ranges(payload, self.shard_len());
        futures::future::try_join_all(ranges.into_iter().map(|range| self.part(range))).await
    }

    async fn part(&self, range: ShardRange) -> Result<Part, Error> {
        let Some(provider) = self.first_choice(range.shard) else { return self.last_choice(range).await };
        let body = range.body.clone();
        let patience = self.shared.data.pace.patience(&provider, body.end - body.start);
        let mut direct = Box::pin(self.raw(range.shard, &body));
        let answer = match timeout(patience, &mut direct).await {
            Ok(answer) => answer,
            Err(_) if !self.shared.data.pace.take_hedge() => direct.await,
            Err(_) => {
                self.shared.data.pace.strike(&provider, Instant::now());
                let mut rebuilt = Box::pin(self.rebuilt(&range));
                tokio::select! {
                    biased;
                    answer = &mut direct => match answer {
                        Some(raw) => Some(raw),
                        None => return rebuilt.await,
                    },
                    part = &mut rebuilt => match part {
                        Ok(part) => return Ok(part),
                        Err(_) => direct.await,
                    },
                }
            }
        };
        match answer {
            Some(raw) => Ok(Part { range, bytes: raw.body, verified: false }),
            None => self.rebuilt(&range).await,
        }
    }

    /// A shard whose provider is in trouble: from the others, or from that provider after all when they are too few.
    async fn last_choice(&self, range: ShardRange) -> Result<Part, Error> {
        let error = match self.rebuilt(&range).await {
            Ok(part) => return Ok(part),
            Err(error) => error,
        };
        match self.raw(range.shard, &range.body).await {
            Some(raw) => Ok(Part { range, bytes: raw.body, verified: false }),
            None => Err(error),
        }
    }

    /// The provider a data shard is read from without further ado, unless it is known to be in trouble.
    fn first_choice(&self, shard: u8) -> Option<ProviderId> {
        let provider = self.homes(shard).into_iter().next()?;
        (!self.is_doubtful(&provider)).then_some(provider)
    }

    /// Where a shard lies, acknowledged places first.
    fn homes(&self, shard: u8) -> Vec<ProviderId> {
        let mut places: Vec<_> = self.block.facts.placements.iter().filter(|place| place.shard == shard).collect();
        places.sort_by_key(|place| !place.acked);
        let known = places.into_iter().filter_map(|place| ProviderId::new(&place.provider).ok());
        let found = self.shelf(|shelf| shelf.found.get(&shard).cloned().unwrap_or_default());
        known.chain(found).collect()
    }

    fn is_doubtful(&self, provider: &ProviderId) -> bool {
        let sick = self.shared.fleet.health(provider).is_none_or(|health| health.state == HealthState::Down || health.lying);
        sick || self.shared.data.pace.is_avoided(provider, Instant::now())
    }

    /// Body bytes of a shard as its provider gives them, unverified; asked once per unit.
    async fn raw(&self, shard: u8, body: &Range<u64>) -> Option<Raw> {
        let cell = self.shelf(|shelf| Arc::clone(shelf.raw.entry((shard, body.start, body.end)).or_default()));
        cell.get_or_init(|| self.ask(shard, body)).await.clone()
    }

    async fn ask(&self, shard: u8, body: &Range<u64>) -> Option<Raw> {
        let range = object_range(body, self.shard_len(), leaf_list_len(self.block.facts.shard_len).ok()? as u64);
        for provider in self.homes(shard) {
            let Some(bytes) = self.get(&provider, range.clone()).await else { continue };
            let mut body_bytes = bytes;
            let length = usize::try_from(body.end - body.start).ok()?;
            if body_bytes.len() < length {
                continue;
            }
            let tail = body_bytes.split_off(length);
            return Some(Raw { provider, body: body_bytes, leaves: (!tail.is_empty()).then_some(tail) });
        }
        None
    }

    /// Where the block's shard lies at a provider.
    fn address<'a>(&self, provider: &'a ProviderId) -> (ShardAddress<'a>, ObjectName) {
        let facts = &self.block.facts;
        let address = ShardAddress {
            provider: provider.as_str(),
            kind: facts.kind,
            incarnation: facts.incarnation,
            counter: facts.counter,
            attempt: facts.attempt,
        };
        let name = self.shared.names.shard(&address);
        (address, name)
    }

    /// One request, timed; an error strikes the provider.
    async fn get(&self, provider: &ProviderId, range: Range<u64>) -> Option<Bytes> {
        let (_, name) = self.address(provider);
        let length = range.end - range.start;
        let pace = &self.shared.data.pace;
        pace.sent();
        let started = Instant::now();
        match self.shared.fleet.get(provider, name.as_str(), Some(range), length, Deadline::transfer(length)).await {
            Ok(bytes) => {
                pace.answered(provider, length, started.elapsed());
                Some(bytes)
            }
            Err(error) => {
                // An absent shard of a block that is not settled was perhaps never written: no fault, and a quick answer.
                let absent = error.kind == ProviderErrorKind::NotFound;
                if !absent && error.kind != ProviderErrorKind::Busy {
                    pace.strike(provider, Instant::now());
                }
                let silent = matches!(error.kind, ProviderErrorKind::Busy | ProviderErrorKind::CircuitOpen);
                if !silent && (!absent || self.block.settled) {
                    let what = format!("get: {:?}", error.kind);
                    self.shared.audit.note(Event::ProviderFault { provider: provider.to_string(), what });
                }
                None
            }
        }
    }

    /// The wanted bytes of a shard without that shard: k others, cell by cell verified, decoded where wanted only.
    async fn rebuilt(&self, range: &ShardRange) -> Result<Part, Error> {
        Meters::bump(&self.shared.meters.failovers);
        let columns = cell_cover(&range.body, self.shard_len());
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
        Ok(Part { range: range.clone(), bytes, verified: true })
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
                        && self.shared.data.pace.take_hedge()
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
        });
    }

    /// Names follow from the block's position, so its shards can be found without a note of where they lie.
    async fn find_shards(&self) {
        let facts = &self.block.facts;
        let place = Place { kind: facts.kind, incarnation: facts.incarnation, counter: facts.counter, attempt: facts.attempt };
        let seen = survey(&self.shared, place, Depth::Header, None).await.seen;
        for sighting in seen.into_iter().filter(|sighting| sighting.header.manifest().hash() == facts.manifest_hash) {
            let shard = sighting.header.index();
            self.shared.settlement.stored(facts.id, shard, &sighting.provider);
            if !self.homes(shard).contains(&sighting.provider) {
                self.shelf(|shelf| shelf.found.entry(shard).or_default().push(sighting.provider));
            }
        }
    }

    /// Shards to rebuild from, best first: those that are fetched anyway, then by trust, data before parity.
    fn substitutes(&self, missing: u8, columns: &Range<u64>) -> Vec<u8> {
        let facts = &self.block.facts;
        let mut shards: Vec<(bool, bool, u8)> = (0..facts.geometry.n())
            .filter(|shard| *shard != missing && !self.shelf(|shelf| shelf.wrong.contains(shard)))
            .filter_map(|shard| {
                let provider = self.homes(shard).into_iter().next()?;
                let at_hand = self.shelf(|shelf| shelf.raw.contains_key(&(shard, columns.start, columns.end)));
                Some((self.is_doubtful(&provider), !at_hand, shard))
            })
            .collect();
        shards.sort_unstable();
        shards.into_iter().map(|(_, _, shard)| shard).collect()
    }

    fn slowest_patience(&self, length: u64) -> Duration {
        let providers = (0..self.block.facts.geometry.n()).filter_map(|shard| self.homes(shard).into_iter().next());
        let patience = providers.filter(|p| !self.is_doubtful(p)).map(|provider| self.shared.data.pace.patience(&provider, length));
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

    /// Cells of one shard, held against its signed root. A provider whose cells are wrong is reported.
    async fn verified(&self, shard: u8, columns: &Range<u64>) -> Option<VerifiedCells> {
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

    async fn leaves(&self, shard: u8, raw: &Raw) -> Option<Arc<LeafList>> {
        let cell = self.shelf(|shelf| Arc::clone(shelf.leaves.entry(shard).or_default()));
        cell.get_or_init(|| self.open_leaves(shard, raw)).await.clone()
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

    fn lied(&self, shard: u8, provider: &ProviderId, what: &str) {
        self.shelf(|shelf| shelf.wrong.insert(shard));
        Meters::bump(&self.shared.meters.integrity_faults);
        self.shared.data.pace.strike(provider, Instant::now());
        self.shared.fleet.report_lie(provider, what);
        self.shared.audit.note(Event::IntegrityFault { provider: provider.to_string(), what: what.to_owned() });
    }

    /// The same part, this time from verified cells: after a segment in it did not open. Names the liar by comparison.
    pub(super) async fn proven(&self, part: &Part) -> Result<Part, Error> {
        match self.rebuilt(&part.range).await {
            Ok(rebuilt) => {
                if rebuilt.bytes != part.bytes
                    && let Some(provider) = self.source(&part.range)
                {
                    self.lied(part.range.shard, &provider, "shard bytes that fail their segment tags");
                }
                Ok(rebuilt)
            }
            // Too few others: the shard's own cells may still be right, and the wrong bytes its neighbour's.
            Err(error) => {
                let columns = cell_cover(&part.range.body, self.shard_len());
                let Some(cells) = self.verified(part.range.shard, &columns).await else { return Err(error) };
                let skip = usize::try_from(part.range.body.start - columns.start).unwrap_or(usize::MAX);
                let end = skip.saturating_add(part.bytes.len());
                let body = cells.bytes();
                if end > body.len() {
                    return Err(error);
                }
                Ok(Part { range: part.range.clone(), bytes: body.slice(skip..end), verified: true })
            }
        }
    }

    fn source(&self, range: &ShardRange) -> Option<ProviderId> {
        let key = (range.shard, range.body.start, range.body.end);
        let cell = self.shelf(|shelf| shelf.raw.get(&key).cloned())?;
        cell.get().cloned().flatten().map(|raw| raw.provider)
    }
}
