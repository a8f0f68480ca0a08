//! `metanode` as a process: built once, run in a home folder of its own, without the surroundings' settings.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

/// Longest wait for a process to become ready.
const READY: Duration = Duration::from_mins(1);

/// The binary beside this test, built on first use; `METANODE_BIN` names another one.
pub(crate) fn metanode() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("METANODE_BIN") {
            return PathBuf::from(given);
        }
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .args(["build", "--quiet", "--locked", "--package", "metanode", "--bin", "metanode", "--target-dir"])
            .arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        if cfg!(not(feature = "fast")) {
            build.arg("--no-default-features");
        }
        assert!(build.status().unwrap().success(), "metanode does not build");
        profile.join("metanode")
    })
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The exit code as wanted, or everything it said.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// A part of what went to standard error.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        self
    }
}

/// A home folder and whatever a test keeps beside it.
pub(crate) struct Place {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(metanode());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DIASPORE_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned()).arg("--home").arg(self.home()).args(arguments.split_whitespace());
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs to the end. Arguments are split at blanks.
    pub(crate) fn run(&self, arguments: &str) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `init` with folders for clouds: p1, p2, ... below `clouds/`, replication factor `r`.
    pub(crate) fn init_local(&self, count: usize, r: u8) {
        let names: Vec<String> = (1..=count).map(|index| format!("p{index}")).collect();
        let list = names.join(",");
        self.run(&format!("storage distributed init --providers {list} --replication-factor {r} --max-cloud-providers {count}")).exits(0);
        for name in &names {
            let cloud = self.path("clouds").join(name);
            std::fs::create_dir_all(&cloud).unwrap();
            self.run(&format!("storage providers configure --name {name} --preset local --path {}", cloud.display())).exits(0);
        }
    }

    /// The API key that the service left in the home folder for `role`.
    pub(crate) fn token(&self, role: &str) -> String {
        std::fs::read_to_string(self.home().join(format!("{role}.token"))).unwrap().trim().to_owned()
    }

    /// Starts the service and waits until it is ready.
    pub(crate) fn start(&self, arguments: &str) -> Service {
        self.start_as(arguments, |command| command)
    }

    /// The same with the command wrapped in another one.
    pub(crate) fn start_as(&self, arguments: &str, wrap: impl FnOnce(Command) -> Command) -> Service {
        let port = free_port();
        let log = std::fs::File::create(self.path("service.log")).unwrap();
        let mut command = wrap(self.command(&format!("storage distributed {arguments} --port {port}")));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut service = Service { child, url: format!("http://127.0.0.1:{port}") };
        wait("the service to be ready", || {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("the service ended with {status}:\n{}", std::fs::read_to_string(self.path("service.log")).unwrap());
            }
            status_of(&format!("{}/readyz", service.url)) == Some(200)
        });
        service
    }
}

/// A running process; killed when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
}

impl Service {
    /// SIGKILL: nothing of the process runs after this.
    pub(crate) fn kill(&self) {
        assert!(Command::new("kill").args(["-KILL", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already gone is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port nobody listens on now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One request on a runtime of its own; `None` when nobody answers.
pub(crate) fn request(method: &str, url: &str, body: Option<Vec<u8>>) -> Option<(u16, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let mut request = client.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.bytes().await.ok()?.to_vec()))
    })
}

pub(crate) fn status_of(url: &str) -> Option<u16> {
    request("GET", url, None).map(|(status, _)| status)
}

/// Asks again and again until it holds; panics with `what` when it never does.
#[track_caller]
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..READY.as_millis() / 50 {
        if holds() {
            return;
        }
        // A condition of another process: there is nothing to be woken by.
        runtime.block_on(pause());
    }
    panic!("waited {READY:?} for {what}");
}

async fn pause() {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    ticks.tick().await;
    ticks.tick().await;
}

/// Incompressible and different for every index.
pub(crate) fn noise(index: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&index.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Every file below a folder with its bytes, by relative path.
pub(crate) fn tree(root: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
