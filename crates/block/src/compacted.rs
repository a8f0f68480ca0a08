//! Compacted logs: the ledger's rows at one position of the log, cut by ranges of their keys into parts, and the root that names them.
//!
//! Parts and root are blocks of kind [`BlockKind::Compacted`](crate::manifest::BlockKind::Compacted) with one section of the service.
//! What a row means is the ledger's business; here are its order, its framing and the checks that a reader makes.

use rand::CryptoRng;

use crate::codec::{Field, Reader, fields, length};
use crate::commit::open_whole;
use crate::compress::{Probe, compress, decompress};
use crate::error::{BlockError, Result};
use crate::geometry::{Geometry, max_payload};
use crate::id::{Attempt, BlockId, Counter, Hash32, IncarnationId, KeyVersion, Seq, TenantId};
use crate::key::Keyring;
use crate::limits::{BULK_SEGMENT_LOG2, COMPACTED_VERSION, MAX_PART};
use crate::manifest::{BlockKind, BlockPosition, Manifest};
use crate::record::{Encoding, SectionInfo};
use crate::seal::{PREFIX_LEN, plain_len, sealed_len};
use crate::section::{PayloadBuilder, SealedPayload};

const ROOT: &str = "root of a compacted log";
const PART: &str = "part of a compacted log";

fields! {
    /// A place in the order of all rows: tables first, then keys as byte strings.
    #[derive(PartialOrd, Ord, Default)]
    pub struct RowKey {
        /// Number of the table.
        pub table: u8,
        /// Key in it.
        pub key: Vec<u8>,
    }
}
fields! {
    /// Which block: enough to find its shards, and to know it from any other.
    pub struct BlockRef {
        /// Its id.
        pub block: BlockId,
        /// Whose counter.
        pub incarnation: IncarnationId,
        /// Its index among that incarnation's bulk blocks.
        pub counter: Counter,
        /// Which coding.
        pub attempt: Attempt,
        /// Shards.
        pub geometry: Geometry,
        /// Hash of its manifest.
        pub manifest_hash: Hash32,
    }
}
fields! {
    /// One part: the rows from `first` up to, and without, the first row of the next.
    pub struct PartInfo {
        /// Where it begins.
        pub first: RowKey,
        /// Rows in it.
        pub rows: u32,
        /// Length of its plain bytes.
        pub plain_len: u32,
        /// How its stored bytes are made from them.
        pub encoding: Encoding,
        /// BLAKE3 of the plain bytes: a later compacted log refers to a part that did not change.
        pub content: Hash32,
        /// Where it is.
        pub block: BlockRef,
    }
}
fields! {
    /// What a compacted log consists of.
    pub struct CompactedRoot {
        /// It stands for every record up to here.
        pub covers: Seq,
        /// Writer of the commit block at that position.
        pub incarnation: IncarnationId,
        /// That block's index in its incarnation: a reader goes on behind it.
        pub counter: Counter,
        /// Leaves of the log at that position.
        pub log_size: u64,
        /// Root of the log at that position.
        pub log_root: Hash32,
        /// Every sequence up to here was acknowledged when this was written.
        pub acked_through: Seq,
        /// The parts in order; together they hold all rows.
        pub parts: Vec<PartInfo>,
    }
}

impl BlockRef {
    /// What a signed block is known by.
    pub fn of(manifest: &Manifest) -> Self {
        let BlockPosition { block, incarnation, counter, attempt, .. } = manifest.position;
        Self { block, incarnation, counter, attempt, geometry: manifest.geometry, manifest_hash: manifest.hash() }
    }
}

impl CompactedRoot {
    /// The plaintext of the root block.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if !self.is_plausible() {
            return Err(BlockError::Invalid { what: ROOT });
        }
        let mut out = vec![COMPACTED_VERSION];
        self.put(&mut out);
        Ok(out)
    }

    /// Reads a root block's plaintext and checks that its numbers fit each other.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes, ROOT);
        let version: u8 = r.value()?;
        if version > COMPACTED_VERSION {
            return Err(BlockError::Unsupported { what: ROOT, version });
        }
        let root: Self = r.value()?;
        if version == 0 || !root.is_plausible() {
            return Err(r.malformed());
        }
        r.finish()?;
        Ok(root)
    }

    /// Where the part behind `index` begins; `None` for the last.
    pub fn end_of(&self, index: usize) -> Option<&RowKey> {
        self.parts.get(index.checked_add(1)?).map(|part| &part.first)
    }

    fn is_plausible(&self) -> bool {
        let ascending = self.parts.is_sorted_by(|one, two| one.first < two.first);
        let whole = self.parts.first().is_some_and(|part| part.first == RowKey::default());
        let sound = |part: &PartInfo| part.plain_len > 0 && part.plain_len as usize <= MAX_PART && part.block.attempt.0 < Attempt::COUNT;
        self.covers > Seq(0) && self.log_size > 0 && self.covers <= self.acked_through && ascending && whole && self.parts.iter().all(sound)
    }
}

