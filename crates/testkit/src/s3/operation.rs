//! The operations themselves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming as RequestBody;
use percent_encoding::percent_decode_str;

use super::answer::{Answer, Refused, describe, document, empty, iso_date, modified_since, xml};
use super::body::AnswerBody;
use super::listing::Listing;
use super::route::{Action, Route};
use super::service::{Ending, Endpoint};
use super::shelf::{Condition, Found, Incoming, Meta, ShelfError, View};
use super::upload;
use crate::fault::Course;

/// One operation with everything it needs.
#[derive(Debug)]
pub(super) struct Call {
    endpoint: Arc<Endpoint>,
    headers: HeaderMap,
    route: Route,
    course: Course,
    doomed: Arc<AtomicBool>,
}

impl Call {
    pub(super) fn new(endpoint: Arc<Endpoint>, parts: &Parts, route: Route, course: Course, doomed: Arc<AtomicBool>) -> Self {
        Self { endpoint, headers: parts.headers.clone(), route, course, doomed }
    }

    pub(super) async fn run(self, body: RequestBody) -> Result<Answer, Ending> {
        match &self.route.action {
            Action::Put => self.put(body).await,
            Action::Copy => self.copy().await,
            Action::Get => Ok(self.get()?),
            Action::Head => Ok(self.head()?),
            Action::Delete => self.delete().await,
            Action::DeleteBatch => self.delete_batch(body).await,
            Action::List => Ok(self.list()?),
            Action::CreateBucket => {
                upload::drain(body).await?;
                Ok(self.create_bucket()?)
            }
            Action::HeadBucket => self.bucket().map(|()| empty(StatusCode::OK)).map_err(Ending::from),
            Action::Location => {
                self.bucket()?;
                Ok(xml(StatusCode::OK, document("LocationConstraint", &[])))
            }
            Action::StartUpload => {
                self.bucket()?;
                Ok(self.endpoint.uploads().start(&self.route.bucket, &self.route.key))
            }
            Action::PutPart { upload, part } => {
                let mut incoming = self.endpoint.shelf().receive().map_err(Refused::from)?;
                self.receive(body, &mut incoming).await?;
                let tag = self.endpoint.uploads().put(upload, &self.route.key, *part, incoming)?;
                Ok(tagged(&tag))
            }
            Action::CompleteUpload { upload } => self.complete(upload, body).await,
            Action::AbortUpload { upload } => {
                self.endpoint.uploads().abort(upload)?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
        }
    }

    fn bucket(&self) -> Result<(), Refused> {
        if self.endpoint.shelf().has_bucket(&self.route.bucket) { Ok(()) } else { Err(Refused::NO_SUCH_BUCKET) }
    }

    fn create_bucket(&self) -> Result<Answer, Refused> {
        if self.endpoint.shelf().create_bucket(&self.route.bucket)? { Ok(empty(StatusCode::OK)) } else { Err(Refused::BUCKET_EXISTS) }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    async fn receive(&self, body: RequestBody, into: &mut Incoming) -> Result<(), Ending> {
        upload::receive(&self.endpoint, &self.headers, body, &self.course, into).await
    }

    fn condition(&self) -> Result<Condition, Refused> {
        match (self.header(&IF_NONE_MATCH), self.header(&IF_MATCH)) {
            (None, None) => Ok(Condition::None),
            (Some("*"), None) => Ok(Condition::Absent),
            (None, Some(tag)) => Ok(Condition::Tag(tag.to_owned())),
            _ => Err(Refused::UNKNOWN),
        }
    }

    async fn put(&self, body: RequestBody) -> Result<Answer, Ending> {
        if let Err(refused) = self.bucket() {
            upload::drain(body).await?;
            return Err(refused.into());
        }
        let mut incoming = self.endpoint.shelf().receive().map_err(Refused::from)?;
        self.receive(body, &mut incoming).await?;
        let meta = self.publish(incoming, self.condition()?).await?;
        Ok(tagged(&meta.tag))
    }

    async fn copy(&self) -> Result<Answer, Ending> {
        let source = self
            .headers
            .get("x-amz-copy-source")
            .map(|value| percent_decode_str(&String::from_utf8_lossy(value.as_bytes())).decode_utf8_lossy().into_owned())
            .unwrap_or_default();
        let (bucket, key) = source.trim_start_matches('/').split_once('/').ok_or(Refused::ARGUMENT)?;
        let shelf = self.endpoint.shelf();
        let found = shelf.find(View::Now, bucket, key).map_err(Refused::from)?.ok_or(Refused::NO_SUCH_KEY)?;
        let mut incoming = shelf.receive().map_err(Refused::from)?;
        incoming.copy(found).map_err(Refused::from)?;
        let meta = self.publish(incoming, self.condition()?).await?;
        let date = iso_date(meta.modified);
        let children = [("ETag", meta.tag.as_str()), ("LastModified", &date)];
        Ok(xml(StatusCode::OK, document("CopyObjectResult", &children)))
    }

    async fn complete(&self, upload: &str, body: RequestBody) -> Result<Answer, Ending> {
        let listed = upload::document(body).await?;
        let mut whole = self.endpoint.shelf().receive().map_err(Refused::from)?;
        self.endpoint.uploads().assemble(upload, &self.route.key, &listed, &mut whole)?;
        let meta = self.publish(whole, self.condition()?).await?;
        self.endpoint.uploads().abort(upload)?;
        let children = [("Bucket", self.route.bucket.as_str()), ("Key", &self.route.key), ("ETag", &meta.tag)];
        Ok(xml(StatusCode::OK, document("CompleteMultipartUploadResult", &children)))
    }

    /// Makes an upload visible: now, later, or not at all.
    async fn publish(&self, incoming: Incoming, condition: Condition) -> Result<Meta, Ending> {
        let now = self.signed_date();
        let Route { bucket, key, .. } = &self.route;
        if self.course.forget {
            return Ok(Meta { len: 0, modified: now, tag: "\"0-1\"".to_owned() });
        }
        if let Some(delay) = self.course.late {
            let endpoint = Arc::clone(&self.endpoint);
            let (bucket, key) = (bucket.clone(), key.clone());
            // On purpose nobody waits for it: it outlives the request, its client and a restart of the listener.
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let landed = endpoint.shelf().publish(&bucket, &key, incoming, &condition, now);
                tracing::debug!(in_time = landed.is_ok(), "a late write landed");
            });
            return Err(self.endpoint.freeze().await);
        }
        let published = self.endpoint.shelf().publish(bucket, key, incoming, &condition, now);
        Ok(published.map_err(Refused::from)?)
    }

