//! What may go wrong with a provider, and the one place that decides when it does.
//!
//! A [`FaultPlan`] is a list of [`Fault`]s. For every request the emulator and the hostile store both call
//! [`FaultPlan::decide`], which draws from the seeded generator handed in and answers with resolved [`Effect`]s;
//! [`Course::of`] folds those into the course the request takes. Neither store rolls dice of its own, so what a
//! misbehaviour means cannot drift apart between the two.

mod course;
mod text;

use std::time::Duration;

use rand::Rng;

pub use course::{Course, Effect, Stop, Tamper, flips};
pub use text::ParseFaultError;

/// Kind of a request, as far as faults and counters care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Store an object, whole or in parts.
    Put,
    /// Read an object or a range of it.
    Get,
    /// Ask for an object's size and tag.
    Head,
    /// Remove one object or a batch.
    Delete,
    /// List a prefix.
    List,
    /// Anything else: bucket operations.
    Other,
}

impl Op {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 6] = [Self::Put, Self::Get, Self::Head, Self::Delete, Self::List, Self::Other];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Lower-case name, as in the text form of a plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Other => "other",
        }
    }
}

/// A set of [`Op`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ops(u8);

impl Ops {
    /// Every operation.
    pub const ALL: Self = Self(0b11_1111);

    /// The operations named.
    pub fn of(ops: &[Op]) -> Self {
        Self(ops.iter().fold(0, |set, op| set | op.bit()))
    }

    /// Whether `op` is in the set.
    pub const fn contains(self, op: Op) -> bool {
        self.0 & op.bit() != 0
    }
}

/// One way of misbehaving. Where it makes no sense for an operation (a truncated body of a DELETE) it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Every answer comes `fixed` plus up to `jitter` late.
    Latency {
        /// Least delay.
        fixed: Duration,
        /// Largest extra delay, drawn uniformly.
        jitter: Duration,
    },
    /// The endpoint moves at most this many bytes per second each way, all connections together.
    Bandwidth {
        /// Bytes per second; 0 counts as 1.
        bytes_per_s: u64,
    },
    /// 500 and nothing happened.
    ErrorBefore,
    /// The operation took place, yet the answer is 500.
    ErrorAfter,
    /// The connection is reset: by a coin's fall before the operation or after it (within the body, for a read).
    Reset,
    /// The request is taken and never answered; nothing is stored.
    Freeze,
    /// The answer's head and part of the body arrive, then nothing more ever. A write takes effect and is not answered.
    FreezeMidBody,
    /// Bodies move `bytes` at a time with a pause of `every` between.
    Drip {
        /// Bytes per step; 0 counts as 1.
        bytes: u32,
        /// Pause between steps.
        every: Duration,
    },
    /// The answer's body ends early and says that this is all there is.
    Truncate,
    /// This many bits of the answer's body are flipped.
    Flip {
        /// Number of flipped bits.
        bits: u32,
    },
    /// A read answers with another object's bytes.
    Swap,
    /// Reads and listings answer from the last snapshot (nothing at all if none was taken).
    RollBack,
    /// A listing does not show the last `behind` changes.
    StaleList {
        /// Number of changes not yet shown; at most [`crate::RECENT_CHANGES`] are remembered.
        behind: u32,
    },
    /// A write or delete is answered with success and forgotten.
    DroppedWrite,
    /// The answer's body never ends.
    EndlessBody,
    /// Connections are refused. Exact with [`When::Always`] for all operations; otherwise the emulator, which has
    /// then accepted already, resets the connection before doing anything.
    Down,
    /// Writes are answered with 507: no space left.
    Full,
    /// 403 to everything.
    Denied,
    /// 404 `NoSuchBucket` to everything: what an account answers whose bucket was removed, or is called otherwise.
    NoBucket,
    /// A write is frozen for the client and takes effect up to this much later, even after the client gave up or
    /// restarted.
    LandLate {
        /// Largest delay, drawn uniformly.
        within: Duration,
    },
}

/// When a [`Fault`] strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each time.
    Always,
    /// With this chance in a million.
    Chance {
        /// Parts per million.
        ppm: u32,
    },
    /// The next so many matching requests, then never again.
    Next(u64),
}

impl When {
    /// With probability `p`, clamped to 0..=1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1e6 before the cast")]
    pub fn chance(p: f64) -> Self {
        Self::Chance { ppm: (p.clamp(0.0, 1.0) * 1e6).round() as u32 }
    }
}

/// A misbehaviour, the operations it touches, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub what: Misbehaviour,
    /// To which operations.
    pub ops: Ops,
    /// How often.
    pub when: When,
}

impl Fault {
    /// The misbehaviour at every request.
    pub const fn always(what: Misbehaviour) -> Self {
        Self { what, ops: Ops::ALL, when: When::Always }
    }

    /// The misbehaviour at the next `count` matching requests.
    pub const fn next(what: Misbehaviour, count: u64) -> Self {
        Self { what, ops: Ops::ALL, when: When::Next(count) }
    }

    /// The misbehaviour with probability `p`.
    pub fn chance(what: Misbehaviour, p: f64) -> Self {
        Self { what, ops: Ops::ALL, when: When::chance(p) }
    }

    /// The same, for these operations only.
    #[must_use]
    pub fn on(mut self, ops: &[Op]) -> Self {
        self.ops = Ops::of(ops);
        self
    }
}

/// Everything that is wrong with one endpoint. The default plan is an honest provider.
///
/// Text form (one fault per line, see [`FaultPlan::from_str`](std::str::FromStr)): `flip 3 on get,head chance 0.25`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: Vec<Fault>,
}

impl FaultPlan {
    /// An honest provider.
    pub const fn honest() -> Self {
        Self { faults: Vec::new() }
    }

    /// Refuses every connection.
    pub fn down() -> Self {
        Self::from(Fault::always(Misbehaviour::Down))
    }

    /// The plan with one more fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The faults, in the order in which they are decided.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether connections are refused outright.
    pub fn is_down(&self) -> bool {
        self.faults.iter().any(|fault| fault.what == Misbehaviour::Down && fault.when == When::Always && fault.ops == Ops::ALL)
    }

    /// What happens to the next request of kind `op`: draws from `rng` and counts down [`When::Next`].
    ///
    /// The number of draws depends on the plan and the operation only, so one seed gives one trace.
    pub fn decide<R: Rng + ?Sized>(&mut self, op: Op, rng: &mut R) -> Vec<Effect> {
        let mut effects = Vec::new();
        for fault in &mut self.faults {
            if !fault.ops.contains(op) {
                continue;
            }
            let struck = match &mut fault.when {
                When::Always => true,
                When::Chance { ppm } => rng.next_u64() % 1_000_000 < u64::from(*ppm),
                When::Next(left) => {
                    let struck = *left > 0;
                    *left = left.saturating_sub(1);
                    struck
                }
            };
            if struck {
                effects.push(Effect::draw(fault.what, rng));
            }
        }
        effects
    }
}

impl From<Fault> for FaultPlan {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl FromIterator<Fault> for FaultPlan {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self { faults: faults.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests;
