//! What a listing of an account shows, and what it costs.

use diaspore_policy::RequestBudget;
use tokio::time::Instant;

use super::*;
use crate::collect::inventory::{Extent, Index, Listed, list};

/// Somebody keeps more than a listing takes at once beside what is ours.
#[tokio::test(start_paused = true)]
async fn an_account_with_too_much_is_listed_folder_by_folder_with_control_objects_first() {
    let fx = Fixture::start(5).await;
    for index in 0..5_u8 {
        fx.put(&[b'a' + index], &random(3000, index.into())).await.unwrap();
    }
    fx.settle().await;
    fx.engine.checkpoint_log().await.unwrap();
    let shared = fx.engine.shared();
    let provider = ProviderId::new("p0").unwrap();
    let index = Index::of(&shared, &shared.ledger.snapshot().unwrap(), &provider).await.unwrap();
    let listed = async |allowance: Allowance| {
        let (before, begun, mut seen) = (fx.stores[0].requests(Op::List), Instant::now(), Vec::new());
        let visit = |path: &str, size: u64, what: Listed| seen.push((path.to_owned(), size, what));
        let extent = list(&shared, &provider, &index, &allowance, visit).await.unwrap();
        (extent, seen, fx.stores[0].requests(Op::List) - before, begun.elapsed())
    };
    let (extent, all, lists, took) = listed(Allowance::free()).await;
    assert_eq!((extent, lists, took), (Extent::Everything, 1, Duration::ZERO));
    let objects: Vec<(String, u64)> = fx.stores[0].objects().into_iter().map(|(path, bytes)| (path, bytes.len() as u64)).collect();
    assert_eq!(all.iter().map(|(path, size, _)| (path.clone(), *size)).collect::<Vec<_>>(), objects);
    for number in 0..50_000 {
        fx.stores[0].tamper(&format!("letters/{number}"), Some(Bytes::new()));
    }
    let budget = RequestBudget { sustained_per_second: 10, burst: 10 };
    let (extent, mut seen, lists, took) = listed(Allowance::of(budget)).await;
    // Once to see that there is too much, claims, heads, and every folder of names.
    assert_eq!((extent, lists), (Extent::OurFolders, 1 + 2 + 256));
    let control = all.iter().filter(|(.., what)| *what == Listed::Control).count();
    assert!(control > 1 && seen[..control].iter().all(|(.., what)| *what == Listed::Control));
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(seen, all, "each once, and nobody's letters");
    // A listing is pages of a thousand: fifty requests at first, then one for each folder.
    assert!((Duration::from_secs(28)..Duration::from_secs(40)).contains(&took), "{took:?}");
}

/// Only whoever holds the master key can say where copies of the keyring lie, and at which account.
#[tokio::test(start_paused = true)]
async fn copies_of_the_keyring_are_ours_where_they_are_said_to_lie() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let copy = "0123456789abcdef/0123456789012345678901234567890123456789";
    for store in &fx.stores[..2] {
        store.tamper(copy, Some(Bytes::new()));
    }
    let shown = async |at: &str| {
        let mut shown = Vec::new();
        let visit = |path: &str, _, what| shown.extend((path == copy).then_some(what));
        list(&shared, &ProviderId::new(at).unwrap(), &Index::none(), &Allowance::free(), visit).await.unwrap();
        shown
    };
    assert_eq!((shown("p0").await, shown("p1").await), (vec![Listed::Foreign], vec![Listed::Foreign]));
    shared.collector.keyrings_below(&ProviderId::new("p0").unwrap(), "0123456789abcdef/".to_owned());
    assert_eq!((shown("p0").await, shown("p1").await, shown("p2").await), (vec![Listed::Control], vec![Listed::Foreign], vec![]));
}
