//! What a collection must leave alone although no blob names it: blocks that uploads rely on, and what running reads still need.
//!
//! All of it is the process's, not one incarnation's: a reader that began before the service superseded itself reads on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diaspore_block::id::{BlockId, BucketId, Seq};
use diaspore_block::record::Content;

/// Blocks one upload pins by name; one that relies on more pins everything, so that memory does not follow the upload's length.
const MOST_PINS: usize = 1 << 16;

/// Pins of uploads, leases of reads, and what a collection is about to condemn.
#[derive(Clone, Default)]
pub(crate) struct Keep(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Uploads per pinned block.
    pins: BTreeMap<BlockId, u32>,
    /// Holders of every block there is.
    everything: u32,
    /// While a collection marks: what was pinned at any time since it began.
    retained: Option<Retained>,
    /// Blocks that a condemning record is to name: nothing new may rely on them.
    nominated: BTreeSet<BlockId>,
    reads: BTreeMap<u64, Reading>,
    next_read: u64,
}

struct Retained {
    blocks: BTreeSet<BlockId>,
    everything: bool,
}

struct Reading {
    /// Applied when it began.
    seq: Seq,
    /// What it reads; none until it has looked that up.
    content: Option<Root>,
}

/// A content that must stay readable.
pub(crate) type Root = (BucketId, Arc<Content>);

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut shown = f.debug_struct("Keep");
        shown.field("pins", &state.pins.len()).field("nominated", &state.nominated.len()).field("reads", &state.reads.len()).finish()
    }
}

impl Keep {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pins of one upload, none yet.
    pub(crate) fn pins(&self) -> Pins {
        Pins { keep: self.clone(), blocks: BTreeSet::new(), everything: false }
    }

    /// Keeps every block until it is dropped: for whoever walks over everything.
    pub(crate) fn hold_everything(&self) -> Pins {
        let mut pins = self.pins();
        pins.take_everything(&mut self.state());
        pins
    }

    /// A read that begins with `seq` applied. Take it before the blob is looked up.
    pub(crate) fn lease(&self, seq: Seq) -> Lease {
        let mut state = self.state();
        let id = state.next_read;
        state.next_read += 1;
        state.reads.insert(id, Reading { seq, content: None });
        Lease { keep: self.clone(), id }
    }

    /// From here on pins that are dropped stay, until [`Marking`] is dropped. Take the snapshot to mark over afterwards.
    pub(crate) fn begin_marking(&self) -> Marking {
        let mut state = self.state();
        state.retained = Some(Retained { blocks: BTreeSet::new(), everything: state.everything > 0 });
        drop(state);
        Marking(self.clone())
    }

    /// What running reads read: roots of the mark beside the current blobs. Ask after the snapshot was taken. `None` while one of them
    /// has not looked its blob up: ask again.
    pub(crate) fn roots(&self) -> Option<Vec<Root>> {
        self.state().reads.values().map(|reading| reading.content.clone()).collect()
    }

    /// Whether every read has ended that began before `seq` was applied.
    pub(crate) fn is_past(&self, seq: Seq) -> bool {
        self.state().reads.values().all(|reading| reading.seq >= seq)
    }

    #[cfg(test)]
    pub(crate) fn is_nominated(&self, block: BlockId) -> bool {
        self.state().nominated.contains(&block)
    }
}

/// Blocks that one upload relies on. Dropping it lets go of them: hold it until the upload's outcome is applied.
pub(crate) struct Pins {
    keep: Keep,
    blocks: BTreeSet<BlockId>,
    everything: bool,
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pins({})", self.blocks.len())
    }
}

impl Pins {
    /// Pins a block that others wrote; false if it is about to be condemned, so that it cannot be relied on.
    pub(crate) fn rely_on(&mut self, block: BlockId) -> bool {
        let mut state = self.keep.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.nominated.contains(&block) {
            return false;
        }
        if self.everything || !self.blocks.insert(block) {
            return true;
        }
        *state.pins.entry(block).or_default() += 1;
        if self.blocks.len() >= MOST_PINS {
            self.everything = true;
            state.hold_all();
        }
        true
    }

    /// Pins a block of the upload's own that nothing else knows yet.
    pub(crate) fn own(&mut self, block: BlockId) {
        let fresh = self.rely_on(block);
        debug_assert!(fresh, "a block that was just named cannot be nominated");
    }

    fn take_everything(&mut self, state: &mut State) {
        self.everything = true;
        state.hold_all();
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.keep.state();
        for block in &self.blocks {
            state.let_go(*block);
        }
        if self.everything {
            state.everything = state.everything.saturating_sub(1);
        }
    }
}

impl State {
    fn hold_all(&mut self) {
        self.everything += 1;
        if let Some(retained) = &mut self.retained {
            retained.everything = true;
        }
    }

    fn let_go(&mut self, block: BlockId) {
        if let Some(count) = self.pins.get_mut(&block) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pins.remove(&block);
            }
        }
        if let Some(retained) = &mut self.retained {
            retained.blocks.insert(block);
        }
    }

    fn is_kept(&self, block: BlockId) -> bool {
        let retained = self.retained.as_ref().is_some_and(|retained| retained.everything || retained.blocks.contains(&block));
        self.everything > 0 || retained || self.pins.contains_key(&block)
    }
}

