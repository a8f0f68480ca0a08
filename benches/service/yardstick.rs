//! The yardstick: the same provider bytes in the same number of requests, straight from a process to the providers; no coding,
//! no encryption, no log. What it takes nobody can save.

use std::time::Duration;

use bytes::Bytes;
use diaspore_provider::{Deadline, Fleet, FleetOptions};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Measured;
use crate::child::{Child, Questions, answer};
use crate::emulators::{State, accounts};
use crate::usage::Usage;

/// Blocks of five shards that the service's memory bound lets be on their way together.
const PUTS_IN_FLIGHT: usize = 20;
/// Shard ranges that a read of the service has on the way together.
const GETS_IN_FLIGHT: usize = 9;

#[derive(Serialize, Deserialize)]
enum Question {
    Put { objects: u64, bytes: u64 },
    Get { requests: u64, bytes: u64, stored: u64 },
}

/// What it took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

/// The driver's end.
pub(crate) struct Yardstick {
    child: Child,
    /// Objects of the last upload, and bytes of each.
    stored: (u64, u64),
}

impl Yardstick {
    /// Connects to the providers.
    pub(crate) fn start(endpoints: &[String]) -> Measured<Self> {
        let (child, ()) = Child::start("yardstick", &endpoints)?;
        Ok(Self { child, stored: (1, 1) })
    }

    /// Stores what the service stored between two moments: as many objects, as many bytes.
    pub(crate) fn put(&mut self, moved: State) -> Measured<Answer> {
        let objects = moved.puts.max(1);
        self.stored = (objects, (moved.bytes_in / objects).max(1));
        self.child.ask(&Question::Put { objects, bytes: self.stored.1 })
    }

    /// Reads what the service read between two moments, out of the objects stored last.
    pub(crate) fn get(&mut self, moved: State) -> Measured<Answer> {
        let (stored, longest) = self.stored;
        let bytes = (moved.bytes_out / moved.gets.max(1)).clamp(1, longest);
        self.child.ask(&Question::Get { requests: moved.bytes_out / bytes, bytes, stored })
    }
}

fn path(object: u64) -> String {
    format!("{:02x}/{object:038x}", object % 256)
}

/// The process.
pub(crate) async fn serve() -> Measured<()> {
    let (endpoints, mut questions) = Questions::open::<Vec<String>>().await?;
    let (specs, credentials) = accounts(&endpoints)?;
    let fleet = Fleet::connect(&specs, &credentials, FleetOptions::default())?;
    answer(&())?;
    let home = |object: u64| {
        let index = usize::try_from(object).unwrap_or_default() % specs.len().max(1);
        specs.get(index).map(|spec| spec.id.clone()).ok_or("no provider")
    };
    while let Some(question) = questions.next().await? {
        let (began, before) = (Instant::now(), Usage::now()?);
        match question {
            Question::Put { objects, bytes } => {
                let payload = Bytes::from(vec![0x5a; usize::try_from(bytes)?]);
                let put = async |object: u64| -> Measured<()> {
                    Ok(fleet.put(&home(object)?, &path(object), vec![payload.clone()], Deadline::transfer(bytes)).await?)
                };
                stream::iter(0..objects).map(put).buffer_unordered(PUTS_IN_FLIGHT).try_collect::<()>().await?;
            }
            Question::Get { requests, bytes, stored } => {
                let get = async |request: u64| -> Measured<()> {
                    let object = request % stored.max(1);
                    drop(fleet.get(&home(object)?, &path(object), Some(0..bytes), bytes, Deadline::transfer(bytes)).await?);
                    Ok(())
                };
                stream::iter(0..requests).map(get).buffer_unordered(GETS_IN_FLIGHT).try_collect::<()>().await?;
            }
        }
        answer(&Answer { wall: began.elapsed(), cpu: Usage::now()?.since(&before) })?;
    }
    Ok(())
}
