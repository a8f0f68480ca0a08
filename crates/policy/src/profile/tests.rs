use super::*;
use crate::account::ProviderId;
use crate::geometry::plan_geometry;

#[test]
fn every_data_file_is_embedded_and_loads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let profiles = BuiltInProfiles::load().unwrap();
    assert_eq!(on_disk, profiles.iter().map(|profile| profile.name.clone()).collect());
    for (name, _) in EMBEDDED {
        assert_eq!(profiles.get(name).unwrap().name, name, "file name and name field agree");
    }
}

#[test]
fn the_default_in_code_is_the_default_on_disk() {
    assert_eq!(BuiltInProfiles::load().unwrap().get("default").unwrap(), &Profile::default());
}

#[test]
fn the_shipped_profiles_keep_what_their_descriptions_say() {
    let profiles = BuiltInProfiles::load().unwrap();
    for profile in profiles.iter() {
        let n = usize::from(profile.max_cloud_providers);
        let plan = plan_geometry(profile, n, n).unwrap();
        let layout = format!("{}-of-{}", plan.k, plan.n);
        assert!(profile.description.starts_with(&layout), "{}: {layout} / {}", profile.name, profile.description);
    }
}

#[test]
fn an_unknown_profile_lists_the_known() {
    let error = BuiltInProfiles::load().unwrap().get("cheap").unwrap_err().to_string();
    assert_eq!(error, "no policy named \"cheap\"; known are: default, high-write, low-memory, low-overhead, max-durability, quickstart");
}

#[test]
fn numbers_out_of_range_are_named() {
    type Change = fn(&mut Profile);
    let cases: [(&str, Change); 9] = [
        ("replication_factor", |p| p.replication_factor = 1),
        ("min_k", |p| p.min_k = 0),
        ("max_cloud_providers", |p| p.max_cloud_providers = 3),
        ("max_cloud_providers", |p| p.max_cloud_providers = 33),
        ("compression_level", |p| p.compression_level = 20),
        ("linger_ms", |p| p.linger_ms = 251),
        ("window", |p| p.window = 0),
        ("lease_ms", |p| p.lease_ms = 99),
        ("requests.burst", |p| p.requests.burst = 0),
    ];
    for (field, change) in cases {
        let mut profile = Profile::default();
        change(&mut profile);
        let error = profile.check().unwrap_err();
        assert!(matches!(error, ProfileError::Range { field: found, .. } if found == field), "{error}");
    }
}

#[test]
fn misspelt_fields_are_refused() {
    let text = include_str!("../../../../policy/default.toml");
    let error = Profile::from_toml("mine", &text.replace("min_k", "mink")).unwrap_err();
    assert!(error.to_string().contains("unknown field `mink`"), "{error}");
}

#[test]
fn jurisdictions_and_vendors_decide_who_may_hold_shards() {
    let spec = |jurisdiction: &str, vendor: &str| {
        let base = ProviderSpec::memory(ProviderId::new("x").unwrap());
        ProviderSpec { jurisdiction: jurisdiction.to_owned(), vendor: vendor.to_owned(), ..base }
    };
    let mut profile = Profile::default();
    assert!(profile.admits(&spec("US", "aws")));
    profile.jurisdictions = ["DE".to_owned(), "FR".to_owned()].into();
    assert!(profile.admits(&spec("DE", "aws")) && !profile.admits(&spec("US", "aws")));
    profile.exclude_vendors = ["aws".to_owned()].into();
    assert!(!profile.admits(&spec("DE", "aws")) && profile.admits(&spec("FR", "ovh")));
}
