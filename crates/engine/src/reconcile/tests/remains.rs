//! What a list of the lost may rest on: whatever can be read counts, and the listing changes nothing.

use diaspore_block::id::Seq;

use super::loss::{RECOVER, accepted, lose, ranks, refused, saved};
use super::*;
use crate::api::{BodyStream, PutOptions};

fn ledger_on(world: &World, disk: &MemoryMedium) -> Ledger {
    Ledger::open(disk.clone(), &world.keys.ledger, OpenMode::ReadWrite, Box::new(StdRng::seed_from_u64(5))).unwrap()
}

fn applied(world: &World, disk: &MemoryMedium) -> Seq {
    ledger_on(world, &disk.snapshot()).snapshot().unwrap().applied_seq().unwrap()
}

/// Enough for a compacted log of more than one part: a few megabytes of metadata that do not compress.
async fn fill_a_part(engine: &Engine, world: &World) {
    let caller = world.caller();
    let puts = (0..480_u32).map(async |at| {
        let piece = |piece: u32| blake3::hash(&[at.to_be_bytes(), piece.to_be_bytes()].concat()).to_hex().to_string();
        let text = (0..120).map(piece).collect();
        let options = PutOptions { metadata: vec![("noise".to_owned(), text)], ..PutOptions::default() };
        let body: BodyStream = Box::pin(futures::stream::once(std::future::ready(Ok(vec![1; 100].into()))));
        engine.put_blob(&caller, "bucket-0", format!("blob-{at}").as_bytes(), options, body).await.unwrap();
    });
    futures::future::join_all(puts).await;
}

/// A disk that stands below a checkpoint of which a part is gone keeps what it has: a list is a list.
#[tokio::test(start_paused = true)]
async fn a_disk_that_lists_what_is_lost_keeps_its_state() {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..6).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    let behind = disk.snapshot();
    fill(&engine, &world, 6..12).await;
    fill_a_part(&engine, &world).await;
    engine.settle_wait(std::time::Duration::from_mins(1)).await.unwrap();
    let before = saved(&world).await;
    engine.checkpoint_log().await.unwrap();
    crash(engine);
    // The first part, and one position in between, are gone at four of six. The leaves are in the last part.
    for (at, objects) in saved(&world).await.into_iter().enumerate().take(4) {
        let new = objects.into_iter().filter(|(path, _)| !before[at].iter().any(|(known, _)| known == path));
        let (path, bytes) = new.max_by_key(|(_, bytes)| bytes.len()).unwrap();
        assert!(bytes.len() > 400_000, "{} bytes are no shard of a whole part", bytes.len());
        world.stores[at].delete(&path).await.unwrap();
    }
    lose(&world, 0..4, ranks(&world).await[0], 10).await;
    let had = applied(&world, &behind);
    assert!(had >= Seq(8), "{had}");
    let loss = refused(&mut world, &behind).await;
    assert_eq!(loss.kept_through, 10, "{loss:?}");
    assert!(applied(&world, &behind) >= had);
    let engine = accepted(&mut world, &behind, &loss.token).await.unwrap();
    assert_eq!(count(&engine, &world).await, 8);
    crash(engine);
    let engine = world.start(&MemoryMedium::new(), RECOVER).await.unwrap();
    assert_eq!(count(&engine, &world).await, 8);
}
