//! The last changes to a set of objects: what a stale listing has not heard of, and what a swap may answer with.

use std::collections::VecDeque;

/// How many changes an endpoint remembers for [`crate::Misbehaviour::StaleList`] and swaps.
pub const RECENT_CHANGES: usize = 1024;

/// A change: the key, and what was there before (`None` for a creation).
#[derive(Debug)]
pub(crate) struct Change<M> {
    /// Key of the object.
    pub(crate) key: String,
    /// State before.
    pub(crate) before: Option<M>,
}

/// A bounded memory of changes, newest last.
#[derive(Debug)]
pub(crate) struct Recent<M> {
    changes: VecDeque<Change<M>>,
}

impl<M> Default for Recent<M> {
    fn default() -> Self {
        Self { changes: VecDeque::new() }
    }
}

impl<M> Recent<M> {
    /// Remembers that `key` changed from `before`.
    pub(crate) fn note(&mut self, key: &str, before: Option<M>) {
        if self.changes.len() >= RECENT_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { key: key.to_owned(), before });
    }

    /// The last `behind` changes, newest first: undoing them in this order gives the older state.
    pub(crate) fn last(&self, behind: u32) -> impl Iterator<Item = &Change<M>> {
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        self.changes.iter().rev().take(behind)
    }

    /// A recently changed key other than `key`, chosen by `draw`.
    pub(crate) fn other(&self, key: &str, draw: u64) -> Option<&str> {
        let others: Vec<&str> = self.changes.iter().map(|change| change.key.as_str()).filter(|other| *other != key).collect();
        let count = u64::try_from(others.len()).ok().filter(|count| *count > 0)?;
        others.get(usize::try_from(draw % count).unwrap_or(0)).copied()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
    }
}
