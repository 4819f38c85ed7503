//! A snapshot as Prometheus and OpenMetrics read it. Series are bounded: by shard, by stage, by state, by class; by peer only
//! as far as the snapshot has names for some of them.

use std::fmt::Write;

use crate::counters::Counter;
use crate::limits::METRIC_BOUNDS_US;
use crate::snapshot::{CertificateDays, Gauges, Snapshot};
use crate::stages::Stage;

/// Which of the two text formats, as the client's `Accept` header asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for an `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The whole text.
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut text = Text { out: String::with_capacity(16 << 10), format };
    text.family("build_info", "gauge", "Version of the server; always 1.");
    text.sample("build_info", &format!("version=\"{}\"", escaped(&snapshot.version)), 1.0);
    text.family("uptime_seconds", "gauge", "Seconds since the server began.");
    text.sample("uptime_seconds", "", snapshot.uptime_seconds);
    for counter in Counter::ALL {
        text.counter_family(counter.name(), counter.help());
        for shard in &snapshot.shards {
            let labels = format!("shard=\"{}\"", shard.shard);
            text.sample(&format!("{}_total", counter.name()), &labels, shard.counters.get(*counter) as f64);
        }
    }
    if !snapshot.certificates.is_empty() {
        text.family("certificate_days", "gauge", "Days until the certificate of a pki expires.");
        for CertificateDays { pki, days } in &snapshot.certificates {
            text.sample("certificate_days", &format!("pki=\"{}\"", escaped(pki)), *days as f64);
        }
    }
    deliveries(&mut text, snapshot);
    refusals(&mut text, snapshot);
    sites(&mut text, snapshot);
    gauges(&mut text, snapshot);
    stages(&mut text, snapshot);
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

fn deliveries(text: &mut Text, snapshot: &Snapshot) {
    text.counter_family("deliveries", "Attempts of delivery by their result.");
    let counters = snapshot.merged().counters;
    for (result, counter) in [("ok", Counter::Delivered), ("deferred", Counter::Deferred), ("failed", Counter::Failed)]
    {
        text.sample("deliveries_total", &format!("result=\"{result}\""), counters.get(counter) as f64);
    }
}

fn refusals(text: &mut Text, snapshot: &Snapshot) {
    text.counter_family("refusals", "Replies of other servers that refuse mail, for now or for good, by class.");
    for (class, count) in snapshot.merged().refusals.iter() {
        text.sample("refusals_total", &format!("class=\"{}\"", escaped(class)), count as f64);
    }
}

fn sites(text: &mut Text, snapshot: &Snapshot) {
    if snapshot.sites.is_empty() {
        return;
    }
    text.family(
        "sites_left_out",
        "gauge",
        "Sites that have had mail and have no name here; theirs is counted as `other`.",
    );
    text.sample("sites_left_out", "", snapshot.sites_left_out as f64);
    text.counter_family(
        "site_deliveries",
        "Attempts of delivery by mail site and result, since the site has a name here.",
    );
    for (site, tally) in &snapshot.sites {
        for (result, count) in [("ok", tally.delivered), ("deferred", tally.deferred), ("failed", tally.failed)] {
            let labels = format!("site=\"{}\",result=\"{result}\"", escaped(site));
            text.sample("site_deliveries_total", &labels, count as f64);
        }
    }
    text.counter_family(
        "site_refusals",
        "Replies that refuse mail by mail site and class, since the site has a name here.",
    );
    for (site, tally) in &snapshot.sites {
        for (class, count) in tally.refused.iter() {
            let labels = format!("site=\"{}\",class=\"{}\"", escaped(site), escaped(class));
            text.sample("site_refusals_total", &labels, count as f64);
        }
    }
}

type Series = (&'static str, fn(&Gauges) -> f64);

fn gauges(text: &mut Text, snapshot: &Snapshot) {
    let plain: [(&str, &str, &[Series]); 9] = [
        ("sessions_open", "Client sessions open.", &[("", |now| now.sessions_open as f64)]),
        ("queue_messages", "Messages in the queue.", &[("", |now| now.queue_messages as f64)]),
        (
            "queue_envelopes",
            "Envelopes in the queue by state.",
            &[
                ("state=\"deferred\"", |now| now.queue_deferred as f64),
                ("state=\"in_flight\"", |now| now.queue_in_flight as f64),
                ("state=\"ready\"", |now| {
                    now.queue_envelopes.saturating_sub(now.queue_deferred + now.queue_in_flight) as f64
                }),
            ],
        ),
        ("queue_bytes", "Bytes of queued messages in the journal.", &[("", |now| now.queue_bytes as f64)]),
        (
            "journal_segments",
            "Journal segments by state.",
            &[
                ("state=\"free\"", |now| now.segments_free as f64),
                ("state=\"active\"", |now| now.segments_active as f64),
                ("state=\"cold\"", |now| now.segments_cold as f64),
            ],
        ),
        (
            "journal_amplification_ratio",
            "Bytes of the journal for each byte still needed.",
            &[("", |now| now.journal_amplification)],
        ),
        ("route_connections", "Connections to next servers open.", &[("", |now| now.route_connections as f64)]),
        ("shard_busy_ratio", "Share of its time that a shard works.", &[("", |now| now.busy_ratio)]),
        ("low_space", "1 while new mail is refused for want of disk space.", &[("", |now| f64::from(now.low_space))]),
    ];
    for (name, help, series) in plain {
        text.family(name, "gauge", help);
        for shard in &snapshot.shards {
            for (label, value) in series {
                let comma = if label.is_empty() { "" } else { "," };
                let labels = format!("shard=\"{}\"{comma}{label}", shard.shard);
                text.sample(name, &labels, value(&shard.gauges));
            }
        }
    }
}

fn stages(text: &mut Text, snapshot: &Snapshot) {
    let name = "stage_duration_seconds";
    text.family(name, "histogram", "How long a stage of a message's way took, all shards.");
    let merged = snapshot.merged().stages;
    for stage in Stage::ALL {
        let buckets = merged.stage(stage);
        let label = stage.label();
        for (bound, below) in METRIC_BOUNDS_US.iter().zip(buckets.cumulative(&METRIC_BOUNDS_US)) {
            let labels = format!("stage=\"{label}\",le=\"{}\"", Number(*bound as f64 / 1e6));
            text.sample(&format!("{name}_bucket"), &labels, below as f64);
        }
        text.sample(&format!("{name}_bucket"), &format!("stage=\"{label}\",le=\"+Inf\""), buckets.count() as f64);
        text.sample(&format!("{name}_sum"), &format!("stage=\"{label}\""), buckets.sum_us() as f64 / 1e6);
        text.sample(&format!("{name}_count"), &format!("stage=\"{label}\""), buckets.count() as f64);
    }
}

struct Text {
    out: String,
    format: Format,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.out, "# HELP ringpost_{name} {help}\n# TYPE ringpost_{name} {kind}").expect("a String takes all");
    }

    /// The two formats differ in whether a family of counters is named with `_total`.
    fn counter_family(&mut self, name: &str, help: &str) {
        match self.format {
            Format::Prometheus => self.family(&format!("{name}_total"), "counter", help),
            Format::OpenMetrics => self.family(name, "counter", help),
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        writeln!(self.out, "ringpost_{name}{open}{labels}{close} {}", Number(value)).expect("a String takes all");
    }
}

/// Whole numbers without a point; what is not a number as both formats want it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => out.write_str("NaN"),
            value if value.is_infinite() => out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            value => write!(out, "{value}"),
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
