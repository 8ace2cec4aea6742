//! `kubectl diptych bucket`, by a gateway of the site.

use anyhow::Result;

use super::Site;
use super::gateway::Gateway;
use super::losses::Asked;
use crate::command::bucket::Buckets;

impl Asked<Buckets> {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        self.ask.run(&Gateway::reach(site, &self.token).await?).await
    }
}
