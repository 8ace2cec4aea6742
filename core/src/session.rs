//! Sessions of REST: two signed tokens at a time, and one record that says whether they are still good.
//!
//! ```text
//! token   = "dps1." or "dpr1.", payload, ".", signature        both in base64url without padding
//! payload   = number of the ring key (u32, little-endian), Grant in postcard
//! signature = HMAC-SHA256 of all before its dot, by that ring key's subkey for token signatures
//! ```
//! A *session token* is good for [`SESSION_MS`]. A *refresh token* is good once: it is changed for the next two. All that follow
//! from one beginning are a *family* (`t/`), which ends as a whole: [`FAMILY_MS`] after it began, when its holder ends it, or
//! when a refresh token is shown again, since then its holder or somebody else has a stolen one (RFC 9700, 4.14.2).

mod mark;

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::cipher::{Purpose, hmac_sha256};
use crate::ids::{FamilyId, RingKeyNumber};
use crate::keyring::{Keyring, KeyringError, RingKey};
use crate::records::TokenFamily;

pub use mark::TokenMark;

/// Milliseconds that a session token is good for.
pub const SESSION_MS: u64 = 24 * 60 * 60 * 1000;
/// Milliseconds after its beginning when a family ends, however often it was refreshed: what was true of its holder then, as
/// its groups, counts for no longer.
pub const FAMILY_MS: u64 = 7 * SESSION_MS;
/// Bytes of the longest token: it has to fit a header of every proxy on the way.
pub const MAX_TOKEN: usize = 8 << 10;

/// Who holds a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Whoever showed a configured token: everything in this namespace, as long as that token is configured.
    Configured {
        /// The namespace.
        namespace: String,
        /// Of the token.
        token: TokenMark,
    },
    /// A user of Kubernetes: what it may do is asked each time.
    User(User),
}

/// A user, as the API server that knows its token describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// Its name: rights are bound to it.
    pub name: String,
    /// Tells it from another one of that name, earlier or later.
    pub uid: Option<String>,
    /// Its groups: rights are bound to these, too.
    pub groups: Vec<String>,
    /// What its authenticator says besides.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Holder {
    /// What the catalog keeps of whose a session is; None: of no user. See [`user_hash`].
    fn user_hash(&self) -> Option<[u8; 32]> {
        match self {
            Self::Configured { .. } => None,
            Self::User(user) => Some(user_hash(&user.name)),
        }
    }
}

/// By which all sessions of a user are found: SHA-256 of its name.
pub fn user_hash(name: &str) -> [u8; 32] {
    Sha256::digest(name).into()
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The session.
    pub family: FamilyId,
    /// Whose it is.
    pub holder: Holder,
    /// Milliseconds since 1970.
    pub expires_ms: u64,
    /// Random, fresh for each pair of tokens.
    pub serial: [u8; 16],
}

/// What a token is for: one kind is never taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Shown with each request.
    Session,
    /// Changed for the next two, once.
    Refresh,
}

impl TokenKind {
    /// What a token of the kind begins with; it is signed, too.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Session => "dps1.",
            Self::Refresh => "dpr1.",
        }
    }

    /// The kind that a text claims to be. None: it is no token of a session.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Session, Self::Refresh].into_iter().find(|kind| text.starts_with(kind.prefix()))
    }
}

/// Why a token is not good, or can't be made. No error tells anything of a token but its length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Another kind of token, or none.
    #[error("it does not read as a token that begins with {0:?}")]
    Malformed(&'static str),
    /// Longer than [`MAX_TOKEN`].
    #[error(
        "a token of {0} bytes, where {MAX_TOKEN} are allowed: a user with so many groups shows its own token each time"
    )]
    TooLong(usize),
    /// Its ring key is not there.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Altered, or of another cluster.
    #[error("its signature does not fit")]
    Forged,
    /// Its time has run out.
    #[error("it has expired")]
    Expired,
}

