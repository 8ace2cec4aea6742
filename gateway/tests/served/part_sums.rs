//! Checksums of uploads in parts.

use crate::common::{TestSite, noise};
use crate::multipart::{Client, KEY, MIB, SIGNED_FOR, element, etag, header};
use bytes::Bytes;
use reqwest::Method;
use rusty_s3::S3Action;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_object_sum_of_parts_is_that_of_one_put() {
    let site = TestSite::start().await;
    let client = Client::new(&site).await;
    let plain = noise(5 * MIB + 1234, 1);
    for (algorithm, sum) in [("CRC64NVME", "x-amz-checksum-crc64nvme"), ("CRC32C", "x-amz-checksum-crc32c")] {
        let url = client.bucket.put_object(Some(&client.credentials), KEY).sign(SIGNED_FOR);
        let asked = [("x-amz-sdk-checksum-algorithm", algorithm)];
        let put = client.send(Method::PUT, url, &asked, plain.clone().into()).await;
        let wanted = header(&put, sum).expect("it was computed");
        assert_eq!(client.header("x-amz-checksum-type").await.as_deref(), Some("FULL_OBJECT"));

        let full = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", "FULL_OBJECT")];
        let upload = client.begin(&full).await.expect("an upload");
        let mut parts = Vec::new();
        for (number, body) in (1..).zip(plain.chunks(5 * MIB)) {
            // The second comes without a word of checksums, and is summed all the same.
            let headers = if number == 1 { &asked[..] } else { &[] };
            let part = client.part(&upload, number, headers, body.to_vec()).await;
            assert!(header(&part, sum).is_some_and(|sum| sum != wanted));
            parts.push((etag(&part), String::new()));
        }
        let url = client.bucket.list_parts(Some(&client.credentials), KEY, &upload).sign(SIGNED_FOR);
        let listed = client.send(Method::GET, url, &[], Bytes::new()).await.text().await.expect("text");
        assert_eq!(element(&listed, "ChecksumAlgorithm").as_deref(), Some(algorithm), "{listed}");
        assert_eq!(listed.matches(&format!("<Checksum{algorithm}>")).count(), 2, "{listed}");

        let other = [("x-amz-checksum-type", "COMPOSITE")];
        assert_eq!(client.complete(&upload, &other, &parts).await, Err("BadDigest".to_owned()));
        let wrong: [(&'static str, &str); 1] = [(sum, "AAAAAAAAAAA=")];
        assert_eq!(client.complete(&upload, &wrong, &parts).await, Err("BadDigest".to_owned()));
        let right: [(&'static str, &str); 1] = [(sum, &wanted)];
        let done = client.complete(&upload, &right, &parts).await.expect("it is complete");
        assert_eq!(element(&done, &format!("Checksum{algorithm}")), Some(wanted.clone()), "{done}");
        assert_eq!(element(&done, "ChecksumType").as_deref(), Some("FULL_OBJECT"));
        assert_eq!(client.header(sum).await, Some(wanted));
        assert_eq!(client.header("x-amz-checksum-type").await.as_deref(), Some("FULL_OBJECT"));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_sum_rests_on_those_that_the_completion_names() {
    const SUM: &str = "x-amz-checksum-sha256";
    let site = TestSite::start().await;
    let client = Client::new(&site).await;
    for refused in [
        &[("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "FULL_OBJECT")][..],
        &[("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-checksum-type", "COMPOSITE")],
        &[("x-amz-checksum-algorithm", "MD4")],
        &[("x-amz-checksum-type", "COMPOSITE")],
    ] {
        assert_eq!(client.begin(refused).await, Err("InvalidRequest".to_owned()), "{refused:?}");
    }
    let upload = client.begin(&[("x-amz-checksum-algorithm", "SHA256")]).await.expect("an upload");
    let other = client.part(&upload, 1, &[("x-amz-sdk-checksum-algorithm", "CRC32")], noise(9, 1)).await;
    assert_eq!(element(&other.text().await.expect("text"), "Code").as_deref(), Some("InvalidRequest"));
    let wrong = client.part(&upload, 1, &[(SUM, &format!("{}=", "A".repeat(43)))], noise(9, 1)).await;
    assert_eq!(element(&wrong.text().await.expect("text"), "Code").as_deref(), Some("BadDigest"));

    let mut parts = Vec::new();
    for (number, size) in [(1, 5 * MIB), (2, 77)] {
        let part = client.part(&upload, number, &[], noise(size, u64::from(number))).await;
        let sum = header(&part, SUM).expect("it is summed");
        parts.push((etag(&part), format!("<ChecksumSHA256>{sum}</ChecksumSHA256>")));
    }
    let lacking: Vec<_> = parts.iter().map(|(etag, _)| (etag.clone(), String::new())).collect();
    assert_eq!(client.complete(&upload, &[], &lacking).await, Err("InvalidRequest".to_owned()));
    let swapped = [(parts[0].0.clone(), parts[1].1.clone()), parts[1].clone()];
    assert_eq!(client.complete(&upload, &[], &swapped).await, Err("InvalidPart".to_owned()));
    assert_eq!(site.count(b"h/").await, 0);

    let done = client.complete(&upload, &[], &parts).await.expect("it is complete");
    let sum = element(&done, "ChecksumSHA256").expect("a sum");
    assert!(sum.ends_with("-2"), "{done}");
    assert_eq!(element(&done, "ChecksumType").as_deref(), Some("COMPOSITE"));
    assert_eq!(client.header(SUM).await, Some(sum));
    assert_eq!(client.header("x-amz-checksum-type").await.as_deref(), Some("COMPOSITE"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_an_upload_without_checksum_are_compared_with_what_they_came_with() {
    let site = TestSite::start().await;
    let client = Client::new(&site).await;
    let upload = client.begin(&[]).await.expect("an upload");
    let part = client.part(&upload, 1, &[("x-amz-sdk-checksum-algorithm", "CRC32")], noise(77, 1)).await;
    let sum = header(&part, "x-amz-checksum-crc32").expect("it was asked for");
    let named = |sum: &str| [(etag(&part), format!("<ChecksumCRC32>{sum}</ChecksumCRC32>"))];
    assert_eq!(client.complete(&upload, &[], &named("AAAAAA==")).await, Err("InvalidPart".to_owned()));
    let whole = [("x-amz-checksum-crc32", sum.as_str())];
    assert_eq!(client.complete(&upload, &whole, &named(&sum)).await, Err("InvalidRequest".to_owned()));
    client.complete(&upload, &[], &named(&sum)).await.expect("it is complete");
    assert_eq!(client.header("x-amz-checksum-crc32").await, None);
    site.stop().await;
}
