//! The texts are read back by a small strict parser of both formats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::sites::{Classes, Fate, Recent, Sites, Tally};
use crate::{Counters, Gauges, ShardSnapshot, Stages};

/// Value by `name{labels}`, after every rule that both formats share was checked.
fn parse(text: &str, format: Format) -> BTreeMap<String, f64> {
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut finished = BTreeSet::new();
    let mut current = String::new();
    let mut samples = BTreeMap::new();
    assert!(text.ends_with('\n'));
    assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none() && helped.contains(name), "{line}");
            assert!(finished.insert(std::mem::replace(&mut current, name.to_owned())), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with("ringpost_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        check_labels(labels.strip_suffix('}').expect("labels end"));
        let kind = kinds[&current].as_str();
        let suffixes: &[&str] = match (kind, format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let suffix = name.strip_prefix(current.as_str()).expect("samples follow their family");
        assert!(suffixes.contains(&suffix), "{line} in {current}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        let value: f64 = value.parse().expect("a number");
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

fn check_labels(labels: &str) {
    // Values may have commas.
    for pair in labels.split_inclusive("\",").map(|pair| pair.trim_end_matches(',')) {
        let (name, value) = pair.split_once('=').expect("a label");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()));
        assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{labels}");
    }
}

fn sites() -> Vec<(String, Tally)> {
    let (mut sites, mut recent) = (Sites::default(), Recent::default());
    sites.limit(1);
    recent.add("mx1.a.example:25,mx2.a.example:25", Fate::Delivered, None);
    recent.add("mx1.a.example:25,mx2.a.example:25", Fate::Deferred, Some("rate-limited"));
    recent.add("mx.b.example:25", Fate::Failed, Some("spam"));
    sites.merge(&recent);
    sites.snapshot()
}

fn snapshot() -> Snapshot {
    let shards = (0..3u16).map(|shard| {
        let (stages, counters) = (Stages::new(), Counters::new());
        for number in 0..100 {
            stages.record(Stage::CommitWait, Duration::from_micros(150 + number * 10));
        }
        counters.add(Counter::MessagesReceived, 100);
        counters.add(Counter::Delivered, u64::from(shard));
        let gauges = Gauges { queue_envelopes: 7, queue_deferred: 3, queue_in_flight: 1, ..Gauges::default() };
        let mut refusals = Classes::default();
        refusals.add("spam", 2);
        ShardSnapshot { shard, stages: stages.snapshot(), counters: counters.snapshot(), gauges, refusals }
    });
    Snapshot {
        version: "0.1.0\"\\".into(),
        uptime_seconds: 1.5,
        shards: shards.collect(),
        certificates: vec![CertificateDays { pki: "mx".into(), days: -2 }],
        sites: sites(),
        sites_left_out: 1,
    }
}

#[test]
fn both_formats_are_valid_and_say_the_same() {
    let snapshot = snapshot();
    let prometheus = parse(&render(&snapshot, Format::Prometheus), Format::Prometheus);
    let open = parse(&render(&snapshot, Format::OpenMetrics), Format::OpenMetrics);
    assert_eq!(prometheus, open);
    assert_eq!(prometheus["ringpost_messages_received_total{shard=\"1\"}"], 100.0);
    assert_eq!(prometheus["ringpost_deliveries_total{result=\"ok\"}"], 3.0);
    assert_eq!(prometheus["ringpost_queue_envelopes{shard=\"0\",state=\"ready\"}"], 3.0);
    assert_eq!(prometheus["ringpost_refusals_total{class=\"spam\"}"], 6.0);
    let site = "site=\"mx1.a.example:25,mx2.a.example:25\"";
    assert_eq!(prometheus[&format!("ringpost_site_deliveries_total{{{site},result=\"ok\"}}")], 1.0);
    assert_eq!(prometheus[&format!("ringpost_site_refusals_total{{{site},class=\"rate-limited\"}}")], 1.0);
    assert_eq!(prometheus["ringpost_site_refusals_total{site=\"other\",class=\"spam\"}"], 1.0);
    assert_eq!(prometheus["ringpost_sites_left_out"], 1.0);
    assert!(prometheus.len() < 400, "{} series", prometheus.len());
    let empty = Snapshot::default();
    parse(&render(&empty, Format::Prometheus), Format::Prometheus);
}

#[test]
fn histogram_buckets_are_cumulative_and_end_at_the_count() {
    let samples = parse(&render(&snapshot(), Format::Prometheus), Format::Prometheus);
    let of = |suffix: &str| samples[&format!("ringpost_stage_duration_seconds_{suffix}")];
    assert_eq!(of("bucket{stage=\"commit_wait\",le=\"0.0001\"}"), 0.0);
    let below_one_ms = of("bucket{stage=\"commit_wait\",le=\"0.001\"}");
    assert_eq!(below_one_ms, 258.0, "150 to 1000 µs by 10, three times");
    assert_eq!(of("bucket{stage=\"commit_wait\",le=\"0.002\"}"), 300.0);
    assert_eq!(of("bucket{stage=\"commit_wait\",le=\"+Inf\"}"), 300.0);
    assert_eq!(of("count{stage=\"commit_wait\"}"), 300.0);
    let sum: f64 = (0..100).map(|number| f64::from(150 + number * 10) * 3e-6).sum();
    assert!((of("sum{stage=\"commit_wait\"}") - sum).abs() < 1e-9);
    assert_eq!(of("bucket{stage=\"local\",le=\"+Inf\"}"), 0.0);
}

#[test]
fn the_format_follows_the_accept_header() {
    let scraper = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted(scraper), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
}
