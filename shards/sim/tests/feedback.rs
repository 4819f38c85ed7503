//! A provider that takes so many messages a second, or so many connections, and says 451 or 421 to the rest: the engine's own
//! shards find out how many, and again when that changes. What "finds out" means: `src/provider.rs`.

use std::time::Duration;

use ringpost_sim::provider::{Limited, Manner, Phase, Scenario, run};

const MINUTE: Duration = Duration::from_secs(60);

fn hold(scenario: &Scenario) -> Vec<Phase> {
    let phases = run(scenario);
    let wrong: Vec<&Phase> = phases.iter().filter(|phase| !phase.wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "{scenario:?}: {wrong:#?}");
    assert!(phases.iter().all(|phase| !phase.told.is_empty()), "the log says what was learnt: {phases:#?}");
    phases
}

fn the_rate_is_found(manner: Manner) {
    let phases = vec![(20.0, 10 * MINUTE), (40.0, 20 * MINUTE), (15.0, 10 * MINUTE)];
    hold(&Scenario {
        seed: 11,
        limited: Limited::Messages,
        manner,
        phases,
        saves: 1.0,
        thinks: Duration::ZERO,
        latency: (Duration::from_micros(50), Duration::from_millis(1)),
        trace: false,
    });
}

#[test]
fn the_rate_that_a_provider_takes_is_found_within_a_tenth_and_not_exceeded_by_more_than_a_fifth() {
    the_rate_is_found(Manner::Farewell);
}

#[test]
fn the_same_where_it_says_later_and_keeps_the_connection() {
    the_rate_is_found(Manner::Later);
}

#[test]
fn so_are_the_connections_that_a_provider_bears() {
    let phases = hold(&Scenario {
        seed: 11,
        limited: Limited::Connections,
        manner: Manner::Later,
        phases: vec![(10.0, 12 * MINUTE), (20.0, 20 * MINUTE), (8.0, 12 * MINUTE)],
        saves: 1.0,
        thinks: Duration::from_secs(1),
        latency: (Duration::from_micros(50), Duration::from_millis(1)),
        trace: false,
    });
    assert!(phases.iter().flat_map(|phase| &phase.told).any(|line| line.contains("connections=")), "{phases:#?}");
}

/// As `ringpost sim --provider` runs them: the first ones, and those whose first limit was exceeded while a route began as fast
/// as it could (docs/decisions/0015).
#[test]
fn whatever_the_provider_is_like() {
    [1, 2, 3, 4, 5, 9, 14, 22, 24, 27, 38, 47].into_iter().for_each(|seed| drop(hold(&Scenario::drawn(seed))));
}

/// It refuses ten at once, and says only seconds later that it has taken others, which was its rate.
#[test]
fn a_rate_that_is_known_from_what_was_taken_late_is_told_as_others() {
    let phases = run(&Scenario {
        seed: 11,
        limited: Limited::Messages,
        manner: Manner::Later,
        phases: vec![(2.0, MINUTE)],
        saves: 1.0,
        thinks: Duration::from_secs(3),
        latency: (Duration::from_micros(50), Duration::from_millis(1)),
        trace: false,
    });
    let told = &phases[0].told;
    let says = |at: usize, what: &str| told.get(at).is_some_and(|line: &String| line.contains(what));
    assert!(says(0, " rest=5s reply=\"451"), "{told:#?}");
    assert!(says(1, "s pace   route=") && says(1, " rate=10.000/s->") && says(1, " reply=\"451"), "{told:#?}");
    // Three seconds after the first; the next time that it is exceeded is far later.
    assert!(told[1].starts_with("4."), "{told:#?}");
}
