//! Seeds through the whole engine, and proof that the judge bites: with a bug planted, some seed must fail.

use std::time::Duration;

use ringpost_sim::{Broken, Faults, Outcome, Plan, Ttl, run};

fn go(seed: u64, faults: Faults, seconds: u64) -> Outcome {
    run(&Plan { seed, traffic: Duration::from_secs(seconds), faults, ttl: Ttl::Usual, trace: false })
}

/// Messages have `ttl` seconds to be delivered.
fn go_expiring(seed: u64, faults: Faults, seconds: u64, ttl: u64) -> Outcome {
    let ttl = Ttl::Of(Duration::from_secs(ttl));
    run(&Plan { seed, traffic: Duration::from_secs(seconds), faults, ttl, trace: false })
}

fn hold(outcome: &Outcome) {
    let broken: Vec<String> = outcome.broken.iter().take(10).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "seed {}: {}\n  ringpost sim --seed {}", outcome.seed, broken.join("\n"), outcome.seed);
}

#[test]
fn a_perfect_world_delivers_everything_once() {
    let outcome = go(1, Faults::NONE, 20);
    hold(&outcome);
    assert!(outcome.sent > 100 && outcome.acked == outcome.sent, "{outcome:?}");
    assert!(outcome.delivered >= outcome.acked, "{outcome:?}");
}

#[test]
fn a_seed_does_the_same_twice() {
    let (one, two) = (go(7, Faults::ALL, 20), go(7, Faults::ALL, 20));
    assert_eq!(one.fingerprint, two.fingerprint);
    assert_eq!((one.sent, one.acked, one.delivered), (two.sent, two.acked, two.delivered));
}

#[test]
fn s119_promises_hold_with_every_fault() {
    for seed in 100..110 {
        let outcome = go(seed, Faults::ALL, 60);
        hold(&outcome);
        assert!(outcome.acked > 0, "{outcome:?}");
    }
}

/// The fsync is skipped: what was answered is gone after a crash.
#[test]
fn a_forgotten_fsync_is_found_within_50_seeds() {
    let faults = Faults { lying_disk: true, ..Faults::ALL };
    assert!((0..50).any(|seed| !go(seed, faults, 30).broken.is_empty()), "the judge has not noticed");
}

/// The generation is left out of the checksum: leftovers of a recycled segment's earlier life look valid.
#[test]
fn a_checksum_without_generation_is_found_within_50_seeds() {
    let faults = Faults { no_generation: true, ..Faults::ALL };
    assert!((0..50).any(|seed| !go(seed, faults, 30).broken.is_empty()), "the judge has not noticed");
}

/// Networks, names, disks and receivers fail at random, and messages have little time: whatever holds one up, it is given up
/// when its time is over, and none ever waits for nothing.
#[test]
fn promise_6_no_message_waits_without_a_reason_or_outlives_its_expiry() {
    let mut expired = 0;
    for (number, ttl) in [5, 30, 90, 400, 1800].into_iter().enumerate() {
        let outcome = go_expiring(300 + number as u64, Faults::ALL, 60, ttl);
        hold(&outcome);
        assert!(outcome.acked > 0 && outcome.audits > 0, "{outcome:?}");
        expired += outcome.expired;
    }
    assert!(expired > 0, "some must have had too little time");
}

/// Envelopes that are due are dropped on the way: the auditor finds each, says so, and sets it free, so that none is lost.
#[test]
fn promise_6_the_auditor_finds_envelopes_that_wait_for_nothing() {
    let faults = Faults { forgets_claims: true, peers: true, names: true, ..Faults::NONE };
    let outcome = go(1, faults, 60);
    assert!(matches!(outcome.broken[..], [Broken::Stranded { envelopes } ] if envelopes > 0), "{:?}", outcome.broken);
}

/// Seeds that have found something: mail that was given back by a clock that was ahead waited until that time had come, long
/// beyond its expiry (1010), and so did what came to its route by such a clock (5002); a shard that was stopped did not wait for what other shards were about to deliver for it, and
/// delivered it again (1011).
#[test]
fn seeds_that_have_failed_hold() {
    for seed in [1010, 1011, 5002] {
        let plan = Plan { seed, traffic: Duration::from_secs(40), faults: Faults::ALL, ttl: Ttl::Drawn, trace: false };
        hold(&run(&plan));
    }
}

/// Mail comes to its route, and nobody opens a connection for it.
#[test]
fn promise_6_a_lost_wake_up_is_found_within_50_seeds() {
    let faults = Faults { loses_wakes: true, ..Faults::ALL };
    let found = |outcome: Outcome| outcome.broken.iter().any(|broken| matches!(broken, Broken::Stalled { .. }));
    assert!((0..50).any(|seed| found(go(seed, faults, 30))), "the watch has not noticed");
}

/// Nobody looks after what waits at a route or behind a program that hangs.
#[test]
fn promise_6_an_expiry_that_is_missed_is_found_within_50_seeds() {
    let faults = Faults { misses_expiry: true, ..Faults::ALL };
    let found = |outcome: Outcome| outcome.broken.iter().any(|broken| matches!(broken, Broken::Outlived { .. }));
    assert!((0..50).any(|seed| found(go_expiring(seed, faults, 30, 30))), "the watch has not noticed");
}
