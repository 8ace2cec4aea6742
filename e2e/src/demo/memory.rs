//! How much memory the processes of an installation took at most, as the kernel counts it.

use anyhow::{Context, Result, bail};

/// What no process may exceed, in MiB.
pub const LIMIT_MIB: u64 = 256;

/// The peak of a process's resident memory, in MiB (VmHWM of /proc/PID/status).
pub fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("pid {pid} is gone"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib.div_ceil(1024))
}

/// Sets the peaks back, so that the next look is of what comes now.
pub fn forget_peaks(pids: &[u32]) {
    for pid in pids {
        // The write is refused where the process belongs to another user; then the peak is of its whole life.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// The largest peak, which is an error above the limit.
pub fn largest_peak(pids: &[(String, u32)]) -> Result<String> {
    let mut largest = ("", 0);
    for (name, pid) in pids {
        let peak = peak_mib(*pid)?;
        if peak > LIMIT_MIB {
            bail!("{name} took {peak} MiB, {LIMIT_MIB} are allowed");
        }
        if peak > largest.1 {
            largest = (name.as_str(), peak);
        }
    }
    Ok(format!("at most {} MiB a process ({})", largest.1, largest.0))
}
