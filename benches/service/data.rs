//! What is stored: random bytes that nothing compresses, or sources and JSON. The same seed gives the same bytes.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Measured;

/// Bytes of a piece; all but the last have this length.
pub(crate) const PIECE: u64 = 1 << 20;
/// Longest source file taken: longer ones are mostly generated tables.
const LONGEST_FILE: u64 = 1 << 20;

/// A blob's bytes.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Made piece by piece when asked for.
    Random {
        /// Seed of the generator.
        seed: u64,
        /// Bytes in all.
        len: u64,
    },
    /// In memory.
    Held(Vec<Bytes>),
}

impl Data {
    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Random { len, .. } => *len,
            Self::Held(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
        }
    }

    /// Pieces in all.
    pub(crate) fn pieces(&self) -> u64 {
        self.len().div_ceil(PIECE)
    }

    /// One piece; empty behind the end.
    pub(crate) fn piece(&self, index: u64) -> Bytes {
        match self {
            Self::Random { seed, len } => {
                let left = len.saturating_sub(index * PIECE).min(PIECE);
                let mut bytes = vec![0; usize::try_from(left).unwrap_or_default()];
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                rng.set_stream(index + 1);
                rng.fill_bytes(&mut bytes);
                bytes.into()
            }
            Self::Held(pieces) => usize::try_from(index).ok().and_then(|index| pieces.get(index)).cloned().unwrap_or_default(),
        }
    }

    /// The same bytes in memory, so that making them costs nothing while something is measured.
    pub(crate) fn hold(self) -> Self {
        Self::Held((0..self.pieces()).map(|index| self.piece(index)).collect())
    }

    /// A copy of some of the bytes.
    pub(crate) fn slice(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        for index in range.start / PIECE..range.end.div_ceil(PIECE) {
            let (piece, base) = (self.piece(index), index * PIECE);
            let start = usize::try_from(range.start.saturating_sub(base)).unwrap_or(usize::MAX).min(piece.len());
            let end = usize::try_from(range.end - base).unwrap_or(usize::MAX).min(piece.len());
            out.extend_from_slice(piece.get(start..end).unwrap_or_default());
        }
        out
    }
}

/// Half source files of this machine's package cache (less where there are too few), the rest JSON log lines; and how much
/// of each.
pub(crate) fn text(seed: u64, len: u64) -> Measured<(Data, String)> {
    let most = usize::try_from(len)?;
    let mut bytes = Vec::with_capacity(most);
    let mut folders: Vec<PathBuf> = source_folder().into_iter().collect();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&folder)?.filter_map(Result::ok).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && is_source(&path) && entry.metadata()?.len() <= LONGEST_FILE && bytes.len() < most / 2 {
                bytes.extend_from_slice(&std::fs::read(path)?);
            }
        }
    }
    bytes.truncate(most / 2);
    let sources = bytes.len();
    json(&mut bytes, most, seed)?;
    bytes.truncate(most);
    let told = format!("{} MiB sources, {} MiB JSON log lines", sources >> 20, (most - sources) >> 20);
    let whole = Bytes::from(bytes);
    let step = usize::try_from(PIECE)?;
    let pieces = (0..whole.len()).step_by(step).map(|at| whole.slice(at..whole.len().min(at + step))).collect();
    Ok((Data::Held(pieces), told))
}

fn source_folder() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.map(|home| home.join("registry/src")).filter(|folder| folder.is_dir())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["rs", "md", "toml", "json", "c", "h"].iter().any(|known| ending == *known))
}

fn json(out: &mut Vec<u8>, until: usize, seed: u64) -> Measured<()> {
    const SERVICES: [&str; 8] = ["checkout", "search", "billing", "gateway", "profile", "mailer", "catalogue", "stock"];
    const LEVELS: [&str; 4] = ["info", "info", "warn", "error"];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut line, mut time) = (String::new(), 1_790_000_000_000_u64);
    while out.len() < until {
        let (a, b) = (rng.next_u64(), rng.next_u64());
        time += a % 40;
        let pick = |from: &[&'static str], by: u64| from.get(usize::try_from(by).unwrap_or_default() % from.len()).copied().unwrap_or("");
        line.clear();
        writeln!(
            line,
            "{{\"time\":{time},\"level\":\"{}\",\"service\":\"{}\",\"trace\":\"{b:016x}\",\"user\":{},\"path\":\"/api/v1/orders/{}\",\
             \"status\":{},\"duration_ms\":{}.{:03},\"message\":\"request handled\"}}",
            pick(&LEVELS, a >> 8 & 3),
            pick(&SERVICES, a >> 12 & 7),
            a >> 16 & 0xffff,
            a >> 32 & 0xf_ffff,
            [200, 200, 200, 404].get(usize::try_from(a >> 52 & 3)?).unwrap_or(&200),
            b % 250,
            b >> 20 & 0x1ff,
        )?;
        out.extend_from_slice(line.as_bytes());
    }
    Ok(())
}
