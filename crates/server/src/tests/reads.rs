//! Ranges, conditions and versions of reads.

use super::fixture::{Answer, House, house};

const AT: &str = "/api/v1/blobs/photos/digits";

async fn digits() -> House {
    let house = house().await;
    house.store("digits", b"0123456789").await;
    house
}

async fn get(house: &House, headers: &[(&str, &str)]) -> Answer {
    headers.iter().fold(house.user("GET", AT), |call, (name, value)| call.header(name, value)).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_and_suffix_ranges() {
    let house = digits().await;
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let part = get(&house, &[("range", range)]).await.is(206);
        assert_eq!((&part.body[..], part.header("content-range")), (body.as_bytes(), content_range), "{range}");
        assert_eq!(part.header("content-length"), body.len().to_string());
        assert_eq!(part.header("accept-ranges"), "bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_outside_names_the_size() {
    let house = digits().await;
    for range in ["bytes=10-", "bytes=99-100", "bytes=-0"] {
        let refused = get(&house, &[("range", range)]).await;
        refused.is_problem(416, "range_not_satisfiable");
        assert_eq!(refused.header("content-range"), "bytes */10", "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_single_range_gets_the_whole() {
    let house = digits().await;
    for range in ["bytes=0-1,4-5", "bytes=4-2", "lines=1-2", "bytes=x"] {
        let whole = get(&house, &[("range", range)]).await.is(200);
        assert_eq!((whole.body.len(), whole.header("content-range")), (10, ""), "{range}");
    }
    let head = house.user("HEAD", AT).header("range", "bytes=0-1").send().await.is(200);
    assert_eq!(head.header("content-length"), "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_come_before_ranges() {
    let house = digits().await;
    let etag = get(&house, &[]).await.header("etag").to_owned();
    let unchanged = get(&house, &[("if-none-match", &etag), ("range", "bytes=99-")]).await.is(304);
    assert_eq!((unchanged.header("etag"), unchanged.body.len()), (etag.as_str(), 0));
    get(&house, &[("if-none-match", "*")]).await.is(304);
    get(&house, &[("if-none-match", "\"other\"")]).await.is(200);
    get(&house, &[("if-match", "\"other\""), ("range", "bytes=99-")]).await.is_problem(412, "precondition_failed");
    get(&house, &[("if-match", &etag), ("range", "bytes=1-2")]).await.is(206);
    get(&house, &[("if-match", "*")]).await.is(200);
    get(&house, &[("if-none-match", "nonsense")]).await.is_problem(400, "invalid");
    house.user("HEAD", AT).header("if-none-match", &etag).send().await.is(304);
    house.user("HEAD", AT).header("if-match", "\"other\"").send().await.is(412);
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_decides_between_part_and_whole() {
    let house = digits().await;
    let etag = get(&house, &[]).await.header("etag").to_owned();
    get(&house, &[("if-range", &etag), ("range", "bytes=1-2")]).await.is(206);
    assert_eq!(get(&house, &[("if-range", "\"old\""), ("range", "bytes=1-2")]).await.is(200).body.len(), 10);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(get(&house, &[("if-range", date), ("range", "bytes=99-")]).await.is(200).body.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_can_be_named() {
    let house = digits().await;
    let version = get(&house, &[]).await.header("x-diaspore-version").to_owned();
    assert_eq!(house.user("GET", &format!("{AT}?version={version}")).send().await.is(200).body, "0123456789");
    house.store("digits", b"new").await;
    let other = "/api/v1/blobs/photos/digits?version=00000000-0000-4000-8000-000000000000";
    house.user("GET", other).send().await.is_problem(404, "unknown_version");
    house.user("GET", other).header("range", "bytes=0-0").send().await.is_problem(404, "unknown_version");
    house.user("GET", &format!("{AT}?version=latest")).send().await.is_problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_survives_the_way() {
    let house = house().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    house.user("PUT", "/api/v1/blobs/photos/large").body(bytes.clone()).send().await.is(201);
    assert!(house.user("GET", "/api/v1/blobs/photos/large").send().await.is(200).body == bytes, "bytes differ");
    let part = house.user("GET", "/api/v1/blobs/photos/large").header("range", "bytes=1500000-2100000").send().await.is(206);
    assert!(part.body == bytes[1_500_000..=2_100_000], "bytes differ");
}
