//! The store against clients that nobody here wrote, from their packages: rclone, restic, s3cmd, boto3.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych::client::endpoints::S3Endpoint;
use diptych_e2e::demo::installation::Installation;
use diptych_e2e::demo::tree;
use diptych_e2e::program::{in_folder, python, run};
use tokio::process::Command;

/// For each run of a client.
const LIMIT: Duration = Duration::from_mins(2);
/// Real files, of this machine.
const FILES: usize = 320;

/// A site of its own, and its S3.
async fn site(folder: &Path) -> Result<(Installation, S3Endpoint)> {
    let installation = Installation::start(&folder.join("data"), &["--sites", "1"]).await?;
    let s3 = installation.endpoints()?.s3;
    Ok((installation, s3))
}

/// A client that finds its credentials where Amazon's do.
fn client(program: impl AsRef<std::ffi::OsStr>, s3: &S3Endpoint) -> Command {
    let mut command = Command::new(program);
    command.env("AWS_ACCESS_KEY_ID", &s3.access_key).env("AWS_SECRET_ACCESS_KEY", &s3.secret_key);
    command.env_remove("AWS_CA_BUNDLE");
    command
}

/// Copies real files into a folder.
fn real_files(folder: &Path, count: usize) -> Result<()> {
    for input in tree::collect(Path::new("/usr/share/doc"), "", usize::MAX)?.into_iter().take(count) {
        let target = folder.join(&input.key);
        std::fs::create_dir_all(target.parent().context("a file without a folder")?)?;
        std::fs::copy(&input.path, &target)?;
    }
    Ok(())
}

