//! A few of the kills that `cargo xtask kills` does by the hundred.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::demo::installation::Installation;
use diptych_e2e::kills::{KillsOptions, kill_and_read_back};
use diptych_e2e::program::in_folder;

#[tokio::test]
async fn after_kills_of_processes_at_random_everything_acknowledged_is_read_back() -> Result<()> {
    let options = KillsOptions::try_parse_from(["kills", "--kills", "8"])?;
    let seed = 1;
    in_folder("kills", async |folder| {
        let words = ["--sites", "2", "--node-dead-after", "3"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        println!("{}", kill_and_read_back(&installation, &options, seed).await?);
        installation.stop().await
    })
    .await
}
