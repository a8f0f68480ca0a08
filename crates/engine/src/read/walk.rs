//! From a range of a blob to the chunks that hold it, through indirect lists, one step at a time.

use std::ops::Range;

use diaspore_block::id::ChunkId;
use diaspore_block::record::{ChunkRef, Content};

use crate::api::{Error, ErrorKind};

/// A chunk and the part of it that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: ChunkId,
    /// Plain length of the whole chunk.
    pub(crate) len: u64,
    /// Wanted bytes of the chunk, not empty.
    pub(crate) wanted: Range<u64>,
}

/// A list chunk that has to be loaded before the walk goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListRef {
    pub(crate) id: ChunkId,
    /// Plain bytes of the blob below it.
    pub(crate) len: u64,
    depth: u8,
    offset: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Chunk(Piece),
    /// Load it, then [`Walker::enter`].
    List(ListRef),
    End,
}

#[derive(Debug)]
struct Level {
    depth: u8,
    refs: std::vec::IntoIter<ChunkRef>,
    offset: u64,
}

/// A walk over one content. Holds at most one list per level.
#[derive(Debug)]
pub(crate) struct Walker {
    wanted: Range<u64>,
    levels: Vec<Level>,
}

impl Walker {
    /// Walks the chunks that hold bytes `wanted` of the blob.
    pub(crate) fn new(content: &Content, wanted: Range<u64>) -> Self {
        let top = Level { depth: content.depth, refs: content.refs.clone().into_iter(), offset: 0 };
        Self { wanted, levels: vec![top] }
    }

    /// The next chunk of the range, or the list that leads to it.
    pub(crate) fn step(&mut self) -> Step {
        while let Some(level) = self.levels.last_mut() {
            let Some(next) = level.refs.next() else {
                self.levels.pop();
                continue;
            };
            let (start, depth) = (level.offset, level.depth);
            let end = start.saturating_add(next.len);
            level.offset = end;
            if start >= self.wanted.end {
                break;
            }
            let from = self.wanted.start.max(start);
            let to = self.wanted.end.min(end);
            if from >= to {
                continue;
            }
            return match depth {
                0 => Step::Chunk(Piece { id: next.id, len: next.len, wanted: from - start..to - start }),
                _ => Step::List(ListRef { id: next.id, len: next.len, depth, offset: start }),
            };
        }
        self.levels.clear();
        Step::End
    }

    /// Goes on below `list`, whose references are `refs`.
    ///
    /// # Errors
    /// `IntegrityViolation` when the references do not add up to what the list stands for.
    pub(crate) fn enter(&mut self, list: &ListRef, refs: Vec<ChunkRef>) -> Result<(), Error> {
        let sum = refs.iter().try_fold(0_u64, |sum, r| sum.checked_add(r.len));
        if sum != Some(list.len) {
            return Err(Error::new(ErrorKind::IntegrityViolation, "a chunk list does not describe the bytes it stands for"));
        }
        let depth = list.depth.saturating_sub(1);
        self.levels.push(Level { depth, refs: refs.into_iter(), offset: list.offset });
        Ok(())
    }
}
