//! Time, randomness and processor time as arguments: the engine takes them from here and from nowhere else, so that a
//! seeded run on a paused clock replays exactly.

use std::convert::Infallible;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use diaspore_block::id::Timestamp;
use rand::rngs::{StdRng, SysRng};
use rand::{SeedableRng, TryCryptoRng, TryRng};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Where the engine reads time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time, for records only: no decision of the protocol rests on it.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start on a clock that runs through suspend, or `None` where the machine has none.
    /// Leases are counted on it; without it every release checks the claims (PROTOCOL rule 6).
    fn boot_time(&self) -> Option<Duration>;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn boot_time(&self) -> Option<Duration> {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(Duration::new(u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?))
    }
}

/// The runtime's clock, which a test or simulation may pause: wall time starts at a fixed date.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeClock {
    start: tokio::time::Instant,
    base: Timestamp,
}

impl RuntimeClock {
    /// Starts counting now from `base`. Must be called inside the runtime.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { start: tokio::time::Instant::now(), base }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.base.0.saturating_add(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    fn boot_time(&self) -> Option<Duration> {
        Some(self.start.elapsed())
    }
}

/// Where the engine draws random bytes: salts, ids, placement.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `dst` with fresh random bytes.
    fn draw(&self, dst: &mut [u8]);
}

/// The operating system's generator, and nothing beside it.
///
/// There is no reserve in user space: two clones of a virtual machine would go on with one state, draw the same salts, and with
/// them the same AES keys and nonces for different bytes.
#[derive(Debug, Clone, Copy)]
pub struct SystemEntropy(());

impl SystemEntropy {
    /// Checks that the generator answers.
    ///
    /// # Errors
    /// When it does not: nothing may be sealed then, so the service must not start.
    pub fn new() -> Result<Self, rand::rngs::SysError> {
        SysRng.try_fill_bytes(&mut [0; 32])?;
        Ok(Self(()))
    }
}

impl Entropy for SystemEntropy {
    fn draw(&self, dst: &mut [u8]) {
        if let Err(error) = SysRng.try_fill_bytes(dst) {
            tracing::error!(%error, "the operating system's random generator failed; the process ends, since nothing may be sealed without it");
            // A panic could be caught by the runtime, and the bytes behind `dst` used as they are. Whatever was acknowledged is
            // journalled and reconciled at the next start, as after any crash.
            std::process::abort();
        }
    }
}

/// A seeded generator for simulation: same seed, same bytes in the same order. Never for real keys.
pub struct SeededEntropy {
    generator: Mutex<StdRng>,
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededEntropy")
    }
}

impl SeededEntropy {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { generator: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

impl Entropy for SeededEntropy {
    fn draw(&self, dst: &mut [u8]) {
        fill_locked(&self.generator, dst);
    }
}

fn fill_locked(generator: &Mutex<StdRng>, dst: &mut [u8]) {
    let mut generator = generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match generator.try_fill_bytes(dst) {
        Ok(()) => (),
        Err(never) => match never {},
    }
}

/// An `Entropy` as the generator that the pure crates take.
#[derive(Debug)]
pub struct Draw<'a>(pub &'a dyn Entropy);

impl TryRng for Draw<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.draw(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.draw(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.draw(dst);
        Ok(())
    }
}

impl TryCryptoRng for Draw<'_> {}

/// Runs work that keeps a processor busy or blocks on the local disk: hands the worker thread over on a multi-thread
/// runtime, runs inline on a current-thread one, where the simulation wants one order of events.
pub fn cpu<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_seed_replays() {
        let (one, two, other) = (SeededEntropy::new(7), SeededEntropy::new(7), SeededEntropy::new(8));
        let first = Draw(&one).next_u64();
        assert_eq!(first, Draw(&two).next_u64());
        assert_ne!(first, Draw(&other).next_u64());
        assert_ne!(first, Draw(&one).next_u64());
    }

    #[test]
    fn the_boot_clock_moves_forward() {
        let before = SystemClock.boot_time().unwrap();
        assert!(SystemClock.boot_time().unwrap() >= before);
        assert!(SystemClock.now().0 > 1_700_000_000_000);
    }
}
