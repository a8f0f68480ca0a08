//! A whole ledger as one stream of sealed frames: made beside the running writer, restored into an empty place.
//!
//! ```text
//! backup = "DSPBKUP1" ‖ salt(24) ‖ frame*
//! frame  = length u32 ‖ sealed(kind u8 ‖ content)
//! head   = schema u32 ‖ applied sequence u64 ‖ log size u64 ‖ log root(32)
//! log    = entry*    hold = entry*    entry = length u32 ‖ journal entry
//! end    = entries of the log u64 ‖ entries of the hold u64
//! ```
//! What is copied is the journal, up to the place that one snapshot of the view was made from; the view is made anew from it. Frames are
//! sealed under a key of this backup's own, below the ledger key, each for its number: none can be left out, moved or taken from another
//! backup, and a copy without its end is refused. A restored ledger is a disk that was rolled back: its start catches up with the providers.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use diaspore_block::codec::{Field, Reader, encode};
use diaspore_block::id::{DeploymentId, Hash32, Seq};
use diaspore_block::key::LedgerKey;
use diaspore_block::seal::{Context, Salt, SealType, open_object, seal_object};
use rand::CryptoRng;

use crate::error::{LedgerError, Result};
use crate::facts::fields;
use crate::identity::{self, SCHEMA};
use crate::journal::{self, MAX_ENTRY_BYTES, Position, Stream, StreamKind, journal_secret};
use crate::ledger::Ledger;
use crate::medium::{Medium, OpenMode};
use crate::secret::{BACKUP_KEY, Secret};
use crate::snapshot::decode;
use crate::view::CACHE_BYTES;

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"DSPBKUP1";
const SALT_LEN: usize = 24;
/// Plain bytes after which a frame is closed.
const FRAME_BYTES: usize = 1 << 20;
/// Longest frame read.
const MAX_FRAME: usize = MAX_ENTRY_BYTES + FRAME_BYTES + (1 << 16);

const HEAD: u8 = 0;
const END: u8 = 3;

fields! {
    /// What a backup holds.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BackupHead {
        /// Schema of the store it was made of.
        pub schema: u32,
        /// Newest applied sequence in it.
        pub applied: Seq,
        /// Leaves of its log.
        pub log_size: u64,
        /// The log's root.
        pub log_root: Hash32,
    }
}

fn context(index: u64) -> Context {
    Context::new(SealType::Journal, DeploymentId::NIL).field(b"backup").field(&index.to_be_bytes())
}

fn backup_key(journal: &Secret, salt: &[u8; SALT_LEN]) -> Secret {
    journal.child(BACKUP_KEY, salt)
}

fn refused(what: &'static str) -> LedgerError {
    LedgerError::Backup { what }
}

#[derive(Debug)]
enum Next {
    Head(BackupHead),
    Entries,
    End,
    Nothing,
}

/// A backup on its way out, piece by piece.
pub struct Exporter {
    medium: Arc<dyn Medium>,
    journal: Arc<Secret>,
    /// Keeps the ledger open, and draws salts.
    ledger: Ledger,
    key: Secret,
    salt: [u8; SALT_LEN],
    /// End of the log in the snapshot; none in an empty ledger.
    until: Option<Position>,
    segments: VecDeque<(StreamKind, u64)>,
    /// Entries of the segment that was read last, oldest first.
    waiting: VecDeque<Vec<u8>>,
    kind: StreamKind,
    next: Next,
    frames: u64,
    entries: [u64; 2],
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("next", &self.next).field("frames", &self.frames).finish_non_exhaustive()
    }
}

/// What an export starts from.
pub(crate) struct Source {
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) journal: Arc<Secret>,
    pub(crate) head: BackupHead,
    pub(crate) until: Option<Position>,
    pub(crate) log: Vec<u64>,
    pub(crate) hold: Vec<u64>,
    pub(crate) ledger: Ledger,
}

