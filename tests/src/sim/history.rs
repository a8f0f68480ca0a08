//! Concurrent clients on a few keys over a living deployment, recorded and judged by one rule: every key is linearizable, across
//! crashes, lost disks and providers that misbehave.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diaspore_engine::Engine;
use diaspore_engine::api::{Caller, ErrorKind, Precondition};
use diaspore_testkit::{Fault, FaultPlan, Misbehaviour};
use futures::future::join_all;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::client::{Action, Answer, BUCKET, perform};
use super::deployment::{Deployment, DiskFate, broken};
use super::model::{Value, Violation};
use crate::linear::{self, Effect, Found, Left, Operation};

const CLIENTS: usize = 6;
const KEYS: usize = 3;
const ROUNDS: usize = 4;
/// Operations of one client between two crashes.
const EACH: usize = 4;

/// What a recorded run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Operations whose clients were told the outcome.
    pub told: usize,
    /// Operations whose outcome nobody was told.
    pub untold: usize,
    /// Crashes in their midst.
    pub crashes: usize,
}

/// One operation as recorded; `value` numbers what it wrote.
#[derive(Debug, Clone)]
struct Line {
    key: usize,
    text: String,
    operation: Operation<u64>,
}

#[derive(Debug, Default)]
struct Tape {
    clock: u64,
    lines: Vec<Line>,
    /// Every value ever sent, by its bytes.
    values: BTreeMap<Vec<u8>, u64>,
}

impl Tape {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Runs one seed on a paused runtime of its own.
pub fn record_blocking(seed: u64) -> Result<Recorded, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().map_err(broken)?;
    runtime.block_on(record(seed))
}

/// Several rounds of concurrent operations, a crash between every two, often in the middle of operations; then every key is judged.
pub async fn record(seed: u64) -> Result<Recorded, Violation> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x6869_7374_6f72_7931);
    let mut world = Deployment::new(rng.next_u64(), 6, "quickstart")?;
    world.start(true).await.map_err(broken)?;
    let caller = world.caller().await.map_err(broken)?;
    engine(&world)?.create_bucket(&caller, BUCKET).await.map_err(broken)?;
    let tape = Mutex::new(Tape::default());
    let mut recorded = Recorded::default();
    for round in 0..ROUNDS {
        disturb(&world, &mut rng);
        let clients = (0..CLIENTS).map(|client| {
            let script = ChaCha12Rng::seed_from_u64(seed << 16 | (round << 8 | client) as u64);
            run_client(engine(&world), &caller, script, &tape)
        });
        let all = join_all(clients);
        let cut = Duration::from_millis(rng.random_range(5..400));
        let limit = if rng.random_range(0..3) == 0 { Duration::from_mins(10) } else { cut };
        if let Ok(outcomes) = tokio::time::timeout(limit, all).await {
            outcomes.into_iter().collect::<Result<(), Violation>>()?;
        }
        world.heal();
        world.stores.iter().for_each(diaspore_testkit::HostileStore::land_all);
        world.crash(if rng.random_range(0..3) == 0 { DiskFate::Lost } else { DiskFate::Kept });
        decide_open(&tape);
        recorded.crashes += 1;
        world.start(false).await.map_err(broken)?;
    }
    // The last word: what everybody reads now.
    for key in 0..KEYS {
        run_one(&engine(&world)?, &caller, &Action::Get { key: name(key) }, key, &tape).await?;
    }
    let tape = tape.into_inner().unwrap_or_else(PoisonError::into_inner);
    recorded.told = tape.lines.iter().filter(|line| line.operation.told).count();
    recorded.untold = tape.lines.len() - recorded.told;
    judge(seed, &tape)?;
    Ok(recorded)
}

/// The process died: nothing that was in flight can happen any more, the next start decides it once.
fn decide_open(tape: &Mutex<Tape>) {
    let mut tape = lock(tape);
    let now = tape.tick();
    for line in tape.lines.iter_mut().filter(|line| !line.operation.told) {
        line.operation.ended = line.operation.ended.min(now);
    }
}

fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine(world: &Deployment) -> Result<Engine, Violation> {
    world.engine.clone().ok_or_else(|| Violation("no engine is alive".into()))
}

fn name(key: usize) -> Vec<u8> {
    format!("register/{key}").into_bytes()
}

