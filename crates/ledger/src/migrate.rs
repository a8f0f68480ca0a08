//! From an older schema to this one.
//!
//! The journal holds everything and keeps its form; what a schema changes are the tables of the view, and those are made anew from the
//! journal. So a migration is: a copy of every file as it was, under names of its own (`schema-1.identity`, `schema-1.log-0000000001`, ...);
//! the view rebuilt; the name plate replaced, last and in one step. A crash before that leaves the old store, which the next opening
//! migrates again; nothing of the journal is touched.
//!
//! To go back: end the service, remove every file of the ledger's folder without the prefix, take the prefix off the others, and run the
//! program that knows the old schema. What was stored since comes back from the providers.

use std::collections::BTreeMap;

use crate::error::{LedgerError, Result};
use crate::identity;
use crate::journal::{HEADER_LEN, StreamKind};
use crate::medium::{Medium, MediumFile};

#[cfg(test)]
mod tests;

const PREFIX: &str = "schema-";
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

fn prefix(schema: u32) -> String {
    format!("{PREFIX}{schema}.")
}

/// Whether a file of this name is part of a copy that a migration left.
pub(crate) fn is_copy(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.split_once('.').is_some_and(|(schema, _)| schema.parse::<u32>().is_ok()))
}

/// Copies every file of a store of schema `from`, the plate last: with the plate the copy is whole, and is not made again over files that
/// the migration has begun to change. A copy of another time, after which the old program went on, is none: it is made anew.
pub(crate) fn keep_copy(medium: &dyn Medium, from: u32) -> Result<()> {
    let prefix = prefix(from);
    let plate = format!("{prefix}{}", identity::NAME);
    if identity::is_whole_plate(medium, &plate)? {
        if is_of_this_journal(medium, &prefix)? {
            return Ok(());
        }
        tracing::info!(files = format!("{prefix}*"), "a copy of the ledger was made at another time and gives way to a new one");
        medium.remove(&plate)?;
        medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
    }
    // Of one that broke off, files may stay that the journal has left behind since: put back, they would be damage.
    for name in medium.list()?.iter().filter(|name| name.starts_with(&prefix)) {
        medium.remove(name)?;
    }
    medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
    let files = medium.list()?.into_iter().filter(|name| !is_copy(name) && name != identity::NAME);
    for name in files.chain([identity::NAME.to_owned()]) {
        if name == identity::NAME {
            medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
        }
        copy(medium, &name, &format!("{prefix}{name}"))?;
    }
    medium.sync_names().map_err(|_| LedgerError::SyncFailed)?;
    tracing::info!(files = format!("{prefix}*"), "kept a copy of the ledger as it was under its old schema");
    Ok(())
}

/// Whether the copy has the journal's segments as they are here. The newest of a stream may be shorter here, or gone if it held nothing: what
/// an opening cuts of a torn end.
fn is_of_this_journal(medium: &dyn Medium, prefix: &str) -> Result<bool> {
    let lens = |prefix: &str, stream: &str| -> Result<BTreeMap<String, u64>> {
        let mut lens = BTreeMap::new();
        for name in medium.list()? {
            if let Some(segment) = name.strip_prefix(prefix).filter(|segment| segment.starts_with(stream)) {
                lens.insert(segment.to_owned(), medium.open(&name, false)?.map_or(Ok(0), |file| file.len())?);
            }
        }
        Ok(lens)
    };
    for kind in [StreamKind::Log, StreamKind::Hold] {
        let (here, mut kept) = (lens("", kind.prefix())?, lens(prefix, kind.prefix())?);
        if let Some((newest, len)) = kept.pop_last() {
            let cut = match here.get(&newest) {
                Some(left) => *left <= len,
                None => len <= HEADER_LEN as u64,
            };
            if !cut {
                return Ok(false);
            }
            kept.extend(here.get(&newest).map(|left| (newest, *left)));
        }
        if here != kept {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(medium: &dyn Medium, from: &str, to: &str) -> Result<()> {
    let missing = || LedgerError::corrupt(format!("the file {from} went away while it was copied"));
    let source = medium.open(from, false)?.ok_or_else(missing)?;
    let target = medium.open(to, true)?.ok_or_else(missing)?;
    target.set_len(0)?;
    copy_bytes(source.as_ref(), target.as_ref())?;
    target.sync().map_err(|_| LedgerError::SyncFailed)
}

fn copy_bytes(source: &dyn MediumFile, target: &dyn MediumFile) -> Result<()> {
    let len = source.len()?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < len {
        let left = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
        let piece = piece.get_mut(..left).unwrap_or_default();
        source.read_at(at, piece)?;
        target.write_at(at, piece)?;
        at += left as u64;
    }
    Ok(())
}

/// Schemas of which a whole copy lies here, ascending.
pub(crate) fn copies(medium: &dyn Medium) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for name in medium.list()? {
        let schema = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(identity::NAME)?.strip_suffix('.')?.parse().ok());
        if let Some(schema) = schema
            && identity::is_whole_plate(medium, &name)?
        {
            found.push(schema);
        }
    }
    found.sort_unstable();
    Ok(found)
}
