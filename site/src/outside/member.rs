//! A node outside that has joined: its certificate is the right to the next one.

use std::time::SystemTime;

use diptych_core::ids::NodeName;
use diptych_wire::agent::Door;
use diptych_wire::authority::Issued;
use diptych_wire::peer::OutsideQuestion;
use diptych_wire::renewal::Life;
use diptych_wire::tls::{Credentials, TlsError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::doors::{NoAnswer, ask_doors};
use crate::peer::PeerClient;

/// How a node outside belongs to the cluster; kept with its agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Name of the token that it joined with.
    pub token: String,
    /// Peer doors of both sites.
    pub doors: Vec<Door>,
}

/// Why there is no next certificate.
#[derive(Debug, Error)]
pub enum MemberError {
    /// Nobody trusts it any more, so that nobody can be asked.
    #[error(
        "the certificate of node {0} has ended: delete Secret <StorageCluster>-outside-{0} of the site that declares it, and start the \
         agent with the token that is made in its place: what its devices hold stays"
    )]
    Ended(NodeName),
    /// The active site refuses, for good.
    #[error("the active site gives node {node} no further certificate: {reason}")]
    Refused {
        /// The node.
        node: NodeName,
        /// Its words.
        reason: String,
    },
    /// Nobody can give one now.
    #[error("no site renews the certificate now: {0}")]
    NotNow(String),
    /// What is in use can't be read.
    #[error(transparent)]
    Unusable(#[from] TlsError),
}

impl Membership {
    /// Whether a certificate can still be renewed.
    ///
    /// # Errors
    /// It has ended, or can't be read.
    pub fn check(node: &NodeName, held: &Issued, now: SystemTime) -> Result<(), MemberError> {
        let own = held.chain.first().ok_or_else(|| TlsError::Unusable("it is empty".to_owned()))?;
        if Life::of(own)?.is_over(now) { Err(MemberError::Ended(node.clone())) } else { Ok(()) }
    }

