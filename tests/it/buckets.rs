//! An account whose bucket is not there: mistyped, removed, or suspended with the account. It answers every question with "not found", and none of
//! that says anything about an object. As with an account that is down, nothing is decided, filed or forgotten on its word.

use diaspore_testkit::{Fault, FaultPlan, Misbehaviour, Op};

use crate::clouds::Clouds;
use crate::program::{Place, noise, tree, wait};
use crate::wire::Wire;

fn without_bucket(clouds: &Clouds, accounts: &[usize]) {
    for &account in accounts {
        clouds.handles[account].set_faults(FaultPlan::from(Fault::always(Misbehaviour::NoBucket))).unwrap();
    }
}

fn honest(clouds: &Clouds) {
    clouds.handles.iter().for_each(|cloud| cloud.set_faults(FaultPlan::honest()).unwrap());
}

/// 3-of-6, and an acknowledged write on four accounts. Two of them answer for a bucket that is not there, the disk is gone: with their "not
/// found" taken for an answer, two shards are seen, nobody is silent, and the write was never acknowledged.
#[test]
fn a_recovery_waits_for_a_bucket_that_is_not_there() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_six(&mut place);
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    wire.send("PUT", "/api/v1/buckets/box", &[], b"").is(201);
    place.run(&format!("storage distributed settle --wait --timeout-s 60 --url {}", service.url)).exits(0);
    for account in [4, 5] {
        clouds.handles[account].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Denied).on(&[Op::Put]))).unwrap();
    }
    wire.send("PUT", "/api/v1/blobs/box/key", &[], b"acknowledged").is(201);
    service.kill();
    drop(service);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    honest(&clouds);
    without_bucket(&clouds, &[0, 1]);
    place.run("storage distributed recover").exits(3).says("could not be decided");

    honest(&clouds);
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    let recovered = place.run("storage distributed recover --output json").exits(0).json();
    assert_eq!((&recovered["state"], &recovered["blobs"]), (&"active".into(), &1.into()));
    let service = place.start("start");
    let wire = Wire::new(&service.url, &place.token("client"));
    assert_eq!(wire.send("GET", "/api/v1/blobs/box/key", &[], b"").is(200).body, b"acknowledged");
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_lies_in_a_bucket_that_is_not_there_is_neither_missing_nor_erased() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    let service = place.start("start");
    let at = format!("--url {}", service.url);
    let run = |arguments: &str| place.run(&format!("{arguments} {at}"));
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("large"), noise(1, 3 << 20)).unwrap();
    run(&format!("blob put {} box/", data.display())).exits(0);
    run("storage distributed settle --wait --timeout-s 60").exits(0);

    without_bucket(&clouds, &[0]);
    let scrubbed = run("storage distributed scrub --now --wait --output json").json();
    assert_eq!((&scrubbed["missing"], &scrubbed["wrong"], &scrubbed["repairs_left"]), (&0.into(), &0.into(), &0.into()), "{scrubbed}");
    assert!(scrubbed["silent"].as_u64() > Some(0), "{scrubbed}");
    wait("the account to be down", || {
        let status = run("storage distributed status --output json").json();
        status["providers"].as_array().unwrap().iter().any(|account| account["id"] == "c1" && account["state"] == "down")
    });

    run("blob rm box/large").exits(0);
    let kept = clouds.handles[0].stored().unwrap();
    let swept = || run("storage distributed gc --now --max-dead 0% --wait --output json").json()["swept"].clone();
    let report = swept();
    assert_eq!(report["blocks"], 0, "{report}");
    assert!(report["waiting"].as_u64() > Some(0) && report["failed"]["c1"].as_u64() > Some(0), "{report}");
    assert_eq!(clouds.handles[0].stored().unwrap(), kept);

    honest(&clouds);
    wait("the account to be back", || swept()["blocks"].as_u64() > Some(0));
    assert!(clouds.handles[0].stored().unwrap().1 < kept.1 / 2, "its shards of the large blob are gone now");
    std::fs::write(data.join("large"), b"small").unwrap();
    run(&format!("blob put {} box/", data.display())).exits(0);
    run(&format!("blob get box/ {} --recursive", place.path("back").display())).exits(0);
    assert_eq!(tree(&place.path("back")), tree(&data));
    assert_eq!(service.stop(), 0);
}

/// Nobody would find a typing error later: the first start asks every account, and "not found" is no answer.
#[test]
fn a_bucket_that_is_not_there_is_named_at_the_first_start() {
    let mut place = Place::new();
    let clouds = Clouds::three_of_five(&mut place);
    without_bucket(&clouds, &[2]);
    place.run("storage providers configure --test").exits(3).says("not usable: c3");
    place
        .run("storage distributed start --port 0")
        .exits(3)
        .says("c3: get failed: it answered 404 NoSuchBucket")
        .says("check bucket, account");
    honest(&clouds);
    let service = place.start("start");
    assert_eq!(service.stop(), 0);
}
