//! Another master key, as an operator replaces it.

use std::os::unix::fs::PermissionsExt;

use crate::program::{Place, noise};

#[test]
fn the_master_key_is_replaced_and_what_the_old_one_opened_is_gone() {
    let place = Place::new();
    place.init_local(5, 3);
    let bytes = noise(1, 200_000);
    std::fs::write(place.path("blob"), &bytes).unwrap();
    let backup = place.path("old.backup");
    let service = place.start("start");
    let run = |arguments: &str| place.run(&format!("{arguments} --url {}", service.url));
    run(&format!("blob put {} bucket/key", place.path("blob").display())).exits(0);
    run("storage distributed settle --wait --timeout-s 60").exits(0);
    run(&format!("storage distributed backup export {}", backup.display())).exits(0);

    // A key is drawn first, and nothing else: it is to be copied away before anything hangs on it.
    let (own, old, new) = (place.home().join("master.key"), place.path("old.key"), place.path("new.key"));
    let rotate = format!("keys rotate --new-key {}", new.display());
    place.run(&rotate).exits(0).says("hint: nothing else was changed");
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    place.run(&rotate).exits(1).says("in use by another process");
    assert_eq!(service.stop(), 0);
    std::fs::copy(&own, &old).unwrap();
    assert_ne!(std::fs::read(&own).unwrap(), std::fs::read(&new).unwrap());

    // One account is out of reach: its old copy is left, and deleted by a later start.
    let (cloud, away) = (place.path("clouds/p5"), place.path("clouds/away"));
    let keyring = place.home().join("data/keyring");
    let under_old = std::fs::read(&keyring).unwrap();
    std::fs::rename(&cloud, &away).unwrap();
    std::fs::write(&cloud, b"no folder").unwrap();
    let report = place.run(&format!("{rotate} --output json")).exits(3).says("every start tries again").json();
    assert_eq!((&report["holders"], &report["left"]), (&4.into(), &serde_json::json!(["p5"])));
    assert_eq!(std::fs::read(&own).unwrap(), std::fs::read(&new).unwrap());
    std::fs::remove_file(&cloud).unwrap();
    std::fs::rename(&away, &cloud).unwrap();
    // As a process leaves it that dies between its last two files.
    std::fs::rename(&keyring, place.home().join("data/keyring.next")).unwrap();
    std::fs::write(&keyring, under_old).unwrap();
    let service = place.start("start");
    let log = std::fs::read_to_string(place.path("service.log")).unwrap();
    assert!(log.contains("no copy of the keyring is left under the one before"), "{log}");
    let run = |arguments: &str| place.run(&format!("{arguments} --url {}", service.url));
    let back = place.path("back");
    run(&format!("blob get bucket/key {}", back.display())).exits(0);
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
    let audit = run("storage distributed audit --output json").exits(0).json();
    assert!(audit["administration"].as_u64().is_some_and(|count| count > 0), "{audit}");
    assert_eq!(service.stop(), 0);
    assert!(!place.home().join("data/keyring.next").exists() && !place.home().join("data/keyring.replaced").exists());
    let again = place.run(&rotate).exits(0).stdout;
    assert!(again.contains("in force already"), "{again}");

    // The old key opens neither the disk nor any provider's copy, the new one no backup made before.
    place.run(&format!("storage distributed start --master-key {}", old.display())).exits(78).says("keys rotate replaced");
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place
        .run(&format!("storage distributed recover --master-key {}", old.display()))
        .exits(78)
        .says("no provider holds a keyring for this master key")
        .says("the one that followed it opens everything");
    let refused = place.run(&format!("storage distributed backup restore {}", backup.display()));
    refused.exits(78).says("the master key does not open the keyring");
    assert_eq!(place.run("storage distributed recover --output json").exits(0).json()["blobs"], 1);

    // Where the key is not the home folder's own, the operator puts the new one in its place.
    let third = place.path("third.key");
    let rotate = format!("keys rotate --new-key {} --master-key {}", third.display(), own.display());
    place.run(&rotate).exits(0);
    place.run(&rotate).exits(0).says("hint: from now on the service starts with the new key");
    place.run("storage distributed start").exits(78);
    let service = place.start(&format!("start --master-key {}", third.display()));
    assert_eq!(service.stop(), 0);
}
