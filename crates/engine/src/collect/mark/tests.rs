//! What is alive, and in how much memory that is found out.

use diaspore_block::id::PrincipalId;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::api::{Caller, PutOptions};
use crate::blob::tests::fixture::{Fixture, body, random, whole};

#[test]
fn ranges_that_do_not_fit_are_walked_again_and_nothing_is_missed() {
    let mut rng = StdRng::seed_from_u64(1);
    let ids: Vec<u64> = (0..5000).map(|_| rng.next_u64()).collect();
    let (mut from, mut found, mut walks) = (0, Vec::<u64>::new(), 0);
    loop {
        let mut sieve = Sieve::new(from, 600);
        // Named more than once, in no order.
        ids.iter().chain(ids.iter().rev().take(900)).for_each(|id| sieve.insert(*id));
        sieve.close();
        assert!(sieve.ids.len() <= 600);
        found.extend(ids.iter().filter(|id| (sieve.from..=sieve.to).contains(*id) && sieve.holds(**id)));
        walks += 1;
        match sieve.to.checked_add(1) {
            Some(next) => from = next,
            None => break,
        }
    }
    found.sort_unstable();
    let mut all = ids;
    all.sort_unstable();
    assert_eq!(found, all);
    assert!((8..40).contains(&walks), "{walks}");
}

