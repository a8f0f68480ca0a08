//! The fault atlas: every combination of what may happen to the disk and to the providers, and what a start then does.
//!
//! A [`Case`] is played against the real engine, and what came out is held against [`Case::expected`], which follows from the
//! numbers alone: which combinations must be survived, which must make the service wait, and which must be reported as loss. No
//! combination may ever show less than was acknowledged without saying so.

use std::fmt;
use std::time::Duration;

use diaspore_engine::api::{Caller, Error, ErrorKind, Precondition};
use diaspore_engine::config::{AcceptLoss, Mode};
use diaspore_engine::{Engine, Loss};
use diaspore_ledger::MemoryMedium;
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use super::client::{Action, Answer, BUCKET, perform};
use super::deployment::{Deployment, DiskFate, broken};
use super::model::{Value, Violation};

/// Providers, one domain each; the profile makes 3-of-6 of them.
const PROVIDERS: usize = 6;
const K: usize = 3;
/// Domains that must list their claims: floor((P + 3) / 2).
const CLAIM_QUORUM: usize = 4;

/// What the crash leaves of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Everything that was synced.
    Kept,
    /// Nothing.
    Lost,
    /// The state before the last acknowledged write.
    RolledBack,
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// All shards of all blocks were durable; otherwise the last write has k + 1 shards.
    pub settled: bool,
    /// The service rested after the last write, so that a block behind it says that it was acknowledged.
    pub marked: bool,
    /// The disk.
    pub disk: Disk,
    /// Providers that lost everything and answer; those with a shard of the last write first.
    pub emptied: usize,
    /// Providers that flip bits in whatever they give.
    pub lying: usize,
    /// Providers that do not answer.
    pub silent: usize,
    /// The operator declared the silent ones lost.
    pub declared: bool,
}

/// What a start comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It serves, and everything acknowledged is there.
    AllThere,
    /// It serves reads alone, and everything acknowledged is there.
    ReadOnly,
    /// It serves, and what cannot be read is named.
    Named,
    /// It serves nothing until more providers answer; once they do, everything is there.
    Waits,
    /// It refuses (exit 78) and names what is missing.
    Refused,
    /// It serves, the newest write is gone, and the log, or the reason why nothing is written, says which sequences may have been lost on
    /// the operator's word.
    Told,
    /// It serves, and the newest write is gone without a word: nothing that is left witnesses it. Beyond what its class survives, and
    /// the one combination that no reader can tell from a write that was never acknowledged.
    Unnoticed,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settled, marked, disk, emptied, lying, silent, declared } = self;
        let data = if *settled { "settled" } else { "acknowledged" };
        let rest = if *marked { " and marked" } else { "" };
        write!(
            f,
            "{data}{rest}, disk {disk:?}, {emptied} emptied, {lying} lying, {silent} silent{}",
            if *declared { " (declared lost)" } else { "" }
        )
    }
}

impl Case {
    /// What must come out, from the numbers alone: PROTOCOL rules 5, 8 and 11 and C19, with k = 3 and n = 6 = P.
    ///
    /// An emptied provider answers that it has nothing, so it counts as one that lies: rule 8 allows for one false answer.
    pub fn expected(self) -> Outcome {
        let (faulty, honest) = (self.faulty(), PROVIDERS - self.faulty());
        let answering = PROVIDERS - self.silent;
        if !self.declared && answering < CLAIM_QUORUM {
            return Outcome::Waits;
        }
        if self.disk == Disk::Kept {
            // The journal knows the whole log; what lies in bulk blocks needs k honest providers.
            return if honest >= K { Outcome::AllThere } else { Outcome::Named };
        }
        // Shards of the last write that can be read, and those of everything before it.
        let last = if self.settled { honest } else { (K + 1).saturating_sub(faulty) };
        let silent_in_doubt = if self.declared { 0 } else { self.silent };
        let is_void = |visible: usize| visible + self.silent < K;
        let is_void_on_word = |visible: usize| self.declared && visible + silent_in_doubt.max(1) <= K;
        if self.disk == Disk::Lost && honest < K {
            // Nothing can be read any more, but what is left of the blocks says that they were acknowledged.
            return if is_void(honest) || is_void_on_word(honest) { Outcome::Refused } else { Outcome::Waits };
        }
        if last >= K {
            // A commit needs k + 1 providers, reading needs k.
            return if answering > K { Outcome::AllThere } else { Outcome::ReadOnly };
        }
        match (is_void(last), is_void_on_word(last)) {
            // The block behind the last write lies where that lies.
            (true, _) | (_, true) if self.marked && last > 0 => Outcome::Refused,
            (true, _) => Outcome::Unnoticed,
            (false, true) => Outcome::Told,
            (false, false) => Outcome::Waits,
        }
    }

    fn faulty(self) -> usize {
        self.emptied + self.lying + self.silent
    }

    /// Whether the newest write can be read again once the silent ones are back.
    fn last_is_left_to_the_silent(self) -> bool {
        self.settled || self.disk == Disk::Kept || self.emptied + self.lying < 2
    }

