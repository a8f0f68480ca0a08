//! The [`ObjectStore`] face of the hostile store.

use std::fmt::Write as _;
use std::future::pending;
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{HostileStore, Late, Object, Objects, Outcome};
use crate::fault::{Course, Op, Stop, Tamper, flips};

/// Length an endless body claims to have.
const ENDLESS_LEN: u64 = 1 << 50;
const STEP_LEN: usize = 64 * 1024;

/// A provider's failure, as the text of an [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(&'static str);

fn trouble(text: &'static str) -> Error {
    Error::Generic { store: "hostile", source: Box::new(Trouble(text)) }
}

/// What makes of a failure what a real client makes of it.
fn failure(kind: io::ErrorKind, text: &'static str) -> Error {
    Error::Generic { store: "hostile", source: Box::new(io::Error::new(kind, Trouble(text))) }
}

fn stopped(stop: Stop, path: &str) -> Error {
    match stop {
        Stop::Denied => Error::PermissionDenied { path: path.to_owned(), source: Box::new(Trouble("403 AccessDenied")) },
        Stop::Error => failure(io::ErrorKind::Other, "500 InternalError"),
        // No statement about an object: not `not_found`.
        Stop::NoBucket => failure(io::ErrorKind::Other, "404 NoSuchBucket"),
        Stop::Full => failure(io::ErrorKind::StorageFull, "507 InsufficientStorage"),
        Stop::Refused => failure(io::ErrorKind::ConnectionRefused, "connection refused"),
        Stop::Reset | Stop::Frozen => failure(io::ErrorKind::ConnectionReset, "connection reset"),
    }
}

fn not_found(path: &str) -> Error {
    Error::NotFound { path: path.to_owned(), source: Box::new(Trouble("404 NoSuchKey")) }
}

fn tag_text(tag: u64) -> String {
    format!("\"{tag:016x}-1\"")
}

fn meta(path: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::parse(path).unwrap_or_else(|_| Path::from(path)),
        last_modified: (SystemTime::UNIX_EPOCH + object.at).into(),
        size: object.bytes.len() as u64,
        e_tag: Some(tag_text(object.tag)),
        version: None,
    }
}

impl HostileStore {
    fn note(&self, op: Op, path: &str, amount: u64, outcome: Outcome) {
        let now = self.now();
        self.lock().trace.note(now, op, path, amount, outcome);
    }

    /// Waits out latency, the shared link and the drip, then stops here if the course says so.
    async fn approach(&self, op: Op, path: &str, len: u64, course: &Course) -> Result<()> {
        let wait = course.delay + course.drip_time(len) + self.link_wait(len, course);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.outlive(op).await;
        match course.before {
            None => Ok(()),
            Some(Stop::Frozen) => {
                self.note(op, path, len, Outcome::Frozen);
                pending().await
            }
            Some(stop) => {
                self.note(op, path, len, Outcome::FailedBefore);
                Err(stopped(stop, path))
            }
        }
    }

    /// Hangs for good once the process that asks is dead.
    async fn outlive(&self, op: Op) {
        let Some(tripwire) = self.lock().tripwire.clone() else { return };
        let changes = matches!(op, Op::Put | Op::Delete);
        if tripwire.is_dead() || (changes && !tripwire.step()) {
            pending::<()>().await;
        }
    }

    /// Books `len` bytes on the link all requests share; answers how long until they are through.
    fn link_wait(&self, len: u64, course: &Course) -> Duration {
        let Some(rate) = course.throttle else {
            return Duration::ZERO;
        };
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.now();
        let mut state = self.lock();
        state.link_free = state.link_free.max(now).saturating_add(cost);
        state.link_free.saturating_sub(now)
    }

    /// Ends a request that took effect.
    async fn depart(&self, op: Op, path: &str, len: u64, course: &Course) -> Result<()> {
        self.outlive(op).await;
        match course.after {
            None => Ok(()),
            Some(stop) => {
                self.note(op, path, len, Outcome::FailedAfter);
                if stop == Stop::Frozen {
                    return pending().await;
                }
                Err(stopped(stop, path))
            }
        }
    }

