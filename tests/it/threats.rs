//! The threats that the README names, one test each, named after the threat. Some have their test elsewhere: docs/claims.md, row 48,
//! says where.

use std::path::{Path, PathBuf};
use std::process::Command;

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};
use serde_json::Value;

use crate::clouds::Clouds;
use crate::program::{Place, Service, noise, tree, wait};
use crate::wire::Wire;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Times each account's bytes failed verification.
fn lies(place: &Place, service: &Service) -> Vec<(String, u64)> {
    let status = place.run(&format!("storage distributed status --output json --url {}", service.url)).exits(0).json();
    let of = |provider: &Value| (provider["id"].as_str().unwrap().to_owned(), provider["lies"].as_u64().unwrap());
    status["providers"].as_array().unwrap().iter().map(of).collect()
}

fn audit(place: &Place, service: &Service) -> Value {
    place.run(&format!("storage distributed audit --output json --url {}", service.url)).exits(0).json()
}

/// k providers together, and the service's stolen disk on top, under any key but the right one. (That nothing readable lies there is
/// what `canary` shows.)
#[test]
fn data_breach() {
    let place = Place::new();
    place.init_local(5, 3);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    wire.send("PUT", "/api/v1/blobs/box/k", &[], b"secret").is(201);
    place.run(&format!("storage distributed settle --wait --url {}", service.url)).exits(0);
    assert_eq!(service.stop(), 0);

    let thief = Place::new();
    thief.init_local(5, 3);
    for name in ["p1", "p2", "p3"] {
        std::fs::remove_dir(thief.path("clouds").join(name)).unwrap();
        copy(&place.path("clouds").join(name), &thief.path("clouds").join(name));
    }
    std::fs::remove_dir_all(thief.home().join("data")).unwrap();
    thief.run("storage distributed recover").exits(78).says("no provider holds a keyring for this master key");
    std::fs::remove_dir_all(thief.home().join("data")).unwrap();
    copy(&place.home().join("data"), &thief.home().join("data"));
    thief.run("storage distributed start --port 0").exits(78).says("the master key does not open");
}

/// What a provider does to everything that it holds.
type Damage = fn(&[(PathBuf, Vec<u8>)], &[(PathBuf, Vec<u8>)]) -> Vec<Vec<u8>>;

fn flipped(own: &[(PathBuf, Vec<u8>)], _: &[(PathBuf, Vec<u8>)]) -> Vec<Vec<u8>> {
    let flip = |bytes: &Vec<u8>| bytes.iter().enumerate().map(|(at, byte)| if at % 4096 == 2100 { byte ^ 1 } else { *byte }).collect();
    own.iter().map(|(_, bytes)| flip(bytes)).collect()
}

fn moved(own: &[(PathBuf, Vec<u8>)], _: &[(PathBuf, Vec<u8>)]) -> Vec<Vec<u8>> {
    own.iter().cycle().skip(1).take(own.len()).map(|(_, bytes)| bytes.clone()).collect()
}

fn cut(own: &[(PathBuf, Vec<u8>)], _: &[(PathBuf, Vec<u8>)]) -> Vec<Vec<u8>> {
    own.iter().map(|(_, bytes)| bytes[..bytes.len() / 2].to_vec()).collect()
}

fn borrowed(own: &[(PathBuf, Vec<u8>)], other: &[(PathBuf, Vec<u8>)]) -> Vec<Vec<u8>> {
    own.iter().zip(other.iter().cycle()).map(|(_, (_, bytes))| bytes.clone()).collect()
}

/// Two of five accounts at a time damage everything they hold, each in its own way: every byte reads back, and nobody else is blamed.
#[test]
fn data_corruption() {
    let place = Place::new();
    place.init_local(5, 3);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    let shelf = |name: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let root = place.path("clouds").join(name);
        tree(&root).into_iter().map(|(path, bytes)| (root.join(path), bytes)).collect()
    };
    let rounds: [(u64, [(&str, Damage); 2]); 2] = [(0, [("p1", flipped), ("p2", moved)]), (10, [("p3", cut), ("p4", borrowed)])];
    for (round, damages) in rounds {
        let keys = round..round + 8;
        for index in keys.clone() {
            wire.send("PUT", &format!("/api/v1/blobs/box/{index}"), &[], &noise(index, 1_500_000)).is(201);
        }
        place.run(&format!("storage distributed settle --wait --url {}", service.url)).exits(0);
        let other = shelf("p5");
        for (name, damage) in damages {
            let own = shelf(name);
            for ((path, _), bytes) in own.iter().zip(damage(&own, &other)) {
                std::fs::write(path, bytes).unwrap();
            }
        }
        for index in keys {
            assert!(wire.send("GET", &format!("/api/v1/blobs/box/{index}"), &[], b"").is(200).body == noise(index, 1_500_000), "{index}");
        }
        let found = lies(&place, &service);
        assert!(found.iter().any(|(id, lies)| *lies > 0 && damages.iter().any(|(name, _)| name == id)), "{found:?}");
        assert_eq!(found[4].1, 0, "{found:?}");
    }
    // Findings wait for company and join the next commit; it is taken once those who gave short answers are heard again.
    wait("a put to be taken", || wire.send("PUT", "/api/v1/blobs/box/last", &[], b"x").status == 201);
    assert!(audit(&place, &service)["integrity_violations"].as_u64().unwrap() > 0);
    assert_eq!(service.stop(), 0);
}

