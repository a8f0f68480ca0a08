//! What a provider really does, found out by doing it: `providers configure --test`.

use std::time::Duration;

use bytes::Bytes;
use diaspore_policy::ProviderId;
use object_store::PutPayload;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::error::{ErrorKind, Operation, ProviderError};
use crate::fleet::{Fleet, send_put};

/// Outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Works,
    /// It does not, and this is what happened.
    Fails(String),
    /// An earlier failure made the probe pointless.
    NotTried,
}

impl Verdict {
    /// Whether it works.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }
}

/// One probe and the time it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Outcome.
    pub verdict: Verdict,
    /// Time taken.
    pub took: Duration,
}

/// Report of a self-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Account tested.
    pub provider: ProviderId,
    /// Writes an object.
    pub put: Probe,
    /// Reads it back byte-equal.
    pub get: Probe,
    /// Reads a range of it, exactly.
    pub range: Probe,
    /// Tells its size.
    pub head: Probe,
    /// A LIST started after the acknowledgement shows it. Claims need this or `refuses_overwrite` (PROTOCOL rule 5).
    pub list_after_write: Probe,
    /// `If-None-Match: *` on the taken name is refused and the first bytes stay.
    pub refuses_overwrite: Probe,
    /// Removes it, and it is gone.
    pub delete: Probe,
}

impl Capabilities {
    /// Whether shards can be kept there.
    pub fn can_store(&self) -> bool {
        [&self.put, &self.get, &self.range, &self.head, &self.delete].iter().all(|probe| probe.verdict.works())
    }

    /// Whether claims can be kept there.
    pub fn can_claim(&self) -> bool {
        self.can_store() && (self.list_after_write.verdict.works() || self.refuses_overwrite.verdict.works())
    }

    /// All probes with their names, in order.
    pub fn probes(&self) -> [(&'static str, &Probe); 7] {
        [
            ("put", &self.put),
            ("get", &self.get),
            ("range", &self.range),
            ("head", &self.head),
            ("list-after-write", &self.list_after_write),
            ("refuses-overwrite", &self.refuses_overwrite),
            ("delete", &self.delete),
        ]
    }
}

const SAMPLE_LEN: usize = 64 * 1024 + 1;
const PROBE_PREFIX: &str = "selftest";

impl Fleet {
    /// Writes, reads, lists, tries to overwrite and deletes one object of 64 KiB under a name made from `nonce` (16 random bytes of
    /// the caller's generator). Every probe is bounded; a failed one does not end the test unless the rest depends on it.
    pub async fn self_test(&self, id: &ProviderId, nonce: [u8; 16]) -> Result<Capabilities, ProviderError> {
        self.member(id, Operation::Put)?;
        let name = format!("{:032x}", u128::from_be_bytes(nonce));
        let path = format!("{PROBE_PREFIX}/{name}");
        // Cheap bytes that depend on the nonce: a provider cannot pass by returning an earlier test's object.
        let sample: Bytes =
            nonce.iter().copied().cycle().zip(0_u8..=250).map(|(a, b)| a ^ b).collect::<Vec<_>>().repeat(SAMPLE_LEN / 250).into();
        let deadline = Deadline::transfer(sample.len() as u64);
        let test = Test { fleet: self, id, path: &path, sample: &sample, deadline };

        let put = timed(test.put()).await;
        let stored = put.verdict.works();
        let get = after(stored, test.get()).await;
        let range = after(stored, test.range()).await;
        let head = after(stored, test.head()).await;
        let list_after_write = after(stored, test.list()).await;
        let refuses_overwrite = after(stored, test.overwrite()).await;
        // Clean up even when the PUT seemed to fail: it may have landed.
        let delete = timed(test.delete()).await;
        let delete = if stored { delete } else { Probe { verdict: Verdict::NotTried, took: delete.took } };
        Ok(Capabilities { provider: id.clone(), put, get, range, head, list_after_write, refuses_overwrite, delete })
    }
}

struct Test<'a> {
    fleet: &'a Fleet,
    id: &'a ProviderId,
    path: &'a str,
    sample: &'a Bytes,
    deadline: Deadline,
}

type Step = Result<(), String>;

impl Test<'_> {
    async fn put(&self) -> Step {
        let (head, tail) = (self.sample.slice(..1000), self.sample.slice(1000..));
        self.fleet.put(self.id, self.path, vec![head, tail], self.deadline).await.map_err(|error| error.to_string())
    }

    async fn get(&self) -> Step {
        let stored =
            self.fleet.get(self.id, self.path, None, self.sample.len() as u64, self.deadline).await.map_err(|error| error.to_string())?;
        check(stored == *self.sample, "it returned other bytes than it was given")
    }

    async fn range(&self) -> Step {
        let part = self.fleet.get(self.id, self.path, Some(777..4873), 4096, self.deadline).await.map_err(|error| error.to_string())?;
        check(Some(&*part) == self.sample.get(777..4873), "it returned other bytes than the range asked for")
    }

    async fn head(&self) -> Step {
        let size = self.fleet.exists(self.id, self.path, self.deadline).await.map_err(|error| error.to_string())?;
        check(size == Some(self.sample.len() as u64), "it reported another size than was written")
    }

    async fn list(&self) -> Step {
        let listed = self.fleet.list(self.id, PROBE_PREFIX, 10_000, self.deadline).await.map_err(|error| error.to_string())?;
        let entry = (self.path.to_owned(), self.sample.len() as u64);
        check(listed.contains(&entry), "a listing right after the write does not show the object")
    }

    async fn overwrite(&self) -> Step {
        let member = self.fleet.member(self.id, Operation::Put).map_err(|error| error.to_string())?;
        let location = self.fleet.location(member, Operation::Put, self.path).map_err(|error| error.to_string())?;
        let other = PutPayload::from_static(b"a second writer");
        match send_put(member, &location, other, 15, true, self.deadline).await {
            Ok(()) => return Err("it accepted a create-only write onto an existing object".to_owned()),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.to_string()),
        }
        self.get().await
    }

    async fn delete(&self) -> Step {
        self.fleet.delete(self.id, self.path, self.deadline).await.map_err(|error| error.to_string())?;
        let left = self.fleet.exists(self.id, self.path, self.deadline).await.map_err(|error| error.to_string())?;
        check(left.is_none(), "the object is still there after its deletion")
    }
}

fn check(holds: bool, otherwise: &str) -> Step {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

async fn timed(step: impl Future<Output = Step>) -> Probe {
    let started = Instant::now();
    let verdict = match step.await {
        Ok(()) => Verdict::Works,
        Err(why) => Verdict::Fails(why),
    };
    Probe { verdict, took: started.elapsed() }
}

async fn after(possible: bool, step: impl Future<Output = Step>) -> Probe {
    if possible { timed(step).await } else { Probe { verdict: Verdict::NotTried, took: Duration::ZERO } }
}
