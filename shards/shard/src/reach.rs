//! Reaching a site: its hosts by preference, those first that do well, until one takes us; each by the family of addresses that
//! was the quicker one, or by both at once.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::Runtime;
use ringpost_routes::limits::SOURCE_PAUSE;
use ringpost_routes::{Attempt, Chance, Host, Left, Patience, Place, RouteId, Site, Speech};
use ringpost_smtp::client::{Login, RemoteReply};

use crate::faults::{self, Fault};
use crate::greet::{self, Connected, Goal, Unopened, Whose};
use crate::outbound::Connection;
use crate::race::{self, Ended, Raced, Runner};
use crate::shard::{Shard, World};
use crate::{credentials, limits};

/// Why no host of a site can be used.
pub(crate) struct Unreached {
    /// What the route makes of it.
    pub(crate) attempt: Attempt,
    /// What each of them was like.
    pub(crate) why: String,
    /// The last one, of which the log does not know yet.
    pub(crate) last: Option<Fault>,
    /// What the last one that has said something has said, and the address that it was tried from.
    pub(crate) reply: Option<(RemoteReply, Option<IpAddr>)>,
}

/// Whose turn it is.
enum Turn {
    /// This candidate's.
    Of(usize),
    /// Nobody's before a connection ends.
    Full,
    /// Nobody's: all have had theirs.
    Nobodys,
}

/// An address of a host.
struct Candidate<'a> {
    host: &'a Host,
    /// Its number in the list.
    number: usize,
    address: SocketAddr,
    /// Its host has addresses of both families.
    is_of_both: bool,
    /// What is known of it; `None`: a local socket.
    place: Option<Place>,
    /// It has had its turn, or is out of the question.
    over: bool,
}

/// What an attempt has found so far.
struct Search<'a> {
    route: RouteId,
    site: &'a Site,
    candidates: Vec<Candidate<'a>>,
    patience: Patience,
    tried: usize,
    attempt: Attempt,
    reasons: Vec<String>,
    /// Of which the log is told when it is known what follows.
    last: Option<Fault>,
    reply: Option<(RemoteReply, Option<IpAddr>)>,
}

/// Tries the hosts of the best preference, those that do well before others; then the next preference. Hosts that are broken are
/// left alone, unless there is nothing else. Ends when one greets us and, where that is wanted, takes our name and password.
///
/// # Errors
/// Why none of them did. Credentials that a host has refused are not tried at another.
pub(crate) async fn reach<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    site: &Site,
    hosts: &[Host],
) -> Result<Connection<W>, Unreached> {
    let mut search = Search::new(route, site, hosts);
    search.patience = shard.routes.borrow().shape(route).patience;
    loop {
        let number = match search.next(shard) {
            Turn::Of(number) => number,
            Turn::Full => return Err(search.full()),
            Turn::Nobodys => return Err(search.over(shard)),
        };
        let Candidate { host, address, ref place, .. } = search.candidates[number];
        let place = place.clone();
        search.candidates[number].over = true;
        let login = match credentials::at(shard, site, host).await {
            Ok(login) => login,
            Err(error) => {
                search.give_up(host, format!("{}: cannot log in: {error}", host.name));
                continue;
            }
        };
        let mut goal = Goal { route, site, host, address };
        if !shard.routes.borrow().has_room_at(route, &host.name) {
            // Others came to it while the login was looked up.
            search.candidates[number].over = false;
            continue;
        }
        let hold = shard.routes.borrow_mut().hold_host(route, &host.name);
        search.tell_last(shard, goal);
        let (mut place, mut connected) = (place, None);
        if let Some(rival) = search.rival(shard, number) {
            let Some((won, stream)) = race(shard, &mut search, [number, rival]).await else { continue };
            let candidate = &search.candidates[won];
            (goal, place, connected) =
                (Goal { address: candidate.address, ..goal }, candidate.place.clone(), Some(stream));
        }
        match open(shard, goal, place.as_ref(), login.as_ref(), connected, search.patience).await {
            None => {}
            Some(Ok(mut connection)) => {
                let better = search.better_again(shard, host.preference);
                connection.until = better.into_iter().chain(search.strays(shard, &connection)).min();
                (connection.place, connection._host_hold) = (place, hold);
                return Ok(connection);
            }
            Some(Err((unopened, pause))) => search.note(shard, goal, &unopened, pause),
        }
    }
}

