//! Handshakes with the sink, over loopback: full ones and resumed ones, in both ways to begin, and what is no TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use ringpost_bench::handshakes::{self, Versions};
use ringpost_bench::sink;

/// A sink with a certificate, if `dir` is given; what came of these handshakes, and what it has seen.
fn meet(
    dir: Option<&Path>,
    smtps: bool,
    change: impl FnOnce(&mut handshakes::Options),
) -> (handshakes::Summary, sink::Summary) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut options = sink::Options::on(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.stop = Some(stop.clone());
    options.time = Some(Duration::from_secs(30));
    options.smtps = smtps;
    if let Some(dir) = dir {
        let key = KeyPair::generate().expect("a key");
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key);
        let (cert_file, key_file) = (dir.join("sink.crt"), dir.join("sink.key"));
        std::fs::write(&cert_file, cert.expect("a certificate").pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        (options.cert, options.key) = (Some(cert_file), Some(key_file));
    }
    let sink = sink::Sink::bind(&options).expect("a free port");
    let mut wanted = handshakes::Options::to(sink.local_addr());
    wanted.patience = Duration::from_secs(10);
    wanted.smtps = smtps;
    change(&mut wanted);
    let thread = std::thread::spawn(move || sink.run().expect("a sink"));
    let made = handshakes::run(&wanted).expect("a run");
    stop.store(true, Ordering::Relaxed);
    (made, thread.join().expect("a sink"))
}

#[test]
fn full_and_resumed_ones_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    for smtps in [false, true] {
        for versions in [Versions::Tls12, Versions::Tls13] {
            for resume in [false, true] {
                let (made, seen) = meet(Some(dir.path()), smtps, |options| {
                    (options.handshakes, options.connections) = (Some(60), 4);
                    (options.versions, options.resume) = (versions, resume);
                });
                let resumed = if resume { 56 } else { 0 };
                assert_eq!(
                    (made.handshakes, made.failed, made.resumed),
                    (60, 0, resumed),
                    "{smtps} {versions:?} {made}"
                );
                assert!(made.rate > 0.0 && made.steps[0].count == 60, "{made}");
                assert_eq!((seen.connections, seen.mistakes), (60, 0), "{seen}");
            }
        }
    }
}

#[test]
fn the_same_without_tls_shows_what_the_rest_costs() {
    let (made, seen) = meet(None, false, |options| (options.handshakes, options.plain) = (Some(20), true));
    assert_eq!((made.handshakes, made.failed, made.steps[0].count, seen.mistakes), (20, 0, 0, 0), "{made}");
}

#[test]
fn a_schedule_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (made, _) = meet(Some(dir.path()), false, |options| {
        (options.time, options.rate) = (Some(Duration::from_secs(1)), Some(50.0));
    });
    assert!((35..=51).contains(&made.handshakes), "{made}");
}

#[test]
fn a_server_without_tls_is_a_result() {
    let (made, _) = meet(None, false, |options| {
        (options.time, options.connections) = (Some(Duration::from_millis(200)), 2);
    });
    assert_eq!(made.handshakes, 0);
    assert_eq!(made.failures.keys().collect::<Vec<_>>(), ["StartTls was answered with 500"]);
}
