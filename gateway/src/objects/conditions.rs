//! What a request asks of the state that it finds: `If-Match` and its kin.

use diptych_core::records::{Head, HeadBody};

use super::types::etag_text;
use crate::error::{GatewayError, Result};

/// An entity tag as a client names it: without quotes, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagList {
    /// `*`: any object.
    Any,
    /// One of these.
    Of(Vec<String>),
}

impl TagList {
    /// Reads a header's value: `*`, or tags with or without quotes, separated by commas; weak ones count as strong.
    pub fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        let plain = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
        Self::Of(text.split(',').map(plain).collect())
    }

    /// Whether an object with this etag is meant.
    pub fn matches(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

/// What must hold of the head when a write is committed. It is part of the commit's guard: what was looked at is what
/// is replaced.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// An object must be there (REST's PUT).
    pub exists: bool,
    /// None may be there (REST's POST).
    pub absent: bool,
    /// No version whose retention runs may be there, also where it would stay below (REST, which shows no older versions).
    pub unretained: bool,
    /// `If-Match`.
    pub matches: Option<TagList>,
    /// `If-None-Match`.
    pub none_matches: Option<TagList>,
}

impl Condition {
    /// Checks it against the head that is about to be replaced.
    pub(crate) fn check(&self, bucket: &str, key: &str, head: Option<&Head>) -> Result<()> {
        let object = match head.map(|head| &head.body) {
            Some(HeadBody::Object(object)) => Some(object),
            Some(HeadBody::Marker | HeadBody::Tombstone) | None => None,
        };
        let missing = || GatewayError::NoSuchKey { bucket: bucket.to_owned(), key: key.to_owned() };
        if object.is_none() && (self.exists || self.matches.is_some()) {
            return Err(missing());
        }
        let Some(object) = object else { return Ok(()) };
        if self.absent {
            return Err(GatewayError::Exists(key.to_owned()));
        }
        let etag = etag_text(&object.etag);
        if self.matches.as_ref().is_some_and(|tags| !tags.matches(&etag)) {
            return Err(GatewayError::PreconditionFailed("If-Match"));
        }
        if self.none_matches.as_ref().is_some_and(|tags| tags.matches(&etag)) {
            return Err(GatewayError::PreconditionFailed("If-None-Match"));
        }
        Ok(())
    }
}

/// Conditions of a read (RFC 9110, 13.2.2). Times in milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct ReadConditions {
    /// `If-Match`.
    pub matches: Option<TagList>,
    /// `If-None-Match`.
    pub none_matches: Option<TagList>,
    /// `If-Modified-Since`.
    pub modified_since_ms: Option<u64>,
    /// `If-Unmodified-Since`.
    pub unmodified_since_ms: Option<u64>,
}

impl ReadConditions {
    /// Checks them against an object; times count in whole seconds, as HTTP has no finer ones.
    pub fn check(&self, etag: &str, modified_ms: u64) -> Result<()> {
        let later = |limit: u64| modified_ms / 1000 > limit / 1000;
        match &self.matches {
            Some(tags) if !tags.matches(etag) => return Err(GatewayError::PreconditionFailed("If-Match")),
            None if self.unmodified_since_ms.is_some_and(later) => {
                return Err(GatewayError::PreconditionFailed("If-Unmodified-Since"));
            }
            Some(_) | None => {}
        }
        match &self.none_matches {
            Some(tags) if tags.matches(etag) => Err(GatewayError::NotModified),
            None if self.modified_since_ms.is_some_and(|limit| !later(limit)) => {
                Err(GatewayError::NotModified)
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_with_and_without_quotes() {
        let tags = TagList::parse("\"abc\", W/\"def\", ghi");
        assert!(tags.matches("abc") && tags.matches("def") && tags.matches("ghi") && !tags.matches("x"));
        assert!(TagList::parse("*").matches("anything"));
    }

    #[test]
    fn a_read_of_what_the_client_has_answers_not_modified() {
        let same = ReadConditions { none_matches: Some(TagList::parse("abc")), ..Default::default() };
        assert!(matches!(same.check("abc", 5_000), Err(GatewayError::NotModified)));
        same.check("other", 5_000).expect("it changed");
        let since = ReadConditions { modified_since_ms: Some(5_000), ..Default::default() };
        assert!(matches!(since.check("abc", 5_900), Err(GatewayError::NotModified)));
        since.check("abc", 6_000).expect("it changed");
    }
}
