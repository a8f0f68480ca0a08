//! The journal: sealed, append-only segment files, the truth the view is rebuilt from.
//!
//! Two streams. `hold` keeps every commit block as issued (so that the disk counts as a copy until the block is settled) with the marks
//! that go with it; segments of settled blocks are removed. `log` keeps what was applied, in order, and is never removed: it is
//! small, and a view is rebuilt from it without any key but the ledger's.
//!
//! ```text
//! segment  = header(80) entry*
//! header   = "DSPJRNL1" ‖ stream u8 ‖ 0×7 ‖ number u64 ‖ segment id(16) ‖ first ordinal u64 ‖ previous length u64 ‖ 0×8 ‖ mac(16)
//! entry    = frame(40) sealed
//! frame    = "DJEN" ‖ sealed length u32 ‖ ordinal u64 ‖ synced u64 ‖ mac(16)
//! ```
//! Entries are sealed by the block crate's SEAL with a salt each; the context holds segment id and ordinal. Every opening starts a new
//! segment under a drawn id, so two copies of one disk share nothing from then on. `synced` names the first entry that was not known to be
//! durable when this one was written: a broken entry followed by one whose `synced` lies above it is damage, anything else is a torn tail.

use std::sync::Arc;

use diaspore_block::id::DeploymentId;
use diaspore_block::seal::{Context, PREFIX_LEN, Salt, SealType, open_object, seal_object};
use rand::CryptoRng;

use crate::error::{LedgerError, Result};
use crate::fsck::StreamReport;
use crate::medium::{Medium, MediumFile, OpenMode};
use crate::secret::{FRAME_KEY, Secret};

mod segment;

pub(crate) use segment::{HEADER_LEN, Header, Verdict};

#[cfg(test)]
mod tests;

/// A segment is closed once it is longer than this, in bytes.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Room that a disk must have to count as not full any more, in bytes.
const ROOM_BYTES: usize = 1 << 20;
/// Longest entry before sealing, in bytes: a commit block and its manifest fit well.
pub(crate) const MAX_ENTRY_BYTES: usize = 64 << 20;

/// Which of the two sequences of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StreamKind {
    /// Applied entries; never removed.
    Log = 1,
    /// Commit blocks as issued; removed when settled.
    Hold = 2,
}

impl StreamKind {
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Log => "log-",
            Self::Hold => "hold-",
        }
    }
}

/// A place between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Segment number, from 1.
    pub(crate) segment: u64,
    /// Random id of that segment.
    pub(crate) id: [u8; 16],
    /// Byte offset in it.
    pub(crate) offset: u64,
    /// Ordinal of the entry that begins here.
    pub(crate) ordinal: u64,
}

#[derive(Debug)]
struct Tail {
    file: Arc<dyn MediumFile>,
    header: Header,
    len: u64,
}

impl Tail {
    /// Gives back what a failed write took; if that fails too, the next entry overwrites it.
    fn cut(&self) {
        if self.file.set_len(self.len).is_err() {
            tracing::debug!("could not shorten the journal");
        }
    }
}

/// One stream, open for appending at its end.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: StreamKind,
    medium: Arc<dyn Medium>,
    secret: Arc<Secret>,
    mode: OpenMode,
    /// Numbers of all segments, ascending, without gaps.
    numbers: Vec<u64>,
    /// The segment this opening appends to.
    tail: Option<Tail>,
    /// Length of the newest segment when there is no tail yet.
    last_len: u64,
    next_ordinal: u64,
    synced: u64,
}

/// What a sync will make durable; see [`Stream::begin_sync`].
#[derive(Debug)]
pub(crate) struct PendingSync {
    file: Arc<dyn MediumFile>,
    through: u64,
}

impl PendingSync {
    pub(crate) fn run(self) -> Result<u64> {
        self.file.sync().map_err(|_| LedgerError::SyncFailed)?;
        Ok(self.through)
    }
}

impl Stream {
    /// Lists the segments and cuts the newest one behind its last whole entry. Entries are not read otherwise.
    pub(crate) fn open(kind: StreamKind, medium: Arc<dyn Medium>, secret: Arc<Secret>, mode: OpenMode) -> Result<Self> {
        let mut numbers: Vec<u64> = medium.list()?.iter().filter_map(|name| name.strip_prefix(kind.prefix())?.parse().ok()).collect();
        numbers.sort_unstable();
        if let Some(gap) = numbers.windows(2).find_map(|pair| match pair {
            [left, right] if left + 1 != *right => Some(left + 1),
            _ => None,
        }) {
            return Err(LedgerError::corrupt(format!("journal segment {}{gap:010} is missing", kind.prefix())));
        }
        if kind == StreamKind::Log && numbers.first().is_some_and(|first| *first != 1) {
            return Err(LedgerError::corrupt("the first segments of the journal are missing"));
        }
        let mut stream = Self { kind, medium, secret, mode, numbers, tail: None, last_len: 0, next_ordinal: 0, synced: 0 };
        stream.drop_unborn()?;
        stream.cut_tail()?;
        Ok(stream)
    }

