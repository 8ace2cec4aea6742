//! Two sites in a network namespace each, with cables that can be cut: east—west, and each to the outside, which is the
//! namespace of the caller.
//!
//! Cutting is dropping packets (nftables, in the site's own namespace): nobody is told, as with a cable.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The namespaces; gone when this is dropped.
pub struct Network {
    prefix: String,
    subnet: u8,
}

/// A site's end of its cables.
struct End {
    site: &'static str,
    other: &'static str,
}

const ENDS: [End; 2] = [End { site: "east", other: "west" }, End { site: "west", other: "east" }];

impl Network {
    /// Makes both namespaces and the cables. Needs root.
    pub fn make() -> Result<Self> {
        let id = std::process::id();
        // Of the range that is set aside for tests of networks (RFC 2544).
        let network = Self { prefix: format!("dpt{}", id % 100_000), subnet: (id % 254) as u8 + 1 };
        for End { site, .. } in &ENDS {
            ip(&["netns", "add", &network.namespace(site)])?;
            ip(&["-n", &network.namespace(site), "link", "set", "lo", "up"])?;
            ip(&["-n", &network.namespace(site), "addr", "add", &network.address(site), "dev", "lo"])?;
        }
        let (east, west) = (network.namespace("east"), network.namespace("west"));
        ip(&["link", "add", "peer", "netns", &east, "type", "veth", "peer", "name", "peer", "netns", &west])?;
        for End { site, other } in &ENDS {
            let (namespace, cable) = (network.namespace(site), format!("{}{}", network.prefix, &site[..1]));
            let (here, there, outside) =
                (network.address(site), network.address(other), network.address("outside"));
            ip(&["-n", &namespace, "link", "set", "peer", "up"])?;
            ip(&["-n", &namespace, "route", "add", &there, "dev", "peer", "src", &here])?;
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", "outside", "netns", &namespace])?;
            ip(&["addr", "add", &format!("{outside}/32"), "dev", &cable])?;
            ip(&["link", "set", &cable, "up"])?;
            ip(&["-n", &namespace, "link", "set", "outside", "up"])?;
            ip(&["route", "add", &here, "dev", &cable, "src", &outside])?;
            ip(&["-n", &namespace, "route", "add", &outside, "dev", "outside", "src", &here])?;
        }
        Ok(network)
    }

    fn namespace(&self, site: &str) -> String {
        format!("{}-{site}", self.prefix)
    }

    /// Of `east`, `west`, or `outside`.
    pub fn address(&self, place: &str) -> String {
        let last = match place {
            "east" => 2,
            "west" => 3,
            _ => 1,
        };
        Ipv4Addr::new(198, 18, self.subnet, last).to_string()
    }

    /// What `diptych dev` is told of it.
    pub fn places(&self) -> Vec<String> {
        let site = |site| format!("--place={site}={}@{}", self.address(site), self.namespace(site));
        vec![site("east"), site("west"), format!("--place=outside={}", self.address("outside"))]
    }

    /// Cuts the cable between the sites; both still reach the outside.
    pub fn cut_between(&self) -> Result<()> {
        for End { site, other } in &ENDS {
            self.drop_all(site, &format!("ip saddr {} drop;", self.address(other)), "")?;
        }
        Ok(())
    }

    /// Cuts every cable of a site.
    pub fn cut_off(&self, site: &str) -> Result<()> {
        self.drop_all(site, "iifname != lo drop;", "oifname != lo drop;")
    }

    /// Puts every cable of a site right.
    pub fn heal(&self, site: &str) -> Result<()> {
        self.inside(site, &["nft", "flush", "ruleset"])
    }

    /// A command inside a site's namespace.
    pub fn command(&self, site: &str, program: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace(site), program]);
        command
    }

    fn drop_all(&self, site: &str, incoming: &str, outgoing: &str) -> Result<()> {
        let rules = format!(
            "flush ruleset
            table inet cut {{
                chain incoming {{ type filter hook input priority 0; {incoming} }}
                chain outgoing {{ type filter hook output priority 0; {outgoing} }}
            }}"
        );
        self.inside(site, &["nft", &rules])
    }

    fn inside(&self, site: &str, words: &[&str]) -> Result<()> {
        ip(&[&["netns", "exec", &self.namespace(site)], words].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for End { site, .. } in &ENDS {
            // The cables go with it.
            let _ = ip(&["netns", "del", &self.namespace(site)]);
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(words)
        .output()
        .context("ip can't be started: `cargo xtask test` installs iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {} (root is needed)", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
