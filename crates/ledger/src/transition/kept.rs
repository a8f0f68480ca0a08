//! What must not be condemned whatever a record says (PROTOCOL rule 12): it is what a recovery begins with.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use diaspore_block::id::{BlockId, Seq};
use diaspore_block::manifest::BlockKind;
use diaspore_block::record::LogCompacted;

use crate::error::Result;
use crate::facts::{BlockEntry, ChainEntry, CompactionEntry};
use crate::snapshot::decode;
use crate::state::{Changes, State, Table};

/// Compacted logs that the state remembers: the two that are kept, and one before them until the newest counts.
const REMEMBERED: usize = 3;

/// What the remembered compacted logs keep.
pub(super) struct Kept {
    /// What the older of the two newest covers; 0 when there are fewer.
    floor: Seq,
    /// The newest decision at or below that; 0 when there is none.
    decision: Seq,
    /// Roots and parts.
    blocks: BTreeSet<BlockId>,
}

impl Kept {
    pub(super) fn in_state(changes: &Changes<'_>) -> Result<Self> {
        let rows = rows(changes.base())?;
        let floor = rows.iter().rev().nth(1).map_or(Seq(0), |entry| entry.compacted.covers);
        let mut decision = Seq(0);
        changes.base().walk(Table::Chain, Bound::Unbounded, &mut |_, value| {
            let entry: ChainEntry = decode(value, Table::Chain.name())?;
            decision = if entry.seq <= floor { decision.max(entry.seq) } else { decision };
            Ok(ControlFlow::Continue(()))
        })?;
        let blocks = rows.into_iter().flat_map(|entry| entry.compacted.parts.into_iter().chain([entry.compacted.root])).collect();
        Ok(Self { floor, decision, blocks })
    }

    /// What lies above the floor stays, and of the decisions below it the newest, also where it was carried over: it began the incarnation
    /// in which the older compacted log stands, and without it that one's long life looks like one that never began. No walk from the present
    /// to that place reads an older one.
    pub(super) fn keeps(&self, block: &BlockEntry) -> bool {
        match block.facts.kind {
            BlockKind::Commit | BlockKind::Decision => block.seq > self.floor || block.seq == self.decision,
            BlockKind::Compacted => self.blocks.contains(&block.facts.id),
            BlockKind::Bulk => false,
        }
    }
}

fn rows(state: &dyn State) -> Result<Vec<CompactionEntry>> {
    let mut rows = Vec::new();
    state.walk(Table::Compactions, Bound::Unbounded, &mut |_, value| {
        rows.push(decode(value, Table::Compactions.name())?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rows)
}

/// Remembers a compacted log, and forgets those that are too old.
pub(super) fn remember(changes: &mut Changes<'_>, entry: &CompactionEntry) -> Result<()> {
    let key = |compacted: &LogCompacted| compacted.covers.get().to_be_bytes();
    let mut known: Vec<LogCompacted> = rows(changes.base())?.into_iter().map(|entry| entry.compacted).collect();
    known.retain(|old| old.covers < entry.compacted.covers);
    let surplus = (known.len() + 1).saturating_sub(REMEMBERED);
    for old in known.iter().take(surplus) {
        changes.remove(Table::Compactions, &key(old));
    }
    changes.put(Table::Compactions, &key(&entry.compacted), diaspore_block::codec::encode(entry));
    Ok(())
}
