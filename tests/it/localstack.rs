//! The main job against a real LocalStack: six buckets declared as six failure domains, 3-of-6, settled; then two buckets are emptied and
//! every object of a third is corrupted; then the service's own disk goes. Every byte comes back each time.
//!
//! The emulator is started here, from the environment that `tests/localstack/setup` installs. Without it this test fails.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::program::{Place, free_port, request, tree, wait};

const BUCKETS: [&str; 6] = ["north", "east", "south", "west", "upper", "lower"];

/// A LocalStack of this test's own; killed when dropped.
struct LocalStack {
    child: Child,
    url: String,
}

impl LocalStack {
    fn start(place: &Place) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let (volume, log) = (place.path("localstack"), place.path("localstack.log"));
        std::fs::create_dir_all(&volume).unwrap();
        let out = std::fs::File::create(&log).unwrap();
        let settings = [
            ("GATEWAY_LISTEN", address.as_str()),
            ("LOCALSTACK_HOST", &address),
            ("SERVICES", "s3"),
            ("EAGER_SERVICE_LOADING", "1"),
            ("STRICT_SERVICE_LOADING", "1"),
            ("DISABLE_EVENTS", "1"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("S3_SKIP_SIGNATURE_VALIDATION", "0"),
            ("DNS_ADDRESS", "0"),
        ];
        let child = Command::new(python())
            .args(["-m", "localstack.runtime.main"])
            .envs(settings)
            .env("FILESYSTEM_ROOT", &volume)
            .env("LOCALSTACK_VOLUME_DIR", &volume)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut running = Self { child, url: format!("http://{address}") };
        // An unpinned LocalStack starts and serves nothing, so only "running" counts.
        wait("LocalStack's S3 to be running", || {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("LocalStack ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap());
            }
            let health = request("GET", &format!("{}/_localstack/health", running.url), None);
            health.is_some_and(|(_, body)| String::from_utf8_lossy(&body).contains("\"s3\": \"running\""))
        });
        running
    }

    fn keys(&self, bucket: &str) -> Vec<String> {
        let (status, body) = request("GET", &format!("{}/{bucket}?list-type=2", self.url), None).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(status == 200 && text.contains("<IsTruncated>false</IsTruncated>"), "{text}");
        text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    fn put(&self, path: &str, body: Vec<u8>) {
        assert_eq!(request("PUT", &format!("{}/{path}", self.url), Some(body)).unwrap().0, 200, "{path}");
    }

    fn empty(&self, bucket: &str) -> usize {
        let keys = self.keys(bucket);
        for key in &keys {
            assert_eq!(request("DELETE", &format!("{}/{bucket}/{key}", self.url), None).unwrap().0, 204);
        }
        assert!(self.keys(bucket).is_empty());
        keys.len()
    }

    /// Flips a bit in every 4 KiB of every object.
    fn corrupt(&self, bucket: &str) -> usize {
        let keys = self.keys(bucket);
        for key in &keys {
            let path = format!("{bucket}/{key}");
            let (_, mut bytes) = request("GET", &format!("{}/{path}", self.url), None).unwrap();
            bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 0x10);
            self.put(&path, bytes);
        }
        keys.len()
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        // Already gone is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The interpreter that `tests/localstack/setup` made below the target folder of this build.
fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let candidates = test.ancestors().map(|folder| folder.join("localstack-venv/bin/python"));
    let found = candidates.into_iter().find(|path| path.exists());
    found.expect("LocalStack is not installed\nhint: tests/localstack/setup installs it below target/ once; ./test does so by itself")
}

/// This test's own sources and the workspace's documents: real files, a few hundred KiB.
fn data(place: &Place) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let into = place.path("data");
    for folder in ["docs", "crates/block/src", "crates/policy/src", "providers", "policy"] {
        for (name, bytes) in tree(&root.join(folder)) {
            let path = into.join(folder).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let mut word = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(word >> 56).unwrap()
    })
    .take(9 << 20)
    .collect();
    std::fs::write(into.join("noise.bin"), noise).unwrap();
    into
}

#[test]
fn half_of_six_buckets_may_go() {
    let mut place = Place::new();
    let cloud = LocalStack::start(&place);
    for bucket in BUCKETS {
        cloud.put(bucket, Vec::new());
        place.set(&format!("DIASPORE_{}_ACCESS_KEY_ID", bucket.to_uppercase()), "test");
        place.set(&format!("DIASPORE_{}_SECRET_ACCESS_KEY", bucket.to_uppercase()), "test");
    }
    place
        .run(&format!("storage distributed init --providers {} --replication-factor 4 --max-cloud-providers 6", BUCKETS.join(",")))
        .exits(0);
    for bucket in BUCKETS {
        let endpoint = &cloud.url;
        place
            .run(&format!(
                "storage providers configure --name {bucket} --preset localstack --endpoint {endpoint} --bucket {bucket} --domain {bucket}"
            ))
            .exits(0);
    }
    place.run("storage providers configure --test").exits(0);

    let data = data(&place);
    let wanted = tree(&data);
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    let put = place.run(&format!("blob put {} real/ {at} --output json", data.display())).exits(0).json();
    assert_eq!(put["blobs"].as_u64().unwrap(), wanted.len() as u64);
    place.run(&format!("storage distributed settle --wait --timeout-s 120 {at}")).exits(0);
    let status = place.run(&format!("storage distributed status --output json {at}")).exits(0).json();
    assert_eq!((&status["k"], &status["n"], &status["unsettled_blocks"]), (&3.into(), &6.into(), &0.into()));

    assert!(cloud.empty("north") > 3, "nothing was stored there");
    assert!(cloud.empty("west") > 3, "nothing was stored there");
    assert!(cloud.corrupt("upper") > 3, "nothing was stored there");
    let fetch = |name: &str, at: &str| {
        let back = place.path(name);
        place.run(&format!("blob get real/ {} --recursive {at}", back.display())).exits(0);
        assert_eq!(tree(&back), wanted, "{name}");
    };
    fetch("damaged", &at);
    let status = place.run(&format!("storage distributed status --output json {at}")).json();
    assert!(status["integrity_faults"].as_u64().unwrap() > 0, "the corrupted bucket was never caught: {status}");
    assert_eq!(service.stop(), 0);

    // Now the disk as well: master key, configuration and accounts are left.
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let service = place.start("recover --serve");
    fetch("recovered", &format!("--url {}", service.url));
    assert_eq!(service.stop(), 0);
}
