//! `diptych`: see `diptych --help`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use clap::{Parser, Subcommand};
use diptych::command::{self, Target};
use diptych::dev::options::DevOptions;
use diptych::{dev, process};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "diptych", version, about = "Files that survive a datacenter")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole installation on this machine
    Dev(Box<DevCommand>),
    /// Store a file
    Put(command::put::Put),
    /// Fetch a file
    Get(command::get::Get),
    /// List files
    Ls(command::ls::Ls),
    /// Delete files
    Rm(command::rm::Rm),
    /// Say how safe everything is
    Status(command::status::Status),
    /// Have a node emptied: its rows move to others
    Drain(command::drain::DrainCommand),
    /// Rehearse a failover, and say how long it took and what it would have lost
    Drill(command::drill::DrillCommand),
    /// List the objects of which a site was told and whose bytes it lacks: a promotion would lose them
    Exposed(command::losses::DevExposed),
    /// Say what was lost, not seen for a while, kept aside or not done, and how it ended
    Ledger(command::losses::DevLedger),
    /// List, restore and discard versions that a return or a takeover kept beside the head of their key
    Conflicts(command::losses::DevConflicts),
    /// Say what buckets promise their writers where both sites acknowledge, and set it
    Bucket(command::bucket::DevBuckets),
    /// Say which keys are in use and how far an exchange of the cluster key is; make another ring key
    Keys(command::keys::DevKeys),
    /// Read a file's fragments from the devices themselves and compute every hash anew
    Inspect(command::inspect::Inspect),
    /// Make a site's catalog anew from its devices and the cluster key
    Resurrect(command::resurrect::Resurrect),
    /// Run a site: gateway, loops and catalog in one process
    Site(process::ConfigFile),
    /// Keep fragments on the devices of a node
    NodeAgent(process::node_agent::NodeAgentCommand),
    /// Serve S3, REST and the peer door of a site (a pod of the chart)
    Gateway(process::ConfigFile),
    /// Run the Kubernetes controllers and the loops of a site (a pod of the chart)
    Operator(Box<process::pods::operator::OperatorCommand>),
    /// Get a node-agent's certificate and configuration (an init container)
    Join(process::pods::join::JoinCommand),
    /// Be the third voter, outside both sites
    Witness(process::witness::WitnessCommand),
    /// Ask an installation on Kubernetes: linked as `kubectl-diptych`, the program is `kubectl diptych`
    KubectlDiptych(Box<diptych::kubectl::Kubectl>),
    /// Stand in for Cloudflare: API, DNS and edge
    CloudflareEmulator(Box<diptych_cloudflare::emulator::EmulatorOptions>),
}

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
struct DevCommand {
    #[command(subcommand)]
    action: Option<DevAction>,
    #[command(flatten)]
    options: DevOptions,
}

#[derive(Subcommand)]
enum DevAction {
    /// Start a process again that was killed
    Revive {
        /// Its name: `east`, `west-n2`, `cloudflare`, `witness`
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Other names of the program stand for its subcommands: a link `node-agent` is `diptych node-agent`.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    if called != "diptych" && !called.is_empty() {
        let name = called.to_string_lossy();
        let name = name.strip_prefix("diptych-").unwrap_or(&name).to_owned();
        words.insert(1, name.into());
    }
    words
}

fn main() -> Result<()> {
    let command = Program::parse_from(words()).command;
    runtime(&command)?.block_on(run(command))
}

/// The threads that tasks run on, one a core. A node-agent has half as many: its work waits for devices on threads of their own, and each
/// task more that is handed from core to core costs more than it brings.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if matches!(command, Command::NodeAgent(_)) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads(cores.div_ceil(2));
    }
    builder.enable_all().build()
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Dev(asked) => match asked.action {
            Some(DevAction::Revive { name, target }) => command::revive::run(&target, &name).await,
            None => {
                process::log_for_people();
                Box::pin(dev::run(&asked.options)).await
            }
        },
        Command::Put(put) => put.run().await,
        Command::Get(get) => get.run().await,
        Command::Ls(ls) => ls.run().await,
        Command::Rm(rm) => rm.run().await,
        Command::Status(status) => status.run().await,
        Command::Drain(drain) => drain.run().await,
        Command::Drill(drill) => drill.run().await,
        Command::Exposed(exposed) => exposed.run().await,
        Command::Ledger(ledger) => ledger.run().await,
        Command::Conflicts(conflicts) => conflicts.run().await,
        Command::Bucket(bucket) => bucket.run().await,
        Command::Keys(keys) => keys.run().await,
        Command::Inspect(inspect) => inspect.run().await,
        Command::Resurrect(resurrect) => resurrect.run().await,
        Command::Site(file) => Box::pin(process::site::run(&file)).await,
        Command::NodeAgent(command) => process::node_agent::run(command).await,
        Command::Gateway(file) => Box::pin(process::pods::gateway::run(&file)).await,
        Command::Operator(command) => Box::pin(process::pods::operator::run(*command)).await,
        Command::Join(command) => process::pods::join::run(command).await,
        Command::Witness(witness) => process::witness::run(witness).await,
        Command::KubectlDiptych(command) => command.run().await,
        Command::CloudflareEmulator(options) => process::emulator::run(*options).await,
    }
}
