//! Runs `official_clients.py` (Cloudflare's SDK, octoDNS) against an emulator of this process.

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{TOKEN, options, start};
use tokio::process::Command;

/// What is installed; a change makes a new environment.
const PACKAGES: [&str; 3] = ["cloudflare==5.9.0", "octodns==1.22.0", "octodns-cloudflare==1.2.0"];

async fn run(what: &str, command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().await;
    assert!(output.is_ok(), "{what} can't be started ({output:?}); install python3 and python3-venv");
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

/// The Python of an environment with the packages, made once under the user's cache folder.
async fn python() -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let folder = Path::new(&home).join(".cache/diptych/venv-cloudflare");
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed"));
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    run("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(&folder)).await;
    run("pip install", Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES)).await;
    std::fs::write(stamp, wanted).expect("the cache folder is writable");
    python
}

#[tokio::test]
async fn clients_that_nobody_here_wrote_are_content() {
    let python = python().await;
    let emulator = start(options()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/official_clients.py");
    let url = emulator.api_url();
    run("official_clients.py", Command::new(python).args([script, &url, TOKEN, "example.com"])).await;
}
