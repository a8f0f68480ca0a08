//! What may go wrong with a provider, and the one place that decides when it does.
//!
//! A [`FaultPlan`] is a list of [`Fault`]s. For every request the emulator and the hostile store both call
//! [`FaultPlan::decide`], which draws from the seeded generator handed in and answers with resolved [`Effect`]s;
//! [`Course::of`] folds those into the course the request takes. Neither store rolls dice of its own, so what a
//! misbehaviour means cannot drift apart between the two.

mod text;

use std::time::Duration;

use rand::Rng;

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

/// A misbehaviour with all its dice thrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Wait before anything else.
    Delay(Duration),
    /// Share this many bytes per second.
    Throttle(u64),
    /// Do not act; end like this.
    Before(Stop),
    /// Act; end like this.
    After(Stop),
    /// Do not act; say that it was done.
    Forget,
    /// Act this much later; do not answer.
    Late(Duration),
    /// Change the answer's body.
    Body(Tamper),
    /// Move the body in steps.
    Drip {
        /// Bytes per step, at least 1.
        bytes: u32,
        /// Pause between steps.
        every: Duration,
    },
    /// Read another object, chosen by this draw.
    Swap(u64),
    /// Read from the snapshot.
    RollBack,
    /// List without so many changes.
    Stale(u32),
}

/// How a request ends without its proper answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// 500 `InternalError`.
    Error,
    /// 403 `AccessDenied`.
    Denied,
    /// 507, for writes only.
    Full,
    /// Connection reset.
    Reset,
    /// Connection refused.
    Refused,
    /// No answer ever.
    Frozen,
}

/// What is done to an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tamper {
    /// Keep this many of 65536 parts of the body, and at least one byte less than all.
    Truncate(u16),
    /// Flip this many bits at places given by the seed.
    Flip {
        /// Number of flips.
        bits: u32,
        /// Seed of the places.
        seed: u64,
    },
    /// Go silent after this many of 65536 parts.
    Freeze(u16),
    /// Reset the connection after this many of 65536 parts.
    Reset(u16),
    /// Never end.
    Endless,
}

impl Effect {
    fn draw<R: Rng + ?Sized>(what: Misbehaviour, rng: &mut R) -> Self {
        match what {
            Misbehaviour::Latency { fixed, jitter } => Self::Delay(fixed.saturating_add(fraction(jitter, rng))),
            Misbehaviour::Bandwidth { bytes_per_s } => Self::Throttle(bytes_per_s.max(1)),
            Misbehaviour::ErrorBefore => Self::Before(Stop::Error),
            Misbehaviour::ErrorAfter => Self::After(Stop::Error),
            Misbehaviour::Reset => {
                let draw = rng.next_u64();
                if draw & 1 == 0 { Self::Before(Stop::Reset) } else { Self::Body(Tamper::Reset(part(draw >> 1))) }
            }
            Misbehaviour::Freeze => Self::Before(Stop::Frozen),
            Misbehaviour::FreezeMidBody => Self::Body(Tamper::Freeze(part(rng.next_u64()))),
            Misbehaviour::Drip { bytes, every } => Self::Drip { bytes: bytes.max(1), every },
            Misbehaviour::Truncate => Self::Body(Tamper::Truncate(part(rng.next_u64()))),
            Misbehaviour::Flip { bits } => Self::Body(Tamper::Flip { bits, seed: rng.next_u64() }),
            Misbehaviour::Swap => Self::Swap(rng.next_u64()),
            Misbehaviour::RollBack => Self::RollBack,
            Misbehaviour::StaleList { behind } => Self::Stale(behind),
            Misbehaviour::DroppedWrite => Self::Forget,
            Misbehaviour::EndlessBody => Self::Body(Tamper::Endless),
            Misbehaviour::Down => Self::Before(Stop::Refused),
            Misbehaviour::Full => Self::Before(Stop::Full),
            Misbehaviour::Denied => Self::Before(Stop::Denied),
            Misbehaviour::LandLate { within } => Self::Late(fraction(within, rng)),
        }
    }
}

fn part(draw: u64) -> u16 {
    u16::try_from(draw & 0xffff).unwrap_or(0)
}

