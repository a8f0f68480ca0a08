//! A store that does what providers do on bad days, over memory.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use object_store::{
    CopyOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult, Result,
};

use super::*;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Hang,
    FreezeBody,
    Drip,
    Endless,
    Truncate,
    Inflate(u64),
    Fail,
    FailAfterWrite,
}

#[derive(Debug)]
pub(super) struct Rogue {
    inner: InMemory,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl Rogue {
    pub(super) fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { inner: InMemory::new(), mood: Mutex::new(mood), asked: AtomicUsize::new(0) })
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn requests(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn enter(&self) -> Result<Mood> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Hang => std::future::pending().await,
            Mood::Fail => Err(broken()),
            mood => Ok(mood),
        }
    }
}

fn broken() -> object_store::Error {
    let reset = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "secret/path");
    object_store::Error::Generic { store: "rogue", source: Box::new(reset) }
}

fn body(mood: Mood, bytes: Bytes) -> BoxStream<'static, Result<Bytes>> {
    match mood {
        Mood::FreezeBody => stream::iter([Ok(bytes.slice(..1))]).chain(stream::pending()).boxed(),
        Mood::Drip => stream::iter(bytes.to_vec())
            .then(async |byte| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(Bytes::from(vec![byte]))
            })
            .boxed(),
        Mood::Endless => stream::repeat(Bytes::from_static(&[0; 1000])).map(Ok).boxed(),
        Mood::Truncate => stream::iter([Ok(bytes.slice(..bytes.len() / 2))]).boxed(),
        _ => stream::iter([Ok(bytes)]).boxed(),
    }
}

impl fmt::Display for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rogue")
    }
}

#[async_trait]
impl ObjectStore for Rogue {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mood = self.enter().await?;
        let written = self.inner.put_opts(location, payload, opts).await?;
        if mood == Mood::FailAfterWrite { Err(broken()) } else { Ok(written) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mood = self.enter().await?;
        let head = options.head;
        let mut result = self.inner.get_opts(location, options.clone()).await?;
        if !head {
            let bytes = self.inner.get_opts(location, options).await?.bytes().await?;
            result.payload = GetResultPayload::Stream(body(mood, bytes));
        }
        if let Mood::Inflate(by) = mood {
            result.range.end += by;
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
