//! What a gateway counts.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Seconds: from a cached read to an upload that waits for a slow disk.
const LATENCIES: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Counters of one gateway, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by front, operation and status.
    pub requests: IntCounterVec,
    /// Seconds to the answer's header, by front and operation.
    pub latency: HistogramVec,
    /// Bytes of plaintext taken from clients.
    pub bytes_in: IntCounter,
    /// Bytes of plaintext given to clients.
    pub bytes_out: IntCounter,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Rows written, by outcome: durable, failed, elsewhere (sent once more to another device).
    pub rows_written: IntCounterVec,
    /// Reads that had to decode or to ask again.
    pub degraded_reads: IntCounter,
    /// Reads that were late, by what followed: sent (other rows were asked for besides), first (these came first), denied (too many
    /// reads were late).
    pub hedges: IntCounterVec,
    /// Runs of rows in files that agents on this machine have lent, by outcome: read, late (the agents were faster), failed (they did not read), wrong
    /// (what they gave did not open). What is not read is asked of the agents.
    pub lent_reads: IntCounterVec,
    /// Rows that did not read, by category.
    pub rows_unreadable: IntCounterVec,
    /// Requests refused, by code.
    pub refusals: IntCounterVec,
    /// Objects in a shared extent.
    pub batch_objects: Histogram,
    /// Head changes that were planned anew since another writer was faster.
    pub commit_retries: IntCounter,
    /// Writes that one site acknowledged where both were asked for.
    pub downgrades: IntCounter,
    /// 1 while the sub-lease runs.
    pub lease_running: IntGauge,
    /// The newest epoch known.
    pub epoch: IntGauge,
    of_site: OfSite,
}

/// What the keeper wrote of its site.
#[derive(Debug)]
struct OfSite {
    exposed_bytes: IntGauge,
    exposed_objects: IntGauge,
    exposed_ms: IntGauge,
    predicted_recovery_ms: IntGauge,
    drill_passed: IntGauge,
    repair_queue: IntGauge,
    dead_bytes: IntGauge,
    compacting_extents: IntGauge,
    journal_behind: IntGauge,
    feed_entries: IntGauge,
    catalog_bytes: IntGauge,
    slow_devices: IntGaugeVec,
}

impl OfSite {
    /// One that is slow no more is not shown at all, nor is one that is gone.
    fn note_slow(&self, nodes: &[serde_json::Value]) {
        self.slow_devices.reset();
        for node in nodes {
            let devices = node["devices"].as_array().into_iter().flatten();
            for device in devices.filter(|device| device["slow"] == true) {
                let (node, device) = (node["name"].as_str().unwrap_or_default(), device["id"].to_string());
                self.slow_devices.with_label_values(&[node, &device]).set(1);
            }
        }
    }
}

impl Metrics {
    /// Rows that were not durable in time and were sent to another device.
    pub(crate) fn rows_late(&self, rows: usize) {
        self.rows_written.with_label_values(&["late"]).inc_by(rows as u64);
    }

    pub(crate) fn rows_written_elsewhere(&self, rows: usize) {
        self.rows_written.with_label_values(&["elsewhere"]).inc_by(rows as u64);
    }

