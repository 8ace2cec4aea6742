//! Drills on two sites in `diptych dev`: each mode, an end before the end, and the timer that restores a site whatever becomes
//! of who cut it off.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use diptych::process::site::drills::DrillWish;
use diptych_core::drill::{DrillMode, DrillSpec, GuardLimits, Phase, Report, Verdict};
use diptych_core::lease::Millis;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::site_of;
use diptych_e2e::demo::tree;
use diptych_e2e::demo::verify::{put_all, verify_all};
use diptych_e2e::program::in_folder;

/// Until a site is as it shall be.
const PATIENCE: Duration = Duration::from_mins(1);
const AT_ONCE: usize = 16;
const FILES: usize = 60;
const DRILL: [&str; 3] = ["api", "v1", "drill"];

/// Two sites with files in them, as ready for a drill as they get.
async fn ready(folder: &Path) -> Result<(Installation, Vec<tree::Input>)> {
    let installation = Installation::start(&folder.join("data"), &["--sites", "2"]).await?;
    let s3 = installation.s3(PATIENCE)?;
    s3.create_bucket().await?;
    let mut files = tree::collect(Path::new("/usr/share/doc"), "tree/", usize::MAX)?;
    files.truncate(FILES);
    put_all(&s3, &files, AT_ONCE).await?;
    until("west has all of them", PATIENCE, || async {
        let exposure = installation.status("east").await?.exposure.context("no exposure in the status")?;
        let all = exposure.extents == 0 && exposure.commits == 0;
        Ok(if all { Ok(()) } else { Err(format!("{exposure:?}")) })
    })
    .await?;
    until("a drill could begin", PATIENCE, || async {
        match drill(&installation, &["--mode", "Readiness"]).await {
            Ok(report) => Ok(Ok(report)),
            Err(error) => Ok(Err(format!("{error:#}"))),
        }
    })
    .await?;
    Ok((installation, files))
}

/// Runs one by the command line; its report, if it has passed.
async fn drill(installation: &Installation, words: &[&str]) -> Result<Report> {
    let output = installation.command(&[&["drill", "--json", "--cool-down", "0"], words].concat()).await?;
    Ok(serde_json::from_str(&output)?)
}

/// Asks a site for one, and does not wait for it.
async fn begin(installation: &Installation, site: &str, mode: DrillMode, outage: u64) -> Result<Report> {
    let guards = GuardLimits { cool_down: Millis(0), ..GuardLimits::default() };
    let spec = DrillSpec { outage: Millis(outage * 1_000), guards, ..DrillSpec::of(mode) };
    installation.rest(site)?.post_json(&DRILL, &DrillWish { id: None, spec }).await
}

async fn report(installation: &Installation, site: &str) -> Result<Report> {
    let report: Option<Report> = installation.rest(site)?.document(&DRILL, &[]).await?;
    report.context("no drill")
}

async fn roles(installation: &Installation) -> Result<(String, String)> {
    Ok((installation.status("east").await?.role, installation.status("west").await?.role))
}

/// Waits until east is active and west passive, as at the begin.
async fn as_before(installation: &Installation) -> Result<()> {
    until("east is active and west is passive", PATIENCE, || async {
        let roles = roles(installation).await?;
        Ok(if roles == ("active".to_owned(), "passive".to_owned()) {
            Ok(())
        } else {
            Err(format!("{roles:?}"))
        })
    })
    .await
}

/// Whether a site says to every request that a drill has cut it off.
async fn is_cut_off(installation: &Installation, site: &str) -> Result<bool> {
    let asked: Result<serde_json::Value> =
        installation.rest(site)?.document(&["api", "v1", "files"], &[]).await;
    Ok(asked.is_err_and(|error| format!("{error:#}").contains("CutOff")))
}

