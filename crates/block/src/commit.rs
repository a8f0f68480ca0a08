//! The body of a commit block: records, and the small chunks they name.
//!
//! Section 0 belongs to the service: section table, all public parts in order, and the private parts of the service's own
//! records, sealed under the log key. Each tenant has one section more, in order of tenant id: its private parts, its
//! chunk table and its chunk bytes, sealed under its key. One list of records gives one list of leaves, whatever the
//! attempt or the incarnation.

use std::collections::BTreeMap;

use rand::CryptoRng;

use crate::codec::{Field, Reader, length};
use crate::error::{BlockError, Result};
use crate::id::{BucketId, ChunkId, Hash32, KeyVersion, TenantId};
use crate::key::{Keyring, ReferenceKey};
use crate::limits::{COMMIT_SEGMENT_LOG2, COMMIT_VERSION, MAX_PRIVATE, MAX_RECORDS, MAX_SECTIONS};
use crate::manifest::{BlockPosition, Manifest};
use crate::record::{ChunkEntry, Encoding, PUBLIC_LEN, PublicPart, Record, SectionInfo};
use crate::seal::{Opener, PREFIX_LEN, sealed_len};
use crate::section::{PayloadBuilder, SealedPayload, open_section, section_span};

const WHAT: &str = "commit body";
const PRIVATE_HEAD: usize = 4 + 32 + 4;

/// Small chunks of one tenant, with the bytes they are stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TenantChunks {
    key_version: KeyVersion,
    /// Offsets count from the first chunk byte while the body is open, from the section's plaintext once it is sealed.
    entries: Vec<ChunkEntry>,
    bytes: Vec<u8>,
}

/// What a commit block carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitBody {
    records: Vec<Record>,
    encoded: Vec<Vec<u8>>,
    tenants: BTreeMap<TenantId, TenantChunks>,
}

/// A commit body as it came out of a block, with the places of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedCommit {
    /// The body: records in order, chunks as they were stored.
    pub body: CommitBody,
    /// Sections of the payload; the service's own is the first.
    pub sections: Vec<SectionInfo>,
    /// Where the small chunks lie, offsets counted in their section's plaintext.
    pub chunks: Vec<(TenantId, ChunkEntry)>,
}

impl CommitBody {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record; `key_version` is its tenant's current generation (ignored for the service itself).
    pub fn push_record(&mut self, record: Record, key_version: KeyVersion) -> Result<()> {
        let encoded = record.encode_private();
        if self.records.len() >= MAX_RECORDS || encoded.len() > MAX_PRIVATE {
            return Err(BlockError::Full { wanted: encoded.len() as u64, room: MAX_PRIVATE as u64 });
        }
        let tenant = record.tenant();
        if !record.private().belongs_to(tenant) {
            return Err(BlockError::Invalid { what: "section of a record" });
        }
        // Written, it could not be read again: the log would end here for good.
        record.private().check().map_err(|_| BlockError::Invalid { what: "fields of a record" })?;
        if tenant != TenantId::SYSTEM {
            self.section_of(tenant, key_version)?;
        }
        self.records.push(record);
        self.encoded.push(encoded);
        Ok(())
    }

    /// Appends a small chunk in its stored form.
    pub fn push_chunk(
        &mut self,
        tenant: TenantId,
        key_version: KeyVersion,
        bucket: BucketId,
        id: ChunkId,
        (plain_len, encoding): (u32, Encoding),
        stored: &[u8],
    ) -> Result<()> {
        let mut entry = ChunkEntry { bucket, id, section: 0, offset: 0, stored_len: length(stored.len()), plain_len, encoding };
        if tenant == TenantId::SYSTEM || !entry.is_plausible() {
            return Err(BlockError::Invalid { what: "small chunk" });
        }
        let chunks = self.section_of(tenant, key_version)?;
        let full = BlockError::Full { wanted: stored.len() as u64, room: 0 };
        entry.offset = u32::try_from(chunks.bytes.len()).map_err(|_| full)?;
        chunks.entries.push(entry);
        chunks.bytes.extend_from_slice(stored);
        Ok(())
    }

    fn section_of(&mut self, tenant: TenantId, key_version: KeyVersion) -> Result<&mut TenantChunks> {
        if !self.tenants.contains_key(&tenant) && self.tenants.len() + 1 >= MAX_SECTIONS {
            return Err(BlockError::Full { wanted: 1, room: 0 });
        }
        let fresh = || TenantChunks { key_version, entries: Vec::new(), bytes: Vec::new() };
        let section = self.tenants.entry(tenant).or_insert_with(fresh);
        if section.key_version == key_version {
            Ok(section)
        } else {
            Err(BlockError::Invalid { what: "second key generation of a tenant in one commit block" })
        }
    }

