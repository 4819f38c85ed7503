//! Which shapes are for a delivery, and what they say together (grammar §4.13).

use std::borrow::Borrow;

use crate::model::{Config, Family, Pool, Shape, ShapeSelector, Shaping, Warmup};
use crate::rules::Among;
use crate::tables::DomainSet;

impl Config {
    /// The numbers in [`Config::shapings`] of all that are for mail to `domain` over `hosts`, as [`Shaping::choose`] has them.
    pub fn shapes_for(&self, named: Option<&str>, domain: &str, hosts: &[&str]) -> Vec<usize> {
        Shaping::choose(&self.shapings, named, domain, hosts)
    }

    /// What shapes say together; of two, the one whose number comes first counts, key by key.
    pub fn shape_of(&self, numbers: &[usize]) -> Shape {
        Shape::together(numbers.iter().filter_map(|number| self.shapings.get(*number)).map(|shaping| &shaping.shape))
    }

    /// Whether the shapes, warm-ups and pools of `other` say the same, in whatever lines they stand: mail that waits at a
    /// route by the one may go on waiting by the other.
    pub fn shapes_as(&self, other: &Self) -> bool {
        let shaping = |one: &Shaping, two: &Shaping| {
            one.name == two.name && one.selector == two.selector && one.shape == two.shape
        };
        let warmup = |one: &Warmup, two: &Warmup| one.name == two.name && one.steps == two.steps;
        let pool =
            |one: &Pool, two: &Pool| one.name == two.name && one.sources == two.sources && one.select == two.select;
        same(&self.shapings, &other.shapings, shaping)
            && same(&self.warmups, &other.warmups, warmup)
            && same(&self.pools, &other.pools, pool)
    }
}

/// Whether two lists are the same, one by one. Of shapes that are as specific as each other the first counts.
fn same<T: Borrow<U>, U>(ones: &[T], others: &[T], is_same: impl Fn(&U, &U) -> bool) -> bool {
    ones.len() == others.len() && ones.iter().zip(others).all(|(one, two)| is_same(one.borrow(), two.borrow()))
}

impl Shaping {
    /// The numbers of all that are for mail to `domain` over `hosts`, names in lower case, the most specific first: the one
    /// that the action names, then by host, by MX host, by domain, and the default. Of one kind those with the longest pattern
    /// come first, then those that stand first.
    pub fn choose<S: Borrow<Self>>(shapings: &[S], named: Option<&str>, domain: &str, hosts: &[&str]) -> Vec<usize> {
        let fits = shapings.iter().map(|shaping| shaping.borrow().fit(named, domain, hosts)).enumerate();
        let mut found: Vec<((usize, usize), usize)> = fits.filter_map(|(number, fit)| Some((fit?, number))).collect();
        found.sort_by_key(|(fit, number)| (std::cmp::Reverse(*fit), *number));
        found.into_iter().map(|(_, number)| number).collect()
    }

    /// How specific it is for mail to `domain` over `hosts`, more being greater; `None`: it is not for that.
    pub fn fit(&self, named: Option<&str>, domain: &str, hosts: &[&str]) -> Option<(usize, usize)> {
        let among_hosts = |among| hosts.iter().filter_map(|host| longest(among, host)).max();
        match &self.selector {
            _ if named == Some(&self.name) => Some((4, 0)),
            ShapeSelector::Host(among) => among_hosts(among).map(|length| (3, length)),
            ShapeSelector::Mx(among) => among_hosts(among).map(|length| (2, length)),
            ShapeSelector::Domain(among) => longest(among, domain).map(|length| (1, length)),
            ShapeSelector::Default => Some((0, 0)),
            ShapeSelector::Relay => None,
        }
    }

    /// Whether it can be for some of the mail of a site alone.
    pub fn is_apart(&self) -> bool {
        matches!(self.selector, ShapeSelector::Domain(_) | ShapeSelector::Relay)
    }
}

/// The length of the longest pattern that covers a name. A table's and an expression's parts are not told apart from `*`.
fn longest(among: &Among<DomainSet>, name: &str) -> Option<usize> {
    match among {
        Among::Table(set) => set.longest(name),
        Among::Regex(patterns) => patterns.find(name).then_some(0),
        // A server with a selector that must be asked does not start (`Config::not_yet`).
        Among::Remote { .. } => None,
    }
}

