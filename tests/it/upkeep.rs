//! The service's own data as an operator handles it: looked over, copied, put back, made smaller, only read, not kept at all.

use crate::program::{Place, noise, tree};

/// A 3-of-5 deployment with a folder of blobs in it; gives the flag that names the running service.
fn filled(place: &Place) -> std::path::PathBuf {
    place.init_local(5, 3);
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("large.bin"), noise(1, 3_000_000)).unwrap();
    for at in 0..5 {
        std::fs::write(data.join(format!("small-{at}")), noise(at + 2, 3000)).unwrap();
    }
    data
}

fn settle(place: &Place, at: &str) {
    place.run(&format!("storage distributed settle --wait --timeout-s 60 {at}")).exits(0);
}

fn reads_back(place: &Place, at: &str, name: &str) {
    place.run(&format!("blob get photos/ {} --recursive {at}", place.path(name).display())).exits(0);
    assert_eq!(tree(&place.path(name)), tree(&place.path("data")));
}

#[test]
fn fsck_finds_damage_on_and_offline_and_repairs_a_view() {
    let place = Place::new();
    let data = filled(&place);
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    place.run(&format!("blob put {} photos/ {at}", data.display())).exits(0);
    settle(&place, &at);
    let online = place.run(&format!("storage distributed fsck --output json {at}")).exits(0).json();
    assert_eq!(online["schema"], 2);
    place.run("storage distributed fsck --repair").exits(3).says("stopped");
    assert_eq!(service.stop(), 0);
    let sound = place.run("storage distributed fsck").exits(0).stdout;
    assert!(sound.starts_with("Integrity: sound\n"), "{sound}");

    let ledger = place.home().join("data/ledger");
    let view = ledger.join("view");
    let mut bytes = std::fs::read(&view).unwrap();
    for at in (8192..bytes.len()).step_by(512) {
        bytes[at] ^= 1;
    }
    std::fs::write(&view, &bytes).unwrap();
    place.run("storage distributed fsck").exits(4).says("--repair");
    assert_eq!(std::fs::read(&view).unwrap(), bytes, "looking changes nothing");
    place.run("storage distributed fsck --repair").exits(0).says("made anew");
    place.run("storage distributed fsck").exits(0);

    let segment = std::fs::read_dir(&ledger)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("log-0000000001"));
    let segment = segment.unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    place.run("storage distributed fsck").exits(4).says("journal of the ledger is damaged");
    place.run("storage distributed start --port 0").exits(4).says("damaged");
    std::fs::write(&segment, &whole).unwrap();
    let made = place.run("storage distributed compact --output json").exits(0).json();
    assert!(made["bytes_after"].as_u64().unwrap() <= made["bytes_before"].as_u64().unwrap(), "{made}");
    let service = place.start("start");
    reads_back(&place, &format!("--url {}", service.url), "back");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_backup_made_under_load_is_restored_elsewhere_and_catches_up() {
    let place = Place::new();
    let data = filled(&place);
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    place.run(&format!("blob put {} photos/ {at}", data.join("small-0").display())).exits(0);
    let file = place.path("ledger.backup");
    let export = format!("storage distributed backup export {} {at}", file.display());
    std::thread::scope(|scope| {
        let load = scope.spawn(|| place.run(&format!("blob put {} photos/ {at}", data.display())).exits(0));
        assert!(place.run(&export).exits(0).stdout.starts_with("Backup: "));
        load.join().unwrap();
    });
    settle(&place, &at);
    assert_eq!(service.stop(), 0);

    let data_folder = place.home().join("data");
    place.run(&format!("storage distributed backup restore {}", file.display())).exits(2).says("empty data folder");
    std::fs::rename(&data_folder, place.path("old")).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for (name, bytes) in [
        ("cut", whole[..whole.len() - 9].to_vec()),
        ("flipped", {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            bytes
        }),
    ] {
        let damaged = place.path(name);
        std::fs::write(&damaged, bytes).unwrap();
        place
            .run(&format!("storage distributed backup restore {}", damaged.display()))
            .exits(4)
            .says("another copy")
            .says("nothing was restored");
        assert_eq!(std::fs::read_dir(&data_folder).unwrap().count(), 0, "a failed restore leaves nothing");
    }
    // What lies where it works is not its own, so it stays.
    let others = data_folder.join("ledger.restoring").join("log-0000000001");
    std::fs::create_dir_all(others.parent().unwrap()).unwrap();
    std::fs::write(&others, "somebody's").unwrap();
    place.run(&format!("storage distributed backup restore {}", file.display())).exits(1).says("not empty").says("ledger.restoring");
    assert_eq!(std::fs::read_to_string(&others).unwrap(), "somebody's");
    assert!(!data_folder.join("keyring").exists() && !data_folder.join("ledger").exists());
    std::fs::remove_dir_all(others.parent().unwrap()).unwrap();
    let restored = place.run(&format!("storage distributed backup restore {}", file.display())).exits(0).stdout;
    assert!(restored.starts_with("Restored: "), "{restored}");
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    reads_back(&place, &at, "back");
    place.run(&format!("storage distributed fsck {at}")).exits(0);
    assert_eq!(service.stop(), 0);
}

