//! An object as it is described, and its tags set anew.

use std::collections::HashSet;

use diptych_core::records::{Head, HeadBody};

use super::{ObjectInfo, Objects, Target};
use crate::authority::may_write;
use crate::error::{GatewayError, Result};

/// Limits of S3, in characters.
const MOST_TAGS: usize = 10;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

impl Objects {
    /// An object as it is described now.
    pub async fn head(&self, namespace: &str, target: Target<'_>) -> Result<ObjectInfo> {
        self.find(namespace, target).await.map(|(info, _)| info)
    }

    /// Gives an object these tags instead of those that it has; the version's id.
    pub async fn set_tags(
        &self,
        namespace: &str,
        target: Target<'_>,
        tags: &[(String, String)],
    ) -> Result<Option<String>> {
        check_tags(tags)?;
        let lease = may_write(self.context.authority())?;
        self.amend(&lease, namespace, target, |head| {
            let hlc = self.context.clock().tick(head.tagged.map_or(head.at.hlc, |(_, hlc)| hlc));
            let mut amended = Head { tagged: Some((lease.epoch, hlc)), ..head.clone() };
            if let HeadBody::Object(object) = &mut amended.body {
                object.tags = tags.to_vec();
            }
            Ok(amended)
        })
        .await
    }
}

/// S3's rules for the tags of an object.
///
/// # Errors
/// `InvalidTag`, which says what is wrong.
pub(super) fn check_tags(tags: &[(String, String)]) -> Result<()> {
    let invalid = |reason: String| Err(GatewayError::InvalidTag(reason));
    if tags.len() > MOST_TAGS {
        return invalid(format!("{} tags, {MOST_TAGS} are allowed", tags.len()));
    }
    let mut keys = HashSet::new();
    for (key, value) in tags {
        let (in_key, in_value) = (key.chars().count(), value.chars().count());
        if !(1..=LONGEST_KEY).contains(&in_key) || in_value > LONGEST_VALUE {
            return invalid(format!(
                "a tag has a key of {in_key} characters and a value of {in_value}; 1 to {LONGEST_KEY} and at most {LONGEST_VALUE} are allowed"
            ));
        }
        if let Some(other) = key.chars().chain(value.chars()).find(|character| !is_allowed(*character)) {
            return invalid(format!(
                "{other:?} is in tag {key:?}; letters, digits, spaces and + - = . _ : / @ are allowed"
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return invalid(format!("{key:?}: keys that begin with aws: are for AWS alone"));
        }
        if !keys.insert(key) {
            return invalid(format!("the key {key:?} is there twice"));
        }
    }
    Ok(())
}

fn is_allowed(character: char) -> bool {
    character.is_alphanumeric() || character.is_whitespace() || "+-=._:/@".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn tags_have_the_limits_of_s3() {
        let ten: Vec<_> = (0..10).map(|number| tag(&format!("k{number}"), "v")).collect();
        check_tags(&ten).expect("ten tags");
        check_tags(&[tag(&"k".repeat(128), &"é".repeat(256)), tag("a b/c:d", "")])
            .expect("as long as may be");
        let eleven: Vec<_> = ten.into_iter().chain([tag("one", "more")]).collect();
        let bad = [
            eleven,
            vec![tag(&"k".repeat(129), "")],
            vec![tag("k", &"v".repeat(257))],
            vec![tag("", "v")],
            vec![tag("k", "1"), tag("k", "2")],
            vec![tag("aws:k", "v")],
            vec![tag("k", "<v>")],
        ];
        for tags in bad {
            assert!(matches!(check_tags(&tags), Err(GatewayError::InvalidTag(_))), "{tags:?}");
        }
    }
}
