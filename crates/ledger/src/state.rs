//! The view as the transition and the reads see it: ordered tables of bytes.
//!
//! Two implementations: a redb transaction (`view`) and [`Model`], a sorted map, which the tests hold against it.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::error::Result;

/// The tables and the order of their keys. Keys begin with an index wherever there is one: appends touch few pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Table {
    /// Fixed names: position, totals, log size and peaks, keyring.
    Meta = 0,
    /// Tenant id.
    Tenants = 1,
    /// Tenant name -> id.
    TenantNames = 2,
    /// Tenant id, bucket name.
    Buckets = 3,
    /// Bucket id -> tenant id, name.
    BucketIds = 4,
    /// Bucket id, blob key.
    Blobs = 5,
    /// Bucket id, chunk id.
    Chunks = 6,
    /// Block id.
    Blocks = 7,
    /// Sequence -> id of its commit block.
    Commits = 8,
    /// Sequence that brought a block that is not settled, block id.
    Unsettled = 9,
    /// Leaf index -> public part.
    Leaves = 10,
    /// Level, index -> hash of a complete subtree of the Merkle log.
    Nodes = 11,
    /// Hash of an idempotency key.
    Idempotency = 12,
    /// Time, hash of an idempotency key: what expires first.
    IdempotencyByTime = 13,
    /// Principal id.
    ApiKeys = 14,
    /// Sequence of a decision.
    Chain = 15,
    /// Number of a note about this writer's own incarnations.
    Incarnations = 16,
    /// Block id -> the chunks that it brought.
    Contents = 17,
    /// Block id of a condemned block.
    Condemned = 18,
    /// Sequence that a compacted log covers.
    Compactions = 19,
    /// Provider name.
    Providers = 20,
    /// Block id -> what was last seen of its shards. The one table that is no part of the log's state: it is written without the
    /// journal, and gone when the view is made anew.
    Checks = 21,
}

impl Table {
    pub(crate) const ALL: [Self; 22] = [
        Self::Meta,
        Self::Tenants,
        Self::TenantNames,
        Self::Buckets,
        Self::BucketIds,
        Self::Blobs,
        Self::Chunks,
        Self::Blocks,
        Self::Commits,
        Self::Unsettled,
        Self::Leaves,
        Self::Nodes,
        Self::Idempotency,
        Self::IdempotencyByTime,
        Self::ApiKeys,
        Self::Chain,
        Self::Incarnations,
        Self::Contents,
        Self::Condemned,
        Self::Compactions,
        Self::Providers,
        Self::Checks,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tenants => "tenants",
            Self::TenantNames => "tenant names",
            Self::Buckets => "buckets",
            Self::BucketIds => "bucket ids",
            Self::Blobs => "blobs",
            Self::Chunks => "chunks",
            Self::Blocks => "blocks",
            Self::Commits => "commits",
            Self::Unsettled => "unsettled",
            Self::Leaves => "leaves",
            Self::Nodes => "nodes",
            Self::Idempotency => "idempotency",
            Self::IdempotencyByTime => "idempotency by time",
            Self::ApiKeys => "api keys",
            Self::Chain => "chain",
            Self::Incarnations => "incarnations",
            Self::Contents => "contents",
            Self::Condemned => "condemned blocks",
            Self::Compactions => "compacted logs",
            Self::Providers => "providers",
            Self::Checks => "checks",
        }
    }
}

/// Sees one entry of a range; [`ControlFlow::Break`] ends the walk.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'v;

/// Reading the tables.
pub(crate) trait State {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Walks entries from `start` upward.
    fn walk(&self, table: Table, start: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;

    /// Walks entries whose key begins with `prefix`.
    fn walk_prefix(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.walk(table, Bound::Included(prefix), &mut |key, value| {
            if key.starts_with(prefix) { visit(key, value) } else { Ok(ControlFlow::Break(())) }
        })
    }
}

type Cells = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Changes on top of a state: reads see them first. `None` is a removal.
pub(crate) struct Changes<'s> {
    base: &'s dyn State,
    cells: Cells,
    /// Tables that lose all their rows before the cells are written.
    cleared: Vec<Table>,
}

impl<'s> Changes<'s> {
    pub(crate) fn new(base: &'s dyn State) -> Self {
        Self { base, cells: Cells::new(), cleared: Vec::new() }
    }

    /// The state below the changes.
    pub(crate) fn base(&self) -> &'s dyn State {
        self.base
    }

    /// Empties whole tables, before anything else that is changed here. Reads through the changes do not see it.
    pub(crate) fn clear(&mut self, which: impl Fn(Table) -> bool) {
        self.cleared.extend(Table::ALL.into_iter().filter(|table| which(*table)));
    }

    /// The tables to empty.
    pub(crate) fn cleared(&self) -> &[Table] {
        &self.cleared
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.cells.insert((table, key.to_vec()), Some(value));
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.cells.insert((table, key.to_vec()), None);
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.cells.get(&(table, key.to_vec())) {
            Some(cell) => Ok(cell.clone()),
            None => self.base.get(table, key),
        }
    }

    pub(crate) fn has(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.get(table, key)?.is_some())
    }

    /// Whether any key begins with `prefix`, changes included.
    pub(crate) fn has_prefix(&self, table: Table, prefix: &[u8]) -> Result<bool> {
        let from = (table, prefix.to_vec());
        let added =
            self.cells.range(from..).take_while(|((at, key), _)| *at == table && key.starts_with(prefix)).any(|(_, cell)| cell.is_some());
        if added {
            return Ok(true);
        }
        let mut found = false;
        self.base.walk_prefix(table, prefix, &mut |key, _| {
            // Anything here that this batch removes does not count.
            if self.cells.contains_key(&(table, key.to_vec())) {
                return Ok(ControlFlow::Continue(()));
            }
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Keys of `table` below `end`, at most `limit`, in the base state only.
    pub(crate) fn base_keys_below(&self, table: Table, end: &[u8], limit: usize) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.base.walk(table, Bound::Unbounded, &mut |key, _| {
            if key >= end || keys.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    /// The changes in table and key order.
    pub(crate) fn into_cells(self) -> Cells {
        self.cells
    }
}

/// The tables as one sorted map.
#[cfg(test)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

#[cfg(test)]
impl Model {
    pub(crate) fn absorb(&mut self, cells: Cells) {
        for (place, cell) in cells {
            match cell {
                Some(value) => drop(self.0.insert(place, value)),
                None => drop(self.0.remove(&place)),
            }
        }
    }
}

#[cfg(test)]
impl State for Model {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn walk(&self, table: Table, start: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let start = match start {
            Bound::Included(key) => Bound::Included((table, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((table, key.to_vec())),
            Bound::Unbounded => Bound::Included((table, Vec::new())),
        };
        for ((at, key), value) in self.0.range((start, Bound::Unbounded)) {
            if *at != table || visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
