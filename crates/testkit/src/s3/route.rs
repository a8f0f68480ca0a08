//! From method, path and query to an action.

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::answer::Refused;
use super::shelf::{is_bucket_name, is_key};
use super::signature::pairs;
use crate::fault::Op;

/// What a request wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    CreateBucket,
    HeadBucket,
    Location,
    List,
    DeleteBatch,
    Put,
    Copy,
    Get,
    Head,
    Delete,
    StartUpload,
    PutPart { upload: String, part: u32 },
    CompleteUpload { upload: String },
    AbortUpload { upload: String },
}

impl Action {
    /// The kind that faults and counters see.
    pub(super) const fn op(&self) -> Op {
        match self {
            Self::CreateBucket | Self::HeadBucket | Self::Location => Op::Other,
            Self::List => Op::List,
            Self::Put | Self::Copy | Self::StartUpload | Self::PutPart { .. } | Self::CompleteUpload { .. } => Op::Put,
            Self::Get => Op::Get,
            Self::Head => Op::Head,
            Self::Delete | Self::DeleteBatch | Self::AbortUpload { .. } => Op::Delete,
        }
    }
}

/// A request understood.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) bucket: String,
    /// Empty for bucket operations.
    pub(super) key: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) action: Action,
}

/// Parameters that change what a request means and that are understood here; `x-id` names the operation only.
const KNOWN: [&str; 13] = [
    "list-type",
    "prefix",
    "delimiter",
    "continuation-token",
    "start-after",
    "max-keys",
    "encoding-type",
    "fetch-owner",
    "location",
    "delete",
    "uploads",
    "uploadId",
    "partNumber",
];

impl Route {
    pub(super) fn parse(parts: &Parts) -> Result<Self, Refused> {
        let path = percent_decode_str(parts.uri.path()).decode_utf8().map_err(|_| Refused::KEY)?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query: Vec<(String, String)> = pairs(parts.uri.query().unwrap_or_default()).collect();
        let unknown = |(name, _): &(String, String)| name != "x-id" && !KNOWN.contains(&name.as_str());
        if bucket.is_empty() || query.iter().any(unknown) {
            return Err(Refused::UNKNOWN);
        }
        if !is_bucket_name(bucket) {
            return Err(Refused::BUCKET_NAME);
        }
        if !key.is_empty() && !is_key(key) {
            return Err(Refused::KEY);
        }
        let action = if key.is_empty() { bucket_action(&parts.method, &query) } else { object_action(parts, &query)? };
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), query, action: action.ok_or(Refused::UNKNOWN)? })
    }
}

fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn bucket_action(method: &Method, query: &[(String, String)]) -> Option<Action> {
    let has = |name| value(query, name).is_some();
    match *method {
        Method::PUT => Some(Action::CreateBucket),
        Method::HEAD => Some(Action::HeadBucket),
        Method::GET if has("location") => Some(Action::Location),
        Method::GET if value(query, "list-type") == Some("2") => Some(Action::List),
        Method::POST if has("delete") => Some(Action::DeleteBatch),
        _ => None,
    }
}

fn object_action(parts: &Parts, query: &[(String, String)]) -> Result<Option<Action>, Refused> {
    let upload = value(query, "uploadId").map(str::to_owned);
    let copies = parts.headers.contains_key("x-amz-copy-source");
    Ok(match (&parts.method, upload) {
        (&Method::PUT, Some(_)) if copies => None,
        (&Method::PUT, Some(upload)) => {
            let part = value(query, "partNumber")
                .and_then(|number| number.parse().ok())
                .filter(|number| (1..=10_000).contains(number))
                .ok_or(Refused::ARGUMENT)?;
            Some(Action::PutPart { upload, part })
        }
        (&Method::POST, Some(upload)) => Some(Action::CompleteUpload { upload }),
        (&Method::DELETE, Some(upload)) => Some(Action::AbortUpload { upload }),
        (&Method::POST, None) if value(query, "uploads").is_some() => Some(Action::StartUpload),
        (&Method::PUT, None) if copies => Some(Action::Copy),
        (&Method::PUT, None) => Some(Action::Put),
        (&Method::GET, None) => Some(Action::Get),
        (&Method::HEAD, None) => Some(Action::Head),
        (&Method::DELETE, None) => Some(Action::Delete),
        _ => None,
    })
}
