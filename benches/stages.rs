//! Processor time of every stage of the data path alone, on one thread: `cargo bench --bench stages -- [MiB per stage]`.
//!
//! The sum is what the service cannot fall below with these engines; `service -- bulk` has what it takes as a whole. Each line is
//! the median of five runs, and only the measured thread's own time counts: peers of the socket stages run on other threads.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::block::encode;
use diaspore_block::cell::cell_hashes;
use diaspore_block::compress;
use diaspore_block::erasure::coder::{FastCoder, ReferenceCoder, ShardCoder};
use diaspore_block::erasure::{parity_with, rebuild_with};
use diaspore_block::geometry::{Geometry, max_payload, shard_len_for};
use diaspore_block::id::{Attempt, BlockId, BucketId, Counter, IncarnationId, KeyVersion, TenantId};
use diaspore_block::key::{DedupKey, Keyring, TenantKeys};
use diaspore_block::limits::{BULK_SEGMENT_LOG2, CELL_LEN};
use diaspore_block::manifest::{BlockKind, BlockPosition};
use diaspore_block::seal::cipher::{FastCipher, ReferenceCipher, SegmentCipher};
use diaspore_block::section::{PayloadBuilder, open_section, section_span};
use diaspore_policy::{ProviderId, ProviderSpec};
use diaspore_provider::{Credentials, Deadline, Fleet, FleetOptions, S3Credentials};
use diaspore_testkit::EmulatorConfig;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mothcdc::mincdc::{Cdc, MinCdcHash4};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const K: u8 = 3;
const N: u8 = 5;
const RUNS: usize = 5;
/// As `chunker` in the engine: shortest and longest chunk, and the window the body is gathered in.
const CHUNK: (usize, usize) = (128 << 10, 384 << 10);
const WINDOW: usize = 2 << 20;
/// What the front reads at most at once.
const HTTP_BUFFER: usize = 128 << 10;

type Measured<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn since(before: Duration) -> Duration {
    cpu().saturating_sub(before)
}

/// Median of this thread's time over five runs, in nanoseconds per byte of `bytes`.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn median(bytes: usize, mut run: impl FnMut() -> Measured<()>) -> Measured<f64> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let before = cpu();
        run()?;
        times.push(since(before));
    }
    times.sort_unstable();
    Ok(times.get(RUNS / 2).copied().unwrap_or_default().as_secs_f64() * 1e9 / bytes as f64)
}

/// One line: the stage over its own bytes, and over the plain bytes they stand for.
fn line(sum: &mut f64, stage: &str, per_byte: f64, share: f64) {
    *sum += per_byte * share;
    println!("{stage:<44} {per_byte:7.3} ns/B  x {share:5.3}  = {:7.3} ns per plain byte", per_byte * share);
}

fn aside(stage: &str, per_byte: f64) {
    println!("{stage:<44} {per_byte:7.3} ns/B  (not in the sum)");
}