    /// Fails only if two of the names below were the same.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("diptych_gateway".to_owned()), None)?;
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let made = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(made.clone()))?;
                Ok(made)
            };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let slow = Opts::new("slow_device", "1: the device takes many times what the others take");
        let slow_devices = IntGaugeVec::new(slow, &["node", "device"])?;
        registry.register(Box::new(slow_devices.clone()))?;
        let options =
            HistogramOpts::new("request_seconds", "Seconds to the answer").buckets(LATENCIES.to_vec());
        let latency = HistogramVec::new(options, &["front", "operation"])?;
        registry.register(Box::new(latency.clone()))?;
        let sizes = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        let batch_objects = Histogram::with_opts(
            HistogramOpts::new("batch_objects", "Objects that shared an extent").buckets(sizes),
        )?;
        registry.register(Box::new(batch_objects.clone()))?;
        Ok(Self {
            requests: counters("requests_total", "Requests", &["front", "operation", "status"])?,
            latency,
            bytes_in: counter("bytes_in_total", "Bytes of plaintext taken from clients")?,
            bytes_out: counter("bytes_out_total", "Bytes of plaintext given to clients")?,
            connections: gauge("connections", "Open connections")?,
            rows_written: counters("rows_written_total", "Rows written", &["outcome"])?,
            degraded_reads: counter("degraded_reads_total", "Reads that decoded, or asked another device")?,
            hedges: counters("hedges_total", "Reads that were late, by what followed", &["outcome"])?,
            lent_reads: counters("lent_reads_total", "Runs of rows in lent files", &["outcome"])?,
            rows_unreadable: counters("rows_unreadable_total", "Rows that did not read", &["category"])?,
            refusals: counters("refusals_total", "Requests refused", &["front", "code"])?,
            batch_objects,
            commit_retries: counter("commit_retries_total", "Commits planned anew after a race")?,
            downgrades: counter(
                "downgrades_total",
                "Writes acknowledged by one site, where both were asked for",
            )?,
            lease_running: gauge("lease_running", "1 while this gateway may acknowledge writes")?,
            epoch: gauge("epoch", "Newest epoch known")?,
            of_site: OfSite {
                exposed_bytes: gauge("exposed_bytes", "Bytes that lie in the active site only")?,
                exposed_objects: gauge(
                    "exposed_objects",
                    "Objects that changed and that the other site has not confirmed",
                )?,
                exposed_ms: gauge("exposed_milliseconds", "Age of the oldest of them")?,
                predicted_recovery_ms: gauge(
                    "predicted_recovery_milliseconds",
                    "What a failover now would take at worst; -1: it would not happen by itself",
                )?,
                drill_passed: gauge(
                    "drill_passed_timestamp_seconds",
                    "When a drill last passed that did more than look; 0: none has",
                )?,
                repair_queue: gauge("repair_queue", "Extents that wait for repair")?,
                dead_bytes: gauge("dead_bytes", "Bytes that nothing names and that are not freed yet")?,
                compacting_extents: gauge(
                    "compacting_extents",
                    "Extents of live blobs whose versions wait for being switched to them",
                )?,
                journal_behind: gauge(
                    "journal_behind",
                    "1 while a journal or checkpoint can't be written: nothing is freed then",
                )?,
                feed_entries: gauge("feed_entries", "Commits that the catalog keeps for who follows it")?,
                catalog_bytes: gauge("catalog_bytes", "Bytes of the catalog, its feed among them")?,
                slow_devices,
            },
            registry,
        })
    }

    /// Takes over what the keeper wrote, as JSON; what it does not say stays as it was.
    pub(crate) fn note_site(&self, status: &serde_json::Value) {
        let number = |pointer: &str| status.pointer(pointer).and_then(serde_json::Value::as_i64);
        let set = |gauge: &IntGauge, value: Option<i64>| {
            if let Some(value) = value {
                gauge.set(value);
            }
        };
        let of = &self.of_site;
        set(&of.exposed_bytes, number("/exposure/bytes"));
        set(&of.exposed_objects, number("/exposure/objects"));
        set(&of.exposed_ms, number("/exposure/age_ms"));
        if status.get("prediction").is_some_and(|prediction| !prediction.is_null()) {
            of.predicted_recovery_ms.set(number("/prediction/recovery_time").unwrap_or(-1));
        }
        set(&of.drill_passed, number("/passed_drill/ended_ms").map(|ended| ended / 1_000));
        set(&of.repair_queue, number("/repair/waiting"));
        set(&of.dead_bytes, number("/compaction/dead_bytes"));
        set(&of.compacting_extents, number("/compaction/extents"));
        if let Some(nodes) = status.get("nodes").and_then(serde_json::Value::as_array) {
            of.note_slow(nodes);
        }
        set(&of.feed_entries, number("/feed/entries"));
        set(&of.catalog_bytes, number("/feed/bytes"));
        set(
            &of.journal_behind,
            status.pointer("/journal/trouble").map(|trouble| i64::from(!trouble.is_null())),
        );
    }

    /// The registry: whoever runs the gateway may add to it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All of it in Prometheus's text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(error) => format!("# metrics can't be shown: {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_keeper_wrote_is_on_show_and_a_failover_that_would_not_happen_is_minus_one() {
        let metrics = Metrics::new().expect("metrics");
        let mut status = json!({
            "exposure": {"bytes": 42, "objects": 5, "age_ms": 1_500}, "repair": {"waiting": 3},
            "compaction": {"dead_bytes": 6, "extents": 2},
            "prediction": {"recovery_time": 5_030}, "passed_drill": {"ended_ms": 1_700_000_000_123_i64},
            "nodes": [{"name": "n1", "devices": [{"id": 2, "slow": false}, {"id": 3, "slow": true}]}],
            "journal": {"trouble": "no room"}, "feed": {"entries": 7, "bytes": 8},
        });
        metrics.note_site(&status);
        let text = metrics.text();
        for line in [
            "exposed_bytes 42",
            "exposed_objects 5",
            "exposed_milliseconds 1500",
            "predicted_recovery_milliseconds 5030",
            "drill_passed_timestamp_seconds 1700000000",
            "repair_queue 3",
            "dead_bytes 6",
            "compacting_extents 2",
            "journal_behind 1",
            "feed_entries 7",
            "catalog_bytes 8",
            "slow_device{device=\"3\",node=\"n1\"} 1",
        ] {
            assert!(text.contains(&format!("diptych_gateway_{line}\n")), "{line} is not in {text}");
        }
        status["nodes"][0]["devices"][1]["slow"] = json!(false);
        status["prediction"] = json!({"recovery_time": null, "obstacle": "no witness"});
        metrics.note_site(&status);
        assert!(metrics.text().contains("predicted_recovery_milliseconds -1\n"));
        assert!(!metrics.text().contains("slow_device{"), "it is slow no more");
    }
}
