//! Bad input to a running installation: each gets a clear error, and nothing is lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::{Refused, S3Client};
use diptych_core::ids::ClusterId;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::{program, site_of};
use diptych_e2e::program::{in_folder, outcome, run};
use diptych_wire::authority::{Authority, Request};
use diptych_wire::identity::{Identity, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(2);
const KEPT: &[u8] = b"what was stored before";

/// An installation that holds a file.
async fn with_a_file(folder: &Path, words: &[&str]) -> Result<Installation> {
    let installation = Installation::start(&folder.join("data"), words).await?;
    let s3 = installation.s3(PATIENCE)?;
    s3.create_bucket().await?;
    s3.put("kept", Bytes::from_static(KEPT)).await?;
    Ok(installation)
}

/// The file is as it was.
async fn nothing_lost(installation: &Installation) -> Result<()> {
    let found = installation.s3(PATIENCE)?.get("kept").await?.bytes().await?;
    ensure!(found == KEPT, "the file has other bytes: {found:?}");
    Ok(())
}

/// It was refused, with these words in the answer.
fn refused<T>(outcome: Result<T>, status: u16, words: &[&str]) -> Result<()> {
    let Err(error) = outcome else { bail!("it was not refused; {words:?} was expected") };
    let refused = error.downcast_ref::<Refused>().with_context(|| format!("no answer: {error:#}"))?;
    ensure!(refused.status.as_u16() == status, "{refused}");
    for word in words {
        ensure!(refused.body.contains(word), "{word:?} is not in {refused}");
    }
    Ok(())
}

/// What a `diptych dev` says that does not come up.
async fn does_not_start(data_dir: &Path, words: &[&str]) -> Result<String> {
    let mut dev = Command::new(program()?);
    let (succeeded, said) =
        outcome(dev.arg("dev").args(words).arg("--data-dir").arg(data_dir), LIMIT).await?;
    ensure!(!succeeded && !said.contains("ready\n"), "it came up: {said}");
    Ok(said)
}

/// Changes a process's configuration; it takes it at its next start.
fn configure(installation: &Installation, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let path = installation.data_dir.join("config").join(format!("{name}.json"));
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    change(&mut config);
    Ok(std::fs::write(path, serde_json::to_vec_pretty(&config)?)?)
}

/// Kills a site's process and starts it again.
async fn restart(installation: &Installation, site: &str) -> Result<()> {
    let pid = site_of(&installation.endpoints()?, site)?.pid;
    signal(pid, "KILL")?;
    until("it is dead", PATIENCE, || async {
        let revived = installation.command(&["dev", "revive", site]).await;
        Ok(revived.map(drop).map_err(|error| format!("{error:#}")))
    })
    .await
}

async fn log_says(installation: &Installation, name: &str, text: &str) -> Result<()> {
    let log = installation.data_dir.join("logs").join(format!("{name}.log"));
    until(&format!("{name} says {text:?}"), PATIENCE, || async {
        let said = std::fs::read_to_string(&log)?;
        Ok(if said.contains(text) { Ok(()) } else { Err(said.lines().last().unwrap_or_default().to_owned()) })
    })
    .await
}

/// The state of every device of a site, by path.
async fn device_states(installation: &Installation, site: &str) -> Result<Vec<(PathBuf, String)>> {
    let nodes = installation.status(site).await?.nodes;
    let devices = nodes.into_iter().flat_map(|node| node.devices);
    Ok(devices.map(|device| (PathBuf::from(device.path), device.state)).collect())
}

#[tokio::test]
async fn a_topology_that_cannot_survive_is_refused_with_the_sum_before_anything_is_made() -> Result<()> {
    in_folder("topology", async |folder| {
        let data = folder.join("data");
        let said = does_not_start(&data, &["--sites", "2", "--nodes", "1", "--devices", "1"]).await?;
        for words in ["can't be met", "0 are left and 1 is needed", "what would do"] {
            ensure!(said.contains(words), "{words:?} is not in {said}");
        }
        ensure!(!data.join("dev.json").exists() && !data.join("east").exists(), "something was made");
        // The folder is as good as new.
        Installation::start(&data, &["--sites", "1"]).await?.stop().await
    })
    .await
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_by_name_and_store_nothing() -> Result<()> {
    in_folder("requests", async |folder| {
        let installation = with_a_file(folder, &["--sites", "1"]).await?;
        let s3 = installation.s3(Duration::ZERO)?;
        let long = "k".repeat(1_025);
        let body = Bytes::from_static(b"x");
        refused(s3.put(&long, body.clone()).await, 400, &["KeyTooLongError", "1024 bytes"])?;
        s3.put(&long[1..], body.clone()).await.context("a key of 1,024 bytes")?;
        s3.delete(&long[1..]).await?;

        let mut endpoint = installation.endpoints()?.s3;
        let http = diptych::client::http_client(&installation.data_dir)?;
        let client = |endpoint: &S3Endpoint, bucket: &str| {
            S3Client::new(http.clone(), endpoint, bucket, Duration::ZERO)
        };
        let elsewhere = client(&endpoint, "nowhere")?;
        refused(elsewhere.put("k", body.clone()).await, 404, &["NoSuchBucket", "nowhere"])?;
        refused(elsewhere.get("k").await, 404, &["NoSuchBucket", "nowhere"])?;
        endpoint.secret_key = "another's".to_owned();
        let forger = client(&endpoint, "files")?;
        refused(
            forger.put("kept", body.clone()).await,
            403,
            &["SignatureDoesNotMatch", "look at the secret"],
        )?;
        refused(forger.delete("kept").await, 403, &["SignatureDoesNotMatch", "look at the secret"])?;
        endpoint.access_key = "NOBODY".to_owned();
        refused(client(&endpoint, "files")?.put("kept", body).await, 403, &["InvalidAccessKeyId"])?;

        let listed: Vec<String> = s3.list("").await?.into_iter().map(|object| object.key).collect();
        ensure!(listed == ["kept"], "{listed:?}");
        nothing_lost(&installation).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_body_shorter_than_its_length_replaces_nothing() -> Result<()> {
    in_folder("short", async |folder| {
        let installation = with_a_file(folder, &["--sites", "1"]).await?;
        let endpoints = installation.endpoints()?;
        let address = endpoints.public.trim_start_matches("http://");
        for (announced, sent) in [(1_000, 0), (1_000, 999), (3_000_000, 2_000_000)] {
            let mut connection = TcpStream::connect(address).await?;
            let head = format!(
                "PUT /api/v1/files/kept HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: {announced}\r\n\r\n",
                endpoints.token
            );
            connection.write_all(head.as_bytes()).await?;
            connection.write_all(&vec![b'x'; sent]).await?;
            connection.shutdown().await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            ensure!(!answer.contains(" 200 ") && !answer.contains(" 201 "), "{answer}");
            ensure!(answer.contains("IncompleteBody") && answer.contains("nothing was stored"), "{answer}");
            nothing_lost(&installation).await?;
        }
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn garbage_sent_to_an_agent_is_cut_off_and_the_agent_serves_on() -> Result<()> {
    in_folder("garbage", async |folder| {
        let installation = with_a_file(folder, &["--sites", "1"]).await?;
        let agents = site_of(&installation.endpoints()?, "east")?.agents.clone();
        let mut noise = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut noise)?;
        let mut huge = vec![0xff; 64];
        huge.extend(&noise[..4_096]);
        // The first bytes of a TLS handshake, of HTTP, of a frame that says to be huge, nothing, and noise.
        let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
        let inputs: [&[u8]; 6] =
            [&noise, &huge, &hello, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", &vec![0; 1 << 20]];
        let mut held = Vec::new();
        for agent in &agents {
            let socket = agent.devices[0].parent().context("a device without a folder")?.join("agent.sock");
            for input in inputs {
                let mut connection = TcpStream::connect(&agent.address).await?;
                // The agent may close while this is still sending.
                let _ = connection.write_all(input).await;
                let mut local = UnixStream::connect(&socket).await?;
                let _ = local.write_all(input).await;
                held.push((connection, local));
            }
        }
        // While all of them are still open:
        let s3 = installation.s3(PATIENCE)?;
        s3.put("during", Bytes::from(noise.clone())).await?;
        ensure!(s3.get("during").await?.bytes().await? == noise, "other bytes came back");
        nothing_lost(&installation).await?;
        drop(held);
        for agent in site_of(&installation.endpoints()?, "east")?.agents.iter().zip(&agents) {
            ensure!(agent.0.pid == agent.1.pid && agent.0.pid != 0, "{} has died", agent.1.name);
        }
        installation.command(&["inspect", "during"]).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_wrong_cluster_key_opens_nothing_and_the_right_one_everything() -> Result<()> {
    in_folder("key", async |folder| {
        let words = ["--sites", "1"];
        let installation = with_a_file(folder, &words).await?;
        let data = installation.data_dir.clone();
        installation.stop().await?;
        let (key, right) = (data.join("cluster.key"), std::fs::read(data.join("cluster.key"))?);
        for (wrong, message) in [
            (
                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
                "the cluster key is not the one that wrapped this keyring",
            ),
            ("no key at all\n", "cluster key"),
        ] {
            std::fs::write(&key, wrong)?;
            let said = does_not_start(&data, &words).await?;
            ensure!(said.contains(message), "{message:?} is not in {said}");
        }
        std::fs::write(&key, right)?;
        let installation = Installation::start(&data, &words).await?;
        nothing_lost(&installation).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_wrong_token_for_cloudflare_is_named_before_it_is_needed() -> Result<()> {
    in_folder("token", async |folder| {
        let installation = with_a_file(folder, &["--sites", "2"]).await?;
        let set = |token: String| {
            configure(&installation, "west", |config| {
                config["peer"]["cloudflare_token"] = Value::String(token);
            })
        };
        set("wrong".repeat(8))?;
        restart(&installation, "west").await?;
        until("the status names it", PATIENCE, || async {
            let said = installation.command(&["status"]).await?;
            let named = said.contains("public name: Cloudflare does not accept the token");
            Ok(if named { Ok(()) } else { Err(said) })
        })
        .await?;
        installation.s3(PATIENCE)?.put("meanwhile", Bytes::from_static(b"x")).await?;
        nothing_lost(&installation).await?;

        let right = installation.endpoints()?.cloudflare.context("no stand-in for Cloudflare")?.token;
        set(right)?;
        restart(&installation, "west").await?;
        until("the trouble is over", PATIENCE, || async {
            let status = installation.status("west").await?;
            Ok(if status.name_trouble.is_none() { Ok(()) } else { Err(format!("{:?}", status.name_trouble)) })
        })
        .await?;
        installation.stop().await
    })
    .await
}

/// Certificates of west, by another authority: same cluster, same site, same names.
fn forge(installation: &Installation, folder: &Path) -> Result<()> {
    configure(installation, "west", |_| {})?;
    let config = std::fs::read(installation.data_dir.join("config").join("west.json"))?;
    let config: Value = serde_json::from_slice(&config)?;
    let cluster: ClusterId = serde_json::from_value(config["cluster"].clone())?;
    let authority = Authority::create(cluster)?;
    let site: diptych_core::ids::SiteName = "west".parse()?;
    std::fs::write(folder.join("ca.pem"), authority.certificate_pem())?;
    for (role, name) in [(Role::Gateway, "west"), (Role::Operator, "west-keeper")] {
        let identity = Identity { cluster, site: site.clone(), role, name: name.to_owned() };
        let issued = authority.issue(&Request::new(identity, Duration::from_hours(1)))?;
        std::fs::write(folder.join(format!("{name}.pem")), issued.chain_pem())?;
        std::fs::write(folder.join(format!("{name}.key")), issued.key_pem())?;
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_with_another_authority_is_refused_by_name_and_gets_nothing() -> Result<()> {
    in_folder("authority", async |folder| {
        let installation = with_a_file(folder, &["--sites", "2"]).await?;
        let forged = folder.join("forged");
        std::fs::create_dir(&forged)?;
        forge(&installation, &forged)?;
        let path = installation.data_dir.join("config").join("west.json");
        let right = std::fs::read(&path)?;
        configure(&installation, "west", |config| {
            for (identity, name) in [("identity", "west"), ("keeper_identity", "west-keeper")] {
                let file = |end: &str| Value::String(forged.join(end).display().to_string());
                config[identity]["authority"] = file("ca.pem");
                config[identity]["certificate"] = file(&format!("{name}.pem"));
                config[identity]["key"] = file(&format!("{name}.key"));
            }
        })?;
        restart(&installation, "west").await?;
        for site in ["east", "west"] {
            log_says(&installation, site, "the peer's certificate is from another authority").await?;
        }
        let s3 = installation.s3(PATIENCE)?;
        s3.put("secret", Bytes::from_static(b"not for strangers")).await?;
        until("the exposure is counted", PATIENCE, || async {
            let status = installation.status("east").await?;
            let exposure = status.exposure.context("no exposure")?;
            let counted = status.role == "active" && exposure.commits > 0 && exposure.age_ms > 2_000;
            Ok(if counted { Ok(()) } else { Err(format!("{exposure:?}")) })
        })
        .await?;
        nothing_lost(&installation).await?;

        std::fs::write(&path, right)?;
        restart(&installation, "west").await?;
        until("west has all of it", PATIENCE, || async {
            let (east, west) = (installation.status("east").await?, installation.status("west").await?);
            let exposure = east.exposure.context("no exposure")?;
            let done = exposure.commits == 0 && exposure.extents == 0 && west.health.wanted == 0;
            Ok(if done { Ok(()) } else { Err(format!("{exposure:?}, {:?}", west.health)) })
        })
        .await?;
        nothing_lost(&installation).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn a_device_whose_path_is_missing_is_named_and_its_node_serves_on() -> Result<()> {
    in_folder("missing", async |folder| {
        let installation = with_a_file(folder, &["--sites", "1"]).await?;
        let agent = installation.agent("east", 0)?;
        let (path, aside) = (agent.devices[0].clone(), folder.join("aside"));
        let state = |wanted: &'static str| {
            let (installation, path) = (&installation, &path);
            until("the state of the device", PATIENCE, move || async move {
                let states = device_states(installation, "east").await?;
                let found = states.iter().find(|(at, _)| at == path).context("the device is not listed")?;
                Ok(if found.1 == wanted { Ok(()) } else { Err(format!("{states:?}")) })
            })
        };
        state("ok").await?;
        std::fs::rename(&path, &aside)?;
        state("missing").await?;
        nothing_lost(&installation).await?;
        installation.s3(PATIENCE)?.put("meanwhile", Bytes::from_static(b"x")).await?;

        // An agent that starts without it makes no other in its place.
        signal(agent.pid, "KILL")?;
        until("the agent runs again", PATIENCE, || async {
            let revived = installation.command(&["dev", "revive", &agent.name]).await;
            Ok(revived.map(drop).map_err(|error| format!("{error:#}")))
        })
        .await?;
        state("missing").await?;
        ensure!(!path.exists(), "another device was made in its place");
        std::fs::rename(&aside, &path)?;
        state("ok").await?;
        nothing_lost(&installation).await?;
        installation.command(&["inspect", "kept"]).await?;
        installation.stop().await
    })
    .await
}

/// File systems of a few MiB, unmounted when this is dropped.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    async fn make(paths: Vec<PathBuf>) -> Result<Self> {
        let mut mounts = Self(Vec::new());
        for path in paths {
            std::fs::create_dir_all(&path)?;
            let mut mount = Command::new("mount");
            run(mount.args(["-t", "tmpfs", "-o", "size=24m", "diptych-test"]).arg(&path), PATIENCE).await?;
            mounts.0.push(path);
        }
        Ok(mounts)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}

#[tokio::test]
async fn full_devices_refuse_by_name_and_keep_what_they_acknowledged() -> Result<()> {
    in_folder("full", async |folder| {
        let node = |node| (0..2).map(move |device| format!("data/east/n{node}/d{device}"));
        let mounts = Mounts::make((1..=4).flat_map(node).map(|path| folder.join(path)).collect()).await?;
        let installation = with_a_file(folder, &["--sites", "1"]).await?;
        let s3 = installation.s3(Duration::ZERO)?;
        let content = |number: u64| {
            // Not to be compressed.
            let words = (0..1 << 20).scan(number + 1, |state, _| {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                Some(*state)
            });
            words.flat_map(u64::to_le_bytes).collect()
        };
        let mut acknowledged = 0;
        let refusal = loop {
            ensure!(acknowledged < 40, "8 devices of 24 MiB took {acknowledged} files of 8 MiB");
            match s3.put(&format!("file-{acknowledged}"), content(acknowledged)).await {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        println!("{acknowledged} files of 8 MiB were taken, then: {refusal:#}");
        refused::<()>(Err(refusal), 503, &["NotDurable", "full", "nothing was stored"])?;
        ensure!(acknowledged >= 6, "only {acknowledged} files of 8 MiB went into 192 MiB");
        for number in 0..acknowledged {
            let found = s3.get(&format!("file-{number}")).await?.bytes().await?;
            ensure!(found == content(number), "file-{number} has other bytes");
        }
        nothing_lost(&installation).await?;
        let refused = format!("file-{acknowledged}");
        ensure!(s3.list("").await?.iter().all(|object| object.key != refused), "the refused file is listed");
        s3.delete("file-0").await.context("a delete needs no room on the devices")?;
        installation.stop().await?;
        drop(mounts);
        Ok(())
    })
    .await
}
