use super::*;

fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metanode.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn what_is_written_reads_back() {
    let mut config =
        Config { schema: SCHEMA, insecure: false, service: Service::default(), policy: Policy::default(), providers: Vec::new() };
    config.service.port = 9191;
    config.policy.replication_factor = Some(4);
    config.policy.max_cloud_providers = Some(6);
    for name in ["aws", "minio"] {
        config.providers.push(AccountConfig::new(diaspore_policy::ProviderId::new(name).unwrap(), name));
    }
    let (_folder, path) = write(&config.to_toml().unwrap());
    assert_eq!(Config::load(&path).unwrap(), config);
}

#[test]
fn a_misspelt_field_is_refused_by_name() {
    let (_folder, path) = write("schema = 1\n[service]\nprot = 1\n");
    let failure = Config::load(&path).unwrap_err();
    assert_eq!(failure.exit, crate::failure::Exit::Usage);
    assert!(failure.message.contains("prot"), "{failure}");
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = write("schema = 2\n");
    let failure = Config::load(&path).unwrap_err();
    assert_eq!(failure.exit, crate::failure::Exit::Refused);
}

#[test]
fn a_policy_that_cannot_hold_shows_its_arithmetic() {
    let profile = Policy::default().resolve().unwrap();
    let failure = Config::check_domains(&profile, 3).unwrap_err();
    assert!(failure.message.contains("k = n - f = 3 - 2 = 1"), "{failure}");
    assert_eq!(Config::check_domains(&profile, 5).unwrap().k, 3);
}