fn fraction<R: Rng + ?Sized>(of: Duration, rng: &mut R) -> Duration {
    let nanos = u64::try_from(of.as_nanos()).unwrap_or(u64::MAX);
    let draw = rng.next_u64();
    Duration::from_nanos(if nanos == u64::MAX { draw } else { draw % (nanos + 1) })
}

/// The effects on one request, folded: what to do at each station on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Wait first.
    pub delay: Duration,
    /// Shared rate, bytes per second.
    pub throttle: Option<u64>,
    /// End here without acting.
    pub before: Option<Stop>,
    /// Say done without acting.
    pub forget: bool,
    /// Act so much later and do not answer.
    pub late: Option<Duration>,
    /// Act, then end like this.
    pub after: Option<Stop>,
    /// What the answer's body suffers.
    pub body: Option<Tamper>,
    /// Move bodies in steps of (bytes, pause).
    pub drip: Option<(u32, Duration)>,
    /// Read another object.
    pub swap: Option<u64>,
    /// Read the snapshot.
    pub roll_back: bool,
    /// List without so many changes.
    pub stale: u32,
}

impl Course {
    /// Folds the effects on a request of kind `op`: delays add up, of two endings the first wins, and effects that
    /// make no sense for the operation fall away.
    pub fn of(op: Op, effects: &[Effect]) -> Self {
        let writes = matches!(op, Op::Put | Op::Delete);
        let mut course = Self::default();
        for effect in effects {
            match *effect {
                Effect::Delay(delay) => course.delay = course.delay.saturating_add(delay),
                Effect::Throttle(rate) => {
                    course.throttle = Some(course.throttle.map_or(rate, |old| old.min(rate)));
                }
                Effect::Before(Stop::Full) if op != Op::Put => {}
                Effect::Before(stop) => course.before = course.before.or(Some(stop)),
                Effect::After(stop) => course.after = course.after.or(Some(stop)),
                Effect::Forget => course.forget |= writes,
                Effect::Late(delay) if writes => course.late = course.late.or(Some(delay)),
                Effect::Body(Tamper::Reset(_)) if op != Op::Get => {
                    course.after = course.after.or(Some(Stop::Reset));
                }
                Effect::Body(Tamper::Freeze(_)) if op != Op::Get => {
                    course.after = course.after.or(Some(Stop::Frozen));
                }
                Effect::Body(tamper) if op == Op::Get => {
                    course.body = course.body.or(Some(tamper));
                }
                Effect::Late(_) | Effect::Body(_) => {}
                Effect::Drip { bytes, every } => {
                    course.drip = course.drip.or(Some((bytes, every)));
                }
                Effect::Swap(draw) => course.swap = (op == Op::Get).then_some(draw),
                Effect::RollBack => course.roll_back = true,
                Effect::Stale(behind) => course.stale = course.stale.max(behind),
            }
        }
        course
    }

    /// How long a body of `len` bytes takes when dripped.
    pub fn drip_time(&self, len: u64) -> Duration {
        self.drip.map_or(Duration::ZERO, |(bytes, every)| {
            let steps = len / u64::from(bytes.max(1));
            every.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
        })
    }
}

impl Tamper {
    /// Number of bytes of `len` that come before the cut at `part` of 65536: never all of them unless `len` is 0.
    pub fn cut(part: u16, len: u64) -> u64 {
        let kept = u128::from(len) * u128::from(part) / 65536;
        u64::try_from(kept).unwrap_or(0)
    }
}

/// The places of the flipped bits of a body of `len` bytes, as (byte offset, bit mask), sorted by offset.
///
/// Two flips never fall on one bit, so a body of at least one byte differs whenever `bits > 0`.
pub fn flips(bits: u32, seed: u64, len: u64) -> Vec<(u64, u8)> {
    let mut state = seed;
    let mut places = std::collections::BTreeSet::new();
    let total = len.saturating_mul(8);
    if total == 0 {
        return Vec::new();
    }
    let wanted = u64::from(bits).min(total);
    while (places.len() as u64) < wanted {
        // SplitMix64: enough to spread a few places, and the same on both stores.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut place = (mixed ^ (mixed >> 31)) % total;
        while !places.insert(place) {
            place = (place + 1) % total;
        }
    }
    places.into_iter().map(|place| (place / 8, 1 << (place % 8))).collect()
}

#[cfg(test)]
mod tests;
