//! With `failover.failback: Automatic` the preferred site gets the lease back by itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{a_file, declare};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::proof::plugin::Plugin;
use crate::kind::spec;

/// `failover.stabilityWindow`.
const WINDOW: Duration = Duration::from_secs(20);
/// A look and a status lie between the begin of the window and its being seen here.
const SEEN_LATE: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_mins(4);

/// After a handover by hand, too.
pub(super) async fn comes_by_itself(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let [preferred, other] = ground.clusters;
    table
        .step("failback Automatic: after a handover by hand the preferred site has the lease again by itself", async {
            let automatic = json!({"failback": "Automatic", "stabilityWindow": format!("{}s", WINDOW.as_secs())});
            let look = async {
                declare(ground, &json!({"failover": automatic})).await?;
                is_active(ground, preferred.site).await?;
                let (key, bytes) = a_file(ground, "failback", 256 << 10).await?;
                let wanted = format!("{} is passive after", preferred.site);
                Plugin::install()?.says(ground, preferred, &["handover"], &[&wanted]).await?;
                let handed = Instant::now();
                let waits = spec::shows(other, spec::OBJECT, "that the preferred site settles", LIMIT, settles).await?;
                is_active(ground, preferred.site).await?;
                let took = handed.elapsed();
                ensure!(took + SEEN_LATE >= WINDOW, "it had the lease again after {took:?}");
                let read = ground.read_in_both(&key, &bytes).await?;
                Ok(format!(
                    "status.failback of {}: {waits}; {} is active again {:.1} s after the handover; {read}",
                    other.site,
                    preferred.site,
                    took.as_secs_f64()
                ))
            };
            let manual = json!({"failover": {"failback": "Manual", "stabilityWindow": "10m"}});
            Ok(((), Box::pin(then_put_back(look, declare(ground, &manual))).await?))
        })
        .await
}

/// What a site that will give the lease back says, once nothing is left to be waited for but the window.
fn settles(seen: &Value) -> Option<String> {
    let failback = seen.pointer("/status/failback")?;
    (failback["waiting"] == "Settling").then(|| failback["message"].as_str().unwrap_or_default().to_owned())
}

async fn is_active(ground: &Ground<'_>, site: &str) -> Result<()> {
    until(&format!("{site} is active"), LIMIT, || async {
        let role = ground.status(site).await?.role;
        Ok(if role == "active" { Ok(()) } else { Err(role) })
    })
    .await
}
