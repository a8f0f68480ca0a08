//! Dying at every single step of one operation: before and behind every change at every provider, and at every sync of the disk.
//!
//! Where the script of a seed crashes at moments it draws, a [`Story`] is told again and again, with the process dying one step
//! later each time, until it ends alive. After each death the process starts again and everything is judged: what was acknowledged
//! is there, the operation that died happened wholly or not at all, the log settles, and a recovery from the providers alone, with
//! two of them lost, gives the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diaspore_engine::Engine;
use diaspore_engine::api::{Caller, ErrorKind, Precondition};
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::{Fault, Misbehaviour, Tripwire};

use super::client::{Action, Answer, BUCKET, perform};
use super::deployment::{Deployment, DiskFate, broken};
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
        let mut world = Deployment::new(7, 6, "quickstart")?;
        let latency = Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(1), jitter: Duration::from_millis(3) });
        world.stores.iter().for_each(|store| store.set_faults(latency.into()));
        let tripwire = Tripwire::default();
        world.set_tripwire(Some(tripwire.clone()));
        world.start(true).await.map_err(broken)?;
        let caller = world.caller().await.map_err(broken)?;
        let mut telling = Self { world, model: Model::default(), caller, next: 0 };
        telling.engine()?.create_bucket(&telling.caller, BUCKET).await.map_err(broken)?;
        for (key, len) in [("kept", 3000), ("large", 700_000), ("doomed", 2000)] {
            let value = telling.value(len);
            telling.act(Action::Put { key: key.into(), value, condition: Precondition::None }).await?;
        }
        telling.settle().await?;
        let alive = telling.tell(story, step, &tripwire).await?;
        telling.world.set_tripwire(None);
        telling.judge().await?;
        Ok(alive)
    }

    fn engine(&self) -> Result<Engine, Violation> {
        self.world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
    }

    fn value(&mut self, len: usize) -> Value {
        self.next += 1;
        Value { seed: self.next, len }
    }

    /// The story itself, up to its end or the process's.
    async fn tell(&mut self, story: Story, step: u64, tripwire: &Tripwire) -> Result<bool, Violation> {
        if matches!(story, Story::Start | Story::Recovery) {
            // Writes that are released but not settled, so that the start has something to carry.
            let value = self.value(2500);
            self.act(Action::Put { key: b"tail".to_vec(), value, condition: Precondition::None }).await?;
            self.world.crash(if story == Story::Start { DiskFate::Kept } else { DiskFate::Lost });
        }
        let disk = self.world.disk();
        let left: Arc<Mutex<Option<MemoryMedium>>> = Arc::default();
        let keep = Arc::clone(&left);
        // Now nothing of what was not synced is left, now some bytes of it.
        let torn = usize::try_from(step % 3).map_err(broken)? * 150;
        tripwire.arm(step, move || *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk.crash_torn(torn)));
        let large = self.value(900_000);
        let small = self.value(1800);
        let action = match story {
            Story::SmallPut => Some(Action::Put { key: b"new".to_vec(), value: small, condition: Precondition::None }),
            Story::LargePut => Some(Action::Put { key: b"new".to_vec(), value: large, condition: Precondition::None }),
            Story::Overwrite => Some(Action::Put { key: b"large".to_vec(), value: small, condition: Precondition::None }),
            Story::Delete => Some(Action::Delete { key: b"doomed".to_vec() }),
            Story::Start | Story::Recovery | Story::Shutdown => None,
        };
        let mut answer = None;
        let outcome = {
            let world = &mut self.world;
            let (caller, answer) = (self.caller.clone(), &mut answer);
            let doing = async {
                if let Some(action) = action.clone() {
                    *answer = Some(perform(living(world)?, caller, action).await);
                } else if story == Story::Shutdown {
                    living(world)?.shutdown().await.map_err(broken)?;
                    return Ok(());
                } else {
                    world.start(false).await.map_err(broken)?;
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

    /// Starts again and looks at everything; then loses the disk and two providers, and looks again.
    async fn judge(&mut self) -> Result<(), Violation> {
        self.revive().await?;
        self.settle().await?;
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
        self.caller = self.world.caller().await.map_err(broken)?;
        for key in self.model.keys() {
            let seen = match perform(self.engine()?, self.caller.clone(), Action::Get { key: key.clone() }).await {
                Answer::Bytes { bytes, .. } => Some(self.model.identify(&key, &bytes)?),
                Answer::Refused(error) if error.kind == ErrorKind::UnknownKey => None,
                other => return Err(Violation(format!("{} reads {}", String::from_utf8_lossy(&key), other.text()))),
            };
            self.model.observed(&key, seen, true)?;
        }
        Ok(())
    }
}

fn living(world: &Deployment) -> Result<Engine, Violation> {
    world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
}