fn main() -> Measured<()> {
    let mib: usize = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(96);
    let (random, text) = (noise(mib << 20, 1), json(mib << 20));
    let expansion = f64::from(N) / f64::from(K);
    println!("# {mib} MiB per stage, {K}-of-{N}, median of {RUNS}; incompressible unless said");
    let mut sum = 0.0;
    line(&mut sum, "http in (hyper, loopback)", http_in(&random)?, 1.0);
    line(&mut sum, "chunk: gather 2 MiB windows and cut", chunk(&random)?, 1.0);
    line(&mut sum, "hash: keyed BLAKE3 of chunks", hash(&random)?, 1.0);
    line(&mut sum, "compress: probe only", compression(&random)?, 1.0);
    let world = World::new();
    let (pack, seal) = world.pack_and_seal(&random)?;
    line(&mut sum, "pack: copy into the payload", pack, 1.0);
    line(&mut sum, "seal: AES-256-GCM, 64 KiB segments", seal, 1.0);
    line(&mut sum, "code: Reed-Solomon parity", code::<FastCoder>(&random)?, 1.0);
    line(&mut sum, "cells: BLAKE3 of 64 KiB cells", cells(&random)?, expansion);
    line(&mut sum, "put (unsigned payload, loopback)", put(&random)?, expansion);
    println!("{:<44} {sum:31.3} ns per plain byte\n", "sum, up");
    aside("block::encode = pad, code, cells", world.encode(&random)?);
    aside("compress: sources and JSON, zstd 1", compression(&text)?);
    aside("seal, reference engine (aes-gcm)", cipher::<ReferenceCipher>(&random)?);
    aside("seal, fast engine (aws-lc-rs), bare", cipher::<FastCipher>(&random)?);
    aside("code, reference engine (reed-solomon-erasure)", code::<ReferenceCoder>(random.get(..16 << 20).unwrap_or(&random))?);
    println!();
    let mut sum = 0.0;
    line(&mut sum, "get (loopback)", get(&random)?, 1.0);
    line(&mut sum, "open: AES-256-GCM, 64 KiB segments", world.open(&random)?, 1.0);
    line(&mut sum, "http out (hyper, loopback)", http_out(&random)?, 1.0);
    println!("{:<44} {sum:31.3} ns per plain byte\n", "sum, down, healthy");
    aside("cells of k shards, when one is missing", cells(&random)?);
    aside("rebuild one shard, per rebuilt byte", rebuild::<FastCoder>(&random)?);
    aside("decompress: sources and JSON, per plain byte", decompression(&text)?);
    Ok(())
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn json(len: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut out = Vec::with_capacity(len + 256);
    while out.len() < len {
        let (a, b) = (rng.next_u64(), rng.next_u64());
        let text = format!(
            "{{\"time\":{},\"level\":\"info\",\"trace\":\"{b:016x}\",\"user\":{},\"path\":\"/api/v1/orders/{}\",\"status\":200}}\n",
            1_790_000_000_000 + out.len(),
            a & 0xffff,
            a >> 16 & 0xf_ffff
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.truncate(len);
    out
}

/// The engine's chunker cannot be reached from here: the same window and the same cutter.
fn chunk(data: &[u8]) -> Measured<f64> {
    let cutter = MinCdcHash4::with_params(0x9e37_79b1, 0x1234_5677);
    median(data.len(), || {
        let mut window: Vec<u8> = Vec::new();
        let (mut fed, mut chunks) = (0, 0_usize);
        while fed < data.len() {
            let take = (WINDOW - window.len()).min(data.len() - fed);
            window.extend_from_slice(data.get(fed..fed + take).unwrap_or_default());
            fed += take;
            let mut start = 0;
            while window.len() - start > CHUNK.1 {
                let first = start + CHUNK.0 - cutter.window_size();
                let search = window.get(first..start + CHUNK.1).unwrap_or_default();
                start = (first + cutter.best_splitpoint(search)).clamp(start + CHUNK.0, start + CHUNK.1);
                chunks += 1;
            }
            window.drain(..start);
        }
        if chunks < data.len() / CHUNK.1 { Err("the cutter found too few chunks".into()) } else { Ok(()) }
    })
}

fn hash(data: &[u8]) -> Measured<f64> {
    let hasher = DedupKey::from_bytes([3; 32]).bucket(&BucketId::from_bytes([4; 16]));
    median(data.len(), || {
        for chunk in data.chunks(256 << 10) {
            std::hint::black_box(hasher.chunk_id(chunk));
        }
        Ok(())
    })
}

fn cells(data: &[u8]) -> Measured<f64> {
    median(data.len(), || {
        std::hint::black_box(cell_hashes(data));
        Ok(())
    })
}

fn compression(data: &[u8]) -> Measured<f64> {
    let mut probe = compress::Probe::default();
    median(data.len(), || {
        for chunk in data.chunks(256 << 10) {
            std::hint::black_box(compress::compress(chunk, &mut probe)?);
        }
        Ok(())
    })
}

fn decompression(text: &[u8]) -> Measured<f64> {
    let mut stored = Vec::new();
    let mut probe = compress::Probe::default();
    for chunk in text.chunks(256 << 10) {
        stored.push((compress::compress(chunk, &mut probe)?.ok_or("JSON was not worth compressing")?, chunk.len()));
    }
    median(text.len(), || {
        for (stored, len) in &stored {
            std::hint::black_box(compress::decompress(stored, *len)?);
        }
        Ok(())
    })
}

/// Segments under one key, without anything around them.
fn cipher<C: SegmentCipher>(data: &[u8]) -> Measured<f64> {
    let cipher = C::new(&[5; 32])?;
    let mut buffer = data.to_vec();
    median(data.len(), || {
        for (index, segment) in (0_u64..).zip(buffer.chunks_mut(1 << BULK_SEGMENT_LOG2)) {
            let mut nonce = [0; 12];
            nonce.iter_mut().zip(index.to_be_bytes()).for_each(|(to, from)| *to = from);
            std::hint::black_box(cipher.seal(&nonce, segment)?);
        }
        Ok(())
    })
}

/// Parity of whole blocks, as long as bulk blocks get.
fn code<C: ShardCoder>(data: &[u8]) -> Measured<f64> {
    let geometry = Geometry::new(K, N)?;
    let shard = (data.len() / usize::from(K)).min((4 << 20) - 8192);
    let stripe = shard * usize::from(K);
    let bytes = data.len() / stripe * stripe;
    median(bytes, || {
        for block in data.chunks_exact(stripe) {
            let shards: Vec<&[u8]> = block.chunks(shard).collect();
            std::hint::black_box(parity_with::<C>(geometry, &shards, shard)?);
        }
        Ok(())
    })
}

fn rebuild<C: ShardCoder>(data: &[u8]) -> Measured<f64> {
    let geometry = Geometry::new(K, N)?;
    let shard = 1 << 20;
    let shards: Vec<&[u8]> = data.chunks(shard).take(usize::from(K)).collect();
    let parity = parity_with::<C>(geometry, &shards, shard)?;
    let present: Vec<(u8, &[u8])> =
        (1..K).zip(shards.iter().skip(1).copied()).chain(parity.chunks(shard).take(1).map(|row| (K, row))).collect();
    let times = data.len() / shard;
    median(times * shard, || {
        for _ in 0..times {
            std::hint::black_box(rebuild_with::<C>(geometry, &present, 0)?);
        }
        Ok(())
    })
}

/// Keys and positions of blocks.
struct World {
    keys: Keyring,
    tenant: TenantId,
    geometry: Geometry,
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let tenant = TenantId::draw(&mut rng);
        let mut keys = Keyring::create(&mut rng);
        keys.tenants.insert(tenant, TenantKeys::draw(&mut rng));
        Self { keys, tenant, geometry: Geometry::new(K, N).unwrap_or_else(|_| std::process::abort()) }
    }

    fn position(&self) -> BlockPosition {
        BlockPosition {
            deployment: self.keys.deployment,
            block: BlockId::from_bytes([1; 16]),
            kind: BlockKind::Bulk,
            incarnation: IncarnationId::from_bytes([2; 16]),
            counter: Counter(1),
            attempt: Attempt(0),
        }
    }

    /// Packs blocks into the buffers of earlier ones, as the engine does, as far as there are any.
    fn payloads(&self, data: &[u8], used: &mut Vec<Vec<u8>>) -> Measured<Vec<PayloadBuilder>> {
        let most = max_payload(K);
        let room = shard_len_for(most, K)? as usize * usize::from(K);
        let mut blocks: Vec<PayloadBuilder> = Vec::new();
        for chunk in data.chunks(256 << 10) {
            if blocks.last().is_none_or(|block| block.room() < chunk.len() as u64) {
                let mut block = PayloadBuilder::reusing(used.pop().unwrap_or_default(), most, room);
                block.begin(self.tenant, KeyVersion(1), BULK_SEGMENT_LOG2)?;
                blocks.push(block);
            }
            if let Some(block) = blocks.last_mut() {
                block.push(chunk)?;
            }
        }
        Ok(blocks)
    }

    /// Packing and sealing, each by itself.
    fn pack_and_seal(&self, data: &[u8]) -> Measured<(f64, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        let (mut packing, mut sealing) = (Vec::new(), Vec::new());
        let mut used = Vec::new();
        for _ in 0..RUNS {
            let before = cpu();
            let blocks = self.payloads(data, &mut used)?;
            packing.push(since(before));
            let before = cpu();
            for block in blocks {
                used.push(block.seal(&self.position(), &self.keys, &mut rng)?.bytes);
            }
            sealing.push(since(before));
        }
        Ok((middle(packing, data.len()), middle(sealing, data.len())))
    }

    fn encode(&self, data: &[u8]) -> Measured<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut spent = Vec::new();
        for _ in 0..RUNS {
            let mut sealed = Vec::new();
            for block in self.payloads(data, &mut Vec::new())? {
                sealed.push(block.seal(&self.position(), &self.keys, &mut rng)?.bytes);
            }
            let before = cpu();
            for payload in sealed {
                std::hint::black_box(encode(payload, self.geometry, [6; 32])?);
            }
            spent.push(since(before));
        }
        Ok(middle(spent, data.len()))
    }

    fn open(&self, data: &[u8]) -> Measured<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let mut sealed = Vec::new();
        for block in self.payloads(data, &mut Vec::new())? {
            sealed.push(block.seal(&self.position(), &self.keys, &mut rng)?);
        }
        median(data.len(), || {
            for block in &sealed {
                let section = block.sections.first().ok_or("a payload without a section")?;
                let opener = open_section(&self.position(), 0, section, &self.keys)?;
                let (range, span) = section_span(section, 0..section.plain_len)?;
                let bytes = block.bytes.get(usize::try_from(range.start)?..usize::try_from(range.end)?).ok_or("a short payload")?;
                std::hint::black_box(opener.open_span(&span, bytes)?);
            }
            Ok(())
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn middle(mut times: Vec<Duration>, bytes: usize) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e9 / bytes as f64
}

/// Peers of the measured thread.
#[expect(clippy::disallowed_methods, reason = "a peer on a thread of its own, so that its time does not count")]
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

fn single() -> Measured<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The front's connection as `diaspore-server` sets it up, answering one request.
async fn serve_one(listener: &TcpListener, answer: Bytes) -> Measured<()> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                std::hint::black_box(frame?);
            }
            Ok::<_, hyper::Error>(Response::new(Full::new(answer)))
        }
    });
    Ok(http1::Builder::new().max_buf_size(HTTP_BUFFER).keep_alive(false).serve_connection(TokioIo::new(stream), service).await?)
}

