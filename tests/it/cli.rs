//! The command line without a running service: help, refusals with hints, exit codes, `init` and the configuration.

use std::os::unix::fs::PermissionsExt;

use crate::program::{Place, free_port};

const INIT: &str = "storage distributed init --providers a,b,c,d,e";

#[test]
fn help_is_data_and_names_every_command() {
    let help = Place::new().run("--help").exits(0);
    for command in ["storage", "blob", "keys", "audit", "config", "dev", "quickstart", "completions"] {
        assert!(help.stdout.contains(command), "no {command} in:\n{}", help.stdout);
    }
    assert!(help.stderr.is_empty());
    let init = Place::new().run("storage distributed init --help").exits(0);
    for flag in ["--providers", "--replication-factor", "--max-cloud-providers", "--encryption", "--compression", "--insecure"] {
        assert!(init.stdout.contains(flag), "no {flag}");
    }
}

#[test]
fn a_wrong_command_line_is_usage() {
    for arguments in
        ["", "storage", "storage distributed fly", "blob put", "--output yaml config check", "storage distributed start --port 70000"]
    {
        let ran = Place::new().run(arguments).exits(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments}");
    }
}

#[test]
fn completions_are_a_script() {
    let script = Place::new().run("completions bash").exits(0).stdout;
    assert!(script.contains("_metanode") && script.contains("quickstart"));
}

#[test]
fn too_few_providers_are_refused_with_the_arithmetic() {
    let place = Place::new();
    place
        .run("storage distributed init --providers a,b,c --replication-factor 3")
        .exits(2)
        .says("surviving f = 3 - 1 = 2 lost domains")
        .says("k = n - f = 3 - 2 = 1, but k must be at least min_k = 2")
        .says("configure 1 more failure domain(s)")
        .says("hint:");
    assert!(!place.home().exists(), "a refused init leaves nothing behind");
}

#[test]
fn encryption_cannot_be_off_by_accident() {
    let place = Place::new();
    place
        .run(&format!("{INIT} --encryption false"))
        .exits(2)
        .says("--encryption false is refused")
        .says("hint: for an experiment without secrets add --insecure");
    assert!(!place.home().exists());
    place.run(&format!("{INIT} --insecure")).exits(2);
    let told = place.run(&format!("{INIT} --encryption false --insecure --output json")).exits(0).json();
    assert_eq!(told["encryption"], false);
    assert!(!place.home().join("master.key").exists(), "an insecure home has no key that could be mistaken for one");
}

#[test]
fn init_is_idempotent_and_refuses_to_change() {
    let place = Place::new();
    let first = place.run(&format!("{INIT} --output json")).exits(0).json();
    assert_eq!((&first["created"], &first["k"], &first["n"], &first["losses_survived"]), (&true.into(), &3.into(), &5.into(), &2.into()));
    let files = ["metanode.toml", "master.key", "log.pub", "data/keyring"];
    let read = || files.map(|name| std::fs::read(place.home().join(name)).unwrap());
    let before = read();
    let again = place.run(&format!("{INIT} --output json")).exits(0).json();
    assert_eq!(again["created"], false);
    assert_eq!(again["log_public_key"], first["log_public_key"]);
    assert_eq!(read(), before);
    place
        .run("storage distributed init --providers a,b,c,d --replication-factor 2")
        .exits(1)
        .says("providers is a,b,c,d,e, asked for was a,b,c,d")
        .says("replication factor is 3, asked for was 2");
    assert_eq!(read(), before);
}

