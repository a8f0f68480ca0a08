//! Buckets and listings.

use super::fixture::house;

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_through_its_life() {
    let house = house().await;
    let at = "/api/v1/buckets/videos";
    assert_eq!(house.user("PUT", at).send().await.is(201).json()["name"], "videos");
    house.user("PUT", at).send().await.is_problem(409, "already_exists");
    assert_eq!(house.user("GET", at).send().await.is(200).json()["name"], "videos");
    let names: Vec<_> = house.user("GET", "/api/v1/buckets").send().await.is(200).json()["buckets"].as_array().unwrap().clone();
    assert_eq!(names.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["photos", "videos"]);

    house.user("PUT", "/api/v1/blobs/videos/k").body("x").send().await.is(201);
    house.user("DELETE", at).send().await.is_problem(409, "bucket_not_empty");
    house.user("DELETE", "/api/v1/blobs/videos/k").send().await.is(204);
    house.user("DELETE", at).send().await.is(204);
    house.user("DELETE", at).send().await.is_problem(404, "unknown_bucket");
    house.user("GET", at).send().await.is_problem(404, "unknown_bucket");
    house.user("PUT", "/api/v1/buckets/UP").send().await.is_problem(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_page_fold_and_end() {
    let house = house().await;
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        house.store(key, b"x").await;
    }
    let mut target = "/api/v1/blobs/photos?delimiter=/&limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = house.user("GET", &target).send().await.is(200).json();
        let entries =
            |field: &str| page[field].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(entries("blobs").len() + entries("common_prefixes").len() <= 2);
        seen.extend(entries("blobs"));
        seen.extend(entries("common_prefixes"));
        let Some(token) = page["next_page_token"].as_str() else { break };
        target = format!("/api/v1/blobs/photos?delimiter=/&limit=2&page_token={token}");
    }
    seen.sort();
    assert_eq!(seen, ["a/", "b", "c/", "d"]);

    let below = house.user("GET", "/api/v1/blobs/photos?prefix=a%2F&start_after=a/1").send().await.is(200).json();
    assert_eq!((below["blobs"].as_array().unwrap().len(), below["blobs"][0]["key"].as_str()), (1, Some("a/2")));
    assert!(below.get("next_page_token").is_none());
    assert_eq!(house.user("GET", "/api/v1/blobs/photos/?limit=1").send().await.is(200).json()["blobs"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_text_is_listed_exactly() {
    let house = house().await;
    house.store("%ff%fe", b"x").await;
    let page = house.user("GET", "/api/v1/blobs/photos").send().await.is(200).json();
    assert_eq!(page["blobs"][0]["key_b64"], "//4=");
    house.store("text", b"x").await;
    let page = house.user("GET", "/api/v1/blobs/photos?prefix=text").send().await.is(200).json();
    assert!(page["blobs"][0].get("key_b64").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_listings_are_refused() {
    let house = house().await;
    for query in ["limit=0", "limit=1001", "page_token=%2A", "prefx=a", "limit=1&limit=2"] {
        house.user("GET", &format!("/api/v1/blobs/photos?{query}")).send().await.is_problem(400, "invalid");
    }
    house.user("GET", "/api/v1/blobs/absent").send().await.is_problem(404, "unknown_bucket");
    house.user("POST", "/api/v1/blobs/photos").send().await.is_problem(405, "method_not_allowed");
}
