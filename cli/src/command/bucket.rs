//! What buckets promise their writers: `bucket`, of a `diptych dev` and of an installation on Kubernetes.

use anyhow::{Context, Result};
use diptych_api::common::duration;
use diptych_core::records::{OnTimeout, Versioning};
use diptych_gateway::objects::{BucketDocument, PromiseChange, WantedTimeout};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::losses::{Rest, json, public, table};
use super::{Target, say};

/// The word for what the cluster declares.
const CLUSTER: &str = "cluster";

/// Say what buckets promise their writers where both sites acknowledge, and set it
#[derive(Debug, clap::Args)]
pub struct Buckets {
    /// Only this one
    bucket: Option<String>,
    /// Have its writes wait so long for the other site: 100ms to 1m; `cluster`: as long as the cluster declares
    #[arg(long, value_name = "TIME", value_parser = timeout, requires = "bucket")]
    acknowledge_timeout: Option<WantedTimeout>,
    /// What becomes of a write that has waited for so long
    #[arg(long, value_enum, requires = "bucket")]
    on_timeout: Option<Then>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn timeout(text: &str) -> Result<WantedTimeout, String> {
    if text == CLUSTER {
        return Ok(WantedTimeout::OfCluster);
    }
    let length = duration(text).map_err(|error| format!("{error}, or {CLUSTER}"))?;
    Ok(WantedTimeout::Own(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Then {
    /// 503, outcome unknown
    Refuse,
    /// Acknowledged by one site; receipt and ledger say so
    Downgrade,
}

/// What REST lists.
#[derive(Deserialize)]
struct List {
    buckets: Vec<BucketDocument>,
}

impl Buckets {
    /// Asks one site; to set something is the active one's.
    pub async fn run(&self, rest: &impl Rest) -> Result<()> {
        let Some(bucket) = &self.bucket else {
            let list: List = read(&rest.ask(Method::GET, &["api", "v1", "buckets"], &[]).await?)?;
            return self.show(list.buckets);
        };
        let one = ["api", "v1", "buckets", bucket.as_str()];
        let answer = match self.change() {
            Some(change) => rest.patch(&one, &change).await?,
            None => rest.ask(Method::GET, &one, &[]).await?,
        };
        self.show(vec![read(&answer)?])
    }

    /// What is to be set; what is left out stays as it is.
    fn change(&self) -> Option<PromiseChange> {
        let change = PromiseChange {
            acknowledge_timeout_ms: self.acknowledge_timeout.unwrap_or_default(),
            on_timeout: self.on_timeout.map(|then| match then {
                Then::Refuse => OnTimeout::Refuse,
                Then::Downgrade => OnTimeout::Downgrade,
            }),
        };
        (change != PromiseChange::default()).then_some(change)
    }

    fn show(&self, buckets: Vec<BucketDocument>) -> Result<()> {
        if self.json {
            return json(&buckets);
        }
        let mut table = table(["BUCKET", "VERSIONS", "ACKNOWLEDGE TIMEOUT", "ON TIMEOUT"]);
        for bucket in buckets {
            let timeout = bucket.acknowledge_timeout_ms.map(|time| format!("{time}ms"));
            table.add_row([
                bucket.name,
                match bucket.versioning {
                    Versioning::Off => "off",
                    Versioning::Enabled => "kept",
                    Versioning::Suspended => "suspended",
                }
                .to_owned(),
                timeout.unwrap_or_else(|| CLUSTER.to_owned()),
                match bucket.on_timeout {
                    OnTimeout::Refuse => "refuse",
                    OnTimeout::Downgrade => "downgrade",
                }
                .to_owned(),
            ]);
        }
        say(table);
        Ok(())
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).context("the gateway's answer can't be read")
}

/// `diptych bucket`, of the active site.
#[derive(Debug, clap::Args)]
pub struct DevBuckets {
    #[command(flatten)]
    ask: Buckets,
    #[command(flatten)]
    target: Target,
}

impl DevBuckets {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        self.ask.run(&public(&self.target)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_the_clusters_is_read_and_nothing_else() {
        assert_eq!(timeout("1m30s"), Ok(WantedTimeout::Own(90_000)));
        assert_eq!(timeout("cluster"), Ok(WantedTimeout::OfCluster));
        assert!(timeout("soon").expect_err("no time").ends_with(", or cluster"));
    }

    #[test]
    fn a_change_names_only_what_was_said_and_the_clusters_time_as_null() {
        let said = |acknowledge_timeout, on_timeout| {
            let bucket = Some("b".to_owned());
            let change = Buckets { bucket, acknowledge_timeout, on_timeout, json: false }.change();
            change.map(|change| serde_json::to_string(&change).expect("JSON"))
        };
        assert_eq!(
            said(Some(WantedTimeout::OfCluster), None).as_deref(),
            Some(r#"{"acknowledge_timeout_ms":null}"#)
        );
        assert_eq!(said(None, Some(Then::Downgrade)).as_deref(), Some(r#"{"on_timeout":"Downgrade"}"#));
        assert_eq!(said(None, None), None, "it is only shown");
    }
}
