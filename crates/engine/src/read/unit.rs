//! Neighbouring pieces of a read, gathered so that one block is asked once.

use std::ops::Range;

use diaspore_block::id::{BlockId, ChunkId};
use diaspore_block::record::Encoding;
use diaspore_ledger::ChunkPlace;

use super::walk::Piece;

/// Most stored bytes of one unit. A whole bulk block fits: reading it is one request per data shard.
pub(crate) const UNIT_BYTES: u64 = 13 << 20;
/// Stored bytes of a read's first unit: the first byte leaves early.
pub(crate) const FIRST_UNIT_BYTES: u64 = 1 << 20;
/// Unwanted stored bytes between two pieces that are cheaper to fetch than another request.
const GAP_BYTES: u64 = 128 << 10;

/// A wanted piece and where its stored bytes lie in the plaintext of its section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    pub(crate) id: ChunkId,
    pub(crate) encoding: Encoding,
    pub(crate) plain_len: u32,
    /// Wanted plain bytes of the chunk.
    pub(crate) wanted: Range<u64>,
    /// Bytes of the section's plaintext that are needed for them: of a compressed chunk all, of a raw one those wanted.
    pub(crate) stored: Range<u64>,
}

impl Item {
    /// What `piece` needs at `place`.
    pub(crate) fn new(piece: &Piece, place: &ChunkPlace) -> Self {
        let start = u64::from(place.offset);
        let stored = match place.encoding {
            Encoding::Raw => start + piece.wanted.start..start + piece.wanted.end,
            Encoding::ZstdFramed => start..start + u64::from(place.stored_len),
        };
        Self { id: piece.id, encoding: place.encoding, plain_len: place.plain_len, wanted: piece.wanted.clone(), stored }
    }

    /// Whether the whole chunk is wanted.
    pub(crate) fn is_whole(&self) -> bool {
        self.wanted.start == 0 && self.wanted.end == u64::from(self.plain_len)
    }
}

/// Pieces out of one section of one block, in the order of the blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    pub(crate) block: BlockId,
    pub(crate) section: u8,
    pub(crate) items: Vec<Item>,
    /// Bytes of the section's plaintext that hold all items.
    pub(crate) span: Range<u64>,
}

impl Unit {
    /// A unit of one item.
    pub(crate) fn new(block: BlockId, section: u8, item: Item) -> Self {
        let span = item.stored.clone();
        Self { block, section, items: vec![item], span }
    }

    /// Adds the next item of the blob if it lies close enough; gives it back otherwise.
    pub(crate) fn add(&mut self, block: BlockId, section: u8, item: Item, most_bytes: u64) -> Option<Item> {
        let span = self.span.start.min(item.stored.start)..self.span.end.max(item.stored.end);
        let near = item.stored.start <= self.span.end + GAP_BYTES && self.span.start <= item.stored.end + GAP_BYTES;
        if (block, section) != (self.block, self.section) || !near || span.end - span.start > most_bytes {
            return Some(item);
        }
        self.span = span;
        self.items.push(item);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(stored: Range<u64>) -> Item {
        let len = u32::try_from(stored.end - stored.start).unwrap();
        Item { id: ChunkId::ZERO, encoding: Encoding::Raw, plain_len: len, wanted: 0..u64::from(len), stored }
    }

    #[test]
    fn neighbours_join_and_strangers_do_not() {
        let (one, two) = (BlockId::from_bytes([1; 16]), BlockId::from_bytes([2; 16]));
        let mut unit = Unit::new(one, 0, item(1000..2000));
        assert_eq!(unit.add(one, 0, item(2000..3000), UNIT_BYTES), None);
        assert_eq!(unit.span, 1000..3000);
        assert_eq!(unit.add(one, 0, item(0..500), UNIT_BYTES), None, "a deduplicated chunk may lie before");
        assert_eq!(unit.span, 0..3000);
        for stranger in [(two, 0, 3000..4000), (one, 1, 3000..4000), (one, 0, 3001 + GAP_BYTES..4000 + GAP_BYTES)] {
            let (block, section, stored) = stranger;
            assert!(unit.add(block, section, item(stored), UNIT_BYTES).is_some());
        }
        assert!(unit.add(one, 0, item(3000..4000), 3500).is_some(), "too long");
        assert_eq!(unit.items.len(), 3);
    }

    #[test]
    fn a_raw_piece_needs_its_bytes_and_a_compressed_one_all() {
        let place = |encoding| ChunkPlace { block: BlockId::NIL, section: 0, offset: 100, stored_len: 50, plain_len: 80, encoding };
        let piece = Piece { id: ChunkId::ZERO, len: 80, wanted: 10..20 };
        assert_eq!(Item::new(&piece, &place(Encoding::Raw)).stored, 110..120);
        assert_eq!(Item::new(&piece, &place(Encoding::ZstdFramed)).stored, 100..150);
        assert!(!Item::new(&piece, &place(Encoding::Raw)).is_whole());
    }
}
