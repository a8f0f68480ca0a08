//! Providers that go away and come back under the running service: writes are refused in bounded time and say why, reads go on as
//! long as k domains answer, and nobody has to restart anything afterwards.

use std::time::Duration;

use tokio::time::Instant;

use crate::clouds::Clouds;
use crate::program::{Place, noise, wait};
use crate::wire::{Answer, Wire};

/// What the service is told.
const DEADLINE: Duration = Duration::from_secs(2);
/// For the rest of a request, on a machine that builds something else at the same time.
const MARGIN: Duration = Duration::from_secs(3);

/// One write, which is answered in time whatever comes of it.
fn write(wire: &Wire, key: &str, body: &[u8]) -> Answer {
    let start = Instant::now();
    let answer = wire.send("PUT", &format!("/api/v1/blobs/box/{key}"), &[("Idempotency-Key", key)], body);
    assert!(start.elapsed() < DEADLINE + MARGIN, "an answer after {:?}", start.elapsed());
    answer
}

/// A 503 that says which of the two it is and when to ask again.
fn put_off(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{}", answer.head);
    let document = answer.json();
    let (outcome, detail) = (document["outcome"].as_str().unwrap(), document["detail"].as_str().unwrap());
    match outcome {
        "not_accepted" => assert!(detail.contains("not accepted"), "{document}"),
        "outcome_unknown" => assert!(detail.contains("ask again with the same Idempotency-Key"), "{document}"),
        _ => panic!("{document}"),
    }
}

#[test]
fn writes_are_refused_in_time_while_too_few_domains_answer_and_work_again_afterwards() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    place.set("DIASPORE_SERVICE__ANSWER_DEADLINE_MS", &DEADLINE.as_millis().to_string());
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    let large = vec![7; 3 << 20];
    // Incompressible, so that it takes all of k shards to read it.
    write(&wire, "unread", &noise(1, 3 << 20)).is(201);
    write(&wire, "small", b"small").is(201);
    write(&wire, "large", &large).is(201);
    // With 3 of 5 the layout would shrink below what the policy allows, with 2 of 5 nothing can be laid out at all.
    for (down, left, reads) in [(2, "3 of 5", true), (3, "2 of 5", false)] {
        clouds.kill(down);
        // The last connections are being cut when the first write comes. Until the breakers have opened a write may be on its way; then
        // it is refused before its body is read.
        let mut tries = 0;
        wait("a refusal with the arithmetic", || {
            tries += 1;
            let answer = write(&wire, &format!("try-{down}-{tries}"), b"x");
            if answer.status == 201 {
                return false;
            }
            put_off(&answer);
            let document = answer.json();
            let plain = document["detail"].as_str().unwrap();
            document["code"] == "too_few_domains" && plain.contains(left) && plain.contains("k + 1 = 4")
        });
        put_off(&write(&wire, &format!("large-{down}"), &large));
        put_off(&wire.send("DELETE", "/api/v1/blobs/box/small", &[], b""));
        put_off(&wire.send("PUT", &format!("/api/v1/buckets/other-{down}"), &[], b""));
        let status = place.run(&format!("storage distributed status --url {}", service.url)).exits(0).stdout;
        assert!(status.contains(&format!("Geometry: any 3 of 5 rebuild; {left} failure domains healthy")), "{status}");
        assert!(status.contains(&format!("Writes: refused: {left} failure domains healthy, 4 needed")), "{status}");
        let file = place.path("file");
        std::fs::write(&file, b"x").unwrap();
        let put = place.run(&format!("blob put {} box/file --url {}", file.display(), service.url)).exits(3);
        put.says("k + 1 = 4").says("hint: the same command may succeed later");
        if reads {
            assert_eq!(wire.send("GET", "/api/v1/blobs/box/small", &[], b"").is(200).body, b"small");
            assert!(wire.send("GET", "/api/v1/blobs/box/large", &[], b"").is(200).body == large);
        } else {
            // Never read before, so nothing of it is in memory.
            let start = Instant::now();
            let answer = wire.send("GET", "/api/v1/blobs/box/unread", &[], b"");
            match answer.status {
                // Its first chunk lies on a domain that answers: the body breaks off, which its declared length shows.
                200 => assert!(answer.body.len() < 3 << 20 && answer.head.contains("content-length: 3145728"), "{}", answer.head),
                _ => drop(answer.problem(503, "data_unavailable")),
            }
            assert!(start.elapsed() < DEADLINE + MARGIN, "{:?}", start.elapsed());
        }

        clouds.resume();
        let back = Instant::now();
        wait("writes to work again", || write(&wire, &format!("after-{down}"), b"again").status == 201);
        assert!(back.elapsed() < Duration::from_secs(20), "writes came back after {:?}", back.elapsed());
        // What was unknown has an outcome now, and the same key gives it.
        for index in 1..=tries {
            let key = format!("try-{down}-{index}");
            wait("the outcome", || write(&wire, &key, b"x").status == 201);
            assert_eq!(wire.send("GET", &format!("/api/v1/blobs/box/{key}"), &[], b"").is(200).body, b"x");
        }
    }
    assert_eq!(service.stop(), 0);
}

