//! The redb engine: the suite, and what is its own: its file, kills, disks that fail.

use std::io::{BufRead, BufReader, Error, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych_catalog::{Catalog, CatalogError, Committed, FeedStart, RedbCatalog, RedbOptions};
use diptych_core::keys::{self, Key};
use futures::StreamExt;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::conformance::{Bench, conformance};
use crate::{east, put};

fn open(path: &Path) -> Result<RedbCatalog, CatalogError> {
    RedbCatalog::open(path, east(), &RedbOptions::default())
}

#[expect(clippy::unused_async, reason = "other engines wait for their servers")]
async fn start() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = open(&folder.path().join("catalog")).expect("it opens");
    Bench { handles: vec![Arc::new(catalog) as Arc<dyn Catalog>], _keep: Box::new(folder) }
}

conformance!(start);

async fn committed(catalog: &RedbCatalog, name: &str, value: &str) -> Committed {
    catalog.commit(put(name, value)).await.unwrap()
}

fn reason(error: &CatalogError) -> String {
    error.to_string()
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let first = open(&path).unwrap();
    let before = committed(&first, "a", "1").await.position;
    let after = committed(&first, "b", "1").await.position;
    drop(first);
    let second = open(&path).unwrap();
    assert_eq!(second.position().await.unwrap(), after);
    assert!(second.view().await.unwrap().get(&keys::bucket("a")).unwrap().is_some());
    let FeedStart::From(mut feed) = second.feed(before).await.unwrap() else {
        panic!("it was not compacted")
    };
    assert_eq!(feed.next().await.unwrap().unwrap().position, after);
}

#[tokio::test]
async fn a_feed_ends_with_an_error_when_its_catalog_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = open(&path).unwrap();
    let position = catalog.position().await.unwrap();
    let FeedStart::From(mut feed) = catalog.feed(position).await.unwrap() else {
        panic!("it was not compacted")
    };
    let view = catalog.view().await.unwrap();
    drop(catalog);
    assert!(matches!(feed.next().await, Some(Err(CatalogError::Unavailable { .. }))));
    drop(open(&path).expect("neither feed nor view keeps it locked"));
    drop(view);
}

#[tokio::test]
async fn a_second_opening_is_told_that_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let _first = open(&path).unwrap();
    let refused = open(&path).unwrap_err();
    assert!(reason(&refused).contains("is open in another process"), "{refused}");
}

#[tokio::test]
async fn the_catalog_of_another_site_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    drop(open(&path).unwrap());
    let refused = RedbCatalog::open(&path, "west".parse().unwrap(), &RedbOptions::default()).unwrap_err();
    assert!(reason(&refused).contains("site east and engine redb, not of west"), "{refused}");
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let text = "a letter to a friend\n".repeat(1000);
    std::fs::write(&path, &text).unwrap();
    let refused = open(&path).unwrap_err();
    assert!(matches!(refused, CatalogError::Corrupt { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = open(&path).unwrap();
    for number in 0..200 {
        committed(&catalog, &number.to_string(), &"x".repeat(500)).await;
    }
    drop(catalog);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let refused = open(&path).unwrap_err();
    assert!(matches!(refused, CatalogError::Corrupt { .. }), "{refused}");
}

/// Disk whose syncs fail once it is told so.
#[derive(Debug)]
struct FailingDisk {
    inner: InMemoryBackend,
    failing: Arc<AtomicBool>,
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        if self.failing.load(Ordering::SeqCst) {
            Err(Error::other("the disk is gone"))
        } else {
            self.inner.sync_data()
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.inner.write(offset, data)
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_served() {
    let failing = Arc::new(AtomicBool::new(false));
    let disk = FailingDisk { inner: InMemoryBackend::new(), failing: Arc::clone(&failing) };
    let catalog = RedbCatalog::open_backend(disk, east(), &RedbOptions::default()).unwrap();
    let position = committed(&catalog, "before", "1").await.position;
    let FeedStart::From(mut feed) = catalog.feed(position).await.unwrap() else {
        panic!("it was not compacted")
    };

    failing.store(true, Ordering::SeqCst);
    let unclear = catalog.commit(put("during", "1")).await.unwrap_err();
    assert!(matches!(unclear, CatalogError::Unclear { .. }), "{unclear}");
    assert!(reason(&unclear).contains("the disk is gone"), "{unclear}");

    failing.store(false, Ordering::SeqCst);
    let refused = catalog.commit(put("after", "1")).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Unavailable { .. }), "{refused}");
    assert!(matches!(catalog.view().await.err(), Some(CatalogError::Unavailable { .. })));
    assert!(matches!(catalog.position().await, Err(CatalogError::Unavailable { .. })));
    assert!(matches!(feed.next().await, Some(Err(CatalogError::Unavailable { .. }))));
}

const CHILD_CATALOG: &str = "DIPTYCH_TEST_CHILD_CATALOG";

/// Only does something as the child of the test below.
#[test]
fn child_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_CATALOG) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let catalog = open(Path::new(&path)).unwrap();
        let begun = catalog.position().await.unwrap().revision;
        for number in begun.. {
            let writes = (0..3).map(|part| {
                let name = format!("{number:08}-{part}");
                catalog.commit(put(&name, &"x".repeat(300)))
            });
            for answer in futures::future::join_all(writes).await {
                answer.unwrap();
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "committed {number:08}").unwrap();
            out.flush().unwrap();
        }
    });
}

#[tokio::test]
async fn a_killed_process_leaves_all_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "redb::child_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD_CATALOG, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let numbers = lines.filter_map(|line| line.strip_prefix("committed ").map(str::to_owned));
        acknowledged.extend(numbers.take(20 + round * 15));
        child.kill().unwrap();
        child.wait().unwrap();

        let catalog = open(&path).unwrap();
        let view = catalog.view().await.unwrap();
        for number in &acknowledged {
            for part in 0..3 {
                let key: Key = keys::bucket(&format!("{number}-{part}"));
                assert!(
                    view.get(&key).unwrap().is_some(),
                    "{key:?} was acknowledged in round {round} or before"
                );
            }
        }
    }
    assert_eq!(acknowledged.len(), 20 + 35 + 50);
}
