//! Accounts that came later stand in for those of the beginning.

use crate::program::{Place, noise};

/// Takes an account out of the configuration, and what lies there with it.
fn forget(place: &Place, gone: &str) {
    let path = place.home().join("metanode.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut parts = text.split("[[providers]]");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts.filter(|part| !part.contains(&format!("name = \"{gone}\""))) {
        kept.push_str("[[providers]]");
        kept.push_str(part);
    }
    std::fs::write(path, kept).unwrap();
    std::fs::remove_dir_all(place.path("clouds").join(gone)).unwrap();
}

/// All accounts were replaced, one after the other. Then the disk is lost: nothing of the beginning is left, and everything is there.
#[test]
fn with_every_account_replaced_a_lost_disk_is_still_recovered() {
    let place = Place::new();
    place.init_local(5, 3);
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("kept"), noise(1, 200_000)).unwrap();
    let service = place.start("start");
    place.run(&format!("blob put {} box/ --url {}", data.display(), service.url)).exits(0);
    assert_eq!(service.stop(), 0);
    for at in 1..=5 {
        let (old, new) = (format!("p{at}"), format!("p{}", at + 5));
        let cloud = place.path("clouds").join(&new);
        std::fs::create_dir_all(&cloud).unwrap();
        place.run(&format!("storage providers configure --name {new} --preset local --path {}", cloud.display())).exits(0);
        let service = place.start("start");
        let said = std::fs::read_to_string(place.path("service.log")).unwrap();
        assert!(said.contains(&format!("the keyring was copied to {new}, which had none")), "{said}");
        let url = format!("--url {}", service.url);
        let listed = place.run(&format!("storage providers list --output json {url}")).exits(0).json();
        assert!(listed.as_array().unwrap().iter().all(|account| account["keyring"] == "held"), "{listed}");
        let left = place.run(&format!("storage providers evacuate {old} --wait {url}")).exits(0);
        assert!(left.stdout.contains("Certified In The Log: yes"), "{left:?}");
        assert_eq!(service.stop(), 0);
        forget(&place, &old);
    }
    // The first start without the last of them ends the time in which the log may have gone on there.
    assert_eq!(place.start("start").stop(), 0);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place.run("storage distributed recover").exits(0);
    let service = place.start("start");
    place.run(&format!("blob get box/ {} --recursive --url {}", place.path("back").display(), service.url)).exits(0);
    assert_eq!(std::fs::read(place.path("back").join("kept")).unwrap(), noise(1, 200_000));
    assert_eq!(service.stop(), 0);
}
