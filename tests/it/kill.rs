//! kill -9 of the real process, again and again, while uploads run: what was acknowledged reads back byte for byte, the rest is
//! wholly there or wholly absent, and whichever it was, it stays so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use crate::program::{Place, Service};

/// Kills; `DIASPORE_KILLS` asks for more.
const KILLS: u32 = 6;
/// Uploads in flight.
const CLIENTS: usize = 6;

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Acknowledged, or found once: it must be there.
    Stored,
    /// Found missing after a restart: it must stay so.
    Absent,
    /// Sent, not answered, not looked at yet.
    Open,
}

/// The bytes that belong to a key, of sizes that go through commit blocks, through bulk blocks, or are nothing.
fn body(key: &str) -> Vec<u8> {
    let mut word = key.bytes().fold(0x9e37_79b9_u64, |word, byte| (word ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let length = [0, 11, 4096, 70_000, 900_000, 2_500_000][usize::try_from(word % 6).unwrap()];
    std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(word >> 56).unwrap()
    })
    .take(length)
    .collect()
}

struct Uploads<'a> {
    http: reqwest::Client,
    token: String,
    service: &'a Service,
    fates: &'a RefCell<BTreeMap<String, Fate>>,
}

impl Uploads<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}/api/v1/blobs/box/{key}", self.service.url)
    }

    #[expect(clippy::future_not_send, reason = "one thread, so that the kill hits a known moment")]
    /// Uploads from all clients until `acknowledgements` have come, then kills the process under the others.
    async fn until_killed(&self, round: u32, acknowledgements: u32) {
        let left = Cell::new(acknowledgements);
        let clients = (0..CLIENTS).map(|client| {
            let left = &left;
            async move {
                for index in 0.. {
                    let key = format!("{round}/{client}/{index}");
                    self.fates.borrow_mut().insert(key.clone(), Fate::Open);
                    let answer = self.http.put(self.at(&key)).bearer_auth(&self.token).body(body(&key)).send().await;
                    match answer {
                        Ok(answer) if answer.status().is_success() => {
                            self.fates.borrow_mut().insert(key, Fate::Stored);
                            left.set(left.get().saturating_sub(1));
                            if left.get() == 0 {
                                self.service.kill();
                            }
                        }
                        Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
                        Err(_) if left.get() == 0 => return,
                        Err(error) => panic!("the service went away by itself: {error}"),
                    }
                }
            }
        });
        futures::future::join_all(clients).await;
    }

    #[expect(clippy::future_not_send, reason = "one thread, as above")]
    /// Reads every key ever sent and holds it against what is known of it; what is open is decided here.
    async fn check(&self) {
        let known: Vec<(String, Fate)> = self.fates.borrow().iter().map(|(key, fate)| (key.clone(), *fate)).collect();
        let answers = stream::iter(known).map(async |(key, fate)| {
            let answer = self.http.get(self.at(&key)).bearer_auth(&self.token).send().await.unwrap();
            let status = answer.status().as_u16();
            let bytes = answer.bytes().await.unwrap();
            (key, fate, status, bytes)
        });
        let mut answers = answers.buffer_unordered(8);
        while let Some((key, fate, status, bytes)) = answers.next().await {
            let now = match status {
                200 => Fate::Stored,
                404 => Fate::Absent,
                other => panic!("{key} is neither there nor absent: {other} {}", String::from_utf8_lossy(&bytes)),
            };
            assert!(now == Fate::Absent || bytes == body(&key), "{key} is there, but not as it was sent");
            assert!(fate == Fate::Open || fate == now, "{key} was {fate:?} and is {now:?} now");
            self.fates.borrow_mut().insert(key, now);
        }
    }
}

#[test]
fn whatever_was_acknowledged_survives_kill_9() {
    let kills = std::env::var_os("DIASPORE_KILLS").map_or(KILLS, |count| count.to_str().unwrap().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::new();
    place.init_local(5, 3);
    let fates = RefCell::new(BTreeMap::new());
    for round in 0..=kills {
        let service = place.start("start");
        let uploads = Uploads {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            token: place.token("client"),
            service: &service,
            fates: &fates,
        };
        runtime.block_on(async {
            let bucket = format!("{}/api/v1/buckets/box", service.url);
            uploads.http.put(bucket).bearer_auth(&uploads.token).send().await.unwrap();
            uploads.check().await;
            if round < kills {
                // Now in the first commit block, now deep in the window, now amid bulk blocks.
                uploads.until_killed(round, 1 + round * 7 % 23).await;
            }
        });
        if round == kills {
            assert_eq!(service.stop(), 0);
        }
    }
    let stored = fates.borrow().values().filter(|fate| **fate == Fate::Stored).count();
    assert!(stored >= kills as usize, "hardly anything was stored: {stored}");
}