    /// The records in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The leaves this block adds to the log, in order.
    pub fn leaves(&self) -> impl Iterator<Item = Hash32> {
        self.records.iter().map(|record| record.public().leaf())
    }

    /// The chunks of one tenant with their stored bytes.
    pub fn chunks(&self) -> impl Iterator<Item = (TenantId, &ChunkEntry, &[u8])> {
        self.tenants.iter().flat_map(|(tenant, chunks)| {
            chunks.entries.iter().filter_map(move |entry| {
                let start = entry.offset as usize;
                Some((*tenant, entry, chunks.bytes.get(start..start + entry.stored_len as usize)?))
            })
        })
    }

    /// Bytes of the payload this body seals to: for deciding when a block is full.
    pub fn sealed_len(&self) -> u64 {
        let sections = std::iter::once(self.system_len()).chain(self.tenants.keys().map(|tenant| self.tenant_len(*tenant)));
        sections.map(|plain| sealed_len(plain, COMMIT_SEGMENT_LOG2)).sum()
    }

    fn privates_len(&self, tenant: TenantId) -> u64 {
        let own = self.records.iter().zip(&self.encoded).filter(|(record, _)| record.tenant() == tenant);
        4 + own.map(|(_, encoded)| (PRIVATE_HEAD + encoded.len()) as u64).sum::<u64>()
    }

    fn system_len(&self) -> u64 {
        let table = 1 + 1 + self.tenants.len() * SectionInfo::MIN_LEN;
        (table + 4 + self.records.len() * PUBLIC_LEN) as u64 + self.privates_len(TenantId::SYSTEM)
    }

    fn tenant_len(&self, tenant: TenantId) -> u64 {
        let chunks = self.tenants.get(&tenant).map_or(0, |c| c.entries.len() * ChunkEntry::MIN_LEN + c.bytes.len());
        self.privates_len(tenant) + 4 + chunks as u64
    }

    fn put_privates(&self, tenant: TenantId, out: &mut Vec<u8>) {
        let own = || (0u32..).zip(self.records.iter().zip(&self.encoded)).filter(|(_, (r, _))| r.tenant() == tenant);
        length(own().count()).put(out);
        for (index, (record, encoded)) in own() {
            index.put(out);
            record.blind().put(out);
            length(encoded.len()).put(out);
            out.extend_from_slice(encoded);
        }
    }

