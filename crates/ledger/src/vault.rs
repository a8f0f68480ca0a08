//! The view's file: redb's bytes, hidden by AES-256-XTS in 4 KiB sectors behind an own header page.
//!
//! XTS hides names, values and their sizes; it does not authenticate. Values therefore carry a MAC (see `view`), and a view in doubt
//! is thrown away and rebuilt from the journal. A page-wise AEAD was measured and refused: redb's two commit slots share its page 0,
//! and a torn write of an authenticated page loses both (`docs/decisions/0002-ledger-engine.md`).
//!
//! Sectors the disk has no room for are kept in memory, and every one after them, and the header page is marked damaged: a full disk never
//! reaches redb as an error (it would refuse all later reads), and a power loss in that state costs a rebuild, not a wrong answer. Where
//! the file system copies on write there may be no room for the mark either. Then nothing at all reaches the file until there is: what
//! lies there is the last state that became durable, with pages behind it that it does not name, as after a crash in a transaction.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use crate::medium::{MediumFile, OpenMode};
use crate::secret::{Secret, VIEW_MAC};
use crate::xts::Xts;

/// Sector and header size in bytes; redb's page size.
pub(crate) const SECTOR: usize = 4096;
const SECTOR_BYTES: u64 = SECTOR as u64;
/// Ends with the schema of the tables: a view of another schema is not read but rebuilt.
const MAGIC: &[u8; 8] = b"DSPVIEW2";
const SOUND: u8 = 1;
const DAMAGED: u8 = 2;

/// Why a view file cannot be used as it is; all of these mean "rebuild" to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Missing,
    /// Header unreadable, of another key or layout, or marked by an earlier failure.
    Damaged,
}

#[derive(Debug, Default)]
struct Overlay {
    /// Plain sectors that are not on the medium.
    sectors: BTreeMap<u64, Box<[u8]>>,
}

struct Inner {
    file: Arc<dyn MediumFile>,
    xts: Xts,
    header: [u8; 64],
    mode: OpenMode,
    /// Length as redb sees it, in bytes.
    len: AtomicU64,
    overlay: Mutex<Overlay>,
    /// Partial sector writes read, change and write: one at a time.
    partial: Mutex<()>,
    full: AtomicBool,
    /// The header page says, durably, that the view is to be made anew.
    marked: AtomicBool,
    /// It says so for good, room or not.
    damaged: AtomicBool,
    sync_failed: AtomicBool,
}

/// One opened view file; clones share it.
#[derive(Clone)]
pub(crate) struct Vault(Arc<Inner>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("len", &self.0.len).finish_non_exhaustive()
    }
}

fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn xts(secret: &Secret) -> Xts {
    let (mut data, mut tweak) = (secret.expand(VIEW_MAC.cipher), secret.expand(VIEW_MAC.tweak));
    let xts = Xts::new(&data, &tweak);
    data.zeroize();
    tweak.zeroize();
    xts
}

fn header(secret: &Secret, salt: &[u8; 24], state: u8) -> [u8; 64] {
    let mut page = [0; 64];
    let mut plain = Vec::with_capacity(64);
    plain.extend_from_slice(MAGIC);
    plain.extend_from_slice(&[state; 8]);
    plain.extend_from_slice(salt);
    let check = secret.mac(VIEW_MAC.header, &plain);
    plain.extend_from_slice(&check);
    for (slot, byte) in page.iter_mut().zip(plain) {
        *slot = byte;
    }
    page
}

impl Vault {
    /// Starts an empty view in `file`, under a key of its own derived from `salt`.
    pub(crate) fn create(file: Arc<dyn MediumFile>, ledger: &Secret, salt: &[u8; 24], mode: OpenMode) -> io::Result<Self> {
        let secret = ledger.child(VIEW_MAC.key, salt);
        let page = header(&secret, salt, SOUND);
        if mode == OpenMode::ReadWrite {
            file.set_len(0)?;
            file.write_at(0, &page)?;
            file.set_len(SECTOR_BYTES)?;
        }
        Ok(Self::with(file, &secret, page, mode, 0))
    }

    /// Opens an existing view, or says why it has to be rebuilt. The inner result is never an I/O error of the medium.
    pub(crate) fn open(file: Option<Arc<dyn MediumFile>>, ledger: &Secret, mode: OpenMode) -> io::Result<Result<(Self, Secret), Unusable>> {
        let Some(file) = file else { return Ok(Err(Unusable::Missing)) };
        let len = file.len()?;
        if len < 2 * SECTOR_BYTES {
            return Ok(Err(if len == 0 { Unusable::Missing } else { Unusable::Damaged }));
        }
        let mut page = [0; 64];
        file.read_at(0, &mut page)?;
        let mut salt = [0; 24];
        salt.copy_from_slice(page.get(16..40).unwrap_or(&[0; 24]));
        let secret = ledger.child(VIEW_MAC.key, &salt);
        if page != header(&secret, &salt, SOUND) {
            return Ok(Err(Unusable::Damaged));
        }
        let vault = Self::with(file, &secret, page, mode, len - SECTOR_BYTES);
        Ok(Ok((vault, secret)))
    }

    fn with(file: Arc<dyn MediumFile>, secret: &Secret, header: [u8; 64], mode: OpenMode, len: u64) -> Self {
        Self(Arc::new(Inner {
            file,
            xts: xts(secret),
            header,
            mode,
            len: AtomicU64::new(len),
            overlay: Mutex::default(),
            partial: Mutex::default(),
            full: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
        }))
    }

