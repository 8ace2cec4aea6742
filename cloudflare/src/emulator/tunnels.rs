//! Tunnels: what the emulator keeps of them. cloudflared itself is not here: the control API says which connector asks to
//! be let in, and from where.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Failure;
use super::model::{Database, new_id, now};

/// What an alias ends with that leads to a tunnel.
pub(super) const SUFFIX: &str = ".cfargotunnel.com";
/// Bytes of a secret, at least.
const SECRET_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tunnel {
    pub(super) id: String,
    pub(super) name: String,
    secret: String,
    config_src: String,
    pub(super) config: Option<Value>,
    pub(super) version: u32,
    pub(super) connections: Vec<Connection>,
    was_active: bool,
    created_at: String,
    pub(super) deleted_at: Option<String>,
}

/// A connector that was let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Connection {
    id: String,
    opened_at: String,
}

/// Fields as a client sends them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Input {
    name: Option<String>,
    config_src: Option<String>,
    tunnel_secret: Option<String>,
}

/// What the token of a tunnel holds, as cloudflared reads it.
#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "a")]
    account: String,
    #[serde(rename = "t")]
    tunnel: String,
    #[serde(rename = "s")]
    secret: String,
}

fn checked(secret: &str) -> Result<(), Failure> {
    let long = STANDARD.decode(secret).is_ok_and(|bytes| bytes.len() >= SECRET_BYTES);
    if long {
        Ok(())
    } else {
        Err(Failure::bad_request(1002, "tunnel_secret must be base64 of at least 32 bytes"))
    }
}

/// One that is not deleted.
pub(super) fn find<'a>(database: &'a Database, id: &str) -> Result<&'a Tunnel, Failure> {
    let live = |tunnel: &&Tunnel| tunnel.id == id && tunnel.deleted_at.is_none();
    database.tunnels.iter().find(live).ok_or_else(missing)
}

fn find_mut<'a>(database: &'a mut Database, id: &str) -> Result<&'a mut Tunnel, Failure> {
    let live = |tunnel: &&mut Tunnel| tunnel.id == id && tunnel.deleted_at.is_none();
    database.tunnels.iter_mut().find(live).ok_or_else(missing)
}

fn missing() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, 1003, "tunnel not found")
}

pub(super) fn create(database: &mut Database, input: Input) -> Result<Tunnel, Failure> {
    let name = input.name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::bad_request(1002, "name is required"))?;
    if database.tunnels.iter().any(|other| other.name == name && other.deleted_at.is_none()) {
        let message = "You already have a tunnel with this name. Delete the existing tunnel, or choose a different name for your new tunnel";
        return Err(Failure::new(StatusCode::CONFLICT, 1013, message));
    }
    let secret = input.tunnel_secret.unwrap_or_else(|| STANDARD.encode(rand::random::<[u8; SECRET_BYTES]>()));
    checked(&secret)?;
    let tunnel = Tunnel {
        id: uuid(),
        name,
        secret,
        config_src: input.config_src.unwrap_or_else(|| "local".to_owned()),
        config: None,
        version: 0,
        connections: Vec::new(),
        was_active: false,
        created_at: now(),
        deleted_at: None,
    };
    database.tunnels.push(tunnel.clone());
    Ok(tunnel)
}

/// 32 hexadecimal digits in the groups of a UUID.
fn uuid() -> String {
    let id = new_id();
    let groups = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]];
    groups.join("-")
}

pub(super) fn patch(database: &mut Database, id: &str, input: Input) -> Result<Tunnel, Failure> {
    let tunnel = find_mut(database, id)?;
    if let Some(secret) = input.tunnel_secret {
        checked(&secret)?;
        // What is connected stays so.
        tunnel.secret = secret;
    }
    if let Some(name) = input.name {
        tunnel.name = name;
    }
    Ok(tunnel.clone())
}

pub(super) fn delete(database: &mut Database, id: &str) -> Result<Tunnel, Failure> {
    let tunnel = find_mut(database, id)?;
    if !tunnel.connections.is_empty() {
        return Err(Failure::bad_request(1022, "Cannot delete tunnel because it has active connections"));
    }
    tunnel.deleted_at = Some(now());
    Ok(tunnel.clone())
}

pub(super) fn configure(database: &mut Database, id: &str, config: Value) -> Result<Tunnel, Failure> {
    let refuse = |message: &str| Err(Failure::bad_request(1056, format!("Bad Configuration: {message}")));
    let rules = config["ingress"].as_array().cloned().unwrap_or_default();
    match rules.split_last() {
        None => return refuse("at least one ingress rule is needed"),
        Some((last, _)) if last["hostname"].as_str().is_some_and(|name| !name.is_empty()) => {
            return refuse("the last ingress rule must match all hostnames");
        }
        Some(_) if rules.iter().any(|rule| !rule["service"].is_string()) => {
            return refuse("each ingress rule needs a service");
        }
        Some(_) => {}
    }
    let tunnel = find_mut(database, id)?;
    tunnel.config = Some(config);
    tunnel.version += 1;
    Ok(tunnel.clone())
}

pub(super) fn clean_up(database: &mut Database, id: &str) -> Result<(), Failure> {
    find_mut(database, id)?.connections.clear();
    Ok(())
}

/// A connector shows its token: let in if the secret in it is the right one.
pub(super) fn connect(database: &mut Database, token: &str) -> Result<(), Failure> {
    let refused = || Failure::new(StatusCode::UNAUTHORIZED, 1000, "Unauthorized: Invalid tunnel secret");
    let bytes = STANDARD.decode(token).map_err(|_| refused())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| refused())?;
    let tunnel = find_mut(database, &token.tunnel).map_err(|_| refused())?;
    if tunnel.secret != token.secret {
        return Err(refused());
    }
    tunnel.connections.push(Connection { id: uuid(), opened_at: now() });
    tunnel.was_active = true;
    Ok(())
}

impl Tunnel {
    /// For its connectors.
    pub(super) fn token(&self, account: &str) -> String {
        let token =
            Token { account: account.to_owned(), tunnel: self.id.clone(), secret: self.secret.clone() };
        STANDARD.encode(json!(token).to_string())
    }

    /// The service that answers for a name; None: no connector is there, or no rule is for the name.
    pub(super) fn service(&self, name: &str) -> Option<&str> {
        if self.connections.is_empty() {
            return None;
        }
        let rules = self.config.as_ref()?["ingress"].as_array()?;
        let is_for = |rule: &&Value| rule["hostname"].as_str().is_none_or(|known| known == name);
        rules.iter().find(is_for)?["service"].as_str()
    }

    pub(super) fn to_api(&self, account: &str) -> Value {
        let status = match (self.connections.is_empty(), self.was_active) {
            (false, _) => "healthy",
            (true, true) => "down",
            (true, false) => "inactive",
        };
        json!({
            "id": self.id, "account_tag": account, "name": self.name, "status": status, "tun_type": "cfd_tunnel",
            "config_src": self.config_src, "remote_config": self.config_src == "cloudflare",
            "connections": self.connections, "conns_active_at": self.connections.first().map(|one| &one.opened_at),
            "conns_inactive_at": null, "created_at": self.created_at, "deleted_at": self.deleted_at, "metadata": {},
        })
    }
}
