//! What an outside node joins with: a certificate of role `join`, its key, the authority's fingerprint, and the doors.

use std::time::Duration;

use diptych_core::ids::{ClusterId, SiteName};
use diptych_wire::agent::Door;
use diptych_wire::authority::{Authority, AuthorityError, Issued, Request, fingerprint};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::peer::{OutsideAnswer, OutsideQuestion};
use diptych_wire::tls::{Credentials, TlsError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::doors::{NoAnswer, ask_doors};
use crate::peer::PeerClient;

/// A token that was not used for so long is worth nothing.
const VALIDITY: Duration = Duration::from_hours(7 * 24);

/// A token as it lies in its file or Secret, JSON. Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideToken {
    /// Peer doors of both sites: the active one's answers.
    pub doors: Vec<Door>,
    /// SHA-256 of the authority's certificate: nobody else is trusted.
    pub fingerprint: String,
    /// The token's certificate and the authority's, PEM.
    pub certificate: String,
    /// Key of the token's certificate, PEM.
    pub key: String,
}

/// Why a node did not join.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Not what was made.
    #[error("the token can't be read: {0}: copy it again, whole")]
    Unreadable(String),
    /// Another authority's certificate than the one that the token was made under.
    #[error(
        "the token is for the authority {expected} and carries the certificate of {found}: it was altered, have a new one made"
    )]
    Fingerprint {
        /// What the token says.
        expected: String,
        /// Of the certificate in it.
        found: String,
    },
    /// A certificate, but no outside node's token.
    #[error("{0} is no token of an outside node: take the one of Secret <StorageCluster>-outside-<node>")]
    NoToken(Identity),
    /// The active site refuses, for good.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// Nobody admits it now.
    #[error("no site admits this node now: {0}")]
    NotNow(String),
    /// It can't be made.
    #[error("a token can't be made")]
    Authority(#[from] AuthorityError),
}

impl From<TlsError> for TokenError {
    fn from(error: TlsError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl OutsideToken {
    /// A token of this name. Which node it is for stands in the catalog.
    pub fn make(
        authority: &Authority,
        cluster: ClusterId,
        name: &str,
        doors: Vec<Door>,
    ) -> Result<Self, TokenError> {
        let (site, role) = (SiteName::outside(), Role::Join);
        let issued = authority
            .issue(&Request::new(Identity { cluster, site, role, name: name.to_owned() }, VALIDITY))?;
        Ok(Self {
            doors,
            fingerprint: authority.fingerprint(),
            certificate: issued.chain_pem(),
            key: issued.key_pem(),
        })
    }

    /// What its holder speaks with. Looked through first, whole: what a person copied may be anything.
    pub fn credentials(&self) -> Result<Credentials, TokenError> {
        let unreadable = |reason: String| TokenError::Unreadable(reason);
        let issued =
            Issued::from_pem(&self.certificate, &self.key).map_err(|error| unreadable(error.to_string()))?;
        let authority = issued.chain.last().filter(|_| issued.chain.len() == 2);
        let authority =
            authority.ok_or_else(|| unreadable("it has no certificate of the authority".to_owned()))?;
        let found = fingerprint(authority);
        if found != self.fingerprint {
            return Err(TokenError::Fingerprint { expected: self.fingerprint.clone(), found });
        }
        let credentials = Credentials::new(&issued)?;
        let identity = credentials.identity();
        if identity.role != Role::Join || identity.site != SiteName::outside() {
            return Err(TokenError::NoToken(identity.clone()));
        }
        Ok(credentials)
    }

    /// Its name.
    pub fn name(&self) -> Result<String, TokenError> {
        Ok(self.credentials()?.identity().name)
    }

    /// Asks each site's doors with the signing request of a key that never leaves this machine.
    pub async fn join(&self, csr: &str) -> Result<OutsideAnswer, TokenError> {
        let question = OutsideQuestion { csr: csr.to_owned() };
        let ask = async |door: PeerClient| door.join_outside(&question).await;
        ask_doors(&self.doors, &self.credentials()?, ask).await.map_err(|none| match none {
            NoAnswer::Refused(reason) => TokenError::Refused(reason),
            NoAnswer::NotNow(reason) => TokenError::NotNow(reason),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    fn token() -> OutsideToken {
        let authority = Authority::create(CLUSTER).expect("an authority");
        OutsideToken::make(&authority, CLUSTER, "t1", Vec::new()).expect("a token")
    }

    #[test]
    fn a_token_carries_its_authority_and_a_name_that_may_only_join() {
        let credentials = token().credentials().expect("it is whole");
        let identity = credentials.identity();
        assert_eq!(identity.to_string(), format!("diptych://{CLUSTER}/outside/join/t1"));
    }

    #[test]
    fn a_token_with_another_authoritys_certificate_is_refused_before_anybody_is_asked() {
        let (mut altered, other) = (token(), token());
        altered.fingerprint = other.fingerprint;
        assert!(matches!(altered.credentials(), Err(TokenError::Fingerprint { .. })));
    }

    #[test]
    fn a_cut_token_and_a_certificate_that_is_no_token_say_what_they_are() {
        let cut = OutsideToken { certificate: token().certificate[..400].to_owned(), ..token() };
        assert!(cut.credentials().expect_err("it is cut").to_string().ends_with("copy it again, whole"));
        let authority = Authority::create(CLUSTER).expect("an authority");
        let site = SiteName::outside();
        let identity = Identity { cluster: CLUSTER, site, role: Role::Agent, name: "o1".to_owned() };
        let issued = authority.issue(&Request::new(identity, VALIDITY)).expect("a certificate");
        let agent = OutsideToken {
            doors: Vec::new(),
            fingerprint: authority.fingerprint(),
            certificate: issued.chain_pem(),
            key: issued.key_pem(),
        };
        assert!(matches!(agent.credentials(), Err(TokenError::NoToken(_))));
    }
}