    /// Seals the body for one attempt. Gives the payload and the plain length of section 0, which the manifest names.
    pub fn seal(
        &self,
        at: &BlockPosition,
        keys: &Keyring,
        limit: usize,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(SealedPayload, u32)> {
        let whole = self.sealed_len();
        let capacity = usize::try_from(whole).ok().filter(|len| *len <= limit);
        let capacity = capacity.ok_or(BlockError::Full { wanted: whole, room: limit as u64 })?;
        let mut builder = PayloadBuilder::new(limit, capacity);
        // The table of section 0 names salts and commitments of the others: it is written last, over zeros.
        builder.begin(TenantId::SYSTEM, KeyVersion(0), COMMIT_SEGMENT_LOG2)?;
        let table_len = 2 + self.tenants.len() * SectionInfo::MIN_LEN;
        let mut plain = vec![0; table_len];
        length(self.records.len()).put(&mut plain);
        for record in &self.records {
            record.public().put(&mut plain);
        }
        self.put_privates(TenantId::SYSTEM, &mut plain);
        let first_len = length(plain.len());
        builder.push(&plain)?;
        for (tenant, chunks) in &self.tenants {
            let section = builder.begin(*tenant, chunks.key_version, COMMIT_SEGMENT_LOG2)?;
            plain.clear();
            self.put_privates(*tenant, &mut plain);
            length(chunks.entries.len()).put(&mut plain);
            let base = length(plain.len() + chunks.entries.len() * ChunkEntry::MIN_LEN);
            for entry in &chunks.entries {
                let offset = entry.offset.checked_add(base).ok_or(BlockError::Invalid { what: "small chunk" })?;
                ChunkEntry { section, offset, ..entry.clone() }.put(&mut plain);
            }
            builder.push(&plain)?;
            builder.push(&chunks.bytes)?;
        }
        let mut table = vec![COMMIT_VERSION, u8::try_from(self.tenants.len()).unwrap_or(u8::MAX)];
        let mut sections = Vec::with_capacity(self.tenants.len() + 1);
        for index in 1..=self.tenants.len() {
            let section = builder.seal_section(index, at, keys, rng)?;
            section.put(&mut table);
            sections.push(section);
        }
        builder.overwrite(0, 0, &table)?;
        sections.insert(0, builder.seal_section(0, at, keys, rng)?);
        Ok((SealedPayload { bytes: builder.into_bytes(), sections }, first_len))
    }

    /// Opens the payload of a commit or decision block that belongs to `manifest`. Fails with `KeyMissing` if the keyring does not
    /// open all of it; see [`CommitBody::open_partly`].
    pub fn open(manifest: &Manifest, payload: &[u8], keys: &Keyring) -> Result<OpenedCommit> {
        Self::open_partly(manifest, payload, keys)?.whole()
    }

    /// Opens what the keyring has keys for. Of a tenant that was shredded the leaves remain, and nothing else.
    ///
    /// The format demands it of every reader. As long as nothing takes keys out of a keyring, replay asks for whole bodies with
    /// [`CommitBody::open`]: there a missing key is an old keyring or damage, and a ledger without those records would be wrong.
    pub fn open_partly(manifest: &Manifest, payload: &[u8], keys: &Keyring) -> Result<PartlyOpened> {
        let at = &manifest.position;
        let malformed = BlockError::Malformed { what: WHAT };
        if !at.kind.has_records() || payload.len() as u64 != u64::from(manifest.payload_len) {
            return Err(malformed);
        }
        let prefix = *payload.first_chunk::<PREFIX_LEN>().ok_or(malformed.clone())?;
        let first = SectionInfo {
            tenant: TenantId::SYSTEM,
            key_version: KeyVersion(0),
            offset: 0,
            plain_len: manifest.first_section_len,
            seg_log2: COMMIT_SEGMENT_LOG2,
            prefix,
        };
        let plain = open_whole(at, 0, &first, payload, keys)?;
        let mut r = Reader::new(&plain, WHAT);
        let mut sections = open_table(&mut r, &first, manifest.payload_len)?;
        let publics: Vec<PublicPart> = r.value()?;
        if publics.len() > MAX_RECORDS {
            return Err(malformed);
        }
        let mut records: Vec<OpenedRecord> = publics.into_iter().map(OpenedRecord::Shredded).collect();
        take_privates(&mut r, (TenantId::SYSTEM, &keys.reference), &mut records)?;
        r.finish()?;
        let (mut tenants, mut chunks, mut shredded) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (index, section) in (1u8..).zip(&sections) {
            let plain = match open_whole(at, index, section, payload, keys) {
                Err(BlockError::KeyMissing { tenant, version }) => {
                    shredded.push((tenant, version));
                    continue;
                }
                opened => opened?,
            };
            let mut r = Reader::new(&plain, WHAT);
            let own = take_privates(&mut r, (section.tenant, keys.reference_key(section.tenant)?), &mut records)?;
            let mut entries: Vec<ChunkEntry> = r.value()?;
            let bytes = r.take(r.remaining())?;
            if own == 0 && entries.is_empty() {
                return Err(malformed);
            }
            let base = length(plain.len() - bytes.len());
            let mut end = base;
            for entry in &mut entries {
                // Stored bytes follow each other without gaps: nothing can hide between them.
                if entry.section != index || entry.offset != end || !entry.is_plausible() {
                    return Err(malformed);
                }
                end = end.checked_add(entry.stored_len).ok_or(malformed.clone())?;
                chunks.push((section.tenant, entry.clone()));
                entry.section = 0;
                entry.offset -= base;
            }
            if end as usize != plain.len() {
                return Err(malformed);
            }
            let own = TenantChunks { key_version: section.key_version, entries, bytes: bytes.to_vec() };
            tenants.insert(section.tenant, own);
        }
        // A private part that is nowhere is excused only by a section that could not be opened.
        if shredded.is_empty() && records.iter().any(|record| matches!(record, OpenedRecord::Shredded(_))) {
            return Err(malformed);
        }
        sections.insert(0, first);
        Ok(PartlyOpened { records, sections, chunks, shredded, tenants })
    }
}

/// A record as far as the keyring opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost every record is whole: a box for each would cost more than the rare leaf wastes")]
pub enum OpenedRecord {
    /// Both parts.
    Whole(Record),
    /// Only its leaf: the key of its section is gone.
    Shredded(PublicPart),
}

impl OpenedRecord {
    /// The leaf, which nothing takes away.
    pub const fn public(&self) -> &PublicPart {
        match self {
            Self::Whole(record) => record.public(),
            Self::Shredded(public) => public,
        }
    }
}

/// A commit body as far as the keyring opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartlyOpened {
    /// Every record in order.
    pub records: Vec<OpenedRecord>,
    /// Sections of the payload; the service's own is the first.
    pub sections: Vec<SectionInfo>,
    /// Where the small chunks lie, offsets counted in their section's plaintext.
    pub chunks: Vec<(TenantId, ChunkEntry)>,
    /// Tenants and key versions of the sections that did not open.
    pub shredded: Vec<(TenantId, KeyVersion)>,
    tenants: BTreeMap<TenantId, TenantChunks>,
}