fn http_in(data: &[u8]) -> Measured<f64> {
    let runtime = single()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let (address, sent) = (listener.local_addr()?, Bytes::copy_from_slice(data));
    median(data.len(), || {
        let sent = sent.clone();
        let peer = beside(move || exchange(address, &sent));
        runtime.block_on(serve_one(&listener, Bytes::new()))?;
        peer.join().map_err(|_| "the peer panicked")??;
        Ok(())
    })
}

fn http_out(data: &[u8]) -> Measured<f64> {
    let runtime = single()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let (address, answer) = (listener.local_addr()?, Bytes::copy_from_slice(data));
    median(data.len(), || {
        let peer = beside(move || exchange(address, &[]));
        runtime.block_on(serve_one(&listener, answer.clone()))?;
        let read = peer.join().map_err(|_| "the peer panicked")??;
        if read < data.len() { Err("the answer was short".into()) } else { Ok(()) }
    })
}

/// One request and its answer, with nothing but the socket.
fn exchange(address: SocketAddr, body: &[u8]) -> Measured<usize> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "PUT / HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let (mut buffer, mut read) = (vec![0; 1 << 20], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(read),
            more => read += more,
        }
    }
}

/// A provider on a thread of its own, and the fleet that reaches it from this one.
struct Cloud {
    fleet: Fleet,
    id: ProviderId,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Measured<()>>>,
}