/// Counters began anew with every process, and "(24h)" with them.
#[test]
fn the_last_24_hours_outlive_a_restart() {
    let place = Place::new();
    place.init_local(3, 2);
    let metrics = |url: &str| place.run(&format!("storage distributed metrics --output json --url {url}")).exits(0).json();
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    for index in 0..3 {
        wire.send("PUT", &format!("/api/v1/blobs/box/{index}"), &[], b"x").is(201);
    }
    let before = metrics(&service.url);
    assert_eq!(before["puts"], 3);
    assert_eq!(service.stop(), 0);
    let kept = std::fs::read_to_string(place.home().join("data/history.json")).unwrap();

    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/blobs/box/3", &[], b"x").is(201);
    let after = metrics(&service.url);
    assert_eq!(after["puts"], 4);
    for grows in ["window_ms", "proofs", "provider_requests"] {
        assert!(after[grows].as_u64() > before[grows].as_u64(), "{grows}: {before} {after}");
    }
    assert_eq!(service.stop(), 0);
    // Damaged, it costs the counts and nothing else.
    std::fs::write(place.home().join("data/history.json"), &kept[1..]).unwrap();
    let service = place.start("start");
    assert_eq!(metrics(&service.url)["puts"], 0);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_folder_moved_away_is_a_provider_down_and_is_never_made_anew() {
    let place = Place::new();
    place.init_local(5, 3);
    let (folder, away) = (place.path("clouds/p1"), place.path("clouds/away"));
    std::fs::rename(&folder, &away).unwrap();
    place.run("storage distributed start --port 0").exits(3).says("provider p1: get failed: the folder is gone");
    std::fs::rename(&away, &folder).unwrap();
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    wire.send("PUT", "/api/v1/blobs/box/before", &[], b"before").is(201);
    std::fs::rename(&folder, &away).unwrap();
    let state = |wanted: &str| {
        let status = place.run(&format!("storage distributed status --output json --url {}", service.url)).json();
        let account = status["providers"].as_array().unwrap().iter().find(|provider| provider["id"] == "p1").unwrap();
        account["state"] == wanted
    };
    wait("the account to be down", || {
        wire.send("PUT", "/api/v1/blobs/box/meanwhile", &[], b"meanwhile").is(201);
        state("down")
    });
    assert!(!folder.exists(), "nothing was made in its place");
    std::fs::rename(&away, &folder).unwrap();
    wait("the account to be back", || state("healthy"));
    place.run(&format!("storage distributed settle --wait --url {}", service.url)).exits(0);
    assert_eq!(service.stop(), 0);

    // Gone for good, it is one lost domain, and no reason not to start.
    std::fs::remove_dir_all(&folder).unwrap();
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    assert_eq!(wire.send("GET", "/api/v1/blobs/box/before", &[], b"").is(200).body, b"before");
    wire.send("PUT", "/api/v1/blobs/box/after", &[], b"after").is(201);
    assert!(!folder.exists());
    assert_eq!(service.stop(), 0);
}
