//! kill -9 of the real process, again and again, while uploads, overwrites and deletes run against emulated S3 accounts over sockets,
//! beside log checkpoints, collections and scrubs: what was acknowledged reads back byte for byte, the rest is wholly there or wholly
//! absent, and whichever it was, it stays so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::stream::{self, StreamExt};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::clouds::Clouds;
use crate::program::{Place, Service, wait};

/// Kills in all; `DIASPORE_KILLS` asks for more.
const KILLS: u32 = 200;
/// Kills of one deployment at most, so that a long run needs no more memory for its accounts than a short one.
const KILLS_OF_ONE: u32 = 50;
/// Deployments side by side: a start waits for leases and sockets more than it works.
const PLACES: u32 = 4;
/// Uploads in flight.
const CLIENTS: usize = 6;
/// What the service is also doing when it dies, in turn.
const CHORES: [&str; 4] = ["checkpoint", "collect?now=true&max_dead_permille=50", "scrub?deep=true", "collect?now=true"];
/// Old keys are looked at in turn, one in so many after every kill; all of them at the end.
const SAMPLE: usize = 16;

/// What a key may hold: the version acknowledged last, or one whose outcome nobody was told; none is absence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fate {
    may: Vec<Option<u32>>,
    /// Looked at since the last change.
    seen: bool,
}

/// The bytes of a key's version, of sizes that go through commit blocks, through bulk blocks, or are nothing.
fn body(key: &str, version: u32) -> Vec<u8> {
    let mut word = key.bytes().fold(0x9e37_79b9_u64, |word, byte| (word ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    word = word.wrapping_add(u64::from(version)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = [0, 11, 4096, 70_000, 900_000, 2_500_000][usize::try_from(word % 6).unwrap()];
    std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(word >> 56).unwrap()
    })
    .take(length)
    .collect()
}

struct Load<'a> {
    http: reqwest::Client,
    token: String,
    service: &'a Service,
    fates: &'a RefCell<BTreeMap<String, Fate>>,
}

impl Load<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}/api/v1/blobs/box/{key}", self.service.url)
    }

    #[expect(clippy::future_not_send, reason = "one thread, so that the kill hits a known moment")]
    /// One change of one key: a put of the version, or a delete. The error is a connection that broke.
    async fn change(&self, key: &str, version: Option<u32>) -> Result<(), reqwest::Error> {
        {
            let mut fates = self.fates.borrow_mut();
            let fate = fates.entry(key.to_owned()).or_insert_with(|| Fate { may: vec![None], seen: false });
            fate.may.push(version);
            fate.seen = false;
        }
        let request = match version {
            Some(version) => self.http.put(self.at(key)).body(body(key, version)),
            None => self.http.delete(self.at(key)),
        };
        let answer = request.bearer_auth(&self.token).send().await?;
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
        self.fates.borrow_mut().insert(key.to_owned(), Fate { may: vec![version], seen: false });
        Ok(())
    }

    #[expect(clippy::future_not_send, reason = "one thread, as above")]
    /// Has the service begin something of its own; answers its number.
    async fn begin(&self, chore: &str, operator: &str) -> Option<u64> {
        let request = self.http.post(format!("{}/api/v1/{chore}", self.service.url));
        let answer = request.bearer_auth(operator).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 202, "{chore}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["running"].as_u64()
    }

    /// Collects everything dead, to the end; answers the bytes that went.
    fn collect(&self, operator: &str, runtime: &Runtime) -> u64 {
        let number = runtime.block_on(self.begin(CHORES[1], operator)).unwrap();
        let mut state = Value::Null;
        wait("the collection to end", || {
            let request = self.http.get(format!("{}/api/v1/collect", self.service.url)).bearer_auth(operator);
            state = runtime.block_on(async { request.send().await.unwrap().json().await.unwrap() });
            state["ended"].as_u64() == Some(number)
        });
        assert_eq!(state["error"], Value::Null, "{state}");
        state["outcome"]["swept"]["bytes"].as_u64().unwrap()
    }

    #[expect(clippy::future_not_send, reason = "one thread, as above")]
    /// Works with all clients until `acknowledgements` have come, then kills the process under the others.
    async fn until_killed(&self, round: u32, acknowledgements: u32) {
        let left = Cell::new(acknowledgements);
        let clients = (0..CLIENTS).map(|client| {
            let left = &left;
            async move {
                for index in 0_u32.. {
                    // Every other key is changed again: overwritten, or deleted.
                    let key = format!("{round}/{client}/{}", index / 2);
                    let version = (index % 4 != 3).then_some(index);
                    match self.change(&key, version).await {
                        Ok(()) => {
                            left.set(left.get().saturating_sub(1));
                            if left.get() == 0 {
                                self.service.kill();
                            }
                        }
                        Err(_) if left.get() == 0 => return,
                        Err(error) => panic!("the service went away by itself: {error}"),
                    }
                }
            }
        });
        futures::future::join_all(clients).await;
    }

    #[expect(clippy::future_not_send, reason = "one thread, as above")]
    /// Reads keys and holds them against what is known of them; what is open is decided here. `round` picks old keys to look at;
    /// `None` looks at all.
    async fn check(&self, round: Option<u32>) {
        let fates = self.fates.borrow().clone();
        let turn = |index: usize| round.is_none_or(|round| index % SAMPLE == round as usize % SAMPLE);
        let due = fates.into_iter().enumerate().filter(|(index, (_, fate))| !fate.seen || turn(*index));
        let answers = stream::iter(due).map(async |(_, (key, fate))| {
            let answer = self.http.get(self.at(&key)).bearer_auth(&self.token).send().await.unwrap();
            let status = answer.status().as_u16();
            let bytes = answer.bytes().await.unwrap();
            (key, fate, status, bytes)
        });
        let mut answers = answers.buffer_unordered(8);
        while let Some((key, fate, status, bytes)) = answers.next().await {
            let found = match status {
                200 => fate.may.iter().flatten().find(|version| bytes == body(&key, **version)).map(|version| Some(*version)),
                404 => fate.may.contains(&None).then_some(None),
                other => panic!("{key} is neither there nor absent: {other} {}", String::from_utf8_lossy(&bytes)),
            };
            let Some(found) = found else { panic!("{key} may be {:?} and reads {status} with {} bytes", fate.may, bytes.len()) };
            self.fates.borrow_mut().insert(key, Fate { may: vec![found], seen: true });
        }
    }
}

