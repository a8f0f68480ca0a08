//! Answers and errors as S3 words them.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED};
use http::{Response, StatusCode};
use quick_xml::escape::escape;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::body::AnswerBody;
use super::shelf::{Meta, ShelfError};
use super::signature::Refusal;

/// An answer on its way.
pub(super) type Answer = Response<AnswerBody>;

/// A request that ends with an error document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

macro_rules! refusals {
    ($($name:ident = $status:ident $code:literal $message:literal;)*) => {
        impl Refused {
            $(pub(super) const $name: Self = Self {
                status: StatusCode::$status,
                code: $code,
                message: $message,
            };)*
        }
    };
}

refusals! {
    ACCESS_DENIED = FORBIDDEN "AccessDenied" "Access Denied";
    UNKNOWN_KEY = FORBIDDEN "InvalidAccessKeyId" "The access key id is not known here";
    SIGNATURE = FORBIDDEN "SignatureDoesNotMatch" "The signature does not match: check the secret key";
    NO_SUCH_KEY = NOT_FOUND "NoSuchKey" "There is no object with this key";
    NO_SUCH_BUCKET = NOT_FOUND "NoSuchBucket" "There is no bucket of this name";
    NO_SUCH_UPLOAD = NOT_FOUND "NoSuchUpload" "There is no such multipart upload";
    BUCKET_EXISTS = CONFLICT "BucketAlreadyOwnedByYou" "The bucket exists already";
    BUCKET_NAME = BAD_REQUEST "InvalidBucketName" "This is no bucket name";
    KEY = BAD_REQUEST "InvalidArgument" "The emulator keeps a file per key: no empty, `.` or `..` segment, no NUL or backslash, at most 1024 bytes";
    KEY_CONFLICT = CONFLICT "OperationAborted" "The emulator keeps a file per key: one key may not be a folder of another";
    RANGE = RANGE_NOT_SATISFIABLE "InvalidRange" "The range starts behind the object's end";
    PRECONDITION = PRECONDITION_FAILED "PreconditionFailed" "A condition of the request does not hold";
    NOT_MODIFIED = NOT_MODIFIED "NotModified" "Not modified";
    CONTENT_HASH = BAD_REQUEST "XAmzContentSHA256Mismatch" "The payload does not have the signed hash";
    XML = BAD_REQUEST "MalformedXML" "The document cannot be read";
    ARGUMENT = BAD_REQUEST "InvalidArgument" "A parameter has no sensible value";
    PART = BAD_REQUEST "InvalidPart" "A part is missing or has another tag";
    UNKNOWN = NOT_IMPLEMENTED "NotImplemented" "The emulator does not do this";
    INTERNAL = INTERNAL_SERVER_ERROR "InternalError" "We encountered an internal error. Please try again.";
    FULL = INSUFFICIENT_STORAGE "InsufficientStorage" "There is no space left";
}

impl Refused {
    /// The error document.
    pub(super) fn answer(self, resource: &str, request: u64) -> Answer {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        let document = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>\
             <Resource>{}</Resource><RequestId>{request:016x}</RequestId></Error>",
            self.code,
            self.message,
            escape(resource)
        );
        xml(self.status, document)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unsigned => Self::ACCESS_DENIED,
            Refusal::UnknownKey => Self::UNKNOWN_KEY,
            Refusal::Mismatch => Self::SIGNATURE,
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Self::KEY,
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty => Self::KEY_CONFLICT,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::FULL,
            _ => {
                tracing::warn!(%error, "emulator failed");
                Self::INTERNAL
            }
        }
    }
}

impl From<ShelfError> for Refused {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::NoBucket => Self::NO_SUCH_BUCKET,
            ShelfError::Condition => Self::PRECONDITION,
            ShelfError::ConditionAbsent => Self::NO_SUCH_KEY,
            ShelfError::Io(error) => error.into(),
        }
    }
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::plain(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer with plain text, for the admin path.
pub(super) fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(AnswerBody::plain(Bytes::from(text)));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// An answer with a document.
pub(super) fn xml(status: StatusCode, document: String) -> Answer {
    let mut answer = text(status, document);
    let kind = HeaderValue::from_static("application/xml");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// A document with one root and flat children.
pub(super) fn document(root: &str, children: &[(&str, &str)]) -> String {
    let mut document = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (name, value) in children {
        // Writing to a string does not fail.
        let _written = write!(document, "<{name}>{}</{name}>", escape(*value));
    }
    document + "</" + root + ">"
}

/// Adds tag and date.
pub(super) fn describe(answer: &mut Answer, meta: &Meta) {
    let headers = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&meta.tag) {
        headers.insert(ETAG, tag);
    }
    if let Ok(date) = HeaderValue::from_str(&http_date(meta.modified)) {
        headers.insert(LAST_MODIFIED, date);
    }
}

/// Whole seconds: listings and headers must agree.
fn whole(at: SystemTime) -> OffsetDateTime {
    OffsetDateTime::from(at).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Date as in RFC 9110.
fn http_date(at: SystemTime) -> String {
    whole(at).format(&Rfc2822).unwrap_or_default().replace("+0000", "GMT")
}

/// Date as in listings.
pub(super) fn iso_date(at: SystemTime) -> String {
    whole(at).format(&Rfc3339).unwrap_or_default()
}

/// Whether an object dated `modified` changed after the header's date; `None` if that is no date.
pub(super) fn modified_since(modified: SystemTime, header: &str) -> Option<bool> {
    let since = OffsetDateTime::parse(header, &Rfc2822).ok()?;
    Some(whole(modified) > since)
}
