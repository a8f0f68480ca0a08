//! The script: what a seed makes of a deployment, step by step.

mod draw;
mod garbage;
mod judge;
mod keys;
mod upkeep;

use std::collections::BTreeSet;
use std::time::Duration;

use diaspore_engine::Engine;
use diaspore_engine::api::{Caller, Precondition};
use diaspore_engine::config::Mode;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sha2::{Digest, Sha256};

use super::client::{Action, Answer, BUCKET, perform};
use super::deployment::{Deployment, DiskFate, broken};
use super::model::{Model, Value, Violation};

/// Which faults a run may see, and so what it demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Honest providers, crashes, every fate of the disk.
    Crashes,
    /// One provider lies, loses or misbehaves in every way there is; the disk may be lost too. Nothing acknowledged may be lost.
    OneLiar,
    /// Any provider may be silent, slow or erratic for a while, several at once. Operations and starts may be refused; once all
    /// are back, everything acknowledged is there.
    Outages,
    /// A second writer starts from a copy of the disk or from nothing while the first lives. The first must stop acknowledging.
    Takeover,
}

impl Scenario {
    /// The scenario that a seed stands for.
    pub fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self::Crashes,
            1 => Self::OneLiar,
            2 => Self::Outages,
            _ => Self::Takeover,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// Its scenario.
    pub scenario: Scenario,
    /// SHA-256 over every request at every provider and every answer of the engine.
    pub trace: [u8; 32],
    /// Mutations acknowledged.
    pub acknowledged: u64,
    /// Reads judged.
    pub reads: u64,
    /// Process starts that reached service.
    pub starts: u64,
    /// What happened, a line each.
    pub lines: Vec<String>,
}

/// Runs one seed on a paused, single-threaded runtime of its own.
pub fn run_blocking(seed: u64, steps: usize) -> Result<Report, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().map_err(broken)?;
    runtime.block_on(run(seed, steps))
}

/// Runs one seed: `steps` drawn steps, then all faults end, everything is checked, the disk and as many providers as the
/// geometry allows are lost, and everything is checked again.
pub async fn run(seed: u64, steps: usize) -> Result<Report, Violation> {
    let mut script = Script::new(seed)?;
    let outcome = Box::pin(script.play(steps)).await;
    outcome.map_err(|Violation(what)| {
        let tail: Vec<&str> = script.report.lines.iter().rev().take(40).rev().map(String::as_str).collect();
        Violation(format!("seed {seed} ({:?}): {what}\n{}", script.report.scenario, tail.join("\n")))
    })?;
    let mut hash = Sha256::new();
    for store in &script.world.stores {
        hash.update(store.trace_hash());
    }
    for line in &script.report.lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    script.report.trace = hash.finalize().into();
    Ok(script.report)
}

struct Script {
    rng: ChaCha12Rng,
    world: Deployment,
    model: Model,
    report: Report,
    liar: usize,
    /// The disk was set back in this run: it believes shards where they were, until somebody looks.
    set_back: bool,
    next_value: u64,
    /// Values that are stored in pieces, to be put again under other keys: what deduplication finds.
    long: Vec<Value>,
}

