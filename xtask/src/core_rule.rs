//! The rule that keeps `core` pure: of its dependency tree, only what is listed here.
//!
//! `core` decides; it may compute, but it may not wait, listen, read a clock or draw a number.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::run::cargo;

/// What `core` names itself, each for a reason that its design gives: coding, ciphers, hashes, compression, encoding.
const ALLOWED_DIRECT: [&str; 15] = [
    "aes-gcm",
    "blake3",
    "bytes",
    "crc32c",
    "data-encoding",
    "hex",
    "hkdf",
    "lz4_flex",
    "postcard",
    "reed-solomon-erasure",
    "serde",
    "sha2",
    "subtle",
    "thiserror",
    "zeroize",
];

/// What must not even come in through others.
const FORBIDDEN_ANYWHERE: [&str; 12] = [
    "tokio",
    "async-std",
    "smol",
    "mio",
    "kube",
    "k8s-openapi",
    "hyper",
    "reqwest",
    "rustls",
    "redb",
    "rand",
    "chrono",
];

pub fn check() -> Result<()> {
    let direct = tree(&["--depth", "1"])?;
    let all = tree(&[])?;
    let broken = violations(&direct, &all);
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(())
}

fn tree(more: &[&str]) -> Result<BTreeSet<String>> {
    let mut command =
        cargo(&["tree", "-p", "diptych-core", "-e", "normal", "--prefix", "none", "--format", "{p}"])?;
    let output = command.args(more).output()?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn violations(direct: &BTreeSet<String>, all: &BTreeSet<String>) -> Vec<String> {
    let allowed = |name: &str| name == "diptych-core" || ALLOWED_DIRECT.contains(&name);
    let unlisted = direct
        .iter()
        .filter(|name| !allowed(name))
        .map(|name| format!("core depends on {name}, which xtask/src/core_rule.rs does not list"));
    let impure = all.iter().filter(|name| FORBIDDEN_ANYWHERE.contains(&name.as_str())).map(|name| {
        format!(
            "{name} is in core's dependency tree: core may not wait, listen, read a clock or draw a number"
        )
    });
    unlisted.chain(impure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_planted_runtime_is_named() {
        let tree = set(&["diptych-core", "serde", "tokio"]);
        let broken = violations(&tree, &tree);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken.iter().all(|line| line.contains("tokio")), "{broken:?}");
    }

    #[test]
    fn a_runtime_that_comes_in_through_another_crate_is_named() {
        let broken = violations(&set(&["diptych-core", "serde"]), &set(&["diptych-core", "serde", "mio"]));
        assert_eq!(broken.len(), 1);
    }

    #[test]
    fn the_listed_crates_are_fine() {
        let tree = set(&["diptych-core", "serde", "blake3"]);
        assert!(violations(&tree, &tree).is_empty());
    }
}