/// A running read.
pub(crate) struct Lease {
    keep: Keep,
    id: u64,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.id)
    }
}

impl Lease {
    /// Says what is read.
    pub(crate) fn reads(&self, bucket: BucketId, content: &Content) {
        if let Some(reading) = self.keep.state().reads.get_mut(&self.id) {
            reading.content = Some((bucket, Arc::new(content.clone())));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keep.state().reads.remove(&self.id);
    }
}

/// A collection between its snapshot and its nominations.
pub(crate) struct Marking(Keep);

impl fmt::Debug for Marking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marking")
    }
}

impl Marking {
    /// What somebody kept at any time since the collection began, by name; `None` if that is everything.
    pub(crate) fn kept(&self) -> Option<BTreeSet<BlockId>> {
        let state = self.0.state();
        let retained = state.retained.as_ref();
        if state.everything > 0 || retained.is_some_and(|retained| retained.everything) {
            return None;
        }
        Some(state.pins.keys().chain(retained.into_iter().flat_map(|retained| &retained.blocks)).copied().collect())
    }

    /// Nominates those of the blocks that nobody kept since the collection began.
    pub(crate) fn nominate(&self, blocks: impl IntoIterator<Item = BlockId>) -> Nominated {
        let mut state = self.0.state();
        let blocks: Vec<BlockId> = blocks.into_iter().filter(|block| !state.is_kept(*block)).collect();
        state.nominated.extend(&blocks);
        Nominated { keep: self.0.clone(), blocks }
    }
}

impl Drop for Marking {
    fn drop(&mut self) {
        self.0.state().retained = None;
    }
}

/// Blocks that nothing new relies on until this is dropped: when their record was applied, or it is certain that it never will be.
#[derive(Debug)]
pub(crate) struct Nominated {
    keep: Keep,
    blocks: Vec<BlockId>,
}

impl Nominated {
    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Takes some of them out, to go into the hold of the request that condemns them.
    pub(crate) fn split(&mut self, part: &BTreeSet<BlockId>) -> Self {
        let (taken, left) = std::mem::take(&mut self.blocks).into_iter().partition(|block| part.contains(block));
        self.blocks = left;
        Self { keep: self.keep.clone(), blocks: taken }
    }
}

impl Drop for Nominated {
    fn drop(&mut self) {
        let mut state = self.keep.state();
        for block in &self.blocks {
            state.nominated.remove(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(id: u8) -> BlockId {
        BlockId::from_bytes([id; 16])
    }

    #[test]
    fn what_was_pinned_at_any_time_of_a_marking_is_not_nominated() {
        let keep = Keep::default();
        let before = {
            let mut pins = keep.pins();
            assert!(pins.rely_on(block(1)));
            pins
        };
        drop(before);
        let mut held = keep.pins();
        assert!(held.rely_on(block(2)));
        let mut ended = keep.pins();
        assert!(ended.rely_on(block(3)));
        let marking = keep.begin_marking();
        let mut passing = keep.pins();
        assert!(passing.rely_on(block(4)));
        drop((passing, ended));
        let nominated = marking.nominate((1..=5).map(block));
        assert_eq!(nominated.blocks(), [block(1), block(5)]);
        drop(marking);
        assert!(!keep.pins().rely_on(block(1)), "what is nominated is not found any more");
        assert!(keep.pins().rely_on(block(4)));
        drop(nominated);
        assert!(keep.pins().rely_on(block(1)));
    }

    #[test]
    fn a_very_long_upload_keeps_everything() {
        let keep = Keep::default();
        let mut pins = keep.pins();
        for number in 0..=MOST_PINS as u128 {
            assert!(pins.rely_on(BlockId::from_bytes(number.to_be_bytes())));
        }
        let marking = keep.begin_marking();
        assert!(marking.nominate([block(200)]).blocks().is_empty());
        drop(pins);
        assert!(marking.nominate([block(200)]).blocks().is_empty(), "it was there while the collection marked");
        drop(marking);
        assert_eq!(keep.begin_marking().nominate([block(200)]).blocks(), [block(200)]);
        assert!(keep.state().pins.is_empty());
    }

    #[test]
    fn a_lease_holds_what_was_condemned_after_it_began() {
        let keep = Keep::default();
        let lease = keep.lease(Seq(7));
        assert!(keep.roots().is_none(), "it may be about to read anything");
        lease.reads(BucketId::NIL, &Content { depth: 0, refs: Vec::new() });
        assert_eq!(keep.roots().unwrap().len(), 1);
        assert!(keep.is_past(Seq(7)), "it began in a state that knows of it");
        assert!(!keep.is_past(Seq(8)));
        drop(lease);
        assert!(keep.is_past(Seq(8)));
    }

    #[test]
    fn whoever_walks_over_everything_keeps_it_until_it_is_done() {
        let keep = Keep::default();
        let all = keep.hold_everything();
        assert!(keep.begin_marking().nominate([block(1)]).blocks().is_empty());
        drop(all);
        assert_eq!(keep.begin_marking().nominate([block(1)]).blocks(), [block(1)]);
    }
}
