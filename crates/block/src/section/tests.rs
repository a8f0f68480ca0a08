use proptest::prelude::*;

use super::*;
use crate::commit::open_whole;
use crate::id::{Attempt, Counter, DeploymentId, IncarnationId};
use crate::manifest::BlockKind;
use crate::test_world::{World, bytes};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pushes_of_any_size_join_to_one_plaintext(parts in prop::collection::vec(0usize..3000, 1..12), log2 in 9u8..13, seed in any::<u64>()) {
        let mut world = World::new(seed);
        let at = world.position(BlockKind::Bulk);
        let mut builder = PayloadBuilder::new(1 << 20, 0);
        builder.begin(world.tenant, KeyVersion(1), log2).unwrap();
        let mut whole = Vec::new();
        for (i, len) in parts.iter().enumerate() {
            let part = bytes(seed ^ i as u64, *len);
            prop_assert_eq!(builder.push(&part).unwrap() as usize, whole.len());
            whole.extend_from_slice(&part);
        }
        prop_assert_eq!(builder.len() as u64, sealed_len(whole.len() as u64, log2));
        builder.begin(world.tenant, KeyVersion(1), log2).unwrap();
        builder.push(b"second").unwrap();
        let sealed = builder.seal(&at, &world.keys, &mut world.rng).unwrap();
        prop_assert_eq!(open_whole(&at, 0, &sealed.sections[0], &sealed.bytes, &world.keys).unwrap(), whole);
        prop_assert_eq!(open_whole(&at, 1, &sealed.sections[1], &sealed.bytes, &world.keys).unwrap(), b"second");
    }

    #[test]
    fn room_is_exact(limit in 60usize..5000, first in 0usize..4000, log2 in 9u8..12) {
        let world = World::new(1);
        let mut builder = PayloadBuilder::new(limit, 0);
        builder.begin(world.tenant, KeyVersion(1), log2).unwrap();
        let first = first.min(usize::try_from(builder.room()).unwrap());
        builder.push(&vec![1; first]).unwrap();
        let room = usize::try_from(builder.room()).unwrap();
        let refused = matches!(builder.push(&vec![2; room + 1]), Err(BlockError::Full { .. }));
        prop_assert!(refused);
        builder.push(&vec![2; room]).unwrap();
        prop_assert!(builder.len() <= limit);
        prop_assert_eq!(builder.room(), 0);
    }
}

#[test]
fn a_section_opens_only_at_its_own_place() {
    let mut world = World::new(3);
    let at = world.position(BlockKind::Bulk);
    let mut builder = PayloadBuilder::new(1 << 20, 0);
    builder.begin(world.tenant, KeyVersion(1), 9).unwrap();
    builder.push(&bytes(1, 700)).unwrap();
    let sealed = builder.seal(&at, &world.keys, &mut world.rng).unwrap();
    let entry = &sealed.sections[0];
    let open = |at: &BlockPosition, index, entry: &SectionInfo| open_whole(at, index, entry, &sealed.bytes, &world.keys);
    assert!(open(&at, 0, entry).is_ok());
    let places = [
        BlockPosition { attempt: Attempt(2), ..at },
        BlockPosition { counter: Counter(8), ..at },
        BlockPosition { kind: BlockKind::Commit, ..at },
        BlockPosition { incarnation: IncarnationId::NIL, ..at },
        BlockPosition { deployment: DeploymentId::NIL, ..at },
        BlockPosition { block: crate::id::BlockId::NIL, ..at },
    ];
    for place in places {
        assert_eq!(open(&place, 0, entry), Err(BlockError::NotAuthentic { what: "section" }), "{place:?}");
    }
    assert!(open(&at, 1, entry).is_err());
    assert!(open(&at, 0, &SectionInfo { plain_len: 699, ..entry.clone() }).is_err());
    assert!(open(&at, 0, &SectionInfo { seg_log2: 10, ..entry.clone() }).is_err());
    assert!(open(&at, 0, &SectionInfo { seg_log2: 200, ..entry.clone() }).is_err());
    let stranger = SectionInfo { tenant: TenantId::draw(&mut crate::test_world::rng(9)), ..entry.clone() };
    assert!(matches!(open(&at, 0, &stranger), Err(BlockError::KeyMissing { .. })));
    // Even under the service's own key a tenant's section does not open.
    assert!(open(&at, 0, &SectionInfo { tenant: TenantId::SYSTEM, ..entry.clone() }).is_err());
}
