//! Payload bytes of one block, from whoever has them.
//!
//! Healthy: one ranged request per data shard touched, verified above by segment tag. A shard that is missing, late or wrong, or
//! whose link is much busier than that of a parity shard, is rebuilt from the others (`rebuild`). Within one unit every byte of a
//! shard is fetched once, whoever needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::name::{ObjectName, ShardAddress};
use diaspore_block::record::ProviderMode;
use diaspore_block::shard::{LeafList, VerifiedCells, leaf_list_len};
use diaspore_ledger::BlockEntry;
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind, HealthState, ProviderId};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::links::{LONG_BYTES, Transfer};
use super::plan::{ShardRange, cell_cover, object_range, shard_ranges};
use crate::api::Error;
use crate::audit::Event;
use crate::scrub::Seen;
use crate::settle::Suspect;
use crate::shared::Shared;

/// A data shard is worth rebuilding when its link takes longer than a parity shard's by this much and by half.
const DETOUR: Duration = Duration::from_millis(60);

/// What a long transfer may take beyond twice the expected: to ask for megabytes once more costs more than to wait a little.
const LONG_PATIENCE: Duration = Duration::from_millis(250);

/// Bytes of one data shard as they were asked for.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) range: ShardRange,
    pub(super) bytes: Bytes,
    /// Who gave them, while only segment tags can tell whether they are right; nobody once they were checked or rebuilt from what was.
    pub(super) source: Option<ProviderId>,
}

/// What one provider answered to one range of a shard's body.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) provider: ProviderId,
    pub(super) body: Bytes,
    /// The sealed leaf list, when the range reached the body's end.
    pub(super) leaves: Option<Bytes>,
}

pub(super) type Cell<T> = Arc<OnceCell<Option<T>>>;
/// Shard, start and end within its body.
pub(super) type RangeKey = (u8, u64, u64);

#[derive(Default)]
pub(super) struct Shelf {
    pub(super) raw: BTreeMap<RangeKey, Cell<Raw>>,
    pub(super) leaves: BTreeMap<u8, Cell<Arc<LeafList>>>,
    pub(super) verified: BTreeMap<RangeKey, Cell<VerifiedCells>>,
    /// Data shards that this unit reads as they are, whole cells of them, and the columns it rebuilds the others from.
    pub(super) direct: BTreeSet<u8>,
    pub(super) columns: Option<Range<u64>>,
    /// Data shards that this unit rebuilds although their providers are well.
    pub(super) detours: BTreeSet<u8>,
    /// Shards that gave wrong bytes in this unit.
    pub(super) wrong: BTreeSet<u8>,
    /// Places that the ledger does not know: found by asking everybody for the block's name.
    pub(super) found: BTreeMap<u8, Vec<ProviderId>>,
}

/// Reads one block for one unit.
pub(super) struct BlockReader {
    pub(super) shared: Arc<Shared>,
    pub(super) block: Arc<BlockEntry>,
    shelf: Mutex<Shelf>,
    /// Set once those given up were asked once more; whoever fails meanwhile waits for that and tries again.
    pub(super) revival: OnceCell<()>,
}

impl BlockReader {
    pub(super) fn new(shared: &Arc<Shared>, block: Arc<BlockEntry>) -> Self {
        Self { shared: Arc::clone(shared), block, shelf: Mutex::default(), revival: OnceCell::new() }
    }

