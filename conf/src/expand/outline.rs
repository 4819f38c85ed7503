//! Which actions do the same, and how an action is found again after the configuration has been changed: mail that waits in
//! the queue knows its action by a reference, which must not lead to another one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Action, ActionKind, Config, Keyed, Lmtp, Maildir, Mda, Relay};

/// What each action does, in a form that can be compared.
#[derive(Debug)]
pub struct Outlines {
    references: Vec<String>,
    canonical: Vec<usize>,
    /// By reference, by name, and by what they do: the first of each.
    by_reference: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
    by_deed: HashMap<String, usize>,
}

/// Between the name of an action and what it does; the name may have it, too.
const MARK: char = '#';
/// How the names begin that old-style rules get, from their lines (grammar §5.2, D1): they move when a line is added.
const MADE: &str = "line-";

impl Outlines {
    /// Of all actions.
    pub fn new(config: &Config) -> Self {
        let (mut by_reference, mut by_name, mut by_deed) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (mut references, mut canonical, mut same) = (Vec::new(), Vec::new(), HashMap::new());
        for (at, action) in config.actions.iter().enumerate() {
            let deed = Deed::of(action, config);
            let print = format!("{:016x}", fingerprint(&deed.text));
            let reference = format!("{}{MARK}{print}", action.name);
            by_reference.entry(reference.clone()).or_insert(at);
            by_name.entry(action.name.clone()).or_insert(at);
            by_deed.entry(print).or_insert(at);
            canonical.push(*same.entry(deed).or_insert(at));
            references.push(reference);
        }
        Self { references, canonical, by_reference, by_name, by_deed }
    }

    /// The first action that does the same as this one.
    pub fn canonical(&self, action: usize) -> usize {
        self.canonical.get(action).copied().unwrap_or(action)
    }

    /// What the queue keeps of an action.
    pub fn reference(&self, action: usize) -> &str {
        self.references.get(action).map_or("", |reference| reference)
    }

    /// The name in a reference, for people.
    pub fn name(reference: &str) -> &str {
        reference.rsplit_once(MARK).map_or(reference, |(name, _)| name)
    }

    /// The action that a reference means now. One that the administrator has named is known by that name, whatever it does by
    /// now: he has changed it. One that is named after its line is known by what it does, or the mail of a rule would
    /// follow another one when a line is put in front; only if none does that, by its line.
    pub fn find(&self, reference: &str) -> Option<usize> {
        let (name, deed) = reference.rsplit_once(MARK).unwrap_or((reference, ""));
        let by_name = || self.by_name.get(name);
        let by_deed = || self.by_deed.get(deed);
        let found = self.by_reference.get(reference);
        let found = match name.starts_with(MADE) {
            true => found.or_else(by_deed).or_else(by_name),
            false => found.or_else(by_name).or_else(by_deed),
        };
        found.copied()
    }
}

/// FNV-1a: the same in every process and version.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What an action does with a delivery, once it is known whose it is. Mapping, user base and `ttl` have had their say by then.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Deed {
    text: String,
    /// Where the entries of tables in memory are: what tells two of them apart whose keys are the same.
    entries: Vec<usize>,
}

impl Deed {
    /// A field that is forgotten here would let two actions pass for one, so everything is named.
    fn of(action: &Action, config: &Config) -> Self {
        let mut deed = Self { text: String::new(), entries: Vec::new() };
        let text = match &action.kind {
            ActionKind::Relay(relay) => deed.relay(relay, config),
            ActionKind::Mbox => "mbox".to_owned(),
            ActionKind::Maildir(Maildir { path, junk }) => format!("maildir {:?} {junk}", path.as_written()),
            ActionKind::Mda(Mda { command }) => format!("mda {command}"),
            ActionKind::Lmtp(Lmtp { destination, rcpt_to }) => format!("lmtp {:?} {rcpt_to}", destination.as_written()),
            ActionKind::ExpandOnly => "expand-only".to_owned(),
            ActionKind::ForwardOnly => "forward-only".to_owned(),
            ActionKind::Discard => "discard".to_owned(),
        };
        let wrapper = action.local.wrapper.as_ref().map(ToString::to_string);
        Self { text: format!("{text} {wrapper:?}"), ..deed }
    }

