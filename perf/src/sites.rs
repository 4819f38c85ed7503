//! What became of mail to other servers, by the class of what they say and by mail site. There are as many sites as anybody's
//! mail has, so that only some have a name in metrics, and the others are one.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::limits::{CLASSES_MAX, REST, SITES_BETWEEN, SITES_WATCHED};

/// Refusals by class (`bounce classify`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Classes(BTreeMap<String, u64>);

impl Classes {
    /// Counts a refusal. Beyond [`CLASSES_MAX`] classes, which a configuration that is often another one may come to, the rest
    /// is [`REST`].
    pub fn add(&mut self, class: &str, count: u64) {
        if let Some(known) = self.0.get_mut(class) {
            *known += count;
            return;
        }
        let class = if self.0.len() < CLASSES_MAX { class } else { REST };
        *self.0.entry(class.to_owned()).or_default() += count;
    }

    /// Adds those of another shard, or another time.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(class, count)| self.add(class, *count));
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(class, count)| (&**class, *count))
    }

    /// None was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How an attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The site has taken it.
    Delivered,
    /// It waits for another attempt.
    Deferred,
    /// It was given up.
    Failed,
}

/// What became of mail to a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Envelopes that it has taken.
    pub delivered: u64,
    /// Attempts after which an envelope waits for another.
    pub deferred: u64,
    /// Envelopes that were given up.
    pub failed: u64,
    /// What it has refused.
    pub refused: Classes,
}

impl Tally {
    fn add(&mut self, fate: Fate, class: Option<&str>) {
        match fate {
            Fate::Delivered => self.delivered += 1,
            Fate::Deferred => self.deferred += 1,
            Fate::Failed => self.failed += 1,
        }
        class.into_iter().for_each(|class| self.refused.add(class, 1));
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.deferred += other.deferred;
        self.failed += other.failed;
        self.refused.merge(&other.refused);
    }

    /// Attempts.
    pub fn attempts(&self) -> u64 {
        self.delivered + self.deferred + self.failed
    }
}

/// What a shard has counted since it was asked last: of not more than [`SITES_BETWEEN`] sites by name.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    sites: HashMap<Box<str>, Tally>,
    rest: Tally,
}

impl Recent {
    /// An attempt at a site has ended so.
    pub fn add(&mut self, site: &str, fate: Fate, class: Option<&str>) {
        self.of(site).add(fate, class);
    }

    /// What was taken out comes back: nobody has heard of it.
    pub fn merge(&mut self, other: Self) {
        other.sites.iter().for_each(|(site, tally)| self.of(site).merge(tally));
        self.rest.merge(&other.rest);
    }

    fn of(&mut self, site: &str) -> &mut Tally {
        if self.sites.len() >= SITES_BETWEEN && !self.sites.contains_key(site) {
            return &mut self.rest;
        }
        if !self.sites.contains_key(site) {
            self.sites.insert(site.into(), Tally::default());
        }
        self.sites.get_mut(site).expect("it is there")
    }
}

/// The sites that have a name in metrics: those with the most mail. Each count is of the time in which its site has had a name;
/// all that is counted is in one of them or in the rest, and each only grows as long as it is there.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    most: usize,
    named: HashMap<Box<str>, Named>,
    /// The fewest attempts of one of them, as far as that is known.
    least: Option<u64>,
    /// Attempts at sites that may earn a name: at most [`SITES_WATCHED`].
    others: HashMap<Box<str>, u64>,
    rest: Tally,
}

#[derive(Clone, Debug, Default)]
struct Named {
    /// Attempts in all, as far as they were watched.
    attempts: u64,
    tally: Tally,
}