    /// True when sectors wait in memory because the medium has no room.
    pub(crate) fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Acquire)
    }

    /// True when the medium refused a sync.
    pub(crate) fn sync_failed(&self) -> bool {
        self.0.sync_failed.load(Ordering::Acquire)
    }

    /// Refuses every later sync.
    pub(crate) fn abandon(&self) {
        self.0.sync_failed.store(true, Ordering::Release);
    }

    /// Makes the next opening rebuild the view.
    pub(crate) fn mark_damaged(&self) -> io::Result<()> {
        self.0.damaged.store(true, Ordering::Release);
        self.mark()
    }

    fn mark(&self) -> io::Result<()> {
        if self.0.mode == OpenMode::ReadOnly || self.0.marked.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.file.write_at(8, &[DAMAGED; 8])?;
        self.sync_file()?;
        self.0.marked.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes waiting sectors out; false when there is still no room.
    pub(crate) fn drain(&self) -> io::Result<bool> {
        if self.0.mode == OpenMode::ReadOnly || !self.is_full() {
            return Ok(true);
        }
        match self.write_out() {
            Err(error) if is_full(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn write_out(&self) -> io::Result<()> {
        // Sectors come in no order that a crash could be recovered from, so the mark is there before the first of them.
        self.mark()?;
        let mut overlay = relock(&self.0.overlay);
        while let Some((index, sector)) = overlay.sectors.pop_first() {
            if let Err(error) = self.store(index, &sector) {
                overlay.sectors.insert(index, sector);
                return Err(error);
            }
        }
        self.0.file.set_len(padded(self.0.len.load(Ordering::Acquire)))?;
        self.sync_file()?;
        if !self.0.damaged.load(Ordering::Acquire) {
            self.0.file.write_at(0, &self.0.header)?;
            self.0.marked.store(false, Ordering::Release);
        }
        self.0.full.store(false, Ordering::Release);
        Ok(())
    }

    fn sync_file(&self) -> io::Result<()> {
        // After one failure the system may have dropped the pages and call the next sync a success.
        if self.sync_failed() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        self.0.file.sync().inspect_err(|_| self.0.sync_failed.store(true, Ordering::Release))
    }

    fn store(&self, index: u64, plain: &[u8]) -> io::Result<()> {
        let mut sealed = plain.to_vec();
        self.0.xts.encrypt(index, &mut sealed);
        self.0.file.write_at((index + 1) * SECTOR_BYTES, &sealed)
    }

    /// Writes one whole sector, to memory where the medium cannot take it.
    fn put(&self, index: u64, plain: &[u8]) -> io::Result<()> {
        if self.0.mode == OpenMode::ReadWrite && !self.is_full() {
            match self.store(index, plain) {
                Err(error) if is_full(&error) => {
                    self.0.full.store(true, Ordering::Release);
                    match self.mark() {
                        Err(error) if !is_full(&error) => return Err(error),
                        _ => {}
                    }
                }
                other => return other,
            }
        }
        relock(&self.0.overlay).sectors.insert(index, plain.into());
        Ok(())
    }

    /// Reads one whole sector into `out`.
    fn fetch(&self, index: u64, out: &mut [u8]) -> io::Result<()> {
        if (self.0.mode == OpenMode::ReadOnly || self.is_full())
            && let Some(sector) = relock(&self.0.overlay).sectors.get(&index)
        {
            out.copy_from_slice(sector);
            return Ok(());
        }
        match self.0.file.read_at((index + 1) * SECTOR_BYTES, out) {
            // Below redb's length but never written, or grown in memory only.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => out.fill(0),
            other => other?,
        }
        // A hole reads as zeros, as redb expects; no ciphertext sector is all zero.
        if out.iter().any(|byte| *byte != 0) {
            self.0.xts.decrypt(index, out);
        }
        Ok(())
    }
}

/// Length of the file with a view of `len` bytes.
fn padded(len: u64) -> u64 {
    len.div_ceil(SECTOR_BYTES) * SECTOR_BYTES + SECTOR_BYTES
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Splits `offset..offset + len` at sector edges: `(sector, start within it, range within the buffer)`.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % SECTOR_BYTES).ok()?;
        let take = (SECTOR - start).min(len - done);
        let range = done..done + take;
        done += take;
        Some((at / SECTOR_BYTES, start, range))
    })
}

impl redb::StorageBackend for Vault {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.0.len.load(Ordering::Acquire) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (sector, start, range) in pieces(offset, out.len()) {
            let Some(target) = out.get_mut(range) else { continue };
            if target.len() == SECTOR {
                self.fetch(sector, target)?;
            } else {
                let mut whole = [0; SECTOR];
                self.fetch(sector, &mut whole)?;
                for (slot, byte) in target.iter_mut().zip(whole.iter().skip(start)) {
                    *slot = *byte;
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.len.store(len, Ordering::Release);
        if self.0.mode == OpenMode::ReadOnly || self.is_full() {
            relock(&self.0.overlay).sectors.retain(|sector, _| sector * SECTOR_BYTES < len);
            return Ok(());
        }
        match self.0.file.set_len(padded(len)) {
            // The writes that need the room will find out, and wait in memory.
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        // With sectors waiting in memory the header page is marked, and what is durable is a view to be rebuilt; or nothing that was written
        // since reached the file, and it is the one before.
        if self.0.mode == OpenMode::ReadOnly { Ok(()) } else { self.sync_file() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (sector, start, range) in pieces(offset, data.len()) {
            let Some(source) = data.get(range) else { continue };
            if source.len() == SECTOR {
                self.put(sector, source)?;
            } else {
                let _one_at_a_time = relock(&self.0.partial);
                let mut whole = [0; SECTOR];
                self.fetch(sector, &mut whole)?;
                for (slot, byte) in whole.iter_mut().skip(start).zip(source) {
                    *slot = *byte;
                }
                self.put(sector, &whole)?;
            }
        }
        Ok(())
    }
}
