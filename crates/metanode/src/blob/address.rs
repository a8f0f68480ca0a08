//! `bucket/key` and how keys become URL paths and file names. Keys are bytes; nothing is normalised on the way.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::failure::{Failure, Outcome};

/// What stays readable in a path.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_KEY: &AsciiSet = &IN_SEGMENT.remove(b'/');

/// A bucket and the bytes behind its slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: String,
    /// Key, or prefix, or nothing.
    pub(super) key: Vec<u8>,
}

impl Address {
    /// Splits `bucket/key` at the first slash.
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        if bucket.is_empty() {
            return Err(Failure::usage(format!("{text:?} names no bucket")).hint("blobs are addressed as bucket/key"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.as_bytes().to_vec() })
    }

    /// The same, with a key that is not empty.
    pub(super) fn of_blob(text: &str) -> Outcome<Self> {
        let address = Self::parse(text)?;
        if address.key.is_empty() {
            return Err(Failure::usage(format!("{text:?} names a bucket, not a blob")).hint("add the key: bucket/key, or use --recursive"));
        }
        Ok(address)
    }

    /// Another key of the same bucket.
    pub(super) fn with_key(&self, key: Vec<u8>) -> Self {
        Self { bucket: self.bucket.clone(), key }
    }

    /// URL path of the blob.
    pub(super) fn path(&self) -> String {
        format!("/api/v1/blobs/{}/{}", percent_encode(self.bucket.as_bytes(), IN_SEGMENT), escape_key(&self.key))
    }

    /// URL path of the listing below the key taken as a prefix.
    pub(super) fn listing(&self, recursive: bool, page: Option<&str>) -> String {
        let mut path = format!(
            "/api/v1/blobs/{}?prefix={}",
            percent_encode(self.bucket.as_bytes(), IN_SEGMENT),
            percent_encode(&self.key, NON_ALPHANUMERIC)
        );
        if !recursive {
            path.push_str("&delimiter=%2F");
        }
        if let Some(page) = page {
            path.push_str("&page_token=");
            path.push_str(page);
        }
        path
    }

    /// URL path of the bucket itself.
    pub(super) fn bucket_path(&self) -> String {
        format!("/api/v1/buckets/{}", percent_encode(self.bucket.as_bytes(), IN_SEGMENT))
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.bucket, String::from_utf8_lossy(&self.key))
    }
}

/// URL libraries resolve `.` and `..` between slashes, escaped or not; escaped slashes leave nothing to resolve.
fn escape_key(key: &[u8]) -> String {
    let dotted = key.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..");
    percent_encode(key, if dotted { IN_SEGMENT } else { IN_KEY }).to_string()
}

/// The key of a file found below a folder.
pub(super) fn key_of(prefix: &[u8], relative: &Path) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(relative.as_os_str().as_bytes());
    key
}

/// Where a key lands below a folder; `None` when it would leave the folder or cannot be a file name.
pub(crate) fn file_of(folder: &Path, relative: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(relative));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    // `components` forgives doubled and closing slashes, which would let two keys meet in one file.
    let exact = relative.split(|&byte| byte == b'/').all(|segment| !segment.is_empty() && segment != b".");
    (plain && exact && !relative.contains(&0)).then(|| folder.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_splits_at_the_first_slash() {
        let address = Address::parse("photos/a/b c").unwrap();
        assert_eq!((address.bucket.as_str(), address.key.as_slice()), ("photos", &b"a/b c"[..]));
        assert_eq!(address.path(), "/api/v1/blobs/photos/a/b%20c");
        assert!(Address::parse("/x").is_err());
        assert!(Address::of_blob("photos").is_err());
        assert!(Address::of_blob("photos/").is_err());
    }

    #[test]
    fn dot_segments_survive_url_libraries() {
        let address = Address::parse("b/../../etc/./x").unwrap();
        assert_eq!(address.path(), "/api/v1/blobs/b/..%2F..%2Fetc%2F.%2Fx");
        let url = reqwest::Url::parse(&format!("http://h{}", address.path())).unwrap();
        assert_eq!(url.path(), address.path());
    }

    #[test]
    fn keys_that_would_leave_the_folder_are_not_files() {
        let folder = Path::new("/tmp/x");
        assert_eq!(file_of(folder, b"a/b"), Some(PathBuf::from("/tmp/x/a/b")));
        for key in [&b"../a"[..], b"a/../../b", b"/etc/passwd", b"", b"a/", b"a//b", b"./a", b"a/./b", b"a\0b", b".."] {
            assert_eq!(file_of(folder, key), None, "{}", String::from_utf8_lossy(key));
        }
    }
}
