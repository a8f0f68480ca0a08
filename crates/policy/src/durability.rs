//! How likely is a block lost? A model, not a promise: a Markov chain that can be computed exactly, and a simulation that shows what the
//! chain cannot, which is that blocks share providers and are lost together.
//!
//! The chain of one block counts its missing shards. With i of n missing, each of the n - i others goes at the rate λ, and each of the i
//! missing ones is rebuilt at the rate μ; a block with more than n - k missing is lost for good:
//!
//! ```text
//! 0 --nλ--> 1 --(n-1)λ--> 2 ... n-k --kλ--> lost        i --iμ--> i-1
//! λ = losses per provider and year + losses per shard and year      μ = 1 / (mean time until a missing shard is rebuilt)
//! ```
//! What it leaves out is what usually decides: operators, software, a master key that is gone, vendors that fail together.

use std::iter;

mod simulation;
pub use simulation::{Simulated, simulate};

#[cfg(test)]
mod tests;

/// Hours in a year of 365.25 days.
pub const HOURS_PER_YEAR: f64 = 8766.0;

/// What is modelled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// Accounts in distinct failure domains. One that is lost is replaced by an empty one.
    pub providers: u8,
    /// Blocks stored for the whole time.
    pub blocks: u32,
    /// Time, in years.
    pub years: f64,
    /// Shards that rebuild a block.
    pub k: u8,
    /// Shards made of it, each at another provider.
    pub n: u8,
    /// Expected total losses per provider and year; each takes every shard there.
    pub provider_losses_per_year: f64,
    /// Expected losses of a single shard per shard and year: rot, a stray deletion.
    pub shard_losses_per_year: f64,
    /// Mean hours until a missing shard is noticed and rebuilt, exponentially distributed; none: nothing is ever repaired.
    pub repair_hours: Option<f64>,
    /// Most shards rebuilt per hour in the whole deployment, oldest loss first; none: no bound. The chain does not know this one.
    pub repairs_per_hour: Option<f64>,
}

/// Inputs that make no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoModel(&'static str);

/// What the chain says of one block, exactly, and so of the sum over all blocks: expectations add up whether or not blocks are lost together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Formula {
    /// Probability that a block is lost within the whole time.
    pub loss_probability: f64,
    /// Blocks lost on average.
    pub expected_lost_blocks: f64,
    /// Mean years until a block is lost; infinite if nothing ever fails.
    pub mean_years_to_loss: f64,
    /// -log10 of the probability that a block is lost within one average year; infinite if nothing ever fails.
    pub nines: f64,
}

impl Model {
    /// Refuses numbers that mean nothing together.
    pub fn check(&self) -> Result<(), NoModel> {
        let rate = |rate: f64| rate.is_finite() && rate >= 0.0;
        let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value > 0.0);
        let what = if self.k == 0 || self.k > self.n || self.n > 32 {
            "k and n must be 1 <= k <= n <= 32"
        } else if self.n > self.providers {
            "a block's n shards need n providers"
        } else if self.blocks == 0 || !self.years.is_finite() || self.years <= 0.0 {
            "there must be blocks, and years for them to be lost in"
        } else if !rate(self.provider_losses_per_year) || !rate(self.shard_losses_per_year) {
            "rates must be numbers that are not negative"
        } else if !positive(self.repair_hours) || !positive(self.repairs_per_hour) {
            "repair takes positive hours, at a positive rate"
        } else {
            return Ok(());
        };
        Err(NoModel(what))
    }

    /// Losses that a block survives at once.
    fn spare(&self) -> u8 {
        self.n.saturating_sub(self.k)
    }

    /// Per state that is not lost: the rates of one shard more missing and of one less, per year.
    fn rates(&self) -> Vec<(f64, f64)> {
        let shard = self.provider_losses_per_year + self.shard_losses_per_year;
        let repair = self.repair_hours.map_or(0.0, |hours| HOURS_PER_YEAR / hours);
        (0..=self.spare()).map(|missing| (f64::from(self.n - missing) * shard, f64::from(missing) * repair)).collect()
    }

    /// The chain's answer.
    pub fn formula(&self) -> Formula {
        let rates = self.rates();
        let loss_probability = absorbed(&rates, self.years);
        let yearly = -(f64::ln_1p(-loss_probability) / self.years).exp_m1();
        Formula {
            loss_probability,
            expected_lost_blocks: loss_probability * f64::from(self.blocks),
            mean_years_to_loss: mean_time(&rates),
            nines: -yearly.log10(),
        }
    }
}

