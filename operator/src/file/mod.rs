//! FileObjects: declared ones are stored through the gateway; what came in through it is projected from the catalog.

mod declared;
mod gateway;
mod projected;
mod view;

pub use declared::controller;
pub(crate) use gateway::{Answer, Gateway};
pub use projected::{Projection, project};
pub use view::{FileSeen, FilesSeen, see};

use sha2::{Digest, Sha256};

/// On FileObjects that the operator made from the catalog.
pub const PROJECTED: &str = "files.diptych.dev/projected";
/// Holds a FileObject until its file is deleted.
pub const FINALIZER: &str = "files.diptych.dev/file";

/// Name of a projected FileObject: the key, as far as a name can hold it, and a hash of bucket and key.
pub fn projected_name(bucket: &str, key: &str) -> String {
    let fine = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let tail: String = key.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().map(fine).collect();
    let slug: Vec<&str> = tail.split('-').filter(|part| !part.is_empty()).collect();
    let mut hash = Sha256::new();
    hash.update(bucket.as_bytes());
    hash.update([0]);
    hash.update(key.as_bytes());
    let hash = hex::encode(&hash.finalize()[..6]);
    if slug.is_empty() { hash } else { format!("{}-{hash}", slug.join("-")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_keys_apart_that_read_alike() {
        let name = projected_name("docs", "usr/share/doc/Adduser/README.md");
        assert!(name.starts_with("usr-share-doc-adduser-readme-md-"), "{name}");
        assert_ne!(projected_name("docs", "a/b"), projected_name("docs", "a-b"));
        assert_ne!(projected_name("docs", "a"), projected_name("doc", "sa"));
        let odd = projected_name("docs", "…///…");
        assert!(odd.len() == 12 && odd.bytes().all(|byte| byte.is_ascii_hexdigit()), "{odd}");
        assert!(projected_name("docs", &"x".repeat(1024)).len() <= 63);
    }
}