    fn name(&self, number: u64) -> String {
        format!("{}{number:010}", self.kind.prefix())
    }

    /// A crash while a segment was created leaves a file without a whole header: it never held an entry.
    fn drop_unborn(&mut self) -> Result<()> {
        let Some(last) = self.numbers.last().copied() else { return Ok(()) };
        let file = self.file(last)?;
        if file.len()? > segment::HEADER_LEN as u64 || self.header(last, file.as_ref()).is_ok() {
            return Ok(());
        }
        self.numbers.pop();
        if self.mode == OpenMode::ReadWrite {
            self.medium.remove(&self.name(last))?;
            self.medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
        }
        Ok(())
    }

    fn cut_tail(&mut self) -> Result<()> {
        let Some(last) = self.numbers.last().copied() else { return Ok(()) };
        let file = self.file(last)?;
        let bytes = read_all(file.as_ref())?;
        let header = Header::parse(&bytes, self.kind, last, &self.secret).ok_or_else(|| self.damage(last, 0))?;
        let walked = segment::walk(&bytes, &header, (segment::HEADER_LEN, header.first_ordinal), &self.secret, &mut |_, _| Ok(()))?;
        match walked.verdict {
            Verdict::Damaged => return Err(self.damage(last, walked.end)),
            Verdict::Torn if self.mode == OpenMode::ReadWrite => {
                tracing::info!(segment = self.name(last), dropped = bytes.len() - walked.end, "dropped the torn end of the journal");
                file.set_len(walked.end as u64)?;
                file.sync().map_err(|_| LedgerError::SyncFailed)?;
            }
            Verdict::Torn | Verdict::Whole => {}
        }
        self.last_len = walked.end as u64;
        self.next_ordinal = walked.next_ordinal;
        self.synced = walked.next_ordinal;
        Ok(())
    }

    fn damage(&self, number: u64, offset: usize) -> LedgerError {
        LedgerError::corrupt(format!("journal segment {} at byte {offset}", self.name(number)))
    }

    fn file(&self, number: u64) -> Result<Arc<dyn MediumFile>> {
        self.medium.open(&self.name(number), false)?.ok_or_else(|| self.damage(number, 0))
    }

    fn header(&self, number: u64, file: &dyn MediumFile) -> Result<Header> {
        let mut bytes = [0; segment::HEADER_LEN];
        file.read_at(0, &mut bytes)?;
        Header::parse(&bytes, self.kind, number, &self.secret).ok_or_else(|| self.damage(number, 0))
    }

