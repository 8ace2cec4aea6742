//! Tunnels of an account: each is a way to Cloudflare's edge that a site opens from within (cloudflared).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::calls::{EMPTY, escape};
use super::types::{id, or_default};
use super::{AccountId, Call, Client, Error, Permission};

const TUNNELS_A_PAGE: usize = 100;
/// Bytes of a secret; Cloudflare takes no fewer.
const SECRET_BYTES: usize = 32;

id!(
    /// A tunnel: a UUID.
    TunnelId
);

impl TunnelId {
    /// What an alias leads to where the tunnel answers for a name.
    pub fn host(&self) -> String {
        format!("{self}.cfargotunnel.com")
    }
}

/// What a tunnel's connectors must know. `Debug` shows no part of it.
#[derive(Clone)]
pub struct TunnelSecret(Zeroizing<String>);

impl TunnelSecret {
    /// One that nobody knows.
    pub fn random() -> Self {
        let bytes = Zeroizing::new(rand::random::<[u8; SECRET_BYTES]>());
        Self(Zeroizing::new(STANDARD.encode(bytes.as_slice())))
    }
}

impl fmt::Debug for TunnelSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TunnelSecret(…)")
    }
}

/// What `cloudflared tunnel run --token` takes. `Debug` shows no part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct TunnelToken(Zeroizing<String>);

impl TunnelToken {
    /// As cloudflared takes it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TunnelToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TunnelToken(…)")
    }
}

/// A tunnel as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tunnel {
    /// Id.
    pub id: TunnelId,
    /// Unique among those that are not deleted.
    pub name: String,
    /// `inactive` (never run), `healthy`, `degraded` or `down`.
    #[serde(default)]
    pub status: Option<String>,
}

/// Where a tunnel's requests for a name go, inside the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressRule {
    /// The name; None: every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `http://host:port`, `https://host:port`, or `http_status:404`.
    pub service: String,
    /// How the service is asked.
    #[serde(
        default,
        rename = "originRequest",
        skip_serializing_if = "OriginRequest::is_plain",
        deserialize_with = "or_default"
    )]
    pub origin_request: OriginRequest,
}

/// How cloudflared asks a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginRequest {
    /// The name that the service's certificate must be for.
    #[serde(default, rename = "originServerName", skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl OriginRequest {
    fn is_plain(&self) -> bool {
        self.server_name.is_none()
    }
}

#[derive(Serialize, Deserialize)]
struct Configuration {
    ingress: Vec<IngressRule>,
}

#[derive(Deserialize)]
struct Configured {
    /// Null: nothing was configured yet.
    #[serde(default)]
    config: Option<Configuration>,
}

fn tunnels(account: &AccountId) -> String {
    format!("/accounts/{account}/cfd_tunnel")
}

fn tunnel(account: &AccountId, id: &TunnelId) -> String {
    format!("{}/{id}", tunnels(account))
}

impl Client {
    /// The tunnel of this name that is not deleted.
    pub async fn tunnel_by_name(&self, account: &AccountId, name: &str) -> Result<Option<Tunnel>, Error> {
        let call = Call { name: "list tunnels", permission: Permission::TunnelsRead };
        let path = format!("{}?is_deleted=false&name={}", tunnels(account), escape(name));
        let found: Vec<Tunnel> = self.pages(call, &path, TUNNELS_A_PAGE).await?;
        Ok(found.into_iter().find(|tunnel| tunnel.name == name))
    }

    /// Creates a tunnel that is configured at Cloudflare.
    pub async fn create_tunnel(
        &self,
        account: &AccountId,
        name: &str,
        secret: &TunnelSecret,
    ) -> Result<Tunnel, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            name: &'a str,
            config_src: &'static str,
            tunnel_secret: &'a str,
        }
        let call = Call { name: "create a tunnel", permission: Permission::TunnelsEdit };
        let new = New { name, config_src: "cloudflare", tunnel_secret: &secret.0 };
        Ok(self.send(call, Method::POST, &tunnels(account), Some(&new)).await?.result)
    }

    /// Makes another secret the right one. Connections that are open stay open.
    pub async fn rotate_tunnel_secret(
        &self,
        account: &AccountId,
        id: &TunnelId,
        secret: &TunnelSecret,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Rotated<'a> {
            tunnel_secret: &'a str,
        }
        let call = Call { name: "rotate a tunnel's secret", permission: Permission::TunnelsEdit };
        let rotated = Rotated { tunnel_secret: &secret.0 };
        let path = tunnel(account, id);
        self.send::<IgnoredAny>(call, Method::PATCH, &path, Some(&rotated)).await.map(drop)
    }

    /// Closes all connections of a tunnel; its connectors open new ones as far as their secret is right.
    pub async fn clean_up_tunnel(&self, account: &AccountId, id: &TunnelId) -> Result<(), Error> {
        let call = Call { name: "close a tunnel's connections", permission: Permission::TunnelsEdit };
        let path = format!("{}/connections", tunnel(account, id));
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }

    /// The token for a tunnel's connectors.
    pub async fn tunnel_token(&self, account: &AccountId, id: &TunnelId) -> Result<TunnelToken, Error> {
        let call = Call { name: "read a tunnel's token", permission: Permission::TunnelsEdit };
        let mut text: String = self.get(call, &format!("{}/token", tunnel(account, id))).await?;
        let token = TunnelToken(Zeroizing::new(text.clone()));
        text.zeroize();
        Ok(token)
    }

    /// Where a tunnel's requests go; empty: nothing was configured yet.
    pub async fn tunnel_ingress(
        &self,
        account: &AccountId,
        id: &TunnelId,
    ) -> Result<Vec<IngressRule>, Error> {
        let call = Call { name: "read a tunnel's configuration", permission: Permission::TunnelsRead };
        let path = format!("{}/configurations", tunnel(account, id));
        let configured: Configured = self.get(call, &path).await?;
        let mut ingress = configured.config.map(|config| config.ingress).unwrap_or_default();
        for rule in &mut ingress {
            rule.hostname.take_if(|name| name.is_empty());
        }
        Ok(ingress)
    }

    /// Says where a tunnel's requests go; the last rule must be for every other name.
    pub async fn put_tunnel_ingress(
        &self,
        account: &AccountId,
        id: &TunnelId,
        ingress: Vec<IngressRule>,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Put {
            config: Configuration,
        }
        let call = Call { name: "configure a tunnel", permission: Permission::TunnelsEdit };
        let path = format!("{}/configurations", tunnel(account, id));
        let put = Put { config: Configuration { ingress } };
        self.send::<IgnoredAny>(call, Method::PUT, &path, Some(&put)).await.map(drop)
    }

    /// Deletes a tunnel that has no connections.
    pub async fn delete_tunnel(&self, account: &AccountId, id: &TunnelId) -> Result<(), Error> {
        let call = Call { name: "delete a tunnel", permission: Permission::TunnelsEdit };
        self.send::<IgnoredAny>(call, Method::DELETE, &tunnel(account, id), EMPTY).await.map(drop)
    }
}
