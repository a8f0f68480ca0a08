//! `blob put|get|ls|stat|rm`: files and whole folders through the HTTP API.

mod address;
mod transfer;
mod tree;
mod wire;

pub(crate) use address::file_of;
pub(crate) use tree::{Folder, PutFile};
use wire::{Buckets, Entry};

use std::path::Path;

use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde::Serialize;

use self::address::Address;
use self::transfer::Attributes;
use self::wire::Page;
use crate::cli::Global;
use crate::cli::blob::Blob;
use crate::client::{Client, Role, refusal};
use crate::failure::{Explain, Failure, Outcome};
use crate::output::{Format, bytes, table};

/// What a put or get of many did.
#[derive(Debug, Serialize)]
struct Moved {
    blobs: usize,
    bytes: u64,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: &Blob) -> Outcome {
    let client = Client::connect(global, Role::Tenant)?;
    let format = global.output;
    match command {
        Blob::Put { source, target, full, content_type, metadata, parallel, no_create } => {
            let attributes = Attributes::new(*full, content_type.as_deref(), metadata)?;
            let to = Address::parse(target)?;
            if !no_create {
                ensure_bucket(&client, &to).await?;
            }
            put(&client, format, source, to, &attributes, usize::from(*parallel)).await
        }
        Blob::Get { source, target, recursive, force, range, parallel } => {
            let target = target.as_deref();
            if *recursive {
                get_tree(&client, format, &Address::parse(source)?, target, *force, usize::from(*parallel)).await
            } else {
                get(&client, format, &Address::of_blob(source)?, target, *force, range.as_deref()).await
            }
        }
        Blob::Ls { prefix: None, .. } => {
            let buckets: Buckets = client.get("/api/v1/buckets").await?;
            format.print(&buckets, || table(["bucket", "created"], buckets.buckets.iter().map(|b| [b.name.clone(), b.created.clone()])))
        }
        Blob::Ls { prefix: Some(prefix), recursive } => list(&client, format, &Address::parse(prefix)?, *recursive).await,
        Blob::Stat { blob } => stat(&client, format, &Address::of_blob(blob)?).await,
        Blob::Rm { blob, recursive, bucket } => remove(&client, format, &Address::parse(blob)?, *recursive, *bucket).await,
    }
}

/// Uploads files into a bucket, which is made when missing.
pub(crate) async fn put_all(client: &Client, bucket: &str, files: Vec<PutFile>, parallel: usize, bar: &ProgressBar) -> Outcome {
    let to = Address { bucket: bucket.to_owned(), key: Vec::new() };
    ensure_bucket(client, &to).await?;
    tree::put(client, &to, files, &Attributes::default(), parallel, bar).await.map(drop)
}

/// URL path of a blob.
pub(crate) fn path_of(bucket: &str, key: &[u8]) -> String {
    Address { bucket: bucket.to_owned(), key: key.to_vec() }.path()
}

/// Makes the bucket unless it is there.
async fn ensure_bucket(client: &Client, address: &Address) -> Outcome {
    let request = client.request(Method::PUT, &address.bucket_path());
    let response = request.send().await.map_err(|error| client.unreachable(&error))?;
    if response.status().is_success() || response.status() == StatusCode::CONFLICT { Ok(()) } else { Err(refusal(response).await) }
}

async fn put(client: &Client, format: Format, source: &Path, to: Address, attributes: &Attributes, parallel: usize) -> Outcome {
    if source == Path::new("-") {
        if to.key.is_empty() {
            return Err(Failure::usage("standard input has no name").hint("give the whole key: bucket/key"));
        }
        let stored = transfer::upload_stdin(client, &to, attributes).await?;
        return format.print(&stored, || format!("{}  {}", to.shown(), bytes(stored.entry.size)));
    }
    if source.is_dir() {
        let folder = Folder::scan(source, &to.key)?;
        let bar = progress(folder.bytes());
        let moved = tree::put(client, &to, folder.files, attributes, parallel, &bar).await?;
        bar.finish_and_clear();
        return format.print(&moved, || format!("{} blobs, {}", moved.blobs, bytes(moved.bytes)));
    }
    let length = std::fs::metadata(source).explain(|| format!("cannot read {}", source.display()))?.len();
    let to = if to.key.is_empty() || to.key.ends_with(b"/") {
        let name = source.file_name().ok_or_else(|| Failure::usage(format!("{} has no file name", source.display())))?;
        let key = address::key_of(&to.key, Path::new(name));
        to.with_key(key)
    } else {
        to
    };
    let bar = progress(length);
    let stored = transfer::upload(client, &to, source, attributes, &bar).await?;
    bar.finish_and_clear();
    format.print(&stored, || format!("{}  {}", to.shown(), bytes(stored.entry.size)))
}

