//! Everything that one measurement runs on: providers, service, client, and a disk that is gone afterwards.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::client::Client;
use crate::emulators::{Emulators, State};
use crate::node::{Manner, Node};
use crate::usage::{Usage, load};
use crate::{Measured, Setting};

/// A fresh deployment with one bucket.
pub(crate) struct Stage {
    pub(crate) emulators: Emulators,
    pub(crate) node: Node,
    pub(crate) client: Client,
    profile: String,
    scratch: TempDir,
}

/// Processor time and requests up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) service: Usage,
    pub(crate) client: Usage,
    pub(crate) providers: State,
}

impl Stage {
    /// Starts providers and service. `on_disk` puts the providers' objects into folders.
    pub(crate) async fn set(setting: &Setting, on_disk: bool) -> Measured<Self> {
        Box::pin(Self::set_as(setting, on_disk, Manner::Usual)).await
    }

    /// The same with a service that starts in a manner of its own.
    pub(crate) async fn set_as(setting: &Setting, on_disk: bool, manner: Manner) -> Measured<Self> {
        let scratch = match &setting.folder {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        };
        let mut emulators = Emulators::start(setting.providers, on_disk.then(|| scratch.path().join("clouds")))?;
        let node = Node::start(&emulators.endpoints, scratch.path().join("home"), &setting.profile, manner)?;
        let client = Client::new(&node.door)?;
        client.create_bucket().await?;
        client.settle().await?;
        emulators.plan(None, "")?;
        Ok(Self { emulators, node, client, profile: setting.profile.clone(), scratch })
    }

    /// The service ends in order and starts again on the same disk: nothing is cached.
    pub(crate) async fn restart(self) -> Measured<Self> {
        let stage = self.restart_as_it_is()?;
        stage.client.settle().await?;
        Ok(stage)
    }

    /// The same with whatever providers there are: shards that are missing stay missing.
    pub(crate) fn restart_as_it_is(self) -> Measured<Self> {
        self.restart_as(Manner::Usual)
    }

    /// The same in another manner.
    pub(crate) fn restart_as(self, manner: Manner) -> Measured<Self> {
        let Self { emulators, node, client, profile, scratch } = self;
        drop(client);
        node.stop()?;
        let node = Node::start(&emulators.endpoints, scratch.path().join("home"), &profile, manner)?;
        let client = Client::new(&node.door)?;
        Ok(Self { emulators, node, client, profile, scratch })
    }

    /// Everybody's meters.
    pub(crate) fn mark(&mut self) -> Measured<Mark> {
        Ok(Mark { service: self.node.usage()?, client: Usage::now()?, providers: self.emulators.state()? })
    }

    /// Where the service's disk is.
    pub(crate) fn home(&self) -> PathBuf {
        self.scratch.path().join("home")
    }
}

/// What the figures were taken on.
pub(crate) fn headline(what: &str, setting: &Setting) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("# {what}: {cores} cores of {model}, load {} at start; {} providers, profile {}", load(), setting.providers, setting.profile);
}
