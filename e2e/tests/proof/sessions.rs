//! A session of REST with two sites: begun in one, good in both, through a takeover.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::site_of;
use diptych_e2e::program::in_folder;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// What `/api/v1/sessions` hands out.
struct Tokens {
    session: String,
    refresh: String,
}

impl Tokens {
    fn of(document: &Value) -> Result<Self> {
        let text = |name: &str| document[name].as_str().map(str::to_owned).context(document.to_string());
        Ok(Self { session: text("token")?, refresh: text("refresh_token")? })
    }
}

/// Status of a list of files at a site's own address.
async fn list(installation: &Installation, site: &str, token: &str) -> Result<u16> {
    let url = format!("{}/api/v1/files", site_of(&installation.endpoints()?, site)?.rest);
    let http = diptych::client::http_client(&installation.data_dir)?;
    Ok(http.get(url).bearer_auth(token).send().await?.status().as_u16())
}

async fn begin(installation: &Installation, site: &str) -> Result<Tokens> {
    Tokens::of(&installation.rest(site)?.post(&["api", "v1", "sessions"]).await?)
}

async fn refresh(installation: &Installation, site: &str, token: &str) -> Result<(u16, Value)> {
    let url = format!("{}/api/v1/sessions/refresh", site_of(&installation.endpoints()?, site)?.rest);
    let http = diptych::client::http_client(&installation.data_dir)?;
    let answer = http.post(url).json(&json!({"refresh_token": token})).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

async fn answers(installation: &Installation, site: &str, token: &str, wanted: u16) -> Result<()> {
    until(&format!("{site} answers {wanted}"), PATIENCE, || async {
        let status = list(installation, site, token).await?;
        Ok(if status == wanted { Ok(()) } else { Err(status.to_string()) })
    })
    .await
}

#[tokio::test]
async fn a_session_is_good_in_both_sites_and_outlives_the_one_that_began_it() -> Result<()> {
    in_folder("sessions", async |folder| {
        let installation = Installation::start(&folder.join("data"), &["--sites", "2"]).await?;
        // West forwards what changes a session to east, the active site, and reads from its own catalog.
        let first = begin(&installation, "west").await?;
        ensure!(list(&installation, "east", &first.session).await? == 200, "east began it");
        answers(&installation, "west", &first.session, 200).await?;
        let (status, document) = refresh(&installation, "west", &first.refresh).await?;
        ensure!(status == 200, "{status}: {document}");
        let second = Tokens::of(&document)?;
        answers(&installation, "west", &second.session, 200).await?;

        let (status, document) = refresh(&installation, "west", &first.refresh).await?;
        ensure!(status == 401, "a refresh token is good once: {status}: {document}");
        answers(&installation, "east", &second.session, 401).await?;
        answers(&installation, "west", &second.session, 401).await?;

        let last = begin(&installation, "east").await?;
        answers(&installation, "west", &last.session, 200).await?;
        let pid = site_of(&installation.endpoints()?, "east")?.pid;
        signal(pid, "KILL")?;
        until("west is active", PATIENCE, || async {
            let status = installation.status("west").await?;
            Ok(if status.role == "active" { Ok(()) } else { Err(status.role) })
        })
        .await?;
        ensure!(list(&installation, "west", &last.session).await? == 200, "west goes on with it");
        let (status, document) = refresh(&installation, "west", &last.refresh).await?;
        ensure!(status == 200, "west refreshes it: {status}: {document}");
        installation.stop().await
    })
    .await
}