    /// Every combination of at most four faulty providers, at most one of them lying.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (settled, marked) in [(true, false), (false, false), (true, true), (false, true)] {
            for disk in [Disk::Kept, Disk::Lost, Disk::RolledBack] {
                for emptied in 0..=4 {
                    for lying in 0..=1 {
                        for silent in 0..=3 {
                            if emptied + lying + silent > 4 {
                                continue;
                            }
                            let case = Self { settled, marked, disk, emptied, lying, silent, declared: false };
                            all.push(case);
                            if disk == Disk::Lost && silent > 0 {
                                all.push(Self { declared: true, ..case });
                            }
                        }
                    }
                }
            }
        }
        all
    }
}

const KEYS: [(&str, usize); 3] = [("old/small", 3000), ("old/large", 1_300_000), ("last", 2000)];

/// Plays one case on a paused runtime of its own.
pub fn play_blocking(case: Case) -> Result<Outcome, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().map_err(broken)?;
    runtime.block_on(Box::pin(play(case)))
}

async fn play(case: Case) -> Result<Outcome, Violation> {
    let mut world = Deployment::new(11, PROVIDERS, "quickstart")?;
    world.start(true).await.map_err(broken)?;
    let caller = world.caller().await.map_err(broken)?;
    let engine = living(&world)?;
    engine.create_bucket(&caller, BUCKET).await.map_err(broken)?;
    for (index, (key, len)) in KEYS.iter().enumerate() {
        let last = index + 1 == KEYS.len();
        if last {
            engine.settle_wait(Duration::from_mins(5)).await.map_err(broken)?;
            world.remember_disk();
            if !case.settled {
                // The last two providers take nothing: four of six acknowledge, and no more ever will.
                for store in world.stores.iter().skip(K + 1) {
                    store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::ErrorBefore).on(&[Op::Put])));
                }
            }
        }
        let put = Action::Put { key: (*key).into(), value: value(index, *len), condition: Precondition::None };
        if let Answer::Refused(error) = perform(engine.clone(), caller.clone(), put).await {
            return Err(Violation(format!("the put before the fault is refused: {error}")));
        }
    }
    if case.settled {
        engine.settle_wait(Duration::from_mins(5)).await.map_err(broken)?;
    }
    if case.marked {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    world.crash(match case.disk {
        Disk::Kept => DiskFate::Kept,
        Disk::Lost => DiskFate::Lost,
        Disk::RolledBack => DiskFate::RolledBack,
    });
    let silent = strike(&world, case);
    let declared = if case.declared { silent.iter().map(|index| format!("memory/cloud-{index}")).collect() } else { Vec::new() };
    let mode = if case.disk == Disk::Lost { Mode::Recover { declare_lost: declared } } else { Mode::Start };
    let mode_again = mode.clone();
    let engine = match world.start_on(&world.disk(), mode).await {
        Ok(engine) => engine,
        Err(error) if error.kind == ErrorKind::RefusedState => {
            if case.disk == Disk::Lost {
                Box::pin(accept(&world, &caller, (mode_again, case), error)).await?;
            }
            return Ok(Outcome::Refused);
        }
        Err(error) => return Err(Violation(format!("the start fails otherwise: {:?} {error}", error.kind))),
    };
    judge(&world, &engine, &caller, case).await
}

/// After a refusal: on the operator's word on the list that came with it the log goes on with what can be read: nothing with fewer than k
/// honest providers, else all but the newest write. The providers that come back change nothing any more.
async fn accept(world: &Deployment, caller: &Caller, (mode, case): (Mode, Case), refusal: Error) -> Result<(), Violation> {
    let list = refusal.source.and_then(|source| source.downcast::<Loss>().ok());
    let loss = list.ok_or_else(|| Violation("a refusal because data is missing comes without a list".into()))?;
    let nothing = PROVIDERS - case.faulty() < K;
    if (loss.kept_through == 0) != nothing || !loss.readable.is_empty() || loss.unknown.is_empty() {
        return Err(Violation(format!("the list of losses does not fit: {loss:?}")));
    }
    if !loss.silent.is_empty() {
        // Whoever does not answer may have what is missing.
        let word = AcceptLoss { token: loss.token, by: "the atlas".to_owned() };
        let refused = world.start_accepting(&MemoryMedium::new(), mode, Some(word)).await.err();
        let named = refused.is_some_and(|error| error.message.contains("declare them lost as well"));
        return if named { Ok(()) } else { Err(Violation("a loss is accepted that may be none".into())) };
    }
    let word = AcceptLoss { token: loss.token, by: "the atlas".to_owned() };
    let engine = world.start_accepting(&MemoryMedium::new(), mode, Some(word)).await.map_err(broken)?;
    let state = engine.status().state;
    if nothing && !engine.tenants().await.map_err(broken)?.is_empty() {
        return Err(Violation("it shows what nobody can read".into()));
    }
    if !nothing && (!is_last_gone(&engine, caller).await? || !missing_of(&engine, caller, KEYS.len() - 1).await?.is_empty()) {
        return Err(Violation("more or less is given up than the newest write".into()));
    }
    let log = leaves(&engine, caller).await?;
    if state == "active" && !log.iter().any(|(kind, _)| kind == "MayHaveLost") {
        return Err(Violation(format!("the log does not say that anything was given up: {log:?}")));
    }
    engine.abort();
    if state != "active" {
        // Too few domains to decide anything.
        return Ok(());
    }
    world.heal();
    let recover = Mode::Recover { declare_lost: Vec::new() };
    let engine = world.start_on(&MemoryMedium::new(), recover).await.map_err(broken)?;
    let later = leaves(&engine, caller).await?;
    engine.abort();
    if later.starts_with(&log) { Ok(()) } else { Err(Violation(format!("what came back changed the log: {log:?}, then {later:?}"))) }
}

