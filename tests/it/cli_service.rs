//! The command line against the running service, as an operator and a user would use them.

use crate::program::{Place, tree};

/// A small folder with what usually goes wrong: empty files, blanks, unicode, equal files, one larger than a commit block.
fn write_data(place: &Place) -> std::path::PathBuf {
    let root = place.path("data");
    let noise: Vec<u8> = (0..3_000_000_u32)
        .map(|index| u8::try_from((u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) & 0xff).unwrap())
        .collect();
    let files: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("a b/c d.txt", b"blanks"),
        ("\u{e9}t\u{e9}/ete\u{301}", b"composed and decomposed"),
        ("same/1", &noise[..100_000]),
        ("same/2", &noise[..100_000]),
        ("large.bin", &noise),
        ("text.json", &br#"{"key": "value", "list": [1, 2, 3]}"#.repeat(5000)),
    ];
    for (name, bytes) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    root
}

#[test]
fn a_folder_goes_up_comes_down_and_survives_the_disk() {
    let place = Place::new();
    place.init_local(5, 3);
    let data = write_data(&place);
    let service = place.start("start --audit-enabled true --backup-enabled true");
    let at = format!("--url {}", service.url);
    let run = |arguments: &str| place.run(&format!("{arguments} {at}"));

    let put = run(&format!("blob put {} photos/2026/ --output json", data.display())).exits(0).json();
    assert_eq!(put["blobs"], 7);
    let listed = run("blob ls photos/ --output json").exits(0).json();
    assert_eq!(listed["common_prefixes"][0]["key"], "2026/");
    assert_eq!(run("blob ls photos/2026/ --recursive --output json").exits(0).json()["blobs"].as_array().unwrap().len(), 7);
    run(&format!("blob get photos/2026/ {} --recursive", place.path("back").display())).exits(0);
    assert_eq!(tree(&place.path("back")), tree(&data));
    run(&format!("blob get photos/2026/ {} --recursive", place.path("back").display())).exits(1).says("hint: --force overwrites");
    assert_eq!(run("blob get photos/2026/text.json --range 2-4").exits(0).stdout, "key");
    assert_eq!(run("blob stat photos/2026/large.bin --output json").exits(0).json()["content-length"], "3000000");
    run("blob stat photos/nothing").exits(1).says("there is no blob photos/nothing");
    run("blob get nowhere/x").exits(1);
    run("blob get photos/2026/../../x").exits(1);

    run("storage distributed settle --wait --timeout-s 60").exits(0);
    run("storage distributed scrub").exits(3).says("hint: metanode storage distributed scrub --now --wait");
    let scrubbed = run("storage distributed scrub --now --deep --wait --output json").exits(0).json();
    assert_eq!(scrubbed["census"]["verified"], scrubbed["census"]["blocks"]);
    assert_eq!(scrubbed["census"]["shards_verified"], scrubbed["census"]["shards"]);
    let report = place.path("drill.note");
    run(&format!("storage distributed drill --report {}", report.display())).exits(0).says("");
    assert!(std::fs::read_to_string(&report).unwrap().starts_with("diaspore-drill/v1\n"));
    run("storage providers state p2 quarantined --reason trial").exits(0);
    let listed = run("storage providers list --output json").exits(0).json();
    assert_eq!((&listed[1]["name"], &listed[1]["mode"]), (&"p2".into(), &"quarantined".into()));
    assert!(listed[0]["score"].as_u64().is_some_and(|score| score > 50), "{listed}");
    run("storage providers state p2 active").exits(0);
    let status = run("storage distributed status").exits(0).stdout;
    let lines: Vec<&str> = status.lines().collect();
    assert_eq!(lines[0], "Distributed Storage Status: Active");
    assert_eq!(lines[1], "Active Providers: 5/5");
    assert!(lines[2].starts_with("Total Blocks: ") && !lines[2].ends_with(" 0"), "{}", lines[2]);
    // Records written since the scrub are in blocks that nobody looked at yet, and status says so.
    assert!(lines[3] == "Data Integrity: 100%" || lines[3].starts_with("Data Integrity: unverified ("), "{}", lines[3]);
    assert!(status.contains("\nLast Drill: ") && !status.contains("\nLast Drill: never"), "{status}");
    assert!(lines[4].starts_with("Average Latency: ") && lines[4].ends_with("ms"), "{}", lines[4]);
    let settled = run("storage distributed settle --wait --timeout-s 60 --output json").exits(0).json();
    assert_eq!((&settled["settled"], &settled["unsettled_blocks"]), (&true.into(), &0.into()));
    let metrics = run("storage distributed metrics").exits(0).stdout;
    for line in ["Storage Throughput: ", "Retrieval Throughput: ", "Proof Generation: ", "Multi-Cloud Failover: 0 failures (24h)"] {
        assert!(metrics.contains(line), "no {line} in:\n{metrics}");
    }
    let audit = run("storage distributed audit --output json").exits(0).json();
    let families = ["storage", "retrieval", "deletion", "denied", "integrity_violations", "administration"];
    let sum: u64 = families.iter().map(|family| audit[family].as_u64().unwrap()).sum();
    assert_eq!(audit["total"].as_u64().unwrap(), sum);
    assert!(audit["storage"].as_u64().unwrap() >= 7, "{audit}");

    // A second service on the same port, and one on the same folder.
    let port = service.url.rsplit(':').next().unwrap();
    place
        .run(&format!("storage distributed start --port {port}"))
        .exits(3)
        .says("cannot listen")
        .says("hint: another process has the port");
    place.run("storage distributed start --port 0").exits(1).says("in use by another process");

    run("blob rm photos/2026/empty").exits(0);
    run("blob rm photos --bucket").exits(1);
    assert_eq!(service.stop(), 0);

    // The disk burns; master key and provider accounts are left.
    std::fs::remove_dir_all(place.home().join("data")).unwrap();
    place.run("storage distributed start").exits(78).says("hint: a lost disk: metanode storage distributed recover");
    let recovered = place.run("storage distributed recover --output json").exits(0).json();
    assert_eq!(recovered["blobs"], 6);
    let service = place.start("start");
    place.run(&format!("blob get photos/2026/ {} --recursive --url {}", place.path("again").display(), service.url)).exits(0);
    let mut wanted = tree(&data);
    wanted.remove(std::path::Path::new("empty"));
    assert_eq!(tree(&place.path("again")), wanted);
    assert_eq!(service.stop(), 0);
}

