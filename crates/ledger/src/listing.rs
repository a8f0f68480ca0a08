//! Listing a bucket: byte order, folded at a delimiter, without reading what is folded away.

use std::ops::{Bound, ControlFlow};

use diaspore_block::id::BucketId;

use crate::error::{LedgerError, Result};
use crate::facts::BlobEntry;
use crate::snapshot::{decode, joined};
use crate::state::{State, Table};

/// Most items of one page.
pub const MAX_LIST_ITEMS: usize = 10_000;

/// What to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListQuery<'a> {
    /// Only keys that begin with these bytes.
    pub prefix: &'a [u8],
    /// Fold keys that agree up to the first delimiter behind the prefix; empty = fold nothing.
    pub delimiter: &'a [u8],
    /// Only what comes after this key or folded prefix.
    pub start_after: Option<&'a [u8]>,
    /// Most items, `1..=MAX_LIST_ITEMS`.
    pub limit: usize,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    /// A blob.
    Blob {
        /// Its key.
        key: Vec<u8>,
        /// Its current version.
        entry: Box<BlobEntry>,
    },
    /// Keys that agree up to a delimiter: the agreeing bytes, delimiter included.
    Prefix(Vec<u8>),
}

impl ListItem {
    /// The key or prefix, which is also what continues after this item.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Blob { key, .. } => key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Blobs and folded prefixes, in byte order of their names.
    pub items: Vec<ListItem>,
    /// `start_after` of the next page; none when this is the last.
    pub next: Option<Vec<u8>>,
}

/// The smallest byte string above every one that begins with `prefix`; none when there is no such.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=kept)?.to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    Some(next)
}

/// The part of `key` up to and including the first delimiter behind the prefix.
fn fold<'k>(key: &'k [u8], query: &ListQuery<'_>) -> Option<&'k [u8]> {
    let rest = key.get(query.prefix.len()..)?;
    let at = rest.windows(query.delimiter.len().max(1)).position(|window| window == query.delimiter)?;
    key.get(..query.prefix.len() + at + query.delimiter.len())
}

/// Where the walk begins: none when nothing can follow.
fn first_start(bucket: &[u8], query: &ListQuery<'_>) -> Option<Bound<Vec<u8>>> {
    let from_prefix = Some(Bound::Included(joined(bucket, query.prefix)));
    let Some(after) = query.start_after else { return from_prefix };
    // A marker inside a folded range stands for the whole range: everything in it was listed as one item.
    if let Some(folded) = Some(after).filter(|after| after.starts_with(query.prefix)).and_then(|after| fold(after, query)) {
        return after_prefix(&joined(bucket, folded)).map(Bound::Included);
    }
    if after < query.prefix { from_prefix } else { Some(Bound::Excluded(joined(bucket, after))) }
}

pub(crate) fn list(state: &dyn State, bucket: BucketId, query: &ListQuery<'_>) -> Result<ListPage> {
    if query.limit == 0 || query.limit > MAX_LIST_ITEMS {
        return Err(LedgerError::Invalid { what: "number of items of a list page (1 to 10000)" });
    }
    let scope = joined(bucket.as_bytes(), query.prefix);
    let mut page = ListPage::default();
    let mut next_start = first_start(bucket.as_bytes(), query);
    while let Some(start) = next_start.take() {
        state.walk(Table::Blobs, start.as_ref().map(Vec::as_slice), &mut |stored, value| {
            if !stored.starts_with(&scope) {
                return Ok(ControlFlow::Break(()));
            }
            if page.items.len() == query.limit {
                page.next = page.items.last().map(|item| item.name().to_vec());
                return Ok(ControlFlow::Break(()));
            }
            let key = stored.get(bucket.as_bytes().len()..).unwrap_or_default();
            if let Some(folded) = fold(key, query) {
                // Seek behind the folded range instead of reading through it.
                next_start = after_prefix(&joined(bucket.as_bytes(), folded)).map(Bound::Included);
                page.items.push(ListItem::Prefix(folded.to_vec()));
                return Ok(ControlFlow::Break(()));
            }
            page.items.push(ListItem::Blob { key: key.to_vec(), entry: Box::new(decode(value, "blobs")?) });
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(page)
}
