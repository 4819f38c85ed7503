//! How long a message waits between attempts, and altogether: `retry` and `ttl` of the shapes that are for it (grammar §4.13).
//! Asked at home, when an attempt has failed; which hosts its domain has is not known there, so shapes for `mx` and `host`
//! have no say in this.

use std::time::Duration;

use crate::model::{ActionKind, Config, Retry};

/// What the configuration says of one envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience<'c> {
    /// The schedule after temporary failures; `None`: the built-in one.
    pub retry: Option<&'c Retry>,
    /// How long it may stay queued.
    pub ttl: Duration,
}

impl Config {
    /// For an envelope whose action has this number, to a recipient of this domain. The shape that the action names wins,
    /// field by field, then the one for the domain, then `default`; an action that says `ttl` itself wins over all.
    pub fn patience(&self, action: Option<usize>, domain: &str) -> Patience<'_> {
        let action = action.and_then(|number| self.actions.get(number));
        let own_ttl = action.map_or(self.queue.ttl, |action| action.ttl);
        if self.shapings.is_empty() {
            return Patience { retry: None, ttl: own_ttl };
        }
        let named = action.and_then(|action| match &action.kind {
            ActionKind::Relay(relay) => relay.shaping.as_deref(),
            _ => None,
        });
        let numbers = self.shapes_for(named, &domain.to_ascii_lowercase(), &[]);
        let shapes = || numbers.iter().map(|number| &self.shapings[*number].shape);
        let ttl = shapes().find_map(|shape| shape.ttl).filter(|_| own_ttl == self.queue.ttl);
        Patience { retry: shapes().find_map(|shape| shape.retry.as_ref()), ttl: ttl.unwrap_or(own_ttl) }
    }

    /// The longest that any message may stay queued: what one has of which nothing else is known.
    pub fn longest_ttl(&self) -> Duration {
        let of_shapes = self.shapings.iter().filter_map(|shaping| shaping.shape.ttl);
        self.actions.iter().map(|action| action.ttl).chain(of_shapes).fold(self.queue.ttl, Duration::max)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Memory, Options, load};

    #[test]
    fn s126_the_most_specific_shape_wins_field_by_field() {
        let text = "shaping default { retry { 1m, 2m } then 3m jitter 5%, ttl 2d }\n\
            shaping wide domain { \"*.example\" } { ttl 1d }\n\
            shaping near domain { \"a.example\" } { retry { 7m } }\n\
            shaping mine relay { ttl 5h }\n\
            action a relay\naction b relay shaping mine\naction c relay ttl 9h\nmatch from any for any action a\n";
        let files = Memory::default().with("c", text);
        let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
        let of = |action, domain: &str| {
            let Patience { retry, ttl } = config.patience(Some(action), domain);
            (retry.map(|retry| retry.waits[0].as_secs() / 60), ttl.as_secs() / 3600)
        };
        assert_eq!(config.longest_ttl(), Duration::from_secs(4 * 86_400), "the built-in one");
        assert_eq!(of(0, "elsewhere.test"), (Some(1), 48));
        assert_eq!(of(0, "b.example"), (Some(1), 24));
        assert_eq!(of(0, "A.example"), (Some(7), 24), "its own schedule, and the time of the wider one");
        assert_eq!(of(1, "a.example"), (Some(7), 5), "the action's shape first");
        assert_eq!(of(2, "a.example"), (Some(7), 9), "the action has the last word");
    }
}
