//! Dying at every single step of one operation: before and behind every change at every provider, and at every sync of the disk.
//!
//! Where the script of a seed crashes at moments it draws, a [`Story`] is told again and again, with the process dying one step
//! later each time, until it ends alive. After each death the process starts again and everything is judged: what was acknowledged
//! is there, the operation that died happened wholly or not at all, the log settles, and a recovery from the providers alone, with
//! two of them lost, gives the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_engine::api::{Caller, ErrorKind, Precondition};
use diaspore_engine::{CollectAsked, Engine, Errand, EvacuateAsked, Relocated};
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::{Fault, Misbehaviour, Tripwire};

use super::client::{Action, Answer, BUCKET, perform};
use super::deployment::{Deployment, DiskFate, broken, sound};
use super::model::{Model, Value, Violation};

/// An operation to die in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A blob that rides in a commit block.
    SmallPut,
    /// A blob in bulk blocks of its own.
    LargePut,
    /// A new version of a blob that exists.
    Overwrite,
    /// A delete.
    Delete,
    /// A start after a crash that left a tail to carry over.
    Start,
    /// A recovery with an empty disk.
    Recovery,
    /// An orderly stop.
    Shutdown,
    /// A garbage collection that deletes blocks nobody names.
    Collect,
    /// A garbage collection that moves what is alive out of a block that is mostly dead.
    Compact,
    /// A scrub that finds the shards of one provider gone, and their repair.
    Repair,
    /// The third checkpoint of the log, by which the first is forgotten.
    Checkpoint,
    /// Another master key.
    Rotate,
    /// One of seven accounts is left for the other six.
    Leave,
}

impl Story {
    /// Every story.
    pub const ALL: [Self; 7] = [Self::SmallPut, Self::LargePut, Self::Overwrite, Self::Delete, Self::Start, Self::Recovery, Self::Shutdown];
}

/// Tells the story with a death at every step, on paused runtimes of its own; answers the number of steps.
pub fn walk_blocking(story: Story) -> Result<u64, Violation> {
    for step in 0.. {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().map_err(broken)?;
        let told = runtime.block_on(Box::pin(Telling::begin(story, step)));
        let ended_alive = told.map_err(|Violation(what)| Violation(format!("{story:?}, dying at step {step}: {what}")))?;
        if ended_alive {
            return Ok(step);
        }
    }
    Ok(u64::MAX)
}

struct Telling {
    world: Deployment,
    model: Model,
    caller: Caller,
    next: u64,
}