/// Connects to whichever of two addresses of a host answers first. Returns it, for which the breaker awaits a word, with the
/// connection; `None`: neither does.
async fn race<W: World>(
    shard: &Rc<Shard<W>>,
    search: &mut Search<'_>,
    numbers: [usize; 2],
) -> Option<(usize, Connected<W>)> {
    let goals = numbers.map(|number| search.goal(number));
    let places = numbers.map(|number| search.candidates[number].place.clone());
    let [Some(one), Some(two)] = &places else { return None };
    let runners = [Runner { goal: goals[0], place: one }, Runner { goal: goals[1], place: two }];
    let Raced { connected, ended } = race::run(shard, runners).await;
    let (mut won, mut beaten) = (None, None);
    for ((ended, number), runner) in ended.into_iter().zip(numbers).zip(runners) {
        let candidate = &mut search.candidates[number];
        candidate.over = true;
        let failure = match ended {
            Ended::Unneeded => {
                candidate.over = false;
                continue;
            }
            Ended::Won => {
                won = Some(number);
                continue;
            }
            // Should the other one turn out to be of no use, there is this one.
            Ended::Outrun => {
                candidate.over = false;
                beaten = Some(number);
                None
            }
            Ended::Nowhere => None,
            Ended::Failed(unopened) => {
                beaten = Some(number);
                Some(unopened)
            }
        };
        let Some(unopened) = failure else {
            shard.breaker.borrow_mut().withdrawn(runner.place);
            continue;
        };
        let pause = judge(shard, runner.place, &unopened, search.patience);
        search.note(shard, runner.goal, &unopened, pause);
        if connected.is_some() && unopened.whose == Whose::Ours {
            // A machine without one of the families is nothing to tell of.
            search.last = None;
        }
    }
    let (won, connected) = won.zip(connected)?;
    // Who began first should have been the first.
    if won == numbers[1] && beaten == Some(numbers[0]) {
        shard.breaker.borrow_mut().outdone(one, shard.runtime.now());
    }
    search.tell_last(shard, search.goal(won));
    Some((won, connected))
}

/// Opens a connection, or goes on with one that is `connected`, and has the breaker know what came of it. The error has with it
/// for how long the host is left alone.
async fn open<W: World>(
    shard: &Rc<Shard<W>>,
    goal: Goal<'_>,
    place: Option<&Place>,
    login: Option<&Login>,
    connected: Option<Connected<W>>,
    patience: Patience,
) -> Option<Result<Connection<W>, (Unopened, Option<Duration>)>> {
    let Some(place) = place else {
        let opened = greet::open(shard, goal, login, connected).await?;
        return Some(opened.map_err(|unopened| (unopened, None)));
    };
    if connected.is_none() {
        shard.breaker.borrow_mut().begin(place, shard.runtime.now());
    }
    let opened = greet::open(shard, goal, login, connected).await;
    let Some(opened) = opened else {
        shard.breaker.borrow_mut().withdrawn(place);
        return None;
    };
    Some(opened.map_err(|unopened| {
        let pause = judge(shard, place, &unopened, patience);
        (unopened, pause)
    }))
    .inspect(|opened| {
        if opened.is_ok() {
            shard.breaker.borrow_mut().worked(place, shard.runtime.now());
        }
    })
}

/// Tells the breaker of a failure. Returns for how long the host is left alone.
fn judge<W: World>(shard: &Shard<W>, place: &Place, unopened: &Unopened, patience: Patience) -> Option<Duration> {
    let mut breaker = shard.breaker.borrow_mut();
    if matches!(unopened.whose, Whose::Ours | Whose::Login) {
        breaker.withdrawn(place);
        return None;
    }
    breaker.failed(place, &unopened.text(), patience, shard.runtime.now())
}

