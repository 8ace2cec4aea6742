//! Starting other programs, with the build folder that all commands share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// Words that are handed on to the program that does the work.
#[derive(clap::Args)]
pub struct Words {
    /// Words for the step itself; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// The workspace's root: where cargo runs this from, not where it was compiled; several checkouts share a build.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where everything that is built or fetched is kept between runs.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("HOME is not set: the cache folder is unknown")?)
                .join(".cache")
        }
    };
    Ok(base.join("diptych"))
}

/// Cargo's target folder: one for every checkout, so that dependencies are built once.
pub fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(cache()?.join("target")),
    }
}

/// `cargo` in the workspace, with the shared target folder.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    claim(&target()?)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).env("CARGO_TARGET_DIR", target()?);
    Ok(command)
}

/// Cargo tells checkouts that share a build folder apart by the age of their files alone: it would take what another checkout
/// built for this one's. So all of this one's count as changed when another one has built here since.
fn claim(target: &Path) -> Result<()> {
    let (owner, root) = (target.join("checkout"), root());
    if std::fs::read_to_string(&owner).is_ok_and(|last| Path::new(&last) == root) {
        return Ok(());
    }
    touch(&root, SystemTime::now())?;
    std::fs::create_dir_all(target)?;
    std::fs::write(&owner, root.to_string_lossy().as_bytes()).with_context(|| format!("{}", owner.display()))
}

fn touch(folder: &Path, now: SystemTime) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden {
            touch(&path, now)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            File::open(&path)?.set_modified(now).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

/// Builds every program of the workspace, always the same selection: with another one cargo would choose other features for
/// what they share, and build that twice. The folder that they are in.
pub fn programs() -> Result<PathBuf> {
    let selection = ["-p", "diptych", "-p", "diptych-e2e", "-p", "diptych-api", "--bins"];
    must(cargo(&["build", "--quiet"])?.args(selection))?;
    Ok(target()?.join("debug"))
}

/// Whether a program is on the PATH.
pub fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a command; an exit other than 0 is an error that names it.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{} can't be started", show(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", show(command));
    }
    Ok(())
}

/// Runs a command whose output matters only when it fails.
pub fn silent(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{} can't be started", show(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} ended with {}: {}", show(command), output.status, String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// A command as a person would type it.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