/// What one deployment, or all of them, came to.
#[derive(Debug, Default)]
struct Sums {
    kills: u32,
    /// Keys that hold something at the end.
    stored: usize,
    /// Bytes that a last collection freed at the accounts.
    freed: u64,
}

/// One deployment, killed so many times.
fn campaign(kills: u32) -> Sums {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut place = Place::new();
    let _clouds = Clouds::three_of_five(&mut place);
    let fates = RefCell::new(BTreeMap::new());
    let mut freed = 0;
    for round in 0..=kills {
        let service = place.start("start");
        let load = Load {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            token: place.token("client"),
            service: &service,
            fates: &fates,
        };
        if round == kills {
            freed = load.collect(&place.token("operator"), &runtime);
        }
        runtime.block_on(async {
            let bucket = format!("{}/api/v1/buckets/box", service.url);
            load.http.put(bucket).bearer_auth(&load.token).send().await.unwrap();
            load.check((round < kills).then_some(round)).await;
            if round < kills {
                load.begin(CHORES[round as usize % CHORES.len()], &place.token("operator")).await;
                // Now in the first commit block, now deep in the window, now amid bulk blocks.
                load.until_killed(round, 1 + round * 7 % 23).await;
            }
        });
        if round == kills {
            assert_eq!(service.stop(), 0);
        }
    }
    let stored = fates.into_inner().into_values().filter(|fate| fate.may != [None]).count();
    Sums { kills, stored, freed }
}

#[test]
fn whatever_was_acknowledged_survives_kill_9() {
    let kills: u32 = std::env::var_os("DIASPORE_KILLS").map_or(KILLS, |count| count.to_str().unwrap().parse().unwrap());
    let (left, sums) = (AtomicU32::new(kills), Mutex::new(Sums::default()));
    std::thread::scope(|scope| {
        let place = || {
            let take = |left: u32| Some(left - left.min(KILLS_OF_ONE.min(kills.div_ceil(PLACES)))).filter(|_| left > 0);
            while let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                let done = campaign(before - take(before).unwrap());
                assert!(done.stored >= done.kills as usize, "hardly anything was stored: {done:?}");
                assert!(done.freed > 0, "nothing was collected: {done:?}");
                let mut sums = sums.lock().unwrap();
                *sums = Sums { kills: sums.kills + done.kills, stored: sums.stored + done.stored, freed: sums.freed + done.freed };
                println!("{} of {kills} kills, {} keys stored, {} bytes collected at the end", sums.kills, sums.stored, sums.freed);
            }
        };
        let places: Vec<_> = (0..PLACES).map(|_| scope.spawn(place)).collect();
        for place in places {
            place.join().expect("a campaign failed; its words are above");
        }
    });
    assert_eq!(sums.into_inner().unwrap().kills, kills);
}
