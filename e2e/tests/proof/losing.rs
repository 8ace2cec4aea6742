//! A takeover by a site that was told of versions and never got their bytes: what was whole before is served, the ledger says what
//! was lost, and it is back with the site that has it.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use diptych_core::drill::Samples;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::{BUCKET, site_of};
use diptych_e2e::program::in_folder;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
const PROMOTE: [&str; 3] = ["api", "v1", "promote"];

async fn reads(installation: &Installation, key: &str, wanted: Option<&str>) -> Result<()> {
    until(&format!("{key} reads {wanted:?} in west"), PATIENCE, || async {
        let rest = installation.rest("west")?;
        let read = rest.text(&["api", "v1", "files", key]).await;
        Ok(match (&read, wanted) {
            (Ok(text), Some(wanted)) if text == wanted => Ok(()),
            (Err(error), None) if error.to_string().starts_with("404") => Ok(()),
            _ => Err(format!("{read:?}")),
        })
    })
    .await
}

/// Waits until a command says so: what is asked by the public name may meet the edge before it has followed.
async fn says(installation: &Installation, words: &[&str], holds: impl Fn(&str) -> bool) -> Result<String> {
    until(&words.join(" "), PATIENCE, || async {
        let said = installation.command(words).await?;
        Ok(if holds(&said) { Ok(said) } else { Err(said) })
    })
    .await
}

/// Whatever it would lose.
async fn west_takes_over(installation: &Installation) -> Result<()> {
    until("west is active", PATIENCE, || async {
        let status = installation.status("west").await?;
        if status.lease.waiting.as_deref() == Some("Exposure") {
            let named = status.lease.waiting_for.unwrap_or_default();
            if !named.contains("files/kept") {
                return Ok(Err(format!("nobody is told what would be lost: {named}")));
            }
            let accepted = [("accept_loss", "true")];
            let _: Value = installation.rest("west")?.post_query(&PROMOTE, &accepted).await?;
        }
        Ok(if status.role == "active" { Ok(()) } else { Err(status.role) })
    })
    .await
}

#[tokio::test]
async fn what_never_crossed_gives_way_at_a_takeover_and_is_back_with_the_site_that_has_it() -> Result<()> {
    in_folder("losing", async |folder| {
        let installation = Installation::start(&folder.join("data"), &["--sites", "2"]).await?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        s3.put("kept", Bytes::from_static(b"the first")).await?;
        until("west reads it from its own rows", PATIENCE, || async {
            let what = [("bucket", BUCKET), ("id", "kept")];
            let read: Samples =
                installation.rest("west")?.post_query(&["api", "v1", "verify"], &what).await?;
            Ok(if (read.objects, read.exposed, read.failed.len()) == (1, 0, 0) {
                Ok(())
            } else {
                Err(format!("{read:?}"))
            })
        })
        .await?;

        // Nothing crosses any more, and west is told of what it lacks.
        let endpoints = installation.endpoints()?;
        let agents = site_of(&endpoints, "west")?.agents.clone();
        for agent in &agents {
            signal(agent.pid, "KILL")?;
        }
        s3.put("kept", Bytes::from_static(b"the second")).await?;
        s3.put("new", Bytes::from_static(b"only in east")).await?;
        let both = |said: &str| said.contains("kept") && said.contains("new");
        says(&installation, &["exposed", "--site", "west"], both).await?;
        signal(site_of(&endpoints, "east")?.pid, "KILL")?;
        for agent in &agents {
            installation.command(&["dev", "revive", &agent.name]).await?;
        }

        west_takes_over(&installation).await?;
        reads(&installation, "kept", Some("the first")).await?;
        reads(&installation, "new", None).await?;
        says(&installation, &["ledger", "--open"], |open| open.matches("Lost").count() == 2).await?;
        let lost = |kept: &str| kept.matches("lost until the other site returns").count() == 2;
        says(&installation, &["conflicts"], lost).await?;

        installation.command(&["dev", "revive", "east"]).await?;
        reads(&installation, "kept", Some("the second")).await?;
        reads(&installation, "new", Some("only in east")).await?;
        let all = says(&installation, &["ledger"], |ledger| ledger.matches("Restored").count() == 2).await?;
        says(&installation, &["ledger", "--open"], |open| !open.contains("Lost")).await?;
        says(&installation, &["conflicts"], |kept| !kept.contains("kept") && !kept.contains("new")).await?;
        println!("two versions gave way and are back:\n{all}");
        installation.stop().await
    })
    .await
}