/// Both tokens, fresh. They never print.
pub struct Tokens {
    /// Shown with each request.
    pub session: Zeroizing<String>,
    /// Milliseconds since 1970 when it runs out.
    pub session_expires_ms: u64,
    /// Good once.
    pub refresh: Zeroizing<String>,
    /// What the catalog keeps from now on.
    pub record: TokenFamily,
}

/// Makes the tokens of a family that ends at `ends_ms`: for its beginning, or for a refresh. `serial` is random and fresh.
///
/// # Errors
/// `TooLong`.
pub fn issue(
    keyring: &Keyring,
    (family, holder): (FamilyId, Holder),
    serial: [u8; 16],
    ends_ms: u64,
    now_ms: u64,
) -> Result<Tokens, TokenError> {
    let session_expires_ms = ends_ms.min(now_ms + SESSION_MS);
    let user_hash = holder.user_hash();
    let mut grant = Grant { family, holder, expires_ms: session_expires_ms, serial };
    let session = sign(keyring.current(), TokenKind::Session, &grant)?;
    grant.expires_ms = ends_ms;
    let refresh = sign(keyring.current(), TokenKind::Refresh, &grant)?;
    let record = TokenFamily { refresh_hash: hash(&refresh), ends_ms, revoked: false, user_hash };
    Ok(Tokens { session, session_expires_ms, refresh, record })
}

fn sign(ring_key: &RingKey, kind: TokenKind, grant: &Grant) -> Result<Zeroizing<String>, TokenError> {
    let payload = ring_key.number().0.to_le_bytes().to_vec();
    let payload = postcard::to_extend(grant, payload).expect("a vector takes every grant");
    let mut text = Zeroizing::new(kind.prefix().to_owned());
    BASE64URL_NOPAD.encode_append(&payload, &mut text);
    let signature = signature(ring_key, &text);
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    if text.len() > MAX_TOKEN { Err(TokenError::TooLong(text.len())) } else { Ok(text) }
}

fn signature(ring_key: &RingKey, signed: &str) -> [u8; 32] {
    hmac_sha256(&ring_key.subkey(Purpose::TokenSignature, b""), signed.as_bytes())
}

/// What a token says, if it was made here or in the other site, was not altered, and has not run out. Whether its family was
/// revoked is in the catalog.
///
/// # Errors
/// All of [`TokenError`].
pub fn read(keyring: &Keyring, kind: TokenKind, text: &str, now_ms: u64) -> Result<Grant, TokenError> {
    let malformed = TokenError::Malformed(kind.prefix());
    if text.len() > MAX_TOKEN {
        return Err(TokenError::TooLong(text.len()));
    }
    let split = text
        .rsplit_once('.')
        .and_then(|(signed, mac)| Some((signed, signed.strip_prefix(kind.prefix())?, mac)));
    let (signed, payload, mac) = split.ok_or_else(|| malformed.clone())?;
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let (payload, mac) = decode(payload).zip(decode(mac)).ok_or_else(|| malformed.clone())?;
    let (number, grant) = payload.split_first_chunk().ok_or_else(|| malformed.clone())?;
    let ring_key = keyring.ring_key(RingKeyNumber(u32::from_le_bytes(*number)))?;
    if !bool::from(signature(ring_key, signed).ct_eq(&mac)) {
        return Err(TokenError::Forged);
    }
    let grant: Grant = postcard::from_bytes(grant).map_err(|_| malformed)?;
    if now_ms >= grant.expires_ms { Err(TokenError::Expired) } else { Ok(grant) }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl TokenFamily {
    /// Whether this is the refresh token that is good, and not one that was changed before.
    pub fn takes(&self, refresh: &str) -> bool {
        !self.revoked && self.refresh_hash.ct_eq(&hash(refresh)).into()
    }

    /// The same, ended.
    pub fn ended(self) -> Self {
        Self { revoked: true, ..self }
    }

    /// The merge with what a returning site has of the same family: what either ended is ended, and the rest stays as it is
    /// here. A refresh token that only the other one gave out counts as an old one.
    pub fn with_unseen(self, unseen: Self) -> Self {
        Self { revoked: self.revoked || unseen.revoked, ..self }
    }
}

#[cfg(test)]
mod tests;
