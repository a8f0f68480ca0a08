use super::*;

fn catalogue() -> Catalogue {
    Catalogue::built_in().unwrap()
}

fn id(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

#[test]
fn names_are_plain() {
    for good in ["aws", "a", "0", "my-cloud_2.eu", &"x".repeat(64)] {
        assert_eq!(ProviderId::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "-a", ".a", "A", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
        assert!(ProviderId::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_entry_is_completed_from_its_preset() {
    let entry = AccountConfig { bucket: Some("shards".to_owned()), ..AccountConfig::new(id("main"), "aws") };
    let spec = entry.resolve(&catalogue()).unwrap();
    assert_eq!(spec.endpoint.as_deref(), Some("https://s3.us-east-1.amazonaws.com"));
    assert_eq!(spec.domain.as_str(), "aws/main");
    assert!(!spec.domain_declared);
    assert_eq!((spec.jurisdiction.as_str(), spec.weight, spec.addressing), ("US", DEFAULT_WEIGHT, Addressing::Virtual));
    assert_eq!(spec.price.write_million, 5_000_000);
}

#[test]
fn two_accounts_of_one_preset_are_two_domains_unless_declared() {
    let entry = |name, domain: Option<&str>| AccountConfig {
        bucket: Some("b".to_owned()),
        domain: domain.map(str::to_owned),
        ..AccountConfig::new(id(name), "aws")
    };
    let catalogue = catalogue();
    let [a, b] = ["a", "b"].map(|name| entry(name, None).resolve(&catalogue).unwrap().domain);
    assert_ne!(a, b);
    let [a, b] = ["a", "b"].map(|name| entry(name, Some("one-company")).resolve(&catalogue).unwrap());
    assert_eq!(a.domain, b.domain);
    assert!(a.domain_declared, "a declared domain is shown as declared");
}

#[test]
fn the_account_fills_its_placeholder() {
    let mut entry = AccountConfig { bucket: Some("b".to_owned()), ..AccountConfig::new(id("cf"), "r2") };
    assert_eq!(entry.resolve(&catalogue()), Err(SpecError::Missing { name: id("cf"), field: "account" }));
    entry.account = Some("0123".to_owned());
    assert_eq!(entry.resolve(&catalogue()).unwrap().endpoint.as_deref(), Some("https://0123.r2.cloudflarestorage.com"));
}

#[test]
fn refusals_name_the_choices() {
    let unknown = AccountConfig::new(id("x"), "amazon").resolve(&catalogue()).unwrap_err().to_string();
    assert!(unknown.contains("\"amazon\"") && unknown.contains("aws, azure, digitalocean"), "{unknown}");
    let entry = AccountConfig { region: Some("moon-1".to_owned()), bucket: Some("b".to_owned()), ..AccountConfig::new(id("x"), "aws") };
    let region = entry.resolve(&catalogue()).unwrap_err().to_string();
    assert!(region.contains("moon-1") && region.contains("eu-central-1"), "{region}");
    let no_endpoint = AccountConfig { bucket: Some("b".to_owned()), ..AccountConfig::new(id("x"), "s3") };
    assert_eq!(no_endpoint.resolve(&catalogue()), Err(SpecError::Missing { name: id("x"), field: "endpoint" }));
    assert_eq!(AccountConfig::new(id("x"), "local").resolve(&catalogue()), Err(SpecError::Missing { name: id("x"), field: "folder" }));
    assert_eq!(AccountConfig::new(id("x"), "aws").resolve(&catalogue()), Err(SpecError::Missing { name: id("x"), field: "bucket" }));
}

#[test]
fn prefixes_and_buckets_are_plain_segments() {
    let with = |prefix: &str, bucket: &str| {
        ProviderSpec { prefix: prefix.to_owned(), ..ProviderSpec::s3(id("x"), "http://127.0.0.1:1", bucket) }.check()
    };
    assert_eq!(with("", "bucket"), Ok(()));
    assert_eq!(with("a/b-1", "bucket"), Ok(()));
    for bad in ["/a", "a/", "a//b", "../a", "a/..", "a b", "ä"] {
        assert!(matches!(with(bad, "bucket"), Err(SpecError::Prefix { .. })), "{bad:?}");
    }
    for bad in ["a/b", "..", "a?b", "a@b"] {
        assert!(matches!(with("", bad), Err(SpecError::Bucket { .. })), "{bad:?}");
    }
}

#[test]
fn entries_survive_a_round_trip_and_misspelt_fields_do_not() {
    let entry = AccountConfig { bucket: Some("b".to_owned()), weight: Some(7), ..AccountConfig::new(id("x"), "aws") };
    let text = toml::to_string(&entry).unwrap();
    assert_eq!(toml::from_str::<AccountConfig>(&text).unwrap(), entry);
    assert!(toml::from_str::<AccountConfig>(&format!("{text}\nwieght = 3")).is_err());
    assert!(toml::from_str::<AccountConfig>("name = \"A B\"\npreset = \"aws\"").is_err(), "names are checked while parsing");
}
