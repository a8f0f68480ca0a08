//! C2SP tlog-tiles: where hashes and entries lie in an export.

use crate::error::{BlockError, Result};
use crate::id::Hash32;
use crate::record::{PUBLIC_LEN, PublicPart};

/// Hashes of a full tile, entries of a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree one tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// Path of a hash tile: `tile/<level>/<index>[.p/<width>]`; `width` is 256 for a full tile.
pub fn tile_path(level: u8, index: u64, width: u64) -> String {
    format!("tile/{level}/{}", place(index, width))
}

/// Path of an entry bundle.
pub fn entries_path(index: u64, width: u64) -> String {
    format!("tile/entries/{}", place(index, width))
}

/// The index in groups of three digits, all but the last behind an `x`.
fn place(index: u64, width: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE_WIDTH { format!("{path}.p/{width}") } else { path }
}

/// Tiles of one level in a log of `size` leaves: (index, width), the last maybe partial.
pub fn tiles(level: u8, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let hashes = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
    (0..hashes.div_ceil(TILE_WIDTH)).map(move |index| (index, (hashes - index * TILE_WIDTH).min(TILE_WIDTH)))
}

/// Bytes of a hash tile; `node` gives complete subtrees by (level, index).
pub fn tile<E>(
    level: u8,
    index: u64,
    width: u64,
    mut node: impl FnMut(u8, u64) -> std::result::Result<Hash32, E>,
) -> std::result::Result<Vec<u8>, E> {
    let first = index * TILE_WIDTH;
    let mut bytes = Vec::new();
    for i in first..first + width.min(TILE_WIDTH) {
        bytes.extend_from_slice(node(level * TILE_HEIGHT, i)?.as_bytes());
    }
    Ok(bytes)
}

/// An entry bundle: each leaf behind its big-endian length in two bytes.
pub fn bundle<'a>(leaves: impl IntoIterator<Item = &'a [u8; PUBLIC_LEN]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for leaf in leaves {
        bytes.extend_from_slice(&[0, 128]);
        bytes.extend_from_slice(leaf);
    }
    bytes
}

/// The public parts in an entry bundle.
pub fn open_bundle(bytes: &[u8]) -> Result<Vec<PublicPart>> {
    let malformed = BlockError::Malformed { what: "entry bundle" };
    let (entries, rest) = bytes.as_chunks::<{ PUBLIC_LEN + 2 }>();
    if !rest.is_empty() || entries.len() as u64 > TILE_WIDTH {
        return Err(malformed);
    }
    entries
        .iter()
        .map(|entry| match entry.split_first_chunk::<2>() {
            Some(([0, 128], leaf)) => PublicPart::decode(leaf.try_into().map_err(|_| malformed.clone())?),
            _ => Err(malformed.clone()),
        })
        .collect()
}