/// Mean time until the chain leaves its last state: the time t(i) from i to i + 1 is (1 + down(i) · t(i - 1)) / up(i).
fn mean_time(rates: &[(f64, f64)]) -> f64 {
    let mut step = 0.0;
    rates
        .iter()
        .map(|(up, down)| {
            step = if *down > 0.0 { (1.0 + down * step) / up } else { 1.0 / up };
            step
        })
        .sum()
}

type Matrix = Vec<Vec<f64>>;

fn product(left: &Matrix, right: &Matrix) -> Matrix {
    let columns = right.len();
    let cell = |row: &[f64], column: usize| row.iter().zip(right).map(|(a, other)| a * other.get(column).copied().unwrap_or(0.0)).sum();
    left.iter().map(|row| (0..columns).map(|column| cell(row, column)).collect()).collect()
}

/// Probability of being lost after `time`, from the state with nothing missing: one column of exp(Q · time).
///
/// Uniformised, so that no term is negative and small probabilities keep all their digits: exp(Qh) = Σ Poisson(qh, j) · (I + Q/q)^j for a
/// step h with qh <= 1, then squared until the whole time has passed.
fn absorbed(rates: &[(f64, f64)], time: f64) -> f64 {
    let fastest = rates.iter().map(|(up, down)| up + down).fold(0.0, f64::max);
    if fastest <= 0.0 {
        return 0.0;
    }
    let size = rates.len() + 1;
    let lost = rates.len();
    let jump: Matrix = (0..size)
        .map(|from| {
            let (up, down) = rates.get(from).copied().unwrap_or((0.0, 0.0));
            let to = |to: usize| match to {
                to if to == from => 1.0 - (up + down) / fastest,
                to if to == from + 1 => up / fastest,
                to if to + 1 == from => down / fastest,
                _ => 0.0,
            };
            (0..size).map(to).collect()
        })
        .collect();
    let (mut step, mut squarings) = (fastest * time, 0);
    while step > 1.0 {
        step /= 2.0;
        squarings += 1;
    }
    let identity: Matrix = (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    let mut sum: Matrix = vec![vec![0.0; size]; size];
    let (mut power, mut weight) = (identity, (-step).exp());
    // The tail behind 40 terms of a Poisson of mean <= 1 is below 1e-48.
    for term in 1..=40_u8 {
        for (into, from) in sum.iter_mut().flatten().zip(power.iter().flatten()) {
            *into += weight * from;
        }
        power = product(&power, &jump);
        weight *= step / f64::from(term);
    }
    for _ in 0..squarings {
        sum = product(&sum, &sum);
    }
    sum.first().and_then(|row| row.get(lost)).copied().unwrap_or(0.0).min(1.0)
}

/// Probability that more than `spare` of `n` shards go when each goes with probability `p` and none is rebuilt.
pub fn binomial_loss(n: u8, spare: u8, p: f64) -> f64 {
    let chance = |missing: u8| {
        let choose: f64 = (0..missing).map(|at| f64::from(n - at) / f64::from(at + 1)).product();
        choose * p.powi(i32::from(missing)) * (1.0 - p).powi(i32::from(n - missing))
    };
    iter::successors(Some(spare + 1), |missing| Some(missing + 1)).take_while(|missing| *missing <= n).map(chance).sum()
}
