//! What the commands need and this machine may lack: installed by name, or named in one line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{cache, must, on_path, root};

/// The Kubernetes that the chart is rendered for and tested on.
pub const KUBERNETES: &str = "1.34.4";

/// Makes a program available that a Debian package has.
pub fn debian(program: &str, package: &str) -> Result<()> {
    if on_path(program) { Ok(()) } else { install(program, package) }
}

fn install(program: &str, package: &str) -> Result<()> {
    if !on_path("apt-get") {
        bail!("{program} is missing: install it (Debian's package is {package})");
    }
    eprintln!("installing {package} for {program}");
    let refresh = Command::new("apt-get").args(["update", "-qq"]).status();
    if !refresh.is_ok_and(|status| status.success()) {
        bail!("{program} is missing and `apt-get update` failed: install {package}, or run this as root");
    }
    must(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]))
}

/// What every build of the workspace needs besides Rust and a C compiler.
pub fn for_building() -> Result<()> {
    debian("protoc", "protobuf-compiler")?;
    // jemalloc's.
    debian("make", "make")?;
    // What etcd's protocol imports; `protoc` looks for it beside the folder that it is in.
    if on_path("../include/google/protobuf/descriptor.proto") {
        return Ok(());
    }
    install("google/protobuf/descriptor.proto", "libprotobuf-dev")
}

/// What the tests call: namespaces and system calls are looked at from outside, clients are not ours.
pub fn for_tests() -> Result<()> {
    debian("strace", "strace")?;
    debian("ip", "iproute2")?;
    debian("nft", "nftables")?;
    debian("curl", "curl")?;
    debian("openssl", "openssl")?;
    debian("python3", "python3")?;
    // Clients that nobody here wrote.
    debian("rclone", "rclone")?;
    debian("restic", "restic")?;
    debian("s3cmd", "s3cmd")?;
    python("boto3", &["boto3==1.44.5"])?;
    python("cloudflare", &["cloudflare==5.9.0", "octodns==1.22.0", "octodns-cloudflare==1.2.0"])?;
    go_program("official-go-client", &root().join("cloudflare").join("tests").join("official_go_client"))?;
    history_checker()?;
    etcd()
}

/// An environment of Python with packages from its index, `venv-NAME` in the cache folder; a change of the packages makes it anew.
fn python(name: &str, packages: &[&str]) -> Result<()> {
    let folder = cache()?.join(format!("venv-{name}"));
    let (stamp, wanted) = (folder.join("installed"), packages.join("\n"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("installing {} for Python", packages.join(", "));
    let make = || must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if make().is_err() {
        // Debian has the part that venv needs in a package of its own.
        install("python3 -m venv", "python3-venv")?;
        make()?;
    }
    must(Command::new(folder.join("bin").join("pip")).args(["install", "--quiet"]).args(packages))?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// The catalog's engine for clusters, from its Go module.
fn etcd() -> Result<()> {
    go_tool("etcd").map(drop)
}

/// helm, from its Go module.
pub fn helm() -> Result<PathBuf> {
    go_tool("helm")
}

fn go_tool(name: &str) -> Result<PathBuf> {
    let program = cache()?.join("kind").join("bin").join(name);
    if !program.is_file() {
        go(name)?;
        eprintln!("building {name}");
        must(Command::new(node_image_build()).arg(name))?;
    }
    Ok(program)
}

/// kind, kubectl, helm and the node image, and a Docker engine that runs; the folder of the programs.
pub fn kind() -> Result<PathBuf> {
    go("kind and Kubernetes")?;
    must(Command::new(node_image_build()).arg("all"))?;
    Ok(cache()?.join("kind").join("bin"))
}

/// The load client and `MinIO`, from its Go module; the folder of both.
pub fn for_bench() -> Result<PathBuf> {
    go("MinIO and the load client")?;
    let folder = cache()?.join("bench");
    std::fs::create_dir_all(&folder)?;
    for (tool, package) in [("minio", "github.com/minio/minio"), ("s3load", ".")] {
        eprintln!("building {tool}");
        go_build(&root().join("e2e").join("bench").join(tool), package, &folder.join(tool))?;
    }
    Ok(folder)
}

/// The checker of histories.
pub fn history_checker() -> Result<()> {
    go_program("history-checker", &root().join("e2e").join("history-checker"))
}

/// A Go program of this project, in the cache folder's `tools`; Go itself knows whether it has to be built anew.
fn go_program(name: &str, sources: &Path) -> Result<()> {
    go(name)?;
    let folder = cache()?.join("tools");
    std::fs::create_dir_all(&folder)?;
    go_build(sources, ".", &folder.join(name))
}

fn go_build(sources: &Path, package: &str, program: &Path) -> Result<()> {
    let mut build = Command::new("go");
    build.current_dir(sources).env("CGO_ENABLED", "0");
    must(build.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(program).arg(package))
}

fn go(what: &str) -> Result<()> {
    if !on_path("go") {
        bail!("go is missing: install Go 1.26, {what} are built from their modules");
    }
    Ok(())
}

fn node_image_build() -> PathBuf {
    root().join("kind-config").join("node-image").join("build")
}

/// cargo-deny at the version that deny.toml is written for.
pub fn cargo_deny() -> Result<PathBuf> {
    cargo_tool("cargo-deny", "0.20.2")
}

/// cargo-fuzz at a version that needs no nightly toolchain for a build without a sanitizer.
pub fn cargo_fuzz() -> Result<PathBuf> {
    cargo_tool("cargo-fuzz", "0.13.2")
}

/// A program of the crates' registry.
fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = cache()?.join("tools").join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.is_file() {
        eprintln!("building {name} {version}");
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "--debug", name, "--version", version, "--root"]);
        must(install.arg(&root).env("CARGO_TARGET_DIR", cache()?.join("tools").join("target")))?;
    }
    Ok(program)
}
