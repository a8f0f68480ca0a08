//! What happened, in a form that two runs can be compared by.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::fault::Op;

/// How a request ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The proper answer.
    Ok,
    /// The proper answer, but for changed, swapped, cut or old content.
    Lie,
    /// Success was claimed and nothing done.
    Forgotten,
    /// A proper refusal: not found, already there, precondition.
    Refused,
    /// An error and no effect.
    FailedBefore,
    /// An error although the effect took place.
    FailedAfter,
    /// No answer and no effect.
    Frozen,
    /// No answer; the effect is on its way.
    OnItsWay,
    /// A late write landed.
    Landed,
    /// A late create came after another and was refused.
    LandedInVain,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Virtual time since the store was created.
    pub at: Duration,
    /// Kind of the request.
    pub op: Op,
    /// First eight bytes of the path's (or prefix's) SHA-256.
    pub path_hash: [u8; 8],
    /// Bytes carried: stored, read, or the number of objects listed.
    pub amount: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// The events so far and their running hash.
#[derive(Debug, Default)]
pub(super) struct Trace {
    events: Vec<TraceEvent>,
    hash: Sha256,
    requests: [u64; Op::ALL.len()],
}

impl Trace {
    pub(super) fn note(&mut self, at: Duration, op: Op, path: &str, amount: u64, outcome: Outcome) {
        if let Some(count) = self.requests.get_mut(op as usize) {
            *count += 1;
        }
        self.push(at, op, path, amount, outcome);
    }

    pub(super) fn landed(&mut self, at: Duration, path: &str, taken: bool) {
        let outcome = if taken { Outcome::LandedInVain } else { Outcome::Landed };
        self.push(at, Op::Put, path, 0, outcome);
    }

    fn push(&mut self, at: Duration, op: Op, path: &str, amount: u64, outcome: Outcome) {
        let digest = Sha256::digest(path.as_bytes());
        let path_hash = digest.first_chunk::<8>().copied().unwrap_or_default();
        self.hash.update(at.as_nanos().to_be_bytes());
        self.hash.update([op as u8, outcome as u8]);
        self.hash.update(path_hash);
        self.hash.update(amount.to_be_bytes());
        self.events.push(TraceEvent { at, op, path_hash, amount, outcome });
    }

    pub(super) fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    pub(super) fn requests(&self, op: Op) -> u64 {
        self.requests.get(op as usize).copied().unwrap_or(0)
    }
}