    async fn write(&self, op: Op, path: &str, bytes: Option<Bytes>, mode: &PutMode) -> Result<PutResult> {
        let course = self.decide(op);
        let len = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.approach(op, path, len, &course).await?;
        if let Some(delay) = course.late {
            let due = self.now() + delay;
            {
                let mut state = self.settled();
                state.tags += 1;
                let order = state.tags;
                state.late.push(Late { due, order, key: path.to_owned(), bytes, create: matches!(mode, PutMode::Create) });
            }
            self.note(op, path, len, Outcome::OnItsWay);
            return pending().await;
        }
        let now = self.now();
        let applied = {
            let mut state = self.settled();
            match permitted(&state.objects, path, mode) {
                Err(refusal) => {
                    state.trace.note(now, op, path, len, Outcome::Refused);
                    return Err(refusal);
                }
                Ok(()) if course.forget => {
                    state.trace.note(now, op, path, len, Outcome::Forgotten);
                    state.tags += 1;
                    return Ok(put_result(state.tags));
                }
                Ok(()) => state.change(path, bytes, now),
            }
        };
        self.depart(op, path, len, &course).await?;
        self.note(op, path, len, Outcome::Ok);
        Ok(put_result(applied))
    }

    /// Finds what a read is shown, and whether it is the truth.
    fn look(&self, path: &str, course: &Course) -> (Option<Object>, bool) {
        let state = self.settled();
        let honest = state.objects.get(path);
        let shown = if course.roll_back {
            state.snapshot.get(path)
        } else if let (Some(draw), Some(_)) = (course.swap, honest) {
            let other = state.recent.other(path, draw);
            other.and_then(|key| state.objects.get(key)).or(honest)
        } else {
            honest
        };
        let lie = shown.map(|object| object.tag) != honest.map(|object| object.tag);
        (shown.cloned(), lie)
    }

    async fn read(&self, path: &str, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let course = self.decide(op);
        let (foreseen, _) = self.look(path, &course);
        let size = foreseen.map_or(0, |object| object.bytes.len() as u64);
        let expected = match (&options.head, &options.range) {
            (true, _) => 0,
            (false, None) => size,
            (false, Some(range)) => within(range, size).map_or(0, |range| range.end - range.start),
        };
        self.approach(op, path, expected, &course).await?;
        let (object, mut lie) = self.look(path, &course);
        let Some(object) = object else {
            let outcome = if lie { Outcome::Lie } else { Outcome::Refused };
            self.note(op, path, 0, outcome);
            return Err(not_found(path));
        };
        let meta = meta(path, &object);
        if let Err(refusal) = options.check_preconditions(&meta) {
            self.note(op, path, 0, Outcome::Refused);
            return Err(refusal);
        }
        let range = self.resolve(op, path, options.range.as_ref(), meta.size)?;
        let bytes = slice(&object.bytes, &range);
        let len = bytes.len() as u64;
        self.depart(op, path, len, &course).await?;
        let tamper = if op == Op::Get { course.body } else { None };
        lie |= tamper.is_some();
        self.note(op, path, len, if lie { Outcome::Lie } else { Outcome::Ok });
        let (range, body) = body(bytes, range, tamper);
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes: Attributes::new(),
            extensions: http::Extensions::new(),
        })
    }

    fn resolve(&self, op: Op, path: &str, range: Option<&GetRange>, size: u64) -> Result<Range<u64>> {
        let Some(range) = range else {
            return Ok(0..size);
        };
        within(range, size).ok_or_else(|| {
            self.note(op, path, 0, Outcome::Refused);
            trouble("416 InvalidRange")
        })
    }

    async fn listing(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let mut start = String::new();
        if let Some(prefix) = prefix.filter(|prefix| !prefix.as_ref().is_empty()) {
            let _infallible = write!(start, "{prefix}/");
        }
        let course = self.decide(Op::List);
        self.approach(Op::List, &start, 0, &course).await?;
        let (found, lie) = {
            let state = self.settled();
            let shown = if course.roll_back { state.snapshot.clone() } else { state.stale(course.stale) };
            let honest: Vec<ObjectMeta> = below(&state.objects, &start);
            let found = below(&shown, &start);
            let lie = honest != found;
            (found, lie)
        };
        let count = found.len() as u64;
        self.depart(Op::List, &start, count, &course).await?;
        self.note(Op::List, &start, count, if lie { Outcome::Lie } else { Outcome::Ok });
        Ok(found)
    }
}

fn below(objects: &Objects, start: &str) -> Vec<ObjectMeta> {
    objects.range(start.to_owned()..).take_while(|(key, _)| key.starts_with(start)).map(|(key, object)| meta(key, object)).collect()
}

fn put_result(tag: u64) -> PutResult {
    PutResult { e_tag: Some(tag_text(tag)), version: None, extensions: http::Extensions::new() }
}