impl Sites {
    /// So many may have a name from now on.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
        while self.named.len() > most {
            self.unname_least();
        }
    }

    /// Adds what a shard has counted.
    pub fn merge(&mut self, recent: &Recent) {
        let mut sites: Vec<_> = recent.sites.iter().collect();
        // The same report names the same sites, whatever the order of the map.
        sites.sort_unstable_by(|(a, x), (b, y)| (y.attempts(), a).cmp(&(x.attempts(), b)));
        sites.into_iter().for_each(|(site, tally)| self.add(site, tally));
        self.rest.merge(&recent.rest);
    }

    fn add(&mut self, site: &str, tally: &Tally) {
        if let Some(named) = self.named.get_mut(site) {
            self.least = self.least.filter(|least| named.attempts > *least);
            named.attempts += tally.attempts();
            return named.tally.merge(tally);
        }
        let attempts = self.others.get(site).copied().unwrap_or(0) + tally.attempts();
        if self.named.len() < self.most {
            return self.name(site, attempts, tally);
        }
        // Of a report with thousands of sites most are below it: it is looked for once.
        self.least = self.least.or_else(|| self.named.values().map(|named| named.attempts).min());
        if self.least.is_some_and(|least| attempts > least) {
            self.unname_least();
            return self.name(site, attempts, tally);
        }
        self.rest.merge(tally);
        self.watch(site, attempts);
    }

    fn name(&mut self, site: &str, attempts: u64, tally: &Tally) {
        self.others.remove(site);
        self.least = None;
        self.named.insert(site.into(), Named { attempts, tally: tally.clone() });
    }

    /// The one with the least mail loses its name.
    fn unname_least(&mut self) {
        self.least = None;
        let least = self.named.iter().min_by_key(|(site, named)| (named.attempts, *site)).map(|(site, _)| site.clone());
        let Some((site, named)) = least.and_then(|site| self.named.remove_entry(&site)) else { return };
        self.rest.merge(&named.tally);
        self.watch(&site, named.attempts);
    }

    fn watch(&mut self, site: &str, attempts: u64) {
        if self.others.len() >= SITES_WATCHED && !self.others.contains_key(site) {
            // Those of which least was heard are forgotten, and begin anew.
            let mut all: Vec<u64> = self.others.values().copied().collect();
            let (_, median, _) = all.select_nth_unstable(SITES_WATCHED / 2);
            let median = *median;
            self.others.retain(|_, attempts| *attempts > median);
        }
        self.others.insert(site.into(), attempts);
    }

    /// Sites without a name that have had mail, as far as they are watched.
    pub fn left_out(&self) -> usize {
        self.others.len()
    }

    /// By name, and the rest under [`REST`], if there is any.
    pub fn snapshot(&self) -> Vec<(String, Tally)> {
        let mut all: Vec<_> = self.named.iter().map(|(site, named)| (site.to_string(), named.tally.clone())).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if self.rest != Tally::default() {
            all.push((REST.to_owned(), self.rest.clone()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(mail: &[(&str, u64)]) -> Recent {
        let mut recent = Recent::default();
        for (site, count) in mail {
            (0..*count).for_each(|_| recent.add(site, Fate::Delivered, None));
        }
        recent
    }

    fn named(sites: &Sites) -> Vec<(String, u64)> {
        sites.snapshot().into_iter().map(|(site, tally)| (site, tally.delivered)).collect()
    }

    fn pairs(all: &[(&str, u64)]) -> Vec<(String, u64)> {
        all.iter().map(|(site, count)| ((*site).to_owned(), *count)).collect()
    }

    #[test]
    fn those_with_the_most_mail_have_names_and_nothing_is_lost_or_goes_down() {
        let mut sites = Sites::default();
        sites.limit(2);
        sites.merge(&recent(&[("a", 6), ("b", 1), ("c", 1)]));
        assert_eq!(named(&sites), pairs(&[("a", 6), ("b", 1), ("other", 1)]));
        assert_eq!(sites.left_out(), 1);
        sites.merge(&recent(&[("c", 3)]));
        assert_eq!(named(&sites), pairs(&[("a", 6), ("c", 3), ("other", 2)]), "one of c's was counted elsewhere");
        sites.merge(&recent(&[("b", 2), ("c", 1)]));
        assert_eq!(named(&sites), pairs(&[("a", 6), ("c", 4), ("other", 4)]), "b's three are not more than c's");
        sites.limit(1);
        assert_eq!(named(&sites), pairs(&[("a", 6), ("other", 8)]));
        sites.limit(0);
        sites.merge(&recent(&[("a", 1)]));
        assert_eq!(named(&sites), pairs(&[("other", 15)]));
        assert_eq!(sites.left_out(), 3);
    }

    #[test]
    fn a_hundred_thousand_sites_have_no_more_names_than_there_may_be() {
        let mut sites = Sites::default();
        sites.limit(50);
        for part in 0..100 {
            let mut some = recent(&[("big", 100)]);
            (0..1000).for_each(|number| some.add(&format!("s{part}x{number}"), Fate::Deferred, Some("spam")));
            sites.merge(&some);
        }
        let all = sites.snapshot();
        assert_eq!((all.len(), sites.left_out() > 1000), (51, true));
        assert!(sites.others.len() <= SITES_WATCHED, "{}", sites.others.len());
        let big = all.iter().find(|(site, _)| site == "big").expect("it has a name");
        assert_eq!(big.1.delivered, 10_000);
        let mut sum = Tally::default();
        all.iter().for_each(|(_, tally)| sum.merge(tally));
        assert_eq!((sum.deferred, sum.refused.iter().collect::<Vec<_>>()), (100_000, vec![("spam", 100_000)]));
    }

    #[test]
    fn what_a_shard_keeps_is_bounded_and_what_nobody_has_heard_comes_back() {
        let mut kept = Recent::default();
        (0..2 * SITES_BETWEEN).for_each(|number| kept.add(&number.to_string(), Fate::Failed, Some("policy")));
        assert_eq!((kept.sites.len(), kept.rest.failed), (SITES_BETWEEN, SITES_BETWEEN as u64));
        let sent = std::mem::take(&mut kept);
        kept.add("another", Fate::Delivered, None);
        kept.merge(sent);
        assert_eq!((kept.sites["another"].delivered, kept.sites.len()), (1, SITES_BETWEEN));
        assert_eq!(kept.rest.failed, SITES_BETWEEN as u64 + 1, "there is room for one less");
    }

    #[test]
    fn classes_are_bounded() {
        let mut classes = Classes::default();
        (0..2 * CLASSES_MAX).for_each(|number| classes.add(&number.to_string(), 1));
        assert_eq!(classes.iter().count(), CLASSES_MAX + 1);
        assert_eq!(classes.iter().find(|(class, _)| *class == REST), Some((REST, CLASSES_MAX as u64)));
    }
}