impl Cloud {
    fn start() -> Measured<Self> {
        let (told, endpoint) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = beside(move || -> Measured<()> {
            single()?.block_on(async {
                let cloud = EmulatorConfig::memory().with_bucket("shards").with_credentials("key", "secret").start().await?;
                told.send(cloud.endpoint())?;
                drop(stopped.await);
                Ok(())
            })
        });
        let id = ProviderId::new("cloud")?;
        let mut credentials = Credentials::new();
        credentials.insert(id.clone(), S3Credentials::new("key".to_owned(), "secret".to_owned()));
        let runtime = single()?;
        let guard = runtime.enter();
        let spec = ProviderSpec::s3(id.clone(), &endpoint.recv()?, "shards");
        let fleet = Fleet::connect(&[spec], &credentials, FleetOptions::default())?;
        drop(guard);
        Ok(Self { fleet, id, runtime, stop: Some(stop), thread: Some(thread) })
    }

    fn put(&self, data: &Bytes) -> Measured<()> {
        self.runtime.block_on(async {
            for (object, start) in (0..data.len()).step_by(4 << 20).enumerate() {
                let body = data.slice(start..data.len().min(start + (4 << 20)));
                let pieces = vec![Bytes::from_static(&[0; 2048]), body, Bytes::from_static(&[0; CELL_LEN / 32])];
                self.fleet.put(&self.id, &format!("ab/{object:038x}"), pieces, Deadline::transfer(4 << 20)).await?;
            }
            Ok(())
        })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

fn put(data: &[u8]) -> Measured<f64> {
    let (cloud, data) = (Cloud::start()?, Bytes::copy_from_slice(data));
    median(data.len(), || cloud.put(&data))
}

fn get(data: &[u8]) -> Measured<f64> {
    let (cloud, data) = (Cloud::start()?, Bytes::copy_from_slice(data));
    cloud.put(&data)?;
    let objects = data.len() / (4 << 20);
    median(objects * (4 << 20), || {
        cloud.runtime.block_on(async {
            for object in 0..objects {
                let range = 2048..2048 + (4 << 20);
                let path = format!("ab/{object:038x}");
                std::hint::black_box(cloud.fleet.get(&cloud.id, &path, Some(range), 4 << 20, Deadline::transfer(4 << 20)).await?);
            }
            Ok(())
        })
    })
}