    /// The date the client put on the request: an emulator has no clock of its own.
    fn signed_date(&self) -> SystemTime {
        self.headers.get("x-amz-date").and_then(|value| value.to_str().ok()).and_then(parse_amz_date).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    async fn delete(&self) -> Result<Answer, Ending> {
        self.bucket()?;
        self.remove(self.route.key.clone()).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn remove(&self, key: String) -> Result<(), Ending> {
        if self.course.forget {
            return Ok(());
        }
        let bucket = self.route.bucket.clone();
        if let Some(delay) = self.course.late {
            let endpoint = Arc::clone(&self.endpoint);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let landed: Result<(), ShelfError> = endpoint.shelf().remove(&bucket, &key);
                tracing::debug!(in_time = landed.is_ok(), "a late delete landed");
            });
            return Err(self.endpoint.freeze().await);
        }
        let removed = self.endpoint.shelf().remove(&bucket, &key);
        Ok(removed.map_err(Refused::from)?)
    }

    async fn delete_batch(&self, body: RequestBody) -> Result<Answer, Ending> {
        self.bucket()?;
        let asked = upload::document(body).await?;
        let mut deleted = String::new();
        for (_, key) in upload::elements(&asked, &["Key"])? {
            let line = format!("<Deleted><Key>{}</Key></Deleted>", quick_xml::escape::escape(&*key));
            deleted.push_str(&line);
            self.remove(key).await?;
        }
        let root = document("DeleteResult", &[]).replace("</DeleteResult>", "");
        Ok(xml(StatusCode::OK, root + &deleted + "</DeleteResult>"))
    }

    fn list(&self) -> Result<Answer, Refused> {
        self.bucket()?;
        let listing = Listing::parse(&self.route.query)?;
        let bucket = &self.route.bucket;
        let shelf = self.endpoint.shelf();
        let found = shelf.list(self.view(), bucket, &listing.prefix, self.course.stale)?;
        Ok(xml(StatusCode::OK, listing.page(bucket, &found)))
    }

    const fn view(&self) -> View {
        if self.course.roll_back { View::Snapshot } else { View::Now }
    }

    /// The object this request is shown.
    fn find(&self) -> Result<Found, Refused> {
        self.bucket()?;
        let Route { bucket, key, .. } = &self.route;
        let shelf = self.endpoint.shelf();
        let found = shelf.find(self.view(), bucket, key)?.ok_or(Refused::NO_SUCH_KEY)?;
        let other = self.course.swap.and_then(|draw| shelf.other(bucket, key, draw));
        match other {
            None => Ok(found),
            Some(other) => Ok(shelf.find(self.view(), bucket, &other)?.unwrap_or(found)),
        }
    }

