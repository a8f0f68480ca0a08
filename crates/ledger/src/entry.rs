//! What goes into the journal: the engine's own entries, and the applied blocks the ledger adds itself.

use bytes::Bytes;
use diaspore_block::codec::{Field, Reader};
use diaspore_block::id::{Attempt, BlockId, Counter, Hash32, IncarnationId, Seq};
use diaspore_block::record::{ChunkEntry, Placement, Record};

use crate::error::{LedgerError, Result};
use crate::facts::{BlockFacts, IncarnationNote, KeyringCopy, fields};

/// One thing the writer notes before (or after) it acts.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalEntry {
    /// A commit block as issued, before its first PUT. Kept until the block is settled.
    Block(IssuedBlock),
    /// A commit block was released: k + 1 acknowledgements in `attempt`, fence held.
    Released(ReleasedNote),
    /// Shards of a block were acknowledged; it is settled once all n are.
    Settled {
        /// Which block.
        block: BlockId,
        /// Its shards as known now.
        placements: Vec<Placement>,
    },
    /// This writer claimed an incarnation.
    Chain(IncarnationNote),
    /// Blocks of an incarnation from `from` on are beyond its last valid sequence: scans leave them out.
    Dropped {
        /// Which incarnation.
        incarnation: IncarnationId,
        /// First dropped counter.
        from: Counter,
    },
    /// The sealed keyring, for starting without a provider.
    Keyring(KeyringCopy),
    /// This store has another schema since here.
    Migrated {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// A step of installing a state that a compacted log holds.
    Base(BaseStep),
    /// A later writer wrote an applied block again: where it is read from, and looked after, from here on.
    Copied(Box<AppliedBlock>),
}

/// Installing a state in place of what is there: its rows come between a beginning and an end.
#[derive(Clone, PartialEq, Eq)]
pub enum BaseStep {
    /// Everything goes that is not this disk's own, and nothing can be applied until the end.
    Begin,
    /// Rows in the encoding of compacted logs, behind those that came before.
    Rows(Bytes),
    /// The state is whole; it is refused unless it gives this.
    End {
        /// Its newest applied sequence; 0 for an empty state.
        covers: Seq,
        /// Its log.
        log: LogHead,
    },
}

impl std::fmt::Debug for BaseStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Begin => f.write_str("Begin"),
            Self::Rows(plain) => write!(f, "Rows({} bytes)", plain.len()),
            Self::End { covers, .. } => write!(f, "End({covers})"),
        }
    }
}

impl std::fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Block(_) => "JournalEntry::Block(redacted)",
            Self::Released(_) => "JournalEntry::Released(redacted)",
            Self::Settled { .. } => "JournalEntry::Settled(redacted)",
            Self::Chain(_) => "JournalEntry::Chain",
            Self::Dropped { .. } => "JournalEntry::Dropped",
            Self::Keyring(_) => "JournalEntry::Keyring(redacted)",
            Self::Migrated { .. } => "JournalEntry::Migrated",
            Self::Base(_) => "JournalEntry::Base(redacted)",
            Self::Copied(_) => "JournalEntry::Copied(redacted)",
        })
    }
}

/// A commit block as issued: enough to send it again, or to carry it over.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedBlock {
    /// Its position in the log.
    pub seq: Seq,
    /// Who issued it.
    pub incarnation: IncarnationId,
    /// Its index in that incarnation.
    pub counter: Counter,
    /// Which coding.
    pub attempt: Attempt,
    /// Block id.
    pub block: BlockId,
    /// Encoded manifest and whatever the engine keeps beside it (signature, shard roots).
    pub manifest: Bytes,
    /// Sealed payload as coded.
    pub payload: Bytes,
}

impl std::fmt::Debug for IssuedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuedBlock(seq {}, counter {}, attempt {})", self.seq, self.counter, self.attempt)
    }
}

fields! {
    /// The mark of a release.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ReleasedNote {
        /// Which block.
        pub seq: Seq,
        /// Whose.
        pub incarnation: IncarnationId,
        /// The attempt that counted.
        pub attempt: Attempt,
        /// Acknowledged shards.
        pub placements: Vec<Placement>,
    }
}

fields! {
    /// Size and root of the Merkle log.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LogHead {
        /// Number of leaves.
        pub size: u64,
        /// RFC 6962 root over them.
        pub root: Hash32,
    }
}

fields! {
    /// A commit block that belongs to the log: what `apply` takes, live, at restart and in recovery.
    ///
    /// `records` is the block's record list in order (all sections), `chunks` the chunk tables of its sections, `facts` the block
    /// itself, with its placements as far as they are known.
    #[derive(Clone, PartialEq, Eq)]
    pub struct AppliedBlock {
        /// Position in the log.
        pub seq: Seq,
        /// The commit block that carries the records.
        pub facts: BlockFacts,
        /// Its records in order.
        pub records: Vec<Record>,
        /// Its small chunks.
        pub chunks: Vec<ChunkEntry>,
        /// Log head its manifest states (after this block's leaves); checked when present.
        pub log: Option<LogHead>,
    }
}

impl std::fmt::Debug for AppliedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppliedBlock(seq {}, {} records)", self.seq, self.records.len())
    }
}

