//! Many small blobs: rates, latencies, provider requests, and stored bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::future::try_join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::client::Client;
use crate::stage::{Stage, headline};
use crate::usage::{float, load, ms, percentile};
use crate::{Measured, Setting};

/// Flags of `small`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    setting: Setting,
    /// Bytes of a blob.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Clients at once; repeat for several runs.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    clients: Vec<usize>,
    /// How long blobs are put.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Most blobs put and read: four thousand of 4 KiB fit the service's cache twice.
    #[arg(long, default_value_t = 4000)]
    blobs: usize,
}

/// One phase: sorted latencies and the time all clients took together.
struct Phase {
    sorted: Vec<Duration>,
    wall: Duration,
}

impl Phase {
    fn print(&self, what: &str, clients: usize, cpu: Duration, more: &str) {
        let count = self.sorted.len().max(1) as u64;
        println!(
            "{what:<10} {clients:>3} clients  {:8.0}/s  p50 {:8.3} ms  p99 {:8.3} ms  service {:6.0} us of CPU each  {more}",
            float(count) / self.wall.as_secs_f64(),
            ms(percentile(&self.sorted, 50)),
            ms(percentile(&self.sorted, 99)),
            cpu.as_secs_f64() * 1e6 / float(count),
        );
    }
}

/// Runs it.
pub(crate) async fn run(flags: Flags) -> Measured<()> {
    headline("small", &flags.setting);
    println!("# {} bytes each, incompressible; at most {} s or {} blobs of puts", flags.bytes, flags.seconds, flags.blobs);
    for &clients in &flags.clients {
        println!("\n## {clients} clients (load {})", load());
        let mut stage = Stage::set(&flags.setting, false).await?;
        let before = stage.mark()?;
        let until = Instant::now() + Duration::from_secs(flags.seconds);
        let put = each(&stage.client, clients, flags.blobs, Some(until), async |client, index| {
            client.put_bytes(&key(index), blob(&flags, index)).await
        });
        let put = put.await?;
        let stored = put.sorted.len();
        stage.client.settle().await?;
        let after = stage.mark()?;
        let (moved, plain) = (after.providers - before.providers, float((stored * flags.bytes) as u64));
        let per = float(moved.requests) / float(stored as u64);
        let more = format!("{per:.3} provider requests per blob  {:.2} bytes stored per byte", float(moved.bytes_in) / plain);
        put.print("put", clients, after.service.since(&before.service), &more);
        stage = Box::pin(stage.restart()).await?;
        for what in ["get, cold", "get, hot"] {
            let before = stage.mark()?;
            let get = each(&stage.client, clients, stored, None, async |client, index| {
                // A fixed permutation: neighbours in the log are not read one after the other.
                let index = index * 7919 % stored;
                Ok(client.get_bytes(&key(index), None, &blob(&flags, index)).await?.whole)
            });
            let get = get.await?;
            let after = stage.mark()?;
            let per = float((after.providers - before.providers).gets) / float(stored as u64);
            get.print(what, clients, after.service.since(&before.service), &format!("{per:.3} provider requests per blob"));
        }
        stage.node.stop()?;
    }
    Ok(())
}

fn key(index: usize) -> String {
    format!("photos/{index:06}")
}

fn blob(flags: &Flags, index: usize) -> Bytes {
    let mut bytes = vec![0; flags.bytes];
    let mut rng = ChaCha8Rng::seed_from_u64(flags.setting.seed);
    rng.set_stream(index as u64);
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

/// Every index below `most` once, shared among so many clients, until the time is over.
#[expect(clippy::future_not_send, reason = "polled where it is made")]
async fn each(
    client: &Client,
    clients: usize,
    most: usize,
    until: Option<Instant>,
    work: impl AsyncFn(Client, usize) -> Measured<Duration>,
) -> Measured<Phase> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers = (0..clients).map(async |_| {
        let mut times = Vec::new();
        while until.is_none_or(|until| Instant::now() < until) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= most {
                break;
            }
            times.push(work(client.clone(), index).await?);
        }
        Measured::Ok(times)
    });
    let mut sorted = try_join_all(workers).await?.concat();
    let wall = began.elapsed();
    sorted.sort_unstable();
    Ok(Phase { sorted, wall })
}
