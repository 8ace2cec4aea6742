//! What a site has at Cloudflare for itself alone, taken away when its StorageCluster goes.

use std::sync::Arc;

use async_trait::async_trait;
use diptych_operator::OwnAtEdge;
use diptych_site::config::SiteConfig;
use diptych_site::edge::EdgeChecks;

use super::checks::CloudflareChecks;
use super::site::peer::public_name;

/// Health check, pool and tunnel of a site; the records of the name stay.
pub(super) struct CloudflareLeftovers;

#[async_trait]
impl OwnAtEdge for CloudflareLeftovers {
    async fn remove(&self, site: &SiteConfig) -> Result<(), String> {
        let Some(peer) = &site.peer else { return Ok(()) };
        let Some(name) = public_name(site, peer).map_err(|error| format!("{error:#}"))? else {
            return Ok(());
        };
        // Both are tried, so that one that fails leaves nothing of the other.
        let checked = if peer.health_check.is_some() {
            let removed = CloudflareChecks::new(Arc::clone(&name), &site.site, peer).remove().await;
            removed.map_err(|trouble| format!("the health check diptych-{}: {}", site.site, trouble.message))
        } else {
            Ok(())
        };
        let own = name.remove_own().await;
        checked.and(
            own.map_err(|trouble| format!("the site's pool and monitor, or its tunnel: {}", trouble.message)),
        )
    }
}

#[cfg(test)]
mod tests {
    use diptych_cloudflare::client::Client;
    use diptych_cloudflare::emulator::{CallFault, Emulator, EmulatorOptions, NextCalls, Only};
    use diptych_site::name::PublicName;
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "yQ2tUPGMVrkpE5iELSRy7Vw8hDfKjBnCxZaQwErT";

    fn config(emulator: &Emulator) -> SiteConfig {
        let identity = json!({"authority": "", "certificate": "", "key": ""});
        let config = json!({
            "cluster": "d1".repeat(16), "site": "east", "preferred": "east", "catalog": "", "identity": identity,
            "keeper_identity": identity, "cluster_key": "", "s3": "127.0.0.1:1", "rest": "127.0.0.1:2", "public_tls": null,
            "token": "", "access_key": "", "secret_key": "", "survive": {"sites": 1, "nodes": 1, "devices": 1},
            "acknowledge": "OneSite", "nodes": [], "peer_nodes": [], "node_dead_after_s": 10,
            "peer": {
                "site": "west", "doors": [], "listen": "127.0.0.1:3", "witness": "Outside", "witness_address": null,
                "cloudflare_api": emulator.api_url(), "cloudflare_token": TOKEN, "zone": "example.com",
                "hostname": "files.example.com", "proxied": true, "public_addresses": ["192.0.2.1"],
                "public_hosts": [], "via": {"LoadBalancer": {"monitor": {"https": false, "port": 80}}},
                "health_check": {"https": false, "port": 80},
            },
        });
        serde_json::from_value(config).expect("a configuration")
    }

    async fn left(client: &Client) -> (usize, usize, usize) {
        let zone = client.zone_by_name("example.com").await.expect("asked").expect("it is there");
        let checks = client.health_checks(&zone.id).await.expect("listed").len();
        let pools = client.pools(&zone.account.id).await.expect("listed").len();
        (checks, pools, client.monitors(&zone.account.id).await.expect("listed").len())
    }

    #[tokio::test]
    async fn a_site_that_goes_leaves_neither_health_check_nor_pool_and_says_what_it_could_not_remove() {
        let options = EmulatorOptions::local("example.com", TOKEN).expect("valid");
        let emulator = Emulator::start(options).await.expect("free ports");
        let config = config(&emulator);
        let peer = config.peer.as_ref().expect("two sites");
        let name = public_name(&config, peer).expect("it reads").expect("declared");
        name.point_here().await.expect("pointed");
        CloudflareChecks::new(Arc::clone(&name), &config.site, peer).keep().await.expect("made");
        assert_eq!(left(name.client()).await, (1, 1, 1));
        let failing = NextCalls { calls: 1, fault: CallFault::InternalError, only: Only::Writes };
        emulator.set_faults(|faults| faults.next = vec![failing]);
        let error = CloudflareLeftovers.remove(&config).await.expect_err("a call failed");
        assert!(error.contains("health check diptych-east"), "{error}");
        assert_eq!(left(name.client()).await, (1, 0, 0), "the rest is gone all the same");
        CloudflareLeftovers.remove(&config).await.expect("removed");
        assert_eq!(left(name.client()).await, (0, 0, 0));
    }
}
