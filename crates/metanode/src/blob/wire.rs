//! The service's JSON documents as far as the commands read them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

/// One stored version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_b64: Option<String>,
    pub(crate) version: String,
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) modified: String,
    pub(crate) class: String,
}

/// A key or folded prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_b64: Option<String>,
}

/// Answer to a put.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    #[serde(flatten)]
    pub(crate) entry: Entry,
    pub(crate) seq: u64,
    pub(crate) replayed: bool,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<Entry>,
    pub(crate) common_prefixes: Vec<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// A bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) created: String,
}

/// All buckets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Buckets {
    pub(crate) buckets: Vec<Bucket>,
}

impl Entry {
    /// The key's exact bytes.
    pub(crate) fn key_bytes(&self) -> Outcome<Vec<u8>> {
        match &self.key_b64 {
            None => Ok(self.key.clone().into_bytes()),
            Some(encoded) => {
                STANDARD.decode(encoded).map_err(|_| Failure::plain(format!("the service sent a key that does not decode: {encoded}")))
            }
        }
    }
}