/// Whoever stands between the service and two of its providers alters every answer: as good as two lying providers.
#[test]
fn man_in_the_middle() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    for index in 0..6 {
        wire.send("PUT", &format!("/api/v1/blobs/box/{index}"), &[], &noise(index, 1_500_000)).is(201);
    }
    place.run(&format!("storage distributed settle --wait --url {}", service.url)).exits(0);
    let alters = [Misbehaviour::Flip { bits: 64 }, Misbehaviour::Swap];
    for (cloud, how) in clouds.handles.iter().zip(alters) {
        cloud.set_faults(FaultPlan::from(Fault::always(how).on(&[Op::Get]))).unwrap();
    }
    for index in 0..6 {
        assert!(wire.send("GET", &format!("/api/v1/blobs/box/{index}"), &[], b"").is(200).body == noise(index, 1_500_000), "{index}");
    }
    let found = lies(&place, &service);
    assert!(found[0].1 + found[1].1 > 0, "{found:?}");
    assert_eq!(found[2].1 + found[3].1 + found[4].1, 0, "{found:?}");
    assert_eq!(service.stop(), 0);
}

/// Whoever has no key, a wrong one, or one for something else is turned away, and the log says so.
#[test]
fn unauthorized_access() {
    let place = Place::new();
    place.init_local(3, 2);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    wire.send("PUT", "/api/v1/blobs/box/k", &[], b"secret").is(201);
    let key = |tenant: &str, scopes: &str| {
        let file = place.path("key");
        std::fs::remove_file(&file).ok();
        let flags = format!("--name x --scopes {scopes} --tenant {tenant} --out {}", file.display());
        place.run(&format!("keys create {flags} --url {}", service.url)).exits(0);
        std::fs::read_to_string(&file).unwrap()
    };
    let asked = |token: &str, method: &str, target: &str| Wire::new(&service.url, token).send(method, target, &[], b"");
    let blob = "/api/v1/blobs/box/k";
    asked("", "GET", blob).problem(401, "unauthorized");
    asked("dsp_00000000000000000000000000000000_00", "GET", blob).problem(401, "unauthorized");
    asked(&key("default", "read"), "PUT", blob).problem(403, "forbidden");
    asked(&place.token("operator"), "GET", blob).problem(403, "forbidden");
    asked(&place.token("client"), "GET", "/api/v1/audit/export").problem(403, "forbidden");
    // Another tenant: the bucket might as well not exist.
    let stranger = key("other", "read,write");
    let there = asked(&stranger, "GET", blob).problem(404, "unknown_bucket");
    assert_eq!(there, asked(&stranger, "GET", "/api/v1/blobs/never/k").problem(404, "unknown_bucket"));

    wire.send("PUT", "/api/v1/blobs/box/next", &[], b"x").is(201);
    assert!(audit(&place, &service)["denied"].as_u64().unwrap() >= 4, "{}", audit(&place, &service));
    let log = place.run(&format!("audit export --url {}", service.url)).exits(0).stdout;
    let denied = log.lines().filter(|line| line.contains("\"kind\":\"AccessDenied\",\"outcome\":\"Denied\"")).count();
    assert!(denied >= 4, "{log}");
    assert_eq!(service.stop(), 0);
}

/// All providers and the disk go back to an earlier day, and the log goes on from there. Nothing inside can tell; a checkpoint that
/// somebody else kept can.
#[test]
fn a_rewritten_history() {
    let place = Place::new();
    place.init_local(3, 2);
    let lived = |key: &str| -> PathBuf {
        let service = place.start("start");
        let wire = Wire::new(&service.url, &place.token("client"));
        wire.send("PUT", &format!("/api/v1/buckets/{key}"), &[], b"").is(201);
        wire.send("PUT", &format!("/api/v1/blobs/{key}/k"), &[], key.as_bytes()).is(201);
        let log = place.path(&format!("{key}.jsonl"));
        place.run(&format!("audit export --out {} --url {}", log.display(), service.url)).exits(0);
        assert_eq!(service.stop(), 0);
        log
    };
    let world = [(place.home().join("data"), place.path("old-data")), (place.path("clouds"), place.path("old-clouds"))];
    let verify = |log: &Path, more: &str| {
        let flags = format!("--key {} {more}", place.home().join("log.pub").display());
        place.run(&format!("audit verify {} {flags}", log.display()))
    };
    lived("common");
    for (now, then) in &world {
        copy(now, then);
    }
    let first = lived("first");
    let last_line = std::fs::read_to_string(&first).unwrap().lines().last().unwrap().to_owned();
    let note = place.path("note");
    std::fs::write(&note, serde_json::from_str::<Value>(&last_line).unwrap()["checkpoint"].as_str().unwrap()).unwrap();
    for (now, then) in &world {
        std::fs::remove_dir_all(now).unwrap();
        std::fs::rename(then, now).unwrap();
    }
    let second = lived("second");
    verify(&second, "").exits(0);
    verify(&first, &format!("--checkpoint {}", note.display())).exits(0);
    verify(&second, &format!("--checkpoint {}", note.display())).exits(4);
}
