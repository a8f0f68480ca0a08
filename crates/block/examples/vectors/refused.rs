//! What a reader must refuse, as changes to what it must take.

use diaspore_block::key::{Keyring, LogIdentity};
use diaspore_block::log::Checkpoint;
use serde_json::{Value, json};

/// Notes that must be refused, beside the good one.
pub(super) fn notes(note: &str, before: &Checkpoint, keys: &Keyring) -> Vec<Value> {
    let (text, line) = note.split_once("\n\n").unwrap_or_default();
    let other = before.sign(&keys.identity);
    let (_, other_line) = other.split_once("\n\n").unwrap_or_default();
    let stranger = Checkpoint { ..before.clone() }.sign(&LogIdentity::from_bytes(&[0x66; 32]));
    [
        ("damaged size", note.replacen('\n', "\n1", 1)),
        ("damaged root", format!("{}A{}", &text[..text.len() - 2], &note[text.len() - 1..])),
        ("no newline at the end", note.trim_end().to_owned()),
        ("carriage returns", note.replace('\n', "\r\n")),
        ("a line that is no signature", format!("{note}junk\n")),
        ("a signature over another text", format!("{text}\n\n{other_line}")),
        ("a signature over another text before the good one", format!("{text}\n\n{other_line}{line}")),
        ("a stranger's signature", stranger),
    ]
    .into_iter()
    .map(|(why, note)| json!({"why": why, "note": note}))
    .collect()
}

/// Damage to what is neither shard nor note: which file or payload, and the flipped byte, counted from its end if negative.
pub(super) fn bytes() -> Vec<Value> {
    let of = |what: &'static str, flips: &[i64]| flips.iter().map(|flip| json!({"what": what, "flip": flip})).collect::<Vec<_>>();
    [
        of("keyring", &[0, 24, 56, 1000, -1]),
        of("claim", &[0, 24, 56, 1000, -1]),
        of("head", &[0, 24, 56, 1000, -1]),
        of("payload of commit", &[0, 24, 56, 1000, 9000, -1]),
        of("payload of decision", &[0, 24, 56, -1]),
        of("payload of turn", &[0, -1]),
        of("payload of later", &[0, 24, 9000, -1]),
        of("payload of part-a", &[0, 24, 56, 300, -1]),
        of("payload of part-b", &[0, 56, -1]),
        of("payload of root", &[0, 24, 56, 200, -1]),
    ]
    .concat()
}

/// Section entries that must not open, made from the good one of a bulk block.
pub(super) fn sections() -> Vec<Value> {
    let of = |why: &str, change: Value| json!({"why": why, "block": "bulk", "change": change});
    vec![
        of("another tenant", json!({"tenant": 1})),
        of("the service itself", json!({"tenant": null})),
        of("another key version", json!({"key_version": 2})),
        of("another index", json!({"index": 1})),
        of("another segment length", json!({"seg_log2": 10})),
        of("another length", json!({"plain_len": 3999})),
    ]
}

/// Stored forms of a compressed chunk that must not unpack: made from `compressed.chunk` by writing `u32` values at places, by cutting
/// bytes off its end or by adding some, or by taking it for another plain length.
pub(super) fn frames() -> Vec<Value> {
    let of = |why: &str, change: Value| json!({"why": why, "change": change});
    vec![
        of("the last offset is not the end", json!({"put": [[4, 5]]})),
        of("an offset beyond the end", json!({"put": [[0, 0xffff_ffff_u32]]})),
        of("offsets that go back", json!({"put": [[0, 60_000]]})),
        of("an empty frame", json!({"put": [[0, 0]]})),
        of("one byte short", json!({"cut": 1})),
        of("one byte more", json!({"append": 1})),
        of("the table only", json!({"keep": 8})),
        of("less than the table", json!({"keep": 7})),
        of("a longer last frame", json!({"plain_len": 99_001})),
        of("a shorter last frame", json!({"plain_len": 98_999})),
        of("one frame fewer", json!({"plain_len": 65_536})),
        of("one frame more", json!({"plain_len": 140_000})),
        of("damaged magic", json!({"put": [[8, 0]]})),
    ]
}

/// What must be refused: a shard file, how its bytes are altered, and where it claims to lie.
pub(super) fn shards() -> Vec<Value> {
    let altered = |why: &str, file: &str, change: Value| json!({"why": why, "file": file, "change": change});
    let moved = |why: &str, file: &str, place: Value| json!({"why": why, "file": file, "place": place});
    vec![
        altered("flipped byte in the header's salt", "bulk-0.shard", json!({"flip": 3})),
        altered("flipped byte in the header's commitment", "bulk-0.shard", json!({"flip": 30})),
        altered("flipped byte in the sealed manifest", "bulk-0.shard", json!({"flip": 100})),
        altered("flipped byte in the header's tag", "bulk-0.shard", json!({"flip": 2047})),
        altered("flipped byte in the body", "bulk-1.shard", json!({"flip": 2100})),
        altered("flipped byte in the last byte of the body", "bulk-2.shard", json!({"flip": 3990})),
        altered("flipped byte in the leaf list", "commit-0.shard", json!({"flip": -5})),
        altered("truncated by one byte", "bulk-0.shard", json!({"cut": 1})),
        altered("truncated to its header", "bulk-0.shard", json!({"keep": 2048})),
        altered("empty", "bulk-0.shard", json!({"keep": 0})),
        altered("one byte longer", "bulk-0.shard", json!({"append": 1})),
        altered("signed by another identity", "forged.shard", json!({})),
        moved("another provider's object", "bulk-0.shard", json!({"provider": "beta"})),
        moved("another attempt", "commit-1.shard", json!({"attempt": 1})),
        moved("another counter", "commit-1.shard", json!({"counter": 2})),
        moved("another incarnation", "commit-2.shard", json!({"incarnation": "00000000000000000000000000000000"})),
        moved("another kind", "bulk-0.shard", json!({"kind": "commit"})),
        moved("another deployment", "bulk-0.shard", json!({"deployment": "00000000000000000000000000000000"})),
        altered("flipped byte in the second cell", "wide-0.shard", json!({"flip": 70000})),
        altered("flipped byte in the last cell", "wide-2.shard", json!({"flip": 75000})),
        moved("a decision at another counter", "decision-0.shard", json!({"counter": 1})),
        altered("flipped byte among 32 shard roots", "broad-2.shard", json!({"flip": 1400})),
        altered("flipped byte in the last cell of shard 31", "broad-2.shard", json!({"flip": 2048 + 65536 + 100})),
        altered("flipped byte in the list of two cells", "broad-1.shard", json!({"flip": -2500})),
        altered("a k floor above k", "floor.shard", json!({})),
        moved("a block of the first incarnation in the second", "bulk-0.shard", json!({"incarnation": "1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d"})),
    ]
}
