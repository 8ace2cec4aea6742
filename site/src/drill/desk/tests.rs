use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use diptych_catalog::{Around, Batch, CatalogError, Committed};
use diptych_core::drill::DrillMode;
use diptych_core::ids::SiteName;

use super::*;
use crate::keeper::KeeperState;
use crate::testing::{CLUSTER, credentials, west};

fn parts() -> (DrillParts, tempfile::TempDir) {
    let (context, folder) = west();
    let keeper = KeeperHandle::new(
        mpsc::unbounded_channel().0,
        watch::Sender::new(KeeperState::at_start()).subscribe(),
    );
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let east: SiteName = "east".parse().expect("a name");
    let peer = PeerClient::new(&[nowhere], &east, CLUSTER, &credentials(), context.cut.clone());
    let rest = RestEndpoint { url: "http://127.0.0.1:9".to_owned(), connect_to: None, authority: None };
    let parts = DrillParts {
        context: Arc::new(context),
        keeper,
        peer: peer.expect("a client"),
        public: rest.clone(),
        own: rest,
        token: "token".to_owned(),
    };
    (parts, folder)
}

#[tokio::test]
async fn an_abort_in_the_first_moment_of_a_drill_ends_it() {
    let (parts, _folder) = parts();
    let work = DrillDesk::open(parts.context.site.clone());
    let desk = work.desk();
    let mut report = desk.report();
    let over = async {
        while desk.begin("d1", DrillSpec::of(DrillMode::Isolated)) == Err(Refused::Beginning) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(desk.abort("a person ended it"));
        let over = report.wait_for(|report| report.as_ref().is_some_and(Report::is_over)).await;
        over.expect("the desk is there").clone().expect("a report")
    };
    let ended = tokio::select! {
        () = work.run(parts) => unreachable!("a desk works for ever"),
        ended = tokio::time::timeout(Duration::from_secs(10), over) => ended.expect("the abort was swallowed"),
    };
    assert_eq!((ended.verdict, ended.reason.as_str()), (Some(Verdict::Aborted), "a person ended it"));
}

/// Refuses so many commits.
struct Refusing {
    inner: Arc<dyn Catalog>,
    left: AtomicUsize,
}

#[async_trait]
impl Around for Refusing {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(CatalogError::Unavailable { reason: "the test says so".to_owned() });
        }
        self.inner.commit(batch).await
    }
}

#[tokio::test]
async fn the_end_of_a_drill_is_written_though_the_catalog_refuses_it_at_first() {
    let (parts, _folder) = parts();
    let (inner, site) = (Arc::clone(&parts.context.catalog), parts.context.site.clone());
    let spec = DrillSpec::of(DrillMode::Switchover);
    let begun = Drill::new("d1".to_owned(), spec, site.clone(), boot_time(), now_ms());
    let report = Report {
        verdict: Some(Verdict::Passed),
        phase: Phase::Ended,
        ended_ms: now_ms(),
        ..begun.report().clone()
    };
    let newest = watch::Sender::new(Some(report));
    let catalog = Refusing { inner: Arc::clone(&inner), left: AtomicUsize::new(2) };
    let kept = keep(&catalog, (DrillLog::default(), None), newest.subscribe());
    let written = async {
        loop {
            let log = log::log_of(inner.view().await.expect("a view").as_ref(), &site).expect("it reads");
            if log.passed.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = kept => unreachable!("it is kept for ever"),
        written = tokio::time::timeout(Duration::from_secs(10), written) => written.expect("it was never written"),
    }
}

#[tokio::test]
async fn a_drill_that_an_earlier_keeper_left_is_written_down_as_over() {
    let (parts, _folder) = parts();
    let site = parts.context.site.clone();
    let spec = DrillSpec::of(DrillMode::Switchover);
    let left = Drill::new("d1".to_owned(), spec, site.clone(), boot_time(), now_ms());
    let log = DrillLog { last: Some(left.report().clone()), ..DrillLog::default() };
    log::write(parts.context.catalog.as_ref(), &log).await.expect("it is written");
    let work = DrillDesk::open(site.clone());
    let catalog = Arc::clone(&parts.context.catalog);
    let over = async {
        loop {
            let log = log::log_of(catalog.view().await.expect("a view").as_ref(), &site).expect("it reads");
            if log.last.is_some_and(|last| last.verdict == Some(Verdict::Aborted)) {
                return log.switched_ms;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let switched_ms = tokio::select! {
        () = work.run(parts) => unreachable!("a desk works for ever"),
        over = tokio::time::timeout(Duration::from_secs(10), over) => over.expect("it stays under way"),
    };
    assert!(switched_ms > 0, "the next one waits for its cool-down");
}
