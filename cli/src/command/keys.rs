//! The keyring: which keys are in use, how far an exchange of the cluster key is, another ring key. No command shows a key.

use anyhow::{Context, Result};
use diptych_site::status::{KeysStatus, SiteStatus};
use reqwest::Method;

use super::losses::{Rest, instant, json, public, table};
use super::{Target, say};

/// Say which keys are in use and how far an exchange of the cluster key is; make another ring key
#[derive(Debug, clap::Args)]
pub struct Keys {
    #[command(subcommand)]
    action: Option<Action>,
    /// The list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Action {
    /// List them
    List,
    /// Make another ring key; new bytes are sealed by it as soon as every device has it
    Rotate,
}

impl Keys {
    /// Asks the active site.
    pub async fn run(&self, rest: &impl Rest) -> Result<()> {
        match self.action {
            None | Some(Action::List) => self.list(rest).await,
            Some(Action::Rotate) => rotate(rest).await,
        }
    }

    async fn list(&self, rest: &impl Rest) -> Result<()> {
        let body = rest.ask(Method::GET, &["api", "v1", "status"], &[]).await?;
        let status: SiteStatus =
            serde_json::from_slice(&body).context("the gateway's answer can't be read")?;
        let keys = status.keys.context("the site has no keyring yet")?;
        if self.json {
            return json(&keys);
        }
        show(&keys);
        Ok(())
    }
}

fn show(keys: &KeysStatus) {
    say(format_args!("keyring of generation {}: {}", keys.generation, keys.waiting_for));
    if let Some(trouble) = &keys.trouble {
        say(format_args!("TROUBLE: {trouble}"));
    }
    if !keys.missing.is_empty() {
        say(format_args!("not read back in this site yet from {}", keys.missing.join(", ")));
    }
    let mut table = table(["RING KEY", "MADE", "STATE"]);
    for key in &keys.ring_keys {
        let state = match (key.in_use, key.number == keys.current) {
            (true, true) => "seals what is new",
            (true, false) => "opens what it sealed",
            (false, _) => "prepared: in use when every device has it",
        };
        table.add_row([key.number.to_string(), instant(key.made_ms), state.to_owned()]);
    }
    say(table);
}

async fn rotate(rest: &impl Rest) -> Result<()> {
    let body = rest.ask(Method::POST, &["api", "v1", "keys", "rotate"], &[]).await?;
    let answer: serde_json::Value =
        serde_json::from_slice(&body).context("the gateway's answer can't be read")?;
    say(match answer["new"].as_bool() {
        Some(true) => "another ring key is prepared; it is in use as soon as every device has it",
        _ => "a ring key is prepared already; it is in use as soon as every device has it",
    });
    Ok(())
}

/// `diptych keys`, of the active site.
#[derive(Debug, clap::Args)]
pub struct DevKeys {
    #[command(flatten)]
    ask: Keys,
    #[command(flatten)]
    target: Target,
}

impl DevKeys {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        self.ask.run(&public(&self.target)?).await
    }
}