/// Returns when east is cut off; when that was first seen.
async fn cut_off(installation: &Installation) -> Result<Instant> {
    until("east is cut off", PATIENCE, || async {
        Ok(if is_cut_off(installation, "east").await? {
            Ok(Instant::now())
        } else {
            Err("it answers".to_owned())
        })
    })
    .await
}

#[tokio::test]
async fn each_mode_passes_and_ends_as_it_began() -> Result<()> {
    in_folder("drills", async |folder| {
        let (installation, files) = ready(folder).await?;
        let s3 = installation.s3(PATIENCE)?;

        // It passes once all bytes, and a journal with them, have crossed.
        let isolated = until("an isolated drill passes", PATIENCE, || async {
            Ok(Ok(drill(&installation, &["--mode", "Isolated", "--samples", "40"]).await?))
        })
        .await?;
        let samples = isolated.samples.context("no samples")?;
        ensure!(samples.objects == 40 && samples.bytes > 0 && samples.failed.is_empty(), "{samples:?}");
        let rehearsed = isolated.rehearsed.context("no rehearsal")?;
        ensure!(rehearsed.keys == 40 && rehearsed.different.is_empty() && rehearsed.gaps == 0, "{rehearsed:?}");

        let switch = drill(&installation, &["--mode", "Switchover"]).await?;
        let records = switch.records.context("no records")?;
        ensure!(records.acknowledged > 10 && records.missing == 0, "{records:?}");
        ensure!(switch.recovery_point_ms == Some(0), "{switch:?}");
        as_before(&installation).await?;

        let outage = drill(&installation, &["--mode", "Outage", "--outage", "15"]).await?;
        let times = outage.times;
        let marks = [times.detected_ms, times.waited_ms, times.acquired_ms, times.promoted_ms];
        let marks: Vec<u64> = marks.into_iter().collect::<Option<_>>().with_context(|| format!("{times:?}"))?;
        ensure!(marks.is_sorted(), "{times:?}");
        ensure!(times.flipped_ms.is_some() && times.first_good_ms > times.waited_ms, "{times:?}");
        // A promise of 3 s runs from its last renewal, which is half a second old at most.
        let recovery = outage.recovery_time_ms.context("no recovery time")?;
        ensure!((2_000..15_000).contains(&recovery), "{recovery} ms");
        ensure!(outage.records.is_some_and(|records| records.missing == 0), "{outage:?}");
        ensure!(outage.stale_writes.tried == 2 && outage.stale_writes.refused == 2, "{:?}", outage.stale_writes);
        as_before(&installation).await?;
        verify_all(&s3, &files).await?;

        for site in ["east", "west"] {
            until(&format!("{site} knows of the drill"), PATIENCE, || async {
                let passed = installation.status(site).await?.passed_drill;
                let same = passed.as_ref().is_some_and(|passed| passed.id == outage.id);
                Ok(if same { Ok(()) } else { Err(format!("{passed:?}")) })
            })
            .await?;
        }
        println!(
            "switchover: recovery time {:?} ms, way back {:?} ms; outage: {times:?}, recovery time {recovery} ms, recovery point {:?} ms, way back {:?} ms",
            switch.recovery_time_ms, switch.return_time_ms, outage.recovery_point_ms, outage.return_time_ms
        );
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_drill_that_is_aborted_restores_the_site_that_it_cut_off() -> Result<()> {
    in_folder("drill-abort", async |folder| {
        let (installation, files) = ready(folder).await?;
        let begun = Instant::now();
        begin(&installation, "west", DrillMode::Outage, 300).await?;
        cut_off(&installation).await?;
        let east = installation.rest("east")?;
        east.text(&["ready"]).await.context("its Service would be left without gateways")?;
        for probed in ["health", "lease"] {
            let answer = east.text(&[probed]).await.err().map(|error| format!("{error:#}"));
            let answer = answer.unwrap_or_default();
            ensure!(answer.contains("CutOff"), "/{probed}, which the edge looks at: {answer:?}");
        }
        let again = begin(&installation, "west", DrillMode::Switchover, 30).await;
        let again = again.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(again.contains("DrillUnderWay"), "a second drill was begun beside the first: {again}");
        installation.command(&["drill", "--abort"]).await?;
        let ended = until("the drill is over", PATIENCE, || async {
            let report = report(&installation, "west").await?;
            Ok(if report.is_over() { Ok(report) } else { Err(format!("{:?}", report.phase)) })
        })
        .await?;
        ensure!(ended.verdict == Some(Verdict::Aborted), "{ended:?}");
        ensure!(begun.elapsed() < Duration::from_mins(2), "the cut was not ended early");
        ensure!(!is_cut_off(&installation, "east").await?, "east is still cut off");
        ensure!(ended.records.is_some_and(|records| records.missing == 0), "{ended:?}");
        as_before(&installation).await?;
        verify_all(&installation.s3(PATIENCE)?, &files).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_site_that_was_cut_off_comes_back_by_itself_though_whoever_cut_it_off_is_dead() -> Result<()> {
    in_folder("drill-dead-man", async |folder| {
        let (installation, files) = ready(folder).await?;
        begin(&installation, "west", DrillMode::Outage, 15).await?;
        let cut = cut_off(&installation).await?;
        // All of west dies before it can take over: nobody is left to end the drill.
        let endpoints = installation.endpoints()?;
        signal(site_of(&endpoints, "west")?.pid, "KILL")?;
        let s3 = installation.s3(Duration::ZERO)?;
        let refused = s3.put("while-cut-off", Bytes::from_static(b"x")).await;
        ensure!(refused.is_err(), "a site that is cut off took a write");
        until("east takes writes again", PATIENCE, || async {
            match s3.put("after", Bytes::from_static(b"x")).await {
                Ok(_) => Ok(Ok(())),
                Err(error) => Ok(Err(format!("{error:#}"))),
            }
        })
        .await?;
        let away = cut.elapsed();
        ensure!(away > Duration::from_secs(12), "it was away for {away:?} only");
        println!("east was cut off for 15 s and took writes again after {:.1} s", away.as_secs_f64());

        installation.command(&["dev", "revive", "west"]).await?;
        as_before(&installation).await?;
        until("west tells that its drill was aborted", PATIENCE, || async {
            let left = report(&installation, "west").await?;
            let over = (left.phase, left.verdict);
            Ok(if over == (Phase::Ended, Some(Verdict::Aborted)) { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await?;
        verify_all(&installation.s3(PATIENCE)?, &files).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_drill_is_refused_where_it_can_t_be_carried_out_and_says_why() -> Result<()> {
    in_folder("drill-refused", async |folder| {
        let (installation, _) = ready(folder).await?;
        begin(&installation, "east", DrillMode::Switchover, 30).await?;
        let report = until("the active site refuses", PATIENCE, || async {
            let report = report(&installation, "east").await?;
            Ok(if report.is_over() { Ok(report) } else { Err(format!("{:?}", report.phase)) })
        })
        .await?;
        ensure!(report.verdict == Some(Verdict::Refused) && report.reason.contains("passive"), "{report:?}");

        let short = begin(&installation, "west", DrillMode::Outage, 1).await;
        let short = short.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(short.contains("InvalidDrill") && short.contains("15 s"), "{short}");

        let endpoints = installation.endpoints()?;
        signal(endpoints.witness.context("no witness")?.pid, "KILL")?;
        until("west knows that the witness is gone", PATIENCE, || async {
            let reachable = installation.status("west").await?.lease.witness_reachable;
            Ok(if reachable { Err("it answers".to_owned()) } else { Ok(()) })
        })
        .await?;
        match drill(&installation, &["--mode", "Outage"]).await {
            Ok(report) => bail!("it passed without a witness: {report:?}"),
            Err(error) => ensure!(error.to_string().contains("the witness does not answer"), "{error:#}"),
        }
        as_before(&installation).await?;
        installation.stop().await
    })
    .await
}
