//! The chunk list of a blob, folded into indirect lists as it grows, so that memory does not follow the blob's size.

use diaspore_block::record::{ChunkRef, Content};

use crate::api::{Error, ErrorKind};

/// References a record holds itself; more go into list chunks.
pub(crate) const INLINE_REFS: usize = diaspore_block::limits::MAX_INLINE_REFS;
/// References in one list chunk.
pub(crate) const LIST_REFS: usize = diaspore_block::limits::MAX_LIST_REFS;
/// Levels of lists: enough for 4096^4 * 512 chunks.
const MAX_DEPTH: usize = 4;

/// References of a full list that has to be stored as a chunk, and the level it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FullList {
    /// Level the list's own reference goes to.
    pub(crate) level: usize,
    /// What the list holds.
    pub(crate) refs: Vec<ChunkRef>,
}

impl FullList {
    /// Plain bytes of the blob below the list.
    pub(crate) fn span(&self) -> u64 {
        self.refs.iter().map(|r| r.len).sum()
    }
}

/// What is left to do at the end.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Store this list, push its reference, ask again.
    Store(FullList),
    /// Nothing: this is the content.
    Done(Content),
}

/// Gathers references in order; level 0 holds data chunks.
#[derive(Debug, Default)]
pub(crate) struct ContentBuilder {
    levels: Vec<Vec<ChunkRef>>,
}

impl ContentBuilder {
    /// Appends a reference at `level`.
    ///
    /// # Errors
    /// When the blob needs more levels than the format has.
    pub(crate) fn push(&mut self, level: usize, chunk: ChunkRef) -> Result<(), Error> {
        if level > MAX_DEPTH {
            return Err(Error::new(ErrorKind::TooLarge, "the blob has more chunks than a record can describe"));
        }
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        if let Some(refs) = self.levels.get_mut(level) {
            refs.push(chunk);
        }
        Ok(())
    }

    /// A list that is full, lowest level first. Call until `None` after each push.
    pub(crate) fn take_full(&mut self) -> Option<FullList> {
        let level = self.levels.iter().position(|refs| refs.len() >= LIST_REFS)?;
        self.take(level)
    }

    /// Closes the content from the lowest level up.
    pub(crate) fn finish(&mut self) -> Rest {
        let top = self.levels.len().saturating_sub(1);
        let partial = self.levels.iter().position(|refs| !refs.is_empty()).unwrap_or(top);
        let fits = self.levels.get(partial).is_none_or(|refs| refs.len() <= INLINE_REFS);
        if partial == top && fits {
            let refs = self.levels.pop().unwrap_or_default();
            self.levels.clear();
            return Rest::Done(Content { depth: u8::try_from(top).unwrap_or(u8::MAX), refs });
        }
        match self.take(partial) {
            Some(list) => Rest::Store(list),
            None => Rest::Done(Content { depth: 0, refs: Vec::new() }),
        }
    }

    fn take(&mut self, level: usize) -> Option<FullList> {
        Some(FullList { level: level + 1, refs: std::mem::take(self.levels.get_mut(level)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::walk::{Step, Walker};
    use diaspore_block::id::ChunkId;
    use std::collections::HashMap;

    fn id(n: usize) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        ChunkId::from_bytes(bytes)
    }

    fn build(count: usize) -> (Content, HashMap<ChunkId, Vec<ChunkRef>>) {
        let mut builder = ContentBuilder::default();
        let mut lists = HashMap::new();
        let mut store = |builder: &mut ContentBuilder, list: FullList| {
            assert!(list.refs.len() <= LIST_REFS);
            let list_id = id((1 << 40) | lists.len());
            builder.push(list.level, ChunkRef { id: list_id, len: list.span() }).unwrap();
            lists.insert(list_id, list.refs);
        };
        for n in 0..count {
            builder.push(0, ChunkRef { id: id(n), len: 10 + (n as u64 % 3) }).unwrap();
            while let Some(list) = builder.take_full() {
                store(&mut builder, list);
            }
        }
        loop {
            match builder.finish() {
                Rest::Store(list) => store(&mut builder, list),
                Rest::Done(content) => return (content, lists),
            }
        }
    }

    #[test]
    fn every_count_walks_back_to_its_chunks() {
        for (count, depth) in [(0, 0), (1, 0), (512, 0), (513, 1), (4096, 1), (4097, 1), (20_000, 1), (3_000_000, 2)] {
            let (content, lists) = build(count);
            assert_eq!(usize::from(content.depth), depth, "{count} chunks");
            assert!(content.refs.len() <= INLINE_REFS);
            let total: u64 = content.refs.iter().map(|r| r.len).sum();
            let mut walker = Walker::new(&content, 0..total);
            let mut seen = 0;
            loop {
                match walker.step() {
                    Step::Chunk(piece) => {
                        assert_eq!(piece.id, id(seen));
                        seen += 1;
                    }
                    Step::List(list) => walker.enter(&list, lists[&list.id].clone()).unwrap(),
                    Step::End => break,
                }
            }
            assert_eq!(seen, count);
        }
    }

    #[test]
    fn a_range_loads_only_the_lists_above_it() {
        let (content, lists) = build(3_000_000);
        let total: u64 = content.refs.iter().map(|r| r.len).sum();
        let mut walker = Walker::new(&content, total - 5..total);
        let (mut loaded, mut pieces) = (0, Vec::new());
        loop {
            match walker.step() {
                Step::Chunk(piece) => pieces.push(piece),
                Step::List(list) => {
                    loaded += 1;
                    walker.enter(&list, lists[&list.id].clone()).unwrap();
                }
                Step::End => break,
            }
        }
        assert_eq!(loaded, 2);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].id, id(2_999_999));
        assert_eq!(pieces[0].wanted.end - pieces[0].wanted.start, 5);
    }

    #[test]
    fn a_list_that_lies_about_its_span_is_refused() {
        let (content, _) = build(600);
        let mut walker = Walker::new(&content, 0..100);
        let Step::List(list) = walker.step() else { panic!("depth 1 starts with a list") };
        assert!(walker.enter(&list, vec![ChunkRef { id: id(0), len: list.len - 1 }]).is_err());
        assert!(walker.enter(&list, vec![ChunkRef { id: id(0), len: u64::MAX }, ChunkRef { id: id(0), len: 2 }]).is_err());
    }
}
