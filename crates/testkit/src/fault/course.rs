//! What a plan's decision does to one request: effects with their dice thrown, folded into the course it takes.

use std::time::Duration;

use rand::Rng;

use super::{Misbehaviour, Op};

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
    /// 404 `NoSuchBucket`.
    NoBucket,
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
    pub(super) fn draw<R: Rng + ?Sized>(what: Misbehaviour, rng: &mut R) -> Self {
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
            Misbehaviour::NoBucket => Self::Before(Stop::NoBucket),
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
