//! Sections: a tenant's bytes in a block, written around the gaps their tags will take, and sealed in place.

use std::ops::Range;

use rand::CryptoRng;
use zeroize::Zeroize;

use crate::error::{BlockError, Result};
use crate::id::{KeyVersion, TenantId};
use crate::key::Keyring;
use crate::limits::{MAX_SECTIONS, SEGMENT_LOG2_RANGE};
use crate::manifest::BlockPosition;
use crate::record::SectionInfo;
use crate::seal::{Context, Opener, PREFIX_LEN, Salt, SealType, Span, TAG_LEN, seal_in_place, sealed_len, span};

/// What a section's seal is bound to: deployment, block, incarnation, counter, attempt, kind, index, tenant and key
/// generation; the plaintext's length and the segment length are in every SEAL context.
pub fn section_context(at: &BlockPosition, index: u8, tenant: TenantId, key_version: KeyVersion, seg_log2: u8) -> Context {
    Context::new(SealType::Section, at.deployment)
        .segments(seg_log2)
        .field(at.block.as_bytes())
        .field(at.incarnation.as_bytes())
        .field(&at.counter.0.to_be_bytes())
        .field(&[at.attempt.0, at.kind.to_u8(), index])
        .field(tenant.as_bytes())
        .field(&key_version.0.to_be_bytes())
}

#[derive(Debug)]
struct Draft {
    tenant: TenantId,
    key_version: KeyVersion,
    seg_log2: u8,
    offset: usize,
    plain_len: u64,
}

/// Collects the plain sections of one payload.
///
/// Bytes are copied once, to the place where they will be sealed; memory is that of the payload.
#[derive(Debug)]
pub struct PayloadBuilder {
    buffer: Vec<u8>,
    sections: Vec<Draft>,
    limit: usize,
}

/// A payload: its sections sealed, nothing coded yet.
#[derive(Debug)]
pub struct SealedPayload {
    /// The sealed sections, one after the other.
    pub bytes: Vec<u8>,
    /// Where each section lies and what opens it.
    pub sections: Vec<SectionInfo>,
}

impl PayloadBuilder {
    /// An empty payload of at most `limit` bytes once sealed; `capacity` bytes are reserved at once. With
    /// `shard_len_for(limit, k) * k` reserved, coding never moves the payload.
    pub fn new(limit: usize, capacity: usize) -> Self {
        Self::reusing(Vec::new(), limit, capacity)
    }

    /// The same in memory that was used before; what it holds is dropped.
    pub fn reusing(mut buffer: Vec<u8>, limit: usize, capacity: usize) -> Self {
        buffer.clear();
        buffer.reserve_exact(capacity);
        Self { buffer, sections: Vec::new(), limit }
    }

    /// Starts the next section and gives its index.
    pub fn begin(&mut self, tenant: TenantId, key_version: KeyVersion, seg_log2: u8) -> Result<u8> {
        if !SEGMENT_LOG2_RANGE.contains(&seg_log2) {
            return Err(BlockError::Invalid { what: "segment length" });
        }
        let index = u8::try_from(self.sections.len()).ok().filter(|i| usize::from(*i) < MAX_SECTIONS);
        let (index, room) = index
            .zip(self.limit.checked_sub(self.buffer.len() + PREFIX_LEN))
            .ok_or(BlockError::Full { wanted: PREFIX_LEN as u64, room: self.limit.saturating_sub(self.buffer.len()) as u64 })?;
        debug_assert!(room <= self.limit, "the limit bounds what is left");
        let offset = self.buffer.len();
        self.buffer.resize(offset + PREFIX_LEN, 0);
        self.sections.push(Draft { tenant, key_version, seg_log2, offset, plain_len: 0 });
        Ok(index)
    }

    /// Plain bytes the current section still takes.
    pub fn room(&self) -> u64 {
        let Some(draft) = self.sections.last() else { return 0 };
        let left = self.limit.saturating_sub(self.buffer.len()) as u64;
        let in_segment = draft.plain_len & ((1 << draft.seg_log2) - 1);
        let open = if in_segment == 0 { 0 } else { (1 << draft.seg_log2) - in_segment };
        if left <= open {
            return left;
        }
        let stride = (1 << draft.seg_log2) + TAG_LEN as u64;
        let rest = left - open;
        open + rest / stride * (stride - TAG_LEN as u64) + (rest % stride).saturating_sub(TAG_LEN as u64)
    }