/// One row, borrowed from its part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Row<'p> {
    /// Number of the table.
    pub table: u8,
    /// Key in it.
    pub key: &'p [u8],
    /// What stands there.
    pub value: &'p [u8],
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Row(table {}, {} and {} bytes)", self.table, self.key.len(), self.value.len())
    }
}

impl Row<'_> {
    /// Bytes it takes in a part.
    pub const fn len(&self) -> usize {
        1 + 4 + self.key.len() + 4 + self.value.len()
    }

    /// Never: a row has a table at least.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Appends it to the plain bytes of a part.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(self.table);
        for bytes in [self.key, self.value] {
            length(bytes.len()).put(out);
            out.extend_from_slice(bytes);
        }
    }
}

/// Visits the rows of a part's plain bytes in order; refuses what is not made of rows in strict order. `visit` may fail on its own.
pub fn each_row<E: From<BlockError>>(
    plain: &[u8],
    mut visit: impl FnMut(Row<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut r = Reader::new(plain, PART);
    let mut last: Option<(u8, &[u8])> = None;
    while r.remaining() > 0 {
        let table = r.value()?;
        let mut bytes = || {
            let len = r.value::<u32>()? as usize;
            r.take(len)
        };
        let (key, value) = (bytes()?, bytes()?);
        if last.is_some_and(|last| last >= (table, key)) {
            return Err(r.malformed().into());
        }
        last = Some((table, key));
        visit(Row { table, key, value })?;
    }
    Ok(())
}

impl PartInfo {
    /// The plain bytes of this part out of its block's plaintext: hash, count and order of the rows, and that they lie between `first` and
    /// `end`, are checked.
    pub fn unpack(&self, stored: Vec<u8>, end: Option<&RowKey>) -> Result<Vec<u8>> {
        let malformed = BlockError::Malformed { what: PART };
        let plain = match self.encoding {
            Encoding::Raw => stored,
            Encoding::ZstdFramed => decompress(&stored, self.plain_len as usize)?,
        };
        if plain.len() != self.plain_len as usize || content_of(&plain) != self.content {
            return Err(BlockError::Contradiction { what: PART });
        }
        let mut rows = 0u32;
        each_row(&plain, |row| {
            let at = (row.table, row.key);
            let inside = at >= (self.first.table, &self.first.key) && end.is_none_or(|end| at < (end.table, &end.key));
            rows = rows.saturating_add(1);
            if inside { Ok(()) } else { Err(malformed.clone()) }
        })?;
        if rows == self.rows { Ok(plain) } else { Err(malformed) }
    }
}

/// What two parts with the same rows have in common.
pub fn content_of(plain: &[u8]) -> Hash32 {
    Hash32::from_bytes(*blake3::hash(plain).as_bytes())
}

/// The stored form of a part's plain bytes.
pub fn pack(plain: &[u8]) -> Result<(Encoding, Vec<u8>)> {
    Ok(match compress(plain, &mut Probe::default())? {
        Some(stored) => (Encoding::ZstdFramed, stored),
        None => (Encoding::Raw, plain.to_vec()),
    })
}

/// Seals the plaintext of a part or a root for its block, `k` of whose shards rebuild it.
pub fn seal(plain: &[u8], at: &BlockPosition, k: u8, keys: &Keyring, rng: &mut (impl CryptoRng + ?Sized)) -> Result<SealedPayload> {
    let limit = max_payload(k);
    let whole = sealed_len(plain.len() as u64, BULK_SEGMENT_LOG2);
    let capacity = usize::try_from(whole).ok().filter(|len| *len <= limit);
    let mut builder = PayloadBuilder::new(limit, capacity.ok_or(BlockError::Full { wanted: whole, room: limit as u64 })?);
    builder.begin(TenantId::SYSTEM, KeyVersion(0), BULK_SEGMENT_LOG2)?;
    builder.push(plain)?;
    builder.seal(at, keys, rng)
}

/// Opens the payload of a part's or a root's block.
pub fn open(manifest: &Manifest, payload: &[u8], keys: &Keyring) -> Result<Vec<u8>> {
    let malformed = BlockError::Malformed { what: PART };
    let plain = plain_len(payload.len() as u64, BULK_SEGMENT_LOG2).and_then(|plain| u32::try_from(plain).ok());
    let (Some(plain_len), Some(prefix), BlockKind::Compacted) = (plain, payload.first_chunk::<PREFIX_LEN>(), manifest.position.kind) else {
        return Err(malformed);
    };
    let section = SectionInfo {
        tenant: TenantId::SYSTEM,
        key_version: KeyVersion(0),
        offset: 0,
        plain_len,
        seg_log2: BULK_SEGMENT_LOG2,
        prefix: *prefix,
    };
    open_whole(&manifest.position, 0, &section, payload, keys)
}

#[cfg(test)]
mod tests;
