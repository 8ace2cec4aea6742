//! Everything that runs on some machines, stopped and continued at once (SIGSTOP, SIGCONT), as a frozen hypervisor does.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::kind::cluster::Node;

/// Processes begin while others are being stopped.
const ROUNDS: u32 = 100;

/// Stops every process of these machines.
pub(in crate::kind) fn stop(nodes: &[Node]) -> Result<usize> {
    for _ in 0..ROUNDS {
        let tree = tree(nodes)?;
        let running: Vec<u32> = tree.iter().filter(|(_, stopped)| !stopped).map(|(pid, _)| *pid).collect();
        if running.is_empty() {
            return Ok(tree.len());
        }
        signal("STOP", &running)?;
    }
    bail!("after {ROUNDS} rounds some processes still run")
}

/// Continues them.
pub(in crate::kind) fn resume(nodes: &[Node]) -> Result<()> {
    let all: Vec<u32> = tree(nodes)?.into_iter().map(|(pid, _)| pid).collect();
    signal("CONT", &all)
}

/// Some end by themselves meanwhile, which `kill` calls a failure; who looks afterwards sees what is so.
fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).args(pids.iter().map(u32::to_string));
    kill.output().context("kill can't be started").map(drop)
}

/// The machines' processes as this machine counts them, parents first, and whether each is stopped or has ended.
fn tree(nodes: &[Node]) -> Result<Vec<(u32, bool)>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut stopped: BTreeMap<u32, bool> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is none.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((state, parent)) = state_and_parent(&stat) else { continue };
        children.entry(parent).or_default().push(pid);
        stopped.insert(pid, matches!(state, 'T' | 't' | 'Z' | 'X'));
    }
    let mut tree: Vec<u32> = nodes.iter().map(|node| node.pid).filter(|pid| *pid != 0).collect();
    let mut at = 0;
    while let Some(&pid) = tree.get(at) {
        tree.extend(children.get(&pid).into_iter().flatten());
        at += 1;
    }
    Ok(tree.into_iter().map(|pid| (pid, stopped.get(&pid).copied().unwrap_or(true))).collect())
}

/// Of `/proc/PID/stat`; the name before them may have any letters.
fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}
