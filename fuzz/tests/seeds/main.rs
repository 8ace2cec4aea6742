//! The inputs that are kept in `seeds/`: what the golden vectors and the encoders give for a fuzzer to begin with, and
//! whatever was found. Each is held against its property.

mod agent;
mod formats;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use diptych_fuzz::PROPERTIES;

/// An input to begin with.
struct Seed {
    target: &'static str,
    name: String,
    bytes: Vec<u8>,
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from("seeds").join(target)
}

/// Set `DIPTYCH_WRITE_SEEDS` to have them written.
#[test]
fn seeds_are_what_golden_vectors_and_encoders_give() {
    let write = std::env::var_os("DIPTYCH_WRITE_SEEDS").is_some();
    for Seed { target, name, bytes } in formats::seeds().into_iter().chain(agent::seeds()) {
        let path = folder(target).join(&name);
        if write {
            fs::create_dir_all(folder(target)).expect("a folder for seeds");
            fs::write(&path, &bytes).expect("room for a seed");
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(
            kept == bytes,
            "{} is not what it would be made of: DIPTYCH_WRITE_SEEDS=1 writes it",
            path.display()
        );
    }
}

#[test]
fn every_property_holds_for_every_input_that_is_kept() {
    for (target, holds) in PROPERTIES {
        let inputs: Vec<PathBuf> = fs::read_dir(folder(target))
            .expect("each target has inputs")
            .map(|entry| entry.expect("it lists").path())
            .collect();
        assert!(!inputs.is_empty(), "{target} has no input");
        for path in inputs {
            let input = fs::read(&path).expect("it reads");
            let held = std::panic::catch_unwind(|| holds(&input));
            assert!(held.is_ok(), "the property {target} does not hold for {}", path.display());
        }
    }
}

#[test]
fn each_property_has_a_target_of_its_name() {
    let sources = fs::read_dir("targets/src/bin").expect("the targets' folder");
    let targets: BTreeSet<String> = sources
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    assert_eq!(targets, PROPERTIES.map(|(name, _)| name.to_owned()).into());
}
