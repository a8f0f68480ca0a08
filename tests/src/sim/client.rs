//! The clients of a simulated deployment: what they ask for and what they are told.

use bytes::Bytes;
use diaspore_engine::Engine;
use diaspore_engine::api::{ByteRange, Caller, Error, GetOptions, Precondition, PutOptions};
use futures::StreamExt;
use futures::stream;

use super::model::Value;

/// The one bucket.
pub(super) const BUCKET: &str = "scattered";

/// One client operation.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Put { key: Vec<u8>, value: Value, condition: Precondition },
    Delete { key: Vec<u8> },
    Get { key: Vec<u8> },
    Range { key: Vec<u8>, first: u64, last: u64 },
}

/// How an operation ended for its client.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Bytes { start: u64, size: u64, bytes: Vec<u8> },
    Refused(Error),
}

/// Carries one operation out.
pub(super) async fn perform(engine: Engine, caller: Caller, action: Action) -> Answer {
    let outcome = match action {
        Action::Put { key, value, condition } => {
            let bytes = Bytes::from(value.bytes());
            let options = PutOptions { length: Some(bytes.len() as u64), precondition: condition, ..PutOptions::default() };
            let pieces: Vec<_> = (0..bytes.len()).step_by(100_000).map(|at| Ok(bytes.slice(at..bytes.len().min(at + 100_000)))).collect();
            engine.put_blob(&caller, BUCKET, &key, options, stream::iter(pieces).boxed()).await.map(|_| Answer::Done)
        }
        Action::Delete { key } => engine.delete_blob(&caller, BUCKET, &key, Precondition::None, None).await.map(|_| Answer::Done),
        Action::Get { key } => read(&engine, &caller, &key, None).await,
        Action::Range { key, first, last } => read(&engine, &caller, &key, Some(ByteRange::From { first, last: Some(last) })).await,
    };
    outcome.unwrap_or_else(Answer::Refused)
}

async fn read(engine: &Engine, caller: &Caller, key: &[u8], range: Option<ByteRange>) -> Result<Answer, Error> {
    let mut got = engine.get_blob(caller, BUCKET, key, &GetOptions { range, version: None }).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = got.body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(Answer::Bytes { start: got.range.start, size: got.blob.size, bytes })
}

impl Action {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Put { key, value, condition } => {
                format!(
                    "put {} {}B{}",
                    String::from_utf8_lossy(key),
                    value.len,
                    if *condition == Precondition::None { "" } else { " if absent" }
                )
            }
            Self::Delete { key } => format!("delete {}", String::from_utf8_lossy(key)),
            Self::Get { key } => format!("get {}", String::from_utf8_lossy(key)),
            Self::Range { key, first, last } => format!("get {} [{first}, {last}]", String::from_utf8_lossy(key)),
        }
    }
}

impl Answer {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Done => "done".into(),
            Self::Bytes { bytes, .. } => format!("{} bytes", bytes.len()),
            Self::Refused(error) => format!("{:?}", error.kind),
        }
    }
}