    fn relay(&mut self, relay: &Relay, config: &Config) -> String {
        let Relay {
            backup,
            hosts,
            host_table,
            domain,
            sources,
            source_table,
            pool,
            helo,
            helo_by_source,
            auth,
            tls,
            pki,
            ca,
            protocols,
            ciphers,
            mail_from,
            srs,
            verp,
            filters,
            shaping,
            dkim,
        } = relay;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let tables = [host_table, source_table].map(|id| id.map(|id| config.table_name(id)));
        let by_domain = domain.as_ref().map(|keyed| self.keyed(keyed, config));
        let helo_of = helo_by_source.as_ref().map(|keyed| self.keyed(keyed, config));
        let auth = auth.as_ref().map(|keyed| self.keyed(keyed, config));
        // What came later stands behind, and only where it is there: mail that waits knows its action by this text.
        let later = if *verp { " verp" } else { "" };
        format!(
            "relay {backup:?} {hosts:?} {tables:?} {by_domain:?} {sources:?} {pool:?} {helo:?} {helo_of:?} {auth:?} \
             {tls:?} {pki:?} {ca:?} {protocols:?} {ciphers:?} {mail_from:?} {srs} {filters:?} {shaping:?} {dkim:?}{later}"
        )
    }

    fn keyed<V>(&mut self, keyed: &Keyed<V>, config: &Config) -> String {
        match keyed {
            Keyed::Remote(id) => config.table_name(*id).to_owned(),
            Keyed::Memory(mapped) => {
                self.entries.push(Arc::as_ptr(mapped).cast::<()>() as usize);
                format!("{:?}", mapped.keys())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::model::{LocalOptions, Quickstart};
    use crate::{Line, RelayHost};

    fn config(actions: &[(&str, &str)]) -> Config {
        let mut config = Config::quickstart(std::path::Path::new("/s"), &Quickstart::default());
        let action = |(name, host): &(&str, &str)| Action {
            name: (*name).to_owned(),
            kind: match *host {
                "" => ActionKind::Maildir(Maildir { path: Format::literal("/m"), junk: false }),
                host => ActionKind::Relay(Box::new(Relay {
                    hosts: vec![RelayHost::parse(host).unwrap()],
                    ..Relay::default()
                })),
            },
            mapping: None,
            local: LocalOptions::default(),
            feedback: false,
            ttl: crate::limits::QUEUE_TTL,
            line: Line::built_in(),
        };
        config.actions = actions.iter().map(action).collect();
        config
    }

    #[test]
    fn actions_that_do_the_same_are_one() {
        let outlines = Outlines::new(&config(&[("a", "x.example"), ("b", ""), ("c", "x.example"), ("d", "y.example")]));
        assert_eq!([0, 1, 2, 3].map(|at| outlines.canonical(at)), [0, 1, 0, 3]);
        assert_eq!(Outlines::name(outlines.reference(1)), "b");
    }

    #[test]
    fn a_named_action_is_followed_by_its_name_and_a_made_one_by_what_it_does() {
        let before = Outlines::new(&config(&[("out", "x.example"), ("line-3", "y.example"), ("line-4", "")]));
        let [out, third, fourth] = [0, 1, 2].map(|at| before.reference(at));
        // A line was added in front, and `out` changed.
        let after = config(&[("line-3", ""), ("line-4", "z.example"), ("line-5", "y.example"), ("out", "w.example")]);
        let after = Outlines::new(&after);
        assert_eq!([out, third, fourth].map(|of| after.find(of)), [Some(3), Some(2), Some(0)]);
        // `out` is called otherwise now, and the rule of line 3 was changed where it stands.
        let after = Outlines::new(&config(&[("away", "x.example"), ("line-3", "v.example"), ("line-4", "")]));
        assert_eq!([out, third, fourth].map(|of| after.find(of)), [Some(0), Some(1), Some(2)]);
        let after = Outlines::new(&config(&[("in", "")]));
        assert_eq!([out, third, fourth].map(|of| after.find(of)), [None, None, Some(0)]);
        assert_eq!(after.find("in"), Some(0));
    }
}
