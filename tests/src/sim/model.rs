//! The reference model: what may be read, given what was acknowledged.

use std::collections::BTreeMap;
use std::fmt;

/// Content of a blob, reproduced from its seed wherever bytes are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// Seed of the bytes.
    pub seed: u64,
    /// Length in bytes.
    pub len: usize,
}

impl Value {
    /// The bytes: half of the values are random, the other half compressible text.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0_u8; self.len];
        blake3::Hasher::new().update(&self.seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        if self.seed.is_multiple_of(2) {
            // One of four letters each.
            for byte in &mut bytes {
                *byte = b'`' | (*byte & 3);
            }
        }
        bytes
    }
}

/// An answer that no correct service could have given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// What one key may hold: the last acknowledged state, and states whose outcome nobody was told.
#[derive(Debug, Clone, Default)]
struct Slot {
    acked: Option<Value>,
    maybe: Vec<Option<Value>>,
}

impl Slot {
    fn allows(&self, seen: Option<Value>) -> bool {
        self.acked == seen || self.maybe.contains(&seen)
    }
}

/// Keys and what they may hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    slots: BTreeMap<Vec<u8>, Slot>,
}

impl Model {
    /// The mutation was acknowledged: it is the state, and whatever was uncertain before it is decided.
    pub fn acknowledged(&mut self, key: &[u8], state: Option<Value>) {
        self.slots.insert(key.to_vec(), Slot { acked: state, maybe: Vec::new() });
    }

    /// The mutation may or may not have happened.
    pub fn uncertain(&mut self, key: &[u8], state: Option<Value>) {
        self.slots.entry(key.to_vec()).or_default().maybe.push(state);
    }

    /// Judges a read. `decided`: no mutation can still be under way (the process was restarted since), so what is seen now
    /// has to stay.
    pub fn observed(&mut self, key: &[u8], seen: Option<Value>, decided: bool) -> Result<(), Violation> {
        let slot = self.slots.entry(key.to_vec()).or_default();
        if !slot.allows(seen) {
            return Err(Violation(format!(
                "key {} holds {seen:?}, allowed are {:?} and {:?}",
                String::from_utf8_lossy(key),
                slot.acked,
                slot.maybe
            )));
        }
        if decided {
            *slot = Slot { acked: seen, maybe: Vec::new() };
        } else if slot.acked != seen {
            slot.acked = seen;
            slot.maybe.retain(|maybe| *maybe != seen);
        }
        Ok(())
    }

    /// The value among those allowed at `key` whose bytes these are. `Err` when there is none.
    pub fn identify(&self, key: &[u8], bytes: &[u8]) -> Result<Value, Violation> {
        self.candidates(key)
            .into_iter()
            .find(|value| value.len == bytes.len() && value.bytes() == bytes)
            .ok_or_else(|| Violation(format!("key {} reads {} bytes that nobody wrote there", String::from_utf8_lossy(key), bytes.len())))
    }

    /// Every value that `key` may hold.
    pub fn candidates(&self, key: &[u8]) -> Vec<Value> {
        self.slots.get(key).map(|slot| slot.maybe.iter().chain([&slot.acked]).copied().flatten().collect()).unwrap_or_default()
    }

    /// Keys that must be listed, and keys that may be.
    pub fn listing(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut must, mut may) = (Vec::new(), Vec::new());
        for (key, slot) in &self.slots {
            let states = || slot.maybe.iter().chain([&slot.acked]);
            if states().all(Option::is_some) {
                must.push(key.clone());
            }
            if states().any(Option::is_some) {
                may.push(key.clone());
            }
        }
        (must, may)
    }

    /// Every key ever touched.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.slots.keys().cloned().collect()
    }
}