    /// RFC 9110, section 13.2.2.
    fn check_conditions(&self, meta: &Meta) -> Result<(), Refused> {
        let names = |list: &str| list.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == meta.tag);
        let since = |name| self.header(name).and_then(|date| modified_since(meta.modified, date));
        match self.header(&IF_MATCH) {
            Some(list) if !names(list) => return Err(Refused::PRECONDITION),
            None if since(&IF_UNMODIFIED_SINCE) == Some(true) => return Err(Refused::PRECONDITION),
            _ => {}
        }
        match self.header(&IF_NONE_MATCH) {
            Some(list) if names(list) => Err(Refused::NOT_MODIFIED),
            None if since(&IF_MODIFIED_SINCE) == Some(false) => Err(Refused::NOT_MODIFIED),
            _ => Ok(()),
        }
    }

    fn get(&self) -> Result<Answer, Refused> {
        let found = self.find()?;
        let meta = found.meta().clone();
        self.check_conditions(&meta)?;
        let range = parse_range(self.header(&RANGE), meta.len)?;
        let (start, len) = range.unwrap_or((0, meta.len));
        let source = found.source(start, len)?;
        let body = AnswerBody::object(source, len, &self.course, Arc::clone(&self.endpoint), Arc::clone(&self.doomed));
        let shown = body.claimed_len();
        let mut answer = Response::new(body);
        describe(&mut answer, &meta);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(shown));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if range.is_some() {
            let last = start + len.saturating_sub(1);
            let text = format!("bytes {start}-{last}/{}", meta.len);
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(CONTENT_RANGE, value);
            }
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(answer)
    }

    fn head(&self) -> Result<Answer, Refused> {
        let found = self.find()?;
        self.check_conditions(found.meta())?;
        let mut answer = Response::new(AnswerBody::plain(Bytes::new()));
        describe(&mut answer, found.meta());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(found.meta().len));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        Ok(answer)
    }
}

fn tagged(tag: &str) -> Answer {
    let mut answer = empty(StatusCode::OK);
    if let Ok(tag) = HeaderValue::from_str(tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// Start and length of a single range; `None` for the whole object, which S3 also sends for several ranges or for
/// nonsense.
fn parse_range(header: Option<&str>, len: u64) -> Result<Option<(u64, u64)>, Refused> {
    let Some((first, last)) = header.and_then(|header| header.strip_prefix("bytes=")).and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(len)),
        (Ok(start), Err(_)) if last.is_empty() => (start, len),
        (Err(_), Ok(suffix)) if first.is_empty() => {
            let start = len.saturating_sub(suffix);
            (if suffix == 0 { len } else { start }, len)
        }
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end - start))) } else { Err(Refused::RANGE) }
}

/// `20130524T000000Z`.
fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let number = |from: usize, upto: usize| text.get(from..upto)?.parse::<u8>().ok();
    let year = text.get(..4)?.parse().ok()?;
    let month = time::Month::try_from(number(4, 6)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(6, 8)?).ok()?;
    let at = date.with_hms(number(9, 11)?, number(11, 13)?, number(13, 15)?).ok()?;
    Some(at.assume_utc().into())
}

#[cfg(test)]
mod tests {
    use super::{Refused, parse_range};

    #[test]
    fn ranges() {
        let of_ten = |header| parse_range(Some(header), 10);
        assert_eq!(of_ten("bytes=0-3"), Ok(Some((0, 4))));
        assert_eq!(of_ten("bytes=4-99"), Ok(Some((4, 6))));
        assert_eq!(of_ten("bytes=4-"), Ok(Some((4, 6))));
        assert_eq!(of_ten("bytes=-4"), Ok(Some((6, 4))));
        assert_eq!(of_ten("bytes=-40"), Ok(Some((0, 10))));
        assert_eq!(of_ten("bytes=10-"), Err(Refused::RANGE));
        assert_eq!(of_ten("bytes=-0"), Err(Refused::RANGE));
        assert_eq!(of_ten("bytes=5-2"), Ok(None));
        assert_eq!(of_ten("bytes=0-1,4-5"), Ok(None));
        assert_eq!(of_ten("lines=0-1"), Ok(None));
        assert_eq!(parse_range(Some("bytes=0-0"), 0), Err(Refused::RANGE));
    }
}
