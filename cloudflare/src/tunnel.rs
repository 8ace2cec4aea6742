//! The public name by a tunnel: each site has one of its own, and the flip is one batch that leads the name's alias to it.
//!
//! A tunnel has no comment: its name, which carries the cluster's id, says whose it is. The alias carries the ownership
//! comment as every record does.
//!
//! The outer fence: a site that took over has the other one's tunnel closed from outside. It comes on top of the lease, never in
//! its place: whether it works or not, who may write is settled.

use std::sync::{Mutex, PoisonError};

use diptych_core::ids::SiteName;
use thiserror::Error;

use crate::address::{ForeignRecords, Owner, Pointed, name_records, owned_records};
use crate::client::{
    self, Batch, Client, DnsRecord, IngressRule, NewRecord, OriginRequest, PatchRecord, RecordType, TTL_AUTO,
    TunnelId, TunnelSecret, TunnelToken, Zone,
};

/// A name, and the service of the site that answers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRoute {
    /// Whole name, with the zone.
    pub hostname: String,
    /// `http://host:port` or `https://host:port`, as the site's connectors reach it.
    pub service: String,
}

/// A site's tunnel, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelTarget {
    /// This site.
    pub site: SiteName,
    /// The other one.
    pub peer: SiteName,
    /// The names that follow the lease.
    pub routes: Vec<TunnelRoute>,
    /// Whose tunnels and records these are.
    pub owner: Owner,
}

impl TunnelTarget {
    fn ingress(&self) -> Vec<IngressRule> {
        let rule = |route: &TunnelRoute| IngressRule {
            hostname: Some(route.hostname.clone()),
            service: route.service.clone(),
            origin_request: OriginRequest {
                server_name: route.service.starts_with("https://").then(|| route.hostname.clone()),
            },
        };
        let rest = IngressRule {
            hostname: None,
            service: "http_status:404".to_owned(),
            origin_request: OriginRequest::default(),
        };
        self.routes.iter().map(rule).chain([rest]).collect()
    }
}

/// Why the tunnel can't be kept.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// Somebody else's records are on the name.
    #[error(transparent)]
    Foreign(#[from] ForeignRecords),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] client::Error),
}

/// Keeps one site's tunnel.
#[derive(Debug)]
pub struct SiteTunnel {
    target: TunnelTarget,
    /// As last seen: the flip waits for no look at it.
    known: Mutex<Option<TunnelId>>,
}

impl SiteTunnel {
    /// Of this site; nothing is asked yet.
    pub const fn new(target: TunnelTarget) -> Self {
        Self { target, known: Mutex::new(None) }
    }

    /// Leads the names to this site's tunnel: a look at each and one batch, then the tunnel is looked after.
    ///
    /// # Errors
    /// Nothing was changed at Cloudflare, unless a call says that it may have been.
    pub async fn point_here(&self, client: &Client, zone: &Zone) -> Result<Pointed, TunnelError> {
        let known = self.known();
        let mut pointed = Pointed::AlreadyRight;
        if let Some(own) = &known {
            pointed = self.lead_to(client, zone, own).await?;
        }
        let own = self.prepare(client, zone).await?;
        if known.as_ref() == Some(&own) {
            return Ok(pointed);
        }
        self.lead_to(client, zone, &own).await
    }

    /// Makes this site's tunnel ready. Where the names lead stays as it is.
    ///
    /// # Errors
    /// A call failed.
    pub async fn prepare(&self, client: &Client, zone: &Zone) -> Result<TunnelId, TunnelError> {
        let account = &zone.account.id;
        let name = self.target.owner.name_of(&self.target.site);
        let own = match client.tunnel_by_name(account, &name).await? {
            Some(found) => found.id,
            None => client.create_tunnel(account, &name, &TunnelSecret::random()).await?.id,
        };
        let wanted = self.target.ingress();
        if client.tunnel_ingress(account, &own).await? != wanted {
            client.put_tunnel_ingress(account, &own, wanted).await?;
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.clone());
        Ok(own)
    }

