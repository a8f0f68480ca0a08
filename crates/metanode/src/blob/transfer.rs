//! One file up, one blob down.

use std::path::Path;
use std::time::Duration;

use diaspore_engine::world::{Entropy, SystemEntropy};
use futures::StreamExt;
use indicatif::ProgressBar;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Body, Method};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::address::Address;
use super::wire::Stored;
use crate::client::{Client, may_retry};
use crate::failure::{Explain, Failure, Outcome};

/// Times a put is sent before the failure is shown; the `Idempotency-Key` makes the second a question, not a second put.
const TRIES: u32 = 4;
/// Piece in which files are read.
const PIECE: usize = 256 << 10;

/// What goes with every file of one put.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    headers: HeaderMap,
}

impl Attributes {
    /// From the flags of `blob put`.
    pub(crate) fn new(full: bool, content_type: Option<&str>, metadata: &[String]) -> Outcome<Self> {
        let mut headers = HeaderMap::new();
        let value =
            |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Failure::usage(format!("{text:?} cannot go into a header")));
        if full {
            headers.insert(HeaderName::from_static("x-diaspore-class"), HeaderValue::from_static("full"));
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, value(content_type)?);
        }
        for pair in metadata {
            let parts = pair.split_once('=').filter(|(name, _)| !name.is_empty());
            let (name, text) = parts.ok_or_else(|| Failure::usage(format!("--meta {pair:?} is not NAME=VALUE")))?;
            let name = HeaderName::try_from(format!("x-diaspore-meta-{}", name.to_ascii_lowercase()))
                .map_err(|_| Failure::usage(format!("--meta {name:?} is no header name")).hint("letters, digits, dashes"))?;
            headers.append(name, value(text)?);
        }
        Ok(Self { headers })
    }
}

/// Uploads one file. Sent again when the service could not take it or the answer was lost.
pub(crate) async fn upload(client: &Client, to: &Address, from: &Path, attributes: &Attributes, progress: &ProgressBar) -> Outcome<Stored> {
    let retry_token = fresh_token()?;
    let before = progress.position();
    let mut tried = 0;
    loop {
        tried += 1;
        let file = File::open(from).await.explain(|| format!("cannot read {}", from.display()))?;
        let length = file.metadata().await.explain(|| format!("cannot read {}", from.display()))?.len();
        let bar = progress.clone();
        let body = ReaderStream::with_capacity(file, PIECE).inspect(move |piece| {
            if let Ok(piece) = piece {
                bar.inc(u64::try_from(piece.len()).unwrap_or_default());
            }
        });
        let request = client
            .request(Method::PUT, &to.path())
            .headers(attributes.headers.clone())
            .header(CONTENT_LENGTH, length)
            .header("idempotency-key", &retry_token)
            .body(Body::wrap_stream(body));
        match client.json(request).await {
            Err(failure) if may_retry(&failure) && tried < TRIES => {
                progress.set_position(before);
                tokio::time::sleep(Duration::from_millis(250 << tried)).await;
            }
            other => return other,
        }
    }
}

/// Uploads standard input, once: it cannot be read again.
pub(crate) async fn upload_stdin(client: &Client, to: &Address, attributes: &Attributes) -> Outcome<Stored> {
    let body = Body::wrap_stream(ReaderStream::with_capacity(tokio::io::stdin(), PIECE));
    let request =
        client.request(Method::PUT, &to.path()).headers(attributes.headers.clone()).header("idempotency-key", fresh_token()?).body(body);
    client.json(request).await
}

/// Downloads a blob into a file that appears whole or not at all. Returns its length.
pub(crate) async fn download(
    client: &Client,
    from: &Address,
    to: &Path,
    force: bool,
    range: Option<&str>,
    progress: &ProgressBar,
) -> Outcome<u64> {
    if !force && to.exists() {
        return Err(Failure::plain(format!("{} exists", to.display())).hint("--force overwrites"));
    }
    if let Some(folder) = to.parent() {
        tokio::fs::create_dir_all(folder).await.explain(|| format!("cannot make {}", folder.display()))?;
    }
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let part =
        tempfile::Builder::new().prefix(".metanode-").tempfile_in(folder).explain(|| format!("cannot write into {}", folder.display()))?;
    let mut file = File::from_std(part.as_file().try_clone().explain(|| format!("cannot write {}", to.display()))?);
    let length = stream(client, from, range, &mut file, progress).await?;
    file.flush().await.explain(|| format!("cannot write {}", to.display()))?;
    part.persist(to).explain(|| format!("cannot write {}", to.display()))?;
    Ok(length)
}

/// Downloads a blob into any sink. Returns the bytes written.
pub(crate) async fn stream(
    client: &Client,
    from: &Address,
    range: Option<&str>,
    sink: &mut (impl tokio::io::AsyncWrite + Unpin),
    progress: &ProgressBar,
) -> Outcome<u64> {
    let mut request = client.request(Method::GET, &from.path());
    if let Some(range) = range {
        request = request.header(RANGE, format!("bytes={range}"));
    }
    let response = client.send(request).await?;
    let (declared, mut written) = (response.content_length(), 0_u64);
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.unreachable(&error).hint("what was written so far is verified; the rest is missing"))?;
        sink.write_all(&piece).await.explain(|| format!("cannot write {}", from.shown()))?;
        let length = u64::try_from(piece.len()).unwrap_or_default();
        written += length;
        progress.inc(length);
    }
    if declared.is_some_and(|declared| declared != written) {
        return Err(Failure::plain(format!("{} ended after {written} bytes", from.shown())));
    }
    Ok(written)
}

/// A random retry token.
fn fresh_token() -> Outcome<String> {
    let entropy = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
    let mut bytes = [0; 16];
    entropy.draw(&mut bytes);
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_becomes_headers() {
        let attributes = Attributes::new(true, Some("text/plain"), &["Owner=anna".to_owned(), "x=a=b".to_owned()]).unwrap();
        assert_eq!(attributes.headers.get("x-diaspore-class").unwrap(), "full");
        assert_eq!(attributes.headers.get("x-diaspore-meta-owner").unwrap(), "anna");
        assert_eq!(attributes.headers.get("x-diaspore-meta-x").unwrap(), "a=b");
        for bad in ["novalue", "=x", "sp ace=x", "n=a\nb"] {
            assert!(Attributes::new(false, None, &[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