    /// The next certificate and the authority's (PEM), for a signing request (PEM) of the key of the one that is held.
    pub async fn renew(&self, node: &NodeName, held: &Issued, csr: String) -> Result<String, MemberError> {
        Self::check(node, held, SystemTime::now())?;
        let question = OutsideQuestion { csr };
        let ask = async |door: PeerClient| door.renew_outside(&question).await;
        let answer = ask_doors(&self.doors, &Credentials::new(held)?, ask).await;
        answer.map(|answer| answer.chain).map_err(|none| match none {
            NoAnswer::Refused(reason) => MemberError::Refused { node: node.clone(), reason },
            NoAnswer::NotNow(reason) => MemberError::NotNow(reason),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use diptych_catalog::{Batch, Change, Write};
    use diptych_core::ids::SiteName;
    use diptych_core::keys;
    use diptych_wire::authority::{Authority, Request, chain_pem, signing_request};
    use diptych_wire::files::{IdentityFiles, write_private};
    use diptych_wire::http::serve;
    use diptych_wire::identity::{Expected, Identity, Role};
    use diptych_wire::renewal::{RenewalError, renew_if_due};
    use tokio::net::TcpListener;

    use super::*;
    use crate::context::SiteContext;
    use crate::door::{DoorParts, router};
    use crate::outside::{Admission, OutsideToken};
    use crate::testing::{CLUSTER, admission, issued, willing};

    /// A door of `site`, whose keeper is that of `context`.
    async fn door(context: &SiteContext, authority: &Authority, site: &str) -> Door {
        let outside = Arc::new(Admission::of(context));
        let parts = DoorParts { outside, ..willing(Arc::clone(&context.catalog), "other", None) };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let own = issued(authority, site, Role::Gateway);
        tokio::spawn(async move { serve(listener, &own, Expected::any_of(CLUSTER), router(parts)).await });
        Door { address, site: site.parse().expect("a name") }
    }

    /// A door that nobody opens any more.
    async fn dead_door(site: &str) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        Door { address, site: site.parse().expect("a name") }
    }

    /// Node `o1` that has joined, and whose certificate has an hour left.
    async fn nearly_over(
        authority: &Authority,
        doors: Vec<Door>,
        folder: &std::path::Path,
    ) -> (Membership, IdentityFiles) {
        let (key, csr) = signing_request().expect("a request");
        let token = OutsideToken::make(authority, CLUSTER, "t1", doors.clone()).expect("a token");
        token.join(&csr).await.expect("it joins");
        let identity = Identity {
            cluster: CLUSTER,
            site: SiteName::outside(),
            role: Role::Agent,
            name: "o1".to_owned(),
        };
        let short = Request::new(identity, Duration::from_hours(1));
        let chain = chain_pem(&authority.sign(&csr, &short).expect("it is signed"));
        let path = |name: &str| folder.join(name);
        let files =
            IdentityFiles { authority: path("ca.crt"), certificate: path("tls.crt"), key: path("tls.key") };
        for (path, text) in
            [(&files.authority, authority.certificate_pem()), (&files.certificate, chain), (&files.key, key)]
        {
            write_private(path, text.as_bytes()).expect("it is written");
        }
        (Membership { token: "t1".to_owned(), doors }, files)
    }

    async fn renew(member: &Membership, files: &IdentityFiles) -> Result<bool, RenewalError> {
        let node: NodeName = "o1".parse().expect("a name");
        renew_if_due(files, async |csr: String| {
            let held = files.read().expect("they read").issued().expect("they fit");
            member.renew(&node, &held, csr).await.map_err(|error| error.to_string())
        })
        .await
    }

    #[tokio::test]
    async fn an_outside_agent_is_renewed_by_the_active_site_where_the_other_is_dead_or_passive() {
        diptych_wire::tls::install_provider();
        let authority = Authority::create(CLUSTER).expect("an authority");
        let (active, _active, _folder) = admission(&authority).await;
        let (passive, standing, _other) = admission(&authority).await;
        standing.send_modify(|standing| standing.active = false);
        let doors = vec![
            dead_door("east").await,
            door(&passive, &authority, "east").await,
            door(&active, &authority, "west").await,
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let (member, files) = nearly_over(&authority, doors.clone(), folder.path()).await;
        let held = files.read().expect("they read").certificate;
        let nobody = Membership { doors: doors[..2].to_vec(), ..member.clone() };
        let error = renew(&nobody, &files).await.expect_err("the active one is not asked").to_string();
        assert!(error.contains("no site renews the certificate now: site east: "), "{error}");
        assert_eq!(files.read().expect("they read").certificate, held, "the old one stays");
        assert!(renew(&member, &files).await.expect("the active one signs"));
        assert_ne!(files.read().expect("they read").certificate, held);
        assert!(!renew(&member, &files).await.expect("it is fresh"));
    }

    #[tokio::test]
    async fn a_node_that_was_taken_away_is_told_so_and_one_whose_certificate_has_ended_asks_nobody() {
        diptych_wire::tls::install_provider();
        let authority = Authority::create(CLUSTER).expect("an authority");
        let (context, _standing, _folder) = admission(&authority).await;
        let doors = vec![door(&context, &authority, "west").await];
        let folder = tempfile::tempdir().expect("a folder");
        let (member, files) = nearly_over(&authority, doors, folder.path()).await;
        let node: NodeName = "o1".parse().expect("a name");
        let gone = Change::blind(vec![Write::Delete(keys::outside_node(&node))]);
        context.catalog.commit(Batch::one(None, gone)).await.expect("it commits");
        let refused = renew(&member, &files).await.expect_err("it is not declared").to_string();
        assert!(refused.contains("node o1 is not declared outside any more: declare it again"), "{refused}");
        let held = files.read().expect("they read").issued().expect("they fit");
        let later = SystemTime::now() + Duration::from_hours(2);
        let ended = Membership::check(&node, &held, later).expect_err("it has ended").to_string();
        assert!(ended.contains("delete Secret <StorageCluster>-outside-o1"), "{ended}");
    }
}