#[test]
fn secrets_are_private_and_not_in_the_configuration() {
    let place = Place::new();
    place.run(INIT).exits(0);
    for name in ["master.key", "data/keyring", "metanode.toml"] {
        let mode = std::fs::metadata(place.home().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let key = std::fs::read_to_string(place.home().join("master.key")).unwrap();
    assert_eq!(key.trim().len(), 64);
    assert!(!std::fs::read_to_string(place.home().join("metanode.toml")).unwrap().contains(key.trim()));
}

#[test]
fn a_master_key_is_named_never_given() {
    let place = Place::new();
    place.run(&format!("{INIT} --master-key {}", "ab".repeat(32))).exits(2).says("only the place that holds it").says("consider it spent");
    let key = place.path("key");
    std::fs::write(&key, [7; 32]).unwrap();
    place.run(&format!("{INIT} --master-key {}", key.display())).exits(78).says("is open to others").says("hint: chmod 600");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    place.run(&format!("{INIT} --master-key {}", key.display())).exits(0);
    assert!(!place.home().join("master.key").exists());
    std::fs::write(&key, [7; 31]).unwrap();
    place.run(&format!("{INIT} --master-key {}", key.display())).exits(2).says("the master key has 31 bytes");
}

#[test]
fn the_wrong_master_key_is_a_refused_state() {
    let place = Place::new();
    place.init_local(5, 3);
    std::fs::write(place.home().join("master.key"), "00".repeat(32)).unwrap();
    place
        .run("storage distributed start")
        .exits(78)
        .says("the master key does not open")
        .says("hint: this is another deployment's master key");
    place.run("config check").exits(78);
    std::fs::remove_file(place.home().join("master.key")).unwrap();
    place.run("storage distributed init --providers p1,p2,p3,p4,p5").exits(78).says("a new key would not open what is stored");
}

#[test]
fn what_cannot_be_switched_off_is_said() {
    let place = Place::new();
    place.run("storage distributed start --audit-enabled false").exits(2).says("the audit log is the commit log");
    place.run("storage distributed start --backup-enabled false").exits(2).says("keys and log lie at the providers");
}

#[test]
fn without_a_home_or_a_service_there_are_hints() {
    let place = Place::new();
    place.run("storage distributed start").exits(2).says("there is no configuration").says("hint: metanode storage distributed init");
    place.run("storage distributed status").exits(2).says("hint:");
    place.run(INIT).exits(0);
    place.run("storage distributed status").exits(2).says("there is no API key").says("the first start of the service writes");
    std::fs::write(place.home().join("operator.token"), "dsp_0_0").unwrap();
    std::fs::set_permissions(place.home().join("operator.token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("http://127.0.0.1:{}", free_port());
    place
        .run(&format!("storage distributed status --url {url}"))
        .exits(3)
        .says("does not answer")
        .says("hint: metanode storage distributed start runs it");
}

#[test]
fn providers_without_endpoint_or_credentials_are_named() {
    let place = Place::new();
    place.run("storage distributed init --providers aws,gcp,s3-own --replication-factor 2").exits(0);
    place.run("storage distributed start").exits(2).says("aws").says("configure");
    place.run("storage providers configure --aws-region nowhere-1").exits(2).says("nowhere-1").says("hint: there are");
    place.run("storage providers configure --aws-region eu-central-1 --gcp-region europe-west3").exits(0);
    let listed = place.run("storage providers list --output json").exits(0).json();
    assert_eq!(listed[0]["region"], "eu-central-1");
    assert!(listed[2]["problem"].as_str().unwrap().contains("endpoint"), "{listed}");
    assert_eq!(listed[0]["credentials"], "none");
    place.run("storage providers configure").exits(2).says("nothing to configure");
}

#[test]
fn a_configuration_that_cannot_be_used_says_why() {
    let place = Place::new();
    place.init_local(5, 3);
    let told = place.run("config check --output json").exits(0).json();
    assert_eq!((&told["k"], &told["n"]), (&3.into(), &5.into()));
    let path = place.home().join("metanode.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("[service]", "[service]\nprot = 1")).unwrap();
    place.run("config check").exits(2).says("prot");
    std::fs::write(&path, good.replace("schema = 1", "schema = 99")).unwrap();
    place.run("config check").exits(78).says("schema 99");
    std::fs::write(&path, &good).unwrap();
    let mut overruled = place;
    overruled.set("DIASPORE_SERVICE__PORT", "9555");
    assert!(overruled.run("config check --output json").exits(0).json()["listen"].as_str().unwrap().ends_with(":9555"));
    overruled.set("DIASPORE_POLICY__REPLICATION_FACTOR", "5");
    overruled.set("DIASPORE_POLICY__MAX_CLOUD_PROVIDERS", "6");
    overruled.run("config check").exits(2).says("k = n - f = 5 - 4 = 1");
}

#[test]
fn a_provider_that_cannot_be_written_fails_its_test() {
    let place = Place::new();
    place.init_local(5, 3);
    let told = place.run("storage providers configure --test --output json").exits(0).json();
    assert!(told.as_array().unwrap().iter().any(|probe| probe["probe"] == "put" && probe["works"] == true), "{told}");
    std::fs::remove_dir_all(place.path("clouds/p2")).unwrap();
    let failed = place.run("storage providers configure --test");
    assert!(failed.code == 3 || failed.code == 2, "{failed:?}");
    assert!(failed.stderr.contains("p2"), "{failed:?}");
}
