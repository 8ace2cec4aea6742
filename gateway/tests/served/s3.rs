//! S3 by signed requests.

use std::time::Duration;

use crate::common::{ACCESS_KEY, SECRET_KEY, TestSite, noise};
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2, ObjectIdentifier};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

const MIB: usize = 1 << 20;
const SIGNED_FOR: Duration = Duration::from_mins(10);

pub(crate) struct Client<'a> {
    site: &'a TestSite,
    bucket: Bucket,
    credentials: Credentials,
}

impl<'a> Client<'a> {
    fn new(site: &'a TestSite, bucket: &str, key: &str, secret: &str) -> Self {
        let url = format!("http://{}", site.gateway().s3()).parse().expect("a URL");
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), "us-east-1").expect("a bucket");
        Self { site, bucket, credentials: Credentials::new(key, secret) }
    }

    pub(crate) async fn with_bucket(site: &'a TestSite, bucket: &str) -> Self {
        let client = Self::new(site, bucket, ACCESS_KEY, SECRET_KEY);
        let url = client.bucket.create_bucket(&client.credentials).sign(SIGNED_FOR);
        assert_eq!(client.send(Method::PUT, url, Bytes::new()).await.status(), StatusCode::OK);
        client
    }

    async fn send(&self, method: Method, url: reqwest::Url, body: Bytes) -> Response {
        self.site.http.request(method, url).body(body).send().await.expect("an answer")
    }

    /// A request with a query of its own; without a key it is of the bucket.
    pub(crate) async fn ask(
        &self,
        method: Method,
        key: &str,
        query: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        let credentials = Some(&self.credentials);
        let url = match method {
            Method::PUT => signed(self.bucket.put_object(credentials, key), query),
            Method::HEAD => signed(self.bucket.head_object(credentials, key), query),
            Method::DELETE => signed(self.bucket.delete_object(credentials, key), query),
            _ => signed(self.bucket.get_object(credentials, key), query),
        };
        self.send(method, url, body.into()).await
    }

    /// Copies `/bucket/key` to a key of this bucket.
    pub(crate) async fn copy(&self, source: &str, key: &str) -> Response {
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        action.headers_mut().insert("x-amz-copy-source", source.to_owned());
        let request = self.site.http.put(action.sign(SIGNED_FOR)).header("x-amz-copy-source", source);
        request.send().await.expect("an answer")
    }

    /// Deletes keys, and versions of keys, by one request; the answer's text.
    pub(crate) async fn delete_many(&self, all: &[(&str, Option<&str>)]) -> String {
        let identifier = |(key, version): &(&str, Option<&str>)| ObjectIdentifier {
            key: (*key).to_owned(),
            version_id: version.map(str::to_owned),
        };
        let all: Vec<_> = all.iter().map(identifier).collect();
        let action = self.bucket.delete_objects(Some(&self.credentials), all.iter());
        let url = action.sign(SIGNED_FOR);
        let (body, md5) = action.body_with_md5();
        let request = self.site.http.post(url).header("content-md5", md5).body(body);
        request.send().await.expect("an answer").text().await.expect("text")
    }

    pub(crate) async fn put(&self, key: &str, body: impl Into<Bytes>) -> Response {
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send(Method::PUT, url, body.into()).await
    }

    /// Puts with headers, which are signed.
    pub(crate) async fn put_with(&self, key: &str, headers: &[(&'static str, &str)], body: &str) -> Response {
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        for (name, value) in headers {
            action.headers_mut().insert(*name, (*value).to_owned());
        }
        let mut request = self.site.http.put(action.sign(SIGNED_FOR)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, key: &str) -> Response {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send(Method::GET, url, Bytes::new()).await
    }

    pub(crate) async fn delete(&self, key: &str) -> Response {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send(Method::DELETE, url, Bytes::new()).await
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        max_keys: usize,
    ) -> (Vec<String>, Vec<String>) {
        let (mut keys, mut groups) = (Vec::new(), Vec::new());
        let mut token: Option<String> = None;
        loop {
            let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            action.with_prefix(prefix);
            action.with_max_keys(max_keys);
            if let Some(delimiter) = delimiter {
                action.with_delimiter(delimiter);
            }
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let text = self
                .send(Method::GET, action.sign(SIGNED_FOR), Bytes::new())
                .await
                .text()
                .await
                .expect("text");
            let page = ListObjectsV2::parse_response(&text).expect("a page");
            keys.extend(page.contents.into_iter().map(|object| object.key));
            groups.extend(page.common_prefixes.into_iter().map(|group| group.prefix));
            match page.next_continuation_token {
                Some(next) => token = Some(next),
                None => return (keys, groups),
            }
        }
    }
}

fn signed<'a, A: S3Action<'a>>(mut action: A, query: &[(&'static str, &str)]) -> reqwest::Url {
    for (name, value) in query {
        action.query_mut().insert(*name, (*value).to_owned());
    }
    action.sign(SIGNED_FOR)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_put_read_listed_and_deleted() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    for key in ["a.txt", "dir/b.txt", "dir/sub/c.txt", "dir0", "z z"] {
        let answer = client.put(key, key.to_owned()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.expect("text"));
        assert!(answer.headers().contains_key("x-diptych-receipt"));
    }
    let answer = client.get("dir/b.txt").await;
    assert_eq!(
        answer.headers()["etag"],
        "\"2b4e3b2dbd86b6f5a3a4fb2d0a8b4b9e\""
            .replace("2b4e3b2dbd86b6f5a3a4fb2d0a8b4b9e", &md5("dir/b.txt"))
            .as_str()
    );
    assert_eq!(answer.text().await.expect("text"), "dir/b.txt");
    let (keys, groups) = client.list("", Some("/"), 2).await;
    assert_eq!((keys, groups), (vec!["a.txt".into(), "dir0".into(), "z z".into()], vec!["dir/".to_owned()]));
    let (keys, _) = client.list("dir/", None, 1).await;
    assert_eq!(keys, ["dir/b.txt", "dir/sub/c.txt"]);
    assert_eq!(client.delete("a.txt").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(client.delete("a.txt").await.status(), StatusCode::NO_CONTENT);
    let missing = client.get("a.txt").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(missing.text().await.expect("text").contains("<Code>NoSuchKey</Code>"));
    let url = client.bucket.delete_bucket(&client.credentials).sign(SIGNED_FOR);
    let full = client.send(Method::DELETE, url.clone(), Bytes::new()).await;
    assert!(full.text().await.expect("text").contains("BucketNotEmpty"));
    for key in ["dir/b.txt", "dir/sub/c.txt", "dir0", "z z"] {
        client.delete(key).await;
    }
    assert_eq!(client.send(Method::DELETE, url, Bytes::new()).await.status(), StatusCode::NO_CONTENT);
    site.stop().await;
}

fn md5(text: &str) -> String {
    use md5::Digest;
    hex::encode(md5::Md5::digest(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_becomes_one_object_and_leaves_nothing_behind() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let create = client.bucket.create_multipart_upload(Some(&client.credentials), "big").sign(SIGNED_FOR);
    let text = client.send(Method::POST, create, Bytes::new()).await.text().await.expect("text");
    let upload = CreateMultipartUpload::parse_response(&text).expect("an upload").upload_id().to_owned();
    let parts = [noise(5 * MIB, 1), noise(6 * MIB + 3, 2), noise(100, 3)];
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let url =
            client.bucket.upload_part(Some(&client.credentials), "big", number, &upload).sign(SIGNED_FOR);
        let answer = client.send(Method::PUT, url, part.clone().into()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.expect("text"));
        etags.push(answer.headers()["etag"].to_str().expect("text").to_owned());
    }
    // A part that is sent again replaces the one before.
    let url = client.bucket.upload_part(Some(&client.credentials), "big", 3, &upload).sign(SIGNED_FOR);
    client.send(Method::PUT, url, parts[2].clone().into()).await;

    let wrong = [etags[1].as_str(), etags[0].as_str(), etags[2].as_str()];
    let complete =
        client.bucket.complete_multipart_upload(Some(&client.credentials), "big", &upload, wrong.into_iter());
    let url = complete.sign(SIGNED_FOR);
    let refused = client.send(Method::POST, url, complete.body().into()).await;
    assert!(refused.text().await.expect("text").contains("InvalidPart"));

    let complete = client.bucket.complete_multipart_upload(
        Some(&client.credentials),
        "big",
        &upload,
        etags.iter().map(String::as_str),
    );
    let url = complete.sign(SIGNED_FOR);
    let answer = client.send(Method::POST, url, complete.body().into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.expect("text");
    assert!(text.contains("-3"), "{text}");
    let read = client.get("big").await.bytes().await.expect("a body");
    assert!(read == parts.concat(), "it differs");
    assert_eq!(site.count(b"u/").await, 0, "the upload and its parts are gone");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_many_parts_is_referenced_by_pages() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let create = client.bucket.create_multipart_upload(Some(&client.credentials), "many").sign(SIGNED_FOR);
    let text = client.send(Method::POST, create, Bytes::new()).await.text().await.expect("text");
    let upload = CreateMultipartUpload::parse_response(&text).expect("an upload").upload_id().to_owned();
    let part = noise(5 * MIB, 4);
    let mut etags = Vec::new();
    for number in 1..=10 {
        let url =
            client.bucket.upload_part(Some(&client.credentials), "many", number, &upload).sign(SIGNED_FOR);
        let answer = client.send(Method::PUT, url, part.clone().into()).await;
        etags.push(answer.headers()["etag"].to_str().expect("text").to_owned());
    }
    let complete = client.bucket.complete_multipart_upload(
        Some(&client.credentials),
        "many",
        &upload,
        etags.iter().map(String::as_str),
    );
    let url = complete.sign(SIGNED_FOR);
    assert_eq!(client.send(Method::POST, url, complete.body().into()).await.status(), StatusCode::OK);
    assert_eq!(site.count(b"p/").await, 1);
    let read = client.get("many").await.bytes().await.expect("a body");
    assert!(read.len() == 50 * MIB && read.chunks(5 * MIB).all(|chunk| chunk == part), "it differs");
    assert_eq!(client.delete("many").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(site.count(b"g/").await, 10, "each part's blob is marked dead");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_outlives_its_source_and_keeps_its_etag() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    for (key, size) in [("small", 1000), ("large", 3 * MIB)] {
        let plain = noise(size, 11);
        let etag = client.put(key, plain.clone()).await.headers()["etag"].clone();
        let target = format!("{key}-copy");
        let answer = client.copy(&format!("/bucket/{key}"), &target).await;
        let text = answer.text().await.expect("text");
        assert!(text.contains(etag.to_str().expect("text").trim_matches('"')), "{text}");
        assert_eq!(client.delete(key).await.status(), StatusCode::NO_CONTENT);
        let read = client.get(&target).await;
        assert_eq!(read.headers()["etag"], etag);
        assert!(read.bytes().await.expect("a body") == plain, "{key} differs");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_has_the_error_of_s3_and_stores_nothing() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let code = async |answer: Response| {
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        assert!(text.contains("<Message>"), "it says in words what is wrong: {text}");
        let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next()).unwrap_or(&text);
        (status, code.to_owned())
    };
    let expect = |status: u16, name: &str| (status, name.to_owned());
    let forged = Client::new(&site, "bucket", ACCESS_KEY, "another-secret");
    assert_eq!(code(forged.put("x", "y").await).await, expect(403, "SignatureDoesNotMatch"));
    let stranger = Client::new(&site, "bucket", "NOBODY", SECRET_KEY);
    assert_eq!(code(stranger.put("x", "y").await).await, expect(403, "InvalidAccessKeyId"));
    let reader = Client::new(&site, "bucket", "READER", SECRET_KEY);
    assert_eq!(code(reader.put("x", "y").await).await, expect(403, "AccessDenied"));
    assert_eq!(code(reader.get("x").await).await, expect(404, "NoSuchKey"));
    let nowhere = Client::new(&site, "no-bucket", ACCESS_KEY, SECRET_KEY);
    assert_eq!(code(nowhere.put("x", "y").await).await, expect(404, "NoSuchBucket"));
    assert_eq!(code(client.put(&"k".repeat(1025), "y").await).await, expect(400, "KeyTooLongError"));
    let unsigned =
        site.http.get(format!("http://{}/bucket/x", site.gateway().s3())).send().await.expect("an answer");
    assert_eq!(code(unsigned).await, expect(403, "AccessDenied"));

    let mut action = client.bucket.put_object(Some(&client.credentials), "sums");
    action.headers_mut().insert("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==");
    let url = action.sign(SIGNED_FOR);
    let request = site.http.put(url).header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==").body("bytes");
    assert_eq!(code(request.send().await.expect("an answer")).await, expect(400, "BadDigest"));
    let url = client.bucket.put_object(Some(&client.credentials), "sums").sign(SIGNED_FOR);
    let request = site.http.put(url).header("x-amz-checksum-crc32c", "AAAAAA==").body(noise(2 * MIB, 1));
    assert_eq!(code(request.send().await.expect("an answer")).await, expect(400, "BadDigest"));
    assert_eq!(site.count(b"h/").await, 0, "nothing was stored");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_came_with_an_object_is_given_to_who_asks_for_it() {
    const SUM: &str = "x-amz-checksum-crc32c";
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let sum_of = |answer: &Response| Some(answer.headers().get(SUM)?.to_str().expect("text").to_owned());
    for (key, size) in [("small", 1000), ("large", 2 * MIB)] {
        let url = client.bucket.put_object(Some(&client.credentials), key).sign(SIGNED_FOR);
        let request =
            site.http.put(url).header("x-amz-sdk-checksum-algorithm", "CRC32C").body(noise(size, 1));
        let sum = sum_of(&request.send().await.expect("an answer")).expect("it was computed");
        let read = async |method: Method, key: &str, more: &[(&'static str, &str)]| {
            let url = match method {
                Method::HEAD => client.bucket.head_object(Some(&client.credentials), key).sign(SIGNED_FOR),
                _ => client.bucket.get_object(Some(&client.credentials), key).sign(SIGNED_FOR),
            };
            let request = site.http.request(method, url);
            let request = more.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            sum_of(&request.send().await.expect("an answer"))
        };
        let asked = ("x-amz-checksum-mode", "ENABLED");
        assert_eq!(read(Method::HEAD, key, &[asked]).await.as_ref(), Some(&sum));
        assert_eq!(read(Method::GET, key, &[asked]).await.as_ref(), Some(&sum));
        assert_eq!(read(Method::GET, key, &[]).await, None);
        assert_eq!(read(Method::GET, key, &[asked, ("range", "bytes=0-9")]).await, None, "of a part");
        let url = client.bucket.put_object(Some(&client.credentials), "copy").sign(SIGNED_FOR);
        let request = site.http.put(url).header("x-amz-copy-source", format!("/bucket/{key}"));
        let copied = request.header("x-amz-metadata-directive", "REPLACE").send().await.expect("an answer");
        assert_eq!(copied.status(), StatusCode::OK);
        assert_eq!(read(Method::HEAD, "copy", &[asked]).await.as_ref(), Some(&sum));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_kept_by_no_shared_cache_unless_its_writer_said_so() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    client.put("page.html", "for who signs").await;
    let url = client.bucket.put_object(Some(&client.credentials), "logo.png").sign(SIGNED_FOR);
    let request = site.http.put(url).header("cache-control", "public, max-age=60").body("for all");
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
    for (key, expected) in [("page.html", "private"), ("logo.png", "public, max-age=60")] {
        let head = client.bucket.head_object(Some(&client.credentials), key).sign(SIGNED_FOR);
        for answer in [client.get(key).await, client.send(Method::HEAD, head, Bytes::new()).await] {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["cache-control"], expected, "{key}");
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_writes_of_one_key_one_is_applied() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    let put = async |header: &'static str, value: String, body: String| {
        let mut action = client.bucket.put_object(Some(&client.credentials), "record");
        action.headers_mut().insert(header, value.clone());
        let url = action.sign(SIGNED_FOR);
        site.http.put(url).header(header, value).body(body).send().await.expect("an answer")
    };
    let race = async |header: &'static str, value: &str, round: usize| {
        let puts = (0..8).map(|number| put(header, value.to_owned(), format!("{round}.{number}")));
        let answers = futures::future::join_all(puts).await;
        let lost = answers.iter().filter(|answer| answer.status() == StatusCode::PRECONDITION_FAILED);
        assert_eq!(lost.count(), 7, "{answers:?}");
        let won = answers.iter().find(|answer| answer.status() == StatusCode::OK).expect("one is applied");
        won.headers()["etag"].to_str().expect("text").to_owned()
    };
    let missing = put("if-match", "\"0123\"".to_owned(), "x".to_owned()).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND, "there is nothing to match");
    let mut etag = race("if-none-match", "*", 0).await;
    for round in 1..5 {
        let next = race("if-match", &etag, round).await;
        assert_ne!(next, etag);
        etag = next;
        assert_eq!(client.get("record").await.headers()["etag"], etag.as_str());
    }
    site.stop().await;
}
