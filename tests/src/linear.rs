//! Linearizability of a register: whether one order of the operations explains every answer, with each operation at one instant
//! between its call and its return (Herlihy and Wing 1990; the search is that of Wing and Gong 1993 with the memoised
//! configurations of Lowe 2017). An operation whose client was never told may have happened at any instant up to its deadline, or
//! not at all.

use std::collections::HashSet;

/// What an operation found and left, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect<V> {
    /// What the register must have held.
    pub found: Found<V>,
    /// What it holds afterwards.
    pub left: Left<V>,
}

/// What the register holds after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left<V> {
    /// What it held before.
    Same,
    /// This value; none for an empty register.
    Now(Option<V>),
}

/// A demand on what the register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<V> {
    /// Anything.
    Anything,
    /// This value; none for an empty register.
    Just(Option<V>),
    /// Some value.
    Something,
}

/// One operation of a history. Instants are numbers of one total order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<V> {
    /// When it was called.
    pub called: u64,
    /// When it returned, or the last instant at which it can have happened.
    pub ended: u64,
    /// Whether the client was told: otherwise it may not have happened at all.
    pub told: bool,
    /// What it did.
    pub effect: Effect<V>,
}

/// Why a history is not linearizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The most operations that any order explains.
    pub explained: usize,
    /// Indexes of the operations that could come next there, none of which fits.
    pub next: Vec<usize>,
}

/// Most operations of one history.
pub const MAX_OPERATIONS: usize = 128;

/// Finds an order for the operations on one register that is empty at first.
///
/// # Errors
/// How far the best order got. Histories of more than [`MAX_OPERATIONS`] are refused as stuck at 0.
pub fn check<V: Copy + Eq + std::hash::Hash>(history: &[Operation<V>]) -> Result<(), Stuck> {
    let mut search = Search { history, seen: HashSet::new(), best: Stuck { explained: 0, next: Vec::new() } };
    if history.len() <= MAX_OPERATIONS && search.explore(0, None, 0) { Ok(()) } else { Err(search.best) }
}

struct Search<'h, V> {
    history: &'h [Operation<V>],
    seen: HashSet<(u128, Option<V>)>,
    best: Stuck,
}

impl<V: Copy + Eq + std::hash::Hash> Search<'_, V> {
    /// Whether the operations outside `done` can follow on a register that holds `value`. `latest` is the latest call in `done`.
    fn explore(&mut self, done: u128, value: Option<V>, latest: u64) -> bool {
        let open = || (0..self.history.len()).filter(|index| done & (1 << index) == 0);
        let told = |index: &usize| self.history.get(*index).is_some_and(|operation| operation.told);
        if !open().any(|index| told(&index)) {
            return true;
        }
        if !self.seen.insert((done, value)) {
            return false;
        }
        // What has returned must come before whatever was called later.
        let horizon = self.history.iter().enumerate().filter(|(index, operation)| done & (1 << index) == 0 && operation.told);
        let horizon = horizon.map(|(_, operation)| operation.ended).min().unwrap_or(u64::MAX);
        let candidates: Vec<(usize, Operation<V>)> = (0..self.history.len())
            .filter(|index| done & (1 << index) == 0)
            .filter_map(|index| Some((index, *self.history.get(index)?)))
            .filter(|(_, operation)| operation.called <= horizon && operation.ended >= latest)
            .collect();
        let explained = done.count_ones() as usize;
        if explained >= self.best.explained {
            self.best = Stuck { explained, next: candidates.iter().map(|(index, _)| *index).collect() };
        }
        candidates.into_iter().any(|(index, operation)| {
            let fits = match operation.effect.found {
                Found::Anything => true,
                Found::Just(expected) => expected == value,
                Found::Something => value.is_some(),
            };
            let left = match operation.effect.left {
                Left::Same => value,
                Left::Now(value) => value,
            };
            fits && self.explore(done | 1 << index, left, latest.max(operation.called))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(called: u64, ended: u64, found: Found<u8>, left: Left<u8>) -> Operation<u8> {
        Operation { called, ended, told: true, effect: Effect { found, left } }
    }

    fn write(called: u64, ended: u64, value: u8) -> Operation<u8> {
        op(called, ended, Found::Anything, Left::Now(Some(value)))
    }

    fn read(called: u64, ended: u64, value: Option<u8>) -> Operation<u8> {
        op(called, ended, Found::Just(value), Left::Same)
    }

    fn delete(called: u64, ended: u64) -> Operation<u8> {
        op(called, ended, Found::Something, Left::Now(None))
    }

    fn untold(operation: Operation<u8>) -> Operation<u8> {
        Operation { told: false, ..operation }
    }

    #[test]
    fn what_one_order_explains_passes() {
        assert_eq!(check::<u8>(&[]), Ok(()));
        // Two writes at once: either may be last.
        for last in [1, 2] {
            assert_eq!(check(&[write(0, 5, 1), write(1, 4, 2), read(6, 7, Some(last))]), Ok(()));
        }
        // A read during a write may see either, also the new one first by one client and the old one never again.
        assert_eq!(check(&[write(0, 1, 1), write(2, 9, 2), read(3, 4, Some(1)), read(5, 6, Some(2)), read(7, 8, Some(2))]), Ok(()));
        assert_eq!(check(&[write(0, 1, 1), delete(2, 3), read(4, 5, None)]), Ok(()));
        // Nobody was told: it may show much later, or never.
        assert_eq!(check(&[write(0, 1, 1), untold(write(2, 90, 2)), read(3, 4, Some(1)), read(5, 6, Some(2))]), Ok(()));
        assert_eq!(check(&[write(0, 1, 1), untold(write(2, 90, 2)), read(3, 4, Some(1))]), Ok(()));
    }

    #[test]
    fn what_no_order_explains_is_refused() {
        let refused = |history: &[Operation<u8>]| assert!(check(history).is_err(), "{history:?}");
        refused(&[write(0, 1, 1), read(2, 3, None)]);
        refused(&[write(0, 1, 1), write(2, 3, 2), read(4, 5, Some(1))]);
        // Seen, then gone again.
        refused(&[write(0, 1, 1), write(2, 9, 2), read(3, 4, Some(2)), read(5, 6, Some(1))]);
        refused(&[write(0, 1, 1), delete(2, 3), read(4, 5, Some(1))]);
        refused(&[delete(0, 1)]);
        // A crash decides: what did not show by its deadline never does.
        refused(&[write(0, 1, 1), untold(write(2, 4, 2)), read(5, 6, Some(1)), read(7, 8, Some(2))]);
        // Two that both found it empty and filled it.
        let create = |called, ended, value| op(called, ended, Found::Just(None), Left::Now(Some(value)));
        refused(&[create(0, 5, 1), create(1, 4, 2)]);
        assert_eq!(check(&[create(0, 5, 1)]), Ok(()));
        assert_eq!(check(&vec![write(0, 1, 1); MAX_OPERATIONS + 1]).unwrap_err().explained, 0);
    }

    #[test]
    fn the_place_where_it_fails_is_named() {
        let stuck = check(&[write(0, 1, 1), write(2, 3, 2), read(4, 5, Some(1))]).unwrap_err();
        assert_eq!((stuck.explained, stuck.next), (2, vec![2]));
    }
}