#[test]
fn keys_are_made_confined_and_revoked() {
    let place = Place::new();
    place.init_local(3, 2);
    let service = place.start("start");
    let run = |arguments: &str| place.run(&format!("{arguments} --url {}", service.url));
    let token = place.path("reader.token");
    let key =
        run(&format!("keys create --name reader --scopes read --tenant other --out {} --output json", token.display())).exits(0).json();
    assert!(key.get("token").is_none(), "a token written to a file is not printed as well: {key}");
    let listed = run("keys list").exits(0).stdout;
    assert!(listed.contains("reader") && !listed.contains(std::fs::read_to_string(&token).unwrap().trim()));
    let with = format!("--token-file {}", token.display());
    run(&format!("blob ls {with}")).exits(0);
    run(&format!("blob put metanode.txt b/k {with}")).exits(1);
    run(&format!("storage distributed status {with}")).exits(1).says("hint: metanode keys list");
    run(&format!("keys revoke {}", key["id"].as_str().unwrap())).exits(0);
    run(&format!("blob ls {with}")).exits(1).says("revoked").says("hint:");
    let audit = run("storage distributed audit --output json").exits(0).json();
    assert!(audit["administration"].as_u64().unwrap() >= 2, "{audit}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn an_exported_log_verifies_offline_until_somebody_touches_it() {
    let place = Place::new();
    place.init_local(3, 2);
    let service = place.start("start");
    let run = |arguments: &str| place.run(&format!("{arguments} --url {}", service.url));
    std::fs::write(place.path("one"), b"1").unwrap();
    for key in ["a", "b", "c"] {
        run(&format!("blob put {} bucket/{key}", place.path("one").display())).exits(0);
    }
    let export = place.path("log.jsonl");
    run(&format!("audit export --out {}", export.display())).exits(0);
    assert_eq!(service.stop(), 0);

    let verify = |file: &std::path::Path, more: &str| {
        place.run(&format!("audit verify {} --key {} {more}", file.display(), place.home().join("log.pub").display()))
    };
    let told = verify(&export, "--output json").exits(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["verified"], &told["complete"]), (&true.into(), &true.into()));
    assert!(told["entries"].as_u64().unwrap() >= 4, "{told}");
    let text = std::fs::read_to_string(&export).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let note = serde_json::from_str::<serde_json::Value>(lines.last().unwrap()).unwrap()["checkpoint"].as_str().unwrap().to_owned();
    std::fs::write(place.path("note"), note).unwrap();
    verify(&export, &format!("--checkpoint {}", place.path("note").display())).exits(0);

    let tampered = place.path("tampered.jsonl");
    let write = |lines: &[String]| std::fs::write(&tampered, lines.join("\n") + "\n").unwrap();
    let owned: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    let mut dropped = owned.clone();
    dropped.remove(1);
    write(&dropped);
    verify(&tampered, "").exits(4).says("entry 1 is missing");
    let mut cut = owned.clone();
    cut.pop();
    write(&cut);
    verify(&tampered, "").exits(4).says("broke off");
    let mut relabelled = owned.clone();
    relabelled[2] = relabelled[2].replacen("\"time_ms\":1", "\"time_ms\":2", 1);
    assert_ne!(relabelled, owned);
    write(&relabelled);
    verify(&tampered, "").exits(4).says("say something else than the signed bytes");
    let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    place.run(&format!("audit verify {} --key {other}", export.display())).exits(4).says("does not verify");
    place.run(&format!("audit verify {} --key nonsense", export.display())).exits(2);
}
