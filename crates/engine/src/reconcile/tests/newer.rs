//! What a newer version would write: sealed as ever, with a version inside that this build does not know.

use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId};
use diaspore_block::limits::HEADER_LEN;
use diaspore_block::name::{Names, ObjectName};
use diaspore_block::seal::{Context, PREFIX_LEN, Salt, SealType, TAG_LEN, seal_object};

use super::*;

const INCARNATION: IncarnationId = IncarnationId::from_bytes([7; 16]);

async fn put(world: &World, name: &ObjectName, bytes: Vec<u8>) {
    world.stores[2].put(&name.as_str().into(), bytes.into()).await.unwrap();
}

async fn refused(world: &mut World, disk: &MemoryMedium) {
    let refused = world.start(&disk.snapshot(), Mode::Start).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RefusedState, "{refused}");
    assert!(refused.message.contains("newer version"), "{refused}");
    let refused = world.start(&MemoryMedium::new(), Mode::Recover { declare_lost: Vec::new() }).await.unwrap_err();
    assert!(refused.message.contains("newer version"), "{refused}");
}

async fn written() -> (World, MemoryMedium) {
    let (mut world, disk) = (World::new(), MemoryMedium::new());
    let engine = world.start(&disk, Mode::Start).await.unwrap();
    fill(&engine, &world, 0..3).await;
    engine.shutdown().await.unwrap();
    (world, disk)
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_newer_version_refuses_the_start() {
    // An old build took a newer version's claim for a lie, and would have claimed beside it.
    let (mut world, disk) = written().await;
    let name = Names::new(&world.keys.name).claim("p2", INCARNATION, Epoch(9));
    let context = Context::new(SealType::Claim, world.keys.deployment).text("p2").text(name.as_str());
    let salt = Salt::draw(&mut StdRng::seed_from_u64(3));
    put(&world, &name, seal_object(world.keys.head.expose(), salt, &context, &[2; 4096]).unwrap()).await;
    refused(&mut world, &disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_a_newer_version_is_not_absent() {
    // An old build counted a newer version's shards as absent, and would have voided what that version acknowledged.
    let (mut world, disk) = written().await;
    let claim = world.claim(9, INCARNATION);
    let names = Names::new(&world.keys.name);
    let mut rng = StdRng::seed_from_u64(3);
    let name = names.claim("p2", INCARNATION, Epoch(9));
    let sealed = claim.seal(&world.keys.head, &world.keys.identity, ("p2", &name), &mut rng).unwrap();
    put(&world, &name, sealed).await;
    let name = names.commit("p2", INCARNATION, Counter(0), Attempt(0));
    let context = diaspore_block::shard::header_context(
        world.keys.deployment,
        &diaspore_block::name::ShardAddress {
            provider: "p2",
            kind: diaspore_block::manifest::BlockKind::Commit,
            incarnation: INCARNATION,
            counter: Counter(0),
            attempt: Attempt(0),
        },
        &name,
    );
    let mut plain = [0; HEADER_LEN - PREFIX_LEN - TAG_LEN];
    plain[0] = 2;
    let mut object = seal_object(world.keys.header.expose(), Salt::draw(&mut rng), &context, &plain).unwrap();
    object.resize(4096, 0);
    put(&world, &name, object).await;
    refused(&mut world, &disk).await;
}
