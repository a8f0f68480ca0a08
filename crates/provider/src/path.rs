//! Object paths: plain ASCII only, so that no store, proxy or file system reads them differently.

use object_store::path::Path;

/// Longest path accepted, prefix included.
const MAX_PATH: usize = 512;

/// Joins the account's prefix and an object path, or says what is wrong with it. Segments of letters, digits, `-`, `_`, `.`, none
/// empty, `.` or `..`, joined by `/`.
pub(crate) fn object_path(prefix: &str, path: &str) -> Result<Path, &'static str> {
    if path.len() + prefix.len() > MAX_PATH {
        return Err("the object path is longer than 512 bytes");
    }
    if !path.split('/').all(is_plain) {
        return Err("object paths are segments of letters, digits, '-', '_' and '.', joined by '/'");
    }
    let joined = if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
    Path::parse(joined).map_err(|_| "not an object path")
}

/// A listing prefix: an object path, or empty for everything under the account's prefix.
pub(crate) fn list_prefix(prefix: &str, path: &str) -> Result<Path, &'static str> {
    let path = path.trim_end_matches('/');
    match (prefix.is_empty(), path.is_empty()) {
        (true, true) => Ok(Path::default()),
        (false, true) => object_path("", prefix),
        _ => object_path(prefix, path),
    }
}

/// The object path as the caller knows it: without the account's prefix. `None` when the store named something outside the prefix.
pub(crate) fn strip<'a>(prefix: &str, full: &'a str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(full);
    }
    full.strip_prefix(prefix)?.strip_prefix('/')
}

fn is_plain(segment: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_and_join_the_prefix() {
        assert_eq!(object_path("", "ab/cdef").unwrap().as_ref(), "ab/cdef");
        assert_eq!(object_path("dep1/x", "ab/cdef").unwrap().as_ref(), "dep1/x/ab/cdef");
        assert_eq!(list_prefix("p", "").unwrap().as_ref(), "p");
        assert_eq!(list_prefix("", "").unwrap().as_ref(), "");
        assert_eq!(list_prefix("p", "q/").unwrap().as_ref(), "p/q");
        assert_eq!(strip("p", "p/q"), Some("q"));
        assert_eq!(strip("p", "pq"), None);
        assert_eq!(strip("", "q"), Some("q"));
    }

    #[test]
    fn anything_a_store_could_read_differently_is_refused() {
        for bad in ["", "/", "a//b", "/a", "a/", "../a", "a/../b", "a/./b", "a b", "a%2e", "a\0", "\u{fc}", "a\\b", "a?b", "a#b", "a\nb"] {
            assert!(object_path("", bad).is_err(), "{bad:?}");
        }
        assert!(object_path("", &"a".repeat(513)).is_err());
        assert!(object_path(&"p".repeat(500), &"a".repeat(13)).is_err());
    }
}
