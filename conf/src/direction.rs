//! Where a relay action sends mail for a domain, from where and as whom (grammar §4.4). Pure: tables that must be asked are
//! named as questions, and their answers are handed in. The server and `ringpost explain` go through the same functions.

use std::borrow::Cow;
use std::net::IpAddr;

use ringpost_address::{canonical_ip, parse_ip};

use crate::expand::Told;
use crate::facts::Lookup;
use crate::limits::{RELAY_HOSTS_MAX, RELAY_SOURCES_MAX};
use crate::model::{Config, Keyed, Pool, Relay, RelayHost, TableId};
use crate::tables::{HostName, Keys, ServiceKind, Value};

/// Between the values of one answer.
const BETWEEN: char = ',';

/// Where mail goes, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direction<'r> {
    /// Smart hosts, cycled. Empty: by the MX records of the recipient's domain.
    pub hosts: Cow<'r, [RelayHost]>,
    /// Source addresses, cycled unless [`Self::pool`] says otherwise. Empty: the system chooses.
    pub sources: Cow<'r, [IpAddr]>,
    /// The pool that they are of.
    pub pool: Option<&'r Pool>,
}

impl Direction<'_> {
    /// The domain of a forward-path, as directions are asked for it.
    pub fn domain_of(address: &str) -> String {
        address.rsplit_once('@').map_or("localhost", |(_, domain)| domain).to_ascii_lowercase()
    }
}

impl Relay {
    /// Whether [`Self::direction`] of any domain is known without asking anybody.
    pub fn is_near(&self) -> bool {
        self.host_table.is_none() && self.source_table.is_none() && !matches!(self.domain, Some(Keyed::Remote(_)))
    }

    /// What must be asked to know the direction of a domain, in lower case.
    pub fn questions(&self, domain: &str) -> Vec<Lookup> {
        let whole = |table, service| Lookup::Table { table, service, key: String::new() };
        let mut questions = Vec::new();
        questions.extend(self.host_table.map(|table| whole(table, ServiceKind::RelayHost)));
        if let Some(Keyed::Remote(table)) = self.domain {
            questions.push(Lookup::Table { table, service: ServiceKind::RelayHost, key: domain.to_owned() });
        }
        questions.extend(self.source_table.map(|table| whole(table, ServiceKind::SourceAddr)));
        questions
    }

    /// The direction of a domain, in lower case. `told` are the answers to its questions.
    ///
    /// # Errors
    /// Why it is not known now: always temporary, for a table may be mended.
    pub fn direction<'r>(
        &'r self,
        config: &'r Config,
        domain: &str,
        told: &dyn Fn(&Lookup) -> Option<Told>,
    ) -> Result<Direction<'r>, String> {
        let asked = Asked { config, told };
        let mut direction = Direction { hosts: (&self.hosts).into(), sources: (&self.sources).into(), pool: None };
        if let Some(table) = self.host_table {
            direction.hosts = asked.hosts(table, "")?.unwrap_or_default().into();
            if direction.hosts.is_empty() {
                return Err(format!("table <{}> names no relay host", config.table_name(table)));
            }
        }
        match &self.domain {
            None => {}
            Some(Keyed::Memory(routes)) => {
                let keys = Keys::new(ServiceKind::RelayHost, domain, config.smtp.sub_address_delimiter);
                direction.hosts = routes.find(keys).map_or_else(Cow::default, |host| std::slice::from_ref(host).into());
            }
            Some(Keyed::Remote(table)) => direction.hosts = asked.hosts(*table, domain)?.unwrap_or_default().into(),
        }
        if let Some(table) = self.source_table {
            direction.sources = asked.sources(table)?.into();
        }
        if let Some(pool) = self.pool.as_deref().and_then(|name| config.pool(name)) {
            direction.sources = pool.sources.iter().map(|source| source.address).collect();
            direction.pool = Some(pool);
        }
        Ok(direction)
    }

    /// What must be asked to know [`Self::name_at`].
    pub fn name_question(&self, source: IpAddr) -> Option<Lookup> {
        match self.helo_by_source {
            Some(Keyed::Remote(table)) => {
                let key = canonical_ip(source).to_string();
                Some(Lookup::Table { table, service: ServiceKind::AddrName, key })
            }
            _ => None,
        }
    }

    /// The name to say in EHLO from this address, unless its pool has one; `None`: that of the server. `told` is the answer
    /// to [`Self::name_question`].
    ///
    /// # Errors
    /// Why it is not known now.
    pub fn name_at(&self, config: &Config, source: IpAddr, told: Option<Told>) -> Result<Option<String>, String> {
        match (&self.helo_by_source, told) {
            (None, _) => Ok(self.helo.clone()),
            (Some(Keyed::Memory(names)), _) => {
                Ok(names.get(&canonical_ip(source).to_string()).map(|name| name.0.clone()))
            }
            (Some(Keyed::Remote(_)), Some(Told::NotFound)) => Ok(None),
            (Some(Keyed::Remote(table)), Some(Told::Found(text))) => match HostName::read(text.trim()) {
                Some(name) => Ok(Some(name.0)),
                None => Err(format!("table <{}>: `{text}` is not a host name", config.table_name(*table))),
            },
            (Some(Keyed::Remote(table)), told) => Err(failed(config, *table, told)),
        }
    }

    /// The reverse-path that the next server is told: `mail-from`, which leaves the null sender alone.
    pub fn reverse_path<'a>(&self, sender: &'a str) -> Cow<'a, str> {
        let Some(ours) = self.mail_from.as_deref().filter(|_| !sender.is_empty()) else { return sender.into() };
        if !ours.starts_with('@') {
            return ours.to_owned().into();
        }
        let local = sender.rsplit_once('@').map_or(sender, |(local, _)| local);
        format!("{local}{ours}").into()
    }
}

