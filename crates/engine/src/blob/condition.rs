//! What a request must satisfy before the engine works for it: limits of names and metadata, preconditions, ranges.

use std::ops::Range;

use crate::api::{ByteRange, ETag, Error, ErrorKind, Precondition, PutOptions};

/// Longest key in bytes.
pub(crate) const MAX_KEY_BYTES: usize = diaspore_block::limits::MAX_BLOB_KEY;
/// Most metadata pairs of one blob, and most bytes of all names and values together.
pub(crate) const MAX_METADATA_PAIRS: usize = 64;
pub(crate) const MAX_METADATA_BYTES: usize = 8 * 1024;
/// Longest media type in bytes.
pub(crate) const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// A key is 1 to 1024 bytes without NUL. Nothing else about it means anything: `../` is three bytes.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Error> {
    let why = if key.is_empty() {
        "the key is empty; use 1 to 1024 bytes"
    } else if key.len() > MAX_KEY_BYTES {
        "the key is longer than 1024 bytes; shorten it"
    } else if key.contains(&0) {
        "the key contains a NUL byte; remove it"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, why))
}

/// Metadata and media type within their limits.
pub(crate) fn check_options(options: &PutOptions) -> Result<(), Error> {
    let bytes: usize = options.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let why = if options.metadata.len() > MAX_METADATA_PAIRS || bytes > MAX_METADATA_BYTES {
        "the metadata is too large; at most 64 pairs and 8192 bytes together"
    } else if options.metadata.iter().any(|(name, _)| name.is_empty()) {
        "a metadata name is empty; name it or leave it out"
    } else if options.content_type.as_ref().is_some_and(|kind| kind.len() > MAX_CONTENT_TYPE_BYTES) {
        "the content type is longer than 255 bytes; shorten it"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, why))
}

/// Holds `condition` against the `ETag` of the current version, `None` when the key is absent (RFC 9110 section 13.1).
pub(crate) fn check_precondition(condition: &Precondition, current: Option<ETag>) -> Result<(), Error> {
    let holds = match (condition, current) {
        (Precondition::None, _) => true,
        (Precondition::Absent, current) => current.is_none(),
        (Precondition::Exists, current) => current.is_some(),
        (Precondition::Match(tags), current) => current.is_some_and(|current| tags.contains(&current)),
        (Precondition::NoneMatch(tags), current) => current.is_none_or(|current| !tags.contains(&current)),
    };
    if holds {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PreconditionFailed,
        "the current version does not satisfy the request's precondition; read it and decide again",
    ))
}

/// The bytes of a blob of `size` that `range` names (RFC 9110 section 14.1.2): cut at the end, refused when nothing is left.
pub(crate) fn resolve_range(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Error> {
    let resolved = match range {
        None => return Ok(0..size),
        Some(ByteRange::Suffix { length }) => size.saturating_sub(length)..size,
        Some(ByteRange::From { first, last }) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
    };
    if resolved.is_empty() {
        return Err(Error::new(ErrorKind::RangeNotSatisfiable, format!("the range lies outside the blob, which has {size} bytes")));
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes() {
        for good in [b"a".as_slice(), b"../../etc/passwd", &[0xff; 1024], "n\u{e9}".as_bytes(), "ne\u{301}".as_bytes(), b" ", b"/"] {
            check_key(good).unwrap();
        }
        for bad in [b"".as_slice(), &[b'a'; 1025], b"a\0b"] {
            assert_eq!(check_key(bad).unwrap_err().kind, ErrorKind::Invalid);
        }
    }

    #[test]
    fn metadata_has_limits() {
        let with = |pairs: Vec<(String, String)>| PutOptions { metadata: pairs, ..PutOptions::default() };
        check_options(&with(vec![("a".into(), "b".repeat(8191))])).unwrap();
        assert!(check_options(&with(vec![("a".into(), "b".repeat(8192))])).is_err());
        assert!(check_options(&with(vec![("a".into(), String::new()); 65])).is_err());
        assert!(check_options(&with(vec![(String::new(), "x".into())])).is_err());
        assert!(check_options(&PutOptions { content_type: Some("x".repeat(256)), ..PutOptions::default() }).is_err());
    }

    #[test]
    fn preconditions_follow_the_current_version() {
        let (a, b) = (ETag([1; 16]), ETag([2; 16]));
        let holds = |condition: &Precondition, current| check_precondition(condition, current).is_ok();
        for (condition, absent, is_a) in [
            (Precondition::None, true, true),
            (Precondition::Absent, true, false),
            (Precondition::Exists, false, true),
            (Precondition::Match(vec![a, b]), false, true),
            (Precondition::Match(vec![b]), false, false),
            (Precondition::Match(vec![]), false, false),
            (Precondition::NoneMatch(vec![a]), true, false),
            (Precondition::NoneMatch(vec![b]), true, true),
        ] {
            assert_eq!(holds(&condition, None), absent, "{condition:?} on nothing");
            assert_eq!(holds(&condition, Some(a)), is_a, "{condition:?} on a");
        }
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        let from = |first, last| Some(ByteRange::From { first, last });
        assert_eq!(resolve_range(None, 0).unwrap(), 0..0);
        assert_eq!(resolve_range(from(2, Some(4)), 10).unwrap(), 2..5);
        assert_eq!(resolve_range(from(2, Some(u64::MAX)), 10).unwrap(), 2..10);
        assert_eq!(resolve_range(from(9, None), 10).unwrap(), 9..10);
        assert_eq!(resolve_range(Some(ByteRange::Suffix { length: 3 }), 10).unwrap(), 7..10);
        assert_eq!(resolve_range(Some(ByteRange::Suffix { length: 30 }), 10).unwrap(), 0..10);
        for bad in [from(10, None), from(5, Some(4)), Some(ByteRange::Suffix { length: 0 })] {
            assert_eq!(resolve_range(bad, 10).unwrap_err().kind, ErrorKind::RangeNotSatisfiable);
        }
        assert!(resolve_range(Some(ByteRange::Suffix { length: 3 }), 0).is_err());
    }
}