/// Kind and bytes of every entry of the log.
async fn leaves(engine: &Engine, caller: &Caller) -> Result<Vec<(String, String)>, Violation> {
    let lines = engine.audit_export(caller, 0, 1000).await.map_err(broken)?;
    Ok(lines.into_iter().map(|line| (line.kind, line.leaf)).collect())
}

fn value(index: usize, len: usize) -> Value {
    Value { seed: 2 * index as u64 + 1, len }
}

fn living(world: &Deployment) -> Result<Engine, Violation> {
    world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
}

/// Lets the faults begin; gives the silent ones.
fn strike(world: &Deployment, case: Case) -> Vec<usize> {
    let mut silent = Vec::new();
    for (index, store) in world.stores.iter().enumerate() {
        store.set_faults(FaultPlan::honest());
        if index < case.emptied {
            store.lose_everything();
        } else if index < case.emptied + case.lying {
            store.set_faults(FaultPlan::from(Fault::always(Misbehaviour::Flip { bits: 64 }).on(&[Op::Get])));
        } else if index < case.emptied + case.lying + case.silent {
            store.set_faults(FaultPlan::down());
            silent.push(index);
        }
    }
    silent
}

async fn judge(world: &Deployment, engine: &Engine, caller: &Caller, case: Case) -> Result<Outcome, Violation> {
    let state = engine.status().state;
    if !engine.is_readable() {
        world.heal();
        tokio::time::sleep(Duration::from_mins(45)).await;
        let later = engine.status().state;
        if case.marked && !case.last_is_left_to_the_silent() && later == "stopped" {
            return Ok(Outcome::Waits);
        }
        let gone = !case.marked && is_last_gone(engine, caller).await? && !case.last_is_left_to_the_silent();
        return match (later.as_str(), gone || missing_of(engine, caller, KEYS.len()).await?.is_empty()) {
            ("active", true) => Ok(Outcome::Waits),
            _ => Err(Violation(format!("it waited as {state}, and with all providers back it is {later}"))),
        };
    }
    if is_last_gone(engine, caller).await? {
        let logged = engine.audit_export(caller, 0, 10_000).await.map_err(broken)?.iter().any(|line| line.kind == "MayHaveLost");
        let told = logged || engine.why_read_only().is_some_and(|why| why.contains("may have been lost"));
        return Ok(if told { Outcome::Told } else { Outcome::Unnoticed });
    }
    let mut missing = missing_of(engine, caller, KEYS.len()).await?;
    if !missing.is_empty() {
        // What the disk holds of blocks that never were whole is put where it belongs.
        tokio::time::sleep(Duration::from_mins(1)).await;
        missing = missing_of(engine, caller, KEYS.len()).await?;
    }
    if missing.is_empty() {
        return Ok(if state == "active" { Outcome::AllThere } else { Outcome::ReadOnly });
    }
    let losses = engine.losses().await.map_err(broken)?;
    if losses.unreadable.len() == missing.len() {
        Ok(Outcome::Named)
    } else {
        Err(Violation(format!("{missing:?} cannot be read, and the account of losses names {} blobs", losses.unreadable.len())))
    }
}

/// Whether the newest write is said never to have happened, and everything older is there.
async fn is_last_gone(engine: &Engine, caller: &Caller) -> Result<bool, Violation> {
    let key = KEYS.last().map_or("", |(key, _)| key);
    let answer = perform(engine.clone(), caller.clone(), Action::Get { key: key.into() }).await;
    Ok(matches!(answer, Answer::Refused(error) if error.kind == ErrorKind::UnknownKey))
}

/// Those of the first keys that are refused for want of data. One that is said not to exist, or holds anything else, is the worst there is.
async fn missing_of(engine: &Engine, caller: &Caller, of: usize) -> Result<Vec<&'static str>, Violation> {
    let mut missing = Vec::new();
    for (index, (key, len)) in KEYS.iter().enumerate().take(of) {
        match perform(engine.clone(), caller.clone(), Action::Get { key: (*key).into() }).await {
            Answer::Bytes { bytes, .. } if bytes == value(index, *len).bytes() => (),
            Answer::Refused(error) if matches!(error.kind, ErrorKind::DataUnavailable | ErrorKind::IntegrityViolation) => {
                missing.push(*key);
            }
            Answer::Refused(error) => return Err(Violation(format!("{key}: {:?} {error}", error.kind))),
            other => return Err(Violation(format!("{key} was acknowledged and reads {}", other.text()))),
        }
    }
    Ok(missing)
}
