//! Reads what `strace -f -yy -o FILE` wrote.
//!
//! One tracer sees every process, and a process waits at each call until it was seen: what stands on a later line began
//! after what stands on an earlier one had ended.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A line's number: the tracer's clock.
pub(crate) type Line = usize;

/// A call that ended well.
#[derive(Debug)]
struct Call {
    name: String,
    /// Between the brackets, as far as it was known when the call began.
    arguments: String,
    began: Line,
    ended: Line,
}

/// All calls of a run.
pub(crate) struct Trace {
    calls: Vec<Call>,
}

/// From the first byte of a request to the first byte of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// The line at which the request had been read.
    pub(crate) asked: Line,
    /// The line at which its answer began to be written.
    pub(crate) answered: Line,
}

impl Trace {
    /// `TID name(arguments) = result`, or in two pieces: `… <unfinished ...>`, `<... name resumed>… = result`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut begun: BTreeMap<&str, Call> = BTreeMap::new();
        let mut calls = Vec::new();
        for (line, text) in text.lines().enumerate() {
            let Some((thread, rest)) = text.split_once(char::is_whitespace) else { continue };
            let rest = rest.trim_start();
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let Some(mut call) = begun.remove(thread) else { continue };
                ensure!(resumed.starts_with(&call.name), "line {line} resumes another call: {text}");
                call.ended = line;
                // What was read is known at the end only.
                call.arguments.push_str(resumed);
                calls.extend(succeeded(resumed).then_some(call));
                continue;
            }
            let Some((name, arguments)) = rest.split_once('(') else { continue };
            let call =
                Call { name: name.to_owned(), arguments: arguments.to_owned(), began: line, ended: line };
            if rest.ends_with("<unfinished ...>") {
                begun.insert(thread, call);
            } else {
                calls.extend(succeeded(rest).then_some(call));
            }
        }
        ensure!(!calls.is_empty(), "strace saw nothing");
        Ok(Self { calls })
    }

    /// The requests whose first line begins so, at a listener's port, each with the answer on its connection.
    pub(crate) fn exchanges(&self, port: u16, begins: &str) -> Result<Vec<Exchange>> {
        let reads = self.calls.iter().filter(|call| call.is_of(&["read", "recvfrom"]));
        let asked = reads.filter(|call| call.arguments.contains(&format!("\"{begins}")));
        let exchanges: Vec<Exchange> = asked.map(|read| self.answered(port, read)).collect::<Result<_>>()?;
        ensure!(!exchanges.is_empty(), "strace saw no request {begins:?}");
        Ok(exchanges)
    }

    fn answered(&self, port: u16, read: &Call) -> Result<Exchange> {
        let connection = read.connection().context("a request that did not come by TCP")?;
        let own = connection.split("->").next().unwrap_or_default();
        ensure!(own.ends_with(&format!(":{port}")), "a request to another port: {connection}");
        let mut answers = self.calls.iter().filter(|call| call.is_of(&["write", "writev", "sendto"]));
        let answer = answers
            .find(|call| call.began > read.ended && call.connection() == Some(connection))
            .with_context(|| format!("strace saw no answer to {}", read.arguments))?;
        ensure!(
            answer.arguments.contains("\"HTTP/1.1 2"),
            "{} was answered {}",
            read.arguments,
            answer.arguments
        );
        Ok(Exchange { asked: read.ended, answered: answer.began })
    }

    /// When a file was first synced within a time: begun after `from`, ended before `until`.
    pub(crate) fn synced(&self, file: &Path, from: Line, until: Line) -> Option<Line> {
        let place = format!("<{}>", file.display());
        let syncs = self.calls.iter().filter(|call| {
            call.is_of(&["fsync", "fdatasync"])
                && call.arguments.contains(&place)
                && call.began > from
                && call.ended < until
        });
        syncs.map(|call| call.ended).min()
    }
}

impl Call {
    fn is_of(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    /// `127.0.0.1:4000->127.0.0.1:5000` of `17<TCP:[…]>`
    fn connection(&self) -> Option<&str> {
        self.arguments.split_once("<TCP:[")?.1.split_once(']').map(|(connection, _)| connection)
    }
}

/// ` = 0`, ` = 17`, not ` = -1 EIO`.
fn succeeded(text: &str) -> bool {
    text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with(['-', '?']))
}

/// The port of `http://host:port`.
pub(crate) fn port_of(url: &str) -> Result<u16> {
    let (_, port) = url.rsplit_once(':').with_context(|| format!("{url} has no port"))?;
    Ok(port.parse()?)
}
