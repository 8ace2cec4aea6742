//! Runs `official_clients.py` (Cloudflare's SDK, octoDNS) and `official_go_client` (Cloudflare's Go client) against an emulator of this
//! process.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{TOKEN, options, start};
use tokio::process::Command;

async fn run(what: &str, command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().await;
    assert!(output.is_ok(), "{what} can't be started ({output:?})");
    let output = output.expect("just looked at");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// What `cargo xtask test` made in the user's cache folder.
fn made(path: &str) -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
    let program = cache.join("diptych").join(path);
    assert!(program.is_file(), "{} is missing: `cargo xtask test` makes it", program.display());
    program
}

#[tokio::test]
async fn clients_that_nobody_here_wrote_are_content() {
    let python = made("venv-cloudflare/bin/python");
    let emulator = start(options()).await;
    let script = "tests/official_clients.py";
    let url = emulator.api_url();
    run("official_clients.py", Command::new(python).args([script, &url, TOKEN, "example.com"])).await;
}

#[tokio::test]
async fn the_official_go_client_is_content() {
    let program = made("tools/official-go-client");
    let emulator = start(options()).await;
    let url = emulator.api_url();
    run("official_go_client", Command::new(program).args([&url, TOKEN, "example.com"])).await;
}