    pub(super) fn shelf<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        act(&mut self.shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn shard_len(&self) -> u64 {
        u64::from(self.block.facts.shard_len)
    }

    /// The parts that hold payload bytes `payload`, in order.
    pub(super) async fn payload(&self, payload: &Range<u64>) -> Result<Vec<Part>, Error> {
        let ranges = shard_ranges(payload, self.shard_len());
        self.plan(&ranges);
        futures::future::try_join_all(ranges.into_iter().map(|range| self.part(range))).await
    }

    /// Lets go of every byte that was fetched: what the parts hold is theirs alone from here on.
    pub(super) fn forget(&self) {
        self.shelf(|shelf| {
            shelf.raw.clear();
            shelf.verified.clear();
            shelf.direct.clear();
        });
    }

    /// Decides, before a long read over all data shards begins, which of them to read and which to rebuild, and from which columns:
    /// those that providers in trouble hold, and those on links so full that a parity shard comes much sooner.
    fn plan(&self, ranges: &[ShardRange]) {
        let geometry = self.block.facts.geometry;
        let long = ranges.iter().all(|range| range.body.end - range.body.start >= LONG_BYTES);
        if !long || ranges.len() != usize::from(geometry.k()) {
            return;
        }
        let when = |shard: u8| {
            let provider = self.homes(shard).into_iter().next().filter(|provider| !self.is_doubtful(provider))?;
            Some((self.shared.data.links.expected(&provider, self.shard_len()), shard))
        };
        let mut data: Vec<_> = (0..geometry.k()).filter_map(when).collect();
        let mut parity: Vec<_> = (geometry.k()..geometry.n()).filter_map(when).collect();
        data.sort_unstable();
        parity.sort_unstable();
        let lost = usize::from(geometry.k()) - data.len();
        let spare = parity.into_iter().skip(lost);
        let slower = |data: Duration, parity: Duration| data > parity + parity / 2 + DETOUR;
        let detours = data.iter().rev().zip(spare).take_while(|((data, _), (parity, _))| slower(*data, *parity));
        let detours: BTreeSet<u8> = detours.map(|((_, shard), _)| *shard).collect();
        if lost == 0 && detours.is_empty() {
            return;
        }
        let covers = ranges.iter().map(|range| cell_cover(&range.body, self.shard_len()));
        let columns = covers.reduce(|one, two| one.start.min(two.start)..one.end.max(two.end));
        self.shelf(|shelf| {
            shelf.direct = data.into_iter().map(|(_, shard)| shard).filter(|shard| !detours.contains(shard)).collect();
            (shelf.columns, shelf.detours) = (columns, detours);
        });
    }

    async fn part(&self, range: ShardRange) -> Result<Part, Error> {
        let Some(provider) = self.first_choice(range.shard) else { return self.last_choice(range).await };
        let body = range.body.clone();
        let patience = self.patience(&provider, body.end - body.start);
        let mut direct = Box::pin(self.direct(&range));
        let answer = match timeout(patience, &mut direct).await {
            Ok(answer) => answer,
            Err(_) if !self.shared.data.pace.take_hedge(self.block.facts.geometry.k().into()) => direct.await,
            Err(_) => {
                self.shared.data.pace.strike(&provider, Instant::now());
                let mut rebuilt = Box::pin(self.rebuilt(&range));
                tokio::select! {
                    biased;
                    answer = &mut direct => match answer {
                        Some(part) => Some(part),
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
            Some(part) => Ok(part),
            None => self.rebuilt(&range).await,
        }
    }

    /// A shard whose provider is in trouble: from the others, or from that provider after all when they are too few.
    async fn last_choice(&self, range: ShardRange) -> Result<Part, Error> {
        let error = match self.rebuilt(&range).await {
            Ok(part) => return Ok(part),
            Err(error) => error,
        };
        self.direct(&range).await.ok_or(error)
    }

    /// The part as the shard's provider gives it. A long one brings whole cells, in case that another shard has to be rebuilt.
    async fn direct(&self, range: &ShardRange) -> Option<Part> {
        let Range { start, end } = range.body;
        let fetched = if end - start < LONG_BYTES { start..end } else { self.columns(range) };
        let raw = self.raw(range.shard, &fetched).await?;
        let skip = usize::try_from(start - fetched.start).ok()?;
        let end = skip.checked_add(usize::try_from(end - start).ok()?)?;
        (end <= raw.body.len()).then(|| Part { range: range.clone(), bytes: raw.body.slice(skip..end), source: Some(raw.provider) })
    }

    /// The whole cells around a range, or more where the unit rebuilds from more.
    pub(super) fn columns(&self, range: &ShardRange) -> Range<u64> {
        let own = cell_cover(&range.body, self.shard_len());
        let planned = self.shelf(|shelf| shelf.columns.clone());
        planned.filter(|columns| columns.start <= own.start && own.end <= columns.end).unwrap_or(own)
    }

    /// How long a provider may take for so many bytes: what it usually takes, and longer while much is under way from it.
    pub(super) fn patience(&self, provider: &ProviderId, bytes: u64) -> Duration {
        let usual = self.shared.data.pace.patience(provider, bytes);
        if bytes < LONG_BYTES {
            return usual;
        }
        usual.max(self.shared.data.links.expected(provider, bytes) * 2 + LONG_PATIENCE)
    }

    /// The provider a data shard is read from without further ado, unless it is known to be in trouble.
    fn first_choice(&self, shard: u8) -> Option<ProviderId> {
        let provider = self.homes(shard).into_iter().next()?;
        let detour = self.shelf(|shelf| shelf.detours.contains(&shard));
        (!detour && !self.is_doubtful(&provider)).then_some(provider)
    }

    /// Where a shard lies, acknowledged places first.
    pub(super) fn homes(&self, shard: u8) -> Vec<ProviderId> {
        let mut places: Vec<_> = self.block.facts.placements.iter().filter(|place| place.shard == shard).collect();
        places.sort_by_key(|place| !place.acked);
        let known = places.into_iter().filter_map(|place| ProviderId::new(&place.provider).ok());
        let found = self.shelf(|shelf| shelf.found.get(&shard).cloned().unwrap_or_default());
        known.chain(found).collect()
    }

    pub(super) fn is_doubtful(&self, provider: &ProviderId) -> bool {
        let sick = self.shared.fleet.health(provider).is_none_or(|health| health.state == HealthState::Down || health.lying)
            || self.shared.modes.of(provider) == ProviderMode::Quarantined;
        sick || self.shared.data.pace.is_avoided(provider, Instant::now())
    }

    /// Body bytes of a shard as its provider gives them, unverified; asked once per unit, also as part of more.
    pub(super) async fn raw(&self, shard: u8, body: &Range<u64>) -> Option<Raw> {
        let (cell, whole) = self.shelf(|shelf| {
            let around = shelf.raw.iter().find(|((of, start, end), _)| *of == shard && *start <= body.start && body.end <= *end);
            if let Some(((_, start, end), cell)) = around {
                return (Arc::clone(cell), *start..*end);
            }
            (Arc::clone(shelf.raw.entry((shard, body.start, body.end)).or_default()), body.clone())
        });
        // Whoever wanted more may have left before it was asked for; the cell still stands for all of it.
        let mut raw = cell.get_or_init(|| self.ask(shard, &whole)).await.clone()?;
        let skip = usize::try_from(body.start - whole.start).ok()?;
        let end = skip.checked_add(usize::try_from(body.end - body.start).ok()?)?;
        if end > raw.body.len() {
            return None;
        }
        raw.body = raw.body.slice(skip..end);
        Some(raw)
    }

    async fn ask(&self, shard: u8, body: &Range<u64>) -> Option<Raw> {
        let range = object_range(body, self.shard_len(), leaf_list_len(self.block.facts.shard_len).ok()? as u64);
        for provider in self.homes(shard) {
            let Some(bytes) = self.get(&provider, range.clone()).await else { continue };
            let length = usize::try_from(body.end - body.start).ok()?;
            let Some(tail) = bytes.get(length..) else { continue };
            // Copied: the body is opened where it stands, which takes that nobody else holds its memory.
            let leaves = (!tail.is_empty()).then(|| Bytes::copy_from_slice(tail));
            return Some(Raw { provider, body: bytes.slice(..length), leaves });
        }
        None
    }

    /// The shard that the map places at a provider.
    fn shard_at(&self, provider: &ProviderId) -> Option<u8> {
        let places = &self.block.facts.placements;
        places.iter().find(|place| place.acked && place.provider == provider.as_str()).map(|place| place.shard)
    }

    /// Read-repair: whoever misses a shard of a settled block, or meets a wrong one, says so. The repair looks for itself.
    pub(super) fn suspect(&self, shard: u8, provider: &ProviderId, seen: Seen) {
        if self.block.settled && self.shard_at(provider) == Some(shard) {
            self.shared.settlement.suspect(Suspect { block: self.block.facts.id, shard, provider: provider.clone(), seen });
        }
    }

    /// Where the block's shard lies at a provider.
    pub(super) fn address<'a>(&self, provider: &'a ProviderId) -> (ShardAddress<'a>, ObjectName) {
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
    pub(super) async fn get(&self, provider: &ProviderId, range: Range<u64>) -> Option<Bytes> {
        let (_, name) = self.address(provider);
        let length = range.end - range.start;
        let pace = &self.shared.data.pace;
        pace.sent();
        let transfer = self.shared.data.links.begin(provider, length);
        let started = Instant::now();
        match self.shared.fleet.get(provider, name.as_str(), Some(range), length, Deadline::transfer(length)).await {
            Ok(bytes) => {
                pace.answered(provider, length, started.elapsed());
                transfer.into_iter().for_each(Transfer::arrived);
                Some(bytes)
            }
            Err(error) => {
                // An absent shard of a block that is not settled was perhaps never written: no fault, and a quick answer.
                let absent = error.kind == ProviderErrorKind::NotFound;
                if !absent && error.kind != ProviderErrorKind::Busy {
                    pace.strike(provider, Instant::now());
                }
                let silent = matches!(error.kind, ProviderErrorKind::Busy | ProviderErrorKind::CircuitOpen);
                if absent && let Some(shard) = self.shard_at(provider) {
                    self.suspect(shard, provider, Seen::Missing);
                }
                if !silent && (!absent || self.block.settled) {
                    let what = format!("get: {:?}", error.kind);
                    self.shared.audit.note(Event::ProviderFault { provider: provider.to_string(), what });
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
    use futures::FutureExt;

    use super::*;
    use crate::blob::tests::fixture::{Fixture, random};

    /// Who asked for more of a shard and left before the answer must not leave the others with less.
    #[tokio::test(start_paused = true)]
    async fn an_answer_nobody_waited_for_is_asked_for_whole() {
        let fx = Fixture::start(5).await;
        fx.put(b"b", &random(3 << 20, 1)).await.unwrap();
        fx.settle().await;
        let slow = Misbehaviour::Latency { fixed: Duration::from_millis(5), jitter: Duration::ZERO };
        for store in &fx.stores {
            store.set_faults(FaultPlan::from(Fault::always(slow).on(&[Op::Get])));
        }
        let shared = fx.engine.shared();
        let blocks = shared.ledger.snapshot().unwrap().blocks(None, 100).unwrap();
        let block = blocks.into_iter().find(|entry| entry.facts.kind == diaspore_block::manifest::BlockKind::Bulk).unwrap();
        let reader = BlockReader::new(&shared, Arc::new(block));
        let (whole, part) = (0..0x40_000, 0x10_000..0x20_000);
        assert!(reader.raw(0, &whole).now_or_never().is_none(), "the answer is still on its way");
        assert_eq!(reader.raw(0, &part).await.unwrap().body.len(), 0x10_000);
        let raw = reader.raw(0, &whole).await.unwrap();
        assert_eq!(raw.body.len(), 0x40_000);
        assert_eq!(raw.body.slice(0x10_000..0x20_000), reader.raw(0, &part).await.unwrap().body);
    }
}