/// Tables that have been asked.
struct Asked<'a> {
    config: &'a Config,
    told: &'a dyn Fn(&Lookup) -> Option<Told>,
}

impl Asked<'_> {
    /// The values of an answer; `None`: there is no such entry.
    fn values(&self, table: TableId, service: ServiceKind, key: &str) -> Result<Option<Vec<String>>, String> {
        match (self.told)(&Lookup::Table { table, service, key: key.to_owned() }) {
            Some(Told::Found(text)) => {
                let values = text.split([BETWEEN, '\n']).map(str::trim).filter(|value| !value.is_empty());
                Ok(Some(values.map(str::to_owned).collect()))
            }
            Some(Told::NotFound) => Ok(None),
            told => Err(failed(self.config, table, told)),
        }
    }

    fn hosts(&self, table: TableId, key: &str) -> Result<Option<Vec<RelayHost>>, String> {
        let Some(values) = self.values(table, ServiceKind::RelayHost, key)? else { return Ok(None) };
        let name = self.config.table_name(table);
        if values.len() > RELAY_HOSTS_MAX {
            return Err(format!("table <{name}> names more than {RELAY_HOSTS_MAX} relay hosts"));
        }
        let hosts = values.iter().map(|url| {
            let host = RelayHost::parse(url).map_err(|wrong| format!("table <{name}>: `{url}`: {wrong}"))?;
            let too_high = || format!("table <{name}>: `{url}`: the port is too high for --port-offset");
            host.moved(self.config.port_offset).ok_or_else(too_high)
        });
        hosts.collect::<Result<_, _>>().map(Some)
    }

    fn sources(&self, table: TableId) -> Result<Vec<IpAddr>, String> {
        let values = self.values(table, ServiceKind::SourceAddr, "")?.unwrap_or_default();
        let name = self.config.table_name(table);
        if values.is_empty() {
            return Err(format!("table <{name}> has no source address"));
        }
        if values.len() > RELAY_SOURCES_MAX {
            return Err(format!("table <{name}> has more than {RELAY_SOURCES_MAX} source addresses"));
        }
        let read = |text: &String| parse_ip(text).ok_or_else(|| format!("table <{name}>: `{text}` is not an address"));
        values.iter().map(read).collect()
    }
}