impl Exporter {
    pub(crate) fn new(source: Source) -> Self {
        let Source { medium, journal, head, until, log, hold, ledger } = source;
        let salt = ledger.with_rng(|rng| {
            let mut salt = [0; SALT_LEN];
            rng.fill_bytes(&mut salt);
            salt
        });
        let last = until.as_ref().map_or(0, |until| until.segment);
        let log = log.into_iter().filter(|number| *number <= last).map(|number| (StreamKind::Log, number));
        let segments = log.chain(hold.into_iter().map(|number| (StreamKind::Hold, number))).collect();
        let (key, kind) = (backup_key(&journal, &salt), StreamKind::Log);
        let (waiting, next, entries) = (VecDeque::new(), Next::Head(head), [0; 2]);
        Self { medium, journal, ledger, key, salt, until, segments, waiting, kind, next, frames: 0, entries }
    }

    /// Newest applied sequence in the backup, while it is not begun.
    pub fn applied(&self) -> Option<Seq> {
        if let Next::Head(head) = &self.next { Some(head.applied) } else { None }
    }

    /// The next bytes of the backup, about a megabyte; none behind its end. Blocks; keeps one segment of the journal in memory.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Head(head) => {
                let mut out = MAGIC.to_vec();
                out.extend_from_slice(&self.salt);
                self.frame(HEAD, &encode(&head), &mut out)?;
                self.next = Next::Entries;
                Ok(Some(out))
            }
            Next::Entries => self.entries(),
            Next::End => {
                let mut out = Vec::new();
                let [log, hold] = self.entries;
                self.frame(END, &encode(&(log, hold)), &mut out)?;
                Ok(Some(out))
            }
            Next::Nothing => Ok(None),
        }
    }

    fn entries(&mut self) -> Result<Option<Vec<u8>>> {
        while self.waiting.is_empty() {
            let Some((kind, number)) = self.segments.pop_front() else {
                if self.until.as_ref().is_some_and(|until| until.ordinal != self.entries[0]) {
                    return Err(LedgerError::corrupt("the journal has fewer entries than the view was made from"));
                }
                self.next = Next::End;
                return self.piece();
            };
            let until = self.until.filter(|_| kind == StreamKind::Log).map_or(u64::MAX, |until| until.ordinal);
            self.waiting = journal::copy_segment(kind, number, self.medium.as_ref(), &self.journal, until)?.into();
            self.kind = kind;
        }
        let mut plain = Vec::with_capacity(FRAME_BYTES);
        while let Some(entry) = self.waiting.pop_front() {
            entry.put(&mut plain);
            let [log, hold] = &mut self.entries;
            *if self.kind == StreamKind::Log { log } else { hold } += 1;
            if plain.len() >= FRAME_BYTES {
                break;
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 4096);
        self.frame(self.kind as u8, &plain, &mut out)?;
        self.next = Next::Entries;
        Ok(Some(out))
    }

    fn frame(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut plain = vec![kind];
        plain.extend_from_slice(content);
        let salt = self.ledger.with_rng(|rng| Salt::draw(rng));
        let sealed = seal_object(self.key.expose(), salt, &context(self.frames), &plain)
            .map_err(|error| LedgerError::Io(io::Error::other(error)))?;
        u32::try_from(sealed.len()).unwrap_or(u32::MAX).put(out);
        out.extend_from_slice(&sealed);
        self.frames += 1;
        Ok(())
    }
}

/// A backup on its way in.
struct Importer<'r> {
    source: &'r mut dyn Read,
    key: Secret,
    frames: u64,
}

impl Importer<'_> {
    fn exactly(&mut self, out: &mut [u8]) -> Result<()> {
        self.source.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => refused("it ends early"),
            _ => error.into(),
        })
    }

    /// Kind and content of the next frame.
    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut len = [0; 4];
        self.exactly(&mut len)?;
        let len =
            usize::try_from(u32::from_be_bytes(len)).ok().filter(|len| *len <= MAX_FRAME).ok_or(refused("a length in it is damaged"))?;
        let mut sealed = vec![0; len];
        self.exactly(&mut sealed)?;
        let what = if self.frames == 0 {
            "it does not open: another deployment's key, or its front is damaged"
        } else {
            "a frame of it is damaged"
        };
        let mut plain = open_object(self.key.expose(), &context(self.frames), &sealed, MAX_FRAME, "backup").map_err(|_| refused(what))?;
        self.frames += 1;
        if plain.is_empty() {
            return Err(refused("a frame of it is empty"));
        }
        let kind = plain.remove(0);
        Ok((kind, plain))
    }
}