#[test]
fn a_range_starts_at_its_first_id() {
    assert_eq!(Sieve::new(0, 1).first_id(), None);
    let below = Sieve::new(5, 1).first_id().unwrap();
    assert_eq!(prefix(&below), 4);
    assert!(below < ChunkId::from_bytes([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

/// With room for four.
fn sifted(from: u64, ids: &[u64]) -> Sieve {
    let mut sieve = Sieve::new(from, 4);
    for id in ids {
        sieve.insert(*id);
    }
    sieve.close();
    sieve
}

#[test]
fn a_range_that_is_cut_keeps_its_last_id() {
    // The fifth does not fit: the range is cut to what three quarters lie in.
    for fifth in [7, 8] {
        let sieve = sifted(0, &[2, 9, 0, 1, fifth]);
        assert_eq!((sieve.from, sieve.to), (0, 7));
        assert!([0, 1, 2].into_iter().all(|id| sieve.holds(id)) && !sieve.holds(9));
        assert_eq!(sieve.holds(7), fifth == 7);
    }
    // It was seen before the range was cut to it.
    let sieve = sifted(0, &[7, 9, 0, 1, 2]);
    assert_eq!((sieve.to, &sieve.ids[..]), (7, &[0, 1, 2, 7][..]));
    // Below the range lies what an earlier walk saw.
    let sieve = sifted(2, &[3, 1, 2, 8, 9, 5]);
    assert_eq!((sieve.to, &sieve.ids[..]), (5, &[2, 3, 5][..]));
}

#[test]
fn what_is_named_often_takes_no_room() {
    let sieve = sifted(0, &[7, 7, 7, 7, 7, 9, 7, 9, 7]);
    assert_eq!((sieve.to, &sieve.ids[..]), (u64::MAX, &[7, 9][..]));
    let everything = Sieve::everything();
    assert!(everything.holds(7) && (everything.from, everything.to) == (0, u64::MAX));
}

impl Fixture {
    /// Chunks of a blob of the first bucket, lists not among them.
    fn content(&self, key: &[u8]) -> (BucketId, Content) {
        let view = self.engine.shared().ledger.snapshot().unwrap();
        let bucket = view.bucket(self.caller().tenant, "bucket").unwrap().unwrap().id;
        (bucket, view.blob(bucket, key).unwrap().unwrap().content)
    }
}

/// Of every tenant and bucket, that is, whatever is read just now, and in however little memory.
#[tokio::test(start_paused = true)]
async fn what_blobs_and_running_reads_name_is_alive_and_nothing_else() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let data = random(2 << 20, 1);
    for (key, bytes) in [(b"stays", &data[..]), (b"reads", &random(1 << 20, 2)), (b"small", &data[..3000]), (b"goes!", &random(1 << 20, 3))]
    {
        fx.put(key, bytes).await.unwrap();
    }
    let other = Caller { tenant: fx.engine.create_tenant("u").await.unwrap().id, principal: PrincipalId::NIL };
    for (caller, name) in [(&fx.caller(), "second"), (&other, "bucket")] {
        fx.engine.create_bucket(caller, name).await.unwrap();
        fx.engine.put_blob(caller, name, b"alike", PutOptions::default(), body(&data[..1 << 20])).await.unwrap();
    }
    fx.settle().await;
    let view = shared.ledger.snapshot().unwrap();
    let mut named: Vec<(BucketId, Content)> = [b"stays", b"reads", b"small"].into_iter().map(|key| fx.content(key)).collect();
    for (tenant, name) in [(fx.caller().tenant, "second"), (other.tenant, "bucket")] {
        let bucket = view.bucket(tenant, name).unwrap().unwrap().id;
        named.push((bucket, view.blob(bucket, b"alike").unwrap().unwrap().content));
    }
    let mut live: BTreeMap<BlockId, u64> = BTreeMap::new();
    let chunks: BTreeSet<_> = named.iter().flat_map(|(bucket, content)| content.refs.iter().map(|chunk| (*bucket, chunk.id))).collect();
    for (bucket, id) in &chunks {
        let place = view.chunk(*bucket, id).unwrap().unwrap();
        *live.entry(place.block).or_default() += u64::from(place.stored_len);
    }
    fx.forget();
    let reading = fx.open(b"reads", None).await.unwrap();
    let dead = fx.content(b"goes!");
    for key in [b"reads", b"goes!"] {
        fx.delete(key, crate::api::Precondition::None, None).await.unwrap();
    }
    let roots = Roots::take(&shared).await.unwrap();
    for most in [MOST_IDS, 1000, 4] {
        let marks = mark_within(&shared, &roots, most).await.unwrap();
        assert_eq!((&marks.live, marks.unreadable.len()), (&live, 0), "{most} ids at once");
    }
    let marks = mark(&shared, &roots).await.unwrap();
    let block = |(bucket, content): &(BucketId, Content)| view.chunk(*bucket, &content.refs[0].id).unwrap().unwrap().block;
    assert_eq!((marks.live_bytes(block(&dead)), marks.live_bytes(block(&named[1]))), (0, live[&block(&named[1])]));
    whole(reading.body).await.unwrap();
    let roots = Roots::take(&shared).await.unwrap();
    assert_eq!(mark(&shared, &roots).await.unwrap().live_bytes(block(&named[1])), 0, "read to its end");
    shared.step_aside("a test");
    assert_eq!(mark(&shared, &roots).await.unwrap_err().kind, ErrorKind::NotAccepted, "who steps aside does not go on for hours");
}

/// A read that has not looked its blob up may be about to read anything that there was when it began.
#[tokio::test(start_paused = true)]
async fn a_read_that_just_begins_is_waited_for() {
    let fx = Fixture::start(5).await;
    fx.put(b"a", &random(3000, 1)).await.unwrap();
    let shared = fx.engine.shared();
    let lease = shared.keep.lease(diaspore_block::id::Seq(1));
    let taking = Roots::take(&shared);
    tokio::pin!(taking);
    for _ in 0..10 {
        assert!(futures::poll!(&mut taking).is_pending());
        tokio::time::sleep(LOOKUP).await;
    }
    let (bucket, content) = fx.content(b"a");
    lease.reads(bucket, &content);
    let roots = taking.await.unwrap();
    assert_eq!(roots.reads, [(bucket, Arc::new(content))]);
}

/// More blobs, and more chunks, than are taken from the ledger at once.
#[tokio::test(start_paused = true)]
async fn the_last_page_of_a_bucket_is_as_alive_as_the_first() {
    let fx = Fixture::start(5).await;
    let shared = fx.engine.shared();
    let blobs: Vec<(Vec<u8>, Vec<u8>)> =
        (0..PAGE + 10).map(|index| (format!("{index:05}").into_bytes(), random(12, index as u64))).collect();
    let puts = futures::future::join_all(blobs.iter().map(|(key, data)| fx.put(key, data))).await;
    assert!(puts.iter().all(Result::is_ok));
    fx.settle().await;
    let roots = Roots::take(&shared).await.unwrap();
    for most in [MOST_IDS, 300] {
        let marks = mark_within(&shared, &roots, most).await.unwrap();
        assert_eq!(marks.live.values().sum::<u64>(), blobs.len() as u64 * 12, "{most} ids at once");
    }
    let (bucket, content) = fx.content(&blobs.last().unwrap().0);
    let mut shown = Vec::new();
    roots.each_chunk(&shared, bucket, |id| shown.push(*id)).await.unwrap();
    assert_eq!((shown.len(), *shown.last().unwrap()), (blobs.len(), content.refs[0].id));
    shared.step_aside("a test");
    let mut shown = 0;
    let error = roots.each_chunk(&shared, bucket, |_| shown += 1).await.unwrap_err();
    assert_eq!((error.kind, shown), (ErrorKind::NotAccepted, PAGE), "it is given up between two pages");
}
