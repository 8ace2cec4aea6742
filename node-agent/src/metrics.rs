//! Counters of the agent, as Prometheus text.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diptych_wire::agent::{AgentError, AgentStatus, DeviceState, Op};
use diptych_wire::server::Counters;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

/// Made once for each agent: several run in one process in tests.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    connections: GaugeVec,
    devices: GaugeVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
                .expect("name and labels are well-formed constants")
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            GaugeVec::new(Opts::new(name, help), labels).expect("name and labels are well-formed constants")
        };
        let seconds = HistogramOpts::new("diptych_agent_request_seconds", "Time to answer a request.")
            .buckets(vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0]);
        let made = Self {
            registry: Registry::new(),
            requests: counter(
                "diptych_agent_requests_total",
                "Requests by operation and result.",
                &["op", "result"],
            ),
            seconds: HistogramVec::new(seconds, &["op"]).expect("name and labels are well-formed constants"),
            bytes: counter("diptych_agent_bytes_total", "Bulk bytes by direction.", &["direction"]),
            connections: gauge(
                "diptych_agent_connections",
                "Connections by what became of them.",
                &["state"],
            ),
            devices: gauge(
                "diptych_agent_device",
                "Devices: bytes, rows, findings, up, what 99 of 100 requests take at most.",
                &["device", "path", "what"],
            ),
        };
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(made.requests.clone()),
            Box::new(made.seconds.clone()),
            Box::new(made.bytes.clone()),
            Box::new(made.connections.clone()),
            Box::new(made.devices.clone()),
        ];
        for collector in all {
            made.registry.register(collector).expect("each name is registered once");
        }
        made
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, op: Op, error: Option<&AgentError>, took: Duration) {
        let result = error.map_or("ok", AgentError::category);
        self.requests.with_label_values(&[op.name(), result]).inc();
        self.seconds.with_label_values(&[op.name()]).observe(took.as_secs_f64());
    }

    /// Counts bulk bytes.
    pub(crate) fn moved(&self, direction: &str, bytes: usize) {
        self.bytes.with_label_values(&[direction]).inc_by(bytes as u64);
    }

    pub(crate) fn text(&self, status: &AgentStatus, server: Option<&Counters>) -> String {
        if let Some(server) = server {
            let states = [
                ("accepted", &server.accepted),
                ("open", &server.open),
                ("garbage", &server.garbage),
                ("refused", &server.refused),
            ];
            for (state, counter) in states {
                self.connections.with_label_values(&[state]).set(counter.load(Ordering::Relaxed) as f64);
            }
        }
        self.devices.reset();
        for device in &status.devices {
            let id = device.device.map_or_else(|| "none".to_owned(), |id| id.to_string());
            let path = device.path.display().to_string();
            let up = matches!(device.state, DeviceState::Ok | DeviceState::Full);
            let values = [
                ("up", f64::from(u8::from(up))),
                ("capacity_bytes", device.capacity as f64),
                ("used_bytes", device.used as f64),
                ("rows", device.rows as f64),
                ("findings", device.findings.len() as f64),
                ("scrub_finished_ms", device.scrub.finished_ms as f64),
            ];
            let takes = [("read_p99_seconds", device.takes.read), ("write_p99_seconds", device.takes.write)];
            let takes = takes.into_iter().filter_map(|(what, p99)| Some((what, p99?.as_secs_f64())));
            for (what, value) in values.into_iter().chain(takes) {
                self.devices.with_label_values(&[&id, &path, what]).set(value);
            }
        }
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics can't be written: {error}\n"),
        }
    }
}