async fn get(client: &Client, format: Format, from: &Address, target: Option<&Path>, force: bool, range: Option<&str>) -> Outcome {
    let Some(target) = target.filter(|target| *target != Path::new("-")) else {
        let mut out = tokio::io::stdout();
        transfer::stream(client, from, range, &mut out, &ProgressBar::hidden()).await?;
        return tokio::io::AsyncWriteExt::flush(&mut out).await.explain(|| "cannot write to standard output".to_owned());
    };
    let name = from.key.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let file = if target.is_dir() {
        address::file_of(target, name)
            .ok_or_else(|| Failure::usage(format!("{} is no file name", from.shown())).hint("give the file to write"))?
    } else {
        target.to_path_buf()
    };
    let bar = progress(0);
    let length = transfer::download(client, from, &file, force, range, &bar).await?;
    bar.finish_and_clear();
    format.print(&Moved { blobs: 1, bytes: length }, || format!("{}  {}", file.display(), bytes(length)))
}

async fn get_tree(client: &Client, format: Format, from: &Address, target: Option<&Path>, force: bool, parallel: usize) -> Outcome {
    let target = target.ok_or_else(|| Failure::usage("--recursive needs a folder to write into"))?;
    let entries = all(client, from).await?;
    if entries.is_empty() {
        return Err(Failure::plain(format!("nothing is stored below {}", from.shown())));
    }
    let bar = progress(entries.iter().map(|entry| entry.size).sum());
    let moved = tree::get(client, from, &entries, target, force, parallel, &bar).await?;
    bar.finish_and_clear();
    format.print(&moved, || format!("{} blobs, {}", moved.blobs, bytes(moved.bytes)))
}

/// Every entry below a prefix.
async fn all(client: &Client, from: &Address) -> Outcome<Vec<Entry>> {
    let (mut entries, mut page) = (Vec::new(), None);
    loop {
        let got: Page = client.get(&from.listing(true, page.as_deref())).await?;
        entries.extend(got.blobs);
        page = got.next_page_token;
        if page.is_none() {
            return Ok(entries);
        }
    }
}

async fn list(client: &Client, format: Format, from: &Address, recursive: bool) -> Outcome {
    let (mut whole, mut page) = (Page::default(), None);
    loop {
        let got: Page = client.get(&from.listing(recursive, page.as_deref())).await?;
        whole.blobs.extend(got.blobs);
        whole.common_prefixes.extend(got.common_prefixes);
        page = got.next_page_token;
        if page.is_none() {
            break;
        }
    }
    format.print(&whole, || {
        let folders = whole.common_prefixes.iter().map(|prefix| [prefix.key.clone(), String::new(), String::new(), String::new()]);
        let blobs = whole.blobs.iter().map(|e| [e.key.clone(), bytes(e.size), e.modified.clone(), e.class.clone()]);
        table(["key", "size", "modified", "class"], folders.chain(blobs))
    })
}

async fn stat(client: &Client, format: Format, blob: &Address) -> Outcome {
    let response = client.request(Method::HEAD, &blob.path()).send().await.map_err(|error| client.unreachable(&error))?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Failure::plain(format!("there is no blob {}", blob.shown())).hint("metanode blob ls BUCKET shows what there is"));
    }
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let fields: serde_json::Map<String, serde_json::Value> = response
        .headers()
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "connection" | "accept-ranges" | "x-request-id" | "cache-control"))
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let rows = || fields.iter().map(|(name, value)| [name.clone(), value.as_str().unwrap_or_default().to_owned()]);
    format.print(&fields, || table(["field", "value"], rows()))
}

async fn remove(client: &Client, format: Format, address: &Address, recursive: bool, bucket: bool) -> Outcome {
    let mut removed = 0_usize;
    if recursive {
        for entry in all(client, address).await? {
            let blob = address.with_key(entry.key_bytes()?);
            client.send(client.request(Method::DELETE, &blob.path())).await?;
            removed += 1;
        }
    } else if !bucket {
        if address.key.is_empty() {
            return Err(
                Failure::usage(format!("{} names a bucket", address.bucket)).hint("--recursive empties it, --bucket deletes it when empty")
            );
        }
        client.send(client.request(Method::DELETE, &address.path())).await?;
        removed += 1;
    }
    if bucket {
        if !address.key.is_empty() {
            return Err(Failure::usage("--bucket takes the name of a bucket only"));
        }
        client.send(client.request(Method::DELETE, &address.bucket_path())).await?;
    }
    format.print(&serde_json::json!({ "deleted": removed, "bucket_deleted": bucket }), || format!("{removed} deleted"))
}

/// A bar on standard error; hidden when that is no terminal.
fn progress(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}