    /// Numbers of all segments, oldest first.
    pub(crate) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// True when this opening appends to segment `number`.
    pub(crate) fn is_tail(&self, number: u64) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.header.number == number)
    }

    /// The place of the first entry, or of the next one in an empty stream.
    pub(crate) fn holds(&self, position: &Position) -> bool {
        if !self.numbers.contains(&position.segment) {
            return false;
        }
        let Ok(file) = self.file(position.segment) else { return false };
        let header = self.header(position.segment, file.as_ref());
        let long_enough = file.len().is_ok_and(|len| len >= position.offset);
        header.is_ok_and(|header| header.id == position.id) && long_enough && position.ordinal <= self.next_ordinal
    }

    /// Appends one entry; visible to scans at once, durable after a sync. A full disk leaves the stream as it was.
    pub(crate) fn append(&mut self, plain: &[u8], rng: &mut (dyn CryptoRng + Send)) -> Result<Position> {
        if self.mode == OpenMode::ReadOnly {
            return Err(LedgerError::ReadOnly);
        }
        if plain.len() > MAX_ENTRY_BYTES {
            return Err(LedgerError::Invalid { what: "length of a journal entry (64 MiB)" });
        }
        self.open_segment(rng)?;
        let (ordinal, synced) = (self.next_ordinal, self.synced);
        let Some(tail) = self.tail.as_mut() else { return Err(LedgerError::corrupt("the journal has no open segment")) };
        let context = segment::context(&tail.header, ordinal);
        let sealed = seal_object(self.secret.expose(), Salt::draw(rng), &context, plain)
            .map_err(|error| LedgerError::Io(std::io::Error::other(error)))?;
        let mut entry = segment::frame(&tail.header, sealed.len(), ordinal, synced, &self.secret).to_vec();
        entry.extend_from_slice(&sealed);
        if let Err(error) = tail.file.write_at(tail.len, &entry) {
            tail.cut();
            return Err(error.into());
        }
        tail.len += entry.len() as u64;
        self.next_ordinal += 1;
        Ok(Position { segment: tail.header.number, id: tail.header.id, offset: tail.len, ordinal: self.next_ordinal })
    }

    /// Whether the disk takes more behind the last entry; [`LedgerError::Full`] if not. What is written for it is cut again, and would read
    /// as a torn end.
    pub(crate) fn find_room(&mut self, rng: &mut (dyn CryptoRng + Send)) -> Result<()> {
        self.open_segment(rng)?;
        let Some(tail) = &self.tail else { return Ok(()) };
        let written = tail.file.write_at(tail.len, &vec![0xff; ROOM_BYTES]);
        tail.cut();
        Ok(written?)
    }

    /// Sees to it that there is a segment for the next entry.
    fn open_segment(&mut self, rng: &mut (dyn CryptoRng + Send)) -> Result<()> {
        if self.tail.as_ref().is_none_or(|tail| tail.len >= SEGMENT_BYTES) { self.start_segment(rng) } else { Ok(()) }
    }

    fn start_segment(&mut self, rng: &mut (dyn CryptoRng + Send)) -> Result<()> {
        if let Some(tail) = &self.tail
            && tail.file.len()? > tail.len
        {
            // What a failed write left behind the last entry would read as damage in a closed segment.
            tail.file.set_len(tail.len)?;
        }
        if let Some(pending) = self.begin_sync() {
            let through = pending.run()?;
            self.end_sync(through);
        }
        let previous_len = self.tail.as_ref().map_or(self.last_len, |tail| tail.len);
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let number = self.numbers.last().map_or(1, |last| last + 1);
        let header = Header { number, id, first_ordinal: self.next_ordinal, previous_len };
        let file = self.medium.open(&self.name(number), true)?.ok_or_else(|| self.damage(number, 0))?;
        file.set_len(0)?;
        if let Err(error) = file.write_at(0, &header.encode(self.kind, &self.secret)) {
            self.medium.remove(&self.name(number))?;
            return Err(error.into());
        }
        // The name first reaches the disk with its header: the next sync covers the entries, this one the segment.
        file.sync().map_err(|_| LedgerError::SyncFailed)?;
        self.medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
        self.numbers.push(number);
        self.tail = Some(Tail { file, header, len: segment::HEADER_LEN as u64 });
        Ok(())
    }

    /// What has to be synced, if anything. The sync itself runs without the stream's lock, so that entries queue up for the next.
    pub(crate) fn begin_sync(&self) -> Option<PendingSync> {
        let tail = self.tail.as_ref().filter(|_| self.synced < self.next_ordinal)?;
        Some(PendingSync { file: Arc::clone(&tail.file), through: self.next_ordinal })
    }

    /// Records that everything below `through` is durable.
    pub(crate) fn end_sync(&mut self, through: u64) {
        self.synced = self.synced.max(through);
    }

    /// Shows the entries of segment `number` from `from` on (its start by default), in order, with the place behind each; fails at damage
    /// after having shown what lies before it.
    pub(crate) fn read(&self, number: u64, from: Option<&Position>, visit: &mut dyn FnMut(&[u8], Position) -> Result<()>) -> Result<()> {
        let file = self.file(number)?;
        let bytes = read_all(file.as_ref())?;
        let header = Header::parse(&bytes, self.kind, number, &self.secret).ok_or_else(|| self.damage(number, 0))?;
        let (start, ordinal) = match from {
            Some(position) => (usize::try_from(position.offset).unwrap_or(usize::MAX), position.ordinal),
            None => (segment::HEADER_LEN, header.first_ordinal),
        };
        let mut next = ordinal;
        let walked = segment::walk(&bytes, &header, (start, ordinal), &self.secret, &mut |plain, end| {
            next += 1;
            visit(plain, Position { segment: number, id: header.id, offset: end as u64, ordinal: next })
        })?;
        let newest = self.numbers.last() == Some(&number);
        if walked.verdict != Verdict::Whole && !(newest && walked.verdict == Verdict::Torn) {
            return Err(self.damage(number, walked.end));
        }
        if !newest {
            let next = self.header(number + 1, self.file(number + 1)?.as_ref())?;
            if next.previous_len != walked.end as u64 || next.first_ordinal != walked.next_ordinal {
                return Err(self.damage(number, walked.end));
            }
        }
        Ok(())
    }

    /// Removes the oldest segment, which must not be the one appended to.
    pub(crate) fn remove_oldest(&mut self) -> Result<()> {
        if self.numbers.len() > 1 {
            let oldest = self.numbers.remove(0);
            self.medium.remove(&self.name(oldest))?;
            self.medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
        }
        Ok(())
    }
}

