//! A machine or an account that is not as it should be: the process says what is wrong and what to do, and loses nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::clouds::{Clouds, credentials};
use crate::program::{Place, noise};
use crate::wire::Wire;

#[test]
fn a_ledger_of_a_newer_version_is_refused() {
    let place = Place::new();
    place.init_local(3, 2);
    assert_eq!(place.start("start").stop(), 0);
    // "DSPLEDGR", schema, salt, key check, and a checksum that needs no key.
    let plate = place.home().join("data/ledger/identity");
    let good = std::fs::read(&plate).unwrap();
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&7_u32.to_be_bytes());
    let body = newer.len() - 8;
    let sum = blake3::hash(&newer[..body]);
    newer[body..].copy_from_slice(&sum.as_bytes()[..8]);
    std::fs::write(&plate, &newer).unwrap();
    place
        .run("storage distributed start --port 0")
        .exits(78)
        .says("the ledger has schema 7, this program knows up to 2")
        .says("run the newer version");
    newer[20] ^= 1;
    std::fs::write(&plate, &newer).unwrap();
    place.run("storage distributed start --port 0").exits(4).says("the ledger is damaged").says("run recover");
    std::fs::write(&plate, &good).unwrap();
    assert_eq!(place.start("start").stop(), 0);
}

#[test]
fn wrong_provider_credentials_are_named_before_anything_is_promised() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    credentials(&mut place, 2, "not-the-secret");
    let told = place.run("storage providers configure --test").exits(3).says("not usable: c2").says("hint: credentials");
    assert!(!told.stderr.contains("not-the-secret") && !told.stdout.contains("not-the-secret"), "{told:?}");
    let refused = place
        .run("storage distributed start --port 0")
        .exits(2)
        .says("1 of 5 providers did not say that they hold none")
        .says("provider c2: get failed")
        .says("hint: c2 refused its credentials, which come from DIASPORE_C2_ACCESS_KEY_ID and DIASPORE_C2_SECRET_ACCESS_KEY")
        .says("hint: the very first start needs an answer from every provider")
        .says("hint: metanode storage providers configure --test");
    assert!(!refused.stderr.contains("not-the-secret"), "{refused:?}");
    // One that does not answer at all may come back by itself.
    credentials(&mut place, 2, "secret-2");
    clouds.kill(1);
    place
        .run("storage distributed start --port 0")
        .exits(3)
        .says("provider c1: get failed")
        .says("hint: the very first start needs an answer");
    clouds.resume();
    place.run("storage providers configure --test").exits(0);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    wire.send("PUT", "/api/v1/blobs/box/k", &[], b"kept").is(201);
    assert_eq!(service.stop(), 0);

    // Rotated at the provider and forgotten here: the others carry on, and the status names the account.
    credentials(&mut place, 2, "rotated");
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    assert_eq!(wire.send("GET", "/api/v1/blobs/box/k", &[], b"").is(200).body, b"kept");
    let status = place.run(&format!("storage distributed status --output json --url {}", service.url)).json();
    let account = status["providers"].as_array().unwrap().iter().find(|provider| provider["id"] == "c2").unwrap();
    assert!(account["errors"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_missing_pair_of_credentials_is_said_before_a_request_is_sent() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    place.set("DIASPORE_C3_SECRET_ACCESS_KEY", "");
    place.set("DIASPORE_C3_ACCESS_KEY_ID", "");
    place.run("storage distributed start --port 0").exits(2).says("c3").says("hint: DIASPORE_<NAME>_ACCESS_KEY_ID");
    assert!(clouds.handles.iter().all(|cloud| cloud.counters().requests() == 0));
}

/// A full disk, as far as a process without privileges can meet one: no file may grow beyond 6 MiB, which the system reports like a
/// lack of space. Objects at the providers are smaller, so only the service's own files are hit.
#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_loses_nothing() {
    let place = Place::new();
    place.init_local(3, 2);
    let service = place.start_as("start", |command| {
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg("trap '' XFSZ; ulimit -f 12288; exec \"$0\" \"$@\"")
            .arg0("sh")
            .arg(command.get_program())
            .args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    });
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    let at = |index: u64| format!("/api/v1/blobs/box/{index}");
    let mut stored = Vec::new();
    let refused = (0..200).find_map(|index| {
        let answer = wire.send("PUT", &at(index), &[], &noise(index, 400_000));
        if answer.status == 201 {
            stored.push(index);
            return None;
        }
        Some(answer)
    });
    let refused = refused.expect("the limit never showed");
    assert!(stored.len() > 3, "{refused:?}");
    let detail = refused.problem(507, "insufficient_storage");
    assert!(detail.contains("full") && detail.contains("free space"), "{detail}");
    let said = place.run(&format!("storage distributed status --url {}", service.url)).exits(0).stdout;
    assert!(said.contains("\nWrites: refused: ") && said.contains("disk is full"), "{said}");
    let metrics = wire.send("GET", "/metrics", &[], b"").is(200).body;
    assert!(String::from_utf8(metrics).unwrap().contains("\ndiaspore_writes_accepted 0\n"));
    for index in &stored {
        assert_eq!(wire.send("GET", &at(*index), &[], b"").is(200).body, noise(*index, 400_000));
    }
    drop(service);

    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    for index in &stored {
        assert_eq!(wire.send("GET", &at(*index), &[], b"").is(200).body, noise(*index, 400_000));
    }
    wire.send("PUT", &at(1000), &[], b"room again").is(201);
    assert_eq!(service.stop(), 0);
}