impl Telling {
    /// Tells it once; true when the process outlived it.
    async fn begin(story: Story, step: u64) -> Result<bool, Violation> {
        let mut world = Deployment::new(7, if story == Story::Leave { 7 } else { 6 }, "quickstart")?;
        let latency = Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(1), jitter: Duration::from_millis(3) });
        world.stores.iter().for_each(|store| store.set_faults(latency.into()));
        if matches!(story, Story::Rotate | Story::Leave) {
            world.seal_keys();
        }
        let tripwire = Tripwire::default();
        world.set_tripwire(Some(tripwire.clone()));
        world.start(true).await.map_err(broken)?;
        let caller = world.caller().await.map_err(broken)?;
        let mut telling = Self { world, model: Model::default(), caller, next: 1 };
        telling.engine()?.create_bucket(&telling.caller, BUCKET).await.map_err(broken)?;
        for (key, len) in [("kept", 3000), ("large", 1_300_000), ("doomed", 2000)] {
            let value = telling.value(len);
            telling.act(Action::Put { key: key.into(), value, condition: Precondition::None }).await?;
        }
        telling.settle().await?;
        telling.prepare(story).await?;
        let alive = telling.tell(story, step, &tripwire).await?;
        telling.world.set_tripwire(None);
        telling.judge(story).await?;
        Ok(alive)
    }

    fn engine(&self) -> Result<Engine, Violation> {
        self.world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
    }

    fn value(&mut self, len: usize) -> Value {
        // Odd seeds give bytes that do not compress: what is large stays large.
        self.next += 2;
        Value { seed: self.next, len }
    }

    /// What must have happened before the story can be told.
    async fn prepare(&mut self, story: Story) -> Result<(), Violation> {
        match story {
            Story::Start | Story::Recovery => {
                // Writes that are released but not settled, so that the start has something to carry.
                let value = self.value(2500);
                self.act(Action::Put { key: b"tail".to_vec(), value, condition: Precondition::None }).await?;
                self.world.crash(if story == Story::Start { DiskFate::Kept } else { DiskFate::Lost });
            }
            Story::Collect => {
                self.act(Action::Delete { key: b"large".to_vec() }).await?;
                self.settle().await?;
            }
            Story::Compact => {
                // The part shares its chunks with the whole, which then goes.
                let whole = self.value(1_500_000);
                let part = Value { len: 200_000, ..whole };
                for (key, value) in [("whole", whole), ("part", part)] {
                    self.act(Action::Put { key: key.into(), value, condition: Precondition::None }).await?;
                }
                self.act(Action::Delete { key: b"whole".to_vec() }).await?;
                self.settle().await?;
            }
            Story::Repair => {
                if let Some(store) = self.world.stores.last() {
                    for (path, _) in store.objects() {
                        store.tamper(&path, None);
                    }
                }
            }
            Story::Checkpoint => {
                for _ in 0..2 {
                    self.engine()?.checkpoint_log().await.map_err(broken)?;
                }
            }
            Story::SmallPut | Story::LargePut | Story::Overwrite | Story::Delete | Story::Shutdown | Story::Rotate | Story::Leave => (),
        }
        Ok(())
    }

    /// The story itself, up to its end or the process's.
    async fn tell(&mut self, story: Story, step: u64, tripwire: &Tripwire) -> Result<bool, Violation> {
        let disk = self.world.disk();
        let left: Arc<Mutex<Option<MemoryMedium>>> = Arc::default();
        let keep = Arc::clone(&left);
        // Now nothing of what was not synced is left, now some bytes of it.
        let torn = usize::try_from(step % 3).map_err(broken)? * 150;
        tripwire.arm(step, move || *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk.crash_torn(torn)));
        let large = self.value(1_400_000);
        let small = self.value(1800);
        let action = match story {
            Story::SmallPut => Some(Action::Put { key: b"new".to_vec(), value: small, condition: Precondition::None }),
            Story::LargePut => Some(Action::Put { key: b"new".to_vec(), value: large, condition: Precondition::None }),
            Story::Overwrite => Some(Action::Put { key: b"large".to_vec(), value: small, condition: Precondition::None }),
            Story::Delete => Some(Action::Delete { key: b"doomed".to_vec() }),
            _ => None,
        };
        let mut answer = None;
        let outcome = {
            let world = &mut self.world;
            let (caller, answer) = (self.caller.clone(), &mut answer);
            let doing = async {
                if let Some(action) = action.clone() {
                    *answer = Some(perform(living(world)?, caller, action).await);
                }
                match story {
                    Story::Shutdown => return living(world)?.shutdown().await.map_err(broken),
                    Story::Start | Story::Recovery => world.start(false).await.map_err(broken)?,
                    Story::Collect | Story::Compact => collect(&living(world)?).await?,
                    Story::Checkpoint => drop(living(world)?.checkpoint_log().await.map_err(broken)?),
                    Story::Repair => scrub(&living(world)?).await?,
                    Story::Rotate => world.rotate().await.map_err(broken)?,
                    Story::Leave => leave(world).await?,
                    Story::SmallPut | Story::LargePut | Story::Overwrite | Story::Delete => (),
                }
                living(world)?.settle_wait(Duration::from_mins(1)).await.map_err(broken)?;
                // The view's flush and whatever else comes by itself.
                tokio::time::sleep(Duration::from_secs(12)).await;
                Ok::<(), Violation>(())
            };
            tokio::select! {
                biased;
                () = tripwire.tripped() => None,
                done = tokio::time::timeout(Duration::from_mins(30), doing) => Some(done.map_err(|_| Violation("it does not end".into()))?),
            }
        };
        let alive = match outcome {
            None => false,
            Some(done) => {
                done?;
                !tripwire.is_dead()
            }
        };
        if let Some(action) = &action {
            self.learn(action, answer)?;
        }
        if alive {
            self.world.crash(DiskFate::Kept);
        } else {
            let image = left.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.world.crash_to(image.ok_or_else(|| Violation("the tripwire kept no disk".into()))?);
        }
        Ok(alive)
    }

    /// Carries out an operation that must succeed.
    async fn act(&mut self, action: Action) -> Result<(), Violation> {
        let answer = perform(self.engine()?, self.caller.clone(), action.clone()).await;
        if let Answer::Refused(error) = &answer {
            return Err(Violation(format!("{}: {error}", action.text())));
        }
        self.learn(&action, Some(answer))
    }

    fn learn(&mut self, action: &Action, answer: Option<Answer>) -> Result<(), Violation> {
        let (key, state) = match action {
            Action::Put { key, value, .. } => (key, Some(*value)),
            Action::Delete { key } => (key, None),
            Action::Get { .. } | Action::Range { .. } => return Ok(()),
        };
        match answer {
            Some(Answer::Done) => self.model.acknowledged(key, state),
            Some(Answer::Refused(error)) => {
                return Err(Violation(format!("{} is refused with all providers well: {error}", action.text())));
            }
            _ => self.model.uncertain(key, state),
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), Violation> {
        let report = self.engine()?.settle_wait(Duration::from_mins(5)).await.map_err(broken)?;
        if report.unsettled_blocks == 0 { Ok(()) } else { Err(Violation(format!("{} blocks do not settle", report.unsettled_blocks))) }
    }

    /// Starts again and looks at everything; collects, repairs and looks again; then loses the disk and two providers, and looks once
    /// more.
    async fn judge(&mut self, story: Story) -> Result<(), Violation> {
        self.revive().await?;
        self.settle().await?;
        if story == Story::Leave {
            // The same command ends what was begun, whatever was done of it.
            leave(&self.world).await?;
        }
        collect(&self.engine()?).await?;
        scrub(&self.engine()?).await?;
        self.settle().await?;
        if self.world.is_key_change_unfinished() {
            self.world.rotate().await.map_err(|error| Violation(format!("the change of the key does not end: {error}")))?;
            self.world.crash(DiskFate::Kept);
            self.revive().await?;
        }
        self.world.expect_one_key(None).await?;
        for store in self.world.stores.iter().take(2) {
            store.lose_everything();
        }
        self.world.crash(DiskFate::Lost);
        self.revive().await
    }

    async fn revive(&mut self) -> Result<(), Violation> {
        self.world.start(false).await.map_err(|error| Violation(format!("the start is refused: {error}")))?;
        let state = self.engine()?.status().state;
        if state != "active" {
            return Err(Violation(format!("{state} after the start")));
        }
        if let Some(error) = self.world.untended.take() {
            return Err(Violation(format!("the start left the keys untended: {error}")));
        }
        self.caller = self.world.caller().await.map_err(broken)?;
        for key in self.model.keys() {
            let seen = match perform(self.engine()?, self.caller.clone(), Action::Get { key: key.clone() }).await {
                Answer::Bytes { bytes, .. } => Some(self.model.identify(&key, &bytes)?),
                Answer::Refused(error) if error.kind == ErrorKind::UnknownKey => None,
                other => return Err(Violation(format!("{} reads {}", String::from_utf8_lossy(&key), other.text()))),
            };
            self.model.observed(&key, seen, true)?;
        }
        sound(&self.engine()?)
    }
}