/// Looks at every segment of a stream, whatever state it is in; shows each entry that opens. An entry that `visit` refuses is damage too.
pub(crate) fn examine(
    kind: StreamKind,
    medium: &dyn Medium,
    secret: &Secret,
    visit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<StreamReport> {
    let mut numbers: Vec<u64> = medium.list()?.iter().filter_map(|name| name.strip_prefix(kind.prefix())?.parse().ok()).collect();
    numbers.sort_unstable();
    let name = kind.prefix().trim_end_matches('-').to_owned();
    let mut report = StreamReport { name, segments: numbers.len() as u64, ..StreamReport::default() };
    // Number, ordinal and length that the next segment has to continue; what was removed in front is no gap in the hold.
    let mut behind = if kind == StreamKind::Log { Some((1, 0, 0)) } else { None };
    let newest = numbers.last().copied();
    for number in numbers {
        let Some(file) = medium.open(&format!("{}{number:010}", kind.prefix()), false)? else {
            // Removed while this ran: settled, if it is the hold's.
            report.segments -= 1;
            report.corrupted += u64::from(kind == StreamKind::Log);
            behind = None;
            continue;
        };
        let bytes = read_all(file.as_ref())?;
        report.bytes += bytes.len() as u64;
        let header = Header::parse(&bytes, kind, number, secret);
        let unborn = header.is_none() && newest == Some(number) && bytes.len() <= segment::HEADER_LEN;
        if unborn {
            report.torn_bytes += bytes.len() as u64;
            continue;
        }
        let Some(header) = header else {
            (report.corrupted, behind) = (report.corrupted + 1, None);
            continue;
        };
        let follows = behind.is_none_or(|behind| behind == (number, header.first_ordinal, header.previous_len));
        let mut refused = false;
        let walked = segment::walk(&bytes, &header, (segment::HEADER_LEN, header.first_ordinal), secret, &mut |plain, _| {
            let good = visit(plain).is_ok();
            (report.valid, refused) = (report.valid + u64::from(good), refused || !good);
            Ok(())
        })?;
        let torn = walked.verdict == Verdict::Torn && newest == Some(number);
        if torn {
            report.torn_bytes += (bytes.len() - walked.end) as u64;
        }
        report.corrupted += u64::from(refused || !follows || (walked.verdict != Verdict::Whole && !torn));
        behind = Some((number + 1, walked.next_ordinal, walked.end as u64));
    }
    Ok(report)
}

/// The entries of one segment that come before ordinal `until`, in order. A segment of the hold that is gone was settled and has none.
pub(crate) fn copy_segment(kind: StreamKind, number: u64, medium: &dyn Medium, secret: &Secret, until: u64) -> Result<Vec<Vec<u8>>> {
    let name = format!("{}{number:010}", kind.prefix());
    let damage = || LedgerError::corrupt(format!("journal segment {name}"));
    let Some(file) = medium.open(&name, false)? else {
        return if kind == StreamKind::Hold { Ok(Vec::new()) } else { Err(damage()) };
    };
    let bytes = read_all(file.as_ref())?;
    let header = Header::parse(&bytes, kind, number, secret).ok_or_else(damage)?;
    let (mut entries, mut ordinal) = (Vec::new(), header.first_ordinal);
    let walked = segment::walk(&bytes, &header, (segment::HEADER_LEN, header.first_ordinal), secret, &mut |plain, _| {
        if ordinal < until {
            entries.push(plain.to_vec());
        }
        ordinal += 1;
        Ok(())
    })?;
    // A torn end is a writer at work, or an entry that was never durable.
    if walked.verdict == Verdict::Damaged { Err(damage()) } else { Ok(entries) }
}

fn read_all(file: &dyn MediumFile) -> Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| LedgerError::corrupt("the length of a journal segment"))?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn open(secret: &Secret, context: &Context, sealed: &[u8]) -> Option<Vec<u8>> {
    open_object(secret.expose(), context, sealed, MAX_ENTRY_BYTES, "journal entry").ok()
}

/// Key of the journal below the ledger key.
pub(crate) fn journal_secret(ledger: &Secret) -> Secret {
    ledger.child(FRAME_KEY, &[])
}

/// Shortest sealed form of an entry.
const MIN_SEALED: usize = PREFIX_LEN;
/// The journal is bound to its key, not to a deployment id: the key is the deployment's own.
const NO_DEPLOYMENT: DeploymentId = DeploymentId::NIL;
const SEAL_TYPE: SealType = SealType::Journal;