/// Fills an empty `medium` from a backup, opens it once and holds it against what the backup says of itself. Leaves nothing behind when
/// it fails, and touches nothing that was there before: the medium is held from the look whether it is empty to the last file removed.
pub(crate) fn restore(
    medium: &Arc<dyn Medium>,
    key: &LedgerKey,
    rng: Box<dyn CryptoRng + Send>,
    source: &mut dyn Read,
) -> Result<BackupHead> {
    let mut rng = rng;
    let lock = medium.lock(OpenMode::ReadWrite)?;
    if !medium.list()?.is_empty() {
        return Err(LedgerError::Occupied);
    }
    let restored = fill(medium, key, rng.as_mut(), source).and_then(|head| {
        let ledger = Ledger::open_under(lock.clone(), Arc::clone(medium), key, OpenMode::ReadWrite, rng, CACHE_BYTES)?;
        let state = ledger.snapshot()?;
        let same =
            state.applied_seq()? == head.applied && state.log_size()? == head.log_size && state.log_root(head.log_size)? == head.log_root;
        ledger.flush_view()?;
        if same { Ok(head) } else { Err(refused("its entries do not lead to the state it names")) }
    });
    if restored.is_err()
        && let Err(error) = remove_all(medium.as_ref())
    {
        tracing::warn!(%error, "files of a backup that was not restored stay behind");
    }
    restored
}

fn remove_all(medium: &dyn Medium) -> io::Result<()> {
    for name in medium.list()? {
        medium.remove(&name)?;
    }
    medium.sync_names()
}

fn fill(medium: &Arc<dyn Medium>, key: &LedgerKey, rng: &mut (dyn CryptoRng + Send), source: &mut dyn Read) -> Result<BackupHead> {
    let root = Secret::of(key);
    let secret = Arc::new(journal_secret(&root));
    let mut importer = Importer { source, key: Secret::of(key), frames: 0 };
    let mut front = [0; MAGIC.len() + SALT_LEN];
    importer.exactly(&mut front)?;
    let (magic, salt) = front.split_first_chunk::<8>().ok_or(refused("it ends early"))?;
    if magic != MAGIC {
        return Err(refused("it is no backup of a ledger, or of a newer version"));
    }
    importer.key = backup_key(&secret, salt.first_chunk().ok_or(refused("it ends early"))?);
    let (kind, content) = importer.frame()?;
    let head: BackupHead = decode(&content, "head of a backup")?;
    if kind != HEAD {
        return Err(refused("it has no head"));
    }
    if head.schema > SCHEMA {
        return Err(LedgerError::NewerSchema { found: head.schema, supported: SCHEMA });
    }
    let mut log = Stream::open(StreamKind::Log, Arc::clone(medium), Arc::clone(&secret), OpenMode::ReadWrite)?;
    let mut hold = Stream::open(StreamKind::Hold, Arc::clone(medium), secret, OpenMode::ReadWrite)?;
    let mut counted = (0, 0);
    loop {
        let (kind, content) = importer.frame()?;
        let (stream, count) = match kind {
            kind if kind == StreamKind::Log as u8 => (&mut log, &mut counted.0),
            kind if kind == StreamKind::Hold as u8 => (&mut hold, &mut counted.1),
            END => {
                let stated: (u64, u64) = decode(&content, "end of a backup")?;
                if stated != counted {
                    return Err(refused("it has not all the entries it names"));
                }
                break;
            }
            _ => return Err(refused("a frame of it has an unknown kind")),
        };
        let mut reader = Reader::new(&content, "frame of a backup");
        while reader.remaining() > 0 {
            let entry: Vec<u8> = reader.value().map_err(|_| refused("a frame of it does not decode"))?;
            stream.append(&entry, rng)?;
            *count += 1;
        }
    }
    for stream in [&mut log, &mut hold] {
        if let Some(pending) = stream.begin_sync() {
            let through = pending.run()?;
            stream.end_sync(through);
        }
    }
    let mut salt = [0; 24];
    rng.fill_bytes(&mut salt);
    identity::raise(medium.as_ref(), &root, &salt)?;
    Ok(head)
}