fn living(world: &Deployment) -> Result<Engine, Violation> {
    world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
}

/// Collects whatever can be, at once.
async fn collect(engine: &Engine) -> Result<(), Violation> {
    let asked = CollectAsked { now: true, max_dead_permille: Some(50), dry_run: false };
    engine.collect(asked).await.map(drop).map_err(|error| Violation(format!("the collection ended early: {error}")))
}

/// Leaves the first account, up to the certificate that nothing is left there.
async fn leave(world: &Deployment) -> Result<(), Violation> {
    // What the process does at a start.
    world.spread_keyring().await.map_err(broken)?;
    let provider = world.stores.first().map(|store| store.name().to_owned()).unwrap_or_default();
    let errand = Errand::Evacuate(EvacuateAsked { provider, dead: false, dry_run: false, most: None });
    match living(world)?.relocate(errand).await {
        Ok(Relocated::Evacuated(done)) if done.certified && done.remaining == 0 => Ok(()),
        Ok(other) => Err(Violation(format!("the account is not left: {other:?}"))),
        Err(error) => Err(Violation(format!("leaving ended early: {error}"))),
    }
}

/// Looks at every shard and waits until what is missing was made again.
async fn scrub(engine: &Engine) -> Result<(), Violation> {
    engine.scrub(false).map_err(broken)?;
    let report = engine.scrub_wait(Duration::from_mins(30)).await;
    let whole = report.census.as_ref().is_some_and(|census| census.degraded + census.at_risk + census.lost == 0);
    if !report.running && report.repairs_left == 0 && whole {
        Ok(())
    } else {
        Err(Violation(format!("not everything was repaired: {report:?}")))
    }
}
