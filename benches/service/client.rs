//! The client over HTTP. Every byte that comes back is compared.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::time::Instant;

use crate::Measured;
use crate::data::{Data, PIECE};
use crate::node::Door;

const BUCKET: &str = "bench";
/// Longest wait for anything that the service does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// A user of the service, who is also its operator.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    user: String,
    operator: String,
}

/// How long a read took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// To the first byte of the body.
    pub(crate) first: Duration,
    /// To the last.
    pub(crate) whole: Duration,
}

impl Client {
    /// Somebody at the door.
    pub(crate) fn new(door: &Door) -> Measured<Self> {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).http1_only().pool_max_idle_per_host(256).build()?;
        let base = format!("http://{}/api/v1", door.address);
        Ok(Self { http, base, user: door.client.clone(), operator: door.operator.clone() })
    }

    /// Makes the bucket.
    pub(crate) async fn create_bucket(&self) -> Measured<()> {
        self.send(self.http.put(format!("{}/buckets/{BUCKET}", self.base)).bearer_auth(&self.user)).await?;
        Ok(())
    }

    async fn send(&self, request: RequestBuilder) -> Measured<Response> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(format!("the service answered {status}: {}", response.text().await?).into())
    }

    fn blob(&self, key: &str) -> String {
        format!("{}/blobs/{BUCKET}/{key}", self.base)
    }

    /// Stores a blob; returns at the acknowledgement.
    pub(crate) async fn put(&self, key: &str, data: &Data) -> Measured<Duration> {
        let (bytes, pieces, data) = (data.len(), data.pieces(), data.clone());
        let body = stream::iter((0..pieces).map(move |index| Ok::<_, std::io::Error>(data.piece(index))));
        let began = Instant::now();
        let request = self.http.put(self.blob(key)).bearer_auth(&self.user).header(CONTENT_LENGTH, bytes);
        self.send(request.body(Body::wrap_stream(body))).await?.bytes().await?;
        Ok(began.elapsed())
    }

    /// Stores a small blob.
    pub(crate) async fn put_bytes(&self, key: &str, bytes: Bytes) -> Measured<Duration> {
        let began = Instant::now();
        self.send(self.http.put(self.blob(key)).bearer_auth(&self.user).body(bytes)).await?.bytes().await?;
        Ok(began.elapsed())
    }

    /// Reads a whole blob and compares it.
    pub(crate) async fn get(&self, key: &str, data: &Data) -> Measured<Took> {
        let began = Instant::now();
        let mut body = self.send(self.http.get(self.blob(key)).bearer_auth(&self.user)).await?.bytes_stream();
        let (mut at, mut index, mut piece, mut first) = (0_u64, u64::MAX, Bytes::new(), None);
        while let Some(part) = body.next().await {
            let mut part = part?;
            first.get_or_insert_with(|| began.elapsed());
            while !part.is_empty() {
                if at / PIECE != index {
                    index = at / PIECE;
                    piece = data.piece(index);
                }
                let start = usize::try_from(at % PIECE)?;
                let now = part.split_to(part.len().min(piece.len().saturating_sub(start)));
                if now.is_empty() || piece.get(start..start + now.len()) != Some(&now[..]) {
                    return Err(format!("{key}: wrong bytes at or behind {at}").into());
                }
                at += now.len() as u64;
            }
        }
        if at != data.len() {
            return Err(format!("{key}: {at} bytes instead of {}", data.len()).into());
        }
        Ok(Took { first: first.unwrap_or_default(), whole: began.elapsed() })
    }

    /// Reads a range, or a whole small blob, and compares it.
    pub(crate) async fn get_bytes(&self, key: &str, range: Option<Range<u64>>, expected: &[u8]) -> Measured<Took> {
        let began = Instant::now();
        let mut request = self.http.get(self.blob(key)).bearer_auth(&self.user);
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let mut body = self.send(request).await?.bytes_stream();
        let (mut at, mut first) = (0, None);
        while let Some(part) = body.next().await {
            let part = part?;
            first.get_or_insert_with(|| began.elapsed());
            if expected.get(at..at + part.len()) != Some(&part[..]) {
                return Err(format!("{key}: wrong bytes").into());
            }
            at += part.len();
        }
        if at != expected.len() {
            return Err(format!("{key}: {at} bytes instead of {}", expected.len()).into());
        }
        Ok(Took { first: first.unwrap_or_default(), whole: began.elapsed() })
    }

    /// Deletes a blob.
    pub(crate) async fn delete(&self, key: &str) -> Measured<()> {
        self.send(self.http.delete(self.blob(key)).bearer_auth(&self.user)).await?;
        Ok(())
    }

    /// Asks the operator's side for something; the path begins behind `/api/v1/`.
    pub(crate) async fn operate(&self, method: Method, path: &str) -> Measured<Value> {
        let request = self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.operator);
        Ok(serde_json::from_slice(&self.send(request).await?.bytes().await?)?)
    }

    /// Begins an errand that runs in the background, and gives its outcome.
    pub(crate) async fn carry_out(&self, begin: &str, watch: &str) -> Measured<Value> {
        let begun = self.operate(Method::POST, begin).await?;
        let number = begun.get("running").and_then(Value::as_u64).ok_or_else(|| format!("{begin} began nothing: {begun}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let state = self.operate(Method::GET, watch).await?;
            if Instant::now() > deadline {
                return Err(format!("{begin} did not end: {state}").into());
            }
            if state.get("ended").and_then(Value::as_u64) == Some(number) {
                return match state.get("error").and_then(Value::as_str) {
                    Some(error) => Err(format!("{begin}: {error}").into()),
                    None => Ok(state.get("outcome").cloned().unwrap_or_default()),
                };
            }
        }
    }

    /// Waits until every shard is durable.
    pub(crate) async fn settle(&self) -> Measured<Duration> {
        let began = Instant::now();
        let outcome = self.operate(Method::POST, "settle?timeout_s=600").await?;
        if outcome.get("settled") != Some(&Value::Bool(true)) {
            return Err(format!("not settled: {outcome}").into());
        }
        Ok(began.elapsed())
    }
}
