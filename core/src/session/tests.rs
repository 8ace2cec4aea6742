use proptest::prelude::*;

use super::*;
use crate::cipher::SecretKey;
use crate::ids::{ClusterId, Epoch};
use crate::keyring::{NewRingKey, RingKeyState};

const NOW: u64 = 1_790_000_000_000;
const FAMILY: FamilyId = FamilyId([1; 16]);

fn keyring(key: u8) -> Keyring {
    Keyring::create(ClusterId([9; 16]), new_key(key))
}

fn new_key(key: u8) -> NewRingKey {
    NewRingKey { key: SecretKey::new([key; 32]), nonce: [key; 12], made_ms: 1 }
}

fn jane() -> Holder {
    let extra = BTreeMap::from([("scopes".to_owned(), vec!["read".to_owned(), "write".to_owned()])]);
    let groups = vec!["readers".to_owned(), "writers".to_owned()];
    Holder::User(User { name: "jane".to_owned(), uid: Some("u1".to_owned()), groups, extra })
}

fn tokens(keyring: &Keyring) -> Tokens {
    issue(keyring, (FAMILY, jane()), [2; 16], NOW + FAMILY_MS, NOW).expect("tokens")
}

#[test]
fn both_tokens_say_whose_they_are_until_they_run_out() {
    let keyring = keyring(3);
    let tokens = tokens(&keyring);
    for (kind, text, lives) in
        [(TokenKind::Session, &tokens.session, SESSION_MS), (TokenKind::Refresh, &tokens.refresh, FAMILY_MS)]
    {
        assert_eq!(TokenKind::of(text), Some(kind));
        let grant = Grant { family: FAMILY, holder: jane(), expires_ms: NOW + lives, serial: [2; 16] };
        assert_eq!(read(&keyring, kind, text, NOW + lives - 1), Ok(grant));
        assert_eq!(read(&keyring, kind, text, NOW + lives), Err(TokenError::Expired));
    }
    assert_eq!(tokens.session_expires_ms, NOW + SESSION_MS);
}

#[test]
fn a_session_token_never_outlives_its_family() {
    let tokens = issue(&keyring(3), (FAMILY, jane()), [2; 16], NOW + 5, NOW).expect("tokens");
    assert_eq!(tokens.session_expires_ms, NOW + 5);
}

#[test]
fn one_kind_is_not_taken_for_the_other() {
    let keyring = keyring(3);
    let tokens = tokens(&keyring);
    let refused = |kind: TokenKind| Err(TokenError::Malformed(kind.prefix()));
    assert_eq!(read(&keyring, TokenKind::Session, &tokens.refresh, NOW), refused(TokenKind::Session));
    assert_eq!(read(&keyring, TokenKind::Refresh, &tokens.session, NOW), refused(TokenKind::Refresh));
    let renamed = tokens.refresh.replacen("dpr1.", "dps1.", 1);
    assert_eq!(read(&keyring, TokenKind::Session, &renamed, NOW), Err(TokenError::Forged));
}

#[test]
fn a_token_outlives_the_rotation_of_ring_keys_and_no_other_cluster_takes_it() {
    let old = keyring(3);
    let tokens = tokens(&old);
    let rotated = old.with_ring_key(Epoch(1), new_key(4), RingKeyState::InUse).expect("a number is left");
    assert!(read(&rotated, TokenKind::Session, &tokens.session, NOW).is_ok());
    let newer = issue(&rotated, (FAMILY, jane()), [2; 16], NOW + 5, NOW).expect("tokens");
    let unknown = read(&old, TokenKind::Session, &newer.session, NOW);
    assert!(matches!(unknown, Err(TokenError::Keyring(KeyringError::UnknownRingKey { .. }))), "{unknown:?}");
    let elsewhere = read(&keyring(5), TokenKind::Session, &tokens.session, NOW);
    assert_eq!(elsewhere, Err(TokenError::Forged));
}

#[test]
fn a_holder_with_too_many_groups_gets_no_token_and_a_long_one_is_not_looked_at() {
    let groups = (0..2_000).map(|number| format!("group-{number}")).collect();
    let user = User { name: "jane".to_owned(), uid: None, groups, extra: BTreeMap::new() };
    let refused = issue(&keyring(3), (FAMILY, Holder::User(user)), [2; 16], NOW + 5, NOW);
    assert!(matches!(refused, Err(TokenError::TooLong(length)) if length > MAX_TOKEN));
    let long = format!("dps1.{}", "A".repeat(MAX_TOKEN));
    let refused = read(&keyring(3), TokenKind::Session, &long, NOW);
    assert_eq!(refused, Err(TokenError::TooLong(MAX_TOKEN + 5)));
}

#[test]
fn what_is_no_token_is_refused() {
    for text in
        ["", "dps1.", "dps1..", "dps1.AAAA", "dps1.AAAAAAAA.", "dps1.%.%", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"]
    {
        let refused = read(&keyring(3), TokenKind::Session, text, NOW);
        assert!(refused.is_err(), "{text:?}");
    }
}

#[test]
fn only_the_newest_refresh_token_is_taken_and_none_of_an_ended_family() {
    let keyring = keyring(3);
    let first = tokens(&keyring);
    let second = issue(&keyring, (FAMILY, jane()), [3; 16], NOW + FAMILY_MS, NOW).expect("tokens");
    assert!(first.record.takes(&first.refresh) && second.record.takes(&second.refresh));
    assert!(!second.record.takes(&first.refresh));
    assert!(!second.record.ended().takes(&second.refresh));
}

#[test]
fn a_mark_is_that_of_one_token_under_one_keyring() {
    let old = keyring(3);
    let mark = TokenMark::of(&old, "token");
    let rotated = old.with_ring_key(Epoch(1), new_key(4), RingKeyState::InUse).expect("a number is left");
    assert!(mark.is_of(&rotated, "token") && !mark.is_of(&rotated, "another"));
    assert!(!mark.is_of(&keyring(5), "token"), "by itself it tells nothing of a token");
    assert!(!TokenMark::of(&rotated, "token").is_of(&old, "token"), "its ring key is not there");
}

fn families() -> impl Strategy<Value = TokenFamily> {
    (any::<[u8; 32]>(), any::<u64>(), any::<bool>(), any::<Option<[u8; 32]>>()).prop_map(
        |(refresh_hash, ends_ms, revoked, user_hash)| TokenFamily {
            refresh_hash,
            ends_ms,
            revoked,
            user_hash,
        },
    )
}

proptest! {
    #[test]
    fn any_changed_character_is_noticed(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let keyring = keyring(3);
        let tokens = tokens(&keyring);
        let at = at.index(tokens.session.len());
        prop_assume!(tokens.session[at..=at] != to);
        let changed = format!("{}{to}{}", &tokens.session[..at], &tokens.session[at + 1..]);
        prop_assert!(read(&keyring, TokenKind::Session, &changed, NOW).is_err());
    }

    #[test]
    fn a_merge_ends_what_either_ended_and_repeating_it_changes_nothing(here in families(), unseen in families()) {
        let merged = here.with_unseen(unseen);
        prop_assert_eq!(merged.revoked, here.revoked || unseen.revoked);
        prop_assert_eq!(merged.with_unseen(unseen), merged);
        prop_assert_eq!((merged.refresh_hash, merged.ends_ms), (here.refresh_hash, here.ends_ms));
    }
}
