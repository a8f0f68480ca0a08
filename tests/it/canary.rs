//! Words that occur nowhere else go in as tenant, bucket, key, metadata, media type and content. None of them may be found in what
//! providers hold, in the service's data folder, in any file's name, or in a log that tells everything.

use std::path::Path;

use crate::program::{Place, tree};

/// Each of them stands for one kind of secret.
const WORDS: [&str; 8] =
    ["zqtenantzq", "zqbucketzq", "zqfolderzq", "zqkeynamezq", "zqmetanamezq", "zqmetavaluezq", "zqmediazq", "ZqPlainTextContentZq"];

/// The ways in which a word could lie around in the open.
fn disguises(word: &str) -> Vec<Vec<u8>> {
    let hex = word.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let listed = word.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let wide = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        word.as_bytes().to_vec(),
        word.to_uppercase().into_bytes(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        listed.into_bytes(),
        wide,
    ]
}

fn occurs(needle: &[u8], hay: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else { return false };
    hay.iter().enumerate().filter(|(_, byte)| *byte == first).any(|(at, _)| hay[at..].starts_with(needle))
}

/// Every (file, word) pair that gives something away.
fn leaks(root: &Path, words: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, bytes) in tree(root) {
        let name = path.to_string_lossy().into_owned();
        found.extend(words.iter().filter(|(_, form)| occurs(form, &bytes)).map(|(word, _)| format!("{word} in {name}")));
        found.extend(words.iter().filter(|(_, form)| occurs(form, name.as_bytes())).map(|(word, _)| format!("{word} names {name}")));
    }
    found
}

#[test]
fn nothing_readable_leaves_the_process() {
    let place = Place::new();
    place.init_local(5, 3);
    let [tenant, bucket, folder, key, meta_name, meta_value, media, content] = WORDS;
    let file = place.path("source");
    std::fs::create_dir_all(&file).unwrap();
    std::fs::write(file.join("small"), content).unwrap();
    std::fs::write(file.join("large"), content.repeat(300_000)).unwrap();
    let service = place.start("start --log trace");
    let token = place.path("word.token");
    let at = format!("--url {}", service.url);
    let run = |arguments: &str| place.run(&format!("{arguments} {at} --token-file {}", token.display()));
    place.run(&format!("keys create --name {tenant} --tenant {tenant} --scopes read,write --out {} {at}", token.display())).exits(0);
    for size in ["small", "large"] {
        let meta = format!("--meta {meta_name}={meta_value} --content-type text/{media}");
        run(&format!("blob put {} {bucket}/{folder}/{key}-{size} {meta}", file.join(size).display())).exits(0);
        assert!(run(&format!("blob get {bucket}/{folder}/{key}-{size}")).exits(0).stdout.starts_with(content));
        assert!(run(&format!("blob stat {bucket}/{folder}/{key}-{size}")).exits(0).stdout.contains(meta_value));
    }
    assert!(run(&format!("blob ls {bucket}/{folder}/")).exits(0).stdout.contains(key));
    run(&format!("blob get {bucket}/{folder}/{key}-absent")).exits(1);
    run(&format!("blob get {tenant}/{key}")).exits(1);
    run(&format!("blob rm {bucket}/{folder}/{key}-small")).exits(0);
    place.run(&format!("storage distributed settle --wait --timeout-s 60 {at}")).exits(0);
    let export = place.path("log.jsonl");
    place.run(&format!("audit export --out {} {at}", export.display())).exits(0);
    assert_eq!(service.stop(), 0);

    let secret = std::fs::read_to_string(&token).unwrap().trim().to_owned();
    let mut words: Vec<(String, Vec<u8>)> =
        WORDS.iter().flat_map(|word| disguises(word).into_iter().map(|form| ((*word).to_owned(), form))).collect();
    words.push(("the API key".to_owned(), secret.rsplit('_').next().unwrap().as_bytes().to_vec()));
    let master = std::fs::read_to_string(place.home().join("master.key")).unwrap();
    words.push(("the master key".to_owned(), master.trim().as_bytes().to_vec()));
    assert!(occurs(b"zq", &std::fs::read(file.join("small")).unwrap().to_ascii_lowercase()), "the search itself works");

    assert!(tree(&place.path("clouds")).len() > 20, "hardly anything was stored");
    assert_eq!(leaks(&place.path("clouds"), &words), [""; 0], "at the providers");
    assert!(tree(&place.home().join("data")).len() > 2);
    assert_eq!(leaks(&place.home().join("data"), &words), [""; 0], "in the service's data");
    for log in ["service.log", "log.jsonl"] {
        let bytes = std::fs::read(place.path(log)).unwrap();
        assert!(bytes.len() > 2000, "{log} says nothing");
        let said: Vec<_> = words.iter().filter(|(_, form)| occurs(form, &bytes)).map(|(word, _)| word).collect();
        assert!(said.is_empty(), "{said:?} in {log}");
    }
}
