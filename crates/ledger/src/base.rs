//! The state as a compacted log holds it: cut into parts on the way out, installed as a base on the way in.
//!
//! Rows are exported as they stand, but for what is this disk's own (its journal's position, its notes about incarnations and keyring,
//! what it last saw of shards) and for what follows from the rest: the newest sequence is the end's, the Merkle log is made anew from its leaves and held against the root
//! that the commit blocks' manifests signed.

use std::ops::{Bound, ControlFlow};

use diaspore_block::codec::encode;
use diaspore_block::compacted::{Row, RowKey, each_row};
use diaspore_block::error::BlockError;
use diaspore_block::id::Seq;
use diaspore_block::limits::MAX_PART;

use crate::entry::{BaseStep, LogHead};
use crate::error::{LedgerError, Result};
use crate::merkle;
use crate::snapshot::{Snapshot, meta};
use crate::state::{Changes, Table};

/// A part is closed at this many bytes where rows only come at its end.
const FULL: usize = 3_000_000;
/// Neighbours that together are no longer than this become one.
const SMALL: usize = FULL / 2;

/// One part of the state, in the encoding of compacted logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePart {
    /// Rows in it; none in an empty state only.
    pub rows: u32,
    /// Their encoding.
    pub plain: Vec<u8>,
    /// Where the next part begins; `None` behind the last row.
    pub end: Option<RowKey>,
}

/// Whether a row stays on this disk.
fn is_local(table: Table, key: &[u8]) -> bool {
    match table {
        Table::Meta => [meta::POSITION, meta::NOTES, meta::KEYRING, meta::MIGRATIONS].contains(&key),
        Table::Incarnations => true,
        _ => false,
    }
}

/// Whether a row is made from others.
fn is_derived(table: Table, key: &[u8]) -> bool {
    table == Table::Nodes || table == Table::Checks || (table == Table::Meta && [meta::APPLIED, meta::LOG, meta::INCOMPLETE].contains(&key))
}

fn table_of(number: u8) -> Result<Table> {
    Table::ALL
        .into_iter()
        .find(|table| *table as u8 == number)
        .ok_or_else(|| LedgerError::corrupt("a compacted log has rows of a table that this build does not know"))
}

/// A part under construction.
struct Cutter<'c> {
    part: BasePart,
    /// Where parts of the compacted log before began, and how long those were.
    cuts: &'c [(RowKey, u32)],
    /// Where to split what grew too long: bytes, rows and the place behind them.
    middle: Option<(usize, u32, RowKey)>,
}

impl Cutter<'_> {
    /// Takes a row, or ends the part before it.
    fn take(&mut self, row: Row<'_>) -> ControlFlow<()> {
        let place = || RowKey { table: row.table, key: row.key.to_vec() };
        while let Some((cut, len)) = self.cuts.first().filter(|(cut, _)| (cut.table, cut.key.as_slice()) <= (row.table, row.key)) {
            self.cuts = self.cuts.get(1..).unwrap_or_default();
            if self.part.rows > 0 && self.part.plain.len().saturating_add(*len as usize) > SMALL {
                self.part.end = Some(cut.clone());
                return ControlFlow::Break(());
            }
        }
        let len = self.part.plain.len() + row.len();
        let grows_inside = self.cuts.first().is_some_and(|(cut, _)| cut.table == row.table);
        if self.part.rows > 0 && len > if grows_inside { MAX_PART } else { FULL } {
            self.part.end = Some(place());
            if let Some((bytes, rows, middle)) = self.middle.take().filter(|_| grows_inside) {
                self.part.plain.truncate(bytes);
                (self.part.rows, self.part.end) = (rows, Some(middle));
            }
            return ControlFlow::Break(());
        }
        if self.middle.is_none() && self.part.plain.len() >= SMALL {
            self.middle = Some((self.part.plain.len(), self.part.rows, place()));
        }
        row.put(&mut self.part.plain);
        self.part.rows += 1;
        ControlFlow::Continue(())
    }
}

