use super::*;
use std::collections::BTreeSet;
use std::path::Path;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../providers")
}

/// Every file of `providers/` is embedded, and every embedded preset is a file: a preset that nobody loads would rot.
#[test]
fn every_data_file_is_embedded_and_loads() {
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let catalogue = Catalogue::built_in().unwrap();
    let embedded: BTreeSet<String> = catalogue.iter().map(|preset| preset.name.clone()).collect();
    assert_eq!(on_disk, embedded);
    for (name, _) in EMBEDDED {
        assert_eq!(catalogue.get(name).unwrap().name, name, "file name and name field agree");
    }
}

#[test]
fn the_ten_clouds_of_the_specification_are_there() {
    let catalogue = Catalogue::built_in().unwrap();
    for name in ["aws", "gcp", "azure", "digitalocean", "linode", "vultr", "hetzner", "ovh", "r2", "local"] {
        assert!(catalogue.get(name).is_some(), "{name}");
    }
    assert_eq!(catalogue.get("azure").unwrap().dialect, Dialect::Azure);
    let priced: Vec<&ProviderPreset> = catalogue.iter().filter(|preset| preset.price.is_some()).collect();
    assert!(priced.len() >= 9, "every commercial cloud has a list price");
    assert!(priced.iter().all(|preset| preset.price.as_ref().unwrap().source.starts_with("https://")));
}

#[test]
fn every_region_has_a_jurisdiction() {
    for preset in Catalogue::built_in().unwrap().iter() {
        for region in &preset.regions {
            let code = region.jurisdiction.as_str();
            let country = code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
            assert!(country || code == "local", "{}/{}: {code}", preset.name, region.name);
        }
    }
}

#[test]
fn an_operators_file_replaces_a_preset_and_adds_one() {
    let aws = std::fs::read_to_string(folder().join("aws.toml")).unwrap().replace("Amazon S3", "Our AWS");
    let minio = std::fs::read_to_string(folder().join("minio.toml")).unwrap();
    let own = minio.replace("name = \"minio\"", "name = \"cellar\"");
    let catalogue = Catalogue::built_in().unwrap().with_overrides([("aws", aws.as_str()), ("cellar", own.as_str())]).unwrap();
    assert_eq!(catalogue.get("aws").unwrap().title, "Our AWS");
    assert!(catalogue.get("cellar").is_some() && catalogue.get("minio").is_some());
    assert!(Catalogue::built_in().unwrap().with_overrides([("other", own.as_str())]).is_err(), "file and name must agree");
}

#[test]
fn broken_files_are_refused_with_a_reason() {
    let good = std::fs::read_to_string(folder().join("hetzner.toml")).unwrap();
    let refuse = |from: &str, to: &str, needle: &str| {
        assert!(good.contains(from), "the test replaces nothing: {from}");
        let error = ProviderPreset::from_toml("hetzner", &good.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    };
    refuse("vendor =", "vendour =", "unknown field `vendour`");
    refuse("dialect = \"s3\"", "dialect = \"s4\"", "s4");
    refuse("default_region = \"fsn1\"", "default_region = \"xyz\"", "default_region");
    refuse("https://{region}", "http://{region}", "must be https");
    refuse("{region}", "{city}", "placeholders");
    refuse("name = \"nbg1\"", "name = \"fsn1\"", "twice");
    refuse("name = \"hetzner\"", "name = \"Hetzner Cloud\"", "lower-case");
    refuse("as_of = \"2025-01-01\"", "as_of = \"\"", "a price needs");
}
