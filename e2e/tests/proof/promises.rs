//! With `BothSites`: what a bucket promises, while the other site is away and when it is back.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::{BUCKET, site_of};
use diptych_e2e::program::in_folder;

const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a command says so: while the lease is held by the witness's vote a request may meet a moment without it.
async fn says(installation: &Installation, words: &[&str], holds: impl Fn(&str) -> bool) -> Result<String> {
    until(&words.join(" "), PATIENCE, || async {
        let said = installation.command(words).await?;
        Ok(if holds(&said) { Ok(said) } else { Err(said) })
    })
    .await
}

async fn receipt(installation: &Installation, key: &str) -> Result<String> {
    let s3 = installation.s3(PATIENCE)?;
    Ok(s3.put(key, Bytes::from_static(b"bytes")).await?.unwrap_or_default())
}

#[tokio::test]
async fn a_bucket_that_downgrades_takes_writes_while_the_other_site_is_away_and_says_so_until_it_has_them()
-> Result<()> {
    in_folder("promises", async |folder| {
        let both = ["--sites", "2", "--acknowledge", "BothSites"];
        let installation = Installation::start(&folder.join("data"), &both).await?;
        installation.s3(PATIENCE)?.create_bucket().await?;
        let whole = receipt(&installation, "before").await?;
        ensure!(whole.ends_with("exposed=no") && !whole.contains("=0/"), "{whole}");
        let set = ["bucket", BUCKET, "--acknowledge-timeout", "300ms", "--on-timeout", "downgrade"];
        let shown = installation.command(&set).await?;
        ensure!(shown.contains("300ms") && shown.contains("downgrade"), "{shown}");

        signal(site_of(&installation.endpoints()?, "west")?.pid, "KILL")?;
        let downgraded = receipt(&installation, "alone").await?;
        ensure!(downgraded.ends_with("exposed=yes; downgraded=yes"), "{downgraded}");
        ensure!(downgraded.contains("west=0/"), "{downgraded}");
        let read = installation.s3(PATIENCE)?.get("alone").await?.bytes().await?;
        ensure!(read == "bytes", "what was acknowledged is read");
        let open = says(&installation, &["ledger", "--open"], |open| open.contains("Downgraded")).await?;

        installation.command(&["dev", "revive", "west"]).await?;
        let all = says(&installation, &["ledger"], |all| all.contains("Confirmed")).await?;
        until("writes are confirmed again", PATIENCE, || async {
            let receipt = receipt(&installation, "after").await?;
            Ok(if receipt.ends_with("exposed=no") { Ok(()) } else { Err(receipt) })
        })
        .await?;
        println!("{whole}\n{downgraded}\n{open}\n{all}");
        installation.stop().await
    })
    .await
}