    /// Appends plain bytes to the current section and gives their offset in its plaintext.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<u32> {
        let room = self.room();
        let full = BlockError::Full { wanted: bytes.len() as u64, room };
        let draft = self.sections.last_mut().ok_or(full.clone())?;
        let offset = u32::try_from(draft.plain_len).map_err(|_| full.clone())?;
        if bytes.len() as u64 > room || draft.plain_len + bytes.len() as u64 > u64::from(u32::MAX) {
            return Err(full);
        }
        let segment: u64 = 1 << draft.seg_log2;
        while !bytes.is_empty() {
            let in_segment = draft.plain_len & (segment - 1);
            let take = usize::try_from(segment - in_segment).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            if in_segment > 0 {
                // The gap for the open segment's tag is at the end of the buffer: move it behind the new bytes.
                self.buffer.truncate(self.buffer.len() - TAG_LEN);
            }
            self.buffer.extend_from_slice(now);
            self.buffer.extend_from_slice(&[0; TAG_LEN]);
            draft.plain_len += take as u64;
            bytes = later;
        }
        Ok(offset)
    }

    /// Bytes of the payload so far, as sealed.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.sections.iter().all(|draft| draft.plain_len == 0)
    }

    /// Seals every section in place, each under its own fresh salt.
    pub fn seal(mut self, at: &BlockPosition, keys: &Keyring, rng: &mut (impl CryptoRng + ?Sized)) -> Result<SealedPayload> {
        let mut sections = Vec::with_capacity(self.sections.len());
        for index in 0..self.sections.len() {
            sections.push(self.seal_section(index, at, keys, rng)?);
        }
        Ok(SealedPayload { bytes: std::mem::take(&mut self.buffer), sections })
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn seal_section(
        &mut self,
        index: usize,
        at: &BlockPosition,
        keys: &Keyring,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<SectionInfo> {
        let invalid = BlockError::Invalid { what: "section" };
        let Draft { tenant, key_version, seg_log2, offset, plain_len } = *self.sections.get(index).ok_or(invalid.clone())?;
        let len = usize::try_from(sealed_len(plain_len, seg_log2)).map_err(|_| invalid.clone())?;
        let place = self.buffer.get_mut(offset..offset + len).ok_or(invalid.clone())?;
        let number = u8::try_from(index).map_err(|_| invalid.clone())?;
        let context = section_context(at, number, tenant, key_version, seg_log2);
        seal_in_place(keys.section_key(tenant, key_version)?, Salt::draw(rng), &context, place)?;
        let prefix = *place.first_chunk::<PREFIX_LEN>().ok_or(invalid.clone())?;
        let offset = u32::try_from(offset).map_err(|_| invalid.clone())?;
        let plain_len = u32::try_from(plain_len).map_err(|_| invalid)?;
        Ok(SectionInfo { tenant, key_version, offset, plain_len, seg_log2, prefix })
    }

    /// Writes over plain bytes already pushed; for a table whose content is known only after the rest is sealed.
    pub(crate) fn overwrite(&mut self, section: usize, plain_offset: u64, bytes: &[u8]) -> Result<()> {
        let invalid = BlockError::Invalid { what: "section" };
        let draft = self.sections.get(section).ok_or(invalid.clone())?;
        if plain_offset + bytes.len() as u64 > draft.plain_len {
            return Err(invalid);
        }
        for (at, byte) in (plain_offset..).zip(bytes) {
            let place = draft.offset as u64 + PREFIX_LEN as u64 + at + (at >> draft.seg_log2) * TAG_LEN as u64;
            let place = usize::try_from(place).ok().and_then(|place| self.buffer.get_mut(place)).ok_or(invalid.clone())?;
            *place = *byte;
        }
        Ok(())
    }
}

/// A payload that was never sealed holds plaintext: it leaves none in freed memory.
impl Drop for PayloadBuilder {
    fn drop(&mut self) {
        self.buffer.as_mut_slice().zeroize();
    }
}

/// Which payload bytes hold a plaintext range of a section: whole segments, counted from the payload's first byte.
pub fn section_span(section: &SectionInfo, plain: Range<u32>) -> Result<(Range<u64>, Span)> {
    let within = span(u64::from(plain.start)..u64::from(plain.end), u64::from(section.plain_len), section.seg_log2)?;
    let base = u64::from(section.offset);
    Ok((base + within.sealed.start..base + within.sealed.end, within))
}

/// Opens a section by its entry, which holds salt and commitment: no byte in front of the wanted segments is needed.
pub fn open_section(at: &BlockPosition, index: u8, section: &SectionInfo, keys: &Keyring) -> Result<Opener> {
    if !SEGMENT_LOG2_RANGE.contains(&section.seg_log2) {
        return Err(BlockError::Malformed { what: "section" });
    }
    let key = keys.section_key(section.tenant, section.key_version)?;
    let context = section_context(at, index, section.tenant, section.key_version, section.seg_log2);
    Opener::new(key, &context, u64::from(section.plain_len), &section.prefix, "section")
}

#[cfg(test)]
mod tests;
