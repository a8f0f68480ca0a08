//! `Range` of RFC 9110 section 14: one range of bytes, from the front or from the end.

use diaspore_engine::api::ByteRange;
use http::HeaderMap;
use http::header::RANGE;

/// The single byte range a request asks for. `None` means the whole blob: no `Range` field, another unit, a malformed one, or several
/// ranges, all of which RFC 9110 section 14.2 lets a server ignore.
pub(crate) fn requested(headers: &HeaderMap) -> Option<ByteRange> {
    let mut fields = headers.get_all(RANGE).iter();
    let field = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    let (unit, set) = field.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", length) => Some(ByteRange::Suffix { length: digits(length)? }),
        (first, "") => Some(ByteRange::From { first: digits(first)?, last: None }),
        (first, last) => {
            let (first, last) = (digits(first)?, digits(last)?);
            (first <= last).then_some(ByteRange::From { first, last: Some(last) })
        }
    }
}

/// Bytes `start..end` that `range` selects of `size`; `None` when it selects nothing (416).
pub(crate) fn resolve(range: ByteRange, size: u64) -> Option<std::ops::Range<u64>> {
    match range {
        ByteRange::From { first, last } if first < size => Some(first..last.map_or(size, |last| last.saturating_add(1).min(size))),
        ByteRange::Suffix { length } if length > 0 && size > 0 => Some(size.saturating_sub(length)..size),
        ByteRange::From { .. } | ByteRange::Suffix { .. } => None,
    }
}

/// Digits only; a number too large for 64 bits is as good as the largest.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parse(text: &'static str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static(text));
        requested(&headers)
    }

    #[test]
    fn single_ranges_are_understood() {
        assert_eq!(parse("bytes=0-0"), Some(ByteRange::From { first: 0, last: Some(0) }));
        assert_eq!(parse("bytes=5-"), Some(ByteRange::From { first: 5, last: None }));
        assert_eq!(parse("Bytes = -7"), Some(ByteRange::Suffix { length: 7 }));
        assert_eq!(parse("bytes=1-99999999999999999999999"), Some(ByteRange::From { first: 1, last: Some(u64::MAX) }));
    }

    #[test]
    fn everything_else_asks_for_the_whole() {
        for text in ["bytes=0-1,3-4", "bytes=4-1", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "bytes", "bytes=1-2-3"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(requested(&HeaderMap::new()), None);
    }

    #[test]
    fn two_fields_are_several_ranges() {
        let mut headers = HeaderMap::new();
        headers.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.append(RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(requested(&headers), None);
    }

    #[test]
    fn ranges_are_cut_to_the_blob() {
        assert_eq!(resolve(ByteRange::From { first: 2, last: Some(4) }, 10), Some(2..5));
        assert_eq!(resolve(ByteRange::From { first: 2, last: Some(u64::MAX) }, 10), Some(2..10));
        assert_eq!(resolve(ByteRange::From { first: 9, last: None }, 10), Some(9..10));
        assert_eq!(resolve(ByteRange::Suffix { length: 3 }, 10), Some(7..10));
        assert_eq!(resolve(ByteRange::Suffix { length: 30 }, 10), Some(0..10));
    }

    #[test]
    fn nothing_selected_is_not_satisfiable() {
        assert_eq!(resolve(ByteRange::From { first: 10, last: None }, 10), None);
        assert_eq!(resolve(ByteRange::Suffix { length: 0 }, 10), None);
        assert_eq!(resolve(ByteRange::Suffix { length: 5 }, 0), None);
        assert_eq!(resolve(ByteRange::From { first: 0, last: None }, 0), None);
    }
}
