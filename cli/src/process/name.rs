//! The public name at Cloudflare, by whatever is flipped there: records, the order of a load balancer's pools, or an alias to a tunnel.

use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use diptych_cloudflare::address::{NameTarget, Owner, PointError, Pointed, point_name};
use diptych_cloudflare::balancer::{Balancer, BalancerError, BalancerTarget};
use diptych_cloudflare::client::{Client, Error, TTL_AUTO, Zone, ZoneId};
use diptych_cloudflare::tunnel::{SiteTunnel, TunnelError, TunnelRoute, TunnelTarget};
use diptych_site::config::{HealthProbe, PeerConfig, SiteConfig, TunnelService, Via};
use diptych_site::name::{NameTrouble, PublicName};
use diptych_wire::http::chain;

use crate::files::write_private;

/// The name of one cluster in one zone, as this site points it.
pub(super) struct CloudflareName {
    client: Client,
    zone_name: String,
    zone: OnceLock<Zone>,
    target: NameTarget,
    way: Way,
}

/// What is flipped.
enum Way {
    Records,
    Balancer(Balancer),
    Tunnel(TunnelWay),
}

/// The tunnel, and where its connectors find their token.
struct TunnelWay {
    tunnel: SiteTunnel,
    token_file: PathBuf,
}

impl TunnelWay {
    /// Writes down the token that is the right one now: another site may have fenced this one.
    async fn hand_out_token(&self, client: &Client, zone: &Zone) -> Result<(), NameTrouble> {
        let token = self.tunnel.token(client, zone).await.map_err(not_tunnelled)?;
        if std::fs::read(&self.token_file).is_ok_and(|known| known == token.expose().as_bytes()) {
            return Ok(());
        }
        write_private(&self.token_file, token.expose().as_bytes()).map_err(|error| NameTrouble {
            reason: "TokenNotWritten",
            message: format!("the token for the tunnel's connectors: {error:#}"),
            retry_after: None,
        })
    }
}

impl CloudflareName {
    pub(super) fn new(client: Client, config: &SiteConfig, peer: &PeerConfig) -> Self {
        let target = NameTarget {
            hostname: peer.hostname.clone(),
            addresses: peer.public_addresses.clone(),
            proxied: peer.proxied,
            ttl: TTL_AUTO,
            owner: Owner::new(config.cluster),
        };
        let way = match &peer.via {
            Via::Record => Way::Records,
            &Via::LoadBalancer { monitor: HealthProbe { https, port } } => {
                let (name, site, peer) = (target.clone(), config.site.clone(), peer.site.clone());
                Way::Balancer(Balancer::new(BalancerTarget { name, site, peer, https, port }))
            }
            Via::Tunnel { routes, token_file } => {
                let (site, peer) = (config.site.clone(), peer.site.clone());
                let routes = routes.iter().map(route).collect();
                let target = TunnelTarget { site, peer, routes, owner: target.owner.clone() };
                Way::Tunnel(TunnelWay { tunnel: SiteTunnel::new(target), token_file: token_file.clone() })
            }
        };
        Self { client, zone_name: peer.zone.clone(), zone: OnceLock::new(), target, way }
    }

    /// Where it shall point while this site is active.
    pub(super) const fn target(&self) -> &NameTarget {
        &self.target
    }

