//! Completions of uploads, and what others do meanwhile.

use std::sync::Arc;

use crate::common::{TestSite, noise};
use crate::multipart::{Client, KEY, MIB, SIGNED_FOR, etag};
use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Around, Batch, Catalog, CatalogError, Committed, Write};
use diptych_core::ids::KeeperNumber;
use diptych_core::keys;
use diptych_core::records::{Record, Upload, UploadState};
use diptych_gateway::Limits;
use diptych_gateway::authority::SingleSite;
use reqwest::{Method, StatusCode};
use rusty_s3::S3Action;
use tokio::sync::Semaphore;

/// Holds up the commits that write an upload in some state.
struct Slow {
    inner: Arc<dyn Catalog>,
    /// Which.
    state: fn(UploadState) -> bool,
    /// Gets a permit when one is held up.
    reached: Arc<Semaphore>,
    /// Takes one for each that goes on.
    go_on: Arc<Semaphore>,
}

impl Slow {
    fn concerns(&self, batch: &Batch) -> bool {
        batch.changes.iter().flat_map(|change| &change.writes).any(|write| match write {
            Write::Put(key, value) => {
                matches!(keys::upload_of(key), Some((_, _, None)))
                    && Upload::decode(value).is_ok_and(|upload| (self.state)(upload.state))
            }
            Write::Delete(_) => false,
        })
    }
}

/// A site whose commits of uploads in some state wait: one permit comes for each that does, and one lets it go on.
async fn slow_site(state: fn(UploadState) -> bool) -> (TestSite, Arc<Semaphore>, Arc<Semaphore>) {
    let (reached, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (given_reached, given_go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
    let wrap = move |inner| {
        Arc::new(Slow { inner, state, reached: given_reached, go_on: given_go_on }) as Arc<dyn Catalog>
    };
    let single = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    (TestSite::start_on(Limits::default(), single, wrap).await, reached, go_on)
}

#[async_trait]
impl Around for Slow {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        if self.concerns(&batch) {
            self.reached.add_permits(1);
            self.go_on.acquire().await.expect("open").forget();
        }
        self.inner.commit(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_replaced_while_its_upload_completes_is_not_named_by_the_old_bytes() {
    let (site, reached, go_on) = slow_site(|state| matches!(state, UploadState::Claimed(_))).await;
    let client = Client::new(&site).await;
    let plain = noise(MIB, 1);
    let upload = client.begin(&[]).await.expect("an upload");
    let part = client.part(&upload, 1, &[], plain.clone()).await;
    let parts = [(etag(&part), String::new())];

    // The first attempt of the part was stalled, and ends now: the same bytes in another blob.
    let late = async {
        reached.acquire().await.expect("open").forget();
        let again = client.part(&upload, 1, &[], plain.clone()).await;
        assert_eq!(again.status(), StatusCode::OK);
        go_on.add_permits(1);
    };
    let (completed, ()) = tokio::join!(client.complete(&upload, &[], &parts), late);
    assert_eq!(completed, Err("SlowDown".to_owned()), "the bytes that it looked at are marked as dead");
    assert_eq!(site.count(b"h/").await, 0);
    assert_eq!(site.count(b"g/").await, 1);

    go_on.add_permits(1);
    client.complete(&upload, &[], &parts).await.expect("it is complete");
    let url = client.bucket.get_object(Some(&client.credentials), KEY).sign(SIGNED_FOR);
    let read = client.send(Method::GET, url, &[], Bytes::new()).await;
    assert!(read.bytes().await.expect("a body") == plain);
    assert_eq!(site.count(b"g/").await, 1, "nothing that the object names is marked as dead");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_while_another_completes_it_becomes_no_object_of_dead_bytes() {
    let (site, reached, go_on) = slow_site(|state| state == UploadState::Completed).await;
    let client = Client::new(&site).await;
    let upload = client.begin(&[]).await.expect("an upload");
    let part = client.part(&upload, 1, &[], noise(MIB, 1)).await;
    let parts = [(etag(&part), String::new())];
    let abort =
        client.bucket.abort_multipart_upload(Some(&client.credentials), KEY, &upload).sign(SIGNED_FOR);

    let late = async {
        reached.acquire().await.expect("open").forget();
        let aborted = client.send(Method::DELETE, abort, &[], Bytes::new()).await;
        assert_eq!(aborted.status(), StatusCode::NO_CONTENT);
        go_on.add_permits(1);
    };
    let (completed, ()) = tokio::join!(client.complete(&upload, &[], &parts), late);
    assert_eq!(completed, Err("SlowDown".to_owned()), "its claim is gone");
    assert_eq!((site.count(b"h/").await, site.count(b"u/").await), (0, 0));
    assert_eq!(site.count(b"g/").await, 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_of_another_size_than_it_says_stores_nothing() {
    let site = TestSite::start().await;
    let client = Client::new(&site).await;
    let upload = client.begin(&[]).await.expect("an upload");
    let part = client.part(&upload, 1, &[], noise(77, 1)).await;
    let parts = [(etag(&part), String::new())];
    let wrong = [("x-amz-mp-object-size", "78")];
    assert_eq!(client.complete(&upload, &wrong, &parts).await, Err("InvalidRequest".to_owned()));
    assert_eq!(site.count(b"h/").await, 0);
    let right = [("x-amz-mp-object-size", "77")];
    client.complete(&upload, &right, &parts).await.expect("it is complete");
    site.stop().await;
}