/// Slow, silent and failing providers, never more than two at once.
fn disturb(world: &Deployment, rng: &mut ChaCha12Rng) {
    let latency = Fault::always(Misbehaviour::Latency { fixed: Duration::from_millis(1), jitter: Duration::from_millis(30) });
    let odd = [rng.random_range(0..world.stores.len()), rng.random_range(0..world.stores.len())];
    for (index, store) in world.stores.iter().enumerate() {
        let mut plan = FaultPlan::from(latency);
        if odd.contains(&index) {
            plan = plan.with(match rng.random_range(0..4) {
                0 => Fault::chance(Misbehaviour::Freeze, 0.3),
                1 => Fault::chance(Misbehaviour::ErrorAfter, 0.5),
                2 => Fault::chance(Misbehaviour::LandLate { within: Duration::from_secs(5) }, 0.3),
                _ => Fault::chance(Misbehaviour::Reset, 0.5),
            });
        }
        store.set_faults(plan);
    }
}

async fn run_client(
    engine: Result<Engine, Violation>,
    caller: &Caller,
    mut script: ChaCha12Rng,
    tape: &Mutex<Tape>,
) -> Result<(), Violation> {
    let engine = engine?;
    for _ in 0..EACH {
        let index = script.random_range(0..KEYS);
        let key = name(index);
        let value = Value { seed: script.next_u64(), len: script.random_range(32..2000) };
        let action = match script.random_range(0..10) {
            0..4 => Action::Put { key, value, condition: Precondition::None },
            4 => Action::Put { key, value, condition: Precondition::Absent },
            5 => Action::Delete { key },
            _ => Action::Get { key },
        };
        run_one(&engine, caller, &action, index, tape).await?;
    }
    Ok(())
}

/// Carries out one operation. It stands on the tape as untold from its call on, so that a crash finds it there.
async fn run_one(engine: &Engine, caller: &Caller, action: &Action, key: usize, tape: &Mutex<Tape>) -> Result<(), Violation> {
    let at = {
        let mut tape = lock(tape);
        let called = tape.tick();
        let left = match action {
            Action::Put { value, .. } => {
                let number = tape.values.len() as u64;
                tape.values.insert(value.bytes(), number);
                Left::Now(Some(number))
            }
            Action::Delete { .. } => Left::Now(None),
            Action::Get { .. } | Action::Range { .. } => Left::Same,
        };
        let found = match action {
            Action::Put { condition: Precondition::Absent, .. } => Found::Just(None),
            Action::Delete { .. } => Found::Something,
            _ => Found::Anything,
        };
        let operation = Operation { called, ended: u64::MAX, told: false, effect: Effect { found, left } };
        tape.lines.push(Line { key, text: action.text(), operation });
        tape.lines.len() - 1
    };
    let answer = perform(engine.clone(), caller.clone(), action.clone()).await;
    let mut tape = lock(tape);
    let ended = tape.tick();
    let told = |found| Some(Effect { found, left: Left::Same });
    let effect = match &answer {
        Answer::Done => tape.lines.get(at).map(|line| line.operation.effect),
        Answer::Bytes { bytes, .. } => {
            let number = tape.values.get(bytes).ok_or_else(|| Violation(format!("{} gave bytes that nobody wrote", action.text())))?;
            told(Found::Just(Some(*number)))
        }
        Answer::Refused(error) => match error.kind {
            ErrorKind::UnknownKey => told(Found::Just(None)),
            ErrorKind::PreconditionFailed => told(Found::Something),
            // Nothing happened, and nothing was said about the register.
            ErrorKind::NotAccepted | ErrorKind::TooFewDomains | ErrorKind::ReadOnly => told(Found::Anything),
            _ => None,
        },
    };
    if let (Some(effect), Some(line)) = (effect, tape.lines.get_mut(at)) {
        line.operation = Operation { ended, told: true, effect, ..line.operation };
        line.text = format!("{} -> {}", line.text, answer.text());
    }
    Ok(())
}

fn judge(seed: u64, tape: &Tape) -> Result<(), Violation> {
    for key in 0..KEYS {
        let lines: Vec<&Line> = tape.lines.iter().filter(|line| line.key == key).collect();
        let history: Vec<Operation<u64>> = lines.iter().map(|line| line.operation).collect();
        linear::check(&history).map_err(|stuck| {
            let shown: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(index, Line { text, operation, .. })| {
                    let Operation { called, ended, told, .. } = operation;
                    let next = if stuck.next.contains(&index) { "  <- no order goes on here" } else { "" };
                    format!(
                        "{called}..{} {}{text}{next}",
                        if *ended == u64::MAX { "?".into() } else { ended.to_string() },
                        if *told { "" } else { "(untold) " }
                    )
                })
                .collect();
            Violation(format!("seed {seed}, key {key}: not linearizable after {} operations\n{}", stuck.explained, shown.join("\n")))
        })?;
    }
    Ok(())
}
