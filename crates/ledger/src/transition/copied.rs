//! One copy of a commit block instead of another.
//!
//! A writer that takes over writes the last blocks of the one before it again, as its own. A disk that stood beside the log meanwhile has them
//! as they were first written; but what is written again is what a recovery looks for first, and what was there before may be gone.

use diaspore_block::id::BlockId;

use super::{Transition, joined, meta, read, settle, shard_bytes, write};
use crate::entry::AppliedBlock;
use crate::error::{LedgerError, Result};
use crate::facts::{BlockEntry, ChunkPlace, Totals};
use crate::state::{Changes, Table};

/// Puts `block`, a copy of what was applied at its sequence, in the place of what the map has there. The records are the same, so nothing else
/// changes. Nothing happens where the map has no block any more, or a condemned one.
pub(super) fn take(changes: &mut Changes<'_>, block: &AppliedBlock) -> Result<()> {
    let Some(old) = read::<BlockId>(changes, Table::Commits, &block.seq.get().to_be_bytes())? else { return Ok(()) };
    if changes.has(Table::Blocks, block.facts.id.as_bytes())? || changes.has(Table::Condemned, old.as_bytes())? {
        return Ok(());
    }
    let mut entry: BlockEntry =
        read(changes, Table::Blocks, old.as_bytes())?.ok_or_else(|| LedgerError::corrupt("a commit block without its row"))?;
    let mut totals: Totals = read(changes, Table::Meta, meta::TOTALS)?.unwrap_or_default();
    if !entry.settled {
        settle(changes, &mut totals, &mut entry);
    }
    totals.commit_blocks = totals.commit_blocks.saturating_sub(1);
    totals.sealed_bytes = totals.sealed_bytes.saturating_sub(u64::from(entry.facts.payload_len));
    totals.stored_bytes = totals.stored_bytes.saturating_sub(shard_bytes(&entry.facts));
    for table in [Table::Blocks, Table::Contents, Table::Checks] {
        changes.remove(table, old.as_bytes());
    }
    let mut transition = Transition { changes, block, totals, index: 0, time: entry.time, kept: None };
    for chunk in &block.chunks {
        let key = joined(chunk.bucket.as_bytes(), chunk.id.as_bytes());
        // A chunk that was stored again since is read from there, and one that nobody needed any more is forgotten.
        if read::<ChunkPlace>(transition.changes, Table::Chunks, &key)?.is_some_and(|place| place.block == old) {
            transition.chunk_added(&block.facts, chunk)?;
        }
    }
    transition.block_listed(&block.facts, &block.chunks);
    let Transition { totals, .. } = transition;
    write(changes, Table::Meta, meta::TOTALS, &totals);
    Ok(())
}
