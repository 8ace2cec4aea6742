//! The processes of `diptych dev`: started, watched, and left dead when somebody kills them.
//!
//! A child ends when its standard input closes, so a supervisor that is killed leaves none behind.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// How to start one process.
#[derive(Clone)]
pub struct Job {
    /// Unique: `east`, `west-n2`, `cloudflare`, `witness`.
    pub name: String,
    /// Words behind the program's own name.
    pub words: Vec<String>,
    /// What it finds in its environment besides: secrets, which are no words.
    pub environment: Vec<(&'static str, String)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The network namespace that it runs in; None: the own.
    pub namespace: Option<String>,
}

/// All processes of one data folder.
pub struct Supervisor {
    program: PathBuf,
    jobs: BTreeMap<String, Job>,
    running: BTreeMap<String, Child>,
}

impl Supervisor {
    /// `program` is started for every job.
    pub fn new(program: PathBuf) -> Self {
        Self { program, jobs: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Starts a job for the first time.
    pub fn start(&mut self, job: Job) -> Result<u32> {
        let name = job.name.clone();
        self.jobs.insert(name.clone(), job);
        self.spawn(&name)
    }

    /// Starts a job again that was killed; the new process id.
    pub fn revive(&mut self, name: &str) -> Result<u32> {
        if !self.jobs.contains_key(name) {
            let known: Vec<&str> = self.jobs.keys().map(String::as_str).collect();
            bail!("there is no process {name:?}; there are {}", known.join(", "));
        }
        if let Some(pid) = self.pid(name) {
            bail!("{name} is alive, with pid {pid}");
        }
        self.spawn(name)
    }

    /// Process id of a job that lives.
    pub fn pid(&mut self, name: &str) -> Option<u32> {
        let child = self.running.get_mut(name)?;
        match child.try_wait() {
            Ok(None) => child.id(),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    fn spawn(&mut self, name: &str) -> Result<u32> {
        let job = self.jobs.get(name).with_context(|| format!("there is no process {name:?}"))?;
        let log = open_log(&job.log)?;
        let mut command = match &job.namespace {
            // `ip` becomes the program: the process id stays.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        let child = command
            .args(&job.words)
            .envs(job.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} can't be started"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once; see {}", job.log.display()))?;
        self.running.insert(name.to_owned(), child);
        Ok(pid)
    }

    /// Asks every process to end, by closing its standard input, and waits for it.
    pub async fn stop(mut self) {
        for child in self.running.values_mut() {
            drop(child.stdin.take());
        }
        for (name, mut child) in self.running {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait()).await;
            if ended.is_err() {
                tracing::warn!(name, "did not end within 10 s and is killed");
                let _ = child.kill().await;
            }
        }
    }
}

fn open_log(path: &Path) -> Result<std::fs::File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("the log {} can't be opened", path.display()))
}

/// Returns when the supervisor is gone or asks to end, or on SIGTERM or SIGINT.
pub async fn told_to_end() {
    // A pod has no parent that holds a pipe to it.
    let piped = std::fs::metadata("/dev/stdin").is_ok_and(|file| file.file_type().is_fifo());
    if !piped {
        return signalled().await;
    }
    let (ended, closed) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for a read that never returns.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    tokio::select! {
        _ = closed => {}
        () = signalled() => {}
    }
}

/// Catches SIGTERM and SIGINT from the call on; what it returns is ready once one came.
pub fn signalled() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
