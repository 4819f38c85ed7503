//! Mail that is deferred since its site could not take it, by site: one success there shows that the others need not wait
//! for their times. The owner of a route sees the success and tells every home; each home wakes its own.
//!
//! A herd does not help a server that has just come back: few are woken at once, the others one after the other, and a site
//! that has woken its mail in vain is believed later each time. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringpost_queue::MessageId;
use ringpost_routes::Site;
use ringpost_smtp::client::RemoteReply;

use crate::limits;

/// An envelope of the shard's queue.
type Place = (MessageId, u16);

/// Deferred mail of one shard, by the site that it was deferred for.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    sites: HashMap<Site, Asleep>,
    envelopes: usize,
}

#[derive(Debug, Default)]
struct Asleep {
    envelopes: BTreeSet<Place>,
    /// Woken last, and how long that must be ago before they are woken again.
    woken: Option<(Instant, Duration)>,
}

impl Sleepers {
    /// An envelope is deferred since its site took nothing. Beyond `most` of a site, it waits for its time.
    pub(crate) fn add(&mut self, site: &Site, place: Place, most: usize) {
        if self.envelopes >= limits::SLEEPERS {
            self.forget_most();
        }
        if !self.sites.contains_key(site) {
            self.sites.insert(site.clone(), Asleep::default());
        }
        let asleep = self.sites.get_mut(site).expect("just put there");
        if asleep.envelopes.len() < most && asleep.envelopes.insert(place) {
            self.envelopes += 1;
        }
    }

    /// Whether an envelope is among those of a site.
    pub(crate) fn has(&self, site: &Site, place: Place) -> bool {
        self.sites.get(site).is_some_and(|asleep| asleep.envelopes.contains(&place))
    }

    /// The site has taken a message: who was deferred for it, oldest first, each with the time that it waits yet.
    pub(crate) fn wake(&mut self, site: &Site, now: Instant) -> Vec<(Place, Duration)> {
        let Some(asleep) = self.sites.get_mut(site) else { return Vec::new() };
        let pause = match asleep.woken {
            Some((last, pause)) if now < last + pause => return Vec::new(),
            Some((last, pause)) if now < last + 4 * pause => (2 * pause).min(limits::WAKE_PAUSE_MAX),
            _ => limits::WAKE_PAUSE,
        };
        if asleep.envelopes.is_empty() {
            self.sites.remove(site);
            return Vec::new();
        }
        asleep.woken = Some((now, pause));
        let envelopes = std::mem::take(&mut asleep.envelopes);
        self.envelopes -= envelopes.len();
        let after = |number: usize| limits::WAKE_STEP * number.saturating_sub(limits::WOKEN_AT_ONCE) as u32;
        envelopes.into_iter().enumerate().map(|(number, place)| (place, after(number))).collect()
    }

    /// Makes room: those of the site that has most wait for their times.
    fn forget_most(&mut self) {
        let largest = self.sites.iter().max_by_key(|(site, asleep)| (asleep.envelopes.len(), *site));
        if let Some(site) = largest.map(|(site, _)| site.clone())
            && let Some(asleep) = self.sites.remove(&site)
        {
            self.envelopes -= asleep.envelopes.len();
        }
    }
}

/// Whether a temporary failure says something of the site rather than of the message or its recipient: it could not be
/// reached, or is closing (421), or its system or network is at fault (RFC 3463 §3.4, §3.5).
pub(crate) fn is_about_site(reply: &RemoteReply) -> bool {
    let (class, subject, _) = reply.status_or_default();
    reply.code() == 421 || (class == 4 && matches!(subject, 3 | 4))
}

#[cfg(test)]
mod tests {
    use ringpost_routes::Helo;

    use super::*;

    fn site(name: &str) -> Site {
        let helo = Helo::Name("us".into());
        Site { name: name.into(), ..Site::new(&[], &[], helo) }
    }

    #[test]
    fn s126_a_success_wakes_the_mail_of_its_site_some_at_once_and_the_others_in_turn() {
        let (mut sleepers, now) = (Sleepers::default(), Instant::now());
        (0..200).for_each(|n| sleepers.add(&site("a"), (MessageId(n), 0), 100));
        sleepers.add(&site("a"), (MessageId(3), 0), 100);
        sleepers.add(&site("b"), (MessageId(900), 0), 100);
        let woken = sleepers.wake(&site("a"), now);
        assert_eq!(woken.len(), 100, "as many as are remembered, each once");
        assert!(woken.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{woken:?}");
        let at_once = woken.iter().filter(|(_, wait)| wait.is_zero()).count();
        assert_eq!(at_once, limits::WOKEN_AT_ONCE + 1);
        assert_eq!(sleepers.wake(&site("b"), now).len(), 1, "others sleep on until their own site is back");
        assert_eq!(sleepers.wake(&site("c"), now), []);
        assert_eq!(sleepers.envelopes, 0);
    }

    #[test]
    fn s126_a_site_that_comes_and_goes_is_believed_later_each_time() {
        let (mut sleepers, mut now) = (Sleepers::default(), Instant::now());
        let mut woken = Vec::new();
        for second in 0..3600 * 4 {
            // It takes one message every second, and refuses another.
            sleepers.add(&site("a"), (MessageId(1), 0), 100);
            if !sleepers.wake(&site("a"), now).is_empty() {
                woken.push(second);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(woken, [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980]);
        now += limits::WAKE_PAUSE_MAX * 4;
        assert_eq!(sleepers.wake(&site("a"), now).len(), 1);
        assert!(sleepers.wake(&site("a"), now + limits::WAKE_PAUSE).is_empty() && sleepers.sites.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_a_dead_site_does_not_keep_all_of_it() {
        let mut sleepers = Sleepers::default();
        (0..limits::SLEEPERS as u64).for_each(|n| sleepers.add(&site("dead"), (MessageId(n), 0), usize::MAX));
        sleepers.add(&site("a"), (MessageId(1), 0), 100);
        assert_eq!((sleepers.envelopes, sleepers.sites.len()), (1, 1));
    }

    #[test]
    fn what_a_reply_is_about() {
        let about = |code, status| is_about_site(&RemoteReply::local(code, status, "x"));
        assert!(about(421, (4, 7, 0)) && about(451, (4, 4, 1)) && about(452, (4, 3, 1)));
        assert!(!about(450, (4, 2, 0)) && !about(451, (4, 7, 1)) && !about(452, (4, 5, 3)));
    }
}
