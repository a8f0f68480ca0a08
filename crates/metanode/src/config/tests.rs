use super::*;

fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metanode.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn what_is_written_reads_back() {
    let mut config = Config {
        schema: SCHEMA,
        insecure: false,
        service: Service::default(),
        store: Store::default(),
        policy: Policy::default(),
        providers: Vec::new(),
    };
    config.service.port = 9191;
    config.service.checkpoint_after = 200_000;
    config.policy.upkeep.insert("audits_per_hour".to_owned(), 60);
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

#[test]
fn settings_of_the_service_have_bounds() {
    for (section, name, bounds, fits) in [
        ("service", "checkpoint_after", "1000 to 100000000", ["0", "1000", "100000000"]),
        ("service", "probe_deadline_ms", "100 to 600000", ["100", "5000", "600000"]),
        ("service", "answer_deadline_ms", "1000 to 600000", ["1000", "5000", "600000"]),
        ("store", "cache_capacity_bytes", "1048576 to 1099511627776", ["1048576", "67108864", "1099511627776"]),
        ("store", "flush_every_ms", "100 to 600000", ["100", "30000", "600000"]),
    ] {
        let load = |text: &str| {
            let (_folder, path) = write(&format!("schema = 1\n[{section}]\n{name} = {text}\n"));
            Config::load(&path)
        };
        for text in fits {
            load(text).unwrap();
        }
        for text in ["99", "1099511627777"] {
            let failure = load(text).unwrap_err();
            assert_eq!(failure.exit, crate::failure::Exit::Usage);
            assert!(failure.message.contains(&format!("{name} = {text}")) && failure.message.contains(bounds), "{failure}");
        }
    }
}

#[test]
fn upkeep_is_what_the_profile_says_but_for_what_is_set() {
    let resolved = |text: &str| {
        let (_folder, path) = write(&format!("schema = 1\n[policy.upkeep]\n{text}\n"));
        Config::load(&path).and_then(|config| config.policy.resolve())
    };
    let upkeep = resolved("audits_per_hour = 7\nhold_off_s = 60").unwrap().upkeep;
    assert_eq!(upkeep, Upkeep { audits_per_hour: 7, hold_off_s: 60, ..Upkeep::default() });
    for (text, said) in [
        ("audit_per_hour = 7", "there are: audit_bytes_per_hour, audits_per_hour"),
        ("audits_per_hour = 3601", "0 to 3600"),
        ("audits_per_hour = 5000000000", "policy.upkeep"),
        ("audit_bytes_per_hour = 1", "65536 to"),
        ("presence_hours = 9000", "0 to 8784"),
        ("drill_hours = 9000", "0 to 8784"),
        ("hold_off_s = 59", "60 to 604800"),
    ] {
        let failure = resolved(text).unwrap_err();
        assert_eq!(failure.exit, crate::failure::Exit::Usage, "{text}");
        assert!(failure.message.contains(said), "{text}: {failure}");
    }
}