fn failed(config: &Config, table: TableId, told: Option<Told>) -> String {
    let why = match told {
        Some(Told::Failed(why) | Told::Unsafe(why)) => why,
        _ => "it was not asked".to_owned(),
    };
    format!("table <{}> cannot be asked: {why}", config.table_name(table))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{ActionKind, Memory, Options, load};

    fn config(text: &str) -> Config {
        let files = Memory::default()
            .with("r.conf", format!("listen on lo0\n{text}\nmatch for any action a\n"))
            .with("redis.conf", "url redis://127.0.0.1:1\nrelayhost_prefix r:\nsource_prefix s:\naddrname_prefix n:\n");
        load(&files, Path::new("r.conf"), &Options { port_offset: 100, ..Options::default() })
            .unwrap_or_else(|reports| panic!("{reports:?}"))
            .0
    }

    fn relay(config: &Config) -> &Relay {
        match &config.actions[0].kind {
            ActionKind::Relay(relay) => relay,
            other => panic!("{other:?}"),
        }
    }

    fn nobody(_: &Lookup) -> Option<Told> {
        None
    }

    fn hosts(direction: Result<Direction<'_>, String>) -> Vec<String> {
        direction.expect("known").hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_in_memory_says_the_host_of_a_domain_and_its_wildcards() {
        let config =
            config("action a relay domain { a.example => mx.a.example, \"*.b.example\" => \"smtp://[::1]:26\" }");
        let ask = |domain: &str| hosts(relay(&config).direction(&config, domain, &nobody));
        assert!(relay(&config).is_near() && relay(&config).questions("a.example").is_empty());
        assert_eq!(ask("a.example"), ["smtp://mx.a.example:125"]);
        assert_eq!(ask("x.y.b.example"), ["smtp://[::1]:126"]);
        assert_eq!(ask("b.example"), [""; 0], "its MX records");
    }

    #[test]
    fn what_remote_tables_say_is_read_and_what_they_do_not_say_is_temporary() {
        let config = config("table t redis:redis.conf\naction a relay host <t> src <t> helo-src <t>");
        let relay = relay(&config);
        let questions = relay.questions("a.example");
        assert_eq!((relay.is_near(), questions.len()), (false, 2));
        let told = |hosts: Told, sources: Told| {
            relay.direction(&config, "a.example", &move |lookup: &Lookup| match lookup {
                Lookup::Table { service: ServiceKind::RelayHost, key, .. } if key.is_empty() => Some(hosts.clone()),
                Lookup::Table { service: ServiceKind::SourceAddr, key, .. } if key.is_empty() => Some(sources.clone()),
                _ => None,
            })
        };
        let found = |text: &str| Told::Found(text.to_owned());
        let good =
            told(found("smtps://a.example, smtp+notls://[::1]:26"), found("192.0.2.1, ::1\n192.0.2.2")).expect("good");
        assert_eq!(good.sources.len(), 3);
        assert_eq!(hosts(Ok(good)), ["smtps://a.example:565", "smtp+notls://[::1]:126"]);
        for (hosts, sources, why) in [
            (Told::Failed("down".into()), found("192.0.2.1"), "table <t> cannot be asked: down"),
            (Told::NotFound, found("192.0.2.1"), "table <t> names no relay host"),
            (found("a b"), found("192.0.2.1"), "table <t>: `a b`: not a relay URL"),
            (found("a.example:65500"), found("192.0.2.1"), "too high for --port-offset"),
            (found("a.example"), Told::NotFound, "table <t> has no source address"),
            (found("a.example"), found("192.0.2.1, x"), "table <t>: `x` is not an address"),
            (found("a.example"), Told::Failed("slow".into()), "table <t> cannot be asked: slow"),
        ] {
            let wrong = told(hosts, sources).expect_err(why);
            assert!(wrong.contains(why), "{wrong}");
        }
        let many = vec!["192.0.2.1"; RELAY_SOURCES_MAX + 1].join(", ");
        assert!(told(found("a.example"), found(&many)).expect_err("too many").contains("more than"));
        let source: IpAddr = [192, 0, 2, 1].into();
        assert!(matches!(relay.name_question(source), Some(Lookup::Table { key, .. }) if key == "192.0.2.1"));
        let name = |told| relay.name_at(&config, source, told);
        assert_eq!(name(Some(found("m1.example"))), Ok(Some("m1.example".into())));
        assert_eq!(name(Some(Told::NotFound)), Ok(None));
        assert_eq!(name(Some(found("a b"))), Err("table <t>: `a b` is not a host name".into()));
        assert_eq!(name(Some(Told::Failed("x".into()))), Err("table <t> cannot be asked: x".into()));
        assert!(name(None).is_err());
    }

    #[test]
    fn a_pool_names_its_sources_and_how_they_are_chosen() {
        let config = config(
            "pool p { 192.0.2.2 helo m2.example weight 3, 2001:db8::1, 192.0.2.1 } select least-used\n\
             action a relay src pool p",
        );
        let relay = relay(&config);
        assert!(relay.is_near() && relay.questions("a.example").is_empty());
        let direction = relay.direction(&config, "a.example", &nobody).expect("known");
        let sources: Vec<String> = direction.sources.iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["192.0.2.2", "2001:db8::1", "192.0.2.1"]);
        let pool = direction.pool.expect("a pool");
        assert_eq!((pool.name.as_str(), pool.select.name()), ("p", "least-used"));
        let first = &pool.sources[0];
        assert_eq!((first.helo.as_deref(), first.weight, pool.sources[1].weight), (Some("m2.example"), 3, 1));
        let said = crate::describe::from(&direction);
        assert_eq!(said, " from pool p: 192.0.2.2 weight 3, 2001:db8::1, 192.0.2.1 (least-used)");
    }

    #[test]
    fn names_of_addresses_are_found_however_they_are_written() {
        let config = config("action a relay helo-src { 192.0.2.1 => one.example, \"2001:DB8:0::2\" => two.example }");
        let name = |ip: &str| relay(&config).name_at(&config, ip.parse().expect("an address"), None);
        assert_eq!(name("192.0.2.1"), Ok(Some("one.example".into())));
        assert_eq!(name("::ffff:192.0.2.1"), Ok(Some("one.example".into())));
        assert_eq!(name("2001:db8::2"), Ok(Some("two.example".into())));
        assert_eq!(name("192.0.2.3"), Ok(None));
    }

    #[test]
    fn mail_from_replaces_the_sender_or_his_domain_and_never_the_null_sender() {
        let whole = config("action a relay mail-from us@example.org");
        let domain = config("action a relay mail-from \"@example.org\"");
        assert_eq!(relay(&whole).reverse_path("gilles@a.example"), "us@example.org");
        assert_eq!(relay(&domain).reverse_path("gilles@a.example"), "gilles@example.org");
        assert_eq!(relay(&domain).reverse_path("\"a@b\"@a.example"), "\"a@b\"@example.org");
        for config in [whole, domain] {
            assert_eq!(relay(&config).reverse_path(""), "");
        }
    }
}
