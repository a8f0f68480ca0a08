//! What the seed draws: faults, operations, values, what a crash leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_engine::api::Precondition;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::{Scenario, Script};
use crate::sim::client::Action;
use crate::sim::deployment::DiskFate;
use crate::sim::model::Value;

const KEYS: usize = 8;

impl Script {
    /// Lets providers misbehave as the scenario allows.
    pub(super) fn faults(&mut self) {
        let latency = Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(1), jitter: Duration::from_millis(9) });
        match self.report.scenario {
            Scenario::Crashes | Scenario::Takeover => {
                for store in &self.world.stores {
                    store.set_faults(latency.into());
                }
            }
            Scenario::OneLiar => {
                for (index, store) in self.world.stores.iter().enumerate() {
                    let mut plan = FaultPlan::from(latency);
                    if index == self.liar {
                        for _ in 0..2 {
                            plan = plan.with(misbehaviour(&mut self.rng));
                        }
                    }
                    store.set_faults(plan);
                }
            }
            Scenario::Outages => {
                for store in &self.world.stores {
                    let plan = match self.rng.random_range(0..10) {
                        0 => FaultPlan::down(),
                        1 => FaultPlan::from(Fault::chance(Misbehaviour::ErrorBefore, 0.3)).with(latency),
                        2 => FaultPlan::from(Fault::chance(Misbehaviour::ErrorAfter, 0.3)).with(latency),
                        3 => FaultPlan::from(Fault::chance(Misbehaviour::Freeze, 0.2)).with(latency),
                        4 => {
                            let late = Misbehaviour::LandLate { within: Duration::from_secs(30) };
                            FaultPlan::from(Fault::chance(late, 0.3).on(&[Op::Put])).with(latency)
                        }
                        5 => FaultPlan::from(Fault::chance(Misbehaviour::Reset, 0.3)).with(latency),
                        6 => {
                            let what = if self.rng.random_range(0..2) == 0 { Misbehaviour::Full } else { Misbehaviour::Denied };
                            FaultPlan::from(Fault::always(what).on(&[Op::Put])).with(latency)
                        }
                        _ => FaultPlan::from(latency),
                    };
                    store.set_faults(plan);
                }
            }
        }
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        let count = self.rng.random_range(1..=4);
        let mut used = BTreeSet::new();
        let mut actions = Vec::new();
        for _ in 0..count {
            let index = self.rng.random_range(0..KEYS);
            if !used.insert(index) {
                continue;
            }
            let key = format!("ключ/{index}").into_bytes();
            actions.push(match self.rng.random_range(0..10) {
                0..5 => {
                    let value = self.value();
                    let condition = if self.rng.random_range(0..8) == 0 { Precondition::Absent } else { Precondition::None };
                    Action::Put { key, value, condition }
                }
                5 => Action::Delete { key },
                6..9 => Action::Get { key },
                _ => {
                    let first = self.rng.random_range(0..3000);
                    Action::Range { key, first, last: first + self.rng.random_range(0..5000) }
                }
            });
        }
        actions
    }

    pub(super) fn value(&mut self) -> Value {
        if !self.long.is_empty() && self.rng.random_range(0..6) == 0 {
            let at = self.rng.random_range(0..self.long.len());
            if let Some(value) = self.long.get(at).copied() {
                // The whole again, or its beginning: the same chunks but for the last.
                let len = if self.rng.random_range(0..2) == 0 { value.len } else { self.rng.random_range(value.len / 4..value.len) };
                return Value { len, ..value };
            }
        }
        self.next_value += 1;
        let len = match self.rng.random_range(0..40) {
            0..2 => 1_200_000 + self.rng.random_range(0..900_000),
            2 => 0,
            3..7 => self.rng.random_range(60_000..140_000),
            _ => self.rng.random_range(1..6000),
        };
        let value = Value { seed: self.next_value, len };
        if len > 50_000 {
            self.long.push(value);
        }
        value
    }

    pub(super) fn fate(&mut self) -> DiskFate {
        match self.rng.random_range(0..8) {
            0..4 => DiskFate::Kept,
            4 => DiskFate::Torn(self.rng.random_range(0..400)),
            5 => DiskFate::RolledBack,
            _ => DiskFate::Lost,
        }
    }
}

/// A provider fault of any kind, striking now and then.
fn misbehaviour(rng: &mut ChaCha12Rng) -> Fault {
    let what = match rng.random_range(0..16) {
        0 => Misbehaviour::ErrorBefore,
        1 => Misbehaviour::ErrorAfter,
        2 => Misbehaviour::Reset,
        3 => Misbehaviour::Freeze,
        4 => Misbehaviour::FreezeMidBody,
        5 => Misbehaviour::Drip { bytes: 7, every: Duration::from_millis(5) },
        6 => Misbehaviour::Truncate,
        7 => Misbehaviour::Flip { bits: 3 },
        8 => Misbehaviour::Swap,
        9 => Misbehaviour::RollBack,
        10 => Misbehaviour::StaleList { behind: 3 },
        11 => Misbehaviour::DroppedWrite,
        12 => Misbehaviour::EndlessBody,
        13 => Misbehaviour::Down,
        14 => Misbehaviour::Full,
        _ => Misbehaviour::LandLate { within: Duration::from_mins(1) },
    };
    let chance = match rng.random_range(0..3) {
        0 => 0.05,
        1 => 0.3,
        _ => 1.0,
    };
    Fault::chance(what, chance)
}