impl Script {
    fn new(seed: u64) -> Result<Self, Violation> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x6469_6173_706f_7265);
        // Every scenario meets both a layout that never steps down and one that does.
        let profile = if matches!(seed % 16, 6..=9) { "low-overhead" } else { "quickstart" };
        // With one provider more than a block has shards there is room to move.
        let providers = if seed.is_multiple_of(8) { 7 } else { 6 };
        let mut world = Deployment::new(rng.next_u64(), providers, profile)?;
        world.seal_keys();
        let liar = rng.random_range(0..world.stores.len());
        let report = Report { seed, scenario: Scenario::of(seed), trace: [0; 32], acknowledged: 0, reads: 0, starts: 0, lines: Vec::new() };
        Ok(Self { rng, world, model: Model::default(), report, liar, set_back: false, next_value: seed << 20, long: Vec::new() })
    }

    async fn play(&mut self, steps: usize) -> Result<(), Violation> {
        self.world.start(true).await.map_err(|error| Violation(format!("the first start failed: {error}")))?;
        self.report.starts += 1;
        let caller = self.world.caller().await.map_err(broken)?;
        self.engine()?.create_bucket(&caller, BUCKET).await.map_err(broken)?;
        for step in 0..steps {
            self.faults();
            match self.rng.random_range(0..100) {
                0..64 => self.batch(&caller).await?,
                64..68 => Box::pin(self.collect(&caller)).await?,
                68..70 => Box::pin(self.leave(&caller)).await?,
                70..80 => self.restart(step).await?,
                80..86 => self.listing(&caller).await?,
                86..92 => {
                    self.world.remember_disk();
                    self.note("disk remembered");
                }
                92..94 => self.settle(Duration::from_secs(20)).await,
                94..96 => self.wreck(),
                96..97 => self.scrub().await?,
                97..98 => Box::pin(self.rotate()).await?,
                _ if self.report.scenario == Scenario::Takeover => Box::pin(self.takeover(&caller)).await?,
                _ => self.batch(&caller).await?,
            }
        }
        Box::pin(self.finish(&caller)).await
    }

    fn engine(&self) -> Result<Engine, Violation> {
        self.world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
    }

    fn note(&mut self, line: impl Into<String>) {
        self.report.lines.push(line.into());
    }

    /// Several operations at once on different keys; now and then the process dies in the middle.
    async fn batch(&mut self, caller: &Caller) -> Result<(), Violation> {
        let actions = self.actions();
        let deadline = if self.rng.random_range(0..6) == 0 {
            Duration::from_micros(self.rng.random_range(100..60_000))
        } else {
            Duration::from_mins(10)
        };
        let answers = self.drive(self.engine()?, caller, &actions, deadline).await;
        let died = answers.iter().any(Option::is_none);
        for (action, answer) in actions.iter().zip(answers) {
            self.judge(action, answer)?;
        }
        if died {
            if deadline > Duration::from_mins(1) {
                return Err(Violation("an operation did not end within ten minutes".into()));
            }
            let fate = self.fate();
            self.die(fate);
            Box::pin(self.revive()).await?;
        }
        Ok(())
    }

    /// Runs the actions until all have ended or `deadline` has passed; `None` for those cut off.
    async fn drive(&mut self, engine: Engine, caller: &Caller, actions: &[Action], deadline: Duration) -> Vec<Option<Answer>> {
        let mut running: FuturesUnordered<_> = actions
            .iter()
            .enumerate()
            .map(|(index, action)| perform(engine.clone(), caller.clone(), action.clone()).map(move |answer| (index, answer)).boxed())
            .collect();
        let mut answers: Vec<Option<Answer>> = actions.iter().map(|_| None).collect();
        let end = tokio::time::sleep(deadline);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                next = running.next() => match next {
                    Some((index, answer)) => if let Some(slot) = answers.get_mut(index) { *slot = Some(answer) },
                    None => return answers,
                },
                () = &mut end => return answers,
            }
        }
    }

    fn die(&mut self, fate: DiskFate) {
        self.note(format!("crash, disk {fate:?}"));
        self.set_back |= matches!(fate, DiskFate::RolledBack);
        self.world.crash(fate);
    }

    async fn restart(&mut self, step: usize) -> Result<(), Violation> {
        let engine = self.engine()?;
        if step.is_multiple_of(2) {
            let stopped = tokio::time::timeout(Duration::from_mins(2), engine.shutdown()).await;
            self.note(format!("shutdown -> {}", stopped.is_ok_and(|result| result.is_ok())));
        }
        let fate = self.fate();
        self.die(fate);
        Box::pin(self.revive()).await
    }

    /// Starts the process again. What the faults in force may prevent is tried once more without them; then it must work.
    async fn revive(&mut self) -> Result<(), Violation> {
        let first = Box::pin(self.world.start(false)).await;
        let active = first.is_ok() && self.engine().is_ok_and(|engine| engine.status().state == "active");
        self.note(format!("start -> {}", first.as_ref().map_or_else(|error| format!("{:?}", error.kind), |()| active.to_string())));
        if !active {
            let excuse = first.err().map_or_else(|| "not active".to_owned(), |error| format!("{:?}: {error}", error.kind));
            if matches!(self.report.scenario, Scenario::Crashes | Scenario::Takeover) {
                return Err(Violation(format!("the start was refused: {excuse}")));
            }
            self.world.heal();
            for store in &self.world.stores {
                store.land_all();
            }
            self.world.crash(DiskFate::Kept);
            Box::pin(self.world.start(false))
                .await
                .map_err(|error| Violation(format!("refused with all providers back: {error}; before: {excuse}")))?;
            let state = self.engine()?.status().state;
            if state != "active" {
                return Err(Violation(format!("{state} with all providers back; before: {excuse}")));
            }
        }
        self.report.starts += 1;
        self.expect_tended()?;
        let caller = self.world.caller().await.map_err(broken)?;
        self.read_everything(&caller, true).await
    }

    async fn settle(&mut self, timeout: Duration) {
        if let Ok(engine) = self.engine() {
            let left = engine.settle_wait(timeout).await.map(|report| report.unsettled_blocks);
            self.note(format!("settle -> {left:?}"));
        }
    }

    /// A second writer starts while the first one works. Once the second serves, the first may acknowledge nothing more.
    async fn takeover(&mut self, caller: &Caller) -> Result<(), Violation> {
        let old = self.engine()?;
        let empty = self.rng.random_range(0..2) == 0;
        let disk = if empty { diaspore_ledger::MemoryMedium::new() } else { self.world.copy_disk() };
        let mode = if empty { Mode::Recover { declare_lost: Vec::new() } } else { Mode::Start };
        let during = self.actions();
        let mut racing: FuturesUnordered<_> = during
            .iter()
            .enumerate()
            .map(|(index, action)| perform(old.clone(), caller.clone(), action.clone()).map(move |answer| (index, answer)).boxed())
            .collect();
        let mut answers: Vec<Option<Answer>> = during.iter().map(|_| None).collect();
        let new = {
            let starting = Box::pin(self.world.start_on(&disk, mode));
            tokio::pin!(starting);
            loop {
                tokio::select! {
                    biased;
                    Some((index, answer)) = running_next(&mut racing) => if let Some(slot) = answers.get_mut(index) { *slot = Some(answer) },
                    started = &mut starting => break started,
                }
            }
        };
        drop(racing);
        // What the old writer does while it is fenced is its own business: any refusal is right, only the data counts.
        for (action, answer) in during.iter().zip(answers) {
            self.note(format!("racing {} -> {}", action.text(), answer.as_ref().map_or("cut off".into(), Answer::text)));
            match (action, answer) {
                (Action::Put { key, value, .. }, Some(Answer::Done)) => self.model.acknowledged(key, Some(*value)),
                (Action::Delete { key }, Some(Answer::Done)) => self.model.acknowledged(key, None),
                (Action::Put { key, value, .. }, _) => self.model.uncertain(key, Some(*value)),
                (Action::Delete { key }, _) => self.model.uncertain(key, None),
                (Action::Get { .. } | Action::Range { .. }, _) => (),
            }
        }
        let new = new.map_err(|error| Violation(format!("the second writer was refused: {error}")))?;
        self.note(format!("second writer from {} disk", if empty { "an empty" } else { "a copied" }));
        let late = self.value();
        let action = Action::Put { key: b"late".to_vec(), value: late, condition: Precondition::None };
        if let Answer::Done = perform(old.clone(), caller.clone(), action).await {
            return Err(Violation("the first writer acknowledged after the second served".into()));
        }
        self.world.adopt(new, disk);
        old.abort();
        self.report.starts += 1;
        let caller = self.world.caller().await.map_err(broken)?;
        self.read_everything(&caller, true).await
    }

    /// All faults end: everything acknowledged is there, settles, and survives the disk and f providers.
    async fn finish(&mut self, caller: &Caller) -> Result<(), Violation> {
        self.note("all faults end");
        self.world.heal();
        for store in &self.world.stores {
            store.land_all();
        }
        self.die(DiskFate::Kept);
        Box::pin(self.revive()).await?;
        self.read_everything(caller, true).await?;
        self.listing(caller).await?;
        let settled =
            self.engine()?.settle_wait(Duration::from_mins(5)).await.map_err(|error| Violation(format!("cannot settle: {error}")))?;
        if settled.unsettled_blocks != 0 {
            return Err(Violation(format!("{} blocks do not settle with all providers well", settled.unsettled_blocks)));
        }
        self.expect_whole().await?;
        Box::pin(self.expect_one_key()).await?;
        Box::pin(self.expect_tidy()).await?;
        self.read_everything(caller, true).await?;
        let survived = usize::from(self.world.profile().replication_factor) - 1;
        let mut lost = BTreeSet::new();
        // Three of six silent would leave the log's end undecidable (k = 3): two go here, whoever lied before.
        while lost.len() < survived.saturating_sub(1) {
            lost.insert(self.rng.random_range(0..self.world.stores.len()));
        }
        for index in &lost {
            if let Some(store) = self.world.stores.get(*index) {
                store.lose_everything();
            }
        }
        self.note(format!("providers {lost:?} lose everything"));
        self.die(DiskFate::Lost);
        Box::pin(self.revive()).await?;
        self.read_everything(caller, true).await?;
        self.listing(caller).await
    }
}

/// Awaits the next answer, or forever when none is left, so that the other branch decides.
async fn running_next<F: Future + Unpin>(running: &mut FuturesUnordered<F>) -> Option<F::Output> {
    match running.next().await {
        Some(answer) => Some(answer),
        None => std::future::pending().await,
    }
}
