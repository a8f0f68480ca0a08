//! An object store in memory that misbehaves on command, for simulation.
//!
//! Everything it does follows from the calls made, the plan in force, the generator it was given and tokio's clock.
//! It keeps ordered maps only, spawns nothing and never looks at the wall clock: the same seed gives the same trace,
//! which [`HostileStore::trace_hash`] condenses to 32 bytes. Create it inside the runtime whose clock is paused.
//!
//! Writes under [`Misbehaviour::LandLate`](crate::Misbehaviour::LandLate) wait in a queue of their own and land when
//! their time has come, whether or not the client that sent them is still alive: they are applied, in order of time,
//! before the next call looks at the objects.

mod store;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use tokio::time::Instant;

use trace::Trace;
pub use trace::{Outcome, TraceEvent};

use crate::fault::{Course, FaultPlan, Op};
use crate::recent::Recent;
use crate::tripwire::Tripwire;

/// One stored object.
#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    tag: u64,
    at: Duration,
}

type Objects = BTreeMap<String, Object>;

/// A write on its way that lands at `due`.
#[derive(Debug)]
struct Late {
    due: Duration,
    order: u64,
    key: String,
    /// `None` deletes.
    bytes: Option<Bytes>,
    /// Only if the key is free by then.
    create: bool,
}

#[derive(Debug)]
struct State {
    objects: Objects,
    snapshot: Objects,
    late: Vec<Late>,
    recent: Recent<Object>,
    plan: FaultPlan,
    rng: ChaCha12Rng,
    trace: Trace,
    tags: u64,
    tripwire: Option<Tripwire>,
    /// When the shared link is free again.
    link_free: Duration,
}

/// The hostile store. Clones share everything.
#[derive(Clone)]
pub struct HostileStore {
    name: Arc<str>,
    epoch: Instant,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for HostileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostileStore").field("name", &self.name).field("objects", &self.lock().objects.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for HostileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hostile({})", self.name)
    }
}

impl HostileStore {
    /// An empty, honest store that will draw from `rng`. Virtual time starts now.
    pub fn new(name: &str, rng: ChaCha12Rng) -> Self {
        Self {
            name: Arc::from(name),
            epoch: Instant::now(),
            state: Arc::new(Mutex::new(State {
                objects: Objects::new(),
                snapshot: Objects::new(),
                late: Vec::new(),
                recent: Recent::default(),
                plan: FaultPlan::honest(),
                rng,
                trace: Trace::default(),
                tags: 0,
                tripwire: None,
                link_free: Duration::ZERO,
            })),
        }
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts another plan in force, from the next request on.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// Lets the process that asks die at a numbered change: each counts twice, before and behind its effect.
    pub fn set_tripwire(&self, tripwire: Option<Tripwire>) {
        self.lock().tripwire = tripwire;
    }

    /// The plan in force, with what is left of its countdowns.
    pub fn faults(&self) -> FaultPlan {
        self.lock().plan.clone()
    }

    /// Remembers the present state for roll-backs, replacing the snapshot before.
    pub fn take_snapshot(&self) {
        let mut state = self.settled();
        state.snapshot = state.objects.clone();
    }

    /// The whole store goes back to the last snapshot (empty if none was taken); writes still on their way are lost.
    pub fn roll_back(&self) {
        let mut state = self.settled();
        state.objects = state.snapshot.clone();
        state.late.clear();
        state.recent.clear();
    }

    /// Loses every object and every write on its way. The snapshot stays, so that [`HostileStore::roll_back`] is the
    /// provider's coming back.
    pub fn lose_everything(&self) {
        let mut state = self.settled();
        state.objects.clear();
        state.late.clear();
        state.recent.clear();
    }

    /// Paths and bytes of everything stored now, in order of path.
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        let state = self.settled();
        state.objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// The stored bytes at `path`, if any: what is really there, not what a request would be told.
    pub fn peek(&self, path: &str) -> Option<Bytes> {
        self.settled().objects.get(path).map(|object| object.bytes.clone())
    }

    /// Replaces what is stored at `path`, or removes it: damage at rest, outside any request and its trace.
    pub fn tamper(&self, path: &str, bytes: Option<Bytes>) {
        let now = self.now();
        let mut state = self.settled();
        state.change(path, bytes, now);
    }

    /// Number of writes that have not landed yet.
    pub fn late_writes(&self) -> usize {
        self.settled().late.len()
    }

    /// Lands every late write at once, in order of their time.
    pub fn land_all(&self) {
        self.lock().land(Duration::MAX);
    }

    /// What happened so far.
    pub fn trace(&self) -> Vec<TraceEvent> {
        self.lock().trace.events().to_vec()
    }

    /// SHA-256 over the events so far, in order. Two runs from one seed give the same.
    pub fn trace_hash(&self) -> [u8; 32] {
        self.lock().trace.hash()
    }

    /// Number of requests of one kind so far.
    pub fn requests(&self, op: Op) -> u64 {
        self.lock().trace.requests(op)
    }

    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.epoch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state with all late writes landed whose time has come.
    fn settled(&self) -> MutexGuard<'_, State> {
        let now = self.now();
        let mut state = self.lock();
        state.land(now);
        state
    }

    /// Decides the course of one request.
    fn decide(&self, op: Op) -> Course {
        let mut state = self.lock();
        let State { plan, rng, .. } = &mut *state;
        let effects = plan.decide(op, rng);
        Course::of(op, &effects)
    }
}

impl State {
    /// Applies the late writes due by `now`.
    fn land(&mut self, now: Duration) {
        loop {
            let next = self
                .late
                .iter()
                .enumerate()
                .filter(|(_, late)| late.due <= now)
                .min_by_key(|(_, late)| (late.due, late.order))
                .map(|(index, _)| index);
            let Some(index) = next else { return };
            let late = self.late.remove(index);
            let taken = late.create && self.objects.contains_key(&late.key);
            self.trace.landed(late.due, &late.key, taken);
            if !taken {
                self.change(&late.key, late.bytes, late.due);
            }
        }
    }

    /// Sets or removes an object; answers the new tag.
    fn change(&mut self, key: &str, bytes: Option<Bytes>, now: Duration) -> u64 {
        self.tags += 1;
        let tag = self.tags;
        let before = match bytes {
            Some(bytes) => self.objects.insert(key.to_owned(), Object { bytes, tag, at: now }),
            None => self.objects.remove(key),
        };
        self.recent.note(key, before);
        tag
    }

    /// The objects as a listing `behind` changes old shows them.
    fn stale(&self, behind: u32) -> Objects {
        let mut objects = self.objects.clone();
        for change in self.recent.last(behind) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects
    }
}

#[cfg(test)]
mod tests;
