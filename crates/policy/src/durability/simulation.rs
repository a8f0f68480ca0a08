//! The same deployment, event by event: providers go with everything they hold, shards rot one by one, missing shards are rebuilt elsewhere.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{Rng, RngExt};

use super::{HOURS_PER_YEAR, Model, NoModel};

/// What happened in one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Simulated {
    /// Providers that were lost with everything they held.
    pub provider_losses: u64,
    /// Single shards that were lost.
    pub shard_losses: u64,
    /// Shards that were rebuilt.
    pub repairs: u64,
    /// Blocks with fewer than k shards left: lost for good.
    pub lost_blocks: u64,
    /// Moments at which at least one block was lost; one provider's end may take many.
    pub loss_events: u64,
    /// Most shards that any block which survived lacked at once.
    pub most_missing: u32,
}

/// A block that is lost for good, as its mask of missing shards.
const GONE: u32 = u32::MAX;

/// Time in the queue of repairs: 1/1024 of a second fits ten thousand years.
const TICKS_PER_YEAR: f64 = HOURS_PER_YEAR * 3600.0 * 1024.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Repair {
    done: u64,
    block: u32,
    shard: u8,
}

struct World<'r, R> {
    model: Model,
    rng: &'r mut R,
    /// Provider of each shard, n per block.
    homes: Vec<u8>,
    /// Missing shards of each block, by bit.
    missing: Vec<u32>,
    repairs: BinaryHeap<Reverse<Repair>>,
    /// When the last repair that was queued leaves the bounded part of the pipeline, in years.
    busy_until: f64,
    found: Simulated,
}

/// One run of `model` with the randomness of `rng`.
pub fn simulate(model: &Model, rng: &mut impl Rng) -> Result<Simulated, NoModel> {
    model.check()?;
    let blocks = usize::try_from(model.blocks).map_err(|_| NoModel("too many blocks for this machine"))?;
    let n = usize::from(model.n);
    let mut homes = Vec::with_capacity(blocks * n);
    let mut deck: Vec<u8> = (0..model.providers).collect();
    for _ in 0..blocks {
        for at in 0..n {
            let other = rng.random_range(at..deck.len());
            deck.swap(at, other);
        }
        homes.extend(deck.iter().take(n));
    }
    let missing = vec![0; blocks];
    let world = World { model: *model, rng, homes, missing, repairs: BinaryHeap::new(), busy_until: 0.0, found: Simulated::default() };
    Ok(world.run())
}

impl<R: Rng> World<'_, R> {
    /// Time until the next event of a Poisson process; infinite if it has none.
    fn wait(&mut self, per_year: f64) -> f64 {
        let left: f64 = 1.0 - self.rng.random::<f64>();
        if per_year > 0.0 { -left.ln() / per_year } else { f64::INFINITY }
    }

    fn run(mut self) -> Simulated {
        let provider_rate = f64::from(self.model.providers) * self.model.provider_losses_per_year;
        // Thinned: a shard that is missing already, or of a lost block, cannot be lost again.
        let shard_rate = f64::from(self.model.blocks) * f64::from(self.model.n) * self.model.shard_losses_per_year;
        let mut next_provider = self.wait(provider_rate);
        let mut next_shard = self.wait(shard_rate);
        loop {
            let next_repair = self.repairs.peek().map_or(f64::INFINITY, |Reverse(repair)| years(repair.done));
            let now = next_provider.min(next_shard).min(next_repair);
            if now >= self.model.years {
                break;
            }
            let lost_before = self.found.lost_blocks;
            if now >= next_repair {
                self.repaired();
            } else if now >= next_provider {
                let provider = self.rng.random_range(0..self.model.providers);
                self.provider_lost(provider, now);
                next_provider = now + self.wait(provider_rate);
            } else {
                let block = self.rng.random_range(0..self.model.blocks);
                let shard = self.rng.random_range(0..self.model.n);
                if self.shard_lost(block, shard, now) {
                    self.found.shard_losses += 1;
                }
                next_shard = now + self.wait(shard_rate);
            }
            self.found.loss_events += u64::from(self.found.lost_blocks > lost_before);
        }
        self.found
    }

    fn provider_lost(&mut self, provider: u8, now: f64) {
        self.found.provider_losses += 1;
        let n = usize::from(self.model.n);
        let hit: Vec<(u32, u8)> = (0..self.model.blocks)
            .zip(self.homes.chunks_exact(n))
            .flat_map(|(block, homes)| {
                (0..self.model.n).zip(homes).filter(|(_, home)| **home == provider).map(move |(shard, _)| (block, shard))
            })
            .collect();
        for (block, shard) in hit {
            self.shard_lost(block, shard, now);
        }
    }

    /// False when there was nothing to lose.
    fn shard_lost(&mut self, block: u32, shard: u8, now: f64) -> bool {
        let Some(mask) = slot(&mut self.missing, block) else { return false };
        let bit = 1 << shard;
        if *mask == GONE || *mask & bit != 0 {
            return false;
        }
        *mask |= bit;
        let count = mask.count_ones();
        if count > u32::from(self.model.spare()) {
            *mask = GONE;
            self.found.lost_blocks += 1;
            return true;
        }
        self.found.most_missing = self.found.most_missing.max(count);
        if let Some(hours) = self.model.repair_hours {
            let mut done = now + self.wait(HOURS_PER_YEAR / hours);
            if let Some(per_hour) = self.model.repairs_per_hour {
                self.busy_until = self.busy_until.max(now) + 1.0 / (per_hour * HOURS_PER_YEAR);
                done = done.max(self.busy_until);
            }
            self.repairs.push(Reverse(Repair { done: ticks(done), block, shard }));
        }
        true
    }

    /// The repair that is due: the shard lies at a provider that holds no other one of its block.
    fn repaired(&mut self) {
        let Some(Reverse(Repair { block, shard, .. })) = self.repairs.pop() else { return };
        let Some(mask) = slot(&mut self.missing, block) else { return };
        if *mask == GONE {
            return;
        }
        *mask &= !(1 << shard);
        let present = !*mask & !(1 << shard);
        self.found.repairs += 1;
        let n = usize::from(self.model.n);
        let start = usize::try_from(block).unwrap_or(usize::MAX).saturating_mul(n);
        let Some(homes) = self.homes.get_mut(start..start + n) else { return };
        let free: Vec<u8> = (0..self.model.providers)
            .filter(|provider| !(0..self.model.n).zip(homes.iter()).any(|(at, home)| home == provider && present & (1 << at) != 0))
            .collect();
        let chosen = free.get(self.rng.random_range(0..free.len().max(1))).copied();
        if let (Some(home), Some(chosen)) = (homes.get_mut(usize::from(shard)), chosen) {
            *home = chosen;
        }
    }
}

fn slot(masks: &mut [u32], block: u32) -> Option<&mut u32> {
    masks.get_mut(usize::try_from(block).ok()?)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "time runs forward, and not beyond ten thousand years")]
fn ticks(years: f64) -> u64 {
    (years * TICKS_PER_YEAR).min(9e18) as u64
}

#[expect(clippy::cast_precision_loss, reason = "ten thousand years in these ticks have 49 bits")]
fn years(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_YEAR
}
