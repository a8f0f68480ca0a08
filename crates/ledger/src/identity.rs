//! The ledger's name plate: schema version and key check, in front of everything else.
//!
//! ```text
//! "DSPLEDGR" ‖ schema u32 ‖ salt(24) ‖ key check(16) ‖ BLAKE3 of the bytes before (8)
//! ```
//! The last field needs no key: it tells a damaged plate from a wrong key.

use crate::error::{LedgerError, Result};
use crate::medium::{Medium, OpenMode};
use crate::secret::{IDENTITY_CHECK, Secret};

/// Newest schema this build writes and reads.
pub const SCHEMA: u32 = 2;
pub(crate) const NAME: &str = "identity";
const NEW_NAME: &str = "identity.new";
const MAGIC: &[u8; 8] = b"DSPLEDGR";
const LEN: usize = 60;

fn plate(schema: u32, salt: &[u8], secret: &Secret) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&schema.to_be_bytes());
    out.extend_from_slice(salt);
    let check = secret.mac(IDENTITY_CHECK, &out);
    out.extend_from_slice(&check);
    let sum = blake3::hash(&out);
    out.extend_from_slice(sum.as_bytes().get(..8).unwrap_or_default());
    out
}

/// Checks the plate, or makes one in an empty medium; gives its schema. None when there is none and none may be made.
pub(crate) fn check(medium: &dyn Medium, secret: &Secret, mode: OpenMode, salt: &[u8; 24]) -> Result<Option<u32>> {
    let strangers = medium.list()?.iter().any(|name| name != NAME && name != NEW_NAME);
    match stored(medium, NAME)? {
        Some(bytes) if is_whole(&bytes) => Ok(Some(judge(&bytes, secret)?)),
        // A crash right at creation leaves the plate torn and nothing else.
        Some(_) if strangers => Err(LedgerError::corrupt("its identity file")),
        None if strangers => Err(LedgerError::corrupt("its identity file is missing")),
        _ if mode == OpenMode::ReadOnly => Ok(None),
        _ => {
            write(medium, NAME, &plate(SCHEMA, salt, secret))?;
            medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
            Ok(Some(SCHEMA))
        }
    }
}

fn stored(medium: &dyn Medium, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = medium.open(name, false)? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(LEN)];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

fn write(medium: &dyn Medium, name: &str, bytes: &[u8]) -> Result<()> {
    let file = medium.open(name, true)?.ok_or_else(|| LedgerError::corrupt("its identity file"))?;
    file.set_len(0)?;
    file.write_at(0, bytes)?;
    file.sync().map_err(|_| LedgerError::SyncFailed)
}

/// Whether `name` holds a whole plate.
pub(crate) fn is_whole_plate(medium: &dyn Medium, name: &str) -> Result<bool> {
    Ok(stored(medium, name)?.is_some_and(|bytes| is_whole(&bytes)))
}

/// Replaces the plate by one of this schema, in one step: a crash leaves the old or the new one.
pub(crate) fn raise(medium: &dyn Medium, secret: &Secret, salt: &[u8; 24]) -> Result<()> {
    write(medium, NEW_NAME, &plate(SCHEMA, salt, secret))?;
    medium.rename(NEW_NAME, NAME)?;
    medium.sync_names().map_err(|_| LedgerError::SyncFailed)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<8>()
        .is_some_and(|(body, sum)| bytes.len() == LEN && body.starts_with(MAGIC) && blake3::hash(body).as_bytes().starts_with(sum))
}

fn judge(bytes: &[u8], secret: &Secret) -> Result<u32> {
    let found = bytes.get(8..12).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes);
    if found > SCHEMA {
        return Err(LedgerError::NewerSchema { found, supported: SCHEMA });
    }
    let salt = bytes.get(12..36).unwrap_or_default();
    if bytes == plate(found, salt, secret) { Ok(found) } else { Err(LedgerError::WrongKey) }
}

#[cfg(test)]
pub(crate) fn plate_of_schema(schema: u32, secret: &Secret) -> Vec<u8> {
    plate(schema, &[7; 24], secret)
}
