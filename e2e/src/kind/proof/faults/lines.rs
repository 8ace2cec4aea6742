//! Lines that are cut: between the sites, and between a site and Cloudflare.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{UNDISTURBED, cables, lasts, through};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::outside::Outside;
use crate::kind::proof::ground::{Ground, random, refusal, then_put_back};
use crate::kind::spec;

/// A line stays cut for so long at least: four leases.
const CUT_FOR: Duration = Duration::from_secs(12);
/// A client waits no longer.
const ANSWERED: Duration = Duration::from_secs(20);

/// The line between the sites, in both directions, then in each alone. Nobody takes over: the witness knows who holds the lease.
pub(super) async fn partitioned(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    for (name, here, there) in [
        (
            "the line between both sites is cut: the holder goes on by the witness, nobody takes over",
            true,
            true,
        ),
        ("the passive site hears nothing of the active one, which hears it", false, true),
        ("the active site hears nothing of the passive one, which hears it", true, false),
    ] {
        table.step(name, Box::pin(through(ground, UNDISTURBED, cut_between(ground, here, there)))).await?;
    }
    Ok(())
}

/// `here`: the active site hears nothing; `there`: the passive one.
async fn cut_between(ground: &Ground<'_>, here: bool, there: bool) -> Result<String> {
    let (active, passive) = ground.sites().await?;
    let epoch = ground.status(active.site).await?.epoch;
    let look = async {
        let begun = Instant::now();
        if here {
            cables::deafen(active, passive).await?;
        }
        if there {
            cables::deafen(passive, active).await?;
        }
        for cluster in [active, passive] {
            spec::says(cluster, "PeerConnected", "False Silent").await?;
        }
        not_forwarded(ground, passive.site).await?;
        lasts(begun, CUT_FOR).await;
        let (now, other) = (ground.status(active.site).await?, ground.status(passive.site).await?);
        ensure!(now.role == "active" && now.epoch == epoch, "{} is {} now", active.site, now.role);
        ensure!(other.role != "active", "{} is active too", passive.site);
        let exposure = now.exposure.context("no exposure")?;
        Ok(format!(
            "{:.0} s: {} stays active under epoch {epoch}, both say PeerConnected False Silent, a write at {} 503 SlowDown, \
             {} commits exposed",
            begun.elapsed().as_secs_f64(),
            active.site,
            passive.site,
            exposure.commits
        ))
    };
    let put_back = async {
        let healed = (cables::heal(active).await, cables::heal(passive).await);
        healed.0.and(healed.1)
    };
    then_put_back(look, put_back).await
}

/// A site that can't reach the active one says so to who would write.
async fn not_forwarded(ground: &Ground<'_>, site: &str) -> Result<()> {
    let (s3, key, bytes) =
        (ground.s3_of(site, Duration::ZERO)?, format!("unheard-{}", ground.run), random(1024)?);
    until(&format!("a write at {site} is refused"), Duration::from_mins(1), || async {
        let put = tokio::time::timeout(ANSWERED, s3.put(&key, bytes.clone())).await;
        Ok(match put {
            Ok(outcome) => refusal(outcome, 503, "SlowDown").map(drop),
            Err(_) => Err(format!("no answer in {ANSWERED:?}")),
        })
    })
    .await
}

/// Neither API nor edge of Cloudflare reaches the active site. That is no reason to take over from it.
pub(super) async fn cut_from_cloudflare(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let outside = Outside::running(ground.state)?.context("what runs outside the clusters is gone")?;
        let epoch = ground.status(active.site).await?.epoch;
        let begun = Instant::now();
        let look = async {
            cables::cut_from_cloudflare(active, &outside).await?;
            let said = until("the name can't be kept", Duration::from_mins(2), || async {
                let kept = active.condition_of(spec::OBJECT, "PublicNameKept").await?;
                let lost = kept["status"] == "False";
                Ok(if lost { Ok(kept["message"].to_string()) } else { Err(kept.to_string()) })
            })
            .await?;
            lasts(begun, CUT_FOR).await;
            let other = ground.status(passive.site).await?;
            ensure!(other.role == "passive" && other.epoch == epoch, "{} is {}", passive.site, other.role);
            Ok(format!(
                "{:.0} s: {} stays passive under epoch {epoch}, PublicNameKept of {} says {said}",
                begun.elapsed().as_secs_f64(),
                passive.site,
                active.site
            ))
        };
        Box::pin(then_put_back(look, cables::heal(active))).await
    };
    let name = "Cloudflare does not reach the active site, nor it Cloudflare: nobody takes over";
    // Nothing comes through the public name while nothing can: until the condition was seen, and a little more.
    table.step(name, Box::pin(through(ground, Duration::from_mins(3), fault))).await
}
