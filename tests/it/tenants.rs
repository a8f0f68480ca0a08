//! A keyring has room for so many tenants; a start makes more.

use std::path::PathBuf;

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::seal::Salt;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::program::Place;
use crate::wire::{Answer, Wire};

fn master_key(place: &Place) -> MasterKey {
    let text = std::fs::read_to_string(place.home().join("master.key")).unwrap();
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.trim().as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    MasterKey::from_bytes(key)
}

/// A deployment whose keyring has one place, which the first start gives to its default tenant; and the path of the keyring.
fn with_one_place() -> (Place, PathBuf) {
    let place = Place::new();
    place.init_local(3, 2);
    let path = place.home().join("data/keyring");
    let mut keyring = keyring(&place);
    while keyring.tenants.len() > 1 {
        keyring.tenants.pop_last();
    }
    let salt = Salt::draw(&mut ChaCha12Rng::seed_from_u64(1));
    std::fs::write(&path, keyring.seal(&master_key(&place), &KeyringPlace::OwnDisk, salt).unwrap()).unwrap();
    (place, path)
}

fn keyring(place: &Place) -> Keyring {
    let sealed = std::fs::read(place.home().join("data/keyring")).unwrap();
    Keyring::open(&master_key(place), &KeyringPlace::OwnDisk, &sealed).unwrap()
}

/// Starts the service and asks it for another tenant.
fn create(place: &Place, name: &str) -> Answer {
    let service = place.start("start");
    let body = format!("{{\"name\": \"{name}\"}}");
    let wire = Wire::new(&service.url, &place.token("operator"));
    let answer = wire.send("POST", "/api/v1/tenants", &[("Content-Type", "application/json")], body.as_bytes());
    assert_eq!(service.stop(), 0);
    answer
}

#[test]
fn a_start_makes_room_for_more_tenants() {
    let (place, _) = with_one_place();
    let before = keyring(&place);
    let full = create(&place, "acme").problem(503, "not_accepted");
    assert!(full.contains("all 1 tenants"), "{full}");
    let extended = keyring(&place);
    assert_eq!((extended.version, extended.tenants.len()), (before.version + 1, 129));
    create(&place, "acme").is(201);
    assert!(keyring(&place).is_same(&extended), "there is room enough");
    // Recovery finds the newest version with the master key alone.
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place.run("storage distributed recover").exits(0);
    assert!(keyring(&place).is_same(&extended));
}

/// The keyring's file alone was set back, as by a restore of one file: a start takes up the newer one that the providers have, since
/// nothing that the log says of later tenants opens without it.
#[test]
fn a_keyring_that_was_set_back_is_fetched_from_the_providers() {
    let (place, path) = with_one_place();
    let old = std::fs::read(&path).unwrap();
    create(&place, "acme").problem(503, "not_accepted");
    create(&place, "acme").is(201);
    let newest = keyring(&place);
    std::fs::write(&path, old).unwrap();
    assert_eq!(keyring(&place).tenants.len(), 1);
    create(&place, "acme").problem(409, "already_exists");
    assert!(keyring(&place).is_same(&newest));
    create(&place, "more").is(201);
}