impl<'a> Search<'a> {
    fn new(route: RouteId, site: &'a Site, hosts: &'a [Host]) -> Self {
        let mut candidates = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let is_socket = matches!(host.speech, Speech::LmtpAt(_));
            // Somebody else's DNS says how many there are.
            let addresses = &host.addresses[..host.addresses.len().min(limits::ADDRESSES_PER_HOST)];
            let is_of_both = addresses.iter().any(SocketAddr::is_ipv4) && !addresses.iter().all(SocketAddr::is_ipv4);
            candidates.extend(addresses.iter().map(|address| Candidate {
                host,
                number,
                address: *address,
                is_of_both,
                place: (!is_socket).then(|| host.place(*address, &site.terms)),
                over: false,
            }));
        }
        let (patience, attempt) = (Patience::default(), Attempt::Failed);
        Self { route, site, candidates, patience, tried: 0, attempt, reasons: Vec::new(), last: None, reply: None }
    }

    fn chance<W: World>(&self, shard: &Shard<W>, candidate: &Candidate<'_>) -> Chance {
        let now = shard.runtime.now();
        candidate.place.as_ref().map_or(Chance::Open, |place| shard.breaker.borrow().chance(place, self.patience, now))
    }

    fn goal(&self, number: usize) -> Goal<'a> {
        let Candidate { host, address, .. } = self.candidates[number];
        Goal { route: self.route, site: self.site, host, address }
    }

    /// Who is tried beside this one, unless that is very quick: another address of the same host, of the other family, if
    /// nothing speaks against it.
    fn rival<W: World>(&self, shard: &Shard<W>, number: usize) -> Option<usize> {
        let one = &self.candidates[number];
        one.place.as_ref()?;
        let is_other = |other: &Candidate<'_>| {
            !other.over
                && other.number == one.number
                && other.address.is_ipv4() != one.address.is_ipv4()
                && !matches!(self.chance(shard, other), Chance::Left(_))
        };
        self.candidates.iter().position(is_other)
    }

    /// Tells the log of the last fault, now that it is known what follows.
    fn tell_last<W: World>(&mut self, shard: &Shard<W>, next: Goal<'_>) {
        if let Some(last) = self.last.take() {
            faults::tell(shard, &self.site.name, &last, &format!("{} is tried", next.named()));
        }
    }

    /// Which address of a host comes first, and then, and so on: that of the family that was the quicker one, else of IPv6
    /// (RFC 6724 §2.1).
    fn rank_in_host<W: World>(&self, shard: &Shard<W>, candidate: &Candidate<'_>) -> impl Ord + Copy + use<W> {
        if !candidate.is_of_both {
            return (false, false);
        }
        let now = shard.runtime.now();
        let outdone = candidate.place.as_ref().is_some_and(|place| shard.breaker.borrow().is_outdone(place, now));
        (outdone, candidate.address.is_ipv4())
    }

    /// Who is tried next. A host that has as many connections as it may have is no reason to go to those of a worse preference.
    fn next<W: World>(&mut self, shard: &Shard<W>) -> Turn {
        let (mut best, mut last_resort, mut best_full) = (None, None, None);
        for (number, candidate) in self.candidates.iter().enumerate().filter(|(_, candidate)| !candidate.over) {
            let has_room = shard.routes.borrow().has_room_at(self.route, &candidate.host.name);
            let crowd = match self.chance(shard, candidate) {
                Chance::Open => 0,
                Chance::Crowded => 1,
                Chance::Left(Left { until, .. }) => {
                    if has_room && last_resort.is_none_or(|(earliest, _)| until < earliest) {
                        last_resort = Some((until, number));
                    }
                    continue;
                }
            };
            let rank = (candidate.host.preference, crowd, candidate.number, self.rank_in_host(shard, candidate));
            if !has_room {
                best_full = best_full.or(Some(rank.0)).min(Some(rank.0));
            } else if best.is_none_or(|(found, _)| rank < found) {
                best = Some((rank, number));
            }
        }
        match (best, best_full, last_resort) {
            (Some(((preference, ..), number)), full, _)
                if full.is_none_or(|full| preference <= full) && self.tried < limits::ADDRESSES_PER_ATTEMPT =>
            {
                Turn::Of(number)
            }
            // Others may have failed, but mail goes to this one, and its turn comes. Who is refused for its password is not to
            // try it again soon.
            (_, Some(_), _) if self.attempt != Attempt::LoginRefused => Turn::Full,
            // Mail that has nowhere else to go may find out whether a host is back.
            (None, None, Some((_, number))) if self.tried == 0 => Turn::Of(number),
            _ => Turn::Nobodys,
        }
    }

    fn note<W: World>(&mut self, shard: &Shard<W>, goal: Goal<'_>, unopened: &Unopened, pause: Option<Duration>) {
        self.tried += 1;
        if let Some(reply) = &unopened.reply {
            self.reply = Some((reply.clone(), unopened.source));
        }
        self.reasons.push(format!("{}: {}", goal.named(), unopened.text()));
        self.last = Some(Fault { pause, ..goal.fault(unopened) });
        if unopened.whose == Whose::Login {
            self.attempt = Attempt::LoginRefused;
            shard.warn(&format!("relay: {}: {}; not tried again for some minutes", goal.named(), unopened.text()));
            let label = goal.host.speech.label();
            let same = self.candidates.iter_mut().filter(|one| one.host.speech.label() == label);
            same.for_each(|candidate| candidate.over = true);
        }
    }

    /// Nothing can be done with a host.
    fn give_up(&mut self, host: &Host, why: String) {
        let same = self.candidates.iter_mut().filter(|candidate| std::ptr::eq(candidate.host, host));
        same.for_each(|candidate| candidate.over = true);
        self.reasons.push(why);
    }

    /// When a host that is better than those of this preference may be back.
    fn better_again<W: World>(&self, shard: &Shard<W>, preference: u16) -> Option<Instant> {
        let soon = shard.runtime.now() + self.patience.pause;
        let better = self.candidates.iter().filter(|candidate| candidate.host.preference < preference);
        let until = better.map(|candidate| match self.chance(shard, candidate) {
            Chance::Left(left) => left.until,
            Chance::Open | Chance::Crowded => soon,
        });
        until.min()
    }

    /// When a connection is to be left that is not from the source that the route's mail keeps to.
    fn strays<W: World>(&self, shard: &Shard<W>, connection: &Connection<W>) -> Option<Instant> {
        let source = connection.link?.source.to_canonical();
        let theirs = self.site.pinned.iter().find(|pinned| pinned.is_ipv4() == source.is_ipv4())?;
        (*theirs != source).then(|| shard.runtime.now() + SOURCE_PAUSE)
    }

    /// The hosts that may be used now have as many connections as they may have; what was tried before may have failed.
    fn full(self) -> Unreached {
        Unreached { attempt: Attempt::Full, why: String::new(), last: self.last, reply: self.reply }
    }

    /// None of them was of use.
    fn over<W: World>(self, shard: &Shard<W>) -> Unreached {
        let mut reasons = self.reasons;
        for candidate in self.candidates.iter().filter(|candidate| !candidate.over) {
            let Candidate { host, address, place: Some(place), .. } = candidate else { continue };
            let known = shard.breaker.borrow().health(place, shard.runtime.now());
            if let Some(health) = known.filter(|health| health.failures > 0) {
                let named = Goal { route: self.route, site: self.site, host, address: *address }.named();
                reasons.push(format!("{named}: left alone, {}", health.why));
            }
        }
        let more = reasons.len().saturating_sub(limits::HOSTS_NAMED);
        reasons.truncate(limits::HOSTS_NAMED);
        let mut why = match (reasons.is_empty(), self.site.sources.is_empty()) {
            (false, _) => reasons.join("; "),
            (true, true) => "the site has no address".to_owned(),
            (true, false) => "the site has no address of a family that there is a free source address of".to_owned(),
        };
        if more > 0 {
            why += &format!("; and {more} more");
        }
        Unreached { attempt: self.attempt, why, last: self.last, reply: self.reply }
    }
}
