//! The providers: a process with N S3 emulators, steered by lines.

use std::ops::Sub;
use std::path::PathBuf;

use diaspore_policy::{ProviderId, ProviderSpec};
use diaspore_provider::{Credentials, S3Credentials};
use diaspore_testkit::{EmulatorConfig, EmulatorHandle, FaultPlan};
use serde::{Deserialize, Serialize};

use crate::Measured;
use crate::child::{Child, Questions, answer};
use crate::usage::Usage;

const BUCKET: &str = "shards";
const KEY: (&str, &str) = ("BENCHMARK", "benchmark-secret");

#[derive(Serialize, Deserialize)]
struct Order {
    count: usize,
    folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
enum Question {
    /// Puts a plan in force at one emulator, or at all.
    Plan(Option<usize>, String),
    /// One of them loses every object.
    Lose(usize),
    State,
}

/// Requests and bytes of all emulators together, and what their process used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) requests: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) cpu_ns: u64,
}

impl Sub for State {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            gets: self.gets - earlier.gets,
            requests: self.requests - earlier.requests,
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
        }
    }
}

/// The driver's end.
pub(crate) struct Emulators {
    child: Child,
    /// Where they listen.
    pub(crate) endpoints: Vec<String>,
}

impl Emulators {
    /// Starts so many, in memory or below a folder.
    pub(crate) fn start(count: usize, folder: Option<PathBuf>) -> Measured<Self> {
        let (child, endpoints) = Child::start("emulators", &Order { count, folder })?;
        Ok(Self { child, endpoints })
    }

    /// Puts a plan (testkit's text form; empty is honest) in force at one of them, or at all.
    pub(crate) fn plan(&mut self, which: Option<usize>, plan: &str) -> Measured<()> {
        self.child.ask(&Question::Plan(which, plan.to_owned()))
    }

    /// One of them loses every object, and goes on answering.
    pub(crate) fn lose(&mut self, which: usize) -> Measured<()> {
        self.child.ask(&Question::Lose(which))
    }

    /// Counters now.
    pub(crate) fn state(&mut self) -> Measured<State> {
        self.child.ask(&Question::State)
    }
}

/// The accounts behind the endpoints.
pub(crate) fn accounts(endpoints: &[String]) -> Measured<(Vec<ProviderSpec>, Credentials)> {
    let mut credentials = Credentials::new();
    let mut specs = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let id = ProviderId::new(&format!("cloud-{index}"))?;
        credentials.insert(id.clone(), S3Credentials::new(KEY.0.to_owned(), KEY.1.to_owned()));
        specs.push(ProviderSpec::s3(id, endpoint, BUCKET));
    }
    Ok((specs, credentials))
}

/// The process.
pub(crate) async fn serve() -> Measured<()> {
    let (order, mut questions) = Questions::open::<Order>().await?;
    let mut handles: Vec<EmulatorHandle> = Vec::new();
    for index in 0..order.count {
        let config = match &order.folder {
            Some(folder) => EmulatorConfig::folder(folder.join(format!("cloud-{index}"))),
            None => EmulatorConfig::memory(),
        };
        handles.push(config.with_bucket(BUCKET).with_credentials(KEY.0, KEY.1).with_seed(index as u64).start().await?);
    }
    answer(&handles.iter().map(EmulatorHandle::endpoint).collect::<Vec<_>>())?;
    while let Some(question) = questions.next().await? {
        match question {
            Question::Plan(which, plan) => {
                let plan: FaultPlan = plan.parse()?;
                for (_, handle) in handles.iter().enumerate().filter(|(index, _)| which.is_none_or(|which| which == *index)) {
                    handle.set_faults(plan.clone())?;
                }
                answer(&())?;
            }
            Question::Lose(which) => {
                handles.get(which).ok_or("no such emulator")?.lose_everything()?;
                answer(&())?;
            }
            Question::State => {
                let mut state = State { cpu_ns: Usage::now()?.cpu_ns, ..State::default() };
                for counters in handles.iter().map(EmulatorHandle::counters) {
                    state.puts += counters.puts;
                    state.gets += counters.gets;
                    state.requests += counters.requests();
                    state.bytes_in += counters.bytes_in;
                    state.bytes_out += counters.bytes_out;
                }
                answer(&state)?;
            }
        }
    }
    Ok(())
}
