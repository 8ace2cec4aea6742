//! Versions of S3: kept, named, listed, deleted; and the tags of a version.

use crate::common::{TestSite, noise};
use crate::s3::Client;
use bytes::Bytes;
use diptych_catalog::Catalog;
use diptych_core::keys;
use reqwest::{Method, Response, StatusCode};

const MIB: usize = 1 << 20;

async fn text(answer: Response) -> String {
    answer.text().await.expect("text")
}

fn header(answer: &Response, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().expect("text").to_owned())
}

fn id_of(answer: &Response) -> Option<String> {
    header(answer, "x-amz-version-id")
}

/// What stands between tags of an XML document, in order.
fn all_between(document: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let parts = document.split(open.as_str()).skip(1);
    parts.map(|part| part.split(close.as_str()).next().unwrap_or_default().to_owned()).collect()
}

async fn refused(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    (status, all_between(&text(answer).await, "Code").pop().unwrap_or_default())
}

async fn versioning(client: &Client<'_>, status: &str) {
    let body = format!(
        "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>{status}</Status></VersioningConfiguration>"
    );
    let answer = client.ask(Method::PUT, "", &[("versioning", "")], body).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", text(answer).await);
}

/// Puts, and gives the id of the version.
async fn put(client: &Client<'_>, key: &str, body: &str) -> String {
    let answer = client.put(key, body.to_owned()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    id_of(&answer).expect("an id")
}

async fn read(client: &Client<'_>, key: &str, id: &str) -> String {
    let answer = client.ask(Method::GET, key, &[("versionId", id)], "").await;
    assert_eq!((answer.status(), id_of(&answer).as_deref()), (StatusCode::OK, Some(id)));
    text(answer).await
}

async fn delete(client: &Client<'_>, key: &str, id: &str) -> Response {
    let answer = client.ask(Method::DELETE, key, &[("versionId", id)], "").await;
    assert_eq!((answer.status(), id_of(&answer).as_deref()), (StatusCode::NO_CONTENT, Some(id)));
    answer
}

/// `key id` of each version and `key id deleted` of each marker; the newest of its key with a star.
async fn listed(client: &Client<'_>, query: &[(&'static str, &str)]) -> (Vec<String>, String) {
    let all: Vec<_> = [("versions", "")].iter().chain(query).copied().collect();
    let answer = client.ask(Method::GET, "", &all, "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let document = text(answer).await;
    let mut found = Vec::new();
    for (tag, suffix) in [("Version", ""), ("DeleteMarker", " deleted")] {
        for entry in all_between(&document, tag) {
            let one = |name: &str| all_between(&entry, name).pop().unwrap_or_default();
            let star = if one("IsLatest") == "true" { "*" } else { "" };
            found.push(format!("{} {}{suffix}{star}", one("Key"), one("VersionId")));
        }
    }
    found.extend(
        all_between(&document, "CommonPrefixes").iter().flat_map(|group| all_between(group, "Prefix")),
    );
    (found, document)
}

async fn versions(client: &Client<'_>) -> Vec<String> {
    listed(client, &[]).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn each_put_is_a_version_that_is_read_and_deleted_by_its_id() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let status = async || text(client.ask(Method::GET, "", &[("versioning", "")], "").await).await;
    assert!(!status().await.contains("<Status>"));
    assert_eq!(id_of(&client.put("key", "before").await), None);
    versioning(&client, "Enabled").await;
    assert!(status().await.contains("<Status>Enabled</Status>"));

    let first = put(&client, "key", "first").await;
    let second = put(&client, "key", "second").await;
    let newest = client.get("key").await;
    assert_eq!(id_of(&newest).as_ref(), Some(&second));
    assert_eq!(text(newest).await, "second");
    assert_eq!(read(&client, "key", &first).await, "first");
    assert_eq!(read(&client, "key", "null").await, "before");
    let head = client.ask(Method::HEAD, "key", &[("versionId", &first)], "").await;
    assert_eq!(
        (id_of(&head).as_ref(), header(&head, "content-length").as_deref()),
        (Some(&first), Some("5"))
    );
    let all = [format!("key {second}*"), format!("key {first}"), "key null".to_owned()];
    assert_eq!(versions(&client).await, all);

    let deleted = client.delete("key").await;
    assert_eq!(header(&deleted, "x-amz-delete-marker").as_deref(), Some("true"));
    let marker = id_of(&deleted).expect("an id");
    let missing = client.get("key").await;
    assert_eq!(header(&missing, "x-amz-delete-marker").as_deref(), Some("true"));
    assert_eq!(refused(missing).await, (404, "NoSuchKey".to_owned()));
    let named = client.ask(Method::GET, "key", &[("versionId", &marker)], "").await;
    assert_eq!(refused(named).await, (405, "MethodNotAllowed".to_owned()));
    assert_eq!(client.list("", None, 10).await.0, Vec::<String>::new());
    assert_eq!(versions(&client).await.len(), 4);
    assert_eq!(read(&client, "key", &second).await, "second");

    // What was head makes way for the newest below it.
    assert_eq!(
        header(&delete(&client, "key", &marker).await, "x-amz-delete-marker").as_deref(),
        Some("true")
    );
    assert_eq!(text(client.get("key").await).await, "second");
    delete(&client, "key", &second).await;
    assert_eq!(text(client.get("key").await).await, "first");
    assert_eq!(versions(&client).await, [format!("key {first}*"), "key null".to_owned()]);
    let gone = client.ask(Method::GET, "key", &[("versionId", &second)], "").await;
    assert_eq!(refused(gone).await, (404, "NoSuchVersion".to_owned()));
    let nonsense = client.ask(Method::GET, "key", &[("versionId", "x")], "").await;
    assert_eq!(refused(nonsense).await, (400, "InvalidArgument".to_owned()));
    delete(&client, "key", &second).await;

    let bucket = async || client.ask(Method::DELETE, "", &[], "").await;
    assert_eq!(refused(bucket().await).await, (409, "BucketNotEmpty".to_owned()));
    delete(&client, "key", "null").await;
    delete(&client, "key", &first).await;
    assert_eq!(versions(&client).await, Vec::<String>::new());
    assert_eq!(client.get("key").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(site.count(b"g/").await, 3, "the bytes of each are dead");
    assert_eq!(bucket().await.status(), StatusCode::NO_CONTENT);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_versioning_suspended_there_is_one_version_without_an_id_and_the_others_stay() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Enabled").await;
    let first = put(&client, "key", "first").await;
    versioning(&client, "Suspended").await;
    for body in ["a", "b"] {
        assert_eq!(put(&client, "key", body).await, "null");
        assert_eq!(versions(&client).await, ["key null*".to_owned(), format!("key {first}")]);
    }
    versioning(&client, "Enabled").await;
    let second = put(&client, "key", "second").await;
    assert_eq!(read(&client, "key", "null").await, "b");
    versioning(&client, "Suspended").await;
    assert_eq!(put(&client, "key", "c").await, "null");
    let both = [format!("key {second}"), format!("key {first}")];
    assert_eq!(versions(&client).await[1..], both);
    assert_eq!(site.count(b"g/").await, 2, "a and b are gone");
    let deleted = client.delete("key").await;
    assert_eq!(id_of(&deleted).as_deref(), Some("null"));
    assert_eq!(client.get("key").await.status(), StatusCode::NOT_FOUND);
    let all = versions(&client).await;
    assert!(all.contains(&"key null deleted*".to_owned()) && all.len() == 3, "{all:?}");
    delete(&client, "key", "null").await;
    assert_eq!(text(client.get("key").await).await, "second");
    assert_eq!(read(&client, "key", &first).await, "first");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_once_each_whatever_the_size_of_a_page() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Enabled").await;
    for key in ["a", "a", "b/1", "b/2", "b/2", "b0", "c"] {
        put(&client, key, key).await;
    }
    client.delete("b/1").await;
    let (mut whole, _) = listed(&client, &[]).await;
    assert_eq!(whole.len(), 8);
    whole.sort();
    for limit in ["1", "2", "3", "7"] {
        for (query, expected) in [(vec![], 8), (vec![("prefix", "b/")], 4), (vec![("delimiter", "/")], 5)] {
            let (mut found, mut marker) = (Vec::new(), (String::new(), String::new()));
            loop {
                let page = [
                    ("max-keys", limit),
                    ("key-marker", marker.0.as_str()),
                    ("version-id-marker", marker.1.as_str()),
                ];
                let asked: Vec<_> = page.iter().chain(&query).copied().collect();
                let (entries, document) = listed(&client, &asked).await;
                assert!(entries.len() <= limit.parse().expect("a number"), "{entries:?}");
                found.extend(entries);
                let one = |tag: &str| all_between(&document, tag).pop().unwrap_or_default();
                if one("IsTruncated") == "false" {
                    break;
                }
                marker = (one("NextKeyMarker"), one("NextVersionIdMarker"));
            }
            found.sort();
            assert_eq!(found.len(), expected, "limit {limit}, {query:?}: {found:?}");
            let same = found.iter().filter(|entry| whole.contains(entry)).count();
            assert_eq!(same, found.iter().filter(|entry| *entry != "b/").count(), "{found:?}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_versioning_has_the_same_records_and_one_commit_a_put() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    client.put("key", "first").await;
    let before = site.catalog.position().await.expect("a position");
    let answer = client.put("key", noise(4096, 1)).await;
    let after = site.catalog.position().await.expect("a position");
    assert_eq!(after.revision - before.revision, 1);
    assert_eq!(id_of(&answer), None);
    let view = site.catalog.view().await.expect("a view");
    for family in [b"h/", b"v/"] {
        let page = view.scan(&keys::prefix_range(family), 10).expect("it reads");
        assert_eq!(page.entries.iter().map(|(_, raw)| raw[0]).collect::<Vec<_>>(), [1]);
    }
    drop(view);
    assert_eq!(client.ask(Method::GET, "key", &[("versionId", "null")], "").await.status(), StatusCode::OK);
    assert_eq!(versions(&client).await, ["key null*"]);
    client.ask(Method::DELETE, "key", &[("versionId", "null")], "").await;
    assert_eq!(client.get("key").await.status(), StatusCode::NOT_FOUND);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_versions_are_deleted_by_one_request_each_answered_by_itself() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Enabled").await;
    let first = put(&client, "a", "1").await;
    let second = put(&client, "a", "2").await;
    put(&client, "b", "3").await;
    let all = [("a", Some(first.as_str())), ("a", Some(&second)), ("b", None), ("c", Some("nonsense"))];
    let answer = client.delete_many(&all).await;
    assert_eq!(all_between(&answer, "Deleted").len(), 3, "{answer}");
    assert_eq!(all_between(&answer, "DeleteMarkerVersionId").len(), 1, "{answer}");
    assert_eq!(all_between(&answer, "Code"), ["InvalidArgument"], "{answer}");
    let left = versions(&client).await;
    assert!(left.len() == 2 && left.iter().all(|entry| entry.starts_with("b ")), "{left:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_comes_back_by_a_copy_and_its_bytes_outlive_it() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Enabled").await;
    let plain = noise(3 * MIB, 5);
    let old = id_of(&client.put("key", plain.clone()).await).expect("an id");
    put(&client, "key", "newer").await;
    let copied = client.copy(&format!("/bucket/key?versionId={old}"), "key").await;
    assert_eq!(header(&copied, "x-amz-copy-source-version-id").as_ref(), Some(&old));
    let copy = id_of(&copied).expect("an id");
    delete(&client, "key", &old).await;
    let read: Bytes = client.get("key").await.bytes().await.expect("a body");
    assert!(read == plain, "it differs");
    assert_eq!(versions(&client).await[0], format!("key {copy}*"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_deletes_by_id_at_one_time_leave_what_was_not_deleted() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Enabled").await;
    let work = (0..8).map(|number| {
        let client = &client;
        async move {
            let id = put(client, "key", &number.to_string()).await;
            if number % 2 == 0 {
                delete(client, "key", &id).await;
            }
            (number, id)
        }
    });
    let done = futures::future::join_all(work).await;
    assert_eq!(versions(&client).await.len(), 4);
    for (number, id) in done.iter().filter(|(number, _)| number % 2 == 1) {
        assert_eq!(read(&client, "key", id).await, number.to_string());
    }
    assert_eq!(site.count(b"g/").await, 4);
    site.stop().await;
}

fn tagging(tags: &[(&str, &str)]) -> String {
    let tag = |(key, value): &(&str, &str)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    let tags: String = tags.iter().map(tag).collect();
    format!("<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>{tags}</TagSet></Tagging>")
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_set_and_taken_away_and_the_version_stays_what_it_is() {
    const TAGGING: (&str, &str) = ("tagging", "");
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let etag = header(&client.put("key", noise(3 * MIB, 9)).await, "etag");
    let tags = async |query: &[(&'static str, &str)]| {
        let query: Vec<_> = query.iter().chain([&TAGGING]).copied().collect();
        let document = text(client.ask(Method::GET, "key", &query, "").await).await;
        all_between(&document, "Key").into_iter().zip(all_between(&document, "Value")).collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let set = client.ask(Method::PUT, "key", &[TAGGING], tagging(&[("colour", "red")])).await;
    assert_eq!((set.status(), id_of(&set)), (StatusCode::OK, None));
    assert_eq!(tags(&[]).await, pair("colour", "red"));
    let answer = client.get("key").await;
    assert_eq!(
        (header(&answer, "etag"), header(&answer, "x-amz-tagging-count").as_deref()),
        (etag, Some("1"))
    );
    assert!(answer.bytes().await.expect("a body") == noise(3 * MIB, 9), "it differs");
    assert_eq!((site.count(b"v/").await, site.count(b"g/").await), (0, 0), "no byte was touched");

    let many: Vec<_> = (0..11).map(|number| format!("k{number}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "v")).collect();
    for bad in [many, vec![("aws:x", "1")], vec![("a", "1"), ("a", "2")]] {
        let answer = client.ask(Method::PUT, "key", &[TAGGING], tagging(&bad)).await;
        assert_eq!(refused(answer).await, (400, "InvalidTag".to_owned()));
    }
    assert_eq!(tags(&[]).await, pair("colour", "red"));

    versioning(&client, "Enabled").await;
    let newer = put(&client, "key", "newer").await;
    let older = [TAGGING, ("versionId", "null")];
    let set = client.ask(Method::PUT, "key", &older, tagging(&[("colour", "blue")])).await;
    assert_eq!((set.status(), id_of(&set).as_deref()), (StatusCode::OK, Some("null")));
    assert_eq!(tags(&[("versionId", "null")]).await, pair("colour", "blue"));
    assert!(tags(&[]).await.is_empty());
    assert_eq!(versions(&client).await, [format!("key {newer}*"), "key null".to_owned()]);
    let taken = client.ask(Method::DELETE, "key", &older, "").await;
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    assert!(tags(&[("versionId", "null")]).await.is_empty());
    let missing = client.ask(Method::PUT, "nothing", &[TAGGING], tagging(&[])).await;
    assert_eq!(refused(missing).await, (404, "NoSuchKey".to_owned()));
    site.stop().await;
}