impl Snapshot {
    /// The part of the state that begins at `from`, of at most [`MAX_PART`] bytes.
    ///
    /// `cuts` are the places where parts of an earlier compacted log began, behind `from` and in order, with their lengths in bytes: the
    /// part ends at the first of them unless it and the next are small, or it grew too long.
    pub fn base_part(&self, from: &RowKey, cuts: &[(RowKey, u32)]) -> Result<BasePart> {
        let part = BasePart { rows: 0, plain: Vec::new(), end: None };
        let mut cutter = Cutter { part, cuts, middle: None };
        let mut oversized = false;
        for table in Table::ALL.into_iter().filter(|table| *table as u8 >= from.table) {
            let start = if table as u8 == from.table { Bound::Included(from.key.as_slice()) } else { Bound::Unbounded };
            self.state().walk(table, start, &mut |key, value| {
                if is_local(table, key) || is_derived(table, key) {
                    return Ok(ControlFlow::Continue(()));
                }
                let row = Row { table: table as u8, key, value };
                oversized |= row.len() > MAX_PART;
                Ok(cutter.take(row))
            })?;
            if cutter.part.end.is_some() {
                break;
            }
        }
        if oversized { Err(LedgerError::Invalid { what: "length of a row" }) } else { Ok(cutter.part) }
    }

    /// Whether the installing of a base broke off: nothing can be applied before it is begun again.
    pub fn is_incomplete(&self) -> Result<bool> {
        Ok(self.state().get(Table::Meta, meta::INCOMPLETE)?.is_some())
    }
}

/// What one step of installing changes.
pub(crate) fn step(changes: &mut Changes<'_>, step: &BaseStep) -> Result<()> {
    match step {
        BaseStep::Begin => begin(changes),
        BaseStep::Rows(plain) => add(changes, plain),
        BaseStep::End { covers, log } => end(changes, *covers, *log),
    }
}

/// Everything goes but what is this disk's own.
fn begin(changes: &mut Changes<'_>) -> Result<()> {
    let mut names = Vec::new();
    changes.base().walk(Table::Meta, Bound::Unbounded, &mut |key, _| {
        names.extend((!is_local(Table::Meta, key)).then(|| key.to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    for name in names {
        changes.remove(Table::Meta, &name);
    }
    changes.clear(|table| table != Table::Meta && !is_local(table, &[]));
    changes.put(Table::Meta, meta::INCOMPLETE, Vec::new());
    Ok(())
}

fn add(changes: &mut Changes<'_>, plain: &[u8]) -> Result<()> {
    if !changes.has(Table::Meta, meta::INCOMPLETE)? {
        return Err(LedgerError::Invalid { what: "rows outside a base" });
    }
    let (mut leaves, first): (Vec<Vec<u8>>, u64) = (Vec::new(), merkle::edge(changes)?.size());
    each_row(plain, |row| {
        let table = table_of(row.table)?;
        if is_local(table, row.key) || is_derived(table, row.key) {
            return Err(Refusal(LedgerError::corrupt("a compacted log has rows that do not belong into one")));
        }
        if table == Table::Leaves {
            if row.key != (first + leaves.len() as u64).to_be_bytes() {
                return Err(Refusal(LedgerError::corrupt("a compacted log lacks leaves")));
            }
            leaves.push(row.value.to_vec());
        } else {
            changes.put(table, row.key, row.value.to_vec());
        }
        Ok(())
    })
    .map_err(|refusal: Refusal| refusal.0)?;
    if !leaves.is_empty() {
        merkle::append_bytes(changes, leaves.iter().map(Vec::as_slice))?;
    }
    Ok(())
}

fn end(changes: &mut Changes<'_>, covers: Seq, log: LogHead) -> Result<()> {
    let tree = merkle::edge(changes)?;
    if !changes.has(Table::Meta, meta::INCOMPLETE)? {
        return Err(LedgerError::Invalid { what: "the end of a base outside one" });
    }
    if tree.size() != log.size || tree.root() != log.root {
        return Err(LedgerError::Refused { seq: covers.get(), index: 0, what: "the base does not give the log that it stands for" });
    }
    changes.remove(Table::Meta, meta::INCOMPLETE);
    // An empty base is an empty state: as if nothing had ever been written.
    if covers > Seq(0) {
        changes.put(Table::Meta, meta::APPLIED, encode(&covers));
    }
    Ok(())
}

/// An error of the visitor of rows, or of the rows themselves.
struct Refusal(LedgerError);

impl From<BlockError> for Refusal {
    fn from(_: BlockError) -> Self {
        Self(LedgerError::corrupt("the rows of a compacted log do not decode"))
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self(error)
    }
}

#[cfg(test)]
mod tests;