    /// What this site's connectors run with; it changes when the other site has fenced this one.
    ///
    /// # Errors
    /// A call failed.
    pub async fn token(&self, client: &Client, zone: &Zone) -> Result<TunnelToken, TunnelError> {
        let own = match self.known() {
            Some(own) => own,
            None => self.prepare(client, zone).await?,
        };
        Ok(client.tunnel_token(&zone.account.id, &own).await?)
    }

    /// Closes the other site's tunnel: its connectors are cut off, and what they know opens no new connection.
    ///
    /// # Errors
    /// A call failed; it may be tried again.
    pub async fn fence_peer(&self, client: &Client, zone: &Zone) -> Result<(), TunnelError> {
        let account = &zone.account.id;
        let name = self.target.owner.name_of(&self.target.peer);
        let Some(theirs) = client.tunnel_by_name(account, &name).await? else { return Ok(()) };
        // FENCING: the secret first. A connector that is cut off while its secret is right is back at once.
        client.rotate_tunnel_secret(account, &theirs.id, &TunnelSecret::random()).await?;
        Ok(client.clean_up_tunnel(account, &theirs.id).await?)
    }

    /// Takes this site's tunnel away; the records of the names stay.
    ///
    /// # Errors
    /// A call failed; what is left is removed by another try.
    pub async fn remove(&self, client: &Client, zone: &Zone) -> Result<(), TunnelError> {
        let account = &zone.account.id;
        let name = self.target.owner.name_of(&self.target.site);
        let Some(own) = client.tunnel_by_name(account, &name).await? else { return Ok(()) };
        // A tunnel with connections is not deleted, and connectors that still know the secret would be back.
        client.rotate_tunnel_secret(account, &own.id, &TunnelSecret::random()).await?;
        client.clean_up_tunnel(account, &own.id).await?;
        Ok(client.delete_tunnel(account, &own.id).await?)
    }

    async fn lead_to(&self, client: &Client, zone: &Zone, own: &TunnelId) -> Result<Pointed, TunnelError> {
        let mut batch = Batch::default();
        for route in &self.target.routes {
            let listing = name_records(client, &zone.id, &route.hostname).await?;
            batch.append(plan_alias(&listing, &route.hostname, &own.host(), &self.target.owner)?);
        }
        if batch.is_empty() {
            return Ok(Pointed::AlreadyRight);
        }
        client.batch(&zone.id, &batch).await?;
        Ok(Pointed::Changed)
    }

    fn known(&self) -> Option<TunnelId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The batch that makes a name one proxied alias of `content`, from a listing of its records. Empty: it already is.
fn plan_alias(
    listing: &[DnsRecord],
    hostname: &str,
    content: &str,
    owner: &Owner,
) -> Result<Batch, ForeignRecords> {
    let mut owned = owned_records(listing, hostname, owner)?;
    let mut batch = Batch::default();
    let alias = owned.iter().position(|record| record.kind == RecordType::Cname);
    match alias.map(|at| owned.remove(at)) {
        Some(alias) if alias.content == content && alias.proxied => {}
        // One change for the key that spreads to the edge.
        Some(alias) => batch.patches.push(PatchRecord {
            id: alias.id.clone(),
            name: hostname.to_owned(),
            kind: RecordType::Cname,
            content: Some(content.to_owned()),
            proxied: Some(true),
            ttl: Some(TTL_AUTO),
            comment: Some(owner.comment().to_owned()),
        }),
        None => batch.posts.push(NewRecord {
            name: hostname.to_owned(),
            kind: RecordType::Cname,
            content: content.to_owned(),
            proxied: true,
            ttl: TTL_AUTO,
            comment: owner.comment().to_owned(),
        }),
    }
    batch.deletes = owned.into_iter().map(|record| record.id.clone()).collect();
    Ok(batch)
}