impl PartlyOpened {
    /// The whole body, if every section was opened.
    pub fn whole(self) -> Result<OpenedCommit> {
        if let Some((tenant, version)) = self.shredded.first().copied() {
            return Err(BlockError::KeyMissing { tenant, version });
        }
        let whole = |record| match record {
            OpenedRecord::Whole(record) => Some(record),
            OpenedRecord::Shredded(_) => None,
        };
        let records = self.records.into_iter().map(whole).collect::<Option<Vec<Record>>>();
        let records = records.ok_or(BlockError::Malformed { what: WHAT })?;
        let encoded = records.iter().map(Record::encode_private).collect();
        let body = CommitBody { records, encoded, tenants: self.tenants };
        Ok(OpenedCommit { body, sections: self.sections, chunks: self.chunks })
    }
}

/// Opens one whole section out of a payload.
pub fn open_whole(at: &BlockPosition, index: u8, section: &SectionInfo, payload: &[u8], keys: &Keyring) -> Result<Vec<u8>> {
    let malformed = BlockError::Malformed { what: "section" };
    let opener: Opener = open_section(at, index, section, keys)?;
    let sealed = payload.get(section.offset as usize..).ok_or(malformed.clone())?;
    let (prefix, body) = sealed.split_first_chunk::<PREFIX_LEN>().ok_or(malformed.clone())?;
    // The entry's copy opens the section; the payload's own must say the same, or one block would have two readings.
    if *prefix != section.prefix {
        return Err(BlockError::NotAuthentic { what: "section" });
    }
    let (_, within) = section_span(section, 0..section.plain_len)?;
    let len = usize::try_from(within.sealed.end - within.sealed.start).map_err(|_| malformed.clone())?;
    opener.open_span(&within, body.get(..len).ok_or(malformed)?)
}

/// The section table: sections lie one after the other, tenants ascending, and fill the payload.
fn open_table(r: &mut Reader<'_>, first: &SectionInfo, payload_len: u32) -> Result<Vec<SectionInfo>> {
    let version: u8 = r.value()?;
    if version > COMMIT_VERSION {
        return Err(BlockError::Unsupported { what: WHAT, version });
    }
    let count: u8 = r.value()?;
    if version == 0 || usize::from(count) >= MAX_SECTIONS {
        return Err(r.malformed());
    }
    let sections = (0..count).map(|_| r.value()).collect::<Result<Vec<SectionInfo>>>()?;
    let mut end = first.sealed_len();
    let mut last = TenantId::SYSTEM;
    for section in &sections {
        let in_order = section.tenant > last && u64::from(section.offset) == end;
        if !in_order || section.seg_log2 != COMMIT_SEGMENT_LOG2 || !section.is_within(payload_len) {
            return Err(r.malformed());
        }
        end += section.sealed_len();
        last = section.tenant;
    }
    if end == u64::from(payload_len) { Ok(sections) } else { Err(r.malformed()) }
}

/// Reads the private parts of one section and joins each with its public part; every index once, ascending. Gives their number.
fn take_privates(r: &mut Reader<'_>, (tenant, key): (TenantId, &ReferenceKey), records: &mut [OpenedRecord]) -> Result<u32> {
    let count = r.value::<u32>()?;
    let mut next = 0u32;
    for _ in 0..count {
        let index: u32 = r.value()?;
        let blind = r.value()?;
        let len = r.value::<u32>()? as usize;
        if len > MAX_PRIVATE || index < next {
            return Err(r.malformed());
        }
        let private = r.take(len)?;
        let Some(place) = records.get_mut(index as usize) else { return Err(r.malformed()) };
        let OpenedRecord::Shredded(public) = *place else { return Err(r.malformed()) };
        let record = Record::from_parts(tenant, public, blind, private)?;
        if !record.has_references_of(key) {
            return Err(BlockError::Contradiction { what: "references of a record" });
        }
        *place = OpenedRecord::Whole(record);
        next = index.saturating_add(1);
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
