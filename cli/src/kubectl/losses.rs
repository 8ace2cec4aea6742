//! `kubectl diptych exposed`, `ledger`, `conflicts` and `keys`, by a gateway of the site.

use anyhow::Result;

use super::Site;
use super::gateway::{Gateway, Token};
use crate::command::{keys, losses};

/// What is asked, and by whom.
#[derive(Debug, clap::Args)]
pub(super) struct Asked<A: clap::Args> {
    #[command(flatten)]
    pub(super) ask: A,
    #[command(flatten)]
    pub(super) token: Token,
}

impl Asked<losses::Exposed> {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        self.ask.run(&Gateway::reach(site, &self.token).await?).await
    }
}

impl Asked<losses::Ledger> {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        self.ask.run(&Gateway::reach(site, &self.token).await?).await
    }
}

impl Asked<losses::Conflicts> {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        self.ask.run(&Gateway::reach(site, &self.token).await?).await
    }
}

impl Asked<keys::Keys> {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        self.ask.run(&Gateway::reach(site, &self.token).await?).await
    }
}
