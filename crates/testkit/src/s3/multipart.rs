//! Multipart uploads under way. They live as long as the emulator.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::answer::{Answer, Refused, document, xml};
use super::shelf::Incoming;
use super::upload::elements;

#[derive(Debug)]
struct Part {
    tag: String,
    incoming: Incoming,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug, Default)]
struct State {
    started: u64,
    uploads: BTreeMap<String, Upload>,
}

impl State {
    fn upload(&mut self, id: &str, key: &str) -> Result<&mut Upload, Refused> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.key == key);
        upload.ok_or(Refused::NO_SUCH_UPLOAD)
    }
}

/// All uploads of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<State>);

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload and answers its id.
    pub(super) fn start(&self, bucket: &str, key: &str) -> Answer {
        let mut state = self.lock();
        state.started += 1;
        let id = format!("upload-{:016x}", state.started);
        let children = [("Bucket", bucket), ("Key", key), ("UploadId", id.as_str())];
        let answer = xml(StatusCode::OK, document("InitiateMultipartUploadResult", &children));
        let upload = Upload { key: key.to_owned(), parts: BTreeMap::new() };
        state.uploads.insert(id, upload);
        answer
    }

    /// Keeps a part, replacing an earlier one of the same number; answers its tag.
    pub(super) fn put(&self, id: &str, key: &str, part: u32, mut incoming: Incoming) -> Result<String, Refused> {
        incoming.close();
        let mut state = self.lock();
        state.started += 1;
        let tag = format!("\"{:016x}-{part}\"", state.started);
        let upload = state.upload(id, key)?;
        let part_kept = Part { tag: tag.clone(), incoming };
        drop(upload.parts.insert(part, part_kept));
        Ok(tag)
    }

    /// Appends the parts that the completing document names, in its (rising) order, to `whole`.
    pub(super) fn assemble(&self, id: &str, key: &str, listed: &[u8], whole: &mut Incoming) -> Result<(), Refused> {
        let mut state = self.lock();
        let upload = state.upload(id, key)?;
        let mut last = 0;
        let named = pairs(&elements(listed, &["PartNumber", "ETag"])?)?;
        if named.is_empty() {
            return Err(Refused::XML);
        }
        for (number, tag) in named {
            let part = upload.parts.get(&number).ok_or(Refused::PART)?;
            if number <= last || part.tag.trim_matches('"') != tag.trim_matches('"') {
                return Err(Refused::PART);
            }
            last = number;
            whole.append(&part.incoming)?;
        }
        Ok(())
    }

    /// Forgets an upload and its parts.
    pub(super) fn abort(&self, id: &str) -> Result<(), Refused> {
        let removed = self.lock().uploads.remove(id);
        removed.map(drop).ok_or(Refused::NO_SUCH_UPLOAD)
    }
}

/// Number and tag of every part; a document may name them in either order within a part.
fn pairs(found: &[(usize, String)]) -> Result<Vec<(u32, String)>, Refused> {
    found
        .chunks(2)
        .map(|pair| {
            let of = |index| pair.iter().find(|(name, _)| *name == index).map(|(_, text)| text);
            let number = of(0).and_then(|text| text.parse().ok()).ok_or(Refused::XML)?;
            Ok((number, of(1).cloned().ok_or(Refused::XML)?))
        })
        .collect()
}