fn permitted(objects: &Objects, path: &str, mode: &PutMode) -> Result<()> {
    let present = objects.get(path);
    match mode {
        PutMode::Overwrite => Ok(()),
        PutMode::Create if present.is_none() => Ok(()),
        PutMode::Create => {
            Err(Error::AlreadyExists { path: path.to_owned(), source: Box::new(Trouble("412 PreconditionFailed: the object exists")) })
        }
        PutMode::Update(version) => {
            let tag = present.map(|object| tag_text(object.tag));
            if tag.is_some() && tag == version.e_tag {
                return Ok(());
            }
            Err(Error::Precondition { path: path.to_owned(), source: Box::new(Trouble("412 PreconditionFailed: another version")) })
        }
    }
}

/// The part of `size` bytes that `range` asks for; `None` if there is none.
fn within(range: &GetRange, size: u64) -> Option<Range<u64>> {
    let (start, end) = match range {
        GetRange::Bounded(range) => (range.start, range.end.min(size)),
        GetRange::Offset(start) => (*start, size),
        GetRange::Suffix(len) => (size.saturating_sub(*len), size),
    };
    (start < end).then_some(start..end)
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let bound = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
    let (start, end) = (bound(range.start), bound(range.end));
    bytes.slice(start.min(end)..end)
}

type Body = BoxStream<'static, Result<Bytes>>;

/// The answer's body, tampered with, and the range the answer claims.
fn body(bytes: Bytes, range: Range<u64>, tamper: Option<Tamper>) -> (Range<u64>, Body) {
    let len = bytes.len() as u64;
    let upto = |part| slice(&bytes, &(0..Tamper::cut(part, len)));
    match tamper {
        None => (range, one(bytes)),
        Some(Tamper::Truncate(part)) => {
            let kept = upto(part);
            (range.start..range.start + kept.len() as u64, one(kept))
        }
        Some(Tamper::Flip { bits, seed }) => {
            let mut changed = BytesMut::from(bytes.as_ref());
            for (offset, mask) in flips(bits, seed, len) {
                let place = usize::try_from(offset).ok();
                if let Some(byte) = place.and_then(|place| changed.get_mut(place)) {
                    *byte ^= mask;
                }
            }
            (range, one(changed.freeze()))
        }
        Some(Tamper::Freeze(part)) => (range, one(upto(part)).chain(stream::pending()).boxed()),
        Some(Tamper::Reset(part)) => {
            let end = stream::once(async { Err(trouble("connection reset")) });
            (range, one(upto(part)).chain(end).boxed())
        }
        Some(Tamper::Endless) => {
            let step = Bytes::from(vec![0x5a; STEP_LEN]);
            let rest = stream::repeat_with(move || Ok(step.clone()));
            let claimed = range.start..range.start + ENDLESS_LEN;
            (claimed, one(bytes).chain(rest).boxed())
        }
    }
}

fn one(bytes: Bytes) -> Body {
    stream::once(async { Ok(bytes) }).boxed()
}

fn payload(payload: PutPayload) -> Bytes {
    Bytes::from(payload)
}

#[async_trait]
impl ObjectStore for HostileStore {
    async fn put_opts(&self, to: &Path, data: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.write(Op::Put, to.as_ref(), Some(payload(data)), &options.mode).await
    }

    async fn put_multipart_opts(&self, _to: &Path, _options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put_multipart".to_owned(), implementer: self.to_string() })
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.read(from.as_ref(), options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    store.write(Op::Delete, path.as_ref(), None, &PutMode::Overwrite).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.cloned();
        let found = async move { store.listing(prefix.as_ref()).await };
        stream::once(found).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let base = prefix.unwrap_or(&root);
        let mut common_prefixes: Vec<Path> = Vec::new();
        let mut objects = Vec::new();
        for meta in self.listing(prefix).await? {
            let Some(mut parts) = meta.location.prefix_match(base) else {
                continue;
            };
            let Some(first) = parts.next() else { continue };
            let child = base.clone().join(first);
            if parts.next().is_none() {
                drop(parts);
                objects.push(meta);
            } else if common_prefixes.last() != Some(&child) {
                common_prefixes.push(child);
            }
        }
        Ok(ListResult { common_prefixes, objects, extensions: http::Extensions::new() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.read(from.as_ref(), GetOptions::default()).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.write(Op::Put, to.as_ref(), Some(bytes), &mode).await?;
        Ok(())
    }
}
