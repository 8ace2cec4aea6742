//! Runs `official_clients.py` (Cloudflare's SDK, octoDNS) against an emulator of this process.

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

/// The Python of the environment that `cargo xtask test` made.
fn python() -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
    let python = cache.join("diptych/venv-cloudflare/bin/python");
    assert!(python.is_file(), "{} is missing: `cargo xtask test` makes it", python.display());
    python
}

#[tokio::test]
async fn clients_that_nobody_here_wrote_are_content() {
    let python = python();
    let emulator = start(options()).await;
    let script = "tests/official_clients.py";
    let url = emulator.api_url();
    run("official_clients.py", Command::new(python).args([script, &url, TOKEN, "example.com"])).await;
}
