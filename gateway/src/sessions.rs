//! Sessions of REST in the catalog: begun, refreshed, ended, and looked up with each request.

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write};
use diptych_core::ids::FamilyId;
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{Promise, Record, TokenFamily};
use diptych_core::session::{self, FAMILY_MS, Grant, Holder, TokenError, TokenKind, Tokens};
use rand::Rng;

use crate::authority::may_write;
use crate::commit::commit_plain;
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::confirm;
use crate::recent::recent;

/// Sessions that are looked at at once.
const PAGE: usize = 1_000;
/// Rounds after which a session that others keep changing is given up.
const ROUNDS: usize = 8;

fn unauthorized(reason: impl Into<String>) -> GatewayError {
    GatewayError::Unauthorized(reason.into())
}

fn ended() -> GatewayError {
    unauthorized("its session was ended, begin a new one")
}

/// Neither was it begun in this site, nor has the other one told of it.
fn unknown() -> GatewayError {
    unauthorized("its session is not known in this site")
}

fn too_long(error: &TokenError) -> GatewayError {
    GatewayError::InvalidArgument(error.to_string())
}

/// Begins a session for who has shown a token of its own; its name, and its first tokens.
pub(crate) async fn begin(context: &Context, holder: Holder) -> Result<(FamilyId, Tokens)> {
    let lease = may_write(context.authority())?;
    let now = context.clock().now_ms();
    let family = FamilyId(rand::rng().random());
    let serial = rand::rng().random();
    let tokens = session::issue(&context.keyring(), (family, holder), serial, now + FAMILY_MS, now);
    let tokens = tokens.map_err(|error| too_long(&error))?;
    if put(context, &lease, family, Expect::Absent, &tokens.record).await? {
        return Ok((family, tokens));
    }
    Err(GatewayError::Internal("a session's id was taken".to_owned()))
}

/// Changes a refresh token for the next two, if its holder is still one. One that was changed before ends the session: its
/// holder or somebody else has a stolen one.
pub(crate) async fn refresh(
    context: &Context,
    shown: &str,
    still: impl FnOnce(&Holder) -> Result<()>,
) -> Result<(Grant, Tokens)> {
    let grant = read(context, TokenKind::Refresh, shown)?;
    still(&grant.holder)?;
    for _ in 0..ROUNDS {
        let lease = may_write(context.authority())?;
        let (raw, family) = find(context, grant.family).await?;
        if family.revoked {
            return Err(ended());
        }
        if !family.takes(shown) {
            if put(context, &lease, grant.family, Expect::Value(raw), &family.ended()).await? {
                let family = grant.family;
                tracing::warn!(%family, "a refresh token was used a second time: its session is ended");
                return Err(unauthorized(
                    "the refresh token was used before: its session is ended, begin a new one",
                ));
            }
            continue;
        }
        let now = context.clock().now_ms();
        let serial = rand::rng().random();
        let holder = (grant.family, grant.holder.clone());
        let next = session::issue(&context.keyring(), holder, serial, family.ends_ms, now);
        let next = next.map_err(|error| too_long(&error))?;
        if put(context, &lease, grant.family, Expect::Value(raw), &next.record).await? {
            return Ok((grant, next));
        }
    }
    Err(GatewayError::Busy("others keep changing the same session"))
}

/// Ends a session: none of its tokens is good any more, a second later in each gateway of this site, and in the other one once
/// its feed has told it. Which that does not, since the line is cut, takes them for reads until they run out.
pub(crate) async fn end(context: &Context, family: FamilyId) -> Result<()> {
    mark_ended(context, family).await?;
    confirm(context, Promise::default(), context.catalog().position().await?).await
}

/// Ends every session of a user; how many there were.
pub(crate) async fn end_of_user(context: &Context, name: &str) -> Result<u64> {
    let (user, mut ended) = (Some(session::user_hash(name)), 0);
    let mut range = keys::token_families();
    loop {
        let page = context.catalog().view().await?.scan(&range, PAGE)?;
        for (key, raw) in &page.entries {
            let record = TokenFamily::decode(raw)?;
            if let Some(family) = keys::family_of(key).filter(|_| record.user_hash == user && !record.revoked)
            {
                mark_ended(context, family).await?;
                ended += 1;
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => break,
        }
    }
    confirm(context, Promise::default(), context.catalog().position().await?).await?;
    Ok(ended)
}

async fn mark_ended(context: &Context, family: FamilyId) -> Result<()> {
    for _ in 0..ROUNDS {
        let lease = may_write(context.authority())?;
        let (raw, record) = find(context, family).await?;
        if record.revoked || put(context, &lease, family, Expect::Value(raw), &record.ended()).await? {
            return Ok(());
        }
    }
    Err(GatewayError::Busy("others keep changing the same session"))
}

/// What a session token says, if it is good.
pub(crate) async fn check(context: &Context, shown: &str) -> Result<Grant> {
    let grant = read(context, TokenKind::Session, shown)?;
    let family = recent(context.catalog().as_ref(), &keys::token_family(grant.family)).await?;
    match family.map(|family: TokenFamily| family.revoked) {
        Some(false) => Ok(grant),
        Some(true) => Err(ended()),
        None => Err(unknown()),
    }
}

fn read(context: &Context, kind: TokenKind, shown: &str) -> Result<Grant> {
    let grant = session::read(&context.keyring(), kind, shown, context.clock().now_ms());
    grant.map_err(|error| unauthorized(error.to_string()))
}

async fn find(context: &Context, family: FamilyId) -> Result<(Bytes, TokenFamily)> {
    let raw = context.catalog().view().await?.get(&keys::token_family(family))?.ok_or_else(unknown)?;
    let record = TokenFamily::decode(&raw)?;
    Ok((raw, record))
}

/// Writes a family's record, if it still is as it was seen.
async fn put(
    context: &Context,
    lease: &SubLease,
    family: FamilyId,
    expect: Expect,
    record: &TokenFamily,
) -> Result<bool> {
    let key = keys::token_family(family);
    let value = Bytes::from(record.encode());
    let change = Change {
        guards: vec![Guard { key: key.clone(), expect }],
        writes: vec![Write::Put(key.clone(), value.clone())],
    };
    let landed = |view: &dyn View| Ok(view.get(&key)?.as_ref() == Some(&value));
    commit_plain(context, lease, change, landed).await
}
