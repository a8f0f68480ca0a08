//! `dev providers`: emulated S3 providers on loopback sockets, and the same for `quickstart`.

use std::path::Path;

use diaspore_engine::world::Entropy;
use diaspore_policy::{ProviderId, ProviderSpec};
use diaspore_provider::{Credentials, S3Credentials};
use diaspore_testkit::{EmulatorConfig, EmulatorHandle};
use serde::Serialize;

use crate::cli::{Dev, Global};
use crate::failure::{Explain, Outcome};
use crate::output::{note, table};
use crate::service;

/// Bucket at every emulated provider.
const BUCKET: &str = "shards";

/// Emulated clouds and how to reach them.
pub(crate) struct Clouds {
    pub(crate) handles: Vec<EmulatorHandle>,
    pub(crate) specs: Vec<ProviderSpec>,
    pub(crate) credentials: Credentials,
    keys: Vec<(String, String)>,
}

/// One of them, for people and programs. The keys are worth nothing elsewhere.
#[derive(Serialize)]
struct Shown {
    name: String,
    endpoint: String,
    bucket: &'static str,
    access_key_id: String,
    secret_access_key: String,
    folder: String,
}

impl Clouds {
    /// Starts `count` providers, each with a folder of its own below `folder` and keys of its own.
    pub(crate) async fn start(count: u16, folder: &Path, admin: bool) -> Outcome<Self> {
        let mut clouds = Self { handles: Vec::new(), specs: Vec::new(), credentials: Credentials::new(), keys: Vec::new() };
        for index in 1..=count {
            let name = format!("cloud-{index}");
            let id = ProviderId::new(&name).explain(|| "cannot name an emulated provider".to_owned())?;
            let (access, secret) = (format!("EMULATED{index:04}"), random_hex()?);
            let emulator =
                EmulatorConfig::folder(folder.join(&name)).with_bucket(BUCKET).with_credentials(&access, &secret).with_admin(admin);
            let handle = emulator.with_seed(u64::from(index)).start().await.explain(|| "cannot start an emulated provider".to_owned())?;
            clouds.specs.push(ProviderSpec::s3(id.clone(), &handle.endpoint(), BUCKET));
            clouds.credentials.insert(id, S3Credentials::new(access.clone(), secret.clone()));
            clouds.keys.push((access, secret));
            clouds.handles.push(handle);
        }
        Ok(clouds)
    }
}

fn random_hex() -> Outcome<String> {
    let mut bytes = [0; 20];
    service::entropy()?.draw(&mut bytes);
    Ok(hex::encode(bytes))
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: &Dev) -> Outcome {
    let Dev::Providers { count, dir } = command;
    let temporary = tempfile::tempdir().explain(|| "cannot make a temporary folder".to_owned())?;
    let folder = dir.as_deref().unwrap_or_else(|| temporary.path());
    let signals = service::signals()?;
    let clouds = Clouds::start(*count, folder, true).await?;
    let shown: Vec<Shown> = clouds
        .specs
        .iter()
        .zip(&clouds.handles)
        .zip(&clouds.keys)
        .map(|((spec, handle), (access, secret))| Shown {
            name: spec.id.to_string(),
            endpoint: handle.endpoint(),
            bucket: BUCKET,
            access_key_id: access.clone(),
            secret_access_key: secret.clone(),
            folder: handle.objects_folder().map_or_else(String::new, |folder| folder.display().to_string()),
        })
        .collect();
    global.output.print(&shown, || {
        let row = |cloud: &Shown| {
            [
                cloud.name.clone(),
                cloud.endpoint.clone(),
                cloud.bucket.to_owned(),
                cloud.access_key_id.clone(),
                cloud.secret_access_key.clone(),
                cloud.folder.clone(),
            ]
        };
        table(["name", "endpoint", "bucket", "access key", "secret key", "folder"], shown.iter().map(row))
    })?;
    note("To use them, paste (after metanode storage distributed init with these names):");
    for cloud in &shown {
        let stem = cloud.name.to_ascii_uppercase().replace('-', "_");
        note(&format!(
            "  export DIASPORE_{stem}_ACCESS_KEY_ID={} DIASPORE_{stem}_SECRET_ACCESS_KEY={}",
            cloud.access_key_id, cloud.secret_access_key
        ));
        note(&format!(
            "  metanode storage providers configure --name {} --preset s3 --endpoint {} --bucket {} --domain {}",
            cloud.name, cloud.endpoint, cloud.bucket, cloud.name
        ));
    }
    note("hint: curl -X PUT --data down ENDPOINT/_emulator/faults makes one misbehave, DELETE makes it behave again");
    note("running until ctrl-c");
    signals.await;
    Ok(())
}