#[tokio::test]
async fn rclone_syncs_a_tree_and_finds_no_difference() -> Result<()> {
    in_folder("rclone", async |folder| {
        let (installation, s3) = site(folder).await?;
        let (local, remote) = (folder.join("tree"), "store:rclone/tree");
        real_files(&local, FILES)?;
        let large = local.join("large.bin");
        tree::large(&large, 70)?;
        let rclone = async |words: &[&str]| {
            let mut command = client("rclone", &s3);
            command.args(["--config", "/dev/null", "--retries", "1", "--low-level-retries", "1", "-v"]);
            for (option, value) in [
                ("TYPE", "s3"),
                ("PROVIDER", "Other"),
                ("ENV_AUTH", "true"),
                ("ENDPOINT", s3.endpoint.as_str()),
                // Above it a file goes up in parts.
                ("UPLOAD_CUTOFF", "64M"),
            ] {
                command.env(format!("RCLONE_CONFIG_STORE_{option}"), value);
            }
            run(command.args(words).current_dir(folder), LIMIT).await
        };
        let no_difference = |said: &str, files: usize| -> Result<()> {
            ensure!(said.contains("0 differences found"), "{said}");
            ensure!(said.contains(&format!("{files} matching files")), "{said}");
            Ok(())
        };
        rclone(&["mkdir", "store:rclone"]).await?;
        let said = rclone(&["sync", "tree", remote]).await?;
        ensure!(said.matches("Copied (new)").count() == FILES + 1, "{said}");
        no_difference(&rclone(&["check", "--download", "tree", remote]).await?, FILES + 1)?;

        let again = rclone(&["sync", "tree", remote]).await?;
        ensure!(
            !again.contains("Copied") && again.contains("0 B / 0 B"),
            "the second sync moved something: {again}"
        );

        std::fs::remove_file(&large)?;
        let said = rclone(&["sync", "tree", remote]).await?;
        ensure!(said.contains("large.bin: Deleted"), "{said}");
        no_difference(&rclone(&["check", "--download", "tree", remote]).await?, FILES)?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn restic_backs_up_checks_every_byte_and_restores() -> Result<()> {
    in_folder("restic", async |folder| {
        let (installation, s3) = site(folder).await?;
        real_files(&folder.join("tree"), FILES)?;
        tree::large(&folder.join("tree").join("large.bin"), 20)?;
        let restic = async |words: &[&str]| {
            let mut command = client("restic", &s3);
            command.env("RESTIC_REPOSITORY", format!("s3:{}/restic", s3.endpoint));
            command.env("RESTIC_PASSWORD", "a test's").env("RESTIC_CACHE_DIR", folder.join("cache"));
            run(command.args(words).current_dir(folder), LIMIT).await
        };
        restic(&["init"]).await?;
        let said = restic(&["backup", "tree"]).await?;
        ensure!(said.contains(&format!("processed {} files", FILES + 1)), "{said}");
        let said = restic(&["check", "--read-data"]).await?;
        ensure!(said.contains("no errors were found"), "{said}");
        restic(&["restore", "latest", "--target", "restored"]).await?;
        run(Command::new("diff").args(["-r", "tree", "restored/tree"]).current_dir(folder), LIMIT).await?;

        // A second snapshot, the first forgotten: deletes, and packs written anew.
        std::fs::remove_file(folder.join("tree").join("large.bin"))?;
        restic(&["backup", "tree"]).await?;
        restic(&["forget", "--keep-last", "1", "--prune"]).await?;
        let said = restic(&["check", "--read-data"]).await?;
        ensure!(said.contains("no errors were found"), "{said}");
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn s3cmd_puts_gets_lists_syncs_and_deletes() -> Result<()> {
    in_folder("s3cmd", async |folder| {
        let (installation, s3) = site(folder).await?;
        // s3cmd sends one request after the other.
        let few = 60;
        real_files(&folder.join("tree"), few)?;
        tree::large(&folder.join("large.bin"), 40)?;
        let host = s3.endpoint.trim_start_matches("http://");
        let s3cmd = async |words: &[&str]| {
            let mut command = client("s3cmd", &s3);
            command.args(["--config", "/dev/null", "--no-ssl", "--no-progress", "--host", host]);
            command.args(["--host-bucket", host]);
            run(command.args(words).current_dir(folder), LIMIT).await
        };
        s3cmd(&["mb", "s3://s3cmd"]).await?;
        ensure!(s3cmd(&["ls"]).await?.contains("s3://s3cmd"));
        s3cmd(&["put", "large.bin", "s3://s3cmd/large file", "--multipart-chunk-size-mb=15"]).await?;
        s3cmd(&["get", "s3://s3cmd/large file", "back.bin"]).await?;
        run(Command::new("cmp").args(["large.bin", "back.bin"]).current_dir(folder), LIMIT).await?;
        let said = s3cmd(&["ls", "s3://s3cmd"]).await?;
        ensure!(said.contains("41943040") && said.contains("s3://s3cmd/large file"), "{said}");

        s3cmd(&["sync", "tree/", "s3://s3cmd/tree/"]).await?;
        let again = s3cmd(&["sync", "tree/", "s3://s3cmd/tree/"]).await?;
        ensure!(!again.contains("upload:"), "the second sync moved something: {again}");
        std::fs::create_dir(folder.join("synced"))?;
        s3cmd(&["sync", "s3://s3cmd/tree/", "synced/"]).await?;
        run(Command::new("diff").args(["-r", "tree", "synced"]).current_dir(folder), LIMIT).await?;

        s3cmd(&["cp", "s3://s3cmd/large file", "s3://s3cmd/copy"]).await?;
        s3cmd(&["mv", "s3://s3cmd/copy", "s3://s3cmd/moved"]).await?;
        s3cmd(&["del", "s3://s3cmd/large file"]).await?;
        let said = s3cmd(&["ls", "s3://s3cmd"]).await?;
        ensure!(
            !said.contains("large file") && !said.contains("copy") && said.contains("s3://s3cmd/moved"),
            "{said}"
        );
        s3cmd(&["rb", "--recursive", "--force", "s3://s3cmd"]).await?;
        ensure!(!s3cmd(&["ls"]).await?.contains("s3://s3cmd"));
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn boto3_finds_what_amazon_s3_would_answer() -> Result<()> {
    in_folder("boto3", async |folder| {
        let (installation, s3) = site(folder).await?;
        let script = "tests/proof/boto3_client.py";
        run(client(python("boto3")?, &s3).args([script, &s3.endpoint]), LIMIT).await?;
        installation.stop().await
    })
    .await
}
