//! Which retry tokens are being worked on now: the second request of two must wait its turn, not run beside the first.

use std::sync::Arc;

use dashmap::DashSet;

use crate::api::{Error, ErrorKind};

/// Tokens in flight, by the hash of tenant and token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights {
    active: Arc<DashSet<[u8; 32]>>,
}

impl Flights {
    /// Enters `key_hash` until the returned guard drops.
    ///
    /// # Errors
    /// `IdempotencyInFlight` when it is entered already.
    pub(crate) fn enter(&self, key_hash: [u8; 32]) -> Result<Flight, Error> {
        if !self.active.insert(key_hash) {
            return Err(Error::new(
                ErrorKind::IdempotencyInFlight,
                "a request with this Idempotency-Key is still running; ask again later with the same key",
            ));
        }
        Ok(Flight { active: Arc::clone(&self.active), key_hash })
    }
}

/// One token in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    active: Arc<DashSet<[u8; 32]>>,
    key_hash: [u8; 32],
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.active.remove(&self.key_hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let flights = Flights::default();
        let first = flights.enter([1; 32]).unwrap();
        assert_eq!(flights.enter([1; 32]).unwrap_err().kind, ErrorKind::IdempotencyInFlight);
        drop(flights.enter([2; 32]).unwrap());
        drop(first);
        drop(flights.enter([1; 32]).unwrap());
    }
}
