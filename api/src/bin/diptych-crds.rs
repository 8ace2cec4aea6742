//! `diptych-crds DIR [--check]`: writes crds/, the chart's copies of them and docs/reference/ under DIR, or says what has
//! drifted from the types.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use diptych_api::generate;

#[expect(clippy::print_stderr, reason = "a program for people, without a log")]
fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let check = words.iter().any(|word| word == "--check");
    let root =
        words.iter().find(|word| !word.starts_with("--")).context("usage: diptych-crds DIR [--check]")?;
    let root = PathBuf::from(root);
    let mut drifted = 0;
    for file in generate::all()? {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        drifted += 1;
        if check {
            eprintln!("{} has drifted from the types: run diptych-crds .", file.path);
            continue;
        }
        let folder = path.parent().context("a path has a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        std::fs::write(&path, &file.text).with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(if check && drifted > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
