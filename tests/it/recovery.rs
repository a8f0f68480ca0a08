//! `storage distributed recover` when providers are gone for good: what can be read is served, what cannot is listed.

use crate::program::{Place, noise, status_of, tree};

/// A 3-of-5 deployment that held a large blob and small ones, settled, stopped, and without its disk.
fn burnt() -> Place {
    let place = Place::new();
    place.init_local(5, 3);
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("large.bin"), noise(1, 3_000_000)).unwrap();
    for at in 0..3 {
        std::fs::write(data.join(format!("small-{at}")), noise(at + 2, 3000)).unwrap();
    }
    let service = place.start("start");
    place.run(&format!("blob put {} photos/ --url {}", data.display(), service.url)).exits(0);
    place.run(&format!("storage distributed settle --wait --timeout-s 60 --url {}", service.url)).exits(0);
    assert_eq!(service.stop(), 0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place
}

/// Two of five are gone and three are left: a commit would need four, so nothing is written, and everything is read.
#[test]
fn with_n_minus_k_providers_gone_everything_is_served_read_only() {
    let place = burnt();
    for gone in ["p2", "p4"] {
        std::fs::remove_dir_all(place.path("clouds").join(gone)).unwrap();
    }
    let lost = "--declare-lost p2 --declare-lost p4";
    let recovered = place.run(&format!("storage distributed recover {lost} --output json")).exits(0).json();
    assert_eq!((&recovered["state"], &recovered["blobs"]), (&"read-only".into(), &4.into()));
    assert_eq!(recovered["losses"]["unreadable"], serde_json::json!([]));

    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let service = place.start(&format!("recover --serve {lost}"));
    place.run(&format!("blob get photos/ {} --recursive --url {}", place.path("back").display(), service.url)).exits(0);
    assert_eq!(tree(&place.path("back")), tree(&place.path("data")));
    assert_eq!(status_of(&format!("{}/healthz", service.url)), Some(200));
    place.run(&format!("blob put {} photos/more --url {}", place.path("data/small-0").display(), service.url)).exits(3);
    assert_eq!(service.stop(), 0);
}

/// Three of five lost the shards of the large blob: more than its class survives. It is listed by its version, and the rest is there.
#[test]
fn what_cannot_be_read_is_listed_by_id() {
    let place = burnt();
    let mut removed = 0;
    for cloud in ["p1", "p3", "p5"] {
        for (path, bytes) in tree(&place.path("clouds").join(cloud)) {
            if bytes.len() > 100_000 {
                std::fs::remove_file(place.path("clouds").join(cloud).join(path)).unwrap();
                removed += 1;
            }
        }
    }
    assert!(removed >= 3, "the large blob has its shards in objects of their own");
    let ran = place.run("storage distributed recover --output json").exits(4).says("cannot be read now");
    let losses = &ran.json()["losses"];
    let unreadable = losses["unreadable"].as_array().unwrap();
    assert_eq!(unreadable.len(), 1, "{losses}");
    assert_eq!(unreadable[0]["size"], 3_000_000);
    assert_eq!(unreadable[0]["version"].as_str().unwrap().len(), 36);
    assert!(!losses["lost_blocks"].as_array().unwrap().is_empty());
    let service = place.start("start");
    place.run(&format!("blob get photos/small-1 {} --url {}", place.path("one").display(), service.url)).exits(0);
    assert_eq!(std::fs::read(place.path("one")).unwrap(), noise(3, 3000));
    place.run(&format!("blob get photos/large.bin {} --url {}", place.path("large").display(), service.url)).exits(3);
    // Stored again it is stored: what a recovery found lost is nothing that deduplication relies on.
    place.run(&format!("blob put {} photos/large.bin --url {}", place.path("data/large.bin").display(), service.url)).exits(0);
    place.run(&format!("blob get photos/large.bin {} --url {}", place.path("large").display(), service.url)).exits(0);
    assert_eq!(std::fs::read(place.path("large")).unwrap(), noise(1, 3_000_000));
    assert_eq!(service.stop(), 0);
}

/// A checkpoint on request, and a recovery that begins from it; the store as a whole is sound afterwards.
#[test]
fn a_recovery_begins_from_the_checkpoint_that_was_asked_for() {
    let place = Place::new();
    place.init_local(5, 3);
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    for at in 0..4 {
        std::fs::write(data.join(format!("small-{at}")), noise(at + 2, 3000)).unwrap();
    }
    let service = place.start("start");
    place.run(&format!("blob put {} photos/ --url {}", data.display(), service.url)).exits(0);
    for generation in 0..2 {
        let made = place.run(&format!("storage distributed checkpoint --wait --output json --url {}", service.url)).exits(0).json();
        assert_eq!((&made["heads"], made["written"].as_u64().unwrap() > 1), (&5.into(), true), "{generation}: {made}");
    }
    let third = place.run(&format!("storage distributed checkpoint --wait --url {}", service.url)).exits(0);
    assert!(third.stdout.contains("Announced: at 5 providers"), "{third:?}");
    assert_eq!(service.stop(), 0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let recovered = place.run("storage distributed recover --output json").exits(0).json();
    assert_eq!((&recovered["state"], &recovered["blobs"]), (&"active".into(), &4.into()));
    let service = place.start("start");
    place.run(&format!("blob get photos/ {} --recursive --url {}", place.path("back").display(), service.url)).exits(0);
    assert_eq!(tree(&place.path("back")), tree(&place.path("data")));
    assert_eq!(service.stop(), 0);
}
