//! What a promotion would lose, what one lost, and what was kept beside the heads: `exposed`, `ledger`, `conflicts`, of a
//! `diptych dev` and of an installation on Kubernetes.

use anyhow::{Context, Result};
use bytes::Bytes;
use comfy_table::{Table, presets};
use diptych_gateway::objects::{ConflictsPage, LedgerLine, LedgerPage};
use diptych_site::lost::lacking::LackingPage;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Target, human, say};
use crate::client::rest::RestClient;

/// Entries that are asked for at once.
const PAGE: &str = "1000";

/// A way to the REST interface of one site.
pub trait Rest {
    /// The body of a good answer.
    fn ask(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> impl Future<Output = Result<Bytes>>;

    /// Has what the body names set; the body of a good answer.
    fn patch(&self, segments: &[&str], body: &impl Serialize) -> impl Future<Output = Result<Bytes>>;
}

impl Rest for RestClient {
    async fn ask(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> Result<Bytes> {
        self.answer(method, segments, query).await
    }

    async fn patch(&self, segments: &[&str], body: &impl Serialize) -> Result<Bytes> {
        self.patch_json(segments, body).await
    }
}

/// List the objects of which the passive site was told and whose bytes it lacks: a promotion would lose them
#[derive(Debug, clap::Args)]
pub struct Exposed {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Say what was lost, kept aside or not done, and how it ended
#[derive(Debug, clap::Args)]
pub struct Ledger {
    /// Only what is about this bucket
    #[arg(long)]
    bucket: Option<String>,
    /// Only what has not been settled
    #[arg(long)]
    open: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// List, restore and discard versions that a return or a takeover kept beside the head of their key
#[derive(Debug, clap::Args)]
pub struct Conflicts {
    #[command(subcommand)]
    action: Option<Action>,
    /// List those of this bucket only
    #[arg(long)]
    bucket: Option<String>,
    /// The list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List them
    List,
    /// Make a version head; what is head now becomes an older version
    Restore(Which),
    /// Give a version up; its bytes are freed
    Discard(Which),
}

/// A conflict version.
#[derive(Debug, clap::Args)]
struct Which {
    /// The object's key
    key: String,
    /// The version, as the list names it
    version: String,
    /// Its bucket
    #[arg(long, default_value = "files")]
    bucket: String,
}

impl Exposed {
    /// Asks one site.
    pub async fn run(&self, rest: &impl Rest) -> Result<()> {
        let mut objects = Vec::new();
        let mut after = None;
        loop {
            let page: LackingPage = page(rest, "exposed", after.as_deref(), None).await?;
            objects.extend(page.objects);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.json {
            return json(&objects);
        }
        if objects.is_empty() {
            say("this site lacks nothing that it was told of");
            return Ok(());
        }
        let bytes: u64 = objects.iter().map(|object| object.lacking).sum();
        say(format_args!("{} objects, {} of them are not here", objects.len(), human(bytes)));
        let mut table = table(["BUCKET", "KEY", "VERSION", "SIZE", "LACKING", "TOLD"]);
        for object in objects {
            table.add_row([
                object.bucket,
                object.key,
                object.version,
                human(object.size),
                human(object.lacking),
                instant(object.since_ms),
            ]);
        }
        say(table);
        Ok(())
    }
}

impl Ledger {
    /// Asks one site.
    pub async fn run(&self, rest: &impl Rest) -> Result<()> {
        let mut entries: Vec<LedgerLine> = Vec::new();
        let mut after = None;
        loop {
            let page: LedgerPage = page(rest, "ledger", after.as_deref(), self.bucket.as_deref()).await?;
            entries.extend(page.entries.into_iter().filter(|entry| !self.open || entry.settled.is_none()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.json {
            return json(&entries);
        }
        let mut table = table(["WHEN", "BUCKET", "KEY", "VERSION", "WHAT", "SETTLED"]);
        for entry in entries {
            let accepted = entry.accepted_ms.map(|at| format!(" (accepted {})", instant(at)));
            table.add_row([
                instant(entry.at_ms),
                entry.bucket,
                entry.id,
                entry.version.unwrap_or_default(),
                format!("{}{}", entry.kind, accepted.unwrap_or_default()),
                entry.settled.unwrap_or_else(|| "no".to_owned()),
            ]);
        }
        say(table);
        Ok(())
    }
}

impl Conflicts {
    /// Asks one site; restoring and discarding is the active one's.
    pub async fn run(&self, rest: &impl Rest) -> Result<()> {
        match &self.action {
            None | Some(Action::List) => self.list(rest).await,
            Some(Action::Restore(which)) => {
                which.settle(rest, Method::POST).await?;
                say(format_args!("{} of {}/{} is head", which.version, which.bucket, which.key));
                Ok(())
            }
            Some(Action::Discard(which)) => {
                which.settle(rest, Method::DELETE).await?;
                say(format_args!("{} of {}/{} is given up", which.version, which.bucket, which.key));
                Ok(())
            }
        }
    }

    async fn list(&self, rest: &impl Rest) -> Result<()> {
        let mut conflicts = Vec::new();
        let mut after = None;
        loop {
            let page: ConflictsPage =
                page(rest, "conflicts", after.as_deref(), self.bucket.as_deref()).await?;
            conflicts.extend(page.conflicts);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.json {
            return json(&conflicts);
        }
        let mut table = table(["BUCKET", "KEY", "VERSION", "SIZE", "WRITTEN", "BYTES"]);
        for conflict in conflicts {
            let bytes = match (conflict.whole, conflict.lost) {
                (true, _) => "here",
                (false, true) => "lost until the other site returns",
                (false, false) => "on their way",
            };
            table.add_row([
                conflict.bucket,
                conflict.id,
                conflict.version,
                human(conflict.size),
                instant(conflict.modified_ms),
                bytes.to_owned(),
            ]);
        }
        say(table);
        Ok(())
    }
}

impl Which {
    async fn settle(&self, rest: &impl Rest, method: Method) -> Result<()> {
        let query = [("bucket", self.bucket.as_str()), ("id", self.key.as_str())];
        rest.ask(method, &["api", "v1", "conflicts", &self.version], &query).await?;
        Ok(())
    }
}

async fn page<T: DeserializeOwned>(
    rest: &impl Rest,
    list: &str,
    after: Option<&str>,
    bucket: Option<&str>,
) -> Result<T> {
    let mut query = vec![("limit", PAGE)];
    query.extend(after.map(|after| ("after", after)));
    query.extend(bucket.map(|bucket| ("bucket", bucket)));
    let body = rest.ask(Method::GET, &["api", "v1", list], &query).await?;
    serde_json::from_slice(&body).context("the gateway's answer can't be read")
}

pub(super) fn json(value: &impl Serialize) -> Result<()> {
    say(serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// `2026-09-21T14:13:20Z`
pub(super) fn instant(milliseconds: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(milliseconds as i64 / 1_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// `diptych exposed`, of one site.
#[derive(Debug, clap::Args)]
pub struct DevExposed {
    #[command(flatten)]
    ask: Exposed,
    /// The site that is asked
    #[arg(long)]
    site: String,
    #[command(flatten)]
    target: Target,
}

impl DevExposed {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        let endpoints = self.target.endpoints()?;
        let site = endpoints.sites.get(&self.site);
        let names = || endpoints.sites.keys().cloned().collect::<Vec<_>>().join(", ");
        let site = site.with_context(|| format!("there is no site {}; there is: {}", self.site, names()))?;
        self.ask.run(&self.target.rest(&site.rest, &endpoints.token)?).await
    }
}

/// `diptych ledger`, of the active site.
#[derive(Debug, clap::Args)]
pub struct DevLedger {
    #[command(flatten)]
    ask: Ledger,
    #[command(flatten)]
    target: Target,
}

impl DevLedger {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        self.ask.run(&public(&self.target)?).await
    }
}

/// `diptych conflicts`, of the active site.
#[derive(Debug, clap::Args)]
pub struct DevConflicts {
    #[command(flatten)]
    ask: Conflicts,
    #[command(flatten)]
    target: Target,
}

impl DevConflicts {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        self.ask.run(&public(&self.target)?).await
    }
}

pub(super) fn public(target: &Target) -> Result<RestClient> {
    let endpoints = target.endpoints()?;
    target.rest(&endpoints.public, &endpoints.token)
}
