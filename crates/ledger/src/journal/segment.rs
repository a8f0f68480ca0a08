use diaspore_block::seal::Context;

use super::{MIN_SEALED, NO_DEPLOYMENT, SEAL_TYPE, StreamKind, open};
use crate::error::Result;
use crate::secret::Secret;

/// Bytes in front of a segment's first entry.
pub(crate) const HEADER_LEN: usize = 80;
const HEADER_BODY: usize = HEADER_LEN - MAC_LEN;
const FRAME_LEN: usize = 40;
const FRAME_BODY: usize = FRAME_LEN - MAC_LEN;
const MAC_LEN: usize = 16;
const MAGIC: &[u8; 8] = b"DSPJRNL1";
const FRAME_MAGIC: &[u8; 4] = b"DJEN";
const HEADER_DOMAIN: &[u8] = b"diaspore journal segment v1";
const FRAME_DOMAIN: &[u8] = b"diaspore journal frame v1";

/// First bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// Drawn when the segment was started.
    pub(crate) id: [u8; 16],
    pub(crate) first_ordinal: u64,
    /// Length the segment before it has, in bytes.
    pub(crate) previous_len: u64,
}

impl Header {
    fn body(&self, kind: StreamKind) -> [u8; HEADER_BODY] {
        let mut out = Vec::with_capacity(HEADER_BODY);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.first_ordinal.to_be_bytes());
        out.extend_from_slice(&self.previous_len.to_be_bytes());
        out.resize(HEADER_BODY, 0);
        let mut body = [0; HEADER_BODY];
        body.copy_from_slice(&out);
        body
    }

    pub(crate) fn encode(&self, kind: StreamKind, secret: &Secret) -> [u8; HEADER_LEN] {
        let body = self.body(kind);
        let mut out = [0; HEADER_LEN];
        let (front, mac) = out.split_at_mut(HEADER_BODY);
        front.copy_from_slice(&body);
        mac.copy_from_slice(&secret.mac(HEADER_DOMAIN, &body));
        out
    }

    /// The header, when it is authentic and belongs to segment `number` of this stream.
    pub(crate) fn parse(bytes: &[u8], kind: StreamKind, number: u64, secret: &Secret) -> Option<Self> {
        let u64_at = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let header =
            Self { number: u64_at(16)?, id: bytes.get(24..40)?.try_into().ok()?, first_ordinal: u64_at(40)?, previous_len: u64_at(48)? };
        (header.number == number && bytes.get(..HEADER_LEN)? == header.encode(kind, secret)).then_some(header)
    }
}

/// What an entry is sealed for: its segment and ordinal.
pub(crate) fn context(header: &Header, ordinal: u64) -> Context {
    Context::new(SEAL_TYPE, NO_DEPLOYMENT).field(&header.id).field(&header.number.to_be_bytes()).field(&ordinal.to_be_bytes())
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    sealed_len: usize,
    ordinal: u64,
    synced: u64,
}

fn frame_mac(header: &Header, body: &[u8], secret: &Secret) -> [u8; MAC_LEN] {
    let mut input = header.id.to_vec();
    input.extend_from_slice(body);
    secret.mac(FRAME_DOMAIN, &input)
}

/// The bytes in front of a sealed entry.
pub(crate) fn frame(header: &Header, sealed_len: usize, ordinal: u64, synced: u64, secret: &Secret) -> [u8; FRAME_LEN] {
    let mut out = Vec::with_capacity(FRAME_LEN);
    out.extend_from_slice(FRAME_MAGIC);
    out.extend_from_slice(&u32::try_from(sealed_len).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&ordinal.to_be_bytes());
    out.extend_from_slice(&synced.to_be_bytes());
    let mac = frame_mac(header, &out, secret);
    out.extend_from_slice(&mac);
    let mut frame = [0; FRAME_LEN];
    frame.copy_from_slice(&out);
    frame
}

fn parse_frame(bytes: &[u8], at: usize, header: &Header, secret: &Secret) -> Option<Frame> {
    let frame = bytes.get(at..at + FRAME_LEN)?;
    let (body, mac) = frame.split_at_checked(FRAME_BODY)?;
    if !body.starts_with(FRAME_MAGIC) || mac != frame_mac(header, body, secret) {
        return None;
    }
    let u64_at = |at: usize| body.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let sealed_len = u32::from_be_bytes(body.get(4..8)?.try_into().ok()?);
    Some(Frame { sealed_len: usize::try_from(sealed_len).ok()?, ordinal: u64_at(8)?, synced: u64_at(16)? })
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With a whole entry.
    Whole,
    /// With bytes of an unfinished, never synced group of entries.
    Torn,
    /// A broken entry lies below one that was written after it had been synced.
    Damaged,
}

#[derive(Debug)]
pub(crate) struct Walked {
    /// Offset behind the last whole entry.
    pub(crate) end: usize,
    pub(crate) next_ordinal: u64,
    pub(crate) verdict: Verdict,
}

/// Opens the entries from `start` on, in order, as far as they authenticate; `visit` sees each with the offset behind it.
pub(crate) fn walk(
    bytes: &[u8],
    header: &Header,
    (start, ordinal): (usize, u64),
    secret: &Secret,
    visit: &mut dyn FnMut(&[u8], usize) -> Result<()>,
) -> Result<Walked> {
    let mut walked = Walked { end: start, next_ordinal: ordinal, verdict: Verdict::Whole };
    while walked.end < bytes.len() {
        let Some((plain, end)) = whole_entry(bytes, walked.end, header, walked.next_ordinal, secret) else {
            walked.verdict = judge_end(bytes, &walked, header, secret);
            return Ok(walked);
        };
        visit(&plain, end)?;
        walked.end = end;
        walked.next_ordinal += 1;
    }
    if start > bytes.len() {
        walked.verdict = Verdict::Damaged;
    }
    Ok(walked)
}

fn whole_entry(bytes: &[u8], at: usize, header: &Header, ordinal: u64, secret: &Secret) -> Option<(Vec<u8>, usize)> {
    let frame = parse_frame(bytes, at, header, secret).filter(|frame| frame.ordinal == ordinal)?;
    let start = at + FRAME_LEN;
    let end = start.checked_add(frame.sealed_len)?;
    let sealed = bytes.get(start..end).filter(|sealed| sealed.len() >= MIN_SEALED)?;
    Some((open(secret, &context(header, ordinal), sealed)?, end))
}

/// A later frame whose writer already knew the broken entry to be durable makes it damage.
fn judge_end(bytes: &[u8], walked: &Walked, header: &Header, secret: &Secret) -> Verdict {
    let rest = bytes.get(walked.end..).unwrap_or_default();
    let known_durable = rest
        .windows(FRAME_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == FRAME_MAGIC)
        .filter_map(|(at, _)| parse_frame(bytes, walked.end + at, header, secret))
        .any(|frame| frame.synced > walked.next_ordinal);
    if known_durable { Verdict::Damaged } else { Verdict::Torn }
}
