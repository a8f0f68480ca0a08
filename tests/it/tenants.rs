//! A keyring has room for so many tenants; a start makes more.

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::seal::Salt;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::program::Place;
use crate::wire::Wire;

fn master_key(place: &Place) -> MasterKey {
    let text = std::fs::read_to_string(place.home().join("master.key")).unwrap();
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.trim().as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    MasterKey::from_bytes(key)
}

/// A deployment whose keyring had one place, which the first start gave to its default tenant.
#[test]
fn a_start_makes_room_for_more_tenants() {
    let place = Place::new();
    place.init_local(3, 2);
    let (master, path) = (master_key(&place), place.home().join("data/keyring"));
    let open = || Keyring::open(&master, &KeyringPlace::OwnDisk, &std::fs::read(&path).unwrap()).unwrap();
    let mut keyring = open();
    while keyring.tenants.len() > 1 {
        keyring.tenants.pop_last();
    }
    let sealed = keyring.seal(&master, &KeyringPlace::OwnDisk, Salt::draw(&mut ChaCha12Rng::seed_from_u64(1))).unwrap();
    std::fs::write(&path, sealed).unwrap();
    let create = |name: &str| {
        let service = place.start("start");
        let body = format!("{{\"name\": \"{name}\"}}");
        let wire = Wire::new(&service.url, &place.token("operator"));
        let answer = wire.send("POST", "/api/v1/tenants", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(service.stop(), 0);
        answer
    };
    let full = create("acme").problem(503, "not_accepted");
    assert!(full.contains("all 1 tenants"), "{full}");
    let extended = open();
    assert_eq!((extended.version, extended.tenants.len()), (keyring.version + 1, 129));
    create("acme").is(201);
    assert!(open().is_same(&extended), "there is room enough");
    // Recovery finds the newest version with the master key alone.
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place.run("storage distributed recover").exits(0);
    assert!(open().is_same(&extended));
}