    /// The records that are flipped; None: something else is.
    pub(super) const fn records(&self) -> Option<&NameTarget> {
        match self.way {
            Way::Records => Some(&self.target),
            Way::Balancer(_) | Way::Tunnel(_) => None,
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Id of the zone, looked up once.
    pub(super) async fn zone(&self) -> Result<ZoneId, NameTrouble> {
        Ok(self.whole_zone().await?.id.clone())
    }

    async fn whole_zone(&self) -> Result<&Zone, NameTrouble> {
        if let Some(zone) = self.zone.get() {
            return Ok(zone);
        }
        let found = self.client.zone_by_name(&self.zone_name).await.map_err(|error| failed(&error))?;
        let zone = found.ok_or_else(|| NameTrouble {
            reason: "NoZone",
            message: format!("the token sees no zone {}", self.zone_name),
            retry_after: None,
        })?;
        Ok(self.zone.get_or_init(|| zone))
    }

    /// Takes away what this site alone has at Cloudflare for the name; its records stay.
    pub(super) async fn remove_own(&self) -> Result<(), NameTrouble> {
        match &self.way {
            Way::Records => Ok(()),
            Way::Balancer(balancer) => {
                balancer.remove(&self.client, self.whole_zone().await?).await.map_err(not_balanced)
            }
            Way::Tunnel(way) => {
                way.tunnel.remove(&self.client, self.whole_zone().await?).await.map_err(not_tunnelled)
            }
        }
    }
}

fn route(service: &TunnelService) -> TunnelRoute {
    let TunnelService { hostname, service } = service.clone();
    TunnelRoute { hostname, service }
}

fn failed(error: &Error) -> NameTrouble {
    let retry_after = match error {
        Error::RateLimited { retry_after, .. } => Some(*retry_after),
        _ => None,
    };
    NameTrouble { reason: error.category(), message: chain(error), retry_after }
}

fn trouble(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> NameTrouble {
    NameTrouble { reason, message: error.to_string(), retry_after: None }
}

fn not_pointed(error: PointError) -> NameTrouble {
    match error {
        PointError::Call(error) => failed(&error),
        PointError::Foreign(records) => trouble("ForeignRecord", &records),
    }
}

fn not_balanced(error: BalancerError) -> NameTrouble {
    match error {
        BalancerError::Call(error) => failed(&error),
        BalancerError::ForeignRecords(records) => trouble("ForeignRecord", &records),
        BalancerError::Foreign { what: "pool", .. } => trouble("ForeignPool", &error),
        BalancerError::Foreign { .. } => trouble("ForeignLoadBalancer", &error),
        BalancerError::NotAvailable(_) => trouble("NotAvailable", &error),
    }
}

fn not_tunnelled(error: TunnelError) -> NameTrouble {
    match error {
        TunnelError::Call(error) => failed(&error),
        TunnelError::Foreign(records) => trouble("ForeignRecord", &records),
    }
}

#[async_trait]
impl PublicName for CloudflareName {
    async fn point_here(&self) -> Result<bool, NameTrouble> {
        let zone = self.whole_zone().await?;
        let pointed = match &self.way {
            Way::Records => point_name(&self.client, &zone.id, &self.target).await.map_err(not_pointed)?,
            Way::Balancer(balancer) => balancer.point_here(&self.client, zone).await.map_err(not_balanced)?,
            Way::Tunnel(way) => {
                let pointed = way.tunnel.point_here(&self.client, zone).await.map_err(not_tunnelled)?;
                // A name that led elsewhere may have led to a tunnel that is gone.
                if pointed == Pointed::Changed || !way.token_file.exists() {
                    way.hand_out_token(&self.client, zone).await?;
                }
                pointed
            }
        };
        Ok(matches!(pointed, Pointed::Changed))
    }

    async fn look(&self) -> Result<(), NameTrouble> {
        self.client.verify_token().await.map_err(|error| failed(&error))?;
        let zone = self.whole_zone().await?;
        match &self.way {
            Way::Records => Ok(()),
            Way::Balancer(balancer) => balancer.prepare(&self.client, zone).await.map_err(not_balanced),
            Way::Tunnel(way) => {
                way.tunnel.prepare(&self.client, zone).await.map_err(not_tunnelled)?;
                way.hand_out_token(&self.client, zone).await
            }
        }
    }

    async fn fence_peer(&self) -> Result<(), NameTrouble> {
        match &self.way {
            Way::Records | Way::Balancer(_) => Ok(()),
            Way::Tunnel(way) => {
                let zone = self.whole_zone().await?;
                way.tunnel.fence_peer(&self.client, zone).await.map_err(not_tunnelled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use diptych_cloudflare::client::ClientOptions;
    use diptych_cloudflare::emulator::{Emulator, EmulatorOptions};
    use diptych_core::ids::ClusterId;

    use super::*;

    const ZONE: &str = "example.com";
    const HOSTNAME: &str = "files.example.com";
    const TOKEN: &str = "0123456789012345678901234567890123456789";

    fn tunnelled(client: Client, token_file: PathBuf) -> CloudflareName {
        let owner = Owner::new(ClusterId([7; 16]));
        let service = "http://127.0.0.1:1".to_owned();
        let tunnel = TunnelTarget {
            site: "east".parse().expect("a name"),
            peer: "west".parse().expect("a name"),
            routes: vec![TunnelRoute { hostname: HOSTNAME.to_owned(), service }],
            owner: owner.clone(),
        };
        let (hostname, addresses) = (HOSTNAME.to_owned(), Vec::new());
        CloudflareName {
            client,
            zone_name: ZONE.to_owned(),
            zone: OnceLock::new(),
            target: NameTarget { hostname, addresses, proxied: true, ttl: TTL_AUTO, owner },
            way: Way::Tunnel(TunnelWay { tunnel: SiteTunnel::new(tunnel), token_file }),
        }
    }

    #[tokio::test]
    async fn the_token_of_a_tunnel_that_was_made_anew_takes_the_old_ones_place() {
        let emulator = Emulator::start(EmulatorOptions::local(ZONE, TOKEN).expect("options")).await;
        let emulator = emulator.expect("it starts");
        let options = ClientOptions::new(TOKEN.parse().expect("a token")).base_url(&emulator.api_url());
        let client = Client::new(options).expect("a client");
        let folder = tempfile::tempdir().expect("a folder");
        let token_file = folder.path().join("tunnel.token");
        let token = || std::fs::read(&token_file).expect("it was handed out");
        assert_eq!(tunnelled(client.clone(), token_file.clone()).point_here().await, Ok(true));
        let first = token();

        let zone = client.zone_by_name(ZONE).await.expect("it answers").expect("it is there");
        let name = Owner::new(ClusterId([7; 16])).name_of(&"east".parse().expect("a name"));
        let tunnel = client.tunnel_by_name(&zone.account.id, &name).await.expect("it answers");
        client.delete_tunnel(&zone.account.id, &tunnel.expect("it is there").id).await.expect("deleted");
        // The site's loops have begun anew since.
        assert_eq!(tunnelled(client, token_file.clone()).point_here().await, Ok(true));
        assert_ne!(token(), first);
    }

    #[test]
    fn what_troubles_the_name_has_a_word_and_a_lock_out_its_end() {
        let length = Duration::from_mins(5);
        let limited = failed(&Error::RateLimited { call: "list records", retry_after: length });
        assert_eq!((limited.reason, limited.retry_after), ("RateLimited", Some(length)));
        let revoked = Error::Unauthorized { call: "list records", message: "gone".to_owned() };
        let revoked = not_pointed(PointError::Call(revoked));
        assert_eq!((revoked.reason, revoked.retry_after), ("Unauthorized", None));
        assert!(revoked.message.contains("put it into the Secret"), "{}", revoked.message);
        let limited = Error::RateLimited { call: "list pools", retry_after: length };
        assert_eq!(not_balanced(BalancerError::Call(limited)).retry_after, Some(length));
    }

    #[test]
    fn whose_a_load_balancer_is_and_that_there_is_none_to_be_had_have_words() {
        let foreign = |what| BalancerError::Foreign { what, name: "x".to_owned(), mark: "m".to_owned() };
        assert_eq!(not_balanced(foreign("pool")).reason, "ForeignPool");
        assert_eq!(not_balanced(foreign("load balancer")).reason, "ForeignLoadBalancer");
        let refused = Error::Refused { call: "create a pool", status: 400, errors: Vec::new() };
        let none = not_balanced(BalancerError::NotAvailable(refused));
        assert_eq!(none.reason, "NotAvailable");
        assert!(none.message.contains("via: Record"), "{}", none.message);
    }
}
