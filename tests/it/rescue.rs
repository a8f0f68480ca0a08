//! `storage distributed recover --salvage`: what can still be rebuilt is copied out, and no provider notices more than a reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::program::{Place, noise, tree};

/// A 3-of-5 deployment that held a large blob and small ones, one of them with a name that no file can have, settled, stopped, and without
/// its disk.
fn burnt() -> Place {
    let place = Place::new();
    place.init_local(5, 3);
    let data = place.path("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("large.bin"), noise(1, 3_000_000)).unwrap();
    for at in 0..3 {
        std::fs::write(data.join(format!("sub/small-{at}")), noise(at + 2, 3000)).unwrap();
    }
    let service = place.start("start");
    place.run(&format!("blob put {} photos/ --url {}", data.display(), service.url)).exits(0);
    let odd = format!("blob put {} photos/a//b --content-type x/y --url {}", data.join("sub/small-0").display(), service.url);
    place.run(&odd).exits(0);
    place.run(&format!("storage distributed settle --wait --timeout-s 60 --url {}", service.url)).exits(0);
    assert_eq!(service.stop(), 0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place
}

/// Takes objects for which `goes` holds from three of five clouds.
fn lose(place: &Place, goes: impl Fn(&[u8]) -> bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut lost = BTreeMap::new();
    for cloud in ["p1", "p3", "p5"] {
        let root = place.path("clouds").join(cloud);
        for (path, bytes) in tree(&root).into_iter().filter(|(_, bytes)| goes(bytes)) {
            std::fs::remove_file(root.join(&path)).unwrap();
            lost.insert(root.join(path), bytes);
        }
    }
    lost
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_can_be_rebuilt_is_copied_out_and_the_rest_is_listed() {
    let place = burnt();
    let lost = lose(&place, |bytes| bytes.len() > 100_000);
    let (clouds, home) = (tree(&place.path("clouds")), tree(&place.home()));
    let out = place.path("out");
    let salvage = format!("storage distributed recover --salvage {} --output json", out.display());
    let report = place.run(&salvage).exits(4).says("not everything could be saved").json();
    assert_eq!((&report["blobs"], &report["written"], &report["missing"]), (&5.into(), &4.into(), &1.into()));
    assert_eq!((tree(&place.path("clouds")), tree(&place.home())), (clouds, home), "nothing is written anywhere else");

    let bucket = out.join("blobs/default/photos");
    for at in 0..3 {
        assert_eq!(std::fs::read(bucket.join(format!("sub/small-{at}"))).unwrap(), noise(at + 2, 3000));
    }
    let missing = lines(&out.join("missing.jsonl"));
    assert_eq!((&missing[0]["key"], &missing[0]["size"], missing.len()), (&"large.bin".into(), &3_000_000.into(), 1));
    assert!(missing[0]["blocks"].as_array().unwrap().iter().all(|block| block["shards"] == 2 && block["needed"] == 3), "{missing:?}");
    let manifest = lines(&out.join("manifest.jsonl"));
    let odd = manifest.iter().find(|line| line["key"] == "a//b").unwrap();
    assert_eq!((&odd["content_type"], &odd["size"]), (&"x/y".into(), &3000.into()));
    assert_eq!(std::fs::read(out.join(odd["path"].as_str().unwrap())).unwrap(), noise(2, 3000));

    // Run again with the providers back: what is there is kept, what was missing is added.
    for (path, bytes) in lost {
        std::fs::write(path, bytes).unwrap();
    }
    let report = place.run(&salvage).exits(0).json();
    assert_eq!((&report["written"], &report["kept"], &report["missing"]), (&1.into(), &4.into(), &0.into()));
    assert_eq!(std::fs::read(bucket.join("large.bin")).unwrap(), noise(1, 3_000_000));
    assert!(!out.join(".salvage/ledger").exists());

    // And from the folder into a service again.
    let service = place.start("recover --serve");
    place.run(&format!("blob put {} again/ --url {}", bucket.display(), service.url)).exits(0);
    place.run(&format!("blob get again/ {} --recursive --url {}", place.path("back").display(), service.url)).exits(0);
    assert_eq!(tree(&place.path("back")), tree(&place.path("data")));
    assert_eq!(service.stop(), 0);
}

#[test]
fn nothing_of_anybody_else_is_written_over() {
    let place = burnt();
    let foreign = place.path("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("diary"), b"dear").unwrap();
    place.run(&format!("storage distributed recover --salvage {}", foreign.display())).exits(2).says("nothing in it was touched");
    assert_eq!(tree(&foreign).len(), 1);

    let out = place.path("out");
    let salvage = format!("storage distributed recover --salvage {} --output json", out.display());
    place.run(&salvage).exits(0);
    // Somebody edits a file, and another one is damaged without changing its length.
    std::fs::write(out.join("blobs/default/photos/sub/small-0"), b"mine").unwrap();
    let mut damaged = noise(3, 3000);
    damaged[7] ^= 1;
    std::fs::write(out.join("blobs/default/photos/sub/small-1"), &damaged).unwrap();
    let report = place.run(&salvage).exits(4).json();
    assert_eq!((&report["kept"], &report["missing"]), (&3.into(), &2.into()));
    assert_eq!(std::fs::read(out.join("blobs/default/photos/sub/small-0")).unwrap(), b"mine");
    assert_eq!(std::fs::read(out.join("blobs/default/photos/sub/small-1")).unwrap(), damaged);

    // A run that ended between giving a file its name and listing it: the file is known by its other name.
    std::fs::remove_dir_all(out.join("blobs")).unwrap();
    std::fs::remove_file(out.join("manifest.jsonl")).unwrap();
    place.run(&salvage).exits(4).says("not everything");
    let kept = lines(&out.join("manifest.jsonl")).into_iter().find(|line| line["key"] == "sub/small-2").unwrap();
    let path = out.join(kept["path"].as_str().unwrap());
    std::fs::hard_link(&path, out.join(format!(".salvage/{}.part", kept["version"].as_str().unwrap()))).unwrap();
    std::fs::remove_file(out.join("manifest.jsonl")).unwrap();
    place.run(&salvage).exits(4);
    let listed = lines(&out.join("manifest.jsonl"));
    assert_eq!(listed.iter().map(|line| &line["key"]).collect::<Vec<_>>(), ["sub/small-2"]);
}

#[test]
fn without_a_log_it_is_said_that_nothing_has_a_name() {
    let place = burnt();
    lose(&place, |bytes| bytes.len() <= 100_000);
    let ran = place.run(&format!("storage distributed recover --salvage {} --output json", place.path("out").display()));
    let report = ran.exits(78).says("nothing can be rebuilt").json();
    assert_eq!((&report["blobs"], &report["written"]), (&0.into(), &0.into()));
    assert!(report["unnamed_blocks"].as_u64() > Some(0) && report["unnamed_blocks"] == report["unnamed_rebuildable"], "{report}");
    assert!(!report["holes"].as_array().unwrap().is_empty());
}

/// A position in the middle of the log is gone at three of five. What comes back after the operator's word changes nothing any more.
#[test]
fn the_log_goes_on_without_what_is_missing() {
    let place = Place::new();
    place.init_local(5, 3);
    let service = place.start("start");
    let stage = |index: u64, name: &str| {
        std::fs::write(place.path(name), noise(index, 3000)).unwrap();
        place.run(&format!("blob put {} photos/{name} --url {}", place.path(name).display(), service.url)).exits(0);
        place.run(&format!("storage distributed settle --wait --timeout-s 60 --url {}", service.url)).exits(0);
        let exported = place.path(&format!("{name}.jsonl"));
        place.run(&format!("audit export --out {} --url {}", exported.display(), service.url)).exits(0);
        let seal = lines(&exported).pop().unwrap();
        std::fs::write(place.path(&format!("{name}.note")), seal["checkpoint"].as_str().unwrap()).unwrap();
        tree(&place.path("clouds"))
    };
    let one = stage(1, "one");
    let two = stage(2, "two");
    stage(3, "three");
    assert_eq!(service.stop(), 0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let gone = |path: &Path| ["p1", "p3", "p5"].iter().any(|cloud| path.starts_with(cloud)) && !one.contains_key(path);
    let lost: Vec<_> = two.iter().filter(|(path, _)| gone(path)).collect();
    for (path, _) in &lost {
        std::fs::remove_file(place.path("clouds").join(path)).unwrap();
    }

    let recover = "storage distributed recover --output json";
    let loss = place.run(recover).exits(78).says("acknowledged data is missing").says("recover --salvage DIR first").json();
    assert!(!loss["unknown"].as_array().unwrap().is_empty() && loss["blobs_total"] == 1, "{loss}");
    let token = loss["token"].as_str().unwrap();
    assert_eq!(place.run(recover).exits(78).json()["token"], token, "the same state gives the same token");
    place.run(&format!("{recover} --accept-loss 0123-4567-89ab-cdef")).exits(78).says("is not what was accepted");
    let out = place.path("out");
    let salvaged = place.run(&format!("{recover} --salvage {}", out.display())).exits(4).json();
    assert_eq!(salvaged["written"], 2, "{salvaged}");
    let recovered = place.run(&format!("{recover} --accept-loss {token}")).exits(0).json();
    assert_eq!((&recovered["state"], &recovered["blobs"]), (&"active".into(), &1.into()), "{recovered}");

    // The providers are back, and what was copied out goes in again.
    for (path, bytes) in lost {
        std::fs::write(place.path("clouds").join(path), bytes).unwrap();
    }
    let service = place.start("start");
    place.run(&format!("blob put {} photos/ --url {}", out.join("blobs/default/photos").display(), service.url)).exits(0);
    let exported = place.path("after.jsonl");
    place.run(&format!("audit export --out {} --url {}", exported.display(), service.url)).exits(0);
    let verify = format!("audit verify {} --key {} --output json", exported.display(), place.home().join("log.pub").display());
    let verified = place.run(&format!("{verify} --checkpoint {}", place.path("one.note").display())).exits(0).json();
    assert!(verified["extends"].is_u64() && verified["losses"].as_array().unwrap().len() == 1, "{verified}");
    let verified = place.run(&format!("{verify} --checkpoint {}", place.path("three.note").display())).exits(0).json();
    assert!(verified["extends"].is_null() && verified["incomparable"]["kept"].is_u64(), "{verified}");
    place.run(&format!("storage distributed settle --wait --timeout-s 60 --url {}", service.url)).exits(0);
    assert_eq!(service.stop(), 0);
    place.run("storage distributed fsck").exits(0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let again = place.run(recover).exits(0).json();
    assert_eq!((&again["state"], &again["blobs"]), (&"active".into(), &2.into()), "what was given up stays given up");
}