/// The seeds' knobs of the store: a seldom flushed view with little cache loses nothing that was acknowledged.
#[test]
fn what_is_acknowledged_needs_no_flush() {
    let mut place = Place::new();
    place.set("DIASPORE_STORE__FLUSH_EVERY_MS", "600000");
    place.set("DIASPORE_STORE__CACHE_CAPACITY_BYTES", "1048576");
    let data = filled(&place);
    let view = || std::fs::read(place.home().join("data/ledger/view")).unwrap();
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    let empty = view();
    place.run(&format!("blob put {} photos/ {at}", data.display())).exits(0);
    settle(&place, &at);
    assert!(view() == empty, "the view was written although its flush is ten minutes away");
    let metrics = place.run(&format!("storage distributed metrics --output json {at}")).exits(0).json();
    assert_eq!(metrics["ledger_rows"]["blobs"], 6, "{metrics}");
    assert!(metrics["ledger_bytes"].as_u64().unwrap() > 0, "{metrics}");
    service.kill();
    drop(service);

    let service = place.start("start");
    let at = format!("--url {}", service.url);
    reads_back(&place, &at, "back");
    let before = view();
    let flushed = place.run(&format!("storage distributed flush {at}")).exits(0).stdout;
    assert_eq!(flushed.trim(), "Flushed: the ledger's view is on the disk");
    assert!(view() != before, "a flush writes the view");
    service.kill();
    drop(service);
    let service = place.start("start --read-only");
    let at = format!("--url {}", service.url);
    reads_back(&place, &at, "again");
    place.run(&format!("storage distributed flush {at}")).exits(3).says("read-only");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_read_only_service_writes_nothing_anywhere() {
    let place = Place::new();
    let data = filled(&place);
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    place.run(&format!("blob put {} photos/ {at}", data.display())).exits(0);
    settle(&place, &at);
    assert_eq!(service.stop(), 0);
    let (home, clouds) = (tree(&place.home()), tree(&place.path("clouds")));
    let service = place.start("start --read-only");
    let said = std::fs::read_to_string(place.path("service.log")).unwrap();
    assert!(said.contains("read-only: the state at sequence ") && said.contains("its newest entry is "), "{said}");
    let at = format!("--url {}", service.url);
    reads_back(&place, &at, "back");
    let status = place.run(&format!("storage distributed status --output json {at}")).exits(3).json();
    assert_eq!(status["state"], "read-only");
    place.run(&format!("blob put {} photos/more {at}", data.join("small-0").display())).exits(3);
    place.run(&format!("blob rm photos/small-1 {at}")).exits(3);
    place.run(&format!("storage distributed fsck {at}")).exits(0);
    assert_eq!(service.stop(), 0);
    assert!(tree(&place.home()) == home, "a file of the home folder changed");
    assert!(tree(&place.path("clouds")) == clouds, "an object at a provider changed");
    let service = place.start("start");
    reads_back(&place, &format!("--url {}", service.url), "back2");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_service_in_memory_keeps_nothing_here_and_finds_everything_again() {
    let place = Place::new();
    let data = filled(&place);
    let kept = || tree(&place.home()).into_keys().collect::<Vec<_>>();
    let service = place.start("start --in-memory");
    let at = format!("--url {}", service.url);
    let with_tokens = kept();
    place.run(&format!("blob put {} photos/ {at}", data.display())).exits(0);
    settle(&place, &at);
    assert_eq!(service.stop(), 0);
    assert_eq!(kept(), with_tokens);
    assert!(!with_tokens.iter().any(|name| format!("{name:?}").contains("ledger")), "{with_tokens:?}");
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let service = place.start("start --in-memory");
    reads_back(&place, &format!("--url {}", service.url), "back");
    assert_eq!(service.stop(), 0);
    assert!(!place.home().join("data").exists());
    let service = place.start("recover --serve");
    assert_eq!(service.stop(), 0);
    place.run("storage distributed start --in-memory --port 0").exits(2).says("pass over the ledger");
}

#[test]
fn the_durability_model_says_what_it_is_and_what_it_was_given() {
    let place = Place::new();
    let run = |more: &str| {
        place
            .run(&format!(
                "storage distributed durability --providers 8 --blocks 2000 --years 2 --annual-failure-rate 0.5 --repair-hours 300 {more}"
            ))
            .exits(0)
    };
    let text = run("").stdout;
    assert!(text.starts_with("A model, not a promise"), "{text}");
    for line in [
        "Providers: 8 (0.5 lost",
        "Blocks: 2,000 (any 3 of 5",
        "Repair: 300 h",
        "Formula, Nines per Block and Year: ",
        "Simulation, Loss Events: ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let again = run("--output json").json();
    assert_eq!(again, run("--output json").json(), "a seed repeats its run");
    place.run("storage distributed durability --k 6 --n 5").exits(2);
}
