//! How much memory all processes of a store take together, at most.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Processes that are looked at over and over.
pub(super) struct Watched {
    end: oneshot::Sender<()>,
    peak: JoinHandle<u64>,
}

impl Watched {
    /// From now on.
    pub(super) fn begin(pids: Vec<u32>, every: Duration) -> Self {
        let (end, mut ended) = oneshot::channel();
        let peak = tokio::spawn(async move {
            let mut peak = 0;
            loop {
                peak = peak.max(pids.iter().map(|pid| resident_kib(*pid)).sum());
                if tokio::time::timeout(every, &mut ended).await.is_ok() {
                    return peak;
                }
            }
        });
        Self { end, peak }
    }

    /// The largest sum that was seen, in MiB.
    pub(super) async fn end(self) -> u64 {
        // Without a receiver the task has ended, and its result is there.
        let _ = self.end.send(());
        self.peak.await.unwrap_or_default().div_ceil(1024)
    }
}

/// Resident memory of a process (VmRSS of /proc/PID/status); none of one that is gone.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}
