//! What a route learns of replies, and what it makes of that.

use super::*;
use crate::bucket::Bucket;
use crate::limits::{IDLE_ROUTES_MAX, Limits, START_CONNECTIONS, START_PATIENCE, START_TIME, Shape};
use crate::route::{Attempt, Next};
use crate::schedule::Refused;
use crate::site::{Helo, Site};

const SLOW: &str = "451 4.7.0 slow down";

/// A site that takes so many messages a second, of which it lets a second's worth save up.
struct Provider(Bucket);

impl Provider {
    fn of(a_second: f64, now: Instant) -> Self {
        Self(Bucket::new(Rate::of_a_second(a_second), Some(a_second as u32), now))
    }
}

/// Sends for so long as fast as it is let, `free` a second if it is not held back; an answer takes `trip`. Returns how many
/// were tried and how many taken.
fn send(
    feedback: &mut Feedback,
    provider: &mut Provider,
    (start, time): (Instant, Duration),
    free: f64,
    trip: Duration,
) -> (u32, u32) {
    let (mut now, mut tried, mut taken) = (start, 0, 0);
    let mut flying = std::collections::VecDeque::new();
    while now < start + time {
        while let Some((began, takes)) = flying.pop_front_if(|(began, _)| *began + trip <= now) {
            match takes {
                true => drop(feedback.taken(began, now)),
                false => {
                    feedback.refused(SLOW, began, now, None);
                }
            }
        }
        if let Some(rest) = feedback.rest(now) {
            now += rest;
            continue;
        }
        let takes = provider.0.take(now).is_ok();
        (tried, taken) = (tried + 1, taken + u32::from(takes));
        flying.push_back((now, takes));
        now += Duration::from_secs_f64(1.0 / feedback.rate(None, now).unwrap_or(free).min(free));
    }
    (tried, taken)
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn what_a_site_takes_is_found_whether_it_is_much_or_little_and_however_late_it_answers() {
    for limit in [3.0, 20.0, 400.0] {
        for trip in [1, 200, 2_000].map(Duration::from_millis) {
            let mut now = Instant::now();
            let (mut feedback, mut provider) = (Feedback::default(), Provider::of(limit, now));
            send(&mut feedback, &mut provider, (now, 5 * MINUTE), 1000.0, trip);
            now += 5 * MINUTE;
            let (tried, taken) = send(&mut feedback, &mut provider, (now, 10 * MINUTE), 1000.0, trip);
            let most = limit * 600.0;
            let of = |count: u32| f64::from(count) / most;
            assert!(of(taken) > 0.9 && of(tried) < 1.1, "{limit} a second, {trip:?}: {} {}", of(taken), of(tried));
        }
    }
}

#[test]
fn what_is_refused_together_counts_once_and_what_was_under_way_not_at_all() {
    let (mut feedback, start) = (Feedback::default(), Instant::now() + MINUTE);
    let at = |ms: u64| start + Duration::from_millis(ms);
    let (first, last) = (start - START_TIME, start + Duration::from_secs(1));
    let pace = Duration::from_millis(10);
    (0..).map(|n| first + n * pace).take_while(|at| *at < last).for_each(|at| drop(feedback.taken(at, at + pace / 2)));
    let Some(Change::Rate { from, to }) = feedback.refused(SLOW, at(999), at(1000), None) else { panic!("lowered") };
    assert!((99.0..103.0).contains(&from) && (to / from - KEPT_AT_MOST).abs() < 1e-9, "{from} {to}");
    (0..50).for_each(|n| assert_eq!(feedback.refused(SLOW, at(990 + n % 10), at(1001 + n), None), None));
    // Of those that were begun since, half are taken.
    for n in 0..5 {
        feedback.taken(at(1000), at(1100 + n));
        assert!(n == 4 || feedback.refused(SLOW, at(1000), at(1100 + n), None).is_none(), "too few to tell");
    }
    let Some(Change::Rate { from, to }) = feedback.refused(SLOW, at(1000), at(1200), None) else { panic!("lowered") };
    assert!((to / from - 0.5).abs() < 1e-9, "{from} {to}");
}

#[test]
fn a_site_that_takes_nothing_rests_longer_each_time_and_its_rate_stays() {
    let (mut feedback, mut now) = (Feedback::default(), Instant::now());
    let mut rests = Vec::new();
    for _ in 0..60 {
        now += Duration::from_millis(10);
        if let Some(Change::Rest(time)) = feedback.refused(SLOW, now, now, None) {
            assert_eq!(feedback.rest(now), Some(time));
            now += time;
            rests.push(time);
        }
    }
    let expected = [5, 10, 20, 40, 50, 50].map(Duration::from_secs);
    assert_eq!(rests, expected);
    assert_eq!((feedback.rate(None, now), feedback.rest(now)), (None, None));
    feedback.taken(now, now);
    let mut again = Vec::new();
    for _ in 0..30 {
        again.extend(feedback.refused(SLOW, now, now, None));
        now += Duration::from_millis(20);
    }
    assert!(matches!(again[..], [Change::Rate { .. }, Change::Rest(BACK_OFF_MIN), ..]), "it had taken one: {again:?}");
}

#[test]
fn a_new_site_that_refuses_some_is_sent_what_it_has_taken_and_twice_as_much_each_time_after() {
    let (mut feedback, start) = (Feedback::default(), Instant::now());
    let at = |ms: u64| start + Duration::from_millis(ms);
    (0..6).for_each(|n| drop(feedback.taken(at(0), at(200 + n))));
    (0..3).for_each(|n| assert_eq!(feedback.refused(SLOW, at(300), at(310 + n), None), None, "too few to tell"));
    let change = feedback.refused(SLOW, at(300), at(1000), None);
    assert_eq!(change, Some(Change::Rate { from: 10.0, to: 2.0 }), "six in a second, and what two have let save up");
    assert_eq!(feedback.rest(at(1000)), Some(BACK_OFF_MIN));
    // What was under way is taken, too.
    (0..3).for_each(|_| drop(feedback.taken(at(400), at(1200))));
    assert_eq!(feedback.refused(SLOW, at(400), at(1200), None), None);
    assert_eq!(feedback.rate(None, at(1000)), Some(3.0));
    assert_eq!(feedback.rate(None, at(1000) + 3 * DOUBLED_IN), Some(24.0));
    // Refused again after a while, it has its place.
    let later = at(1000) + 3 * DOUBLED_IN;
    (0..300).for_each(|n| {
        drop(feedback.taken(later + Duration::from_millis(40 * n), later + Duration::from_millis(40 * n)))
    });
    let last = later + Duration::from_secs(12);
    let Some(Change::Rate { from, to }) = feedback.refused(SLOW, last, last, None) else { panic!("lowered") };
    assert!((24.0..27.0).contains(&from) && (to / from - KEPT_AT_MOST).abs() < 1e-9, "{from} {to}");
    assert_eq!(feedback.rest(last), None);
    assert!(feedback.rate(None, last + MINUTE).is_some_and(|rate| (rate / to - 1.1).abs() < 1e-9));
}

#[test]
fn a_new_site_that_refuses_few_of_many_is_none_that_is_sent_too_much() {
    let (mut feedback, now) = (Feedback::default(), Instant::now());
    for n in 0..1000 {
        let at = now + Duration::from_millis(n);
        match n % 21 {
            20 => assert_eq!(feedback.refused(SLOW, at, at, None), None),
            _ => drop(feedback.taken(at, at)),
        }
    }
    assert!(feedback.is_silent());
}

#[test]
fn what_a_new_site_takes_after_it_has_refused_ten_is_its_rate() {
    let (mut feedback, now) = (Feedback::default(), Instant::now());
    let changes: Vec<Change> = (0..10).filter_map(|_| feedback.refused(SLOW, now, now, None)).collect();
    assert_eq!(changes, [Change::Rest(BACK_OFF_MIN)]);
    assert_eq!(feedback.rate(None, now), None);
    let late = [(); 2].map(|()| feedback.taken(now - MINUTE, now + MINUTE / 60));
    let set = Late { change: Change::Rate { from: 10.0, to: 0.5 }, reply: SLOW.into() };
    assert_eq!(late, [Some(set), None], "that it has one now is told, and not that it rises");
    assert_eq!(feedback.rate(None, now + MINUTE / 60), Some(1.0), "two, of what two seconds have let save up");
    assert_eq!(feedback.rest(now), Some(BACK_OFF_MIN));
    assert_eq!(feedback.rate(None, now + MINUTE + DOUBLED_FOR), None, "nobody has asked for more");
}

#[test]
fn a_route_begins_with_few_connections_and_a_site_with_more_to_do_is_as_a_new_one() {
    let now = Instant::now();
    let (mut routes, id) = routes(&site(&[]), Shape::default(), 50, now);
    let open = |routes: &mut Routes<u32>, at| std::iter::from_fn(|| routes.open_next(at)).count();
    assert_eq!(1 + open(&mut routes, now), START_CONNECTIONS);
    assert_eq!(routes.opens_at(), Some(now + START_PATIENCE));
    // A minute with few messages, then many.
    let at = |second: u32| now + second * Duration::from_secs(1);
    (0..60).for_each(|second| drop(routes.route(id).feedback.taken(at(second), at(second))));
    let burst = at(60);
    (0..8).for_each(|_| drop(routes.taken(id, burst, burst)));
    assert_eq!(open(&mut routes, burst), 1, "there were five");
    let changes: Vec<Change> = (0..8).filter_map(|_| routes.refused(id, SLOW, burst, burst)).collect();
    assert!(matches!(changes[..], [Change::Rate { to, .. }] if to < 5.0), "{changes:?}");
}

#[test]
fn a_throttle_is_the_configured_part_and_is_over_when_the_rate_is_back() {
    let (mut feedback, now) = (Feedback::default(), Instant::now());
    let top = Some(200.0);
    let change = feedback.throttle(50, SLOW, now, now, top);
    assert_eq!(change, Some(Change::Rate { from: 200.0, to: 100.0 }), "one reply is enough");
    assert_eq!(feedback.throttle(50, SLOW, now - MINUTE, now, top), None, "it was under way");
    let at = |minutes: u32| now + MINUTE * minutes;
    assert_eq!(feedback.rate(top, at(1)), Some(120.0), "10% of what it was, a minute");
    let slowed = feedback.slowed(top, 20, at(1)).expect("slowed");
    assert_eq!((slowed.rate, slowed.connections, &*slowed.reply, slowed.since), (Some(120.0), None, SLOW, now));
    assert_eq!(feedback.rate(top, at(5)), None);
    assert!(feedback.is_silent());

    // Without a rate of its own, what went lately is halved; all is forgotten after an hour.
    (0..100)
        .for_each(|n| drop(feedback.taken(now + n * Duration::from_millis(20), now + n * Duration::from_millis(20))));
    let later = now + Duration::from_secs(2);
    let Some(Change::Rate { from, to }) = feedback.throttle(50, SLOW, later, later, None) else { panic!("lowered") };
    assert!((49.0..52.0).contains(&from) && to == from / 2.0, "{from} {to}");
    let an_hour = later + PRESSED_FOR;
    assert!(feedback.rate(None, an_hour - MINUTE).is_some());
    assert_eq!(feedback.rate(None, an_hour), None);
    // However often, something goes.
    for second in 0..40 {
        let at = an_hour + Duration::from_secs(second);
        assert!(feedback.throttle(90, SLOW, at, at, None).is_some());
    }
    assert!(feedback.rate(None, an_hour + MINUTE).is_some_and(|rate| rate >= RATE_MIN));
}

#[test]
fn connections_go_down_by_a_part_and_come_back_by_a_step() {
    let (mut feedback, now) = (Feedback::default(), Instant::now());
    let too_many = |feedback: &mut Feedback, began, at, have| feedback.crowded("421 too many", began, at, have, 20);
    assert_eq!(too_many(&mut feedback, now, now, 11), Some(Change::Connections { from: 11, to: 9 }));
    assert_eq!(too_many(&mut feedback, now - MINUTE, now, 12), None, "it was being opened at the time");
    assert_eq!((feedback.most(20, now), feedback.most(5, now)), (9, 5));
    let mut feedback = Feedback::default();
    too_many(&mut feedback, now, now, 11);
    assert_eq!(feedback.most(20, now + 2 * MINUTE), 11);
    assert_eq!(feedback.most(20, now + 30 * MINUTE), 20);
    assert!(feedback.is_silent(), "it has all again");
    assert_eq!(too_many(&mut feedback, now, now, 1), None, "one is not too many");
    assert_eq!(too_many(&mut feedback, now, now, 2), Some(Change::Connections { from: 2, to: 1 }));
}

#[test]
fn a_suspension_is_one_until_it_is_over_or_an_administrator_ends_it() {
    let (mut feedback, now) = (Feedback::default(), Instant::now());
    feedback.suspend("421 4.7.28 x", MINUTE, now);
    let longer = feedback.suspend("421 4.7.28 y", MINUTE, now + MINUTE / 2);
    assert_eq!((longer.since, longer.until, &*longer.reply), (now, now + MINUTE * 3 / 2, "421 4.7.28 y"));
    assert_eq!(feedback.suspension(now + MINUTE), Some(&longer));
    assert_eq!(feedback.suspension(longer.until), None);
    feedback.resume();
    assert_eq!(feedback.suspension(now), None);
}

fn site(sources: &[IpAddr]) -> Site {
    Site { name: "mx:25".into(), ..Site::new(&[], sources, Helo::Name("us".into())) }
}

/// A route with a connection and so many tickets.
fn routes(site: &Site, shape: Shape, count: u32, now: Instant) -> (Routes<u32>, RouteId) {
    let mut routes = Routes::new(Limits::default());
    let (hosts, shape) = (Arc::from([]), Arc::new(shape));
    let ids = (0..count).map(|n| routes.push(site, (&hosts, &shape), n, now).expect("taken"));
    let id = ids.last().expect("some");
    routes.open_next(now).expect("wanted");
    assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
    (routes, id)
}

#[test]
fn a_suspended_route_gives_its_tickets_back_takes_none_and_closes() {
    let now = Instant::now();
    let site = site(&[]);
    let (mut routes, id) = routes(&site, Shape::default(), 5, now);
    assert_eq!(routes.next(id, 0, || now), Next::Send(0));
    let (suspension, back) = routes.suspend(id, "421 4.7.28 x", MINUTE, now);
    assert_eq!(back, [1, 2, 3, 4]);
    assert_eq!(routes.next(id, 1, || now), Next::Close);
    let shape = Arc::default();
    let refused = routes.push(&site, (&Arc::from([]), &shape), 9, now + MINUTE / 2);
    assert_eq!(refused, Err((9, Refused::Suspended(suspension))));
    routes.closed(id, now);
    assert!(routes.open_next(now).is_none());
    routes.push(&site, (&Arc::from([]), &shape), 9, now + MINUTE).expect("it is over");
    assert!(routes.open_next(now + MINUTE).is_some());
    routes.suspend(id, "421 4.7.28 x", MINUTE, now + MINUTE);
    routes.resume_all();
    routes.push(&site, (&Arc::from([]), &shape), 9, now + MINUTE).expect("an administrator has asked for it");
}

#[test]
fn a_slowed_route_has_tokens_at_the_pace_that_was_learnt_and_then_at_its_own() {
    let now = Instant::now();
    let (mut routes, id) = routes(&site(&[]), Shape { burst: Some(1), ..Shape::default() }, 50, now);
    assert_eq!(routes.next(id, 0, || now), Next::Send(0), "nothing holds it back");
    let change = routes.throttle(id, 50, SLOW, now, now);
    assert_eq!(change, Some(Change::Rate { from: RATE_UNMEASURED, to: 5.0 }));
    assert_eq!(routes.next(id, 1, || now), Next::Send(1));
    assert_eq!(routes.next(id, 2, || now), Next::Later(Duration::from_millis(200)));
    assert!(routes.open_next(now).is_none(), "another connection would have no token");
    let slowed = routes.standing(&site(&[]), now).and_then(|standing| standing.slowed).expect("slowed");
    assert_eq!((slowed.rate, &*slowed.reply), (Some(5.0), SLOW));
    let later = now + PRESSED_FOR;
    assert_eq!((routes.next(id, 2, || later), routes.next(id, 3, || later)), (Next::Send(2), Next::Send(3)));
    // It rests, and whoever asks is told for how long.
    (0..10).for_each(|_| {
        assert!(routes.refused(id, SLOW, later, later).is_none_or(|change| matches!(change, Change::Rest(_))))
    });
    assert_eq!(routes.next(id, 4, || later), Next::Later(BACK_OFF_MIN));
    assert_eq!(routes.next(id, 4, || later + BACK_OFF_MIN), Next::Send(4));
}

#[test]
fn a_crowded_route_opens_fewer_connections() {
    let now = Instant::now();
    let (mut routes, id) = routes(&site(&[]), Shape { connections: 30, ..Shape::default() }, 50, now);
    (1..10).for_each(|_| {
        routes.open_next(now).expect("wanted");
        routes.attempted(id, Attempt::Connected, now, "");
        routes.taken(id, now, now);
    });
    routes.open_next(now).expect("wanted");
    assert_eq!(routes.crowded(id, "421 too many", now, now), Some(Change::Connections { from: 11, to: 9 }));
    routes.attempted(id, Attempt::Failed, now, "421 too many");
    let later = now + BACK_OFF_MIN;
    assert!(routes.open_next(later).is_none());
    routes.closed(id, later);
    assert!(routes.counts_connections(id) && routes.open_next(later).is_none());
    routes.closed(id, later);
    assert!(routes.open_next(later).is_some() && routes.open_next(later).is_none(), "nine, and some time later ten");
}

#[test]
fn a_retired_source_is_not_used_where_there_is_another() {
    let now = Instant::now();
    let sources: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let (mut routes, id) = routes(&site(&sources), Shape::default(), 5, now);
    let until = now + MINUTE;
    assert!(routes.retire_source(id, sources[0], until, now) && !routes.retire_source(id, sources[0], until, now));
    assert!(routes.is_retired(id, sources[0], || now) && !routes.is_retired(id, sources[1], || now));
    let origins: Vec<_> = (0..4).map(|_| routes.origin(id, true, &[], now)).collect();
    assert_eq!(origins, [crate::Origin::Address(sources[1]); 4]);
    assert!(!routes.retire_source(id, sources[1], until, now), "it is the last");
    assert!(!routes.is_retired(id, sources[0], || until));
}

#[test]
fn a_suspended_route_is_not_forgotten_with_those_that_have_no_work() {
    let now = Instant::now();
    let site = site(&[]);
    let (mut routes, id) = routes(&site, Shape::default(), 1, now);
    routes.suspend(id, "421 4.7.28 x", MINUTE, now);
    routes.closed(id, now);
    for n in 0..IDLE_ROUTES_MAX + 10 {
        let other = Site { name: n.to_string(), ..site.clone() };
        let other = routes.push(&other, (&Arc::from([]), &Arc::default()), 1, now).expect("taken");
        routes.open_next(now).expect("wanted");
        routes.attempted(other, Attempt::Connected, now, "");
        assert_eq!(routes.next(other, 0, || now), Next::Send(1));
        routes.closed(other, now);
    }
    let refused = routes.push(&site, (&Arc::from([]), &Arc::default()), 9, now);
    assert!(matches!(refused, Err((9, Refused::Suspended(_)))), "{refused:?}");
    assert!(routes.totals().routes <= IDLE_ROUTES_MAX + 1);
}

#[test]
fn one_refusal_among_few_is_chance_however_many_there_were_before_a_gap() {
    let (mut feedback, start) = (Feedback::default(), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    (0..40).for_each(|n| drop(feedback.taken(at(15 * n), at(15 * n))));
    feedback.taken(at(1000), at(1000));
    assert_eq!(feedback.refused(SLOW, at(1000), at(1000), None), None);
    (0..7).for_each(|_| drop(feedback.taken(at(1000), at(1000))));
    assert!(
        matches!(feedback.refused(SLOW, at(1000), at(1000), None), Some(Change::Rate { .. })),
        "two of ten are not"
    );
}

#[test]
fn a_site_that_takes_none_of_ten_after_its_first_estimate_rests() {
    let (mut feedback, start) = (Feedback::default(), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    (0..8).for_each(|_| drop(feedback.taken(at(1), at(2))));
    assert_eq!(feedback.refused(SLOW, at(1), at(2), None), None);
    assert!(matches!(feedback.refused(SLOW, at(1), at(2), None), Some(Change::Rate { .. })));
    // What was under way is taken; then nothing more is.
    (0..3).for_each(|_| drop(feedback.taken(at(1), at(3))));
    let changes: Vec<_> = (0..10).filter_map(|_| feedback.refused(SLOW, at(7), at(7), None)).collect();
    assert!(matches!(changes[..], [Change::Rest(_)]), "{changes:?}");
}

#[test]
fn a_connection_that_fails_does_not_keep_a_route_small() {
    let mut now = Instant::now();
    let site = Site { name: "a".into(), ..Site::new(&[], &[], Helo::Name("us".into())) };
    let (mut routes, id) = routes(&site, Shape::default(), 200, now);
    let begun = std::iter::from_fn(|| routes.open_next(now)).count();
    assert!(begun > 1);
    assert!(routes.attempted(id, Attempt::Failed, now, "refused").is_empty());
    for _ in 1..begun {
        assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
    }
    assert!(routes.open_next(now).is_none(), "the site has a pause");
    // Nothing happens at the route meanwhile, but its time comes.
    now = routes.opens_at().expect("it is looked at again");
    assert!(routes.open_next(now).is_some());
}