/// Everything a stream can hold.
#[derive(Debug)]
pub(crate) enum Entry {
    Applied(Box<AppliedBlock>),
    Noted(JournalEntry),
}

/// An entry on its way into the view, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'e> {
    Applied(&'e AppliedBlock),
    Noted(&'e JournalEntry),
}

impl Entry {
    pub(crate) fn step(&self) -> Step<'_> {
        match self {
            Self::Applied(block) => Step::Applied(block),
            Self::Noted(note) => Step::Noted(note),
        }
    }
}

const APPLIED: u8 = 1;
const SETTLED: u8 = 2;
const RELEASED: u8 = 3;
const CHAIN: u8 = 4;
const DROPPED: u8 = 5;
const KEYRING: u8 = 6;
const BLOCK: u8 = 7;
const MIGRATED: u8 = 8;
const BASE_BEGIN: u8 = 9;
const BASE_ROWS: u8 = 10;
const BASE_END: u8 = 11;
const COPIED: u8 = 12;

/// The encoding of an applied block.
pub(crate) fn encode_applied(block: &AppliedBlock) -> Vec<u8> {
    let mut out = vec![APPLIED];
    block.put(&mut out);
    out
}

impl JournalEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Block(block) => {
                out.reserve(128 + block.manifest.len() + block.payload.len());
                out.push(BLOCK);
                block.seq.put(&mut out);
                block.incarnation.put(&mut out);
                block.counter.put(&mut out);
                block.attempt.put(&mut out);
                block.block.put(&mut out);
                (block.manifest.len() as u64).put(&mut out);
                out.extend_from_slice(&block.manifest);
                out.extend_from_slice(&block.payload);
            }
            Self::Released(note) => {
                out.push(RELEASED);
                note.put(&mut out);
            }
            Self::Settled { block, placements } => {
                out.push(SETTLED);
                block.put(&mut out);
                placements.put(&mut out);
            }
            Self::Chain(note) => {
                out.push(CHAIN);
                note.put(&mut out);
            }
            Self::Dropped { incarnation, from } => {
                out.push(DROPPED);
                incarnation.put(&mut out);
                from.put(&mut out);
            }
            Self::Keyring(copy) => {
                out.push(KEYRING);
                copy.put(&mut out);
            }
            Self::Migrated { from, to } => {
                out.push(MIGRATED);
                from.put(&mut out);
                to.put(&mut out);
            }
            Self::Base(BaseStep::Begin) => out.push(BASE_BEGIN),
            Self::Base(BaseStep::Rows(plain)) => {
                out.reserve(1 + plain.len());
                out.push(BASE_ROWS);
                out.extend_from_slice(plain);
            }
            Self::Base(BaseStep::End { covers, log }) => {
                out.push(BASE_END);
                covers.put(&mut out);
                log.put(&mut out);
            }
            Self::Copied(block) => {
                out.push(COPIED);
                block.put(&mut out);
            }
        }
        out
    }
}

fn decode_parts(reader: &mut Reader<'_>) -> diaspore_block::Result<Entry> {
    let noted = match reader.value::<u8>()? {
        APPLIED => return Ok(Entry::Applied(Box::new(reader.value()?))),
        SETTLED => JournalEntry::Settled { block: reader.value()?, placements: reader.value()? },
        RELEASED => JournalEntry::Released(reader.value()?),
        CHAIN => JournalEntry::Chain(reader.value()?),
        DROPPED => JournalEntry::Dropped { incarnation: reader.value()?, from: reader.value()? },
        KEYRING => JournalEntry::Keyring(reader.value()?),
        MIGRATED => JournalEntry::Migrated { from: reader.value()?, to: reader.value()? },
        BASE_BEGIN => JournalEntry::Base(BaseStep::Begin),
        BASE_ROWS => JournalEntry::Base(BaseStep::Rows(Bytes::copy_from_slice(reader.take(reader.remaining())?))),
        BASE_END => JournalEntry::Base(BaseStep::End { covers: reader.value()?, log: reader.value()? }),
        COPIED => JournalEntry::Copied(Box::new(reader.value()?)),
        BLOCK => {
            let (seq, incarnation, counter) = (reader.value()?, reader.value()?, reader.value()?);
            let (attempt, block) = (reader.value()?, reader.value()?);
            let manifest_len = usize::try_from(reader.value::<u64>()?).map_err(|_| reader.malformed())?;
            let manifest = Bytes::copy_from_slice(reader.take(manifest_len)?);
            let payload = Bytes::copy_from_slice(reader.take(reader.remaining())?);
            JournalEntry::Block(IssuedBlock { seq, incarnation, counter, attempt, block, manifest, payload })
        }
        _ => return Err(reader.malformed()),
    };
    Ok(Entry::Noted(noted))
}

/// Decodes what an authentic journal entry holds.
pub(crate) fn decode(bytes: &[u8]) -> Result<Entry> {
    let mut reader = Reader::new(bytes, "journal entry");
    decode_parts(&mut reader)
        .and_then(|entry| reader.finish().map(|()| entry))
        .map_err(|_| LedgerError::corrupt("a journal entry does not decode"))
}