impl Shape {
    /// What shapes say together; of two, the one that comes first counts, key by key.
    pub fn together<'s>(shapes: impl Iterator<Item = &'s Self>) -> Self {
        shapes.fold(Self::default(), |shape, next| shape.or(next))
    }

    /// What it says, and for the rest what `other` says.
    fn or(self, other: &Self) -> Self {
        Self {
            connections: self.connections.or(other.connections),
            connections_per_host: self.connections_per_host.or(other.connections_per_host),
            connections_per_source: self.connections_per_source.or(other.connections_per_source),
            open_rate: self.open_rate.or(other.open_rate),
            rate: self.rate.or(other.rate),
            rate_per_source: self.rate_per_source.or(other.rate_per_source),
            burst: self.burst.or(other.burst),
            messages_per_connection: self.messages_per_connection.or(other.messages_per_connection),
            recipients: self.recipients.or(other.recipients),
            idle: self.idle.or(other.idle),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            reply_timeout: self.reply_timeout.or(other.reply_timeout),
            failures: self.failures.or(other.failures),
            pause: self.pause.or(other.pause),
            family: if self.family == Family::Both { other.family } else { self.family },
            tls: self.tls.or(other.tls),
            retry: self.retry.or_else(|| other.retry.clone()),
            ttl: self.ttl.or(other.ttl),
            warmup: self.warmup.or_else(|| other.warmup.clone()),
            on_reply: [self.on_reply, other.on_reply.clone()].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Memory, Options, load};

    fn config(text: &str) -> std::sync::Arc<Config> {
        let files = Memory::default().with("c", format!("{text}action a relay\nmatch for any action a\n"));
        load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|reports| panic!("{reports}")).0.into()
    }

    #[test]
    fn the_more_specific_shape_wins_key_by_key() {
        let config = config(
            "shaping default { connections 20, idle 5s, burst 9 }\n\
             shaping slow domain { example.net } { connections 1, recipients 3 }\n\
             shaping google mx { \"*.google.example\" } { connections 10, recipients 4 }\n\
             shaping one host { mx1.google.example } { connections 11 }\n\
             shaping mine relay { connections 12 }\n",
        );
        let shape = |named, domain, host| config.shape_of(&config.shapes_for(named, domain, &[host]));
        let connections = |named, domain, host| shape(named, domain, host).connections;
        assert_eq!(connections(None, "example.org", "mx.example.org"), Some(20));
        assert_eq!(connections(None, "example.net", "mx.example.org"), Some(1));
        assert_eq!(connections(None, "example.net", "mx2.google.example"), Some(10));
        assert_eq!(connections(None, "example.net", "mx1.google.example"), Some(11));
        assert_eq!(connections(Some("mine"), "example.net", "mx1.google.example"), Some(12));
        let all = shape(Some("mine"), "example.net", "mx1.google.example");
        assert_eq!((all.recipients, all.burst), (Some(4), Some(9)));
    }

    #[test]
    fn what_shapes_say_is_compared_whatever_lines_they_stand_in() {
        let text = "shaping default { connections 20 }\n\
                    warmup slow { 50/d, 100/d }\n\
                    pool p { 192.0.2.1 warmup slow }\n\
                    shaping x domain { \"x.example\", \"*.y.example\" } { warmup slow, on reply { \"4.7.0\" } suspend 1m }\n";
        let one = config(text);
        assert!(one.shapes_as(&config(text)) && one.shapes_as(&config(&format!("# moved\n\n{text}"))));
        for (said, instead) in [
            ("connections 20", "connections 21"),
            ("50/d", "51/d"),
            (" warmup slow }", " }"),
            ("warmup slow, on", "on"),
            ("y.example", "z.example"),
            ("4.7.0", "4.7.1"),
            ("suspend 1m", "suspend 2m"),
            ("pool p", "pool q"),
        ] {
            let other = config(&text.replacen(said, instead, 1));
            assert!(!one.shapes_as(&other) && !other.shapes_as(&one), "{said}");
        }
        assert!(!one.shapes_as(&config("")));
    }

    #[test]
    fn of_one_kind_the_longest_pattern_wins_and_then_the_first() {
        let config = config(
            "shaping any domain \"*\" { connections 1 }\n\
             shaping below domain \"*.example.org\" { connections 2 }\n\
             shaping glob domain \"mx*.b.example.org\" { connections 3 }\n\
             shaping exact domain mx1.b.example.org { connections 4 }\n\
             shaping again domain mx1.b.example.org { connections 5 }\n\
             shaping four domain x.example { inet4 }\n",
        );
        let connections = |domain| config.shape_of(&config.shapes_for(None, domain, &[])).connections;
        assert_eq!(connections("example.org"), Some(1));
        assert_eq!(connections("a.example.org"), Some(2));
        assert_eq!(connections("mx2.b.example.org"), Some(3));
        assert_eq!(connections("mx1.b.example.org"), Some(4));
        assert_eq!(config.shape_of(&config.shapes_for(None, "x.example", &[])).family, Family::V4);
    }
}
